//! The content store: blobs named by their digest.

use std::io::ErrorKind;
use std::path::PathBuf;

use super::{Store, StoreError, unique};
use crate::digest::Digest;
use crate::node::{Failure, Objects};

impl Store {
    /// The path of the object `digest`, whether or not it exists.
    pub fn object_path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.objects.join(format!("{}/{}", &name[..2], &name[2..]))
    }

    /// Whether all objects named by `digests` exist with the right content. All are read.
    ///
    /// # Errors
    /// When that cannot be determined.
    pub fn verify_objects(&self, digests: &[Digest]) -> Result<bool, StoreError> {
        let mut all = true;
        for digest in digests {
            match self.verify_object(digest) {
                Ok(()) => {}
                Err(StoreError::MissingObject { .. } | StoreError::CorruptObject { .. }) => all = false,
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Whether all objects named by `digests` exist.
    ///
    /// # Errors
    /// When that cannot be determined.
    pub fn has_objects(&self, digests: &[Digest]) -> Result<bool, StoreError> {
        for digest in digests {
            if self.object_size(digest)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The size of the object `digest` in bytes, if it exists. Its content is not checked.
    ///
    /// # Errors
    /// When that cannot be determined.
    pub fn object_size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        if !self.writes && self.damaged.lock().expect("no panic under the lock").contains(digest) {
            return Ok(None);
        }
        Ok(self.disk.look(&self.object_path(digest))?.map(|metadata| metadata.len()))
    }

    /// Whether the object `digest`, which is lost, is damaged or was until this process removed it; else it is missing.
    ///
    /// # Errors
    /// When that cannot be determined.
    pub fn lies_damaged(&self, digest: &Digest) -> Result<bool, StoreError> {
        let proven = self.damaged.lock().expect("no panic under the lock").contains(digest);
        Ok(proven || self.disk.look(&self.object_path(digest))?.is_some())
    }

    /// Removes those of `objects` that are not what their names say, however long that takes, and returns how many.
    ///
    /// # Errors
    /// When one cannot be read or removed.
    pub fn remove_damaged(&self, objects: impl IntoIterator<Item = Digest>) -> Result<usize, StoreError> {
        let mut removed = 0;
        for digest in objects {
            match self.verify_object(&digest) {
                Err(StoreError::CorruptObject { removed: true, .. }) => removed += 1,
                Ok(()) | Err(StoreError::MissingObject { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// The content of the object `digest`.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is not what its name says; then it is removed, so that the result that
    /// it belongs to is recomputed.
    pub fn object(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        match self.disk.read(&self.object_path(digest))? {
            Some(content) if Digest::of(&content) == *digest => Ok(content),
            Some(_) => Err(self.discard(digest)?),
            None => Err(self.absent(digest)),
        }
    }

    /// Whether the object `digest` exists with the right content. Checked once per process.
    ///
    /// # Errors
    /// As [`Store::object`].
    pub fn verify_object(&self, digest: &Digest) -> Result<(), StoreError> {
        if self.verified.lock().expect("no panic under the lock").contains(digest) {
            return self.object_size(digest)?.map(|_| ()).ok_or_else(|| self.absent(digest));
        }
        match self.disk.digest(&self.object_path(digest))? {
            Some(found) if found == *digest => {
                self.verified.lock().expect("no panic under the lock").insert(*digest);
                Ok(())
            }
            Some(_) => Err(self.discard(digest)?),
            None => Err(self.absent(digest)),
        }
    }

    /// Puts `content` into the store; its name is durable with [`Store::sync_names`]. A damaged object of this name is replaced.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put_object(&self, content: &[u8]) -> Result<Digest, StoreError> {
        self.may_write()?;
        let digest = Digest::of(content);
        let path = self.object_path(&digest);
        let is_there = self.disk.read(&path)?.is_some_and(|existing| existing == content);
        // The one that is there may be about to be evicted, since no record names it yet: see `gc`.
        if !is_there || !self.renew(&path)? {
            self.write_by(&path, 0o444, |out| out.write_all(content))?;
        }
        Ok(digest)
    }

    /// Sets the time of the object at `path` to now, and looks whether it is still there. `false` when it is not.
    fn renew(&self, path: &std::path::Path) -> Result<bool, StoreError> {
        let renewed = self.disk.open(path)?.is_some_and(|file| self.disk.touch(&file, path).is_ok());
        Ok(renewed && self.disk.look(path)?.is_some())
    }

    /// Removes the object `digest` if its content is wrong, so that it counts as missing and is
    /// recomputed. What is removed is what was digested: another process may have put the right content in its place
    /// in between.
    ///
    /// # Errors
    /// When it cannot be digested or removed; then it stays.
    pub fn discard_object(&self, digest: &Digest) -> Result<(), StoreError> {
        self.verified.lock().expect("no panic under the lock").remove(digest);
        let path = self.object_path(digest);
        if !self.writes {
            self.damaged.lock().expect("no panic under the lock").insert(*digest);
            return Ok(());
        }
        if self.disk.digest(&path)?.is_none_or(|found| found == *digest) {
            return Ok(());
        }
        let aside = self.temporary_folder().join(unique());
        self.make_folder(&self.temporary_folder())?;
        match self.disk.rename(&path, &aside) {
            Err(error) if error.is(ErrorKind::NotFound) => return Ok(()),
            moved => moved?,
        }
        match self.disk.digest(&aside) {
            Ok(Some(found)) if found != *digest => {
                self.damaged.lock().expect("no panic under the lock").insert(*digest);
                self.disk.remove(&aside)
            }
            Ok(_) => self.disk.rename(&aside, &path),
            Err(error) => {
                let _ = self.disk.rename(&aside, &path);
                Err(error)
            }
        }
    }

    fn discard(&self, digest: &Digest) -> Result<StoreError, StoreError> {
        self.discard_object(digest)?;
        Ok(self.corrupt(digest))
    }

    fn corrupt(&self, digest: &Digest) -> StoreError {
        StoreError::CorruptObject { digest: *digest, path: self.object_path(digest), removed: self.writes }
    }

    /// Why the object `digest` is not there: another thread may have found it damaged a moment ago.
    fn absent(&self, digest: &Digest) -> StoreError {
        let proven = self.damaged.lock().expect("no panic under the lock").contains(digest);
        if proven { self.corrupt(digest) } else { StoreError::MissingObject { digest: *digest } }
    }
}

impl Objects for Store {
    fn read(&self, digest: &Digest) -> Result<Vec<u8>, Failure> {
        Ok(self.object(digest)?)
    }

    fn path(&self, digest: &Digest) -> Result<PathBuf, Failure> {
        self.verify_object(digest)?;
        Ok(self.object_path(digest))
    }

    fn put(&self, content: &[u8]) -> Result<Digest, Failure> {
        Ok(self.put_object(content)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    fn damage(store: &Store, digest: &Digest, content: &[u8]) {
        let path = store.object_path(digest);
        fs::remove_file(&path).unwrap();
        fs::write(&path, content).unwrap();
    }

    #[test]
    fn an_object_reads_back_and_cannot_be_written_to() {
        let (_folder, store) = store();
        let digest = store.put_object(b"content").unwrap();
        assert_eq!(digest, store.put_object(b"content").unwrap());
        assert_eq!(store.object(&digest).unwrap(), b"content");
        assert!(fs::metadata(store.object_path(&digest)).unwrap().permissions().readonly());
        assert_eq!(fs::read_dir(store.temporary_folder()).unwrap().count(), 0, "nothing temporary is left");
    }

    #[test]
    fn a_damaged_object_is_removed_when_read_and_counts_as_missing() {
        let (_folder, store) = store();
        let digest = store.put_object(b"content").unwrap();
        damage(&store, &digest, b"c0ntent");
        let error = store.object(&digest).unwrap_err();
        assert!(matches!(&error, StoreError::CorruptObject { path, .. } if *path == store.object_path(&digest)));
        assert!(
            matches!(store.object(&digest), Err(StoreError::CorruptObject { removed: true, .. })),
            "and why, is known"
        );
        assert_eq!(store.object_size(&digest).unwrap(), None);
        store.put_object(b"content").unwrap();
        store.verify_object(&digest).unwrap();
        damage(&store, &digest, b"c0ntent");
        store.put_object(b"content").unwrap();
        assert_eq!(store.object(&digest).unwrap(), b"content", "putting it again heals it");
    }

    #[test]
    fn only_what_is_proven_to_be_damaged_is_removed() {
        let (_folder, store) = store();
        let digest = store.put_object(b"content").unwrap();
        store.discard_object(&digest).unwrap();
        assert_eq!(store.object(&digest).unwrap(), b"content");
        store.discard_object(&Digest::of(b"absent")).unwrap();
    }

    #[test]
    fn all_that_is_damaged_of_a_result_is_removed_at_once() {
        let (_folder, store) = store();
        let [whole, first, second, gone] = [b"a", b"b", b"c", b"d"].map(|content| store.put_object(content).unwrap());
        damage(&store, &first, b"x");
        damage(&store, &second, b"y");
        fs::remove_file(store.object_path(&gone)).unwrap();
        assert_eq!(store.remove_damaged([whole, first, second, gone]).unwrap(), 2);
        let sizes = [whole, first, second].map(|digest| store.object_size(&digest).unwrap());
        assert_eq!(sizes, [Some(1), None, None]);
        let damaged = [whole, first, second, gone].map(|digest| store.lies_damaged(&digest).unwrap());
        assert_eq!(damaged[1..], [true, true, false]);
    }

    #[test]
    fn damage_found_while_reading_only_counts_as_missing_and_stays() {
        let (folder, writing) = store();
        let digest = writing.put_object(b"content").unwrap();
        damage(&writing, &digest, b"c0ntent");
        let store = Store::open_for_reading(folder.path()).unwrap();
        assert_eq!(store.object_size(&digest).unwrap(), Some(7));
        let error = store.verify_object(&digest).unwrap_err();
        assert!(error.to_string().ends_with("` is damaged"), "{error}");
        assert_eq!(store.object_size(&digest).unwrap(), None);
        assert!(store.object_path(&digest).exists());
    }
}
