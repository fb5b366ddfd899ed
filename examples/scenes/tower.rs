//! First stage: the tower learns to see, by being reported what stands in each place.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rayon::prelude::*;
use stic::data::picture::decode;
use stic::model::clip::Tower;
use stic::model::llava::{Config, Llava};
use stic::train::optimizer::Parameters;
use stic_engine::draw::Draws;

use crate::checkpoint::{HIDDEN, normalize};
use crate::dataset::Split;
use crate::picture::{self, SIDE};
use crate::training::{Run, Stage};
use crate::world::{COLORS, PLACES, SHAPES, Scene};

/// Classes of a place: a color or none, then a shape or none.
const CLASSES: [usize; 2] = [COLORS.len() + 1, SHAPES.len() + 1];
/// The weights from features to classes, which are not part of the checkpoint.
const LABELS: &str = "labels";
const PICTURES: usize = 6_000;
const BATCH: usize = 64;

const STAGE: Stage = Stage {
    name: "tower",
    steps: 600,
    learning_rate: 1.5e-3,
    second_beta: 0.98,
    weight_decay: 0.02,
    trained: &["vision_tower.", LABELS],
};

/// Pictures of a split as the tower reads them, in order: `[3, side, side]` each.
pub fn pictures(split: Split, seed: u64, count: usize) -> Vec<Vec<f32>> {
    let picture = |number| {
        let file = picture::encode(&split.picture(seed, number)).expect("memory takes every byte");
        let stored = decode(&file).expect("what was encoded decodes");
        let planes = (0..3).flat_map(|channel| stored.pixels().map(move |pixel| normalize(pixel.0[channel])));
        planes.collect()
    };
    (0..count).into_par_iter().map(picture).collect()
}

fn batch(pictures: &[Vec<f32>], numbers: &[usize], device: &Device) -> Tensor<4> {
    let values: Vec<f32> = numbers.iter().flat_map(|number| pictures[*number].iter().copied()).collect();
    Tensor::from_data(TensorData::new(values, [numbers.len(), 3, SIDE, SIDE]), device)
}

/// The tower's features of all `pictures`: `[pictures, 9, hidden]`.
pub fn features(vision: &Tower, pictures: &[Vec<f32>], device: &Device) -> Tensor<3> {
    let numbers: Vec<usize> = (0..pictures.len()).collect();
    let parts = numbers.chunks(500).map(|numbers| vision.forward(batch(pictures, numbers, device)));
    Tensor::cat(parts.collect(), 0)
}

/// Trains the tower.
///
/// # Errors
/// When a checkpoint cannot be written or read.
pub fn train(run: &Run, mut parameters: Parameters, device: &Device) -> Result<Parameters, Box<dyn std::error::Error>> {
    if let Some(parameters) = run.finished(&STAGE, device)? {
        return Ok(without_labels(parameters));
    }
    // The last layer is trained, though LLaVA reads the one before it: what a feature is trained to be just before it
    // is named serves a language model better than the name.
    let config = Config { feature_layer: -1, ..run.config.clone() };
    let seen = pictures(Split::Tower, run.seed, PICTURES);
    let labels: Vec<_> = (0..PICTURES).map(|number| places(&Split::Tower.scene(run.seed, number))).collect();
    let judged = pictures(Split::Validation, run.seed, 400);
    let expected: Vec<_> = (0..judged.len()).map(|number| places(&Split::Validation.scene(run.seed, number))).collect();

    let outputs: usize = CLASSES.iter().sum();
    let mut draws = Draws::new(run.seed, "initial", LABELS);
    let weight: Vec<f32> = (0..outputs * HIDDEN).map(|_| (draws.normal() / (HIDDEN as f64).sqrt()) as f32).collect();
    parameters.insert(format!("{LABELS}.weight"), Tensor::from_floats(weight.as_slice(), device));
    parameters.insert(format!("{LABELS}.bias"), Tensor::zeros([outputs], device));

    let run = Run { config, work: run.work.clone(), seed: run.seed };
    let loss = |model: &Llava, parameters: &Parameters, mut draws: Draws| {
        let numbers: Vec<usize> = (0..BATCH).map(|_| draws.below(PICTURES)).collect();
        let scores = scores(&model.vision, parameters, batch(&seen, &numbers, device));
        scores
            .into_iter()
            .enumerate()
            .map(|(feature, scores)| {
                let labels: Vec<i32> = numbers.iter().flat_map(|number| labels[*number][feature]).collect();
                let labels = TensorData::new(labels, [BATCH * PLACES.len(), 1]);
                let labels = Tensor::<2, Int>::from_data(labels, &scores.device());
                log_softmax(scores, 1).gather(1, labels).mean().neg()
            })
            .reduce(|color, shape| color + shape)
            .expect("two features")
    };
    let judge = |step: usize, parameters: &Parameters| {
        let vision = crate::checkpoint::model(&run.config, parameters).expect("a whole model").vision;
        let numbers: Vec<usize> = (0..judged.len()).collect();
        let [color, shape] = scores(&vision, parameters, batch(&judged, &numbers, device))
            .map(|scores| scores.argmax(1).into_data().iter::<i64>().map(|class| class as i32).collect::<Vec<_>>());
        let right = |found: &[i32], feature: usize, none: usize| {
            let expected = expected.iter().flat_map(|labels| labels[feature]);
            let there: Vec<_> = found.iter().zip(expected).filter(|(_, expected)| *expected != none as i32).collect();
            there.iter().filter(|(found, expected)| **found == *expected).count() as f64 / there.len() as f64
        };
        let (color, shape) = (right(&color, 0, COLORS.len()), right(&shape, 1, SHAPES.len()));
        eprintln!("tower {step}: color {color:.3}, shape {shape:.3} of objects in validation pictures");
    };
    run.train(&STAGE, parameters, loss, judge).map(without_labels)
}

fn without_labels(mut parameters: Parameters) -> Parameters {
    parameters.retain(|name, _| !name.starts_with(LABELS));
    parameters
}

/// Scores of colors and of shapes, a row for every place of every picture.
fn scores(vision: &Tower, parameters: &Parameters, pictures: Tensor<4>) -> [Tensor<2>; 2] {
    let features = vision.forward(pictures);
    let [count, places, hidden] = features.dims();
    let outputs = CLASSES.iter().sum();
    let weight = parameters[&format!("{LABELS}.weight")].clone().reshape([hidden, outputs]);
    let bias = parameters[&format!("{LABELS}.bias")].clone().reshape([1, outputs]);
    let scores = features.reshape([count * places, hidden]).matmul(weight) + bias;
    [scores.clone().narrow(1, 0, CLASSES[0]), scores.narrow(1, CLASSES[0], CLASSES[1])]
}

/// Color and shape class of every place.
fn places(scene: &Scene) -> [[i32; PLACES.len()]; 2] {
    let mut labels = [[COLORS.len() as i32; PLACES.len()], [SHAPES.len() as i32; PLACES.len()]];
    for object in &scene.0 {
        labels[0][object.place] = object.color as i32;
        labels[1][object.place] = object.shape as i32;
    }
    labels
}
