//! Digests of files outside the cache, so that a folder of pictures or a model is read once and not at every plan.
//!
//! A digest is remembered by the file's (device, inode, size, time of change, time of change of its inode), never by
//! its path. A file younger than two seconds is not remembered: it could change once more within the resolution of
//! its times. This module does not know what files are for.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Store;
use super::checked::{seal, whole_lines};
use super::index::append;
use crate::digest::Digest;
use crate::node::FileDigests;

/// How old a file's last change must be for its digest to be remembered.
const SETTLED: Duration = Duration::from_secs(2);

/// Files up to this size are read at once; larger ones are mapped and digested on all threads.
const READ_AT_ONCE: u64 = 16 << 20;

/// Files from this size on are announced before they are read.
const LARGE: u64 = 1 << 30;

/// By what a file is known not to have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i64,
    changed_ns: i64,
}

impl FileStamp {
    /// The stamp of the file at `path`.
    ///
    /// # Errors
    /// When there is none, or it is a folder.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Self::from(&metadata))
    }

    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_nanos() as i64 - self.modified_ns.max(self.changed_ns) >= SETTLED.as_nanos() as i64
    }
}

#[cfg(unix)]
impl From<&Metadata> for FileStamp {
    fn from(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let nanoseconds = |seconds: i64, rest: i64| seconds * 1_000_000_000 + rest;
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(not(unix))]
impl From<&Metadata> for FileStamp {
    fn from(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified_ns = modified.map_or(i64::MAX, |age| age.as_nanos() as i64);
        Self { device: 0, inode: 0, size: metadata.len(), modified_ns, changed_ns: modified_ns }
    }
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    stamp: FileStamp,
    digest: Digest,
}

/// The memo.
pub(super) struct Files {
    path: PathBuf,
    known: OnceLock<Mutex<HashMap<FileStamp, Digest>>>,
    found: Mutex<HashMap<Digest, PathBuf>>,
}

impl Files {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, known: OnceLock::new(), found: Mutex::default() }
    }

    fn known(&self) -> &Mutex<HashMap<FileStamp, Digest>> {
        self.known.get_or_init(|| {
            let text = fs::read(&self.path).unwrap_or_default();
            let lines = whole_lines(&text).0.into_iter();
            let lines = lines.filter_map(|(_, data)| serde_json::from_slice::<Line>(data).ok());
            Mutex::new(lines.map(|line| (line.stamp, line.digest)).collect())
        })
    }

    fn recall(&self, stamp: &FileStamp) -> Option<Digest> {
        self.known().lock().expect("no panic under the lock").get(stamp).copied()
    }

    fn remember(&self, fresh: &[(FileStamp, Digest)]) {
        let lasting: Vec<_> = fresh.iter().filter(|(stamp, _)| stamp.is_settled()).collect();
        if lasting.is_empty() {
            return;
        }
        let lines: Vec<u8> =
            lasting.iter().flat_map(|(stamp, digest)| seal(&Line { stamp: *stamp, digest: *digest })).collect();
        // Not being able to remember costs time later, nothing else.
        let _ = append(&self.path, &lines);
        self.known().lock().expect("no panic under the lock").extend(lasting.into_iter().copied());
    }
}

impl Store {
    /// A digester of files that also knows which it digested, for one node.
    pub fn witness<'a>(self: &Arc<Self>) -> Witness<'a> {
        Witness { store: Arc::clone(self), seen: Mutex::default(), announce: None }
    }

    /// Where a file with the content `digest` was when this process digested it.
    pub fn found(&self, digest: &Digest) -> Option<PathBuf> {
        self.files.found.lock().expect("no panic under the lock").get(digest).cloned()
    }
}

/// What tells people that a large file is about to be read: its path and size.
type Announce<'a> = Box<dyn Fn(&Path, u64) + Send + Sync + 'a>;

/// Digests files and remembers, for one node, which they were, so that a change under its run is noticed.
pub struct Witness<'a> {
    store: Arc<Store>,
    seen: Mutex<HashMap<PathBuf, FileStamp>>,
    announce: Option<Announce<'a>>,
}

impl<'a> Witness<'a> {
    /// Has `announce` called before a large file is read.
    #[must_use]
    pub fn announcing(mut self, announce: impl Fn(&Path, u64) + Send + Sync + 'a) -> Self {
        self.announce = Some(Box::new(announce));
        self
    }

    /// A file that is no longer what it was when it was digested, if there is one.
    pub fn changed(&self) -> Option<PathBuf> {
        let seen = self.seen.lock().expect("no panic under the lock");
        let mut changed: Vec<_> = seen
            .iter()
            .filter(|(path, stamp)| FileStamp::of(path).ok() != Some(**stamp))
            .map(|(path, _)| path)
            .collect();
        changed.sort();
        changed.first().map(|path| (*path).clone())
    }

    /// The digest, and the stamp with it when the file had to be read.
    fn look(&self, path: &Path) -> io::Result<(Digest, Option<FileStamp>)> {
        // A file that changes while it is read is read again, and given up on when it does not come to rest.
        for _ in 0..3 {
            let stamp = FileStamp::of(path)?;
            let recalled = self.store.files.recall(&stamp);
            let digest = match recalled {
                Some(digest) => digest,
                None if stamp.size <= READ_AT_ONCE => Digest::of(&fs::read(path)?),
                None => {
                    if let Some(announce) = self.announce.as_ref().filter(|_| stamp.size >= LARGE) {
                        announce(path, stamp.size);
                    }
                    Digest::of_file(path)?
                }
            };
            if recalled.is_some() || FileStamp::of(path)? == stamp {
                // The first stamp counts: the node's key was made of what it stands for.
                self.seen.lock().expect("no panic under the lock").entry(path.to_owned()).or_insert(stamp);
                let mut found = self.store.files.found.lock().expect("no panic under the lock");
                found.entry(digest).or_insert_with(|| path.to_owned());
                return Ok((digest, recalled.is_none().then_some(stamp)));
            }
        }
        Err(io::Error::other("the file is being written to"))
    }
}

impl FileDigests for Witness<'_> {
    fn file(&self, path: &Path) -> io::Result<Digest> {
        let (digest, fresh) = self.look(path)?;
        if let Some(stamp) = fresh {
            self.store.files.remember(&[(stamp, digest)]);
        }
        Ok(digest)
    }

    fn files(&self, paths: &[PathBuf]) -> Vec<io::Result<Digest>> {
        let looked: Vec<_> = paths.par_iter().map(|path| self.look(path)).collect();
        let fresh: Vec<_> =
            looked.iter().flatten().filter_map(|(digest, stamp)| stamp.map(|stamp| (stamp, *digest))).collect();
        self.store.files.remember(&fresh);
        looked.into_iter().map(|looked| looked.map(|(digest, _)| digest)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn store(&self) -> Arc<Store> {
            Arc::new(Store::open(&self.0.path().join("cache")).unwrap())
        }

        fn write(&self, name: &str, content: &str) -> PathBuf {
            let path = self.0.path().join(name);
            fs::write(&path, content).unwrap();
            path
        }
    }

    #[test]
    fn a_digest_is_remembered_across_processes_once_the_file_has_settled() {
        let folder = Folder::new();
        let path = folder.write("a", "one");
        let memo = folder.0.path().join("cache").join("files");
        assert_eq!(folder.store().witness().file(&path).unwrap(), Digest::of(b"one"));
        assert!(!memo.exists(), "a young file is not remembered");
        std::thread::sleep(SETTLED + Duration::from_millis(20));
        assert_eq!(folder.store().witness().file(&path).unwrap(), Digest::of(b"one"));
        // The memo alone answers now: a wrong digest in it would be given back.
        let stamp = FileStamp::of(&path).unwrap();
        fs::write(&memo, seal(&Line { stamp, digest: Digest::of(b"remembered") })).unwrap();
        assert_eq!(folder.store().witness().file(&path).unwrap(), Digest::of(b"remembered"));
        // And a change of content with the size and the time of change kept is still noticed.
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "two").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(folder.store().witness().file(&path).unwrap(), Digest::of(b"two"));
    }

    #[test]
    fn a_file_that_changes_after_it_was_digested_is_named() {
        let folder = Folder::new();
        let paths = [folder.write("a", "one"), folder.write("b", "two")];
        let witness = folder.store().witness();
        assert!(witness.files(&paths).iter().all(Result::is_ok));
        assert_eq!(witness.changed(), None);
        fs::write(&paths[1], "longer").unwrap();
        assert_eq!(witness.changed().as_ref(), Some(&paths[1]));
        assert_eq!(witness.file(&paths[1]).unwrap(), Digest::of(b"longer"));
        assert_eq!(witness.changed().as_ref(), Some(&paths[1]), "digesting it anew does not hide that");
        fs::remove_file(&paths[0]).unwrap();
        assert_eq!(witness.changed().as_ref(), Some(&paths[0]));
    }

    #[test]
    fn files_are_digested_in_order_and_found_again_by_content() {
        let folder = Folder::new();
        let store = folder.store();
        let paths = vec![folder.write("a", "one"), folder.0.path().join("none"), folder.write("b", "two")];
        let digests = store.witness().files(&paths);
        assert_eq!(digests[0].as_ref().unwrap(), &Digest::of(b"one"));
        assert_eq!(digests[1].as_ref().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(store.found(&Digest::of(b"two")), Some(paths[2].clone()));
        assert_eq!(store.found(&Digest::of(b"three")), None);
        assert_eq!(store.witness().file(folder.0.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }
}
