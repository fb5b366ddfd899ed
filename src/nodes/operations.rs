//! The parameter `operations`: corruptions of pictures and their weights.

use std::ops::Bound::{self, Excluded, Included};

use crate::data::corrupt::{Jitter, Operation, Weighted};
use stic_engine::digest::Value;
use stic_engine::parameters;
use stic_engine::spec::Reader;
use stic_engine::spec::parameter::{Class, Declaration, Fallback, Form, Parameters, Setting, integer, number};

/// What the parameter expects.
const EXPECTED: &str = "a list of operations such as `[{ op = \"low_resolution\", size = 20 }]`";

/// The parameter; at least one of the operations has a weight.
pub fn setting() -> Setting<Vec<Weighted>> {
    let operations = OPERATIONS.iter().map(|operation| (operation.form)()).collect();
    let operation = Form::Any { what: "an operation", forms: operations };
    let list = Form::List { of: Box::new(operation), least: 1, most: None, distinct: false };
    let form = Form::Any { what: EXPECTED, forms: vec![list] };
    Setting::new(form, |table, _| read(table), |operations| Some(key_value(operations))).selection()
}

fn key_value(operations: &[Weighted]) -> Value {
    let one = |Weighted { operation, weight }: &Weighted| {
        let mut fields = operation.fields();
        if *weight != 1.0 {
            fields.insert("weight".to_owned(), (*weight).into());
        }
        Value::Table(fields)
    };
    Value::List(operations.iter().map(one).collect())
}

fn read(table: &mut Reader<'_>) -> Option<Vec<Weighted>> {
    let before = table.mistakes();
    let mut operations = Vec::new();
    for mut table in table.tables("operations") {
        let Some(declared) = table.required_choice("op", &OPERATIONS.map(|operation| (operation.name, operation)))
        else {
            // The keys of an unknown operation are unknown, too.
            table.remaining_keys();
            continue;
        };
        let weight = Weight::read(&mut table).map_or(1.0, |Weight { weight }| weight);
        operations.extend((declared.read)(&mut table).map(|operation| Weighted { operation, weight }));
    }
    if table.mistakes() > before {
        return None;
    }
    if table.has("operations") && operations.iter().all(|operation| operation.weight == 0.0) {
        let help =
            "write `operations = [{ op = \"low_resolution\", size = 20 }]`, with a `weight` each if there are several";
        table.reject(
            "operations",
            "`operations` has nothing to draw from",
            "expected an operation with a weight above 0",
            Some(help.to_owned()),
        );
        return None;
    }
    Some(operations)
}

/// A declared operation.
#[derive(Clone, Copy)]
struct Declared {
    name: &'static str,
    form: fn() -> Form,
    read: fn(&mut Reader<'_>) -> Option<Operation>,
}

const OPERATIONS: [Declared; 6] = [
    Declared {
        name: "low_resolution",
        form: || form::<LowResolution>("low_resolution"),
        read: |table| LowResolution::read(table).map(|LowResolution { size }| Operation::LowResolution { size }),
    },
    Declared { name: "color_jitter", form: || form::<ColorJitter>("color_jitter"), read: read_jitter },
    Declared { name: "gaussian_blur", form: || form::<GaussianBlur>("gaussian_blur"), read: read_blur },
    Declared {
        name: "noise",
        form: || form::<Noise>("noise"),
        read: |table| Noise::read(table).map(|Noise { sigma }| Operation::Noise { sigma }),
    },
    Declared { name: "greyscale", form: || form::<Greyscale>("greyscale"), read: |_| Some(Operation::Greyscale) },
    Declared {
        name: "crop",
        form: || form::<Crop>("crop"),
        read: |table| Crop::read(table).map(|Crop { scale, ratio }| Operation::Crop { scale, ratio }),
    },
];

/// The table of the operation `name` with the parameters `T`.
fn form<T: Parameters>(name: &'static str) -> Form {
    let op = Declaration {
        name: "op",
        form: Form::Choice(vec![name]),
        fallback: Fallback::Required,
        class: Class::Selection,
        help: "The operation",
    };
    Form::Table { keys: [vec![op], T::declared(), Weight::declared()].concat(), rest: None }
}

parameters! {
    /// The parameters of every operation.
    struct Weight {
        /// How often the operation is drawn, relative to the other weights
        weight: f64 = number(0.0..).default(1.0),
    }
}

parameters! {
    /// Of [`Operation::LowResolution`].
    struct LowResolution {
        /// The shorter side in pixels (20 in the published code)
        size: u32 = integer(1..=10_000),
    }
}

parameters! {
    /// Of [`Operation::ColorJitter`].
    struct ColorJitter {
        /// Factors: from 1 - value to 1 + value, or [low, high] (torchvision's ColorJitter)
        brightness: Option<[f64; 2]> = factor().optional("unchanged"),
        /// As `brightness`; 0 is the mean gray
        contrast: Option<[f64; 2]> = factor().optional("unchanged"),
        /// As `brightness`; 0 is gray
        saturation: Option<[f64; 2]> = factor().optional("unchanged"),
        /// Shift of the hue in full turns: from -value to value, or [low, high]
        hue: Option<[f64; 2]> = Setting::new(one_or_two((Included(0.0), Included(0.5)), (-0.5, 0.5)), read_hue, range)
            .optional("unchanged"),
    }
}

parameters! {
    /// Of [`Operation::GaussianBlur`].
    struct GaussianBlur {
        /// Standard deviation in pixels, or [low, high] (torchvision's GaussianBlur)
        sigma: [f64; 2] = positive(1000.0),
        /// Kernel size in pixels, odd
        kernel_size: Option<u32> = integer(1..=6001).optional("three standard deviations to each side"),
    }
}

parameters! {
    /// Of [`Operation::Noise`].
    struct Noise {
        /// Standard deviation as a fraction of the full range, or [low, high] (torchvision's GaussianNoise)
        sigma: [f64; 2] = positive(10.0),
    }
}

parameters! {
    /// Of [`Operation::Greyscale`].
    struct Greyscale {}
}

parameters! {
    /// Of [`Operation::Crop`].
    struct Crop {
        /// Fraction of the area to keep, or [low, high] (torchvision's RandomResizedCrop)
        scale: [f64; 2] = positive(1.0).default([0.08, 1.0]),
        /// Aspect ratio (width / height), or [low, high] (torchvision's RandomResizedCrop)
        ratio: [f64; 2] = positive(100.0).default([3.0 / 4.0, 4.0 / 3.0]),
    }
}

fn one_or_two(one: (Bound<f64>, Bound<f64>), (low, high): (f64, f64)) -> Form {
    let each = Form::Number { low: if low == 0.0 { one.0 } else { Included(low) }, high: Included(high) };
    let two = Form::List { of: Box::new(each), least: 2, most: Some(2), distinct: false };
    Form::Any { what: "a number or `[low, high]`", forms: vec![Form::Number { low: one.0, high: one.1 }, two] }
}

fn range(range: &[f64; 2]) -> Option<Value> {
    Some(range.to_vec().into())
}

/// `value` or `[low, high]` under `key`.
fn interval(table: &mut Reader<'_>, key: &str, from: f64, to: f64) -> Option<[f64; 2]> {
    if !table.is_list(key) {
        return table.optional_number(key, from..=to).map(|value| [value, value]);
    }
    let [low, high] = table.optional::<[f64; 2]>(key)?;
    if from <= low && low <= high && high <= to {
        return Some([low, high]);
    }
    let message = format!("`{key}` is out of range");
    table.reject(key, message, format!("expected two numbers from {from} to {to} in ascending order"), None);
    None
}

/// `value` around 1, no lower than 0, or `[low, high]`.
fn factor() -> Setting<[f64; 2]> {
    let read = |table: &mut Reader<'_>, key: &str| {
        let [low, high] = interval(table, key, 0.0, 100.0)?;
        Some(if table.is_list(key) { [low, high] } else { [(1.0 - low).max(0.0), 1.0 + low] })
    };
    Setting::new(one_or_two((Included(0.0), Included(100.0)), (0.0, 100.0)), read, range)
}

fn read_hue(table: &mut Reader<'_>, key: &str) -> Option<[f64; 2]> {
    if table.is_list(key) {
        return interval(table, key, -0.5, 0.5);
    }
    interval(table, key, 0.0, 0.5).map(|[hue, _]| [-hue, hue])
}

/// `value` or `[low, high]`, above 0 and at most `to`.
fn positive(to: f64) -> Setting<[f64; 2]> {
    let read = move |table: &mut Reader<'_>, key: &str| {
        if !table.is_list(key) {
            return table.optional_number(key, (Excluded(0.0), Included(to))).map(|value| [value, value]);
        }
        let range = interval(table, key, 0.0, to)?;
        if range[0] > 0.0 {
            return Some(range);
        }
        table.reject(key, format!("`{key}` is out of range"), "expected numbers above 0", None);
        None
    };
    Setting::new(one_or_two((Excluded(0.0), Included(to)), (0.0, to)), read, range)
}

fn read_blur(table: &mut Reader<'_>) -> Option<Operation> {
    let GaussianBlur { sigma, kernel_size } = GaussianBlur::read(table)?;
    // Beyond three standard deviations a Gaussian contributes less than half a level of 255.
    let kernel_size = kernel_size.unwrap_or(2 * (3.0 * sigma[1]).ceil() as u32 + 1);
    if kernel_size.is_multiple_of(2) {
        let label = "expected an odd number: a pixel and its neighbors on both sides";
        table.reject("kernel_size", "`kernel_size` is even", label, None);
        return None;
    }
    Some(Operation::GaussianBlur { sigma, kernel_size })
}

fn read_jitter(table: &mut Reader<'_>) -> Option<Operation> {
    let before = table.mistakes();
    let ColorJitter { brightness, contrast, saturation, hue } = ColorJitter::read(table)?;
    let unless = |range: Option<[f64; 2]>, unchanged| range.filter(|range| *range != [unchanged, unchanged]);
    let jitter = Jitter {
        brightness: unless(brightness, 1.0),
        contrast: unless(contrast, 1.0),
        saturation: unless(saturation, 1.0),
        hue: unless(hue, 0.0),
    };
    if table.mistakes() > before {
        return None;
    }
    if jitter == Jitter::default() {
        table.reject(
            "op",
            "`color_jitter` changes nothing",
            "give `brightness`, `contrast`, `saturation` or `hue`",
            None,
        );
        return None;
    }
    Some(Operation::ColorJitter(jitter))
}
