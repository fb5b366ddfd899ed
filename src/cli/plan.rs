//! `stic plan`, `stic run -n`, `stic why` and `stic graph`: what would happen, as a list, for one node, as a picture.

use std::sync::Arc;

use super::args::{self, Format, Global, Why};
use super::pipeline::{Data, Machine, PipelineFile, cache_trouble, read_cache};
use super::voice::{Exit, Paint, Trouble, Voice, table, write_json, write_out};
use crate::graph;
use crate::node::{Failure, Kinds};
use crate::plan::{self, NodePlan, PlanError, State};
use crate::store::Store;

/// Plans and says so.
///
/// # Errors
/// Mistakes in the file, a cache or a device that cannot be used.
pub fn plan(arguments: &args::Plan, global: &Global, kinds: &Kinds, voice: &Voice) -> Result<Exit, Trouble> {
    let file = PipelineFile::read(&arguments.file, kinds, Data::Wanted)?;
    let options = plan::Options {
        targets: file.nodes(&arguments.targets)?,
        accept_numerics: arguments.accept_numerics.clone(),
        ..plan::Options::default()
    };
    file.check_data(&options.targets)?;
    file.say_remarks(&options.targets, voice);
    let store = read_cache(&global.cache)?;
    show(&file, &store, &options, arguments.json, voice)
}

/// What would be done of `file`, for people or for programs.
///
/// # Errors
/// A device that cannot be used, sources that cannot be read.
pub fn show(
    file: &PipelineFile,
    store: &Arc<Store>,
    options: &plan::Options,
    json: bool,
    voice: &Voice,
) -> Result<Exit, Trouble> {
    let plan = make(file, store, options)?;
    let exit = if plan.is_done() { Exit::Success } else { Exit::Pending };
    if json {
        plan.nodes.iter().try_for_each(write_json)?;
        return Ok(exit);
    }
    let rows: Vec<Vec<String>> = plan.nodes.iter().map(|node| row(node, voice)).collect();
    for (line, node) in table(&rows).iter().zip(&plan.nodes) {
        voice.say(line);
        if let Some(key) = node.key.filter(|_| voice.verbose) {
            voice.say(voice.paint(Paint::Dim, format_args!("        key {key}")));
        }
    }
    if let Some(device) = plan.device {
        voice.say(format_args!("device: {}:{}, {}", device.backend, device.index, device.precision));
    }
    let count = |state| plan.nodes.iter().filter(|node| node.state == state).count();
    voice.say(match (count(State::Run), count(State::Awaits)) {
        (0, 0) => format!("nothing to do: all {} results are in the cache", plan.nodes.len()),
        (run, 0) => format!("{run} of {} nodes to run", plan.nodes.len()),
        (run, awaits) => format!("{run} of {} nodes to run, then to be decided: {awaits}", plan.nodes.len()),
    });
    Ok(exit)
}

/// Plans `options` of `file`.
///
/// # Errors
/// See [`show`].
pub fn make(file: &PipelineFile, store: &Arc<Store>, options: &plan::Options) -> Result<plan::Plan, Trouble> {
    let machine = Machine::default();
    let digests = store.witness();
    plan::plan(&file.graph, store, &digests, &machine, options).map_err(|error| match error {
        PlanError::Device(message) => file.device_trouble(&machine, message),
        PlanError::Node { node, failure } => node_trouble(&node, failure),
    })
}

/// What a node's sources or inputs say against planning it.
fn node_trouble(node: &str, failure: Failure) -> Trouble {
    let message = format!("{node}: {failure}");
    match failure {
        Failure::Node { help, .. } | Failure::Environment { help, .. } => Trouble::usage(message).help(help),
        Failure::Interrupted => Trouble::usage(message),
    }
}

fn row(node: &NodePlan, voice: &Voice) -> Vec<String> {
    let (word, paint) = match node.state {
        State::Hit => ("hit", Paint::Good),
        State::Run => ("RUN", Paint::Busy),
        State::Awaits => ("awaits", Paint::Dim),
    };
    let mut why = Vec::new();
    // What is cached of a node that is to run is among its reasons.
    if let Some(items) = node.items.filter(|items| node.state == State::Hit || items.cached == 0) {
        why.push(format!("{} items", items.total));
    }
    why.extend(node.why.iter().map(|why| why.strip_prefix("awaits ").unwrap_or(why).to_owned()));
    vec![voice.paint(paint, word), node.node.clone(), voice.paint(Paint::Dim, &node.kind), why.join("; ")]
}

/// Says why a node would run.
///
/// # Errors
/// See [`plan`].
pub fn why(arguments: &Why, global: &Global, kinds: &Kinds, voice: &Voice) -> Result<Exit, Trouble> {
    let file = PipelineFile::read(&arguments.file, kinds, Data::Wanted)?;
    let target = file.node(&arguments.node)?;
    file.check_data(&[target])?;
    let store = read_cache(&global.cache)?;
    let plan = make(&file, &store, &plan::Options { targets: vec![target], ..plan::Options::default() })?;
    let Some(node) = plan.nodes.iter().find(|node| node.node == arguments.node) else { return Ok(Exit::Success) };
    let name = &node.node;
    let lines = |node: &NodePlan| node.why.iter().for_each(|why| voice.insist(format_args!("  {why}")));
    match node.state {
        State::Hit => {
            let record = node.key.map(|key| store.record(&key)).transpose();
            let record = record.map_err(|error| cache_trouble(&error))?.flatten();
            let made = record.map(|record| {
                let of = record.provenance;
                format!(": made {} by `{}` of {} in run {}", of.finished, of.node, of.pipeline, of.run)
            });
            voice.insist(format_args!("`{name}` would not run{}", made.unwrap_or_default()));
            lines(node);
        }
        State::Run => {
            voice.insist(format_args!("`{name}` would run:"));
            lines(node);
        }
        State::Awaits => {
            voice.insist(format_args!("`{name}` is decided when these have run:"));
            for above in plan.nodes.iter().filter(|node| node.state == State::Run) {
                voice.insist(format_args!("`{}` would run:", above.node));
                lines(above);
            }
        }
    }
    Ok(Exit::Success)
}

/// Draws the graph to standard output. Where nothing can be planned, it is drawn without colours.
///
/// # Errors
/// Mistakes in the file.
pub fn graph(arguments: &args::Graph, global: &Global, kinds: &Kinds, voice: &Voice) -> Result<Exit, Trouble> {
    let file = PipelineFile::read(&arguments.file, kinds, Data::Ignored)?;
    let states = states(&file, global).unwrap_or_else(|trouble| {
        if voice.verbose {
            voice.complain(&trouble);
        }
        voice.say("drawn without colours: what is to be done cannot be told here; `stic plan` says why");
        Vec::new()
    });
    write_out(&match arguments.format {
        Format::Mermaid => graph::mermaid(&file.graph, &states),
        Format::Dot => graph::dot(&file.graph, &states),
    })?;
    Ok(Exit::Success)
}

fn states(file: &PipelineFile, global: &Global) -> Result<Vec<graph::State>, Trouble> {
    file.check_data(&[])?;
    let store = read_cache(&global.cache)?;
    let plan = make(file, &store, &plan::Options::default())?;
    let state = |node: &NodePlan| match node.state {
        State::Hit => graph::State::Hit,
        State::Run => graph::State::Run,
        State::Awaits => graph::State::Awaits,
    };
    Ok(plan.nodes.iter().map(state).collect())
}
