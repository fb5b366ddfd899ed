//! Finds the pictures that a data file names, even if the file comes from another machine.
//!
//! An absolute path that does not exist is found by its longest suffix that does. A name that differs from the file on
//! disk in Unicode normalization (macOS decomposes accents), case or backslashes is found if the match is unique. Does
//! not open pictures.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

use unicode_normalization::UnicodeNormalization;

use stic_engine::diagnostic::nearest;

/// Looks up pictures in one directory.
pub struct Lookup<'a> {
    images: &'a Path,
    folders: Mutex<HashMap<PathBuf, Arc<Names>>>,
}

/// The names in a directory by their case-folded, normalized form.
type Names = HashMap<String, Vec<OsString>>;

/// How a picture was found, and its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Where the file says.
    There(PathBuf),
    /// By a suffix of the path in the file.
    Elsewhere(PathBuf),
    /// Under another spelling.
    Respelled(PathBuf),
}

impl Found {
    /// Its path.
    pub fn into_path(self) -> PathBuf {
        match self {
            Self::There(path) | Self::Elsewhere(path) | Self::Respelled(path) => path,
        }
    }
}

impl<'a> Lookup<'a> {
    /// Looks relative names up in `images`.
    pub fn new(images: &'a Path) -> Self {
        Self { images, folders: Mutex::default() }
    }

    /// The picture that a file calls `written`; `None` if there is none, or if several match.
    pub fn find(&self, written: &str) -> Option<Found> {
        let path = self.images.join(written);
        if path.is_file() {
            return Some(Found::There(path));
        }
        let ends = if path.exists() { Vec::new() } else { ends(written) };
        let elsewhere = ends.iter().map(|end| self.images.join(end)).find(|path| path.is_file());
        if let Some(path) = elsewhere {
            return Some(Found::Elsewhere(path));
        }
        if let Some(path) = ends.iter().find_map(|end| self.respelled(end)) {
            return Some(Found::Elsewhere(path));
        }
        (!Path::new(written).is_absolute()).then(|| self.respelled(written))?.map(Found::Respelled)
    }

    /// The message that there is no picture `written`: where it was looked up, and similar names.
    pub fn missing(&self, written: &str) -> String {
        let joined = self.images.join(written);
        if joined.is_dir() {
            return format!("no picture `{}`: it is a directory", joined.display());
        }
        if joined.exists() {
            return format!("no picture `{}`: it is not a regular file", joined.display());
        }
        if joined.is_symlink() {
            return format!("no picture `{}`: it is a broken symbolic link", joined.display());
        }
        let images = if self.images.as_os_str().is_empty() { Path::new(".") } else { self.images };
        let ends = ends(written);
        let reported = match ends.as_slice() {
            [] => format!("no picture `{}`", joined.display()),
            [name] => format!("no picture `{written}`, and no `{name}` in `{}`", images.display()),
            [longest, .., name] => format!(
                "no picture `{written}`, and none in `{}` by the end of that path, from `{longest}` to `{name}`",
                images.display()
            ),
        };
        let near = match ends.last() {
            None => self.near(written),
            Some(_) => ends.iter().find_map(|end| self.near(end)),
        };
        match near.as_deref() {
            None | Some([]) => reported,
            Some([name]) => format!("{reported}; did you mean `{name}`?"),
            Some([first, second, ..]) => format!("{reported}; did you mean `{first}` or `{second}`?"),
        }
    }

    /// The unique match of the relative name `written`.
    fn respelled(&self, written: &str) -> Option<PathBuf> {
        let mut path = self.images.to_owned();
        for part in parts(written)? {
            path = match self.candidates(&path, &part).as_slice() {
                [only] => path.join(only),
                _ => return None,
            };
        }
        path.is_file().then_some(path)
    }

    /// The names in `folder` that match `part`: exactly, else up to normalization, else up to normalization and case.
    fn candidates(&self, folder: &Path, part: &str) -> Vec<OsString> {
        if part == ".." || folder.join(part).exists() {
            return vec![part.into()];
        }
        let names = self.names(folder);
        let alike = names.get(&folded(part)).map_or(&[][..], Vec::as_slice);
        let composed: String = part.nfc().collect();
        let same = |name: &&OsString| name.to_str().is_some_and(|name| name.nfc().eq(composed.chars()));
        let same: Vec<OsString> = alike.iter().filter(same).cloned().collect();
        if same.is_empty() { alike.to_vec() } else { same }
    }

    /// Similar names to suggest for `written`, relative to the directory.
    fn near(&self, written: &str) -> Option<Vec<String>> {
        let parts = parts(written)?;
        let (last, above) = parts.split_last()?;
        let mut folder = self.images.to_owned();
        for part in above {
            match self.candidates(&folder, part).as_slice() {
                [only] => folder.push(only),
                _ => return None,
            }
        }
        let mut found = self.candidates(&folder, last);
        if found.is_empty() {
            let names = self.names(&folder);
            let all = || names.values().flatten().filter_map(|name| name.to_str());
            let stem = folded(&stem(last));
            let mut same_stem: Vec<&str> = all().filter(|name| folded(&self::stem(name)) == stem).collect();
            same_stem.sort_unstable();
            // Numbered names are all similar, but another number is another picture.
            let nearest = || nearest(last, all().filter(|name| digits(name).eq(digits(last))));
            found.extend(same_stem.first().copied().or_else(nearest).map(OsString::from));
        }
        found.sort();
        let shown = |name: OsString| {
            let path = folder.join(name);
            path.strip_prefix(self.images).unwrap_or(&path).display().to_string()
        };
        Some(found.into_iter().map(shown).collect())
    }

    fn names(&self, folder: &Path) -> Arc<Names> {
        let known = |folders: &HashMap<PathBuf, Arc<Names>>| folders.get(folder).cloned();
        if let Some(names) = self.folders.lock().ok().and_then(|folders| known(&folders)) {
            return names;
        }
        let mut names = Names::new();
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        for entry in std::fs::read_dir(here).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if let Some(text) = name.to_str() {
                names.entry(folded(text)).or_default().push(name);
            }
        }
        let names = Arc::new(names);
        if let Ok(mut folders) = self.folders.lock() {
            folders.insert(folder.to_owned(), Arc::clone(&names));
        }
        names
    }
}

/// `name` normalized and case-folded.
fn folded(name: &str) -> String {
    name.nfc().flat_map(char::to_lowercase).nfc().collect()
}

fn digits(name: &str) -> impl Iterator<Item = char> {
    name.chars().filter(char::is_ascii_digit)
}

/// A name without its extension.
fn stem(name: &str) -> String {
    Path::new(name).file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

/// The components of a relative name with the separators of any system; `None` if it is empty or not relative.
fn parts(written: &str) -> Option<Vec<String>> {
    let slashes = written.replace('\\', "/");
    let mut parts = Vec::new();
    for component in Path::new(&slashes).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => parts.push("..".to_owned()),
            Component::Normal(part) => parts.push(part.to_str()?.to_owned()),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then_some(parts)
}

/// The suffixes of an absolute path of any system, longest first; none for a relative name.
fn ends(written: &str) -> Vec<String> {
    let drive = matches!(written.as_bytes(), [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic());
    let foreign = drive || written.starts_with("\\\\");
    if !foreign && !written.starts_with('/') {
        return Vec::new();
    }
    let parts: Vec<&str> = written[if drive { 2 } else { 0 }..]
        .split(|c| c == '/' || (foreign && c == '\\'))
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let first = parts.iter().rposition(|part| *part == "..").map_or(0, |at| at + 1);
    (first..parts.len()).map(|at| parts[at..].join("/")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        folder
    }

    fn found(folder: &Path, written: &str) -> Option<(&'static str, String)> {
        let found = Lookup::new(folder).find(written)?;
        let how = match found {
            Found::There(_) => "there",
            Found::Elsewhere(_) => "elsewhere",
            Found::Respelled(_) => "respelled",
        };
        let path = found.into_path();
        Some((how, path.strip_prefix(folder).unwrap_or(&path).to_str().unwrap().to_owned()))
    }

    #[test]
    fn an_absolute_path_is_found_by_its_longest_suffix_and_a_relative_one_is_not() {
        let folder = folder(&["b/c.png", "c.png", "d e\n.png"]);
        let found = |written: &str| found(folder.path(), written);
        let elsewhere = |path: &str| Some(("elsewhere", path.to_owned()));
        assert_eq!(found("/a/b/c.png"), elsewhere("b/c.png"));
        assert_eq!(found("C:\\a\\b\\c.png"), elsewhere("b/c.png"));
        assert_eq!(found("\\\\host\\a\\c.png"), elsewhere("c.png"));
        assert_eq!(found("/a/../b/./c.png"), elsewhere("b/c.png"));
        assert_eq!(found("/x/d e\n.png"), elsewhere("d e\n.png"));
        assert_eq!(found("/a/B/C.png"), elsewhere("b/c.png"));
        assert_eq!((found("/a/none.png"), found("a/b/c.png"), found("/"), found("")), (None, None, None, None));
        assert_eq!(found(folder.path().join("c.png").to_str().unwrap()).unwrap().0, "there");
        let reported = Lookup::new(Path::new("images")).missing("/a/b/c.png");
        assert_eq!(
            reported,
            "no picture `/a/b/c.png`, and none in `images` by the end of that path, from `a/b/c.png` to `c.png`"
        );
    }

    #[test]
    fn a_name_is_found_under_a_unique_other_spelling() {
        let (composed, apart) = ("caf\u{e9}.png", "cafe\u{301}.png");
        let there = folder(&[apart, "Sub/b.png", "A.PNG", "x/Photo.JPG", "X/other.png"]);
        let found = |written: &str| found(there.path(), written);
        let respelled = |path: &str| Some(("respelled", path.to_owned()));
        assert_eq!(found(composed), respelled(apart));
        assert_eq!(found("CAF\u{c9}.png"), respelled(apart));
        assert_eq!(found("Sub\\b.png"), respelled("Sub/b.png"));
        assert_eq!(found("sub\\B.png"), respelled("Sub/b.png"));
        assert_eq!(found("a.png"), respelled("A.PNG"));
        assert_eq!(found(".\\x\\photo.jpg"), respelled("x/Photo.JPG"));
        assert_eq!(found(apart), Some(("there", apart.to_owned())));
        assert_eq!(found("Sub"), None, "a directory is no picture");
    }

    #[test]
    fn an_ambiguous_name_is_not_found_and_reported() {
        let there = folder(&["a.PNG", "A.png", "cat.jpeg", "sub/dog_01.jpg"]);
        let lookup = Lookup::new(there.path());
        assert_eq!(lookup.find("a.png"), None);
        assert!(lookup.missing("a.png").ends_with("; did you mean `A.png` or `a.PNG`?"), "{}", lookup.missing("a.png"));
        assert!(lookup.missing("cat.jpg").ends_with("/cat.jpg`; did you mean `cat.jpeg`?"));
        assert!(lookup.missing("Sub\\dog-01.jpg").ends_with("; did you mean `sub/dog_01.jpg`?"));
        assert!(lookup.missing("/gone/sub/dog_01.png").ends_with("; did you mean `sub/dog_01.jpg`?"));
        assert!(lookup.missing("zebra.webp").ends_with("/zebra.webp`"));
        // Of two that differ in case, the one that differs in accents alone is meant.
        let there = folder(&["cafe\u{301}.png", "CAF\u{c9}.png"]);
        assert_eq!(found(there.path(), "caf\u{e9}.png").unwrap().1, "cafe\u{301}.png");
    }

    proptest! {
        #[test]
        fn any_name_is_looked_for(written in prop_oneof![any::<String>(), r"[/\\.:aA b]{0,12}"]) {
            let there = folder(&["a/b.png"]);
            let lookup = Lookup::new(there.path());
            if let Some(found) = lookup.find(&written) {
                prop_assert!(found.into_path().is_file());
            }
            prop_assert!(lookup.missing(&written).starts_with("no picture `"));
        }
    }
}
