//! Which directories become caches, and which commands write into them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::workspace::Workspace;

const PIPELINE: &str = "[pipeline]\nname = \"p\"\n\n[nodes.images]\nkind = \"sample\"\nfrom = \"pictures\"\n";

/// The commands that only read.
const READING: [&[&str]; 8] = [
    &["plan", "p.toml"],
    &["run", "-n", "p.toml"],
    &["why", "p.toml", "images"],
    &["graph", "p.toml"],
    &["check", "p.toml"],
    &["export", "p.toml", "images", "out"],
    &["cache", "stats"],
    &["cache", "verify", "-n"],
];

fn workspace() -> Workspace {
    let workspace = Workspace::with_pipeline(PIPELINE);
    workspace.pictures("pictures", 3);
    workspace
}

/// All that is below `folder`, with its content.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = WalkDir::new(folder).into_iter().map(|entry| entry.expect("a directory").into_path());
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
    fs::remove_file(workspace.path("cache/index.added")).expect("an index");
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
        // What can be determined without a cache is reported.
        if !matches!(arguments[0], "check" | "graph") {
            assert_eq!(said.code, Some(64), "{arguments:?}: {said}");
            let reported = "`thesis` is not a cache of stic: it contains `chapter.tex`, `figures`";
            assert!(said.err.contains(reported) && said.err.contains("--cache DIR"), "{arguments:?}: {said}");
        }
        assert_eq!(content(&workspace.path("thesis")), before, "{arguments:?}");
    }
}

/// Turns over a bit in every object of the cache of `workspace`, and returns how many there are.
fn damage_objects(workspace: &Workspace) -> usize {
    let objects = WalkDir::new(workspace.path("cache/objects")).into_iter().map(|entry| entry.expect("a directory"));
    let files: Vec<PathBuf> =
        objects.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect();
    for file in &files {
        let mut content = fs::read(file).expect("an object");
        content[0] ^= 1;
        fs::remove_file(file).expect("removed");
        fs::write(file, content).expect("written");
    }
    files.len()
}

#[test]
fn a_damaged_result_that_cannot_be_exported_is_made_again_by_the_run_that_is_advised() {
    let workspace = workspace();
    assert_eq!(workspace.stic(&["run", "p.toml"]).code, Some(0));
    let count = damage_objects(&workspace);
    let said = workspace.stic(&["export", "p.toml", "images", "out"]);
    assert_eq!(said.code, Some(1), "{said}");
    let reported = format!("{count} objects were damaged in the result of `images`, and removed from the cache");
    let advice = "stic run p.toml images";
    assert!(said.err.contains(&reported) && said.err.contains(advice), "{said}");
    assert!(!workspace.path("out").exists());
    let said = workspace.stic(&["run", "p.toml", "images"]);
    assert!(said.code == Some(0) && said.err.contains("1 ran"), "{said}");
    let said = workspace.stic(&["export", "p.toml", "images", "out"]);
    assert_eq!(said.code, Some(0), "{said}");
}

#[test]
fn what_is_damaged_is_not_called_missing() {
    let workspace = Workspace::with_pipeline(&format!(
        "{PIPELINE}\n[nodes.dimmed]\nkind = \"corrupt\"\ninputs.images = \"images\"\noperations = [{{ op = \"low_resolution\", \
         size = 2 }}]\n"
    ));
    workspace.pictures("pictures", 3);
    assert_eq!(workspace.stic(&["run", "p.toml"]).code, Some(0));
    damage_objects(&workspace);
    workspace.edit("p.toml", "size = 2", "size = 3");
    let said = workspace.stic(&["plan", "p.toml"]);
    assert!(said.out.contains("1 object of its result is damaged in the cache"), "{said}");
    assert!(!said.out.contains("has no results of this pipeline"), "{said}");
    let said = workspace.stic(&["run", "p.toml"]);
    assert!(said.code == Some(0) && said.err.contains("damaged in the cache"), "{said}");
    assert!(!said.err.contains("missing") && !said.err.contains("has no object"), "{said}");
}

const CORRUPTED: &str = r#"[pipeline]
name = "corrupted"

[nodes.images]
kind = "sample"
from = "pictures"

[nodes.gray]
kind = "corrupt"
inputs.images = "images"
operations = [{ op = "greyscale" }]

[nodes.small]
kind = "corrupt"
inputs.images = "gray"
operations = [{ op = "low_resolution", size = 4 }]
"#;

#[test]
fn whatever_object_is_lost_or_damaged_is_made_again_by_the_next_run() {
    let workspace = Workspace::with_pipeline(CORRUPTED);
    workspace.pictures("pictures", 3);
    let said = workspace.stic(&["run", "p.toml"]);
    assert_eq!(said.code, Some(0), "{said}");
    let whole = content(&workspace.path("cache"));
    let restore = || {
        fs::remove_dir_all(workspace.path("cache")).unwrap();
        for (path, bytes) in &whole {
            if path.extension().is_some() || !bytes.is_empty() || path.ends_with("files") {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
        }
    };
    let files = |name: &str| -> Vec<PathBuf> {
        let folder = workspace.path(name);
        whole.keys().filter(|path| path.is_file() && path.starts_with(&folder)).cloned().collect()
    };
    let (objects, results) = (files("cache/objects"), files("cache/results"));
    assert_eq!(results.len(), 3);
    for object in &objects {
        for damaged in [true, false] {
            for forgotten in 0..8 {
                restore();
                fs::remove_file(object).unwrap();
                if damaged {
                    fs::write(object, "zz").unwrap();
                }
                for (_, result) in results.iter().enumerate().filter(|(index, _)| forgotten >> index & 1 == 1) {
                    fs::remove_file(result).unwrap();
                }
                let _ = fs::remove_file(workspace.path("cache/index"));
                let said = workspace.stic(&["run", "p.toml", "--retries", "0"]);
                assert_eq!(said.code, Some(0), "{} damaged: {damaged} {forgotten}\n{said}", object.display());
            }
        }
    }
}

/// How many files are below `folder`.
fn files(folder: &Path) -> usize {
    WalkDir::new(folder)
        .into_iter()
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_type().is_file()))
        .count()
}

#[test]
fn eviction_keeps_what_the_last_run_used_unless_told_otherwise() {
    let workspace = workspace();
    workspace.stic(&["run", "p.toml"]);
    workspace.edit("p.toml", "from", "count = 2\nfrom");
    workspace.stic(&["run", "p.toml"]);
    let results = workspace.path("cache/results");
    assert_eq!(files(&results), 2);
    let dry = workspace.stic(&["cache", "gc", "--max-size", "0", "-n", "--json"]);
    assert!(dry.out.contains("\"results\":{\"count\":1,"), "{dry}");
    assert_eq!(files(&results), 2);
    let said = workspace.stic(&["cache", "gc", "--max-size", "0"]);
    assert!(said.code == Some(0) && said.out.contains("still larger than 0 B"), "{said}");
    assert_eq!(files(&results), 1);
    assert!(workspace.stic(&["run", "p.toml"]).err.contains("1 hit"));
    workspace.stic(&["cache", "gc", "--max-size", "0", "--keep-runs", "0"]);
    assert_eq!((files(&results), files(&workspace.path("cache/objects"))), (0, 0));
    assert!(workspace.stic(&["run", "p.toml"]).err.contains("1 ran"));
    workspace.edit("p.toml", "count = 2", "count = 1");
    let said = workspace.stic(&["run", "p.toml", "--cache-size", "1B"]);
    assert!(said.err.contains("of old results from the cache"), "{said}");
    assert_eq!(files(&results), 1);
}

#[test]
fn verification_removes_what_is_damaged_and_exits_with_1() {
    let workspace = workspace();
    workspace.stic(&["run", "p.toml"]);
    assert_eq!(workspace.stic(&["cache", "verify"]).code, Some(0));
    let objects = WalkDir::new(workspace.path("cache/objects")).into_iter().map(|entry| entry.expect("an entry"));
    let object = objects.into_iter().find(|entry| entry.file_type().is_file()).expect("an object").into_path();
    fs::remove_file(&object).expect("an object");
    fs::write(&object, "damaged").expect("an object");
    let said = workspace.stic(&["cache", "verify", "-n"]);
    assert!(said.code == Some(1) && said.out.contains("1 object damaged, and not removed"), "{said}");
    assert!(object.exists());
    let said = workspace.stic(&["cache", "verify"]);
    assert!(said.code == Some(1) && said.out.contains("`images` of p, which lacks 1 object"), "{said}");
    assert!(!object.exists());
    assert_eq!(workspace.stic(&["cache", "verify"]).code, Some(0));
    assert_eq!(workspace.stic(&["run", "p.toml"]).code, Some(0));
    assert!(object.exists());
}

#[test]
fn a_locked_run_refuses_other_data_and_names_the_files() {
    let workspace = workspace();
    let said = workspace.stic(&["run", "--locked", "p.toml"]);
    assert!(said.code == Some(64) && said.err.contains("`stic lock p.toml` writes it anew"), "{said}");
    assert_eq!(workspace.stic(&["lock", "p.toml"]).code, Some(0));
    assert_eq!(workspace.stic(&["run", "--locked", "p.toml"]).code, Some(0));
    let names: Vec<PathBuf> = WalkDir::new(workspace.path("pictures"))
        .sort_by_file_name()
        .into_iter()
        .map(|entry| entry.expect("an entry").into_path())
        .collect();
    fs::copy(&names[1], names[1].with_extension("new.png")).expect("a picture");
    fs::copy(&names[1], &names[2]).expect("a picture");
    let said = workspace.stic(&["run", "--locked", "p.toml"]);
    assert!(said.code == Some(64) && said.err.contains("2 files are not as p.lock says"), "{said}");
    assert!(said.err.contains("has changed") && said.err.contains("is not in the lock file"), "{said}");
    fs::remove_file(&names[3]).expect("a picture");
    assert!(workspace.stic(&["run", "--locked", "p.toml"]).err.contains("is not read any more"));
    workspace.write("p.lock", "nonsense\n");
    let said = workspace.stic(&["run", "--locked", "p.toml"]);
    assert!(said.code == Some(64) && said.err.contains("line 1 of p.lock"), "{said}");
}
