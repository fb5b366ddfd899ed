//! Runs a pipeline: what the plan says is missing is made, in parallel where nothing forbids it.
//!
//! One thread, the scheduler's, owns all states; workers get jobs and answer over a channel. Nodes that occupy
//! slots of a pool wait for free ones; the others run side by side. A node's content decides what happens below it:
//! one that comes out as it was lets everything below it hit. This module does not know what any node does.

mod compare;
mod context;
mod execute;
mod external;
mod interrupt;
mod items;

mod scheduler;
mod state;
mod telling;
mod workers;

pub use interrupt::Interrupt;
pub use items::SKIPPED;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::event::{Difference, Event, How, ItemCounts, Observer};
use crate::graph::Graph;
use crate::node::Summary;
use crate::plan::{self, Planner, PoolError};
use crate::pool::Machine;
use crate::store::{Store, StoreError};
use execute::Shared;
use external::External;

use scheduler::Scheduler;
use telling::Telling;
use workers::Threads;

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to run.
    pub plan: plan::Options,
    /// How many nodes run at once that occupy no slots of a pool.
    pub jobs: NonZeroUsize,
    /// Whether nodes go on that do not depend on one that failed.
    pub keep_going: bool,
    /// How often a node is tried again after a failure of the surroundings, unless it says so itself.
    pub retries: u32,
    /// How long to wait before the first of these tries; twice as long before each further one.
    pub backoff: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plan: plan::Options::default(),
            jobs: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            keep_going: false,
            retries: 1,
            backoff: Duration::from_millis(500),
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunReport {
    /// Its id, the name of its folder under `runs/`.
    pub run: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The wanted nodes, each after its inputs.
    pub nodes: Vec<NodeReport>,
    /// How results that measure the same differ, each from the first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Why this report could not be kept under `runs/`; it says nothing about the results.
    #[serde(skip)]
    pub not_kept: Option<String>,
}

/// What a node came to in a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeReport {
    /// The node.
    pub node: String,
    /// Its kind.
    pub kind: String,
    /// How it ended.
    pub how: How,
    /// The key of its result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The content digest of its result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Its items, for kinds that map items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<ItemCounts>,
    /// How long it took in this run, in seconds.
    pub seconds: f64,
    /// What people are shown of its result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl RunReport {
    /// How many nodes ended as `how`.
    pub fn count(&self, how: How) -> usize {
        self.nodes.iter().filter(|node| node.how == how).count()
    }

    /// Whether everything that was wanted is there.
    pub fn is_complete(&self) -> bool {
        self.nodes.iter().all(|node| matches!(node.how, How::Hit | How::Run))
    }
}

/// Why nothing was run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// What the pipeline asks of a pool cannot be had.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The cache cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Runs what is wanted of `graph`. Once `interrupt` is set, nothing new is begun, and what runs ends with the items in
/// flight.
///
/// # Errors
/// When nothing could be begun. A node that fails is part of the report.
pub fn run(
    graph: &Graph,
    store: &Arc<Store>,
    machine: &dyn Machine,
    options: &Options,
    observer: &dyn Observer,
    interrupt: &Interrupt,
) -> Result<RunReport, RunError> {
    let clock = Instant::now();
    let planner = Planner::new(graph, &options.plan, machine)?;
    store.prepare()?;
    let log = store.begin_run()?;
    let telling = Telling::new(observer, &log);
    let external = External::new(Arc::clone(store));
    let shared = Shared {
        graph,
        store,
        options,
        run: log.id(),
        external: &external,
        interrupt,
        generations: Mutex::default(),
        telling: &telling,
    };
    let nodes = planner.wanted().count();
    telling.tell(Event::RunStarted { run: log.id().to_owned(), pipeline: graph.name.clone(), nodes });

    let nodes = std::thread::scope(|scope| {
        let mut workers = Threads::new(scope, &planner, &shared);
        Scheduler::new(&planner, &shared).run(&mut workers)
    });

    let differences = compare::differences(&shared, &nodes);
    for difference in &differences {
        telling.tell(Event::Compared(difference.clone()));
    }
    let interrupted = interrupt.is_set() && nodes.iter().any(|node| node.how == How::Skipped);
    let seconds = clock.elapsed().as_secs_f64();
    let (run, pipeline) = (log.id().to_owned(), graph.name.clone());
    let mut report = RunReport { run, pipeline, nodes, differences, interrupted, seconds, not_kept: None };
    telling.tell(Event::RunFinished {
        run: report.run.clone(),
        hit: report.count(How::Hit),
        ran: report.count(How::Run),
        failed: report.count(How::Failed),
        skipped: report.count(How::Skipped),
        interrupted,
        seconds,
    });
    // What was made is there whether or not this can be written.
    report.not_kept = log.finish(store, &report).err().map(|error| error.to_string());
    Ok(report)
}
