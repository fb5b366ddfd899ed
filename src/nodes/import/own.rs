//! The rows that `stic export` writes, as they are read again.

use std::collections::HashSet;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::artifact::{Conversation, ItemId, Label, Pair, Record, Response, Turn};
use crate::data::record_notes::RecordNote;
use crate::data::records::RawRecord;
use crate::data::turns::{check_order, end_with_an_answer};
use stic_engine::digest::Digest;

/// A row as `stic export` writes it.
pub trait Own: Serialize + DeserializeOwned {
    fn id(&self) -> &ItemId;

    /// The digests of the pictures that it names, as far as anybody looks at them: what was shown for a response is
    /// said, and not needed again.
    fn pictures(&self) -> [Option<Digest>; 2];

    fn turns(&mut self) -> Option<&mut Vec<Turn>> {
        None
    }
}

impl Own for Record {
    fn id(&self) -> &ItemId {
        &self.id
    }

    fn pictures(&self) -> [Option<Digest>; 2] {
        [self.picture, self.altered.as_ref().map(|altered| altered.picture)]
    }

    fn turns(&mut self) -> Option<&mut Vec<Turn>> {
        self.conversations.as_mut()
    }
}

impl Own for Response {
    fn id(&self) -> &ItemId {
        &self.id
    }

    fn pictures(&self) -> [Option<Digest>; 2] {
        [Some(self.picture), None]
    }
}

impl Own for Pair {
    fn id(&self) -> &ItemId {
        &self.id
    }

    fn pictures(&self) -> [Option<Digest>; 2] {
        [Some(self.picture), None]
    }
}

impl Own for Conversation {
    fn id(&self) -> &ItemId {
        &self.id
    }

    fn pictures(&self) -> [Option<Digest>; 2] {
        [self.picture, None]
    }

    fn turns(&mut self) -> Option<&mut Vec<Turn>> {
        Some(&mut self.conversations)
    }
}

/// Reads a row of our own, with notes on it; `ids` are those of the rows before it.
pub fn own_row<T: Own>(record: RawRecord, ids: &mut HashSet<ItemId>) -> Result<(T, Vec<RecordNote>), String> {
    let RawRecord { value, mut remarks } = record;
    let mut row: T = serde_json::from_value(value).map_err(|error| error.to_string())?;
    if let Some(turns) = row.turns() {
        check_order(turns)?;
        remarks.extend(end_with_an_answer(turns));
    }
    if !ids.insert(row.id().clone()) {
        return Err(format!("duplicate id {}", row.id().short()));
    }
    Ok((row, remarks))
}

/// What a row of our own says of its source; paths in it are relative to `folder`.
pub fn own_label(value: &Json, folder: &Path) -> Label {
    let text = |key: &str| value.get(key).and_then(Json::as_str);
    let path = text("image").map(|path| folder.join(path).to_string_lossy().into_owned());
    Label { name: text("source_id").map(str::to_owned), path, place: None }
}

/// Whether a record is one of ours: its id is a digest, and so is what it calls its picture.
pub fn is_own(value: &Json) -> bool {
    let id = value.get("id").and_then(Json::as_str).unwrap_or_default();
    let picture = value.get("picture").and_then(Json::as_str).is_some_and(|digest| digest.parse::<Digest>().is_ok());
    (picture || value.get("image").is_none())
        && id.split('#').next().is_some_and(|digits| digits.parse::<Digest>().is_ok())
}
