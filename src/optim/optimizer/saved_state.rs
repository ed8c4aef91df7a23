//! What a resumed training needs beside the parameters: moments and partial sums as tensors,
//! everything else as JSON. Restoring it continues with the same bits.

use crate::error::{Context, Error, Result};
use crate::memory::{Gather, room};
use crate::optim::memory::param::{Missing, moment_dtype};
use crate::optim::optimizer::Optimizer;
use crate::optim::options::{NonFinite, Options};
use crate::optim::plan::spec::is_trainable;
use crate::optim::rates::schedule::PlateauState;
use crate::tensor::{DType, Tensor, first_negative, first_non_finite};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the JSON that [`Optimizer::state_json`] writes.
const VERSION: u32 = 1;
/// Counters beyond this are damage: whoever counts to it at all is not alive.
pub(crate) const MAX_COUNT: u64 = 1 << 53;
/// Micro-batches whose adaptive rates are still to be updated are one at most; older libraries may
/// have left some more.
const MAX_WAITING: u64 = 1 << 10;

/// A tensor of the state, borrowed.
#[derive(Clone, Debug)]
pub struct StateTensor<'a> {
    /// `model/parameter/kind`, kind one of `exp_avg`, `exp_avg_sq`, `max_exp_avg_sq`, `grad_sum`,
    /// `master` (the f32 values behind bf16 and f16 parameters).
    pub name: String,
    /// Element type: f32 or bf16.
    pub dtype: DType,
    /// The parameter's shape.
    pub shape: &'a [usize],
    /// Dense row-major bytes in the machine's order.
    pub bytes: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    step: u64,
    calls: u64,
    ended: u64,
    learning_rate: Exact,
    plateau: (Exact, Option<Exact>, u32),
    losses: Vec<Vec<Exact>>,
    rates: Vec<(Exact, Exact)>,
    refused_syncs: u64,
    models: Vec<ModelRecord>,
    /// The options as given to the optimizer, each as JSON; empty in states of older versions.
    #[serde(default)]
    options: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct ModelRecord {
    name: String,
    base_weight: Exact,
    weight: Exact,
    calls: u64,
    window: u32,
    /// Sum of the window's weights.
    weights: Option<Exact>,
    bad_loss: bool,
    skipped: u64,
    score: Option<Exact>,
    params: Vec<ParamRecord>,
}

#[derive(Serialize, Deserialize)]
struct ParamRecord {
    name: String,
    steps: u64,
    trainable: bool,
    summed: bool,
}

/// An f64 as text that reads back to the same bits, whatever the JSON library does.
#[derive(Clone, Copy)]
struct Exact(f64);

impl Serialize for Exact {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.serialize_str(&format!("{:?}", self.0))
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map(Exact).map_err(serde::de::Error::custom)
    }
}

const KINDS: [&str; 5] = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq", "grad_sum", "master"];

/// A tensor of a saved state: element type, shape, bytes.
pub type SavedTensor<'a> = (DType, &'a [usize], &'a [u8]);

impl Optimizer {
    /// Moments, partial sums and masters, to be written without copying.
    pub fn state_tensors(&self) -> Vec<StateTensor<'_>> {
        let mut out = Vec::new();
        for p in &self.params.states {
            let model = &self.models.states[p.model].spec;
            let sum = p.grad_sum.as_ref().filter(|_| p.has_grad_sum);
            let master = p.dense_value.as_ref().filter(|_| p.has_master());
            let v = p.v.as_ref().filter(|_| !p.muon);
            let all = [p.m.as_ref(), v, p.x.as_ref(), sum, master];
            for (tensor, kind) in all.into_iter().zip(KINDS) {
                if let Some(t) = tensor {
                    out.push(StateTensor {
                        name: format!("{}/{}/{kind}", model.name, model.params[p.index].name),
                        dtype: t.dtype(),
                        shape: t.shape(),
                        bytes: t.bytes(),
                    });
                }
            }
        }
        out
    }

    /// Counters, schedules, losses and weights.
    pub fn state_json(&self) -> Result<serde_json::Value> {
        let (losses, rates) = self.rates.adaptive.history();
        let models = self.models.states.iter().enumerate().map(|(i, m)| ModelRecord {
            name: m.spec.name.clone(),
            base_weight: Exact(m.base_weight),
            weight: Exact(m.weight),
            calls: m.micro_batches,
            window: m.accumulated,
            weights: Some(Exact(m.weight_sum)),
            bad_loss: m.non_finite_loss,
            skipped: m.skipped,
            score: m.score.map(Exact),
            params: self.params.states[self.models.first_param[i]..]
                .iter()
                .take(m.spec.params.len())
                .map(|p| ParamRecord {
                    name: m.spec.params[p.index].name.clone(),
                    steps: p.steps,
                    trainable: p.trainable,
                    summed: p.has_grad_sum,
                })
                .collect(),
        });
        let state = State {
            version: VERSION,
            step: self.step,
            calls: self.rates.micro_batches,
            ended: self.rates.ended,
            learning_rate: Exact(self.options.learning_rate),
            plateau: (
                Exact(self.rates.plateau.factor),
                self.rates.plateau.best.map(Exact),
                self.rates.plateau.waited,
            ),
            losses: losses.map(|l| l.iter().copied().map(Exact).collect()).collect(),
            rates: rates.map(|(a, b)| (Exact(a), Exact(b))).collect(),
            refused_syncs: self.sync.undone,
            models: models.collect(),
            options: option_texts(&self.given),
        };
        serde_json::to_value(state)
            .map_err(|e| Error::internal(format!("optimizer state: {e}")).with_source(e))
    }

    /// Restores a state into an optimizer with the same models and parameters (in any order of
    /// models), after [`Optimizer::bind`]. Where the host's narrow values are those of the saved
    /// step, their masters continue with the same bits; others replace their masters. `tensor`
    /// finds a tensor by its name. Everything is checked before anything changes. The options are
    /// those given to [`Optimizer::new`], but what is frozen comes from the state, and so does the
    /// base learning rate if the options of both name the same one (it may have been set since).
    /// [`Optimizer::changed_options`] lists where the options differ.
    pub fn load_state<'a>(
        &mut self,
        json: &serde_json::Value,
        tensor: &dyn Fn(&str) -> Option<SavedTensor<'a>>,
    ) -> Result<()> {
        let state: State = State::deserialize(json)
            .map_err(|e| Error::json(e).context("the optimizer's state"))?;
        self.check_state(&state)?;
        let fresh = self.read_tensors(&state, tensor)?;
        let records: Vec<&ParamRecord> = state.models.iter().flat_map(|m| &m.params).collect();
        let plan = self.plan_for(|i| records[i].trainable)?;
        let missing = self.missing_beside(&fresh, &records)?;
        for (m, r) in self.models.states.iter_mut().zip(&state.models) {
            (m.base_weight, m.weight) = (r.base_weight.0, r.weight.0);
            (m.micro_batches, m.accumulated, m.non_finite_loss) = (r.calls, r.window, r.bad_loss);
            m.weight_sum = r.weights.map_or(f64::from(r.window), |w| w.0);
            (m.skipped, m.score) = (r.skipped, r.score.map(|s| s.0));
            // Until the next step has looked at the moments.
            m.large = true;
        }
        for ((p, r), [m, v, x, sum, master]) in
            self.params.states.iter_mut().zip(records).zip(fresh)
        {
            (p.steps, p.has_grad_sum, p.trainable) = (r.steps, r.summed, r.trainable);
            self.models.states[p.model].spec.params[p.index].trainable = r.trainable;
            (p.m, p.x) = (m, x);
            p.v = v.or_else(|| p.v.take().filter(|_| p.muon));
            p.grad_sum = sum.or_else(|| p.grad_sum.take());
            p.dense_value = master.or_else(|| p.dense_value.take());
        }
        self.step = state.step;
        (self.rates.micro_batches, self.rates.ended) = (state.calls, state.ended);
        self.sync.undone = state.refused_syncs;
        self.changed_options = changes(&state.options, &option_texts(&self.given));
        if !self.changed_options.iter().any(|c| c.starts_with("learning_rate ")) {
            self.options.learning_rate = state.learning_rate.0;
        }
        let (factor, best, waited) = state.plateau;
        self.rates.plateau = PlateauState { factor: factor.0, best: best.map(|b| b.0), waited };
        let plain = |l: &Vec<Exact>| l.iter().map(|e| e.0).collect();
        self.rates.adaptive.restore(
            state.losses.iter().map(plain).collect(),
            state.rates.iter().map(|r| (r.0.0, r.1.0)).collect(),
        );
        for (i, missing) in missing.into_iter().enumerate() {
            self.params.take(i, missing);
        }
        self.params.list_copies();
        self.models.normalise_weights()?;
        self.take_plan(plan);
        let (step, micro_batches) = (self.step + 1, self.rates.micro_batches + 1);
        self.models.compute_rates(&self.options, &self.rates, step, micro_batches);
        Ok(())
    }

    /// Where the options differ from those of the state that was restored last, as
    /// `learning_rate was 0.00003 and is 0.001`.
    pub fn changed_options(&self) -> &[String] {
        &self.changed_options
    }

    /// Numbers that no training leaves behind are refused: some would only be noticed steps later.
    fn check_numbers(&self, state: &State) -> Result<()> {
        let count = |what: &str, n: u64| (what.to_owned(), n <= MAX_COUNT);
        let number = |what: &str, n: Exact| (what.to_owned(), n.0.is_finite());
        let size = |what: &str, n: Exact| (what.to_owned(), n.0.is_finite() && n.0 >= 0.0);
        let waiting = state.calls.checked_sub(state.ended);
        let (factor, best, _) = &state.plateau;
        let mut all = vec![
            count("step", state.step),
            count("calls", state.calls),
            ("ended".into(), waiting.is_some_and(|n| n <= MAX_WAITING)),
            size("learning_rate", state.learning_rate),
            size("plateau", *factor),
            number("plateau", best.unwrap_or(Exact(0.0))),
            count("refused_syncs", state.refused_syncs),
            ("losses".into(), state.losses.iter().flatten().all(|l| l.0.is_finite())),
            ("rates".into(), state.rates.iter().all(|(r, f)| r.0.is_finite() && f.0 >= 0.0)),
            ("rates".into(), state.rates.iter().all(|(_, f)| f.0.is_finite())),
        ];
        for m in &state.models {
            let of = |what: &str| format!("{what} of model '{}'", m.name);
            all.push(size(&of("base_weight"), m.base_weight));
            all.push(size(&of("weight"), m.weight));
            all.push(size(&of("weights"), m.weights.unwrap_or(Exact(0.0))));
            all.push(number(&of("score"), m.score.unwrap_or(Exact(0.0))));
            all.push((of("calls"), m.calls <= state.calls));
            all.push(count(&of("skipped"), m.skipped));
            all.extend(m.params.iter().map(|p| count(&of(&p.name), p.steps)));
        }
        let total: f64 = state.models.iter().map(|m| m.weight.0).sum();
        all.push(("weight of all models".into(), total > 0.0 && total.is_finite()));
        match all.iter().find(|(_, is_right)| !is_right) {
            None => Ok(()),
            Some((what, _)) => {
                Err(Error::data(format!("optimizer state: {what} is out of its range")))
            }
        }
    }

    fn check_state(&self, state: &State) -> Result<()> {
        if state.version != VERSION {
            return Err(Error::unsupported(format!(
                "optimizer state of version {}; this library reads {VERSION}",
                state.version
            )));
        }
        let ours: Vec<&str> = self.models.states.iter().map(|m| m.spec.name.as_str()).collect();
        let theirs: Vec<&str> = state.models.iter().map(|m| m.name.as_str()).collect();
        let n = ours.len();
        if ours != theirs || state.losses.len() != n || state.rates.len() != n {
            return Err(Error::data(format!(
                "optimizer state has the models {theirs:?}, this optimizer {ours:?}"
            )));
        }
        for (m, r) in self.models.states.iter().zip(&state.models) {
            let same = m.spec.params.len() == r.params.len()
                && m.spec.params.iter().zip(&r.params).all(|(p, q)| p.name == q.name);
            if !same {
                return Err(Error::data(format!(
                    "model '{}': the optimizer state has other parameters",
                    r.name
                )));
            }
            let trained = m.spec.params.iter().zip(&r.params).filter(|(_, q)| q.trainable);
            if let Some((p, _)) = trained.into_iter().find(|(p, _)| !is_trainable(p.dtype)) {
                return Err(Error::data(format!(
                    "model '{}': the optimizer state trains '{}', which is {} here",
                    r.name, p.name, p.dtype
                )));
            }
        }
        self.check_numbers(state)
    }

    /// What parameters need beside the tensors of a state.
    fn missing_beside(
        &self,
        found: &[[Option<Tensor>; KINDS.len()]],
        records: &[&ParamRecord],
    ) -> Result<Vec<Missing>> {
        let all = self.params.states.iter().zip(found).zip(records);
        all.map(|((p, [m, v, x, _, master]), r)| {
            let shape = &self.models.states[p.model].spec.params[p.index].shape;
            let v = v.is_some() || p.muon && p.v.is_some();
            let master = master.is_some() || p.dense_value.is_some();
            let present = [m.is_some(), v, x.is_some(), master];
            p.missing(&self.options, shape, &p.value, r.trainable, present)
        })
        .gathered_or_error()
    }

    /// The state's tensors of every parameter, checked.
    fn read_tensors<'a>(
        &self,
        state: &State,
        tensor: &dyn Fn(&str) -> Option<SavedTensor<'a>>,
    ) -> Result<Vec<[Option<Tensor>; KINDS.len()]>> {
        let mut out = room(self.params.states.len())?;
        for (p, r) in self.params.states.iter().zip(state.models.iter().flat_map(|m| &m.params)) {
            let model = &self.models.states[p.model].spec;
            let shape = &model.params[p.index].shape;
            let mut found = [const { None }; KINDS.len()];
            for (slot, kind) in found.iter_mut().zip(KINDS) {
                let name = format!("{}/{}/{kind}", model.name, r.name);
                if !p.state_here {
                    continue;
                }
                let Some((dtype, saved, bytes)) = tensor(&name) else { continue };
                if saved != shape.as_slice() {
                    let text = format!("'{name}' has shape {saved:?} instead of {shape:?}");
                    return Err(Error::data(text).context("optimizer state"));
                }
                if kind == "master" && !p.is_narrow() {
                    let text = format!("'{name}' belongs to values of another type");
                    return Err(Error::data(text).context("optimizer state"));
                }
                let wide = ["grad_sum", "master"].contains(&kind);
                let wanted = if wide { DType::F32 } else { moment_dtype(&self.options) };
                if dtype != wanted {
                    let text = format!("'{name}' is {dtype}, the options say {wanted}");
                    return Err(Error::data(text).context("optimizer state"));
                }
                // A partial sum may hold what its step will refuse.
                let any = kind == "grad_sum" || self.options.non_finite == NonFinite::Ignore;
                let bad = first_non_finite(dtype, bytes).filter(|_| !any);
                let square = ["exp_avg_sq", "max_exp_avg_sq"].contains(&kind) && !p.muon;
                let bad = bad.or_else(|| first_negative(dtype, bytes).filter(|_| square));
                if let Some(at) = bad {
                    let text = format!("'{name}' is out of its range at element {at}");
                    return Err(Error::data(text).context("optimizer state"));
                }
                *slot = Some(Tensor::from_bytes(dtype, shape, bytes).context(|| name)?);
            }
            // Before its first step a parameter may have no moments yet: they are zeros.
            let old = r.steps > 0;
            let v = old && p.v.is_some() && !p.muon;
            let present = [old && p.m.is_some(), v, old && p.x.is_some(), r.summed, p.has_master()];
            for ((wanted, slot), kind) in present.iter().zip(&found).zip(KINDS) {
                if *wanted && slot.is_none() {
                    let name = format!("{}/{}/{kind}", model.name, r.name);
                    return Err(Error::data(format!("optimizer state: '{name}' is missing")));
                }
            }
            out.push(found);
        }
        Ok(out)
    }
}

/// Every option that a result depends on, as JSON.
fn option_texts(options: &Options) -> BTreeMap<String, String> {
    let all = serde_json::to_value(options).unwrap_or_default();
    let all = all.as_object().into_iter().flatten();
    let without = ["n_threads", "instruction_set", "placement"];
    let counts = all.filter(|(name, _)| !without.contains(&name.as_str()));
    counts.map(|(name, value)| (name.clone(), value.to_string())).collect()
}

fn changes(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<String> {
    let both = old.iter().filter_map(|(name, was)| Some((name, was, new.get(name)?)));
    both.filter(|(_, was, is)| was != is)
        .map(|(name, was, is)| format!("{name} was {was} and is {is}"))
        .collect()
}
