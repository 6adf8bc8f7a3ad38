//! HTTP/1.1 byte by byte, over one TCP connection: for the simulated provider, and for the clients that verify it.
//!
//! Written out rather than borrowed, because both must see and do what HTTP libraries hide: who hung up and when, which
//! byte was the last, a reset in the middle of a chunk.

mod body;
mod head;

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(super) use body::{Body, Framing};
pub(super) use head::{RequestHead, ResponseHead};

const HEAD_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 32 * 1024;

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The connection was reset, or could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The connection ended inside a message.
    #[error("the connection ended inside a message")]
    Ended,
    /// What came is not HTTP, or HTTP that two readers could understand differently.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// The head or the body is larger than allowed.
    #[error("message too large: {0}")]
    TooLarge(&'static str),
}

/// One TCP connection and what was read from it ahead of its use.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    ahead: BytesMut,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        // Without TCP_NODELAY the figures are worse, not wrong.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY refused");
        }
        Self { stream, ahead: BytesMut::new() }
    }

    /// The next request head; `None` when the client closed the connection between requests. Dropping the future loses
    /// nothing that was read.
    pub(super) async fn request_head(&mut self) -> Result<Option<RequestHead>, WireError> {
        self.head(head::parse_request).await
    }

    /// The next response head; `None` when the server closed the connection before any byte of it. Dropping the future
    /// loses nothing that was read.
    pub(super) async fn response_head(&mut self) -> Result<Option<ResponseHead>, WireError> {
        self.head(head::parse_response).await
    }

    async fn head<H>(&mut self, parse: head::Parse<H>) -> Result<Option<H>, WireError> {
        loop {
            if let Some((head, length)) = parse(&self.ahead)? {
                let _consumed = self.ahead.split_to(length);
                return Ok(Some(head));
            }
            if self.ahead.len() > HEAD_BYTES_MAX {
                return Err(WireError::TooLarge("head over 64 KiB"));
            }
            if self.read_more().await? == 0 {
                return if self.ahead.is_empty() { Ok(None) } else { Err(WireError::Ended) };
            }
        }
    }

    /// The next piece of a body; `None` at its end. Dropping the future loses nothing.
    pub(super) async fn piece(&mut self, body: &mut Body) -> Result<Option<Bytes>, WireError> {
        loop {
            match body.take(&mut self.ahead)? {
                body::Step::Piece(piece) => return Ok(Some(piece)),
                body::Step::Done => return Ok(None),
                body::Step::More => {}
            }
            if self.read_more().await? == 0 {
                return if body.ends_with_connection() { Ok(None) } else { Err(WireError::Ended) };
            }
        }
    }

    /// So many bytes, however they are framed. Dropping the future loses nothing.
    pub(super) async fn exactly(&mut self, length: usize) -> Result<Bytes, WireError> {
        while self.ahead.len() < length {
            if self.read_more().await? == 0 {
                return Err(WireError::Ended);
            }
        }
        Ok(self.ahead.split_to(length).freeze())
    }

    /// A whole body of at most `max` bytes. Dropping the future in the middle leaves the connection unusable.
    pub(super) async fn whole_body(&mut self, framing: Framing, max: usize) -> Result<Bytes, WireError> {
        let mut body = Body::new(framing);
        let mut whole = BytesMut::new();
        while let Some(piece) = self.piece(&mut body).await? {
            if whole.len() + piece.len() > max {
                return Err(WireError::TooLarge("body over the allowed size"));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Returns once the other side ended or reset the connection; a client that only stopped sending counts as gone, too.
    /// What it sends meanwhile is kept. Dropping the future loses nothing.
    pub(super) async fn hung_up(&mut self) {
        loop {
            if self.ahead.len() > HEAD_BYTES_MAX {
                // Someone pipelines a lot: no more is read ahead, and the next write will notice when nobody is there.
                return std::future::pending().await;
            }
            if !matches!(self.read_more().await, Ok(1..)) {
                return;
            }
        }
    }

    /// Whether the other side has ended the connection already. Does not wait.
    pub(super) fn is_over(&mut self) -> bool {
        match self.stream.try_read_buf(&mut self.ahead) {
            Ok(read) => read == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Writes all bytes. Dropping the future may leave some of them written.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Waits until something can be written.
    pub(super) async fn writable(&self) -> io::Result<()> {
        self.stream.writable().await
    }

    /// Writes what can be written at once, and says how much that was.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    /// Sends the end of the connection and drops it.
    pub(super) async fn close(mut self) {
        // The other side may be gone already, which is as good.
        if let Err(error) = self.stream.shutdown().await {
            tracing::trace!(%error, "already closed");
        }
    }

    /// Resets the connection: no end, no answer, only RST.
    pub(super) fn reset(self) {
        if let Err(error) = self.stream.set_zero_linger() {
            tracing::debug!(%error, "SO_LINGER refused");
        }
    }

    async fn read_more(&mut self) -> io::Result<usize> {
        self.ahead.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.ahead).await
    }
}
