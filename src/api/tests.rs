use std::net::SocketAddr;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::time::Tasks;

#[derive(Debug, Default)]
struct Hooks {
    mistakes: Vec<String>,
    drains: Mutex<usize>,
}

impl AdminHooks for Hooks {
    fn reload(&self) -> Result<(), Vec<String>> {
        if self.mistakes.is_empty() { Ok(()) } else { Err(self.mistakes.clone()) }
    }

    fn drain(&self) {
        *self.drains.lock() += 1;
    }
}

struct Served {
    addr: SocketAddr,
    readiness: Readiness,
    hooks: Arc<Hooks>,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<io::Result<()>>,
}

async fn served(token: Option<&str>, hooks: Hooks) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let (readiness, hooks) = (Readiness::default(), Arc::new(hooks));
    let admin = Admin {
        metrics: Metrics::new(),
        readiness: readiness.clone(),
        token: token.map(|token| Secret::new(token.to_owned())),
        hooks: hooks.clone(),
    };
    let serving = Tasks::default().spawn(serve(listener, admin, stopped));
    Served { addr, readiness, hooks, stop, serving }
}

impl Served {
    /// The status and the whole answer to `request` (method and path) with these further headers.
    async fn ask(&self, request: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let head = format!("{request} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n", self.addr);
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }

    async fn status(&self, request: &str, headers: &str) -> u16 {
        self.ask(request, headers).await.0
    }
}

#[tokio::test]
async fn readiness_follows_the_life_of_the_process() {
    let served = served(None, Hooks::default()).await;
    assert_eq!(served.status("GET /livez", "").await, 200);
    assert_eq!(served.status("GET /readyz", "").await, 503);
    served.readiness.set(ReadyState::Ready);
    assert_eq!(served.status("GET /readyz", "").await, 200);
    served.readiness.set(ReadyState::Draining);
    let (status, answer) = served.ask("GET /readyz", "").await;
    assert_eq!(status, 503);
    assert!(answer.contains(r#""reason":"the proxy is shutting down"#), "{answer}");
    assert_eq!(served.status("GET /livez", "").await, 200);
}

#[tokio::test]
async fn metrics_are_served_as_prometheus_reads_them() {
    let (status, answer) = served(None, Hooks::default()).await.ask("GET /metrics", "").await;
    assert_eq!(status, 200);
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("\ntidegate_build_info{"), "{answer}");
}

#[tokio::test]
async fn the_token_protects_all_but_the_probes() {
    let served = served(Some("sesame"), Hooks::default()).await;
    for (request, open) in [("GET /metrics", 200), ("POST /admin/v1/drain", 202), ("GET /nowhere", 404)] {
        let (status, answer) = served.ask(request, "").await;
        assert_eq!(status, 401, "{request}");
        assert!(answer.contains(r#"{"error":{"message":"#) && answer.contains("www-authenticate: Bearer"), "{answer}");
        assert_eq!(served.status(request, "Authorization: Bearer open\r\n").await, 401, "{request}");
        assert_eq!(served.status(request, "Authorization: Bearer sesame\r\n").await, open, "{request}");
    }
    assert_eq!(served.status("GET /livez", "").await, 200);
    assert_eq!(served.status("GET /readyz", "").await, 503);
}

#[tokio::test]
async fn without_a_token_no_foreign_page_can_drain() {
    let served = served(None, Hooks::default()).await;
    assert_eq!(served.status("POST /admin/v1/drain", "Origin: https://evil.example\r\n").await, 403);
    assert_eq!(*served.hooks.drains.lock(), 0);
    assert_eq!(served.status("POST /admin/v1/drain", "").await, 202);
    assert_eq!(*served.hooks.drains.lock(), 1);
}

#[tokio::test]
async fn a_refused_reload_tells_every_mistake() {
    let good = served(None, Hooks::default()).await;
    assert_eq!(good.status("POST /admin/v1/reload", "").await, 200);
    let mistakes = vec!["first mistake".to_owned(), "second mistake".to_owned()];
    let bad = served(None, Hooks { mistakes, ..Hooks::default() }).await;
    let (status, answer) = bad.ask("POST /admin/v1/reload", "").await;
    assert_eq!(status, 422);
    assert!(answer.contains(r"first mistake\nsecond mistake"), "{answer}");
}

#[tokio::test]
async fn what_is_not_here_is_told_in_the_shape_of_errors() {
    let served = served(None, Hooks::default()).await;
    for (request, status, code) in
        [("GET /nowhere", 404, "not_found"), ("GET /admin/v1/drain", 405, "method_not_allowed")]
    {
        let (got, answer) = served.ask(request, "").await;
        assert_eq!(got, status, "{request}");
        assert!(answer.contains(&format!(r#""code":"{code}""#)) && answer.contains("application/json"), "{answer}");
    }
}

#[tokio::test]
async fn a_connection_that_hangs_does_not_hold_up_the_shutdown() {
    let served = served(None, Hooks::default()).await;
    let mut hanging = TcpStream::connect(served.addr).await.unwrap();
    hanging.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
    assert_eq!(served.status("GET /livez", "").await, 200);
    served.stop.send(true).unwrap();
    tokio::time::timeout(GRACE * 3, served.serving).await.unwrap().unwrap().unwrap();
}
