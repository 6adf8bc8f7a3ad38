//! What a streaming client hears before its answer begins: the head of a stream, and comments in it. Its SDK skips
//! comments, but each one starts its read time-out anew, and that of every load balancer in between.

use http::header::{HeaderValue, TRANSFER_ENCODING};

use super::cause::Gone;
use super::downstream::Downstream;
use super::fields;
use crate::answer::{Facts, Outlook, Trace};
use crate::call::Call;
use crate::ids::CallId;
use crate::time::{self, Duration, Instant};

/// Keeps one client company until its answer begins.
pub(super) struct Keepalive {
    /// How long it hears nothing, and when that is over; `None`: it hears nothing before its answer.
    pace: Option<(Duration, Instant)>,
    has_begun: bool,
}

impl Keepalive {
    /// For the client of a call, if it is kept company.
    pub(super) fn of(call: &Call) -> Self {
        Self { pace: call.company.map(|pace| (pace, time::now() + pace)), has_begun: false }
    }

    /// Whether the client has the head of its stream: then nothing can be told by a status any more.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Completes when the client has to hear something. Dropping the future loses nothing.
    pub(super) async fn is_due(&self) {
        match self.pace {
            Some((_, due)) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Tells the client how its call stands, and before the first time the head of its stream. Never drop this future:
    /// half a comment may be on the wire.
    pub(super) async fn tell(
        &mut self,
        downstream: &mut Downstream<'_>,
        id: CallId,
        trace: &Trace,
    ) -> Result<(), Gone> {
        let facts = trace.facts();
        if !self.has_begun {
            self.has_begun = true;
            let mut head = fields::early_head(id, &facts);
            trace.note(|facts| facts.told = Some(head.status));
            if !downstream.is_http2() {
                head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            downstream.write_head(head).await?;
        }
        downstream.write_part(comment(trace.outlook(), &facts).into()).await?;
        if let Some((pace, due)) = &mut self.pace {
            *due = time::now() + *pace;
        }
        Ok(())
    }
}

/// One line, ended by one LF: a blank line would dispatch an empty event once an `id:` was seen.
fn comment(outlook: Option<Outlook>, facts: &Facts) -> String {
    match outlook {
        Some(Outlook { position, eta: Some(eta) }) => {
            let seconds = eta.as_millis().div_ceil(1_000);
            format!(": queued position={position} eta={seconds}s\n")
        }
        Some(Outlook { position, eta: None }) => format!(": queued position={position}\n"),
        None if facts.attempts == 0 => ": waiting\n".to_owned(),
        None => format!(": waiting attempt={}\n", facts.attempts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_one_line_that_says_how_the_call_stands() {
        let sent = Facts { attempts: 2, ..Facts::default() };
        for (outlook, facts, line) in [
            (Some((3, Some(3_100))), &sent, ": queued position=3 eta=4s\n"),
            (Some((1, Some(0))), &sent, ": queued position=1 eta=0s\n"),
            (Some((7, None)), &sent, ": queued position=7\n"),
            (None, &sent, ": waiting attempt=2\n"),
            (None, &Facts::default(), ": waiting\n"),
        ] {
            let outlook = outlook.map(|(position, eta)| Outlook { position, eta: eta.map(Duration::from_millis) });
            assert_eq!(comment(outlook, facts), line);
        }
    }
}
