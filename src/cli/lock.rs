//! `stic lock`, and `stic run --locked`: the digests of all files that a pipeline reads, beside it, so that a run on other
//! data is refused.
//!
//! The lock file has the format of `b3sum`, which can check it, too: a line a file, its BLAKE3 digest and its path from
//! the pipeline file's directory.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{Global, Lock};
use super::pipeline::{Data, PipelineFile, read_cache};
use super::ui::{CliError, Exit, write_out};
use stic_engine::diagnostic::counted;
use stic_engine::digest::Digest;
use stic_engine::node::Kinds;
use stic_engine::store::Store;

/// How many files a message names.
const NAMED: usize = 5;

/// Writes the lock file.
///
/// # Errors
/// When the pipeline file has mistakes, or a file cannot be read or written.
pub fn lock(arguments: &Lock, global: &Global, kinds: &Kinds, quiet: bool) -> Result<Exit, CliError> {
    let file = PipelineFile::read(&arguments.file, &arguments.settings, kinds, Data::Wanted)?;
    file.check_data(&[])?;
    let store = read_cache(&global.cache(Some(&arguments.file)))?;
    let digests = digests(&file, &[], &store)?;
    let path = path_of(&arguments.file);
    let text: String = digests.iter().map(|(name, digest)| line(name, digest)).collect();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
        temporary.write_all(text.as_bytes())?;
        temporary.persist(&path).map(|_| ()).map_err(|error| error.error)
    };
    write().map_err(|error| CliError::io(format!("cannot write {}: {error}", path.display()), &error))?;
    if !quiet {
        write_out(&format!("{}: {}\n", path.display(), counted(digests.len(), "file")))?;
    }
    Ok(Exit::Success)
}

/// Checks that the files that `targets` of `file` read are those that its lock file names.
///
/// # Errors
/// All that are not, by name.
pub fn check(file: &PipelineFile, targets: &[usize], store: &Arc<Store>) -> Result<(), CliError> {
    let path = path_of(&file.path);
    let again = format!("`stic lock {}` writes it anew", super::shell::path(&file.path));
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let problem = CliError::io(format!("cannot read the lock file {}: {error}", path.display()), &error);
        if error.kind() == std::io::ErrorKind::NotFound { problem.help(again.clone()) } else { problem }
    })?;
    let mut locked = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let (name, digest) = entry(line).ok_or_else(|| {
            let place = format!("line {} of {}", number + 1, path.display());
            CliError::usage(format!("{place} is not a digest and the path of a file")).help(again.clone())
        })?;
        locked.insert(name, digest);
    }
    let found = digests(file, targets, store)?;
    let mut different: Vec<String> = Vec::new();
    for (name, digest) in &found {
        match locked.get(name) {
            Some(known) if known == digest => {}
            Some(_) => different.push(format!("`{name}` has changed")),
            None => different.push(format!("`{name}` is not in the lock file")),
        }
    }
    // Other targets read other files.
    if targets.is_empty() {
        let gone = locked.keys().filter(|name| !found.contains_key(*name));
        different.extend(gone.map(|name| format!("`{name}` is not read any more")));
    }
    if different.is_empty() {
        return Ok(());
    }
    let are = if different.len() == 1 { "is" } else { "are" };
    let mut message = format!("{} {are} not as {} says: ", counted(different.len(), "file"), path.display());
    message += &different.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if different.len() > NAMED {
        message += &format!(", and {} more", different.len() - NAMED);
    }
    Err(CliError::usage(message).help(format!("restore what changed; if it is to be so, {again}")))
}

/// The lock file of a pipeline file.
fn path_of(file: &Path) -> PathBuf {
    file.with_extension("lock")
}

/// The files outside the cache that `targets` of `file` and all that they need read, by their names in a lock file.
fn digests(file: &PipelineFile, targets: &[usize], store: &Arc<Store>) -> Result<BTreeMap<String, Digest>, CliError> {
    let needed = file.graph.needed(targets);
    let files = store.witness();
    for (node, _) in file.graph.nodes.iter().zip(needed).filter(|(_, needed)| *needed) {
        node.node.sources(&files).map_err(|failure| CliError::usage(format!("`{}`: {failure}", node.name)))?;
    }
    let folder = file.path.parent().unwrap_or(Path::new(""));
    let seen = files.seen();
    let named = seen.digests().map(|(path, digest)| {
        let inside = path.strip_prefix(folder).unwrap_or(path);
        (inside.to_string_lossy().into_owned(), digest)
    });
    Ok(named.collect())
}

/// A line of a lock file. As `b3sum` does it, a name with a line end or a backslash in it is escaped, and the line marked.
fn line(name: &str, digest: &Digest) -> String {
    let escaped = name.replace('\\', "\\\\").replace('\n', "\\n");
    let mark = if escaped == name { "" } else { "\\" };
    format!("{mark}{digest}  {escaped}\n")
}

fn entry(line: &str) -> Option<(String, Digest)> {
    let (line, escaped) = line.strip_prefix('\\').map_or((line, false), |line| (line, true));
    let (digest, name) = line.split_once("  ")?;
    let digest = digest.parse().ok()?;
    if !escaped {
        return Some((name.to_owned(), digest));
    }
    let mut plain = String::new();
    let mut rest = name.chars();
    while let Some(c) = rest.next() {
        plain.push(match c {
            '\\' if rest.next()? == 'n' => '\n',
            c => c,
        });
    }
    Some((plain, digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_reads_back_whatever_files_are_called() {
        for name in ["a", "a b/c", "a  b", "back\\slash", "line\nend", "é", "\\n"] {
            let digest = Digest::of(name.as_bytes());
            let text = line(name, &digest);
            assert_eq!(text.lines().count(), 1);
            assert_eq!(entry(text.trim_end_matches('\n')), Some((name.to_owned(), digest)));
        }
        assert!(["", "abc  name", "only"].iter().all(|line| entry(line).is_none()));
    }
}
