//! The trajectories of the models' parameters through training, in two dimensions.

use std::fmt::Write as _;

use super::flow::family;
use super::log::Sharing;
use super::markup::{coordinate as xy, cut, details, escape, number, paragraph, table};
use super::mds::{MOST, Points, trajectories};
use super::plot::{legend, look, mark, path};
use super::scale::{Scale, Spread};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 380.0;
/// The most points of a trajectory.
const MOST_POINTS: usize = 250;

/// Which distances are drawn, and their matrices over time.
struct Distances {
    of: &'static str,
    unit: &'static str,
    times: Vec<(f64, Vec<Vec<f64>>)>,
}

/// Distances of attention parameters; of all that is shared where models share no attention.
fn distances(records: &[Sharing]) -> Distances {
    let is_whole = |m: &[Vec<f64>]| m.iter().flatten().all(|d| d.is_finite());
    let attention: Vec<_> = records.iter().map(|r| (r.step, attention(r))).collect();
    if attention.iter().any(|(_, m)| m.len() > 1 && is_whole(m)) {
        let (of, unit) = ("attention parameters", "L2 norm of the difference");
        return Distances { of, unit, times: attention };
    }
    let times = records.iter().map(|r| (r.step, r.distance.clone())).collect();
    Distances { of: "all shared parameters", unit: "root mean square", times }
}

/// The L2 distance of each pair over all attention views that both share; NaN without any.
fn attention(record: &Sharing) -> Vec<Vec<f64>> {
    let n = record.models.len();
    let mut squares = vec![vec![f64::NAN; n]; n];
    (0..n).for_each(|i| squares[i][i] = 0.0);
    for group in record.groups.iter().filter(|g| family(&g.name) == "attention") {
        for (a, &i) in group.members.iter().enumerate() {
            for (b, &j) in group.members.iter().enumerate().filter(|(_, j)| **j != i) {
                let sum = &mut squares[i][j];
                *sum = if sum.is_nan() { 0.0 } else { *sum } + group.distance[a][b].powi(2);
            }
        }
    }
    squares.iter().map(|row| row.iter().map(|s| s.sqrt()).collect()).collect()
}

/// The picture; a sentence if the records do not give one.
pub(super) fn html(records: &[Sharing], id: &str, styles: &[usize], heading: &str) -> String {
    let Some(last) = records.last() else { return String::new() };
    let all: Vec<Sharing> = records.iter().filter(|r| r.models == last.models).cloned().collect();
    let every = all.len().div_ceil(MOST_POINTS);
    let is_kept = |i: usize| i.is_multiple_of(every) || i + 1 == all.len();
    let kept: Vec<Sharing> =
        all.iter().enumerate().filter(|(i, _)| is_kept(*i)).map(|(_, r)| r.clone()).collect();
    let distances = distances(&kept);
    let trajectories = trajectories(&distances.times);
    if last.models.len() < 2 || last.models.len() > MOST || trajectories.is_empty() {
        return paragraph(
            "absent",
            "No picture of the models' trajectories: some pair of models shares nothing, or there \
             are too many models.",
        );
    }
    let mut out = format!(
        "<figure class=\"plot wide\">\n<figcaption><{heading} id=\"{id}\">Trajectories: {} in \
         two dimensions</{heading}></figcaption>\n",
        distances.of
    );
    out += &svg(&trajectories, &last.models, id, styles, &distances);
    let names = last.models.iter().enumerate();
    out += &legend(names.map(|(i, name)| (styles.get(i).copied().unwrap_or(i), name.clone())));
    let _ = writeln!(
        out,
        "<p class=\"note\">From the distances between models ({}) by classical multidimensional \
         scaling: only distances between models at one step are exact, as far as a plane allows; \
         each picture is turned to fit the one before. A ring is the first record (step {}), a \
         filled mark the last (step {}).</p>",
        distances.unit,
        number(trajectories[0].0, 9),
        number(trajectories[trajectories.len() - 1].0, 9)
    );
    out + &details("Numbers", &positions(&trajectories, &last.models)) + "</figure>\n"
}

fn positions(trajectories: &[(f64, Points)], models: &[String]) -> String {
    let (first, last) = (&trajectories[0], &trajectories[trajectories.len() - 1]);
    let heads = [
        "model".to_owned(),
        format!("x at step {}", number(first.0, 9)),
        "y".to_owned(),
        format!("x at step {}", number(last.0, 9)),
        "y".to_owned(),
    ];
    let rows: Vec<Vec<String>> = models
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let numbers = [first.1[i], last.1[i]].concat();
            let cells = numbers.iter().map(|v| number(*v, 3));
            std::iter::once(name.clone()).chain(cells).collect()
        })
        .collect();
    table("Places in the picture", &heads, &rows)
}

fn svg(
    trajectories: &[(f64, Points)],
    models: &[String],
    id: &str,
    styles: &[usize],
    distances: &Distances,
) -> String {
    let coordinates =
        |axis: usize| trajectories.iter().flat_map(move |w| w.1.iter().map(move |p| p[axis]));
    let range = |axis: usize| {
        let low = coordinates(axis).min_by(f64::total_cmp).unwrap_or(0.0);
        (low, coordinates(axis).max_by(f64::total_cmp).unwrap_or(1.0))
    };
    let ((x0, x1), (y0, y1)) = (range(0), range(1));
    // One unit is as long in both directions.
    let (left, right, top, bottom) = (58.0, 20.0, 16.0, 30.0);
    let (wide, high) = (WIDTH - left - right, HEIGHT - top - bottom);
    let unit = ((x1 - x0) * 1.2 / wide).max((y1 - y0) * 1.2 / high).max(1e-12);
    let (cx, cy) = ((x0 + x1) / 2.0, (y0 + y1) / 2.0);
    let half = (unit * wide / 2.0, unit * high / 2.0);
    let x = Scale::new(Spread::Linear, (cx - half.0, cx + half.0), (left, WIDTH - right));
    let y = Scale::new(Spread::Linear, (cy - half.1, cy + half.1), (HEIGHT - bottom, top));
    let mut out = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">Trajectories: {} in two \
         dimensions</title><desc id=\"{id}-d\">{}</desc>\n",
        distances.of,
        escape(&description(trajectories, models))
    );
    for (value, label) in x.ticks(6) {
        let at = xy(x.at(value));
        let end = HEIGHT - bottom;
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{at} {top}V{end}\"/><text class=\"tick\" x=\"{at}\" \
             y=\"{}\" text-anchor=\"middle\">{}</text>",
            end + 18.0,
            escape(&label)
        );
    }
    for (value, label) in y.ticks(5) {
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{left} {0}H{1}\"/><text class=\"tick\" x=\"{2}\" y=\"{3}\" \
             text-anchor=\"end\">{4}</text>",
            xy(y.at(value)),
            WIDTH - right,
            left - 7.0,
            xy(y.at(value) + 4.0),
            escape(&label)
        );
    }
    let mut marks = String::new();
    for (i, name) in models.iter().enumerate() {
        let style = styles.get(i).copied().unwrap_or(i);
        let points: Vec<(f64, f64)> =
            trajectories.iter().map(|w| (x.at(w.1[i][0]), y.at(w.1[i][1]))).collect();
        let line = path(points.iter().copied());
        let _ = writeln!(out, "<path class=\"line {}\" d=\"{line}\"/>", look(style));
        let (first, last) = (points[0], points[points.len() - 1]);
        // On the side to which the line leads, unless there is no room.
        let name = cut(name, 24);
        let room = 7.5 * name.chars().count() as f64 + 12.0;
        let leads_right = last.0 >= first.0;
        let is_left = if leads_right { last.0 + room > WIDTH } else { last.0 - room > left - 10.0 };
        let _ = writeln!(
            marks,
            "<circle class=\"start s{0}\" cx=\"{1}\" cy=\"{2}\" r=\"5\"/><path class=\"mark s{0}\" \
             d=\"{3}\"/><text class=\"name\" x=\"{4}\" y=\"{5}\" text-anchor=\"{6}\">{7}</text>",
            style % 8,
            xy(first.0),
            xy(first.1),
            mark(style, last.0, last.1),
            xy(last.0 + if is_left { -9.0 } else { 9.0 }),
            xy((last.1 - if is_left == leads_right { 9.0 } else { -4.0 }).max(top + 10.0)),
            if is_left { "end" } else { "start" },
            escape(&name)
        );
    }
    out + &marks + "</svg>\n"
}

fn description(trajectories: &[(f64, Points)], models: &[String]) -> String {
    let mut text = String::new();
    for (step, points) in [&trajectories[0], &trajectories[trajectories.len() - 1]] {
        for (i, a) in models.iter().enumerate() {
            for (j, b) in models.iter().enumerate().skip(i + 1) {
                let distance = (points[i][0] - points[j][0]).hypot(points[i][1] - points[j][1]);
                let _ = write!(
                    text,
                    "Step {}: {a} and {b} are {} apart. ",
                    number(*step, 9),
                    number(distance, 3)
                );
            }
        }
    }
    cut(text.trim_end(), 1500)
}

#[cfg(test)]
mod tests {
    use super::super::log::SharingGroup;
    use super::*;

    fn record(step: f64, distance: f64, name: &str) -> Sharing {
        let matrix = vec![vec![0.0, distance], vec![distance, 0.0]];
        Sharing {
            step,
            models: vec!["<a>".into(), "b".into()],
            cosine: matrix.clone(),
            distance: matrix.clone(),
            groups: vec![SharingGroup {
                name: name.to_owned(),
                members: vec![1, 0],
                distance: matrix,
                ..SharingGroup::default()
            }],
        }
    }

    #[test]
    fn attention_is_drawn_where_it_is_shared() {
        let two = [record(1.0, 3.0, "attention key weight"), record(2.0, 4.0, "mlp up weight")];
        assert_eq!(attention(&two[0])[0][1], 3.0);
        assert!(attention(&two[1])[0][1].is_nan());
        assert_eq!(distances(&two).of, "attention parameters");
        assert_eq!(distances(&two[1..]).of, "all shared parameters");
        let html = html(&two, "w", &[0, 1], "h3");
        for part in ["Step 1: &lt;a&gt; and b are 3 apart.", "circle class=\"start s1\"", "<h3 id"]
        {
            assert!(html.contains(part), "{part}\n{html}");
        }
        assert!(!html.contains("<a>") && !html.contains("NaN"));
    }

    #[test]
    fn what_has_no_picture_says_so() {
        assert_eq!(html(&[], "w", &[], "h3"), "");
        let lost = record(1.0, f64::NAN, "norm");
        assert!(html(&[lost], "w", &[0, 1], "h3").contains("No picture"));
    }
}
