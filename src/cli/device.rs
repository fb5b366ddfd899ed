//! The device that a command runs on: what the command line, the environment and the pipeline file say of it, and what
//! that comes to on this machine.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use super::args::DeviceOptions;
use super::ui::CliError;
use crate::device::{Backend, DeviceChange, DeviceChoice, DeviceName, DeviceRequest};
use crate::model::ModelError;
use crate::model::device::{Chosen, DeviceReport, Listed, Probe, Problem, ThisMachine, choose, crashed};
use crate::nodes::device::{Misnamed, named};
use stic_engine::diagnostic::counted;
use stic_engine::graph::Graph;
use stic_engine::pool::{self, Pool, Pools, Slot, Unmet};

/// The environment variable that names a device.
pub const VARIABLE: &str = "STIC_DEVICE";

/// The hidden command that tries one device: see [`Children`].
pub const TRY: &str = "try-device";

/// How many nodes a device is said to be of by their names.
const MOST_NAMES: usize = 4;

/// What the command line and the environment ask in place of what the file says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Override {
    change: DeviceChange,
    /// Where the device is named.
    by: Option<&'static str>,
}

impl Override {
    /// That of `options`, else of the environment.
    ///
    /// # Errors
    /// When the variable names no device. A misnamed option is an error of the command line.
    pub fn new(options: &DeviceOptions) -> Result<Self, CliError> {
        let DeviceOptions { device, dtype } = *options;
        if device.is_some() {
            return Ok(Self { change: DeviceChange { device, dtype }, by: Some("--device") });
        }
        // Scripts unset a variable by emptying it.
        let written = std::env::var_os(VARIABLE).map(|value| value.to_string_lossy().into_owned());
        let device = of_variable(written.as_deref())?;
        Ok(Self { change: DeviceChange { device, dtype }, by: device.map(|_| VARIABLE) })
    }

    /// The request that is left of `asked`.
    pub fn request(&self, asked: DeviceRequest) -> DeviceRequest {
        asked.changed(&self.change)
    }

    /// What overrides the requests `asked` of a file, in words.
    fn said(&self, asked: &[DeviceRequest]) -> Vec<String> {
        let instead = |names: &mut dyn Iterator<Item = String>| {
            let names: BTreeSet<String> = names.collect();
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            if names.is_empty() { String::new() } else { format!(", in place of {} in the file", names.join(", ")) }
        };
        let device = self.by.zip(self.change.device).map(|(by, device)| {
            let others = asked.iter().map(DeviceRequest::device);
            let others = others.filter(|other| other.backend.is_some() && *other != device);
            format!("by {by}{}", instead(&mut others.map(|other| other.to_string())))
        });
        let dtype = self.change.dtype.map(|dtype| {
            let others = asked.iter().filter_map(|asked| asked.precision).filter(|other| Some(*other) != dtype.0);
            format!("`{dtype}` by --dtype{}", instead(&mut others.map(|other| other.to_string())))
        });
        device.into_iter().chain(dtype).collect()
    }
}

/// The device that the variable names.
fn of_variable(written: Option<&str>) -> Result<Option<DeviceName>, CliError> {
    let Some(written) = written.filter(|written| !written.is_empty()) else { return Ok(None) };
    named(written)
        .map(Some)
        .map_err(|Misnamed { message, help, .. }| CliError::usage(format!("{VARIABLE}: {message}")).help(help))
}

/// A request that this machine was asked to meet.
struct Asked {
    /// Of the file.
    written: DeviceRequest,
    /// What became of it.
    found: Result<Chosen, ModelError>,
    /// What is left of it.
    request: DeviceRequest,
}

/// This machine's devices, each request resolved once.
pub struct Machine {
    over: Override,
    probe: Arc<dyn Probe>,
    asked: Mutex<Vec<Asked>>,
}

impl Machine {
    /// This machine; `over` is asked in place of what files ask.
    pub fn new(over: Override) -> Self {
        Self { over, probe: Arc::new(Children), asked: Mutex::default() }
    }

    /// Whether the command line or the environment names the device.
    pub fn is_overridden(&self) -> bool {
        self.over.by.is_some()
    }

    /// Resolves what a file asks, or a node in it.
    ///
    /// # Errors
    /// Why that cannot be met.
    pub fn choose(&self, written: DeviceRequest) -> Result<Chosen, ModelError> {
        let request = self.over.request(written);
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let known = asked.iter().find(|known| known.request == request).map(|known| known.found.clone());
        let found = known.unwrap_or_else(|| choose(request, &*self.probe));
        asked.push(Asked { written, found: found.clone(), request });
        found
    }

    /// A line for each device of `pools`: what was chosen, and why.
    pub fn lines(&self, pools: &Pools, graph: &Graph) -> Vec<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let several = pools.iter().count() > 1;
        let line = |(pool, nodes): (&Pool, Vec<usize>)| {
            let choice: DeviceChoice = serde_json::from_value(pool.slots.first()?.what.clone()).ok()?;
            let is_it = |known: &&Asked| known.found.as_ref().is_ok_and(|chosen| chosen.choice == choice);
            let Asked { found, request, .. } = asked.iter().find(is_it)?;
            let written: Vec<DeviceRequest> = asked.iter().filter(is_it).map(|asked| asked.written).collect();
            let names: Vec<String> = nodes.iter().map(|index| format!("`{}`", graph.nodes[*index].name)).collect();
            let of = match names.len() {
                _ if !several => String::new(),
                ..=MOST_NAMES => format!(" of {}", names.join(", ")),
                count => format!(" of {}", counted(count, "node")),
            };
            let chosen = found.as_ref().ok()?;
            Some(format!("device{of}: {}", self.line(&written, request, chosen)))
        };
        pools.iter().filter_map(line).collect()
    }

    /// `cuda:0 (NVIDIA H200), bf16; chosen by auto`. The processor has no name.
    fn line(&self, written: &[DeviceRequest], request: &DeviceRequest, chosen: &Chosen) -> String {
        let Chosen { choice, device, passed_over } = chosen;
        let mut notes = Vec::new();
        if request.backend.is_none() {
            let passed = if passed_over.is_empty() {
                String::new()
            } else {
                format!(", which passed over {}", passed_over.join(", "))
            };
            // With nothing but the processor compiled in there is no choice.
            if self.has_gpus() || !passed.is_empty() {
                notes.push(format!("chosen by `auto`{passed}"));
            }
        }
        notes.extend(self.over.said(written));
        if device.kernels != choice.backend {
            notes.push(format!(
                "runs the kernels of {}, whose numerics class is {}",
                device.kernels,
                chosen.numerics()
            ));
        }
        let notes: String = notes.into_iter().map(|note| format!("; {note}")).collect();
        let name = if choice.backend == Backend::Cpu { String::new() } else { format!(" ({})", device.name) };
        format!("{choice}{name}, {}{notes}", choice.precision)
    }

    fn has_gpus(&self) -> bool {
        Backend::ALL.into_iter().any(|backend| backend != Backend::Cpu && self.probe.is_compiled(backend))
    }
}

impl pool::Machine for Machine {
    fn pool(&self, _name: &str, asked: &serde_json::Value, own: &serde_json::Value) -> Result<Pool, Unmet> {
        let asked: DeviceRequest = serde_json::from_value(asked.clone()).unwrap_or_default();
        let own: DeviceChange = serde_json::from_value(own.clone()).unwrap_or_default();
        let chosen = self.choose(asked.changed(&own)).map_err(|ModelError { message, help, .. }| Unmet {
            message: match self.over.by {
                Some(by) => format!("{message} ({by} asks for it)"),
                None => message,
            },
            help,
        })?;
        let slot = Slot { place: chosen.device.place.clone(), what: serde_json::json!(chosen.choice) };
        Ok(Pool { class: chosen.numerics(), slots: vec![slot] })
    }
}

/// This machine, with devices whose drivers may crash tried in processes of their own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Children;

impl Probe for Children {
    fn is_compiled(&self, backend: Backend) -> bool {
        ThisMachine.is_compiled(backend)
    }

    fn list(&self, backend: Backend) -> Result<Vec<Listed>, Problem> {
        ThisMachine.list(backend)
    }

    fn try_out(&self, backend: Backend, index: usize) -> DeviceReport {
        // Software renderers crash on SPIR-V; what works in the other process works here.
        let software = cfg!(feature = "vulkan")
            && self.list(backend).is_ok_and(|listed| listed.get(index).is_some_and(|device| device.software));
        let tried = software.then(|| in_child(backend, index));
        tried.filter(|report| report.problem.is_some()).unwrap_or_else(|| ThisMachine.try_out(backend, index))
    }

    fn hidden(&self, backend: Backend) -> Option<String> {
        ThisMachine.hidden(backend)
    }
}

/// Every device tried in a process of its own, for who must survive them all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Each;

impl Probe for Each {
    fn is_compiled(&self, backend: Backend) -> bool {
        ThisMachine.is_compiled(backend)
    }

    fn list(&self, backend: Backend) -> Result<Vec<Listed>, Problem> {
        ThisMachine.list(backend)
    }

    fn try_out(&self, backend: Backend, index: usize) -> DeviceReport {
        if backend == Backend::Cpu { ThisMachine.try_out(backend, index) } else { in_child(backend, index) }
    }

    fn hidden(&self, backend: Backend) -> Option<String> {
        ThisMachine.hidden(backend)
    }
}

/// Tries a device in another process of this program.
fn in_child(backend: Backend, index: usize) -> DeviceReport {
    let name = format!("{backend}:{index}");
    let child = || -> std::io::Result<std::process::Output> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([TRY, &name]).stdin(Stdio::null()).stderr(Stdio::null()).output()
    };
    let problem = match child() {
        Ok(output) => match serde_json::from_slice(&output.stdout) {
            Ok(report) if output.status.success() => return report,
            _ => ended(backend, output.status),
        },
        Err(error) => Problem::new(format!("the process that tries it does not start: {error}")),
    };
    let listed = ThisMachine.list(backend).ok().and_then(|listed| listed.into_iter().nth(index));
    let software = listed.as_ref().is_some_and(|listed| listed.software);
    DeviceReport {
        index,
        name: listed.map_or_else(|| name.clone(), |listed| listed.name),
        software,
        precisions: Vec::new(),
        memory: None,
        kernels: backend,
        place: name,
        problem: Some(problem),
    }
}

/// Why the process that tried a device has no report.
fn ended(backend: Backend, status: std::process::ExitStatus) -> Problem {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return crashed(backend, signal);
    }
    let _ = backend;
    Problem::new(format!("the process that tried it failed ({status})"))
}

/// Prints the report of one device as JSON: the child of [`Each`].
///
/// # Errors
/// When the name is none, or standard output cannot be written to.
pub fn try_device(name: DeviceName) -> Result<(), CliError> {
    let DeviceName { backend, index } = name;
    super::ui::write_json(&ThisMachine.try_out(backend.unwrap_or(Backend::Cpu), index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{DtypeName, Precision};

    #[test]
    fn the_variable_is_read_as_the_file_is() {
        assert!(of_variable(None).unwrap().is_none() && of_variable(Some("")).unwrap().is_none());
        assert_eq!(of_variable(Some("cuda:1")).unwrap().unwrap().to_string(), "cuda:1");
        let error = of_variable(Some("gpu")).unwrap_err();
        assert_eq!(error.mistakes[0].message, "STIC_DEVICE: unknown backend `gpu`");
        assert!(error.mistakes[0].help.as_ref().unwrap().contains("`vulkan`"));
    }

    #[test]
    fn what_overrides_is_said() {
        let cuda = DeviceRequest { backend: Some(Backend::Cuda), index: 1, precision: Some(Precision::F16) };
        let cpu = Some(DeviceName { backend: Some(Backend::Cpu), index: 0 });
        let over = Override { change: DeviceChange { device: cpu, dtype: None }, by: Some("--device") };
        assert_eq!(over.request(cuda).precision, Some(Precision::F16));
        let auto = DeviceRequest::default();
        let first = DeviceRequest { index: 0, ..cuda };
        assert_eq!(over.said(&[cuda, auto, first, cuda]), ["by --device, in place of `cuda`, `cuda:1` in the file"]);
        assert_eq!(over.said(&[auto]), ["by --device"]);
        let dtype = DeviceChange { device: None, dtype: Some(DtypeName(None)) };
        let over = Override { change: dtype, by: None };
        assert_eq!(over.request(cuda), DeviceRequest { precision: None, ..cuda });
        assert_eq!(over.said(&[cuda, auto]), ["`auto` by --dtype, in place of `f16` in the file"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_crash_in_the_process_that_tries_a_device_is_a_problem_of_the_device() {
        let status = Command::new("sh").args(["-c", "kill -SEGV $$"]).status().unwrap();
        assert_eq!(ended(Backend::Vulkan, status).message, "the driver crashed (signal 11)");
        let status = Command::new("sh").args(["-c", "exit 3"]).status().unwrap();
        assert!(ended(Backend::Vulkan, status).message.contains("exit status: 3"));
    }
}
