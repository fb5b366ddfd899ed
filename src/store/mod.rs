//! The cache folder, and its only writer.
//!
//! ```text
//! cache/
//!   layout                        the number of this layout
//!   objects/ab/cdef…              content, one file a blob, named by its BLAKE3
//!   results/<key>.json            one record a finished node, written last
//!   index                         derived from results/: what plans need of every record
//!   items/<function key>/*.jsonl  journals of finished items, a file for every process that adds some
//!   files                         digests of files outside the cache, by inode and times
//!   work/<key>/                   an unfinished node's claim and scratch
//!   runs/<id>/                    events.jsonl, summary.json
//! ```
//!
//! Everything else can be made again out of `objects/`, `results/` and `items/`. Three rules make the folder safe to
//! kill, to copy and to share:
//!
//! - A file gets its name when it is complete: temporary file, fsync, rename, fsync of the folder. What grows line by
//!   line (journals, index, memo) carries a checksum a line.
//! - Content first, the record that names it last. Nothing is believed because it is there: an object is digested when
//!   it is read, and one that does not match is removed and counts as missing.
//! - A key is claimed before it is worked on ([`Claim`]); a record is never replaced by another content unasked.
//!
//! This module does not know what a node is, why a key is what it is, or when something should run.

mod checked;
mod claim;
mod error;
mod files;
mod index;
mod journal;
mod objects;
mod record;
mod runs;
mod stats;

pub use claim::{Claim, Claiming, Owner};
pub use error::StoreError;
pub use files::{FileStamp, Witness};
pub use index::Entry;
pub use journal::{Items, Journal};
pub use record::{ItemTotals, Provenance, Publication, Record, StoredObject};
pub use runs::RunLog;
pub use stats::{Share, Stats};

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use crate::digest::Digest;

/// The number of the layout that this version reads and writes.
pub const LAYOUT: u32 = 1;

/// The standard's signature (<https://bford.info/cachedir/>), which backup programs look for.
const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55
# This folder is a cache made by stic: all of it can be made again.
# For information about cache directory tags see https://bford.info/cachedir/
";

/// A cache folder.
pub struct Store {
    root: PathBuf,
    /// Objects whose content was found to be right in this process.
    verified: Mutex<HashSet<Digest>>,
    index: OnceLock<Mutex<index::Index>>,
    files: files::Files,
}

impl Store {
    /// Opens the cache in `root`, and makes it when there is none.
    ///
    /// # Errors
    /// When `root` is not a folder, cannot be read or made, or holds the layout of a newer version.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        match fs::metadata(root) {
            Ok(metadata) if !metadata.is_dir() => return Err(StoreError::NotAFolder { path: root.to_owned() }),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fs::create_dir_all(root).map_err(StoreError::io("make the cache folder", root))?;
            }
            // A file somewhere above it.
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                return Err(StoreError::NotAFolder { path: root.to_owned() });
            }
            Err(error) => return Err(StoreError::io("read the cache folder", root)(error)),
        }
        fs::read_dir(root).map_err(StoreError::io("read the cache folder", root))?;

        let store = Self {
            root: root.to_owned(),
            verified: Mutex::default(),
            index: OnceLock::new(),
            files: files::Files::new(root.join("files")),
        };
        let layout = root.join("layout");
        match fs::read_to_string(&layout) {
            Ok(found) if found.trim().parse() == Ok(LAYOUT) => {}
            Ok(found) => {
                return Err(StoreError::NewerLayout { path: root.to_owned(), found: found.trim().to_owned() });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => store.furnish(&layout)?,
            Err(error) => return Err(StoreError::io("read", &layout)(error)),
        }
        Ok(store)
    }

    /// The cache folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes sure that the cache can be written to, and sweeps what killed processes left: files half written a day
    /// ago, and claims and scratch of nodes that are finished.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn prepare(&self) -> Result<(), StoreError> {
        // What stands in the way of a result is told before the work on it, not after.
        for name in ["objects", "results", "items", "runs"] {
            make_folder(&self.root.join(name))?;
        }
        let folder = self.temporary_folder();
        make_folder(&folder)?;
        let probe = self.temporary();
        fs::write(&probe, b"").map_err(StoreError::io("write", &probe))?;
        let _ = fs::remove_file(&probe);
        for entry in fs::read_dir(&folder).map_err(StoreError::io("read", &folder))?.flatten() {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            let age = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
            if age.is_some_and(|age| age > Duration::from_secs(24 * 60 * 60)) {
                let _ = fs::remove_file(entry.path());
            }
        }
        for key in self.unfinished()? {
            // Claims on items leave no scratch, and no record either.
            let scratch = self.root.join("work").join(key.to_string()).join("scratch");
            if (self.record(&key).is_some() || !scratch.exists())
                && let Claiming::Held(claim) = self.claim(&key)?
            {
                claim.finish();
            }
        }
        Ok(())
    }

    /// The keys that have a folder under `work/`.
    fn unfinished(&self) -> Result<Vec<Digest>, StoreError> {
        let work = self.root.join("work");
        let folders = fs::read_dir(&work).map_err(StoreError::io("read", &work))?;
        Ok(folders.flatten().filter_map(|folder| folder.file_name().to_str()?.parse().ok()).collect())
    }

    /// A new cache's first files. What is there already (a project may keep its own `.gitignore`) stays.
    fn furnish(&self, layout: &Path) -> Result<(), StoreError> {
        for (name, text) in [(".gitignore", "*\n"), ("CACHEDIR.TAG", CACHE_TAG)] {
            let path = self.root.join(name);
            if !path.exists() {
                fs::write(&path, text).map_err(|cause| {
                    // Half of it would be taken for the whole by the next that opens the cache.
                    let _ = fs::remove_file(&path);
                    StoreError::io("write", &path)(cause)
                })?;
            }
        }
        self.write_whole(layout, format!("{LAYOUT}\n").as_bytes(), 0o644)
    }

    fn temporary_folder(&self) -> PathBuf {
        self.root.join("work").join("tmp")
    }

    /// A name that no other process and no other thread uses.
    fn temporary(&self) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        self.temporary_folder().join(format!("{}-{count}", Owner::this_process().unique()))
    }

    /// A complete file with a name of its own, to be given its place by the caller; durable, if it is to outlive more
    /// than this process.
    fn write_temporary(&self, content: &[u8], mode: u32, durable: bool) -> Result<PathBuf, StoreError> {
        let path = self.temporary();
        let write = || -> std::io::Result<()> {
            let mut options = File::options();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
            #[cfg(not(unix))]
            let _ = mode;
            let mut file = options.open(&path)?;
            file.write_all(content)?;
            if durable { file.sync_all() } else { Ok(()) }
        };
        let written = write().or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                fs::create_dir_all(self.temporary_folder())?;
                write()
            }
            _ => Err(error),
        });
        match written {
            Ok(()) => Ok(path),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(StoreError::io("write", &path)(error))
            }
        }
    }

    /// Writes `path` so that it is there completely or not at all.
    fn write_whole(&self, path: &Path, content: &[u8], mode: u32) -> Result<(), StoreError> {
        let temporary = self.write_temporary(content, mode, true)?;
        let folder = path.parent().unwrap_or(&self.root);
        let placed = make_folder(folder)
            .and_then(|()| fs::rename(&temporary, path).map_err(StoreError::io("write", path)))
            .and_then(|()| sync_folder(folder));
        if placed.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        placed
    }
}

/// Makes `folder` and those above it, durably.
fn make_folder(folder: &Path) -> Result<(), StoreError> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(StoreError::io("make", folder))?;
    folder.parent().map_or(Ok(()), sync_folder)
}

/// Makes the names in `folder` durable, where the system can do that.
fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        File::open(folder).and_then(|file| file.sync_all()).map_err(StoreError::io("write", folder))?;
    }
    Ok(())
}

/// Now, in UTC, to the millisecond and of fixed width, so that texts sort as times do.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_cache_keeps_out_of_git_and_of_backups() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("deep").join("cache");
        Store::open(&root).unwrap();
        assert_eq!(fs::read_to_string(root.join(".gitignore")).unwrap(), "*\n");
        assert!(fs::read_to_string(root.join("CACHEDIR.TAG")).unwrap().starts_with("Signature: 8a477f597d28d172"));
        assert_eq!(fs::read_to_string(root.join("layout")).unwrap(), "1\n");
    }

    #[test]
    fn a_cache_of_a_newer_layout_is_refused_untouched() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("layout"), "2\n").unwrap();
        let error = Store::open(folder.path()).err().unwrap();
        assert!(error.to_string().ends_with("has layout 2, and this version of stic reads layout 1"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_in_the_place_of_the_cache_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        fs::write(&path, "").unwrap();
        for path in [path.clone(), path.join("below")] {
            let error = Store::open(&path).err().unwrap();
            assert_eq!(error.to_string(), format!("the cache `{}` is not a folder", path.display()));
            assert!(error.help().unwrap().contains("--cache"));
        }
    }

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
            assert!(error.to_string().contains("cannot read the cache folder"), "{error}");
            set(0o555);
            let error = Store::open(&root).unwrap().prepare().unwrap_err();
            assert!(error.to_string().contains("cannot make"), "{error}");
            assert!(error.help().unwrap().contains("access"));
        }
        set(0o755);
    }
}
