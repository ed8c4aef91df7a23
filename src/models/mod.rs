//! Forward graphs of known architectures from their published configuration and weights.
//!
//! A [`Config`] and a [`Task`] decide the graph. Its parameters are initializers under their
//! state-dict names and in the published layout; everything else that is constant is a
//! `Constant` node, so the initializers are exactly what can be trained. *head*: what a task
//! puts on top of the model; a checkpoint of the bare model lacks it. *alias*: a second
//! state-dict name of one tensor.

mod attention;
mod builder;
mod built;
mod config;
mod directory;
mod encoder;
mod encoder_names;
mod gpt2;
mod heads;
mod init;
mod task;
mod values;

#[cfg(test)]
mod tests;

pub use built::{BuiltModel, LoadOptions, PaddingRow};
pub use config::{Activation, Architecture, Config, Sizes};
pub use directory::{load, save};
pub use init::uniform;
pub use task::Task;

use crate::checkpoint::weights::Weights;
use crate::error::{Error, Result};

/// Builds the graph of `config` for `task`, with `weights` where given and fresh parameters of
/// the architecture's own initialisation where not, seeded by `seed`.
///
/// # Errors
/// `InvalidData` for sizes that contradict each other or a body that the weights lack;
/// `Unsupported` for a task that the architecture has no head for; `Shape` for weights of another
/// shape; `NonFinite` for weights with NaN or infinity. Messages name the parameter.
pub fn build(
    config: &Config,
    task: Task,
    weights: Option<&Weights>,
    seed: u64,
) -> Result<BuiltModel> {
    build_with(config, task, weights, &LoadOptions { seed, ..LoadOptions::default() })
}

/// [`build`] with all options.
pub fn build_with(
    config: &Config,
    task: Task,
    weights: Option<&Weights>,
    options: &LoadOptions,
) -> Result<BuiltModel> {
    let mut config = config.clone();
    if let Some(rate) = options.dropout {
        config.set_dropout(rate);
    }
    // The head of another task is not this one's, even where names and shapes agree.
    let saved = config.default_task().ok();
    let other_head = saved.is_some_and(|saved| !saved.is_kind_of(task));
    let fresh_head = options.fresh_head || other_head;
    let named = if fresh_head { Vec::new() } else { config.labels.clone() };
    config.set_task(task);
    if !options.labels.is_empty() {
        config.set_labels(&options.labels)?;
        if weights.is_some() {
            check_order(&named, &options.labels)?;
        }
    } else if options.fresh_head && weights.is_some() {
        config.clear_labels();
    }
    config.check()?;
    let model = heads::forward_graph(&config, task, options.seed)?;
    let options = LoadOptions { fresh_head, ..options.clone() };
    values::fill(model, config, task, weights, &options)
}

/// Refuses the names of a trained head in another order: each would stand for another class.
fn check_order(trained: &[String], given: &[String]) -> Result<()> {
    let same = trained.len() == given.len() && given.iter().all(|name| trained.contains(name));
    if same && trained != given {
        return Err(Error::invalid(format!(
            "the label names {given:?} are those of the weights in another order, {trained:?}; \
             keep that order, or set fresh_head"
        )));
    }
    Ok(())
}
