//! Backend and dtype names as data. This module does not know burn, nor what this machine has.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The family of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// NVIDIA GPUs.
    Cuda,
    /// AMD GPUs.
    Rocm,
    /// Apple GPUs.
    Metal,
    /// Any GPU with a Vulkan driver.
    Vulkan,
    /// Any GPU, through WGSL shaders.
    Webgpu,
    /// The processor.
    Cpu,
}

impl Backend {
    /// All backends, in the order in which `auto` prefers them.
    pub const ALL: [Self; 6] = [Self::Cuda, Self::Rocm, Self::Metal, Self::Vulkan, Self::Webgpu, Self::Cpu];

    /// Its name in a pipeline file; also the cargo feature that compiles it in (`cpu` needs none).
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
            Self::Metal => "metal",
            Self::Vulkan => "vulkan",
            Self::Webgpu => "webgpu",
            Self::Cpu => "cpu",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How weights and activations are stored; reductions and losses always accumulate in 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// IEEE 16-bit floats.
    F16,
    /// bfloat16.
    Bf16,
}

impl Precision {
    /// All precisions.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// Its name in a pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a pipeline file asks for: `None` is `auto`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRequest {
    /// The backend.
    pub backend: Option<Backend>,
    /// Which device of that backend.
    pub index: usize,
    /// The precision.
    pub precision: Option<Precision>,
}

/// What a request resolved to on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceChoice {
    /// The backend.
    pub backend: Backend,
    /// Which device of that backend; not part of any key.
    pub index: usize,
    /// The precision.
    pub precision: Precision,
}

impl DeviceChoice {
    /// The numerics class: results of one class replay as one another's, those of different classes do not.
    pub fn numerics(&self) -> String {
        format!("{}-{}", self.backend, self.precision)
    }
}

/// Whether `text` names a numerics class, as [`DeviceChoice::numerics`] does: `cuda-bf16`.
pub fn is_numerics_class(text: &str) -> bool {
    text.split_once('-').is_some_and(|(backend, precision)| {
        Backend::ALL.iter().any(|known| known.name() == backend)
            && Precision::ALL.iter().any(|known| known.name() == precision)
    })
}
