//! What a run takes from the cache and what it makes, as people see it.

use serde_json::Value;

use crate::workspace::{Said, Workspace};

const PIPELINE: &str = r#"[pipeline]
name = "runs"

[models.base]
source = "model"

[nodes.images]
kind = "sample"
from = "pictures"

[nodes.described]
kind = "describe"
inputs.images = "images"
model = "base"
prompts = ["what"]
max_new_tokens = 3

[nodes.answers]
kind = "evaluate"
model = "base"
benchmark = "vqa"
data = "test"
max_new_tokens = 3
"#;

fn workspace() -> Workspace {
    let workspace = Workspace::with_pipeline(PIPELINE);
    workspace.copy("tests/reference/llava", "model");
    workspace.pictures("pictures", 3);
    let question = |index: u8| {
        let image = format!("../pictures/{index}.png");
        serde_json::json!({ "image": image, "question": "what", "answer": "x" })
    };
    workspace.write("test/questions.jsonl", format!("{}\n{}\n", question(0), question(1)));
    workspace
}

/// What became of the nodes, by a run with `--json`.
fn finished(said: &Said) -> Vec<(String, String, Value)> {
    let events = said.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let of = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
    events
        .filter(|event| event["event"] == "finished")
        .map(|event| (of(&event, "node"), of(&event, "how"), event.clone()))
        .collect()
}

#[test]
fn names_are_those_of_the_file_as_it_stands_whoever_made_the_result() {
    let workspace = workspace();
    assert_eq!(workspace.stic(&["run", "p.toml"]).code, Some(0));
    std::fs::rename(workspace.path("model"), workspace.path("weights")).expect("moved");
    std::fs::rename(workspace.path("test"), workspace.path("exam")).expect("moved");
    std::fs::rename(workspace.path("pictures/0.png"), workspace.path("pictures/zero.png")).expect("moved");
    let questions = std::fs::read_to_string(workspace.path("exam/questions.jsonl")).expect("text");
    workspace.write("exam/questions.jsonl", questions.replace("0.png", "zero.png"));
    let text = PIPELINE
        .replace("models.base", "models.small")
        .replace("\"base\"", "\"small\"")
        .replace("\"model\"", "\"weights\"")
        .replace("\"test\"", "\"exam\"")
        .replace("nodes.answers", "nodes.exam");
    workspace.write("p.toml", text);

    let said = workspace.stic(&["run", "p.toml", "-v"]);
    assert_eq!(said.code, Some(0), "{said}");
    let reported = format!("{}{}", said.out, said.err);
    assert!(reported.contains("3 hit") && !reported.contains("ran"), "{reported}");
    assert!(reported.contains("data exam") && reported.contains("model small"), "{reported}");
    for old in ["model base", "data test", "answers", "0.png"] {
        assert!(!reported.contains(old), "`{old}` is gone:\n{reported}");
    }
    assert!(reported.contains("zero.png"), "{reported}");

    let nodes = finished(&workspace.stic(&["run", "p.toml", "--json"]));
    let exam = &nodes.iter().find(|(node, _, _)| node == "exam").expect("it is there").2;
    assert_eq!(exam["summary"]["labels"]["model"], "small");
    assert_eq!(exam["summary"]["labels"]["data"], "exam");
}

#[test]
fn bad_items_are_all_reported_and_fail_the_node_that_allows_none_also_where_the_cache_has_a_result() {
    let workspace = workspace();
    let broken =
        |name: &str| workspace.write(&format!("pictures/{name}.png"), [b"\x89PNG\r\n\x1a\n", name.as_bytes()].concat());
    ["a", "b", "c", "d"].into_iter().for_each(broken);
    let with = |line: &str| {
        PIPELINE
            .replace("max_new_tokens = 3\n\n[nodes.answers]", &format!("max_new_tokens = 3\n{line}\n[nodes.answers]"))
    };
    workspace.write("p.toml", with("on_bad_item = \"skip\"\n"));
    assert_eq!(workspace.stic(&["run", "p.toml", "described"]).code, Some(0));
    for (line, limit) in
        [("on_bad_item = \"fail\"\n", "`on_bad_item` is"), ("", "at most 1 % of the items may be skipped")]
    {
        workspace.write("p.toml", with(line));
        let said = workspace.stic(&["plan", "p.toml", "described"]);
        assert_eq!(said.code, Some(2), "{said}");
        let reported = said.to_string();
        assert!(
            reported.contains("4 of 7 items were left out of its result") && reported.contains(limit),
            "{reported}"
        );
        let said = workspace.stic(&["run", "p.toml", "described"]);
        assert_eq!(said.code, Some(1), "{said}");
        assert!(said.err.contains("failed  described  4 of 7 items are bad"), "{said}");
        assert!(said.err.contains("; and 1 more") && said.err.contains("[nodes.described]"), "{said}");
    }
    workspace.write("p.toml", with("on_bad_item = \"skip\"\n"));
    let said = workspace.stic(&["run", "p.toml", "described", "--json"]);
    assert!(finished(&said).iter().all(|(_, how, _)| how == "hit"), "{said}");
}

#[test]
fn what_is_forced_and_not_asked_for_is_refused() {
    let workspace = workspace();
    let said = workspace.stic(&["run", "p.toml", "images", "--force", "answers", "--force", "described"]);
    assert_eq!(said.code, Some(64), "{said}");
    assert!(said.err.contains("cannot force `described`, `answers`: the targets do not need them"), "{said}");
    assert!(said.out.is_empty() && !workspace.path("cache").exists(), "nothing was begun");
    assert_eq!(workspace.stic(&["run", "p.toml", "described", "--force", "images"]).code, Some(0), "it is needed");
}

#[test]
fn the_largest_numbers_that_options_take_are_taken() {
    let workspace = workspace();
    let most = usize::MAX.to_string();
    let said = workspace.stic(&["run", "p.toml", "images", "--retries", "100", "-j", &most]);
    assert_eq!(said.code, Some(0), "{said}");
    for arguments in [["--retries", "101"], ["--retries", "-1"], ["-j", "0"], ["-j", "18446744073709551616"]] {
        let said = workspace.stic(&[&["run", "p.toml", "images"][..], &arguments[..]].concat());
        assert_eq!(said.code, Some(64), "{arguments:?} {said}");
    }
}
