//! What ranks have each for themselves, brought to rank 0, of the first group, for a checkpoint:
//! weights and running means of the models that they train, and the moments that they have.

use serde::{Deserialize, Serialize};

use super::Ranks;
use super::exchange::{Call, Numbers};
use super::gathered::Gathered;
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::optim::Distribution;
use crate::tensor::{DType, Tensor};
use crate::train::model::Model;
use crate::train::trainer::Trainer;

#[derive(Clone, Copy, Serialize, Deserialize)]
enum What {
    /// Of a model and a parameter.
    Weight(usize, usize),
    Mean(usize, usize),
    /// Of the optimizer.
    State,
}

/// One tensor that is sent.
#[derive(Serialize, Deserialize)]
struct Head {
    what: What,
    name: String,
    is_bf16: bool,
    shape: Vec<usize>,
}

impl Trainer {
    /// Brings what other ranks have to rank 0, which gets it; nothing on others, and where all have
    /// all. All ranks call it, at a finished step.
    pub(in crate::train) fn gather_on_first(&self) -> Result<Gathered> {
        let mut gathered = Gathered::default();
        let Some(ranks) = &self.ranks else { return Ok(gathered) };
        if self.optimizer().distribution() == Distribution::None {
            return Ok(gathered);
        }
        let ready = self.check_finished().and_then(|()| self.own_tensors(ranks));
        let own = ready.inspect_err(|_| ranks.tell_failure(Call::Checkpoint))?;
        ranks.exchange(Call::Checkpoint, &vec![Numbers::default(); ranks.n_models])?;
        if ranks.group() > 0 {
            return Ok(gathered);
        }
        ranks.comm.with(|comm| {
            if ranks.rank() > 0 {
                return send(comm, &own);
            }
            for other in 1..ranks.size() {
                receive(comm, other, self.models(), &mut gathered)?;
            }
            Ok(())
        })?;
        Ok(gathered)
    }

    fn own_tensors(&self, ranks: &Ranks) -> Result<Vec<(Head, &[u8])>> {
        let mut all = Vec::new();
        let mut add = |what, name: &str, dtype, shape: &[usize], bytes| {
            let is_bf16 = dtype == DType::BF16;
            all.push((Head { what, name: name.to_owned(), is_bf16, shape: shape.to_vec() }, bytes));
        };
        let placed = ranks.is_placed();
        for (i, model) in self.models().iter().enumerate().filter(|(i, _)| placed && ranks.runs(*i))
        {
            for (j, p) in model.parameters.iter().enumerate() {
                let value = &p.value;
                add(What::Weight(i, j), &p.name, value.dtype(), value.shape(), value.bytes());
                let begun = self.ema.as_ref().is_some_and(|ema| ema.begun);
                if let Some(mean) = p.mean.as_ref().filter(|_| begun) {
                    add(What::Mean(i, j), &p.name, mean.dtype(), mean.shape(), mean.bytes());
                }
            }
        }
        for t in self.optimizer().state_tensors() {
            add(What::State, &t.name, t.dtype, t.shape, t.bytes);
        }
        Ok(all)
    }
}

fn send(comm: &mut Communicator, all: &[(Head, &[u8])]) -> Result<()> {
    let heads: Vec<&Head> = all.iter().map(|(head, _)| head).collect();
    let text = serde_json::to_vec(&heads).map_err(|e| Error::internal(e.to_string()))?;
    comm.send(&(text.len() as u64).to_le_bytes(), 0)?;
    comm.send(&text, 0)?;
    let there = all.iter().map(|(_, bytes)| *bytes).filter(|bytes| !bytes.is_empty());
    for bytes in there {
        comm.send(bytes, 0)?;
    }
    Ok(())
}

fn receive(
    comm: &mut Communicator,
    from: usize,
    models: &[Model],
    into: &mut Gathered,
) -> Result<()> {
    let mut length = [0; 8];
    comm.receive(&mut length, from)?;
    let length = usize::try_from(u64::from_le_bytes(length));
    let length = length.map_err(|_| Error::internal("a list of tensors without an end"))?;
    let mut text: Vec<u8> = crate::memory::zeros(length)?;
    comm.receive(&mut text, from)?;
    let heads: Vec<Head> =
        serde_json::from_slice(&text).map_err(|e| Error::internal(e.to_string()))?;
    for head in heads {
        let dtype = match head.what {
            What::Weight(i, j) | What::Mean(i, j) => {
                let p = models.get(i).and_then(|m| m.parameters.get(j));
                let p = p.filter(|p| p.value.shape() == head.shape);
                p.ok_or_else(|| Error::internal("a tensor of no parameter"))?.value.dtype()
            }
            What::State if head.is_bf16 => DType::BF16,
            What::State => DType::F32,
        };
        let mut tensor = Tensor::zeros(dtype, &head.shape)?;
        if !tensor.bytes().is_empty() {
            comm.receive(tensor.bytes_mut(), from)?;
        }
        match head.what {
            What::Weight(i, j) => drop(into.weights.insert((i, j), tensor)),
            What::Mean(i, j) => drop(into.means.insert((i, j), tensor)),
            What::State => into.state.push((head.name, tensor)),
        }
    }
    Ok(())
}
