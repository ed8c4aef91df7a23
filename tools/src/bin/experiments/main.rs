//! The experiments: joint training against independent training, on real text.
//!
//! `experiments run [--quick] [--data DIR] [--work DIR] [--runs FILE] [--only PATTERN]... [--jobs N]`
//! trains every cell of the grid that FILE lacks, by the example program `joint_train`, and appends
//! one JSON line to FILE for each. It may be killed at any time and goes on where it was.
//!
//! With `--renew` it also trains again the cells that FILE has from a commit whose sources of the
//! library differ from those at hand; their old lines move to earlier.jsonl beside FILE.
//!
//! `experiments tune …` the same for the small grid of rates and epochs, validation split only.
//!
//! `experiments data …` writes the files that the cells read, below DIR of `--work`, and runs nothing.
//!
//! `experiments list …` prints the cells, and whether they are done.
//!
//! `experiments examples …` adds to examples.jsonl, beside FILE, what each run's models say of each
//! example of the evaluation split.
//!
//! `experiments report [--runs FILE] [--out DIR]` writes results.json and the tables of results.md.
//!
//! `experiments ranks --runs FILE` prints the tables of docs/ranks.md from the runs on ranks in FILE.
//!
//! DIR of `--data` has the labelled files that docs/results.md names; a task whose file is missing
//! is skipped and told. `--only` takes parts of a cell's name, regime/task/arm/seed, with `*`.

mod arms;
mod data;
mod examples;
mod grid;
mod lines;
mod page;
mod ranks;
mod run;
mod statistics;

use std::path::PathBuf;
use std::process::ExitCode;

pub type Result<T> = std::result::Result<T, String>;

/// What the command line says.
pub struct Settings {
    data: Option<PathBuf>,
    work: PathBuf,
    runs: PathBuf,
    out: PathBuf,
    program: PathBuf,
    only: Vec<String>,
    jobs: usize,
    quick: bool,
    renew: bool,
    seeds: Option<u64>,
}

const USAGE: &str = "usage: experiments run|tune|data|list|examples|report|ranks [--quick] [--renew] [--data DIR] [--work DIR] \
                     [--runs FILE] [--out DIR] [--only PATTERN]... [--seeds N] [--jobs N] \
                     [--program FILE]";

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: std::env::var_os("DATA").filter(|d| !d.is_empty()).map(PathBuf::from),
            work: "build/experiments".into(),
            runs: "docs/results/runs.jsonl".into(),
            out: "docs".into(),
            program: "build/examples/joint_train".into(),
            only: Vec::new(),
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            quick: false,
            renew: false,
            seeds: None,
        }
    }
}

fn parse(arguments: &[String]) -> Result<Settings> {
    let mut settings = Settings::default();
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        if let Some(flag) = match flag.as_str() {
            "--quick" => Some(&mut settings.quick),
            "--renew" => Some(&mut settings.renew),
            _ => None,
        } {
            *flag = true;
            continue;
        }
        let value = rest.next().ok_or(USAGE)?;
        let count = || value.parse().ok().filter(|&n| n > 0).ok_or(format!("{flag} {value}"));
        match flag.as_str() {
            "--data" => settings.data = Some(value.into()),
            "--work" => settings.work = value.into(),
            "--runs" => settings.runs = value.into(),
            "--out" => settings.out = value.into(),
            "--program" => settings.program = value.into(),
            "--only" => settings.only.push(value.clone()),
            "--jobs" => settings.jobs = count()? as usize,
            "--seeds" => settings.seeds = Some(count()?),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(settings)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = arguments.split_first().ok_or(USAGE.into()).and_then(|(command, rest)| {
        let settings = parse(rest)?;
        match command.as_str() {
            "run" => run::run(&settings, grid::cells(&settings)),
            "tune" => run::run(&settings, grid::tuning(&settings)),
            "data" => run::data(&settings),
            "list" => run::list(&settings),
            "examples" => examples::run(&settings),
            "report" => page::write(&settings),
            "ranks" => ranks::report(&settings),
            _ => Err(USAGE.into()),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("experiments: {e}");
            ExitCode::FAILURE
        }
    }
}
