//! What imports make of files, and what they say of broken ones.

use super::super::harness::TestContext;
use super::*;
use crate::data::picture::encode_png;
use crate::data::resample::tests::ramps;
use serde::de::DeserializeOwned;
use serde_json::json;
use stic_engine::node::Objects;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..3 {
        std::fs::write(folder.path().join(format!("{n}.png")), encode_png(&ramps(n + 1, 2))).unwrap();
    }
    folder
}

fn picture(folder: &Path, n: u32) -> Digest {
    Digest::of_file(&folder.join(format!("{n}.png"))).unwrap()
}

fn import(kind: ArtifactKind, file: &Path) -> Box<dyn Node> {
    Box::new(Import::new(kind, file.to_owned(), None))
}

fn rows<T: DeserializeOwned>(kind: ArtifactKind, file: &Path) -> Result<(Vec<T>, Output, TestContext), Failure> {
    let harness = TestContext::new();
    let output = harness.run(import(kind, file).as_ref(), Default::default())?;
    let rows = read_lines(&harness.objects.read(&output.identity[0].digest).unwrap()).unwrap();
    Ok((rows, output, harness))
}

fn round(question: &str, answer: &str) -> Json {
    json!([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])
}

#[test]
fn preference_data_becomes_pairs() {
    let folder = folder();
    let record = |image: &str, answer: &str| json!({"image": image, "image_corruption": false, "hallu_prompt": "Imagine.", "chosen": round("Explain.", answer), "rejected": round("Explain.", "bad")});
    let records =
        json!([record("0.png", "good"), record("0.png", "good"), record("0.png", "better"), record("1.png", "good")]);
    let file = folder.path().join("pref.json");
    std::fs::write(&file, records.to_string()).unwrap();
    let (pairs, output, harness) = rows::<Pair>(artifact::PAIRS, &file).unwrap();
    assert_eq!(pairs.iter().map(|pair| pair.chosen.as_str()).collect::<Vec<_>>(), ["good", "better", "good"]);
    assert_eq!(pairs[0].picture, picture(folder.path(), 0));
    assert_eq!(pairs[1].id.as_str(), format!("{}#2", pairs[0].id));
    assert_eq!(output.summary.line, "3 pairs imported");
    assert_eq!(*harness.notes.lock().unwrap(), ["left out 1 row that repeats another"]);

    let (conversations, ..) = rows::<Conversation>(artifact::CONVERSATIONS, &file).unwrap();
    assert_eq!(conversations[1].conversations[0].value, "<image>\nExplain.");
    assert_eq!(conversations[1].conversations[1].value, "better");
}

#[test]
fn descriptions_and_infused_records_are_read() {
    let folder = folder();
    let file = folder.path().join("image_description.jsonl");
    std::fs::write(
        &file,
        format!("{}\n", json!({"image": folder.path().join("1.png"), "prompt": "Say.", "description": "So."})),
    )
    .unwrap();
    let (responses, ..) = rows::<Response>(artifact::RESPONSES, &file).unwrap();
    assert_eq!((responses[0].picture, responses[0].text.as_str()), (picture(folder.path(), 1), "So."));

    let turns = json!([{"from": "human", "value": "<image>\nImage description:\nSo.\n\nWhat?"}, {"from": "gpt", "value": "That."}]);
    let file = folder.path().join("des_instr_data.json");
    std::fs::write(&file, json!([{"id": 1, "image": "2.png", "conversations": turns}]).to_string()).unwrap();
    let (conversations, ..) = rows::<Conversation>(artifact::CONVERSATIONS, &file).unwrap();
    assert_eq!(conversations[0].picture, Some(picture(folder.path(), 2)));
}

#[test]
fn what_was_exported_comes_in_as_it_went_out() {
    let folder = folder();
    let harness = TestContext::new();
    let output = harness.run(import(artifact::RECORDS, folder.path()).as_ref(), Default::default()).unwrap();
    let text = harness.objects.read(&output.identity[0].digest).unwrap();
    let file = folder.path().join("records.jsonl");
    std::fs::write(&file, &text).unwrap();
    let (records, again, _) = rows::<Record>(artifact::RECORDS, &file).unwrap();
    assert_eq!((records.len(), &again.identity), (3, &output.identity));

    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("records.jsonl");
    std::fs::write(&file, &text).unwrap();
    let error = rows::<Record>(artifact::RECORDS, &file).err().unwrap().to_string();
    assert!(error.starts_with("no picture in ") && error.contains(&records[0].id.short()), "{error}");
    let made = harness.made(artifact::RECORDS, again);
    let labels = import(artifact::RECORDS, &folder.path().join("records.jsonl")).labels(&harness).unwrap();
    let out = tempfile::tempdir().unwrap();
    crate::nodes::export(&made, &*harness.objects, &labels, None, out.path()).unwrap();
    let (same, ..) = rows::<Record>(artifact::RECORDS, &out.path().join("records.jsonl")).unwrap();
    assert_eq!(same, records, "exported rows say where their pictures are");
}

#[test]
fn paths_of_another_machine_are_found_by_their_ends() {
    let folder = folder();
    let file = folder.path().join("pref.json");
    let record = |image: &str| json!({"image": image, "prompt": "What?", "chosen": "a", "rejected": "b"});
    std::fs::write(&file, json!([record("/gone/train/0.png"), record("1.png")]).to_string()).unwrap();
    assert_eq!(import(artifact::PAIRS, &file).check_files(), []);
    let (pairs, _, harness) = rows::<Pair>(artifact::PAIRS, &file).unwrap();
    assert_eq!(pairs[0].picture, picture(folder.path(), 0));
    assert!(harness.notes.lock().unwrap()[0].starts_with("1 picture is not where the file says"));
    std::fs::write(&file, json!([record("/gone/train/9.png"), record("1.png")]).to_string()).unwrap();
    let problem = import(artifact::PAIRS, &file).check_files().remove(0);
    assert!(problem.message.contains("pref.json`, record 1: no picture `/gone/train/9.png`"), "{problem:?}");
    assert!(problem.help.is_some_and(|help| help.contains("images = ")));
    let error = rows::<Pair>(artifact::PAIRS, &file).err().unwrap().to_string();
    assert!(error.contains("record 1: no picture `/gone/train/9.png`"), "{error}");
}

#[test]
fn moving_the_file_changes_no_key() {
    let folder = folder();
    let record = json!({"image": "0.png", "prompt": "Say.", "description": "So."});
    let key = |file: PathBuf, images: Option<PathBuf>, text: String| {
        std::fs::write(&file, text).unwrap();
        let node = Import::new(artifact::RESPONSES, file, images);
        node.sources(&TestContext::new()).unwrap()
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let here = key(folder.path().join("a.jsonl"), None, format!("{record}\n"));
    let there = key(elsewhere.path().join("b.json"), Some(folder.path().to_owned()), format!("[{record}]"));
    assert_eq!(here, there);
}

#[test]
fn faults_are_named_by_file_and_line() {
    let folder = folder();
    let file = folder.path().join("pref.jsonl");
    std::fs::write(&file, "{\"image\": \"0.png\"}\n").unwrap();
    let error = rows::<Pair>(artifact::PAIRS, &file).err().unwrap().to_string();
    assert!(error.ends_with("pref.jsonl`, line 1: the record has no `chosen` (it has `image`)"), "{error}");
    let id = picture(folder.path(), 0);
    let row = json!({"id": id, "picture": id});
    let file = folder.path().join("records.jsonl");
    std::fs::write(&file, format!("{row}\n{row}\n")).unwrap();
    let error = rows::<Record>(artifact::RECORDS, &file).err().unwrap().to_string();
    assert!(error.contains("line 2: duplicate id "), "{error}");
    let problems = import(artifact::RECORDS, &file).check_files();
    assert!(problems[0].message.contains("records.jsonl`, line 2: duplicate id "), "{problems:?}");
    let turn = |from: &str| json!({"from": from, "value": "a"});
    let row = json!({"id": id, "conversations": [turn("gpt"), turn("human")]});
    let other = json!({"id": picture(folder.path(), 1), "conversations": [turn("human"), turn("human")]});
    std::fs::write(&file, format!("{row}\n{other}\n")).unwrap();
    let problems = import(artifact::CONVERSATIONS, &file).check_files();
    assert!(
        problems[0].message.ends_with(
            "cannot be read:\nline 1: turn 1 is not by the human\nline 2: turn 2 has the same speaker as the one before"
        ),
        "{problems:?}"
    );
    std::fs::write(&file, "[{\"image\": \"0.png\"}]").unwrap();
    let problems = import(artifact::CONVERSATIONS, &file).check_files();
    assert!(problems[0].message.ends_with("record 1: the record has no `conversations`"), "{problems:?}");
    let turns = [round("a", "b").as_array().unwrap().as_slice(), &[json!({"from": "human", "value": "c"})]].concat();
    std::fs::write(&file, json!([{"image": "0.png", "conversations": turns}]).to_string()).unwrap();
    let node = import(artifact::CONVERSATIONS, &file);
    assert_eq!(node.check_files(), []);
    assert!(node.remarks()[0].ends_with("1 conversation ends with a question, which is left out: record 1"));
    assert_eq!(import(artifact::RECORDS, &file).check_files(), []);
    let missing = import(artifact::PAIRS, &folder.path().join("none.json")).check_files();
    assert!(missing[0].message.starts_with("the file `"), "{missing:?}");
    let adapter = import(artifact::ADAPTER, folder.path()).check_files();
    assert!(adapter[0].message.ends_with("`adapter_config.json` not found"), "{adapter:?}");
    std::fs::write(folder.path().join(peft::SETTINGS), r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 2}"#).unwrap();
    let adapter = import(artifact::ADAPTER, folder.path()).check_files();
    assert!(adapter[0].message.ends_with("`adapter_model.safetensors` not found"), "{adapter:?}");
}

#[test]
fn gray_of_more_than_eight_bits_is_reported_once_of_the_pictures_of_rows() {
    let folder = folder();
    let odd = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference/odd");
    std::fs::copy(odd.join("grey_16_bits.png"), folder.path().join("0.png")).unwrap();
    let row = |image: &str, answer: &str| json!({"image": image, "chosen": round("Explain.", answer), "rejected": round("Explain.", "bad")});
    let file = folder.path().join("pref.json");
    std::fs::write(&file, json!([row("0.png", "a"), row("0.png", "b"), row("1.png", "c")]).to_string()).unwrap();
    let (_, _, harness) = rows::<Pair>(artifact::PAIRS, &file).unwrap();
    let notes = harness.notes.lock().unwrap();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("1 of 2 pictures is gray of more than 8 bits"), "{notes:?}");
}
