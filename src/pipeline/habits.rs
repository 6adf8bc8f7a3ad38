//! What each model usually does, learned from calls that ended: how many tokens a question of so many bytes has, how
//! long an answer becomes, how long it takes. From it a call's tokens are estimated before it goes, and its deadline is
//! found where its client only says when it gives up.
//!
//! Estimates of tokens are reservations that are settled later, so they lean to the high side: the most that was lately
//! seen, where enough was. *Lately* is the present epoch and the one before, so that what was once large is forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::classify::Expected;
use crate::call::{Call, CallBody};
use crate::openai::{self, Route, Usage};
use crate::time::{Duration, Instant};

/// So many models are told apart; all others share what is learned of them.
const MODELS_MAX: usize = 1_000;
/// An epoch ends after this time, or after so many answers.
const EPOCH: Duration = Duration::from_secs(600);
const EPOCH_ANSWERS: u32 = 1_000;
/// What a token of a question is taken for before anything is known: less than the 4 bytes of English prose, since other
/// languages and code have more tokens to the byte.
const BYTES_PER_TOKEN: u64 = 3;
/// A longer question of which nothing is known is mostly images, which have few tokens for their bytes.
const UNKNOWN_QUESTION_MAX: u64 = 100_000;
/// How long an answer may become of which nothing is known, and that names no limit.
const UNKNOWN_ANSWER: u64 = 4_096;
/// So many answers without a limit, and questions of a size, must lately have come before they are believed to be as few
/// tokens as they were.
const ENOUGH: u32 = 10;
/// So long a model is taken for one that ignores `stream`.
const IGNORES_STREAM: Duration = Duration::from_secs(600);
/// Sizes of questions that are learned apart, by their upper bounds in bytes.
const SIZES: [u64; 3] = [4 << 10, 32 << 10, 256 << 10];
/// How fast the usual duration follows, once it is known: by an eighth for each answer.
const DURATION_STEPS_MAX: u32 = 8;

/// A call as far as its tokens depend on it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    model: Option<Arc<str>>,
    bytes: u64,
    /// Those of them that are no images or sound.
    text: u64,
    answers: u64,
    max_tokens: Option<u64>,
    answer: Answered,
    /// It was read: what it asked for is known.
    is_read: bool,
}

/// What an answer consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    /// Tokens.
    Tokens,
    /// Vectors, which cost nothing beyond their question.
    Vectors,
    /// Something that has no tokens.
    Nothing,
}

impl Asked {
    pub(super) fn of(call: &Call) -> Self {
        let answer = match Route::resembling(&call.method, &call.target) {
            Route::ChatCompletions | Route::Completions | Route::Responses | Route::Messages => Answered::Tokens,
            Route::Embeddings => Answered::Vectors,
            Route::Other => Answered::Nothing,
        };
        let (bytes, text) = match &call.body {
            CallBody::Whole(body) if answer != Answered::Nothing => {
                let text = openai::text_bytes(body);
                (call.body.bytes_held(), u64::try_from(text).unwrap_or(u64::MAX))
            }
            CallBody::Whole(_) => (0, 0),
            // It was not read: all of it may be text.
            CallBody::Stream(body) => (body.length.unwrap_or(0), body.length.unwrap_or(0)),
        };
        Self {
            model: call.model.clone(),
            bytes,
            text,
            answers: call.answers,
            max_tokens: call.max_tokens,
            answer,
            is_read: call.route.is_generation(),
        }
    }

    fn has_media(&self) -> bool {
        self.text < self.bytes
    }
}

fn size(bytes: u64) -> usize {
    SIZES.iter().position(|most| bytes < *most).unwrap_or(SIZES.len())
}

/// What an answer turned out to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The tokens that the provider counted.
    pub(super) usage: Usage,
    /// From its request until it was complete.
    pub(super) took: Duration,
    /// A stream was asked for, and this is one, or none.
    pub(super) streamed: Option<bool>,
}

/// What is known of all models. One for the process.
#[derive(Debug, Default)]
pub(super) struct Habits(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    models: HashMap<Arc<str>, Habit>,
    /// Calls that name no model, and models that were one too many.
    others: Habit,
}

impl Known {
    fn of(&self, model: Option<&str>) -> Option<&Habit> {
        let named = model.and_then(|model| self.models.get(model));
        let is_other = model.is_none() || self.models.len() >= MODELS_MAX;
        named.or_else(|| is_other.then_some(&self.others))
    }

    fn of_mut(&mut self, model: Option<&Arc<str>>) -> &mut Habit {
        let has_room = self.models.len() < MODELS_MAX;
        match model {
            Some(model) if has_room || self.models.contains_key(model) => {
                self.models.entry(Arc::clone(model)).or_default()
            }
            Some(_) | None => &mut self.others,
        }
    }
}

impl Habits {
    /// The most tokens that a call is expected to use, question and answer together.
    pub(super) fn tokens(&self, asked: &Asked) -> u64 {
        if asked.answer == Answered::Nothing {
            return 0;
        }
        let known = self.0.lock();
        let habit = known.of(asked.model.as_deref());
        let question = habit.map_or_else(|| unknown_question(asked.bytes), |habit| habit.question(asked));
        let answer = match asked.answer {
            Answered::Tokens => asked
                .max_tokens
                .unwrap_or_else(|| habit.map_or(UNKNOWN_ANSWER, Habit::answer))
                .saturating_mul(asked.answers),
            Answered::Vectors | Answered::Nothing => 0,
        };
        question.saturating_add(answer)
    }

    /// What a model's answers are known for.
    pub(super) fn expected(&self, model: Option<&str>, now: Instant) -> Expected {
        let known = self.0.lock();
        let Some(habit) = known.of(model) else { return Expected::default() };
        let ignored = habit.ignored_stream.map(|at| now.saturating_duration_since(at));
        let ignores_stream = ignored.is_some_and(|ago| ago < IGNORES_STREAM);
        Expected { usual: habit.usual.unwrap_or_default(), ignores_stream }
    }

    /// An answer was complete, and no error.
    pub(super) fn learn(&self, asked: &Asked, seen: &Seen, now: Instant) {
        if asked.answer == Answered::Nothing {
            return;
        }
        self.0.lock().of_mut(asked.model.as_ref()).learn(asked, seen, now);
    }
}

fn unknown_question(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN).min(UNKNOWN_QUESTION_MAX)
}

/// What is known of a model.
#[derive(Debug, Default)]
struct Habit {
    /// Of questions of each size, that are text.
    texts: [Questions; SIZES.len() + 1],
    /// And of those with images or sound in them.
    mixed: [Questions; SIZES.len() + 1],
    /// The largest answers.
    answers: Largest,
    /// Those of them that ended by themselves, and not at a limit that their call had set.
    unlimited: Largest,
    usual: Option<Duration>,
    durations: u32,
    /// When a stream was last asked for, and something else came.
    ignored_stream: Option<Instant>,
}

#[derive(Debug, Default)]
struct Questions {
    /// Tokens to a million bytes.
    density: Largest,
    tokens: Largest,
}

impl Questions {
    /// Two bounds, of which the lower one holds: as many tokens to the byte as were lately seen, and a question as large
    /// as the largest seen with text added to it. The first is right for text, the second where a provider adds a prompt
    /// of its own to every question.
    fn like(&self, bytes: u64) -> Option<u64> {
        let by_density = u128::from(self.density.lately()?) * u128::from(bytes);
        let by_density = u64::try_from(by_density.div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let by_size = self.tokens.lately()?.saturating_add(bytes.div_ceil(BYTES_PER_TOKEN));
        Some(by_density.min(by_size))
    }
}

impl Habit {
    /// Images have few tokens for their bytes, however many: a question with some in it has no fewer than its text.
    fn question(&self, asked: &Asked) -> u64 {
        let texts = &self.texts[size(asked.text)];
        let unknown = unknown_question(asked.text);
        let text = match texts.like(asked.text) {
            Some(tokens) if texts.tokens.lately_noted() >= ENOUGH => tokens,
            tokens => tokens.unwrap_or(0).max(unknown),
        };
        if !asked.has_media() {
            return text;
        }
        let mixed = self.mixed[size(asked.bytes)].like(asked.bytes);
        mixed.unwrap_or_else(|| unknown_question(asked.bytes)).max(text)
    }

    /// Answers that were cut off at a limit do not tell how long they would have become.
    fn answer(&self) -> u64 {
        let largest = self.answers.lately().unwrap_or(0);
        if self.unlimited.lately_noted() < ENOUGH { largest.max(UNKNOWN_ANSWER) } else { largest }
    }

    fn learn(&mut self, asked: &Asked, seen: &Seen, now: Instant) {
        if let Some(tokens) = seen.usage.prompt_tokens
            && asked.bytes > 0
        {
            let by_size = if asked.has_media() { &mut self.mixed } else { &mut self.texts };
            let questions = &mut by_size[size(asked.bytes)];
            let density = (u128::from(tokens) * 1_000_000).div_ceil(u128::from(asked.bytes));
            questions.density.note(u64::try_from(density).unwrap_or(u64::MAX), now);
            questions.tokens.note(tokens, now);
        }
        if let Some(tokens) = seen.usage.completion_tokens
            && asked.answer == Answered::Tokens
        {
            let each = tokens.div_ceil(asked.answers.max(1));
            self.answers.note(each, now);
            if asked.max_tokens.is_none_or(|most| each < most) {
                self.unlimited.note(each, now);
            }
        }
        // A stream may take its time: nobody waits for all of it.
        if asked.is_read && seen.streamed != Some(true) {
            self.durations = self.durations.saturating_add(1).min(DURATION_STEPS_MAX);
            self.usual = Some(self.usual.map_or(seen.took, |usual| follow(usual, seen.took, self.durations)));
        }
        if let Some(streamed) = seen.streamed {
            self.ignored_stream = (!streamed).then_some(now);
        }
    }
}

/// One step from the usual duration towards the one just seen, and never past it: as often up as down, it ends at the
/// median, so that one answer of ten minutes does not count more than another.
fn follow(usual: Duration, seen: Duration, steps: u32) -> Duration {
    let step = (usual / steps).max(Duration::from_millis(1));
    if seen > usual { (usual + step).min(seen) } else { usual.saturating_sub(step).max(seen) }
}

/// The largest figure of the present epoch and of the one before it, and how many there were.
#[derive(Debug, Default)]
struct Largest {
    before: Option<u64>,
    noted_before: u32,
    present: Option<u64>,
    began: Option<Instant>,
    noted: u32,
}

impl Largest {
    fn note(&mut self, figure: u64, now: Instant) {
        let is_over = self.began.is_some_and(|began| now.saturating_duration_since(began) >= EPOCH);
        if is_over || self.noted >= EPOCH_ANSWERS {
            (self.before, self.noted_before) = (self.present.take(), self.noted);
            self.noted = 0;
            self.began = None;
        }
        self.began.get_or_insert(now);
        self.noted += 1;
        self.present = self.present.max(Some(figure));
    }

    fn lately(&self) -> Option<u64> {
        self.present.max(self.before)
    }

    fn lately_noted(&self) -> u32 {
        self.noted.saturating_add(self.noted_before)
    }
}

#[cfg(test)]
mod tests;
