//! Batches: named tensors of the host, checked against a model before anything runs.

use std::collections::BTreeMap;

use crate::autodiff::LossKind;
use crate::error::{Error, Kind, Result};
use crate::onnx::{Dim, Graph, ValueId, show_dims};
use crate::tensor::{DType, Element, Tensor, element_count};

/// A borrowed tensor in host memory, dense and row-major, in the machine's byte order.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// Name of the model's input or of a label.
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: &'a [usize],
    /// `element_count(shape) * dtype.size()` bytes; any alignment.
    pub data: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// A view of a host tensor.
    pub fn of(name: &'a str, tensor: &'a Tensor) -> Self {
        Self { name, dtype: tensor.dtype(), shape: tensor.shape(), data: tensor.bytes() }
    }

    /// Elements as integers; `i64` only.
    pub(super) fn ints(&self) -> impl Iterator<Item = i64> + Clone + 'a {
        self.data.as_chunks::<8>().0.iter().map(|b| i64::from_ne_bytes(*b))
    }
}

/// i64 `[batch]`: a number for each example, the same for every model and in every epoch.
pub(super) const EXAMPLE_IDS: &str = "example_ids";
/// i64 `[batch, sequence]`: the word that a token belongs to, -1 for none. Token classification
/// has it at the first token of each word. Question answering has it at each token of the
/// context, counted from 1, and 0 at the token that stands for "no answer".
pub(super) const WORD_IDS: &str = "word_ids";
/// Words are counted in a table of this size at most.
const MAX_WORDS: i64 = 1 << 24;
/// i64 `[batch, sequence]`: which text of a pair a token is of. A model without this input does not
/// read it, so models may learn together on the vocabulary of one that does.
const TOKEN_TYPE_IDS: &str = "token_type_ids";

/// i64 `[batch]`: the batch repeats rows of another rank's, so that its rank has a pass, too; it
/// counts for nothing.
pub(super) const FILLER: &str = "filler";

/// One batch for one model: inputs and labels in any order.
pub type Batch<'a> = &'a [TensorView<'a>];

/// A model's inputs and labels, determined once when the model is read.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    inputs: Vec<Expected>,
    /// What the loss is for, in words.
    learns: &'static str,
    /// Whether it is a published model, whose dimensions have the names of the labels'.
    published: bool,
}

#[derive(Clone, Debug)]
struct Expected {
    name: String,
    dtype: DType,
    dims: Option<Vec<Dim>>,
    kind: InputKind,
    /// Whether it is an input of the model's own graph.
    own: bool,
    /// Ids must lie below this: rows of the table that the input indexes, and its name.
    table: Option<(usize, String)>,
    /// The second dimension must not exceed this: rows of the position table, and its name.
    positions: Option<(usize, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InputKind {
    Input,
    Label,
}

impl Signature {
    /// From a graph whose parameters are the inputs in `parameters`; `loss` adds labels;
    /// `max_positions` comes from a published configuration
    /// (a position table can have rows that no sequence reaches).
    pub fn new(
        graph: &Graph,
        parameters: &[ValueId],
        loss: &LossKind,
        max_positions: Option<usize>,
    ) -> Self {
        let tables = IdTables::new(graph);
        let positions = match max_positions {
            Some(n) => Some((n, "the position table".to_owned())),
            None => tables.positions.clone(),
        };
        let mut inputs: Vec<Expected> = graph
            .inputs()
            .iter()
            .filter(|v| !parameters.contains(v))
            .map(|&v| {
                let value = graph.value(v);
                let dims = value.ty.shape.clone();
                let is_ids = value.ty.dtype == Some(DType::I64)
                    && dims.as_ref().is_none_or(|d| d.len() == 2)
                    && tables.by_input.contains_key(&v);
                Expected {
                    name: value.name.clone(),
                    dtype: value.ty.dtype.unwrap_or(DType::F32),
                    dims,
                    kind: InputKind::Input,
                    own: true,
                    table: tables.by_input.get(&v).cloned(),
                    positions: if is_ids { positions.clone() } else { None },
                }
            })
            .collect();
        let lengths = ["batch", "sequence"].map(|name| Dim::Symbol(name.to_owned()));
        inputs.extend(labels(loss).into_iter().map(|(name, dtype, rank)| Expected {
            name,
            dtype,
            dims: rank.map(|r| lengths[..r.min(2)].to_vec()),
            kind: InputKind::Label,
            own: false,
            table: None,
            positions: None,
        }));
        Self { inputs, learns: learns(loss), published: max_positions.is_some() }
    }

    /// Marks inputs of the model's own graph as labels, which evaluation does not need.
    pub fn mark_labels(&mut self, names: &[String]) {
        let marked = self.inputs.iter_mut().filter(|e| names.contains(&e.name));
        marked.for_each(|e| e.kind = InputKind::Label);
    }

    /// Checks a batch. With `labels` every label is required; otherwise none or all may be there.
    /// Returns whether the batch has labels.
    pub fn check(&self, batch: Batch, labels: bool) -> Result<bool> {
        for (i, view) in batch.iter().enumerate() {
            if batch[..i].iter().any(|v| v.name == view.name) {
                return Err(Error::invalid(format!("'{}' is given twice", view.name)));
            }
            match self.inputs.iter().find(|e| e.name == view.name) {
                Some(expected) => expected.check(view).map_err(|e| self.of_labels(e, expected))?,
                None if check_extra(view)? => {}
                None => return Err(Error::not_found(self.unknown(view.name))),
            }
        }
        self.check_lengths(batch)?;
        let has = |e: &Expected| batch.iter().any(|v| v.name == e.name);
        let n_labels = self.inputs.iter().filter(|e| e.kind == InputKind::Label && has(e)).count();
        for expected in self.inputs.iter().filter(|e| !has(e)) {
            if expected.kind == InputKind::Input || labels || n_labels > 0 {
                return Err(Error::not_found(format!(
                    "{} '{}' ({}) is missing from the batch",
                    if expected.kind == InputKind::Label { "label" } else { "input" },
                    expected.name,
                    expected.dtype
                )));
            }
        }
        Ok(n_labels > 0)
    }

    /// Says what the model learns when its labels have the shape of another task's.
    fn of_labels(&self, error: Error, expected: &Expected) -> Error {
        if error.kind() != Kind::Shape || expected.own {
            return error;
        }
        let text = format!("{}; the model learns {}", error.message(), self.learns);
        Error::shape(text)
    }

    /// Dimensions of one name have one length in a batch, and a mask has its ids' shape.
    fn check_lengths(&self, batch: Batch) -> Result<()> {
        let mut seen: BTreeMap<&str, (usize, &TensorView)> = BTreeMap::new();
        for expected in self.inputs.iter().filter(|e| e.own || self.published) {
            let Some(view) = batch.iter().find(|v| v.name == expected.name) else { continue };
            let dims = expected.dims.as_deref().unwrap_or_default();
            for (dim, &n) in dims.iter().zip(view.shape) {
                let Dim::Symbol(symbol) = dim else { continue };
                let (length, first) = *seen.entry(symbol).or_insert((n, view));
                if length != n {
                    return Err(differ(
                        first,
                        view,
                        &format!("'{symbol}' must be the same in both"),
                    ));
                }
            }
        }
        // Exporters may leave dimensions without names. A mask also covers what is cached.
        let given = |name: &str| batch.iter().find(|v| v.name == name);
        let cached = self.inputs.iter().any(|e| e.name.contains("past"));
        match (given("input_ids"), given("attention_mask")) {
            (Some(ids), Some(mask))
                if !cached && mask.shape.len() == ids.shape.len() && mask.shape != ids.shape =>
            {
                Err(differ(ids, mask, "they must have one shape"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the loss takes labels.
    pub fn has_labels(&self) -> bool {
        self.inputs.iter().any(|e| e.kind == InputKind::Label)
    }

    /// Shapes of the labels that the loss adds, by name.
    pub fn label_shapes(&self, batch: Batch) -> BTreeMap<String, Vec<usize>> {
        let added = |v: &&TensorView| self.inputs.iter().any(|e| e.name == v.name && !e.own);
        batch.iter().filter(added).map(|v| (v.name.to_owned(), v.shape.to_vec())).collect()
    }

    /// Shapes of inputs and labels in a fixed order: the key of a session.
    pub fn key(&self, batch: Batch) -> Vec<Vec<usize>> {
        let shape = |e: &Expected| {
            batch.iter().find(|v| v.name == e.name).map(|v| v.shape.to_vec()).unwrap_or_default()
        };
        self.inputs.iter().map(shape).collect()
    }

    /// Shapes of the model's own inputs, by name.
    pub fn shapes(&self, batch: Batch) -> BTreeMap<String, Vec<usize>> {
        let own = |v: &&TensorView| self.inputs.iter().any(|e| e.name == v.name && e.own);
        batch.iter().filter(own).map(|v| (v.name.to_owned(), v.shape.to_vec())).collect()
    }

    fn unknown(&self, name: &str) -> String {
        let known: Vec<&str> = self.inputs.iter().map(|e| e.name.as_str()).collect();
        format!("the model has no input or label '{name}'; it takes {}", known.join(", "))
    }
}

impl Expected {
    fn check(&self, view: &TensorView) -> Result<()> {
        let name = &self.name;
        if view.dtype != self.dtype {
            return Err(Error::invalid(format!(
                "'{name}' must be {}, but is {}",
                self.dtype, view.dtype
            )));
        }
        if view.data.len() != element_count(view.shape)? * view.dtype.size() {
            return Err(Error::invalid(format!(
                "'{name}' has {} bytes, which is not {}{:?}",
                view.data.len(),
                view.dtype,
                view.shape
            )));
        }
        if view.shape.contains(&0) {
            return Err(Error::shape(format!("'{name}' is empty: shape {:?}", view.shape)));
        }
        if let Some(dims) = &self.dims {
            let fits = dims.len() == view.shape.len()
                && dims.iter().zip(view.shape).all(|(d, n)| !matches!(d, Dim::Known(k) if k != n));
            if !fits {
                return Err(Error::shape(format!(
                    "the batch's '{name}' must have shape {}, but has {:?}",
                    show_dims(dims),
                    view.shape
                )));
            }
        }
        self.check_ids(view)
    }

    fn check_ids(&self, view: &TensorView) -> Result<()> {
        let name = &self.name;
        if let (Some((rows, table)), DType::I64) = (&self.table, view.dtype)
            && let Some(id) = view.ints().find(|&id| id < 0 || id >= *rows as i64)
        {
            return Err(Error::invalid(format!(
                "'{name}' holds id {id}, but '{table}' has rows 0 to {}",
                rows - 1
            )));
        }
        if let (Some((rows, table)), Some(&length)) = (&self.positions, view.shape.get(1))
            && length > *rows
        {
            return Err(Error::shape(format!(
                "'{name}' has sequence length {length}, but {table} holds {rows} positions; \
                 truncate the text"
            )));
        }
        Ok(())
    }
}

fn differ(a: &TensorView, b: &TensorView, why: &str) -> Error {
    Error::shape(format!(
        "the batch's '{}' has shape {:?}, but '{}' has {:?}; {why}",
        a.name, a.shape, b.name, b.shape
    ))
}

/// Labels that a loss takes: name, dtype, rank where it is fixed.
pub(super) fn labels(loss: &LossKind) -> Vec<(String, DType, Option<usize>)> {
    let one = |rank| vec![("labels".to_owned(), DType::I64, Some(rank))];
    match loss {
        LossKind::SequenceClassification => one(1),
        LossKind::TokenClassification | LossKind::MaskedLm | LossKind::CausalLm => one(2),
        LossKind::QuestionAnswering => ["start_positions", "end_positions"]
            .map(|name| (name.to_owned(), DType::I64, Some(1)))
            .to_vec(),
        LossKind::MeanSquaredError => vec![("labels".to_owned(), DType::F32, None)],
        LossKind::Output(_) => Vec::new(),
    }
}

/// What a loss is for, in words.
pub(super) fn learns(loss: &LossKind) -> &'static str {
    match loss {
        LossKind::SequenceClassification => "sequence classification: one class for each text",
        LossKind::TokenClassification => "token classification: one class for each token",
        LossKind::QuestionAnswering => "question answering: where answers start and end",
        LossKind::MaskedLm => "masked language modelling: one id for each token",
        LossKind::CausalLm => "causal language modelling: one id for each token",
        LossKind::MeanSquaredError => "numbers by the mean squared error",
        LossKind::Output(_) => "by a loss of its own",
    }
}

/// Which lookup tables the graph's inputs index.
struct IdTables {
    by_input: BTreeMap<ValueId, (usize, String)>,
    positions: Option<(usize, String)>,
}

impl IdTables {
    fn new(graph: &Graph) -> Self {
        let producers = graph.producers();
        let mut found = Self { by_input: BTreeMap::new(), positions: None };
        for node in graph.nodes() {
            if node.op != "Gather" || node.int("axis").unwrap_or(0) != 0 {
                continue;
            }
            let (Some(table), Some(ids)) = (node.input(0), node.input(1)) else { continue };
            let table = Self::held(graph, &producers, table);
            let ty = &graph.value(table).ty;
            let Some([rows, _]) = ty
                .static_shape()
                .as_deref()
                .map(<[usize]>::to_vec)
                .as_deref()
                .and_then(|s| <[usize; 2]>::try_from(s).ok())
            else {
                continue;
            };
            if !ty.dtype.is_some_and(DType::is_float) || producers[table.index()].is_some() {
                continue;
            }
            let name = graph.value_name(table).to_owned();
            let source = Self::source(graph, &producers, ids);
            if graph.inputs().contains(&source) {
                found.by_input.insert(source, (rows, name));
            } else if name.contains("position") || name.contains("wpe") {
                found.positions = Some((rows, format!("'{name}'")));
            }
        }
        found
    }

    /// The parameter behind a table that is cast.
    fn held(
        graph: &Graph,
        producers: &[Option<(crate::onnx::NodeId, usize)>],
        table: ValueId,
    ) -> ValueId {
        let cast = producers[table.index()].map(|(id, _)| graph.node(id));
        cast.filter(|n| n.op == "Cast").and_then(|n| n.input(0)).unwrap_or(table)
    }

    fn source(
        graph: &Graph,
        producers: &[Option<(crate::onnx::NodeId, usize)>],
        mut value: ValueId,
    ) -> ValueId {
        while let Some((id, _)) = producers[value.index()] {
            let node = graph.node(id);
            match (node.op.as_str(), node.input(0)) {
                ("Cast" | "Identity" | "Reshape" | "Flatten", Some(v)) => value = v,
                _ => break,
            }
        }
        value
    }
}

/// Checks a tensor that any batch may carry though no model reads it; `false` for other names.
fn check_extra(view: &TensorView) -> Result<bool> {
    let rank = match view.name {
        EXAMPLE_IDS | FILLER => 1,
        WORD_IDS | TOKEN_TYPE_IDS => 2,
        _ => return Ok(false),
    };
    let fits = view.dtype == DType::I64
        && view.shape.len() == rank
        && view.data.len() == element_count(view.shape)? * view.dtype.size();
    if !fits {
        return Err(Error::shape(format!(
            "'{}' must be i64 of rank {rank}, but is {}{:?} of {} bytes",
            view.name,
            view.dtype,
            view.shape,
            view.data.len()
        )));
    }
    if view.name == WORD_IDS
        && let Some(bad) = view.ints().find(|w| !(-1..MAX_WORDS).contains(w))
    {
        return Err(Error::invalid(format!("'{WORD_IDS}' holds {bad}; -1 or more is expected")));
    }
    Ok(true)
}

/// Checks class labels against the number of classes; `ignore` is allowed.
pub(super) fn check_classes(view: &TensorView, n_classes: usize, ignore: i64) -> Result<()> {
    match view.ints().find(|&l| l != ignore && (l < 0 || l >= n_classes as i64)) {
        None => Ok(()),
        Some(label) => Err(Error::new(
            Kind::InvalidArgument,
            format!(
                "'{}' holds class {label}, but the model has classes 0 to {} ({ignore} is ignored)",
                view.name,
                n_classes - 1
            ),
        )),
    }
}

/// Copies a view into a tensor of the same dtype and shape.
pub(super) fn copy_into(view: &TensorView, tensor: &mut Tensor) -> Result<()> {
    let into = tensor.bytes_mut();
    if into.len() != view.data.len() {
        return Err(Error::internal(format!("'{}' changed its size", view.name)));
    }
    into.copy_from_slice(view.data);
    Ok(())
}

/// Elements of a tensor as `T` for reading results.
pub(super) fn elements<'a, T: Element>(tensor: &'a Tensor, what: &str) -> Result<&'a [T]> {
    tensor.as_slice::<T>().map_err(|e| e.context(what))
}
