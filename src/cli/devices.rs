//! `stic devices`: the devices that this build can use on this machine.

use serde_json::json;

use super::table::table;
use super::ui::{CliError, Exit, Paint, Ui, write_json, write_lines};
use crate::device::Precision;
use crate::model::device::{BackendReport, DeviceReport, backends};

/// Lists backends and devices.
///
/// # Errors
/// When standard output cannot be written to.
pub fn devices(json: bool, ui: &Ui) -> Result<Exit, CliError> {
    let backends = backends();
    if json {
        for found in &backends {
            let backend = found.backend.name();
            for device in &found.devices {
                write_json(&json!({
                    "backend": backend,
                    "compiled": found.compiled,
                    "index": device.index,
                    "name": device.name,
                    "dtypes": device.precisions,
                    "software": device.software,
                    "problem": device.problem,
                }))?;
            }
            if found.devices.is_empty() {
                write_json(&json!({ "backend": backend, "compiled": found.compiled, "problem": why_none(found) }))?;
            }
        }
        return Ok(Exit::Success);
    }
    let ui = ui.for_stdout();
    let mut rows = Vec::new();
    for found in &backends {
        rows.extend(found.devices.iter().map(|device| row(found, device, &ui)));
        if found.devices.is_empty() {
            let none = ui.paint(Paint::Dim, "-");
            rows.push(vec![found.backend.name().to_owned(), none, why_none(found).unwrap_or_default()]);
        }
    }
    write_lines(&table(&rows, false, ui.width))?;
    Ok(Exit::Success)
}

fn row(found: &BackendReport, device: &DeviceReport, ui: &Ui) -> Vec<String> {
    let name = format!("{}:{}", found.backend, device.index);
    let state = match &device.problem {
        Some(problem) => ui.paint(Paint::Bad, format_args!("unusable: {problem}")),
        None => {
            let precisions: Vec<&str> = device.precisions.iter().copied().map(Precision::name).collect();
            ui.paint(Paint::Good, precisions.join(" "))
        }
    };
    let software = if device.software { " (software)" } else { "" };
    vec![name, format!("{}{software}", device.name), state]
}

fn why_none(found: &BackendReport) -> Option<String> {
    match (&found.problem, found.compiled) {
        (Some(problem), _) => Some(problem.clone()),
        (None, false) => Some(format!("not compiled in: build with the cargo feature `{}`", found.backend)),
        (None, true) => Some("no device found".to_owned()),
    }
}
