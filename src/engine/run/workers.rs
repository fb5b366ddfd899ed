//! The workers of a run: the scheduler gives them jobs and gets messages back.
//!
//! A job is data that another process could be sent: a node by its index in the pipeline, a key, inputs by digest. To
//! do it, a worker needs the pipeline and the cache, and nothing of the scheduler's memory. Today's workers are
//! threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::execute::{Outcome, Shared, execute, has_changed, panicked};
use crate::node::Failure;
use crate::plan::{Decision, Planner, PortResults, Task};
use crate::store::{SeenFiles, Witness};

/// Something to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Job {
    /// Look a node up, now that its inputs are available.
    Decide {
        /// The node.
        index: usize,
        /// What comes in.
        inputs: PortResults,
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

/// The outcome of a job.
pub enum Message {
    /// A node was looked up.
    Decided(usize, Box<Result<(Decision, SeenFiles), Failure>>),
    /// A node ended.
    Ended(usize, Outcome),
}

/// Workers, as the scheduler sees them.
pub trait Workers {
    /// Takes a job. Its message always comes, even if the worker panics.
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
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let files = witness(shared, task.index).knowing(files);
                execute(shared, &task, &slots, &files)
            }));
            Message::Ended(task.index, outcome.unwrap_or_else(|panic| Outcome::Failed(panicked(&*panic))))
        }
    }
}

/// Digests files for the node `index`, and reports large ones.
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
    inputs: PortResults,
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::super::external::External;
    use super::super::reporter::Reporter;
    use super::super::scheduler::Scheduler;
    use super::super::{Interrupt, Options};
    use super::*;
    use crate::artifact::ArtifactKind;
    use crate::event::State;
    use crate::graph::Graph;
    use crate::node::{Arity, Kinds, Output, Parameter, Port, Simple};
    use crate::pool::Pools;
    use crate::store::Store;

    const TEXT: ArtifactKind = ArtifactKind { name: "text", version: 1, rows: None };

    fn kinds() -> Kinds {
        let word = Simple {
            name: "word",
            version: 1,
            ports: &[],
            output: TEXT,
            read: |table| Some(vec![Parameter::function("text", table.required::<String>("text")?)]),
            run: |parameters, _, context| {
                Output::of("text", parameters[0].value.to_string().as_bytes(), context.objects())
            },
        };
        let twice = Simple {
            name: "twice",
            ports: &[Port { name: "of", accepts: &[TEXT], arity: Arity::One, items: false }],
            read: |_| Some(Vec::new()),
            run: |_, inputs, context| {
                let text = inputs.part(&inputs.artifacts("of")[0], "text")?;
                Output::of("text", &text.repeat(2), context.objects())
            },
            ..word
        };
        Kinds::new(vec![Arc::new(word), Arc::new(twice)])
    }

    /// Threads that get every job as JSON.
    struct Remote<'scope, 'env>(Threads<'scope, 'env>);

    impl Workers for Remote<'_, '_> {
        fn give(&mut self, job: Job) {
            let sent: Job = serde_json::from_str(&serde_json::to_string(&job).unwrap()).unwrap();
            assert_eq!(sent, job);
            self.0.give(sent);
        }

        fn next(&mut self, patience: Duration) -> Option<Message> {
            self.0.next(patience)
        }
    }

    #[test]
    fn jobs_can_be_sent_to_another_process() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path()).unwrap());
        let text = "[nodes.a]\nkind = 'word'\ntext = 'cat'\n[nodes.b]\nkind = 'twice'\ninputs.of = 'a'\n";
        let graph = Graph::read(text, "test", Path::new(""), &kinds()).ok().unwrap();
        let (options, pools, interrupt) = (Options::default(), Pools::new(), Interrupt::default());
        let planner = Planner::new(&graph, &pools, &options.plan);
        store.prepare().unwrap();
        let log = store.begin_run().unwrap();
        let (reporter, external) = (Reporter::new(&(), &log), External::new(Arc::clone(&store)));
        let shared = Shared {
            graph: &graph,
            store: &store,
            options: &options,
            run: log.id(),
            external: &external,
            interrupt: &interrupt,
            generations: Mutex::default(),
            reporter: &reporter,
        };
        let reports = std::thread::scope(|scope| {
            Scheduler::new(&planner, &shared).run(&mut Remote(Threads::new(scope, &planner, &shared)))
        });
        assert!(reports.iter().all(|report| report.how == State::Run), "{reports:?}");
    }
}
