//! Every access of the store to its directory, so that there is one answer to what is absent, and so that tests can
//! have any access fail.
//!
//! Only "not found" means absent. Any other error (no permission, a failing device, a stale handle of a network file
//! system, too many open files) says nothing about what exists, and is propagated.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;

use super::StoreError;
use crate::digest::Digest;

/// What is done to a file or a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading a file.
    Read,
    /// Looking at a file's size and times.
    Look,
    /// Listing a directory.
    List,
    /// Creating a file or a directory, or writing to a file.
    Write,
    /// Giving a file another name, or a second one.
    Name,
    /// Making what was written durable.
    Sync,
    /// Removing a file or a directory.
    Remove,
}

/// Decides whether an access fails, and how.
pub type Fault = dyn Fn(Access, &Path) -> Option<io::Error> + Send + Sync;

/// The file system below a cache directory.
#[derive(Clone, Default)]
pub struct Disk {
    fault: Option<Arc<Fault>>,
}

impl Disk {
    /// A disk on which an access fails when `fault` says so, for tests.
    pub fn failing(fault: impl Fn(Access, &Path) -> Option<io::Error> + Send + Sync + 'static) -> Self {
        Self { fault: Some(Arc::new(fault)) }
    }

    fn allow(&self, access: Access, path: &Path) -> io::Result<()> {
        self.fault.as_ref().and_then(|fault| fault(access, path)).map_or(Ok(()), Err)
    }

    /// The content of the file at `path`; `None` when there is none.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        present(self.allow(Access::Read, path).and_then(|()| fs::read(path))).map_err(StoreError::io("read", path))
    }

    /// The file at `path`, for reading; `None` when there is none.
    pub(super) fn open(&self, path: &Path) -> Result<Option<File>, StoreError> {
        let file = self.allow(Access::Read, path).and_then(|()| File::open(path));
        present(file).map_err(StoreError::io("read", path))
    }

    /// The digest of the file at `path`; `None` when there is none.
    pub(super) fn digest(&self, path: &Path) -> Result<Option<Digest>, StoreError> {
        let digest = self.allow(Access::Read, path).and_then(|()| Digest::of_file(path));
        present(digest).map_err(StoreError::io("read", path))
    }

    /// The size, the times and the type of what is at `path`; `None` when there is nothing.
    pub(super) fn look(&self, path: &Path) -> Result<Option<Metadata>, StoreError> {
        let metadata = self.allow(Access::Look, path).and_then(|()| fs::metadata(path));
        present(metadata).map_err(StoreError::io("read", path))
    }

    /// The names in the directory at `path`, in order; none when there is no such directory.
    pub(super) fn names(&self, path: &Path) -> Result<Vec<String>, StoreError> {
        let list = || -> io::Result<Vec<String>> {
            self.allow(Access::List, path)?;
            fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        };
        let mut names = present(list()).map_err(StoreError::io("read", path))?.unwrap_or_default();
        names.sort();
        Ok(names)
    }

    /// A new file at `path` with `content`, durable if it is to outlive more than this process. What could not be
    /// written completely is removed.
    pub(super) fn create(&self, path: &Path, content: &[u8], mode: u32, durable: bool) -> Result<(), StoreError> {
        self.create_by(path, mode, durable, &|out| out.write_all(content))
    }

    /// As [`Disk::create`], with what `write` writes.
    pub(super) fn create_by(
        &self,
        path: &Path,
        mode: u32,
        durable: bool,
        write: &dyn Fn(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        #[cfg(not(unix))]
        let _ = mode;
        let file = self.allow(Access::Write, path).and_then(|()| options.open(path));
        let file = file.map_err(StoreError::io("write", path))?;
        // Large contents pass through the buffer as they are.
        let mut out = BufWriter::new(&file);
        let written = write(&mut out).and_then(|()| out.flush());
        drop(out);
        let written = written.and_then(|()| if durable { self.sync_file(&file, path) } else { Ok(()) });
        written.map_err(|cause| {
            let _ = fs::remove_file(path);
            StoreError::io("write", path)(cause)
        })
    }

    /// The file at `path` for adding to its end; with `new`, it must not be there yet.
    pub(super) fn open_end(&self, path: &Path, new: bool) -> Result<File, StoreError> {
        let mut options = File::options();
        options.append(true).read(true).create(!new).create_new(new);
        let file = self.allow(Access::Write, path).and_then(|()| options.open(path));
        file.map_err(StoreError::io("write", path))
    }

    /// Adds `bytes` to `file` at `path`, in one write.
    pub(super) fn add(&self, mut file: &File, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let added = self.allow(Access::Write, path).and_then(|()| file.write_all(bytes));
        added.map_err(StoreError::io("write", path))
    }

    /// Makes the content of `file` at `path`, durable.
    pub(super) fn sync_file(&self, file: &File, path: &Path) -> io::Result<()> {
        self.allow(Access::Sync, path)?;
        file.sync_all()
    }

    /// Makes the names in `folder` durable, where the system can do that.
    pub(super) fn sync_folder(&self, folder: &Path) -> Result<(), StoreError> {
        let sync = || -> io::Result<()> {
            self.allow(Access::Sync, folder)?;
            if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
        };
        sync().map_err(StoreError::io("write", folder))
    }

    /// Makes `folder` and those above it, each durably if they are to outlive a loss of power.
    pub(super) fn make_folder(&self, folder: &Path, durable: bool) -> Result<(), StoreError> {
        if matches!(self.look(folder), Ok(Some(metadata)) if metadata.is_dir()) {
            return Ok(());
        }
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        let make = || self.allow(Access::Write, folder).and_then(|()| fs::create_dir(folder));
        let mut made = make();
        if let (Err(error), Some(parent)) = (&made, parent)
            && error.kind() == ErrorKind::NotFound
        {
            self.make_folder(parent, durable)?;
            made = make();
        }
        match made {
            // Another process was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && is_no_file(folder) => Ok(()),
            Err(error) => Err(StoreError::io("make", folder)(error)),
            Ok(()) if durable => self.sync_folder(parent.unwrap_or(Path::new("."))),
            Ok(()) => Ok(()),
        }
    }

    /// Gives the file `from` the name `to` replacing any other file of that name.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        let renamed = self.allow(Access::Name, to).and_then(|()| fs::rename(from, to));
        renamed.map_err(StoreError::io("write", to))
    }

    /// Gives the file `from` the name `to` as well, which must be free. Of the kind `Unsupported` where the file
    /// system has no second names.
    pub(super) fn link(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        let linked = self.allow(Access::Name, to).and_then(|()| fs::hard_link(from, to));
        linked.map_err(|cause| {
            let cause = if has_no_links(&cause) { ErrorKind::Unsupported.into() } else { cause };
            StoreError::io("write", to)(cause)
        })
    }

    /// Removes the file at `path`, if there is one.
    pub(super) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        let removed = self.allow(Access::Remove, path).and_then(|()| fs::remove_file(path));
        present(removed).map(|_| ()).map_err(StoreError::io("remove", path))
    }

    /// Removes the directory at `path` with all that is in it, if there is one.
    pub(super) fn remove_all(&self, path: &Path) -> Result<(), StoreError> {
        let removed = self.allow(Access::Remove, path).and_then(|()| fs::remove_dir_all(path));
        present(removed).map(|_| ()).map_err(StoreError::io("remove", path))
    }

    /// Removes the directory at `path` when nothing is in it.
    pub(super) fn remove_empty(&self, path: &Path) {
        if self.allow(Access::Remove, path).is_ok() {
            let _ = fs::remove_dir(path);
        }
    }

    /// Sets the times of `file` at `path`, to now, by the clock of the file's server: that of this machine
    /// may be wrong.
    pub(super) fn touch(&self, file: &File, path: &Path) -> io::Result<()> {
        self.allow(Access::Write, path)?;
        #[cfg(unix)]
        {
            use rustix::fs::{Timespec, Timestamps, UTIME_NOW};
            let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            Ok(rustix::fs::futimens(file, &Timestamps { last_access: now, last_modification: now })?)
        }
        #[cfg(not(unix))]
        file.set_modified(std::time::SystemTime::now())
    }
}

/// Whether `folder` is a directory, or went again since something was there. A link to nothing is neither.
fn is_no_file(folder: &Path) -> bool {
    match folder.metadata() {
        Ok(metadata) => metadata.is_dir(),
        Err(_) => folder.symlink_metadata().is_err(),
    }
}

/// `Some` if found, `None` if not found, and any other error as it is.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn has_no_links(cause: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = Errno::from_io_error(cause);
    code.is_some_and(|code| [Errno::PERM, Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOSYS].contains(&code))
}

#[cfg(not(unix))]
fn has_no_links(cause: &io::Error) -> bool {
    cause.kind() == ErrorKind::Unsupported
}
