//! The device as a pool: `[device]` of a pipeline file, and what nodes on a model occupy.

use crate::device::{Backend, DeviceChoice, DeviceRequest, Precision, is_numerics_class};
use crate::node::{Context, Failure};
use crate::pool::{Pool, Slots};
use crate::spec::{PoolKind, PoolRequest, Reader};

/// The pool of devices; one is chosen for a run.
pub const DEVICES: PoolKind = PoolKind { name: "device", keys: &["backend", "dtype"], read };

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

fn read(table: &mut Reader<'_>) -> PoolRequest {
    let mut request = DeviceRequest::default();
    let mut accept_numerics = Vec::new();
    if let Some(written) = table.optional::<String>("backend") {
        let (family, index) = written.split_once(':').map_or((written.as_str(), None), |(f, i)| (f, Some(i)));
        let backend = Backend::ALL.into_iter().find(|backend| backend.name() == family);
        if backend.is_none() && family != "auto" {
            let names = std::iter::once("auto").chain(Backend::ALL.map(Backend::name));
            let names: Vec<&str> = names.collect();
            if family.eq_ignore_ascii_case("gpu") {
                // The spelling is near to `cpu`, which is the last thing that is meant.
                let help = "name the GPU's: `cuda`, `rocm`, `metal`, `vulkan` or `webgpu`, or leave it to `auto`; \
                            `stic devices` lists what there is";
                let label = "no backend has this name";
                table.reject("backend", format!("unknown backend `{family}`"), label, Some(help.to_owned()));
            } else {
                table.reject_name("backend", "backend", family, &names);
            }
        }
        request.backend = backend;
        match index.map(str::parse::<usize>) {
            None => {}
            Some(Ok(index)) if backend.is_some() => request.index = index,
            Some(_) if backend.is_none() && family != "auto" => {}
            Some(_) => table.reject(
                "backend",
                format!("`{written}` picks no device"),
                "expected a backend, a colon and the number of a device",
                Some("write for example `cuda:1`; `stic devices` lists what there is".to_owned()),
            ),
        }
    }
    let precisions = Precision::ALL.map(|precision| (precision.name(), Some(precision)));
    let choices: Vec<_> = std::iter::once(("auto", None)).chain(precisions).collect();
    request.precision = table.choice("dtype", &choices, None);
    for class in table.optional::<Vec<String>>("accept_numerics").unwrap_or_default() {
        if is_numerics_class(&class) {
            accept_numerics.push(class);
        } else {
            table.reject(
                "accept_numerics",
                format!("`{class}` is no numerics class"),
                "expected names of a backend and a dtype",
                Some("write for example `cuda-bf16`".to_owned()),
            );
        }
    }
    PoolRequest { asked: serde_json::json!(request), accept_numerics }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::DEVICES;
    use crate::diagnostic::{Source, Style, render};
    use crate::spec::{Declared, Pipeline};

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
