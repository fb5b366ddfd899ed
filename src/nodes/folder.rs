//! Suggests the right folder for one that is almost right: in a hub's cache, a trainer's output, or a folder of adapters.
//! Looks at names only.

use std::fs;
use std::path::{Path, PathBuf};

/// How many entries of a folder are looked at.
const LOOKED_AT: usize = 512;

/// The folders below `folder` that hold a file called `wanted`, relative to it, the likeliest first: what the cache of a hub
/// calls its main revision, the last checkpoint of a trainer, then by name.
pub fn below(folder: &Path, wanted: &str) -> Vec<PathBuf> {
    let holds = |path: &Path| folder.join(path).join(wanted).is_file();
    if let Ok(revision) = fs::read_to_string(folder.join("refs/main")) {
        let main = Path::new("snapshots").join(revision.trim());
        if holds(&main) {
            return vec![main];
        }
    }
    let mut found = Vec::new();
    for child in folders(folder) {
        let child = PathBuf::from(child);
        if holds(&child) {
            found.push(child);
            continue;
        }
        // A hub's cache has folders `models--ORG--NAME`, and in them a folder for each revision.
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

/// The names of the folders in `folder`.
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

/// Help for a pipeline file: `key = "written/found"`, and how many more there are.
pub fn written(key: &str, written: &str, found: &[PathBuf]) -> Option<String> {
    let first = Path::new(written).join(found.first()?);
    let more = match found.len() - 1 {
        0 => String::new(),
        1 => format!(" ({} is another)", Path::new(written).join(&found[1]).display()),
        more => format!(" ({more} more are below `{written}`)"),
    };
    Some(format!("write `{key} = \"{}\"`{more}", first.display()))
}

const HUBS: [&str; 4] = ["https://huggingface.co/", "http://huggingface.co/", "https://hf.co/", "hf://"];

/// Whether `source` is an address on a hub.
pub fn is_on_hub(source: &str) -> bool {
    HUBS.iter().any(|hub| source.starts_with(hub))
}

/// The Hugging Face id that `source` may name, and its revision.
pub fn hub_id(source: &str) -> Option<(String, Option<String>)> {
    /// Common names of model folders.
    const FOLDERS: [&str; 16] = [
        "models",
        "model",
        "checkpoints",
        "checkpoint",
        "ckpt",
        "ckpts",
        "weights",
        "data",
        "output",
        "outputs",
        "runs",
        "results",
        "adapters",
        "examples",
        "tests",
        "cache",
    ];
    let part = |text: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !text.is_empty() && !text.starts_with('.') && text.chars().all(fits)
    };
    if let Some(path) = HUBS.iter().find_map(|hub| source.strip_prefix(hub)) {
        let mut parts = path.trim_start_matches("models/").split('/');
        let (org, name) = (parts.next()?, parts.next()?);
        let revision = if parts.next() == Some("tree") { parts.next().map(str::to_owned) } else { None };
        return (part(org) && part(name)).then(|| (format!("{org}/{name}"), revision));
    }
    let (path, revision) = source.split_once('@').map_or((source, None), |(path, revision)| (path, Some(revision)));
    let (org, name) = path.split_once('/')?;
    let is_id = part(org) && part(name) && !FOLDERS.contains(&org.to_lowercase().as_str());
    is_id.then(|| (path.to_owned(), revision.map(str::to_owned)))
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

    #[test]
    fn an_id_of_a_hub_is_distinguished_from_a_path() {
        let id = |source: &str| hub_id(source).map(|(id, _)| id);
        assert_eq!(id("llava-hf/llava-1.5-7b-hf").as_deref(), Some("llava-hf/llava-1.5-7b-hf"));
        assert_eq!(
            id("https://huggingface.co/llava-hf/llava-1.5-7b-hf/tree/main").as_deref(),
            Some("llava-hf/llava-1.5-7b-hf")
        );
        assert_eq!(hub_id("a/b@v1"), Some(("a/b".to_owned(), Some("v1".to_owned()))));
        for path in ["models/llava-1.5-7b-hf", "./a/b", "../a/b", "/a/b", "a/b/c", "model", "a b/c"] {
            assert_eq!(id(path), None, "{path}");
        }
    }
}
