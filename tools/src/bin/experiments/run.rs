//! Runs cells by the example program and keeps a line for each.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::arms::ARMS;
use crate::data::{self, Files};
use crate::examples::{self, models_of};
use crate::grid::{self, Cell, Kind, Regime};
use crate::{Result, Settings, lines};

pub const MODELS: [&str; 3] = ["bert", "gpt2", "roberta"];
/// The pretrained model's rate, as a factor of the fresh ones'.
const PRETRAINED_LR_SCALE: f64 = 0.1;

/// What is compiled into the example program.
const COMPILED: [&str; 4] = ["src", "examples/c", "Cargo.lock", "build.rs"];

/// The file beside the runs that has the lines of cells that were run again.
pub fn earlier_of(settings: &Settings) -> PathBuf {
    settings.runs.with_file_name("earlier.jsonl")
}

fn names(runs: &[Value]) -> HashSet<String> {
    runs.iter().filter_map(|r| r["cell"].as_str().map(str::to_owned)).collect()
}

fn chosen(settings: &Settings, cells: Vec<Cell>) -> Vec<Cell> {
    let wanted = |name: &str| settings.only.iter().any(|p| grid::fits(name, p));
    cells.into_iter().filter(|c| settings.only.is_empty() || wanted(&c.name())).collect()
}

/// Prints every chosen cell, and whether it is done.
pub fn list(settings: &Settings) -> Result<()> {
    let done = done(settings)?;
    for cell in chosen(settings, grid::cells(settings)) {
        println!("{} {}", if done.contains(&cell.name()) { "done" } else { "open" }, cell.name());
    }
    Ok(())
}

/// Writes the files of every chosen cell.
pub fn data(settings: &Settings) -> Result<()> {
    for cell in chosen(settings, grid::cells(settings)) {
        let name = cell.name();
        let folder = data::folder(settings, cell.task).ok_or(format!("{name}: no data"))?;
        println!("{}", data::prepare(settings, &cell, &folder)?.train.display());
    }
    Ok(())
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

/// Whether what is compiled is the same in a commit and here.
fn is_compiled_from(commit: &str) -> bool {
    let mut git = Command::new("git");
    let git = git.args(["diff", "--quiet", commit, "--"]).args(COMPILED).stderr(Stdio::null());
    git.status().is_ok_and(|s| s.success())
}

/// The commit that is trained with; "-dirty" where what is compiled differs from it.
fn commit() -> String {
    let commit = first_line("git", &["rev-parse", "--short=12", "HEAD"]);
    if is_compiled_from("HEAD") { commit } else { commit + "-dirty" }
}

/// The names of the cells that are done; where old ones are to be renewed, those that what is
/// compiled here has run.
fn done(settings: &Settings) -> Result<HashSet<String>> {
    let runs = lines::read(&settings.runs)?;
    if !settings.renew {
        return Ok(names(&runs));
    }
    let commits: HashSet<&str> = runs.iter().filter_map(|r| r["commit"].as_str()).collect();
    let same: HashSet<&str> = commits.into_iter().filter(|c| is_compiled_from(c)).collect();
    let is_same = |r: &&Value| r["commit"].as_str().is_some_and(|c| same.contains(c));
    let runs: Vec<Value> = runs.iter().filter(is_same).cloned().collect();
    Ok(names(&runs))
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned())
}

/// Runs the scripts that fetch what a cell needs; a failure is told, and what needs it is skipped.
fn fetch(settings: &Settings, cells: &[Cell]) -> Option<PathBuf> {
    let script = |name: &str, to: &Path| {
        let done = Command::new(format!("scripts/{name}")).arg(to).status();
        done.is_ok_and(|s| s.success())
    };
    if cells.iter().any(|c| c.task.name == "films") {
        script("fetch_data.sh", &settings.work.join("films"));
    }
    let pretrained = settings.work.join("minilm");
    let wanted = cells.iter().any(|c| c.regime == Regime::OnePretrained);
    (wanted && script("fetch_pretrained.sh", &pretrained)).then_some(pretrained)
}

/// Runs the chosen cells that are not done, some at the same time.
pub fn run(settings: &Settings, cells: Vec<Cell>) -> Result<()> {
    let done = done(settings)?;
    let mut cells = chosen(settings, cells);
    let n = cells.len();
    cells.retain(|c| !done.contains(&c.name()));
    let pretrained = fetch(settings, &cells);
    let mut missing = HashSet::new();
    cells.retain(|c| {
        let has_data = data::folder(settings, c.task).is_some();
        let is_possible = has_data && (c.regime != Regime::OnePretrained || pretrained.is_some());
        if !is_possible && missing.insert((c.task.name, c.regime.name())) {
            let what = if has_data { "pretrained weights" } else { "data (see --data)" };
            println!("skipped: {}/{}: no {what}", c.regime.name(), c.task.name);
        }
        is_possible
    });
    println!("{} of {n} cells to run, {} at a time", cells.len(), settings.jobs);
    if let Some(folder) = settings.runs.parent() {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let job = Job {
        settings,
        pretrained: pretrained.as_deref(),
        threads: (cores / settings.jobs).max(1),
        commit: commit(),
        processor: processor(),
        lock: Mutex::new(()),
    };
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..settings.jobs {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    match job.run(cell) {
                        Ok(text) => {
                            println!(
                                "{} {text} {:.0} s",
                                cell.name(),
                                start.elapsed().as_secs_f64()
                            );
                        }
                        Err(e) => {
                            failed.store(true, Ordering::Relaxed);
                            println!("{} FAILED: {e}", cell.name());
                        }
                    }
                }
            });
        }
    });
    if failed.into_inner() { Err("some cells failed".into()) } else { Ok(()) }
}

struct Job<'a> {
    settings: &'a Settings,
    pretrained: Option<&'a Path>,
    threads: usize,
    commit: String,
    processor: String,
    lock: Mutex<()>,
}

impl Job<'_> {
    /// The command of a cell, whose results have this name.
    fn arguments(&self, cell: &Cell, files: &Files, name: &str) -> Result<Vec<String>> {
        let path = |p: &Path| p.display().to_string();
        let mut options: Map<String, Value> = match cell.arm.options {
            "" => Map::new(),
            text => serde_json::from_str(text).map_err(|e| e.to_string())?,
        };
        let batch = if cell.task.kind == Kind::Questions { 16 } else { 32 };
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        add("--task", cell.task.kind.name().into());
        add("--data", path(&files.train));
        add("--eval", path(&files.held_in));
        if !cell.is_tuning {
            add("--test", path(&files.eval));
        }
        add("--mode", cell.arm.mode.into());
        add("--models", MODELS.join(","));
        add("--seed", cell.seed.to_string());
        add("--epochs", cell.schedule.epochs.to_string());
        add("--lr", format!("{:e}", cell.schedule.learning_rate));
        add("--batch", batch.to_string());
        add("--max-length", cell.task.max_length.to_string());
        add("--threads", self.threads.to_string());
        if let Some(unlabelled) = files.unlabelled.as_ref().filter(|_| cell.arm.is_semi_supervised)
        {
            add("--unlabelled", path(unlabelled));
            add("--unlabelled-ratio", "1".into());
        }
        if cell.arm.has_teachers {
            add("--teachers", path(&self.teachers(cell, files)?));
        }
        if let Some(texts) = files.texts.as_ref().filter(|_| cell.regime != Regime::OnePretrained) {
            add("--tokenizer-data", path(texts));
        }
        if cell.regime == Regime::OnePretrained {
            let from = path(self.pretrained.ok_or("no pretrained weights")?);
            add("--pretrained", format!("bert={from}"));
            add("--tokenizer", from);
            let group = json!({"model": "bert", "lr_scale": PRETRAINED_LR_SCALE});
            options.insert("param_groups".into(), json!([group]));
        }
        if !options.is_empty() {
            add("--options", Value::Object(options).to_string());
        }
        // Few examples are walked over often, and scoring would take longer than training.
        let evaluations = if cell.schedule.epochs > 12 { 1 } else { 4 };
        add("--evaluations", evaluations.to_string());
        add("--json", path(&self.json(name)));
        if !cell.is_tuning {
            add("--out", path(&models_of(self.settings, name)));
        }
        arguments.push("--quiet".into());
        Ok(arguments)
    }

    fn json(&self, name: &str) -> PathBuf {
        self.settings.work.join(format!("{}.json", name.replace('/', ".")))
    }

    /// The models that the arm `independent` left. Where they are gone, as with a file of runs from
    /// elsewhere, they are trained again for this cell.
    fn teachers(&self, cell: &Cell, files: &Files) -> Result<PathBuf> {
        let arm = ARMS.iter().find(|a| a.name == "independent").ok_or("no arm independent")?;
        let independent = Cell { arm, ..cell.clone() };
        let is_whole = |models: &Path| MODELS.iter().all(|m| models.join(m).is_dir());
        let models = models_of(self.settings, &independent.name());
        if is_whole(&models) {
            return Ok(models);
        }
        let name = format!("{}.teachers", cell.name());
        let models = models_of(self.settings, &name);
        if !is_whole(&models) {
            println!("{}: trains its teachers, {} anew", cell.name(), independent.name());
            self.train(&independent, files, &name)?;
        }
        Ok(models)
    }

    /// Runs the command of a cell under a name for its results; gives these and the command.
    fn train(&self, cell: &Cell, files: &Files, name: &str) -> Result<(Value, String)> {
        let arguments = self.arguments(cell, files, name)?;
        let output = Command::new(&self.settings.program).args(&arguments).output();
        let output = output.map_err(|e| format!("{}: {e}", self.settings.program.display()))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(text.lines().last().unwrap_or("no message").to_owned());
        }
        let json = self.json(name);
        let text = fs::read_to_string(&json).map_err(|e| format!("{}: {e}", json.display()))?;
        let result = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        Ok((result, format!("joint_train {}", quoted(&arguments))))
    }

    /// Runs a cell and appends its line; gives a summary.
    fn run(&self, cell: &Cell) -> Result<String> {
        let settings = self.settings;
        let folder = data::folder(settings, cell.task).ok_or("no data")?;
        let files = {
            let _guard = self.lock.lock().map_err(|e| e.to_string())?;
            data::prepare(settings, cell, &folder)?
        };
        let (result, command) = self.train(cell, &files, &cell.name())?;
        let line = json!({
            "cell": cell.name(),
            "regime": cell.regime.name(),
            "task": cell.task.name,
            "arm": cell.arm.name,
            "seed": cell.seed,
            "metric": cell.task.kind.metric(),
            "learning_rate": cell.schedule.learning_rate,
            "epochs": cell.schedule.epochs,
            "seconds": result["seconds"],
            "samples": result["samples"],
            "majority": result["majority"],
            "records": result["epochs"],
            "threads": self.threads,
            "processor": self.processor,
            "runtime": result["runtime"],
            "commit": self.commit,
            "command": command,
        });
        let _guard = self.lock.lock().map_err(|e| e.to_string())?;
        lines::put(&settings.runs, &line, &earlier_of(settings), &examples::file_of(settings))?;
        let last = result["epochs"].as_array().and_then(|r| r.last());
        let score = |m: &&str| last.and_then(|r| r[*m]["score"].as_f64()).unwrap_or(f64::NAN);
        Ok(MODELS.iter().map(|m| format!("{:.2}", 100.0 * score(m))).collect::<Vec<_>>().join(" "))
    }
}

fn quoted(arguments: &[String]) -> String {
    let plain = |a: &String| a.chars().all(|c| c.is_ascii_alphanumeric() || "-_./,=".contains(c));
    let one = |a: &String| if plain(a) { a.clone() } else { format!("'{a}'") };
    arguments.iter().map(one).collect::<Vec<_>>().join(" ")
}
