//! A log line as JSON.
//!
//! The same fields as tracing-subscriber's own format, which puts a line together from a hundred and forty pieces: an
//! eighth of the instructions of a call that passes through. This takes a fraction of that, for one line a call.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What a line of a call has room for without growing.
const LINE: usize = 512;
/// Records of the `log` crate say in a field where they come from.
const LOG_TARGET: &str = "log.target";

/// Each event is one flat object on one line. Spans do not appear.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let mut line = Line { text: String::with_capacity(LINE), has_target: false, written: Ok(()) };
        line.text.push_str("{\"timestamp\":\"");
        SystemTime.format_time(&mut Writer::new(&mut line.text))?;
        line.text.push_str("\",\"level\":\"");
        line.text.push_str(metadata.level().as_str());
        line.text.push('"');
        event.record(&mut line);
        if !line.has_target {
            line.string("target", metadata.target());
        }
        line.text.push_str("}\n");
        line.written?;
        writer.write_str(&line.text)
    }
}

struct Line {
    text: String,
    has_target: bool,
    /// Whether all values could be shown.
    written: fmt::Result,
}

impl Line {
    fn name(&mut self, name: &str) {
        self.text.push_str(",\"");
        escape(&mut self.text, name);
        self.text.push_str("\":");
    }

    fn string(&mut self, name: &str, value: &str) {
        self.name(name);
        self.text.push('"');
        escape(&mut self.text, value);
        self.text.push('"');
    }

    /// A figure, or a word that needs no quotes.
    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field.name());
        let written = write!(self.text, "{value}");
        self.written = self.written.and(written);
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            LOG_TARGET => {
                self.has_target = true;
                self.string("target", value);
            }
            name => self.string(name, value),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.plain(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.plain(field, value);
        } else {
            self.plain(field, "null"); // JSON knows no other word for it
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.name(field.name());
        self.text.push('"');
        let written = write!(Escaped(&mut self.text), "{value:?}");
        self.written = self.written.and(written);
        self.text.push('"');
    }
}

struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text);
        Ok(())
    }
}

/// Appends text as it stands between the quotes of a JSON string (RFC 8259, section 7).
fn escape(line: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        line.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'\n' => line.push_str("\\n"),
            byte @ (b'"' | b'\\') => line.extend(['\\', char::from(byte)]),
            control => line.push_str(&format!("\\u{control:04x}")),
        }
        rest = &rest[at + 1..];
    }
    line.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_comes_out_of_a_json_reader_as_it_went_in() {
        for text in
            ["", "plain", "\"quoted\" \\ slashed", "two\nlines\r\n\ttabbed", "\0\u{1f}\u{7f}", "grün 🦀\u{2028}"]
        {
            let mut line = String::from("\"");
            escape(&mut line, text);
            line.push('"');
            assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
            assert!(!line.contains('\n'));
        }
    }
}
