//! The wire format, as far as we read it.
//!
//! A proxy that understands everything breaks on everything new, so this room reads few fields and passes the rest
//! through: which route a request is for, which model and how much it asks for, where one SSE event ends and the next
//! begins, whether a stream came to its proper end, and what it used. It writes only errors, in OpenAI's shape, and what
//! it takes to go on with a broken stream.
//!
//! Invariants: bytes are never re-serialised, nothing here fails (what cannot be read is simply not known), and
//! nothing here waits, allocates by the size of a body, or knows a transport.

pub mod complaint;
pub mod continuation;
mod date;
pub mod error;
pub mod error_event;
pub mod media;
mod members;
#[cfg(test)]
mod properties;
pub mod rate_limits;
pub mod request;
mod reset;
pub mod route;
pub mod sse;
pub mod terminal;
pub mod usage;

pub use complaint::Complaint;
pub use error::{ErrorBody, is_model_not_found, parse_retry_after, sse_error_event};
pub use error_event::{is_error, provider_error_event};
pub use media::text_bytes;
pub use rate_limits::{Counted, RateLimits, Told};
pub use request::{ServiceTier, Sniff};
pub use route::{Route, upstream_path};
pub use sse::{Event, Frame, Framer};
pub use terminal::{Ending, Terminal};
pub use usage::Usage;
