//! How much a cache holds.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use walkdir::WalkDir;

use super::{Store, StoreError};

/// A share of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// How many there are: objects, results, item functions, unfinished nodes, runs.
    pub count: usize,
    /// Their size in bytes.
    pub bytes: u64,
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// The content of results.
    pub objects: Share,
    /// Records of finished nodes.
    pub results: Share,
    /// Journals of finished items, by function.
    pub items: Share,
    /// Scratch of unfinished nodes.
    pub work: Share,
    /// Logs of runs.
    pub runs: Share,
    /// The index and the memo of file digests.
    pub other: Share,
}

impl Store {
    /// What the cache holds.
    ///
    /// # Errors
    /// When a part of it cannot be read.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        let share = |name: &str, depth: usize| share(&self.root().join(name), depth);
        let other = super::place::DERIVED.iter().try_fold(Share::default(), |sum, name| {
            let one = share(name, 0)?;
            Ok(Share { count: sum.count + one.count, bytes: sum.bytes + one.bytes })
        })?;
        Ok(Stats {
            objects: share("objects", 2)?,
            results: share("results", 1)?,
            items: share("items", 1)?,
            work: share("work", 1)?,
            runs: share("runs", 1)?,
            other,
        })
    }
}

/// The size of all files under `path`, and the number of entries at `depth`.
fn share(path: &Path, depth: usize) -> Result<Share, StoreError> {
    let mut share = Share::default();
    for entry in WalkDir::new(path) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let place = error.path().unwrap_or(path).to_owned();
                let cause = io::Error::from(error);
                // Never there, or gone since its directory was listed.
                if cause.kind() == io::ErrorKind::NotFound {
                    continue;
                }
                return Err(StoreError::io("read", &place)(cause));
            }
        };
        // The directory of temporary files is nobody's unfinished work.
        if entry.depth() == depth && entry.file_name() != "tmp" {
            share.count += 1;
        }
        if entry.file_type().is_file() {
            share.bytes += fs::metadata(entry.path()).map_or(0, |metadata| metadata.len());
        }
    }
    Ok(share)
}

impl Stats {
    fn shares(&self) -> [(&'static str, Share, &'static str); 6] {
        [
            ("objects", self.objects, "files of content"),
            ("results", self.results, "finished nodes"),
            ("items", self.items, "journals of finished items"),
            ("work", self.work, "unfinished nodes"),
            ("runs", self.runs, "logs of runs"),
            ("other", self.other, "index, file digests"),
        ]
    }

    /// The size of the whole, in bytes.
    pub fn bytes(&self) -> u64 {
        self.shares().iter().map(|(_, share, _)| share.bytes).sum()
    }
}

impl fmt::Display for Stats {
    /// A table: a line a share, and the sum.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, share, what) in self.shares() {
            writeln!(f, "{name:<8} {:>10} {:>9}  {what}", readable(share.bytes), share.count)?;
        }
        writeln!(f, "{:<8} {:>10}", "total", readable(self.bytes()))
    }
}

/// `bytes` in the largest unit that leaves a number above one.
pub fn readable(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (0..UNITS.len() - 1).take_while(|power| bytes >> (10 * (power + 1)) > 0).count();
    let value = bytes as f64 / (1u64 << (10 * power)) as f64;
    if power == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[power]) }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{example, publish};
    use super::*;

    #[test]
    fn stats_count_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.stats().unwrap(), Stats::default());
        publish(&store, &example(&store, "a", "one"));
        publish(&store, &example(&store, "b", "three"));
        drop(store.begin_run().unwrap());
        let stats = store.stats().unwrap();
        assert_eq!(stats.objects, Share { count: 2, bytes: 8 });
        assert_eq!((stats.results.count, stats.runs.count, stats.work.count), (2, 1, 0));
        assert!(stats.to_string().contains("finished nodes"));
    }

    #[test]
    fn sizes_are_written_in_their_unit() {
        assert_eq!([0, 1023, 1024, 1536, 14 << 30].map(readable), ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "14.0 GiB"]);
    }
}
