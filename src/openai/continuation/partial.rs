//! What was passed on of a stream, as far as another one can go on from it.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::chunk::{Chunk, Delta, Head};
use super::splice::{Blank, Opening, Splice};
use super::{Continuation, Style, Unfit, json, request};
use crate::openai::{Event, Frame, Route};

/// More text than this is not kept: no answer is as long, and each stream keeps one.
const TEXT_MAX: usize = 4 << 20;

/// What has been passed on of a stream so far.
///
/// Tokens are counted as providers count them: by `usage` where chunks carry it, else by the entries of `logprobs`,
/// else one for each piece of text. Providers that put several tokens into one event without saying so make the limit
/// of the rest a little too generous, and the usage a little too small.
#[derive(Debug)]
pub struct Partial {
    route: Route,
    unfit: Option<Unfit>,
    pub(super) head: Head,
    /// The client has been told whose message it is.
    pub(super) has_role: bool,
    /// What comes next belongs to the reasoning, as long as nothing else has come.
    pub(super) is_reasoning: bool,
    pub(super) reasoning: Text,
    pub(super) content: Text,
    tokens: Tokens,
    /// Those of the question, where the stream told them as it went.
    pub(super) prompt_tokens: Option<u64>,
}

/// What was made of an answer, in tokens.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tokens {
    made: u64,
    /// Without those that are nothing but white space at the end, which is not sent and will be made again. One that only
    /// ends in it is kept: it has begun, and providers count what they were sent of it.
    pub(super) kept: u64,
    /// Those of the reasoning.
    pub(super) reasoning: u64,
    /// Some came without a usage that counted them: pieces of text are no tokens to providers that cut it otherwise.
    pub(super) is_guess: bool,
}

impl Partial {
    /// Nothing yet, of a stream on `route` with so many `choices` (the `n` of the request).
    #[must_use]
    pub fn new(route: Route, choices: u64) -> Self {
        let unfit = match route {
            Route::ChatCompletions | Route::Completions => (choices > 1).then_some(Unfit::ManyChoices),
            Route::Embeddings | Route::Responses | Route::Messages | Route::Other => Some(Unfit::Route),
        };
        Self {
            route,
            unfit,
            head: Head::default(),
            has_role: false,
            is_reasoning: true,
            reasoning: Text::default(),
            content: Text::default(),
            tokens: Tokens::default(),
            prompt_tokens: None,
        }
    }

    /// Takes note of a frame that was passed on to the client.
    pub fn observe(&mut self, frame: &Frame) {
        if self.unfit.is_some() {
            return;
        }
        let noted = match frame {
            Frame::Event(bytes) => self.note(Event::new(bytes)),
            Frame::Part { .. } => Err(Unfit::TooLong),
        };
        if let Err(unfit) = noted {
            self.unfit = Some(unfit);
            (self.reasoning, self.content, self.head) = (Text::default(), Text::default(), Head::default());
        }
    }

    /// Bytes it holds, to be accounted for. Beyond 4 MiB of text it lets go of everything and cannot be continued.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.reasoning.text.capacity() + self.content.text.capacity() + self.head.bytes()
    }

    /// Why the rest can never be asked for, whatever comes: it was so from the beginning, or has become so. From then on
    /// nothing is kept, here or of the request, for the sake of going on.
    #[must_use]
    pub const fn unfit(&self) -> Option<Unfit> {
        self.unfit
    }

    /// Nothing that a reader would miss has been passed on: no text but white space, no reasoning, no tool call, no ending.
    /// [`Partial::request`] asks the same again, of any provider.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        let is_silent = self.reasoning.solid().is_empty() && self.content.solid().is_empty();
        self.unfit.is_none() && is_silent && !self.is_bare_text()
    }

    /// The request that asks for the rest, made of the `body` of the first one, the one that the client sent; and what
    /// makes the answer to it fit. A partial that [is blank](Self::is_blank) is asked for again as it was, whatever the
    /// `style`.
    ///
    /// # Errors
    /// Why it cannot be asked for. The stream has to end with an error, or by what it lacks if it is only
    /// [`Unfit::Finished`].
    pub fn request(&self, body: &[u8], style: Option<Style>) -> Result<Continuation, Unfit> {
        if let Some(unfit) = self.unfit {
            return Err(unfit);
        }
        if self.is_blank() {
            return Ok(Continuation {
                body: Bytes::copy_from_slice(body),
                splice: Splice::new(self, Opening { blank: Blank::of(self), ..Opening::default() }),
            });
        }
        if self.open().solid().ends_with(char::REPLACEMENT_CHARACTER) {
            return Err(Unfit::Unreadable); // the other half of a character was to come
        }
        let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
        let body = std::str::from_utf8(body).map_err(|_| Unfit::BodyUnreadable)?;
        let style = style.ok_or(Unfit::NotSupported)?;
        let (body, opening) = match self.route {
            Route::Completions => request::completions(self, body)?,
            _ => request::chat(self, body, style)?,
        };
        Ok(Continuation { body: body.into(), splice: Splice::new(self, opening) })
    }

    pub(super) const fn tokens(&self) -> Tokens {
        self.tokens
    }

    /// The text that was being written.
    pub(super) const fn open(&self) -> &Text {
        if self.is_reasoning { &self.reasoning } else { &self.content }
    }

    /// Text without a chat around it, of which every byte counts.
    fn is_bare_text(&self) -> bool {
        self.route == Route::Completions && !self.content.text.is_empty()
    }

    fn note(&mut self, event: Event<'_>) -> Result<(), Unfit> {
        let data = event.data();
        let data = data.trim_ascii();
        if data.is_empty() {
            return Ok(());
        }
        if data == b"[DONE]" {
            return Err(Unfit::Finished);
        }
        let data = std::str::from_utf8(data).map_err(|_| Unfit::Unreadable)?;
        let chunk = Chunk::read(data).ok_or(Unfit::Unreadable)?;
        if chunk.is_error(event) {
            return Err(Unfit::Failed);
        }
        self.head.learn(&chunk);
        let usage = chunk.usage();
        self.prompt_tokens = usage.prompt_tokens.or(self.prompt_tokens);
        let (made, solid) = (self.tokens.made, self.reasoning.solid + self.content.solid);
        if let Some(choice) = chunk.choice().map_err(|_| Unfit::ManyChoices)? {
            self.add(&choice.delta(), choice.tokens())?;
            if choice.is_finished() {
                return Err(Unfit::Finished);
            }
        }
        match usage.completion_tokens {
            Some(told) => self.tokens.made = told,
            None => self.tokens.is_guess |= self.tokens.made > made,
        }
        let is_solid = self.reasoning.solid + self.content.solid > solid || self.open().blank().is_empty();
        if is_solid || self.is_bare_text() {
            self.tokens.kept = self.tokens.made;
        }
        Ok(())
    }

    /// Adds what one event brought, so many `tokens` if it said so.
    fn add(&mut self, delta: &Delta<'_>, tokens: Option<u64>) -> Result<(), Unfit> {
        if let Some(other) = delta.other {
            return Err(other);
        }
        self.has_role |= delta.has_role;
        let mut pieces = 0;
        if let Some(piece) = delta.reasoning() {
            if !self.content.solid().is_empty() {
                return Err(Unfit::Reasoning);
            }
            self.is_reasoning = true; // again, if white space stood between
            self.reasoning.push(piece)?;
            pieces += 1;
        }
        if let Some(piece) = delta.content.filter(|content| !json::is_empty(content)) {
            if self.is_reasoning {
                (self.tokens.reasoning, self.tokens.kept) = (self.tokens.made, self.tokens.made);
                self.is_reasoning = false;
            }
            self.content.push(piece)?;
            pieces += 1;
        }
        self.tokens.made += tokens.unwrap_or(pieces);
        let held = self.reasoning.text.len() + self.content.text.len() + self.head.bytes();
        if held > TEXT_MAX { Err(Unfit::TooLong) } else { Ok(()) }
    }
}

/// Text that grows, and how much of it is more than white space at its end.
#[derive(Debug, Default)]
pub(super) struct Text {
    text: String,
    solid: usize,
}

impl Text {
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Without the white space at its end.
    pub(super) fn solid(&self) -> &str {
        self.text.get(..self.solid).unwrap_or_default()
    }

    /// The white space at its end.
    pub(super) fn blank(&self) -> &str {
        self.text.get(self.solid..).unwrap_or_default()
    }

    fn push(&mut self, piece: &RawValue) -> Result<(), Unfit> {
        let piece = json::string(piece).ok_or(Unfit::Unknown)?;
        let solid = trim(&piece).len();
        if solid > 0 {
            self.solid = self.text.len() + solid;
        }
        if self.text.is_empty() {
            self.text.reserve(1024); // most answers are longer than a word
        }
        self.text.push_str(&piece);
        Ok(())
    }
}

/// `text` without what chat templates take from its end. They are written for Python, whose white space includes the
/// four separators of ASCII.
pub(super) fn trim(text: &str) -> &str {
    text.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '\x1c'..='\x1f'))
}
