//! Which matrices can have an adapter, and which are meant.
//!
//! *module*: the layer that a parameter belongs to, `encoder.layer.0.output.dense` of
//! `encoder.layer.0.output.dense.weight`.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::onnx::{Graph, NodeId, ValueId};
use crate::optim::{WeightLayout, matches as matches_glob};
use crate::tensor::DType;
use crate::train::graphs::GraphParameter;

/// Names that an error lists.
const SHOWN: usize = 16;

/// The matrix of a linear layer.
pub(super) struct Target {
    /// Name of the parameter.
    pub name: String,
    pub module: String,
    /// Inputs and outputs of the linear map.
    pub n_in: usize,
    pub n_out: usize,
    pub layout: WeightLayout,
    pub dtype: DType,
    /// The MatMul and Gemm nodes that read it.
    pub products: Vec<NodeId>,
}

/// Whether a pattern matches a parameter under one of its names.
pub(in crate::train) type NameMatch<'a> = &'a dyn Fn(&str, &str) -> bool;

/// The module of a parameter; the whole name where it does not end in `.weight` or `.bias`.
pub(super) fn module_of(parameter: &str) -> &str {
    let ends = [".weight", ".bias"];
    ends.iter().find_map(|end| parameter.strip_suffix(end)).unwrap_or(parameter)
}

/// The matrices that nothing but products read, as their second factor and all the same way.
pub(super) fn find_targets(graph: &Graph, found: &[GraphParameter]) -> Vec<Target> {
    let consumers = graph.consumers();
    let matrices = found.iter().filter(|p| {
        let is_float = matches!(p.dtype, DType::F32 | DType::F64);
        p.fixed.is_none() && is_float
    });
    let target = |p: &GraphParameter| {
        let &[rows, columns] = &p.shape[..] else { return None };
        let (products, layout) = products_of(graph, &consumers, p.value)?;
        let (n_in, n_out) = match layout {
            WeightLayout::OutIn => (columns, rows),
            WeightLayout::InOut => (rows, columns),
        };
        let (dtype, name) = (p.dtype, p.name.clone());
        let module = module_of(&name).to_owned();
        Some(Target { name, module, n_in, n_out, layout, dtype, products })
    };
    matrices.filter_map(target).collect()
}

/// The products that read a matrix, itself or transposed; `None` where something else reads it.
fn products_of(
    graph: &Graph,
    consumers: &[Vec<(NodeId, usize)>],
    matrix: ValueId,
) -> Option<(Vec<NodeId>, WeightLayout)> {
    let (mut products, mut layout) = (Vec::new(), None);
    let mut todo = vec![(matrix, false)];
    while let Some((v, transposed)) = todo.pop() {
        if graph.outputs().contains(&v) {
            return None;
        }
        for &(id, slot) in &consumers[v.index()] {
            let node = graph.node(id);
            let swaps = || node.ints("perm").is_none_or(|p| p == [1, 0]);
            match (node.domain.as_str(), node.op.as_str(), slot) {
                ("", "Transpose", 0) if swaps() => todo.push((node.output(0)?, !transposed)),
                ("", "Identity", 0) => todo.push((node.output(0)?, transposed)),
                ("", "MatMul" | "Gemm", 1) => {
                    let out_in = transposed != (node.int("transB").unwrap_or(0) != 0);
                    let way = if out_in { WeightLayout::OutIn } else { WeightLayout::InOut };
                    if layout.is_some_and(|other| other != way) {
                        return None;
                    }
                    layout = Some(way);
                    products.push(id);
                }
                _ => return None,
            }
        }
    }
    products.sort_unstable();
    layout.map(|layout| (products, layout))
}

/// Whether a pattern names a module, as a whole, by its last parts, or as a glob.
fn names_module(pattern: &str, module: &str) -> bool {
    let last = |end: &str| module.strip_suffix(end).is_some_and(|rest| rest.ends_with('.'));
    last(pattern) || matches_glob(pattern, module) || matches_glob(&format!("*.{pattern}"), module)
}

/// The targets that the patterns name, without those of `whole` modules, which are trained as they
/// are.
///
/// # Errors
/// `NotFound` for a pattern that matches nothing, with what could match; `InvalidArgument` where
/// nothing is left.
pub(super) fn choose(
    targets: Vec<Target>,
    patterns: &[String],
    found: &[GraphParameter],
    matches: NameMatch,
    whole: &[String],
) -> Result<Vec<Target>> {
    let hits =
        |pattern: &str, t: &Target| names_module(pattern, &t.module) || matches(pattern, &t.name);
    for pattern in patterns {
        if !targets.iter().any(|t| hits(pattern, t)) {
            return Err(no_target(pattern, &targets, found, matches));
        }
    }
    let known = listed(&targets);
    let mut chosen = targets;
    chosen.retain(|t| patterns.iter().any(|pattern| hits(pattern, t)) && !whole.contains(&t.name));
    if chosen.is_empty() {
        return Err(Error::invalid(format!(
            "all matrices that target_modules names are in modules_to_save, which are trained \
             whole; there are {known}"
        )));
    }
    Ok(chosen)
}

fn no_target(
    pattern: &str,
    targets: &[Target],
    found: &[GraphParameter],
    matches: NameMatch,
) -> Error {
    let known = listed(targets);
    let named = |p: &&GraphParameter| {
        names_module(pattern, module_of(&p.name)) || matches(pattern, &p.name)
    };
    match found.iter().find(named) {
        Some(p) => Error::unsupported(format!(
            "'{}' {:?}, which target_modules names by '{pattern}', cannot have an adapter: only \
             the matrix of a linear layer can, here {known}",
            p.name, p.shape
        )),
        None => Error::not_found(format!(
            "target_modules: '{pattern}' matches no matrix of a linear layer; there are {known}"
        )),
    }
}

/// The last parts of the modules' names, each with how many there are.
fn listed(targets: &[Target]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for t in targets {
        *counts.entry(last_part(&t.module)).or_default() += 1;
    }
    let names: Vec<String> =
        counts.iter().take(SHOWN).map(|(name, n)| format!("'{name}' ({n})")).collect();
    match (names.len(), counts.len().saturating_sub(SHOWN)) {
        (0, _) => "none".to_owned(),
        (_, 0) => names.join(", "),
        (_, more) => format!("{} and {more} more", names.join(", ")),
    }
}

fn last_part(module: &str) -> &str {
    last_parts(module, 1)
}

fn last_parts(module: &str, n: usize) -> &str {
    let at = module.rmatch_indices('.').nth(n - 1);
    at.map_or(module, |(at, _)| &module[at + 1..])
}

/// As few last parts of the `chosen` modules' names as tell them from the others of `all`.
pub(super) fn shortest_names(chosen: &[&str], all: &[String]) -> Vec<String> {
    let deepest = chosen.iter().map(|m| m.split('.').count()).max().unwrap_or(1);
    let others = || all.iter().filter(|m| !chosen.contains(&m.as_str()));
    let mut names = Vec::new();
    for n in 1..=deepest {
        names = chosen.iter().map(|m| last_parts(m, n)).collect();
        let names_other = |m: &String| names.iter().any(|name| names_module(name, m));
        if !others().any(names_other) {
            break;
        }
    }
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(str::to_owned).collect()
}

/// Modules that are trained whole, without those that lie inside another, and the names of their
/// parameters.
///
/// # Errors
/// `NotFound` for a pattern that matches nothing.
pub(super) fn whole_modules(
    patterns: &[String],
    found: &[GraphParameter],
    matches: NameMatch,
) -> Result<(Vec<String>, Vec<String>)> {
    let mut modules: Vec<String> = Vec::new();
    for pattern in patterns {
        let hits = found.iter().filter_map(|p| module_by(pattern, &p.name, matches));
        let hits: Vec<String> = hits.collect();
        if hits.is_empty() {
            return Err(no_module(pattern, found));
        }
        modules.extend(hits);
    }
    modules.sort_unstable();
    modules.dedup();
    let all = modules.clone();
    modules.retain(|m| !all.iter().any(|outer| is_inside(m, outer)));
    let inside = |name: &str| modules.iter().any(|m| is_inside(name, m) || name == m);
    let names = found.iter().filter(|p| inside(&p.name)).map(|p| p.name.clone()).collect();
    Ok((modules, names))
}

pub(super) fn is_inside(name: &str, module: &str) -> bool {
    name.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'))
}

/// The module that a pattern names, of those that a parameter lies in.
pub(super) fn module_by(pattern: &str, parameter: &str, matches: NameMatch) -> Option<String> {
    let own = module_of(parameter);
    let ends = own.match_indices('.').map(|(at, _)| at).chain([own.len()]);
    let named = |end: &usize| names_module(pattern, &own[..*end]);
    let found = { ends }.find(named).map(|end| own[..end].to_owned());
    found.or_else(|| matches(pattern, parameter).then(|| own.to_owned()))
}

fn no_module(pattern: &str, found: &[GraphParameter]) -> Error {
    let mut names: Vec<&str> = found.iter().map(|p| last_part(module_of(&p.name))).collect();
    names.sort_unstable();
    names.dedup();
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Error::not_found(format!(
        "modules_to_save: '{pattern}' matches no module; there are {}{more}",
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_named_by_their_last_parts_or_by_patterns() {
        let module = "bert.encoder.layer.0.attention.self.query";
        for pattern in ["query", "self.query", module, "que?y", "*", "bert.*.query", "layer.?.*"] {
            assert!(names_module(pattern, module), "{pattern}");
        }
        for pattern in ["uery", "key", "self", "encoder", "layer.1.*"] {
            assert!(!names_module(pattern, module), "{pattern}");
        }
    }

    #[test]
    fn target_modules_are_as_short_as_they_can_be() {
        let all = ["h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_proj", "h.1.mlp.c_proj"];
        let all = all.map(str::to_owned);
        let check = |chosen: &[usize], names: &[&str]| {
            let chosen: Vec<&str> = chosen.iter().map(|&i| all[i].as_str()).collect();
            assert_eq!(shortest_names(&chosen, &all), names);
        };
        check(&[0], &["c_attn"]);
        check(&[1, 2, 3], &["c_proj"]);
        check(&[2, 3], &["mlp.c_proj"]);
        check(&[0, 2], &["0.attn.c_attn", "0.mlp.c_proj"]);
    }

    #[test]
    fn the_outermost_module_is_trained_whole() {
        let parameter = |name: &str| GraphParameter {
            name: name.into(),
            value: Graph::new("g", 17).add_value("v").unwrap(),
            shape: vec![2],
            dtype: DType::F32,
            origin: crate::train::graphs::Origin::Initializer,
            fixed: None,
        };
        let names = ["body.w.weight", "head.dense.weight", "head.dense.bias", "head.out.weight"];
        let found: Vec<_> = names.iter().map(|n| parameter(n)).collect();
        let of = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            whole_modules(&patterns, &found, &|p, n| matches_glob(p, n))
        };
        let (modules, inside) = of(&["head", "dense"]).unwrap();
        assert_eq!((modules, inside.len()), (vec!["head".to_owned()], 3));
        assert_eq!(of(&["dense"]).unwrap().1, ["head.dense.weight", "head.dense.bias"]);
        assert_eq!(of(&["head.out.weight"]).unwrap().0, ["head.out"]);
        let error = of(&["tail"]).unwrap_err();
        assert!(error.message().contains("'tail'") && error.message().contains("dense, out"));
    }
}
