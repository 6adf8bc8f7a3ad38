//! Where the WebSocket frames of one direction begin and end (RFC 6455, section 5.2). Only headers are looked at, and
//! only as far as that needs.

/// The opcode of a Close frame.
const CLOSE: u8 = 0x8;
/// Two bytes, a length of up to eight more, a mask of four.
const HEADER_MAX: usize = 14;
/// A control frame has at most 125 bytes, two of which are the code.
const REASON_MAX: usize = 123;

/// Follows the frames of one direction. Cuts of the byte stream do not matter.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The header that is being read.
    header: [u8; HEADER_MAX],
    read: usize,
    /// Bytes of the payload that are still to come.
    left: u64,
    is_close: bool,
    is_closed: bool,
}

impl Frames {
    /// The next bytes.
    pub(super) fn see(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, after)) = bytes.split_first() {
            if self.left > 0 {
                let payload = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= payload as u64;
                bytes = &bytes[payload..];
            } else {
                self.header[self.read] = byte;
                self.read += 1;
                bytes = after;
                self.end_header();
            }
            if self.left == 0 && self.read == 0 && std::mem::take(&mut self.is_close) {
                self.is_closed = true;
            }
        }
    }

    /// Whether the last byte seen was the last of a frame, or none was seen.
    pub(super) fn is_between(&self) -> bool {
        self.read == 0 && self.left == 0
    }

    /// Whether a whole Close frame was seen: nothing may follow it.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn end_header(&mut self) {
        let header = &self.header[..self.read];
        let [first, second, rest @ ..] = header else { return };
        let length_bytes = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_bytes = if second & 0x80 == 0 { 0 } else { 4 };
        if rest.len() < length_bytes + mask_bytes {
            return;
        }
        let long = rest[..length_bytes].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        self.left = if length_bytes == 0 { u64::from(second & 0x7f) } else { long };
        self.is_close = first & 0x0f == CLOSE;
        self.read = 0;
    }
}

/// A Close frame as servers send it.
pub(super) fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let reason = &reason.as_bytes()[..reason.len().min(REASON_MAX)];
    let length = u8::try_from(2 + reason.len()).unwrap_or(2);
    [&[0x80 | CLOSE, length], &code.to_be_bytes()[..], reason].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, masked: bool, length: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match length {
            0..126 => bytes.push(mask | u8::try_from(length).unwrap()),
            126..=0xffff => {
                bytes.push(mask | 126);
                bytes.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        bytes.extend(std::iter::repeat_n(0x88, length + if masked { 4 } else { 0 }));
        bytes
    }

    #[test]
    fn a_frame_ends_with_its_last_byte_and_not_before() {
        for masked in [false, true] {
            for length in [0, 1, 125, 126, 65_535, 65_536] {
                let bytes = frame(2, masked, length);
                let (last, before) = bytes.split_last().unwrap();
                let mut frames = Frames::default();
                assert!(frames.is_between());
                frames.see(before);
                assert!(!frames.is_between(), "{masked} {length}");
                frames.see(&[*last]);
                assert!(frames.is_between() && !frames.is_closed(), "{masked} {length}");
            }
        }
    }

    #[test]
    fn only_a_whole_close_frame_closes() {
        let close = close_frame(1012, "upstream lost");
        assert_eq!(close[..4], [0x88, 15, 0x03, 0xf4]);
        for masked in [false, true] {
            for bytes in [frame(8, masked, 0), frame(8, masked, 20)] {
                let (last, before) = bytes.split_last().unwrap();
                let mut frames = Frames::default();
                frames.see(&frame(9, masked, 3));
                frames.see(before);
                assert!(!frames.is_closed());
                frames.see(&[*last]);
                assert!(frames.is_closed() && frames.is_between());
            }
        }
    }

    #[test]
    fn a_length_that_nobody_can_send_never_ends() {
        let mut frames = Frames::default();
        frames.see(&[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
        assert!(!frames.is_between());
    }

    #[test]
    fn a_reason_is_cut_to_what_a_control_frame_holds() {
        assert_eq!(close_frame(1012, &"x".repeat(500)).len(), 2 + 125);
    }

    proptest! {
        #[test]
        fn cuts_of_the_byte_stream_do_not_matter(
            parts in prop::collection::vec((0u8..16, any::<bool>(), 0usize..300), 1..8),
            cuts in prop::collection::vec(1usize..50, 1..20),
        ) {
            let bytes: Vec<u8> = parts.iter().flat_map(|(opcode, masked, length)| frame(*opcode, *masked, *length)).collect();
            let mut frames = Frames::default();
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                frames.see(now);
                rest = later;
            }
            prop_assert!(frames.is_between());
            prop_assert_eq!(frames.is_closed(), parts.iter().any(|(opcode, ..)| *opcode == CLOSE));
        }
    }
}
