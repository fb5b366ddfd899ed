//! The choice of a device, on machines that are made up.

use super::*;
use crate::device::{Backend, DeviceRequest};

/// A machine: of each backend that is compiled in, what is there, or why there is nothing.
#[derive(Default)]
struct Toy(Vec<(Backend, Result<Vec<DeviceReport>, Problem>)>);

fn device(name: &str) -> DeviceReport {
    DeviceReport {
        index: 0,
        name: name.to_owned(),
        software: false,
        precisions: vec![Precision::F32, Precision::F16],
        memory: None,
        kernels: Backend::Cpu,
        place: name.to_owned(),
        problem: None,
    }
}

fn software(name: &str) -> DeviceReport {
    DeviceReport { software: true, ..device(name) }
}

fn broken(name: &str, why: &str) -> DeviceReport {
    DeviceReport { problem: Some(Problem::new(why)), precisions: Vec::new(), ..device(name) }
}

impl Toy {
    fn with(mut self, backend: Backend, devices: Vec<DeviceReport>) -> Self {
        self.0.push((backend, Ok(devices)));
        self
    }

    fn of(&self, backend: Backend) -> Option<&Result<Vec<DeviceReport>, Problem>> {
        self.0.iter().find(|(known, _)| *known == backend).map(|(_, found)| found)
    }
}

impl Probe for Toy {
    fn is_compiled(&self, backend: Backend) -> bool {
        backend == Backend::Cpu || self.of(backend).is_some()
    }

    fn list(&self, backend: Backend) -> Result<Vec<Listed>, Problem> {
        match self.of(backend) {
            None => Ok(vec![Listed { name: "processor".to_owned(), software: false }]),
            Some(found) => Ok(found
                .clone()?
                .into_iter()
                .map(|device| Listed { name: device.name, software: device.software })
                .collect()),
        }
    }

    fn try_out(&self, backend: Backend, index: usize) -> DeviceReport {
        let found = self.of(backend).map(|found| found.clone().unwrap()[index].clone());
        let found = found.unwrap_or_else(|| DeviceReport { kernels: Backend::Cpu, ..device("processor") });
        assert!(!found.software, "a software renderer may crash the process");
        DeviceReport { index, kernels: backend, ..found }
    }

    fn hidden(&self, backend: Backend) -> Option<String> {
        (backend == Backend::Cuda).then(|| "CUDA_VISIBLE_DEVICES is `0,1`".to_owned())
    }
}

fn ask(backend: Option<Backend>, index: usize, precision: Option<Precision>) -> DeviceRequest {
    DeviceRequest { backend, index, precision }
}

#[test]
fn auto_takes_the_first_that_works_and_says_what_it_passed_over() {
    let machine = Toy::default()
        .with(Backend::Vulkan, vec![broken("old card", "its driver does not compile a kernel"), device("card")])
        .with(Backend::Webgpu, vec![device("card")]);
    let chosen = choose(ask(None, 0, None), &machine).unwrap();
    assert_eq!((chosen.choice.to_string().as_str(), chosen.choice.precision), ("vulkan:1", Precision::F16));
    assert_eq!(chosen.passed_over, ["vulkan:0 (is unusable: its driver does not compile a kernel)"]);
    assert_eq!(chosen.numerics(), "vulkan-f16");
}

#[test]
fn auto_takes_the_processor_without_using_a_software_renderer() {
    let mut machine = Toy::default().with(Backend::Vulkan, vec![software("llvmpipe")]);
    machine.0.push((Backend::Cuda, Err(Problem::new("no NVIDIA driver"))));
    let chosen = choose(ask(None, 0, None), &machine).unwrap();
    assert_eq!((chosen.choice.backend, chosen.choice.precision), (Backend::Cpu, Precision::F32));
    assert_eq!(chosen.passed_over, ["cuda (no NVIDIA driver)", "vulkan:0 (llvmpipe)"]);
}

#[test]
fn auto_passes_over_devices_that_lack_the_dtype() {
    let mut card = device("card");
    card.precisions.push(Precision::Bf16);
    let machine = Toy::default().with(Backend::Rocm, vec![device("old card")]).with(Backend::Vulkan, vec![card]);
    let chosen = choose(ask(None, 0, Some(Precision::Bf16)), &machine).unwrap();
    assert_eq!(chosen.numerics(), "vulkan-bf16");
    assert_eq!(chosen.passed_over, ["rocm:0 (does not compute in `bf16`)"]);
    let error = choose(ask(None, 0, Some(Precision::Bf16)), &Toy::default()).unwrap_err();
    assert_eq!(error.message, "no usable device for `bf16` on this machine: cpu (does not compute in `bf16`)");
}

#[test]
fn what_cannot_be_had_is_an_error_with_the_remedy() {
    let mut machine = Toy::default()
        .with(Backend::Cuda, vec![device("NVIDIA H200"), device("NVIDIA L4")])
        .with(Backend::Vulkan, vec![broken("card", "its memory is full")]);
    machine.0.push((Backend::Rocm, Err(Problem::new("no AMD GPU").help("install ROCm"))));
    let cases = [
        ask(Some(Backend::Metal), 0, None),
        ask(Some(Backend::Cuda), 7, None),
        ask(Some(Backend::Cuda), 1, Some(Precision::Bf16)),
        ask(Some(Backend::Rocm), 0, None),
        ask(Some(Backend::Vulkan), 0, None),
        ask(Some(Backend::Cpu), 3, None),
    ];
    let said = cases.map(|request| {
        let error = choose(request, &machine).unwrap_err();
        format!("{}\n  help: {}", error.message, error.help.unwrap_or_default())
    });
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn kernels_of_another_backend_are_another_numerics_class() {
    let chosen = choose(ask(Some(Backend::Cpu), 0, None), &Toy::default()).unwrap();
    let device = DeviceReport { kernels: Backend::Vulkan, ..chosen.device.clone() };
    let webgpu = Chosen { device, ..chosen };
    assert_eq!(webgpu.numerics(), "vulkan-f32");
}

#[test]
fn the_processor_of_this_machine_is_found() {
    let chosen = choose(ask(Some(Backend::Cpu), 0, None), &ThisMachine).unwrap();
    assert_eq!((chosen.choice.backend, chosen.choice.precision), (Backend::Cpu, Precision::F32));
    assert_eq!(open(chosen.choice).unwrap().1, DType::F32);
    let reports = backends(&ThisMachine);
    assert_eq!(reports.len(), Backend::ALL.len());
    let cpu = reports.last().unwrap();
    assert!(cpu.compiled && cpu.devices[0].problem.is_none());
    let none = DeviceChoice { index: 9, ..chosen.choice };
    assert_eq!(open(none).unwrap_err().message, "no device `cpu:9` on this machine");
}

#[test]
fn a_full_or_lost_device_is_an_error_of_the_environment_and_another_panic_goes_on() {
    let cuda = DeviceChoice { backend: Backend::Cuda, index: 1, precision: Precision::Bf16 };
    let error = computing(cuda, || panic!("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")")).unwrap_err();
    assert_eq!((error.message.as_str(), error.environment), ("the memory of `cuda:1` is full", true));
    assert!(error.help.unwrap().contains("`batch_size`"));
    let error = computing(cuda, || panic!("wgpu: Device is lost\nmore")).unwrap_err();
    assert_eq!(error.message, "the device `cuda:1` was lost: wgpu: Device is lost");
    assert_eq!(computing(cuda, || 7), Ok(7));
    let other = catch_unwind(|| computing(cuda, || panic!("index out of bounds")));
    assert_eq!(*other.unwrap_err().downcast_ref::<&str>().unwrap(), "index out of bounds");
}

#[test]
fn the_processor_is_never_locked() {
    let cpu = DeviceChoice { backend: Backend::Cpu, index: 0, precision: Precision::F32 };
    assert!(take(cpu, &mut |_| panic!("nobody has it")));
}
