//! `stic devices`: the devices that this build can use on this machine.

use serde_json::json;

use super::device::Each;
use super::table::table;
use super::ui::{CliError, Exit, Paint, Ui, write_json, write_lines};
use crate::device::Precision;
use crate::model::device::{BackendReport, DeviceReport, Memory, Problem, backends, gigabytes};

/// Lists backends and devices.
///
/// # Errors
/// When standard output cannot be written to.
pub fn devices(json: bool, ui: &Ui) -> Result<Exit, CliError> {
    let backends = backends(&Each);
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
                    "kernels": device.kernels,
                    "memory": device.memory,
                    "problem": device.problem.as_ref().map(|problem| &problem.message),
                    "help": device.problem.as_ref().and_then(|problem| problem.help.as_ref()),
                }))?;
            }
            if found.devices.is_empty() {
                let Problem { message, help } = why_none(found);
                write_json(
                    &json!({ "backend": backend, "compiled": found.compiled, "problem": message, "help": help }),
                )?;
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
            let why = in_a_line(&why_none(found));
            rows.push(vec![found.backend.name().to_owned(), none.clone(), none, why]);
        }
    }
    write_lines(&table(&rows, false, ui.width))?;
    Ok(Exit::Success)
}

fn row(found: &BackendReport, device: &DeviceReport, ui: &Ui) -> Vec<String> {
    let name = format!("{}:{}", found.backend, device.index);
    let state = match &device.problem {
        Some(problem) => ui.paint(Paint::Bad, format_args!("unusable: {}", in_a_line(problem))),
        None => {
            let precisions: Vec<&str> = device.precisions.iter().copied().map(Precision::name).collect();
            let kernels = if device.kernels == found.backend {
                String::new()
            } else {
                format!(", with the kernels and the numerics class of {}", device.kernels)
            };
            format!("{}{kernels}", ui.paint(Paint::Good, precisions.join(" ")))
        }
    };
    let software = if device.software { " (software)" } else { "" };
    vec![name, format!("{}{software}", device.name), memory(device.memory), state]
}

/// `141.0 GB, 140.2 GB free`.
fn memory(memory: Option<Memory>) -> String {
    let Some(Memory { total, free, .. }) = memory else { return "memory unknown".to_owned() };
    let free = free.map(|free| format!(", {} free", gigabytes(free))).unwrap_or_default();
    format!("{}{free}", gigabytes(total))
}

fn why_none(found: &BackendReport) -> Problem {
    match (&found.problem, found.compiled) {
        (Some(problem), _) => problem.clone(),
        (None, false) => Problem::new(format!("not compiled in: build with the cargo feature `{}`", found.backend)),
        (None, true) => Problem::new("no device found"),
    }
}

fn in_a_line(Problem { message, help }: &Problem) -> String {
    help.as_ref().map_or(message.clone(), |help| format!("{message} ({help})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shown_as_far_as_it_is_known() {
        let of = |total, free| memory(Some(Memory { total, free, swap: 0 }));
        assert_eq!(of(141_000_000_000, Some(140_250_000_000)), "141.0 GB, 140.2 GB free");
        assert_eq!(of(512_000_000, None), "512 MB");
        assert_eq!(memory(None), "memory unknown");
    }
}
