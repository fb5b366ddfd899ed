//! A second family, for tests alone: it has nothing in common with LLaVA but the contract.
//!
//! Pictures become grids of any number of patches, by a setting and a file of the family's own; each stands in the text as
//! two image tokens among words of its own, the second for the whole picture. Positions have three axes. Some image features
//! are added after the first layer. The decoder has linear layers, biases, tensors and a chat template of its own.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::activation::gelu;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use image::RgbImage;
use image::imageops::{FilterType, resize};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::ModelError;
use super::adapter::LayerAdapter;
use super::attention::{Attention, LayerCache, Mask, Position, Rotary, Slot, in_rows};
use super::contract::{
    AdapterNames, Family, ImageFeatures, ImageInput, ImageLayout, ImageProcessor, ImageSetting, ImageSettings,
    ImageToken, LinearSpec, Model, Shape,
};
use super::files::json::{end_tokens, read_config, read_optional, token};
use super::files::{Declared, Fields, Naming, Tensors, Weights};
use super::nn::{LayerNorm, Linear, attend};
use super::sequence::Sequence;
use stic_engine::draw::Draws;

/// The family.
pub struct ToyFamily;

const WIDTH: usize = 16;
const LAYERS: usize = 3;
const HEADS: usize = 2;
/// Side of a patch in pixels.
const PATCH: usize = 4;
const PICTURE: &str = "<|picture|>";

const NAMES: AdapterNames = AdapterNames {
    linears: &[
        // Two have names of LLaVA's, in another order and under other paths.
        ("k_proj", "mix.key"),
        ("q_proj", "mix.query"),
        ("value", "mix.value"),
        ("out", "mix.out"),
        ("wide", "think.wide"),
        ("narrow", "think.narrow"),
    ],
    layers: &["speaker.blocks.", "blocks."],
    outside: &["eye."],
    exclude: Some("eye.*"),
};

/// Older checkpoints call the decoder `mouth`.
const NAMING: Naming = Naming {
    canonical: |stored| stored.replacen("mouth.", "speaker.", 1),
    parts: &[("the eye", "eye."), ("the speaker", "speaker.")],
};

impl Family for ToyFamily {
    fn model_types(&self) -> &'static [&'static str] {
        &["toy"]
    }

    fn shape(&self, folder: &Path) -> Result<Shape, ModelError> {
        let config = read_config(folder)?;
        let fields = Fields::of(&config);
        let shapes = [[WIDTH, WIDTH], [WIDTH, WIDTH], [WIDTH, WIDTH], [WIDTH, WIDTH], [32, WIDTH], [WIDTH, 32]];
        let linears = std::iter::zip(NAMES.linears, shapes);
        Ok(Shape {
            vocabulary: fields.positive("words", 100, 1000)?,
            hidden: WIDTH,
            intermediate: 32,
            layers: LAYERS,
            heads: HEADS,
            cached: 2 * WIDTH,
            context: 256,
            end_tokens: end_tokens([(Some(&config), "`eos_token_id`")], 100)?.unwrap_or_default(),
            image_token: ImageToken { text: PICTURE, id: fields.get("picture").and_then(token).unwrap_or_default() },
            linears: linears.map(|(&(name, path), shape)| LinearSpec { name, path, shape, bias: true }).collect(),
            adapter_names: &NAMES,
        })
    }

    fn check(&self, folder: &Path) -> Result<(), ModelError> {
        let mut declared = Declared::default();
        Toy::build(self.shape(folder)?, &mut declared)?;
        Weights::open(folder, NAMING, &Device::flex(), DType::F32)?.check(&declared.0)
    }

    fn load(&self, folder: &Path, device: &Device, dtype: DType) -> Result<Arc<dyn Model>, ModelError> {
        self.check(folder)?;
        let mut weights = Weights::open(folder, NAMING, device, dtype)?;
        Ok(Arc::new(Toy::build(self.shape(folder)?, &mut weights)?))
    }

    fn image_settings(&self) -> &'static [ImageSetting] {
        &[ImageSetting { name: "detail", values: &["low", "high"], help: "How much is seen" }]
    }

    fn files(&self) -> &'static [&'static str] {
        &["eye.json"]
    }

    fn image_processor(&self, folder: &Path, settings: &ImageSettings) -> Result<Box<dyn ImageProcessor>, ModelError> {
        let eye = read_optional(&folder.join("eye.json"))?.unwrap_or_default();
        let low = Fields::of(&eye).positive("low", 3, 5)?;
        Ok(Box::new(Eyes { most: if settings.get("detail") == Some(&"high") { 5 } else { low } }))
    }

    fn default_template(&self, _: &Path) -> Result<&'static str, ModelError> {
        Ok("checkpoint")
    }

    fn adapter_names(&self) -> &'static AdapterNames {
        &NAMES
    }
}

/// Pictures are scaled to grids of patches with at most so many on a side.
struct Eyes {
    most: usize,
}

impl ImageProcessor for Eyes {
    fn layout(&self, sizes: &[[u32; 2]]) -> Vec<ImageLayout> {
        // Several pictures of one conversation get less each.
        let most = self.most.div_ceil(sizes.len().max(1));
        let layout = |&size: &[u32; 2]| {
            let longest = size[0].max(size[1]) as usize;
            let [columns, rows] = size.map(|side| (most * side as usize).div_ceil(longest));
            ImageLayout {
                size,
                text: format!("<look>{PICTURE}<whole>{PICTURE}"),
                runs: vec![[rows, columns], [1, 1]],
                tiles: None,
                shown: [0..rows, 0..columns],
            }
        };
        sizes.iter().map(layout).collect()
    }

    /// `[patches, channels · patch · patch]`.
    fn pixels(&self, image: &RgbImage, layout: &ImageLayout) -> TensorData {
        let [rows, columns] = layout.runs[0];
        let scaled = resize(image, (columns * PATCH) as u32, (rows * PATCH) as u32, FilterType::Triangle);
        let mut values = Vec::new();
        for patch in 0..rows * columns {
            let (top, left) = (patch / columns * PATCH, patch % columns * PATCH);
            for pixel in 0..PATCH * PATCH {
                let (x, y) = (left + pixel % PATCH, top + pixel / PATCH);
                values.extend(scaled.get_pixel(x as u32, y as u32).0.map(|level| f32::from(level) / 127.5 - 1.0));
            }
        }
        TensorData::new(values, [rows * columns, 3 * PATCH * PATCH])
    }

    fn most_image_tokens(&self) -> usize {
        self.most * self.most + 1
    }

    fn settings(&self) -> Vec<(&'static str, &'static str)> {
        vec![("detail", if self.most == 5 { "high" } else { "low" })]
    }
}

#[derive(Clone, Debug)]
struct Toy {
    shape: Shape,
    see: Linear,
    feel: Linear,
    words: Tensor<2>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

#[derive(Clone, Debug)]
struct Block {
    norms: [LayerNorm; 2],
    linears: Vec<Linear>,
}

impl Toy {
    fn build<T: Tensors>(shape: Shape, tensors: &mut T) -> Result<Self, ModelError> {
        let mut blocks = Vec::new();
        for index in 0..LAYERS {
            let path = format!("speaker.blocks.{index}");
            let mut norm = |name: &str| LayerNorm::read(tensors, &format!("{path}.{name}"), WIDTH, 1e-5);
            let norms = [norm("first")?, norm("second")?];
            let linear =
                |spec: &LinearSpec| Linear::read(tensors, &format!("{path}.{}", spec.path), spec.shape, spec.bias);
            blocks.push(Block { norms, linears: shape.linears.iter().map(linear).collect::<Result<_, _>>()? });
        }
        Ok(Self {
            see: Linear::read(tensors, "eye.see", [WIDTH, 3 * PATCH * PATCH], true)?,
            feel: Linear::read(tensors, "eye.feel", [WIDTH, WIDTH], false)?,
            words: tensors.tensor("speaker.words", [shape.vocabulary, WIDTH])?,
            blocks,
            norm: LayerNorm::read(tensors, "speaker.norm", WIDTH, 1e-5)?,
            head: Linear::read(tensors, "speaker.head", [shape.vocabulary, WIDTH], false)?,
            shape,
        })
    }
}

impl Model for Toy {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn notes(&self) -> &[String] {
        &[]
    }

    fn device(&self) -> Device {
        self.words.device()
    }

    fn dtype(&self) -> DType {
        self.words.dtype()
    }

    fn encode_images(&self, images: &[&ImageInput]) -> Vec<ImageFeatures> {
        let features = |image: &&ImageInput| {
            let pixels = Tensor::from_data(image.pixels.clone(), (&self.device(), self.dtype()));
            let patches = gelu(self.see.forward(pixels));
            let rows = Tensor::cat(vec![patches.clone(), patches.mean_dim(0)], 0);
            ImageFeatures { added: vec![self.feel.forward(rows.clone())], rows }
        };
        images.iter().map(features).collect()
    }

    fn embedded(&self, tokens: Tensor<1, Int>) -> Tensor<2> {
        self.words.clone().select(0, tokens)
    }

    /// Text counts on all axes; an image starts where the text is, and takes as many positions as its longer side.
    fn positions(&self, sequence: &Sequence) -> (Vec<Position>, usize) {
        let (mut positions, mut next) = (Vec::new(), 0);
        let mut runs = sequence.images.iter().peekable();
        for index in 0..sequence.tokens.len() {
            match runs.next_if(|run| run.token == index).map(|run| run.grid) {
                Some([rows, columns]) => {
                    positions.extend((0..rows * columns).map(|at| [next, next + at / columns, next + at % columns]));
                    next += rows.max(columns);
                }
                None => {
                    positions.push([next; 3]);
                    next += 1;
                }
            }
        }
        (positions, next)
    }

    fn attention(&self, queries: &[Vec<Option<Slot>>], keys: &[Vec<Option<Slot>>]) -> Attention {
        let angles = |position: Position| {
            let pairs = 0..WIDTH / HEADS / 2;
            pairs.map(|pair| position[pair % 3] as f32 * 100f32.powf(-(pair as f32) / 4.0)).collect()
        };
        let device = self.device();
        let rotary = Rotary::new(queries, &device, angles);
        Attention { rotary, mask: Mask::new(queries, keys, None, 1, &device) }
    }

    fn caches(&self, batch: usize, capacity: usize) -> Vec<LayerCache> {
        let shape = [batch, HEADS, capacity, WIDTH / HEADS];
        self.blocks.iter().map(|_| LayerCache::new(shape, (&self.device(), self.dtype()))).collect()
    }

    fn layer(
        &self,
        index: usize,
        hidden: Tensor<3>,
        Attention { rotary, mask }: &Attention,
        adapter: Option<&LayerAdapter>,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let Block { norms, linears } = &self.blocks[index];
        let [batch, length, _] = hidden.dims();
        let project = |linear: usize, rows| LayerAdapter::project(adapter, linear, &linears[linear], rows);
        let heads = |rows: Tensor<2>| rows.reshape([batch, length, HEADS, WIDTH / HEADS]).swap_dims(1, 2);
        let rows = hidden.reshape([batch * length, WIDTH]);
        let normal = norms[0].forward(rows.clone());
        let query = rotary.turn(heads(project(1, normal.clone())));
        let (key, value) = (rotary.turn(heads(project(0, normal.clone()))), heads(project(2, normal)));
        let context = match cache {
            Some(cache) => {
                cache.append(key, value);
                cache.attend(query, mask)
            }
            None => in_rows(attend(query, key, value, Some(mask.hidden()))),
        };
        let rows = rows + project(3, context);
        let rows = rows.clone() + project(5, gelu(project(4, norms[1].forward(rows))));
        rows.reshape([batch, length, WIDTH])
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.head.forward(self.norm.forward(hidden)).cast(DType::F32)
    }
}

const SPECIAL: [&str; 7] = ["<unk>", "<|end|>", "<|user|>", "<|assistant|>", PICTURE, "<look>", "<whole>"];
const WORDS: &str = "a red blue green ring square circle is are there here left right above below of the what which \
                     color shape tell me name one not no yes and it . ?";
const TEMPLATE: &str = "{% for message in messages %}<|{{ message.role }}|>{% for part in message.content %}\
                        {% if part.type == 'image' %}<|picture|>{% else %}{{ part.text }}{% endif %}{% endfor %}\
                        <|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

/// Writes a checkpoint into `folder`, in the older names.
pub(crate) fn checkpoint(folder: &Path) {
    let words: Vec<&str> = SPECIAL.into_iter().chain(WORDS.split_whitespace()).collect();
    let write = |name: &str, value: Value| fs::write(folder.join(name), value.to_string()).unwrap();
    write("config.json", json!({ "model_type": "toy", "words": words.len(), "picture": 4, "eos_token_id": [1] }));
    let vocabulary: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
    let added = SPECIAL.iter().enumerate().map(|(id, word)| {
        json!({ "id": id, "content": word, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false })
    });
    write(
        "tokenizer.json",
        json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
            "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "added_tokens": added.collect::<Vec<_>>(),
            "model": { "type": "WordLevel", "unk_token": "<unk>", "vocab": vocabulary }
        }),
    );
    write("tokenizer_config.json", json!({ "unk_token": "<unk>", "chat_template": TEMPLATE }));
    let mut declared = Declared::default();
    Toy::build(ToyFamily.shape(folder).unwrap(), &mut declared).unwrap();
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = declared
        .0
        .into_iter()
        .map(|(name, shape)| {
            let scale = (shape.len() as f64 - 0.5) * (*shape.last().unwrap() as f64).powf(-0.5);
            let mut draws = Draws::new(3, "toy", &name);
            let values = (0..shape.iter().product()).map(|_| (draws.normal() * scale) as f32);
            let bytes = values.flat_map(f32::to_le_bytes).collect();
            (name.replace("speaker.", "mouth."), shape, bytes)
        })
        .collect();
    let views =
        tensors.iter().map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
}

/// A picture of this size.
pub(crate) fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 40) as u8, (y * 40) as u8, (x * y) as u8]))
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::model::batch::{Batch, Member};
    use crate::model::families;
    use crate::model::forward::{forward, log_probabilities};
    use crate::model::generate::{Generator, Request, Settings};
    use crate::model::processor::{Processor, round};
    use crate::model::sample::Sampling;
    use crate::model::tiny;

    struct Ready {
        _folder: tempfile::TempDir,
        processor: Processor,
        model: Arc<dyn Model>,
    }

    fn ready() -> Ready {
        let folder = tempfile::tempdir().unwrap();
        checkpoint(folder.path());
        let model = families::of(folder.path()).unwrap().load(folder.path(), &Device::flex(), DType::F32).unwrap();
        let processor = Processor::read(folder.path(), None, &[("detail", "high")].into()).unwrap();
        Ready { _folder: folder, processor, model }
    }

    #[test]
    fn an_image_stands_in_the_text_and_on_three_axes_as_its_size_says() {
        let Ready { processor, model, .. } = ready();
        let image = processor.image(&picture(40, 20));
        assert_eq!((image.pieces(), image.layout.image_tokens()), (15, 16));
        let sequence = processor.tokenize(&round("what is there ?", Some("a ring")), &[&image.layout]).unwrap();
        assert_eq!(sequence.tokens[..5], [2, 5, 4, 6, 4]);
        assert_eq!(
            sequence.images.iter().map(|run| (run.token, run.grid)).collect::<Vec<_>>(),
            [(2, [3, 5]), (4, [1, 1])]
        );
        let answer: Vec<u32> = sequence.answers().map(|index| sequence.tokens[index]).collect();
        assert_eq!(answer.last(), Some(&1));
        let (positions, next) = model.positions(&sequence);
        assert_eq!(positions.len(), sequence.positions());
        assert_eq!(positions[2..4], [[2, 2, 2], [2, 2, 3]]);
        assert_eq!((positions[16], positions[17]), ([2, 4, 6], [7; 3]), "the last patch, and the text that goes on");
        assert_eq!(next + 15 - 5, sequence.positions());
        // Two pictures get less room each.
        assert_eq!(processor.images().layout(&[[40, 20]; 2])[0].runs[0], [2, 3]);
    }

    #[test]
    fn decoding_with_a_cache_is_a_pass_over_it_all() {
        let Ready { processor, model, .. } = ready();
        let image = Arc::new(processor.image(&picture(40, 20)));
        let mut sequence = processor.tokenize(&round("what is there ?", None), &[&image.layout]).unwrap();
        let settings = Settings { sampling: Sampling::GREEDY, max_new_tokens: 8, seed: 0, batch_size: None };
        let generator = Generator::new(&*model, None, processor.tokenizer(), settings);
        let request =
            Request { tag: 0, subject: String::new(), sequence: sequence.clone(), image: Some(image.clone()) };
        let answer = generator.one(request).unwrap();
        let features = model.encode_images(&[&image]);
        for token in answer.tokens {
            let member = Member { sequences: std::slice::from_ref(&sequence), image: Some(0) };
            let batch = Batch::new(&*model, &[member], &features, |longest| longest);
            let hidden = forward(&*model, &batch.input, |_| None, None, |_| ControlFlow::Continue(()));
            let [_, length, _] = batch.input.hidden.dims();
            let last = hidden.continue_value().unwrap().narrow(1, length - 1, 1).reshape([1, WIDTH]);
            let mut logits: Vec<f32> = model.logits(last).into_data().try_into_vec().unwrap();
            (0..logits.len())
                .filter(|id| !processor.tokenizer().is_text(*id as u32))
                .for_each(|id| logits[id] = f32::MIN);
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            assert_eq!(best as u32, token);
            sequence.tokens.push(token);
        }
    }

    #[test]
    fn a_pair_in_one_row_has_the_log_probabilities_of_its_sequences_alone() {
        let Ready { processor, model, .. } = ready();
        let image = processor.image(&picture(20, 40));
        let answered = |text| processor.tokenize(&round("what is there ?", Some(text)), &[&image.layout]).unwrap();
        let pair = [answered("a red ring is there ."), answered("no ring")];
        let adapter = tiny::adapter(&*model);
        let features = model.encode_images(&[&image]);
        let values = |sequences: &[Sequence], features: &[ImageFeatures]| {
            let batch = Batch::new(&*model, &[Member { sequences, image: Some(0) }], features, |longest| longest + 3);
            log_probabilities(&*model, Some(&adapter), &batch)
        };
        let together = values(&pair, &features);
        let alone = [values(&pair[..1], &features), values(&pair[1..], &features)].concat();
        assert!(
            std::iter::zip(&together, &alone).all(|(one, other)| (one - other).abs() < 1e-5),
            "{together:?} {alone:?}"
        );
        let without = [ImageFeatures { added: Vec::new(), ..features[0].clone() }];
        assert_ne!(together, values(&pair, &without), "what is added after the first layer counts");
    }
}
