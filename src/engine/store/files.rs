//! Digests of files outside the cache, so that large ones are read once and not at every plan.
//!
//! A digest is remembered by the file's (device, inode, size, time of change, time of change of its inode), never by
//! its path. Three kinds of file are not remembered, since they could hold something else under the same stamp: one
//! that had changed less than two seconds before it was read, one without an inode, and one whose times are as coarse
//! as those of file systems that make inodes up (FAT, many network shares).
//!
//! For one node, a [`Witness`] keeps what it has digested and notices a change, not of times but of content, and as
//! soon as somebody looks. Files are read, never mapped into memory: their owner may cut them short.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::checked::{seal, whole_lines};
use super::{Disk, Store, StoreError};
use crate::digest::Digest;
use crate::node::FileDigests;

/// How old a file's last change must be, when it is read, for its digest to be remembered.
const SETTLED: Duration = Duration::from_secs(2);

/// The finest times of file systems that have no inodes of their own: exFAT's hundredths of a second.
const COARSE_NS: i64 = 10_000_000;

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
    /// When there is none, or it is a directory or another thing that is no file.
    pub fn of(path: &Path) -> io::Result<Self> {
        Self::new(&fs::metadata(path)?)
    }

    fn new(metadata: &Metadata) -> io::Result<Self> {
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self::from(metadata))
    }

    /// Whether no other content can have this stamp, for a file that had it at the time `now_ns`, before it was read.
    fn lasts(&self, now_ns: i64) -> bool {
        let settled = SETTLED.as_nanos() as i64;
        // Some file systems keep times that are centuries away.
        let since = |time_ns: i64| now_ns.saturating_sub(time_ns);
        // Only the inode's own time cannot be set by hand: a file from the future may be an old one.
        let quiet =
            since(self.changed_ns) >= settled && (since(self.modified_ns) >= settled || self.modified_ns > now_ns);
        self.inode != 0 && self.changed_ns % COARSE_NS != 0 && quiet
    }
}

fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i64
}

#[cfg(unix)]
impl From<&Metadata> for FileStamp {
    fn from(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
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
    /// Whether new digests may be stored.
    writes: bool,
    known: OnceLock<Mutex<HashMap<FileStamp, Digest>>>,
    found: Mutex<HashMap<Digest, PathBuf>>,
}

impl Files {
    pub(super) fn new(path: PathBuf, writes: bool) -> Self {
        Self { path, writes, known: OnceLock::new(), found: Mutex::default() }
    }

    fn known(&self) -> &Mutex<HashMap<FileStamp, Digest>> {
        self.known.get_or_init(|| {
            let text = fs::read(&self.path).unwrap_or_default();
            let lines = whole_lines(&text).0.into_iter();
            let lines = lines.filter_map(|(_, data)| serde_json::from_slice::<Line>(data).ok());
            Mutex::new(lines.map(|line| (line.stamp, line.digest)).collect())
        })
    }

    /// The digest of a file that has had this stamp until now.
    fn recall(&self, stamp: &FileStamp, now_ns: i64) -> Option<Digest> {
        let known = || self.known().lock().expect("no panic under the lock").get(stamp).copied();
        stamp.lasts(now_ns).then(known)?
    }

    fn remember(&self, lasting: &[(FileStamp, Digest)]) {
        if lasting.is_empty() {
            return;
        }
        let lines: Vec<u8> =
            lasting.iter().flat_map(|(stamp, digest)| seal(&Line { stamp: *stamp, digest: *digest })).collect();
        // Not being able to remember costs time later, nothing else.
        if self.writes {
            let _ = append(&Disk::default(), &self.path, &lines);
        }
        self.known().lock().expect("no panic under the lock").extend(lasting.iter().copied());
    }
}

/// Adds `lines` to the end of `path` in one write. A torn line before them is closed first, so that it costs itself
/// alone.
fn append(disk: &Disk, path: &Path, lines: &[u8]) -> Result<(), StoreError> {
    let mut file = disk.open_end(path, false)?;
    let torn = ends_torn(&mut file).map_err(StoreError::io("read", path))?;
    if torn { disk.add(&file, path, &[b"\n", lines].concat()) } else { disk.add(&file, path, lines) }
}

fn ends_torn(file: &mut File) -> io::Result<bool> {
    use std::io::{Seek, SeekFrom};
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

impl Store {
    /// A digester of files that also knows which it digested, for one node.
    pub fn witness<'a>(self: &Arc<Self>) -> Witness<'a> {
        Witness {
            store: Arc::clone(self),
            seen: Mutex::default(),
            changed: Mutex::default(),
            announce: None,
            stop: None,
            stopped: AtomicBool::new(false),
        }
    }

    /// Where a file with the content `digest` was when this process digested it.
    pub fn found(&self, digest: &Digest) -> Option<PathBuf> {
        self.files.found.lock().expect("no panic under the lock").get(digest).cloned()
    }
}

/// Called before a large file is read, with its path and size.
type Announce<'a> = Box<dyn Fn(&Path, u64) + Send + Sync + 'a>;

/// What says that reading is to stop.
type Stop<'a> = Box<dyn Fn() -> bool + Send + Sync + 'a>;

/// Digests files and remembers, for one node, which they were, so that a change under its run is noticed.
pub struct Witness<'a> {
    store: Arc<Store>,
    seen: Mutex<HashMap<PathBuf, Seen>>,
    /// The first file that was found to hold something else than at first.
    changed: Mutex<Option<PathBuf>>,
    announce: Option<Announce<'a>>,
    stop: Option<Stop<'a>>,
    stopped: AtomicBool,
}

/// The files that a [`Witness`] has digested, as data, for continuing with its node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeenFiles(Vec<(PathBuf, Seen)>);

impl SeenFiles {
    /// The files, with their digests.
    pub fn digests(&self) -> impl Iterator<Item = (&Path, Digest)> {
        self.0.iter().map(|(path, seen)| (path.as_path(), seen.digest))
    }
}

/// A file as it was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    stamp: FileStamp,
    digest: Digest,
    /// Whether the stamp identifies the content.
    lasts: bool,
}

impl<'a> Witness<'a> {
    /// Has `announce` called before a large file is read.
    #[must_use]
    pub fn announcing(mut self, announce: impl Fn(&Path, u64) + Send + Sync + 'a) -> Self {
        self.announce = Some(Box::new(announce));
        self
    }

    /// Has reading end with an error once `stop` says so.
    #[must_use]
    pub fn until(mut self, stop: impl Fn() -> bool + Send + Sync + 'a) -> Self {
        self.stop = Some(Box::new(stop));
        self
    }

    /// Has it know what another one has seen.
    #[must_use]
    pub fn knowing(self, SeenFiles(files): SeenFiles) -> Self {
        let mut found = self.store.files.found.lock().expect("no panic under the lock");
        for (path, seen) in &files {
            found.entry(seen.digest).or_insert_with(|| path.clone());
        }
        drop(found);
        self.seen.lock().expect("no panic under the lock").extend(files);
        self
    }

    /// What it has seen.
    pub fn seen(&self) -> SeenFiles {
        let seen = self.seen.lock().expect("no panic under the lock");
        SeenFiles(seen.iter().map(|(path, seen)| (path.clone(), *seen)).collect())
    }

    /// Whether something was not read because reading was to stop.
    pub fn was_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The file that was found to hold something else than when this witness first digested it, if there was one.
    pub fn changed(&self) -> Option<PathBuf> {
        self.changed.lock().expect("no panic under the lock").clone()
    }

    /// Looks at all files again: one whose times or place on the disk have changed is read again, and one that holds
    /// something else, or is gone, is given back from now on by [`Witness::changed`].
    ///
    /// # Errors
    /// Names the first file that cannot be looked at; whether it has changed is not known then.
    pub fn look_again(&self) -> Result<(), (PathBuf, io::Error)> {
        let SeenFiles(mut seen) = self.seen();
        seen.sort_by(|(a, _), (b, _)| a.cmp(b));
        let look = |(path, seen): &(PathBuf, Seen)| match FileStamp::of(path) {
            Ok(stamp) if stamp == seen.stamp => Ok(()),
            // Files that become directories, or go, have changed; an error says nothing about the content.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound || cause.kind() == io::ErrorKind::IsADirectory => {
                self.note_changed(path);
                Ok(())
            }
            Err(cause) => Err((path.clone(), cause)),
            Ok(_) => match self.file(path) {
                Err(cause) if self.changed().is_none() => Err((path.clone(), cause)),
                _ => Ok(()),
            },
        };
        let looked: Vec<_> = seen.par_iter().map(look).collect();
        looked.into_iter().collect()
    }

    fn note_changed(&self, path: &Path) {
        self.changed.lock().expect("no panic under the lock").get_or_insert_with(|| path.to_owned());
    }

    fn must_stop(&self) -> bool {
        let stop = self.stop.as_ref().is_some_and(|stop| stop());
        if stop {
            self.stopped.store(true, Ordering::Relaxed);
        }
        stop
    }

    /// The digest, and the stamp with it when the file had to be read and the stamp identifies its content.
    fn look(&self, path: &Path) -> io::Result<(Digest, Option<FileStamp>)> {
        // A file that changes while it is read is read again, up to a limit.
        for _ in 0..3 {
            // Before the file is read: it could change within the resolution of its times while it is.
            let now_ns = now_ns();
            let stamp = FileStamp::of(path)?;
            let known = self.seen.lock().expect("no panic under the lock").get(path).copied();
            let recalled = match known {
                Some(seen) if seen.lasts && seen.stamp == stamp => Some(seen.digest),
                _ => self.store.files.recall(&stamp, now_ns),
            };
            let digest = match recalled {
                Some(digest) => digest,
                None => match self.read(path, stamp)? {
                    Some(digest) => digest,
                    None => continue,
                },
            };
            if known.is_some_and(|seen| seen.digest != digest) {
                // What was made of it so far, the node's key first of all, is of the content that it had.
                self.note_changed(path);
                return Err(io::Error::other("it has changed since the node began"));
            }
            let lasts = stamp.lasts(now_ns);
            let seen = Seen { stamp, digest, lasts };
            self.seen.lock().expect("no panic under the lock").insert(path.to_owned(), seen);
            let mut found = self.store.files.found.lock().expect("no panic under the lock");
            found.entry(digest).or_insert_with(|| path.to_owned());
            return Ok((digest, (lasts && recalled.is_none()).then_some(stamp)));
        }
        Err(io::Error::other("the file is being written to"))
    }

    /// The digest of the content; `None` when the file had not the stamp `stamp` all the while.
    fn read(&self, path: &Path, stamp: FileStamp) -> io::Result<Option<Digest>> {
        if let Some(announce) = self.announce.as_ref().filter(|_| stamp.size >= LARGE) {
            announce(path, stamp.size);
        }
        let file = File::open(path)?;
        let digest = Digest::of_reader(Stoppable { file: &file, witness: self })?;
        let opened = FileStamp::new(&file.metadata()?)?;
        Ok((opened == stamp && FileStamp::of(path)? == stamp).then_some(digest))
    }
}

/// A file that ends with an error once its reading is to stop.
struct Stoppable<'a> {
    file: &'a File,
    witness: &'a Witness<'a>,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.witness.must_stop() {
            return Err(io::Error::other("interrupted"));
        }
        self.file.read(buffer)
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

    /// Two files, digested by a witness.
    fn witnessed(folder: &Folder) -> ([PathBuf; 2], Witness<'static>) {
        let paths = [folder.write("a", "one"), folder.write("b", "two")];
        let witness = folder.store().witness();
        assert!(witness.files(&paths).iter().all(Result::is_ok));
        witness.look_again().unwrap();
        assert_eq!(witness.changed(), None);
        (paths, witness)
    }

    #[test]
    fn a_file_that_changes_after_it_was_digested_is_named_by_whoever_looks_first() {
        let folder = Folder::new();
        let (paths, witness) = witnessed(&folder);
        fs::write(&paths[1], "longer").unwrap();
        witness.look_again().unwrap();
        assert_eq!(witness.changed().as_ref(), Some(&paths[1]));

        let (paths, witness) = witnessed(&folder);
        fs::write(&paths[1], "longer").unwrap();
        let error = witness.file(&paths[1]).unwrap_err();
        assert_eq!(error.to_string(), "it has changed since the node began", "what reads it next is reported");
        assert_eq!(witness.changed().as_ref(), Some(&paths[1]));
        fs::write(&paths[1], "two").unwrap();
        assert_eq!(witness.changed().as_ref(), Some(&paths[1]), "what was read in between is not known");

        let (paths, witness) = witnessed(&folder);
        fs::remove_file(&paths[0]).unwrap();
        witness.look_again().unwrap();
        assert_eq!(witness.changed().as_ref(), Some(&paths[0]));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_whose_times_mode_links_or_inode_change_is_read_again_and_is_what_it_was() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new();
        let (paths, witness) = witnessed(&folder);
        let digest = witness.file(&paths[0]).unwrap();
        fs::set_permissions(&paths[0], fs::Permissions::from_mode(0o640)).unwrap();
        fs::hard_link(&paths[1], folder.0.path().join("link")).unwrap();
        witness.look_again().unwrap();
        assert_eq!((witness.changed(), witness.file(&paths[0]).unwrap()), (None, digest));
        // Replaced by a copy, which is another file with the same content.
        let copy = folder.write("copy", "one");
        fs::rename(copy, &paths[0]).unwrap();
        witness.look_again().unwrap();
        assert_eq!((witness.changed(), witness.file(&paths[0]).unwrap()), (None, digest));
    }

    #[cfg(unix)]
    #[test]
    fn a_stamp_stands_for_a_content_only_where_it_cannot_come_again() {
        let second = 1_000_000_000;
        let stamp = FileStamp { device: 1, inode: 2, size: 3, modified_ns: second + 1, changed_ns: second + 1 };
        let settled = second + 1 + SETTLED.as_nanos() as i64;
        assert!(stamp.lasts(settled));
        assert!(!stamp.lasts(settled - 1), "it could change once more within the resolution of its times");
        assert!(!FileStamp { inode: 0, ..stamp }.lasts(settled), "without an inode");
        let coarse = FileStamp { modified_ns: second, changed_ns: second, ..stamp };
        assert!(!coarse.lasts(settled), "times in whole seconds");
        assert!(FileStamp { modified_ns: i64::MAX, ..stamp }.lasts(settled), "a time of change that was set by hand");
        assert!(!FileStamp { changed_ns: i64::MAX, ..stamp }.lasts(settled), "a clock that is ahead of ours");
    }

    #[test]
    fn reading_stops_when_it_is_told_to() {
        let folder = Folder::new();
        let path = folder.write("a", "one");
        let stop = AtomicBool::new(false);
        let witness = folder.store().witness().until(|| stop.load(Ordering::Relaxed));
        stop.store(true, Ordering::Relaxed);
        assert!(witness.file(&path).is_err() && witness.was_stopped());
        assert_eq!(witness.changed(), None);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let error = Folder::new().store().witness().file(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.to_string(), "not a regular file");
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
