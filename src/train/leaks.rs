//! Whether memory grows: 500 training steps and 2,000 answers on the device of the tests must end with the memory that
//! they had after a warm-up.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::checkpoint::tests::Kept;
use super::loss::dpo::Dpo;
use super::objective::Objective;
use super::optimizer::AdamW;
use super::schedule::Schedule;
use super::training::{CHECKPOINT_AFTER, Example, Observer, Outcome, Settings, Step, Training};
use crate::model::contract::Model;
use crate::model::generate::{self, Generator, Request};
use crate::model::sample::Sampling;
use crate::model::tiny;

const STEPS: usize = 500;
const ANSWERS: usize = 2000;

/// Bytes in use and reserved on the device as burn reports them, and resident in this process.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    used: u64,
    reserved: u64,
    resident: u64,
}

impl Memory {
    fn now(model: &dyn Model) -> Self {
        let device = model.device();
        device.sync().expect("the device answers");
        let pools = device.memory_pool_usage();
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
        Self {
            used: pools.as_ref().map_or(0, |pools| pools.bytes_in_use),
            reserved: pools.as_ref().map_or(0, |pools| pools.bytes_reserved),
            resident: pages * 4096,
        }
    }

    /// Some room: pools grow in pages, and a process's memory by what its allocators keep.
    fn check(self, before: Self, what: &str) {
        println!("{what}: {before:?}, then {self:?}");
        assert!(self.used <= before.used + (1 << 20), "{what}: {before:?}, then {self:?}");
        assert!(
            self.reserved <= before.reserved + before.reserved / 8 + (1 << 20),
            "{what}: {before:?}, then {self:?}"
        );
        assert!(self.resident <= before.resident + (48 << 20), "{what}: {before:?}, then {self:?}");
    }
}

struct Watch<'a> {
    model: &'a dyn Model,
    warm: Option<Memory>,
}

impl Observer for Watch<'_> {
    fn step(&mut self, step: Step<'_>) {
        if step.line.step == STEPS / 5 {
            self.warm = Some(Memory::now(self.model));
        }
    }

    fn note(&mut self, text: &str) {
        panic!("{text}");
    }

    fn stops(&self) -> bool {
        false
    }
}

#[test]
#[ignore = "takes minutes: cargo test --release --lib -- --ignored memory"]
fn memory_is_after_many_steps_and_answers_what_it_was_after_the_first() {
    let model = tiny::model();
    let examples: Vec<Example> = (0..8)
        .map(|index| {
            let sequence = tiny::sequence(index, true, 1 + index % 4);
            let rival = tiny::rival(&sequence, 1 + (index + 2) % 4);
            Example { name: index.to_string(), sequences: vec![sequence, rival], picture: Some(index) }
        })
        .collect();
    let training = Training {
        model: &model,
        objective: Objective::Dpo { loss: Dpo { beta: 0.1, chosen_weight: 0.01 }, reference: None },
        settings: Settings {
            learning_rate: 1e-4,
            schedule: Schedule::Constant,
            warmup_ratio: 0.0,
            epochs: STEPS / 2,
            batch_size: 4,
            max_grad_norm: 1.0,
            adamw: AdamW::default(),
            shuffle: true,
            dropout: 0.1,
            seed: 1,
        },
        examples: &examples,
        micro_batch_size: 4,
        checkpoint_every: None,
        checkpoint_after: CHECKPOINT_AFTER,
        checkpoints: &Kept::default(),
    };
    let mut watch = Watch { model: &model, warm: None };
    let mut pictures = |picture| Ok(tiny::features(&model, picture));
    let outcome = training.run(tiny::fresh(&model), &mut pictures, &mut watch).unwrap();
    assert!(matches!(outcome, Outcome::Finished(..)));
    drop(outcome);
    Memory::now(&model).check(watch.warm.expect("measured"), &format!("{STEPS} training steps"));

    let sampling = Sampling { temperature: 1.0, top_k: 10, top_p: 1.0 };
    let settings = generate::Settings { sampling, max_new_tokens: 8, seed: 0, batch_size: Some(16) };
    let mut allowed = vec![true; model.shape().vocabulary];
    allowed[tiny::IMAGE as usize] = false;
    let generator = Generator::among(&model, None, allowed, settings);
    let images: Vec<_> = (0..8).map(|index| Arc::new(tiny::image(index))).collect();
    let requests = (0..ANSWERS).map(|tag| {
        let sequence = tiny::sequence(tag, true, 0);
        Ok(Request { tag, subject: tag.to_string(), sequence, image: Some(images[tag % 8].clone()) })
    });
    let (mut done, mut warm) = (0, None);
    let flow = generator.run(requests, &mut |step| {
        if let generate::Step::Done(_, answer) = step {
            answer.expect("an answer");
            done += 1;
            if done == ANSWERS / 5 {
                warm = Some(Memory::now(&model));
            }
        }
        ControlFlow::Continue(())
    });
    assert!(flow.is_continue() && done == ANSWERS);
    Memory::now(&model).check(warm.expect("measured"), &format!("{ANSWERS} answers"));
}
