//! burn's devices for the names of backends: what is compiled in, what this machine has, what works, in which
//! precisions.
//!
//! What is found is data (`found`), so that the choice among it and what is said of trouble (`trouble`) can be
//! tested without a GPU; `probe` looks at this machine. This module does not know models.

mod found;
mod lock;
mod memory;
#[cfg(any(test, feature = "cuda"))]
mod nvidia;
mod probe;
mod trouble;

pub use found::{BackendReport, Chosen, DeviceReport, Listed, Probe, Problem, backends, choose};
pub use memory::{Memory, gigabytes};
pub use probe::ThisMachine;
pub use trouble::crashed;

use std::any::Any;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use burn::tensor::{DType, Device};

use super::ModelError;
use crate::device::{Backend, DeviceChoice, Precision};

/// The device and dtype of a choice.
///
/// # Errors
/// When the device is not there (any more).
pub fn open(choice: DeviceChoice) -> Result<(Device, DType), ModelError> {
    let DeviceChoice { backend, index, precision } = choice;
    let found = probe::device(backend, index).map_err(|Problem { message, help }| ModelError {
        help,
        ..ModelError::new(format!("no device `{choice}` on this machine: {message}"))
    })?;
    let missing = || ModelError::new(format!("no device `{choice}` on this machine"));
    let device = found.ok_or_else(|| missing().help("`stic devices` lists the available ones"))?;
    Ok((device, dtype(precision)))
}

/// What values that are not finite may be the fault of: the name of `device`, but for the CPU.
pub fn suspect(device: &Device) -> Option<String> {
    let is_it = |backend, index| probe::device(backend, index).ok().flatten().is_some_and(|found| found == *device);
    let backends = Backend::ALL.into_iter().filter(|backend| *backend != Backend::Cpu);
    let mut places = backends.flat_map(|backend| (0..MOST_DEVICES).map(move |index| (backend, index)));
    if *device == Device::flex() {
        return None;
    }
    Some(
        places
            .find(|(backend, index)| is_it(*backend, *index))
            .map_or_else(|| format!("{device:?}"), |(backend, index)| backend.device(index)),
    )
}

/// How many devices of a backend are looked for.
const MOST_DEVICES: usize = 16;

/// The memory of a device, as far as it is known.
pub fn memory(choice: DeviceChoice) -> Option<Memory> {
    probe::report(choice.backend, choice.index, false).memory
}

/// Takes a device for this process, until it ends. While another process of this user has it, `waiting` is called again
/// and again with what that one is, until the device is free or `waiting` breaks off; then the answer is `false`.
/// The CPU is never taken, nor a software renderer on it, and nothing where locks cannot be written.
pub fn take(choice: DeviceChoice, waiting: &mut dyn FnMut(&str) -> ControlFlow<()>) -> bool {
    if choice.backend == Backend::Cpu {
        return true;
    }
    let device = probe::report(choice.backend, choice.index, false);
    device.software || lock::take(&lock::folder(), &device.place, waiting).unwrap_or(true)
}

/// That a process waits for a device, and for whom.
pub fn waiting(choice: DeviceChoice, owner: &str) -> String {
    let owner = if owner.is_empty() { "another process of stic" } else { owner };
    format!("waiting for `{choice}`, which {owner} uses")
}

/// Computes `work` on the device of `choice`. Where it panics since the device has no memory left or is lost, that is an
/// error of the environment; other panics go on.
///
/// # Errors
/// What became of the device.
pub fn computing<T>(choice: DeviceChoice, work: impl FnOnce() -> T) -> Result<T, ModelError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| match lost(choice, &*panic) {
        Some(error) => error,
        None => resume_unwind(panic),
    })
}

/// What a panic says of the device of `choice`, if anything.
fn lost(choice: DeviceChoice, panic: &(dyn Any + Send)) -> Option<ModelError> {
    let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied())?;
    let error = |message: String, help: &str| ModelError { environment: true, ..ModelError::new(message).help(help) };
    if let Some(bytes) = trouble::too_large(said) {
        let message = format!("`{choice}` has no buffers of {}, which a tensor needs", gigabytes(bytes));
        let help = "choose another device, or a smaller `batch_size` or `micro_batch_size` if no weight is that large";
        return Some(ModelError::new(message).help(help));
    }
    if trouble::is_out_of_memory(said) {
        let help = "a smaller `batch_size` or `micro_batch_size`, `max_new_tokens` or `max_length` needs less; end what else \
                    uses the device, or choose another: `stic devices` shows their memory";
        return Some(error(format!("the memory of `{choice}` is full"), help));
    }
    let is_lost = choice.backend != Backend::Cpu && trouble::is_lost(said);
    let first = said.lines().next().unwrap_or_default();
    is_lost.then(|| {
        error(
            format!("the device `{choice}` was lost: {first}"),
            "run it again; if it happens again, update the driver",
        )
    })
}

/// burn's name of a precision.
pub fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::F16 => DType::F16,
        Precision::Bf16 => DType::BF16,
    }
}

#[cfg(test)]
mod tests;
