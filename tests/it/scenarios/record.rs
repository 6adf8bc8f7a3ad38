//! What README shows of a story: the figures as JSON, a picture beside them, and the table in README itself.

use std::fs;
use std::path::Path;

use serde_json::json;
use tidegate::sim::swarm::Percentiles;
use tidegate::time::Duration;

use super::fairness::Portion;
use super::period;
use super::picture::picture;
use super::stage::Evidence;
use super::story::Story;

/// Where the table is in README; what stands between is replaced.
const BEGIN: &str = "<!-- made by `make fair` -->\n";
const END: &str = "<!-- /made by `make fair` -->\n";

/// Everything that is shown.
pub(super) struct Shown<'a> {
    pub(super) story: &'a Story,
    pub(super) portions: Vec<Portion>,
    /// The longest that each portion's group had no turn, in seconds.
    pub(super) silences: Vec<f64>,
    /// When those who chat had their turn, and what they waited for it with a slot free, in seconds.
    pub(super) chat: Vec<(f64, f64)>,
    pub(super) chat_waits: Percentiles,
    pub(super) rate_used: f64,
    /// The least time between two permits under backlog.
    pub(super) interval: Duration,
}

impl<'a> Shown<'a> {
    fn new(story: &'a Story, evidence: &Evidence) -> Self {
        let portions = evidence.portions(story);
        let silences = portions.iter().map(|portion| evidence.silence(story, &portion.name)).collect();
        Self {
            silences,
            portions,
            chat: evidence.chat_turns(),
            chat_waits: evidence.chat_waits(story),
            rate_used: evidence.rate_used(story, period(story)),
            interval: period(story) / story.provider.allows.requests,
            story,
        }
    }
}

/// Writes `file`, the picture beside it, and README's table.
pub(super) fn write(story: &Story, evidence: &Evidence, file: &Path) {
    let shown = Shown::new(story, evidence);
    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    fs::write(file, format!("{}\n", figures(&shown, evidence))).expect("writable");
    fs::write(file.with_extension("svg"), picture(&shown)).expect("writable");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(&path).expect("README.md");
    let (before, rest) = readme.split_once(BEGIN).expect("where the table begins");
    let (_, after) = rest.split_once(END).expect("where the table ends");
    fs::write(path, format!("{before}{BEGIN}\n{}\n{END}{after}", table(&shown, evidence))).expect("writable");
}

fn figures(shown: &Shown<'_>, evidence: &Evidence) -> serde_json::Value {
    let Shown { story, portions, silences, chat, chat_waits, rate_used, .. } = shown;
    let clients = portions.iter().zip(silences).map(|(portion, silence)| {
        let Portion { name, weight, turns, share, due } = portion;
        let turns: Vec<f64> = turns.iter().map(|at| round(*at)).collect();
        json!({
            "name": name, "weight": weight, "workers": workers(story, name), "turns": turns.len(),
            "share": round(*share), "share_due": round(*due), "silence_seconds_max": round(*silence),
            "turns_seconds": turns,
        })
    });
    let chat: Vec<_> = chat.iter().map(|(at, waited)| [round(*at), round(*waited)]).collect();
    let allows = story.provider.allows;
    json!({
        "seconds": story.lasts.as_secs_f64(),
        "provider": {
            "requests": allows.requests, "window_seconds": allows.window.as_secs_f64(), "concurrency": allows.concurrency,
        },
        "violations": evidence.stats.violations.total(),
        "window_max": evidence.stats.window_max,
        "in_flight_max": evidence.stats.in_flight_max,
        "rate_used": round(*rate_used),
        "chat": {
            "wait_ms_p50": round(chat_waits.p50), "wait_ms_p95": round(chat_waits.p95), "wait_ms_max": round(chat_waits.max),
            "turns_and_waits_seconds": chat,
        },
        "clients": clients.collect::<Vec<_>>(),
    })
}

fn table(shown: &Shown<'_>, evidence: &Evidence) -> String {
    let Shown { story, portions, silences, chat_waits, rate_used, interval, .. } = shown;
    let mut lines = vec![
        "| client | weight | workers | turns | share | due | longest without a turn |".to_owned(),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    for (portion, silence) in portions.iter().zip(silences) {
        let Portion { name, weight, turns, share, due } = portion;
        let (workers, turns, share, due) = (workers(story, name), turns.len(), share * 100.0, due * 100.0);
        lines.push(format!("| {name} | {weight} | {workers} | {turns} | {share:.1} % | {due:.1} % | {silence:.1} s |"));
    }
    let seconds = |ms: f64| format!("{:.2} s", ms / 1_000.0);
    lines.push(format!(
        "\n{} violations at the provider, at most {} requests in its window of {} and {} at a time; {:.1} % of its rate used. \
         With a slot free\nthe person who chats waited {} (p50), {} (p95), {} at the most; one permit leaves each {:.2} s.",
        evidence.stats.violations.total(),
        evidence.stats.window_max,
        story.provider.allows.requests,
        evidence.stats.in_flight_max,
        rate_used * 100.0,
        seconds(chat_waits.p50),
        seconds(chat_waits.p95),
        seconds(chat_waits.max),
        interval.as_secs_f64(),
    ));
    lines.join("\n") + "\n"
}

fn workers(story: &Story, name: &str) -> usize {
    story.workers.iter().filter(|workers| workers.name == name).map(|workers| workers.count).sum()
}

fn round(figure: f64) -> f64 {
    (figure * 1_000.0).round() / 1_000.0
}
