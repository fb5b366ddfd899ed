//! Why there is no usable device, in words, from what was found. This module looks at nothing itself.

use std::path::{Path, PathBuf};

use super::found::Problem;
use crate::device::Backend;

/// The directory of CUDA's headers, where CubeCL looks for it when it compiles the first kernel: that of `CUDA_PATH`, or
/// the first usual one that exists.
///
/// # Errors
/// When it is not there, or has not the headers that kernels include: CubeCL would panic.
pub fn cuda_headers(cuda_path: Option<&Path>, exists: &dyn Fn(&Path) -> bool) -> Result<PathBuf, Problem> {
    const USUAL: [(&str, &str); 3] =
        [("/usr/local/cuda", "/usr/local/cuda"), ("/opt/cuda", "/opt/cuda"), ("/usr/bin/nvcc", "/usr")];
    const HEADERS: [&str; 3] = ["cuda_fp16.h", "cooperative_groups.h", "mma.h"];
    let remedy = "install CUDA's toolkit (at least its headers and NVRTC), and set CUDA_PATH to the directory that has \
                  `include/cuda_fp16.h`";
    let usual = || USUAL.into_iter().find(|(sign, _)| exists(Path::new(sign))).map(|(_, root)| PathBuf::from(root));
    let Some(root) = cuda_path.map(Path::to_owned).or_else(usual) else {
        return Err(Problem::new("kernels are compiled on first use, and CUDA's headers were not found").help(remedy));
    };
    let include = root.join("include");
    let missing: Vec<&str> = HEADERS.into_iter().filter(|header| !exists(&include.join(header))).collect();
    if missing.is_empty() {
        return Ok(include);
    }
    let by = if cuda_path.is_some() { ", which CUDA_PATH names," } else { "" };
    let message = format!(
        "kernels are compiled on first use, and `{}`{by} has no {}",
        include.display(),
        missing.iter().map(|header| format!("`{header}`")).collect::<Vec<_>>().join(", ")
    );
    Err(Problem::new(message).help(remedy))
}

/// What the environment says of the GPUs of `backend`, where that may hide them: a variable and its value.
pub fn visibility(backend: Backend, variable: &dyn Fn(&str) -> Option<String>) -> Option<(&'static str, String)> {
    let names: &[&'static str] = match backend {
        Backend::Cuda => &["CUDA_VISIBLE_DEVICES"],
        Backend::Rocm => &["HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"],
        Backend::Vulkan | Backend::Webgpu => {
            &["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_LOADER_DRIVERS_DISABLE", "CUBECL_WGPU_VISIBLE_DEVICES"]
        }
        Backend::Metal | Backend::Cpu => &[],
    };
    names.iter().find_map(|name| variable(name).map(|value| (*name, value)))
}

/// Why `backend` has no device, where nothing more is known than what `variable` of the environment says.
pub fn none(backend: Backend, variable: &dyn Fn(&str) -> Option<String>) -> Problem {
    let (what, remedy) = match backend {
        Backend::Cuda => ("NVIDIA's driver offers no GPU", "`nvidia-smi` must list it"),
        Backend::Rocm => ("no AMD GPU with a ROCm driver", "install ROCm; `rocminfo` must list the GPU"),
        Backend::Metal => ("no GPU that Metal supports", "Metal is for Apple's GPUs; choose `cpu` or `auto`"),
        Backend::Vulkan | Backend::Webgpu => (
            "no Vulkan driver, or no GPU that it supports",
            "install the GPU's Vulkan driver (Debian: `mesa-vulkan-drivers`); `vulkaninfo --summary` must list the GPU",
        ),
        Backend::Cpu => ("no processor", "choose another backend"),
    };
    match visibility(backend, variable) {
        Some((name, value)) if value.trim().is_empty() => {
            Problem::new(format!("{what}; {name} is empty")).help(format!("unset {name}, or: {remedy}"))
        }
        Some((name, value)) => {
            Problem::new(format!("{what}; {name} is `{value}`")).help(format!("check {name}, or: {remedy}"))
        }
        None => Problem::new(what).help(remedy),
    }
}

/// The line of `said` that names the cause: CubeCL wraps an error in others, and appends the kernel and a backtrace.
pub fn cause(said: &str) -> &str {
    let lines = said.lines().map(str::trim).take_while(|line| !["[Source]", "Backtrace:"].contains(line));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let compiler = lines.iter().find(|line| line.contains("error:"));
    let innermost = lines.iter().rposition(|line| *line == "Caused by:").and_then(|at| lines.get(at + 1));
    compiler.or(innermost).or(lines.first()).copied().unwrap_or("no reason given")
}

/// Why a device did not compute, by the panic or error `said` that ended the attempt.
pub fn failed(backend: Backend, said: &str) -> Problem {
    let whole = said.to_lowercase();
    let said = cause(said);
    let has = |texts: &[&str]| texts.iter().any(|text| whole.contains(&text.to_lowercase()));
    if is_out_of_memory(&whole) {
        return Problem::new("its memory is full")
            .help("end what else uses the GPU (`nvidia-smi` lists it), or choose another device");
    }
    if backend == Backend::Cuda && has(&["UNSUPPORTED_PTX_VERSION", "unsupported toolchain"]) {
        return Problem::new("NVIDIA's driver is too old for the NVRTC that compiled the kernel")
            .help("update the driver, or install an older CUDA toolkit: `nvidia-smi` shows the newest CUDA that the driver takes");
    }
    if backend == Backend::Cuda
        && has(&["\"nvrtc\" shared library", "nvrtc"])
        && has(&["unable to dynamically load", "not found"])
    {
        return no_nvrtc();
    }
    if backend == Backend::Cuda && has(&["CUDA installation not found"]) {
        return cuda_headers(None, &|_| false).err().unwrap_or_else(|| Problem::new(said));
    }
    if has(&["UnsupportedGraphicsApi", "is unavailable in this build"]) {
        return Problem::new(format!("this build cannot use it: {said}")).help("`stic devices` lists the alternatives");
    }
    if backend == Backend::Cuda && has(&["cannot open source file"]) {
        return incomplete_headers(said);
    }
    if has(&["compile", "shader", "naga", "pipeline"]) {
        return Problem::new(format!("its driver does not compile a kernel: {said}"))
            .help("update the driver, or choose another backend: `webgpu` in place of `vulkan`, or `cpu`");
    }
    if is_lost(&whole) {
        return Problem::new(format!("the device was lost: {said}")).help("update its driver; run it again");
    }
    Problem::new(said)
}

/// That CUDA's headers include others that are not there, by what NVRTC `said`.
pub fn incomplete_headers(said: &str) -> Problem {
    Problem::new(format!("CUDA's headers are incomplete: {}", cause(said))).help(
        "install the whole toolkit, or what the header belongs to (`crt/…` comes with nvcc; from PyPI: nvidia-cuda-crt), \
         and set CUDA_PATH",
    )
}

/// That NVRTC, which compiles kernels, is missing.
pub fn no_nvrtc() -> Problem {
    Problem::new("kernels are compiled on first use, and NVRTC, libnvrtc.so, was not found")
        .help("install CUDA's toolkit (at least its headers and NVRTC), and add its `lib64` to LD_LIBRARY_PATH")
}

/// Whether `said`, a panic or an error, is that memory is full.
pub fn is_out_of_memory(said: &str) -> bool {
    let said = said.to_lowercase();
    [
        "out of memory",
        "out_of_memory",
        "outofmemory",
        "not enough memory",
        "no space available",
        "buffertoobig",
        "can't allocate",
        "cannot allocate",
    ]
    .iter()
    .any(|text| said.contains(text))
}

/// How many bytes were asked for, if `said`, a panic or an error, is that the device has no buffers of that size: WebGPU
/// promises none above 128 MiB, whatever memory there is.
pub fn too_large(said: &str) -> Option<u64> {
    let (_, size) = said.split_once("can't allocate buffer of size: ")?;
    size.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Whether `said`, a panic or an error, is that the device does not answer any more.
pub fn is_lost(said: &str) -> bool {
    let said = said.to_lowercase();
    [
        "device lost",
        "devicelost",
        "device is lost",
        "device_lost",
        "illegal_address",
        "launch_failed",
        "ecc_uncorrectable",
    ]
    .iter()
    .any(|text| said.contains(text))
}

/// That the process that tried a device was ended by `signal`.
pub fn crashed(backend: Backend, signal: i32) -> Problem {
    let help = match backend {
        Backend::Vulkan => "update the driver, or choose `webgpu` (in a build without `vulkan`), or `cpu`",
        Backend::Webgpu if cfg!(feature = "vulkan") => {
            "update the driver, or build without the feature `vulkan`: it compiles other kernels"
        }
        _ => "update the driver, or choose another device",
    };
    Problem::new(format!("the driver crashed (signal {signal})")).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_named_and_not_the_kernel() {
        let said = "An error happened during execution\nCaused by:\n  A launch error happened\nCaused by:\n  [Compilation \
                    Error]\n    /cuda/include/mma.h(55): catastrophic error: cannot open source file \"crt/mma.h\"\n      \
                    #include \"crt/mma.h\"\n[Source]\ntypedef unsigned int uint32_t;\nint error: 1;\nBacktrace:\n";
        let opened = "/cuda/include/mma.h(55): catastrophic error: cannot open source file \"crt/mma.h\"";
        assert_eq!(cause(said), opened);
        let problem = failed(Backend::Cuda, said);
        assert_eq!(problem.message, format!("CUDA's headers are incomplete: {opened}"));
        assert_eq!(
            cause("Execution failed\nCaused by:\n  The device was lost\n\nBacktrace:\n  0: main"),
            "The device was lost"
        );
        assert_eq!(cause("no driver\nmore"), "no driver");
        assert_eq!(cause(""), "no reason given");
        let full = failed(Backend::Vulkan, "Execution failed\nCaused by:\n  out of memory\nCaused by:\n  no page left");
        assert_eq!(full.message, "its memory is full");
    }

    #[test]
    fn cuda_headers_are_looked_for_where_cubecl_does() {
        let with = |there: &[&str], path: Option<&str>| {
            let there: Vec<PathBuf> = there.iter().map(PathBuf::from).collect();
            cuda_headers(path.map(Path::new), &|wanted| there.iter().any(|path| path == wanted))
                .map(|path| path.display().to_string())
                .map_err(|problem| problem.message)
        };
        let all =
            |root: &str| ["cuda_fp16.h", "cooperative_groups.h", "mma.h"].map(|name| format!("{root}/include/{name}"));
        let mut there: Vec<String> = vec!["/opt/cuda".to_owned()];
        there.extend(all("/opt/cuda"));
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        assert_eq!(with(&there, None).unwrap(), "/opt/cuda/include");
        assert_eq!(
            with(&[], None).unwrap_err(),
            "kernels are compiled on first use, and CUDA's headers were not found"
        );
        // CubeCL takes CUDA_PATH as it is, though another directory would do.
        assert_eq!(
            with(&there, Some("/nowhere")).unwrap_err(),
            "kernels are compiled on first use, and `/nowhere/include`, which CUDA_PATH names, has no `cuda_fp16.h`, \
             `cooperative_groups.h`, `mma.h`"
        );
        assert!(
            with(&["/usr/bin/nvcc", "/usr/include/mma.h"], None)
                .unwrap_err()
                .contains("`/usr/include` has no `cuda_fp16.h`")
        );
    }

    #[test]
    fn panics_of_drivers_are_explained() {
        let message = |backend, said| failed(backend, said).message;
        assert_eq!(
            message(Backend::Cuda, "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"),
            "its memory is full"
        );
        assert!(
            message(Backend::Cuda, "DriverError(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, \"…\")")
                .contains("too old for the NVRTC")
        );
        let loading = "Unable to dynamically load the \"nvrtc\" shared library - searched for library names";
        assert_eq!(message(Backend::Cuda, loading), no_nvrtc().message);
        assert!(message(Backend::Cuda, "CUDA installation not found.").contains("headers were not found"));
        assert!(message(Backend::Webgpu, "Failed to compile shader: naga").starts_with("its driver does not compile"));
        assert_eq!(message(Backend::Vulkan, "something else"), "something else");
        assert_eq!(crashed(Backend::Vulkan, 11).message, "the driver crashed (signal 11)");
    }

    #[test]
    fn a_variable_that_hides_devices_is_named() {
        let variable = |name: &str| (name == "VK_DRIVER_FILES").then(|| "/none.json".to_owned());
        let problem = none(Backend::Vulkan, &variable);
        assert_eq!(problem.message, "no Vulkan driver, or no GPU that it supports; VK_DRIVER_FILES is `/none.json`");
        let empty = |name: &str| (name == "HIP_VISIBLE_DEVICES").then(String::new);
        assert_eq!(
            none(Backend::Rocm, &empty).help.unwrap(),
            "unset HIP_VISIBLE_DEVICES, or: install ROCm; `rocminfo` must list the GPU"
        );
    }
}
