//! One value as somebody wrote it: what it says, where it stands, and what is wrong with it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::environment::{Environment, Unfilled, fill_in};
use super::flags;
use super::mistake::Mistake;
use crate::units::Secret;

/// What all values of one file share: its lines, the environment, and the notes taken while reading it.
pub(super) struct Source<'a> {
    line_starts: Vec<usize>,
    environment: Environment<'a>,
    /// What is wrong so far.
    pub(super) mistakes: RefCell<Vec<Mistake>>,
    /// The settings that the file has, in the order of the schema.
    pub(super) present: RefCell<Vec<Present>>,
}

/// A setting that the file has.
#[derive(Debug, Clone)]
pub(super) struct Present {
    pub(super) path: Path,
    pub(super) line: Option<usize>,
    /// As it was understood, in TOML, secrets redacted.
    pub(super) value: String,
    /// It is a secret that says `[redacted]`, as printed settings do.
    pub(super) is_placeholder: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &str, environment: Environment<'a>) -> Self {
        let line_starts = text.match_indices('\n').map(|(newline, _)| newline + 1).collect();
        Self { line_starts, environment, mistakes: RefCell::default(), present: RefCell::default() }
    }

    /// The line, from 1, on which `span` begins; none for what a flag said.
    pub(super) fn line(&self, span: &Range<usize>) -> Option<usize> {
        (*span != flags::SPAN).then(|| 1 + self.line_starts.partition_point(|start| *start <= span.start))
    }
}

/// Where a setting stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Path {
    /// For people: `upstreams.nvidia.limits.window`, `upstreams[0].name`.
    pub(super) shown: String,
    /// For the schema: `upstreams.limits.window`.
    pub(super) schema: String,
}

impl Path {
    pub(super) fn child(&self, name: &str) -> Self {
        let join = |parent: &str| if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") };
        Self { shown: join(&self.shown), schema: join(&self.schema) }
    }

    pub(super) fn item(&self, index: usize, name: Option<&str>) -> Self {
        let shown = name.map_or_else(|| format!("{}[{index}]", self.shown), |name| format!("{}.{name}", self.shown));
        Self { shown, schema: self.schema.clone() }
    }
}

/// One value as written.
#[derive(Clone)]
pub(super) struct Written<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) path: Path,
    pub(super) value: &'a Spanned<DeValue<'a>>,
    pub(super) secret: bool,
}

impl<'a> Written<'a> {
    /// A string, its variables filled in.
    pub(super) fn text(&self, what: &str, example: &str) -> Option<Cow<'a, str>> {
        let Some(text) = self.value.get_ref().as_str() else { return self.expected(what, example) };
        match fill_in(text, self.source.environment) {
            Ok(text) => Some(text),
            Err(Unfilled::Unset(names)) => {
                let (noun, verb) = if names.len() == 1 { ("variable", "is") } else { ("variables", "are") };
                let names = names.join(" and ");
                self.refuse(
                    format!("the environment {noun} {names} {verb} not set"),
                    "set it, or write ${NAME:-default} if there is a default",
                )
            }
            Err(Unfilled::Malformed) => {
                self.refuse("has a ${ that is no variable", "write ${NAME} or ${NAME:-default}, or $${ for a plain ${")
            }
        }
    }

    /// A whole number, or a string that becomes one once its variables are filled in.
    pub(super) fn integer(&self) -> Option<i128> {
        const EXPECTED: (&str, &str) = ("a whole number", "40");
        let number = match self.value.get_ref() {
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::String(_) => self.text(EXPECTED.0, EXPECTED.1)?.trim().replace('_', "").parse().ok(),
            _ => None,
        };
        number.or_else(|| self.expected(EXPECTED.0, EXPECTED.1))
    }

    /// A number, or a string that becomes one once its variables are filled in.
    pub(super) fn float(&self) -> Option<f64> {
        const EXPECTED: (&str, &str) = ("a number", "0.2");
        let number = match self.value.get_ref() {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
            DeValue::String(_) => self.text(EXPECTED.0, EXPECTED.1)?.trim().parse().ok(),
            _ => None,
        };
        number.filter(|number: &f64| number.is_finite()).or_else(|| self.expected(EXPECTED.0, EXPECTED.1))
    }

    /// `true` or `false`, or a string that becomes it once its variables are filled in.
    pub(super) fn boolean(&self) -> Option<bool> {
        const EXPECTED: (&str, &str) = ("true or false", "true");
        let boolean = match self.value.get_ref() {
            DeValue::Boolean(boolean) => Some(*boolean),
            DeValue::String(_) => self.text(EXPECTED.0, EXPECTED.1)?.trim().parse().ok(),
            _ => None,
        };
        boolean.or_else(|| self.expected(EXPECTED.0, EXPECTED.1))
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Option<Vec<Self>> {
        let Some(items) = self.value.get_ref().as_array() else {
            return self.refuse("expected a list", "put it in brackets");
        };
        let item = |(index, value)| Self { path: self.path.item(index, None), value, ..self.clone() };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// Whether it is a secret, or a list of them, that says `[redacted]`.
    pub(super) fn is_placeholder(&self) -> bool {
        let is_placeholder = |value: &DeValue<'_>| value.as_str() == Some(Secret::REDACTED);
        let value = self.value.get_ref();
        let items = || value.as_array().is_some_and(|items| items.iter().any(|item| is_placeholder(item.get_ref())));
        self.secret && (is_placeholder(value) || items())
    }

    /// Refuses the value for not being what is expected here.
    pub(super) fn expected<T>(&self, what: &str, example: &str) -> Option<T> {
        self.refuse(format!("expected {what}"), format!("write it like {example}"))
    }

    /// Notes what is wrong with the value.
    pub(super) fn refuse<T>(&self, problem: impl Into<String>, fix: impl Into<String>) -> Option<T> {
        let line = self.source.line(&self.value.span());
        let field = match line {
            Some(_) => self.path.shown.clone(),
            None => flags::name(&self.path.schema).map_or_else(|| self.path.shown.clone(), str::to_owned),
        };
        let value = Some(if self.secret { Secret::REDACTED.to_owned() } else { shorten(show(self.value.get_ref())) });
        let mistake = Mistake { line, field, value, problem: problem.into(), fix: fix.into() };
        self.source.mistakes.borrow_mut().push(mistake);
        None
    }
}

/// The value as a person would write it, on one line and without what an address might give away.
fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{:?}", hide_credentials(text)),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::Array(items) => {
            format!("[{}]", items.iter().map(|item| show(item.get_ref())).collect::<Vec<_>>().join(", "))
        }
        DeValue::Table(_) => "{…}".to_owned(),
    }
}

/// An address may carry a password before its host or a key in its query.
fn hide_credentials(text: &str) -> String {
    let mut shown = text.to_owned();
    if let Some(query) = shown.find('?') {
        shown.replace_range(query + 1.., Secret::REDACTED);
    }
    if let Some(at) = shown.rfind('@') {
        let start = shown.find("://").map_or(0, |scheme| scheme + 3).min(at);
        shown.replace_range(start..at, Secret::REDACTED);
    }
    shown
}

/// A value in a message is a reminder, not a copy.
fn shorten(mut shown: String) -> String {
    const LONGEST: usize = 100;
    if let Some((cut, _)) = shown.char_indices().nth(LONGEST) {
        shown.truncate(cut);
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_what_they_give_away() {
        for (text, shown) in [
            ("https://user:pw@host/v1", "https://[redacted]@host/v1"),
            ("https://host/v1?key=1", "https://host/v1?[redacted]"),
            ("user:pw@host", "[redacted]@host"),
            ("127.0.0.1", "127.0.0.1"),
        ] {
            assert_eq!(hide_credentials(text), shown);
        }
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        assert_eq!(shorten("ä".repeat(200)).chars().count(), 101);
        assert_eq!(shorten("short".to_owned()), "short");
    }
}
