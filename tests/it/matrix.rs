//! The fault matrix: every fault in every phase, for every kind of call, over both protocols, with one upstream and with
//! two. What is expected of each cell, and why, stands in `matrix/expected.toml`; `TIDEGATE_MATRIX=FILE` writes down what
//! came of all of them.

mod asker;
mod cell;
mod http1;
mod http2;
mod rules;
mod script;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate::config::Settings;
use tidegate::units::Secret;
use tidegate::upstream::settings::{Continuation, HttpVersion, Kind as Serves, MidStream, Upstream as Provider};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use self::asker::{Got, ask, request};
use self::cell::{Cell, Fault, Http, Kind, Phase, Setup};
use self::rules::{Expected, Said, Table};
use self::script::Script;
use crate::support::proxy::before;
use crate::support::{Proxy, ms, post};

/// So many cells at a time.
const AT_A_TIME: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_in_every_phase_comes_to_what_the_table_says() {
    let table = Table::read();
    let (mut rows, mut cells) = (Vec::new(), JoinSet::new());
    let (room, only) = (Arc::new(Semaphore::new(AT_A_TIME)), std::env::var("TIDEGATE_MATRIX_ONLY").unwrap_or_default());
    for cell in Cell::all() {
        let Said::Expected(rule, expected) = table.says(&cell) else { continue };
        rows.push(rule);
        if !cell.to_string().contains(&only) {
            continue;
        }
        let room = Arc::clone(&room);
        cells.spawn(async move {
            let _place = room.acquire().await.expect("room");
            let came = Box::pin(tokio::time::timeout(ms(60_000), run(cell))).await;
            (cell, expected, came)
        });
    }
    assert_eq!(table.idle_rows(&rows), [""; 0], "rows that no cell comes to");
    let (mut lines, mut wrong) = (Vec::new(), Vec::new());
    while let Some(ran) = cells.join_next().await {
        let Ok((cell, expected, came)) = ran else {
            wrong.push(format!("{}", ran.expect_err("a panic")));
            continue;
        };
        let Ok((got, seen)) = came else {
            wrong.push(format!("{cell}: no end within a minute"));
            continue;
        };
        let outcome = got.outcome(&cell);
        let line = format!("{cell}: {outcome} {}/{}+{}", got.attempts, seen.0, seen.1);
        if !expected.is_met_by(&outcome, got.attempts, seen) {
            let Expected { outcome, attempts, seen } = expected;
            wrong.push(format!("{line}, not {outcome} {attempts:?}/{}+{}", seen.0, seen.1));
        }
        lines.push(line);
    }
    lines.sort();
    wrong.sort();
    if let Ok(file) = std::env::var("TIDEGATE_MATRIX") {
        std::fs::write(file, lines.join("\n")).expect("a file");
    }
    assert!(wrong.is_empty(), "{} of {} cells differ:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
}

/// A provider of a cell.
struct Stage {
    script: Arc<Script>,
    addr: SocketAddr,
    /// Not listening yet.
    closed: Option<TcpSocket>,
    /// Full: whoever else connects waits.
    full: Option<(TcpListener, Vec<TcpStream>)>,
    tasks: JoinSet<()>,
}

impl Stage {
    async fn new(script: Script) -> Self {
        let (phase, fault) = (script.cell.phase, script.cell.fault);
        let is_absent = phase == Phase::Connect && !script.is_healthy;
        let socket = TcpSocket::new_v4().expect("a socket");
        if phase == Phase::Writing {
            // What is not read is soon not taken either.
            socket.set_recv_buffer_size(16 * 1024).expect("a socket");
        }
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let addr = socket.local_addr().expect("an address");
        let mut stage = Self { script: Arc::new(script), addr, closed: None, full: None, tasks: JoinSet::new() };
        match (is_absent, fault) {
            (true, Fault::Refused) => stage.closed = Some(socket),
            (true, _) => {
                let listener = socket.listen(1).expect("it listens");
                let mut waiting = Vec::new();
                while let Ok(stream) = tokio::time::timeout(ms(50), TcpStream::connect(addr)).await {
                    waiting.push(stream.expect("a connection"));
                }
                stage.full = Some((listener, waiting));
            }
            (false, _) => stage.listen(socket.listen(64).expect("it listens")),
        }
        stage
    }

    fn listen(&mut self, listener: TcpListener) {
        let script = Arc::clone(&self.script);
        self.tasks.spawn(async move {
            let mut lines = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                stream.set_nodelay(true).expect("a socket");
                let script = Arc::clone(&script);
                match script.cell.http {
                    Http::Http1 => lines.spawn(http1::serve(script, stream)),
                    Http::Http2 => lines.spawn(http2::serve(script, stream)),
                };
            }
        });
    }

    /// The provider is there from now on.
    fn heal(&mut self) {
        if let Some(socket) = self.closed.take() {
            self.listen(socket.listen(64).expect("it listens"));
        }
        if let Some((listener, waiting)) = self.full.take() {
            drop(waiting);
            self.listen(listener);
        }
    }
}

async fn run(cell: Cell) -> (Got, (u32, u32)) {
    let (received, client) = watch::channel(Vec::new());
    let mut first = Stage::new(Script::new(cell, false, client.clone())).await;
    let second = Stage::new(Script::new(cell, true, client)).await;
    let proxy = proxy(cell, &first, &second).await;
    let is_pooled = matches!(cell.phase, Phase::Idle | Phase::Reused);
    if is_pooled {
        // So that there is a connection to be pooled.
        assert_eq!(proxy.client().await.ask(post(r#"{"model":"m"}"#)).await.status(), 200);
        if cell.phase == Phase::Idle {
            tokio::time::sleep(ms(60)).await;
        }
    }
    let asked = ask(proxy.clients, request(&cell), &received);
    let got = if cell.phase == Phase::Connect && cell.setup == Setup::Heals {
        let heal = async {
            proxy.until_metric_reaches("tidegate_retries_total{reason=\"connect\"}", 1.0).await;
            first.heal();
            std::future::pending().await
        };
        tokio::select! {
            got = asked => got,
            () = heal => unreachable!("it is pending"),
        }
    } else {
        asked.await
    };
    let [first, second] = [&first, &second].map(|stage| stage.script.seen.load(Ordering::SeqCst));
    (got, (first - u32::from(is_pooled), second))
}

async fn proxy(cell: Cell, first: &Stage, second: &Stage) -> Proxy {
    let provider = |provider: &mut Provider| {
        provider.http = match cell.http {
            Http::Http1 => HttpVersion::Http1,
            Http::Http2 => HttpVersion::Http2,
        };
        if matches!(cell.kind, Kind::Agent | Kind::AgentAgain) {
            provider.kind = Serves::Agent;
        }
        if cell.fault == Fault::OurKey401 {
            provider.api_keys = vec![Secret::new("ours".to_owned())];
        }
        if matches!(cell.fault, Fault::Refusal404 | Fault::Model404) {
            provider.refusal_statuses = vec![429, 404];
        }
        // Nobody waits for what must not happen; what must takes as long as it takes.
        match cell.fault {
            Fault::Hangs => provider.connect_timeout = ms(300),
            Fault::Stall => (provider.first_byte_timeout, provider.idle_timeout) = (ms(600), ms(600)),
            _ => {}
        }
        provider.continuation = match cell.kind {
            Kind::Vllm => Continuation::Vllm,
            Kind::Prefix => Continuation::Prefix,
            _ => Continuation::Off,
        };
        provider.limits.concurrency = NonZeroU32::new(4);
        provider.limits.slot_release_delay = ms(0);
        provider.limits.slot_release_delay_aborted = ms(5);
    };
    let settings = |settings: &mut Settings| {
        let is_awaited = cell.phase == Phase::Connect && cell.setup == Setup::Heals;
        settings.retry.attempts_max = NonZeroU32::new(if is_awaited { 1_000 } else { 3 }).expect("some");
        settings.retry.agents = cell.kind == Kind::AgentAgain;
        settings.retry.on_disconnect = cell.kind != Kind::Once;
        if matches!(cell.kind, Kind::Vllm | Kind::Prefix) {
            settings.recovery.mid_stream = MidStream::Continue;
        }
        (settings.recovery.cooldown, settings.recovery.cooldown_max) = (ms(20), ms(20));
        (settings.breaker.open, settings.breaker.open_max) = (ms(20), ms(20));
        if cell.phase == Phase::Writing && cell.fault == Fault::Stall {
            settings.server.write_timeout = ms(600);
        }
    };
    let builder = before(&format!("http://{}/v1", first.addr)).set(settings).provider(provider);
    match cell.setup {
        Setup::Two => builder.upstream("other", &format!("http://{}/v1", second.addr), provider).start().await,
        Setup::Heals | Setup::Lasts => builder.start().await,
    }
}
