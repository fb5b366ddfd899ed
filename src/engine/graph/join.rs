//! Joins the nodes of a pipeline by their inputs, and finds every mistake in that.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::mistake::{Mistake, fits};
use super::{Graph, GraphNode, Unread, order};
use crate::artifact::ArtifactKind;
use crate::diagnostic::{Span, nearest};
use crate::node::{Arity, Kinds, NodeKind, Port};
use crate::spec::keys::meant;
use crate::spec::syntax::Syntax;
use crate::spec::{InputSource, InputTable, Mistakes, Named, NodeTable, Pipeline, Reader, Scope};

/// A pipeline on its way to a graph.
pub(super) struct Joining<'a> {
    pipeline: &'a Pipeline,
    kinds: &'a Kinds,
    mistakes: &'a Mistakes,
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Joining<'a> {
    pub(super) fn new(pipeline: &'a Pipeline, kinds: &'a Kinds, mistakes: &'a Mistakes) -> Self {
        let by_name = pipeline.nodes.iter().enumerate().map(|(index, node)| (node.name.as_str(), index)).collect();
        Self { pipeline, kinds, mistakes, by_name }
    }

    fn report(&self, mistake: Mistake) {
        if !(self.mistakes.is_incomplete() && mistake.is_about_absence()) {
            self.mistakes.push(mistake.into());
        }
    }

    /// The graph, or the nodes without mistakes of their own and what the others name.
    pub(super) fn graph(&self) -> Result<Graph, (Vec<GraphNode>, Vec<Unread>)> {
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
        match self.order() {
            Some(order) if self.mistakes.count() == 0 && nodes.iter().all(Option::is_some) => {
                Ok(self.assemble(nodes, imports, &order))
            }
            _ => Err((nodes.into_iter().flatten().chain(imports.into_iter().flatten()).collect(), unread)),
        }
    }

    fn kind(&self, table: &NodeTable) -> Option<&'a Arc<dyn NodeKind>> {
        let (written, span) = table.kind.as_ref()?;
        let kind = self.kinds.get(written);
        if kind.is_none() {
            let (written, span, known) = (written.clone(), span.clone(), self.kinds.names());
            // As the kind that was meant, the rest of the table is read anyway.
            let near = nearest(&written, known.iter().copied());
            self.report(Mistake::UnknownKind { written: written.clone(), known: known.clone(), span });
            return near.and_then(|near| self.kinds.get(near));
        }
        kind
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
        let scope = Scope::new(&pipeline.folder, &pipeline.resources, self.mistakes);
        let mut reader = Reader::new(&scope, &table.parameters, format!("node `{}`", table.name));
        let node = kind.read(&mut reader, &|port| table.inputs.iter().any(|input| input.port == port));
        reader.read_elsewhere(["kind", "inputs", "seed", "retries"].map(str::to_owned));
        reader.read_elsewhere(kind.ports().iter().map(|port| format!("inputs.{}", port.name)));
        drop(reader);
        let node = node.map(|node| GraphNode {
            name: table.name.clone(),
            kind: kind.name(),
            version: kind.version(),
            ports: kind.ports(),
            output,
            declared: kind.declared(),
            node,
            seed: table.seed.unwrap_or(pipeline.seed),
            retries: table.retries,
            inputs: kind.ports().iter().map(|_| Vec::new()).collect(),
            imported: false,
            parameters: table.parameters.clone(),
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
                let scope = Scope::new(&self.pipeline.folder, &self.pipeline.resources, self.mistakes);
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
                    declared: kind.declared(),
                    node,
                    seed: self.pipeline.seed,
                    retries: table.retries,
                    inputs: Vec::new(),
                    imported: true,
                    parameters: written.clone(),
                });
            }
        }
        imports
    }

    fn check_names(&self, table: &NodeTable) {
        for (name, span) in table.inputs.iter().flat_map(named) {
            if !self.by_name.contains_key(name) {
                let known = self.pipeline.nodes.iter().map(|node| node.name.clone());
                let known = known.filter(|known| *known != table.name).collect();
                self.report(Mistake::UnknownNode { written: name.to_owned(), known, span: span.clone() });
            }
        }
    }

    /// The other nodes that make what `port` of the node `table` takes.
    fn makers(&self, table: &NodeTable, port: &Port, made: &[Option<ArtifactKind>]) -> Vec<String> {
        let others = self.pipeline.nodes.iter().zip(made).filter(|(node, _)| node.name != table.name);
        let taken = |made: &Option<ArtifactKind>| made.is_some_and(|made| port.accepts.contains(&made));
        others.filter(|(_, made)| taken(made)).map(|(node, _)| node.name.clone()).collect()
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

    /// The order of the tables, or `None` when some wait for each other.
    fn order(&self) -> Option<Vec<usize>> {
        let above: Vec<Vec<usize>> = self
            .pipeline
            .nodes
            .iter()
            .map(|table| table.inputs.iter().flat_map(named).filter_map(|(name, _)| self.index(name)).collect())
            .collect();
        let rings = match order::order(&above) {
            Ok(order) => return Some(order),
            Err(rings) => rings,
        };
        for ring in rings {
            let reported = ring.iter().enumerate().map(|(position, index)| {
                let before = ring[(position + ring.len() - 1) % ring.len()];
                let table = &self.pipeline.nodes[*index];
                let edge = table.inputs.iter().flat_map(named).find(|(name, _)| self.index(name) == Some(before));
                (table.name.clone(), edge.map_or(table.name_span.clone(), |(_, span)| span.clone()))
            });
            self.report(Mistake::Cycle { ring: reported.collect() });
        }
        None
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Puts the nodes in order, each after the files that it imports.
    fn assemble(
        &self,
        mut nodes: Vec<Option<GraphNode>>,
        mut imports: Vec<VecDeque<GraphNode>>,
        order: &[usize],
    ) -> Graph {
        let mut placed = vec![0; nodes.len()];
        let mut ordered: Vec<GraphNode> = Vec::with_capacity(nodes.len());
        for index in order {
            let Some(mut node) = nodes[*index].take() else { continue };
            for (port, inputs) in node.ports.iter().zip(&mut node.inputs) {
                let table = &self.pipeline.nodes[*index];
                let input = table.inputs.iter().find(|input| input.port == port.name);
                for source in input.iter().flat_map(|input| &input.sources) {
                    match source {
                        InputSource::Node { name, .. } => inputs.extend(self.index(name).map(|above| placed[above])),
                        InputSource::Import(_) => {
                            inputs.push(ordered.len());
                            ordered.extend(imports[*index].pop_front());
                        }
                    }
                }
            }
            placed[*index] = ordered.len();
            ordered.push(node);
        }
        let mut by_name: Vec<usize> = (0..ordered.len()).collect();
        by_name.sort_by(|a, b| ordered[*a].name.cmp(&ordered[*b].name));
        Graph {
            by_name,
            name: self.pipeline.name.clone(),
            seed: self.pipeline.seed,
            pools: self.pipeline.pools.clone(),
            show: self.pipeline.show.clone(),
            nodes: ordered,
            root: self.pipeline.root.clone(),
        }
    }
}

/// The nodes that an input names, and where.
fn named(input: &InputTable) -> impl Iterator<Item = (&str, &Span)> {
    input.sources.iter().filter_map(|source| match source {
        InputSource::Node { name, span } => Some((name.as_str(), span)),
        InputSource::Import(_) => None,
    })
}
