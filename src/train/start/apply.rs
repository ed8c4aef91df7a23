//! Gives fresh models their start, once, before anything else reads their parameters.

use ndarray::{Array2, ArrayView2};

use super::report::{StartReport, StartRows, StartedModel, StartedTable, StartedView};
use super::tokens::{RowSource, row_sources};
use super::views::{RoleViews, copy_view, is_body};
use super::width::Width;
use crate::error::{Error, Kind, Result};
use crate::optim::{Options, Role, Start};
use crate::train::model::Model;
#[cfg(feature = "text")]
use crate::train::{ModelOptions, Source};

/// Whether a trainer of these models looks at what their token ids stand for.
#[cfg(feature = "text")]
pub fn needs_tokens(options: &Options, models: &[ModelOptions]) -> bool {
    let is_drawn = |m: &ModelOptions| m.fresh_weights || matches!(m.source, Source::Config(_));
    match options.start {
        _ if options.token_embeddings != crate::optim::TokenEmbeddings::Own => true,
        Start::Pretrained => true,
        Start::Auto => models.iter().any(is_drawn) && !models.iter().all(is_drawn),
        Start::Own | Start::Aligned => false,
    }
}

/// Carries out the option `start`.
///
/// # Errors
/// `NotFound` or `InvalidArgument`, with the model, when there is not the one model with weights
/// that `pretrained` needs, or a vocabulary is unknown.
pub(in crate::train) fn apply(options: &Options, models: &mut [Model]) -> Result<StartReport> {
    let fresh: Vec<usize> = (0..models.len()).filter(|&i| models[i].is_fresh()).collect();
    let views: Vec<RoleViews> = match options.start {
        Start::Own => return Ok(StartReport::default()),
        _ => models.iter().map(RoleViews::of).collect(),
    };
    let mut start = Starter { models, views };
    let mut report = StartReport { start: options.start, ..StartReport::default() };
    let is_named = options.start_from.is_some();
    let is_mixed = !fresh.is_empty() && fresh.len() < start.models.len();
    if options.start == Start::Auto && !is_mixed && !is_named {
        return Ok(report);
    }
    if options.start == Start::Aligned {
        for (n, &target) in fresh.iter().enumerate() {
            report.models.push(start.align(&fresh[..n], target)?);
        }
        return Ok(report);
    }
    // What was asked for by name is not left out.
    let named = options.start_from.as_deref().map(|name| start.pretrained(Some(name), &fresh));
    let named = named.transpose()?;
    let plan = || -> Result<_> {
        let source = named.map_or_else(|| start.pretrained(None, &fresh), Ok)?;
        let maps = fresh.iter().map(|&target| start.token_rows(source, target));
        Ok((source, maps.collect::<Result<Vec<_>>>()?))
    };
    let (source, maps) = match plan() {
        Err(e) if options.start == Start::Auto && !is_named && e.kind() != Kind::OutOfMemory => {
            report.note = Some(e.message().to_owned());
            return Ok(report);
        }
        done => done?,
    };
    for (&target, map) in fresh.iter().zip(&maps) {
        report.models.push(start.take_over(source, target, map)?);
    }
    report.from = Some(start.models[source].name.clone());
    Ok(report)
}

struct Starter<'a> {
    models: &'a mut [Model],
    views: Vec<RoleViews>,
}

/// The source and the fresh model, and a table of each.
#[derive(Clone, Copy)]
struct Tables {
    role: Role,
    source: (usize, usize),
    target: (usize, usize),
}

/// Rows of a fresh table that change, and what they become.
struct Taken {
    rows: Vec<usize>,
    values: Array2<f64>,
}

impl Starter<'_> {
    /// The model that fresh ones start from.
    fn pretrained(&self, name: Option<&str>, fresh: &[usize]) -> Result<usize> {
        let names = |which: &[usize]| {
            let names = which.iter().map(|&i| format!("'{}'", self.models[i].name));
            names.collect::<Vec<_>>().join(", ")
        };
        if let Some(name) = name {
            let found = self.models.iter().position(|m| m.name == name).ok_or_else(|| {
                let all: Vec<usize> = (0..self.models.len()).collect();
                Error::not_found(format!(
                    "start_from: no model '{name}'; there are {}",
                    names(&all)
                ))
            })?;
            return match fresh.contains(&found) {
                false => Ok(found),
                true => Err(Error::invalid(format!(
                    "start_from: model '{name}' has no weights of its own; name one that was \
                     loaded with weights"
                ))),
            };
        }
        let loaded: Vec<usize> = (0..self.models.len()).filter(|i| !fresh.contains(i)).collect();
        match loaded[..] {
            [one] => Ok(one),
            [] => Err(Error::invalid(
                "start is pretrained, and no model was loaded with weights: load one from a \
                 directory with model.safetensors, or set start to aligned or own",
            )),
            _ => Err(Error::invalid(format!(
                "start is pretrained, and several models were loaded with weights ({}): name one \
                 in start_from",
                names(&loaded)
            ))),
        }
    }

    /// Where each row of a fresh token table comes from.
    fn token_rows(&self, source: usize, target: usize) -> Result<Vec<RowSource>> {
        let [rows, wanted] = [source, target].map(|i| self.n_rows(i, Role::TokenEmbedding));
        let (rows, wanted) = (rows?, wanted?);
        let (from, to) = (&self.models[source], &self.models[target]);
        if let (Some(a), Some(b)) = (&from.tokens, &to.tokens) {
            let mut map = row_sources(a, b);
            map.resize(wanted, RowSource::Fresh);
            return Ok(map);
        }
        if from.vocabulary.is_some() && from.vocabulary == to.vocabulary && rows == wanted {
            return Ok((0..rows).map(RowSource::Copied).collect());
        }
        let unknown = if from.tokens.is_none() { from } else { to };
        Err(Error::invalid(format!(
            "model '{}': start is pretrained, and its vocabulary is unknown; call \
             mmopt_model_set_tokenizer",
            unknown.name
        )))
    }

    /// Rows of a model's table; its vocabulary may not have more.
    fn n_rows(&self, model: usize, role: Role) -> Result<usize> {
        let one = &self.models[model];
        let table = self.views[model].table(role).ok_or_else(|| {
            Error::unsupported(format!(
                "model '{}': no parameter is known to be the token embedding, which start needs",
                one.name
            ))
        })?;
        let rows = one.parameters[table].value.shape()[0];
        match one.tokens.as_ref().map(|t| t.pieces.len()).filter(|&n| n > rows) {
            None => Ok(rows),
            Some(n) => Err(Error::shape(format!(
                "model '{}': its tokenizer has {n} ids, and its token embedding {rows} rows; give \
                 mmopt_model_set_tokenizer the tokenizer that belongs to it",
                one.name
            ))),
        }
    }

    /// Starts one fresh model from a model with weights.
    fn take_over(
        &mut self,
        source: usize,
        target: usize,
        map: &[RowSource],
    ) -> Result<StartedModel> {
        let mut started = self.started(target);
        let tables = self.tables(Role::TokenEmbedding, source, target);
        let Some(tables) = tables else { return Ok(started) };
        let Taken { rows, values } = self.rows(tables, map)?;
        let drawn = self.drawn(tables.target, &rows)?;
        let (width, values) = Width::of_tokens(values, self.columns(tables.target), drawn);
        started.tables.push(self.fill(tables, map, &Taken { rows, values })?);
        for role in [Role::PositionEmbedding, Role::TypeEmbedding] {
            let Some(tables) = self.tables(role, source, target) else { continue };
            if self.columns(tables.source) == self.columns_of_tokens(source)
                && self.columns(tables.target) == self.columns_of_tokens(target)
            {
                let map = self.numbered_rows(tables);
                let Taken { rows, values } = self.rows(tables, &map)?;
                let taken = Taken { rows, values: width.apply(values) };
                started.tables.push(self.fill(tables, &map, &taken)?);
            }
        }
        match self.why_no_body(source, target) {
            Some(why) => started.notes.push(why),
            None => started.views = self.copy_body(&[source], target)?,
        }
        Ok(started)
    }

    /// Starts a fresh model from those before it, where they have the same.
    fn align(&mut self, earlier: &[usize], target: usize) -> Result<StartedModel> {
        let mut started = self.started(target);
        for role in [Role::TokenEmbedding, Role::PositionEmbedding, Role::TypeEmbedding] {
            let mut sources = earlier.iter().filter_map(|&s| self.tables(role, s, target));
            let fits = |t: &Tables| {
                self.columns(t.source) == self.columns(t.target)
                    && (role != Role::TokenEmbedding || self.same_vocabulary(*t))
            };
            let first = sources.find(fits);
            if let Some(tables) = first {
                let map = self.numbered_rows(tables);
                let taken = self.rows(tables, &map)?;
                started.tables.push(self.fill(tables, &map, &taken)?);
            } else if role == Role::TokenEmbedding && !earlier.is_empty() {
                started.notes.push(
                    "its token embedding is as drawn: no fresh model before it is known to have \
                     the same vocabulary and width"
                        .to_owned(),
                );
            }
        }
        started.views = self.copy_body(earlier, target)?;
        Ok(started)
    }

    fn started(&self, model: usize) -> StartedModel {
        let model = self.models[model].name.clone();
        StartedModel { model, tables: Vec::new(), views: Vec::new(), notes: Vec::new() }
    }

    fn tables(&self, role: Role, source: usize, target: usize) -> Option<Tables> {
        let place = |model: usize| Some((model, self.views[model].table(role)?));
        Some(Tables { role, source: place(source)?, target: place(target)? })
    }

    fn shape(&self, (model, param): (usize, usize)) -> [usize; 2] {
        crate::optim::matrix_shape(self.models[model].parameters[param].value.shape())
    }

    fn columns(&self, place: (usize, usize)) -> usize {
        self.shape(place)[1]
    }

    fn columns_of_tokens(&self, model: usize) -> usize {
        let table = self.views[model].table(Role::TokenEmbedding);
        table.map_or(0, |param| self.columns((model, param)))
    }

    /// Whether rows of the same number stand for the same token.
    fn same_vocabulary(&self, tables: Tables) -> bool {
        let (a, b) = (&self.models[tables.source.0], &self.models[tables.target.0]);
        let named = a.vocabulary.is_some() && a.vocabulary == b.vocabulary;
        let equal = a.tokens.is_some() && a.tokens == b.tokens;
        (named || equal) && self.shape(tables.source) == self.shape(tables.target)
    }

    /// Rows by number: of positions, from the first that is used; of token types and, in one
    /// vocabulary, of tokens, from the first.
    fn numbered_rows(&self, tables: Tables) -> Vec<RowSource> {
        let first = |(model, _): (usize, usize)| match tables.role {
            Role::PositionEmbedding => self.models[model].first_position(),
            _ => 0,
        };
        let (from, to) = (first(tables.source), first(tables.target));
        let rows = self.shape(tables.source)[0];
        let row = |row: usize| {
            let found = row.checked_sub(to).map(|n| n + from).filter(|&n| n < rows);
            found.map_or(RowSource::Fresh, RowSource::Copied)
        };
        (0..self.shape(tables.target)[0]).map(row).collect()
    }

    /// What a fresh table takes from the source's.
    fn rows(&self, tables: Tables, map: &[RowSource]) -> Result<Taken> {
        let frozen = &self.models[tables.target.0].parameters[tables.target.1].frozen_rows;
        let source = &self.models[tables.source.0].parameters[tables.source.1].value;
        let [n, d] = self.shape(tables.source);
        let source = source.as_slice::<f32>()?;
        let of = |row: &usize| &source[row * d..(row + 1) * d];
        let (mut changed, mut values) = (Vec::new(), Vec::new());
        for (row, from) in map.iter().enumerate() {
            let from = match from {
                RowSource::Copied(one) => std::slice::from_ref(one),
                RowSource::Composed(several) => several,
                RowSource::Fresh => continue,
            };
            if frozen.contains(&row) || from.iter().any(|&f| f >= n) {
                continue;
            }
            changed.push(row);
            let begin = values.len();
            values.resize(begin + d, 0.0f64);
            for row in from.iter().map(of) {
                values[begin..].iter_mut().zip(row).for_each(|(v, &x)| *v += f64::from(x));
            }
            let n_from = from.len() as f64;
            values[begin..].iter_mut().for_each(|v| *v /= n_from);
        }
        let rows = Array2::from_shape_vec((changed.len(), d), values);
        let values = rows.map_err(|e| Error::internal(e.to_string()))?;
        Ok(Taken { rows: changed, values })
    }

    /// The root mean square of rows of a table, as they were drawn.
    fn drawn(&self, table: (usize, usize), rows: &[usize]) -> Result<f64> {
        let k = self.columns(table);
        let values = self.models[table.0].parameters[table.1].value.as_slice::<f32>()?;
        let drawn = rows.iter().flat_map(|row| &values[row * k..(row + 1) * k]);
        let sum: f64 = drawn.map(|&x| f64::from(x) * f64::from(x)).sum();
        Ok((sum / (rows.len() * k).max(1) as f64).sqrt())
    }

    /// Writes the rows of a fresh table.
    fn fill(&mut self, tables: Tables, map: &[RowSource], taken: &Taken) -> Result<StartedTable> {
        let widths = [self.columns(tables.source), self.columns(tables.target)];
        let [n_rows, _] = self.shape(tables.target);
        let target = &mut self.models[tables.target.0].parameters[tables.target.1];
        write_rows(
            target.value.as_mut_slice::<f32>()?,
            widths[1],
            &taken.rows,
            &taken.values.view(),
        );
        let is_composed = |row: &&usize| matches!(map[**row], RowSource::Composed(_));
        let composed = taken.rows.iter().filter(is_composed).count();
        let copied = taken.rows.len() - composed;
        let rows = StartRows { copied, composed, fresh: n_rows - taken.rows.len() };
        let from = self.models[tables.source.0].name.clone();
        Ok(StartedTable { role: tables.role, from, widths, rows })
    }

    /// Why the body of a pretrained model does not fit; `None` if it does.
    fn why_no_body(&self, source: usize, target: usize) -> Option<String> {
        let [a, b] = [source, target].map(|i| self.models[i].body_sizes());
        let from = &self.models[source].name;
        let Some(a) = a else {
            return Some(format!("its body is as drawn: '{from}' has no config.json"));
        };
        let b = b?;
        let names = ["hidden size", "attention heads", "intermediate size"];
        let mut differ = names.iter().zip(a.iter().zip(&b)).filter(|(_, (a, b))| a != b);
        differ
            .next()
            .map(|(name, (a, b))| format!("its body is as drawn: {name} {b}, that of '{from}' {a}"))
    }

    /// Copies what a fresh model has in common with the first of the sources that has it.
    fn copy_body(&mut self, sources: &[usize], target: usize) -> Result<Vec<StartedView>> {
        let mut copied = Vec::new();
        for (param, wanted) in self.views[target].iter().filter(|(_, v)| is_body(v.role)) {
            let found = sources.iter().find_map(|&source| {
                let view = self.views[source].counterpart(wanted, &self.views[target]);
                view.map(|found| (source, found))
            });
            let Some((source, (from, view))) = found else { continue };
            let (from, to) = ((source, *from, &view.view), (target, *param, &wanted.view));
            copy_view(self.models, from, to)?;
            copied.push(StartedView {
                role: wanted.role,
                part: wanted.part,
                block: wanted.block,
                from: self.models[source].name.clone(),
                from_block: view.block,
            });
        }
        Ok(copied)
    }
}

fn write_rows(table: &mut [f32], columns: usize, rows: &[usize], values: &ArrayView2<f64>) {
    for (&row, values) in rows.iter().zip(values.rows()) {
        let row = &mut table[row * columns..(row + 1) * columns];
        row.iter_mut().zip(values).for_each(|(x, &v)| *x = v as f32);
    }
}
