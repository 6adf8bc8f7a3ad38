//! An answer that was begun elsewhere, and what is left of it.
//!
//! A token counts where it begins: one of which a partial answer has only a part (its last white space was trimmed, say)
//! is a token of the partial answer, and what is missing of it comes at the front of the rest, for nothing.

use serde_json::Value;

use super::script::{Piece, Script};
use crate::sim::content;
use crate::sim::settings::Continuation;

/// A partial answer that is to be continued.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Partial {
    pub(super) reasoning: String,
    pub(super) content: String,
    /// Whether the answer repeats it before it goes on.
    pub(super) echoes: bool,
}

impl Partial {
    /// The partial answer at the end of a chat, if the request asks to continue one in a way that is understood.
    pub(super) fn of_chat(body: &Value, messages: &[Value], style: Continuation) -> Result<Option<Self>, String> {
        let says = |value: &Value, field: &str| value.get(field).and_then(Value::as_bool);
        let Some(last) = messages.last() else { return Ok(None) };
        if style == Continuation::Off {
            return refuse_unknown(body, messages);
        }
        let of_final = style.knows_final_message() && says(body, "continue_final_message") == Some(true);
        let of_prefix = style.knows_prefix() && says(last, "prefix") == Some(true);
        if !of_final && !of_prefix {
            return Ok(None);
        }
        if of_final && says(body, "add_generation_prompt") != Some(false) {
            return Err("cannot set both `continue_final_message` and `add_generation_prompt` to True; the latter is \
                        true unless it is set to false"
                .to_owned());
        }
        if last.get("role").and_then(Value::as_str) != Some("assistant") {
            return Err("the last message is to be continued, and its role is not assistant".to_owned());
        }
        let text = |field: &str| last.get(field).map(super::text).unwrap_or_default();
        // A chat template shows content alone: reasoning that comes along is not seen.
        let reasoning = if of_final { String::new() } else { text("reasoning_content") };
        Ok(Some(Self { reasoning, content: text("content"), echoes: style == Continuation::PrefixEcho }))
    }

    /// Prompt and partial answer of a text completion: a prompt that goes on after its first line with the beginning of
    /// what would be answered to that line.
    pub(super) fn of_text<'a>(model: &str, prompt: &'a str, chunks: Option<usize>) -> Option<(&'a str, Self)> {
        let (asked, begun) = prompt.split_at(prompt.find('\n')? + 1);
        let fits = !begun.is_empty() && content::deltas(model, asked, chunks).concat().starts_with(begun);
        fits.then(|| (asked, Self { reasoning: String::new(), content: begun.to_owned(), echoes: false }))
    }

    fn is_empty(&self) -> bool {
        self.reasoning.is_empty() && self.content.is_empty()
    }
}

fn refuse_unknown(body: &Value, messages: &[Value]) -> Result<Option<Partial>, String> {
    for field in ["continue_final_message", "add_generation_prompt"] {
        if body.get(field).is_some() {
            return Err(format!("Unrecognized request argument supplied: {field}"));
        }
    }
    match messages.iter().position(|message| message.get("prefix").is_some()) {
        Some(index) => Err(format!("Unknown parameter: 'messages[{index}].prefix'.")),
        None => Ok(None),
    }
}

impl Script {
    /// What is left of this answer after `partial`, and how many of its tokens that has. A partial answer that is not the
    /// beginning of this one is followed by words that fit nowhere.
    pub(super) fn after(self, partial: &Partial, model: &str, prompt: &str) -> (Self, usize) {
        if partial.is_empty() {
            return (self, 0);
        }
        let (reasoning, mut content): (Vec<Piece>, Vec<Piece>) =
            self.pieces.into_iter().partition(|piece| matches!(piece, Piece::Reasoning(_)));
        let thought = Rest::of(&reasoning, &partial.reasoning);
        let said = Rest::of(&content, &partial.content);
        let (Some(thought), Some(said)) = (thought, said) else { return astray(partial, model, prompt) };
        let begun = thought.begun + said.begun;
        if partial.content.is_empty() {
            let mut pieces = thought.left(&reasoning);
            pieces.append(&mut content);
            return (Self { pieces, free: thought.lonely.into() }, begun);
        }
        if partial.echoes {
            return (Self { pieces: content, free: said.begun }, begun);
        }
        (Self { pieces: said.left(&content), free: said.lonely.into() }, begun)
    }
}

fn astray(partial: &Partial, model: &str, prompt: &str) -> (Script, usize) {
    let echo = partial.echoes.then(|| Piece::Content(partial.content.clone()));
    let words = content::astray(model, prompt, &[&partial.reasoning, &partial.content]);
    let free = echo.is_some().into();
    let pieces = echo.into_iter().chain(words.into_iter().map(Piece::Content)).collect();
    (Script { pieces, free }, content::tokens(&partial.content) as usize)
}

/// Where a text stands in some pieces.
#[derive(Debug)]
struct Rest {
    /// So many pieces have begun.
    begun: usize,
    /// What is missing of the last that has.
    missing: String,
    /// Nothing but that is missing.
    lonely: bool,
}

impl Rest {
    /// `None` if the pieces do not begin with this text.
    fn of(pieces: &[Piece], text: &str) -> Option<Self> {
        let (mut begun, mut left, mut missing) = (0, text, String::new());
        for piece in pieces.iter().map(Piece::text) {
            if left.is_empty() {
                break;
            }
            begun += 1;
            if let Some(rest) = left.strip_prefix(piece) {
                left = rest;
            } else {
                missing = piece.strip_prefix(left)?.to_owned();
                left = "";
            }
        }
        let lonely = !missing.is_empty() && begun == pieces.len();
        left.is_empty().then_some(Self { begun, missing, lonely })
    }

    fn left(&self, pieces: &[Piece]) -> Vec<Piece> {
        let mut left = pieces[self.begun..].to_vec();
        match left.first_mut() {
            Some(first) => first.prepend(&self.missing),
            None if self.lonely => left.extend(pieces.last().map(|last| last.with_text(&self.missing))),
            None => {}
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script() -> Script {
        let content = ["one ", "two ", "three "].map(|text| Piece::Content(text.to_owned()));
        let reasoning = ["hm ", "so "].map(|text| Piece::Reasoning(text.to_owned()));
        Script { pieces: reasoning.into_iter().chain(content).collect(), free: 0 }
    }

    fn after(reasoning: &str, content: &str, echoes: bool) -> (Vec<String>, usize, usize) {
        let partial = Partial { reasoning: reasoning.to_owned(), content: content.to_owned(), echoes };
        let (rest, begun) = script().after(&partial, "m", "p");
        (rest.pieces.iter().map(|piece| piece.text().to_owned()).collect(), rest.tokens(), begun)
    }

    #[test]
    fn every_beginning_is_continued_and_tokens_add_up() {
        let (thought, said) = ("hm so ", "one two three ");
        for cut in 1..=thought.len() {
            let (rest, tokens, begun) = after(&thought[..cut], "", false);
            assert_eq!(format!("{}{}", &thought[..cut], rest.concat()), format!("{thought}{said}"));
            assert_eq!(tokens + begun, 5, "{cut}");
        }
        for cut in 1..=said.len() {
            let (rest, tokens, begun) = after("", &said[..cut], false);
            assert_eq!(format!("{}{}", &said[..cut], rest.concat()), said);
            assert_eq!(tokens + begun, 3, "{cut}");
            let (whole, tokens, begun) = after("", &said[..cut], true);
            assert_eq!((whole.concat().as_str(), tokens + begun), (said, 3), "{cut}");
        }
    }

    #[test]
    fn white_space_that_was_trimmed_comes_first() {
        assert_eq!(after("", "one", false), (vec![" two ".to_owned(), "three ".to_owned()], 2, 1));
        assert_eq!(after("", "one two three", false), (vec![" ".to_owned()], 0, 3));
    }

    #[test]
    fn what_is_no_beginning_leads_astray() {
        for (reasoning, content) in [("", "two"), ("so", ""), ("", "one two three four"), ("ha", "one ")] {
            let (rest, _, _) = after(reasoning, content, false);
            assert!(!script().text().contains(&rest[0]), "{rest:?}");
            assert_eq!(after(reasoning, content, false).0, rest, "always the same");
        }
    }
}
