//! Second stage: the decoder learns to read, from text alone: descriptions to copy and questions about them.

use burn::tensor::Device;
use stic::model::llava::Llava;
use stic::train::optimizer::Parameters;
use stic_engine::draw::Draws;

use crate::ask::questions;
use crate::checkpoint::{self, DECODER};
use crate::dataset::Split;
use crate::rows::{Group, Row, cross_entropy, right};
use crate::training::{Run, Stage};
use crate::vocabulary::{DESCRIPTION, PAD, SEPARATOR, Vocabulary};
use crate::world::{Scene, USUAL, describe};

const COPIES: usize = 24;
const ASKED: usize = 32;
const QUESTIONS: usize = 8;

const STAGE: Stage = Stage {
    name: "reader",
    steps: 1_600,
    learning_rate: 3e-3,
    second_beta: 0.95,
    weight_decay: 0.01,
    trained: &[DECODER],
};

/// Trains the decoder on text.
///
/// # Errors
/// When a checkpoint cannot be written or read.
pub fn train(
    run: &Run,
    vocabulary: &Vocabulary,
    parameters: Parameters,
    device: &Device,
) -> Result<Parameters, Box<dyn std::error::Error>> {
    if let Some(parameters) = run.finished(&STAGE, device)? {
        return Ok(parameters);
    }
    let pad = vocabulary.id(PAD);
    let loss = |model: &Llava, _: &Parameters, mut draws: Draws| {
        let copies = (0..COPIES).map(|_| copy(vocabulary, &mut draws)).collect();
        let asked = (0..ASKED).map(|_| ask(vocabulary, &mut draws, QUESTIONS)).collect();
        let groups = [copies, asked].map(|rows| Group { rows, features: None });
        cross_entropy(model, &groups, pad)
    };
    let judged: Vec<Row> = (0..200)
        .flat_map(|number| {
            let scene = Split::Validation.scene(run.seed, number);
            let description = describe(&scene.0);
            let asked = Split::Validation.questions(run.seed, number, 5);
            asked.into_iter().map(move |question| {
                let prompt = infused(vocabulary, &description, &question.text);
                Row::new(vocabulary, None, &[(prompt, vocabulary.words(&question.answer))])
            })
        })
        .collect();
    let judge = |step: usize, parameters: &Parameters| {
        let model = checkpoint::model(&run.config, parameters).expect("a whole model");
        let right = right(&model, &judged, None, pad);
        let share = right.iter().filter(|turns| turns[0]).count() as f64 / right.len() as f64;
        eprintln!("reader {step}: {share:.3} of questions answered from true descriptions");
    };
    run.train(&STAGE, parameters, loss, judge)
}

/// A question after a description, as `infuse` puts it.
pub fn infused(vocabulary: &Vocabulary, description: &str, question: &str) -> Vec<u32> {
    let mut ids = vec![vocabulary.id(DESCRIPTION)];
    ids.extend(vocabulary.words(description));
    ids.push(vocabulary.id(SEPARATOR));
    ids.extend(vocabulary.question(question));
    ids
}

/// A description of a scene and several questions about it.
pub fn ask(vocabulary: &Vocabulary, draws: &mut Draws, count: usize) -> Row {
    let scene = Scene::draw(draws, USUAL);
    let description = describe(&scene.0);
    let turns = questions(&scene, draws, count).into_iter().enumerate().map(|(index, question)| {
        let prompt = if index == 0 {
            infused(vocabulary, &description, &question.text)
        } else {
            vocabulary.question(&question.text)
        };
        (prompt, vocabulary.words(&question.answer))
    });
    Row::new(vocabulary, None, &turns.collect::<Vec<_>>())
}

/// A description to be copied with its objects in another order, and, for one prompt in three, the two words of each
/// the other way round. Every token of such an answer but the first of a pair is decided by reading.
pub fn copy(vocabulary: &Vocabulary, draws: &mut Draws) -> Row {
    let mut scene = Scene::draw(draws, USUAL);
    let mut prompt = vec![vocabulary.id(DESCRIPTION)];
    prompt.extend(vocabulary.words(&describe(&scene.0)));
    let manner = draws.below(3);
    prompt.extend([vocabulary.id(SEPARATOR), vocabulary.manner(manner)]);
    draws.shuffle(&mut scene.0);
    let answer = scene.0.iter().flat_map(|object| {
        let mut words = vocabulary.words(&object.phrase());
        if manner == 2 {
            words.reverse();
        }
        words
    });
    Row::new(vocabulary, None, &[(prompt, answer.collect())])
}
