//! A conversation that has become a connection: a WebSocket after its 101. It holds the permit as long as it lives.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::attempt::Answered;
use super::conversation::Loss;
use super::hold::Landed;
use crate::admission::Permit;
use crate::answer::{Trace, Upgraded};
use crate::time;

/// The connection of a 101.
pub(super) async fn switch(answered: Answered, trace: &Trace) -> Result<Landed, (Loss, Permit)> {
    let Answered { head, conversation, permit } = answered;
    let Some(stream) = conversation.into_stream().await else {
        return Err((Loss::new("101 on a connection that cannot switch"), permit));
    };
    let trace = trace.clone();
    Ok(Landed::Upgraded(head, Box::new(Connection { stream, holding: Some(Holding { permit, trace }) })))
}

/// A connection to a provider, with the permit that it was opened with.
struct Connection {
    stream: Stream,
    holding: Option<Holding>,
}

/// What is given back with a connection: as after an abort, unless it was [`Upgraded::closed`].
struct Holding {
    permit: Permit,
    trace: Trace,
}

impl Upgraded for Connection {
    fn closed(mut self: Box<Self>) {
        let holding = self.holding.take();
        drop(self); // first the connection, then the slot
        if let Some(Holding { permit, trace }) = holding {
            permit.ended();
            trace.note(|facts| facts.upstream_ended = Some(time::now()));
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(Holding { trace, .. }) = &self.holding {
            trace.note(|facts| facts.upstream_ended = Some(time::now()));
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
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
