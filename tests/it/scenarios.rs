//! Load stories, judged at the provider: it sees no request too many, and clients see nothing of its strictness.
//!
//! The stories are told in `tests/scenarios/`. Each plays in true time: a strict simulated provider that resets
//! connections, the whole proxy before it, and a swarm of clients that verify every byte.

#![expect(clippy::print_stdout, reason = "figures, shown when a story fails or is asked for")]

mod crowd;
mod evidence;
mod fairness;
mod halved;
mod hours;
mod picture;
mod record;
mod sockets;
mod stage;
mod story;

use fairness::Portion;
use stage::{Evidence, play};
use story::Story;
use tidegate::config::Settings;

/// What every story promises, and what this one does.
async fn tell(name: &str) -> (Story, Evidence) {
    let story = Story::read(name);
    let evidence = play(&story).await;
    report(&story, &evidence);
    judge(&story, &evidence);
    (story, evidence)
}

fn judge(story: &Story, evidence: &Evidence) {
    let (expect, stats) = (&story.expect, &evidence.stats);
    assert!(stats.violations.total() + stats.refused_in_penalty <= expect.refused_max, "{stats:?}");
    let (count, allowed) = evidence.fullest_window();
    assert!(count <= allowed as usize || expect.refused_max > 0, "{count} in a window of {allowed}");
    assert_eq!(evidence.stayed.lies() + evidence.left.iter().map(|report| report.lies()).sum::<u64>(), 0);
    assert!(evidence.errors().is_empty(), "{:?}", evidence.errors());
    let (broken, cut) = (evidence.broken(), evidence.cut());
    assert!(broken <= cut, "{broken} broken streams, and the provider cut {cut} answers");
    assert!(evidence.stayed.ok() >= expect.ok_min, "{} answered", evidence.stayed.ok());
    assert!(expect.in_flight_max.is_none_or(|most| stats.in_flight_max == most), "slots are there to be used");
    assert!(stats.faults.len() >= expect.kinds_of_faults_min, "{:?}", stats.faults);
    assert!(stats.hangups >= expect.hangups_min, "{} hung up", stats.hangups);
    if let Some(least) = expect.rate_used_min {
        let used = evidence.rate_used(story, period(story));
        assert!(used >= least, "{:.2} % used, expected {:.2} %", used * 100.0, least * 100.0);
    }
    let waits = evidence.chat_waits(story);
    for (wait, most) in [(waits.p95, expect.chat_wait_ms_p95_max), (waits.max, expect.chat_wait_ms_max)] {
        assert!(most.is_none_or(|most| waits.count > 0 && wait <= most), "{waits:?}");
    }
    judge_fairness(story, evidence);
}

fn judge_fairness(story: &Story, evidence: &Evidence) {
    for Portion { name, share, due, .. } in evidence.portions(story) {
        assert!((share / due - 1.0).abs() <= 0.05, "{name} got {:.2} %, due {:.2} %", share * 100.0, due * 100.0);
    }
    for (group, most) in &story.expect.silence_seconds_max {
        let silence = evidence.silence(story, group);
        assert!(silence <= *most, "{group} had no turn for {silence:.2} s");
    }
    if let Some(least) = story.expect.tokens_used_min {
        let used = evidence.tokens_used(story);
        assert!(used >= least, "{:.2} % of the tokens used, expected {:.2} %", used * 100.0, least * 100.0);
    }
}

/// For whoever reads the figures rather than the verdict.
fn report(story: &Story, evidence: &Evidence) {
    let Evidence { stats, stayed, .. } = evidence;
    let (count, allowed) = evidence.fullest_window();
    println!("counted {}, at most {count} in a window of {allowed}, {:?}", stats.counted, stats.violations);
    println!("counted in each second: {:?}", evidence.counted_by_second());
    println!("in flight at most {}, all slots taken for {:.1} s", stats.in_flight_max, stats.in_full_seconds);
    println!("faults {:?}, {} streams broken, {} hung up", stats.faults, evidence.broken(), stats.hangups);
    if story.expect.rate_used_min.is_some() {
        println!("rate used: {:.2} %", evidence.rate_used(story, period(story)) * 100.0);
    }
    for group in stayed.groups.iter().chain(evidence.left.iter().flat_map(|report| &report.groups)) {
        println!("{}: {:?}, queue {:?}", group.name, group.outcomes, group.queue_ms);
    }
    if stayed.group("chat").is_some() {
        println!("chat, first of its class and with a slot free: {:?}", evidence.chat_waits(story));
    }
    for portion in evidence.portions(story) {
        let Portion { name, weight, turns, share, due } = &portion;
        let silence = evidence.silence(story, name);
        let (turns, share, due) = (turns.len(), share * 100.0, due * 100.0);
        println!("{name}, weight {weight}: {turns} turns, {share:.2} % of {due:.2} % due, none for {silence:.2} s");
    }
    if story.expect.tokens_used_min.is_some() {
        let used = evidence.tokens_used(story) * 100.0;
        println!("tokens used: {used:.2} %, at most {} in a window", stats.tokens_max);
    }
}

/// How long a request counts in our window.
fn period(story: &Story) -> tidegate::time::Duration {
    let settings = Settings::parse(&story.config("http://provider", None), &|_| None).expect("a configuration");
    let limits = &settings.upstreams[0].limits;
    limits.window + limits.window_margin
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saturated_provider_sees_no_request_too_many_and_its_rate_is_used_to_the_full() {
    tell("saturated").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_all_kinds_cost_no_violation_and_no_client_an_error_that_a_retry_avoids() {
    tell("faults").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_waited_out_and_every_retry_has_a_permit() {
    tell("outage").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_hang_up_leave_their_slot_taken_until_the_provider_has_noticed() {
    tell("hangups").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_lowered_and_raised_under_load_hold_at_once() {
    tell("lowered").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_share_by_weight_while_one_person_chats_and_nobody_goes_without() {
    tell("fair").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_used_to_the_full_and_never_beyond_though_nobody_says_how_many_it_wants() {
    tell("tokens").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_are_stricter_than_we_are_told_are_learned() {
    tell("stricter").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "five minutes: make soak"]
async fn soak_of_five_true_minutes() {
    tell("soak").await;
}

/// Writes down what it saw where `TIDEGATE_RECORD` says: `make fair`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "seven minutes: make soak, or make fair"]
async fn fairness_of_seven_true_minutes() {
    let (story, evidence) = tell("fair_minutes").await;
    if let Some(file) = std::env::var_os("TIDEGATE_RECORD") {
        record::write(&story, &evidence, std::path::Path::new(&file));
    }
}
