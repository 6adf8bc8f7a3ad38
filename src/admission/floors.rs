//! Strict classes, except that a waiting class which got less than its floor goes next.

use crate::units::Priority;

/// The share of the permits that each class is never under while it waits, by class as in [`Priority::ALL`].
pub(super) type Shares = [f64; 3];

/// A class that waits: how many, and whether it may go now.
pub(super) type Classes<T> = [T; 3];

/// A hair under one: a tenth earned ten times is not quite one.
const DUE: f64 = 1.0 - 1e-9;
/// A class that cannot go although it is due saves no more than this up.
const EARNED_MAX: f64 = 2.0;

/// The accounts of one lane: a class that waits earns its share of each permit, and goes next once it has earned one.
/// Earned this way the floor comes in even steps: a class that just came does not take several permits in a row.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Floors {
    earned: [f64; 3],
}

impl Floors {
    /// Whose permit the next one is: of the classes that wait, one that `may` go. Nothing changes before
    /// [`Floors::grant`] says that it went.
    pub(super) fn next(&self, waiting: Classes<bool>, may: Classes<bool>, shares: &Shares) -> Option<Priority> {
        let may = |class: &Priority| waiting[*class as usize] && may[*class as usize];
        let due = |class: &Priority| self.earned[*class as usize] + shares[*class as usize] >= DUE;
        let mut classes = Priority::ALL.into_iter().filter(may);
        classes.clone().find(due).or_else(|| classes.next())
    }

    /// A permit went to a class, of those that waited.
    pub(super) fn grant(&mut self, waiting: Classes<bool>, chosen: Priority, shares: &Shares) {
        for class in Priority::ALL {
            let earned = &mut self.earned[class as usize];
            *earned = match waiting[class as usize] {
                true => (*earned + shares[class as usize]).min(EARNED_MAX),
                false => 0.0,
            };
        }
        let earned = &mut self.earned[chosen as usize];
        *earned = (*earned - 1.0).max(0.0);
    }

    /// The position, from 1, of a call before which `ahead` of its own class are, if all stay who wait and nobody comes.
    /// Either its class comes to it by its floor, or all higher classes have gone; meanwhile lower ones take theirs.
    pub(super) fn position(&self, class: Priority, ahead: u32, waiting: Classes<u32>, shares: &Shares) -> u32 {
        let (index, own) = (class as usize, f64::from(ahead) + 1.0);
        let higher: u32 = waiting[..index].iter().sum();
        let lower = |permits: f64| -> f64 {
            let classes = (index + 1)..waiting.len();
            classes.map(|lower| by_floor(self.earned[lower], shares[lower], permits).min(waiting[lower].into())).sum()
        };
        let mut strictly = f64::from(higher) + own;
        loop {
            let permits = f64::from(higher) + own + lower(strictly);
            if permits <= strictly {
                break;
            }
            strictly = permits;
        }
        let floor = (shares[index] > 0.0 && higher > 0)
            .then(|| ((own - self.earned[index]) / shares[index] - 1e-9).ceil().max(1.0));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and saturates")]
        let position = floor.map_or(strictly, |floor| floor.min(strictly)) as u32;
        position
    }
}

/// How many of so many permits a class gets by its floor.
fn by_floor(earned: f64, share: f64, permits: f64) -> f64 {
    (earned + permits * share + 1e-9).floor()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHARES: Shares = [0.0, 0.10, 0.05];

    fn choose(floors: &mut Floors, waiting: Classes<bool>) -> Option<Priority> {
        let chosen = floors.next(waiting, waiting, &SHARES)?;
        floors.grant(waiting, chosen, &SHARES);
        Some(chosen)
    }

    #[test]
    fn classes_are_strict_but_for_their_floors() {
        let mut floors = Floors::default();
        let mut got = [0; 3];
        for _ in 0..1_000 {
            got[choose(&mut floors, [true; 3]).unwrap() as usize] += 1;
        }
        // Where both floors are due at once the lower class goes one permit later.
        assert!(got[1] == 100 && (49..=50).contains(&got[2]), "{got:?}");
    }

    #[test]
    fn a_class_that_just_came_does_not_take_several_in_a_row() {
        let mut floors = Floors::default();
        for _ in 0..1_000 {
            assert_eq!(choose(&mut floors, [true, false, false]), Some(Priority::High));
        }
        let first: Vec<_> = (0..9).filter_map(|_| choose(&mut floors, [true; 3])).collect();
        assert_eq!(first, [Priority::High; 9]);
    }

    #[test]
    fn a_class_that_cannot_go_is_passed_over_and_saves_little_up() {
        let mut floors = Floors::default();
        for _ in 0..1_000 {
            let chosen = floors.next([true; 3], [true, false, true], &SHARES).unwrap();
            assert_ne!(chosen, Priority::Normal);
            floors.grant([true; 3], chosen, &SHARES);
        }
        let first: Vec<_> = (0..4).filter_map(|_| choose(&mut floors, [true; 3])).collect();
        assert_eq!(first.iter().filter(|class| **class == Priority::Normal).count(), 2, "{first:?}");
    }

    proptest! {
        #[test]
        fn the_position_is_when_it_goes(
            waiting in proptest::array::uniform3(0_u32..40),
            before in 0_u32..60,
            class in 0_usize..3,
            ahead in 0_u32..40,
        ) {
            prop_assume!(ahead < waiting[class]);
            let mut floors = Floors::default();
            for _ in 0..before {
                choose(&mut floors, [true; 3]);
            }
            let class = Priority::ALL[class];
            let promised = floors.position(class, ahead, waiting, &SHARES);
            let (mut left, mut permits, mut own) = (waiting, 0, ahead + 1);
            while own > 0 {
                let chosen = choose(&mut floors, left.map(|left| left > 0)).unwrap();
                left[chosen as usize] -= 1;
                permits += 1;
                own -= u32::from(chosen == class);
            }
            // Two floors that are due at once make the lower one wait for one permit more.
            prop_assert!(promised.abs_diff(permits) <= 1, "promised {promised}, went as {permits}");
        }
    }
}
