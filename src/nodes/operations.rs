//! `operations` as a parameter: the corruptions that pictures may get, and how often.

use std::ops::Bound::{Excluded, Included};

use crate::data::corrupt::{Jitter, Operation, Weighted};
use crate::spec::Reader;

const OPERATIONS: [&str; 6] = ["low_resolution", "color_jitter", "gaussian_blur", "noise", "greyscale", "crop"];

/// Reads `operations`; what is wrong with them is reported.
pub fn read_operations(table: &mut Reader<'_>) -> Vec<Weighted> {
    let before = table.mistakes();
    let mut operations = Vec::new();
    for mut table in table.tables("operations") {
        let weight = table.number("weight", 1.0, 0.0..);
        operations.extend(read_operation(&mut table).map(|operation| Weighted { operation, weight }));
    }
    if table.mistakes() == before && operations.iter().all(|operation| operation.weight == 0.0) {
        let missing = !table.has("operations");
        let message = if missing { "`operations` is missing" } else { "`operations` has nothing to draw" };
        let help =
            "write `operations = [{ op = \"low_resolution\", size = 20 }]`, with a `weight` each if there are several";
        table.reject("operations", message, "expected an operation with a weight above 0", Some(help.to_owned()));
    }
    operations
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
    table.reject(
        key,
        message,
        format!("expected two numbers from {from} to {to}, the first not above the second"),
        None,
    );
    None
}

/// `value` around 1, no lower than 0, or `[low, high]`, under `key`. `None` where it changes nothing.
fn factor(table: &mut Reader<'_>, key: &str) -> Option<[f64; 2]> {
    let [low, high] = interval(table, key, 0.0, 100.0)?;
    let range = if table.is_list(key) { [low, high] } else { [(1.0 - low).max(0.0), 1.0 + low] };
    (range != [1.0, 1.0]).then_some(range)
}

fn read_operation(table: &mut Reader<'_>) -> Option<Operation> {
    let Some(op) = table.required_choice("op", &OPERATIONS.map(|name| (name, name))) else {
        // Of an unknown operation nobody can say which keys it has.
        table.remaining_keys();
        return None;
    };
    match op {
        "low_resolution" => {
            table.required_integer("size", 1..=10_000).map(|size| Operation::LowResolution { size: size as u32 })
        }
        "color_jitter" => read_jitter(table),
        "gaussian_blur" => {
            let sigma = positive_interval(table, "sigma", 1000.0, None);
            // Three deviations to each side, beyond which a Gaussian has less than half a level of 255.
            let default = sigma.map_or(1, |[_, high]| 2 * (3.0 * high).ceil() as u64 + 1);
            let kernel_size = table.integer("kernel_size", default, 1..=6001);
            if kernel_size.is_multiple_of(2) {
                table.reject(
                    "kernel_size",
                    "`kernel_size` is even",
                    "expected an odd number: a pixel and its neighbours on both sides",
                    None,
                );
                return None;
            }
            sigma.map(|sigma| Operation::GaussianBlur { sigma, kernel_size: kernel_size as u32 })
        }
        "noise" => positive_interval(table, "sigma", 10.0, None).map(|sigma| Operation::Noise { sigma }),
        "greyscale" => Some(Operation::Greyscale),
        _ => {
            // torchvision's defaults.
            let scale = positive_interval(table, "scale", 1.0, Some([0.08, 1.0]));
            let ratio = positive_interval(table, "ratio", 100.0, Some([3.0 / 4.0, 4.0 / 3.0]));
            Some(Operation::Crop { scale: scale?, ratio: ratio? })
        }
    }
}

fn positive_interval(table: &mut Reader<'_>, key: &str, to: f64, default: Option<[f64; 2]>) -> Option<[f64; 2]> {
    if !table.is_list(key) {
        let range = (Excluded(0.0), Included(to));
        let value =
            if default.is_none() { table.required_number(key, range) } else { table.optional_number(key, range) };
        return value.map(|value| [value, value]).or(default);
    }
    let range = interval(table, key, 0.0, to)?;
    if range[0] > 0.0 {
        return Some(range);
    }
    table.reject(key, format!("`{key}` is out of range"), "expected numbers above 0", None);
    None
}

fn read_jitter(table: &mut Reader<'_>) -> Option<Operation> {
    let before = table.mistakes();
    let [brightness, contrast, saturation] = ["brightness", "contrast", "saturation"].map(|key| factor(table, key));
    let hue = if table.is_list("hue") {
        interval(table, "hue", -0.5, 0.5)
    } else {
        interval(table, "hue", 0.0, 0.5).map(|[hue, _]| [-hue, hue])
    };
    let jitter = Jitter { brightness, contrast, saturation, hue: hue.filter(|hue| *hue != [0.0, 0.0]) };
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
