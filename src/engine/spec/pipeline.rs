//! The tables of a pipeline file: names, resources, pools, and nodes whose parameters are still unread.
//!
//! This module does not know which kinds of node there are, nor what their names mean.

use super::cache::CacheTable;
use super::declared::{Declared, PoolKind, PoolRequest, Resource, ResourceKind};
use super::defaults::{self, KindDefaults};
use super::keys::meant;
use super::matrix::{self, Axis, Excluded, Exclusion, Point};
use super::mistake::{Mistake, Mistakes};
use super::parameter::{
    Class, Declaration, Fallback, Form, Parameters, Setting, boolean, filled_string, integer, strings,
};
use super::reader::{Reader, Scope, resolve};
use super::syntax::{Entry, Located, Syntax, Table};
use super::written::{Folders, Written};
use crate::diagnostic::Span;

/// A pipeline file as it is written.
#[derive(Debug)]
pub struct Pipeline {
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
    /// The resources that it declares.
    pub resources: Vec<Resource>,
    /// Its nodes, in the order of the text; of a node with axes of its own a copy for every combination of their values.
    pub nodes: Vec<NodeTable>,
    /// The parameters that take several values, the pipeline's seed last.
    pub axes: Vec<Axis>,
    /// The combinations that are left out.
    pub exclusions: Vec<Exclusion>,
    /// What nodes have that do not write it themselves.
    pub defaults: Vec<KindDefaults>,
    /// The directories against which paths are resolved.
    pub folders: Folders,
    /// All tables, for places.
    pub root: Table,
}

crate::parameters! {
    /// `[pipeline]`.
    pub struct PipelineTable {
        /// The name of the pipeline in messages and in the logs of runs
        name: Option<String> = filled_string("a name").optional("the file's name").execution(),
        /// The version of the language that the file is written in
        language: u64 = integer(1..=super::LANGUAGE).default(super::LANGUAGE).execution(),
        /// The seed of everything random: sampling, corruptions, prompts, generation and training
        seed: u64 = integer(..).default(0),
        /// Nodes of which a run shows samples
        show: Option<Vec<String>> = strings("the name of a node").optional("the program's choice").execution(),
        /// Values of `seed`, and of nodes' parameters as `NODE.PARAMETER`: the nodes that depend on one are run with each;
        /// `exclude` is a list of combinations to leave out
        matrix: Option<()> = matrix_table().optional("none").execution(),
    }
}

crate::parameters! {
    /// What every node may have beside `kind`, `inputs` and the parameters of its kind.
    pub struct NodeKeys {
        /// The node's seed; which items `fraction` takes and which prompts are drawn depends on the pipeline's alone
        seed: Option<u64> = integer(..).optional("the pipeline's"),
        /// Number of times to retry the node after a transient failure
        retries: Option<u32> = integer(..=100).optional("what `--retries` says").execution(),
        /// Use the latest result in the cache whatever has changed, and never run the node
        freeze: bool = boolean().default(false).execution(),
        /// Values of parameters: the node, and what takes its result, is run with each combination; `exclude` is a list of
        /// combinations to leave out
        matrix: Option<()> = matrix_table().optional("none").execution(),
    }
}

/// `matrix`, which is read before all other keys.
fn matrix_table() -> Setting<()> {
    let any = |what| Form::Any { what, forms: Vec::new() };
    let combination = Form::Table { keys: Vec::new(), rest: Some(Box::new(any("a value"))) };
    let exclude = Declaration {
        name: "exclude",
        form: Form::List { of: Box::new(combination), least: 0, most: None, distinct: false },
        fallback: Fallback::Words("none"),
        class: Class::Execution,
        help: "Combinations to leave out: each the values of some parameters",
    };
    let form = Form::Table { keys: vec![exclude], rest: Some(Box::new(any("a list of values"))) };
    Setting::new(form, |table, key| table.has(key).then_some(()), |()| None)
}

/// A node as it is written.
#[derive(Clone, Debug)]
pub struct NodeTable {
    /// Its name.
    pub name: String,
    /// Where its name is.
    pub name_span: Span,
    /// Its kind and where that is.
    pub kind: Option<(String, Span)>,
    /// Its own seed.
    pub seed: Option<u64>,
    /// How often it is retried after a transient failure.
    pub retries: Option<u32>,
    /// Whether it takes the latest result that the cache has, and never runs.
    pub freeze: bool,
    /// The values of its own axes: numbers in [`Pipeline::axes`].
    pub point: Point,
    /// Its inputs.
    pub inputs: Vec<InputTable>,
    /// Whether there are inputs that are written in no way that says which they are.
    pub inputs_are_unread: bool,
    /// Its parameters: its table without the keys of the engine.
    pub parameters: Table,
}

/// An input as it is written.
#[derive(Clone, Debug)]
pub struct InputTable {
    /// The port.
    pub port: String,
    /// Where the port's name is.
    pub port_span: Span,
    /// Where the value is.
    pub span: Span,
    /// What comes in, in order.
    pub sources: Vec<InputSource>,
}

/// What comes in by a port.
#[derive(Clone, Debug)]
pub enum InputSource {
    /// The result of a node.
    Node {
        /// The node's name.
        name: String,
        /// Where the name is.
        span: Span,
    },
    /// A table that names a file to import.
    Import(Table),
}

/// Keys of a node that the engine reads; the rest are parameters of its kind.
const ENGINE_KEYS: [&str; 6] = ["kind", "inputs", "seed", "retries", "freeze", "matrix"];

impl Pipeline {
    /// Reads the tables of `written`, beside those of the engine those `declared`. `None` when the file is for a newer
    /// version; whatever else is wrong is left out of the pipeline and reported.
    pub fn read(written: Written, default_name: &str, declared: &Declared) -> (Option<Self>, Mistakes) {
        let Written { folders, root, mistakes, end, .. } = written;
        if let Some((language, span)) = newer_language(&root) {
            let newer = Mistakes::default();
            newer.add(Mistake::Newer { language }, span);
            return (None, newer);
        }
        let mut pipeline = Self {
            name: default_name.to_owned(),
            seed: 0,
            pools: Vec::new(),
            show: None,
            max_cache: None,
            resources: Vec::new(),
            nodes: Vec::new(),
            axes: Vec::new(),
            exclusions: Vec::new(),
            defaults: Vec::new(),
            folders,
            root,
        };
        pipeline.read_tables(declared, &mistakes, end);
        (Some(pipeline), mistakes)
    }

    fn read_tables(&mut self, declared: &Declared, mistakes: &Mistakes, end: usize) {
        let (folders, root) = (self.folders.clone(), std::mem::take(&mut self.root));
        let scope = Scope::new(&folders, &[], mistakes);
        let mut file = Reader::new(&scope, &root, "the file");
        reject_keys_outside(&root, declared, &mut file);
        if has_misnamed_table(&root, declared) {
            mistakes.set_incomplete();
        }
        if let Some(mut table) = file.named_table("pipeline", "`[pipeline]`") {
            self.read_pipeline(&mut table);
        }
        if let Some(mut table) = file.named_table("cache", "`[cache]`") {
            self.max_cache = CacheTable::read(&mut table).expect("all have defaults").max_size;
        }
        for pool in declared.pools {
            let table = file.named_table(pool.name, &format!("`[{}]`", pool.name));
            self.pools.push((*pool, table.map(|mut table| (pool.read)(&mut table)).unwrap_or_default()));
        }
        for kind in declared.resources {
            for entry in tables_by_name(&mut file, kind.table, kind.noun, mistakes) {
                self.read_resource(entry, kind, &scope);
            }
        }
        self.defaults = defaults::read(&mut file, mistakes);
        let nodes = tables_by_name(&mut file, "nodes", "node", mistakes);
        let mut excluded = Vec::new();
        let seed = self.read_matrix(&root, &nodes, &mut excluded, &scope);
        for entry in nodes {
            self.read_node(entry, &scope, &mut excluded);
        }
        self.axes.extend(seed);
        self.exclusions = excluded.iter().filter_map(|it| it.resolved(&self.axes, mistakes)).collect();
        self.check_shown(&root, mistakes);
        if !file.has("nodes") || file.named_table("nodes", "").is_some_and(|mut nodes| nodes.rest().is_empty()) {
            mistakes.add(Mistake::NoNodes, end..end);
        }
        file.read_elsewhere(["include".to_owned()]);
        drop(file);
        self.root = root;
    }

    fn read_pipeline(&mut self, table: &mut Reader<'_>) {
        let read = PipelineTable::read(table).expect("all have defaults");
        self.name = read.name.unwrap_or_else(|| self.name.clone());
        (self.seed, self.show) = (read.seed, read.show);
    }

    /// Reads the axes of the whole pipeline. Returns that of its seed, which is the last in the names of instances.
    fn read_matrix(
        &mut self,
        root: &Table,
        nodes: &[&Entry],
        excluded: &mut Vec<Excluded>,
        scope: &Scope<'_>,
    ) -> Option<Axis> {
        let Syntax::Table(table) = &root.get("pipeline")?.value.value else { return None };
        let entry = table.get("matrix")?;
        matrix::read(entry, None, &mut self.axes, excluded, scope.mistakes);
        for axis in &self.axes {
            let Some(node) = axis.node.as_ref().filter(|node| !nodes.iter().any(|entry| entry.key == **node)) else {
                continue;
            };
            let known = nodes.iter().map(|entry| entry.key.clone()).collect();
            scope.mistakes.add(Mistake::UnknownName { what: "node", written: node.clone(), known }, axis.span());
        }
        let seed = self.axes.iter().position(|axis| axis.node.is_none()).map(|index| self.axes.remove(index));
        if let (Some(axis), Some(value)) = (&seed, table.get("seed")) {
            matrix::two_ways(axis, &value.key_span, scope);
        }
        seed
    }

    fn check_shown(&self, root: &Table, mistakes: &Mistakes) {
        for name in self.show.iter().flatten() {
            if !self.nodes.iter().any(|node| node.name == *name) {
                let known = self.nodes.iter().map(|node| node.name.clone()).collect();
                let place = root.place("pipeline.show").unwrap_or_default();
                mistakes.add(Mistake::UnknownName { what: "node", written: name.clone(), known }, place);
            }
        }
    }

    fn read_resource(&mut self, entry: &Entry, kind: &ResourceKind, scope: &Scope<'_>) {
        let ResourceKind { table: declared_in, noun, .. } = *kind;
        if let Syntax::String(source) = &entry.value.value {
            let name = entry.key.clone();
            let help = Some(format!("write `{name} = {{ source = \"{source}\" }}`"));
            let (message, label) = (format!("{noun} `{name}` must be a table"), "this is a string".to_owned());
            scope.mistakes.add(Mistake::Other { message, label, help }, entry.value.span.clone());
            let path = resolve(scope.folders.at(entry.value.span.start), source);
            let source = source.clone();
            self.resources.push(Resource { table: declared_in, name, source, path, revision: None });
            return;
        }
        let Some(table) = table_of(entry, scope.mistakes) else { return };
        let mut table = Reader::new(scope, table, format!("{noun} `{}`", entry.key));
        let source = table.required_string("source", kind.expected);
        let revision = table.string("revision", "a revision");
        let source = source.filter(|source| (kind.is_remote)(source) || table.is_plain_path("source", source));
        // One whose source is wrong is still known by its name.
        let source = source.unwrap_or_default();
        let place = declared_place(entry);
        let path = resolve(scope.folders.at(place), &source);
        self.resources.push(Resource { table: declared_in, name: entry.key.clone(), source, path, revision });
    }

    fn read_node(&mut self, entry: &Entry, scope: &Scope<'_>, excluded: &mut Vec<Excluded>) {
        let Some(table) = table_of(entry, scope.mistakes) else { return };
        if let Some(below) = node_below(table) {
            reject_dotted_name(entry, below, scope.mistakes);
            return;
        }
        let written = table.get("kind").and_then(|kind| match &kind.value.value {
            Syntax::String(kind) => self.defaults.iter().find(|defaults| defaults.kind == *kind),
            _ => None,
        });
        if let Some(matrix) = table.get("matrix") {
            matrix::read(matrix, Some(&entry.key), &mut self.axes, excluded, scope.mistakes);
        }
        let is_swept = self.axes.iter().any(|axis| axis.node.as_ref() == Some(&entry.key));
        if written.is_none() && !is_swept {
            return self.read_variant(entry, table, Point::new(), scope);
        }
        let filled = written.map_or_else(|| table.clone(), |written| defaults::filled(table, &written.table));
        for (table, point) in matrix::variants(&entry.key, table, filled, &self.axes, excluded, scope) {
            self.read_variant(entry, &table, point, scope);
        }
    }

    /// Reads a node's table, with what defaults and axes put into it.
    fn read_variant(&mut self, entry: &Entry, table: &Table, point: Point, scope: &Scope<'_>) {
        let (keys, mut parameters): (Vec<Entry>, Vec<Entry>) =
            table.entries.iter().cloned().partition(|entry| ENGINE_KEYS.contains(&entry.key.as_str()));
        let keys = Table { span: table.span.clone(), entries: keys };
        let mut reader = Reader::new(scope, &keys, format!("node `{}`", entry.key));
        let is_kind = |entry: &Entry| meant(&entry.key, &["kind"], scope.mistakes.synonyms) == ["kind"];
        let misnamed = if keys.get("kind").is_none() { parameters.iter().position(is_kind) } else { None };
        let kind = match misnamed {
            Some(position) => misnamed_kind(entry, parameters.remove(position), scope.mistakes),
            None => {
                let kind = reader.required_string("kind", "the name of a kind of node");
                kind.map(|kind| (kind, keys.place("kind").unwrap_or_default()))
            }
        };
        let NodeKeys { seed, retries, freeze, .. } = NodeKeys::read(&mut reader).expect("all have defaults");
        let inputs = read_inputs(&keys, &mut reader, scope);
        drop(reader);
        self.nodes.push(NodeTable {
            name: entry.key.clone(),
            name_span: entry.key_span.clone(),
            kind,
            seed,
            retries,
            freeze,
            point,
            inputs_are_unread: inputs.is_none(),
            inputs: inputs.unwrap_or_default(),
            parameters: Table { span: table.span.clone(), entries: parameters },
        });
    }
}

/// Where the source of a resource is written.
fn declared_place(entry: &Entry) -> usize {
    let source = if let Syntax::Table(table) = &entry.value.value { table.place("source") } else { None };
    source.unwrap_or_else(|| entry.key_span.clone()).start
}

/// Rejects keys of `[pipeline]` and of pools before the first table.
fn reject_keys_outside(root: &Table, declared: &Declared, file: &mut Reader<'_>) {
    let pools = declared.pools.iter().map(|pool| (pool.name, (pool.declared)()));
    let own = [("pipeline", PipelineTable::declared()), ("cache", CacheTable::declared())];
    for (table, keys) in own.into_iter().chain(pools) {
        for key in keys.iter().map(|key| key.name).filter(|key| root.get(key).is_some()) {
            let help = Some(format!("write it below `[{table}]`, or as `{table}.{key} = …` before any table"));
            file.reject(key, format!("`{key}` is outside of `[{table}]`"), "not recognized here", help);
        }
    }
}

/// Whether a table of nodes or resources has a wrong name, so that the names in it are unknown.
fn has_misnamed_table(root: &Table, declared: &Declared) -> bool {
    let mut tables = vec!["nodes"];
    tables.extend(declared.resources.iter().map(|kind| kind.table));
    let named = tables.len();
    tables.extend(["pipeline", "cache"]);
    tables.extend(declared.pools.iter().map(|pool| pool.name));
    root.entries.iter().any(|Entry { key, .. }| {
        let meant = meant(key, &tables, declared.synonyms);
        !tables.contains(&key.as_str()) && meant.first().is_some_and(|table| tables[..named].contains(table))
    })
}

/// A table with a `kind` below `table`, which has none: a node whose name has a point.
fn node_below(table: &Table) -> Option<&Entry> {
    let is_node = |below: &&Entry| matches!(&below.value.value, Syntax::Table(t) if t.get("kind").is_some());
    table.entries.iter().find(is_node).filter(|_| table.get("kind").is_none())
}

fn reject_dotted_name(entry: &Entry, below: &Entry, mistakes: &Mistakes) {
    let name = format!("{}.{}", entry.key, below.key);
    let (message, label) = (format!("`{name}` cannot be the name of a node"), "a name cannot contain a dot".to_owned());
    let help = Some(format!("write `[nodes.{}_{}]`, and use that name elsewhere", entry.key, below.key));
    mistakes.add(Mistake::Other { message, label, help }, below.key_span.clone());
    // What names it is reported when it has a name.
    mistakes.set_incomplete();
}

/// The kind of `node` under another name, `written`: reported, and its table is read anyway.
fn misnamed_kind(node: &Entry, written: Entry, mistakes: &Mistakes) -> Option<(String, Span)> {
    let Entry { key, key_span, value } = written;
    let (place, known) = (format!("node `{}`", node.key), vec!["kind".to_owned()]);
    mistakes.add(Mistake::UnknownKey { key, place, known }, key_span);
    if let Syntax::String(kind) = value.value { Some((kind, value.span)) } else { None }
}

fn newer_language(root: &Table) -> Option<(u64, Span)> {
    let Syntax::Table(pipeline) = &root.get("pipeline")?.value.value else { return None };
    let value = &pipeline.get("language")?.value;
    let Syntax::Integer(Some(language)) = value.value else { return None };
    let language = u64::try_from(language).ok().filter(|language| *language > super::LANGUAGE)?;
    Some((language, value.span.clone()))
}

/// The entries of the table under `key`, whose names are the user's.
fn tables_by_name<'a>(file: &mut Reader<'a>, key: &str, what: &'static str, mistakes: &Mistakes) -> Vec<&'a Entry> {
    let Some(mut table) = file.named_table(key, &format!("`[{key}]`")) else { return Vec::new() };
    let entries = table.rest();
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    for Entry { key, key_span, .. } in entries.iter() {
        if key.is_empty() || !key.chars().all(allowed) {
            mistakes.add(Mistake::Name { what, written: key.clone() }, key_span.clone());
        }
    }
    entries
}

fn table_of<'a>(entry: &'a Entry, mistakes: &Mistakes) -> Option<&'a Table> {
    match &entry.value.value {
        Syntax::Table(table) => Some(table),
        Syntax::Broken => None,
        other => {
            let mistake = Mistake::Type { key: entry.key.clone(), expected: "a table".to_owned(), found: other.name() };
            mistakes.add(mistake, entry.value.span.clone());
            None
        }
    }
}

/// What an input may be, in words.
const INPUT: &str = "the name of a node, a list of names, or a file (`{ file = \"…\" }`)";

/// The inputs of a node; `None` when they are written in no way that says which they are.
fn read_inputs(keys: &Table, reader: &mut Reader<'_>, scope: &Scope<'_>) -> Option<Vec<InputTable>> {
    if let Some(Located { value: Syntax::String(name), span }) = keys.get("inputs").map(|entry| &entry.value) {
        let (message, label) = ("`inputs` must be a table".to_owned(), "this is a string".to_owned());
        let help = Some(format!("say which input it is: `inputs.NAME = \"{name}\"`"));
        scope.mistakes.add(Mistake::Other { message, label, help }, span.clone());
        reader.read_elsewhere(["inputs".to_owned()]);
        return None;
    }
    let Some(mut table) = reader.table("inputs") else { return Some(Vec::new()) };
    Some(table.rest().into_iter().filter_map(|entry| read_input(entry, scope)).collect())
}

fn read_input(entry: &Entry, scope: &Scope<'_>) -> Option<InputTable> {
    let one = |value: &Located| -> Option<InputSource> {
        match &value.value {
            Syntax::String(name) => Some(InputSource::Node { name: name.clone(), span: value.span.clone() }),
            Syntax::Table(table) => Some(InputSource::Import(table.clone())),
            Syntax::Broken => None,
            other => {
                let mistake = Mistake::Type {
                    key: format!("inputs.{}", entry.key),
                    expected: INPUT.to_owned(),
                    found: other.name(),
                };
                scope.mistakes.add(mistake, value.span.clone());
                None
            }
        }
    };
    let sources: Vec<Option<InputSource>> = match &entry.value.value {
        Syntax::List(items) if items.is_empty() => {
            let key = format!("inputs.{}", entry.key);
            scope.mistakes.add(Mistake::Empty { key, expected: INPUT }, entry.value.span.clone());
            Vec::new()
        }
        Syntax::List(items) => items.iter().map(one).collect(),
        _ => vec![one(&entry.value)],
    };
    // An input with a mistake in it is still an input: its port is connected.
    Some(InputTable {
        port: entry.key.clone(),
        port_span: entry.key_span.clone(),
        span: entry.place(),
        sources: sources.into_iter().flatten().collect(),
    })
}
