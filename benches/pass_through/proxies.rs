//! Who is measured, and how each is started.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::child::Child;
use super::client::Client;
use super::wire::Ask;

/// One of those that are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Shell,
    Nginx,
    /// A build of tidegate, logging by this filter.
    Tidegate {
        name: String,
        binary: PathBuf,
        log: &'static str,
    },
}

/// How it is started.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Setup {
    /// Worker threads; one a core when absent.
    pub(crate) threads: Option<usize>,
    /// tidegate lets one call at a time pass, so that the others wait.
    pub(crate) parks: bool,
    /// Where tidegate's operators ask, if anybody is to.
    pub(crate) admin: Option<SocketAddr>,
    /// Counts instructions into this file of the stage.
    pub(crate) counted: Option<&'static str>,
}

/// A proxy that runs.
pub(crate) struct Proxy {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
}

/// The provider, and who can be measured.
pub(crate) struct Stage {
    directory: TempDir,
    beside: Vec<(String, PathBuf)>,
    has_nginx: bool,
    /// Each has files of its own.
    started: AtomicUsize,
    pub(crate) upstream: SocketAddr,
    _provider: Child,
}

impl Stage {
    pub(crate) fn new(beside: &[(String, PathBuf)]) -> Self {
        let has_nginx = can_run("nginx", "-v");
        if !has_nginx {
            eprintln!("nginx is not installed: its rows are missing (`make bench` installs it)");
        }
        let (provider, address) = Child::start(&mut Child::role(&["--role", "upstream"]), true);
        Self {
            directory: TempDir::new().expect("a directory"),
            beside: beside.to_vec(),
            has_nginx,
            started: AtomicUsize::new(0),
            upstream: address.unwrap().parse().expect("an address"),
            _provider: provider,
        }
    }

    /// Everybody, the shell first.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let ours = |name: &str, binary, log| Kind::Tidegate { name: name.to_owned(), binary, log };
        let shipped = || PathBuf::from(env!("CARGO_BIN_EXE_tidegate"));
        let mut kinds = vec![Kind::Shell];
        kinds.extend(self.has_nginx.then_some(Kind::Nginx));
        kinds.push(ours("tidegate", shipped(), "info"));
        kinds.push(ours("tidegate, log = warn", shipped(), "warn"));
        kinds.extend(self.beside.iter().map(|(name, binary)| ours(name, binary.clone(), "info")));
        kinds
    }

    /// How many connections the provider has accepted so far.
    pub(crate) async fn accepted(&self) -> usize {
        let mut client = Client::connect(self.upstream).await;
        let body = client.call(&Ask::Count.request()).await;
        str::from_utf8(body).unwrap().parse().expect("a figure")
    }

    /// Where a file of this run is.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn start(&self, kind: &Kind, setup: Setup) -> Proxy {
        let (child, address) = match kind {
            Kind::Shell => Child::start(&mut self.shell(setup), true),
            Kind::Nginx => self.nginx(),
            Kind::Tidegate { binary, log, .. } => Child::start(&mut self.tidegate(binary, log, setup), true),
        };
        let address = address.unwrap();
        let announced = address.trim_start_matches("export OPENAI_BASE_URL=http://").trim_end_matches("/v1");
        Proxy { child, address: announced.parse().expect("an address") }
    }

    fn shell(&self, setup: Setup) -> Command {
        let mut args =
            vec!["--role".to_owned(), "shell".to_owned(), "--upstream".to_owned(), self.upstream.to_string()];
        args.extend(setup.threads.into_iter().flat_map(|threads| ["--threads".to_owned(), threads.to_string()]));
        self.counted(std::env::current_exe().expect("a path"), &args, setup)
    }

    /// As it ships, logging to nowhere, with limits that do not bind.
    fn tidegate(&self, binary: &Path, log: &str, setup: Setup) -> Command {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let threads = setup.threads.map_or(String::new(), |threads| format!("threads = {threads}"));
        let admin = setup.admin.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let limits = if setup.parks { "[upstreams.limits]\nconcurrency = 1" } else { "" };
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"{admin}\"\nstate_dir = \"{}\"\nmemory_max = \"8GiB\"\nconnections_max = 12_000\n{threads}\n\
             [admission]\nqueue_bytes_max = \"4GiB\"\nwait_max = \"1d\"\nqueue_max = 20_000\n[telemetry]\nlog = \"{log}\"\n\
             [[upstreams]]\nbase_url = \"http://{}/v1\"\n{limits}\n",
            self.file(&format!("state-{number}")).display(),
            self.upstream,
        );
        let file = self.file(&format!("tidegate-{number}.toml"));
        fs::write(&file, config).expect("a file");
        let args = ["serve".to_owned(), "--config".to_owned(), file.display().to_string()];
        let mut command = self.counted(binary.to_owned(), &args, setup);
        command.stderr(Stdio::null());
        command
    }

    fn counted(&self, program: PathBuf, args: &[String], setup: Setup) -> Command {
        let Some(file) = setup.counted else {
            let mut command = Command::new(program);
            command.args(args);
            return command;
        };
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--tool=callgrind"]);
        command.arg(format!("--callgrind-out-file={}", self.file(file).display()));
        command.arg(program).args(args).stderr(Stdio::null());
        command
    }

    fn nginx(&self) -> (Child, Option<String>) {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let (config, errors) = (self.file("nginx.conf"), self.file("nginx.log"));
        fs::write(&config, nginx_config(free, self.upstream, &self.file("nginx").display().to_string())).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-e").arg(&errors).arg("-p").arg(self.directory.path()).arg("-c").arg(&config);
        let (child, _) = Child::start(&mut command, false);
        for _ in 0..100 {
            if TcpStream::connect(free).is_ok() {
                return (child, Some(free.to_string()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("nginx does not listen: {}", fs::read_to_string(&errors).unwrap_or_default());
    }
}

/// One process, so that its CPU time is all there is; connections are kept on both sides for as long as we measure.
fn nginx_config(listen: SocketAddr, upstream: SocketAddr, directory: &str) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {directory}-{kind};"))
        .join("\n");
    format!(
        "daemon off;\nmaster_process off;\npid {directory}.pid;\nevents {{ worker_connections 8192; }}\n\
         http {{\naccess_log off;\nkeepalive_timeout 1h;\nkeepalive_requests 1000000000;\n{temporary}\n\
         upstream provider {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; keepalive_timeout 1h; }}\n\
         server {{ listen {listen} backlog=4096; location / {{\nproxy_pass http://provider;\nproxy_http_version 1.1;\n\
         proxy_set_header Connection \"\";\n}} }} }}\n"
    )
}

pub(crate) fn can_run(program: &str, version: &str) -> bool {
    let ran = Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

impl Kind {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Shell => "pingora shell",
            Self::Nginx => "nginx",
            Self::Tidegate { name, .. } => name,
        }
    }
}
