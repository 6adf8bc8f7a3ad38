//! What somebody may have meant who wrote a setting that does not exist.

use super::Settings;
use super::schema::{Group, Index};

/// What to do about the unknown `name` in the table `within`, whose own settings are `known`.
pub(super) fn suggestion(name: &str, within: &str, known: &[&'static str]) -> String {
    let meant = SYNONYMS.iter().find(|(synonym, _)| *synonym == name).map_or(name, |(_, meant)| meant);
    if let Some(near) = nearest(meant, known) {
        return format!("did you mean {near}?");
    }
    let mut index = Index::default();
    Settings::default().fields(&mut index);
    let elsewhere = index.names.iter().find(|full| full.rsplit('.').next() == Some(meant));
    if let Some((table, _)) = elsewhere.and_then(|full| full.rsplit_once('.')) {
        return format!("did you mean {meant} in [{table}]?");
    }
    let place = if within.is_empty() { "the file" } else { within };
    format!("remove it; {place} may have {}", known.join(", "))
}

/// What other tools call the same thing.
const SYNONYMS: [(&str, &str); 8] = [
    ("rpm", "requests_per_minute"),
    ("tpm", "tokens_per_minute"),
    ("rpd", "requests_per_day"),
    ("url", "base_url"),
    ("key", "api_key"),
    ("token", "admin_token"),
    ("port", "listen"),
    ("max_concurrency", "concurrency"),
];

/// The known name that is a slip away, if there is one.
fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let slips = name.chars().count().min(24) / 3;
    let rated = known.iter().map(|candidate| (distance(name, candidate), *candidate));
    rated.filter(|(distance, _)| *distance <= slips).min().map(|(_, candidate)| candidate)
}

/// The Levenshtein distance: single characters added, removed or changed.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (line, a) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, b) in b.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshteins() {
        for (a, b, expected) in [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("listen", "lisen", 1)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn slips_synonyms_and_wrong_tables_are_recognised() {
        let known = ["listen", "admin_listen", "base_url"];
        assert_eq!(suggestion("lisen", "server", &known), "did you mean listen?");
        assert_eq!(suggestion("url", "upstreams", &known), "did you mean base_url?");
        assert_eq!(suggestion("rpm", "upstreams", &known), "did you mean requests_per_minute in [upstreams.limits]?");
        assert_eq!(suggestion("zzz", "server", &["listen"]), "remove it; server may have listen");
    }
}
