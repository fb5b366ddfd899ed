//! Journals of finished items: `items/<function key>/*.jsonl`. A killed run loses the items in flight and no others.
//!
//! Every process that adds items writes a file of its own, so that nothing ever appends to a torn tail and several
//! processes may work on the same items. A file's name begins with its generation; making items anew by force starts
//! a higher one, which wins, and within a generation the item that was finished first stays. What an item is, is not
//! known here.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checked::{seal, whole_lines};
use super::claim::Owner;
use super::{Store, StoreError};
use crate::artifact::ItemId;
use crate::digest::Digest;
use crate::node::{Item, ItemValue};

/// One line of a journal, as it is written.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a ItemId,
    reads: &'a Digest,
    #[serde(flatten)]
    value: &'a ItemValue,
}

/// What naming an item needs; its value stays text until somebody wants it.
#[derive(Deserialize)]
struct Name {
    id: ItemId,
    reads: Digest,
    #[serde(default)]
    objects: Vec<Digest>,
}

/// The finished items of one function key.
#[derive(Default)]
pub struct Items {
    texts: Vec<Vec<u8>>,
    places: HashMap<(ItemId, Digest), Place>,
    generation: u32,
    broken: usize,
}

struct Place {
    generation: u32,
    text: usize,
    range: Range<usize>,
    objects: Vec<Digest>,
}

impl Items {
    /// Whether `item` is finished, and `are_there` says so of the objects that its value names.
    pub fn is_usable(&self, item: &Item, are_there: impl FnOnce(&[Digest]) -> bool) -> bool {
        let place = self.places.get(&(item.id.clone(), item.reads));
        place.is_some_and(|place| place.objects.is_empty() || are_there(&place.objects))
    }

    /// The value of `item`.
    pub fn get(&self, item: &Item) -> Option<ItemValue> {
        let place = self.places.get(&(item.id.clone(), item.reads))?;
        serde_json::from_slice(&self.texts[place.text][place.range.clone()]).ok()
    }

    /// The generation in which `item` was finished.
    pub fn generation_of(&self, item: &Item) -> Option<u32> {
        self.places.get(&(item.id.clone(), item.reads)).map(|place| place.generation)
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The highest generation that was begun; 0 when there is no journal.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// How many lines were torn or damaged, and dropped.
    pub fn broken(&self) -> usize {
        self.broken
    }

    fn add(&mut self, generation: u32, text: Vec<u8>) {
        let (lines, broken) = whole_lines(&text);
        let index = self.texts.len();
        self.generation = self.generation.max(generation);
        self.broken += broken;
        for (start, data) in lines {
            let Ok(Name { id, reads, objects }) = serde_json::from_slice(data) else {
                self.broken += 1;
                continue;
            };
            let place = Place { generation, text: index, range: start..start + data.len(), objects };
            match self.places.entry((id, reads)) {
                MapEntry::Vacant(free) => drop(free.insert(place)),
                MapEntry::Occupied(mut kept) if kept.get().generation < generation => drop(kept.insert(place)),
                MapEntry::Occupied(_) => {}
            }
        }
        self.texts.push(text);
    }
}

impl Store {
    /// The finished items of `function_key`. What cannot be read counts as not finished.
    pub fn items(&self, function_key: &Digest) -> Items {
        let mut files: Vec<_> = fs::read_dir(self.items_folder(function_key))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|file| Some((generation_of(file.file_name().to_str()?)?, file.path())))
            .collect();
        files.sort();
        let mut items = Items::default();
        for (generation, path) in files {
            if let Ok(text) = fs::read(path) {
                items.add(generation, text);
            }
        }
        items
    }

    /// A journal for this process to add items of `function_key` to. Its file is made with the first item.
    pub fn journal(&self, function_key: &Digest, generation: u32) -> Journal {
        Journal { folder: self.items_folder(function_key), generation, file: None }
    }

    fn items_folder(&self, function_key: &Digest) -> PathBuf {
        self.root.join("items").join(function_key.to_string())
    }
}

/// A journal that is being written.
pub struct Journal {
    folder: PathBuf,
    generation: u32,
    file: Option<(File, PathBuf)>,
}

impl Journal {
    /// Adds a finished item, in one write.
    ///
    /// # Errors
    /// When it cannot be written. The next item then goes to another file, so that the torn line costs itself alone.
    pub fn append(&mut self, item: &Item, value: &ItemValue) -> Result<(), StoreError> {
        let line = seal(&Line { id: &item.id, reads: &item.reads, value });
        let (mut file, path) = match self.file.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        file.write_all(&line).map_err(StoreError::io("write", &path))?;
        self.file = Some((file, path));
        Ok(())
    }

    /// Makes what was added outlive a loss of power.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn sync(&self) -> Result<(), StoreError> {
        match &self.file {
            Some((file, path)) => file.sync_data().map_err(StoreError::io("write", path)),
            None => Ok(()),
        }
    }

    fn begin(&self) -> Result<(File, PathBuf), StoreError> {
        super::make_folder(&self.folder)?;
        let owner = Owner::this_process().unique();
        for count in 0.. {
            let path = self.folder.join(format!("{}-{owner}-{count}.jsonl", self.generation));
            match File::options().append(true).create_new(true).open(&path) {
                Ok(file) => return Ok((file, path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(StoreError::io("write", &path)(error)),
            }
        }
        unreachable!("some number is free")
    }
}

fn generation_of(name: &str) -> Option<u32> {
    Path::new(name).extension().filter(|extension| *extension == "jsonl")?;
    name.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str) -> Item {
        Item { id: ItemId::new(Digest::of(name.as_bytes())), reads: Digest::of(b"reads") }
    }

    fn value(text: &str) -> ItemValue {
        ItemValue { value: serde_json::json!({ "text": text }), objects: vec![Digest::of(text.as_bytes())] }
    }

    fn store() -> (tempfile::TempDir, Store, Digest) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store, Digest::of(b"function"))
    }

    #[test]
    fn items_of_several_writers_are_found_and_unlike_reads_are_not() {
        let (_folder, store, key) = store();
        let (mut one, mut two) = (store.journal(&key, 1), store.journal(&key, 1));
        one.append(&item("a"), &value("a")).unwrap();
        two.append(&item("b"), &value("b")).unwrap();
        one.append(&item("c"), &value("c")).unwrap();
        let items = store.items(&key);
        assert_eq!(items.len(), 3);
        assert_eq!(items.get(&item("b")), Some(value("b")));
        assert!(!items.is_usable(&Item { reads: Digest::of(b"another prompt"), ..item("a") }, |_| true));
        assert!(items.is_usable(&item("a"), |_| true) && !items.is_usable(&item("a"), |_| false));
        assert!(store.items(&Digest::of(b"another function")).is_empty());
    }

    #[test]
    fn every_cut_of_a_journal_keeps_the_items_before_it() {
        let (_folder, store, key) = store();
        let mut journal = store.journal(&key, 1);
        let ends: Vec<u64> = ["a", "b"]
            .map(|name| {
                journal.append(&item(name), &value(name)).unwrap();
                fs::metadata(&journal.file.as_ref().unwrap().1).unwrap().len()
            })
            .to_vec();
        let path = journal.file.as_ref().unwrap().1.clone();
        let whole = fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let items = store.items(&key);
            // A line is whole without its line end.
            let expected = ends.iter().filter(|end| cut as u64 + 1 >= **end).count();
            assert_eq!(items.len(), expected, "cut at {cut}");
            assert_eq!(
                items.broken(),
                usize::from(cut > 0 && !ends.iter().any(|end| (end - 1..=*end).contains(&(cut as u64))))
            );
        }
    }

    #[test]
    fn what_was_finished_first_stays_until_a_higher_generation() {
        let (_folder, store, key) = store();
        store.journal(&key, 1).append(&item("a"), &value("first")).unwrap();
        store.journal(&key, 1).append(&item("a"), &value("second")).unwrap();
        assert_eq!(store.items(&key).get(&item("a")), Some(value("first")));
        store.journal(&key, 2).append(&item("a"), &value("forced")).unwrap();
        let items = store.items(&key);
        assert_eq!((items.get(&item("a")), items.generation()), (Some(value("forced")), 2));
    }
}
