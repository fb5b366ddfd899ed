//! Adapters as results: writing, loading, and import from and export to PEFT directories.
//!
//! Tensors and settings are the identity. The base model's name, the dropout and the training log are side parts: they
//! do not change what the adapter computes.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::labels::absolute;
use crate::model::adapter::Adapter;
use crate::model::contract::{Model, Shape};
use crate::model::{ModelError, families, peft};
use stic_engine::digest::Value;
use stic_engine::node::{Artifact, Failure, Inputs, Objects, Output, Parameter, Part, Summary};
use stic_engine::spec::Resource;

/// The identity part with the tensors, under PEFT's names.
pub const TENSORS: &str = peft::TENSORS;
/// The identity part with rank, alpha and targets.
pub const SETTINGS: &str = "adapter.json";
/// The side part about the adapter's origin, for exports.
pub const ORIGIN: &str = "base.json";
/// The side part with one line per training step.
pub const LOG: &str = "log.jsonl";

/// What is not in the tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Settings {
    rank: usize,
    alpha: f64,
    /// Modules, in the order of a layer.
    targets: Vec<String>,
}

/// Where an adapter comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The base model's name, for imported adapters. For trained ones it comes from the pipeline file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
    /// The dropout used in training.
    pub dropout: f64,
}

/// Puts an adapter for a model of `shape` into the store: the identity parts of a result.
///
/// # Errors
/// When the store cannot be written.
pub fn write(adapter: &Adapter, shape: &Shape, objects: &dyn Objects) -> Result<Vec<Part>, Failure> {
    let settings = Settings { rank: adapter.rank, alpha: adapter.alpha, targets: adapter.targets.clone() };
    let tensors = peft::serialize(adapter, shape);
    Ok(vec![part(TENSORS, &tensors, objects)?, part(SETTINGS, &json(&settings), objects)?])
}

/// The side part that says where an adapter comes from.
///
/// # Errors
/// When the store cannot be written.
pub fn write_origin(origin: &Origin, objects: &dyn Objects) -> Result<Part, Failure> {
    part(ORIGIN, &json(origin), objects)
}

/// Puts `content` into the store as the part `name`.
///
/// # Errors
/// When the store cannot be written.
pub fn part(name: &str, content: &[u8], objects: &dyn Objects) -> Result<Part, Failure> {
    Ok(Part { name: name.to_owned(), digest: objects.put(content)? })
}

/// The adapter on `port`, if one is connected, for the decoder of `model` and on its device.
///
/// # Errors
/// When it does not fit the model, or its parts cannot be read.
pub fn load(inputs: &Inputs, port: &str, model: &dyn Model) -> Result<Option<Adapter>, Failure> {
    let Some(artifact) = inputs.artifacts(port).first() else { return Ok(None) };
    let named = |message: &str| format!("the adapter of `{}`: {message}", artifact.node);
    let Settings { rank, alpha, .. } = serde_json::from_slice(&inputs.part(artifact, SETTINGS)?)
        .map_err(|cause| Failure::node(named(&format!("{SETTINGS}: {cause}"))))?;
    let settings = peft::Settings { rank, alpha, ..peft::Settings::default() };
    let tensors = inputs.part(artifact, TENSORS)?;
    let read = peft::parse(settings, &tensors, model.shape(), &model.device())
        .map_err(|error| ModelError { message: named(&error.message), ..error })?;
    Ok(Some(read.adapter))
}

/// The shape of the PEFT adapter in `folder` as parameters of a node that continues training it. Reads no tensors.
///
/// # Errors
/// When the directory holds no adapter, or an unsupported one.
pub fn read_shape(folder: &Path) -> Result<Vec<Parameter>, ModelError> {
    let settings = peft::check(folder)?;
    let targets = targets(folder, &settings, &peft::open_tensors(folder)?)?;
    Ok(shape(settings.rank, settings.alpha, targets))
}

/// The PEFT adapter in `folder` as a result, and notes on it.
///
/// # Errors
/// When the directory holds no adapter, or an unsupported one. Whether it fits a model is checked when
/// it is loaded.
pub fn import(folder: &Path, objects: &dyn Objects) -> Result<(Output, Vec<String>), Failure> {
    let settings = peft::check(folder)?;
    let path = folder.join(peft::TENSORS);
    let written = fs::read(&path).map_err(|cause| Failure::io(&path, &cause))?;
    let (tensors, renamed) = peft::plain(&written).map_err(|error| error.of(&path))?;
    let targets = targets(folder, &settings, &tensors)?;
    let peft::Settings { rank, alpha, dropout, base, mut notes, .. } = settings;
    notes.extend(renamed);
    let line = format!("rank {rank}, alpha {alpha}, {}", targets.join(" "));
    let settings = Settings { rank, alpha, targets };
    let output = Output {
        identity: vec![part(TENSORS, &tensors, objects)?, part(SETTINGS, &json(&settings), objects)?],
        side: vec![write_origin(&Origin { base_model: base, dropout }, objects)?],
        objects: Vec::new(),
        summary: Summary { line, ..Summary::default() },
    };
    Ok((output, notes))
}

/// Writes the adapter `artifact` into `folder` as PEFT reads it, with its training log if it has one. `base_model` is the
/// model that was trained, named by its absolute path; without it, an imported adapter says which it is, and its tensors of which family.
///
/// # Errors
/// When a part cannot be read or the directory not be written.
pub fn export(
    artifact: &Artifact,
    objects: &dyn Objects,
    base_model: Option<&Resource>,
    folder: &Path,
) -> Result<(), Failure> {
    let read = |name: &str| artifact.part(name).map(|digest| objects.read(&digest)).transpose();
    let missing = |name: &str| Failure::node(format!("the result of `{}` has no part `{name}`", artifact.node));
    let broken = |name: &str, cause: serde_json::Error| {
        Failure::node(format!("the result of `{}` is broken: {name}: {cause}", artifact.node))
    };
    let tensors = read(TENSORS)?.ok_or_else(|| missing(TENSORS))?;
    let settings = read(SETTINGS)?.ok_or_else(|| missing(SETTINGS))?;
    let Settings { rank, alpha, targets } =
        serde_json::from_slice(&settings).map_err(|cause| broken(SETTINGS, cause))?;
    let origin: Origin = match read(ORIGIN)? {
        Some(text) => serde_json::from_slice(&text).map_err(|cause| broken(ORIGIN, cause))?,
        None => Origin::default(),
    };
    let (base, names) = match base_model {
        Some(model) => (absolute(&model.path), families::of(&model.path)?.adapter_names()),
        None => (origin.base_model.unwrap_or_default(), peft::names(&tensors)?),
    };
    let settings = peft::settings_text(rank, alpha, &targets, origin.dropout, &base, names.exclude);

    fs::create_dir_all(folder).map_err(|cause| Failure::io(folder, &cause))?;
    let put = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, content).map_err(|cause| Failure::io(&path, &cause))
    };
    put(peft::TENSORS, &tensors)?;
    put(peft::SETTINGS, settings.as_bytes())?;
    read(LOG)?.map_or(Ok(()), |log| put(LOG, &log))
}

/// The modules that the tensors of the adapter in `folder` belong to, in the order of a layer.
fn targets(folder: &Path, settings: &peft::Settings, tensors: &[u8]) -> Result<Vec<String>, ModelError> {
    let path = folder.join(peft::TENSORS);
    peft::targets(settings, tensors).map_err(|error| error.of(&path))
}

/// An adapter's shape as parameters.
pub fn shape(rank: usize, alpha: f64, targets: impl Into<Value>) -> Vec<Parameter> {
    vec![
        Parameter::function("lora.rank", rank),
        Parameter::function("lora.alpha", alpha),
        Parameter::function("lora.targets", targets),
    ]
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).expect("the value has string keys");
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;
    use crate::nodes::harness::TestContext;

    #[test]
    fn an_import_of_wrapped_names_is_the_import_of_plain_ones_and_says_so() {
        let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/llava/adapter");
        let harness = TestContext::new();
        let (plain, notes) = import(&reference, &*harness.objects).unwrap();
        assert_eq!(notes, Vec::<String>::new());

        let folder = tempfile::tempdir().unwrap();
        fs::copy(reference.join(peft::SETTINGS), folder.path().join(peft::SETTINGS)).unwrap();
        let bytes = harness.objects.read(&plain.identity[0].digest).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let wrapped = |name: &str| format!("_orig_mod.module.{}", name.replace(".lora_A.", ".lora_A.default."));
        let views = file.tensors().into_iter().map(|(name, view)| (wrapped(&name), view));
        let text = safetensors::serialize(views, None).unwrap();
        fs::write(folder.path().join(peft::TENSORS), text).unwrap();
        let (found, notes) = import(folder.path(), &*harness.objects).unwrap();
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert_eq!(found.identity[1], plain.identity[1]);
        let bytes = harness.objects.read(&found.identity[0].digest).unwrap();
        let found = SafeTensors::deserialize(&bytes).unwrap();
        for (name, view) in file.tensors() {
            assert_eq!(found.tensor(&name).unwrap(), view, "{name}");
        }
    }
}
