//! Checkpoints under crashes, failing calls and power cuts: `crash_test PROGRAM FAULTS KILLS
//! [kills|faults|power|share]...`, all parts if none is named.
//!
//! PROGRAM is tests/crash/train.c, FAULTS the library of tests/crash/faults.c, and KILLS how many
//! times the program is killed, at each of its calls and the rest at random instants. `make
//! test-crash` compiles both. After each crash or fault the folder must hold a whole checkpoint if
//! one was ever finished, and training that goes on from it must end with the weights of training
//! that was never disturbed. Everything is done with checkpoints that are written in the call, and
//! with those that are written beside the training; a fifth of the kills are of a fit, whose log
//! must have each step once in the end. Then two writers at a time are at one folder for a minute,
//! of which one must be refused, and four readers, which must always see a whole checkpoint. The
//! last line has the counts; the exit status is 1 if anything was wrong.

mod disk;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mmopt::checkpoint::reader;
use mmopt::error::Kind;

const STEPS: u64 = 4;
/// Errors that the system may give, by their names.
const ERRORS: [(&str, i32); 3] = [("ENOSPC", 28), ("EIO", 5), ("EMFILE", 24)];
/// Of the disks that a power cut may leave, training goes on from one in so many.
const GOES_ON_EVERY: usize = 20;

/// How the program writes its checkpoints.
const WAYS: [&str; 2] = ["at-once", "beside"];

#[derive(Default)]
struct Counts {
    kills: AtomicUsize,
    without_whole: AtomicUsize,
    differ: AtomicUsize,
    faults: AtomicUsize,
    wrong: AtomicUsize,
    disks: AtomicUsize,
    lost: AtomicUsize,
}

struct Test {
    program: PathBuf,
    faults: PathBuf,
    scratch: PathBuf,
    /// What undisturbed training prints last.
    expected: String,
    /// How long it takes.
    length: Duration,
    counts: Counts,
}

fn add(count: &AtomicUsize, n: usize) {
    count.fetch_add(n, Ordering::Relaxed);
}

fn of(count: &AtomicUsize) -> usize {
    count.load(Ordering::Relaxed)
}

impl Test {
    fn command(&self, dir: &Path, steps: u64, way: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(dir).arg(steps.to_string()).arg(way);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, dir: &Path, steps: u64, way: &str) -> Output {
        self.command(dir, steps, way).output().expect("the program starts")
    }

    /// With a fault at the n-th call; `trace` gets all calls.
    fn with_fault(
        &self,
        dir: &Path,
        (steps, way): (u64, &str),
        fault: Option<(usize, &str)>,
        trace: Option<&Path>,
    ) -> Output {
        let mut command = self.command(dir, steps, way);
        command.env("LD_PRELOAD", &self.faults).env("FAULT_DIR", dir);
        if let Some((at, kind)) = fault {
            command.env("FAULT_AT", at.to_string()).env("FAULT_KIND", kind);
        }
        if let Some(trace) = trace {
            let _ = fs::remove_file(trace);
            command.env("FAULT_TRACE", trace);
        }
        command.output().expect("the program starts")
    }

    fn fresh(&self, name: &str) -> PathBuf {
        let dir = self.scratch.join(name);
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    /// Does `work` for each number below `n`, on all cores; each gets a folder name of its own.
    fn each(&self, n: usize, work: impl Fn(&str, usize) + Sync) {
        let next = AtomicUsize::new(0);
        let (next, work) = (&next, &work);
        std::thread::scope(|scope| {
            for core in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(move || {
                    let name = format!("core-{core}");
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= n {
                            break;
                        }
                        work(&name, at);
                    }
                });
            }
        });
    }

    /// Goes on undisturbed to the end: whether it ends as it should.
    fn goes_on(&self, dir: &Path) -> bool {
        last_line(&self.run(dir, STEPS, WAYS[0])) == self.expected
    }

    /// One run from what the folder holds, killed at a random instant unless it is faster; whether
    /// it came to its end.
    fn kill_once(&self, dir: &Path, number: usize) -> bool {
        let way = WAYS[number % WAYS.len()];
        let mut child = self.command(dir, STEPS, way).spawn().expect("the program starts");
        std::thread::sleep(self.length.mul_f64(1.1 * random(number)));
        let _ = child.kill();
        let output = child.wait_with_output().expect("it ends");
        add(&self.counts.kills, 1);
        if !is_whole(dir, has_finished(dir)) {
            println!("killed ({way}): no whole checkpoint is left");
            add(&self.counts.without_whole, 1);
        }
        let is_done = output.status.success();
        if is_done && last_line(&output) != self.expected {
            println!("killed ({way}): it ends with {}", last_line(&output));
            add(&self.counts.differ, 1);
        }
        is_done
    }

    fn kill_at_random(&self, n: usize) {
        self.each(n.div_ceil(50), |name, part| {
            let mut dir = self.fresh(name);
            for number in part * 50..n.min(part * 50 + 50) {
                if self.kill_once(&dir, number) {
                    dir = self.fresh(name);
                }
            }
            if !self.goes_on(&dir) {
                println!("killed many times: it does not go on as it should");
                add(&self.counts.differ, 1);
            }
        });
    }

    /// A fit that is killed again and again, and goes on by itself: with the weights of undisturbed
    /// training, and each step in its log once.
    fn kill_fits(&self, n: usize) {
        self.each(n.div_ceil(10), |name, part| {
            let dir = self.fresh(&format!("fit-{name}"));
            for number in part * 10..n.min(part * 10 + 10) {
                let mut child = self.command(&dir, STEPS, "fit").spawn().expect("it starts");
                std::thread::sleep(self.length.mul_f64(1.1 * random(number)));
                let _ = child.kill();
                let output = child.wait_with_output().expect("it ends");
                add(&self.counts.kills, 1);
                if !is_whole(&dir, has_finished(&dir)) {
                    println!("killed (fit): no whole checkpoint is left");
                    add(&self.counts.without_whole, 1);
                }
                if output.status.code().is_some_and(|code| code != 0) {
                    println!("killed (fit): it ends with {}", last_line(&output));
                    add(&self.counts.differ, 1);
                }
            }
            let output = self.run(&dir, STEPS, "fit");
            if last_line(&output) != self.expected {
                println!("killed many times (fit): it ends with {}", last_line(&output));
                add(&self.counts.differ, 1);
            }
        });
    }

    /// Calls of one run, which every fault is put at.
    fn n_calls(&self, dir: &Path, steps: u64, way: &str) -> usize {
        let trace = self.scratch.join("trace");
        self.with_fault(dir, (steps, way), None, Some(&trace));
        let text = fs::read_to_string(&trace).unwrap_or_default();
        let calls = text.lines().filter_map(|l| l.strip_prefix("calls ")?.parse::<usize>().ok());
        let n = calls.sum::<usize>();
        assert!(n > 20, "the calls are not seen: {n}");
        n
    }

    /// A folder from which `steps` steps are made, and the calls of that.
    fn prepared(&self, name: &str, n_before: u64, steps: u64, way: &str) -> (PathBuf, usize) {
        let before = self.fresh(name);
        if n_before > 0 {
            self.run(&before, n_before, way);
        }
        let copy = self.fresh("copy");
        copy_dir(&before, &copy);
        let n = self.n_calls(&copy, steps, way);
        println!("{n} calls from step {n_before} to {steps} ({way})");
        (before, n)
    }

    /// Kills before and after each call: of a first checkpoint, and of a third, which removes one.
    fn kill_at_every_call(&self) {
        for way in WAYS {
            for (n_before, steps) in [(0, 1), (2, 3)] {
                let (before, n) = self.prepared("before", n_before, steps, way);
                self.each(2 * n, |name, at| {
                    let dir = self.fresh(name);
                    copy_dir(&before, &dir);
                    let kind = ["before", "after"][at % 2];
                    let fault = Some((at / 2 + 1, kind));
                    let output = self.with_fault(&dir, (steps, way), fault, None);
                    let place = format!("killed {kind} call {} to step {steps} ({way})", at / 2);
                    add(&self.counts.kills, 1);
                    assert!(output.status.code().is_none(), "not {place}: {}", output.status);
                    if !is_whole(&dir, n_before > 0 || has_finished(&dir)) {
                        println!("{place}: no whole checkpoint is left");
                        add(&self.counts.without_whole, 1);
                    }
                    if !self.goes_on(&dir) {
                        println!("{place}: it does not go on as it should");
                        add(&self.counts.differ, 1);
                    }
                });
            }
        }
    }

    fn fail_every_call(&self) {
        let errors = ERRORS.map(|(name, number)| (name, number.to_string()));
        let kinds = [&errors[..], &[("a short write", "short".into())]].concat();
        for way in WAYS {
            for (n_before, steps) in [(0, 1), (2, 3)] {
                let (before, n) = self.prepared("before", n_before, steps, way);
                self.each(n * kinds.len(), |name, at| {
                    let (what, kind) = &kinds[at % kinds.len()];
                    let at = at / kinds.len() + 1;
                    let dir = self.fresh(name);
                    copy_dir(&before, &dir);
                    let output = self.with_fault(&dir, (steps, way), Some((at, kind)), None);
                    let text = String::from_utf8_lossy(&output.stdout).into_owned();
                    // An error, or no harm; a start from scratch only where there is nothing.
                    let is_known = matches!(output.status.code(), Some(0 | 2 | 3));
                    let scratch = n_before > 0 && text.contains("from 0");
                    let whole = is_whole(&dir, n_before > 0 || has_finished(&dir));
                    let on = self.goes_on(&dir);
                    add(&self.counts.faults, 1);
                    if !(is_known && whole && on && !scratch) {
                        println!(
                            "wrong: {what} at call {at} from step {n_before} ({way}): {:?}, {}, \
                             {}\n{text}",
                            output.status,
                            if whole { "whole" } else { "not whole" },
                            if on { "goes on" } else { "does not go on" },
                        );
                        add(&self.counts.wrong, 1);
                    }
                });
            }
        }
    }

    /// Two writers at a time, of which one is refused, and four readers beside them, for so long.
    fn share(&self, length: Duration) -> bool {
        let dir = self.fresh("shared");
        self.run(&dir, 1, WAYS[0]);
        let (n_opened, n_bad) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (mut n_pairs, mut n_refused, mut n_wrong) = (0, 0, 0);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        add(&n_opened, 1);
                        if let Err(e) = reader::open(&dir) {
                            println!("a reader beside a writer: {e}");
                            add(&n_bad, 1);
                        }
                    }
                });
            }
            let started = Instant::now();
            while started.elapsed() < length {
                let steps = 1 + STEPS * (n_pairs as u64 + 1);
                let way = WAYS[n_pairs % WAYS.len()];
                let start = |_| self.command(&dir, steps, way).spawn().expect("it starts");
                let pair = [0, 1].map(start).map(|c| c.wait_with_output().expect("it ends"));
                // MMOPT_CODE_STATE is what the second one must get.
                let codes = pair.each_ref().map(|o| match o.status.code() {
                    Some(2) if !last_line(o).starts_with("code 10: ") => None,
                    code => code,
                });
                n_pairs += 1;
                n_refused += codes.iter().filter(|c| **c == Some(2)).count();
                // They may also have come one after the other.
                let is_right = match codes {
                    [Some(0), Some(2)] | [Some(2), Some(0)] => true,
                    [Some(0), Some(0)] => last_line(&pair[0]) == last_line(&pair[1]),
                    _ => false,
                };
                if !is_right {
                    println!("two writers ({way}): {codes:?} {pair:?}");
                    n_wrong += 1;
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        println!(
            "{n_pairs} pairs of writers, {n_refused} refused: {n_wrong} wrong; {} reads beside \
             them: {} wrong",
            grouped(of(&n_opened)),
            of(&n_bad)
        );
        n_wrong + of(&n_bad) == 0 && n_refused > 0
    }

    /// What the disk may hold after a power cut at any call.
    fn cut_the_power(&self, way: &str) {
        let dir = self.fresh("power");
        let trace = self.scratch.join("trace");
        self.with_fault(&dir, (STEPS, way), None, Some(&trace));
        let text = fs::read_to_string(&trace).expect("there is a trace");
        let mut seen = HashSet::new();
        let mut disks = Vec::new();
        disk::replay(&text, &self.scratch, &mut |disk, finished| {
            if seen.insert((disk.digest(), finished)) {
                disks.push((disk, finished));
            }
        });
        assert!(disks.len() > 100, "{} disks", disks.len());
        println!("{} disks after a power cut ({way})", disks.len());
        let told = Mutex::new(0);
        self.each(disks.len(), |name, at| {
            let (disk, finished) = &disks[at];
            let image = self.fresh(name);
            disk.write(&dir, &image);
            add(&self.counts.disks, 1);
            let found = reader::open(&image).map(|found| found.step);
            let is_right = match &found {
                Ok(step) => step >= finished,
                Err(e) => *finished == 0 && matches!(e.kind(), Kind::NotFound | Kind::InvalidData),
            };
            let on = !is_right || found.is_err() || at % GOES_ON_EVERY > 0 || self.goes_on(&image);
            if !(is_right && on) {
                add(&self.counts.lost, 1);
                let mut told = told.lock().expect("a lock");
                if *told < 5 {
                    *told += 1;
                    println!("lost: step {finished} was written, found is {found:?}, {on}");
                }
            }
        });
    }
}

/// In [0, 1), the same for the same number (splitmix64).
fn random(number: usize) -> f64 {
    let mut z = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Whether the folder holds a whole checkpoint; nothing at all is right only before the first.
fn is_whole(dir: &Path, any_finished: bool) -> bool {
    match reader::open(dir) {
        Ok(_) => true,
        Err(e) => e.kind() == Kind::NotFound && !any_finished,
    }
}

/// Whether any checkpoint has its name.
fn has_finished(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut d| {
        d.any(|f| f.is_ok_and(|f| f.file_name().to_string_lossy().starts_with("step-")))
    })
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

fn copy_dir(from: &Path, to: &Path) {
    if !from.is_dir() {
        return;
    }
    fs::create_dir_all(to).expect("a folder");
    for item in fs::read_dir(from).expect("a folder") {
        let path = item.expect("an entry").path();
        let place = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_dir(&path, &place);
        } else {
            fs::copy(&path, &place).expect("a copy");
        }
    }
}

/// With commas between thousands.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let lead = digits.len() % 3;
    let mut parts = vec![&digits[..lead]];
    parts.extend((lead..digits.len()).step_by(3).map(|at| &digits[at..at + 3]));
    parts.retain(|part| !part.is_empty());
    parts.join(",")
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let (program, faults, kills, parts) = match &arguments[..] {
        [_, program, faults, kills, parts @ ..] => (program, faults, kills, parts),
        _ => {
            eprintln!("usage: crash_test PROGRAM FAULTS KILLS [kills|faults|power|share]...");
            return ExitCode::FAILURE;
        }
    };
    let wants = |part: &str| parts.is_empty() || parts.iter().any(|p| p == part);
    let scratch = Path::new(program).with_file_name("scratch");
    fs::create_dir_all(&scratch).expect("a folder");
    let mut test = Test {
        program: program.into(),
        faults: faults.into(),
        scratch: scratch.canonicalize().expect("a folder"),
        expected: String::new(),
        length: Duration::ZERO,
        counts: Counts::default(),
    };
    for way in [WAYS[0], WAYS[1], "fit"] {
        let dir = test.fresh("undisturbed");
        let started = Instant::now();
        let last = last_line(&test.run(&dir, STEPS, way));
        test.length = test.length.max(started.elapsed());
        assert!(last.starts_with("done "), "{way}: {last}");
        assert!(test.expected.is_empty() || test.expected == last, "{way}: another end");
        test.expected = last;
    }
    let kills: usize = kills.parse().expect("a number");
    if wants("kills") {
        test.kill_at_every_call();
        test.kill_fits(kills / 5);
        test.kill_at_random(kills.saturating_sub(of(&test.counts.kills)));
    }
    if wants("faults") {
        test.fail_every_call();
    }
    if wants("power") {
        WAYS.iter().for_each(|way| test.cut_the_power(way));
    }
    let is_shared = !wants("share") || test.share(Duration::from_secs(60));
    let _ = fs::remove_dir_all(&test.scratch);
    let Counts { kills, without_whole, differ, faults, wrong, disks, lost } = &test.counts;
    let [kills, faults, disks] = [kills, faults, disks].map(|n| grouped(of(n)));
    let [without_whole, differ, wrong, lost] = [without_whole, differ, wrong, lost].map(of);
    println!(
        "{kills} kills: {without_whole} without a whole checkpoint, {differ} resumes that differ; \
         {faults} faults: {wrong} wrong; {disks} power-loss replays: {lost} lost"
    );
    if without_whole + differ + wrong + lost == 0 && is_shared {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
