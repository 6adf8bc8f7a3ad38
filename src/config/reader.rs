//! Fills a group from a table of the file, and notes what does not belong there.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::Mistake;
use super::schema::{Blank, Fields, Group, Setting};
use super::suggest::suggestion;
use super::written::{Path, Present, Source, Written};
use crate::ids::is_plain_name;

/// One table of the file.
pub(super) struct Section<'a> {
    source: &'a Source<'a>,
    path: Path,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    /// The fields the group asked for: all other keys are unknown.
    known: Vec<Known>,
}

/// A field the group asked for.
struct Known {
    name: &'static str,
    secret: bool,
    /// It is there, but could not be read.
    mistaken: bool,
}

impl Known {
    const fn table(name: &'static str) -> Self {
        Self { name, secret: false, mistaken: false }
    }
}

impl<'a> Section<'a> {
    /// The file itself.
    pub(super) fn root(source: &'a Source<'a>, table: &'a DeTable<'a>) -> Self {
        Self { source, path: Path::default(), table, span: 0..0, known: Vec::new() }
    }

    /// Fills in `group`.
    pub(super) fn read(mut self, group: &mut impl Group) {
        group.fields(&mut self);
        group.check(&self);
        self.refuse_unknown();
    }

    /// Whether the table says anything about `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// Demands that `holds`, a relation between the fields `names`; the first of them is the one to blame. Where one of
    /// them is mistaken already its default stands in for it, so nothing is said.
    pub(super) fn demand<const N: usize>(
        &self,
        holds: bool,
        names: [&str; N],
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) {
        if holds || self.known.iter().any(|known| known.mistaken && names.contains(&known.name)) {
            return;
        }
        let Some(name) = names.first() else { return };
        let is_public = self.known.iter().any(|known| known.name == *name && !known.secret);
        match self.written(name) {
            Some(written) if is_public => drop(written.refuse::<()>(problem, fix)),
            written => {
                let span = written.map_or_else(|| self.span.clone(), |written| written.value.span());
                self.note(&span, name, problem, fix);
            }
        }
    }

    /// Demands that the table has `name`.
    pub(super) fn require(&self, name: &str, fix: &str) {
        self.demand(self.has(name), [name], "is missing", fix);
    }

    /// The tables of the list `name`, to check them beside each other.
    pub(super) fn items(&self, name: &str) -> Vec<Self> {
        let list = self.table.get(name).and_then(|list| list.get_ref().as_array());
        let items = list.into_iter().flat_map(|list| list.iter().enumerate());
        items.filter_map(|(index, item)| self.item(name, index, item)).collect()
    }

    fn item(&self, name: &str, index: usize, item: &'a Spanned<DeValue<'a>>) -> Option<Self> {
        let table = item.get_ref().as_table()?;
        let called = table.get("name").and_then(|name| name.get_ref().as_str()).filter(|name| is_plain_name(name));
        let path = self.path.child(name).item(index, called);
        Some(Self { source: self.source, path, table, span: item.span(), known: Vec::new() })
    }

    fn child(&self, name: &str, value: &'a Spanned<DeValue<'a>>) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            let fix = format!("write [{}] alone on a line, the settings below it", self.path.child(name).schema);
            self.note(&value.span(), name, "expected a table", fix);
            return None;
        };
        Some(Self { source: self.source, path: self.path.child(name), table, span: value.span(), known: Vec::new() })
    }

    fn written(&self, name: &str) -> Option<Written<'a>> {
        let value = self.table.get(name)?;
        Some(Written { source: self.source, path: self.path.child(name), value, secret: false })
    }

    /// Reads a setting that is there and that `suits`, and notes that it is.
    fn setting<T: Setting>(&mut self, name: &'static str, suits: impl FnOnce(&Written<'_>, &T) -> bool) -> Option<T> {
        let written = self.written(name).map(|written| Written { secret: T::SECRET, ..written });
        let value = written.as_ref().and_then(|written| T::read(written).filter(|value| suits(written, value)));
        self.known.push(Known { name, secret: T::SECRET, mistaken: written.is_some() && value.is_none() });
        let (written, value) = (written?, value?);
        self.source.present.borrow_mut().push(Present {
            line: self.source.line(&written.value.span()),
            value: value.write().map_or_else(String::new, |value| value.to_string()),
            is_placeholder: written.is_placeholder(),
            path: written.path,
        });
        Some(value)
    }

    /// Notes a mistake without showing a value: there is none, or it may be secret.
    fn note(&self, span: &Range<usize>, name: &str, problem: impl Into<String>, fix: impl Into<String>) {
        let (line, field) = (self.source.line(span), self.path.child(name).shown);
        let mistake = Mistake { line, field, value: None, problem: problem.into(), fix: fix.into() };
        self.source.mistakes.borrow_mut().push(mistake);
    }

    /// A misspelt secret is still one, so the value is not shown.
    fn refuse_unknown(&self) {
        let known: Vec<_> = self.known.iter().map(|known| known.name).collect();
        for (key, _) in self.table {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                self.note(&key.span(), name, "unknown setting", suggestion(name, &self.path.schema, &known));
            }
        }
    }
}

impl Fields for Section<'_> {
    fn field<T: Setting>(&mut self, name: &'static str, place: &mut T) {
        if let Some(value) = self.setting(name, |_, _| true) {
            *place = value;
        }
    }

    fn within<T: Setting + PartialOrd>(&mut self, name: &'static str, place: &mut T, range: RangeInclusive<T>) {
        let suits = |written: &Written<'_>, value: &T| {
            let text = |bound: &T| bound.write().map_or_else(String::new, |value| value.to_string());
            let bounds = || format!("must be from {} to {}", text(range.start()), text(range.end()));
            range.contains(value) || written.refuse::<()>(bounds(), "choose a value in that range").is_some()
        };
        if let Some(value) = self.setting(name, suits) {
            *place = value;
        }
    }

    fn table<T: Group>(&mut self, name: &'static str, place: &mut T) {
        self.known.push(Known::table(name));
        if let Some(section) = self.table.get(name).and_then(|value| self.child(name, value)) {
            section.read(place);
        }
    }

    fn optional_table<T: Blank>(&mut self, name: &'static str, place: &mut Option<T>) {
        if self.has(name) {
            self.table(name, place.insert(T::blank()));
        } else {
            self.known.push(Known::table(name));
        }
    }

    fn tables<T: Blank>(&mut self, name: &'static str, places: &mut Vec<T>) {
        self.known.push(Known::table(name));
        let Some(value) = self.table.get(name) else { return };
        let expected_tables = |span: &Range<usize>| {
            let fix = format!("write [[{name}]] alone on a line for each, its settings below it");
            self.note(span, name, "expected a list of tables", fix);
        };
        let Some(list) = value.get_ref().as_array() else { return expected_tables(&value.span()) };
        for (index, item) in list.iter().enumerate() {
            let Some(section) = self.item(name, index, item) else {
                expected_tables(&item.span());
                continue;
            };
            let mut place = T::blank();
            section.read(&mut place);
            places.push(place);
        }
    }
}
