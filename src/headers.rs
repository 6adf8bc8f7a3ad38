//! Header fields that end at each hop (RFC 9110, section 7.6.1) and those that are ours.

pub(crate) mod grammar;

use http::header::{CONNECTION, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Method};

/// The prefix of our own fields; none of them goes upstream, and none from upstream reaches a client.
pub const OURS: &str = "x-tidegate-";

/// Fields that speak of one connection only. `Trailer` is among them because trailers are not passed on.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    http::header::TE,
    http::header::TRAILER,
    http::header::TRANSFER_ENCODING,
    UPGRADE,
];

/// Fields that stay, whatever `Connection` says: a client must not strip what makes a request what it is.
const PROTECTED: [HeaderName; 5] = [
    http::header::HOST,
    http::header::AUTHORIZATION,
    http::header::CONTENT_LENGTH,
    http::header::CONTENT_TYPE,
    http::header::CONTENT_ENCODING,
];

/// Takes out the hop-by-hop fields and those that `Connection` names, and ours.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers.get_all(CONNECTION).iter().flat_map(tokens).collect();
    for name in HOP_BY_HOP.iter().chain(named.iter().filter(|name| !PROTECTED.contains(name))) {
        headers.remove(name);
    }
    let ours: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(OURS)).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
}

/// Whether a request of HTTP/1.1 is a WebSocket handshake (RFC 6455, section 4.1).
#[must_use]
pub fn is_websocket_handshake(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::GET && lists(headers, &CONNECTION, b"upgrade") && names_websocket(headers)
}

/// Whether `Upgrade` names WebSocket.
#[must_use]
pub fn names_websocket(headers: &HeaderMap) -> bool {
    lists(headers, &UPGRADE, b"websocket")
}

/// Whether a field that is a list has a member, in whatever case.
fn lists(headers: &HeaderMap, name: &HeaderName, member: &[u8]) -> bool {
    let mut members = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    members.any(|found| found.trim_ascii().eq_ignore_ascii_case(member))
}

fn tokens(value: &HeaderValue) -> Vec<HeaderName> {
    let words = value.as_bytes().split(|byte| *byte == b',');
    words.filter_map(|word| HeaderName::from_bytes(word.trim_ascii()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_by_hop_fields_and_those_connection_names_are_stripped() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("connection", "x-other, ,authorization, content-type"),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic eA=="),
            ("x-tidegate-priority", "high"),
            ("authorization", "Bearer k"),
            ("content-type", "application/json"),
            ("x-kept", "1"),
            ("x-kept", "2"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        let kept =
            [("authorization", "Bearer k"), ("content-type", "application/json"), ("x-kept", "1"), ("x-kept", "2")];
        assert_eq!(left, kept);
    }

    #[test]
    fn handshake_is_a_get_that_asks_for_websocket_on_this_connection() {
        let get = &Method::GET;
        for (method, connection, upgrade, is_one) in [
            (get, "Upgrade", "websocket", true),
            (get, "keep-alive, UPGRADE", "h2c, WebSocket", true),
            (&Method::POST, "Upgrade", "websocket", false),
            (get, "keep-alive", "websocket", false),
            (get, "Upgrade", "h2c", false),
            (get, "Upgrade", "websocket/13", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, HeaderValue::from_static(connection));
            headers.insert(UPGRADE, HeaderValue::from_static(upgrade));
            assert_eq!(is_websocket_handshake(method, &headers), is_one, "{method} {connection} {upgrade}");
        }
        assert!(!is_websocket_handshake(get, &HeaderMap::new()));
    }
}
