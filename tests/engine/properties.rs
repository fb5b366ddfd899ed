//! A random graph and a random edit: what comes out incrementally is what comes out clean, and only what the edit
//! reaches runs.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::Index;

use stic_engine::store::Eviction;

use super::toys::{Bench, Outcome};

#[derive(Clone, Debug)]
struct Toy {
    kind: usize,
    words: Vec<u8>,
    suffix: u8,
    keep: u8,
    above: Vec<Index>,
}

const KINDS: [&str; 4] = ["words", "each", "all", "first"];

fn toy() -> impl Strategy<Value = Toy> {
    (0..KINDS.len(), prop::collection::vec(0..5u8, 1..4), 0..3u8, 0..4u8, prop::collection::vec(any::<Index>(), 1..3))
        .prop_map(|(kind, words, suffix, keep, above)| Toy { kind, words, suffix, keep, above })
}

impl Toy {
    fn kind(&self, index: usize) -> &'static str {
        if index == 0 { "words" } else { KINDS[self.kind] }
    }

    fn above(&self, index: usize) -> Vec<usize> {
        if self.kind(index) == "words" {
            Vec::new()
        } else {
            self.above.iter().map(|above| above.index(index)).collect()
        }
    }

    fn parameters(&self, index: usize) -> String {
        match self.kind(index) {
            "words" => {
                let words: Vec<String> = self.words.iter().map(|word| format!("\"w{word}\"")).collect();
                format!("words = [{}]\n", words.join(", "))
            }
            "each" if self.suffix > 0 => format!("suffix = \"{}\"\n", self.suffix),
            "first" => format!("keep = {}\n", self.keep),
            _ => String::new(),
        }
    }
}

fn text(toys: &[Toy]) -> String {
    let mut text = String::new();
    for (index, toy) in toys.iter().enumerate() {
        text += &format!("[nodes.n{index}]\nkind = \"{}\"\n{}", toy.kind(index), toy.parameters(index));
        let above: Vec<String> = toy.above(index).iter().map(|above| format!("\"n{above}\"")).collect();
        if !above.is_empty() {
            text += &format!("inputs.rows = [{}]\n", above.join(", "));
        }
    }
    text
}

/// What determines each node, said without the engine's keys: kind, parameters, contents that come in.
fn determinants(toys: &[Toy], run: &Outcome) -> HashMap<String, String> {
    let content = |index: usize| {
        let name = format!("n{index}");
        run.report.nodes.iter().find(|node| node.node == name).unwrap().content.clone().unwrap()
    };
    let of = |(index, toy): (usize, &Toy)| {
        let above: Vec<String> = toy.above(index).into_iter().map(content).collect();
        (format!("n{index}"), format!("{} {} {above:?}", toy.kind(index), toy.parameters(index)))
    };
    toys.iter().enumerate().map(of).collect()
}

fn contents(run: &Outcome) -> HashMap<String, Option<String>> {
    run.report.nodes.iter().map(|node| (node.node.clone(), node.content.clone())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_incremental_run_equals_a_clean_one_and_runs_only_what_the_edit_reaches(
        toys in prop::collection::vec(toy(), 2..8),
        edited in any::<Index>(),
        edit in toy(),
    ) {
        let mut after = toys.clone();
        let place = edited.index(toys.len());
        // An edit of parameters or of the whole node, whichever the draw makes it.
        after[place] = edit;
        let bench = Bench::new();
        let before = bench.run(&text(&toys));
        prop_assert!(before.report.is_complete());
        let incremental = bench.run(&text(&after));
        let clean = Bench::new().run(&text(&after));
        prop_assert_eq!(contents(&incremental), contents(&clean));

        let known: Vec<String> = determinants(&toys, &before).into_values().collect();
        let mut groups: HashMap<String, Vec<String>> = HashMap::new();
        for (node, determinants) in determinants(&after, &clean) {
            groups.entry(determinants).or_default().push(node);
        }
        let what = incremental.what();
        for (determinants, nodes) in groups {
            let ran = nodes.iter().filter(|node| what.contains(&format!("run {node}"))).count();
            // Nodes that are equal in everything are done once.
            prop_assert_eq!(ran, usize::from(!known.contains(&determinants)), "{:?}: {:?}", nodes, what);
        }
    }

    #[test]
    fn eviction_never_removes_what_a_null_run_of_a_kept_run_needs_and_nothing_that_is_wrong_remains(
        toys in prop::collection::vec(toy(), 2..7),
        edited in any::<Index>(),
        edit in toy(),
        share in 0..4u64,
    ) {
        let mut after = toys.clone();
        let place = edited.index(toys.len());
        after[place] = edit;
        let bench = Bench::new();
        let before = bench.run(&text(&toys));
        let kept = bench.run(&text(&after));
        let store = bench.store();
        let size = store.stats().unwrap().bytes();
        let eviction = Eviction { max_size: Some(size * share / 4), keep_runs: 1, ..Eviction::default() };
        let evicted = store.evict(&eviction).unwrap();
        prop_assert_eq!(evicted.left, store.stats().unwrap().bytes());
        let null = bench.run(&text(&after));
        prop_assert!(null.what().iter().all(|what| what.starts_with("hit ")), "{:?}", null.what());
        prop_assert_eq!(contents(&null), contents(&kept));
        for node in &null.report.nodes {
            let record = store.record(&node.key.as_ref().unwrap().parse().unwrap()).unwrap().unwrap();
            prop_assert!(record.objects.iter().all(|object| store.verify_object(&object.digest).is_ok()));
        }
        prop_assert_eq!(bench.store().evict(&Eviction::default()).unwrap().bytes(), 0, "nothing unneeded is left");
        // What went is made again as it was.
        prop_assert_eq!(contents(&bench.run(&text(&toys))), contents(&before));
    }
}
