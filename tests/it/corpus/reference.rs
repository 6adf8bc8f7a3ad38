//! A strict reader of requests, written apart from the one it checks: slow, whole buffers only, by the letter of
//! RFC 9112. What it reads has one meaning.

/// A request that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) method: String,
    pub(crate) target: String,
    /// In order; names in lower case, values without the white space around them.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    /// Where it ends.
    pub(crate) end: usize,
}

impl Message {
    pub(crate) fn values(&self, name: &str) -> Vec<Vec<u8>> {
        self.fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.clone()).collect()
    }
}

/// What the bytes are, from the first one on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Message(Message),
    /// Nothing wrong so far.
    Partial,
    /// No HTTP/1.1 that has one meaning.
    Wrong(String),
}

/// Reads the request at the beginning of `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Found {
    let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let Some(length) = find(&bytes[start..], b"\r\n\r\n") else { return Found::Partial };
    let body_at = start + length + 4;
    let head = match head(&bytes[start..start + length]) {
        Ok(head) => head,
        Err(wrong) => return Found::Wrong(wrong),
    };
    let values = head.values("transfer-encoding");
    let lengths = head.values("content-length");
    let body = match (values.as_slice(), lengths.as_slice()) {
        ([], []) => Ok(Some((Vec::new(), 0))),
        ([], [length]) => by_length(&bytes[body_at..], length),
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") => by_chunks(&bytes[body_at..]),
        _ => Err(format!("framing: {values:?} {lengths:?}")),
    };
    match body {
        Ok(Some((body, used))) => Found::Message(Message { body, end: body_at + used, ..head }),
        Ok(None) => Found::Partial,
        Err(wrong) => Found::Wrong(wrong),
    }
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    (0..bytes.len()).find(|at| bytes[*at..].starts_with(mark))
}

/// Cuts at each CRLF; no other CR or LF may be left.
fn lines(bytes: &[u8]) -> Result<Vec<&[u8]>, String> {
    let (mut lines, mut rest) = (Vec::new(), bytes);
    while let Some(at) = find(rest, b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    for line in &lines {
        if line.iter().any(|byte| (*byte < 32 && *byte != 9) || *byte == 127) {
            return Err(format!("a control byte in {:?}", line.escape_ascii().to_string()));
        }
    }
    Ok(lines)
}

fn head(bytes: &[u8]) -> Result<Message, String> {
    let lines = lines(bytes)?;
    let line = String::from_utf8(lines[0].to_vec()).map_err(|_| "a request line that is no text")?;
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, version @ ("HTTP/1.1" | "HTTP/1.0")] = parts[..] else {
        return Err(format!("request line {line:?}"));
    };
    let is_visible = |part: &str| !part.is_empty() && part.bytes().all(|byte| (33..127).contains(&byte));
    if !is_name(method.as_bytes()) || !is_visible(target) || target.contains(['#', '\\']) {
        return Err(format!("request line {line:?}"));
    }
    let fields = lines[1..].iter().map(|line| field(line)).collect::<Result<Vec<_>, _>>()?;
    let (method, target) = (method.to_owned(), target.to_owned());
    let head = Message { method, target, fields, body: Vec::new(), end: 0 };
    let hosts = head.values("host");
    if hosts.len() > 1 || (hosts.is_empty() && version == "HTTP/1.1") {
        return Err(format!("hosts {hosts:?}"));
    }
    if version == "HTTP/1.0" && !head.values("transfer-encoding").is_empty() {
        return Err("a coding in HTTP/1.0".to_owned());
    }
    let authority = head.target.split_once("://").filter(|_| !head.target.starts_with('/'));
    if let (Some((_, rest)), Some(host)) = (authority, hosts.first()) {
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if authority.as_bytes() != host.as_slice() {
            return Err(format!("{authority:?} against {host:?}"));
        }
    }
    Ok(head)
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), String> {
    let wrong = || format!("field line {:?}", line.escape_ascii().to_string());
    let colon = find(line, b":").ok_or_else(wrong)?;
    let name = &line[..colon];
    if !is_name(name) {
        return Err(wrong());
    }
    let is_blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let value: Vec<u8> = line[colon + 1..].iter().copied().skip_while(is_blank).collect();
    let end = value.iter().rposition(|byte| !is_blank(byte)).map_or(0, |at| at + 1);
    Ok((String::from_utf8_lossy(name).to_lowercase(), value[..end].to_vec()))
}

fn is_name(bytes: &[u8]) -> bool {
    let others = b"!#$%&'*+-.^_`|~";
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || others.contains(byte))
}

/// The body and how many bytes it takes; `None` while it is not complete.
type Body = Result<Option<(Vec<u8>, usize)>, String>;

fn by_length(bytes: &[u8], length: &[u8]) -> Body {
    let text = String::from_utf8_lossy(length);
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("length {text:?}"));
    }
    let length: i64 = text.parse().map_err(|_| format!("length {text:?}"))?;
    let Ok(length) = usize::try_from(length) else { return Err(format!("length {text:?}")) };
    Ok(bytes.get(..length).map(|body| (body.to_vec(), length)))
}

fn by_chunks(bytes: &[u8]) -> Body {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(length) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let line = String::from_utf8_lossy(lines(&bytes[at..at + length])?[0]).into_owned();
        at += length + 2;
        // What an extension may be is not looked at here; it ends with its line.
        let digits = line.split([';', ' ', '\t']).next().unwrap_or_default();
        if digits.is_empty() || digits.len() > 15 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("chunk size {line:?}"));
        }
        let size = usize::from_str_radix(digits, 16).map_err(|_| format!("chunk size {line:?}"))?;
        if size == 0 {
            break;
        }
        let Some(chunk) = bytes.get(at..).and_then(|rest| rest.get(..size.checked_add(2)?)) else { return Ok(None) };
        if !chunk.ends_with(b"\r\n") {
            return Err("a chunk without CRLF".to_owned());
        }
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
    }
    loop {
        let Some(length) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        if length == 0 {
            return Ok(Some((body, at + 2)));
        }
        let (name, _) = field(lines(&bytes[at..at + length])?[0])?;
        if ["content-length", "transfer-encoding", "host"].contains(&name.as_str()) {
            return Err(format!("trailer {name:?}"));
        }
        at += length + 2;
    }
}
