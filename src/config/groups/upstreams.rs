//! `[[upstreams]]` and what belongs to one.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{DAY, DELAY, SECOND, TIMEOUT, same_key};
use crate::config::reader::Section;
use crate::config::schema::{Blank, Fields, Group};
use crate::config::values::{Text, choices};
use crate::ids::is_plain_name;
use crate::limits::settings::{Limits, Scope};
use crate::units::Priority;
use crate::upstream::settings::{
    BaseUrl, Continuation, Exempt, Holdback, HttpVersion, Kind, MidStream, ModelGlob, Scheme, Upstream,
};

choices! {
    Kind { Model = "model", Agent = "agent" }
    HttpVersion { Auto = "auto", Http1 = "1.1", Http2 = "2" }
    Continuation { Off = "off", Vllm = "vllm", Prefix = "prefix", PrefixEcho = "prefix_echo" }
    Scope { Key = "key", Upstream = "upstream" }
    MidStream { Error = "error", Continue = "continue", Restart = "restart" }
}

impl Group for Upstream {
    fn fields(&mut self, to: &mut impl Fields) {
        to.field("name", &mut self.name);
        to.field("kind", &mut self.kind);
        to.field("base_url", &mut self.base_url);
        let mut only_key = None;
        to.field("api_key", &mut only_key);
        to.field("api_keys", &mut self.api_keys);
        if let Some(key) = only_key {
            self.api_keys = vec![key];
        }
        to.field("models", &mut self.models);
        to.within("connect_timeout", &mut self.connect_timeout, TIMEOUT);
        to.within("first_byte_timeout", &mut self.first_byte_timeout, TIMEOUT);
        to.within("idle_timeout", &mut self.idle_timeout, TIMEOUT);
        to.field("http", &mut self.http);
        to.field("refusal_statuses", &mut self.refusal_statuses);
        to.field("retry_statuses", &mut self.retry_statuses);
        to.field("exempt", &mut self.exempt);
        to.field("continuation", &mut self.continuation);
        to.table("limits", &mut self.limits);
    }

    fn check(&mut self, section: &Section<'_>) {
        section.require("base_url", "add base_url = \"https://host/v1\"");
        section.demand(
            !section.has("name") || is_plain_name(&self.name),
            ["name"],
            "must be 1 to 64 letters, digits, dots, dashes or underscores",
            "choose another name; it stands in headers and metrics",
        );
        let both = section.has("api_key") && section.has("api_keys");
        section.demand(!both, ["api_key", "api_keys"], "cannot stand beside api_keys", "move it into api_keys");
        let mut keys = self.api_keys.iter().enumerate();
        let twice = keys.any(|(index, key)| self.api_keys.iter().take(index).any(|earlier| same_key(earlier, key)));
        let fix = "remove one: each key is given an allowance of its own";
        section.demand(!twice, ["api_keys"], "has a key twice", fix);
        let fix = "remove the line for all models";
        section.demand(!self.models.is_empty(), ["models"], "is empty, so no call would go there", fix);
        for (name, statuses) in [("refusal_statuses", &self.refusal_statuses), ("retry_statuses", &self.retry_statuses)]
        {
            let errors = statuses.iter().all(|status| (400..=599).contains(status));
            section.demand(errors, [name], "must be statuses from 400 to 599", "remove the others");
        }
    }
}

impl Blank for Upstream {
    fn blank() -> Self {
        let base_url = BaseUrl { scheme: Scheme::Http, host: "localhost".to_owned(), port: 80, path: "/v1".to_owned() };
        Self::new(String::new(), base_url)
    }
}

/// Names what needs a name: one upstream alone is the `default`, several must be told apart.
pub(super) fn check_beside_each_other(upstreams: &mut [Upstream], sections: &[Section<'_>]) {
    if let ([upstream], [section]) = (&mut *upstreams, sections)
        && !section.has("name")
    {
        upstream.name = "default".to_owned();
        return;
    }
    for (index, (upstream, section)) in upstreams.iter().zip(sections).enumerate() {
        section.require("name", "add one: with several upstreams each needs its own");
        let taken = !upstream.name.is_empty() && upstreams.iter().take(index).any(|other| other.name == upstream.name);
        section.demand(!taken, ["name"], format!("another upstream is called {}", upstream.name), "rename one");
    }
}

impl Group for Limits {
    fn fields(&mut self, to: &mut impl Fields) {
        to.field("requests_per_minute", &mut self.requests_per_minute);
        to.within("window", &mut self.window, RangeInclusive::new(SECOND, DAY));
        to.within("window_margin", &mut self.window_margin, DELAY);
        to.field("burst", &mut self.burst);
        to.field("tokens_per_minute", &mut self.tokens_per_minute);
        to.field("requests_per_day", &mut self.requests_per_day);
        to.field("concurrency", &mut self.concurrency);
        to.table("concurrency_reserved", &mut Reserved(&mut self.concurrency_reserved));
        to.within("slot_release_delay", &mut self.slot_release_delay, DELAY);
        to.within("slot_release_delay_aborted", &mut self.slot_release_delay_aborted, DELAY);
        to.within("orphan_hold", &mut self.orphan_hold, DELAY);
        to.field("scope", &mut self.scope);
    }

    fn check(&mut self, section: &Section<'_>) {
        let requests = self.requests_per_minute.unwrap_or(NonZeroU32::MAX);
        if !section.has("burst") {
            self.burst = self.burst.min(requests);
        }
        section.demand(
            self.burst <= requests,
            ["burst", "requests_per_minute"],
            format!("must not be more than requests_per_minute ({requests})"),
            "lower it or remove the line",
        );
        let fix = "lower it; half a second covers most networks";
        let shorter = self.window_margin < self.window;
        section.demand(shorter, ["window_margin", "window"], "must be shorter than window", fix);
        let reserved: u64 = self.concurrency_reserved.iter().map(|slots| u64::from(*slots)).sum();
        let slots = self.concurrency.map_or(0, |slots| u64::from(slots.get()));
        section.demand(
            reserved == 0 || reserved < slots,
            ["concurrency_reserved", "concurrency"],
            format!("reserves {reserved} of {slots} slots; at least one must be free for everybody"),
            "lower it or raise concurrency",
        );
    }
}

struct Reserved<'a>(&'a mut [u32; 3]);

impl Group for Reserved<'_> {
    fn fields(&mut self, to: &mut impl Fields) {
        for class in Priority::ALL {
            to.field(class.as_str(), &mut self.0[class as usize]);
        }
    }
}

impl Text for BaseUrl {
    const EXPECTED: (&str, &str) = ("a URL", "\"https://host/v1\"");

    fn parse(text: &str) -> Result<Self, Option<String>> {
        text.parse().map_err(|error: <Self as std::str::FromStr>::Err| Some(error.to_string()))
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

impl Text for ModelGlob {
    const EXPECTED: (&str, &str) = ("a model name, in which * stands for anything", "\"meta/*\"");

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.is_empty() { Err(None) } else { Ok(Self::new(text)) }
    }

    fn print(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Text for Exempt {
    const EXPECTED: (&str, &str) = ("a method and a path", "\"GET /v1/models\"");

    fn parse(text: &str) -> Result<Self, Option<String>> {
        text.parse().map_err(|()| None)
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

impl Text for Holdback {
    const EXPECTED: (&str, &str) =
        ("first_event, a number of tokens or a duration", "\"first_event\", \"16 tokens\" or \"500ms\"");

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text == "first_event" {
            return Ok(Self::FirstEvent);
        }
        if let Some(tokens) = text.strip_suffix("tokens") {
            return tokens.trim().parse().map(Self::Tokens).map_err(|_| None);
        }
        let time = Duration::parse(text)?;
        if TIMEOUT.contains(&time) { Ok(Self::Time(time)) } else { Err(None) }
    }

    fn print(&self) -> String {
        match self {
            Self::FirstEvent => "first_event".to_owned(),
            Self::Tokens(tokens) => format!("{tokens} tokens"),
            Self::Time(time) => time.print(),
        }
    }
}
