//! Takes the place of `cubecl-llvm` in this workspace (`[patch.crates-io]` in the root manifest).
//!
//! CubeCL's CUDA and ROCm runtimes each hold two kernel compilers: one writes CUDA or HIP C++ for the vendor's run-time
//! compiler (NVRTC, HIP RTC), the other goes through LLVM. The features `cuda-cpp` and `hip-cpp`, which this project
//! sets, choose the first; the second is compiled in all the same, and its build script downloads a complete LLVM from
//! a release page, which fails wherever only a package registry can be reached. This crate has the names and types of
//! `cubecl-llvm` 0.11.3 that those two runtimes refer to and no compiler behind them: [`PlironCompiler::compile`]
//! returns an error, and no value of a compiled module is ever made.
//!
//! It goes when CubeCL makes the dependency optional. It knows nothing of kernels, devices or this project.

use cubecl_core::ir::{amd::GfxArch, nvidia::SmArch};
use cubecl_core::prelude::KernelDefinition;
use cubecl_environment::{backtrace::BackTrace, bytes::Bytes};
use cubecl_runtime::compiler::{CompilationError, Compiler};
use cubecl_runtime::kernel::BufferIOAttr;
use std::fmt;

/// What the LLVM compiler would generate code for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlvmTarget {
    /// AMD GPUs.
    AmdGpu,
    /// NVIDIA GPUs.
    Nvptx,
}

/// The LLVM compiler, which this build does not have.
#[derive(Clone, Debug)]
pub struct PlironCompiler {
    /// The target that was asked for.
    pub target: LlvmTarget,
}

/// What the runtimes pass to the LLVM compiler.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// AMD architecture.
    pub arch: Option<GfxArch>,
    /// NVIDIA architecture.
    pub sm_arch: Option<SmArch>,
    /// PTX version of the driver.
    pub ptx_version: Option<nvptx::ptx_version::PtxVersion>,
    /// Whether scalars are kernel parameters.
    pub grid_constants: bool,
}

/// A compiled PTX module; none is ever made.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// PTX text, ended by NUL.
    pub ptx: Vec<core::ffi::c_char>,
    /// Name of the kernel.
    pub entrypoint: String,
    /// Intermediate representation.
    pub ir: String,
    /// Shared memory of a launch, in bytes.
    pub shared_memory_size: usize,
    /// How each buffer is accessed.
    pub io: Vec<BufferIOAttr>,
}

/// A compiled AMD code object; none is ever made.
#[derive(Clone, Debug)]
pub struct AmdGpuModule {
    /// The loadable object.
    pub code_object: Bytes,
    /// Name of the kernel.
    pub entrypoint: String,
    /// Intermediate representation.
    pub ir: String,
    /// Assembly.
    pub asm: Option<String>,
    /// Shared memory of a launch, in bytes.
    pub shared_memory_size: usize,
    /// How each buffer is accessed.
    pub io: Vec<BufferIOAttr>,
}

/// What the LLVM compiler would return; none is ever made.
#[derive(Clone, Debug)]
pub enum PlironArtifact {
    /// For AMD GPUs.
    AmdGpuCode(AmdGpuModule),
    /// For NVIDIA GPUs.
    NvptxCode(NvptxModule),
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AmdGpuCode(module) => &module.ir,
            Self::NvptxCode(module) => &module.ir,
        })
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(&mut self, _: KernelDefinition, _: &PlironOptions) -> Result<PlironArtifact, CompilationError> {
        Err(CompilationError::Generic {
            reason: "this program was built without LLVM: kernels are compiled by NVRTC or HIP RTC".into(),
            backtrace: BackTrace::capture(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}

/// NVIDIA's side.
pub mod nvptx {
    /// Versions of PTX.
    pub mod ptx_version {
        use std::fmt;

        /// The PTX version that a driver loads. NVRTC chooses its own, so none is ever named here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum PtxVersion {}

        impl PtxVersion {
            /// Always `None`: the version is NVRTC's to choose.
            pub fn for_driver(_: i32) -> Option<Self> {
                None
            }
        }

        impl fmt::Display for PtxVersion {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {}
            }
        }
    }
}

/// What both targets share.
pub mod shared {
    /// Device properties, narrowed to what LLVM lowers.
    pub mod lowered_features {
        use cubecl_core::ir::{DeviceProperties, amd::AmdWmma};

        /// Which device's properties are narrowed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum GpuTarget {
            /// An NVIDIA GPU.
            Nvptx,
            /// An AMD GPU.
            AmdGpu {
                /// The generation of its matrix instructions.
                wmma: Option<AmdWmma>,
            },
        }

        /// Leaves the properties as they are: the runtimes call it only for the LLVM compiler, which is not there.
        pub fn restrict_features(_: &mut DeviceProperties, _: GpuTarget) {}
    }
}
