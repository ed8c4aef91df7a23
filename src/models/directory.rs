//! Directories as the published libraries write them: `config.json` beside `model.safetensors`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use super::{BuiltModel, Config, LoadOptions, Task, build_with, heads};
use crate::checkpoint::weights::{self, FILE_NAME, View, Weights};
use crate::error::{Context, Error, Result};
use crate::file::write_atomically;

/// Builds the model of a directory with `config.json` and `model.safetensors`, or the shards that
/// `model.safetensors.index.json` lists; with [`LoadOptions::fresh_weights`] weights are not read,
/// and every parameter is fresh. `task` defaults to that of the class that the directory was saved
/// from. For another task the body is kept and the head is fresh.
///
/// Weights of the bare model (no prefix, no head) are taken; f16, bf16 and f64 are converted to
/// f32, and [`BuiltModel::stored`] tells which were f16 or bf16. The weight files stay mapped while
/// the graph lives.
///
/// # Errors
/// Those of [`Config::read`], [`Weights::read_dir`] and [`super::build`]; `NotFound` without
/// weights; `Unsupported` when the only weights are in a format that is not read.
pub fn load(dir: &Path, task: Option<Task>, options: &LoadOptions) -> Result<BuiltModel> {
    let config = Config::read(dir)?;
    let attempt = || {
        let task = task.map_or_else(|| config.default_task(), Ok)?;
        if options.fresh_weights {
            return build_with(&config, task, None, options);
        }
        let weights = Weights::read_dir(dir)?.ok_or_else(|| no_weights(dir))?;
        build_with(&config, task, Some(&weights), options)
    };
    attempt().context(|| dir.display().to_string())
}

fn no_weights(dir: &Path) -> Error {
    let foreign = ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"];
    match foreign.iter().find(|name| dir.join(name).exists()) {
        Some(name) => {
            Error::unsupported(format!("the weights are in {name}; convert them to {FILE_NAME}"))
        }
        None => Error::not_found(format!(
            "the folder holds no weights: no {FILE_NAME}; set fresh_weights to begin with newly \
             initialised ones"
        )),
    }
}

/// Writes `config.json` and `model.safetensors` into `dir`, which is made if absent. `config`
/// is that of a [`BuiltModel`]: its `architectures` name the task. `parameters` are the model's,
/// each once, f32, f16 or bf16 under its state-dict name; a tied tensor is written under its
/// parameter's name only, as the published libraries do; an untied masked-language-model head has
/// its bias under both of its names. Each file is replaced atomically, the weights first.
///
/// # Errors
/// `InvalidArgument` for a parameter that is absent, unknown or given twice; `Shape`; `Io`.
/// Nothing is written when the parameters are refused.
pub fn save<'a, V: Into<View<'a>>>(
    dir: &Path,
    config: &Config,
    parameters: impl IntoIterator<Item = (&'a str, V)>,
) -> Result<()> {
    let task = config.default_task()?;
    config.check()?;
    let forward = heads::forward_graph(config, task, 0)?;
    let mut views = BTreeMap::new();
    for (name, view) in parameters {
        if views.insert(name, view.into()).is_some() {
            return Err(Error::invalid(format!("parameter '{name}' is given twice")));
        }
    }
    for d in &forward.declared {
        let view = views.get(d.name.as_str());
        let view =
            view.ok_or_else(|| Error::invalid(format!("parameter '{}' is not given", d.name)))?;
        if view.shape != d.shape {
            let (name, found, needed) = (&d.name, view.shape, &d.shape);
            return Err(Error::shape(format!("'{name}' has shape {found:?}, not {needed:?}")));
        }
    }
    if views.len() > forward.declared.len() {
        let known = |name: &&&str| forward.declared.iter().any(|d| d.name == **name);
        let name = views.keys().find(|name| !known(name)).unwrap_or(&"");
        return Err(Error::invalid(format!("the model has no parameter '{name}'")));
    }
    if !config.tie_word_embeddings {
        // Untied heads hold their bias twice, and which one is read differs between versions.
        for (alias, source) in &forward.tied {
            views.get(source.as_str()).copied().map(|view| views.insert(alias, view));
        }
    }
    std::fs::create_dir_all(dir).map_err(|e| Error::create_folder(dir, e))?;
    weights::write(&dir.join(FILE_NAME), views, &[("format", "pt")])?;
    let path = dir.join("config.json");
    write_atomically(&path, |file| {
        file.write_all(config.to_json().as_bytes()).map_err(|e| Error::io(&path, e))
    })
}
