//! The proxy of a story: in this process, or the real one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidegate::app::{App, Past, Ports, Source};
use tidegate::config::Overrides;
use tidegate::time::{Duration, Tasks};
use tokio_util::task::AbortOnDropHandle;

use super::figures::{Figures, Looking, Page};
use super::story::Story;
use crate::support::process::Process;

/// How often somebody looks what the process needs: twelve times a minute.
const LOOKS: Duration = Duration::from_secs(5);

pub(super) struct House {
    proxy: Proxy,
    base_url: String,
    admin: SocketAddr,
    config: PathBuf,
    provider: String,
    folder: TempDir,
}

enum Proxy {
    Here(App, #[expect(dead_code, reason = "it runs until it is dropped")] AbortOnDropHandle<()>),
    Process(#[expect(dead_code, reason = "it runs until it is dropped")] Box<Process>, Looking),
}

impl House {
    /// Starts it before a provider.
    pub(super) async fn open(story: &Story, provider: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("tidegate.toml");
        std::fs::write(&config, story.config(provider, folder.path(), None)).expect("writable");
        let (proxy, clients, admin) =
            if story.process { Self::launch(&config).await } else { Self::start(config.clone()) };
        let base_url = format!("http://{clients}/v1");
        Self { proxy, base_url, admin, config, provider: provider.to_owned(), folder }
    }

    fn start(config: PathBuf) -> (Proxy, SocketAddr, SocketAddr) {
        let source = Source { file: Some(config), overrides: Overrides::default() };
        let settings = source.read().unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(settings.not_yet(), [], "a story about what is built");
        let ports = Ports::bind(&settings).expect("free ports");
        let (clients, admin) = (ports.clients().expect("bound"), ports.admin().expect("bound"));
        let app = App::new(settings, source, None, Past::none()).expect("it starts");
        let serving = app.clone();
        let running = Tasks::default().spawn(async move { serving.run(ports).await.expect("it serves") });
        (Proxy::Here(app, AbortOnDropHandle::new(running)), clients, admin)
    }

    async fn launch(config: &Path) -> (Proxy, SocketAddr, SocketAddr) {
        let process = Box::new(Process::serve(config).await);
        let (clients, admin) = (process.clients, process.admin);
        (Proxy::Process(process, Looking::at(admin, LOOKS)), clients, admin)
    }

    pub(super) fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Has other limits from now on.
    pub(super) fn change_limits(&self, story: &Story, limits: &toml::Table) {
        let Proxy::Here(app, _) = &self.proxy else { panic!("only stories in this process change limits") };
        std::fs::write(&self.config, story.config(&self.provider, self.folder.path(), Some(limits))).expect("writable");
        app.reload().unwrap_or_else(|error| panic!("{error:?}"));
    }

    /// What it tells of itself now.
    pub(super) async fn metrics(&self) -> Page {
        Page::of(self.admin).await
    }

    /// What it needed so far, where it is a process.
    pub(super) fn figures(&self) -> Vec<Figures> {
        match &self.proxy {
            Proxy::Here(..) => Vec::new(),
            Proxy::Process(_, looking) => looking.seen(),
        }
    }
}
