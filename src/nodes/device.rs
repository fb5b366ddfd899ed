//! The device as a pool: `[device]` of a pipeline file, and what nodes on a model occupy.

use crate::device::{Backend, DeviceChoice, DeviceRequest, Precision, is_numerics_class};
use stic_engine::node::{Context, Failure};
use stic_engine::parameters;
use stic_engine::pool::{Pool, Slots};
use stic_engine::spec::parameter::{Form, Parameters, Setting, choice};
use stic_engine::spec::{PoolKind, PoolRequest, Reader};

/// The pool of devices; one is chosen for a run.
pub const DEVICES: PoolKind = PoolKind { name: "device", declared: DeviceTable::declared, read };

/// What a node on a model occupies.
pub const ONE_DEVICE: Option<Slots> = Some(Slots { pool: DEVICES.name, count: 1 });

/// The pool of the device that was chosen.
pub fn pool(choice: DeviceChoice) -> Pool {
    Pool { class: choice.numerics(), slots: vec![serde_json::json!(choice)] }
}

/// The device that a node on a model occupies.
///
/// # Errors
/// When it occupies none.
pub fn occupied(context: &dyn Context) -> Result<DeviceChoice, Failure> {
    let slot = context.slots().first().and_then(|slot| serde_json::from_value(slot.clone()).ok());
    slot.ok_or_else(|| Failure::node("the node occupies no device"))
}

parameters! {
    /// `[device]`: how to compute, not what.
    struct DeviceTable {
        /// The backend, and after a colon the number of a device; `stic devices` lists the available ones
        backend: (Option<Backend>, usize) = backend().default((None, 0)),
        /// The dtype of weights and of the computation
        dtype: Option<Precision> = choice(dtypes()).default(None),
        /// Also use results of these numerics classes, such as `cuda-bf16`: a backend and a dtype, with their own rounding
        accept_numerics: Vec<String> = accept_numerics().otherwise("none", Vec::new()).execution(),
    }
}

fn read(table: &mut Reader<'_>) -> PoolRequest {
    let DeviceTable { backend: (backend, index), dtype, accept_numerics } =
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

fn backend() -> Setting<(Option<Backend>, usize)> {
    let families = Backend::ALL.map(Backend::name).join("|");
    let numbered = Form::Pattern { regex: format!("^({families}):[0-9]+$"), like: "cuda:1" };
    let forms = vec![Form::Choice(backend_names()), numbered];
    let form = Form::Any { what: "a backend, with or without the number of a device", forms };
    let name = |(backend, _): &(Option<Backend>, usize)| Some(backend.map_or("auto", Backend::name).into());
    Setting::new(form, read_backend, name)
}

fn read_backend(table: &mut Reader<'_>, key: &str) -> Option<(Option<Backend>, usize)> {
    let written: String = table.optional(key)?;
    let (family, index) = written.split_once(':').map_or((written.as_str(), None), |(f, i)| (f, Some(i)));
    let backend = Backend::ALL.into_iter().find(|backend| backend.name() == family);
    if backend.is_none() && family != "auto" {
        if family.eq_ignore_ascii_case("gpu") {
            // The spelling is near `cpu`, which is certainly not meant.
            let help = "name the GPU's: `cuda`, `rocm`, `metal`, `vulkan` or `webgpu`, or leave it to `auto`; \
                        `stic devices` lists the available ones";
            let label = "no backend has this name";
            table.reject(key, format!("unknown backend `{family}`"), label, Some(help.to_owned()));
        } else {
            table.reject_name(key, "backend", family, &backend_names());
        }
        return None;
    }
    match index.map(str::parse::<usize>) {
        None => Some((backend, 0)),
        Some(Ok(index)) if backend.is_some() => Some((backend, index)),
        Some(_) => {
            table.reject(
                key,
                format!("`{written}` is not a device"),
                "expected a backend, a colon and the number of a device",
                Some("write for example `cuda:1`; `stic devices` lists the available ones".to_owned()),
            );
            None
        }
    }
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
    use stic_engine::diagnostic::{Source, Style, render};
    use stic_engine::spec::{Declared, Pipeline};

    #[test]
    fn a_device_has_a_known_backend_and_dtype_and_its_index_is_a_number() {
        let said = |device: &str| {
            let text = format!("[device]\n{device}[nodes.a]\nkind = 'sample'\nfrom = 'x'\n");
            let declared = Declared { pools: &[DEVICES], ..Declared::default() };
            let mistakes = Pipeline::read(&text, "toy", Path::new(""), &declared).1.into_list();
            render(Some(&Source { name: "toy.toml".into(), text }), &mistakes, Style::PLAIN)
        };
        insta::assert_snapshot!(said("backend = 'cude:1'\ndtype = 'f8'\naccept_numerics = ['cuda-bf16', 'gpu']\n"));
        insta::assert_snapshot!(said("backend = 'cuda:x'\n"));
    }
}
