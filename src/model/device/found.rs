//! What this build and this machine have, as data, and which of it a request gets. This module touches no device: it
//! asks a [`Probe`].

use serde::{Deserialize, Serialize};

use super::memory::Memory;
use crate::device::{Backend, DeviceChoice, DeviceRequest, Precision, numerics_class};
use crate::model::ModelError;

/// What this build and this machine have of one backend.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendReport {
    /// The backend.
    pub backend: Backend,
    /// Whether it is compiled in; if not, the cargo feature of its name makes it so.
    pub compiled: bool,
    /// Its devices, by index.
    pub devices: Vec<DeviceReport>,
    /// Why there is no device, and what would do.
    pub problem: Option<Problem>,
}

/// A device that is known to be there; nothing was computed on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// What it is called, as far as that is known before it is used.
    pub name: String,
    /// Whether it is a software renderer on the CPU, which `auto` passes over without using it.
    pub software: bool,
}

/// A device that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Which one of its backend: `cuda:1` has index 1.
    pub index: usize,
    /// What it calls itself.
    pub name: String,
    /// Whether it is a software renderer on the CPU.
    pub software: bool,
    /// The precisions that it computes in.
    pub precisions: Vec<Precision>,
    /// Its memory; `None` where that is not known.
    pub memory: Option<Memory>,
    /// Whose kernels it really runs, which is what results depend on: with `vulkan` compiled in, `webgpu` runs
    /// Vulkan's where the driver takes them.
    pub kernels: Backend,
    /// The physical device: two names of one card have the same.
    pub place: String,
    /// Why it is unusable.
    pub problem: Option<Problem>,
}

/// Why a device or a backend is unusable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Why.
    pub message: String,
    /// What would do.
    pub help: Option<String>,
}

impl Problem {
    /// A problem without a remedy.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    /// The same problem with a remedy.
    #[must_use]
    pub fn help(self, text: impl Into<String>) -> Self {
        Self { help: Some(text.into()), ..self }
    }
}

/// Looks for devices and tries them.
pub trait Probe: Send + Sync {
    /// Whether `backend` is compiled in.
    fn is_compiled(&self, backend: Backend) -> bool;

    /// The devices of `backend`, by index. Computes nothing on them.
    ///
    /// # Errors
    /// Why there is none.
    fn list(&self, backend: Backend) -> Result<Vec<Listed>, Problem>;

    /// Tries a small computation on the device `index` of `backend`, which was listed.
    fn try_out(&self, backend: Backend, index: usize) -> DeviceReport;

    /// Why there are no more devices of `backend` than are listed, where something hides them.
    fn hidden(&self, backend: Backend) -> Option<String>;
}

/// The device that a request gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The device and the precision.
    pub choice: DeviceChoice,
    /// What is known of it.
    pub device: DeviceReport,
    /// What `auto` passed over before it came to the device, and why; empty if the request names a backend.
    pub passed_over: Vec<String>,
}

impl Chosen {
    /// Its numerics class: the backend whose kernels run, and the precision.
    pub fn numerics(&self) -> String {
        numerics_class(self.device.kernels, self.choice.precision)
    }
}

/// All backends, in the order in which `auto` prefers them, with their devices tried.
pub fn backends(probe: &dyn Probe) -> Vec<BackendReport> {
    let report = |backend| {
        let compiled = probe.is_compiled(backend);
        let (devices, problem) = match probe.list(backend) {
            _ if !compiled => (Vec::new(), None),
            Ok(listed) => ((0..listed.len()).map(|index| probe.try_out(backend, index)).collect(), None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        BackendReport { backend, compiled, devices, problem }
    };
    Backend::ALL.into_iter().map(report).collect()
}

/// Resolves `request`.
///
/// `auto` takes the first device that is usable in the precision asked for, in the order of [`Backend::ALL`], and no
/// software renderer. On the CPU the precision `auto` is `f32`; on a GPU `bf16`, else `f16`, else `f32`.
///
/// # Errors
/// When the backend is not compiled in, has no such device, or cannot compute in that precision.
pub fn choose(request: DeviceRequest, probe: &dyn Probe) -> Result<Chosen, ModelError> {
    match request.backend {
        Some(backend) => named(backend, request, probe),
        None => automatic(request, probe),
    }
}

fn named(backend: Backend, request: DeviceRequest, probe: &dyn Probe) -> Result<Chosen, ModelError> {
    let index = request.index;
    if !probe.is_compiled(backend) {
        return Err(ModelError::new(format!("the backend `{backend}` is not compiled in"))
            .help(format!("build with `cargo build --release --features {backend}`, or choose `cpu` or `auto`")));
    }
    let name = if index == 0 { backend.to_string() } else { format!("{backend}:{index}") };
    let listed = probe.list(backend).map_err(|Problem { message, help }| {
        let help = help.unwrap_or_else(|| "`stic devices` lists the available ones".to_owned());
        ModelError::new(format!("no device `{name}` on this machine: {message}")).help(help)
    })?;
    if index >= listed.len() {
        return Err(beyond(backend, &name, &listed, probe.hidden(backend)));
    }
    let device = probe.try_out(backend, index);
    let precision = usable(backend, &device, request.precision)?;
    Ok(Chosen { choice: DeviceChoice { backend, index, precision }, device, passed_over: Vec::new() })
}

/// The error that there is no device `name` beside those in `listed`.
fn beyond(backend: Backend, name: &str, listed: &[Listed], hidden: Option<String>) -> ModelError {
    let all: Vec<String> = listed
        .iter()
        .enumerate()
        .map(|(index, device)| format!("`{}` ({})", backend.device(index), device.name))
        .collect();
    let there = match &all[..] {
        [] => "there is none".to_owned(),
        [one] => format!("there is only {one}"),
        [first @ .., last] => format!("there are {}: {} and {last}", all.len(), first.join(", ")),
    };
    let hidden = hidden.map(|hidden| format!("; {hidden}")).unwrap_or_default();
    ModelError::new(format!("no device `{name}` on this machine")).help(format!("{there}{hidden}"))
}

fn usable(backend: Backend, device: &DeviceReport, wanted: Option<Precision>) -> Result<Precision, ModelError> {
    let name = backend.device(device.index);
    if let Some(Problem { message, help }) = &device.problem {
        let help = help.clone().unwrap_or_else(|| "`stic devices` lists the alternatives".to_owned());
        return Err(ModelError::new(format!("the device `{name}` is unusable: {message}")).help(help));
    }
    precision(backend, device, wanted).ok_or_else(|| {
        let names: Vec<&str> = device.precisions.iter().map(|precision| precision.name()).collect();
        let wanted = wanted.map_or("any dtype", Precision::name);
        ModelError::new(format!("the device `{name}` does not compute in `{wanted}`"))
            .help(format!("it computes in {}", names.join(", ")))
    })
}

/// The precision that `device` computes in when `wanted` is asked for.
fn precision(backend: Backend, device: &DeviceReport, wanted: Option<Precision>) -> Option<Precision> {
    let preferred: &[Precision] = match (wanted.as_ref(), backend) {
        (Some(precision), _) => std::slice::from_ref(precision),
        (None, Backend::Cpu) => &[Precision::F32],
        (None, _) => &[Precision::Bf16, Precision::F16, Precision::F32],
    };
    preferred.iter().copied().find(|precision| device.precisions.contains(precision))
}

fn automatic(request: DeviceRequest, probe: &dyn Probe) -> Result<Chosen, ModelError> {
    let mut passed_over = Vec::new();
    for backend in Backend::ALL.into_iter().filter(|backend| probe.is_compiled(*backend)) {
        let listed = match probe.list(backend) {
            Ok(listed) => listed,
            Err(problem) => {
                passed_over.push(format!("{backend} ({})", problem.message));
                continue;
            }
        };
        for (index, Listed { name, software }) in listed.into_iter().enumerate() {
            let called = backend.device(index);
            if software {
                passed_over.push(format!("{called} ({name})"));
                continue;
            }
            let device = probe.try_out(backend, index);
            match usable(backend, &device, request.precision) {
                Ok(precision) => {
                    let choice = DeviceChoice { backend, index, precision };
                    return Ok(Chosen { choice, device, passed_over });
                }
                Err(error) => {
                    let why = error.message.replace(&format!("the device `{called}` "), "");
                    passed_over.push(format!("{called} ({why})"));
                }
            }
        }
    }
    let tried = passed_over.join(", ");
    let wanted = request.precision.map(|precision| format!(" for `{precision}`")).unwrap_or_default();
    Err(ModelError::new(format!("no usable device{wanted} on this machine: {tried}"))
        .help("`stic devices` lists all of them; `dtype = \"f32\"` works on every one"))
}
