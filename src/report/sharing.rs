//! What the models have to do with each other: agreement of gradients, plan, distances.

use std::fmt::Write as _;

use serde_json::Value;

use super::curves::Context;
use super::flow::{self, Agreement};
use super::log::Run;
use super::markup::{details, escape, number, paragraph};
use super::plot::{Line, Plot, explanation};
use super::runs::Set;
use super::thin::Curve;
use super::{plan, trajectories};

/// Sets whose pictures are open at once; those of the others open on demand.
const OPEN: usize = 2;
/// Curves of pairs in one plot.
const MOST_PAIRS: usize = 15;

/// What `one` makes of the run that stands for each set, under the set's name if there are several;
/// sets for which it makes nothing are named in a sentence.
fn of_each(context: &Context, absent: &str, one: impl Fn(&Run, &str) -> String) -> String {
    let (mut out, mut without) = (String::new(), Vec::new());
    let mut n_open = 0;
    for (i, set) in context.sets.iter().enumerate() {
        let html = one(set.first(), &format!("{i}"));
        if html.is_empty() {
            without.push(set.name.as_str());
        } else if context.sets.len() == 1 {
            out += &(of_seeds(set) + &html);
        } else if n_open < OPEN {
            n_open += 1;
            let _ = write!(out, "<h3>{}</h3>\n{}{html}", escape(&set.name), of_seeds(set));
        } else {
            out += &details(&set.name, &(of_seeds(set) + &html));
        }
    }
    if out.is_empty() {
        return paragraph("absent", absent);
    }
    if !without.is_empty() {
        out += &paragraph("absent", &format!("{} ({})", absent, without.join(", ")));
    }
    out
}

fn of_seeds(set: &Set) -> String {
    match set.runs.len() {
        1 => String::new(),
        n => paragraph("note", &format!("Of the first of {n} seeds: {}.", set.first().name)),
    }
}

fn heading(context: &Context) -> &'static str {
    if context.sets.len() == 1 { "h3" } else { "h4" }
}

fn styles(context: &Context, models: &[String]) -> Vec<usize> {
    models.iter().map(|m| context.style(m)).collect()
}

/// Cosines between gradients: a graph, a map, and curves over time.
pub(super) fn agreement(context: &Context) -> String {
    let absent = "The log has no records of gradients between models: the option metrics_every is \
                  0, or nothing is shared.";
    of_each(context, absent, |run, id| {
        let Some(all) = Agreement::new(&run.sharing) else { return String::new() };
        let styles = styles(context, &all.models);
        let mut out = paragraph(
            "",
            &format!(
                "Cosines between the models' gradients of what they share, mean of the records \
                 from step {} to {}. A solid blue edge: they pull the same way; a dashed orange \
                 one: against each other; its width is the size of the number.",
                number(all.steps.0, 9),
                number(all.steps.1, 9)
            ),
        );
        if all.models.len() > flow::MOST {
            out += &paragraph("absent", "Too many models for a graph; the table has the numbers.");
        } else {
            out += &all.graphs(&format!("flow-{id}"), &styles);
        }
        let title = format!("<{0}>By role and depth</{0}>\n", heading(context));
        let maps = all.maps(&format!("flow-{id}"));
        if !maps.is_empty() {
            out += &(title + &maps);
        }
        let plot = Plot {
            id: format!("cosine-{id}"),
            title: "Agreement of gradients over time".to_owned(),
            y_label: "cosine".to_owned(),
            ..over_time(context, run, |record, i, j| record.cosine[i][j])
        };
        out + "<div class=\"plots\">\n" + &plot.html() + "</div>\n" + &about(&plot)
    })
}

fn about(plot: &Plot) -> String {
    match explanation(&[plot]) {
        text if text.is_empty() => text,
        text => paragraph("note", &text),
    }
}

/// A plot with a line for each pair of models.
fn over_time(
    context: &Context,
    run: &Run,
    value: impl Fn(&super::log::Sharing, usize, usize) -> f64,
) -> Plot {
    let Some(last) = run.sharing.last() else { return Plot::default() };
    let n = last.models.len();
    let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
    let records = || run.sharing.iter().filter(|r| r.models == last.models);
    let line = |(style, (i, j)): (usize, (usize, usize))| {
        let series: Vec<(f64, f64)> = records().map(|r| (r.step, value(r, i, j))).collect();
        let is_any = series.iter().any(|p| p.1.is_finite());
        is_any.then(|| Line {
            name: format!("{} – {}", last.models[i], last.models[j]),
            style,
            curve: Curve::new(&[&series], context.n_points),
        })
    };
    let lines = pairs.enumerate().take(MOST_PAIRS).filter_map(line).collect();
    let note = if n * (n - 1) / 2 > MOST_PAIRS {
        format!("The first {MOST_PAIRS} pairs of models.")
    } else {
        String::new()
    };
    Plot { lines, note, is_below_run: context.sets.len() > 1, ..Plot::default() }
}

/// The sharing plans; runs with the plan of an earlier one refer to it.
pub(super) fn plans(context: &Context) -> String {
    let absent = "The log has no sharing plan.";
    let plans: Vec<&Value> = context.sets.iter().map(|s| &s.first().header["plan"]).collect();
    of_each(context, absent, |run, id| {
        let own = &run.header["plan"];
        if !own.is_object() {
            return String::new();
        }
        let before = plans.iter().position(|p| *p == own).unwrap_or(0);
        if before.to_string() != id {
            let text = format!("The same plan as of {}.", context.sets[before].name);
            return paragraph("", &text);
        }
        start(own) + &plan::html(own, &format!("plan-{id}"))
    })
}

/// What fresh models started from.
fn start(plan: &Value) -> String {
    let start = &plan["start"];
    let (Some(kind), from) = (start["start"].as_str(), start["from"].as_str()) else {
        return String::new();
    };
    let from = from.map_or(String::new(), |f| format!(", from {f}"));
    let note = start["note"].as_str().map_or(String::new(), |n| format!(": {n}"));
    paragraph("", &format!("Fresh models start from: {}{from}{note}.", kind.replace('_', " ")))
}

/// Distances between models over time, and their trajectories in two dimensions.
pub(super) fn distances(context: &Context) -> String {
    let absent = "The log has no distances between models: the option metrics_every is 0, or \
                  nothing is shared.";
    of_each(context, absent, |run, id| {
        let Some(last) = run.sharing.last() else { return String::new() };
        let plot = Plot {
            id: format!("distance-{id}"),
            title: "Distance between shared parameters".to_owned(),
            y_label: "root mean square of the difference".to_owned(),
            may_be_log: true,
            ..over_time(context, run, |record, i, j| record.distance[i][j])
        };
        let styles = styles(context, &last.models);
        let trajectories = trajectories::html(
            &run.sharing,
            &format!("trajectories-{id}"),
            &styles,
            heading(context),
        );
        format!("<div class=\"plots\">\n{}{trajectories}</div>\n{}", plot.html(), about(&plot))
    })
}
