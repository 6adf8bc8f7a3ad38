//! As much of an SVG writer as a plot needs. Coordinates keep one decimal; text and attributes are escaped.

use std::fmt::{self, Display, Write as _};

/// A picture in the making.
#[derive(Debug)]
pub struct Svg(String);

/// A rectangle: of the plane of a plot, or a thing drawn.
#[derive(Debug, Clone, Copy)]
pub struct Area {
    /// Its left edge.
    pub x: f64,
    /// Its upper edge.
    pub y: f64,
    /// From left to right.
    pub width: f64,
    /// From top to bottom.
    pub height: f64,
}

impl Area {
    /// Its right edge.
    #[must_use]
    pub fn right(self) -> f64 {
        self.x + self.width
    }

    /// Its lower edge.
    #[must_use]
    pub fn bottom(self) -> f64 {
        self.y + self.height
    }
}

impl Svg {
    /// An empty picture of this size; `title` is what a screen reader says.
    #[must_use]
    pub fn new(width: f64, height: f64, title: &str, style: &str) -> Self {
        let mut svg = Self(String::new());
        svg.line_of(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" role=\"img\">",
            Figure(width),
            Figure(height),
        ));
        svg.line_of(format_args!("<title>{}</title>", Escaped(title)));
        svg.line_of(format_args!("<style>{}</style>", Escaped(style)));
        svg
    }

    /// A rectangle with round corners.
    pub fn rect(&mut self, class: &str, area: Area, radius: f64) {
        let radius = Figure(radius);
        self.line_of(format_args!("<rect class=\"{}\" {} rx=\"{radius}\"/>", Escaped(class), Placed(area)));
    }

    /// A straight line.
    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.path(class, Path::default().to(from).to(to), None);
    }

    /// A dot.
    pub fn dot(&mut self, class: &str, (x, y): (f64, f64), radius: f64) {
        let (x, y, radius) = (Figure(x), Figure(y), Figure(radius));
        self.line_of(format_args!("<circle class=\"{}\" cx=\"{x}\" cy=\"{y}\" r=\"{radius}\"/>", Escaped(class)));
    }

    /// A text that begins, or as its class says ends, at a point.
    pub fn text(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        let (x, y) = (Figure(x), Figure(y));
        self.line_of(format_args!("<text class=\"{}\" x=\"{x}\" y=\"{y}\">{}</text>", Escaped(class), Escaped(text)));
    }

    /// A path, of which nothing shows outside of the clip.
    pub fn path(&mut self, class: &str, path: Path, clip: Option<&str>) {
        let clip = clip.map(|id| format!(" clip-path=\"url(#{id})\"")).unwrap_or_default();
        self.line_of(format_args!("<path class=\"{}\"{clip} d=\"{}\"/>", Escaped(class), path.0));
    }

    /// Names an area outside of which nothing shows.
    pub fn clip(&mut self, id: &str, area: Area) {
        self.line_of(format_args!("<clipPath id=\"{}\"><rect {}/></clipPath>", Escaped(id), Placed(area)));
    }

    /// The whole picture.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.line_of(format_args!("</svg>"));
        self.0
    }

    fn line_of(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _infallible = writeln!(self.0, "{text}");
    }
}

/// Strokes.
#[derive(Debug, Default)]
pub struct Path(String);

impl Path {
    /// Lifts the pen: the next point begins a stroke.
    #[must_use]
    pub fn lift(mut self) -> Self {
        if !self.0.is_empty() {
            self.0.push('M');
        }
        self
    }

    /// On to a point.
    #[must_use]
    pub fn to(mut self, (x, y): (f64, f64)) -> Self {
        let pen = match self.0.chars().last() {
            None => "M",
            Some('M') => "",
            Some(_) => "L",
        };
        // Writing to a String cannot fail.
        let _infallible = write!(self.0, "{pen}{} {}", Figure(x), Figure(y));
        self
    }
}

/// Round figures from 0 to `end`, about so many: for the lines of a scale.
pub fn ticks(end: f64, about: f64) -> impl Iterator<Item = f64> {
    let rough = end / about;
    let magnitude = 10_f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|step| step * magnitude).into_iter().find(|step| *step >= rough).unwrap_or(rough);
    // Multiplied, not added up, and rounded, so that 0.3 is not 0.30000000000000004.
    (0..).map(move |n| (f64::from(n) * step * 1e6).round() / 1e6).take_while(move |tick| *tick <= end)
}

/// A coordinate as short as it can be.
struct Figure(f64);

impl Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Adding zero makes a negative zero a plain one.
        write!(f, "{}", (self.0 * 10.0).round() / 10.0 + 0.0)
    }
}

struct Placed(Area);

impl Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, width, height] = [self.0.x, self.0.y, self.0.width, self.0.height].map(Figure);
        write!(f, "x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"")
    }
}

struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_figures_are_short() {
        let mut svg = Svg::new(10.0, 20.0, "a < b & \"c\"", "");
        svg.dot("d", (1.26, -0.04), 2.0);
        let svg = svg.finish();
        assert!(svg.contains("<title>a &lt; b &amp; &quot;c&quot;</title>"), "{svg}");
        assert!(svg.contains("<circle class=\"d\" cx=\"1.3\" cy=\"0\" r=\"2\"/>"), "{svg}");
        assert!(svg.ends_with("</svg>\n"));
    }

    #[test]
    fn a_lifted_pen_begins_a_stroke() {
        let path = Path::default().to((0.0, 1.0)).to((2.0, 3.0)).lift().to((4.0, 5.0)).to((6.0, 7.0));
        assert_eq!(path.0, "M0 1L2 3M4 5L6 7");
    }

    #[test]
    fn ticks_are_round_figures() {
        assert_eq!(ticks(48.0, 4.0).collect::<Vec<_>>(), [0.0, 20.0, 40.0]);
        assert_eq!(ticks(1.3, 4.0).collect::<Vec<_>>(), [0.0, 0.5, 1.0]);
        assert_eq!(ticks(40.0, 6.0).collect::<Vec<_>>(), [0.0, 10.0, 20.0, 30.0, 40.0]);
    }
}
