//! WebSocket frames as bytes (RFC 6455, section 5.2).

use super::client::Client;
use super::{Line, Proxy, Upstream};

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const PING: u8 = 0x89;
const CLOSE: u8 = 0x88;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame of a provider. `first`: FIN and opcode.
pub(crate) fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    [&header(first, 0, payload.len())[..], payload].concat()
}

/// A frame of a client.
pub(crate) fn masked(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let hidden = payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    let mut bytes = header(first, 0x80, payload.len());
    bytes.extend_from_slice(&MASK);
    bytes.extend(hidden);
    bytes
}

fn header(first: u8, mask: u8, length: usize) -> Vec<u8> {
    match length {
        0..126 => vec![first, mask | u8::try_from(length).expect("short")],
        126..=0xffff => [&[first, mask | 126][..], &u16::try_from(length).expect("short").to_be_bytes()].concat(),
        _ => [&[first, mask | 127][..], &(length as u64).to_be_bytes()].concat(),
    }
}

fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// A provider says Close.
pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(CLOSE, close_payload(code, reason))
}

/// A client says Close.
pub(crate) fn masked_close(code: u16, reason: &str) -> Vec<u8> {
    masked(CLOSE, close_payload(code, reason))
}

/// A handshake as a client sends it.
pub(crate) fn handshake(fields: &str) -> String {
    format!(
        "GET /v1/realtime?model=m HTTP/1.1\r\nHost: tidegate\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
}

/// A provider accepts it.
pub(crate) const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An open socket: its client, and the provider's end.
pub(crate) async fn open(proxy: &Proxy, upstream: &Upstream) -> (Client, Line) {
    let mut client = proxy.client().await;
    client.send(handshake("")).await;
    let (mut line, _) = upstream.request().await;
    line.send(SWITCH).await;
    assert_eq!(client.reader().head().await.expect("a head").status(), 101);
    (client, line)
}
