//! The table of what is expected: read, and asked for each cell.

use std::collections::HashMap;

use serde::Deserialize;

use super::cell::{Cell, Fault, Form, Http, Kind, Phase, Setup};

/// `expected.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    groups: HashMap<String, Vec<Fault>>,
    cannot: Vec<Without>,
    spared: Vec<Without>,
    rule: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
struct Without {
    because: String,
    #[serde(flatten)]
    fits: Fits,
}

#[derive(Debug, Deserialize)]
pub(super) struct Rule {
    pub(super) because: String,
    #[serde(flatten)]
    fits: Fits,
    always: Option<String>,
    heals: Option<String>,
    lasts: Option<String>,
    two: Option<String>,
}

/// Which cells a row is about.
#[derive(Debug, Deserialize)]
struct Fits {
    phases: Option<Vec<Phase>>,
    /// Faults, or groups of them, as `@name`.
    faults: Option<Vec<String>>,
    http: Option<Vec<Http>>,
    kinds: Option<Vec<Kind>>,
    forms: Option<Vec<Form>>,
    setups: Option<Vec<Setup>>,
}

/// What is expected of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    /// As in the table, with the status filled in.
    pub(super) outcome: String,
    pub(super) attempts: (u32, u32),
    pub(super) seen: (u32, u32),
}

/// What the table says of a cell.
pub(super) enum Said<'a> {
    /// It cannot exist, or another one stands for it.
    Nothing,
    Expected(&'a Rule, Expected),
}

impl Table {
    pub(super) fn read() -> Self {
        let table: Self = toml::from_str(include_str!("expected.toml")).expect("a table");
        let without = table.cannot.iter().chain(&table.spared);
        let rows = without.map(|row| &row.fits).chain(table.rule.iter().map(|row| &row.fits));
        for name in rows.flat_map(|fits| fits.faults.iter().flatten()) {
            table.faults(name);
        }
        table
    }

    fn faults(&self, name: &str) -> Vec<Fault> {
        match name.strip_prefix('@') {
            Some(group) => self.groups.get(group).unwrap_or_else(|| panic!("no group {group}")).clone(),
            None => vec![Fault::deserialize(toml::Value::String(name.to_owned())).expect("a fault")],
        }
    }

    fn fits(&self, fits: &Fits, cell: &Cell) -> bool {
        fn has<T: PartialEq>(wanted: Option<&Vec<T>>, it: &T) -> bool {
            wanted.is_none_or(|wanted| wanted.contains(it))
        }
        has(fits.phases.as_ref(), &cell.phase)
            && has(fits.http.as_ref(), &cell.http)
            && has(fits.kinds.as_ref(), &cell.kind)
            && has(fits.forms.as_ref(), &cell.form)
            && has(fits.setups.as_ref(), &cell.setup)
            && fits.faults.as_ref().is_none_or(|names| names.iter().any(|name| self.faults(name).contains(&cell.fault)))
    }

    /// What is said of a cell.
    ///
    /// # Panics
    /// When nothing is: no cell is left out in silence.
    pub(super) fn says(&self, cell: &Cell) -> Said<'_> {
        let without = self.cannot.iter().chain(&self.spared).find(|row| self.fits(&row.fits, cell));
        if let Some(row) = without {
            assert!(!row.because.is_empty());
            return Said::Nothing;
        }
        let rule = self.rule.iter().find(|row| self.fits(&row.fits, cell));
        let rule = rule.unwrap_or_else(|| panic!("nothing is said of {cell}"));
        Said::Expected(rule, rule.expects(cell))
    }

    /// The reasons of rows that no cell came to: they say nothing.
    pub(super) fn idle_rows(&self, used: &[&Rule]) -> Vec<&str> {
        let is_used = |row: &Rule| used.iter().any(|used| std::ptr::eq(*used, row));
        self.rule.iter().filter(|row| !is_used(row)).map(|row| row.because.as_str()).collect()
    }
}

impl Rule {
    fn expects(&self, cell: &Cell) -> Expected {
        let own = match cell.setup {
            Setup::Heals => &self.heals,
            Setup::Lasts => &self.lasts,
            Setup::Two => &self.two,
        };
        let text = own.as_ref().or(self.always.as_ref()).unwrap_or_else(|| panic!("{}: says half", self.because));
        let (outcome, counts) = text.rsplit_once(' ').expect("an outcome and counts");
        let (attempts, seen) = counts.split_once('/').expect("attempts and requests");
        let number = |text: &str| text.parse().expect("a number");
        let attempts = match attempts.split_once("..") {
            Some((least, "")) => (number(least), u32::MAX),
            Some((least, most)) => (number(least), number(most)),
            None => (number(attempts), number(attempts)),
        };
        let (first, second) = seen.split_once('+').unwrap_or((seen, "0"));
        let outcome = match (outcome, cell.fault.status()) {
            ("status", Some((status, ..))) => format!("status {status}"),
            ("status", None) => panic!("{}: {cell} is no status", self.because),
            (outcome, _) => outcome.to_owned(),
        };
        Expected { outcome, attempts, seen: (number(first), number(second)) }
    }
}

impl Expected {
    pub(super) fn is_met_by(&self, outcome: &str, attempts: u32, seen: (u32, u32)) -> bool {
        self.outcome == outcome && (self.attempts.0..=self.attempts.1).contains(&attempts) && self.seen == seen
    }
}
