//! A conversation that has become a connection: a WebSocket after its 101. It holds the permit as long as it lives.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::attempt::Answered;
use super::connect::Loss;
use super::hold::Landed;
use crate::admission::Permit;
use crate::answer::{Trace, Upgraded};
use crate::time;

/// The connection of a 101.
pub(super) async fn switch(answered: Answered, trace: &Trace) -> Result<Landed, Loss> {
    let Answered { head, conversation, permit } = answered;
    let Some((early, stream)) = conversation.into_stream().await else {
        return Err(Loss::new("101 on a connection that cannot switch"));
    };
    let trace = trace.clone();
    Ok(Landed::Upgraded(head, Box::new(Connection { early, stream, holding: Some(Holding { permit, trace }) })))
}

/// A connection to a provider, with the permit that it was opened with.
struct Connection<S> {
    /// What the provider sent right behind its head.
    early: Bytes,
    stream: S,
    holding: Option<Holding>,
}

/// What is given back with a connection: as after an abort, unless it was [`Upgraded::closed`].
struct Holding {
    permit: Permit,
    trace: Trace,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Upgraded for Connection<S> {
    fn closed(mut self: Box<Self>) {
        let holding = self.holding.take();
        drop(self); // first the connection, then the slot
        if let Some(Holding { permit, trace }) = holding {
            permit.ended();
            trace.note(|facts| facts.upstream_ended = Some(time::now()));
        }
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        if let Some(Holding { trace, .. }) = &self.holding {
            trace.note(|facts| facts.upstream_ended = Some(time::now()));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early[..length]);
        self.early.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_came_behind_the_head_is_read_first() {
        let (stream, mut provider) = tokio::io::duplex(64);
        let mut connection = Connection { early: Bytes::from_static(b"early"), stream, holding: None };
        provider.write_all(b" late").await.unwrap();
        drop(provider);
        let mut buffer = [0; 3];
        connection.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"ear");
        let mut rest = String::new();
        connection.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "ly late");
    }
}
