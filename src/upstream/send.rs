//! Writing a request body while an answer may already come: a provider that refuses a large upload says so before it has
//! read all of it, and often does not read the rest.
//!
//! A refusal (a status from 400) ends the writing at once. Any other early answer waits until the body is written: its
//! provider may be reading on. What is buffered here is one piece. A body counts as written when its last piece was handed
//! to the transport: to the socket, of which the system keeps little unsent ([`super::connect`]), or, with HTTP/2, to the connection's task, which by then has up to 400 KiB of it, all
//! within what the provider's flow control has granted.

use std::pin::pin;

use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v1::client::HttpSession as Http1Session;
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::protocols::http::v2::write_body;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::conversation::{Conversation, Loss};
use super::outlet;
use crate::call::{BodyPart, BodyStream};
use crate::time::Duration;

/// A large body is written in pieces, so that the write time-out bounds the lack of progress and not the size.
const PIECE: usize = 64 * 1024;
/// A head that is longer is left to whoever reads the answer.
const HEAD_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 256;

/// How writing a request ended.
#[derive(Debug)]
pub(super) enum Sent {
    /// Completely.
    Written,
    /// A refusal came first: its head is there to be read.
    Answered,
    /// The client left in the middle of its body.
    ClientLeft,
    /// The provider stopped reading; it may have said why.
    Cut(Loss),
    /// The provider is gone.
    Lost(Loss),
}

/// A body to be written.
pub(super) enum Outgoing<'a> {
    /// All of it is at hand.
    Whole(Bytes),
    /// It comes from the client.
    Stream(&'a mut BodyStream),
}

enum Part {
    Data(Bytes),
    End,
    ClientLeft,
}

impl Outgoing<'_> {
    async fn next(&mut self) -> Part {
        match self {
            Self::Whole(bytes) if bytes.is_empty() => Part::End,
            Self::Whole(bytes) => Part::Data(bytes.split_to(bytes.len().min(PIECE))),
            Self::Stream(body) => match body.parts.recv().await {
                Some(BodyPart::Data(bytes)) => Part::Data(bytes),
                Some(BodyPart::End) => Part::End,
                None => Part::ClientLeft,
            },
        }
    }
}

impl Conversation {
    /// Has the head of a request wait for a body that follows at once: one packet, one call of the system.
    pub(super) fn expect_body(&self, body: &Outgoing<'_>) {
        if matches!(body, Outgoing::Whole(bytes) if (1..=PIECE).contains(&bytes.len())) {
            outlet::hold_head_back(&self.session);
        }
    }

    /// Whether a request that was written may still lie here for long: HTTP/2 keeps one without a body back until it may
    /// open one more stream, and queues what is long. Only its answer proves that it has left.
    pub(super) fn may_lag(&self, body: &Outgoing<'_>) -> bool {
        let is_short = matches!(body, Outgoing::Whole(bytes) if (1..=self.short()).contains(&bytes.len()));
        self.speaks_http2() && !is_short
    }

    /// Writes the body that the head announced.
    pub(super) async fn write_body(self, body: Outgoing<'_>, method: &Method, limit: Duration) -> (Self, Sent) {
        match body {
            // Gone in one piece: there is nothing to look for meanwhile.
            Outgoing::Whole(bytes) if bytes.len() <= self.short() => self.write_short(bytes).await,
            body => self.write_long(body, *method == Method::HEAD, limit).await,
        }
    }

    /// HTTP/2 shares its window between calls, and a body may have to wait for it.
    fn short(&self) -> usize {
        if self.speaks_http2() { PIECE / 4 } else { PIECE }
    }

    async fn write_short(mut self, body: Bytes) -> (Self, Sent) {
        let write = async {
            if !body.is_empty() {
                self.session.write_request_body(body, true).await?;
            }
            self.session.finish_request_body().await
        };
        let sent = match write.await {
            Ok(()) => Sent::Written,
            Err(error) => Sent::Cut(error.into()),
        };
        self.is_written = matches!(sent, Sent::Written);
        (self, sent)
    }

    async fn write_long(self, body: Outgoing<'_>, is_head: bool, limit: Duration) -> (Self, Sent) {
        let Self { session, peer, reused, home, .. } = self;
        let (session, sent, is_early) = match *session {
            HttpSession::H1(session) => {
                let (session, sent, is_early) = write_http1(session.into_inner(), body, limit).await;
                (HttpSession::H1(session), sent, is_early)
            }
            HttpSession::H2(mut session) => {
                let sent = write_http2(&mut session, body, limit).await;
                (HttpSession::H2(session), sent, false)
            }
            other @ HttpSession::Custom(()) => (other, Sent::Lost(Loss::new("no such protocol")), false),
        };
        // A connection on which an answer overtook its request is not used again: who knows what else got out of step.
        let is_written = matches!(sent, Sent::Written) && !is_early;
        let is_bodiless = is_head && session.as_http1().is_some();
        (Self { session: Box::new(session), peer, reused, home, is_written, is_bodiless }, sent)
    }
}

/// pingora cannot read while it writes, so the connection is taken out of its session, and put into a new one. Says also
/// whether anything of an answer came meanwhile.
async fn write_http1(stream: Stream, mut body: Outgoing<'_>, limit: Duration) -> (Http1Session, Sent, bool) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut early = BytesMut::new();
    let sent = {
        let mut write = pin!(pump(&mut writer, &mut body, limit));
        tokio::select! {
            biased;
            seen = watch(&mut reader, &mut early) => match seen {
                Seen::Refusal => Sent::Answered,
                Seen::Answer => match write.await {
                    Sent::Cut(_) => Sent::Answered,
                    sent => sent,
                },
                Seen::End(loss) => Sent::Lost(loss),
            },
            sent = &mut write => sent,
        }
    };
    let stream = reader.unsplit(writer);
    let is_early = !early.is_empty();
    outlet::rewind(&stream, early.freeze());
    (Http1Session::new(stream), sent, is_early)
}

/// Writes a body as its length, or the lack of one, frames it.
async fn pump(to: &mut (impl AsyncWrite + Unpin), body: &mut Outgoing<'_>, limit: Duration) -> Sent {
    let mut left = match body {
        Outgoing::Whole(bytes) => Some(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
        Outgoing::Stream(body) => body.length,
    };
    loop {
        let (bytes, is_last) = match (body.next().await, &mut left) {
            (Part::ClientLeft, _) => return Sent::ClientLeft,
            (Part::End, Some(0)) => return Sent::Written,
            (Part::End, None) => (Bytes::from_static(b"0\r\n\r\n"), true),
            (Part::Data(bytes), None) => (chunk(&bytes), false),
            (Part::Data(bytes), Some(left)) => {
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                let Some(less) = left.checked_sub(length) else { return Sent::Lost(Loss::new("body over its length")) };
                *left = less;
                (bytes, false)
            }
            (Part::End, Some(_)) => return Sent::Lost(Loss::new("body short of its length")),
        };
        let write = async {
            to.write_all(&bytes).await?;
            to.flush().await
        };
        match timeout(limit, write).await {
            Ok(Ok(())) if is_last => return Sent::Written,
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Sent::Cut(Loss::new(format!("writing: {}", error.kind()))),
            Err(_elapsed) => return Sent::Cut(Loss::new("nothing taken for write_timeout")),
        }
    }
}

fn chunk(bytes: &[u8]) -> Bytes {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat().into()
}

/// What a provider says before it has got the whole body.
enum Seen {
    Refusal,
    /// Any other final head, or what cannot be told.
    Answer,
    End(Loss),
}

/// Reads until a final head is there. Dropping the future loses nothing: what was read is in `early`.
async fn watch(from: &mut (impl AsyncRead + Unpin), early: &mut BytesMut) -> Seen {
    loop {
        match from.read_buf(early).await {
            Ok(1..) => {}
            Ok(0) => return Seen::End(Loss::new("EOF while the request was written")),
            Err(error) => return Seen::End(Loss::new(format!("{} while the request was written", error.kind()))),
        }
        while let Some(seen) = first_head(early) {
            match seen {
                Ok(seen) => return seen,
                Err(interim) => early.advance(interim),
            }
        }
    }
}

/// The first head, if it is whole: what it says, or the length of an interim one.
fn first_head(bytes: &[u8]) -> Option<Result<Seen, usize>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    match head.parse(bytes) {
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => None,
        Ok(httparse::Status::Complete(length)) => match head.code {
            Some(400..) => Some(Ok(Seen::Refusal)),
            Some(100 | 102..200) => Some(Err(length)),
            _ => Some(Ok(Seen::Answer)),
        },
        Ok(httparse::Status::Partial) | Err(_) => Some(Ok(Seen::Answer)),
    }
}

async fn write_http2(session: &mut Http2Session, mut body: Outgoing<'_>, limit: Duration) -> Sent {
    let Some(mut writer) = session.take_request_body_writer() else { return Sent::Lost(Loss::new("no body to write")) };
    let write = async {
        loop {
            let (bytes, ends) = match body.next().await {
                Part::Data(bytes) => (bytes, false),
                Part::End => (Bytes::new(), true),
                Part::ClientLeft => return Sent::ClientLeft,
            };
            match write_body(&mut writer, bytes, ends, Some(limit)).await {
                Ok(()) if ends => return Sent::Written,
                Ok(()) => {}
                Err(error) => return Sent::Cut(error.into()),
            }
        }
    };
    let mut write = pin!(write);
    tokio::select! {
        biased;
        read = session.read_response_header() => match read {
            Err(error) => Sent::Lost(error.into()),
            Ok(()) => match session.response_header() {
                Some(head) if head.status.as_u16() >= 400 => Sent::Answered,
                _ => match write.await {
                    Sent::Cut(_) => Sent::Answered,
                    sent => sent,
                },
            },
        },
        sent = &mut write => sent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_final_heads_are_answers() {
        let says = |text: &str| match first_head(text.as_bytes()) {
            None => "more".to_owned(),
            Some(Ok(Seen::Refusal)) => "refusal".to_owned(),
            Some(Ok(_)) => "answer".to_owned(),
            Some(Err(length)) => format!("interim {length}"),
        };
        assert_eq!(says(""), "more");
        assert_eq!(says("HTTP/1.1 413 Too La"), "more");
        assert_eq!(says("HTTP/1.1 413 Too Large\r\nConnection: close\r\n\r\n{"), "refusal");
        assert_eq!(says("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Oh\r\n\r\n"), "interim 25");
        assert_eq!(says("HTTP/1.1 200 OK\r\n\r\n"), "answer");
        assert_eq!(says("SSH-2.0-OpenSSH\r\n"), "answer");
    }
}
