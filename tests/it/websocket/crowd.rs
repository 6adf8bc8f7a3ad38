//! Many sockets at a time.

use tidegate::sim::{Limits, Settings, Sim, Violations};

use crate::support::frames::{TEXT, close, frame, handshake, masked, masked_close};
use crate::support::proxy::before;
use crate::support::wire::End;
use crate::support::{Client, eventually, ms, post, soon};

#[tokio::test]
async fn thousand_open_sockets_leave_their_five_slots_to_chat() {
    const OPEN: u32 = 1_000;
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let files = files.split_whitespace().next().unwrap().parse().unwrap_or(u32::MAX);
    assert!(files >= 4 * OPEN + 200, "this test needs more open files: ulimit -n {}", 4 * OPEN + 200);
    let allowed = Limits { requests: None, concurrency: Some(OPEN + 5), tokens: None, window: ms(60_000) };
    let sim = Sim::start(Settings { limits: allowed, ..Settings::default() }).await.unwrap();
    let proxy = before(&sim.base_url()).concurrency(OPEN + 5).start().await;
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..OPEN {
        let addr = proxy.clients;
        opening.spawn(async move {
            let mut client = Client::to(addr).await;
            client.send(handshake("")).await;
            assert_eq!(client.reader().head().await.unwrap().status(), 101);
            client
        });
    }
    let mut open = soon("all are open", opening.join_all()).await;
    assert_eq!((sim.stats().in_flight, sim.stats().counted), (OPEN, OPEN.into()));
    let chat = r#"{"model":"sim-1","messages":[{"role":"user","content":"hello"}],"sim":{"latency_ms":50}}"#;
    let mut chatting = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let addr = proxy.clients;
        chatting.spawn(async move {
            let mut client = Client::to(addr).await;
            for _ in 0..4 {
                assert_eq!(client.ask(post(chat)).await.status(), 200);
            }
        });
    }
    soon("chat is served", chatting.join_all()).await;
    for client in &mut open {
        client.send([masked(TEXT, "still there"), masked_close(1000, "")].concat()).await;
    }
    for mut client in open {
        let said = [frame(TEXT, "still there"), close(1000, "")].concat();
        assert_eq!(client.until_the_end().await, (said, End::Fin));
    }
    eventually("all slots are given back", || sim.stats().in_flight == 0).await;
    let stats = sim.stats();
    assert_eq!((stats.in_flight_max, stats.completed), (OPEN + 5, u64::from(OPEN) + 40), "{stats:?}");
    assert_eq!(stats.violations, Violations::default(), "{stats:?}");
    assert_eq!((stats.hangups, stats.malformed), (0, 0), "{stats:?}");
}
