//! `[[clients]]` and what belongs to one.

use crate::admission::settings::{Client, ClientKey, ClientLimits, OnLimit};
use crate::config::reader::Section;
use crate::config::schema::{Blank, Fields, Group};
use crate::config::values::choices;
use crate::ids::is_plain_name;
use crate::units::Secret;

choices! { OnLimit { Wait = "wait", Refuse = "refuse" } }

impl Group for Client {
    fn fields(&mut self, to: &mut impl Fields) {
        to.field("name", &mut self.name);
        let (mut plain, mut hash) = match &self.key {
            ClientKey::Plain(key) => (Some(key.clone()), None),
            ClientKey::Blake3(hash) => (None, Some(*hash)),
        };
        to.field("key", &mut plain);
        to.field("key_blake3", &mut hash);
        if let Some(key) = hash.map(ClientKey::Blake3).or_else(|| plain.map(ClientKey::Plain)) {
            self.key = key;
        }
        to.field("class", &mut self.class);
        to.field("class_max", &mut self.class_max);
        to.field("weight", &mut self.weight);
        to.table("limits", &mut self.limits);
        to.field("on_limit", &mut self.on_limit);
    }

    fn check(&mut self, section: &Section<'_>) {
        section.require("name", "add one: it stands in logs and on the dashboard");
        section.demand(
            !section.has("name") || is_plain_name(&self.name),
            ["name"],
            "must be 1 to 64 letters, digits, dots, dashes or underscores",
            "choose another name",
        );
        let (key, hash) = (section.has("key"), section.has("key_blake3"));
        section.demand(!key || !hash, ["key", "key_blake3"], "cannot stand beside key_blake3", "remove one of them");
        let fix = "add key = \"${NAME}\", or key_blake3 with the hash of the key";
        section.demand(key || hash, ["key", "key_blake3"], "is missing", fix);
        let is_of_nothing = matches!(&self.key, ClientKey::Blake3(hash) if blake3::hash(b"") == *hash);
        let fix = "hash the key again: the variable was not set";
        section.demand(!is_of_nothing, ["key_blake3"], "is the hash of an empty key", fix);
        if !section.has("class_max") {
            self.class_max = self.class;
        }
        // The most urgent class is the least value.
        section.demand(
            self.class >= self.class_max,
            ["class", "class_max"],
            format!("must not be above class_max ({})", self.class_max),
            "lower it or raise class_max",
        );
    }
}

impl Blank for Client {
    fn blank() -> Self {
        Self::new(String::new(), ClientKey::Plain(Secret::new(String::new())))
    }
}

impl Group for ClientLimits {
    fn fields(&mut self, to: &mut impl Fields) {
        to.field("requests_per_minute", &mut self.requests_per_minute);
        to.field("tokens_per_minute", &mut self.tokens_per_minute);
        to.field("concurrency", &mut self.concurrency);
    }
}

/// Names and keys tell clients apart.
pub(super) fn check_beside_each_other(clients: &[Client], sections: &[Section<'_>]) {
    for (index, (client, section)) in clients.iter().zip(sections).enumerate() {
        let others = || clients.iter().take(index);
        let taken = !client.name.is_empty() && others().any(|other| other.name == client.name);
        section.demand(!taken, ["name"], format!("another client is called {}", client.name), "rename one");
        let field = match &client.key {
            ClientKey::Plain(_) => "key",
            ClientKey::Blake3(_) => "key_blake3",
        };
        let shared = digest(&client.key).is_some_and(|key| others().any(|other| digest(&other.key) == Some(key)));
        section.demand(!shared, [field], "is another client's too", "give each client a key of its own");
    }
}

/// What tells a key from others, whichever way it is written; a placeholder is none.
fn digest(key: &ClientKey) -> Option<blake3::Hash> {
    match key {
        ClientKey::Plain(key) if key.expose().is_empty() || key.expose() == Secret::REDACTED => None,
        ClientKey::Plain(key) => Some(blake3::hash(key.expose().as_bytes())),
        ClientKey::Blake3(hash) => Some(blake3::Hash::from_bytes(*hash)),
    }
}
