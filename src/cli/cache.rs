//! `stic cache stats`.

use super::args::{CacheCommand, Global};
use super::pipeline::{cache_error, read_cache};
use super::ui::{CliError, Exit, write_json, write_lines};

/// Prints the statistics of the cache.
///
/// # Errors
/// When it cannot be used.
pub fn cache(command: &CacheCommand, global: &Global) -> Result<Exit, CliError> {
    let CacheCommand::Stats { json } = command;
    let root = global.cache(None);
    let stats = read_cache(&root)?.stats().map_err(|error| cache_error(&error))?;
    if *json {
        write_json(&stats)?;
    } else {
        write_lines(&[root.display().to_string(), stats.to_string().trim_end().to_owned()])?;
    }
    Ok(Exit::Success)
}
