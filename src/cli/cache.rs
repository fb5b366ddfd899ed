//! `stic cache`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::Global;
use super::cache_args::{CacheCommand, Gc};
use super::pipeline::{cache_error, open_cache, read_cache};
use super::table::table;
use super::ui::{CliError, Exit, Ui, write_json, write_lines};
use stic_engine::diagnostic::counted;
use stic_engine::store::{Evicted, Eviction, Holder, Holders, Stats, Store, Verified, is_cache, readable};

/// How many kinds, pipelines, or damaged results are listed.
const LISTED: usize = 12;

/// How often the progress of a verification is printed.
const SAY_EVERY: Duration = Duration::from_secs(15);

/// Carries out `command` on the cache.
///
/// # Errors
/// When there is none, or it cannot be used.
pub fn cache(command: &CacheCommand, global: &Global, ui: &Ui) -> Result<Exit, CliError> {
    let root = global.cache(None);
    let reading = read_cache(&root)?;
    if !is_cache(&root).map_err(|error| cache_error(&error))? {
        return Err(CliError::usage(format!("no cache at `{}`", root.display()))
            .help("`stic run` creates it; `--cache` and STIC_CACHE name another one".to_owned()));
    }
    match command {
        CacheCommand::Stats { json } => stats(&reading, *json, ui),
        CacheCommand::Gc(arguments) => gc(&root, arguments),
        CacheCommand::Verify { dry_run, json } => {
            let store = if *dry_run { reading } else { open_cache(&root)? };
            verify(&store, *json, ui)
        }
    }
}

#[derive(Serialize)]
struct AllStats {
    #[serde(flatten)]
    stats: Stats,
    #[serde(flatten)]
    holders: Holders,
}

fn stats(cache: &Store, json: bool, ui: &Ui) -> Result<Exit, CliError> {
    let read = || Ok(AllStats { stats: cache.stats()?, holders: cache.holders()? });
    let all = read().map_err(|error| cache_error(&error))?;
    if json {
        write_json(&all)?;
        return Ok(Exit::Success);
    }
    let mut lines = vec![cache.root().display().to_string(), all.stats.to_string().trim_end().to_owned()];
    for (name, holders) in [("kind", &all.holders.kinds), ("pipeline", &all.holders.pipelines)] {
        if !holders.is_empty() {
            lines.push(String::new());
            lines.extend(holders_table(name, holders, ui.for_stdout().width));
        }
    }
    let unneeded = all.holders.unneeded;
    lines.push(String::new());
    lines.push(format!(
        "{} in {} that nothing needs: `stic cache gc` removes them, and with `--max-size` or `--older-than` also results \
         that were not used lately",
        readable(unneeded.bytes),
        counted(unneeded.count, "object"),
    ));
    write_lines(&lines)?;
    Ok(Exit::Success)
}

fn holders_table(name: &str, holders: &[Holder], width: usize) -> Vec<String> {
    let head = [name, "results", "size"].map(str::to_owned).to_vec();
    let row = |holder: &Holder| vec![holder.name.clone(), holder.count.to_string(), readable(holder.bytes)];
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(holders.iter().take(LISTED).map(row)).collect();
    let mut lines = table(&rows, true, width);
    if holders.len() > LISTED {
        lines.push(format!("and {} more", holders.len() - LISTED));
    }
    lines
}

fn gc(root: &Path, arguments: &Gc) -> Result<Exit, CliError> {
    let Gc { max_size, older_than, keep_runs, dry_run, json } = *arguments;
    let eviction = Eviction { max_size, older_than, keep_runs, dry_run };
    let store = open_cache(root)?;
    let evicted = store.prepare().and_then(|()| store.evict(&eviction)).map_err(|error| cache_error(&error))?;
    if json {
        write_json(&evicted)?;
        return Ok(Exit::Success);
    }
    let mut lines: Vec<String> = evicted.to_string().lines().map(str::to_owned).collect();
    if dry_run {
        lines.push("nothing was removed: without `--dry-run` it will be".to_owned());
    }
    lines.extend(stayed(&evicted, &eviction));
    write_lines(&lines)?;
    Ok(Exit::Success)
}

/// Why a cache is larger than it is to be.
fn stayed(evicted: &Evicted, eviction: &Eviction) -> Option<String> {
    let most = eviction.max_size.filter(|_| evicted.too_large)?;
    let mut users = vec!["frozen nodes".to_owned()];
    users.extend((evicted.live_runs > 0).then(|| counted(evicted.live_runs, "run") + " in progress"));
    if eviction.keep_runs > 0 {
        users.push(format!("the last {} of each pipeline (`--keep-runs`)", counted(eviction.keep_runs, "run")));
    }
    let (most, users) = (readable(most), users.join(", "));
    Some(format!("still larger than {most}: logs of runs stay, and what is used by {users}"))
}

/// Removes what makes the cache larger than `most`, after a run; the results of that run stay.
///
/// # Errors
/// When the cache cannot be read, or something cannot be removed.
pub fn bound(store: &Arc<Store>, most: u64, ui: &Ui) -> Result<(), CliError> {
    let eviction = Eviction { max_size: Some(most), keep_runs: 1, ..Eviction::default() };
    let is_small = |store: &Store| store.stats().map(|stats| stats.bytes() <= most);
    if is_small(store).map_err(|error| cache_error(&error))? {
        return Ok(());
    }
    let evicted = store.evict(&eviction).map_err(|error| cache_error(&error))?;
    let (removed, left) = (readable(evicted.bytes()), readable(evicted.left));
    ui.say(format_args!("removed {removed} of old results from the cache, which holds {left}"));
    stayed(&evicted, &eviction).into_iter().for_each(|line| ui.print(line));
    Ok(())
}

fn verify(store: &Store, json: bool, ui: &Ui) -> Result<Exit, CliError> {
    let (read, begun, said) = (AtomicU64::new(0), Instant::now(), AtomicU64::new(1));
    let progress = |bytes: u64| {
        let read = read.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let due = begun.elapsed().as_secs() / SAY_EVERY.as_secs();
        if due >= said.load(Ordering::Relaxed) {
            said.store(due + 1, Ordering::Relaxed);
            ui.say(format_args!("{} checked", readable(read)));
        }
    };
    let found = store.verify(&progress).map_err(|error| cache_error(&error))?;
    if json {
        write_json(&found)?
    } else {
        write_lines(&verified(&found))?
    }
    Ok(if found.is_sound() { Exit::Success } else { Exit::Failure })
}

fn verified(found: &Verified) -> Vec<String> {
    let Verified { sound, damaged_objects, damaged_records, incomplete, broken_lines, removed } = found;
    let mut lines =
        vec![format!("{} ({}) as they were written", counted(sound.count, "object"), readable(sound.bytes))];
    let done = if *removed { "removed" } else { "not removed" };
    for (what, digests) in [("object", damaged_objects), ("record", damaged_records)] {
        if !digests.is_empty() {
            lines.push(format!("{} damaged, and {done}:", counted(digests.len(), what)));
            lines.extend(digests.iter().take(LISTED).map(|digest| format!("  {digest}")));
            lines.extend((digests.len() > LISTED).then(|| format!("  and {} more", digests.len() - LISTED)));
        }
    }
    if !incomplete.is_empty() {
        lines.push(format!("{} that will be computed again when needed:", counted(incomplete.len(), "result")));
        let line = |it: &stic_engine::store::Incomplete| {
            format!("  `{}` of {}, which lacks {}", it.node, it.pipeline, counted(it.objects, "object"))
        };
        lines.extend(incomplete.iter().take(LISTED).map(line));
        lines.extend((incomplete.len() > LISTED).then(|| format!("  and {} more", incomplete.len() - LISTED)));
    }
    if *broken_lines > 0 {
        lines.push(format!("{} torn in journals, as a killed process leaves them", counted(*broken_lines, "line")));
    }
    lines
}
