//! Joins the nodes of a pipeline by their inputs, and finds every mistake in that.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::mistake::{Mistake, fits};
use super::{Graph, GraphNode, Unread, order};
use crate::artifact::ArtifactKind;
use crate::diagnostic::{Span, nearest};
use crate::node::{Arity, Kinds, NodeKind, Port};
use crate::spec::keys::meant;
use crate::spec::parameter::Parameters;
use crate::spec::syntax::{Entry, Syntax};
use crate::spec::{
    self, InputSource, InputTable, KindDefaults, Mistakes, Named, NodeKeys, NodeTable, Pipeline, Reader, Scope,
};

/// A pipeline on its way to a graph.
pub(super) struct Joining<'a> {
    pub(super) pipeline: &'a Pipeline,
    kinds: &'a Kinds,
    pub(super) mistakes: &'a Mistakes,
    /// The numbers of nodes by their names.
    pub(super) by_name: HashMap<&'a str, usize>,
    /// By node: its tables, one for every combination of its own axes.
    pub(super) tables: Vec<Vec<usize>>,
    /// The keys that nodes of all kinds may have.
    node_keys: Vec<&'static str>,
}

impl<'a> Joining<'a> {
    pub(super) fn new(pipeline: &'a Pipeline, kinds: &'a Kinds, mistakes: &'a Mistakes) -> Self {
        let mut by_name = HashMap::with_capacity(pipeline.nodes.len());
        let mut tables: Vec<Vec<usize>> = Vec::with_capacity(pipeline.nodes.len());
        for (index, table) in pipeline.nodes.iter().enumerate() {
            let node = *by_name.entry(table.name.as_str()).or_insert(tables.len());
            if node == tables.len() {
                tables.push(Vec::new());
            }
            tables[node].push(index);
        }
        let node_keys = NodeKeys::declared().iter().map(|key| key.name).collect();
        Self { pipeline, kinds, mistakes, by_name, tables, node_keys }
    }

    fn report(&self, mistake: Mistake) {
        if !(self.mistakes.is_incomplete() && mistake.is_about_absence()) {
            self.mistakes.push(mistake.into());
        }
    }

    /// The graph, or the nodes without mistakes of their own and what the others name.
    pub(super) fn graph(&self) -> Result<Graph, (Vec<GraphNode>, Vec<Unread>)> {
        self.check_defaults();
        let tables = &self.pipeline.nodes;
        let kinds: Vec<Option<&Arc<dyn NodeKind>>> = tables.iter().map(|table| self.kind(table)).collect();
        let made = self.made(&kinds);
        let mut nodes: Vec<Option<GraphNode>> = Vec::with_capacity(tables.len());
        let mut imports: Vec<VecDeque<GraphNode>> = Vec::with_capacity(tables.len());
        let mut unread = Vec::new();
        for ((table, kind), made) in tables.iter().zip(&kinds).zip(&made) {
            nodes.push(kind.and_then(|kind| {
                let (node, named) = self.read(table, kind.as_ref(), made.unwrap_or(kind.output()));
                if node.is_none() {
                    unread.push(Unread { named, parameters: table.parameters.clone() });
                }
                node
            }));
            imports.push(kind.map(|kind| self.imports(table, kind.ports())).unwrap_or_default());
        }
        for (table, kind) in tables.iter().zip(&kinds) {
            self.check_names(table);
            if let Some(kind) = kind {
                self.check_inputs(table, kind.as_ref(), &made);
            }
        }
        let assembled = match self.order() {
            Some(order) if self.mistakes.count() == 0 && nodes.iter().all(Option::is_some) => {
                self.assemble(&mut nodes, &imports, &order)
            }
            _ => None,
        };
        let all = || nodes.into_iter().flatten().chain(imports.into_iter().flatten()).collect();
        assembled.ok_or_else(|| (all(), unread))
    }

    fn kind(&self, table: &NodeTable) -> Option<&'a Arc<dyn NodeKind>> {
        let (written, span) = table.kind.as_ref()?;
        let kind = self.kinds.get(written);
        if kind.is_none() {
            let (written, span, known) = (written.clone(), span.clone(), self.kinds.names());
            // As the kind that was meant, the rest of the table is read anyway.
            let near = nearest(&written, known.iter().copied());
            self.report(Mistake::UnknownKind { written: written.clone(), known: known.clone(), span });
            if !self.pipeline.defaults.is_empty() {
                // What it leaves out may be in the defaults of the kind that was meant.
                self.mistakes.set_incomplete();
            }
            return near.and_then(|near| self.kinds.get(near));
        }
        kind
    }

    /// Reports defaults of kinds that there are not, and keys that no node of the kind has.
    fn check_defaults(&self) {
        for KindDefaults { kind: written, span, table } in &self.pipeline.defaults {
            let Some(kind) = self.kinds.get(written) else {
                let (written, span, known) = (written.clone(), span.clone(), self.kinds.names());
                self.report(Mistake::UnknownKind { written, known, span });
                continue;
            };
            let declared = kind.declared();
            let of_nodes = NodeKeys::declared();
            let known = declared.iter().chain(of_nodes.iter().filter(|key| key.name != "matrix"));
            let known: Vec<String> = known.map(|key| key.name.to_owned()).collect();
            // A kind that declares nothing is asked when its nodes are read.
            let unknown = table.entries.iter().filter(|entry| !declared.is_empty() && !known.contains(&entry.key));
            for Entry { key, key_span, .. } in unknown {
                let (key, place, known) = (key.clone(), format!("`[defaults.{written}]`"), known.clone());
                self.mistakes.add(spec::Mistake::UnknownKey { key, place, known }, key_span.clone());
            }
        }
    }

    /// What each node makes; `None` where that is not known: of unknown kinds, and where it is what comes in and that is
    /// missing or wrong.
    fn made(&self, kinds: &[Option<&Arc<dyn NodeKind>>]) -> Vec<Option<ArtifactKind>> {
        let same_as = |kind: &Arc<dyn NodeKind>| kind.ports().iter().find(|port| Some(port.name) == kind.same_as());
        let own = |kind: &Option<&Arc<dyn NodeKind>>| kind.filter(|kind| kind.same_as().is_none()).map(|k| k.output());
        let mut made: Vec<Option<ArtifactKind>> = kinds.iter().map(own).collect();
        // Each round finds those whose input was found before.
        loop {
            let mut found = false;
            for (index, table) in self.pipeline.nodes.iter().enumerate().filter(|(index, _)| kinds[*index].is_some()) {
                let Some(port) = kinds[index].and_then(same_as).filter(|_| made[index].is_none()) else { continue };
                let input = table.inputs.iter().find(|input| input.port == port.name);
                let comes_in = match input.and_then(|input| input.sources.first()) {
                    Some(InputSource::Node { name, .. }) => self.index(name).and_then(|above| made[above]),
                    Some(InputSource::Import(_)) => self.kinds.importer().map(|it| it.kind(port.accepts).output()),
                    None => None,
                };
                made[index] = comes_in.filter(|artifact| port.accepts.contains(artifact));
                found |= made[index].is_some();
            }
            if !found {
                return made;
            }
        }
    }

    fn read(&self, table: &NodeTable, kind: &dyn NodeKind, output: ArtifactKind) -> (Option<GraphNode>, Named) {
        let pipeline = self.pipeline;
        let scope = Scope::new(&pipeline.folders, &pipeline.resources, self.mistakes);
        let mut reader = Reader::new(&scope, &table.parameters, format!("node `{}`", table.name));
        let node = kind.read(&mut reader, &|port| table.inputs.iter().any(|input| input.port == port));
        reader.read_elsewhere(["kind", "inputs"]);
        reader.read_elsewhere(self.node_keys.iter().copied());
        reader.read_elsewhere(kind.ports().iter().map(|port| format!("inputs.{}", port.name)));
        drop(reader);
        let node = node.map(|node| GraphNode {
            name: table.name.clone(),
            kind: kind.name(),
            version: kind.version(),
            ports: kind.ports(),
            output,
            declared: kind.declared().into(),
            node: node.into(),
            seed: table.seed.unwrap_or(pipeline.seed),
            pipeline_seed: pipeline.seed,
            retries: table.retries,
            frozen: table.freeze,
            inputs: kind.ports().iter().map(|_| Vec::new()).collect(),
            imported: false,
            table: table.name.clone(),
            axes: Vec::new(),
            parameters: table.parameters.clone().into(),
        });
        (node, scope.named())
    }

    /// The files that `table` imports, in the order of `ports` and, within one, of the text.
    fn imports(&self, table: &NodeTable, ports: &[Port]) -> VecDeque<GraphNode> {
        let mut imports = VecDeque::new();
        for port in ports {
            let Some(input) = table.inputs.iter().find(|input| input.port == port.name) else { continue };
            for (position, source) in input.sources.iter().enumerate() {
                let InputSource::Import(written) = source else { continue };
                let Some(importer) = self.kinds.importer() else {
                    self.report(Mistake::NoImports { span: written.span.clone() });
                    continue;
                };
                let kind = importer.kind(port.accepts);
                let scope = Scope::new(&self.pipeline.folders, &self.pipeline.resources, self.mistakes);
                let mut reader = Reader::new(&scope, written, format!("input `{}`", port.name));
                let Some(node) = kind.read(&mut reader, &|_| false) else { continue };
                let several = input.sources.len() > 1;
                let number = if several { format!(".{}", position + 1) } else { String::new() };
                imports.push_back(GraphNode {
                    name: format!("{}.{}{number}", table.name, port.name),
                    kind: kind.name(),
                    version: kind.version(),
                    ports: &[],
                    output: kind.output(),
                    declared: kind.declared().into(),
                    node: node.into(),
                    seed: self.pipeline.seed,
                    pipeline_seed: self.pipeline.seed,
                    retries: table.retries,
                    frozen: false,
                    inputs: Vec::new(),
                    imported: true,
                    table: table.name.clone(),
                    axes: Vec::new(),
                    parameters: written.clone().into(),
                });
            }
        }
        imports
    }

    fn check_names(&self, table: &NodeTable) {
        for (name, span) in table.inputs.iter().flat_map(named) {
            if !self.by_name.contains_key(name) {
                let known = self.others(table).collect();
                self.report(Mistake::UnknownNode { written: name.to_owned(), known, span: span.clone() });
            }
        }
    }

    /// The other nodes that make what `port` of the node `table` takes.
    fn makers(&self, table: &NodeTable, port: &Port, made: &[Option<ArtifactKind>]) -> Vec<String> {
        let taken = |name: &String| {
            let made = self.index(name).and_then(|index| made[index]);
            made.is_some_and(|made| port.accepts.contains(&made))
        };
        self.others(table).filter(taken).collect()
    }

    /// The kinds of node that make what `port` takes.
    fn kinds_making(&self, port: &Port) -> Vec<&'static str> {
        let kinds = self.kinds.all().iter().filter(|kind| kind.same_as().is_none());
        kinds.filter(|kind| port.accepts.contains(&kind.output())).map(|kind| kind.name()).collect()
    }

    fn check_inputs(&self, table: &NodeTable, kind: &dyn NodeKind, made: &[Option<ArtifactKind>]) {
        for input in &table.inputs {
            let Some(port) = kind.ports().iter().find(|port| port.name == input.port) else {
                self.report(Mistake::UnknownPort {
                    written: input.port.clone(),
                    kind: kind.name(),
                    ports: kind.ports(),
                    span: input.port_span.clone(),
                });
                continue;
            };
            if !fits(port.arity, input.sources.len()) {
                let (count, span) = (input.sources.len(), input.span.clone());
                self.report(Mistake::TooMany { port: port.name, kind: kind.name(), count, span });
            }
            for (name, span) in named(input) {
                let Some(makes) = self.index(name).and_then(|index| made[index]) else { continue };
                if !port.accepts.contains(&makes) {
                    self.report(Mistake::WrongArtifact {
                        from: name.to_owned(),
                        makes,
                        port: *port,
                        kind: kind.name(),
                        makers: self.makers(table, port, made),
                        kinds: self.kinds_making(port),
                        span: span.clone(),
                    });
                }
            }
        }
        for port in kind.ports().iter().filter(|port| port.arity != Arity::Optional) {
            if !table.inputs_are_unread && !self.is_written(table, kind, port) {
                self.report(Mistake::MissingInput {
                    node: table.name.clone(),
                    kind: kind.name(),
                    port: *port,
                    makers: self.makers(table, port, made),
                    kinds: self.kinds_making(port),
                    span: table.parameters.span.clone(),
                });
            }
        }
    }

    /// Whether there is an input `port`, or one under another name or in another place: that is one mistake, not two.
    fn is_written(&self, table: &NodeTable, kind: &dyn NodeKind, port: &Port) -> bool {
        let names = || kind.ports().iter().map(|port| port.name);
        for InputTable { port: written, .. } in &table.inputs {
            if written == port.name
                || names().all(|name| name != written) && nearest(written, names()) == Some(port.name)
            {
                return true;
            }
        }
        let dotted = format!("inputs.{}", port.name);
        table.parameters.entries.iter().any(|entry| {
            let meant = meant(&entry.key, &["inputs", &dotted], self.mistakes.synonyms);
            meant.contains(&dotted.as_str()) || meant == ["inputs"] && matches!(entry.value.value, Syntax::Table(_))
        })
    }

    /// The order of the nodes, or `None` when some wait for each other.
    fn order(&self) -> Option<Vec<usize>> {
        let inputs = |node: usize| self.tables[node].iter().flat_map(|table| &self.pipeline.nodes[*table].inputs);
        let numbers = |node| inputs(node).flat_map(named).filter_map(|(name, _)| self.by_name.get(name).copied());
        let above: Vec<Vec<usize>> = (0..self.tables.len()).map(|node| numbers(node).collect()).collect();
        let rings = match order::order(&above) {
            Ok(order) => return Some(order),
            Err(rings) => rings,
        };
        for ring in rings {
            let reported = ring.iter().enumerate().map(|(position, node)| {
                let before = ring[(position + ring.len() - 1) % ring.len()];
                let table = &self.pipeline.nodes[self.tables[*node][0]];
                let edge = inputs(*node).flat_map(named).find(|(name, _)| self.by_name.get(name) == Some(&before));
                (table.name.clone(), edge.map_or(table.name_span.clone(), |(_, span)| span.clone()))
            });
            self.report(Mistake::Cycle { ring: reported.collect() });
        }
        None
    }

    /// The first table of the node called `name`.
    fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).map(|node| self.tables[*node][0])
    }

    /// The names of all nodes but that of `table`.
    fn others(&self, table: &NodeTable) -> impl Iterator<Item = String> {
        let names = self.tables.iter().map(|tables| &self.pipeline.nodes[tables[0]].name);
        names.filter(|name| **name != table.name).cloned()
    }
}

/// The nodes that an input names, and where.
pub(super) fn named(input: &InputTable) -> impl Iterator<Item = (&str, &Span)> {
    input.sources.iter().filter_map(|source| match source {
        InputSource::Node { name, span } => Some((name.as_str(), span)),
        InputSource::Import(_) => None,
    })
}
