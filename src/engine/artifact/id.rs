//! The identity of an item.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// What an item is called by every node: the digest of the content that it came from. A repeat of the same content
/// carries its ordinal (`…#2`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemId(String);

impl ItemId {
    /// The id of the first item with this content.
    pub fn new(content: Digest) -> Self {
        Self(content.to_string())
    }

    /// The id of the `ordinal`-th item with this content, counted from 1.
    pub fn repeated(content: Digest, ordinal: usize) -> Self {
        if ordinal <= 1 { Self::new(content) } else { Self(format!("{content}#{ordinal}")) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve characters, and the ordinal: enough for messages.
    pub fn short(&self) -> String {
        let (digits, ordinal) = self.0.split_at(self.0.find('#').unwrap_or(self.0.len()));
        format!("{}{ordinal}", digits.get(..12).unwrap_or(digits))
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
