//! The cache directory, and its only writer.
//!
//! ```text
//! cache/
//!   layout                        the number of this layout; written last when a cache is made
//!   objects/ab/cdef…              content, one file a blob, named by its BLAKE3
//!   results/<key>.json            one record a finished node, written last
//!   index.added, index.sorted     derived from results/: what plans need of every record
//!   items/<function key>/*.jsonl  journals of finished items, a file for every process that adds some, and how far
//!                                 each of them counts once its items were used
//!   files                         digests of files outside the cache, by inode and times
//!   work/<key>/                   an unfinished node's claim and scratch, and its record before it is published
//!   runs/<id>/                    events.jsonl, summary.json; while it is in progress: lease
//! ```
//!
//! Everything else can be recomputed from `objects/`, `results/` and `items/`. Four rules make the directory safe to
//! kill, to copy and to share:
//!
//! - A file gets its name when it is complete: temporary file, fsync, rename; directories are synced every five seconds and
//!   at the end of a run ([`Store::sync_names`]). What grows line by line (journals, index, memo) carries a checksum a
//!   line.
//! - Content first, the record that names it last. Existence proves nothing: an object is digested when
//!   it is read, and one that does not match is removed and counts as missing. So a record whose objects were lost with
//!   the power costs making them again.
//! - A key is claimed before it is worked on ([`Claim`]); a record is never replaced by another content unasked, nor
//!   by a process that has lost its claim.
//! - Only what is not found is absent. Any other error is propagated, and nothing is removed because of it.

mod census;
mod checked;
mod checkpoints;
mod claim;
mod disk;
mod entry;
mod error;
mod files;
mod gc;
mod index;
mod journal;
mod lease;
mod objects;
mod place;
mod record;
mod runs;
mod scratch;
mod stats;
mod verify;

pub use census::{Holder, Holders};
pub use checkpoints::StoredCheckpoints;
pub use claim::{Claim, Claiming, Owner};
pub use disk::{Access, Disk};
pub use entry::Entry;
pub use error::StoreError;
pub use files::{FileStamp, SeenFiles, Witness};
pub use gc::{Evicted, Eviction};
pub use index::Found;
pub use journal::{Items, Journal};
pub use place::is_cache;
pub use record::{Provenance, Publication, Record, StoredObject};
pub use runs::RunLog;
pub use scratch::Scratch;
pub use stats::{Share, Stats, readable};
pub use verify::{Incomplete, Verified};

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::digest::Digest;

/// The number of the layout that this version reads and writes.
pub const LAYOUT: u32 = 1;

/// The age after which a half-written file counts as abandoned.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// A cache directory.
pub struct Store {
    root: PathBuf,
    /// `results/` and `objects/` in it.
    results: PathBuf,
    objects: PathBuf,
    disk: Disk,
    /// Whether anything may be written.
    writes: bool,
    /// Objects whose content was found to be right in this process.
    verified: Mutex<HashSet<Digest>>,
    /// Objects whose content was found to be wrong in this process: removed, where it may write.
    damaged: Mutex<HashSet<Digest>>,
    index: Mutex<Option<index::Index>>,
    files: files::Files,
    names: NewNames,
    /// Claims of others, by what they say: the heartbeat that was last seen of them, and until when it is believed.
    heartbeats: Mutex<HashMap<Vec<u8>, (SystemTime, Instant)>>,
}

impl Store {
    /// Opens the cache in `root` for reading and writing, and makes it when there is none. Only a directory that this
    /// program made, or that holds nothing, is taken for a cache.
    ///
    /// # Errors
    /// When `root` is not a directory, cannot be read or made, holds something else, or has the layout of another
    /// version.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_on(Disk::default(), root)
    }

    /// As [`Store::open`], on a given disk.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(disk: Disk, root: &Path) -> Result<Self, StoreError> {
        let store = Self::at(disk, root, true);
        store.settle()?;
        Ok(store)
    }

    /// Opens the cache in `root` for reading: nothing is written and no directory is made. One that is absent or holds
    /// nothing is an empty cache.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_for_reading(root: &Path) -> Result<Self, StoreError> {
        Self::open_for_reading_on(Disk::default(), root)
    }

    /// As [`Store::open_for_reading`], on a given disk.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_for_reading_on(disk: Disk, root: &Path) -> Result<Self, StoreError> {
        let store = Self::at(disk, root, false);
        store.inspect()?;
        Ok(store)
    }

    fn at(disk: Disk, root: &Path, writes: bool) -> Self {
        Self {
            root: root.to_owned(),
            results: root.join("results"),
            objects: root.join("objects"),
            disk,
            writes,
            verified: Mutex::default(),
            damaged: Mutex::default(),
            index: Mutex::default(),
            files: files::Files::new(root.join("files"), writes),
            names: NewNames::default(),
            heartbeats: Mutex::default(),
        }
    }

    /// The cache directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes sure that the cache can be written to, and sweeps what killed processes left: files half written a day
    /// ago, claims of the dead, and scratch whose result is published or that holds nothing. Unfinished work stays.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn prepare(&self) -> Result<(), StoreError> {
        self.may_write()?;
        // An obstacle to storing the result is reported before the work on it, not after.
        for name in ["objects", "results", "items", "runs"] {
            self.make_folder(&self.root.join(name))?;
        }
        let temporary = self.temporary_folder();
        self.make_folder(&temporary)?;
        let now = self.clock()?;
        for (folder, prefix) in [(&temporary, ""), (&self.root, place::TEMPORARY)] {
            let ours = |name: &&String| prefix.is_empty() || name.strip_prefix(prefix).is_some_and(is_unique);
            for name in self.disk.names(folder)?.iter().filter(ours) {
                let path = folder.join(name);
                let modified = self.disk.look(&path)?.and_then(|metadata| metadata.modified().ok());
                if modified.and_then(|time| now.duration_since(time).ok()).is_some_and(|age| age > ABANDONED) {
                    self.disk.remove(&path)?;
                }
            }
        }
        // That of earlier versions is of no use to this one.
        self.disk.remove(&self.root.join(index::EARLIER))?;
        for key in self.unfinished()? {
            if let Claiming::Held(claim) = self.claim(&key)? {
                // What cannot be swept stays, and does no harm.
                let _ = self.sweep(&claim);
            }
        }
        Ok(())
    }

    /// Makes sure that the cache still exists. One that is removed, or moved, while it is used is not recreated: what
    /// is written into the rest of it would be lost, and the directory be no cache.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when it is not; others when that cannot be determined.
    pub fn check_there(&self) -> Result<(), StoreError> {
        let layout = self.disk.look(&self.root.join("layout"))?;
        layout.map(|_| ()).ok_or_else(|| StoreError::Gone { path: self.root.clone() })
    }

    /// Makes a directory of the cache, durably, with those above it.
    fn make_folder(&self, folder: &Path) -> Result<(), StoreError> {
        if !matches!(self.disk.look(folder), Ok(Some(metadata)) if metadata.is_dir()) {
            self.check_there()?;
        }
        self.disk.make_folder(folder, true)
    }

    /// As [`Store::make_folder`], for what need not outlive a loss of power.
    fn make_passing_folder(&self, folder: &Path) -> Result<(), StoreError> {
        if !matches!(self.disk.look(folder), Ok(Some(metadata)) if metadata.is_dir()) {
            self.check_there()?;
        }
        self.disk.make_folder(folder, false)
    }

    /// The keys that have a directory under `work/`.
    fn unfinished(&self) -> Result<Vec<Digest>, StoreError> {
        let names = self.disk.names(&self.root.join("work"))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Refuses to write to a cache that was opened for reading.
    fn may_write(&self) -> Result<(), StoreError> {
        if self.writes { Ok(()) } else { Err(StoreError::OpenedForReading { path: self.root.clone() }) }
    }

    /// Now, by the clock of the file system, which machines that share a cache have in common.
    fn clock(&self) -> Result<SystemTime, StoreError> {
        let path = self.write_temporary(b"", 0o644, false)?;
        let metadata = self.disk.look(&path);
        let _ = self.disk.remove(&path);
        let modified = metadata?.ok_or_else(|| io::ErrorKind::NotFound.into()).and_then(|found| found.modified());
        modified.map_err(StoreError::io("read", &path))
    }

    fn temporary_folder(&self) -> PathBuf {
        self.root.join("work").join("tmp")
    }

    /// A complete file with a unique name, to be moved into place by the caller; durable, if it is to outlive more
    /// than this process.
    fn write_temporary(&self, content: &[u8], mode: u32, durable: bool) -> Result<PathBuf, StoreError> {
        self.write_temporary_by(mode, durable, |out| out.write_all(content))
    }

    /// As [`Store::write_temporary`], with what `write` writes.
    fn write_temporary_by(
        &self,
        mode: u32,
        durable: bool,
        write: impl Fn(&mut dyn Write) -> io::Result<()>,
    ) -> Result<PathBuf, StoreError> {
        self.may_write()?;
        let path = self.temporary_folder().join(unique());
        match self.disk.create_by(&path, mode, durable, &write) {
            Err(error) if error.is(io::ErrorKind::NotFound) => {
                self.make_passing_folder(&self.temporary_folder())?;
                self.disk.create_by(&path, mode, durable, &write)?;
            }
            created => created?,
        }
        Ok(path)
    }

    /// Writes `path` atomically, completely or not at all, with what `write` writes.
    fn write_by(
        &self,
        path: &Path,
        mode: u32,
        write: impl Fn(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let temporary = self.write_temporary_by(mode, true, write)?;
        let folder = path.parent().unwrap_or(&self.root);
        let placed = self.make_passing_folder(folder).and_then(|()| self.disk.rename(&temporary, path));
        match placed {
            // That of the directory, too: it may be new.
            Ok(()) => folder.ancestors().take(2).for_each(|folder| self.names.added(folder)),
            Err(_) => drop(self.disk.remove(&temporary)),
        }
        placed
    }

    /// Makes the names of what was placed durable. Without `now` only when the last time is a while ago: a thousand
    /// trivial nodes a second need not wait for the disk a thousand times, and a loss of power costs five seconds of work, as it does with the
    /// items of a journal.
    ///
    /// # Errors
    /// When they cannot be; then they are tried again the next time.
    pub fn sync_names(&self, now: bool) -> Result<(), StoreError> {
        let folders = self.names.take(now);
        for folder in &folders {
            if let Err(error) = self.disk.sync_folder(folder) {
                // One that is gone has no names.
                if !error.is(io::ErrorKind::NotFound) {
                    folders.iter().for_each(|folder| self.names.added(folder));
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// How long the names of what was placed may stay in memory alone.
const SYNC_NAMES_EVERY: Duration = Duration::from_secs(5);

/// Directories with names that are not durable yet, and when those before them were made so.
#[derive(Default)]
struct NewNames(Mutex<(BTreeSet<PathBuf>, Option<Instant>)>);

impl NewNames {
    fn added(&self, folder: &Path) {
        let mut names = self.0.lock().expect("no panic under the lock");
        if !names.0.contains(folder) {
            names.0.insert(folder.to_owned());
        }
    }

    fn take(&self, now: bool) -> BTreeSet<PathBuf> {
        let mut names = self.0.lock().expect("no panic under the lock");
        if !now && names.1.is_some_and(|last| last.elapsed() < SYNC_NAMES_EVERY) {
            return BTreeSet::new();
        }
        names.1 = Some(Instant::now());
        std::mem::take(&mut names.0)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.sync_names(true);
        // Not read for this: without it there is nothing to write.
        if self.index.get_mut().is_ok_and(|index| index.is_some()) {
            self.settle_index();
        }
    }
}

/// A unique name: the process id, a random part and a count.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", Owner::this_process().unique(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Whether `name` has the form of those that [`unique`] makes.
fn is_unique(name: &str) -> bool {
    let numbers = |text: &str| text.split('-').all(|part| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit()));
    let parts = name.split_once('-').filter(|(random, rest)| random.len() == 16 && rest.matches('-').count() == 1);
    parts.is_some_and(|(random, rest)| random.bytes().all(|c| c.is_ascii_hexdigit()) && numbers(rest))
}

/// Now, in UTC, to the millisecond and of fixed width, so that texts sort as times do.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_cache_that_cannot_be_read_or_written_says_so() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("cache");
        Store::open(&root).unwrap();
        let set = |mode| fs::set_permissions(&root, fs::Permissions::from_mode(mode)).unwrap();
        set(0o000);
        if fs::read_dir(&root).is_err() {
            let error = Store::open(&root).err().unwrap();
            assert!(error.to_string().contains("cannot read the cache directory"), "{error}");
            set(0o555);
            let error = Store::open(&root).unwrap().prepare().unwrap_err();
            assert!(error.to_string().contains("cannot make"), "{error}");
            assert!(error.help().unwrap().contains("access"));
        }
        set(0o755);
    }
}
