//! What is checked when models and memory come in.

use crate::error::{Error, Result};
use crate::optim::memory::strided::{Array, Place};
use crate::optim::optimizer::ParamState;
use crate::optim::options::{Method, Options, ParamGroup, Rule};
use crate::optim::plan::pattern::matches;
use crate::optim::plan::role::classify;
use crate::optim::plan::spec::{ModelSpec, ParamSpec};
use crate::tensor::{DType, element_count};

pub(in crate::optim) fn not_trainable(model: &str, param: &str, dtype: DType) -> Error {
    Error::unsupported(format!(
        "model '{model}', parameter '{param}' has element type {dtype}; only f32, bf16 and f16 \
         can be trained, freeze it"
    ))
}

/// Whether parameters of this type can be trained.
pub(in crate::optim) fn is_trainable(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::BF16 | DType::F16)
}

/// The models as plan and layout see them: lanes are f32 whatever the host's memory holds.
pub(in crate::optim) fn as_lanes(spec: &ModelSpec) -> ModelSpec {
    let mut spec = spec.clone();
    for p in spec.params.iter_mut().filter(|p| is_trainable(p.dtype)) {
        p.dtype = DType::F32;
    }
    spec
}

pub(in crate::optim) fn check_names(specs: &[ModelSpec]) -> Result<()> {
    if let Some(pair) = specs.windows(2).find(|w| w[0].name == w[1].name) {
        return Err(Error::invalid(format!("two models are named '{}'", pair[0].name)));
    }
    for spec in specs {
        let mut names: Vec<&str> = spec.params.iter().map(|p| p.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(Error::invalid(format!(
                "model '{}': two parameters are named '{}'",
                spec.name, pair[0]
            )));
        }
    }
    Ok(())
}

/// Applies the pattern groups to one parameter; writes `trainable` back to its spec.
pub(in crate::optim) fn admit_param(
    options: &Options,
    model: usize,
    index: usize,
    spec: &mut ModelSpec,
) -> Result<ParamState> {
    let p = &spec.params[index];
    let bare = options.decay_matrices_only && p.shape.len() < 2;
    let mut state = ParamState {
        model,
        index,
        len: element_count(&p.shape)?,
        trainable: p.trainable,
        lr_scale: 1.0,
        weight_decay: if bare { 0.0 } else { options.weight_decay },
        muon: false,
        steps: 0,
        m: None,
        v: None,
        x: None,
        sum: None,
        summed: false,
        value: Array::none(),
        gradient: Array::none(),
        packed: None,
        collected: None,
    };
    let hits = |g: &&ParamGroup| matches(&g.pattern, &p.name) && matches(&g.model, &spec.name);
    for group in options.groups.iter().filter(hits) {
        state.trainable = group.trainable.unwrap_or(state.trainable);
        state.lr_scale = group.lr_scale.unwrap_or(state.lr_scale);
        state.weight_decay = group.weight_decay.unwrap_or(state.weight_decay);
    }
    if state.trainable && !is_trainable(p.dtype) {
        return Err(not_trainable(&spec.name, &p.name, p.dtype));
    }
    let hidden = |p: &ParamSpec| {
        let placed = classify(p, 0);
        !placed.is_empty() && placed.iter().all(|p| p.role.is_hidden_matrix())
    };
    state.muon = options.method == Method::Muon && p.shape.len() == 2 && hidden(p);
    spec.params[index].trainable = state.trainable;
    Ok(state)
}

/// Checks where a parameter's values lie.
pub(in crate::optim) fn check_value(
    place: &Place,
    spec: &ParamSpec,
    trainable: bool,
) -> Result<Array> {
    if trainable && place.data.is_null() {
        return Err(Error::invalid("its value pointer is null"));
    }
    if place.dtype != spec.dtype {
        let (told, here) = (spec.dtype, place.dtype);
        return Err(Error::invalid(format!("its values are {here}, but were said to be {told}")));
    }
    Array::new(place, &spec.shape, "value")
}

/// Checks where a parameter's gradient lies.
pub(in crate::optim) fn check_gradient(place: &Place, spec: &ParamSpec) -> Result<Array> {
    if !is_trainable(place.dtype) {
        let text = format!("gradients of type {}; f32, bf16 and f16 are possible", place.dtype);
        return Err(Error::unsupported(text));
    }
    Array::new(place, &spec.shape, "gradient")
}

/// The influence matrix by model, row = influenced.
pub(in crate::optim) fn influence(rule: &Rule, specs: &[ModelSpec]) -> Result<Vec<f64>> {
    let Rule::Influence(entries) = rule else { return Ok(Vec::new()) };
    let n = specs.len();
    let mut matrix = vec![0.0; n * n];
    let find = |name: &str| {
        specs
            .iter()
            .position(|s| s.name == name)
            .ok_or_else(|| Error::not_found(format!("rule influence: no model is named '{name}'")))
    };
    for e in entries {
        let (to, from) = (find(&e.to)?, find(&e.from)?);
        if to == from || !(0.0..=1.0).contains(&e.amount) {
            return Err(Error::invalid(format!(
                "rule influence: '{}' from '{}' by {}: two models and an amount in [0, 1] needed",
                e.to, e.from, e.amount
            )));
        }
        matrix[to * n + from] = e.amount;
    }
    for (row, spec) in matrix.chunks(n.max(1)).zip(specs) {
        let total: f64 = row.iter().sum();
        if total > 1.0 + 1e-12 {
            return Err(Error::invalid(format!(
                "rule influence: the amounts for '{}' sum to {total}, more than 1",
                spec.name
            )));
        }
    }
    Ok(matrix)
}
