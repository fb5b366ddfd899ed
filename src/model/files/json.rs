//! Reads `config.json` of a LLaVA checkpoint as Hugging Face stores it.
//!
//! A field that the file leaves out has the default of its class in transformers. What this implementation does not
//! compute is refused by name, so that a checkpoint is never read as something else, and so is a number that is beyond
//! any model: nothing is sized by a number that was not held against its limit.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use super::config::{Activation, AnyresRule, Architecture, Config, TextConfig, VisionConfig, feature_index};
use crate::data::sniff::{Found, behind_mark};
use crate::model::{AGAIN, ModelError};

/// The most layers that a tower or a decoder may have.
const MOST_LAYERS: usize = 10_000;
/// The most attention heads.
const MOST_HEADS: usize = 1 << 16;
/// The most features of a position, of a head or within a feed-forward part.
const MOST_FEATURES: usize = 1 << 20;
/// The most tokens of a vocabulary.
const MOST_TOKENS: usize = 1 << 24;
/// The longest context, in positions.
const MOST_POSITIONS: usize = 1 << 30;
/// The most that a norm adds to a variance; models have 1e-5 and 1e-6.
const LARGEST_EPSILON: f64 = 1.0;
/// The largest base of rotary frequencies; models have up to some millions.
const LARGEST_BASE: f64 = 1e12;
/// The longest side of a view or of a scaled picture, in pixels; towers read some hundreds.
pub(crate) const MOST_PIXELS: usize = 4096;
/// The most tiles of a picture in `anyres`, and the most resolutions; LLaVA has 4 and 5.
const MOST_TILES: usize = 256;

impl Config {
    /// Reads `config.json` (and `generation_config.json`, for the end tokens) of the model in `folder`.
    ///
    /// # Errors
    /// When there is no such file, when it is no JSON, when the architecture or a feature is not supported, or when
    /// numbers contradict one another.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        if !folder.is_dir() {
            return Err(ModelError::new(format!("{}: not a folder", folder.display()))
                .help("`source` of a model names a folder with a Hugging Face checkpoint"));
        }
        if !path.is_file() {
            return Err(ModelError::new(format!("{}: no `config.json`", folder.display()))
                .help("a model folder holds `config.json`, `*.safetensors` and `tokenizer.json`"));
        }
        let root = read_object(&path)?;
        let generation = folder.join("generation_config.json");
        let generation = if generation.is_file() { Some(read_object(&generation)?) } else { None };
        Self::parse(&root, generation.as_ref())
            .map_err(|error| ModelError { message: format!("{}: {}", path.display(), error.message), ..error })
    }

    fn parse(root: &Map<String, Value>, generation: Option<&Map<String, Value>>) -> Result<Self, ModelError> {
        let fields = Fields { map: root, path: "" };
        let architecture = architecture(&fields)?;
        let empty = Map::new();
        let text_fields = fields.object("text_config", &empty)?;
        // transformers reads either; which tensor is then the head also depends on what is in the checkpoint.
        let tied = fields.flag("tie_word_embeddings", false)?;
        let mut text = text(&text_fields)?;
        text.tied |= tied;
        let vision = if root.get("vision_config").is_some_and(|value| !value.is_null()) {
            vision(&fields.object("vision_config", &empty)?, &CLIP_DEFAULTS)?
        } else {
            vision(&Fields { map: &empty, path: "vision_config." }, &LLAVA_DEFAULTS)?
        };

        let feature_layer = feature_layer(&fields, vision.layers)?;
        let drop_class_token = match fields.text("vision_feature_select_strategy", "default")? {
            "default" => true,
            "full" if architecture == Architecture::LlavaNext => {
                return Err(unsupported("vision_feature_select_strategy", "full", "`default` with `llava_next`"));
            }
            "full" => false,
            other => return Err(unsupported("vision_feature_select_strategy", other, "`default` and `full`")),
        };
        let grid_pinpoints = match architecture {
            Architecture::Llava => Vec::new(),
            Architecture::LlavaNext => pinpoints(&fields, vision.image_size)?,
        };
        let end_tokens = [
            (generation, "`eos_token_id` of generation_config.json"),
            (Some(root), "`eos_token_id`"),
            (Some(text_fields.map), "`text_config.eos_token_id`"),
        ]
        .into_iter()
        .find_map(|(map, name)| Some((map?.get("eos_token_id").filter(|value| !value.is_null())?, name)))
        .map_or(Ok(vec![2]), |(value, name)| end_tokens(value, name, text.vocabulary))?;
        let image_token = match fields.get("image_token_index").or_else(|| fields.get("image_token_id")) {
            None => 32_000,
            Some(value) => token(value).ok_or_else(|| wrong("image_token_index", value, "a token id"))?,
        };
        Ok(Self {
            architecture,
            vision,
            text,
            image_token,
            end_tokens,
            feature_layer,
            drop_class_token,
            projector_activation: activation(&fields, "projector_hidden_act", Activation::Gelu)?,
            projector_bias: fields.flag("multimodal_projector_bias", true)?,
            grid_pinpoints,
            image_newline: architecture == Architecture::LlavaNext,
            anyres_rule: AnyresRule::HuggingFace,
        })
    }
}

fn architecture(fields: &Fields<'_>) -> Result<Architecture, ModelError> {
    match fields.text("model_type", "")? {
        "llava" if fields.map.contains_key("mm_vision_tower") => Err(original_layout("llava")),
        "llava" => Ok(Architecture::Llava),
        "llava_next" => Ok(Architecture::LlavaNext),
        name @ ("llava_llama" | "llava_mistral" | "llava_mpt" | "llava_qwen") => Err(original_layout(name)),
        "" => Err(ModelError::new("no `model_type`").help(SUPPORTED)),
        other => Err(ModelError::new(format!("unsupported architecture `{other}`")).help(SUPPORTED)),
    }
}

const SUPPORTED: &str = "supported are `llava` and `llava_next` as Hugging Face stores them";

fn original_layout(name: &str) -> ModelError {
    ModelError::new(format!("unsupported architecture `{name}`: the layout of the original LLaVA repository"))
        .help(format!("{SUPPORTED}; use the conversion of this checkpoint under `llava-hf/` on the hub"))
}

/// Defaults that differ between a `vision_config` that leaves fields out and one that is left out itself.
struct VisionDefaults {
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    image_size: usize,
    patch_size: usize,
}

/// Of transformers' `CLIPVisionConfig`.
const CLIP_DEFAULTS: VisionDefaults =
    VisionDefaults { hidden: 768, intermediate: 3072, layers: 12, heads: 12, image_size: 224, patch_size: 32 };

/// What transformers' `LlavaConfig` and `LlavaNextConfig` put where there is no `vision_config`.
const LLAVA_DEFAULTS: VisionDefaults =
    VisionDefaults { hidden: 1024, intermediate: 4096, layers: 24, heads: 16, image_size: 336, patch_size: 14 };

fn vision(fields: &Fields<'_>, defaults: &VisionDefaults) -> Result<VisionConfig, ModelError> {
    fields.only("model_type", "clip_vision_model")?;
    let vision = VisionConfig {
        hidden: fields.positive("hidden_size", defaults.hidden, MOST_FEATURES)?,
        intermediate: fields.positive("intermediate_size", defaults.intermediate, MOST_FEATURES)?,
        layers: fields.positive("num_hidden_layers", defaults.layers, MOST_LAYERS)?,
        heads: fields.positive("num_attention_heads", defaults.heads, MOST_HEADS)?,
        image_size: fields.positive("image_size", defaults.image_size, MOST_PIXELS)?,
        patch_size: fields.positive("patch_size", defaults.patch_size, MOST_PIXELS)?,
        norm_epsilon: fields.number("layer_norm_eps", 1e-5, LARGEST_EPSILON)?,
        activation: activation(fields, "hidden_act", Activation::QuickGelu)?,
    };
    if fields.positive("num_channels", 3, MOST_FEATURES)? != 3 {
        return Err(ModelError::new("`vision_config.num_channels` is not 3"));
    }
    divides("vision_config.num_attention_heads", vision.heads, "vision_config.hidden_size", vision.hidden)?;
    if vision.patch_size > vision.image_size {
        return Err(ModelError::new(format!(
            "`vision_config.patch_size`, {}, is more than `vision_config.image_size`, {}",
            vision.patch_size, vision.image_size
        )));
    }
    Ok(vision)
}

fn activation(fields: &Fields<'_>, name: &str, default: Activation) -> Result<Activation, ModelError> {
    match fields.text(name, "")? {
        "" => Ok(default),
        "quick_gelu" => Ok(Activation::QuickGelu),
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::TanhGelu),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        other => Err(unsupported(
            &format!("{}{name}", fields.path),
            other,
            "`quick_gelu`, `gelu`, `gelu_new`, `gelu_pytorch_tanh`, `relu` and `silu`",
        )),
    }
}

fn text(fields: &Fields<'_>) -> Result<TextConfig, ModelError> {
    let mistral = match fields.text("model_type", "llama")? {
        "llama" => false,
        "mistral" => true,
        other => return Err(unsupported("text_config.model_type", other, "`llama` and `mistral`")),
    };
    fields.only("hidden_act", "silu")?;
    for name in ["attention_bias", "mlp_bias"] {
        if fields.flag(name, false)? {
            return Err(unsupported(&format!("text_config.{name}"), "true", "`false`"));
        }
    }
    // Newer files hold the rotary parameters in one object.
    let empty = Map::new();
    let rope = fields.object("rope_parameters", &empty)?;
    for scaling in [&fields.object("rope_scaling", &empty)?, &rope] {
        let kind = scaling.text("rope_type", scaling.text("type", "default")?)?;
        if kind != "default" {
            return Err(unsupported("text_config.rope_scaling", kind, "rotary positions without scaling"));
        }
    }
    if rope.number("partial_rotary_factor", 1.0, 1.0)? != 1.0 {
        return Err(ModelError::new("unsupported `text_config.rope_parameters.partial_rotary_factor`")
            .help("supported: rotary positions in all of a head"));
    }
    let hidden = fields.positive("hidden_size", 4096, MOST_FEATURES)?;
    let heads = fields.positive("num_attention_heads", 32, MOST_HEADS)?;
    // A class has its own default where the field is left out; an explicit `null` means one for each head.
    let key_value_default = if mistral && !fields.map.contains_key("num_key_value_heads") { 8 } else { heads };
    let sliding_window = match fields.map.get("sliding_window") {
        _ if !mistral => None,
        None => Some(4096),
        Some(Value::Null) => None,
        Some(_) => Some(fields.positive("sliding_window", 4096, MOST_POSITIONS)?),
    };
    let text = TextConfig {
        vocabulary: fields.positive("vocab_size", 32_000, MOST_TOKENS)?,
        hidden,
        intermediate: fields.positive("intermediate_size", if mistral { 14_336 } else { 11_008 }, MOST_FEATURES)?,
        layers: fields.positive("num_hidden_layers", 32, MOST_LAYERS)?,
        heads,
        key_value_heads: fields.positive("num_key_value_heads", key_value_default, MOST_HEADS)?,
        head_size: fields.positive("head_dim", hidden / heads, MOST_FEATURES)?,
        rope_theta: rope.number("rope_theta", fields.number("rope_theta", 10_000.0, LARGEST_BASE)?, LARGEST_BASE)?,
        norm_epsilon: fields.number("rms_norm_eps", 1e-6, LARGEST_EPSILON)?,
        tied: fields.flag("tie_word_embeddings", false)?,
        sliding_window,
        max_positions: fields.positive(
            "max_position_embeddings",
            if mistral { 131_072 } else { 2048 },
            MOST_POSITIONS,
        )?,
    };
    divides("text_config.num_key_value_heads", text.key_value_heads, "text_config.num_attention_heads", heads)?;
    if text.head_size == 0 {
        return Err(ModelError::new(format!(
            "`text_config.num_attention_heads`, {heads}, is more than `text_config.hidden_size`, {hidden}"
        )));
    }
    divides("2", 2, "text_config.head_dim", text.head_size)?;
    Ok(text)
}

fn feature_layer(fields: &Fields<'_>, layers: usize) -> Result<i64, ModelError> {
    let name = "vision_feature_layer";
    let value = match fields.map.get(name) {
        None | Some(Value::Null) => return Ok(-2),
        // A list of one is that one; of several, transformers concatenates the features.
        Some(Value::Array(list)) if list.len() == 1 => &list[0],
        Some(value) => value,
    };
    let layer = value.as_i64().ok_or_else(|| wrong(name, value, "one whole number"))?;
    feature_index(layer, layers)
        .map(|_| layer)
        .ok_or_else(|| ModelError::new(format!("`{name}` is {layer}, but the tower has {layers} layers")))
}

fn pinpoints(fields: &Fields<'_>, size: usize) -> Result<Vec<[u32; 2]>, ModelError> {
    let name = "image_grid_pinpoints";
    let list = match fields.map.get(name) {
        None | Some(Value::Null) => vec![[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        Some(value) => serde_json::from_value::<Vec<[u32; 2]>>(value.clone())
            .map_err(|_| wrong(name, value, "a list of pairs of pixels"))?,
    };
    let size = size as u32;
    if list.is_empty() || list.iter().flatten().any(|&side| side == 0 || side % size != 0) {
        return Err(ModelError::new(format!("`{name}` are not multiples of `vision_config.image_size`, {size}")));
    }
    if list.len() > MOST_TILES {
        let count = list.len();
        return Err(ModelError::new(format!("`{name}` has {count} resolutions, more than the limit of {MOST_TILES}")));
    }
    let tiles = |[one, other]: [u32; 2]| u64::from(one / size) * u64::from(other / size);
    if let Some([one, other]) = list.iter().find(|sides| tiles(**sides) > MOST_TILES as u64) {
        return Err(ModelError::new(format!(
            "`{name}` has [{one}, {other}], which is {} tiles of {size} pixels, more than the limit of {MOST_TILES}",
            tiles([*one, *other])
        )));
    }
    Ok(list)
}

/// The ids in `value`, which `name` calls, of a vocabulary of so many tokens. Ids beyond it are never written; one at
/// least must be within, or no answer would end.
fn end_tokens(value: &Value, name: &str, vocabulary: usize) -> Result<Vec<u32>, ModelError> {
    let list: Option<Vec<u32>> = match value {
        Value::Array(list) => list.iter().map(token).collect(),
        one => token(one).map(|id| vec![id]),
    };
    let wrong = |what: &str| ModelError::new(format!("{name} is {value}, {what}"));
    let list = list.ok_or_else(|| wrong("not a token id or a list of them"))?;
    if list.iter().all(|id| *id as usize >= vocabulary) {
        let what = format!("none of the {vocabulary} tokens that the model knows: no answer would end");
        return Err(wrong(&what).help("take the file that the checkpoint was published with"));
    }
    Ok(list)
}

fn token(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// The JSON object in `path`.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>, ModelError> {
    let text = fs::read(path).map_err(|cause| ModelError::io(path, &cause))?;
    match serde_json::from_slice(behind_mark(&text)) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(ModelError::content(path, None, "not a JSON object")),
        Err(cause) => Err(ModelError::content(path, Found::instead_of_text(&text), format_args!("not JSON: {cause}"))),
    }
}

fn wrong(name: &str, value: &Value, expected: &str) -> ModelError {
    ModelError::new(format!("`{name}` is {value}, not {expected}"))
}

fn unsupported(name: &str, value: &str, supported: &str) -> ModelError {
    ModelError::new(format!("unsupported `{name}`: `{value}`")).help(format!("supported: {supported}"))
}

fn divides(part_name: &str, part: usize, whole_name: &str, whole: usize) -> Result<(), ModelError> {
    if whole.is_multiple_of(part) {
        return Ok(());
    }
    let part_name = if part_name == "2" { "2".to_owned() } else { format!("`{part_name}`, {part}") };
    Err(ModelError::new(format!("`{whole_name}`, {whole}, is not a multiple of {part_name}")))
}

/// Fields of an object with defaults: what is left out or `null` has the default.
pub(crate) struct Fields<'a> {
    pub map: &'a Map<String, Value>,
    /// What comes before a field's name in messages.
    pub path: &'static str,
}

impl<'a> Fields<'a> {
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

    pub fn text(&self, name: &str, default: &'a str) -> Result<&'a str, ModelError> {
        self.read(name, "a string", default, Value::as_str)
    }

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

    /// A whole number from 1 to `most`.
    pub fn positive(&self, name: &str, default: usize, most: usize) -> Result<usize, ModelError> {
        let number = self.read(name, "a whole number above zero", default as u64, |value| {
            // What is written as `336.0` or is beyond 64 bits is a whole number too.
            let whole = value.as_f64().filter(|number| *number >= 1.0 && number.fract() == 0.0);
            value.as_u64().filter(|number| *number > 0).or(whole.map(|number| number as u64))
        })?;
        if number > most as u64 {
            let message = format!("`{}{name}` is {number}, more than the limit of {most}", self.path);
            return Err(ModelError::new(message).help(AGAIN));
        }
        Ok(number as usize)
    }

    pub fn object(&self, name: &'static str, empty: &'a Map<String, Value>) -> Result<Fields<'a>, ModelError> {
        let path = match name {
            "text_config" => "text_config.",
            "vision_config" => "vision_config.",
            _ => self.path,
        };
        Ok(Fields { map: self.read(name, "an object", empty, Value::as_object)?, path })
    }

    /// Refuses a value other than `only`, which is also the default.
    pub fn only(&self, name: &str, only: &str) -> Result<(), ModelError> {
        match self.text(name, "")? {
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

    fn parse(value: Value) -> Result<Config, ModelError> {
        Config::parse(value.as_object().expect("an object"), None)
    }

    #[test]
    fn what_no_model_has_is_refused_with_the_file_and_the_limit() {
        let message = |value: Value| parse(value).unwrap_err().message;
        let text =
            |field: &str, value: Value| message(json!({ "model_type": "llava", "text_config": { field: value } }));
        assert!(
            text("rms_norm_eps", json!(1e300)).contains("`text_config.rms_norm_eps` is 1e300, more than the limit")
        );
        assert!(text("rope_theta", json!(1e300)).contains("more than the limit"));
        assert!(text("rope_parameters", json!({ "rope_theta": 1e300 })).contains("more than the limit"));
        let tower = json!({ "model_type": "llava", "vision_config": { "layer_norm_eps": 1e18 } });
        assert!(message(tower).contains("`vision_config.layer_norm_eps` is 1e18"));

        let root = json!({ "model_type": "llava", "eos_token_id": 2 });
        let generated = |value: Value| {
            let generation = json!({ "eos_token_id": value });
            Config::parse(root.as_object().unwrap(), generation.as_object()).map(|config| config.end_tokens)
        };
        for odd in [json!(1_000_000_000), json!([]), json!("2"), json!(-1), json!(1.5), json!([2, -1]), json!([40_000])]
        {
            let error = generated(odd.clone()).unwrap_err();
            assert!(error.message.contains(&format!("of generation_config.json is {odd}")), "{error}");
        }
        assert_eq!(generated(json!([2, 40_000])).unwrap(), [2, 40_000], "one is enough");
        assert_eq!(generated(Value::Null).unwrap(), [2]);
    }

    #[test]
    fn fields_left_out_have_the_defaults_of_their_class() {
        let config = parse(json!({ "model_type": "llava" })).expect("sound");
        assert_eq!(config.text.intermediate, 11_008);
        assert_eq!(config.text.key_value_heads, 32);
        assert_eq!(config.vision.image_size, 336, "no vision_config: LLaVA's tower");
        assert_eq!((config.feature_layer, config.tower_layers(), config.image_token), (-2, 23, 32_000));
        assert!(config.grid_pinpoints.is_empty() && !config.image_newline);

        let config = parse(json!({
            "model_type": "llava_next",
            "text_config": { "model_type": "mistral" },
            "vision_config": { "image_size": 336, "patch_size": 14 },
        }))
        .expect("sound");
        assert_eq!((config.text.intermediate, config.text.key_value_heads), (14_336, 8));
        assert_eq!(config.text.sliding_window, Some(4096));
        assert_eq!(config.vision.hidden, 768, "a vision_config: CLIP's own defaults");
        assert_eq!(config.grid_pinpoints.len(), 5);
    }

    #[test]
    fn activations_are_read_by_transformers_names() {
        let named = |tower: &str, projector: &str| {
            let vision = json!({ "hidden_act": tower, "image_size": 30, "patch_size": 7 });
            parse(json!({ "model_type": "llava", "vision_config": vision, "projector_hidden_act": projector }))
        };
        let config = named("gelu", "silu").expect("sound");
        assert_eq!((config.vision.activation, config.projector_activation), (Activation::Gelu, Activation::Silu));
        let config = named("gelu_pytorch_tanh", "relu").expect("sound");
        assert_eq!((config.vision.activation, config.projector_activation), (Activation::TanhGelu, Activation::Relu));
        assert_eq!(config.vision.patches_per_side(), 4, "two pixels are left over");
        let message = named("gelu", "mish").expect_err("refused").message;
        assert_eq!(message, "unsupported `projector_hidden_act`: `mish`");
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let message = |value| parse(value).expect_err("refused").message;
        assert_eq!(message(json!({ "model_type": "qwen2_vl" })), "unsupported architecture `qwen2_vl`");
        assert!(message(json!({ "model_type": "llava_mistral" })).contains("original LLaVA repository"));
        assert_eq!(
            message(json!({ "model_type": "llava", "text_config": { "rope_scaling": { "type": "linear" } } })),
            "unsupported `text_config.rope_scaling`: `linear`"
        );
        assert_eq!(
            message(json!({ "model_type": "llava", "vision_config": { "model_type": "siglip_vision_model" } })),
            "unsupported `vision_config.model_type`: `siglip_vision_model`"
        );
        assert_eq!(
            message(json!({ "model_type": "llava", "vision_feature_layer": [-2, -5] })),
            "`vision_feature_layer` is [-2,-5], not one whole number"
        );
        assert_eq!(
            message(json!({ "model_type": "llava", "text_config": { "hidden_size": -3 } })),
            "`text_config.hidden_size` is -3, not a whole number above zero"
        );
    }

    #[test]
    fn every_number_is_held_against_its_limit() {
        for name in ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"] {
            for number in [json!(1_000_000_000), json!(u64::MAX), json!(1e300)] {
                for part in ["text_config", "vision_config"] {
                    let error = parse(json!({ "model_type": "llava", part: { name: number } })).expect_err("refused");
                    assert!(error.message.starts_with(&format!("`{part}.{name}` is 1")), "{error}");
                    assert!(error.message.contains("more than the limit of "), "{error}");
                }
            }
        }
        for (part, name) in [
            ("text_config", "vocab_size"),
            ("text_config", "num_key_value_heads"),
            ("text_config", "head_dim"),
            ("text_config", "max_position_embeddings"),
            ("vision_config", "image_size"),
            ("vision_config", "patch_size"),
        ] {
            let error = parse(json!({ "model_type": "llava", part: { name: 4_000_000_000u64 } })).expect_err("refused");
            assert!(error.message.contains("more than the limit of "), "{error}");
        }
        let heads = json!({ "model_type": "llava", "text_config": { "hidden_size": 4, "num_attention_heads": 8 } });
        assert!(parse(heads).expect_err("refused").message.contains("is more than `text_config.hidden_size`"));
        let message = |points: Value| {
            parse(json!({ "model_type": "llava_next", "image_grid_pinpoints": points })).expect_err("refused").message
        };
        assert_eq!(
            message(json!([[336, 336], [336_000, 336_000]])),
            "`image_grid_pinpoints` has [336000, 336000], which is 1000000 tiles of 336 pixels, more than the limit of 256"
        );
        assert!(message(json!(vec![[336, 336]; 300])).contains("has 300 resolutions"));
    }

    #[test]
    fn files_of_transformers_5_are_read() {
        let config = parse(json!({
            "model_type": "llava",
            "dtype": "bfloat16",
            "image_token_index": null,
            "image_token_id": 5,
            "tie_word_embeddings": true,
            "text_config": {
                "rope_theta": 3.0,
                "rope_parameters": { "rope_theta": 1e6, "rope_type": "default" },
                "tie_word_embeddings": false
            }
        }))
        .expect("sound");
        assert_eq!((config.text.rope_theta, config.image_token, config.text.tied), (1e6, 5, true));
    }
}
