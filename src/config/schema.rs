//! How the rooms' settings stand in a file, said once for everybody who needs it.
//!
//! A room's struct is a [`Group`]: it names its fields to whoever asks. The reader answers by filling in what the file
//! says over the defaults that are already there, the writer by printing what it is shown, the index by taking down
//! the names. So a setting has one name, one place and one default, and cannot be read without being printed.

use std::ops::RangeInclusive;

use toml::Value;

use super::reader::Section;
use super::written::Written;

/// Settings that stand together in a table.
pub(super) trait Group {
    /// Names every field, in the order in which they are printed.
    fn fields(&mut self, to: &mut impl Fields);

    /// Demands what must hold between fields, and settles the defaults that follow from other fields.
    fn check(&mut self, _section: &Section<'_>) {}
}

/// A group of which there may be none or many.
pub(super) trait Blank: Group {
    /// One of which nothing is known yet. What the file must say about it, `check` demands.
    fn blank() -> Self;
}

/// Who asks for the fields of a group.
pub(super) trait Fields {
    /// One setting.
    fn field<T: Setting>(&mut self, name: &'static str, place: &mut T);

    /// One setting that must be in a range.
    fn within<T: Setting + PartialOrd>(&mut self, name: &'static str, place: &mut T, range: RangeInclusive<T>);

    /// A table of settings that is always there.
    fn table<T: Group>(&mut self, name: &'static str, place: &mut T);

    /// A table of settings that may be absent.
    fn optional_table<T: Blank>(&mut self, name: &'static str, place: &mut Option<T>);

    /// A list of tables, `[[name]]`.
    fn tables<T: Blank>(&mut self, name: &'static str, places: &mut Vec<T>);
}

/// A value that a setting can have.
pub(super) trait Setting: Sized {
    /// Whether its text must never be shown.
    const SECRET: bool = false;

    /// Reads it; `None` when it was refused, which `written` has then noted.
    fn read(written: &Written<'_>) -> Option<Self>;

    /// The value as TOML, secrets redacted; `None` for one that is absent.
    fn write(&self) -> Option<Value>;
}

/// The names of all settings, with the dots of their tables: `upstreams.limits.window`.
#[derive(Debug, Default)]
pub(super) struct Index {
    within: String,
    /// In the order of the schema.
    pub(super) names: Vec<String>,
}

impl Index {
    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.within)
    }

    fn group(&mut self, name: &str, group: &mut impl Group) {
        let outside = self.within.clone();
        self.within = format!("{outside}{name}.");
        group.fields(self);
        self.within = outside;
    }
}

impl Fields for Index {
    fn field<T: Setting>(&mut self, name: &'static str, _place: &mut T) {
        self.names.push(self.name(name));
    }

    fn within<T: Setting + PartialOrd>(&mut self, name: &'static str, place: &mut T, _range: RangeInclusive<T>) {
        self.field(name, place);
    }

    fn table<T: Group>(&mut self, name: &'static str, place: &mut T) {
        self.group(name, place);
    }

    fn optional_table<T: Blank>(&mut self, name: &'static str, _place: &mut Option<T>) {
        self.group(name, &mut T::blank());
    }

    fn tables<T: Blank>(&mut self, name: &'static str, _places: &mut Vec<T>) {
        self.group(name, &mut T::blank());
    }
}
