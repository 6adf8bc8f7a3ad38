//! A provider as configured: where it is, what it is told, whom it serves.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderValue, Method};
use parking_lot::Mutex;

use super::settings::{Kind, ModelGlob, Scheme, Upstream};
use crate::admission::Way;
use crate::ids::KeyId;
use crate::limits::Quota;
use crate::limits::settings::Scope;
use crate::metrics::{KeyMetrics, Metrics, UpstreamMetrics};
use crate::time::{self, Duration, Instant};

/// How long a looked-up address is used before it is looked up again.
const ADDRESSES_FRESH: Duration = Duration::from_secs(30);

/// One upstream, ready for use.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) name: Arc<str>,
    pub(super) settings: Upstream,
    pub(super) metrics: UpstreamMetrics,
    serves: Serves,
    /// `Host`: with the port unless it is the scheme's own.
    pub(super) host: HeaderValue,
    /// The value of `Authorization` for each key; none: the client's goes through.
    keys: Vec<(KeyId, HeaderValue)>,
    addresses: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

/// Which models an upstream serves. `*` is for those that no upstream names: a call to an agent must not go to a
/// provider only because the agents' gateway is busy.
#[derive(Debug, Clone)]
struct Serves {
    named: Vec<ModelGlob>,
    /// What the others name, if this one serves all else.
    all_but: Option<Vec<ModelGlob>>,
}

impl Serves {
    fn new(upstream: &Upstream, all: &[Upstream]) -> Self {
        let any = ModelGlob::any();
        let named = |models: &[ModelGlob]| models.iter().filter(|glob| **glob != any).cloned().collect::<Vec<_>>();
        let all_but = upstream.models.contains(&any).then(|| all.iter().flat_map(|each| named(&each.models)).collect());
        Self { named: named(&upstream.models), all_but }
    }

    fn model(&self, model: Option<&str>) -> bool {
        let fits = |globs: &[ModelGlob]| model.is_some_and(|model| globs.iter().any(|glob| glob.matches(model)));
        fits(&self.named) || self.all_but.as_ref().is_some_and(|others| !fits(others))
    }
}

impl Target {
    /// # Errors
    /// When the host or a key cannot stand in a header field.
    pub(super) fn new(
        settings: Upstream,
        all: &[Upstream],
        metrics: &Metrics,
    ) -> Result<Self, http::header::InvalidHeaderValue> {
        let url = &settings.base_url;
        let own_port = match url.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        let bare = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
        let host = if url.port == own_port { bare } else { format!("{bare}:{}", url.port) };
        let bearer = |key: &crate::units::Secret| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose()))?;
            value.set_sensitive(true);
            Ok((KeyId::of(key.expose()), value))
        };
        Ok(Self {
            serves: Serves::new(&settings, all),
            metrics: metrics.upstream(&settings.name, series_of(&settings)),
            name: settings.name.as_str().into(),
            host: HeaderValue::try_from(host)?,
            keys: settings.api_keys.iter().map(bearer).collect::<Result<_, _>>()?,
            settings,
            addresses: Mutex::new(None),
        })
    }

    /// This upstream as admission sees it.
    pub(super) fn way(&self) -> Way {
        let limits = &self.settings.limits;
        let serves = self.serves.clone();
        Way {
            upstream: Arc::clone(&self.name),
            serves: Arc::new(move |model| serves.model(model)),
            keys: self.key_ids(),
            quota: Quota::from(limits),
            orphan_hold: limits.orphan_hold,
            scope: limits.scope,
            passes_keys: self.keys.is_empty(),
        }
    }

    /// The ids of its keys, in the order of the settings.
    fn key_ids(&self) -> Vec<KeyId> {
        if self.keys.is_empty() { vec![KeyId::PASS_THROUGH] } else { self.keys.iter().map(|(id, _)| *id).collect() }
    }

    /// The measures of one of its keys.
    pub(super) fn key_metrics(&self, key: KeyId) -> Option<&KeyMetrics> {
        self.metrics.key(self.key_index(key)?)
    }

    /// Which of its keys that is, in the order of the settings.
    pub(super) fn key_index(&self, key: KeyId) -> Option<usize> {
        self.key_ids().iter().position(|&id| id == key)
    }

    /// Whether it serves a model; see [`Target::way`].
    pub(super) fn serves(&self, model: Option<&str>) -> bool {
        self.serves.model(model)
    }

    /// Whether a route is not counted by the provider.
    pub(super) fn is_exempt(&self, method: &Method, path: &str) -> bool {
        self.settings.exempt.iter().any(|exempt| exempt.method == *method && exempt.path == path)
    }

    /// Whether it has no key of ours: each call goes with its client's own.
    pub(super) fn passes_keys(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether it can be asked with a key: one of its own, which after a reload it may not be any more, or that of the
    /// call, `theirs`, where it has none.
    pub(super) fn has_key(&self, key: KeyId, theirs: KeyId) -> bool {
        if self.keys.is_empty() {
            key == KeyId::PASS_THROUGH || key == theirs
        } else {
            self.authorization(key).is_some()
        }
    }

    /// What to send as `Authorization` for a key of ours.
    pub(super) fn authorization(&self, key: KeyId) -> Option<&HeaderValue> {
        self.keys.iter().find(|(id, _)| *id == key).map(|(_, value)| value)
    }

    pub(super) fn is_tls(&self) -> bool {
        self.settings.base_url.scheme == Scheme::Https
    }

    /// Whether a call may be sent again once its body has left: an agent has run tools by then.
    pub(super) fn may_repeat(&self, agents_too: bool) -> bool {
        self.settings.kind == Kind::Model || agents_too
    }

    /// Its addresses, looked up at most every 30 s; when the look-up fails, those of the last time.
    ///
    /// # Errors
    /// When it fails and there was no last time.
    pub(super) async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let url = &self.settings.base_url;
        if let Ok(ip) = url.host.parse() {
            return Ok(vec![SocketAddr::new(ip, url.port)]);
        }
        let known = self.addresses.lock().clone();
        if let Some((at, addresses)) = &known
            && at.elapsed() < ADDRESSES_FRESH
        {
            return Ok(addresses.clone());
        }
        match tokio::net::lookup_host((url.host.as_str(), url.port)).await {
            Ok(found) => {
                let found: Vec<SocketAddr> = found.collect();
                *self.addresses.lock() = Some((time::now(), found.clone()));
                Ok(found)
            }
            Err(error) => known.map(|(_, addresses)| addresses).ok_or(error),
        }
    }
}

/// How many series an upstream has in each measure of a key: keys of ours with limits of their own have one each, all
/// others share one.
pub(super) fn series_of(settings: &Upstream) -> usize {
    match settings.limits.scope {
        Scope::Key => settings.api_keys.len().max(1),
        Scope::Upstream => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_is_for_models_that_no_upstream_names() {
        let upstream = |name: &str, models: &[&str]| {
            let mut upstream = Upstream::new(name.to_owned(), "http://127.0.0.1:1".parse().unwrap());
            upstream.models = models.iter().copied().map(ModelGlob::new).collect();
            upstream
        };
        let all = [upstream("agents", &["openclaw*"]), upstream("rest", &["*"]), upstream("both", &["openclaw*", "*"])];
        let serving = |model| all.iter().map(|upstream| Serves::new(upstream, &all).model(model)).collect::<Vec<_>>();
        assert_eq!(serving(Some("openclaw-1")), [true, false, true]);
        assert_eq!(serving(Some("gpt")), [false, true, true]);
        assert_eq!(serving(None), [false, true, true]);
    }
}
