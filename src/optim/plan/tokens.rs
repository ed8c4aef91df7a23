//! Rows of token tables that stand for the same token.
//!
//! Vocabularies differ, so a group has the rows of the tokens that some models have in common and
//! the others lack: with three models at most four groups.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::classify::RoleView;
use super::role::{Role, WeightOrBias};
use super::spec::ModelSpec;
use super::view::{View, matrix_shape};
use super::{Group, Member, Plan, role_views};

/// The token table of a model whose tokens are known.
struct Table<'m> {
    model: usize,
    param: usize,
    shape: [usize; 2],
    /// Rows by the text of their token; of several with one text the first.
    rows: HashMap<&'m str, u32>,
    texts: &'m [String],
}

impl<'m> Table<'m> {
    /// None where the model has no table to train, or its tokens are not known.
    fn of(model: usize, spec: &'m ModelSpec) -> Option<Self> {
        let texts = spec.tokens.as_deref()?;
        let param = *tables_of(spec).first()?;
        let found = &spec.params[param];
        let shape = matrix_shape(&found.shape);
        let texts = &texts[..texts.len().min(shape[0])];
        let mut rows = HashMap::new();
        for (row, text) in texts.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
            rows.entry(text.as_str()).or_insert(row as u32);
        }
        found.trainable.then_some(Self { model, param, shape, rows, texts })
    }

    /// The view of some rows; a slice where they follow each other.
    fn view(&self, rows: Vec<u32>) -> View {
        let first = rows[0];
        if rows.iter().zip(first..).all(|(&row, expected)| row == expected) {
            let slice = View::slice(&self.shape, 0, first as usize, rows.len());
            return slice.unwrap_or_else(|| View::of_rows(&self.shape, rows.into()));
        }
        View::of_rows(&self.shape, Arc::from(rows))
    }
}

impl Plan {
    /// Groups the rows of token tables of one width by their tokens.
    pub(super) fn by_token(&mut self, models: &[ModelSpec]) {
        let tables = models.iter().enumerate().filter_map(|(i, spec)| Table::of(i, spec));
        let tables: Vec<Table> = tables.collect();
        let widths: BTreeSet<usize> = tables.iter().map(|t| t.shape[1]).collect();
        for width in widths {
            let tables: Vec<&Table> = tables.iter().filter(|t| t.shape[1] == width).collect();
            for (which, rows) in common_rows(&tables) {
                let members = which.iter().zip(rows).map(|(&t, rows)| {
                    let Table { model, param, .. } = *tables[t];
                    Member { model, param, view: tables[t].view(rows) }
                });
                let members: Vec<Member> = members.collect();
                self.groups.push(Group {
                    name: format!("{} rows", Role::TokenEmbedding.name()),
                    slot: None,
                    shape: members[0].view.shape(),
                    members,
                    by_token: true,
                    reason: "same tokens; the mean of the gradients".to_owned(),
                });
            }
        }
        for table in &tables {
            let covers = |m: &Member| (m.model, m.param) == (table.model, table.param);
            if !self.groups.iter().flat_map(|g| &g.members).any(covers) {
                let view = View::whole(&table.shape);
                let why = "no other fresh model has one of its tokens in a table of this width";
                self.leave(table.model, table.param, view, why);
            }
        }
        for (model, spec) in models.iter().enumerate().filter(|(_, spec)| spec.tokens.is_some()) {
            let tables = tables_of(spec);
            for &param in tables.iter().skip(1).filter(|&&p| spec.params[p].trainable) {
                let (view, first) = (View::whole(&spec.params[param].shape), tables[0]);
                let why = format!("the model's tokens are the rows of {}", spec.params[first].name);
                self.leave(model, param, view, why);
            }
        }
    }
}

/// The token tables of a model, of which its tokens are the rows of the first.
fn tables_of(spec: &ModelSpec) -> Vec<usize> {
    let is_table = |v: &RoleView| v.role == Role::TokenEmbedding && v.part == WeightOrBias::Weight;
    role_views(spec).into_iter().filter(|(_, v)| is_table(v)).map(|(param, _)| param).collect()
}

/// For each set of tables that alone have some tokens in common, the rows of these in each of them.
fn common_rows(tables: &[&Table]) -> BTreeMap<Vec<usize>, Vec<Vec<u32>>> {
    let mut sets: BTreeMap<Vec<usize>, Vec<Vec<u32>>> = BTreeMap::new();
    for (t, table) in tables.iter().enumerate() {
        for (row, text) in table.texts.iter().enumerate() {
            let text = text.as_str();
            let is_first = table.rows.get(text) == Some(&(row as u32));
            if !is_first || tables[..t].iter().any(|earlier| earlier.rows.contains_key(text)) {
                continue;
            }
            let have = (t..tables.len()).filter_map(|i| Some((i, *tables[i].rows.get(text)?)));
            let (which, rows): (Vec<usize>, Vec<u32>) = have.unzip();
            if which.len() < 2 {
                continue;
            }
            let into = sets.entry(which).or_insert_with_key(|which| vec![Vec::new(); which.len()]);
            into.iter_mut().zip(rows).for_each(|(into, row)| into.push(row));
        }
    }
    sets
}
