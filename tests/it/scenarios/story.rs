//! A story as `tests/scenarios/` tells it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Deserializer};
use tidegate::sim::swarm::{Streaming, WorkerSpec};
use tidegate::sim::{Continuation, Fault, Latency, Limits, Outage, Settings, Violation};
use tidegate::time::Duration;
use tidegate::units::{Priority, parse_duration};

/// Who asks whom for what, what happens on the way, and what has to come of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Story {
    /// What is measured begins so late.
    #[serde(deserialize_with = "duration")]
    pub(super) warm_up: Duration,
    /// How long clients ask.
    #[serde(deserialize_with = "duration")]
    pub(super) lasts: Duration,
    /// Decides the luck of all who take part.
    pub(super) seed: u64,
    /// The proxy is the real process, and is looked at while it lasts; else it runs in that of the tests.
    #[serde(default)]
    pub(super) process: bool,
    pub(super) provider: Provider,
    /// Our settings; `upstreams.base_url` is the provider's.
    #[serde(default)]
    pub(super) tidegate: toml::Table,
    pub(super) workers: Vec<Workers>,
    /// What changes while it lasts.
    #[serde(default)]
    pub(super) turns: Vec<Turn>,
    pub(super) expect: Expect,
}

/// The strict simulated provider; on a violation it resets the connection and refuses everybody for ten seconds, unless
/// the story says otherwise.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Provider {
    pub(super) allows: Allows,
    /// Exchanges take so long on average,
    #[serde(deserialize_with = "duration")]
    mean: Duration,
    /// and up to this share of it more or less.
    spread: f64,
    #[serde(deserialize_with = "duration")]
    pub(super) arrival_jitter: Duration,
    #[serde(default, deserialize_with = "duration")]
    pub(super) disconnect_lag: Duration,
    #[serde(default)]
    faults: BTreeMap<String, f64>,
    /// What a request over a limit gets, as `tidegate sim --on-violation` names it.
    on_violation: Option<String>,
    /// Which requests to continue a partial answer it understands, as `tidegate sim --continuation` names them.
    continuation: Option<String>,
    /// How long everybody is refused after it.
    #[serde(default, deserialize_with = "optional_duration")]
    penalty: Option<Duration>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Allows {
    pub(super) requests: u32,
    #[serde(deserialize_with = "duration")]
    pub(super) window: Duration,
    pub(super) concurrency: u32,
    pub(super) tokens: Option<u32>,
}

/// Like workers; each makes one call after the other.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Workers {
    pub(super) name: String,
    pub(super) count: usize,
    /// What they bear in `Authorization`.
    key: Option<String>,
    pub(super) priority: String,
    /// The share of their streams that are to tell their usage.
    #[serde(default)]
    include_usage: f64,
    /// The share of their calls that are to be reasoned about.
    #[serde(default)]
    reasoning: f64,
    /// The share of their calls that are for an embedding, which does not stream.
    #[serde(default)]
    embeddings: f64,
    /// They do not stream,
    #[serde(default)]
    plain: bool,
    /// or always do; else every other call does.
    #[serde(default)]
    streaming: bool,
    /// The shortest and the longest pause between two calls.
    think: Option<(String, String)>,
    /// They hang up after so long, wherever their call is then.
    #[serde(default, deserialize_with = "optional_duration")]
    pub(super) patience: Option<Duration>,
}

/// Something changes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Turn {
    #[serde(deserialize_with = "duration")]
    pub(super) at: Duration,
    /// What the provider allows from now on.
    pub(super) allows: Option<Allows>,
    /// What goes wrong from now on.
    pub(super) faults: Option<BTreeMap<String, f64>>,
    /// The provider is down from now on.
    pub(super) down: Option<Down>,
    /// Our `upstreams.limits` from now on.
    pub(super) limits: Option<toml::Table>,
}

/// How a provider is down, as `POST /sim/down` names it, and for how long.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Down {
    how: String,
    #[serde(rename = "for", deserialize_with = "duration")]
    pub(super) lasts: Duration,
}

impl Down {
    pub(super) fn outage(&self) -> Outage {
        self.how.parse().expect("a way to be down")
    }
}

/// What has to come of it, beyond what every story promises.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    /// So many calls at least are answered whole and right.
    pub(super) ok_min: u64,
    /// The most exchanges the provider sees at once.
    pub(super) in_flight_max: Option<u32>,
    /// The least share of the provider's rate that is used under backlog.
    pub(super) rate_used_min: Option<f64>,
    /// The longest wait of who chats, with a slot free, at the 95th percentile. (The 99th of some dozens of calls would be
    /// the longest of them; over thousands it is held to the same figure by the tests in paused time.)
    pub(super) chat_wait_ms_p95_max: Option<f64>,
    /// The longest of all.
    pub(super) chat_wait_ms_max: Option<f64>,
    /// So many kinds of faults at least have happened.
    #[serde(default)]
    pub(super) kinds_of_faults_min: usize,
    /// So many exchanges at least were cut by clients that hung up.
    #[serde(default)]
    pub(super) hangups_min: u64,
    /// Groups of workers and their weights: each gets its share of all that these groups get, to a twentieth.
    #[serde(default)]
    pub(super) weights: BTreeMap<String, f64>,
    /// The longest that a group has to go without a turn, in seconds.
    #[serde(default)]
    pub(super) silence_seconds_max: BTreeMap<String, f64>,
    /// The least share of the provider's tokens that is used after the warm-up.
    pub(super) tokens_used_min: Option<f64>,
    /// Requests the provider may have refused: none, unless it is stricter than we are told.
    #[serde(default)]
    pub(super) refused_max: u64,
    /// The least share of the streams that broke in the middle which go on and end whole, of those that can be continued.
    /// Without it they are told that they broke, and none goes on.
    pub(super) continued_min: Option<f64>,
    /// What the process needs stays as it is.
    #[serde(default)]
    pub(super) flat: bool,
    /// What is expected of an outage.
    pub(super) outage: Option<ExpectOfOutage>,
}

/// What has to come of an outage.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectOfOutage {
    /// The most requests and connections that come while it lasts.
    pub(super) came_max: u64,
    /// The most requests that come in any pacing interval once it is over.
    pub(super) crowd_max: Option<usize>,
    /// The largest share of the first window's requests after it that comes in a twentieth of it.
    pub(super) gathered_max: Option<f64>,
    /// Nobody comes back as a herd.
    #[serde(default)]
    pub(super) herd: bool,
}

impl Story {
    pub(super) fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios").join(name).with_extension("toml");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Our settings as they are read.
    pub(super) fn settings(&self) -> tidegate::config::Settings {
        let file = self.config("http://provider", Path::new("."), None);
        tidegate::config::Settings::parse(&file, &|_| None).expect("a configuration")
    }

    /// Whether the provider falls silent for a while, for everybody.
    pub(super) fn hangs(&self) -> bool {
        self.turns.iter().filter_map(|turn| turn.down.as_ref()).any(|down| down.outage() == Outage::Hang)
    }

    pub(super) fn provider_settings(&self) -> Settings {
        let Provider {
            allows,
            mean,
            spread,
            arrival_jitter,
            disconnect_lag,
            faults,
            on_violation,
            continuation,
            penalty,
        } = &self.provider;
        let continuation = continuation.as_ref().map_or(Continuation::Any, |word| word.parse().expect("a style"));
        Settings {
            limits: allows.limits(),
            latency: Latency { mean: *mean, spread: *spread },
            arrival_jitter: *arrival_jitter,
            disconnect_lag: *disconnect_lag,
            on_violation: on_violation.as_ref().map_or(Violation::Reset, |word| word.parse().expect("an answer")),
            penalty: penalty.unwrap_or(Duration::from_secs(10)),
            faults: read_faults(faults),
            continuation,
            seed: self.seed,
            ..Settings::default()
        }
    }

    /// Our settings as a file, for a proxy that is at home in this folder, with the limits of the last turn that changed
    /// them.
    pub(super) fn config(&self, base_url: &str, home: &Path, limits: Option<&toml::Table>) -> String {
        let mut file = self.tidegate.clone();
        let mut upstream = file.remove("upstreams").and_then(|value| value.as_table().cloned()).unwrap_or_default();
        upstream.insert("base_url".to_owned(), base_url.into());
        if let Some(limits) = limits {
            upstream.insert("limits".to_owned(), limits.clone().into());
        }
        file.insert("upstreams".to_owned(), vec![upstream].into());
        let state = home.join("state");
        let state = state.to_str().expect("a path in UTF-8");
        let server = [("listen", "127.0.0.1:0"), ("admin_listen", "127.0.0.1:0"), ("state_dir", state)];
        file.insert("server".to_owned(), table(server).into());
        file.insert(
            "telemetry".to_owned(),
            table([("format", "json"), ("log", "warn,tidegate::commands=info")]).into(),
        );
        toml::to_string(&file).expect("a table")
    }
}

impl Provider {
    /// How long an exchange takes where all take as long.
    pub(super) fn latency(&self) -> Duration {
        assert!(self.spread == 0.0, "a story in which that is known");
        self.mean
    }

    /// The longest an exchange takes.
    pub(super) fn longest(&self) -> Duration {
        self.mean.mul_f64(1.0 + self.spread) + self.arrival_jitter
    }
}

impl Allows {
    pub(super) fn limits(self) -> Limits {
        let Self { requests, window, concurrency, tokens } = self;
        Limits { requests: Some(requests), concurrency: Some(concurrency), tokens, window }
    }
}

impl Workers {
    pub(super) fn spec(&self) -> WorkerSpec {
        let read = |text: &String| parse_duration(text).expect("a duration");
        WorkerSpec {
            api_key: self.key.clone(),
            priority: Some(Priority::parse(&self.priority).expect("a class")),
            stream: match (self.plain, self.streaming) {
                (true, _) => Streaming::Never,
                (false, true) => Streaming::Always,
                (false, false) => Streaming::Half,
            },
            include_usage: self.include_usage,
            reasoning: self.reasoning,
            embeddings: self.embeddings,
            think: self.think.as_ref().map(|(least, most)| (read(least), read(most))),
            ..WorkerSpec::new(&self.name, self.count)
        }
    }
}

fn table<const N: usize>(entries: [(&str, &str); N]) -> toml::Table {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

pub(super) fn read_faults(faults: &BTreeMap<String, f64>) -> Vec<Fault> {
    let fault = |(kind, rate): (&String, &f64)| Fault { kind: kind.parse().expect("a fault"), rate: *rate };
    faults.iter().map(fault).collect()
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}
