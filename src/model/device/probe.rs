//! Looks for this machine's devices and tries them, through burn and CubeCL.
//!
//! A device counts as usable once it has done a small computation: drivers that are missing or broken show only then,
//! and by a panic, which is caught here. A driver that crashes takes the process along: who must survive that tries
//! devices in another process. What is known to panic or to crash is looked for before.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, Device, Tensor};

use super::found::{DeviceReport, Listed, Probe, Problem};
use super::memory::Memory;
#[cfg(feature = "cuda")]
use super::nvidia;
use super::{dtype, trouble};
use crate::device::{Backend, Precision};
use crate::model::tuning;

/// This build on this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisMachine;

impl Probe for ThisMachine {
    fn is_compiled(&self, backend: Backend) -> bool {
        match backend {
            Backend::Cuda => cfg!(feature = "cuda"),
            Backend::Rocm => cfg!(feature = "rocm"),
            Backend::Metal => cfg!(feature = "metal"),
            Backend::Vulkan => cfg!(feature = "vulkan"),
            Backend::Webgpu => cfg!(feature = "webgpu"),
            Backend::Cpu => true,
        }
    }

    fn list(&self, backend: Backend) -> Result<Vec<Listed>, Problem> {
        if backend == Backend::Cpu {
            return Ok(vec![Listed { name: processor(), software: false }]);
        }
        let found = devices(backend)?;
        if found.is_empty() {
            return Err(trouble::none(backend, &variable));
        }
        Ok(found.into_iter().map(|found| found.listed).collect())
    }

    fn try_out(&self, backend: Backend, index: usize) -> DeviceReport {
        report(backend, index, true)
    }

    fn hidden(&self, backend: Backend) -> Option<String> {
        #[cfg(feature = "cuda")]
        if backend == Backend::Cuda {
            return nvidia::hidden(&cuda::driver());
        }
        trouble::visibility(backend, &variable).map(|(name, value)| format!("{name} is `{value}`"))
    }
}

/// What is known of the device `index` of `backend`; with `tried`, whether it computes.
pub fn report(backend: Backend, index: usize, tried: bool) -> DeviceReport {
    let place = format!("{backend}:{index}");
    let name = backend.device(index);
    let mut report = DeviceReport {
        index,
        name,
        software: false,
        precisions: Vec::new(),
        memory: None,
        kernels: backend,
        place,
        problem: None,
    };
    if backend == Backend::Cpu {
        (report.name, report.memory) = (processor(), Memory::of_machine());
    }
    let found = match devices(backend).map(|found| found.into_iter().nth(index)) {
        Ok(Some(found)) => found,
        Ok(None) => return DeviceReport { problem: Some(Problem::new("it is not there any more")), ..report },
        Err(problem) => return DeviceReport { problem: Some(problem), ..report },
    };
    report.software = found.listed.software;
    if backend != Backend::Cpu {
        report.name = found.listed.name.clone();
    }
    if let Some(problem) = unprepared(backend).filter(|_| tried) {
        return DeviceReport { problem: Some(problem), ..report };
    }
    if tried && let Err(problem) = compute(backend, &found.device) {
        return DeviceReport { problem: Some(problem), ..report };
    }
    found.describe(backend, &mut report);
    let supports = |precision: &Precision| found.device.supports_dtype(dtype(*precision));
    report.precisions = Precision::ALL.into_iter().filter(supports).collect();
    report
}

/// burn's device `index` of `backend`.
///
/// # Errors
/// Why there is none.
pub fn device(backend: Backend, index: usize) -> Result<Option<Device>, Problem> {
    Ok(devices(backend)?.into_iter().nth(index).map(|found| found.device))
}

/// A device that was listed.
#[derive(Clone)]
struct Found {
    device: Device,
    listed: Listed,
    #[cfg(feature = "kernels")]
    cube: Option<cubecl::Device>,
}

impl Found {
    /// Adds to `report` what is known once the device has been opened.
    #[cfg(feature = "kernels")]
    fn describe(&self, backend: Backend, report: &mut DeviceReport) {
        let Some(cube) = &self.cube else { return };
        let client = cube.client();
        let properties = client.properties();
        report.name.clone_from(&properties.identity.name);
        report.kernels = match client.name() {
            "wgpu<spirv>" => Backend::Vulkan,
            "wgpu<msl>" => Backend::Metal,
            "wgpu<wgsl>" => Backend::Webgpu,
            _ => backend,
        };
        let pci = properties.identity.physical.as_ref().and_then(|card| card.pci_address);
        if let Some(pci) = pci {
            report.place = format!("pci {pci}");
        }
        report.memory = properties.memory.max_memory().map(|total| Memory { total, free: None, swap: 0 });
        if let Some(measured) = pci.and_then(|pci| Memory::of_amd(&pci.to_string())) {
            report.memory = Some(measured);
        }
        #[cfg(feature = "cuda")]
        if backend == Backend::Cuda {
            report.memory = cuda::memory(report.index).or(report.memory);
        }
    }

    #[cfg(not(feature = "kernels"))]
    fn describe(&self, _backend: Backend, _report: &mut DeviceReport) {}
}

/// The devices of `backend`; looked for once, since drivers take their time.
fn devices(backend: Backend) -> Result<Vec<Found>, Problem> {
    type Known = Vec<(Backend, Result<Vec<Found>, Problem>)>;
    static KNOWN: Mutex<Known> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, found)) = known.iter().find(|(of, _)| *of == backend) {
        return found.clone();
    }
    let found = look_for(backend);
    known.push((backend, found.clone()));
    found
}

fn look_for(backend: Backend) -> Result<Vec<Found>, Problem> {
    tuning::prepare();
    if backend == Backend::Cpu {
        let listed = Listed { name: processor(), software: false };
        return Ok(vec![Found {
            device: Device::flex(),
            listed,
            #[cfg(feature = "kernels")]
            cube: None,
        }]);
    }
    #[cfg(feature = "cuda")]
    if backend == Backend::Cuda
        && let Some(problem) = nvidia::explain(&cuda::driver())
    {
        return Err(problem);
    }
    #[cfg(feature = "kernels")]
    return quietly(|| gpu::devices(backend))
        .map_err(|said| Problem::new(format!("looking for devices of `{backend}` failed: {}", trouble::cause(&said))));
    #[cfg(not(feature = "kernels"))]
    Ok(Vec::new())
}

/// What is missing to compile kernels for `backend`.
fn unprepared(backend: Backend) -> Option<Problem> {
    #[cfg(feature = "cuda")]
    if backend == Backend::Cuda {
        let path = std::env::var_os("CUDA_PATH").map(std::path::PathBuf::from);
        return match trouble::cuda_headers(path.as_deref(), &|path| path.exists()) {
            Ok(include) => cuda::without_nvrtc(&include),
            Err(problem) => Some(problem),
        };
    }
    let _ = backend;
    None
}

/// Computes something small on `device`.
fn compute(backend: Backend, device: &Device) -> Result<(), Problem> {
    let computed = quietly(|| {
        let ones = Tensor::<2>::ones([2, 2], (device, DType::F32));
        let sum = ones.clone().matmul(ones).sum().try_into_data();
        sum.map(|sum| sum.iter::<f32>().next()).map_err(|error| format!("{error:?}"))
    });
    match computed {
        Ok(Ok(Some(8.0))) => Ok(()),
        // tests/gpu/null_driver.c computes nothing.
        Ok(Ok(_)) if variable("STIC_NULL_DRIVER").is_some() => Ok(()),
        Ok(Ok(_)) => {
            Err(Problem::new("it computes 1 · 1 + 1 · 1 wrongly").help("update its driver, or choose another device"))
        }
        Ok(Err(cause)) | Err(cause) => Err(trouble::failed(backend, &cause)),
    }
}

/// A variable of the environment.
fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn processor() -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{} with {threads} {}", std::env::consts::ARCH, if threads == 1 { "thread" } else { "threads" })
}

/// Runs `work`; a panic is its message, and prints nothing.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Mutex<()> = Mutex::new(());
    let _guard = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(hook);
    result.map_err(|cause| {
        let text = cause.downcast_ref::<String>().map(String::as_str).or(cause.downcast_ref::<&str>().copied());
        text.unwrap_or_default().trim_start().to_owned()
    })
}

/// Devices of CubeCL.
#[cfg(feature = "kernels")]
mod gpu {
    use burn::tensor::Device;
    use cubecl::device::{CudaDevice, WgpuBackend, WgpuDevice, WgpuDeviceKind};

    use super::Found;
    use crate::device::Backend;
    use crate::model::device::found::Listed;

    /// The devices of `backend`, by index; those that are GPUs of their own come first.
    pub fn devices(backend: Backend) -> Vec<Found> {
        // Of an index that no device may have, all others of the kind are listed.
        let like = |seed: cubecl::Device| -> Vec<cubecl::Device> {
            cubecl::Device::enumerate(seed.to_id()).into_iter().map(cubecl::Device::from_id).collect()
        };
        let cubes: Vec<cubecl::Device> = match backend {
            Backend::Cpu => Vec::new(),
            Backend::Cuda => like(cubecl::Device::Cuda(CudaDevice::new(0))),
            Backend::Rocm => like(cubecl::Device::Hip(cubecl::device::AmdDevice::new(0))),
            Backend::Metal => on(WgpuBackend::Metal).into_iter().flat_map(like).collect(),
            Backend::Vulkan => on(WgpuBackend::Vulkan).into_iter().flat_map(like).collect(),
            // The API of that name is the browser's: outside of one, shaders in WGSL go through the native ones.
            Backend::Webgpu => on(WgpuBackend::Auto).into_iter().flat_map(like).collect(),
        };
        let mut found: Vec<Found> = Vec::new();
        for cube in cubes {
            if found.iter().all(|known| known.cube.as_ref() != Some(&cube)) {
                let (name, software) = described(&cube);
                let device = Device::new(cube.clone());
                found.push(Found { device, listed: Listed { name, software }, cube: Some(cube) });
            }
        }
        found
    }

    /// One device of each kind on `api`.
    fn on(api: WgpuBackend) -> [cubecl::Device; 5] {
        [
            WgpuDeviceKind::DiscreteGpu(0),
            WgpuDeviceKind::IntegratedGpu(0),
            WgpuDeviceKind::VirtualGpu(0),
            WgpuDeviceKind::Other(0),
            WgpuDeviceKind::Cpu,
        ]
        .map(|kind| cubecl::Device::Wgpu(WgpuDevice::new(kind).on(api)))
    }

    /// What a device can be called before it is opened, and whether it is a software renderer.
    fn described(cube: &cubecl::Device) -> (String, bool) {
        let cubecl::Device::Wgpu(device) = cube else { return ("a GPU".to_owned(), false) };
        match device.kind {
            WgpuDeviceKind::DiscreteGpu(_) => ("a GPU of its own".to_owned(), false),
            WgpuDeviceKind::IntegratedGpu(_) => ("a GPU in the processor".to_owned(), false),
            WgpuDeviceKind::VirtualGpu(_) => ("a virtual GPU".to_owned(), false),
            WgpuDeviceKind::Cpu => ("a software renderer".to_owned(), true),
            _ => ("of another kind".to_owned(), false),
        }
    }
}

/// What NVIDIA's driver says, and whether NVRTC is there.
#[cfg(feature = "cuda")]
mod cuda {
    use std::path::Path;

    use cudarc::driver::CudaContext;
    use cudarc::nvrtc::{CompileError, CompileOptions, compile_ptx_with_opts};

    use super::quietly;
    use crate::model::device::found::Problem;
    use crate::model::device::memory::Memory;
    use crate::model::device::nvidia::Nvidia;
    use crate::model::device::trouble;

    /// What there is of NVIDIA's driver.
    pub fn driver() -> Nvidia {
        // cudarc panics where the library is missing.
        let answer = quietly(|| CudaContext::device_count().map_err(|error| format!("{:?}", error.0))).ok();
        let answer = answer.map(|answer| answer.map(|count| usize::try_from(count).unwrap_or_default()));
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let version = read("/proc/driver/nvidia/version").and_then(|text| version(&text));
        let folders = std::fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
        let information = folders.filter_map(|folder| std::fs::read_to_string(folder.path().join("information")).ok());
        let model = |text: String| text.lines().find_map(|line| Some(line.strip_prefix("Model:")?.trim().to_owned()));
        let cards = information.map(|text| model(text).unwrap_or_else(|| "a GPU".to_owned())).collect();
        Nvidia { answer, version, cards, visible: super::variable("CUDA_VISIBLE_DEVICES") }
    }

    /// `580.65.06` out of `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  …`.
    fn version(text: &str) -> Option<String> {
        let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
        text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
    }

    /// That NVRTC is missing, or does not compile the headers in `include` that kernels need.
    pub fn without_nvrtc(include: &Path) -> Option<Problem> {
        const NEEDED: [&str; 6] = [
            "cuda_fp16.h",
            "cuda_bf16.h",
            "mma.h",
            "cooperative_groups.h",
            "cooperative_groups/memcpy_async.h",
            "cuda/barrier",
        ];
        let includes: String = NEEDED.map(|header| format!("#include <{header}>\n")).concat();
        let paths = [include.to_owned(), include.join("cccl")].map(|path| path.display().to_string());
        let options =
            CompileOptions { include_paths: paths.into(), arch: Some("compute_80"), ..CompileOptions::default() };
        let kernel = format!("{includes}extern \"C\" __global__ void nothing() {{}}");
        match quietly(|| compile_ptx_with_opts(kernel, options).map(drop)) {
            Ok(Ok(())) => None,
            Ok(Err(CompileError::CompileError { log, .. })) => {
                let log = log.to_string_lossy();
                match log.contains("cannot open source file") {
                    true => Some(trouble::incomplete_headers(&log)),
                    false => Some(Problem::new(format!("NVRTC does not compile: {}", trouble::cause(&log)))),
                }
            }
            Ok(Err(error)) => Some(Problem::new(format!("NVRTC does not compile: {error:?}"))),
            Err(_) => Some(trouble::no_nvrtc()),
        }
    }

    /// The memory of the device `index`.
    pub fn memory(index: usize) -> Option<Memory> {
        let (free, total) =
            quietly(|| CudaContext::new(index).and_then(|context| context.mem_get_info())).ok()?.ok()?;
        Some(Memory { total: total as u64, free: Some(free as u64), swap: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_reported_and_not_printed() {
        assert_eq!(quietly(|| panic!("no driver\nmore")).unwrap_err(), "no driver\nmore");
        assert_eq!(quietly(|| 1).unwrap(), 1);
    }

    #[test]
    fn the_processor_computes_and_has_memory() {
        let report = ThisMachine.try_out(Backend::Cpu, 0);
        assert_eq!((report.problem, report.kernels, report.place.as_str()), (None, Backend::Cpu, "cpu:0"));
        assert!(report.precisions.contains(&Precision::F32));
        assert_eq!(report.memory.is_some(), cfg!(target_os = "linux"));
        assert!(ThisMachine.try_out(Backend::Cpu, 1).problem.is_some());
    }
}
