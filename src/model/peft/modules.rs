//! Which modules an adapter is for, as the settings of PEFT say: names or a pattern, exceptions, and layers.
//!
//! PEFT passes over tensors of other modules without a word. Here they are an error, since a person who wrote both
//! cannot have meant that. This module does not know what the tensors hold.

use serde_json::{Map, Value};
use tokenizers::utils::SysRegex;

use crate::model::{ModelError, listed};

/// What the settings say of modules. By default, all of those that have tensors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Modules {
    targets: Option<Names>,
    excluded: Option<Names>,
    layers: Vec<u64>,
}

/// Modules by name. A name stands for all modules whose path ends with it.
#[derive(Clone, Debug, PartialEq)]
enum Names {
    List(Vec<String>),
    Pattern(String),
}

impl Modules {
    /// Reads `target_modules`, `exclude_modules` and `layers_to_transform`.
    ///
    /// # Errors
    /// When one has a form that is not PEFT's, or asks for what is not supported.
    pub fn read(settings: &Map<String, Value>) -> Result<Self, ModelError> {
        let layers = match settings.get("layers_to_transform") {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(Value::as_u64).collect(),
            Some(value) => value.as_u64().map(|layer| vec![layer]),
        };
        let layers = layers.ok_or_else(|| wrong("layers_to_transform", settings, "a layer or a list of layers"))?;
        // A pattern of layers' names matters only with layers; all decoders that are read call theirs `layers`.
        let named = match settings.get("layers_pattern") {
            None | Some(Value::Null) => true,
            Some(Value::Array(list)) => list.is_empty() || list.iter().any(|name| name == "layers"),
            Some(value) => value == "layers" || value == "",
        };
        if !layers.is_empty() && !named {
            return Err(wrong("layers_pattern", settings, "`layers`, as the language model's layers are called"));
        }
        let targets = names("target_modules", settings)?.filter(|names| *names != Names::Pattern("all-linear".into()));
        Ok(Self { targets, excluded: names("exclude_modules", settings)?, layers })
    }

    /// Looks whether the modules of all `tensors`, PEFT's names of the decoder's factors, are meant.
    ///
    /// # Errors
    /// Those that are not.
    pub fn check<'a>(&self, tensors: impl IntoIterator<Item = &'a str>) -> Result<(), ModelError> {
        let targets = self.targets.as_ref().map(|names| names.matcher("target_modules")).transpose()?;
        let excluded = self.excluded.as_ref().map(|names| names.matcher("exclude_modules")).transpose()?;
        let mut left_out: Vec<String> = Vec::new();
        for name in tensors {
            let module = name.rsplit_once(".lora_").map_or(name, |(module, _)| module);
            let module = module.strip_prefix("base_model.model.").unwrap_or(module);
            let by = if excluded.as_ref().is_some_and(|matches| matches(module)) {
                "exclude_modules"
            } else if targets.as_ref().is_some_and(|matches| !matches(module)) {
                "target_modules"
            } else if !self.has_layer(module) {
                "layers_to_transform"
            } else {
                continue;
            };
            left_out.push(format!("`{module}`, by `{by}`"));
        }
        left_out.sort();
        left_out.dedup();
        if left_out.is_empty() {
            return Ok(());
        }
        Err(ModelError::new(format!(
            "the adapter has tensors of modules that its settings exclude{}",
            listed(&left_out)
        ))
        .help(
            "settings and tensors are of different adapters, or one of them was edited: save both again with PEFT's \
             `save_pretrained`",
        ))
    }

    /// Whether the layer of `module` is meant. As in PEFT, a pattern says all there is to say.
    fn has_layer(&self, module: &str) -> bool {
        if self.layers.is_empty() || matches!(self.targets, Some(Names::Pattern(_))) {
            return true;
        }
        let layer = module.split_once(".layers.").or(module.split_once("layers."));
        let layer = layer.and_then(|(_, rest)| rest.split('.').next()?.parse().ok());
        layer.is_some_and(|layer| self.layers.contains(&layer))
    }
}

type Matcher<'a> = Box<dyn Fn(&str) -> bool + 'a>;

impl Names {
    fn matcher(&self, key: &str) -> Result<Matcher<'_>, ModelError> {
        match self {
            Self::List(names) => Ok(Box::new(|module| {
                let ends = |name: &String| module.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                names.iter().any(|name| module == name || ends(name))
            })),
            Self::Pattern(pattern) => {
                // Python's `fullmatch`.
                let whole = SysRegex::new(&format!("\\A(?:{pattern})\\z")).map_err(|cause| {
                    ModelError::new(format!("`{key}`: `{pattern}` is not a pattern: {cause}"))
                        .help("write names of modules in a list, or a regular expression")
                })?;
                Ok(Box::new(move |module| whole.find_iter(module).next().is_some()))
            }
        }
    }
}

/// The names under `key`; `None` where there are none.
fn names(key: &'static str, settings: &Map<String, Value>) -> Result<Option<Names>, ModelError> {
    let texts = |list: &[Value]| list.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
    match settings.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(pattern)) if pattern.is_empty() => Ok(None),
        Some(Value::String(pattern)) => Ok(Some(Names::Pattern(pattern.clone()))),
        Some(Value::Array(list)) => match texts(list) {
            Some(names) => Ok((!names.is_empty()).then_some(Names::List(names))),
            None => Err(wrong(key, settings, "a pattern or a list of names")),
        },
        Some(_) => Err(wrong(key, settings, "a pattern or a list of names")),
    }
}

fn wrong(key: &str, settings: &Map<String, Value>, expected: &str) -> ModelError {
    ModelError::new(format!("`{key}` is {}, not {expected}", settings[key]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The message about an adapter of `q_proj` in layer 0 and `up_proj` in layer 1.
    fn said(settings: Value) -> String {
        let tensors = ["language_model.model.layers.0.self_attn.q_proj", "language_model.model.layers.1.mlp.up_proj"]
            .map(|module| format!("base_model.model.{module}.lora_A.weight"));
        let modules = Modules::read(settings.as_object().expect("an object"));
        let checked = modules.and_then(|modules| modules.check(tensors.iter().map(String::as_str)));
        checked.err().map(|error| error.message).unwrap_or_default()
    }

    #[test]
    fn modules_that_are_meant_by_name_pattern_or_layer_pass() {
        for settings in [
            json!({}),
            json!({ "target_modules": ["q_proj", "mlp.up_proj"], "exclude_modules": ".*vision_tower.*" }),
            json!({ "target_modules": "all-linear", "layers_pattern": "h" }),
            json!({ "target_modules": r"^(?!.*(vision|proj_in)).*\.(q_proj|up_proj)" }),
            json!({ "layers_to_transform": [0, 1], "layers_pattern": "layers" }),
            // As in PEFT, beside a pattern layers mean nothing.
            json!({ "target_modules": ".*", "layers_to_transform": 7 }),
        ] {
            assert_eq!(said(settings.clone()), "", "{settings}");
        }
    }

    #[test]
    fn modules_that_the_settings_leave_out_are_named_with_what_does() {
        let up = "language_model.model.layers.1.mlp.up_proj";
        for (settings, by) in [
            (json!({ "target_modules": ["q_proj", "_proj"] }), "target_modules"),
            (json!({ "target_modules": ".*q_proj" }), "target_modules"),
            (json!({ "layers_to_transform": 0 }), "layers_to_transform"),
            (json!({ "exclude_modules": ["up_proj"] }), "exclude_modules"),
        ] {
            let expected = format!("the adapter has tensors of modules that its settings exclude\n  `{up}`, by `{by}`");
            assert_eq!(said(settings.clone()), expected, "{settings}");
        }
    }

    #[test]
    fn forms_that_are_not_those_of_the_settings_are_refused() {
        assert!(said(json!({ "target_modules": "(" })).starts_with("`target_modules`: `(` is not a pattern"));
        assert_eq!(said(json!({ "target_modules": [3] })), "`target_modules` is [3], not a pattern or a list of names");
        let layers = "`layers_to_transform` is \"0\", not a layer or a list of layers";
        assert_eq!(said(json!({ "layers_to_transform": "0" })), layers);
        assert!(
            said(json!({ "layers_to_transform": 0, "layers_pattern": "h" })).starts_with("`layers_pattern` is \"h\"")
        );
    }
}
