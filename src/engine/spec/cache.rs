//! `[cache]`, and sizes as they are written.

use super::Reader;
use super::declaration::Form;
use super::parameter::Setting;

crate::parameters! {
    /// `[cache]`.
    pub struct CacheTable {
        /// Size of the cache above which the least recently used results are removed after a run
        max_size: Option<u64> = size().optional("no limit").execution(),
    }
}

/// The size in bytes that `text` is: a number and a unit.
pub fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit {
        "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    let is_plain = number.starts_with(|c: char| c.is_ascii_digit()) && number.ends_with(|c: char| c.is_ascii_digit());
    let number: f64 = number.parse().ok().filter(|_| is_plain)?;
    Some((number * factor as f64) as u64)
}

fn size() -> Setting<u64> {
    let form = Form::Pattern { regex: r"^[0-9]+(\.[0-9]+)?(B|[KMGT]i?B)$".to_owned(), like: "20GiB" };
    Setting::new(form, read_size, |_| None)
}

fn read_size(table: &mut Reader<'_>, key: &str) -> Option<u64> {
    let written: String = table.optional(key)?;
    let size = bytes(&written);
    if size.is_none() {
        let help = "write a number and a unit, such as `20GiB` or `500MB`".to_owned();
        table.reject(key, format!("`{written}` is not a size"), "expected a size such as `20GiB`", Some(help));
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_number_and_a_unit() {
        let sizes = ["20GiB", "1.5KiB", "500MB", "0B"].map(bytes);
        assert_eq!(sizes, [Some(20 << 30), Some(1536), Some(500_000_000), Some(0)]);
        let wrong = ["", "20", "GiB", "1.2.3GB", "-1GB", "1QB", "1 GB", "1.GB", ".5GB", "1gb", "1e3B"];
        assert!(wrong.iter().all(|text| bytes(text).is_none()));
    }
}
