//! The events of continuations.

use super::*;

#[test]
fn a_chunk_bears_the_name_of_the_first_stream_and_no_second_role() {
    let mut splice = splice(&said(&["a"]), Style::Vllm);
    let frames = [
        next(r#"{"role":"assistant","content":""}"#, r#","logprobs":null"#),
        next(r#"{"role":"assistant", "content":" b"}"#, ""),
        next(r#"{ "content":" \u00e9" }"#, r#","logprobs":{"content":[{}]}"#),
        next("{}", r#","finish_reason":"stop""#),
        event("[DONE]"),
    ];
    let chunk = |delta: &str, rest: &str| {
        format!(
            "data: {{\"id\":\"one\", \"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{delta}{rest}}}],\"p\":\"ab\"}}\n\n"
        )
    };
    assert_eq!(
        rewritten(&mut splice, frames).unwrap(),
        [
            chunk(r#"{"content":" b"}"#, ""),
            chunk(r#"{ "content":" \u00e9" }"#, r#","logprobs":{"content":[{}]}"#),
            chunk("{}", r#","finish_reason":"stop""#),
            "data: [DONE]\n\n".to_owned(),
        ]
    );
}

#[test]
fn a_blank_stream_is_taken_over_with_its_name() {
    let mut renamed = chat([role()]).request(b"not even read", None).unwrap().splice;
    let events = rewritten(&mut renamed, [next(r#"{"role":"assistant","content":""}"#, ""), next_text("a")]).unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].contains(r#""id":"one""#) && text_of(&events) == "a");

    // Where nothing at all was passed on, everything is new, the role too.
    let mut untouched = chat([]).request(b"", None).unwrap().splice;
    let frames = [next(r#"{"role":"assistant","content":""}"#, ""), next(r#"{"role":"assistant","content":"a"}"#, "")];
    let events = rewritten(&mut untouched, frames.clone()).unwrap();
    assert_eq!(events[0].as_bytes(), frames[0].bytes());
    assert!(events[1].contains(r#"{"content":"a"}"#), "a role is told once");

    // Some say in each delta that they say nothing of it.
    let mut silent = chat([delta(r#"{"role":null,"content":""}"#)]).request(b"", None).unwrap().splice;
    let frames = [next(r#"{"role":"assistant"}"#, ""), next(r#"{"role":null,"content":"a"}"#, "")];
    let events = rewritten(&mut silent, frames).unwrap();
    assert!(events[0].contains(r#"{"role":"assistant"}"#) && events[1].contains(r#"{"role":null,"content":"a"}"#));
}

/// Models that can think say so with an empty thought before an answer without one; the answer is asked for anew.
#[test]
fn a_blank_stream_may_think_anew() {
    let thought = |text: &str| next(&format!(r#"{{"reasoning_content":{}}}"#, Value::from(text)), "");
    let blank = || chat([role(), reasoning("\n\n"), content("\n")]);

    let mut same = splice(&blank(), Style::Vllm);
    let events = rewritten(&mut same, [thought("\n"), thought("\n"), next_text("\n"), next_text("\na")]).unwrap();
    assert_eq!((events.len(), &*text_of(&events)), (1, "\na"), "{events:?}");

    let mut other = splice(&blank(), Style::Vllm);
    let events = rewritten(&mut other, [thought("\nHm."), next_text("a")]).unwrap();
    assert!(events[0].contains(r#"{"reasoning_content":"Hm."}"#) && text_of(&events) == "a", "{events:?}");
    assert_eq!(rewritten(&mut other, [thought("Or?")]), Err(Misfit::Reasoning), "it had begun to answer");

    // Some send white space of the answer before they think.
    let mut late = splice(&said(&["\n"]), Style::Vllm);
    let events = rewritten(&mut late, [next_text("\n"), thought("Hm."), next_text("a")]).unwrap();
    assert!(events[0].contains(r#"{"reasoning_content":"Hm."}"#) && text_of(&events) == "a", "{events:?}");
}

/// A second break is like the first.
#[test]
fn what_thought_anew_can_be_continued() {
    let mut partial = chat([role(), reasoning("\n\n"), content("\n")]);
    let mut anew = splice(&partial, Style::Prefix);
    let thought = next(r#"{"reasoning_content":"\n\n\n"}"#, "");
    anew.rewrite(thought).unwrap().for_each(|frame| partial.observe(&frame));
    assert!(partial.is_blank(), "still nothing that a reader would miss");

    let thought = next(r#"{"reasoning_content":"Hm. "}"#, "");
    anew.rewrite(thought).unwrap().for_each(|frame| partial.observe(&frame));
    let asked = body(partial.request(QUESTION.as_bytes(), Some(Style::Prefix))).unwrap();
    let message = r#"{"role":"assistant","content":"","reasoning_content":"\n\n\nHm.","prefix":true}"#;
    assert!(asked.contains(message), "{asked}");
    let mut on = splice(&partial, Style::Prefix);
    let thought = next(r#"{"reasoning_content":" So."}"#, "");
    let events = rewritten(&mut on, [thought, next_text("\na")]).unwrap();
    assert!(events[0].contains(r#"{"reasoning_content":"So."}"#) && text_of(&events) == "a", "{events:?}");

    anew.rewrite(next_text("\na")).unwrap().for_each(|frame| partial.observe(&frame));
    let asked = body(partial.request(QUESTION.as_bytes(), Some(Style::Prefix))).unwrap();
    assert!(asked.contains(r#""content":"\na","reasoning_content":"\n\n\nHm. ""#), "{asked}");
}

#[test]
fn what_is_no_part_of_the_answer_passes_unchanged() {
    let mut splice = splice(&said(&[SENTENCE]), Style::Prefix);
    for unchanged in [
        ": heartbeat\n\n",
        "event: ping\n\n",
        "data: {\"id\":\"two\",\"error\":{\"message\":\"no\"}}\r\n\r\n",
        "event: error\ndata: {\"message\":\"no\"}\n\n",
        "data: [DONE]\n\n",
    ] {
        let frame = Frame::Event(Bytes::from(unchanged.to_owned()));
        assert_eq!(rewritten(&mut splice, [frame]).unwrap(), [unchanged]);
    }
}

#[test]
fn line_ends_and_other_fields_stay_where_data_is_rewritten() {
    let mut splice = splice(&said(&["a"]), Style::Vllm);
    let event = "\u{feff}event: chunk\r\nid: 7\r\ndata: {\"id\":\"two\",\r\ndata: \"choices\":[]}\r\nretry: 1\r\n\r\n";
    let frame = Frame::Event(Bytes::from(event));
    assert_eq!(
        rewritten(&mut splice, [frame]).unwrap(),
        ["event: chunk\r\nid: 7\r\ndata: {\"id\":\"one\", \"choices\":[]}\r\nretry: 1\r\n\r\n"]
    );
}

#[test]
fn white_space_that_was_not_sent_is_dropped_where_it_comes_again() {
    for (before, after, expected) in [
        (&["a", " \n"][..], &[" \nb"][..], "b"),
        (&["a", " \n"], &[" ", "\n", "\nb"], "\nb"),
        (&["a", "  "], &[" ", "b", " c"], "b c"),
        (&["a", " \n"], &["b \n"], "b \n"),
        (&["a"], &[" b"], " b"),
        (&["a\u{3000}"], &["\u{3000}é"], "é"),
        (&["\n\n"], &["\n\nb"], "b"),
        (&["\n"], &["\n", "\n"], "\n"),
    ] {
        let mut splice = splice(&said(before), Style::Vllm);
        let events = rewritten(&mut splice, after.iter().map(|text| next_text(text))).unwrap();
        assert_eq!(text_of(&events), expected, "{before:?} {after:?}");
        assert!(!events.iter().any(|event| event.contains(r#""content":"""#)), "no empty event is passed on");
    }
    let mut splice = splice(&chat([reasoning("hm ")]), Style::Prefix);
    let thought = next(r#"{"reasoning_content":" so","reasoning":" so"}"#, "");
    let events = rewritten(&mut splice, [thought, next_text(" b")]).unwrap();
    assert!(events[0].contains(r#"{"reasoning_content":"so","reasoning":"so"}"#), "{events:?}");
    assert_eq!(text_of(&events), " b", "that of the answer is its own");
}

#[test]
fn an_event_that_tells_more_than_what_was_said_stays() {
    let mut splice = splice(&said(&["a", " "]), Style::Vllm);
    let frames = [next(r#"{"content":" "}"#, r#","finish_reason":"stop""#)];
    let events = rewritten(&mut splice, frames).unwrap();
    assert!(events[0].contains(r#"{"content":""},"finish_reason":"stop""#), "{events:?}");
}

/// A provider that does not know `continue_final_message`, or `prefix`, ignores it and answers anew, and its answer would
/// stand behind the partial one.
#[test]
fn an_answer_that_begins_anew_is_no_continuation() {
    let (start, middle) = (&SENTENCE[..20], &SENTENCE[20..33]);
    let ending = || next("{}", r#","finish_reason":"stop""#);
    for (style, anew) in [
        (Style::Vllm, vec![next_text(SENTENCE)]),
        (Style::Vllm, vec![next_text(start), next_text(middle)]),
        (Style::Prefix, vec![next_text(start), next_text(middle), next_text(" green.")]),
        (Style::Prefix, vec![next_text(start), next_text(middle), ending()]),
        (Style::Prefix, vec![next_text(start), next_text(middle), event("[DONE]")]),
    ] {
        let mut splice = splice(&said(&[SENTENCE, " It", " is."]), style);
        let (last, before) = anew.split_last().unwrap();
        assert_eq!(rewritten(&mut splice, before.to_vec()), Ok(vec![]), "nothing wrong is passed on");
        assert_eq!(rewritten(&mut splice, [last.clone()]), Err(Misfit::Anew), "{style:?} {anew:?}");
    }
    // What is short, or repeats itself, may as well be what comes next.
    let rows = "| A row of a long table | of numbers | 1 |\n| A row of a long table | of numbers | 2 |\n";
    for (before, after) in
        [("ha", "haha"), (&*"-".repeat(400), &*"-".repeat(40)), (rows, &rows[..40]), (SENTENCE, start)]
    {
        let mut splice = splice(&said(&[before]), Style::Vllm);
        assert_eq!(text_of(&rewritten(&mut splice, [next_text(after), ending()]).unwrap()), after);
    }
    // Who wanted a beginning of its own continued is in the same danger.
    let question = r#"{"messages":[{"role":"assistant","content":"So:"}],"continue_final_message":true}"#;
    let mut splice = said(&[SENTENCE]).request(question.as_bytes(), Some(Style::Vllm)).unwrap().splice;
    assert_eq!(rewritten(&mut splice, [next_text(SENTENCE)]), Err(Misfit::Anew));
    // Who reasons begins anew by reasoning anew.
    let thought = |text: &str| next(&format!(r#"{{"reasoning_content":{}}}"#, Value::from(text)), "");
    let mut splice = self::splice(&chat([role(), reasoning(SENTENCE)]), Style::Prefix);
    assert_eq!(rewritten(&mut splice, [thought(start)]), Ok(vec![]));
    assert_eq!(rewritten(&mut splice.clone(), [thought(middle)]), Err(Misfit::Anew));
    let events = rewritten(&mut splice, [next_text("So")]).unwrap();
    assert!(events[0].contains(&format!(r#""reasoning_content":"{start}""#)) && events[1].contains(r#""So""#));
}

/// vLLM tells usage in every chunk, where it is asked to (`continuous_usage_stats`).
#[test]
fn a_question_without_the_partial_answer_in_it_is_not_continued() {
    let told = |text: &str, prompt: u64, made: u64, model: &str| {
        event(&format!(
            r#"{{"id":"x","model":"{model}","choices":[{{"index":0,"delta":{{"content":"{text}"}}}}],"usage":{{"prompt_tokens":{prompt},"completion_tokens":{made}}}}}"#
        ))
    };
    let partial = |made: u64| chat([role(), told("a", 100, made, "m")]);
    for (made, prompt, model, expected) in [
        (40, 100, "m", Err(Misfit::Anew)),
        (40, 119, "m", Err(Misfit::Anew)),
        (40, 120, "m", Ok("b".to_owned())),
        (40, 100, "other", Ok("b".to_owned())), // which may count otherwise
        (31, 100, "m", Ok("b".to_owned())),
    ] {
        let mut splice = splice(&partial(made), Style::Vllm);
        let seen = rewritten(&mut splice, [told("b", prompt, 1, model)]).map(|events| text_of(&events));
        assert_eq!(seen, expected, "{made} {prompt} {model}");
    }
    // Some say zero as long as they do not know.
    let zeros = chat((0..40).map(|_| told("a", 0, 0, "m")));
    assert!(rewritten(&mut splice(&zeros, Style::Vllm), [told("b", 0, 0, "m")]).is_ok());
    assert!(rewritten(&mut splice(&zeros, Style::Vllm), [told("b", 1, 1, "m")]).is_ok());
    assert!(rewritten(&mut splice(&partial(40), Style::Vllm), [told("b", 0, 0, "m")]).is_ok());
    // Letters are no tokens: where some of them were not counted by the provider, nothing follows from how many there are.
    for first in [told("a", 100, 0, "m"), told("a", 100, 1, "m")] {
        let letters = chat([first].into_iter().chain((0..400).map(|_| content("a"))));
        assert!(rewritten(&mut splice(&letters, Style::Vllm), [told("b", 200, 1, "m")]).is_ok());
    }
    let thoughts = chat([reasoning("one piece of a thousand tokens"), told("a", 100, 1040, "m")]);
    assert!(rewritten(&mut splice(&thoughts, Style::Vllm), [told("b", 140, 1, "m")]).is_ok());
    // Whoever says it late says it too late.
    let mut late = splice(&partial(40), Style::Vllm);
    assert!(rewritten(&mut late, [next_text("b"), told("", 100, 1, "m")]).is_ok());
    // What DeepSeek and Mistral count to the question is not known.
    assert!(rewritten(&mut splice(&partial(40), Style::Prefix), [told("b", 100, 1, "m")]).is_ok());
}

/// The provider takes the first half of a stop sequence for a part of the question, and would write on and on.
#[test]
fn a_stop_sequence_across_the_break_ends_the_stream() {
    let rest = |stop: &str, before: &[&str], after: &[&str]| {
        let question = format!(r#"{{"messages":[{{}}],"stop":{stop}}}"#);
        let mut splice = said(before).request(question.as_bytes(), Some(Style::Vllm)).unwrap().splice;
        rewritten(&mut splice, after.iter().map(|text| next_text(text))).map(|events| text_of(&events))
    };
    for (stop, before, after) in [
        (r#""END""#, &["the E"][..], &["ND, and"][..]),
        (r#"["x","END"]"#, &["the ", "EN"], &["", "D"]),
        (r#""END""#, &["the E"], &["N", "D"]),
        (r#""aab""#, &["aa"], &["ab"]),
        (r#""a\nb""#, &["a", "\n"], &["\n", "b"]),
        (r#""né!""#, &["n"], &["é", "!"]),
    ] {
        assert_eq!(rest(stop, before, after), Err(Misfit::Stop), "{stop} {before:?} {after:?}");
    }
    for (stop, before, after) in [
        (r#""END""#, &["the E"][..], &["N", "T", "D"][..]),
        (r#""END""#, &["the "], &["END"]), // which is the provider's to find
        (r#""END""#, &["the E"], &["ven", "ND"]),
    ] {
        assert_eq!(rest(stop, before, after), Ok(after.concat()), "{stop} {before:?} {after:?}");
    }
    let plain = observed(Route::Completions, [event(r#"{"choices":[{"index":0,"text":"a\n"}]}"#)]);
    let asked = plain.request(br#"{"prompt":"q","stop":["\n\n"]}"#, Some(Style::Vllm));
    let next = event(r#"{"choices":[{"index":0,"text":"\nb"}]}"#);
    assert_eq!(rewritten(&mut asked.unwrap().splice, [next]), Err(Misfit::Stop));
}

#[test]
fn usage_is_told_as_if_the_answer_had_come_in_one_piece() {
    let told = |splice: &mut Splice, usage: &str| {
        let events = rewritten(splice, [event(&format!(r#"{{"choices":[],"usage":{usage}}}"#))]).unwrap();
        let (_, usage) = events[0].split_once("\"usage\":").unwrap();
        usage.trim_end().strip_suffix('}').unwrap().to_owned()
    };
    let mut spliced = splice(&said(&["a", " b", " ", "\n"]), Style::Vllm);
    assert_eq!(
        told(
            &mut spliced,
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"completion_tokens_details":{"reasoning_tokens":0}}"#
        ),
        r#"{"prompt_tokens":10,"completion_tokens":7,"total_tokens":17,"completion_tokens_details":{"reasoning_tokens":0}}"#
    );
    assert_eq!(told(&mut spliced, r#"{"completion_tokens":5}"#), r#"{"completion_tokens":7}"#);
    let uncounted = |made| format!(r#"{{"prompt_tokens":0,"completion_tokens":{made},"total_tokens":{made}}}"#);
    assert_eq!(told(&mut spliced, &uncounted(5)), uncounted(7));
    for odd in
        [r#"{"prompt_tokens":1,"completion_tokens":5,"total_tokens":6}"#, "null", r#"{"prompt_tokens":12}"#, "[]"]
    {
        assert_eq!(told(&mut spliced, odd), odd);
    }
    // vLLM is not given the reasoning, which therefore is in no prompt.
    let partial = chat([reasoning("a"), reasoning("b"), content("c")]);
    let usage = r#"{"prompt_tokens":11,"completion_tokens":5,"total_tokens":16}"#;
    let expected = r#"{"prompt_tokens":10,"completion_tokens":8,"total_tokens":18}"#;
    assert_eq!(told(&mut splice(&partial, Style::Vllm), usage), expected);
    // What is asked for again as it was counts for itself.
    assert_eq!(told(&mut splice(&said(&[" "]), Style::Vllm), usage), usage);
}

#[test]
fn what_does_not_fit_ends_the_stream() {
    for (frame, expected) in [
        (next(r#"{"reasoning":"hm"}"#, ""), Misfit::Reasoning),
        (next(r#"{"content":[{"type":"thinking"}]}"#, ""), Misfit::Unreadable),
        (event(r#"{"choices":[{"index":1,"delta":{}}]}"#), Misfit::ManyChoices),
        (next(r#"{"content":"\ud83e"}"#, ""), Misfit::Unreadable),
        (event("{"), Misfit::Unreadable),
        (Frame::Part { bytes: Bytes::new(), last: true }, Misfit::TooLong),
    ] {
        assert_eq!(rewritten(&mut splice(&said(&["a"]), Style::Prefix), [frame]), Err(expected));
    }
}

#[test]
fn a_tool_call_may_follow_but_not_break() {
    let mut partial = said(&["a"]);
    let call = next(r#"{"tool_calls":[{"index":0}]}"#, "");
    let events: Vec<_> = splice(&partial, Style::Vllm).rewrite(call).unwrap().collect();
    partial.observe(&events[0]);
    assert_eq!(body(partial.request(QUESTION.as_bytes(), Some(Style::Vllm))), Err(Unfit::ToolCall));
}

#[test]
fn of_a_plain_completion_every_byte_is_kept() {
    let text = |id: &str, text: &str| {
        let choice = format!(r#"{{"index":0,"text":{},"logprobs":null,"finish_reason":null}}"#, Value::from(text));
        event(&format!(r#"{{"id":"{id}","choices":[{choice}]}}"#))
    };
    let partial = observed(Route::Completions, [text("one", "a ")]);
    let mut splice = partial.request(br#"{"prompt":"q"}"#, Some(Style::Prefix)).unwrap().splice;
    let usage = event(r#"{"id":"two","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#);
    let events = rewritten(&mut splice, [text("two", " "), text("two", "a b"), usage]).unwrap();
    assert_eq!(text_of(&events), " a b");
    assert!(events.iter().all(|event| event.contains(r#""id":"one""#)));
    assert!(events[2].contains(r#"{"prompt_tokens":2,"completion_tokens":3}"#), "{events:?}");
}
