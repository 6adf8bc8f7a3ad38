//! `${VAR}` and `${VAR:-default}` in strings; `$${` stands for a plain `${`.

use std::borrow::Cow;

/// Where variables come from: the process, or a test.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a string could not be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfilled {
    /// These variables are not set and have no default.
    Unset(Vec<String>),
    /// A `${` that no `}` ends, or that names nothing a variable can be called.
    Malformed,
}

/// Fills in the variables. A default also stands in for a variable that is set but empty, as in a shell.
pub(super) fn fill_in<'t>(text: &'t str, environment: Environment<'_>) -> Result<Cow<'t, str>, Unfilled> {
    if !text.contains("${") {
        return Ok(Cow::Borrowed(text));
    }
    let (mut filled, mut unset, mut rest) = (String::new(), Vec::new(), text);
    while let Some(start) = rest.find("${") {
        let (before, from) = rest.split_at(start);
        if let Some(before) = before.strip_suffix('$') {
            filled.extend([before, "${"]);
            rest = &from[2..];
            continue;
        }
        filled.push_str(before);
        let (inside, after) = from[2..].split_once('}').ok_or(Unfilled::Malformed)?;
        let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default)));
        if !is_variable_name(name) {
            return Err(Unfilled::Malformed);
        }
        let value = environment(name).filter(|value| default.is_none() || !value.is_empty());
        match (value, default) {
            (Some(value), _) => filled.push_str(&value),
            (None, Some(default)) => filled.push_str(default),
            (None, None) => unset.push(name.to_owned()),
        }
        rest = after;
    }
    filled.push_str(rest);
    if unset.is_empty() { Ok(Cow::Owned(filled)) } else { Err(Unfilled::Unset(unset)) }
}

/// The text that [`fill_in`] turns into `text`.
pub(super) fn escape(text: &str) -> String {
    text.replace("${", "$${")
}

fn is_variable_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, Unfilled> {
        let environment = |name: &str| match name {
            "HOST" => Some("h".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        fill_in(text, &environment).map(Cow::into_owned)
    }

    #[test]
    fn variables_and_defaults_are_filled_in() {
        for (text, value) in [
            ("plain $HOST {}", "plain $HOST {}"),
            ("https://${HOST}/v1", "https://h/v1"),
            ("${HOST}${HOST:-x}", "hh"),
            ("${NONE:-a:-b}", "a:-b"),
            ("${NONE:-}", ""),
            ("[${EMPTY}] [${EMPTY:-x}]", "[] [x]"),
            ("$${HOST} ${HOST}", "${HOST} h"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(value), "{text}");
        }
    }

    #[test]
    fn every_missing_variable_is_named() {
        assert_eq!(filled("${A} ${HOST} ${B}"), Err(Unfilled::Unset(vec!["A".to_owned(), "B".to_owned()])));
        for text in ["${", "x${HOST", "${}", "${1A}", "${A B}", "${:-x}"] {
            assert_eq!(filled(text), Err(Unfilled::Malformed), "{text}");
        }
    }

    #[test]
    fn what_is_escaped_is_filled_in_as_itself() {
        for text in ["${HOST}", "a$${b", "$$$", "${${"] {
            assert_eq!(filled(&escape(text)).as_deref(), Ok(text));
        }
    }
}
