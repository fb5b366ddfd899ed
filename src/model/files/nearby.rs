//! Finds the right directory near one that is almost right: in a hub's cache, a trainer's output, or a directory of
//! adapters. Looks at names only.

use std::fs;
use std::path::{Path, PathBuf};

/// How many entries of a directory are looked at.
const LOOKED_AT: usize = 512;

/// The directories below `folder` that hold a file called `wanted`, relative to it, the likeliest first: what the cache
/// of a hub calls its main revision, the last checkpoint of a trainer, then by name.
pub fn below(folder: &Path, wanted: &str) -> Vec<PathBuf> {
    let holds = |path: &Path| folder.join(path).join(wanted).is_file();
    if let Some(main) = below_main(folder, wanted) {
        return vec![main];
    }
    let mut found = Vec::new();
    for child in folders(folder) {
        let child = PathBuf::from(child);
        if holds(&child) {
            found.push(child);
            continue;
        }
        // A hub's cache has directories `models--ORG--NAME`, and in them a directory for each revision.
        let deeper = match below_main(&folder.join(&child), wanted) {
            Some(main) => vec![child.join(main)],
            None => folders(&folder.join(&child)).into_iter().map(|inner| child.join(inner)).collect(),
        };
        found.extend(deeper.into_iter().filter(|path| holds(path)));
    }
    let step = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.strip_prefix("checkpoint-").and_then(|step| step.parse::<u64>().ok())
    };
    found.sort_by_key(|path| (std::cmp::Reverse(step(path)), path.clone()));
    found
}

fn below_main(folder: &Path, wanted: &str) -> Option<PathBuf> {
    let revision = fs::read_to_string(folder.join("refs/main")).ok()?;
    let main = Path::new("snapshots").join(revision.trim());
    folder.join(&main).join(wanted).is_file().then_some(main)
}

/// The names of the directories in `folder`.
fn folders(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(LOOKED_AT);
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, if file.ends_with("refs/main") { "abc\n" } else { "{}" }).unwrap();
        }
        folder
    }

    fn found(files: &[&str], wanted: &str) -> Vec<String> {
        below(folder(files).path(), wanted).iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn the_right_folder_is_found_one_or_two_steps_away() {
        let hub = ["refs/main", "snapshots/abc/config.json", "snapshots/old/config.json", "blobs/0"];
        assert_eq!(found(&hub, "config.json"), ["snapshots/abc"]);
        let hubs = [
            "models--o--n/refs/main",
            "models--o--n/snapshots/abc/config.json",
            "models--o--n/snapshots/x/config.json",
        ];
        assert_eq!(found(&hubs, "config.json"), ["models--o--n/snapshots/abc"]);
        let without_main = ["snapshots/b/config.json", "snapshots/a/config.json"];
        assert_eq!(found(&without_main, "config.json"), ["snapshots/a", "snapshots/b"]);
        let trainer = ["checkpoint-500/config.json", "checkpoint-1000/config.json", "runs/x/events"];
        assert_eq!(found(&trainer, "config.json"), ["checkpoint-1000", "checkpoint-500"]);
        assert_eq!(found(&["reference/adapter_config.json"], "adapter_config.json"), ["reference"]);
        assert_eq!(found(&["a/b/c/config.json"], "config.json"), Vec::<String>::new());
    }
}
