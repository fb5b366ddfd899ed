//! The model against what transformers computes; `tests/reference/make.py` wrote the checkpoints and the numbers.

use std::path::PathBuf;

use burn::tensor::{DType, Device, Tensor};
use serde_json::Value;

use super::*;
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

fn logits(model: &Llava, hidden: Tensor<3>) -> Vec<f32> {
    let [_, length, features] = hidden.dims();
    let decoder = &model.decoder;
    let (rotary, mask) = (decoder.rotary(&[(0..length).collect()]), decoder.causal_mask(length));
    let hidden = (0..decoder.layer_count())
        .fold(hidden, |hidden, index| decoder.layer(index, hidden, &rotary, &mask, None, None));
    decoder.logits(hidden.reshape([length, features])).into_data().try_into_vec().expect("floats")
}

fn distance(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
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
            let found = logits(&model, embedded(&model, &tokens, Some(rows)));
            let worst = distance(&found, &reference.floats(&format!("{picture}.logits")));
            assert!(worst < LOGITS, "{name}, {picture}: {worst}");
        }
        let found = logits(&model, embedded(&model, &ids(&reference.facts["text"]), None));
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
                ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_58, 0.275_777_11]);
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
