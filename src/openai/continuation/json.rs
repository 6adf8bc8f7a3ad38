//! JSON changed in place: its members found where they stand, and bytes put in their stead.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::openai::members::{Members, Read};

/// A JSON object and where its members stand. Of equal names the last counts, as in most JSON readers.
#[derive(Debug)]
pub(super) struct Object<'a> {
    text: &'a str,
    members: Vec<Member<'a>>,
}

#[derive(Debug, Clone, Copy)]
struct Member<'a> {
    name: &'a RawValue,
    value: &'a RawValue,
}

impl<'a> Object<'a> {
    /// Reads the one object that `text` is, but for white space around it.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let text = text.trim_ascii();
        let Read(members) = serde_json::from_str(text).ok()?;
        Some(Self { text, members })
    }

    /// The value called `name`, unless it is null.
    pub(super) fn value(&self, name: &str) -> Option<&'a RawValue> {
        self.raw(name).filter(|value| value.get() != "null")
    }

    /// Of the type asked for, or nothing.
    pub(super) fn read_as<T: Deserialize<'a>>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.value(name)?.get()).ok()
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value.get() == "true")
    }

    fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.members.iter().rev().find(|member| member.is(name)).map(|member| member.value)
    }
}

impl Member<'_> {
    fn is(&self, name: &str) -> bool {
        let raw = self.name.get();
        if raw.contains('\\') {
            return serde_json::from_str::<String>(raw).is_ok_and(|decoded| decoded == name);
        }
        raw.len() == name.len() + 2 && raw.get(1..=name.len()) == Some(name)
    }
}

/// All of them in their order, equal names included.
impl<'de: 'a, 'a> Members<'de> for Vec<Member<'a>> {
    type Name = &'de RawValue;

    fn wants(_: &Self::Name) -> bool {
        true
    }

    fn take(&mut self, name: Self::Name, value: &'de RawValue) {
        self.push(Member { name, value });
    }
}

/// Says nothing: null, or an empty string, list or object.
pub(super) fn is_empty(value: &RawValue) -> bool {
    match value.get().as_bytes() {
        b"null" | b"\"\"" => true,
        [b'[', inner @ .., b']'] | [b'{', inner @ .., b'}'] => inner.trim_ascii().is_empty(),
        _ => false,
    }
}

/// The text that a JSON string stands for; `None` for another value.
pub(super) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(value.get()).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// `text` as it stands between the quotes of a JSON string.
pub(super) fn escaped(text: &str) -> String {
    let mut quoted = quoted(text);
    quoted.pop();
    quoted.remove(0);
    quoted
}

/// `text` as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Changes to make to a JSON text, all of which name parts of it by slices of it.
#[derive(Debug)]
pub(super) struct Edits<'a> {
    base: &'a str,
    edits: Vec<(Range<usize>, Cow<'a, str>)>,
}

impl<'a> Edits<'a> {
    pub(super) const fn of(base: &'a str) -> Self {
        Self { base, edits: Vec::new() }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    pub(super) fn replace(&mut self, part: &str, by: impl Into<Cow<'a, str>>) {
        let range = self.range(part);
        self.edits.push((range, by.into()));
    }

    /// Inserts inside of a string, list or object, `after` so many bytes of it.
    pub(super) fn insert(&mut self, part: &str, after: usize, text: impl Into<Cow<'a, str>>) {
        let at = self.range(part).start + after;
        self.edits.push((at..at, text.into()));
    }

    /// Gives `object` the member, in the place of the one that counted if there was one.
    pub(super) fn set(&mut self, object: &Object<'_>, name: &str, value: &str) {
        if let Some(old) = object.raw(name) {
            return self.replace(old.get(), value.to_owned());
        }
        let (at, comma) = match object.members.last() {
            Some(last) => (self.range(last.value.get()).end - self.range(object.text).start, ","),
            None => (1, ""),
        };
        // A second new member of an empty object would lack its comma; there is never one.
        self.insert(object.text, at, format!("{comma}\"{name}\":{value}"));
    }

    /// Takes every member called `name` away, with the comma that belongs to it.
    pub(super) fn remove(&mut self, object: &Object<'_>, name: &str) {
        let mut kept_before = false;
        for (index, member) in object.members.iter().enumerate() {
            if !member.is(name) {
                kept_before = true;
                continue;
            }
            let mut range = self.range(member.name.get()).start..self.range(member.value.get()).end;
            match (index.checked_sub(1).and_then(|before| object.members.get(before)), object.members.get(index + 1)) {
                (Some(before), _) if kept_before => range.start = self.range(before.value.get()).end,
                (_, Some(next)) => range.end = self.range(next.name.get()).start,
                (_, None) => {}
            }
            self.edits.push((range, Cow::Borrowed("")));
        }
    }

    /// The text with all changes made.
    pub(super) fn apply(mut self) -> String {
        self.edits.sort_by_key(|(range, _)| range.start);
        let added: usize = self.edits.iter().map(|(_, text)| text.len()).sum();
        let mut out = String::with_capacity(self.base.len() + added);
        let mut at = 0;
        for (range, text) in &self.edits {
            out.push_str(self.base.get(at..range.start).unwrap_or_default());
            out.push_str(text);
            at = range.end;
        }
        out.push_str(self.base.get(at..).unwrap_or_default());
        out
    }

    /// Where `part`, a slice of the base, stands in it.
    fn range(&self, part: &str) -> Range<usize> {
        let start = part.as_ptr().addr().saturating_sub(self.base.as_ptr().addr());
        start..start + part.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, name: &str, value: &str) -> String {
        let object = Object::read(text).unwrap();
        let mut edits = Edits::of(text);
        edits.set(&object, name, value);
        edits.apply()
    }

    fn without(text: &str, name: &str) -> String {
        let object = Object::read(text).unwrap();
        let mut edits = Edits::of(text);
        edits.remove(&object, name);
        edits.apply()
    }

    #[test]
    fn the_member_that_counts_is_the_last_also_when_escaped() {
        let object = Object::read(r#" {"a":1,"\u0061":2,"b":null} "#).unwrap();
        assert_eq!(object.value("a").unwrap().get(), "2");
        assert!(object.value("b").is_none());
        assert_eq!(set(r#"{"a":1, "\u0061" : 2 ,"b":3}"#, "a", "7"), r#"{"a":1, "\u0061" : 7 ,"b":3}"#);
    }

    #[test]
    fn a_new_member_comes_last() {
        assert_eq!(set(" { \"b\":[1] } ", "a", "7"), " { \"b\":[1],\"a\":7 } ");
        assert_eq!(set("{ }", "a", "7"), "{\"a\":7 }");
    }

    #[test]
    fn a_member_goes_with_its_comma_wherever_it_stands() {
        for (text, expected) in [
            (r#"{"a":1}"#, "{}"),
            (r#"{ "a" : 1 }"#, "{  }"),
            (r#"{"a":1, "b":2}"#, r#"{"b":2}"#),
            (r#"{"b":2 , "a":1 }"#, r#"{"b":2 }"#),
            (r#"{"b":2,"a":1,"c":3}"#, r#"{"b":2,"c":3}"#),
            (r#"{"a":1,"a":2,"b":3}"#, r#"{"b":3}"#),
            (r#"{"b":3,"a":1,"a":2}"#, r#"{"b":3}"#),
            (r#"{"a":0,"b":3,"a":1,"c":4,"a":2}"#, r#"{"b":3,"c":4}"#),
            (r#"{"a":0,"a":3}"#, "{}"),
        ] {
            assert_eq!(without(text, "a"), expected, "{text}");
        }
    }

    #[test]
    fn empty_values_say_nothing() {
        for (text, empty) in [("null", true), ("[ ]", true), ("{}", true), ("\"\"", true), ("0", false), ("[0]", false)]
        {
            assert_eq!(is_empty(serde_json::from_str(text).unwrap()), empty, "{text}");
        }
    }
}
