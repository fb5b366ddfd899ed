//! Both stages on a small checkpoint: what an edit reruns, and that a killed run ends as one that was left alone.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::workspace::{Said, Workspace};

const NODES: [&str; 12] = [
    "images",
    "preferred",
    "corrupted",
    "from_corrupted",
    "misled",
    "pairs",
    "stage1",
    "instructions",
    "descriptions",
    "infused",
    "stage2",
    "answers",
];

const PIPELINE: &str = r#"[pipeline]
name = "stages"
seed = 5

[models.base]
source = "model"

[nodes.images]
kind = "sample"
from = "pictures"

[nodes.preferred]
kind = "describe"
inputs.images = "images"
model = "base"
prompts = ["what is here"]
max_new_tokens = 12

[nodes.corrupted]
kind = "corrupt"
inputs.images = "images"
fraction = [0.5, 1.0]
operations = [{ op = "low_resolution", size = 4 }, { op = "greyscale" }]

[nodes.from_corrupted]
kind = "describe"
inputs.images = "corrupted"
model = "base"
prompts = "stic:captions"
max_new_tokens = 12

[nodes.misled]
kind = "mislead"
inputs.images = "images"
fraction = [0.0, 0.5]
model = "base"
prompts = "stic:hallucination"
max_new_tokens = 12

[nodes.pairs]
kind = "pair"
inputs.preferred = "preferred"
inputs.rejected = ["from_corrupted", "misled"]

[nodes.stage1]
kind = "dpo"
inputs.pairs = "pairs"
model = "base"
lora = { rank = 4, alpha = 8 }
beta = 0.1
learning_rate = 1e-3
batch_size = 2
epochs = 2
checkpoint_every = 1

[nodes.instructions]
kind = "sample"
from = "instructions.json"
images = "pictures"

[nodes.descriptions]
kind = "describe"
inputs.images = "instructions"
inputs.adapter = "stage1"
model = "base"
prompts = "stic:captions"
max_new_tokens = 12

[nodes.infused]
kind = "infuse"
inputs.instructions = "instructions"
inputs.descriptions = "descriptions"

[nodes.stage2]
kind = "sft"
inputs.conversations = "infused"
inputs.adapter = "stage1"
model = "base"
lora = { dropout = 0.05 }
learning_rate = 1e-3
batch_size = 2

[nodes.answers]
kind = "evaluate"
inputs.adapter = "stage2"
model = "base"
benchmark = "vqa"
data = "test"
describe_and_respond = true
max_new_tokens = 4
"#;

/// Twelve pictures, three instruction records and two questions about them.
fn stages() -> Workspace {
    let workspace = Workspace::with_pipeline(PIPELINE);
    workspace.copy("tests/reference/llava", "model");
    workspace.pictures("pictures", 12);
    let record = |index: u8| {
        serde_json::json!({ "id": index, "image": format!("{index}.png"), "conversations": [
            { "from": "human", "value": "<image>\nwhat color" }, { "from": "gpt", "value": format!("color {index}") },
        ] })
    };
    let records: Vec<Value> = (0..3).map(record).collect();
    workspace.write("instructions.json", serde_json::to_vec(&records).expect("JSON"));
    let question = |index: u8| serde_json::json!({ "image": format!("../pictures/{index}.png"), "question": "what", "answer": "x" });
    workspace.write("test/questions.jsonl", format!("{}\n{}\n", question(4), question(5)));
    workspace
}

/// Runs the pipeline: how each node ended, its items made in this run, and the digest of its result.
fn run(workspace: &Workspace, file: &str) -> BTreeMap<String, (String, u64, String)> {
    let said = workspace.stic(&["run", file, "--json", "-q"]);
    assert_eq!(said.code, Some(0), "{said}");
    finished(&said)
}

fn finished(said: &Said) -> BTreeMap<String, (String, u64, String)> {
    let events = said.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    events
        .filter(|event| event["event"] == "finished")
        .map(|event| {
            let made = event["items"]["done"].as_u64().unwrap_or(0);
            (text(&event["node"]), (text(&event["how"]), made, text(&event["content"])))
        })
        .collect()
}

fn contents(nodes: &BTreeMap<String, (String, u64, String)>) -> BTreeMap<&str, &str> {
    nodes.iter().map(|(node, (_, _, content))| (node.as_str(), content.as_str())).collect()
}

/// The nodes that ran, in the pipeline's order.
fn ran(nodes: &BTreeMap<String, (String, u64, String)>) -> Vec<&'static str> {
    NODES.into_iter().filter(|node| nodes[*node].0 == "run").collect()
}

#[test]
fn an_edit_reruns_what_it_touches_and_nothing_else() {
    let workspace = stages();
    let first = run(&workspace, "p.toml");
    assert_eq!(ran(&first), NODES);

    assert_eq!(ran(&run(&workspace, "p.toml")), [""; 0], "nothing changed");

    let reported = format!("# a comment\n{}", PIPELINE.replace("seed = 5", "seed   =   5 # the same"));
    let (head, nodes) = reported.split_at(reported.find("[nodes.images]").expect("a table"));
    let mut tables: Vec<String> = nodes.split("\n\n").map(str::to_owned).collect();
    tables.reverse();
    workspace.write("renamed.toml", format!("{head}{}", tables.join("\n\n")));
    assert_eq!(ran(&run(&workspace, "renamed.toml")), [""; 0], "comments, order and names determine nothing");

    workspace.edit("p.toml", "beta = 0.1", "beta = 0.3");
    let after = run(&workspace, "p.toml");
    assert_eq!(ran(&after)[..2], ["stage1", "descriptions"], "`beta` reaches dpo and what is below it");
    assert!(NODES[..6].iter().chain(&["instructions"]).all(|node| after[*node].0 == "hit"));

    workspace.edit("p.toml", "what is here", "what is there");
    let after = run(&workspace, "p.toml");
    assert_eq!(ran(&after)[..3], ["preferred", "pairs", "stage1"]);
    workspace.edit("p.toml", "what is there", "what is here");
    workspace.edit("p.toml", "beta = 0.3", "beta = 0.1");
    let back = run(&workspace, "p.toml");
    assert_eq!(ran(&back), [""; 0], "what was made before is found again");
    assert_eq!(contents(&back), contents(&first));
}

#[test]
fn one_more_picture_costs_one_more_generation_a_node() {
    let workspace = stages();
    run(&workspace, "p.toml");
    workspace.write("pictures/new.png", {
        let picture = image::RgbImage::from_pixel(9, 9, image::Rgb([1, 2, 3]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Png).expect("an encoder");
        bytes.into_inner()
    });
    let after = run(&workspace, "p.toml");
    assert_eq!(after["preferred"].1, 1);
    let rejected = after["from_corrupted"].1 + after["misled"].1;
    assert_eq!(rejected, 1, "the new picture has one rejected response");
    assert_eq!(after["corrupted"].1, after["from_corrupted"].1);
}

#[test]
fn a_renamed_and_moved_folder_of_pictures_reruns_nothing() {
    let workspace = stages();
    run(&workspace, "p.toml");
    std::fs::rename(workspace.path("pictures"), workspace.path("photographs")).expect("a directory");
    let test = workspace.path("test/questions.jsonl");
    let moved = std::fs::read_to_string(&test).expect("a file").replace("../pictures", "../photographs");
    std::fs::write(test, moved).expect("a file");
    workspace.edit("p.toml", "from = \"pictures\"", "from = \"photographs\"");
    workspace.edit("p.toml", "images = \"pictures\"", "images = \"photographs\"");
    assert_eq!(ran(&run(&workspace, "p.toml")), [""; 0]);
}

/// The rows of what is exported of `node`.
fn exported(workspace: &Workspace, node: &str) -> Vec<Value> {
    let out = format!("out/{node}");
    let _ = std::fs::remove_dir_all(workspace.path(&out));
    let said = workspace.stic(&["export", "-q", "p.toml", node, &out]);
    assert_eq!(said.code, Some(0), "{said}");
    assert!(!workspace.path(&format!("{out}/labels.jsonl")).exists(), "nothing must be joined by line number");
    let mut rows = Vec::new();
    for entry in std::fs::read_dir(workspace.path(&out)).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let text = std::fs::read_to_string(path).expect("a string");
            rows.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a row is JSON")));
        }
    }
    rows
}

const WITH_ROWS: [&str; 9] =
    ["images", "preferred", "corrupted", "from_corrupted", "misled", "pairs", "descriptions", "infused", "answers"];

#[test]
fn exported_rows_name_pictures_where_they_lie_today() {
    let workspace = stages();
    run(&workspace, "p.toml");
    let check = || {
        for node in WITH_ROWS {
            let rows = exported(&workspace, node);
            assert!(!rows.is_empty(), "{node}");
            for row in rows {
                let path = std::path::Path::new(row["image"].as_str().expect("a path"));
                assert!(path.is_absolute() && path.is_file(), "{node}: {}", path.display());
                for altered in [&row["altered"], &row["origin"]["altered"]].into_iter().filter(|it| it.is_object()) {
                    let made = workspace.path(&format!("out/{node}")).join(altered["image"].as_str().expect("a path"));
                    assert!(made.is_file(), "{node}: {}", made.display());
                }
            }
        }
    };
    check();
    std::fs::rename(workspace.path("pictures"), workspace.path("photographs")).expect("a directory");
    let test = workspace.path("test/questions.jsonl");
    let moved = std::fs::read_to_string(&test).expect("a file").replace("../pictures", "../photographs");
    std::fs::write(test, moved).expect("a file");
    workspace.edit("p.toml", "from = \"pictures\"", "from = \"photographs\"");
    workspace.edit("p.toml", "images = \"pictures\"", "images = \"photographs\"");
    check();
}

#[test]
fn an_exported_prediction_can_be_judged_without_anything_else() {
    let workspace = stages();
    run(&workspace, "p.toml");
    for row in exported(&workspace, "answers") {
        assert!(row["gold"].as_array().is_some_and(|gold| !gold.is_empty()), "{row}");
        assert!(row["question"].is_string() && row["answer"].is_string() && row["score"].is_number(), "{row}");
        assert!(row["picture"].is_string(), "{row}");
    }
}

#[test]
fn names_of_today_are_shown_of_a_result_of_yesterday() {
    let workspace = stages();
    run(&workspace, "p.toml");
    let text = std::fs::read_to_string(workspace.path("p.toml")).expect("a file");
    let renamed = text
        .replace("[models.base]", "[models.small]")
        .replace("model = \"base\"", "model = \"small\"")
        .replace("stage2", "second");
    workspace.write("p.toml", renamed);
    std::fs::rename(workspace.path("test"), workspace.path("held-out")).expect("a directory");
    workspace.edit("p.toml", "data = \"test\"", "data = \"held-out\"");
    let said = workspace.stic(&["run", "--json", "p.toml"]);
    assert_eq!(said.code, Some(0), "{said}");
    let answers = said
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("an event"))
        .find(|event| event["event"] == "finished" && event["node"] == "answers")
        .expect("the node");
    assert_eq!(answers["how"], "hit", "{answers}");
    let labels = &answers["summary"]["labels"];
    assert_eq!((&labels["model"], &labels["data"]), (&"small".into(), &"held-out".into()), "{labels}");
    assert_eq!(labels["adapter"], "second", "{labels}");
}

#[test]
fn an_exported_adapter_names_its_model_by_where_it_is_today() {
    let workspace = stages();
    run(&workspace, "p.toml");
    let base = |folder: &str| {
        let said = workspace.stic(&["export", "-q", "p.toml", "stage1", folder]);
        assert_eq!(said.code, Some(0), "{said}");
        let text = std::fs::read_to_string(workspace.path(&format!("{folder}/adapter_config.json"))).expect("a file");
        serde_json::from_str::<Value>(&text).expect("JSON")["base_model_name_or_path"].clone()
    };
    let place = |folder: &str| workspace.path(folder).canonicalize().expect("a directory").display().to_string();
    assert_eq!(base("first"), place("model"));
    std::fs::rename(workspace.path("model"), workspace.path("moved")).expect("a directory");
    workspace.edit("p.toml", "source = \"model\"", "source = \"./moved\"");
    assert_eq!(base("second"), place("moved"));
}

#[test]
fn a_device_of_another_machine_is_only_noted_by_a_check() {
    let workspace = stages();
    workspace.edit("p.toml", "[nodes.images]", "[device]\nbackend = \"cuda:999\"\n\n[nodes.images]");
    let said = workspace.stic(&["check", "p.toml"]);
    assert!(said.code == Some(0) && said.err.contains("cannot run here: "), "{said}");
    assert_eq!(workspace.stic(&["run", "p.toml"]).code, Some(64));
}

#[test]
fn a_device_on_the_command_line_or_in_the_environment_takes_the_place_of_the_file_s() {
    let workspace = stages();
    run(&workspace, "p.toml");
    workspace.edit("p.toml", "[nodes.images]", "[device]\nbackend = \"cuda:999\"\n\n[nodes.images]");
    let plan = workspace.stic(&["plan", "p.toml", "--device", "cpu"]);
    assert_eq!(plan.code, Some(0), "the same numerics class, the same results: {plan}");
    let why = "; by --device, in place of `cuda:999` in the file";
    let has = |text: &str, why: &str| text.replace('\n', " ").replace("  ", " ").contains(why);
    assert!(has(&plan.out, "device: cpu, f32") && has(&plan.out, why), "{plan}");
    let variable = workspace.stic_with(&["run", "p.toml"], &[("STIC_DEVICE", "cpu")]);
    assert!(variable.code == Some(0) && has(&variable.err, "; by STIC_DEVICE, in place of `cuda:999`"), "{variable}");
    let both = workspace.stic_with(&["plan", "p.toml", "--device", "cpu"], &[("STIC_DEVICE", "cuda")]);
    assert_eq!(both.code, Some(0), "{both}");

    let other = workspace.stic(&["plan", "p.toml", "--device", "cpu", "--dtype", "f16"]);
    assert_eq!(other.code, Some(2), "{other}");
    assert!(other.out.contains("only the numerics class differs: cpu-f32 → cpu-f16"), "{other}");
    let refused = workspace.stic(&["plan", "p.toml", "--device", "cpu:7"]);
    assert_eq!(refused.code, Some(64), "{refused}");
    assert!(refused.err.contains("--device asks for it") && !refused.err.contains("mistake"), "{refused}");
    for (command, variable) in [("check", "gpu"), ("run", "cuda:x"), ("why", "cpux")] {
        let arguments: &[&str] = if command == "why" { &["why", "p.toml", "images"] } else { &[command, "p.toml"] };
        let said = workspace.stic_with(arguments, &[("STIC_DEVICE", variable)]);
        assert!(said.code == Some(64) && said.err.contains("x STIC_DEVICE: "), "{command}: {said}");
    }
    // What is printed to go on finds the same results.
    let failing = workspace.stic(&["export", "p.toml", "preferred", "out", "--device", "cpu", "--dtype", "f16"]);
    assert!(failing.err.contains(" --device cpu --dtype f16"), "{failing}");
}

#[test]
fn a_node_s_own_device_changes_its_key_by_the_numerics_class_alone() {
    let workspace = stages();
    run(&workspace, "p.toml");
    let own = |device: &str| {
        let node = "[nodes.preferred]\nkind = \"describe\"\n";
        let text = std::fs::read_to_string(workspace.path("p.toml")).expect("a file");
        let changed = text.replace(node, &format!("{node}device = {device}\n"));
        assert_ne!(text, changed);
        workspace.write("own.toml", changed);
        workspace.stic(&["plan", "own.toml"])
    };
    assert_eq!(own("\"cpu\"").code, Some(0), "{}", own("\"cpu\""));
    assert_eq!(own("{ backend = \"cpu\", dtype = \"f32\" }").code, Some(0));
    let half = own("{ dtype = \"f16\" }");
    let line = half.out.lines().find(|line| line.starts_with("RUN")).expect("a node to run");
    assert!(line.contains("preferred") && line.contains("cpu-f32 → cpu-f16"), "{half}");
    assert!(half.out.contains("device of `preferred`: cpu, f16"), "{half}");
    let none = own("\"cpu:9\"");
    assert!(
        none.code == Some(64) && none.err.contains("no device `cpu:9`") && none.err.contains("own.toml:"),
        "{none}"
    );
}

#[test]
fn a_plan_says_once_what_is_cached_of_a_node() {
    let workspace = stages();
    run(&workspace, "p.toml");
    workspace.edit("p.toml", "fraction = [0.5, 1.0]", "fraction = [0.5, 0.99]");
    let said = workspace.stic(&["plan", "p.toml"]);
    assert_eq!(said.code, Some(2), "{said}");
    let line = said.out.lines().find(|line| line.starts_with("RUN")).expect("a node to run");
    assert!(line.contains("corrupted"), "{line}");
    assert_eq!(line.matches("items").count(), 1, "{line}");
}

#[test]
fn a_run_killed_at_any_moment_ends_with_the_same_digests() {
    let whole = stages();
    let expected = run(&whole, "p.toml");

    let killed = stages();
    // At an event (a generation, a training step, a result just published), then after ever longer times.
    let moments: [&dyn Fn(&Value) -> bool; 5] = [
        &|event| event["event"] == "progress" && event["node"] == "preferred",
        &|event| event["event"] == "finished" && event["node"] == "corrupted",
        &|event| event["event"] == "progress" && event["node"] == "stage1" && event["done"].as_u64() >= Some(3),
        &|event| event["event"] == "finished" && event["node"] == "stage1",
        &|event| event["event"] == "progress" && event["node"] == "stage2",
    ];
    for moment in moments {
        kill_at(&killed, moment);
    }
    let mut ended = None;
    for milliseconds in (5..).step_by(17) {
        let mut child = killed
            .command(&["run", "p.toml", "--json", "-q"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program begins");
        std::thread::sleep(Duration::from_millis(milliseconds));
        if child.try_wait().expect("a state").is_some() {
            ended = Some(child.wait_with_output().expect("its output"));
            break;
        }
        child.kill().expect("a kill");
        child.wait().expect("an end");
    }
    assert!(ended.expect("a run that was quicker than the kill").status.success());
    assert_eq!(contents(&run(&killed, "p.toml")), contents(&expected));
}

/// Begins a run and kills it when an event is at hand; a run may end before one of its kind comes.
fn kill_at(workspace: &Workspace, moment: &dyn Fn(&Value) -> bool) {
    let mut child = workspace
        .command(&["run", "p.toml", "--json", "-q"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program begins");
    let out = BufReader::new(child.stdout.take().expect("a pipe"));
    for line in out.lines().map_while(Result::ok) {
        if moment(&serde_json::from_str(&line).expect("JSON")) {
            break;
        }
    }
    child.kill().expect("a kill");
    child.wait().expect("an end");
}
