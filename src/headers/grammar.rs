//! The grammar that heads of requests and answers share (RFC 9110, section 5; RFC 9112, sections 5 and 6), over raw bytes.
//!
//! Nothing here repairs or guesses: what the grammar does not know has a reason, and whoever asked refuses it.

pub(crate) mod chunk;
pub(crate) mod line;

/// The characters of a token (RFC 9110, section 5.6.2), by byte.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128_u8 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

/// A length, a chunk size: what fits 63 bits is read alike by everyone who reads 64.
const LENGTH_MAX: u64 = i64::MAX.unsigned_abs();

pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// White space as HTTP means it: space and tab only.
pub(crate) fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Takes the white space off both ends.
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_blank(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_blank(*last)
    {
        bytes = rest;
    }
    bytes
}

/// Where the first control byte is, CR and LF among them. A tab counts as white space.
pub(crate) fn first_control(bytes: &[u8]) -> Option<usize> {
    let is_control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    let (words, rest) = bytes.as_chunks::<8>();
    let mut at = 0;
    for word in words {
        // A tab is found here, too, and is passed over.
        if has_low_or_delete(u64::from_le_bytes(*word))
            && let Some(inside) = word.iter().position(is_control)
        {
            return Some(at + inside);
        }
        at += word.len();
    }
    rest.iter().position(is_control).map(|inside| at + inside)
}

/// Whether one of eight bytes is less than a space, or DEL; all eight looked at as one number.
const fn has_low_or_delete(word: u64) -> bool {
    const EACH: u64 = u64::MAX / 255;
    const TOP: u64 = EACH << 7;
    let delete = word ^ (EACH * 0x7f);
    let low = word.wrapping_sub(EACH * 0x20) & !word;
    let none = delete.wrapping_sub(EACH) & !delete;
    (low | none) & TOP != 0
}

/// How many of the bytes belong to a body that lacks `left`, and how many it lacks then.
pub(crate) fn skip(bytes: &[u8], left: u64) -> (usize, u64) {
    let used = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (used, left - used as u64)
}

/// A field line without its CRLF: the name, and the value without the white space around it.
///
/// # Errors
/// A reason, when it is none. The caller has looked for control bytes.
pub(crate) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let name = line.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(line.len());
    match line.get(name) {
        Some(b':') if name > 0 => Ok((&line[..name], trim(&line[name + 1..]))),
        _ => Err(why_no_field(line)),
    }
}

#[cold]
fn why_no_field(line: &[u8]) -> &'static str {
    if line.first().is_some_and(|byte| is_blank(*byte)) {
        return "a header line begins with white space: folded header fields are not for HTTP any more";
    }
    match line.iter().position(|byte| *byte == b':').map(|colon| &line[..colon]) {
        None => "a header line has no colon",
        Some([]) => "a header field has no name",
        Some([.., b' ' | b'\t']) => "a header field has white space before its colon",
        Some(_) => "the name of a header field has characters that names cannot have",
    }
}

/// The value of a `Content-Length`.
///
/// # Errors
/// A reason, when it is anything but digits.
pub(crate) fn length(value: &[u8]) -> Result<u64, &'static str> {
    if value.is_empty() {
        return Err("Content-Length is empty");
    }
    if value.contains(&b',') {
        return Err("Content-Length is a list: it must be given once");
    }
    if !value.iter().all(u8::is_ascii_digit) {
        return Err("Content-Length must be decimal digits and nothing else");
    }
    let digit = |length: u64, byte: &u8| length.checked_mul(10)?.checked_add(u64::from(byte - b'0'));
    let length = value.iter().try_fold(0, digit).filter(|length| *length <= LENGTH_MAX);
    length.ok_or("Content-Length is too large to be meant")
}

/// Whether the comma-separated `value` has the word.
pub(crate) fn names(value: &[u8], word: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|part| trim(part).eq_ignore_ascii_case(word))
}

/// Whether `name` is `known`, or is made the same by readers that take `_` for `-`.
pub(crate) fn resembles(name: &[u8], known: &[u8]) -> bool {
    let same = |(theirs, ours): (&u8, &u8)| theirs.eq_ignore_ascii_case(ours) || (*theirs == b'_' && *ours == b'-');
    name.len() == known.len() && name.iter().zip(known).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_control_is_found_wherever_it_stands() {
        for length in [1, 31, 32, 33, 64, 100] {
            let mut bytes = vec![0x80; length];
            bytes[0] = b'\t';
            assert_eq!(first_control(&bytes), None);
            for at in 0..length {
                for control in [b'\r', b'\n', 0, 0x1f, 0x7f] {
                    let mut bytes = bytes.clone();
                    bytes[at] = control;
                    bytes.push(b'\n');
                    assert_eq!(first_control(&bytes), Some(at));
                }
            }
        }
    }

    #[test]
    fn field_takes_the_white_space_around_a_value_and_nothing_else() {
        assert_eq!(field(b"A-b:c"), Ok((&b"A-b"[..], &b"c"[..])));
        assert_eq!(field(b"a: \t b:c\xff \t"), Ok((&b"a"[..], &b"b:c\xff"[..])));
        assert_eq!(field(b"a:"), Ok((&b"a"[..], &b""[..])));
        for bad in [&b" a: b"[..], b"\ta: b", b"a : b", b"a\t: b", b": b", b"a", b"a b: c", b"a(: c", b"\xc3\xa9: c"] {
            assert!(field(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn length_is_digits() {
        assert_eq!(length(b"0"), Ok(0));
        assert_eq!(length(b"0042"), Ok(42));
        assert_eq!(length(b"9223372036854775807"), Ok(LENGTH_MAX));
        for bad in
            ["", "+1", "-1", "1 2", "1,1", "1, 1", "0x1", "1e3", "1.0", "9223372036854775808", "99999999999999999999"]
        {
            assert!(length(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn underscores_do_not_hide_a_name() {
        assert!(resembles(b"Content_Length", b"content-length") && resembles(b"CONTENT-length", b"content-length"));
        assert!(!resembles(b"content-lengths", b"content-length") && !resembles(b"content.length", b"content-length"));
    }
}
