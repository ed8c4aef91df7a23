//! `RNN`, `GRU` and `LSTM` as a `Scan` over the steps, one for each direction.
//!
//! *gates*: the inputs of a cell's activations, side by side, each as wide as the hidden state.
//! What they take from the sequence, `x Wᵀ + b`, is one product before the loop.

use super::rewrite::input;
use crate::error::{Context, Error, Result};
use crate::onnx::{Attribute, Build, Graph, Node, ValueId, ValueType};
use crate::tensor::DType;

/// The attributes that all three have, and those of one.
macro_rules! attributes {
    ($($own:literal),*) => {
        &[
            "activation_alpha",
            "activation_beta",
            "activations",
            "clip",
            "direction",
            "hidden_size",
            "layout",
            $($own),*
        ]
    };
}

pub(super) const OF_RNN: &[&str] = attributes!();
pub(super) const OF_GRU: &[&str] = attributes!("linear_before_reset");
pub(super) const OF_LSTM: &[&str] = attributes!("input_forget");

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rnn,
    Gru,
    Lstm,
}

impl Kind {
    /// Number of gates, and of activations.
    fn counts(self) -> (usize, usize) {
        match self {
            Self::Rnn => (1, 1),
            Self::Gru => (3, 2),
            Self::Lstm => (4, 3),
        }
    }

    fn default_activations(self) -> &'static [&'static str] {
        match self {
            Self::Rnn => &["Tanh"],
            Self::Gru => &["Sigmoid", "Tanh"],
            Self::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

/// A function of the standard's list.
#[derive(Clone, Debug)]
struct Activation {
    name: String,
    alpha: f32,
    beta: f32,
}

/// Shared by all directions.
struct Layer {
    kind: Kind,
    steps: usize,
    batch: usize,
    hidden: usize,
    dtype: DType,
    clip: Option<f32>,
    /// GRU: the reset gate is applied after the product. LSTM: the forget gate is 1 - input gate.
    variant: bool,
    /// Length of each sequence.
    lengths: Option<ValueId>,
}

pub(super) fn rnn(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    layer(g, node, Kind::Rnn)
}

pub(super) fn gru(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    layer(g, node, Kind::Gru)
}

pub(super) fn lstm(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    layer(g, node, Kind::Lstm)
}

fn layer(g: &mut Build, node: &Node, kind: Kind) -> Result<Option<Vec<ValueId>>> {
    if node.int("layout").unwrap_or(0) != 0 {
        return Err(Error::unsupported("no gradient rule with layout 1"));
    }
    let x = input(node, 0)?;
    let (sequence, recurrence) = (g.shape(x)?, g.shape(input(node, 2)?)?);
    let (&[steps, batch, _], &[directions, rows, hidden]) = (&sequence[..], &recurrence[..]) else {
        return Err(Error::shape(format!("sequences of {sequence:?}, weights {recurrence:?}")));
    };
    let (n_gates, _) = kind.counts();
    if rows != n_gates * hidden {
        return Err(Error::shape(format!(
            "{rows} rows of weights for {n_gates} gates of {hidden}"
        )));
    }
    let backward: &[bool] = match node.string("direction").unwrap_or("forward") {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => return Err(Error::data(format!("direction '{other}'"))),
    };
    if directions != backward.len() {
        return Err(Error::shape(format!("weights for {directions} directions")));
    }
    let variant = if kind == Kind::Gru { "linear_before_reset" } else { "input_forget" };
    let layer = Layer {
        kind,
        steps,
        batch,
        hidden,
        dtype: g.dtype(x)?,
        clip: node.float("clip"),
        variant: node.int(variant) == Some(1),
        lengths: node.input(4),
    };
    let activations = activations(node, kind, backward.len())?;
    let mut parts: [Vec<ValueId>; 3] = Default::default();
    for (d, (&backward, activations)) in backward.iter().zip(activations).enumerate() {
        let one = Direction::new(g, &layer, node, d)?;
        let outputs = one.run(g, &layer, x, backward, &activations)?;
        parts.iter_mut().zip(outputs).for_each(|(all, y)| all.push(y));
    }
    let [ys, h, c] = parts;
    let mut outputs = vec![g.concat(&ys, 1)?, g.concat(&h, 0)?];
    if kind == Kind::Lstm {
        outputs.push(g.concat(&c, 0)?);
    }
    Ok(Some(outputs))
}

/// The activations of each direction, with their parameters: a list of these holds values for the
/// functions that have one, in order.
fn activations(node: &Node, kind: Kind, directions: usize) -> Result<Vec<Vec<Activation>>> {
    let n = kind.counts().1;
    let given = match node.attributes.get("activations") {
        Some(Attribute::Strings(names)) => names.clone(),
        _ => kind
            .default_activations()
            .iter()
            .map(|s| (*s).to_owned())
            .cycle()
            .take(n * directions)
            .collect(),
    };
    if given.len() != n * directions {
        let text = format!("{} activations for {directions} directions", given.len());
        return Err(Error::data(text));
    }
    let list = |name: &str| match node.attributes.get(name) {
        Some(Attribute::Floats(values)) => values.clone(),
        _ => Vec::new(),
    };
    let (mut alphas, mut betas) =
        (list("activation_alpha").into_iter(), list("activation_beta").into_iter());
    let mut all = Vec::new();
    for name in given {
        let name = name.to_lowercase();
        // Defaults; the standard and runtimes differ on those that are None.
        let (alpha, beta): (&[Option<f32>], &[Option<f32>]) = match name.as_str() {
            "relu" | "sigmoid" | "softplus" | "softsign" | "tanh" => (&[], &[]),
            "affine" | "scaledtanh" => (&[None], &[None]),
            "elu" => (&[Some(1.0)], &[]),
            "hardsigmoid" => (&[Some(0.2)], &[Some(0.5)]),
            "leakyrelu" => (&[Some(0.01)], &[]),
            "thresholdedrelu" => (&[None], &[]),
            _ => {
                let text = format!("no gradient rule with the activation '{name}'");
                return Err(Error::unsupported(text));
            }
        };
        let pick = |given: &mut std::vec::IntoIter<f32>, of: &[Option<f32>], what: &str| {
            let Some(default) = of.first() else { return Ok(0.0) };
            given.next().or(*default).ok_or_else(|| {
                let text = format!("the activation '{name}' without activation_{what}");
                Error::unsupported(text)
            })
        };
        let alpha = pick(&mut alphas, alpha, "alpha")?;
        let beta = pick(&mut betas, beta, "beta")?;
        all.push(Activation { name, alpha, beta });
    }
    Ok(all.chunks(n).map(<[_]>::to_vec).collect())
}

impl Activation {
    fn of(&self, g: &mut Build, x: ValueId) -> Result<ValueId> {
        let (alpha, beta) = (f64::from(self.alpha), f64::from(self.beta));
        let op = match self.name.as_str() {
            "affine" => {
                let y = g.scale(x, alpha)?;
                return g.shift(y, beta);
            }
            "scaledtanh" => {
                let y = g.scale(x, beta)?;
                let y = g.unary("Tanh", y)?;
                return g.scale(y, alpha);
            }
            // The runtime's HardSigmoid is f32 alone.
            "hardsigmoid" => {
                let y = g.scale(x, alpha)?;
                let y = g.shift(y, beta)?;
                return clip(g, y, (0.0, 1.0));
            }
            "elu" => "Elu",
            "leakyrelu" => "LeakyRelu",
            "relu" => "Relu",
            "sigmoid" => "Sigmoid",
            "softplus" => "Softplus",
            "softsign" => "Softsign",
            "tanh" => "Tanh",
            _ => "ThresholdedRelu",
        };
        let ty = (g.dtype(x)?, &g.shape(x)?[..]);
        let alpha = ("alpha", Attribute::Float(self.alpha));
        Ok(match op {
            "HardSigmoid" => g.emit(op, &[x], ty, [alpha, ("beta", Attribute::Float(self.beta))]),
            "Elu" | "LeakyRelu" | "ThresholdedRelu" => g.emit(op, &[x], ty, [alpha]),
            _ => g.emit(op, &[x], ty, []),
        })
    }
}

fn clip(g: &mut Build, x: ValueId, (low, high): (f64, f64)) -> Result<ValueId> {
    let (low, high) = (g.like(x, low)?, g.like(x, high)?);
    let ty = (g.dtype(x)?, &g.shape(x)?[..]);
    Ok(g.emit("Clip", &[x, low, high], ty, []))
}

/// What one direction reads.
struct Direction {
    /// `Wᵀ`, `[inputs, gates]`.
    w: ValueId,
    /// `Rᵀ`, `[hidden, gates]`; in parts where gates need products of their own.
    r: Vec<ValueId>,
    /// Bias of the gates.
    bias: Option<ValueId>,
    /// Bias within the loop: of a GRU's candidate before the reset gate.
    inner_bias: Option<ValueId>,
    /// Weights from the cell to the input, output and forget gates.
    peepholes: Option<Vec<ValueId>>,
    /// Initial states.
    states: Vec<ValueId>,
}

impl Direction {
    fn new(g: &mut Build, layer: &Layer, node: &Node, d: usize) -> Result<Self> {
        let (n_gates, hidden) = (layer.kind.counts().0, layer.hidden);
        let part = |g: &mut Build, slot: usize| -> Result<Option<ValueId>> {
            let Some(v) = node.input(slot) else { return Ok(None) };
            let shape = g.shape(v)?;
            if shape.len() < 2 || d >= shape[0] {
                return Err(Error::shape(format!("input {slot} of {shape:?}")));
            }
            let v = g.slice(v, 0, (d, d + 1))?;
            g.reshape(v, &shape[1..]).map(Some)
        };
        let missing = |slot: usize| move || Error::data(format!("input {slot} is missing"));
        let w = part(g, 1)?.ok_or_else(missing(1))?;
        let w = g.transpose_last(w)?;
        let r = part(g, 2)?.ok_or_else(missing(2))?;
        let r = g.transpose_last(r)?;
        let whole = layer.kind != Kind::Gru || layer.variant;
        let r = if whole { vec![r] } else { g.split(r, 1, &[2 * hidden, hidden])? };
        let (mut bias, mut inner_bias) = (None, None);
        if let Some(b) = part(g, 3)? {
            let halves = g.split(b, 0, &[n_gates * hidden; 2])?;
            let mut recurrent = halves[1];
            if layer.kind == Kind::Gru && layer.variant {
                let parts = g.split(recurrent, 0, &[2 * hidden, hidden])?;
                recurrent = g.pad(parts[0], &[0], &[hidden as i64])?;
                inner_bias = Some(parts[1]);
            }
            bias = Some(g.add(halves[0], recurrent)?);
        }
        let n_states = if layer.kind == Kind::Lstm { 2 } else { 1 };
        let mut states = Vec::new();
        for slot in 5..5 + n_states {
            let zeros = |g: &mut Build| g.zeros(layer.dtype, &[layer.batch, hidden]);
            let given = part(g, slot)?;
            states.push(given.map_or_else(|| zeros(g), Ok)?);
        }
        let peepholes = match layer.kind {
            Kind::Lstm => part(g, 7)?.map(|p| g.split(p, 0, &[hidden; 3])).transpose()?,
            _ => None,
        };
        Ok(Self { w, r, bias, inner_bias, peepholes, states })
    }

    /// Hidden states of all steps `[steps, 1, batch, hidden]`, then the last of each state
    /// `[1, batch, hidden]`.
    fn run(
        &self,
        g: &mut Build,
        layer: &Layer,
        x: ValueId,
        backward: bool,
        activations: &[Activation],
    ) -> Result<Vec<ValueId>> {
        let (steps, batch, hidden) = (layer.steps, layer.batch, layer.hidden);
        // Sequences of different lengths turn around within their lengths.
        let lengths = layer.lengths.map(|v| g.cast(v, DType::I64)).transpose()?;
        let turned = lengths.filter(|_| backward);
        let x = turned.map_or(Ok(x), |lengths| turn(g, x, lengths))?;
        let width = g.shape(x)?[2];
        let rows = g.reshape(x, &[steps * batch, width])?;
        let mut gates = g.matmul(rows, self.w)?;
        if let Some(bias) = self.bias {
            gates = g.add(gates, bias)?;
        }
        let n_gates = layer.kind.counts().0;
        let gates = g.reshape(gates, &[steps, batch, n_gates * hidden])?;
        let mut scanned = vec![gates];
        if let Some(lengths) = lengths {
            let steps_at = g.positions(steps)?;
            let steps_at = g.reshape(steps_at, &[steps, 1, 1])?;
            let lengths = g.reshape(lengths, &[1, batch, 1])?;
            scanned.push(g.compare("Less", steps_at, lengths)?);
        }
        let body = self.body(g, layer, &scanned, activations).context(|| "cell")?;
        let inputs: Vec<Option<ValueId>> =
            self.states.iter().chain(&scanned).map(|&v| Some(v)).collect();
        let mut types = vec![(layer.dtype, vec![batch, hidden]); self.states.len()];
        types.push((layer.dtype, vec![steps, batch, hidden]));
        let from_end = i64::from(backward && turned.is_none());
        let attributes = [
            ("body", body),
            ("num_scan_inputs", Attribute::Int(scanned.len() as i64)),
            ("scan_input_directions", Attribute::Ints(vec![from_end; scanned.len()])),
            ("scan_output_directions", Attribute::Ints(vec![from_end])),
        ];
        let mut outputs = g.emit_n("Scan", &inputs, &types, attributes);
        let ys = outputs.pop().ok_or_else(|| Error::internal("a Scan without outputs"))?;
        let ys = turned.map_or(Ok(ys), |lengths| turn(g, ys, lengths))?;
        let mut parts = vec![g.reshape(ys, &[steps, 1, batch, hidden])?];
        for last in outputs {
            parts.push(g.reshape(last, &[1, batch, hidden])?);
        }
        Ok(parts)
    }

    /// The body: states, gates of this step and whether each sequence has it; then the new states
    /// and the hidden one again, 0 after the end of a sequence.
    fn body(
        &self,
        g: &mut Build,
        layer: &Layer,
        scanned: &[ValueId],
        activations: &[Activation],
    ) -> Result<Attribute> {
        let mut body = Graph::new("cell", g.graph().opset());
        let mut own = Vec::new();
        for (i, &v) in self.states.iter().chain(scanned).enumerate() {
            let shape = g.shape(v)?;
            let shape = if i < self.states.len() { &shape[..] } else { &shape[1..] };
            own.push(body.add_input(&format!("own_{i}"), ValueType::known(g.dtype(v)?, shape))?);
        }
        let mut captured = Vec::new();
        let mut capture = |body: &mut Graph, v: ValueId| {
            let name = g.graph().value_name(v).to_owned();
            captured.push(name.clone());
            body.add_input(&name, g.graph().value(v).ty.clone())
        };
        let mut inner = Vec::new();
        for &v in &self.r {
            inner.push(capture(&mut body, v)?);
        }
        let bias = self.inner_bias.map(|v| capture(&mut body, v)).transpose()?;
        let mut peepholes = Vec::new();
        for &v in self.peepholes.iter().flatten() {
            peepholes.push(capture(&mut body, v)?);
        }
        let mut b = Build::new(&mut body);
        let cell = Cell { layer, activations, r: &inner, bias, peepholes: &peepholes };
        let n = self.states.len();
        let made = match layer.kind {
            Kind::Rnn => vec![cell.rnn(&mut b, own[0], own[n])?],
            Kind::Gru => vec![cell.gru(&mut b, own[0], own[n])?],
            Kind::Lstm => cell.lstm(&mut b, (own[0], own[1]), own[n])?.to_vec(),
        };
        let mut outputs = Vec::new();
        let mut y = made[0];
        for (&new, &old) in made.iter().zip(&own) {
            let mask = own.get(n + 1);
            outputs.push(mask.map_or(Ok(new), |&mask| b.select(mask, new, old))?);
        }
        if let Some(&mask) = own.get(n + 1) {
            y = b.keep(mask, y)?;
        }
        outputs.push(b.unary("Identity", y)?);
        body.set_outputs(outputs);
        g.graph_mut().rename_apart(&mut body, &captured)?;
        Ok(Attribute::Graph(Box::new(body.to_body(&own, &captured))))
    }
}

/// Each sequence from its end to its start; what lies behind stays.
fn turn(g: &mut Build, x: ValueId, lengths: ValueId) -> Result<ValueId> {
    let ty = (g.dtype(x)?, &g.shape(x)?[..]);
    let attributes = [("batch_axis", Attribute::Int(1)), ("time_axis", Attribute::Int(0))];
    Ok(g.emit("ReverseSequence", &[x, lengths], ty, attributes))
}

/// One step, within the body.
struct Cell<'a> {
    layer: &'a Layer,
    activations: &'a [Activation],
    r: &'a [ValueId],
    bias: Option<ValueId>,
    peepholes: &'a [ValueId],
}

impl Cell<'_> {
    /// `activation(clip(x))`
    fn activate(&self, g: &mut Build, i: usize, x: ValueId) -> Result<ValueId> {
        let x = match self.layer.clip {
            None => x,
            Some(bound) => clip(g, x, (f64::from(-bound), f64::from(bound)))?,
        };
        self.activations[i].of(g, x)
    }

    fn add_product(&self, g: &mut Build, x: ValueId, h: ValueId, part: usize) -> Result<ValueId> {
        let product = g.matmul(h, self.r[part])?;
        g.add(x, product)
    }

    /// h' = f(x + h Rᵀ)
    fn rnn(&self, g: &mut Build, h: ValueId, x: ValueId) -> Result<ValueId> {
        let x = self.add_product(g, x, h, 0)?;
        self.activate(g, 0, x)
    }

    /// z, r = f(..), n = g(x + (r h) Rᵀ) or g(x + r (h Rᵀ + b)), h' = (1 - z) n + z h
    fn gru(&self, g: &mut Build, h: ValueId, x: ValueId) -> Result<ValueId> {
        let n = self.layer.hidden;
        let x = g.split(x, 1, &[2 * n, n])?;
        let (both, product) = if self.layer.variant {
            let product = g.matmul(h, self.r[0])?;
            let product = g.split(product, 1, &[2 * n, n])?;
            (g.add(x[0], product[0])?, Some(product[1]))
        } else {
            (self.add_product(g, x[0], h, 0)?, None)
        };
        let gates = self.activate(g, 0, both)?;
        let gates = g.split(gates, 1, &[n, n])?;
        let (z, reset) = (gates[0], gates[1]);
        let candidate = match product {
            Some(mut product) => {
                if let Some(bias) = self.bias {
                    product = g.add(product, bias)?;
                }
                let product = g.mul(reset, product)?;
                g.add(x[1], product)?
            }
            None => {
                let kept = g.mul(reset, h)?;
                self.add_product(g, x[1], kept, 1)?
            }
        };
        let candidate = self.activate(g, 1, candidate)?;
        let rest = g.from_number(1.0, z)?;
        let new = g.mul(rest, candidate)?;
        let old = g.mul(z, h)?;
        g.add(new, old)
    }

    /// i, o, f = f(..), c' = f c + i g(..), h' = o h(c'); with peepholes i and f see c, o sees c'
    fn lstm(&self, g: &mut Build, (h, c): (ValueId, ValueId), x: ValueId) -> Result<[ValueId; 2]> {
        let n = self.layer.hidden;
        let x = self.add_product(g, x, h, 0)?;
        let gates = g.split(x, 1, &[n; 4])?;
        let seen = |g: &mut Build, gate: usize, c: ValueId| match self.peepholes.get(gate) {
            None => Ok(gates[gate]),
            Some(&p) => {
                let seen = g.mul(c, p)?;
                g.add(gates[gate], seen)
            }
        };
        let i = seen(g, 0, c)?;
        let i = self.activate(g, 0, i)?;
        let f = if self.layer.variant {
            g.from_number(1.0, i)?
        } else {
            let f = seen(g, 2, c)?;
            self.activate(g, 0, f)?
        };
        let new = self.activate(g, 1, gates[3])?;
        let (kept, added) = (g.mul(f, c)?, g.mul(i, new)?);
        let c = g.add(kept, added)?;
        let o = seen(g, 1, c)?;
        let o = self.activate(g, 0, o)?;
        let out = self.activations[2].of(g, c)?;
        Ok([g.mul(o, out)?, c])
    }
}
