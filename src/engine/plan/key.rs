//! Which fields determine a node's result, and which an item's.

use super::PortResults;
use crate::artifact::ArtifactKind;
use crate::digest::{Digest, Fields, Hasher, Sink, Value};
use crate::graph::GraphNode;
use crate::node::{Class, Parameter, Part, Port, Work};

/// Keeps keys of nodes apart from all other digests. A change of the walk below needs another name.
const NODE: &str = "stic node v1";

/// The same for the items of nodes.
const ITEM: &str = "stic item v1";

/// The same for the contents of results.
const CONTENT: &str = "stic content v1";

/// Everything that a node's result, or its items' values, may depend on.
#[derive(Clone, Copy)]
pub struct Determinants<'a> {
    /// The node.
    pub node: &'a GraphNode,
    /// The pipeline's seed.
    pub pipeline_seed: u64,
    /// What comes in.
    pub inputs: &'a PortResults,
    /// What parameters name outside the pipeline, by content.
    pub sources: &'a [Parameter],
    /// The numerics class, when the node occupies slots.
    pub numerics: Option<&'a str>,
}

/// The fields of the key of a node's result.
pub struct OfNode<'a>(pub &'a Determinants<'a>);

/// The fields of the key that a node's items share.
pub struct OfItems<'a>(pub &'a Determinants<'a>);

impl Determinants<'_> {
    /// The key of the node's result.
    pub fn key(&self) -> Digest {
        Digest::of_fields(NODE, &OfNode(self))
    }

    /// The fields of that key.
    pub fn fields(&self) -> Vec<(String, Value)> {
        let mut fields = Vec::new();
        OfNode(self).walk(&mut fields);
        fields
    }

    /// The key that the node's items share, when it maps items.
    pub fn function_key(&self) -> Option<Digest> {
        matches!(self.node.node.work(), Work::Items(_)).then(|| Digest::of_fields(ITEM, &OfItems(self)))
    }

    fn parameters(&self, sink: &mut dyn Sink, wanted: impl Fn(&Parameter) -> bool) {
        let mut own = self.node.node.parameters();
        // The order in which a kind reports them is no part of what they are.
        own.sort_by(|a, b| a.name.cmp(&b.name));
        let mut sources: Vec<&Parameter> = self.sources.iter().collect();
        sources.sort_by(|a, b| a.name.cmp(&b.name));
        for parameter in own.iter().chain(sources).filter(|parameter| wanted(parameter)) {
            sink.field(&parameter.name, &parameter.value);
        }
    }

    fn inputs(&self, sink: &mut dyn Sink, wanted: impl Fn(&Port) -> bool) {
        let ports = self.node.ports.iter().zip(self.inputs);
        for (port, results) in ports.filter(|(port, results)| wanted(port) && !results.is_empty()) {
            let contents: Vec<Digest> = results.iter().map(|result| result.content).collect();
            sink.field(&format!("inputs.{}", port.name), &contents.into());
        }
    }

    fn numerics(&self, sink: &mut dyn Sink) {
        if let Some(class) = self.numerics {
            sink.field(NUMERICS, &class.into());
        }
    }
}

/// The separator in that field between a numerics class and those whose finished items were accepted in its place.
pub const ACCEPTED: &str = " with items of ";

/// The name of the field that holds the numerics class.
pub const NUMERICS: &str = "numerics class";

// Names with a space cannot be those of parameters.
impl Fields for OfNode<'_> {
    fn walk(&self, sink: &mut dyn Sink) {
        let of = self.0;
        sink.field("kind", &of.node.kind.into());
        sink.field("kind version", &of.node.version.into());
        of.parameters(sink, |_| true);
        of.inputs(sink, |_| true);
        let seeds = of.node.node.seeds();
        if seeds.pipeline {
            sink.field("pipeline seed", &of.pipeline_seed.into());
        }
        if seeds.node {
            sink.field("seed", &of.node.seed.into());
        }
        of.numerics(sink);
    }
}

impl Fields for OfItems<'_> {
    fn walk(&self, sink: &mut dyn Sink) {
        let of = self.0;
        sink.field("kind", &of.node.kind.into());
        if let Work::Items(work) = of.node.node.work() {
            sink.field("item version", &work.item_version().into());
        }
        of.parameters(sink, |parameter| parameter.class == Class::Function);
        of.inputs(sink, |port| !port.items);
        // The pipeline's seed is left out: what it draws for an item is part of what the item reads.
        if of.node.node.seeds().node {
            sink.field("seed", &of.node.seed.into());
        }
        of.numerics(sink);
    }
}

/// The digest of a result: of its identity parts, by name, and of nothing else.
pub fn content(kind: ArtifactKind, identity: &[Part]) -> Digest {
    let mut hasher = Hasher::new(CONTENT);
    hasher.field("kind", &Value::from(kind.name));
    if kind.version > 1 {
        hasher.field("version", &kind.version.into());
    }
    for part in identity {
        hasher.field(&part.name, &part.digest.into());
    }
    hasher.finish()
}
