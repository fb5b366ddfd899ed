//! Records as people have them: written by other tools, broken in one place, or about pictures that are called
//! otherwise.

use std::fs;

use serde_json::{Value, json};

use crate::workspace::{Said, Workspace};

/// Takes records and corrupts their pictures: no model is needed.
const PIPELINE: &str = r#"[pipeline]
name = "records"
seed = 3

[nodes.images]
kind = "sample"
from = "records.json"

[nodes.corrupted]
kind = "corrupt"
inputs.images = "images"
operations = [{ op = "low_resolution", size = 4 }]
"#;

/// Trains on them.
const TRAINING: &str = r#"
[models.base]
source = "model"

[nodes.trained]
kind = "sft"
inputs.conversations = "images"
model = "base"
learning_rate = 1e-4
batch_size = 1
"#;

/// Describes them, puts the descriptions in front of the questions, and trains on that.
const STAGE2: &str = r#"
[models.base]
source = "model"

[nodes.described]
kind = "describe"
inputs.images = "images"
model = "base"
prompts = ["What?"]
max_new_tokens = 1

[nodes.infused]
kind = "infuse"
inputs.instructions = "images"
inputs.descriptions = "described"

[nodes.trained]
kind = "sft"
inputs.conversations = "infused"
model = "base"
learning_rate = 1e-4
batch_size = 1
"#;

fn workspace(records: impl AsRef<[u8]>) -> Workspace {
    let workspace = Workspace::with_pipeline(PIPELINE);
    workspace.pictures(".", 3);
    workspace.write("records.json", records);
    workspace
}

fn turns(question: &str, answer: &str) -> Value {
    json!([{ "from": "human", "value": question }, { "from": "gpt", "value": answer }])
}

fn record(image: &str) -> Value {
    json!({ "image": image, "conversations": turns("<image>\nWhat?", "A picture.") })
}

/// `with` one more turn in front or behind.
fn with_turns(before: &[Value], after: &[Value]) -> Value {
    let mut record = record("0.png");
    let turns = record["conversations"].as_array().unwrap();
    record["conversations"] = Value::from([before, turns, after].concat());
    record
}

fn said(workspace: &Workspace, arguments: &[&str], code: i32) -> Said {
    let said = workspace.stic(arguments);
    assert_eq!(said.code, Some(code), "{said}");
    assert!(!said.err.contains("panicked"), "{said}");
    said
}

fn check(workspace: &Workspace, code: i32) -> String {
    said(workspace, &["check", "p.toml"], code).to_string()
}

/// What the records come to, but where their pictures lie.
fn rows(workspace: &Workspace) -> String {
    said(workspace, &["run", "p.toml"], 0);
    exported(workspace, "images", "records.jsonl").into_iter().map(|row| row.to_string() + "\n").collect()
}

/// The rows of a node, but where their pictures lie.
fn exported(workspace: &Workspace, node: &str, name: &str) -> Vec<Value> {
    said(workspace, &["export", "p.toml", node, "out"], 0);
    let text = fs::read_to_string(workspace.path("out").join(name)).unwrap();
    let row = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        row.as_object_mut().unwrap().remove("image");
        row
    };
    text.lines().map(row).collect()
}

/// What a run remarks, nodes in the order of their names.
fn notes(workspace: &Workspace) -> String {
    let said = said(workspace, &["run", "p.toml"], 0);
    let mut notes: Vec<&str> = said.err.lines().filter(|line| line.starts_with("note")).collect();
    notes.sort_by_key(|line| line.split_whitespace().nth(1));
    notes.join("\n")
}

#[test]
fn the_forms_of_other_tools_are_one_record() {
    let parts = |text: &str| json!([{ "type": "text", "text": text }]);
    let asked = json!([{ "type": "image" }, { "type": "text", "text": "What?" }]);
    let named = json!([{ "type": "image", "path": "0.png" }, { "type": "text", "text": "What?" }]);
    let messages = |content: Value| json!([{ "role": "user", "content": content }, { "role": "assistant", "content": parts("A picture.") }]);
    let plain = turns("What?", "A picture.");
    let expected = rows(&workspace(json!([record("0.png")]).to_string()));
    assert!(expected.contains("<image>\\nWhat?"), "{expected}");
    for form in [
        json!({ "image": ["0.png"], "conversations": plain }),
        json!({ "images": ["0.png"], "conversations": plain }),
        json!({ "images": "0.png", "conversations": plain }),
        json!({ "messages": messages(asked.clone()), "images": ["0.png"] }),
        json!({ "messages": messages(json!("What?")), "images": [{ "bytes": null, "path": "0.png" }] }),
        json!({ "messages": messages(named) }),
        json!({ "conversation": plain, "img": "0.png" }),
        json!({ "conversations": plain, "image_path": "0.png" }),
        json!({ "conversations": plain, "picture": "0.png" }),
        json!({ "conversations": plain, "file_name": "0.png" }),
        with_turns(&[], &[json!({ "from": "human", "value": "And?" })]),
        with_turns(&[json!({ "from": "system", "value": "Be brief." })], &[]),
        with_turns(&[json!({ "from": "gpt", "value": "Hello." })], &[]),
    ] {
        assert_eq!(rows(&workspace(json!([form]).to_string())), expected, "{form}");
    }
}

#[test]
fn what_names_no_picture_or_several_is_refused_by_its_key_and_place() {
    let plain = turns("What?", "A picture.");
    for (record, cause) in [
        (json!({ "image": ["0.png", "1.png"], "conversations": plain }), "`image` names 2 pictures"),
        (json!({ "images": ["0.png", "1.png"], "conversations": plain }), "`images` names 2 pictures"),
        (json!({ "img": "0.png", "picture": "1.png", "conversations": plain }), "`img` and `picture` name different"),
        (json!({ "thumbnail": "0.png", "conversations": plain }), "`thumbnail` looks like the name of a picture"),
        (json!({ "image": "https://example.org/0.png", "conversations": plain }), "`image` is a URL"),
        (json!({ "image": "0.png", "talk": plain }), "`talk` looks like a conversation"),
        (json!({ "image": "0.png", "messages": "What?" }), "`messages` is not a list of turns"),
    ] {
        let reported = check(&workspace(json!([record]).to_string()), 64);
        assert!(reported.contains("`records.json`, record 1: ") && reported.contains(cause), "{reported}");
    }
}

#[test]
fn what_is_left_out_of_conversations_is_reported_before_anything_runs() {
    let records = json!([
        record("0.png"),
        with_turns(&[], &[json!({ "from": "human", "value": "And?" })]),
        with_turns(&[json!({ "from": "system", "value": "Be brief." })], &[]),
        with_turns(&[json!({ "from": "gpt", "value": "Hello." })], &[]),
        { "image": "1.png", "conversations": [{ "from": "human", "value": "What?" }] },
        { "img": "2.png", "conversations": turns("What?", "") },
        { "img": "2.png", "conversations": turns("Where?", "There.") },
    ]);
    let workspace = workspace(records.to_string());
    workspace.copy("tests/reference/llava", "model");
    workspace.write("p.toml", PIPELINE.to_owned() + TRAINING);
    insta::assert_snapshot!(check(&workspace, 0));
    insta::assert_snapshot!("what_a_training_leaves_out", notes(&workspace));
}

#[test]
fn one_bad_record_of_many_costs_itself() {
    let good: Vec<String> =
        (0..198).map(|n| json!({ "id": n, "image": format!("{}.png", n % 3) }).to_string()).collect();
    let with = |bad: &[u8]| {
        let before = good[..100].join(",\n");
        let after = good[100..].join(",\n");
        [b"[", before.as_bytes(), b",\n", bad, b",\n", after.as_bytes(), b"]"].concat()
    };
    for (bad, cause) in [
        (br#"{"image": "0.png", "score": NaN}"#.as_slice(), "`NaN` is not valid JSON, though Python writes it"),
        (b"{\"image\": \"caf\xe9.png\"}", "not UTF-8: the byte 0xe9 (line 101, column 15)"),
        (br#"{"image": "0.png", }"#, "not valid JSON: trailing comma (line 101, column 20)"),
        (br#"{"image": "9.png"}"#, "no picture `9.png`"),
    ] {
        let workspace = workspace(with(bad));
        let reported = check(&workspace, 0);
        assert!(
            reported.contains("note") && reported.contains("`records.json`, record 101: ") && reported.contains(cause),
            "{reported}"
        );
        let said = said(&workspace, &["run", "p.toml"], 0);
        assert!(
            said.err.contains("left out 1") && said.err.contains("record 101: ") && said.err.contains(cause),
            "{said}"
        );
        workspace.edit("p.toml", "from =", "on_bad_item = \"fail\"\nfrom =");
        assert!(check(&workspace, 64).contains(cause));
    }
    let workspace = workspace(with(br#"{"image": "0.png", "conversations": [{"from": "human", "value": "What? \ud83d"}, {"from": "gpt", "value": "That."}]}"#));
    assert!(check(&workspace, 0).contains("an unpaired surrogate, which is read as U+FFFD: record 101"));
    assert!(rows(&workspace).contains("What? \u{fffd}"));
}

#[test]
fn records_without_a_picture_are_left_out_where_pictures_are_looked_at() {
    let text = json!({ "id": "t", "conversations": turns("Why?", "So.") });
    let workspace = workspace(json!([record("0.png"), text, record("1.png")]).to_string());
    workspace.copy("tests/reference/llava", "model");
    workspace.write("p.toml", PIPELINE.to_owned() + STAGE2);
    insta::assert_snapshot!(notes(&workspace));
}

#[test]
fn records_that_serve_for_nothing_below_are_found_before_anything_runs() {
    let open = json!({ "image": "0.png", "conversations": [{ "from": "human", "value": "What?" }] });
    let text = json!({ "conversations": turns("Why?", "So.") });
    let reported = |record: Value, more: &str| {
        let workspace = workspace(json!([record]).to_string());
        workspace.copy("tests/reference/llava", "model");
        workspace.write("p.toml", PIPELINE.to_owned() + more);
        check(&workspace, 64)
    };
    insta::assert_snapshot!("conversations_without_an_answer", reported(open, STAGE2));
    insta::assert_snapshot!("records_without_pictures", reported(text, STAGE2));
    let pictures = workspace("");
    pictures.copy("tests/reference/llava", "model");
    pictures.write("p.toml", PIPELINE.replace("records.json", ".") + TRAINING);
    assert!(check(&pictures, 64).contains("none of the records in `inputs.conversations` has a"));
}

#[test]
fn pictures_are_found_under_another_spelling() {
    let workspace = workspace("");
    let (composed, apart) = ("caf\u{e9}.png", "cafe\u{301}.png");
    let bytes = |name: &str| fs::read(workspace.path(name)).unwrap();
    workspace.write(apart, bytes("0.png"));
    workspace.write("Sub/b.png", bytes("1.png"));
    workspace.write("A.PNG", bytes("2.png"));
    let records = [composed, "Sub\\b.png", "a.png"].map(record);
    workspace.write("records.json", json!(records).to_string());
    assert!(check(&workspace, 0).contains("3 pictures are found under another spelling"));
    assert_eq!(rows(&workspace).lines().count(), 3);
    let rows = fs::read_to_string(workspace.path("out/records.jsonl")).unwrap();
    assert!(rows.contains(apart) && rows.contains("Sub/b.png") && rows.contains("A.PNG"), "{rows}");
    workspace.write("a.Png", bytes("2.png"));
    workspace.write("records.json", json!([record("a.png"), record("0.jpg")]).to_string());
    let reported = check(&workspace, 64);
    assert!(
        reported.contains("did you mean `A.PNG` or `a.Png`?") && reported.contains("did you mean `0.png`?"),
        "{reported}"
    );
}

#[test]
fn preference_data_of_other_tools_is_one_pair() {
    let pipeline = r#"[pipeline]
name = "pairs"

[models.base]
source = "model"

[nodes.stage1]
kind = "dpo"
inputs.pairs = { file = "pairs.json" }
model = "base"
learning_rate = 1e-4
batch_size = 1
"#;
    let user = |content: Value| json!({ "role": "user", "content": content });
    let assistant = |text: &str| json!({ "role": "assistant", "content": [{ "type": "text", "text": text }] });
    let asked = json!([{ "type": "image" }, { "type": "text", "text": "What?" }]);
    let mut rows = Vec::new();
    for form in [
        json!({ "image": "0.png", "prompt": "What?", "chosen": "This.", "rejected": "That." }),
        json!({ "images": ["0.png"], "prompt": [user(asked.clone())], "chosen": [assistant("This.")], "rejected": [assistant("That.")] }),
        json!({ "images": ["0.png"], "chosen": [user(asked.clone()), assistant("This.")], "rejected": [user(asked), assistant("That.")] }),
        json!({ "image": ["0.png"], "prompt": "What?", "chosen": turns("<image>\nWhat?", "This."), "rejected": turns("What?", "That.") }),
    ] {
        let workspace = Workspace::with_pipeline(pipeline);
        workspace.copy("tests/reference/llava", "model");
        workspace.pictures(".", 1);
        workspace.write("pairs.json", json!([form]).to_string());
        said(&workspace, &["run", "p.toml"], 0);
        rows.push(exported(&workspace, "stage1.pairs", "pairs.jsonl"));
    }
    assert!(rows.iter().all(|row| *row == rows[0] && row.len() == 1), "{rows:#?}");
}

#[test]
fn missing_data_is_reported_with_typos_each_once() {
    let pipeline = r#"[pipeline]
name = "much"

[models.base]
source = "nowhere"

[nodes.images]
kind = "sample"
from = "none"
cuont = 3

[nodes.described]
kind = "describe"
inputs.images = "images"
model = "base"
prompts = "stic:preferred"
temprature = 0.1

[nodes.again]
kind = "describe"
inputs.images = { file = "records.jsonl" }
model = "base"
prompts = { file = "prompts.txt" }

[nodes.trained]
kind = "dpo"
inputs.pairs = { file = "pairs.json" }
model = "base"
learning_rate = "high"
batch_size = 1
"#;
    let workspace = Workspace::with_pipeline(pipeline);
    insta::assert_snapshot!(check(&workspace, 64));
}

#[test]
fn what_is_left_out_of_a_file_is_reported_of_that_file_also_where_another_made_the_result() {
    let clean = json!([record("0.png"), record("1.png")]);
    let workspace = workspace(clean.to_string());
    assert!(!notes(&workspace).contains("left out"));
    let spoken = with_turns(&[json!({ "from": "system", "value": "Be brief." })], &[]);
    workspace.write("records.json", json!([spoken, record("1.png")]).to_string());
    for again in [false, true] {
        let said = said(&workspace, &["run", "p.toml", "--json"], 0);
        assert!(said.out.contains(r#""how":"hit""#) && !said.out.contains(r#""how":"run""#), "{said}");
        let notes: Vec<&str> = said.err.lines().filter(|line| line.starts_with("note    images")).collect();
        assert!(notes.len() == 1 && notes[0].contains("system"), "{again} {said}");
        assert!(said.out.lines().any(|line| line.contains(r#""event":"note""#) && line.contains("system")), "{said}");
    }
}
