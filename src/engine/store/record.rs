//! The record of a finished node: `results/<key>.json`, written last.

use std::io::ErrorKind;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::checked::{seal, unseal};
use super::{Claim, Store, StoreError};
use crate::digest::{Digest, Value};
use crate::event::ItemCounts;
use crate::node::{Part, Summary};

/// The record of a finished node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What determines the result; the record's file is named by it.
    pub key: Digest,
    /// 1, and one more each time the result was recomputed by force.
    pub generation: u32,
    /// The kind of node.
    pub kind: String,
    /// The name of the kind of artifact.
    pub artifact: String,
    /// The fields of the key, by name, in the order in which they were hashed.
    pub fields: Vec<(String, Value)>,
    /// The key of the node's items, for kinds that map items: the name of their directory under `items/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function_key: Option<Digest>,
    /// How many items it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<ItemCounts>,
    /// The digest of the identity parts.
    pub content: Digest,
    /// The parts that are its identity.
    pub identity: Vec<Part>,
    /// The parts that are not.
    pub side: Vec<Part>,
    /// All objects that the result needs, its parts first: what eviction must keep together.
    pub objects: Vec<StoredObject>,
    /// Its summary.
    pub summary: Summary,
    /// How it came about; nothing of this is part of any key.
    pub provenance: Provenance,
}

impl Record {
    /// The record of `key` that `text` holds, unless it is damaged.
    pub(super) fn read(text: &[u8], key: &Digest) -> Option<Self> {
        let record: Self = serde_json::from_slice(unseal(text.trim_ascii_end())?).ok()?;
        Some(record).filter(|record| record.key == *key)
    }
}

/// An object and its size, by which one that was cut short is noticed without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
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
    /// The slots that the node occupied: what the one is, or a list of several.
    #[serde(default, rename = "device", skip_serializing_if = "serde_json::Value::is_null")]
    pub slots: serde_json::Value,
    /// When it was begun, UTC.
    pub started: String,
    /// When it was finished, UTC; of fixed width, so that these texts sort as times do.
    pub finished: String,
    /// How long the last process worked on it, in seconds.
    pub seconds: f64,
    /// The contents of the generations that this one supersedes, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<Digest>,
    /// The scratch that the work was done in: by this it is known to be finished with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<String>,
}

/// The outcome of publishing a record.
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
    ///
    /// # Errors
    /// When it cannot be determined whether there is one.
    pub fn record(&self, key: &Digest) -> Result<Option<Record>, StoreError> {
        let Some(text) = self.disk.read(&self.record_path(key))? else { return Ok(None) };
        Ok(Record::read(&text, key))
    }

    /// The objects of `record` that are not in the store, or have another size than when they were made.
    ///
    /// # Errors
    /// When that cannot be determined.
    pub fn lost_objects(&self, record: &Record) -> Result<Vec<Digest>, StoreError> {
        self.lost(&record.objects)
    }

    pub(super) fn lost(&self, objects: &[StoredObject]) -> Result<Vec<Digest>, StoreError> {
        let mut lost = Vec::new();
        for object in objects {
            if self.object_size(&object.digest)? != Some(object.size) {
                lost.push(object.digest);
            }
        }
        Ok(lost)
    }

    /// Makes `record` the record of its key, unless there is one that is complete.
    ///
    /// # Errors
    /// When it cannot be written, or `claim`, which is that on its key, is lost.
    pub fn publish(&self, claim: &Claim, record: &Record) -> Result<Publication, StoreError> {
        loop {
            match self.record(&record.key)? {
                Some(existing) if self.lost_objects(&existing)?.is_empty() => return Ok(compare(existing, record)),
                _ => {}
            }
            // The existing record is damaged, or names objects that are gone. Where there is nothing, what another
            // process puts there meanwhile is not replaced.
            let replace = self.disk.look(&self.record_path(&record.key))?.is_some();
            if self.place(claim, record, replace)? {
                return Ok(Publication::Published);
            }
        }
    }

    /// Makes `record` the record of its key, replacing any other.
    ///
    /// # Errors
    /// As [`Store::publish`].
    pub fn supersede(&self, claim: &Claim, record: &Record) -> Result<(), StoreError> {
        while !self.place(claim, record, true)? {}
        Ok(())
    }

    /// Gives `record` its place; `false` when something got in between, and all must be looked at again.
    ///
    /// The record is written into the claim's directory first, then the claim is looked at, then the record is moved.
    /// Whoever takes the claim over removes it first, and then what its last owner was about to publish: so an owner
    /// that is held up at any point after it looked finds nothing to move any more.
    fn place(&self, claim: &Claim, record: &Record, replace: bool) -> Result<bool, StoreError> {
        let path = self.record_path(&record.key);
        let folder = self.results.clone();
        self.make_folder(&folder)?;
        let staged = claim.stage(&seal(record))?;
        let placed = claim
            .verify()
            .and_then(|()| if replace { self.disk.rename(&staged, &path) } else { self.disk.link(&staged, &path) });
        let placed = match placed {
            // Nobody else may publish now, so nothing that is complete is replaced.
            Err(error) if error.is(ErrorKind::Unsupported) => self.disk.rename(&staged, &path),
            placed => placed,
        };
        let _ = self.disk.remove(&staged);
        match placed {
            Ok(()) => {}
            Err(error) if error.is(ErrorKind::AlreadyExists) => return Ok(false),
            // Removed by one that took over, or by one that tried to and stepped back.
            Err(error) if error.is(ErrorKind::NotFound) => return claim.verify().map(|()| false),
            Err(error) => return Err(error),
        }
        self.names.added(&folder);
        self.sync_names(false)?;
        self.note_in_index(record);
        Ok(true)
    }

    /// The path of the record of `key`, whether or not it exists.
    pub fn record_path(&self, key: &Digest) -> PathBuf {
        self.results.join(format!("{key}.json"))
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
    use std::fs;

    use super::super::Claiming;
    use super::*;

    /// The claim on the key of `record`.
    pub fn claim(store: &Store, record: &Record) -> Claim {
        match store.claim(&record.key).unwrap() {
            Claiming::Held(claim) => claim,
            Claiming::Taken(owner) => panic!("{owner} has it"),
        }
    }

    pub fn publish(store: &Store, record: &Record) -> Publication {
        store.publish(&claim(store, record), record).unwrap()
    }

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
            items: Some(ItemCounts { total: 3, skipped: 1, ..ItemCounts::default() }),
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
                slots: serde_json::Value::Null,
                started: crate::store::now(),
                finished: crate::store::now(),
                seconds: 0.5,
                superseded: Vec::new(),
                scratch: None,
            },
        }
    }

    #[test]
    fn a_record_reads_back_and_another_content_does_not_replace_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (first, second) = (example(&store, "key", "one"), example(&store, "key", "two"));
        assert_eq!(publish(&store, &first), Publication::Published);
        assert_eq!(store.record(&first.key).unwrap(), Some(first.clone()));
        assert_eq!(publish(&store, &first), Publication::Agreed(Box::new(first.clone())));
        assert_eq!(publish(&store, &second), Publication::Differs(Box::new(first.clone())));
        assert_eq!(store.record(&first.key).unwrap(), Some(first.clone()));
        store.supersede(&claim(&store, &second), &second).unwrap();
        assert_eq!(store.record(&first.key).unwrap(), Some(second));
    }

    #[test]
    fn a_damaged_record_counts_as_missing_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let record = example(&store, "key", "one");
        publish(&store, &record);
        let path = store.record_path(&record.key);
        let text = fs::read_to_string(&path).unwrap();
        for damaged in [text.replace("three", "thr33"), text[..text.len() / 2].to_owned(), String::new()] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(store.record(&record.key).unwrap(), None);
        }
        assert_eq!(publish(&store, &record), Publication::Published);
        assert_eq!(store.record(&record.key).unwrap(), Some(record));
    }

    #[test]
    fn a_record_whose_objects_are_gone_or_cut_short_gives_way() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (first, second) = (example(&store, "key", "one"), example(&store, "key", "two"));
        publish(&store, &first);
        fs::remove_file(store.object_path(&first.content)).unwrap();
        fs::write(store.object_path(&first.content), "o").unwrap();
        assert_eq!(store.lost_objects(&first).unwrap(), [first.content]);
        assert_eq!(publish(&store, &second), Publication::Published);
        assert_eq!(store.record(&first.key).unwrap(), Some(second));
    }
}
