//! Whole pages, from logs as a run writes them.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{report_html, write_report};
use crate::error::Kind;
use crate::optim::Options;

const MODELS: [&str; 3] = ["bert", "<b>gpt2</b>", "roberta"];

/// A log of `n_steps` steps of three models.
fn log(seed: u32, options: Options, n_steps: u32) -> String {
    let member = |model: &str| json!({"model": model, "param": "h.0.query.weight", "view": "v"});
    let members: Vec<Value> = MODELS.iter().map(|m| member(m)).collect();
    let group = json!({
        "name": "attention query weight", "slot": 0, "slots": 1, "shape": [4, 4],
        "reason": "same role", "members": members
    });
    let run = json!({
        "type": "run", "format": 1, "step": 0, "time": 100.0, "version": "0.1.0", "seed": seed,
        "options": options, "fit": {"epochs": 2},
        "models": MODELS.map(|name| json!({"name": name, "architecture": "bert"})),
        "plan": {"policy": "aligned", "models": MODELS, "groups": [group], "left_out": [],
                 "mutual": "mutual learning: no"}
    });
    let mut text = format!("{run}\n");
    for step in 1..=n_steps {
        let wave = f64::from((step * 7919 + seed * 31) % 100) / 1000.0;
        let loss = 2.0 / f64::from(step).sqrt() + wave;
        let models = MODELS.map(|name| {
            json!({
                "name": name, "loss": loss, "mutual_loss": 0.0, "learning_rate": 1e-3 * wave,
                "rates": {"adaptive": 1.0 + wave, "schedule": 1.0}, "gradient_norm": 1.0 + wave,
                "clipped": step % 3 == 0, "clip_factor": 1.0, "skipped": step == 2,
                "n_skipped": u32::from(step >= 2), "weight": 0.25,
                "convergence": {"progress": wave, "certainty": 0.5}
            })
        });
        let record = json!({
            "type": "step", "step": step, "time": 100 + step, "seconds": 0.5 + wave,
            "tokens_per_second": 9000.0 * (1.0 + wave), "peak_memory_bytes": 1u64 << 30,
            "models": models
        });
        let _ = writeln!(text, "{record}");
        if step % 10 != 0 {
            continue;
        }
        let score = 0.9 - loss / 4.0;
        let models = MODELS.map(|name| {
            json!({"name": name, "score": score, "loss": loss, "scores": {"accuracy": score}})
        });
        let record = json!({
            "type": "evaluation", "step": step, "time": 100 + step, "mean_score": score,
            "models": models
        });
        let _ = writeln!(text, "{record}");
        let square = |beside: f64| {
            let row = |i: usize| [0, 1, 2].map(|j| if i == j { 1.0 } else { beside });
            [0, 1, 2].map(row)
        };
        let members: Vec<Value> = MODELS.iter().map(|m| member(m)).collect();
        let record = json!({
            "type": "sharing", "step": step, "time": 100 + step, "models": MODELS,
            "cosine": square(0.3 - wave), "distance": square(loss),
            "groups": [{"name": "attention query weight", "depth": [0, 1], "members": members,
                        "cosine": square(-0.2), "distance": square(loss)}]
        });
        let _ = writeln!(text, "{record}");
    }
    let end = json!({"type": "end", "step": n_steps, "time": 300, "reason": "max_steps"});
    text + &format!("{end}\n")
}

/// Logs in a folder of their own.
fn files(logs: &[(&str, String)]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let write = |(name, text): &(&str, String)| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let paths = logs.iter().map(write).collect();
    (dir, paths)
}

fn count(html: &str, part: &str) -> usize {
    html.matches(part).count()
}

/// What every page must be, whatever the logs hold.
fn check_page(html: &str) {
    let names = |attribute: &str| -> Vec<String> {
        let parts = html.split(attribute).skip(1);
        parts.map(|p| p.split('"').next().unwrap().to_owned()).collect()
    };
    let mut ids = names(" id=\"");
    ids.sort();
    let n = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), n, "two elements have one id");
    for of in names(" aria-labelledby=\"").iter().flat_map(|l| l.split(' ')) {
        assert!(ids.binary_search(&of.to_owned()).is_ok(), "no element has the id {of}");
    }
    for target in names(" href=\"#") {
        assert!(ids.binary_search(&target).is_ok(), "no element has the id {target}");
    }
    // Headings never skip a level.
    let levels: Vec<u32> =
        html.match_indices("<h").filter_map(|(i, _)| html[i + 2..i + 3].parse().ok()).collect();
    assert_eq!((levels[0], levels.iter().filter(|l| **l == 1).count()), (1, 1));
    assert!(levels.windows(2).all(|w| w[1] <= w[0] + 1), "{levels:?}");
    for (open, close) in [
        ("<figure", "</figure>"),
        ("<svg", "</svg>"),
        ("<details", "</details>"),
        ("<section", "</section>"),
        ("<table", "</table>"),
        ("<div", "</div>"),
        ("<ul", "</ul>"),
        ("<p", "</p>"),
    ] {
        let opened = count(html, &format!("{open}>")) + count(html, &format!("{open} "));
        assert_eq!(opened, count(html, close), "{open}");
    }
    assert!(!html.contains("<b>gpt2") && !html.contains("NaN"), "escaped, and finite");
    for outside in ["http://", "https://", "url(", "@import", "src="] {
        assert!(!html.contains(outside), "{outside}");
    }
    let pictures = count(html, "role=\"img\"");
    assert_eq!(count(html, "<svg") - count(html, "class=\"swatch\""), pictures);
    assert_eq!(pictures, count(html, "<title id="), "every picture has a title");
}

#[test]
fn a_page_of_one_run_has_every_section() {
    let (_dir, paths) = files(&[("one.jsonl", log(1, Options::default(), 50))]);
    let html = report_html(&paths).unwrap();
    check_page(&html);
    for part in [
        "<title>Training report: one</title>",
        "Training loss",
        "Score on the evaluation set",
        "Learning rate",
        "Convergence: progress",
        "Gradient norm before clipping",
        "Clipped steps",
        "1 (at 2)",
        "All that is shared",
        "By role and depth",
        "class=\"link attention\"",
        "Distance between shared parameters",
        "Trajectories: attention parameters in two dimensions",
        "All options are those of the preset default.",
        "data-copy=\"copy-markdown\"",
        "prefers-color-scheme: dark",
        "@media print",
        "weight among the models 0.25",
        "&lt;b&gt;gpt2&lt;/b&gt;",
    ] {
        assert!(html.contains(part), "{part}");
    }
    assert!(!html.contains("class=\"absent\""), "nothing is missing");
    assert_eq!(report_html(&paths).unwrap(), html, "the same logs give the same page");
}

#[test]
fn seeds_are_bands_and_other_settings_are_lines() {
    let alone = Options { mutual: None, ..Options::default() };
    let (_dir, paths) = files(&[
        ("joint-1.jsonl", log(1, Options::default(), 20)),
        ("joint-2.jsonl", log(2, Options::default(), 20)),
        ("alone.jsonl", log(1, alone, 20)),
    ]);
    let html = report_html(&paths).unwrap();
    check_page(&html);
    for part in [
        "Training report: 3 runs",
        "joint (2 seeds)",
        "Training loss: bert",
        "a line is the mean, and its band their range",
        "The same plan as of joint (2 seeds).",
        "More curves",
        "mutual.weight",
        "mean ± standard deviation",
    ] {
        assert!(html.contains(part), "{part}");
    }
}

#[test]
fn a_log_with_parts_missing_gives_a_page_with_sentences() {
    let step = r#"{"type":"step","step":1,"models":[{"name":"a","loss":null}]}"#;
    let (_dir, paths) = files(&[("bare.jsonl", format!("{step}\n{{\"type\":\"st"))]);
    let html = report_html(&paths).unwrap();
    check_page(&html);
    for part in [
        "no records of type step",
        "no records of gradients between models",
        "no sharing plan",
        "no distances between models",
        "no options",
        "Line 2 is torn",
        "no record of type run",
        "the run goes on, or broke off",
    ] {
        assert!(html.contains(part), "{part}");
    }
}

#[test]
fn a_long_run_stays_small() {
    let (_dir, paths) = files(&[("long.jsonl", log(1, Options::default(), 2000))]);
    let html = report_html(&paths).unwrap();
    assert!(html.contains("thinned to 360 points") && html.len() < 1_000_000, "{}", html.len());
}

#[test]
fn a_report_is_written_whole_or_not_at_all() {
    let good = log(1, Options::default(), 10);
    let (dir, paths) = files(&[("good.jsonl", good), ("bad.jsonl", "{}\nx\n{}\n".into())]);
    let output = dir.path().join("report.html");
    let check = |logs: &[PathBuf], output: &PathBuf, kind: Kind, part: &str| {
        let e = write_report(logs, output).unwrap_err();
        assert!(e.kind() == kind && e.message().contains(part), "{e}");
    };
    check(&paths, &output, Kind::InvalidData, "bad.jsonl, line 2: not JSON");
    check(&[], &output, Kind::InvalidArgument, "one run at least");
    check(&[paths[0].clone(), paths[0].clone()], &output, Kind::InvalidArgument, "named twice");
    check(&paths[..1], &paths[0], Kind::InvalidArgument, "name another file");
    check(&[dir.path().join("none")], &output, Kind::NotFound, "none");
    check(&paths[..1], &dir.path().join("x/report.html"), Kind::Io, "report.html");
    assert!(!output.exists());
    write_report(&paths[..1], &output).unwrap();
    assert!(std::fs::read_to_string(&output).unwrap().ends_with("</html>\n"));
}
