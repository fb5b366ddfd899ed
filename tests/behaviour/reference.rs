//! The reference that people read in the terminal, and the data that it shows.

use std::fs;
use std::path::Path;

use crate::workspace::Workspace;

fn kinds_as_json() -> Vec<serde_json::Value> {
    let said = Workspace::new().stic(&["kinds", "--json"]);
    said.out.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

#[test]
fn a_kind_is_reported_with_its_inputs_parameters_and_data() {
    insta::assert_snapshot!(Workspace::new().stic(&["kinds", "evaluate"]));
    insta::assert_snapshot!(Workspace::new().stic(&["kinds", "evalute"]));
}

#[test]
fn the_reference_fits_the_width_and_loses_no_word() {
    let mut pages: Vec<Vec<String>> = vec![vec!["kinds".to_owned()]];
    pages
        .extend(kinds_as_json().iter().map(|kind| vec!["kinds".to_owned(), kind["kind"].as_str().unwrap().to_owned()]));
    for page in pages {
        let page: Vec<&str> = page.iter().map(String::as_str).collect();
        let at = |width: &str| {
            let workspace = Workspace::new();
            let mut command = workspace.command(&page);
            let output = command.env("COLUMNS", width).env("NO_COLOR", "1").output().expect("the program begins");
            String::from_utf8(output.stdout).expect("text")
        };
        let words = |text: &str| -> Vec<String> {
            let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            words.sort();
            words
        };
        let wide = at("400");
        for width in [60, 80] {
            let narrow = at(&width.to_string());
            assert!(!narrow.contains('\u{1b}'), "{page:?}");
            // The table of kinds has a line a column where columns do not fit.
            if page.len() > 1 {
                assert_eq!(words(&narrow), words(&wide), "{page:?} at {width}");
            }
            let too_long = narrow.lines().find(|line| line.chars().count() > width && line.trim().contains(' '));
            assert_eq!(too_long, None, "{page:?} at {width}");
        }
    }
}

#[test]
fn every_example_of_data_is_read() {
    let workspace = Workspace::new();
    workspace.pictures("data", 1);
    fs::rename(workspace.path("data/0.png"), workspace.path("data/a.jpg")).expect("a picture");
    let kinds = kinds_as_json();
    let example = |name: &str| {
        let mut formats = kinds.iter().flat_map(|kind| kind["formats"].as_array().expect("a list"));
        let found = formats.find(|format| format["name"] == name);
        found.unwrap_or_else(|| panic!("no `{name}`"))["example"].as_str().expect("a string").to_owned()
    };
    for (name, file) in [("records", "r.json"), ("descriptions", "d.json"), ("preference pairs", "p.json")] {
        workspace.write(file, format!("[{}]", example(name)));
    }
    workspace.write("prompts.json", example("prompt file"));
    for file in ["questions.jsonl", "annotations.jsonl", "vocabulary.json"] {
        workspace.write(&format!("data/{file}"), example(file));
    }
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/scenes/model");
    let input = |file: &str| format!("{{ file = '{file}', images = 'data' }}");
    let training = "model = 'm'\nlearning_rate = 1e-4\nbatch_size = 1\n";
    let text = [
        format!("[models.m]\nsource = '{}'\n", model.display()),
        "[nodes.records]\nkind = 'sample'\nfrom = 'r.json'\nimages = 'data'\n".to_owned(),
        "[nodes.described]\nkind = 'describe'\ninputs.images = 'records'\nmodel = 'm'\nprompts = { file = 'prompts.json' }\n"
            .to_owned(),
        format!("[nodes.pairs]\nkind = 'pair'\ninputs.preferred = {}\ninputs.rejected = 'described'\n", input("d.json")),
        format!("[nodes.one]\nkind = 'dpo'\ninputs.pairs = {}\n{training}", input("p.json")),
        format!("[nodes.two]\nkind = 'sft'\ninputs.conversations = {}\n{training}", input("r.json")),
        "[nodes.vqa]\nkind = 'evaluate'\nmodel = 'm'\nbenchmark = 'vqa'\ndata = 'data'\n".to_owned(),
        "[nodes.captions]\nkind = 'evaluate'\nmodel = 'm'\nbenchmark = 'captions'\ndata = 'data'\n".to_owned(),
    ];
    workspace.write("pipeline.toml", text.concat());
    let said = workspace.stic(&["check", "pipeline.toml"]);
    assert_eq!(said.code, Some(0), "{said}");
}
