use proptest::prelude::*;

use super::*;

/// A checker that waits for the answer to a request with this method.
fn asked(method: &str) -> Answers {
    let mut answers = Answers::default();
    answers.sends(format!("{method} / HTTP/1.1\r\n").as_bytes()).unwrap();
    answers
}

fn verdict(bytes: &str) -> Result<(), (usize, Doubt)> {
    asked("GET").push(bytes.as_bytes())
}

#[test]
fn sound_answers_pass_and_leave_the_connection_idle() {
    for (method, answer) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
        ("GET", "HTTP/1.1 200 \r\nA:\r\ncontent-LENGTH:0\r\n\r\n"),
        ("GET", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
        ("GET", "HTTP/1.0 999 What\tever \u{e9}\r\nContent-Length: 1\r\n\r\n1"),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding:\t Chunked \r\n\r\n2;a=\"b\"\r\n{}\r\n0\r\nX: y\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2   \r\n{}\r\n0  \r\n\r\n"),
        ("GET", "HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
    ] {
        let mut answers = asked(method);
        assert_eq!(answers.push(answer.as_bytes()), Ok(()), "{answer:?}");
        assert_eq!(answers.state, State::Idle, "{answer:?}");
        let mut slow = asked(method);
        assert!(answer.bytes().all(|byte| slow.push(&[byte]).is_ok()), "{answer:?}");
        assert_eq!((slow.state, slow.line.capacity()), (State::Idle, 0), "{answer:?}");
        // What comes now belongs to nothing.
        assert_eq!(answers.push(b"H").unwrap_err().0, 0, "{answer:?}");
        assert!(answers.sends(b"GET / HTTP/1.1\r\n").is_err(), "{answer:?}");
    }
}

#[test]
fn answer_without_framing_and_another_protocol_go_on_to_the_end() {
    for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"] {
        assert_eq!(verdict(&format!("{head}\0\n\r any\u{7f}")), Ok(()), "{head}");
    }
}

#[test]
fn doubtful_heads_are_refused() {
    let fields = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n");
    for head in [
        "HTTP/1.1 200 OK\n\n".to_owned(),
        "HTTP/2 200 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 2000 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 20\r\n\r\n".to_owned(),
        "HTTP/1.1 099 OK\r\n\r\n".to_owned(),
        "HTTP/1.1  200 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 200 O\rK\r\n\r\n".to_owned(),
        "\r\n".to_owned(),
        "HTTP/1.1 204 No\r\nContent-Length: 1\r\n\r\n".to_owned(),
        "HTTP/1.1 103 Early\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        fields("Content-Length: 5\r\nTransfer-Encoding: chunked"),
        fields("Content-Length: 5\r\nContent-Length: 5"),
        fields("Content-Length: 5, 5"),
        fields("Transfer-Encoding: gzip, chunked"),
        fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        fields("X: 1\r\n 2"),
        fields("X : 1"),
        fields("X: 1\0"),
        fields("X"),
    ] {
        assert!(verdict(&head).is_err(), "{head:?}");
    }
}

#[test]
fn doubtful_chunks_are_refused_behind_the_sound_ones() {
    let sound = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n";
    for chunk in ["\r\n", ";2\r\n", "2\n", "0x2\r\n", " 2\r\n", "2 2\r\n", "-2\r\n", "0\r\nX\r\n", "0\r\nX : y\r\n"] {
        let (passed, _) = verdict(&format!("{sound}{chunk}{{}}\r\n0\r\n\r\n")).unwrap_err();
        assert!(passed >= sound.len(), "{chunk:?}");
    }
    assert_eq!(verdict(&format!("{sound}2\r\n{{}}x\r\n")).unwrap_err().0, sound.len() + 5);
}

#[test]
fn bytes_behind_an_answer_are_cut_off() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(verdict(&format!("{answer}HTTP/1.1 200 OK\r\n\r\n")).unwrap_err().0, answer.len());
}

#[test]
fn heads_and_interim_answers_are_bounded() {
    assert_eq!(verdict(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "A:\r\n".repeat(FIELDS_MAX))), Ok(()));
    assert!(verdict(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "A:\r\n".repeat(FIELDS_MAX + 1))).is_err());
    let long = |length: usize| format!("HTTP/1.1 200 OK\r\nA:{}\r\n\r\n", "v".repeat(length - 23));
    assert_eq!(verdict(&long(HEAD_MAX)), Ok(()));
    assert!(verdict(&long(HEAD_MAX + 1)).is_err());
    assert_eq!(verdict(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(INTERIM_MAX)), Ok(()));
    assert!(verdict(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(INTERIM_MAX + 1)).is_err());
}

const PIECES: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "X-A: b\r\n",
    "\r\n",
    "abc",
    "3\r\nabc\r\n",
    "0\r\n\r\n",
    "0\r\n",
    ";a=b\r\n",
    " ",
    "1",
];

proptest! {
    #[test]
    fn verdict_on_answers_does_not_depend_on_how_the_bytes_are_cut(
        pieces in prop::collection::vec(prop_oneof![
            9 => prop::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..4),
        ], 0..16),
        step in 1..30_usize,
    ) {
        let bytes = pieces.concat();
        let (mut whole, mut cut, mut single) = (asked("GET"), asked("GET"), asked("GET"));
        let expected = whole.push(&bytes).map_err(|(_, doubt)| doubt);
        prop_assert_eq!(bytes.chunks(step).try_for_each(|part| cut.push(part)).map_err(|(_, doubt)| doubt), expected);
        prop_assert_eq!(bytes.chunks(1).try_for_each(|part| single.push(part)).map_err(|(_, doubt)| doubt), expected);
        prop_assert_eq!((cut.state, single.state), (whole.state, whole.state));
    }
}
