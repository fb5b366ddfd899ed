//! Reads all that a cache holds, and forgets what is damaged: it is made again when it is needed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

use rayon::prelude::*;
use serde::Serialize;

use super::stats::Share;
use super::{Store, StoreError};
use crate::digest::Digest;

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The objects that are what their names say.
    pub sound: Share,
    /// The objects that are not.
    pub damaged_objects: Vec<Digest>,
    /// The keys of records that cannot be read.
    pub damaged_records: Vec<Digest>,
    /// Results that lack objects, as node and pipeline, with how many objects: they are made again when needed.
    pub incomplete: Vec<Incomplete>,
    /// Lines of journals that were torn or damaged: their items are made again when needed.
    pub broken_lines: usize,
    /// Whether what is damaged was removed.
    pub removed: bool,
}

/// A result that lacks objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Incomplete {
    /// Its node.
    pub node: String,
    /// The pipeline of that.
    pub pipeline: String,
    /// How many objects are missing or damaged.
    pub objects: usize,
}

impl Verified {
    /// Whether nothing is damaged. Torn lines and missing objects are no damage: a crash and an eviction leave them.
    pub fn is_sound(&self) -> bool {
        self.damaged_objects.is_empty() && self.damaged_records.is_empty()
    }
}

impl Store {
    /// Digests every object and reads every record and journal. What is damaged is removed, unless the cache was opened
    /// for reading. Tells `progress` of every object, with its size.
    ///
    /// # Errors
    /// When something cannot be read, which says nothing about what it holds, or cannot be removed.
    pub fn verify(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Verified, StoreError> {
        let census = self.census()?;
        let damaged = Mutex::new(Vec::new());
        let digest = |object: &super::census::Object| -> Result<Share, StoreError> {
            let verified = self.verify_object(&object.digest);
            progress(object.bytes);
            match verified {
                Ok(()) => return Ok(Share { count: 1, bytes: object.bytes }),
                Err(StoreError::CorruptObject { .. }) => {
                    damaged.lock().expect("no panic under the lock").push(object.digest);
                }
                // Evicted since it was counted.
                Err(StoreError::MissingObject { .. }) => {}
                Err(error) => return Err(error),
            }
            Ok(Share::default())
        };
        let add = |a: Share, b: Share| Ok(Share { count: a.count + b.count, bytes: a.bytes + b.bytes });
        let sound = census.objects.par_iter().map(digest).try_reduce(Share::default, add)?;
        let mut damaged_objects = damaged.into_inner().expect("no panic under the lock");
        damaged_objects.sort();
        let present: HashSet<Digest> = census.objects.iter().map(|object| object.digest).collect();
        let lost = |digest: &Digest| !present.contains(digest) || damaged_objects.binary_search(digest).is_ok();

        let mut incomplete: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut broken_lines = 0;
        for unit in &census.units {
            match unit.what {
                super::census::What::Result => {
                    let Some(record) = self.record(&unit.key)? else { continue };
                    let count = record.objects.iter().filter(|object| lost(&object.digest)).count();
                    if count > 0 {
                        let provenance = record.provenance;
                        *incomplete.entry((provenance.node, provenance.pipeline)).or_default() += count;
                    }
                }
                super::census::What::Items => broken_lines += self.items(&unit.key)?.broken(),
                super::census::What::Work => {}
            }
        }
        if self.writes {
            for key in &census.damaged {
                self.remove_damaged_record(key)?;
            }
        }
        let incomplete = incomplete.into_iter();
        Ok(Verified {
            sound,
            damaged_objects,
            damaged_records: census.damaged,
            incomplete: incomplete.map(|((node, pipeline), objects)| Incomplete { node, pipeline, objects }).collect(),
            broken_lines,
            removed: self.writes,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::record::tests::{example, publish};
    use super::*;

    #[test]
    fn what_is_damaged_is_named_and_forgotten_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let [sound, damaged, unreadable] = ["sound", "damaged", "unreadable"].map(|name| {
            let mut record = example(&store, name, name);
            record.provenance.node = name.to_owned();
            publish(&store, &record);
            record
        });
        assert!(store.verify(&|_| ()).unwrap().is_sound());
        let path = store.object_path(&damaged.content);
        fs::remove_file(&path).unwrap();
        // Of the same size, so that only reading it tells.
        fs::write(&path, "DAMAGED").unwrap();
        fs::write(store.record_path(&unreadable.key), "{}").unwrap();

        let reading = Store::open_for_reading(folder.path()).unwrap();
        let found = reading.verify(&|_| ()).unwrap();
        assert_eq!((&found.damaged_objects, &found.damaged_records), (&vec![damaged.content], &vec![unreadable.key]));
        let incomplete = Incomplete { node: "damaged".to_owned(), pipeline: "test".to_owned(), objects: 1 };
        assert_eq!(found.incomplete, [incomplete]);
        assert!(!found.is_sound() && !found.removed && path.exists());

        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.verify(&|_| ()).unwrap(), Verified { removed: true, ..found });
        assert!(!path.exists() && !store.record_path(&unreadable.key).exists());
        assert!(matches!(store.find(&sound.key).unwrap(), super::super::Found::Complete(_)));
        let again = store.verify(&|_| ()).unwrap();
        assert!(again.is_sound() && again.incomplete.len() == 1);
    }
}
