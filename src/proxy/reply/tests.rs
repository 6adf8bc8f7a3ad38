use super::*;
use crate::limits::Dimension;

const ASKER: Asker = Asker { waiting: 60, ..Asker::of(false, "x-stainless-read-timeout") };

fn told(refusal: Refusal, asker: Asker) -> (u16, String, Option<Duration>) {
    let reply = reply(&Refused::Failure(Failure::Refused(refusal), asker));
    (reply.status.as_u16(), reply.body.message.into_owned(), reply.retry_after)
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[test]
fn an_early_refusal_says_who_waits_how_long_and_what_helps() {
    let refusal = |turn: Option<f64>| Refusal::DeadlineUnreachable { turn: turn.map(seconds), left: seconds(4.5) };
    let (status, message, after) = told(refusal(Some(61.8)), ASKER);
    assert_eq!(status, 429);
    assert_eq!(
        message,
        "60 calls wait already; its turn is expected in about 62 s, but it can wait for 4.5 s only \
         (x-stainless-read-timeout, less what an answer takes); stream, allow more time, or send less"
    );
    assert_eq!(after, Some(seconds(57.3)), "then one that is as patient is in time");
    let asker = Asker { stream: true, deadline_from: "x-tidegate-deadline-ms", waiting: 1, ..ASKER };
    let (_, message, after) = told(refusal(None), asker);
    assert_eq!(
        message,
        "1 call waits already; nobody can tell when its turn comes, but it can wait for 4.5 s only \
         (x-tidegate-deadline-ms); allow more time, or send less"
    );
    assert_eq!(after, Some(seconds(60.0)));
}

#[test]
fn a_wait_in_vain_says_how_much_was_missing() {
    let refusal = |turn: Option<f64>| Refusal::QueueTimeout { waited: seconds(600.2), turn: turn.map(seconds) };
    let asker = Asker { deadline_from: WAIT_MAX, waiting: 0, ..ASKER };
    let (status, message, after) = told(refusal(Some(30.0)), asker);
    assert_eq!(status, 429);
    assert_eq!(
        message,
        "waited 10 min for its turn, which would have come in about 30 s more: as long as it could \
         (admission.wait_max); send less, or raise admission.wait_max"
    );
    assert_eq!(after, Some(seconds(30.0)));
    assert_eq!(told(refusal(None), asker).2, Some(SOON));
    let (_, message, _) = told(refusal(None), Asker { paused: true, waiting: 2, ..asker });
    assert!(message.contains("; an operator has paused an upstream; 2 calls wait already; "), "{message}");
    let (_, message, _) = told(refusal(None), Asker { failing: true, waiting: 2, ..asker });
    assert!(message.contains(&format!("; {FAILING}2 calls wait already; ")), "{message}");
}

#[test]
fn the_clients_own_limit_is_named() {
    let refusal = |retry_after| Refusal::LimitExceeded { dimension: Dimension::Requests, limit: 10, retry_after };
    let (status, message, after) = told(refusal(Some(seconds(3.2))), ASKER);
    assert_eq!(status, 429);
    assert_eq!(
        message,
        "over this client's own limit, clients.limits.requests_per_minute = 10; there is room in about 3.2 s; send \
         less, or set on_limit = \"wait\""
    );
    assert_eq!(after, Some(seconds(3.2)));
    assert!(told(refusal(None), ASKER).1.contains("when one of its calls has ended"));
}

#[test]
fn what_a_retry_can_cure_says_when() {
    let failures = [
        Failure::Refused(Refusal::ShuttingDown),
        Failure::Refused(Refusal::QueueFull { full: Full::Calls(3), retry_after: seconds(2.0) }),
        Failure::Refused(Refusal::QueueFull { full: Full::Bytes(3), retry_after: seconds(2.0) }),
        Failure::Refused(Refusal::QueueFull { full: Full::Keys(3), retry_after: seconds(2.0) }),
        Failure::Disconnected { attempts: 1, detail: String::new(), is_once: false },
        Failure::TimedOut { attempts: 1, is_once: false },
        Failure::Unavailable { attempts: 1, detail: String::new() },
    ];
    for failure in failures {
        let refused = Refused::Failure(failure, ASKER);
        assert!(reply(&refused).retry_after.is_some(), "{refused:?}");
    }
    for refused in [
        Refused::TooLarge { body_max: 1 },
        Refused::NeedsTls,
        Refused::Failure(Failure::Refused(Refusal::NoUpstream { model: None }), ASKER),
        Refused::Failure(Failure::Disconnected { attempts: 1, detail: String::new(), is_once: true }, ASKER),
        Refused::Failure(Failure::TimedOut { attempts: 1, is_once: true }, ASKER),
    ] {
        assert_eq!(reply(&refused).retry_after, None, "{refused:?}");
    }
}

#[test]
fn an_answer_that_is_no_stream_is_described() {
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CONTENT_ENCODING, "gzip")];
    let headers = headers.map(|(name, value)| (name, http::HeaderValue::from_static(value)));
    let (status, body) = no_stream(&Head { status: StatusCode::OK, headers: headers.into_iter().collect() });
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(body.message.contains("status 200 and text/event-stream, encoded as gzip, not"), "{}", body.message);
}
