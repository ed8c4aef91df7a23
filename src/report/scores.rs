//! The scores of every model and run as a table, which can be copied.

use super::log::Run;
use super::markup::{count, cut, duration, escape, number, table};
use super::runs::Set;

const HEADS: [&str; 8] = [
    "model",
    "run",
    "best score",
    "at step",
    "last score",
    "last loss (evaluation)",
    "steps",
    "seconds",
];

/// What the table has of one model of one run.
struct Row {
    model: String,
    run: String,
    best: Option<(f64, f64)>,
    last: Option<f64>,
    loss: Option<f64>,
    steps: f64,
    seconds: Option<f64>,
}

impl Row {
    fn new(run: &Run, model: &str) -> Self {
        let good = |what| run.of_model(what, model).iter().filter(|p| p.1.is_finite());
        Self {
            model: model.to_owned(),
            run: run.name.clone(),
            best: best(run, model),
            last: good("evaluation.score").next_back().map(|p| p.1),
            loss: good("evaluation.loss").next_back().map(|p| p.1),
            steps: run.last_step,
            seconds: run.seconds(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let or_dash = |v: Option<f64>| v.map_or("–".to_owned(), |v| number(v, 4));
        vec![
            self.model.clone(),
            self.run.clone(),
            or_dash(self.best.map(|b| b.1)),
            self.best.map_or("–".to_owned(), |b| number(b.0, 9)),
            or_dash(self.last),
            or_dash(self.loss),
            number(self.steps, 9),
            self.seconds.map_or("–".to_owned(), |s| number(s, 4)),
        ]
    }
}

/// Step and score of a model's best evaluation; of equal scores the first one counts, as for early
/// stopping.
pub(super) fn best(run: &Run, model: &str) -> Option<(f64, f64)> {
    let scores = run.of_model("evaluation.score", model).iter().filter(|p| p.1.is_finite());
    let best = scores.fold(None, |best: Option<(f64, f64)>, &p| match best {
        Some(b) if b.1 >= p.1 => Some(b),
        _ => Some(p),
    });
    best.or_else(|| ended(run, model))
}

/// Best step and score in the record `end`.
fn ended(run: &Run, model: &str) -> Option<(f64, f64)> {
    let models = run.end["models"].as_array()?;
    let one = models.iter().find(|m| m["name"] == model)?;
    Some((one["best_step"].as_f64()?, one["best_score"].as_f64()?))
}

/// `0.784 ± 0.006`: mean and standard deviation of a sample.
fn spread(values: &[f64]) -> String {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    match values.len() {
        0 => "–".to_owned(),
        _ if squares == 0.0 => number(mean, 4),
        _ => format!("{} ± {}", number(mean, 4), number((squares / (n - 1.0)).sqrt(), 2)),
    }
}

/// The means over the seeds of a set.
fn mean_row(set: &Set, model: &str) -> Vec<String> {
    let rows: Vec<Row> = set
        .runs
        .iter()
        .filter(|run| run.models.iter().any(|m| m == model))
        .map(|run| Row::new(run, model))
        .collect();
    let all = |value: &dyn Fn(&Row) -> Option<f64>| {
        spread(&rows.iter().filter_map(value).collect::<Vec<_>>())
    };
    vec![
        model.to_owned(),
        format!("{}: mean ± standard deviation", set.name),
        all(&|r| r.best.map(|b| b.1)),
        "–".to_owned(),
        all(&|r| r.last),
        all(&|r| r.loss),
        all(&|r| Some(r.steps)),
        all(&|r| r.seconds),
    ]
}

/// The table, and the same to copy.
pub(super) fn html(sets: &[Set]) -> String {
    let mut rows = Vec::new();
    for set in sets {
        for run in &set.runs {
            rows.extend(run.models.iter().map(|model| Row::new(run, model).cells()));
        }
        if set.runs.len() > 1 {
            rows.extend(set.first().models.iter().map(|model| mean_row(set, model)));
        }
    }
    let heads = HEADS.map(str::to_owned);
    let copy = |id: &str, name: &str, text: &str| {
        format!(
            "<div class=\"copy\"><label for=\"{id}\">{name}</label>\
             <textarea id=\"{id}\" readonly rows=\"{}\" spellcheck=\"false\" wrap=\"off\">{}\
             </textarea></div>\n",
            (rows.len() + 2).min(12),
            escape(text)
        )
    };
    let texts = copy("copy-markdown", "Markdown", &markdown(&heads, &rows))
        + &copy("copy-tsv", "TSV", &tsv(&heads, &rows));
    table("Scores of each model; greater is better", &heads, &rows)
        + "<p class=\"buttons\"><button type=\"button\" data-copy=\"copy-markdown\" hidden>\
           Copy as Markdown</button> <button type=\"button\" data-copy=\"copy-tsv\" hidden>\
           Copy as TSV</button> <span id=\"copied\" role=\"status\"></span></p>\n"
        + &super::markup::details("The table as text", &texts)
}

fn markdown(heads: &[String], rows: &[Vec<String>]) -> String {
    let cell = |text: &String| text.replace('|', "\\|").replace(['\n', '\r'], " ");
    let line = |cells: &[String]| {
        format!("| {} |\n", cells.iter().map(cell).collect::<Vec<_>>().join(" | "))
    };
    let rule = format!("|{}\n", "---|".repeat(heads.len()));
    line(heads) + &rule + &rows.iter().map(|r| line(r)).collect::<String>()
}

/// Numbers as programs read them.
fn tsv(heads: &[String], rows: &[Vec<String>]) -> String {
    let cell = |text: &String| match text.as_str() {
        "–" => String::new(),
        text => text.replace(['\t', '\n', '\r'], " ").replace('−', "-"),
    };
    let number = |text: String| {
        let is_number = |t: &str| t.parse::<f64>().is_ok();
        let plain = text.replace(',', "");
        if is_number(&plain) { plain } else { text }
    };
    let line = |cells: &[String]| {
        cells.iter().map(|c| number(cell(c))).collect::<Vec<_>>().join("\t") + "\n"
    };
    line(heads) + &rows.iter().map(|r| line(r)).collect::<String>()
}

/// What the runs are: a row for each.
pub(super) fn runs_table(sets: &[Set]) -> String {
    let heads = ["run", "models", "steps", "time", "ended by", "tokens a second", "peak memory"];
    let runs = sets.iter().flat_map(|s| &s.runs);
    let rows: Vec<Vec<String>> = runs
        .map(|run| {
            let middle = |what| {
                let mut all: Vec<f64> = run.of_run(what).iter().map(|p| p.1).collect();
                all.sort_unstable_by(f64::total_cmp);
                all.get(all.len() / 2).copied()
            };
            let peak = run.of_run("peak_memory_bytes").iter().map(|p| p.1).fold(0.0, f64::max);
            let reason = run.end["reason"].as_str().unwrap_or("–");
            vec![
                run.name.clone(),
                cut(&run.models.join(", "), 80),
                count(run.last_step.max(0.0) as usize),
                run.seconds().map_or("–".to_owned(), duration),
                cut(&reason.replace('_', " "), 40),
                middle("tokens_per_second").map_or("–".to_owned(), |v| number(v, 4)),
                if peak > 0.0 {
                    format!("{} GiB", number(peak / f64::from(1 << 30), 3))
                } else {
                    "–".to_owned()
                },
            ]
        })
        .collect();
    table("Runs; time is from the first record to the last", &heads.map(str::to_owned), &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, scores: &[f64]) -> Run {
        let lines: String = scores
            .iter()
            .enumerate()
            .map(|(i, score)| {
                format!(
                    "{{\"type\":\"evaluation\",\"step\":{},\"time\":{i},\"models\":\
                     [{{\"name\":\"a|b\",\"score\":{score}}}]}}\n",
                    10 * (i + 1)
                )
            })
            .collect();
        Run { name: name.to_owned(), ..Run::parse(lines.as_bytes(), name).unwrap() }
    }

    #[test]
    fn the_best_and_the_last_score_are_told() {
        let cells = Row::new(&run("one", &[0.5, 0.75, 0.75, 0.625]), "a|b").cells();
        assert_eq!(cells, ["a|b", "one", "0.75", "20", "0.625", "–", "40", "3"]);
        assert_eq!(spread(&[0.5, 0.7]), "0.6 ± 0.14");
    }

    #[test]
    fn texts_to_copy_are_escaped_for_their_format() {
        let sets = [Set { name: "both".into(), runs: vec![run("x", &[0.5]), run("y", &[0.7])] }];
        let html = html(&sets);
        assert!(html.contains("| a\\|b | x | 0.5 | 10 | 0.5 | – | 10 | 0 |\n"), "{html}");
        assert!(html.contains("a|b\ty\t0.7\t10\t0.7\t\t10\t0\n"), "{html}");
        assert!(html.contains("both: mean ± standard deviation"));
        let line = tsv(&[], &[vec!["12,345".into(), "−3e-5".into(), "a, b".into()]]);
        assert_eq!(line, "\n12345\t-3e-5\ta, b\n");
    }
}
