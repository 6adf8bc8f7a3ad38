//! Going on where a stream broke: the request that asks for the rest of an answer, and its events made to fit.
//!
//! A stream that ends without its terminal event is truncated. What the client was given of it cannot be taken back, so
//! the only cure is the rest of the very same answer. Some providers write on from a partial answer that ends the
//! request; this room knows how they want to be asked, and makes one well-formed stream of both halves: one id, one
//! role, every byte of text once, usage as if nothing had happened.
//!
//! The way of it: [`Partial`] watches what is passed on. When the stream breaks, [`Partial::request`] gives the body to
//! send and the [`Splice`] that rewrites the events of the answer. What was rewritten is observed by the same
//! [`Partial`], so a second break is like the first.
//!
//! ```text
//! for frame in framer.push(chunk) {
//!     for frame in splice.rewrite(frame)? {      // only in a continuation
//!         partial.observe(&frame);
//!         send(frame.into_bytes());
//!     }
//! }
//! ```
//!
//! Invariants: requests and events are never re-serialised, bytes are spliced into them; where it is not certain that
//! the rest will fit, it is not asked for, and where it turns out not to, the stream ends with an error; an ending is
//! never made up. Nothing here waits or knows a transport.
//!
//! How providers are asked: vLLM, "OpenAI-Compatible Server" (extra parameters of the Chat API), which NIM and SGLang
//! follow; DeepSeek, "Chat Prefix Completion (Beta)" and "Create Chat Completion" (`prefix`, `reasoning_content`);
//! Mistral, "Chat Completion" (`prefix` of an assistant message, which its answer repeats).

mod chunk;
mod echo;
mod event;
mod json;
mod partial;
#[cfg(test)]
mod properties;
mod request;
mod splice;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;

pub use partial::Partial;
pub use splice::{Events, Splice};

/// How a provider continues a partial answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// vLLM, NIM, SGLang: the last message is the partial answer, and the request says `continue_final_message`.
    Vllm,
    /// DeepSeek: the last message is the partial answer, and says of itself that it is a `prefix`. Whether the answer
    /// begins by repeating it is found out, where that can be told.
    Prefix,
    /// Mistral: the same, and the answer always repeats it.
    PrefixEcho,
}

impl Style {
    const fn is_prefix(self) -> bool {
        matches!(self, Self::Prefix | Self::PrefixEcho)
    }
}

/// What to do to get the rest of an answer.
#[derive(Debug, Clone)]
pub struct Continuation {
    /// The body of the request that asks for it.
    pub body: Bytes,
    /// Makes the events of the answer to it go on where the broken stream ended. Good for one answer: whoever sends the
    /// request again starts with a fresh one.
    pub splice: Splice,
}

/// Why the rest of a partial answer cannot be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unfit {
    /// Streams of this route cannot be spliced.
    Route,
    /// More than one answer was asked for, or came.
    ManyChoices,
    /// A tool call had begun; no provider continues one.
    ToolCall,
    /// The model was still reasoning, and this provider cannot be given its reasoning; or it reasoned in between.
    Reasoning,
    /// A refusal had begun.
    Refusal,
    /// Something was passed on that we do not know how to continue, such as audio.
    Unknown,
    /// Something was passed on that we could not read, or half a character.
    Unreadable,
    /// More was passed on than we keep.
    TooLong,
    /// The answer was complete but for its ending: it said so, or has all the tokens it may have.
    Finished,
    /// The provider ended the stream with an error of its own.
    Failed,
    /// The form of the output is prescribed from its first token on, as for JSON or a tool that must be called; the rest of
    /// it would begin anew.
    Constrained,
    /// Log probabilities of a plain completion say where in the text they belong; those of the rest would count anew.
    Offsets,
    /// Its stop sequences are too long to be watched for.
    Stop,
    /// The request wants the question repeated, or text put before something else.
    Echo,
    /// The last message, or the prompt, is of a kind that nothing can be appended to.
    LastMessage,
    /// The request has a limit of tokens that is no number we can lower.
    Limit,
    /// The body of the request is not the JSON we expect.
    BodyUnreadable,
    /// The provider is not known to continue partial answers.
    NotSupported,
}

impl Unfit {
    /// In a few words, for the log and for the client.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "streams of this endpoint cannot be continued",
            Self::ManyChoices => "more than one answer was asked for",
            Self::ToolCall => "a tool call had begun",
            Self::Reasoning => "the model was reasoning",
            Self::Refusal => "a refusal had begun",
            Self::Unknown => "the answer has parts of an unknown kind",
            Self::Unreadable => "an event could not be read",
            Self::TooLong => "the partial answer is too long",
            Self::Finished => "the answer was complete but for its ending",
            Self::Failed => "the provider sent an error",
            Self::Constrained => "the form of the output is prescribed",
            Self::Offsets => "its log probabilities have places in the text",
            Self::Stop => "the stop sequences are too long",
            Self::Echo => "the request asks for an echo or has a suffix",
            Self::LastMessage => "nothing can be appended to the last message or prompt",
            Self::Limit => "the limit of tokens cannot be lowered",
            Self::BodyUnreadable => "the request could not be read",
            Self::NotSupported => "the provider is not known to continue partial answers",
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Unfit {}

/// Why an event of a continuation does not fit to what was passed on. The stream has to end with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Misfit {
    /// Another choice than the one that broke.
    ManyChoices,
    /// Reasoning, where the answer itself had begun.
    Reasoning,
    /// The continuation begins by repeating the partial answer, which is so short or so repetitive that this may be an
    /// echo as well as what comes next.
    Ambiguous,
    /// The continuation says again how the answer began, which is no continuation: the provider answers anew.
    Anew,
    /// The continuation does not repeat the partial answer, although this provider does.
    NoEcho,
    /// A stop sequence stands across the break: the answer was to end there, and the provider has not noticed.
    Stop,
    /// An event that cannot be read.
    Unreadable,
    /// An event too long to be held, or an echo that takes too much room.
    TooLong,
}

impl Misfit {
    /// In a few words, for the log and for the client.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ManyChoices => "the continuation has more than one answer",
            Self::Reasoning => "the continuation reasons although the answer had begun",
            Self::Ambiguous => "the continuation may or may not repeat the partial answer",
            Self::Anew => "the continuation begins the answer anew (upstreams.continuation)",
            Self::NoEcho => "the continuation does not repeat the partial answer (upstreams.continuation)",
            Self::Stop => "a stop sequence of the request stands across the break",
            Self::Unreadable => "an event of the continuation could not be read",
            Self::TooLong => "an event of the continuation is too long",
        }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Misfit {}
