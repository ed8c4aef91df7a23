//! Writes a model's adapters alone, in the layout of Python's `peft`.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::Adapters;
use super::saved::{CONFIG, PREFIX, WEIGHTS};
use super::targets::is_inside;
use crate::checkpoint::weights;
use crate::error::{Error, Result};
use crate::file::write_atomically;
use crate::models::Task;
use crate::train::parameter::Parameter;

/// Where adapters are at home, for `adapter_config.json`.
pub(in crate::train) struct Home<'a> {
    /// The directory of the model without adapters, if it came from one.
    pub directory: Option<&'a Path>,
    pub task: Option<Task>,
    /// Whether matrices are stored `[in, out]`, in layers that peft has another class for.
    pub is_conv1d: bool,
    /// Second names of parameters in the published state dict: alias, parameter.
    pub tied: &'a [(String, String)],
}

impl Adapters {
    /// Writes `adapter_model.safetensors`, then `adapter_config.json`, into a directory that is
    /// made if absent. Each file is replaced atomically.
    ///
    /// # Errors
    /// `State` for a model without adapters; `Io`.
    pub fn save(&self, dir: &Path, parameters: &[Parameter], home: &Home) -> Result<()> {
        if self.is_empty() {
            return Err(Error::state("it has no adapters; add them before the trainer is created"));
        }
        std::fs::create_dir_all(dir).map_err(|e| Error::create_folder(dir, e))?;
        let own = parameters.iter().filter(|p| self.owns(&p.name) || self.is_whole(&p.name));
        let mut named: Vec<_> = own.map(|p| (format!("{PREFIX}{}", p.name), &p.value)).collect();
        // peft wants all of a whole module, with what is tied to parameters outside.
        let inside = |name: &str| self.whole.iter().any(|module| is_inside(name, module));
        for (alias, source) in home.tied.iter().filter(|(alias, _)| inside(alias)) {
            let source = parameters.iter().find(|p| p.name == *source);
            named.extend(source.map(|p| (format!("{PREFIX}{alias}"), &p.value)));
        }
        let tensors = named.iter().map(|(name, value)| (name.as_str(), *value));
        weights::write(&dir.join(WEIGHTS), tensors, &[("format", "pt")])?;
        let text = serde_json::to_string_pretty(&self.config(home))
            .map_err(|e| Error::internal(e.to_string()))?;
        let path = dir.join(CONFIG);
        write_atomically(&path, |file| {
            file.write_all(text.as_bytes()).map_err(|e| Error::io(&path, e))
        })
    }

    fn config(&self, home: &Home) -> Value {
        let whole = match self.whole.as_slice() {
            [] => Value::Null,
            modules => json!(modules),
        };
        json!({
            "peft_type": "LORA",
            "task_type": home.task.and_then(task_type),
            "base_model_name_or_path": home.directory.map(|dir| dir.display().to_string()),
            "r": self.rank,
            "lora_alpha": number(self.alpha),
            "lora_dropout": shortest(self.dropout),
            "target_modules": self.target_modules,
            "modules_to_save": whole,
            "bias": "none",
            "fan_in_fan_out": home.is_conv1d,
            "init_lora_weights": true,
            "use_rslora": false,
            "use_dora": false,
            "rank_pattern": {},
            "alpha_pattern": {},
            "inference_mode": true,
        })
    }
}

/// peft's name of a task; it has none for masked language models.
fn task_type(task: Task) -> Option<&'static str> {
    match task {
        Task::SequenceClassification { .. } => Some("SEQ_CLS"),
        Task::TokenClassification { .. } => Some("TOKEN_CLS"),
        Task::QuestionAnswering => Some("QUESTION_ANS"),
        Task::CausalLm => Some("CAUSAL_LM"),
        Task::MaskedLm => None,
    }
}

/// Whole numbers without a point, as peft writes them.
fn number(value: f64) -> Value {
    let whole = value.fract() == 0.0 && value < 9e15;
    if whole { json!(value as u64) } else { json!(value) }
}

/// The f64 with the digits of an f32.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
