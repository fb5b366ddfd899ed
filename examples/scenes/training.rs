//! One stage of training: steps of AdamW on some of the parameters, with what a killed run needs to go on.
//!
//! A step's batch is drawn from (seed, stage, step), so a stage that starts again from its last checkpoint repeats
//! what it would have done.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::{Device, Tensor};
use stic::model::llava::{Config, Llava};
use stic::train::optimizer::{AdamW, Moments, Parameters, clip};
use stic::train::schedule::{LearningRate, Schedule};
use stic_engine::draw::Draws;

use crate::checkpoint;

/// Steps between two checkpoints of a stage.
const CHECKPOINT_EVERY: usize = 250;
/// Steps between two lines of the log.
const LOG_EVERY: usize = 50;

/// What a stage is set to.
pub struct Stage {
    /// Its name, which its draws and files bear.
    pub name: &'static str,
    /// How many steps.
    pub steps: usize,
    /// The highest learning rate; it warms up over three steps of a hundred and falls to zero as a cosine.
    pub learning_rate: f64,
    /// AdamW's second beta.
    pub second_beta: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Which parameters are trained, by the beginnings of their names.
    pub trained: &'static [&'static str],
}

/// What all stages share.
pub struct Run {
    /// The seed of everything.
    pub seed: u64,
    /// The directory of checkpoints.
    pub work: PathBuf,
    /// The model's shape.
    pub config: Config,
}

impl Run {
    /// The parameters after `stage`, if an earlier run finished it.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn finished(&self, stage: &Stage, device: &Device) -> Result<Option<Parameters>, Box<dyn std::error::Error>> {
        let path = self.work.join(format!("{}.safetensors", stage.name));
        if path.is_file() { checkpoint::load(&path, device).map(Some) } else { Ok(None) }
    }

    /// Takes the steps of `stage` from `parameters`, or from where an earlier run left off. `loss` gives the loss of a
    /// model on a step's batch, `[1]`, and is also given the parameters, tracked.
    ///
    /// # Errors
    /// When a checkpoint cannot be written or read.
    pub fn train(
        &self,
        stage: &Stage,
        parameters: Parameters,
        mut loss: impl FnMut(&Llava, &Parameters, Draws) -> Tensor<1>,
        mut judge: impl FnMut(usize, &Parameters),
    ) -> Result<Parameters, Box<dyn std::error::Error>> {
        let device = parameters.values().next().expect("parameters").device();
        let adamw = AdamW { betas: [0.9, stage.second_beta], weight_decay: stage.weight_decay, ..AdamW::default() };
        let unfinished = self.work.join(format!("{}.checkpoint.safetensors", stage.name));
        let (mut parameters, mut moments, first) = if unfinished.is_file() {
            resume(checkpoint::load(&unfinished, &device)?)
        } else {
            (parameters, BTreeMap::new(), 0)
        };
        let rate = LearningRate::new(Schedule::Cosine, stage.learning_rate, 0.03, stage.steps);
        let start = Instant::now();
        let mut losses = Vec::new();
        for step in first..stage.steps {
            let trained = |name: &str| stage.trained.iter().any(|prefix| name.starts_with(prefix));
            let tracked: Parameters = parameters
                .iter()
                .map(|(name, tensor)| {
                    let tensor = tensor.clone();
                    (name.clone(), if trained(name) { tensor.autodiff().require_grad() } else { tensor })
                })
                .collect();
            let model = checkpoint::model(&self.config, &tracked)?;
            let draws = Draws::new(self.seed, stage.name, &step.to_string());
            let value = loss(&model, &tracked, draws);
            losses.push(value.clone().inner().into_scalar::<f32>());
            let gradients = value.backward();
            let mut gradients: Parameters = tracked
                .iter()
                .filter(|(name, _)| trained(name))
                .filter_map(|(name, tensor)| Some((name.clone(), tensor.grad(&gradients)?)))
                .collect();
            clip(&mut gradients, 1.0);
            let taken = step + 1;
            adamw.step(taken as u64, &mut moments, &mut parameters, gradients, rate.at(step));
            if taken % LOG_EVERY == 0 {
                let mean = losses.iter().sum::<f32>() / losses.len() as f32;
                losses.clear();
                let seconds = start.elapsed().as_secs_f64();
                let pace = seconds / (taken - first) as f64;
                eprintln!(
                    "{} {taken}/{}: loss {mean:.3}, {seconds:.0} s, {pace:.3} s per step",
                    stage.name, stage.steps
                );
            }
            if taken % CHECKPOINT_EVERY == 0 || taken == stage.steps {
                judge(taken, &parameters);
                checkpoint::save(&unfinished, &stored(&parameters, &moments, taken))?;
            }
        }
        checkpoint::save(&self.work.join(format!("{}.safetensors", stage.name)), &parameters)?;
        Ok(parameters)
    }
}

/// Parameters and the optimizer's state as one set of tensors.
fn stored(parameters: &Parameters, moments: &BTreeMap<String, Moments>, steps: usize) -> Parameters {
    let mut all: Parameters =
        parameters.iter().map(|(name, tensor)| (format!("value/{name}"), tensor.clone())).collect();
    for (name, Moments { first, second }) in moments {
        all.insert(format!("first/{name}"), first.clone());
        all.insert(format!("second/{name}"), second.clone());
    }
    let device = parameters.values().next().expect("parameters").device();
    all.insert("steps".to_owned(), Tensor::from_floats([steps as f32], &device));
    all
}

fn resume(mut all: Parameters) -> (Parameters, BTreeMap<String, Moments>, usize) {
    let steps = all.remove("steps").expect("a checkpoint counts its steps").into_scalar::<f32>() as usize;
    let part = |prefix: &str| -> BTreeMap<String, Tensor<1>> {
        let named =
            all.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())));
        named.collect()
    };
    let second = part("second/");
    let moments = part("first/").into_iter().map(|(name, first)| {
        let second = second[&name].clone();
        (name, Moments { first, second })
    });
    (part("value/"), moments.collect(), steps)
}
