//! The model against what transformers computes; `tests/reference/make.py` wrote the checkpoints and the numbers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use burn::tensor::{DType, Int, Tensor};
use serde_json::Value;
use sha2::Digest;

use super::*;
use crate::data::resample::tests::ramps;
use crate::model::adapter::Adapter;
use crate::model::attention::Slot;
use crate::model::batch::Input;
use crate::model::forward::forward;
use crate::model::peft;
use crate::model::tiny::{Tolerance, device};
use crate::model::tokenizer::Tokenizer;

struct Reference {
    folder: PathBuf,
    facts: Value,
    values: Vec<u8>,
}

impl Reference {
    fn open(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name);
        let facts = std::fs::read_to_string(folder.join("expected.json")).expect("facts");
        let values = std::fs::read(folder.join("expected.safetensors")).expect("values");
        Self { folder, facts: serde_json::from_str(&facts).expect("JSON"), values }
    }

    fn load(&self) -> Llava {
        Llava::load(&self.folder, &device(), DType::F32).expect("loads")
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let file = safetensors::SafeTensors::deserialize(&self.values).expect("safetensors");
        let tensor = file.tensor(name).expect("a tensor");
        tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four"))).collect()
    }

    fn picture(&self, name: &str) -> image::RgbImage {
        let path = self.folder.join("../pictures").join(format!("{name}.png"));
        image::open(path).expect("a picture").into_rgb8()
    }

    /// What the tower reads of the picture `name`.
    fn image(&self, name: &str) -> ImageInput {
        let processor = LlavaImageProcessor::read(&self.folder, &ImageSettings::new()).expect("sound");
        input(&processor, &self.picture(name))
    }
}

fn input(processor: &LlavaImageProcessor, picture: &image::RgbImage) -> ImageInput {
    let layout = processor.layout(&[picture.dimensions().into()]).remove(0);
    ImageInput { pixels: processor.pixels(picture, &layout), layout }
}

fn tolerance() -> Tolerance {
    Tolerance::of(DType::F32)
}

fn rows(model: &Llava, image: &ImageInput) -> Tensor<2> {
    model.encode_images(&[image]).remove(0).rows
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("ids")
}

/// The embedded sequence, `[1, positions, hidden]`; the reference repeats the picture's token once for each row.
fn embedded(model: &Llava, tokens: &[u32], rows: Option<Tensor<2>>) -> Tensor<3> {
    let parts: Vec<&[u32]> = tokens.split(|&token| token == model.config.image_token).collect();
    let hidden = match rows {
        None => model.embed(tokens),
        Some(rows) => {
            assert_eq!(parts.len() - 1, rows.dims()[0], "as many rows as transformers has tokens for");
            Tensor::cat(vec![model.embed(parts[0]), rows, model.embed(parts[parts.len() - 1])], 0)
        }
    };
    hidden.unsqueeze()
}

/// The logits of one sequence, `[positions, vocabulary]`.
fn logits(model: &Llava, hidden: Tensor<3>, adapter: Option<&Adapter>) -> Tensor<2> {
    let [_, length, features] = hidden.dims();
    let slots = [Slot::line(0..length)];
    let input = Input { hidden, added: Vec::new(), attention: model.attention(&slots, &slots) };
    let layer = |index: usize| adapter.map(|adapter| Cow::Borrowed(&adapter.layers[index]));
    let hidden = forward(model, &input, layer, None, |_| ControlFlow::Continue(())).continue_value();
    model.logits(hidden.expect("nothing breaks it off").reshape([length, features]))
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("floats")
}

/// The sum over all tokens but the first.
fn log_probability(logits: &[f32], tokens: &[u32]) -> f32 {
    let vocabulary = logits.len() / tokens.len();
    let rows = logits.chunks_exact(vocabulary).zip(&tokens[1..]);
    rows.map(|(row, &token)| row[token as usize] - row.iter().map(|logit| logit.exp()).sum::<f32>().ln()).sum()
}

fn distance(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
}

#[test]
fn pixels_beyond_the_last_whole_patch_are_not_read() {
    let model = Reference::open("llava").load();
    let values = Tensor::<1, Int>::arange(0..3 * 35 * 35, &model.device()).float().cast(DType::F32);
    let views = values.mul_scalar(0.37).sin().reshape([1, 3, 35, 35]);
    let whole = views.clone().narrow(2, 0, 32).narrow(3, 0, 32);
    assert_eq!(floats(model.vision.forward(views)), floats(model.vision.forward(whole)));
}

#[test]
fn logits_of_pictures_and_text_equal_those_of_transformers() {
    for name in ["llava", "llava_next"] {
        let reference = Reference::open(name);
        let model = reference.load();
        for picture in ["square", "wide"] {
            let rows = rows(&model, &reference.image(picture));
            let tokens = ids(&reference.facts["pictures"][picture]["answered"]["ids"]);
            let found = floats(logits(&model, embedded(&model, &tokens, Some(rows)), None));
            let worst = distance(&found, &reference.floats(&format!("{picture}.logits")));
            assert!(worst < tolerance().logits, "{name}, {picture}: {worst}");
            println!("{name}, {picture}: logits differ by at most {worst}");
            let sums =
                [log_probability(&found, &tokens), reference.floats(&format!("{picture}.logprobs")).iter().sum()];
            assert!(f64::from((sums[0] - sums[1]).abs()) < tolerance().log_probability, "{name}, {picture}: {sums:?}");
        }
        let found = floats(logits(&model, embedded(&model, &ids(&reference.facts["text"]), None), None));
        let worst = distance(&found, &reference.floats("text.logits"));
        assert!(worst < tolerance().logits, "{name}, text: {worst}");
    }
}

#[test]
fn pictures_equal_what_the_processors_of_transformers_make_of_them() {
    for name in ["llava", "llava_next"] {
        let reference = Reference::open(name);
        for (picture, facts) in reference.facts["pictures"].as_object().expect("pictures") {
            let ImageInput { pixels, layout } = reference.image(picture);
            let file = safetensors::SafeTensors::deserialize(&reference.values).expect("safetensors");
            let levels = file.tensor(&format!("{picture}.levels")).expect("levels");
            assert_eq!(pixels.shape().to_vec(), levels.shape(), "{name}, {picture}");
            let (mean, deviation) =
                ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]);
            let size: usize = levels.shape()[2..].iter().product();
            for (index, (found, level)) in pixels.iter::<f32>().zip(levels.data()).enumerate() {
                let channel = index / size % 3;
                let expected: f32 = ((f64::from(*level) / 255.0) as f32 - mean[channel]) / deviation[channel];
                assert_eq!(found, expected, "{name}, {picture}, value {index}");
            }
            assert_eq!(facts["rows"], layout.image_tokens(), "{name}, {picture}");
        }
    }
}

/// What `tests/reference/anyres.py` wrote of a picture under one rule.
#[derive(serde::Deserialize)]
struct Shown {
    rows: usize,
    /// SHA-256 of the levels of all views.
    views: String,
    /// Every 48th logit of the last position.
    #[serde(default)]
    logits: Vec<f32>,
}

#[derive(serde::Deserialize)]
struct Case {
    size: [u32; 2],
    huggingface: Shown,
    original: Shown,
    huggingface_336: Option<Shown>,
    original_336: Option<Shown>,
}

/// The 8-bit levels that were normalized, as a digest.
fn levels_digest(image: &ImageInput) -> String {
    let (mean, deviation) = ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]);
    let size: usize = image.pixels.shape()[2..].iter().product();
    let level = |(index, value): (usize, f32)| {
        let channel = index / size % 3;
        ((value * deviation[channel] + mean[channel]) * 255.0).round() as u8
    };
    let levels: Vec<u8> = image.pixels.iter::<f32>().enumerate().map(level).collect();
    sha2::Sha256::digest(levels).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Pixels to the bit, rows to the number, logits within their tolerance, under both rules.
#[test]
fn pictures_of_any_shape_are_tiled_as_either_reference_does_it() {
    let shapes: Vec<Case> = serde_json::from_str(include_str!("../../../tests/reference/anyres.json")).expect("JSON");
    let reference = Reference::open("llava_next");
    let model = reference.load();
    let asked = ids(&reference.facts["pictures"]["square"]["ids"]);
    let vision = serde_json::json!({ "image_size": 336, "patch_size": 14 });
    let large = tempfile::tempdir().expect("a directory");
    let config = serde_json::json!({ "model_type": "llava_next", "vision_config": vision });
    std::fs::write(large.path().join("config.json"), config.to_string()).expect("written");
    let mut worst: f32 = 0.0;
    for shape in &shapes {
        let [width, height] = shape.size;
        let picture = ramps(width, height);
        for anyres_rule in AnyresRule::ALL {
            let (shown, shown_336) = match anyres_rule {
                AnyresRule::HuggingFace => (&shape.huggingface, &shape.huggingface_336),
                AnyresRule::Original => (&shape.original, &shape.original_336),
            };
            let prepare =
                |config: Config| input(&LlavaImageProcessor::new(&Config { anyres_rule, ..config }), &picture);
            let of = format!("{width}×{height}, {}", anyres_rule.name());
            if let Some(shown) = shown_336 {
                let image = prepare(Config::read(large.path()).expect("sound"));
                let found = (image.layout.image_tokens(), &levels_digest(&image));
                assert_eq!(found, (shown.rows, &shown.views), "336 pixels, {of}");
            }
            let image = prepare(model.config.clone());
            assert_eq!((image.layout.image_tokens(), &levels_digest(&image)), (shown.rows, &shown.views), "{of}");
            let rows = rows(&model, &image);
            assert_eq!(rows.dims()[0], shown.rows, "{of}");
            let image = model.config.image_token;
            let place = asked.iter().position(|token| *token == image).expect("a picture");
            let after = asked.iter().rposition(|token| *token == image).expect("a picture") + 1;
            let parts = vec![model.embed(&asked[..place]), rows, model.embed(&asked[after..])];
            let found = logits(&model, Tensor::cat(parts, 0).unsqueeze(), None);
            let length = found.dims()[0];
            let found: Vec<f32> = floats(found.narrow(0, length - 1, 1)).into_iter().step_by(48).collect();
            let apart = distance(&found, &shown.logits);
            assert!(apart < tolerance().logits, "{of}: {apart}");
            worst = worst.max(apart);
        }
    }
    assert!(shapes.len() >= 40);
    println!("logits of {} shapes differ by at most {worst}", shapes.len());
}

/// The names that transformers has given to the same tensors, each prefix on its own.
#[test]
fn a_checkpoint_is_the_same_model_whatever_generation_named_its_tensors() {
    let reference = Reference::open("llava_next");
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let shards = shards.map(|name| std::fs::read(reference.folder.join(name)).expect("weights"));
    let files = shards.each_ref().map(|bytes| safetensors::SafeTensors::deserialize(bytes).expect("safetensors"));
    let tokens = ids(&reference.facts["text"]);
    let expected = floats(logits(&reference.load(), embedded(&reference.load(), &tokens, None), None));
    for choice in 0..16 {
        let front = ["", "model."][choice & 1];
        let tower = ["vision_tower.", "vision_tower.vision_model."][choice >> 1 & 1];
        let decoder = ["language_model.", "language_model.model."][choice >> 2 & 1];
        let head = ["lm_head.", "language_model.lm_head."][choice >> 3 & 1];
        let renamed = |name: String| {
            let name = name.replacen("vision_tower.", tower, 1).replacen("language_model.model.", decoder, 1);
            let name = name.replacen("language_model.lm_head.", head, 1);
            // transformers has never put anything in front of a bare head.
            if name.starts_with("lm_head.") { name } else { format!("{front}{name}") }
        };
        let tensors = files.iter().flat_map(|file| file.tensors()).map(|(name, view)| (renamed(name), view));
        let folder = tempfile::tempdir().expect("a directory");
        let bytes = safetensors::serialize(tensors, None).expect("serializes");
        std::fs::write(folder.path().join("model.safetensors"), bytes).expect("written");
        std::fs::copy(reference.folder.join("config.json"), folder.path().join("config.json")).expect("copied");
        let model = Llava::load(folder.path(), &device(), DType::F32).expect("loads");
        assert_eq!(
            floats(logits(&model, embedded(&model, &tokens, None), None)),
            expected,
            "{front} {tower} {decoder} {head}"
        );
    }
}

/// The files beside the weights are those that transformers 4.49 and PEFT 0.14 wrote of the same model.
#[test]
fn a_checkpoint_of_transformers_4_is_the_same_model() {
    let reference = Reference::open("llava_next");
    let folder = tempfile::tempdir().expect("a directory");
    let older = reference.folder.join("../transformers_4");
    for name in ["config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"] {
        std::fs::copy(older.join(name), folder.path().join(name)).expect("copied");
    }
    for name in ["special_tokens_map.json", "tokenizer_config.json", "adapter/adapter_config.json"] {
        std::fs::create_dir_all(folder.path().join("adapter")).expect("a directory");
        std::fs::copy(older.join(name), folder.path().join(name)).expect("copied");
    }
    std::fs::copy(reference.folder.join("tokenizer.json"), folder.path().join("tokenizer.json")).expect("copied");
    let rewrite = |from: &str, to: &str, rename: &dyn Fn(String) -> String| {
        let bytes = std::fs::read(reference.folder.join(from)).expect("weights");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let tensors = file.tensors().into_iter().map(|(name, view)| (rename(name), view));
        let bytes = safetensors::serialize(tensors, None).expect("serializes");
        std::fs::write(folder.path().join(to), bytes).expect("written");
    };
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    for shard in shards {
        rewrite(shard, shard, &|name| name.replacen("vision_tower.", "vision_tower.vision_model.", 1));
    }
    let index = serde_json::json!({ "weight_map": { "a": shards[0], "b": shards[1] } });
    std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).expect("written");
    let adapter = "adapter/adapter_model.safetensors";
    rewrite(adapter, adapter, &|name| name.replacen("model.language_model", "language_model.model", 1));

    let config = Config::read(folder.path()).expect("sound");
    assert_eq!(config, Config::read(&reference.folder).expect("sound"));
    let processor = |folder: &Path| LlavaImageProcessor::read(folder, &ImageSettings::new()).expect("sound");
    assert_eq!(processor(folder.path()), processor(&reference.folder));
    let tokenizers = [folder.path(), &reference.folder]
        .map(|folder| Tokenizer::read(folder, &config.shape().image_token).expect("sound"));
    assert!((0..400).all(|id| tokenizers[0].is_text(id) == tokenizers[1].is_text(id)));
    assert!((380..384).all(|id| !tokenizers[0].is_text(id)), "`<image>`, `<pad>`, and what is beyond the vocabulary");
    let model = Llava::load(folder.path(), &device(), DType::F32).expect("loads");
    let adapter = peft::read(&folder.path().join("adapter"), model.shape(), &model.device()).expect("read");
    let rows = rows(&model, &reference.image("square"));
    let tokens = ids(&reference.facts["pictures"]["square"]["answered"]["ids"]);
    let found = floats(logits(&model, embedded(&model, &tokens, Some(rows)), Some(&adapter.adapter)));
    let worst = distance(&found, &reference.floats("square.adapter_logits"));
    assert!(worst < tolerance().logits, "{worst}");
}

/// What transformers 5.23 does with every combination, as `from_pretrained` showed.
#[test]
fn the_head_is_the_checkpoint_s_and_tying_makes_up_for_what_is_missing() {
    const EMBEDDING: &str = "language_model.model.embed_tokens.weight";
    const HEAD: &str = "language_model.lm_head.weight";
    let reference = Reference::open("llava");
    let bytes = std::fs::read(reference.folder.join("model.safetensors")).expect("weights");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let config: Value =
        serde_json::from_slice(&std::fs::read(reference.folder.join("config.json")).expect("read")).expect("JSON");
    let load = |top: Option<bool>, text: bool, left_out: &str, head_of: &str| {
        let folder = tempfile::tempdir().expect("a directory");
        let mut config = config.clone();
        config["tie_word_embeddings"] = top.into();
        config["text_config"]["tie_word_embeddings"] = text.into();
        std::fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
        let tensors = file.tensors().into_iter().filter(|(name, _)| name != left_out).map(|(name, view)| {
            let view = if name == HEAD { file.tensor(head_of).expect("a tensor") } else { view };
            (name, view)
        });
        let bytes = safetensors::serialize(tensors, None).expect("serializes");
        std::fs::write(folder.path().join("model.safetensors"), bytes).expect("written");
        assert_eq!(
            LlavaFamily.check(folder.path()).map_err(|error| error.message),
            Llava::load(folder.path(), &device(), DType::F32).map(drop).map_err(|error| error.message)
        );
        Llava::load(folder.path(), &device(), DType::F32)
    };
    let tokens = ids(&reference.facts["text"]);
    let said = |model: &Llava| floats(logits(model, embedded(model, &tokens, None), None));
    let apart = reference.floats("text.logits");
    for (top, text) in [(None, true), (Some(false), true), (Some(true), false), (Some(true), true)] {
        let model = load(top, text, "", HEAD).expect("loads");
        assert!(distance(&said(&model), &apart) < tolerance().logits, "a head that differs is the head");
        assert_eq!(model.notes.len(), 1);
        assert!(model.notes[0].contains("`lm_head.weight` that differs"), "{:?}", model.notes);
        let equal = load(top, text, "", EMBEDDING).expect("loads");
        let tied = load(top, text, HEAD, HEAD).expect("loads");
        assert!(tied.notes.is_empty() && equal.notes.is_empty());
        assert_eq!(said(&tied), said(&equal));
        assert!(distance(&said(&tied), &apart) > 0.1);
        assert!(load(top, text, EMBEDDING, HEAD).is_ok(), "the head is the embedding");
    }
    let untied = load(None, false, "", HEAD).expect("loads");
    assert!(distance(&said(&untied), &apart) < tolerance().logits && untied.notes.is_empty());
    let missing = load(None, false, HEAD, HEAD).expect_err("refused").message;
    assert!(missing.contains("tensor `language_model.lm_head.weight`: expected"), "{missing}");
    assert!(load(None, false, EMBEDDING, HEAD).is_err());
}

#[test]
fn logits_with_an_adapter_equal_those_of_peft() {
    for name in ["llava", "llava_next"] {
        let reference = Reference::open(name);
        let model = reference.load();
        let adapter = peft::read(&reference.folder.join("adapter"), model.shape(), &model.device()).expect("read");
        let rows = rows(&model, &reference.image("square"));
        let tokens = ids(&reference.facts["pictures"]["square"]["answered"]["ids"]);
        let found = floats(logits(&model, embedded(&model, &tokens, Some(rows)), Some(&adapter.adapter)));
        let worst = distance(&found, &reference.floats("square.adapter_logits"));
        assert!(worst < tolerance().logits, "{name}: {worst}");
        println!("{name}, with an adapter: logits differ by at most {worst}");
        assert!(distance(&found, &reference.floats("square.logits")) > 0.1, "the adapter changes the logits");
    }
}

#[test]
fn a_sliding_window_hides_what_lies_further_back() {
    let reference = Reference::open("llava_next");
    let mut model = reference.load();
    let mut config = model.config.clone();
    config.text.sliding_window = Some(6);
    let mut weights = Weights::open(&reference.folder, NAMING, &device(), DType::F32).expect("opens");
    model = Llava::build(&config, &mut weights).expect("builds");
    let found = floats(logits(&model, embedded(&model, &ids(&reference.facts["text"]), None), None));
    let worst = distance(&found, &reference.floats("text.window_logits"));
    assert!(worst < tolerance().logits, "{worst}");
    assert!(distance(&found, &reference.floats("text.logits")) > 0.1, "the window matters at this length");
}

/// Greedy decoding of prompts of unequal length in one batch: the short ones are padded on the left, and every layer
/// keeps a cache whose attended part grows in steps.
#[test]
fn greedy_tokens_out_of_a_padded_batch_with_a_cache_are_those_of_transformers() {
    for name in ["llava", "llava_next"] {
        let reference = Reference::open(name);
        let model = reference.load();
        let pictures = ["square", "tall", "wide", "small", "odd"];
        let prompts: Vec<Tensor<2>> = pictures
            .iter()
            .map(|picture| {
                let rows = rows(&model, &reference.image(picture));
                let tokens = ids(&reference.facts["pictures"][picture]["ids"]);
                embedded(&model, &tokens, Some(rows)).squeeze_dim(0)
            })
            .collect();
        let lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.dims()[0]).collect();
        let longest = *lengths.iter().max().expect("prompts");
        let steps = 16;
        let padding: Vec<usize> = lengths.iter().map(|length| longest - length).collect();
        let padded = prompts.iter().zip(&padding).map(|(prompt, &padding)| {
            let blank = Tensor::zeros([padding, prompt.dims()[1]], &model.device());
            if padding == 0 { prompt.clone() } else { Tensor::cat(vec![blank, prompt.clone()], 0) }
        });
        let mut hidden: Tensor<3> = Tensor::stack(padded.collect(), 0);
        let mut caches = model.caches(pictures.len(), longest + steps);
        let mut found: Vec<Vec<u32>> = vec![Vec::new(); pictures.len()];
        let mut slots = 0..longest;
        for _ in 0..steps {
            let attended = (slots.end.div_ceil(16) * 16).min(longest + steps);
            let position = |padding: usize, slot: usize| slot.checked_sub(padding).filter(|_| slot < slots.end);
            let query = |padding: usize, slot: usize| {
                let position = slot.saturating_sub(padding);
                Some(Slot::at(position, position))
            };
            let queries: Vec<Vec<Option<Slot>>> =
                padding.iter().map(|&padding| slots.clone().map(|slot| query(padding, slot)).collect()).collect();
            let key = |padding: usize, slot: usize| position(padding, slot).map(|place| Slot::at(place, place));
            let keys: Vec<Vec<Option<Slot>>> =
                padding.iter().map(|&padding| (0..attended).map(|slot| key(padding, slot)).collect()).collect();
            let input = Input { hidden, added: Vec::new(), attention: model.attention(&queries, &keys) };
            let run = forward(&model, &input, |_| None, Some(&mut caches), |_| ControlFlow::Continue(()));
            hidden = run.continue_value().expect("nothing breaks it off");
            let [batch, length, features] = hidden.dims();
            let last = hidden.narrow(1, length - 1, 1).reshape([batch, features]);
            let best: Vec<i32> = model.logits(last).argmax(1).into_data().convert::<i32>().try_into_vec().expect("ids");
            for (found, best) in found.iter_mut().zip(&best) {
                found.push(*best as u32);
            }
            let tokens: Vec<u32> = best.iter().map(|best| *best as u32).collect();
            hidden = model.embed(&tokens).reshape([batch, 1, features]);
            slots = slots.end..slots.end + 1;
        }
        for (picture, found) in pictures.iter().zip(&found) {
            let expected = ids(&reference.facts["pictures"][picture]["greedy"]);
            assert_eq!(found[..expected.len()], expected, "{name}, {picture}");
        }
    }
}

#[test]
fn a_model_of_tracked_tensors_has_a_gradient_for_every_one_of_them() {
    for name in ["llava", "llava_next"] {
        let reference = Reference::open(name);
        let config = Config::read(&reference.folder).expect("sound");
        let mut weights = Weights::open(&reference.folder, NAMING, &device(), DType::F32).expect("opens");
        let mut tracked: BTreeMap<String, Tensor<1>> = config
            .tensors()
            .into_iter()
            .map(|(name, shape)| {
                let tensor = match shape[..] {
                    [a] => weights.tensor(&name, [a]),
                    [a, b] => weights.tensor(&name, [a, b]).map(|tensor: Tensor<2>| tensor.flatten(0, 1)),
                    [a, b, c, d] => weights.tensor(&name, [a, b, c, d]).map(|tensor: Tensor<4>| tensor.flatten(0, 3)),
                    _ => panic!("tensors have one, two or four dimensions"),
                };
                (name, tensor.expect("there").autodiff().require_grad())
            })
            .collect();
        let plain = reference.load();
        let model = Llava::build(&config, &mut tracked).expect("builds");
        let image = reference.image("small");
        let tokens = ids(&reference.facts["pictures"]["small"]["ids"]);
        let loss = |model: &Llava| {
            let rows = rows(model, &image);
            logits(model, embedded(model, &tokens, Some(rows)), None).narrow(0, 10, 20).powi_scalar(2).mean()
        };
        let gradients = loss(&model).backward();
        let value = loss(&plain).into_scalar::<f32>();
        for (name, tensor) in &tracked {
            let gradient = tensor.grad(&gradients).unwrap_or_else(|| panic!("`{name}` has a gradient"));
            let size = gradient.clone().powi_scalar(2).sum().sqrt().into_scalar::<f32>();
            // A key's bias adds the same to all scores of a query: softmax takes it out again.
            assert!(size > 1e-7 || name.ends_with("k_proj.bias"), "`{name}`: {size}");
        }
        // Along the gradient the loss grows by the gradient's square, to first order.
        let path = "language_model.model.layers.1.self_attn.k_proj.weight";
        let step = tracked[path].grad(&gradients).expect("a gradient");
        let square = step.clone().powi_scalar(2).sum().into_scalar::<f32>();
        let scale = 0.01 / square.sqrt();
        let moved = tracked[path].clone().inner() + step * scale;
        let mut tensors: BTreeMap<String, Tensor<1>> =
            tracked.iter().map(|(name, tensor)| (name.clone(), tensor.clone().inner())).collect();
        tensors.insert(path.to_owned(), moved);
        let grown = loss(&Llava::build(&config, &mut tensors).expect("builds")).into_scalar::<f32>() - value;
        let expected = square * scale;
        assert!((grown / expected - 1.0).abs() < 0.05, "{name}: {grown} {expected}");
    }
}

#[test]
fn sixteen_bits_compute_the_same_within_their_rounding() {
    let reference = Reference::open("llava_next");
    for dtype in [DType::F16, DType::BF16].into_iter().filter(|dtype| device().supports_dtype(*dtype)) {
        let tolerance = Tolerance::of(dtype).logits;
        let model = Llava::load(&reference.folder, &device(), dtype).expect("loads");
        let lora = peft::read(&reference.folder.join("adapter"), model.shape(), &model.device()).expect("read").adapter;
        let rows = rows(&model, &reference.image("square"));
        let tokens = ids(&reference.facts["pictures"]["square"]["answered"]["ids"]);
        let hidden = embedded(&model, &tokens, Some(rows));
        let worst =
            distance(&floats(logits(&model, hidden.clone(), Some(&lora))), &reference.floats("square.adapter_logits"));
        assert!(worst < tolerance, "{dtype:?}: {worst}");
        // Under autodiff attention takes another way.
        let tracked = floats(logits(&model, hidden.autodiff().require_grad(), Some(&lora)).inner());
        let worst = distance(&tracked, &reference.floats("square.adapter_logits"));
        assert!(worst < tolerance, "{dtype:?}, tracked: {worst}");
    }
}

#[test]
fn every_prefix_varies_on_its_own() {
    for front in ["", "model."] {
        for tower in ["", "vision_model."] {
            let stored = format!("{front}vision_tower.{tower}encoder.layers.0.mlp.fc1.bias");
            assert_eq!(canonical(&stored), "vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias", "{stored}");
        }
        for inside in ["", "model."] {
            let stored = format!("{front}language_model.{inside}norm.weight");
            assert_eq!(canonical(&stored), "language_model.model.norm.weight", "{stored}");
        }
        for head in ["", "language_model.", "language_model.model."] {
            let stored = format!("{front}{head}lm_head.weight");
            assert_eq!(canonical(&stored), "language_model.lm_head.weight", "{stored}");
        }
        for name in ["image_newline", "multi_modal_projector.linear_1.bias"] {
            assert_eq!(canonical(&format!("{front}{name}")), name);
        }
    }
    assert_eq!(canonical("model.visual.blocks.0.weight"), "model.visual.blocks.0.weight");
}

#[test]
fn the_default_template_follows_the_language_model() {
    let root = tempfile::tempdir().unwrap();
    let default = |name: &str, config: &str| {
        let folder = root.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.json"), config).unwrap();
        LlavaFamily.default_template(&folder).unwrap()
    };
    assert_eq!(default("a", r#"{"model_type": "llava", "text_config": {"model_type": "llama"}}"#), "vicuna_v1");
    assert_eq!(default("b", r#"{"text_config": {"model_type": "mistral"}}"#), "mistral_instruct");
    assert_eq!(default("llava-v1.6-34b-hf", r#"{"text_config": {"model_type": "llama"}}"#), "chatml_direct");
    let chat = r#"{"text_config": {"_name_or_path": "meta-llama/Llama-2-13b-chat-hf"}}"#;
    assert_eq!(default("c", chat), "llava_llama_2");
    assert_eq!(default("llava-llama-2-7b", "{}"), "llava_llama_2");
    assert_eq!(default("d", r#"{"text_config": {"_name_or_path": "lmsys/vicuna-7b-v1.5"}}"#), "vicuna_v1");
    // Within other words and in digests the same letters mean nothing.
    for name in ["0aa34b11c2", "b34bx", "134b", "ministralite", "llama-21-chat", "snapshots/0aa34b11c2"] {
        assert_eq!(default(name, "{}"), "vicuna_v1", "{name}");
    }
    for (name, template) in [
        ("models--llava-hf--llava-v1.6-34b-hf/snapshots/0aa11c2f", "chatml_direct"),
        ("models--llava-hf--llava-1.5-7b-hf/snapshots/0aa34b11c2", "vicuna_v1"),
        ("models--mistral--llava-1.5-7b-hf/snapshots/main", "vicuna_v1"),
        ("llava_34b", "chatml_direct"),
        ("LLaVA-Yi34B.tuned", "chatml_direct"),
        ("llava-mistral7b", "mistral_instruct"),
    ] {
        assert_eq!(default(name, "{}"), template, "{name}");
    }
    let cached = r#"{"_name_or_path": "/home/me/hub/models--a--llava-34b/snapshots/0123456789"}"#;
    assert_eq!(default("e", cached), "chatml_direct");
}
