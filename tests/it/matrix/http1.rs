//! The provider of a cell, speaking HTTP/1.1.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::cell::{Fault, Form, Phase};
use super::script::{Piece, Script};
use crate::support::wire::{Reader, reset_on_drop};

pub(super) async fn serve(script: Arc<Script>, stream: TcpStream) {
    let fault = script.cell.fault;
    let mut line = Reader::new(stream);
    if script.connected() {
        return fail(fault, line.stream).await;
    }
    for nth in 0.. {
        let Ok(head) = line.head().await else { return };
        let fails = script.asked(nth);
        if fails == Some(Phase::Writing) {
            return fail(fault, line.stream).await;
        }
        let Ok(request) = line.body(&head, false).await else { return };
        let is_status = fails.is_some() && fault.status().is_some();
        let answer: String = if is_status {
            status(fault)
        } else {
            let pieces = script.answer(&request.bytes, fails);
            let is_chunked = matches!(pieces.first(), Some(Piece::Head(_, None)));
            pieces.into_iter().map(|piece| wire(piece, is_chunked)).collect()
        };
        if line.stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        if let Some(phase) = fails.filter(|_| !is_status) {
            script.settle(phase).await;
            return fail(fault, line.stream).await;
        }
    }
}

fn wire(piece: Piece, is_chunked: bool) -> String {
    match piece {
        Piece::Head(form, length) => {
            let kind = if form == Form::Stream { "text/event-stream" } else { "application/json" };
            let framing =
                length.map_or_else(|| "Transfer-Encoding: chunked".to_owned(), |it| format!("Content-Length: {it}"));
            format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n")
        }
        Piece::Data(data) if is_chunked && !data.is_empty() => format!("{:x}\r\n{data}\r\n", data.len()),
        Piece::Data(data) => data,
        Piece::End if is_chunked => "0\r\n\r\n".to_owned(),
        Piece::End => String::new(),
    }
}

fn status(fault: Fault) -> String {
    let (status, fields, body) = fault.status().expect("a status");
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    )
}

async fn fail(fault: Fault, mut stream: TcpStream) {
    match fault {
        Fault::Reset => reset_on_drop(&stream),
        Fault::Ends => drop(stream.write_all(b"0\r\n\r\n").await),
        // Without reading on: what is still written to it comes to a stand.
        Fault::Stall => std::future::pending().await,
        Fault::Malformed => {
            drop(stream.write_all(b"SSH-2.0-OpenSSH_9\r\n\r\n").await);
            drop(stream.shutdown().await);
            until_the_end(&mut stream).await;
        }
        _ if fault.status().is_some() => {
            drop(stream.write_all(status(fault).as_bytes()).await);
            drop(stream.shutdown().await);
            until_the_end(&mut stream).await;
        }
        _ => {}
    }
}

/// Takes whatever comes until the other side goes, so that what was said last is not lost in a reset.
pub(super) async fn until_the_end(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}
