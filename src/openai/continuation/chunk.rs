//! One event of a stream, as far as going on with it is concerned.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Unfit, json};
use crate::openai::Event;
use crate::openai::members::{List, Members, Read};

/// The top level of an event's JSON. Whatever stands beside these members passes through.
#[derive(Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(borrow)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) created: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) model: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) system_fingerprint: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) choices: Option<List<Choice<'a>>>,
    #[serde(borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

impl<'a> Chunk<'a> {
    pub(super) fn read(data: &'a str) -> Option<Self> {
        serde_json::from_str(data).ok()
    }

    /// The provider reports an error: by a member of that name, or by an event of that type.
    pub(super) fn is_error(&self, event: Event<'_>) -> bool {
        self.error.is_some() || (self.choices.is_none() && event.event_type() == Some("error"))
    }

    /// The values that every chunk of a stream repeats, in the order of [`Head`].
    pub(super) const fn head(&self) -> [Option<&'a RawValue>; 4] {
        [self.id, self.created, self.model, self.system_fingerprint]
    }

    /// The one choice, if there is one.
    pub(super) fn choice(&self) -> Result<Option<&Choice<'a>>, ManyChoices> {
        let Some(choices) = &self.choices else { return Ok(None) };
        let only = choices.first.as_ref();
        let first = only.and_then(|choice| choice.index).is_none_or(|index| index.get() == "0");
        if choices.length > 1 || !first { Err(ManyChoices) } else { Ok(only) }
    }

    /// `usage`, where it is reported. Zeros are what some say who do not know yet.
    pub(super) fn usage(&self) -> Usage {
        let told: Usage = self.usage.and_then(|usage| serde_json::from_str(usage.get()).ok()).unwrap_or_default();
        let known = |figure: Option<u64>| figure.filter(|&tokens| tokens > 0);
        Usage { prompt_tokens: known(told.prompt_tokens), completion_tokens: known(told.completion_tokens) }
    }
}

/// The figures of a usage that bear on going on.
#[derive(Default, Deserialize)]
pub(super) struct Usage {
    pub(super) prompt_tokens: Option<u64>,
    pub(super) completion_tokens: Option<u64>,
}

/// There is another choice than the first.
pub(super) struct ManyChoices;

/// What names a stream in each of its chunks, as it stands in the JSON: `id`, `created`, `model`, `system_fingerprint`.
#[derive(Debug, Clone, Default)]
pub(super) struct Head([Option<Box<str>>; 4]);

impl Head {
    /// Whether `chunk` is of the same model, as far as both say.
    pub(super) fn is_of_model(&self, chunk: &Chunk<'_>) -> bool {
        let [_, _, model, _] = &self.0;
        model.as_deref() == chunk.model.map(RawValue::get)
    }

    /// Keeps what was not known yet.
    pub(super) fn learn(&mut self, chunk: &Chunk<'_>) {
        for (known, told) in self.0.iter_mut().zip(chunk.head()) {
            if let (None, Some(told)) = (&known, told) {
                *known = Some(told.get().into());
            }
        }
    }

    /// Puts what is known into the place of what `chunk` says.
    pub(super) fn impose<'a>(&'a self, chunk: &Chunk<'_>, edits: &mut json::Edits<'a>) {
        for (known, told) in self.0.iter().zip(chunk.head()) {
            if let (Some(known), Some(told)) = (known, told)
                && told.get() != &**known
            {
                edits.replace(told.get(), &**known);
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.iter().flatten().map(|value| value.len()).sum()
    }
}

/// A choice; `text` on `/v1/completions`, else `delta`.
#[derive(Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(borrow)]
    index: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<Read<Delta<'a>>>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) logprobs: Option<&'a RawValue>,
}

impl<'a> Choice<'a> {
    pub(super) fn is_finished(&self) -> bool {
        self.finish_reason.is_some_and(|reason| !json::is_empty(reason))
    }

    /// What it adds to the answer.
    pub(super) fn delta(&self) -> Delta<'a> {
        let mut delta = self.delta.map(|Read(delta)| delta).unwrap_or_default();
        delta.content = delta.content.or(self.text);
        delta.other =
            delta.other.or_else(|| self.message.filter(|value| !json::is_empty(value)).map(|_| Unfit::Unknown));
        delta
    }

    /// How many tokens its log probabilities are of: in chat a list of tokens, or else several lists.
    pub(super) fn tokens(&self) -> Option<u64> {
        #[derive(Deserialize)]
        struct Logprobs<'a> {
            #[serde(borrow)]
            content: Option<Vec<&'a RawValue>>,
            #[serde(borrow)]
            tokens: Option<Vec<&'a RawValue>>,
        }
        let logprobs: Logprobs<'_> = serde_json::from_str(self.logprobs?.get()).ok()?;
        u64::try_from(logprobs.content.or(logprobs.tokens)?.len()).ok()
    }
}

/// What one event adds to an answer.
#[derive(Clone, Copy, Default)]
pub(super) struct Delta<'a> {
    pub(super) has_role: bool,
    pub(super) content: Option<&'a RawValue>,
    /// Under both of its names; some send the same text under each.
    pub(super) reasoning_content: Option<&'a RawValue>,
    pub(super) reasoning: Option<&'a RawValue>,
    /// Something else that a reader would miss.
    pub(super) other: Option<Unfit>,
}

impl<'a> Delta<'a> {
    pub(super) fn reasoning(&self) -> Option<&'a RawValue> {
        let says = |value: &&RawValue| !json::is_empty(value);
        [self.reasoning_content, self.reasoning].into_iter().flatten().find(says)
    }
}

impl<'de: 'a, 'a> Members<'de> for Delta<'a> {
    type Name = Key;

    fn wants(name: &Key) -> bool {
        !matches!(name, Key::Annotations)
    }

    fn take(&mut self, name: Key, value: &'de RawValue) {
        let other = match name {
            Key::Role => return self.has_role = value.get() != "null",
            Key::Content => return self.content = Some(value),
            Key::ReasoningContent => return self.reasoning_content = Some(value),
            Key::Reasoning => return self.reasoning = Some(value),
            Key::Annotations => return,
            Key::ToolCalls | Key::FunctionCall => Unfit::ToolCall,
            Key::Refusal => Unfit::Refusal,
            Key::Unknown => Unfit::Unknown,
        };
        self.other = self.other.or_else(|| (!json::is_empty(value)).then_some(other));
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
pub(super) enum Key {
    Role,
    Content,
    ReasoningContent,
    Reasoning,
    ToolCalls,
    FunctionCall,
    Refusal,
    /// Where parts of the text come from. It points into the text by characters, which stay the same.
    Annotations,
    #[serde(other)]
    Unknown,
}
