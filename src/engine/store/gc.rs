//! Eviction: results, journals and unfinished work go, the least recently used first, and with them the objects that
//! nothing else needs.
//!
//! A result is used when it is made and when a run finds it; the summaries of runs say so. What the latest runs of every
//! pipeline used stays if asked, what live runs have leased and what frozen nodes hold always. The order of removal makes
//! it safe to kill at any moment, and to race with runs:
//!
//! - A record is moved aside, then the leases are looked at, and one that is leased goes back ([`super::lease`]).
//! - Objects go after the records and journals that name them. One that was put, or put again, since the eviction or a
//!   live run began stays: its record may come. It is moved aside first, so that one that is put again at this very
//!   moment is either seen to be new and goes back, or is missing for whoever puts it, who writes it again.
//! - A journal, and scratch, goes under the claim on its key.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Serialize;

use super::census::{Census, What};
use super::lease::Leased;
use super::record::Record;
use super::stats::{Share, Stats, readable};
use super::{Claiming, Store, StoreError, unique};
use crate::digest::Digest;

/// What is to be evicted. What nothing needs goes in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Eviction {
    /// The size that the cache is to have at most, in bytes: the least recently used goes until it has.
    pub max_size: Option<u64>,
    /// What was not used for so long goes.
    pub older_than: Option<Duration>,
    /// The results that so many of the latest runs of every pipeline used stay.
    pub keep_runs: usize,
    /// Whether nothing is removed, only counted.
    pub dry_run: bool,
}

/// What was evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Evicted {
    /// Results: their records.
    pub results: Share,
    /// Journals of finished items, by function.
    pub items: Share,
    /// Scratch of unfinished nodes.
    pub work: Share,
    /// Objects.
    pub objects: Share,
    /// What the cache holds now, or would hold, in bytes.
    pub left: u64,
    /// How many runs are in progress.
    pub live_runs: usize,
    /// Whether the cache is still larger than it is to be.
    pub too_large: bool,
}

impl Evicted {
    /// The size of all that was evicted, in bytes.
    pub fn bytes(&self) -> u64 {
        [self.results, self.items, self.work, self.objects].iter().map(|share| share.bytes).sum()
    }
}

impl Store {
    /// Evicts what `eviction` says.
    ///
    /// # Errors
    /// When a part of the cache cannot be read, before anything is removed; or when something cannot be removed.
    pub fn evict(&self, eviction: &Eviction) -> Result<Evicted, StoreError> {
        self.may_write()?;
        self.check_there()?;
        let began = self.clock()?;
        let leased = self.leased()?;
        let cutoff = leased.since.map_or(began, |since| since.min(began));
        let mut census = self.census()?;
        let chosen = self.choose(&mut census, eviction, &leased, cutoff)?;
        let mut evicted = Evicted { live_runs: leased.runs, ..Evicted::default() };
        let mut gone: HashSet<usize> = chosen.iter().copied().collect();
        if !eviction.dry_run {
            gone = self.remove_units(&census, &chosen)?;
            for key in &census.damaged {
                self.remove_damaged_record(key)?;
            }
            self.forget_in_index(&gone.iter().map(|unit| census.units[*unit].key).collect());
        }
        for unit in &gone {
            let unit = &census.units[*unit];
            let share = match unit.what {
                What::Result => &mut evicted.results,
                What::Items => &mut evicted.items,
                What::Work => &mut evicted.work,
            };
            (share.count, share.bytes) = (share.count + 1, share.bytes + unit.bytes);
        }
        // `choose` has taken its choice out of account; what could not be removed counts again.
        let mut kept: HashSet<Digest> = HashSet::new();
        for unit in chosen.iter().filter(|unit| !gone.contains(unit)) {
            let unit = &census.units[*unit];
            if unit.what == What::Result
                && let Some(record) = self.record(&unit.key)?
            {
                kept.extend(record.objects.iter().map(|object| object.digest));
            } else if unit.what == What::Items {
                kept.extend(self.items(&unit.key)?.objects());
            }
        }
        for object in census.objects.iter().filter(|object| object.needed == 0 && object.changed < cutoff) {
            if !kept.contains(&object.digest) && (eviction.dry_run || self.remove_object(&object.digest, cutoff)?) {
                let share = &mut evicted.objects;
                (share.count, share.bytes) = (share.count + 1, share.bytes + object.bytes);
            }
        }
        let total = self.stats()?.bytes();
        evicted.left = if eviction.dry_run { total.saturating_sub(evicted.bytes()) } else { total };
        evicted.too_large = eviction.max_size.is_some_and(|most| evicted.left > most);
        Ok(evicted)
    }

    /// The units to be evicted, which are taken out of account.
    fn choose(
        &self,
        census: &mut Census,
        eviction: &Eviction,
        leased: &Leased,
        cutoff: SystemTime,
    ) -> Result<Vec<usize>, StoreError> {
        let Used { last, kept } = self.used(eviction.keep_runs)?;
        // Journals are used with their results.
        let mut used: Vec<Timestamp> = Vec::with_capacity(census.units.len());
        let mut of_function: HashMap<Digest, Timestamp> = HashMap::new();
        for unit in &census.units {
            let time = last.get(&unit.key).copied().unwrap_or_default().max(unit.made);
            if let Some(key) = unit.function_key {
                let latest = of_function.entry(key).or_default();
                *latest = time.max(*latest);
            }
            used.push(time);
        }
        for (unit, time) in census.units.iter().zip(&mut used).filter(|(unit, _)| unit.what == What::Items) {
            *time = of_function.get(&unit.key).copied().unwrap_or_default().max(*time);
        }
        // Of what was used at one time, results before journals: those are made again from these.
        let mut order: Vec<usize> = (0..census.units.len()).collect();
        order.sort_by_key(|unit| (used[*unit], census.units[*unit].what, census.units[*unit].key));
        order.retain(|unit| {
            let unit = &census.units[*unit];
            let stays = leased.keys.contains(&unit.key) || unit.what == What::Result && kept.contains(&unit.key);
            !stays
        });

        let stats: Stats = self.stats()?;
        let is_old = |object: &super::census::Object| object.changed < cutoff;
        let unneeded = census.objects.iter().filter(|object| object.needed == 0 && is_old(object));
        let mut size = stats.bytes().saturating_sub(unneeded.map(|object| object.bytes).sum());
        let oldest = eviction.older_than.and_then(|age| Timestamp::now().checked_sub(age).ok());
        let mut chosen = Vec::new();
        for unit in order {
            let too_large = eviction.max_size.is_some_and(|most| size > most);
            if too_large || oldest.is_some_and(|oldest| used[unit] < oldest) {
                size = size.saturating_sub(census.units[unit].bytes);
                for object in census.forget(unit) {
                    let object = &census.objects[object as usize];
                    size = size.saturating_sub(if is_old(object) { object.bytes } else { 0 });
                }
                chosen.push(unit);
            }
        }
        Ok(chosen)
    }

    /// When results were last used, and which of them stay: those of the latest runs, and of frozen nodes.
    fn used(&self, keep_runs: usize) -> Result<Used, StoreError> {
        let mut used = Used::default();
        let mut runs: HashMap<String, usize> = HashMap::new();
        let mut seen: HashSet<(String, String)> = HashSet::new();
        self.past_runs(usize::MAX, |run| {
            let count = runs.entry(run.pipeline.clone()).or_default();
            *count += 1;
            for (node, key, frozen) in run.used {
                used.last.entry(key).or_insert(run.time);
                // Whether a node is frozen, its latest run says.
                let is_latest = seen.insert((run.pipeline.clone(), node));
                if *count <= keep_runs || frozen && is_latest {
                    used.kept.insert(key);
                }
            }
        })?;
        Ok(used)
    }

    /// Removes the `chosen` units, except what is leased, claimed or gone; returns those that are removed.
    fn remove_units(&self, census: &Census, chosen: &[usize]) -> Result<HashSet<usize>, StoreError> {
        let mut gone = HashSet::new();
        let (results, others): (Vec<usize>, Vec<usize>) =
            chosen.iter().partition(|unit| census.units[**unit].what == What::Result);
        let mut aside: Vec<(usize, PathBuf)> = Vec::new();
        let mut moved = Ok(());
        for unit in results {
            match self.move_aside(&self.record_path(&census.units[unit].key)) {
                Ok(Some(path)) => aside.push((unit, path)),
                Ok(None) => {}
                Err(error) => {
                    moved = Err(error);
                    break;
                }
            }
        }
        // Only now: see `lease`. What cannot be determined is taken for leased.
        let leased = self.leased();
        for (unit, path) in aside {
            let key = census.units[unit].key;
            if leased.as_ref().is_ok_and(|leased| !leased.keys.contains(&key)) && moved.is_ok() {
                self.disk.remove(&path)?;
                gone.insert(unit);
            } else {
                self.move_back(&path, &self.record_path(&key))?;
            }
        }
        moved?;
        let leased = leased?;
        for unit in others {
            let key = census.units[unit].key;
            let Claiming::Held(claim) = self.claim(&key)? else { continue };
            if leased.keys.contains(&key) {
                continue;
            }
            if census.units[unit].what == What::Work {
                self.remove_work(&claim)?;
            } else if let Some(path) = self.move_aside(&self.items_folder(&key))? {
                self.disk.remove_all(&path)?;
            }
            gone.insert(unit);
        }
        Ok(gone)
    }

    /// Moves what is at `path` to a name of its own; `None` when nothing is there.
    fn move_aside(&self, path: &Path) -> Result<Option<PathBuf>, StoreError> {
        self.make_folder(&self.temporary_folder())?;
        let aside = self.temporary_folder().join(unique());
        match self.disk.rename(path, &aside) {
            Err(error) if error.is(ErrorKind::NotFound) => Ok(None),
            moved => moved.map(|()| Some(aside)),
        }
    }

    /// Moves it back, unless something else has taken the place.
    fn move_back(&self, aside: &Path, path: &Path) -> Result<(), StoreError> {
        match self.disk.link(aside, path) {
            Ok(()) => {}
            Err(error) if error.is(ErrorKind::AlreadyExists) => {}
            Err(error) if error.is(ErrorKind::Unsupported) => return self.disk.rename(aside, path),
            Err(error) => return Err(error),
        }
        self.disk.remove(aside)
    }

    /// Removes the object `digest` if it has not changed since `cutoff`; returns whether it is gone.
    fn remove_object(&self, digest: &Digest, cutoff: SystemTime) -> Result<bool, StoreError> {
        let path = self.object_path(digest);
        let Some(aside) = self.move_aside(&path)? else { return Ok(false) };
        let changed = self.disk.look(&aside)?.and_then(|metadata| metadata.modified().ok());
        if changed.is_some_and(|changed| changed < cutoff) {
            self.disk.remove(&aside)?;
            return Ok(true);
        }
        self.move_back(&aside, &path)?;
        Ok(false)
    }
}

impl Store {
    /// Removes the record of `key` if it is damaged; returns whether it is gone. Another process may have replaced it
    /// since it was read.
    pub(super) fn remove_damaged_record(&self, key: &Digest) -> Result<bool, StoreError> {
        let path = self.record_path(key);
        let Some(aside) = self.move_aside(&path)? else { return Ok(false) };
        let is_sound = self.disk.read(&aside)?.is_some_and(|text| Record::read(&text, key).is_some());
        if is_sound {
            self.move_back(&aside, &path)?
        } else {
            self.disk.remove(&aside)?
        }
        Ok(!is_sound)
    }
}

/// What past runs say of results.
#[derive(Default)]
struct Used {
    last: HashMap<Digest, Timestamp>,
    kept: HashSet<Digest>,
}

impl std::fmt::Display for Evicted {
    /// A line each for what went, and what is left.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shares = [
            ("results", self.results, "records of finished nodes"),
            ("items", self.items, "journals of finished items"),
            ("work", self.work, "unfinished nodes"),
            ("objects", self.objects, "files of content"),
        ];
        for (name, share, what) in shares {
            writeln!(f, "{name:<8} {:>10} {:>9}  {what}", readable(share.bytes), share.count)?;
        }
        writeln!(f, "{:<8} {:>10}", "removed", readable(self.bytes()))?;
        writeln!(f, "{:<8} {:>10}", "left", readable(self.left))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};

    use super::super::journal::tests::item;
    use super::super::record::tests::{claim, example, publish};
    use super::super::{Access, Disk, Record};
    use super::*;
    use crate::node::ItemValue;

    const ALL: Eviction = Eviction { max_size: Some(0), older_than: None, keep_runs: 0, dry_run: false };
    const GARBAGE: Eviction = Eviction { max_size: None, ..ALL };

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.prepare().unwrap();
        (folder, store)
    }

    /// Makes the object `digest` an hour older.
    fn age(store: &Store, digest: &Digest) {
        let file = File::open(store.object_path(digest)).unwrap();
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        file.set_times(FileTimes::new().set_modified(hour_ago)).unwrap();
    }

    fn published(store: &Store, name: &str) -> Record {
        let record = example(store, name, name);
        publish(store, &record);
        age(store, &record.content);
        record
    }

    /// A finished run of `pipeline` that used `records`.
    fn ran(store: &Store, pipeline: &str, records: &[&Record], frozen: bool) {
        let nodes: Vec<_> = records
            .iter()
            .map(|record| serde_json::json!({ "node": record.key.to_string(), "key": record.key, "frozen": frozen }))
            .collect();
        let run = store.begin_run().unwrap();
        run.finish(store, &serde_json::json!({ "pipeline": pipeline, "nodes": nodes })).unwrap();
    }

    fn is_there(store: &Store, record: &Record) -> bool {
        matches!(store.find(&record.key).unwrap(), super::super::Found::Complete(_))
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_until_the_rest_fits() {
        let (_folder, store) = store();
        let records = ["first", "second", "third"].map(|name| published(&store, name));
        ran(&store, "test", &[&records[1]], false);
        ran(&store, "test", &[&records[0]], false);
        let size = store.stats().unwrap().bytes();
        let dry = Eviction { max_size: Some(size - 1), dry_run: true, ..GARBAGE };
        let expected = store.evict(&dry).unwrap();
        assert!(records.iter().all(|record| is_there(&store, record)), "nothing is removed");
        let evicted = store.evict(&Eviction { dry_run: false, ..dry }).unwrap();
        assert_eq!((evicted.results, evicted.objects), (expected.results, expected.objects));
        // The third was never used after it was made, which was before the others were used.
        assert_eq!(records.each_ref().map(|record| is_there(&store, record)), [true, true, false]);
        assert!(!store.object_path(&records[2].content).exists());
        assert!(!evicted.too_large && evicted.left < size);
        let rest = store.evict(&Eviction { max_size: Some(evicted.left - 1), ..GARBAGE }).unwrap();
        assert_eq!(rest.results.count, 1);
        assert_eq!(records.each_ref().map(|record| is_there(&store, record)), [true, false, false]);
        assert_eq!(store.earlier("test", "toy").unwrap().len(), 1, "and the index knows");
    }

    #[test]
    fn what_the_latest_runs_used_and_frozen_nodes_hold_stays() {
        let (_folder, store) = store();
        let [frozen, other, old, kept, none] =
            ["frozen", "other", "old", "kept", "none"].map(|name| published(&store, name));
        ran(&store, "a", &[&frozen], true);
        ran(&store, "b", &[&other], false);
        ran(&store, "a", &[&old], false);
        ran(&store, "a", &[&kept], false);
        let evicted = store.evict(&Eviction { keep_runs: 1, ..ALL }).unwrap();
        assert_eq!(
            [&frozen, &other, &old, &kept, &none].map(|record| is_there(&store, record)),
            [true, true, false, true, false]
        );
        assert!(evicted.too_large, "what stays is larger than nothing");
        ran(&store, "a", &[&frozen], false);
        ran(&store, "a", &[], false);
        store.evict(&ALL).unwrap();
        assert!(!is_there(&store, &frozen), "it is not frozen any more");
    }

    #[test]
    fn only_what_was_not_used_for_so_long_goes_for_its_age() {
        let (_folder, store) = store();
        let mut old = example(&store, "old", "old");
        old.provenance.finished = "2020-01-01T00:00:00.000Z".to_owned();
        publish(&store, &old);
        let mut used = example(&store, "used", "used");
        used.provenance.finished = old.provenance.finished.clone();
        publish(&store, &used);
        ran(&store, "test", &[&used], false);
        let eviction = Eviction { older_than: Some(Duration::from_secs(24 * 3600)), ..GARBAGE };
        assert_eq!(store.evict(&eviction).unwrap().results.count, 1);
        assert!(!is_there(&store, &old) && is_there(&store, &used));
    }

    #[test]
    fn objects_that_a_journal_needs_stay_as_long_as_it_does() {
        let (_folder, store) = store();
        let [function, named, unneeded] = [b"f", b"n", b"u"].map(|text| store.put_object(text).unwrap());
        let mut journal = store.journal(&function, 1);
        let value = ItemValue { value: serde_json::json!(1), objects: vec![named] };
        journal.append(&item("a"), &value).unwrap();
        journal.finish().unwrap();
        [function, named, unneeded].iter().for_each(|digest| age(&store, digest));
        let holders = store.holders().unwrap();
        assert_eq!(holders.unneeded, Share { count: 2, bytes: 2 });
        let evicted = store.evict(&GARBAGE).unwrap();
        assert_eq!((evicted.objects.count, evicted.items.count), (2, 0));
        assert_eq!([named, unneeded].map(|object| store.object_size(&object).unwrap()), [Some(1), None]);
        let evicted = store.evict(&ALL).unwrap();
        assert_eq!((evicted.objects.count, evicted.items.count), (1, 1));
        assert!(store.items(&function).unwrap().is_empty());
    }

    #[test]
    fn what_a_live_run_leases_stays_even_when_it_is_leased_at_the_last_moment() {
        let (folder, store) = store();
        let [early, late] = ["early", "late"].map(|name| published(&store, name));
        let run = store.begin_run().unwrap();
        run.lease(&[early.key]);
        // Leased when the record has just been moved aside.
        let (lease, key) = (run.folder().join("lease"), late.key);
        let moving = Disk::failing(move |access, path| {
            if access == Access::Name && path.parent().is_some_and(|parent| parent.ends_with("tmp")) {
                use std::io::Write;
                let mut file = File::options().append(true).open(&lease).unwrap();
                writeln!(file, "{key}").unwrap();
            }
            None
        });
        let evicting = Store::open_on(moving, folder.path()).unwrap();
        let evicted = evicting.evict(&ALL).unwrap();
        assert_eq!((evicted.results.count, evicted.live_runs), (0, 1));
        assert!(is_there(&store, &early) && is_there(&store, &late));
        drop(run);
        assert_eq!(store.evict(&ALL).unwrap().results.count, 2);
    }

    #[test]
    fn an_object_that_is_put_again_is_new_and_stays() {
        let (folder, store) = store();
        let digest = store.put_object(b"content").unwrap();
        age(&store, &digest);
        // Put again by another process, whose record comes later, when it has been chosen to go.
        let other = Store::open(folder.path()).unwrap();
        let putting = Disk::failing(move |access, path| {
            if access == Access::Name && path.parent().is_some_and(|parent| parent.ends_with("tmp")) {
                other.put_object(b"content").unwrap();
            }
            None
        });
        let evicting = Store::open_on(putting, folder.path()).unwrap();
        assert_eq!(evicting.evict(&ALL).unwrap().objects.count, 0);
        assert_eq!(store.object(&digest).unwrap(), b"content");
        // And what was put since a live run began may be needed by a record that it has not written.
        let run = store.begin_run().unwrap();
        let another = store.put_object(b"another").unwrap();
        store.evict(&ALL).unwrap();
        assert_eq!(store.object(&another).unwrap(), b"another");
        drop(run);
        age(&store, &another);
        store.evict(&ALL).unwrap();
        assert_eq!([digest, another].map(|object| store.object_size(&object).unwrap()), [None, None]);
    }

    #[test]
    fn unfinished_work_goes_unless_somebody_is_at_it() {
        let (_folder, store) = store();
        let [left, claimed] = ["left", "claimed"].map(|name| published(&store, name));
        let scratch = |held: &super::super::Claim| {
            let folder = store.scratch(held, super::super::Scratch::Ordinary).unwrap();
            std::fs::write(folder.join("checkpoint"), "3").unwrap();
        };
        scratch(&claim(&store, &left));
        let held = claim(&store, &claimed);
        scratch(&held);
        assert_eq!(store.evict(&ALL).unwrap().work.count, 1);
        assert_eq!([&left, &claimed].map(|record| store.is_unfinished(&record.key).unwrap()), [false, true]);
    }

    #[test]
    fn nothing_is_removed_when_something_cannot_be_read() {
        let (folder, store) = store();
        let record = published(&store, "record");
        let path = store.record_path(&record.key);
        let failing = Disk::failing(move |access, of| {
            (access == Access::Read && of == path).then(|| ErrorKind::PermissionDenied.into())
        });
        assert!(Store::open_on(failing, folder.path()).unwrap().evict(&ALL).is_err());
        assert!(is_there(&store, &record));
    }
}
