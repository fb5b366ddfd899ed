//! `stic check`.

use serde_json::{Value, json};

use super::args::Check;
use super::device::Override;
use super::pipeline::{Data, PipelineFile};
use super::ui::{CliError, Exit, Paint, Ui, write_json, write_out};
use stic_engine::diagnostic::{Diagnostic, Label, Place, Sources};
use stic_engine::node::Kinds;

/// Checks the file.
///
/// # Errors
/// All mistakes.
pub fn check(arguments: &Check, kinds: &Kinds, ui: &Ui) -> Result<Exit, CliError> {
    match checked(arguments, kinds, ui) {
        Err(mut problem) if arguments.json => {
            problem.mistakes.sort_by_key(Diagnostic::start);
            for mistake in &problem.mistakes {
                write_json(&as_json(mistake, &arguments.file.display().to_string(), &problem.sources))?;
            }
            Ok(problem.exit)
        }
        Err(problem) => Err(problem),
        Ok(count) => {
            let without = if arguments.without_data { " (data and models were not checked)" } else { "" };
            let nodes = if count == 1 { "node" } else { "nodes" };
            if !arguments.json && !ui.quiet {
                write_out(&format!("{}: no mistakes in {count} {nodes}{without}\n", arguments.file.display()))?;
            }
            Ok(Exit::Success)
        }
    }
}

/// The number of nodes in the file, if there are no mistakes.
fn checked(arguments: &Check, kinds: &Kinds, ui: &Ui) -> Result<usize, CliError> {
    let data = if arguments.without_data { Data::Ignored } else { Data::Wanted };
    let file = PipelineFile::read(&arguments.file, &arguments.settings, kinds, data)?;
    match data {
        Data::Wanted => {
            file.check_data(&[])?;
            file.print_notes(&[], ui);
        }
        Data::Ignored => file.check_inputs()?,
    }
    // The file may be for another machine. A mistaken STIC_DEVICE is none of the file.
    Override::new(&arguments.device)?;
    for mistake in file.devices(&[], &arguments.device).err().iter().flat_map(|problem| &problem.mistakes) {
        let word = ui.paint(Paint::Busy, format_args!("{:<7}", "note"));
        ui.print_hanging(&format!("{word} "), &format!("cannot run here: {}", mistake.message), 8);
    }
    Ok(file.graph.nodes.len())
}

/// A mistake as JSON. Lines and columns count from 1, columns in characters; a place that is not in the file names its own.
fn as_json(mistake: &Diagnostic, file: &str, sources: &Sources) -> Value {
    let place = |label: &Label| {
        let Place { name, line, column } = sources.place(label.span.start)?;
        let text = sources.written(&label.span);
        let mut place = json!({ "line": line, "column": column, "text": text, "label": label.text });
        if name != file {
            place["file"] = json!(name);
        }
        Some(place)
    };
    let places: Vec<Value> = mistake.labels.iter().filter_map(place).collect();
    json!({ "file": file, "message": mistake.message, "help": mistake.help, "places": places })
}
