//! How much memory a device has, how much a model needs, and what to do where it does not fit.

use std::fs;

use serde::{Deserialize, Serialize};

/// The memory of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What nobody uses now; `None` where that is not known.
    pub free: Option<u64>,
    /// Swap space, which the system uses when the memory is full.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub swap: u64,
}

fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

impl Memory {
    /// The machine's RAM, or as much of it as the process's control group may use; `None` where the system does not
    /// tell.
    pub fn of_machine() -> Option<Self> {
        let machine = ram(&fs::read_to_string("/proc/meminfo").ok()?)?;
        let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
        let used = fs::read_to_string("/sys/fs/cgroup/memory.current").ok();
        Some(limited(machine, limit.as_deref(), used.as_deref()))
    }

    /// The memory of an AMD card at the PCI address `pci`, as its kernel driver tells.
    pub fn of_amd(pci: &str) -> Option<Self> {
        let read = |name: &str| -> Option<u64> {
            fs::read_to_string(format!("/sys/bus/pci/devices/{pci}/{name}")).ok()?.trim().parse().ok()
        };
        let total = read("mem_info_vram_total")?;
        Some(Self { total, free: read("mem_info_vram_used").map(|used| total.saturating_sub(used)), swap: 0 })
    }
}

/// Total and available RAM out of the text of `/proc/meminfo`.
fn ram(text: &str) -> Option<Memory> {
    let kilobytes = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    };
    let bytes = |name| kilobytes(name).map(|kilobytes| kilobytes * 1024);
    Some(Memory {
        total: bytes("MemTotal")?,
        free: bytes("MemAvailable"),
        swap: bytes("SwapTotal").unwrap_or_default(),
    })
}

/// `machine`, within the limit of a control group of which `used` is used.
fn limited(machine: Memory, limit: Option<&str>, used: Option<&str>) -> Memory {
    let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<u64>().ok());
    let Some(limit) = number(limit).filter(|limit| *limit < machine.total) else { return machine };
    let left = limit.saturating_sub(number(used).unwrap_or_default());
    Memory { total: limit, free: Some(machine.free.map_or(left, |free| free.min(left))), ..machine }
}

/// `14.5 GB`.
pub fn gigabytes(bytes: u64) -> String {
    let gigabytes = bytes as f64 / 1e9;
    if gigabytes < 0.95 { format!("{:.0} MB", (bytes as f64 / 1e6).max(1.0)) } else { format!("{gigabytes:.1} GB") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KB: u64 = 1024;

    #[test]
    fn ram_is_read_from_the_system_s_table() {
        let text = "MemTotal:       24684096 kB\nMemFree:  1 kB\nMemAvailable:   21947260 kB\nSwapTotal:  512 kB\n";
        let found = ram(text).unwrap();
        assert_eq!(found, Memory { total: 24_684_096 * KB, free: Some(21_947_260 * KB), swap: 512 * KB });
        assert_eq!(ram("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn a_control_group_limits_it() {
        let machine = Memory { total: 100, free: Some(60), swap: 5 };
        assert_eq!(limited(machine, Some("max\n"), Some("7\n")), machine);
        assert_eq!(limited(machine, Some("50\n"), Some("20\n")), Memory { total: 50, free: Some(30), swap: 5 });
        assert_eq!(limited(machine, Some("90\n"), Some("10\n")).free, Some(60));
        assert_eq!(limited(machine, Some("200\n"), None), machine);
        assert_eq!(limited(machine, None, None), machine);
    }

    #[test]
    fn sizes_are_written_in_one_unit() {
        assert_eq!(
            [0, 512_000_000, 949_000_000, 14_500_000_000].map(gigabytes),
            ["1 MB", "512 MB", "949 MB", "14.5 GB"]
        );
    }
}
