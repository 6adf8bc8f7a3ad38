//! Heads of requests and responses, read strictly.

use super::{Framing, WireError};

const HEADERS_MAX: usize = 100;

/// Reads a head from the start of what came: the head and its length, or `None` while it is incomplete.
pub(super) type Parse<H> = fn(&[u8]) -> Result<Option<(H, usize)>, WireError>;

/// The head of a request.
#[derive(Debug)]
pub(in crate::sim) struct RequestHead {
    /// As it came.
    pub(in crate::sim) method: String,
    /// Path and query, as they came.
    pub(in crate::sim) target: String,
    /// In the order they came, names in the case they came.
    pub(in crate::sim) headers: Headers,
    /// Whether HTTP/1.0 is spoken, which knows no chunks.
    pub(in crate::sim) http_1_0: bool,
    /// How the body ends.
    pub(in crate::sim) framing: Framing,
}

impl RequestHead {
    pub(in crate::sim) fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    pub(in crate::sim) fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// Whether the client wants to use the connection again.
    pub(in crate::sim) fn keeps_alive(&self) -> bool {
        keeps_alive(&self.headers, self.http_1_0)
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(in crate::sim) fn expects_continue(&self) -> bool {
        self.headers.first("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    }
}

/// The head of a response.
#[derive(Debug)]
pub(in crate::sim) struct ResponseHead {
    /// The status code.
    pub(in crate::sim) status: u16,
    /// In the order they came.
    pub(in crate::sim) headers: Headers,
    /// How the body ends.
    pub(in crate::sim) framing: Framing,
    http_1_0: bool,
}

impl ResponseHead {
    /// Whether the server lets the connection be used again.
    pub(in crate::sim) fn keeps_alive(&self) -> bool {
        self.framing != Framing::UntilClose && keeps_alive(&self.headers, self.http_1_0)
    }
}

/// Headers in the order they came.
#[derive(Debug, Default)]
pub(in crate::sim) struct Headers(pub(in crate::sim) Vec<(String, String)>);

impl Headers {
    /// The first value of a header, whatever the case of its name.
    pub(in crate::sim) fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn parse(headers: &[httparse::Header<'_>]) -> Self {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        Self(headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect())
    }
}

pub(super) fn parse_request(bytes: &[u8]) -> Result<Option<(RequestHead, usize)>, WireError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = request.parse(bytes).map_err(refuse)? else { return Ok(None) };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Ok(None);
    };
    let headers = Headers::parse(request.headers);
    let framing = framing(&headers)?.unwrap_or(Framing::Empty);
    let (method, target) = (method.to_owned(), target.to_owned());
    Ok(Some((RequestHead { method, target, headers, http_1_0: minor == 0, framing }, length)))
}

pub(super) fn parse_response(bytes: &[u8]) -> Result<Option<(ResponseHead, usize)>, WireError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes).map_err(refuse)? else { return Ok(None) };
    let (Some(status), Some(minor)) = (response.code, response.version) else { return Ok(None) };
    let headers = Headers::parse(response.headers);
    let framing = match status {
        100..=199 | 204 | 304 => Framing::Empty,
        _ => framing(&headers)?.unwrap_or(Framing::UntilClose),
    };
    Ok(Some((ResponseHead { status, headers, framing, http_1_0: minor == 0 }, length)))
}

fn refuse(error: httparse::Error) -> WireError {
    match error {
        httparse::Error::TooManyHeaders => WireError::TooLarge("over 100 headers"),
        _ => WireError::Malformed("the head is not HTTP/1.1"),
    }
}

/// How the headers say the body ends, if they do. Refuses what two readers could understand differently.
fn framing(headers: &Headers) -> Result<Option<Framing>, WireError> {
    let mut lengths = headers.all("content-length");
    let mut codings = headers.all("transfer-encoding");
    let (length, coding) = (lengths.next(), codings.next());
    if lengths.next().is_some() || codings.next().is_some() {
        return Err(WireError::Malformed("content-length or transfer-encoding is repeated"));
    }
    match (length, coding) {
        (None, None) => Ok(None),
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
        (None, Some(_)) => Err(WireError::Malformed("a transfer-encoding other than chunked")),
        (Some(_), Some(_)) => Err(WireError::Malformed("both content-length and transfer-encoding")),
        (Some(length), None) => {
            let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
            let length = length.parse().ok().filter(|_| digits);
            Ok(Some(Framing::Length(length.ok_or(WireError::Malformed("content-length is not a number"))?)))
        }
    }
}

fn keeps_alive(headers: &Headers, http_1_0: bool) -> bool {
    let says = |word: &str| {
        headers
            .all("connection")
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case(word))
    };
    if http_1_0 { says("keep-alive") } else { !says("close") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<RequestHead, WireError> {
        parse_request(text.as_bytes()).map(|parsed| parsed.expect("complete").0)
    }

    #[test]
    fn request_heads_keep_order_and_case() {
        let head = request("POST /v1/x?y=1&z HTTP/1.1\r\nHost: a\r\nX-UP: 1\r\nContent-Length: 12\r\n\r\n").unwrap();
        assert_eq!((head.method.as_str(), head.path(), head.query()), ("POST", "/v1/x", "y=1&z"));
        assert_eq!(head.headers.0[1], ("X-UP".to_owned(), "1".to_owned()));
        assert_eq!(head.framing, Framing::Length(12));
        assert!(head.keeps_alive());
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for headers in [
            "content-length: 1\r\ncontent-length: 1",
            "content-length: 1\r\ntransfer-encoding: chunked",
            "transfer-encoding: gzip, chunked",
            "content-length: +1",
            "content-length: ",
            "content-length: 99999999999999999999",
        ] {
            assert!(request(&format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n")).is_err(), "{headers}");
        }
    }

    #[test]
    fn connection_options_decide_whether_it_is_used_again() {
        assert!(!request("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n").unwrap().keeps_alive());
        assert!(!request("GET / HTTP/1.0\r\n\r\n").unwrap().keeps_alive());
        assert!(request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap().keeps_alive());
    }
}
