//! Killed at any moment, several times, while the clocks are set and the limits change: the provider, which counts on, is
//! never sent a request too many.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::provider::{any_own, any_quota, any_story, judge, judge_long_after, reloaded};
use super::world::{Kill, World, play};
use crate::limits::journal::rehearsal::Death;

const TWO_DAYS: i64 = 2 * 24 * 60 * 60;

fn any_kill(within: u64) -> impl Strategy<Value = Kill> {
    let death = (any::<bool>(), any::<bool>(), 0_usize..30).prop_map(|(flushed, compacted, torn)| Death {
        flushed,
        compacted,
        torn,
    });
    (0..within, death, 0_u64..4_000, -TWO_DAYS..TWO_DAYS, proptest::bool::weighted(0.2)).prop_map(
        |(after, death, down, step, boots)| {
            // Across a boot there is only the wall clock: if it is set forward, that much is forgotten, as documented.
            let step = if boots { step.min(0) } else { step };
            Kill { after, death, down, step, boots }
        },
    )
}

fn any_world(within: u64) -> impl Strategy<Value = World> {
    let reload = of((1_000..within * 2, any_quota()));
    let kills = vec(any_kill(within / 4), 1..6);
    (any_quota(), any_own(), vec(any_story(within), 1..40), reload, kills).prop_map(
        |(quota, own, stories, reload, kills)| {
            let reload = reload.map(|(after, to)| (after, reloaded(&quota, to)));
            World { quota, own, stories, reload, kills }
        },
    )
}

fn holds(world: &World) -> Result<(), TestCaseError> {
    let lived = play(world);
    judge(world, &lived)?;
    judge_long_after(&lived)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn no_kill_makes_a_window_or_an_instant_at_the_provider_exceed_its_limit(world in any_world(40_000)) {
        holds(&world)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_kill_makes_a_rolling_day_at_the_provider_exceed_its_limit(world in any_world(60 * 3_600_000)) {
        holds(&world)?;
    }
}
