//! What happened upstream, and what that means: one pure function, DESIGN's table row by row.

use http::StatusCode;

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happened {
    /// No connection; nothing was sent.
    NotConnected,
    /// The provider says that it has done nothing with the request, and the whole of it is at hand.
    Untouched,
    /// Reset or EOF before the head of the answer (1006).
    Lost,
    /// The answer was cut before anything of it was passed on.
    Cut,
    /// No head within `first_byte_timeout`.
    NoFirstByte,
    /// A final status.
    Status {
        status: StatusCode,
        /// `x-should-retry`, where the provider says.
        should_retry: Option<bool>,
        /// The body says that waiting does not help: there is no such model, or the request alone is more than the limit.
        hopeless: bool,
    },
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
}

/// What an attempt means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The client gets the answer as it is.
    Deliver,
    /// Another attempt, if deadline and `attempts_max` allow one.
    Retry,
    /// The lane refuses everybody for a while: its gate closes, then as `Retry`, or as `Deliver` where the call cannot
    /// be repeated.
    Refused,
    /// No further attempt would help or be right.
    GiveUp,
}

pub(super) fn judge(happened: Happened, rules: &Rules<'_>) -> Verdict {
    let retry_if = |retry| if retry { Verdict::Retry } else { Verdict::GiveUp };
    match happened {
        Happened::NotConnected | Happened::Untouched => Verdict::Retry,
        Happened::Lost | Happened::Cut => retry_if(rules.repeatable && rules.on_disconnect),
        // The provider still generates; a second try would only waste it.
        Happened::NoFirstByte => Verdict::GiveUp,
        Happened::Status { hopeless: true, .. } => Verdict::Deliver,
        Happened::Status { status, should_retry, hopeless: false } => {
            let code = status.as_u16();
            if rules.refusal_statuses.contains(&code) && should_retry != Some(false) {
                return Verdict::Refused;
            }
            let asked_to = code == 409 && should_retry == Some(true);
            let passing = rules.retry_statuses.contains(&code) && should_retry != Some(false);
            if rules.repeatable && (asked_to || passing) { Verdict::Retry } else { Verdict::Deliver }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules<'_> = Rules {
        repeatable: true,
        on_disconnect: true,
        refusal_statuses: &[429, 404],
        retry_statuses: &[408, 500, 502, 503, 504, 529],
    };

    fn status(code: u16) -> Happened {
        let status = StatusCode::from_u16(code).unwrap();
        Happened::Status { status, should_retry: None, hopeless: false }
    }

    #[test]
    fn every_row_of_the_table_has_its_verdict() {
        let once = Rules { repeatable: false, ..RULES };
        let never_on_disconnect = Rules { on_disconnect: false, ..RULES };
        let with = |code, should_retry, hopeless| Happened::Status {
            status: StatusCode::from_u16(code).unwrap(),
            should_retry,
            hopeless,
        };
        for (happened, rules, verdict) in [
            (Happened::NotConnected, RULES, Verdict::Retry),
            (Happened::NotConnected, once, Verdict::Retry),
            (Happened::Untouched, once, Verdict::Retry),
            (Happened::Lost, RULES, Verdict::Retry),
            (Happened::Lost, once, Verdict::GiveUp),
            (Happened::Lost, never_on_disconnect, Verdict::GiveUp),
            (Happened::Cut, RULES, Verdict::Retry),
            (Happened::Cut, never_on_disconnect, Verdict::GiveUp),
            (Happened::NoFirstByte, RULES, Verdict::GiveUp),
            (status(429), RULES, Verdict::Refused),
            (status(429), once, Verdict::Refused),
            (status(404), RULES, Verdict::Refused),
            (with(404, None, true), RULES, Verdict::Deliver),
            (with(429, None, true), RULES, Verdict::Deliver),
            (with(503, None, true), RULES, Verdict::Deliver),
            (with(429, Some(false), false), RULES, Verdict::Deliver),
            (status(408), RULES, Verdict::Retry),
            (status(500), RULES, Verdict::Retry),
            (status(502), RULES, Verdict::Retry),
            (status(503), RULES, Verdict::Retry),
            (status(504), RULES, Verdict::Retry),
            (status(529), RULES, Verdict::Retry),
            (status(503), once, Verdict::Deliver),
            (with(503, Some(false), false), RULES, Verdict::Deliver),
            (status(409), RULES, Verdict::Deliver),
            (with(409, Some(true), false), RULES, Verdict::Retry),
            (status(200), RULES, Verdict::Deliver),
            (status(301), RULES, Verdict::Deliver),
            (status(400), RULES, Verdict::Deliver),
            (status(401), RULES, Verdict::Deliver),
            (status(501), RULES, Verdict::Deliver),
        ] {
            assert_eq!(judge(happened, &rules), verdict, "{happened:?} {rules:?}");
        }
    }
}
