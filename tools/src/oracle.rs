//! One folder of exported models with reference gradients, and how a file is compared with it.
//!
//! A *group* is what can be compared: a parameter of the reference (tied names count as one) with
//! every tensor of the file that holds a copy of it. Parameters that the exporter merged, because
//! they were equal, are one group: their gradients add up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mmopt::autodiff::{LossKind, LossSpec};
use mmopt::error::{Context, Error, Result};
use mmopt::onnx::Graph;
use mmopt::optim::AttentionForm;
use mmopt::runtime::{Device, Session, SessionOptions};
use mmopt::tensor::{DType, Tensor};
use mmopt::train::graphs::{
    GraphOptions, GraphParameter, TrainingGraph, find_parameters, parameter_data,
    training_graph_with,
};
use safetensors::SafeTensors;
use serde_json::Value as Json;

/// Gradients that are zero in truth are compared against this norm instead of their own; between
/// runtimes against that of the terms that cancel in them, where it is larger.
const NEAR_ZERO_NORM: f64 = 1e-2;

/// A folder: its description, inputs, labels and reference gradients.
pub struct Oracle {
    pub folder: PathBuf,
    device: Device,
    /// How attention is computed.
    pub attention: AttentionForm,
    about: Json,
    spec: LossSpec,
    tensors: BTreeMap<String, Tensor>,
    params: BTreeMap<String, Tensor>,
}

/// How far a file is from the reference.
pub struct TrainResult {
    /// |loss - reference| / |reference|
    pub loss_error: f64,
    /// Name of the parameter with the largest error.
    pub worst: String,
    /// Its relative L2 error.
    pub worst_error: f64,
    /// Number of groups compared.
    pub compared: usize,
    /// The loss.
    pub loss: f64,
    /// Every gradient by its tensor's name in the file.
    pub gradients: BTreeMap<String, Tensor>,
    /// Those among them that are zero in truth, with the size of the terms that cancel in them.
    pub near_zero: BTreeMap<String, f64>,
}

fn json(path: &Path) -> Result<Json> {
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_slice(&text).map_err(|e| Error::data(format!("{}: {e}", path.display())))
}

fn tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let broken = |e| Error::data(format!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).map_err(broken)?;
    let dtype = |d| match d {
        safetensors::Dtype::F32 => Ok(DType::F32),
        safetensors::Dtype::F64 => Ok(DType::F64),
        safetensors::Dtype::I64 => Ok(DType::I64),
        other => Err(Error::unsupported(format!("{other:?} in {}", path.display()))),
    };
    let one = |(name, view): (String, safetensors::tensor::TensorView)| {
        let tensor = Tensor::from_bytes(dtype(view.dtype())?, view.shape(), view.data())?;
        Ok((name, tensor))
    };
    file.tensors().into_iter().map(one).collect()
}

fn loss_kind(definition: &str) -> Result<LossKind> {
    let has = |text: &str| definition.contains(text);
    Ok(match () {
        () if has("start_logits") => LossKind::QuestionAnswering,
        () if has("shifted") => LossKind::CausalLm,
        () if has("mse") => LossKind::MeanSquaredError,
        () if has("view(-1") => LossKind::TokenClassification,
        () if has("cross_entropy") => LossKind::SequenceClassification,
        () => return Err(Error::unsupported(format!("loss_def '{definition}'"))),
    })
}

impl Oracle {
    /// Reads a folder, whose models shall run on `device`.
    pub fn read(folder: &Path, device: Device) -> Result<Self> {
        let about = json(&folder.join("oracle.json"))?;
        let spec = LossSpec::new(loss_kind(about["loss_def"].as_str().unwrap_or(""))?);
        Ok(Self {
            folder: folder.to_owned(),
            device,
            attention: AttentionForm::Auto,
            spec,
            tensors: tensors(&folder.join("oracle.safetensors"))?,
            params: tensors(&folder.join("params.safetensors"))?,
            about,
        })
    }

    /// The .onnx files of the folder, or of a folder in it, by name.
    pub fn files(&self, below: &str) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.folder.join(below)) else { return Vec::new() };
        let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        files.retain(|p| p.extension().is_some_and(|e| e == "onnx"));
        files.sort();
        files
    }

    /// The training graph of a file, with the parameters that it has as inputs.
    pub fn training_graph(
        &self,
        file: &Path,
    ) -> Result<(Graph, Vec<GraphParameter>, TrainingGraph)> {
        let mut graph = Graph::read(file)?;
        graph.name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut params = find_parameters(&graph);
        params.retain(GraphParameter::trainable);
        let values: Vec<_> = params.iter().map(|p| p.value).collect();
        let mut shapes = BTreeMap::new();
        for &v in graph.inputs() {
            let name = graph.value_name(v);
            let tensor = self.tensor(&format!("input:{name}"))?;
            shapes.insert(name.to_owned(), tensor.shape().to_vec());
        }
        let options = GraphOptions { attention: self.attention, ..GraphOptions::default() };
        let training = training_graph_with(&graph, &values, &self.spec, &shapes, &options)?;
        Ok((graph, params, training))
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        let missing = || Error::not_found(format!("oracle.safetensors has no '{name}'"));
        self.tensors.get(name).ok_or_else(missing)
    }

    /// Runs one batch through a file's training graph and compares loss and gradients.
    pub fn check(&self, file: &Path) -> Result<TrainResult> {
        let (graph, params, training) = self.training_graph(file)?;
        let (loss, gradients) = self.run(&graph, &params, &training)?;
        let expected = self.about["loss"].as_f64().unwrap_or(f64::NAN);
        let map = json(&file.with_extension("map.json"))?;
        let groups = self.groups(&map, &graph, &params)?;
        let mut result = TrainResult {
            loss_error: (loss - expected).abs() / expected.abs(),
            worst: String::new(),
            worst_error: 0.0,
            compared: groups.len(),
            loss,
            gradients: BTreeMap::new(),
            near_zero: BTreeMap::new(),
        };
        for group in &groups {
            if self.is_near_zero(&group.names[0]) {
                let scale = self.scale_of_terms(&group.names[0])?;
                result.near_zero.extend(group.copies.iter().map(|c| (c.name.clone(), scale)));
            }
            let error = self.error(group, &params, &gradients)?;
            if error.is_nan() || error >= result.worst_error {
                (result.worst, result.worst_error) = (group.names.join(" + "), error);
                if error.is_nan() {
                    break;
                }
            }
        }
        result.gradients = gradients;
        Ok(result)
    }

    fn run(
        &self,
        graph: &Graph,
        params: &[GraphParameter],
        training: &TrainingGraph,
    ) -> Result<(f64, BTreeMap<String, Tensor>)> {
        let mut feeds: Vec<(&str, Tensor)> = Vec::new();
        for (name, dtype, _) in &training.data_inputs {
            let label = self.tensors.get(&format!("label:{name}"));
            let given = match label.or_else(|| self.tensors.get(&format!("input:{name}"))) {
                Some(tensor) => tensor.copy()?,
                None => self.only_label(name)?,
            };
            if given.dtype() != *dtype {
                return Err(Error::data(format!("'{name}' is {}, not {dtype}", given.dtype())));
            }
            feeds.push((name, given));
        }
        for (parameter, name) in params.iter().zip(&training.params) {
            feeds.push((name, parameter_data(graph, parameter.value)?.to_tensor()?));
        }
        let options = SessionOptions { device: self.device, ..SessionOptions::default() };
        let session = Session::from_bytes(&training.bytes, &options)?;
        let inputs: Vec<(&str, &Tensor)> = feeds.iter().map(|(n, t)| (*n, t)).collect();
        let mut wanted = vec![training.loss.as_str()];
        wanted.extend(training.grads.iter().flatten().map(String::as_str));
        let mut results = session.run(&inputs, &wanted)?.into_iter();
        let loss = results.next().ok_or_else(|| Error::internal("no loss"))?;
        let loss = f64::from(loss.as_slice::<f32>()?[0]);
        let with_gradient = params.iter().zip(&training.grads).filter(|(_, g)| g.is_some());
        Ok((loss, with_gradient.map(|(p, _)| p.name.clone()).zip(results).collect()))
    }

    /// The label of the folder when it has only one, whatever its name.
    fn only_label(&self, name: &str) -> Result<Tensor> {
        let mut labels = self.tensors.iter().filter(|(k, _)| k.starts_with("label:"));
        match (labels.next(), labels.next()) {
            (Some((_, tensor)), None) => tensor.copy(),
            _ => Err(Error::not_found(format!("no values for '{name}' in oracle.safetensors"))),
        }
    }
}

/// A tensor of the file that holds all or a part of a reference parameter.
struct Copy {
    name: String,
    transposed: bool,
    /// Axis and start of the part of the reference (in its own layout) that it holds.
    part: Option<(usize, usize)>,
}

struct Group {
    names: Vec<String>,
    copies: Vec<Copy>,
}

impl Oracle {
    fn canonical(&self, name: &str) -> String {
        self.about["tied"][name].as_str().unwrap_or(name).to_owned()
    }

    fn groups(&self, map: &Json, graph: &Graph, params: &[GraphParameter]) -> Result<Vec<Group>> {
        let mut copies: BTreeMap<String, Vec<Copy>> = BTreeMap::new();
        for entry in map["initializers"].as_array().into_iter().flatten() {
            let Some(source) = entry["torch_param"].as_str() else { continue };
            let name = entry["name"].as_str().unwrap_or("").to_owned();
            let transposed = entry["how"] == "transposed";
            let part = match entry["how"] == "slice" {
                true => Some(self.part(source, graph, params, &name)?),
                false => None,
            };
            let copy = Copy { name, transposed, part };
            copies.entry(self.canonical(source)).or_default().push(copy);
        }
        let without: Vec<&str> = self.about["params_without_grad"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .collect();
        let mut groups: Vec<Group> =
            copies.into_iter().map(|(name, copies)| Group { names: vec![name], copies }).collect();
        groups.retain(|g| !without.contains(&g.names[0].as_str()));
        for name in self.params.keys() {
            let known = groups.iter().any(|g| g.names.contains(&self.canonical(name)));
            if !known && !without.contains(&name.as_str()) && self.tensors.contains_key(name) {
                self.join_merged(name, &mut groups, graph, params)?;
            }
        }
        Ok(groups)
    }

    /// A parameter that the file does not list was merged with one of equal values.
    fn join_merged(
        &self,
        name: &str,
        groups: &mut [Group],
        graph: &Graph,
        params: &[GraphParameter],
    ) -> Result<()> {
        let own = self.params[name].bytes();
        for group in groups {
            let first = &group.copies[0].name;
            let Some(p) = params.iter().find(|p| p.name == *first) else { continue };
            if parameter_data(graph, p.value)?.bytes() == own {
                group.names.push(name.to_owned());
                return Ok(());
            }
        }
        Err(Error::not_found(format!("no tensor of the file holds '{name}'")))
    }

    /// Where in the reference parameter `source` the tensor `name` lies.
    fn part(
        &self,
        source: &str,
        graph: &Graph,
        params: &[GraphParameter],
        name: &str,
    ) -> Result<(usize, usize)> {
        let lost = || Error::not_found(format!("'{name}' is no slice of '{source}'"));
        let whole = self.params.get(source).ok_or_else(lost)?;
        let p = params.iter().find(|p| p.name == name).ok_or_else(lost)?;
        let values = parameter_data(graph, p.value)?.to_tensor()?;
        for axis in 0..whole.shape().len() {
            let room = whole.shape()[axis].saturating_sub(p.shape[axis]);
            for start in 0..=room {
                let cut = cut(whole.as_slice()?, whole.shape(), axis, start, p.shape[axis]);
                if room > 0 && cut == values.as_slice::<f32>()? {
                    return Ok((axis, start));
                }
            }
        }
        Err(lost())
    }

    fn error(
        &self,
        group: &Group,
        params: &[GraphParameter],
        gradients: &BTreeMap<String, Tensor>,
    ) -> Result<f64> {
        let first = &group.names[0];
        let shape = self.tensor(first)?.shape().to_vec();
        let mut expected = vec![0f64; self.tensor(first)?.len()];
        for name in &group.names {
            let values = self.tensor(name)?.as_slice::<f32>()?;
            expected.iter_mut().zip(values).for_each(|(e, v)| *e += f64::from(*v));
        }
        let mut actual = vec![0f64; expected.len()];
        for copy in &group.copies {
            let Some(gradient) = gradients.get(&copy.name) else {
                if params.iter().any(|p| p.name == copy.name) {
                    continue;
                }
                return Err(Error::not_found(format!("no parameter '{}'", copy.name)));
            };
            add(&mut actual, &shape, copy, gradient).context(|| copy.name.clone())?;
        }
        self.clear_padding(first, &shape, [&mut expected, &mut actual]);
        let near_zero = self.is_near_zero(first);
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let difference = norm(&mut actual.iter().zip(&expected).map(|(a, e)| a - e));
        let size = norm(&mut expected.iter().copied());
        Ok(difference / if near_zero { size.max(NEAR_ZERO_NORM) } else { size.max(1e-12) })
    }

    fn is_near_zero(&self, name: &str) -> bool {
        let names = self.about["near_zero_grads"].as_array();
        names.is_some_and(|names| names.iter().any(|n| n == name))
    }

    /// What rounding in a gradient that is zero in truth is to be measured against. A bias sums
    /// the same terms as the weight beside it, which has each times an activation, so that there
    /// they do not cancel: that gradient's norm, in the reference.
    fn scale_of_terms(&self, name: &str) -> Result<f64> {
        let weight = name.strip_suffix(".bias").map(|module| format!("{module}.weight"));
        let Some(weight) = weight.and_then(|name| self.tensors.get(&name)) else {
            return Ok(NEAR_ZERO_NORM);
        };
        let squares = weight.as_slice::<f32>()?.iter().map(|x| f64::from(*x).powi(2));
        Ok(squares.sum::<f64>().sqrt().max(NEAR_ZERO_NORM))
    }

    /// The framework leaves the pad row of an embedding without gradient; the graph cannot know.
    fn clear_padding(&self, name: &str, shape: &[usize], tensors: [&mut Vec<f64>; 2]) {
        let effect = self.about["padding_idx_grad_effect"][name].as_f64().unwrap_or(0.0);
        let module = name.trim_end_matches(".weight");
        let row = self.about["padding_idx"][module].as_u64();
        if let (Some(row), [_, width], true) = (row, shape, effect != 0.0) {
            let at = row as usize * width;
            tensors.into_iter().for_each(|t| t[at..at + width].fill(0.0));
        }
    }
}

/// Elements `start..start + n` along `axis`.
fn cut(data: &[f32], shape: &[usize], axis: usize, start: usize, n: usize) -> Vec<f32> {
    let inner: usize = shape[axis + 1..].iter().product();
    let row = shape[axis] * inner;
    let rows = data.chunks(row.max(1));
    rows.flat_map(|r| &r[start * inner..(start + n) * inner]).copied().collect()
}

/// Adds a copy's gradient, turned into the reference's layout, to `into`.
fn add(into: &mut [f64], shape: &[usize], copy: &Copy, gradient: &Tensor) -> Result<()> {
    let data = gradient.as_slice::<f32>()?;
    if let (Some((axis, start)), false) = (copy.part, copy.transposed) {
        let inner: usize = shape[axis + 1..].iter().product();
        let n = gradient.shape()[axis] * inner;
        let rows = into.chunks_mut((shape[axis] * inner).max(1));
        for (row, part) in rows.zip(data.chunks(n.max(1))) {
            let place = &mut row[start * inner..start * inner + n];
            place.iter_mut().zip(part).for_each(|(a, d)| *a += f64::from(*d));
        }
        return Ok(());
    }
    if data.len() != into.len() {
        return Err(Error::shape(format!("gradient {:?} against {shape:?}", gradient.shape())));
    }
    match (copy.transposed, shape) {
        (true, &[rows, columns]) => {
            let at = |i: usize| (i % columns) * rows + i / columns;
            (0..into.len()).for_each(|i| into[i] += f64::from(data[at(i)]));
        }
        _ => into.iter_mut().zip(data).for_each(|(a, d)| *a += f64::from(*d)),
    }
    Ok(())
}
