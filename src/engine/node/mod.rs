//! The contract between the engine and the kinds of node.
//!
//! The engine knows a node by these traits alone: what it reads and makes, which of its parameters name its result,
//! and how to run it, as a whole or item by item. A kind does not know the graph, the cache's layout, or which process
//! runs it.

mod failure;
mod kinds;
mod results;
mod simple;

pub use failure::Failure;
pub use kinds::Kinds;
pub use results::{
    Artifact, BadItem, Block, Compared, Inputs, ItemValue, Metric, Output, Part, Progress, Sample, Summary,
};
pub use simple::Simple;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::artifact::{ArtifactKind, ItemId, Label};
use crate::digest::{Digest, Value};
use crate::pool::Slots;
pub use crate::spec::parameter::{Class, Parameter, by_default};
use crate::spec::parameter::{Declaration, choice};
use crate::spec::{Reader, Resource};

/// How many inputs a port takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// One.
    One,
    /// One or none.
    Optional,
    /// One or more, concatenated as written.
    Many,
}

/// A named input of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// Its name: `inputs.NAME` in the pipeline file.
    pub name: &'static str,
    /// The artifacts that it takes. A file is read as the first.
    pub accepts: &'static [ArtifactKind],
    /// How many.
    pub arity: Arity,
    /// Whether the node's items come from this port. What comes in by another port changes every item, and is part
    /// of the items' function key.
    pub items: bool,
}

/// A kind of node: reads a table of a pipeline file and makes a [`Node`] of it.
pub trait NodeKind: Send + Sync {
    /// Its name: `kind = "NAME"`.
    fn name(&self) -> &'static str;

    /// Raise this when the same inputs and parameters no longer give the same result, or a default changes.
    fn version(&self) -> u32;

    /// Its inputs.
    fn ports(&self) -> &'static [Port];

    /// What it makes, always the same, unless [`NodeKind::same_as`] names a port. A kind that makes either of two artifacts
    /// is two kinds.
    fn output(&self) -> ArtifactKind;

    /// The port, of one input, whose artifact it makes, such as a kind that chooses among rows of several artifacts. Then
    /// [`NodeKind::output`] is used for its name alone.
    fn same_as(&self) -> Option<&'static str> {
        None
    }

    /// What it does: one line.
    fn help(&self) -> &'static str {
        ""
    }

    /// The smallest sound table of it, with files as inputs, without header and `kind`: for the reference.
    fn example(&self) -> &'static str {
        ""
    }

    /// Its parameters: all that [`NodeKind::read`] asks for.
    fn declared(&self) -> Vec<Declaration> {
        Vec::new()
    }

    /// Reads the parameters out of `table`, which collects every mistake. `None` when there was one.
    ///
    /// `connected` says whether a port has inputs, for parameters that depend on it. Reading does no input or output
    /// beyond what the reader offers; what needs files is left to [`Node::check_files`].
    fn read(&self, table: &mut Reader<'_>, connected: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>>;
}

/// Makes nodes of tables in place of an input: `inputs.PORT = { file = "…" }`.
pub trait Importer: Send + Sync {
    /// The kind that reads such a table as the first of `accepts`. Its nodes have no inputs.
    fn kind(&self, accepts: &[ArtifactKind]) -> Arc<dyn NodeKind>;

    /// What is wrong with `resource`, for resources that only nodes with mistakes name.
    fn check_resource(&self, resource: &Resource) -> Vec<FileProblem> {
        let _ = resource;
        Vec::new()
    }
}

/// Which seeds a node's draws depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeedUse {
    /// The pipeline's seed, for draws that nodes have in common, such as which items take part. Part of the node's key
    /// alone, since what is drawn for an item is part of what the item reads.
    pub pipeline: bool,
    /// The node's own seed, by default the pipeline's. Part of both keys.
    pub node: bool,
}

/// A parameter that does not fit the file or directory that it names, or the inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct FileProblem {
    /// The dotted name of the parameter; of a resource, the dotted name in the whole file: `models.base.source`.
    pub parameter: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// A node of a pipeline: parameters that were read and found sound.
pub trait Node: Send + Sync {
    /// The parameters that differ from their defaults, without those of execution.
    fn parameters(&self) -> Vec<Parameter>;

    /// What it means that `parameter` is not among [`Node::parameters`], for people, where that is not what its
    /// declaration says.
    fn left_out(&self, parameter: &str) -> Option<String> {
        let _ = parameter;
        None
    }

    /// Which seeds matter.
    fn seeds(&self) -> SeedUse {
        SeedUse::default()
    }

    /// The slots that the node occupies while it runs; their numerics class is part of its key. A node without is one
    /// of the run's jobs.
    fn resources(&self) -> Option<Slots> {
        None
    }

    /// Whether the files and directories that parameters name exist and are what they should be. Cheap: nothing large
    /// is read.
    fn check_files(&self) -> Vec<FileProblem> {
        Vec::new()
    }

    /// What is worth knowing of these files and directories, though the node can run. As cheap as
    /// [`Node::check_files`].
    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }

    /// What is known of the result before it is made, for the nodes that read it. `above` gives the same of what comes
    /// in by a port. Cheap, and empty where nothing is known.
    fn promises(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<Parameter> {
        let _ = above;
        Vec::new()
    }

    /// Parameters that contradict what is known of the inputs: `above` gives their [`Node::promises`] by port.
    fn check_inputs(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<FileProblem> {
        let _ = above;
        Vec::new()
    }

    /// What parameters name outside the pipeline, such as a directory, as digests of content.
    ///
    /// # Errors
    /// When something named cannot be read.
    fn sources(&self, digests: &dyn FileDigests) -> Result<Vec<Parameter>, Failure> {
        let _ = digests;
        Ok(Vec::new())
    }

    /// What changed in what `parameter` names outside the pipeline since the result `earlier` was made, when it had the
    /// value `old`: which entries came, went and changed. `None` where that cannot be determined.
    fn source_changes(
        &self,
        parameter: &str,
        old: &Value,
        earlier: &Artifact,
        objects: &dyn Objects,
        digests: &dyn FileDigests,
    ) -> Option<String> {
        let _ = (parameter, old, earlier, objects, digests);
        None
    }

    /// What a failure to decode or read one item does, and after how many.
    fn on_bad_item(&self) -> OnBadItem {
        OnBadItem::default()
    }

    /// What the pipeline file calls the things that the node uses, as labels of its summary; `above` gives the names of
    /// the nodes connected to a port. A result is kept without them, and shown with those of today.
    fn names(&self, above: &dyn Fn(&str) -> Vec<String>) -> BTreeMap<String, String> {
        let _ = above;
        BTreeMap::new()
    }

    /// The resource that an export of the result names as its origin.
    fn origin(&self) -> Option<&Resource> {
        None
    }

    /// What a node that reads items from files finds in them today: each item's id, file, and what the files call
    /// it. Exports name rows by this, since a result outlives the directory that its items came from.
    ///
    /// # Errors
    /// When a file cannot be read.
    fn labels(&self, files: &dyn FileDigests) -> Result<Vec<Labelled>, Failure> {
        let _ = files;
        Ok(Vec::new())
    }

    /// How the result `mine` of this node differs from that of another; `None` where they cannot be compared.
    ///
    /// # Errors
    /// When a part of either cannot be read.
    fn differences(
        &self,
        mine: &Artifact,
        other: &Artifact,
        objects: &dyn Objects,
    ) -> Result<Option<Compared>, Failure> {
        let _ = (mine, other, objects);
        Ok(None)
    }

    /// How the node runs.
    fn work(&self) -> Work<'_>;

    /// Whether it runs item by item.
    fn maps_items(&self) -> bool {
        matches!(self.work(), Work::Items(_))
    }
}

/// An item as the files call it that it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    /// Its identity.
    pub id: ItemId,
    /// The digest of the file that it is about.
    pub file: Option<Digest>,
    /// The source's own name, and the file's path.
    pub label: Label,
}

/// The two ways to run.
pub enum Work<'a> {
    /// As a whole.
    Whole(&'a dyn WholeWork),
    /// Item by item: finished items are journalled and outlive a killed run.
    Items(&'a dyn ItemWork),
}

/// A node that runs as a whole.
pub trait WholeWork: Send + Sync {
    /// Makes the result.
    ///
    /// # Errors
    /// See [`Failure`].
    fn run(&self, inputs: &Inputs, context: &dyn Context) -> Result<Output, Failure>;
}

/// One item of a node: with the node's function key it names the item's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its identity. Ids are unique within a node.
    pub id: ItemId,
    /// The digest of all that the node reads for this item beside its function fields, such as what it drew.
    pub reads: Digest,
}

/// A node that maps items.
pub trait ItemWork: Send + Sync {
    /// Raise this when the same item no longer gives the same value.
    fn item_version(&self) -> u32;

    /// The items, in the order of the result. `files` is for items that come from files which parameters name (and
    /// which [`Node::sources`] covers). Also called when a plan counts items.
    ///
    /// # Errors
    /// When an input cannot be read or does not fit.
    fn items(&self, inputs: &Inputs, pipeline_seed: u64, files: &dyn FileDigests) -> Result<Vec<Item>, Failure>;

    /// Makes the values of `pending`, indices into the list that [`ItemWork::items`] gave, and hands each to
    /// `finished` as soon as it exists; stops early, with `Ok`, when `finished` says [`ControlFlow::Break`].
    ///
    /// # Errors
    /// What stops all items. What stops one is handed to `finished`.
    fn map(
        &self,
        inputs: &Inputs,
        pending: &[usize],
        context: &dyn Context,
        finished: &mut dyn FnMut(usize, Result<ItemValue, BadItem>) -> ControlFlow<()>,
    ) -> Result<(), Failure>;

    /// Makes the result out of the values of all items that are not bad, in the order of the items. They come out of
    /// the journal one by one, whoever made them.
    ///
    /// # Errors
    /// See [`Failure`].
    fn collect(
        &self,
        inputs: &Inputs,
        values: &mut dyn Iterator<Item = (usize, ItemValue)>,
        context: &dyn Context,
    ) -> Result<Output, Failure>;
}

/// What to do with bad items.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OnBadItem {
    /// Skip and count them while they are at most this share of all items, then fail.
    Skip {
        /// A share of all items.
        at_most: f64,
    },
    /// Fail when there is one, after all have been tried.
    Fail,
}

crate::parameters! {
    /// What kinds have in common whose items may be bad.
    #[derive(PartialEq)]
    pub struct BadItems {
        /// What to do with unreadable items: `skip` any number of them, or `fail` if there is one
        on_bad_item: OnBadItem = choice([("skip", OnBadItem::Skip { at_most: 1.0 }), ("fail", OnBadItem::Fail)])
            .otherwise("skip up to 1 %", OnBadItem::default())
            .execution(),
    }
}

impl OnBadItem {
    /// Whether `bad` of `total` items may be left out; never all of them.
    pub fn allows(self, bad: usize, total: usize) -> bool {
        let few = matches!(self, Self::Skip { at_most } if bad as f64 <= at_most * total as f64);
        bad == 0 || (few && bad < total)
    }

    /// How many may be left out, in words.
    pub fn reported(self) -> String {
        match self {
            Self::Skip { at_most: 1.0 } => "all items but one may be skipped".to_owned(),
            Self::Skip { at_most } => format!("at most {} % of the items may be skipped", at_most * 100.0),
            Self::Fail => "`on_bad_item` is \"fail\"".to_owned(),
        }
    }
}

impl Default for OnBadItem {
    fn default() -> Self {
        Self::Skip { at_most: 0.01 }
    }
}

/// Digests of files, memoised by the engine. What was digested in a run can be found again by content.
pub trait FileDigests: Send + Sync {
    /// The digest of the file's content.
    ///
    /// # Errors
    /// When it cannot be read.
    fn file(&self, path: &Path) -> std::io::Result<Digest>;

    /// The digests of many files, in order, on all threads.
    fn files(&self, paths: &[PathBuf]) -> Vec<std::io::Result<Digest>>;
}

/// The content store, as nodes see it.
pub trait Objects: Send + Sync {
    /// The content named by `digest`.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    fn read(&self, digest: &Digest) -> Result<Vec<u8>, Failure>;

    /// The file that holds the content named by `digest`. It must not be written to.
    ///
    /// # Errors
    /// When it is not there.
    fn path(&self, digest: &Digest) -> Result<PathBuf, Failure>;

    /// Puts `content` into the store.
    ///
    /// # Errors
    /// When it cannot be written.
    fn put(&self, content: &[u8]) -> Result<Digest, Failure>;
}

/// Where a node keeps unfinished work, so that it can resume after its process was killed.
pub trait Checkpoints: Send + Sync {
    /// Saves `content` under `name`, a file name: durable, and there as a whole or not at all. The one before stays.
    ///
    /// # Errors
    /// When it cannot be written, or another process has taken the node over.
    fn save(&self, name: &str, content: &[u8]) -> Result<(), Failure>;

    /// Offers `read` what was saved under `name`, the newest first, until it takes one. What it refuses with a reason
    /// is damaged: it is set aside, and described in what is returned.
    ///
    /// # Errors
    /// When one exists but cannot be read.
    fn load(&self, name: &str, read: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<Vec<String>, Failure>;
}

/// What the engine offers a running node.
pub trait Context: Send + Sync {
    /// The node's name, for messages that say where something must be written.
    fn node(&self) -> &str;

    /// The node's own seed.
    fn seed(&self) -> u64;

    /// The pipeline's seed: see [`SeedUse::pipeline`].
    fn pipeline_seed(&self) -> u64;

    /// What the slots are that the node occupies: see [`Node::resources`].
    fn slots(&self) -> &[serde_json::Value];

    /// The content store.
    fn objects(&self) -> &dyn Objects;

    /// Digests of files outside the store. Files digested through this must not change before the result is published.
    fn files(&self) -> &dyn FileDigests;

    /// The content named by `digest`: out of the store, or of the external file that was found to have it.
    ///
    /// # Errors
    /// When no file with this content is known or it has changed; the cause names the path. The environment is at
    /// fault then, not the item: the engine stops the node and stores nothing, even if the error is swallowed.
    fn content(&self, digest: &Digest) -> Result<Vec<u8>, BadItem>;

    /// The path of the content named by `digest`, for messages.
    fn content_path(&self, digest: &Digest) -> Option<PathBuf>;

    /// Unfinished work that outlives a killed run, and goes when the result is published.
    fn checkpoints(&self) -> &dyn Checkpoints;

    /// Whether to finish what is in flight and return [`Failure::Interrupted`].
    fn interrupted(&self) -> bool;

    /// Reports progress.
    fn progress(&self, progress: Progress);

    /// Reports that a node that runs as a whole has left out `bad` of `total` items, as [`Node::on_bad_item`] allows.
    /// Kept with the result, so that a node that allows fewer does not take it.
    fn left_out(&self, bad: usize, total: usize) {
        let _ = (bad, total);
    }

    /// Reports something worth knowing, once: a warning, a count.
    fn note(&self, text: &str);
}
