//! The closed sets that labels are drawn from. Ids, models and messages never become labels.

use crate::openai::Route;
use crate::units::Priority;

/// A closed set of label values. `index` counts them from zero in the order of `ALL`.
pub trait Label: Copy + 'static {
    /// Every value.
    const ALL: &'static [Self];

    /// The value as Prometheus sees it.
    fn as_str(self) -> &'static str;

    /// Its place in `ALL`.
    fn index(self) -> usize;
}

/// Declares an enum whose variants are the values of one label, each with its name.
macro_rules! labels {
    ($(#[$of_type:meta])* $name:ident { $($(#[$of_variant:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$of_type])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$of_variant])* $variant,)+ }

        impl $name {
            /// Every value. `value as usize` indexes into it.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in labels and log lines.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl Label for $name {
            const ALL: &'static [Self] = Self::ALL;

            fn as_str(self) -> &'static str {
                Self::as_str(self)
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

labels! {
    /// How a call ended, from the client's point of view. The words are the error codes where there is one.
    Outcome {
        /// The provider's answer was delivered whole, and was no error.
        Ok = "ok",
        /// The provider's own 4xx was delivered.
        ClientError = "client_error",
        /// The provider's own 5xx was delivered.
        UpstreamError = "upstream_error",
        /// Refused: the queue or the memory set aside for it is full.
        QueueFull = "queue_full",
        /// Refused: its turn would have come after its deadline.
        DeadlineUnreachable = "deadline_unreachable",
        /// Refused: it waited until its deadline.
        QueueTimeout = "queue_timeout",
        /// Refused: the client's own limit, which says `refuse`.
        RateLimitExceeded = "rate_limit_exceeded",
        /// Refused: clients are configured, and this is none of them.
        InvalidApiKey = "invalid_api_key",
        /// Refused: the body is larger than `body_max`.
        RequestTooLarge = "request_too_large",
        /// Refused: not HTTP that can safely be forwarded.
        BadRequest = "bad_request",
        /// Refused or ended by us: still waiting, or a WebSocket still open, when the time to drain was over.
        ShuttingDown = "shutting_down",
        /// Given up: the provider dropped the connection, on the last attempt too.
        UpstreamDisconnected = "upstream_disconnected",
        /// Given up: the provider did not begin to answer in time.
        UpstreamTimeout = "upstream_timeout",
        /// Given up: the provider could not be reached.
        UpstreamUnavailable = "upstream_unavailable",
        /// The answer broke off after its beginning had been delivered.
        Broken = "broken",
        /// The client left first.
        ClientGone = "client_gone",
        /// Our mistake.
        Internal = "internal",
    }
}

impl Outcome {
    /// The outcome of delivering the provider's own answer, whole.
    #[must_use]
    pub const fn of_status(status: u16) -> Self {
        match status {
            400..=499 => Self::ClientError,
            500.. => Self::UpstreamError,
            _ => Self::Ok,
        }
    }
}

labels! {
    /// What an attempt meant for its call.
    Verdict {
        /// The answer goes to the client.
        Deliver = "deliver",
        /// The call is tried again.
        Retry = "retry",
        /// The call failed.
        GiveUp = "give_up",
        /// The attempt was cancelled, since nobody waits for it.
        Cancelled = "cancelled",
    }
}

labels! {
    /// Why a call was tried again.
    RetryReason {
        /// No connection was made, nothing was sent.
        Connect = "connect",
        /// The connection was lost before the head of the answer.
        Disconnect = "disconnect",
        /// The provider refused: too much, too fast.
        Refusal = "refusal",
        /// The provider answered with a status that may be cured by time.
        Status = "status",
        /// The answer broke off before anything of it was delivered.
        Truncated = "truncated",
    }
}

labels! {
    /// When a connection was lost.
    DisconnectPhase {
        /// By the provider, before the head of its answer.
        BeforeHead = "before_head",
        /// By the provider, after the head and before anything was delivered.
        BeforeFirstEvent = "before_first_event",
        /// By the provider, after something was delivered.
        MidStream = "mid_stream",
        /// By the provider, of a WebSocket that was open.
        WebSocket = "websocket",
        /// By the client.
        Client = "client",
    }
}

labels! {
    /// How an answer that broke off was made whole.
    Recovery {
        /// Asked for again, before anything of it was delivered.
        Retry = "retry",
        /// Its rest was asked for with the partial answer, and spliced on.
        Continue = "continue",
        /// It was begun again in the middle of the stream.
        Restart = "restart",
    }
}

labels! {
    /// What came of it.
    RecoveryResult {
        /// The client got a whole answer.
        Ok = "ok",
        /// It did not.
        Failed = "failed",
    }
}

labels! {
    /// What tokens were used for.
    TokenKind {
        /// The question.
        Prompt = "prompt",
        /// The answer.
        Completion = "completion",
    }
}

labels! {
    /// How a re-reading of the settings ended.
    ReloadResult {
        /// The new settings hold.
        Applied = "applied",
        /// The file has mistakes, the old settings hold.
        Refused = "refused",
    }
}

labels! {
    /// What a provider's limit counts.
    Dimension {
        /// Requests in one window.
        Requests = "requests",
        /// Tokens in one window.
        Tokens = "tokens",
        /// Requests in a rolling 24 hours.
        RequestsPerDay = "requests_per_day",
        /// Exchanges at a time.
        Concurrency = "concurrency",
    }
}

labels! {
    /// What memory is held for.
    MemoryKind {
        /// Bodies of calls that wait or run.
        Bodies = "bodies",
        /// Answers that are being received.
        Flights = "flights",
        /// Answers that are kept.
        Cache = "cache",
    }
}

labels! {
    /// The state of a breaker, as the figure in its gauge.
    BreakerState {
        /// 0: calls pass.
        Closed = "closed",
        /// 1: a probe is under way.
        HalfOpen = "half_open",
        /// 2: calls wait.
        Open = "open",
    }
}

impl Label for Route {
    const ALL: &'static [Self] = &Self::ALL;

    fn as_str(self) -> &'static str {
        Self::as_str(self)
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for Priority {
    const ALL: &'static [Self] = &Self::ALL;

    fn as_str(self) -> &'static str {
        Self::as_str(self)
    }

    fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_closed<L: Label>() {
        for (index, label) in L::ALL.iter().enumerate() {
            assert_eq!(label.index(), index);
            assert!(label.as_str().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        }
    }

    #[test]
    fn every_label_knows_its_place_and_has_a_plain_name() {
        is_closed::<Outcome>();
        is_closed::<Verdict>();
        is_closed::<RetryReason>();
        is_closed::<DisconnectPhase>();
        is_closed::<Recovery>();
        is_closed::<RecoveryResult>();
        is_closed::<TokenKind>();
        is_closed::<ReloadResult>();
        is_closed::<Dimension>();
        is_closed::<MemoryKind>();
        is_closed::<BreakerState>();
        is_closed::<Route>();
        is_closed::<Priority>();
    }

    #[test]
    fn a_delivered_status_is_its_outcome() {
        let outcomes = [101, 200, 304, 400, 429, 499, 500, 503].map(Outcome::of_status);
        let (ok, client, upstream) = (Outcome::Ok, Outcome::ClientError, Outcome::UpstreamError);
        assert_eq!(outcomes, [ok, ok, ok, client, client, client, upstream, upstream]);
    }
}
