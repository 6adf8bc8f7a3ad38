//! The corpus as written: what is sent, and what must become of it.

use std::collections::BTreeMap;

/// A request, and what must become of it.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) why: String,
    raw: Option<String>,
    line: Option<String>,
    host: Option<String>,
    field: Option<String>,
    framing: Option<String>,
    body: Option<String>,
    chunks: Option<String>,
    path: Option<String>,
    #[serde(default)]
    pub(crate) expect: Expect,
    #[serde(default = "bad_request")]
    pub(crate) status: u16,
    /// The body as it arrives; not looked at where nothing is said.
    arrives: Option<String>,
    /// The target as it arrives.
    pub(crate) target: Option<String>,
    /// The values of fields as they arrive.
    #[serde(default)]
    pub(crate) fields: BTreeMap<String, Vec<String>>,
    /// The connection ends with the answer.
    #[serde(default)]
    pub(crate) closes: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Expect {
    #[default]
    Refused,
    Forwarded,
}

fn bad_request() -> u16 {
    400
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    request: Vec<Case>,
}

/// All requests of the corpus.
pub(crate) fn cases() -> Vec<Case> {
    let cases: Cases = toml::from_str(include_str!("requests.toml")).expect("a corpus");
    cases.request
}

impl Case {
    /// What the client sends.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let path = self.path.as_deref().unwrap_or("/v1/chat/completions");
        let post = format!("POST {path} HTTP/1.1\\r\\nHost: t\\r\\n");
        let body = self.body.as_deref().unwrap_or_default();
        let text = match self {
            Self { raw: Some(raw), .. } => raw.clone(),
            Self { line: Some(line), .. } => format!("{line}\\r\\nHost: t\\r\\n\\r\\n"),
            Self { host: Some(host), .. } => format!("GET /v1/models HTTP/1.1\\r\\n{host}\\r\\n\\r\\n"),
            Self { field: Some(field), .. } => format!("{post}Content-Length: 2\\r\\n{field}\\r\\n\\r\\n{{}}"),
            Self { framing: Some(framing), .. } => format!("{post}{framing}\\r\\n\\r\\n{body}"),
            Self { chunks: Some(chunks), .. } => format!("{post}Transfer-Encoding: chunked\\r\\n\\r\\n{chunks}"),
            _ => panic!("{}: nothing to send", self.name),
        };
        unescape(&text)
    }

    /// The body that must arrive.
    pub(crate) fn body(&self) -> Option<Vec<u8>> {
        self.arrives.as_deref().map(unescape)
    }
}

/// `\r \n \t \0 \\ \xFF`, and `\{9*text}` for nine times text.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = rest.as_bytes()[at + 1];
        let (byte, length) = match escape {
            b'r' => (b'\r', 2),
            b'n' => (b'\n', 2),
            b't' => (b'\t', 2),
            b'0' => (0, 2),
            b'\\' => (b'\\', 2),
            b'x' => (u8::from_str_radix(&rest[at + 2..at + 4], 16).expect("two hexadecimal digits"), 4),
            b'{' => {
                let (times, behind) = rest[at + 2..].split_once('*').expect("a number of times");
                let (unit, behind) = behind.split_once('}').expect("a closing brace");
                bytes.extend(unescape(unit).repeat(times.parse().expect("a number of times")));
                rest = behind;
                continue;
            }
            other => panic!("unknown escape \\{}", char::from(other)),
        };
        bytes.push(byte);
        rest = &rest[at + length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
