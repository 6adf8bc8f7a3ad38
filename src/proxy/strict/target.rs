//! Whom and what a request line asks for (RFC 9112, section 3), and what `Host` may be.

use std::net::Ipv6Addr;

use crate::headers::grammar::is_token;

/// A request line, as far as the rest of the head must agree with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestLine<'a> {
    pub(super) is_http_1_0: bool,
    /// Of a target in absolute form.
    pub(super) authority: Option<&'a [u8]>,
}

/// Reads a request line without its CRLF.
pub(super) fn request_line(line: &[u8]) -> Result<RequestLine<'_>, &'static str> {
    if line.contains(&b'\t') {
        return Err("the request line has a tab: its parts are separated by one space each");
    }
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(method), Some(target), Some(version), None)
            if !method.is_empty() && !target.is_empty() && !version.is_empty() =>
        {
            (method, target, version)
        }
        (Some(_), None, ..) | (Some(_), Some(_), None, _) => {
            return Err("the request line must be a method, a target and HTTP/1.1");
        }
        _ => return Err("the request line has a space too many: its parts are separated by one space each"),
    };
    let is_http_1_0 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ if version.starts_with(b"HTTP/") => return Err("this connection speaks HTTP/1.1 and HTTP/1.0 only"),
        _ => return Err("the request line must end with HTTP/1.1"),
    };
    if !is_token(method) {
        return Err("the method has characters that methods cannot have");
    }
    if method == b"CONNECT" {
        return Err("CONNECT is not for this port: it forwards to configured upstreams only");
    }
    Ok(RequestLine { is_http_1_0, authority: authority_of(method, target)? })
}

/// The authority of a target in absolute form.
pub(super) fn authority_of<'a>(method: &[u8], target: &'a [u8]) -> Result<Option<&'a [u8]>, &'static str> {
    if !target.iter().all(u8::is_ascii_graphic) {
        return Err("the request target must be visible ASCII characters; percent-encode others");
    }
    if target.contains(&b'#') {
        return Err("the request target has a fragment (#), which is not for servers");
    }
    if target.contains(&b'\\') {
        return Err("the request target has a backslash, which some take for a slash; percent-encode it");
    }
    // pingora's URIs cannot hold these; others that RFC 3986 excludes are common in queries, and harmless.
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    if target.iter().any(|byte| matches!(byte, b'"' | b'<' | b'>')) || path.contains(&b'`') {
        return Err("the request target has quotes, angle brackets or a backtick; percent-encode them");
    }
    if target.starts_with(b"/") {
        return Ok(None);
    }
    if target == b"*" {
        return if method == b"OPTIONS" { Ok(None) } else { Err("the target * is for OPTIONS only") };
    }
    let Some(colon) = target.windows(3).position(|part| part == b"://") else {
        return Err("the request target must be a path that begins with a slash");
    };
    let (scheme, rest) = (&target[..colon], &target[colon + 3..]);
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err("an absolute request target must begin with http:// or https://");
    }
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let authority = &rest[..end];
    if authority.contains(&b'@') {
        return Err("the request target has user information (user@host): send Authorization instead");
    }
    host(authority).map_err(|_| "the request target names no valid host")?;
    Ok(Some(authority))
}

/// Checks the value of `Host`: a name or an address, perhaps a port.
pub(super) fn host(value: &[u8]) -> Result<(), &'static str> {
    let is_name_byte = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    if value.contains(&b'@') {
        return Err("Host has user information (user@host)");
    }
    if value.contains(&b',') {
        return Err("Host is a list: it must name one host");
    }
    let port = if let [b'[', rest @ ..] = value {
        let end = rest.iter().position(|byte| *byte == b']').ok_or("Host has a bracket that is not closed")?;
        let is_address = str::from_utf8(&rest[..end]).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok());
        if !is_address {
            return Err("Host has brackets around what is no IPv6 address");
        }
        &rest[end + 1..]
    } else {
        let end = value.iter().position(|byte| *byte == b':').unwrap_or(value.len());
        let name = &value[..end];
        if name.is_empty() {
            return Err("Host is empty");
        }
        if !name.iter().all(is_name_byte) {
            return Err("Host has characters that host names cannot have");
        }
        &value[end..]
    };
    match port {
        [] | [b':'] => Ok(()),
        [b':', digits @ ..] => {
            let is_number = digits.iter().all(u8::is_ascii_digit);
            let port = str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u16>().ok());
            if is_number && port.is_some() { Ok(()) } else { Err("Host has a port that is none") }
        }
        _ => Err("Host has something behind its address that is no port"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_hosts_pass() {
        for value in ["t", "example.com", "127.0.0.1:8080", "[::1]", "[::1]:80", "a_b-c~d.e", "T:65535", "t:", "t:080"]
        {
            assert_eq!(host(value.as_bytes()), Ok(()), "{value}");
        }
    }

    #[test]
    fn odd_hosts_are_refused() {
        for value in [
            "", ":80", "a b", "a@b", "a/b", "a?b", "a#b", "a,b", "a:b", "a:1:2", "a:+1", "a:65536", "[::1", "[::1]a",
            "[a.b]", "[]", "::1", "a%41", "a;b", "\u{e9}", "a\tb", "http://a",
        ] {
            assert!(host(value.as_bytes()).is_err(), "{value}");
        }
    }

    #[test]
    fn absolute_form_tells_its_authority() {
        let authority = |line: &'static str| request_line(line.as_bytes()).unwrap().authority;
        assert_eq!(authority("GET http://a:80/b?c HTTP/1.1"), Some(&b"a:80"[..]));
        assert_eq!(authority("GET HTTPS://a HTTP/1.0"), Some(&b"a"[..]));
        assert_eq!(authority("GET http://a?x=://b HTTP/1.1"), Some(&b"a"[..]));
        assert_eq!(authority("GET /x?y=http://z HTTP/1.1"), None);
    }
}
