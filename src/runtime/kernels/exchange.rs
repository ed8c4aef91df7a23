//! Passes of several models that meet half-way: the operator `Targets` hands a model's logits to
//! whoever opened the exchange, and waits for what the model is to be drawn towards.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ort::operator::ComputeContext;

use super::kernel::{KernelAttributes, KernelResult, error, input, output, require};

/// What a pass tells the exchange.
pub enum Message {
    /// The logits of a model are there, and its pass waits.
    Logits(Request),
    /// A model's pass is over, or did not begin.
    Ended(usize),
}

/// A pass that waits. Dropped without an answer it ends with an error.
pub struct Request {
    /// Position of the model.
    pub model: usize,
    /// `[rows, classes]`.
    pub logits: Vec<f32>,
    /// Number of classes.
    pub classes: usize,
    answer: Sender<Answer>,
}

impl Request {
    /// Lets the pass go on with target probabilities `[rows, classes]` and a weight for each row.
    pub fn answer(self, targets: Vec<f32>, weights: Vec<f32>) {
        // A pass that is gone needs none.
        let _ = self.answer.send(Answer { targets, weights });
    }
}

struct Answer {
    targets: Vec<f32>,
    weights: Vec<f32>,
}

/// The exchanges that are open, by number. 0 is none.
static OPEN: Mutex<(i64, BTreeMap<i64, Sender<Message>>)> = Mutex::new((0, BTreeMap::new()));

fn open() -> MutexGuard<'static, (i64, BTreeMap<i64, Sender<Message>>)> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the passes of one step meet. Passes that come when it is dropped find no target.
pub struct Exchange {
    number: i64,
    messages: Receiver<Message>,
}

impl Exchange {
    /// Opens an exchange.
    pub fn new() -> Self {
        let (sender, messages) = channel();
        let mut open = open();
        open.0 += 1;
        let number = open.0;
        open.1.insert(number, sender);
        Self { number, messages }
    }

    /// What a model's pass is fed to find the exchange.
    pub fn input(&self, model: usize) -> [i64; 2] {
        [self.number, model as i64]
    }

    /// What tells the exchange that a model's pass has ended, at the latest when it is dropped.
    pub fn guard(&self, model: usize) -> EndGuard {
        EndGuard { model, sender: open().1.get(&self.number).cloned() }
    }

    /// The next message; waits for it.
    pub fn next(&self) -> Option<Message> {
        self.messages.recv().ok()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        open().1.remove(&self.number);
    }
}

/// See [`Exchange::guard`].
pub struct EndGuard {
    model: usize,
    sender: Option<Sender<Message>>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        if let Some(sender) = &self.sender {
            let _ = sender.send(Message::Ended(self.model));
        }
    }
}

/// targets, weights = Targets(logits `[rows, classes]`, exchange `[2]`). Zeros where no exchange is
/// open under the number.
pub(super) fn targets(cx: &ComputeContext, _: &KernelAttributes) -> KernelResult {
    input!(cx, 0, f32 => logits);
    input!(cx, 1, i64 => place);
    let ((dims, logits), (_, place)) = (logits, place);
    let &[number, model] = place else { return Err(error("the exchange is not [2]")) };
    let classes = dims.last().copied().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let sender = open().1.get(&number).cloned();
    let found = match (sender, usize::try_from(model)) {
        (Some(sender), Ok(model)) => Some(ask(&sender, model, logits, classes)?),
        _ => None,
    };
    let rows = dims[..dims.len().saturating_sub(1)].to_vec();
    output!(cx, 0, dims => to);
    output!(cx, 1, rows => weights);
    for (to, from) in
        [(to, found.as_ref().map(|a| &a.targets)), (weights, found.as_ref().map(|a| &a.weights))]
    {
        match (to, from) {
            (Some(to), Some(from)) => {
                require(to.len() == from.len(), "targets of another shape")?;
                to.copy_from_slice(from);
            }
            (Some(to), None) => to.fill(0.0),
            (None, _) => {}
        }
    }
    Ok(())
}

fn ask(
    sender: &Sender<Message>,
    model: usize,
    logits: &[f32],
    classes: usize,
) -> KernelResult<Answer> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(logits.len())
        .map_err(|_| error("no memory for a copy of the logits"))?;
    copy.extend_from_slice(logits);
    let (answer, answered) = channel();
    let ended = || error("the pass of another model ended before its logits were there");
    let request = Request { model, logits: copy, classes, answer };
    sender.send(Message::Logits(request)).map_err(|_| ended())?;
    answered.recv().map_err(|_| ended())
}
