//! The command line, one file per command. This is where the engine, the kinds of node and the model meet.

mod args;
mod cache;
mod cache_args;
mod check;
mod compiling;
mod curve;
mod device;
mod devices;
mod export;
mod generate;
mod interrupt;
mod kinds;
mod lock;
mod model;
mod parity;
mod pipeline;
mod plan;
mod progress;
mod results;
mod run;
mod score;
#[cfg(test)]
mod second_family;
mod shell;
mod summary;
mod table;
mod ui;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::FromArgMatches;

use self::args::{Arguments, Command};
use self::ui::{CliError, Exit, Ui};
use stic_engine::node::Kinds;

/// Runs the command in `arguments`, which start with the program's name, with these `kinds` of node.
pub fn main(arguments: impl IntoIterator<Item = OsString>, kinds: &Kinds) -> ExitCode {
    let matched = args::command().try_get_matches_from(arguments);
    let arguments = match matched.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Requested help goes to standard output, everything else to standard error.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Success }.into();
        }
    };
    let ui = Ui::new(&arguments.global);
    interrupt::ignore_file_size_signal();
    match dispatch(&arguments, kinds, &ui) {
        Ok(exit) => exit.into(),
        Err(problem) => {
            ui.print_error(&problem);
            problem.exit.into()
        }
    }
}

fn dispatch(arguments: &Arguments, kinds: &Kinds, ui: &Ui) -> Result<Exit, CliError> {
    let global = &arguments.global;
    match &arguments.command {
        Command::Run(arguments) => run::run(arguments, global, kinds, ui),
        Command::Check(arguments) => check::check(arguments, kinds, ui),
        Command::Plan(arguments) => plan::plan(arguments, global, kinds, ui),
        Command::Why(arguments) => plan::why(arguments, global, kinds, ui),
        Command::Graph(arguments) => plan::graph(arguments, global, kinds, ui),
        Command::Table(arguments) => results::results(arguments, global, kinds, ui),
        Command::Export(arguments) => export::export(arguments, global, kinds, ui),
        Command::Cache(arguments) => cache::cache(&arguments.command, global, ui),
        Command::Lock(arguments) => lock::lock(arguments, global, kinds, ui.quiet),
        Command::Kinds(arguments) => kinds::kinds(arguments, kinds, ui),
        Command::Schema => kinds::print_schema(kinds),
        Command::Devices(arguments) => match arguments.test {
            Some(name) => parity::test(name, arguments.json, ui),
            None => devices::devices(arguments.json, ui),
        },
        Command::TryDevice { device } => device::try_device(*device).map(|()| Exit::Success),
        Command::Generate(arguments) => generate::generate(arguments, ui),
        Command::Score(arguments) => score::score(arguments, ui),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut args::command(), "stic", &mut script);
            ui::write_out(&String::from_utf8_lossy(&script))?;
            Ok(Exit::Success)
        }
    }
}
