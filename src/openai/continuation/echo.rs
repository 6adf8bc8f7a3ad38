//! Some providers begin a continuation by repeating what they continue, others do not, and only the text itself tells.

use super::Misfit;
use crate::openai::Frame;

/// An answer that says again what it said from its very beginning, for at least so many bytes, is an echo.
const CERTAIN: usize = 32;
/// The room that held events may take: an echo usually comes in one.
const HELD_MAX: usize = 8 << 20;

/// Could `text` stand twice in a row in an answer, without being an echo? It could if it is short, or is itself made of
/// repetitions: a line of dashes, say.
pub(super) fn is_doubtful(text: &str) -> bool {
    if text.len() < CERTAIN {
        return true;
    }
    let half = (0..=text.len() / 2).rev().find_map(|at| text.get(..at)).unwrap_or_default();
    let rest = text.strip_prefix(|_: char| true).unwrap_or_default();
    rest.contains(half)
}

/// Holds back events as long as they may be an echo.
#[derive(Debug, Clone)]
pub(super) struct Echo {
    text: String,
    repeated: usize,
    held: Vec<Held>,
    room: usize,
}

/// An event that waits until it is clear whether there is an echo.
#[derive(Debug, Clone)]
struct Held {
    frame: Frame,
    /// It says something of the text that may be an echo.
    is_echo: bool,
}

/// What the next piece of text means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It has no text, and tells nothing: it waits for what is held, if anything is.
    Beside,
    /// It may be an echo: the event is to be held.
    Maybe,
    /// The echo ends so many bytes into the piece.
    Ended(usize),
    /// It is none: what was held is to be passed on.
    Not,
}

impl Echo {
    pub(super) fn new(text: String) -> Self {
        Self { text, repeated: 0, held: Vec::new(), room: HELD_MAX }
    }

    /// Compares the next piece.
    pub(super) fn hear(&mut self, piece: &str) -> Result<Heard, Misfit> {
        if piece.is_empty() {
            return Ok(Heard::Beside);
        }
        let left = self.text.get(self.repeated..).unwrap_or_default();
        if !piece.starts_with(left) {
            if !left.starts_with(piece) {
                return Ok(Heard::Not);
            }
            self.repeated += piece.len();
            return Ok(Heard::Maybe);
        }
        if is_doubtful(&self.text) { Err(Misfit::Ambiguous) } else { Ok(Heard::Ended(left.len())) }
    }

    pub(super) const fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// `is_echo`: it goes with the echo, if there is one; else it is passed on in any case, in its turn.
    pub(super) fn hold(&mut self, frame: Frame, is_echo: bool) -> Result<(), Misfit> {
        self.room = self.room.checked_sub(frame.bytes().len()).ok_or(Misfit::TooLong)?;
        self.held.push(Held { frame, is_echo });
        Ok(())
    }

    /// Bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        self.text.capacity() + (HELD_MAX - self.room)
    }

    /// What is to be passed on of what was held.
    pub(super) fn release(self, was_echo: bool) -> impl Iterator<Item = Frame> {
        self.held.into_iter().filter(move |held| !(was_echo && held.is_echo)).map(|held| held.frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_repetitive_texts_are_doubtful() {
        let sentence = "The sky is blue because of the air.";
        assert!(is_doubtful("ha"));
        assert!(is_doubtful(&"-".repeat(400)));
        assert!(is_doubtful(&"é".repeat(40)));
        assert!(is_doubtful(&sentence.repeat(2)));
        assert!(is_doubtful(&format!("{}The", sentence.repeat(3))));
        assert!(!is_doubtful(sentence));
        assert!(!is_doubtful(&format!("{sentence} {}", "Light scatters in it.")));
    }

    #[test]
    fn an_echo_may_end_within_a_piece() {
        let sentence = "The sky is blue because of the air.";
        let mut echo = Echo::new(sentence.to_owned());
        assert_eq!(echo.hear("The sky"), Ok(Heard::Maybe));
        assert_eq!(echo.hear(" is blue because of the air. And"), Ok(Heard::Ended(28)));
        let mut echo = Echo::new(sentence.to_owned());
        assert_eq!(echo.hear("The sky"), Ok(Heard::Maybe));
        assert_eq!(echo.hear(" is green"), Ok(Heard::Not));
        assert_eq!(Echo::new("ha".to_owned()).hear("haha"), Err(Misfit::Ambiguous));
    }
}
