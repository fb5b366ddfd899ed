//! What plans need of every record, so that a plan does not open a thousand.
//!
//! Two files of entries ([`Entry`]): `index.added`, to whose end every process adds, and `index.sorted`, into which what
//! was added goes now and then. The second ends with a table of keys in order, so that a plan reads the table and the
//! entries that it asks for, however many there are.
//!
//! The index is derived and never trusted further than the record's size and time of change: an entry that does not
//! match them is read again from the record, a record without an entry gets one, an entry without a record is dropped.
//! So what another process adds while the files are sorted may be lost: it costs reading the record once more.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::Write;

use super::entry::{self, Entry, Stamp, stamp};
use super::record::Record;
use super::{Disk, Store, StoreError, unique};
use crate::digest::Digest;

/// The file that is added to.
pub(super) const ADDED: &str = "index.added";

/// The file with a table.
pub(super) const SORTED: &str = "index.sorted";

/// The index of earlier versions.
pub(super) const EARLIER: &str = "index";

/// What the sorted file ends with, after the number of its entries and the checksum of its table.
const MARK: [u8; 8] = *b"stic ix1";

/// The bytes after the table.
const FOOT: usize = 8 + 8 + MARK.len();

/// The bytes of a line of the table: a key, and where its entry begins.
const LINE: usize = 32 + 8;

/// How much is read at once: what was finished together lies together.
const BLOCK: usize = 1 << 16;

/// How much is held back before it is added in one write.
const HELD: usize = 1 << 15;

/// How much is added before the files are sorted, at least; and at least this share of what is sorted, as its inverse.
const UNSORTED: usize = 1 << 18;
const UNSORTED_SHARE: usize = 4;

/// The index as this process sees it.
#[derive(Default)]
pub(super) struct Index {
    sorted: Sorted,
    /// Newer entries, as frames.
    added: HashMap<Digest, Box<[u8]>>,
    /// The size of those.
    bytes: usize,
    /// Frames that are not in the file yet.
    held: Vec<u8>,
    /// By pipeline and node: the keys of their records; once somebody has asked.
    nodes: Option<ByNode>,
}

type ByNode = HashMap<(String, String), BTreeSet<Digest>>;

impl Index {
    fn read(disk: &Disk, root: &std::path::Path) -> Result<Self, StoreError> {
        let mut index = Self { sorted: Sorted::open(disk, root)?, ..Self::default() };
        let added = disk.read(&root.join(ADDED))?.unwrap_or_default();
        for (_, frame) in entry::frames(&added) {
            index.put(frame.into());
        }
        Ok(index)
    }

    fn get(&mut self, key: &Digest) -> Option<Entry> {
        match self.added.get(key) {
            Some(frame) => Entry::of_body(entry::body(frame)),
            None => self.sorted.get(key),
        }
    }

    fn put(&mut self, frame: Box<[u8]>) {
        let Some(key) = entry::key_of(&frame) else { return };
        self.bytes += frame.len();
        if let Some(before) = self.added.insert(key, frame) {
            self.bytes -= before.len();
        }
    }

    /// Takes `entry` in, to be written later.
    fn add(&mut self, entry: &Entry) {
        let frame = entry.frame();
        self.held.extend_from_slice(&frame);
        self.put(frame);
        if let Some(nodes) = &mut self.nodes {
            insert(nodes, entry);
        }
    }

    /// All entries, the newest of every key.
    fn all(&mut self) -> Vec<Entry> {
        let mut all: Vec<Entry> = self.added.values().filter_map(|f| Entry::of_body(entry::body(f))).collect();
        let added = &self.added;
        self.sorted.each(|frame| {
            let is_newest = entry::key_of(frame).is_some_and(|key| !added.contains_key(&key));
            all.extend(is_newest.then(|| Entry::of_body(entry::body(frame))).flatten());
        });
        all
    }

    /// The entries of `keys`, the latest first.
    fn latest_first(&mut self, keys: Vec<Digest>) -> Vec<Entry> {
        let mut found: Vec<_> = keys.iter().filter_map(|key| self.get(key)).collect();
        found.sort_by(|a, b| (&b.finished, b.key).cmp(&(&a.finished, a.key)));
        found
    }
}

fn insert(nodes: &mut ByNode, entry: &Entry) {
    nodes.entry((entry.pipeline.clone(), entry.node.clone())).or_default().insert(entry.key);
}

/// The sorted file: its table, and the block that was read last.
#[derive(Default)]
struct Sorted {
    file: Option<File>,
    table: Vec<u8>,
    /// Where the table begins.
    end: usize,
    block: (usize, Vec<u8>),
}

impl Sorted {
    /// What cannot be read as one holds nothing.
    fn open(disk: &Disk, root: &std::path::Path) -> Result<Self, StoreError> {
        let path = root.join(SORTED);
        let Some(file) = disk.open(&path)? else { return Ok(Self::default()) };
        let opened = Self::of(file).map_err(StoreError::io("read", &path))?;
        Ok(opened.unwrap_or_default())
    }

    fn of(file: File) -> std::io::Result<Option<Self>> {
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let Some(place) = size.checked_sub(FOOT) else { return Ok(None) };
        let mut foot = [0; FOOT];
        read_at(&file, &mut foot, place)?;
        let count = u64::from_le_bytes(std::array::from_fn(|index| foot[index]));
        let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(LINE));
        let Some((length, end)) = length.and_then(|length| Some((length, place.checked_sub(length)?))) else {
            return Ok(None);
        };
        if foot[16..] != MARK {
            return Ok(None);
        }
        let mut table = vec![0; length];
        read_at(&file, &mut table, end)?;
        if foot[8..16] != entry::sum(&table) {
            return Ok(None);
        }
        Ok(Some(Self { file: Some(file), table, end, block: (0, Vec::new()) }))
    }

    fn count(&self) -> usize {
        self.table.len() / LINE
    }

    fn line(&self, index: usize) -> (&[u8], usize) {
        let (key, place) = self.table[index * LINE..(index + 1) * LINE].split_at(32);
        (key, place.try_into().map_or(usize::MAX, |bytes| u64::from_le_bytes(bytes) as usize))
    }

    fn get(&mut self, key: &Digest) -> Option<Entry> {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.line(middle).0.cmp(key.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    let place = self.line(middle).1;
                    return Entry::of_body(entry::body(self.frame(place)?)).filter(|entry| entry.key == *key);
                }
            }
        }
        None
    }

    /// The frame at `place`.
    fn frame(&mut self, place: usize) -> Option<&[u8]> {
        let inside = |block: &(usize, Vec<u8>)| place.checked_sub(block.0).filter(|inside| *inside < block.1.len());
        let whole = |block: &(usize, Vec<u8>)| Some(entry::first_frame(&block.1[inside(block)?..])?.len());
        let mut length = whole(&self.block);
        for size in [BLOCK, usize::MAX] {
            if length.is_none() {
                // The block again from here on; all that is left when the frame is longer.
                let mut block = vec![0; size.min(self.end.checked_sub(place)?)];
                read_at(self.file.as_ref()?, &mut block, place).ok()?;
                self.block = (place, block);
                length = whole(&self.block);
            }
        }
        let inside = place - self.block.0;
        self.block.1.get(inside..inside + length?)
    }

    /// Calls `visit` with every frame, in the order of the file.
    fn each(&mut self, mut visit: impl FnMut(&[u8])) {
        let mut places: Vec<usize> = (0..self.count()).map(|index| self.line(index).1).collect();
        places.sort_unstable();
        for place in places {
            if let Some(frame) = self.frame(place) {
                visit(frame);
            }
        }
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
        let stamp = stamp(&metadata);
        if let Some(entry) = self.with_index(|index| index.get(key))?.filter(|entry| entry.stamp == stamp) {
            return Ok(Some(entry));
        }
        let Some(record) = self.record(key)? else { return Ok(None) };
        Ok(Some(self.add_to_index(&record, stamp)?))
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
        self.with_nodes(|index, nodes| {
            let keys = nodes.get(&(pipeline.to_owned(), node.to_owned()));
            index.latest_first(keys.into_iter().flatten().copied().collect())
        })
    }

    /// All other records than those of nodes of `pipeline` called by one of `names`, the latest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn others(&self, pipeline: &str, names: &BTreeSet<&str>) -> Result<Vec<Entry>, StoreError> {
        self.with_nodes(|index, nodes| {
            let others = nodes.iter().filter(|((of, node), _)| of != pipeline || !names.contains(node.as_str()));
            index.latest_first(others.flat_map(|(_, keys)| keys).copied().collect())
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
            let _ = self.add_to_index(record, stamp(&metadata));
        }
    }

    /// Writes what is held back, and sorts the files when much was added. A failure costs time later, nothing else.
    pub fn settle_index(&self) {
        let _ = self.with_index(|index| self.write_and_sort(index));
    }

    /// Drops the entries of records that were removed.
    pub(super) fn forget_in_index(&self, gone: &HashSet<Digest>) {
        if !gone.is_empty() {
            let _ = self.with_index(|index| {
                index.nodes = None;
                let written = self.write_held(index);
                if written.is_ok() {
                    let _ = self.sort_index(index, |key| !gone.contains(key));
                }
            });
        }
    }

    fn write_and_sort(&self, index: &mut Index) {
        let written = self.write_held(index);
        if written.is_ok() && index.bytes > UNSORTED.max(index.sorted.end / UNSORTED_SHARE) {
            let _ = self.sort_index(index, |_| true);
        }
    }

    fn add_to_index(&self, record: &Record, stamp: Stamp) -> Result<Entry, StoreError> {
        let entry = Entry::new(record, stamp);
        self.with_index(|index| {
            index.add(&entry);
            if index.held.len() >= HELD {
                self.write_and_sort(index);
            }
        })?;
        Ok(entry)
    }

    fn with_index<T>(&self, use_it: impl FnOnce(&mut Index) -> T) -> Result<T, StoreError> {
        let mut index = self.index.lock().expect("no panic under the lock");
        if index.is_none() {
            *index = Some(Index::read(&self.disk, &self.root)?);
        }
        Ok(use_it(index.as_mut().expect("it has just been read")))
    }

    /// As [`Store::with_index`], with the keys by node: those of all records that exist.
    fn with_nodes<T>(&self, use_it: impl FnOnce(&mut Index, &ByNode) -> T) -> Result<T, StoreError> {
        let known = self.with_index(|index| index.nodes.is_some())?;
        let nodes = if known { None } else { Some(self.by_node()?) };
        self.with_index(|index| {
            let nodes = index.nodes.take().or(nodes).unwrap_or_default();
            let result = use_it(index, &nodes);
            index.nodes = Some(nodes);
            result
        })
    }

    /// Brings the index up to what `results/` holds.
    fn by_node(&self) -> Result<ByNode, StoreError> {
        let names = self.disk.names(&self.root.join("results"))?;
        let mut missing: HashSet<Digest> =
            names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect();
        let mut nodes = ByNode::new();
        for entry in self.with_index(Index::all)? {
            if missing.remove(&entry.key) {
                insert(&mut nodes, &entry);
            }
        }
        for key in missing {
            if let Some(metadata) = self.disk.look(&self.record_path(&key))?
                && let Some(record) = self.record(&key)?
            {
                insert(&mut nodes, &self.add_to_index(&record, stamp(&metadata))?);
            }
        }
        Ok(nodes)
    }

    fn write_held(&self, index: &mut Index) -> Result<(), StoreError> {
        let held = std::mem::take(&mut index.held);
        // A cache that cannot be written to can still be read.
        if held.is_empty() || !self.writes {
            return Ok(());
        }
        let path = self.root.join(ADDED);
        let file = self.disk.open_end(&path, false)?;
        self.disk.add(&file, &path, &held)
    }

    /// Writes all entries that `stay` into the sorted file. The other file goes.
    fn sort_index(&self, index: &mut Index, stay: impl Fn(&Digest) -> bool) -> Result<(), StoreError> {
        if !self.writes {
            return Ok(());
        }
        let path = self.temporary_folder().join(unique());
        self.make_folder(&self.temporary_folder())?;
        let file = self.disk.open_end(&path, true)?;
        let written = write_sorted(index, &file, &stay).map_err(StoreError::io("write", &path));
        let placed = written.and_then(|()| self.disk.rename(&path, &self.root.join(SORTED)));
        if placed.is_err() {
            let _ = self.disk.remove(&path);
        }
        placed?;
        self.disk.remove(&self.root.join(ADDED))?;
        let nodes = index.nodes.take();
        *index = Index { nodes, ..Index::read(&self.disk, &self.root)? };
        Ok(())
    }
}

fn write_sorted(index: &mut Index, file: &File, stay: &impl Fn(&Digest) -> bool) -> std::io::Result<()> {
    let mut table: Vec<[u8; LINE]> = Vec::with_capacity(index.sorted.count() + index.added.len());
    let mut out = std::io::BufWriter::with_capacity(BLOCK, file);
    let (mut place, mut failed) = (0u64, None);
    let added = std::mem::take(&mut index.added);
    let mut write = |frame: &[u8], is_old: bool| {
        let Some(key) = entry::key_of(frame).filter(|key| stay(key) && !(is_old && added.contains_key(key))) else {
            return;
        };
        let mut line = [0; LINE];
        line[..32].copy_from_slice(key.as_bytes());
        line[32..].copy_from_slice(&place.to_le_bytes());
        table.push(line);
        place += frame.len() as u64;
        if let Err(cause) = out.write_all(frame) {
            failed.get_or_insert(cause);
        }
    };
    index.sorted.each(|frame| write(frame, true));
    // In the order in which they were finished, in which they will be asked for.
    let mut newest: Vec<(String, &[u8])> =
        added.values().filter_map(|frame| Some((Entry::of_body(entry::body(frame))?.finished, &**frame))).collect();
    newest.sort();
    newest.iter().for_each(|(_, frame)| write(frame, false));
    table.sort_unstable();
    let table = table.concat();
    let mut foot = ((table.len() / LINE) as u64).to_le_bytes().to_vec();
    foot.extend_from_slice(&entry::sum(&table));
    foot.extend_from_slice(&MARK);
    let written = out.write_all(&table).and_then(|()| out.write_all(&foot)).and_then(|()| out.flush());
    drop(out);
    index.added = added;
    failed.map_or(written, Err)
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], place: usize) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, place as u64)
}

#[cfg(not(unix))]
fn read_at(mut file: &File, bytes: &mut [u8], place: usize) -> std::io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(place as u64))?;
    file.read_exact(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::record::tests::{claim, example, publish};
    use super::*;

    /// Publishes records called after `names`, and sorts the index if `sorted`.
    fn filled(folder: &std::path::Path, names: &[&str], sorted: bool) -> Vec<Record> {
        let store = Store::open(folder).unwrap();
        let records: Vec<Record> = names.iter().map(|name| example(&store, name, name)).collect();
        records.iter().for_each(|record| drop(publish(&store, record)));
        store.settle_index();
        if sorted {
            store.with_index(|index| store.sort_index(index, |_| true)).unwrap().unwrap();
        }
        records
    }

    /// How many entries the files hold.
    fn written(folder: &std::path::Path) -> usize {
        Index::read(&Disk::default(), folder).unwrap().all().len()
    }

    #[test]
    fn the_index_is_rebuilt_when_missing_torn_or_behind() {
        for (sorted, name) in [(false, ADDED), (true, SORTED)] {
            let folder = tempfile::tempdir().unwrap();
            let records = filled(folder.path(), &["a", "b", "c"], sorted);
            let path = folder.path().join(name);
            let whole = fs::read(&path).unwrap();
            let cuts = (0..whole.len()).step_by(7).map(|end| Some(whole[..end].to_vec()));
            let altered = (0..whole.len()).step_by(7).map(|place| {
                let mut altered = whole.clone();
                altered[place] ^= 1;
                Some(altered)
            });
            for text in cuts.chain(altered).chain([None, Some(b"rubbish".to_vec())]) {
                match text {
                    Some(text) => fs::write(&path, text).unwrap(),
                    None => drop(fs::remove_file(&path)),
                }
                let reopened = Store::open(folder.path()).unwrap();
                assert_eq!(reopened.earlier("test", "toy").unwrap().len(), 3);
                let content = |record: &Record| reopened.entry(&record.key).unwrap().unwrap().content;
                assert!(records.iter().all(|record| content(record) == record.content));
                reopened.settle_index();
                assert_eq!(written(folder.path()), 3, "and written again");
                let _ = fs::remove_file(folder.path().join(ADDED));
            }
        }
    }

    #[test]
    fn what_is_added_later_is_found_before_what_is_sorted() {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path(), &["a", "b", "c", "d"], true);
        assert!(!folder.path().join(ADDED).exists());
        let later = filled(folder.path(), &["e"], false);
        let store = Store::open(folder.path()).unwrap();
        let mut forced = example(&store, "b", "other");
        forced.generation = 2;
        store.supersede(&claim(&store, &forced), &forced).unwrap();
        store.settle_index();
        for sort in [false, true, true] {
            let store = Store::open(folder.path()).unwrap();
            // No record is opened for any of this.
            let disk = Disk::failing(|access, path| {
                (access == super::super::Access::Read && path.to_string_lossy().contains("results"))
                    .then(|| std::io::ErrorKind::PermissionDenied.into())
            });
            let reading = Store::open_for_reading_on(disk, folder.path()).unwrap();
            assert_eq!(reading.entry(&forced.key).unwrap().unwrap().content, forced.content);
            assert_eq!(reading.entry(&later[0].key).unwrap().unwrap().content, later[0].content);
            assert_eq!(reading.earlier("test", "toy").unwrap().len(), 5);
            if sort {
                store.with_index(|index| store.sort_index(index, |_| true)).unwrap().unwrap();
                assert_eq!(written(folder.path()), 5);
            }
        }
    }

    #[test]
    fn an_index_of_thousands_finds_each() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let record = example(&store, "key", "one");
        let key = |number: u32| Digest::of(&number.to_le_bytes());
        let entries: Vec<Entry> = (0..3000)
            .map(|number| Entry::new(&Record { key: key(number), generation: number, ..record.clone() }, (1, 2)))
            .collect();
        store
            .with_index(|index| {
                entries.iter().for_each(|entry| index.add(entry));
                store.sort_index(index, |digest| *digest != key(7)).unwrap();
                assert_eq!(index.sorted.count(), 2999);
                for entry in &entries {
                    assert_eq!(index.get(&entry.key), (entry.key != key(7)).then(|| entry.clone()));
                }
                assert_eq!(index.get(&key(3000)), None);
            })
            .unwrap();
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
