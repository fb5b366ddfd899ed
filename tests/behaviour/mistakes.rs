//! Every mistake that a pipeline file can have, by the whole of what is said about it.

use crate::workspace::{Said, Workspace};

/// A pipeline without mistakes. Its data is not there; most tests leave that out.
const SOUND: &str = r#"[pipeline]
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
    a_sweep: "batch_size = 4" => "batch_size = 4\nmatrix = { beta = [0.1, 0.2] }";
    an_include: "[pipeline]" => "include = [\"prompts.toml\"]\n\n[pipeline]";
    a_frozen_node: "batch_size = 4" => "batch_size = 4\nfreeze = true";
    many_at_once:
        "seed = 1" => "sed = 1",
        "from = \"pictures\"" => "from = \"pictures\"\ncount = -1",
        "stic:hallucination" => "stic:halucination",
        "batch_size = 4" => "beta = 0",
        "inputs.adapter = \"stage1\"" => "inputs.adapter = \"stage2\"";
}

#[test]
fn data_and_models_that_are_missing_are_told_with_the_rest() {
    let workspace = Workspace::with_pipeline(&SOUND.replace("batch_size = 4", "batch_size = 0"));
    let said = workspace.stic(&["check", "p.toml"]);
    assert_eq!(said.code, Some(64));
    insta::assert_snapshot!(said);
}

#[test]
fn a_revision_of_a_folder_is_refused() {
    let text = SOUND.replace("source = \"model\"", "source = \"model\"\nrevision = \"main\"");
    let workspace = Workspace::with_pipeline(&text);
    workspace.copy("tests/reference/llava", "model");
    let said = workspace.stic(&["check", "p.toml"]);
    assert!(said.err.contains("`revision` means nothing for `model`, which is a folder"), "{said}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let said = Workspace::new().stic(&["check", "missing.toml"]);
    assert_eq!(said.code, Some(64));
    insta::assert_snapshot!(said);
}

#[test]
fn a_file_that_is_not_text_is_told_by_line() {
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
fn mistakes_come_in_colours_only_when_they_are_wanted() {
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
