//! The log files of a fit: JSON lines, CSV, events.

use std::path::PathBuf;

use super::log_file::LogFile;
use super::options::FitOptions;
use super::records::{COLUMNS, Evaluation, Record, Row, Scalar, Sharing, Step, now};
use super::state::LogLengths;
use super::tensorboard::{self, Value};
use crate::error::{Error, Result};
use crate::train::Trainer;

/// The files that the options ask for.
#[derive(Debug, Default)]
pub(super) struct Logs {
    jsonl: Option<LogFile>,
    csv: Option<LogFile>,
    events: Option<LogFile>,
    images: bool,
}

/// Where the options want the files, with the lengths of those that are to go on.
fn places(options: &FitOptions, at: LogLengths) -> [(Option<PathBuf>, Option<u64>); 3] {
    let events = options.tensorboard_dir.as_ref().map(|dir| dir.join(tensorboard::FILE_NAME));
    [
        (options.jsonl_path.clone(), at.jsonl),
        (options.csv_path.clone(), at.csv),
        (events, at.events),
    ]
}

impl Logs {
    /// Checks that files can go on from these lengths, and changes nothing.
    pub fn check(options: &FitOptions, at: LogLengths) -> Result<()> {
        for (path, length) in places(options, at) {
            if let (Some(path), Some(length)) = (path, length) {
                LogFile::check(&path, length)?;
            }
        }
        Ok(())
    }

    /// Opens the files: those with a length are cut to it and go on, others begin.
    pub fn open(
        options: &FitOptions,
        at: LogLengths,
        first: impl FnOnce() -> Result<Record<'static>>,
    ) -> Result<Self> {
        let open = |(path, length): (Option<PathBuf>, Option<u64>)| match (path, length) {
            (None, _) => Ok(None),
            (Some(path), Some(length)) => LogFile::reopen(&path, length).map(Some),
            (Some(path), None) => LogFile::create(&path).map(Some),
        };
        let [jsonl, csv, events] = places(options, at).map(open);
        let images = options.sharing_images;
        let mut logs = Self { jsonl: jsonl?, csv: csv?, events: events?, images };
        if let (Some(file), None) = (&mut logs.jsonl, at.jsonl) {
            file.append(first()?.line()?.as_bytes())?;
        }
        if let (Some(file), None) = (&mut logs.csv, at.csv) {
            file.append(csv_lines(&[COLUMNS.map(str::to_owned)])?.as_slice())?;
        }
        if let (Some(file), None) = (&mut logs.events, at.events) {
            file.append(&tensorboard::header(now()))?;
        }
        Ok(logs)
    }

    /// The lengths for a checkpoint; that much is on the disk when this returns.
    pub fn lengths(&mut self) -> Result<LogLengths> {
        let length = |file: &mut Option<LogFile>| file.as_mut().map(LogFile::sync).transpose();
        Ok(LogLengths {
            jsonl: length(&mut self.jsonl)?,
            csv: length(&mut self.csv)?,
            events: length(&mut self.events)?,
        })
    }

    /// Adds a line of JSON.
    pub fn line(&mut self, record: &Record) -> Result<()> {
        match &mut self.jsonl {
            Some(file) => file.append(record.line()?.as_bytes()),
            None => Ok(()),
        }
    }

    pub fn step(&mut self, step: &Step) -> Result<()> {
        self.line(&Record::Step(step))?;
        self.rows(&step.rows())?;
        self.scalars(step.step, step.scalars())
    }

    pub fn evaluation(&mut self, evaluation: &Evaluation) -> Result<()> {
        self.line(&Record::Evaluation(evaluation))?;
        self.rows(&evaluation.rows())?;
        self.scalars(evaluation.step, evaluation.scalars())
    }

    /// How models agree, where the last step measured it.
    pub fn sharing(&mut self, trainer: &Trainer) -> Result<()> {
        if self.jsonl.is_none() && self.events.is_none() {
            return Ok(());
        }
        let Some(sharing) = Sharing::new(trainer)? else { return Ok(()) };
        self.line(&Record::Sharing(sharing))?;
        let optimizer = trainer.optimizer();
        let (Some(metrics), names) = (optimizer.metrics(), optimizer.plan().models()) else {
            return Ok(());
        };
        let n = names.len();
        let mut values = Vec::new();
        for i in 0..n {
            for j in i + 1..n {
                let pair = format!("{}/{}", names[i], names[j]);
                let at = i * n + j;
                values.push(tensorboard::scalar(format!("cosine/{pair}"), metrics.cosine[at]));
                values.push(tensorboard::scalar(format!("distance/{pair}"), metrics.distance[at]));
            }
        }
        if self.images {
            values.push(tensorboard::matrix_image("cosine", &metrics.cosine, n));
        }
        self.values(metrics.step, values)
    }

    /// Adds an event.
    pub fn values(&mut self, step: u64, values: Vec<Value>) -> Result<()> {
        match &mut self.events {
            Some(file) => file.append(&tensorboard::event(now(), step, values)),
            None => Ok(()),
        }
    }

    fn scalars(&mut self, step: u64, scalars: Vec<Scalar>) -> Result<()> {
        let scalars = scalars.into_iter().map(|(tag, value)| tensorboard::scalar(tag, value));
        self.values(step, scalars.collect())
    }

    fn rows(&mut self, rows: &[Row]) -> Result<()> {
        match &mut self.csv {
            Some(file) => file.append(csv_lines(rows)?.as_slice()),
            None => Ok(()),
        }
    }
}

fn csv_lines(rows: &[Row]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row).map_err(|e| Error::internal(e.to_string()))?;
    }
    writer.into_inner().map_err(|e| Error::internal(e.to_string()))
}
