//! What would run, and why.
//!
//! A node whose inputs are known has a key; a complete record of that key is a hit, anything else runs. A node below
//! one that runs awaits it: its inputs may come out as they were (early cutoff), which cannot be known in advance.
//!
//! Its work is linear in nodes and items.

mod earlier;
mod key;
mod why;

use earlier::Earlier;
use key::ACCEPTED;
pub use key::{Determinants, NUMERICS, OfItems, OfNode, content};
use why::accepting;
pub use why::{Change, Words, changes, sentences};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::diagnostic::counted;
use crate::digest::{Digest, Value};
use crate::event::{ItemCounts, State};
use crate::graph::{Graph, GraphNode};
use crate::node::{Artifact, Failure, FileDigests, Inputs, Objects, Part, Work};
use crate::pool::{Machine, Pool, Pools, Slots, Unmet};
use crate::store::{Entry, Found, Items, Record, Store};

/// Options of a plan.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The nodes that are wanted, as indices; empty: all.
    pub targets: Vec<usize>,
    /// Nodes that run even if their results are cached.
    pub force: BTreeSet<usize>,
    /// Numerics classes whose results are used as they are, beside those that the pipeline names.
    pub accept_numerics: Vec<String>,
    /// Whether a node that has no earlier result is compared with what it may have been: nodes of its name in other
    /// pipelines, nodes of its kind that are gone. And whether sources are compared however large they are.
    pub thorough: bool,
}

/// What is to happen to a node, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodePlan {
    /// The node.
    pub node: String,
    /// Its kind.
    pub kind: String,
    /// What happens.
    pub state: State,
    /// Why, a reason each.
    pub why: Vec<String>,
    /// Its items, for kinds that map items, where they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<ItemCounts>,
    /// The key of its result, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// The values of the axes that it depends on, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub axes: BTreeMap<String, String>,
    /// Whether it is frozen.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
}

/// What the pipeline asks of a pool cannot be had.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageError {
    /// The pool.
    pub pool: &'static str,
    /// The node that asks for it beside the pipeline, by index.
    pub node: Option<usize>,
    /// Why, and what would do.
    pub unmet: Unmet,
}

/// Opens the pools that `targets` of `graph` and all that they need occupy.
///
/// # Errors
/// All that cannot be had, and why.
pub fn open(graph: &Graph, targets: &[usize], machine: &dyn Machine) -> Result<Pools, Vec<UsageError>> {
    let mut pools = Pools::new();
    let mut met: Vec<(&'static str, serde_json::Value, Result<Pool, Unmet>)> = Vec::new();
    let mut errors = Vec::new();
    let needed = graph.needed(targets);
    for (index, node) in graph.nodes.iter().enumerate().filter(|(index, node)| needed[*index] && !node.frozen) {
        let Some(Slots { pool: name, count, asked: own }) = node.node.resources() else { continue };
        let place = (!own.is_null()).then_some(index);
        let error = |unmet| UsageError { pool: name, node: place, unmet };
        let known = met.iter().position(|(pool, asked, _)| *pool == name && *asked == own);
        let found = match known {
            Some(known) => met[known].2.clone(),
            None => {
                let asked = graph.pool(name).map(|request| request.asked.clone()).unwrap_or_default();
                let found = machine.pool(name, &asked, &own);
                errors.extend(found.clone().err().map(error));
                met.push((name, own, found.clone()));
                found
            }
        };
        let Ok(pool) = found else { continue };
        if count > pool.slots.len() {
            let all = pool.slots.len();
            let message = format!("`{}` needs {count} slots of `{name}`, which has {all}", node.name);
            errors.push(error(Unmet { message, help: None }));
            continue;
        }
        pools.insert(index, name, pool);
    }
    if errors.is_empty() { Ok(pools) } else { Err(errors) }
}

/// Plans what is wanted of `graph`, with the pools that it occupies.
///
/// # Errors
/// The node whose sources or inputs cannot be read, and why.
pub fn plan(
    graph: &Graph,
    store: &Arc<Store>,
    digests: &dyn FileDigests,
    pools: &Pools,
    options: &Options,
) -> Result<Vec<NodePlan>, (String, Failure)> {
    let planner = Planner::new(graph, pools, options);
    loop {
        match attempt(&planner, store, digests) {
            Ok(nodes) => return Ok(nodes),
            // What was read turned out to be damaged and counts as missing now: whoever made it is to run. There are
            // fewer hits then, so this ends.
            Err(Stopped { hits, .. }) if hits.iter().any(|key| is_gone(key, store)) => {}
            Err(Stopped { error, .. }) => return Err(error),
        }
    }
}

fn is_gone(key: &Digest, store: &Arc<Store>) -> bool {
    matches!(store.find(key), Ok(Found::Incomplete(_) | Found::Nothing))
}

/// A plan that could not be made.
struct Stopped {
    /// The keys that were found in the cache so far.
    hits: Vec<Digest>,
    /// The node that could not be planned, and why.
    error: (String, Failure),
}

fn attempt(planner: &Planner<'_>, store: &Arc<Store>, digests: &dyn FileDigests) -> Result<Vec<NodePlan>, Stopped> {
    let graph = planner.graph;
    let mut hits = Vec::new();
    let mut results: Vec<Option<StoredResult>> = graph.nodes.iter().map(|_| None).collect();
    let mut nodes = Vec::new();
    for index in planner.wanted() {
        let node = &graph.nodes[index];
        let failed = |failure, hits: &Vec<Digest>| Stopped { hits: hits.clone(), error: (node.name.clone(), failure) };
        let planned = |state, why, items, key| NodePlan {
            node: node.name.clone(),
            kind: node.kind.to_owned(),
            state,
            why,
            items,
            key,
            axes: node.axis_values(),
            frozen: node.frozen,
        };
        let Some(inputs) = planner.inputs(index, &results) else {
            let above = node.needs().iter().flatten().filter(|above| results[**above].is_none());
            let names: BTreeSet<String> = above.map(|above| format!("`{}`", graph.nodes[*above].name)).collect();
            let why = format!("awaits {}", names.into_iter().collect::<Vec<_>>().join(", "));
            nodes.push(planned(State::Awaits, vec![why], None, None));
            continue;
        };
        match planner.decide(index, inputs, store, digests).map_err(|failure| failed(failure, &hits))? {
            Decision::Hit(hit) => {
                let items = hit.entry.items.filter(|_| node.node.maps_items());
                let items = items.map(|items| ItemCounts { cached: items.total, done: 0, ..items });
                nodes.push(planned(State::Hit, hit.remark.clone().into_iter().collect(), items, Some(hit.entry.key)));
                hits.push(hit.entry.key);
                results[index] = Some(hit.result(index));
            }
            Decision::Run(mut task) => {
                let items = planner.count_items(&task, store, digests).map_err(|failure| failed(failure, &hits))?;
                task.why.extend(items.and_then(|items| items.remark()));
                nodes.push(planned(State::Run, task.why, items, Some(task.key)));
            }
        }
    }
    Ok(nodes)
}

/// Decides node by node; the plan and the run ask the same one, so that a dry run is what a run does.
pub struct Planner<'a> {
    graph: &'a Graph,
    options: &'a Options,
    pools: &'a Pools,
    wanted: Vec<bool>,
    earlier: Earlier<'a>,
}

/// A result of a node of the graph, by digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredResult {
    /// The index of the node.
    pub node: usize,
    /// The digest of its identity parts.
    pub content: Digest,
    /// The parts that are its identity.
    pub identity: Vec<Part>,
    /// The parts that are not.
    pub side: Vec<Part>,
}

impl StoredResult {
    /// The result of the node `node` that `record` is about.
    pub fn of(node: usize, record: &Record) -> Self {
        let Record { content, identity, side, .. } = record;
        Self { node, content: *content, identity: identity.clone(), side: side.clone() }
    }

    /// The result, as the nodes of `graph` see it that read it.
    pub fn artifact(&self, graph: &Graph) -> Artifact {
        let GraphNode { name, output, .. } = &graph.nodes[self.node];
        let Self { content, identity, side, .. } = self.clone();
        Artifact { node: name.clone(), kind: *output, content, identity, side }
    }
}

/// What comes into a node: the results for each of its ports, in their order.
pub type PortResults = Vec<Vec<StoredResult>>;

/// The same as the node `index` of `graph` reads it, out of `objects`.
fn inputs(graph: &Graph, index: usize, results: &PortResults, objects: Arc<dyn Objects>) -> Inputs {
    let artifacts = |results: &Vec<StoredResult>| results.iter().map(|result| result.artifact(graph)).collect();
    let ports = graph.nodes[index].ports.iter().zip(results);
    Inputs::new(ports.map(|(port, results)| (port.name, artifacts(results))).collect(), objects)
}

/// The decision on a node, once its inputs are known.
pub enum Decision {
    /// Its result is cached.
    Hit(Box<Hit>),
    /// It has to run.
    Run(Box<Task>),
}

/// A cached result.
pub struct Hit {
    /// Its record.
    pub entry: Entry,
    /// A note on it: that it is used in place of another numerics class's.
    pub remark: Option<String>,
}

/// A node that has to run, as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Which.
    pub index: usize,
    /// What comes in.
    pub inputs: PortResults,
    /// The key of its result.
    pub key: Digest,
    /// The fields of that key.
    pub fields: Vec<(String, Value)>,
    /// The key that its items share.
    pub function_key: Option<Digest>,
    /// Whether all of it is recomputed, including finished items.
    pub forced: bool,
    /// Whether it runs although its result is cached: by force, or because more items were skipped than the node
    /// allows.
    pub again: bool,
    /// Other numerics classes whose items it takes.
    pub accepted: Vec<Accepted>,
    /// Why it runs.
    pub why: Vec<String>,
    /// Objects of an earlier result that are missing or damaged: no finished item is believed that names one.
    pub lost: Vec<Digest>,
}

/// A numerics class some of whose items are used in place of another's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The class.
    pub class: String,
    /// The key that its items share.
    pub function_key: Digest,
    /// How many there are that the other class has not.
    pub count: usize,
}

impl Hit {
    /// The result of the node `node`.
    pub fn result(&self, node: usize) -> StoredResult {
        let Entry { content, identity, side, .. } = self.entry.clone();
        StoredResult { node, content, identity, side }
    }
}

impl Task {
    /// What the node reads.
    pub fn inputs(&self, graph: &Graph, objects: Arc<dyn Objects>) -> Inputs {
        inputs(graph, self.index, &self.inputs, objects)
    }
}

impl<'a> Planner<'a> {
    /// A planner for what `options` want of `graph`.
    pub fn new(graph: &'a Graph, pools: &'a Pools, options: &'a Options) -> Self {
        let wanted = graph.needed(&options.targets);
        Self { graph, options, pools, wanted, earlier: Earlier::new(graph, options.thorough) }
    }

    /// The pools that the wanted nodes occupy.
    pub fn pools(&self) -> &'a Pools {
        self.pools
    }

    /// The wanted nodes and all that they need, each after its inputs.
    pub fn wanted(&self) -> impl Iterator<Item = usize> + '_ {
        self.wanted.iter().enumerate().filter_map(|(index, wanted)| wanted.then_some(index))
    }

    /// What comes into the node `index`, when all of it is in `results`.
    pub fn inputs(&self, index: usize, results: &[Option<StoredResult>]) -> Option<PortResults> {
        let of_port = |above: &Vec<usize>| above.iter().map(|above| results[*above].clone()).collect();
        self.graph.nodes[index].needs().iter().map(of_port).collect()
    }

    /// Decides about the node `index`, whose inputs are `inputs`.
    ///
    /// # Errors
    /// When what its parameters name cannot be read.
    pub fn decide(
        &self,
        index: usize,
        inputs: PortResults,
        store: &Arc<Store>,
        digests: &dyn FileDigests,
    ) -> Result<Decision, Failure> {
        let node = &self.graph.nodes[index];
        if node.frozen {
            return self.frozen(node, store, digests);
        }
        let sources = node.node.sources(digests)?;
        let numerics = self.pools.of(index).map(|pool| pool.class.as_str());
        let own =
            Determinants { node, pipeline_seed: node.pipeline_seed, inputs: &inputs, sources: &sources, numerics };
        let key = own.key();
        let forced = self.options.force.contains(&index);
        let mut found = if forced { Found::Nothing } else { store.find(&key)? };
        if let Found::Complete(entry) = found {
            if is_sound(&entry, node) {
                return Ok(Decision::Hit(Box::new(Hit { entry: *entry, remark: None })));
            }
            found = Found::Complete(entry);
        }
        let fields = own.fields();
        let (mut why, lost, again) = match found {
            _ if forced => (vec!["forced".to_owned()], Vec::new(), true),
            Found::Complete(entry) => (vec![left_out_in_words(&entry, node)], Vec::new(), true),
            Found::Incomplete(lost) => (vec![lost_in_words(&lost, store)?], lost, false),
            Found::Nothing => (self.earlier.why(node, &fields, store, digests)?, Vec::new(), false),
        };
        if !again && store.is_unfinished(&key)? {
            why.push("resumes unfinished work".to_owned());
        }
        let (function_key, accepted) = (own.function_key(), Vec::new());
        let mut task =
            Task { index, inputs: Vec::new(), key, fields, function_key, forced, again, accepted, why, lost };
        if let (Some(class), false) = (numerics, again) {
            if let Some(hit) = self.accept(&own, class, &mut task, store, digests)? {
                return Ok(Decision::Hit(Box::new(hit)));
            }
            self.offer(&own, class, &mut task, store, digests)?;
        }
        task.inputs = inputs;
        Ok(Decision::Run(Box::new(task)))
    }

    /// The latest result of a frozen node that is complete: that of the last run, or else the newest.
    fn frozen(&self, node: &GraphNode, store: &Arc<Store>, digests: &dyn FileDigests) -> Result<Decision, Failure> {
        for entry in self.earlier.own(node, store)? {
            if entry.kind == node.kind
                && let Found::Complete(entry) = store.find(&entry.key)?
            {
                let mut remark = format!("frozen: the result of {}", entry.finished);
                let changed = self.earlier.not_applied(node, &entry, store, digests)?;
                if !changed.is_empty() {
                    remark += &format!("; not applied: {}", changed.join("; "));
                }
                return Ok(Decision::Hit(Box::new(Hit { entry: *entry, remark: Some(remark) })));
            }
        }
        let message = format!("`{}` is frozen, but the cache has no result of it", node.name);
        let help = Some(
            "remove `freeze` and run it once; a node is found by the names of its pipeline and its own".to_owned(),
        );
        Err(Failure::Node { message, help })
    }

    /// Uses what other numerics classes made in place of `class`, where the pipeline or the run accepts it: a result as
    /// it is, or items, in `task`.
    fn accept(
        &self,
        own: &Determinants<'_>,
        class: &str,
        task: &mut Task,
        store: &Arc<Store>,
        digests: &dyn FileDigests,
    ) -> Result<Option<Hit>, Failure> {
        let node = own.node;
        let others = self.accepted_classes(node, class);
        let under = |class| Determinants { numerics: Some(class), ..*own };
        for other in &others {
            if let Found::Complete(entry) = store.find(&under(other).key())?
                && is_sound(&entry, node)
            {
                let remark = Some(format!("a result of {other}, accepted in place of {class}"));
                return Ok(Some(Hit { entry: *entry, remark }));
            }
        }
        let journals = others.into_iter().filter_map(|other| Some((other, under(other).function_key()?)));
        task.accepted = self.accepted(task.index, own.inputs, task.function_key, journals.collect(), store, digests)?;
        if task.accepted.is_empty() {
            return Ok(None);
        }
        // A result of its own: whoever accepts no other class is not to find it.
        let names: Vec<&str> = task.accepted.iter().map(|other| other.class.as_str()).collect();
        let names = names.join(", ");
        let mixed = format!("{class}{ACCEPTED}{names}");
        let mixed = under(&mixed);
        (task.key, task.fields) = (mixed.key(), mixed.fields());
        match store.find(&task.key)? {
            Found::Complete(entry) if is_sound(&entry, node) => {
                let remark = Some(format!("with items of {names}, accepted in place of {class}"));
                return Ok(Some(Hit { entry: *entry, remark }));
            }
            Found::Complete(_) => task.again = true,
            Found::Incomplete(objects) => task.lost = objects,
            Found::Nothing => {}
        }
        task.why.extend(task.accepted.iter().map(|Accepted { class: other, count, .. }| {
            format!("{} of {other} accepted in place of {class}", counted(*count, "item"))
        }));
        Ok(None)
    }

    /// The numerics classes beside `class` whose results `node` uses as they are.
    fn accepted_classes(&self, node: &GraphNode, class: &str) -> BTreeSet<&'a String> {
        let request = node.node.resources().and_then(|slots| self.graph.pool(slots.pool));
        let others = request.into_iter().flat_map(|request| &request.accept_numerics);
        others.chain(&self.options.accept_numerics).filter(|other| *other != class).collect()
    }

    /// Says in `task` what the cache has of numerics classes that nobody accepts in place of `class`.
    fn offer(
        &self,
        own: &Determinants<'_>,
        class: &str,
        task: &mut Task,
        store: &Arc<Store>,
        digests: &dyn FileDigests,
    ) -> Result<(), Failure> {
        let node = own.node;
        let pool = node.node.resources().map_or("", |slots| slots.pool);
        let accepted = self.accepted_classes(node, class);
        let others: Vec<String> = self.graph.classes(pool);
        let others = others.iter().filter(|other| *other != class && !accepted.contains(other));
        let under = |class| Determinants { numerics: Some(class), ..*own };
        let (mut complete, mut journals) = (Vec::new(), Vec::new());
        for other in others {
            if let Found::Complete(entry) = store.find(&under(other).key())?
                && is_sound(&entry, node)
            {
                complete.push(other.as_str());
            }
            journals.extend(under(other).function_key().map(|key| (other, key)));
        }
        if !complete.is_empty() {
            let (classes, accept) = (complete.join(", "), accepting(complete.iter().copied(), pool));
            task.why.clear();
            task.why.push(format!(
                "only the numerics class differs: {classes} → {class} (the earlier result is used with {accept})"
            ));
            return Ok(());
        }
        let finished = self.accepted(task.index, own.inputs, task.function_key, journals, store, digests)?;
        task.why.extend(finished.iter().map(|Accepted { class: other, count, .. }| {
            let items = counted(*count, "item");
            let are = if *count == 1 { "is" } else { "are" };
            format!(
                "{items} of {other} {are} finished, and used with {}",
                accepting([other.as_str()].into_iter(), pool)
            )
        }));
        Ok(())
    }

    /// Which of `journals`, of other numerics classes, have items that the node's own journal has not.
    fn accepted(
        &self,
        index: usize,
        results: &PortResults,
        function_key: Option<Digest>,
        journals: Vec<(&String, Digest)>,
        store: &Arc<Store>,
        digests: &dyn FileDigests,
    ) -> Result<Vec<Accepted>, Failure> {
        let (Work::Items(work), Some(function_key)) = (self.graph.nodes[index].node.work(), function_key) else {
            return Ok(Vec::new());
        };
        let read = |(class, key)| Ok((class, key, store.items(&key)?));
        let mut journals: Vec<(&String, Digest, Items)> =
            journals.into_iter().map(read).collect::<Result<_, Failure>>()?;
        journals.retain(|(_, _, items)| !items.is_empty());
        if journals.is_empty() {
            return Ok(Vec::new());
        }
        let own = store.items(&function_key)?;
        let inputs = inputs(self.graph, index, results, objects(store));
        let items = work.items(&inputs, self.graph.nodes[index].pipeline_seed, digests)?;
        let has = |journal: &Items, item| journal.is_usable(item, |objects| store.has_objects(objects));
        let mut counts = vec![0; journals.len()];
        for item in &items {
            if has(&own, item)? {
                continue;
            }
            for (count, (_, _, journal)) in counts.iter_mut().zip(&journals) {
                if has(journal, item)? {
                    *count += 1;
                    break;
                }
            }
        }
        let accepted = std::iter::zip(journals, counts).filter(|(_, count)| *count > 0);
        let accepted =
            accepted.map(|((class, function_key, _), count)| Accepted { class: class.clone(), function_key, count });
        Ok(accepted.collect())
    }

    /// How many items a task has and how many of them are finished; `None` for kinds that do not map items.
    fn count_items(
        &self,
        task: &Task,
        store: &Arc<Store>,
        digests: &dyn FileDigests,
    ) -> Result<Option<ItemCounts>, Failure> {
        let node = &self.graph.nodes[task.index];
        let (Work::Items(work), Some(function_key)) = (node.node.work(), task.function_key) else { return Ok(None) };
        let items = work.items(&task.inputs(self.graph, objects(store)), node.pipeline_seed, digests)?;
        let finished = if task.forced { Items::default() } else { store.items(&function_key)? };
        let are_there = |objects: &[Digest]| -> Result<bool, Failure> {
            Ok(!objects.iter().any(|object| task.lost.contains(object)) && store.has_objects(objects)?)
        };
        let mut cached = task.accepted.iter().map(|other| other.count).sum::<usize>();
        for item in &items {
            cached += usize::from(finished.is_usable(item, are_there)?);
        }
        Ok(Some(ItemCounts { total: items.len(), cached, ..ItemCounts::default() }))
    }
}

/// Whether no more items were left out of a result than `node` allows.
fn is_sound(entry: &Entry, node: &GraphNode) -> bool {
    entry.items.is_none_or(|items| node.node.on_bad_item().allows(items.skipped, items.total))
}

/// `1 object of its result is missing from the cache, and 2 damaged`.
fn lost_in_words(lost: &[Digest], store: &Arc<Store>) -> Result<String, Failure> {
    let mut damaged = 0;
    for digest in lost {
        damaged += usize::from(store.lies_damaged(digest)?);
    }
    let count = |count: usize| match count {
        1 => "1 object of its result is".to_owned(),
        count => format!("{count} objects of its result are"),
    };
    Ok(match (lost.len() - damaged, damaged) {
        (missing, 0) => format!("{} missing from the cache", count(missing)),
        (0, damaged) => format!("{} damaged in the cache", count(damaged)),
        (missing, damaged) => format!("{} missing from the cache, and {damaged} damaged", count(missing)),
    })
}

/// `3 of 40 items were left out of its result, and at most 1 % of the items may be skipped`.
fn left_out_in_words(entry: &Entry, node: &GraphNode) -> String {
    let (skipped, total) = entry.items.map_or((0, 0), |items| (items.skipped, items.total));
    let were = if skipped == 1 { "was" } else { "were" };
    format!(
        "{skipped} of {} {were} left out of its result, and {}",
        counted(total, "item"),
        node.node.on_bad_item().reported()
    )
}

fn objects(store: &Arc<Store>) -> Arc<dyn Objects> {
    Arc::<Store>::clone(store)
}
