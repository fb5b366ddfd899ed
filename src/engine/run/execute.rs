//! Executes one node, as a worker does: claims its key, runs it, publishes the result.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Options;
use super::context::{NodeContext, NodeObjects};
use super::external::External;
use super::interrupt::{Interrupt, NodeInterrupt};
use super::items::ItemRun;
use super::reporter::Reporter;
use crate::digest::Digest;
use crate::event::{Event, ItemCounts};
use crate::graph::{Graph, GraphNode};
use crate::node::{Failure, Inputs, Output, Part, Work};
use crate::plan::{Task, content};
use crate::store::{
    Claim, Claiming, Found, Owner, Provenance, Publication, Record, Scratch, Store, StoreError, StoredObject, Witness,
};

/// How long a node that waits for another process pauses between looks: at first, and at most.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];

/// How often the files that a running node has read are checked for changes, and the largest share of the time that
/// this may take, as its inverse.
const LOOK_AGAIN_EVERY: Duration = Duration::from_secs(1);
const LOOK_AGAIN_SHARE: u32 = 50;

/// What all nodes of a run have in common.
pub struct Shared<'a> {
    /// The pipeline.
    pub graph: &'a Graph,
    /// The cache.
    pub store: &'a Arc<Store>,
    /// How to run.
    pub options: &'a Options,
    /// The run's id.
    pub run: &'a str,
    /// Finds content by digest.
    pub external: &'a External,
    /// Set when the run is interrupted.
    pub interrupt: &'a Interrupt,
    /// By function key: the generation of items that forced nodes began in this run, over all attempts.
    pub generations: Mutex<HashMap<Digest, u32>>,
    /// Reports what happens.
    pub reporter: &'a Reporter<'a>,
}

/// How the work on a node ended.
pub enum Outcome {
    /// Its result was made.
    Made(Box<Record>, Option<ItemCounts>),
    /// Another process made its result meanwhile.
    Found,
    /// Objects that it reads turned out to be damaged or missing; `failure` is reported when nothing can make them
    /// again.
    Lost {
        /// The objects.
        objects: Vec<Digest>,
        /// The node's failure.
        failure: Failure,
    },
    /// It failed.
    Failed(Failure),
    /// It was stopped.
    Interrupted,
}

/// Executes `task`, and retries after transient failures, as often as the node or the run allows.
pub fn execute(shared: &Shared<'_>, task: &Task, slots: &[Value], files: &Witness<'_>) -> Outcome {
    let node = &shared.graph.nodes[task.index];
    let work = Execution { shared, task, slots, files, node };
    let retries = node.retries.unwrap_or(shared.options.retries);
    for attempt in 0u32.. {
        if attempt > 0 && shared.interrupt.is_set() {
            return Outcome::Interrupted;
        }
        match work.attempt() {
            Outcome::Failed(Failure::Environment { message, .. })
                if attempt < retries && !shared.interrupt.is_set() =>
            {
                let pause = shared.options.backoff.saturating_mul(2u32.pow(attempt.min(6)));
                let (number, all) = (u64::from(attempt) + 1, u64::from(retries) + 1);
                shared.reporter.note(
                    &node.name,
                    format!("attempt {number} of {all} failed, the next is in {:.1} s: {message}", pause.as_secs_f64()),
                );
                shared.pause(pause);
            }
            outcome => return outcome,
        }
    }
    unreachable!("the last attempt returns")
}

impl Shared<'_> {
    /// Sleeps, but not through an interrupt.
    fn pause(&self, length: Duration) {
        let end = Instant::now() + length;
        while !self.interrupt.is_set() && Instant::now() < end {
            std::thread::sleep((end - Instant::now()).min(Duration::from_millis(50)));
        }
    }
}

/// The work on one node.
struct Execution<'a> {
    shared: &'a Shared<'a>,
    task: &'a Task,
    slots: &'a [Value],
    files: &'a Witness<'a>,
    node: &'a GraphNode,
}

/// What a node made, before it is published.
struct Made {
    output: Output,
    counts: Option<ItemCounts>,
}

impl Execution<'_> {
    fn attempt(&self) -> Outcome {
        loop {
            let claim = match self.claim() {
                Ok(Some(claim)) => claim,
                Ok(None) => return Outcome::Found,
                Err(Failure::Interrupted) => return Outcome::Interrupted,
                Err(failure) => return Outcome::Failed(failure),
            };
            let outcome = self.attempt_under(&claim);
            // A cache that is gone is the cause of any other failure.
            if !matches!(outcome, Outcome::Made(..))
                && let Err(gone @ StoreError::Gone { .. }) = self.shared.store.check_there()
            {
                return Outcome::Failed(gone.into());
            }
            match &outcome {
                Outcome::Made(..) => {
                    // The result is published; a later run sweeps scratch that cannot be removed now.
                    let _ = self.shared.store.finish(claim);
                }
                // It failed after another process had taken over: wait for that one's result.
                Outcome::Failed(_) | Outcome::Interrupted
                    if !self.shared.interrupt.is_set()
                        && matches!(claim.verify(), Err(StoreError::ClaimLost { .. })) =>
                {
                    self.note("this process was unresponsive for a while, and another took over the node".to_owned());
                    continue;
                }
                _ => {}
            }
            return outcome;
        }
    }

    fn attempt_under(&self, claim: &Claim) -> Outcome {
        // Only under the claim: before, another process may have been making them again.
        if let Err(failure) = self.discard_lost() {
            return Outcome::Failed(failure);
        }
        let objects = Arc::new(NodeObjects::new(Arc::clone(self.shared.store)));
        if let Err(failure) = self.verify_inputs(&objects) {
            return Outcome::Lost { objects: objects.lost(), failure };
        }
        let (started, clock) = (crate::store::now(), Instant::now());
        let made = match self.make(claim, &objects) {
            Ok(made) => made,
            Err(failure) if !objects.lost().is_empty() => return Outcome::Lost { objects: objects.lost(), failure },
            Err(Failure::Interrupted) => return Outcome::Interrupted,
            Err(failure) => return Outcome::Failed(failure),
        };
        let counts = made.counts.filter(|_| self.node.node.maps_items());
        match self.publish(claim, made, started, clock.elapsed().as_secs_f64()) {
            Ok(record) => Outcome::Made(record, counts),
            Err(Failure::Interrupted) => Outcome::Interrupted,
            Err(failure) => Outcome::Failed(failure),
        }
    }

    /// Removes the damaged objects of an earlier result of the key.
    fn discard_lost(&self) -> Result<(), Failure> {
        if let Found::Incomplete(lost) = self.shared.store.find(&self.task.key)? {
            for digest in &lost {
                self.shared.store.discard_object(digest)?;
            }
        }
        Ok(())
    }

    /// The scratch for the work.
    fn scratch(&self) -> Scratch {
        if self.task.again { Scratch::Forced } else { Scratch::Ordinary }
    }

    /// The claim on the key; `None` when another process has made the result meanwhile.
    fn claim(&self) -> Result<Option<Claim>, Failure> {
        self.wait_for(&self.task.key, false, &|| {
            Ok(!self.task.again && matches!(self.shared.store.find(&self.task.key)?, Found::Complete(_)))
        })
    }

    /// The claim on items of `function_key`, which other nodes may have in common with this one: none is made twice.
    fn claim_items(&self, function_key: &Digest) -> Result<Claim, Failure> {
        let claim = self.wait_for(function_key, true, &|| Ok(false))?;
        Ok(claim.expect("nothing but the claim is waited for"))
    }

    /// Waits for the claim on `key`; `None` when `is_there` first.
    fn wait_for(
        &self,
        key: &Digest,
        items: bool,
        is_there: &dyn Fn() -> Result<bool, Failure>,
    ) -> Result<Option<Claim>, Failure> {
        let mut reported: Option<Owner> = None;
        let mut pause = LOOK_EVERY[0];
        loop {
            if is_there()? {
                return Ok(None);
            }
            match self.shared.store.claim(key)? {
                // It may have been published between the two looks.
                Claiming::Held(claim) => return Ok((!is_there()?).then_some(claim)),
                Claiming::Taken(owner) if reported.as_ref() == Some(&owner) => {}
                Claiming::Taken(owner) => {
                    let node = self.node.name.clone();
                    self.shared.reporter.report(Event::Waiting { node, owner: owner.to_string(), items });
                    reported = Some(owner);
                }
            }
            self.shared.pause(pause);
            pause = (pause * 2).min(LOOK_EVERY[1]);
            if self.shared.interrupt.is_set() {
                return Err(Failure::Interrupted);
            }
        }
    }

    /// Digests the parts of the inputs. For a hit their sizes are enough; what a node computes with is read.
    fn verify_inputs(&self, objects: &NodeObjects) -> Result<(), Failure> {
        let mut failure = None;
        for result in self.task.inputs.iter().flatten() {
            self.shared.external.add(result, self.shared.graph);
            for part in result.identity.iter().chain(&result.side) {
                if let Err(error) = self.shared.store.verify_object(&part.digest) {
                    objects.note_lost(&error);
                    failure.get_or_insert(error.into());
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Runs the node's own code; a panic in it is a failure of the node.
    fn make(&self, claim: &Claim, objects: &Arc<NodeObjects>) -> Result<Made, Failure> {
        let inputs = self.task.inputs(self.shared.graph, Arc::<NodeObjects>::clone(objects));
        let context = NodeContext {
            node: &self.node.name,
            seed: self.node.seed,
            pipeline_seed: self.node.pipeline_seed,
            slots: self.slots,
            objects: Arc::clone(objects),
            files: self.files,
            external: self.shared.external,
            claim,
            checkpoints: self.shared.store.checkpoints(claim, self.scratch())?,
            interrupt: NodeInterrupt::new(self.shared.interrupt, !self.node.node.maps_items()),
            halt: AtomicBool::new(false),
            reporter: self.shared.reporter,
            items: Mutex::default(),
            unavailable: Mutex::default(),
            left_out: Mutex::default(),
            progress: Mutex::default(),
        };
        let made = self.watching_files(&context, || {
            let made = catch_unwind(AssertUnwindSafe(|| self.run(&inputs, &context)));
            made.unwrap_or_else(|panic| Err(panicked(&*panic)))
        });
        if let Some(path) = self.files.changed() {
            return Err(has_changed(&path));
        }
        if self.files.was_stopped() {
            return Err(Failure::Interrupted);
        }
        // Without the content that it asked for, nothing that the node made is its result.
        context.unavailable().map_or(made, Err)
    }

    /// Does `work`, and checks now and then that the files that it has read are unchanged: an edit ends the node at
    /// once, not after hours of work.
    fn watching_files<T>(&self, context: &NodeContext<'_>, work: impl FnOnce() -> T) -> T {
        let (done, is_done) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut pause = LOOK_AGAIN_EVERY;
                while is_done.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                    let clock = Instant::now();
                    // What cannot be checked now is checked again, at the latest before publishing.
                    let _ = self.files.look_again();
                    if let Some(path) = self.files.changed() {
                        return context.halt(has_changed(&path));
                    }
                    pause = LOOK_AGAIN_EVERY.max(clock.elapsed() * LOOK_AGAIN_SHARE);
                }
            });
            let made = work();
            drop(done);
            made
        })
    }

    fn run(&self, inputs: &Inputs, context: &NodeContext<'_>) -> Result<Made, Failure> {
        let started = |remark: Option<String>| {
            let why = self.task.why.iter().cloned().chain(remark).collect();
            let (node, kind) = (self.node.name.clone(), self.node.kind.to_owned());
            self.shared.reporter.report(Event::Started { node, kind, why });
        };
        match (self.node.node.work(), self.task.function_key) {
            (Work::Items(work), Some(function_key)) => {
                let run = ItemRun {
                    work,
                    inputs,
                    context,
                    store: self.shared.store,
                    function_key,
                    accepted: &self.task.accepted,
                    alone: &|| self.claim_items(&function_key),
                    on_bad_item: self.node.node.on_bad_item(),
                    from_generation: self.generation(&function_key)?,
                };
                // One shard of all items.
                let items = run.items()?;
                let mapped = run.map(&items, 0..items.len(), |cached, total| {
                    started(ItemCounts { total, cached, ..ItemCounts::default() }.remark());
                })?;
                let output = run.collect(&items, &mapped.bad)?;
                Ok(Made { output, counts: Some(mapped.counts) })
            }
            (Work::Whole(work), _) => {
                started(None);
                Ok(Made { output: work.run(inputs, context)?, counts: context.left_out() })
            }
            (Work::Items(_), None) => unreachable!("a node that maps items has a function key"),
        }
    }

    /// The generation from which on items count as finished: any, or with force a new one, which nodes of the run that
    /// have items in common share.
    fn generation(&self, function_key: &Digest) -> Result<u32, Failure> {
        if !self.task.forced {
            return Ok(0);
        }
        let mut generations = self.shared.generations.lock().expect("no panic under the lock");
        let generation = match generations.get(function_key) {
            Some(generation) => *generation,
            None => self.shared.store.items(function_key)?.generation() + 1,
        };
        generations.insert(*function_key, generation);
        Ok(generation)
    }

    fn publish(&self, claim: &Claim, made: Made, started: String, seconds: f64) -> Result<Box<Record>, Failure> {
        let store = self.shared.store;
        self.files.look_again().map_err(|(path, cause)| match self.files.was_stopped() {
            true => Failure::Interrupted,
            false => Failure::io(&path, &cause),
        })?;
        if let Some(path) = self.files.changed() {
            return Err(has_changed(&path));
        }
        let earlier = store.record(&self.task.key)?;
        let mut record = self.record(claim, made, started, seconds)?;
        let content = record.content;
        let differs = earlier.as_ref().is_some_and(|earlier| earlier.content != content);
        if let Some(earlier) = &earlier {
            // Remaking what was lost begins no generation.
            record.generation = earlier.generation;
            record.provenance.superseded = earlier.provenance.superseded.clone();
        }
        if let (true, Some(earlier)) = (self.task.forced, earlier.as_ref()) {
            record.generation += 1;
            record.provenance.superseded.push(earlier.content);
            store.supersede(claim, &record)?;
            self.note(if differs {
                let (old, new) = (earlier.content.short(), content.short());
                format!("recomputed by `--force`, with a different result: content {old} → {new}")
            } else {
                "recomputed by `--force`, with the same result".to_owned()
            });
            return Ok(record);
        }
        // Fewer items are bad than before.
        if let Some(earlier) = earlier.as_ref().filter(|earlier| skipped(earlier) > skipped(&record)) {
            record.generation += 1;
            record.provenance.superseded.push(earlier.content);
            store.supersede(claim, &record)?;
            return Ok(record);
        }
        match store.publish(claim, &record)? {
            Publication::Published => {
                if let Some(earlier) = earlier.filter(|_| differs) {
                    self.note(self.not_deterministic(&earlier, &record));
                }
                Ok(record)
            }
            Publication::Agreed(first) => Ok(first),
            Publication::Differs(first) => {
                self.note(format!("{}\nthe earlier one stays", self.not_deterministic(&first, &record)));
                Ok(first)
            }
        }
    }

    /// The record of what was made, of the first generation.
    fn record(&self, claim: &Claim, made: Made, started: String, seconds: f64) -> Result<Box<Record>, Failure> {
        let Made { output, counts } = made;
        let objects = self.objects_of(&output)?;
        Ok(Box::new(Record {
            key: self.task.key,
            generation: 1,
            kind: self.node.kind.to_owned(),
            artifact: self.node.output.name.to_owned(),
            fields: self.task.fields.clone(),
            function_key: self.task.function_key,
            items: counts,
            content: content(self.node.output, &output.identity),
            identity: output.identity,
            side: output.side,
            objects,
            summary: output.summary,
            provenance: Provenance {
                stic: env!("CARGO_PKG_VERSION").to_owned(),
                pipeline: self.shared.graph.name.clone(),
                node: self.node.name.clone(),
                run: self.shared.run.to_owned(),
                host: Owner::this_process().host.clone(),
                slots: match self.slots {
                    [] => Value::Null,
                    [one] => one.clone(),
                    several => several.into(),
                },
                started,
                finished: crate::store::now(),
                seconds,
                superseded: Vec::new(),
                scratch: Some(claim.scratch_name(self.scratch())),
            },
        }))
    }

    /// All objects that `output` names, its parts first, each once, with their sizes.
    fn objects_of(&self, output: &Output) -> Result<Vec<StoredObject>, Failure> {
        let parts = output.identity.iter().chain(&output.side).map(|Part { digest, .. }| *digest);
        let mut more = output.objects.clone();
        more.sort();
        more.dedup();
        let named = parts.chain(more).map(|digest| {
            // The next attempt recomputes what is missing by then.
            let size = self.shared.store.object_size(&digest)?.ok_or(StoreError::MissingObject { digest })?;
            Ok(StoredObject { digest, size })
        });
        named.collect()
    }

    /// That an earlier result of the key is another, and in what.
    fn not_deterministic(&self, earlier: &Record, record: &Record) -> String {
        let (old, new) = (earlier.content.short(), record.content.short());
        let message =
            format!("not deterministic: an earlier result of the same key had the content {old}, this one has {new}");
        let lines = super::difference::lines(&earlier.identity, &record.identity, self.shared.store);
        std::iter::once(message).chain(lines).collect::<Vec<_>>().join("\n")
    }

    fn note(&self, text: String) {
        self.shared.reporter.note(&self.node.name, text);
    }
}

/// How many items were left out of a result.
fn skipped(record: &Record) -> usize {
    record.items.map_or(0, |items| items.skipped)
}

/// The failure of a node whose file changed while it ran.
pub fn has_changed(path: &Path) -> Failure {
    if matches!(path.try_exists(), Ok(false)) {
        return Failure::node(format!("`{}` was removed while the node was running", path.display()))
            .help("restore it and run again");
    }
    Failure::node(format!("`{}` changed while the node was running", path.display()))
        .help("run again to recompute what the change affects")
}

/// The failure of a node whose code panicked.
pub fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
    Failure::node(format!("panicked: {}", message.unwrap_or_else(|| "without a message".to_owned())))
        .help("this is a mistake in the program; please report it with the pipeline file")
}
