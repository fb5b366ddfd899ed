//! Who does the work: the scheduler gives jobs away and gets messages back, and knows no more of a worker than that.
//!
//! A job is data: a node by its place in the pipeline, a key, inputs by digest. A worker needs the pipeline and the cache
//! to do it, and nothing of the scheduler's memory. Threads of this process are the first implementation. A worker that is lost says so by a
//! message, like any other failure.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;
use std::time::Duration;

use super::execute::{Ending, Shared, execute, has_changed, panicked};
use crate::node::{Artifact, Failure};
use crate::plan::{Decision, Planner, Task};
use crate::store::{SeenFiles, Witness};

/// Something to do.
pub enum Job {
    /// Look a node up, now that its inputs are there.
    Decide {
        /// The node.
        index: usize,
        /// What comes in, by port.
        inputs: Vec<(&'static str, Vec<Artifact>)>,
    },
    /// Make a node's result.
    Execute {
        /// What to do.
        task: Box<Task>,
        /// What the slots are that it occupies.
        slots: Vec<serde_json::Value>,
        /// The files that its parameters name, as they were when it was looked up.
        files: SeenFiles,
    },
}

/// What became of a job.
pub enum Message {
    /// A node was looked up.
    Decided(usize, Box<Result<(Decision, SeenFiles), Failure>>),
    /// The work on a node ended.
    Ended(usize, Ending),
}

/// Workers, as the scheduler sees them.
pub trait Workers {
    /// Takes a job. The answer comes as a message, sooner or later, whatever happens to the worker.
    fn give(&mut self, job: Job);

    /// The next message; `None` when there is none within `patience`.
    fn next(&mut self, patience: Duration) -> Option<Message>;
}

/// Threads of this process, one a job.
pub struct Threads<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    planner: &'env Planner<'env>,
    shared: &'env Shared<'env>,
    sender: Sender<Message>,
    receiver: Receiver<Message>,
}

impl<'scope, 'env> Threads<'scope, 'env> {
    /// Threads that end before `scope` does.
    pub fn new(scope: &'scope Scope<'scope, 'env>, planner: &'env Planner<'env>, shared: &'env Shared<'env>) -> Self {
        let (sender, receiver) = channel();
        Self { scope, planner, shared, sender, receiver }
    }
}

impl Workers for Threads<'_, '_> {
    fn give(&mut self, job: Job) {
        let (planner, shared, sender) = (self.planner, self.shared, self.sender.clone());
        self.scope.spawn(move || {
            // The receiver outlives every thread of the scope, unless the scheduler itself panicked.
            let _ = sender.send(work(planner, shared, job));
        });
    }

    fn next(&mut self, patience: Duration) -> Option<Message> {
        self.receiver.recv_timeout(patience).ok()
    }
}

fn work(planner: &Planner<'_>, shared: &Shared<'_>, job: Job) -> Message {
    match job {
        Job::Decide { index, inputs } => Message::Decided(index, Box::new(decide(planner, shared, index, inputs))),
        Job::Execute { task, slots, files } => {
            let ending = catch_unwind(AssertUnwindSafe(|| {
                let files = witness(shared, task.index).knowing(files);
                execute(shared, &task, &slots, &files)
            }));
            Message::Ended(task.index, ending.unwrap_or_else(|panic| Ending::Failed(panicked(&*panic))))
        }
    }
}

/// Digests files for the node `index`, and says so of large ones.
fn witness<'a>(shared: &'a Shared<'a>, index: usize) -> Witness<'a> {
    let node = &shared.graph.nodes[index].name;
    let files = shared.store.witness().announcing(move |path, bytes| {
        let gigabytes = bytes as f64 / 1e9;
        shared.reporter.note(node, format!("reading `{}` ({gigabytes:.1} GB) to digest it, once", path.display()));
    });
    files.until(|| shared.interrupt.is_set())
}

/// Looks a node up; remembers which files its parameters name.
pub fn decide(
    planner: &Planner<'_>,
    shared: &Shared<'_>,
    index: usize,
    inputs: Vec<(&'static str, Vec<Artifact>)>,
) -> Result<(Decision, SeenFiles), Failure> {
    let files = witness(shared, index);
    let decided = catch_unwind(AssertUnwindSafe(|| planner.decide(index, inputs, shared.store, &files)));
    let decided = decided.unwrap_or_else(|panic| Err(panicked(&*panic)));
    if files.was_stopped() {
        return Err(Failure::Interrupted);
    }
    match files.changed() {
        Some(path) => Err(has_changed(&path)),
        None => Ok((decided?, files.seen())),
    }
}
