//! Connections that were lost lately with several calls on them: that is one fault, not one for each of its calls.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::conversation::{Carrier, Loss};

/// The calls of a connection hear of its end within moments of each other; so many that end meanwhile are told apart.
const KEPT: usize = 64;

/// One for the whole process.
#[derive(Debug, Default)]
pub(super) struct Fallen(Mutex<VecDeque<Carrier>>);

impl Fallen {
    /// Whether this loss is the first of its connection, or one of its own.
    pub(super) fn is_news(&self, loss: &Loss) -> bool {
        loss.connection.as_ref().is_none_or(|connection| self.is_first(connection))
    }

    fn is_first(&self, connection: &Carrier) -> bool {
        let mut lately = self.0.lock();
        if lately.contains(connection) {
            return false;
        }
        if lately.len() == KEPT {
            lately.pop_front();
        }
        lately.push_back(Carrier::clone(connection));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_is_lost_once_and_few_are_remembered() {
        let fallen = Fallen::default();
        let connections: Vec<_> = (0..=KEPT).map(|_| Carrier::for_tests()).collect();
        for (connection, first) in [(0, true), (0, false), (1, true), (0, false), (1, false)] {
            assert_eq!(fallen.is_first(&connections[connection]), first, "{connection}");
        }
        assert!(connections[2..].iter().all(|connection| fallen.is_first(connection)));
        assert!(fallen.0.lock().len() == KEPT && !fallen.is_first(&connections[KEPT]));
        // A connection that comes later is another one, also where the first has gone.
        for _ in 0..KEPT {
            assert!(fallen.is_first(&Carrier::for_tests()));
        }
    }
}
