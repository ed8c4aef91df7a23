//! Training passes that run side by side and teach each other: each hands over its logits as soon
//! as they are there and goes on with what the others predict, all of them or those before it.

use std::thread;

use super::examples::Examples;
use super::step::{Member, Mutual, shape_of};
use super::target::Teaching;
use crate::autodiff::LossSpec;
use crate::error::{Error, Result};
use crate::optim::Teacher;
use crate::runtime::kernels::{Exchange, Message, Request};
use crate::train::batch::Batch;
use crate::train::model::{Model, Run};
use crate::train::trainer::in_model;

/// How the passes of a step met.
#[derive(Default)]
struct Meeting {
    /// Models whose passes ended before their logits were there.
    ended_early: Vec<usize>,
    /// Passes that were answered.
    n_answered: usize,
    /// Why others were not, where it is not a pass's fault.
    failed: Option<Error>,
}

/// What the passes of a step are answered by.
struct Answers<'a> {
    members: &'a [Member<'a>],
    /// Rows and classes of each model's logits.
    shapes: &'a [(usize, usize)],
    /// The models whose passes meet, the first to begin first.
    order: &'a [usize],
    step: u64,
}

/// What teaching knows of a model that is busy.
struct Known {
    name: String,
    spec: LossSpec,
    is_fresh: bool,
}

impl Known {
    fn of(model: &Model) -> Self {
        let spec = model.sessions.spec.clone();
        Self { name: model.name.clone(), spec, is_fresh: model.is_fresh() }
    }
}

fn members_of<'a>(known: &'a [Known], batches: &[Batch<'a>]) -> Vec<Member<'a>> {
    let member = |(k, batch): (&'a Known, &Batch<'a>)| Member {
        examples: Examples::new(&k.name, &k.spec, batch),
        is_fresh: k.is_fresh,
    };
    known.iter().zip(batches).map(member).collect()
}

impl Mutual {
    /// The training passes of all models that learn, each on a thread of its own. With the teacher
    /// `peers_before` each is answered as soon as those before it in `order` have their logits,
    /// otherwise all are answered together.
    pub(super) fn run_meeting(
        &mut self,
        models: &mut [Model],
        batches: &[Batch],
        step: u64,
        runs: &mut [Option<Run>],
    ) -> Result<()> {
        let order = self.order(models);
        let mut shapes = vec![(0, 0); models.len()];
        for &i in &order {
            shapes[i] = shape_of(&mut models[i], batches[i])?;
        }
        // Copies, for the models are busy.
        let known: Vec<Known> = models.iter().map(Known::of).collect();
        let members = members_of(&known, batches);
        let exchange = Exchange::begin();
        let students = models.iter_mut().zip(batches).enumerate();
        let students = students.filter(|(_, (model, _))| !model.only_teaches());
        let passes = students.map(|(i, (model, &batch))| {
            let (guard, place) = (exchange.guard(i), exchange.input(i));
            let pass = move || {
                let _guard = guard;
                model.learn(batch, Teaching::Exchange(place), None)
            };
            (i, pass)
        });
        let passes: Vec<_> = passes.collect();
        let (meeting, done) = thread::scope(|scope| {
            // Where no thread starts the guard is dropped, and so that is told.
            let begin = |(i, pass)| (i, thread::Builder::new().spawn_scoped(scope, pass));
            let threads: Vec<_> = passes.into_iter().map(begin).collect();
            let answers = Answers { members: &members, shapes: &shapes, order: &order, step };
            let meeting = self.meet(exchange, &answers);
            let end = |(i, thread): (usize, std::io::Result<thread::ScopedJoinHandle<_>>)| {
                let run = match thread {
                    Ok(thread) => thread
                        .join()
                        .unwrap_or_else(|_| Err(Error::internal("a worker thread panicked"))),
                    Err(e) => Err(Error::no_thread(e)),
                };
                (i, run)
            };
            (meeting, threads.into_iter().map(end).collect::<Vec<(usize, Result<Run>)>>())
        });
        let names: Vec<&str> = known.iter().map(|k| k.name.as_str()).collect();
        self.finish_meeting(meeting, done, &names, runs)
    }

    /// Waits for the logits of all passes, and answers them. However it ends, none waits any more.
    fn meet(&mut self, exchange: Exchange, answers: &Answers) -> Meeting {
        let (mut meeting, mut waiting, mut n_ended) = (Meeting::default(), Vec::new(), 0);
        let mut asked = vec![false; answers.members.len()];
        while n_ended < answers.order.len() {
            match exchange.next() {
                Some(Message::Logits(request)) => {
                    // Asked twice, a pass ends with an error: the request is dropped.
                    if !std::mem::replace(&mut asked[request.model], true) {
                        waiting.push(request);
                    }
                }
                Some(Message::Ended(model)) => {
                    n_ended += 1;
                    if !asked[model] {
                        meeting.ended_early.push(model);
                    }
                }
                None => break,
            }
            if meeting.failed.is_some() || !meeting.ended_early.is_empty() {
                // Those that wait end with an error.
                waiting.clear();
                continue;
            }
            let ready = match self.options.teacher {
                Teacher::PeersBefore => {
                    next_in_order(&mut waiting, &answers.order[meeting.n_answered..])
                }
                // Not as they arrived: the first pair that does not fit is told, the same in each
                // run.
                _ if waiting.len() == answers.order.len() => {
                    waiting.sort_by_key(|request| request.model);
                    std::mem::take(&mut waiting)
                }
                _ => Vec::new(),
            };
            meeting.n_answered += ready.len();
            meeting.failed = self.answer(ready, answers).err();
        }
        meeting
    }

    fn answer(&mut self, mut ready: Vec<Request>, answers: &Answers) -> Result<()> {
        // A model's teachers are those before it, or all that are there.
        let in_order = self.options.teacher == Teacher::PeersBefore;
        if !in_order {
            ready.iter_mut().for_each(|request| self.take_prediction(request));
        }
        for request in &mut ready {
            let i = request.model;
            self.set_target(answers.members, i, answers.shapes[i], answers.step)?;
            if in_order {
                self.take_prediction(request);
            }
        }
        for request in ready {
            let (targets, weights) = self.targets[request.model].to_answer();
            request.answer(targets, weights);
        }
        Ok(())
    }

    fn take_prediction(&mut self, request: &mut Request) {
        let logits = std::mem::take(&mut request.logits);
        let temperature = self.options.temperature;
        self.predictions[request.model].set_rows(logits, request.classes, temperature);
    }

    fn finish_meeting(
        &self,
        meeting: Meeting,
        done: Vec<(usize, Result<Run>)>,
        names: &[&str],
        runs: &mut [Option<Run>],
    ) -> Result<()> {
        if let Some(error) = meeting.failed {
            return Err(error);
        }
        let n = done.len();
        // First the passes that the others' errors are due to.
        let (early, late): (Vec<_>, Vec<_>) =
            done.into_iter().partition(|(i, _)| meeting.ended_early.contains(i));
        for (i, run) in early.into_iter().chain(late) {
            let mut run = run.map_err(|e| in_model(e, names[i]))?;
            run.mutual_loss += self.targets[i].entropy;
            runs[i] = Some(run);
        }
        if meeting.n_answered == n {
            return Ok(());
        }
        Err(Error::internal("the training passes did not ask for what they learn from"))
    }
}

/// Takes out the requests of the models that are next in `order`, as far as they are there.
fn next_in_order(waiting: &mut Vec<Request>, order: &[usize]) -> Vec<Request> {
    let next = |model: &usize| {
        let place = waiting.iter().position(|request| request.model == *model)?;
        Some(waiting.swap_remove(place))
    };
    order.iter().map_while(next).collect()
}
