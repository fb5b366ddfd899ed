//! Which directories are caches, and how one is made. Only a directory that this program made, or that holds nothing,
//! ever becomes a cache; anything else is refused and named, and left as it is.

use std::path::Path;

use super::{Disk, LAYOUT, Store, StoreError, is_unique, unique};

/// What the temporary files of a cache that is being made begin with.
pub(super) const TEMPORARY: &str = ".stic-";

/// The standard's signature (<https://bford.info/cachedir/>), which backup programs look for. A new cache's first file:
/// it says whose the directory is.
const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55
# This folder is a cache made by stic: all of it can be made again.
# For information about cache directory tags see https://bford.info/cachedir/
";

/// How a tag says that the directory is ours: those that are made, and the one that the project's own tree comes with.
const OURS: [&str; 2] = ["cache made by stic", "cache of stic"];

/// The directories of a cache that only this program makes.
const FOLDERS: [&str; 5] = ["objects", "results", "items", "work", "runs"];

/// The files of a cache that are derived from its directories.
pub(super) const DERIVED: [&str; 4] = [super::index::EARLIER, super::index::ADDED, super::index::SORTED, "files"];

/// What a directory is.
#[derive(Debug, PartialEq)]
enum Place {
    /// A cache, or one that is being made, with the number of its layout.
    Cache(u32),
    /// Absent, empty, or with no more than what a fresh clone of the project has in its directory for a cache.
    Free {
        /// Whether a tag says that it must be a cache of this program.
        tagged: bool,
    },
    /// A cache that this program made, as its tag and its directories say, whose layout is gone or cannot be read.
    NoLayout,
    /// Something else.
    Other {
        /// What it holds.
        holds: Vec<String>,
    },
}

/// Whether `folder` is a cache that this program made, or one that came with the project and is still empty.
///
/// # Errors
/// When it cannot be read.
pub fn is_cache(folder: &Path) -> Result<bool, StoreError> {
    match place(&Disk::default(), folder) {
        Ok(place) => Ok(matches!(place, Place::Cache(_) | Place::NoLayout | Place::Free { tagged: true })),
        Err(StoreError::NotAFolder { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Store {
    /// Makes sure that this is a cache or an empty directory, and makes nothing.
    pub(super) fn inspect(&self) -> Result<(), StoreError> {
        match place(&self.disk, &self.root)? {
            Place::Cache(LAYOUT) | Place::Free { .. } => Ok(()),
            Place::Cache(found) => Err(StoreError::OtherLayout { path: self.root.clone(), found }),
            Place::NoLayout => Err(StoreError::NoLayout { path: self.root.join("layout") }),
            Place::Other { holds } => Err(StoreError::NotACache { path: self.root.clone(), holds }),
        }
    }

    /// Makes sure that this is a cache; an empty directory becomes one.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        self.inspect()?;
        if self.disk.look(&self.root.join("layout"))?.is_some() {
            return Ok(());
        }
        self.disk.make_folder(&self.root, true)?;
        // The tag first: a process that is killed here leaves a directory that is known to be ours. The layout last:
        // with it the cache is complete. Existing files (a project may keep its own `.gitignore`) stay.
        let layout = format!("{LAYOUT}\n");
        for (name, text) in [("CACHEDIR.TAG", CACHE_TAG), (".gitignore", "*\n"), ("layout", &layout)] {
            let path = self.root.join(name);
            if self.disk.look(&path)?.is_none() {
                let temporary = self.root.join(format!("{TEMPORARY}{}", unique()));
                self.disk.create(&temporary, text.as_bytes(), 0o644, true)?;
                if let Err(error) = self.disk.rename(&temporary, &path) {
                    let _ = self.disk.remove(&temporary);
                    return Err(error);
                }
            }
        }
        self.disk.sync_folder(&self.root)
    }
}

fn place(disk: &Disk, root: &Path) -> Result<Place, StoreError> {
    match disk.look(root) {
        Ok(None) => return Ok(Place::Free { tagged: false }),
        Ok(Some(metadata)) if metadata.is_dir() => {}
        Ok(Some(_)) => return Err(StoreError::NotAFolder { path: root.to_owned() }),
        // A file somewhere above it.
        Err(error) if error.is(std::io::ErrorKind::NotADirectory) => {
            return Err(StoreError::NotAFolder { path: root.to_owned() });
        }
        Err(error) => return Err(error),
    }
    // A cache that another process is making gets its layout before it gets anything else: once seen to hold more, it
    // is looked at again.
    let mut place = look(disk, root)?;
    if matches!(place, Place::Other { .. } | Place::NoLayout) {
        place = look(disk, root)?;
    }
    Ok(place)
}

fn look(disk: &Disk, root: &Path) -> Result<Place, StoreError> {
    let text = |name: &str| -> Result<Option<String>, StoreError> {
        let path = root.join(name);
        let is_file = disk.look(&path)?.is_some_and(|metadata| metadata.is_file());
        let content = if is_file { disk.read(&path)? } else { None };
        Ok(content.map(|content| String::from_utf8_lossy(&content).into_owned()))
    };
    let names = disk.names(root)?;
    let tagged = text("CACHEDIR.TAG")?.is_some_and(|tag| OURS.iter().any(|ours| tag.contains(ours)));
    // A `.gitignore` alone, and a file that only looks like one of ours, are somebody's: the tag is written first.
    let is_first = |name: &str| match name {
        "CACHEDIR.TAG" | ".gitignore" => tagged,
        name => name.strip_prefix(TEMPORARY).is_some_and(is_unique),
    };
    if names.iter().all(|name| is_first(name)) {
        return Ok(Place::Free { tagged });
    }
    let is_ours = |name: &str| {
        is_first(name) || [".gitignore", "layout"].contains(&name) || DERIVED.contains(&name) || FOLDERS.contains(&name)
    };
    match text("layout")?.and_then(|layout| layout.trim().parse().ok()) {
        Some(layout) if tagged || names.iter().all(|name| is_ours(name)) => Ok(Place::Cache(layout)),
        None if tagged && names.iter().all(|name| is_ours(name)) => Ok(Place::NoLayout),
        _ => Ok(Place::Other { holds: names }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// All files below `folder`, with their content.
    fn content(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let entries = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().map(Result::unwrap);
        entries.map(|entry| (entry.path().to_owned(), fs::read(entry.path()).unwrap_or_default())).collect()
    }

    #[test]
    fn a_new_cache_keeps_out_of_git_and_of_backups() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("deep").join("cache");
        assert!(!is_cache(&root).unwrap());
        Store::open(&root).unwrap();
        assert_eq!(fs::read_to_string(root.join(".gitignore")).unwrap(), "*\n");
        assert!(fs::read_to_string(root.join("CACHEDIR.TAG")).unwrap().starts_with("Signature: 8a477f597d28d172"));
        assert_eq!(fs::read_to_string(root.join("layout")).unwrap(), "1\n");
        assert_eq!(fs::read_dir(&root).unwrap().count(), 3);
        assert!(is_cache(&root).unwrap());
    }

    #[test]
    fn a_folder_with_anything_else_in_it_is_refused_by_name_and_left_as_it_is() {
        for (name, text) in [
            ("thesis.tex", "text"),
            ("layout", "two columns"),
            ("layout", ""),
            ("CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n# of another program\n"),
            ("objects/ab/c", "x"),
            ("work/tmp/draft", "x"),
            ("layout/1", "x"),
            (".git/config", "x"),
            (".gitignore", "*.o\n"),
            (".stic-notes", "x"),
            (".stic-2026-11-28", "x"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            let before = content(folder.path());
            for opened in [Store::open(folder.path()), Store::open_for_reading(folder.path())] {
                let error = opened.err().unwrap_or_else(|| panic!("{name} was taken for a cache"));
                let first = name.split('/').next().unwrap();
                assert!(error.to_string().contains(&format!("it contains `{first}`")), "{error}");
                assert!(error.help().unwrap().contains("--cache"), "{error}");
            }
            assert!(!is_cache(folder.path()).unwrap());
            assert_eq!(content(folder.path()), before);
        }
        // Someone else's directory that happens to have a `layout` with a number in it.
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("layout"), "1\n").unwrap();
        fs::write(folder.path().join("keyboard.map"), "qwertz").unwrap();
        let error = Store::open(folder.path()).err().unwrap();
        assert!(error.to_string().ends_with("is not a cache of stic: it contains `keyboard.map`, `layout`"), "{error}");
    }

    #[test]
    fn what_a_fresh_clone_or_a_killed_process_has_there_becomes_a_cache() {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cache");
        let tag = fs::read_to_string(project.join("CACHEDIR.TAG")).unwrap();
        let half = format!("{TEMPORARY}{}", unique());
        let files = [(half.as_str(), "half"), ("CACHEDIR.TAG", tag.as_str()), (".gitignore", "*\n")];
        for count in 0..=files.len() {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in &files[..count] {
                fs::write(folder.path().join(name), text).unwrap();
            }
            assert_eq!(is_cache(folder.path()).unwrap(), count >= 2);
            let before = content(folder.path());
            Store::open_for_reading(folder.path()).unwrap();
            assert_eq!(content(folder.path()), before);
            Store::open(folder.path()).unwrap();
            assert!(is_cache(folder.path()).unwrap());
            assert_eq!(fs::read_to_string(folder.path().join(".gitignore")).unwrap(), "*\n");
        }
    }

    #[test]
    fn many_processes_may_make_one_cache_at_once() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("cache");
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| Store::open(&root).unwrap().prepare().unwrap());
                }
            });
        }
    }

    #[test]
    fn a_cache_opened_for_reading_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("cache");
        let store = Store::open_for_reading(&absent).unwrap();
        assert_eq!(store.stats().unwrap(), super::super::Stats::default());
        assert!(matches!(store.put_object(b"x"), Err(StoreError::OpenedForReading { .. })));
        assert!(matches!(store.prepare(), Err(StoreError::OpenedForReading { .. })));
        assert!(store.begin_run().is_err() && store.claim(&crate::digest::Digest::of(b"key")).is_err());
        assert!(!absent.exists());
    }

    #[test]
    fn a_cache_of_another_layout_is_refused_untouched() {
        for (layout, older) in [("2\n", false), ("0\n", true)] {
            let folder = tempfile::tempdir().unwrap();
            Store::open(folder.path()).unwrap();
            fs::write(folder.path().join("layout"), layout).unwrap();
            let before = content(folder.path());
            let error = Store::open(folder.path()).err().unwrap();
            let expected = format!("has layout {}, and this version of stic reads layout 1", layout.trim());
            assert!(error.to_string().ends_with(&expected), "{error}");
            assert_eq!(error.help().unwrap().contains("older version of stic made it"), older);
            assert_eq!(error.help().unwrap().contains("update stic"), !older);
            assert_eq!(content(folder.path()), before);
        }
    }

    #[test]
    fn a_cache_that_lost_its_layout_is_still_known_as_one_and_the_way_back_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        Store::open(folder.path()).unwrap().prepare().unwrap();
        let layout = folder.path().join("layout");
        for text in [None, Some(""), Some("\u{0}\u{0}")] {
            fs::remove_file(&layout).unwrap();
            if let Some(text) = text {
                fs::write(&layout, text).unwrap();
            }
            let before = content(folder.path());
            let error = Store::open(folder.path()).err().unwrap();
            assert!(matches!(error, StoreError::NoLayout { .. }), "{error}");
            assert!(error.help().unwrap().contains("write the line `1` into"), "{error}");
            assert!(is_cache(folder.path()).unwrap());
            assert_eq!(content(folder.path()), before);
            fs::write(&layout, "1").unwrap();
            Store::open(folder.path()).unwrap();
        }
    }

    #[test]
    fn a_file_in_the_place_of_the_cache_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        fs::write(&path, "").unwrap();
        for path in [path.clone(), path.join("below")] {
            let error = Store::open(&path).err().unwrap();
            assert_eq!(error.to_string(), format!("the cache `{}` is not a directory", path.display()));
            assert!(error.help().unwrap().contains("--cache"));
            assert!(!is_cache(&path).unwrap());
        }
    }
}
