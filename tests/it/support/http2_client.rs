//! A client of HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::request::Builder;
use http::{HeaderMap, Method, Request, StatusCode};
use tidegate::time::Tasks;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::soon;

/// One connection to the proxy.
pub(crate) struct Http2 {
    requests: SendRequest<Bytes>,
    running: AbortOnDropHandle<Result<(), h2::Error>>,
}

/// A request that is being sent.
pub(crate) struct Sending {
    answer: ResponseFuture,
    pub(crate) body: SendStream<Bytes>,
}

/// An answer whose head has come.
pub(crate) struct Coming {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RecvStream,
}

impl Http2 {
    /// A connection in clear, by prior knowledge.
    pub(crate) async fn to(addr: SocketAddr) -> Self {
        let stream = soon("the proxy accepts", TcpStream::connect(addr)).await.expect("the proxy listens");
        stream.set_nodelay(true).expect("a socket");
        Self::over(stream).await
    }

    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self::with(&h2::client::Builder::new(), stream).await
    }

    pub(crate) async fn with(
        builder: &h2::client::Builder,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Self {
        let (requests, connection) = soon("the handshake", builder.handshake(stream)).await.expect("HTTP/2");
        Self { requests, running: AbortOnDropHandle::new(Tasks::default().spawn(connection)) }
    }

    /// Begins a request, which has a body unless it `ends`.
    pub(crate) async fn begin(&mut self, request: Request<()>, ends: bool) -> Sending {
        self.try_begin(request, ends).await.expect("a stream")
    }

    pub(crate) async fn try_begin(&mut self, request: Request<()>, ends: bool) -> Result<Sending, h2::Error> {
        let mut requests = soon("a stream", self.requests.clone().ready()).await?;
        let (answer, body) = requests.send_request(request, ends)?;
        Ok(Sending { answer, body })
    }

    /// A request with all of its body.
    pub(crate) async fn send(&mut self, request: Request<()>, body: impl Into<Bytes>) -> Sending {
        let (body, mut sending) = (body.into(), self.begin(request, false).await);
        sending.send(body, true).await.expect("the proxy reads");
        sending
    }

    /// Sends a request and reads its answer: status, header fields, body.
    pub(crate) async fn ask(
        &mut self,
        request: Request<()>,
        body: impl Into<Bytes>,
    ) -> (StatusCode, HeaderMap, Vec<u8>) {
        self.send(request, body).await.whole().await
    }

    /// How the connection ends: what the proxy said last, and what became of it.
    pub(crate) async fn until_the_end(self) -> (Option<Reason>, Result<(), h2::Error>) {
        let ended = soon("the end of the connection", self.running).await.expect("it runs");
        let last = self.requests.ready().await.err().filter(h2::Error::is_go_away);
        (last.and_then(|error| error.reason()), ended)
    }
}

impl Sending {
    /// Sends a part of the body as far as the proxy lets us.
    pub(crate) async fn send(&mut self, mut bytes: Bytes, ends: bool) -> Result<(), h2::Error> {
        loop {
            self.body.reserve_capacity(bytes.len());
            while self.body.capacity() == 0 && !bytes.is_empty() {
                let body = &mut self.body;
                match soon("room to send", std::future::poll_fn(|cx| body.poll_capacity(cx))).await {
                    Some(granted) => drop(granted?),
                    None => return Err(Reason::STREAM_CLOSED.into()),
                }
            }
            let piece = bytes.split_to(bytes.len().min(self.body.capacity()));
            self.body.send_data(piece, ends && bytes.is_empty())?;
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    pub(crate) fn reset(mut self) {
        self.body.send_reset(Reason::CANCEL);
    }

    pub(crate) async fn answer(self) -> Result<Coming, h2::Error> {
        let (head, body) = soon("the head of an answer", self.answer).await?.into_parts();
        Ok(Coming { status: head.status, headers: head.headers, body })
    }

    /// The status of an answer that is read to its end, however long it is in coming.
    pub(crate) async fn status_in_the_end(self) -> Result<StatusCode, h2::Error> {
        let (head, mut body) = self.answer.await?.into_parts();
        while let Some(bytes) = body.data().await {
            body.flow_control().release_capacity(bytes?.len())?;
        }
        Ok(head.status)
    }

    /// The whole answer.
    pub(crate) async fn whole(self) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut coming = self.answer().await.expect("an answer");
        let body = coming.rest().await.expect("a whole body");
        (coming.status, coming.headers, body)
    }
}

impl Coming {
    /// The next bytes, as they come; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, h2::Error>> {
        let bytes = soon("more of an answer", self.body.data()).await?;
        if let Ok(bytes) = &bytes {
            self.body.flow_control().release_capacity(bytes.len()).expect("what was taken");
        }
        Some(bytes)
    }

    /// The next bytes, as text.
    pub(crate) async fn text(&mut self) -> Option<String> {
        let bytes = self.next().await?.expect("a sound stream");
        Some(String::from_utf8(bytes.to_vec()).expect("text"))
    }

    /// All that is left, if it comes to its end.
    pub(crate) async fn rest(&mut self) -> Result<Vec<u8>, h2::Error> {
        let mut rest = Vec::new();
        while let Some(bytes) = self.next().await {
            rest.extend_from_slice(&bytes?);
        }
        Ok(rest)
    }
}

/// A request for this target.
pub(crate) fn request(method: Method, target: &str) -> Builder {
    Request::builder().method(method).uri(format!("http://tidegate{target}"))
}

/// A chat completion.
pub(crate) fn chat() -> Request<()> {
    request(Method::POST, "/v1/chat/completions")
        .header("content-type", "application/json")
        .body(())
        .expect("a request")
}

/// A request that has no body.
pub(crate) fn get(target: &str) -> Request<()> {
    request(Method::GET, target).body(()).expect("a request")
}

/// The code of an OpenAI-shaped error.
pub(crate) fn error_code(body: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    json["error"]["code"].as_str().expect("a code").to_owned()
}
