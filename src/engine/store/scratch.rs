//! Scratch: directories for unfinished work, `work/<key>/scratch-…` and `work/<key>/forced-…`, where nodes keep their
//! checkpoints.
//!
//! A scratch bears the name of the claim under which it is worked in. Who takes over renames it, so that an owner that
//! lost its claim finds its directory gone and writes nothing more. A scratch is removed only once its result is
//! published: by its owner, or later by whoever finds that the record names it. Work that is forced has a scratch of
//! its own: the other one may hold what an earlier run has not finished.

use std::path::{Path, PathBuf};

use super::{Claim, Store, StoreError};
use crate::digest::Digest;

/// Which scratch of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scratch {
    /// That of work whose result is missing.
    Ordinary,
    /// That of work whose result is cached and that is repeated by force.
    Forced,
}

/// What the scratch whose result is published is called while it is removed.
const DONE: &str = "done-";

impl Scratch {
    fn prefix(self) -> &'static str {
        match self {
            Self::Ordinary => "scratch-",
            Self::Forced => "forced-",
        }
    }

    fn has(self, name: &str) -> bool {
        // Earlier versions had one scratch a key.
        name.starts_with(self.prefix()) || self == Self::Ordinary && name == "scratch"
    }
}

impl Store {
    /// The scratch `which` of the claimed key: the one that is unfinished, or else a new one. It outlives this process.
    ///
    /// # Errors
    /// When it cannot be made, or the claim is lost.
    pub fn scratch(&self, claim: &Claim, which: Scratch) -> Result<PathBuf, StoreError> {
        let ours = claim.folder.join(format!("{}{}", which.prefix(), claim.token));
        if self.disk.look(&ours)?.is_some() {
            return Ok(ours);
        }
        self.sweep(claim)?;
        let left = self.disk.names(&claim.folder)?.into_iter().filter(|name| which.has(name));
        // Listed first and looked at then: while the claim is ours, none of these is another's.
        let left: Vec<PathBuf> = left.map(|name| claim.folder.join(name)).collect();
        claim.verify()?;
        match self.latest(&left)? {
            Some(path) => self.disk.rename(path, &ours)?,
            None => self.make_passing_folder(&ours)?,
        }
        Ok(ours)
    }

    /// Whether a node would resume unfinished work on `key`.
    ///
    /// # Errors
    /// When that cannot be determined.
    pub fn is_unfinished(&self, key: &Digest) -> Result<bool, StoreError> {
        let folder = self.root.join("work").join(key.to_string());
        for name in self.disk.names(&folder)?.iter().filter(|name| Scratch::Ordinary.has(name)) {
            if !self.disk.names(&folder.join(name))?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The result of the work is published: its scratch is no longer needed.
    ///
    /// # Errors
    /// When the claim is lost, or the scratch cannot be removed.
    pub fn finish(&self, claim: Claim) -> Result<(), StoreError> {
        claim.verify()?;
        for which in [Scratch::Ordinary, Scratch::Forced] {
            let name = format!("{}{}", which.prefix(), claim.token);
            self.remove_scratch(&claim.folder, &name)?;
        }
        Ok(())
    }

    /// Removes what is known to be useless: scratch that the record says its result was made in, and
    /// scratch that holds nothing.
    pub(super) fn sweep(&self, claim: &Claim) -> Result<(), StoreError> {
        let names = self.disk.names(&claim.folder)?;
        if names.iter().all(|name| name.starts_with("claim.")) {
            return Ok(());
        }
        let record = self.record(&claim.key)?;
        let published = record.and_then(|record| record.provenance.scratch);
        claim.verify()?;
        for name in &names {
            if name.starts_with(DONE) {
                self.disk.remove_all(&claim.folder.join(name))?;
            } else if published.as_ref() == Some(name) {
                self.remove_scratch(&claim.folder, name)?;
            } else if Scratch::Ordinary.has(name) || Scratch::Forced.has(name) {
                self.disk.remove_empty(&claim.folder.join(name));
            }
        }
        Ok(())
    }

    /// Removes all scratch of the claimed key, whether or not its result was made.
    pub(super) fn remove_work(&self, claim: &Claim) -> Result<(), StoreError> {
        for name in self.disk.names(&claim.folder)?.iter().filter(|name| !name.starts_with("claim.")) {
            self.remove_scratch(&claim.folder, name)?;
        }
        Ok(())
    }

    /// Removes a scratch atomically, so that half of it is never taken for unfinished work.
    fn remove_scratch(&self, folder: &Path, name: &str) -> Result<(), StoreError> {
        let done = folder.join(format!("{DONE}{name}"));
        match self.disk.rename(&folder.join(name), &done) {
            Err(error) if error.is(std::io::ErrorKind::NotFound) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.disk.remove_all(&done),
        }
    }

    /// The one of `folders` that was worked in last.
    fn latest<'a>(&self, folders: &'a [PathBuf]) -> Result<Option<&'a PathBuf>, StoreError> {
        let mut latest = None;
        for path in folders {
            let modified = self.disk.look(path)?.and_then(|metadata| metadata.modified().ok());
            latest = latest.max(Some((modified, path)));
        }
        Ok(latest.map(|(_, path)| path))
    }
}

impl Claim {
    /// The name of the scratch `which` of this claim, for the record of what is made in it.
    pub fn scratch_name(&self, which: Scratch) -> String {
        format!("{}{}", which.prefix(), self.token)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::record::tests::{claim, example};
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    #[test]
    fn scratch_outlives_a_claim_and_goes_when_the_work_is_finished() {
        let (folder, store) = store();
        let record = example(&store, "key", "one");
        let held = claim(&store, &record);
        let first = store.scratch(&held, Scratch::Ordinary).unwrap();
        assert!(!store.is_unfinished(&record.key).unwrap(), "nothing is in it");
        fs::write(first.join("checkpoint"), "3").unwrap();
        assert!(store.is_unfinished(&record.key).unwrap());
        assert_eq!(store.scratch(&held, Scratch::Ordinary).unwrap(), first);
        drop(held);
        let held = claim(&store, &record);
        let second = store.scratch(&held, Scratch::Ordinary).unwrap();
        assert_eq!(fs::read_to_string(second.join("checkpoint")).unwrap(), "3");
        assert!(!first.exists(), "the one before can write nothing more there");
        store.finish(held).unwrap();
        assert!(!store.is_unfinished(&record.key).unwrap());
        assert!(!folder.path().join("work").join(record.key.to_string()).exists());
    }

    #[test]
    fn forced_work_leaves_the_unfinished_work_of_its_key_alone() {
        let (_folder, store) = store();
        let record = example(&store, "key", "one");
        let held = claim(&store, &record);
        fs::write(store.scratch(&held, Scratch::Ordinary).unwrap().join("checkpoint"), "ordinary").unwrap();
        drop(held);
        let held = claim(&store, &record);
        let forced = store.scratch(&held, Scratch::Forced).unwrap();
        assert_eq!(fs::read_dir(&forced).unwrap().count(), 0);
        store.finish(held).unwrap();
        let held = claim(&store, &record);
        let ordinary = store.scratch(&held, Scratch::Ordinary).unwrap();
        assert_eq!(fs::read_to_string(ordinary.join("checkpoint")).unwrap(), "ordinary");
    }

    #[test]
    fn unfinished_work_survives_a_record_and_goes_only_when_the_record_names_it() {
        let (_folder, store) = store();
        for which in [Scratch::Ordinary, Scratch::Forced] {
            let mut record = example(&store, &format!("{which:?}"), "one");
            let held = claim(&store, &record);
            store.publish(&held, &record).unwrap();
            let scratch = store.scratch(&held, which).unwrap();
            fs::write(scratch.join("checkpoint"), "3").unwrap();
            let name = held.scratch_name(which);
            drop(held);
            store.prepare().unwrap();
            assert!(scratch.join("checkpoint").exists(), "{which:?}");
            // As a process leaves it that is killed once it has published.
            record.provenance.scratch = Some(name);
            store.supersede(&claim(&store, &record), &record).unwrap();
            store.prepare().unwrap();
            assert!(!scratch.parent().unwrap().exists());
        }
    }

    #[test]
    fn what_a_killed_process_left_empty_or_half_removed_is_swept() {
        let (folder, store) = store();
        let work = folder.path().join("work");
        for key in ["a", "b", "c", "d"].map(|name| work.join(Digest::of(name.as_bytes()).to_string())) {
            fs::create_dir_all(key.join("scratch-1-2")).unwrap();
        }
        let [half, old, legacy] = ["b", "c", "d"].map(|name| work.join(Digest::of(name.as_bytes()).to_string()));
        fs::create_dir_all(half.join("done-scratch-1-3/deep")).unwrap();
        fs::write(half.join("done-scratch-1-3/deep/checkpoint"), "3").unwrap();
        fs::write(old.join("scratch-1-2/checkpoint"), "3").unwrap();
        fs::create_dir_all(legacy.join("scratch")).unwrap();
        fs::write(legacy.join("scratch/checkpoint"), "3").unwrap();
        store.prepare().unwrap();
        let mut left: Vec<_> = fs::read_dir(&work).unwrap().map(|entry| entry.unwrap().path()).collect();
        left.sort();
        let mut expected = vec![old.clone(), legacy.clone(), work.join("tmp")];
        expected.sort();
        assert_eq!(left, expected, "unfinished work stays");
        assert!(old.join("scratch-1-2/checkpoint").exists() && legacy.join("scratch/checkpoint").exists());
    }
}
