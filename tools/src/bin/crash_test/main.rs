//! Checkpoints under crashes, failing calls and power cuts: `crash_test PROGRAM FAULTS KILLS`.
//!
//! PROGRAM is tests/crash/train.c, FAULTS the library of tests/crash/faults.c, and KILLS how many
//! times the program is killed at a random instant. `make test-crash` compiles both. After each
//! crash or fault the folder must hold a whole checkpoint if one was ever finished, and training
//! that goes on from it must end with the weights of training that was never disturbed. The last
//! line has the counts; the exit status is 1 if any is not 0.

mod disk;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use mmopt::checkpoint::reader;
use mmopt::error::Kind;

const STEPS: u64 = 4;
/// Errors that the system may give, by their names.
const ERRORS: [(&str, i32); 3] = [("ENOSPC", 28), ("EIO", 5), ("EMFILE", 24)];

struct Test {
    program: PathBuf,
    faults: PathBuf,
    scratch: PathBuf,
    /// What undisturbed training prints last.
    expected: String,
    without_whole: usize,
    differ: usize,
    wrong: usize,
    lost: usize,
}

impl Test {
    fn command(&self, dir: &Path, steps: u64) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(dir).arg(steps.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// With a fault at the n-th call; `trace` gets all calls.
    fn with_fault(
        &self,
        dir: &Path,
        steps: u64,
        fault: Option<(usize, &str)>,
        trace: Option<&Path>,
    ) -> Output {
        let mut command = self.command(dir, steps);
        command.env("LD_PRELOAD", &self.faults).env("FAULT_DIR", dir);
        if let Some((at, kind)) = fault {
            command.env("FAULT_AT", at.to_string()).env("FAULT_KIND", kind);
        }
        if let Some(trace) = trace {
            command.env("FAULT_TRACE", trace);
        }
        command.output().expect("the program starts")
    }

    fn fresh(&self, name: &str) -> PathBuf {
        let dir = self.scratch.join(name);
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    /// Whether the folder holds a whole checkpoint; nothing at all is right only before the first.
    fn is_whole(dir: &Path, any_finished: bool) -> bool {
        match reader::open(dir) {
            Ok(_) => true,
            Err(e) => e.kind() == Kind::NotFound && !any_finished,
        }
    }

    /// Goes on undisturbed to the end: whether it ends as it should.
    fn goes_on(&self, dir: &Path) -> bool {
        let output = self.command(dir, STEPS).output().expect("the program starts");
        last_line(&output) == self.expected
    }

    fn kill_at_random(&mut self, n: usize) {
        let started = Instant::now();
        let dir = self.fresh("whole");
        assert_eq!(last_line(&self.command(&dir, STEPS).output().unwrap()), self.expected);
        let length = started.elapsed();
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let mut dir = self.fresh("killed");
        for _ in 0..n {
            let mut child = self.command(&dir, STEPS).spawn().expect("the program starts");
            std::thread::sleep(Duration::from_secs_f64(length.as_secs_f64() * 1.1 * random()));
            let _ = child.kill();
            let output = child.wait_with_output().expect("it ends");
            let finished = fs::read_dir(&dir).is_ok_and(|mut d| {
                d.any(|f| f.is_ok_and(|f| f.file_name().to_string_lossy().starts_with("step-")))
            });
            self.without_whole += usize::from(!Self::is_whole(&dir, finished));
            if output.status.success() {
                self.differ += usize::from(last_line(&output) != self.expected);
                dir = self.fresh("killed");
            }
        }
        self.differ += usize::from(!self.goes_on(&dir));
    }

    /// Calls of one run, which every fault is put at.
    fn n_calls(&self, dir: &Path, steps: u64) -> usize {
        let trace = self.scratch.join("trace");
        let _ = fs::remove_file(&trace);
        self.with_fault(dir, steps, None, Some(&trace));
        let text = fs::read_to_string(&trace).unwrap_or_default();
        text.lines().filter_map(|l| l.strip_prefix("calls ")?.parse::<usize>().ok()).sum()
    }

    fn fail_every_call(&mut self) {
        // The third of three checkpoints, so that one is removed too, and its resume.
        let before = self.fresh("before");
        self.command(&before, 2).output().expect("the program starts");
        let copy = self.fresh("copy");
        copy_dir(&before, &copy);
        let n = self.n_calls(&copy, 3);
        println!("{n} calls with a resume and a checkpoint");
        assert!(n > 20, "the calls are not seen: {n}");
        let errors = ERRORS.iter().map(|(name, number)| (*name, number.to_string()));
        let others = ["short", "before", "after"].map(|kind| (kind, kind.to_owned()));
        for (name, kind) in errors.chain(others) {
            for at in 1..=n {
                let dir = self.fresh("fault");
                copy_dir(&before, &dir);
                let output = self.with_fault(&dir, 3, Some((at, &kind)), None);
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                // An error, a kill, or no harm; never a start from scratch.
                let is_known = matches!(output.status.code(), None | Some(0 | 2 | 3));
                let whole = Self::is_whole(&dir, true);
                let on = self.goes_on(&dir);
                if !(is_known && whole && on && !text.contains("from 0")) {
                    println!(
                        "wrong: {name} at call {at}: {:?} {whole} {on}\n{text}",
                        output.status
                    );
                    self.wrong += 1;
                }
            }
        }
    }

    /// What the disk may hold after a power cut at any call.
    fn cut_the_power(&mut self) {
        let dir = self.fresh("power");
        let trace = self.scratch.join("trace");
        let _ = fs::remove_file(&trace);
        self.with_fault(&dir, STEPS, None, Some(&trace));
        let text = fs::read_to_string(&trace).expect("there is a trace");
        let image = self.fresh("image");
        let mut n = 0;
        disk::replay(&text, &self.scratch, &mut |disk, finished| {
            let _ = fs::remove_dir_all(&image);
            disk.write(&dir, &image);
            n += 1;
            let step = reader::open(&image).map(|found| found.step);
            let is_right = match step {
                Ok(step) => step >= finished,
                Err(e) => finished == 0 && matches!(e.kind(), Kind::NotFound | Kind::InvalidData),
            };
            self.lost += usize::from(!is_right);
        });
        println!("{n} images of the disk");
        assert!(n > 100, "{n} images");
    }
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

fn copy_dir(from: &Path, to: &Path) {
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

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, program, faults, kills] = &arguments[..] else {
        eprintln!("usage: crash_test PROGRAM FAULTS KILLS");
        return ExitCode::FAILURE;
    };
    let mut test = Test {
        program: program.into(),
        faults: faults.into(),
        scratch: Path::new(program).with_file_name("scratch"),
        expected: String::new(),
        without_whole: 0,
        differ: 0,
        wrong: 0,
        lost: 0,
    };
    fs::create_dir_all(&test.scratch).expect("a folder");
    test.scratch = test.scratch.canonicalize().expect("a folder");
    let dir = test.fresh("whole");
    test.expected = last_line(&test.command(&dir, STEPS).output().expect("the program starts"));
    assert!(test.expected.starts_with("done "), "{}", test.expected);
    let kills = kills.parse().expect("a number");
    test.kill_at_random(kills);
    test.fail_every_call();
    test.cut_the_power();
    let Test { without_whole, differ, wrong, lost, .. } = test;
    println!(
        "{kills} kills: {without_whole} without a whole checkpoint, {differ} resumes that differ; \
         faults: {wrong} wrong; power cuts: {lost} lost"
    );
    if without_whole + differ + wrong + lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
