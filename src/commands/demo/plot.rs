//! A picture of both sides: above, how full the provider's window was and when calls failed; below, how long those who
//! chat waited. Scales are shared, so that heights compare; it follows the reader's light or dark scheme.

use super::measure::{STEP_SECONDS, Side, Waits};
use super::plan::{CHATTING, Plan};
use super::svg::{Area, Path, Svg, ticks};
use super::table::wait;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 476.0;
const PANEL_WIDTH: f64 = 400.0;
/// The left edges of the panels.
const PANELS: [f64; 2] = [52.0, 524.0];
/// Where things are from top to bottom, with their heights.
const WINDOW: (f64, f64) = (118.0, 130.0);
const FAILURES: (f64, f64) = (258.0, 14.0);
const WAITS: (f64, f64) = (308.0, 110.0);
/// From a plot up to the line that says what it shows.
const CAPTION: f64 = 8.0;
/// What the window's scale ends with, in limits.
const WINDOW_SCALE: f64 = 1.6;

const STYLE: &str = "
text{font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#59636e}
.card{fill:#fff;stroke:#d1d9e0}.title{font-size:15px;font-weight:600;fill:#1f2328}
.name{font-size:14px;font-weight:600;fill:#1f2328}.end{text-anchor:end}.middle{text-anchor:middle}.small{font-size:11px}
path{fill:none}.grid{stroke:#d1d9e0;stroke-width:.6}.asking{stroke:#59636e;stroke-width:.8;stroke-dasharray:2 3}
.limit{stroke:#1f2328;stroke-width:1.2;stroke-dasharray:5 3}.within{fill:#0969da;fill-opacity:.3}
.over{fill:#cf222e;fill-opacity:.3}.edge{stroke:#0969da;stroke-width:1.4}.edge-over{stroke:#cf222e;stroke-width:1.4}
.failed{stroke:#cf222e;stroke-width:1.2}.waiting{stroke:#cf222e;stroke-width:1;stroke-opacity:.45}
.chat{fill:#0969da;stroke:#fff;stroke-width:.8}.bad{fill:#cf222e}
@media (prefers-color-scheme:dark){text{fill:#9198a1}.card{fill:#0d1117;stroke:#3d444d}
.title,.name{fill:#f0f6fc}.grid{stroke:#3d444d}.asking{stroke:#9198a1}.limit{stroke:#f0f6fc}
.within{fill:#4493f8}.over{fill:#ff7b72}.edge{stroke:#4493f8}.edge-over{stroke:#ff7b72}
.failed,.waiting{stroke:#ff7b72}.chat{fill:#58a6ff;stroke:#0d1117}.bad{fill:#ff7b72}}
";

/// Draws both sides.
pub(super) fn plot(plan: &Plan, sides: [&Side; 2]) -> String {
    let (window, workers) = (plan.window.as_secs_f64(), plan.workers);
    let title = format!(
        "{CHATTING} people chat and {workers} workers ask without end; the provider allows {} requests in any {window} s, {} at a time",
        plan.requests, plan.concurrency,
    );
    let mut svg = Svg::new(WIDTH, HEIGHT, &title, STYLE);
    svg.rect("card", Area { x: 0.5, y: 0.5, width: WIDTH - 1.0, height: HEIGHT - 1.0 }, 8.0);
    svg.text("title", (20.0, 32.0), &title);
    let scales = Scales::of(plan, sides);
    for ((index, side), x) in sides.into_iter().enumerate().zip(PANELS) {
        Panel { plan, side, scales, x, index }.draw(&mut svg);
    }
    legend(&mut svg);
    svg.finish()
}

/// What both panels share.
#[derive(Debug, Clone, Copy)]
struct Scales {
    /// Where the time axis ends, in seconds.
    time: f64,
    /// Where the axis of the window ends, in requests.
    window: f64,
    /// Where the axis of waits ends, in seconds.
    wait: f64,
}

impl Scales {
    fn of(plan: &Plan, sides: [&Side; 2]) -> Self {
        let most = |figures: &mut dyn Iterator<Item = f64>| figures.fold(1.0, f64::max);
        let longest = most(&mut sides.iter().flat_map(|side| &side.chat).map(|question| question.wait_seconds));
        Self {
            time: most(&mut sides.iter().map(|side| side.took_seconds)),
            window: f64::from(plan.requests.get()) * WINDOW_SCALE,
            wait: longest * 1.08,
        }
    }
}

struct Panel<'a> {
    plan: &'a Plan,
    side: &'a Side,
    scales: Scales,
    x: f64,
    index: usize,
}

impl Panel<'_> {
    fn draw(&self, svg: &mut Svg) {
        let Side { name, answered, client_errors, violations, .. } = self.side;
        svg.text("name", (self.x, 62.0), name);
        let figures =
            format!("{answered} calls answered, {client_errors} failed, {violations} violations at the provider");
        svg.text("", (self.x, 80.0), &figures);
        self.window(svg);
        self.failures(svg);
        self.waits(svg);
        let asked = self.across(self.plan.asking.as_secs_f64());
        for (top, bottom) in [(WINDOW.0, FAILURES.0 + FAILURES.1), (WAITS.0, WAITS.0 + WAITS.1)] {
            svg.line("asking", (asked, top), (asked, bottom));
        }
    }

    fn window(&self, svg: &mut Svg) {
        let area = self.area(WINDOW);
        svg.text("small", (area.x, area.y - CAPTION), "requests in the provider's window");
        let limit = f64::from(self.plan.requests.get());
        self.scale(svg, area, self.scales.window);
        let height = |count: f64| area.bottom() - area.height * count / self.scales.window;
        let (above, below) = (format!("above-{}", self.index), format!("below-{}", self.index));
        svg.clip(&above, Area { height: height(limit) - area.y, ..area });
        svg.clip(&below, Area { y: height(limit) - 1.0, height: area.bottom() - height(limit) + 2.0, ..area });
        for (class, edge, clip) in [("within", "edge", &below), ("over", "edge-over", &above)] {
            let (outline, end) = self.steps(Path::default().to((area.x, area.bottom())), height);
            svg.path(class, outline.to((end, area.bottom())), Some(clip));
            svg.path(edge, self.steps(Path::default(), height).0, Some(clip));
        }
        svg.line("limit", (area.x, height(limit)), (area.right(), height(limit)));
        svg.text("small end", (area.right(), height(limit) - 4.0), &format!("limit {limit}"));
        let most = self.side.window_max;
        if most as f64 > self.scales.window {
            let middle = self.across(self.side.took_seconds / 2.0);
            svg.text("bad middle", (middle, area.y + 16.0), &format!("\u{2191} up to {most}"));
        }
    }

    /// Goes along the fullness of the window; also says where it ends.
    fn steps(&self, mut path: Path, height: impl Fn(f64) -> f64) -> (Path, f64) {
        let mut at = self.x;
        let mut seconds = 0.0;
        for count in &self.side.window {
            path = path.to((at, height(f64::from(*count))));
            seconds += STEP_SECONDS;
            at = self.across(seconds.min(self.scales.time));
            path = path.to((at, height(f64::from(*count))));
        }
        (path, at)
    }

    /// A mark for each moment in which calls failed.
    fn failures(&self, svg: &mut Svg) {
        let area = self.area(FAILURES);
        svg.text("small end", (area.x - 6.0, area.bottom() - 3.0), "failed");
        let mut marks = Path::default();
        for at in &self.side.failed_seconds {
            let x = self.across(*at);
            marks = marks.lift().to((x, area.y)).to((x, area.bottom()));
        }
        svg.line("grid", (area.x, area.bottom()), (area.right(), area.bottom()));
        if !self.side.failed_seconds.is_empty() {
            svg.path("failed", marks, None);
        }
    }

    fn waits(&self, svg: &mut Svg) {
        let area = self.area(WAITS);
        let Waits { p50, p99, .. } = self.side.chat_wait;
        svg.text("small", (area.x, area.y - CAPTION), "seconds a person who chats waited");
        let figures = format!("p50 {}, p99 {}", wait(p50), wait(p99));
        svg.text("small end", (area.right(), area.y - CAPTION), &figures);
        self.scale(svg, area, self.scales.wait);
        let place = |at: f64, waited: f64| (self.across(at), area.bottom() - area.height * waited / self.scales.wait);
        for question in &self.side.chat {
            let asked = question.asked_seconds;
            let end = place(asked + question.wait_seconds, question.wait_seconds);
            if !question.failed_seconds.is_empty() {
                svg.line("waiting", place(asked, 0.0), end);
            }
            let crosses = question
                .failed_seconds
                .iter()
                .fold(Path::default(), |path, failed| cross(path, place(*failed, failed - asked)));
            if !question.failed_seconds.is_empty() {
                svg.path("failed", crosses, None);
            }
            if question.answered {
                svg.dot("chat", end, 4.0);
            }
        }
        for tick in ticks(self.scales.time, 6.0) {
            svg.text("small middle", (self.across(tick), area.bottom() + 16.0), &format!("{tick} s"));
        }
    }

    /// Lines across an area, with their figures beside them.
    fn scale(&self, svg: &mut Svg, area: Area, end: f64) {
        for tick in ticks(end, 4.0) {
            let y = area.bottom() - area.height * tick / end;
            svg.line("grid", (area.x, y), (area.right(), y));
            svg.text("small end", (area.x - 6.0, y + 4.0), &format!("{tick}"));
        }
    }

    fn area(&self, (y, height): (f64, f64)) -> Area {
        Area { x: self.x, y, width: PANEL_WIDTH, height }
    }

    /// Where a moment is.
    fn across(&self, seconds: f64) -> f64 {
        self.x + PANEL_WIDTH * seconds / self.scales.time
    }
}

fn cross(path: Path, (x, y): (f64, f64)) -> Path {
    const ARM: f64 = 3.0;
    let path = path.lift().to((x - ARM, y - ARM)).to((x + ARM, y + ARM));
    path.lift().to((x - ARM, y + ARM)).to((x + ARM, y - ARM))
}

fn legend(svg: &mut Svg) {
    const Y: f64 = HEIGHT - 18.0;
    const MARK: f64 = Y - 4.0;
    let x = |nth: f64| PANELS[0] + nth * 236.0;
    svg.dot("chat", (x(0.0) + 4.0, MARK), 4.0);
    svg.text("small", (x(0.0) + 14.0, Y), "the answer began");
    svg.path("failed", cross(Path::default(), (x(0.7) + 4.0, MARK)), None);
    svg.text("small", (x(0.7) + 14.0, Y), "a try failed, and they ask again");
    svg.line("asking", (x(2.0) + 4.0, MARK - 7.0), (x(2.0) + 4.0, MARK + 7.0));
    svg.text("small", (x(2.0) + 14.0, Y), "from here on nothing new is asked, and who still waits is answered");
}
