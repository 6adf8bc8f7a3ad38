//! The kinds of values: how each reads, what to say when it does not, and how it prints.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use toml::Value;

use super::schema::Setting;
use super::written::Written;
use crate::units::{Secret, format_duration, format_size, parse_duration, parse_size};

/// A value that is written as a string.
pub(super) trait Text: Sized {
    /// What it is, for messages, and an example of it.
    const EXPECTED: (&str, &str);
    /// Whether it must never be shown.
    const SECRET: bool = false;

    /// Reads it; `Err` says what is wrong where `EXPECTED` would not tell.
    fn parse(text: &str) -> Result<Self, Option<String>>;

    /// The string that means it.
    fn print(&self) -> String;
}

impl<T: Text> Setting for T {
    const SECRET: bool = T::SECRET;

    fn read(written: &Written<'_>) -> Option<Self> {
        let (what, example) = T::EXPECTED;
        T::parse(written.text(what, example)?.trim()).map_or_else(
            |problem| match problem {
                Some(problem) => written.refuse(problem, format!("write it like {example}")),
                None => written.expected(what, example),
            },
            Some,
        )
    }

    fn write(&self) -> Option<Value> {
        Some(Value::String(self.print()))
    }
}

impl Text for String {
    const EXPECTED: (&str, &str) = ("a string", "\"text\"");

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.is_empty() { Err(Some("is empty".to_owned())) } else { Ok(text.to_owned()) }
    }

    fn print(&self) -> String {
        self.clone()
    }
}

impl Text for Secret {
    const EXPECTED: (&str, &str) = ("a key of visible ASCII characters", "\"${API_KEY}\"");
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self::new(text.to_owned())) } else { Err(None) }
    }

    fn print(&self) -> String {
        Self::REDACTED.to_owned()
    }
}

/// A blake3 hash. It stands for a secret without being one.
impl Text for [u8; 32] {
    const EXPECTED: (&str, &str) = ("a blake3 hash of 64 hex digits", "the output of b3sum");

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let mut hash = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(None);
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = str::from_utf8(digits).map_err(|_| None)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| None)?;
        }
        Ok(hash)
    }

    fn print(&self) -> String {
        self.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Text for SocketAddr {
    const EXPECTED: (&str, &str) = ("an IP address and a port", "\"127.0.0.1:8080\" or \"0.0.0.0:8080\"");

    fn parse(text: &str) -> Result<Self, Option<String>> {
        text.parse().map_err(|_| None)
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

impl Text for PathBuf {
    const EXPECTED: (&str, &str) = ("a path", "\"state\"");

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.is_empty() { Err(Some("is empty".to_owned())) } else { Ok(Self::from(text)) }
    }

    fn print(&self) -> String {
        self.to_string_lossy().into_owned()
    }
}

impl Text for Duration {
    const EXPECTED: (&str, &str) =
        ("a duration in whole milliseconds", "\"1500ms\", \"30s\", \"10m\", \"1h\" or \"7d\"");

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let duration = parse_duration(text).map_err(|_| None)?;
        if duration.subsec_nanos().is_multiple_of(1_000_000) { Ok(duration) } else { Err(None) }
    }

    fn print(&self) -> String {
        format_duration(*self)
    }
}

/// A value that can be switched off with `"off"`, where leaving it out means its default.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OrOff<T>(pub(super) Option<T>);

impl<T: Text> Text for OrOff<T> {
    const EXPECTED: (&str, &str) = T::EXPECTED;
    const SECRET: bool = T::SECRET;

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text == "off" { Ok(Self(None)) } else { T::parse(text).map(|value| Self(Some(value))) }
    }

    fn print(&self) -> String {
        self.0.as_ref().map_or_else(|| "off".to_owned(), T::print)
    }
}

/// Names the values of enums, in the file's words.
macro_rules! choices {
    ($($choice:ty { $first:ident = $first_name:literal $(, $variant:ident = $name:literal)* $(,)? })*) => { $(
        impl $crate::config::values::Text for $choice {
            const EXPECTED: (&str, &str) = (
                concat!("one of ", $first_name $(, ", ", $name)*),
                concat!("\"", $first_name, "\""),
            );

            fn parse(text: &str) -> Result<Self, Option<String>> {
                match text {
                    $first_name => Ok(Self::$first),
                    $($name => Ok(Self::$variant),)*
                    _ => Err(None),
                }
            }

            fn print(&self) -> String {
                match self {
                    Self::$first => $first_name,
                    $(Self::$variant => $name,)*
                }
                .to_owned()
            }
        }
    )* };
}
pub(super) use choices;

/// A size in bytes.
impl Setting for u64 {
    fn read(written: &Written<'_>) -> Option<Self> {
        const EXPECTED: (&str, &str) = ("a size", "\"512KiB\", \"32MiB\" or \"1GiB\"");
        if written.value.get_ref().is_integer() {
            let bytes = written.integer()?;
            return Self::try_from(bytes).ok().or_else(|| written.expected(EXPECTED.0, EXPECTED.1));
        }
        let text: Cow<'_, str> = written.text(EXPECTED.0, EXPECTED.1)?;
        parse_size(&text).ok().or_else(|| written.expected(EXPECTED.0, EXPECTED.1))
    }

    fn write(&self) -> Option<Value> {
        Some(Value::String(format_size(*self)))
    }
}

/// Whole numbers, from the smallest that the type holds.
macro_rules! whole_numbers {
    ($($number:ty: $least:literal),*) => { $(
        impl Setting for $number {
            fn read(written: &Written<'_>) -> Option<Self> {
                let number = written.integer()?;
                number.to_string().parse().ok().or_else(|| match number {
                    ..$least => written.refuse(
                        concat!("must be at least ", $least),
                        "write a larger number or remove the line",
                    ),
                    _ => written.refuse(format!("must be at most {}", Self::MAX), "write a smaller number"),
                })
            }

            fn write(&self) -> Option<Value> {
                self.to_string().parse().ok().map(Value::Integer)
            }
        }
    )* };
}
whole_numbers!(u16: 0, u32: 0, usize: 0, NonZeroU32: 1, NonZeroUsize: 1);

impl Setting for f64 {
    fn read(written: &Written<'_>) -> Option<Self> {
        written.float()
    }

    fn write(&self) -> Option<Value> {
        Some(Value::Float(*self))
    }
}

impl Setting for bool {
    fn read(written: &Written<'_>) -> Option<Self> {
        written.boolean()
    }

    fn write(&self) -> Option<Value> {
        Some(Value::Boolean(*self))
    }
}

/// Absent is written by leaving it out.
impl<T: Setting> Setting for Option<T> {
    const SECRET: bool = T::SECRET;

    fn read(written: &Written<'_>) -> Option<Self> {
        T::read(written).map(Some)
    }

    fn write(&self) -> Option<Value> {
        self.as_ref()?.write()
    }
}

impl<T: Setting> Setting for Vec<T> {
    const SECRET: bool = T::SECRET;

    fn read(written: &Written<'_>) -> Option<Self> {
        let read: Vec<Option<T>> = written.items()?.iter().map(T::read).collect();
        read.into_iter().collect()
    }

    fn write(&self) -> Option<Value> {
        Some(Value::Array(self.iter().filter_map(T::write).collect()))
    }
}
