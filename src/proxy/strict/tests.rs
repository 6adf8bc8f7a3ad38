mod corpus;
mod properties;

#[expect(dead_code, reason = "what arrives upstream is for the integration tests")]
#[path = "../../../tests/it/corpus/data.rs"]
mod data;
#[path = "../../../tests/it/corpus/reference.rs"]
mod reference;

use super::*;

const POST: &str = "POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\n";

fn verdict(bytes: &[u8]) -> Result<(), (usize, Violation)> {
    Strict::default().push(bytes)
}

fn kind(bytes: &[u8]) -> Kind {
    verdict(bytes).unwrap_err().1.kind
}

#[test]
fn sound_requests_pass_and_leave_the_connection_between_requests() {
    for request in [
        "GET / HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(),
        "\r\nGET / HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(),
        "GET / HTTP/1.0\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(),
        "GET http://t:80/x HTTP/1.1\r\nHost: t:80\r\n\r\n".to_owned(),
        format!("{POST}Content-Length: 2\r\n\r\n{{}}"),
        format!("{POST}transfer-ENCODING: \tChunked \r\n\r\n2;a=b\r\n{{}}\r\n0\r\nX-T: 1\r\n\r\n"),
    ] {
        let mut strict = Strict::default();
        assert_eq!(strict.push(request.repeat(2).as_bytes()), Ok(()), "{request:?}");
        assert!(strict.is_between_requests(), "{request:?}");
    }
}

#[test]
fn violation_tells_how_much_before_it_was_sound_and_stays() {
    let sound = format!("{POST}Content-Length: 2\r\n\r\n{{}}");
    let mut strict = Strict::default();
    let (passed, violation) = strict.push(format!("{sound}{sound}GET  / HTTP/1.1\r\n").as_bytes()).unwrap_err();
    assert_eq!((passed, violation.kind), (2 * sound.len(), Kind::BadRequest));
    assert_eq!(strict.push(sound.as_bytes()), Err((0, violation)));
    assert_eq!(strict.push(b""), Err((0, violation)));
    assert!(!strict.is_between_requests());
}

#[test]
fn bad_chunk_is_part_of_its_request() {
    let sound = format!("{POST}\r\n");
    let bytes = format!("{sound}{POST}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n+0\r\n\r\n");
    assert_eq!(verdict(bytes.as_bytes()).unwrap_err().0, sound.len());
}

#[test]
fn is_between_requests_only_there() {
    let mut strict = Strict::default();
    assert!(strict.is_between_requests());
    for (byte, between) in [("\r", false), ("\n", true), ("G", false), ("ET / HTTP/1.0\r\n", false), ("\r\n", true)] {
        strict.push(byte.as_bytes()).unwrap();
        assert_eq!(strict.is_between_requests(), between, "{byte:?}");
    }
}

#[test]
fn websocket_handshake_is_followed_by_nothing_before_its_answer() {
    let handshake = format!("{}Connection: Upgrade\r\nUpgrade: h2c, WebSocket\r\n\r\n", POST.replace("POST", "GET"));
    let asked = || {
        let mut strict = Strict::default();
        strict.push(handshake.as_bytes()).unwrap();
        assert!(strict.is_handshake() && !strict.is_between_requests());
        strict
    };
    assert_eq!(asked().push(b"x").unwrap_err().0, 0);
    assert_eq!(verdict(format!("{handshake}GET / HTTP/1.1\r\n").as_bytes()).unwrap_err().0, 0);
    let mut declined = asked();
    declined.declined();
    assert!(declined.is_between_requests());
    assert_eq!(declined.push(handshake.as_bytes()), Ok(()));
}

#[test]
fn heads_are_bounded_to_the_byte() {
    let field = |length: usize| format!("X: {}\r\n", "v".repeat(length));
    let around = POST.len() + field(0).len();
    assert_eq!(verdict(format!("{POST}{}\r\n", field(HEAD_MAX - around - 2)).as_bytes()), Ok(()));
    assert_eq!(kind(format!("{POST}{}\r\n", field(HEAD_MAX - around - 1)).as_bytes()), Kind::HeadTooLarge);
    assert_eq!(verdict(format!("{POST}{}\r\n", "A:\r\n".repeat(FIELDS_MAX - 1)).as_bytes()), Ok(()));
    assert_eq!(kind(format!("{POST}{}\r\n", "A:\r\n".repeat(FIELDS_MAX)).as_bytes()), Kind::HeadTooLarge);
    let target = |length: usize| format!("GET /{} HTTP/1.0\r\n\r\n", "a".repeat(length - "GET / HTTP/1.0\r\n".len()));
    assert_eq!(verdict(target(REQUEST_LINE_MAX).as_bytes()), Ok(()));
    assert_eq!(kind(target(REQUEST_LINE_MAX + 1).as_bytes()), Kind::UriTooLong);
}

#[test]
fn chunk_lines_and_trailers_are_bounded_to_the_byte() {
    let chunked = format!("{POST}Transfer-Encoding: chunked\r\n\r\n");
    let extension = |length: usize| format!("{chunked}0;{}\r\n\r\n", "a".repeat(length - 4));
    assert_eq!(verdict(extension(chunk::LINE_MAX).as_bytes()), Ok(()));
    assert!(verdict(extension(chunk::LINE_MAX + 1).as_bytes()).is_err());
    let trailers = |count: usize| format!("{chunked}0\r\n{}\r\n", "A:\r\n".repeat(count));
    assert_eq!(verdict(trailers(TRAILER_FIELDS_MAX).as_bytes()), Ok(()));
    assert_eq!(kind(trailers(TRAILER_FIELDS_MAX + 1).as_bytes()), Kind::HeadTooLarge);
    let trailer = |length: usize| format!("{chunked}0\r\nA:{}\r\n\r\n", "v".repeat(length - 4));
    assert_eq!(verdict(trailer(TRAILERS_MAX - 2).as_bytes()), Ok(()));
    assert_eq!(kind(trailer(TRAILERS_MAX + 1).as_bytes()), Kind::HeadTooLarge);
}

#[test]
fn parked_connection_holds_little() {
    assert!(size_of::<Strict>() <= 128, "{}", size_of::<Strict>());
    let mut strict = Strict::default();
    for byte in format!("{POST}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n").bytes() {
        strict.push(&[byte]).unwrap();
    }
    assert!(strict.is_between_requests());
    assert_eq!(strict.line.capacity(), 0);
}
