//! One optimizer step on the reference checkpoints against the step that PyTorch and PEFT take;
//! `tests/reference/make.py` wrote both.

use std::path::{Path, PathBuf};

use burn::tensor::DType;
use serde_json::Value;

use super::checkpoint::tests::Kept;
use super::loss::dpo::Dpo;
use super::objective::Objective;
use super::optimizer::{AdamW, Parameters};
use super::schedule::Schedule;
use super::step::parameters;
use super::training::{CHECKPOINT_AFTER, Example, Observer, Outcome, Settings, Step, Training};
use crate::model::adapter::Adapter;
use crate::model::contract::Model;
use crate::model::llava::Llava;
use crate::model::peft;
use crate::model::processor::Processor;
use crate::model::sequence::{ImageRun, Sequence};
use crate::model::tiny::{Tolerance, device};

struct Reference {
    folder: PathBuf,
    model: Llava,
    facts: Value,
}

impl Reference {
    fn open(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name);
        let facts = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        let model = Llava::load(&folder, &device(), DType::F32).unwrap();
        Self { folder, model, facts: serde_json::from_str(&facts).unwrap() }
    }

    fn adapter(&self) -> Adapter {
        peft::read(&self.folder.join("adapter"), self.model.shape(), &device()).unwrap().adapter
    }

    /// The adapter after the step `name`.
    fn after(&self, name: &str) -> Adapter {
        let bytes = std::fs::read(self.folder.join(format!("after_{name}.safetensors"))).unwrap();
        let settings = peft::check(&self.folder.join("adapter")).unwrap();
        peft::parse(settings, &bytes, self.model.shape(), &device()).unwrap().adapter
    }

    /// The sequence of these ids, in which the reference repeats the picture's token once for each of its rows; all
    /// after the question is answer.
    fn sequence(&self, ids: &Value) -> Sequence {
        let ids: Vec<u32> = serde_json::from_value(ids.clone()).unwrap();
        let image = self.model.config.image_token;
        let picture = ids.iter().position(|id| *id == image).unwrap();
        let rows = ids.iter().filter(|id| **id == image).count();
        let asked = self.facts["pictures"]["square"]["answered"]["asked"].as_u64().unwrap() as usize;
        let answered = ids.len() - asked;
        let tokens: Vec<u32> = ids[..=picture].iter().chain(&ids[picture + rows..]).copied().collect();
        let answer = (0..tokens.len()).map(|token| token >= tokens.len() - answered).collect();
        Sequence { tokens, images: vec![ImageRun { token: picture, grid: [1, rows] }], answer, cut: 0 }
    }

    /// Takes the step `name`, and compares loss, norm and update.
    fn compare(&self, name: &str, objective: Objective<'_>, sequences: Vec<Sequence>) {
        let facts = &self.facts[name];
        let number = |key: &str| facts[key].as_f64().unwrap();
        let training = Training {
            model: &self.model,
            objective,
            settings: Settings {
                learning_rate: number("learning_rate"),
                schedule: Schedule::Constant,
                warmup_ratio: 0.0,
                epochs: 1,
                batch_size: 1,
                max_grad_norm: number("max_grad_norm"),
                adamw: AdamW::default(),
                shuffle: false,
                dropout: 0.0,
                seed: 0,
            },
            examples: &[Example { name: "square".to_owned(), sequences, picture: Some(0) }],
            micro_batch_size: 1,
            checkpoint_every: None,
            checkpoint_after: CHECKPOINT_AFTER,
            checkpoints: &Kept::default(),
        };
        let processor = Processor::read(&self.folder, None, &[].into()).unwrap();
        let picture = image::open(self.folder.join("../pictures/square.png")).unwrap().into_rgb8();
        let image = processor.image(&picture);
        let mut pictures = |_| Ok(self.model.encode_images(&[&image]).remove(0));
        let outcome = training.run(self.adapter(), &mut pictures, &mut Alone).unwrap();
        let Outcome::Finished(found, log) = outcome else { panic!("nobody asked it to stop") };

        let tolerance = Tolerance::of(DType::F32);
        assert!(
            (log[0].loss - number("loss")).abs() < tolerance.log_probability,
            "{}, PyTorch {}",
            log[0].loss,
            number("loss")
        );
        let norm = log[0].gradient_norm / number("gradient_norm");
        assert!((norm - 1.0).abs() < tolerance.update, "norm {}", log[0].gradient_norm);
        let linears = &self.model.shape().linears;
        let (before, expected) = (parameters(&self.adapter(), linears), parameters(&self.after(name), linears));
        let found = parameters(&found, linears);
        let share = distance(&found, &expected) / distance(&expected, &before);
        assert!(share < tolerance.update, "{name}: the update differs by {share} of its norm");
        println!("{name}: the update differs by {share} of its norm");
    }
}

/// Nobody looks on.
struct Alone;

impl Observer for Alone {
    fn step(&mut self, _: Step<'_>) {}

    fn note(&mut self, text: &str) {
        panic!("{text}");
    }

    fn stops(&self) -> bool {
        false
    }
}

/// The norm of the difference of all values.
fn distance(left: &Parameters, right: &Parameters) -> f64 {
    assert!(left.keys().eq(right.keys()));
    let squares = left.iter().map(|(path, left)| {
        let difference: Vec<f32> = (left.clone() - right[path].clone()).try_into_vec_as().unwrap();
        difference.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>()
    });
    squares.sum::<f64>().sqrt()
}

#[test]
fn a_step_of_fine_tuning_equals_pytorch_s() {
    for name in ["llava", "llava_next"] {
        let reference = Reference::open(name);
        let chosen = reference.sequence(&reference.facts["pictures"]["square"]["answered"]["ids"]);
        reference.compare("sft", Objective::Sft, vec![chosen]);
    }
}

#[test]
fn a_step_of_dpo_equals_pytorch_s() {
    for name in ["llava", "llava_next"] {
        let reference = Reference::open(name);
        let number = |key: &str| reference.facts["dpo"][key].as_f64().unwrap();
        let loss = Dpo { beta: number("beta"), chosen_weight: number("chosen_weight") };
        let chosen = reference.sequence(&reference.facts["pictures"]["square"]["answered"]["ids"]);
        let rejected = reference.sequence(&reference.facts["rejected_ids"]);
        reference.compare("dpo", Objective::Dpo { loss, reference: None }, vec![chosen, rejected]);
    }
}
