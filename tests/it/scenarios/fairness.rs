//! Who got how much, and how long anybody had to go without.

use super::stage::Evidence;
use super::story::Story;

/// Who comes first finds nobody waiting, and has what the idle may have: shares are of what is given once all wait.
const ALL_WAIT_SINCE: f64 = 1.0;

/// What a group of workers got.
#[derive(Debug, Clone)]
pub(super) struct Portion {
    pub(super) name: String,
    pub(super) weight: f64,
    /// When its calls had their turn, in seconds since the clients began, in order; from when on all wait.
    pub(super) turns: Vec<f64>,
    /// Of all that the weighed groups got.
    pub(super) share: f64,
    /// What its weight entitles it to.
    pub(super) due: f64,
}

impl Evidence {
    /// When the calls of a group had their turn, in seconds since the clients began, in order. Those at the very end are
    /// left out, since the story may have ended before their answers did.
    pub(super) fn turns(&self, story: &Story, group: &str) -> Vec<f64> {
        let group = self.stayed.group(group).unwrap_or_else(|| panic!("no group {group}"));
        let turns = group.samples.iter().filter_map(|sample| sample.turn_seconds());
        let mut turns: Vec<f64> = turns.filter(|at| *at <= horizon(story)).collect();
        turns.sort_unstable_by(f64::total_cmp);
        turns
    }

    /// What each group got that the story weighs.
    pub(super) fn portions(&self, story: &Story) -> Vec<Portion> {
        let weights = &story.expect.weights;
        let since = |group| self.turns(story, group).into_iter().filter(|at| *at >= ALL_WAIT_SINCE).collect::<Vec<_>>();
        let turns: Vec<_> = weights.iter().map(|(name, weight)| (name, *weight, since(name))).collect();
        let all: usize = turns.iter().map(|(_, _, turns)| turns.len()).sum();
        let weight_of_all: f64 = weights.values().sum();
        let portion = |(name, weight, turns): (&String, f64, Vec<f64>)| Portion {
            name: name.clone(),
            weight,
            share: turns.len() as f64 / all as f64,
            due: weight / weight_of_all,
            turns,
        };
        turns.into_iter().map(portion).collect()
    }

    /// The longest that a group had no turn, from the beginning on, in seconds.
    pub(super) fn silence(&self, story: &Story, group: &str) -> f64 {
        longest_gap(&self.turns(story, group), horizon(story))
    }

    /// The share of the provider's tokens that was used after the warm-up: how full its window was on average.
    pub(super) fn tokens_used(&self, story: &Story) -> f64 {
        let from = self.began + story.warm_up.as_secs_f64();
        let allowed = f64::from(story.provider.allows.tokens.expect("a story about tokens"));
        let glances: Vec<_> = self.tokens.iter().filter(|(at, _)| *at >= from).collect();
        let (mut filled, mut seconds) = (0.0, 0.0);
        for pair in glances.windows(2) {
            let [(at, tokens), (next, _)] = pair else { continue };
            filled += *tokens as f64 * (next - at);
            seconds += next - at;
        }
        filled / seconds / allowed
    }
}

/// The longest time from one of these instants to the next, the beginning and `end` included.
pub(super) fn longest_gap(instants: &[f64], end: f64) -> f64 {
    let from = std::iter::once(0.0).chain(instants.iter().copied());
    let to = instants.iter().copied().chain(std::iter::once(end));
    from.zip(to).map(|(from, to)| to - from).fold(0.0, f64::max)
}

/// Until when all turns are known.
fn horizon(story: &Story) -> f64 {
    (story.lasts - story.provider.longest()).as_secs_f64()
}
