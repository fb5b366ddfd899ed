//! Reads a pipeline file, builds its graph and checks the data it names.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{DeviceOptions, Settings};
use super::device::{Machine, Override};
use super::ui::{CliError, Paint, Ui};
use crate::data::sniff::{WrongContent, behind_mark};
use crate::nodes::name_items;
use stic_engine::diagnostic::{Diagnostic, Sources, counted, did_you_mean, listed};
use stic_engine::graph::{Graph, GraphNode};
use stic_engine::node::{FileProblem, Kinds, Parameter};
use stic_engine::plan::{self, UsageError};
use stic_engine::pool::{Pools, Unmet};
use stic_engine::spec::{Files, Named, Written};
use stic_engine::store::{Store, StoreError};

/// A pipeline file without mistakes.
pub struct PipelineFile {
    /// The graph of its nodes.
    pub graph: Graph,
    /// Its path as the user wrote it.
    pub path: PathBuf,
    sources: Sources,
}

/// The devices of a pipeline.
pub struct Devices {
    /// What its nodes may occupy.
    pub pools: Pools,
    /// A line for each device: what was chosen, and why.
    pub lines: Vec<String>,
}

/// Whether data and models are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Check them.
    Wanted,
    /// Skip the checks.
    Ignored,
}

impl PipelineFile {
    /// Reads `path`, the files that it includes, and `settings` in place of what they say. Once there are no mistakes,
    /// [`PipelineFile::check_data`] checks data and models.
    ///
    /// # Errors
    /// All mistakes of the file; with [`Data::Wanted`], files and models that are missing are among them.
    pub fn read(path: &Path, settings: &Settings, kinds: &Kinds, data: Data) -> Result<Self, CliError> {
        let default_name = path.file_stem().unwrap_or_default().to_string_lossy();
        let written = Written::read(path, &text_of(path)?, &Disk, &settings.set, &kinds.declared());
        let sources = written.sources.clone();
        match Graph::of(written, &default_name, kinds) {
            Ok(graph) => Ok(Self { graph, path: path.to_owned(), sources }),
            Err(mut rejected) => {
                let written = std::mem::take(&mut rejected.mistakes);
                let mut mistakes = written.clone();
                if data == Data::Wanted {
                    let place = |node: &GraphNode, problem| rejected.file_mistake(node, problem);
                    add_data_mistakes(rejected.nodes.iter(), place, &sources, &mut mistakes);
                    for node in &rejected.unread {
                        let resources = node.named.resources.iter();
                        let resources = resources.flat_map(|resource| {
                            kinds.importer().map_or_else(Vec::new, |importer| importer.check_resource(resource))
                        });
                        let problems: Vec<FileProblem> = resources.chain(missing_paths(&node.named)).collect();
                        let found = problems.into_iter().map(|problem| rejected.unread_mistake(node, problem));
                        found.for_each(|mistake| add(mistake, &sources, &mut mistakes));
                    }
                    // What a file with a syntax error names is not known yet.
                    let start = |mistake: &Diagnostic| mistake.labels.first().map(|label| label.span.start);
                    let is_text = |start: &usize| {
                        let text = sources.local(&(*start..*start)).and_then(|(it, span)| it.text.get(span.start..));
                        text.is_some_and(|text| text.starts_with(['"', '\'']))
                    };
                    let strings: BTreeSet<usize> = written.iter().filter_map(start).filter(is_text).collect();
                    let found = mistakes.split_off(written.len()).into_iter();
                    let elsewhere = |mistake: &Diagnostic| start(mistake).is_none_or(|start| !strings.contains(&start));
                    mistakes.extend(found.filter(elsewhere));
                }
                Err(CliError::mistakes(sources, mistakes))
            }
        }
    }

    /// Checks that the data and models of `targets` and their ancestors exist, and that parameters fit the inputs.
    ///
    /// # Errors
    /// Everything that is missing or does not fit.
    pub fn check_data(&self, targets: &[usize]) -> Result<(), CliError> {
        self.check_found(targets, Data::Wanted)
    }

    /// Checks that the parameters of all nodes fit their inputs, as far as that is known without reading data.
    ///
    /// # Errors
    /// All that do not.
    pub fn check_inputs(&self) -> Result<(), CliError> {
        self.check_found(&[], Data::Ignored)
    }

    fn check_found(&self, targets: &[usize], data: Data) -> Result<(), CliError> {
        let needed = self.graph.needed(targets);
        let place = |node: &GraphNode, problem| self.graph.file_mistake(node, problem);
        let mut mistakes = Vec::new();
        if data == Data::Wanted {
            let nodes = self.graph.nodes.iter().zip(&needed).filter(|(_, needed)| **needed).map(|(node, _)| node);
            add_data_mistakes(nodes, place, &self.sources, &mut mistakes);
        }
        let mut promised: Vec<Vec<Parameter>> = Vec::with_capacity(needed.len());
        for (number, (node, needed)) in self.graph.nodes.iter().zip(&needed).enumerate() {
            let above = |name: &str| -> Vec<Parameter> {
                let port = node.ports.iter().position(|port| port.name == name);
                port.into_iter()
                    .flat_map(|port| &node.inputs[port])
                    .flat_map(|index| promised[*index].clone())
                    .collect()
            };
            // The content of a file that is imported or sampled is data, too.
            let known = *needed && !node.frozen && (data == Data::Wanted || !node.ports.is_empty());
            let mut found = if known { node.node.promises(&above) } else { Vec::new() };
            name_items(&mut found, number, &node.name, node.ports.is_empty());
            if *needed && !node.frozen {
                mistakes.extend(node.node.check_inputs(&above).into_iter().map(|problem| place(node, problem)));
            }
            promised.push(found);
        }
        if mistakes.is_empty() { Ok(()) } else { Err(CliError::mistakes(self.sources.clone(), mistakes)) }
    }

    /// Prints notes about the files of `targets` and their ancestors, such as records that will be left out.
    pub fn print_notes(&self, targets: &[usize], ui: &Ui) {
        let needed = self.graph.needed(targets);
        let mut last = None;
        for (node, _) in self.graph.nodes.iter().zip(needed).filter(|(node, needed)| *needed && !node.frozen) {
            if is_shared(&mut last, node) {
                continue;
            }
            for remark in node.node.remarks() {
                let word = ui.paint(Paint::Busy, format_args!("{:<7}", "note"));
                ui.print_hanging(&format!("{word} {}  ", node.name), &remark, 8);
            }
        }
    }

    /// The index of the node called `name`, where one is wanted.
    ///
    /// # Errors
    /// When there is none, or it has several instances.
    pub fn node(&self, name: &str) -> Result<usize, CliError> {
        match self.instances(name)?[..] {
            [only] => Ok(only),
            ref several => {
                let names: Vec<&str> = several.iter().map(|index| self.graph.nodes[*index].name.as_str()).collect();
                let message = format!("`{name}` has {}", counted(names.len(), "instance"));
                Err(CliError::usage(message).help(format!("name one of {}", listed(&names))))
            }
        }
    }

    /// The indices of the nodes that `name` names: one, or instances of one.
    ///
    /// # Errors
    /// When there is none.
    pub fn instances(&self, name: &str) -> Result<Vec<usize>, CliError> {
        let found = self.graph.select(name);
        if found.is_empty() {
            let nodes = &self.graph.nodes;
            let table = name.split('[').next().unwrap_or(name);
            let of_table: Vec<&str> = nodes.iter().filter(|node| node.table == table).map(|node| &*node.name).collect();
            let mut names: Vec<&str> = nodes
                .iter()
                .map(|node| if node.imported { &node.name } else { &node.table })
                .map(String::as_str)
                .collect();
            names.dedup();
            let message = format!("{} has no node `{name}`", self.path.display());
            let help = if of_table.is_empty() || table == name {
                did_you_mean(name, "nodes", &names)
            } else {
                did_you_mean(name, "instances", &of_table)
            };
            return Err(CliError::usage(message).help(help));
        }
        Ok(found)
    }

    /// The indices of the nodes called `names`, and of all instances of those that have some.
    ///
    /// # Errors
    /// All names that do not exist.
    pub fn nodes(&self, names: &[String]) -> Result<Vec<usize>, CliError> {
        let mut found = BTreeSet::new();
        let mut unknown: Vec<Diagnostic> = Vec::new();
        for name in names {
            match self.instances(name) {
                Ok(instances) => found.extend(instances),
                Err(problem) => unknown.extend(problem.mistakes),
            }
        }
        if unknown.is_empty() {
            return Ok(found.into_iter().collect());
        }
        Err(CliError { mistakes: unknown, ..CliError::usage("") })
    }

    /// The devices that `targets` and their ancestors use, where `options` and the environment say no other.
    ///
    /// # Errors
    /// Unusable devices, at the places in the file that name them.
    pub fn devices(&self, targets: &[usize], options: &DeviceOptions) -> Result<Devices, CliError> {
        let machine = Machine::new(Override::new(options)?);
        let pools = plan::open(&self.graph, targets, &machine).map_err(|errors| {
            let mistakes = errors.into_iter().map(|UsageError { pool, node, unmet: Unmet { message, help } }| {
                // What another than the file asks for has no place in it.
                if machine.is_overridden() {
                    Diagnostic::new(message).help(help)
                } else {
                    self.graph.pool_mistake(pool, node, message, help)
                }
            });
            let mistakes: Vec<Diagnostic> = mistakes.collect();
            if machine.is_overridden() {
                return CliError { mistakes, ..CliError::usage("") };
            }
            CliError::mistakes(self.sources.clone(), mistakes)
        })?;
        let lines = machine.lines(&pools, &self.graph);
        Ok(Devices { pools, lines })
    }
}

fn add_data_mistakes<'a>(
    nodes: impl Iterator<Item = &'a GraphNode>,
    place: impl Fn(&GraphNode, FileProblem) -> Diagnostic,
    sources: &Sources,
    mistakes: &mut Vec<Diagnostic>,
) {
    // Instances share what does not differ between them, and what a frozen node names is not needed.
    let mut last = None;
    for node in nodes.filter(|node| !node.frozen) {
        if is_shared(&mut last, node) {
            continue;
        }
        for problem in node.node.check_files() {
            add(place(node, problem), sources, mistakes);
        }
    }
}

/// Whether `node` is an instance that shares all of its parameters with the one before.
fn is_shared(last: &mut Option<*const ()>, node: &GraphNode) -> bool {
    let identity = Arc::as_ptr(&node.node).cast::<()>();
    last.replace(identity) == Some(identity)
}

/// Adds `mistake`, or the line of its label to the same mistake: several nodes may name one missing model or file.
fn add(mistake: Diagnostic, sources: &Sources, mistakes: &mut Vec<Diagnostic>) {
    let same = |known: &&mut Diagnostic| known.message == mistake.message && known.help == mistake.help;
    let Some(known) = mistakes.iter_mut().find(same) else { return mistakes.push(mistake) };
    let (Some(first), Some(again)) = (known.labels.first_mut(), mistake.labels.first()) else { return };
    let places = sources.place(first.span.start).zip(sources.place(again.span.start));
    let Some((place, other)) = places.filter(|_| first.span != again.span) else { return };
    let line =
        if place.name == other.name { other.line.to_string() } else { format!("{} of {}", other.line, other.name) };
    let joined = if first.text.contains("also in line") { "," } else { ", also in line" };
    first.text.push_str(&format!("{joined} {line}"));
}

/// The missing files and directories that a node with other mistakes names.
fn missing_paths(named: &Named) -> impl Iterator<Item = FileProblem> {
    let is_glob = |path: &Path| path.to_string_lossy().contains(['*', '?', '[']);
    named.paths.iter().filter(move |(_, path)| !path.exists() && !is_glob(path)).map(|(key, path)| FileProblem {
        parameter: key.clone(),
        message: format!("`{}` does not exist", path.display()),
        help: Some("paths are relative to the pipeline file".to_owned()),
    })
}

/// The files that pipelines include.
struct Disk;

impl Files for Disk {
    fn identity(&self, path: &Path) -> PathBuf {
        path.canonicalize().unwrap_or_else(|_| path.to_owned())
    }

    fn read(&self, path: &Path) -> Result<String, Diagnostic> {
        text_of(path).map_err(|mut problem| {
            let mut mistake = problem.mistakes.remove(0);
            // Its places are in the file itself, which is not among the texts yet.
            if let Some(label) = mistake.labels.drain(..).next() {
                mistake.message += &format!(": {}", label.text);
            }
            if path.symlink_metadata().is_err() {
                mistake.help = Some("paths are relative to the file that they are written in".to_owned());
            }
            mistake
        })
    }
}

fn text_of(path: &Path) -> Result<String, CliError> {
    let name = path.display();
    if path.as_os_str() == "-" {
        return Err(CliError::usage("a pipeline cannot be read from standard input")
            .help("save it to a file: paths in a pipeline are relative to the file".to_owned()));
    }
    let bytes = std::fs::read(path).map_err(|error| {
        let problem = CliError::io(format!("cannot read {name}: {error}"), &error);
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::IsADirectory => {
                problem.help("name a pipeline file, for example `pipelines/quickstart.toml`".to_owned())
            }
            _ => problem,
        }
    })?;
    // An empty file is a pipeline without nodes.
    if let Some(found) = WrongContent::in_any(&bytes).filter(|_| !bytes.is_empty()) {
        return Err(CliError::usage(format!("{name}: {found}")).help(found.help.to_owned()));
    }
    if bytes.contains(&0) {
        return Err(CliError::usage(format!("{name} is not text, but binary data"))
            .help("name a pipeline file, for example `pipelines/quickstart.toml`".to_owned()));
    }
    let text = behind_mark(&bytes).to_vec();
    String::from_utf8(text).map_err(|error| not_text(name.to_string(), error.as_bytes()))
}

/// Points at the bytes of a file that are not UTF-8.
fn not_text(name: String, bytes: &[u8]) -> CliError {
    let mut text = String::new();
    let mut places = Vec::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if let [first, ..] = chunk.invalid() {
            places.push((text.len()..text.len() + char::REPLACEMENT_CHARACTER.len_utf8(), *first));
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    let mut mistake = Diagnostic::new(format!("{name} is not text")).help("save the file as UTF-8".to_owned());
    if let Some((place, byte)) = places.first() {
        let more = if places.len() > 1 { format!(" (nor are {} more)", places.len() - 1) } else { String::new() };
        mistake = mistake.label(place.clone(), format!("the byte {byte:#04x} is not UTF-8{more}"));
    }
    CliError::mistakes(Sources::of(name, text), vec![mistake])
}

/// Opens the cache in `root` for reading. Creates nothing.
///
/// # Errors
/// When it cannot be used.
pub fn read_cache(root: &Path) -> Result<Arc<Store>, CliError> {
    Store::open_for_reading(root).map(Arc::new).map_err(|error| cache_error(&error))
}

/// Opens the cache in `root`, and creates it if it does not exist.
///
/// # Errors
/// When it cannot be used.
pub fn open_cache(root: &Path) -> Result<Arc<Store>, CliError> {
    Store::open(root).map(Arc::new).map_err(|error| cache_error(&error))
}

/// A cache that cannot be used.
pub fn cache_error(error: &StoreError) -> CliError {
    let problem = match error {
        StoreError::Io { cause, .. } => CliError::io(error.to_string(), cause),
        _ => CliError::usage(error.to_string()),
    };
    problem.help(error.help())
}
