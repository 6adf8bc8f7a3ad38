//! The bare pingora shell: reads the body, forwards it over a pooled connection, relays the answer, and nothing else. What
//! tidegate costs more than this is ours.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::BytesMut;
use parking_lot::Mutex;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora_core::connectors::http::Connector;
use pingora_core::listeners::{L4BufferSettings, ListenerConfig};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::{Fds, ShutdownWatch};
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::BError;
use tokio::sync::watch;

use super::child;

/// As tidegate has them.
const READ_BUFFER: usize = 8 * 1024;
const WRITE_BUFFER: usize = 16 * 1024;

/// Serves until the parent has gone.
pub(crate) fn run(upstream: SocketAddr, threads: Option<usize>) {
    child::ends_with_its_parent();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        runtime.worker_threads(threads);
    }
    runtime.enable_all().build().unwrap().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        println!("{address}");
        io::stdout().flush().unwrap();
        let mut fds = Fds::new();
        fds.add(address.clone(), listener.into_raw_fd());
        let shell = Shell { connector: Connector::new(None), peer: HttpPeer::new(upstream, false, String::new()) };
        let mut service = Service::new("shell".to_owned(), shell);
        service.add_listener(ListenerConfig::tcp(address).l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER)));
        let (_never, shutdown) = watch::channel(false);
        service.start_service(Some(Arc::new(Mutex::new(fds))), shutdown, 1).await;
    });
}

struct Shell {
    connector: Connector,
    peer: HttpPeer,
}

#[async_trait]
impl HttpServerApp for Shell {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !session.read_request().await.ok()? {
            return None;
        }
        session.set_keepalive(Some(3_600));
        self.relay(&mut session).await.ok()?;
        let settings = HttpPersistentSettings::for_session(&session);
        let reusable = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
    }
}

impl Shell {
    async fn relay(&self, session: &mut ServerSession) -> Result<(), BError> {
        let mut body = BytesMut::new();
        while let Some(bytes) = session.read_request_body().await? {
            body.extend_from_slice(&bytes);
        }
        let request = session.req_header().clone();
        if request.uri.query() == Some("hold") {
            // Parked until its client leaves.
            session.read_body_or_idle(true).await?;
        }
        let (mut upstream, _) = self.connector.get_http_session(&self.peer).await?;
        upstream.write_request_header(Box::new(request)).await?;
        upstream.write_request_body(body.freeze(), true).await?;
        upstream.finish_request_body().await?;
        upstream.read_response_header().await?;
        let head = upstream.response_header().expect("it was read").clone();
        session.write_response_header(Box::new(head)).await?;
        while let Some(bytes) = upstream.read_response_body().await? {
            session.write_response_body(bytes, false).await?;
        }
        session.finish_body().await?;
        self.connector.release_http_session(upstream, &self.peer, None).await;
        Ok(())
    }
}
