//! Files that are not what their names promise: at every entrance it is reported what they really are and what to do.
//! And files with a byte-order mark, which are what they promise.

use std::fs;

use serde_json::json;

use crate::workspace::{Said, Workspace};

/// A file of every kind that is read: a model's, an adapter's, records, imports, prompts, data of benchmarks.
const PIPELINE: &str = r#"[pipeline]
name = "files"

[models.base]
source = "model"

[nodes.records]
kind = "sample"
from = "records.json"

[nodes.lines]
kind = "sample"
from = "lines.jsonl"

[nodes.listed]
kind = "sample"
from = "list"

[nodes.described]
kind = "describe"
inputs.images = "listed"
inputs.adapter = { file = "adapter" }
model = "base"
prompts = { file = "prompts.txt" }
max_new_tokens = 2

[nodes.misled]
kind = "mislead"
inputs.images = "listed"
model = "base"
prompts = { file = "prompts.json" }
max_new_tokens = 2

[nodes.trained]
kind = "dpo"
inputs.pairs = { file = "pairs.json", images = "pictures" }
model = "base"
lora = { rank = 2 }
learning_rate = 1e-3
batch_size = 1

[nodes.asked]
kind = "evaluate"
model = "base"
benchmark = "vqa"
data = "vqa"
max_new_tokens = 2

[nodes.captioned]
kind = "evaluate"
model = "base"
benchmark = "captions"
data = "captions"
max_new_tokens = 2
"#;

/// All texts that are read.
const TEXTS: [&str; 17] = [
    "p.toml",
    "records.json",
    "lines.jsonl",
    "list",
    "prompts.txt",
    "prompts.json",
    "pairs.json",
    "vqa/questions.jsonl",
    "captions/annotations.jsonl",
    "captions/vocabulary.json",
    "adapter/adapter_config.json",
    "model/config.json",
    "model/generation_config.json",
    "model/processor_config.json",
    "model/special_tokens_map.json",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
];

const TENSORS: [&str; 2] = ["model/model.safetensors", "adapter/adapter_model.safetensors"];

fn workspace() -> Workspace {
    let workspace = Workspace::with_pipeline(PIPELINE);
    workspace.copy("tests/reference/llava", "model");
    workspace.copy("tests/reference/llava/adapter", "adapter");
    // What older versions of transformers keep apart.
    workspace.write("model/special_tokens_map.json", "{}");
    workspace.pictures("pictures", 2);
    workspace.pictures("vqa", 1);
    workspace.pictures("captions", 1);
    let turns = json!([{ "from": "human", "value": "<image>\nWhat?" }, { "from": "gpt", "value": "That." }]);
    let record = |name: &str| json!({ "id": name, "image": format!("pictures/{name}.png"), "conversations": turns });
    workspace.write("records.json", json!([record("0"), record("1")]).to_string());
    workspace.write("lines.jsonl", format!("{}\n{}\n", record("0"), record("1")));
    workspace.write("list", "pictures/0.png\npictures/1.png\n");
    workspace.write("prompts.txt", "Look.\nDescribe it.\n");
    workspace.write("prompts.json", "[\"Imagine.\", \"Invent.\"]");
    let pair = json!({ "image": "0.png", "prompt": "What?", "chosen": "A table.", "rejected": "A dragon." });
    workspace.write("pairs.json", json!([pair]).to_string());
    workspace.write("vqa/questions.jsonl", "{\"image\": \"0.png\", \"question\": \"What?\", \"answer\": \"red\"}\n");
    workspace.write("captions/annotations.jsonl", "{\"image\": \"0.png\", \"objects\": [\"dog\"]}\n");
    workspace.write("captions/vocabulary.json", "[\"cat\", [\"dog\", \"puppy\"]]");
    workspace
}

fn check(workspace: &Workspace) -> Said {
    workspace.stic(&["check", "p.toml"])
}

fn marked(workspace: &Workspace, name: &str) {
    let text = fs::read(workspace.path(name)).unwrap();
    workspace.write(name, ["\u{feff}".as_bytes(), &text].concat());
}

const POINTER: &str =
    "version https://git-lfs.github.com/spec/v1\noid sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c\nsize 4932\n";

#[test]
fn whatever_takes_the_place_of_a_file_is_named_with_its_remedy() {
    let workspace = workspace();
    let said = check(&workspace);
    assert_eq!(said.code, Some(0), "{said}");
    let utf_16: Vec<u8> = "\u{feff}{\"some\": \"text\"}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let replacements: [(&[u8], &str, &str); 4] = [
        (POINTER.as_bytes(), "a Git LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html><head><title>Log in</title></head></html>\n", "an HTML page", "download the file"),
        (&utf_16, "text in UTF-16", "save it as UTF-8"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "a gzip archive", "unpack it"),
    ];
    for name in TEXTS.into_iter().chain(TENSORS) {
        let before = fs::read(workspace.path(name)).unwrap();
        for (content, what, remedy) in replacements {
            workspace.write(name, content);
            let said = check(&workspace);
            let (file, text) = (name.rsplit('/').next().unwrap(), said.err.replace('\n', " "));
            assert_eq!(said.code, Some(64), "{name}: {said}");
            for expected in [file, what, remedy] {
                assert!(text.contains(expected), "{name} should be reported as {expected:?}: {said}");
            }
            assert!(!text.contains("panicked"), "{said}");
        }
        workspace.write(name, before);
    }
}

#[test]
fn pickles_and_empty_files_are_reported_where_tensors_are_expected() {
    let workspace = workspace();
    let pickle = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/peft/projector.bin")).unwrap();
    for name in TENSORS {
        let before = fs::read(workspace.path(name)).unwrap();
        for (content, what, remedy) in [
            (&pickle[..], "a PyTorch pickle", "safetensors.torch.save_file"),
            (b"", "an empty file", "download it again"),
            (&[0; 4096], "nothing but zero bytes", "download it again"),
            (b"{\"error\": \"rate limited\"}", "text, not tensors", "download the file again"),
        ] {
            workspace.write(name, content);
            let said = check(&workspace);
            assert!(said.code == Some(64) && said.err.contains(what) && said.err.contains(remedy), "{name}: {said}");
        }
        workspace.write(name, before);
    }
}

#[test]
fn an_input_of_score_that_is_something_else_is_named() {
    let workspace = workspace();
    workspace.write("input.jsonl", POINTER);
    let said = workspace.stic(&["score", "--model", "model", "--input", "input.jsonl"]);
    assert!(said.code == Some(64) && said.err.contains("input.jsonl: a Git LFS pointer"), "{said}");
}

#[test]
fn a_byte_order_mark_changes_nothing_wherever_it_is() {
    let workspace = workspace();
    workspace.write("input.jsonl", "{\"image\": \"pictures/0.png\", \"prompt\": \"What?\", \"response\": \"That.\"}\n");
    let score = |workspace: &Workspace, template: &str| {
        let fixed = ["score", "--model", "model", "--adapter", "adapter", "--input", "input.jsonl", "--json"];
        let said = workspace.stic(&[&fixed[..], &["--template", template]].concat());
        assert_eq!(said.code, Some(0), "{said}");
        said.out
    };
    workspace.write("model/chat_template.json", "{\"chat_template\": \"{{ messages[0].content }}\"}");
    let digests = |workspace: &Workspace| {
        fs::remove_dir_all(workspace.path("cache")).ok();
        let said = workspace.stic(&["run", "p.toml", "-q", "--json"]);
        assert_eq!(said.code, Some(0), "{said}");
        let events = said.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        // What comes out, not the key: files of a model are known by their bytes.
        let finished = events.filter(|event| event["event"] == "finished");
        let mut digests: Vec<String> =
            finished.map(|event| format!("{} {}", event["node"], event["content"])).collect();
        digests.sort();
        digests
    };
    let (before, made) = (score(&workspace, "vicuna_v1"), digests(&workspace));
    for name in TEXTS.into_iter().chain(["input.jsonl", "model/chat_template.json"]) {
        marked(&workspace, name);
    }
    assert_eq!(score(&workspace, "vicuna_v1"), before);
    assert_eq!(digests(&workspace), made);
}
