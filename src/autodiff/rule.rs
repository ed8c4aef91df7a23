//! What a gradient rule sees: the node, the cotangents of its outputs, and a builder.

use crate::error::{Error, Result};
use crate::onnx::{Build, Node, NodeId, TensorData, ValueId, ValueType};
use crate::tensor::DType;

/// The context of one rule application.
pub struct RuleCx<'a, 'g> {
    g: &'a mut Build<'g>,
    id: NodeId,
    node: Node,
    dys: Vec<Option<ValueId>>,
    needs: Vec<bool>,
    grads: Vec<(usize, ValueId)>,
}

impl<'a, 'g> RuleCx<'a, 'g> {
    pub(super) fn new(
        g: &'a mut Build<'g>,
        id: NodeId,
        dys: Vec<Option<ValueId>>,
        needs: Vec<bool>,
    ) -> Self {
        let node = g.graph().node(id).clone();
        Self { g, id, node, dys, needs, grads: Vec::new() }
    }

    /// The gradients that the rule added, after a check that none is missing.
    pub(super) fn finish(self) -> Result<Vec<(ValueId, ValueId)>> {
        for (slot, _) in self.needs.iter().enumerate().filter(|(_, n)| **n) {
            if !self.grads.iter().any(|(s, _)| *s == slot) {
                return Err(Error::unsupported(format!("no gradient rule for its input {slot}")));
            }
        }
        Ok(self.grads.iter().filter_map(|&(s, d)| Some((self.node.input(s)?, d))).collect())
    }

    /// The node being differentiated.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The builder.
    pub fn g(&mut self) -> &mut Build<'g> {
        self.g
    }

    /// Input `i`; an error when it is missing.
    pub fn x(&self, i: usize) -> Result<ValueId> {
        self.node.input(i).ok_or_else(|| Error::data(format!("input {i} is missing")))
    }

    /// Output `i`; an error when it is missing.
    pub fn y(&self, i: usize) -> Result<ValueId> {
        self.node.output(i).ok_or_else(|| Error::data(format!("output {i} is missing")))
    }

    /// Cotangent of output 0, for rules that differentiate no other output.
    pub fn dy(&self) -> Result<ValueId> {
        if let Some(other) = (1..self.dys.len()).find(|&i| self.dys[i].is_some()) {
            return Err(Error::unsupported(format!("no gradient rule for its output {other}")));
        }
        self.dy_of(0).ok_or_else(|| Error::internal("a rule without a cotangent"))
    }

    /// Cotangent of output `i`, if the loss depends on it.
    pub fn dy_of(&self, i: usize) -> Option<ValueId> {
        self.dys.get(i).copied().flatten()
    }

    /// Whether input `i` wants a gradient.
    pub fn needs(&self, i: usize) -> bool {
        self.needs.get(i).copied().unwrap_or(false)
    }

    /// Adds the gradient of input `i` that `f` writes, summed back to the input's shape where it
    /// was broadcast; skipped when the input needs none.
    pub fn add_grad(
        &mut self,
        i: usize,
        f: impl FnOnce(&mut Build<'g>) -> Result<ValueId>,
    ) -> Result<()> {
        if !self.needs(i) {
            return Ok(());
        }
        let x = self.x(i)?;
        let dx = f(self.g)?;
        let shape = self.g.shape(x)?;
        let dx = self.g.sum_to(dx, &shape)?;
        self.grads.push((i, dx));
        Ok(())
    }

    /// Static shape of a value.
    pub fn shape(&self, v: ValueId) -> Result<Vec<usize>> {
        self.g.shape(v)
    }

    /// Static shape of input `i`.
    pub fn x_shape(&self, i: usize) -> Result<Vec<usize>> {
        self.g.shape(self.x(i)?)
    }

    /// The constant behind a value, if it is one.
    pub fn constant(&self, v: ValueId) -> Option<&TensorData> {
        self.g.graph().initializer(v)
    }

    /// The integers of constant input `i`; `None` when the input is omitted.
    pub fn ints(&self, i: usize) -> Result<Option<Vec<i64>>> {
        let Some(v) = self.node.input(i) else { return Ok(None) };
        let data = self.constant(v).ok_or_else(|| {
            let name = self.g.graph().value_name(v);
            Error::unsupported(format!("its input {i} ('{name}') is not a constant"))
        })?;
        data.to_i64s().map(Some)
    }

    /// The value of constant scalar input `i`; `None` when it is omitted or not constant.
    pub fn number(&self, i: usize) -> Option<f64> {
        let data = self.constant(self.node.input(i)?)?;
        if data.len() == 1 { data.to_f64s().ok()?.first().copied() } else { None }
    }

    /// Axes of a reduction, from the attribute or from input 1, counted from the front, sorted.
    /// No axes mean all, or none with `noop_with_empty_axes`.
    pub fn axes(&self) -> Result<Vec<usize>> {
        let axes = match self.node.ints("axes") {
            Some(axes) => Some(axes.to_vec()),
            None => self.ints(1)?,
        };
        if axes.as_ref().is_none_or(Vec::is_empty) {
            if self.node.int("noop_with_empty_axes") == Some(1) {
                return Ok(Vec::new());
            }
            return self.g.axes_or_all(self.x(0)?, None);
        }
        self.g.axes_or_all(self.x(0)?, axes.as_deref())
    }

    /// The attribute `axis` (`default` when absent), counted from the front of input 0.
    pub fn axis(&self, default: i64) -> Result<usize> {
        let rank = self.g.rank(self.x(0)?)?;
        crate::onnx::build::positive_axis(self.node.int("axis").unwrap_or(default), rank)
    }

    /// Output `slot` of the forward node, added to it with the given type if it has none.
    pub fn extra_output(&mut self, slot: usize, dtype: DType, shape: &[usize]) -> Result<ValueId> {
        if let Some(v) = self.node.output(slot) {
            return Ok(v);
        }
        let v = self.g.graph_mut().add_value("")?;
        self.g.graph_mut().set_type(v, ValueType::known(dtype, shape));
        let outputs = &mut self.g.graph_mut().node_mut(self.id).outputs;
        if outputs.len() <= slot {
            outputs.resize(slot + 1, None);
        }
        outputs[slot] = Some(v);
        self.node.outputs.clone_from(outputs);
        Ok(v)
    }
}
