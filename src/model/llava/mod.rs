//! LLaVA: a CLIP tower, a projector, a Llama or Mistral decoder.

mod config;
mod images;
mod projector;

use config::IMAGE_TOKEN;
pub use config::{AnyresRule, Architecture, Config, ImageMode};
pub use images::LlavaImageProcessor;
pub use projector::Projector;

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor};

use super::ModelError;
use super::adapter::LayerAdapter;
use super::attention::{Attention, LayerCache, Slot};
use super::clip::Tower;
use super::contract::{
    AdapterNames, Family, ImageFeatures, ImageInput, ImageLayout, ImageProcessor, ImageSetting, ImageSettings,
    ImageToken, Model, Shape,
};
use super::files::json::read_config;
use super::files::{Declared, Naming, Tensors, Weights};
use super::llama::{Decoder, LINEARS};

/// The checkpoints of LLaVA-1.5 and LLaVA-1.6 as Hugging Face stores them.
pub struct LlavaFamily;

impl Family for LlavaFamily {
    fn model_types(&self) -> &'static [&'static str] {
        &["llava", "llava_next"]
    }

    fn recognizes(&self, model_type: &str) -> bool {
        self.model_types().contains(&model_type) || config::ORIGINAL_LAYOUT.contains(&model_type)
    }

    fn shape(&self, folder: &Path) -> Result<Shape, ModelError> {
        Ok(Config::read(folder)?.shape())
    }

    fn check(&self, folder: &Path) -> Result<(), ModelError> {
        // The device does not matter.
        open(folder, &Device::flex(), DType::F32).map(drop)
    }

    fn load(&self, folder: &Path, device: &Device, dtype: DType) -> Result<Arc<dyn Model>, ModelError> {
        Ok(Arc::new(Llava::load(folder, device, dtype)?))
    }

    fn image_settings(&self) -> &'static [ImageSetting] {
        &[
            ImageSetting {
                name: "image_mode",
                values: &["crop", "pad", "anyres"],
                help: "How pictures are fitted to the vision tower: center crop, padding to a square, or tiles (LLaVA-1.6)",
            },
            ImageSetting {
                name: "anyres_rule",
                values: &["checkpoint", "original", "huggingface"],
                help: "Which rule chooses the tiles of `anyres`; they differ for ties and small pictures",
            },
        ]
    }

    fn image_processor(&self, folder: &Path, settings: &ImageSettings) -> Result<Box<dyn ImageProcessor>, ModelError> {
        Ok(Box::new(LlavaImageProcessor::read(folder, settings)?))
    }

    /// What `config.json` says comes first: a Mistral decoder means `mistral_instruct`. For the others the names of the
    /// checkpoint and of the language model it was made from (`_name_or_path`, then the directory's own name) are
    /// searched for what LLaVA's scripts look for, as whole words: `llama-2` with `chat` means `llava_llama_2`, `34b`
    /// means `chatml_direct`. The rest is `vicuna_v1`, where those scripts' interactive forms would take `llava_v1`.
    fn default_template(&self, folder: &Path) -> Result<&'static str, ModelError> {
        let config = serde_json::Value::Object(read_config(folder)?);
        let text = &config["text_config"];
        let family = text["model_type"].as_str().or(config["model_type"].as_str()).unwrap_or_default();
        if family.contains("mistral") {
            return Ok("mistral_instruct");
        }
        let named =
            |value: &serde_json::Value| model_name(Path::new(value["_name_or_path"].as_str().unwrap_or_default()));
        for name in [named(text), named(&config), model_name(folder)] {
            if has_word(&name, "llama-2") && has_word(&name, "chat") || has_word(&name, "llava-llama-2") {
                return Ok("llava_llama_2");
            }
            if has_word(&name, "mistral") {
                return Ok("mistral_instruct");
            }
            if has_word(&name, "34b") {
                return Ok("chatml_direct");
            }
        }
        Ok("vicuna_v1")
    }

    fn adapter_names(&self) -> &'static AdapterNames {
        &ADAPTER_NAMES
    }
}

/// PEFT's names.
const ADAPTER_NAMES: AdapterNames = AdapterNames {
    linears: &LINEARS,
    // transformers before 4.52, after it, the original repository, and adapters of the inner model or of the
    // language model alone.
    layers: &[
        "language_model.model.layers.",
        "model.language_model.layers.",
        "model.language_model.model.layers.",
        "language_model.layers.",
        "model.layers.",
        "layers.",
    ],
    outside: &["vision_tower.", "vision_model."],
    exclude: Some(".*vision_tower.*"),
};

impl Config {
    /// The sizes that everything outside the family knows.
    pub fn shape(&self) -> Shape {
        let text = &self.text;
        Shape {
            vocabulary: text.vocabulary,
            hidden: text.hidden,
            intermediate: text.intermediate,
            layers: text.layers,
            heads: text.heads,
            cached: 2 * text.key_value_heads * text.head_size,
            context: text.max_positions,
            end_tokens: self.end_tokens.clone(),
            image_token: ImageToken { text: IMAGE_TOKEN, id: self.image_token },
            linears: text.linears().to_vec(),
            adapter_names: &ADAPTER_NAMES,
        }
    }

    /// Every tensor that the model reads, with its shape, in the names of transformers before 4.52.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut declared = Declared::default();
        Llava::build(self, &mut declared).expect("what is asked for is given");
        declared.0
    }
}

/// A LLaVA model on a device.
#[derive(Clone, Debug)]
pub struct Llava {
    /// Its configuration.
    pub config: Config,
    shape: Shape,
    /// The tower.
    pub vision: Tower,
    /// From the tower's features to the decoder's space.
    pub projector: Projector,
    /// The row that ends a line of patches, `[hidden]`.
    pub newline: Option<Tensor<1>>,
    /// The decoder.
    pub decoder: Decoder,
    /// What people should know of the checkpoint: where its files contradict one another.
    pub notes: Vec<String>,
}

impl Llava {
    /// Loads the checkpoint in `folder`, tensor by tensor, with weights in `dtype`.
    ///
    /// # Errors
    /// What [`Config::read`] and [`Weights::open`] refuse; every tensor that is missing or of another shape.
    pub fn load(folder: &Path, device: &Device, dtype: DType) -> Result<Self, ModelError> {
        let (config, mut weights, note) = open(folder, device, dtype)?;
        Ok(Self { notes: note.into_iter().collect(), ..Self::build(&config, &mut weights)? })
    }

    /// Builds the model from tensors of any source. Built from tracked tensors it is differentiable in all of them.
    ///
    /// # Errors
    /// Those of `tensors`.
    pub fn build<T: Tensors>(config: &Config, tensors: &mut T) -> Result<Self, ModelError> {
        let vision = Tower::build(&config.vision, config.tower_layers(), config.drop_class_token, tensors)?;
        let projector = Projector::build(config, tensors)?;
        let newline =
            if config.image_newline { Some(tensors.tensor("image_newline", [config.text.hidden])?) } else { None };
        let decoder = Decoder::build(&config.text, tensors)?;
        let (shape, notes) = (config.shape(), Vec::new());
        Ok(Self { config: config.clone(), shape, vision, projector, newline, decoder, notes })
    }

    /// The tower's features of an image, `[views, patches, vision hidden]`, before the projector.
    fn patches(&self, image: &ImageInput) -> Tensor<3> {
        self.vision.forward(Tensor::from_data(image.pixels.clone(), (&self.device(), self.dtype())))
    }

    /// The image features in the decoder: projected, without padding, with line ends.
    ///
    /// # Shapes
    /// - `patches`: as [`Llava::patches`] gives them
    /// - returns: `[image tokens, hidden]`
    fn rows(&self, patches: Tensor<3>, layout: &ImageLayout) -> Tensor<2> {
        let [views, patch_count, features] = patches.dims();
        let hidden = self.config.text.hidden;
        let rows = self.projector.forward(patches.reshape([views * patch_count, features]));
        let Some([columns, lines]) = layout.tiles else {
            return rows;
        };
        let side = self.config.vision.patches_per_side();
        let base = rows.clone().narrow(0, 0, patch_count);
        let grid = rows
            .narrow(0, patch_count, (views - 1) * patch_count)
            .reshape([lines, columns, side, side, hidden])
            .swap_dims(1, 2)
            .reshape([lines * side, columns * side, hidden]);
        let [(top, height), (left, width)] = layout.shown.each_ref().map(|range| (range.start, range.len()));
        if height == 0 || (width == 0 && self.newline.is_none()) {
            return base;
        }
        if width == 0 {
            // So narrow a picture that its own patches round away: of every line the end is left.
            let newline = self.newline.clone().into_iter().map(|newline| newline.reshape([1, hidden]));
            let ends = newline.map(|newline| newline.expand([height, hidden]));
            return Tensor::cat(std::iter::once(base).chain(ends).collect(), 0);
        }
        let grid = grid.narrow(0, top, height).narrow(1, left, width);
        let (grid, width) = match &self.newline {
            Some(newline) => {
                let ends = newline.clone().reshape([1, 1, hidden]).expand([height, 1, hidden]);
                (Tensor::cat(vec![grid, ends], 1), width + 1)
            }
            None => (grid, width),
        };
        Tensor::cat(vec![base, grid.reshape([height * width, hidden])], 0)
    }
}

impl Model for Llava {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn device(&self) -> Device {
        self.decoder.device()
    }

    fn dtype(&self) -> DType {
        self.decoder.dtype()
    }

    fn encode_images(&self, images: &[&ImageInput]) -> Vec<ImageFeatures> {
        let features = |image: &&ImageInput| self.rows(self.patches(image), &image.layout);
        images.iter().map(|image| ImageFeatures { rows: features(image), added: Vec::new() }).collect()
    }

    fn embedded(&self, tokens: Tensor<1, Int>) -> Tensor<2> {
        self.decoder.embedded(tokens)
    }

    fn attention(&self, queries: &[Vec<Option<Slot>>], keys: &[Vec<Option<Slot>>]) -> Attention {
        self.decoder.attention(queries, keys)
    }

    fn caches(&self, batch: usize, capacity: usize) -> Vec<LayerCache> {
        self.decoder.caches(batch, capacity)
    }

    fn layer(
        &self,
        index: usize,
        hidden: Tensor<3>,
        attention: &Attention,
        adapter: Option<&LayerAdapter>,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        self.decoder.layer(index, hidden, attention, adapter, cache)
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.decoder.logits(hidden)
    }
}

/// The checkpoint in `folder`, found to have all that it needs, and a note where its files contradict one another.
fn open(folder: &Path, device: &Device, dtype: DType) -> Result<(Config, Weights, Option<String>), ModelError> {
    let mut config = Config::read(folder)?;
    let mut weights = Weights::open(folder, NAMING, device, dtype)?;
    let note = settle_head(&mut config, &mut weights)?;
    weights.check(&config.tensors())?;
    Ok((config, weights, note))
}

/// Decides which tensor is the head, as transformers 5 does: a head in the checkpoint is the head, regardless of what
/// `tie_word_embeddings` says; tying only makes up for the one of head and embedding that is missing. Gives a note
/// where the files contradict one another.
fn settle_head(config: &mut Config, weights: &mut Weights) -> Result<Option<String>, ModelError> {
    const EMBEDDING: &str = "language_model.model.embed_tokens.weight";
    const HEAD: &str = "language_model.lm_head.weight";
    if !config.text.tied || !weights.has(HEAD) {
        return Ok(None);
    }
    if !weights.has(EMBEDDING) {
        weights.alias(HEAD, EMBEDDING);
        return Ok(None);
    }
    config.text.tied = weights.equal(HEAD, EMBEDDING)?;
    Ok((!config.text.tied).then(|| {
        "`tie_word_embeddings` of `config.json` is true, but the checkpoint has an `lm_head.weight` that differs from \
         the embedding: it is used, as transformers does"
            .to_owned()
    }))
}

/// The names of transformers before 4.52.
///
/// Since then `model.` may prefix everything, and `language_model.model.` may have become
/// `model.language_model.`, the head `lm_head.weight`; transformers 5 leaves out the tower's `vision_model.`. The
/// prefixes vary independently of one another: transformers 5 writes the older ones where it has read them.
const NAMING: Naming = Naming {
    canonical,
    parts: &[
        ("the vision tower", "vision_tower."),
        ("the projector", "multi_modal_projector."),
        ("the language model", "language_model.model."),
    ],
};

fn canonical(stored: &str) -> String {
    let name = stored.strip_prefix("model.").unwrap_or(stored);
    if let Some(rest) = name.strip_prefix("vision_tower.") {
        let rest = rest.strip_prefix("vision_model.").unwrap_or(rest);
        return format!("vision_tower.vision_model.{rest}");
    }
    if let Some(rest) = name.strip_prefix("language_model.") {
        let rest = rest.strip_prefix("model.").unwrap_or(rest);
        let inside = if rest.starts_with("lm_head.") { "" } else { "model." };
        return format!("language_model.{inside}{rest}");
    }
    if name.starts_with("lm_head.") {
        return format!("language_model.{name}");
    }
    if name.starts_with("multi_modal_projector.") || name == "image_newline" {
        return name.to_owned();
    }
    stored.to_owned()
}

/// What a model in the directory `path` is called, in lower case; nothing where the directory has a digest for a name.
/// In a hub's cache, `models--ORG--NAME/snapshots/DIGEST`, it is `NAME`.
fn model_name(path: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let mut above = path.ancestors().skip(1);
    if let (Some(snapshots), Some(model)) = (above.next(), above.next())
        && name(snapshots) == "snapshots"
        && let Some(id) = name(model).strip_prefix("models--")
    {
        return id.rsplit("--").next().unwrap_or_default().to_owned();
    }
    let own = name(path);
    let digest = own.len() >= 8 && own.chars().all(|character| character.is_ascii_hexdigit());
    if digest { String::new() } else { own }
}

/// Whether `word` occurs in `name` as a whole word: not within a longer row of letters or of digits.
fn has_word(name: &str, word: &str) -> bool {
    let alike =
        |one: char, other: char| one.is_alphabetic() && other.is_alphabetic() || one.is_numeric() && other.is_numeric();
    let meets = |one: Option<char>, other: Option<char>| one.zip(other).is_some_and(|(one, other)| alike(one, other));
    name.match_indices(word).any(|(at, _)| {
        let (before, after) = (&name[..at], &name[at + word.len()..]);
        !meets(before.chars().next_back(), word.chars().next())
            && !meets(word.chars().next_back(), after.chars().next())
    })
}

#[cfg(test)]
mod tests;
