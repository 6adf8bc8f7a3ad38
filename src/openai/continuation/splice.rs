//! The events of a continuation, made to go on where the broken stream ended.

use std::borrow::Cow;
use std::{iter, option, vec};

use bytes::Bytes;
use serde_json::value::RawValue;

use super::chunk::{Choice, Chunk, Head};
use super::echo::{Echo, Heard};
use super::json::{self, Edits, Object};
use super::partial::{Partial, trim};
use super::{Misfit, event};
use crate::openai::{Event, Frame};

/// The frames to pass on for one of the continuation: often itself, rewritten; none for what was passed on before;
/// several when some were held back until it was clear that they are no echo.
pub type Events = iter::Chain<vec::IntoIter<Frame>, option::IntoIter<Frame>>;

/// Rewrites the events of one continuation.
///
/// Each gets the `id`, `created`, `model` and `system_fingerprint` of the first stream; a second role, white space and
/// text that were passed on before are taken out, and events of which nothing is left; usage is told as if the answer
/// had come in one piece. Of usage only the sums are set right (`prompt_tokens`, `completion_tokens`, `total_tokens`):
/// their details (reasoning, cached tokens) stay as the provider told them, for the continuation alone.
#[derive(Debug, Clone)]
pub struct Splice {
    head: Head,
    has_role: bool,
    /// Text of the answer itself has come that is more than white space: after it no reasoning can.
    has_content: bool,
    blank: Blank,
    echo: Option<Echo>,
    made: u64,
    in_prompt: u64,
    /// The fewest tokens that a question has which ends with the partial answer, until some of the rest was passed on.
    prompt_least: Option<u64>,
    /// What must not come next: it would complete a stop sequence.
    stops: Vec<String>,
}

/// Fewer tokens of the partial answer than this could be made up for by what a template puts around it.
const TELLING: u64 = 32;

/// White space that was passed on but not sent: what comes of it is dropped.
#[derive(Debug, Clone, Default)]
pub(super) struct Blank {
    pub(super) reasoning: String,
    pub(super) content: String,
}

impl Blank {
    pub(super) fn of(partial: &Partial) -> Self {
        Self { reasoning: partial.reasoning.blank().to_owned(), content: partial.content.blank().to_owned() }
    }
}

/// How a continuation begins, as asked for.
#[derive(Debug, Default)]
pub(super) struct Opening {
    pub(super) blank: Blank,
    /// What is listened for: the partial answer, repeated before anything new comes.
    pub(super) echo: Option<Echo>,
    /// Tokens that were made before.
    pub(super) made: u64,
    /// Those of them that are in the prompt now.
    pub(super) in_prompt: u64,
    /// Those of the first question, where the prompt of the rest is that with the partial answer behind it, and the
    /// provider itself has counted both.
    pub(super) asked: Option<u64>,
    /// What would complete a stop sequence.
    pub(super) stops: Vec<String>,
}

impl Splice {
    pub(super) fn new(partial: &Partial, opening: Opening) -> Self {
        Self {
            head: partial.head.clone(),
            has_role: partial.has_role,
            has_content: !partial.content.solid().is_empty(),
            blank: opening.blank,
            echo: opening.echo,
            made: opening.made,
            in_prompt: opening.in_prompt,
            // Half of them: text may make fewer tokens than it was made of.
            prompt_least: opening
                .asked
                .filter(|_| opening.in_prompt >= TELLING)
                .map(|asked| asked.saturating_add(opening.in_prompt / 2)),
            stops: opening.stops,
        }
    }

    /// Bytes it holds, to be accounted for.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let stops: usize = self.stops.iter().map(String::capacity).sum();
        self.head.bytes()
            + self.blank.reasoning.capacity()
            + self.blank.content.capacity()
            + self.echo.as_ref().map_or(0, Echo::bytes)
            + stops
    }

    /// What to pass on for the next `frame` of the continuation, in order. The caller shows each to
    /// [`Partial::observe`](super::Partial::observe), as it does with those of the first stream.
    ///
    /// # Errors
    /// What comes does not fit to what was passed on: the stream has to end with an error.
    pub fn rewrite(&mut self, frame: Frame) -> Result<Events, Misfit> {
        let Frame::Event(bytes) = frame else { return Err(Misfit::TooLong) };
        let bytes = event::without_bom(bytes);
        let data = event::data(&bytes)?;
        let data = data.trim_ascii();
        if data.is_empty() {
            return Ok(Vec::new().into_iter().chain(Some(Frame::Event(bytes.clone()))));
        }
        if data == "[DONE]" {
            self.echo.as_ref().map(Echo::broke_off).transpose()?;
            return Ok(self.release(false)?.into_iter().chain(Some(Frame::Event(bytes.clone()))));
        }
        let chunk = Chunk::read(data).ok_or(Misfit::Unreadable)?;
        if chunk.is_error(Event::new(&bytes)) {
            // What it would have become of an echo that had begun is not known, and nobody needs it any more.
            return Ok(self.release(true)?.into_iter().chain(Some(Frame::Event(bytes.clone()))));
        }
        if let Some(least) = self.prompt_least
            && self.head.is_of_model(&chunk)
            && chunk.usage().prompt_tokens.is_some_and(|tokens| tokens < least)
        {
            return Err(Misfit::Anew);
        }
        let choice = chunk.choice().map_err(|_| Misfit::ManyChoices)?;
        let heard = self.listen(choice)?;
        let (before, said) = match (heard, &mut self.echo) {
            (Heard::Maybe, Some(echo)) => {
                echo.hold(Frame::Event(bytes.clone()), true)?;
                return Ok(Vec::new().into_iter().chain(None));
            }
            (Heard::Beside, Some(echo)) if echo.holds() => {
                echo.hold(Frame::Event(bytes.clone()), false)?;
                return Ok(Vec::new().into_iter().chain(None));
            }
            (Heard::Echo, Some(echo)) => {
                let held = echo.release(true);
                return Ok(self.fit_held(held)?.into_iter().chain(None));
            }
            (Heard::Ended(said), _) => (self.release(true)?, said),
            (Heard::Not, _) => (self.release(false)?, 0),
            (Heard::Beside | Heard::Maybe | Heard::Echo, _) => (Vec::new(), 0),
        };
        Ok(before.into_iter().chain(self.fit(&bytes, data, &chunk, said)?))
    }

    /// May what this choice says be an echo? An event without a choice, such as one of usage, says nothing of it.
    fn listen(&mut self, choice: Option<&Choice<'_>>) -> Result<Heard, Misfit> {
        let Some(echo) = &mut self.echo else { return Ok(Heard::Beside) };
        let Some(choice) = choice else { return Ok(Heard::Beside) };
        let delta = choice.delta();
        let text = delta.reasoning().or(delta.content).and_then(json::string).unwrap_or_default();
        if text.is_empty() && delta.other.is_some() {
            return echo.broke_off();
        }
        match (echo.hear(&text)?, choice.is_finished()) {
            (Heard::Maybe | Heard::Echo | Heard::Beside, true) => echo.broke_off(),
            (heard, _) => Ok(heard),
        }
    }

    /// What was held is an echo or none, which is clear now: makes fit what is to be passed on of it.
    fn release(&mut self, was_echo: bool) -> Result<Vec<Frame>, Misfit> {
        let held = self.echo.take().map(|mut echo| echo.release(was_echo));
        self.fit_held(held.into_iter().flatten())
    }

    fn fit_held(&mut self, held: impl Iterator<Item = Frame>) -> Result<Vec<Frame>, Misfit> {
        let mut out = Vec::new();
        for frame in held {
            let data = event::data(frame.bytes())?;
            let chunk = Chunk::read(data.trim_ascii()).ok_or(Misfit::Unreadable)?;
            out.extend(self.fit(frame.bytes(), data.trim_ascii(), &chunk, 0)?);
        }
        Ok(out)
    }

    /// The event made to fit, without the first `said` bytes of its text; `None` if nothing is left of it.
    fn fit(&mut self, bytes: &Bytes, data: &str, chunk: &Chunk<'_>, said: usize) -> Result<Option<Frame>, Misfit> {
        let mut edits = Edits::of(data);
        if let Some(choice) = chunk.choice().map_err(|_| Misfit::ManyChoices)?
            && !self.fit_choice(choice, data, said, &mut edits)?
            && chunk.usage.is_none()
        {
            return Ok(None);
        }
        self.head.impose(chunk, &mut edits);
        if let Some(usage) = chunk.usage {
            self.fit_usage(usage, &mut edits);
        }
        let bytes = if edits.is_empty() { bytes.clone() } else { event::with_data(bytes, &edits.apply()) };
        Ok(Some(Frame::Event(bytes)))
    }

    /// Takes out of a choice what was passed on before; whether anything is left.
    fn fit_choice(
        &mut self,
        choice: &Choice<'_>,
        data: &str,
        said: usize,
        edits: &mut Edits<'_>,
    ) -> Result<bool, Misfit> {
        let delta = choice.delta();
        let content = text_of(delta.content)?;
        let reasoning = text_of(delta.reasoning())?;
        if self.has_content && !reasoning.is_empty() {
            return Err(Misfit::Reasoning);
        }
        let fresh = content.get(said..).unwrap_or_default();
        self.watch_stops(fresh)?;
        let reasoned = skip(&mut self.blank.reasoning, &reasoning);
        let said = said + skip(&mut self.blank.content, fresh);
        self.has_content |= !trim(&content).is_empty();
        for (value, cut) in [(delta.content, said), (delta.reasoning_content, reasoned), (delta.reasoning, reasoned)] {
            if let Some(value) = value.filter(|_| cut > 0)
                && let Some(text) = json::string(value)
            {
                edits.replace(value.get(), json::quoted(text.get(cut..).unwrap_or_default()));
            }
        }
        let repeats_role = delta.has_role && self.has_role;
        if repeats_role && let Some(delta) = delta_of(data) {
            edits.remove(&delta, "role");
        }
        self.has_role |= delta.has_role;
        let cut = said + reasoned > 0;
        if content.len() + reasoning.len() > 0 {
            self.prompt_least = None; // too late: some of it is with the client
        }
        let says_more = content.len() > said || reasoning.len() > reasoned || delta.other.is_some();
        Ok(says_more || choice.is_finished() || !(cut || repeats_role) || (choice.logprobs.is_some() && !cut))
    }

    /// Follows the stop sequences that may have begun into the `text` that comes next.
    fn watch_stops(&mut self, text: &str) -> Result<(), Misfit> {
        if self.stops.iter().any(|rest| text.starts_with(rest)) {
            return Err(Misfit::Stop);
        }
        self.stops.retain_mut(|rest| {
            let goes_on = rest.starts_with(text);
            if goes_on {
                drop(rest.drain(..text.len()));
            }
            goes_on
        });
        Ok(())
    }

    /// Tells usage as if the answer had come in one piece. Left alone if it would not add up.
    fn fit_usage(&self, usage: &RawValue, edits: &mut Edits<'_>) {
        let Some(object) = Object::read(usage.get()).filter(|_| self.made > 0) else { return };
        let read = |name| object.value(name).zip(object.read_as::<u64>(name));
        let Some((completion, completed)) = read("completion_tokens") else { return };
        let prompt = read("prompt_tokens");
        // Zero is what those tell who do not count it.
        let in_prompt = if prompt.is_some_and(|(_, prompted)| prompted == 0) { 0 } else { self.in_prompt };
        let mut changes = vec![(completion, completed.checked_add(self.made))];
        changes.extend(prompt.map(|(prompt, prompted)| (prompt, prompted.checked_sub(in_prompt))));
        if let Some((total, totalled)) = read("total_tokens") {
            changes.push((total, totalled.checked_add(self.made).and_then(|sum| sum.checked_sub(in_prompt))));
        }
        if changes.iter().all(|(_, figure)| figure.is_some()) {
            for (value, figure) in changes {
                edits.replace(value.get(), figure.unwrap_or_default().to_string());
            }
        }
    }
}

/// How much of `text`, which comes next, is the white space `blank` that was passed on before.
fn skip(blank: &mut String, text: &str) -> usize {
    let same = text.chars().zip(blank.chars()).take_while(|(new, old)| new == old);
    let skip = same.map(|(c, _)| c.len_utf8()).sum();
    if skip < text.len() {
        blank.clear();
    } else {
        blank.drain(..skip);
    }
    skip
}

/// The text of a value; of none, where it says nothing.
fn text_of(value: Option<&RawValue>) -> Result<Cow<'_, str>, Misfit> {
    match value.filter(|value| !json::is_empty(value)) {
        None => Ok(Cow::Borrowed("")),
        Some(value) => json::string(value).ok_or(Misfit::Unreadable),
    }
}

/// Where the delta of the first choice stands.
fn delta_of(data: &str) -> Option<Object<'_>> {
    let choices: Vec<&RawValue> = Object::read(data)?.read_as("choices")?;
    Object::read(Object::read(choices.first()?.get())?.value("delta")?.get())
}
