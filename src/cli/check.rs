//! `stic check`: all that is wrong with a pipeline file.

use super::args::Check;
use super::pipeline::{Data, PipelineFile};
use super::voice::{Exit, Trouble, Voice};
use crate::node::Kinds;

/// Checks the file.
///
/// # Errors
/// All mistakes.
pub fn check(arguments: &Check, kinds: &Kinds, voice: &Voice) -> Result<Exit, Trouble> {
    let data = if arguments.without_data { Data::Ignored } else { Data::Wanted };
    let file = PipelineFile::read(&arguments.file, kinds, data)?;
    match data {
        Data::Wanted => {
            file.check_data(&[])?;
            file.say_remarks(&[], voice);
        }
        Data::Ignored => file.check_inputs()?,
    }
    let count = file.graph.nodes.len();
    let without = if arguments.without_data { ", its data and models unseen" } else { "" };
    let nodes = if count == 1 { "node" } else { "nodes" };
    voice.say(format_args!("{}: no mistakes in {count} {nodes}{without}", arguments.file.display()));
    Ok(Exit::Success)
}
