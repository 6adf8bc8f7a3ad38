//! Clients of every wire: HTTP/2 and HTTP/1.1, in clear and over TLS; and those who keep no rule.

mod abuse;
mod answers;
mod bodies;
mod endings;
mod many;
mod patience;
mod tls;

use tidegate::config::Settings;
use tokio::net::TcpStream;

use crate::support::http2_client::Http2;
use crate::support::proxy::Builder;
use crate::support::tls::Certificate;
use crate::support::upstream::Scripted;
use crate::support::{Proxy, Step, Upstream, proxy};

const CHAT: &str = r#"{"model":"m"}"#;

/// What HTTP/2 runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Clear,
    Tls,
}

/// Both of them.
const WIRES: [Wire; 2] = [Wire::Clear, Wire::Tls];

/// A proxy, and how its clients get there.
struct House {
    proxy: Proxy,
    certificate: Option<Certificate>,
}

impl Wire {
    async fn proxy(self, builder: Builder) -> House {
        let certificate = (self == Self::Tls).then(Certificate::new);
        let tls = certificate.as_ref().map(Certificate::settings);
        House { proxy: builder.set(|settings| settings.server.tls = tls).start().await, certificate }
    }
}

impl House {
    /// A client of HTTP/2.
    async fn client(&self) -> Http2 {
        let Some(certificate) = &self.certificate else { return Http2::to(self.proxy.clients).await };
        let stream = certificate.connect(self.proxy.clients, &["h2", "http/1.1"]).await.expect("TLS");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Http2::over(stream).await
    }
}

/// A proxy in clear before a provider that answers everything with the same bytes.
async fn answering(answer: Vec<u8>, set: impl FnOnce(&mut Settings)) -> (Proxy, Scripted) {
    let upstream = Upstream::start().await;
    let proxy = proxy(&upstream).set(set).start().await;
    let forever = (0..50).flat_map(|_| [Step::Read, Step::Send(answer.clone())]).collect();
    (proxy, upstream.script([forever]))
}

/// A bare connection to the client port.
async fn bare(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.clients).await.expect("the proxy listens");
    stream.set_nodelay(true).expect("a socket");
    stream
}
