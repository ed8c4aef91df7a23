//! Typed operator builders: each appends one node and records its output's type, so that shapes
//! are known while a graph is being written. The form that the model's opset asks for (axes as
//! an attribute or as an input, …) is chosen here and nowhere else.
//!
//! Builders need static shapes; a value without one is an error that names it.

use std::collections::HashMap;

use super::graph::{Attribute, Graph, ValueId, ValueType};
use super::tensor_data::TensorData;
use crate::error::{Context, Error, Result};
use crate::tensor::{DType, element_count};

/// Writes nodes into a graph and shares the constants they need.
pub struct Build<'g> {
    graph: &'g mut Graph,
    scalars: HashMap<(DType, u64), ValueId>,
    lists: HashMap<Vec<i64>, ValueId>,
}

/// The shape that NumPy's broadcasting gives for two shapes.
pub fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |j| s[j]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(Error::shape(format!("{a:?} and {b:?} do not broadcast"))),
        })
        .collect()
}

/// `axis` counted from the front; an error when it is out of `-rank..rank`.
pub fn positive_axis(axis: i64, rank: usize) -> Result<usize> {
    let rank_i = rank as i64;
    if axis < -rank_i || axis >= rank_i {
        return Err(Error::shape(format!("axis {axis} of a tensor of rank {rank}")));
    }
    Ok(if axis < 0 { axis + rank_i } else { axis } as usize)
}

/// An error for a shape whose nonzero sizes multiply to more than memory can hold. No product of
/// sizes of an accepted shape overflows.
pub fn check_size(shape: &[usize]) -> Result<()> {
    let nonzero = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
    let fits = nonzero.is_some_and(|n| n <= isize::MAX as usize / 8);
    if fits { Ok(()) } else { Err(Error::shape(format!("shape {shape:?} is too large"))) }
}

/// Most elements of a constant that is computed while a graph is written.
const MAX_CONSTANT: usize = 1 << 24;

/// An error for a constant of more elements than any real model needs: a shape that only the file
/// claims must not cost memory.
pub(crate) fn check_constant(n: usize) -> Result<()> {
    if n <= MAX_CONSTANT {
        return Ok(());
    }
    Err(Error::unsupported(format!("a constant of {n} elements, over {MAX_CONSTANT}")))
}

fn as_ints(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&d| d as i64).collect()
}

impl<'g> Build<'g> {
    /// A builder over `graph`.
    pub fn new(graph: &'g mut Graph) -> Self {
        Self { graph, scalars: HashMap::new(), lists: HashMap::new() }
    }

    /// The graph being written.
    pub fn graph(&self) -> &Graph {
        self.graph
    }

    /// The graph being written, writable.
    pub fn graph_mut(&mut self) -> &mut Graph {
        self.graph
    }

    /// A value's static shape.
    pub fn shape(&self, v: ValueId) -> Result<Vec<usize>> {
        let value = self.graph.value(v);
        let shape = value.ty.static_shape().ok_or_else(|| {
            Error::unsupported(format!(
                "the shape of '{}' is not known before running (it depends on data)",
                value.name
            ))
        })?;
        check_size(&shape).context(|| format!("value '{}'", value.name))?;
        Ok(shape)
    }

    /// A value's element type.
    pub fn dtype(&self, v: ValueId) -> Result<DType> {
        let value = self.graph.value(v);
        let unknown =
            || Error::unsupported(format!("the element type of '{}' is not known", value.name));
        value.ty.dtype.ok_or_else(unknown)
    }

    /// A value's rank.
    pub fn rank(&self, v: ValueId) -> Result<usize> {
        Ok(self.shape(v)?.len())
    }

    /// Appends `op` with one output of the given type.
    pub fn emit<const N: usize>(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        ty: (DType, &[usize]),
        attributes: [(&str, Attribute); N],
    ) -> ValueId {
        let y = self.graph.op(op, inputs, attributes);
        self.graph.set_type(y, ValueType::known(ty.0, ty.1));
        y
    }

    /// Appends `op` (inputs may be omitted) with one output for each type.
    pub fn emit_n<const N: usize>(
        &mut self,
        op: &str,
        inputs: &[Option<ValueId>],
        types: &[(DType, Vec<usize>)],
        attributes: [(&str, Attribute); N],
    ) -> Vec<ValueId> {
        let ys = self.graph.op_n(op, inputs, types.len(), attributes);
        for (&y, (dtype, shape)) in ys.iter().zip(types) {
            self.graph.set_type(y, ValueType::known(*dtype, shape));
        }
        ys
    }

    /// A constant.
    pub fn constant(&mut self, data: TensorData) -> Result<ValueId> {
        self.graph.add_initializer("", data)
    }

    /// A scalar constant of `dtype`; equal ones are shared.
    pub fn number(&mut self, dtype: DType, x: f64) -> Result<ValueId> {
        if let Some(&v) = self.scalars.get(&(dtype, x.to_bits())) {
            return Ok(v);
        }
        let v = self.constant(TensorData::scalar(dtype, x)?)?;
        self.scalars.insert((dtype, x.to_bits()), v);
        Ok(v)
    }

    /// A scalar constant of `v`'s element type.
    pub fn like(&mut self, v: ValueId, x: f64) -> Result<ValueId> {
        let dtype = self.dtype(v)?;
        self.number(dtype, x)
    }

    /// A 1-D int64 constant; equal ones are shared.
    pub fn ints(&mut self, data: &[i64]) -> Result<ValueId> {
        if let Some(&v) = self.lists.get(data) {
            return Ok(v);
        }
        let v = self.constant(TensorData::ints(data))?;
        self.lists.insert(data.to_vec(), v);
        Ok(v)
    }

    /// A tensor of `shape` filled with `x`, made by the runtime.
    pub fn full(&mut self, dtype: DType, shape: &[usize], x: f64) -> Result<ValueId> {
        element_count(shape)?;
        let dims = self.ints(&as_ints(shape))?;
        let value = TensorData::scalar(dtype, x)?.reshaped(&[1])?;
        let value = [("value", Attribute::Tensor(value))];
        Ok(self.emit("ConstantOfShape", &[dims], (dtype, shape), value))
    }

    /// Zeros of `dtype` and `shape`.
    pub fn zeros(&mut self, dtype: DType, shape: &[usize]) -> Result<ValueId> {
        self.full(dtype, shape, 0.0)
    }

    /// Zeros of `v`'s type.
    pub fn zeros_like(&mut self, v: ValueId) -> Result<ValueId> {
        let (dtype, shape) = (self.dtype(v)?, self.shape(v)?);
        self.zeros(dtype, &shape)
    }

    /// `op(x)`, of x's type.
    pub fn unary(&mut self, op: &str, x: ValueId) -> Result<ValueId> {
        let (dtype, shape) = (self.dtype(x)?, self.shape(x)?);
        Ok(self.emit(op, &[x], (dtype, &shape), []))
    }

    /// `op(a, b)` with broadcasting, of a's element type.
    pub fn binary(&mut self, op: &str, a: ValueId, b: ValueId) -> Result<ValueId> {
        let shape = broadcast(&self.shape(a)?, &self.shape(b)?)?;
        let dtype = self.dtype(a)?;
        Ok(self.emit(op, &[a, b], (dtype, &shape), []))
    }

    /// `a + b`
    pub fn add(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.binary("Add", a, b)
    }

    /// `a - b`
    pub fn sub(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.binary("Sub", a, b)
    }

    /// `a * b`
    pub fn mul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.binary("Mul", a, b)
    }

    /// `a / b`
    pub fn div(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.binary("Div", a, b)
    }

    /// `-x`
    pub fn neg(&mut self, x: ValueId) -> Result<ValueId> {
        self.unary("Neg", x)
    }

    /// `x * c`
    pub fn scale(&mut self, x: ValueId, c: f64) -> Result<ValueId> {
        if c == 1.0 {
            return Ok(x);
        }
        let c = self.like(x, c)?;
        self.mul(x, c)
    }

    /// `x + c`
    pub fn shift(&mut self, x: ValueId, c: f64) -> Result<ValueId> {
        let c = self.like(x, c)?;
        self.add(x, c)
    }

    /// `c - x`
    pub fn from_number(&mut self, c: f64, x: ValueId) -> Result<ValueId> {
        let c = self.like(x, c)?;
        self.sub(c, x)
    }

    /// `x * x`
    pub fn square(&mut self, x: ValueId) -> Result<ValueId> {
        self.mul(x, x)
    }

    /// `op(a, b)` as booleans: Equal, Less, Greater, …
    pub fn compare(&mut self, op: &str, a: ValueId, b: ValueId) -> Result<ValueId> {
        let shape = broadcast(&self.shape(a)?, &self.shape(b)?)?;
        Ok(self.emit(op, &[a, b], (DType::Bool, &shape), []))
    }

    /// `op(x, c)` as booleans.
    pub fn compare_number(&mut self, op: &str, x: ValueId, c: f64) -> Result<ValueId> {
        let c = self.like(x, c)?;
        self.compare(op, x, c)
    }

    /// Where `op(a, b)` holds 1, else 0, in a's element type.
    pub fn indicator(&mut self, op: &str, a: ValueId, b: ValueId) -> Result<ValueId> {
        let dtype = self.dtype(a)?;
        let mask = self.compare(op, a, b)?;
        self.cast(mask, dtype)
    }

    /// `mask ? a : b`
    pub fn select(&mut self, mask: ValueId, a: ValueId, b: ValueId) -> Result<ValueId> {
        let shape = broadcast(&self.shape(a)?, &self.shape(b)?)?;
        let shape = broadcast(&self.shape(mask)?, &shape)?;
        let dtype = self.dtype(a)?;
        Ok(self.emit("Where", &[mask, a, b], (dtype, &shape), []))
    }

    /// `mask ? a : 0`
    pub fn keep(&mut self, mask: ValueId, a: ValueId) -> Result<ValueId> {
        let zero = self.like(a, 0.0)?;
        self.select(mask, a, zero)
    }

    /// x in another element type.
    pub fn cast(&mut self, x: ValueId, dtype: DType) -> Result<ValueId> {
        if self.dtype(x)? == dtype {
            return Ok(x);
        }
        let shape = self.shape(x)?;
        let to = [("to", Attribute::Int(i64::from(dtype.onnx())))];
        Ok(self.emit("Cast", &[x], (dtype, &shape), to))
    }

    /// Matrix product of tensors of rank 2 or more, leading dimensions broadcast.
    pub fn matmul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        let (sa, sb) = (self.shape(a)?, self.shape(b)?);
        let ([batch_a @ .., m, k], [batch_b @ .., k2, n]) = (&sa[..], &sb[..]) else {
            return Err(Error::shape(format!("product of {sa:?} and {sb:?}")));
        };
        if k != k2 {
            return Err(Error::shape(format!("product of {sa:?} and {sb:?}")));
        }
        let mut shape = broadcast(batch_a, batch_b)?;
        shape.extend([*m, *n]);
        let dtype = self.dtype(a)?;
        Ok(self.emit("MatMul", &[a, b], (dtype, &shape), []))
    }

    /// `alpha * op(a) op(b)` of two matrices.
    pub fn gemm(
        &mut self,
        (a, trans_a): (ValueId, bool),
        (b, trans_b): (ValueId, bool),
        alpha: f32,
    ) -> Result<ValueId> {
        let (sa, sb) = (self.shape(a)?, self.shape(b)?);
        let (&[a0, a1], &[b0, b1]) = (&sa[..], &sb[..]) else {
            return Err(Error::shape(format!("product of {sa:?} and {sb:?}")));
        };
        let shape = [if trans_a { a1 } else { a0 }, if trans_b { b0 } else { b1 }];
        let dtype = self.dtype(a)?;
        let attributes = [
            ("alpha", Attribute::Float(alpha)),
            ("transA", Attribute::Int(trans_a.into())),
            ("transB", Attribute::Int(trans_b.into())),
        ];
        Ok(self.emit("Gemm", &[a, b], (dtype, &shape), attributes))
    }

    /// Dimensions reordered: output dimension i is input dimension `perm[i]`.
    pub fn transpose(&mut self, x: ValueId, perm: &[usize]) -> Result<ValueId> {
        let shape = self.shape(x)?;
        if perm.iter().enumerate().all(|(i, &p)| i == p) {
            return Ok(x);
        }
        let pick = |&p: &usize| {
            shape.get(p).copied().ok_or_else(|| Error::shape(format!("perm {perm:?} of {shape:?}")))
        };
        let out = perm.iter().map(pick).collect::<Result<Vec<_>>>()?;
        let dtype = self.dtype(x)?;
        let perm = [("perm", Attribute::Ints(as_ints(perm)))];
        Ok(self.emit("Transpose", &[x], (dtype, &out), perm))
    }

    /// The last two dimensions exchanged.
    pub fn transpose_last(&mut self, x: ValueId) -> Result<ValueId> {
        let rank = self.rank(x)?;
        if rank < 2 {
            return Err(Error::shape(format!("matrix transpose of rank {rank}")));
        }
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(rank - 1, rank - 2);
        self.transpose(x, &perm)
    }

    /// The same elements under another shape.
    pub fn reshape(&mut self, x: ValueId, shape: &[usize]) -> Result<ValueId> {
        let old = self.shape(x)?;
        if old == shape {
            return Ok(x);
        }
        if element_count(&old)? != element_count(shape)? {
            return Err(Error::shape(format!("{old:?} reshaped to {shape:?}")));
        }
        let dims = self.ints(&as_ints(shape))?;
        let dtype = self.dtype(x)?;
        if shape.contains(&0) {
            let zero = [("allowzero", Attribute::Int(1))];
            return Ok(self.emit("Reshape", &[x, dims], (dtype, shape), zero));
        }
        Ok(self.emit("Reshape", &[x, dims], (dtype, shape), []))
    }

    /// x repeated along dimensions of size 1 to `shape`.
    pub fn expand(&mut self, x: ValueId, shape: &[usize]) -> Result<ValueId> {
        let old = self.shape(x)?;
        if old == shape {
            return Ok(x);
        }
        if broadcast(&old, shape)? != shape {
            return Err(Error::shape(format!("{old:?} expanded to {shape:?}")));
        }
        let dims = self.ints(&as_ints(shape))?;
        let dtype = self.dtype(x)?;
        Ok(self.emit("Expand", &[x, dims], (dtype, shape), []))
    }
}
