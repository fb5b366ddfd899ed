//! What flows between nodes: rows as JSON lines, and other files.
//!
//! An artifact has two parts. The *identity* part is digested and feeds keys; the *side* part (paths, labels, times,
//! rates) is kept, shown and exported, and never digested. This module does not know how artifacts are stored, nor
//! which node makes which.

mod id;
mod label;
mod lines;

pub use id::ItemId;
pub use label::Label;
pub use lines::{read_lines, write_lines};

use std::fmt;

/// A kind of artifact: what a node makes and a port takes. A program brings its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArtifactKind {
    /// Its name, in messages and in the digests of contents.
    pub name: &'static str,
    /// Raised when the same content is written otherwise; 1 at first.
    pub version: u32,
    /// Its rows, for the kinds that have rows.
    pub rows: Option<Rows>,
}

/// Where an artifact has its rows: one JSON object a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The name of the identity part.
    pub part: &'static str,
    /// The field of a row that holds the digest of an external file, if rows have one: the file that the row's
    /// [`Label`] leads to.
    pub file: Option<&'static str>,
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl ArtifactKind {
    /// The name of the identity part that holds its rows.
    ///
    /// # Panics
    /// When it has no rows.
    pub fn rows_part(&self) -> &'static str {
        self.rows.expect("an artifact with rows").part
    }
}

/// The side part that names where rows came from: one [`Label`] a line, in the order of the rows.
pub const LABELS: &str = "labels.jsonl";
