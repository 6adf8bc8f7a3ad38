//! What the provider says: a function of the model and the prompt, so that a client can verify every byte.
//!
//! The text is prose with everything that has ever broken a relay: quotes, back-slashes, new lines, blank lines that look
//! like the end of an event, and characters of two to four bytes. It never depends on time, order or the process.

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

/// The embedding of an input: `dimensions` numbers between -1 and 1.
#[must_use]
pub fn embedding(model: &str, input: &str, dimensions: usize) -> Vec<f64> {
    let mut dice = Dice(fingerprint(&[model, input]));
    let mut number = || f64::from(u16::try_from(dice.roll() >> 48).unwrap_or(0)) / 32_768.0 - 1.0;
    (0..dimensions).map(|_| number()).collect()
}

/// How many tokens a text is: a quarter of its bytes, rounded up.
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
