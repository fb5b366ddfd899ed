//! An unfinished training as bytes, from which it continues bit for bit.
//!
//! One file holds everything, so that no two parts of it can disagree: factors and moments as f32 tensors, and step,
//! log and reference log-probabilities as its metadata, with a digest of all that. The caller decides where it is
//! stored and makes sure that it belongs to a training with the same parameters and inputs.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;

use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::log::Line;
use super::loss::dpo::Sums;
use super::optimizer::{Moments, Parameters};
use super::scale::LossScale;
use crate::model::ModelError;
use stic_engine::digest::Digest;

/// The name of a training's checkpoints.
const NAME: &str = "checkpoint.safetensors";
/// The metadata's fields.
const STATE: &str = "state";
/// See [`STATE`].
const DIGEST: &str = "digest";

/// Keeps the checkpoints of one training.
pub trait Checkpoints {
    /// Saves `content` under `name`, durable, and as a whole or not at all. The one before stays.
    ///
    /// # Errors
    /// When it cannot be written.
    fn save(&self, name: &str, content: &[u8]) -> Result<(), ModelError>;

    /// Offers `read` what was saved under `name`, the newest first, until it takes one. What it refuses with a reason
    /// is set aside, and described in the returned value.
    ///
    /// # Errors
    /// When one exists but cannot be read.
    fn load(&self, name: &str, read: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<Vec<String>, ModelError>;
}

/// Where a training is.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The trained parameters by path.
    pub parameters: Parameters,
    /// The optimizer's moments by path.
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
    /// How many steps the optimizer took: those that were not left out.
    pub taken: u64,
    /// The loss scale of the next step, where there is one.
    pub scale: Option<LossScale>,
    /// How many examples go through the model at once: another number gives other bits. In what [`Checkpoint::load`]
    /// returns it is there; earlier versions kept it in a file beside the checkpoint.
    #[serde(default)]
    pub micro_batch_size: Option<NonZeroUsize>,
}

/// What there is of checkpoints.
#[derive(Clone, Debug)]
pub struct Found {
    /// The newest that is sound.
    pub checkpoint: Option<Checkpoint>,
    /// What is wrong with those that are not.
    pub damaged: Vec<String>,
}

impl Checkpoint {
    /// Saves it in `checkpoints`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, checkpoints: &dyn Checkpoints) -> Result<(), ModelError> {
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
        let content = safetensors::serialize(views, Some(metadata)).expect("the header is JSON");
        checkpoints.save(NAME, &content)
    }

    /// Reads the newest sound one of `checkpoints` onto `device`.
    ///
    /// # Errors
    /// When one exists but cannot be read. One that can be read and is damaged is no error: it is reported.
    pub fn load(checkpoints: &dyn Checkpoints, device: &Device) -> Result<Found, ModelError> {
        let (size, mut damaged) = earlier_micro_batch_size(checkpoints)?;
        let mut checkpoint = None;
        damaged.extend(checkpoints.load(NAME, &mut |content| {
            let mut read = Self::upload(Sound::read(content)?, device)?;
            let size = read.state.micro_batch_size.or(size).ok_or("its micro-batch size is missing")?;
            read.state.micro_batch_size = Some(size);
            checkpoint = Some(read);
            Ok(())
        })?);
        Ok(Found { checkpoint, damaged })
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
            return Err("its content changed after it was written".to_owned());
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

/// The micro-batch size in the file where earlier versions kept it, and what is wrong with the file.
fn earlier_micro_batch_size(checkpoints: &dyn Checkpoints) -> Result<(Option<NonZeroUsize>, Vec<String>), ModelError> {
    let mut found = None;
    let damaged = checkpoints.load("micro_batch_size.json", &mut |content| {
        found = Some(serde_json::from_slice(content).map_err(|cause| cause.to_string())?);
        Ok(())
    })?;
    Ok((found, damaged))
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Checkpoints in memory, the newest last.
    #[derive(Default)]
    pub struct Kept(pub RefCell<HashMap<String, Vec<Vec<u8>>>>);

    impl Kept {
        /// Replaces the newest checkpoint.
        pub fn damage(&self, content: &[u8]) {
            *self.0.borrow_mut().get_mut(NAME).unwrap().last_mut().unwrap() = content.to_owned();
        }

        /// The newest checkpoint.
        pub fn newest(&self) -> Vec<u8> {
            self.0.borrow()[NAME].last().unwrap().clone()
        }
    }

    impl Checkpoints for Kept {
        fn save(&self, name: &str, content: &[u8]) -> Result<(), ModelError> {
            self.0.borrow_mut().entry(name.to_owned()).or_default().push(content.to_owned());
            Ok(())
        }

        fn load(
            &self,
            name: &str,
            read: &mut dyn FnMut(&[u8]) -> Result<(), String>,
        ) -> Result<Vec<String>, ModelError> {
            let mut damaged = Vec::new();
            let mut kept = self.0.borrow_mut();
            let kept = kept.entry(name.to_owned()).or_default();
            while let Some(content) = kept.last() {
                let Err(cause) = read(content) else { break };
                damaged.push(format!("{name} is damaged: {cause}"));
                kept.pop();
            }
            Ok(damaged)
        }
    }

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
                micro_batch_size: NonZeroUsize::new(2),
            },
        }
    }

    fn load(kept: &Kept) -> Found {
        Checkpoint::load(kept, &Device::flex()).unwrap()
    }

    #[test]
    fn a_checkpoint_reads_back_bit_for_bit_and_goes_before_the_one_before() {
        let kept = Kept::default();
        assert!(load(&kept).checkpoint.is_none());
        checkpoint(1.0).save(&kept).unwrap();
        checkpoint(0.1).save(&kept).unwrap();
        let Found { checkpoint: found, damaged } = load(&kept);
        let found = found.unwrap();
        assert_eq!(values(&found.parameters["a"]), [0.1, 1e-30]);
        assert_eq!(values(&found.moments["a"].first), [2.0, 3.0]);
        assert_eq!(values(&found.moments["a"].second), [4.0, 5.0]);
        assert_eq!(found.state, checkpoint(0.1).state);
        assert!(damaged.is_empty());
    }

    #[test]
    fn whatever_happens_to_the_newer_checkpoint_the_older_one_is_found() {
        let kept = Kept::default();
        checkpoint(1.0).save(&kept).unwrap();
        checkpoint(2.0).save(&kept).unwrap();
        let bytes = kept.newest();
        // A byte of each: of the header's length, of the header, of a tensor.
        let flipped = [0, 40, bytes.len() - 2].map(|at| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            bytes
        });
        let cut = [0, 4, 30, bytes.len() - 3].map(|length| bytes[..length].to_vec());
        for damaged in flipped.into_iter().chain(cut).chain([vec![0; bytes.len()]]) {
            kept.damage(&damaged);
            let Found { checkpoint: found, damaged } = load(&kept);
            assert_eq!(damaged.len(), 1, "{damaged:?}");
            assert_eq!(values(&found.unwrap().parameters["a"])[0], 1.0);
            checkpoint(2.0).save(&kept).unwrap();
        }
    }

    /// A checkpoint as earlier versions wrote it, with `content` as the file of its micro-batch size.
    fn earlier(content: &str) -> Kept {
        let kept = Kept::default();
        let mut checkpoint = checkpoint(1.0);
        checkpoint.state.micro_batch_size = None;
        checkpoint.save(&kept).unwrap();
        kept.save("micro_batch_size.json", content.as_bytes()).unwrap();
        kept
    }

    #[test]
    fn the_micro_batch_size_is_part_of_a_checkpoint_and_was_a_file_beside_it() {
        let size =
            |kept: &Kept| load(kept).checkpoint.map(|checkpoint| checkpoint.state.micro_batch_size.unwrap().get());
        assert_eq!(size(&earlier("4")), Some(4));
        let kept = Kept::default();
        checkpoint(1.0).save(&kept).unwrap();
        kept.save("micro_batch_size.json", b"0").unwrap();
        assert_eq!(size(&kept), Some(2), "the file is not read");
    }

    #[test]
    fn a_checkpoint_whose_micro_batch_size_is_lost_is_not_continued() {
        for content in ["0", "-1", "4.5", "?", "", "null"] {
            let Found { checkpoint, damaged } = load(&earlier(content));
            assert!(checkpoint.is_none(), "{content}");
            assert!(damaged[0].starts_with("micro_batch_size.json is damaged: "), "{damaged:?}");
            assert_eq!(damaged[1], "checkpoint.safetensors is damaged: its micro-batch size is missing");
        }
    }
}
