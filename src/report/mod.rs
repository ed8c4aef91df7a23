//! A page on training runs, from their logs: one HTML file that needs nothing else.
//!
//! `log` reads a log into series, `runs` names runs and joins those that differ in their seed.
//! `curves`, `scores`, `sharing` and `options` make the sections of the page, with the pictures of
//! `plot`, `flow`, `plan` and `trajectories`; `page` puts them together. `markup`, `scale`, `thin`
//! and `mds` are what the pictures are made of. Whatever comes from a file is escaped by `markup`.

mod curves;
mod flow;
mod log;
mod markup;
mod mds;
mod options;
mod page;
mod plan;
mod plot;
mod runs;
mod scale;
mod scores;
mod sharing;
mod thin;
mod trajectories;

use std::io::Write as _;
use std::path::Path;

use crate::error::{Error, Result};
use crate::file::write_atomically;

/// The page on the runs in `logs`, as HTML. Runs with the same settings and other seeds are one
/// curve with a band; runs are named by their files.
///
/// # Errors
/// `InvalidArgument` without a log, or with one that is named twice; `NotFound` and `Io` for a
/// file that cannot be read; `InvalidData` for one that is no log, with the line.
pub fn report_html<P: AsRef<Path>>(logs: &[P]) -> Result<String> {
    if logs.is_empty() {
        return Err(Error::invalid("a report needs the log of one run at least"));
    }
    for (i, log) in logs.iter().enumerate() {
        if logs[..i].iter().any(|other| other.as_ref() == log.as_ref()) {
            return Err(Error::invalid(format!("{} is named twice", log.as_ref().display())));
        }
    }
    let mut all: Vec<log::Run> =
        logs.iter().map(|log| log::Run::read(log.as_ref())).collect::<Result<_>>()?;
    runs::name(&mut all);
    page::html(&runs::sets(all))
}

/// Writes the page on the runs in `logs` to `output`, all or nothing.
///
/// # Errors
/// As [`report_html`]; `InvalidArgument` if `output` is one of the logs; those of writing a file.
pub fn write_report<P: AsRef<Path>>(logs: &[P], output: &Path) -> Result<()> {
    let same = |log: &P| {
        let real = |path: &Path| path.canonicalize().ok();
        log.as_ref() == output || real(output).is_some_and(|o| real(log.as_ref()) == Some(o))
    };
    if logs.iter().any(same) {
        let text = format!("{} is a log; name another file for the report", output.display());
        return Err(Error::invalid(text));
    }
    let html = report_html(logs)?;
    write_atomically(output, |file| {
        file.write_all(html.as_bytes()).map_err(|e| Error::io(output, e))
    })
}

#[cfg(test)]
mod tests;
