//! Strict classes, except that a waiting class which got less than its floor goes next.

use crate::units::Priority;

/// The share of the permits that each class is never under while it waits, by class as in [`Priority::ALL`].
pub(super) type Shares = [f64; 3];

/// The accounts of one lane: a class that waits earns its share of each permit, and goes next once it has earned one.
/// Earned this way the floor comes in even steps: a class that just came does not take several permits in a row.
#[derive(Debug, Default)]
pub(super) struct Floors {
    earned: [f64; 3],
}

impl Floors {
    /// Chooses among the classes that wait, at least one of which does.
    pub(super) fn choose(&mut self, waiting: [bool; 3], shares: &Shares) -> Option<Priority> {
        for class in Priority::ALL {
            let earned = &mut self.earned[class as usize];
            *earned = if waiting[class as usize] { *earned + shares[class as usize] } else { 0.0 };
        }
        let waits = |class: &Priority| waiting[*class as usize];
        // A hair under one: a tenth earned ten times is not quite one.
        let due = Priority::ALL.into_iter().find(|class| waits(class) && self.earned[*class as usize] >= 1.0 - 1e-9);
        let chosen = due.or_else(|| Priority::ALL.into_iter().find(waits))?;
        let earned = &mut self.earned[chosen as usize];
        *earned = (*earned - 1.0).max(0.0);
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARES: Shares = [0.0, 0.10, 0.05];

    #[test]
    fn classes_are_strict_but_for_their_floors() {
        let mut floors = Floors::default();
        let mut got = [0; 3];
        for _ in 0..1_000 {
            got[floors.choose([true; 3], &SHARES).unwrap() as usize] += 1;
        }
        // Where both floors are due at once the lower class goes one permit later.
        assert!(got[1] == 100 && (49..=50).contains(&got[2]), "{got:?}");
    }

    #[test]
    fn a_class_that_just_came_does_not_take_several_in_a_row() {
        let mut floors = Floors::default();
        for _ in 0..1_000 {
            assert_eq!(floors.choose([true, false, false], &SHARES), Some(Priority::High));
        }
        let first: Vec<_> = (0..9).filter_map(|_| floors.choose([true, true, true], &SHARES)).collect();
        assert_eq!(first, [Priority::High; 9]);
    }
}
