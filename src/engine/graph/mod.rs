//! Pipeline → graph: names become nodes, inputs edges, and the nodes an order.
//!
//! Every mistake of the file is found here or in `spec`, all of them in one go; a [`Graph`] has none. This module does
//! no input or output and does not know what any kind of node does.

mod draw;
mod mistake;
mod order;
#[cfg(test)]
pub(crate) mod toy;

pub use draw::{dot, mermaid};

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use self::mistake::{Mistake, fits};
use crate::artifact::ArtifactKind;
use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::node::{Arity, FileProblem, Kinds, Node, NodeKind, Port};
use crate::spec::keys::meant;
use crate::spec::parameter::{Declaration, left_out};
use crate::spec::syntax::{Syntax, Table};
use crate::spec::{
    InputSource, InputTable, Mistakes, Named, NodeTable, Pipeline, PoolKind, PoolRequest, Reader, Scope,
};

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
    /// Its nodes, each after its inputs; where that leaves a choice, in the order of the file.
    pub nodes: Vec<GraphNode>,
    root: Table,
}

/// A node of a graph.
pub struct GraphNode {
    /// Its name. An imported file is called `NODE.PORT`.
    pub name: String,
    /// The name of its kind.
    pub kind: &'static str,
    /// The version of its kind.
    pub version: u32,
    /// The inputs of its kind.
    pub ports: &'static [Port],
    /// What it makes.
    pub output: ArtifactKind,
    /// Its parameters, as its kind declares them.
    declared: Vec<Declaration>,
    /// Its parameters and its work.
    pub node: Box<dyn Node>,
    /// Its own seed: `seed` of its table, otherwise the pipeline's.
    pub seed: u64,
    /// How often it is tried again after a failure of the surroundings; `None` leaves it to the run.
    pub retries: Option<u32>,
    /// Indices into [`Graph::nodes`], by port, in the order of `ports`.
    pub inputs: Vec<Vec<usize>>,
    /// Whether it stands for a file that is imported, not for a table of the pipeline file.
    pub imported: bool,
    parameters: Table,
}

impl GraphNode {
    /// What it means that `parameter` is not in the node's key, for people.
    pub fn left_out(&self, parameter: &str) -> Option<String> {
        self.node.left_out(parameter).or_else(|| left_out(&self.declared, parameter))
    }

    /// What the pipeline file says of a parameter, where that is a text.
    pub fn written(&self, parameter: &str) -> Option<String> {
        match &self.parameters.get(parameter)?.value.value {
            Syntax::String(text) => Some(text.clone()),
            _ => None,
        }
    }
}

impl Graph {
    /// Reads the text of a pipeline file that lies in `folder`; `default_name` is for a file that gives no name.
    ///
    /// # Errors
    /// All mistakes of the file.
    pub fn read(text: &str, default_name: &str, folder: &Path, kinds: &Kinds) -> Result<Self, Rejected> {
        let (pipeline, mistakes) = Pipeline::read(text, default_name, folder, &kinds.declared());
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
        self.nodes.iter().position(|node| node.name == name)
    }

    /// What the file calls the things that the node at `index` uses: [`Node::names`].
    pub fn names(&self, index: usize) -> BTreeMap<String, String> {
        let node = &self.nodes[index];
        node.node.names(&|port| {
            let connected = node.ports.iter().zip(&node.inputs).filter(|(known, _)| known.name == port);
            connected.flat_map(|(_, inputs)| inputs).map(|above| self.nodes[*above].name.clone()).collect()
        })
    }

    /// `targets` and all that they need, by index; everything when there are no targets.
    pub fn needed(&self, targets: &[usize]) -> Vec<bool> {
        let mut needed = vec![targets.is_empty(); self.nodes.len()];
        targets.iter().for_each(|target| needed[*target] = true);
        for index in (0..self.nodes.len()).rev().filter(|_| !targets.is_empty()) {
            if needed[index] {
                self.nodes[index].inputs.iter().flatten().for_each(|above| needed[*above] = true);
            }
        }
        needed
    }

    /// What is wrong with a file that a parameter of `node` names, at its place in the pipeline file.
    pub fn file_mistake(&self, node: &GraphNode, problem: FileProblem) -> Diagnostic {
        file_mistake(&self.root, Some(&node.name), &node.parameters, problem)
    }

    /// What the file asks of the pool called `name`.
    pub fn pool(&self, name: &str) -> Option<&PoolRequest> {
        self.pools.iter().find(|(pool, _)| pool.name == name).map(|(_, request)| request)
    }

    /// What is wrong with what the file asks of `pool`.
    pub fn pool_mistake(&self, pool: &str, message: String, help: Option<String>) -> Diagnostic {
        let mistake = Diagnostic::new(message).help(help);
        let keys =
            self.pools.iter().find(|(kind, _)| kind.name == pool).map_or_else(Vec::new, |(kind, _)| (kind.declared)());
        let key = keys.iter().find_map(|key| self.root.place(&format!("{pool}.{}", key.name)));
        match key.or_else(|| self.root.place(pool)) {
            Some(place) => mistake.label(place, "asked for here"),
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
        file_mistake(&self.root, Some(&node.name), &node.parameters, problem)
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
    // Inputs are no parameters: they stand in the node's whole table.
    let input = node.filter(|_| problem.parameter.starts_with("inputs."));
    let input = input.and_then(|node| root.place(&format!("nodes.{node}.{}", problem.parameter)));
    let place = declared.or(input).or_else(|| parameters.place(&problem.parameter));
    Diagnostic::new(problem.message)
        .label(place.unwrap_or_else(|| parameters.span.clone()), "named here")
        .help(problem.help)
}

/// A pipeline on its way to a graph.
struct Joining<'a> {
    pipeline: &'a Pipeline,
    kinds: &'a Kinds,
    mistakes: &'a Mistakes,
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Joining<'a> {
    fn new(pipeline: &'a Pipeline, kinds: &'a Kinds, mistakes: &'a Mistakes) -> Self {
        let by_name = pipeline.nodes.iter().enumerate().map(|(index, node)| (node.name.as_str(), index)).collect();
        Self { pipeline, kinds, mistakes, by_name }
    }

    fn report(&self, mistake: Mistake) {
        if !(self.mistakes.is_incomplete() && mistake.is_about_absence()) {
            self.mistakes.push(mistake.into());
        }
    }

    /// The graph, or the nodes without mistakes of their own and what the others name.
    fn graph(&self) -> Result<Graph, (Vec<GraphNode>, Vec<Unread>)> {
        let tables = &self.pipeline.nodes;
        let kinds: Vec<Option<&Arc<dyn NodeKind>>> = tables.iter().map(|table| self.kind(table)).collect();
        let mut nodes: Vec<Option<GraphNode>> = Vec::with_capacity(tables.len());
        let mut imports: Vec<VecDeque<GraphNode>> = Vec::with_capacity(tables.len());
        let mut unread = Vec::new();
        for (table, kind) in tables.iter().zip(&kinds) {
            nodes.push(kind.and_then(|kind| {
                let (node, named) = self.read(table, kind.as_ref());
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
                self.check_inputs(table, kind.as_ref(), &kinds);
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
            // As the kind that was meant, the rest of the table is read all the same.
            let near = nearest(&written, known.iter().copied());
            self.report(Mistake::UnknownKind { written: written.clone(), known: known.clone(), span });
            return near.and_then(|near| self.kinds.get(near));
        }
        kind
    }

    fn read(&self, table: &NodeTable, kind: &dyn NodeKind) -> (Option<GraphNode>, Named) {
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
            output: kind.output(),
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

    fn check_inputs(&self, table: &NodeTable, kind: &dyn NodeKind, kinds: &[Option<&Arc<dyn NodeKind>>]) {
        let makers = |port: &Port| -> Vec<String> {
            let all = self.pipeline.nodes.iter().zip(kinds).filter(|(node, _)| node.name != table.name);
            let makes = |kind: &Option<&Arc<dyn NodeKind>>| kind.is_some_and(|k| port.accepts.contains(&k.output()));
            all.filter(|(_, kind)| makes(kind)).map(|(node, _)| node.name.clone()).collect()
        };
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
                let Some(source) = self.by_name.get(name).and_then(|index| kinds[*index]) else { continue };
                if !port.accepts.contains(&source.output()) {
                    self.report(Mistake::WrongArtifact {
                        from: name.to_owned(),
                        makes: source.output(),
                        port: *port,
                        kind: kind.name(),
                        makers: makers(port),
                        span: span.clone(),
                    });
                }
            }
        }
        for port in kind.ports().iter().filter(|port| port.arity != Arity::Optional) {
            let names: Vec<&str> = kind.ports().iter().map(|port| port.name).collect();
            let dotted = format!("inputs.{}", port.name);
            // An input under another name, or in another place, is one mistake.
            let elsewhere = table.inputs.iter().any(|input| {
                !names.contains(&input.port.as_str()) && nearest(&input.port, names.iter().copied()) == Some(port.name)
            }) || table.parameters.entries.iter().any(|entry| {
                let meant = meant(&entry.key, &["inputs", &dotted], self.mistakes.synonyms);
                meant.contains(&dotted.as_str())
                    || (meant == ["inputs"] && matches!(entry.value.value, Syntax::Table(_)))
            });
            if !elsewhere && !table.inputs_are_unread && !table.inputs.iter().any(|input| input.port == port.name) {
                self.report(Mistake::MissingInput {
                    node: table.name.clone(),
                    kind: kind.name(),
                    port: *port,
                    makers: makers(port),
                    span: table.parameters.span.clone(),
                });
            }
        }
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
        Graph {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::{Source, Style, render};
    use crate::event::State;

    fn read(text: &str) -> Result<Graph, Rejected> {
        Graph::read(text, "toy", Path::new("folder"), &toy::kinds())
    }

    /// All that is said about a text with mistakes.
    fn said(text: &str) -> String {
        let mistakes = read(text).err().expect("the text has mistakes").mistakes;
        render(Some(&Source { name: "toy.toml".into(), text: text.into() }), &mistakes, Style::PLAIN)
    }

    const SOUND: &str = "
[pipeline]
seed = 7
[models.m]
source = 'model'
[nodes.learned]
kind = 'learn'
inputs.pairs = 'pairs'
model = 'm'
rank = 8
[nodes.pairs]
kind = 'join'
inputs.preferred = 'good'
inputs.rejected = ['bad', { file = 'more.json' }]
[nodes.bad]
kind = 'tell'
inputs = { images = 'pictures' }
model = 'm'
[nodes.good]
kind = 'tell'
inputs.images = 'pictures'
model = 'm'
seed = 9
[nodes.pictures]
kind = 'pictures'
from = 'pictures'
";

    #[test]
    fn nodes_come_after_their_inputs_and_imports_before_who_takes_them() {
        let graph = read(SOUND).ok().expect("the text is sound");
        let names: Vec<&str> = graph.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["pictures", "bad", "good", "pairs.rejected.2", "pairs", "learned"]);
        assert_eq!(graph.nodes[4].inputs, [vec![2], vec![1, 3]]);
        assert_eq!((graph.nodes[1].seed, graph.nodes[2].seed), (7, 9));
        assert_eq!(graph.needed(&[2]), [true, false, true, false, false, false]);
        assert_eq!(graph.needed(&[]), [true; 6]);
    }

    #[test]
    fn the_order_of_tables_changes_no_inputs() {
        let mut tables: Vec<&str> = SOUND.split("\n[").collect();
        tables[1..].reverse();
        let graph = read(&tables.join("\n[")).ok().expect("the text is sound");
        let joined = &graph.nodes[graph.find("pairs").expect("it is there")];
        let taken = joined.inputs[1].iter().map(|index| graph.nodes[*index].name.as_str());
        assert_eq!(taken.collect::<Vec<_>>(), ["bad", "pairs.rejected.2"]);
    }

    #[test]
    fn a_file_mistake_is_reported_at_the_parameter_or_at_the_model() {
        let graph = read(SOUND).ok().expect("the text is sound");
        let problem = |parameter: &str| FileProblem {
            parameter: parameter.to_owned(),
            message: "it is missing".to_owned(),
            help: None,
        };
        let place = |index: usize, parameter: &str| {
            SOUND[graph.file_mistake(&graph.nodes[index], problem(parameter)).labels[0].span.clone()].to_owned()
        };
        assert_eq!(place(0, "from"), "'pictures'");
        assert_eq!(place(3, "file"), "'more.json'");
        assert_eq!(place(5, "models.m.source"), "'model'");
        assert_eq!(place(5, "lora.rank"), "[nodes.learned]");
        assert_eq!(place(5, "inputs.pairs"), "'pairs'");
        assert_eq!(place(1, "inputs.images"), "'pictures'");
    }

    #[test]
    fn files_of_sound_nodes_can_be_looked_at_beside_mistakes() {
        let text = SOUND.replace("rank = 8", "rank = 0").replace("'more.json' }", "'more.json', image = 'x' }");
        let rejected = read(&text).err().expect("two mistakes");
        let names: Vec<&str> = rejected.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(rejected.mistakes.len(), 2);
        assert_eq!(names, ["pairs", "bad", "good", "pictures", "pairs.rejected.2"]);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

        #[test]
        fn no_text_makes_reading_panic(text in "\\PC{0,200}") {
            if let Err(rejected) = read(&text) {
                proptest::prop_assert!(!rejected.mistakes.is_empty());
                show(&text, &rejected);
            }
        }

        #[test]
        fn no_change_of_a_sound_text_makes_reading_panic(
            at in 0..SOUND.len(), length in 0..20usize, put in "[\\[\\]{}='\"\\\\.,#0-9a-z\n-]{0,8}"
        ) {
            let end = (at + length).min(SOUND.len());
            let text = format!("{}{put}{}", &SOUND[..at], &SOUND[end..]);
            if let Err(rejected) = read(&text) {
                proptest::prop_assert!(!rejected.mistakes.is_empty());
                show(&text, &rejected);
            }
        }
    }

    fn show(text: &str, rejected: &Rejected) {
        render(Some(&Source { name: "toy.toml".into(), text: text.into() }), &rejected.mistakes, Style::PLAIN);
    }

    #[test]
    fn graphs_are_drawn_with_the_states_given() {
        let text = "[nodes.a]\nkind = 'pictures'\nfrom = 'x'\n[nodes.b]\nkind = 'tell'\ninputs.images = 'a'\nmodel = 'm'\n[models.m]\nsource = 'm'";
        let graph = read(text).ok().expect("the text is sound");
        insta::assert_snapshot!(mermaid(&graph, &[State::Hit, State::Awaits]));
        insta::assert_snapshot!(dot(&graph, &[State::Hit, State::Run]));
    }

    #[test]
    fn an_unknown_kind_has_its_nearest() {
        insta::assert_snapshot!(said("[nodes.a]\nkind = 'picture'\nfrom = 'x'\n"));
    }

    #[test]
    fn an_unknown_node_has_its_nearest() {
        insta::assert_snapshot!(said(
            "[models.m]\nsource = 'm'\n[nodes.pictures]\nkind = 'pictures'\nfrom = 'x'\n[nodes.b]\nkind = 'tell'\ninputs.images = 'picturs'\nmodel = 'm'\n"
        ));
    }

    #[test]
    fn an_unknown_model_has_its_nearest() {
        insta::assert_snapshot!(said(
            "[models.base]\nsource = 'm'\n[nodes.a]\nkind = 'pictures'\nfrom = 'x'\n[nodes.b]\nkind = 'tell'\ninputs.images = 'a'\nmodel = 'bass'\n"
        ));
    }

    #[test]
    fn a_wrong_artifact_says_what_is_taken_and_what_is_made() {
        insta::assert_snapshot!(said(
            "[models.m]\nsource = 'm'\n[nodes.a]\nkind = 'pictures'\nfrom = 'x'\n[nodes.b]\nkind = 'learn'\ninputs.pairs = 'a'\nmodel = 'm'\nrank = 1\n"
        ));
    }

    #[test]
    fn missing_unknown_and_too_many_inputs_are_reported_together() {
        insta::assert_snapshot!(said(
            "[models.m]\nsource = 'm'\n[nodes.a]\nkind = 'pictures'\nfrom = 'x'\ninputs.images = 'b'\n[nodes.b]\nkind = 'tell'\ninputs.image = 'a'\nmodel = 'm'\n[nodes.c]\nkind = 'tell'\ninputs.images = ['a', 'a']\nmodel = 'm'\n"
        ));
    }

    #[test]
    fn a_ring_is_printed_whole() {
        insta::assert_snapshot!(said(
            "[models.m]\nsource = 'm'\n[nodes.a]\nkind = 'learn'\ninputs.pairs = 'b'\nmodel = 'm'\nrank = 1\n[nodes.b]\nkind = 'join'\ninputs.preferred = 'c'\ninputs.rejected = 'c'\n[nodes.c]\nkind = 'tell'\ninputs.images = { file = 'x.json' }\ninputs.adapter = 'a'\nmodel = 'm'\n[nodes.d]\nkind = 'learn'\ninputs.pairs = 'b'\ninputs.adapter = 'd'\nmodel = 'm'\nrank = 1\n"
        ));
    }

    #[test]
    fn a_missing_parameter_and_values_out_of_range_are_reported_together() {
        insta::assert_snapshot!(said(
            "[models.m]\nsource = 'm'\n[nodes.a]\nkind = 'pictures'\n[nodes.b]\nkind = 'tell'\ninputs.images = 'a'\nmodel = 'm'\ntemprature = 1\ntemperature = -1\n[nodes.c]\nkind = 'learn'\ninputs.pairs = { file = 'p' }\nmodel = 'm'\nrank = 0\n"
        ));
    }

    #[test]
    fn tables_and_keys_that_are_written_twice_name_both_places() {
        insta::assert_snapshot!(said(
            "[nodes.a]\nkind = 'pictures'\nfrom = 'x'\nfrom = 'y'\n\n[nodes.a]\nkind = 'pictures'\nfrom = 'z'\n"
        ));
    }

    #[test]
    fn text_that_is_not_toml_is_reported_with_the_rest() {
        insta::assert_snapshot!(said(
            "[nodes.a\nkind = 'pictures'\nfrom = \n[nodes.b]\nkind = 'pictures'\nfrom = 3\nbanana = 1\n"
        ));
    }

    #[test]
    fn nothing_behind_an_equals_sign_is_not_looked_for_in_the_next_line() {
        assert!(!read("[nodes.a]=\n\nkind = 'pictures'\nfrom = 'x'\n").err().expect("a mistake").mistakes.is_empty());
    }

    #[test]
    fn what_is_not_there_yet_is_refused_by_name() {
        insta::assert_snapshot!(said(
            "include = ['a.toml']\n[pipeline]\nmatrix = { seed = [1, 2] }\n[nodes.a]\nkind = 'pictures'\nfrom = 'x'\nfreeze = true\nmatrix = { from = ['x', 'y'] }\n"
        ));
    }

    #[test]
    fn a_newer_language_is_refused_with_the_version_and_nothing_else() {
        insta::assert_snapshot!(said("banana = 1\n[pipeline]\nlanguage = 2\n"));
    }

    #[test]
    fn the_head_of_a_file_is_checked() {
        insta::assert_snapshot!(said(
            "banana = 1\n[pipeline]\nname = ''\nlanguage = 0\nseed = -1\n[models.'a b']\nrevision = 1\n[nodes.'a.b']\nkind = 'pictures'\nfrom = 'x'\nretries = 1.5\n[nodes]\nc = 3\n"
        ));
    }

    #[test]
    fn inputs_that_are_no_names_are_reported_with_the_rest() {
        insta::assert_snapshot!(said(
            "[nodes.a]\nkind = 'pictures'\nfrom = ''\n[nodes.b]\nkind = 'join'\ninputs.preferred = 3\ninputs.rejected = []\n"
        ));
    }

    #[test]
    fn a_file_without_nodes_has_nothing_to_run() {
        insta::assert_snapshot!(said("[pipeline]\nname = 'x'\n"));
    }
}
