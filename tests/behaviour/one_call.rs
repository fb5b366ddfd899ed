//! `generate` and `score`: one model call from the shell, against the numbers of transformers and PEFT.

use serde_json::{Value, json};

use crate::workspace::Workspace;

/// The reference checkpoint, its adapter, a picture, and what transformers makes of them.
fn reference() -> (Workspace, Value) {
    let workspace = Workspace::new();
    workspace.copy("tests/reference/llava", "model");
    workspace.copy("tests/reference/llava/adapter", "adapter");
    workspace.copy("tests/reference/pictures", "pictures");
    let facts = std::fs::read(workspace.path("model/expected.json")).expect("the facts");
    (workspace, serde_json::from_slice(&facts).expect("JSON"))
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

#[test]
fn answers_to_several_pictures_are_those_of_transformers_in_order() {
    let (workspace, facts) = reference();
    let question = facts["question"].as_str().expect("a string");
    let fixed = ["generate", "--model", "model", "--template", "none", "--max-new-tokens", "16", "--json"];
    let pictures = ["--prompt", question, "--image", "pictures/square.png", "pictures/tall.png"];
    let said = workspace.stic(&[&fixed[..], &pictures].concat());
    assert_eq!(said.code, Some(0), "{said}");
    let answers = objects(&said.out);
    assert_eq!(answers.len(), 2);
    for (answer, picture) in answers.iter().zip(["square", "tall"]) {
        assert_eq!(answer["tokens"], facts["pictures"][picture]["greedy"], "{picture}");
        assert_eq!(answer["prompt"], question);
        assert_eq!(answer["image_tokens"], 16);
        assert!(answer["text"].is_string() && answer["input_tokens"].as_u64() > Some(16));
        for half in ["prefill", "decode"] {
            assert!(answer["seconds"][half].as_f64() > Some(0.0), "{half} took a while");
        }
    }
}

/// transformers, reported not to, writes no padding either; left alone it does, for this checkpoint of random weights.
#[test]
fn padding_and_the_like_are_never_written() {
    let workspace = Workspace::new();
    workspace.copy("tests/reference/llava_next", "model");
    workspace.copy("tests/reference/pictures", "pictures");
    let facts: Value = serde_json::from_slice(&std::fs::read(workspace.path("model/expected.json")).unwrap()).unwrap();
    let question = facts["question"].as_str().expect("a string");
    for (picture, facts) in facts["pictures"].as_object().expect("pictures") {
        let path = format!("pictures/{picture}.png");
        let fixed = ["generate", "--model", "model", "--template", "none", "--max-new-tokens", "16", "--json"];
        let said = workspace.stic(&[&fixed[..], &["--prompt", question, "--image", &path]].concat());
        assert_eq!(said.code, Some(0), "{said}");
        assert_eq!(objects(&said.out)[0]["tokens"], facts["written"], "{picture}");
    }
    assert_ne!(facts["pictures"]["small"]["greedy"], facts["pictures"]["small"]["written"]);
}

#[test]
fn tiles_follow_the_rule_that_is_asked_for() {
    let workspace = Workspace::new();
    workspace.copy("tests/reference/llava_next", "model");
    // Smaller than a view in both directions: both resolutions of two tiles show all of it.
    image::RgbImage::new(40, 20).save(workspace.path("small.png")).expect("saved");
    let asked = ["generate", "--model", "model", "--prompt", "What?", "--image", "small.png", "--max-new-tokens", "1"];
    let rows = |rule: &[&str]| {
        let said = workspace.stic(&[&asked[..], &["--json"], rule].concat());
        assert_eq!(said.code, Some(0), "{said}");
        objects(&said.out)[0]["image_tokens"].as_u64().expect("a number")
    };
    // 3 patches a side: 9 rows of the whole, and lines of columns + 1.
    assert_eq!(rows(&[]), 9 + 3 * 7);
    assert_eq!(rows(&["--anyres-rule", "checkpoint"]), 9 + 3 * 7);
    assert_eq!(rows(&["--anyres-rule", "huggingface"]), 9 + 3 * 7);
    assert_eq!(rows(&["--anyres-rule", "original"]), 9 + 2 * 4);
    let said = workspace.stic(&[&asked[..], &["--anyres-rule", "orignal"]].concat());
    assert_eq!(said.code, Some(64));
    assert!(said.err.contains("unknown anyres rule `orignal`") && said.err.contains("`original`"), "{said}");
}

#[test]
fn an_adapter_answers_as_in_peft() {
    let (workspace, facts) = reference();
    let question = facts["question"].as_str().expect("a string");
    let fixed = ["generate", "--model", "model", "--adapter", "adapter", "--template", "none", "--json"];
    let asked = ["--max-new-tokens", "16", "--image", "pictures/square.png", "--prompt", question];
    let said = workspace.stic(&[&fixed[..], &asked].concat());
    assert_eq!(said.code, Some(0), "{said}");
    assert_eq!(objects(&said.out)[0]["tokens"], facts["adapter_greedy"]);
}

#[test]
fn a_placeholder_is_put_in_front_of_a_text_without_one() {
    let (workspace, _) = reference();
    let prompt = |text: &str| {
        let fixed = ["generate", "--model", "model", "--template", "vicuna_v1", "--max-new-tokens", "1", "--json"];
        let said = workspace.stic(&[&fixed[..], &["--image", "pictures/square.png", "--prompt", text]].concat());
        assert_eq!(said.code, Some(0), "{said}");
        objects(&said.out)[0]["prompt"].as_str().expect("a string").to_owned()
    };
    let rendered = prompt("What is this?");
    assert!(rendered.ends_with("USER: <image>\nWhat is this? ASSISTANT:"), "{rendered}");
    assert_eq!(prompt("<image>\nWhat is this?"), rendered);
}

#[test]
fn scores_are_sums_of_token_scores_in_the_order_of_the_input() {
    let (workspace, facts) = reference();
    let line = |image: Value, response: &Value| {
        json!({ "image": image, "prompt": facts["question"], "response": response }).to_string()
    };
    let lines =
        [line(json!("pictures/wide.png"), &facts["rejected"]), line(json!("pictures/wide.png"), &facts["chosen"])];
    workspace.write("input.jsonl", lines.join("\n"));
    let said = workspace.stic(&["score", "--model", "model", "--template", "none", "--input", "input.jsonl", "--json"]);
    assert_eq!(said.code, Some(0), "{said}");
    let scores = objects(&said.out);
    assert_eq!(scores.len(), 2);
    for score in &scores {
        let sum: f64 = score["token_logprobs"].as_array().expect("a list").iter().filter_map(Value::as_f64).sum();
        assert!((score["logprob"].as_f64().expect("a number") - sum).abs() < 1e-3, "{score}");
    }
    let answered = &facts["pictures"]["wide"]["answered"];
    let asked = answered["asked"].as_u64().expect("a number") as usize;
    let ids = answered["ids"].as_array().expect("a list");
    // The placeholder stands for sixteen tokens there; the end token is not part of a response that is rendered.
    assert_eq!(scores[1]["tokens"].as_array().expect("a list")[..], ids[asked..ids.len() - 1]);
}

#[test]
fn pictures_to_score_are_relative_to_the_input_file() {
    let (workspace, _) = reference();
    workspace.write("pictures/input.jsonl", r#"{"image": "wide.png", "prompt": "a", "response": "b"}"#);
    let said = workspace.stic(&["score", "--model", "model", "--input", "pictures/input.jsonl"]);
    assert_eq!(said.code, Some(0), "{said}");
}

#[test]
fn responses_about_several_pictures_name_them() {
    let (workspace, _) = reference();
    let asked = ["generate", "--model", "model", "--prompt", "What?", "--max-new-tokens", "1", "--image"];
    let (wide, square) = ("pictures/wide.png", "pictures/square.png");
    let said = workspace.stic(&[&asked[..], &[wide, square]].concat());
    assert!(said.out.starts_with("pictures/wide.png:\n") && said.out.contains("\npictures/square.png:\n"), "{said}");
    assert!(!workspace.stic(&[&asked[..], &[wide]].concat()).out.contains("png:"));
}

#[test]
fn lines_that_cannot_be_scored_are_reported_all_at_once() {
    let (workspace, _) = reference();
    let slips = "{\"imge\": null, \"prompt\": \"a\", \"response\": \"b\"}\n\
                 {\"image\": \"none.png\", \"prompt\": \"a\", \"response\": \"b\"}\n";
    let sound = "{\"prompt\": \"a\", \"response\": \"b\"}\n";
    workspace.write("input.jsonl", format!("{sound}{{\"prompt\": \"a\"}}\n\nbanana\n{slips}"));
    let said = workspace.stic(&["score", "--model", "model", "--input", "input.jsonl"]);
    assert_eq!(said.code, Some(64));
    insta::assert_snapshot!(said);
    workspace.write("input.jsonl", "{\"prompt\": \"a\", \"response\": \"b\", \"image\": \"none.png\"}\n");
    let said = workspace.stic(&["score", "--model", "model", "--input", "input.jsonl"]);
    assert!(said.code == Some(64) && said.err.contains("input.jsonl, line 1: none.png: "), "{said}");
}

#[test]
fn keys_that_nothing_reads_are_said_to_be_left_alone() {
    let (workspace, _) = reference();
    workspace.write("input.jsonl", "{\"prompt\": \"a\", \"response\": \"b\", \"id\": 3}\n".repeat(2));
    let said = workspace.stic(&["score", "--model", "model", "--input", "input.jsonl"]);
    assert_eq!((said.code, said.out.lines().count()), (Some(0), 2), "{said}");
    assert_eq!(said.err, "note: input.jsonl, line 1: ignoring unknown key `id`\n");
}

#[test]
fn names_that_stand_for_nothing_are_reported_with_the_nearest() {
    let (workspace, _) = reference();
    let with = |more: &[&str]| {
        let prompt = if more.contains(&"--prompt") { &[][..] } else { &["--prompt", "hi"] };
        let said = workspace.stic(&[&["generate"][..], prompt, &["--model"], more].concat());
        assert_eq!(said.code, Some(64), "{said}");
        said.to_string()
    };
    let said = [
        with(&["models"]),
        with(&["model", "--template", "vicuna"]),
        with(&["model", "--image-mode", "padd"]),
        with(&["model", "--device", "cuda"]),
        with(&["model", "--adapter", "adapters"]),
        with(&["model", "--image", "pictures/square.png", "pictures/none.png"]),
        with(&["model", "--temperature", "-1"]),
        with(&["model", "--prompt", "<image>"]),
    ];
    insta::assert_snapshot!(said.join("\n"));
}
