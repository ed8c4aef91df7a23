//! One model at one shape: a session whose inputs and outputs are bound to memory that does not
//! move.
//!
//! Parameters are read, gradients written, in the model's own tensors: nothing is copied per
//! step but the batch. This file and the optimizer's binding are where addresses are handed out.

use crate::error::{Context, Error, Result};
use crate::runtime::{Binding, CancelToken, Device, Meter, Session, SessionOptions};
use crate::tensor::{DType, Tensor};
use crate::train::batch::{Batch, copy_into, elements};
use crate::train::graphs::PassMemory;
use crate::train::parameter::Parameter;

/// A graph ready for a session, and what its inputs and outputs are.
pub(in crate::train) struct GraphSpec<'a> {
    /// The encoded graph.
    pub bytes: &'a [u8],
    /// Inputs that the batch feeds: name, dtype, shape. Parameters may be among them.
    pub inputs: &'a [(String, DType, Vec<usize>)],
    /// Gradient outputs by parameter index.
    pub gradients: &'a [(usize, String)],
    /// The scalar loss, if the graph has one.
    pub loss: Option<&'a str>,
    /// The scalar term of mutual learning, if the graph has one.
    pub mutual: Option<&'a str>,
    /// Outputs that hold what a run made of parameters that are buffers, by parameter index.
    pub buffers: &'a [(usize, String)],
    /// Outputs that are read after a run: name, dtype, shape.
    pub outputs: &'a [(String, DType, Vec<usize>)],
    /// The working memory that a run takes, foreseen.
    pub memory: PassMemory,
}

/// A session over bound memory.
pub(in crate::train) struct BoundSession {
    // Dropped in this order: the first reads the second's inputs, both refer to the session.
    forward: Option<Binding>,
    binding: Binding,
    session: Session,
    loss: Option<String>,
    mutual: Option<String>,
    buffers: Vec<(usize, String)>,
    outputs: Vec<String>,
    /// The working memory that a run takes, foreseen.
    pub memory: PassMemory,
}

impl BoundSession {
    /// Opens the session and binds `parameters`, whose tensors must outlive it; `by_means` those
    /// running means that there are in place of the values.
    pub fn new(
        graph: &GraphSpec,
        parameters: &mut [Parameter],
        by_means: bool,
        options: &SessionOptions,
        (cancel_token, meter): (Option<&CancelToken>, &Meter),
    ) -> Result<Self> {
        let mut session = Session::from_bytes(graph.bytes, options)?;
        if let Some(cancel_token) = cancel_token {
            session.set_cancel_token(cancel_token.clone());
        }
        session.set_meter(meter.clone());
        let mut binding = session.bind()?;
        let wanted: Vec<String> = session.inputs().iter().map(|v| v.name.clone()).collect();
        for parameter in parameters.iter_mut().filter(|p| wanted.contains(&p.name)) {
            let value = match &mut parameter.mean {
                Some(mean) if by_means => mean,
                _ => &mut parameter.value,
            };
            if let Device::Cuda { id } = options.device {
                value.pin(id);
            }
            // SAFETY: the tensor belongs to the model, which drops its sessions before its
            // parameters and changes values only between runs (both need `&mut`).
            unsafe {
                let ptr = value.bytes().as_ptr();
                binding.bind_input_raw(&parameter.name, value.dtype(), value.shape(), ptr)
            }?;
        }
        for (index, output) in graph.gradients {
            let gradient = parameters[*index].gradient_mut()?;
            if let Device::Cuda { id } = options.device {
                gradient.pin(id);
            }
            let (dtype, shape) = (gradient.dtype(), gradient.shape().to_vec());
            // SAFETY: as above; each gradient is the output of one name only.
            unsafe {
                let ptr = gradient.bytes_mut().as_mut_ptr();
                binding.bind_output_raw(output, dtype, &shape, ptr)
            }?;
        }
        for (name, dtype, shape) in graph.inputs {
            if wanted.contains(name) && !parameters.iter().any(|p| p.name == *name) {
                binding.bind_input_owned(name, Tensor::zeros(*dtype, shape)?)?;
            }
        }
        for loss in [graph.loss, graph.mutual].into_iter().flatten() {
            binding.bind_output_owned(loss, Tensor::zeros(DType::F32, &[])?)?;
        }
        for (name, dtype, shape) in graph.outputs {
            binding.bind_output_owned(name, Tensor::zeros(*dtype, shape)?)?;
        }
        for (index, output) in graph.buffers {
            let value = &parameters[*index].value;
            binding.bind_output_owned(output, Tensor::zeros(value.dtype(), value.shape())?)?;
        }
        let buffers = graph.buffers.to_vec();
        let outputs = graph.outputs.iter().map(|(name, ..)| name.clone()).collect();
        let loss = graph.loss.map(str::to_owned);
        let mutual = graph.mutual.map(str::to_owned);
        let memory = graph.memory;
        Ok(Self { forward: None, binding, session, loss, mutual, buffers, outputs, memory })
    }

    /// Copies the batch in and runs. Names that the graph does not read are ignored.
    pub fn run(&mut self, batch: Batch) -> Result<()> {
        for view in batch {
            if let Ok(tensor) = self.binding.input_mut(view.name) {
                copy_into(view, tensor)?;
            }
        }
        self.binding.run(&mut self.session)
    }

    /// Copies of what the last run was fed, for [`BoundSession::put_back_inputs`].
    pub fn copy_inputs(&self) -> Result<Vec<Option<Tensor>>> {
        self.binding.copy_inputs()
    }

    /// Feeds again what [`BoundSession::copy_inputs`] gave.
    pub fn put_back_inputs(&mut self, saved: &[Option<Tensor>]) {
        self.binding.put_back_inputs(saved);
    }

    /// Moves the buffers on to what the last run made of them.
    pub fn copy_buffers(&self, parameters: &mut [Parameter]) -> Result<()> {
        for (index, output) in &self.buffers {
            let made = self.binding.output(output)?.bytes();
            parameters[*index].value.bytes_mut().copy_from_slice(made);
        }
        Ok(())
    }

    /// Which parameters are buffers that a run moves.
    pub fn buffers(&self) -> impl Iterator<Item = usize> + '_ {
        self.buffers.iter().map(|(index, _)| *index)
    }

    /// Sets an input that is not part of the batch.
    pub fn set_input(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let Ok(tensor) = self.binding.input_mut(name) else { return Ok(()) };
        if tensor.bytes().len() != bytes.len() {
            return Err(Error::internal(format!("input '{name}' has another size")));
        }
        tensor.bytes_mut().copy_from_slice(bytes);
        Ok(())
    }

    /// Zeroes an input that is not part of the batch. Names that there are not are ignored.
    pub fn clear_input(&mut self, name: &str) {
        if let Ok(tensor) = self.binding.input_mut(name) {
            tensor.bytes_mut().fill(0);
        }
    }

    /// The loss of the last batch with the parameters as they are now. Only the loss is bound, so
    /// nothing else is computed.
    pub fn recompute_loss(&mut self, parameters: &[Parameter]) -> Result<f64> {
        let Some(loss) = &self.loss else { return Ok(f64::NAN) };
        if self.forward.is_none() {
            let mut forward = self.session.bind()?;
            for input in self.session.inputs() {
                let tensor = match parameters.iter().find(|p| p.name == input.name) {
                    Some(parameter) => &parameter.value,
                    None => &*self.binding.input_mut(&input.name)?,
                };
                let ptr = tensor.bytes().as_ptr();
                // SAFETY: parameters outlive the sessions; the other inputs belong to `binding`,
                // which is dropped after `forward` and whose tensors are never replaced.
                unsafe {
                    forward.bind_input_raw(&input.name, tensor.dtype(), tensor.shape(), ptr)
                }?;
            }
            forward.bind_output_owned(loss, Tensor::zeros(DType::F32, &[])?)?;
            self.forward = Some(forward);
        }
        let forward = self.forward.as_mut().ok_or_else(|| Error::internal("no forward pass"))?;
        forward.run(&mut self.session)?;
        let first = elements::<f32>(forward.output(loss)?, "loss")?.first().copied();
        first.map(f64::from).ok_or_else(|| Error::internal("the loss has no value"))
    }

    /// The loss of the last run; NaN when the graph has none.
    pub fn loss(&self) -> Result<f64> {
        self.loss.as_deref().map_or(Ok(f64::NAN), |name| self.scalar(name))
    }

    /// Mutual learning's term in the last run; 0 when the graph has none.
    pub fn mutual(&self) -> Result<f64> {
        self.mutual.as_deref().map_or(Ok(0.0), |name| self.scalar(name))
    }

    fn scalar(&self, name: &str) -> Result<f64> {
        let tensor = self.binding.output(name).context(|| "loss")?;
        let first = elements::<f32>(tensor, "loss")?.first().copied();
        first.map(f64::from).ok_or_else(|| Error::internal("the loss has no value"))
    }

    /// An output of the last run, by position in the graph's list.
    pub fn output(&self, index: usize) -> Result<&Tensor> {
        self.binding.output(&self.outputs[index])
    }

    /// Number of readable outputs.
    pub fn n_outputs(&self) -> usize {
        self.outputs.len()
    }

    /// Name of an output.
    pub fn output_name(&self, index: usize) -> &str {
        &self.outputs[index]
    }
}
