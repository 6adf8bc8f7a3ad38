//! `tidegate demo` keeps its promise in front of everybody, and records what it showed.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tidegate::time::now;

/// A demo as small as it can be and still fill its window three times.
const SMALL: &str = "--seconds 6 --window 2s --rpm 8 --concurrency 3 --workers 6 --seed 3";

fn demo(flags: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("demo").args(flags.split(' ')).stdin(Stdio::null());
    command
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

/// Both figures of a row of the table, as shown.
fn row<'a>(shown: &'a str, label: &str) -> [&'a str; 2] {
    let figures =
        shown.lines().find_map(|line| line.trim().strip_prefix(label)).unwrap_or_else(|| panic!("no {label}"));
    let figures: Vec<&str> = figures.split("  ").map(str::trim).filter(|figure| !figure.is_empty()).collect();
    figures.try_into().unwrap_or_else(|other| panic!("{label}: {other:?}"))
}

fn wait(wait: &Value) -> String {
    let mark = if wait["at_least"].as_bool().unwrap() { "> " } else { "" };
    format!("{mark}{:.1} s", wait["seconds"].as_f64().unwrap())
}

#[test]
fn the_promise_is_kept_and_the_record_says_what_the_table_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("demo.json");
    let output = demo(SMALL).arg("--record").arg(&file).output().unwrap();
    let shown = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(!shown.contains('\x1b'), "without a terminal there is nothing to draw on: {shown}");
    assert!(shown.contains("without tidegate   5 s: window "), "{shown}");

    let record: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let sides = record["sides"].as_array().unwrap();
    let told = |of: &dyn Fn(&Value) -> String| [of(&sides[0]), of(&sides[1])];
    for (label, field) in [
        ("answered", "answered"),
        ("client errors", "client_errors"),
        ("violations at the provider", "violations"),
        ("refused in their penalties", "refused_in_penalty"),
        ("wrong answers", "wrong_answers"),
        ("questions never answered", "never_answered"),
    ] {
        assert_eq!(row(shown, label), told(&|side| side[field].to_string()), "{label}");
    }
    let rate = told(&|side| format!("{:.1} %", side["rate_used"].as_f64().unwrap() * 100.0));
    assert_eq!(row(shown, "share of the rate used"), rate);
    for who in ["chat", "batch"] {
        for percentile in ["p50", "p99"] {
            let waits = told(&|side| wait(&side[format!("{who}_wait")][percentile]));
            assert_eq!(row(shown, &format!("{who}'s wait, {percentile}")), waits);
        }
    }

    let [without, behind] = [&sides[0], &sides[1]];
    assert!(without["violations"].as_u64().unwrap() > 0, "eight at once are more than three");
    assert_eq!(behind["violations"], 0);
    assert_eq!(behind["client_errors"], 0);
    assert!(behind["window_max"].as_u64().unwrap() <= 8);
    assert!(behind["rate_used"].as_f64().unwrap() > 0.5);
    for side in sides {
        let sum =
            |field: &str| side["by_second"].as_array().unwrap().iter().map(|s| s[field].as_u64().unwrap()).sum::<u64>();
        assert_eq!(side["answered"], sum("answered"));
        assert_eq!(side["client_errors"], sum("failed"));
        assert_eq!(side["violations"], sum("violations"));
        let fullest = side["window"].as_array().unwrap().iter().max_by_key(|count| count.as_u64()).unwrap();
        assert_eq!(side["window_max"], *fullest);
    }

    let picture = std::fs::read_to_string(file.with_extension("svg")).unwrap();
    assert_well_formed(&picture);
    assert!(picture.contains("behind tidegate"));
}

#[test]
fn an_interrupt_ends_it_at_once() {
    let mut demo: Child = demo(SMALL).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    lines
        .find(|line| line.as_ref().unwrap().starts_with("without tidegate"))
        .expect("a line of the first side")
        .unwrap();
    let interrupted = now();
    let kill = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    // Each side alone would have had longer to go than this.
    assert!(interrupted.elapsed() < Duration::from_secs(5), "{:?}", interrupted.elapsed());
}

#[test]
fn mistakes_are_told_before_a_minute_is_spent() {
    let nowhere = "--record /nowhere/demo.json";
    for (flags, told) in
        [("--seconds 3", "--seconds = 3"), (nowhere, "/nowhere/demo.json"), ("--record a.svg", "a.svg")]
    {
        let output = demo(flags).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{flags}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(told), "{flags}");
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn help_has_an_example() {
    let help = demo("--help").output().unwrap();
    assert!(stdout(&help).contains("\n  tidegate demo --rpm 40"), "{}", stdout(&help));
}

/// Every element that begins ends, in order, and nothing stands outside of the first.
fn assert_well_formed(xml: &str) {
    let mut open: Vec<&str> = Vec::new();
    for (index, piece) in xml.split('<').enumerate().skip(1) {
        let (tag, text) = piece.split_once('>').unwrap_or_else(|| panic!("no end: {piece}"));
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes: {tag}");
        assert!(!text.contains('>'), "not escaped: {text}");
        assert!(index == 1 || !open.is_empty(), "outside: {tag}");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split(' ').next().unwrap()),
        }
        for entity in text.split('&').skip(1) {
            assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(|known| entity.starts_with(known)), "{entity}");
        }
    }
    assert_eq!(open, [""; 0], "never closed");
    assert!(xml.starts_with("<svg ") && xml.ends_with("</svg>\n"));
}
