//! The messages of a trainer: none, until the host asks for them.

use std::fmt;

/// Severity of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// Something failed; the call that failed says the same.
    Error = 1,
    /// Something is probably not as intended: parameters in one initializer that are trained as
    /// one, a model without a partner where groups are used, a skipped step, a synchronisation that
    /// was undone.
    Warning = 2,
    /// What the library decided and wrote: import fixes, the plan, threads, files.
    Info = 3,
    /// Details for debugging: sessions that are opened, rates and norms of each step.
    Debug = 4,
}

/// Receives messages, each one line without its end, on the thread of the call that causes them.
pub type Sink = Box<dyn Fn(Level, &str) + Send + Sync>;

/// Where a trainer's messages go, and those that wait for a sink.
#[derive(Default)]
pub(super) struct Log {
    sink: Option<(Level, Sink)>,
    /// From the trainer's creation, when no sink could be set.
    waiting: Vec<(Level, String)>,
}

impl Log {
    /// Keeps a message for the first sink that wants its level.
    pub fn keep(&mut self, level: Level, text: String) {
        self.waiting.push((level, text));
    }

    /// Sets or takes away the sink; a new one first gets what was kept at its level and below.
    pub fn set(&mut self, sink: Option<(Level, Sink)>) {
        self.sink = sink;
        if let Some((wanted, sink)) = &self.sink {
            self.waiting.retain(|(level, text)| {
                if level <= wanted {
                    sink(*level, text);
                }
                level > wanted
            });
        }
    }

    /// Sends a message when its level is wanted; `text` is made only then.
    pub fn send(&self, level: Level, text: impl FnOnce() -> String) {
        if let Some((wanted, sink)) = &self.sink
            && level <= *wanted
        {
            sink(level, &text());
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self.sink.as_ref().map(|(level, _)| level);
        write!(f, "Log({level:?}, {} waiting)", self.waiting.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn what_was_kept_comes_once_and_at_the_level_asked_for() {
        let heard = Arc::new(Mutex::new(Vec::<String>::new()));
        let sink = || {
            let heard = heard.clone();
            Box::new(move |_: Level, text: &str| heard.lock().unwrap().push(text.to_owned()))
                as Sink
        };
        let take = || std::mem::take(&mut *heard.lock().unwrap());
        let mut log = Log::default();
        log.send(Level::Error, || unreachable!("nobody listens"));
        log.keep(Level::Warning, "kept warning".into());
        log.keep(Level::Debug, "kept detail".into());
        log.set(Some((Level::Info, sink())));
        log.send(Level::Info, || "heard".into());
        log.send(Level::Debug, || unreachable!("not wanted"));
        assert_eq!(take(), ["kept warning", "heard"]);
        log.set(Some((Level::Debug, sink())));
        assert_eq!(take(), ["kept detail"]);
        log.set(None);
        log.send(Level::Error, || unreachable!("nobody listens"));
        log.set(Some((Level::Debug, sink())));
        assert!(take().is_empty());
    }
}
