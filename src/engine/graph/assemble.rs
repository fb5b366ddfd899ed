//! Puts the nodes of a pipeline in order, each instance of one by itself, and after what it takes.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::join::{Joining, named};
use super::sweep::{self, AxisValue, Instance, Placed};
use super::{Graph, GraphNode};
use crate::diagnostic::Diagnostic;
use crate::spec::matrix::{MOST_INSTANCES, Point, none_left, too_many};
use crate::spec::syntax::Syntax;
use crate::spec::{InputSource, NodeTable};

impl Joining<'_> {
    /// The graph of what each table was read as, and of the files that each imports. `None` when its sweeps have
    /// mistakes.
    pub(super) fn assemble(
        &self,
        read: &mut [Option<GraphNode>],
        imports: &[VecDeque<GraphNode>],
        order: &[usize],
    ) -> Option<Graph> {
        let mut placed: Vec<Vec<Placed>> = vec![Vec::new(); self.tables.len()];
        let mut nodes: Vec<GraphNode> = Vec::with_capacity(read.len());
        for node in order {
            let instances = self.instances(*node, read, &placed)?;
            let axes: BTreeSet<usize> =
                instances.iter().flat_map(|(_, it)| it.point.iter().map(|(axis, _)| *axis)).collect();
            self.check_exclusions(*node, &axes);
            let labels = sweep::labels(&axes, &self.pipeline.axes);
            // A file that several instances import is imported once.
            let mut imported: HashMap<usize, usize> = HashMap::new();
            let alone = instances.len() == 1;
            for (table, Instance { point, above }) in instances {
                let values = self.values(&point, &labels);
                let mut instance = if alone { read[table].take()? } else { read[table].clone()? };
                instance.name = sweep::name(&instance.name, &values);
                let written = &self.pipeline.nodes[table];
                let mut above = above.into_iter();
                for input in &written.inputs {
                    let port = instance.ports.iter().position(|port| port.name == input.port);
                    for source in &input.sources {
                        let number = match source {
                            InputSource::Node { .. } => above.next()?,
                            InputSource::Import(file) => *imported.entry(file.span.start).or_insert_with(|| {
                                let file = imports[table].iter().find(|import| import.parameters.span == file.span);
                                nodes.extend(file.map(|file| self.import(file, written, &values)));
                                nodes.len() - 1
                            }),
                        };
                        if let Some(port) = port {
                            instance.inputs[port].push(number);
                        }
                    }
                }
                instance.pipeline_seed = self.seed(&point).unwrap_or(self.pipeline.seed);
                instance.seed = written.seed.unwrap_or(instance.pipeline_seed);
                instance.axes = values;
                placed[*node].push(Placed { point, number: nodes.len() });
                nodes.push(instance);
            }
        }
        if self.mistakes.count() > 0 {
            return None;
        }
        let pipeline = self.pipeline;
        let mut by_name: Vec<usize> = (0..nodes.len()).collect();
        by_name.sort_by(|a, b| nodes[*a].name.cmp(&nodes[*b].name));
        Some(Graph {
            by_name,
            name: pipeline.name.clone(),
            seed: pipeline.seed,
            pools: pipeline.pools.clone(),
            show: pipeline.show.clone(),
            max_cache: pipeline.max_cache,
            nodes,
            root: pipeline.root.clone(),
        })
    }

    /// The instances of a node, each with the table that it is read from.
    fn instances(
        &self,
        node: usize,
        read: &[Option<GraphNode>],
        placed: &[Vec<Placed>],
    ) -> Option<Vec<(usize, Instance)>> {
        let pipeline = self.pipeline;
        let first = &pipeline.nodes[self.tables[node][0]];
        let too_many = || {
            self.mistakes.push(too_many(&first.name, first.name_span.clone()));
            None
        };
        let mut all: Vec<(usize, Instance)> = Vec::new();
        for table in &self.tables[node] {
            let written = &pipeline.nodes[*table];
            let sources = written.inputs.iter().flat_map(named);
            let sources = sources.filter_map(|(name, _)| Some(placed[*self.by_name.get(name)?].as_slice()));
            let Some(mut found) = sweep::joined(&written.point, &sources.collect::<Vec<_>>()) else {
                return too_many();
            };
            let seeds = read[*table].as_ref()?.node.seeds();
            if let Some(axis) = pipeline.axes.iter().position(|axis| axis.node.is_none())
                && (seeds.pipeline || seeds.node && written.seed.is_none())
            {
                let Some(seeded) = sweep::with_axis(found, axis, pipeline.axes[axis].values.len()) else {
                    return too_many();
                };
                found = seeded;
            }
            all.extend(found.into_iter().map(|instance| (*table, instance)));
        }
        let here = pipeline.exclusions.iter().filter(|it| it.node.as_ref().is_none_or(|node| *node == first.name));
        let excluded: Vec<&Point> = here.map(|exclusion| &exclusion.point).collect();
        all.retain(|(_, instance)| !excluded.iter().any(|excluded| sweep::has(&instance.point, excluded)));
        if all.len() > MOST_INSTANCES {
            return too_many();
        }
        if all.is_empty() {
            self.mistakes.push(none_left(&first.name, first.name_span.clone()));
            return None;
        }
        all.sort_by(|(_, a), (_, b)| a.point.cmp(&b.point));
        Some(all)
    }

    /// Reports combinations that a node leaves out though it has not all of their axes.
    fn check_exclusions(&self, node: usize, axes: &BTreeSet<usize>) {
        let name = &self.pipeline.nodes[self.tables[node][0]].name;
        for exclusion in self.pipeline.exclusions.iter().filter(|it| it.node.as_ref() == Some(name)) {
            // Every instance that had them may be left out, so only what no axis above has is a mistake.
            let Some((axis, _)) = exclusion.point.iter().find(|(axis, _)| !axes.contains(axis)) else { continue };
            let axis = &self.pipeline.axes[*axis];
            if axis.node.as_ref() != Some(name) {
                let message = format!("`{name}` does not depend on the axis `{}`", axis.full_name());
                let mistake = Diagnostic::new(message).label(exclusion.span.clone(), "nothing to leave out");
                self.mistakes.push(mistake.help("leave it out in a node that takes its results".to_owned()));
            }
        }
    }

    fn values(&self, point: &Point, labels: &HashMap<usize, String>) -> Vec<AxisValue> {
        let value = |(axis, value): &(usize, usize)| {
            let known = &self.pipeline.axes[*axis];
            AxisValue {
                axis: labels[axis].clone(),
                full: known.full_name(),
                value: known.shown[*value].clone(),
                is_seed: known.is_seed(),
            }
        };
        point.iter().map(value).collect()
    }

    /// The pipeline's seed at `point`, where that is an axis.
    fn seed(&self, point: &Point) -> Option<u64> {
        let (axis, value) = point.iter().find(|(axis, _)| self.pipeline.axes[*axis].node.is_none())?;
        match self.pipeline.axes[*axis].values[*value].value {
            Syntax::Integer(Some(seed)) => u64::try_from(seed).ok(),
            _ => None,
        }
    }

    /// An imported file as a node of the graph; one that not all instances import has the values in its name that
    /// choose it.
    fn import(&self, file: &GraphNode, table: &NodeTable, values: &[AxisValue]) -> GraphNode {
        let mut import = file.clone();
        let own = format!("{}.inputs.", table.name);
        let chosen: Vec<AxisValue> = values.iter().filter(|value| value.full.starts_with(&own)).cloned().collect();
        if let Some(port) = import.name.strip_prefix(&table.name) {
            import.name = format!("{}{port}", sweep::name(&table.name, &chosen));
        }
        import
    }
}
