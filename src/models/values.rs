//! The values of a graph's parameters: from weights, under the names that published files use, or
//! fresh.

use std::collections::{BTreeMap, BTreeSet};

use super::builder::Declared;
use super::built::{BuiltModel, LoadOptions};
use super::config::{Architecture, Config};
use super::encoder_names::prefix;
use super::heads::ForwardGraph;
use super::init::fresh;
use super::task::Task;
use crate::checkpoint::weights::Weights;
use crate::error::{Error, Kind, Result};
use crate::onnx::TensorData;
use crate::tensor::DType;

/// Fills every parameter and names what was missing and what was left over.
pub(super) fn fill(
    forward: ForwardGraph,
    config: Config,
    task: Task,
    weights: Option<&Weights>,
    options: &LoadOptions,
) -> Result<BuiltModel> {
    let empty = Weights::default();
    let sources = Sources::find(&forward, &config, weights.unwrap_or(&empty));
    let declared = forward.declared.clone();
    if weights.is_some() && !options.allow_missing {
        sources.check_body(&declared, &config)?;
    }
    let mut model = forward.into_model(config, task);
    let body = format!("{}.", prefix(model.config.architecture));
    for d in &declared {
        let fresh_head = options.fresh_head && d.head && !d.name.starts_with(&body);
        let source = sources.by_parameter.get(&d.name).filter(|_| !fresh_head);
        let data = match (source, weights) {
            (Some(source), Some(weights)) => {
                let dtype = weights.find(source).map(|view| view.dtype);
                if let Some(half) = dtype.filter(|d| matches!(d, DType::F16 | DType::BF16)) {
                    model.stored.insert(d.name.clone(), half);
                }
                from_weights(weights, source, d, options)?
            }
            _ => {
                model.missing.push(d.name.clone());
                fresh(options.seed, &d.name, &d.shape, d.init, d.padding_row)?
            }
        };
        model.graph.set_initializer(d.value, data);
    }
    add_missing(&mut model);
    model.unexpected = sources.unexpected;
    if weights.is_some() {
        let unread = |name: &String| model.missing.contains(name);
        let replaced = sources.by_parameter.iter().filter(|(name, _)| unread(name));
        model.unexpected.extend(replaced.map(|(_, source)| source.clone()));
    }
    Ok(model)
}

/// Newly initialised parameters are stored as the others, where these are all of one half type.
fn add_missing(model: &mut BuiltModel) {
    let Some(&dtype) = model.stored.values().next() else { return };
    let n_read = model.parameters.len() - model.missing.len();
    if model.stored.len() == n_read && model.stored.values().all(|&d| d == dtype) {
        model.stored.extend(model.missing.iter().map(|name| (name.clone(), dtype)));
    }
}

fn from_weights(
    weights: &Weights,
    source: &str,
    declared: &Declared,
    options: &LoadOptions,
) -> Result<TensorData> {
    let shape = weights.find(source).map_or(&[][..], |view| view.shape);
    if shape != declared.shape {
        let hint = match declared.head {
            true => "; set fresh_head to replace the head by a newly initialised one",
            false => "",
        };
        return Err(Error::shape(format!(
            "weight '{source}' has shape {shape:?}, the configuration needs {:?}{hint}",
            declared.shape
        )));
    }
    let bytes = weights.f32_bytes(source)?;
    let finite = |b: &[u8; 4]| f32::from_le_bytes(*b).is_finite();
    if !options.allow_non_finite
        && let Some(at) = bytes.as_chunks::<4>().0.iter().position(|b| !finite(b))
    {
        let message = format!("weight '{source}' is NaN or infinite at element {at}");
        return Err(Error::new(Kind::NonFinite, message));
    }
    TensorData::new(DType::F32, shape, bytes)
}

/// Which name of a file serves which parameter.
struct Sources {
    by_parameter: BTreeMap<String, String>,
    unexpected: Vec<String>,
}

impl Sources {
    fn find(forward: &ForwardGraph, config: &Config, weights: &Weights) -> Self {
        let mut by_parameter = BTreeMap::new();
        let mut aliases = Vec::new();
        let mut unexpected = Vec::new();
        let parameters: BTreeSet<&str> = forward.declared.iter().map(|d| d.name.as_str()).collect();
        let prefix = prefix(config.architecture);
        for name in weights.names() {
            let plain = modern(name);
            let full = format!("{prefix}.{plain}");
            let alias = forward.tied.iter().find(|(alias, _)| *alias == plain);
            if let Some(found) = [plain, full].into_iter().find(|n| parameters.contains(n.as_str()))
            {
                by_parameter.insert(found, name.to_owned());
            } else if let Some((_, source)) = alias {
                aliases.push((source.clone(), name));
            } else if !is_buffer(name, config.architecture) {
                unexpected.push(name.to_owned());
            }
        }
        // An alias counts where the file leaves out the parameter itself. Only the bias of a
        // language-model head has one when nothing is tied, and there it is the alias that the
        // published head reads.
        for (source, name) in aliases {
            if config.tie_word_embeddings && by_parameter.contains_key(&source) {
                continue;
            }
            by_parameter.insert(source, name.to_owned());
        }
        Self { by_parameter, unexpected }
    }

    /// A file may lack a head, but not a part of the body.
    fn check_body(&self, declared: &[Declared], config: &Config) -> Result<()> {
        let absent = |d: &&Declared| !d.head && !self.by_parameter.contains_key(&d.name);
        let lacking: Vec<_> = declared.iter().filter(absent).collect();
        let Some(first) = lacking.first() else { return Ok(()) };
        let unused = self.unexpected.first().map_or(String::new(), |name| {
            format!("; it has {} others, e.g. '{name}'", self.unexpected.len())
        });
        Err(Error::data(format!(
            "the weights lack {} parameters of this {} model, e.g. '{}'{unused}",
            lacking.len(),
            config.model_type,
            first.name
        )))
    }
}

/// Early files name a norm's parameters `gamma` and `beta`.
fn modern(name: &str) -> String {
    for (old, new) in
        [("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")]
    {
        if let Some(stem) = name.strip_suffix(old) {
            return format!("{stem}{new}");
        }
    }
    name.to_owned()
}

/// Tensors of published files that are no parameters.
fn is_buffer(name: &str, architecture: Architecture) -> bool {
    let ends: &[&str] = match architecture {
        Architecture::Gpt2 => &[".attn.bias", ".attn.masked_bias"],
        _ => &["embeddings.position_ids", "embeddings.token_type_ids"],
    };
    ends.iter().any(|end| name.ends_with(end))
}
