//! Who calls: whose key a request bears, and for whom a gateway that is trusted says it speaks.
//!
//! With `[[clients]]` a key of theirs is the way in. It may stand where clients of all kinds put keys: `Authorization`
//! (`Bearer`, or the key alone), `x-api-key`, `api-key`, and for browsers the WebSocket subprotocol
//! `openai-insecure-api-key.…`. Wherever one of these holds a key of `[[clients]]` it ends here: a key that is meant for
//! us never reaches a provider, whether that has a key of ours or not. Every other value goes on, so that a client can
//! name itself in one field and bring the provider's key in another.
//!
//! With `admission.trust_client_header` the field `x-tidegate-client` says for whom the call is. It replaces no key:
//! with `[[clients]]` the gateway needs one of its own. If it names one of `[[clients]]`, that one's class holds, else
//! the class of whoever's key it is.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL};

use super::BadCall;
use crate::admission::settings::{Client, ClientKey};
use crate::ids::{ClientId, KeyId, is_plain_name};
use crate::units::{Priority, Secret};

const CLIENT: &str = "x-tidegate-client";
/// Fields that hold a key and nothing else, first the one that wins where two say something else.
static KEY_FIELDS: [HeaderName; 3] =
    [AUTHORIZATION, HeaderName::from_static("x-api-key"), HeaderName::from_static("api-key")];
/// Keys in one request: what comes from strangers must not cost much.
const KEYS_MAX: usize = 8;
/// How a browser, which can set no other field of a WebSocket handshake, sends a key among the subprotocols it offers.
const OFFERED_KEY: &[u8] = b"openai-insecure-api-key.";

/// Whose a call is, and how urgent it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who calls; [`ClientId::Everybody`] where nobody is told apart by a name.
    pub client: ClientId,
    /// The key that goes through to an upstream without a key of ours.
    pub key: KeyId,
    /// The class of its calls that name none.
    pub class: Priority,
    /// The most urgent class it may ask for.
    pub class_max: Priority,
}

impl Caller {
    /// Whoever bears a key that is not ours to judge: any class may be asked for.
    #[must_use]
    pub fn anyone(key: KeyId) -> Self {
        Self { client: ClientId::Everybody, key, class: Priority::default(), class_max: Priority::ALL[0] }
    }
}

/// Why nobody knows who calls. Nothing that was sent as a key is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// Clients are configured, and there is no key.
    #[error("no key: send one of clients.key as Authorization: Bearer, or as x-api-key or api-key")]
    NoKey,
    /// Clients are configured, and there is a key that is none of theirs.
    #[error("the key is none of clients.key: send one of those, in Authorization: Bearer, x-api-key or api-key")]
    WrongKey,
    /// Clients are configured, and nobody needs so many keys: each is compared with all of theirs.
    #[error("more than {KEYS_MAX} keys: send one of clients.key, and at the most one for the provider")]
    ManyKeys,
    /// `x-tidegate-client` cannot be meant.
    #[error("{0}")]
    Misnamed(BadCall),
}

/// Who may call. Without any, anyone may.
#[derive(Debug, Clone, Default)]
pub struct Clients {
    known: Vec<Known>,
    trusts_header: bool,
}

#[derive(Debug, Clone)]
struct Known {
    /// What its key hashes to; `None`: it is the placeholder that printed settings have for a secret, and fits nobody.
    digest: Option<blake3::Hash>,
    name: Arc<str>,
    class: Priority,
    class_max: Priority,
}

impl Known {
    fn new(client: &Client) -> Self {
        let Client { name, key, class, class_max, .. } = client;
        let digest = match key {
            ClientKey::Plain(key) if key.expose() == Secret::REDACTED => None,
            ClientKey::Plain(key) => Some(blake3::hash(key.expose().as_bytes())),
            ClientKey::Blake3(digest) => Some(blake3::Hash::from_bytes(*digest)),
        };
        Self { digest, name: name.as_str().into(), class: *class, class_max: *class_max }
    }

    fn caller(&self, key: KeyId) -> Caller {
        let Self { class, class_max, .. } = *self;
        Caller { client: ClientId::Named(Arc::clone(&self.name)), key, class, class_max }
    }
}

impl Clients {
    /// The clients of the settings, and whether `x-tidegate-client` is believed.
    #[must_use]
    pub fn new(clients: &[Client], trusts_header: bool) -> Self {
        Self { known: clients.iter().map(Known::new).collect(), trusts_header }
    }

    /// Who sends these fields. Keys that are meant for us are taken out of them.
    ///
    /// # Errors
    /// When clients are configured and this is none of them, or the name of a client cannot be meant.
    pub fn identify(&self, headers: &mut HeaderMap) -> Result<Caller, Stranger> {
        let caller = if self.known.is_empty() {
            Caller::anyone(first_key(headers))
        } else {
            let (mut borne, mut owner) = (0, None);
            for key in keys(headers).take(KEYS_MAX + 1) {
                let found = self.owner(key);
                (borne, owner) = (borne + 1, owner.or(found));
            }
            if borne > KEYS_MAX {
                return Err(Stranger::ManyKeys);
            }
            let Some(owner) = owner else {
                return Err(if borne > 0 { Stranger::WrongKey } else { Stranger::NoKey });
            };
            if borne == 1 {
                take_keys(headers, |key| !key.is_empty()); // all are compared once already
            } else {
                take_keys(headers, |key| self.owner(key).is_some());
            }
            owner.caller(first_key(headers))
        };
        if self.trusts_header { self.named(caller, headers) } else { Ok(caller) }
    }

    /// Whose key it is. All are compared, whichever fits, each in constant time: how long it takes tells nothing.
    fn owner(&self, key: &[u8]) -> Option<&Known> {
        let digest = Some(blake3::hash(key));
        self.known.iter().fold(None, |found, known| if known.digest == digest { Some(known) } else { found })
    }

    /// For whom a trusted gateway speaks, if it says so.
    fn named(&self, caller: Caller, headers: &HeaderMap) -> Result<Caller, Stranger> {
        let mut values = headers.get_all(CLIENT).iter();
        let Some(value) = values.next() else { return Ok(caller) };
        let found = String::from_utf8_lossy(value.as_bytes());
        // One that the gateway merely added to its client's own would be the client's word.
        if values.next().is_some() || !is_plain_name(&found) {
            let expected = "one name of 1 to 64 letters, digits, dots, dashes or underscores";
            return Err(Stranger::Misnamed(BadCall { field: CLIENT, found: found.into_owned(), expected }));
        }
        Ok(match self.known.iter().find(|known| *known.name == *found) {
            Some(known) => known.caller(caller.key),
            None => Caller { client: ClientId::Named(found.into()), ..caller },
        })
    }
}

/// Takes out the keys that are ours.
fn take_keys(headers: &mut HeaderMap, is_ours: impl Fn(&[u8]) -> bool) {
    for name in &KEY_FIELDS {
        keep(headers, name, |value| (!is_ours(bare(value.as_bytes()))).then(|| value.clone()));
    }
    keep(headers, &SEC_WEBSOCKET_PROTOCOL, |value| {
        let is_kept = |offer: &&[u8]| offer.strip_prefix(OFFERED_KEY).is_none_or(|key| !is_ours(key));
        let (all, kept) = (offers(value).count(), offers(value).filter(is_kept).collect::<Vec<_>>());
        if kept.len() == all {
            return Some(value.clone());
        }
        // Parts of what was a value make one again.
        HeaderValue::from_bytes(&kept.join(&b", "[..])).ok().filter(|value| !value.is_empty())
    });
}

/// Everything that may be a key, first what wins.
fn keys(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let alone = KEY_FIELDS.iter().flat_map(|name| headers.get_all(name)).map(|value| bare(value.as_bytes()));
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().flat_map(offers);
    let offered = offered.filter_map(|offer| offer.strip_prefix(OFFERED_KEY));
    alone.chain(offered).filter(|key| !key.is_empty())
}

fn first_key(headers: &HeaderMap) -> KeyId {
    keys(headers).next().map_or(KeyId::PASS_THROUGH, KeyId::of_bytes)
}

/// The key without the word before it.
fn bare(value: &[u8]) -> &[u8] {
    let is_bearer = |scheme: &[u8]| scheme.eq_ignore_ascii_case(b"bearer");
    match value.split_at_checked(b"bearer".len()) {
        Some((scheme, key)) if is_bearer(scheme) && key.first().is_none_or(u8::is_ascii_whitespace) => key.trim_ascii(),
        Some(_) | None => value.trim_ascii(),
    }
}

fn offers(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Keeps of the values of a field what `part` leaves of each.
fn keep(headers: &mut HeaderMap, name: &HeaderName, part: impl Fn(&HeaderValue) -> Option<HeaderValue>) {
    let kept: Vec<_> = headers.get_all(name).iter().filter_map(part).collect();
    headers.remove(name);
    for value in kept {
        headers.append(name, value);
    }
}

#[cfg(test)]
mod tests;
