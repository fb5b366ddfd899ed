//! Where pictures and records are read from: a folder, a glob, a list of paths, or LLaVA-style JSON.
//!
//! An [`Entry`] is what a source says, before any picture is opened. This module does not know identities, nor which
//! entries are taken.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use globset::GlobBuilder;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Value};
use walkdir::WalkDir;

use super::picture::{HEAD, is_picture};
use super::sniff::{Found, behind_mark};
use super::turns::{place_image, read_turns};
use crate::artifact::Turn;

/// What a source says of one picture or record.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where in its file it stands; `None` for what is found in a folder.
    pub place: Option<Place>,
    /// The id that the source gives: a label, not an identity.
    pub name: Option<String>,
    /// The picture's name as the source has it: relative to the folder, or as the file writes it.
    pub written: Option<String>,
    /// Where the picture lies.
    pub picture: Option<PathBuf>,
    /// The conversation about it, with `<image>` where there is a picture.
    pub conversations: Option<Vec<Turn>>,
    /// The other fields.
    pub fields: Map<String, Value>,
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
        /// The file or folder.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// It is not JSON; the cause names line and column.
    #[error("`{}` is not sound JSON: {cause}", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: serde_json::Error,
    },
    /// Something else stands in its place.
    #[error("`{}`: {found}", .path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What.
        found: Found,
    },
    /// It is JSON, but not an array of records.
    #[error("`{}` is not a JSON array of records (one object a line is read from a file called `.jsonl`)", .0.display())]
    NoArray(PathBuf),
    /// A record is not as it should be.
    #[error("`{}`, {place}: {cause}", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// `line 3`, `record 3`.
        place: Place,
        /// Why.
        cause: String,
    },
    /// The glob is not one.
    #[error("`{pattern}` is not a glob: {cause}")]
    Glob {
        /// What is written.
        pattern: String,
        /// Why.
        cause: String,
    },
}

/// Where in a file a record stands, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line.
    Line(usize),
    /// An element of an array.
    Record(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Record(record) => write!(f, "record {record}"),
        }
    }
}

/// What is wrong with a file, record by record: all is counted, the first of it kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    count: usize,
    first: Vec<String>,
}

impl Faults {
    /// How many are kept to be told.
    const TOLD: usize = 10;

    /// Adds what is wrong at `place`.
    pub fn add(&mut self, place: impl fmt::Display, cause: impl fmt::Display) {
        self.count += 1;
        if self.first.len() < Self::TOLD {
            self.first.push(format!("{place}: {cause}"));
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What is wrong with the file called `name`, for people: behind its name, or a line each below `headline` when
    /// there are several; `None` when there is nothing.
    pub fn told(&self, name: impl fmt::Display, headline: impl FnOnce(usize) -> String) -> Option<String> {
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

/// Takes an entry, or what is wrong where one should be; an error ends the reading.
pub type TakeEntry<'a> = dyn FnMut(Result<Entry, SourceError>) -> Result<(), SourceError> + 'a;

/// What a folder holds beside its pictures, hidden files aside: how many files by extension, in lower case, `""` for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassedOver(BTreeMap<String, usize>);

impl PassedOver {
    /// How many kinds are told.
    const TOLD: usize = 8;

    /// Formats of pictures that are not read, by their extensions.
    const UNREAD: [&str; 9] = ["avif", "heic", "heif", "jp2", "jxl", "pdf", "psd", "raw", "svg"];

    fn add(&mut self, path: &Path) {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        *self.0.entry(extension.unwrap_or_default()).or_default() += 1;
    }

    /// Whether some are pictures in a format that is not read.
    pub fn has_unread_pictures(&self) -> bool {
        Self::UNREAD.iter().any(|extension| self.0.contains_key(*extension))
    }
}

/// For people, the most frequent first: `3 files (2 .txt, 1 without extension)`. Empty when there are none.
impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds: Vec<(&String, usize)> = self.0.iter().map(|(extension, count)| (extension, *count)).collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let count: usize = kinds.iter().map(|(_, count)| count).sum();
        let mut told: Vec<String> = kinds
            .iter()
            .take(Self::TOLD)
            .map(|(extension, count)| match extension.as_str() {
                "" => format!("{count} without extension"),
                extension => format!("{count} .{extension}"),
            })
            .collect();
        let rest: usize = kinds.iter().skip(Self::TOLD).map(|(_, count)| count).sum();
        told.extend((rest > 0).then(|| format!("{rest} of other kinds")));
        match count {
            0 => Ok(()),
            1 => write!(f, "1 file ({})", told[0]),
            _ => write!(f, "{count} files ({})", told.join(", ")),
        }
    }
}

/// Hands every entry of `from` to `take`, folders and globs by path, files as written; returns which files of a folder
/// were passed over.
///
/// `from` is a folder (searched to any depth for pictures, which their content tells, or their extension when it is
/// that of a format that is read), a glob, a picture, a `.json` array or a `.jsonl` file of records, or any other file: a
/// list, one path a line. Relative names in files are looked up in `images`, by default the file's folder.
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
        each_record(from, &mut |place, value| {
            let entry = value.and_then(|value| read_entry(value, place, images));
            take(entry.map_err(|cause| wrong(place, cause)))
        })?;
        return Ok(PassedOver::default());
    }
    if names_picture(from) || holds_picture(from) {
        let written = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        take(Ok(picture_entry(written, from.to_owned(), None)))?;
        return Ok(PassedOver::default());
    }
    each_line(from, &mut |number, line| {
        let place = Place::Line(number);
        let Ok(written) = std::str::from_utf8(line) else {
            return take(Err(wrong(place, "not a list of paths: the line is not UTF-8".to_owned())));
        };
        let written = written.trim();
        take(Ok(picture_entry(written.to_owned(), images.join(written), Some(place))))
    })?;
    Ok(PassedOver::default())
}

/// Where below `images` the picture is that a file calls `written`, when that is a whole path which is not here: files
/// move between machines, with the paths in them. The longest end of the path that is there counts, at least the
/// file's name. `None` when `written` is relative, is here, or nothing is found.
pub fn found_elsewhere(images: &Path, written: &str) -> Option<PathBuf> {
    let ends = ends(written);
    if ends.is_empty() || Path::new(written).exists() {
        return None;
    }
    ends.iter().map(|end| images.join(end)).find(|path| path.is_file())
}

/// That there is no picture `written`, and where it was looked for.
pub fn missing_picture(images: &Path, written: &str) -> String {
    let joined = images.join(written);
    let images = if images.as_os_str().is_empty() { Path::new(".") } else { images };
    match ends(written).as_slice() {
        [] => format!("there is no picture `{}`", joined.display()),
        [name] => format!("there is no picture `{written}`, and no `{name}` in `{}`", images.display()),
        [longest, .., name] => format!(
            "there is no picture `{written}`, and nothing in `{}` by an end of that path, from `{longest}` to `{name}`",
            images.display()
        ),
    }
}

/// The ends of a whole path, of this system or another, the longest first; none of a relative name.
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

/// Whether the file holds records rather than a list of paths, by its extension.
pub fn is_records(path: &Path) -> bool {
    is_lines(path) || has_extension(path, &["json"])
}

fn is_lines(path: &Path) -> bool {
    has_extension(path, &["jsonl", "ndjson"])
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| extensions.iter().any(|known| known.eq_ignore_ascii_case(extension)))
}

/// Whether the file is called a picture: what is not one, or broken, in a file so named is a mistake to be told.
fn names_picture(path: &Path) -> bool {
    let known = ["bmp", "gif", "jpeg", "jpg", "pbm", "pgm", "png", "ppm", "tif", "tiff", "webp"];
    has_extension(path, &known)
}

/// Whether the file's content is a picture, whatever its name. One that cannot be read is none.
fn holds_picture(path: &Path) -> bool {
    let mut head = Vec::with_capacity(HEAD);
    let read = File::open(path).and_then(|file| file.take(HEAD as u64).read_to_end(&mut head));
    read.is_ok() && is_picture(&head)
}

fn picture_entry(written: String, picture: PathBuf, place: Option<Place>) -> Entry {
    Entry { place, name: None, written: Some(written), picture: Some(picture), conversations: None, fields: Map::new() }
}

/// The files below `base`: those that match `pattern`, or the pictures. Hidden ones are left out (some systems leave
/// `._name.jpg` beside every picture).
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
    let entries = WalkDir::new(base).follow_links(true).into_iter();
    for entry in entries.filter_entry(|entry| entry.depth() == 0 || visible(entry.file_name())) {
        let path = match entry {
            Ok(entry) if !entry.file_type().is_file() => continue,
            Ok(entry) => entry.into_path(),
            // What a link leads back to is looked through anyway.
            Err(error) if error.loop_ancestor().is_some() => continue,
            Err(error) => match error.path().filter(|path| path.is_symlink() && !path.exists()) {
                // A link to nothing is a picture that cannot be read, not a folder that cannot.
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
        let wanted = match &matcher {
            Some(matcher) => matcher.is_match(relative),
            None => names_picture(&path) || holds_picture(&path),
        };
        if wanted {
            found.push((relative.to_string_lossy().replace('\\', "/"), path));
        } else if matcher.is_none() {
            passed_over.add(&path);
        }
    }
    found.sort();
    found.into_iter().try_for_each(|(written, path)| take(Ok(picture_entry(written, path, None))))?;
    Ok(passed_over)
}

/// The part of `path` before its first component with a wildcard, and the rest. `None` when there is no wildcard.
fn split_glob(path: &Path) -> Option<(PathBuf, String)> {
    let wild =
        |component: &std::path::Component<'_>| component.as_os_str().to_string_lossy().contains(['*', '?', '[', '{']);
    // A folder on the way may have such a character in its name: what exists is no pattern.
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

/// Takes a record at its place, or what is wrong with it; an error ends the reading.
pub type TakeRecord<'a> = dyn FnMut(Place, Result<Value, String>) -> Result<(), SourceError> + 'a;

/// Hands every element of an array, or every line of a `.jsonl` file that is none, to `take`; none is held.
///
/// # Errors
/// When the file as a whole cannot be read (see [`SourceError`]), and what `take` reports.
pub fn each_record(path: &Path, take: &mut TakeRecord<'_>) -> Result<(), SourceError> {
    let unreadable = |cause| SourceError::Unreadable { path: path.to_owned(), cause };
    let mut reader = open(path)?;
    let first = reader.fill_buf().map_err(unreadable)?.trim_ascii_start().first().copied();
    let array = first.is_none_or(|first| first == b'[');
    if is_lines(path) && (first.is_none() || !array) {
        return each_line(path, &mut |number, line| {
            let value = serde_json::from_slice(line).map_err(|error| {
                format!("not sound JSON: {}", error.to_string().replace(" at line 1 column", ", column"))
            });
            take(Place::Line(number), value)
        });
    }
    if !array {
        return Err(SourceError::NoArray(path.to_owned()));
    }
    let mut failure = None;
    let mut json = serde_json::Deserializer::from_reader(reader);
    let read = Array { take, failure: &mut failure }.deserialize(&mut json).and_then(|()| json.end());
    match (failure, read) {
        (Some(failure), _) => Err(failure),
        (None, Ok(())) => Ok(()),
        (None, Err(cause)) if cause.is_io() => Err(unreadable(cause.into())),
        (None, Err(cause)) => Err(match Found::in_text_file(path) {
            Some(found) => SourceError::Other { path: path.to_owned(), found },
            None => SourceError::Json { path: path.to_owned(), cause },
        }),
    }
}

/// Hands every line of a file that is not empty to `take`, with its number.
fn each_line(path: &Path, take: &mut impl FnMut(usize, &[u8]) -> Result<(), SourceError>) -> Result<(), SourceError> {
    let unreadable = |cause| SourceError::Unreadable { path: path.to_owned(), cause };
    let mut reader = open(path)?;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
            break;
        }
        if !line.trim_ascii().is_empty() {
            take(number, line.trim_ascii_end())?;
        }
    }
    Ok(())
}

/// Opens a text, behind the byte-order mark that editors on Windows put in front of it.
fn open(path: &Path) -> Result<BufReader<File>, SourceError> {
    let unreadable = |cause| SourceError::Unreadable { path: path.to_owned(), cause };
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(unreadable)?);
    let head = reader.fill_buf().map_err(unreadable)?;
    // Looked at before anything is parsed: as a list of paths, a pointer or a page would be so many missing pictures.
    if let Some(found) = Found::in_any(head).filter(|_| !head.is_empty()) {
        return Err(SourceError::Other { path: path.to_owned(), found });
    }
    let mark = head.len() - behind_mark(head).len();
    reader.consume(mark);
    Ok(reader)
}

/// Reads an array element by element, so that a file of gigabytes is not held as a tree.
struct Array<'a, 'b> {
    take: &'a mut TakeRecord<'b>,
    failure: &'a mut Option<SourceError>,
}

impl<'de> DeserializeSeed<'de> for Array<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Array<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(value) = elements.next_element()? {
            number += 1;
            if let Err(failure) = (self.take)(Place::Record(number), Ok(value)) {
                *self.failure = Some(failure);
                return Err(serde::de::Error::custom("see the failure"));
            }
        }
        Ok(())
    }
}

/// An element of LLaVA-style data: an object with `id`, `image`, `conversations` and others, or a picture's name.
fn read_entry(value: Value, place: Place, images: &Path) -> Result<Entry, String> {
    let place = Some(place);
    let mut fields = match value {
        Value::Object(fields) => fields,
        Value::String(written) => {
            let picture = images.join(&written);
            return Ok(picture_entry(written, picture, place));
        }
        _ => return Err("neither a record nor a picture's name".to_owned()),
    };
    let name = match fields.shift_remove("id") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name),
        Some(Value::Number(name)) => Some(name.to_string()),
        Some(_) => return Err("`id` is neither a text nor a number".to_owned()),
    };
    let written = take_image(&mut fields)?;
    let mut conversations = match fields.shift_remove("conversations") {
        None | Some(Value::Null) => None,
        Some(turns) => Some(read_turns(&turns)?),
    };
    if let Some(turns) = &mut conversations {
        place_image(turns, written.is_some())?;
    } else if written.is_none() {
        return Err("the record has neither `image` nor `conversations`".to_owned());
    }
    let picture = written.as_ref().map(|written| images.join(written));
    Ok(Entry { place, name, written, picture, conversations, fields })
}

/// The picture's name in a record, taken out of it.
pub(super) fn take_image(fields: &mut Map<String, Value>) -> Result<Option<String>, String> {
    match fields.shift_remove("image") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(image)) if !image.trim().is_empty() => Ok(Some(image)),
        Some(Value::Array(_)) => Err("`image` names several pictures; one a record is read".to_owned()),
        Some(_) => Err("`image` is not a picture's name".to_owned()),
    }
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
    fn pictures_in_a_folder_are_told_by_content_and_the_rest_is_counted_by_extension() {
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
    fn a_list_is_read_line_by_line() {
        let folder = folder(&[("list.txt", "b.jpg\r\n\na.jpg\n")]);
        let read = entries(&folder.path().join("list.txt"), Some(Path::new("/pictures"))).unwrap();
        assert_eq!(read[0].picture.as_deref(), Some(Path::new("/pictures/b.jpg")));
        assert_eq!(written(&folder.path().join("list.txt")), ["b.jpg", "a.jpg"]);
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
            cause("a.jsonl", "{\"image\": \"a\"}\n\n{\"image\": }\n").starts_with("a.jsonl`, line 3: not sound JSON")
        );
        assert!(cause("a.json", "{\"image\": \"a\"}").starts_with("a.json` is not a JSON array of records"));
        assert!(cause("a.jsonl", "[{\"image\": \"a\"},").starts_with("a.jsonl` is not sound JSON: EOF"));
        assert!(cause("a.json", "[{\"image\": \"a\"},").starts_with("a.json` is not sound JSON: EOF"));
        assert!(cause("a.json", "").starts_with("a.json`: an empty file"));
        assert_eq!(
            cause("a.json", "[{\"image\": \"a\"}, {}]"),
            "a.json`, record 2: the record has neither `image` nor `conversations`"
        );
        assert_eq!(
            cause("a.json", "[{\"image\": [\"a\"]}]"),
            "a.json`, record 1: `image` names several pictures; one a record is read"
        );
        assert_eq!(cause("a.jsonl", "3"), "a.jsonl`, line 1: neither a record nor a picture's name");
    }

    #[test]
    fn a_whole_path_is_found_by_its_longest_end_and_a_relative_one_is_not_guessed() {
        let folder = folder(&[("b/c.png", ""), ("c.png", ""), ("d e\n.png", "")]);
        let found = |written: &str| {
            let found = found_elsewhere(folder.path(), written)?;
            Some(found.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned())
        };
        assert_eq!(found("/a/b/c.png").as_deref(), Some("b/c.png"));
        assert_eq!(found("C:\\a\\b\\c.png").as_deref(), Some("b/c.png"));
        assert_eq!(found("\\\\host\\a\\c.png").as_deref(), Some("c.png"));
        assert_eq!(found("/a/../b/./c.png").as_deref(), Some("b/c.png"));
        assert_eq!(found("/x/d e\n.png").as_deref(), Some("d e\n.png"));
        assert_eq!((found("/a/none.png"), found("a/b/c.png"), found("/"), found("")), (None, None, None, None));
        assert_eq!(found(folder.path().join("c.png").to_str().unwrap()), None, "it is where it says");
        let told = missing_picture(Path::new("images"), "/a/b/c.png");
        assert_eq!(
            told,
            "there is no picture `/a/b/c.png`, and nothing in `images` by an end of that path, from `a/b/c.png` to `c.png`"
        );
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
