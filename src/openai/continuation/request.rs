//! The request that asks for the rest: the first one, with the partial answer spliced in.

use serde_json::value::RawValue;

use super::echo::{Echo, Repeats, is_doubtful};
use super::json::{self, Edits, Object};
use super::partial::{Partial, trim};
use super::splice::{Blank, Opening};
use super::{Style, Unfit};

/// Members that prescribe the form of the output from its first token on: those of vLLM, NIM and SGLang. What prescribes
/// it does not know of the partial answer, and would have the rest begin like a whole one.
const CONSTRAINTS: [&str; 11] = [
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "structural_tag",
    "json_schema",
    "regex",
    "ebnf",
    "grammar",
    "prompt_embeds",
];

/// All stop sequences together: they are a few words.
const STOPS_MAX: usize = 1024;

/// The rest of a chat's answer: the partial one is appended to `messages`, or to the last message where the client gave
/// a beginning of its own to be continued.
pub(super) fn chat(partial: &Partial, body: &str, style: Style) -> Result<(String, Opening), Unfit> {
    let object = Object::read(body).ok_or(Unfit::BodyUnreadable)?;
    check(&object)?;
    let mut edits = Edits::of(body);
    let list = object.value("messages").ok_or(Unfit::BodyUnreadable)?;
    let messages: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(|_| Unfit::BodyUnreadable)?;
    let last = messages.last().map(|last| Object::read(last.get()).ok_or(Unfit::BodyUnreadable)).transpose()?;
    let asks = |style| match style {
        Style::Vllm => object.is_true("continue_final_message"),
        Style::Prefix | Style::PrefixEcho => last.as_ref().is_some_and(|last| last.is_true("prefix")),
    };
    let reasoning = match style {
        Style::Vllm if partial.content.solid().is_empty() => return Err(Unfit::Reasoning),
        Style::Vllm => "",
        _ if partial.is_reasoning => partial.reasoning.solid(),
        _ => partial.reasoning.as_str(),
    };
    let opening = match (asks(Style::Vllm), asks(Style::Prefix), last) {
        (false, false, _) => {
            let message = message(partial.content.solid(), reasoning, style);
            match messages.last() {
                Some(last) => edits.insert(last.get(), last.get().len(), format!(",{message}")),
                None => edits.insert(list.get(), 1, message),
            }
            let echo = match (style, partial.content.solid()) {
                (Style::Vllm, _) | (_, "") => Echo::of(partial.open().as_str(), Repeats::Never),
                (Style::Prefix, said) => Echo::of(said, Repeats::Perhaps),
                (Style::PrefixEcho, said) => Echo::of(said, Repeats::Always),
            };
            Opening { blank: Blank::of(partial), echo, ..Opening::default() }
        }
        // Asked for in the way of another kind of provider, which may do anything with it.
        (_, true, _) if style == Style::Vllm => return Err(Unfit::LastMessage),
        (true, ..) if style.is_prefix() => return Err(Unfit::LastMessage),
        (.., None) => return Err(Unfit::LastMessage),
        (.., Some(last)) => append(partial, &last, reasoning, style, &mut edits)?,
    };
    if style == Style::Vllm {
        edits.set(&object, "continue_final_message", "true");
        edits.set(&object, "add_generation_prompt", "false");
    }
    let tokens = partial.tokens();
    lower(&object, tokens.kept, &mut edits)?;
    let in_prompt = match style {
        Style::Vllm => tokens.kept.saturating_sub(tokens.reasoning),
        Style::Prefix | Style::PrefixEcho => tokens.kept,
    };
    let asked = partial.prompt_tokens.filter(|_| style == Style::Vllm && !tokens.is_guess);
    let stops = begun_stops(&object, partial.content.solid(), tokens.kept)?;
    Ok((edits.apply(), Opening { made: tokens.kept, in_prompt, asked, stops, ..opening }))
}

/// The rest of a plain completion: the text is appended to the prompt. Without a limit in the request that of the
/// provider begins anew.
pub(super) fn completions(partial: &Partial, body: &str) -> Result<(String, Opening), Unfit> {
    let object = Object::read(body).ok_or(Unfit::BodyUnreadable)?;
    check(&object)?;
    if object.value("suffix").is_some_and(|suffix| !json::is_empty(suffix)) {
        return Err(Unfit::Echo);
    }
    if object.value("logprobs").is_some_and(|wanted| wanted.get() != "false") {
        return Err(Unfit::Offsets);
    }
    let prompt = object.value("prompt").ok_or(Unfit::LastMessage)?;
    let prompt = match serde_json::from_str::<Vec<&RawValue>>(prompt.get()).as_deref() {
        Ok([only]) => *only,
        Ok(_) => return Err(Unfit::LastMessage),
        Err(_) => prompt,
    };
    let mut edits = Edits::of(body);
    append_to(prompt, partial.content.as_str(), &mut edits)?;
    let made = partial.tokens().kept;
    lower(&object, made, &mut edits)?;
    let stops = begun_stops(&object, partial.content.as_str(), made)?;
    Ok((edits.apply(), Opening { made, in_prompt: made, stops, ..Opening::default() }))
}

/// Appends to a message that the client itself wants continued. A provider that repeats what it continues has repeated
/// the client's beginning, which then is in the partial answer, too.
fn append(
    partial: &Partial,
    last: &Object<'_>,
    reasoning: &str,
    style: Style,
    edits: &mut Edits<'_>,
) -> Result<Opening, Unfit> {
    let content = last.value("content").ok_or(Unfit::LastMessage)?;
    let begun = json::string(content).ok_or(Unfit::LastMessage)?;
    if last.value("tool_calls").is_some_and(|calls| !json::is_empty(calls)) {
        return Err(Unfit::LastMessage);
    }
    let said = partial.content.as_str();
    let is_within = !said.is_empty() && begun.starts_with(said);
    let repeats = if style == Style::PrefixEcho { Repeats::Always } else { Repeats::Perhaps };
    let (text, echo) = match (style, said.strip_prefix(&*begun)) {
        (Style::Vllm, _) => (said, Echo::of(said, Repeats::Never)),
        (Style::Prefix, _) if begun.is_empty() => (said, Echo::of(trim(said), repeats)),
        (Style::Prefix, Some(_)) if is_doubtful(&begun) => return Err(Unfit::LastMessage),
        (Style::Prefix, None) if is_within && is_doubtful(said) => return Err(Unfit::LastMessage),
        (Style::Prefix, None) if !is_within => (said, Echo::of(said, Repeats::Never)),
        (Style::PrefixEcho, None) if !is_within && !said.is_empty() => return Err(Unfit::LastMessage),
        (_, Some(text)) => (text, Echo::of(&format!("{begun}{}", trim(text)), repeats)),
        // It broke while it repeated the client's beginning, as it will again.
        (_, None) => ("", Echo::of(said, repeats)),
    };
    let solid = trim(text);
    append_to(content, solid, edits)?;
    if !reasoning.is_empty() {
        if last.value("reasoning_content").is_some() {
            return Err(Unfit::Reasoning);
        }
        edits.set(last, "reasoning_content", &json::quoted(reasoning));
    }
    let content = text.get(solid.len()..).unwrap_or_default().to_owned();
    Ok(Opening { blank: Blank { content, ..Blank::of(partial) }, echo, ..Opening::default() })
}

/// Appends `text` to a JSON string.
fn append_to(string: &RawValue, text: &str, edits: &mut Edits<'_>) -> Result<(), Unfit> {
    let end = string.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(Unfit::LastMessage)?;
    edits.insert(string.get(), 1 + end.len(), json::escaped(text));
    Ok(())
}

/// The partial answer as a message.
fn message(content: &str, reasoning: &str, style: Style) -> String {
    let mut message = format!(r#"{{"role":"assistant","content":{}"#, json::quoted(content));
    if !reasoning.is_empty() {
        message.extend([r#","reasoning_content":"#, &json::quoted(reasoning)]);
    }
    message.push_str(match style {
        Style::Vllm => "}",
        Style::Prefix | Style::PrefixEcho => r#","prefix":true}"#,
    });
    message
}

/// Refuses requests whose answers cannot be taken up in the middle.
fn check(object: &Object<'_>) -> Result<(), Unfit> {
    let many = |name| object.read_as::<f64>(name).is_some_and(|count| count > 1.0);
    if many("n") || many("best_of") || object.is_true("use_beam_search") {
        return Err(Unfit::ManyChoices);
    }
    if object.is_true("echo") {
        return Err(Unfit::Echo);
    }
    let format = object.value("response_format").filter(|format| !json::is_empty(format));
    let kind = format.and_then(|format| Object::read(format.get())?.read_as::<String>("type"));
    let is_forced = object.value("tool_choice").is_some_and(forces_a_tool);
    let is_text = format.is_none() || kind.as_deref() == Some("text");
    let constrained = CONSTRAINTS.iter().any(|name| object.value(name).is_some_and(|value| !json::is_empty(value)));
    // NIM's extensions have an object of their own.
    let extended = object.value("nvext").is_some_and(|extensions| extensions.get().contains("guided_"));
    if !is_text || is_forced || constrained || extended { Err(Unfit::Constrained) } else { Ok(()) }
}

/// Whether this choice of tools leaves none but to call one.
fn forces_a_tool(choice: &RawValue) -> bool {
    if let Some(word) = json::string(choice) {
        return matches!(&*word, "required" | "any");
    }
    let Some(choice) = Object::read(choice.get()) else { return true };
    match choice.value("type").and_then(json::string).as_deref() {
        Some("auto" | "none") => false,
        Some("allowed_tools") | None => {
            let allowed = choice.value("allowed_tools").and_then(|allowed| Object::read(allowed.get()));
            let mode = allowed.as_ref().unwrap_or(&choice).value("mode");
            mode.and_then(json::string).as_deref() != Some("auto")
        }
        Some(_) => true, // names one
    }
}

/// What would complete the stop sequences that may have begun at the end of `sent`, so many tokens. That is a part of the question now, in
/// which a provider looks for none; many, but not all, keep back what may become one.
fn begun_stops(object: &Object<'_>, sent: &str, made: u64) -> Result<Vec<String>, Unfit> {
    let Some(stop) = object.value("stop") else { return Ok(Vec::new()) };
    let one = json::string(stop).map(|stop| vec![stop.into_owned()]);
    let stops: Vec<String> = one.or_else(|| object.read_as("stop")).unwrap_or_default();
    if stops.iter().map(String::len).sum::<usize>() > STOPS_MAX {
        return Err(Unfit::Stop);
    }
    // Before the fewest tokens are made, none ends an answer.
    let may_end = object.read_as::<u64>("min_tokens").is_none_or(|least| made >= least);
    if may_end && stops.iter().any(|stop| !stop.is_empty() && sent.ends_with(stop)) {
        return Err(Unfit::Finished);
    }
    let halves = stops.iter().flat_map(|stop| stop.char_indices().skip(1).map(|(at, _)| stop.split_at(at)));
    Ok(halves.filter(|(begun, _)| sent.ends_with(begun)).map(|(_, rest)| rest.to_owned()).collect())
}

/// Lowers the limits of tokens by what was made.
fn lower(object: &Object<'_>, made: u64, edits: &mut Edits<'_>) -> Result<(), Unfit> {
    for name in ["max_tokens", "max_completion_tokens"] {
        let Some(limit) = object.value(name) else { continue };
        if serde_json::from_str::<i64>(limit.get()).is_ok_and(|limit| limit < 0) {
            continue; // no limit, to those who take it
        }
        let tokens: u64 = serde_json::from_str(limit.get()).map_err(|_| Unfit::Limit)?;
        if tokens <= made {
            return Err(Unfit::Finished);
        }
        edits.replace(limit.get(), (tokens - made).to_string());
    }
    if let Some(least) = object.value("min_tokens") {
        let tokens: u64 = serde_json::from_str(least.get()).map_err(|_| Unfit::Limit)?;
        edits.replace(least.get(), tokens.saturating_sub(made).to_string());
    }
    Ok(())
}
