//! Passes of several models that meet half-way: the operator `Targets` hands a model's logits to
//! whoever opened the exchange, and waits for what the model is to be drawn towards.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

#[derive(Clone)]
struct Answer {
    targets: Vec<f32>,
    weights: Vec<f32>,
}

/// What a pass finds.
#[derive(Clone)]
enum Place {
    /// Other passes, that it has to wait for.
    Meeting(Sender<Message>),
    /// The answer.
    Ready(Arc<Answer>),
}

/// The places that are open, by number. 0 is none.
#[derive(Default)]
struct Places {
    last: i64,
    open: BTreeMap<i64, Place>,
}

static PLACES: Mutex<Places> = Mutex::new(Places { last: 0, open: BTreeMap::new() });

fn places() -> MutexGuard<'static, Places> {
    PLACES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a place and returns its number.
fn open(place: Place) -> i64 {
    let mut places = places();
    places.last += 1;
    let number = places.last;
    places.open.insert(number, place);
    number
}

/// The answer to one pass, known before it begins; until it is dropped.
pub struct ReadyAnswer(i64);

impl ReadyAnswer {
    /// See [`Request::answer`].
    pub fn new((targets, weights): (Vec<f32>, Vec<f32>)) -> Self {
        Self(open(Place::Ready(Arc::new(Answer { targets, weights }))))
    }

    /// What the pass is fed to find it.
    pub fn input(&self) -> [i64; 2] {
        [self.0, 0]
    }
}

impl Drop for ReadyAnswer {
    fn drop(&mut self) {
        places().open.remove(&self.0);
    }
}

/// Where the passes of one step meet. Passes that come when it is dropped find no target.
pub struct Exchange {
    number: i64,
    messages: Receiver<Message>,
}

impl Exchange {
    /// Opens an exchange.
    pub fn begin() -> Self {
        let (sender, messages) = channel();
        Self { number: open(Place::Meeting(sender)), messages }
    }

    /// What a model's pass is fed to find the exchange.
    pub fn input(&self, model: usize) -> [i64; 2] {
        [self.number, model as i64]
    }

    /// What tells the exchange that a model's pass has ended, at the latest when it is dropped.
    pub fn guard(&self, model: usize) -> EndGuard {
        let sender = match places().open.get(&self.number) {
            Some(Place::Meeting(sender)) => Some(sender.clone()),
            _ => None,
        };
        EndGuard { model, sender }
    }

    /// The next message; waits for it.
    pub fn next(&self) -> Option<Message> {
        self.messages.recv().ok()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        places().open.remove(&self.number);
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
    let found = places().open.get(&number).cloned();
    let found = match (found, usize::try_from(model)) {
        (Some(Place::Meeting(sender)), Ok(model)) => {
            Some(Arc::new(ask(&sender, model, logits, classes)?))
        }
        (Some(Place::Ready(answer)), _) => Some(answer),
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
