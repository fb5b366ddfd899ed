//! How the engine grows: whole runs of generated graphs, each measured in a process of its own.
//!
//! Three shapes (a chain, one source that all others read, a ladder of two rails), 100 to 100,000 nodes. For every size:
//! the first run a node, with its fsyncs; a run with nothing to do, in its parts; the memory that it takes beyond the
//! program and the file; and how time grows with size, as the exponent of each decade.
//!
//! ```sh
//! cargo bench -p stic-engine --bench growth             # up to 10,000 nodes
//! cargo bench -p stic-engine --bench growth -- 100000   # up to 100,000
//! cargo bench -p stic-engine --bench growth -- 1000000 items
//! ```
//!
//! `GROWTH_DIR` names where the caches are made; on a file system in memory, the engine's own work is what is measured.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use stic_engine::artifact::{ArtifactKind, ItemId};
use stic_engine::digest::Digest;
use stic_engine::event::State;
use stic_engine::graph::Graph;
use stic_engine::node::*;
use stic_engine::pool::Pools;
use stic_engine::run::{Options, run};
use stic_engine::spec::Reader;
use stic_engine::store::{Access, Disk, Store};

const TEXT: ArtifactKind = ArtifactKind { name: "text", version: 1, rows: None };

/// A step of a graph: its number, and what it reads, joined.
const STEP: Simple = Simple {
    name: "step",
    version: 1,
    ports: &[Port { name: "of", accepts: &[TEXT], arity: Arity::Many, items: false }],
    output: TEXT,
    read: |table| Some(vec![Parameter::function("number", table.required::<u64>("number")?)]),
    run: |parameters, inputs, context| {
        let text = format!("{} of {}", parameters[0].value, inputs.artifacts("of").len());
        Output::of("text", text.as_bytes(), context.objects())
    },
};

/// A step that reads nothing.
const SOURCE: Simple = Simple { name: "source", ports: &[], ..STEP };

/// As many items as `count` says, each its number.
struct Numbers;

struct NumbersNode(u64);

impl NodeKind for Numbers {
    fn name(&self) -> &'static str {
        "numbers"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[]
    }
    fn output(&self) -> ArtifactKind {
        TEXT
    }
    fn read(&self, table: &mut Reader<'_>, _: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        Some(Box::new(NumbersNode(table.required::<u64>("count")?)))
    }
}

impl Node for NumbersNode {
    fn parameters(&self) -> Vec<Parameter> {
        vec![Parameter::selection("count", self.0)]
    }
    fn work(&self) -> Work<'_> {
        Work::Items(self)
    }
}

impl ItemWork for NumbersNode {
    fn item_version(&self) -> u32 {
        1
    }
    fn items(&self, _: &Inputs, _: u64, _: &dyn FileDigests) -> Result<Vec<Item>, Failure> {
        let item = |number: u64| {
            let digest = Digest::of(&number.to_le_bytes());
            Item { id: ItemId::new(digest), reads: digest }
        };
        Ok((0..self.0).map(item).collect())
    }
    fn map(
        &self,
        _: &Inputs,
        pending: &[usize],
        _: &dyn Context,
        finished: &mut dyn FnMut(usize, Result<ItemValue, BadItem>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        for index in pending {
            let value = serde_json::json!({ "text": format!("the answer to question {index}") });
            if finished(*index, Ok(ItemValue { value, objects: Vec::new() })).is_break() {
                break;
            }
        }
        Ok(())
    }
    fn collect(
        &self,
        _: &Inputs,
        values: &mut dyn Iterator<Item = (usize, ItemValue)>,
        context: &dyn Context,
    ) -> Result<Output, Failure> {
        let text: String = values.map(|(_, value)| format!("{}\n", value.value)).collect();
        Output::of("text", text.as_bytes(), context.objects())
    }
}

fn kinds() -> Kinds {
    Kinds::new(vec![Arc::new(SOURCE), Arc::new(STEP), Arc::new(Numbers)])
}

/// The file of a graph of `nodes` nodes.
fn pipeline(shape: &str, nodes: usize) -> String {
    let above = |index: usize| match shape {
        _ if index == 0 => Vec::new(),
        "chain" => vec![index - 1],
        "wide" => vec![0],
        "ladder" if index == 1 => vec![0],
        "ladder" => vec![index - 1, index - 2],
        other => panic!("no shape is called {other}"),
    };
    let table = |index: usize| {
        let above: Vec<String> = above(index).iter().map(|above| format!("\"n{above}\"")).collect();
        let (kind, inputs) = match above.as_slice() {
            [] => ("source", String::new()),
            above => ("step", format!("inputs.of = [{}]\n", above.join(", "))),
        };
        format!("[nodes.n{index}]\nkind = \"{kind}\"\nnumber = {index}\n{inputs}\n")
    };
    (0..nodes).map(table).collect()
}

/// The most memory that this process has had, in bytes.
fn peak() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(f64::NAN) * 1024.0
}

/// Reads and runs the pipeline in `folder`, and prints what it took.
fn measure(folder: &Path) {
    let kinds = kinds();
    let before = peak();
    let clock = Instant::now();
    let text = std::fs::read_to_string(folder.join("pipeline.toml")).unwrap();
    let graph = Graph::read(&text, "growth", folder, &kinds).ok().expect("the file has no mistakes");
    let read = clock.elapsed().as_secs_f64();
    let after_reading = peak();
    let syncs = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&syncs);
    let disk = Disk::failing(move |access, _| {
        counting.fetch_add(usize::from(access == Access::Sync), Ordering::Relaxed);
        None
    });
    let store = Arc::new(Store::open_on(disk, &folder.join("cache")).unwrap());
    let report = run(&graph, &store, &Pools::new(), &Options::default(), &(), &Default::default()).unwrap();
    let all = clock.elapsed().as_secs_f64();
    assert!(report.is_complete());
    let (ran, syncs) = (report.count(State::Run), syncs.load(Ordering::Relaxed));
    drop((report, graph, store));
    println!(
        "read {read} all {all} ran {ran} syncs {syncs} text {} before {before} after_reading {after_reading} peak {}",
        text.len(),
        peak()
    );
}

/// What a process of its own measured.
fn measured(folder: &Path) -> BTreeMap<String, f64> {
    let output = Command::new(std::env::current_exe().unwrap()).arg("--measure").arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    words.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].parse().unwrap())).collect()
}

/// The least of several measurements, by what was measured.
fn least(folder: &Path, times: usize) -> BTreeMap<String, f64> {
    let all = (0..times).map(|_| measured(folder));
    all.reduce(|a, b| a.into_iter().map(|(name, value)| (name.clone(), value.min(b[&name]))).collect()).unwrap()
}

fn place() -> tempfile::TempDir {
    match std::env::var_os("GROWTH_DIR") {
        Some(folder) => tempfile::tempdir_in(PathBuf::from(folder)).unwrap(),
        None => tempfile::tempdir().unwrap(),
    }
}

fn report(what: &str, text: impl Fn(usize) -> String, most: usize) {
    println!(
        "{what:<8} {:>8} | {:>9} {:>7} | {:>9} {:>9} {:>8} | {:>8}",
        "", "first", "fsyncs", "null", "reading", "rest", "memory"
    );
    println!(
        "{:<8} {:>8} | {:>9} {:>7} | {:>9} {:>9} {:>8} | {:>8}",
        "", "size", "us each", "each", "ms", "ms", "ms", "B each"
    );
    let mut last: Option<(usize, f64, f64)> = None;
    for size in [100, 1000, 10_000, 100_000, 1_000_000].into_iter().filter(|size| *size <= most) {
        let folder = place();
        std::fs::write(folder.path().join("pipeline.toml"), text(size)).unwrap();
        let first = measured(folder.path());
        let null = least(folder.path(), if size < 10_000 { 5 } else { 2 });
        assert_eq!(null["ran"], 0.0);
        let each = size as f64;
        print!(
            "{:<8} {size:>8} | {:>9.1} {:>7.2} | {:>9.2} {:>9.2} {:>8.2} | {:>8.0}",
            "",
            first["all"] * 1e6 / each,
            first["syncs"] / each,
            null["all"] * 1e3,
            null["read"] * 1e3,
            (null["all"] - null["read"]) * 1e3,
            (null["peak"] - null["before"] - null["text"]) / each,
        );
        if let Some((before, ran, hit)) = last {
            let decades = (each / before as f64).log10();
            print!(
                "   exponents: first {:.2}, null {:.2}",
                (first["all"] / ran).log10() / decades,
                (null["all"] / hit).log10() / decades
            );
        }
        println!();
        last = Some((size, first["all"], null["all"]));
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [flag, folder] = arguments.as_slice()
        && flag == "--measure"
    {
        return measure(Path::new(folder));
    }
    let most = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(10_000);
    let wanted = |name: &str| {
        let mut named = arguments.iter().filter(|argument| argument.parse::<usize>().is_err()).peekable();
        named.peek().is_none() || named.any(|argument| argument == name)
    };
    for shape in ["chain", "wide", "ladder"].into_iter().filter(|shape| wanted(shape)) {
        report(shape, |nodes| pipeline(shape, nodes), most);
    }
    if wanted("items") {
        report("items", |count| format!("[nodes.numbers]\nkind = \"numbers\"\ncount = {count}\n"), most);
    }
}
