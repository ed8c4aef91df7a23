//! Whether a model and what it is fed mean the same by a number.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::text::IdNames;
use crate::train::Trainer;

/// Refuses ids of another vocabulary than the model's, and labels in another order, where the model
/// knows its own. Ids that only one of the two has are not compared, nor other names of classes.
///
/// # Errors
/// `InvalidArgument`, with the model and the first id or class that differs.
pub(crate) fn check_names(trainer: &Trainer, model: usize, names: &IdNames) -> Result<()> {
    let name = trainer.model_name(model)?;
    if let Some(tokens) = trainer.tokens(model)? {
        let differ = |(own, given): (&String, &String)| own != given && !own.is_empty();
        let mut pairs = tokens.pieces.iter().zip(names.pieces.iter());
        if let Some(id) = pairs.position(differ) {
            return Err(Error::invalid(format!(
                "model '{name}': its vocabulary is another than the tokenizer's that made the \
                 tokens: id {id} is '{}' and '{}'; use the tokenizer of the model, and give \
                 tokenizers in the order of the models",
                tokens.pieces[id], names.pieces[id]
            )));
        }
    }
    let (own, given) = (trainer.label_names(model)?, &names.labels);
    let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    if own != &given[..] && own.len() == given.len() && set(own) == set(given) {
        let at = own.iter().zip(given).position(|(a, b)| a != b).unwrap_or_default();
        return Err(Error::invalid(format!(
            "model '{name}': its classes are in another order than the corpus's: class {at} is \
             '{}' and '{}'; read the corpus with the names of the model's classes",
            own[at], given[at]
        )));
    }
    Ok(())
}
