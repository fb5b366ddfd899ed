//! `stic devices --test`: whether devices compute what the CPU does.

use std::ops::ControlFlow;

use serde_json::json;

use super::compiling::Compiling;
use super::device::Each;
use super::model::problem;
use super::ui::{CliError, Exit, Paint, Ui, write_json, write_lines};
use crate::device::{Backend, DeviceChoice, DeviceName, DeviceRequest, Precision};
use crate::model::device::{DeviceReport, backends, choose, open};
use crate::train::parity::{Finding, compare};

/// Tests the device of `name`; with `auto` every usable one but the processor, or the processor where there is no other.
///
/// # Errors
/// When the device is not usable, or standard output cannot be written to.
pub fn test(name: DeviceName, json: bool, ui: &Ui) -> Result<Exit, CliError> {
    let _compiling = Compiling::watch({
        let ui = *ui;
        move |line| ui.say(line)
    });
    let mut all_right = true;
    for (backend, report) in chosen(name)? {
        let device = backend.device(report.index);
        let choice = DeviceChoice { backend, index: report.index, precision: Precision::F32 };
        let (place, _) = open(choice).map_err(problem)?;
        let mut findings = Vec::new();
        let mut unwritten = None;
        // What panics is reported as a finding.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        // TF32 is NVIDIA's.
        let _ = compare(&place, &report.precisions, backend == Backend::Cuda, |finding| {
            if json {
                unwritten = write_json(&as_json(&device, &finding)).err();
            }
            // After a failure to compute, the device may fail at everything.
            let go_on = (finding.problem.is_none() || finding.is_limit) && unwritten.is_none();
            findings.push(finding);
            if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        std::panic::set_hook(hook);
        if let Some(problem) = unwritten {
            return Err(problem);
        }
        all_right &= findings.iter().all(Finding::is_right);
        if !json {
            write_lines(&lines(&device, &findings, &ui.for_stdout()))?;
        }
    }
    Ok(if all_right { Exit::Success } else { Exit::Failure })
}

/// The devices to test.
fn chosen(name: DeviceName) -> Result<Vec<(Backend, DeviceReport)>, CliError> {
    if name.backend.is_some() {
        let request = DeviceRequest { backend: name.backend, index: name.index, precision: None };
        let found = choose(request, &Each).map_err(problem)?;
        return Ok(vec![(found.choice.backend, found.device)]);
    }
    let usable: Vec<(Backend, DeviceReport)> = backends(&Each)
        .into_iter()
        .flat_map(|found| found.devices.into_iter().map(move |device| (found.backend, device)))
        .filter(|(_, device)| device.problem.is_none())
        .collect();
    let (cpu, others): (Vec<_>, Vec<_>) = usable.into_iter().partition(|(backend, _)| *backend == Backend::Cpu);
    Ok(if others.is_empty() { cpu } else { others })
}

fn as_json(device: &str, finding: &Finding) -> serde_json::Value {
    json!({
        "device": device,
        "dtype": finding.precision,
        "what": finding.what,
        "right": finding.is_right(),
        // JSON has no NaN.
        "difference": finding.difference.is_finite().then_some(finding.difference),
        "allowed": finding.allowed,
        "problem": finding.problem,
        "limit": finding.is_limit,
    })
}

/// What is wrong, the first of it first, and how much is right.
fn lines(device: &str, findings: &[Finding], ui: &Ui) -> Vec<String> {
    let mut lines = Vec::new();
    for precision in Precision::ALL {
        let name = precision.name();
        let of: Vec<&Finding> = findings.iter().filter(|finding| finding.precision == precision).collect();
        let (limits, of): (Vec<&Finding>, Vec<&Finding>) = of.iter().partition(|finding| finding.is_limit);
        let (right, wrong): (Vec<&Finding>, Vec<&Finding>) = of.iter().partition(|finding| finding.is_right());
        for finding in limits {
            lines.push(format!("{device}  {name:<4}  {}  {}", ui.paint(Paint::Busy, "limit"), said(finding)));
        }
        for finding in &wrong {
            lines.push(format!("{device}  {name:<4}  {}  {}", ui.paint(Paint::Bad, "wrong"), said(finding)));
        }
        if let Some(worst) = right.iter().max_by(|a, b| a.difference.total_cmp(&b.difference)) {
            let word = ui.paint(if wrong.is_empty() { Paint::Good } else { Paint::Dim }, "right");
            let (count, all) = (right.len(), of.len());
            let apart = format!("at most {:.1e} apart ({})", worst.difference, worst.what);
            lines.push(format!("{device}  {name:<4}  {word}  {count} of {all} parts, {apart}"));
        }
    }
    lines
}

fn said(finding: &Finding) -> String {
    let Finding { what, difference, allowed, problem, .. } = finding;
    match problem {
        Some(problem) => format!("{what}: {problem}"),
        None if difference.is_nan() => format!("{what}: values that are not finite"),
        None => {
            format!("{what}: differs from the CPU by {difference:.1e} of the largest value; rounding is {allowed:.1e}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Color, Global};
    use crate::train::parity::LARGE;

    #[test]
    fn what_is_wrong_comes_first_with_its_size() {
        let finding = |what, precision, difference, problem: Option<&str>| Finding {
            what,
            precision,
            difference,
            allowed: 1e-5,
            problem: problem.map(str::to_owned),
            is_limit: what == LARGE,
        };
        let findings = [
            finding("matrix product", Precision::F32, 2e-7, None),
            finding("softmax", Precision::F32, 0.5, None),
            finding("RMS norm", Precision::F32, f32::NAN, None),
            finding(LARGE, Precision::F32, f32::NAN, Some("can't allocate buffer of size: 135266304")),
            finding("matrix product", Precision::F16, f32::NAN, Some("the shader does not compile")),
        ];
        let ui = Ui::new(&Global { cache: None, quiet: false, verbose: false, color: Color::Never });
        assert_eq!(
            lines("webgpu:0", &findings, &ui),
            [
                "webgpu:0  f32   limit  product by a matrix of more than 128 MiB: can't allocate buffer of size: 135266304",
                "webgpu:0  f32   wrong  softmax: differs from the CPU by 5.0e-1 of the largest value; rounding is 1.0e-5",
                "webgpu:0  f32   wrong  RMS norm: values that are not finite",
                "webgpu:0  f32   right  1 of 3 parts, at most 2.0e-7 apart (matrix product)",
                "webgpu:0  f16   wrong  matrix product: the shader does not compile",
            ]
        );
    }
}
