//! `stic cache stats`.

use super::args::{CacheCommand, Global};
use super::pipeline::read_cache;
use super::voice::{Exit, Trouble, Voice, write_json};

/// Looks after the cache.
///
/// # Errors
/// When it cannot be used.
pub fn cache(command: &CacheCommand, global: &Global, voice: &Voice) -> Result<Exit, Trouble> {
    let CacheCommand::Stats { json } = command;
    let stats = read_cache(&global.cache)?.stats();
    if *json {
        write_json(&stats)?;
    } else {
        voice.insist(format_args!("{}", stats.to_string().trim_end()));
    }
    Ok(Exit::Success)
}
