//! Which folders become caches, and which commands write into them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::workspace::Workspace;

const PIPELINE: &str = "[pipeline]\nname = \"p\"\n\n[nodes.images]\nkind = \"sample\"\nfrom = \"pictures\"\n";

/// The commands that only read.
const READING: [&[&str]; 7] = [
    &["plan", "p.toml"],
    &["run", "-n", "p.toml"],
    &["why", "p.toml", "images"],
    &["graph", "p.toml"],
    &["check", "p.toml"],
    &["export", "p.toml", "images", "out"],
    &["cache", "stats"],
];

fn workspace() -> Workspace {
    let workspace = Workspace::with_pipeline(PIPELINE);
    workspace.pictures("pictures", 3);
    workspace
}

/// All that is below `folder`, with its content.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = WalkDir::new(folder).into_iter().map(|entry| entry.expect("a folder").into_path());
    entries.map(|path| (path.clone(), fs::read(&path).unwrap_or_default())).collect()
}

#[test]
fn commands_that_read_make_no_cache_and_write_nothing_into_one() {
    let workspace = workspace();
    let before = content(&workspace.path(""));
    for arguments in READING {
        workspace.stic(arguments);
        assert_eq!(content(&workspace.path("")), before, "{arguments:?}");
    }
    assert_eq!(workspace.stic(&["run", "p.toml"]).code, Some(0));
    // What may be made again is not, either.
    fs::remove_file(workspace.path("cache/index")).expect("an index");
    let before = content(&workspace.path("cache"));
    for arguments in READING {
        let said = workspace.stic(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {said}");
        assert_eq!(content(&workspace.path("cache")), before, "{arguments:?}");
    }
}

#[test]
fn a_folder_of_other_files_is_never_taken_for_a_cache() {
    let workspace = workspace();
    workspace.write("thesis/chapter.tex", "text");
    workspace.write("thesis/figures/1.png", "picture");
    let before = content(&workspace.path("thesis"));
    for arguments in READING.into_iter().chain([&["run", "p.toml"] as &[&str]]) {
        let said = workspace.stic(&[arguments, &["--cache", "thesis"]].concat());
        // What can be told without a cache is told.
        if !matches!(arguments[0], "check" | "graph") {
            assert_eq!(said.code, Some(64), "{arguments:?}: {said}");
            let told = "`thesis` is not a cache of stic: it holds `chapter.tex`, `figures`";
            assert!(said.err.contains(told) && said.err.contains("--cache DIR"), "{arguments:?}: {said}");
        }
        assert_eq!(content(&workspace.path("thesis")), before, "{arguments:?}");
    }
}
