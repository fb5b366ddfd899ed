//! JSON files of a checkpoint: fields with defaults, each held against its limit.
//!
//! A number that is beyond any model is refused by name: nothing is sized by a number that was not held against its
//! limit.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::data::sniff::{WrongContent, behind_mark};
use crate::model::{AGAIN, ModelError};

/// The most layers that a tower or a decoder may have.
pub const MOST_LAYERS: usize = 10_000;
/// The most attention heads.
pub const MOST_HEADS: usize = 1 << 16;
/// The most features of a position, of a head or within a feed-forward part.
pub const MOST_FEATURES: usize = 1 << 20;
/// The most tokens of a vocabulary.
pub const MOST_TOKENS: usize = 1 << 24;
/// The longest context, in positions.
pub const MOST_POSITIONS: usize = 1 << 30;
/// The most that a norm adds to a variance; models have 1e-5 and 1e-6.
pub const LARGEST_EPSILON: f64 = 1.0;
/// The largest base of rotary frequencies; models have up to some millions.
pub const LARGEST_BASE: f64 = 1e12;
/// The longest side of a view or of a scaled picture, in pixels; towers read some hundreds.
pub const MOST_PIXELS: usize = 4096;

/// The object in `config.json` of the model in `folder`.
///
/// # Errors
/// When there is no such directory or file, or the file is no JSON.
pub fn read_config(folder: &Path) -> Result<Map<String, Value>, ModelError> {
    if !folder.is_dir() {
        return Err(ModelError::new(format!("{}: not a directory", folder.display()))
            .help("`source` of a model names a directory with a Hugging Face checkpoint"));
    }
    let path = folder.join("config.json");
    if !path.is_file() {
        return Err(ModelError::new(format!("{}: `config.json` not found", folder.display()))
            .help("a model directory holds `config.json`, `*.safetensors` and `tokenizer.json`"));
    }
    read_object(&path)
}

/// The JSON object in `path`.
///
/// # Errors
/// When it cannot be read, or is something else.
pub fn read_object(path: &Path) -> Result<Map<String, Value>, ModelError> {
    let text = fs::read(path).map_err(|cause| ModelError::io(path, &cause))?;
    match serde_json::from_slice(behind_mark(&text)) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(ModelError::content(path, None, "not a JSON object")),
        Err(cause) => {
            Err(ModelError::content(path, WrongContent::instead_of_text(&text), format_args!("not JSON: {cause}")))
        }
    }
}

/// The JSON object in `path`; `None` when there is no such file.
///
/// # Errors
/// As [`read_object`].
pub fn read_optional(path: &Path) -> Result<Option<Map<String, Value>>, ModelError> {
    path.is_file().then(|| read_object(path)).transpose()
}

/// A token's id.
pub fn token(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// A token's text: the files write it as a string or as an object with `content`.
pub fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// The tokens that end a text: the `eos_token_id`, one or a list, of the first of `objects` that has one; each comes
/// with what its field is called. Ids beyond the vocabulary are never written; one at least must be within, or no
/// answer would end.
///
/// # Errors
/// When it is something else.
pub fn end_tokens<'a, const N: usize>(
    objects: [(Option<&'a Map<String, Value>>, &str); N],
    vocabulary: usize,
) -> Result<Option<Vec<u32>>, ModelError> {
    let named = |(map, name): (Option<&'a Map<String, Value>>, _)| {
        Some((map?.get("eos_token_id").filter(|value| !value.is_null())?, name))
    };
    let Some((value, name)) = objects.into_iter().find_map(named) else { return Ok(None) };
    let list: Option<Vec<u32>> = match value {
        Value::Array(list) => list.iter().map(token).collect(),
        one => token(one).map(|id| vec![id]),
    };
    let wrong = |what: &str| ModelError::new(format!("{name} is {value}, {what}"));
    let list = list.ok_or_else(|| wrong("not a token id or a list of them"))?;
    if list.iter().all(|id| *id as usize >= vocabulary) {
        let what = format!("none of the {vocabulary} tokens that the model knows: no answer would end");
        return Err(wrong(&what).help("use the file that the checkpoint was published with"));
    }
    Ok(Some(list))
}

/// That `name` is not what was `expected`.
pub fn wrong(name: &str, value: &Value, expected: &str) -> ModelError {
    ModelError::new(format!("`{name}` is {value}, not {expected}"))
}

/// That the value of `name` is not supported.
pub fn unsupported(name: &str, value: &str, supported: &str) -> ModelError {
    ModelError::new(format!("unsupported `{name}`: `{value}`")).help(format!("supported: {supported}"))
}

/// Whether `part` divides `whole`; a part called `2` is that number.
///
/// # Errors
/// When it does not.
pub fn divides(part_name: &str, part: usize, whole_name: &str, whole: usize) -> Result<(), ModelError> {
    if whole.is_multiple_of(part) {
        return Ok(());
    }
    let part_name = if part_name == "2" { "2".to_owned() } else { format!("`{part_name}`, {part}") };
    Err(ModelError::new(format!("`{whole_name}`, {whole}, is not a multiple of {part_name}")))
}

/// Fields of an object with defaults: what is left out or `null` has the default.
pub struct Fields<'a> {
    /// The object.
    pub map: &'a Map<String, Value>,
    /// What comes before a field's name in messages.
    pub path: String,
}

impl<'a> Fields<'a> {
    /// The fields of a file's own object.
    pub fn of(map: &'a Map<String, Value>) -> Self {
        Self { map, path: String::new() }
    }

    /// The value of `name`, unless it is `null`.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn read<T>(
        &self,
        name: &str,
        expected: &str,
        default: T,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, ModelError> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => convert(value).ok_or_else(|| wrong(&format!("{}{name}", self.path), value, expected)),
        }
    }

    /// A string.
    pub fn string(&self, name: &str, default: &'a str) -> Result<&'a str, ModelError> {
        self.read(name, "a string", default, Value::as_str)
    }

    /// A boolean.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, ModelError> {
        self.read(name, "`true` or `false`", default, Value::as_bool)
    }

    /// A number above zero, up to `most`.
    pub fn number(&self, name: &str, default: f64, most: f64) -> Result<f64, ModelError> {
        let number =
            self.read(name, "a number above zero", default, |value| value.as_f64().filter(|&number| number > 0.0))?;
        if number > most {
            let message = format!("`{}{name}` is {number:e}, more than the limit of {most}", self.path);
            return Err(ModelError::new(message).help(AGAIN));
        }
        Ok(number)
    }

    /// An integer from 1 to `most`.
    pub fn positive(&self, name: &str, default: usize, most: usize) -> Result<usize, ModelError> {
        let number = self.read(name, "an integer above zero", default as u64, |value| {
            // What is written as `336.0` or is beyond 64 bits is an integer too.
            let whole = value.as_f64().filter(|number| *number >= 1.0 && number.fract() == 0.0);
            value.as_u64().filter(|number| *number > 0).or(whole.map(|number| number as u64))
        })?;
        if number > most as u64 {
            let message = format!("`{}{name}` is {number}, more than the limit of {most}", self.path);
            return Err(ModelError::new(message).help(AGAIN));
        }
        Ok(number as usize)
    }

    /// An object; `empty` where there is none.
    pub fn object(&self, name: &str, empty: &'a Map<String, Value>) -> Result<Fields<'a>, ModelError> {
        let map = self.read(name, "an object", empty, Value::as_object)?;
        Ok(Fields { map, path: format!("{}{name}.", self.path) })
    }

    /// Refuses a value other than `only`, which is also the default.
    pub fn only(&self, name: &str, only: &str) -> Result<(), ModelError> {
        match self.string(name, "")? {
            "" => Ok(()),
            value if value == only => Ok(()),
            other => Err(unsupported(&format!("{}{name}", self.path), other, &format!("`{only}`"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_named_with_the_objects_that_it_is_in() {
        let (config, empty) = (json!({ "speaker": { "mix": { "heads": 0 } } }), Map::new());
        let root = Fields::of(config.as_object().unwrap());
        let mix = root.object("speaker", &empty).and_then(|speaker| speaker.object("mix", &empty)).unwrap();
        let error = mix.positive("heads", 1, MOST_HEADS).unwrap_err();
        assert_eq!(error.message, "`speaker.mix.heads` is 0, not an integer above zero");
    }
}
