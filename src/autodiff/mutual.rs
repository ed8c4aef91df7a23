//! Mutual learning: a model's predictions are drawn towards its peers' (Zhang et al. 2018).
//!
//! For logits z `[…, classes]` and the peers' mean probabilities p at temperature T, both seen as
//! n rows: `w · T² / n · Σ p (ln p - ln softmax(z / T))`, the divergence KL(p ‖ own). Only the part
//! that depends on z is written: `-w · T² / n · Σ p ln softmax(z / T)`, which has its gradient.

use crate::error::{Error, Result};
use crate::onnx::{Build, Graph, ValueId, ValueType};

/// Input with the peers' mean probabilities: the logits' shape and element type.
pub const PEERS_INPUT: &str = "mmopt.peers";
/// Input with the term's weight w, a scalar of the logits' element type; 0 switches it off.
pub const PEERS_WEIGHT_INPUT: &str = "mmopt.peers_weight";

/// Adds the term to `loss` and returns the sum; the graph gets the two inputs. Values need static
/// shapes.
///
/// # Errors
/// `InvalidArgument` for a temperature that is not positive; `Shape` for logits without classes.
pub fn attach_mutual(
    graph: &mut Graph,
    loss: ValueId,
    logits: ValueId,
    temperature: f64,
) -> Result<ValueId> {
    if !(temperature.is_finite() && temperature > 0.0) {
        return Err(Error::invalid(format!("mutual learning at temperature {temperature}")));
    }
    let mut g = Build::new(graph);
    let (dtype, shape) = (g.dtype(logits)?, g.shape(logits)?);
    let classes = shape.last().copied().filter(|&c| c > 0);
    let classes = classes.ok_or_else(|| Error::shape(format!("logits of shape {shape:?}")))?;
    let rows = shape.iter().product::<usize>() / classes;
    let peers = g.graph_mut().add_input(PEERS_INPUT, ValueType::known(dtype, &shape))?;
    let weight = g.graph_mut().add_input(PEERS_WEIGHT_INPUT, ValueType::known(dtype, &[]))?;
    let cooled = g.scale(logits, 1.0 / temperature)?;
    let logs = g.softmax("LogSoftmax", cooled, shape.len() - 1)?;
    let cross = g.mul(peers, logs)?;
    let all: Vec<usize> = (0..shape.len()).collect();
    let cross = g.reduce("ReduceSum", cross, &all, false)?;
    let cross = g.scale(cross, -temperature * temperature / rows.max(1) as f64)?;
    let term = g.mul(cross, weight)?;
    g.add(loss, term)
}
