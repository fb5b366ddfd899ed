//! What `generate` and `score` have in common: a model out of a folder, its adapter, its template and its pictures.

use std::path::Path;

use super::args::ModelArguments;
use super::voice::{Trouble, Voice};
use crate::data::picture::decode;
use crate::device::DeviceRequest;
use crate::diagnostic::did_you_mean;
use crate::digest::Digest;
use crate::model::llava::{AnyresRule, Config, ImageMode, Llava};
use crate::model::lora::Lora;
use crate::model::picture::{Prepared, Processor, prepare};
use crate::model::sequence::Scribe;
use crate::model::template::TEMPLATES;
use crate::model::{ModelError, device, peft};

/// A model that is ready to be asked.
pub struct Ready {
    /// The model.
    pub model: Llava,
    /// Its adapter.
    pub lora: Option<Lora>,
    /// How it reads and writes.
    pub scribe: Scribe,
    processor: Processor,
    mode: ImageMode,
}

/// What to do about a model that is not there: a name such as `llava-hf/llava-1.5-7b-hf` is one of Hugging Face.
fn of_hub(folder: &Path) -> String {
    let name = folder.to_string_lossy();
    let parts: Vec<&str> = name.split('/').collect();
    let is_part = |part: &&str| !part.is_empty() && !part.starts_with('.') && !part.contains(char::is_whitespace);
    let download = if parts.len() == 2 && parts.iter().all(is_part) && !folder.exists() {
        format!("; nothing is downloaded here: hf download {name} --local-dir DIR")
    } else {
        String::new()
    };
    format!("`--model` takes a folder with a Hugging Face checkpoint{download}")
}

impl Ready {
    /// Loads what `arguments` ask for.
    ///
    /// # Errors
    /// When the model, the adapter or the device cannot be used, or a name stands for nothing.
    pub fn load(arguments: &ModelArguments, voice: &Voice) -> Result<Self, Trouble> {
        let folder = &arguments.model;
        if !folder.is_dir() {
            let what = if folder.exists() { "a file, not a folder" } else { "no such folder" };
            return Err(Trouble::usage(format!("{}: {what}", folder.display())).help(of_hub(folder)));
        }
        let template = arguments.template.as_deref();
        if let Some(written) = template.filter(|written| !TEMPLATES.contains(written)) {
            return Err(Trouble::usage(format!("unknown template `{written}`")).help(did_you_mean(
                written,
                "templates",
                &TEMPLATES,
            )));
        }
        let modes = ImageMode::ALL.map(ImageMode::name);
        let mode = match arguments.image_mode.as_deref() {
            None => None,
            Some(written) => Some(ImageMode::ALL.into_iter().find(|mode| mode.name() == written).ok_or_else(|| {
                Trouble::usage(format!("unknown image mode `{written}`")).help(did_you_mean(
                    written,
                    "image modes",
                    &modes,
                ))
            })?),
        };
        let rule = match arguments.anyres_rule.as_deref() {
            None | Some("checkpoint") => None,
            Some(written) => {
                Some(AnyresRule::ALL.into_iter().find(|rule| rule.name() == written).ok_or_else(|| {
                    Trouble::usage(format!("unknown rule `{written}`")).help(did_you_mean(
                        written,
                        "rules",
                        &["checkpoint", "original", "huggingface"],
                    ))
                })?)
            }
        };
        // What is cheap to refuse is refused before weights are read.
        let mut config = Config::read(folder).map_err(trouble)?;
        config.anyres_rule = rule.unwrap_or(config.anyres_rule);
        if mode == Some(ImageMode::Anyres) && config.grid_pinpoints.is_empty() {
            return Err(Trouble::usage(format!("{}: `anyres` needs a `llava_next` checkpoint", folder.display()))
                .help("choose `crop` or `pad`".to_owned()));
        }
        let scribe = Scribe::read(folder, config.image_token, config.text.vocabulary, template).map_err(trouble)?;
        let processor = Processor::read(folder, &config).map_err(trouble)?;
        let (backend, index) = arguments.device;
        let request = DeviceRequest { backend, index, precision: arguments.dtype.0 };
        let (device, dtype) = device::choose(request).and_then(device::open).map_err(trouble)?;
        let adapter = match &arguments.adapter {
            Some(adapter) => Some(peft::read(adapter, &config.text, &device).map_err(trouble)?),
            None => None,
        };
        let model = Llava::load(folder, &device, dtype).map_err(trouble)?;
        for note in model.notes.iter().chain(&scribe.notes).chain(adapter.iter().flat_map(|adapter| &adapter.notes)) {
            voice.say_hanging("note: ", note, 6);
        }
        let mode = mode.unwrap_or(processor.mode);
        Ok(Self { model, lora: adapter.map(|adapter| adapter.lora), scribe, processor, mode })
    }

    /// The picture in the file `path`, and the digest of the file.
    ///
    /// # Errors
    /// When it cannot be read or is no picture.
    pub fn picture(&self, path: &Path) -> Result<(Prepared, Digest), Trouble> {
        let named = |cause: &dyn std::fmt::Display| format!("{}: {cause}", path.display());
        let bytes = std::fs::read(path).map_err(|cause| Trouble::io(named(&cause), &cause))?;
        let picture = decode(&bytes).map_err(|cause| Trouble::usage(named(&cause)))?;
        Ok((prepare(&picture, self.mode, &self.processor), Digest::of(&bytes)))
    }
}

/// A model that cannot be used, or cannot do what is asked.
pub fn trouble(error: ModelError) -> Trouble {
    let made = if error.environment { Trouble::failure(error.message) } else { Trouble::usage(error.message) };
    made.help(error.help)
}
