//! What `generate` and `score` share: loading a model, its adapter, its chat template and pictures.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::args::ModelArguments;
use super::compiling::Compiling;
use super::device::{Machine, Override};
use super::ui::{CliError, Ui};
use crate::data::picture::decode;
use crate::device::{DeviceChoice, DeviceRequest};
use crate::model::adapter::Adapter;
use crate::model::contract::{ImageInput, ImageSettings, Model};
use crate::model::processor::Processor;
use crate::model::room::{self, Use};
use crate::model::template::TEMPLATES;
use crate::model::{ModelError, device, families, peft};
use stic_engine::diagnostic::did_you_mean;
use stic_engine::digest::Digest;

/// A loaded model.
pub struct Ready {
    /// The model.
    pub model: Arc<dyn Model>,
    /// Where it is loaded.
    pub choice: DeviceChoice,
    /// Its adapter.
    pub adapter: Option<Adapter>,
    /// Its tokenizer, chat template and image processor.
    pub processor: Processor,
    _compiling: Compiling,
}

/// Takes the device; while another process has it, waits and says so.
fn take(choice: DeviceChoice, ui: &Ui) {
    let mut said = false;
    device::take(choice, &mut |owner| {
        if !std::mem::replace(&mut said, true) {
            ui.print_hanging("note: ", &device::waiting(choice, owner), 6);
        }
        ControlFlow::Continue(())
    });
}

/// Help for a missing model directory: a name such as `llava-hf/llava-1.5-7b-hf` is a Hugging Face id.
fn of_hub(folder: &Path) -> String {
    let name = folder.to_string_lossy();
    let parts: Vec<&str> = name.split('/').collect();
    let is_part = |part: &&str| !part.is_empty() && !part.starts_with('.') && !part.contains(char::is_whitespace);
    let download = if parts.len() == 2 && parts.iter().all(is_part) && !folder.exists() {
        format!("; stic does not download models: hf download {name} --local-dir DIR")
    } else {
        String::new()
    };
    format!("`--model` takes a directory with a Hugging Face checkpoint{download}")
}

impl Ready {
    /// Loads the model and adapter named by `arguments`.
    ///
    /// # Errors
    /// When the model, the adapter or the device cannot be used, or a name is unknown.
    pub fn load(arguments: &ModelArguments, used: impl FnOnce(&Processor) -> Use, ui: &Ui) -> Result<Self, CliError> {
        let folder = &arguments.model;
        if !folder.is_dir() {
            let what = if folder.exists() { "a file, not a directory" } else { "no such directory" };
            return Err(CliError::usage(format!("{}: {what}", folder.display())).help(of_hub(folder)));
        }
        let template = arguments.template.as_deref();
        if let Some(written) = template.filter(|written| !TEMPLATES.contains(written)) {
            return Err(CliError::usage(format!("unknown template `{written}`")).help(did_you_mean(
                written,
                "templates",
                &TEMPLATES,
            )));
        }
        let mut settings = ImageSettings::new();
        for (name, values, _) in families::image_settings() {
            let Some(written) = arguments.images.0.get(name) else { continue };
            let kind = name.replace('_', " ");
            let value = values.iter().find(|value| *value == written).ok_or_else(|| {
                let help = did_you_mean(written, &format!("{kind}s"), &values);
                CliError::usage(format!("unknown {kind} `{written}`")).help(help)
            })?;
            settings.insert(name, value);
        }
        // Cheap checks come before the weights are read.
        let family = families::of(folder).map_err(problem)?;
        let shape = family.shape(folder).map_err(problem)?;
        let processor = Processor::read(folder, template, &settings).map_err(problem)?;
        let compiling = Compiling::watch({
            let ui = *ui;
            move |line| ui.say(line)
        });
        let machine = Machine::new(Override::new(&arguments.device)?);
        let chosen = machine.choose(DeviceRequest::default()).map_err(problem)?;
        let choice = chosen.choice;
        take(choice, ui);
        if let Some(doubt) = room::doubt(family, folder, choice, used(&processor)).map_err(problem)? {
            ui.print_hanging("note: ", &doubt, 6);
        }
        let (device, dtype) = device::open(choice).map_err(problem)?;
        let adapter = arguments.adapter.as_ref().map(|adapter| peft::read(adapter, &shape, &device)).transpose();
        let adapter = adapter.map_err(problem)?;
        let model = device::computing(choice, || family.load(folder, &device, dtype));
        let model = model.and_then(|loaded| loaded).map_err(problem)?;
        for note in
            model.notes().iter().chain(&processor.notes).chain(adapter.iter().flat_map(|adapter| &adapter.notes))
        {
            ui.print_hanging("note: ", note, 6);
        }
        Ok(Self { model, choice, adapter: adapter.map(|read| read.adapter), processor, _compiling: compiling })
    }

    /// The picture at `path`, and the digest of the file.
    ///
    /// # Errors
    /// When it cannot be read or is no picture.
    pub fn picture(&self, path: &Path) -> Result<(ImageInput, Digest), CliError> {
        let named = |cause: &dyn std::fmt::Display| format!("{}: {cause}", path.display());
        let bytes = std::fs::read(path).map_err(|cause| CliError::io(named(&cause), &cause))?;
        let picture = decode(&bytes).map_err(|cause| CliError::usage(named(&cause)))?;
        Ok((self.processor.image(&picture), Digest::of(&bytes)))
    }
}

/// `error` as an error of the command.
pub fn problem(error: ModelError) -> CliError {
    let made = if error.environment { CliError::failure(error.message) } else { CliError::usage(error.message) };
    made.help(error.help)
}
