//! How well a model describes and answers, on validation pictures.

use std::fmt;

use burn::tensor::{Device, Tensor};
use stic::model::clip::Tower;
use stic::model::llava::Llava;

use crate::ask::Question;
use crate::dataset::{QUESTIONS_PER_TEST, Split};
use crate::reader::infused;
use crate::rows::{Row, describe, right};
use crate::tower;
use crate::vocabulary::{PAD, Vocabulary};
use crate::world::{self, Scene, claims};

/// The longest description, in tokens.
const LIMIT: usize = 14;

/// Validation pictures, as the tower sees them, and what is known about them.
pub struct Judge {
    features: Tensor<3>,
    scenes: Vec<Scene>,
    questions: Vec<Vec<Question>>,
}

/// Shares of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Of captions asked for plainly: F1 of their claims.
    pub plain: f64,
    /// Of captions asked for carefully: F1 of their claims.
    pub careful: f64,
    /// Of questions: answered from the picture alone.
    pub direct: f64,
    /// Of questions: answered with the plain caption before them.
    pub described: f64,
    /// Of questions: answered with the careful caption before them.
    pub carefully_described: f64,
    /// Of questions: answered from the true description, without the picture.
    pub read: f64,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "caption F1 plain {:.3}, careful {:.3}; answers direct {:.3}, after a plain description {:.3}, \
             a careful one {:.3}, from the true one alone {:.3}",
            self.plain, self.careful, self.direct, self.described, self.carefully_described, self.read
        )
    }
}

impl Judge {
    /// The first `count` validation pictures.
    pub fn new(seed: u64, vision: &Tower, count: usize, device: &Device) -> Self {
        let questions = |number| Split::Validation.questions(seed, number, QUESTIONS_PER_TEST);
        Self {
            features: tower::features(vision, &tower::pictures(Split::Validation, seed, count), device),
            scenes: (0..count).map(|number| Split::Validation.scene(seed, number)).collect(),
            questions: (0..count).map(questions).collect(),
        }
    }

    /// What becomes of `model` on them.
    pub fn judge(&self, model: &Llava, vocabulary: &Vocabulary) -> Verdict {
        let plain = describe(model, vocabulary, &self.features, vocabulary.manner(4), LIMIT);
        let careful = describe(model, vocabulary, &self.features, vocabulary.careful(), LIMIT);
        let truth: Vec<String> = self.scenes.iter().map(|scene| world::describe(&scene.0)).collect();
        Verdict {
            plain: self.f1(&plain),
            careful: self.f1(&careful),
            direct: self.answered(model, vocabulary, None, true),
            described: self.answered(model, vocabulary, Some(&plain), true),
            carefully_described: self.answered(model, vocabulary, Some(&careful), true),
            read: self.answered(model, vocabulary, Some(&truth), false),
        }
    }

    fn f1(&self, descriptions: &[String]) -> f64 {
        let (mut right, mut all) = (0, 0);
        for (description, scene) in descriptions.iter().zip(&self.scenes) {
            let claims = claims(description);
            right += claims.iter().flatten().filter(|object| scene.0.contains(object)).count();
            all += claims.len() + scene.0.len();
        }
        2.0 * right as f64 / all as f64
    }

    fn answered(&self, model: &Llava, vocabulary: &Vocabulary, descriptions: Option<&[String]>, seen: bool) -> f64 {
        let mut rows = Vec::new();
        for (number, questions) in self.questions.iter().enumerate() {
            for question in questions {
                let prompt = match descriptions {
                    Some(descriptions) => infused(vocabulary, &descriptions[number], &question.text),
                    None => vocabulary.question(&question.text),
                };
                rows.push(Row::new(
                    vocabulary,
                    seen.then_some(number),
                    &[(prompt, vocabulary.words(&question.answer))],
                ));
            }
        }
        let right = right(model, &rows, seen.then_some(&self.features), vocabulary.id(PAD));
        right.iter().filter(|turns| turns[0]).count() as f64 / right.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::DType;

    use super::*;
    use crate::SEED;

    #[test]
    fn the_committed_model_reads_well_describes_well_when_asked_carefully_and_answers_most_questions() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/scenes/model"));
        let device = Device::flex();
        let model = Llava::load(folder, &device, DType::F32).unwrap();
        let judge = Judge::new(SEED, &model.vision, 60, &device);
        let verdict = judge.judge(&model, &Vocabulary::new());
        assert!(verdict.read > 0.95 && verdict.direct > 0.75, "{verdict}");
        assert!(verdict.careful > 0.85 && verdict.careful > verdict.plain + 0.2, "{verdict}");
    }
}
