use bytes::Bytes;

use super::*;

/// A stream on `route` with these `data:` values.
fn watched(route: Route, data: &[&str]) -> Terminal {
    let mut terminal = Terminal::for_route(route);
    for data in data {
        terminal.observe_event(format!("data: {data}\n\n").as_bytes());
    }
    terminal
}

fn ending(route: Route, data: &[&str]) -> Option<Ending> {
    watched(route, data).ending()
}

const HELLO: &str = r#"{"choices":[{"index":0,"delta":{"content":"\"finish_reason\":\"stop\" [DONE] {\"error\":1}"},"finish_reason":null}],"usage":null}"#;
const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

#[test]
fn a_chat_stream_ends_with_done_or_a_finish_reason() {
    assert_eq!(ending(Route::ChatCompletions, &[HELLO]), None);
    assert_eq!(ending(Route::ChatCompletions, &[HELLO, "[DONE]"]), Some(Ending::Finished));
    assert_eq!(ending(Route::ChatCompletions, &[HELLO, STOP]), Some(Ending::Finished));
    assert_eq!(
        ending(Route::Completions, &[r#"{"choices":[{"text":"x","finish_reason" : "length"}]}"#]),
        Some(Ending::Finished)
    );
}

#[test]
fn an_empty_finish_reason_ends_nothing() {
    assert_eq!(ending(Route::ChatCompletions, &[r#"{"choices":[{"index":0,"finish_reason":""}]}"#]), None);
}

#[test]
fn every_choice_must_finish() {
    let second = r#"{"choices":[{"index":1,"delta":{"content":"x"},"finish_reason":null}]}"#;
    assert_eq!(ending(Route::ChatCompletions, &[second, HELLO, STOP]), None);
    let second_stop = r#"{"choices":[{"index":1,"finish_reason":"stop"}]}"#;
    assert_eq!(ending(Route::ChatCompletions, &[second, STOP, second_stop]), Some(Ending::Finished));

    let mut expecting = Terminal::for_route(Route::ChatCompletions).expecting(2);
    expecting.observe_event(format!("data: {STOP}\n\n").as_bytes());
    assert!(!expecting.is_complete());
    expecting.observe_event(format!("data: {second_stop}\n\n").as_bytes());
    assert!(expecting.is_complete());
}

#[test]
fn an_absurd_number_of_choices_waits_for_done() {
    let mut terminal = Terminal::for_route(Route::ChatCompletions).expecting(u64::MAX);
    terminal.observe_event(format!("data: {STOP}\n\n").as_bytes());
    assert!(!terminal.is_complete());
    terminal.observe_event(b"data: [DONE]\n");
    assert!(terminal.is_complete());
    let far = r#"{"choices":[{"index":4000,"finish_reason":"stop"}]}"#;
    assert_eq!(ending(Route::ChatCompletions, &[far]), None);
}

#[test]
fn a_tool_call_with_an_index_is_no_choice() {
    let tool = r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":3,"function":{}}]},"finish_reason":null}]}"#;
    assert_eq!(ending(Route::ChatCompletions, &[tool, STOP]), Some(Ending::Finished));
}

#[test]
fn responses_end_by_name_in_the_event_line_or_in_the_json() {
    for name in ["response.completed", "response.failed", "response.incomplete"] {
        assert_eq!(ending(Route::Responses, &[&format!("{{\"type\":\"{name}\"}}")]), Some(Ending::Finished));
        let mut terminal = Terminal::for_route(Route::Responses);
        terminal.observe_event(format!("event: {name}\ndata: {{}}\n\n").as_bytes());
        assert!(terminal.is_complete());
    }
    let talk = r#"{"type":"response.output_text.delta","delta":"response.completed"}"#;
    assert_eq!(ending(Route::Responses, &[talk, "[DONE]"]), None);
    let nested = r#"{"type":"response.in_progress","response":{"x":{"type":"response.completed"}}}"#;
    assert_eq!(ending(Route::Responses, &[nested]), None);
    assert_eq!(ending(Route::Responses, &[r#"{"type":"error","message":"overloaded"}"#]), Some(Ending::Failed));
}

#[test]
fn messages_end_with_message_stop() {
    let delta = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}"#;
    assert_eq!(ending(Route::Messages, &[delta]), None);
    assert_eq!(ending(Route::Messages, &[delta, r#"{"type": "message_stop"}"#]), Some(Ending::Finished));
}

#[test]
fn an_error_of_the_provider_is_an_ending_on_every_route() {
    for route in Route::ALL {
        let terminal = watched(route, &[r#"{"error":{"message":"overloaded"}}"#]);
        assert_eq!(terminal.ending(), Some(Ending::Failed), "{route:?}");
        assert_eq!(ending(route, &[r#"{"error":null}"#, r#"{"x":{"error":1}}"#]), None);
    }
    let both = watched(Route::ChatCompletions, &[STOP, r#"{"error":{}}"#, "[DONE]"]);
    assert_eq!(both.ending(), Some(Ending::Failed));
}

#[test]
fn where_no_ending_is_known_none_is_waited_for() {
    assert!(Terminal::for_route(Route::Other).is_complete());
    assert!(Terminal::for_route(Route::Embeddings).is_complete());
    assert!(!Terminal::for_route(Route::Messages).is_complete());
}

#[test]
fn usage_is_collected_wherever_the_stream_reports_it() {
    let usage = |prompt, completion| Some(Usage { prompt_tokens: Some(prompt), completion_tokens: Some(completion) });
    let chat = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
    assert_eq!(watched(Route::ChatCompletions, &[HELLO, STOP, chat, "[DONE]"]).usage(), usage(3, 4));
    let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}"#;
    let delta = r#"{"type":"message_delta","usage":{"output_tokens":15}}"#;
    assert_eq!(watched(Route::Messages, &[start, delta]).usage(), usage(9, 15));
    let done = r#"{"type":"response.completed","response":{"usage":{"input_tokens":1,"output_tokens":2}}}"#;
    assert_eq!(watched(Route::Responses, &[done]).usage(), usage(1, 2));
    assert_eq!(watched(Route::ChatCompletions, &[HELLO, STOP]).usage(), None);
}

#[test]
fn an_ending_too_long_to_hold_counts_once_its_last_part_is_there() {
    let part = |bytes: &'static [u8], last| Frame::Part { bytes: Bytes::from_static(bytes), last };
    for head in
        [&b"event: response.completed\ndata: {\"x\":"[..], b"data: {\"type\":\"response.completed\",\"response\":"]
    {
        let mut terminal = Terminal::for_route(Route::Responses);
        terminal.observe(&part(head, false));
        terminal.observe(&part(b"iVBORw0KGgo", false));
        assert!(!terminal.is_complete());
        terminal.observe(&part(b"\"}\n\n", true));
        assert!(terminal.is_complete());
    }
    let mut partial_image = Terminal::for_route(Route::Responses);
    partial_image.observe(&part(b"event: response.image_generation_call.partial_image\ndata: {\"b", false));
    partial_image.observe(&part(b"response.completed\"}\n\n", true));
    assert!(!partial_image.is_complete());
}

#[test]
fn comments_and_garbage_end_nothing() {
    let mut terminal = Terminal::for_route(Route::ChatCompletions);
    for bytes in [&b": [DONE]\n"[..], b"\n", b"data: {\"error\":\n\n", b"data: \"error\"\n\n", b"\xFF\"\n\n"] {
        terminal.observe_event(bytes);
    }
    assert_eq!(terminal.ending(), None);
}
