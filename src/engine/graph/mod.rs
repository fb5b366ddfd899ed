//! Pipeline → graph: names become nodes, inputs edges, and the nodes an order.
//!
//! Every mistake of the file is found here or in `spec`, all of them in one go; a [`Graph`] has none. This module does
//! no input or output.

mod assemble;
mod draw;
mod join;
mod mistake;
mod order;
mod sweep;
#[cfg(test)]
pub(crate) mod toy;

pub use draw::{dot, mermaid};
pub use sweep::AxisValue;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use self::join::Joining;
use crate::artifact::ArtifactKind;
use crate::diagnostic::Diagnostic;
use crate::node::{FileProblem, Kinds, Node, Port};
use crate::spec::parameter::{Declaration, left_out};
use crate::spec::syntax::{Syntax, Table};
use crate::spec::{Named, Pipeline, PoolKind, PoolRequest, Written};

/// A pipeline without mistakes.
pub struct Graph {
    /// Its name.
    pub name: String,
    /// Its seed.
    pub seed: u64,
    /// What it asks of the program's pools.
    pub pools: Vec<(PoolKind, PoolRequest)>,
    /// The nodes whose samples a run shows; `None` leaves it to the program.
    pub show: Option<Vec<String>>,
    /// The size of the cache, in bytes, above which a run evicts results.
    pub max_cache: Option<u64>,
    /// Its nodes, each after its inputs; where that leaves a choice, in the order of the file.
    pub nodes: Vec<GraphNode>,
    /// The indices of the nodes, in the order of their names.
    by_name: Vec<usize>,
    root: Table,
}

/// A node of a graph.
#[derive(Clone)]
pub struct GraphNode {
    /// Its name. An instance of a node is called `NODE[AXIS=VALUE]`, an imported file `NODE.PORT`.
    pub name: String,
    /// The name of the node that it is an instance of, or that imports it.
    pub table: String,
    /// The values of the axes that it depends on, by which the instances of a node differ.
    pub axes: Vec<AxisValue>,
    /// The name of its kind.
    pub kind: &'static str,
    /// The version of its kind.
    pub version: u32,
    /// The inputs of its kind.
    pub ports: &'static [Port],
    /// What it makes.
    pub output: ArtifactKind,
    /// Its parameters, as its kind declares them.
    declared: Arc<[Declaration]>,
    /// Its parameters and its work.
    pub node: Arc<dyn Node>,
    /// Its own seed: `seed` of its table, otherwise the pipeline's.
    pub seed: u64,
    /// The pipeline's seed: see [`SeedUse::pipeline`](crate::node::SeedUse::pipeline).
    pub pipeline_seed: u64,
    /// How often it is retried after a transient failure; `None` leaves it to the run.
    pub retries: Option<u32>,
    /// Whether it takes the latest result that the cache has, and never runs. What it would take is not needed then.
    pub frozen: bool,
    /// Indices into [`Graph::nodes`], by port, in the order of `ports`.
    pub inputs: Vec<Vec<usize>>,
    /// Whether it is an imported file, not a table of the pipeline file.
    pub imported: bool,
    parameters: Arc<Table>,
}

impl GraphNode {
    /// What it needs: by port, indices into [`Graph::nodes`].
    pub fn needs(&self) -> &[Vec<usize>] {
        if self.frozen { &[] } else { &self.inputs }
    }

    /// The values of its axes, by their names.
    pub fn axis_values(&self) -> BTreeMap<String, String> {
        self.axes.iter().map(|value| (value.axis.clone(), value.value.clone())).collect()
    }

    /// Its name without seeds: the same for nodes that differ by these alone.
    pub fn name_without_seeds(&self) -> String {
        if !self.axes.iter().any(|value| value.is_seed) {
            return self.name.clone();
        }
        let values: Vec<AxisValue> = self.axes.iter().filter(|value| !value.is_seed).cloned().collect();
        sweep::name(&self.table, &values)
    }

    /// What it means that `parameter` is not in the node's key, in words.
    pub fn left_out(&self, parameter: &str) -> Option<String> {
        self.node.left_out(parameter).or_else(|| left_out(&self.declared, parameter))
    }

    /// What the pipeline file writes for a parameter, where that is a string.
    pub fn written(&self, parameter: &str) -> Option<String> {
        match &self.parameters.get(parameter)?.value.value {
            Syntax::String(text) => Some(text.clone()),
            _ => None,
        }
    }
}

impl Graph {
    /// Reads the text of a pipeline in `folder` that includes no files; `default_name` is for one that gives no name.
    ///
    /// # Errors
    /// All mistakes of the file.
    pub fn read(text: &str, default_name: &str, folder: &Path, kinds: &Kinds) -> Result<Self, Rejected> {
        let path = folder.join(default_name);
        Self::of(Written::read(&path, text, &(), &[], &kinds.declared()), default_name, kinds)
    }

    /// The graph of a pipeline as it is written; `default_name` is for one that gives no name.
    ///
    /// # Errors
    /// All mistakes of its files and settings.
    pub fn of(written: Written, default_name: &str, kinds: &Kinds) -> Result<Self, Rejected> {
        let (pipeline, mistakes) = Pipeline::read(written, default_name, &kinds.declared());
        let Some(pipeline) = pipeline else {
            return Err(Rejected { mistakes: mistakes.into_list(), ..Rejected::default() });
        };
        let result = Joining::new(&pipeline, kinds, &mistakes).graph();
        result.map_err(|(nodes, unread)| Rejected {
            mistakes: mistakes.into_list(),
            nodes,
            unread,
            root: pipeline.root,
        })
    }

    /// The index of the node called `name`.
    pub fn find(&self, name: &str) -> Option<usize> {
        let found = self.by_name.binary_search_by(|index| self.nodes[*index].name.as_str().cmp(name));
        found.ok().map(|place| self.by_name[place])
    }

    /// The indices of the nodes that `written` names: a node or one of its instances, all instances of a node, or those
    /// with the values that it gives for some axes.
    pub fn select(&self, written: &str) -> Vec<usize> {
        if let Some(index) = self.find(written) {
            return vec![index];
        }
        let (table, wanted) = sweep::selection(written).unwrap_or((written, Vec::new()));
        let selected = |node: &GraphNode| !node.imported && node.table == table && sweep::matches(&node.axes, &wanted);
        (0..self.nodes.len()).filter(|index| selected(&self.nodes[*index])).collect()
    }

    /// What the file calls the things that the node at `index` uses: [`Node::names`].
    pub fn names(&self, index: usize) -> BTreeMap<String, String> {
        let node = &self.nodes[index];
        node.node.names(&|port| {
            let connected = node.ports.iter().zip(&node.inputs).filter(|(known, _)| known.name == port);
            connected.flat_map(|(_, inputs)| inputs).map(|above| self.nodes[*above].name.clone()).collect()
        })
    }

    /// `targets` and all that they need, by index. Without targets everything, except for what only frozen nodes would
    /// take.
    pub fn needed(&self, targets: &[usize]) -> Vec<bool> {
        let mut needed = vec![false; self.nodes.len()];
        if targets.is_empty() {
            needed.fill(true);
            self.nodes.iter().flat_map(|node| &node.inputs).flatten().for_each(|above| needed[*above] = false);
        }
        targets.iter().for_each(|target| needed[*target] = true);
        for index in (0..self.nodes.len()).rev() {
            if needed[index] {
                self.nodes[index].needs().iter().flatten().for_each(|above| needed[*above] = true);
            }
        }
        needed
    }

    /// What is wrong with a file that a parameter of `node` names, at its place in the pipeline file.
    pub fn file_mistake(&self, node: &GraphNode, problem: FileProblem) -> Diagnostic {
        file_mistake(&self.root, Some(&node.table), &node.parameters, problem)
    }

    /// What the file asks of the pool called `name`.
    pub fn pool(&self, name: &str) -> Option<&PoolRequest> {
        self.pools.iter().find(|(pool, _)| pool.name == name).map(|(_, request)| request)
    }

    /// All numerics classes of the pool called `name`.
    pub fn classes(&self, name: &str) -> Vec<String> {
        self.pools.iter().find(|(pool, _)| pool.name == name).map_or_else(Vec::new, |(pool, _)| (pool.classes)())
    }

    /// What is wrong with what the file asks of `pool`, or the node `node` beside it, under a key of the pool's name.
    pub fn pool_mistake(&self, pool: &str, node: Option<usize>, message: String, help: Option<String>) -> Diagnostic {
        let mistake = Diagnostic::new(message).help(help);
        let own = node.and_then(|node| self.nodes[node].parameters.place(pool));
        let keys =
            self.pools.iter().find(|(kind, _)| kind.name == pool).map_or_else(Vec::new, |(kind, _)| (kind.declared)());
        let key = || keys.iter().find_map(|key| self.root.place(&format!("{pool}.{}", key.name)));
        match own.or_else(key).or_else(|| self.root.place(pool)) {
            Some(place) => mistake.label(place, "requested here"),
            None => mistake,
        }
    }
}

/// A pipeline file with mistakes.
#[derive(Default)]
pub struct Rejected {
    /// The mistakes.
    pub mistakes: Vec<Diagnostic>,
    /// The nodes without mistakes of their own, whose files can still be looked at; they are not joined.
    pub nodes: Vec<GraphNode>,
    /// The nodes with mistakes of their own: what they name can still be looked for.
    pub unread: Vec<Unread>,
    root: Table,
}

/// A node that could not be made.
pub struct Unread {
    /// What it names.
    pub named: Named,
    parameters: Table,
}

impl Rejected {
    /// See [`Graph::file_mistake`].
    pub fn file_mistake(&self, node: &GraphNode, problem: FileProblem) -> Diagnostic {
        file_mistake(&self.root, Some(&node.table), &node.parameters, problem)
    }

    /// The same for what a node names that could not be made.
    pub fn unread_mistake(&self, node: &Unread, problem: FileProblem) -> Diagnostic {
        file_mistake(&self.root, None, &node.parameters, problem)
    }
}

fn file_mistake(root: &Table, node: Option<&String>, parameters: &Table, problem: FileProblem) -> Diagnostic {
    // What is not in the node's table may be a resource that the file declares.
    let own = problem.parameter.split('.').next().is_some_and(|key| parameters.get(key).is_some());
    let declared = if own { None } else { root.place(&problem.parameter) };
    // Inputs are not parameters: they are in the node's whole table.
    let input = node.filter(|_| problem.parameter.starts_with("inputs."));
    let input = input.and_then(|node| root.place(&format!("nodes.{node}.{}", problem.parameter)));
    let place = declared.or(input).or_else(|| parameters.place(&problem.parameter));
    Diagnostic::new(problem.message)
        .label(place.unwrap_or_else(|| parameters.span.clone()), "specified here")
        .help(problem.help)
}

#[cfg(test)]
mod tests;
