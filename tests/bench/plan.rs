//! What a run with nothing to do costs: a plan of a thousand nodes, and of one node of six thousand items.
//!
//! Aims: 15 ms and 50 ms. Run with `cargo bench --bench plan`.

#[allow(dead_code)]
#[path = "../engine/toys.rs"]
mod toys;

use stic_engine::graph::Graph;
use stic_engine::plan;
use stic_engine::store::Store;
use toys::{Bench, Machine};

fn main() {
    divan::main();
}

/// A cache in which all of `text` is done.
fn finished(text: &str) -> (Bench, Graph) {
    let bench = Bench::new();
    assert!(bench.run(text).report.is_complete());
    let graph = bench.graph(text);
    (bench, graph)
}

/// Plans as a new process does: the cache is opened anew, its index read, every key made and looked up.
fn plan_of(bench: &Bench, graph: &Graph) -> Vec<plan::NodePlan> {
    let store = std::sync::Arc::new(Store::open(&bench.path("cache")).unwrap());
    let options = plan::Options::default();
    let pools = toys::open(graph, &options, &Machine(Ok("cpu-f32")));
    plan::plan(graph, &store, &store.witness(), &pools, &options).unwrap()
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn a_thousand_nodes_with_nothing_new(bencher: divan::Bencher) {
    let mut text = String::from("[nodes.n0]\nkind = \"words\"\nwords = [\"a\", \"b\"]\n");
    for index in 1..1000 {
        let above = index / 2;
        text += &format!("[nodes.n{index}]\nkind = \"first\"\ninputs.rows = \"n{above}\"\nkeep = {}\n", index % 900);
    }
    let (bench, graph) = finished(&text);
    bencher.bench_local(|| {
        assert!(plan_of(&bench, &graph).iter().all(|node| node.state == stic_engine::event::State::Hit))
    });
}

/// Words enough for `count` items.
fn items(count: usize, keep: &str) -> String {
    let words: Vec<String> = (0..count).map(|number| format!("\"w{number}\"")).collect();
    format!(
        "[nodes.source]\nkind = \"words\"\nwords = [{}]\n[nodes.described]\nkind = \"tell\"\ninputs.rows = \"source\"\n{keep}",
        words.join(", ")
    )
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn six_thousand_items_with_nothing_new(bencher: divan::Bencher) {
    let (bench, graph) = finished(&items(6000, ""));
    bencher.bench_local(|| {
        assert!(plan_of(&bench, &graph).iter().all(|node| node.state == stic_engine::event::State::Hit))
    });
}

/// The node is new, its items are not: the journal is read and every item looked up.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn six_thousand_items_of_a_new_selection(bencher: divan::Bencher) {
    let (bench, _) = finished(&items(6000, ""));
    let graph = bench.graph(&items(6000, "keep = 999\n"));
    bencher.bench_local(|| assert_eq!(plan_of(&bench, &graph)[1].items.unwrap().cached, 999));
}
