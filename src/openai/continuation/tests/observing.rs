//! What a stream has come to, and what of it cannot be continued.

use super::*;

fn unfit(partial: &Partial) -> Option<Unfit> {
    partial.request(QUESTION.as_bytes(), Some(Style::Vllm)).err()
}

#[test]
fn what_says_nothing_leaves_it_blank() {
    for frame in [
        role(),
        delta("{}"),
        delta(r#"{"role":"assistant","content":null,"tool_calls":[],"refusal":null,"audio":{},"x":""}"#),
        delta(r#"{"annotations":[{"type":"url_citation"}]}"#),
        event(r#"{"id":"one","choices":[],"usage":null}"#),
        event(r#"{"id":"one"}"#),
        Frame::Event(Bytes::from_static(b": heartbeat\n\n")),
        Frame::Event(Bytes::from_static(b"event: ping\n\n")),
    ] {
        let partial = chat([frame.clone()]);
        assert!(partial.is_blank(), "{frame:?}");
        assert_eq!(body(partial.request(QUESTION.as_bytes(), None)).unwrap(), QUESTION);
    }
    assert!(said(&[" ", "\n"]).is_blank() && chat([reasoning("\n")]).is_blank());
    for partial in [said(&[" a"]), chat([reasoning("a")]), chat([reasoning("a"), content(" ")])] {
        assert!(!partial.is_blank());
    }
    let spaces = observed(Route::Completions, [event(r#"{"choices":[{"index":0,"text":" "}]}"#)]);
    assert!(!spaces.is_blank(), "of a plain completion every byte counts");
}

#[test]
fn what_no_provider_continues_is_told() {
    let finish = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    for (frame, expected) in [
        (delta(r#"{"tool_calls":[{"index":0,"function":{"name":"f"}}]}"#), Unfit::ToolCall),
        (delta(r#"{"function_call":{"name":"f"}}"#), Unfit::ToolCall),
        (delta(r#"{"refusal":"no"}"#), Unfit::Refusal),
        (delta(r#"{"audio":{"data":"AA"}}"#), Unfit::Unknown),
        (delta(r#"{"reasoning_details":[{"text":"a"}]}"#), Unfit::Unknown),
        (delta(r#"{"content":[{"type":"thinking"}]}"#), Unfit::Unknown),
        (event(r#"{"choices":[{"index":0,"message":{"content":"a"}}]}"#), Unfit::Unknown),
        (event(r#"{"choices":[{"index":1,"delta":{"content":"a"}}]}"#), Unfit::ManyChoices),
        (event(r#"{"choices":[{"index":0,"delta":{}},{"index":1,"delta":{}}]}"#), Unfit::ManyChoices),
        (event(finish), Unfit::Finished),
        (event("[DONE]"), Unfit::Finished),
        (event(r#"{"error":{"message":"no"}}"#), Unfit::Failed),
        (Frame::Event(Bytes::from_static(b"event: error\ndata: {\"message\":\"no\"}\n\n")), Unfit::Failed),
        (delta(r#"{"content":"\ud83e"}"#), Unfit::Unknown), // half of a pair, which is no text by itself
        (event("{"), Unfit::Unreadable),
        (event("\"\\ud800\""), Unfit::Unreadable),
        (Frame::Event(Bytes::from_static(b"data: \xFF\n\n")), Unfit::Unreadable),
        (Frame::Part { bytes: Bytes::new(), last: false }, Unfit::TooLong),
        (content(&"a".repeat((4 << 20) + 1)), Unfit::TooLong),
    ] {
        let partial = chat([role(), content("a"), frame, content("b")]);
        assert_eq!((unfit(&partial), partial.unfit()), (Some(expected), Some(expected)));
        assert!(!partial.is_blank());
        assert_eq!(partial.bytes(), 0, "nothing is kept for {expected}");
    }
    assert_eq!(unfit(&chat([content("a"), reasoning("b")])), Some(Unfit::Reasoning));
    assert_eq!(unfit(&Partial::new(Route::ChatCompletions, 2)), Some(Unfit::ManyChoices));
    for route in [Route::Responses, Route::Messages, Route::Embeddings, Route::Other] {
        let partial = Partial::new(route, 1);
        assert_eq!((unfit(&partial), partial.is_blank()), (Some(Unfit::Route), false));
        assert_eq!(partial.unfit(), Some(Unfit::Route), "from the beginning");
    }
    assert_eq!(said(&["a"]).unfit(), None);
}

/// Some providers cut text between tokens where a character has several, and pass on what they cannot say as `U+FFFD`.
#[test]
fn half_a_character_is_not_continued() {
    for partial in [said(&["a", "\u{fffd}"]), chat([reasoning("\u{fffd} ")])] {
        assert_eq!((unfit(&partial), partial.unfit()), (Some(Unfit::Unreadable), None));
    }
    assert_eq!(unfit(&said(&["\u{fffd}", "a"])), None);
}

#[test]
fn what_it_holds_is_counted_and_bounded() {
    let mut partial = said(&[]);
    for _ in 0..(4 << 20) / 65_536 + 1 {
        partial.observe(&content(&"a".repeat(65_536)));
        assert!(partial.bytes() <= 9 << 20);
    }
    assert_eq!((unfit(&partial), partial.bytes()), (Some(Unfit::TooLong), 0));
    assert!(said(&["hello"]).bytes() >= 5);
}

#[test]
fn a_provider_that_is_not_known_to_continue_is_asked_again_only_for_what_nobody_misses() {
    let asked = |partial: &Partial| body(partial.request(QUESTION.as_bytes(), None));
    assert_eq!(asked(&said(&["a"])), Err(Unfit::NotSupported));
    assert_eq!(asked(&said(&["\n", " "])).unwrap(), QUESTION);
    assert_eq!(asked(&chat([reasoning("\n")])).unwrap(), QUESTION);
    assert_eq!(asked(&observed(Route::Completions, [])).unwrap(), QUESTION);
    let spaces = observed(Route::Completions, [event(r#"{"choices":[{"index":0,"text":"  "}]}"#)]);
    assert_eq!(asked(&spaces), Err(Unfit::NotSupported), "of a plain completion every byte counts");
}
