//! Runs a pipeline: what the plan says is missing is made, in parallel where nothing forbids it.
//!
//! One thread, the scheduler's, owns all states; workers get jobs and answer over a channel. Nodes that occupy
//! slots of a pool wait for free ones; the others run side by side. A node's content decides what happens below it:
//! one that comes out as it was lets everything below it hit.

mod compare;
mod context;
mod difference;
mod execute;
mod external;
mod interrupt;
mod items;

mod reporter;
mod scheduler;
mod state;
mod workers;

pub use interrupt::Interrupt;
pub use items::SKIPPED;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::event::{Difference, Event, NodeReport, Observer, State};
use crate::graph::Graph;
use crate::plan::{self, Planner};
use crate::pool::Pools;
use crate::store::{Store, StoreError};
use execute::Shared;
use external::External;

use reporter::Reporter;
use scheduler::Scheduler;
use workers::Threads;

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to run.
    pub plan: plan::Options,
    /// How many nodes run at once that occupy no slots of a pool.
    pub jobs: NonZeroUsize,
    /// Whether to keep running nodes that do not depend on a failed one.
    pub keep_going: bool,
    /// How often a node is retried after a transient failure, unless it sets `retries`.
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

/// The report of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunReport {
    /// Its id, the name of its directory under `runs/`.
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

impl RunReport {
    /// How many nodes ended as `how`.
    pub fn count(&self, how: State) -> usize {
        self.nodes.iter().filter(|node| node.how == how).count()
    }

    /// Whether everything that was wanted is available.
    pub fn is_complete(&self) -> bool {
        self.nodes.iter().all(|node| matches!(node.how, State::Hit | State::Run))
    }
}

/// Runs what is wanted of `graph`, with the pools that it occupies. Once `interrupt` is set, nothing new is started,
/// and what runs ends with the items in flight.
///
/// # Errors
/// When the cache cannot be used. A node that fails is part of the report.
pub fn run(
    graph: &Graph,
    store: &Arc<Store>,
    pools: &Pools,
    options: &Options,
    observer: &dyn Observer,
    interrupt: &Interrupt,
) -> Result<RunReport, StoreError> {
    let clock = Instant::now();
    let planner = Planner::new(graph, pools, &options.plan);
    store.prepare()?;
    let log = store.begin_run()?;
    let reporter = Reporter::new(observer, &log);
    let external = External::new(Arc::clone(store));
    let shared = Shared {
        graph,
        store,
        options,
        run: log.id(),
        external: &external,
        interrupt,
        generations: Mutex::default(),
        reporter: &reporter,
    };
    let nodes = planner.wanted().count();
    reporter.report(Event::RunStarted { run: log.id().to_owned(), pipeline: graph.name.clone(), nodes });

    let nodes = std::thread::scope(|scope| {
        let mut workers = Threads::new(scope, &planner, &shared);
        Scheduler::new(&planner, &shared).run(&mut workers)
    });

    let differences = compare::differences(&shared, &nodes);
    for difference in &differences {
        reporter.report(Event::Compared(difference.clone()));
    }
    let interrupted = interrupt.is_set() && nodes.iter().any(|node| node.how == State::Skipped);
    let seconds = clock.elapsed().as_secs_f64();
    let (run, pipeline) = (log.id().to_owned(), graph.name.clone());
    let mut report = RunReport { run, pipeline, nodes, differences, interrupted, seconds, not_kept: None };
    reporter.report(Event::RunFinished {
        run: report.run.clone(),
        hit: report.count(State::Hit),
        ran: report.count(State::Run),
        failed: report.count(State::Failed),
        skipped: report.count(State::Skipped),
        interrupted,
        seconds,
    });
    // What cannot be made durable now is tried again when the cache is closed.
    let _ = store.sync_names(true);
    store.settle_index();
    // The results are stored whether or not this can be written.
    report.not_kept = log.finish(store, &report).err().map(|error| error.to_string());
    Ok(report)
}
