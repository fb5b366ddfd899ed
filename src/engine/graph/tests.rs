//! What is said about pipelines of toy kinds.

use std::sync::Arc;

use super::*;
use crate::diagnostic::{Sources, Style, render};
use crate::event::State;
use crate::node::{Arity, NodeKind};
use crate::spec::Reader;

fn read(text: &str) -> Result<Graph, Rejected> {
    Graph::read(text, "toy", Path::new("folder"), &toy::kinds())
}

/// All that is said about a text with mistakes.
fn said(text: &str) -> String {
    let mistakes = read(text).err().expect("the text has mistakes").mistakes;
    render(&Sources::of("toy.toml", text), &mistakes, Style::PLAIN)
}

const SOUND: &str = "
[pipeline]
seed = 7
[models.m]
source = 'model'
[nodes.learned]
kind = 'learn'
inputs.pairs = 'pairs'
model = 'm'
rank = 8
[nodes.pairs]
kind = 'join'
inputs.preferred = 'good'
inputs.rejected = ['bad', { file = 'more.json' }]
[nodes.bad]
kind = 'tell'
inputs = { images = 'pictures' }
model = 'm'
[nodes.good]
kind = 'tell'
inputs.images = 'pictures'
model = 'm'
seed = 9
[nodes.pictures]
kind = 'pictures'
from = 'pictures'
";

#[test]
fn nodes_come_after_their_inputs_and_imports_before_who_takes_them() {
    let graph = read(SOUND).ok().expect("the text is sound");
    let names: Vec<&str> = graph.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["pictures", "bad", "good", "pairs.rejected.2", "pairs", "learned"]);
    assert_eq!(graph.nodes[4].inputs, [vec![2], vec![1, 3]]);
    assert_eq!((graph.nodes[1].seed, graph.nodes[2].seed), (7, 9));
    assert_eq!(graph.needed(&[2]), [true, false, true, false, false, false]);
    assert_eq!(graph.needed(&[]), [true; 6]);
}

#[test]
fn the_order_of_tables_changes_no_inputs() {
    let mut tables: Vec<&str> = SOUND.split("\n[").collect();
    tables[1..].reverse();
    let graph = read(&tables.join("\n[")).ok().expect("the text is sound");
    let joined = &graph.nodes[graph.find("pairs").expect("it is there")];
    let taken = joined.inputs[1].iter().map(|index| graph.nodes[*index].name.as_str());
    assert_eq!(taken.collect::<Vec<_>>(), ["bad", "pairs.rejected.2"]);
}

#[test]
fn a_file_mistake_is_reported_at_the_parameter_or_at_the_model() {
    let graph = read(SOUND).ok().expect("the text is sound");
    let problem = |parameter: &str| FileProblem {
        parameter: parameter.to_owned(),
        message: "it is missing".to_owned(),
        help: None,
    };
    let place = |index: usize, parameter: &str| {
        SOUND[graph.file_mistake(&graph.nodes[index], problem(parameter)).labels[0].span.clone()].to_owned()
    };
    assert_eq!(place(0, "from"), "'pictures'");
    assert_eq!(place(3, "file"), "'more.json'");
    assert_eq!(place(5, "models.m.source"), "'model'");
    assert_eq!(place(5, "lora.rank"), "[nodes.learned]");
    assert_eq!(place(5, "inputs.pairs"), "'pairs'");
    assert_eq!(place(1, "inputs.images"), "'pictures'");
}

#[test]
fn files_of_sound_nodes_can_be_looked_at_beside_mistakes() {
    let text = SOUND.replace("rank = 8", "rank = 0").replace("'more.json' }", "'more.json', image = 'x' }");
    let rejected = read(&text).err().expect("two mistakes");
    let names: Vec<&str> = rejected.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(rejected.mistakes.len(), 2);
    assert_eq!(names, ["pairs", "bad", "good", "pictures", "pairs.rejected.2"]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    #[test]
    fn no_text_makes_reading_panic(text in "\\PC{0,200}") {
        if let Err(rejected) = read(&text) {
            proptest::prop_assert!(!rejected.mistakes.is_empty());
            show(&text, &rejected);
        }
    }

    #[test]
    fn no_change_of_a_sound_text_makes_reading_panic(
        at in 0..SOUND.len(), length in 0..20usize, put in "[\\[\\]{}='\"\\\\.,#0-9a-z\n-]{0,8}"
    ) {
        let end = (at + length).min(SOUND.len());
        let text = format!("{}{put}{}", &SOUND[..at], &SOUND[end..]);
        if let Err(rejected) = read(&text) {
            proptest::prop_assert!(!rejected.mistakes.is_empty());
            show(&text, &rejected);
        }
    }
}

fn show(text: &str, rejected: &Rejected) {
    render(&Sources::of("toy.toml", text), &rejected.mistakes, Style::PLAIN);
}

#[test]
fn graphs_are_drawn_with_the_states_given() {
    let text = "[nodes.a]\nkind = 'pictures'\nfrom = 'x'\n[nodes.b]\nkind = 'tell'\ninputs.images = 'a'\nmodel = 'm'\n[models.m]\nsource = 'm'";
    let graph = read(text).ok().expect("the text is sound");
    insta::assert_snapshot!(mermaid(&graph, &[State::Hit, State::Awaits]));
    insta::assert_snapshot!(dot(&graph, &[State::Hit, State::Run]));
}

#[test]
fn an_unknown_kind_has_its_nearest() {
    insta::assert_snapshot!(said("[nodes.a]\nkind = 'picture'\nfrom = 'x'\n"));
}

#[test]
fn an_unknown_node_has_its_nearest() {
    insta::assert_snapshot!(said(
        "[models.m]\nsource = 'm'\n[nodes.pictures]\nkind = 'pictures'\nfrom = 'x'\n[nodes.b]\nkind = 'tell'\ninputs.images = 'picturs'\nmodel = 'm'\n"
    ));
}

#[test]
fn an_unknown_model_has_its_nearest() {
    insta::assert_snapshot!(said(
        "[models.base]\nsource = 'm'\n[nodes.a]\nkind = 'pictures'\nfrom = 'x'\n[nodes.b]\nkind = 'tell'\ninputs.images = 'a'\nmodel = 'bass'\n"
    ));
}

#[test]
fn a_wrong_artifact_says_what_is_taken_and_what_is_made() {
    insta::assert_snapshot!(said(
        "[models.m]\nsource = 'm'\n[nodes.a]\nkind = 'pictures'\nfrom = 'x'\n[nodes.b]\nkind = 'learn'\ninputs.pairs = 'a'\nmodel = 'm'\nrank = 1\n"
    ));
}

#[test]
fn missing_unknown_and_too_many_inputs_are_reported_together() {
    insta::assert_snapshot!(said(
        "[models.m]\nsource = 'm'\n[nodes.a]\nkind = 'pictures'\nfrom = 'x'\ninputs.images = 'b'\n[nodes.b]\nkind = 'tell'\ninputs.image = 'a'\nmodel = 'm'\n[nodes.c]\nkind = 'tell'\ninputs.images = ['a', 'a']\nmodel = 'm'\n"
    ));
}

#[test]
fn a_ring_is_printed_whole() {
    insta::assert_snapshot!(said(
        "[models.m]\nsource = 'm'\n[nodes.a]\nkind = 'learn'\ninputs.pairs = 'b'\nmodel = 'm'\nrank = 1\n[nodes.b]\nkind = 'join'\ninputs.preferred = 'c'\ninputs.rejected = 'c'\n[nodes.c]\nkind = 'tell'\ninputs.images = { file = 'x.json' }\ninputs.adapter = 'a'\nmodel = 'm'\n[nodes.d]\nkind = 'learn'\ninputs.pairs = 'b'\ninputs.adapter = 'd'\nmodel = 'm'\nrank = 1\n"
    ));
}

#[test]
fn a_missing_parameter_and_values_out_of_range_are_reported_together() {
    insta::assert_snapshot!(said(
        "[models.m]\nsource = 'm'\n[nodes.a]\nkind = 'pictures'\n[nodes.b]\nkind = 'tell'\ninputs.images = 'a'\nmodel = 'm'\ntemprature = 1\ntemperature = -1\n[nodes.c]\nkind = 'learn'\ninputs.pairs = { file = 'p' }\nmodel = 'm'\nrank = 0\n"
    ));
}

#[test]
fn tables_and_keys_that_are_written_twice_name_both_places() {
    insta::assert_snapshot!(said(
        "[nodes.a]\nkind = 'pictures'\nfrom = 'x'\nfrom = 'y'\n\n[nodes.a]\nkind = 'pictures'\nfrom = 'z'\n"
    ));
}

#[test]
fn text_that_is_not_toml_is_reported_with_the_rest() {
    insta::assert_snapshot!(said(
        "[nodes.a\nkind = 'pictures'\nfrom = \n[nodes.b]\nkind = 'pictures'\nfrom = 3\nbanana = 1\n"
    ));
}

#[test]
fn nothing_behind_an_equals_sign_is_not_looked_for_in_the_next_line() {
    assert!(!read("[nodes.a]=\n\nkind = 'pictures'\nfrom = 'x'\n").err().expect("a mistake").mistakes.is_empty());
}

#[test]
fn a_file_that_instances_import_is_imported_once_and_each_of_an_axis_by_its_name() {
    let text = |inputs: &str| {
        format!("[models.m]\nsource = 'm'\n[nodes.a]\nkind = 'learn'\nmodel = 'm'\nmatrix.rank = [1, 2]\n{inputs}\n")
    };
    let names = |inputs: &str| -> Vec<String> {
        let graph = read(&text(inputs)).unwrap_or_else(|rejected| panic!("{:#?}", rejected.mistakes));
        let above = |node: &GraphNode| -> Vec<&str> {
            node.inputs.iter().flatten().map(|above| graph.nodes[*above].name.as_str()).collect()
        };
        graph.nodes.iter().map(|node| format!("{} <- {}", node.name, above(node).join(" "))).collect()
    };
    assert_eq!(names("inputs.pairs = { file = 'x' }"), ["a.pairs <- ", "a[rank=1] <- a.pairs", "a[rank=2] <- a.pairs"]);
    assert_eq!(
        names("matrix.'inputs.pairs' = [{ file = 'x' }, { file = 'y' }]"),
        [
            "a[pairs={file=x}].pairs <- ",
            "a[rank=1,pairs={file=x}] <- a[pairs={file=x}].pairs",
            "a[pairs={file=y}].pairs <- ",
            "a[rank=1,pairs={file=y}] <- a[pairs={file=y}].pairs",
            "a[rank=2,pairs={file=x}] <- a[pairs={file=x}].pairs",
            "a[rank=2,pairs={file=y}] <- a[pairs={file=y}].pairs",
        ]
    );
}

#[test]
fn includes_without_files_and_values_with_axes_are_refused() {
    insta::assert_snapshot!(said(
        "include = ['a.toml']\n[pipeline]\nmatrix = { seed = [1, 2] }\n[nodes.a]\nkind = 'pictures'\nfrom = 'x'\nfreeze = true\nmatrix = { from = ['x', 'y'] }\n"
    ));
}

#[test]
fn a_newer_language_is_refused_with_the_version_and_nothing_else() {
    insta::assert_snapshot!(said("banana = 1\n[pipeline]\nlanguage = 2\n"));
}

#[test]
fn the_head_of_a_file_is_checked() {
    insta::assert_snapshot!(said(
        "banana = 1\n[pipeline]\nname = ''\nlanguage = 0\nseed = -1\n[models.'a b']\nrevision = 1\n[nodes.'a.b']\nkind = 'pictures'\nfrom = 'x'\nretries = 1.5\n[nodes]\nc = 3\n"
    ));
}

#[test]
fn inputs_that_are_no_names_are_reported_with_the_rest() {
    insta::assert_snapshot!(said(
        "[nodes.a]\nkind = 'pictures'\nfrom = ''\n[nodes.b]\nkind = 'join'\ninputs.preferred = 3\ninputs.rejected = []\n"
    ));
}

#[test]
fn a_file_without_nodes_has_nothing_to_run() {
    insta::assert_snapshot!(said("[pipeline]\nname = 'x'\n"));
}

/// `keep` makes again what comes in.
struct Keep;

impl NodeKind for Keep {
    fn name(&self) -> &'static str {
        "keep"
    }

    fn version(&self) -> u32 {
        1
    }

    fn ports(&self) -> &'static [Port] {
        const ACCEPTS: &[ArtifactKind] = &[toy::RESPONSES, toy::PAIRS];
        &[Port { name: "rows", accepts: ACCEPTS, arity: Arity::One, items: false }]
    }

    fn output(&self) -> ArtifactKind {
        ArtifactKind { name: "the same", version: 1, rows: None }
    }

    fn same_as(&self) -> Option<&'static str> {
        Some("rows")
    }

    fn read(&self, table: &mut Reader<'_>, connected: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        toy::kinds().get("join").expect("a toy kind").read(table, connected)
    }
}

#[test]
fn a_kind_that_makes_again_what_comes_in_makes_that() {
    let mut all = toy::kinds().all().to_vec();
    all.push(Arc::new(Keep));
    let kinds = Kinds::new(all).with_importer(Arc::new(toy::ToyImporter)).with_declared(toy::kinds().declared());
    let read = |more: &str| Graph::read(&format!("{SOUND}{more}"), "toy", Path::new("folder"), &kinds);
    let keep = |node: &str, rows: &str| format!("[nodes.{node}]\nkind = 'keep'\ninputs.rows = {rows}\n");
    // Before and behind what they take, in the file.
    let all = [keep("two", "'one'"), keep("one", "'pairs'"), keep("three", "'good'"), keep("four", "{ file = 'a' }")];
    let graph = read(&all.concat()).ok().expect("the text is sound");
    let output = |name: &str| graph.nodes[graph.find(name).expect("a node")].output;
    let made = ["one", "two", "three", "four"].map(output);
    assert_eq!(made, [toy::PAIRS, toy::PAIRS, toy::RESPONSES, toy::RESPONSES]);
    let mistakes = |more: &str| -> Vec<String> {
        let found = read(more).err().map(|rejected| rejected.mistakes).unwrap_or_default();
        found.into_iter().map(|mistake| mistake.message).collect()
    };
    // One mistake each, and none about what follows from it.
    let below = "[nodes.below]\nkind = 'learn'\ninputs.pairs = 'one'\nmodel = 'm'\nrank = 1\n";
    let wrong = ["'good'", "'pictures'", "'nobody'", "'one'"].map(|rows| mistakes(&(keep("one", rows) + below)));
    assert_eq!(
        wrong,
        [
            ["`inputs.pairs` of `learn` takes pairs or conversations, but `one` makes responses"],
            ["`inputs.rows` of `keep` takes responses or pairs, but `pictures` makes records"],
            ["unknown node `nobody`"],
            ["dependency cycle: one → one"],
        ]
    );
}
