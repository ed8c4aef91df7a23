//! The page: head, sections, and what they are preceded by.

use std::fmt::Write as _;

use super::curves::{self, Context};
use super::markup::{count, cut, details, duration, escape, number, paragraph, table};
use super::runs::Set;
use super::{options, scores, sharing};
use crate::error::Result;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The most models with a card of their own.
const MOST_CARDS: usize = 12;

/// A section of the page.
struct Section {
    id: &'static str,
    title: &'static str,
    html: String,
}

/// The page on some runs, at least one.
pub(super) fn html(sets: &[Set]) -> Result<String> {
    let context = Context::new(sets);
    let section = |id, title, html| Section { id, title, html };
    let or = |html: String, absent: &str| match html.is_empty() {
        true => paragraph("absent", absent),
        false => html,
    };
    let no_steps = "The log has no records of type step.";
    let sections = [
        section("scores", "Scores", scores::html(sets) + &scores::runs_table(sets)),
        section("curves", "Losses and metrics", or(curves::scores(&context), no_steps)),
        section("rates", "Learning rates and convergence", or(curves::rates(&context), no_steps)),
        section("gradients", "Gradients", or(curves::gradients(&context), no_steps)),
        section("agreement", "Agreement of gradients", sharing::agreement(&context)),
        section("plan", "What the models share", sharing::plans(&context)),
        section("distances", "Distance between models", sharing::distances(&context)),
        section("speed", "Speed and memory", or(curves::speed(&context), no_steps)),
        section("options", "Options, versions and machine", options::html(sets)?),
        section("files", "The logs", files(&context)),
    ];
    let title = title(&context);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\n\
         <meta name=\"generator\" content=\"libmmopt {0}\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{1}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">Skip to the report</a>\n<header>\n<h1>{1}</h1>\n{2}\
         <nav aria-label=\"Sections\"><ul>\n",
        env!("CARGO_PKG_VERSION"),
        escape(&title),
        lead(&context)
    );
    for s in &sections {
        let _ = writeln!(out, "<li><a href=\"#{}\">{}</a></li>", s.id, s.title);
    }
    out += "</ul></nav>\n</header>\n<main id=\"main\">\n";
    for s in &sections {
        let _ = write!(
            out,
            "<section id=\"{0}\" aria-labelledby=\"{0}-h\">\n<h2 id=\"{0}-h\">{1}</h2>\n{2}\
             </section>\n",
            s.id, s.title, s.html
        );
    }
    let _ = write!(
        out,
        "</main>\n<footer><p>Made by libmmopt {} from {}. This file needs no network and holds no \
         trackers.</p></footer>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION"),
        plural(context.sets.iter().map(|s| s.runs.len()).sum(), "log")
    );
    Ok(out)
}

fn plural(n: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

fn title(context: &Context) -> String {
    match context.sets {
        [set] => format!("Training report: {}", set.name),
        sets => {
            format!("Training report: {}", plural(sets.iter().map(|s| s.runs.len()).sum(), "run"))
        }
    }
}

/// A sentence on the runs and, of one run, a card for each model.
fn lead(context: &Context) -> String {
    let models = plural(context.models.len(), "model");
    let [set] = context.sets else {
        let names: Vec<&str> = context.sets.iter().map(|s| s.name.as_str()).collect();
        let text = format!("{models} ({}) in: {}.", context.models.join(", "), names.join("; "));
        return paragraph("lead", &cut(&text, 600));
    };
    let run = set.first();
    let mut text = format!("{models} trained together for {} steps", number(run.last_step, 9));
    if let Some(seconds) = run.seconds().filter(|s| *s > 0.0) {
        let _ = write!(text, " in {}", duration(seconds));
    }
    if set.runs.len() > 1 {
        let _ = write!(text, ", with {} seeds", set.runs.len());
    }
    let mut out = paragraph("lead", &(text + "."));
    if context.models.len() > MOST_CARDS {
        return out;
    }
    out += "<dl class=\"cards\">\n";
    for model in &context.models {
        let best: Vec<(f64, f64)> =
            set.runs.iter().filter_map(|run| scores::best(run, model)).collect();
        let loss = run.of_model("loss", model).iter().rfind(|p| p.1.is_finite());
        let (value, what) = match (best.as_slice(), loss) {
            ([p], _) => (number(p.1, 4), format!("best score, step {}", number(p.0, 9))),
            ([_, ..], _) => {
                let mean = best.iter().map(|p| p.1).sum::<f64>() / best.len() as f64;
                (number(mean, 4), format!("mean of the best scores of {} seeds", best.len()))
            }
            ([], Some(p)) => (number(p.1, 4), "last training loss".to_owned()),
            ([], None) => continue,
        };
        let _ = writeln!(
            out,
            "<div class=\"card s{}\"><dt>{}</dt><dd><span class=\"big\">{}</span> {}</dd></div>",
            context.style(model) % 8,
            escape(&cut(model, 40)),
            escape(&value),
            escape(&what)
        );
    }
    out + "</dl>\n"
}

/// The files and what is to be known of them.
fn files(context: &Context) -> String {
    let runs = || context.sets.iter().flat_map(|s| &s.runs);
    let rows: Vec<Vec<String>> = runs()
        .map(|run| {
            let evaluations = run.of_run("mean_score").len();
            vec![
                run.name.clone(),
                run.path.clone(),
                count(run.n_steps),
                count(evaluations),
                count(run.sharing.len()),
                if run.notes.is_empty() { "–".to_owned() } else { run.notes.join(" ") },
            ]
        })
        .collect();
    let heads = ["run", "file", "steps", "evaluations", "sharing", "notes"].map(str::to_owned);
    let noted: Vec<String> = runs()
        .filter(|r| !r.notes.is_empty())
        .map(|r| format!("{}: {}", r.name, r.notes.join(" ")))
        .collect();
    let about = format!(
        "Curves of more than {} steps are thinned to at most {} points: the range of steps is cut \
         into equal parts, of each of which the mean, the least and the greatest value are drawn.",
        context.n_points / 2,
        context.n_points
    );
    let mut out: String = noted.iter().map(|text| paragraph("note warning", text)).collect();
    out += &paragraph("", &about);
    out + &details("Files and records", &table("Files and records", &heads, &rows))
}
