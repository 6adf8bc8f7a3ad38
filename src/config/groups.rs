//! The tables of the file: what each room's settings are called there, in which range they make sense, and what must
//! hold between them. What a setting does and its default stand with the room's struct.

mod clients;
mod upstreams;

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderName;

use super::Settings;
use super::reader::Section;
use super::schema::{Blank, Fields, Group};
use super::values::{OrOff, choices};
use crate::admission::settings::Admission;
use crate::breaker::settings::Breaker;
use crate::cache::settings::{Cache, Mode};
use crate::proxy::settings::{Server, Tls};
use crate::tasks::settings::{Synchronous, Tasks, Timeouts};
use crate::telemetry::settings::{LogFormat, Telemetry};
use crate::units::{Priority, Secret};
use crate::upstream::settings::{BaseUrl, Recovery, Retry};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// A time-out: nothing works within none, and nobody waits for longer than a day.
const TIMEOUT: RangeInclusive<Duration> = RangeInclusive::new(MS, DAY);
/// A delay, which may be none.
const DELAY: RangeInclusive<Duration> = RangeInclusive::new(Duration::ZERO, HOUR);
/// A bound of bytes.
const SIZE: RangeInclusive<u64> = RangeInclusive::new(1 << 10, 1 << 40);
/// A bound of things held in memory.
const COUNT: RangeInclusive<usize> = RangeInclusive::new(1, 10_000_000);

impl Group for Settings {
    fn fields(&mut self, to: &mut impl Fields) {
        to.table("server", &mut self.server);
        to.tables("upstreams", &mut self.upstreams);
        to.table("admission", &mut self.admission);
        to.tables("clients", &mut self.clients);
        to.table("retry", &mut self.retry);
        to.table("breaker", &mut self.breaker);
        to.table("recovery", &mut self.recovery);
        to.table("cache", &mut self.cache);
        to.table("tasks", &mut self.tasks);
        to.table("telemetry", &mut self.telemetry);
    }

    fn check(&mut self, section: &Section<'_>) {
        section.require("upstreams", "add [[upstreams]] with its base_url, or pass --upstream URL");
        upstreams::check_beside_each_other(&mut self.upstreams, &section.items("upstreams"));
        clients::check_beside_each_other(&self.clients, &section.items("clients"));
    }
}

impl Group for Server {
    fn fields(&mut self, to: &mut impl Fields) {
        to.field("listen", &mut self.listen);
        to.field("admin_listen", &mut self.admin_listen);
        to.field("admin_token", &mut self.admin_token);
        to.optional_table("tls", &mut self.tls);
        to.field("state_dir", &mut self.state_dir);
        to.within("body_max", &mut self.body_max, SIZE);
        to.within("memory_max", &mut self.memory_max, SIZE);
        to.within("connections_max", &mut self.connections_max, COUNT);
        to.within("header_timeout", &mut self.header_timeout, TIMEOUT);
        to.within("body_timeout", &mut self.body_timeout, TIMEOUT);
        to.within("write_timeout", &mut self.write_timeout, TIMEOUT);
        to.within("idle_timeout", &mut self.idle_timeout, TIMEOUT);
        to.within("drain_timeout", &mut self.drain_timeout, DELAY);
        to.field("threads", &mut self.threads);
    }

    fn check(&mut self, section: &Section<'_>) {
        section.demand(
            self.body_max <= self.memory_max,
            ["body_max", "memory_max"],
            "must not be more than memory_max, or such a body could never be held",
            "lower it or raise memory_max",
        );
        let apart = self.listen != self.admin_listen || self.listen.port() == 0;
        let fix = "give each a port of its own";
        section.demand(apart, ["admin_listen", "listen"], "must not be the address of listen", fix);
        section.demand(
            self.admin_token.is_some() || self.admin_listen.ip().is_loopback(),
            ["admin_listen", "admin_token"],
            "would let anybody operate the proxy who can reach this address",
            "set admin_token too, or listen on 127.0.0.1",
        );
    }
}

impl Group for Tls {
    fn fields(&mut self, to: &mut impl Fields) {
        to.field("cert", &mut self.cert);
        to.field("key", &mut self.key);
    }

    fn check(&mut self, section: &Section<'_>) {
        section.require("cert", "add cert = \"chain.pem\"");
        section.require("key", "add key = \"key.pem\"");
    }
}

impl Blank for Tls {
    fn blank() -> Self {
        Self { cert: "cert.pem".into(), key: "key.pem".into() }
    }
}

impl Group for Admission {
    fn fields(&mut self, to: &mut impl Fields) {
        to.within("queue_max", &mut self.queue_max, COUNT);
        to.within("queue_bytes_max", &mut self.queue_bytes_max, SIZE);
        to.within("wait_max", &mut self.wait_max, TIMEOUT);
        let mut keepalive = OrOff(self.keepalive_after);
        to.field("keepalive_after", &mut keepalive);
        self.keepalive_after = keepalive.0;
        to.table("floors", &mut Floors(&mut self.floors));
        to.field("trust_client_header", &mut self.trust_client_header);
    }

    fn check(&mut self, section: &Section<'_>) {
        let fits = self.keepalive_after.is_none_or(|after| (SECOND..=HOUR).contains(&after));
        let fix = "choose a value in that range, or \"off\"";
        section.demand(fits, ["keepalive_after"], "must be from \"1s\" to \"1h\"", fix);
        let sum: f64 = self.floors.iter().sum();
        let fix = "lower one, so that strict order decides the rest";
        section.demand(sum < 1.0, ["floors"], "must add up to less than 1", fix);
    }
}

struct Floors<'a>(&'a mut [f64; 3]);

impl Group for Floors<'_> {
    fn fields(&mut self, to: &mut impl Fields) {
        for class in Priority::ALL {
            to.within(class.as_str(), &mut self.0[class as usize], 0.0..=1.0);
        }
    }
}

impl Group for Retry {
    fn fields(&mut self, to: &mut impl Fields) {
        to.field("attempts_max", &mut self.attempts_max);
        to.within("base", &mut self.base, TIMEOUT);
        to.within("cap", &mut self.cap, TIMEOUT);
        to.within("budget", &mut self.budget, 0.0..=10.0);
        to.field("on_disconnect", &mut self.on_disconnect);
        to.field("agents", &mut self.agents);
    }

    fn check(&mut self, section: &Section<'_>) {
        section.demand(self.base <= self.cap, ["base", "cap"], "must not be more than cap", "lower it or raise cap");
    }
}

impl Group for Breaker {
    fn fields(&mut self, to: &mut impl Fields) {
        to.field("failures", &mut self.failures);
        to.within("open", &mut self.open, TIMEOUT);
        to.within("open_max", &mut self.open_max, TIMEOUT);
    }

    fn check(&mut self, section: &Section<'_>) {
        let fix = "lower it or raise open_max";
        section.demand(self.open <= self.open_max, ["open", "open_max"], "must not be more than open_max", fix);
    }
}

impl Group for Recovery {
    fn fields(&mut self, to: &mut impl Fields) {
        to.field("mid_stream", &mut self.mid_stream);
        to.field("holdback", &mut self.holdback);
        to.within("cooldown", &mut self.cooldown, DELAY);
        to.within("cooldown_max", &mut self.cooldown_max, DELAY);
    }

    fn check(&mut self, section: &Section<'_>) {
        let holds = self.cooldown <= self.cooldown_max;
        let fix = "lower it or raise cooldown_max";
        section.demand(holds, ["cooldown", "cooldown_max"], "must not be more than cooldown_max", fix);
    }
}

choices! {
    Mode { Deterministic = "deterministic", All = "all", Off = "off" }
    Synchronous { Full = "full", Normal = "normal" }
    LogFormat { Auto = "auto", Text = "text", Json = "json" }
    Priority { High = "high", Normal = "normal", Low = "low" }
}

impl Group for Cache {
    fn fields(&mut self, to: &mut impl Fields) {
        to.field("mode", &mut self.mode);
        to.within("memory", &mut self.memory, SIZE);
        to.within("ttl", &mut self.ttl, RangeInclusive::new(SECOND, DAY * 365));
        to.field("routes", &mut self.routes);
        to.field("vary_headers", &mut self.vary_headers);
        to.field("shared", &mut self.shared);
        to.field("tool_calls", &mut self.tool_calls);
        to.field("agents", &mut self.agents);
        to.field("finish", &mut self.finish);
    }

    fn check(&mut self, section: &Section<'_>) {
        demand_routes(section, &self.routes);
        let names = self.vary_headers.iter().all(|name| HeaderName::try_from(name).is_ok());
        section.demand(names, ["vary_headers"], "expected names of headers", "write them like [\"openai-beta\"]");
        self.vary_headers.iter_mut().for_each(|name| name.make_ascii_lowercase());
    }
}

impl Group for Tasks {
    fn fields(&mut self, to: &mut impl Fields) {
        to.field("enabled", &mut self.enabled);
        to.field("routes", &mut self.routes);
        to.within("queue_max", &mut self.queue_max, COUNT);
        to.within("body_max", &mut self.body_max, SIZE);
        to.within("keep", &mut self.keep, RangeInclusive::new(SECOND, DAY * 365));
        to.within("retries", &mut self.retries, 0..=1_000);
        to.table("timeouts", &mut self.timeouts);
        to.field("slots", &mut self.slots);
        to.within("lease", &mut self.lease, RangeInclusive::new(SECOND, HOUR));
        to.field("synchronous", &mut self.synchronous);
    }

    fn check(&mut self, section: &Section<'_>) {
        demand_routes(section, &self.routes);
    }
}

impl Group for Timeouts {
    fn fields(&mut self, to: &mut impl Fields) {
        to.within("short", &mut self.short, RangeInclusive::new(MS, DAY * 30));
        to.within("long", &mut self.long, RangeInclusive::new(MS, DAY * 30));
    }
}

fn demand_routes(section: &Section<'_>, routes: &[String]) {
    let paths = routes.iter().all(|route| route.starts_with('/') && route.bytes().all(|byte| byte.is_ascii_graphic()));
    section.demand(paths, ["routes"], "expected paths", "write them like [\"/v1/tasks\"]");
}

impl Group for Telemetry {
    fn fields(&mut self, to: &mut impl Fields) {
        to.field("log", &mut self.log);
        to.field("format", &mut self.format);
        let mut otlp = OrOff(self.otlp.take());
        to.field("otlp", &mut otlp);
        self.otlp = otlp.0;
    }

    fn check(&mut self, section: &Section<'_>) {
        let filter = tracing_subscriber::EnvFilter::try_new(&self.log);
        let fix = "write it like \"info\" or \"info,tidegate::limits=debug\"";
        section.demand(filter.is_ok(), ["log"], "expected a log filter", fix);
        let endpoint = self.otlp.as_deref().map_or(Ok(()), |url| url.parse::<BaseUrl>().map(drop));
        if let Err(error) = endpoint {
            section.demand(false, ["otlp"], error.to_string(), "write it like \"http://127.0.0.1:4318\", or \"off\"");
        }
    }
}

/// Whether two secrets are the same key, which the placeholder of a printed file never is.
fn same_key(one: &Secret, other: &Secret) -> bool {
    one == other && one.expose() != Secret::REDACTED
}
