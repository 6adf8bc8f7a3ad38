use std::net::SocketAddr;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::admission::Queued;
use crate::admission::settings::ClientKey;
use crate::answer::Outlook;
use crate::ids::{CallId, ClientId};
use crate::time::{self, Tasks};
use crate::units::Priority;

#[derive(Debug, Default)]
struct Hooks {
    mistakes: Vec<String>,
    drains: Mutex<usize>,
    paused: Mutex<Vec<bool>>,
    waiting: usize,
}

impl AdminHooks for Hooks {
    fn reload(&self) -> Result<(), Vec<String>> {
        if self.mistakes.is_empty() { Ok(()) } else { Err(self.mistakes.clone()) }
    }

    fn drain(&self) {
        *self.drains.lock() += 1;
    }

    fn pause(&self, upstream: &str, paused: bool) -> Result<(), Vec<String>> {
        if upstream != "main" {
            return Err(vec!["main".to_owned(), "spare".to_owned()]);
        }
        self.paused.lock().push(paused);
        Ok(())
    }

    fn queue(&self, most: usize) -> Queue {
        let call = |position: usize| Queued {
            id: CallId::random(),
            client: ClientId::Everybody,
            class: Priority::Normal,
            model: Some("a-model-with-a-usual-name".into()),
            upstreams: vec!["main".into()],
            outlook: Outlook { position: u32::try_from(position).unwrap(), eta: Some(Duration::from_secs(60)) },
            waited: Duration::from_secs(1),
            left: Duration::from_secs(599),
            tokens: 4_000,
            bytes: 2_048,
        };
        let calls: Vec<_> = (1..=most.min(self.waiting)).map(call).collect();
        Queue { waiting: [0, u32::try_from(self.waiting).unwrap(), 0], bytes: 2_048, calls }
    }

    fn upstreams(&self) -> Vec<Upstream> {
        vec![Upstream::new("main".to_owned(), "http://127.0.0.1:1/v1".parse().unwrap())]
    }

    fn lanes(&self) -> Vec<LaneStatus> {
        Vec::new()
    }

    fn breakers(&self) -> Vec<BreakerStatus> {
        Vec::new()
    }

    fn paused(&self) -> Vec<Arc<str>> {
        Vec::new()
    }

    fn client_settings(&self) -> Vec<Client> {
        vec![Client::new("chat".to_owned(), ClientKey::Plain(Secret::new("tg-secret".to_owned())))]
    }

    fn clients(&self) -> Vec<ClientStatus> {
        Vec::new()
    }

    fn config(&self) -> String {
        r#"{"server":{}}"#.to_owned()
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

impl Served {
    /// The JSON of a 200.
    async fn json(&self, request: &str) -> Value {
        let (status, answer) = self.ask(request, "").await;
        assert_eq!(status, 200, "{answer}");
        assert!(answer.contains("content-type: application/json"), "{answer}");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }
}

#[tokio::test]
async fn operators_see_who_waits_where_calls_go_and_who_calls() {
    let served = served(None, Hooks { waiting: 300, ..Hooks::default() }).await;
    let queue = served.json("GET /admin/v1/queue").await;
    assert_eq!((&queue["waiting"]["total"], queue["calls"].as_array().unwrap().len()), (&json!(300), 100));
    let queue = served.json("GET /admin/v1/queue?limit=2").await;
    assert_eq!((&queue["calls"][1]["position"], queue["calls"].as_array().unwrap().len()), (&json!(2), 2));
    let (status, answer) = served.ask("GET /admin/v1/queue?limit=many", "").await;
    assert_eq!(status, 400);
    assert!(answer.contains(r#""code":"bad_request""#) && answer.contains("limit=10000"), "{answer}");
    assert_eq!(served.json("GET /admin/v1/upstreams").await["upstreams"][0]["name"], "main");
    let clients = served.json("GET /admin/v1/clients").await;
    assert_eq!(clients["clients"][0]["name"], "chat");
    assert!(!clients.to_string().contains("secret"));
    assert_eq!(served.json("GET /admin/v1/config").await, json!({ "server": {} }));
}

#[tokio::test]
async fn upstream_is_paused_and_resumed_by_its_name() {
    let served = served(None, Hooks::default()).await;
    for (verb, paused) in [("pause", true), ("pause", true), ("resume", false)] {
        let told = served.json(&format!("POST /admin/v1/upstreams/main/{verb}")).await;
        assert_eq!(told, json!({ "upstream": "main", "paused": paused }));
    }
    assert_eq!(*served.hooks.paused.lock(), [true, true, false]);
    let (status, answer) = served.ask("POST /admin/v1/upstreams/mian/pause", "").await;
    assert_eq!(status, 404);
    assert!(answer.contains(r#"there is no upstream \"mian\"; there are main, spare"#), "{answer}");
    assert_eq!(served.status("GET /admin/v1/upstreams/main/pause", "").await, 405);
    // A web page must not be able to.
    assert_eq!(served.status("POST /admin/v1/upstreams/main/pause", "Origin: https://evil.example\r\n").await, 403);
    assert_eq!(served.hooks.paused.lock().len(), 3);
}

#[tokio::test]
async fn all_of_a_full_queue_is_told() {
    let served = served(None, Hooks { waiting: 10_000, ..Hooks::default() }).await;
    let began = time::now();
    let queue = served.json("GET /admin/v1/queue?limit=10000").await;
    let took = began.elapsed();
    assert_eq!(queue["calls"].as_array().unwrap().len(), 10_000);
    // 50 ms of an optimised build; this is none, and reads the answer, too.
    assert!(took < Duration::from_secs(5), "{took:?}");
}
