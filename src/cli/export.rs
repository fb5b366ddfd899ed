//! `stic export`: a node's result out of the cache, in the form that other programs read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::args::{Export, Global};
use super::pipeline::{Data, PipelineFile, open_cache};
use super::voice::{Exit, Trouble, Voice};
use crate::digest::Digest;
use crate::node::{Artifact, Failure, Kinds};
use crate::nodes;
use crate::plan::{self, State};
use crate::store::Record;

/// Writes the result that the pipeline, as it stands, has for the node; where nothing can be planned (its data has
/// moved), or it would run, the last one that it had is not taken for it.
///
/// # Errors
/// When the node was not run yet, or the folder holds something else.
pub fn export(arguments: &Export, global: &Global, kinds: &Kinds, voice: &Voice) -> Result<Exit, Trouble> {
    let file = PipelineFile::read(&arguments.file, kinds, Data::Wanted)?;
    let target = file.node(&arguments.node)?;
    file.check_data(&[target])?;
    let store = open_cache(&global.cache)?;
    let options = plan::Options { targets: vec![target], ..plan::Options::default() };
    let plan = super::plan::make(&file, &store, &options)?;
    let node = plan.nodes.iter().find(|node| node.node == arguments.node && node.state == State::Hit);
    let Some(record) = node.and_then(|node| node.key).and_then(|key| store.record(&key)) else {
        let (path, cache) = (arguments.file.display(), global.cache_option());
        let run = format!("run it first: stic run {path} {}{cache}", arguments.node);
        return Err(
            Trouble::usage(format!("`{}` has no result for the pipeline as it stands", arguments.node)).help(run)
        );
    };

    let Record { content, identity, side, .. } = record;
    let kind = file.graph.nodes[target].output;
    let artifact = Artifact { node: arguments.node.clone(), kind, content, identity, side };
    // Written beside the folder first, so that a failure leaves no half of it.
    let folder = &arguments.folder;
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let io = |path: &Path| {
        let name = path.display().to_string();
        move |cause: std::io::Error| Trouble::io(format!("{name}: {cause}"), &cause)
    };
    if folder.exists() && !folder.is_dir() {
        return Err(Trouble::usage(format!("{} is not a folder", folder.display()))
            .help("name a new folder, or an empty one".to_owned()));
    }
    fs::create_dir_all(parent).map_err(io(parent))?;
    let fresh = tempfile::Builder::new().prefix(".stic-export-").tempdir_in(parent).map_err(io(parent))?;
    nodes::export(&artifact, &*store, fresh.path()).map_err(failed)?;

    let new = files(fresh.path()).map_err(io(fresh.path()))?;
    let old = if folder.is_dir() { files(folder).map_err(io(folder))? } else { BTreeMap::new() };
    if old == new {
        voice.say(format_args!("{} holds this very result already", folder.display()));
        return Ok(Exit::Success);
    }
    if !old.is_empty() && !arguments.force {
        return Err(Trouble::usage(format!("{} is not empty, and holds something else", folder.display()))
            .help("name a new folder, or give `--force` to replace files of the same name".to_owned()));
    }
    for relative in new.keys() {
        let (from, to) = (fresh.path().join(relative), folder.join(relative));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(io(parent))?;
        }
        fs::rename(&from, &to).map_err(io(&to))?;
    }
    voice.say(format_args!("{}: {} of `{}`", folder.display(), kind, arguments.node));
    for relative in new.keys().take(12) {
        voice.say(format_args!("  {}", relative.display()));
    }
    if new.len() > 12 {
        voice.say(format_args!("  and {} more", new.len() - 12));
    }
    Ok(Exit::Success)
}

fn failed(failure: Failure) -> Trouble {
    let message = failure.to_string();
    match failure {
        Failure::Node { help, .. } | Failure::Environment { help, .. } => Trouble::failure(message).help(help),
        Failure::Interrupted => Trouble::failure(message),
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
