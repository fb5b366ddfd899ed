//! Runs a whole pipeline with a model family other than LLaVA.

use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::model::toy::{checkpoint, picture};

const PIPELINE: &str = r#"
    [pipeline]
    name = "toy"
    seed = 4

    [device]
    backend = "cpu"

    [models.base]
    source = "model"

    [nodes.images]
    kind = "sample"
    from = "pictures"

    [nodes.preferred]
    kind = "describe"
    inputs.images = "images"
    model = "base"
    prompts = ["tell me what is there", "name the color"]
    max_new_tokens = 6

    [nodes.misled]
    kind = "mislead"
    inputs.images = "images"
    model = "base"
    prompts = ["tell me what is not there"]
    max_new_tokens = 6
    detail = "high"

    [nodes.pairs]
    kind = "pair"
    inputs.preferred = "preferred"
    inputs.rejected = "misled"
    instructions = ["what is there ?"]

    [nodes.stage1]
    kind = "dpo"
    inputs.pairs = "pairs"
    model = "base"
    lora = { rank = 2, alpha = 4, targets = ["q_proj", "k_proj"] }
    learning_rate = 1e-2
    batch_size = 2
    epochs = 3

    [nodes.answers]
    kind = "evaluate"
    inputs.adapter = "stage1"
    model = "base"
    benchmark = "vqa"
    data = "questions"
    describe_and_respond = true
    max_new_tokens = 4
"#;

#[test]
fn a_pipeline_describes_trains_and_evaluates_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["model", "pictures", "questions"] {
        fs::create_dir(path(name)).unwrap();
    }
    checkpoint(&path("model"));
    for (index, (width, height)) in [(40, 20), (16, 16), (9, 30)].into_iter().enumerate() {
        picture(width, height).save(path("pictures").join(format!("{index}.png"))).unwrap();
        picture(height, width).save(path("questions").join(format!("{index}.png"))).unwrap();
    }
    let question =
        |index: usize| json!({ "image": format!("{index}.png"), "question": "which color ?", "answer": "red" });
    let questions: String = (0..3).map(|index| format!("{}\n", question(index))).collect();
    fs::write(path("questions").join("questions.jsonl"), questions).unwrap();
    fs::write(path("toy.toml"), PIPELINE).unwrap();
    let stic = |command: &str, more: &[&str]| {
        let file = path("toy.toml").into_os_string();
        let cache = path("cache").into_os_string();
        let arguments = ["stic", command, "-q", "--cache"].map(OsString::from).into_iter().chain([cache, file]);
        super::main(arguments.chain(more.iter().map(OsString::from)), &crate::nodes::kinds())
    };
    assert_eq!(stic("run", &[]), ExitCode::SUCCESS);
    assert_eq!(stic("plan", &[]), ExitCode::SUCCESS, "nothing is left to do");
    let adapter = path("adapter");
    assert_eq!(stic("export", &["stage1", adapter.to_str().unwrap()]), ExitCode::SUCCESS);
    let settings: Value = serde_json::from_slice(&fs::read(adapter.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(settings["target_modules"], json!(["k_proj", "q_proj"]));
    assert_eq!(settings["exclude_modules"], "eye.*");
    let bytes = fs::read(adapter.join("adapter_model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), 3 * 2 * 2);
    let trained = tensors.tensor("base_model.model.speaker.blocks.2.mix.query.lora_B.weight").unwrap();
    assert!(trained.data().iter().any(|byte| *byte != 0));

    let model = path("model");
    let image = path("pictures").join("0.png");
    let generate = |option: &str, value: &str| {
        let arguments = ["stic", "generate", "-q", "--device", "cpu", "--max-new-tokens", "2", "--prompt", "what"];
        let paths = [("--model", &model), ("--image", &image)].map(|(name, path)| [name.into(), path.into()]);
        let setting = [option, value].map(OsString::from);
        let all = arguments.map(OsString::from).into_iter().chain(paths.into_iter().flatten()).chain(setting);
        super::main(all, &crate::nodes::kinds())
    };
    assert_eq!(generate("--detail", "high"), ExitCode::SUCCESS);
    assert_eq!(generate("--image-mode", "crop"), ExitCode::from(64), "a setting of another family");
}
