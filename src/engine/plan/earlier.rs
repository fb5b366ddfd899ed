//! Which earlier result a node that runs is compared with, to report what is new: that of the last run, the
//! nearest of the node's own, or what the node may have been under another name.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use super::why::{Change, Words, changes, sentences};
use crate::digest::{Digest, Value};
use crate::graph::{Graph, GraphNode};
use crate::node::{Artifact, Failure, FileDigests, Objects};
use crate::store::{Entry, Found, Store};

/// How many earlier results a node is compared with to find the nearest.
const COMPARED: usize = 4;

/// The earlier results of a pipeline's nodes.
pub struct Earlier<'a> {
    graph: &'a Graph,
    thorough: bool,
    others: OnceLock<Result<Vec<Entry>, Failure>>,
    last_used: OnceLock<Result<HashMap<String, Digest>, Failure>>,
}

impl<'a> Earlier<'a> {
    /// Those of the nodes of `graph`; `thorough` as in [`Options`](super::Options).
    pub fn new(graph: &'a Graph, thorough: bool) -> Self {
        Self { graph, thorough, others: OnceLock::new(), last_used: OnceLock::new() }
    }

    /// What differs from the result that the last run had of the node, or else from the nearest earlier result.
    pub fn why(
        &self,
        node: &GraphNode,
        fields: &[(String, Value)],
        store: &Arc<Store>,
        digests: &dyn FileDigests,
    ) -> Result<Vec<String>, Failure> {
        let reported = |changes: &[Change], entry: Option<Entry>| {
            sentences(changes, &NodeWords { earlier: self, node, entry, objects: &**store, digests })
        };
        let last_used = self.last_used.get_or_init(|| Ok(store.last_used(&self.graph.name)?)).as_ref();
        if let Some(key) = last_used.map_err(Clone::clone)?.get(&node.name)
            && let Some(changes) = store.record(key)?.map(|record| changes(&record.fields, fields))
            && !changes.is_empty()
        {
            let entry = if let Found::Complete(entry) = store.find(key)? { Some(*entry) } else { None };
            return Ok(reported(&changes, entry));
        }
        let mut earlier = store.earlier(&self.graph.name, &node.name)?;
        if earlier.is_empty() && !node.axes.is_empty() {
            earlier = self.of_instances(node, store)?;
        }
        if earlier.is_empty() && self.thorough {
            earlier = self.likely_ancestors(node, store)?;
        }
        let mut compared = Vec::new();
        for entry in earlier.iter().take(COMPARED) {
            compared.extend(store.record(&entry.key)?.map(|record| (changes(&record.fields, fields), entry)));
        }
        let Some((changes, entry)) = compared.into_iter().min_by_key(|(changes, _)| changes.len()) else {
            return Ok(vec!["new".to_owned()]);
        };
        let name = &entry.node;
        let other = if entry.pipeline != self.graph.name {
            Some(format!("new; compared with `{name}` of the pipeline `{}`", entry.pipeline))
        } else if *name != node.name && self.graph.find(name).is_some() {
            Some(format!("new; compared with `{name}`"))
        } else if *name != node.name {
            Some(format!("new; compared with `{name}`, which was removed"))
        } else {
            None
        };
        Ok(other.into_iter().chain(reported(&changes, Some(entry.clone()))).collect())
    }

    /// The results that `node` has had under its name, that of the last run first, then the newest.
    pub fn own(&self, node: &GraphNode, store: &Arc<Store>) -> Result<Vec<Entry>, Failure> {
        let last_used = self.last_used.get_or_init(|| Ok(store.last_used(&self.graph.name)?)).as_ref();
        let last_used = last_used.map_err(Clone::clone)?.get(&node.name).copied();
        let mut found = Vec::new();
        if let Some(key) = last_used
            && let Found::Complete(entry) = store.find(&key)?
        {
            found.push(*entry);
        }
        found.extend(store.earlier(&self.graph.name, &node.name)?);
        Ok(found)
    }

    /// Which parameters of `node` differ from those that the result `entry` was made with, of those that are written.
    pub fn not_applied(
        &self,
        node: &GraphNode,
        entry: &Entry,
        store: &Arc<Store>,
        digests: &dyn FileDigests,
    ) -> Result<Vec<String>, Failure> {
        let Some(record) = store.record(&entry.key)? else { return Ok(Vec::new()) };
        let new: Vec<(String, Value)> = node.node.parameters().into_iter().map(|it| (it.name, it.value)).collect();
        let is_written = |(name, _): &&(String, Value)| new.iter().any(|(known, _)| known == name);
        let old: Vec<(String, Value)> = record.fields.iter().filter(is_written).cloned().collect();
        let words = NodeWords { earlier: self, node, entry: None, objects: &**store, digests };
        Ok(sentences(&changes(&old, &new), &words))
    }

    /// The results of other instances of the same node, and of the node before it had instances.
    fn of_instances(&self, node: &GraphNode, store: &Arc<Store>) -> Result<Vec<Entry>, Failure> {
        let others = self.graph.nodes.iter().filter(|other| other.table == node.table && !other.imported);
        let names = others.map(|other| &other.name).filter(|name| **name != node.name);
        let mut found = store.earlier(&self.graph.name, &node.table)?;
        for name in names.take(COMPARED) {
            found.extend(store.earlier(&self.graph.name, name)?.into_iter().next());
        }
        Ok(found)
    }

    /// The results of what `node` may have been before it was renamed, or its pipeline was: nodes of its kind and name
    /// in other pipelines, or else nodes of its kind under names that this pipeline has no longer.
    fn likely_ancestors(&self, node: &GraphNode, store: &Arc<Store>) -> Result<Vec<Entry>, Failure> {
        // A run makes none of these, so they are looked up once.
        let others = self.others.get_or_init(|| {
            let names: BTreeSet<&str> = self.graph.nodes.iter().map(|node| node.name.as_str()).collect();
            Ok(store.others(&self.graph.name, &names)?)
        });
        let others = others.as_ref().map_err(Clone::clone)?;
        let alike = |wanted: &dyn Fn(&Entry) -> bool| -> Vec<Entry> {
            // Imported files share a kind regardless of their content; the port distinguishes them.
            let of_its_port =
                |entry: &Entry| !node.imported || entry.node.rsplit('.').next() == node.name.rsplit('.').next();
            let found = others.iter().filter(|entry| entry.kind == node.kind && of_its_port(entry) && wanted(entry));
            found.take(COMPARED).cloned().collect()
        };
        let same_name = alike(&|entry| entry.node == node.name);
        Ok(if same_name.is_empty() { alike(&|entry| entry.pipeline == self.graph.name) } else { same_name })
    }
}

/// How many entries a source may have to be compared entry by entry unasked.
const COMPARED_ENTRIES: i64 = 2000;

/// A node, and the earlier result that it is compared with.
struct NodeWords<'a> {
    earlier: &'a Earlier<'a>,
    node: &'a GraphNode,
    entry: Option<Entry>,
    objects: &'a dyn Objects,
    digests: &'a dyn FileDigests,
}

impl Words for NodeWords<'_> {
    fn left_out(&self, field: &str) -> Option<String> {
        self.node.left_out(field)
    }

    fn pool(&self) -> &str {
        self.node.node.resources().map_or("", |slots| slots.pool)
    }

    fn inputs(&self, port: &str) -> Vec<String> {
        let position = self.node.ports.iter().position(|known| known.name == port);
        let nodes = position.map_or(&[][..], |position| &self.node.inputs[position]);
        nodes.iter().map(|index| self.earlier.graph.nodes[*index].name.clone()).collect()
    }

    fn written(&self, field: &str) -> Option<String> {
        self.node.written(field)
    }

    fn source(&self, change: &Change) -> Option<String> {
        let (old, new) = (change.old.as_ref()?, change.new.as_ref()?);
        let count = |value: &Value| match value {
            Value::Table(values) => {
                values.get("items").and_then(|items| if let Value::Integer(n) = items { Some(*n) } else { None })
            }
            _ => None,
        };
        if !self.earlier.thorough && count(new).is_some_and(|count| count > COMPARED_ENTRIES) {
            return None;
        }
        let Entry { content, identity, side, .. } = self.entry.clone()?;
        let earlier = Artifact { node: self.node.name.clone(), kind: self.node.output, content, identity, side };
        self.node.node.source_changes(&change.field, old, &earlier, self.objects, self.digests)
    }
}
