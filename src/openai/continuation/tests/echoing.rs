//! Continuations that begin by repeating what they continue.

use super::*;

#[test]
fn an_echo_is_dropped_however_it_is_cut() {
    let (head, tail) = SENTENCE.split_at(10);
    for cut in
        [&[SENTENCE, " And"][..], &[head, tail, " And"], &[head, &format!("{tail} And")], &[&format!("{SENTENCE} And")]]
    {
        let mut splice = splice(&said(&[SENTENCE]), Style::Prefix);
        let role = next(r#"{"role":"assistant","content":""}"#, "");
        let frames = [role].into_iter().chain(cut.iter().map(|text| next_text(text)));
        assert_eq!(text_of(&rewritten(&mut splice, frames).unwrap()), " And", "{cut:?}");
    }
    // White space that was not sent follows the echo.
    let mut with_space = splice(&said(&[SENTENCE, " "]), Style::Prefix);
    assert_eq!(text_of(&rewritten(&mut with_space, [next_text(SENTENCE), next_text(" And")]).unwrap()), "And");
}

#[test]
fn an_echo_that_must_come_is_dropped_however_short_it_is_and_missed_where_it_does_not() {
    let stop = || next("{}", r#","finish_reason":"stop""#);
    let of = |after: &[Frame]| {
        let mut splice = splice(&said(&["ha", " "]), Style::PrefixEcho);
        rewritten(&mut splice, after.to_vec()).map(|events| text_of(&events))
    };
    assert_eq!(of(&[next_text("ha"), next_text(" ha"), stop()]), Ok("ha".to_owned()));
    assert_eq!(of(&[next_text("h"), next_text("aha"), stop()]), Ok("ha".to_owned()));
    for anew in [
        vec![next_text("So")],
        vec![next_text("h"), next_text("o")],
        vec![next_text("h"), stop()],
        vec![stop()],
        vec![event("[DONE]")],
        vec![next(r#"{"tool_calls":[{"index":0}]}"#, "")],
    ] {
        assert_eq!(of(&anew), Err(Misfit::NoEcho), "{anew:?}");
    }
    assert_eq!(of(&[next_text("h"), event(r#"{"error":{}}"#)]), Ok(String::new()), "what failed said why");
    let mut thinking = splice(&chat([reasoning("hm")]), Style::PrefixEcho);
    assert_eq!(text_of(&rewritten(&mut thinking, [next_text("So")]).unwrap()), "So", "of nothing there is no echo");
}

#[test]
fn a_chunk_without_a_choice_does_not_end_an_echo_and_keeps_its_place() {
    let aside = |name: &str| event(&format!(r#"{{"id":"two","choices":[],"aside":"{name}"}}"#));
    let asides = |events: &[String]| {
        let place = |name: &str| events.iter().position(|event| event.contains(name));
        [place("first"), place("second"), place("third")]
    };
    let (head, tail) = SENTENCE.split_at(10);
    let splice_of = |pieces: [&str; 3]| {
        let [one, two, three] = pieces.map(next_text);
        let frames = [aside("first"), one, aside("second"), event(r#"{"id":"two"}"#), two, aside("third"), three];
        let mut splice = splice(&said(&[SENTENCE]), Style::Prefix);
        let held = rewritten(&mut splice, frames.clone().into_iter().take(2)).unwrap();
        assert_eq!(held.len(), 1, "what comes first does not wait: {held:?}");
        let mut events = held;
        events.extend(rewritten(&mut splice, frames.into_iter().skip(2)).unwrap());
        assert!(events.iter().all(|event| event.contains(r#""id":"one""#)), "{events:?}");
        events
    };
    let echoed = splice_of([head, tail, " And"]);
    assert_eq!(text_of(&echoed), " And");
    assert_eq!(asides(&echoed), [Some(0), Some(1), Some(3)], "the echo alone is dropped: {echoed:?}");
    let new = splice_of(["The", " sea", " is green"]);
    assert_eq!(text_of(&new), "The sea is green");
    assert_eq!(asides(&new), [Some(0), Some(2), Some(5)], "{new:?}");
    // Whatever is held comes before the end.
    for (last, text) in [
        (next("{}", r#","finish_reason":"stop""#), head),
        (event("[DONE]"), head),
        (event(r#"{"error":{}}"#), ""), // what may be an echo is of no more use
    ] {
        let mut splice = splice(&said(&[SENTENCE]), Style::Prefix);
        let events = rewritten(&mut splice, [next_text(head), aside("second"), last]).unwrap();
        assert_eq!((text_of(&events).as_str(), events.len()), (text, if text.is_empty() { 2 } else { 3 }));
        assert!(events[events.len() - 2].contains("second"), "{events:?}");
    }
    // What is held is bounded.
    let mut splice = splice(&said(&[SENTENCE]), Style::Prefix);
    let long = "a".repeat(3 << 20);
    let frames = [next_text(head), aside(&long), aside(&long), aside(&long)];
    assert_eq!(rewritten(&mut splice, frames), Err(Misfit::TooLong));
}

#[test]
fn what_only_looked_like_an_echo_is_passed_on_in_order() {
    let ending = || next("{}", r#","finish_reason":"stop""#);
    for after in [&["The", " sky", " is green"][..], &["The", " sky"], &["The", "", " sea"]] {
        let mut splice = splice(&said(&[SENTENCE]), Style::Prefix);
        let frames = after.iter().map(|text| next_text(text)).chain([ending(), event("[DONE]")]);
        let events = rewritten(&mut splice, frames).unwrap();
        assert_eq!(text_of(&events), after.concat());
        assert!(events[events.len() - 2].contains("stop") && events.iter().all(|event| !event.contains("two")));
    }
    // The white space that was not sent is looked for in what was held, too.
    let mut spaced = splice(&said(&[" The sky", " "]), Style::Prefix);
    assert_eq!(text_of(&rewritten(&mut spaced, [next_text(" "), next_text("and")]).unwrap()), "and");
    // An echo, or a laugh?
    let mut short = splice(&said(&["ha"]), Style::Prefix);
    assert_eq!(rewritten(&mut short, [next_text("h"), next_text("aha")]), Err(Misfit::Ambiguous));
}

/// However long it is and into however many events it is cut, an echo that is certain to be one takes no room.
#[test]
fn a_certain_echo_is_not_held() {
    let text = format!("{SENTENCE}{}", " Light scatters in it.".repeat(20_000));
    let pieces: Vec<&str> = text.as_bytes().chunks(4).map(|piece| str::from_utf8(piece).unwrap()).collect();
    let aside = |name: &str| event(&format!(r#"{{"id":"two","choices":[],"aside":"{name}"}}"#));
    for style in [Style::Prefix, Style::PrefixEcho] {
        let mut splice = splice(&said(&[&text]), style);
        let empty = splice.bytes();
        let mut seen = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            if at == 2 {
                seen.extend(rewritten(&mut splice, [aside("first")]).unwrap());
            }
            let frame = next(&format!(r#"{{"content":{}}}"#, Value::from(*piece)), r#","logprobs":null"#);
            seen.extend(rewritten(&mut splice, [frame]).unwrap());
            assert!(splice.bytes() <= empty + 4096, "{style:?}: {} bytes are held", splice.bytes() - empty);
        }
        seen.extend(rewritten(&mut splice, [aside("second"), next_text(" And")]).unwrap());
        assert_eq!((seen.len(), text_of(&seen).as_str()), (3, " And"), "{style:?}");
        assert!(seen[0].contains("first") && seen[1].contains("second"), "{seen:?}");
    }
    // What follows an aside that was held does not wait behind it.
    let mut splice = splice(&said(&[&text]), Style::Prefix);
    assert_eq!(rewritten(&mut splice, [next_text(&SENTENCE[..10]), aside("first")]), Ok(vec![]));
    let seen = rewritten(&mut splice, [next_text(&SENTENCE[10..]), aside("second")]).unwrap();
    assert!(seen.len() == 2 && seen[0].contains("first") && seen[1].contains("second"), "{seen:?}");
    assert_eq!(rewritten(&mut splice, [next_text(" Light scatters in water.")]), Err(Misfit::Anew));
}
