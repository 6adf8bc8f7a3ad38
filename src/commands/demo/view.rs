//! Both sides while they run: on a terminal a picture that moves, elsewhere a line every few seconds.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use terminal_size::{Height, Width, terminal_size};

use super::measure::{Glance, Phase};
use super::plan::{CHATTING, Plan};
use crate::config::process_environment;

/// How many seconds pass between two lines where there is no terminal.
const LINE_SECONDS: f64 = 5.0;
/// The cells of a bar up to the limit, and of what goes over it.
const BAR: (usize, usize) = (30, 15);
/// How many of the latest chat answers are shown.
const CHAT_SHOWN: usize = 8;
/// What the picture needs.
const SCREEN: (Width, Height) = (Width(70), Height(20));

const HIDE_CURSOR_AND_CUT_LINES: &str = "\x1b[?25l\x1b[?7l";
const SHOW_CURSOR_AND_WRAP_LINES: &str = "\x1b[?7h\x1b[?25h";
const CLEAR_BELOW: &str = "\x1b[J";
const CLEAR_LINE: &str = "\x1b[K";

/// Shows what is going on. Dropping it leaves the terminal as it was.
#[derive(Debug)]
pub(super) struct View {
    plan: Plan,
    sides: Vec<Shown>,
    screen: Option<Screen>,
}

/// A terminal that is drawn on.
#[derive(Debug)]
struct Screen {
    colours: bool,
    /// How many lines the cursor stands below the top of the picture.
    drawn: usize,
}

/// The latest of a side.
#[derive(Debug)]
struct Shown {
    glance: Glance,
    /// The fullest window of each second so far.
    history: Vec<usize>,
    /// Up to when lines were written.
    told_seconds: f64,
}

impl View {
    /// Says what will be played.
    pub(super) fn open(plan: &Plan) -> io::Result<Self> {
        let view = Self { plan: plan.clone(), sides: Vec::new(), screen: Screen::open() };
        let paint = view.paint();
        let mut out = io::stdout().lock();
        let Plan { requests, concurrency, workers, .. } = plan;
        let (window, asking) = (plan.window.as_secs_f64(), plan.asking.as_secs_f64());
        let (provider, people) = (paint.bold("A simulated provider"), paint.bold(&format!("{CHATTING} people")));
        writeln!(
            out,
            "{provider} allows {requests} requests in any {window} s, {concurrency} at a time, no more.
{people} chat and {workers} workers ask it for {asking} s, first without tidegate.
"
        )?;
        if view.screen.is_some() {
            write!(out, "{HIDE_CURSOR_AND_CUT_LINES}")?;
        }
        out.flush()?;
        Ok(view)
    }

    /// Shows the latest of a side.
    pub(super) fn show(&mut self, glance: Glance) -> io::Result<()> {
        let known = self.sides.iter().position(|side| side.glance.name == glance.name);
        let at = known.unwrap_or(self.sides.len());
        match self.sides.get_mut(at) {
            Some(side) => side.update(glance),
            None => self.sides.push(Shown::new(glance)),
        }
        if self.screen.is_some() { self.draw() } else { self.tell(at) }
    }

    /// Leaves the last picture where it is and the cursor below it.
    pub(super) fn close(self) -> io::Result<()> {
        drop(self);
        writeln!(io::stdout())
    }

    /// A line, when its time has come.
    fn tell(&mut self, at: usize) -> io::Result<()> {
        let Some(side) = self.sides.get_mut(at) else { return Ok(()) };
        let due = side.glance.seconds >= side.told_seconds + LINE_SECONDS;
        if !due && side.glance.phase != Phase::Done {
            return Ok(());
        }
        side.told_seconds = side.glance.seconds - side.glance.seconds % LINE_SECONDS;
        let Glance { name, seconds, window_now, in_flight, answered, failed, violations, ref chat, .. } = side.glance;
        let (requests, concurrency) = (self.plan.requests, self.plan.concurrency);
        let chat = chat.last().map_or_else(|| "nothing yet".to_owned(), |last| chat_word(*last));
        writeln!(
            io::stdout(),
            "{name} {seconds:3.0} s: window {window_now}/{requests}, at once {in_flight}/{concurrency}, answered {answered}, \
             failed {failed}, violations {violations}, chat's last: {chat}"
        )
    }

    fn draw(&mut self) -> io::Result<()> {
        let mut frame = String::new();
        for side in &self.sides {
            frame.push_str(&side.picture(&self.plan, self.paint()));
        }
        let mut out = io::stdout().lock();
        if let Some(screen) = &mut self.screen {
            if screen.drawn > 0 {
                write!(out, "\x1b[{}A\r", screen.drawn)?;
            }
            screen.drawn = frame.lines().count();
        }
        write!(out, "{}{CLEAR_BELOW}", frame.replace('\n', &format!("{CLEAR_LINE}\n")))?;
        out.flush()
    }

    fn paint(&self) -> Paint {
        Paint(self.screen.as_ref().is_some_and(|screen| screen.colours))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if self.screen.is_some() {
            let mut out = io::stdout().lock();
            // A terminal that is gone needs no repair.
            drop(write!(out, "{SHOW_CURSOR_AND_WRAP_LINES}").and_then(|()| out.flush()));
        }
    }
}

impl Screen {
    fn open() -> Option<Self> {
        let set = |name| process_environment(name).is_some_and(|value| !value.is_empty());
        let dumb = process_environment("TERM").is_none_or(|term| term == "dumb");
        let fits = terminal_size().is_some_and(|(width, height)| width >= SCREEN.0 && height >= SCREEN.1);
        (io::stdout().is_terminal() && !dumb && fits).then(|| Self { colours: !set("NO_COLOR"), drawn: 0 })
    }
}

impl Shown {
    fn new(glance: Glance) -> Self {
        let mut side = Self { glance, history: Vec::new(), told_seconds: 0.0 };
        side.remember();
        side
    }

    fn update(&mut self, glance: Glance) {
        self.glance = glance;
        self.remember();
    }

    fn remember(&mut self) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since the beginning")]
        let second = self.glance.seconds as usize;
        if self.history.len() <= second {
            self.history.resize(second + 1, 0);
        }
        if let Some(most) = self.history.get_mut(second) {
            *most = self.glance.window_now.max(*most);
        }
    }

    fn picture(&self, plan: &Plan, paint: Paint) -> String {
        let Glance { name, seconds, phase, in_flight, answered, failed, violations, .. } = self.glance;
        let (requests, slots) = (plan.requests.get() as usize, plan.concurrency.get() as usize);
        let state = match phase {
            Phase::Asking => format!("{seconds:.0} of {} s", plan.asking.as_secs()),
            Phase::Answering => format!("{seconds:.0} s, answering who still waits"),
            Phase::Done => format!("done after {seconds:.1} s"),
        };
        let mut lines = String::new();
        let mut line = |label: &str, text: String| {
            // Writing to a String cannot fail.
            let _infallible = writeln!(lines, "  {label:<11}{text}");
        };
        let over = self.glance.window_now > requests;
        let counted = format!("{} of {requests}", self.glance.window_now);
        line("window", format!("{}  {}", bar(self.glance.window_now, requests, paint), paint.bad_if(over, &counted)));
        line("", self.sparkline(requests, paint));
        let flying = format!("{in_flight} of {slots}");
        line(
            "at a time",
            format!(
                "{}  {}",
                dots(in_flight as usize, slots, paint),
                paint.bad_if(in_flight as usize > slots, &flying)
            ),
        );
        line(
            "calls",
            format!(
                "{} answered   {}   {}",
                paint.good(&answered.to_string()),
                paint.bad_if(failed > 0, &format!("{failed} failed")),
                paint.bad_if(violations > 0, &format!("{violations} violations at the provider")),
            ),
        );
        line("chat waits", self.chat(paint));
        format!("{}  {}\n{lines}\n", paint.bold(name), paint.dim(&state))
    }

    /// The fullest window of each second, as far as they fit into a bar.
    fn sparkline(&self, limit: usize, paint: Paint) -> String {
        const LEVELS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
        let shown = self.history.len().saturating_sub(BAR.0 + BAR.1);
        let cells = self.history.iter().skip(shown).map(|count| {
            let level = (count * LEVELS.len()).div_ceil(limit).clamp(1, LEVELS.len()) - 1;
            let cell = LEVELS.get(level).copied().unwrap_or_default();
            if *count > limit { paint.bad(cell) } else { paint.good(cell) }
        });
        cells.collect()
    }

    fn chat(&self, paint: Paint) -> String {
        let chat = &self.glance.chat;
        let latest = chat.get(chat.len().saturating_sub(CHAT_SHOWN)..).unwrap_or_default();
        let words: Vec<String> = latest
            .iter()
            .map(|wait| if wait.is_some() { paint.good(&chat_word(*wait)) } else { paint.bad("✗") })
            .collect();
        if words.is_empty() { paint.dim("no answer yet") } else { words.join("  ") }
    }
}

/// A wait, or a try that failed.
fn chat_word(wait: Option<f64>) -> String {
    wait.map_or_else(|| "failed".to_owned(), |seconds| format!("{seconds:.1} s"))
}

/// How full something is, with its limit as a line in it.
fn bar(count: usize, limit: usize, paint: Paint) -> String {
    let (within, beyond) = BAR;
    let cells = (count * within).div_ceil(limit);
    let inside = cells.min(within);
    let outside = if count > limit { (cells - within).clamp(1, beyond) } else { 0 };
    let more = if cells > within + beyond { "▶" } else { " " };
    format!(
        "{}{}│{}{}{}",
        paint.good(&"█".repeat(inside)),
        paint.dim(&"·".repeat(within - inside)),
        paint.bad(&"█".repeat(outside)),
        " ".repeat(beyond - outside),
        paint.bad(more),
    )
}

/// Slots: taken, free, and what is too many.
fn dots(count: usize, limit: usize, paint: Paint) -> String {
    let (within, beyond) = BAR;
    let (limit, count) = if limit > within { (within, (count * within).div_ceil(limit)) } else { (limit, count) };
    let taken = count.min(limit);
    let over = count.saturating_sub(limit).min(within + beyond - limit);
    format!(
        "{}{}{}",
        paint.good(&"●".repeat(taken)),
        paint.dim(&"○".repeat(limit - taken)),
        paint.bad(&"●".repeat(over))
    )
}

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    fn bad_if(self, bad: bool, text: &str) -> String {
        if bad { self.with("1;31", text) } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Paint = Paint(false);

    #[test]
    fn a_bar_is_as_long_as_every_other_and_shows_its_limit() {
        for (count, inside, outside) in [(0, 0, 0), (1, 1, 0), (30, 30, 0), (31, 30, 1), (45, 30, 15), (900, 30, 15)] {
            let bar = bar(count, 30, PLAIN);
            let (within, beyond) = bar.split_once('│').unwrap();
            assert_eq!((within.matches('█').count(), beyond.matches('█').count()), (inside, outside), "{count}");
            assert_eq!(bar.chars().count(), 47);
        }
    }

    #[test]
    fn slots_beyond_the_limit_are_seen() {
        assert_eq!(dots(2, 5, PLAIN), "●●○○○");
        assert_eq!(dots(7, 5, PLAIN), "●●●●●●●");
        assert_eq!(dots(500, 5, PLAIN).chars().count(), 45);
        assert_eq!(dots(50, 100, PLAIN).matches('●').count(), 15);
    }
}
