//! How much of a request is text: pictures and sound have few tokens for their bytes.

/// A run of so many characters of base64 is no text.
const RUN_MIN: usize = 1_024;

/// The bytes of a body outside of data in base64, whatever field or URL that stands in.
#[must_use]
pub fn text_bytes(body: &[u8]) -> usize {
    let (mut from, mut data) = (0, 0);
    // Looked at from its end, a window with a character of another kind is passed over as far as that: text costs little.
    while let Some(window) = body.get(from..from + RUN_MIN) {
        if let Some(other) = window.iter().rposition(|byte| !is_base64(*byte)) {
            from += other + 1;
            continue;
        }
        let rest = &body[from..];
        let run = rest.iter().position(|byte| !is_base64(*byte)).unwrap_or(rest.len());
        data += run;
        from += run;
    }
    body.len() - data
}

const fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_runs_of_base64_are_no_text() {
        let data = "QUJD+/-_".repeat(1_000);
        for (body, text) in [
            (String::new(), 0),
            ("a question ".repeat(1_000), 11_000),
            ("x".repeat(RUN_MIN - 1), RUN_MIN - 1),
            (data.clone(), 0),
            (format!("{{\"url\":\"data:image/png;base64,{data}\",\"text\":\"what is it\"}}"), 53),
            (format!("{data} {data}\"{}", "word ".repeat(500)), 2 + 2_500),
        ] {
            assert!(
                text_bytes(body.as_bytes()).abs_diff(text) <= 30,
                "{} of {}",
                text_bytes(body.as_bytes()),
                body.len()
            );
        }
    }
}
