//! A WebSocket at the simulated provider: what a client says comes back. Counted as a request at its handshake; its slot
//! is held as long as it is open.

use bytes::Bytes;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::wire::{Connection, RequestHead, WireError};

/// Appended to the key of a handshake (RFC 6455, section 1.3).
const SALT: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The longest frame that is echoed.
const FRAME_MAX: usize = 1 << 20;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// The key of a WebSocket handshake, if a request is one.
pub(super) fn handshake_key(head: &RequestHead) -> Option<&str> {
    let upgrades = head.headers.first("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    let key = head.headers.first("sec-websocket-key")?;
    (head.method == "GET" && upgrades && !head.http_1_0).then_some(key)
}

/// The head that accepts a handshake.
pub(super) fn switching(key: &str, ordinal: u64) -> String {
    let accept = base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, [key, SALT].concat().as_bytes()).as_ref());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: {accept}\r\nx-request-id: sim-{ordinal}\r\n\r\n"
    )
}

/// Echoes frames until the client says Close, and returns what is to be said to that; or until `most` messages were
/// echoed, and returns nothing.
pub(super) async fn echo(connection: &mut Connection, most: Option<usize>) -> Result<Option<Vec<u8>>, WireError> {
    let mut echoed = 0;
    while most.is_none_or(|most| echoed < most) {
        let (first, payload) = frame(connection).await?;
        match first & 0x0f {
            PONG => {}
            CLOSE => return Ok(Some(unmasked(first, &payload))),
            PING => connection.write(&unmasked(first & 0xf0 | PONG, &payload)).await?,
            _ => {
                connection.write(&unmasked(first, &payload)).await?;
                echoed += 1;
            }
        }
    }
    Ok(None)
}

/// Echoes half of the next frame.
pub(super) async fn echo_half(connection: &mut Connection) -> Result<(), WireError> {
    let (first, payload) = frame(connection).await?;
    let frame = unmasked(first, &payload);
    Ok(connection.write(&frame[..frame.len().div_ceil(2)]).await?)
}

/// The next frame: its first byte, and its payload unmasked.
async fn frame(connection: &mut Connection) -> Result<(u8, Vec<u8>), WireError> {
    let start = connection.exactly(2).await?;
    let (first, second) = (start[0], start[1]);
    if second & 0x80 == 0 {
        return Err(WireError::Malformed("a frame of a client is not masked"));
    }
    let more = match second & 0x7f {
        126 => connection.exactly(2).await?,
        127 => connection.exactly(8).await?,
        _ => Bytes::copy_from_slice(&[second & 0x7f]),
    };
    let length = more.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
    let length = usize::try_from(length).ok().filter(|length| *length <= FRAME_MAX);
    let length = length.ok_or(WireError::TooLarge("a frame over 1 MiB"))?;
    let mask = connection.exactly(4).await?;
    let hidden = connection.exactly(length).await?;
    Ok((first, hidden.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()))
}

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let header = match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..126), _) => vec![first, short],
        (_, Ok(medium)) => [&[first, 126][..], &medium.to_be_bytes()].concat(),
        (_, Err(_)) => [&[first, 127][..], &(length as u64).to_be_bytes()].concat(),
    };
    [&header, payload].concat()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let four = |three: &[u8]| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(three.get(at).copied().unwrap_or(0)));
        let digit = move |at: u32| DIGITS[(bits >> (18 - 6 * at) & 0x3f) as usize] as char;
        let digits = three.len() + 1;
        (0..4).map(move |at| if (at as usize) < digits { digit(at) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(four).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_is_that_of_the_standard() {
        let head = switching("dGhlIHNhbXBsZSBub25jZQ==", 1);
        assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    }

    #[test]
    fn base64_pads_what_is_left() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
