//! The requests that ask for the rest.

use super::*;

fn ask(partial: &Partial, question: &str, style: Style) -> Result<String, Unfit> {
    body(partial.request(question.as_bytes(), Some(style)))
}

#[test]
fn the_partial_answer_is_the_last_message() {
    let partial = said(&["a \"b\"", " é\n", "c\u{1} \n\u{3000}\x1f"]);
    assert_eq!(
        ask(&partial, " {\"messages\" : [ {\"role\":\"user\"} ] , \"seed\":12345678901234567890123 }\n", Style::Vllm)
            .unwrap(),
        concat!(
            " {\"messages\" : [ {\"role\":\"user\"},",
            r#"{"role":"assistant","content":"a \"b\" é\nc\u0001"}"#,
            " ] , \"seed\":12345678901234567890123",
            r#","continue_final_message":true,"add_generation_prompt":false"#,
            " }\n"
        )
    );
    assert_eq!(
        ask(&partial, "\u{feff}{\"messages\":[]}", Style::Prefix).unwrap(),
        r#"{"messages":[{"role":"assistant","content":"a \"b\" é\nc\u0001","prefix":true}]}"#
    );
}

#[test]
fn of_equal_members_the_one_that_counts_is_touched() {
    let question =
        r#"{"messages":[1],"add_generation_prompt":true,"m\u0065ssages":[{}],"max_tokens":1,"max_tokens":9}"#;
    assert_eq!(
        ask(&said(&["a"]), question, Style::Vllm).unwrap(),
        r#"{"messages":[1],"add_generation_prompt":false,"m\u0065ssages":[{},{"role":"assistant","content":"a"}],"max_tokens":1,"max_tokens":8,"continue_final_message":true}"#
    );
}

#[test]
fn what_the_client_wants_continued_is_appended_to() {
    let vllm = r#"{"messages":[{"role":"assistant","content":"Say \"x" }],"continue_final_message":true,"add_generation_prompt":false}"#;
    assert_eq!(
        ask(&said(&[" y\"", " "]), vllm, Style::Vllm).unwrap(),
        vllm.replace(r#"\"x""#, r#"\"x y\"""#),
        "no second message"
    );
    let prefix = r#"{"messages":[{"content":"Say","prefix":true,"role":"assistant"}]}"#;
    assert_eq!(ask(&said(&[" it"]), prefix, Style::Prefix).unwrap(), prefix.replace("Say", "Say it"));
    let thinking = chat([reasoning("hm"), content(" it")]);
    assert_eq!(
        ask(&thinking, prefix, Style::Prefix).unwrap(),
        r#"{"messages":[{"content":"Say it","prefix":true,"role":"assistant","reasoning_content":"hm"}]}"#
    );
    for (question, style) in [
        (r#"{"messages":[{"content":["a"]}],"continue_final_message":true}"#, Style::Vllm),
        (r#"{"messages":[{"content":null}],"continue_final_message":true}"#, Style::Vllm),
        (r#"{"messages":[{"content":"a","tool_calls":[1]}],"continue_final_message":true}"#, Style::Vllm),
        (r#"{"messages":[],"continue_final_message":true}"#, Style::Vllm),
        (r#"{"messages":[{"content":"a","prefix":true}]}"#, Style::Vllm),
        (r#"{"messages":[{"content":"a"}],"continue_final_message":true}"#, Style::Prefix),
    ] {
        assert_eq!(ask(&said(&["a"]), question, style), Err(Unfit::LastMessage), "{question}");
    }
}

/// Mistral: however short they are, neither the partial answer nor the client's own beginning is taken for what comes next.
#[test]
fn what_the_provider_is_known_to_repeat_is_sent_once() {
    let prefix = |begun: &str| format!(r#"{{"messages":[{{"content":"{begun}","prefix":true}}]}}"#);
    for (words, begun, expected) in [
        (&["So", " it", " "][..], "", "So it"),
        (&["So", " it"], "So", "So it"),
        (&["ha", "ha"], "ha", "haha"),
        (&["S"], "So", "So"),
    ] {
        assert_eq!(ask(&said(words), &prefix(begun), Style::PrefixEcho).unwrap(), prefix(expected));
    }
    assert_eq!(ask(&said(&["So"]), &prefix("No"), Style::PrefixEcho), Err(Unfit::LastMessage), "it was not repeated");
    let (by_itself, known) =
        (ask(&said(&["So"]), QUESTION, Style::Prefix), ask(&said(&["So"]), QUESTION, Style::PrefixEcho));
    assert_eq!(by_itself, known);
}

/// The provider repeats the client's beginning, and the stream breaks while it does.
#[test]
fn a_break_within_the_clients_own_beginning_asks_for_the_same_again() {
    let begun = "The sky is blue because of the air, that is.";
    let question = format!(r#"{{"messages":[{{"content":"{begun}","prefix":true}}]}}"#);
    for style in [Style::Prefix, Style::PrefixEcho] {
        let partial = said(&[&begun[..20], &begun[20..36]]);
        let asked = partial.request(question.as_bytes(), Some(style)).unwrap();
        assert_eq!(asked.body, question, "{style:?}");
        let rest = [content(begun), content(" And")];
        let mut splice = asked.splice;
        assert_eq!(text_of(&rewritten(&mut splice, rest).unwrap()), "that is. And", "{style:?}");
    }
    assert_eq!(ask(&said(&["The"]), &question, Style::Prefix), Err(Unfit::LastMessage), "an echo, or not?");
}

#[test]
fn a_beginning_that_the_provider_repeated_is_not_sent_twice() {
    let begun = "The sky is blue because of the air";
    let question = format!(r#"{{"messages":[{{"content":"{begun}","prefix":true}}]}}"#);
    let asked = ask(&said(&[begun, " in", " it. "]), &question, Style::Prefix).unwrap();
    assert_eq!(asked, question.replace(begun, &format!("{begun} in it.")));
    let short = r#"{"messages":[{"content":"ha","prefix":true}]}"#;
    assert_eq!(ask(&said(&["ha", "ha"]), short, Style::Prefix), Err(Unfit::LastMessage), "an echo, or a laugh?");
}

#[test]
fn reasoning_goes_where_the_provider_takes_it() {
    let thinking = chat([role(), reasoning("hm\n"), reasoning("so ")]);
    assert_eq!(ask(&thinking, QUESTION, Style::Vllm), Err(Unfit::Reasoning));
    let asked = ask(&thinking, QUESTION, Style::Prefix).unwrap();
    assert!(
        asked.contains(r#"{"role":"assistant","content":"","reasoning_content":"hm\nso","prefix":true}"#),
        "{asked}"
    );
    let answering = chat([delta(r#"{"reasoning":"hm ","reasoning_content":"hm "}"#), content("So")]);
    assert!(!ask(&answering, QUESTION, Style::Vllm).unwrap().contains("hm"));
    let asked = ask(&answering, QUESTION, Style::Prefix).unwrap();
    assert!(
        asked.contains(r#"{"role":"assistant","content":"So","reasoning_content":"hm ","prefix":true}"#),
        "{asked}"
    );
    let about_to = chat([reasoning("hm"), content("\n")]);
    assert_eq!(ask(&about_to, QUESTION, Style::Vllm), Err(Unfit::Reasoning));
}

#[test]
fn limits_are_lowered_by_what_was_made() {
    let of = |limits: &str| format!(r#"{{"messages":[{{}}],{limits}}}"#);
    let counted = |usage: u64| {
        event(&format!(
            r#"{{"choices":[{{"index":0,"delta":{{"content":"ab"}}}}],"usage":{{"completion_tokens":{usage}}}}}"#
        ))
    };
    let likely = event(r#"{"choices":[{"index":0,"delta":{"content":"ab"},"logprobs":{"content":[{},{},{}]}}]}"#);
    for (partial, made) in [
        (said(&["a", "b", ""]), 2),
        (said(&["a", "b", " ", "\n"]), 2),
        (chat([reasoning("a"), content("b"), content(" ")]), 2),
        (chat([counted(5), counted(7)]), 7),
        (chat([likely.clone(), likely]), 6),
    ] {
        let asked =
            ask(&partial, &of(r#""max_tokens":10,"max_completion_tokens":9,"min_tokens":3"#), Style::Vllm).unwrap();
        let least = 3_u64.saturating_sub(made);
        let expected =
            format!(r#""max_tokens":{},"max_completion_tokens":{},"min_tokens":{least},"#, 10 - made, 9 - made);
        assert!(asked.contains(&expected), "{asked}");
        let exactly = of(&format!(r#""max_tokens":{made}"#));
        assert_eq!(ask(&partial, &exactly, Style::Vllm), Err(Unfit::Finished));
    }
    let unlimited = of(r#""max_tokens":null,"max_completion_tokens":-1"#);
    assert!(
        ask(&said(&["a"]), &unlimited, Style::Prefix)
            .unwrap()
            .contains(r#""max_tokens":null,"max_completion_tokens":-1"#)
    );
    for odd in [r#""max_tokens":"9""#, r#""max_tokens":9.5"#, r#""min_tokens":[]"#] {
        assert_eq!(ask(&said(&["a"]), &of(odd), Style::Vllm), Err(Unfit::Limit), "{odd}");
    }
}

#[test]
fn an_answer_that_ends_with_a_stop_sequence_is_complete() {
    let of = |stop: &str, words: &[&str]| {
        ask(&said(words), &format!(r#"{{"messages":[{{}}],"stop":{stop}}}"#), Style::Vllm).map(|_| ())
    };
    assert_eq!(of(r#""END""#, &["the ", "END"]), Err(Unfit::Finished));
    assert_eq!(of(r#"["a","\u0045ND"]"#, &["the ", "END"]), Err(Unfit::Finished));
    assert_eq!(of(&format!(r#"["{}"]"#, "a".repeat(1025)), &["the"]), Err(Unfit::Stop));
    // White space at the end is not sent, so that the provider comes upon it again.
    for (stop, words) in
        [("\"\\n\"", &["a", "\n"][..]), ("\"\"", &["a"]), ("[]", &["a"]), ("7", &["a"]), ("null", &["a"])]
    {
        assert_eq!(of(stop, words), Ok(()), "{stop}");
    }
    // Before `min_tokens` were made it ended nothing.
    for (least, expected) in [(0, Err(Unfit::Finished)), (2, Err(Unfit::Finished)), (3, Ok(()))] {
        let limited = format!(r#""END","min_tokens":{least}"#);
        assert_eq!(of(&limited, &["the ", "END"]), expected, "{limited}");
    }
}

#[test]
fn requests_whose_answers_cannot_be_taken_up_are_told() {
    for (member, expected) in [
        (r#""n":2"#, Unfit::ManyChoices),
        (r#""best_of":2"#, Unfit::ManyChoices),
        (r#""use_beam_search":true"#, Unfit::ManyChoices),
        (r#""echo":true"#, Unfit::Echo),
        (r#""response_format":{"type":"json_object"}"#, Unfit::Constrained),
        (r#""guided_regex":"a*""#, Unfit::Constrained),
        (r#""nvext":{"guided_json":{}}"#, Unfit::Constrained),
        (r#""tool_choice":"required""#, Unfit::Constrained),
        (r#""tool_choice":{"type":"function","function":{"name":"f"}}"#, Unfit::Constrained),
        (r#""tool_choice":{"type":"any"}"#, Unfit::Constrained),
        (r#""tool_choice":{"function":{"name":"f"}}"#, Unfit::Constrained),
        (r#""tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"required"}}"#, Unfit::Constrained),
        (r#""tool_choice":[]"#, Unfit::Constrained),
    ] {
        let question = format!(r#"{{"messages":[1],"prompt":"a",{member}}}"#);
        assert_eq!(ask(&said(&["a"]), &question, Style::Prefix), Err(expected), "{member}");
        let plain = observed(Route::Completions, [event(r#"{"choices":[{"index":0,"text":"a"}]}"#)]);
        assert_eq!(ask(&plain, &question, Style::Prefix), Err(expected), "{member}");
    }
    let harmless = r#"{"messages":[],"n":1,"best_of":null,"echo":false,"response_format":{"type":"text"},"guided_json":null,"tool_choice":"auto"}"#;
    assert!(ask(&said(&["a"]), harmless, Style::Vllm).is_ok());
    for free in [
        r#"{"type":"auto"}"#,
        r#"{"type":"none"}"#,
        r#"{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[{}]}}"#,
        r#"{"type":"allowed_tools","mode":"auto","tools":[]}"#,
        r#"{"mode":"auto"}"#,
    ] {
        let question = format!(r#"{{"messages":[],"tool_choice":{free}}}"#);
        assert_eq!(ask(&said(&["a"]), &question, Style::Vllm).err(), None, "{free}");
    }
    for question in ["", "[]", "{", "{}", r#"{"messages":{}}"#, "{\"messages\":[3", r#"{"messages":null}"#] {
        assert_eq!(ask(&said(&["a"]), question, Style::Vllm), Err(Unfit::BodyUnreadable), "{question}");
    }
    let no_text = said(&["a"]).request(b"{\"messages\":[\"\xFF\"]}", Some(Style::Vllm));
    assert_eq!(body(no_text), Err(Unfit::BodyUnreadable));
}

#[test]
fn a_plain_completion_goes_on_from_its_prompt() {
    let text = |text: &str| event(&format!(r#"{{"choices":[{{"index":0,"text":{}}}]}}"#, Value::from(text)));
    let partial = observed(Route::Completions, [text(" b"), text("\"c\n ")]);
    for (question, expected) in [
        (r#"{"prompt":"a","max_tokens":7}"#, r#"{"prompt":"a b\"c\n ","max_tokens":5}"#),
        (r#"{"prompt": [ "a" ] }"#, r#"{"prompt": [ "a b\"c\n " ] }"#),
        (r#"{"prompt":""}"#, r#"{"prompt":" b\"c\n "}"#),
    ] {
        assert_eq!(ask(&partial, question, Style::Vllm).unwrap(), expected);
        assert_eq!(ask(&partial, question, Style::Prefix).unwrap(), expected);
    }
    for (question, expected) in [
        (r#"{"prompt":["a","b"]}"#, Unfit::LastMessage),
        (r#"{"prompt":[1,2]}"#, Unfit::LastMessage),
        (r#"{"prompt":[[1]]}"#, Unfit::LastMessage),
        (r#"{"prompt":null}"#, Unfit::LastMessage),
        (r#"{"prompt":"a","suffix":"z"}"#, Unfit::Echo),
        (r#"{"prompt":"a","logprobs":0}"#, Unfit::Offsets),
    ] {
        assert_eq!(ask(&partial, question, Style::Vllm), Err(expected), "{question}");
    }
}
