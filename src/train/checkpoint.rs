//! An unfinished training on disk, from which it goes on to the same bits.
//!
//! One file holds everything, so that no two parts of it can disagree: factors and moments as f32 tensors, and step,
//! log and reference log-probabilities as its metadata, with a digest of all that. It is written beside its place, synced,
//! read back and renamed; the one before stays, for the case that the newer is damaged later. That the folder belongs to
//! a training with these very parameters and inputs is for the caller to see to.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::log::Line;
use super::loss::dpo::Sums;
use super::optimizer::{Moments, Parameters};
use super::scale::LossScale;
use crate::digest::Digest;
use crate::model::ModelError;

/// The newer checkpoint.
const NEWER: &str = "checkpoint.safetensors";
/// The one before it.
const OLDER: &str = "checkpoint.older.safetensors";
/// The metadata's fields.
const STATE: &str = "state";
/// See [`STATE`].
const DIGEST: &str = "digest";

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
    /// How many steps the optimiser took: those that were not left out.
    pub taken: u64,
    /// The loss scale of the next step, where there is one.
    pub scale: Option<LossScale>,
}

/// What a folder has of checkpoints.
#[derive(Clone, Debug)]
pub struct Found {
    /// The newest that is sound.
    pub checkpoint: Option<Checkpoint>,
    /// What is wrong with those that are not.
    pub damaged: Vec<String>,
}

impl Checkpoint {
    /// Writes the checkpoint into `folder`. The one that is there is kept beside it, in place of the one before.
    ///
    /// # Errors
    /// When it cannot be written, or does not read back as it was written.
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
        let views: BTreeMap<&str, TensorView<'_>> = tensors
            .iter()
            .map(|(name, data)| {
                let shape = data.shape().to_vec();
                let view = TensorView::new(Dtype::F32, shape, data.bytes()).expect("a value is four bytes");
                (name.as_str(), view)
            })
            .collect();
        let state = serde_json::to_string(&self.state).expect("the state has string keys");
        let digest = digest(&state, views.iter().map(|(name, view)| (*name, view.data())));
        let metadata = HashMap::from([(STATE.to_owned(), state), (DIGEST.to_owned(), digest)]);
        let path = folder.join(NEWER);
        let partial = folder.join(format!("{NEWER}.partial"));
        let all = || {
            safetensors::serialize_to_file(views, Some(metadata), &partial).map_err(|error| match error {
                // Kept as it is: a full disk has a remedy of its own.
                SafeTensorError::IoError(cause) => cause,
                error => std::io::Error::other(error),
            })?;
            File::open(&partial)?.sync_all()?;
            Sound::read(&fs::read(&partial)?).map_err(std::io::Error::other)?;
            match fs::rename(&path, folder.join(OLDER)) {
                Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(cause),
                _ => {}
            }
            fs::rename(&partial, &path)?;
            File::open(folder)?.sync_all()
        };
        all().map_err(|cause| abandoned(&partial, &path, &cause))
    }

    /// Reads the newest sound checkpoint in `folder` onto `device`.
    ///
    /// # Errors
    /// When a file is there and cannot be read. One that can be read and is damaged is no error: it is reported.
    pub fn load(folder: &Path, device: &Device) -> Result<Found, ModelError> {
        let mut damaged = Vec::new();
        for name in [NEWER, OLDER] {
            let path = folder.join(name);
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(cause) if cause.kind() == ErrorKind::NotFound => continue,
                Err(cause) => return Err(ModelError { environment: true, ..ModelError::io(&path, &cause) }),
            };
            match Sound::read(&bytes).and_then(|sound| Self::upload(sound, device)) {
                Ok(checkpoint) => return Ok(Found { checkpoint: Some(checkpoint), damaged }),
                Err(cause) => {
                    // Out of the way, so that it does not take the older one's place when the next is written.
                    let aside = folder.join(format!("{name}.damaged"));
                    fs::rename(&path, aside).map_err(|cause| ModelError::io(&path, &cause))?;
                    damaged.push(format!("the checkpoint {} is damaged: {cause}", path.display()));
                }
            }
        }
        Ok(Found { checkpoint: None, damaged })
    }

    fn upload(Sound { state, tensors }: Sound<'_>, device: &Device) -> Result<Self, String> {
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
                _ => return Err(format!("it has a tensor `{name}`")),
            };
        }
        let mut moments = BTreeMap::new();
        for (path, first) in first {
            let second = second.remove(&path).ok_or_else(|| format!("a moment of `{path}` is missing"))?;
            moments.insert(path, Moments { first, second });
        }
        Ok(Self { parameters, moments, state })
    }
}

/// A file whose content is what was written.
struct Sound<'a> {
    state: State,
    tensors: SafeTensors<'a>,
}

impl<'a> Sound<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|cause| cause.to_string())?;
        let fields = header.metadata().clone().unwrap_or_default();
        let field = |name: &str| fields.get(name).ok_or_else(|| format!("its {name} is missing"));
        let (state, written) = (field(STATE)?, field(DIGEST)?);
        let tensors = SafeTensors::deserialize(bytes).map_err(|cause| cause.to_string())?;
        let mut views = tensors.tensors();
        views.sort_by(|(left, _), (right, _)| left.cmp(right));
        if digest(state, views.iter().map(|(name, view)| (name.as_str(), view.data()))) != *written {
            return Err("its content is not what was written".to_owned());
        }
        let state = serde_json::from_str(state).map_err(|cause| cause.to_string())?;
        Ok(Self { state, tensors })
    }
}

/// The digest of a state and of tensors in the order of their names.
fn digest<'a>(state: &str, tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut digests = Digest::of(state.as_bytes()).to_string();
    for (name, data) in tensors {
        digests += &format!(" {name} {}", Digest::of(data));
    }
    Digest::of(digests.as_bytes()).to_string()
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
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            let value = choose();
            let text = serde_json::to_vec(&value).expect("the value has string keys");
            write_atomically(folder, &file, &text)?;
            Ok(value)
        }
        Err(cause) => Err(ModelError::io(&path, &cause)),
    }
}

/// Writes `name` in `folder` so that it is there as a whole or not at all, whatever happens.
fn write_atomically(folder: &Path, name: &str, text: &[u8]) -> Result<(), ModelError> {
    let (path, partial) = (folder.join(name), folder.join(format!("{name}.partial")));
    let all = || {
        fs::write(&partial, text)?;
        File::open(&partial)?.sync_all()?;
        fs::rename(&partial, &path)?;
        File::open(folder)?.sync_all()
    };
    all().map_err(|cause| abandoned(&partial, &path, &cause))
}

/// That `path` could not be written. On a full disk the half of it would only take the room that is missing.
fn abandoned(partial: &Path, path: &Path, cause: &std::io::Error) -> ModelError {
    let _ = fs::remove_file(partial);
    ModelError { environment: true, ..ModelError::io(path, cause) }
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
            loss_scale: Some(512.0),
            skipped: false,
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
            state: State {
                log: vec![line],
                reference: vec![None, Some(sums)],
                taken: 1,
                scale: LossScale::of(DType::F16),
            },
        }
    }

    fn load(folder: &Path) -> Found {
        Checkpoint::load(folder, &Device::flex()).unwrap()
    }

    /// The first parameter of the checkpoint that is found.
    fn first(folder: &Path) -> Option<f32> {
        load(folder).checkpoint.map(|found| values(&found.parameters["a"])[0])
    }

    #[test]
    fn a_checkpoint_reads_back_bit_for_bit_and_goes_before_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        checkpoint(1.0).save(folder.path()).unwrap();
        checkpoint(0.1).save(folder.path()).unwrap();
        let Found { checkpoint: found, damaged } = load(folder.path());
        let found = found.unwrap();
        assert_eq!(values(&found.parameters["a"]), [0.1, 1e-30]);
        assert_eq!(values(&found.moments["a"].first), [2.0, 3.0]);
        assert_eq!(values(&found.moments["a"].second), [4.0, 5.0]);
        assert_eq!(found.state, checkpoint(0.1).state);
        assert!(damaged.is_empty());
    }

    #[test]
    fn without_a_checkpoint_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let found = load(folder.path());
        assert!(found.checkpoint.is_none() && found.damaged.is_empty());
    }

    #[test]
    fn whatever_happens_to_the_newer_checkpoint_the_older_one_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let newer = folder.path().join(NEWER);
        checkpoint(1.0).save(folder.path()).unwrap();
        checkpoint(2.0).save(folder.path()).unwrap();
        let bytes = fs::read(&newer).unwrap();
        // A byte of each: of the header's length, of the header, of a tensor.
        let flipped = [0, 40, bytes.len() - 2].map(|at| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            bytes
        });
        let cut = [0, 4, 30, bytes.len() - 3].map(|length| bytes[..length].to_vec());
        for damaged in flipped.into_iter().chain(cut).chain([vec![0; bytes.len()]]) {
            fs::write(&newer, &damaged).unwrap();
            let reported = load(folder.path()).damaged;
            assert!(reported.len() == 1 && reported[0].contains(NEWER), "{reported:?}");
            // As what a process leaves that is killed between the two renames.
            assert!(!newer.exists());
            assert_eq!(first(folder.path()), Some(1.0));
        }
        // And what goes on from there does not lose it.
        checkpoint(3.0).save(folder.path()).unwrap();
        assert_eq!(first(folder.path()), Some(3.0));
        fs::write(&newer, b"").unwrap();
        assert_eq!(first(folder.path()), Some(1.0));
    }

    #[test]
    fn when_no_checkpoint_is_sound_both_are_named() {
        let folder = tempfile::tempdir().unwrap();
        checkpoint(1.0).save(folder.path()).unwrap();
        checkpoint(2.0).save(folder.path()).unwrap();
        for name in [NEWER, OLDER] {
            fs::write(folder.path().join(name), b"").unwrap();
        }
        let found = load(folder.path());
        assert!(found.checkpoint.is_none());
        assert!(found.damaged[0].contains(NEWER) && found.damaged[1].contains(OLDER), "{:?}", found.damaged);
    }

    #[test]
    fn what_is_fixed_at_the_first_start_stays() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(fixed(folder.path(), "micro_batch_size", || 8).unwrap(), 8);
        assert_eq!(fixed(folder.path(), "micro_batch_size", || 4).unwrap(), 8);
    }
}
