//! Sweeps, included files, settings, defaults and frozen nodes: by what runs, and by what comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;
use stic_engine::diagnostic::Diagnostic;
use stic_engine::graph::{Graph, Rejected};
use stic_engine::run::Interrupt;
use stic_engine::spec::{Files, Written};

use super::toys::{Bench, Machine, Memory, Outcome, kinds};

/// Files in memory.
struct Texts(BTreeMap<PathBuf, String>);

impl Texts {
    fn of<const N: usize>(texts: [(&str, &str); N]) -> Self {
        Self(texts.into_iter().map(|(path, text)| (PathBuf::from(path), text.to_owned())).collect())
    }
}

impl Files for Texts {
    fn read(&self, path: &Path) -> Result<String, Diagnostic> {
        self.0.get(path).cloned().ok_or_else(|| Diagnostic::new(format!("{} does not exist", path.display())))
    }
}

fn graph(text: &str, files: &Texts, settings: &[&str]) -> Result<Graph, Rejected> {
    let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
    let written = Written::read(Path::new("toy.toml"), text, files, &settings, &kinds().declared());
    Graph::of(written, "toy", &kinds())
}

fn run(bench: &Bench, text: &str, files: &Texts, settings: &[&str]) -> Outcome {
    let graph = graph(text, files, settings).unwrap_or_else(|rejected| {
        panic!("mistakes in\n{text}\n{settings:?}\n{:#?}", rejected.mistakes);
    });
    run_graph(bench, &graph)
}

fn run_graph(bench: &Bench, graph: &Graph) -> Outcome {
    bench.run_graph(graph, |_, _| {}, Machine(Ok("cpu-f32")), Memory::default(), &Interrupt::default())
}

fn none() -> Texts {
    Texts(BTreeMap::new())
}

const SWEPT: &str = r#"
[nodes.source]
kind = "words"
words = ["b", "a", "c"]

[nodes.each]
kind = "each"
inputs.rows = "source"
matrix.suffix = ["!", "?"]

[nodes.first]
kind = "first"
inputs.rows = "each"
matrix.keep = [1, 2]

[nodes.joined]
kind = "all"
inputs.rows = ["each", "first"]
"#;

#[test]
fn a_sweep_runs_what_instances_share_once() {
    let bench = Bench::new();
    let what = bench.run(SWEPT).what();
    let instances = ["keep=1,suffix=\"!\"", "keep=2,suffix=\"!\"", "keep=1,suffix=\"?\"", "keep=2,suffix=\"?\""];
    let below = |name: &'static str| {
        instances.map(|of| {
            // In the order of the axes: `each.suffix`, then `first.keep`.
            let (keep, suffix) = of.split_once(',').unwrap();
            format!("run {name}[{suffix},{keep}]")
        })
    };
    let expected = [
        vec!["run source".to_owned(), "run each[suffix=\"!\"]".to_owned(), "run each[suffix=\"?\"]".to_owned()],
        below("first").to_vec(),
        below("joined").to_vec(),
    ];
    assert_eq!(what, expected.concat());

    // One more value: its instances alone.
    let more = SWEPT.replace("[\"!\", \"?\"]", "[\"!\", \"?\", \".\"]");
    let ran: Vec<String> = bench.run(&more).what().into_iter().filter(|what| what.starts_with("run")).collect();
    let names: Vec<&str> = ran.iter().map(|what| what.split('[').next().unwrap()).collect();
    assert_eq!(names, ["run each", "run first", "run first", "run joined", "run joined"]);

    // An instance is what the same node without a sweep would be.
    let one =
        SWEPT.replace("matrix.suffix = [\"!\", \"?\"]", "suffix = \"?\"").replace("matrix.keep = [1, 2]", "keep = 2");
    assert!(bench.run(&one).what().iter().all(|what| what.starts_with("hit")));
}

#[test]
fn combinations_that_are_left_out_are_left_out_below_too() {
    let names = |exclude: &str| -> Vec<String> {
        let text =
            SWEPT.replace("matrix.keep = [1, 2]", &format!("matrix.keep = [1, 2]\nmatrix.exclude = [{exclude}]"));
        let graph = graph(&text, &none(), &[]).ok().unwrap();
        graph.nodes.iter().filter(|node| node.table == "joined").map(|node| node.name.clone()).collect()
    };
    assert_eq!(names("{ keep = 2, each.suffix = \"!\" }").len(), 3);
    assert_eq!(names("{ keep = 2.0 }, { keep = 1, \"each.suffix\" = \"?\" }"), ["joined[suffix=\"!\",keep=1]"]);
}

#[test]
fn the_axis_of_the_seed_is_that_of_what_draws() {
    let text = "[pipeline]\nmatrix.seed = [1, 2]\n[nodes.source]\nkind = 'words'\nwords = ['a']\n\
        [nodes.each]\nkind = 'each'\ninputs.rows = 'source'\n[nodes.drawn]\nkind = 'all'\ninputs.rows = 'each'\ndraws = true\n\
        [nodes.own]\nkind = 'all'\ninputs.rows = 'each'\ndraws = true\nseed = 5\n[nodes.end]\nkind = 'first'\ninputs.rows = ['own', 'drawn']\n";
    let graph = graph(text, &none(), &[]).ok().unwrap();
    let names: Vec<&str> = graph.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["source", "each", "drawn[seed=1]", "drawn[seed=2]", "own", "end[seed=1]", "end[seed=2]"]);
    let seeds: Vec<(u64, u64)> = graph.nodes[2..].iter().map(|node| (node.seed, node.pipeline_seed)).collect();
    assert_eq!(seeds, [(1, 1), (2, 2), (5, 0), (1, 1), (2, 2)]);
    assert_eq!(graph.select("drawn"), [2, 3]);
    assert_eq!(graph.select("end[seed=2]"), [6]);
    assert_eq!(graph.needed(&[6]), [true, true, false, true, true, false, true]);
}

#[test]
fn an_input_can_be_an_axis() {
    let text = "[nodes.a]\nkind = 'words'\nwords = ['a']\n[nodes.b]\nkind = 'words'\nmatrix.words = [['b'], ['c', 'd']]\n\
        [nodes.end]\nkind = 'all'\nmatrix.\"inputs.rows\" = ['a', 'b', ['a', 'b']]\n";
    let graph = graph(text, &none(), &[]).ok().unwrap();
    let names: Vec<&str> = graph.nodes.iter().map(|node| node.name.as_str()).collect();
    let expected = [
        "a",
        "b[words=[b]]",
        "b[words=[c,d]]",
        "end[words=[b],rows=b]",
        "end[words=[b],rows=[a,b]]",
        "end[words=[c,d],rows=b]",
        "end[words=[c,d],rows=[a,b]]",
        "end[rows=a]",
    ];
    assert_eq!(names, expected);
    assert_eq!(graph.select("end[rows=b]"), [3, 5]);
    assert_eq!(graph.select("end[words=[c,d]]"), [5, 6]);
}

#[test]
fn a_frozen_node_keeps_its_result_and_nothing_above_it_runs() {
    let bench = Bench::new();
    let text = "[nodes.source]\nkind = 'words'\nwords = ['b']\n[nodes.each]\nkind = 'each'\ninputs.rows = 'source'\nsuffix = '!'\n\
        [nodes.end]\nkind = 'all'\ninputs.rows = 'each'\n";
    let frozen = text.replace("suffix", "freeze = true\nsuffix");
    let nothing = bench.run(&frozen);
    assert_eq!(nothing.what(), ["failed each", "skipped end"]);
    assert!(
        nothing.error("each").starts_with("`each` is frozen, but the cache has no result of it"),
        "{}",
        nothing.error("each")
    );

    let first = bench.run(text);
    assert_eq!(first.what(), ["run source", "run each", "run end"]);
    let changed = frozen.replace("['b']", "['c']").replace("'!'", "'?'");
    let kept = bench.run(&changed);
    assert_eq!(kept.what(), ["hit each", "hit end"]);
    assert!(kept.notes("each")[0].starts_with("frozen: the result of "), "{:?}", kept.notes("each"));
    assert_eq!(kept.contents(), first.contents()[1..]);
    let plan = bench.plan(&changed);
    assert!(plan[0].why[0].starts_with("frozen: the result of "), "{plan:?}");
    assert!(plan[0].why[0].ends_with("; not applied: suffix: \"!\" \u{2192} \"?\""), "{plan:?}");
    // As a target, what is above it runs by itself.
    let source = bench.run_with(&changed, |graph, options| options.plan.targets = graph.select("source"));
    assert_eq!(source.what(), ["run source"]);
    // And once it is thawed, all of it runs.
    assert_eq!(
        bench.run(&changed.replace("freeze = true", "freeze = false")).what(),
        ["hit source", "run each", "run end"]
    );
}

#[test]
fn paths_are_relative_to_the_file_that_they_are_written_in() {
    let files = Texts::of([
        (
            "more/a.toml",
            "include = ['b.toml']\n[nodes.a]\nkind = 'files'\nfolder = 'x'\n[defaults.files]\nfolder = 'all'\n",
        ),
        ("more/b.toml", "[nodes.b]\nkind = 'files'\nfolder = '../y'\n[nodes.d]\nkind = 'files'\n"),
    ]);
    let bench = Bench::new();
    let text = "include = ['more/a.toml']\n[nodes.c]\nkind = 'files'\nfolder = 'z'\n";
    let missing = |settings: &[&str]| -> Vec<String> {
        let graph = graph(text, &files, settings).ok().unwrap();
        let witness = bench.store().witness();
        let missing = graph.nodes.iter().map(|node| node.node.sources(&witness).unwrap_err().to_string());
        missing.map(|error| error.split(':').next().unwrap().replace("cannot read ", "").replace('`', "")).collect()
    };
    assert_eq!(missing(&[]), ["z", "more/x", "y", "more/all"]);
    assert_eq!(missing(&["a.folder=q"]), ["z", "q", "y", "more/all"]);
}

#[derive(Clone, Debug)]
struct Toy {
    kind: usize,
    words: Vec<u8>,
    suffix: u8,
    keep: u8,
    above: Vec<Index>,
    file: usize,
    swept: bool,
}

const KINDS: [&str; 4] = ["words", "each", "all", "first"];

fn toy() -> impl Strategy<Value = Toy> {
    let above = prop::collection::vec(any::<Index>(), 1..3);
    (0..KINDS.len(), prop::collection::vec(0..5u8, 1..4), 1..3u8, 0..4u8, above, 0..3usize, prop::bool::weighted(0.4))
        .prop_map(|(kind, words, suffix, keep, above, file, swept)| Toy {
            kind,
            words,
            suffix,
            keep,
            above,
            file,
            swept,
        })
}

impl Toy {
    fn kind(&self, index: usize) -> &'static str {
        if index == 0 { "words" } else { KINDS[self.kind] }
    }

    fn above(&self, index: usize) -> BTreeSet<usize> {
        if self.kind(index) == "words" {
            BTreeSet::new()
        } else {
            self.above.iter().map(|it| it.index(index)).collect()
        }
    }

    /// Its parameter, and two values of it.
    fn parameter(&self, index: usize) -> Option<(&'static str, [String; 2])> {
        let words = |more: &str| {
            let words: Vec<String> = self.words.iter().map(|word| format!("\"w{word}{more}\"")).collect();
            format!("[{}]", words.join(", "))
        };
        match self.kind(index) {
            "words" => Some(("words", [words(""), words("x")])),
            "each" => Some(("suffix", [format!("\"{}\"", self.suffix), format!("\"{}\"", self.suffix + 5)])),
            "first" => Some(("keep", [self.keep.to_string(), (self.keep + 1).to_string()])),
            _ => None,
        }
    }

    /// Its table; with the value number `choice` of its parameter, or with all values as an axis.
    fn table(&self, index: usize, choice: Option<usize>) -> String {
        let mut text = format!("[nodes.n{index}]\nkind = \"{}\"\n", self.kind(index));
        if let Some((name, values)) = self.parameter(index) {
            text += &match choice {
                Some(choice) => format!("{name} = {}\n", values[choice]),
                None => format!("matrix = {{ {name} = [{}] }}\n", values.join(", ")),
            };
        }
        let above: Vec<String> = self.above(index).iter().map(|above| format!("\"n{above}\"")).collect();
        if !above.is_empty() {
            text += &format!("inputs.rows = [{}]\n", above.join(", "));
        }
        text
    }

    fn is_swept(&self, index: usize) -> bool {
        self.swept && self.parameter(index).is_some()
    }
}

fn merged(toys: &[Toy]) -> String {
    toys.iter().enumerate().map(|(index, toy)| toy.table(index, Some(0))).collect()
}

/// The swept nodes that node `index` depends on, itself among them.
fn axes(toys: &[Toy], index: usize) -> BTreeSet<usize> {
    let mut axes: BTreeSet<usize> = toys[index].above(index).into_iter().flat_map(|above| axes(toys, above)).collect();
    axes.extend(toys[index].is_swept(index).then_some(index));
    axes
}

fn contents(run: &Outcome) -> BTreeMap<String, String> {
    run.report.nodes.iter().map(|node| (node.node.clone(), node.content.clone().unwrap())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// The oracle writes one pipeline for every choice of values, and knows nothing of axes.
    #[test]
    fn an_instance_is_what_a_pipeline_with_its_values_makes(toys in prop::collection::vec(toy(), 1..5)) {
        let bench = Bench::new();
        let text: String =
            toys.iter().enumerate().map(|(index, toy)| toy.table(index, (!toy.is_swept(index)).then_some(0))).collect();
        let graph = graph(&text, &none(), &[]).unwrap_or_else(|rejected| panic!("{text}\n{:#?}", rejected.mistakes));
        let found = contents(&run_graph(&bench, &graph));
        let mut expected: Vec<BTreeSet<Vec<usize>>> = vec![BTreeSet::new(); toys.len()];
        for choices in 0..1usize << toys.len() {
            let choice = |index: usize| if toys[index].is_swept(index) { choices >> index & 1 } else { 0 };
            if (0..toys.len()).any(|index| !toys[index].is_swept(index) && choices >> index & 1 == 1) {
                continue;
            }
            let concrete: String = (0..toys.len()).map(|index| toys[index].table(index, Some(choice(index)))).collect();
            let made = contents(&run(&bench, &concrete, &none(), &[]));
            for (index, toy) in toys.iter().enumerate() {
                let axes = axes(&toys, index);
                let values: Vec<usize> = axes.iter().map(|axis| choice(*axis)).collect();
                // By the number of each value, in the order of the axes.
                let instance = graph.nodes.iter().filter(|node| node.table == format!("n{index}")).find(|node| {
                    let value = |axis: usize| {
                        let (name, values) = toys[axis].parameter(axis)?;
                        let full = format!("n{axis}.{name}");
                        let shown = &node.axes.iter().find(|value| value.full == full)?.value;
                        let plain = |text: &str| text.replace([' ', '"'], "");
                        values.iter().position(|value| plain(value) == plain(shown))
                    };
                    axes.iter().map(|axis| value(*axis)).collect::<Option<Vec<_>>>() == Some(values.clone())
                });
                let instance = instance.unwrap_or_else(|| panic!("no instance of {toy:?} with {values:?} in\n{text}"));
                prop_assert_eq!(&found[&instance.name], &made[&format!("n{index}")], "{} in\n{}", instance.name, text);
                expected[index].insert(values);
            }
        }
        for (index, expected) in expected.iter().enumerate() {
            let count = graph.nodes.iter().filter(|node| node.table == format!("n{index}")).count();
            prop_assert_eq!(count, expected.len(), "n{} in\n{}", index, text);
        }
    }

    #[test]
    fn a_pipeline_in_several_files_is_the_pipeline_in_one(toys in prop::collection::vec(toy(), 1..6)) {
        let bench = Bench::new();
        let whole = run(&bench, &merged(&toys), &none(), &[]);
        let part = |file: usize, before: &str| -> String {
            let own = toys.iter().enumerate().filter(|(_, toy)| toy.file == file);
            own.fold(before.to_owned(), |text, (index, toy)| text + &toy.table(index, Some(0)))
        };
        let files = Texts::of([
            ("a/one.toml", &*part(1, "include = ['../b/two.toml']\n")),
            ("b/two.toml", &*part(2, "")),
        ]);
        // One is named twice, and read once.
        let split = run(&bench, &part(0, "include = ['a/one.toml', 'b/two.toml']\n"), &files, &[]);
        prop_assert!(split.report.nodes.iter().all(|node| node.how == stic_engine::event::State::Hit), "{:?}", split.what());
        prop_assert_eq!(contents(&split), contents(&whole));
    }

    #[test]
    fn a_setting_is_an_edit_of_the_file(
        toys in prop::collection::vec(toy(), 1..6), which in any::<Index>(), bare in any::<bool>(), table in any::<bool>(),
    ) {
        let bench = Bench::new();
        let index = which.index(toys.len());
        let Some((name, values)) = toys[index].parameter(index) else { return Ok(()) };
        let edited = |at: usize| toys[at].table(at, Some(usize::from(at == index)));
        let edited = run(&bench, &(0..toys.len()).map(edited).collect::<String>(), &none(), &[]);
        // A string without quotes must not look like a number.
        let value = if bare && name != "suffix" { values[1].clone() } else { format!(" {}", values[1]) };
        let setting = format!("{}n{index}.{name}={value}", if table { "nodes." } else { "" });
        // The last setting of a key counts.
        let set = run(&bench, &merged(&toys), &none(), &[&format!("n{index}.{name}=[]"), &setting]);
        prop_assert!(set.report.nodes.iter().all(|node| node.how == stic_engine::event::State::Hit), "{:?}", set.what());
        prop_assert_eq!(contents(&set), contents(&edited));
    }

    #[test]
    fn what_nodes_leave_out_is_in_the_defaults_of_their_kind(toys in prop::collection::vec(toy(), 1..6)) {
        let bench = Bench::new();
        // The first node of each kind gives the default; those that have it leave it out.
        let (mut defaults, mut text) = (BTreeMap::new(), String::new());
        for (index, toy) in toys.iter().enumerate() {
            let mut table = toy.table(index, Some(0));
            if let Some((name, [value, _])) = toy.parameter(index) {
                let line = format!("{name} = {value}\n");
                if defaults.entry(toy.kind(index)).or_insert_with(|| line.clone()) == &line {
                    table = table.replace(&line, "");
                }
            }
            text += &table;
        }
        let defaults: String = defaults.iter().map(|(kind, line)| format!("[defaults.{kind}]\n{line}")).collect();
        let whole = run(&bench, &merged(&toys), &none(), &[]);
        let with = run(&bench, &(text + &defaults), &none(), &[]);
        prop_assert!(with.report.nodes.iter().all(|node| node.how == stic_engine::event::State::Hit), "{:?}", with.what());
        prop_assert_eq!(contents(&with), contents(&whole));
    }
}
