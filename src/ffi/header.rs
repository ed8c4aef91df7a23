//! How `include/mmopt.h` is put together. A part of the build script (`build.rs`), and of
//! `tests/abi/header_file.rs`; no module of the crate.
//!
//! cbindgen writes all enumerations first, then all structs, then all functions. A reader wants
//! each of them beside the functions that use it, so its text is cut into *items* (a comment and
//! the declaration below it), and these are written again in the order of [`GROUPS`]: group by
//! group, file by file, and within a file as they stand in the source.

use std::collections::BTreeMap;

/// A part of the header, and a group of its documentation.
pub struct Group {
    /// How Doxygen refers to it.
    pub id: &'static str,
    pub title: &'static str,
    /// What the group is about, in two lines.
    pub about: [&'static str; 2],
    /// Its source files in `src/ffi`.
    pub files: &'static [&'static str],
}

/// The header from its beginning to its end, in the order of use.
pub const GROUPS: &[Group] = &[
    Group {
        id: "errors",
        title: "Errors",
        about: [
            "What a call that can fail returns: NULL for success, else an object with a code for",
            "programs and a message for people, which the caller frees.",
        ],
        files: &["core/error.rs"],
    },
    Group {
        id: "library",
        title: "Library and ONNX Runtime",
        about: [
            "The version of the library, the texts that it returns, and the ONNX Runtime that runs",
            "its models: a shared library that a process loads once.",
        ],
        files: &["core/version.rs", "core/args.rs", "core/runtime.rs"],
    },
    Group {
        id: "tensors",
        title: "Tensors",
        about: [
            "Dense arrays with a name, an element type and a shape. A tensor is a view: it owns",
            "nothing, and points to memory of the caller or of an object.",
        ],
        files: &["core/tensor.rs"],
    },
    Group {
        id: "corpora",
        title: "Corpora",
        about: [
            "The examples of one task, with the names of its classes: read from files, taken from",
            "memory, or generated.",
        ],
        files: &["data/corpus.rs"],
    },
    Group {
        id: "tokenizers",
        title: "Tokenizers",
        about: [
            "Text to token ids and back, in the published form of each architecture: loaded from",
            "tokenizer.json, or trained on a corpus.",
        ],
        files: &["core/architecture.rs", "data/tokenizer.rs"],
    },
    Group {
        id: "loaders",
        title: "Batches and loaders",
        about: [
            "A batch holds the input tensors of one step for every model, each with its own",
            "tokenizer; a loader walks a corpus in batches, epoch by epoch.",
        ],
        files: &["data/batch.rs", "data/loader.rs"],
    },
    Group {
        id: "models",
        title: "Models",
        about: [
            "A description of one model, which a trainer builds: from a published directory, an",
            "ONNX graph, or the configuration of a fresh model.",
        ],
        files: &["model/config.rs", "model/create.rs", "model/for_corpus.rs"],
    },
    Group {
        id: "model_settings",
        title: "Settings of a model",
        about: [
            "Task, loss, weight, dropout and seed of a model, and which of its parameters are",
            "trained. They count for trainers that are created afterwards.",
        ],
        files: &["model/settings.rs", "model/pretrained.rs"],
    },
    Group {
        id: "adapters",
        title: "Low-rank adapters",
        about: [
            "A model trained by a small part of its parameters: the product of two narrow matrices",
            "beside each frozen one (LoRA).",
        ],
        files: &["model/adapters.rs"],
    },
    Group {
        id: "onnx_graphs",
        title: "Models from ONNX graphs",
        about: [
            "Graphs that compute their own gradients, and what is repaired on import: shared",
            "initializers, duplicate weights, and parameter names that an exporter invented.",
        ],
        files: &["model/precomputed_gradients.rs", "model/import_fixes.rs"],
    },
    Group {
        id: "trainer_options",
        title: "Training options",
        about: [
            "How models are trained together: learning rates and update, what is shared and how,",
            "the schedule, the device. Trainers and optimizers take the same options.",
        ],
        files: &["trainer/options.rs"],
    },
    Group {
        id: "trainers",
        title: "Trainers",
        about: [
            "Several models and the optimizer that trains them together. The loop is a forward and",
            "backward pass of each model, then one step for all.",
        ],
        files: &["trainer/create.rs", "trainer/prepare.rs", "trainer/steps.rs"],
    },
    Group {
        id: "trainer_state",
        title: "State of a trainer",
        about: [
            "The sharing plan, learning rates, parameters and gradients of a trainer, and what it",
            "found in its models; what training takes in memory.",
        ],
        files: &[
            "trainer/state.rs",
            "trainer/parameters.rs",
            "trainer/inspect.rs",
            "trainer/memory.rs",
        ],
    },
    Group {
        id: "trainer_files",
        title: "Models and checkpoints in files",
        about: [
            "A trained model is saved for use elsewhere; a checkpoint holds all that training",
            "depends on, so that it resumes bit by bit.",
        ],
        files: &["trainer/files.rs", "trainer/checkpoints.rs"],
    },
    Group {
        id: "callbacks",
        title: "Callbacks and cancellation",
        about: [
            "Functions of the host that a trainer calls: for messages, progress, learning rates",
            "and gradients. A token stops a running pass from another thread.",
        ],
        files: &["trainer/callback.rs", "trainer/gradient_callback.rs", "trainer/cancel.rs"],
    },
    Group {
        id: "evaluation",
        title: "Evaluation",
        about: [
            "A pass of one model without dropout and gradients: its loss, its score and its",
            "outputs.",
        ],
        files: &["trainer/evaluation.rs", "tasks/evaluate.rs"],
    },
    Group {
        id: "fit",
        title: "The training loop as one call",
        about: [
            "Training with evaluation, early stopping, checkpoints and logs, as the loop over the",
            "functions above would do it; and the range test for learning rates.",
        ],
        files: &["fit/run.rs", "fit/find_learning_rate.rs"],
    },
    Group {
        id: "prediction",
        title: "Prediction",
        about: [
            "What a trained model says about texts: classes, entities, answers. The model is a",
            "trainer's, or one that was read from a directory for predictions alone.",
        ],
        files: &["tasks/predict.rs", "tasks/generate.rs"],
    },
    Group {
        id: "metrics",
        title: "Text metrics",
        about: [
            "Scores of predictions as the usual evaluation scripts compute them: accuracy, F1 of",
            "classes and of named entities, exact match and F1 of answers.",
        ],
        files: &["data/metrics.rs", "data/scores.rs"],
    },
    Group {
        id: "report",
        title: "Reports",
        about: [
            "A page on training runs, made from their logs: curves, what the models share, scores,",
            "options.",
        ],
        files: &["report/write.rs"],
    },
    Group {
        id: "optimizer",
        title: "Optimizer (gradient mode)",
        about: [
            "The host computes the gradients, in PyTorch or by any other means; the optimizer does",
            "the rest, from clipping to synchronisation, in the host's memory.",
        ],
        files: &[
            "optimizer/parameter.rs",
            "optimizer/create.rs",
            "optimizer/steps.rs",
            "optimizer/state.rs",
            "optimizer/callback.rs",
            "optimizer/files.rs",
        ],
    },
    Group {
        id: "communicators",
        title: "Communicators",
        about: [
            "Several processes that train together, the ranks, exchange numbers through functions",
            "of the host: MPI (mmopt_mpi.h), NCCL (mmopt_nccl.h), or an engine of one's own.",
        ],
        files: &["comm/callbacks.rs", "comm/communicator.rs", "comm/trainer.rs"],
    },
    Group {
        id: "dlpack",
        title: "DLPack",
        about: [
            "Tensors exchanged with other libraries without a copy, as DLManagedTensorVersioned of",
            "DLPack 1.x. They pass as void *, so that no dlpack.h is needed here.",
        ],
        files: &["dlpack/convert.rs", "trainer/dlpack.rs", "optimizer/dlpack.rs"],
    },
];

/// The header: `top` (comment, guard, macros), the items of `generated`, which cbindgen wrote, in
/// the order of the groups, and the end. `source` reads a file of `src/ffi`.
pub fn header<E: From<String>>(
    top: &str,
    generated: &str,
    source: impl Fn(&str) -> Result<String, E>,
) -> Result<String, E> {
    let mut items = items(generated)?;
    let mut text = top.to_owned();
    for group in GROUPS {
        let about = group.about.join("\n * ");
        let (id, title) = (group.id, group.title);
        text += &format!("\n/**\n * @defgroup {id} {title}\n * {about}\n * @{{\n */\n");
        for file in group.files {
            for name in names(&source(file)?) {
                let item = items.remove(&name).ok_or_else(|| format!("no item {name}"))?;
                text += &format!("\n{item}\n");
            }
        }
        text += "\n/** @} */\n";
    }
    match items.keys().next() {
        Some(name) => Err(format!("{name} is in no group of src/ffi/header.rs").into()),
        None => Ok(text + "\n#ifdef __cplusplus\n}\n#endif\n\n#undef MMOPT_ENUM\n\n#endif\n"),
    }
}

/// What a source file gives to the header, in its order.
pub fn names(source: &str) -> Vec<String> {
    let starts = ["pub enum ", "pub struct ", "pub type ", "extern \"C\" fn "];
    let name = |line: &str| {
        let rest = starts.iter().find_map(|s| {
            let function = s.starts_with("extern").then(|| line.split_once(s)).flatten();
            line.strip_prefix(s).or(function.map(|f| f.1))
        })?;
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        rest.starts_with("mmopt_").then(|| rest[..end].to_owned())
    };
    source.lines().filter(|l| l.starts_with("pub ")).filter_map(name).collect()
}

/// The items of what cbindgen wrote, by name, in the header's form.
pub fn items(generated: &str) -> Result<BTreeMap<String, String>, String> {
    let mut items = BTreeMap::new();
    let mut comment = String::new();
    let mut lines = generated.lines();
    while let Some(line) = lines.next() {
        let mut through = |is_last: fn(&str) -> bool| {
            let mut all = vec![line];
            while !all.last().is_none_or(|l| is_last(l)) {
                let Some(next) = lines.next() else { break };
                all.push(next);
            }
            all.join("\n")
        };
        let word = |text: &str| {
            text.trim_end_matches(';').rsplit([' ', '*', '\n']).next().map(str::to_owned)
        };
        let (name, declaration) = if line.starts_with("/**") {
            comment = through(|l| l.ends_with("*/"));
            continue;
        } else if let Some(name) = line.strip_prefix("enum ") {
            let text = through(|l| l.starts_with("#endif // __cplusplus"));
            (Some(name.to_owned()), enumeration(name, &text))
        } else if line.starts_with("typedef struct ") && line.ends_with('{') {
            let text = through(|l| l.starts_with('}'));
            (word(&text), text)
        } else if line.starts_with("typedef ") {
            let text = through(|l| l.ends_with(';'));
            let callback = text.split_once("(*").and_then(|t| t.1.split_once(')'));
            (callback.map(|c| c.0.to_owned()).or_else(|| word(&text)), text)
        } else if line.starts_with("MMOPT_") {
            let text = through(|l| l.ends_with(';'));
            (word(text.split('(').next().unwrap_or_default()), text)
        } else if comment.is_empty() || line.is_empty() {
            continue;
        } else {
            (None, String::new())
        };
        let name = name.filter(|n| n.starts_with("mmopt_") && !comment.is_empty());
        let name = name.ok_or_else(|| format!("not understood, or without a comment: {line}"))?;
        let text = format!("{}\n{declaration}", std::mem::take(&mut comment));
        items.insert(name, short_comments(&text));
    }
    Ok(items)
}

/// `MMOPT_ENUM(name) { ... };` for what cbindgen writes: the list between two lists of conditions.
fn enumeration(name: &str, text: &str) -> String {
    let start = text.find('{').unwrap_or(0);
    let end = text.find("\n}").unwrap_or(text.len());
    format!("MMOPT_ENUM({name}) {}\n}};", &text[start..end])
}

/// Comments of one line without lines of their own for their marks, where they fit.
fn short_comments(text: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    let mut i = 0;
    while i < lines.len() {
        let one = lines.get(i..i + 3).and_then(|l| {
            let (open, body, close) = (l[0], l[1].trim_start(), l[2].trim());
            let body = body.strip_prefix("* ")?;
            let short = open.trim() == "/**" && close == "*/";
            let indent = &open[..open.len() - open.trim_start().len()];
            short.then(|| format!("{indent}/** {body} */")).filter(|s| s.len() <= 100)
        });
        i += if one.is_some() { 3 } else { 1 };
        out.push(one.unwrap_or_else(|| lines[i - 1].to_owned()));
    }
    out.join("\n")
}
