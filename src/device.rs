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

    /// The name of its device `index` in messages: `cuda:0`, and `cpu`, of which there is one.
    pub fn device(self, index: usize) -> String {
        if self == Self::Cpu && index == 0 { self.name().to_owned() } else { format!("{self}:{index}") }
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

/// A device by name: `auto`, a backend, or a backend, a colon and the number of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DeviceName {
    /// The backend; `None` is `auto`.
    pub backend: Option<Backend>,
    /// Which device of that backend.
    pub index: usize,
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.backend, self.index) {
            (None, _) => f.write_str("auto"),
            (Some(backend), 0) => write!(f, "{backend}"),
            (Some(backend), index) => write!(f, "{backend}:{index}"),
        }
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for DeviceName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (family, index) =
            text.split_once(':').map_or((text.as_str(), None), |(family, index)| (family, Some(index)));
        let backend = Backend::ALL.into_iter().find(|backend| backend.name() == family);
        // `usize` takes a sign, too.
        let number = |index: &str| index.parse().ok().filter(|_| !index.starts_with('+'));
        match (backend, index) {
            (None, None) if family == "auto" => Ok(Self::default()),
            (Some(_), None) => Ok(Self { backend, index: 0 }),
            (Some(_), Some(index)) => number(index).map(|index| Self { backend, index }).ok_or(text),
            _ => Err(text),
        }
    }
}

/// A dtype by name: `auto`, or a precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DtypeName(pub Option<Precision>);

impl fmt::Display for DtypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.map_or("auto", Precision::name))
    }
}

impl From<DtypeName> for String {
    fn from(name: DtypeName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for DtypeName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let precision = Precision::ALL.into_iter().find(|precision| precision.name() == text);
        if precision.is_none() && text != "auto" { Err(text) } else { Ok(Self(precision)) }
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

impl DeviceRequest {
    /// The device that is asked for.
    pub fn device(&self) -> DeviceName {
        DeviceName { backend: self.backend, index: self.index }
    }

    /// The request, where `change` does not say otherwise.
    pub fn changed(self, change: &DeviceChange) -> Self {
        let DeviceName { backend, index } = change.device.unwrap_or_else(|| self.device());
        Self { backend, index, precision: change.dtype.map_or(self.precision, |dtype| dtype.0) }
    }
}

/// What is asked in place of parts of a request: by a node, on the command line, or in the environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceChange {
    /// The device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceName>,
    /// The dtype.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<DtypeName>,
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

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.backend.device(self.index))
    }
}

/// The numerics class of what `backend` computes: results of one class replay as one another's, those of different
/// classes do not.
pub fn numerics_class(backend: Backend, precision: Precision) -> String {
    format!("{backend}-{precision}")
}

/// All numerics classes.
pub fn numerics_classes() -> Vec<String> {
    let of = |backend| Precision::ALL.map(|precision| numerics_class(backend, precision));
    Backend::ALL.into_iter().flat_map(of).collect()
}

/// Whether `text` names a numerics class: `cuda-bf16`.
pub fn is_numerics_class(text: &str) -> bool {
    numerics_classes().iter().any(|class| class == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_with_or_without_a_number() {
        let read = |text: &str| DeviceName::try_from(text.to_owned());
        assert_eq!(read("auto"), Ok(DeviceName::default()));
        assert_eq!(read("cuda:1"), Ok(DeviceName { backend: Some(Backend::Cuda), index: 1 }));
        assert_eq!(read("cpu"), Ok(DeviceName { backend: Some(Backend::Cpu), index: 0 }));
        for wrong in ["", "gpu", "auto:1", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "CUDA", "cuda:1:2"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        for name in ["auto", "cuda", "vulkan:3"] {
            assert_eq!(read(name).unwrap().to_string(), name);
        }
    }

    #[test]
    fn a_change_replaces_what_it_names_and_nothing_else() {
        let asked = DeviceRequest { backend: Some(Backend::Cuda), index: 1, precision: Some(Precision::F16) };
        let change = |text: &str| serde_json::from_str::<DeviceChange>(text).unwrap();
        assert_eq!(asked.changed(&change("{}")), asked);
        let cpu = asked.changed(&change(r#"{ "device": "cpu" }"#));
        assert_eq!(cpu, DeviceRequest { backend: Some(Backend::Cpu), index: 0, precision: Some(Precision::F16) });
        assert_eq!(asked.changed(&change(r#"{ "dtype": "auto" }"#)), DeviceRequest { precision: None, ..asked });
        assert_eq!(asked.changed(&change(r#"{ "device": "auto" }"#)).device(), DeviceName::default());
    }

    #[test]
    fn classes_are_a_backend_and_a_dtype() {
        assert!(is_numerics_class("cuda-bf16") && is_numerics_class("cpu-f32"));
        assert!(!is_numerics_class("cuda") && !is_numerics_class("cuda-f8") && !is_numerics_class("gpu-f32"));
        assert_eq!(numerics_classes().len(), Backend::ALL.len() * Precision::ALL.len());
    }
}
