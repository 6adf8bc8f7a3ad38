//! The line before each chunk (RFC 9112, section 7.1).

use super::{is_blank, is_token_byte};

/// The longest line, its CRLF included: the size, and 256 bytes of extensions.
pub(crate) const LINE_MAX: usize = DIGITS_MAX + 256 + super::line::CRLF;
/// pingora reads hardly more digits, and no chunk needs more.
const DIGITS_MAX: usize = 15;

/// The size of a chunk. Extensions may be there, and mean nothing to us; they are not passed on.
pub(crate) fn size(line: &[u8]) -> Result<u64, &'static str> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extensions) = line.split_at(digits);
    if size.is_empty() {
        return Err("a chunk size must begin with a hexadecimal digit");
    }
    if digits > DIGITS_MAX {
        return Err("a chunk size has more than 15 digits");
    }
    if !are_extensions(extensions) {
        return Err("behind a chunk size stands what is no chunk extension");
    }
    let digit = |size, byte: &u8| (size << 4) | u64::from(char::from(*byte).to_digit(16).unwrap_or(0));
    Ok(size.iter().fold(0, digit))
}

/// `*( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] )`
fn are_extensions(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let Some(name) = after(rest, b';').and_then(token) else { return false };
        rest = name;
        if let Some(value) = after(rest, b'=') {
            let Some(behind) = token(value).or_else(|| quoted(value)) else { return false };
            rest = behind;
        }
    }
    true
}

/// What stands behind `mark` and the white space around it.
fn after(rest: &[u8], mark: u8) -> Option<&[u8]> {
    match start(rest) {
        [first, rest @ ..] if *first == mark => Some(start(rest)),
        _ => None,
    }
}

fn start(rest: &[u8]) -> &[u8] {
    let blanks = rest.iter().take_while(|byte| is_blank(**byte)).count();
    &rest[blanks..]
}

/// What stands behind a token.
fn token(rest: &[u8]) -> Option<&[u8]> {
    let length = rest.iter().take_while(|byte| is_token_byte(**byte)).count();
    (length > 0).then(|| &rest[length..])
}

/// What stands behind a quoted string. Control bytes were looked for before.
fn quoted(rest: &[u8]) -> Option<&[u8]> {
    let mut rest = rest.strip_prefix(b"\"")?;
    loop {
        rest = match rest {
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', _, behind @ ..] | [_, behind @ ..] => behind,
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_sizes_are_read() {
        for (line, expected) in [
            ("0", 0),
            ("5", 5),
            ("00a", 10),
            ("Ff", 255),
            ("fffffffffffffff", (1 << 60) - 1),
            ("5;a", 5),
            ("5;a=b;c=\"d;\\\"e\"", 5),
            ("5 ; a\t=  b", 5),
            ("5;a=\"\"", 5),
        ] {
            assert_eq!(size(line.as_bytes()), Ok(expected), "{line}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for line in [
            "",
            " 5",
            "5 ",
            "5\t",
            "+5",
            "-5",
            "0x5",
            "5_0",
            "5,",
            "g",
            ";a",
            "5;",
            "5;;a",
            "5;a=",
            "5; ",
            "5;a ",
            "5;a=\"b",
            "5;a=\"b\\",
            "5;a=\"b\"c",
            "5;a b",
            "5 5",
            "0000000000000000",
            "5;=b",
            "5;a=b=c",
            "5;\u{e9}",
        ] {
            assert!(size(line.as_bytes()).is_err(), "{line}");
        }
    }
}
