//! Rows of token tables that fresh models have in common (the option `token_embeddings`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::views::RoleViews;
use crate::error::Result;
use crate::optim::{Options, Role, TokenEmbeddings, matrix_shape};
use crate::train::model::Model;
use crate::train::parameter::Parameter;

/// The row of a token in the first table of its width that has it.
struct First {
    model: usize,
    table: usize,
    row: usize,
}

/// Lets rows that stand for the same token start equal, as in the first model that has it, and the
/// optimizer know them. What else fresh models start from comes first.
pub(in crate::train) fn share_rows(options: &Options, models: &mut [Model]) -> Result<()> {
    if options.token_embeddings == TokenEmbeddings::Own {
        return Ok(());
    }
    // By the width of the table and the text of the token.
    let mut first: HashMap<(usize, String), First> = HashMap::new();
    for model in 0..models.len() {
        let Some((table, texts)) = table_of(&models[model]) else { continue };
        let (earlier, rest) = models.split_at_mut(model);
        let into = &mut rest[0].parameters[table];
        let [_, width] = matrix_shape(into.value.shape());
        let into = into.value.as_mut_slice::<f32>()?;
        // Of several rows with one text the first is the token's.
        let mut seen = HashSet::new();
        let rows = texts.iter().enumerate().filter(|(_, text)| !text.is_empty());
        for (row, text) in rows.filter(|(_, text)| seen.insert(text.as_str())) {
            let Some(known) = first.get(&(width, text.clone())) else {
                first.insert((width, text.clone()), First { model, table, row });
                continue;
            };
            let from = earlier[known.model].parameters[known.table].value.as_slice::<f32>()?;
            let from = &from[known.row * width..(known.row + 1) * width];
            into[row * width..(row + 1) * width].copy_from_slice(from);
        }
        rest[0].common_tokens = Some(texts);
    }
    Ok(())
}

/// The token table of a fresh model, and the texts of its rows; rows that stay zero have none.
fn table_of(model: &Model) -> Option<(usize, Arc<[String]>)> {
    let tokens = model.tokens.as_ref().filter(|_| model.is_fresh())?;
    let index = RoleViews::of(model).table(Role::TokenEmbedding)?;
    let Parameter { value, frozen_rows, trainable, .. } = &model.parameters[index];
    let [n_rows, width] = matrix_shape(value.shape());
    let mut texts = tokens.common_texts();
    texts.truncate(n_rows);
    for &row in frozen_rows {
        if let Some(text) = texts.get_mut(row) {
            text.clear();
        }
    }
    (*trainable && width > 0).then(|| (index, texts.into()))
}
