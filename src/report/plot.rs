//! Plots of curves over steps: axes, bands, lines, a legend, and the numbers as a table.
//!
//! A line is told by its colour, its dashes and the shape of its marks.

use std::fmt::Write as _;

use super::markup::{coordinate as xy, count, cut, details, escape, number, table};
use super::scale::{Scale, Spread};
use super::thin::{Curve, Point};

/// Size of the drawing, and the margins around the part with the curves.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 294.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 32.0;
const BOTTOM: f64 = 42.0;

/// Colours of style.css, dashes of style.css, and shapes of [`mark`].
const COLOURS: usize = 8;
const DASHES: usize = 8;
const SHAPES: usize = 6;

/// Rows of the table behind a plot.
const TABLE_ROWS: usize = 20;
/// Curves with more points than this have marks at a few places only.
const MARK_ALL: usize = 40;

/// A curve with its name and look.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub name: String,
    /// Lines of one style look alike in all plots.
    pub style: usize,
    pub curve: Curve,
}

/// A plot of some curves.
#[derive(Clone, Debug, Default)]
pub(super) struct Plot {
    /// Of the page's elements; unique.
    pub id: String,
    pub title: String,
    /// What the y axis shows, with the unit.
    pub y_label: String,
    /// What the reader should know, as plain text; may be empty.
    pub note: String,
    pub lines: Vec<Line>,
    /// Whether values may be spread by their logarithm, where they differ by much.
    pub may_be_log: bool,
    /// Whether the y axis begins at 0.
    pub from_zero: bool,
    /// Without the ranges around the lines.
    pub without_bands: bool,
    /// Whether it stands under the heading of a run.
    pub is_below_run: bool,
}

impl Plot {
    /// The figure; empty when there is nothing to draw.
    pub(super) fn html(&self) -> String {
        let drawn: Vec<&Line> = self.lines.iter().filter(|l| !l.curve.points.is_empty()).collect();
        if drawn.is_empty() {
            return String::new();
        }
        let mut out = format!(
            "<figure class=\"plot\">\n<figcaption><{2} id=\"{0}\">{1}</{2}></figcaption>\n",
            self.id,
            escape(&self.title),
            if self.is_below_run { "h4" } else { "h3" }
        );
        out += &self.svg(&drawn);
        out += &legend(drawn.iter().map(|l| (l.style, legend_text(l))));
        let notes = self.notes(&drawn);
        if !notes.is_empty() {
            let _ = writeln!(out, "<p class=\"note\">{}</p>", escape(&notes));
        }
        out + &details("Numbers", &self.table(&drawn)) + "</figure>\n"
    }

    fn spread(&self, low: f64, high: f64) -> Spread {
        let is_wide = self.may_be_log && low > 0.0 && high / low > 50.0;
        if is_wide { Spread::Log } else { Spread::Linear }
    }

    /// The least and greatest value that are drawn.
    fn range(&self, drawn: &[&Line]) -> (f64, f64) {
        let points = drawn.iter().flat_map(|l| &l.curve.points);
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for p in points {
            let (a, b) = if self.without_bands { (p.mean, p.mean) } else { (p.low, p.high) };
            (low, high) = (low.min(a), high.max(b));
        }
        (if self.from_zero { low.min(0.0) } else { low }, high)
    }

    fn svg(&self, drawn: &[&Line]) -> String {
        let (low, high) = self.range(drawn);
        let spread = self.spread(low, high);
        let y = Scale::rounded(spread, (low, high), (HEIGHT - BOTTOM, TOP));
        let ends = || drawn.iter().filter_map(|l| l.curve.ends);
        let first = ends().map(|e| e.0).min_by(f64::total_cmp).unwrap_or(0.0);
        let last = ends().map(|e| e.1).max_by(f64::total_cmp).unwrap_or(1.0);
        // A run that begins near 0 is shown from 0 on.
        let first = if first > 0.0 && first < 0.2 * last { 0.0 } else { first };
        let x = Scale::new(Spread::Linear, (first, last), (LEFT + 4.0, WIDTH - RIGHT));
        let mut out = format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-labelledby=\"{0}-t {0}-d\"><title id=\"{0}-t\">{1}</title>\
             <desc id=\"{0}-d\">{2}</desc>\n",
            self.id,
            escape(&self.title),
            escape(&description(drawn))
        );
        self.axes(&mut out, &x, &y, spread);
        for line in drawn.iter().filter(|_| !self.without_bands) {
            band(&mut out, line, &x, &y);
        }
        for line in drawn {
            let path = path(line.curve.points.iter().map(|p| (x.at(p.x), y.at(p.mean))));
            let _ = writeln!(out, "<path class=\"line {}\" d=\"{path}\"/>", look(line.style));
        }
        for (i, line) in drawn.iter().enumerate() {
            marks(&mut out, line, i as f64 / drawn.len() as f64, &x, &y);
        }
        out + "</svg>\n"
    }

    fn axes(&self, out: &mut String, x: &Scale, y: &Scale, spread: Spread) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in y.ticks(5) {
            let at = xy(y.at(value));
            let _ = write!(
                out,
                "<path class=\"grid\" d=\"M{LEFT} {at}H{right}\"/><text class=\"tick\" x=\"{}\" \
                 y=\"{}\" text-anchor=\"end\">{}</text>",
                LEFT - 7.0,
                xy(y.at(value) + 4.0),
                escape(&label)
            );
        }
        for (value, label) in x.ticks(6) {
            let at = xy(x.at(value));
            let _ = write!(
                out,
                "<path class=\"axis\" d=\"M{at} {bottom}v5\"/><text class=\"tick\" x=\"{at}\" \
                 y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 19.0,
                escape(&label)
            );
        }
        let kind = if spread == Spread::Log { ", logarithmic" } else { "" };
        let _ = writeln!(
            out,
            "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>\
             <text class=\"label\" x=\"4\" y=\"14\">{}{kind}</text>\
             <text class=\"label\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">step</text>",
            escape(&self.y_label),
            xy((LEFT + right) / 2.0),
            HEIGHT - 5.0
        );
    }

    fn notes(&self, drawn: &[&Line]) -> String {
        let mut notes = self.note.clone();
        let n_lost: usize = drawn.iter().map(|l| l.curve.n_not_finite).sum();
        let n_values: usize = drawn.iter().map(|l| l.curve.n_values).sum();
        if n_lost > 0 {
            let (lost, all) = (count(n_lost), count(n_values));
            notes += if notes.is_empty() { "" } else { " " };
            notes += &format!("Missing or not finite, and left out: {lost} of {all} values.");
        }
        notes
    }

    fn table(&self, drawn: &[&Line]) -> String {
        let mut xs: Vec<f64> =
            drawn.iter().flat_map(|l| l.curve.points.iter().map(|p| p.x)).collect();
        xs.sort_unstable_by(f64::total_cmp);
        xs.dedup();
        let n = xs.len().min(TABLE_ROWS);
        let chosen = (0..n).map(|i| xs[i * (xs.len() - 1) / (n - 1).max(1)]);
        let near = (xs[xs.len() - 1] - xs[0]) / (2 * n) as f64;
        let rows: Vec<Vec<String>> = chosen
            .map(|x| {
                let cells = drawn.iter().map(|l| cell(l, x, near, self.without_bands));
                std::iter::once(number(x.round(), 9)).chain(cells).collect()
            })
            .collect();
        let heads: Vec<String> = std::iter::once("step".to_owned())
            .chain(drawn.iter().map(|l| l.name.clone()))
            .collect();
        let rest =
            if n < xs.len() { format!(" (every {}th point)", xs.len() / n) } else { String::new() };
        table(&format!("{}, {}{rest}", self.title, self.y_label), &heads, &rows)
    }
}

/// What lines and bands are, for the plots of a section; empty where lines are just values.
pub(super) fn explanation(plots: &[&Plot]) -> String {
    let lines = || plots.iter().flat_map(|p| p.lines.iter().map(move |l| (p, l)));
    let mut text = String::new();
    let thinned = lines().filter(|(_, l)| l.curve.is_thinned);
    if let Some(n) = thinned.map(|(_, l)| l.curve.points.len()).max() {
        let _ = write!(
            text,
            "Long curves are thinned to {n} points or fewer: a line is the mean of the steps \
             around."
        );
        let is_range = |(p, l): &(&&Plot, &Line)| {
            !p.without_bands && l.curve.is_thinned && l.curve.n_runs == 1
        };
        if lines().any(|l| is_range(&l)) {
            text += " Its band goes from their least to their greatest value.";
        }
    }
    if lines().any(|(_, l)| l.curve.n_runs > 1) {
        text += if text.is_empty() { "" } else { " " };
        text += "Of several seeds a line is the mean, and its band their range.";
    }
    text
}

/// The value of a line near `x`, with its range.
fn cell(line: &Line, x: f64, near: f64, without_band: bool) -> String {
    let distance = |p: &&Point| (p.x - x).abs();
    let point = line.curve.points.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
    let Some(p) = point.filter(|p| distance(p) <= near + 1e-9) else { return "–".to_owned() };
    if p.low == p.high || without_band {
        return number(p.mean, 4);
    }
    format!("{} ({} to {})", number(p.mean, 4), number(p.low, 3), number(p.high, 3))
}

fn legend_text(line: &Line) -> String {
    match line.curve.n_runs {
        n if n > 1 && !line.name.contains("seeds)") => format!("{} ({n} seeds)", line.name),
        _ => line.name.clone(),
    }
}

/// What the curves do, in words.
fn description(drawn: &[&Line]) -> String {
    let mut text = String::new();
    for line in drawn {
        let (Some(first), Some(last)) = (line.curve.points.first(), line.curve.points.last())
        else {
            continue;
        };
        let (low, high) = line.curve.range().unwrap_or((first.low, first.high));
        let _ = write!(
            text,
            "{}: {} at step {}, {} at step {}, least {}, greatest {}. ",
            cut(&line.name, 60),
            number(first.mean, 3),
            number(first.x.round(), 9),
            number(last.mean, 3),
            number(last.x.round(), 9),
            number(low, 3),
            number(high, 3)
        );
    }
    text.trim_end().to_owned()
}

/// The classes of a line's style.
pub(super) fn look(style: usize) -> String {
    format!("s{} d{}", style % COLOURS, (style + style / COLOURS) % DASHES)
}

/// `M x y L x y …` through some points.
pub(super) fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut out = String::new();
    for (i, (x, y)) in points.enumerate() {
        let _ = write!(out, "{}{} {}", if i == 0 { "M" } else { "L" }, xy(x), xy(y));
    }
    out
}

fn band(out: &mut String, line: &Line, x: &Scale, y: &Scale) {
    let points = &line.curve.points;
    if points.iter().all(|p| p.low == p.high) {
        return;
    }
    let upper = points.iter().map(|p| (x.at(p.x), y.at(p.high)));
    let lower = points.iter().rev().map(|p| (x.at(p.x), y.at(p.low)));
    let path = path(upper.chain(lower));
    let _ = writeln!(out, "<path class=\"band {}\" d=\"{path}Z\"/>", look(line.style));
}

/// Marks on a line: on each point of a short one, else at a few places, `offset` (0 to 1) of the
/// way from one to the next, so that those of different lines do not coincide.
fn marks(out: &mut String, line: &Line, offset: f64, x: &Scale, y: &Scale) {
    let points = &line.curve.points;
    let every = if points.len() <= MARK_ALL { 1 } else { points.len() / 5 };
    let first = (offset * every as f64) as usize;
    for p in points.iter().skip(first).step_by(every) {
        let at = mark(line.style, x.at(p.x), y.at(p.mean));
        let _ = write!(out, "<path class=\"mark s{}\" d=\"{at}\">", line.style % COLOURS);
        let _ = writeln!(
            out,
            "<title>{}, step {}: {}</title></path>",
            escape(&line.name),
            number(p.x.round(), 9),
            number(p.mean, 4)
        );
    }
}

/// The path of a style's mark around a point.
pub(super) fn mark(style: usize, x: f64, y: f64) -> String {
    let shape = match (style + style / COLOURS) % SHAPES {
        0 => "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
        1 => "m-3.6 -3.6h7.2v7.2h-7.2z",
        2 => "m0 -4.8l4.6 8h-9.2z",
        3 => "m0 -5l5 5l-5 5l-5 -5z",
        4 => "m0 4.8l4.6 -8h-9.2z",
        _ => "m-1.6 -4.8h3.2v3.2h3.2v3.2h-3.2v3.2h-3.2v-3.2h-3.2v-3.2h3.2z",
    };
    format!("M{} {}{shape}", xy(x), xy(y))
}

/// Names with a sample of their line.
pub(super) fn legend(names: impl Iterator<Item = (usize, String)>) -> String {
    let mut out = "<ul class=\"legend\">\n".to_owned();
    for (style, name) in names {
        let _ = writeln!(
            out,
            "<li><svg class=\"swatch\" viewBox=\"0 0 44 14\" aria-hidden=\"true\">\
             <path class=\"line {}\" d=\"M1 7H43\"/><path class=\"mark s{}\" d=\"{}\"/></svg>\
             {}</li>",
            look(style),
            style % COLOURS,
            mark(style, 22.0, 7.0),
            escape(&name)
        );
    }
    out + "</ul>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot() -> Plot {
        let long: Vec<(f64, f64)> = (1..5000).map(|i| (f64::from(i), 1.0 / f64::from(i))).collect();
        let curve = |values: &[(f64, f64)]| Curve::new(&[values], 200);
        let line = |name: &str, style, curve| Line { name: name.into(), style, curve };
        Plot {
            id: "p1".into(),
            title: "Loss <of> training".into(),
            y_label: "nats".into(),
            lines: vec![
                line("<a>", 0, curve(&long)),
                line("b", 9, curve(&[(1.0, 0.5), (5000.0, f64::NAN), (4000.0, 0.25)])),
                line("none", 2, curve(&[])),
            ],
            may_be_log: true,
            ..Plot::default()
        }
    }

    #[test]
    fn a_plot_has_its_parts() {
        let html = plot().html();
        for part in [
            "role=\"img\" aria-labelledby=\"p1-t p1-d\"",
            "<title id=\"p1-t\">Loss &lt;of&gt; training</title>",
            "&lt;a&gt;: 0.153 at step 13",
            "nats, logarithmic",
            "class=\"line s0 d0\"",
            "class=\"line s1 d2\"",
            "class=\"band s0 d0\"",
            "<details><summary>Numbers</summary>",
            "left out: 1 of 5002 values.",
        ] {
            assert!(html.contains(part), "{part}\n{html}");
        }
        assert!(!html.contains("<a>") && !html.contains("none") && !html.contains("NaN"));
        assert!(html.len() < 40_000, "{}", html.len());
        assert!(explanation(&[&plot()]).starts_with("Long curves are thinned to 200 points"));
    }

    #[test]
    fn without_values_there_is_no_plot() {
        let mut plot = plot();
        plot.lines.retain(|l| l.name == "none");
        assert_eq!(plot.html(), "");
    }

    #[test]
    fn lines_of_one_colour_differ_in_their_dashes() {
        let looks: std::collections::BTreeSet<String> = (0..64).map(look).collect();
        assert_eq!(looks.len(), 64);
    }
}
