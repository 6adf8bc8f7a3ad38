//! Where an upstream is: `base_url`.

use std::fmt;
use std::str::FromStr;

/// The base of an upstream's API, such as `https://integrate.api.nvidia.com/v1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    /// In clear or with TLS.
    pub scheme: Scheme,
    /// A host name or an IP address, an IPv6 one without its brackets.
    pub host: String,
    /// The port, the scheme's own where the URL names none.
    pub port: u16,
    /// The path, with a leading slash and without a trailing one; `/v1` where the URL has none.
    pub path: String,
}

/// In clear or with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In clear.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Why a base URL was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// Neither `http://` nor `https://`.
    #[error("must begin with http:// or https://")]
    Scheme,
    /// A user or password before the host.
    #[error("must not contain a user or password; use api_key")]
    UserInfo,
    /// A query or a fragment.
    #[error("must not contain a query or a fragment")]
    Query,
    /// No host, or not one that can be looked up.
    #[error("must name a host, such as api.openai.com or 127.0.0.1")]
    Host,
    /// A port that is no number from 1 to 65535.
    #[error("must have a port from 1 to 65535, or none")]
    Port,
    /// A path that cannot stand in a request line.
    #[error("must have a path of visible ASCII characters, percent-encoded where needed")]
    Path,
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        let (scheme, rest) = split_scheme(text.trim()).ok_or(BaseUrlError::Scheme)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(BaseUrlError::UserInfo);
        }
        if path.contains(['?', '#']) {
            return Err(BaseUrlError::Query);
        }
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BaseUrlError::Path);
        }
        let (host, port) = split_port(authority)?;
        let path = match path.trim_end_matches('/') {
            "" => "/v1",
            path => path,
        };
        Ok(Self { scheme, host, port: port.unwrap_or_else(|| scheme.port()), path: path.to_owned() })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.as_str())?;
        if self.host.contains(':') { write!(f, "[{}]", self.host) } else { f.write_str(&self.host) }?;
        if self.port != self.scheme.port() {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path)
    }
}

fn split_scheme(text: &str) -> Option<(Scheme, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    [Scheme::Http, Scheme::Https].into_iter().find(|s| scheme.eq_ignore_ascii_case(s.as_str())).map(|s| (s, rest))
}

/// Splits `host:port` and `[v6]:port`, with or without the port.
fn split_port(authority: &str) -> Result<(String, Option<u16>), BaseUrlError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(BaseUrlError::Host)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| BaseUrlError::Host)?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(BaseUrlError::Port)?) };
            (host, port)
        }
        None => {
            let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
            let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            if host.is_empty() || host.len() > 253 || !host.bytes().all(named) {
                return Err(BaseUrlError::Host);
            }
            (host, port)
        }
    };
    let port = port.map(|port| port.parse().ok().filter(|port| *port != 0).ok_or(BaseUrlError::Port)).transpose()?;
    Ok((host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> Result<String, BaseUrlError> {
        text.parse::<BaseUrl>().map(|url| url.to_string())
    }

    #[test]
    fn an_empty_path_means_v1_and_a_trailing_slash_means_nothing() {
        for text in ["https://api.openai.com", "https://api.openai.com/", "HTTPS://API.openai.com:443/v1/"] {
            assert_eq!(printed(text).as_deref(), Ok("https://api.openai.com/v1"), "{text}");
        }
        assert_eq!(printed("http://127.0.0.1:18790/a/b//").as_deref(), Ok("http://127.0.0.1:18790/a/b"));
    }

    #[test]
    fn ipv6_hosts_lose_their_brackets_and_print_with_them() {
        let url: BaseUrl = "http://[::1]:8000/v1".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port), ("::1", 8000));
        assert_eq!(url.to_string(), "http://[::1]:8000/v1");
        assert_eq!(printed("https://[::1]").as_deref(), Ok("https://[::1]/v1"));
    }

    #[test]
    fn what_could_be_misunderstood_is_refused() {
        for (text, error) in [
            ("api.openai.com", BaseUrlError::Scheme),
            ("ftp://host", BaseUrlError::Scheme),
            ("https://user:secret@host/v1", BaseUrlError::UserInfo),
            ("https://host/v1?key=1", BaseUrlError::Query),
            ("https://host#top", BaseUrlError::Query),
            ("https://", BaseUrlError::Host),
            ("https://ho st/", BaseUrlError::Host),
            ("https://[::1/", BaseUrlError::Host),
            ("https://[nonsense]/", BaseUrlError::Host),
            ("https://[::1]8080/", BaseUrlError::Port),
            ("https://host:0", BaseUrlError::Port),
            ("https://host:99999", BaseUrlError::Port),
            ("https://host:/", BaseUrlError::Port),
            ("https://host/ä", BaseUrlError::Path),
        ] {
            assert_eq!(printed(text), Err(error), "{text}");
        }
    }
}
