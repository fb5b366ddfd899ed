//! What is not as it should be outside the pipeline file: models, adapters, pictures, rows. Each case by the whole of
//! what is said about it; none loses what was there, none panics.

use std::collections::BTreeMap;
use std::fs;

use safetensors::SafeTensors;
use safetensors::tensor::{TensorView, serialize};
use serde_json::{Map, Value, json};

use crate::workspace::{Said, Workspace};

/// One evaluation, of the checkpoint with random weights, on three pictures.
const EVALUATION: &str = r#"[pipeline]
name = "evaluation"

[models.base]
source = "model"

[nodes.score]
kind = "evaluate"
model = "base"
benchmark = "vqa"
data = "data"
max_new_tokens = 2
"#;

const QUESTIONS: &str = r#"{"image": "0.png", "question": "What color?", "answer": "red"}
{"image": "1.png", "question": "What color?", "answer": "green"}
{"image": "2.png", "question": "What color?", "answers": ["blue", "navy"]}
"#;

/// Pictures that are taken and corrupted: no model reads them.
const CORRUPTION: &str = r#"[pipeline]
name = "corruption"
seed = 3

[nodes.images]
kind = "sample"
from = "pictures"

[nodes.corrupted]
kind = "corrupt"
inputs.images = "images"
operations = [{ op = "low_resolution", size = 4 }]
"#;

fn evaluation() -> Workspace {
    let workspace = Workspace::with_pipeline(EVALUATION);
    workspace.copy("examples/photos/checkpoint", "model");
    workspace.pictures("data", 3);
    workspace.write("data/questions.jsonl", QUESTIONS);
    workspace
}

fn corruption() -> Workspace {
    let workspace = Workspace::with_pipeline(CORRUPTION);
    workspace.pictures("pictures", 3);
    workspace
}

/// Runs the pipeline, which is expected to end with `code`.
fn run(workspace: &Workspace, code: i32) -> Said {
    let said = workspace.stic(&["run", "p.toml"]);
    assert_eq!(said.code, Some(code), "{said}");
    assert!(!said.err.contains("panicked"), "{said}");
    said
}

/// Edits a JSON file of the model's.
fn edit_json(workspace: &Workspace, name: &str, edit: impl FnOnce(&mut Map<String, Value>)) {
    let path = workspace.path(name);
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(value.as_object_mut().unwrap());
    workspace.write(name, serde_json::to_vec(&value).unwrap());
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// Edits the model's tensors.
fn edit_tensors(workspace: &Workspace, name: &str, edit: impl FnOnce(&mut Tensors)) {
    let bytes = fs::read(workspace.path(name)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let dtype = file.tensors()[0].1.dtype();
    let read = file.tensors().into_iter().map(|(name, view)| (name, (view.shape().to_vec(), view.data().to_vec())));
    let mut tensors: Tensors = read.collect();
    edit(&mut tensors);
    let views =
        tensors.iter().map(|(name, (shape, data))| (name, TensorView::new(dtype, shape.clone(), data).unwrap()));
    workspace.write(name, serialize(views, None).unwrap());
}

const WEIGHTS: &str = "model/model.safetensors";

#[test]
fn a_model_folder_that_is_not_there() {
    let workspace = evaluation();
    fs::remove_dir_all(workspace.path("model")).unwrap();
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn a_model_without_a_configuration() {
    let workspace = evaluation();
    fs::remove_file(workspace.path("model/config.json")).unwrap();
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn a_model_of_another_architecture() {
    let workspace = evaluation();
    edit_json(&workspace, "model/config.json", |config| {
        config.insert("model_type".to_owned(), json!("qwen2_5_vl"));
    });
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn a_configuration_that_is_no_json() {
    let workspace = evaluation();
    workspace.write("model/config.json", "{\"model_type\": \"llava_next\",");
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn a_model_without_weights() {
    let workspace = evaluation();
    fs::remove_file(workspace.path(WEIGHTS)).unwrap();
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn a_model_without_a_tokenizer() {
    let workspace = evaluation();
    fs::remove_file(workspace.path("model/tokenizer.json")).unwrap();
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn a_tokenizer_that_is_cut_short() {
    let workspace = evaluation();
    let text = fs::read(workspace.path("model/tokenizer.json")).unwrap();
    fs::write(workspace.path("model/tokenizer.json"), &text[..text.len() / 2]).unwrap();
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn weights_that_are_cut_short() {
    let workspace = evaluation();
    let bytes = fs::read(workspace.path(WEIGHTS)).unwrap();
    workspace.write(WEIGHTS, &bytes[..bytes.len() / 2]);
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn weights_that_are_no_safetensors() {
    let workspace = evaluation();
    workspace.write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn a_shard_that_is_missing() {
    let workspace = evaluation();
    fs::rename(workspace.path(WEIGHTS), workspace.path("model/model-00001-of-00002.safetensors")).unwrap();
    let map = json!({ "weight_map": { "image_newline": "model-00002-of-00002.safetensors" } });
    workspace.write("model/model.safetensors.index.json", map.to_string());
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn a_tensor_that_is_missing() {
    let workspace = evaluation();
    edit_tensors(&workspace, WEIGHTS, |tensors| {
        tensors.remove("language_model.model.layers.1.mlp.up_proj.weight").unwrap();
    });
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn a_tensor_of_another_shape() {
    let workspace = evaluation();
    edit_tensors(&workspace, WEIGHTS, |tensors| {
        let tensor = tensors.get_mut("multi_modal_projector.linear_1.weight").unwrap();
        tensor.0 = vec![32, 128];
    });
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn an_adapter_made_for_another_model() {
    let workspace = evaluation();
    workspace.copy("tests/reference/llava/adapter", "adapter");
    workspace.edit("p.toml", "model = \"base\"", "model = \"base\"\ninputs.adapter = { file = \"adapter\" }");
    insta::assert_snapshot!(run(&workspace, 1));
}

#[test]
fn an_adapter_folder_without_an_adapter() {
    let workspace = evaluation();
    workspace.edit("p.toml", "model = \"base\"", "model = \"base\"\ninputs.adapter = { file = \"data\" }");
    insta::assert_snapshot!(run(&workspace, 64));
}

/// What is said about an evaluation of the reference's adapter with other settings.
fn with_settings(settings: &[u8]) -> Said {
    let workspace = evaluation();
    workspace.copy("tests/reference/llava/adapter", "adapter");
    workspace.write("adapter/adapter_config.json", settings);
    workspace.edit("p.toml", "model = \"base\"", "model = \"base\"\ninputs.adapter = { file = \"adapter\" }");
    run(&workspace, 64)
}

#[test]
fn an_adapter_whose_settings_are_no_text() {
    insta::assert_snapshot!(with_settings(b"{\"r\": 4, \xff"));
}

#[test]
fn an_adapter_whose_settings_leave_out_what_it_holds() {
    let settings = json!({ "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ".*\\.q_proj" });
    insta::assert_snapshot!(with_settings(settings.to_string().as_bytes()));
}

#[test]
fn an_adapter_that_is_cut_short() {
    let workspace = evaluation();
    workspace.copy("tests/reference/llava/adapter", "adapter");
    let bytes = fs::read(workspace.path("adapter/adapter_model.safetensors")).unwrap();
    workspace.write("adapter/adapter_model.safetensors", &bytes[..bytes.len() / 2]);
    workspace.edit("p.toml", "model = \"base\"", "model = \"base\"\ninputs.adapter = { file = \"adapter\" }");
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn a_line_of_questions_that_is_broken() {
    let workspace = evaluation();
    workspace.write("data/questions.jsonl", QUESTIONS.replace("\"answer\": \"green\"}", "\"answer\": "));
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn a_question_without_an_answer() {
    let workspace = evaluation();
    workspace.write("data/questions.jsonl", QUESTIONS.replace(", \"answer\": \"green\"", ""));
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn a_question_about_a_picture_that_is_not_there() {
    let workspace = evaluation();
    fs::remove_file(workspace.path("data/1.png")).unwrap();
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn data_without_questions() {
    let workspace = evaluation();
    fs::remove_file(workspace.path("data/questions.jsonl")).unwrap();
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn more_pictures_asked_for_than_are_there() {
    let workspace = corruption();
    workspace.edit("p.toml", "from = \"pictures\"", "from = \"pictures\"\ncount = 4");
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn a_folder_without_pictures() {
    let workspace = corruption();
    fs::remove_dir_all(workspace.path("pictures")).unwrap();
    workspace.write("pictures/notes.txt", "nothing to see");
    insta::assert_snapshot!(run(&workspace, 64));
}

/// Runs the corruption with one more picture, which is broken, among the three.
fn with_picture(name: &str, content: impl AsRef<[u8]>, code: i32) -> Said {
    let workspace = corruption();
    workspace.write(&format!("pictures/{name}"), content);
    run(&workspace, code)
}

fn photograph() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/photos/unlabeled/farm_cat.jpg");
    fs::read(path).unwrap()
}

#[test]
fn a_picture_that_is_cut_short() {
    let whole = photograph();
    insta::assert_snapshot!(with_picture("cut.jpg", &whole[..whole.len() / 2], 1));
}

#[test]
fn a_picture_that_is_empty() {
    insta::assert_snapshot!(with_picture("empty.png", "", 64));
}

#[test]
fn a_text_that_is_called_a_picture() {
    insta::assert_snapshot!(with_picture("text.jpg", "no picture", 64));
}

/// Pictures of equal content are one item, but files replaced by the same page must all count.
#[test]
fn pictures_that_were_replaced_by_the_same_page_are_counted_one_by_one() {
    let workspace = corruption();
    (0..9).for_each(|n| workspace.write(&format!("pictures/page{n}.jpg"), "<!DOCTYPE html><html>"));
    let said = workspace.stic(&["check", "p.toml"]);
    assert_eq!(said.code, Some(64), "{said}");
    assert!(said.to_string().contains("9 of 12 pictures in `pictures` cannot be read:"), "{said}");
    workspace.edit("p.toml", "kind = \"sample\"", "kind = \"sample\"\non_bad_item = \"skip\"");
    let said = run(&workspace, 0);
    assert!(said.err.contains("left out 9 that cannot be read") && said.err.contains("3 of 3 pictures"), "{said}");
}

#[test]
fn a_picture_that_is_enormous_by_its_header() {
    // A PNG file of 50,000 × 50,000 pixels that ends after its header.
    let mut header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    header.extend([50_000u32.to_be_bytes(); 2].concat());
    header.extend([8, 2, 0, 0, 0]);
    header.extend(crc(&header[12..]).to_be_bytes());
    insta::assert_snapshot!(with_picture("enormous.png", header, 1));
}

#[test]
fn a_photograph_that_is_enormous_by_its_header() {
    // The frame of a JPEG file begins with FF C0 (or C2), its length and its precision; then come height and width.
    let mut bytes = photograph();
    let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC0] || pair == [0xFF, 0xC2]).unwrap();
    bytes[frame + 5..frame + 9].copy_from_slice(&[50_000u16.to_be_bytes(); 2].concat());
    insta::assert_snapshot!(with_picture("enormous.jpg", bytes, 1));
}

/// The checksum of a PNG chunk.
fn crc(bytes: &[u8]) -> u32 {
    let step = |value: u32, _| if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
    !bytes.iter().fold(!0u32, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

#[test]
fn a_picture_with_a_wrong_extension_is_read_by_its_content() {
    let workspace = corruption();
    workspace.write("pictures/photograph.png", photograph());
    let said = run(&workspace, 0);
    assert!(said.err.contains("4 altered pictures"), "{said}");
}

#[test]
fn a_broken_picture_among_many_is_left_out_and_counted() {
    let workspace = Workspace::with_pipeline(CORRUPTION);
    for index in 0..120u8 {
        let picture = image::RgbImage::from_fn(8, 6, |x, y| image::Rgb([index, (x * 30) as u8, (y * 30) as u8]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        workspace.write(&format!("pictures/{index}.png"), bytes.into_inner());
    }
    workspace.write("pictures/broken.png", "no picture");
    insta::assert_snapshot!(run(&workspace, 0));
}

#[test]
fn a_broken_picture_stops_a_node_that_is_told_to_fail() {
    let workspace = corruption();
    workspace.edit("p.toml", "kind = \"corrupt\"", "kind = \"corrupt\"\non_bad_item = \"fail\"");
    workspace.write("pictures/broken.png", b"\x89PNG\r\n\x1a\nno picture");
    insta::assert_snapshot!(run(&workspace, 1));
}

#[test]
fn a_broken_picture_that_is_asked_about() {
    let workspace = evaluation();
    workspace.write("data/1.png", "no picture");
    insta::assert_snapshot!(run(&workspace, 64));
}

/// A pipeline that takes instruction records.
fn records(records: &str) -> Workspace {
    let pipeline = CORRUPTION.replace("from = \"pictures\"", "from = \"records.json\"\nimages = \"pictures\"");
    let workspace = Workspace::with_pipeline(&pipeline);
    workspace.pictures("pictures", 3);
    workspace.write("records.json", records);
    workspace
}

fn record(id: &str, image: &str, question: &str) -> String {
    let turns =
        json!([{ "from": "human", "value": format!("<image>\n{question}") }, { "from": "gpt", "value": "A picture." }]);
    let mut record = json!({ "id": id, "conversations": turns });
    if !image.is_empty() {
        record["image"] = json!(image);
    }
    record.to_string()
}

#[test]
fn records_whose_picture_is_not_there() {
    let workspace = records(&format!("[{},\n{}]", record("a", "0.png", "What?"), record("b", "9.png", "What?")));
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn records_without_a_picture_where_one_is_needed_are_left_out() {
    let workspace = records(&format!(
        "[{},\n{}]",
        record("a", "0.png", "What?"),
        record("b", "", "What?").replace("<image>\\n", "")
    ));
    insta::assert_snapshot!(run(&workspace, 0));
}

#[test]
fn two_records_of_one_name_and_different_content_are_two() {
    let workspace = records(&format!("[{},\n{}]", record("a", "0.png", "What?"), record("a", "1.png", "Where?")));
    insta::assert_snapshot!(run(&workspace, 0));
}

#[test]
fn records_that_are_no_json() {
    let workspace = records(&format!("[{},\n{{\"id\": ]", record("a", "0.png", "What?")));
    insta::assert_snapshot!(run(&workspace, 64));
    assert_eq!(workspace.stic(&["check", "--without-data", "p.toml"]).code, Some(0));
}

#[test]
fn all_that_is_wrong_with_records_is_reported_at_once_and_before_anything_runs() {
    let workspace = records("");
    workspace.edit("p.toml", "records.json", "records.jsonl");
    let turns = |from: [&str; 2]| json!({ "image": "0.png", "conversations": from.map(|from| json!({ "from": from, "value": "What?" })) });
    let mut lines = vec![record("a", "0.png", "What?"), turns(["human", "human"]).to_string(), "{\"id\":".to_owned()];
    lines.push(turns(["system", "human"]).to_string());
    lines.extend((0..12).map(|index| json!({ "id": index }).to_string()));
    lines.extend([record("b", "8.png", "What?"), record("c", "/data/coco/9.png", "What?")]);
    workspace.write("records.jsonl", lines.join("\n"));
    let said = run(&workspace, 64);
    assert_eq!(workspace.stic(&["check", "p.toml"]).err, said.err);
    assert_eq!(workspace.stic(&["plan", "p.toml"]).err, said.err);
    assert_eq!(workspace.stic(&["check", "--without-data", "p.toml"]).code, Some(0));
    insta::assert_snapshot!(said);
}

#[test]
fn records_that_where_leaves_out_need_no_pictures() {
    let workspace = records("");
    workspace.edit("p.toml", "images = \"pictures\"", "images = \"pictures\"\nwhere = { path = \"*.png\" }");
    workspace
        .write("records.json", format!("[{},{}]", record("a", "0.png", "What?"), record("b", "vg/8.png", "What?")));
    run(&workspace, 0);
}

#[test]
fn pictures_are_found_by_the_ends_of_paths_of_another_machine() {
    let workspace = records("");
    fs::rename(workspace.path("pictures"), workspace.path("train2014")).unwrap();
    fs::create_dir(workspace.path("pictures")).unwrap();
    fs::rename(workspace.path("train2014"), workspace.path("pictures/train2014")).unwrap();
    workspace.write("pictures/0.png", fs::read(workspace.path("pictures/train2014/1.png")).unwrap());
    let paths = ["/home/someone/coco/train2014/0.png", "C:\\coco\\train2014\\2.png", "/elsewhere/0.png"];
    workspace.write("records.json", format!("[{}]", paths.map(|path| record("", path, "What?")).join(",")));
    insta::assert_snapshot!(run(&workspace, 0));
    let rows = workspace.stic(&["export", "p.toml", "images", "out"]);
    assert_eq!(rows.code, Some(0), "{rows}");
    let rows = fs::read_to_string(workspace.path("out/records.jsonl")).unwrap();
    let images = rows.lines().map(|row| serde_json::from_str::<Value>(row).unwrap()["image"].clone());
    let ends = ["train2014/0.png", "train2014/2.png", "pictures/0.png"];
    assert!(images.zip(ends).all(|(image, end)| image.as_str().unwrap().ends_with(end)), "{rows}");
}

/// A training on imported pairs.
fn training(pairs: &str) -> Workspace {
    let pipeline = r#"[pipeline]
name = "training"

[models.base]
source = "model"

[nodes.stage1]
kind = "dpo"
inputs.pairs = { file = "pairs.jsonl", images = "pictures" }
model = "base"
learning_rate = 1e-4
batch_size = 1
"#;
    let workspace = Workspace::with_pipeline(pipeline);
    workspace.copy("tests/reference/llava", "model");
    workspace.pictures("pictures", 2);
    workspace.write("pairs.jsonl", pairs);
    workspace
}

fn preference(image: &str, chosen: &str) -> String {
    let said = |text: &str| json!([{ "role": "user", "content": "What?" }, { "role": "assistant", "content": text }]);
    json!({ "image": image, "chosen": said(chosen), "rejected": said("A cow.") }).to_string()
}

#[test]
fn a_line_of_imported_pairs_that_is_broken() {
    let workspace =
        training(&format!("{}\n{}\n", preference("0.png", "A line."), &preference("1.png", "A line.")[..60]));
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn a_picture_of_imported_pairs_that_cannot_be_decoded() {
    let pairs = [preference("0.png", "A line."), preference("1.png", "A line."), preference("2.png", "A line.")];
    let workspace = training(&pairs.join("\n"));
    workspace.write("pictures/2.png", "no picture");
    insta::assert_snapshot!(run(&workspace, 64));
}

/// A tokenizer that was made for a model with more tokens.
#[test]
fn a_tokenizer_of_another_model() {
    let workspace = evaluation();
    edit_json(&workspace, "model/tokenizer.json", |tokenizer| {
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        for id in vocabulary.values_mut() {
            *id = json!(id.as_u64().unwrap() + 100_000);
        }
    });
    insta::assert_snapshot!(run(&workspace, 1));
}

#[test]
fn pictures_that_are_to_be_scaled_beyond_reason() {
    let workspace = evaluation();
    edit_json(&workspace, "model/preprocessor_config.json", |processor| {
        processor.insert("size".to_owned(), json!({ "shortest_edge": 1_000_000_000 }));
    });
    insta::assert_snapshot!(run(&workspace, 64));
}

/// Neither time nor memory is spent on a number before it is held against its limit.
#[test]
fn a_model_of_a_thousand_million_layers() {
    let workspace = evaluation();
    edit_json(&workspace, "model/config.json", |config| {
        config["text_config"]["num_hidden_layers"] = json!(1_000_000_000);
    });
    insta::assert_snapshot!(run(&workspace, 64));
}

/// The most that every limit allows is a list of tensors that are not there, and no panic.
#[test]
fn a_model_as_large_as_the_limits_allow() {
    let workspace = evaluation();
    edit_json(&workspace, "model/config.json", |config| {
        for part in ["text_config", "vision_config"] {
            config[part]["num_hidden_layers"] = json!(10_000);
            config[part]["hidden_size"] = json!(1 << 20);
            config[part]["intermediate_size"] = json!(1 << 20);
        }
        config["text_config"]["head_dim"] = json!(1 << 20);
        config["text_config"]["vocab_size"] = json!(1 << 24);
    });
    insta::assert_snapshot!(run(&workspace, 64));
}

#[test]
fn a_picture_with_an_endless_side() {
    insta::assert_snapshot!(with_picture("long.ppm", "P6 1 100000 255\n", 1));
}

#[test]
fn a_picture_so_narrow_that_no_patch_of_it_is_left_is_answered_about() {
    let workspace = evaluation();
    for (width, height) in [(1, 3000), (3000, 1)] {
        let name = format!("{width}.png");
        image::RgbImage::new(width, height).save(workspace.path(&name)).unwrap();
        for mode in ["crop", "pad", "anyres"] {
            let asked = ["generate", "--model", "model", "--prompt", "What?", "--max-new-tokens", "1"];
            let said = workspace.stic(&[&asked[..], &["--image", &name, "--image-mode", mode]].concat());
            assert_eq!(said.code, Some(0), "{said}");
        }
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_records() {
    let workspace = records(&format!("\u{feff}[{}]", record("1", "0.png", "What?")));
    run(&workspace, 0);
}
