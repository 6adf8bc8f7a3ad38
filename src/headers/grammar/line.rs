//! Where a line ends: at CRLF, and nothing else may look like an end.

use super::first_control;

/// How long the end of a line is.
pub(crate) const CRLF: usize = 2;

/// How many of `bytes` belong to the line that began with `carried`; `None` when its end has not come.
///
/// # Errors
/// When a control byte stands in it, which some would take for its end, and others not.
pub(crate) fn end(carried: &[u8], bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    const BARE_CR: &str = "a CR without LF: lines end with CRLF";
    if carried.last() == Some(&b'\r') {
        return match bytes.first() {
            Some(b'\n') => Ok(Some(1)),
            Some(_) => Err(BARE_CR),
            None => Ok(None),
        };
    }
    let Some(at) = first_control(bytes) else { return Ok(None) };
    match (bytes[at], bytes.get(at + 1)) {
        (b'\r', Some(b'\n')) => Ok(Some(at + CRLF)),
        (b'\r', None) => Ok(None),
        (b'\r', Some(_)) => Err(BARE_CR),
        (b'\n', _) => Err("an LF without CR: lines end with CRLF"),
        _ => Err("a control character stands where text is expected"),
    }
}
