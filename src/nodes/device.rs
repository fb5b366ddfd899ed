//! The device as a pool: `[device]` of a pipeline file, `device` of a node, and what nodes on a model occupy.

use std::ops::ControlFlow;

use crate::device::{
    Backend, DeviceChange, DeviceChoice, DeviceName, DeviceRequest, DtypeName, Precision, is_numerics_class,
    numerics_classes,
};
use crate::model::{device, session};
use stic_engine::diagnostic::did_you_mean;
use stic_engine::node::{Context, Failure};
use stic_engine::parameters;
use stic_engine::pool::Slots;
use stic_engine::spec::parameter::{Form, Parameters, Setting, choice};
use stic_engine::spec::{PoolKind, PoolRequest, Reader};

/// The pool of devices. What it is asked for is a [`DeviceRequest`], and by a node a [`DeviceChange`] of it; a slot is a
/// [`DeviceChoice`].
pub const DEVICES: PoolKind =
    PoolKind { name: "device", declared: DeviceTable::declared, read, classes: numerics_classes };

/// What a node on a model occupies: a device, where `own` is what the node itself asks.
pub fn one(own: &DeviceChange) -> Slots {
    let asked = if *own == DeviceChange::default() { serde_json::Value::Null } else { serde_json::json!(own) };
    Slots { pool: DEVICES.name, count: 1, asked }
}

/// The device that a node on a model occupies.
///
/// # Errors
/// When it occupies none.
pub fn occupied(context: &dyn Context) -> Result<DeviceChoice, Failure> {
    let slot = context.slots().first().and_then(|slot| serde_json::from_value(slot.clone()).ok());
    slot.ok_or_else(|| Failure::node("the node occupies no device"))
}

/// The same, once no other process of the user has the device: this one has it then, until it ends.
///
/// # Errors
/// When the node occupies none, or the run is interrupted while it waits.
pub fn taken(context: &dyn Context) -> Result<DeviceChoice, Failure> {
    let choice = occupied(context)?;
    let mut said = false;
    let is_taken = device::take(choice, &mut |owner| {
        if !std::mem::replace(&mut said, true) {
            context.note(&device::waiting(choice, owner));
        }
        if context.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if is_taken { Ok(choice) } else { Err(Failure::Interrupted) }
}

/// Runs `work` of a node on its device. A device that is full or lost is a failure of the environment, and what was
/// loaded on it is let go.
///
/// # Errors
/// Those of `work`, and what became of the device.
pub fn computing<T>(context: &dyn Context, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let choice = occupied(context)?;
    device::computing(choice, work).unwrap_or_else(|error| {
        session::forget(choice);
        Err(error.into())
    })
}

parameters! {
    /// `[device]`: how to compute, not what.
    struct DeviceTable {
        /// The backend, and after a colon the number of a device; `stic devices` lists the available ones
        backend: DeviceName = backend().default(DeviceName::default()),
        /// The dtype of weights and of the computation
        dtype: Option<Precision> = choice(dtypes()).default(None),
        /// Also use results of these numerics classes, such as `cuda-bf16`: a backend and a dtype, with their own rounding
        accept_numerics: Vec<String> = accept_numerics().otherwise("none", Vec::new()).execution(),
    }
}

parameters! {
    /// `device` of a node as a table.
    struct OwnDevice {
        /// The backend, and after a colon the number of a device
        backend: Option<DeviceName> = backend().optional("that of `[device]`").execution(),
        /// The dtype of weights and of the computation
        dtype: Option<Option<Precision>> = choice(dtypes()).optional("that of `[device]`").execution(),
    }
}

/// The device of one node: a backend, or a table of what differs from `[device]`.
pub fn own_device() -> Setting<DeviceChange> {
    let what = "a device as a string, or a table with `backend` and `dtype`";
    let form = Form::Any { what, forms: vec![backend_form(), OwnDevice::form()] };
    Setting::new(form, read_own, |_| None).otherwise("that of `[device]`", DeviceChange::default()).execution()
}

fn read_own(table: &mut Reader<'_>, key: &str) -> Option<DeviceChange> {
    if table.is_table(key) {
        let OwnDevice { backend, dtype } = OwnDevice::read(&mut table.table(key)?)?;
        return Some(DeviceChange { device: backend, dtype: dtype.map(DtypeName) });
    }
    if table.is_string(key) {
        return read_backend(table, key).map(|device| DeviceChange { device: Some(device), dtype: None });
    }
    table.reject_type(key, "a device (`\"cuda:1\"`), or a table with `backend` and `dtype`");
    None
}

fn read(table: &mut Reader<'_>) -> PoolRequest {
    let DeviceTable { backend: DeviceName { backend, index }, dtype, accept_numerics } =
        DeviceTable::read(table).expect("all have defaults");
    PoolRequest { asked: serde_json::json!(DeviceRequest { backend, index, precision: dtype }), accept_numerics }
}

fn dtypes() -> Vec<(&'static str, Option<Precision>)> {
    let precisions = Precision::ALL.map(|precision| (precision.name(), Some(precision)));
    std::iter::once(("auto", None)).chain(precisions).collect()
}

fn backend_names() -> Vec<&'static str> {
    std::iter::once("auto").chain(Backend::ALL.map(Backend::name)).collect()
}

fn backend_form() -> Form {
    let families = Backend::ALL.map(Backend::name).join("|");
    let numbered = Form::Pattern { regex: format!("^({families}):[0-9]+$"), like: "cuda:1" };
    let forms = vec![Form::Choice(backend_names()), numbered];
    Form::Any { what: "a backend, with or without the number of a device", forms }
}

fn backend() -> Setting<DeviceName> {
    let name = |device: &DeviceName| Some(device.backend.map_or("auto", Backend::name).into());
    Setting::new(backend_form(), read_backend, name)
}

fn read_backend(table: &mut Reader<'_>, key: &str) -> Option<DeviceName> {
    let written: String = table.optional(key)?;
    named(&written).map_err(|Misnamed { message, label, help }| table.reject(key, message, label, help)).ok()
}

/// A text that names no device, or no dtype.
#[derive(Clone, Debug, PartialEq)]
pub struct Misnamed {
    /// What is wrong.
    pub message: String,
    /// The same in a few words, beside the text.
    pub label: &'static str,
    /// What to write.
    pub help: Option<String>,
}

/// The device called `written`.
///
/// # Errors
/// What is wrong with the name.
pub fn named(written: &str) -> Result<DeviceName, Misnamed> {
    if let Ok(device) = DeviceName::try_from(written.to_owned()) {
        return Ok(device);
    }
    let (family, index) = written.split_once(':').map_or((written, None), |(family, index)| (family, Some(index)));
    let known = Backend::ALL.iter().any(|backend| backend.name() == family);
    if family.eq_ignore_ascii_case("gpu") {
        // The spelling is near `cpu`, which is certainly not meant.
        let help = "name the GPU's: `cuda`, `rocm`, `metal`, `vulkan` or `webgpu`, or leave it to `auto`; \
                    `stic devices` lists the available ones";
        let message = format!("unknown backend `{family}`");
        return Err(Misnamed { message, label: "no backend has this name", help: Some(help.to_owned()) });
    }
    if !known && family != "auto" || index.is_none() {
        let help = did_you_mean(family, "backends", &backend_names());
        return Err(Misnamed {
            message: format!("unknown backend `{family}`"),
            label: "no backend has this name",
            help,
        });
    }
    Err(Misnamed {
        message: format!("`{written}` is not a device"),
        label: "expected a backend, a colon and the number of a device",
        help: Some("write for example `cuda:1`; `stic devices` lists the available ones".to_owned()),
    })
}

/// The dtype called `written`.
///
/// # Errors
/// What is wrong with the name.
pub fn named_dtype(written: &str) -> Result<DtypeName, Misnamed> {
    DtypeName::try_from(written.to_owned()).map_err(|_| {
        let names: Vec<&str> = dtypes().into_iter().map(|(name, _)| name).collect();
        let help = did_you_mean(written, "dtypes", &names);
        Misnamed { message: format!("unknown dtype `{written}`"), label: "no dtype has this name", help }
    })
}

fn accept_numerics() -> Setting<Vec<String>> {
    let backends = Backend::ALL.map(Backend::name).join("|");
    let precisions = Precision::ALL.map(Precision::name).join("|");
    let class = Form::Pattern { regex: format!("^({backends})-({precisions})$"), like: "cuda-bf16" };
    let form = Form::List { of: Box::new(class), least: 0, most: None, distinct: false };
    Setting::new(form, read_accept_numerics, |_| None)
}

fn read_accept_numerics(table: &mut Reader<'_>, key: &str) -> Option<Vec<String>> {
    let written: Vec<String> = table.optional(key)?;
    for class in written.iter().filter(|class| !is_numerics_class(class)) {
        table.reject(
            key,
            format!("`{class}` is not a numerics class"),
            "expected names of a backend and a dtype",
            Some("write for example `cuda-bf16`".to_owned()),
        );
    }
    Some(written.into_iter().filter(|class| is_numerics_class(class)).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::DEVICES;
    use stic_engine::diagnostic::{Style, render};
    use stic_engine::spec::{Declared, Pipeline, Written};

    #[test]
    fn a_device_has_a_known_backend_and_dtype_and_its_index_is_a_number() {
        let said = |device: &str| {
            let text = format!("[device]\n{device}[nodes.a]\nkind = 'sample'\nfrom = 'x'\n");
            let declared = Declared { pools: &[DEVICES], ..Declared::default() };
            let written = Written::read(Path::new("toy.toml"), &text, &(), &[], &declared);
            let sources = written.sources.clone();
            render(&sources, &Pipeline::read(written, "toy", &declared).1.into_list(), Style::PLAIN)
        };
        insta::assert_snapshot!(said("backend = 'cude:1'\ndtype = 'f8'\naccept_numerics = ['cuda-bf16', 'gpu']\n"));
        insta::assert_snapshot!(said("backend = 'cuda:x'\n"));
    }
}
