//! What stands in the file.
//!
//! ```text
//! file    head record*
//! head    "tidegate-journal"  format u32  boot id u128  crc32 of these u32  incomplete u8
//! record  length u32  crc32 u32  body          length and crc32 are those of the body
//! body    kind u8  since boot i64  wall i64  fields
//! ```
//!
//! Numbers are little-endian, times are nanoseconds. Keys are never in it, only their ids.

use super::clock::{BootId, Moment};

/// The format that is written. One that is read may be older, not newer.
pub(super) const FORMAT: u32 = 1;
const MAGIC: [u8; 16] = *b"tidegate-journal";
/// How long the head is.
pub(super) const HEAD: usize = 41;
/// Where in it stands whether something was sent that no record tells of.
pub(super) const INCOMPLETE_AT: u64 = 40;
/// What a lane may have learned, in bytes.
pub(super) const LEARNED_MAX: usize = 64 << 10;
/// No body is longer: a length beyond it is damage.
const BODY_MAX: usize = 256 << 10;
/// Length and checksum.
const FRAME: usize = 8;

/// Something that happened, or that still counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// From here on the lane has this number.
    Lane { lane: u32, key: u64, upstream: &'a str },
    /// A request is about to leave.
    Writing { entry: u64, lane: u32, tokens: u64 },
    /// It is completely written.
    Written { entry: u64, lane: u32 },
    /// Its exchange has ended; the slot is free `cools` later. Unknown usage is what was reserved.
    Ended { entry: u64, lane: u32, used: Option<u64>, cools: i64 },
    /// Nothing of it has left.
    Refunded { entry: u64 },
    /// What the provider taught, in words of whoever learned it.
    Learned { lane: u32, blob: &'a [u8] },
    /// So many requests count from then.
    Spent { lane: u32, at: i64, requests: u32, tokens: u64 },
    /// An exchange that runs, with its reservation and the end of its writing.
    Open { entry: u64, lane: u32, tokens: u64, written: Option<i64> },
    /// So many exchanges were cut by a kill, and the process was back then.
    Orphans { lane: u32, since: i64, slots: u32 },
    /// A slot that is free only then.
    Cooling { lane: u32, until: i64 },
    /// Until then requests may have left that no record tells of, on any lane.
    Unknown { until: i64 },
    /// Everything above is all there is: the process ended by itself.
    Closed,
}

/// Appends the head of a file.
pub(super) fn put_head(out: &mut Vec<u8>, boot: BootId) {
    let start = out.len();
    out.extend(MAGIC);
    out.extend(FORMAT.to_le_bytes());
    out.extend(boot.0.to_le_bytes());
    let crc = crc32fast::hash(&out[start..]);
    out.extend(crc.to_le_bytes());
    out.push(0);
}

/// What the head of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    Known { boot: BootId, incomplete: bool },
    Newer { found: u32 },
    Foreign,
}

pub(super) fn read_head(file: &[u8]) -> Head {
    let mut from = Reader(file);
    let head = (|| {
        let (magic, format) = (from.take::<16>()?, u32::from_le_bytes(from.take()?));
        if magic == MAGIC && format > FORMAT {
            return Some(Head::Newer { found: format });
        }
        let boot = BootId(u128::from_le_bytes(from.take()?));
        let crc = u32::from_le_bytes(from.take()?);
        let [incomplete] = from.take()?;
        let whole = magic == MAGIC && format > 0 && crc == crc32fast::hash(&file[..36]);
        whole.then_some(Head::Known { boot, incomplete: incomplete != 0 })
    })();
    head.unwrap_or(Head::Foreign)
}

/// Appends a record.
pub(super) fn put(out: &mut Vec<u8>, moment: Moment, record: &Record<'_>) {
    let start = out.len();
    out.extend([0; FRAME]);
    put_body(out, moment, record);
    let body = &out[start + FRAME..];
    let (length, crc) = (u32::try_from(body.len()).unwrap_or(u32::MAX), crc32fast::hash(body));
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + FRAME].copy_from_slice(&crc.to_le_bytes());
}

fn put_body(out: &mut Vec<u8>, moment: Moment, record: &Record<'_>) {
    let kind: u8 = match record {
        Record::Lane { .. } => 1,
        Record::Writing { .. } => 2,
        Record::Written { .. } => 3,
        Record::Ended { .. } => 4,
        Record::Refunded { .. } => 5,
        Record::Learned { .. } => 6,
        Record::Spent { .. } => 7,
        Record::Open { .. } => 8,
        Record::Orphans { .. } => 9,
        Record::Cooling { .. } => 10,
        Record::Unknown { .. } => 11,
        Record::Closed => 12,
    };
    out.push(kind);
    out.extend(moment.boot.to_le_bytes());
    out.extend(moment.wall.to_le_bytes());
    match *record {
        Record::Lane { lane, key, upstream } => {
            out.extend(lane.to_le_bytes());
            out.extend(key.to_le_bytes());
            out.extend(upstream.as_bytes());
        }
        Record::Writing { entry, lane, tokens } => {
            out.extend(entry.to_le_bytes());
            out.extend(lane.to_le_bytes());
            out.extend(tokens.to_le_bytes());
        }
        Record::Written { entry, lane } => {
            out.extend(entry.to_le_bytes());
            out.extend(lane.to_le_bytes());
        }
        Record::Ended { entry, lane, used, cools } => {
            out.extend(entry.to_le_bytes());
            out.extend(lane.to_le_bytes());
            out.extend(cools.to_le_bytes());
            out.extend(used.map(u64::to_le_bytes).into_iter().flatten());
        }
        Record::Refunded { entry } => out.extend(entry.to_le_bytes()),
        Record::Learned { lane, blob } => {
            out.extend(lane.to_le_bytes());
            out.extend(blob);
        }
        Record::Spent { lane, at, requests, tokens } => {
            out.extend(lane.to_le_bytes());
            out.extend(at.to_le_bytes());
            out.extend(requests.to_le_bytes());
            out.extend(tokens.to_le_bytes());
        }
        Record::Open { entry, lane, tokens, written } => {
            out.extend(entry.to_le_bytes());
            out.extend(lane.to_le_bytes());
            out.extend(tokens.to_le_bytes());
            out.extend(written.map(i64::to_le_bytes).into_iter().flatten());
        }
        Record::Orphans { lane, since, slots } => {
            out.extend(lane.to_le_bytes());
            out.extend(since.to_le_bytes());
            out.extend(slots.to_le_bytes());
        }
        Record::Cooling { lane, until } => {
            out.extend(lane.to_le_bytes());
            out.extend(until.to_le_bytes());
        }
        Record::Unknown { until } => out.extend(until.to_le_bytes()),
        Record::Closed => {}
    }
}

/// The record at the beginning of `bytes`, and how long it is; `None` if what stands there is not one.
pub(super) fn read(bytes: &[u8]) -> Option<(Moment, Record<'_>, usize)> {
    let mut from = Reader(bytes);
    let length = usize::try_from(u32::from_le_bytes(from.take()?)).ok().filter(|&length| length <= BODY_MAX)?;
    let crc = u32::from_le_bytes(from.take()?);
    let body = from.0.get(..length)?;
    if body.is_empty() || crc32fast::hash(body) != crc {
        return None;
    }
    let (moment, record) = read_body(body)?;
    Some((moment, record, FRAME + length))
}

fn read_body(body: &[u8]) -> Option<(Moment, Record<'_>)> {
    let mut from = Reader(body);
    let [kind] = from.take()?;
    let moment = Moment { boot: from.i64()?, wall: from.i64()? };
    let record = match kind {
        1 => Record::Lane { lane: from.u32()?, key: from.u64()?, upstream: std::str::from_utf8(from.rest()).ok()? },
        2 => Record::Writing { entry: from.u64()?, lane: from.u32()?, tokens: from.u64()? },
        3 => Record::Written { entry: from.u64()?, lane: from.u32()? },
        4 => {
            let (entry, lane, cools) = (from.u64()?, from.u32()?, from.i64()?);
            Record::Ended { entry, lane, used: if from.0.is_empty() { None } else { Some(from.u64()?) }, cools }
        }
        5 => Record::Refunded { entry: from.u64()? },
        6 => Record::Learned { lane: from.u32()?, blob: from.rest() },
        7 => Record::Spent { lane: from.u32()?, at: from.i64()?, requests: from.u32()?, tokens: from.u64()? },
        8 => {
            let (entry, lane, tokens) = (from.u64()?, from.u32()?, from.u64()?);
            Record::Open { entry, lane, tokens, written: if from.0.is_empty() { None } else { Some(from.i64()?) } }
        }
        9 => Record::Orphans { lane: from.u32()?, since: from.i64()?, slots: from.u32()? },
        10 => Record::Cooling { lane: from.u32()?, until: from.i64()? },
        11 => Record::Unknown { until: from.i64()? },
        12 => Record::Closed,
        _ => return None,
    };
    from.0.is_empty().then_some((moment, record))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Record<'static>; 14] = [
        Record::Lane { lane: 1, key: u64::MAX, upstream: "provider" },
        Record::Writing { entry: 2, lane: 1, tokens: 3 },
        Record::Written { entry: 2, lane: 1 },
        Record::Ended { entry: 2, lane: 1, used: None, cools: 50 },
        Record::Ended { entry: 2, lane: 1, used: Some(7), cools: 0 },
        Record::Refunded { entry: 9 },
        Record::Learned { lane: 1, blob: b"{}" },
        Record::Spent { lane: 1, at: -5, requests: 2, tokens: 8 },
        Record::Open { entry: 4, lane: 1, tokens: 5, written: None },
        Record::Open { entry: 4, lane: 1, tokens: 5, written: Some(-1) },
        Record::Orphans { lane: 1, since: 6, slots: 2 },
        Record::Cooling { lane: 1, until: 7 },
        Record::Unknown { until: 8 },
        Record::Closed,
    ];
    const MOMENT: Moment = Moment { boot: -7, wall: 1_000 };

    #[test]
    fn every_record_is_read_as_it_was_written() {
        for record in ALL {
            let mut bytes = Vec::new();
            put(&mut bytes, MOMENT, &record);
            assert_eq!(read(&bytes), Some((MOMENT, record, bytes.len())));
        }
    }

    #[test]
    fn a_record_that_lacks_or_changed_a_byte_is_none() {
        for record in ALL {
            let mut bytes = Vec::new();
            put(&mut bytes, MOMENT, &record);
            assert!((0..bytes.len()).all(|end| read(&bytes[..end]).is_none()), "{record:?}");
            for at in 0..bytes.len() {
                bytes[at] ^= 0x10;
                assert_eq!(read(&bytes), None, "{record:?}, byte {at}");
                bytes[at] ^= 0x10;
            }
        }
        assert_eq!(read(&[0; 64]), None, "what a file system leaves where nothing was written");
    }

    #[test]
    fn head_tells_ours_from_newer_from_foreign() {
        let mut head = Vec::new();
        put_head(&mut head, BootId(77));
        assert_eq!(head.len(), HEAD);
        assert_eq!(read_head(&head), Head::Known { boot: BootId(77), incomplete: false });
        head[usize::try_from(INCOMPLETE_AT).unwrap()] = 1;
        assert_eq!(read_head(&head), Head::Known { boot: BootId(77), incomplete: true });
        head[25] ^= 1;
        assert_eq!(read_head(&head), Head::Foreign);
        head[16] = 9;
        assert_eq!(read_head(&head), Head::Newer { found: 9 });
        assert_eq!(read_head(&head[..HEAD - 1]), Head::Newer { found: 9 });
        assert_eq!(read_head(b"[server]\n"), Head::Foreign);
        assert_eq!(read_head(b""), Head::Foreign);
    }
}
