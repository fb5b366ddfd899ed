//! An unfinished training on disk, from which it goes on to the same bits.
//!
//! One file holds everything, so that no two parts of it can disagree: factors and moments as f32 tensors, and step,
//! log and reference log-probabilities as its metadata. It is written beside its place, synced and renamed. That the
//! folder belongs to a training with these very parameters and inputs is for the caller to see to.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::log::Line;
use super::loss::dpo::Sums;
use super::optimizer::{Moments, Parameters};
use crate::model::ModelError;

const FILE: &str = "checkpoint.safetensors";
/// The metadata's only field.
const STATE: &str = "state";

/// Where a training is.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The trained parameters by path.
    pub parameters: Parameters,
    /// The optimiser's moments by path.
    pub moments: BTreeMap<String, Moments>,
    /// The rest.
    pub state: State,
}

/// What of a training is no tensor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// One line for every step taken.
    pub log: Vec<Line>,
    /// The reference's log-probabilities of every example, where they will be needed again.
    pub reference: Vec<Option<Sums>>,
}

impl Checkpoint {
    /// Writes the checkpoint into `folder` in place of the one that is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        let mut tensors = BTreeMap::new();
        let mut add = |name: String, tensor: &Tensor<1>| {
            tensors.insert(name, tensor.to_data());
        };
        for (path, tensor) in &self.parameters {
            add(format!("parameter {path}"), tensor);
        }
        for (path, Moments { first, second }) in &self.moments {
            add(format!("first {path}"), first);
            add(format!("second {path}"), second);
        }
        let views: Vec<_> = tensors
            .iter()
            .map(|(name, data)| {
                let shape = data.shape().to_vec();
                let view = TensorView::new(Dtype::F32, shape, data.bytes()).expect("a value is four bytes");
                (name.as_str(), view)
            })
            .collect();
        let state = serde_json::to_string(&self.state).expect("the state has string keys");
        let metadata = HashMap::from([(STATE.to_owned(), state)]);
        write_atomically(folder, FILE, |path| {
            safetensors::serialize_to_file(views, Some(metadata), path).map_err(|error| match error {
                // Kept as it is: a full disk has a remedy of its own.
                SafeTensorError::IoError(cause) => cause,
                error => std::io::Error::other(error),
            })
        })
    }

    /// Reads the checkpoint in `folder` onto `device`; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load(folder: &Path, device: &Device) -> Result<Option<Self>, ModelError> {
        let path = folder.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(ModelError::io(&path, &cause)),
        };
        let broken = |cause: String| {
            ModelError::new(format!("{}: not a training checkpoint: {cause}", path.display()))
                .help("delete it; the training then starts from its beginning")
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|cause| broken(cause.to_string()))?;
        let text = header.metadata().as_ref().and_then(|fields| fields.get(STATE));
        let text = text.ok_or_else(|| broken("its state is missing".to_owned()))?;
        let state = serde_json::from_str(text).map_err(|cause| broken(cause.to_string()))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|cause| broken(cause.to_string()))?;
        let (mut parameters, mut first, mut second) = (Parameters::new(), Parameters::new(), Parameters::new());
        for (name, view) in tensors.iter() {
            let values: Vec<f32> = view
                .data()
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
                .collect();
            let count = values.len();
            let tensor = Tensor::from_data(TensorData::new(values, [count]), (device, DType::F32));
            match name.split_once(' ') {
                Some(("parameter", path)) => parameters.insert(path.to_owned(), tensor),
                Some(("first", path)) => first.insert(path.to_owned(), tensor),
                Some(("second", path)) => second.insert(path.to_owned(), tensor),
                _ => return Err(broken(format!("it has a tensor `{name}`"))),
            };
        }
        let mut moments = BTreeMap::new();
        for (path, first) in first {
            let second = second.remove(&path).ok_or_else(|| broken(format!("a moment of `{path}` is missing")))?;
            moments.insert(path, Moments { first, second });
        }
        Ok(Some(Self { parameters, moments, state }))
    }
}

/// The value that was fixed under `name` when a training in `folder` first started; `choose` chooses it then.
///
/// # Errors
/// When it can be neither read nor written.
pub fn fixed<T: Serialize + DeserializeOwned>(
    folder: &Path,
    name: &str,
    choose: impl FnOnce() -> T,
) -> Result<T, ModelError> {
    let file = format!("{name}.json");
    let path = folder.join(&file);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|cause| ModelError::new(format!("{}: {cause}", path.display())).help("delete it")),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            let value = choose();
            let text = serde_json::to_vec(&value).expect("the value has string keys");
            write_atomically(folder, &file, |path| fs::write(path, &text))?;
            Ok(value)
        }
        Err(cause) => Err(ModelError::io(&path, &cause)),
    }
}

/// Writes `name` in `folder` so that it is there as a whole or not at all, whatever happens.
fn write_atomically(
    folder: &Path,
    name: &str,
    write: impl FnOnce(&Path) -> std::io::Result<()>,
) -> Result<(), ModelError> {
    let (path, partial) = (folder.join(name), folder.join(format!("{name}.partial")));
    let all = || {
        write(&partial)?;
        File::open(&partial)?.sync_all()?;
        fs::rename(&partial, &path)?;
        File::open(folder)?.sync_all()
    };
    all().map_err(|cause| {
        // On a full disk the half of it would only take the room that is missing.
        let _ = fs::remove_file(&partial);
        ModelError::io(&path, &cause)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Tensor<1> {
        Tensor::from_floats(values, &Device::flex())
    }

    fn values(tensor: &Tensor<1>) -> Vec<f32> {
        tensor.try_to_vec_as().unwrap()
    }

    fn checkpoint(value: f32) -> Checkpoint {
        let line = Line {
            step: 1,
            epoch: 1,
            loss: 0.1 + 0.2,
            preference: None,
            learning_rate: 1e-7,
            gradient_norm: 1.0 / 3.0,
            tokens: 7,
            seconds: 0.25,
        };
        let sums = Sums { chosen: -100.0 / 3.0, rejected: -2.0 };
        Checkpoint {
            parameters: Parameters::from([("a".to_owned(), tensor(&[value, 1e-30]))]),
            moments: BTreeMap::from([(
                "a".to_owned(),
                Moments { first: tensor(&[2.0, 3.0]), second: tensor(&[4.0, 5.0]) },
            )]),
            state: State { log: vec![line], reference: vec![None, Some(sums)] },
        }
    }

    #[test]
    fn a_checkpoint_reads_back_bit_for_bit_and_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        checkpoint(1.0).save(folder.path()).unwrap();
        checkpoint(0.1).save(folder.path()).unwrap();
        let found = Checkpoint::load(folder.path(), &Device::flex()).unwrap().unwrap();
        assert_eq!(values(&found.parameters["a"]), [0.1, 1e-30]);
        assert_eq!(values(&found.moments["a"].first), [2.0, 3.0]);
        assert_eq!(values(&found.moments["a"].second), [4.0, 5.0]);
        assert_eq!(found.state, checkpoint(0.1).state);
    }

    #[test]
    fn without_a_checkpoint_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Checkpoint::load(folder.path(), &Device::flex()).unwrap().is_none());
    }

    #[test]
    fn a_torn_checkpoint_is_named_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        checkpoint(1.0).save(folder.path()).unwrap();
        let path = folder.path().join(FILE);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let error = Checkpoint::load(folder.path(), &Device::flex()).unwrap_err();
        assert!(error.message.contains(FILE) && error.help.is_some(), "{error:?}");
    }

    #[test]
    fn what_is_fixed_at_the_first_start_stays() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(fixed(folder.path(), "micro_batch_size", || 8).unwrap(), 8);
        assert_eq!(fixed(folder.path(), "micro_batch_size", || 4).unwrap(), 8);
    }
}
