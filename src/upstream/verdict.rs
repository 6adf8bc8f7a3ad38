//! What happened upstream, and what that means: one pure function, DESIGN's table row by row.

use http::StatusCode;

use crate::call::MidStream;

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happened {
    /// No connection; nothing was sent. `ours`: for want of something of this machine's, such as descriptors.
    NotConnected { ours: bool },
    /// A pooled connection had died before the request could use it.
    Stale,
    /// The provider says that it has done nothing with the request, and the whole of it is at hand.
    Untouched,
    /// Reset or EOF before the head of the answer (1006).
    Lost,
    /// The answer was cut before anything of it was passed on.
    Cut,
    /// No head, or nothing after it, within `first_byte_timeout`.
    NoFirstByte,
    /// A final status.
    Status {
        status: StatusCode,
        /// `x-should-retry`, where the provider says.
        should_retry: Option<bool>,
        /// The body says that waiting does not help: there is no such model, or the request alone is more than the limit.
        hopeless: bool,
    },
    /// A stream of events broke after some of them were passed on.
    Broken,
}

/// What the settings and the call allow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// Sending it again does no harm.
    pub(super) repeatable: bool,
    /// `retry.on_disconnect`.
    pub(super) on_disconnect: bool,
    pub(super) refusal_statuses: &'a [u16],
    pub(super) retry_statuses: &'a [u16],
    /// It goes with a key of ours: that the provider does not know the key is no mistake of the client's.
    pub(super) has_our_key: bool,
    /// What its client gets if its stream breaks.
    pub(super) mid_stream: MidStream,
    /// It tries for everybody whether the provider is there again.
    pub(super) is_probe: bool,
}

/// What to do about an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The client gets the answer as it is.
    Deliver,
    /// Another attempt at once, which does not count: on a new connection.
    Again,
    /// Another attempt, if deadline and `attempts_max` allow one.
    Retry,
    /// The lane refuses everybody for a while: its gate closes, then as `Retry`, or as `Deliver` where the call cannot
    /// be repeated.
    Refused,
    /// Another attempt with another key or at another upstream, if there is one that has a permit; else as `Deliver`.
    Elsewhere,
    /// What is missing of the stream is asked for and spliced on.
    Continue,
    /// The stream begins anew.
    Restart,
    /// No further attempt would help or be right.
    GiveUp,
}

/// What an attempt tells of the provider, for its breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// It does its work, also where it refuses.
    Answered,
    /// It failed.
    Failed,
    /// It failed in the way that some refuse: the connection was lost before the head.
    Lost,
    /// Nothing: it was our mistake, or nobody's.
    Unknown,
}

/// What an attempt means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) verdict: Verdict,
    pub(super) health: Health,
}

pub(super) fn judge(happened: Happened, rules: &Rules<'_>) -> Judgement {
    let asks_again = rules.repeatable && rules.on_disconnect;
    let retry_if = |retry| if retry { Verdict::Retry } else { Verdict::GiveUp };
    let (verdict, health) = match happened {
        Happened::NotConnected { ours } => (Verdict::Retry, if ours { Health::Unknown } else { Health::Failed }),
        Happened::Stale => (if asks_again { Verdict::Again } else { Verdict::GiveUp }, Health::Unknown),
        Happened::Untouched => (Verdict::Retry, Health::Unknown),
        Happened::Lost => (retry_if(asks_again), Health::Lost),
        Happened::Cut => (retry_if(asks_again), Health::Failed),
        // The provider still generates; a second try would only waste it. Of one that has failed lately that is not to be
        // believed, and its client did not ask to be the one who finds out.
        Happened::NoFirstByte => (retry_if(asks_again && rules.is_probe), Health::Failed),
        Happened::Status { status, should_retry, hopeless } => {
            let verdict = judge_status(status, should_retry, hopeless, rules);
            // A refusal is an answer, whatever its status.
            let failed = status.is_server_error() && verdict != Verdict::Refused;
            (verdict, if failed { Health::Failed } else { Health::Answered })
        }
        // That it began to answer was told when it did.
        Happened::Broken => match rules.mid_stream {
            MidStream::Continue if asks_again => (Verdict::Continue, Health::Unknown),
            MidStream::Restart if asks_again => (Verdict::Restart, Health::Unknown),
            MidStream::Error | MidStream::Continue | MidStream::Restart => (Verdict::GiveUp, Health::Unknown),
        },
    };
    Judgement { verdict, health }
}

fn judge_status(status: StatusCode, should_retry: Option<bool>, hopeless: bool, rules: &Rules<'_>) -> Verdict {
    let code = status.as_u16();
    let may_retry = should_retry != Some(false);
    if hopeless {
        return Verdict::Deliver;
    }
    if rules.refusal_statuses.contains(&code) && may_retry {
        return Verdict::Refused;
    }
    let asked_to = code == 409 && should_retry == Some(true);
    if rules.repeatable && (asked_to || rules.retry_statuses.contains(&code) && may_retry) {
        return Verdict::Retry;
    }
    // A 403 is about the call as often as about the key: what is forbidden to one is not asked with another.
    let is_unknown_key = status == StatusCode::UNAUTHORIZED && rules.has_our_key;
    if rules.repeatable && is_unknown_key { Verdict::Elsewhere } else { Verdict::Deliver }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules<'_> = Rules {
        repeatable: true,
        on_disconnect: true,
        refusal_statuses: &[429, 404],
        retry_statuses: &[408, 500, 502, 503, 504, 529],
        has_our_key: false,
        mid_stream: MidStream::Error,
        is_probe: false,
    };
    const ONCE: Rules<'_> = Rules { repeatable: false, ..RULES };
    const NEVER_ON_DISCONNECT: Rules<'_> = Rules { on_disconnect: false, ..RULES };
    const OUR_KEY: Rules<'_> = Rules { has_our_key: true, ..RULES };
    const CONTINUES: Rules<'_> = Rules { mid_stream: MidStream::Continue, ..RULES };
    const RESTARTS: Rules<'_> = Rules { mid_stream: MidStream::Restart, ..RULES };

    fn with(code: u16, should_retry: Option<bool>, hopeless: bool) -> Happened {
        Happened::Status { status: StatusCode::from_u16(code).unwrap(), should_retry, hopeless }
    }

    fn status(code: u16) -> Happened {
        with(code, None, false)
    }

    #[test]
    fn every_row_of_the_table_has_its_verdict() {
        use Health::{Answered, Failed, Lost, Unknown};
        use Verdict::{Again, Continue, Deliver, Elsewhere, GiveUp, Refused, Restart, Retry};
        let not_connected = Happened::NotConnected { ours: false };
        for (happened, rules, verdict, health) in [
            // Could not connect, nothing sent: also what must not be sent twice.
            (not_connected, RULES, Retry, Failed),
            (not_connected, ONCE, Retry, Failed),
            (not_connected, NEVER_ON_DISCONNECT, Retry, Failed),
            (Happened::NotConnected { ours: true }, RULES, Retry, Unknown),
            (Happened::Stale, RULES, Again, Unknown),
            (Happened::Stale, ONCE, GiveUp, Unknown),
            (Happened::Stale, NEVER_ON_DISCONNECT, GiveUp, Unknown),
            (Happened::Untouched, RULES, Retry, Unknown),
            (Happened::Untouched, ONCE, Retry, Unknown),
            // Reset or EOF before the head.
            (Happened::Lost, RULES, Retry, Lost),
            (Happened::Lost, ONCE, GiveUp, Lost),
            (Happened::Lost, NEVER_ON_DISCONNECT, GiveUp, Lost),
            // Cut before anything was passed on.
            (Happened::Cut, RULES, Retry, Failed),
            (Happened::Cut, ONCE, GiveUp, Failed),
            (Happened::Cut, NEVER_ON_DISCONNECT, GiveUp, Failed),
            (Happened::NoFirstByte, RULES, GiveUp, Failed),
            (Happened::NoFirstByte, Rules { is_probe: true, ..RULES }, Retry, Failed),
            (Happened::NoFirstByte, Rules { is_probe: true, ..ONCE }, GiveUp, Failed),
            // Refusals.
            (status(429), RULES, Refused, Answered),
            (status(429), ONCE, Refused, Answered),
            (status(404), RULES, Refused, Answered),
            (with(404, None, true), RULES, Deliver, Answered),
            (with(429, None, true), RULES, Deliver, Answered),
            (with(429, Some(false), false), RULES, Deliver, Answered),
            // What passes.
            (status(408), RULES, Retry, Answered),
            (status(500), RULES, Retry, Failed),
            (status(502), RULES, Retry, Failed),
            (status(503), RULES, Retry, Failed),
            (status(504), RULES, Retry, Failed),
            (status(529), RULES, Retry, Failed),
            (status(503), ONCE, Deliver, Failed),
            (status(503), NEVER_ON_DISCONNECT, Retry, Failed),
            (with(503, None, true), RULES, Deliver, Failed),
            (with(503, Some(false), false), RULES, Deliver, Failed),
            (status(409), RULES, Deliver, Answered),
            (with(409, Some(true), false), RULES, Retry, Answered),
            (with(409, Some(true), false), ONCE, Deliver, Answered),
            // Any other status.
            (status(200), RULES, Deliver, Answered),
            (status(301), RULES, Deliver, Answered),
            (status(400), RULES, Deliver, Answered),
            (status(501), RULES, Deliver, Failed),
            (status(401), RULES, Deliver, Answered),
            (status(401), OUR_KEY, Elsewhere, Answered),
            (status(403), OUR_KEY, Deliver, Answered),
            (status(401), Rules { repeatable: false, ..OUR_KEY }, Deliver, Answered),
            // A stream that broke later.
            (Happened::Broken, RULES, GiveUp, Unknown),
            (Happened::Broken, CONTINUES, Continue, Unknown),
            (Happened::Broken, RESTARTS, Restart, Unknown),
            (Happened::Broken, Rules { repeatable: false, ..CONTINUES }, GiveUp, Unknown),
            (Happened::Broken, Rules { on_disconnect: false, ..RESTARTS }, GiveUp, Unknown),
        ] {
            assert_eq!(judge(happened, &rules), Judgement { verdict, health }, "{happened:?} {rules:?}");
        }
    }

    #[test]
    fn each_upstream_has_its_own_statuses() {
        let strict = Rules { refusal_statuses: &[503], retry_statuses: &[418], ..RULES };
        let verdict = |happened, rules: &Rules<'_>| judge(happened, rules).verdict;
        assert_eq!(verdict(status(503), &strict), Verdict::Refused);
        assert_eq!(verdict(status(418), &strict), Verdict::Retry);
        assert_eq!(verdict(status(429), &strict), Verdict::Deliver);
        assert_eq!(verdict(status(500), &strict), Verdict::Deliver);
        // One that is both is a refusal.
        let both = Rules { refusal_statuses: &[500], ..RULES };
        assert_eq!(judge(status(500), &both), Judgement { verdict: Verdict::Refused, health: Health::Answered });
    }
}
