//! Load stories, judged at the provider: it sees no request too many, and clients see nothing of its strictness.
//!
//! The stories are told in `tests/scenarios/`. Each plays in true time: a strict simulated provider that resets
//! connections, the whole proxy before it, and a swarm of clients that verify every byte.

#![expect(clippy::print_stdout, reason = "figures, shown when a story fails or is asked for")]

mod crowd;
mod evidence;
mod fairness;
mod figures;
mod flat;
mod halved;
mod hours;
mod house;
mod outage;
mod picture;
mod record;
mod sockets;
mod stage;
mod story;
mod two;

use fairness::Portion;
use stage::{Evidence, play};
use story::Story;
use tidegate::sim::swarm::Came;
use tidegate::time::{Duration, Tasks};

/// What every story promises, and what this one does.
async fn tell(name: &str) -> (Story, Evidence) {
    let story = Story::read(name);
    let evidence = play(&story).await;
    report(&story, &evidence);
    judge(&story, &evidence);
    (story, evidence)
}

/// Stories that load the machine so little that they can be played at the same time.
async fn tell_together(names: &[&str]) {
    let tasks = Tasks::default();
    let play = |name: &&str| {
        let story = Story::read(name);
        tasks.spawn(async move { (play(&story).await, story) })
    };
    let playing: Vec<_> = names.iter().map(play).collect();
    let mut told = Vec::new();
    for playing in playing {
        told.push(playing.await.expect("it is played to its end"));
    }
    for (name, (evidence, story)) in names.iter().zip(&told) {
        println!("-- {name}");
        report(story, evidence);
    }
    for (name, (evidence, story)) in names.iter().zip(&told) {
        println!("-- {name}");
        judge(story, evidence);
    }
}

fn judge(story: &Story, evidence: &Evidence) {
    let (expect, stats) = (&story.expect, &evidence.stats);
    assert!(stats.violations.total() + stats.refused_in_penalty <= expect.refused_max, "{stats:?}");
    let (count, allowed) = evidence.fullest_window();
    assert!(count <= allowed as usize || expect.refused_max > 0, "{count} in a window of {allowed}");
    assert_eq!(evidence.stayed.lies() + evidence.left.iter().map(|report| report.lies()).sum::<u64>(), 0);
    assert!(evidence.errors().is_empty(), "{:?}", evidence.errors());
    judge_recovery(story, evidence);
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
    judge_outage(story, evidence);
    if expect.flat {
        flat::judge(&evidence.figures);
    }
}

/// What broke has gone on, but for what cannot be continued; nobody waited in vain but for a provider that was silent.
fn judge_recovery(story: &Story, evidence: &Evidence) {
    let (broken, cut) = (evidence.broken(), evidence.cut());
    let (ok, failed) = (evidence.metrics.continued("ok"), evidence.metrics.continued("failed"));
    match story.expect.continued_min {
        None => assert!(broken <= cut, "{broken} broken streams, and the provider cut {cut} answers"),
        Some(least) => {
            // Whose client was cut off at the very end has failed unheard.
            assert!(failed >= broken as f64, "{broken} streams broke, though {failed} were not continued");
            // The style of vLLM has no words for thoughts that have not come to an end.
            let continuable = ok + (broken - evidence.broken_in(Came::Reasoning)) as f64;
            assert!(ok > 0.0 && ok >= least * continuable, "{ok} of {continuable} broken streams went on");
        }
    }
    let (without_usage, cut_late) = (evidence.without_usage(), evidence.cut_late());
    assert!(without_usage <= cut_late, "{without_usage} lack their usage, and {cut_late} were cut before it");
    let (timed_out, stalled) = (evidence.timed_out(), evidence.stalled(story));
    assert!(timed_out <= stalled, "{timed_out} timed out, and the provider was silent {stalled} times");
    // The others were cut off at the end, or were to continue a stream.
    let others = u64::from(story.provider.allows.concurrency) + broken;
    assert!(timed_out + others >= stalled, "{timed_out} timed out, though the provider was silent {stalled} times");
}

fn judge_outage(story: &Story, evidence: &Evidence) {
    let Some(expect) = &story.expect.outage else { return };
    let came = evidence.came_while_down();
    assert!(came <= expect.came_max, "{came} came while the provider was down");
    let (probes, open) = (evidence.probes(), story.settings().breaker.open.as_secs_f64());
    let jitter = story.provider.arrival_jitter.as_secs_f64();
    let pauses: Vec<f64> = probes.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.iter().all(|pause| *pause >= open - jitter), "probes at {probes:?}");
    assert!(pauses.is_sorted_by(|one, next| next + 2.0 * jitter >= *one), "probes at {probes:?}");
    if let Some(most) = expect.crowd_max {
        let crowd = evidence.crowd(interval(story));
        assert!(crowd <= most, "{crowd} came in {:?}", interval(story));
    }
    if let Some(most) = expect.gathered_max {
        let gathered = evidence.gathered(story);
        assert!(gathered <= most, "{:.1} % of a window came in a twentieth of it", gathered * 100.0);
    }
    if expect.herd {
        let herd = evidence.herd(story.provider.latency());
        assert_eq!(herd, 0, "so many more came back than had been answered twice over");
    }
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
    let (ok, failed) = (evidence.metrics.continued("ok"), evidence.metrics.continued("failed"));
    let (thinking, without_usage) = (evidence.broken_in(Came::Reasoning), evidence.without_usage());
    println!("{ok} streams went on, {failed} could not, {thinking} of these in the middle of their reasoning");
    println!("{without_usage} lack their usage, and {} were cut after the finish reason", evidence.cut_late());
    println!("{} timed out, the provider was silent {} times", evidence.timed_out(), evidence.stalled(story));
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
    if story.expect.outage.is_some() {
        report_outage(story, evidence);
    }
    if story.expect.flat {
        flat::report(&evidence.figures);
    }
    if story.expect.tokens_used_min.is_some() {
        let used = evidence.tokens_used(story) * 100.0;
        println!("tokens used: {used:.2} %, at most {} in a window", stats.tokens_max);
    }
}

fn report_outage(story: &Story, evidence: &Evidence) {
    println!("{} came while it was down, probes at {:.1?} s", evidence.came_while_down(), evidence.probes());
    let (crowd, gathered) = (evidence.crowd(interval(story)), evidence.gathered(story) * 100.0);
    println!(
        "back after {:.1} s, then at most {crowd} in an interval, {gathered:.1} % of a window in a twentieth of it",
        evidence.first_after()
    );
}

/// How long a request counts in our window.
fn period(story: &Story) -> Duration {
    let settings = story.settings();
    let limits = &settings.upstreams[0].limits;
    limits.window + limits.window_margin
}

/// The least time between two permits under backlog, less what the way to the provider may take off it.
fn interval(story: &Story) -> Duration {
    (period(story) / story.provider.allows.requests).saturating_sub(story.provider.arrival_jitter)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saturated_provider_sees_no_request_too_many_and_its_rate_is_used_to_the_full() {
    tell("saturated").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_minutes_of_faults_of_all_kinds_cost_no_violation_and_no_client_an_avoidable_error() {
    tell("soak_cut").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_break_by_the_hundred_end_whole_in_each_style_of_continuation() {
    tell_together(&["breaks_vllm", "breaks_prefix", "breaks_echo"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_a_minute_is_waited_out_and_nobody_comes_back_as_a_herd() {
    tell_together(&["down_refuse", "down_reset", "down_503", "down_hang", "down_unlimited"]).await;
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

/// Writes down what it saw where `TIDEGATE_RECORD` says: `make soak`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "twenty minutes: make soak"]
async fn soak_of_twenty_true_minutes_of_faults_of_all_kinds() {
    let (story, evidence) = tell("soak").await;
    if let Some(file) = std::env::var_os("TIDEGATE_RECORD") {
        flat::record(&story, &evidence, std::path::Path::new(&file));
    }
}

/// Writes down what it saw where `TIDEGATE_RECORD` says: `make fair`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "seven minutes: make fair"]
async fn fairness_of_seven_true_minutes() {
    let (story, evidence) = tell("fair_minutes").await;
    if let Some(file) = std::env::var_os("TIDEGATE_RECORD") {
        record::write(&story, &evidence, std::path::Path::new(&file));
    }
}
