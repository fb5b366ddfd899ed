//! What `cache` takes, and sizes and ages as they are written.

use std::time::Duration;

use clap::{Args, Subcommand};
use stic_engine::spec::bytes;

/// What `cache` takes.
#[derive(Args, Debug)]
pub struct Cache {
    /// The action.
    #[command(subcommand)]
    pub command: CacheCommand,
}

/// The actions of `cache`.
#[derive(Subcommand, Debug)]
pub enum CacheCommand {
    /// Show how much the cache holds, by kind of node and by pipeline, and how much of it nothing needs
    Stats {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Remove what nothing needs, and the least recently used results if asked. Results that a run in progress uses and
    /// those of frozen nodes stay
    Gc(Gc),
    /// Check the content of every file in the cache, and remove what is damaged: it is computed again when needed
    Verify {
        /// Remove nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// What `cache gc` takes.
#[derive(Args, Debug)]
pub struct Gc {
    /// Remove the least recently used results until the cache is no larger, such as `20GiB`
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_size: Option<u64>,
    /// Remove results that were not used for so long, such as `30d`, `12h` or `4w`
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub older_than: Option<Duration>,
    /// Keep the results that the last N runs of every pipeline used
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub keep_runs: usize,
    /// Only show what would be removed
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// A size in bytes, as it is written; 0 needs no unit.
pub fn size(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    bytes(text).ok_or_else(|| "expected a size with its unit, such as 20GiB or 500MB".to_owned())
}

/// A time span, as it is written: a whole number and a unit.
fn age(text: &str) -> Result<Duration, String> {
    let expected =
        || "expected a whole number and a unit: m(inutes), h(ours), d(ays) or w(eeks), such as 30d".to_owned();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?);
    let seconds: u64 = match unit {
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_have_units() {
        assert_eq!([size("20GiB"), size("0")], [Ok(20 << 30), Ok(0)]);
        assert!(["", "20", "GiB", "1Q"].iter().all(|text| size(text).is_err()));
        assert_eq!([age("30d"), age("2w")], [30, 14].map(|days| Ok(Duration::from_secs(days * 86_400))));
        assert!(["", "30", "d", "-1d", "1.5d", "1y", "99999999999999999999w"].iter().all(|text| age(text).is_err()));
    }
}
