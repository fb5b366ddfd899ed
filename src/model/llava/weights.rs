//! A checkpoint's tensors out of memory-mapped safetensors files, one at a time.
//!
//! Both generations of Hugging Face's names are read. Every problem is found before the first tensor is uploaded, and
//! all of them are reported at once. This module does not know what the tensors are for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorInfo};
use serde_json::Value;

use super::{Tensors, read_object};
use crate::model::ModelError;

/// The tensors of the checkpoint in a folder.
pub struct Weights {
    files: Vec<MappedFile>,
    /// From a name in a file to the file and where in it.
    places: BTreeMap<String, (usize, TensorInfo)>,
    device: Device,
    dtype: DType,
    uploaded: usize,
}

struct MappedFile {
    path: PathBuf,
    map: Mmap,
    /// Where the data starts, after the header.
    start: usize,
}

impl Weights {
    /// Maps `model.safetensors`, or the shards that `model.safetensors.index.json` names; tensors will be uploaded to
    /// `device` in `dtype`.
    ///
    /// # Errors
    /// When there is neither, a shard is missing, or a file is truncated or no safetensors file.
    pub fn open(folder: &Path, device: &Device, dtype: DType) -> Result<Self, ModelError> {
        let files: Vec<MappedFile> =
            paths(folder)?.into_iter().map(MappedFile::open).collect::<Result<_, ModelError>>()?;
        let mut places = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            for (name, info) in file.header()? {
                places.insert(name, (index, info));
            }
        }
        Ok(Self { files, places, device: device.clone(), dtype, uploaded: 0 })
    }

    /// Whether all of `expected` is there in its shape and in a precision that is read.
    ///
    /// # Errors
    /// Names everything that is not.
    pub fn check(&self, expected: &[(String, Vec<usize>)]) -> Result<(), ModelError> {
        let problems: Vec<String> = expected
            .iter()
            .filter_map(|(name, shape)| match self.find(name) {
                None => Some(format!("tensor `{name}`: expected {shape:?}, found none")),
                Some((_, info)) if info.shape != *shape => {
                    Some(format!("tensor `{name}`: expected {shape:?}, found {:?}", info.shape))
                }
                Some((_, info)) if precision(info.dtype).is_none() => {
                    Some(format!("tensor `{name}`: expected f32, f16 or bf16, found {:?}", info.dtype))
                }
                Some(_) => None,
            })
            .collect();
        if problems.is_empty() {
            return Ok(());
        }
        let where_found = match self.files.as_slice() {
            [file] => file.path.display().to_string(),
            files => files[0].path.parent().unwrap_or(Path::new("")).display().to_string(),
        };
        let count = if problems.len() == 1 { "1 tensor".to_owned() } else { format!("{} tensors", problems.len()) };
        Err(ModelError::new(format!("{where_found}: {count} not as `config.json` says\n  {}", problems.join("\n  ")))
            .help("`config.json` and the weights belong to different models, or the checkpoint is incomplete"))
    }

    fn find(&self, name: &str) -> Option<&(usize, TensorInfo)> {
        self.places.get(name).or_else(|| self.places.get(&second_generation(name)))
    }

    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Result<Tensor<D>, ModelError> {
        self.check(&[(name.to_owned(), shape.to_vec())])?;
        let (index, info) = self.find(name).expect("checked");
        let (file, stored) = (&self.files[*index], precision(info.dtype).expect("checked"));
        let bytes = &file.map[file.start + info.data_offsets.0..file.start + info.data_offsets.1];
        let data = TensorData::from_bytes_vec(bytes.to_vec(), shape, stored);
        let (device, dtype) = (&self.device, self.dtype);
        let tensor = device.memory_persistent_allocations(data, |data| Tensor::from_data(data, (device, dtype)));
        self.uploaded += 1;
        // Uploads may be queued: waiting now and then keeps what is staged on the host small.
        if self.uploaded.is_multiple_of(8) {
            device.sync().map_err(|cause| ModelError {
                message: format!("{}: uploading `{name}`: {cause:?}", file.path.display()),
                help: Some("the model does not fit the device; choose another, or a smaller `dtype`".to_owned()),
                environment: true,
            })?;
        }
        Ok(tensor)
    }
}

impl Tensors for Weights {
    fn vector(&mut self, name: &str, shape: [usize; 1]) -> Result<Tensor<1>, ModelError> {
        self.tensor(name, shape)
    }

    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, ModelError> {
        self.tensor(name, shape)
    }

    fn kernel(&mut self, name: &str, shape: [usize; 4]) -> Result<Tensor<4>, ModelError> {
        self.tensor(name, shape)
    }
}

/// A first-generation name as transformers 4.52 and later write it.
fn second_generation(name: &str) -> String {
    match name.strip_prefix("language_model.") {
        Some(rest) if rest.starts_with("lm_head.") => rest.to_owned(),
        Some(rest) => format!("model.language_model.{}", rest.strip_prefix("model.").unwrap_or(rest)),
        None => format!("model.{name}"),
    }
}

fn precision(stored: Dtype) -> Option<DType> {
    match stored {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}

fn paths(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = folder.join("model.safetensors.index.json");
    if !index.is_file() {
        let pickled =
            folder.join("pytorch_model.bin").is_file() || folder.join("pytorch_model.bin.index.json").is_file();
        return Err(ModelError::new(format!(
            "{}: neither `model.safetensors` nor `model.safetensors.index.json`",
            folder.display()
        ))
        .help(if pickled {
            "pickled weights (`pytorch_model*.bin`) are not read: save the model with `safe_serialization=True`"
        } else {
            "a model folder holds `config.json`, `*.safetensors` and `tokenizer.json`"
        }));
    }
    let object = read_object(&index)?;
    let names: BTreeSet<&str> = object
        .get("weight_map")
        .and_then(Value::as_object)
        .map(|map| map.values().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    if names.is_empty() {
        return Err(ModelError::new(format!("{}: no `weight_map`", index.display())));
    }
    let missing: Vec<String> =
        names.iter().filter(|name| !folder.join(name).is_file()).map(|name| format!("`{name}`")).collect();
    if !missing.is_empty() {
        return Err(ModelError::new(format!("{}: names missing files: {}", index.display(), missing.join(", ")))
            .help("download the checkpoint again; every shard must lie beside the index"));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

impl MappedFile {
    fn open(path: PathBuf) -> Result<Self, ModelError> {
        let map = map(&path).map_err(|cause| ModelError::io(&path, &cause))?;
        let mut file = Self { path, map, start: 0 };
        let (length, metadata) = SafeTensors::read_metadata(&file.map).map_err(|cause| file.broken(&cause))?;
        file.start = 8 + length;
        let (promised, found) = (file.start + metadata.data_len(), file.map.len());
        if promised > found {
            return Err(ModelError::new(format!(
                "{}: truncated: its header promises {promised} bytes, the file has {found}",
                file.path.display()
            ))
            .help(AGAIN));
        }
        Ok(file)
    }

    fn header(&self) -> Result<Vec<(String, TensorInfo)>, ModelError> {
        let (_, metadata) = SafeTensors::read_metadata(&self.map).map_err(|cause| self.broken(&cause))?;
        Ok(metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect())
    }

    fn broken(&self, cause: &SafeTensorError) -> ModelError {
        let truncated = matches!(cause, SafeTensorError::HeaderTooSmall | SafeTensorError::InvalidHeaderLength);
        let what = if truncated { "truncated".to_owned() } else { format!("not a safetensors file: {cause}") };
        ModelError::new(format!("{}: {what}", self.path.display())).help(AGAIN)
    }
}

const AGAIN: &str = "copy or download the file again";

#[allow(unsafe_code)]
fn map(path: &Path) -> std::io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: the map is read-only, and checkpoint files are not written while a run reads them; were one truncated
    // meanwhile, the process would get a signal rather than wrong data.
    unsafe { Mmap::map(&file) }
}
