//! Prints settings as the TOML file that means them, or as JSON, secrets redacted.

use std::ops::RangeInclusive;

use toml::Value;

use super::environment::escape;
use super::schema::{Blank, Fields, Group, Setting};

/// The file that means what `group` holds.
pub(super) fn print(group: &mut impl Group) -> String {
    let mut page = Page::default();
    group.fields(&mut page);
    (page.lines + &page.tables).trim_start().to_owned()
}

/// One table. Its own settings must stand before the tables inside it.
#[derive(Debug, Default)]
struct Page {
    path: String,
    lines: String,
    tables: String,
}

impl Page {
    fn table_at(&mut self, name: &str, brackets: (&str, &str), group: &mut impl Group) {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        let mut page = Self { path, ..Self::default() };
        group.fields(&mut page);
        let Self { path, lines, tables } = page;
        self.tables += &format!("\n{}{path}{}\n{lines}{tables}", brackets.0, brackets.1);
    }
}

impl Fields for Page {
    fn field<T: Setting>(&mut self, name: &'static str, place: &mut T) {
        if let Some(value) = place.write() {
            self.lines += &format!("{name} = {}\n", escaped(value));
        }
    }

    fn within<T: Setting + PartialOrd>(&mut self, name: &'static str, place: &mut T, _range: RangeInclusive<T>) {
        self.field(name, place);
    }

    fn table<T: Group>(&mut self, name: &'static str, place: &mut T) {
        self.table_at(name, ("[", "]"), place);
    }

    fn optional_table<T: Blank>(&mut self, name: &'static str, place: &mut Option<T>) {
        if let Some(place) = place {
            self.table(name, place);
        }
    }

    fn tables<T: Blank>(&mut self, name: &'static str, places: &mut Vec<T>) {
        for place in places {
            self.table_at(name, ("[[", "]]"), place);
        }
    }
}

/// What `group` holds as JSON. Nothing is escaped: no variable is looked for there.
pub(super) fn print_json(group: &mut impl Group) -> String {
    let mut tree = Tree::default();
    group.fields(&mut tree);
    serde_json::Value::Object(tree.0).to_string()
}

/// One table, in the order of its fields.
#[derive(Debug, Default)]
struct Tree(serde_json::Map<String, serde_json::Value>);

impl Tree {
    fn of(group: &mut impl Group) -> serde_json::Value {
        let mut tree = Self::default();
        group.fields(&mut tree);
        serde_json::Value::Object(tree.0)
    }
}

impl Fields for Tree {
    fn field<T: Setting>(&mut self, name: &'static str, place: &mut T) {
        // Every TOML value but a date, of which settings have none, is one of JSON, too.
        if let Some(value) = place.write().and_then(|value| serde_json::to_value(value).ok()) {
            self.0.insert(name.to_owned(), value);
        }
    }

    fn within<T: Setting + PartialOrd>(&mut self, name: &'static str, place: &mut T, _range: RangeInclusive<T>) {
        self.field(name, place);
    }

    fn table<T: Group>(&mut self, name: &'static str, place: &mut T) {
        self.0.insert(name.to_owned(), Self::of(place));
    }

    fn optional_table<T: Blank>(&mut self, name: &'static str, place: &mut Option<T>) {
        if let Some(place) = place {
            self.table(name, place);
        }
    }

    fn tables<T: Blank>(&mut self, name: &'static str, places: &mut Vec<T>) {
        self.0.insert(name.to_owned(), places.iter_mut().map(Self::of).collect());
    }
}

/// The value with nothing in it that reading would take for a variable.
fn escaped(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(escape(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(escaped).collect()),
        other => other,
    }
}
