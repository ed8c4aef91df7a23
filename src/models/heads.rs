//! A task's head on top of a model, and the whole graph without values.

use std::collections::HashMap;

use super::builder::{Declared, ModelBuilder, batch, sequence};
use super::built::{BuiltModel, PaddingRow};
use super::config::{Architecture, Config};
use super::encoder;
use super::encoder_names::{MaskedLmNames, word_embeddings};
use super::gpt2;
use super::task::Task;
use crate::error::{Error, Result};
use crate::onnx::{Attribute, Dim, Graph, ValueId};
use crate::tensor::element_count;

/// Largest accepted number of elements in all parameters.
const MAX_PARAMETERS: usize = 1 << 34;

/// A graph whose parameters have no values yet.
pub(super) struct ForwardGraph {
    pub graph: Graph,
    pub declared: Vec<Declared>,
    /// (alias, parameter).
    pub tied: Vec<(String, String)>,
}

/// Builds the graph of `config` for `task`, without values.
pub(super) fn forward_graph(config: &Config, task: Task, seed: u64) -> Result<ForwardGraph> {
    let is_gpt2 = config.architecture == Architecture::Gpt2;
    let fits = match task {
        Task::MaskedLm => !is_gpt2,
        Task::CausalLm => is_gpt2,
        _ => true,
    };
    if !fits {
        let model = &config.model_type;
        return Err(Error::unsupported(format!("a '{model}' model has no head for {task}")));
    }
    if task.num_labels() == Some(0) {
        return Err(Error::invalid(format!("{task}: at least one is needed")));
    }
    let mut net = ModelBuilder::new(config, seed)?;
    let x = if is_gpt2 { gpt2::decode(&mut net)? } else { encoder::encode(&mut net)? };
    net.in_head = true;
    match task {
        Task::SequenceClassification { num_labels } => classify_sequence(&mut net, x, num_labels)?,
        Task::TokenClassification { num_labels } => classify_tokens(&mut net, x, num_labels)?,
        Task::QuestionAnswering => answer(&mut net, x)?,
        Task::MaskedLm => {
            let logits = encoder::masked_lm(&mut net, x)?;
            per_token(&mut net, logits, config.vocab)?;
        }
        Task::CausalLm => causal_lm(&mut net, x)?,
    }
    check_size(&net.declared)?;
    let tied = tied(config, task);
    let ModelBuilder { graph, declared, .. } = net;
    Ok(ForwardGraph { graph, declared, tied })
}

fn check_size(declared: &[Declared]) -> Result<()> {
    let mut n = 0usize;
    for d in declared {
        n = n.saturating_add(element_count(&d.shape)?);
    }
    if n > MAX_PARAMETERS {
        return Err(Error::data(format!(
            "the configuration describes {n} parameters, more than {MAX_PARAMETERS}"
        )));
    }
    Ok(())
}

/// Second names of parameters in the published state dicts.
fn tied(config: &Config, task: Task) -> Vec<(String, String)> {
    let words = &word_embeddings(config.architecture);
    let mut tied = Vec::new();
    let mut tie = |alias: &str, source: &str| tied.push((alias.to_owned(), source.to_owned()));
    match task {
        Task::MaskedLm => {
            let names = MaskedLmNames::of(config.architecture);
            if config.tie_word_embeddings {
                tie(names.decoder, words);
            }
            if !names.bias_alias.is_empty() {
                tie(names.bias_alias, names.bias);
            }
        }
        Task::CausalLm if config.tie_word_embeddings => tie("lm_head.weight", words),
        _ => {}
    }
    tied
}

fn classify_sequence(net: &mut ModelBuilder, x: ValueId, n: usize) -> Result<()> {
    let (config, hidden) = (net.config, net.config.hidden);
    let (square, out) = ((hidden, hidden), (hidden, n));
    let logits = match config.architecture {
        Architecture::Bert | Architecture::Albert => {
            let x = encoder::pool(net, x)?;
            let x = net.dropout(x, config.head_dropout);
            net.linear(x, "classifier", out)?
        }
        Architecture::Roberta | Architecture::MpNet => {
            let x = net.first_token(x);
            let x = net.dropout(x, config.head_dropout);
            let x = net.linear(x, "classifier.dense", square)?;
            let x = net.op("Tanh", &[x], []);
            let x = net.dropout(x, config.head_dropout);
            net.linear(x, "classifier.out_proj", out)?
        }
        Architecture::DistilBert => {
            let x = net.first_token(x);
            let x = net.linear(x, "pre_classifier", square)?;
            let x = net.op("Relu", &[x], []);
            let x = net.dropout(x, config.head_dropout);
            net.linear(x, "classifier", out)?
        }
        Architecture::Gpt2 => {
            let x = gpt2::last_token(net, x);
            let w = net.parameter("score.weight", &[n, hidden], net.normal())?;
            net.enter("score");
            net.project(x, w)
        }
    };
    net.output(logits, "logits", vec![batch(), Dim::Known(n)])
}

fn classify_tokens(net: &mut ModelBuilder, x: ValueId, n: usize) -> Result<()> {
    let rate = match net.config.architecture {
        Architecture::DistilBert => net.config.hidden_dropout,
        _ => net.config.head_dropout,
    };
    let x = net.dropout(x, rate);
    let logits = net.linear(x, "classifier", (net.config.hidden, n))?;
    per_token(net, logits, n)
}

fn answer(net: &mut ModelBuilder, x: ValueId) -> Result<()> {
    let x = match net.config.architecture {
        Architecture::DistilBert => net.dropout(x, net.config.answer_dropout()),
        _ => x,
    };
    let x = net.linear(x, "qa_outputs", (net.config.hidden, 2))?;
    let ones = net.ints(&[1, 1]);
    let both = net.op_n("Split", &[x, ones], 2, [("axis", Attribute::Int(-1))]);
    for (logits, name) in both.into_iter().zip(["start_logits", "end_logits"]) {
        let logits = net.op("Reshape", &[logits, net.dims], []);
        net.output(logits, name, vec![batch(), sequence()])?;
    }
    Ok(())
}

fn causal_lm(net: &mut ModelBuilder, x: ValueId) -> Result<()> {
    let tied = net.config.tie_word_embeddings;
    let name = if tied { "transformer.wte.weight" } else { "lm_head.weight" };
    let shape = [net.config.vocab, net.config.hidden];
    let w = net.parameter(name, &shape, net.normal())?;
    net.enter("lm_head");
    let logits = net.project(x, w);
    per_token(net, logits, net.config.vocab)
}

fn per_token(net: &mut ModelBuilder, logits: ValueId, n: usize) -> Result<()> {
    let logits = net.unflatten(logits, n);
    net.output(logits, "logits", vec![batch(), sequence(), Dim::Known(n)])
}

impl ForwardGraph {
    /// The model around the graph; `missing` and `unexpected` are left empty.
    pub fn into_model(self, config: Config, task: Task) -> BuiltModel {
        let names = |ids: &[ValueId]| {
            ids.iter().map(|&v| self.graph.value_name(v).to_owned()).collect::<Vec<_>>()
        };
        let padding_rows = self
            .declared
            .iter()
            .filter_map(|d| Some(PaddingRow { parameter: d.name.clone(), row: d.padding_row? }));
        BuiltModel {
            parameters: self.declared.iter().map(|d| d.name.clone()).collect(),
            head: self.declared.iter().filter(|d| d.head).map(|d| d.name.clone()).collect(),
            padding_rows: padding_rows.collect(),
            inputs: names(self.graph.inputs()),
            outputs: names(self.graph.outputs()),
            graph: self.graph,
            config,
            task,
            tied: self.tied,
            missing: Vec::new(),
            unexpected: Vec::new(),
            stored: HashMap::new(),
        }
    }
}
