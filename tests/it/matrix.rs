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
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use tidegate::config::Settings;
use tidegate::time::now;
use tidegate::units::Secret;
use tidegate::upstream::settings::{Continuation, HttpVersion, Kind as Serves, MidStream, Upstream as Provider};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::asker::{Got, ask, request};
use self::cell::{Cell, Fault, Http, Kind, Phase, Setup};
use self::rules::{Expected, Rule, Said, Table};
use self::script::Script;
use crate::support::proxy::{before, metric};
use crate::support::{Proxy, ms, post};

/// So many cells at a time: most of them wait.
const AT_A_TIME: usize = 24;

/// Longer than any cell takes in which somebody else is asked at once, in seconds.
const PROMPT: f32 = 15.0;

#[test]
fn every_fault_in_every_phase_comes_to_what_the_table_says() {
    let table = Table::read();
    let cells: Vec<_> = Cell::all()
        .filter_map(|cell| match table.says(&cell) {
            Said::Nothing => None,
            Said::Expected(rule, expected) => Some((cell, rule, expected)),
        })
        .collect();
    let rows: Vec<_> = cells.iter().map(|(_, rule, _)| *rule).collect();
    assert_eq!(table.idle_rows(&rows), [""; 0], "rows that no cell comes to");
    let only = std::env::var("TIDEGATE_MATRIX_ONLY").unwrap_or_default();
    more_descriptors();
    let (left, came) = (Mutex::new(cells), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                let next = || left.lock().expect("no panic").pop();
                while let Some((cell, rule, expected)) = next() {
                    if cell.to_string().contains(&only) {
                        let line = come_of(cell, rule, &expected);
                        came.lock().expect("no panic").push(line);
                    }
                }
            });
        }
    });
    let mut came = came.into_inner().expect("no panic");
    came.sort();
    if let Ok(file) = std::env::var("TIDEGATE_MATRIX") {
        let lines: Vec<_> = came.iter().map(|(Ok(line) | Err(line))| line.as_str()).collect();
        std::fs::write(file, lines.join("\n")).expect("a file");
    }
    let wrong: Vec<_> = came.iter().filter_map(|came| came.as_ref().err().map(String::as_str)).collect();
    assert!(wrong.is_empty(), "{} of {} cells differ:\n{}", wrong.len(), came.len(), wrong.join("\n"));
}

/// A runtime that has ended keeps some of its descriptors until the last timer that it set has passed.
fn more_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let more = rustix::process::Rlimit { current: limit.maximum, ..limit };
    setrlimit(Resource::Nofile, more).expect("what the system allows");
}

/// What came of a cell, which is an error where it is not as expected. It has a runtime of its own, with which everything
/// ends that it began.
fn come_of(cell: Cell, rule: &Rule, expected: &Expected) -> Result<String, String> {
    let began = now();
    let came = std::panic::catch_unwind(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let came = runtime.block_on(async { Box::pin(tokio::time::timeout(ms(60_000), run(cell))).await });
        runtime.shutdown_background();
        came
    });
    let came = came.map_err(|_| format!("{cell}: a panic, see above"))?;
    let (got, seen) = came.map_err(|_elapsed| format!("{cell}: no end within a minute"))?;
    let outcome = got.outcome(&cell);
    let took = began.elapsed().as_secs_f32();
    let line = format!("{cell}: {outcome} {}/{}+{} in {took:.1} s", got.attempts, seen.0, seen.1);
    if (cell.setup != Setup::Two || took < PROMPT) && expected.is_met_by(&outcome, got.attempts, seen) {
        return Ok(line);
    }
    let Expected { outcome, attempts, seen } = expected;
    Err(format!("{line}, not {outcome} {attempts:?}/{}+{}: {}", seen.0, seen.1, rule.because))
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

/// How often what its provider may have done is sent once more, of a call that was sent `sent` times.
fn duplicates(cell: &Cell, attempts: u32, sent: u32) -> u32 {
    use Fault::{GoawayGraceful, GoawayRefusing, RefusedStream};
    let is_answered = cell.fault.status().is_some() || cell.fault == GoawayGraceful;
    let is_untouched = matches!(cell.fault, RefusedStream | GoawayRefusing)
        && matches!(cell.phase, Phase::Accepted | Phase::Writing | Phase::BeforeHead | Phase::Reused);
    let asks_for_the_rest = matches!(cell.kind, Kind::Vllm | Kind::Prefix) && cell.phase == Phase::MidStream;
    match cell.phase {
        _ if is_answered || is_untouched || asks_for_the_rest => 0,
        Phase::Connect | Phase::Idle => 0,
        // Nothing was read, but that cannot be seen from here.
        Phase::Accepted => attempts - 1,
        _ => sent - 1,
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
    let first = first - u32::from(is_pooled);
    let duplicates = f64::from(duplicates(&cell, got.attempts, first + second));
    let counted = metric(proxy.admin, "tidegate_duplicates_sent_total").await;
    assert!((counted - duplicates).abs() < 0.1, "{cell}: {counted} duplicates counted, {duplicates} sent");
    (got, (first, second))
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
        let attempts = match (cell.phase, cell.fault, cell.setup) {
            (Phase::Connect, _, Setup::Heals) => 1_000,
            (Phase::Reused, Fault::Reset | Fault::Eof, _) => 1,
            _ => 3,
        };
        settings.retry.attempts_max = NonZeroU32::new(attempts).expect("some");
        let is_continued = matches!(cell.kind, Kind::Vllm | Kind::Prefix | Kind::Restart);
        if cell.setup == Setup::Two && !is_continued {
            // Whoever has room is asked at once: a pause would be seen.
            (settings.retry.base, settings.retry.cap) = (ms(60_000), ms(60_000));
        }
        settings.retry.agents = cell.kind == Kind::AgentAgain;
        settings.retry.on_disconnect = cell.kind != Kind::Once;
        if is_continued && cell.kind != Kind::Restart {
            settings.recovery.mid_stream = MidStream::Continue;
        }
        (settings.recovery.cooldown, settings.recovery.cooldown_max) = (ms(20), ms(20));
        (settings.breaker.open, settings.breaker.open_max) = (ms(20), ms(20));
        if cell.phase == Phase::Writing && cell.fault == Fault::Stall {
            settings.server.write_timeout = ms(1_200); // a healthy one stops for a while on a busy machine
        }
    };
    let builder = before(&format!("http://{}/v1", first.addr)).set(settings).provider(provider);
    match cell.setup {
        Setup::Two => builder.upstream("other", &format!("http://{}/v1", second.addr), provider).start().await,
        Setup::Heals | Setup::Lasts => builder.start().await,
    }
}
