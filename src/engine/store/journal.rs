//! Journals of finished items: `items/<function key>/<generation>-<sequence>.jsonl`. A killed run loses the items in
//! flight and no others.
//!
//! Every process that adds items writes journals of its own, so that nothing ever appends to a torn tail and several
//! processes may work on the same items. Recomputing items by force starts a higher generation, which wins. Within a
//! generation the journals are numbered: a new one takes the next number, which fails when it is taken.
//!
//! The first finished value of an item wins, and a value that was used is never replaced. No clock says what is first.
//! Before its values are used, a journal is ended: `<generation>-<sequence>.end` says how many of its bytes count, and
//! is linked, so that there is one end for everybody and for good, whoever was first. What its writer adds after that
//! does not count; it notices, and carries over to a new journal, whose number is higher. So among ended journals the
//! order by number and line is settled, and later additions come after it. Who has added items uses what the
//! ended journals say of them, which may be another process's value.
//!
//! What an item is, is not known here.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::checked::{seal, unseal, whole_lines};
use super::{Disk, Store, StoreError};
use crate::artifact::ItemId;
use crate::digest::Digest;
use crate::node::{Item, ItemValue};

/// How many added items may be lost with the power, at most.
const SYNC_ITEMS: usize = 256;

/// How long an added item may be lost with the power, at most.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// The name of a journal without its extension, and by it its place among the others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    generation: u32,
    /// 0 for journals of earlier versions, which were named by their process.
    sequence: u32,
    stem: String,
}

impl Name {
    fn new(generation: u32, sequence: u32) -> Self {
        Self { generation, sequence, stem: format!("{generation}-{sequence}") }
    }

    fn of(file: &str) -> Option<Self> {
        let stem = file.strip_suffix(".jsonl")?;
        let (generation, rest) = stem.split_once('-')?;
        let sequence = rest.parse().unwrap_or(0);
        Some(Self { generation: generation.parse().ok()?, sequence, stem: stem.to_owned() })
    }

    fn journal(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.jsonl", self.stem))
    }

    fn end(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.end", self.stem))
    }
}

/// How many bytes of a journal count.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct End {
    length: u64,
}

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
struct Named {
    id: ItemId,
    reads: Digest,
    #[serde(default)]
    objects: Vec<Digest>,
}

/// The finished items of one function key.
#[derive(Default)]
pub struct Items {
    blocks: Vec<Vec<u8>>,
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
    ///
    /// # Errors
    /// Those of `are_there`.
    pub fn is_usable<E>(&self, item: &Item, are_there: impl FnOnce(&[Digest]) -> Result<bool, E>) -> Result<bool, E> {
        match self.places.get(&(item.id.clone(), item.reads)) {
            Some(place) => Ok(place.objects.is_empty() || are_there(&place.objects)?),
            None => Ok(false),
        }
    }

    /// The value of `item`.
    pub fn get(&self, item: &Item) -> Option<ItemValue> {
        let place = self.places.get(&(item.id.clone(), item.reads))?;
        serde_json::from_slice(&self.blocks[place.text][place.range.clone()]).ok()
    }

    /// The generation in which `item` was finished.
    pub fn generation_of(&self, item: &Item) -> Option<u32> {
        self.places.get(&(item.id.clone(), item.reads)).map(|place| place.generation)
    }

    /// The objects that the values of all items name.
    pub fn objects(&self) -> impl Iterator<Item = &Digest> {
        self.places.values().flat_map(|place| &place.objects)
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
        let index = self.blocks.len();
        self.generation = self.generation.max(generation);
        self.broken += broken;
        for (start, data) in lines {
            let Ok(Named { id, reads, objects }) = serde_json::from_slice(data) else {
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
        self.blocks.push(text);
    }
}

impl Store {
    /// The finished items of `function_key` as they are now, for counting: what was added to journals that are not
    /// ended may still end up after another process's value.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn items(&self, function_key: &Digest) -> Result<Items, StoreError> {
        self.read_items(function_key, |store, folder, name| store.end_of(folder, name))
    }

    /// The finished items of `function_key` for use: their values are settled for everybody and for good.
    ///
    /// # Errors
    /// When they cannot be read, or journals cannot be ended.
    pub fn settled_items(&self, function_key: &Digest) -> Result<Items, StoreError> {
        self.may_write()?;
        self.read_items(function_key, |store, folder, name| store.end_journal(folder, name).map(Some))
    }

    /// A journal for this process to add items of `function_key` to. Its file is made with the first item.
    pub fn journal(&self, function_key: &Digest, generation: u32) -> Journal<'_> {
        Journal { store: self, function_key: *function_key, generation, open: None, sync_every: SYNC_EVERY }
    }

    pub(super) fn items_folder(&self, function_key: &Digest) -> PathBuf {
        self.root.join("items").join(function_key.to_string())
    }

    fn journals(&self, folder: &Path) -> Result<Vec<Name>, StoreError> {
        let mut names: Vec<Name> = self.disk.names(folder)?.iter().filter_map(|name| Name::of(name)).collect();
        // Listing a directory takes a while: a journal that is made meanwhile may be missed where a later one is seen.
        // Numbers are given without gaps, so one that is missing below another is looked for.
        let last: BTreeMap<u32, u32> = names.iter().map(|name| (name.generation, name.sequence)).fold(
            BTreeMap::new(),
            |mut last, (generation, sequence)| {
                let most: &mut u32 = last.entry(generation).or_default();
                *most = sequence.max(*most);
                last
            },
        );
        let listed: HashSet<String> = names.iter().map(|name| name.stem.clone()).collect();
        for (generation, last) in last {
            for missed in (1..last).map(|sequence| Name::new(generation, sequence)) {
                if !listed.contains(&missed.stem) && self.disk.look(&missed.journal(folder))?.is_some() {
                    names.push(missed);
                }
            }
        }
        names.sort();
        Ok(names)
    }

    fn read_items(
        &self,
        function_key: &Digest,
        end: impl Fn(&Self, &Path, &Name) -> Result<Option<End>, StoreError>,
    ) -> Result<Items, StoreError> {
        let folder = self.items_folder(function_key);
        let mut items = Items::default();
        for name in self.journals(&folder)? {
            let end = end(self, &folder, &name)?;
            if let Some(mut text) = self.disk.read(&name.journal(&folder))? {
                text.truncate(end.map_or(usize::MAX, |end| usize::try_from(end.length).unwrap_or(usize::MAX)));
                items.add(name.generation, text);
            }
        }
        Ok(items)
    }

    /// Where the journal `name` ends, if that is settled. A damaged end settles nothing.
    fn end_of(&self, folder: &Path, name: &Name) -> Result<Option<End>, StoreError> {
        let text = self.disk.read(&name.end(folder))?;
        Ok(text.and_then(|text| serde_json::from_slice(unseal(text.trim_ascii_end())?).ok()))
    }

    /// Settles where the journal `name` ends, after its last whole line, unless that is settled already.
    fn end_journal(&self, folder: &Path, name: &Name) -> Result<End, StoreError> {
        let path = name.end(folder);
        loop {
            // Whether there is a damaged one is settled before the end is looked for: one that appears later is
            // another's, and good.
            let is_there = self.disk.look(&path)?.is_some();
            if let Some(end) = self.end_of(folder, name)? {
                return Ok(end);
            }
            let journal = name.journal(folder);
            let text = self.disk.read(&journal)?.unwrap_or_default();
            let end = End { length: text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last as u64 + 1) };
            // What is settled must outlive a loss of power, whoever wrote it.
            let file = File::open(&journal).map_err(StoreError::io("read", &journal))?;
            self.disk.sync_file(&file, &journal).map_err(StoreError::io("write", &journal))?;
            let temporary = self.write_temporary(&seal(&end), 0o644, true)?;
            let linked = if is_there {
                self.disk.rename(&temporary, &path)
            } else {
                match self.disk.link(&temporary, &path) {
                    Err(error) if error.is(ErrorKind::Unsupported) => self.disk.rename(&temporary, &path),
                    linked => linked,
                }
            };
            let _ = self.disk.remove(&temporary);
            match linked {
                Err(error) if error.is(ErrorKind::AlreadyExists) => {}
                Err(error) => return Err(error),
                Ok(()) => self.disk.sync_folder(folder)?,
            }
        }
    }
}

/// Items that are being added.
pub struct Journal<'a> {
    store: &'a Store,
    function_key: Digest,
    generation: u32,
    open: Option<Open>,
    sync_every: Duration,
}

/// The file of a journal that is being written.
struct Open {
    name: Name,
    path: PathBuf,
    file: Arc<File>,
    length: u64,
    syncing: Syncing,
}

impl Journal<'_> {
    /// Adds a finished item, in one write. It is durable after five seconds, or when 256 more were added.
    ///
    /// # Errors
    /// When it cannot be written. The next item then goes to another file, so that the torn line costs itself alone.
    pub fn append(&mut self, item: &Item, value: &ItemValue) -> Result<(), StoreError> {
        self.carry_over()?;
        self.add(&seal(&Line { id: &item.id, reads: &item.reads, value }))
    }

    /// Makes what was added outlive a loss of power.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.open.as_ref().map_or(Ok(()), |open| open.syncing.sync())
    }

    /// Ends the journal: all finished items, with values that are settled for everybody and for good.
    ///
    /// # Errors
    /// When they cannot be read, or journals cannot be ended.
    pub fn finish(mut self) -> Result<Items, StoreError> {
        let folder = self.store.items_folder(&self.function_key);
        while let Some(open) = &self.open {
            open.syncing.sync()?;
            if self.store.end_journal(&folder, &open.name)?.length >= open.length {
                break;
            }
            self.carry_over()?;
        }
        self.open = None;
        self.store.settled_items(&self.function_key)
    }

    fn add(&mut self, lines: &[u8]) -> Result<(), StoreError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        self.store.disk.add(&open.file, &open.path, lines)?;
        open.length += lines.len() as u64;
        open.syncing.added()?;
        self.open = Some(open);
        Ok(())
    }

    /// Where another process has ended the journal, adds what does not count any more to a new one.
    fn carry_over(&mut self) -> Result<(), StoreError> {
        let folder = self.store.items_folder(&self.function_key);
        let Some(open) = &self.open else { return Ok(()) };
        let Some(end) = self.store.end_of(&folder, &open.name)? else { return Ok(()) };
        let text = self.store.disk.read(&open.path)?.unwrap_or_default();
        self.open = None;
        let rest = text.get(usize::try_from(end.length).unwrap_or(usize::MAX)..).unwrap_or_default();
        if rest.is_empty() { Ok(()) } else { self.add(rest) }
    }

    fn begin(&self) -> Result<Open, StoreError> {
        let (store, folder) = (self.store, self.store.items_folder(&self.function_key));
        store.may_write()?;
        store.make_folder(&folder)?;
        let journals = store.journals(&folder)?;
        let latest = journals.iter().filter(|name| name.generation == self.generation).map(|name| name.sequence).max();
        for sequence in latest.unwrap_or(0) + 1.. {
            let name = Name::new(self.generation, sequence);
            let path = name.journal(&folder);
            match store.disk.open_end(&path, true) {
                Err(error) if error.is(ErrorKind::AlreadyExists) => continue,
                file => {
                    let file = Arc::new(file?);
                    store.disk.sync_folder(&folder)?;
                    let syncing = Syncing::begin(store.disk.clone(), path.clone(), Arc::clone(&file), self.sync_every);
                    return Ok(Open { name, path, file, length: 0, syncing });
                }
            }
        }
        unreachable!("some number is free")
    }
}

/// Makes what is added to a file durable within a time and a number of items. The time is kept by a thread, since
/// the next item may come at any time.
struct Syncing {
    shared: Arc<Unsynced>,
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

struct Unsynced {
    disk: Disk,
    path: PathBuf,
    file: Arc<File>,
    items: Mutex<usize>,
    /// A failure that was not reported yet.
    failure: Mutex<Option<StoreError>>,
}

impl Unsynced {
    fn sync(&self) -> Result<(), StoreError> {
        let mut items = self.items.lock().expect("no panic under the lock");
        if *items > 0 {
            self.disk.sync_file(&self.file, &self.path).map_err(StoreError::io("write", &self.path))?;
            *items = 0;
        }
        Ok(())
    }
}

impl Syncing {
    fn begin(disk: Disk, path: PathBuf, file: Arc<File>, every: Duration) -> Self {
        let shared = Arc::new(Unsynced { disk, path, file, items: Mutex::new(0), failure: Mutex::new(None) });
        let (stop, stopped) = channel();
        let ticking = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = ticking.sync() {
                    *ticking.failure.lock().expect("no panic under the lock") = Some(error);
                }
            }
        });
        Self { shared, thread: Some((stop, thread)) }
    }

    /// Adds an item.
    fn added(&self) -> Result<(), StoreError> {
        let items = {
            let mut items = self.shared.items.lock().expect("no panic under the lock");
            *items += 1;
            *items
        };
        if items >= SYNC_ITEMS { self.sync() } else { self.failure() }
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.failure().and_then(|()| self.shared.sync())
    }

    fn failure(&self) -> Result<(), StoreError> {
        self.shared.failure.lock().expect("no panic under the lock").take().map_or(Ok(()), Err)
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            let _ = thread.join();
        }
        // Whoever wants to know whether that worked has synced before.
        let _ = self.shared.sync();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::Access;
    use super::*;

    pub fn item(name: &str) -> Item {
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
        let items = store.items(&key).unwrap();
        assert_eq!(items.len(), 3);
        assert_eq!(items.get(&item("b")), Some(value("b")));
        let is_usable = |item: &Item, there| items.is_usable(item, |_| Ok::<_, StoreError>(there)).unwrap();
        assert!(!is_usable(&Item { reads: Digest::of(b"another prompt"), ..item("a") }, true));
        assert!(is_usable(&item("a"), true) && !is_usable(&item("a"), false));
        assert!(store.items(&Digest::of(b"another function")).unwrap().is_empty());
    }

    #[test]
    fn every_cut_of_a_journal_keeps_the_items_before_it() {
        let (_folder, store, key) = store();
        let mut journal = store.journal(&key, 1);
        let ends: Vec<u64> = ["a", "b"]
            .map(|name| {
                journal.append(&item(name), &value(name)).unwrap();
                fs::metadata(&journal.open.as_ref().unwrap().path).unwrap().len()
            })
            .to_vec();
        let path = journal.open.as_ref().unwrap().path.clone();
        let whole = fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let items = store.items(&key).unwrap();
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
        assert_eq!(store.items(&key).unwrap().get(&item("a")), Some(value("first")));
        store.journal(&key, 2).append(&item("a"), &value("forced")).unwrap();
        let items = store.items(&key).unwrap();
        assert_eq!((items.get(&item("a")), items.generation()), (Some(value("forced")), 2));
    }

    #[test]
    fn a_value_that_was_used_is_never_replaced_whoever_finished_the_item_too() {
        let (_folder, store, key) = store();
        let (mut slow, mut fast) = (store.journal(&key, 1), store.journal(&key, 1));
        // The lower number belongs to the process that comes later with the item.
        slow.append(&item("a"), &value("slow")).unwrap();
        fast.append(&item("b"), &value("fast")).unwrap();
        assert_eq!(store.settled_items(&key).unwrap().get(&item("b")), Some(value("fast")));
        slow.append(&item("b"), &value("slow")).unwrap();
        slow.append(&item("c"), &value("slow")).unwrap();
        fast.append(&item("c"), &value("fast")).unwrap();
        let of = |items: &Items| ["a", "b", "c"].map(|name| items.get(&item(name)));
        let used = of(&slow.finish().unwrap());
        assert_eq!(used[..2], [Some(value("slow")), Some(value("fast"))]);
        assert_eq!(of(&fast.finish().unwrap()), used, "and both use the same");
        assert_eq!(of(&store.items(&key).unwrap()), used);
    }

    #[test]
    fn what_was_added_unnoticed_after_a_journal_was_ended_is_carried_over() {
        let (_folder, store, key) = store();
        let mut journal = store.journal(&key, 1);
        journal.append(&item("a"), &value("a")).unwrap();
        // Between the writer's look and its write another process ends the journal.
        let path = journal.open.as_ref().unwrap().path.clone();
        store.settled_items(&key).unwrap();
        let line = seal(&Line { id: &item("b").id, reads: &item("b").reads, value: &value("b") });
        store.disk.add(&journal.open.as_ref().unwrap().file, &path, &line).unwrap();
        journal.open.as_mut().unwrap().length += line.len() as u64;
        assert_eq!(store.items(&key).unwrap().len(), 1, "it does not count");
        assert_eq!(journal.finish().unwrap().len(), 2);
        assert_eq!(store.journals(&store.items_folder(&key)).unwrap().len(), 2);
    }

    #[test]
    fn many_writers_and_readers_agree_on_every_item() {
        let (_folder, store, key) = store();
        let seen = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    let (store, key) = (&store, &key);
                    scope.spawn(move || {
                        let mut seen = Vec::new();
                        for round in 0..4 {
                            let mut journal = store.journal(key, 1);
                            for number in 0..12 {
                                let name = format!("{}", (number * (thread + 1) + round) % 30);
                                journal.append(&item(&name), &value(&format!("{name} of {thread}"))).unwrap();
                                if number == 6 {
                                    seen.push(store.settled_items(key).unwrap());
                                }
                            }
                            seen.push(journal.finish().unwrap());
                        }
                        seen
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<Items>>()
        });
        let last = store.items(&key).unwrap();
        for items in &seen {
            for number in 0..30 {
                let item = item(&number.to_string());
                if let Some(value) = items.get(&item) {
                    assert_eq!(last.get(&item), Some(value));
                }
            }
        }
    }

    #[test]
    fn the_tail_that_a_killed_writer_left_is_reported_once_and_never_comes_to_life() {
        let (_folder, store, key) = store();
        let mut journal = store.journal(&key, 1);
        journal.append(&item("a"), &value("a")).unwrap();
        let line = seal(&Line { id: &item("b").id, reads: &item("b").reads, value: &value("b") });
        let open = journal.open.as_ref().unwrap();
        store.disk.add(&open.file, &open.path, &line[..30]).unwrap();
        assert_eq!(store.items(&key).unwrap().broken(), 1);
        assert_eq!(store.settled_items(&key).unwrap().len(), 1);
        store.disk.add(&open.file, &open.path, &line[30..]).unwrap();
        let items = store.items(&key).unwrap();
        assert_eq!((items.len(), items.broken()), (1, 0));
    }

    #[test]
    fn journals_of_earlier_versions_are_found_and_come_first() {
        let (_folder, store, key) = store();
        let folder = store.items_folder(&key);
        fs::create_dir_all(&folder).unwrap();
        let line = |text: &str| seal(&Line { id: &item("a").id, reads: &item("a").reads, value: &value(text) });
        fs::write(folder.join("1-0123abcd-77-0.jsonl"), line("earlier")).unwrap();
        store.journal(&key, 1).append(&item("a"), &value("later")).unwrap();
        assert_eq!(store.settled_items(&key).unwrap().get(&item("a")), Some(value("earlier")));
        fs::write(folder.join("2-0123abcd-77-0.jsonl"), line("forced")).unwrap();
        assert_eq!(store.settled_items(&key).unwrap().get(&item("a")), Some(value("forced")));
    }

    /// A store that counts how often journals are synced, and fails on request.
    fn counting() -> (tempfile::TempDir, Store, Digest, Arc<AtomicUsize>, Arc<AtomicUsize>) {
        let folder = tempfile::tempdir().unwrap();
        let (syncs, failures) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, fail) = (Arc::clone(&syncs), Arc::clone(&failures));
        let disk = Disk::failing(move |access, path| {
            if access != Access::Sync || path.extension().is_none_or(|extension| extension != "jsonl") {
                return None;
            }
            count.fetch_add(1, Ordering::SeqCst);
            let fails = fail.load(Ordering::SeqCst) > 0 && fail.fetch_sub(1, Ordering::SeqCst) > 0;
            fails.then(|| std::io::Error::from_raw_os_error(5))
        });
        let store = Store::open_on(disk, folder.path()).unwrap();
        (folder, store, Digest::of(b"function"), syncs, failures)
    }

    #[test]
    fn what_is_added_is_synced_after_so_many_items_and_after_so_long() {
        let (_folder, store, key, syncs, _) = counting();
        let mut journal = store.journal(&key, 1);
        for number in 0..2 * SYNC_ITEMS {
            journal.append(&item(&number.to_string()), &value("a")).unwrap();
        }
        assert!(syncs.load(Ordering::SeqCst) >= 2);
        let mut journal = Journal { sync_every: Duration::from_millis(1), ..store.journal(&key, 1) };
        let before = syncs.load(Ordering::SeqCst);
        journal.append(&item("slow"), &value("a")).unwrap();
        while syncs.load(Ordering::SeqCst) == before {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_failure_to_sync_in_the_background_is_reported_at_the_next_item() {
        let (_folder, store, key, syncs, failures) = counting();
        let mut journal = Journal { sync_every: Duration::from_millis(1), ..store.journal(&key, 1) };
        failures.store(1, Ordering::SeqCst);
        journal.append(&item("a"), &value("a")).unwrap();
        while journal.open.as_ref().unwrap().syncing.shared.failure.lock().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(syncs.load(Ordering::SeqCst) >= 1);
        assert!(matches!(journal.append(&item("b"), &value("b")), Err(StoreError::Io { .. })));
        assert_eq!(store.items(&key).unwrap().len(), 2, "what was written is there all the same");
    }
}
