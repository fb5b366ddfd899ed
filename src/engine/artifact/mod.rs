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
pub use lines::{InvalidLine, read_lines, write_lines};

use std::fmt;

/// The kinds of artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArtifactKind {
    /// Pictures and instruction records.
    Records,
    /// A model's texts about pictures.
    Responses,
    /// Preferred and rejected responses.
    Pairs,
    /// Instructions with descriptions infused.
    Conversations,
    /// Trained weights.
    Adapter,
    /// Predictions and what they score.
    Scores,
}

impl ArtifactKind {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Responses => "responses",
            Self::Pairs => "pairs",
            Self::Conversations => "conversations",
            Self::Adapter => "adapter",
            Self::Scores => "scores",
        }
    }

    /// The name of the identity part that holds its rows, for the kinds that have rows.
    pub fn rows_name(self) -> Option<&'static str> {
        match self {
            Self::Records => Some("records.jsonl"),
            Self::Responses => Some("responses.jsonl"),
            Self::Pairs => Some("pairs.jsonl"),
            Self::Conversations => Some("conversations.jsonl"),
            Self::Scores => Some("predictions.jsonl"),
            Self::Adapter => None,
        }
    }
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The side part that names where rows came from: one [`Label`] a line, in the order of the rows.
pub const LABELS: &str = "labels.jsonl";
