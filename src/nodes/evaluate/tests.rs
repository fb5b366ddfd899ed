//! What `evaluate` asks, describes, scores and names.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::artifact::{self, read_lines};
use crate::nodes::harness::{TestContext, read};

/// The checkpoint with random weights that the project carries.
fn checkpoint() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/photos/checkpoint")
}

/// Two pictures, two questions about the first and one, asked twice, about the second.
fn data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, width, color) in [("a.png", 40, [200, 30, 30]), ("b.png", 70, [30, 30, 200])] {
        image::RgbImage::from_pixel(width, 48, image::Rgb(color)).save(folder.path().join(name)).unwrap();
    }
    let ask = |image: &str, question: &str, answer: &str| {
        json!({ "image": image, "question": question, "answer": answer }).to_string() + "\n"
    };
    let questions = [
        ask("a.png", "What color?", "red"),
        ask("b.png", "What color?", "blue"),
        ask("a.png", "How many?", "2"),
        ask("b.png", "What color?", "blue"),
    ];
    std::fs::write(folder.path().join("questions.jsonl"), questions.concat()).unwrap();
    let annotations =
        "{\"image\": \"a.png\", \"objects\": [\"dog\"]}\n{\"image\": \"b.png\", \"objects\": [\"cat\"]}\n";
    std::fs::write(folder.path().join("annotations.jsonl"), annotations).unwrap();
    folder
}

fn node(data: &Path, more: &str) -> Box<dyn Node> {
    let text = format!("model = \"base\"\nbenchmark = \"vqa\"\ndata = {data:?}\nmax_new_tokens = 6\n{more}");
    read(&EvaluateKind, &text, &[], &checkpoint()).unwrap()
}

fn mistakes(more: &str) -> Vec<String> {
    read(&EvaluateKind, &format!("model = \"base\"\n{more}"), &[], &checkpoint()).err().unwrap()
}

fn work(node: &dyn Node) -> &dyn ItemWork {
    let Work::Items(work) = node.work() else { panic!("the kind maps items") };
    work
}

fn inputs(harness: &TestContext) -> Inputs {
    Inputs::new(BTreeMap::new(), harness.objects.clone())
}

/// The values of the items `pending`.
fn values(node: &dyn Node, harness: &TestContext, pending: &[usize]) -> BTreeMap<usize, Result<Reply, BadItem>> {
    let mut values = BTreeMap::new();
    work(node)
        .map(&inputs(harness), pending, harness, &mut |index, value| {
            let reply = value.map(|value| serde_json::from_value(value.value).unwrap());
            assert!(values.insert(index, reply).is_none(), "item {index} came twice");
            ControlFlow::Continue(())
        })
        .unwrap();
    values
}

fn harness(data: &Path) -> TestContext {
    let harness = TestContext::new();
    for name in ["a.png", "b.png"] {
        Objects::put(&*harness.objects, &std::fs::read(data.join(name)).unwrap()).unwrap();
    }
    harness
}

#[test]
fn a_question_is_an_item_and_a_repeat_gets_an_ordinal() {
    let data = data();
    let harness = harness(data.path());
    let items = |more: &str| work(&*node(data.path(), more)).items(&inputs(&harness), 7, &harness).unwrap();
    let direct = items("");
    assert_eq!(direct.len(), 4);
    assert_eq!(direct[3].id.to_string(), format!("{}#2", direct[1].id));
    assert_eq!(direct[3].reads, direct[1].reads);
    let describing = items("describe_and_respond = true");
    assert_eq!(describing[0].id, direct[0].id);
    assert_ne!(describing[0].reads, direct[0].reads);
}

#[test]
fn one_description_serves_all_questions_about_a_picture() {
    let data = data();
    let harness = harness(data.path());
    let node = node(data.path(), "describe_and_respond = true\ntemperature = 0.8");
    let values = values(&*node, &harness, &[0, 1, 2, 3]);
    let reply: Vec<&Reply> = values.values().map(|reply| reply.as_ref().unwrap()).collect();
    let description = reply[0].description.clone().unwrap();
    assert!(!description.is_empty());
    assert_eq!(reply[2].description.as_ref(), Some(&description));
    assert_eq!(reply[0].prompt, format!("Image description:\n{description}\n\nWhat color?"));
    assert_eq!(reply[1].description, reply[3].description);
    assert_ne!(reply[0].description, reply[1].description);
}

#[test]
fn descriptions_count_as_progress_before_the_first_answer() {
    let data = data();
    let harness = harness(data.path());
    values(&*node(data.path(), "describe_and_respond = true"), &harness, &[0, 1, 2, 3]);
    let progress = harness.progress.lock().unwrap();
    let mut done: Vec<usize> = progress.iter().map(|progress| progress.done).collect();
    done.dedup();
    assert_eq!(done, [0, 1, 2, 3, 4, 5, 6], "two pictures are described, four questions answered");
    assert!(progress.iter().all(|progress| progress.total == 6));
}

#[test]
fn an_answer_does_not_depend_on_what_else_is_pending() {
    let data = data();
    let harness = harness(data.path());
    let node = node(data.path(), "describe_and_respond = true\ntemperature = 0.8");
    let all = values(&*node, &harness, &[0, 1, 2, 3]);
    let one = values(&*node, &harness, &[2]);
    assert_eq!(one.len(), 1);
    assert_eq!(one[&2], all[&2]);
}

#[test]
fn the_forms_differ_in_separator_and_in_what_the_description_sees() {
    let data = data();
    let harness = harness(data.path());
    let reply = |more: &str| values(&*node(data.path(), more), &harness, &[0, 1]);
    let direct = reply("");
    let first = direct[&0].as_ref().unwrap();
    assert_eq!((first.description.as_deref(), first.prompt.as_str()), (None, "What color?"));
    let paper = reply("describe_and_respond = \"paper\"");
    let first = paper[&0].as_ref().unwrap();
    let description = first.description.clone().unwrap();
    assert_eq!(first.prompt, format!("Image description:\n{description}\nWhat color?"));
    let published = reply("describe_and_respond = \"published\"");
    let of = |index: usize| published[&index].as_ref().unwrap();
    assert_eq!(of(0).description, of(1).description, "a greedy description without a picture is one for all");
    assert_ne!(of(0).description, first.description);
    assert!(of(0).prompt.ends_with("\n\nWhat color?"));
}

#[test]
fn a_picture_that_cannot_be_decoded_fails_its_questions_alone() {
    let data = data();
    std::fs::write(data.path().join("a.png"), "no picture").unwrap();
    let harness = harness(data.path());
    let values = values(&*node(data.path(), ""), &harness, &[0, 1, 2]);
    let bad = values[&0].as_ref().unwrap_err();
    assert!(bad.what.ends_with("a.png"), "{bad:?}");
    assert_eq!(values[&2].as_ref().unwrap_err(), bad);
    assert!(values[&1].is_ok());
}

#[test]
fn what_was_said_is_scored_afterwards() {
    let data = data();
    let harness = harness(data.path());
    let node = node(data.path(), "extract = \"final_answer\"");
    let values = [(0, reply("The answer is red.")), (1, reply("Blue.")), (2, reply("three"))];
    let output = work(&*node).collect(&inputs(&harness), &mut values.into_iter(), &harness).unwrap();
    assert_eq!(
        output.identity.iter().map(|part| part.name.as_str()).collect::<Vec<_>>(),
        ["predictions.jsonl", "scores.json"]
    );
    let read_part = |index: usize| Objects::read(&*harness.objects, &output.identity[index].digest).unwrap();
    let predictions: Vec<crate::artifact::Prediction> = read_lines(&read_part(0)).unwrap();
    let rows: Vec<_> = predictions.iter().map(|row| (row.answer.as_str(), row.score)).collect();
    assert_eq!(rows, [("red", 1.0), ("Blue", 1.0), ("three", 0.0)]);
    let scores: crate::eval::suite::Scores = serde_json::from_slice(&read_part(1)).unwrap();
    assert_eq!((scores.items, scores.pictures), (3, 2));
    assert_eq!(
        output.summary.line,
        "3 questions about 2 pictures: accuracy 0.667 [0.500, 1.000]; 1 cut at `max_new_tokens`"
    );
    assert_eq!(output.summary.labels["form"], "direct");
    assert_eq!(output.summary.labels["extract"], "final_answer");
    assert_eq!(output.summary.blocks.len(), 2);
    assert_eq!((predictions[0].gold.as_slice(), &predictions[0].claimed), (["red".to_owned()].as_slice(), &None));
}

#[test]
fn gray_of_more_than_eight_bits_is_reported_once() {
    let data = data();
    let odd = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/odd");
    std::fs::copy(odd.join("pnm_grey_1000.pgm"), data.path().join("b.png")).unwrap();
    let harness = harness(data.path());
    collected(&*node(data.path(), ""), &harness, &["red", "blue", "two", "blue"]);
    let notes = harness.notes.lock().unwrap();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("1 of 2 pictures is gray of more than 8 bits"), "{notes:?}");
}

/// What an item's value is when the model said `text`; `Blue.` was cut.
fn reply(text: &str) -> ItemValue {
    let reply = Reply {
        description: None,
        prompt: "p".to_owned(),
        text: text.to_owned(),
        tokens: 1,
        finish: if text == "Blue." { Finish::Length } else { Finish::Stop },
    };
    ItemValue { value: serde_json::to_value(reply).unwrap(), objects: Vec::new() }
}

fn collected(node: &dyn Node, harness: &TestContext, texts: &[&str]) -> Output {
    let values: Vec<_> = texts.iter().map(|text| reply(text)).enumerate().collect();
    work(node).collect(&inputs(harness), &mut values.into_iter(), harness).unwrap()
}

#[test]
fn nothing_is_taken_out_of_an_answer_unless_that_is_asked_for() {
    let data = data();
    let harness = harness(data.path());
    let accuracy = |more: &str| {
        let output = collected(&*node(data.path(), more), &harness, &["The answer is red", "Blue.", "2"]);
        output.summary.metrics[0].value
    };
    assert!((accuracy("") - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(accuracy("extract = \"final_answer\""), 1.0);
    let names = |more: &str| -> Vec<String> {
        node(data.path(), more).parameters().into_iter().map(|parameter| parameter.name).collect()
    };
    assert_eq!(names("extract = \"none\"\nscorer = \"vqa\""), ["benchmark", "max_new_tokens"]);
    let scoring = names("extract = \"final_answer\"\nscorer = \"textvqa\"");
    assert_eq!(scoring, ["benchmark", "max_new_tokens", "extract", "scorer"]);
    assert_eq!(
        mistakes("benchmark = \"captions\"\ndata = \"d\"\nextract = \"none\""),
        ["`extract` applies to short answers, but `captions` measures descriptions: not used here"]
    );
}

#[test]
fn names_are_those_of_the_pipeline_file_and_no_part_of_the_result() {
    let data = data();
    let harness = harness(data.path());
    let node = node(data.path(), "");
    let output = collected(&*node, &harness, &["red", "blue", "2"]);
    assert!(["model", "data", "adapter"].iter().all(|label| !output.summary.labels.contains_key(*label)));
    let names = node.names(&|port| if port == "adapter" { vec!["stage1".to_owned()] } else { Vec::new() });
    let folder = data.path().file_name().unwrap().to_str().unwrap();
    let expected = [("adapter", "stage1"), ("data", folder), ("model", "base")];
    assert_eq!(names, expected.map(|(label, name)| (label.to_owned(), name.to_owned())).into());
}

#[test]
fn two_models_that_were_asked_the_same_are_compared_question_by_question() {
    let data = data();
    let harness = harness(data.path());
    let made = |node: &dyn Node, texts: &[&str]| harness.made(artifact::SCORES, collected(node, &harness, texts));
    let direct = node(data.path(), "");
    let base = made(&*direct, &["red", "green", "3", "green"]);
    let better = made(&*node(data.path(), "describe_and_respond = true"), &["red", "blue", "2", "green"]);
    let compared = direct.differences(&better, &base, &*harness.objects).unwrap().unwrap();
    assert_eq!((compared.items, compared.counts["pictures"]), (4, 2));
    assert_eq!((compared.metrics[0].name.as_str(), compared.metrics[0].value), ("accuracy", 0.5));
    let [low, high] = compared.metrics[0].interval.unwrap();
    assert!(low < 0.0 && high == 1.0, "each of two pictures brings one more of two: {low} {high}");
    let otherwise = made(&*node(data.path(), "extract = \"final_answer\""), &["red", "blue", "2", "green"]);
    assert_eq!(direct.differences(&otherwise, &base, &*harness.objects).unwrap(), None, "scored otherwise");
}

#[test]
fn a_description_is_kept_with_what_it_claims_and_invents() {
    let data = data();
    let harness = harness(data.path());
    let more = format!("model = \"base\"\nbenchmark = \"captions\"\ndata = {:?}", data.path());
    let node = read(&EvaluateKind, &more, &[], &checkpoint()).unwrap();
    let output = collected(&*node, &harness, &["Two dogs and a cat.", "Nothing."]);
    let rows: Vec<crate::artifact::Prediction> =
        read_lines(&Objects::read(&*harness.objects, &output.identity[0].digest).unwrap()).unwrap();
    let lists = |row: &crate::artifact::Prediction| {
        [&row.claimed, &row.invented, &row.missed].map(|list| list.clone().unwrap().join(","))
    };
    assert_eq!(lists(&rows[0]), ["dog,cat", "cat", ""]);
    assert_eq!(lists(&rows[1]), ["", "", "cat"]);
    assert!(output.summary.line.contains("there is no `vocabulary.json`"), "{}", output.summary.line);
    let silent = collected(&*node, &harness, &["Nothing.", "Nothing."]);
    assert!(
        silent.summary.line.contains("; precision, hallucination undefined (no objects mentioned)"),
        "{}",
        silent.summary.line
    );
}

#[test]
fn an_answer_that_vqa_counts_as_wrong_for_its_spelling_alone_is_reported() {
    let data = data();
    let given = ["yes"; 10];
    let entry = json!({"image": "a.png", "question": "Is it?", "answers": given, "answer_type": "yes/no"});
    std::fs::write(data.path().join("questions.jsonl"), entry.to_string()).unwrap();
    let harness = harness(data.path());
    let line = |more: &str, text: &str| collected(&*node(data.path(), more), &harness, &[text]).summary.line;
    assert!(line("", "Yes").contains("; 1 differ from what all annotators say only in case"), "{}", line("", "Yes"));
    assert!(!line("", "yes").contains("annotators") && !line("", "no").contains("annotators"));
    assert!(line("scorer = \"textvqa\"", "Yes").starts_with("1 question about 1 picture: accuracy 1.000"));
}

#[test]
fn captions_ask_the_describe_prompt_of_every_picture() {
    let data = data();
    let harness = harness(data.path());
    let more = format!(
        "model = \"base\"\nbenchmark = \"captions\"\ndata = {:?}\nmax_new_tokens = 3\ndescribe_prompt = \"Tell.\"",
        data.path()
    );
    let node = read(&EvaluateKind, &more, &[], &checkpoint()).unwrap();
    let values = values(&*node, &harness, &[0, 1]);
    assert!(values.values().all(|reply| reply.as_ref().unwrap().prompt == "Tell."));
    let names: Vec<String> = node.parameters().into_iter().map(|parameter| parameter.name).collect();
    assert_eq!(names, ["benchmark", "describe_prompt", "max_new_tokens"]);
}

#[test]
fn gold_answers_are_in_the_key_of_the_node_alone() {
    let data = data();
    let harness = harness(data.path());
    let node = node(data.path(), "");
    let key = || (node.sources(&harness).unwrap(), work(&*node).items(&inputs(&harness), 7, &harness).unwrap());
    let before = key();
    let path = data.path().join("questions.jsonl");
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replace("\"red\"", "\"crimson\"")).unwrap();
    let after = key();
    assert_eq!(before.1, after.1);
    let changed: Vec<&str> = std::iter::zip(&before.0, &after.0)
        .filter(|(before, after)| before != after)
        .map(|(before, _)| before.name.as_str())
        .collect();
    assert_eq!(changed, ["data"]);
    assert_eq!(before.0.last().unwrap().class, stic_engine::node::Class::Selection);
}

#[test]
fn a_benchmark_of_the_paper_is_named_as_not_there_yet() {
    assert_eq!(
        mistakes("benchmark = \"scienceqa\"\ndata = \"d\""),
        ["the benchmark `scienceqa` is not supported yet: one of the paper's seven"]
    );
    assert_eq!(
        mistakes("benchmark = \"vqaa\"\ndata = \"d\"")[0],
        "unknown benchmark `vqaa`: no benchmark has this name"
    );
    assert_eq!(
        mistakes("benchmark = \"vqa\"\ndata = \"d\"\njudge = \"x\"")[0],
        "`judge` is not supported yet: not supported by this version of stic"
    );
    assert_eq!(mistakes("benchmark = \"vqa\"\ndata = \"d\"\ndescribe_and_respond = 3").len(), 1);
}
