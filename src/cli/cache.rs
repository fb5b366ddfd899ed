//! `stic cache stats`.

use super::args::{CacheCommand, Global};
use super::pipeline::{cache_error, read_cache};
use super::ui::{CliError, Exit, write_json, write_lines};
use stic_engine::store::is_cache;

/// Prints the statistics of the cache.
///
/// # Errors
/// When there is none, or it cannot be used.
pub fn cache(command: &CacheCommand, global: &Global) -> Result<Exit, CliError> {
    let CacheCommand::Stats { json } = command;
    let root = global.cache(None);
    let cache = read_cache(&root)?;
    if !is_cache(&root).map_err(|error| cache_error(&error))? {
        return Err(CliError::usage(format!("no cache at `{}`", root.display()))
            .help("`stic run` creates it; `--cache` and STIC_CACHE name another one".to_owned()));
    }
    let stats = cache.stats().map_err(|error| cache_error(&error))?;
    if *json {
        write_json(&stats)?;
    } else {
        write_lines(&[
            root.display().to_string(),
            stats.to_string().trim_end().to_owned(),
            "To free the space, delete this directory while nothing runs: results are computed again when needed."
                .to_owned(),
        ])?;
    }
    Ok(Exit::Success)
}
