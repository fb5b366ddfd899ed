//! A checkpoint's tensors out of safetensors files, one at a time.
//!
//! Files are read, not mapped into memory: they are their owner's, and were one cut short, a process that has it mapped
//! would die. A tensor is copied on its way to the device in either case.
//!
//! Trainers and converters have named the same tensors in several ways; a family's [`Naming`] gives each its one name.
//! Every problem is found before the first tensor is uploaded, and all of them are reported at once. This
//! module does not know what the tensors are for.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, SafeTensors, TensorInfo};
use serde_json::Value;

use super::json::read_object;
use super::tensors::Tensors;
use crate::data::sniff::WrongContent;
use crate::model::{AGAIN, ModelError, listed};

/// How a family calls its tensors.
#[derive(Clone, Copy, Debug)]
pub struct Naming {
    /// The one name of the tensor that a file calls so.
    pub canonical: fn(&str) -> String,
    /// The parts of the model: what people call them, and how the names of their tensors begin.
    pub parts: &'static [(&'static str, &'static str)],
}

/// The tensors of the checkpoint in a directory.
pub struct Weights {
    naming: Naming,
    files: Vec<TensorFile>,
    /// From a tensor's one name to where it is.
    places: BTreeMap<String, Place>,
    device: Device,
    dtype: DType,
    uploaded: usize,
}

/// Where a tensor is.
struct Place {
    file: usize,
    /// Its name in the file.
    stored: String,
    info: TensorInfo,
}

struct TensorFile {
    path: PathBuf,
    file: File,
    /// The header and the length before it, as far as the file has them.
    head: Vec<u8>,
    /// How long the file was when it was opened.
    length: u64,
}

impl Weights {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names; tensors will be uploaded to
    /// `device` in `dtype`.
    ///
    /// # Errors
    /// When there is neither, a shard is missing, a file is truncated or no safetensors file, or two tensors that
    /// differ go by one name.
    pub fn open(folder: &Path, naming: Naming, device: &Device, dtype: DType) -> Result<Self, ModelError> {
        let (paths, missing) = paths(folder)?;
        let mut errors = Vec::from_iter(missing);
        let mut files = Vec::new();
        for path in paths {
            let opened = TensorFile::open(path).and_then(|file| file.header().map(|_| file));
            opened.map_or_else(|error| errors.push(error), |file| files.push(file));
        }
        let more = errors.split_off(errors.len().min(1));
        if let Some(mut first) = errors.pop() {
            more.iter().for_each(|error| first.message += &format!("; {}", error.message));
            return Err(first);
        }
        let mut weights = Self { naming, files, places: BTreeMap::new(), device: device.clone(), dtype, uploaded: 0 };
        for file in 0..weights.files.len() {
            // In the order of their names, so that a message does not depend on chance.
            for (stored, info) in BTreeMap::from_iter(weights.files[file].header()?) {
                weights.place(Place { file, stored, info })?;
            }
        }
        Ok(weights)
    }

    fn place(&mut self, place: Place) -> Result<(), ModelError> {
        let name = (self.naming.canonical)(&place.stored);
        if let Some(other) = self.places.get(&name)
            && !self.same(other, &place)?
        {
            let named = |place: &Place| format!("`{}` of {}", place.stored, self.files[place.file].path.display());
            return Err(ModelError::new(format!(
                "{} and {} differ, and are the same tensor",
                named(other),
                named(&place)
            ))
            .help("leave one of the two in the checkpoint: which one is meant cannot be determined"));
        }
        self.places.entry(name).or_insert(place);
        Ok(())
    }

    fn same(&self, left: &Place, right: &Place) -> Result<bool, ModelError> {
        let bytes = |place: &Place| self.files[place.file].take(&place.stored, &place.info);
        let alike = left.info.dtype == right.info.dtype && left.info.shape == right.info.shape;
        Ok(alike && bytes(left)? == bytes(right)?)
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Whether the tensors of these names, both of which exist, have the same values.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn equal(&self, left: &str, right: &str) -> Result<bool, ModelError> {
        self.same(&self.places[left], &self.places[right])
    }

    /// Gives the tensor `name` the further name `other`.
    pub fn alias(&mut self, name: &str, other: &str) {
        let Place { file, stored, info } = &self.places[name];
        let place = Place { file: *file, stored: stored.clone(), info: info.clone() };
        self.places.insert(other.to_owned(), place);
    }

    /// Whether all of `expected` exist with the right shape and a supported dtype.
    ///
    /// # Errors
    /// Lists all that do not. If all tensors of a part of the model are missing, that is reported once, with what
    /// the files have instead.
    pub fn check(&self, expected: &[(String, Vec<usize>)]) -> Result<(), ModelError> {
        let mut problems = Vec::new();
        let mut count = 0;
        let mut rest: Vec<&(String, Vec<usize>)> = expected.iter().collect();
        for (part, prefix) in self.naming.parts {
            let (inside, outside): (Vec<_>, Vec<_>) = rest.iter().partition(|tensor| tensor.0.starts_with(prefix));
            if inside.len() > 1 && inside.iter().all(|tensor: &&(String, Vec<usize>)| !self.has(&tensor.0)) {
                problems.push(format!("{part}: none of its {} tensors exists (`{prefix}…`)", inside.len()));
                count += inside.len();
                rest = outside;
            }
        }
        if count > 0 {
            let known: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
            let others = self.places.iter().filter(|(name, _)| !known.contains(name.as_str()));
            let others = families(others.map(|(_, place)| place.stored.as_str()));
            problems.push(format!("found instead: {}", if others.is_empty() { "nothing" } else { &others }));
        }
        let single = rest.into_iter().filter_map(|(name, shape)| self.problem(name, shape));
        problems.extend(single.inspect(|_| count += 1));
        if problems.is_empty() {
            return Ok(());
        }
        let where_found = match self.files.as_slice() {
            [file] => file.path.display().to_string(),
            files => files[0].path.parent().unwrap_or(Path::new("")).display().to_string(),
        };
        let count = if count == 1 { "1 tensor".to_owned() } else { format!("{count} tensors") };
        Err(ModelError::new(format!("{where_found}: {count} not as `config.json` says{}", listed(&problems)))
            .help("`config.json` and the weights belong to different models, or the checkpoint is incomplete"))
    }

    fn problem(&self, name: &str, shape: &[usize]) -> Option<String> {
        let Some(Place { stored, info, .. }) = self.places.get(name) else {
            return Some(format!("tensor `{name}`: expected {shape:?}, found none"));
        };
        if info.shape != shape {
            return Some(format!("tensor `{stored}`: expected {shape:?}, found {:?}", info.shape));
        }
        let read = precision(info.dtype).is_some();
        (!read).then(|| format!("tensor `{stored}`: expected f32, f16 or bf16, found {:?}", info.dtype))
    }
}

impl Tensors for Weights {
    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Result<Tensor<D>, ModelError> {
        self.check(&[(name.to_owned(), shape.to_vec())])?;
        let Place { file, stored: stored_name, info } = &self.places[name];
        let (file, stored) = (&self.files[*file], precision(info.dtype).expect("checked"));
        let data = TensorData::from_bytes_vec(file.take(stored_name, info)?, shape, stored);
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

/// The beginnings of `names` and how many tensors each has, the most frequent first: `` `model.visual.…` (32) ``.
fn families<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 6;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        let words: Vec<&str> = name.split('.').collect();
        let number = words.iter().position(|word| word.parse::<u64>().is_ok()).unwrap_or(words.len() - 1);
        let kept = number.clamp(1, 3).min(words.len());
        let family = words[..kept].join(".");
        *counts.entry(if kept < words.len() { family + ".…" } else { family }).or_default() += 1;
    }
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut list: Vec<String> = counts.iter().take(MOST).map(|(name, count)| format!("`{name}` ({count})")).collect();
    if counts.len() > MOST {
        list.push(format!("and {} more", counts.len() - MOST));
    }
    list.join(", ")
}

/// burn's name of a precision in which weights are read.
pub fn precision(stored: Dtype) -> Option<DType> {
    match stored {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}

/// How many numbers the checkpoint in `folder` has, by the headers of its files.
///
/// # Errors
/// As [`Weights::open`].
pub fn parameters(folder: &Path) -> Result<u64, ModelError> {
    let (paths, missing) = paths(folder)?;
    if let Some(error) = missing {
        return Err(error);
    }
    let mut count = 0;
    for path in paths {
        let tensors = TensorFile::open(path)?.header()?;
        count +=
            tensors.iter().map(|(_, info)| info.shape.iter().map(|size| *size as u64).product::<u64>()).sum::<u64>();
    }
    Ok(count)
}

/// The longest header that safetensors files may have.
const LONGEST_HEADER: u64 = 100_000_000;

/// The existing files of tensors, and the error on missing ones.
fn paths(folder: &Path) -> Result<(Vec<PathBuf>, Option<ModelError>), ModelError> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Ok((vec![single], None));
    }
    let index = folder.join("model.safetensors.index.json");
    if !index.is_file() {
        let message = format!("{}: neither `model.safetensors` nor `model.safetensors.index.json`", folder.display());
        let others = others(folder);
        let pickled =
            ["pytorch_model.bin", "pytorch_model.bin.index.json"].iter().any(|name| folder.join(name).is_file());
        return Err(ModelError::new(message).help(if !others.is_empty() {
            format!(
                "{} {} there: a variant such as `fp16` is read under the name `model.safetensors`, shards with the index \
                 that names them",
                others.join(", "),
                if others.len() == 1 { "is" } else { "are" }
            )
        } else if pickled {
            "pickled weights (`pytorch_model*.bin`) are not read: save the model with `safe_serialization=True`".to_owned()
        } else {
            "a model directory holds `config.json`, `*.safetensors` and `tokenizer.json`".to_owned()
        }));
    }
    let object = read_object(&index)?;
    let names: BTreeSet<&str> = object
        .get("weight_map")
        .and_then(Value::as_object)
        .map(|map| map.values().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    if names.is_empty() {
        return Err(ModelError::new(format!("{}: `weight_map` is missing", index.display())));
    }
    let is_beside = |name: &str| Path::new(name).file_name() == Some(OsStr::new(name));
    if let Some(elsewhere) = names.iter().find(|name| !is_beside(name)) {
        let message = format!("{}: names `{elsewhere}`, which is not a file beside it", index.display());
        return Err(ModelError::new(message).help("every shard must be beside the index"));
    }
    let (present, missing): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| folder.join(name).is_file());
    let missing: Vec<String> = missing.iter().map(|name| format!("`{name}`")).collect();
    let error = (!missing.is_empty()).then(|| {
        ModelError::new(format!("{}: names missing files: {}", index.display(), missing.join(", ")))
            .help("download the checkpoint again; every shard must be beside the index")
    });
    Ok((present.into_iter().map(|name| folder.join(name)).collect(), error))
}

/// The first few files of tensors in `folder`, under any name.
fn others(folder: &Path) -> Vec<String> {
    const MOST: usize = 3;
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let mut found: Vec<String> = names.filter(|name| name.ends_with(".safetensors")).collect();
    found.sort();
    found.iter().take(MOST).map(|name| format!("`{name}`")).collect()
}

impl TensorFile {
    fn open(path: PathBuf) -> Result<Self, ModelError> {
        let open = || -> std::io::Result<(File, Vec<u8>, u64)> {
            let mut file = File::open(&path)?;
            let length = file.metadata()?.len();
            let mut head = Vec::new();
            (&mut file).take(8).read_to_end(&mut head)?;
            // A length from another kind of file may be anything.
            let header = head.first_chunk().map_or(0, |length| u64::from_le_bytes(*length)).min(LONGEST_HEADER);
            (&mut file).take(header).read_to_end(&mut head)?;
            Ok((file, head, length))
        };
        let (file, head, length) = open().map_err(|cause| ModelError::io(&path, &cause))?;
        Ok(Self { path, file, head, length })
    }

    fn header(&self) -> Result<Vec<(String, TensorInfo)>, ModelError> {
        let complete = |metadata: &Metadata| self.head.len() as u64 + metadata.data_len() as u64 == self.length;
        let metadata = match SafeTensors::read_metadata(&self.head) {
            // Said of a header without data, when there is nothing else to say of it.
            Err(SafeTensorError::MetadataIncompleteBuffer) => serde_json::from_slice::<Metadata>(&self.head[8..])
                .ok()
                .filter(complete)
                .ok_or(SafeTensorError::MetadataIncompleteBuffer),
            Ok((_, metadata)) if !complete(&metadata) => Err(SafeTensorError::MetadataIncompleteBuffer),
            read => read.map(|(_, metadata)| metadata),
        };
        let metadata = metadata.map_err(|cause| self.broken(&cause))?;
        Ok(metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect())
    }

    /// The bytes of the tensor `name`.
    fn take(&self, name: &str, info: &TensorInfo) -> Result<Vec<u8>, ModelError> {
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        let mut file = &self.file;
        file.seek(SeekFrom::Start((self.head.len() + start) as u64))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|cause| match cause.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    ModelError::new(format!("{}: cut short while `{name}` was read", self.path.display())).help(AGAIN)
                }
                _ => ModelError::io(&self.path, &cause),
            })?;
        Ok(bytes)
    }

    fn broken(&self, cause: &SafeTensorError) -> ModelError {
        let found = self.length as usize;
        let other = WrongContent::instead_of_tensors(&self.head);
        let what = match self.promised() {
            Some(promised) if promised > found => {
                format!("truncated: its header promises {promised} bytes, the file has {found}")
            }
            None if matches!(cause, SafeTensorError::HeaderTooSmall | SafeTensorError::InvalidHeaderLength) => {
                format!("truncated: the file ends within its header, at {found} bytes")
            }
            _ => format!("not a safetensors file: {cause}"),
        };
        ModelError::content(&self.path, other, what)
    }

    /// How long the file should be by its header, if it has one.
    fn promised(&self) -> Option<usize> {
        let length = u64::from_le_bytes(*self.head.first_chunk()?) as usize;
        let header: Value = serde_json::from_slice(self.head.get(8..8usize.checked_add(length)?)?).ok()?;
        let ends = header.as_object()?.values().filter_map(|tensor| tensor["data_offsets"][1].as_u64());
        Some(8 + length + ends.max()? as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use safetensors::tensor::TensorView;

    use super::*;

    fn file(tensors: &[(&str, Dtype, &[usize])]) -> Vec<u8> {
        let bytes = [0u8; 4096];
        let views = tensors.iter().map(|(name, dtype, shape)| {
            let size = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            (*name, TensorView::new(*dtype, shape.to_vec(), &bytes[..size]).expect("fits"))
        });
        safetensors::serialize(views, None).expect("serializes")
    }

    fn open(folder: &Path) -> Result<Weights, ModelError> {
        let canonical = |stored: &str| stored.trim_start_matches("model.").to_owned();
        let naming = Naming { canonical, parts: &[("the tower", "tower.")] };
        Weights::open(folder, naming, &Device::flex(), DType::F32)
    }

    fn refused(folder: &Path) -> String {
        let message = open(folder).err().expect("refused").message;
        message.replace(&format!("{}/", folder.display()), "").replace(&folder.display().to_string(), "FOLDER")
    }

    #[test]
    fn everything_that_is_not_as_expected_is_named_at_once() {
        let folder = tempfile::tempdir().expect("a directory");
        let bytes = file(&[("a.weight", Dtype::F16, &[2, 3]), ("b.weight", Dtype::I32, &[4])]);
        fs::write(folder.path().join("model.safetensors"), bytes).expect("written");
        let weights = open(folder.path()).expect("opens");
        assert!(weights.check(&[("a.weight".to_owned(), vec![2, 3])]).is_ok());
        let error = weights
            .check(&[
                ("a.weight".to_owned(), vec![3, 2]),
                ("b.weight".to_owned(), vec![4]),
                ("c.weight".to_owned(), vec![5]),
            ])
            .expect_err("refused");
        let lines: Vec<&str> = error.message.lines().map(str::trim).collect();
        assert!(lines[0].ends_with("model.safetensors: 3 tensors not as `config.json` says"), "{}", lines[0]);
        assert_eq!(
            lines[1..],
            [
                "tensor `a.weight`: expected [3, 2], found [2, 3]",
                "tensor `b.weight`: expected f32, f16 or bf16, found I32",
                "tensor `c.weight`: expected [5], found none",
            ]
        );
    }

    #[test]
    fn a_truncated_file_says_so_wherever_it_was_cut() {
        let folder = tempfile::tempdir().expect("a directory");
        let bytes = file(&[("a.weight", Dtype::F32, &[2, 3])]);
        let path = folder.path().join("model.safetensors");
        fs::write(&path, &bytes[..bytes.len() - 5]).expect("written");
        let (whole, found) = (bytes.len(), bytes.len() - 5);
        assert_eq!(
            refused(folder.path()),
            format!("model.safetensors: truncated: its header promises {whole} bytes, the file has {found}")
        );
        for length in [20, 3] {
            fs::write(&path, &bytes[..length]).expect("written");
            let expected = format!("model.safetensors: truncated: the file ends within its header, at {length} bytes");
            assert_eq!(refused(folder.path()), expected);
        }
        fs::write(&path, b"").expect("written");
        assert_eq!(refused(folder.path()), "model.safetensors: an empty file");
    }

    #[test]
    fn a_file_that_is_cut_short_under_its_reader_is_an_error_and_not_the_end_of_the_process() {
        let folder = tempfile::tempdir().expect("a directory");
        let bytes = file(&[("a.weight", Dtype::F32, &[32, 32])]);
        let path = folder.path().join("model.safetensors");
        fs::write(&path, &bytes).expect("written");
        let mut weights = open(folder.path()).expect("opens");
        assert_eq!(weights.tensor("a.weight", [32, 32]).expect("reads").dims(), [32, 32]);
        File::options().write(true).open(&path).and_then(|file| file.set_len(100)).expect("cut");
        let error = weights.tensor("a.weight", [32, 32]).expect_err("refused");
        assert!(error.message.ends_with("model.safetensors: cut short while `a.weight` was read"), "{error}");
    }

    #[test]
    fn a_missing_shard_is_named_and_so_are_missing_weights() {
        let folder = tempfile::tempdir().expect("a directory");
        assert_eq!(refused(folder.path()), "FOLDER: neither `model.safetensors` nor `model.safetensors.index.json`");
        let variant = folder.path().join("model.fp16.safetensors");
        fs::write(&variant, file(&[("a", Dtype::F32, &[1])])).expect("written");
        let help = open(folder.path()).err().and_then(|error| error.help).expect("a remedy");
        assert!(help.starts_with("`model.fp16.safetensors` is there: a variant"), "{help}");
        let index = folder.path().join("model.safetensors.index.json");
        fs::write(&index, r#"{ "weight_map": { "a": "../other.safetensors" } }"#).expect("written");

        assert_eq!(
            refused(folder.path()),
            "model.safetensors.index.json: names `../other.safetensors`, which is not a file beside it"
        );
        fs::write(&index, r#"{ "weight_map": { "a": "1.safetensors", "b": "2.safetensors" } }"#).expect("written");
        fs::write(folder.path().join("1.safetensors"), file(&[("a", Dtype::F32, &[1])])).expect("written");
        assert_eq!(refused(folder.path()), "model.safetensors.index.json: names missing files: `2.safetensors`");
        fs::write(folder.path().join("1.safetensors"), "version https://git-lfs.github.com/spec/v1\n").unwrap();
        let both = refused(folder.path());
        assert!(both.contains("missing files: `2.safetensors`") && both.contains("1.safetensors: "), "{both}");
    }

    #[test]
    fn where_a_part_of_the_model_is_missing_what_is_there_instead_is_named() {
        let folder = tempfile::tempdir().expect("a directory");
        let tensors: Vec<String> = (0..3).map(|layer| format!("model.visual.blocks.{layer}.weight")).collect();
        let mut all: Vec<(&str, Dtype, &[usize])> =
            tensors.iter().map(|name| (name.as_str(), Dtype::F16, &[2][..])).collect();
        all.push(("lm_head.weight", Dtype::F16, &[2]));
        fs::write(folder.path().join("model.safetensors"), file(&all)).expect("written");
        let expected = ["tower.a", "tower.b", "lm_head.weight"];
        let expected = expected.map(|name| (name.to_owned(), vec![2]));
        let error = open(folder.path()).expect("opens").check(&expected).expect_err("refused");
        let lines: Vec<&str> = error.message.lines().map(str::trim).collect();
        assert!(lines[0].ends_with("model.safetensors: 2 tensors not as `config.json` says"), "{}", lines[0]);
        assert_eq!(
            lines[1..],
            ["the tower: none of its 2 tensors exists (`tower.…`)", "found instead: `model.visual.blocks.…` (3)",]
        );
    }

    #[test]
    fn two_tensors_of_one_name_are_refused_unless_they_are_equal() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("model.safetensors");
        let twice: &[(&str, Dtype, &[usize])] =
            &[("model.lm_head.weight", Dtype::F32, &[2]), ("lm_head.weight", Dtype::F32, &[2])];
        let mut bytes = file(twice);
        fs::write(&path, &bytes).expect("written");
        assert!(open(folder.path()).is_ok());
        *bytes.last_mut().expect("data") = 1;
        fs::write(&path, &bytes).expect("written");
        assert_eq!(
            refused(folder.path()),
            "`lm_head.weight` of model.safetensors and `model.lm_head.weight` of model.safetensors differ, and are the \
             same tensor"
        );
    }
}
