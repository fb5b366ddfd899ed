//! What plans need of every record, in one file, so that a plan does not open a thousand.
//!
//! The index is derived and never trusted further than the record's size and time of change: an entry that does not
//! match them is read again from the record, a record without an entry gets one, an entry without a record is dropped.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{File, Metadata};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::checked::{seal, whole_lines};
use super::record::{Record, StoredObject};
use super::{Disk, Store, StoreError};
use crate::digest::Digest;
use crate::event::ItemCounts;
use crate::node::Part;

/// What the index holds of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The record's key.
    pub key: Digest,
    /// Its generation.
    pub generation: u32,
    /// The kind of node.
    pub kind: String,
    /// The node that made it.
    pub node: String,
    /// The pipeline of that node.
    pub pipeline: String,
    /// When it was finished; sorts as time does.
    pub finished: String,
    /// The digest of the identity parts.
    pub content: Digest,
    /// The identity parts.
    pub identity: Vec<Part>,
    /// The side parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub side: Vec<Part>,
    /// How many items it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<ItemCounts>,
    /// Its parts as objects.
    parts: Vec<StoredObject>,
    /// How many objects it needs beside its parts.
    more: usize,
    /// The size and time of change of the record's file.
    stamp: (u64, u64),
}

impl Entry {
    fn new(record: &Record, stamp: (u64, u64)) -> Self {
        let count = (record.identity.len() + record.side.len()).min(record.objects.len());
        Self {
            key: record.key,
            generation: record.generation,
            kind: record.kind.clone(),
            node: record.provenance.node.clone(),
            pipeline: record.provenance.pipeline.clone(),
            finished: record.provenance.finished.clone(),
            content: record.content,
            identity: record.identity.clone(),
            side: record.side.clone(),
            items: record.items,
            parts: record.objects[..count].to_vec(),
            more: record.objects.len() - count,
            stamp,
        }
    }
}

/// The index as this process sees it.
#[derive(Default)]
pub(super) struct Index {
    entries: HashMap<Digest, Entry>,
    /// By pipeline and node: the keys of its records.
    nodes: HashMap<(String, String), BTreeSet<Digest>>,
}

impl Index {
    fn insert(&mut self, entry: Entry) {
        self.nodes.entry((entry.pipeline.clone(), entry.node.clone())).or_default().insert(entry.key);
        self.entries.insert(entry.key, entry);
    }

    /// The entries of `keys`, the latest first.
    fn latest_first<'a>(&self, keys: impl IntoIterator<Item = &'a Digest>) -> Vec<Entry> {
        let mut found: Vec<_> = keys.into_iter().filter_map(|key| self.entries.get(key)).cloned().collect();
        found.sort_by(|a, b| (&b.finished, b.key).cmp(&(&a.finished, a.key)));
        found
    }
}

/// The outcome of looking for a result.
pub enum Found {
    /// It exists.
    Complete(Box<Entry>),
    /// It was there once, but these of its objects are missing or damaged.
    Incomplete(Vec<Digest>),
    /// It is not there.
    Nothing,
}

impl Store {
    /// Looks for the result of `key`.
    ///
    /// # Errors
    /// When it cannot be determined whether there is one: what cannot be determined is never taken for absent.
    pub fn find(&self, key: &Digest) -> Result<Found, StoreError> {
        let Some(entry) = self.entry(key)? else { return Ok(Found::Nothing) };
        Ok(match self.lost_of(&entry)? {
            None => Found::Nothing,
            Some(lost) if lost.is_empty() => Found::Complete(Box::new(entry)),
            Some(lost) => Found::Incomplete(lost),
        })
    }

    /// The record of `key`, if there is one.
    ///
    /// # Errors
    /// When it cannot be determined whether there is one.
    pub fn entry(&self, key: &Digest) -> Result<Option<Entry>, StoreError> {
        let Some(metadata) = self.disk.look(&self.record_path(key))? else { return Ok(None) };
        let known = self.with_index(|index| index.entries.get(key).cloned())?;
        if let Some(entry) = known
            && entry.stamp == stamp(&metadata)
        {
            return Ok(Some(entry));
        }
        let Some(record) = self.record(key)? else { return Ok(None) };
        let entry = Entry::new(&record, stamp(&metadata));
        let _ = self.append_to_index(std::slice::from_ref(&entry));
        self.with_index(|index| index.insert(entry.clone()))?;
        Ok(Some(entry))
    }

    /// The objects that `entry` needs and that are not in the store, or have another size than when they were made.
    /// `None` when its record is gone.
    ///
    /// # Errors
    /// When that cannot be determined.
    pub fn lost_of(&self, entry: &Entry) -> Result<Option<Vec<Digest>>, StoreError> {
        if entry.more == 0 {
            return self.lost(&entry.parts).map(Some);
        }
        self.record(&entry.key)?.map(|record| self.lost_objects(&record)).transpose()
    }

    /// The records that nodes of `pipeline` called `node` published, the latest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn earlier(&self, pipeline: &str, node: &str) -> Result<Vec<Entry>, StoreError> {
        self.with_index(|index| {
            let keys = index.nodes.get(&(pipeline.to_owned(), node.to_owned()));
            index.latest_first(keys.into_iter().flatten())
        })
    }

    /// All other records than those of nodes of `pipeline` called by one of `names`, the latest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn others(&self, pipeline: &str, names: &BTreeSet<&str>) -> Result<Vec<Entry>, StoreError> {
        self.with_index(|index| {
            let others = index.nodes.iter().filter(|((of, node), _)| of != pipeline || !names.contains(node.as_str()));
            index.latest_first(others.flat_map(|(_, keys)| keys))
        })
    }

    /// The last record of the node `node` of `pipeline`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn last(&self, pipeline: &str, node: &str) -> Result<Option<Record>, StoreError> {
        for entry in self.earlier(pipeline, node)? {
            if let Some(record) = self.record(&entry.key)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Takes a record that has just been written into the index. A failure costs time later, nothing else.
    pub(super) fn note_in_index(&self, record: &Record) {
        if let Ok(Some(metadata)) = self.disk.look(&self.record_path(&record.key)) {
            let entry = Entry::new(record, stamp(&metadata));
            let _ = self.append_to_index(std::slice::from_ref(&entry));
            let _ = self.with_index(|index| index.insert(entry));
        }
    }

    fn with_index<T>(&self, use_it: impl FnOnce(&mut Index) -> T) -> Result<T, StoreError> {
        let mut index = self.index.lock().expect("no panic under the lock");
        if index.is_none() {
            *index = Some(self.load_index()?);
        }
        Ok(use_it(index.as_mut().expect("it has just been loaded")))
    }

    /// Reads the index and brings it up to what `results/` holds.
    fn load_index(&self) -> Result<Index, StoreError> {
        let mut entries = HashMap::new();
        let text = self.disk.read(&self.root.join("index"))?.unwrap_or_default();
        for (_, data) in whole_lines(&text).0 {
            if let Ok(entry) = serde_json::from_slice::<Entry>(data) {
                entries.insert(entry.key, entry);
            }
        }
        let names = self.disk.names(&self.root.join("results"))?;
        let present: HashSet<Digest> =
            names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect();
        entries.retain(|key, _| present.contains(key));
        let mut behind = Vec::new();
        for key in present.iter().filter(|key| !entries.contains_key(*key)) {
            if let Some(metadata) = self.disk.look(&self.record_path(key))?
                && let Some(record) = self.record(key)?
            {
                behind.push(Entry::new(&record, stamp(&metadata)));
            }
        }
        // A cache that cannot be written to can still be read.
        let _ = self.append_to_index(&behind);
        let mut index = Index::default();
        entries.into_values().chain(behind).for_each(|entry| index.insert(entry));
        Ok(index)
    }

    fn append_to_index(&self, entries: &[Entry]) -> Result<(), StoreError> {
        if entries.is_empty() || !self.writes {
            return Ok(());
        }
        let lines: Vec<u8> = entries.iter().flat_map(seal).collect();
        append(&self.disk, &self.root.join("index"), &lines)
    }
}

/// Adds `lines` to the end of `path` in one write. A torn line before them is closed first, so that it costs itself
/// alone.
pub(super) fn append(disk: &Disk, path: &std::path::Path, lines: &[u8]) -> Result<(), StoreError> {
    let mut file = disk.open_end(path, false)?;
    let torn = ends_torn(&mut file).map_err(StoreError::io("read", path))?;
    if torn { disk.add(&file, path, &[b"\n", lines].concat()) } else { disk.add(&file, path, lines) }
}

fn ends_torn(file: &mut File) -> std::io::Result<bool> {
    use std::io::{Read, Seek, SeekFrom};
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn stamp(metadata: &Metadata) -> (u64, u64) {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    (metadata.len(), modified.map_or(0, |age| age.as_nanos() as u64))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::record::tests::{claim, example, publish};
    use super::*;

    #[test]
    fn the_index_is_rebuilt_when_missing_torn_or_behind() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let records = ["a", "b", "c"].map(|name| example(&store, name, name));
        records.iter().for_each(|record| drop(publish(&store, record)));
        let path = folder.path().join("index");
        let whole = fs::read(&path).unwrap();
        for text in [None, Some(&whole[..whole.len() - 9]), Some(&whole[..whole.len() / 3]), Some(&b"rubbish"[..])] {
            match text {
                Some(text) => fs::write(&path, text).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let reopened = Store::open(folder.path()).unwrap();
            assert_eq!(reopened.earlier("test", "toy").unwrap().len(), 3);
            assert!(
                records.iter().all(|record| reopened.entry(&record.key).unwrap().unwrap().content == record.content)
            );
            let (lines, _) =
                whole_lines(&fs::read(&path).unwrap()).0.into_iter().fold((0, ()), |(n, ()), _| (n + 1, ()));
            assert_eq!(lines, 3, "and written again");
        }
    }

    #[test]
    fn an_entry_never_outlives_its_record_nor_hides_a_newer_one() {
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = (Store::open(folder.path()).unwrap(), Store::open(folder.path()).unwrap());
        let (first, mut second) = (example(&store, "key", "one"), example(&store, "key", "two"));
        publish(&store, &first);
        assert_eq!(other.entry(&first.key).unwrap().unwrap().content, first.content);
        second.generation = 2;
        store.supersede(&claim(&store, &second), &second).unwrap();
        assert_eq!(other.entry(&first.key).unwrap().unwrap().content, second.content);
        fs::remove_file(store.record_path(&first.key)).unwrap();
        assert_eq!(other.entry(&first.key).unwrap(), None);
        assert!(Store::open(folder.path()).unwrap().earlier("test", "toy").unwrap().is_empty());
    }

    #[test]
    fn a_part_that_was_cut_short_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let record = example(&store, "key", "one");
        publish(&store, &record);
        let entry = store.entry(&record.key).unwrap().unwrap();
        assert_eq!(store.lost_of(&entry).unwrap(), Some(Vec::new()));
        let path = store.object_path(&record.content);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "on").unwrap();
        assert_eq!(store.lost_of(&entry).unwrap().map(|lost| lost.len()), Some(1));
    }
}
