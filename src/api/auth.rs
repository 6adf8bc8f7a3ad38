//! Who may see metrics and administer: whoever knows the token, or, without one, whoever sits on this machine.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{Admin, error};
use crate::units::Secret;

/// Why the operators' port cannot be where it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("server.admin_listen = {0} would let others administer: set server.admin_token, or listen on 127.0.0.1")]
pub struct BindRefused(SocketAddr);

/// Without a token the operators' port stays on loopback.
///
/// # Errors
/// When `addr` can be reached from elsewhere and there is no token, or an empty one.
pub fn check_bind(addr: SocketAddr, token: Option<&Secret>) -> Result<(), BindRefused> {
    if given(token).is_some() || addr.ip().to_canonical().is_loopback() { Ok(()) } else { Err(BindRefused(addr)) }
}

/// An empty token, as an unset variable leaves it, protects nothing.
fn given(token: Option<&Secret>) -> Option<&Secret> {
    token.filter(|token| !token.expose().is_empty())
}

/// Lets a request through, or answers it with 401 or 403.
pub(super) async fn require(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    match given(admin.token.as_ref()) {
        Some(token) if !bears(request.headers(), token) => unauthorized(),
        None if !is_local(request.headers()) => error(
            StatusCode::FORBIDDEN,
            "forbidden",
            "without server.admin_token this port answers only under a loopback name and to no web page",
        ),
        Some(_) | None => next.run(request).await,
    }
}

fn unauthorized() -> Response {
    let message = "send server.admin_token as Authorization: Bearer";
    let mut response = error(StatusCode::UNAUTHORIZED, "invalid_api_key", message);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Digests are compared, in constant time: how long it takes tells nothing about the token.
fn bears(headers: &HeaderMap, token: &Secret) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, given) = value.as_bytes().split_at_checked("bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| given.trim_ascii())
    });
    given.is_some_and(|given| blake3::hash(given) == blake3::hash(token.expose().as_bytes()))
}

/// Loopback alone keeps no browser out: a page of anybody can send a POST to it, or have its own name resolve to it.
/// The first names a foreign `Origin`, the second a foreign `Host`.
fn is_local(headers: &HeaderMap) -> bool {
    let names_loopback = |authority: &str| {
        authority.parse::<Authority>().is_ok_and(|authority| {
            let host = authority.host().trim_start_matches('[').trim_end_matches(']');
            host.eq_ignore_ascii_case("localhost")
                || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
        })
    };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    host.is_some_and(names_loopback)
        && origin.is_none_or(|origin| origin.split_once("://").map(|(_, authority)| authority) == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn without_a_token_only_loopback_is_bound() {
        let token = Secret::new("t".to_owned());
        for (addr, alone) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
        ] {
            let addr = addr.parse().unwrap();
            assert_eq!(check_bind(addr, None).is_ok(), alone, "{addr}");
            assert_eq!(check_bind(addr, Some(&Secret::new(String::new()))).is_ok(), alone, "{addr}");
            assert!(check_bind(addr, Some(&token)).is_ok(), "{addr}");
        }
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = Secret::new("abc".to_owned());
        for right in ["Bearer abc", "bearer abc", "BEARER  abc "] {
            assert!(bears(&headers(&[(header::AUTHORIZATION, right)]), &token), "{right}");
        }
        for wrong in ["", "abc", "Bearer", "Bearer ", "Bearer ab", "Bearer abcd", "Basic abc"] {
            assert!(!bears(&headers(&[(header::AUTHORIZATION, wrong)]), &token), "{wrong}");
        }
        assert!(!bears(&HeaderMap::new(), &token));
    }

    #[test]
    fn no_web_page_reaches_the_port_by_way_of_a_browser() {
        for host in ["localhost:9091", "LOCALHOST", "127.0.0.1:9091", "127.8.9.1", "[::1]:9091"] {
            assert!(is_local(&headers(&[(header::HOST, host)])), "{host}");
        }
        for host in ["evil.example:9091", "10.0.0.1", "localhost.evil.example", ""] {
            assert!(!is_local(&headers(&[(header::HOST, host)])), "{host}");
        }
        let with_origin = |origin| is_local(&headers(&[(header::HOST, "127.0.0.1:9091"), (header::ORIGIN, origin)]));
        assert!(with_origin("http://127.0.0.1:9091"));
        for origin in ["https://evil.example", "http://127.0.0.1:3000", "null", ""] {
            assert!(!with_origin(origin), "{origin}");
        }
    }
}
