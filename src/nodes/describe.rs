//! `describe` and `mislead`: a model responds to a prompt about each picture.
//!
//! With the paper's prompts, `describe` generates the preferred responses or, for altered pictures, rejected ones.
//! `mislead` asks for what is not in the picture, to get rejected responses. It differs in name alone, by which `pair`
//! tells where a response came from.
//!
//! Pictures are decoded and preprocessed on the CPU ahead of the device.

use std::ops::{Bound, ControlFlow};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use serde::{Deserialize, Serialize};

use super::adapter;
use super::device;
use super::labels::{LeftOut, carried};
use super::model::ModelParameters;
use super::pictured::Pictured;
use super::prompts::Prompts;
use super::share::Fraction;
use super::source_check::{ALTERED, ALTERED_PROMPTS, check_pictures};
use crate::artifact::{self, ArtifactKind, Finish, LABELS, Response, write_lines};
use crate::data::picture::decode;
use crate::model::ModelError;
use crate::model::contract::ImageInput;
use crate::model::generate::{Generator, Request, Settings, Step};
use crate::model::processor::{Processor, round};
use crate::model::sample::Sampling;
use stic_engine::diagnostic::counted;
use stic_engine::digest::{Digest, Value};
use stic_engine::node::{
    Arity, BadItem, BadItems, Block, Context, Failure, FileDigests, FileProblem, Inputs, Item, ItemValue, ItemWork,
    Node, NodeKind, OnBadItem, Output, Parameter, Part, Port, Progress, Sample, SeedUse, Summary, Work,
};
use stic_engine::parameters;
use stic_engine::pool::Slots;
use stic_engine::spec::Reader;
use stic_engine::spec::parameter::{Declaration, Parameters, group, integer, number};

/// How many pictures are preprocessed at once, ahead of the device.
const AHEAD: usize = 32;

/// How many responses a summary shows.
const SAMPLES: usize = 3;

/// The kinds `describe` and `mislead`.
pub struct ResponseKind {
    name: &'static str,
    help: &'static str,
    example: &'static str,
}

/// The kind `describe`.
pub const DESCRIBE: ResponseKind = ResponseKind {
    name: "describe",
    help: "generates a description of each picture: preferred responses, or rejected ones if pictures are altered",
    example: r#"inputs.images = { file = "records.json" }
model = "base"
prompts = "stic:preferred""#,
};

/// The kind `mislead`.
pub const MISLEAD: ResponseKind = ResponseKind {
    name: "mislead",
    help: "describes each picture with prompts that invite hallucination: rejected responses",
    example: r#"inputs.images = { file = "records.json" }
model = "base"
prompts = "stic:hallucination""#,
};

impl NodeKind for ResponseKind {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> u32 {
        3
    }

    fn ports(&self) -> &'static [Port] {
        PORTS
    }

    fn output(&self) -> ArtifactKind {
        artifact::RESPONSES
    }

    fn help(&self) -> &'static str {
        self.help
    }

    fn example(&self) -> &'static str {
        self.example
    }

    fn declared(&self) -> Vec<Declaration> {
        ResponseNode::declared()
    }

    fn read(&self, table: &mut Reader<'_>, _connected: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        Some(Box::new(ResponseNode::read(table)?))
    }
}

const PORTS: &[Port] = &[
    Port { name: "images", accepts: &[artifact::RECORDS], arity: Arity::Many, items: true },
    Port { name: "adapter", accepts: &[artifact::ADAPTER], arity: Arity::Optional, items: false },
];

parameters! {
    /// A node of either kind.
    struct ResponseNode {
        /// Shared
        model: ModelParameters = group(),
        /// The prompts: a built-in set, a list, or a file; each item draws one
        prompts: Prompts = Prompts::setting(),
        /// Sampling temperature; 0 is greedy decoding (0.2 in the published scripts)
        temperature: f64 = number(0.0..).default(0.2),
        /// Samples from this many of the most likely tokens (50 in transformers, as in the published code); 0 for all
        top_k: usize = integer(0..=1_000_000).default(50),
        /// Samples from the fewest tokens whose probabilities add up to this
        top_p: f64 = number((Bound::Excluded(0.0), Bound::Included(1.0))).default(1.0),
        /// Maximum length of a response in tokens (as in the published scripts)
        max_new_tokens: usize = integer(1..=1_000_000).default(1024),
        /// Shared
        fraction: Fraction = group(),
        /// Number of responses generated together
        batch_size: Option<usize> = integer(1..=4096).optional("as many as fit").execution(),
        /// Shared
        bad_items: BadItems = group(),
    }
}

impl ResponseNode {
    fn questions(&self, inputs: &Inputs, pipeline_seed: u64) -> Result<(Vec<Question>, LeftOut), Failure> {
        let prompts = self.prompts.load()?;
        let (pictured, left_out) = Pictured::read(inputs, &self.fraction, pipeline_seed)?;
        let prompt = |of: &Pictured| prompts.draw(pipeline_seed, &of.record.id).to_owned();
        Ok((pictured.into_iter().map(|of| Question { prompt: prompt(&of), of }).collect(), left_out))
    }
}

/// A picture and its prompt.
struct Question {
    of: Pictured,
    prompt: String,
}

impl Question {
    fn item(&self) -> Item {
        let fields: Vec<(String, Value)> =
            vec![("picture".to_owned(), self.of.shown.into()), ("prompt".to_owned(), self.prompt.as_str().into())];
        Item { id: self.of.record.id.clone(), reads: Digest::of_fields("stic response reads v1", &fields) }
    }
}

/// The model's response, the value of an item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Reply {
    text: String,
    tokens: usize,
    finish: Finish,
    /// How the model saw the picture. Journals of earlier versions lack it, or have it under another name with a wrong
    /// number of views.
    #[serde(default, rename = "as_seen", skip_serializing_if = "Option::is_none")]
    seen: Option<Seen>,
}

/// How a model sees a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    /// Views that go through the vision tower: the whole picture and its tiles, or one where there are no tiles.
    views: usize,
    /// Image tokens.
    image_tokens: usize,
}

impl Seen {
    fn of(image: &ImageInput) -> Self {
        let views = if image.layout.tiles.is_some() { image.pieces() } else { 1 };
        Self { views, image_tokens: image.layout.image_tokens() }
    }
}

impl Node for ResponseNode {
    fn parameters(&self) -> Vec<Parameter> {
        let mut list = self.key_fields();
        // With greedy decoding the others have no effect.
        list.retain(|parameter| self.temperature > 0.0 || !["top_k", "top_p"].contains(&parameter.name.as_str()));
        list
    }

    fn left_out(&self, parameter: &str) -> Option<String> {
        match parameter {
            "top_k" | "top_p" if self.temperature == 0.0 => Some("unused with temperature 0".to_owned()),
            _ => self.model.left_out(parameter),
        }
    }

    fn seeds(&self) -> SeedUse {
        SeedUse { pipeline: self.fraction.draws() || self.prompts.draws(), node: self.temperature > 0.0 }
    }

    fn resources(&self) -> Option<Slots> {
        Some(device::one(&self.model.device))
    }

    fn check_files(&self) -> Vec<FileProblem> {
        let mut problems = self.model.check_files();
        problems.extend(self.prompts.problem("prompts"));
        problems
    }

    fn check_inputs(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<FileProblem> {
        check_pictures("images", above).into_iter().chain(self.fraction.check("images", &above("images"))).collect()
    }

    fn promises(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<Parameter> {
        let images = above("images");
        let altered = images.iter().any(|promise| promise.name == ALTERED);
        let prompts = altered.then(|| self.prompts.load().ok()).flatten();
        let prompts = prompts.iter().map(|set| Parameter::selection(ALTERED_PROMPTS, set.prompts().to_vec()));
        prompts.chain(self.fraction.promises(&images)).collect()
    }

    fn sources(&self, digests: &dyn FileDigests) -> Result<Vec<Parameter>, Failure> {
        let mut list = self.model.sources(digests)?;
        list.push(self.prompts.parameter("prompts", digests)?);
        Ok(list)
    }

    fn on_bad_item(&self) -> OnBadItem {
        self.bad_items.on_bad_item
    }

    fn work(&self) -> Work<'_> {
        Work::Items(self)
    }
}

impl ResponseNode {
    /// See [`ItemWork::map`].
    fn respond(
        &self,
        inputs: &Inputs,
        pending: &[usize],
        context: &dyn Context,
        finished: &mut dyn FnMut(usize, Result<ItemValue, BadItem>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let (questions, _) = self.questions(inputs, context.pipeline_seed())?;
        let processor = self.model.processor(context)?;
        let model = self.model.load(context, self.model.generates(&processor, self.batch_size, self.max_new_tokens))?;
        let adapter = adapter::load(inputs, "adapter", &*model)?;
        let settings = Settings {
            sampling: Sampling { temperature: self.temperature, top_k: self.top_k, top_p: self.top_p },
            max_new_tokens: self.max_new_tokens,
            seed: context.seed(),
            batch_size: self.batch_size,
        };
        let generator = Generator::new(&*model, adapter.as_ref(), processor.tokenizer(), settings);

        let seen: Vec<OnceLock<Seen>> = questions.iter().map(|_| OnceLock::new()).collect();
        let request = |tag: usize| {
            let question = &questions[tag];
            let image = read_image(&question.of.shown, &processor, context).map_err(|error| (tag, error))?;
            seen[tag].get_or_init(|| Seen::of(&image));
            let turns = round(&question.prompt, None);
            let sequence = processor.tokenize(&turns, &[&image.layout]).map_err(|error| (tag, error))?;
            let subject = question.of.record.id.as_str().to_owned();
            Ok(Request { tag, subject, sequence, image: Some(Arc::new(image)) })
        };
        let mut progress = Progress { done: 0, total: pending.len(), tokens: Some(0), loss: None };
        let mut watch = |step: Step| {
            let flow = match step {
                Step::Tokens(count) => {
                    progress.tokens = progress.tokens.map(|tokens| tokens + count as u64);
                    ControlFlow::Continue(())
                }
                Step::Done(tag, answer) => {
                    progress.done += 1;
                    let reply = answer.and_then(|answer| {
                        let text = processor.tokenizer().decode(&answer.tokens)?;
                        let seen = seen[tag].get().copied();
                        Ok(Reply { text, tokens: answer.tokens.len(), finish: answer.finish, seen })
                    });
                    finished(tag, value(reply, &questions[tag], context))
                }
            };
            context.progress(progress);
            if context.interrupted() { ControlFlow::Break(()) } else { flow }
        };
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(1);
            scope.spawn(move || {
                for tags in pending.chunks(AHEAD) {
                    let requests: Vec<_> = tags.par_iter().map(|tag| request(*tag)).collect();
                    // Fails once the generation has stopped.
                    if context.interrupted() || sender.send(requests).is_err() {
                        return;
                    }
                }
            });
            let _ = generator.run(receiver.into_iter().flatten(), &mut watch);
        });
        Ok(())
    }
}

impl ItemWork for ResponseNode {
    fn item_version(&self) -> u32 {
        3
    }

    fn items(&self, inputs: &Inputs, pipeline_seed: u64, _files: &dyn FileDigests) -> Result<Vec<Item>, Failure> {
        Ok(self.questions(inputs, pipeline_seed)?.0.iter().map(Question::item).collect())
    }

    fn map(
        &self,
        inputs: &Inputs,
        pending: &[usize],
        context: &dyn Context,
        finished: &mut dyn FnMut(usize, Result<ItemValue, BadItem>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        device::computing(context, || self.respond(inputs, pending, context, finished))
    }

    fn collect(
        &self,
        inputs: &Inputs,
        values: &mut dyn Iterator<Item = (usize, ItemValue)>,
        context: &dyn Context,
    ) -> Result<Output, Failure> {
        let (questions, left_out) = self.questions(inputs, context.pipeline_seed())?;
        left_out.report(context);
        let mut labels = Vec::new();
        let mut responses = Vec::new();
        let mut seen = Vec::new();
        for (index, value) in values {
            let Question { of, prompt } = &questions[index];
            let Pictured { record, label, picture, .. } = of;
            let Reply { text, tokens, finish, seen: as_seen } = of.value(value)?;
            seen.extend(as_seen);
            labels.push(carried(label.clone(), Some(*picture), context));
            responses.push(Response {
                id: record.id.clone(),
                picture: *picture,
                altered: record.altered.clone(),
                prompt: prompt.clone(),
                text,
                tokens,
                finish,
            });
        }
        let mut summary = summary(&responses, &seen);
        summary.line += &left_out.clause();
        let objects = context.objects();
        let name = artifact::RESPONSES.rows_part();
        Ok(Output {
            identity: vec![Part { name: name.to_owned(), digest: objects.put(&write_lines(&responses))? }],
            side: vec![Part { name: LABELS.to_owned(), digest: objects.put(&write_lines(&labels))? }],
            objects: Vec::new(),
            summary,
        })
    }
}

/// A preprocessed picture.
fn read_image(digest: &Digest, processor: &Processor, context: &dyn Context) -> Result<ImageInput, ModelError> {
    let bytes = context.content(digest).map_err(|bad| ModelError::new(bad.cause))?;
    let picture = decode(&bytes).map_err(|error| ModelError::new(error.to_string()))?;
    Ok(processor.image(&picture))
}

/// An item's value, or why it has none.
fn value(reply: Result<Reply, ModelError>, question: &Question, context: &dyn Context) -> Result<ItemValue, BadItem> {
    let bad = |cause: String| question.of.bad(cause, context);
    let reply = reply.map_err(|error| bad(error.message))?;
    let value = serde_json::to_value(reply).map_err(|cause| bad(cause.to_string()))?;
    Ok(ItemValue { value, objects: Vec::new() })
}

/// The summary: counts, mean length, cut responses, image tokens, and the first responses.
fn summary(responses: &[Response], seen: &[Seen]) -> Summary {
    let count = responses.len();
    let mean = responses.iter().map(|response| response.tokens).sum::<usize>() as f64 / count.max(1) as f64;
    let cut = responses.iter().filter(|response| response.finish == Finish::Length).count();
    let mut line = format!("{} of {mean:.1} tokens on average", counted(count, "response"));
    if cut > 0 {
        line += &format!(", {:.1} % cut at `max_new_tokens`", 100.0 * cut as f64 / count as f64);
    }
    let range = |of: fn(&Seen) -> usize| {
        let (low, high) = (seen.iter().map(of).min()?, seen.iter().map(of).max()?);
        Some(if low == high { low.to_string() } else { format!("{low} to {high}") })
    };
    if let (Some(views), Some(tokens)) = (range(|seen| seen.views), range(|seen| seen.image_tokens)) {
        let views = if views == "1" { String::new() } else { format!("{views} views and ") };
        line += &format!("; {views}{tokens} image tokens per picture");
    }
    let sample = |response: &Response| {
        let (file, text) = (response.picture, response.text.clone());
        Block::Sample(Sample { file, name: None, text, fields: Vec::new() })
    };
    Summary { line, blocks: responses.iter().take(SAMPLES).map(sample).collect(), ..Summary::default() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::Ordering;

    use serde_json::Map;

    use super::*;
    use crate::artifact::{Altered, ItemId, Record};
    use crate::model::contract::ImageSettings;
    use crate::model::processor::Processor;
    use crate::model::toy;
    use crate::nodes::harness::{TestContext, read};
    use stic_engine::node::Artifact;

    fn reference(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(path)
    }

    fn node(parameters: &str) -> Result<Box<dyn Node>, Vec<String>> {
        let text = format!("model = 'base'\nmax_new_tokens = 6\n{parameters}");
        read(&DESCRIBE, &text, &["images"], &reference("llava"))
    }

    const PROMPTS: &str = "prompts = ['What is it?', 'Describe it.']";

    /// Puts the pictures of these names into the store.
    fn records(harness: &TestContext, names: &[&str]) -> Vec<Record> {
        let record = |name: &&str| {
            let bytes = std::fs::read(reference(&format!("pictures/{name}.png"))).unwrap();
            let picture = stic_engine::node::Objects::put(&*harness.objects, &bytes).unwrap();
            Record {
                id: ItemId::new(picture),
                picture: Some(picture),
                altered: None,
                conversations: None,
                fields: Map::new(),
            }
        };
        names.iter().map(record).collect()
    }

    fn inputs(harness: &TestContext, records: &[Record], adapter: Option<Artifact>) -> Inputs {
        let images = harness.artifact(artifact::RECORDS, &write_lines(records));
        let ports = BTreeMap::from([("images", vec![images]), ("adapter", adapter.into_iter().collect())]);
        Inputs::new(ports, harness.objects.clone())
    }

    fn work(node: &dyn Node) -> &dyn ItemWork {
        let Work::Items(work) = node.work() else { panic!("the node runs as a whole") };
        work
    }

    type Values = BTreeMap<usize, Result<ItemValue, BadItem>>;

    fn map(harness: &TestContext, node: &dyn Node, inputs: &Inputs, pending: &[usize]) -> Values {
        let mut values = BTreeMap::new();
        let finished = &mut |index: usize, value: Result<ItemValue, BadItem>| {
            assert!(values.insert(index, value).is_none(), "item {index} is finished once");
            ControlFlow::Continue(())
        };
        work(node).map(inputs, pending, harness, finished).unwrap();
        values
    }

    fn responses(harness: &TestContext, node: &dyn Node, inputs: &Inputs, values: Values) -> (Vec<Response>, Summary) {
        let values: Vec<(usize, ItemValue)> =
            values.into_iter().filter_map(|(index, value)| Some((index, value.ok()?))).collect();
        let output = work(node).collect(inputs, &mut values.into_iter(), harness).unwrap();
        let rows = stic_engine::node::Objects::read(&*harness.objects, &output.identity[0].digest).unwrap();
        (artifact::read_lines(&rows).unwrap(), output.summary)
    }

    #[test]
    fn every_picture_gets_a_response_whatever_it_is_run_with() {
        let harness = TestContext::new();
        let node = node(&format!("{PROMPTS}\ntemperature = 1.0")).unwrap();
        let inputs = inputs(&harness, &records(&harness, &["square", "tall", "wide", "odd"]), None);
        let together = map(&harness, &*node, &inputs, &[0, 1, 2, 3]);
        let resumed: Values = [map(&harness, &*node, &inputs, &[3]), map(&harness, &*node, &inputs, &[2, 0, 1])]
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(together, resumed);
        let (rows, summary) = responses(&harness, &*node, &inputs, together);
        assert_eq!(rows.len(), 4);
        assert!(rows.iter().all(|row| (1..=6).contains(&row.tokens) && row.altered.is_none()));
        assert!(rows.iter().any(|row| row.text != rows[0].text));
        assert!(summary.line.starts_with("4 responses of ") && summary.blocks.len() == 3, "{}", summary.line);
        let progress = harness.progress.lock().unwrap();
        assert_eq!(progress.last().map(|last| (last.done, last.total)), Some((3, 3)));
        assert!(progress.iter().any(|step| step.tokens > Some(0)));
    }

    #[test]
    fn the_altered_picture_is_shown_and_named() {
        let harness = TestContext::new();
        let node = node(&format!("{PROMPTS}\ntemperature = 0")).unwrap();
        let mut records = records(&harness, &["square", "tall"]);
        let clean = map(&harness, &*node, &inputs(&harness, &records, None), &[0]);
        let items = |records: &[Record]| work(&*node).items(&inputs(&harness, records, None), 7, &harness).unwrap();
        let before = items(&records);
        let altered = Altered { picture: records[1].picture.unwrap(), operation: "blur".into(), values: Map::new() };
        records[0].altered = Some(altered.clone());
        let after = items(&records);
        assert_eq!(before[0].id, after[0].id);
        assert_ne!(before[0].reads, after[0].reads);
        let inputs = inputs(&harness, &records, None);
        let seen = map(&harness, &*node, &inputs, &[0]);
        assert_ne!(clean, seen);
        let (rows, _) = responses(&harness, &*node, &inputs, seen);
        assert_eq!((rows[0].altered.as_ref(), rows[0].picture), (Some(&altered), records[0].picture.unwrap()));
    }

    #[test]
    fn a_picture_that_cannot_be_decoded_is_left_out_and_reported() {
        let harness = TestContext::new();
        let mut records = records(&harness, &["square", "tall"]);
        let broken = stic_engine::node::Objects::put(&*harness.objects, b"no picture").unwrap();
        records[0].picture = Some(broken);
        let node = node(PROMPTS).unwrap();
        let inputs = inputs(&harness, &records, None);
        let values = map(&harness, &*node, &inputs, &[0, 1]);
        let bad = values[&0].as_ref().unwrap_err();
        assert!(bad.cause.contains("not a picture"), "{}", bad.cause);
        let (rows, summary) = responses(&harness, &*node, &inputs, values);
        assert_eq!(rows.len(), 1);
        assert!(summary.line.starts_with("1 response of "), "{}", summary.line);
    }

    #[test]
    fn an_adapter_changes_what_is_said() {
        let harness = TestContext::new();
        let records = records(&harness, &["square"]);
        let node = read(
            &DESCRIBE,
            &format!("model = 'base'\nmax_new_tokens = 16\ntemperature = 0\n{PROMPTS}"),
            &["images", "adapter"],
            &reference("llava"),
        )
        .unwrap();
        let adapter = adapter::import(&reference("llava/adapter"), &*harness.objects).unwrap().0;
        let adapter = harness.made(artifact::ADAPTER, adapter);
        let plain = map(&harness, &*node, &inputs(&harness, &records, None), &[0]);
        let adapted = map(&harness, &*node, &inputs(&harness, &records, Some(adapter)), &[0]);
        assert_ne!(plain, adapted);
    }

    #[test]
    fn an_interrupt_leaves_the_rest() {
        let harness = TestContext::new();
        harness.stop.store(true, Ordering::Relaxed);
        let node = node(PROMPTS).unwrap();
        let inputs = inputs(&harness, &records(&harness, &["square", "tall"]), None);
        assert!(map(&harness, &*node, &inputs, &[0, 1]).is_empty());
    }

    #[test]
    fn items_that_make_no_sense_are_refused() {
        let harness = TestContext::new();
        let node = node(PROMPTS).unwrap();
        let items = |records: &[Record]| work(&*node).items(&inputs(&harness, records, None), 7, &harness);
        let mut records = records(&harness, &["square", "square"]);
        let error = items(&records).unwrap_err();
        assert!(error.to_string().ends_with("occurs twice in the inputs"), "{error}");
        records[0].picture = None;
        let error = items(&records[..1]).unwrap_err();
        assert!(error.to_string().starts_with("the only record is without a picture: "), "{error}");
        let node = node.check_inputs(&|_| vec![Parameter::selection("pictures", 0usize)]);
        assert_eq!(node[0].message, "none of the records in `inputs.images` has a picture");
    }

    #[test]
    fn what_equals_its_default_names_nothing() {
        let harness = TestContext::new();
        let named = |text: &str| {
            let node = node(text).unwrap();
            let mut names: Vec<String> = node.parameters().into_iter().map(|parameter| parameter.name).collect();
            names.extend(node.sources(&harness).unwrap().into_iter().map(|parameter| parameter.name));
            names
        };
        let plain = named(PROMPTS);
        assert_eq!(plain, ["max_new_tokens", "model", "template", "prompts"]);
        let defaults = "temperature = 0.2\ntop_k = 50\ntop_p = 1\nfraction = [0, 1]\nbatch_size = 3\n\
                        template = 'vicuna_v1'\nimage_mode = 'crop'\non_bad_item = 'fail'";
        assert_eq!(named(&format!("{PROMPTS}\n{defaults}")), plain);
        let others = "temperature = 0.5\ntop_k = 5\ntop_p = 0.9\nfraction = [0, 0.5]\nimage_mode = 'pad'";
        let expected = [
            "temperature",
            "top_k",
            "top_p",
            "max_new_tokens",
            "fraction",
            "model",
            "template",
            "image_mode",
            "prompts",
        ];
        assert_eq!(named(&format!("{PROMPTS}\n{others}")), expected);
        assert_eq!(
            named(&format!("{PROMPTS}\ntemperature = 0\ntop_k = 5")),
            ["temperature", "max_new_tokens", "model", "template", "prompts"]
        );
        let written = |template: &str| node(&format!("{PROMPTS}\n{template}")).unwrap().sources(&harness).unwrap();
        assert_eq!(written(""), written("template = 'vicuna_v1'"));
        assert_ne!(written(""), written("template = 'llava_v1'"));
    }

    #[test]
    fn seeds_matter_where_something_is_drawn() {
        let seeds = |text: &str| node(text).unwrap().seeds();
        assert_eq!(seeds("prompts = ['a']\ntemperature = 0"), SeedUse { pipeline: false, node: false });
        assert_eq!(seeds("prompts = ['a', 'b']\ntemperature = 0"), SeedUse { pipeline: true, node: false });
        assert_eq!(seeds("prompts = ['a']\nfraction = [0, 0.5]"), SeedUse { pipeline: true, node: true });
    }

    #[test]
    fn views_are_counted_only_where_the_tower_reads_tiles() {
        let line = |views: &[usize]| {
            let seen: Vec<Seen> = views.iter().map(|&views| Seen { views, image_tokens: 9 * views }).collect();
            summary(&[], &seen).line
        };
        assert!(line(&[1]).ends_with("; 9 image tokens per picture"), "{}", line(&[1]));
        assert!(line(&[3, 5]).ends_with("; 3 to 5 views and 27 to 45 image tokens per picture"), "{}", line(&[3, 5]));
        let folder = tempfile::tempdir().unwrap();
        toy::checkpoint(folder.path());
        let processor = Processor::read(folder.path(), None, &ImageSettings::new()).unwrap();
        let image = processor.image(&toy::picture(40, 20));
        assert!(image.pieces() > 1);
        assert_eq!(Seen::of(&image).views, 1);
    }

    #[test]
    fn mistakes_are_reported() {
        for (text, expected) in [
            ("temperature = -1", "temperature"),
            ("top_p = 0", "top_p"),
            ("top_p = 1.5", "top_p"),
            ("top_k = -1", "top_k"),
            ("batch_size = 0", "batch_size"),
            ("template = 'vicuna'", "vicuna_v1"),
            ("image_mode = 'squash'", "squash"),
            ("fraction = [0.5, 2]", "fraction"),
        ] {
            let mistakes = node(&format!("{PROMPTS}\n{text}")).err().unwrap_or_default();
            assert!(mistakes.iter().any(|mistake| mistake.contains(expected)), "{text}: {mistakes:?}");
        }
        assert!(node("").is_err());
        let problems =
            node(&format!("{PROMPTS}\ntemplate = 'checkpoint'\nimage_mode = 'anyres'")).unwrap().check_files();
        let named: Vec<&str> = problems.iter().map(|problem| problem.parameter.as_str()).collect();
        assert_eq!(named, ["template", "image_mode"]);
    }
}
