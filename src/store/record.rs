//! The record of a finished node: `results/<key>.json`, written last. What its fields mean is not known here.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::checked::{seal, unseal};
use super::{Store, StoreError, sync_folder};
use crate::device::DeviceChoice;
use crate::digest::{Digest, Value};
use crate::node::{Part, Summary};

/// What is kept of a finished node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What determines the result; the record's file is named by it.
    pub key: Digest,
    /// 1, and one more each time the result was made anew by force.
    pub generation: u32,
    /// The kind of node.
    pub kind: String,
    /// The name of the kind of artifact.
    pub artifact: String,
    /// The fields of the key, by name, in the order in which they were hashed.
    pub fields: Vec<(String, Value)>,
    /// The key of the node's items, for kinds that map items: the name of their folder under `items/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function_key: Option<Digest>,
    /// How many items it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<ItemTotals>,
    /// The digest of the identity parts.
    pub content: Digest,
    /// The parts that are its identity.
    pub identity: Vec<Part>,
    /// The parts that are not.
    pub side: Vec<Part>,
    /// All objects that the result needs, its parts first: what eviction must keep together.
    pub objects: Vec<StoredObject>,
    /// What people are shown of it.
    pub summary: Summary,
    /// How it came about; nothing of this is part of any key.
    pub provenance: Provenance,
}

/// An object and its size, by which one that was cut short is noticed without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// How many items a result has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemTotals {
    /// All items, bad ones included.
    pub total: usize,
    /// Items left out because they were bad.
    pub skipped: usize,
}

/// How a result came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The version of this program.
    pub stic: String,
    /// The pipeline that was run.
    pub pipeline: String,
    /// The name of the node in it.
    pub node: String,
    /// The run's id.
    pub run: String,
    /// The machine's name.
    pub host: String,
    /// The device, for kinds that compute tensors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceChoice>,
    /// When it was begun, UTC.
    pub started: String,
    /// When it was finished, UTC; of fixed width, so that these texts sort as times do.
    pub finished: String,
    /// How long the last process worked on it, in seconds.
    pub seconds: f64,
    /// The contents of the generations that this one supersedes, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<Digest>,
}

/// What publishing a record came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Publication {
    /// It is the record of its key now.
    Published,
    /// Another process was first, with the same content.
    Agreed(Box<Record>),
    /// Another process was first, with another content, which stays.
    Differs(Box<Record>),
}

impl Store {
    /// The record of `key`. A damaged one counts as missing.
    pub fn record(&self, key: &Digest) -> Option<Record> {
        let text = fs::read(self.record_path(key)).ok()?;
        let record: Record = serde_json::from_slice(unseal(text.trim_ascii_end())?).ok()?;
        (record.key == *key).then_some(record)
    }

    /// The objects of `record` that are not in the store, or have another size than when they were made.
    pub fn lost_objects(&self, record: &Record) -> Vec<Digest> {
        self.lost(&record.objects)
    }

    pub(super) fn lost(&self, objects: &[StoredObject]) -> Vec<Digest> {
        let lost = objects.iter().filter(|object| self.object_size(&object.digest) != Some(object.size));
        lost.map(|object| object.digest).collect()
    }

    /// Makes `record` the record of its key, unless there is one that is complete.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn publish(&self, record: &Record) -> Result<Publication, StoreError> {
        if let Some(existing) = self.record(&record.key).filter(|existing| self.lost_objects(existing).is_empty()) {
            return Ok(compare(existing, record));
        }
        let path = self.record_path(&record.key);
        // What is there is damaged, or names objects that are gone.
        let _ = fs::remove_file(&path);
        let temporary = self.write_temporary(&seal(record), 0o644, true)?;
        let folder = self.results_folder()?;
        // A link, unlike a rename, never replaces what another process put there meanwhile.
        let linked = fs::hard_link(&temporary, &path);
        let placed = match linked {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let _ = fs::remove_file(&temporary);
                return match self.record(&record.key) {
                    Some(existing) => Ok(compare(existing, record)),
                    None => self.supersede(record).map(|()| Publication::Published),
                };
            }
            Err(_) => fs::rename(&temporary, &path),
            Ok(()) => Ok(()),
        };
        let _ = fs::remove_file(&temporary);
        placed.map_err(StoreError::io("write", &path))?;
        sync_folder(&folder)?;
        self.note_in_index(record);
        Ok(Publication::Published)
    }

    /// Makes `record` the record of its key whatever is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn supersede(&self, record: &Record) -> Result<(), StoreError> {
        self.write_whole(&self.record_path(&record.key), &seal(record), 0o644)?;
        self.note_in_index(record);
        Ok(())
    }

    /// Where the record of `key` lies, or would lie.
    pub fn record_path(&self, key: &Digest) -> PathBuf {
        self.root.join("results").join(format!("{key}.json"))
    }

    fn results_folder(&self) -> Result<PathBuf, StoreError> {
        let folder = self.root.join("results");
        super::make_folder(&folder)?;
        Ok(folder)
    }
}

fn compare(existing: Record, record: &Record) -> Publication {
    if existing.content == record.content {
        Publication::Agreed(Box::new(existing))
    } else {
        Publication::Differs(Box::new(existing))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn example(store: &Store, key: &str, content: &str) -> Record {
        let digest = store.put_object(content.as_bytes()).unwrap();
        let part = Part { name: "rows.jsonl".to_owned(), digest };
        Record {
            key: Digest::of(key.as_bytes()),
            generation: 1,
            kind: "toy".to_owned(),
            artifact: "records".to_owned(),
            fields: vec![("kind".to_owned(), "toy".into()), ("beta".to_owned(), 0.1.into())],
            function_key: None,
            items: Some(ItemTotals { total: 3, skipped: 1 }),
            content: digest,
            identity: vec![part],
            side: Vec::new(),
            objects: vec![StoredObject { digest, size: content.len() as u64 }],
            summary: Summary { line: "three".to_owned(), ..Summary::default() },
            provenance: Provenance {
                stic: "0.0.0".to_owned(),
                pipeline: "test".to_owned(),
                node: "toy".to_owned(),
                run: "run".to_owned(),
                host: "here".to_owned(),
                device: None,
                started: crate::store::now(),
                finished: crate::store::now(),
                seconds: 0.5,
                superseded: Vec::new(),
            },
        }
    }

    #[test]
    fn a_record_reads_back_and_another_content_does_not_replace_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (first, second) = (example(&store, "key", "one"), example(&store, "key", "two"));
        assert_eq!(store.publish(&first).unwrap(), Publication::Published);
        assert_eq!(store.record(&first.key), Some(first.clone()));
        assert_eq!(store.publish(&first).unwrap(), Publication::Agreed(Box::new(first.clone())));
        assert_eq!(store.publish(&second).unwrap(), Publication::Differs(Box::new(first.clone())));
        assert_eq!(store.record(&first.key), Some(first.clone()));
        store.supersede(&second).unwrap();
        assert_eq!(store.record(&first.key), Some(second));
    }

    #[test]
    fn a_damaged_record_counts_as_missing_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let record = example(&store, "key", "one");
        store.publish(&record).unwrap();
        let path = store.record_path(&record.key);
        let text = fs::read_to_string(&path).unwrap();
        for damaged in [text.replace("three", "thr33"), text[..text.len() / 2].to_owned(), String::new()] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(store.record(&record.key), None);
        }
        assert_eq!(store.publish(&record).unwrap(), Publication::Published);
        assert_eq!(store.record(&record.key), Some(record));
    }

    #[test]
    fn a_record_whose_objects_are_gone_or_cut_short_gives_way() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (first, second) = (example(&store, "key", "one"), example(&store, "key", "two"));
        store.publish(&first).unwrap();
        fs::remove_file(store.object_path(&first.content)).unwrap();
        fs::write(store.object_path(&first.content), "o").unwrap();
        assert_eq!(store.lost_objects(&first), [first.content]);
        assert_eq!(store.publish(&second).unwrap(), Publication::Published);
        assert_eq!(store.record(&first.key), Some(second));
    }
}
