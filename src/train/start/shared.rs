//! Rows of token tables that fresh models have in common (the option `token_embeddings`).

use std::collections::{HashMap, HashSet};

use super::views::RoleViews;
use crate::error::Result;
use crate::optim::{Options, Role, TokenEmbeddings};
use crate::train::model::Model;

/// Lets rows that stand for the same token start equal, as in the first model that has it, and the
/// optimizer know them. What else fresh models start from comes first.
pub(in crate::train) fn share_rows(options: &Options, models: &mut [Model]) -> Result<()> {
    if options.token_embeddings == TokenEmbeddings::Own {
        return Ok(());
    }
    // By the width of the table and the text of the token: the row.
    let mut first: HashMap<(usize, String), Vec<f32>> = HashMap::new();
    for model in models {
        let Some(tokens) = model.tokens.clone().filter(|_| model.is_fresh()) else { continue };
        let Some(table) = RoleViews::of(model).table(Role::TokenEmbedding) else { continue };
        let table = &mut model.parameters[table];
        let [n_rows, width] = crate::optim::matrix_shape(table.value.shape());
        if !table.trainable || width == 0 {
            continue;
        }
        let mut texts = tokens.common_texts();
        texts.truncate(n_rows);
        for &row in &table.frozen_rows {
            if let Some(text) = texts.get_mut(row) {
                text.clear();
            }
        }
        let rows = table.value.as_mut_slice::<f32>()?.chunks_mut(width);
        // Of several rows with one text the first is the token's.
        let mut seen = HashSet::new();
        for (row, text) in rows.zip(&texts) {
            if text.is_empty() || !seen.insert(text.as_str()) {
                continue;
            }
            let known = first.entry((width, text.clone())).or_insert_with(|| row.to_vec());
            row.copy_from_slice(known);
        }
        model.common_tokens = Some(texts.into());
    }
    Ok(())
}
