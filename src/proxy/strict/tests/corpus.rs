//! The corpus of the integration tests, shown to the checker alone.

use super::super::{Kind, Strict};
use super::data::{Expect, cases};
use super::reference::{Found, read};

const FOLLOWING: &[u8] = b"GET /v1/models HTTP/1.1\r\nHost: t\r\n\r\n";

#[test]
fn corpus_is_large_and_each_case_has_its_name() {
    let cases = cases();
    let refused = cases.iter().filter(|case| case.expect == Expect::Refused).count();
    assert!(refused >= 150, "{refused}");
    let names: std::collections::BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len());
    assert!(cases.iter().all(|case| !case.why.is_empty()));
}

#[test]
fn corpus_is_refused_or_passes_as_it_says() {
    for case in cases() {
        let bytes = case.bytes();
        let mut strict = Strict::default();
        let verdict = strict.push(&bytes);
        match case.expect {
            Expect::Forwarded => {
                assert_eq!(verdict, Ok(()), "{}", case.name);
                assert!(strict.is_between_requests(), "{}", case.name);
                assert_eq!(strict.push(FOLLOWING), Ok(()), "{}", case.name);
                let Found::Message(message) = read(&bytes) else { panic!("{}: {:?}", case.name, read(&bytes)) };
                assert_eq!(message.end, bytes.len(), "{}", case.name);
            }
            Expect::Refused => {
                let (passed, violation) = verdict.expect_err(&case.name);
                // Empty lines before the request line belong to nothing.
                assert!(bytes[..passed].iter().all(|byte| b"\r\n".contains(byte)), "{}: {passed}", case.name);
                let status = match violation.kind {
                    Kind::BadRequest => 400,
                    Kind::UriTooLong => 414,
                    Kind::HeadTooLarge => 431,
                };
                assert_eq!(status, case.status, "{}: {violation:?}", case.name);
                assert_eq!(strict.push(FOLLOWING), Err((0, violation)), "{}", case.name);
            }
        }
    }
}

#[test]
fn corpus_has_one_verdict_however_it_is_cut() {
    for case in cases() {
        let bytes = case.bytes();
        let whole = Strict::default().push(&bytes).map_err(|(_, violation)| violation);
        let steps: &[usize] = if bytes.len() > 4_000 { &[1_000] } else { &[1, 2, 3, 7] };
        for step in steps {
            let mut strict = Strict::default();
            let cut = bytes.chunks(*step).try_for_each(|part| strict.push(part)).map_err(|(_, violation)| violation);
            assert_eq!(cut, whole, "{} by {step}", case.name);
        }
    }
}
