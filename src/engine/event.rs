//! What the engine did, as data, and who is told. This module does not know how events are shown.

use serde::Serialize;

use crate::node::{Compared, Progress, Summary};

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Its result was in the cache.
    Hit,
    /// It ran.
    Run,
    /// It failed.
    Failed,
    /// It was stopped, or never started because something above it failed.
    Skipped,
}

/// Counts of items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ItemCounts {
    /// Made in this run.
    pub done: usize,
    /// Found in a journal.
    pub cached: usize,
    /// Skipped because they were bad.
    pub skipped: usize,
}

/// How the results of two nodes that measure the same differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The node.
    pub node: String,
    /// The node that it is compared with: the first in the order of the pipeline that measures the same.
    pub reference: String,
    /// What `node` has more than `reference`.
    #[serde(flatten)]
    pub compared: Compared,
}

/// One thing that happened. Written as one JSON object a line; fields are only ever added.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
// Events are made one at a time and borrowed by observers; a box around the largest would only be in the way.
#[allow(clippy::large_enum_variant)]
pub enum Event {
    /// A run began.
    RunStarted {
        /// Its id, the name of its folder under `runs/`.
        run: String,
        /// The pipeline's name.
        pipeline: String,
        /// How many nodes are wanted.
        nodes: usize,
    },
    /// A node began to run.
    Started {
        /// The node.
        node: String,
        /// Its kind.
        kind: String,
        /// Why its result was not in the cache, a reason each.
        why: Vec<String>,
    },
    /// A node got further.
    Progress {
        /// The node.
        node: String,
        /// How far.
        #[serde(flatten)]
        progress: Progress,
    },
    /// A node said something that people should know.
    Note {
        /// The node.
        node: String,
        /// What.
        text: String,
    },
    /// A node waits for another process that is making the same result, or items that are this one's, too.
    Waiting {
        /// The node.
        node: String,
        /// Which process.
        owner: String,
        /// Whether it is for items that the two have in common.
        items: bool,
    },
    /// A node ended.
    Finished {
        /// The node.
        node: String,
        /// Its kind.
        kind: String,
        /// How.
        how: How,
        /// Its items, for kinds that map items.
        #[serde(skip_serializing_if = "Option::is_none")]
        items: Option<ItemCounts>,
        /// How long it took, in seconds.
        seconds: f64,
        /// The key of its result.
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// The content digest of its result.
        #[serde(skip_serializing_if = "Option::is_none")]
        content: Option<String>,
        /// What people are shown of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        summary: Option<Summary>,
        /// Why it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// What to do about it.
        #[serde(skip_serializing_if = "Option::is_none")]
        help: Option<String>,
    },
    /// The results of two nodes that measure the same were compared.
    Compared(Difference),
    /// A run ended.
    RunFinished {
        /// Its id.
        run: String,
        /// Nodes whose results were in the cache.
        hit: usize,
        /// Nodes that ran.
        ran: usize,
        /// Nodes that failed.
        failed: usize,
        /// Nodes that were not reached.
        skipped: usize,
        /// Whether it was interrupted.
        interrupted: bool,
        /// How long it took, in seconds.
        seconds: f64,
    },
}

/// Who is told what happens; called from several threads.
pub trait Observer: Send + Sync {
    /// Takes notice of `event`.
    fn notice(&self, event: &Event);
}
