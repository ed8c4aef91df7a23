//! Gradients that one runtime gave, in a safetensors file, to be held against another's.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use mmopt::error::{Error, Result};
use mmopt::tensor::{DType, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

/// Named tensors of f32 or f64.
#[derive(Default)]
pub struct Dump {
    pub tensors: BTreeMap<String, Tensor>,
    /// Tensors whose error is relative to this norm where their own is smaller.
    floors: HashMap<String, String>,
}

impl Dump {
    /// Adds a tensor; `floor` as above.
    pub fn add(&mut self, name: String, tensor: Tensor, floor: Option<f64>) {
        if let Some(floor) = floor {
            self.floors.insert(name.clone(), floor.to_string());
        }
        self.tensors.insert(name, tensor);
    }

    /// The norm that a tensor's error is at least relative to.
    pub fn floor(&self, name: &str) -> f64 {
        self.floors.get(name).and_then(|f| f.parse().ok()).unwrap_or(1e-12)
    }

    /// Writes the file, and the folder it is to lie in.
    pub fn write(&self, path: &Path) -> Result<()> {
        let broken = |e| Error::data(format!("{}: {e}", path.display()));
        let mut views = Vec::new();
        for (name, tensor) in &self.tensors {
            let dtype = match tensor.dtype() {
                DType::F32 => Dtype::F32,
                DType::F64 => Dtype::F64,
                other => return Err(Error::unsupported(format!("'{name}' is {other}"))),
            };
            let view = TensorView::new(dtype, tensor.shape().to_vec(), tensor.bytes());
            views.push((name, view.map_err(broken)?));
        }
        let bytes = safetensors::serialize(views, Some(self.floors.clone())).map_err(broken)?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        std::fs::write(path, bytes).map_err(|e| Error::io(path, e))
    }

    /// Reads what [`Dump::write`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let broken = |e| Error::data(format!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).map_err(broken)?;
        let (_, about) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
        let mut dump =
            Self { floors: about.metadata().clone().unwrap_or_default(), ..Self::default() };
        for (name, view) in file.tensors() {
            let dtype = if view.dtype() == Dtype::F64 { DType::F64 } else { DType::F32 };
            let tensor = Tensor::from_bytes(dtype, view.shape(), view.data())?;
            dump.tensors.insert(name, tensor);
        }
        Ok(dump)
    }
}
