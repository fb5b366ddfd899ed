//! `stic plan`, `stic run -n`, `stic why` and `stic graph`: what would run, as a list, for one node, and as a graph.

use std::sync::Arc;

use super::args::{self, DeviceOptions, Format, Global, Why};
use super::pipeline::{Data, Devices, PipelineFile, cache_error, read_cache};
use super::table::{table, wrapped};
use super::ui::{CliError, Exit, Paint, Ui, write_json, write_lines, write_out};
use stic_engine::diagnostic::counted;
use stic_engine::event::State;
use stic_engine::graph;
use stic_engine::node::{Failure, Kinds};
use stic_engine::plan::{self, NodePlan};
use stic_engine::pool::Pools;
use stic_engine::store::Store;

/// Plans the pipeline and prints the plan.
///
/// # Errors
/// Mistakes in the file, a cache or a device that cannot be used.
pub fn plan(arguments: &args::Plan, global: &Global, kinds: &Kinds, ui: &Ui) -> Result<Exit, CliError> {
    let file = PipelineFile::read(&arguments.file, &arguments.settings, kinds, Data::Wanted)?;
    let options = plan::Options {
        targets: file.nodes(&arguments.targets)?,
        accept_numerics: arguments.accept_numerics.clone(),
        ..plan::Options::default()
    };
    file.check_data(&options.targets)?;
    file.print_notes(&options.targets, ui);
    let store = read_cache(&global.cache(Some(&arguments.file)))?;
    show(&file, &store, &options, &arguments.device, arguments.json, ui)
}

/// Prints what would run of `file`, for people or as JSON.
///
/// # Errors
/// A device that cannot be used, sources that cannot be read.
pub fn show(
    file: &PipelineFile,
    store: &Arc<Store>,
    options: &plan::Options,
    device: &DeviceOptions,
    json: bool,
    ui: &Ui,
) -> Result<Exit, CliError> {
    let Devices { pools, lines: devices } = file.devices(&options.targets, device)?;
    let plan = make(file, store, &pools, options)?;
    let exit = if plan.iter().all(|node| node.state == State::Hit) { Exit::Success } else { Exit::Pending };
    if json {
        plan.iter().try_for_each(write_json)?;
        return Ok(exit);
    }
    if ui.quiet {
        return Ok(exit);
    }
    let ui = &ui.for_stdout();
    let mut rows = Vec::new();
    for node in &plan {
        rows.push(row(node, ui));
        if let Some(key) = node.key.filter(|_| ui.verbose) {
            rows.push(vec![String::new(), ui.paint(Paint::Dim, "key"), String::new(), key.to_string()]);
        }
    }
    let mut lines = table(&rows, false, ui.width);
    lines.extend(devices.iter().flat_map(|line| wrapped(line, ui.width)));
    let count = |state| plan.iter().filter(|node| node.state == state).count();
    let all = plan.len();
    let reported = match (count(State::Run), count(State::Awaits)) {
        (0, 0) if all == 1 => "nothing to do: the result is in the cache".to_owned(),
        (0, 0) => format!("nothing to do: all {all} results are in the cache"),
        (run, 0) => format!("{run} of {} to run", counted(all, "node")),
        (run, awaits) => format!("{run} of {} to run; {awaits} to be decided after that", counted(all, "node")),
    };
    lines.push(reported);
    if plan.iter().all(is_new) {
        lines.extend(wrapped(
            &format!("the cache `{}` has no results of this pipeline", store.root().display()),
            ui.width,
        ));
    }
    write_lines(&lines)?;
    Ok(exit)
}

/// Plans `options` of `file`.
///
/// # Errors
/// See [`show`].
pub fn make(
    file: &PipelineFile,
    store: &Arc<Store>,
    pools: &Pools,
    options: &plan::Options,
) -> Result<Vec<NodePlan>, CliError> {
    plan::plan(&file.graph, store, &store.witness(), pools, options)
        .map_err(|(node, failure)| node_error(&node, failure))
}

/// A node whose sources or inputs prevent planning.
fn node_error(node: &str, failure: Failure) -> CliError {
    let message = format!("{node}: {failure}");
    match failure {
        Failure::Node { help, .. } => CliError::usage(message).help(help),
        // The cause is not in the file.
        Failure::Environment { help, .. } => CliError::failure(message).help(help),
        Failure::Interrupted => CliError::failure(message),
    }
}

fn row(node: &NodePlan, ui: &Ui) -> Vec<String> {
    let (word, paint) = match node.state {
        State::Hit => ("hit", Paint::Good),
        State::Run => ("RUN", Paint::Busy),
        State::Awaits | State::Failed | State::Skipped => ("awaits", Paint::Dim),
    };
    let mut why = Vec::new();
    // If items are cached, the node's reasons give the counts.
    if let Some(items) = node.items.filter(|items| node.state == State::Hit || items.cached == 0) {
        why.push(counted(items.total, "item"));
    }
    // `stic why` prints the rest of the reason.
    let first = |why: &String| why.lines().next().unwrap_or_default().trim_start_matches("awaits ").to_owned();
    why.extend(node.why.iter().map(first));
    vec![ui.paint(paint, word), node.node.clone(), ui.paint(Paint::Dim, &node.kind), why.join("; ")]
}

/// Prints why a node would run.
///
/// # Errors
/// See [`plan`].
pub fn why(arguments: &Why, global: &Global, kinds: &Kinds, ui: &Ui) -> Result<Exit, CliError> {
    let file = PipelineFile::read(&arguments.file, &arguments.settings, kinds, Data::Wanted)?;
    let targets = file.instances(&arguments.node)?;
    file.check_data(&targets)?;
    let store = read_cache(&global.cache(Some(&arguments.file)))?;
    let options = plan::Options { targets, thorough: ui.verbose, ..plan::Options::default() };
    let plan = make(&file, &store, &file.devices(&options.targets, &arguments.device)?.pools, &options)?;
    let wanted = |node: &&NodePlan| options.targets.iter().any(|target| file.graph.nodes[*target].name == node.node);
    let nodes: Vec<&NodePlan> = plan.iter().filter(wanted).collect();
    let awaits = nodes.iter().any(|node| node.state == State::Awaits);
    let above: Vec<&NodePlan> =
        plan.iter().filter(|above| awaits && above.state == State::Run && !wanted(above)).collect();
    if arguments.json {
        above.into_iter().chain(nodes).try_for_each(write_json)?;
        return Ok(Exit::Success);
    }
    let ui = &ui.for_stdout();
    let mut lines = Vec::new();
    for node in nodes.iter().filter(|node| node.state != State::Awaits) {
        lines.extend(outcome(node, &store, ui)?);
    }
    let names: Vec<String> =
        nodes.iter().filter(|node| node.state == State::Awaits).map(|node| format!("`{}`", node.node)).collect();
    if awaits {
        let depends = if names.len() == 1 { "depends" } else { "depend" };
        let reported = format!("{} {depends} on nodes that have to run first:", names.join(", "));
        lines.extend(wrapped(&reported, ui.width));
        for above in above {
            lines.push(format!("`{}` would run:", above.node));
            lines.extend(reasons(above, ui));
        }
    }
    if plan.iter().all(is_new) {
        let cache = store.root().display();
        lines.extend(wrapped(&format!("the cache `{cache}` has no results of `{}`", file.graph.name), ui.width));
    }
    write_lines(&lines)?;
    Ok(Exit::Success)
}

/// Whether a node would run, and why.
fn outcome(node: &NodePlan, store: &Arc<Store>, ui: &Ui) -> Result<Vec<String>, CliError> {
    let name = &node.node;
    if node.state != State::Hit {
        return Ok(std::iter::once(format!("`{name}` would run:")).chain(reasons(node, ui)).collect());
    }
    let record = node.key.map(|key| store.record(&key)).transpose();
    let record = record.map_err(|error| cache_error(&error))?.flatten();
    let made = record.map(|record| {
        let of = record.provenance;
        format!(": its result was computed {} by `{}` of {} in run {}", of.finished, of.node, of.pipeline, of.run)
    });
    let mut lines = wrapped(&format!("`{name}` would not run{}", made.unwrap_or_default()), ui.width);
    lines.extend(reasons(node, ui));
    Ok(lines)
}

/// Whether the cache has nothing related to the node, as far as is known.
fn is_new(node: &NodePlan) -> bool {
    match node.state {
        State::Hit => false,
        State::Run => node.why == ["new"],
        State::Awaits | State::Failed | State::Skipped => true,
    }
}

/// Why a node would run, one paragraph per reason; added and removed lines are colored.
fn reasons(node: &NodePlan, ui: &Ui) -> Vec<String> {
    let mut lines = Vec::new();
    for reason in &node.why {
        for (index, line) in reason.lines().enumerate() {
            let indent = if index == 0 { 2 } else { 4 };
            let painted = match line.chars().next().filter(|_| index > 0) {
                Some('-') => ui.paint(Paint::Bad, line),
                Some('+') => ui.paint(Paint::Good, line),
                _ => line.to_owned(),
            };
            for (part, line) in wrapped(&painted, ui.width.saturating_sub(indent + 2).max(20)).into_iter().enumerate() {
                lines.push(format!("{}{line}", " ".repeat(if part == 0 { indent } else { indent + 2 })));
            }
        }
    }
    lines
}

/// Prints the graph to standard output, without colors if planning fails.
///
/// # Errors
/// Mistakes in the file.
pub fn graph(arguments: &args::Graph, global: &Global, kinds: &Kinds, ui: &Ui) -> Result<Exit, CliError> {
    let file = PipelineFile::read(&arguments.file, &arguments.settings, kinds, Data::Ignored)?;
    let states = states(&file, &arguments.device, global).unwrap_or_else(|problem| {
        if ui.verbose {
            ui.print_error(&problem);
        }
        let reported = "drawn without colors, because planning failed; `stic plan` shows the error";
        ui.print_hanging("", reported, 2);
        Vec::new()
    });
    write_out(&match arguments.format {
        Format::Mermaid => graph::mermaid(&file.graph, &states),
        Format::Dot => graph::dot(&file.graph, &states),
    })?;
    Ok(Exit::Success)
}

fn states(file: &PipelineFile, device: &DeviceOptions, global: &Global) -> Result<Vec<State>, CliError> {
    file.check_data(&[])?;
    let store = read_cache(&global.cache(Some(&file.path)))?;
    let plan = make(file, &store, &file.devices(&[], device)?.pools, &plan::Options::default())?;
    Ok(plan.iter().map(|node| node.state).collect())
}
