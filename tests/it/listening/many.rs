//! Many streams side by side.

use super::WIRES;
use crate::support::http2_client::chat;
use crate::support::upstream::json;
use crate::support::{Upstream, proxy};

#[tokio::test]
async fn two_hundred_streams_at_a_time_get_each_its_own_answer() {
    const STREAMS: usize = 200;
    for wire in WIRES {
        let upstream = Upstream::start().await;
        let house = wire.proxy(proxy(&upstream)).await;
        let mut client = house.client().await;
        let mut sent = Vec::new();
        for number in 0..STREAMS {
            sent.push((number, client.send(chat(), format!("{{\"n\":{number}}}")).await));
        }
        let mut lines = Vec::new();
        for _ in 0..STREAMS {
            lines.push(upstream.request().await); // all of them run before one is answered
        }
        for (line, request) in &mut lines {
            line.send(json(&request.text())).await;
        }
        for (number, sending) in sent.into_iter().rev() {
            let (status, _, body) = sending.whole().await;
            assert_eq!((status.as_u16(), body), (200, format!("{{\"n\":{number}}}").into_bytes()), "{wire:?}");
        }
        house.proxy.until_metric("tidegate_in_flight", 0.0).await;
        house.proxy.until_metric("tidegate_connections", 1.0).await;
    }
}
