//! `tidegate health`: is the local proxy ready? For container health checks.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;

use http::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::time::Duration;

/// A proxy that needs longer to say that it is ready is not.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Exits with 0 when the local proxy is ready for calls, else with 1, telling why on standard error.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example, in a Dockerfile:\n  \
                        HEALTHCHECK CMD [\"tidegate\", \"health\"]\n\n\
                        With the operators' port elsewhere:\n  \
                        tidegate health --admin-listen 127.0.0.1:9999\n  \
                        tidegate health --admin http://proxy.internal:9091")]
pub struct Args {
    /// The operators' port as in the settings of the proxy.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9091")]
    pub admin_listen: SocketAddr,
    /// The operators' port as a URL, for a proxy on another machine.
    #[arg(long, value_name = "URL", conflicts_with = "admin_listen", value_parser = authority)]
    pub admin: Option<String>,
}

/// Asks once. Dropping the future gives up.
///
/// # Errors
/// When standard error is closed.
pub async fn run(args: Args) -> io::Result<ExitCode> {
    let authority = args.admin.unwrap_or_else(|| local(args.admin_listen).to_string());
    let asked = tokio::time::timeout(TIMEOUT, readiness(&authority)).await;
    match asked.unwrap_or_else(|_| Err(format!("no answer from {authority} within {TIMEOUT:?}"))) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(reason) => {
            writeln!(io::stderr(), "not ready: {reason}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Where to connect for a port that listens on `addr`: one that listens everywhere is reached on loopback, too.
fn local(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], v4.port())),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], v6.port())),
        SocketAddr::V4(_) | SocketAddr::V6(_) => addr,
    }
}

/// `host:port` of a URL. The check speaks plain HTTP, and asks for nothing but readiness.
fn authority(url: &str) -> Result<String, String> {
    let refuse = || format!("expected a URL such as http://127.0.0.1:9091, found {url:?}");
    let uri: Uri = url.parse().map_err(|_| refuse())?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(host)) => Ok(format!("{host}:{}", uri.port_u16().unwrap_or(80))),
        _ => Err(refuse()),
    }
}

/// Asks `/readyz` at `authority`.
async fn readiness(authority: &str) -> Result<(), String> {
    let answer = ask(authority).await.map_err(|error| format!("{authority}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        Some(status) => {
            let told = serde_json::from_str::<serde_json::Value>(body).ok();
            let reason = told.as_ref().and_then(|told| told["reason"].as_str());
            Err(reason.map_or_else(|| format!("{authority} answered {status} to /readyz"), str::to_owned))
        }
        None => Err(format!("{authority} does not speak HTTP")),
    }
}

async fn ask(authority: &str) -> io::Result<String> {
    const ANSWER_MAX: u64 = 64 * 1024;
    let mut stream = TcpStream::connect(authority).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;
    use crate::time::Tasks;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(line: &str) -> Result<Args, clap::Error> {
        Command::try_parse_from(line.split(' ')).map(|command| command.args)
    }

    /// A port that answers one request with `answer`.
    async fn answering(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        Tasks::default().spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        authority
    }

    #[tokio::test]
    async fn ready_means_200_and_nothing_else() {
        assert_eq!(readiness(&answering("HTTP/1.1 200 OK\r\n\r\n{}").await).await, Ok(()));
        let draining = "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"status\":\"draining\",\"reason\":\"shutting down\"}";
        assert_eq!(readiness(&answering(draining).await).await, Err("shutting down".to_owned()));
        let elsewhere = readiness(&answering("HTTP/1.1 404 Not Found\r\n\r\nno").await).await.unwrap_err();
        assert!(elsewhere.contains("answered 404"), "{elsewhere}");
        assert!(readiness(&answering("hello").await).await.is_err());
    }

    #[tokio::test]
    async fn a_proxy_that_does_not_run_is_not_ready() {
        // A port that is taken, so that nobody else begins to listen on it.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let code = run(Args { admin_listen: socket.local_addr().unwrap(), admin: None }).await.unwrap();
        assert_eq!(code, ExitCode::FAILURE);
    }

    #[tokio::test]
    async fn a_proxy_that_hangs_is_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let code = tokio::time::timeout(TIMEOUT * 2, run(Args { admin_listen: addr, admin: None })).await;
        assert_eq!(code.unwrap().unwrap(), ExitCode::FAILURE);
    }

    #[test]
    fn the_port_is_given_as_an_address_or_as_a_url() {
        assert_eq!(parsed("health").unwrap().admin_listen, SocketAddr::from(([127, 0, 0, 1], 9091)));
        let admin = |url| parsed(&format!("health --admin {url}")).map(|args| args.admin.unwrap());
        assert_eq!(admin("http://proxy:9091").unwrap(), "proxy:9091");
        assert_eq!(admin("http://[::1]/readyz").unwrap(), "[::1]:80");
        for wrong in ["https://proxy", "proxy:9091", "/readyz", "http://"] {
            assert!(admin(wrong).is_err(), "{wrong}");
        }
        assert!(parsed("health --admin http://a --admin-listen 127.0.0.1:1").is_err());
    }

    #[test]
    fn a_port_that_listens_everywhere_is_asked_on_loopback() {
        assert_eq!(local("0.0.0.0:9".parse().unwrap()), "127.0.0.1:9".parse().unwrap());
        assert_eq!(local("[::]:9".parse().unwrap()), "[::1]:9".parse().unwrap());
        assert_eq!(local("10.0.0.1:9".parse().unwrap()), "10.0.0.1:9".parse().unwrap());
    }
}
