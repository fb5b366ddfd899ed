//! What plans need of every record, in one file, so that a plan does not open a thousand.
//!
//! The index is derived and never trusted further than the record's size and time of change: an entry that does not
//! match them is read again from the record, a record without an entry gets one, an entry without a record is dropped.
//! It does not know why anybody looks for a key.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io::Write;
use std::sync::Mutex;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::checked::{seal, whole_lines};
use super::record::{ItemTotals, Record, StoredObject};
use super::{Store, StoreError};
use crate::digest::Digest;
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
    pub items: Option<ItemTotals>,
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

impl Store {
    /// What is kept of the record of `key`, when there is one.
    pub fn entry(&self, key: &Digest) -> Option<Entry> {
        let metadata = fs::metadata(self.record_path(key)).ok()?;
        let known = self.index().lock().expect("no panic under the lock").entries.get(key).cloned();
        match known {
            Some(entry) if entry.stamp == stamp(&metadata) => Some(entry),
            _ => {
                let record = self.record(key)?;
                let entry = Entry::new(&record, stamp(&metadata));
                let _ = self.append_to_index(std::slice::from_ref(&entry));
                self.index().lock().expect("no panic under the lock").insert(entry.clone());
                Some(entry)
            }
        }
    }

    /// The objects that `entry` needs and that are not in the store, or have another size than when they were made.
    /// `None` when its record cannot be read any more.
    pub fn lost_of(&self, entry: &Entry) -> Option<Vec<Digest>> {
        if entry.more > 0 { Some(self.lost_objects(&self.record(&entry.key)?)) } else { Some(self.lost(&entry.parts)) }
    }

    /// The records that nodes of `pipeline` called `node` came to, the latest first.
    pub fn earlier(&self, pipeline: &str, node: &str) -> Vec<Entry> {
        let index = self.index().lock().expect("no panic under the lock");
        let keys = index.nodes.get(&(pipeline.to_owned(), node.to_owned()));
        index.latest_first(keys.into_iter().flatten())
    }

    /// All other records than those of nodes of `pipeline` called by one of `names`, the latest first.
    pub fn others(&self, pipeline: &str, names: &BTreeSet<&str>) -> Vec<Entry> {
        let index = self.index().lock().expect("no panic under the lock");
        let others = index.nodes.iter().filter(|((of, node), _)| of != pipeline || !names.contains(node.as_str()));
        index.latest_first(others.flat_map(|(_, keys)| keys))
    }

    /// The last record of the node `node` of `pipeline`.
    pub fn last(&self, pipeline: &str, node: &str) -> Option<Record> {
        self.earlier(pipeline, node).iter().find_map(|entry| self.record(&entry.key))
    }

    /// Takes a record that has just been written into the index. A failure costs time later, nothing else.
    pub(super) fn note_in_index(&self, record: &Record) {
        if let Ok(metadata) = fs::metadata(self.record_path(&record.key)) {
            let entry = Entry::new(record, stamp(&metadata));
            let _ = self.append_to_index(std::slice::from_ref(&entry));
            self.index().lock().expect("no panic under the lock").insert(entry);
        }
    }

    fn index(&self) -> &Mutex<Index> {
        self.index.get_or_init(|| Mutex::new(self.load_index()))
    }

    /// Reads the index and brings it up to what `results/` holds.
    fn load_index(&self) -> Index {
        let mut entries = HashMap::new();
        let text = fs::read(self.root.join("index")).unwrap_or_default();
        for (_, data) in whole_lines(&text).0 {
            if let Ok(entry) = serde_json::from_slice::<Entry>(data) {
                entries.insert(entry.key, entry);
            }
        }
        let present: HashSet<Digest> = fs::read_dir(self.root.join("results"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|file| file.file_name().to_str()?.strip_suffix(".json")?.parse().ok())
            .collect();
        entries.retain(|key, _| present.contains(key));
        let behind: Vec<Entry> = present
            .iter()
            .filter(|key| !entries.contains_key(*key))
            .filter_map(|key| {
                let metadata = fs::metadata(self.record_path(key)).ok()?;
                Some(Entry::new(&self.record(key)?, stamp(&metadata)))
            })
            .collect();
        // A cache that cannot be written to can still be read.
        let _ = self.append_to_index(&behind);
        let mut index = Index::default();
        entries.into_values().chain(behind).for_each(|entry| index.insert(entry));
        index
    }

    fn append_to_index(&self, entries: &[Entry]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let lines: Vec<u8> = entries.iter().flat_map(seal).collect();
        append(&self.root.join("index"), &lines)
    }
}

/// Adds `lines` to the end of `path` in one write. A torn line before them is closed first, so that it costs itself
/// alone.
pub(super) fn append(path: &std::path::Path, lines: &[u8]) -> Result<(), StoreError> {
    let write = || -> std::io::Result<()> {
        let mut file = File::options().append(true).create(true).read(true).open(path)?;
        if ends_torn(&mut file)? { file.write_all(&[b"\n", lines].concat()) } else { file.write_all(lines) }
    };
    write().map_err(StoreError::io("write", path))
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
    use super::super::record::tests::example;
    use super::*;

    #[test]
    fn the_index_is_rebuilt_when_missing_torn_or_behind() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let records = ["a", "b", "c"].map(|name| example(&store, name, name));
        records.iter().for_each(|record| drop(store.publish(record).unwrap()));
        let path = folder.path().join("index");
        let whole = fs::read(&path).unwrap();
        for text in [None, Some(&whole[..whole.len() - 9]), Some(&whole[..whole.len() / 3]), Some(&b"rubbish"[..])] {
            match text {
                Some(text) => fs::write(&path, text).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let reopened = Store::open(folder.path()).unwrap();
            assert_eq!(reopened.earlier("test", "toy").len(), 3);
            assert!(records.iter().all(|record| reopened.entry(&record.key).unwrap().content == record.content));
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
        store.publish(&first).unwrap();
        assert_eq!(other.entry(&first.key).unwrap().content, first.content);
        second.generation = 2;
        store.supersede(&second).unwrap();
        assert_eq!(other.entry(&first.key).unwrap().content, second.content);
        fs::remove_file(store.record_path(&first.key)).unwrap();
        assert_eq!(other.entry(&first.key), None);
        assert!(Store::open(folder.path()).unwrap().earlier("test", "toy").is_empty());
    }

    #[test]
    fn a_part_that_was_cut_short_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let record = example(&store, "key", "one");
        store.publish(&record).unwrap();
        let entry = store.entry(&record.key).unwrap();
        assert_eq!(store.lost_of(&entry), Some(Vec::new()));
        let path = store.object_path(&record.content);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "on").unwrap();
        assert_eq!(store.lost_of(&entry).map(|lost| lost.len()), Some(1));
    }
}
