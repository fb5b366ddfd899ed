//! `stic export`: writes a node's result from the cache in a form that other programs read.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::{Export, Global};
use super::pipeline::{Data, PipelineFile, cache_error, read_cache};
use super::shell;
use super::ui::{CliError, Exit, Ui, write_json};
use crate::nodes;
use stic_engine::digest::Digest;
use stic_engine::event::State;
use stic_engine::node::{Artifact, Failure, Kinds};
use stic_engine::plan;
use stic_engine::store::{Record, Store, StoredObject};

/// Exports the result of the current pipeline. An older result is not used, even if the pipeline cannot be planned now
/// or the node would run.
///
/// # Errors
/// When the node has not run yet, or the directory holds something else.
pub fn export(arguments: &Export, global: &Global, kinds: &Kinds, ui: &Ui) -> Result<Exit, CliError> {
    let file = PipelineFile::read(&arguments.file, &arguments.settings, kinds, Data::Wanted)?;
    let target = file.node(&arguments.node)?;
    let name = file.graph.nodes[target].name.as_str();
    file.check_data(&[target])?;
    let cache = global.cache(Some(&arguments.file));
    let store = read_cache(&cache)?;
    let options = plan::Options { targets: vec![target], ..plan::Options::default() };
    let plan = super::plan::make(&file, &store, &file.devices(&options.targets, &arguments.device)?.pools, &options)?;
    let node = plan.iter().find(|node| node.node == name && node.state == State::Hit);
    let record = node.and_then(|node| node.key).map(|key| store.record(&key)).transpose();
    let Some(record) = record.map_err(|error| cache_error(&error))?.flatten() else {
        let (path, option) = (shell::path(&arguments.file), options_of(arguments, global));
        let run = format!("run it first: stic run {path} {}{option}", shell::word(name));
        let message = format!("the current pipeline has no result of `{name}` in the cache `{}`", cache.display());
        return Err(CliError::usage(message).help(run));
    };

    let Record { content, identity, side, objects, .. } = record;
    let kind = file.graph.nodes[target].output;
    let artifact = Artifact { node: name.to_owned(), kind, content, identity, side };
    let mut labels = Vec::new();
    let witness = store.witness();
    let needed = file.graph.needed(&[target]);
    for node in file.graph.nodes.iter().zip(&needed).filter(|(_, needed)| **needed).map(|(node, _)| node) {
        labels.extend(node.node.labels(&witness).map_err(failed)?);
    }
    let base_model = file.graph.nodes[target].node.origin();

    let folder = &arguments.folder;
    if folder.exists() && !folder.is_dir() {
        return Err(CliError::usage(format!("{} is not a directory", folder.display()))
            .help("name a new or empty directory".to_owned()));
    }
    // Written to a temporary directory first, so that a failure leaves no partial export. Inside the target, because
    // its parent may be read-only or on another file system.
    let created = !folder.exists();
    fs::create_dir_all(folder).map_err(io(folder))?;
    let written =
        tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(folder).map_err(io(folder)).and_then(|fresh| {
            nodes::export(&artifact, &*store, &labels, base_model, fresh.path())
                .map_err(|failure| damage(&cache, &objects, arguments, global).unwrap_or_else(|| failed(failure)))?;
            let new = files(fresh.path()).map_err(io(fresh.path()))?;
            Ok((fresh, new))
        });
    let (fresh, new) = match written {
        Ok(written) => written,
        Err(problem) => {
            if created {
                // Only if it is empty.
                let _ = fs::remove_dir(folder);
            }
            return Err(problem);
        }
    };

    let others = others(folder, &new).map_err(io(folder))?;
    let same = |(relative, digest): (&PathBuf, &Digest)| Digest::of_file(&folder.join(relative)).ok() == Some(*digest);
    let reported = |written: bool| {
        let files: Vec<String> = new.keys().map(|file| file.display().to_string()).collect();
        json!({
            "node": name,
            "kind": kind.name,
            "folder": folder.display().to_string(),
            "files": files,
            "written": written,
        })
    };
    if !others && new.iter().all(same) {
        if arguments.json {
            write_json(&reported(false))?;
        } else {
            ui.say(format_args!("{} already holds this result", folder.display()));
        }
        return Ok(Exit::Success);
    }
    let taken = new.keys().any(|relative| folder.join(relative).exists());
    if (others || taken) && !arguments.force {
        return Err(CliError::usage(format!("{} is not empty and holds something else", folder.display()))
            .help("name a new directory, or use `--force` to replace files of the same name".to_owned()));
    }
    for relative in new.keys() {
        put(&fresh.path().join(relative), &folder.join(relative))?;
    }
    if arguments.json {
        write_json(&reported(true))?;
        return Ok(Exit::Success);
    }
    ui.say(format_args!("{}: {} of `{}`", folder.display(), kind, name));
    contents(new.keys()).iter().for_each(|line| ui.say(format_args!("  {line}")));
    Ok(Exit::Success)
}

/// The files of a result, and the number of files in each subfolder.
fn contents<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut folders: BTreeMap<String, usize> = BTreeMap::new();
    for file in files {
        match file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            Some(folder) => *folders.entry(folder.display().to_string()).or_default() += 1,
            None => lines.push(file.display().to_string()),
        }
    }
    let counted =
        |(folder, count): (String, usize)| format!("{folder}/: {count} {}", if count == 1 { "file" } else { "files" });
    lines.extend(folders.into_iter().map(counted));
    lines
}

/// Removes damaged ones of `objects`, the parts of a result that could not be exported, so that running the node again
/// replaces them: the cache only checks that objects exist and have the right size.
fn damage(cache: &Path, objects: &[StoredObject], arguments: &Export, global: &Global) -> Option<CliError> {
    let store = Store::open(cache).ok()?;
    let removed =
        store.remove_damaged(objects.iter().map(|object| object.digest)).ok().filter(|removed| *removed > 0)?;
    let (node, path, option) = (&arguments.node, shell::path(&arguments.file), options_of(arguments, global));
    let were = if removed == 1 { "1 object was" } else { &format!("{removed} objects were") };
    Some(
        CliError::failure(format!("{were} damaged in the result of `{node}`, and removed from the cache"))
            .help(format!("run the node again, then export it: stic run {path} {}{option}", shell::word(node))),
    )
}

/// The options with which another command finds the same result.
fn options_of(arguments: &Export, global: &Global) -> String {
    arguments.settings.options() + &arguments.device.written() + &global.cache_option(&arguments.file)
}

fn failed(failure: Failure) -> CliError {
    let message = failure.to_string();
    match failure {
        Failure::Node { help, .. } | Failure::Environment { help, .. } => CliError::failure(message).help(help),
        Failure::Interrupted => CliError::failure(message),
    }
}

/// Prefix of the temporary directories of exports.
const UNFINISHED: &str = ".stic-export-";

/// Whether `folder` holds anything but the files in `new`, unfinished exports, and `lost+found`.
fn others(folder: &Path, new: &BTreeMap<PathBuf, Digest>) -> std::io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let ours = new.keys().any(|relative| relative.iter().next() == Some(&name));
        let passing = name == "lost+found" || name.to_string_lossy().starts_with(UNFINISHED);
        if !ours && !passing {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Moves the file `from` to `to`, across file systems if need be.
fn put(from: &Path, to: &Path) -> Result<(), CliError> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(io(parent))?;
    }
    let renamed = match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => fs::copy(from, to).map(drop),
        renamed => renamed,
    };
    renamed.map_err(io(to))
}

/// The error of writing `path`. The partial export is removed; the result stays in the cache.
fn io(path: &Path) -> impl Fn(std::io::Error) -> CliError {
    let name = path.display().to_string();
    move |cause| {
        let full = matches!(cause.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        let problem = CliError::io(format!("{name}: {cause}"), &cause);
        if full { problem.help("free some space, or name a directory on another disk".to_owned()) } else { problem }
    }
}

/// The files under `folder` and the digests of their content.
fn files(folder: &Path) -> std::io::Result<BTreeMap<PathBuf, Digest>> {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry?;
        if entry.file_type().is_file() {
            let relative = entry.path().strip_prefix(folder).unwrap_or(entry.path()).to_owned();
            files.insert(relative, Digest::of_file(entry.path())?);
        }
    }
    Ok(files)
}
