//! For any arrivals, durations, limits, refunds and abandonments: what the provider counts never exceeds its limits, nor
//! what a client uses its own; and who was refused or has left has spent nothing.

use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;

use super::world::{CLIENTS, Fate, Lived, Seen, Story, TOKENS_MAX, World, play};
use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HOUR_MS: u64 = 3_600_000;

pub(super) fn any_quota() -> impl Strategy<Value = Quota> {
    let rate = (weighted(0.9, 1_u32..8), 2_000_u64..20_000, 20_u64..600, 1_u32..6);
    let slots = (weighted(0.9, 1_u32..5), proptest::array::uniform3(0_u32..2));
    (rate, slots, of(u32::try_from(TOKENS_MAX).unwrap()..5_000), weighted(0.3, 3_u32..30)).prop_map(
        |((requests, window, margin, burst), (concurrency, mut concurrency_reserved), tokens, day)| {
            // Together fewer than there are.
            while concurrency_reserved.iter().sum::<u32>() >= concurrency.unwrap_or(u32::MAX) {
                let most = concurrency_reserved.iter_mut().max().unwrap();
                *most -= 1;
            }
            Quota {
                requests: requests.and_then(NonZeroU32::new),
                window: Duration::from_millis(window),
                window_margin: Duration::from_millis(margin),
                burst: NonZeroU32::new(burst),
                tokens: tokens.and_then(NonZeroU32::new),
                requests_per_day: day.and_then(NonZeroU32::new),
                concurrency: concurrency.and_then(NonZeroU32::new),
                concurrency_reserved,
                slot_release_delay: Duration::from_millis(50),
                slot_release_delay_aborted: Duration::from_millis(2_000),
            }
        },
    )
}

/// A client's own limits.
pub(super) fn any_own() -> impl Strategy<Value = Quota> {
    let tokens = of(u32::try_from(TOKENS_MAX).unwrap()..3_000);
    (of(1_u32..6), tokens, of(1_u32..3), 2_000_u64..20_000).prop_map(|(requests, tokens, concurrency, window)| Quota {
        requests: requests.and_then(NonZeroU32::new),
        tokens: tokens.and_then(NonZeroU32::new),
        concurrency: concurrency.and_then(NonZeroU32::new),
        window: Duration::from_millis(window),
        ..Quota::unlimited()
    })
}

/// A call that comes within so many milliseconds.
pub(super) fn any_story(within: u64) -> impl Strategy<Value = Story> {
    let fate = prop_oneof![
        4 => Just(Fate::Ends),
        2 => (0_u64..20_000).prop_map(Fate::Leaves),
        1 => (1_u8..4).prop_map(Fate::NoConnection),
        2 => (1_u8..4, any::<bool>()).prop_map(|(times, lost)| Fate::Fails { times, lost }),
    ];
    let who = (0..within, 0..CLIENTS, proptest::sample::select(Priority::ALL.to_vec()), fate);
    let tokens = (0..=TOKENS_MAX, 0.0..=1.0, any::<bool>());
    (who, tokens, 0_u64..300, 0_u64..5_000, 0.0..=1.0, 0.0..=1.0).prop_map(
        |((arrives, client, priority, fate), (tokens, uses, tells), writing, lasts, counts_at, frees_at)| Story {
            arrives,
            client,
            priority,
            fate,
            tokens,
            uses,
            tells,
            writing,
            lasts,
            counts_at,
            frees_at,
        },
    )
}

/// What the world grants the provider does not change in the middle of a story, but its limits do.
pub(super) fn reloaded(before: &Quota, after: Quota) -> Quota {
    Quota {
        window_margin: before.window_margin,
        slot_release_delay: before.slot_release_delay,
        slot_release_delay_aborted: before.slot_release_delay_aborted,
        ..after
    }
}

fn any_world(within: u64) -> impl Strategy<Value = World> {
    let reload = of((1_000..within * 3 / 2, any_quota()));
    (any_quota(), any_own(), vec(any_story(within), 1..60), reload).prop_map(|(quota, own, stories, reload)| {
        let reload = reload.map(|(after, to)| (after, reloaded(&quota, to)));
        World { quota, own, stories, reload, kills: Vec::new() }
    })
}

/// The most of `amount` in any half-open window in which `own` counts.
fn fullest(all: &[Seen], own: Instant, window: Duration, at: fn(&Seen) -> Instant, amount: fn(&Seen) -> u64) -> u64 {
    let near: Vec<_> = all.iter().map(|seen| (at(seen), amount(seen))).collect();
    let near: Vec<_> = near.into_iter().filter(|&(at, _)| at + window > own && at < own + window).collect();
    let within = |end: Instant| near.iter().filter(|&&(at, _)| at <= end && at + window > end).map(|&(_, n)| n).sum();
    near.iter().map(|&(end, _)| end).filter(|&end| end >= own).map(within).max().unwrap_or(0)
}

fn limit(limits: &[&Quota], of: fn(&Quota) -> Option<NonZeroU32>) -> u64 {
    limits.iter().map(|quota| of(quota).map_or(u64::MAX, |limit| limit.get().into())).max().unwrap()
}

/// No window, token window, day or count of slots is over the limit by which the last of it was permitted.
pub(super) fn judge(world: &World, lived: &Lived) -> Result<(), TestCaseError> {
    let before = &world.quota;
    let after = world.reload.as_ref().map_or(before, |(_, quota)| quota);
    for request in 0..lived.seen.len() {
        let (own, earlier) = (&lived.seen[request], &lived.seen[..=request]);
        // Permits of the very instant of the reload may be of either side.
        let limits: &[&Quota] = match lived.reloaded {
            Some(at) if own.permitted > at => &[after],
            Some(at) if own.permitted == at => &[before, after],
            Some(_) | None => &[before],
        };
        let window = limits.iter().map(|quota| quota.window).min().unwrap();
        let requests = fullest(earlier, own.counted, window, |seen| seen.counted, |_| 1);
        prop_assert!(requests <= limit(limits, |quota| quota.requests), "{requests} in a window: {own:?}");
        let tokens = fullest(earlier, own.counted, window, |seen| seen.counted, |seen| seen.used);
        prop_assert!(tokens <= limit(limits, |quota| quota.tokens), "{tokens} tokens in a window: {own:?}");
        let day = fullest(earlier, own.counted, DAY, |seen| seen.counted, |_| 1);
        prop_assert!(day <= limit(limits, |quota| quota.requests_per_day), "{day} in a day: {own:?}");
        let running = earlier.iter().filter(|other| runs(other, own.permitted)).count().max(1) as u64;
        prop_assert!(running <= limit(limits, |quota| quota.concurrency), "{running} at once: {own:?}");
    }
    Ok(())
}

fn runs(seen: &Seen, at: Instant) -> bool {
    seen.permitted <= at && seen.freed > at
}

/// Nobody has a slot that is set aside for another class.
fn judge_reserved(world: &World, lived: &Lived) -> Result<(), TestCaseError> {
    let (Some(cap), None) = (world.quota.concurrency, &world.reload) else { return Ok(()) };
    for request in 0..lived.seen.len() {
        let own = &lived.seen[request];
        let held = Priority::ALL.map(|class| {
            let running = lived.seen[..=request].iter().filter(|other| other.class == class);
            let running =
                running.filter(|other| runs(other, own.permitted) || other.permitted == own.permitted).count();
            let running = u32::try_from(running).unwrap();
            if class == own.class { running } else { running.max(world.quota.concurrency_reserved[class as usize]) }
        });
        // Of what was permitted at one instant and is over already, the order is not known.
        let is_clear = lived.seen.iter().filter(|other| other.permitted == own.permitted).count() == 1;
        prop_assert!(!is_clear || held.iter().sum::<u32>() <= cap.get(), "{held:?} of {cap}: {own:?}");
    }
    Ok(())
}

/// No client uses more than its own limits.
fn judge_own(world: &World, lived: &Lived) -> Result<(), TestCaseError> {
    let quota = &world.own;
    for client in 1..CLIENTS {
        let all: Vec<Seen> = lived.seen.iter().filter(|seen| seen.client == client).copied().collect();
        for own in &all {
            let requests = fullest(&all, own.stamped, quota.window, |seen| seen.stamped, |_| 1);
            prop_assert!(requests <= limit(&[quota], |quota| quota.requests), "{requests} of its own: {own:?}");
            let tokens = fullest(&all, own.stamped, quota.window, |seen| seen.stamped, |seen| seen.used);
            prop_assert!(tokens <= limit(&[quota], |quota| quota.tokens), "{tokens} tokens of its own: {own:?}");
            let running = all.iter().filter(|seen| seen.permitted <= own.permitted && seen.ended > own.permitted);
            let running = running.count() as u64;
            prop_assert!(running <= limit(&[quota], |quota| quota.concurrency), "{running} of its own: {own:?}");
        }
    }
    Ok(())
}

/// Nothing counts but what was sent, and in the end nothing at all.
pub(super) fn judge_spent(world: &World, lived: &Lived) -> Result<(), TestCaseError> {
    let quota = world.reload.as_ref().filter(|_| lived.reloaded.is_some()).map_or(&world.quota, |(_, quota)| quota);
    let (now, usage) = lived.usage;
    // A margin that was learned is longer.
    let span = quota.window + usage.window_margin;
    let since = |at: fn(&Seen) -> Instant, span: Duration| lived.seen.iter().filter(move |seen| at(seen) + span > now);
    let requests = u32::try_from(since(|seen| seen.stamped, span).count()).unwrap();
    // Of what was sent before there was a window nobody knows when: it counts as full.
    let is_counted = world.quota.requests.is_some() || lived.reloaded.is_none();
    let window = usage.window.filter(|_| is_counted);
    prop_assert!(window.is_none_or(|(used, _)| used <= requests), "{usage:?}, {requests} were sent");
    let tokens: u64 = since(|seen| seen.stamped, span + span / 512).map(|seen| seen.known).sum();
    prop_assert!(usage.tokens.is_none_or(|(used, _)| used <= tokens), "{usage:?}, {tokens} tokens were used");
    let minute = Duration::from_secs(60);
    let day = since(|seen| seen.stamped, DAY + quota.window_margin + minute).count() as u64;
    prop_assert!(usage.day.is_none_or(|(used, _)| used <= day), "{usage:?}, {day} were sent in a day");
    let slots = u32::try_from(since(|seen| seen.cooled, Duration::ZERO).count()).unwrap();
    prop_assert!(usage.slots_in_use <= slots, "{usage:?}, {slots} cool");
    judge_long_after(lived)
}

pub(super) fn judge_long_after(lived: &Lived) -> Result<(), TestCaseError> {
    let Usage { window, tokens, day, slots_in_use, .. } = lived.long_after;
    let used =
        (window.map_or(0, |(used, _)| used), tokens.map_or(0, |(used, _)| used), day.map_or(0, |(used, _)| used));
    prop_assert_eq!((used, slots_in_use), ((0, 0, 0), 0), "something is never given back");
    Ok(())
}

fn holds(world: &World) -> Result<(), TestCaseError> {
    let lived = play(world);
    judge(world, &lived)?;
    judge_reserved(world, &lived)?;
    judge_own(world, &lived)?;
    judge_spent(world, &lived)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_window_and_no_instant_at_the_provider_is_over_its_limit(world in any_world(40_000)) {
        holds(&world)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_rolling_day_at_the_provider_is_over_its_limit(world in any_world(60 * HOUR_MS)) {
        holds(&world)?;
    }
}
