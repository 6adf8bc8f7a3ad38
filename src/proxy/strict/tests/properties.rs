//! What holds for all bytes.

use proptest::prelude::*;

use super::super::{Strict, Violation};
use super::data::cases;
use super::reference::{Found, read};

/// Where the violation's message begins, or where the last sound one ended, and which violation it is.
fn judge(parts: &[&[u8]]) -> (usize, Option<Violation>) {
    let mut strict = Strict::default();
    let (mut seen, mut sound) = (0, 0);
    for part in parts {
        // A second checker tells where inside the part requests end.
        match strict.push(part) {
            Ok(()) => seen += part.len(),
            Err((passed, violation)) => {
                let sound = if passed > 0 { seen + passed } else { sound };
                return (sound, Some(violation));
            }
        }
        if strict.is_between_requests() {
            sound = seen;
        }
    }
    (sound, None)
}

/// Byte by byte, so that no end of a request is missed.
fn judge_bytes(bytes: &[u8]) -> (usize, Option<Violation>) {
    judge(&bytes.chunks(1).collect::<Vec<_>>())
}

/// Pieces of which wrong and right requests are made.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
        1 => prop::sample::select(vec![b'\r', b'\n', b' ', b'\t', b':', b'0', b';']).prop_map(|byte| vec![byte]),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

const PIECES: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\n",
    "GET /x HTTP/1.0\r\n",
    "Host: t\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding:",
    "chunked",
    "X-A: b\r\n",
    "X-A:",
    "\r\n",
    "\r\n\r\n",
    "abc",
    "3\r\nabc\r\n",
    "0\r\n\r\n",
    "0\r\n",
    "3;a=b\r\nabc\r\n",
    "1",
    "Upgrade: websocket\r\n",
];

/// A case of the corpus or bytes near one.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let all: Vec<Vec<u8>> = cases().iter().map(super::data::Case::bytes).filter(|bytes| bytes.len() < 2_000).collect();
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..4);
    (prop::sample::select(all.clone()), prop::sample::select(all), edits).prop_map(|(first, second, edits)| {
        let mut bytes = [first, second].concat();
        for (at, byte, how) in edits {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        bytes
    })
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..300),
        4 => pieces(),
        4 => mutated(),
    ]
}

/// A sound request.
fn sound() -> impl Strategy<Value = Vec<u8>> {
    let token = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}";
    let target =
        prop_oneof!["/[!$-;=@-\\[\\]^_a-~]{0,20}(\\?[!$-;=?@-\\[\\]-~]{0,20})?", Just("http://t/x?y".to_owned())];
    let blank = "[ \t]{0,3}";
    let value = prop::collection::vec(prop_oneof![9 => 33..127_u8, 1 => 128..=255_u8], 0..12);
    let field = (token, blank, value, blank).prop_map(|(name, before, value, behind)| {
        [b"X-", name.as_bytes(), b":", before.as_bytes(), &value, behind.as_bytes(), b"\r\n"].concat()
    });
    let fields = prop::collection::vec(field, 0..6).prop_map(|fields| fields.concat());
    let body = prop_oneof![
        Just(b"\r\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|body| [
            format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes(),
            &body
        ]
        .concat()),
        chunked(),
    ];
    let blank_line = prop::bool::weighted(0.2).prop_map(|is_there| if is_there { "\r\n" } else { "" });
    (blank_line, token, target, fields, body).prop_map(|(blank_line, method, target, fields, body)| {
        let method = if method == "CONNECT" { "GET" } else { &method };
        let line = format!("{blank_line}{method} {target} HTTP/1.1\r\nHost: t\r\n");
        [line.as_bytes(), &fields, &body].concat()
    })
}

fn chunked() -> impl Strategy<Value = Vec<u8>> {
    let extension = prop_oneof![Just(""), Just(";a"), Just(";a=b"), Just(" ; a = \"b;\\\"\""), Just(";a;b=\"\"")];
    let chunk = (prop::collection::vec(any::<u8>(), 1..40), extension, any::<bool>());
    let chunk = chunk.prop_map(|(data, extension, upper)| {
        let size = if upper { format!("0{:X}", data.len()) } else { format!("{:x}", data.len()) };
        [size.as_bytes(), extension.as_bytes(), b"\r\n", &data, b"\r\n"].concat()
    });
    let trailers = prop_oneof![Just(""), Just("X-T: 1\r\n"), Just("X-T:\r\nX-U: \t2\r\n")];
    (prop::collection::vec(chunk, 0..5), trailers).prop_map(|(chunks, trailers)| {
        let head = b"Transfer-Encoding: Chunked\r\n\r\n";
        [&head[..], &chunks.concat(), b"0\r\n", trailers.as_bytes(), b"\r\n"].concat()
    })
}

proptest! {
    #[test]
    fn verdict_does_not_depend_on_how_the_bytes_are_cut(
        bytes in any_bytes(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let expected = judge_bytes(&bytes);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let (mut parts, mut from) = (Vec::new(), 0);
        for cut in cuts {
            parts.push(&bytes[from..cut]);
            from = cut;
        }
        parts.push(&bytes[from..]);
        let (_, violation) = judge(&parts);
        prop_assert_eq!(violation, expected.1);
        // Whole, the bytes tell to the byte what was sound before.
        if let Err((passed, violation)) = Strict::default().push(&bytes) {
            prop_assert_eq!((passed, Some(violation)), expected);
        }
    }

    #[test]
    fn what_passes_is_read_alike_by_the_reference(bytes in any_bytes()) {
        let (sound, violation) = judge_bytes(&bytes);
        let mut at = 0;
        while at < sound {
            match read(&bytes[at..sound]) {
                Found::Message(message) => at += message.end,
                // An empty line, and nothing behind it so far.
                Found::Partial if bytes[at..sound] == *b"\r\n" => at = sound,
                other => prop_assert!(false, "{:?} at {at} of {:?}", other, bytes.escape_ascii().to_string()),
            }
        }
        prop_assert_eq!(at, sound);
        if violation.is_none() && at < bytes.len() {
            let handshake = bytes[at..].windows(9).any(|part| part.eq_ignore_ascii_case(b"websocket"));
            let rest = read(&bytes[at..]);
            prop_assert!(rest == Found::Partial || handshake, "{rest:?} of {:?}", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn sound_requests_pass_and_end_where_the_reference_says(requests in prop::collection::vec(sound(), 1..4)) {
        let bytes = requests.concat();
        let mut strict = Strict::default();
        prop_assert_eq!(strict.push(&bytes), Ok(()), "{:?}", bytes.escape_ascii().to_string());
        prop_assert!(strict.is_between_requests());
        let mut at = 0;
        for request in &requests {
            let Found::Message(message) = read(&bytes[at..]) else {
                return Err(TestCaseError::fail(format!("{:?}", read(&bytes[at..]))));
            };
            prop_assert_eq!(message.end, request.len());
            at += message.end;
        }
    }
}
