//! The thread that owns a run's states: gives jobs away, takes messages, and lets what happens to one node reach the
//! others. It does not know how a job is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::NodeReport;
use super::execute::{Ending, Shared};
use super::state::{Signal, State};
use super::workers::{Job, Message, Workers, decide};
use crate::digest::Digest;
use crate::event::{Event, How, ItemCounts};
use crate::node::{Artifact, Failure};
use crate::plan::{Decision, Found, Hit, Planner, Records, Task};
use crate::store::{Record, Witness};

/// How often the scheduler looks whether it was interrupted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often the result of one node is made again in a run because it was damaged.
const REMAKES: u32 = 2;

/// The scheduler of one run.
pub struct Scheduler<'env> {
    planner: &'env Planner<'env>,
    shared: &'env Shared<'env>,
    /// By node; `None` for those that are not wanted.
    states: Vec<Option<State>>,
    results: Vec<Option<Artifact>>,
    keys: Vec<Option<Digest>>,
    reports: Vec<Option<NodeReport>>,
    clocks: Vec<Option<Instant>>,
    remade: Vec<u32>,
    /// By node: the wanted nodes that read its result.
    below: Vec<BTreeSet<usize>>,
    tasks: BTreeMap<usize, (Box<Task>, Witness<'env>)>,
    undecided: BTreeSet<usize>,
    deciding: usize,
    running: [usize; 2],
    stopping: bool,
}

impl<'env> Scheduler<'env> {
    /// A scheduler for what `planner` wants.
    pub fn new(planner: &'env Planner<'env>, shared: &'env Shared<'env>) -> Self {
        let count = shared.graph.nodes.len();
        let mut scheduler = Self {
            planner,
            shared,
            states: vec![None; count],
            results: (0..count).map(|_| None).collect(),
            keys: vec![None; count],
            reports: (0..count).map(|_| None).collect(),
            clocks: vec![None; count],
            remade: vec![0; count],
            below: vec![BTreeSet::new(); count],
            tasks: BTreeMap::new(),
            undecided: BTreeSet::new(),
            deciding: 0,
            running: [0, 0],
            stopping: false,
        };
        for index in planner.wanted() {
            let above = scheduler.above(index);
            for above in &above {
                scheduler.below[*above].insert(index);
            }
            scheduler.states[index] =
                Some(if above.is_empty() { State::Deciding } else { State::Waiting(above.len()) });
        }
        scheduler
    }

    /// Runs until nothing more can be done.
    pub fn run(mut self, workers: &mut dyn Workers<'env>) -> Vec<NodeReport> {
        // What is in the cache is found in one go, without the detour over workers.
        for index in self.planner.wanted() {
            if self.state(index) == State::Deciding && !self.stopping {
                self.undecided.remove(&index);
                if let Some(inputs) = self.planner.inputs(index, &self.results) {
                    self.clocks[index] = Some(Instant::now());
                    self.decided(index, decide(self.planner, self.shared, index, inputs));
                }
            }
        }
        loop {
            self.stopping |= self.shared.interrupt.load(Ordering::Relaxed);
            if !self.stopping {
                self.give(workers);
            }
            if self.deciding + self.running[0] + self.running[1] == 0 {
                break;
            }
            match workers.next(LOOK_EVERY) {
                None => {}
                Some(Message::Decided(index, decision)) => {
                    self.deciding -= 1;
                    self.decided(index, *decision);
                }
                Some(Message::Ended(index, ending)) => {
                    self.running[self.pool(index)] -= 1;
                    self.ended(index, ending);
                }
            }
        }
        for index in self.planner.wanted() {
            if !self.state(index).is_final() {
                self.signal(index, Signal::Skip);
                self.finish(index, How::Skipped, None, None, None);
            }
        }
        self.reports.into_iter().flatten().collect()
    }

    /// Gives away all that can be begun.
    fn give(&mut self, workers: &mut dyn Workers<'env>) {
        let jobs = self.shared.options.jobs.get();
        while self.deciding < jobs {
            let Some(index) = self.undecided.pop_first() else { break };
            let inputs =
                self.planner.inputs(index, &self.results).expect("a node is decided when its inputs are there");
            self.clocks[index] = Some(Instant::now());
            self.deciding += 1;
            workers.give(Job::Decide { index, inputs });
        }
        let ready: Vec<usize> = self.tasks.keys().copied().collect();
        for index in ready {
            let pool = self.pool(index);
            if self.running[pool] < [jobs, 1][pool]
                && !self.is_being_made(index)
                && let Some((task, files)) = self.tasks.remove(&index)
            {
                self.running[pool] += 1;
                self.signal(index, Signal::Taken);
                self.clocks[index] = Some(Instant::now());
                workers.give(Job::Execute { task, files });
            }
        }
    }

    /// Whether another node that runs makes the result of `index`, too: then this one waits for it, and finds it.
    fn is_being_made(&self, index: usize) -> bool {
        let same = |other: usize| other != index && self.keys[other] == self.keys[index];
        (0..self.states.len()).any(|other| same(other) && self.states[other] == Some(State::Running))
    }

    /// Which pool a node runs in: 0 for those without tensors, 1 for the device.
    fn pool(&self, index: usize) -> usize {
        usize::from(self.shared.graph.nodes[index].node.computes_tensors())
    }

    fn decided(&mut self, index: usize, decision: Result<(Decision, Witness<'env>), Failure>) {
        match decision {
            Ok((Decision::Hit(hit), _)) => self.hit(index, &hit),
            Ok((Decision::Run(task), files)) => {
                self.keys[index] = Some(task.key);
                self.signal(index, Signal::Missing);
                self.tasks.insert(index, (task, files));
            }
            Err(failure) => self.failed(index, failure),
        }
    }

    fn ended(&mut self, index: usize, ending: Ending) {
        match ending {
            Ending::Made(record, items) => {
                self.signal(index, Signal::Made);
                for (task, _) in self.tasks.values_mut().filter(|(task, _)| task.key == record.key) {
                    // What is made by force is made once.
                    task.forced = false;
                }
                let node = &self.shared.graph.nodes[index];
                let artifact = Artifact {
                    node: node.name.clone(),
                    kind: node.output,
                    content: record.content,
                    identity: record.identity.clone(),
                    side: record.side.clone(),
                };
                self.finish(index, How::Run, Some(&record), items, None);
                self.done(index, artifact);
            }
            Ending::Found => match self.keys[index].map(|key| self.shared.store.find(&key)) {
                Some(Found::Complete(entry)) => self.hit(index, &Hit { entry: *entry, remark: None }),
                // Found a moment ago and gone: as if it had never been looked up.
                _ => {
                    self.signal(index, Signal::Returned);
                    self.undecided.insert(index);
                }
            },
            Ending::Lost { objects, failure } => self.lost(index, &objects, failure),
            Ending::Failed(failure) => self.failed(index, failure),
            Ending::Interrupted => {
                self.stopping = true;
                self.signal(index, Signal::Skip);
                self.finish(index, How::Skipped, None, None, None);
            }
        }
    }

    fn hit(&mut self, index: usize, hit: &Hit) {
        let node = &self.shared.graph.nodes[index];
        self.signal(index, Signal::Found);
        self.keys[index] = Some(hit.entry.key);
        if let Some(remark) = &hit.remark {
            self.shared.telling.note(&node.name, remark.clone());
        }
        let items = hit.entry.items.map(|items| ItemCounts {
            done: 0,
            cached: items.total - items.skipped,
            skipped: items.skipped,
        });
        let record = self.shared.store.record(&hit.entry.key);
        self.finish(index, How::Hit, record.as_ref(), items, None);
        self.done(index, hit.artifact(node));
    }

    /// The result of `index` is there: nodes below get nearer.
    fn done(&mut self, index: usize, artifact: Artifact) {
        self.shared.pictures.add(&artifact);
        self.results[index] = Some(artifact);
        for below in self.below[index].clone() {
            if matches!(self.state(below), State::Waiting(_)) {
                self.signal(below, Signal::Input);
                if self.state(below) == State::Deciding {
                    self.undecided.insert(below);
                }
            }
        }
    }

    fn failed(&mut self, index: usize, failure: Failure) {
        self.signal(index, Signal::Fail);
        self.finish(index, How::Failed, None, None, Some(failure));
        self.stopping |= !self.shared.options.keep_going;
        let mut unreachable: Vec<usize> = self.below[index].iter().copied().collect();
        while let Some(below) = unreachable.pop() {
            if matches!(self.state(below), State::Waiting(_)) {
                self.signal(below, Signal::Skip);
                self.finish(below, How::Skipped, None, None, None);
                unreachable.extend(&self.below[below]);
            }
        }
    }

    /// Objects that `index` reads are lost: whoever made them makes them again, then `index` is looked up anew.
    fn lost(&mut self, index: usize, objects: &[Digest], failure: Failure) {
        let mut makers = BTreeSet::new();
        let mut above = self.above(index);
        while let Some(candidate) = above.pop_first() {
            let record = self.keys[candidate].and_then(|key| self.shared.store.record(&key));
            let makes =
                record.is_some_and(|record| record.objects.iter().any(|object| objects.contains(&object.digest)));
            if makes && matches!(self.state(candidate), State::Done(_)) {
                makers.insert(candidate);
            }
            above.extend(self.above(candidate));
        }
        let awaited = self.above(index).iter().any(|above| self.results[*above].is_none());
        if makers.is_empty() && !awaited || makers.iter().any(|maker| self.remade[*maker] >= REMAKES) {
            return self.failed(index, failure);
        }
        for maker in &makers {
            self.remade[*maker] += 1;
            let name = &self.shared.graph.nodes[*maker].name;
            self.shared.telling.note(name, format!("its result is made again: {failure}"));
            self.signal(*maker, Signal::Lost);
            self.results[*maker] = None;
        }
        for below in makers.iter().flat_map(|maker| self.below[*maker].clone()).collect::<Vec<_>>() {
            if matches!(self.state(below), State::Waiting(_) | State::Ready) {
                self.tasks.remove(&below);
                self.signal(below, Signal::InputLost);
            }
        }
        self.signal(index, Signal::Returned);
        for again in makers.into_iter().chain([index]) {
            for above in self.above(again) {
                if self.results[above].is_none() {
                    self.signal(again, Signal::InputLost);
                }
            }
            if self.state(again) == State::Deciding {
                self.undecided.insert(again);
            }
        }
    }

    fn above(&self, index: usize) -> BTreeSet<usize> {
        self.shared.graph.nodes[index].inputs.iter().flatten().copied().collect()
    }

    fn state(&self, index: usize) -> State {
        self.states[index].expect("only wanted nodes are looked at")
    }

    fn signal(&mut self, index: usize, signal: Signal) {
        self.states[index] = Some(self.state(index).after(signal));
    }

    /// Reports how a node ended.
    fn finish(
        &mut self,
        index: usize,
        how: How,
        record: Option<&Record>,
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
            content: record.map(|record| record.content.to_string()),
            items,
            seconds: self.clocks[index].map_or(0.0, |clock| clock.elapsed().as_secs_f64()),
            summary: record.map(|record| {
                let mut summary = record.summary.clone();
                summary.labels.extend(self.shared.graph.names(index));
                summary
            }),
            error: failure.map(|failure| failure.to_string()),
            help,
        };
        self.shared.telling.tell(Event::Finished {
            node: report.node.clone(),
            kind: report.kind.clone(),
            how,
            items,
            seconds: report.seconds,
            key: report.key.clone(),
            content: report.content.clone(),
            summary: report.summary.clone(),
            error: report.error.clone(),
            help: report.help.clone(),
        });
        self.reports[index] = Some(report);
    }
}
