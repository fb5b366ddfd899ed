//! Toy kinds of node, and a bench that runs pipelines of them and remembers what happened.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stic_engine::artifact::{ArtifactKind, ItemId, LABELS, Label, Rows, write_lines};
use stic_engine::digest::Digest;
use stic_engine::event::{Event, Observer, State};
use stic_engine::graph::Graph;
use stic_engine::node::{
    Arity, BadItem, BadItems, Context, Failure, FileDigests, Inputs, Item, ItemValue, ItemWork, Kinds, Node, NodeKind,
    OnBadItem, Output, Parameter, Part, Port, SeedUse, Summary, WholeWork, Work,
};
use stic_engine::plan;
use stic_engine::pool::{self, Pool, Slot, Slots, Unmet};
use stic_engine::run::{Interrupt, Options, RunReport, run};
use stic_engine::spec::parameter::Parameters;
use stic_engine::spec::{Declared, PoolKind, PoolRequest, Reader};
use stic_engine::store::Store;

/// Rows, the same item by item with a suffix, and both together.
pub const PIPELINE: &str = r#"
[nodes.source]
kind = "words"
words = ["b", "a", "c"]

[nodes.described]
kind = "each"
inputs.rows = "source"
suffix = "!"

[nodes.pair]
kind = "all"
inputs.rows = ["described", "source"]
"#;

/// A row of the toys: a text and whose it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub id: ItemId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<Digest>,
    pub text: String,
}

/// The toy kinds.
#[derive(Clone, Copy)]
enum Toy {
    /// Its own words, as rows.
    Words,
    /// The files of a directory, as rows whose texts are file names.
    Files,
    /// Adds a suffix to every row, item by item.
    Each,
    /// As `each`, but puts nothing into the store for an item.
    Tell,
    /// As `each`, but what it adds to is the file's bytes.
    Show,
    /// As `each`, on the device.
    Compute,
    /// All rows of its inputs, sorted by text.
    All,
    /// The first rows of its input.
    First,
}

const RECORDS: ArtifactKind =
    ArtifactKind { name: "records", version: 1, rows: Some(Rows { part: "records.jsonl", file: Some("picture") }) };
const ROWS: Port = Port { name: "rows", accepts: &[RECORDS], arity: Arity::Many, items: true };
const EXTRA: Port = Port { name: "extra", accepts: &[RECORDS], arity: Arity::Optional, items: false };

impl NodeKind for Toy {
    fn name(&self) -> &'static str {
        match self {
            Self::Words => "words",
            Self::Files => "files",
            Self::Each => "each",
            Self::Tell => "tell",
            Self::Show => "show",
            Self::Compute => "compute",
            Self::All => "all",
            Self::First => "first",
        }
    }

    fn version(&self) -> u32 {
        1
    }

    fn ports(&self) -> &'static [Port] {
        match self {
            Self::Words | Self::Files => &[],
            Self::Each | Self::Tell | Self::Show | Self::Compute => &[ROWS, EXTRA],
            Self::All | Self::First => &[ROWS],
        }
    }

    fn output(&self) -> ArtifactKind {
        RECORDS
    }

    fn read(&self, table: &mut Reader<'_>, _connected: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        Some(Box::new(ToyNode {
            toy: *self,
            words: table.optional("words").unwrap_or_default(),
            folder: table.path("folder"),
            suffix: table.optional("suffix").unwrap_or_default(),
            keep: table.optional_integer("keep", 0..1000).map(|keep| keep as usize),
            trouble: table.optional("trouble").unwrap_or_default(),
            log: table.path("log"),
            pause: Duration::from_micros(table.integer("pause", 0, 0..10_000_000)),
            on_bad_item: BadItems::read(table)?.on_bad_item,
            draws: table.optional("draws").unwrap_or(false),
            device: table.optional("device"),
        }))
    }
}

struct ToyNode {
    toy: Toy,
    words: Vec<String>,
    folder: Option<PathBuf>,
    suffix: String,
    keep: Option<usize>,
    draws: bool,
    // None of the following names the result.
    trouble: String,
    log: Option<PathBuf>,
    pause: Duration,
    on_bad_item: OnBadItem,
    device: Option<String>,
}

impl Node for ToyNode {
    fn parameters(&self) -> Vec<Parameter> {
        let mut parameters = Vec::new();
        if !self.words.is_empty() {
            parameters.push(Parameter::selection("words", self.words.clone()));
        }
        if !self.suffix.is_empty() {
            parameters.push(Parameter::function("suffix", self.suffix.as_str()));
        }
        parameters.extend(self.keep.map(|keep| Parameter::selection("keep", keep)));
        parameters
    }

    fn seeds(&self) -> SeedUse {
        SeedUse { pipeline: false, node: self.draws }
    }

    fn resources(&self) -> Option<Slots> {
        matches!(self.toy, Toy::Compute).then(|| {
            let asked = self.device.clone().map(Into::into).unwrap_or_default();
            Slots { pool: DEVICE.name, count: 1, asked }
        })
    }

    fn sources(&self, digests: &dyn FileDigests) -> Result<Vec<Parameter>, Failure> {
        let Some(folder) = &self.folder else { return Ok(Vec::new()) };
        let listed = list(folder, digests)?;
        let text: String = listed.iter().map(|(name, digest)| format!("{name} {digest}\n")).collect();
        Ok(vec![Parameter::selection("folder", Digest::of(text.as_bytes()))])
    }

    fn on_bad_item(&self) -> OnBadItem {
        self.on_bad_item
    }

    fn work(&self) -> Work<'_> {
        match self.toy {
            Toy::Each | Toy::Tell | Toy::Show | Toy::Compute => Work::Items(self),
            _ => Work::Whole(self),
        }
    }
}

fn list(folder: &Path, digests: &dyn FileDigests) -> Result<Vec<(String, Digest)>, Failure> {
    let read = fs::read_dir(folder).map_err(|error| Failure::io(folder, &error))?;
    let mut names: Vec<_> = read.flatten().map(|file| file.file_name().into_string().unwrap()).collect();
    names.sort();
    let paths: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
    let digests = digests.files(&paths).into_iter().collect::<Result<Vec<_>, _>>();
    Ok(names.into_iter().zip(digests.map_err(|error| Failure::io(folder, &error))?).collect())
}

fn output(rows: &[Row], labels: &[Label], context: &dyn Context) -> Result<Output, Failure> {
    let part = |name: &str, content: &[u8]| -> Result<Part, Failure> {
        Ok(Part { name: name.to_owned(), digest: context.objects().put(content)? })
    };
    let side = if labels.is_empty() { Vec::new() } else { vec![part(LABELS, &write_lines(labels))?] };
    let summary = Summary { line: format!("{} rows", rows.len()), ..Summary::default() };
    Ok(Output { identity: vec![part("records.jsonl", &write_lines(rows))?], side, objects: Vec::new(), summary })
}

/// The number that was last saved under `name`; 0 at first.
fn saved(context: &dyn Context, name: &str) -> Result<u32, Failure> {
    let mut number = 0;
    context.checkpoints().load(name, &mut |content| {
        number = std::str::from_utf8(content).unwrap().parse().unwrap();
        Ok(())
    })?;
    Ok(number)
}

impl ToyNode {
    /// Has happen what `trouble` says.
    fn meet_trouble(&self, context: &dyn Context) -> Result<(), Failure> {
        match self.trouble.split_once(':').unwrap_or((&self.trouble, "")) {
            ("panic", _) => panic!("out of cheese"),
            ("environment", count) => {
                // Fails as often as the number says, counted in a checkpoint, which outlives an attempt.
                let failures = saved(context, "failures")?;
                if failures < count.parse::<u32>().unwrap() {
                    context.checkpoints().save("failures", (failures + 1).to_string().as_bytes())?;
                    return Err(Failure::environment("no memory"));
                }
            }
            ("steps", count) => {
                // As a training does: a checkpoint after every step.
                for step in saved(context, "steps")?..count.parse::<u32>().unwrap() {
                    if context.interrupted() {
                        return Err(Failure::Interrupted);
                    }
                    std::thread::sleep(self.pause);
                    self.note("step");
                    context.checkpoints().save("steps", (step + 1).to_string().as_bytes())?;
                }
            }
            ("meet", files) => {
                let (mine, other) = files.split_once(',').unwrap();
                fs::write(mine, "here").unwrap();
                for _ in 0..3000 {
                    if Path::new(other).exists() {
                        return Ok(());
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                return Err(Failure::node("the other node did not run meanwhile"));
            }
            ("node", text) => return Err(Failure::node(text).help("do it otherwise")),
            ("touch", path) => fs::write(path, "changed under the run").unwrap(),
            ("copy", path) => {
                // As a new file of the same content.
                let copy = format!("{path}.copy");
                fs::copy(path, &copy).unwrap();
                fs::rename(&copy, path).unwrap();
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes that `text` was made, so that tests can count.
    fn note(&self, text: &str) {
        if let Some(path) = &self.log {
            let mut file = File::options().append(true).create(true).open(path).unwrap();
            file.write_all(format!("{text}\n").as_bytes()).unwrap();
        }
    }
}

impl WholeWork for ToyNode {
    fn run(&self, inputs: &Inputs, context: &dyn Context) -> Result<Output, Failure> {
        std::thread::sleep(self.pause);
        self.meet_trouble(context)?;
        self.note("whole");
        let (mut rows, mut labels): (Vec<Row>, Vec<Label>) = (Vec::new(), Vec::new());
        match self.toy {
            Toy::Words => {
                let mut seen = BTreeSet::new();
                for word in self.words.iter().filter(|word| seen.insert(word.as_str())) {
                    let id = ItemId::new(Digest::of(word.as_bytes()));
                    let text = if self.trouble == "random" {
                        format!("{word}{:?}", std::time::Instant::now())
                    } else {
                        word.clone()
                    };
                    rows.push(Row { id, picture: None, text });
                }
            }
            Toy::Files => {
                let folder = self.folder.as_ref().unwrap();
                for (name, digest) in list(folder, context.files())? {
                    let path = folder.join(&name).to_str().unwrap().to_owned();
                    labels.push(Label { name: Some(name.clone()), path: Some(path), place: None });
                    rows.push(Row { id: ItemId::new(digest), picture: Some(digest), text: name });
                }
            }
            _ => {
                let mut seen = BTreeSet::new();
                rows = inputs.rows("rows")?;
                rows.retain(|row| seen.insert(row.id.clone()));
                if matches!(self.toy, Toy::All) {
                    rows.sort_by(|a, b| a.text.cmp(&b.text));
                }
                rows.truncate(self.keep.unwrap_or(usize::MAX));
            }
        }
        output(&rows, &labels, context)
    }
}

impl ItemWork for ToyNode {
    fn item_version(&self) -> u32 {
        1
    }

    fn items(&self, inputs: &Inputs, _seed: u64, _files: &dyn FileDigests) -> Result<Vec<Item>, Failure> {
        let rows = self.rows(inputs)?;
        let reads = |row: &Row| Digest::of(format!("{:?} {}", row.picture, row.text).as_bytes());
        Ok(rows.into_iter().map(|row| Item { reads: reads(&row), id: row.id }).collect())
    }

    fn map(
        &self,
        inputs: &Inputs,
        pending: &[usize],
        context: &dyn Context,
        finished: &mut dyn FnMut(usize, Result<ItemValue, BadItem>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        self.meet_trouble(context)?;
        let rows = self.rows(inputs)?;
        for index in pending {
            let row = &rows[*index];
            std::thread::sleep(self.pause);
            self.note(&row.text);
            if let Some(("bad", text)) = self.trouble.split_once(':')
                && row.text.starts_with(text)
            {
                let bad = BadItem { what: row.text.clone(), cause: "not a word".to_owned() };
                if finished(*index, Err(bad)) == ControlFlow::Break(()) {
                    return Ok(());
                }
                continue;
            }
            let text = match (self.toy, row.picture) {
                (Toy::Show, Some(file)) => match context.content(&file) {
                    Ok(bytes) => String::from_utf8(bytes).unwrap(),
                    Err(bad) => {
                        if finished(*index, Err(bad)) == ControlFlow::Break(()) {
                            return Ok(());
                        }
                        continue;
                    }
                },
                _ => row.text.clone(),
            };
            let text = format!("{text}{}", self.suffix);
            let objects = match self.toy {
                Toy::Tell => Vec::new(),
                _ => vec![context.objects().put(text.as_bytes())?],
            };
            let value = serde_json::json!({ "text": text });
            if finished(*index, Ok(ItemValue { value, objects })) == ControlFlow::Break(()) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn collect(
        &self,
        inputs: &Inputs,
        values: &mut dyn Iterator<Item = (usize, ItemValue)>,
        context: &dyn Context,
    ) -> Result<Output, Failure> {
        let rows = self.rows(inputs)?;
        let rows: Vec<Row> = values
            .map(|(index, value)| Row {
                id: rows[index].id.clone(),
                // What was made stands for a file that was altered: it lies in the store.
                picture: value.objects.first().copied(),
                text: value.value["text"].as_str().unwrap().to_owned(),
            })
            .collect();
        output(&rows, &[], context)
    }
}

impl ToyNode {
    fn rows(&self, inputs: &Inputs) -> Result<Vec<Row>, Failure> {
        let mut seen = BTreeSet::new();
        let mut rows: Vec<Row> = inputs.rows("rows")?;
        rows.retain(|row| seen.insert(row.id.clone()));
        rows.truncate(self.keep.unwrap_or(usize::MAX));
        Ok(rows)
    }
}

pub fn kinds() -> Kinds {
    let toys = [Toy::Words, Toy::Files, Toy::Each, Toy::Tell, Toy::Show, Toy::Compute, Toy::All, Toy::First];
    Kinds::new(toys.into_iter().map(|toy| Arc::new(toy) as Arc<dyn NodeKind>).collect())
        .with_declared(Declared { pools: &[DEVICE], ..Declared::default() })
}

const DEVICE: PoolKind = PoolKind {
    name: "device",
    declared: Vec::new,
    read: read_device,
    classes: || ["cpu-f32", "cuda-f32"].map(str::to_owned).to_vec(),
};

fn read_device(table: &mut Reader<'_>) -> PoolRequest {
    PoolRequest { accept_numerics: table.optional("accept_numerics").unwrap_or_default(), ..PoolRequest::default() }
}

/// A machine with a device of this numerics class, and others of the classes that nodes ask for: `PLACE CLASS`.
pub struct Machine(pub Result<&'static str, String>);

impl pool::Machine for Machine {
    fn pool(&self, _name: &str, _asked: &serde_json::Value, own: &serde_json::Value) -> Result<Pool, Unmet> {
        let (place, class) = match (own.as_str().map(|own| own.split_once(' ')), &self.0) {
            (Some(Some((place, class))), _) => (place, class),
            (Some(None), _) => {
                let message = format!("no device {own}");
                return Err(Unmet { message, help: Some("name another".to_owned()) });
            }
            (None, Ok(class)) => ("here", *class),
            (None, Err(message)) => return Err(Unmet { message: message.clone(), help: None }),
        };
        let what = serde_json::json!(format!("the device {place}"));
        Ok(Pool { class: class.to_owned(), slots: vec![Slot { place: place.to_owned(), what }] })
    }
}

type At = Box<dyn Fn(&Event) + Send + Sync>;

/// Remembers events, and may do something at each.
#[derive(Default)]
pub struct Memory {
    pub events: Mutex<Vec<Event>>,
    at: Option<At>,
}

impl Memory {
    pub fn calling(at: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self { at: Some(Box::new(at)), ..Self::default() }
    }
}

impl Observer for Memory {
    fn observe(&self, event: &Event) {
        if let Some(at) = &self.at {
            at(event);
        }
        self.events.lock().unwrap().push(event.clone());
    }
}

/// What happened in a run.
pub struct Outcome {
    pub report: RunReport,
    pub events: Vec<Event>,
}

impl Outcome {
    /// `run NODE`, `hit NODE`, …, by the order of the graph.
    pub fn what(&self) -> Vec<String> {
        let how = |how| match how {
            State::Hit => "hit",
            State::Run => "run",
            State::Failed => "failed",
            State::Awaits => "awaits",
            State::Skipped => "skipped",
        };
        self.report.nodes.iter().map(|node| format!("{} {}", how(node.how), node.node)).collect()
    }

    /// The items of `node`: made, found, skipped.
    pub fn items(&self, node: &str) -> (usize, usize, usize) {
        let items = self.report.nodes.iter().find(|report| report.node == node).unwrap().items.unwrap();
        (items.done, items.cached, items.skipped)
    }

    /// What was said about `node`.
    pub fn notes(&self, node: &str) -> Vec<String> {
        let of = |event: &Event| match event {
            Event::Note { node: of, text } if of == node => Some(text.clone()),
            _ => None,
        };
        self.events.iter().filter_map(of).collect()
    }

    /// The content of every node.
    pub fn contents(&self) -> Vec<Option<String>> {
        self.report.nodes.iter().map(|node| node.content.clone()).collect()
    }

    pub fn error(&self, node: &str) -> String {
        self.report.nodes.iter().find(|report| report.node == node).unwrap().error.clone().unwrap_or_default()
    }
}

/// A directory with a cache in it.
pub struct Bench {
    pub folder: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn store(&self) -> Arc<Store> {
        Arc::new(Store::open(&self.path("cache")).unwrap())
    }

    pub fn graph(&self, text: &str) -> Graph {
        graph(text, self.folder.path())
    }

    /// Runs all of `text`.
    pub fn run(&self, text: &str) -> Outcome {
        self.run_with(text, |_, _| {})
    }

    pub fn run_with(&self, text: &str, change: impl FnOnce(&Graph, &mut Options)) -> Outcome {
        self.run_all(text, change, Machine(Ok("cpu-f32")), Memory::default(), &Interrupt::default())
    }

    pub fn run_all(
        &self,
        text: &str,
        change: impl FnOnce(&Graph, &mut Options),
        machine: Machine,
        memory: Memory,
        interrupt: &Interrupt,
    ) -> Outcome {
        self.run_graph(&self.graph(text), change, machine, memory, interrupt)
    }

    pub fn run_graph(
        &self,
        graph: &Graph,
        change: impl FnOnce(&Graph, &mut Options),
        machine: Machine,
        memory: Memory,
        interrupt: &Interrupt,
    ) -> Outcome {
        let mut options = Options { backoff: Duration::from_millis(1), ..Options::default() };
        change(graph, &mut options);
        let report =
            run(graph, &self.store(), &open(graph, &options.plan, &machine), &options, &memory, interrupt).unwrap();
        Outcome { report, events: memory.events.into_inner().unwrap() }
    }

    pub fn plan(&self, text: &str) -> Vec<plan::NodePlan> {
        self.plan_on(text, "cpu-f32")
    }

    pub fn plan_on(&self, text: &str, class: &'static str) -> Vec<plan::NodePlan> {
        self.plan_with(text, class, &plan::Options::default())
    }

    /// A plan that compares nodes without an earlier result with what they may have been.
    pub fn plan_thoroughly(&self, text: &str) -> Vec<plan::NodePlan> {
        self.plan_with(text, "cpu-f32", &plan::Options { thorough: true, ..plan::Options::default() })
    }

    fn plan_with(&self, text: &str, class: &'static str, options: &plan::Options) -> Vec<plan::NodePlan> {
        let (graph, store) = (self.graph(text), self.store());
        plan::plan(&graph, &store, &store.witness(), &open(&graph, options, &Machine(Ok(class))), options).unwrap()
    }

    /// How often something was made, by the log that nodes were told to write.
    pub fn logged(&self) -> usize {
        fs::read_to_string(self.path("log")).map_or(0, |text| text.lines().count())
    }
}

/// The pools that `options` want of `machine`.
pub fn open(graph: &Graph, options: &plan::Options, machine: &Machine) -> pool::Pools {
    plan::open(graph, &options.targets, machine).unwrap()
}

pub fn graph(text: &str, folder: &Path) -> Graph {
    Graph::read(text, "toy", folder, &kinds()).unwrap_or_else(|_| panic!("the file has mistakes:\n{text}"))
}

/// An interrupt that comes when `node` has made `items` items.
pub fn interrupt_after(node: &'static str, items: usize, interrupt: &Arc<Interrupt>) -> Memory {
    let interrupt = Arc::clone(interrupt);
    Memory::calling(move |event| {
        if let Event::Progress { node: of, progress } = event
            && of == node
            && progress.done >= items
        {
            interrupt.set();
        }
    })
}
