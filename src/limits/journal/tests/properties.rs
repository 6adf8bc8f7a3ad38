//! Whatever happens, and wherever the file is cut: what is recovered never counts less than what was sent.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    Writing {
        lane: usize,
        tokens: u64,
    },
    /// Of one of those that run.
    Written(usize),
    Ended {
        which: usize,
        used: Option<u64>,
        cools: u64,
    },
    Refunded(usize),
    Pass(i64),
    Step(i64),
    Flush,
    Anew,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..2_usize, 0..100_u64).prop_map(|(lane, tokens)| Event::Writing { lane, tokens }),
        3 => (0..8_usize).prop_map(Event::Written),
        3 => (0..8_usize, proptest::option::of(0..100_u64), 0..3_000_u64)
            .prop_map(|(which, used, cools)| Event::Ended { which, used, cools }),
        1 => (0..8_usize).prop_map(Event::Refunded),
        3 => (1..20_000_000_000_i64).prop_map(Event::Pass),
        1 => (-90_000_000_000_000..90_000_000_000_000_i64).prop_map(Event::Step),
        1 => Just(Event::Flush),
        1 => Just(Event::Anew),
    ];
    vec(event, 1..40)
}

/// What truly happened to a request.
#[derive(Debug, Clone, Copy)]
struct Truth {
    lane: usize,
    reserved: u64,
    written: Option<i64>,
    ended: Option<i64>,
    used: Option<u64>,
    cools_until: i64,
}

const LANES: [&str; 2] = ["a", "b"];

/// What must be known at `now` of one lane, and what is.
fn check(truth: &[Truth], ledger: &Ledger, name: &str, index: usize, now: i64) -> Result<(), TestCaseError> {
    let sent: Vec<_> = truth.iter().filter(|truth| truth.lane == index).collect();
    let known = ledger.lanes().find(|known| known.id == lane(name));
    prop_assert!(known.is_some() || sent.is_empty(), "lane {name} is forgotten");
    let Some(known) = known else { return Ok(()) };
    let stamps = || known.recent.values().chain(known.day.values());
    prop_assert!(stamps().all(|spent| spent.at <= now));
    // For every span that ends now: no fewer requests and tokens in it than were sent.
    for from in sent.iter().map(|truth| truth.written.or(truth.ended).unwrap_or(now)) {
        let counts = |truth: &&&Truth| truth.written.or(truth.ended).unwrap_or(now) >= from;
        let requests = sent.iter().filter(counts).count();
        let tokens: u64 = sent.iter().filter(counts).map(|truth| truth.used.unwrap_or(truth.reserved)).sum();
        let since = || stamps().filter(|spent| spent.at >= from);
        prop_assert!(since().map(|spent| spent.requests as usize).sum::<usize>() >= requests, "requests of {name}");
        prop_assert!(since().map(|spent| spent.tokens).sum::<u64>() >= tokens, "tokens of {name}");
    }
    let orphans: u32 = known.orphans.iter().map(|&(_, slots)| slots).sum();
    let running = sent.iter().filter(|truth| truth.ended.is_none()).count();
    let cooling = sent.iter().filter(|truth| truth.ended.is_some() && truth.cools_until > now).count();
    prop_assert!(orphans as usize >= running, "{orphans} slots for {running}");
    prop_assert!(orphans as usize + known.cooling.len() >= running + cooling, "slots that cool");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_kill_at_any_byte_forgets_nothing_that_was_sent(events in events(), down in 0..5_000_000_000_i64) {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Hands::new());
        let (journal, _) = reopen(dir.path(), &clock);
        let mut truth: Vec<Truth> = Vec::new();
        let mut running: Vec<(usize, Entry)> = Vec::new();
        let mut refunded: Vec<usize> = Vec::new();
        let length = || journal.writer().flush_now();
        let on_disk = || std::fs::metadata(dir.path().join("journal")).unwrap().len();
        for event in events {
            match event {
                Event::Writing { lane: index, tokens } => {
                    let (start, moment) = (on_disk(), clock.now());
                    let entry = journal.writing(&lane(LANES[index]), tokens);
                    let end = length();
                    // Killed while this was written: it was not sent yet, all before it was.
                    let before: Vec<_> = (0..truth.len()).filter(|at| !refunded.contains(at)).map(|at| truth[at]).collect();
                    let bytes = std::fs::read(dir.path().join("journal")).unwrap();
                    for cut in start..end {
                        let cut = usize::try_from(cut).unwrap();
                        let ledger = recovered::read(&bytes[..cut], "j".into(), nanos(KEEP), &*clock).unwrap();
                        for (index, name) in LANES.iter().enumerate() {
                            check(&before, &ledger, name, index, moment)?;
                        }
                    }
                    running.push((truth.len(), entry));
                    let (written, ended, used) = (None, None, None);
                    truth.push(Truth { lane: index, reserved: tokens, written, ended, used, cools_until: 0 });
                }
                Event::Written(which) if !running.is_empty() => {
                    let (at, entry) = &running[which % running.len()];
                    journal.written(entry);
                    truth[*at].written.get_or_insert_with(|| clock.now());
                }
                Event::Ended { which, used, cools } if !running.is_empty() => {
                    let (at, entry) = running.swap_remove(which % running.len());
                    journal.ended(entry, used, Duration::from_millis(cools));
                    let truth = &mut truth[at];
                    (truth.ended, truth.used) = (Some(clock.now()), used);
                    truth.cools_until = clock.now() + 1_000_000 * i64::try_from(cools).unwrap();
                }
                Event::Refunded(which) if !running.is_empty() => {
                    let (at, entry) = running.swap_remove(which % running.len());
                    journal.refunded(entry);
                    refunded.push(at);
                }
                Event::Pass(nanos) => clock.pass(nanos),
                Event::Step(nanos) => clock.step(nanos),
                Event::Flush => {
 length();
 }
                Event::Anew => journal.writer().write_anew(),
                Event::Written(_) | Event::Ended { .. } | Event::Refunded(_) => {}
            }
        }
        length();
        let bytes = std::fs::read(dir.path().join("journal")).unwrap();
        clock.pass(down);
        let sent: Vec<_> = (0..truth.len()).filter(|at| !refunded.contains(at)).map(|at| truth[at]).collect();
        let ledger = recovered::read(&bytes, "j".into(), nanos(KEEP), &*clock).unwrap();
        prop_assert_eq!(ledger.unknown_until(), None);
        for (index, name) in LANES.iter().enumerate() {
            check(&sent, &ledger, name, index, clock.now())?;
        }
        // Nor does it count what was not: the file is whole.
        let requests: u32 = ledger
            .lanes()
            .flat_map(|lane| lane.recent.values().chain(lane.day.values()))
            .map(|spent| spent.requests)
            .sum();
        prop_assert_eq!(requests as usize, sent.len());
    }
}
