//! What `adapter_config.json` says of an adapter: rank, scale, modules.
//!
//! Each release of PEFT brings settings that change what an adapter computes. So there is a list of what is understood,
//! and what is not on it is refused when it is switched on. This module does not look at tensors.

use serde_json::{Map, Value};

use super::modules::Modules;
use crate::model::files::Fields;
use crate::model::{ModelError, listed};

/// What to do about an adapter that does what is not computed here.
pub(super) const MERGE: &str = "PEFT's `merge_and_unload()` merges any adapter into its base model, and the merged checkpoint can be \
                                named as `source`";

/// Rank, scale and the like, as the settings have them, before any tensor is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Rows of A, columns of B.
    pub rank: usize,
    /// `scale · rank`.
    pub alpha: f64,
    /// The dropout that it was trained with.
    pub dropout: f64,
    /// The model that it names as its base.
    pub base: Option<String>,
    /// Which modules it is for.
    pub modules: Modules,
    /// What a person should know about the settings.
    pub notes: Vec<String>,
}

/// Settings that are read.
const READ: [&str; 12] = [
    "base_model_name_or_path",
    "bias",
    "exclude_modules",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "peft_type",
    "r",
    "target_modules",
    "use_rslora",
];

/// Settings that change what an adapter computes, and are not computed here: they have to be off.
const OFF: [&str; 16] = [
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "megatron_config",
    "modules_to_save",
    "monteclora_config",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
];

/// Settings of PEFT up to 0.21 that say where an adapter comes from or how its training began or ran. What they mean
/// for the adapter is in its tensors, or in `init_lora_weights`.
const ASIDE: [&str; 14] = [
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
    "velora_config",
];

/// Ways to begin an adapter that leave the base model as it is. Others take something out of it.
const BEGINNINGS: [&str; 4] = ["eva", "gaussian", "mica", "orthogonal"];

impl Settings {
    /// Reads the object in `adapter_config.json`.
    ///
    /// # Errors
    /// When settings have the wrong type, or change the adapter in a way that is not computed here; of the latter all
    /// are named.
    pub(super) fn parse(object: &Map<String, Value>) -> Result<Self, ModelError> {
        let fields = Fields::of(object);
        let mut refused = Vec::new();
        let mut refuse = |name: &str, value: &dyn std::fmt::Display| refused.push(format!("`{name}`: `{value}`"));
        match fields.string("peft_type", "")? {
            "LORA" => {}
            other => refuse("peft_type", &other),
        }
        match fields.string("bias", "none")? {
            "none" => {}
            other => refuse("bias", &other),
        }
        let is_off = |value: &Value| match value {
            Value::Null => true,
            Value::Bool(on) => !on,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Number(_) | Value::String(_) => false,
        };
        let (mut unknown, mut notes) = (Vec::new(), Vec::new());
        for (name, value) in object.iter().filter(|(_, value)| !is_off(value)) {
            let name = name.as_str();
            if OFF.contains(&name) {
                refuse(name, value);
            } else if !READ.contains(&name) && !ASIDE.contains(&name) {
                // A number or a text may be a detail of something that is off.
                match value {
                    Value::Number(_) | Value::String(_) => notes.push(format!("unknown setting `{name}`: `{value}`")),
                    _ => unknown.push(format!("`{name}`: `{value}`")),
                }
            }
        }
        let reported = |what: &str, problems: &[String]| match problems {
            [only] => format!("{what} {only}"),
            several => format!("{what} settings{}", listed(several)),
        };
        if !refused.is_empty() {
            refused.append(&mut unknown);
            let help = format!("only plain LoRA is supported: one rank, no bias, no replaced modules; {MERGE}");
            return Err(ModelError::new(reported("unsupported", &refused)).help(help));
        }
        if !unknown.is_empty() {
            let message = reported("unknown", &unknown);
            let help =
                format!("it may change what the adapter computes, and this version does not support it; {MERGE}");
            return Err(ModelError::new(message).help(help));
        }
        match object.get("init_lora_weights") {
            None | Some(Value::Null | Value::Bool(_)) => {}
            Some(Value::String(name)) if BEGINNINGS.contains(&name.to_lowercase().as_str()) => {}
            Some(value) => {
                return Err(ModelError::new(format!("unsupported `init_lora_weights`: `{value}`")).help(
                    "the adapter belongs to a base model that PEFT changed: save it with \
                     `path_initial_model_for_weight_conversion`, which makes it one of the base model itself",
                ));
            }
        }
        let rank = fields.positive("r", 8, 1 << 16)?;
        let alpha = fields.number("lora_alpha", 8.0, 1e6)?;
        let dropout = match object.get("lora_dropout") {
            None | Some(Value::Null) => 0.0,
            Some(value) => value
                .as_f64()
                .filter(|value| (0.0..1.0).contains(value))
                .ok_or_else(|| ModelError::new(format!("`lora_dropout` is {value}, not a number from 0 to below 1")))?,
        };
        // Rank-stabilized LoRA scales by alpha / √rank.
        let alpha = if fields.flag("use_rslora", false)? { alpha * (rank as f64).sqrt() } else { alpha };
        let base = fields.string("base_model_name_or_path", "")?;
        let base = (!base.is_empty()).then(|| base.to_owned());
        Ok(Self { rank, alpha, dropout, base, modules: Modules::read(object)?, notes })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<Settings, ModelError> {
        Settings::parse(value.as_object().expect("an object"))
    }

    /// `value` on top of a plain adapter's settings.
    fn with(name: &str, value: Value) -> Result<Settings, ModelError> {
        parse(json!({ "peft_type": "LORA", name: value }))
    }

    fn refused(name: &str, value: Value) -> String {
        with(name, value).expect_err("refused").message
    }

    #[test]
    fn settings_as_released_versions_of_peft_write_them_are_all_understood() {
        for text in [
            include_str!("../../../tests/reference/peft/0.11.1.json"),
            include_str!("../../../tests/reference/peft/0.14.0.json"),
            include_str!("../../../tests/reference/peft/0.21.2.json"),
        ] {
            let object: Map<String, Value> = serde_json::from_str(text).expect("an object");
            let settings = Settings::parse(&object).expect("understood");
            assert_eq!((settings.rank, settings.alpha, settings.notes), (4, 8.0, Vec::<String>::new()));
        }
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        assert_eq!(
            parse(json!({ "peft_type": "IA3" })).expect_err("refused").message,
            "unsupported `peft_type`: `IA3`"
        );
        assert_eq!(refused("use_dora", json!(true)), "unsupported `use_dora`: `true`");
        for (name, value) in [
            ("bias", json!("lora_only")),
            ("bias", json!("all")),
            ("rank_pattern", json!({ "q_proj": 2 })),
            ("alpha_pattern", json!({ "q_proj": 2 })),
            ("layer_replication", json!([[0, 1]])),
            ("init_lora_weights", json!("pissa")),
            ("init_lora_weights", json!("loftq")),
            ("trainable_token_indices", json!([3])),
            ("target_parameters", json!(["mlp.experts.down_proj"])),
            ("kasa_config", json!({ "beta": 1.0 })),
            ("fan_in_fan_out", json!(true)),
            ("modules_to_save", json!(["mm_projector"])),
        ] {
            assert!(refused(name, value).starts_with(&format!("unsupported `{name}`: ")), "{name}");
        }
        let both = parse(json!({ "peft_type": "LORA", "use_dora": true, "bias": "all", "use_new_scaling": true }));
        let error = both.expect_err("refused");
        assert_eq!(
            error.message,
            "unsupported settings\n  `bias`: `all`\n  `use_dora`: `true`\n  `use_new_scaling`: `true`"
        );
        assert!(error.help.expect("a remedy").contains("merge_and_unload"));
    }

    #[test]
    fn an_unknown_setting_is_refused_when_it_is_on_and_reported_when_it_may_be() {
        for on in [json!(true), json!([1]), json!({ "mode": "brand new" })] {
            let message = refused("use_brand_new_scaling", on.clone());
            assert_eq!(message, format!("unknown `use_brand_new_scaling`: `{on}`"));
        }
        for off in [json!(false), json!(null), json!([]), json!({})] {
            assert!(with("use_brand_new_scaling", off).expect("understood").notes.is_empty());
        }
        let settings = with("brand_new_group_size", json!(16)).expect("understood");
        assert_eq!(settings.notes, ["unknown setting `brand_new_group_size`: `16`"]);
    }

    #[test]
    fn numbers_are_read_as_peft_means_them() {
        assert_eq!(refused("r", json!(0)), "`r` is 0, not an integer above zero");
        let stabilized = parse(json!({ "peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": true }));
        assert_eq!(stabilized.expect("sound").alpha, 16.0);
        for beginning in [json!("gaussian"), json!(false), json!("orthogonal"), json!("mica")] {
            assert!(with("init_lora_weights", beginning).is_ok());
        }
    }
}
