//! What the engine did, as data, and who is notified.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::diagnostic::grouped;
use crate::node::{Compared, Progress, Summary};

/// The state of a node in a plan, or after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its result is, or was, in the cache.
    Hit,
    /// It runs, or ran.
    Run,
    /// It depends on nodes that run.
    Awaits,
    /// It failed.
    Failed,
    /// It was stopped, or never started because something above it failed.
    Skipped,
}

/// Counts of a node's items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ItemCounts {
    /// All of them, bad ones included.
    pub total: usize,
    /// Found in the cache.
    pub cached: usize,
    /// Made in this run.
    pub done: usize,
    /// Left out because they were bad.
    pub skipped: usize,
}

impl ItemCounts {
    /// How many are cached, unless none is.
    pub fn remark(self) -> Option<String> {
        (self.cached > 0).then(|| format!("{}/{} items cached", grouped(self.cached), grouped(self.total)))
    }
}

/// How a node ended in a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeReport {
    /// The node.
    pub node: String,
    /// Its kind.
    pub kind: String,
    /// How it ended.
    pub how: State,
    /// Its items, for kinds that map items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<ItemCounts>,
    /// How long it took in this run, in seconds.
    pub seconds: f64,
    /// The key of its result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The content digest of its result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The summary of its result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The values of the axes that it depends on, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub axes: BTreeMap<String, String>,
    /// Whether it is frozen: its result is one that the pipeline needs, whatever the key says.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
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
        /// Its id, the name of its directory under `runs/`.
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
    /// A node made progress.
    Progress {
        /// The node.
        node: String,
        /// How far.
        #[serde(flatten)]
        progress: Progress,
    },
    /// A node, or the engine, has something worth knowing.
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
    Finished(NodeReport),
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

/// Nobody is notified.
impl Observer for () {
    fn observe(&self, _: &Event) {}
}

/// What is notified of what happens; called from several threads.
pub trait Observer: Send + Sync {
    /// Called for every event.
    fn observe(&self, event: &Event);
}
