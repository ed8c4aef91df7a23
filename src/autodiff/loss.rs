//! Losses in standard operators, attached to a forward graph, with PyTorch's semantics.
//!
//! Cross-entropy over rows with logits z, label y, weights w (default 1), smoothing ε and C
//! classes, p = softmax z; rows whose label is `ignore_index` are ignored:
//! `loss = Σᵢ [(1-ε) w(yᵢ) (-ln p(yᵢ)) + ε/C Σ_c w(c) (-ln p(c))] / Σᵢ w(yᵢ)`.
//! When every row is ignored the loss is 0 (PyTorch: NaN) and so are all gradients.

use std::collections::BTreeMap;

use crate::autodiff::fused;
use crate::error::{Context, Error, Result, count};
use crate::onnx::build::check_constant;
use crate::onnx::{Attribute, Build, Dim, Graph, TensorData, ValueId, ValueType, show_dims};
use crate::tensor::DType;

/// Names of the labels that losses add.
pub const LABELS: [&str; 3] = ["labels", "start_positions", "end_positions"];

/// What is trained for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossKind {
    /// Cross-entropy of logits `[batch, classes]` and labels `[batch]`.
    SequenceClassification,
    /// Cross-entropy of logits `[batch, sequence, classes]` and labels `[batch, sequence]`.
    TokenClassification,
    /// Next-token cross-entropy: logits `[batch, sequence, vocabulary]` at each position against
    /// the label of the next one; labels `[batch, sequence]`, usually the input ids.
    CausalLm,
    /// Cross-entropy like token classification, over the vocabulary.
    MaskedLm,
    /// Mean of two cross-entropies over the sequence: `start_logits` and `end_logits`
    /// `[batch, sequence]` (or one output `[batch, sequence, 2]`), labels `start_positions` and
    /// `end_positions` `[batch]`; positions beyond the sequence are ignored.
    QuestionAnswering,
    /// Mean squared difference of the output and float `labels` of its shape; with an output
    /// `[batch, 1]`, labels `[batch]`.
    MeanSquaredError,
    /// The model computes its loss itself: this output, a float with one element.
    Output(String),
}

/// A loss and its options.
#[derive(Clone, Debug, PartialEq)]
pub struct LossSpec {
    /// What is trained for.
    pub kind: LossKind,
    /// Share ε of the label's weight spread over all classes, `0 <= ε < 1`. Default 0.
    pub label_smoothing: f32,
    /// One weight for each class, `>= 0`. Default all 1.
    pub class_weights: Option<Vec<f32>>,
    /// Rows with this label are ignored. Default -100.
    pub ignore_index: i64,
    /// Name of the logits output (two names with a comma between for question answering).
    /// Default: `logits` (`start_logits`, `end_logits`), the model's only float output, or the only
    /// one whose shape fits the kind and the labels.
    pub logits: Option<String>,
}

impl LossSpec {
    /// That kind of loss with default options.
    pub fn new(kind: LossKind) -> Self {
        Self { kind, label_smoothing: 0.0, class_weights: None, ignore_index: -100, logits: None }
    }
}

/// What [`attach_loss`] added.
#[derive(Clone, Debug)]
pub struct AttachedLoss {
    /// The loss, a float scalar.
    pub loss: ValueId,
    /// The outputs it is computed from.
    pub logits: Vec<ValueId>,
    /// New graph inputs: `labels`, or `start_positions` and `end_positions`. Empty for
    /// [`LossKind::Output`].
    pub labels: Vec<ValueId>,
}

/// Appends the loss to a graph whose values have static shapes. Nothing changes on failure.
///
/// # Errors
/// `NotFound` when the logits are; `Shape` when they do not fit the kind; `InvalidArgument` for
/// options out of range.
pub fn attach_loss(graph: &mut Graph, spec: &LossSpec) -> Result<AttachedLoss> {
    attach_loss_to(graph, spec, &BTreeMap::new())
}

/// What can be said of a loss before a batch is there: its options, the outputs that it reads,
/// their ranks and the number of classes. Outputs of unknown shape are checked when it is attached.
///
/// # Errors
/// As [`attach_loss`].
pub fn check_loss(graph: &Graph, spec: &LossSpec) -> Result<()> {
    check_options(spec)?;
    let outputs = match find_logits(graph, spec, &BTreeMap::new()) {
        Ok(outputs) => outputs,
        // With labels one of several may fit.
        Err(_) if spec.logits.is_none() && !matches!(spec.kind, LossKind::Output(_)) => {
            return match (&spec.kind, float_outputs(graph).is_empty()) {
                (LossKind::QuestionAnswering, true) => Err(lacks_spans(graph)),
                (_, true) => Err(Error::not_found("the model has no float output")),
                _ => Ok(()),
            };
        }
        Err(e) => return Err(e),
    };
    let dims = |v: ValueId| graph.value(v).ty.shape.clone();
    let known: Vec<Vec<Dim>> = outputs.iter().filter_map(|&v| dims(v)).collect();
    let rank = match spec.kind {
        LossKind::Output(_) | LossKind::MeanSquaredError => return Ok(()),
        LossKind::SequenceClassification => 2,
        LossKind::QuestionAnswering => {
            let is_pair = |d: &Vec<Dim>| d.len() == 3 && !matches!(d[2], Dim::Known(n) if n != 2);
            let fits = match (&outputs[..], &known[..]) {
                ([_], [one]) => is_pair(one),
                (_, all) => all.iter().all(|d| d.len() == 2),
            };
            return if fits || known.is_empty() { Ok(()) } else { Err(lacks_spans(graph)) };
        }
        LossKind::TokenClassification | LossKind::MaskedLm | LossKind::CausalLm => 3,
    };
    let Some(dims) = known.first() else { return Ok(()) };
    if dims.len() != rank {
        return Err(Error::shape(format!(
            "{:?} needs logits with {rank} dimensions; '{}' has {}",
            spec.kind,
            graph.value_name(outputs[0]),
            show_dims(dims)
        )));
    }
    match (dims.last(), &spec.class_weights) {
        (Some(Dim::Known(classes)), Some(weights)) => check_class_weights(weights, *classes),
        _ => Ok(()),
    }
}

fn check_options(spec: &LossSpec) -> Result<()> {
    if !(0.0..1.0).contains(&spec.label_smoothing) {
        return Err(Error::invalid(format!(
            "label smoothing {} is not in 0..1",
            spec.label_smoothing
        )));
    }
    let bad = |w: &&f32| !w.is_finite() || **w < 0.0;
    match spec.class_weights.iter().flatten().find(bad) {
        Some(w) => Err(Error::invalid(format!("class weight {w} is not a number of at least 0"))),
        None => Ok(()),
    }
}

fn check_class_weights(weights: &[f32], classes: usize) -> Result<()> {
    if weights.len() == classes {
        return Ok(());
    }
    let given = count(weights.len(), "class weight");
    Err(Error::shape(format!("{given} given for {}", count(classes, "class"))))
}

/// Question answering without its outputs: what it needs, and what there is.
fn lacks_spans(graph: &Graph) -> Error {
    let shown = |&v: &ValueId| {
        let dims = graph.value(v).ty.shape.as_deref().map(show_dims).unwrap_or_default();
        format!("'{}' {dims}", graph.value_name(v)).trim_end().to_owned()
    };
    let there: Vec<String> = graph.outputs().iter().map(shown).collect();
    Error::not_found(format!(
        "question answering needs the outputs 'start_logits' and 'end_logits' [batch, sequence], \
         or one [batch, sequence, 2]; the model has {}",
        there.join(", ")
    ))
}

fn float_outputs(graph: &Graph) -> Vec<ValueId> {
    let is_float = |v: &&ValueId| graph.value(**v).ty.dtype.is_none_or(DType::is_float);
    graph.outputs().iter().filter(is_float).copied().collect()
}

/// As [`attach_loss`], with shapes of labels by name: of several outputs the logits are the one
/// that fits them.
///
/// # Errors
/// As [`attach_loss`].
pub fn attach_loss_to(
    graph: &mut Graph,
    spec: &LossSpec,
    labels: &BTreeMap<String, Vec<usize>>,
) -> Result<AttachedLoss> {
    let mut work = graph.clone();
    let attached =
        attach(&mut work, spec, labels).context(|| format!("model '{}': loss", graph.name))?;
    *graph = work;
    Ok(attached)
}

fn attach(
    graph: &mut Graph,
    spec: &LossSpec,
    labels: &BTreeMap<String, Vec<usize>>,
) -> Result<AttachedLoss> {
    check_options(spec)?;
    let outputs = find_logits(graph, spec, labels)?;
    let mut g = Build::new(graph);
    if let LossKind::Output(name) = &spec.kind {
        return model_loss(&mut g, name, outputs[0]);
    }
    for &v in &outputs {
        let dtype = g.dtype(v)?;
        if !matches!(dtype, DType::F32 | DType::F64) {
            let name = g.graph().value_name(v);
            return Err(Error::unsupported(format!(
                "'{name}' is of type {dtype}; losses need f32 or f64"
            )));
        }
    }
    match spec.kind {
        LossKind::QuestionAnswering => spans(&mut g, spec, outputs),
        LossKind::MeanSquaredError => squared_error(&mut g, outputs[0]),
        _ => classification(&mut g, spec, outputs[0]),
    }
}

fn find_logits(
    graph: &Graph,
    spec: &LossSpec,
    labels: &BTreeMap<String, Vec<usize>>,
) -> Result<Vec<ValueId>> {
    let names: Vec<&str> = graph.outputs().iter().map(|&v| graph.value_name(v)).collect();
    let output = |name: &str| {
        graph.find(name).filter(|v| graph.outputs().contains(v)).ok_or_else(|| {
            Error::not_found(format!(
                "the model has no output '{name}'; its outputs are {}",
                names.join(", ")
            ))
        })
    };
    if let LossKind::Output(name) = &spec.kind {
        return Ok(vec![output(name)?]);
    }
    if let Some(names) = &spec.logits {
        // A name may hold commas itself.
        let pair = |(at, _): (usize, &str)| {
            let (start, end) = (names[..at].trim(), names[at + 1..].trim());
            output(start).and_then(|start| Ok(vec![start, output(end)?])).ok()
        };
        let whole = output(names.trim()).map(|v| vec![v]);
        return whole.or_else(|e| names.match_indices(',').find_map(pair).ok_or(e));
    }
    if spec.kind == LossKind::QuestionAnswering
        && let (Ok(start), Ok(end)) = (output("start_logits"), output("end_logits"))
    {
        return Ok(vec![start, end]);
    }
    if let Ok(logits) = output("logits") {
        return Ok(vec![logits]);
    }
    let is_float = |v: &&ValueId| graph.value(**v).ty.dtype.is_some_and(DType::is_float);
    let floats: Vec<ValueId> = graph.outputs().iter().filter(is_float).copied().collect();
    let fitting = || -> Vec<ValueId> {
        floats.iter().copied().filter(|&v| fits(graph, v, &spec.kind, labels)).collect()
    };
    let several = if floats.len() > 1 { fitting() } else { Vec::new() };
    match floats[..] {
        [only] => Ok(vec![only]),
        [start, end] if spec.kind == LossKind::QuestionAnswering => Ok(vec![start, end]),
        _ if several.len() == 1 => Ok(several),
        _ => Err(Error::not_found(format!(
            "which output holds the logits? Name one of {}",
            names.join(", ")
        ))),
    }
}

/// Whether an output's shape is that of logits for the kind and for labels, as far as those are
/// known.
fn fits(
    graph: &Graph,
    output: ValueId,
    kind: &LossKind,
    labels: &BTreeMap<String, Vec<usize>>,
) -> bool {
    let Some(shape) = graph.value(output).ty.static_shape() else { return false };
    let agrees = |name: &str, lead: &[usize]| labels.get(name).is_none_or(|l| l == lead);
    match (kind, &shape[..]) {
        (LossKind::Output(_), _) => false,
        (LossKind::QuestionAnswering, [batch, _, 2]) => agrees("start_positions", &[*batch]),
        (LossKind::QuestionAnswering, _) => false,
        (LossKind::MeanSquaredError, [batch, 1]) => agrees("labels", &[*batch]),
        (LossKind::MeanSquaredError, all) => labels.contains_key("labels") && agrees("labels", all),
        (LossKind::SequenceClassification, [batch, _]) => agrees("labels", &[*batch]),
        (LossKind::SequenceClassification, _) => false,
        (_, [batch, length, _]) => agrees("labels", &[*batch, *length]),
        _ => false,
    }
}

fn model_loss(g: &mut Build, name: &str, loss: ValueId) -> Result<AttachedLoss> {
    if g.count(loss)? != 1 || !g.is_float(loss) {
        return Err(Error::shape(format!(
            "output '{name}' is no loss: it must be a float with one element, its shape is {:?}",
            g.shape(loss)?
        )));
    }
    let loss = g.reshape(loss, &[])?;
    Ok(AttachedLoss { loss, logits: Vec::new(), labels: Vec::new() })
}

fn classification(g: &mut Build, spec: &LossSpec, logits: ValueId) -> Result<AttachedLoss> {
    let shape = g.shape(logits)?;
    let rank = if spec.kind == LossKind::SequenceClassification { 2 } else { 3 };
    if shape.len() != rank {
        return Err(Error::shape(format!(
            "{:?} needs logits of rank {rank}; '{}' has shape {shape:?}",
            spec.kind,
            g.graph().value_name(logits)
        )));
    }
    let (lead, classes) = (&shape[..rank - 1], shape[rank - 1]);
    let labels = g.graph_mut().claim_input("labels", ValueType::known(DType::I64, lead))?;
    let targets = match spec.kind {
        LossKind::CausalLm => next_tokens(g, labels, spec.ignore_index)?,
        _ => labels,
    };
    let rows: usize = lead.iter().product();
    let z = g.reshape(logits, &[rows, classes])?;
    let y = g.reshape(targets, &[rows])?;
    let ignore = g.number(DType::I64, spec.ignore_index as f64)?;
    let ignored = g.compare("Equal", y, ignore)?;
    let loss = cross_entropy(g, spec, z, y, ignored)?;
    Ok(AttachedLoss { loss, logits: vec![logits], labels: vec![labels] })
}

/// Labels moved one position to the left, so that the logits need no cut; the last is ignored.
fn next_tokens(g: &mut Build, labels: ValueId, ignore: i64) -> Result<ValueId> {
    let shape = g.shape(labels)?;
    let &[batch, length] = &shape[..] else {
        return Err(Error::shape(format!("labels of shape {shape:?}")));
    };
    if length == 0 {
        return Ok(labels);
    }
    let rest = g.slice(labels, 1, (1, length))?;
    check_constant(batch)?;
    let last = TensorData::from_slice(&[batch, 1], &vec![ignore; batch])?;
    let last = g.constant(last)?;
    g.concat(&[rest, last], 1)
}

/// The formula above; `z` `[rows, classes]`, `y` `[rows]`, `ignored` `[rows]`.
fn cross_entropy(
    g: &mut Build,
    spec: &LossSpec,
    z: ValueId,
    y: ValueId,
    ignored: ValueId,
) -> Result<ValueId> {
    let (dtype, shape) = (g.dtype(z)?, g.shape(z)?);
    let &[rows, classes] = &shape[..] else { return Err(Error::internal("logits' rank")) };
    let weights = class_weights(g, spec, dtype, classes)?;
    let zero = g.number(DType::I64, 0.0)?;
    let safe = g.select(ignored, zero, y)?;
    let kept = g.emit("Not", &[ignored], (DType::Bool, &[rows]), []);
    let mut share = g.cast(kept, dtype)?;
    if let Some(w) = weights {
        let w = g.gather(w, safe, 0)?;
        share = g.mul(share, w)?;
    }
    // The fused operator smooths with equal weights only.
    let same = weights.is_none() || spec.label_smoothing == 0.0;
    let likelihood = if same && fused::allowed(g, z) {
        let rows = fused_rows(g, spec, z, y, ignored)?;
        g.mul(rows, share)?
    } else {
        let ln_p = g.softmax("LogSoftmax", z, 1)?;
        let at = g.reshape(safe, &[rows, 1])?;
        let picked = g.gather_elements(ln_p, at, 1)?;
        let picked = g.reshape(picked, &[rows])?;
        let own = g.mul(picked, share)?;
        smoothed(g, spec, own, (ln_p, weights, kept))?
    };
    let total = g.reduce("ReduceSum", likelihood, &[0], false)?;
    let count = g.reduce("ReduceSum", share, &[0], false)?;
    let none = g.compare_number("Equal", count, 0.0)?;
    let one = g.number(dtype, 1.0)?;
    let count = g.select(none, one, count)?;
    let mean = g.div(total, count)?;
    g.neg(mean)
}

/// (1-ε) ln p(y) + ε/C Σ_c ln p(c) of each row by the fused operator, unweighted.
fn fused_rows(
    g: &mut Build,
    spec: &LossSpec,
    z: ValueId,
    y: ValueId,
    ignored: ValueId,
) -> Result<ValueId> {
    const NONE: i64 = -100;
    let none = g.number(DType::I64, NONE as f64)?;
    let labels = g.select(ignored, none, y)?;
    let shape = g.shape(labels)?;
    let attributes = [
        ("ignore_index", Attribute::Int(NONE)),
        ("label_smoothing", Attribute::Float(spec.label_smoothing)),
    ];
    let rows = fused::emit(g, "CrossEntropy", &[z, labels], &[&shape, &shape], &attributes)?;
    g.neg(rows[0])
}

/// (1-ε) `own` + ε/C Σ_c w(c) ln p(c) of each row that is kept.
fn smoothed(
    g: &mut Build,
    spec: &LossSpec,
    own: ValueId,
    (ln_p, weights, kept): (ValueId, Option<ValueId>, ValueId),
) -> Result<ValueId> {
    let smoothing = f64::from(spec.label_smoothing);
    if smoothing == 0.0 {
        return Ok(own);
    }
    let weighted = match weights {
        Some(w) => g.mul(ln_p, w)?,
        None => ln_p,
    };
    let classes = g.shape(ln_p)?[1];
    let spread = g.reduce("ReduceSum", weighted, &[1], false)?;
    let dtype = g.dtype(ln_p)?;
    let mask = g.cast(kept, dtype)?;
    let spread = g.mul(spread, mask)?;
    let spread = g.scale(spread, smoothing / classes as f64)?;
    let own = g.scale(own, 1.0 - smoothing)?;
    g.add(own, spread)
}

fn class_weights(
    g: &mut Build,
    spec: &LossSpec,
    dtype: DType,
    classes: usize,
) -> Result<Option<ValueId>> {
    let Some(weights) = &spec.class_weights else { return Ok(None) };
    check_class_weights(weights, classes)?;
    let v = g.constant(TensorData::from_slice(&[classes], weights)?)?;
    g.cast(v, dtype).map(Some)
}

fn spans(g: &mut Build, spec: &LossSpec, mut outputs: Vec<ValueId>) -> Result<AttachedLoss> {
    let logits = outputs.clone();
    if let [both] = outputs[..] {
        let shape = g.shape(both)?;
        let &[batch, length, 2] = &shape[..] else {
            return Err(Error::shape(format!(
                "question answering needs logits [batch, sequence, 2], '{}' has {shape:?}",
                g.graph().value_name(both)
            )));
        };
        let parts = g.split(both, 2, &[1, 1])?;
        outputs = parts
            .into_iter()
            .map(|p| g.reshape(p, &[batch, length]))
            .collect::<Result<Vec<_>>>()?;
    }
    let mut labels = Vec::new();
    let mut losses = Vec::new();
    for (&z, name) in outputs.iter().zip(["start_positions", "end_positions"]) {
        let shape = g.shape(z)?;
        let &[batch, length] = &shape[..] else {
            return Err(Error::shape(format!(
                "question answering needs logits [batch, sequence], '{}' has {shape:?}",
                g.graph().value_name(z)
            )));
        };
        let y = g.graph_mut().claim_input(name, ValueType::known(DType::I64, &[batch]))?;
        labels.push(y);
        let before = g.compare_number("Less", y, 0.0)?;
        let beyond = g.compare_number("GreaterOrEqual", y, length as f64)?;
        let ignored = g.emit("Or", &[before, beyond], (DType::Bool, &[batch]), []);
        losses.push(cross_entropy(g, spec, z, y, ignored)?);
    }
    let sum = g.sum(&losses)?;
    let loss = g.scale(sum, 1.0 / losses.len() as f64)?;
    Ok(AttachedLoss { loss, logits, labels })
}

/// mean((output - labels)²)
fn squared_error(g: &mut Build, output: ValueId) -> Result<AttachedLoss> {
    let (dtype, shape) = (g.dtype(output)?, g.shape(output)?);
    let label_shape = match &shape[..] {
        [batch, 1] => vec![*batch],
        _ => shape,
    };
    let labels = g.graph_mut().claim_input("labels", ValueType::known(dtype, &label_shape))?;
    let flat = g.reshape(output, &label_shape)?;
    let difference = g.sub(flat, labels)?;
    let square = g.square(difference)?;
    let n = g.count(square)?.max(1);
    let axes: Vec<usize> = (0..label_shape.len()).collect();
    let sum = g.reduce("ReduceSum", square, &axes, false)?;
    let loss = g.scale(sum, 1.0 / n as f64)?;
    Ok(AttachedLoss { loss, logits: vec![output], labels: vec![labels] })
}
