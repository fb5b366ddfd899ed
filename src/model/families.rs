//! The families of models that are read. A family is a directory beside this file, a `pub mod` in `model/mod.rs`, and one
//! line in this list.

use std::path::Path;

use super::ModelError;
use super::contract::{AdapterNames, Family, ImageProcessor, ImageSetting, ImageSettings};
use super::files::Fields;
use super::files::json::read_config;
use super::llava::LlavaFamily;

/// All families.
static FAMILIES: &[&dyn Family] = &[
    &LlavaFamily,
    #[cfg(test)]
    &super::toy::ToyFamily,
];

/// The family of the checkpoint in `folder`, by the `model_type` of its `config.json`.
///
/// # Errors
/// When there is no configuration, or it is of no family that is read.
pub fn of(folder: &Path) -> Result<&'static dyn Family, ModelError> {
    let config = read_config(folder)?;
    let of_config = || {
        let model_type = Fields::of(&config).string("model_type", "")?;
        let family = FAMILIES.iter().copied().find(|family| family.recognizes(model_type));
        family.ok_or_else(|| {
            ModelError::new(match model_type {
                "" => "no `model_type`".to_owned(),
                other => format!("unsupported architecture `{other}`"),
            })
            .help(supported())
        })
    };
    of_config().map_err(|error: ModelError| error.of(&folder.join("config.json")))
}

fn supported() -> String {
    let types: Vec<&str> = FAMILIES.iter().flat_map(|family| family.model_types()).copied().collect();
    format!("supported are {} as Hugging Face stores them", quoted(&types))
}

/// `a`, `b` and `c`.
fn quoted(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => names.concat(),
    }
}

/// The image processor of the checkpoint in `folder`, changed by `settings`.
///
/// # Errors
/// As [`of`] and [`Family::image_processor`]; when the checkpoint's family has no such setting, or not with this value.
pub fn image_processor(folder: &Path, settings: &ImageSettings) -> Result<Box<dyn ImageProcessor>, ModelError> {
    let family = of(folder)?;
    let known = family.image_settings();
    for (name, value) in settings {
        match known.iter().find(|known| known.name == *name) {
            Some(known) if known.values.contains(value) => {}
            Some(known) => {
                return Err(ModelError::new(format!("`{name}` of this model cannot be `{value}`"))
                    .help(format!("it can be {}", quoted(known.values))));
            }
            None => {
                let names: Vec<&str> = known.iter().map(|known| known.name).collect();
                let help = if names.is_empty() { "no image settings".to_owned() } else { quoted(&names) };
                return Err(ModelError::new(format!("the model has no image setting `{name}`"))
                    .help(format!("models of its family have {help}")));
            }
        }
    }
    family.image_processor(folder, settings)
}

/// The image settings of all families, their values, and what they do.
pub fn image_settings() -> Vec<(&'static str, Vec<&'static str>, &'static str)> {
    let mut settings: Vec<(&str, Vec<&str>, &str)> = Vec::new();
    for ImageSetting { name, values, help } in FAMILIES.iter().flat_map(|family| family.image_settings()) {
        match settings.iter_mut().find(|(known, ..)| known == name) {
            Some((_, known, _)) => {
                known.extend(values.iter().filter(|value| !known.contains(value)).collect::<Vec<_>>());
            }
            None => settings.push((name, values.to_vec(), help)),
        }
    }
    settings
}

/// The names of the linear layers that adapters of any family may change.
pub fn linear_names() -> Vec<&'static str> {
    let mut names = Vec::new();
    for (name, _) in FAMILIES.iter().flat_map(|family| family.adapter_names().linears) {
        if !names.contains(name) {
            names.push(*name);
        }
    }
    names
}

/// The adapter names of all families.
pub fn adapter_names() -> impl Iterator<Item = &'static AdapterNames> {
    FAMILIES.iter().map(|family| family.adapter_names())
}
