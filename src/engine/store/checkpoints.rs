//! What a node keeps of unfinished work: named files in the scratch of its claim, each with the one before it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Claim, Scratch, Store, StoreError};
use crate::digest::Digest;
use crate::node::{Checkpoints, Failure};

/// The checkpoints of the work that is done under a claim.
pub struct StoredCheckpoints<'a> {
    store: &'a Store,
    folder: PathBuf,
    /// Whether the directory itself outlives a loss of power.
    is_durable: AtomicBool,
}

impl Store {
    /// The checkpoints in the scratch `which` of the claimed key.
    ///
    /// # Errors
    /// As [`Store::scratch`].
    pub fn checkpoints(&self, claim: &Claim, which: Scratch) -> Result<StoredCheckpoints<'_>, StoreError> {
        Ok(StoredCheckpoints { store: self, folder: self.scratch(claim, which)?, is_durable: AtomicBool::new(false) })
    }
}

impl StoredCheckpoints<'_> {
    fn write(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let (store, path) = (self.store, self.folder.join(name));
        let temporary = store.write_temporary(content, 0o644, true)?;
        let placed = || {
            if store.disk.digest(&temporary)? != Some(Digest::of(content)) {
                return Err(StoreError::io("write", &path)(io::Error::other(
                    "it does not read back as it was written",
                )));
            }
            match store.disk.rename(&path, &self.folder.join(older(name))) {
                Err(error) if error.is(io::ErrorKind::NotFound) => {}
                renamed => renamed?,
            }
            // Not into a recreated directory: one that is gone belongs to whoever took the claim over.
            store.disk.rename(&temporary, &path)?;
            store.disk.sync_folder(&self.folder)?;
            // The scratch's own name, and that of its key, once.
            if !self.is_durable.load(Ordering::Relaxed) {
                for folder in self.folder.ancestors().skip(1).take(2) {
                    store.disk.sync_folder(folder)?;
                }
                self.is_durable.store(true, Ordering::Relaxed);
            }
            Ok(())
        };
        placed().inspect_err(|_| {
            let _ = store.disk.remove(&temporary);
        })
    }
}

impl Checkpoints for StoredCheckpoints<'_> {
    fn save(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        Ok(self.write(name, content)?)
    }

    fn load(&self, name: &str, read: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<Vec<String>, Failure> {
        let mut damaged = Vec::new();
        for name in [name.to_owned(), older(name)] {
            let path = self.folder.join(&name);
            let Some(content) = self.store.disk.read(&path)? else { continue };
            let Err(cause) = read(&content) else { break };
            // Out of the way, so that it does not take the older one's place when the next is saved.
            self.store.disk.rename(&path, &self.folder.join(format!("{name}.damaged")))?;
            damaged.push(format!("the checkpoint {} is damaged: {cause}", path.display()));
        }
        Ok(damaged)
    }
}

/// What the checkpoint before `name` is called: `a.older.json` for `a.json`.
fn older(name: &str) -> String {
    let path = Path::new(name).with_extension("older");
    let extension = Path::new(name).extension().map(|extension| format!(".{}", extension.display()));
    format!("{}{}", path.display(), extension.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::record::tests::{claim, example};
    use super::super::{Access, Disk};
    use super::*;

    const NAME: &str = "checkpoint.bin";

    fn newest(checkpoints: &StoredCheckpoints<'_>, sound: &[&[u8]]) -> (Option<Vec<u8>>, usize) {
        let mut found = None;
        let damaged = checkpoints.load(NAME, &mut |content| {
            if !sound.contains(&content) {
                return Err("not sound".to_owned());
            }
            found = Some(content.to_owned());
            Ok(())
        });
        (found, damaged.unwrap().len())
    }

    #[test]
    fn the_newest_sound_checkpoint_is_found_and_a_damaged_one_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let held = claim(&store, &example(&store, "key", "one"));
        let checkpoints = store.checkpoints(&held, Scratch::Ordinary).unwrap();
        assert_eq!(newest(&checkpoints, &[]), (None, 0));
        for content in [b"1", b"2", b"3"] {
            checkpoints.save(NAME, content).unwrap();
        }
        assert_eq!(newest(&checkpoints, &[b"3", b"2"]), (Some(b"3".to_vec()), 0));
        assert_eq!(newest(&checkpoints, &[b"1", b"2"]), (Some(b"2".to_vec()), 1));
        // And continuing from there does not lose it.
        checkpoints.save(NAME, b"4").unwrap();
        assert_eq!(newest(&checkpoints, &[b"2"]), (Some(b"2".to_vec()), 1));
        assert_eq!(newest(&checkpoints, &[]), (None, 1));
        let names = store.disk.names(&checkpoints.folder).unwrap();
        assert_eq!(names, ["checkpoint.bin.damaged", "checkpoint.older.bin.damaged"]);
    }

    #[test]
    fn whoever_lost_its_claim_saves_nothing_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let record = example(&store, "key", "one");
        let held = claim(&store, &record);
        let checkpoints = store.checkpoints(&held, Scratch::Ordinary).unwrap();
        checkpoints.save(NAME, b"1").unwrap();
        drop(held);
        let held = claim(&store, &record);
        let taken_over = store.checkpoints(&held, Scratch::Ordinary).unwrap();
        assert!(checkpoints.save(NAME, b"2").is_err());
        assert_eq!(newest(&taken_over, &[b"1", b"2"]), (Some(b"1".to_vec()), 0));
        assert_eq!(fs::read_dir(store.temporary_folder()).unwrap().count(), 0);
    }

    #[test]
    fn a_checkpoint_that_cannot_be_placed_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        for access in [Access::Write, Access::Sync, Access::Name] {
            let full = move |now, path: &Path| {
                let is_checkpoint = now != Access::Name || path.ends_with(NAME);
                (now == access && is_checkpoint).then(|| io::Error::from(io::ErrorKind::StorageFull))
            };
            let root = folder.path().join(format!("{access:?}"));
            let store = Store::open(&root).unwrap();
            let held = claim(&store, &example(&store, "key", "one"));
            let checkpoints = store.checkpoints(&held, Scratch::Ordinary).unwrap();
            checkpoints.save(NAME, b"1").unwrap();
            let store = Store::open_on(Disk::failing(full), &root).unwrap();
            let failing = StoredCheckpoints {
                store: &store,
                folder: checkpoints.folder.clone(),
                is_durable: AtomicBool::new(false),
            };
            assert!(failing.save(NAME, b"2").is_err(), "{access:?}");
            assert_eq!(newest(&checkpoints, &[b"1", b"2"]), (Some(b"1".to_vec()), 0), "{access:?}");
            assert_eq!(fs::read_dir(store.temporary_folder()).unwrap().count(), 0, "{access:?}");
        }
    }
}
