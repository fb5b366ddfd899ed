//! Every mistake that a pipeline file can have, by the whole of what is said about it.

use crate::workspace::{Said, Workspace};

/// A pipeline without mistakes. Its data is not there; most tests leave that out.
pub const SOUND: &str = r#"[pipeline]
name = "small"
seed = 1

[models.base]
source = "model"

[nodes.images]
kind = "sample"
from = "pictures"

[nodes.preferred]
kind = "describe"
inputs.images = "images"
model = "base"
prompts = "stic:preferred"

[nodes.rejected]
kind = "mislead"
inputs.images = "images"
model = "base"
prompts = "stic:hallucination"

[nodes.pairs]
kind = "pair"
inputs.preferred = "preferred"
inputs.rejected = ["rejected"]

[nodes.stage1]
kind = "dpo"
inputs.pairs = "pairs"
model = "base"
learning_rate = 1e-4
batch_size = 4

[nodes.score]
kind = "evaluate"
inputs.adapter = "stage1"
model = "base"
benchmark = "vqa"
data = "questions.jsonl"
"#;

/// What `check --without-data` says about the sound pipeline with `old` replaced by `new`.
fn edited(edits: &[(&str, &str)]) -> Said {
    let mut text = SOUND.to_owned();
    for (old, new) in edits {
        assert!(text.contains(old), "the pipeline does not have {old:?}");
        text = text.replacen(old, new, 1);
    }
    let said = Workspace::with_pipeline(&text).stic(&["check", "--without-data", "p.toml"]);
    assert!(!said.err.contains("panicked"), "{said}");
    said
}

#[test]
fn a_sound_pipeline_has_no_mistakes() {
    let said = edited(&[]);
    assert_eq!(said.code, Some(0), "{said}");
    insta::assert_snapshot!(said);
}

macro_rules! mistakes {
    ($($name:ident: $($old:literal => $new:literal),+;)*) => {
        $(#[test]
        fn $name() {
            let said = edited(&[$(($old, $new)),+]);
            assert_eq!(said.code, Some(64), "{said}");
            insta::assert_snapshot!(said);
        })*
    };
}

mistakes! {
    an_unknown_key: "batch_size = 4" => "batch_size = 4\nbate = 0.1";
    an_unknown_table: "[pipeline]" => "[pipelin]";
    a_text_for_a_number: "learning_rate = 1e-4" => "learning_rate = \"1e-4\"";
    a_number_for_a_text: "from = \"pictures\"" => "from = 3";
    a_fraction_for_a_whole_number: "batch_size = 4" => "batch_size = 4.0";
    a_negative_number: "learning_rate = 1e-4" => "learning_rate = -1e-4";
    a_number_that_is_none: "learning_rate = 1e-4" => "learning_rate = nan";
    an_infinite_number: "learning_rate = 1e-4" => "learning_rate = inf";
    a_rank_of_zero: "batch_size = 4" => "batch_size = 4\nlora = { rank = 0 }";
    a_fraction_above_one: "prompts = \"stic:preferred\"" => "prompts = \"stic:preferred\"\nfraction = [0.5, 1.5]";
    a_fraction_back_to_front: "prompts = \"stic:preferred\"" => "prompts = \"stic:preferred\"\nfraction = [0.5, 0.1]";
    an_unknown_kind: "kind = \"mislead\"" => "kind = \"misled\"";
    no_kind: "kind = \"pair\"" => "kid = \"pair\"";
    an_unknown_node: "inputs.pairs = \"pairs\"" => "inputs.pairs = \"pears\"";
    an_unknown_model: "model = \"base\"\nprompts = \"stic:preferred\"" => "model = \"bas\"\nprompts = \"stic:preferred\"";
    an_unknown_prompt_set: "stic:preferred" => "stic:prefered";
    an_unknown_benchmark: "benchmark = \"vqa\"" => "benchmark = \"vqaa\"";
    a_wrong_artifact: "inputs.pairs = \"pairs\"" => "inputs.pairs = \"images\"";
    an_unknown_input: "inputs.adapter = \"stage1\"" => "inputs.adaptor = \"stage1\"";
    a_missing_input: "inputs.pairs = \"pairs\"\n" => "";
    two_where_one_is_taken: "inputs.adapter = \"stage1\"" => "inputs.adapter = [\"stage1\", \"stage1\"]";
    a_ring:
        "kind = \"describe\"\ninputs.images = \"images\"" =>
        "kind = \"describe\"\ninputs.images = \"images\"\ninputs.adapter = \"stage1\"";
    a_node_that_takes_itself: "inputs.pairs = \"pairs\"" => "inputs.pairs = \"pairs\"\ninputs.adapter = \"stage1\"";
    a_name_that_is_written_twice: "[nodes.rejected]" => "[nodes.preferred]";
    a_key_that_is_written_twice: "batch_size = 4" => "batch_size = 4\nbatch_size = 8";
    a_text_that_does_not_end: "from = \"pictures\"" => "from = \"pictures";
    a_value_that_is_missing: "from = \"pictures\"" => "from =";
    a_newer_language: "seed = 1" => "language = 2";
    an_unknown_backend: "[models.base]" => "[device]\nbackend = \"cudaa\"\n\n[models.base]";
    a_name_with_a_dot: "[nodes.images]" => "[nodes.\"images.small\"]";
    two_that_are_no_toml: "seed = 1" => "seed 1", "from = \"pictures\"" => "from = \"pictures";
    a_target_that_is_named_twice:
        "batch_size = 4" => "batch_size = 4\nlora = { targets = [\"q_proj\", \"v_proj\", \"q_proj\"] }";
    an_adapter_that_is_said_to_be_another:
        "batch_size = 4" => "batch_size = 4\n
[nodes.stage2]\nkind = \"sft\"\ninputs.conversations = \"pairs\"\ninputs.adapter = \"stage1\"\nmodel = \"base\"
learning_rate = 1e-4\nbatch_size = 4\nlora = { rank = 128, alpha = 16, targets = [\"q_proj\"] }";
    a_model_without_a_table: "[models.base]\nsource = \"model\"" => "[models]\nbase = \"model\"";
    a_key_outside_of_its_table: "[pipeline]" => "seed = 3\ndtype = \"bf16\"\n[pipeline]";
    a_comment_of_another_language: "learning_rate = 1e-4" => "learning_rate = 1e-4 // warm";
    an_include: "[pipeline]" => "include = [\"prompts.toml\"]\n\n[pipeline]";
    a_sweep_by_that_name: "batch_size = 4" => "batch_size = 4\nsweep = { beta = [0.1, 0.2] }";
    a_list_where_a_sweep_is_meant: "batch_size = 4" => "batch_size = 4\nbeta = [0.1, 0.2]";
    a_path_of_windows: "from = \"pictures\"" => "from = \"C:\\Users\\me\\photos\"";
    a_path_of_windows_whose_backslashes_are_escapes: "from = \"pictures\"" => "from = \"C:\\new\\table\"";
    curly_quotes: "from = \"pictures\"" => "from = \u{201c}pictures\u{201d}", "name = \"small\"" => "name = \u{2018}small\u{2019}";
    a_text_without_quotes: "from = \"pictures\"" => "from = pictures";
    values_of_python: "from = \"pictures\"" => "from = \"pictures\"\ndedupe = False\ncount = None";
    colons_for_equals: "from = \"pictures\"" => "from: \"pictures\"", "kind = \"sample\"" => "kind: \"sample\"";
    numbers_of_other_languages: "seed = 1" => "seed = 1,000", "learning_rate = 1e-4" => "learning_rate = .0001";
    commas_that_end_lines: "kind = \"sample\"" => "kind = \"sample\",", "from = \"pictures\"" => "from = \"pictures\",";
    a_header_without_its_bracket: "[nodes.images]" => "[nodes.images";
    a_bracket_that_is_not_closed: "inputs.rejected = [\"rejected\"]" => "inputs.rejected = [\"rejected\"";
    a_file_of_prompts_as_a_text: "prompts = \"stic:preferred\"" => "prompts = \"prompts.txt\"";
    a_file_of_prompts_in_a_list: "prompts = \"stic:preferred\"" => "prompts = [\"prompts.txt\"]";
    a_file_as_an_input: "inputs.pairs = \"pairs\"" => "inputs.pairs = \"pref_data.json\"";
    a_model_by_its_path: "model = \"base\"\nprompts = \"stic:preferred\"" => "model = \"llava-hf/llava-1.5-7b-hf\"\nprompts = \"stic:preferred\"";
    names_of_other_programs:
        "learning_rate = 1e-4\nbatch_size = 4" =>
        "lr = 1e-4\nbs = 4\nnum_epochs = 2\nr = 8\nlora = { lora_alpha = 16 }\nmax_tokens = 5\nbanana = 1";
    keys_that_take_several_forms:
        "inputs.rejected = [\"rejected\"]" => "inputs.rejected = [\"rejected\"]\ninstruction = \"stic:captions\"",
        "benchmark = \"vqa\"" => "benchmark = \"vqa\"\ndescribe_and_repond = true\nbanana = 1";
    an_input_outside_of_inputs: "inputs.pairs = \"pairs\"" => "pairs = \"pairs\"";
    nodes_by_another_name: "[nodes.images]" => "[node.images]";
    an_input_that_is_named_twice: "inputs.rejected = [\"rejected\"]" => "inputs.rejected = [\"rejected\", \"rejected\"]";
    pictures_that_come_in_twice: "inputs.images = \"images\"" => "inputs.images = [\"images\", \"images\"]";
    shares_of_one_side_that_overlap:
        "prompts = \"stic:hallucination\"" => "prompts = \"stic:hallucination\"\nfraction = [0.0, 0.6]

[nodes.corrupted]\nkind = \"corrupt\"\ninputs.images = \"images\"\nfraction = [0.4, 1.0]
operations = [{ op = \"low_resolution\", size = 12 }]

[nodes.from_corrupted]\nkind = \"describe\"\ninputs.images = \"corrupted\"\nmodel = \"base\"\nprompts = \"stic:captions\"",
        "inputs.rejected = [\"rejected\"]" => "inputs.rejected = [\"from_corrupted\", \"rejected\"]";
    shares_of_two_sides_that_never_meet:
        "prompts = \"stic:preferred\"" => "prompts = \"stic:preferred\"\nfraction = [0.0, 0.5]",
        "prompts = \"stic:hallucination\"" => "prompts = \"stic:hallucination\"\nfraction = [0.5, 1.0]";
    many_at_once:
        "seed = 1" => "sed = 1",
        "from = \"pictures\"" => "from = \"pictures\"\ncount = -1",
        "stic:hallucination" => "stic:halucination",
        "batch_size = 4" => "beta = 0",
        "inputs.adapter = \"stage1\"" => "inputs.adapter = \"stage2\"";
}

#[test]
fn data_and_models_that_are_missing_are_reported_with_the_rest() {
    let workspace = Workspace::with_pipeline(&SOUND.replace("batch_size = 4", "batch_size = 0"));
    let said = workspace.stic(&["check", "p.toml"]);
    assert_eq!(said.code, Some(64));
    insta::assert_snapshot!(said);
}

#[test]
fn what_is_missing_is_reported_with_typos_once_each_whatever_its_nodes_lack() {
    let text = SOUND
        .replace("inputs.adapter = \"stage1\"\n", "")
        .replace("prompts = \"stic:preferred\"", "prompts = { file = \"mine.txt\" }\ntemprature = 1")
        .replace("prompts = \"stic:hallucination\"\n", "")
        .replace("batch_size = 4\n", "")
        .replace("inputs.pairs = \"pairs\"", "inputs.pairs = { file = \"pref.json\" }")
        .replace("benchmark = \"vqa\"\n", "benchmark = \"vqaa\"\n");
    let said = Workspace::with_pipeline(&text).stic(&["check", "p.toml"]);
    assert_eq!(said.code, Some(64));
    insta::assert_snapshot!(said);
}

#[test]
fn a_systematic_typo_is_shown_a_few_times_and_counted() {
    let node = |index: usize| {
        let misspelled = if index % 10 == 3 { "cuont" } else { "dedup" };
        format!("[nodes.n{index}]\nkind = \"sample\"\nfrom = \"pictures\"\n{misspelled} = true\n")
    };
    let said =
        Workspace::with_pipeline(&(0..1000).map(node).collect::<String>()).stic(&["check", "--without-data", "p.toml"]);
    assert_eq!(said.code, Some(64));
    insta::assert_snapshot!(said);
}

#[test]
fn other_formats_than_toml_are_one_mistake() {
    let workspace = Workspace::new();
    workspace.write("p.json", "{\"nodes\": {\"a\": {\"kind\": \"sample\"}}}\n");
    workspace.write("p.yaml", "nodes:\n  a:\n    kind: sample\n");
    workspace.write("p.html", "<!DOCTYPE html>\n<html></html>\n");
    let said = ["p.json", "p.yaml", "p.html"].map(|file| workspace.stic(&["run", file]).to_string());
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_source_that_is_nearly_right_says_which_folder_is_meant() {
    let check = |source: &str, files: &[&str]| {
        let text = SOUND.replace("source = \"model\"", &format!("source = \"{source}\""));
        let workspace = Workspace::with_pipeline(&text.replace("data = \"questions.jsonl\"", "data = \"pictures\""));
        workspace.pictures("pictures", 1);
        let question = "{\"image\": \"0.png\", \"question\": \"?\", \"answer\": \"a\"}\n";
        workspace.write("pictures/questions.jsonl", question);
        for file in files {
            workspace.write(file, if file.ends_with("main") { "abc" } else { "{}" });
        }
        let said = workspace.stic(&["check", "p.toml"]);
        assert_eq!(said.code, Some(64), "{said}");
        assert!(said.err.contains("\n1 mistake in p.toml"), "{said}");
        let from = said.err.find("  x ").expect("a mistake");
        let line = said.err.lines().next().unwrap_or_default().to_owned();
        let help = said.err.find("  help: ").map_or("", |at| &said.err[at..]).split("\n\n").next().unwrap_or_default();
        format!("{source}\n{}\n{help}\n", &line[from..])
    };
    let hub = "models--llava-hf--llava";
    let said = [
        check("llava-hf/llava-v1.6-mistral-7b-hf", &[]),
        check("https://huggingface.co/llava-hf/llava-1.5-7b-hf/tree/main", &[]),
        check("models/llava", &[]),
        check("model/model.safetensors", &["model/model.safetensors", "model/config.json"]),
        check(hub, &[&format!("{hub}/refs/main"), &format!("{hub}/snapshots/abc/config.json")]),
        check("out", &["out/checkpoint-500/config.json", "out/checkpoint-1000/config.json"]),
        check("out", &["out/checkpoint-500/adapter_config.json"]),
        check("adapter", &["adapter/adapter_config.json"]),
    ];
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_path_of_the_shell_is_written_out() {
    let said = ["~/models/x", "$HOME/models/x", "$DATA/x"].map(|source| {
        let text = SOUND.replace("source = \"model\"", &format!("source = \"{source}\""));
        let workspace = Workspace::with_pipeline(&text);
        let mut command = workspace.command(&["check", "--without-data", "p.toml"]);
        let output = command.env("HOME", "/home/me").output().expect("the program begins");
        String::from_utf8_lossy(&output.stderr).into_owned()
    });
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_revision_of_a_folder_is_refused() {
    let text = SOUND.replace("source = \"model\"", "source = \"model\"\nrevision = \"main\"");
    let workspace = Workspace::with_pipeline(&text);
    workspace.copy("tests/reference/llava", "model");
    let said = workspace.stic(&["check", "p.toml"]);
    assert!(said.err.contains("`revision` does not apply to `model`, which is a directory"), "{said}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let said = Workspace::new().stic(&["check", "missing.toml"]);
    assert_eq!(said.code, Some(64));
    insta::assert_snapshot!(said);
}

#[test]
fn a_file_that_is_not_text_is_reported_by_line() {
    let workspace = Workspace::new();
    workspace.write("p.toml", b"[pipeline]\nname = \"\xff\"\n");
    insta::assert_snapshot!(workspace.stic(&["check", "p.toml"]));
}

#[test]
fn a_byte_order_mark_and_wide_characters_leave_columns_as_editors_count_them() {
    let text = "\u{feff}banana = 1\r\n[nodes]\r\na = \"\u{65e5}\u{672c}\", b = 1\r\n";
    let said = Workspace::with_pipeline(text).stic(&["check", "p.toml"]);
    assert!(said.err.contains("[p.toml:1:1]") && said.err.contains("[p.toml:3:9]"), "{said}");
}

#[test]
fn an_empty_file_has_no_nodes() {
    insta::assert_snapshot!(Workspace::with_pipeline("").stic(&["check", "p.toml"]));
}

#[test]
fn mistakes_come_in_colors_only_when_they_are_wanted() {
    let workspace = Workspace::with_pipeline("banana = 1");
    let with = |arguments: &[&str], no_color: Option<&str>| {
        let mut command = workspace.command(arguments);
        if let Some(value) = no_color {
            command.env("NO_COLOR", value);
        }
        String::from_utf8(command.output().expect("the program begins").stderr).expect("text")
    };
    assert!(!with(&["check", "p.toml"], None).contains('\x1b'), "nobody watches a pipe");
    assert!(with(&["check", "p.toml", "--color", "always"], None).contains('\x1b'));
    assert!(with(&["check", "p.toml", "--color", "always"], Some("1")).contains('\x1b'), "what is asked for counts");
    assert!(!with(&["check", "p.toml", "--color", "never"], None).contains('\x1b'));
}

#[test]
fn each_of_these_is_one_mistake_with_its_remedy() {
    let sample = "[nodes.a]\nkind = \"sample\"\nfrom = \"pictures\"\n";
    let corrupt = "[nodes.b]\nkind = \"corrupt\"\noperations = [{ op = \"greyscale\" }]\n";
    for (text, message, help) in [
        ((sample.to_owned() + corrupt + "inputs.images = \"a\"\n").replace('\n', "\r"), "bare carriage return", "LF"),
        (sample.replace("\"pictures\"", r#""C:\Users\me""#), "begins an escape", r"'C:\Users\me'"),
        (format!("{sample}{corrupt}inputs.images = []\n"), "`inputs.images` is empty", ""),
        (format!("{sample}{corrupt}inputs = \"a\"\n"), "`inputs` must be a table", "`inputs.NAME = \"a\"`"),
        (format!("{}{corrupt}inputs.images = \"a\"\n", sample.replace(".a]", ".a.x]")), "`a.x` cannot be", "a_x"),
        (format!("{sample}[device]\nbackend = \"gpu\"\n"), "unknown backend `gpu`", "`cuda`"),
    ] {
        let workspace = Workspace::with_pipeline(&text);
        workspace.pictures("pictures", 1);
        let said = workspace.stic(&["check", "p.toml"]);
        assert_eq!(said.code, Some(64), "{text}\n{said}");
        assert!(said.err.contains(message) && said.err.contains(help), "{text}\n{said}");
        assert!(said.err.contains("\n1 mistake in p.toml"), "{text}\n{said}");
    }
}

#[test]
fn of_very_many_mistakes_the_first_are_shown_and_all_are_counted() {
    let node = |index: usize| {
        format!("[nodes.n{index}]\nkind = \"corupt{index}\"\ninputs.images = \"n{}\"\n", (index + 1) % 200)
    };
    let text: String = (0..200).map(node).collect();
    let said = Workspace::with_pipeline(&text).stic(&["check", "p.toml"]);
    assert_eq!(said.err.matches("  x ").count(), 50, "{said}");
    assert!(said.err.contains("more) … →") && said.err.contains(", the first 50 above; nothing ran"), "{said}");
}
