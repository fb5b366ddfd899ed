//! The context of a running node: what it is offered, and what the engine needs to know of its use, such as objects
//! that turned out to be lost.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::external::External;
use super::interrupt::NodeInterrupt;
use super::reporter::Reporter;
use crate::digest::Digest;
use crate::event::{Event, ItemCounts};
use crate::node::{BadItem, Checkpoints, Context, Failure, FileDigests, Objects, Progress};
use crate::store::{Claim, Store, StoreError, StoredCheckpoints, Witness};

/// How often progress is reported.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// The content store, for one node: what is found lost on the way is remembered.
pub struct NodeObjects {
    store: Arc<Store>,
    lost: Mutex<Vec<Digest>>,
}

impl NodeObjects {
    /// The objects of `store`.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, lost: Mutex::default() }
    }

    /// The requested objects that are damaged or missing.
    pub fn lost(&self) -> Vec<Digest> {
        self.lost.lock().expect("no panic under the lock").clone()
    }

    /// Remembers what `error` says is lost.
    pub fn note_lost(&self, error: &StoreError) {
        if let StoreError::CorruptObject { digest, .. } | StoreError::MissingObject { digest } = error {
            self.lost.lock().expect("no panic under the lock").push(*digest);
        }
    }

    /// `result`, with what it says is lost remembered.
    ///
    /// # Errors
    /// Those of `result`.
    pub fn noting<T>(&self, result: Result<T, StoreError>) -> Result<T, Failure> {
        result.map_err(|error| {
            self.note_lost(&error);
            error.into()
        })
    }
}

impl Objects for NodeObjects {
    fn read(&self, digest: &Digest) -> Result<Vec<u8>, Failure> {
        self.noting(self.store.object(digest))
    }

    fn path(&self, digest: &Digest) -> Result<PathBuf, Failure> {
        self.noting(self.store.verify_object(digest))?;
        Ok(self.store.object_path(digest))
    }

    fn put(&self, content: &[u8]) -> Result<Digest, Failure> {
        Ok(self.store.put_object(content)?)
    }
}

/// What one node is offered while it runs.
pub struct NodeContext<'a> {
    /// Its name.
    pub node: &'a str,
    /// Its own seed.
    pub seed: u64,
    /// The pipeline's seed.
    pub pipeline_seed: u64,
    /// What the slots are that it occupies.
    pub slots: &'a [serde_json::Value],
    /// Its objects.
    pub objects: Arc<NodeObjects>,
    /// Its files.
    pub files: &'a Witness<'a>,
    /// Finds content by digest.
    pub external: &'a External,
    /// The claim under which it runs.
    pub claim: &'a Claim,
    /// Its unfinished work.
    pub checkpoints: StoredCheckpoints<'a>,
    /// Set when the run is to end.
    pub interrupt: NodeInterrupt<'a>,
    /// Set when the node is to end because of [`NodeContext::unavailable`].
    pub halt: AtomicBool,
    /// Who is notified.
    pub reporter: &'a Reporter<'a>,
    /// Items that are done and all of them, when the engine counts them.
    pub items: Mutex<Option<(usize, usize)>>,
    /// The first content that could not be had.
    pub unavailable: Mutex<Option<Failure>>,
    /// How many items a node that runs as a whole has left out.
    pub left_out: Mutex<Option<ItemCounts>>,
    /// When progress was last reported, and what the node itself reported.
    pub progress: Mutex<(Option<Instant>, Progress)>,
}

impl NodeContext<'_> {
    /// Reports that `done` of `total` items are finished.
    pub fn count(&self, done: usize, total: usize) {
        *self.items.lock().expect("no panic under the lock") = Some((done, total));
        self.report_progress(None);
    }

    /// How many items the node reported to have left out.
    pub fn left_out(&self) -> Option<ItemCounts> {
        *self.left_out.lock().expect("no panic under the lock")
    }

    /// Ends the node, with `failure` unless its environment failed before.
    pub fn halt(&self, failure: Failure) {
        self.unavailable.lock().expect("no panic under the lock").get_or_insert(failure);
        self.halt.store(true, Ordering::Relaxed);
    }

    /// The first failure of the node's environment, even if the node swallowed it.
    pub fn unavailable(&self) -> Option<Failure> {
        self.unavailable.lock().expect("no panic under the lock").clone()
    }

    fn report_progress(&self, reported: Option<Progress>) {
        let mut state = self.progress.lock().expect("no panic under the lock");
        state.1 = reported.unwrap_or(state.1);
        let mut progress = state.1;
        if let Some((done, total)) = *self.items.lock().expect("no panic under the lock") {
            // The engine counts items; tokens and loss are the node's to report.
            (progress.done, progress.total) = (done, total);
        }
        let now = Instant::now();
        let due = state.0.is_none_or(|last| now - last >= REPORT_EVERY) || progress.done == progress.total;
        if due {
            state.0 = Some(now);
            drop(state);
            self.reporter.report(Event::Progress { node: self.node.to_owned(), progress });
        }
    }
}

impl Context for NodeContext<'_> {
    fn node(&self) -> &str {
        self.node
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn pipeline_seed(&self) -> u64 {
        self.pipeline_seed
    }

    fn slots(&self) -> &[serde_json::Value] {
        self.slots
    }

    fn objects(&self) -> &dyn Objects {
        &*self.objects
    }

    fn files(&self) -> &dyn FileDigests {
        self.files
    }

    fn content(&self, digest: &Digest) -> Result<Vec<u8>, BadItem> {
        self.external.read(digest, &self.objects).map_err(|failure| {
            let what = self.content_path(digest).map_or_else(|| digest.short(), |path| path.display().to_string());
            let bad = BadItem { what, cause: failure.to_string() };
            self.unavailable.lock().expect("no panic under the lock").get_or_insert(failure);
            bad
        })
    }

    fn content_path(&self, digest: &Digest) -> Option<PathBuf> {
        self.external.path(digest)
    }

    fn checkpoints(&self) -> &dyn Checkpoints {
        &self.checkpoints
    }

    fn interrupted(&self) -> bool {
        // Without its claim nothing that it makes is of any use: another process makes it.
        self.interrupt.is_set() || self.halt.load(Ordering::Relaxed) || self.claim.is_lost()
    }

    fn progress(&self, progress: Progress) {
        self.report_progress(Some(progress));
    }

    fn left_out(&self, bad: usize, total: usize) {
        *self.left_out.lock().expect("no panic under the lock") =
            Some(ItemCounts { total, skipped: bad, ..ItemCounts::default() });
    }

    fn note(&self, text: &str) {
        self.reporter.note(self.node, text);
    }
}
