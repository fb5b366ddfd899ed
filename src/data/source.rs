//! Where pictures and records are read from: a directory, a glob, a list of paths, or LLaVA-style JSON.
//!
//! An [`Entry`] is what a source says, before any picture is opened. This module does not know identities, nor which
//! entries are taken.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use globset::GlobBuilder;
use serde_json::{Map, Value};
use walkdir::WalkDir;

use super::fields::{fields_of, names, system_beside, take_conversation, take_picture, unread_answer};
use super::picture::{HEAD, is_picture};
use super::record_notes::RecordNote;
use super::records::{Place, RawRecord, each_line, each_record, has_extension, is_records};
use super::sniff::{TABLE, WrongContent};
use super::turns::{place_image, read_turns};
use crate::artifact::Turn;

/// What a source says of one picture or record.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place in its file; `None` for a picture found in a directory.
    pub place: Option<Place>,
    /// The id that the source gives: a label, not an identity.
    pub name: Option<String>,
    /// The picture's name as the source has it: relative to the directory, or as the file writes it.
    pub written: Option<String>,
    /// The path of the picture.
    pub picture: Option<PathBuf>,
    /// The conversation about it, with `<image>` where there is a picture.
    pub conversations: Option<Vec<Turn>>,
    /// The other fields.
    pub fields: Map<String, Value>,
    /// What was done to read it.
    pub remarks: Vec<RecordNote>,
}

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is nothing by this name.
    #[error("`{}` does not exist", .0.display())]
    Missing(PathBuf),
    /// It cannot be opened or read.
    #[error("`{}`: {cause}", .path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// It is not JSON; the cause names line and column.
    #[error("`{}` is not valid JSON: {cause}", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// It is a file of another kind.
    #[error("`{}`: {found}", .path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What.
        found: WrongContent,
    },
    /// It is JSON, but not an array of records.
    #[error("`{}` is not a JSON array of records (JSON Lines files must have the extension `.jsonl`)", .0.display())]
    NoArray(PathBuf),
    /// A record is invalid.
    #[error("`{}`, {place}: {cause}", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// `line 3`, `record 3`.
        place: Place,
        /// Why.
        cause: String,
    },
    /// An invalid glob.
    #[error("`{pattern}` is not a glob: {cause}")]
    Glob {
        /// What is written.
        pattern: String,
        /// Why.
        cause: String,
    },
}

/// Mistakes in the records of a file: the count of all, and the first few.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowErrors {
    count: usize,
    first: Vec<String>,
}

impl RowErrors {
    /// How many are listed.
    const LISTED: usize = 10;

    /// Adds a mistake at `place`.
    pub fn add(&mut self, place: impl fmt::Display, cause: impl fmt::Display) {
        self.add_with(place, || cause);
    }

    /// Adds a mistake at `place`; `cause` is only called if it will be listed.
    pub fn add_with<C: fmt::Display>(&mut self, place: impl fmt::Display, cause: impl FnOnce() -> C) {
        self.count += 1;
        if self.first.len() < Self::LISTED {
            self.first.push(format!("{place}: {}", cause()));
        }
    }

    /// The number of mistakes.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The mistakes in the file called `name`: one after its name, several on lines below `headline`; `None` if there
    /// are none.
    pub fn reported(&self, name: impl fmt::Display, headline: impl FnOnce(usize) -> String) -> Option<String> {
        if let ([only], 1) = (self.first.as_slice(), self.count) {
            return Some(format!("{name}, {only}"));
        }
        let mut lines = vec![headline(self.count)];
        lines.extend(self.first.iter().cloned());
        let rest = self.count - self.first.len();
        lines.extend((rest > 0).then(|| format!("and {rest} more")));
        (self.count > 0).then(|| lines.join("\n"))
    }
}

/// Takes an entry, or a mistake in its place; an error stops the reading.
pub type TakeEntry<'a> = dyn FnMut(Result<Entry, SourceError>) -> Result<(), SourceError> + 'a;

/// The other files in a directory of pictures, except hidden ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassedOver {
    /// The number of files by extension in lower case, `""` for none.
    files: BTreeMap<String, usize>,
    /// Directories with a `CACHEDIR.TAG`, which are skipped.
    pub caches: Vec<PathBuf>,
}

/// How the `CACHEDIR.TAG` of a cache begins, <https://bford.info/cachedir/>.
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

impl PassedOver {
    /// How many kinds are reported.
    const KINDS: usize = 8;

    /// Formats of pictures that are not read, by their extensions.
    const UNREAD: [&str; 9] = ["avif", "heic", "heif", "jp2", "jxl", "pdf", "psd", "raw", "svg"];

    fn add(&mut self, path: &Path) {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        *self.files.entry(extension.unwrap_or_default()).or_default() += 1;
    }

    /// Whether there is no such file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether some are pictures in a format that is not read.
    pub fn has_unread_pictures(&self) -> bool {
        Self::UNREAD.iter().any(|extension| self.files.contains_key(*extension))
    }
}

/// The files, for people, the most frequent first: `3 files (2 .txt, 1 without extension)`. Empty when there are none.
impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds: Vec<(&String, usize)> =
            self.files.iter().map(|(extension, count)| (extension, *count)).collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let count: usize = kinds.iter().map(|(_, count)| count).sum();
        let mut reported: Vec<String> = kinds
            .iter()
            .take(Self::KINDS)
            .map(|(extension, count)| match extension.as_str() {
                "" => format!("{count} without extension"),
                extension => format!("{count} .{extension}"),
            })
            .collect();
        let rest: usize = kinds.iter().skip(Self::KINDS).map(|(_, count)| count).sum();
        reported.extend((rest > 0).then(|| format!("{rest} of other kinds")));
        match count {
            0 => Ok(()),
            1 => write!(f, "1 file ({})", reported[0]),
            _ => write!(f, "{count} files ({})", reported.join(", ")),
        }
    }
}

/// Hands every entry of `from` to `take`, directories and globs by path, files as written; returns which files of a
/// directory or glob were passed over.
///
/// `from` is a directory (searched to any depth for pictures, which their content tells, or their extension when it is
/// that of a format that is read), a glob, a picture, a `.json` array or a `.jsonl` file of records, or any other file:
/// a list, one path a line. Relative names in files are looked up in `images`, by default the file's directory.
///
/// # Errors
/// When the source as a whole cannot be read (see [`SourceError`]), and what `take` reports.
pub fn each_entry(from: &Path, images: Option<&Path>, take: &mut TakeEntry<'_>) -> Result<PassedOver, SourceError> {
    if from.is_dir() {
        return walk(from, None, take);
    }
    if !from.exists() {
        let (base, pattern) = split_glob(from).ok_or_else(|| SourceError::Missing(from.to_owned()))?;
        return if base.is_dir() { walk(&base, Some(&pattern), take) } else { Err(SourceError::Missing(base)) };
    }
    let images = images.or(from.parent()).unwrap_or(Path::new(""));
    let wrong = |place, cause| SourceError::Record { path: from.to_owned(), place, cause };
    if is_records(from) {
        each_record(from, &mut |place, record| {
            let entry = record.and_then(|record| read_entry(record, place, images));
            take(entry.map_err(|cause| wrong(place, cause)))
        })?;
        return Ok(PassedOver::default());
    }
    if names_picture(from) || holds_picture(from) {
        let written = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        take(Ok(picture_entry(written, from.to_owned(), None)))?;
        return Ok(PassedOver::default());
    }
    if has_extension(from, &["csv", "tsv"]) {
        return Err(SourceError::Other { path: from.to_owned(), found: TABLE });
    }
    each_line(from, &mut |number, line| {
        let place = Place::Line(number);
        let text = line.and_then(|line| std::str::from_utf8(line).map_err(|_| "the line is not UTF-8"));
        let written = match text {
            Ok(written) => written,
            Err(cause) => return take(Err(wrong(place, format!("not a list of paths: {cause}")))),
        };
        let written = written.trim();
        if written.starts_with('#') && !images.join(written).exists() {
            return Ok(());
        }
        if let Err(cause) = names(&Value::from(written)) {
            return take(Err(wrong(place, format!("`{written}` {cause}"))));
        }
        take(Ok(picture_entry(written.to_owned(), images.join(written), Some(place))))
    })?;
    Ok(PassedOver::default())
}

/// Whether the file is called a picture: what is not one, or broken, in a file so named is a mistake to be reported.
fn names_picture(path: &Path) -> bool {
    let known = ["bmp", "gif", "jpeg", "jpg", "pbm", "pgm", "png", "ppm", "tif", "tiff", "webp"];
    has_extension(path, &known)
}

/// Whether the file's content is a picture, regardless of its name. An unreadable file is not.
fn holds_picture(path: &Path) -> bool {
    let mut head = Vec::with_capacity(HEAD);
    let read = File::open(path).and_then(|file| file.take(HEAD as u64).read_to_end(&mut head));
    read.is_ok() && is_picture(&head)
}

fn picture_entry(written: String, picture: PathBuf, place: Option<Place>) -> Entry {
    let (written, picture) = (Some(written), Some(picture));
    Entry { place, name: None, written, picture, conversations: None, fields: Map::new(), remarks: Vec::new() }
}

/// The pictures below `base`, with a `pattern` those that match it. Hidden ones are left out (some systems leave
/// `._name.jpg` beside every picture), and so are those in caches: what a run puts into its own cache would be sampled
/// by the next.
fn walk(base: &Path, pattern: Option<&str>, take: &mut TakeEntry<'_>) -> Result<PassedOver, SourceError> {
    let glob = |pattern: &str| {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        let cause = |error: globset::Error| error.kind().to_string();
        glob.map(|glob| glob.compile_matcher())
            .map_err(|error| SourceError::Glob { pattern: pattern.to_owned(), cause: cause(error) })
    };
    let matcher = pattern.map(glob).transpose()?;
    let mut found = Vec::new();
    let mut passed_over = PassedOver::default();
    let visible = |name: &std::ffi::OsStr| !name.as_encoded_bytes().starts_with(b".");
    let mut entries = WalkDir::new(base).follow_links(true).into_iter();
    while let Some(entry) = entries.next() {
        let path = match entry {
            Ok(entry) if entry.depth() > 0 && !visible(entry.file_name()) => {
                if entry.file_type().is_dir() {
                    entries.skip_current_dir();
                }
                continue;
            }
            // A cache that is named itself is meant.
            Ok(entry) if entry.depth() > 0 && entry.file_type().is_dir() && is_cache(entry.path()) => {
                passed_over.caches.push(entry.into_path());
                entries.skip_current_dir();
                continue;
            }
            Ok(entry) if !entry.file_type().is_file() => continue,
            Ok(entry) => entry.into_path(),
            // What a link leads back to is looked through anyway.
            Err(error) if error.loop_ancestor().is_some() => continue,
            Err(error) => match error.path().filter(|path| path.is_symlink() && !path.exists()) {
                // A link to nothing is a picture that cannot be read, not a directory that cannot.
                Some(path) => path.to_owned(),
                None => {
                    let path = error.path().unwrap_or(base).to_owned();
                    let cause = error.into_io_error().unwrap_or_else(|| std::io::ErrorKind::Other.into());
                    return Err(SourceError::Unreadable { path, cause });
                }
            },
        };
        if !path.file_name().is_none_or(visible) {
            continue;
        }
        let relative = path.strip_prefix(base).unwrap_or(&path);
        if matcher.as_ref().is_some_and(|matcher| !matcher.is_match(relative)) {
            continue;
        }
        if names_picture(&path) || holds_picture(&path) {
            found.push((relative.to_string_lossy().replace('\\', "/"), path));
        } else {
            passed_over.add(&path);
        }
    }
    found.sort();
    passed_over.caches.sort();
    found.into_iter().try_for_each(|(written, path)| take(Ok(picture_entry(written, path, None))))?;
    Ok(passed_over)
}

/// Whether a directory says that it is a cache.
fn is_cache(folder: &Path) -> bool {
    let mut head = [0; CACHE_SIGNATURE.len()];
    let tag = File::open(folder.join("CACHEDIR.TAG"));
    tag.and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == CACHE_SIGNATURE
}

/// The part of `path` before its first component with a wildcard, and the rest. `None` when there is no wildcard.
fn split_glob(path: &Path) -> Option<(PathBuf, String)> {
    let wild =
        |component: &std::path::Component<'_>| component.as_os_str().to_string_lossy().contains(['*', '?', '[', '{']);
    // A directory on the way may have such a character in its name: what exists is no pattern.
    let mut base = PathBuf::new();
    let mut rest: Vec<String> = Vec::new();
    for component in path.components() {
        if rest.is_empty() && (!wild(&component) || base.join(component).exists()) {
            base.push(component);
        } else {
            rest.push(component.as_os_str().to_string_lossy().into_owned());
        }
    }
    let base = if base.as_os_str().is_empty() { PathBuf::from(".") } else { base };
    (!rest.is_empty()).then(|| (base, rest.join("/")))
}

/// An element of LLaVA-style data: an object with `id`, `image`, `conversations` and others, or a picture's name.
fn read_entry(record: RawRecord, place: Place, images: &Path) -> Result<Entry, String> {
    let RawRecord { value, mut remarks } = record;
    let place = Some(place);
    let mut fields = match value {
        Value::Object(fields) => fields,
        Value::String(written) => {
            let picture = images.join(&written);
            return Ok(Entry { remarks, ..picture_entry(written, picture, place) });
        }
        _ => return Err("neither a record nor the name of a picture".to_owned()),
    };
    let name = match fields.shift_remove("id") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name),
        Some(Value::Number(name)) => Some(name.to_string()),
        Some(_) => return Err("`id` is neither a string nor a number".to_owned()),
    };
    let read = take_conversation(&mut fields)?.map(|turns| read_turns(&turns)).transpose()?;
    let inline = read.as_ref().map_or(&[][..], |read| &read.pictures);
    let (written, remark) = take_picture(&mut fields, inline)?;
    remarks.extend(remark);
    let conversations = match read {
        Some(mut read) => {
            remarks.extend(system_beside(&fields).filter(|remark| !read.remarks.contains(remark)));
            place_image(&mut read.turns, written.is_some())?;
            remarks.extend(read.remarks);
            Some(read.turns)
        }
        None if written.is_none() => {
            return Err(format!("the record has neither `image` nor `conversations`{}", fields_of(&fields)));
        }
        None => {
            remarks.extend(unread_answer(&fields));
            None
        }
    };
    let picture = written.as_ref().map(|written| images.join(written));
    Ok(Entry { place, name, written, picture, conversations, fields, remarks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn entries(from: &Path, images: Option<&Path>) -> Result<Vec<Entry>, String> {
        let mut entries = Vec::new();
        let mut take = |entry: Result<Entry, SourceError>| entry.map(|entry| entries.push(entry));
        each_entry(from, images, &mut take).map_err(|error| error.to_string())?;
        Ok(entries)
    }

    fn written(from: &Path) -> Vec<String> {
        entries(from, None).unwrap().into_iter().map(|entry| entry.written.unwrap()).collect()
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_is_searched_to_any_depth_and_sorted_by_path() {
        let folder =
            folder(&[("b.JPG", ""), ("a/z.png", ""), ("a/._z.png", ""), ("notes.txt", ""), (".git/x.png", "")]);
        assert_eq!(written(folder.path()), ["a/z.png", "b.JPG"]);
        assert_eq!(entries(folder.path(), None).unwrap()[0].picture, Some(folder.path().join("a/z.png")));
    }

    #[test]
    fn pictures_in_a_folder_are_reported_by_content_and_the_rest_is_counted_by_extension() {
        let files = [
            ("a.jpg", ""),
            ("b.JPEG", ""),
            ("c.jfif", "\u{1}"),
            ("d.jpe", "\u{1}"),
            ("e.mpo", "\u{1}"),
            ("noending", "GIF89a"),
            ("f.dib", "BM"),
            ("g.apng", "GIF87a"),
            ("h.pnm", "P6 1 1 255\n"),
            ("i.txt", "P.S. no picture"),
            ("j.TXT", ""),
            ("k.heic", "\0\0\0\u{18}ftypheic"),
            ("README", "Pictures"),
        ];
        let folder = folder(&files);
        for name in ["c.jfif", "d.jpe", "e.mpo"] {
            std::fs::write(folder.path().join(name), b"\xFF\xD8\xFF\xE0").unwrap();
        }
        let mut names = Vec::new();
        let mut take =
            |entry: Result<Entry, SourceError>| entry.map(|entry| names.push(entry.written.unwrap_or_default()));
        let passed_over = each_entry(folder.path(), None, &mut take).unwrap();
        let taken = ["a.jpg", "b.JPEG", "c.jfif", "d.jpe", "e.mpo", "f.dib", "g.apng", "h.pnm", "noending"];
        assert_eq!(names, taken);
        assert_eq!(passed_over.to_string(), "4 files (2 .txt, 1 without extension, 1 .heic)");
        assert!(passed_over.has_unread_pictures());
        assert_eq!(written(&folder.path().join("noending")), ["noending"], "not a list of paths");
    }

    #[test]
    fn a_glob_takes_what_it_matches() {
        let folder = folder(&[("a/1.jpg", ""), ("a/2.png", ""), ("b/c/3.jpg", ""), ("[x]/4.jpg", "")]);
        assert_eq!(written(&folder.path().join("**/*.jpg")), ["[x]/4.jpg", "a/1.jpg", "b/c/3.jpg"]);
        assert_eq!(written(&folder.path().join("a/*")), ["1.jpg", "2.png"]);
        assert_eq!(written(&folder.path().join("[x]/*.jpg")), ["4.jpg"]);
        assert!(entries(&folder.path().join("a[/*"), None).unwrap_err().contains("is not a glob"));
        assert!(entries(&folder.path().join("none/*.jpg"), None).unwrap_err().contains("does not exist"));
        assert!(entries(&folder.path().join("none"), None).unwrap_err().contains("does not exist"));
    }

    #[test]
    fn what_a_glob_matches_and_is_no_picture_is_passed_over_as_in_a_folder() {
        let folder = folder(&[("1.jpg", ""), ("Thumbs.db", "x"), ("2.heic", "\0\0\0\u{18}ftypheic"), ("b/3.txt", "")]);
        let mut names = Vec::new();
        let mut take =
            |entry: Result<Entry, SourceError>| entry.map(|entry| names.push(entry.written.unwrap_or_default()));
        let passed_over = each_entry(&folder.path().join("*"), None, &mut take).unwrap();
        assert_eq!(names, ["1.jpg"]);
        assert_eq!(passed_over.to_string(), "2 files (1 .db, 1 .heic)");
    }

    #[test]
    fn caches_are_passed_over_or_a_run_would_sample_what_the_last_one_made() {
        let tag = "Signature: 8a477f597d28d172789f06886806bc55\n# of any program\n";
        let folder = folder(&[
            ("a/1.jpg", ""),
            ("cache/CACHEDIR.TAG", tag),
            ("cache/objects/2", "GIF89a"),
            ("tagged/CACHEDIR.TAG", "of nothing"),
            ("tagged/3.jpg", ""),
        ]);
        for from in [folder.path().to_owned(), folder.path().join("**/*")] {
            let mut names = Vec::new();
            let mut take =
                |entry: Result<Entry, SourceError>| entry.map(|entry| names.push(entry.written.unwrap_or_default()));
            let passed_over = each_entry(&from, None, &mut take).unwrap();
            assert_eq!(names, ["a/1.jpg", "tagged/3.jpg"]);
            assert_eq!(passed_over.caches, [folder.path().join("cache")]);
        }
        assert_eq!(written(&folder.path().join("cache")), ["objects/2"], "what is named itself is meant");
    }

    #[test]
    fn a_list_is_read_line_by_line() {
        let folder = folder(&[("list.txt", "b.jpg\r\n\na.jpg\n")]);
        let read = entries(&folder.path().join("list.txt"), Some(Path::new("/pictures"))).unwrap();
        assert_eq!(read[0].picture.as_deref(), Some(Path::new("/pictures/b.jpg")));
        assert_eq!(written(&folder.path().join("list.txt")), ["b.jpg", "a.jpg"]);
    }

    #[test]
    fn comments_in_a_list_are_passed_over_and_addresses_are_no_files() {
        let folder =
            folder(&[("list.txt", "# mine\na.jpg\n"), ("web.txt", "https://x.org/a.jpg\n"), ("t.csv", "image,a\n")]);
        assert_eq!(written(&folder.path().join("list.txt")), ["a.jpg"]);
        let cause = |name: &str| entries(&folder.path().join(name), None).unwrap_err();
        assert!(cause("web.txt").contains("line 1: `https://x.org/a.jpg` is a URL"));
        assert!(cause("t.csv").ends_with("a table, not records or a list of paths"));
    }

    #[test]
    fn one_slip_that_spoils_every_line_is_one_message() {
        for (name, text, reported) in [
            ("a.jsonl", "{\n \"image\": \"a\"\n}\n", "records that span several lines"),
            ("a.jsonl", "{\"image\": \"a\"}\r{\"image\": \"b\"}", "lines that end with a bare carriage return"),
            ("a.jsonl", "{'image': 'a'}\n", "Python object syntax"),
            ("a.json", "[{'image': 'a'}]", "Python object syntax"),
            ("a.json", "{\"data\": [{\"image\": \"a\"}]}", "one object with the records under a key"),
        ] {
            let folder = folder(&[(name, text)]);
            let error = entries(&folder.path().join(name), None).unwrap_err();
            assert!(error.contains(reported), "{error}");
        }
        let folder = folder(&[("a.jsonl", "{\"image\": \"a\"}\r\n{\"image\": \"b\"}\r\n")]);
        assert_eq!(written(&folder.path().join("a.jsonl")), ["a", "b"]);
    }

    #[test]
    fn records_keep_what_is_not_known() {
        let records = json!([
            {"id": 7, "image": "a.jpg", "source": {"set": "vg"}, "conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]},
            {"id": "x", "conversations": [{"from": "gpt", "value": "Hi"}, {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
            "b.jpg",
        ]);
        let folder = folder(&[("r.json", &records.to_string())]);
        let read = entries(&folder.path().join("r.json"), None).unwrap();
        assert_eq!(read[0].name.as_deref(), Some("7"));
        assert_eq!(read[0].picture, Some(folder.path().join("a.jpg")));
        assert_eq!(read[0].fields["source"]["set"], "vg");
        assert_eq!(read[0].conversations.as_ref().unwrap()[0].value, "<image>\nWhat?");
        assert_eq!(read[1].conversations.as_ref().unwrap()[0].value, "Why?");
        assert_eq!((read[1].picture.is_none(), read[2].written.as_deref()), (true, Some("b.jpg")));
    }

    #[test]
    fn broken_records_are_named_by_their_place() {
        let cause = |name: &str, text: &str| {
            let folder = folder(&[(name, text)]);
            entries(&folder.path().join(name), None).unwrap_err().rsplit('/').next().unwrap().to_owned()
        };
        assert!(
            cause("a.jsonl", "{\"image\": \"a\"}\n\n{\"image\": }\n").starts_with("a.jsonl`, line 3: not valid JSON")
        );
        assert!(cause("a.json", "{\"image\": \"a\"}").starts_with("a.json` is not a JSON array of records"));
        assert!(
            cause("a.jsonl", "[{\"image\": \"a\"},").starts_with("a.jsonl` is not valid JSON: unexpected end of file")
        );
        assert!(cause("a.json", "").starts_with("a.json`: an empty file"));
        assert_eq!(
            cause("a.json", "[{\"image\": \"a\"}, {\"file\": 3}]"),
            "a.json`, record 2: the record has neither `image` nor `conversations` (it has `file`)"
        );
        assert_eq!(
            cause("a.json", "[{\"image\": [\"a\", \"b\"]}]"),
            "a.json`, record 1: `image` names 2 pictures; a record can have only one"
        );
        assert_eq!(cause("a.jsonl", "3"), "a.jsonl`, line 1: neither a record nor the name of a picture");
    }

    #[test]
    fn records_of_other_tools_are_read_as_those_of_llava() {
        let turns = json!([{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]);
        let parts = json!([
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "That."}]},
        ]);
        let plain = json!([{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]);
        let records = json!([
            {"image": "a.png", "conversations": turns},
            {"image": ["a.png"], "conversations": turns},
            {"images": ["a.png"], "conversations": plain},
            {"messages": parts, "images": ["a.png"]},
            {"img": "a.png", "conversations": plain},
        ]);
        let folder = folder(&[("r.json", &records.to_string())]);
        let read = entries(&folder.path().join("r.json"), None).unwrap();
        for entry in &read {
            assert_eq!((&entry.picture, &entry.conversations), (&read[0].picture, &read[0].conversations), "{entry:?}");
            assert!(entry.fields.is_empty());
        }
        assert_eq!(read[4].remarks, [RecordNote::Key("img".to_owned())]);
    }

    #[test]
    fn a_question_and_an_answer_in_fields_are_no_conversation() {
        let records = json!([
            {"image": "a.png", "question": "What?", "answer": "That."},
            {"image": "a.png", "query": "What?", "response": "That."},
            {"image": "a.png", "caption": "That."},
        ]);
        let folder = folder(&[("r.json", &records.to_string())]);
        let read = entries(&folder.path().join("r.json"), None).unwrap();
        assert_eq!(read[0].remarks, [RecordNote::UnreadAnswer("answer".to_owned())]);
        assert_eq!(read[1].remarks, [RecordNote::UnreadAnswer("response".to_owned())]);
        assert!(read[2].remarks.is_empty() && read[2].fields.contains_key("caption"));
    }

    #[test]
    #[cfg(unix)]
    fn links_to_nothing_are_pictures_that_are_not_there_and_links_back_are_nothing() {
        let folder = folder(&[("a/1.png", "")]);
        std::os::unix::fs::symlink("nowhere.png", folder.path().join("dangling.png")).unwrap();
        std::os::unix::fs::symlink("nowhere.png", folder.path().join(".#hidden.png")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("dangling")).unwrap();
        std::os::unix::fs::symlink("..", folder.path().join("a/back")).unwrap();
        assert_eq!(written(folder.path()), ["a/1.png", "dangling.png"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_entries_or_an_error(name in prop::sample::select(vec!["a.json", "a.jsonl", "a.txt"]), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(name), bytes).unwrap();
            let _ = entries(&folder.path().join(name), None);
        }
    }
}
