//! What a source holds, by content: its entries with the digests of their pictures, and so with their identities.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use rayon::prelude::*;

use super::adapter::part;
use crate::artifact::{ItemId, LABELS, Label, Record, Speaker, Turn, write_lines};
use crate::data::filter::Filter;
use crate::data::source::{
    Entry, Faults, PassedOver, Place, SourceError, each_entry, found_elsewhere, missing_picture,
};
use crate::diagnostic::io_help;
use crate::digest::{Digest, Value};
use crate::node::{Context, Failure, FileDigests, FileProblem, Labelled, Objects, OnBadItem, Part};

/// A source as pipeline files name it.
#[derive(Clone, Debug)]
pub struct Source {
    /// A folder, glob, list or file of records.
    pub from: PathBuf,
    /// Where relative picture names in files are looked up; `None`: the file's folder.
    pub images: Option<PathBuf>,
    /// Which entries are taken.
    pub filter: Filter,
}

/// An entry whose identity is known.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its identity.
    pub id: ItemId,
    /// The digest of the picture's file.
    pub picture: Option<Digest>,
    /// What the source says of it.
    pub entry: Entry,
}

/// The entries of a source: of a list or a file of records in the order in which they stand there, of a folder or a
/// glob in the order of their contents' digests, so that names and nesting play no part.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Those whose pictures could be read.
    pub items: Vec<Listed>,
    /// What is told of those that could not, and why.
    pub unreadable: Vec<String>,
    /// How many pictures were found by an end of the path that their entry gives.
    pub elsewhere: usize,
    /// How many entries were left out because they repeat another.
    pub repeats: usize,
    /// How many of the source's own ids name different things.
    pub shared_names: usize,
    /// The files of a folder that are no pictures.
    pub passed_over: PassedOver,
}

impl Source {
    /// Reads the source. With `dedupe`, of entries of the same content the first is kept; without, later ones carry
    /// their ordinal in their ids.
    ///
    /// # Errors
    /// When the source itself cannot be read.
    pub fn list(&self, dedupe: bool, digests: &dyn FileDigests) -> Result<Listing, Failure> {
        let mut entries = Vec::new();
        let mut take = |entry: Result<Entry, SourceError>| {
            entry.map(|entry| entries.extend(self.filter.takes(&entry).then_some(entry)))
        };
        let passed_over = each_entry(&self.from, self.images.as_deref(), &mut take).map_err(failure)?;

        let elsewhere = self.look_elsewhere(&mut entries);
        let mut listing = Listing { elsewhere, passed_over, ..Listing::default() };
        // A picture that many records are about is read once.
        let mut paths: Vec<PathBuf> = entries.iter().filter_map(|entry| entry.picture.clone()).collect();
        paths.sort();
        paths.dedup();
        let found: HashMap<&PathBuf, _> = paths.iter().zip(digests.files(&paths)).collect();
        let mut seen: HashMap<Digest, usize> = HashMap::new();
        let mut names: HashMap<String, Digest> = HashMap::new();
        for entry in entries {
            let picture = match entry.picture.as_ref().map(|path| (path, &found[path])) {
                None => None,
                Some((_, Ok(digest))) => Some(*digest),
                Some((path, Err(cause))) => {
                    listing.unreadable.push(self.unreadable(&entry, path, cause));
                    continue;
                }
            };
            let content = identity(picture, entry.conversations.as_deref());
            if let Some(name) = &entry.name {
                let other = names.insert(name.clone(), content).is_some_and(|before| before != content);
                listing.shared_names += usize::from(other);
            }
            let ordinal = seen.entry(content).and_modify(|count| *count += 1).or_insert(1);
            if dedupe && *ordinal > 1 {
                listing.repeats += 1;
            } else {
                listing.items.push(Listed { id: ItemId::repeated(content, *ordinal), picture, entry });
            }
        }
        if !self.from.is_file() {
            listing.items.sort_by_key(|item| item.picture);
        }
        Ok(listing)
    }

    /// Where relative picture names in the source are looked up.
    fn images(&self) -> &Path {
        self.images.as_deref().or(self.from.parent()).unwrap_or(Path::new(""))
    }

    /// Gives entries whose pictures are not where their file says the pictures that are found by an end of what it
    /// says; tells how many.
    fn look_elsewhere(&self, entries: &mut [Entry]) -> usize {
        if !self.from.is_file() {
            return 0;
        }
        let images = self.images();
        let look = |entry: &mut Entry| {
            let found = found_elsewhere(images, entry.written.as_deref()?)?;
            entry.picture.replace(found)
        };
        entries.par_iter_mut().filter_map(look).count()
    }

    /// What is told of an entry whose picture cannot be read.
    fn unreadable(&self, entry: &Entry, path: &Path, cause: &io::Error) -> String {
        unreadable(&self.from, self.images(), entry.place, entry.written.as_deref(), path, cause)
    }

    /// What is wrong with what `parameter` names, as far as it can be told without reading a picture, how many entries
    /// the filter takes, and what is passed over. `wrong` says what is wrong with an entry that is sound in itself.
    pub fn check(
        &self,
        parameter: &str,
        on_bad_item: OnBadItem,
        wrong: impl Fn(&Entry) -> Option<&'static str>,
    ) -> (usize, PassedOver, Vec<FileProblem>) {
        let mut survey = Survey::new(&self.from, self.images());
        let mut found = 0;
        let in_folder = !self.from.is_file();
        let read = each_entry(&self.from, self.images.as_deref(), &mut |entry| {
            match entry {
                Err(SourceError::Record { place, cause, .. }) => survey.fault(place, &cause),
                Err(error) => return Err(error),
                Ok(entry) if !self.filter.takes(&entry) => {}
                Ok(entry) => {
                    found += 1;
                    match (wrong(&entry), entry.place, entry.written) {
                        (Some(cause), Some(place), _) => survey.fault(place, cause),
                        (Some(cause), None, written) => {
                            survey.fault(format_args!("`{}`", written.unwrap_or_default()), cause)
                        }
                        (None, Some(place), Some(written)) if !in_folder => survey.picture(place, written),
                        _ => survey.entries += 1,
                    }
                }
            }
            Ok(())
        });
        let (passed_over, read) = read.map_or_else(|error| (PassedOver::default(), Err(error)), |all| (all, Ok(())));
        (found, passed_over, survey.problems(parameter, on_bad_item, read))
    }
}

/// What is told of a picture at `path` that cannot be read, which `file` calls `written` at `place`.
pub fn unreadable(
    file: &Path,
    images: &Path,
    place: Option<Place>,
    written: Option<&str>,
    path: &Path,
    cause: &io::Error,
) -> String {
    let (Some(place), Some(written)) = (place, written) else { return format!("`{}`: {cause}", path.display()) };
    let cause = match cause.kind() {
        io::ErrorKind::NotFound => missing_picture(images, written),
        _ => format!("`{}`: {cause}", path.display()),
    };
    format!("`{}`, {place}: {cause}", file.display())
}

/// A look at a file of records before anything runs: keeps what is wrong, and nothing of what is sound.
pub struct Survey<'a> {
    file: &'a Path,
    images: &'a Path,
    /// How many records there were.
    pub entries: usize,
    faults: Faults,
    missing: Faults,
    waiting: Vec<(Place, String)>,
}

/// How many pictures are looked for at a time, on all threads.
const LOOKED_FOR: usize = 4096;

impl<'a> Survey<'a> {
    /// A look at `file`, whose pictures are in `images`.
    pub fn new(file: &'a Path, images: &'a Path) -> Self {
        let (faults, missing) = (Faults::default(), Faults::default());
        Self { file, images, entries: 0, faults, missing, waiting: Vec::new() }
    }

    /// Something is wrong with the record at `place`.
    pub fn fault(&mut self, place: impl fmt::Display, cause: &str) {
        self.faults.add(place, cause);
    }

    /// The record at `place` is about a picture.
    pub fn picture(&mut self, place: Place, written: String) {
        self.entries += 1;
        self.waiting.push((place, written));
        if self.waiting.len() == LOOKED_FOR {
            self.look();
        }
    }

    fn look(&mut self) {
        let images = self.images;
        let is_there = |written: &str| images.join(written).is_file() || found_elsewhere(images, written).is_some();
        let missing: Vec<_> = self.waiting.par_drain(..).filter(|(_, written)| !is_there(written)).collect();
        for (place, written) in missing {
            self.missing.add(place, missing_picture(images, &written));
        }
    }

    /// What came of reading the file (`read`), as problems of `parameter`. Missing pictures that `on_bad_item` skips
    /// are none.
    pub fn problems(
        mut self,
        parameter: &str,
        on_bad_item: OnBadItem,
        read: Result<(), SourceError>,
    ) -> Vec<FileProblem> {
        self.look();
        let problem =
            |message: String, help: Option<String>| FileProblem { parameter: parameter.to_owned(), message, help };
        let file = self.file.display();
        let faults =
            self.faults.told(format_args!("`{file}`"), |count| format!("{count} records of `{file}` cannot be read:"));
        let mut problems: Vec<FileProblem> = faults.map(|message| problem(message, None)).into_iter().collect();
        if !allows(on_bad_item, self.missing.count(), self.entries) {
            let headline = |count| format!("{count} pictures of {} that `{file}` names are not there:", self.entries);
            let missing = self.missing.told(format_args!("`{file}`"), headline);
            problems.extend(missing.map(|message| problem(message, Some(LOOKED_UP.to_owned()))));
        }
        if let Err(error) = read {
            let help = match &error {
                SourceError::Missing(_) => Some("paths are relative to the pipeline file"),
                SourceError::Glob { .. } => Some("name a folder, a glob, a list of paths or a JSON file"),
                error => help(error),
            };
            problems.push(problem(error.to_string(), help.map(str::to_owned)));
        }
        problems
    }
}

/// What to do about pictures that are not there.
const LOOKED_UP: &str = "say in which folder they are with `images = \"…\"`, by default the file's own: relative names are \
                         looked up there, whole paths that are not here by their ends";

/// The content that identifies an item: the picture's, or of an instruction record that of picture and conversations.
pub fn identity(picture: Option<Digest>, conversations: Option<&[Turn]>) -> Digest {
    let Some(turns) = conversations else { return picture.unwrap_or_else(|| Digest::of(b"")) };
    let speaker = |turn: &Turn| if turn.from == Speaker::Human { "human" } else { "gpt" };
    let turns: Vec<Vec<&str>> = turns.iter().map(|turn| vec![speaker(turn), &turn.value]).collect();
    let picture = Value::List(picture.into_iter().map(Value::from).collect());
    Digest::of_fields(
        "stic record v1",
        &vec![("picture".to_owned(), picture), ("conversations".to_owned(), turns.into())],
    )
}

impl Listing {
    /// The digest of all that the listing says of its entries, in order, but names and paths.
    pub fn digest(&self) -> Digest {
        let items = self.items.iter().map(|item| {
            let fields = serde_json::to_string(&item.entry.fields).unwrap_or_default();
            Value::List(vec![item.id.as_str().into(), fields.into()])
        });
        Digest::of_fields("stic listing v1", &vec![("items".to_owned(), Value::List(items.collect()))])
    }

    /// What the source calls its entries.
    pub fn labels(&self) -> Vec<Labelled> {
        let named = |Listed { id, picture, entry }: &Listed| Labelled {
            id: id.clone(),
            picture: *picture,
            label: label(entry),
        };
        self.items.iter().map(named).collect()
    }

    /// Fails when more pictures cannot be read than `on_bad_item` allows, and names the first.
    ///
    /// # Errors
    /// See there.
    pub fn check_unreadable(&self, on_bad_item: OnBadItem) -> Result<(), Failure> {
        check_unreadable(&self.unreadable, self.items.len() + self.repeats, on_bad_item)
    }
}

/// Fails when there are more `unreadable` pictures beside `readable` ones than `on_bad_item` allows, and names the
/// first.
///
/// # Errors
/// See there.
pub fn check_unreadable(unreadable: &[String], readable: usize, on_bad_item: OnBadItem) -> Result<(), Failure> {
    let (bad, all) = (unreadable.len(), unreadable.len() + readable);
    match unreadable.first() {
        Some(first) if !allows(on_bad_item, bad, all) => {
            let help = if first.contains("there is no picture ") { LOOKED_UP } else { "mend or remove what is named" };
            Err(Failure::node(format!("{bad} of {all} pictures cannot be read, first {first}")).help(help))
        }
        _ => Ok(()),
    }
}

/// Whether `bad` of `all` items may be left out; never all of them.
pub fn allows(on_bad_item: OnBadItem, bad: usize, all: usize) -> bool {
    on_bad_item.allows(bad, all)
}

/// What is said once of pictures that were found by an end of their paths.
pub fn elsewhere_note(elsewhere: usize) -> Option<String> {
    (elsewhere > 0).then(|| {
        format!("{elsewhere} pictures are not where the file says and were found in `images` by the end of their paths")
    })
}

/// Records and their labels as parts, in the store.
///
/// # Errors
/// When they cannot be written.
pub fn record_parts(items: &[(Record, Label)], objects: &dyn Objects) -> Result<(Part, Part), Failure> {
    let records = part("records.jsonl", &write_lines(items.iter().map(|(record, _)| record)), objects)?;
    Ok((records, part(LABELS, &write_lines(items.iter().map(|(_, label)| label)), objects)?))
}

/// What a person would look for: the source's id and the picture's path.
pub fn label(entry: &Entry) -> Label {
    Label { name: entry.name.clone(), path: entry.picture.as_deref().map(absolute) }
}

/// The path of a picture that a row names by digest.
pub fn picture_label(picture: Option<Digest>, context: &dyn Context) -> Label {
    let path = picture.and_then(|picture| context.picture_path(&picture));
    Label { name: None, path: path.as_deref().map(absolute) }
}

/// `path` as it is found from anywhere.
pub fn absolute(path: &Path) -> String {
    std::path::absolute(path).as_deref().unwrap_or(path).to_string_lossy().into_owned()
}

/// A source that cannot be read, as a node's failure.
pub fn failure(error: SourceError) -> Failure {
    let failure = match error {
        SourceError::Unreadable { .. } => Failure::environment(error.to_string()),
        _ => Failure::node(error.to_string()),
    };
    match help(&error) {
        Some(help) => failure.help(help),
        None => failure,
    }
}

fn help(error: &SourceError) -> Option<&'static str> {
    match error {
        SourceError::NoArray(_) => Some("wrap the records in `[` and `]`, or name the file `.jsonl`"),
        SourceError::Unreadable { cause, .. } => io_help(cause),
        SourceError::Other { found, .. } => Some(found.help),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What changes here gives every item another id, and loses every cache.
    #[test]
    fn identities_are_what_they_were() {
        let turn = |from, value: &str| Turn { from, value: value.to_owned() };
        let turns = [turn(Speaker::Human, "<image>\nWhat?"), turn(Speaker::Gpt, "That.")];
        let picture = Digest::of(b"picture");
        assert_eq!(identity(Some(picture), None), picture);
        assert_eq!(identity(Some(picture), Some(&turns)).short(), "a97d561dd77f");
        assert_eq!(identity(None, Some(&turns)).short(), "f94c25e6c70e");
    }
}
