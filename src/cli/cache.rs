//! `stic cache stats`.

use super::args::{CacheCommand, Global};
use super::pipeline::read_cache;
use super::voice::{Exit, Trouble, write_json, write_out};

/// Looks after the cache.
///
/// # Errors
/// When it cannot be used.
pub fn cache(command: &CacheCommand, global: &Global) -> Result<Exit, Trouble> {
    let CacheCommand::Stats { json } = command;
    let root = global.cache(None);
    let stats = read_cache(&root)?.stats();
    if *json {
        write_json(&stats)?;
    } else {
        write_out(&format!("{}\n{}\n", root.display(), stats.to_string().trim_end()))?;
    }
    Ok(Exit::Success)
}
