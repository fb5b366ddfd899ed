//! Imports point one way. Each module's row names all that it may use; a new edge needs a decision, made here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Of the engine, what everybody may use.
const BASE: &[&str] = &["artifact", "device", "diagnostic", "digest", "draw"];
/// Of the engine, what the learning side may not use.
const ENGINE: &[&str] = &["event", "graph", "node", "plan", "pool", "run", "spec", "store"];
const LEARNING: &[&str] = &["data", "eval", "model", "train"];

fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    let with = |groups: &[&[&'static str]]| groups.concat();
    BTreeMap::from([
        ("artifact", vec!["digest"]),
        ("device", vec![]),
        ("data", with(&[BASE])),
        ("model", with(&[BASE, &["data"]])),
        ("train", with(&[BASE, &["data", "model"]])),
        ("eval", with(&[BASE, &["data", "model"]])),
        ("nodes", with(&[BASE, LEARNING, &["node", "pool", "spec"]])),
        ("cli", with(&[BASE, ENGINE, LEARNING, &["nodes"]])),
    ])
}

#[test]
fn imports_point_one_way() {
    let allowed = allowed();
    let mut wrong = Vec::new();
    let mut edges = 0;
    for (module, file, text) in sources() {
        let may = allowed.get(module.as_str()).unwrap_or_else(|| panic!("`{module}` has no row in this test"));
        for (number, line) in code_lines(&text) {
            for used in named_modules(line) {
                edges += 1;
                if used != module && !may.contains(&used.as_str()) {
                    wrong.push(format!("{}:{number}: `{module}` names `{used}`", file.display()));
                }
            }
        }
    }
    assert!(edges > 50, "only {edges} imports found: does the test still read the sources?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_data_side_does_not_name_burn() {
    let wrong: Vec<String> = sources()
        .into_iter()
        .filter(|(module, ..)| ["artifact", "data"].contains(&module.as_str()))
        .flat_map(|(_, file, text)| {
            code_lines(&text)
                .filter(|(_, line)| line.contains("burn::"))
                .map(|(number, _)| format!("{}:{number}", file.display()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_source_file_says_what_it_is() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|(_, _, text)| !text.starts_with("//! "))
        .map(|(_, file, _)| file.display().to_string())
        .collect();
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}

/// (module, file, text) of every source file of `stic` but the two crate roots.
fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // The engine is a crate of its own, and the compiler keeps it apart.
                if !path.ends_with("src/engine") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
        .into_iter()
        .filter(|file| !file.ends_with("src/lib.rs") && !file.ends_with("src/main.rs"))
        .map(|file| {
            let inside = file.strip_prefix(&root).unwrap();
            let module = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
            let text = fs::read_to_string(&file).unwrap();
            (module.to_owned(), inside.to_path_buf(), text)
        })
        .collect()
}

/// Lines that are not comments, numbered from 1, up to the file's tests: those may use what they test against.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

/// What follows `crate::` in a line.
fn named_modules(line: &str) -> Vec<String> {
    line.split("crate::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>())
        .filter(|name| !name.is_empty())
        .collect()
}
