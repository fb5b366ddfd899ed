//! The families of models that are read. A family is a directory beside this file and one line in this list.

use std::path::Path;

use super::ModelError;
use super::contract::{AdapterNames, Family, ImageSetting};
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
        let model_type = Fields { map: &config, path: "" }.string("model_type", "")?;
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
    let types: Vec<String> =
        FAMILIES.iter().flat_map(|family| family.model_types()).map(|name| format!("`{name}`")).collect();
    let (last, others) = types.split_last().expect("a family");
    format!("supported are {} and {last} as Hugging Face stores them", others.join(", "))
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

/// The adapter names of the first family that has linear layers of all these names.
pub fn adapter_names_with(targets: &[String]) -> Option<&'static AdapterNames> {
    adapter_names().find(|names| targets.iter().all(|target| names.linears.iter().any(|(name, _)| name == target)))
}
