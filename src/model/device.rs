//! burn's devices for the names of backends: what is compiled in, what this machine has, what works, in which
//! precisions.
//!
//! A device counts as usable once it has done a small computation: drivers that are missing or broken show only then,
//! and by a panic, which is caught here. This module does not know models.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;

use burn::tensor::{DType, Device, DeviceType, Tensor};

use super::{ModelError, tuning};
use crate::device::{Backend, DeviceChoice, DeviceRequest, Precision};

/// What this build and this machine have of one backend.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendReport {
    /// The backend.
    pub backend: Backend,
    /// Whether it is compiled in; if not, the cargo feature of its name makes it so.
    pub compiled: bool,
    /// Its devices, by index.
    pub devices: Vec<DeviceReport>,
    /// Why there is no device.
    pub problem: Option<String>,
}

/// One device.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceReport {
    /// Which one of its backend: `cuda:1` has index 1.
    pub index: usize,
    /// What it calls itself.
    pub name: String,
    /// The precisions that it computes in.
    pub precisions: Vec<Precision>,
    /// Why it is unusable.
    pub problem: Option<String>,
    /// Whether it is a software renderer on the CPU, which `auto` passes over.
    pub software: bool,
}

/// All backends, in the order in which `auto` prefers them, with their devices tried.
pub fn backends() -> Vec<BackendReport> {
    Backend::ALL.into_iter().map(report).collect()
}

/// Resolves `request` on this machine.
///
/// `auto` takes the first backend with a usable device. On the CPU `auto` computes in `f32`; on a GPU in `bf16`,
/// else `f16`, else `f32`.
///
/// # Errors
/// When the backend is not compiled in, has no such device, or cannot compute in that precision.
pub fn choose(request: DeviceRequest) -> Result<DeviceChoice, ModelError> {
    match request.backend {
        Some(backend) => pick(&report(backend), request),
        None => {
            let usable =
                Backend::ALL.into_iter().filter(|backend| device_type(*backend).is_some()).map(report).find_map(
                    |found| {
                        let device = found.devices.iter().find(|it| it.problem.is_none() && !it.software)?;
                        Some((found.clone(), device.index))
                    },
                );
            let (found, index) = usable.ok_or_else(|| ModelError::new("no usable device on this machine"))?;
            let index = if request.index == 0 { index } else { request.index };
            pick(&found, DeviceRequest { index, ..request })
        }
    }
}

/// The device and dtype of a choice.
///
/// # Errors
/// When the device is not there (any more).
pub fn open(choice: DeviceChoice) -> Result<(Device, DType), ModelError> {
    let DeviceChoice { backend, index, precision } = choice;
    let device = devices(backend)?.into_iter().nth(index).ok_or_else(|| no_device(backend, index))?;
    Ok((device, dtype(precision)))
}

/// burn's name of a precision.
pub fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::F16 => DType::F16,
        Precision::Bf16 => DType::BF16,
    }
}

fn pick(found: &BackendReport, request: DeviceRequest) -> Result<DeviceChoice, ModelError> {
    let BackendReport { backend, compiled, .. } = *found;
    if !compiled {
        return Err(ModelError::new(format!("the backend `{backend}` is not compiled in"))
            .help(format!("build with `cargo build --release --features {backend}`, or choose `cpu` or `auto`")));
    }
    let Some(device) = found.devices.get(request.index) else {
        let error = no_device(backend, request.index);
        return Err(match (&found.problem, found.devices.len()) {
            (Some(problem), _) => ModelError { message: format!("{}: {problem}", error.message), ..error },
            (None, 0) => error,
            (None, count) => error.help(format!("it has {count}, counted from 0; `stic devices` lists them")),
        });
    };
    if let Some(problem) = &device.problem {
        return Err(ModelError::new(format!("the device `{backend}:{}` is unusable: {problem}", device.index))
            .help("`stic devices` lists the alternatives"));
    }
    let preferred: &[Precision] = match (request.precision.as_ref(), backend) {
        (Some(precision), _) => std::slice::from_ref(precision),
        (None, Backend::Cpu) => &[Precision::F32],
        (None, _) => &[Precision::Bf16, Precision::F16, Precision::F32],
    };
    let precision = preferred.iter().find(|precision| device.precisions.contains(precision)).ok_or_else(|| {
        let names: Vec<&str> = device.precisions.iter().map(|precision| precision.name()).collect();
        ModelError::new(format!("the device `{backend}:{}` does not compute in `{}`", device.index, preferred[0]))
            .help(format!("it computes in {}", names.join(", ")))
    })?;
    Ok(DeviceChoice { backend, index: device.index, precision: *precision })
}

fn no_device(backend: Backend, index: usize) -> ModelError {
    let name = if index == 0 { backend.to_string() } else { format!("{backend}:{index}") };
    ModelError::new(format!("no device `{name}` on this machine")).help("`stic devices` lists the available ones")
}

fn report(backend: Backend) -> BackendReport {
    let mut report =
        BackendReport { backend, compiled: device_type(backend).is_some(), devices: vec![], problem: None };
    if report.compiled {
        match devices(backend) {
            Ok(devices) => {
                report.devices =
                    devices.iter().enumerate().map(|(index, device)| try_out(backend, index, device)).collect();
                if report.devices.is_empty() {
                    report.problem = Some("no driver, or no device that it supports".to_owned());
                }
            }
            Err(error) => report.problem = Some(error.message),
        }
    }
    report
}

/// Tries a small computation on `device`.
fn try_out(backend: Backend, index: usize, device: &Device) -> DeviceReport {
    let name = format!("{device:?}");
    let tried = quietly(|| {
        let ones = Tensor::<2>::ones([2, 2], (device, DType::F32));
        let product = ones.clone().matmul(ones).sum().into_data().iter::<f32>().next();
        (product == Some(8.0)).then_some(()).ok_or("it computes 1 · 1 + 1 · 1 wrongly")
    });
    let problem = match tried {
        Ok(Ok(())) => None,
        Ok(Err(wrong)) => Some(wrong.to_owned()),
        Err(cause) => Some(cause),
    };
    let precisions = match problem {
        Some(_) => Vec::new(),
        None => Precision::ALL.into_iter().filter(|precision| device.supports_dtype(dtype(*precision))).collect(),
    };
    let software = backend != Backend::Cpu && name.contains("Cpu");
    let name = if backend == Backend::Cpu { processor() } else { name };
    DeviceReport { index, name, precisions, problem, software }
}

fn processor() -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{} with {threads} threads", std::env::consts::ARCH)
}

fn devices(backend: Backend) -> Result<Vec<Device>, ModelError> {
    let Some(kind) = device_type(backend) else {
        return Err(ModelError::new(format!("the backend `{backend}` is not compiled in"))
            .help(format!("build with `cargo build --release --features {backend}`")));
    };
    tuning::prepare();
    quietly(|| Device::enumerate(kind.clone()).into_iter().collect())
        .map_err(|cause| ModelError::new(format!("looking for devices of `{backend}` failed: {cause}")))
}

/// What burn calls a backend; `None` when it is not compiled in.
fn device_type(backend: Backend) -> Option<DeviceType> {
    match backend {
        Backend::Cpu => Some(DeviceType::Flex),
        #[cfg(feature = "cuda")]
        Backend::Cuda => Some(DeviceType::Cuda),
        #[cfg(feature = "rocm")]
        Backend::Rocm => Some(DeviceType::Rocm),
        #[cfg(feature = "metal")]
        Backend::Metal => Some(DeviceType::Metal),
        #[cfg(feature = "vulkan")]
        Backend::Vulkan => Some(DeviceType::Vulkan),
        // burn's own WebGPU is the browser's: outside of one, shaders in WGSL go through the native API.
        #[cfg(feature = "webgpu")]
        Backend::Webgpu => Some(DeviceType::Wgpu),
        #[allow(unreachable_patterns)]
        _ => None,
    }
}

/// Runs `work`; a panic is its message, and prints nothing.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Mutex<()> = Mutex::new(());
    let _guard = HOOK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(hook);
    result.map_err(|cause| {
        let text = cause.downcast_ref::<String>().map(String::as_str).or(cause.downcast_ref::<&str>().copied());
        text.unwrap_or("no reason given").lines().next().unwrap_or_default().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_always_there_and_computes_in_f32_unless_told_otherwise() {
        let request = DeviceRequest { backend: Some(Backend::Cpu), ..DeviceRequest::default() };
        let choice = choose(request).unwrap();
        assert_eq!(choice, DeviceChoice { backend: Backend::Cpu, index: 0, precision: Precision::F32 });
        assert_eq!(open(choice).unwrap().1, DType::F32);
        let half = choose(DeviceRequest { precision: Some(Precision::F16), ..request }).unwrap();
        assert_eq!(half.precision, Precision::F16);
    }

    #[test]
    fn a_device_beyond_the_last_is_an_error() {
        let request = DeviceRequest { backend: Some(Backend::Cpu), index: 3, precision: None };
        let error = choose(request).unwrap_err();
        assert_eq!(error.message, "no device `cpu:3` on this machine");
        assert_eq!(error.help.unwrap(), "it has 1, counted from 0; `stic devices` lists them");
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_backend_that_is_not_compiled_in_names_its_feature() {
        let request = DeviceRequest { backend: Some(Backend::Cuda), ..DeviceRequest::default() };
        let error = choose(request).unwrap_err();
        assert_eq!(error.message, "the backend `cuda` is not compiled in");
        assert!(error.help.unwrap().starts_with("build with `cargo build --release --features cuda`"));
    }

    #[test]
    fn every_backend_is_reported() {
        let reports = backends();
        assert_eq!(reports.len(), Backend::ALL.len());
        let cpu = reports.last().unwrap();
        assert!(
            cpu.compiled && cpu.devices[0].problem.is_none() && cpu.devices[0].precisions.contains(&Precision::F32)
        );
    }

    #[test]
    fn a_panic_is_reported_and_not_printed() {
        assert_eq!(quietly(|| panic!("no driver\nmore")).unwrap_err(), "no driver");
        assert_eq!(quietly(|| 1).unwrap(), 1);
    }
}
