//! The content store: blobs named by their digest. It does not know what they hold.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::{Store, StoreError};
use crate::digest::Digest;
use crate::node::{Failure, Objects};

impl Store {
    /// Where the object `digest` lies, or would lie.
    pub fn object_path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.root.join("objects").join(&name[..2]).join(&name[2..])
    }

    /// The size of the object `digest` in bytes, when it is there. Its content is not looked at.
    pub fn object_size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.object_path(digest)).ok().map(|metadata| metadata.len())
    }

    /// The content of the object `digest`.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is not what its name says; then it is removed, so that the result that
    /// it belongs to is made again.
    pub fn object(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.object_path(digest);
        match fs::read(&path) {
            Ok(content) if Digest::of(&content) == *digest => Ok(content),
            Ok(_) => Err(self.discard(digest)),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(StoreError::MissingObject { digest: *digest }),
            Err(error) => Err(StoreError::io("read", &path)(error)),
        }
    }

    /// Whether the object `digest` is there and is what its name says. Looked at once in a process.
    ///
    /// # Errors
    /// As [`Store::object`].
    pub fn verify_object(&self, digest: &Digest) -> Result<(), StoreError> {
        if self.verified.lock().expect("no panic under the lock").contains(digest) {
            return if self.object_size(digest).is_some() {
                Ok(())
            } else {
                Err(StoreError::MissingObject { digest: *digest })
            };
        }
        let path = self.object_path(digest);
        match Digest::of_file(&path) {
            Ok(found) if found == *digest => {
                self.verified.lock().expect("no panic under the lock").insert(*digest);
                Ok(())
            }
            Ok(_) => Err(self.discard(digest)),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(StoreError::MissingObject { digest: *digest }),
            Err(error) => Err(StoreError::io("read", &path)(error)),
        }
    }

    /// Puts `content` into the store, durably. A damaged object of this name is replaced.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put_object(&self, content: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(content);
        let path = self.object_path(&digest);
        if !fs::read(&path).is_ok_and(|existing| existing == content) {
            self.write_whole(&path, content, 0o444)?;
        }
        Ok(digest)
    }

    /// Removes the object `digest`, which is known to be damaged, so that it counts as missing and is made again.
    pub fn discard_object(&self, digest: &Digest) {
        self.verified.lock().expect("no panic under the lock").remove(digest);
        let _ = fs::remove_file(self.object_path(digest));
    }

    fn discard(&self, digest: &Digest) -> StoreError {
        self.discard_object(digest);
        StoreError::CorruptObject { digest: *digest, path: self.object_path(digest) }
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
        assert!(matches!(store.object(&digest), Err(StoreError::MissingObject { .. })));
        damage_free(&store, &digest);
    }

    fn damage_free(store: &Store, digest: &Digest) {
        store.put_object(b"content").unwrap();
        store.verify_object(digest).unwrap();
        damage(store, digest, b"c0ntent");
        store.put_object(b"content").unwrap();
        assert_eq!(store.object(digest).unwrap(), b"content", "putting it again heals it");
    }
}
