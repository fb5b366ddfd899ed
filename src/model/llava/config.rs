//! What a LLaVA checkpoint is, as Hugging Face stores it: `config.json`.

use std::path::Path;

use serde_json::{Map, Value};

use crate::model::files::Fields;
use crate::model::files::json::{end_tokens, read_config, read_optional, token, unsupported, wrong};
use crate::model::nn::Activation;
use crate::model::{ModelError, clip, llama};

/// The image token, as text.
pub(super) const IMAGE_TOKEN: &str = "<image>";

/// The most tiles of a picture in `anyres`, and the most resolutions; LLaVA has 4 and 5.
const MOST_TILES: usize = 256;

/// The architectures that are read, as `model_type` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// `llava`: one view of a picture (LLaVA-1.5).
    Llava,
    /// `llava_next`: tiles of a picture beside a view of the whole (LLaVA-1.6).
    LlavaNext,
}

/// How a picture becomes what the tower reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageMode {
    /// The shortest side scaled to the tower's size, the center cut out.
    Crop,
    /// Padded to a square with the mean color, then scaled.
    Pad,
    /// The whole squashed to a square, and tiles of the picture at the best of several resolutions.
    Anyres,
}

impl ImageMode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Crop, Self::Pad, Self::Anyres];

    /// Its name in a pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crop => "crop",
            Self::Pad => "pad",
            Self::Anyres => "anyres",
        }
    }
}

/// Whose arithmetic decides tiles and unpadding of `anyres`: the two differ on ties and on some sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyresRule {
    /// The original repository's: grid points are (width, height), the unpadded side is truncated.
    Original,
    /// transformers': grid points are (height, width), the side is rounded to seven places before it is truncated.
    HuggingFace,
}

impl AnyresRule {
    /// Both rules.
    pub const ALL: [Self; 2] = [Self::Original, Self::HuggingFace];

    /// Its name in a pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::HuggingFace => "huggingface",
        }
    }
}

/// A LLaVA checkpoint's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which architecture.
    pub architecture: Architecture,
    /// The tower.
    pub vision: clip::Config,
    /// The decoder.
    pub text: llama::Config,
    /// The image token.
    pub image_token: u32,
    /// The tokens that end a text.
    pub end_tokens: Vec<u32>,
    /// Which of the tower's hidden states is read: 0 is the embedding, −1 the last layer's output.
    pub feature_layer: i64,
    /// Whether the class token's row is dropped.
    pub drop_class_token: bool,
    /// Between the projector's layers.
    pub projector_activation: Activation,
    /// Whether the projector's layers have a bias.
    pub projector_bias: bool,
    /// The resolutions of `anyres` in pixels, as stored; what comes first is by `anyres_rule`. Empty for `llava`.
    pub grid_pinpoints: Vec<[u32; 2]>,
    /// Whether the checkpoint has a learned row that ends a line of patches.
    pub image_newline: bool,
    /// Whose arithmetic `anyres` follows.
    pub anyres_rule: AnyresRule,
}

impl Config {
    /// Reads `config.json` (and `generation_config.json`, for the end tokens) of the model in `folder`. What a file
    /// leaves out has the default of its class in transformers; what is not computed here is refused by name.
    ///
    /// # Errors
    /// When there is no such file, when it is no JSON, when the architecture or a feature is not supported, or when
    /// numbers contradict one another.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let root = read_config(folder)?;
        let generation = read_optional(&folder.join("generation_config.json"))?;
        Self::parse(&root, generation.as_ref()).map_err(|error| error.of(&folder.join("config.json")))
    }

    fn parse(root: &Map<String, Value>, generation: Option<&Map<String, Value>>) -> Result<Self, ModelError> {
        let fields = Fields::of(root);
        let architecture = architecture(&fields)?;
        let empty = Map::new();
        let text_fields = fields.object("text_config", &empty)?;
        // transformers reads either; which tensor is then the head also depends on what is in the checkpoint.
        let tied = fields.flag("tie_word_embeddings", false)?;
        let mut text = llama::Config::read(&text_fields)?;
        text.tied |= tied;
        let vision = if fields.get("vision_config").is_some() {
            clip::Config::read(&fields.object("vision_config", &empty)?)?
        } else {
            DEFAULT_TOWER
        };

        let feature_layer = feature_layer(&fields, vision.layers)?;
        let drop_class_token = match fields.string("vision_feature_select_strategy", "default")? {
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
        let ends = [
            (generation, "`eos_token_id` of generation_config.json"),
            (Some(root), "`eos_token_id`"),
            (Some(text_fields.map), "`text_config.eos_token_id`"),
        ];
        let end_tokens = end_tokens(ends, text.vocabulary)?.unwrap_or(vec![2]);
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
            projector_activation: Activation::read(&fields, "projector_hidden_act", Activation::Gelu)?,
            projector_bias: fields.flag("multimodal_projector_bias", true)?,
            grid_pinpoints,
            image_newline: architecture == Architecture::LlavaNext,
            anyres_rule: AnyresRule::HuggingFace,
        })
    }

    /// How many of the tower's layers come before the feature that is read.
    pub fn tower_layers(&self) -> usize {
        feature_index(self.feature_layer, self.vision.layers).unwrap_or(self.vision.layers)
    }
}

/// The index into the embedding's and the layers' outputs.
fn feature_index(layer: i64, layers: usize) -> Option<usize> {
    let count = layers as i64 + 1;
    let index = if layer < 0 { count + layer } else { layer };
    (0..count).contains(&index).then_some(index as usize)
}

fn architecture(fields: &Fields<'_>) -> Result<Architecture, ModelError> {
    match fields.string("model_type", "")? {
        "llava" if fields.map.contains_key("mm_vision_tower") => Err(original_layout("llava")),
        "llava" => Ok(Architecture::Llava),
        "llava_next" => Ok(Architecture::LlavaNext),
        name if ORIGINAL_LAYOUT.contains(&name) => Err(original_layout(name)),
        "" => Err(ModelError::new("no `model_type`").help(SUPPORTED)),
        other => Err(ModelError::new(format!("unsupported architecture `{other}`")).help(SUPPORTED)),
    }
}

/// The `model_type`s of the original repository.
pub(super) const ORIGINAL_LAYOUT: [&str; 4] = ["llava_llama", "llava_mistral", "llava_mpt", "llava_qwen"];

const SUPPORTED: &str = "supported are `llava` and `llava_next` as Hugging Face stores them";

fn original_layout(name: &str) -> ModelError {
    ModelError::new(format!("unsupported architecture `{name}`: the layout of the original LLaVA repository"))
        .help(format!("{SUPPORTED}; use the conversion of this checkpoint under `llava-hf/` on the hub"))
}

/// What transformers' `LlavaConfig` and `LlavaNextConfig` put where there is no `vision_config`.
const DEFAULT_TOWER: clip::Config = clip::Config {
    hidden: 1024,
    intermediate: 4096,
    layers: 24,
    heads: 16,
    image_size: 336,
    patch_size: 14,
    norm_epsilon: 1e-5,
    activation: Activation::QuickGelu,
};

fn feature_layer(fields: &Fields<'_>, layers: usize) -> Result<i64, ModelError> {
    let name = "vision_feature_layer";
    let value = match fields.map.get(name) {
        None | Some(Value::Null) => return Ok(-2),
        // A list of one is that one; of several, transformers concatenates the features.
        Some(Value::Array(list)) if list.len() == 1 => &list[0],
        Some(value) => value,
    };
    let layer = value.as_i64().ok_or_else(|| wrong(name, value, "one integer"))?;
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
            "`vision_feature_layer` is [-2,-5], not one integer"
        );
        assert_eq!(
            message(json!({ "model_type": "llava", "text_config": { "hidden_size": -3 } })),
            "`text_config.hidden_size` is -3, not an integer above zero"
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
