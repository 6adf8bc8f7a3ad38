//! A picture of who got how much: on the left how the turns of each client add up, on the right what who chats waited.

use tidegate::commands::demo::svg::{Area, Path, Svg, ticks};

use super::fairness::Portion;
use super::record::Shown;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 330.0;
const TURNS: Area = Area { x: 52.0, y: 90.0, width: 400.0, height: 190.0 };
const WAITS: Area = Area { x: 524.0, y: 90.0, width: 400.0, height: 190.0 };
/// From a plot up to the line that says what it shows.
const CAPTION: f64 = 10.0;

const STYLE: &str = "
text{font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#59636e}
.card{fill:#fff;stroke:#d1d9e0}.title{font-size:15px;font-weight:600;fill:#1f2328}
.end{text-anchor:end}.middle{text-anchor:middle}.small{font-size:11px}
path{fill:none}.grid{stroke:#d1d9e0;stroke-width:.6}.due{stroke:#1f2328;stroke-width:1;stroke-dasharray:5 3}
.light{stroke:#8250df;stroke-width:1.2}.heavy{stroke:#0969da;stroke-width:1.8}
.chat{fill:#0969da;stroke:#fff;stroke-width:.8}
@media (prefers-color-scheme:dark){text{fill:#9198a1}.card{fill:#0d1117;stroke:#3d444d}.title{fill:#f0f6fc}
.grid{stroke:#3d444d}.due{stroke:#f0f6fc}.light{stroke:#a371f7}.heavy{stroke:#4493f8}.chat{fill:#58a6ff;stroke:#0d1117}}
";

/// Draws it.
pub(super) fn picture(shown: &Shown<'_>) -> String {
    let allows = shown.story.provider.allows;
    let workers: usize = shown.story.workers.iter().filter(|group| group.name != "chat").map(|group| group.count).sum();
    let title = format!(
        "{workers} workers of {} clients never pause and one person chats; the provider allows {} requests in any {} s, {} at a time",
        shown.portions.len(),
        allows.requests,
        allows.window.as_secs_f64(),
        allows.concurrency,
    );
    let mut svg = Svg::new(WIDTH, HEIGHT, &title, STYLE);
    svg.rect("card", Area { x: 0.5, y: 0.5, width: WIDTH - 1.0, height: HEIGHT - 1.0 }, 8.0);
    svg.text("title", (20.0, 32.0), &title);
    turns(&mut svg, shown);
    waits(&mut svg, shown);
    svg.finish()
}

/// How the turns of each client add up, and how they would if shares were exact at every instant.
fn turns(svg: &mut Svg, shown: &Shown<'_>) {
    let most = shown.portions.iter().map(|portion| portion.turns.len()).max().unwrap_or(0) as f64;
    let all: usize = shown.portions.iter().map(|portion| portion.turns.len()).sum();
    let end = seconds(shown);
    let last = shown.portions.iter().filter_map(|portion| portion.turns.last()).copied().fold(0.0, f64::max);
    let plane = Plane { area: TURNS, across: end, up: most * 1.1 };
    plane.draw(svg, "turns since the beginning, by client; dashed: what their weights entitle them to");
    let lightest = shown.portions.iter().map(|portion| portion.weight).fold(f64::INFINITY, f64::min);
    let mut labels: Vec<(f64, Vec<&str>)> = Vec::new();
    for Portion { name, weight, turns, due, .. } in &shown.portions {
        let mut path = Path::default().to(plane.at(0.0, 0.0));
        for (count, turn) in turns.iter().enumerate() {
            path = path.to(plane.at(*turn, count as f64)).to(plane.at(*turn, count as f64 + 1.0));
        }
        svg.path(if *weight > lightest { "heavy" } else { "light" }, path.to(plane.at(last, turns.len() as f64)), None);
        match labels.iter_mut().find(|(known, _)| known == weight) {
            Some((_, names)) => names.push(name),
            None => {
                svg.line("due", plane.at(0.0, 0.0), plane.at(last, all as f64 * due));
                labels.push((*weight, vec![name]));
            }
        }
    }
    for (weight, names) in labels {
        let due = shown.portions.iter().find(|portion| portion.weight == weight).map_or(0.0, |portion| portion.due);
        let (x, y) = plane.at(last * 0.72, all as f64 * due * 0.72);
        svg.text("small end", (x - 6.0, y - 8.0), &format!("{}: weight {weight}", names.join(", ")));
    }
}

fn waits(svg: &mut Svg, shown: &Shown<'_>) {
    let interval = shown.interval.as_secs_f64();
    let most = shown.chat.iter().map(|(_, waited)| *waited).fold(interval, f64::max);
    let plane = Plane { area: WAITS, across: seconds(shown), up: most * 1.15 };
    plane.draw(svg, "seconds the person who chats waited for a turn, with a slot free");
    svg.line("due", plane.at(0.0, interval), plane.at(seconds(shown), interval));
    let (right, y) = plane.at(seconds(shown), interval);
    svg.text("small end", (right, y - 4.0), &format!("one permit leaves each {interval:.2} s"));
    for (at, waited) in &shown.chat {
        svg.dot("chat", plane.at(*at, *waited), 3.5);
    }
}

fn seconds(shown: &Shown<'_>) -> f64 {
    shown.story.lasts.as_secs_f64()
}

/// An area with its scales.
struct Plane {
    area: Area,
    /// Where the time axis ends, in seconds.
    across: f64,
    /// Where the other one ends.
    up: f64,
}

impl Plane {
    fn at(&self, seconds: f64, figure: f64) -> (f64, f64) {
        let Self { area, across, up } = self;
        (area.x + area.width * seconds / across, area.bottom() - area.height * figure / up)
    }

    fn draw(&self, svg: &mut Svg, caption: &str) {
        svg.text("small", (self.area.x, self.area.y - CAPTION), caption);
        for tick in ticks(self.up, 4.0) {
            let (x, y) = self.at(0.0, tick);
            svg.line("grid", (x, y), (self.area.right(), y));
            svg.text("small end", (x - 6.0, y + 4.0), &tick.to_string());
        }
        for tick in ticks(self.across, 6.0) {
            let (x, y) = self.at(tick, 0.0);
            svg.text("small middle", (x, y + 16.0), &format!("{tick} s"));
        }
    }
}
