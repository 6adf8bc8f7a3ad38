//! What holds whatever happens.

use proptest::prelude::*;

use super::*;

proptest! {
    /// Whatever happens: nothing in force is above what is configured or under its floor, probes keep their distance, and no
    /// gate closes for longer than a day.
    #[test]
    fn whatever_happens_stays_within_bounds(
        happenings in prop::collection::vec((0..7_u8, 0..60_u32, 0..8_u32, 0..2_000_u64, any::<bool>()), 0..200),
    ) {
        let mut story = Story::new(CONFIGURED);
        let (mut last_probe, mut slow) = (None::<Instant>, None);
        for (what, requests, in_flight, seconds, odd) in happenings {
            story.wait(SECOND * u32::try_from(seconds).unwrap());
            let evidence = story.evidence(requests, in_flight, u64::from(requests) * 300);
            let signal = Signal {
                retry_after: (what == 4).then(|| Duration::from_secs(seconds)),
                complaint: Complaint { daily: odd && what == 4, limit: Some(in_flight), ..Complaint::default() },
                ..Signal::default()
            };
            match what {
                0 | 1 => drop(story.learned.accepted(story.now, &evidence)),
                2 => slow = Some(evidence),
                3 | 4 => {
                    let evidence = if odd { slow.take().unwrap_or(evidence) } else { evidence };
                    let closed = story.learned.refused(story.now, &evidence, &signal).closed_until();
                    prop_assert!(closed <= story.now + BENCH_MAX);
                }
                5 => {
                    let (saved, now) = (story.learned.save(story.now, None), story.now);
                    story.learned = Learned::new(CONFIGURED);
                    story.learned.restore(&saved, Duration::ZERO, now);
                }
                _ => {
                    if story.learned.probe(story.now) {
                        prop_assert!(last_probe.is_none_or(|last| story.now - last >= assumed::PROBE_AFTER));
                        last_probe = Some(story.now);
                    }
                }
            }
            let figures = story.learned.figures();
            prop_assert!((4..=40).contains(&figures.requests.unwrap()), "{figures:?}");
            prop_assert!((1_000..=10_000).contains(&figures.tokens.unwrap()), "{figures:?}");
            prop_assert!((1..=5).contains(&figures.concurrency.unwrap()), "{figures:?}");
            prop_assert!((CONFIGURED.margin..=MINUTE / 50).contains(&figures.margin), "{figures:?}");
            for lesson in story.learned.lessons() {
                prop_assert!(lesson.subject == Subject::Margin || Some(lesson.assumed) <= lesson.configured, "{lesson:?}");
            }
        }
    }
}
