//! The thread that owns a run's states: it hands out jobs, takes messages, and applies what happens to one node to the
//! others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::execute::{Outcome, Shared};
use super::state::{Board, Phase, Signal};
use super::workers::{Job, Message, Workers, decide};
use crate::digest::Digest;
use crate::event::{Event, ItemCounts, NodeReport, State};
use crate::node::{Failure, Summary};
use crate::plan::{Decision, Hit, Planner, PortResults, StoredResult, Task};
use crate::store::{Found, SeenFiles, StoredObject};

/// How often the scheduler looks whether it was interrupted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often one result is remade in a run because it was damaged.
const REMAKES: u32 = 2;

/// How often a node starts over in a run because what it reads was damaged.
const RETURNS: u32 = 8;

/// How objects that were found lost come back.
enum Recovery {
    /// These nodes, whose results name them, run again.
    Remake(BTreeSet<usize>),
    /// They are back, a node above that makes them is running, or the node makes them itself.
    Wait,
    /// No node makes them, or they were lost too often.
    Impossible,
}

/// A slot: the name of its pool, and which thing it is.
type Place = (&'static str, String);

/// A node that runs.
struct Running {
    /// The key of its result.
    key: Digest,
    /// The key of its items.
    items: Option<Digest>,
    /// The places that it occupies; `None` for a node that is one of the run's jobs.
    places: Option<Vec<Place>>,
}

/// The scheduler of one run.
pub struct Scheduler<'env> {
    planner: &'env Planner<'env>,
    shared: &'env Shared<'env>,
    board: Board,
    results: Vec<Option<StoredResult>>,
    keys: Vec<Option<Digest>>,
    reports: Vec<Option<NodeReport>>,
    clocks: Vec<Option<Instant>>,
    remade: Vec<u32>,
    returned: Vec<u32>,
    /// Of nodes that are to run: what to do.
    tasks: HashMap<usize, (Box<Task>, SeenFiles)>,
    /// Nodes that were found to have to run, in order, by the number of the pool that they occupy; some may not be ready
    /// any more.
    queues: BTreeMap<Option<usize>, BTreeSet<usize>>,
    /// By key: nodes that run although their results are cached.
    repeated: HashMap<Digest, Vec<usize>>,
    /// Keys of results that are used and not leased yet: before anything reads them, they are.
    unleased: Vec<Digest>,
    deciding: usize,
    running: BTreeMap<usize, Running>,
    stopping: bool,
}

impl<'env> Scheduler<'env> {
    /// A scheduler for what `planner` wants.
    pub fn new(planner: &'env Planner<'env>, shared: &'env Shared<'env>) -> Self {
        let nodes = &shared.graph.nodes;
        let above = nodes.iter().map(|node| node.needs().iter().flatten().copied().collect());
        Self {
            planner,
            shared,
            board: Board::new(above, planner.wanted()),
            results: nodes.iter().map(|_| None).collect(),
            keys: vec![None; nodes.len()],
            reports: nodes.iter().map(|_| None).collect(),
            clocks: vec![None; nodes.len()],
            remade: vec![0; nodes.len()],
            returned: vec![0; nodes.len()],
            tasks: HashMap::new(),
            queues: BTreeMap::new(),
            repeated: HashMap::new(),
            unleased: Vec::new(),
            deciding: 0,
            running: BTreeMap::new(),
            stopping: false,
        }
    }

    /// Runs until nothing more can be done.
    pub fn run(mut self, workers: &mut dyn Workers) -> Vec<NodeReport> {
        // Look up what is cached here: that takes no worker.
        for index in self.planner.wanted() {
            self.stopping |= self.shared.interrupt.is_set();
            if self.board.state(index) == Phase::Undecided && !self.stopping {
                let inputs = self.look_up(index);
                self.decided(index, decide(self.planner, self.shared, index, inputs));
            }
        }
        loop {
            self.stopping |= self.shared.interrupt.is_set();
            if !self.stopping {
                self.give(workers);
            }
            if self.deciding + self.running.len() == 0 {
                break;
            }
            match workers.next(LOOK_EVERY) {
                None => {}
                Some(Message::Decided(index, decision)) => {
                    self.deciding -= 1;
                    self.decided(index, *decision);
                }
                Some(Message::Ended(index, outcome)) => {
                    self.running.remove(&index);
                    self.ended(index, outcome);
                }
            }
        }
        for index in self.planner.wanted() {
            if !self.board.state(index).is_final() {
                self.signal(index, Signal::Stop);
                self.finish(index, State::Skipped, None, None, None);
            }
        }
        self.reports.into_iter().flatten().collect()
    }

    /// Hands out all jobs that can start.
    fn give(&mut self, workers: &mut dyn Workers) {
        let jobs = self.shared.options.jobs.get();
        while self.deciding < jobs
            && let Some(index) = self.board.undecided().first().copied()
        {
            let inputs = self.look_up(index);
            self.deciding += 1;
            workers.give(Job::Decide { index, inputs });
        }
        for pool in self.queues.keys().copied().collect::<Vec<_>>() {
            let mut from = 0;
            // Not beyond what can start: the queue of a wide graph is long.
            while self.has_free(pool, 1)
                && let Some(index) = self.queues.get(&pool).and_then(|queue| queue.range(from..).next().copied())
            {
                from = index + 1;
                let is_ready = self.board.state(index) == Phase::Ready;
                let count = self.shared.graph.nodes[index].node.resources().map_or(1, |slots| slots.count);
                if is_ready && (!self.has_free(pool, count) || self.is_being_made(index)) {
                    continue;
                }
                self.queues.entry(pool).or_default().remove(&index);
                if let Some((task, files)) = self.tasks.remove(&index).filter(|_| is_ready) {
                    let (places, slots) = self.occupied(pool, count);
                    let (key, items) = (task.key, task.function_key);
                    self.unleased.push(key);
                    self.unleased.extend(items);
                    self.shared.reporter.lease(&self.unleased);
                    self.unleased.clear();
                    self.running.insert(index, Running { key, items, places });
                    self.signal(index, Signal::Taken);
                    self.clocks[index] = Some(Instant::now());
                    workers.give(Job::Execute { task, slots, files });
                }
            }
        }
    }

    /// Whether a node that occupies `count` slots of the pool of this number, or of none, can start.
    fn has_free(&self, pool: Option<usize>, count: usize) -> bool {
        match pool {
            Some(pool) => self.free(pool).take(count).count() == count,
            None => {
                let running = self.running.values().filter(|running| running.places.is_none()).count();
                running < self.shared.options.jobs.get()
            }
        }
    }

    /// Begins to look `index` up: what comes in.
    fn look_up(&mut self, index: usize) -> PortResults {
        self.signal(index, Signal::Given);
        self.clocks[index] = Some(Instant::now());
        self.planner.inputs(index, &self.results).expect("a node is looked up when its inputs are there")
    }

    /// Whether another node that runs makes the result of `index`, too, or some of its items: then this one waits for
    /// it, and finds them.
    fn is_being_made(&self, index: usize) -> bool {
        let Some((task, _)) = self.tasks.get(&index) else { return false };
        let shares = |items: &Option<Digest>| items.is_some() && *items == task.function_key;
        self.running.values().any(|running| running.key == task.key || shares(&running.items))
    }

    /// The slots of the pool of this number that no node occupies, whichever pool it came by.
    fn free(&self, pool: usize) -> impl Iterator<Item = (Place, &Value)> {
        let (name, pool) = self.planner.pools().get(pool);
        let slots = pool.slots.iter().map(move |slot| ((name, slot.place.clone()), &slot.what));
        let is_occupied =
            |place: &Place| self.running.values().any(|it| it.places.iter().flatten().any(|it| it == place));
        slots.filter(move |(place, _)| !is_occupied(place))
    }

    /// What a node comes to occupy: the places, and what they are.
    fn occupied(&self, pool: Option<usize>, count: usize) -> (Option<Vec<Place>>, Vec<Value>) {
        let Some(pool) = pool else { return (None, Vec::new()) };
        let (places, slots) = self.free(pool).take(count).map(|(place, what)| (place, what.clone())).unzip();
        (Some(places), slots)
    }

    fn decided(&mut self, index: usize, decision: Result<(Decision, SeenFiles), Failure>) {
        if self.board.state(index) == (Phase::Deciding { outdated: true }) {
            return self.signal(index, Signal::Outdated);
        }
        match decision {
            Ok((Decision::Hit(hit), _)) => self.hit(index, &hit),
            Ok((Decision::Run(task), files)) => {
                self.keys[index] = Some(task.key);
                if task.forced || task.again {
                    self.repeated.entry(task.key).or_default().push(index);
                }
                self.signal(index, Signal::Missing);
                self.tasks.insert(index, (task, files));
                self.queues.entry(self.planner.pools().number(index)).or_default().insert(index);
            }
            Err(Failure::Interrupted) => self.stopped(index),
            Err(failure) => self.failed(index, failure),
        }
    }

    fn ended(&mut self, index: usize, outcome: Outcome) {
        match outcome {
            Outcome::Made(record, items) => {
                // Force makes a result once.
                for again in self.repeated.remove(&record.key).unwrap_or_default() {
                    if let Some((task, _)) = self.tasks.get_mut(&again) {
                        (task.forced, task.again) = (false, false);
                    }
                }
                self.finish(index, State::Run, Some((&record.content, &record.summary)), items, None);
                self.done(index, Signal::Made, StoredResult::of(index, &record));
            }
            Outcome::Found => match self.keys[index].map(|key| self.shared.store.find(&key)) {
                Some(Ok(Found::Complete(entry))) => self.hit(index, &Hit { entry: *entry, remark: None }),
                Some(Err(error)) => self.failed(index, error.into()),
                // Found a moment ago and gone: as if it had never been looked up.
                _ => self.signal(index, Signal::Lost(BTreeSet::new())),
            },
            Outcome::Lost { objects, failure } => self.lost(index, &objects, failure),
            Outcome::Failed(failure) => self.failed(index, failure),
            Outcome::Interrupted => self.stopped(index),
        }
    }

    fn hit(&mut self, index: usize, hit: &Hit) {
        let summary = match hit.entry.summary() {
            Some(summary) => summary,
            // It is long: one that is gone since it was found has none.
            None => match self.shared.store.record(&hit.entry.key) {
                Ok(record) => record.map(|record| record.summary).unwrap_or_default(),
                Err(error) => return self.failed(index, error.into()),
            },
        };
        let node = &self.shared.graph.nodes[index];
        self.keys[index] = Some(hit.entry.key);
        self.unleased.push(hit.entry.key);
        if let Some(remark) = &hit.remark {
            self.shared.reporter.note(&node.name, remark.clone());
        }
        // The result may have been made from another file: report the remarks on this pipeline's, unless the node has
        // run in this run, which reported them.
        if self.reports[index].is_none() {
            node.node.remarks().into_iter().for_each(|remark| self.shared.reporter.note(&node.name, remark));
        }
        let items = hit.entry.items.filter(|_| node.node.maps_items()).map(|items| ItemCounts {
            done: 0,
            cached: items.total - items.skipped,
            ..items
        });
        self.finish(index, State::Hit, Some((&hit.entry.content, &summary)), items, None);
        self.done(index, Signal::Found, hit.result(index));
    }

    /// The result of `index` is available.
    fn done(&mut self, index: usize, signal: Signal, result: StoredResult) {
        self.shared.external.add(&result, self.shared.graph);
        self.results[index] = Some(result);
        self.signal(index, signal);
    }

    fn failed(&mut self, index: usize, failure: Failure) {
        self.finish(index, State::Failed, None, None, Some(failure));
        self.stopping |= !self.shared.options.keep_going;
        self.signal(index, Signal::Fail);
    }

    /// The run was interrupted, and `index` with it.
    fn stopped(&mut self, index: usize) {
        self.stopping = true;
        self.signal(index, Signal::Stop);
        self.finish(index, State::Skipped, None, None, None);
    }

    /// Whether an object exists; if that cannot be determined, reading it will fail.
    fn is_there(&self, object: &Digest) -> bool {
        self.shared.store.object_size(object).is_ok_and(|size| size.is_some())
    }

    /// Objects that `index` reads are lost: the nodes that made them run again, then `index` is looked up again.
    fn lost(&mut self, index: usize, objects: &[Digest], failure: Failure) {
        self.returned[index] += 1;
        let makers = match self.recovery(index, objects) {
            Recovery::Impossible => return self.failed(index, failure),
            Recovery::Wait => BTreeSet::new(),
            Recovery::Remake(makers) => makers,
        };
        for maker in &makers {
            self.remade[*maker] += 1;
            let name = &self.shared.graph.nodes[*maker].name;
            self.shared.reporter.note(name, format!("recomputing its result: {failure}"));
            self.results[*maker] = None;
        }
        self.signal(index, Signal::Lost(makers));
        let board = &self.board;
        self.tasks.retain(|index, _| board.state(*index) == Phase::Ready);
    }

    /// How `objects`, which `index` reads and found lost, come back.
    fn recovery(&self, index: usize, objects: &[Digest]) -> Recovery {
        if self.returned[index] > RETURNS {
            return Recovery::Impossible;
        }
        let is_done = |node: &usize| matches!(self.board.state(*node), Phase::Done(_));
        let ancestors = self.board.ancestors(index);
        let makers: BTreeSet<usize> =
            ancestors.into_iter().filter(is_done).filter(|node| self.has_lost(*node, objects)).collect();
        if makers.iter().any(|maker| self.remade[*maker] >= REMAKES) {
            return Recovery::Impossible;
        }
        if !makers.is_empty() {
            return Recovery::Remake(makers);
        }
        // Another node may have found the same, and they may be back already.
        let are_there = objects.iter().all(|object| self.is_there(object));
        let are_made = self.board.above(index).iter().any(|above| !is_done(above));
        // An object that no node above made belongs to a finished item of this node, which makes it again.
        let is_own = self.returned[index] <= 1;
        if are_there || are_made || is_own { Recovery::Wait } else { Recovery::Impossible }
    }

    /// Whether the result of `node` names one of `objects` that is not there.
    fn has_lost(&self, node: usize, objects: &[Digest]) -> bool {
        let is_lost = |object: &StoredObject| objects.contains(&object.digest) && !self.is_there(&object.digest);
        match self.keys[node].map(|key| self.shared.store.record(&key)) {
            Some(Ok(Some(record))) => record.objects.iter().any(is_lost),
            // It was evicted, and what it names with it.
            Some(Ok(None)) => true,
            _ => false,
        }
    }

    /// Applies `signal` to `index`, and reports what is not reached because of it.
    fn signal(&mut self, index: usize, signal: Signal) {
        for skipped in self.board.apply(index, signal) {
            self.finish(skipped, State::Skipped, None, None, None);
        }
    }

    /// The summary of a result, with this pipeline's names for what it is about.
    fn reported(&self, index: usize, summary: &Summary) -> Summary {
        let mut reported = summary.clone().named(|digest| self.shared.external.file(digest));
        reported.labels.extend(self.shared.graph.names(index));
        reported
    }

    /// Reports how a node ended.
    fn finish(
        &mut self,
        index: usize,
        how: State,
        result: Option<(&Digest, &Summary)>,
        items: Option<ItemCounts>,
        failure: Option<Failure>,
    ) {
        let node = &self.shared.graph.nodes[index];
        let help = match &failure {
            Some(Failure::Node { help, .. } | Failure::Environment { help, .. }) => help.clone(),
            _ => None,
        };
        let report = NodeReport {
            node: node.name.clone(),
            kind: node.kind.to_owned(),
            how,
            key: self.keys[index].map(|key| key.to_string()),
            content: result.map(|(content, _)| content.to_string()),
            items,
            seconds: self.clocks[index].map_or(0.0, |clock| clock.elapsed().as_secs_f64()),
            summary: result.map(|(_, summary)| self.reported(index, summary)),
            error: failure.map(|failure| failure.to_string()),
            help,
            axes: node.axis_values(),
            frozen: node.frozen,
        };
        self.shared.reporter.report(Event::Finished(report.clone()));
        self.reports[index] = Some(report);
    }
}
