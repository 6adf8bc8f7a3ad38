//! A provider that is down, for everybody and for a while.

use std::fmt;
use std::str::FromStr;

use tokio::sync::watch;

use super::settings::SettingError;
use crate::time::{Duration, Instant, now};

/// How a provider is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// Connections are reset unread, idle ones, too. A listener that keeps its port cannot refuse them before: they are
    /// made, and reset as soon as they ask for something, or 50 ms later.
    Refuse,
    /// Requests are read, counted, and reset.
    Reset,
    /// Requests are answered with 503.
    Unavailable,
    /// Requests are read, counted, and never answered.
    Hang,
}

impl Outage {
    /// Every way there is.
    pub const ALL: [Self; 4] = [Self::Refuse, Self::Reset, Self::Unavailable, Self::Hang];

    /// The name in `POST /sim/down`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Reset => "reset",
            Self::Unavailable => "503",
            Self::Hang => "hang",
        }
    }

    /// Whether what runs when it begins is reset.
    const fn cuts(self) -> bool {
        matches!(self, Self::Refuse | Self::Reset)
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Outage {
    type Err = SettingError;

    fn from_str(word: &str) -> Result<Self, SettingError> {
        let known = Self::ALL.into_iter().find(|outage| outage.as_str() == word);
        known.ok_or_else(|| SettingError::new(format!("one of {}", Self::ALL.map(Self::as_str).join(", ")), word))
    }
}

/// Whether the provider is down, and news of it.
#[derive(Debug)]
pub(super) struct Outages(watch::Sender<Option<Lasting>>);

#[derive(Debug, Clone, Copy)]
struct Lasting {
    outage: Outage,
    until: Instant,
}

impl Default for Outages {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Outages {
    /// From now on, for so long; in place of what was on.
    pub(super) fn begin(&self, outage: Outage, lasts: Duration) {
        self.0.send_replace(Some(Lasting { outage, until: now() + lasts }));
    }

    pub(super) fn end(&self) {
        self.0.send_replace(None);
    }

    pub(super) fn now(&self) -> Option<Outage> {
        present(*self.0.borrow())
    }

    /// Returns while, or as soon as, connections are refused. Dropping the future loses nothing.
    pub(super) async fn refuses(&self) {
        let refuses = |lasting: &Option<Lasting>| present(*lasting) == Some(Outage::Refuse);
        if self.0.subscribe().wait_for(refuses).await.is_err() {
            // The provider is gone, and so is what it would refuse.
            std::future::pending::<()>().await;
        }
    }

    /// Watches for outages that begin from now on.
    pub(super) fn watch(&self) -> Watch {
        Watch(self.0.subscribe())
    }
}

fn present(lasting: Option<Lasting>) -> Option<Outage> {
    lasting.filter(|lasting| now() < lasting.until).map(|lasting| lasting.outage)
}

/// A watch for outages.
#[derive(Debug)]
pub(super) struct Watch(watch::Receiver<Option<Lasting>>);

impl Watch {
    /// Returns when one begins that resets what runs. Dropping the future loses nothing but the watch.
    pub(super) async fn cuts(mut self) {
        while self.0.changed().await.is_ok() {
            if present(*self.0.borrow()).is_some_and(Outage::cuts) {
                return;
            }
        }
        // The provider is gone, and what runs is stopped otherwise.
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn outage_is_over_when_its_time_is() {
        let outages = Outages::default();
        outages.begin(Outage::Hang, MINUTE);
        assert_eq!(outages.now(), Some(Outage::Hang));
        tokio::time::advance(MINUTE).await;
        assert_eq!(outages.now(), None);
        outages.begin(Outage::Refuse, MINUTE);
        outages.refuses().await;
        outages.end();
        assert_eq!(outages.now(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn only_outages_that_begin_and_reset_cut_what_runs() {
        let outages = Outages::default();
        outages.begin(Outage::Reset, MINUTE);
        let mut cuts = Box::pin(outages.watch().cuts());
        assert!(is_pending(&mut cuts).await, "it came while that was on");
        outages.begin(Outage::Unavailable, MINUTE);
        assert!(is_pending(&mut cuts).await);
        outages.begin(Outage::Refuse, MINUTE);
        cuts.await;
    }

    async fn is_pending(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
        tokio::time::timeout(Duration::from_millis(1), future).await.is_err()
    }

    #[test]
    fn ways_to_be_down_read_as_they_are_written() {
        assert!(Outage::ALL.into_iter().all(|outage| outage.as_str().parse() == Ok(outage)));
        assert!("up".parse::<Outage>().expect_err("none").to_string().contains("refuse, reset, 503, hang"));
    }
}
