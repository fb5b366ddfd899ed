//! What plans need of a record, and its compact form in the index.
//!
//! The compact form is one frame an entry: a mark, the length of the body, its checksum, the body. What is torn or
//! altered is recognized and passed over, up to the next mark.

use std::fs::Metadata;
use std::time::UNIX_EPOCH;

use super::record::{Record, StoredObject};
use crate::digest::Digest;
use crate::event::ItemCounts;
use crate::node::{Part, Summary};

/// The longest summary, as JSON, that is kept in the index; a longer one is read from its record.
const LONGEST_SUMMARY: usize = 1024;

/// What every frame begins with.
const MARK: [u8; 4] = [0xf5, b's', b't', b'1'];

/// The bytes of a frame before its body.
const HEAD: usize = MARK.len() + 4 + 8;

/// The size and time of change of a record's file.
pub(super) type Stamp = (u64, u64);

/// What the index holds of a record.
#[derive(Clone, Debug, PartialEq)]
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
    pub side: Vec<Part>,
    /// How many items it has.
    pub items: Option<ItemCounts>,
    /// Its summary as JSON, unless that is long.
    summary: Option<String>,
    /// Its parts as objects.
    pub(super) parts: Vec<StoredObject>,
    /// How many objects it needs beside its parts.
    pub(super) more: usize,
    pub(super) stamp: Stamp,
}

impl Entry {
    pub(super) fn new(record: &Record, stamp: Stamp) -> Self {
        let count = (record.identity.len() + record.side.len()).min(record.objects.len());
        let summary = serde_json::to_string(&record.summary).ok();
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
            summary: summary.filter(|text| text.len() <= LONGEST_SUMMARY),
            parts: record.objects[..count].to_vec(),
            more: record.objects.len() - count,
            stamp,
        }
    }

    /// The summary of the result, if the index holds it.
    pub fn summary(&self) -> Option<Summary> {
        serde_json::from_str(self.summary.as_deref()?).ok()
    }

    /// The entry as a frame.
    pub(super) fn frame(&self) -> Box<[u8]> {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&[0; HEAD]);
        bytes.extend_from_slice(self.key.as_bytes());
        bytes.extend_from_slice(self.content.as_bytes());
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        let mut number = |number: u64| bytes.extend_from_slice(&number.to_le_bytes());
        number(self.stamp.0);
        number(self.stamp.1);
        number(self.more as u64);
        number(self.items.map_or(u64::MAX, |items| items.total as u64));
        if let Some(ItemCounts { cached, done, skipped, .. }) = self.items {
            [cached, done, skipped].into_iter().for_each(|count| number(count as u64));
        }
        for text in [&self.kind, &self.node, &self.pipeline, &self.finished] {
            put_text(&mut bytes, text);
        }
        put_text(&mut bytes, self.summary.as_deref().unwrap_or_default());
        for parts in [&self.identity, &self.side] {
            bytes.extend_from_slice(&(parts.len() as u32).to_le_bytes());
            for part in parts {
                put_text(&mut bytes, &part.name);
                bytes.extend_from_slice(part.digest.as_bytes());
            }
        }
        bytes.extend_from_slice(&(self.parts.len() as u32).to_le_bytes());
        for object in &self.parts {
            bytes.extend_from_slice(object.digest.as_bytes());
            bytes.extend_from_slice(&object.size.to_le_bytes());
        }
        let (length, sum) = ((bytes.len() - HEAD) as u32, sum(&bytes[HEAD..]));
        bytes[..4].copy_from_slice(&MARK);
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[8..HEAD].copy_from_slice(&sum);
        bytes.into_boxed_slice()
    }

    /// The entry of a frame's body.
    pub(super) fn of_body(body: &[u8]) -> Option<Self> {
        let mut rest = Rest(body);
        let (key, content) = (rest.digest()?, rest.digest()?);
        let generation = rest.short()?;
        let (stamp, more) = ((rest.number()?, rest.number()?), rest.number()? as usize);
        let items = match rest.number()? {
            u64::MAX => None,
            total => {
                let mut count = || Some(rest.number()? as usize);
                Some(ItemCounts { total: total as usize, cached: count()?, done: count()?, skipped: count()? })
            }
        };
        let mut text = || rest.text();
        let (kind, node, pipeline, finished, summary) = (text()?, text()?, text()?, text()?, text()?);
        let mut parts = || {
            let count = rest.short()?;
            (0..count).map(|_| Some(Part { name: rest.text()?, digest: rest.digest()? })).collect::<Option<Vec<_>>>()
        };
        let (identity, side) = (parts()?, parts()?);
        let count = rest.short()?;
        let parts = (0..count)
            .map(|_| Some(StoredObject { digest: rest.digest()?, size: rest.number()? }))
            .collect::<Option<Vec<_>>>()?;
        let summary = Some(summary).filter(|text| !text.is_empty());
        rest.0.is_empty().then_some(Self {
            key,
            generation,
            kind,
            node,
            pipeline,
            finished,
            content,
            identity,
            side,
            items,
            summary,
            parts,
            more,
            stamp,
        })
    }
}

/// The size and time of change in `metadata`.
pub(super) fn stamp(metadata: &Metadata) -> Stamp {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    (metadata.len(), modified.map_or(0, |age| age.as_nanos() as u64))
}

/// The key that the entry in `frame` has.
pub(super) fn key_of(frame: &[u8]) -> Option<Digest> {
    Rest(frame.get(HEAD..)?).digest()
}

/// The frame that `bytes` begin with, if it is whole.
pub(super) fn first_frame(bytes: &[u8]) -> Option<&[u8]> {
    let length = u32::from_le_bytes(bytes.strip_prefix(&MARK)?.get(..4)?.try_into().ok()?) as usize;
    let body = bytes.get(HEAD..)?.get(..length)?;
    (bytes[8..HEAD] == sum(body)).then_some(&bytes[..HEAD + length])
}

/// The body of a frame.
pub(super) fn body(frame: &[u8]) -> &[u8] {
    frame.get(HEAD..).unwrap_or_default()
}

/// The frames in `bytes` that are whole, with their places, in order.
pub(super) fn frames(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut place = 0;
    std::iter::from_fn(move || {
        while place < bytes.len() {
            let here = place;
            if let Some(frame) = first_frame(&bytes[here..]) {
                place += frame.len();
                return Some((here, frame));
            }
            let next = bytes[here + 1..].windows(MARK.len()).position(|window| window == MARK);
            place = next.map_or(bytes.len(), |next| here + 1 + next);
        }
        None
    })
}

/// A checksum against what crashes and bad sectors do, not against forgery: every altered word alters it.
pub(super) fn sum(bytes: &[u8]) -> [u8; 8] {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mut sum = bytes.len() as u64;
    for word in words.iter().chain([&last]) {
        sum = (sum ^ u64::from_le_bytes(*word)).wrapping_mul(MULTIPLIER).rotate_left(29);
    }
    sum.wrapping_mul(MULTIPLIER).to_le_bytes()
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// What is left to read of a body.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn digest(&mut self) -> Option<Digest> {
        Some(Digest::from(<[u8; 32]>::try_from(self.take(32)?).ok()?))
    }

    fn short(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<String> {
        let length = self.short()? as usize;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::super::record::tests::example;
    use super::*;

    fn entries() -> [Entry; 3] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        ["a", "b", "c"].map(|name| {
            let mut record = example(&store, name, &name.repeat(3));
            record.items = (name == "b").then_some(ItemCounts { total: 7, cached: 1, done: 2, skipped: 4 });
            record.summary.line = if name == "c" { "x".repeat(LONGEST_SUMMARY) } else { "3 rows".to_owned() };
            Entry::new(&record, (12, 34))
        })
    }

    #[test]
    fn an_entry_reads_back_what_it_writes() {
        for entry in entries() {
            let frame = entry.frame();
            assert_eq!(key_of(&frame), Some(entry.key));
            assert_eq!(Entry::of_body(body(&frame)).as_ref(), Some(&entry));
            assert_eq!(entry.summary().is_none(), entry.key == entries()[2].key, "long summaries stay in the record");
        }
    }

    #[test]
    fn torn_and_altered_frames_cost_themselves_alone() {
        let all = entries().map(|entry| entry.frame());
        let whole = all.concat();
        let found = |bytes: &[u8]| frames(bytes).map(|(_, frame)| key_of(frame).unwrap()).collect::<Vec<_>>();
        let keys = found(&whole);
        assert_eq!(keys, entries().map(|entry| entry.key));
        for cut in 0..all[1].len() {
            assert_eq!(found(&[&all[0], &all[1][..cut], &all[2]].concat()), [keys[0], keys[2]], "cut at {cut}");
        }
        for place in 0..whole.len() {
            let mut altered = whole.clone();
            altered[place] ^= 1;
            assert_eq!(found(&altered).len(), 2, "altered at {place}");
        }
        // A body that is cut, with a checksum that fits, is no entry.
        let frame = &all[1];
        assert!((0..frame.len() - HEAD).all(|end| Entry::of_body(&body(frame)[..end]).is_none()));
    }
}
