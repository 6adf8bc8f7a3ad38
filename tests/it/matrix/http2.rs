//! The provider of a cell, speaking HTTP/2: by hand, frame by frame, since no library would say such things.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::cell::{Fault, Form, Phase};
use super::http1::until_the_end;
use super::script::{Piece, Script};
use crate::support::wire::{End, Reader, reset_on_drop};

const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    body: Vec<u8>,
}

struct Line(Reader<TcpStream>);

pub(super) async fn serve(script: Arc<Script>, stream: TcpStream) {
    let mut line = Line(Reader::new(stream));
    match talk(&script, &mut line).await {
        Ok(()) | Err(End::Fin | End::Reset) => {} // the proxy may leave at any time
    }
}

async fn talk(script: &Script, line: &mut Line) -> Result<(), End> {
    let fault = script.cell.fault;
    if script.connected() {
        return fail(fault, 0, line).await.unwrap_or(Ok(()));
    }
    line.0.exactly(PREFACE).await?;
    line.send(SETTINGS, 0, 0, &[]).await;
    for nth in 0.. {
        let (stream, is_whole) = line.head().await?;
        let fails = script.asked(nth);
        let mut request = Vec::new();
        if !is_whole && fails != Some(Phase::Writing) {
            line.body(stream, &mut request).await?;
        }
        let is_early =
            matches!(fails, Some(Phase::Writing | Phase::Reused)) || fails.is_some() && fault.status().is_some();
        let pieces = if is_early { Vec::new() } else { script.answer(&request, fails) };
        let said = pieces.len();
        for piece in pieces {
            line.piece(stream, piece).await;
        }
        let Some(phase) = fails else { continue };
        if !is_early {
            script.settle(phase).await;
        }
        if let Some(end) = fail(fault, stream, line).await {
            return end;
        }
        if fault == Fault::GoawayGraceful {
            if phase == Phase::Writing {
                line.body(stream, &mut request).await?;
            }
            for piece in script.answer(&request, None).drain(said..) {
                line.piece(stream, piece).await;
            }
        }
    }
    Ok(())
}

/// Does what goes wrong; where that is the end of the connection it says so.
async fn fail(fault: Fault, stream: u32, line: &mut Line) -> Option<Result<(), End>> {
    let code = |code: u32| code.to_be_bytes();
    match fault {
        Fault::Reset => {
            reset_on_drop(&line.0.stream);
            return Some(Ok(()));
        }
        Fault::Eof => return Some(Ok(())),
        // The stream is silent; others go on. Whoever has not said hello yet never does.
        Fault::Stall if stream > 0 => {}
        Fault::Stall => std::future::pending().await,
        Fault::Ends => line.send(DATA, END_STREAM, stream, &[]).await,
        Fault::RefusedStream => line.send(RST_STREAM, 0, stream, &code(7)).await,
        Fault::InternalError => line.send(RST_STREAM, 0, stream, &code(2)).await,
        Fault::Cancel => line.send(RST_STREAM, 0, stream, &code(8)).await,
        Fault::GoawayGraceful => line.go_away(stream).await,
        Fault::GoawayCovering => {
            line.go_away(stream).await;
            return Some(Ok(()));
        }
        Fault::GoawayRefusing => {
            if stream == 0 {
                line.send(SETTINGS, 0, 0, &[]).await;
            }
            line.go_away(stream.saturating_sub(2)).await;
            until_the_end(&mut line.0.stream).await;
            return Some(Ok(()));
        }
        Fault::Malformed => {
            line.write(&[0xff; 64]).await; // longer than any frame may be
            until_the_end(&mut line.0.stream).await;
            return Some(Ok(()));
        }
        _ => line.status(stream, fault).await,
    }
    None
}

impl Line {
    /// The next request: its stream, and whether there is nothing more of it.
    async fn head(&mut self) -> Result<(u32, bool), End> {
        loop {
            let frame = self.frame().await?;
            if frame.kind == HEADERS {
                assert!(frame.flags & END_HEADERS > 0, "a short head");
                return Ok((frame.stream, frame.flags & END_STREAM > 0));
            }
        }
    }

    /// The rest of a request.
    async fn body(&mut self, stream: u32, request: &mut Vec<u8>) -> Result<(), End> {
        loop {
            let frame = self.frame().await?;
            if frame.kind == DATA && frame.stream == stream {
                self.take(stream, frame.body.len()).await;
                let is_last = frame.flags & END_STREAM > 0;
                request.extend(frame.body);
                if is_last {
                    return Ok(());
                }
            }
        }
    }

    /// The next frame. What has to be answered is; the window of the connection never closes, those of streams do.
    async fn frame(&mut self) -> Result<Frame, End> {
        let head = self.0.exactly(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let body = self.0.exactly(usize::try_from(length).expect("a length")).await?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let frame = Frame { kind: head[3], flags: head[4], stream, body };
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]).await,
            DATA if !frame.body.is_empty() => self.take(0, frame.body.len()).await,
            PING if frame.flags & ACK == 0 => self.send(PING, ACK, 0, &frame.body).await,
            _ => {}
        }
        Ok(frame)
    }

    /// Gives back what flow control took, of a stream or of the connection (0).
    async fn take(&mut self, stream: u32, length: usize) {
        if length > 0 {
            let more = u32::try_from(length).expect("a length").to_be_bytes();
            self.send(WINDOW_UPDATE, 0, stream, &more).await;
        }
    }

    async fn piece(&mut self, stream: u32, piece: Piece) {
        match piece {
            Piece::Head(form, length) => {
                let kind = if form == Form::Stream { "text/event-stream" } else { "application/json" };
                let length = length.map(|length| length.to_string());
                let length = length.as_deref().map(|length| ("content-length", length));
                let fields: Vec<_> = std::iter::once(("content-type", kind)).chain(length).collect();
                self.headers(stream, 200, &fields).await;
            }
            Piece::Data(data) if data.is_empty() => {}
            Piece::Data(data) => self.send(DATA, 0, stream, data.as_bytes()).await,
            Piece::End => self.send(DATA, END_STREAM, stream, &[]).await,
        }
    }

    async fn status(&mut self, stream: u32, fault: Fault) {
        let (status, fields, body) = fault.status().expect("a status");
        let fields: Vec<_> = [("content-type", "application/json")].iter().chain(fields).copied().collect();
        self.headers(stream, status, &fields).await;
        self.send(DATA, END_STREAM, stream, body.as_bytes()).await;
    }

    /// A head in HPACK's longest form: every field with its name, none remembered.
    async fn headers(&mut self, stream: u32, status: u16, fields: &[(&str, &str)]) {
        let status = status.to_string();
        let mut block = Vec::new();
        for (name, value) in std::iter::once((":status", status.as_str())).chain(fields.iter().copied()) {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).expect("short"));
                block.extend_from_slice(text.as_bytes());
            }
        }
        self.send(HEADERS, END_HEADERS, stream, &block).await;
    }

    /// Everything up to `last` was looked at, and nothing else will be.
    async fn go_away(&mut self, last: u32) {
        self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat()).await;
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, body: &[u8]) {
        let [_, a, b, c] = u32::try_from(body.len()).expect("a length").to_be_bytes();
        let head = [&[a, b, c, kind, flags][..], &stream.to_be_bytes()].concat();
        self.write(&[&head, body].concat()).await;
    }

    /// Writes as far as it goes: the proxy may have left.
    async fn write(&mut self, bytes: &[u8]) {
        drop(self.0.stream.write_all(bytes).await);
    }
}
