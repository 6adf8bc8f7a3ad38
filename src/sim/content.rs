//! What the provider says: a function of the model and the prompt, so that a client can verify every byte.
//!
//! The text is prose with everything that has ever broken a relay: quotes, back-slashes, new lines, blank lines that look
//! like the end of an event, and characters of two to four bytes. It never depends on time, order or the process.

use serde_json::json;

/// The fewest and the most pieces an answer comes in, unless a directive asks for another number.
const DELTAS: std::ops::RangeInclusive<u64> = 5..=40;

const WORDS: [&str; 32] = [
    "tide",
    "gate",
    "slow",
    "harbour",
    "the",
    "a",
    "of",
    "water",
    "naïve",
    "façade",
    "Größe",
    "søndag",
    "日本語",
    "水門",
    "приливы",
    "🌊",
    "👩‍🚀",
    "\"quoted\"",
    "back\\slash",
    "{brace}",
    "[DONE]",
    "data:",
    "\t",
    "\n",
    "\n\n",
    "\r\n",
    ": ",
    ",",
    ".",
    "42",
    "</s>",
    "\u{2028}",
];

/// The whole answer to a prompt.
#[must_use]
pub fn expected(model: &str, prompt: &str) -> String {
    deltas(model, prompt, None).concat()
}

/// The answer to a prompt in the pieces a stream sends: as many as `count` says, or 5 to 40.
///
/// The answer in more pieces starts with the answer in fewer.
#[must_use]
pub fn deltas(model: &str, prompt: &str, count: Option<usize>) -> Vec<String> {
    let mut dice = Dice(fingerprint(&[model, prompt]));
    let natural = DELTAS.start() + dice.roll() % (DELTAS.end() - DELTAS.start() + 1);
    let count = count.unwrap_or_else(|| usize::try_from(natural).unwrap_or(usize::MAX));
    (0..count).map(|_| delta(&mut dice)).collect()
}

/// What is thought before an answer, in the pieces a stream sends: 3 to 15.
#[must_use]
pub fn reasoning(model: &str, prompt: &str) -> Vec<String> {
    let mut dice = Dice(fingerprint(&[model, prompt, "reasoning"]));
    let count = 3 + dice.roll() % 13;
    (0..count).map(|_| delta(&mut dice)).collect()
}

/// A tool that is called instead of answering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// The id of the call.
    pub id: String,
    /// The name of the tool.
    pub name: &'static str,
    /// What it is called with, in the fragments a stream sends; joined they are a JSON object.
    pub arguments: Vec<String>,
}

/// The tools that are called instead of answering.
#[must_use]
pub fn tool_calls(model: &str, prompt: &str, count: usize) -> Vec<ToolCall> {
    let mut dice = Dice(fingerprint(&[model, prompt, "tool_calls"]));
    let mut call = || {
        let id = format!("call_{:016x}", dice.roll());
        let name = if dice.roll().is_multiple_of(2) { "read_tide" } else { "open_gate" };
        let arguments = json!({ "at": delta(&mut dice), "metres": dice.roll() % 12 }).to_string();
        ToolCall { id, name, arguments: fragments(&arguments) }
    };
    (0..count).map(|_| call()).collect()
}

/// What follows a partial answer that was never the beginning of ours. No answer says it.
pub(super) fn astray(model: &str, prompt: &str, partial: &[&str]) -> Vec<String> {
    let mut dice = Dice(fingerprint(&[model, prompt]) ^ fingerprint(partial));
    let count = 3 + dice.roll() % 5;
    (0..count).map(|_| format!("<astray> {}", delta(&mut dice))).collect()
}

/// The embedding of an input: `dimensions` numbers between -1 and 1.
#[must_use]
pub fn embedding(model: &str, input: &str, dimensions: usize) -> Vec<f64> {
    let mut dice = Dice(fingerprint(&[model, input]));
    let mut number = || f64::from(u16::try_from(dice.roll() >> 48).unwrap_or(0)) / 32_768.0 - 1.0;
    (0..dimensions).map(|_| number()).collect()
}

/// How many tokens a prompt is: a quarter of its bytes, rounded up. Of an answer, each delta is one.
#[must_use]
pub fn tokens(text: &str) -> u32 {
    u32::try_from(text.len().div_ceil(4)).unwrap_or(u32::MAX)
}

/// FNV-1a in 64 bits, as `/` echo reports it of a body.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// One hash of several texts; their borders count.
pub(super) fn fingerprint(texts: &[&str]) -> u64 {
    texts.iter().fold(0, |sum: u64, text| Dice(sum ^ hash(text.as_bytes())).roll())
}

fn delta(dice: &mut Dice) -> String {
    let mut text = String::new();
    for _ in 0..=dice.roll() % 3 {
        let word = usize::try_from(dice.roll() % WORDS.len() as u64).unwrap_or(0);
        text.push_str(WORDS.get(word).copied().unwrap_or("tide"));
        text.push(' ');
    }
    text
}

/// A text in pieces of a few characters each.
fn fragments(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(7).map(|piece| piece.iter().collect()).collect()
}

/// SplitMix64, written out: the content must not change with a library.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_depends_on_model_and_prompt_alone() {
        assert_eq!(expected("m", "one"), expected("m", "one"));
        assert_ne!(expected("m", "one"), expected("m", "two"));
        assert_ne!(expected("m", "one"), expected("mo", "ne"));
    }

    #[test]
    fn answers_have_five_to_forty_pieces_and_multi_byte_characters() {
        let mut everything = String::new();
        for prompt in 0..500 {
            let deltas = deltas("m", &prompt.to_string(), None);
            assert!((5..=40).contains(&deltas.len()));
            assert!(deltas.iter().all(|delta| !delta.is_empty()));
            everything.push_str(&deltas.concat());
        }
        for part in ["\"", "\\", "\n\n", "\r\n", "ï", "水", "🌊", "[DONE]"] {
            assert!(everything.contains(part), "{part:?}");
        }
    }

    #[test]
    fn answer_in_more_pieces_starts_with_the_answer_in_fewer() {
        let more = deltas("m", "p", Some(100)).concat();
        assert!(more.starts_with(&expected("m", "p")));
    }

    #[test]
    fn tools_are_called_with_objects() {
        let calls = tool_calls("m", "p", 20);
        assert_eq!(calls[..5], tool_calls("m", "p", 5));
        for call in calls {
            let arguments: serde_json::Value = serde_json::from_str(&call.arguments.concat()).expect("JSON");
            assert!(arguments["at"].is_string() && call.arguments.len() > 2, "{arguments}");
        }
    }

    #[test]
    fn hash_is_fnv_1a() {
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn embeddings_are_numbers_between_minus_one_and_one() {
        let vector = embedding("m", "input", 64);
        assert_eq!(vector.len(), 64);
        assert!(vector.iter().all(|number| (-1.0..1.0).contains(number)));
    }
}
