//! A provider that speaks HTTP/2, in clear or on a stream that is given to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response};
use tidegate::time::Tasks;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use super::soon;

/// A request, and the number of its connection, from 0.
pub(crate) struct Asked {
    pub(crate) connection: usize,
    pub(crate) request: Request<RecvStream>,
    pub(crate) respond: SendResponse<Bytes>,
}

/// A provider that does with each request as it is told. It runs until it is dropped.
pub(crate) struct Provider {
    pub(crate) addr: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    _tasks: tokio_util::task::AbortOnDropHandle<()>,
}

impl Provider {
    pub(crate) async fn start<F>(handle: impl Fn(Asked) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let (tasks, count) = (Tasks::default(), Arc::clone(&connections));
        let spawner = tasks.clone();
        let accepting = tasks.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                stream.set_nodelay(true).expect("a socket");
                let number = count.fetch_add(1, Ordering::SeqCst);
                spawner.spawn(serve(stream, number, handle.clone(), spawner.clone()));
            }
        });
        Self { addr, connections, _tasks: tokio_util::task::AbortOnDropHandle::new(accepting) }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }
}

/// Serves one connection until it ends.
pub(crate) async fn serve<F>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    connection: usize,
    handle: impl Fn(Asked) -> F,
    tasks: Tasks,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(mut http) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = http.accept().await {
        tasks.spawn(handle(Asked { connection, request, respond }));
    }
}

impl Asked {
    /// Reads the whole body, giving back what flow control took.
    pub(crate) async fn body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(bytes) = soon("more of the body", self.request.body_mut().data()).await {
            let bytes = bytes.expect("the body is whole");
            self.request.body_mut().flow_control().release_capacity(bytes.len()).expect("capacity");
            body.extend_from_slice(&bytes);
        }
        body
    }

    /// Answers at once with a whole JSON document.
    pub(crate) fn answer(&mut self, status: u16, body: impl Into<Bytes>) {
        let body = body.into();
        let head = Response::builder().status(status).header("content-type", "application/json");
        let head = head.header("content-length", body.len()).body(()).expect("a head");
        let mut sending = self.respond.send_response(head, false).expect("the proxy listens");
        sending.send_data(body, true).expect("the proxy listens");
    }

    /// Begins an event stream.
    pub(crate) fn begin_stream(&mut self) -> h2::SendStream<Bytes> {
        let head = Response::builder().header("content-type", "text/event-stream").body(()).expect("a head");
        self.respond.send_response(head, false).expect("the proxy listens")
    }
}
