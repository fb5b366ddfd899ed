//! The entries of a source with the digests of their pictures, from which their ids follow.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::{fmt, io};

use rayon::prelude::*;

use super::adapter::part;
use super::labels::label;
use crate::artifact::{ItemId, LABELS, Label, Record, Speaker, Turn, write_lines};
use crate::data::filter::Filter;
use crate::data::lookup::{Found, Lookup};
use crate::data::picture::{check_beginning, has_deep_gray};
use crate::data::record_notes::{RecordNote, RecordNotes};
use crate::data::records::{Place, is_records};
use crate::data::source::{Entry, PassedOver, SourceError, each_entry};
use stic_engine::diagnostic::{counted, io_help};
use stic_engine::digest::{Digest, Value};
use stic_engine::node::{Failure, FileDigests, FileProblem, Labelled, Objects, OnBadItem, Part};

/// A source as pipeline files name it.
#[derive(Clone, Debug)]
pub struct Source {
    /// A directory, glob, list or file of records.
    pub from: PathBuf,
    /// Where relative picture names in files are looked up; `None`: the file's directory.
    pub images: Option<PathBuf>,
    /// Which entries to take.
    pub filter: Filter,
}

/// An entry and its id.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its id.
    pub id: ItemId,
    /// The digest of the picture's file.
    pub picture: Option<Digest>,
    /// The entry as read.
    pub entry: Entry,
}

/// The entries of a source: those of a list or a file of records in its order, those of a directory or a glob in the
/// order of their content digests, so that names and subfolders do not matter.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The readable entries.
    pub items: Vec<Listed>,
    /// A message for each unreadable one.
    pub unreadable: Vec<String>,
    /// How many of these are invalid records, as opposed to pictures.
    pub faults: usize,
    /// RecordNotes on the others.
    pub remarks: RecordNotes,
    /// How many pictures were found by the end of their path.
    pub elsewhere: usize,
    /// How many entries were left out because they repeat another.
    pub repeats: usize,
    /// How many of the source's own ids belong to several entries.
    pub shared_names: usize,
    /// The files in a directory that are not pictures.
    pub passed_over: PassedOver,
}

/// Whether a listing keeps conversations in memory: a file of records may be larger than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversations {
    /// Keep all.
    Kept,
    /// Keep none; [`Source::read_again`] reads the selected ones.
    Dropped,
}

impl Source {
    /// Reads the source. With `dedupe`, only the first entry of each content is kept; without it, the ids of later ones
    /// contain their ordinal.
    ///
    /// # Errors
    /// When the source itself cannot be read.
    pub fn list(
        &self,
        dedupe: bool,
        conversations: Conversations,
        digests: &dyn FileDigests,
    ) -> Result<Listing, Failure> {
        if self.from.is_file() {
            // Requested so that the engine notices if the file changes during the run.
            digests.file(&self.from).map_err(|cause| Failure::io(&self.from, &cause))?;
        }
        let mut lister = Lister {
            source: self,
            dedupe,
            conversations,
            digests,
            lookup: Lookup::new(self.images()),
            waiting: Vec::new(),
            pictures: HashMap::new(),
            seen: HashMap::new(),
            names: HashMap::new(),
            listing: Listing::default(),
        };
        let passed_over =
            each_entry(&self.from, self.images.as_deref(), &mut |entry| lister.take(entry)).map_err(failure)?;
        lister.identify();
        let mut listing = Listing { passed_over, ..lister.listing };
        if !self.from.is_file() {
            listing.items.sort_by_key(|item| item.picture);
        }
        Ok(listing)
    }

    /// Reads the conversations of `items`, which come from a listing without them.
    ///
    /// # Errors
    /// When the source cannot be read, or has changed.
    pub fn read_again(&self, items: &mut [Listed]) -> Result<(), Failure> {
        let places: HashMap<Place, usize> =
            items.iter().enumerate().filter_map(|(index, item)| Some((item.entry.place?, index))).collect();
        if places.is_empty() || !is_records(&self.from) {
            return Ok(());
        }
        let mut same = 0;
        each_entry(&self.from, self.images.as_deref(), &mut |entry| {
            let Ok(Entry { place: Some(place), conversations, .. }) = entry else { return Ok(()) };
            if let Some(index) = places.get(&place) {
                let item = &mut items[*index];
                let content = identity(item.picture, conversations.as_deref());
                same += usize::from(item.id.as_str().starts_with(&content.to_string()));
                item.entry.conversations = conversations;
            }
            Ok(())
        })
        .map_err(failure)?;
        if same == places.len() {
            return Ok(());
        }
        Err(Failure::environment(format!("`{}` changed while it was being read", self.from.display())))
    }

    /// Where relative picture names in the source are looked up.
    pub(super) fn images(&self) -> &Path {
        self.images.as_deref().or(self.from.parent()).unwrap_or(Path::new(""))
    }
}

/// How many entries are digested per batch.
const IDENTIFIED: usize = 8192;

/// Builds a listing. Entries are batched, so that pictures are digested on all threads.
struct Lister<'a> {
    source: &'a Source,
    dedupe: bool,
    conversations: Conversations,
    digests: &'a dyn FileDigests,
    lookup: Lookup<'a>,
    waiting: Vec<Entry>,
    /// Digests by path: a picture of many records is read once.
    pictures: HashMap<PathBuf, Digest>,
    seen: HashMap<Digest, usize>,
    names: HashMap<String, Digest>,
    listing: Listing,
}

impl Lister<'_> {
    fn take(&mut self, entry: Result<Entry, SourceError>) -> Result<(), SourceError> {
        match entry {
            Err(error @ SourceError::Record { .. }) => {
                self.listing.unreadable.push(error.to_string());
                self.listing.faults += 1;
            }
            Err(error) => return Err(error),
            Ok(entry) if !self.source.filter.takes(&entry) => {}
            Ok(mut entry) => {
                let remarks = std::mem::take(&mut entry.remarks);
                remarks.into_iter().for_each(|remark| self.listing.remarks.add(remark, named(&entry)));
                self.waiting.push(entry);
                if self.waiting.len() == IDENTIFIED {
                    self.identify();
                }
            }
        }
        Ok(())
    }

    /// Computes the ids of the waiting entries.
    fn identify(&mut self) {
        let mut entries = std::mem::take(&mut self.waiting);
        self.look_elsewhere(&mut entries);
        let wanted = entries.iter().filter_map(|entry| entry.picture.as_ref());
        let mut paths: Vec<PathBuf> = wanted.filter(|path| !self.pictures.contains_key(*path)).cloned().collect();
        paths.sort();
        paths.dedup();
        let mut broken = HashMap::new();
        for (path, digest) in digested_pictures(paths, self.digests) {
            match digest {
                Ok(digest) => drop(self.pictures.insert(path, digest)),
                Err(cause) => drop(broken.insert(path, cause)),
            }
        }
        for mut entry in entries {
            let picture = entry.picture.as_ref().and_then(|path| self.pictures.get(path)).copied();
            if let Some((path, cause)) = entry.picture.as_ref().and_then(|path| broken.get_key_value(path)) {
                let (from, written) = (&self.source.from, entry.written.as_deref());
                self.listing.unreadable.push(unreadable(from, &self.lookup, entry.place, written, path, cause));
                continue;
            }
            let content = identity(picture, entry.conversations.as_deref());
            if let Some(name) = &entry.name {
                let other = self.names.insert(name.clone(), content).is_some_and(|before| before != content);
                self.listing.shared_names += usize::from(other);
            }
            let ordinal = self.seen.entry(content).and_modify(|count| *count += 1).or_insert(1);
            if self.dedupe && *ordinal > 1 {
                self.listing.repeats += 1;
            } else {
                if self.conversations == Conversations::Dropped {
                    entry.conversations = None;
                }
                self.listing.items.push(Listed { id: ItemId::repeated(content, *ordinal), picture, entry });
            }
        }
    }

    /// Looks up the pictures of entries that are not where their file says.
    fn look_elsewhere(&mut self, entries: &mut [Entry]) {
        if !self.source.from.is_file() {
            return;
        }
        let lookup = &self.lookup;
        let look = |entry: &mut Entry| match lookup.find(entry.written.as_deref()?)? {
            Found::There(_) => None,
            Found::Elsewhere(path) => {
                entry.picture = Some(path);
                Some(None)
            }
            Found::Respelled(path) => {
                entry.picture = Some(path);
                Some(Some(respelled(named(entry), entry.written.as_deref().unwrap_or_default())))
            }
        };
        let found: Vec<Option<String>> = entries.par_iter_mut().filter_map(look).collect();
        for found in found {
            match found {
                None => self.listing.elsewhere += 1,
                Some(name) => self.listing.remarks.add(RecordNote::Spelling, name),
            }
        }
    }
}

/// The digests of the pictures at `paths`. Files that cannot be pictures are reported here, one by one: if hundreds
/// were replaced by the same HTML page, all of them count.
pub(super) fn digested_pictures(
    paths: Vec<PathBuf>,
    digests: &dyn FileDigests,
) -> impl Iterator<Item = (PathBuf, io::Result<Digest>)> {
    let looked: Vec<io::Result<()>> = paths.par_iter().map(|path| check_beginning(path)).collect();
    let digests = digests.files(&paths);
    let both =
        digests.into_iter().zip(looked).map(|(digest, looked)| digest.and_then(|digest| looked.map(|()| digest)));
    paths.into_iter().zip(both.collect::<Vec<_>>())
}

/// The name of an entry in messages: its place in its file, or the picture's name in its directory.
pub(super) fn named(entry: &Entry) -> String {
    match (entry.place, &entry.written) {
        (Some(place), _) => place.to_string(),
        (None, written) => format!("`{}`", written.as_deref().unwrap_or_default()),
    }
}

/// The name of an entry whose picture was found under another spelling.
pub(super) fn respelled(name: impl fmt::Display, written: &str) -> String {
    format!("{name}, `{written}`")
}

/// The message for an unreadable picture at `path`, which `file` calls `written` at `place`.
pub fn unreadable(
    file: &Path,
    lookup: &Lookup<'_>,
    place: Option<Place>,
    written: Option<&str>,
    path: &Path,
    cause: &io::Error,
) -> String {
    let (Some(place), Some(written)) = (place, written) else { return format!("`{}`: {cause}", path.display()) };
    let cause = match cause.kind() {
        io::ErrorKind::NotFound => lookup.missing(written),
        _ => format!("`{}`: {cause}", path.display()),
    };
    format!("`{}`, {place}: {cause}", file.display())
}

/// Help for missing pictures.
pub(super) const LOOKED_UP: &str = "set the pictures' directory with `images = \"…\"` (default: the file's own): relative names are \
                         looked up there, and so is the end of an absolute path that does not exist";

/// Help for unreadable pictures and records.
pub(super) const FIX: &str = "fix or remove what is named";

/// The same for nodes that may skip some.
pub(super) const FIX_OR_SKIP: &str =
    "fix or remove what is named, or skip any number of them with `on_bad_item = \"skip\"`";

/// The content that identifies an item: the picture, for an instruction record together with its conversations.
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
    /// The digest of everything the listing says about its entries, in order, except names and paths.
    pub fn digest(&self) -> Digest {
        let items = self.items.iter().map(|item| {
            let fields = serde_json::to_string(&item.entry.fields).unwrap_or_default();
            Value::List(vec![item.id.as_str().into(), fields.into()])
        });
        Digest::of_fields("stic listing v1", &vec![("items".to_owned(), Value::List(items.collect()))])
    }

    /// The labels of the entries of the source called `from`.
    pub fn labels(&self, from: &Path) -> Vec<Labelled> {
        let named = |Listed { id, picture, entry }: &Listed| Labelled {
            id: id.clone(),
            file: *picture,
            label: label(entry, from),
        };
        self.items.iter().map(named).collect()
    }

    /// Checks that no more entries are unreadable than `on_bad_item` allows.
    ///
    /// # Errors
    /// When there are; the message names the first.
    pub fn check_unreadable(&self, on_bad_item: OnBadItem) -> Result<(), Failure> {
        let what = if self.faults > 0 { "records" } else { "pictures" };
        check_unreadable(&self.unreadable, what, self.items.len() + self.repeats, on_bad_item)
    }

    /// Notes on how the source called `from` was read.
    pub fn notes(&self, from: &Path) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(first) = self.unreadable.first() {
            notes.push(format!("left out {} that cannot be read, first {first}", self.unreadable.len()));
        }
        notes.extend(self.remarks.lines().map(|line| format!("`{}`: {line}", from.display())));
        notes.extend(passed_over_notes(&self.passed_over));
        notes.extend(elsewhere_note(self.elsewhere));
        notes
    }
}

/// Checks that there are no more `unreadable` pictures or records (`what`) beside `readable` ones than `on_bad_item`
/// allows.
///
/// # Errors
/// When there are; the message names the first.
pub fn check_unreadable(
    unreadable: &[String],
    what: &str,
    readable: usize,
    on_bad_item: OnBadItem,
) -> Result<(), Failure> {
    let (bad, all) = (unreadable.len(), unreadable.len() + readable);
    match unreadable.first() {
        Some(first) if !allows(on_bad_item, bad, all) => {
            let help = if first.contains("no picture `") { LOOKED_UP } else { FIX };
            Err(Failure::node(format!("{bad} of {all} {what} cannot be read, first {first}")).help(help))
        }
        _ => Ok(()),
    }
}

/// Whether `bad` of `all` items may be left out; never all of them.
pub fn allows(on_bad_item: OnBadItem, bad: usize, all: usize) -> bool {
    on_bad_item.allows(bad, all)
}

/// Notes on the files of a directory that are not pictures, and on caches in it.
pub(super) fn passed_over_notes(passed_over: &PassedOver) -> Vec<String> {
    let files = (!passed_over.is_empty()).then(|| format!("ignoring {passed_over}: not in a supported picture format"));
    let caches = passed_over.caches.iter().map(|cache| format!("ignoring the cache `{}`", cache.display()));
    files.into_iter().chain(caches).collect()
}

/// The problem with the directory that `images` names.
pub fn images_problem(images: Option<&Path>) -> Option<FileProblem> {
    let images = images.filter(|images| !images.is_dir())?;
    let what = if images.exists() { "is not a directory" } else { "does not exist" };
    Some(FileProblem {
        parameter: "images".to_owned(),
        message: format!("`{}` {what}", images.display()),
        help: Some("paths are relative to the pipeline file".to_owned()),
    })
}

/// The note on greyscale pictures of more than 8 bits: `deep` of `all`.
pub fn deep_gray_note(deep: usize, all: usize) -> Option<String> {
    (deep > 0).then(|| {
        format!(
            "{deep} of {} {} gray of more than 8 bits, of which every value from 255 on becomes white, as in Pillow; \
             scale to 8 bits to keep the shades",
            counted(all, "picture"),
            if deep == 1 { "is" } else { "are" },
        )
    })
}

/// [`deep_gray_note`] for the pictures at `paths`, each read once. Unreadable ones are reported where they are decoded.
pub fn look_for_deep_gray<'a>(paths: impl Iterator<Item = &'a Path>) -> Option<String> {
    let paths: Vec<&Path> = paths.collect::<BTreeSet<_>>().into_iter().collect();
    let is_deep = |path: &&&Path| std::fs::read(path).is_ok_and(|bytes| has_deep_gray(&bytes));
    deep_gray_note(paths.par_iter().filter(is_deep).count(), paths.len())
}

/// The note on pictures that were found by the end of their path.
pub fn elsewhere_note(elsewhere: usize) -> Option<String> {
    (elsewhere > 0).then(|| {
        let were = if elsewhere == 1 {
            "is not where the file says, but was"
        } else {
            "are not where the file says, but were"
        };
        format!("{} {were} found in `images` by the end of the path", counted(elsewhere, "picture"))
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

/// Help for a source that cannot be read.
pub(super) fn help(error: &SourceError) -> Option<&'static str> {
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

    /// If this changes, every item gets another id and all caches are lost.
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
