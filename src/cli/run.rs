//! `stic run`.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::args::{self, Global};
use super::compiling::Compiling;
use super::interrupt::Interrupt;
use super::pipeline::{Data, Devices, PipelineFile, cache_error, open_cache, read_cache};
use super::progress::Watch;
use super::summary::{self, RunSummary};
use super::ui::{CliError, Exit, Ui, write_lines};
use stic_engine::event::State;
use stic_engine::node::Kinds;
use stic_engine::run;
use stic_engine::{plan, run as engine};

/// Runs the pipeline.
///
/// # Errors
/// When the run could not start, or events could not be written. Failed nodes are reported when they fail, and by the
/// exit code.
pub fn run(arguments: &args::Run, global: &Global, kinds: &Kinds, ui: &Ui) -> Result<Exit, CliError> {
    let watch = Arc::new(Watch::new(*ui, arguments.json));
    let cache = global.cache(Some(&arguments.file));
    let cache_option = global.cache_option(&arguments.file);
    let interrupt = Interrupt::listen(
        {
            let watch = Arc::clone(&watch);
            move || watch.say("interrupted: finishing what is in flight; interrupt again to stop immediately")
        },
        {
            let (ui, message) = (*ui, summary::interrupted(&arguments.resume_command(&cache_option, &[])));
            move || ui.print(&message)
        },
    );
    let file = PipelineFile::read(&arguments.file, &arguments.settings, kinds, Data::Wanted)?;
    let targets = [arguments.targets.as_slice(), &arguments.until].concat();
    file.nodes(&[targets.as_slice(), &arguments.force].concat())?;
    let targets = file.nodes(&targets)?;
    let force: BTreeSet<usize> = file.nodes(&arguments.force)?.into_iter().collect();
    check_forced(&file, &targets, &force)?;
    file.check_data(&targets)?;
    let accept_numerics = arguments.accept_numerics.clone();
    let plan = plan::Options { targets, force, accept_numerics, ..plan::Options::default() };
    if arguments.dry_run {
        file.print_notes(&plan.targets, ui);
        let store = read_cache(&cache)?;
        return super::plan::show(&file, &store, &plan, &arguments.device, arguments.json, ui);
    }

    let store = open_cache(&cache)?;
    if arguments.locked {
        super::lock::check(&file, &plan.targets, &store)?;
    }
    let options = run::Options {
        plan,
        jobs: arguments.jobs.unwrap_or(run::Options::default().jobs),
        keep_going: arguments.keep_going,
        retries: arguments.retries,
        ..run::Options::default()
    };
    let _compiling = Compiling::watch({
        let watch = Arc::clone(&watch);
        move |line| watch.say(line)
    });
    let Devices { pools, lines } = file.devices(&options.plan.targets, &arguments.device)?;
    if !ui.quiet && !arguments.json {
        lines.iter().for_each(|line| ui.print_hanging("", line, 8));
    }
    let report = engine::run(&file.graph, &store, &pools, &options, watch.as_ref(), interrupt.run());
    interrupt.run_ended();
    let report = report.map_err(|error| cache_error(&error))?;
    if let Some(cause) = &report.not_kept {
        ui.print(format_args!("cannot save this run's summary: {cause}"));
    }
    let (cache, cache_option, device) = (cache.as_path(), cache_option.as_str(), arguments.device.written());
    let done: Vec<&str> =
        report.nodes.iter().filter(|node| node.how == State::Run).map(|node| node.node.as_str()).collect();
    let resume = arguments.resume_command(cache_option, &done);
    let options = arguments.settings.options() + &device + cache_option;
    let (graph, file) = (&file.graph, file.path.as_path());
    let summary = RunSummary { report: &report, graph, file, cache, options: &options, resume: &resume };
    if !ui.quiet && !arguments.json {
        let results = summary.results(&ui.for_stdout());
        if !results.is_empty() {
            ui.say("");
        }
        write_lines(&results)?;
    }
    summary.print(ui);
    if let Some(most) = arguments.cache_size.or(graph.max_cache).filter(|_| report.count(State::Run) > 0) {
        // The results are there whether or not others can be removed.
        if let Err(problem) = super::cache::bound(&store, most, ui) {
            ui.print_error(&problem);
        }
    }
    watch.written()?;
    Ok(if report.interrupted {
        interrupt.exit()
    } else if report.count(State::Failed) > 0 {
        Exit::Failure
    } else {
        Exit::Success
    })
}

/// Refuses `--force` for nodes that are not part of the run, or frozen, where it would have no effect.
fn check_forced(file: &PipelineFile, targets: &[usize], force: &BTreeSet<usize>) -> Result<(), CliError> {
    let needed = file.graph.needed(targets);
    let names = |wanted: &dyn Fn(usize) -> bool| -> Vec<String> {
        let forced = force.iter().filter(|index| wanted(**index));
        forced.map(|index| format!("`{}`", file.graph.nodes[*index].name)).collect()
    };
    let (outside, frozen) = (names(&|index| !needed[index]), names(&|index| file.graph.nodes[index].frozen));
    let it = |names: &[String]| if names.len() == 1 { "it" } else { "them" };
    if !outside.is_empty() {
        let it = it(&outside);
        let message = format!("cannot force {}: the targets do not need {it}", outside.join(", "));
        return Err(CliError::usage(message).help(format!("add {it} to the targets, or drop `--force` for {it}")));
    }
    if !frozen.is_empty() {
        let message = format!("cannot force {}: `freeze` keeps {}", frozen.join(", "), it(&frozen));
        return Err(CliError::usage(message).help("remove `freeze`, or set it: `-S NODE.freeze=false`".to_owned()));
    }
    Ok(())
}
