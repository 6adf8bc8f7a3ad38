use proptest::prelude::*;

use super::*;

/// Pushes `chunks` one by one; what comes out, with the rest last.
fn frames<'a>(framer: &mut Framer, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Frame> {
    let mut frames = Vec::new();
    for chunk in chunks {
        frames.extend(framer.push(Bytes::copy_from_slice(chunk)));
    }
    frames.extend(framer.finish());
    frames
}

fn events(text: &str) -> Vec<String> {
    let frames = frames(&mut Framer::default(), [text.as_bytes()]);
    frames.into_iter().map(|frame| String::from_utf8(frame.into_bytes().to_vec()).unwrap()).collect()
}

#[test]
fn a_blank_line_ends_an_event_whatever_ends_its_lines() {
    assert_eq!(events("data: 1\n\ndata: 2\n\n"), ["data: 1\n\n", "data: 2\n\n"]);
    assert_eq!(events("data: 1\r\n\r\nid: 2\r\n\r\n"), ["data: 1\r\n\r\n", "id: 2\r\n\r\n"]);
    assert_eq!(events("data: 1\r\rdata: 2\r\r"), ["data: 1\r\r", "data: 2\r\r"]);
    assert_eq!(events("data: 1\n\r\ndata: 2\n\rdata: 3\r\n\n"), ["data: 1\n\r\n", "data: 2\n\r", "data: 3\r\n\n"]);
}

#[test]
fn a_comment_between_events_is_not_held_back() {
    let mut framer = Framer::default();
    let first: Vec<_> = framer.push(Bytes::from_static(b": queued position=3 eta=4s\n")).collect();
    assert_eq!(first, [Frame::Event(Bytes::from_static(b": queued position=3 eta=4s\n"))]);
    assert_eq!(
        events(": ping\n\ndata: 1\n: inside\ndata: 2\n\n"),
        [": ping\n", "\n", "data: 1\n: inside\ndata: 2\n\n"]
    );
}

#[test]
fn an_event_of_a_stream_of_bare_crs_is_not_held_back() {
    let mut framer = Framer::default();
    assert_eq!(framer.push(Bytes::from_static(b"data: 1\r\r")).count(), 1);
}

#[test]
fn an_event_within_one_chunk_is_not_copied() {
    let chunk = Bytes::from_static(b"data: 1\n\ndata: 2\n\n");
    let mut framer = Framer::default();
    for frame in framer.push(chunk.clone()) {
        assert!(chunk.as_ptr_range().contains(&frame.bytes().as_ptr()));
    }
}

#[test]
fn what_was_not_taken_comes_with_the_next_push() {
    let mut framer = Framer::default();
    assert!(framer.push(Bytes::from_static(b"data: 1\n\ndata: 2\n\nda")).next().is_some());
    let rest: Vec<_> = framer.push(Bytes::from_static(b"ta: 3\n\n")).map(Frame::into_bytes).collect();
    assert_eq!(rest, ["data: 2\n\n", "data: 3\n\n"]);
}

#[test]
fn an_event_too_long_to_hold_passes_in_parts_and_the_next_is_whole_again() {
    let mut framer = Framer::with_event_max(16);
    let frames = frames(&mut framer, [&b"data: 123456"[..], b"7890123", b"456", b"\n\ndata: 1", b"\n\n"]);
    let part = |bytes: &'static str, last| Frame::Part { bytes: Bytes::from_static(bytes.as_bytes()), last };
    let expected = [
        part("data: 1234567890123", false),
        part("456", false),
        part("\n\n", true),
        Frame::Event(Bytes::from_static(b"data: 1\n\n")),
    ];
    assert_eq!(frames, expected);
}

#[test]
fn what_lacks_its_blank_line_is_told_at_the_end() {
    let rest = |text: &'static str| {
        let mut framer = Framer::default();
        let _ = framer.push(Bytes::from_static(text.as_bytes())).count();
        framer.finish()
    };
    assert_eq!(rest("data: 1\n\n"), None);
    let cut = Frame::Part { bytes: Bytes::from_static(b"data: [DONE]\n"), last: false };
    assert_eq!(rest("data: [DONE]\n"), Some(cut));
    assert_eq!(rest("data: 1\r\n\r"), Some(Frame::Event(Bytes::from_static(b"data: 1\r\n\r"))));
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_line() {
    assert_eq!(events("\u{feff}: hello\ndata: 1\n\n"), ["\u{feff}: hello\n", "data: 1\n\n"]);
    assert_eq!(Event::new("\u{feff}data: 1\n\n".as_bytes()).data(), &b"1"[..]);
    let half = frames(&mut Framer::default(), [&b"\xEF\xBB"[..], b"\n\n"]);
    assert_eq!(half.len(), 1);
}

#[test]
fn fields_are_read_as_the_standard_says() {
    let event = Event::new(b"event: one\nid: 7\ndata:first\nevent: two\ndata:  second\n: no\ndata\ndatax: no\n\n");
    assert_eq!(event.event_type(), Some("two"));
    assert_eq!(event.data(), &b"first\n second\n"[..]);
    assert!(!event.is_comment_only());
    let crlf = Event::new(b"data: a\r\ndata: b\r\n\r\n");
    assert_eq!((crlf.data(), crlf.event_type()), (b"a\nb".as_slice().into(), None));
    assert!(matches!(Event::new(b"data: x\n\n").data(), Cow::Borrowed(b"x")));
    assert!(Event::new(b": queued\n\n").is_comment_only());
    assert!(Event::new(b"\r\n").is_comment_only());
}

/// Streams made of what matters: line ends, colons, fields and marks in any order.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        &b"\n"[..],
        b"\r",
        b"\r\n",
        b":",
        b"data: x",
        b"event: y",
        b" ",
        b"\xEF\xBB\xBF",
        b"\xEF",
        b"data: long enough",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Where an unhurried reader sees the whole stream at once.
fn chunked<'a>(stream: &'a [u8], borders: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut borders: Vec<usize> = borders.iter().map(|border| border.index(stream.len() + 1)).collect();
    borders.extend([0, stream.len()]);
    borders.sort_unstable();
    borders.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn framing_ignores_chunk_borders(stream in stream(), borders in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let whole = frames(&mut Framer::default(), [&stream[..]]);
        let pieces = frames(&mut Framer::default(), chunked(&stream, &borders));
        let single = frames(&mut Framer::default(), stream.chunks(1));
        prop_assert_eq!(&whole, &pieces);
        prop_assert_eq!(&whole, &single);
    }

    #[test]
    fn no_byte_is_lost_added_or_moved(
        stream in stream(),
        event_max in 1..40_usize,
        borders in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let frames = frames(&mut Framer::with_event_max(event_max), chunked(&stream, &borders));
        let joined: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes().to_vec()).collect();
        prop_assert_eq!(joined, stream);
    }

    #[test]
    fn a_whole_event_ends_with_its_line_and_is_never_empty(stream in stream()) {
        for frame in frames(&mut Framer::default(), stream.chunks(3)) {
            if let Frame::Event(bytes) = frame {
                prop_assert!(matches!(bytes.last(), Some(b'\n' | b'\r')));
            }
        }
    }
}
