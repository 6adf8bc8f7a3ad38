//! Whose turn it is inside a class: weighted fair sharing between clients.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng: "Start-Time Fair Queuing", SIGCOMM 1996) over permits: each client has a
//! tag, the virtual time at which its next permit is due; the smallest goes next, and moves on by the inverse of its
//! weight. Who comes back after idling starts at the present virtual time: it has saved nothing up, and owes what it
//! took before it left.

use std::collections::HashMap;
use std::num::NonZeroU32;

use super::clients::ClientNumber;

/// How far one permit moves a client of weight 1. Weights beyond it are as good as it.
const STRIDE: u64 = 1 << 20;
/// So many tags are kept before those are looked for that say nothing any more.
const TAGS_MIN: usize = 64;

/// When a client's next permit is due, in virtual time.
pub(super) type Tag = u64;

/// How far one permit moves a client.
pub(super) fn stride(weight: NonZeroU32) -> Tag {
    (STRIDE / u64::from(weight.get())).max(1)
}

/// The turns of one class.
#[derive(Debug, Default)]
pub(super) struct Fair {
    /// The tag of who was served last.
    now: Tag,
    /// The tags beyond `now`, and some that are not.
    tags: HashMap<ClientNumber, Tag>,
    /// How many tags there may be before they are looked through.
    sweep_at: usize,
}

impl Fair {
    /// When the next permit of a client is due.
    pub(super) fn tag(&self, client: ClientNumber) -> Tag {
        self.tags.get(&client).map_or(self.now, |tag| self.now.max(*tag))
    }

    /// A client was served at its tag: says when its next permit is due.
    pub(super) fn serve(&mut self, client: ClientNumber, tag: Tag, weight: NonZeroU32) -> Tag {
        self.now = self.now.max(tag);
        let next = tag + stride(weight);
        self.tags.insert(client, next);
        if self.tags.len() > self.sweep_at.max(TAGS_MIN) {
            let now = self.now;
            self.tags.retain(|_, tag| *tag > now);
            self.sweep_at = 2 * self.tags.len();
        }
        next
    }
}
