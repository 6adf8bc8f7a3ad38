//! Some providers begin a continuation by repeating what they continue, others do not, and only the text itself tells. It
//! tells, too, of a provider that continues nothing but answers anew: as likely as not its answer begins as the first did.

use std::mem;

use super::Misfit;
use crate::openai::Frame;

/// An answer that says again what it said from its very beginning, for at least so many bytes, repeats it.
const CERTAIN: usize = 32;
/// The room that held events may take. They are few: what is certain to be an echo is not held.
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

/// The shortest beginning of `text` that it would not say again unless it were said from its beginning: one that is
/// neither doubtful nor stands in it a second time, as the beginning of a row of a table may.
fn telling(text: &str) -> Option<&str> {
    let later = text.strip_prefix(|_: char| true).filter(|_| !is_doubtful(text))?;
    let beginnings = [1, 2, 4, 8].map(|times| (CERTAIN * times..).take(4).find_map(|end| text.get(..end)));
    beginnings.into_iter().flatten().find(|beginning| !is_doubtful(beginning) && !later.contains(beginning))
}

/// Whether a provider repeats what it continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeats {
    /// One that does has not understood, and answers anew.
    Never,
    /// Some do.
    Perhaps,
    /// It does, however short that is.
    Always,
}

/// Holds back events as long as they may be an echo.
#[derive(Debug, Clone)]
pub(super) struct Echo {
    repeats: Repeats,
    /// What may be repeated.
    text: String,
    /// So much of it is not said again by chance; `None`: any of it may be.
    certain: Option<usize>,
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
    /// It is of an echo, or of what is not passed on either: nothing needs to be held.
    Echo,
    /// The echo ends so many bytes into the piece.
    Ended(usize),
    /// It is none: what was held is to be passed on.
    Not,
}

impl Echo {
    /// `None`: nothing is to be listened for.
    pub(super) fn of(text: &str, repeats: Repeats) -> Option<Self> {
        let telling = telling(text);
        let text = match repeats {
            Repeats::Never => telling?, // more of it would tell no more
            Repeats::Perhaps | Repeats::Always => text,
        };
        let certain = telling.map(str::len);
        let echo = Self { repeats, text: text.to_owned(), certain, repeated: 0, held: Vec::new(), room: HELD_MAX };
        (!text.is_empty()).then_some(echo)
    }

    /// Compares the next piece.
    pub(super) fn hear(&mut self, piece: &str) -> Result<Heard, Misfit> {
        if piece.is_empty() {
            return Ok(Heard::Beside);
        }
        let left = self.text.get(self.repeated..).unwrap_or_default();
        if piece.starts_with(left) {
            return match self.repeats {
                Repeats::Never => Err(Misfit::Anew),
                Repeats::Perhaps if is_doubtful(&self.text) => Err(Misfit::Ambiguous),
                Repeats::Perhaps | Repeats::Always => Ok(Heard::Ended(left.len())),
            };
        }
        let same = left.bytes().zip(piece.bytes()).take_while(|(old, new)| old == new).count();
        self.repeated += same;
        match self.certain {
            _ if same < piece.len() => self.broke_off(),
            _ if self.repeats == Repeats::Always => Ok(Heard::Echo),
            Some(certain) if self.repeated >= certain => Ok(Heard::Echo),
            _ => Ok(Heard::Maybe),
        }
    }

    /// It goes on otherwise, or not at all. What it had repeated until then was no echo, nor is it what comes next if it
    /// was too much of it for that.
    pub(super) fn broke_off(&self) -> Result<Heard, Misfit> {
        match self.certain {
            _ if self.repeats == Repeats::Always => Err(Misfit::NoEcho),
            Some(certain) if self.repeated >= certain => Err(Misfit::Anew),
            _ => Ok(Heard::Not),
        }
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

    /// What is to be passed on of what was held; nothing is held from then on.
    pub(super) fn release(&mut self, was_echo: bool) -> impl Iterator<Item = Frame> + use<> {
        self.room = HELD_MAX;
        let held = mem::take(&mut self.held).into_iter();
        held.filter(move |held| !(was_echo && held.is_echo)).map(|held| held.frame)
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
    fn what_is_said_more_than_once_tells_nothing() {
        let (row, sentence) = ("| The beginning of a row of a table | ", "The sky is blue because of the air.");
        assert_eq!(telling(sentence), Some("The sky is blue because of the a"));
        assert_eq!(telling(&format!("{row}1 |\n{row}2 |\n{}", "And so on. ".repeat(9))).map(str::len), Some(64));
        for repetitive in ["", "ha", &"-".repeat(400), &sentence.repeat(2), &format!("{row}{sentence}").repeat(3)] {
            assert_eq!(telling(repetitive), None, "{repetitive}");
        }
        assert_eq!(telling(&format!("{}é, and more of it", &sentence[..31])).map(str::len), Some(33));
    }

    #[test]
    fn an_echo_may_end_within_a_piece() {
        let sentence = "The sky is blue because of the air.";
        let hears = |text: &str, repeats: Repeats, pieces: &[&str]| {
            let mut echo = Echo::of(text, repeats).unwrap();
            let heard: Result<Vec<_>, _> = pieces.iter().map(|piece| echo.hear(piece)).collect();
            heard
        };
        let ended = hears(sentence, Repeats::Perhaps, &["The sky", " is blue because of the air. And"]);
        assert_eq!(ended, Ok(vec![Heard::Maybe, Heard::Ended(28)]));
        assert_eq!(hears(sentence, Repeats::Perhaps, &["The sky", " is green"]), Ok(vec![Heard::Maybe, Heard::Not]));
        assert_eq!(hears("ha", Repeats::Perhaps, &["haha"]), Err(Misfit::Ambiguous));
        assert_eq!(hears("é", Repeats::Perhaps, &["è"]), Ok(vec![Heard::Not]));
        // So much of it is no accident, whatever follows.
        let certain = [&sentence[..31], &sentence[31..32], &sentence[32..]];
        let heard = vec![Heard::Maybe, Heard::Echo, Heard::Ended(3)];
        assert_eq!(hears(sentence, Repeats::Perhaps, &certain), Ok(heard));
        let anew = [&sentence[..20], &sentence[20..33], "?"];
        assert_eq!(hears(sentence, Repeats::Perhaps, &anew), Err(Misfit::Anew));
        assert_eq!(hears(sentence, Repeats::Never, &anew[..2]), Err(Misfit::Anew));
        assert_eq!(hears(sentence, Repeats::Never, &[anew[0], "?"]), Ok(vec![Heard::Maybe, Heard::Not]));
        // Where there always is an echo, nothing is doubtful, and all of it must come.
        assert_eq!(hears("ha", Repeats::Always, &["h", "aha"]), Ok(vec![Heard::Echo, Heard::Ended(1)]));
        assert_eq!(hears("ha", Repeats::Always, &["h", "o"]), Err(Misfit::NoEcho));
        assert!(Echo::of("ha", Repeats::Never).is_none() && Echo::of("", Repeats::Perhaps).is_none());
    }
}
