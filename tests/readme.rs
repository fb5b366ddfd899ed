//! Tests every block of the README, and that its reference matches the declarations. A comment before each block says
//! how:
//!
//! - `run`, `test`: the two commands; `.ci/run` extracts and runs them.
//! - `after run`: run here, line by line, in a copy of `pipelines`, on the quick start's results.
//! - `weights`: needs a real checkpoint; the pipelines that it names are checked without data.
//! - `gpu`: needs a GPU; the cargo features that it names exist.
//! - `pipeline`: a valid pipeline, except for its data.
//! - `mistakes`: a pipeline with mistakes, followed by exactly what is printed about them.
//! - `shown`: output of a run, for reading; its figures are those of one run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use stic::nodes::formats::{DataFormat, FORMATS};
use stic_engine::node::Arity;
use stic_engine::spec::NodeKeys;
use stic_engine::spec::parameter::{Declaration, Fallback, Parameters};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A fenced block: how it is tried, its language, its text and the line it starts on.
#[derive(Clone)]
struct Block {
    how: String,
    language: String,
    text: String,
    line: usize,
}

#[test]
fn every_block_says_how_it_is_tried_and_ci_runs_the_two_commands() {
    let known = ["run", "test", "after run", "weights", "gpu", "pipeline", "mistakes", "printed", "shown"];
    for block in blocks() {
        assert!(
            known.contains(&block.how.as_str()),
            "README.md:{}: `{}` is no way to try a block",
            block.line,
            block.how
        );
    }
    let script = fs::read_to_string(Path::new(ROOT).join(".ci/run")).unwrap();
    for how in ["run", "test"] {
        assert_eq!(blocks_of(how).len(), 1, "one block is marked `{how}`");
        assert!(script.contains(&format!("$(readme {how})")), ".ci/run does not run the README's `{how}` block");
    }
}

#[test]
fn pipelines_in_the_readme_are_sound() {
    let blocks = blocks_of("pipeline");
    assert!(!blocks.is_empty());
    for block in blocks {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pipeline.toml");
        fs::write(&file, &block.text).unwrap();
        let output = stic(folder.path(), &["check", "--without-data", "pipeline.toml"]);
        assert!(output.status.success(), "README.md:{}: {}", block.line, stderr(&output));
    }
}

#[test]
fn mistakes_in_the_readme_are_printed_as_it_says() {
    let all = blocks();
    let mut tried = 0;
    for pair in all.windows(2).filter(|pair| pair[0].how == "mistakes") {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("pipeline.toml"), &pair[0].text).unwrap();
        let output = stic(folder.path(), &["check", "--without-data", "pipeline.toml"]);
        assert_eq!(output.status.code(), Some(64));
        assert_eq!(stderr(&output).trim(), pair[1].text.trim(), "README.md:{}", pair[1].line);
        tried += 1;
    }
    assert!(tried > 0);
}

#[test]
fn blocks_that_need_weights_name_sound_pipelines() {
    let blocks = blocks_of("weights");
    assert!(!blocks.is_empty());
    for block in blocks {
        let files: Vec<&str> = block.text.split_whitespace().filter(|word| word.ends_with(".toml")).collect();
        assert!(!files.is_empty(), "README.md:{}: no pipeline is named", block.line);
        for file in files {
            let output = stic(Path::new(ROOT), &["check", "--without-data", file]);
            assert!(output.status.success(), "README.md:{}: {}", block.line, stderr(&output));
        }
    }
}

#[test]
fn blocks_that_need_a_gpu_name_cargo_features_that_exist() {
    let manifest: toml::Table = fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap().parse().unwrap();
    let features = manifest["features"].as_table().unwrap();
    let mut tried = 0;
    for block in blocks_of("gpu") {
        for feature in block.text.lines().filter_map(|line| line.split("--features ").nth(1)) {
            assert!(features.contains_key(feature.trim()), "README.md:{}: no feature `{feature}`", block.line);
            tried += 1;
        }
    }
    assert!(tried > 0);
}

#[test]
fn commands_that_follow_the_quick_start_work() {
    let folder = tempfile::tempdir().unwrap();
    let pipelines = folder.path().join("pipelines");
    fs::create_dir(&pipelines).unwrap();
    for entry in fs::read_dir(Path::new(ROOT).join("pipelines")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, pipelines.join(path.file_name().unwrap())).unwrap();
    }
    std::os::unix::fs::symlink(Path::new(ROOT).join("examples"), folder.path().join("examples")).unwrap();
    let first = stic(folder.path(), &["run", "-q", "pipelines/quickstart.toml"]);
    assert!(first.status.success(), "{}", stderr(&first));
    let blocks = blocks_of("after run");
    assert!(!blocks.is_empty());
    for block in blocks {
        for command in block.text.lines().filter(|line| !line.trim().is_empty()) {
            let output = shell(folder.path(), command);
            // `plan` and `run -n` say by 2 that there is work.
            let pending = command.contains(" plan ") || command.contains(" -n ");
            let fine = output.status.success() || (pending && output.status.code() == Some(2));
            assert!(fine, "README.md:{}: `{command}`: {}", block.line, stderr(&output));
        }
    }
}

/// Around what [`reference`] writes.
const REFERENCE: [&str; 2] = ["<!-- reference -->\n", "<!-- end of reference -->\n"];

#[test]
fn the_reference_in_the_readme_is_what_the_kinds_declare() {
    let path = Path::new(ROOT).join("README.md");
    let text = fs::read_to_string(&path).unwrap();
    let [(begin, _), (end, _)] = REFERENCE.map(|mark| text.match_indices(mark).next().expect(mark));
    let written = &text[begin + REFERENCE[0].len()..end];
    if std::env::var_os("UPDATE_README").is_some() {
        let (before, after) = (&text[..begin + REFERENCE[0].len()], &text[end..]);
        fs::write(path, format!("{before}{}{after}", reference())).unwrap();
    } else {
        assert!(written == reference(), "run `UPDATE_README=1 cargo test --release --test readme reference`");
    }
}

/// Tables of the kinds, their inputs and parameters, and the data that they read.
fn reference() -> String {
    let mut text = "\n| kind | inputs | output | description |\n| --- | --- | --- | --- |\n".to_owned();
    let kinds = stic::nodes::kinds();
    for kind in kinds.all() {
        let inputs = kind.ports().iter().map(|port| {
            let optional = if port.arity == Arity::Optional { ", optional" } else { "" };
            let accepts: Vec<&str> = port.accepts.iter().map(|kind| kind.name).collect();
            format!("`inputs.{}` ({}{optional})", port.name, accepts.join(" or "))
        });
        let inputs: Vec<String> = inputs.collect();
        let (name, output, help) = (kind.name(), kind.output().name, kind.help());
        text += &format!("| `{name}` | {} | {output} | {help} |\n", inputs.join(", "));
    }
    text += "\n| table | key | type | default | description |\n| --- | --- | --- | --- | --- |\n";
    for (table, declared) in kinds.tables() {
        for (name, declaration) in declared.iter().flat_map(|declaration| declaration.flattened("")) {
            text += &format!("| `[{table}]` | `{name}` | {} |\n", cells(&declaration));
        }
    }
    text += "\n| parameter | kinds | type | default | description |\n| --- | --- | --- | --- | --- |\n";
    let mut rows: Vec<(String, String, Vec<&str>)> = Vec::new();
    for kind in kinds.all() {
        let declared = [kind.declared(), NodeKeys::declared()].concat();
        for (name, declaration) in declared.iter().flat_map(|declaration| declaration.flattened("")) {
            let about = cells(&declaration);
            match rows.iter_mut().find(|(known, same, _)| *known == name && *same == about) {
                Some((_, _, of)) => of.push(kind.name()),
                None => rows.push((name, about, vec![kind.name()])),
            }
        }
    }
    for (name, about, of) in rows {
        let of = if of.len() == kinds.all().len() { "all".to_owned() } else { of.join(", ") };
        text += &format!("| `{name}` | {of} | {about} |\n");
    }
    text += "\n| format | description | example |\n| --- | --- | --- |\n";
    for DataFormat { name, help, example, .. } in FORMATS {
        text += &format!("| {name} | {help} | `{example}` |\n");
    }
    text + "\n"
}

/// The type, the default and the help of a key, as cells of a table.
fn cells(Declaration { form, fallback, help, .. }: &Declaration) -> String {
    let fallback = match fallback {
        Fallback::Required => "required".to_owned(),
        Fallback::Value(value) => format!("`{}`", value.to_string().replace('\n', "\\n")),
        Fallback::Words(words) => (*words).to_owned(),
    };
    [form.to_string(), fallback, (*help).to_owned()].map(|cell| cell.replace('|', "\\|")).join(" | ")
}

fn blocks_of(how: &str) -> Vec<Block> {
    blocks().into_iter().filter(|block| block.how == how).collect()
}

fn blocks() -> Vec<Block> {
    let text = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let mut blocks = Vec::new();
    let mut how = String::new();
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        if let Some(block) = &mut open {
            if line == "```" {
                blocks.extend(open.take());
                how.clear();
            } else {
                block.text.push_str(line);
                block.text.push('\n');
            }
        } else if let Some(language) = line.strip_prefix("```") {
            open = Some(Block { how: how.clone(), language: language.into(), text: String::new(), line: index + 1 });
        } else if let Some(comment) = line.strip_prefix("<!-- ") {
            how = comment.trim_end_matches(" -->").to_owned();
        }
    }
    assert!(open.is_none(), "the README's last block is not closed");
    assert!(blocks.iter().all(|block| !block.language.is_empty()), "a block of the README has no language");
    blocks
}

fn stic(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(arguments)
        .current_dir(folder)
        .env("STIC_CACHE", cache())
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

/// Runs one line as a shell would that has `stic` on its path.
fn shell(folder: &Path, command: &str) -> Output {
    let path = format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap());
    Command::new("bash")
        .args(["-euc", command])
        .current_dir(folder)
        .env("PATH", path)
        .env("STIC_CACHE", cache())
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_stic"))
}

/// The cache that the README's first command used where the caller says so, else one that outlives the test.
fn cache() -> PathBuf {
    std::env::var_os("STIC_CACHE")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme-cache"), PathBuf::from)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
