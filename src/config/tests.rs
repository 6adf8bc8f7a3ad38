//! What the files in `config/` promise, and what no file can do to the reader.

use proptest::prelude::*;
use toml::Value;

use super::schema::{Group, Index};
use super::*;

const FULL: &str = include_str!("../../config/full.toml");

fn no_environment(_: &str) -> Option<String> {
    None
}

/// `full.toml` with the settings that are absent by default.
fn full_uncommented() -> String {
    let is_setting = |line: &str| {
        let name = line.split_once(" = ").map_or("", |(name, _)| name);
        line.starts_with("[[") || (!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
    };
    let uncomment = |line: &'static str| line.strip_prefix("# ").filter(|rest| is_setting(rest)).unwrap_or(line);
    FULL.lines().map(uncomment).collect::<Vec<_>>().join("\n")
}

fn find<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, name| match value {
        Value::Array(items) => items.first()?.get(name),
        value => value.get(name),
    })
}

#[test]
fn full_toml_shows_every_setting_in_its_table() {
    let file = Value::Table(full_uncommented().parse().unwrap());
    let mut index = Index::default();
    Settings::default().fields(&mut index);
    assert!(index.names.len() > 90, "{}", index.names.len());
    for name in index.names {
        assert!(find(&file, &name).is_some(), "{name} is not in full.toml");
    }
}

#[test]
fn what_full_toml_shows_of_absent_settings_is_right_too() {
    let without_alternatives: Vec<_> = full_uncommented()
        .lines()
        .filter(|line| !line.starts_with("api_keys") && !line.starts_with("key_blake3"))
        .map(str::to_owned)
        .collect();
    let environment = |_: &str| Some("k1".to_owned());
    Settings::parse(&without_alternatives.join("\n"), &environment).unwrap();
}

#[test]
fn every_setting_that_is_not_built_exists() {
    let mut index = Index::default();
    Settings::default().fields(&mut index);
    for path in not_yet::paths() {
        let table = format!("{path}.");
        assert!(index.names.iter().any(|name| name == path || name.starts_with(&table)), "{path}");
    }
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    let deep = |opening: &str, times: usize| opening.repeat(times);
    for text in [
        format!("a = {}", deep("[", 100_000)),
        format!("a = {}", deep("{a=", 100_000)),
        format!("{}a = 1", deep("a.", 10_000)),
        format!("[{}a]", deep("a.", 10_000)),
        format!("[server]\n{}a = 1", deep("tls.", 10_000)),
    ] {
        drop(Settings::parse(&text, &no_environment));
    }
}

proptest! {
    #[test]
    fn no_text_panics_the_reader(text in "\\PC*") {
        drop(Settings::parse(&text, &no_environment));
    }

    /// Text that is nearly a file gets further than noise.
    #[test]
    fn no_nearly_valid_text_panics_the_reader(
        lines in prop::collection::vec((0..300_usize, "[\"\\[\\]{}$=., a-z0-9]{0,3}", 0..40_usize), 0..60)
    ) {
        let known: Vec<&str> = FULL.lines().collect();
        let mutate = |(line, noise, at): &(usize, String, usize)| {
            let mut line = known[line % known.len()].trim_start_matches("# ").to_owned();
            if let Some((at, _)) = line.char_indices().nth(*at) {
                line.insert_str(at, noise);
            }
            line
        };
        let text: Vec<String> = lines.iter().map(mutate).collect();
        drop(Settings::parse(&text.join("\n"), &no_environment));
    }

    /// Any value in any place is read or refused.
    #[test]
    fn no_value_panics_the_reader(pick in any::<prop::sample::Index>(), value in any_value()) {
        let mut index = Index::default();
        Settings::default().fields(&mut index);
        let path = &index.names[pick.index(index.names.len())];
        drop(Settings::parse(&format!("{path} = {value}"), &no_environment));
        if let Some(path) = path.strip_prefix("upstreams.") {
            let text = format!("[[upstreams]]\nbase_url = 'http://h'\n{path} = {value}");
            drop(Settings::parse(&text, &no_environment));
        }
    }
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:?}").to_lowercase()),
        any::<bool>().prop_map(|boolean| boolean.to_string()),
        "[0-9]{1,30}(ms|s|m|h|d|KiB|GiB)?".prop_map(|text| format!("{text:?}")),
        "(\\$|\\{|\\}|[A-Z]|:-){0,8}".prop_map(|text| format!("'{text}'")),
        Just("[]".to_owned()),
        Just("[{}, [1], 1979-05-27]".to_owned()),
        Just("{ high = 9.0, x = 1 }".to_owned()),
    ]
}
