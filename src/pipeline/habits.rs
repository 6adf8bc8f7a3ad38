//! What each model usually does, learned from calls that ended: how many tokens a question of so many bytes has, how
//! long an answer becomes, how long it takes. From it a call's tokens are estimated before it goes, and its deadline is
//! found where its client only says when it gives up.
//!
//! Estimates of tokens are reservations that are settled later, so they lean to the high side: the most that was lately
//! seen, where enough was. *Lately* is the present epoch and the one before, so that what was once large is forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::call::Call;
use crate::openai::{Route, Usage};
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
/// So many answers without a limit must be known before the largest of them is believed.
const ANSWERS_ENOUGH: u32 = 10;
/// Nobody offers more answers to one question.
const CHOICES_MAX: u64 = 128;
/// Sizes of questions that are learned apart, by their upper bounds in bytes: what is large has images in it.
const SIZES: [u64; 3] = [4 << 10, 32 << 10, 256 << 10];
/// How fast the usual duration follows, once it is known: by an eighth for each answer.
const DURATION_STEPS_MAX: u32 = 8;

/// A call as far as its tokens depend on it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    model: Option<Arc<str>>,
    bytes: u64,
    choices: u64,
    max_tokens: Option<u64>,
    answer: Answered,
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
        let answer = match call.route {
            Route::ChatCompletions | Route::Completions | Route::Responses | Route::Messages => Answered::Tokens,
            Route::Embeddings => Answered::Vectors,
            Route::Other => Answered::Nothing,
        };
        Self {
            model: call.model.clone(),
            bytes: call.body.bytes_held(),
            choices: call.choices.clamp(1, CHOICES_MAX),
            max_tokens: call.max_tokens,
            answer,
        }
    }

    fn size(&self) -> usize {
        SIZES.iter().position(|most| self.bytes < *most).unwrap_or(SIZES.len())
    }
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
        let question = habit.and_then(|habit| habit.question(asked)).unwrap_or_else(|| unknown_question(asked.bytes));
        let answer = match asked.answer {
            Answered::Tokens => asked
                .max_tokens
                .unwrap_or_else(|| habit.map_or(UNKNOWN_ANSWER, Habit::answer))
                .saturating_mul(asked.choices),
            Answered::Vectors | Answered::Nothing => 0,
        };
        question.saturating_add(answer)
    }

    /// How long a model usually takes from a request to its complete answer.
    pub(super) fn usual(&self, model: Option<&str>) -> Option<Duration> {
        self.0.lock().of(model)?.usual
    }

    /// Whether a model that was asked for streams lately gave something else.
    pub(super) fn ignores_stream(&self, model: Option<&str>) -> bool {
        self.0.lock().of(model).is_some_and(|habit| habit.ignores_stream)
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
    /// Of questions of each size.
    questions: [Questions; SIZES.len() + 1],
    /// The largest answers.
    answers: Largest,
    /// How many of them ended by themselves, and not at a limit that their call had set.
    unlimited: u32,
    usual: Option<Duration>,
    durations: u32,
    ignores_stream: bool,
}

#[derive(Debug, Default)]
struct Questions {
    /// Tokens to a million bytes.
    density: Largest,
    tokens: Largest,
}

impl Habit {
    /// Two bounds, of which the lower one holds: as many tokens to the byte as were ever seen, and a question as large as
    /// the largest seen with text added to it. The first is right for text, the second where a provider adds a prompt of
    /// its own to every question.
    fn question(&self, asked: &Asked) -> Option<u64> {
        let Questions { density, tokens } = &self.questions[asked.size()];
        let by_density = u128::from(density.lately()?) * u128::from(asked.bytes);
        let by_density = u64::try_from(by_density.div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let by_size = tokens.lately()?.saturating_add(asked.bytes.div_ceil(BYTES_PER_TOKEN));
        Some(by_density.min(by_size))
    }

    /// Answers that were cut off at a limit do not tell how long they would have become.
    fn answer(&self) -> u64 {
        let largest = self.answers.lately().unwrap_or(0);
        if self.unlimited < ANSWERS_ENOUGH { largest.max(UNKNOWN_ANSWER) } else { largest }
    }

    fn learn(&mut self, asked: &Asked, seen: &Seen, now: Instant) {
        if let Some(tokens) = seen.usage.prompt_tokens
            && asked.bytes > 0
        {
            let questions = &mut self.questions[asked.size()];
            let density = (u128::from(tokens) * 1_000_000).div_ceil(u128::from(asked.bytes));
            questions.density.note(u64::try_from(density).unwrap_or(u64::MAX), now);
            questions.tokens.note(tokens, now);
        }
        if let Some(tokens) = seen.usage.completion_tokens
            && asked.answer == Answered::Tokens
        {
            let each = tokens.div_ceil(asked.choices);
            self.answers.note(each, now);
            if asked.max_tokens.is_none_or(|most| each < most) {
                self.unlimited = self.unlimited.saturating_add(1);
            }
        }
        self.durations = self.durations.saturating_add(1).min(DURATION_STEPS_MAX);
        self.usual = Some(self.usual.map_or(seen.took, |usual| follow(usual, seen.took, self.durations)));
        if let Some(streamed) = seen.streamed {
            self.ignores_stream = !streamed;
        }
    }
}

/// One step from the usual duration towards the one just seen, and never past it: as often up as down, it ends at the
/// median, so that one answer of ten minutes does not count more than another.
fn follow(usual: Duration, seen: Duration, steps: u32) -> Duration {
    let step = (usual / steps).max(Duration::from_millis(1));
    if seen > usual { (usual + step).min(seen) } else { usual.saturating_sub(step).max(seen) }
}

/// The largest figure of the present epoch and of the one before it.
#[derive(Debug, Default)]
struct Largest {
    before: Option<u64>,
    present: Option<u64>,
    began: Option<Instant>,
    noted: u32,
}

impl Largest {
    fn note(&mut self, figure: u64, now: Instant) {
        let is_over = self.began.is_some_and(|began| now.saturating_duration_since(began) >= EPOCH);
        if is_over || self.noted >= EPOCH_ANSWERS {
            (self.before, self.present, self.noted) = (self.present.take(), None, 0);
            self.began = None;
        }
        self.began.get_or_insert(now);
        self.noted += 1;
        self.present = self.present.max(Some(figure));
    }

    fn lately(&self) -> Option<u64> {
        self.present.max(self.before)
    }
}

#[cfg(test)]
mod tests;
