//! Whether a model and what is done with it fit into the memory of a device, estimated before anything is loaded.
//!
//! The weights are counted: what does not hold them cannot be used, which is an error. The rest (KV cache, activations)
//! is an estimate, and so is what the machine has free: where it does not seem to fit, a note says so and what would, and
//! the work goes on. This module loads nothing.

use std::path::Path;

use super::ModelError;
use super::contract::{Family, Shape};
use super::device::{Memory, gigabytes, memory};
use super::files::parameters;
use crate::device::{Backend, DeviceChoice, Precision};

/// What is done with a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Answers are generated.
    Generate {
        /// Rows of a batch; `None` where the program chooses.
        batch_size: Option<usize>,
        /// The longest prompt, in positions, as far as it is known.
        prompt: usize,
        /// The longest answer, in tokens.
        max_new_tokens: usize,
    },
    /// Text is scored, one sequence at a time.
    Score,
    /// An adapter is trained.
    Train {
        /// What one example takes beside the weights, in bytes.
        example: u64,
        /// Examples that are computed together; `None` where the program chooses.
        micro_batch_size: Option<usize>,
    },
}

/// A model that is about to be loaded.
#[derive(Clone, Debug)]
pub struct Load<'a> {
    /// How many numbers its checkpoint has.
    pub parameters: u64,
    /// Its sizes.
    pub shape: &'a Shape,
    /// Where it is loaded, and in which precision.
    pub choice: DeviceChoice,
    /// What is done with it.
    pub used: Use,
}

/// Whether the model of `family` in `folder` fits on the device of `choice`: [`Load::judge`]. Nothing is said of files
/// that cannot be read, which loading will report.
///
/// # Errors
/// See [`Load::judge`].
pub fn doubt(
    family: &dyn Family,
    folder: &Path,
    choice: DeviceChoice,
    used: Use,
) -> Result<Option<String>, ModelError> {
    let (Ok(parameters), Ok(shape)) = (parameters(folder), family.shape(folder)) else { return Ok(None) };
    Load { parameters, shape: &shape, choice, used }.judge(memory(choice))
}

/// The bytes of a number.
fn width(precision: Precision) -> u64 {
    if precision == Precision::F32 { 4 } else { 2 }
}

impl Load<'_> {
    fn weights(&self, precision: Precision) -> u64 {
        self.parameters * width(precision)
    }

    /// The bytes of a row of a batch, how many rows there are, and what the rows are called.
    fn rows(&self) -> (u64, u64, &'static str) {
        let Shape { layers, cached, context, .. } = *self.shape;
        match self.used {
            Use::Generate { batch_size, prompt, max_new_tokens } => {
                let positions = prompt.saturating_add(max_new_tokens).min(context.max(prompt));
                let row = (layers * cached * positions) as u64 * width(self.choice.precision);
                (row, batch_size.unwrap_or(1) as u64, "batch_size")
            }
            Use::Score => (0, 1, ""),
            Use::Train { example, micro_batch_size } => {
                (example, micro_batch_size.unwrap_or(1) as u64, "micro_batch_size")
            }
        }
    }

    /// Judges whether all of it fits into `memory`, of which nothing may be known: a note where it is not certain.
    ///
    /// # Errors
    /// When the weights alone are larger than the memory, or than what is left of a GPU's.
    pub fn judge(&self, memory: Option<Memory>) -> Result<Option<String>, ModelError> {
        let Some(memory) = memory else { return Ok(None) };
        let on_cpu = self.choice.backend == Backend::Cpu;
        let weights = self.weights(self.choice.precision);
        let named = format!("{} in {}", gigabytes(weights), self.choice.precision);
        let (device, total) = (self.choice, gigabytes(memory.total));
        let most = if on_cpu { memory.total + memory.swap } else { memory.total };
        if weights > most {
            let has = if on_cpu { "this machine may use" } else { "the device has" };
            let message = format!("the model does not fit on `{device}`: its weights take {named}, and {has} {total}");
            return Err(ModelError::new(message).help(self.smaller(most)));
        }
        let free = memory.free.unwrap_or(memory.total);
        if weights > free && !on_cpu {
            let message = format!(
                "the model does not fit on `{device}` now: its weights take {named}, and {} of {total} are free",
                gigabytes(free)
            );
            let help = format!("end what else uses the device, or: {}", self.smaller(free));
            return Err(ModelError { environment: true, ..ModelError::new(message).help(help) });
        }
        let (row, rows, key) = self.rows();
        let rest = row * rows;
        if weights + rest <= free {
            return Ok(None);
        }
        let what = match self.used {
            Use::Generate { .. } => format!(" and a KV cache of about {}", gigabytes(rest)),
            Use::Train { .. } => format!(" and about {} for a training step", gigabytes(rest)),
            Use::Score => String::new(),
        };
        let fitting = free.saturating_sub(weights) / row.max(1);
        let remedy = match self.used {
            _ if fitting >= 1 && rows > 1 => format!("; `{key} = {fitting}` would fit"),
            Use::Generate { .. } => "; a smaller `max_new_tokens` needs less".to_owned(),
            Use::Train { .. } => "; a smaller `max_length` needs less".to_owned(),
            Use::Score => String::new(),
        };
        let is_free = if memory.free.is_some() { "are free" } else { "are there" };
        Ok(Some(format!(
            "memory may not suffice: the weights take {named}{what}, and {} of {total} {is_free} on `{device}`{remedy}",
            gigabytes(free)
        )))
    }

    /// What would fit into `bytes`.
    fn smaller(&self, bytes: u64) -> String {
        let fits = |precision: &Precision| self.weights(*precision) <= bytes && *precision != self.choice.precision;
        let dtypes: Vec<String> = [Precision::Bf16, Precision::F16]
            .into_iter()
            .filter(|precision| fits(precision) && width(*precision) < width(self.choice.precision))
            .map(|precision| format!("`dtype = \"{precision}\"` ({})", gigabytes(self.weights(precision))))
            .collect();
        let least = gigabytes(self.weights(if dtypes.is_empty() { self.choice.precision } else { Precision::F16 }));
        let other = format!("a device with more than {least}; `stic devices` lists them with their memory");
        if dtypes.is_empty() {
            format!("choose {other}")
        } else {
            format!("choose {}, or {other}", dtypes.join(" or "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tiny;

    const GB: u64 = 1_000_000_000;

    /// A Mistral of 7B parameters.
    fn shape() -> Shape {
        let small = tiny::shape();
        Shape { layers: 32, cached: 2 * 8 * 128, context: 32_768, ..small }
    }

    fn judge(
        backend: Backend,
        precision: Precision,
        used: Use,
        memory: Option<Memory>,
    ) -> Result<Option<String>, String> {
        let choice = DeviceChoice { backend, index: 0, precision };
        let load = Load { parameters: 7_566_747_648, shape: &shape(), choice, used };
        load.judge(memory).map_err(|error| format!("{}\n  help: {}", error.message, error.help.unwrap()))
    }

    fn describe(batch_size: Option<usize>) -> Use {
        Use::Generate { batch_size, prompt: 3000, max_new_tokens: 1024 }
    }

    fn card(total: u64, free: u64) -> Option<Memory> {
        Some(Memory { total: total * GB, free: Some(free * GB), swap: 0 })
    }

    #[test]
    fn what_does_not_fit_is_refused_before_it_is_loaded_with_what_would() {
        let cases = [
            judge(Backend::Cuda, Precision::Bf16, describe(None), card(12, 11)),
            judge(Backend::Cuda, Precision::F32, describe(None), card(24, 23)),
            judge(Backend::Vulkan, Precision::F16, describe(None), card(24, 3)),
            judge(Backend::Cpu, Precision::F32, describe(None), card(16, 12)),
        ];
        let said: Vec<String> = cases.into_iter().map(Result::unwrap_err).collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn what_may_not_fit_is_noted_and_goes_on() {
        let cases = [
            judge(Backend::Cuda, Precision::Bf16, describe(Some(32)), card(24, 23)),
            judge(
                Backend::Cuda,
                Precision::Bf16,
                describe(None),
                Some(Memory { total: 15_200_000_000, free: None, swap: 0 }),
            ),
            judge(Backend::Cpu, Precision::F32, describe(None), card(64, 20)),
            judge(
                Backend::Cuda,
                Precision::Bf16,
                Use::Train { example: 3 * GB, micro_batch_size: Some(8) },
                card(24, 23),
            ),
        ];
        let said: Vec<String> = cases.into_iter().map(|case| case.unwrap().unwrap()).collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn what_fits_or_is_not_known_is_silent() {
        assert_eq!(judge(Backend::Cuda, Precision::Bf16, describe(Some(8)), card(80, 79)), Ok(None));
        assert_eq!(judge(Backend::Cuda, Precision::Bf16, describe(None), None), Ok(None));
        assert_eq!(judge(Backend::Cpu, Precision::F16, Use::Score, card(16, 16)), Ok(None));
        let swap = Some(Memory { total: 16 * GB, free: Some(12 * GB), swap: 32 * GB });
        assert!(judge(Backend::Cpu, Precision::F32, Use::Score, swap).unwrap().is_some(), "slow, but it works");
    }
}
