//! All that a cache holds, and what needs what: for its statistics and for eviction.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use rayon::prelude::*;
use serde::Serialize;

use super::record::Record;
use super::stats::Share;
use super::{Store, StoreError};
use crate::digest::Digest;

/// All that a cache holds.
pub(super) struct Census {
    pub objects: Vec<Object>,
    /// Results, journals and unfinished work, each of which can be evicted as a whole.
    pub units: Vec<Unit>,
    /// Records that cannot be read: nothing can be done with them.
    pub damaged: Vec<Digest>,
}

/// An object.
pub(super) struct Object {
    pub digest: Digest,
    pub bytes: u64,
    pub changed: SystemTime,
    /// How many units need it.
    pub needed: u32,
}

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// A record and what it names.
    Result,
    /// The journals of one function.
    Items,
    /// Scratch.
    Work,
}

/// Something that can be evicted.
pub(super) struct Unit {
    pub what: What,
    pub key: Digest,
    /// Its own size, without objects.
    pub bytes: u64,
    /// Indices of the objects that it needs.
    pub objects: Vec<u32>,
    /// When it was last made, or added to.
    pub made: Timestamp,
    /// Of results: the kind and the pipeline.
    pub of: Option<(String, String)>,
    /// Of results: the journals that they were made from.
    pub function_key: Option<Digest>,
}

impl Store {
    /// Reads all that the cache holds.
    ///
    /// # Errors
    /// When a part of it cannot be read: nothing is evicted then.
    pub(super) fn census(&self) -> Result<Census, StoreError> {
        let objects = self.all_objects()?;
        let by_digest: HashMap<Digest, u32> =
            objects.iter().enumerate().map(|(index, object)| (object.digest, index as u32)).collect();
        let mut census = Census { objects, units: Vec::new(), damaged: Vec::new() };
        for name in self.disk.names(&self.results)? {
            let Some(key) = name.strip_suffix(".json").and_then(|name| name.parse().ok()) else { continue };
            let bytes = self.disk.look(&self.record_path(&key))?.map_or(0, |metadata| metadata.len());
            match self.record(&key)? {
                Some(record) => census.add(result(record, bytes, &by_digest)),
                // Removed since the directory was listed, or damaged.
                None if self.disk.look(&self.record_path(&key))?.is_some() => census.damaged.push(key),
                None => {}
            }
        }
        for name in self.disk.names(&self.root.join("items"))? {
            if let Ok(key) = name.parse() {
                census.add(self.items_unit(key, &by_digest)?);
            }
        }
        for key in self.unfinished()? {
            let (share, changed) = self.size_of(&self.root.join("work").join(key.to_string()))?;
            let made = timestamp(changed);
            let (what, of, function_key) = (What::Work, None, None);
            census.add(Unit { what, key, bytes: share.bytes, objects: Vec::new(), made, of, function_key });
        }
        Ok(census)
    }

    fn items_unit(&self, key: Digest, by_digest: &HashMap<Digest, u32>) -> Result<Unit, StoreError> {
        let (share, changed) = self.size_of(&self.items_folder(&key))?;
        let mut objects: Vec<u32> =
            self.items(&key)?.objects().filter_map(|digest| by_digest.get(digest).copied()).collect();
        objects.sort_unstable();
        objects.dedup();
        let (what, made, of, function_key) = (What::Items, timestamp(changed), None, None);
        Ok(Unit { what, key, bytes: share.bytes, objects, made, of, function_key })
    }

    fn all_objects(&self) -> Result<Vec<Object>, StoreError> {
        let folders = self.disk.names(&self.objects)?;
        let of_folder = |folder: &String| -> Result<Vec<Object>, StoreError> {
            let path = self.objects.join(folder);
            let mut objects = Vec::new();
            for name in self.disk.names(&path)? {
                let Ok(digest) = format!("{folder}{name}").parse() else { continue };
                // Removed since the directory was listed.
                let Some(metadata) = self.disk.look(&path.join(&name))? else { continue };
                let changed = metadata.modified().map_err(StoreError::io("read", &path))?;
                objects.push(Object { digest, bytes: metadata.len(), changed, needed: 0 });
            }
            Ok(objects)
        };
        let all: Vec<Vec<Object>> = folders.par_iter().map(of_folder).collect::<Result<_, _>>()?;
        Ok(all.into_iter().flatten().collect())
    }

    /// The size of all that is in `folder`, and when a file in it last changed.
    fn size_of(&self, folder: &std::path::Path) -> Result<(Share, SystemTime), StoreError> {
        let (mut share, mut changed) = (Share::default(), UNIX_EPOCH);
        let mut left = vec![folder.to_owned()];
        while let Some(folder) = left.pop() {
            for name in self.disk.names(&folder)? {
                let path = folder.join(name);
                let Some(metadata) = self.disk.look(&path)? else { continue };
                if metadata.is_dir() {
                    left.push(path);
                    continue;
                }
                changed = changed.max(metadata.modified().unwrap_or(UNIX_EPOCH));
                share.count += 1;
                share.bytes += metadata.len();
            }
        }
        Ok((share, changed))
    }
}

fn result(record: Record, bytes: u64, by_digest: &HashMap<Digest, u32>) -> Unit {
    let mut objects: Vec<u32> =
        record.objects.iter().filter_map(|object| by_digest.get(&object.digest).copied()).collect();
    objects.sort_unstable();
    objects.dedup();
    Unit {
        what: What::Result,
        key: record.key,
        bytes,
        objects,
        made: record.provenance.finished.parse().unwrap_or_default(),
        of: Some((record.kind, record.provenance.pipeline)),
        function_key: record.function_key,
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or_default()
}

impl Census {
    fn add(&mut self, unit: Unit) {
        for object in &unit.objects {
            self.objects[*object as usize].needed += 1;
        }
        self.units.push(unit);
    }

    /// Takes `unit` out of account; returns the objects that nothing needs any more.
    pub(super) fn forget(&mut self, unit: usize) -> Vec<u32> {
        let objects = std::mem::take(&mut self.units[unit].objects);
        objects
            .into_iter()
            .filter(|object| {
                let object = &mut self.objects[*object as usize];
                object.needed -= 1;
                object.needed == 0
            })
            .collect()
    }
}

/// What one kind of node, or one pipeline, has in the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The name of the kind or the pipeline.
    pub name: String,
    /// How many results.
    pub count: usize,
    /// The size of their records, and of the objects that they need. An object that several need is counted for each.
    pub bytes: u64,
}

/// Who holds what in a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Holders {
    /// By kind of node, the largest first.
    pub kinds: Vec<Holder>,
    /// By pipeline, the largest first.
    pub pipelines: Vec<Holder>,
    /// Objects that no result and no journal needs, and records that are damaged: what `cache gc` removes unasked.
    pub unneeded: Share,
}

impl Store {
    /// Who holds what: by kind, by pipeline, and what nobody does. Reads every record and every journal.
    ///
    /// # Errors
    /// When a part of the cache cannot be read.
    pub fn holders(&self) -> Result<Holders, StoreError> {
        let census = self.census()?;
        let largest_first = |of: fn(&(String, String)) -> &String| {
            let mut holders: HashMap<&str, (usize, u64)> = HashMap::new();
            for unit in &census.units {
                let Some(names) = &unit.of else { continue };
                let objects = unit.objects.iter().map(|object| census.objects[*object as usize].bytes).sum::<u64>();
                let holder = holders.entry(of(names)).or_default();
                (holder.0, holder.1) = (holder.0 + 1, holder.1 + unit.bytes + objects);
            }
            let holder = |(name, (count, bytes)): (&str, _)| Holder { name: name.to_owned(), count, bytes };
            let mut holders: Vec<Holder> = holders.into_iter().map(holder).collect();
            holders.sort_by(|a, b| (b.bytes, &a.name).cmp(&(a.bytes, &b.name)));
            holders
        };
        let unneeded = census.objects.iter().filter(|object| object.needed == 0);
        let unneeded = unneeded
            .fold(Share::default(), |sum, object| Share { count: sum.count + 1, bytes: sum.bytes + object.bytes });
        Ok(Holders { kinds: largest_first(|names| &names.0), pipelines: largest_first(|names| &names.1), unneeded })
    }
}
