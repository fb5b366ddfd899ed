//! The model against what transformers computes; `tests/reference/make.py` wrote the checkpoints and the numbers.

use std::path::PathBuf;

use burn::tensor::{DType, Device, Int, Tensor};
use serde_json::Value;

use super::*;
use crate::model::lora::Lora;
use crate::model::peft;
use crate::model::picture::{Prepared, Processor, prepare, row_count};

/// Tolerance of logits against transformers.
const LOGITS: f32 = 3e-4;

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
        Llava::load(&self.folder, &Device::flex(), DType::F32).expect("loads")
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

    fn prepare(&self, name: &str, model: &Llava) -> Prepared {
        let processor = Processor::read(&self.folder, &model.config).expect("sound");
        prepare(&self.picture(name), processor.mode, &processor)
    }
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
fn logits(model: &Llava, hidden: Tensor<3>, lora: Option<&Lora>) -> Tensor<2> {
    let [_, length, features] = hidden.dims();
    let decoder = &model.decoder;
    let (rotary, mask) = (decoder.rotary(&[(0..length).collect()]), decoder.causal_mask(length));
    let hidden = (0..decoder.layer_count()).fold(hidden, |hidden, index| {
        decoder.layer(index, hidden, &rotary, &mask, lora.map(|lora| &lora.layers[index]), None)
    });
    decoder.logits(hidden.reshape([length, features]))
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
            let prepared = reference.prepare(picture, &model);
            let rows = model.rows(model.patches(&prepared), &prepared);
            let tokens = ids(&reference.facts["pictures"][picture]["answered"]["ids"]);
            let found = floats(logits(&model, embedded(&model, &tokens, Some(rows)), None));
            let worst = distance(&found, &reference.floats(&format!("{picture}.logits")));
            assert!(worst < LOGITS, "{name}, {picture}: {worst}");
            let sums =
                [log_probability(&found, &tokens), reference.floats(&format!("{picture}.logprobs")).iter().sum()];
            assert!((sums[0] - sums[1]).abs() < 1e-3, "{name}, {picture}: {sums:?}");
        }
        let found = floats(logits(&model, embedded(&model, &ids(&reference.facts["text"]), None), None));
        let worst = distance(&found, &reference.floats("text.logits"));
        assert!(worst < LOGITS, "{name}, text: {worst}");
    }
}

#[test]
fn pictures_equal_what_the_processors_of_transformers_make_of_them() {
    for name in ["llava", "llava_next"] {
        let reference = Reference::open(name);
        let config = Config::read(&reference.folder).expect("sound");
        let processor = Processor::read(&reference.folder, &config).expect("sound");
        for (picture, facts) in reference.facts["pictures"].as_object().expect("pictures") {
            let prepared = prepare(&reference.picture(picture), processor.mode, &processor);
            let file = safetensors::SafeTensors::deserialize(&reference.values).expect("safetensors");
            let levels = file.tensor(&format!("{picture}.levels")).expect("levels");
            assert_eq!([prepared.view_count, 3, prepared.size, prepared.size], levels.shape(), "{name}, {picture}");
            let (mean, deviation) =
                ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]);
            for (index, (found, level)) in prepared.views.iter().zip(levels.data()).enumerate() {
                let channel = index / (prepared.size * prepared.size) % 3;
                let expected: f32 = ((f64::from(*level) / 255.0) as f32 - mean[channel]) / deviation[channel];
                assert_eq!(*found, expected, "{name}, {picture}, value {index}");
            }
            let [width, height] = prepared.original;
            let rows = row_count(width, height, processor.mode, &processor);
            assert_eq!(facts["rows"], rows, "{name}, {picture}");
        }
    }
}

#[test]
fn logits_with_an_adapter_equal_those_of_peft() {
    for name in ["llava", "llava_next"] {
        let reference = Reference::open(name);
        let model = reference.load();
        let adapter = peft::read(&reference.folder.join("adapter"), &model.config.text, &model.device()).expect("read");
        let prepared = reference.prepare("square", &model);
        let rows = model.rows(model.patches(&prepared), &prepared);
        let tokens = ids(&reference.facts["pictures"]["square"]["answered"]["ids"]);
        let found = floats(logits(&model, embedded(&model, &tokens, Some(rows)), Some(&adapter.lora)));
        let worst = distance(&found, &reference.floats("square.adapter_logits"));
        assert!(worst < LOGITS, "{name}: {worst}");
        assert!(distance(&found, &reference.floats("square.logits")) > 0.1, "the adapter changes the logits");
    }
}

#[test]
fn a_sliding_window_hides_what_lies_further_back() {
    let reference = Reference::open("llava_next");
    let mut model = reference.load();
    let mut config = model.config.clone();
    config.text.sliding_window = Some(6);
    let mut weights = Weights::open(&reference.folder, &Device::flex(), DType::F32).expect("opens");
    model = Llava::build(&config, &mut weights).expect("builds");
    let found = floats(logits(&model, embedded(&model, &ids(&reference.facts["text"]), None), None));
    let worst = distance(&found, &reference.floats("text.window_logits"));
    assert!(worst < LOGITS, "{worst}");
    assert!(distance(&found, &reference.floats("text.logits")) > 0.1, "the window matters at this length");
}

/// Greedy decoding of prompts of unequal length in one batch: the short ones are padded on the left, and every layer
/// keeps a cache whose attended part grows in steps.
#[test]
fn greedy_tokens_out_of_a_padded_batch_with_a_cache_are_those_of_transformers() {
    for name in ["llava", "llava_next"] {
        let reference = Reference::open(name);
        let model = reference.load();
        let decoder = &model.decoder;
        let pictures = ["square", "tall", "wide", "small", "odd"];
        let prompts: Vec<Tensor<2>> = pictures
            .iter()
            .map(|picture| {
                let prepared = reference.prepare(picture, &model);
                let rows = model.rows(model.patches(&prepared), &prepared);
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
        let mut caches = decoder.caches(pictures.len(), longest + steps);
        let mut found: Vec<Vec<u32>> = vec![Vec::new(); pictures.len()];
        let mut slots = 0..longest;
        for _ in 0..steps {
            let attended = (slots.end.div_ceil(16) * 16).min(longest + steps);
            let position = |padding: usize, slot: usize| slot.checked_sub(padding).filter(|_| slot < slots.end);
            let queries: Vec<Vec<usize>> = padding
                .iter()
                .map(|&padding| slots.clone().map(|slot| slot.saturating_sub(padding)).collect())
                .collect();
            let keys: Vec<Vec<Option<usize>>> =
                padding.iter().map(|&padding| (0..attended).map(|slot| position(padding, slot)).collect()).collect();
            let (rotary, mask) = (decoder.rotary(&queries), decoder.mask(&queries, &keys));
            for (index, cache) in caches.iter_mut().enumerate() {
                hidden = decoder.layer(index, hidden, &rotary, &mask, None, Some(cache));
            }
            let [batch, length, features] = hidden.dims();
            let last = hidden.narrow(1, length - 1, 1).reshape([batch, features]);
            let best: Vec<i32> =
                decoder.logits(last).argmax(1).into_data().convert::<i32>().try_into_vec().expect("ids");
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
        let mut weights = Weights::open(&reference.folder, &Device::flex(), DType::F32).expect("opens");
        let mut tracked: BTreeMap<String, Tensor<1>> = config
            .tensors()
            .into_iter()
            .map(|(name, shape)| {
                let tensor = match shape[..] {
                    [a] => weights.vector(&name, [a]),
                    [a, b] => weights.matrix(&name, [a, b]).map(|tensor| tensor.flatten(0, 1)),
                    [a, b, c, d] => weights.kernel(&name, [a, b, c, d]).map(|tensor| tensor.flatten(0, 3)),
                    _ => panic!("tensors have one, two or four dimensions"),
                };
                (name, tensor.expect("there").autodiff().require_grad())
            })
            .collect();
        let plain = reference.load();
        let model = Llava::build(&config, &mut tracked).expect("builds");
        let prepared = reference.prepare("small", &model);
        let tokens = ids(&reference.facts["pictures"]["small"]["ids"]);
        let loss = |model: &Llava| {
            let rows = model.rows(model.patches(&prepared), &prepared);
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
fn a_checkpoint_with_the_names_of_later_versions_is_the_same_model() {
    let reference = Reference::open("llava");
    let bytes = std::fs::read(reference.folder.join("model.safetensors")).expect("weights");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let renamed = file.tensors().into_iter().map(|(name, view)| {
        let name = match name.strip_prefix("language_model.") {
            Some("lm_head.weight") => "lm_head.weight".to_owned(),
            Some(rest) => rest.replacen("model.", "model.language_model.", 1),
            None => format!("model.{name}"),
        };
        (name, view)
    });
    let folder = tempfile::tempdir().expect("a folder");
    let renamed = safetensors::serialize(renamed, None).expect("serializes");
    std::fs::write(folder.path().join("model.safetensors"), renamed).expect("written");
    std::fs::copy(reference.folder.join("config.json"), folder.path().join("config.json")).expect("copied");

    let tokens = ids(&reference.facts["text"]);
    let model = Llava::load(folder.path(), &Device::flex(), DType::F32).expect("loads");
    let found = floats(logits(&model, embedded(&model, &tokens, None), None));
    assert!(distance(&found, &reference.floats("text.logits")) < LOGITS);
}

#[test]
fn sixteen_bits_compute_the_same_within_their_rounding() {
    let reference = Reference::open("llava_next");
    for (dtype, tolerance) in [(DType::F16, 0.05), (DType::BF16, 0.5)] {
        let model = Llava::load(&reference.folder, &Device::flex(), dtype).expect("loads");
        let lora =
            peft::read(&reference.folder.join("adapter"), &model.config.text, &model.device()).expect("read").lora;
        let prepared = reference.prepare("square", &model);
        let rows = model.rows(model.patches(&prepared), &prepared);
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
