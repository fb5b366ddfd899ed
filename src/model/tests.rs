//! Text in, text out: tokens, greedy answers and scores are those of transformers on the reference checkpoints.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::DType;
use serde_json::Value;

use super::contract::{ImageInput, Model};
use super::generate::{Generator, Request, Settings, Step};
use super::processor::{Processor, round};
use super::sample::Sampling;
use super::score::score;
use super::sequence::{Sequence, Source};
use super::tiny::{Tolerance, device};
use super::{families, peft};

struct Reference {
    model: Arc<dyn Model>,
    processor: Processor,
    facts: Value,
}

impl Reference {
    fn read(name: &str) -> Self {
        let folder = root().join(name);
        let model = families::of(&folder).unwrap().load(&folder, &device(), DType::F32).unwrap();
        let processor = Processor::read(&folder, Some("none"), &[].into()).unwrap();
        let facts = std::fs::read(folder.join("expected.json")).unwrap();
        Self { model, processor, facts: serde_json::from_slice(&facts).unwrap() }
    }

    fn pictures(&self) -> Vec<(String, Value, Arc<ImageInput>)> {
        let pictures = self.facts["pictures"].as_object().unwrap().clone();
        let prepared = |name: &str| {
            let bytes = std::fs::read(root().join(format!("pictures/{name}.png"))).unwrap();
            let picture = crate::data::picture::decode(&bytes).unwrap();
            Arc::new(self.processor.image(&picture))
        };
        pictures.into_iter().map(|(name, facts)| (name.clone(), facts, prepared(&name))).collect()
    }

    fn text(&self, key: &str) -> &str {
        self.facts[key].as_str().unwrap()
    }

    /// The ids as transformers has them: the placeholder once per row.
    fn expanded(&self, sequence: &Sequence) -> Vec<u32> {
        let image = self.model.shape().image_token.id;
        let id = |source| if let Source::Token(id) = source { id } else { image };
        sequence.sources().map(id).collect()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference")
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

const NAMES: [&str; 2] = ["llava", "llava_next"];

#[test]
fn greedy_answers_are_those_of_transformers() {
    for name in NAMES {
        let reference = Reference::read(name);
        let settings = Settings { sampling: Sampling::GREEDY, max_new_tokens: 16, seed: 0, batch_size: None };
        let generator = Generator::new(&*reference.model, None, reference.processor.tokenizer(), settings);
        let pictures = reference.pictures();
        let requests = pictures.iter().enumerate().map(|(tag, (_, facts, picture))| {
            let sequence =
                reference.processor.tokenize(&round(reference.text("question"), None), &[&picture.layout]).unwrap();
            assert_eq!(reference.expanded(&sequence), ids(&facts["ids"]));
            Ok(Request { tag, subject: String::new(), sequence, image: Some(picture.clone()) })
        });
        let mut reported = 0;
        let watch = &mut |step: Step| {
            if let Step::Done(tag, answer) = step {
                let (picture, facts, _) = &pictures[tag];
                // Padding and the like left out, which transformers writes unless told otherwise.
                assert_eq!(answer.unwrap().tokens, ids(&facts["written"]), "{name}, {picture}");
                reported += 1;
            }
            ControlFlow::Continue(())
        };
        assert!(generator.run(requests, watch).is_continue());
        assert_eq!(reported, pictures.len());
    }
}

#[test]
fn scores_are_those_of_transformers() {
    for name in NAMES {
        let reference = Reference::read(name);
        let pictures = reference.pictures();
        let (_, facts, square) = pictures.iter().find(|(name, ..)| name == "square").unwrap();
        for (index, answer) in ["chosen", "rejected"].into_iter().enumerate() {
            let response = format!("{}</s>", reference.text(answer));
            let sequence = reference
                .processor
                .tokenize(&round(reference.text("question"), Some(&response)), &[&square.layout])
                .unwrap();
            if answer == "chosen" {
                assert_eq!(reference.expanded(&sequence), ids(&facts["answered"]["ids"]));
            }
            let scored = score(&*reference.model, None, &sequence, Some(square)).unwrap();
            assert_eq!(scored.tokens.last(), Some(&2));
            let expected = reference.facts["reference_logprobs"][index].as_f64().unwrap();
            let difference = (scored.logprob() - expected).abs();
            assert!(
                difference < Tolerance::of(DType::F32).log_probability,
                "{name}, {answer}: {} against {expected}",
                scored.logprob()
            );
        }
    }
}

#[test]
fn an_adapter_answers_as_under_peft() {
    for name in NAMES {
        let reference = Reference::read(name);
        let shape = reference.model.shape();
        let adapter = peft::read(&root().join(name).join("adapter"), shape, &device()).unwrap().adapter;
        let settings = Settings { sampling: Sampling::GREEDY, max_new_tokens: 16, seed: 0, batch_size: None };
        let tokenizer = reference.processor.tokenizer();
        let generator = Generator::new(&*reference.model, Some(&adapter), tokenizer, settings);
        let (_, _, square) = reference.pictures().into_iter().find(|(name, ..)| name == "square").unwrap();
        let sequence =
            reference.processor.tokenize(&round(reference.text("question"), None), &[&square.layout]).unwrap();
        let request = Request { tag: 0, subject: String::new(), sequence, image: Some(square) };
        assert_eq!(generator.one(request).unwrap().tokens, ids(&reference.facts["adapter_greedy"]), "{name}");
    }
}
