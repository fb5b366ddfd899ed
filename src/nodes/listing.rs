//! What a source holds, by content: its entries with the digests of their pictures, and so with their identities.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::adapter::part;
use crate::artifact::{ItemId, LABELS, Label, Record, Speaker, Turn, write_lines};
use crate::data::filter::Filter;
use crate::data::source::{Entry, SourceError, each_entry};
use crate::digest::{Digest, Value};
use crate::node::{Context, Failure, FileDigests, Objects, OnBadItem, Part};

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
    /// Pictures that could not, and why.
    pub unreadable: Vec<(PathBuf, String)>,
    /// How many entries were left out because they repeat another.
    pub repeats: usize,
    /// How many of the source's own ids name different things.
    pub shared_names: usize,
}

impl Source {
    /// Reads the source. With `dedupe`, of entries of the same content the first is kept; without, later ones carry
    /// their ordinal in their ids.
    ///
    /// # Errors
    /// When the source itself cannot be read.
    pub fn list(&self, dedupe: bool, digests: &dyn FileDigests) -> Result<Listing, Failure> {
        let mut entries = Vec::new();
        let mut take = |entry: Entry| entries.extend(self.filter.takes(&entry).then_some(entry));
        each_entry(&self.from, self.images.as_deref(), &mut take).map_err(failure)?;

        // A picture that many records are about is read once.
        let mut paths: Vec<PathBuf> = entries.iter().filter_map(|entry| entry.picture.clone()).collect();
        paths.sort();
        paths.dedup();
        let found: HashMap<&PathBuf, _> = paths.iter().zip(digests.files(&paths)).collect();
        let mut listing = Listing::default();
        let mut seen: HashMap<Digest, usize> = HashMap::new();
        let mut names: HashMap<String, Digest> = HashMap::new();
        for entry in entries {
            let picture = match entry.picture.as_ref().map(|path| (path, &found[path])) {
                None => None,
                Some((_, Ok(digest))) => Some(*digest),
                Some((path, Err(cause))) => {
                    listing.unreadable.push((path.clone(), cause.to_string()));
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
}

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
pub fn check_unreadable(
    unreadable: &[(PathBuf, String)],
    readable: usize,
    on_bad_item: OnBadItem,
) -> Result<(), Failure> {
    let Some((path, cause)) = unreadable.first() else { return Ok(()) };
    let (bad, all) = (unreadable.len(), unreadable.len() + readable);
    if matches!(on_bad_item, OnBadItem::Skip { at_most } if bad as f64 <= at_most * all as f64) {
        return Ok(());
    }
    let message = format!("{bad} of {all} pictures cannot be read, first `{}`: {cause}", path.display());
    Err(Failure::node(message).help("relative names are looked up in `images`, by default the file's own folder"))
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
    match error {
        SourceError::Unreadable { .. } => Failure::environment(error.to_string()),
        SourceError::NoArray(_) => {
            Failure::node(error.to_string()).help("wrap the records in `[` and `]`, or name the file `.jsonl`")
        }
        error => Failure::node(error.to_string()),
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
