//! Reads adapters in the layout of Python's `peft`: `adapter_config.json` and
//! `adapter_model.safetensors`.
//!
//! A key is `base_model.model.<module>.lora_A.weight`, the same with `lora_B`, or, for a module
//! that was trained whole, `base_model.model.<name of the parameter>`.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;

use super::choice::{Base, Choice, Pair};
use super::options::{MAX_RANK, is_alpha};
use super::targets::{Target, module_by};
use crate::checkpoint::weights::Weights;
use crate::error::{Context, Error, Result};
use crate::onnx::{Graph, TensorData};
use crate::tensor::DType;
use crate::train::graphs::GraphParameter;

pub(super) const CONFIG: &str = "adapter_config.json";
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";
/// What the names of a model's parameters have in front of them.
pub(super) const PREFIX: &str = "base_model.model.";
/// Options that change what adapters compute, and the values of an ordinary adapter.
const PLAIN: &[(&str, &[Value])] = &[
    ("use_dora", &[Value::Null, Value::Bool(false)]),
    ("use_rslora", &[Value::Null, Value::Bool(false)]),
    ("lora_bias", &[Value::Null, Value::Bool(false)]),
    ("megatron_config", &[Value::Null]),
    ("trainable_token_indices", &[Value::Null]),
    ("layer_replication", &[Value::Null]),
    ("alora_invocation_tokens", &[Value::Null]),
    ("target_parameters", &[Value::Null]),
    ("use_qalora", &[Value::Null, Value::Bool(false)]),
    ("use_bdlora", &[Value::Null, Value::Bool(false)]),
    ("arrow_config", &[Value::Null]),
    ("kasa_config", &[Value::Null]),
    ("monteclora_config", &[Value::Null]),
    ("velora_config", &[Value::Null]),
];
/// Starts of A and B that leave the matrix beside them as it is.
const STARTS: &[&str] = &["gaussian", "eva", "orthogonal"];

/// What `adapter_config.json` says.
struct Config {
    rank: usize,
    alpha: f64,
    dropout: f32,
    modules_to_save: Vec<String>,
}

/// The adapters of a directory, for the model whose parameters are `found`.
///
/// # Errors
/// `NotFound`, `Io` and `InvalidData` for files that cannot be read; `Unsupported` for adapters of
/// another kind; `NotFound` and `Shape` for those of another model.
pub(super) fn of_directory(
    dir: &Path,
    graph: &Graph,
    base: &Base,
    found: &[GraphParameter],
    targets: Vec<Target>,
) -> Result<Choice> {
    let path = dir.join(CONFIG);
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let config = config(&text).context(|| path.display())?;
    let path = dir.join(WEIGHTS);
    let weights = Weights::read(&path)?;
    let file = File { weights: &weights, config: &config, graph };
    file.choice(base, found, targets).context(|| path.display())
}

/// Refuses what is not plain LoRA with one rank and alpha.
fn check_kind(json: &Value) -> Result<()> {
    let kind = json.get("peft_type").and_then(Value::as_str).unwrap_or("unknown");
    if kind != "LORA" {
        return Err(Error::unsupported(format!("peft_type is {kind}; only LORA is read")));
    }
    for (key, plain) in PLAIN {
        let value = json.get(*key).unwrap_or(&Value::Null);
        if !plain.contains(value) {
            return Err(Error::unsupported(format!("{key} is {value}, which is not read")));
        }
    }
    for key in ["rank_pattern", "alpha_pattern"] {
        let value = json.get(key).and_then(Value::as_object);
        if value.is_some_and(|map| !map.is_empty()) {
            let text = format!("{key} is not empty; one rank and alpha for all matrices is read");
            return Err(Error::unsupported(text));
        }
    }
    let start = json.get("init_lora_weights").and_then(Value::as_str);
    if let Some(start) = start.filter(|start| !STARTS.contains(start)) {
        let text = format!("init_lora_weights is '{start}', which changes the frozen matrices");
        return Err(Error::unsupported(text));
    }
    let bias = json.get("bias").and_then(Value::as_str).unwrap_or("none");
    if bias != "none" {
        return Err(Error::unsupported(format!("bias is '{bias}'; only 'none' is read")));
    }
    Ok(())
}

fn config(text: &str) -> Result<Config> {
    let json: Value = serde_json::from_str(text).map_err(Error::json)?;
    check_kind(&json)?;
    let number = |key: &str| json.get(key).and_then(Value::as_f64);
    let rank = json.get("r").and_then(Value::as_u64).and_then(|r| usize::try_from(r).ok());
    let rank = rank.filter(|r| (1..=MAX_RANK).contains(r));
    let rank = rank.ok_or_else(|| Error::data(format!("r is no rank from 1 to {MAX_RANK}")))?;
    let alpha = number("lora_alpha").filter(|&a| is_alpha(a));
    let alpha = alpha.ok_or_else(|| Error::data("lora_alpha is no number from 1e-30 to 1e30"))?;
    let dropout = number("lora_dropout").unwrap_or(0.0) as f32;
    if !(0.0..1.0).contains(&dropout) {
        return Err(Error::data(format!("lora_dropout is {dropout}; it is in [0, 1)")));
    }
    let names = json.get("modules_to_save").and_then(Value::as_array);
    let names = names.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    Ok(Config { rank, alpha, dropout, modules_to_save: names.collect() })
}

struct File<'a> {
    weights: &'a Weights,
    config: &'a Config,
    /// The model without adapters.
    graph: &'a Graph,
}

impl File<'_> {
    fn choice(
        &self,
        base: &Base,
        found: &[GraphParameter],
        targets: Vec<Target>,
    ) -> Result<Choice> {
        let (mut modules, mut others) = (BTreeMap::<&str, [bool; 2]>::new(), Vec::new());
        for key in self.weights.names() {
            let name = key.strip_prefix(PREFIX).ok_or_else(|| {
                Error::data(format!("'{key}' is not in the layout of peft: it lacks '{PREFIX}'"))
            })?;
            if let Some(module) = name.strip_suffix(".lora_A.weight") {
                modules.entry(module).or_default()[0] = true;
            } else if let Some(module) = name.strip_suffix(".lora_B.weight") {
                modules.entry(module).or_default()[1] = true;
            } else if name.contains(".lora_") {
                return Err(Error::unsupported(format!("'{key}' is of a kind that is not read")));
            } else if let Some((_, source)) = base.tied.iter().find(|(alias, _)| alias == name) {
                self.check_tied(key, source)?;
            } else {
                others.push(name);
            }
        }
        if modules.is_empty() {
            return Err(Error::data("it holds no adapter"));
        }
        let whole = others.iter().map(|name| parameter(name, found)).collect::<Result<Vec<_>>>()?;
        let read = others.iter().zip(&whole);
        let read = read.map(|(name, p)| Ok((p.value, self.tensor(name, &p.shape)?)));
        let names = whole.iter().map(|p| p.name.as_str());
        Ok(Choice {
            rank: self.config.rank,
            alpha: self.config.alpha,
            dropout: self.config.dropout,
            read: read.collect::<Result<_>>()?,
            whole: self.whole_modules(names, base),
            whole_parameters: whole.iter().map(|p| p.name.clone()).collect(),
            targets: self.pairs(&modules, targets)?,
        })
    }

    /// peft has a copy of a module that is trained whole, with the matrices that are tied to
    /// others, such as a language model's decoder to its embedding; here they are one parameter.
    fn check_tied(&self, key: &str, source: &str) -> Result<()> {
        let given = self.weights.f32_bytes(key)?;
        let beside = format!("{PREFIX}{source}");
        let same = match self.weights.find(&beside) {
            Some(_) => self.weights.f32_bytes(&beside)? == given,
            None => {
                let own = self.graph.find(source).and_then(|v| self.graph.initializer(v));
                own.is_some_and(|own| *own.bytes() == given)
            }
        };
        match same {
            true => Ok(()),
            false => Err(Error::unsupported(format!(
                "'{key}' is not equal to '{source}', to which it is tied in this model"
            ))),
        }
    }

    /// The modules that the configuration names, as far as the file has parameters of them.
    fn whole_modules<'a>(&self, names: impl Iterator<Item = &'a str>, base: &Base) -> Vec<String> {
        let patterns = &self.config.modules_to_save;
        let module = |name: &str| {
            let named = patterns.iter().find_map(|p| module_by(p, name, base.matches));
            named.unwrap_or_else(|| name.rsplit_once('.').map_or(name, |(m, _)| m).to_owned())
        };
        let mut modules: Vec<String> = names.map(module).collect();
        modules.sort_unstable();
        modules.dedup();
        modules
    }

    fn pairs(
        &self,
        modules: &BTreeMap<&str, [bool; 2]>,
        targets: Vec<Target>,
    ) -> Result<Vec<(Target, Option<Pair>)>> {
        let mut pairs: Vec<(Target, Option<Pair>)> =
            targets.into_iter().map(|t| (t, None)).collect();
        for (&module, parts) in modules {
            if *parts != [true; 2] {
                return Err(Error::data(format!("'{module}' lacks lora_A or lora_B")));
            }
            let known = pairs.iter().map(|(t, _)| t.module.as_str());
            let i = position(module, known).ok_or_else(|| {
                let text = format!("the model has no linear layer '{module}'");
                Error::not_found(text)
            })?;
            let (target, pair) = &mut pairs[i];
            if pair.is_some() {
                let text = format!("two adapters are for the layer '{}'", target.module);
                return Err(Error::data(text));
            }
            let rank = self.config.rank;
            let part = |end: &str, shape| self.tensor(&format!("{module}.{end}.weight"), shape);
            *pair = Some(Pair {
                a: part("lora_A", &[rank, target.n_in])?,
                b: part("lora_B", &[target.n_out, rank])?,
            });
        }
        pairs.retain(|(_, pair)| pair.is_some());
        Ok(pairs)
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorData> {
        let key = format!("{PREFIX}{name}");
        let has = self.weights.find(&key).map_or(&[][..], |view| view.shape);
        if has != shape {
            return Err(Error::shape(format!(
                "'{key}' has shape {has:?}, where the model and the rank need {shape:?}"
            )));
        }
        let bytes: Bytes = self.weights.f32_bytes(&key)?;
        TensorData::new(DType::F32, shape, bytes)
    }
}

/// The parameter of a module that was trained whole.
fn parameter<'a>(name: &str, found: &'a [GraphParameter]) -> Result<&'a GraphParameter> {
    let i = position(name, found.iter().map(|p| p.name.as_str())).ok_or_else(|| {
        Error::not_found(format!(
            "the model has no parameter '{name}', which was trained whole with the adapters"
        ))
    })?;
    Ok(&found[i])
}

/// The position of a name; a model of the bare body, or one around it, has another beginning.
fn position<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<usize> {
    let ends =
        |long: &str, short: &str| long.strip_suffix(short).is_some_and(|rest| rest.ends_with('.'));
    let mut alike = None;
    let mut n_alike = 0;
    for (i, other) in known.enumerate() {
        if other == name {
            return Some(i);
        }
        if ends(other, name) || ends(name, other) {
            alike = Some(i);
            n_alike += 1;
        }
    }
    alike.filter(|_| n_alike == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn refused(text: &str, kind: Kind, part: &str) {
        let error = config(text).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), kind, "{text}: {error}");
        assert!(error.message().contains(part), "{text}: {error}");
    }

    #[test]
    fn configurations_of_other_kinds_are_refused() {
        let read = config(r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 16}"#).unwrap();
        assert_eq!((read.rank, read.alpha, read.dropout), (4, 16.0, 0.0));
        let plain = r#""peft_type": "LORA", "r": 4, "lora_alpha": 1"#;
        let with = |more: &str| format!("{{{plain}, {more}}}");
        let not = Kind::Unsupported;
        refused(r#"{"peft_type": "IA3"}"#, not, "IA3");
        refused(&with(r#""use_dora": true"#), not, "use_dora");
        refused(&with(r#""use_rslora": true"#), not, "use_rslora");
        refused(&with(r#""bias": "all""#), not, "bias");
        refused(&with(r#""init_lora_weights": "pissa""#), not, "pissa");
        refused(&with(r#""rank_pattern": {"query": 2}"#), not, "rank_pattern");
        refused(&with(r#""lora_dropout": 1.0"#), Kind::InvalidData, "lora_dropout");
        refused(r#"{"peft_type": "LORA", "r": 0, "lora_alpha": 1}"#, Kind::InvalidData, "r is");
        refused(r#"{"peft_type": "LORA", "r": 1}"#, Kind::InvalidData, "lora_alpha");
        refused("{", Kind::InvalidData, "");
    }

    #[test]
    fn names_may_begin_otherwise_if_only_one_ends_alike() {
        let known = ["bert.layer.0.query", "bert.layer.1.query", "a.head", "b.head"];
        let at = |name: &str| position(name, known.into_iter());
        assert_eq!(at("bert.layer.1.query"), Some(1));
        assert_eq!(at("layer.1.query"), Some(1));
        assert_eq!(at("model.bert.layer.0.query"), Some(0));
        assert_eq!((at("query"), at("head"), at("yer.0.query")), (None, None, None));
    }
}
