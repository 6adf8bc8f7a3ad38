//! What an answer's headers tell of the provider's limits.
//!
//! | who | form |
//! |---|---|
//! | OpenAI, Azure, Groq | `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`; resets are durations, Azure's seconds |
//! | Cerebras, Mistral | the same with `-minute`, `-hour`, `-day` or `-month`; Mistral says `req` |
//! | Anthropic | `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}`, RFC 3339 |
//! | OpenRouter | `x-ratelimit-{limit,remaining,reset}`, milliseconds since 1970 |
//! | IETF drafts | `ratelimit-{limit,remaining,reset}`, `ratelimit: "name";r=50;t=30` with `ratelimit-policy: "name";q=100;w=60` |
//!
//! What cannot be read is passed over. An answer without such headers costs one pass over its names, and no allocation.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::reset;

/// Above this a figure is not that of a window but of an hour, a day or a month.
const LONG: Duration = Duration::from_secs(10 * 60);

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Requests, and whatever does not say what it counts.
    Requests,
    /// Tokens of prompt and answer together.
    Tokens,
    /// Tokens of prompts.
    InputTokens,
    /// Tokens of answers.
    OutputTokens,
}

/// What is told of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// How many are allowed.
    pub limit: Option<u32>,
    /// How many are left.
    pub remaining: Option<u32>,
    /// How long until it resets. Some mean until all is back, some until the window ends.
    pub reset: Option<Duration>,
    /// In which period it counts, where that is said.
    pub window: Option<Duration>,
}

/// What an answer tells of the limits it was judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimits {
    /// Of the window, and of no period that is named.
    window: [Told; 4],
    /// Of an hour, a day, a month, or what resets so late that it cannot be a window's.
    long: [Told; 4],
}

impl RateLimits {
    /// Reads the headers; `None` when they tell nothing. `now` is asked only when they do.
    #[must_use]
    pub fn of(headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Option<Self> {
        if !headers.keys().any(|name| family(name.as_str()).is_some()) {
            return None;
        }
        let (mut told, now) = (Self::default(), now());
        for (name, value) in headers {
            if let (Some(rest), Ok(value)) = (family(name.as_str()), value.to_str()) {
                told.read(rest, value.trim(), now);
            }
        }
        told.sort_out();
        (told != Self::default()).then_some(told)
    }

    /// What is told of the window's limit, or of one whose period is not named.
    #[must_use]
    pub fn in_window(&self, counted: Counted) -> Told {
        self.window[counted as usize]
    }

    /// What is told of the limit of an hour, a day or a month.
    #[must_use]
    pub fn in_long(&self, counted: Counted) -> Told {
        self.long[counted as usize]
    }

    /// A limit of an hour or more of which nothing is left: what it counts, and what is told of it.
    #[must_use]
    pub fn long_exhausted(&self) -> Option<(Counted, Told)> {
        COUNTED.into_iter().map(|counted| (counted, self.in_long(counted))).find(|(_, told)| told.remaining == Some(0))
    }

    fn read(&mut self, rest: &str, value: &str, now: SystemTime) {
        match rest {
            "" => self.read_structured(value, now),
            "policy" => self.read_policy(value),
            _ => {
                if let Some(Name { field, counted, period }) = Name::of(rest) {
                    let told = match period {
                        Period::Long => &mut self.long[counted as usize],
                        Period::Window | Period::Unnamed => &mut self.window[counted as usize],
                    };
                    if period == Period::Window {
                        told.window = Some(MINUTE);
                    }
                    told.set(field, value, now);
                }
            }
        }
    }

    /// `"name";r=50;t=30`, or as an earlier draft had it `limit=100, remaining=50, reset=30`. Of several policies the one
    /// with the least left rules.
    fn read_structured(&mut self, value: &str, now: SystemTime) {
        let mut told = Told::default();
        for item in value.split(',') {
            let before = std::mem::take(&mut told);
            for pair in item.split(';') {
                let Some((key, value)) = pair.split_once('=') else { continue };
                match key.trim() {
                    "r" | "remaining" => told.set(Field::Remaining, value, now),
                    "t" | "reset" => told.set(Field::Reset, value, now),
                    "limit" => told.set(Field::Limit, value, now),
                    _ => {}
                }
            }
            told = if item.contains('"') { before.or_tighter(told) } else { before.and(told) };
        }
        let requests = &mut self.window[Counted::Requests as usize];
        *requests = requests.and(told);
    }

    /// `"name";q=100;w=60`, or `100;w=60`. Several policies are passed over: which of them rules is not known.
    fn read_policy(&mut self, value: &str) {
        if value.contains(',') {
            return;
        }
        let mut policy = Told::default();
        for (index, part) in value.split(';').enumerate() {
            let (key, figure) = part.split_once('=').map_or(("", part), |(key, figure)| (key.trim(), figure));
            match key {
                "q" => policy.limit = whole(figure),
                "" if index == 0 => policy.limit = whole(figure),
                "w" => policy.window = whole(figure).map(|seconds| Duration::from_secs(seconds.into())),
                _ => {}
            }
        }
        let requests = &mut self.window[Counted::Requests as usize];
        *requests = requests.and(policy);
    }

    /// What resets too late for a window is none.
    fn sort_out(&mut self) {
        for (window, long) in self.window.iter_mut().zip(&mut self.long) {
            let is_long = |span: Option<Duration>| span.is_some_and(|span| span > LONG);
            if is_long(window.window) || window.window.is_none() && is_long(window.reset) {
                *long = long.or_tighter(std::mem::take(window));
            }
        }
    }
}

const COUNTED: [Counted; 4] = [Counted::Requests, Counted::Tokens, Counted::InputTokens, Counted::OutputTokens];
const MINUTE: Duration = Duration::from_secs(60);

impl Told {
    fn set(&mut self, field: Field, value: &str, now: SystemTime) {
        match field {
            Field::Limit => {
                self.limit = whole(value).or(self.limit);
                // `100, 100;w=60`: the policy may follow.
                let window = value.split_once("w=").and_then(|(_, window)| whole(window));
                self.window = window.map(|seconds| Duration::from_secs(seconds.into())).or(self.window);
            }
            Field::Remaining => self.remaining = whole(value).or(self.remaining),
            Field::Reset => self.reset = reset::parse(value, now).or(self.reset),
        }
    }

    /// What either tells; the second wins.
    fn and(self, other: Self) -> Self {
        Self {
            limit: other.limit.or(self.limit),
            remaining: other.remaining.or(self.remaining),
            reset: other.reset.or(self.reset),
            window: other.window.or(self.window),
        }
    }

    /// The one that has less left.
    fn or_tighter(self, other: Self) -> Self {
        let left = |told: Self| told.remaining.unwrap_or(u32::MAX);
        if self == Self::default() || left(other) < left(self) { other } else { self }
    }
}

/// The part of a name that follows the family it belongs to, if it belongs to one.
fn family(name: &str) -> Option<&str> {
    let rest = match *name.as_bytes().first()? {
        b'x' => name.strip_prefix("x-ratelimit").or_else(|| name.strip_prefix("x-rate-limit"))?,
        b'a' => name.strip_prefix("anthropic-ratelimit")?,
        b'r' => name.strip_prefix("ratelimit")?,
        _ => return None,
    };
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('-') }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Limit,
    Remaining,
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Period {
    Unnamed,
    Window,
    Long,
}

/// A name, understood word by word: their order differs, and a word that we do not know makes another thing of it.
struct Name {
    field: Field,
    counted: Counted,
    period: Period,
}

impl Name {
    fn of(rest: &str) -> Option<Self> {
        let (mut field, mut counted, mut period) = (None, Counted::Requests, Period::Unnamed);
        for word in rest.split('-') {
            match word {
                "limit" => field = Some(Field::Limit),
                "remaining" => field = Some(Field::Remaining),
                "reset" => field = Some(Field::Reset),
                "requests" | "request" | "req" => counted = Counted::Requests,
                "input" => counted = Counted::InputTokens,
                "output" => counted = Counted::OutputTokens,
                "tokens" | "token" if counted == Counted::Requests => counted = Counted::Tokens,
                "tokens" | "token" => {}
                "minute" | "min" => period = Period::Window,
                "hour" | "day" | "month" => period = Period::Long,
                _ => return None,
            }
        }
        Some(Self { field: field?, counted, period })
    }
}

/// The whole number that a text begins with: `100`, `100, 100;w=60`, `99.0`.
fn whole(text: &str) -> Option<u32> {
    let text = text.trim().trim_matches('"');
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    if !(rest.is_empty() || rest.starts_with([',', ';', '.', ' '])) || number.is_empty() {
        return None;
    }
    // Whoever allows more than four thousand million does not limit us.
    Some(number.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
