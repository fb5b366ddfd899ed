//! Included files, settings, defaults, sweeps and frozen nodes, as commands show them; and every mistake in them, by the
//! whole of what is said about it.

use crate::mistakes::SOUND;
use crate::workspace::{Said, Workspace};

/// What a command says about files, the first of which is `p.toml`.
fn said(files: &[(&str, &str)], arguments: &[&str]) -> Said {
    let workspace = Workspace::new();
    files.iter().for_each(|(name, text)| workspace.write(name, text));
    let said = workspace.stic(&[&["check", "--without-data", "p.toml"], arguments].concat());
    assert!(!said.err.contains("panicked"), "{said}");
    said
}

/// The sound pipeline with `new` behind the line `old`.
fn with(old: &str, new: &str) -> String {
    assert!(SOUND.contains(old), "the pipeline does not have {old:?}");
    SOUND.replacen(old, &format!("{old}\n{new}"), 1)
}

macro_rules! mistakes {
    ($($name:ident: [$(($file:literal, $text:expr)),+], [$($argument:expr),*];)*) => {
        $(#[test]
        fn $name() {
            let said = said(&[$(($file, &*$text)),+], &[$($argument),*]);
            assert_eq!(said.code, Some(64), "{said}");
            insta::assert_snapshot!(said);
        })*
    };
}

const NODE: &str = "[nodes.more]\nkind = \"sample\"\nfrom = \"pictures\"\n";

/// Two nodes of a kind beside the sound pipeline's, and three axes.
const SWEPT: &str = "batch_size = 4\nmatrix = { beta = [0.1, 0.2], lora.rank = [8, 16] }";

fn swept() -> String {
    SOUND.replace("batch_size = 4", SWEPT)
}

mistakes! {
    a_file_that_includes_itself: [("p.toml", format!("include = [\"p.toml\"]\n{SOUND}"))], [];
    files_that_include_each_other:
        [("p.toml", format!("include = [\"a/b.toml\"]\n{SOUND}")), ("a/b.toml", "include = [\"c.toml\"]\n"),
         ("a/c.toml", "include = [\"../p.toml\"]\n")], [];
    an_include_that_is_no_list: [("p.toml", format!("include = \"a.toml\"\n{SOUND}")), ("a.toml", NODE)], [];
    an_include_of_a_number: [("p.toml", format!("include = [3, \"~/a.toml\", \"\"]\n{SOUND}"))], [];
    an_included_directory: [("p.toml", format!("include = [\"a\"]\n{SOUND}")), ("a/b", "")], [];
    an_included_file_that_is_missing: [("p.toml", format!("include = [\"a/b.toml\"]\n{SOUND}")), ("a/b.toml", "include = [\"none.toml\"]")], [];
    an_included_file_that_is_no_toml: [("p.toml", format!("include = [\"a.toml\"]\n{SOUND}")), ("a.toml", "nodes:\n  a:\n    kind: sample\n")], [];
    a_slip_in_an_included_file: [("p.toml", format!("include = [\"a/b.toml\"]\n{SOUND}")), ("a/b.toml", NODE.replace("= \"sample\"", "sample"))], [];
    mistakes_in_two_files:
        [("p.toml", format!("include = [\"a/b.toml\"]\n{}", SOUND.replace("seed = 1", "sed = 1"))),
         ("a/b.toml", format!("# one\n# two\n{NODE}cuont = 3\n[nodes.other]\nkind = \"describe\"\ninputs.images = \"pears\"\nmodel = \"bass\"\nprompts = \"stic:captions\"\n"))], [];
    a_node_in_two_files: [("p.toml", format!("include = [\"a.toml\"]\n{SOUND}")), ("a.toml", NODE.replace("more", "images"))], [];
    a_key_of_the_pipeline_in_two_files: [("p.toml", format!("include = [\"a.toml\"]\n{SOUND}")), ("a.toml", "pipeline.seed = 3\nmodels = 3\n")], [];
    a_ring_through_two_files:
        [("p.toml", format!("include = [\"a.toml\"]\n{SOUND}").replace("\"images\"\nmodel = \"base\"\nprompts = \"stic:preferred\"", "\"images\"\ninputs.adapter = \"more\"\nmodel = \"base\"\nprompts = \"stic:preferred\"")),
         ("a.toml", "[nodes.more]\nkind = \"sft\"\ninputs.conversations = \"pairs\"\nmodel = \"base\"\nlearning_rate = 1e-4\nbatch_size = 4\n")], [];
    a_newer_language_in_an_included_file: [("p.toml", format!("include = [\"a.toml\"]\n{SOUND}")), ("a.toml", "pipeline.language = 7\n")], [];

    a_setting_of_an_unknown_key: [("p.toml", SOUND)], ["-S", "stage1.bta=0.3"];
    a_setting_of_an_unknown_node: [("p.toml", SOUND)], ["-S", "stge1.beta=0.3"];
    a_setting_of_an_unknown_model: [("p.toml", SOUND)], ["-S", "models.bse.source=x"];
    a_setting_of_a_misspelled_table: [("p.toml", SOUND)], ["-S", "pipelin.seed=3"];
    a_setting_without_a_value: [("p.toml", SOUND)], ["-S", "stage1.beta", "-S", "stage1.beta="];
    a_setting_without_a_node: [("p.toml", SOUND)], ["-S", "seed=3", "-S", "models.base=x"];
    a_setting_that_is_no_toml: [("p.toml", SOUND)], ["-S", "stage1.lora={rank=8"];
    a_setting_of_another_type: [("p.toml", SOUND)], ["-S", "stage1.beta=high", "-S", "images.from=3", "-S", "stage1.batch_size=4.5"];
    a_setting_out_of_range: [("p.toml", SOUND)], ["-S", "stage1.beta=-1", "-S", "pipeline.seed=-1", "-S", "stage1.lora.rank=0"];
    a_setting_of_an_instance: [("p.toml", swept())], ["-S", "stage1[beta=0.1].batch_size=8"];
    a_setting_of_an_input: [("p.toml", SOUND)], ["-S", "stage1.inputs.pairs=images"];
    a_setting_that_has_an_axis: [("p.toml", swept())], ["-S", "stage1.beta=0.3"];
    settings_and_a_mistake_in_the_file: [("p.toml", SOUND.replace("seed = 1", "sed = 1"))], ["-S", "device.backend=cudaa", "-S", "pipeline.show=['pears']"];

    defaults_of_an_unknown_kind: [("p.toml", with("seed = 1", "[defaults.descibe]\ntop_k = 0"))], [];
    defaults_of_an_unknown_key: [("p.toml", with("seed = 1", "[defaults.describe]\ntop_kk = 0\n[defaults.sft]\nbanana = 1"))], [];
    defaults_that_are_each_node_s_own: [("p.toml", with("seed = 1", "[defaults.describe]\ninputs.images = \"images\"\nkind = \"describe\"\nmatrix = { top_k = [0, 1] }"))], [];
    defaults_without_a_kind: [("p.toml", with("seed = 1", "[defaults]\ntop_k = 0"))], [];
    a_default_of_another_type_is_one_mistake:
        [("p.toml", with("seed = 1", "[defaults.sample]\ncount = \"many\"\nwhere = 3\n") + NODE)], [];
    a_misspelled_kind_whose_defaults_are_there:
        [("p.toml", with("seed = 1", "[defaults.dpo]\nlearning_rate = 1e-4").replace("batch_size = 4", "").replace("kind = \"dpo\"", "kind = \"dop\""))], [];

    a_matrix_that_is_no_table: [("p.toml", with("batch_size = 4", "matrix = [0.1, 0.2]"))], [];
    a_matrix_of_nothing: [("p.toml", with("batch_size = 4", "matrix = {}"))], [];
    an_axis_that_is_no_list: [("p.toml", with("batch_size = 4", "matrix = { beta = 0.1, epochs = [] }"))], [];
    an_axis_with_a_value_twice: [("p.toml", with("batch_size = 4", "matrix.beta = [0.1, 0.2, 1e-1]"))], [];
    an_axis_that_is_no_parameter: [("p.toml", with("batch_size = 4", "matrix = { bta = [0.1, 0.2], lora.rnk = [8, 16] }"))], [];
    an_axis_with_values_out_of_range: [("p.toml", with("batch_size = 4", "matrix = { beta = [0.1, -0.2, \"high\"], lora.rank = [8, 0] }"))], [];
    an_axis_of_kinds: [("p.toml", with("batch_size = 4", "matrix.kind = [\"dpo\", \"sft\"]"))], [];
    an_axis_that_has_a_value: [("p.toml", with("batch_size = 4", "matrix.batch_size = [4, 8]"))], [];
    an_axis_of_unknown_inputs: [("p.toml", SOUND.replace("inputs.adapter = \"stage1\"", "matrix.\"inputs.adapter\" = [\"stage1\", \"stage2\"]"))], [];
    an_axis_of_the_pipeline_without_a_node: [("p.toml", with("[pipeline]", "matrix = { beta = [0.1, 0.2], \"stge1.beta\" = [0.1], images.seed = [1] }"))], [];
    a_seed_that_is_none: [("p.toml", SOUND.replace("seed = 1", "matrix.seed = [1, -1]"))], [];
    two_axes_of_one_parameter: [("p.toml", with("[pipeline]", "matrix.stage1.beta = [0.1]").replace("batch_size = 4", SWEPT))], [];
    too_many_instances: [("p.toml", with("batch_size = 4", &format!("matrix = {{ beta = {0:?}, chosen_weight = {0:?} }}", (1..200).collect::<Vec<_>>())))], [];
    too_many_instances_of_what_is_below:
        [("p.toml", with("prompts = \"stic:preferred\"", &format!("matrix.top_k = {:?}", (1..150).collect::<Vec<_>>()))
            .replace("batch_size = 4", &format!("batch_size = 4\nmatrix.epochs = {:?}", (1..150).collect::<Vec<_>>())))], [];
    what_is_left_out_is_no_list: [("p.toml", with("batch_size = 4", "matrix = { beta = [0.1, 0.2], exclude = { beta = 0.1 } }"))], [];
    what_is_left_out_has_an_unknown_axis: [("p.toml", with("batch_size = 4", "matrix = { beta = [0.1, 0.2], exclude = [{ bta = 0.1 }, { beta = 0.3 }] }"))], [];
    what_is_left_out_is_everything: [("p.toml", with("batch_size = 4", "matrix = { beta = [0.1], exclude = [{ beta = 0.1 }] }"))], [];
    what_is_left_out_does_not_come_in: [("p.toml", swept().replace("stic:preferred\"", "stic:preferred\"\nmatrix.exclude = [{ stage1.beta = 0.1 }]"))], [];
    a_matrix_outside_of_its_table: [("p.toml", format!("matrix.seed = [1]\n{SOUND}"))], [];
}

#[test]
fn includes_that_are_too_deep_end() {
    let mut files = vec![("p.toml".to_owned(), format!("include = [\"0.toml\"]\n{SOUND}"))];
    files.extend((0..40).map(|index| (format!("{index}.toml"), format!("include = [\"{}.toml\"]\n", index + 1))));
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let said = said(&files, &[]);
    assert_eq!(said.code, Some(64));
    insta::assert_snapshot!(said);
}

#[cfg(unix)]
#[test]
fn a_file_that_includes_itself_by_another_name_is_found() {
    let workspace = Workspace::with_pipeline(&format!("include = [\"link.toml\"]\n{SOUND}"));
    std::os::unix::fs::symlink("p.toml", workspace.path("link.toml")).unwrap();
    std::os::unix::fs::symlink("loop.toml", workspace.path("loop.toml")).unwrap();
    workspace.write("q.toml", format!("include = [\"loop.toml\"]\n{SOUND}"));
    let all = ["p.toml", "q.toml"].map(|file| workspace.stic(&["check", "--without-data", file]).to_string());
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_default_is_a_key_of_each_node_that_has_none_and_defaults_of_no_node_are_fine() {
    let text = with("seed = 1", "[defaults.describe]\ntop_k = 0\n[defaults.sft]\nbatch_size = 4\n");
    assert_eq!(said(&[("p.toml", &text)], &[]).code, Some(0));
}

#[test]
fn places_in_other_files_name_them_for_programs() {
    let text = format!("include = [\"a.toml\"]\n{SOUND}");
    let said = said(&[("p.toml", &text), ("a.toml", &format!("{NODE}cuont = 3\n"))], &["--json", "-S", "stage1.bta=3"]);
    insta::assert_snapshot!(said);
}

/// Pictures, corrupted in two ways and with two seeds.
const CORRUPTED: &str = r#"
[pipeline]
name = "corrupted"
matrix.seed = [1, 2]

[nodes.images]
kind = "sample"
from = "pictures"

[nodes.corrupted]
kind = "corrupt"
inputs.images = "images"
matrix.operations = [[{ op = "low_resolution", size = 2 }], [{ op = "color_jitter", brightness = 0.5 }]]

[nodes.again]
kind = "corrupt"
inputs.images = "corrupted"
operations = [{ op = "low_resolution", size = 3 }]
"#;

#[test]
fn a_sweep_is_planned_run_explained_and_exported_by_instance() {
    let workspace = Workspace::with_pipeline(CORRUPTED);
    workspace.pictures("pictures", 3);
    let mut all = Vec::new();
    let mut tell = |arguments: &[&str]| {
        let said = workspace.stic(arguments);
        all.push(format!("$ stic {}\n{said}", arguments.join(" ")));
    };
    tell(&["check", "p.toml"]);
    tell(&["plan", "p.toml", "corrupted"]);
    tell(&["plan", "p.toml", "again[seed=2]"]);
    tell(&["run", "p.toml", "-j", "1", "corrupted"]);
    tell(&["run", "p.toml", "-q"]);
    tell(&["plan", "p.toml", "-S", "again.operations=[{op='low_resolution',size=4}]"]);
    tell(&["why", "p.toml", "again[seed=1]", "-S", "again.operations=[{op='low_resolution',size=4}]"]);
    tell(&["why", "p.toml", "corrupted", "-S", "pipeline.matrix.seed=[1,3]"]);
    tell(&["plan", "p.toml", "corrupted[seed=3]"]);
    tell(&["plan", "p.toml", "corupted[seed=1]"]);
    tell(&["export", "p.toml", "again", "out"]);
    tell(&["export", "p.toml", "corrupted[seed=1,operations=[{op=low_resolution,size=2}]]", "out"]);
    tell(&["graph", "p.toml"]);
    tell(&["plan", "--json", "p.toml", "corrupted[seed=1]"]);
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_frozen_node_is_used_as_it_is() {
    let workspace = Workspace::with_pipeline(
        &CORRUPTED
            .replace("matrix.seed = [1, 2]\n", "")
            .replace("matrix.operations = [", "operations = ")
            .replace("}], [{ op = \"color_jitter\", brightness = 0.5 }]]", "}]"),
    );
    workspace.pictures("pictures", 3);
    let mut all = Vec::new();
    let mut tell = |arguments: &[&str]| {
        let said = workspace.stic(arguments);
        all.push(format!("$ stic {}\n{said}", arguments.join(" ")));
    };
    tell(&["run", "p.toml", "again", "-S", "corrupted.freeze=true"]);
    tell(&["run", "-q", "p.toml"]);
    std::fs::remove_dir_all(workspace.path("pictures")).unwrap();
    let frozen = ["-S", "corrupted.freeze=true", "-S", "corrupted.operations=[{op='low_resolution',size=4}]"];
    tell(&[&["plan", "p.toml"], &frozen[..]].concat());
    tell(&[&["run", "p.toml"], &frozen[..]].concat());
    tell(&[&["why", "p.toml", "corrupted"], &frozen[..]].concat());
    tell(&[&["run", "p.toml", "--force", "corrupted"], &frozen[..]].concat());
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn what_continues_a_run_has_its_settings() {
    let workspace = Workspace::with_pipeline(CORRUPTED);
    workspace.pictures("pictures", 2);
    // A picture that ends too soon: found when it is decoded.
    let whole = std::fs::read(workspace.path("pictures/0.png")).unwrap();
    workspace.write("pictures/0.png", &whole[..whole.len() / 2]);
    let settings = ["-S", "corrupted.on_bad_item=fail", "-S", "images.where={ image = true }"];
    let said = workspace.stic(&[&["run", "p.toml"], &settings[..]].concat());
    assert_eq!(said.code, Some(1), "{said}");
    let command = "run p.toml -S corrupted.on_bad_item=fail -S 'images.where={ image = true }'";
    assert!(said.err.contains(command), "{said}");
}
