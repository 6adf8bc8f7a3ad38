//! The proxy in this process, on free ports.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use tidegate::app::{App, Past, Ports, Source};
use tidegate::config::Settings;
use tidegate::time::Tasks;
use tidegate::upstream::settings::Upstream as Provider;
use tokio_util::task::AbortOnDropHandle;

use super::client::Client;
use super::{Upstream, ms};

/// A proxy that runs until it is dropped.
pub(crate) struct Proxy {
    pub(crate) clients: SocketAddr,
    pub(crate) admin: SocketAddr,
    _running: AbortOnDropHandle<()>,
}

/// A proxy that is still to be set up.
pub(crate) struct Builder(Settings);

/// A proxy before `upstream`, with short times and no limits.
pub(crate) fn proxy(upstream: &Upstream) -> Builder {
    before(&upstream.base_url())
}

/// A proxy before the provider at `base_url`.
pub(crate) fn before(base_url: &str) -> Builder {
    let mut settings = Settings::default();
    settings.server.listen.set_port(0);
    settings.server.admin_listen.set_port(0);
    settings.retry.base = ms(10);
    settings.retry.cap = ms(50);
    Builder(settings).upstream("default", base_url, |_| {})
}

impl Builder {
    pub(crate) fn set(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        set(&mut self.0);
        self
    }

    /// One more upstream.
    pub(crate) fn upstream(mut self, name: &str, base_url: &str, set: impl FnOnce(&mut Provider)) -> Self {
        let mut provider = Provider::new(name.to_owned(), base_url.parse().expect("a URL"));
        provider.limits.slot_release_delay = Duration::ZERO;
        provider.limits.slot_release_delay_aborted = ms(20);
        provider.limits.window_margin = ms(10);
        set(&mut provider);
        self.0.upstreams.push(provider);
        self
    }

    /// Changes the first upstream.
    pub(crate) fn provider(self, set: impl FnOnce(&mut Provider)) -> Self {
        self.set(|settings| set(&mut settings.upstreams[0]))
    }

    /// So many exchanges at a time.
    pub(crate) fn concurrency(self, slots: u32) -> Self {
        self.provider(|provider| provider.limits.concurrency = NonZeroU32::new(slots))
    }

    /// So many requests in a window so long.
    pub(crate) fn requests(self, requests: u32, window: Duration) -> Self {
        self.provider(|provider| {
            let limits = &mut provider.limits;
            limits.requests_per_minute = NonZeroU32::new(requests);
            limits.burst = limits.burst.min(NonZeroU32::new(requests).expect("at least one"));
            limits.window = window;
        })
    }

    pub(crate) async fn start(self) -> Proxy {
        let ports = Ports::bind(&self.0).expect("free ports");
        let (clients, admin) = (ports.clients().expect("an address"), ports.admin().expect("an address"));
        let app = App::new(self.0, Source::default(), None, Past::none()).expect("usable settings");
        let running = Tasks::default().spawn(async move { app.run(ports).await.expect("the proxy runs") });
        Proxy { clients, admin, _running: AbortOnDropHandle::new(running) }
    }
}

impl Proxy {
    pub(crate) async fn client(&self) -> Client {
        Client::to(self.clients).await
    }

    /// Waits until a sample has a value at which it stays.
    pub(crate) async fn until_metric(&self, sample: &str, value: f64) {
        self.until(sample, value, |found| (found - value).abs() < 1e-9).await;
    }

    /// Waits until a sample that rises has a value or more.
    pub(crate) async fn until_metric_reaches(&self, sample: &str, value: f64) {
        self.until(sample, value, |found| found >= value).await;
    }

    async fn until(&self, sample: &str, value: f64, is_it: impl Fn(f64) -> bool) {
        super::soon(&format!("{sample} is {value}"), async {
            // A sample that nobody has touched yet may still be missing.
            while !find_metric(self.admin, sample).await.ok().is_some_and(&is_it) {
                tokio::time::sleep(ms(5)).await;
            }
        })
        .await;
    }

    /// Waits until so many calls wait for their turn.
    pub(crate) async fn until_queued(&self, calls: u32) {
        self.until_metric("tidegate_queue_depth{priority=\"normal\"}", calls.into()).await;
    }
}

/// The value of a sample at an operators' port, such as `tidegate_queue_depth{priority="normal"}`.
pub(crate) async fn metric(admin: SocketAddr, sample: &str) -> f64 {
    find_metric(admin, sample).await.unwrap_or_else(|page| panic!("no {sample} in {page}"))
}

/// The same, or the page that does not have it.
async fn find_metric(admin: SocketAddr, sample: &str) -> Result<f64, String> {
    let page = Client::to(admin).await.ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.text();
    let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    value.map(|value| value.trim().parse().expect("a number")).ok_or_else(|| page.clone())
}
