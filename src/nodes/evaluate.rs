//! `evaluate`: runs a model on questions with known answers, and scores its responses.
//!
//! An item is a question and its value the model's response. Scoring happens afterwards over all items, so that a
//! changed scorer or corrected gold answers reuse the responses. With describe-and-respond the model first describes
//! the picture in a separate conversation; one description serves all questions about the picture.

mod answer;
mod compare;
mod outcome;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::answer::{Run, Subject};
use self::outcome::outcome;
use super::device;
use super::labels::absolute;
use super::listing::{FIX_OR_SKIP, look_for_deep_gray};
use super::model::ModelParameters;
use super::{adapter, infuse};
use crate::artifact::{self, ArtifactKind, Finish, ItemId, Label};
use crate::data::picture::{check_beginning, decode};
use crate::data::prompts::DESCRIBE_AND_RESPOND;
use crate::data::source::RowErrors;
use crate::eval::data::{DataError, VOCABULARY};
use crate::eval::suite::{Benchmark, Scoring, Suite, TestItem};
use crate::eval::vqa::{Extract, Scorer};
use crate::model::generate::{Generator, Settings};
use crate::model::sample::Sampling;
use stic_engine::digest::{Digest, Value};
use stic_engine::node::{
    Arity, Artifact, BadItem, BadItems, Compared, Context, Failure, FileDigests, FileProblem, Inputs, Item, ItemValue,
    ItemWork, Labelled, Node, NodeKind, Objects, OnBadItem, Output, Parameter, Port, Progress, SeedUse, Work,
};
use stic_engine::parameters;
use stic_engine::pool::Slots;
use stic_engine::spec::Reader;
use stic_engine::spec::parameter::{
    self, Declaration, Parameters, Setting, choice, filled_string, group, integer, number, path,
};

/// The paper's benchmarks, which need readers, prompts and scorers of their own.
const NOT_YET: [&str; 7] = ["scienceqa", "textvqa", "chartqa", "llava-bench", "mmbench", "mm-vet", "mathvista"];

/// Top-k of sampling at a temperature above 0: transformers' default, which the published scripts use.
const TOP_K: usize = 50;

/// Upper limit of preprocessed pictures in memory, in bytes.
const PREPARED: usize = 256 << 20;

/// Upper limit of pictures per batch: a crash may lose their descriptions.
const PICTURES: usize = 512;

/// The kind.
pub struct EvaluateKind;

parameters! {
    /// A node of the kind.
    struct EvaluateNode {
        /// Shared
        model: ModelParameters = group(),
        /// What to measure: short answers (`vqa`) or the objects in descriptions (`captions`)
        benchmark: Benchmark = benchmark(),
        /// The directory with the pictures and the questions or annotations
        data: PathBuf = path().selection(),
        /// Whether the model first describes the picture, and how the description is added to the question
        describe_and_respond: Form = form().default(Form::Direct),
        /// The prompt for descriptions (Appendix B); for `captions`, the one that is measured
        describe_prompt: String = filled_string("a prompt").default(DESCRIBE_AND_RESPOND.to_owned()),
        /// Sampling temperature; 0 is greedy decoding
        temperature: f64 = number(0.0..).default(0.0),
        /// Maximum length of an answer or a description in tokens (as in the published scripts)
        max_new_tokens: usize = integer(1..=1_000_000).default(1024),
        /// How to extract the answer from a response (`vqa` only)
        extract: Extract =
            choice(Extract::ALL.map(|way| (way.name(), way))).default(Extract::default()).selection(),
        /// How answers are normalized before they are compared (`vqa` only)
        scorer: Scorer =
            choice(Scorer::ALL.map(|scorer| (scorer.name(), scorer))).default(Scorer::default()).selection(),
        /// Shared
        bad_items: BadItems = group(),
    }
}

/// `describe_and_respond`: whether the model describes the picture first, and how the description is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `false`: the question alone.
    Direct,
    /// `true`: as `infuse` writes it, which stage 2 trains.
    Infused,
    /// `"paper"`: one line feed between description and question (Appendix B).
    Paper,
    /// `"published"`: as the published script for MMBench, whose description is made without the picture.
    Published,
}

impl Form {
    /// Its name in tables.
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Infused => "describe and respond",
            Self::Paper => "describe and respond (paper)",
            Self::Published => "describe and respond (published)",
        }
    }

    fn describes(self) -> bool {
        self != Self::Direct
    }

    /// The user's text.
    fn prompt(self, description: Option<&str>, question: &str) -> String {
        let separator = if self == Self::Paper { "\n" } else { infuse::SEPARATOR };
        match description {
            Some(description) => format!("{}{description}{separator}{question}", infuse::PREFIX),
            None => question.to_owned(),
        }
    }
}

impl NodeKind for EvaluateKind {
    fn name(&self) -> &'static str {
        "evaluate"
    }

    fn version(&self) -> u32 {
        3
    }

    fn ports(&self) -> &'static [Port] {
        &[Port { name: "adapter", accepts: &[artifact::ADAPTER], arity: Arity::Optional, items: false }]
    }

    fn output(&self) -> ArtifactKind {
        artifact::SCORES
    }

    fn help(&self) -> &'static str {
        "scores a model on your own data, with 95 % confidence intervals and paired differences"
    }

    fn example(&self) -> &'static str {
        r#"model = "base"
benchmark = "vqa"
data = "questions""#
    }

    fn declared(&self) -> Vec<Declaration> {
        EvaluateNode::declared()
    }

    fn read(&self, table: &mut Reader<'_>, _connected: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        let node = EvaluateNode::read(table);
        table.refuse("judge", "the supported benchmarks, `vqa` and `captions`, need no judge");
        let node = node?;
        if node.benchmark == Benchmark::Captions {
            for key in ["extract", "scorer"] {
                if !table.has(key) {
                    continue;
                }
                let message = format!("`{key}` applies to short answers, but `captions` measures descriptions");
                table.reject(key, message, "not used here", None);
            }
        }
        Some(Box::new(node))
    }
}

fn benchmark() -> Setting<Benchmark> {
    let names = Benchmark::ALL.map(Benchmark::name).to_vec();
    Setting::new(parameter::Form::Choice(names), read_benchmark, |benchmark| Some(benchmark.name().into())).selection()
}

fn form() -> Setting<Form> {
    let forms = vec![parameter::Form::Boolean, parameter::Form::Choice(vec!["paper", "published"])];
    let key_value = |form: &Form| {
        Some(match form {
            Form::Direct => false.into(),
            Form::Infused => true.into(),
            Form::Paper => "paper".into(),
            Form::Published => "published".into(),
        })
    };
    Setting::new(parameter::Form::Any { what: FORMS, forms }, read_form, key_value)
}

fn read_benchmark(table: &mut Reader<'_>, key: &str) -> Option<Benchmark> {
    let names = Benchmark::ALL.map(Benchmark::name);
    let written = table.string(key, "the name of a benchmark")?;
    let found = Benchmark::ALL.into_iter().find(|benchmark| benchmark.name() == written);
    if found.is_none() && NOT_YET.contains(&written.as_str()) {
        let help = "`vqa` and `captions` are supported, with your own questions and annotations";
        let message = format!("the benchmark `{written}` is not supported yet");
        table.reject("benchmark", message, "one of the paper's seven", Some(help.to_owned()));
    } else if found.is_none() {
        table.reject_name("benchmark", "benchmark", &written, &names);
    }
    found
}

/// What `describe_and_respond` may be.
const FORMS: &str = "true, false, \"paper\" or \"published\"";

fn read_form(table: &mut Reader<'_>, key: &str) -> Option<Form> {
    if table.is_string(key) {
        let written: String = table.optional(key)?;
        return match written.as_str() {
            "paper" => Some(Form::Paper),
            "published" => Some(Form::Published),
            _ => {
                table.reject(
                    key,
                    format!("`{key}` cannot be `{written}`"),
                    "not recognized",
                    Some(format!("write {FORMS}")),
                );
                None
            }
        };
    }
    if table.is_boolean(key) {
        return table.optional::<bool>(key).map(|describes| if describes { Form::Infused } else { Form::Direct });
    }
    table.reject_type(key, FORMS);
    None
}

impl Node for EvaluateNode {
    fn parameters(&self) -> Vec<Parameter> {
        let mut list = self.key_fields();
        let unused = !self.describe_and_respond.describes() && self.benchmark != Benchmark::Captions;
        list.retain(|parameter| !(unused && parameter.name == "describe_prompt"));
        list
    }

    fn left_out(&self, parameter: &str) -> Option<String> {
        self.model.left_out(parameter)
    }

    fn seeds(&self) -> SeedUse {
        SeedUse { pipeline: false, node: self.temperature > 0.0 }
    }

    fn resources(&self) -> Option<Slots> {
        Some(device::one(&self.model.device))
    }

    fn check_files(&self) -> Vec<FileProblem> {
        let mut problems = self.model.check_files();
        match Suite::read(self.benchmark, &self.data, &self.describe_prompt) {
            Ok(suite) => problems.extend(self.check_pictures(&suite)),
            Err(error) => {
                let message = error.to_string();
                problems.push(FileProblem { parameter: "data".to_owned(), message, help: self.remedy(&error) });
            }
        }
        problems
    }

    fn remarks(&self) -> Vec<String> {
        let read = Suite::read(self.benchmark, &self.data, &self.describe_prompt);
        read.map(|suite| suite.notes).unwrap_or_default()
    }

    fn sources(&self, digests: &dyn FileDigests) -> Result<Vec<Parameter>, Failure> {
        let Loaded { suite, pictures } = self.load(digests)?;
        let mut list = self.model.sources(digests)?;
        list.push(Parameter::selection("data", suite.identity(&pictures)));
        Ok(list)
    }

    fn on_bad_item(&self) -> OnBadItem {
        self.bad_items.on_bad_item
    }

    fn names(&self, above: &dyn Fn(&str) -> Vec<String>) -> BTreeMap<String, String> {
        let folder = self.data.file_name().unwrap_or(self.data.as_os_str()).to_string_lossy().into_owned();
        let named = [
            ("model", Some(self.model.source.name.clone())),
            ("data", Some(folder)),
            ("adapter", above("adapter").pop()),
        ];
        named.into_iter().filter_map(|(label, name)| Some((label.to_owned(), name?))).collect()
    }

    fn labels(&self, files: &dyn FileDigests) -> Result<Vec<Labelled>, Failure> {
        let loaded = self.load(files)?;
        let items = self.item_list(&loaded);
        let rows = loaded.suite.items.iter().zip(&loaded.pictures).zip(items);
        Ok(rows
            .map(|((test, picture), item)| Labelled {
                id: item.id,
                file: Some(*picture),
                label: Label { name: test.label.clone(), path: Some(absolute(&test.picture)), place: None },
            })
            .collect())
    }

    fn differences(
        &self,
        mine: &Artifact,
        other: &Artifact,
        objects: &dyn Objects,
    ) -> Result<Option<Compared>, Failure> {
        compare::compare(mine, other, objects)
    }

    fn work(&self) -> Work<'_> {
        Work::Items(self)
    }
}

/// The test items, and the digest of each one's picture.
struct Loaded {
    suite: Suite,
    pictures: Vec<Digest>,
}

impl Loaded {
    /// The entry `index`, from a list of the same files.
    fn entry(&self, index: usize) -> Result<(&TestItem, Digest), Failure> {
        let entry = self.suite.items.get(index).zip(self.pictures.get(index).copied());
        entry.ok_or_else(|| Failure::environment("the data changed during the run").help("run it again"))
    }
}

/// The model's response, the value of an item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Reply {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    prompt: String,
    text: String,
    tokens: usize,
    finish: Finish,
}

impl EvaluateNode {
    fn scoring(&self) -> Scoring {
        Scoring { extract: self.extract, scorer: self.scorer }
    }

    fn load(&self, digests: &dyn FileDigests) -> Result<Loaded, Failure> {
        let read = Suite::read(self.benchmark, &self.data, &self.describe_prompt);
        let suite = read.map_err(|error| match error {
            DataError::Unreadable { path, cause } => Failure::io(&path, &cause),
            error => {
                let failure = Failure::node(error.to_string());
                self.remedy(&error).map_or(failure.clone(), |help| failure.help(help))
            }
        })?;
        // Requested so that the engine notices if a file changes during the run.
        for file in &suite.files {
            digests.file(file).map_err(|cause| Failure::io(file, &cause))?;
        }
        let paths: Vec<PathBuf> = suite.items.iter().map(|item| item.picture.clone()).collect();
        let found = digests.files(&paths);
        let pictures = std::iter::zip(&paths, found).map(|(path, digest)| digest.map_err(|it| Failure::io(path, &it)));
        Ok(Loaded { pictures: pictures.collect::<Result<_, _>>()?, suite })
    }

    fn item_list(&self, loaded: &Loaded) -> Vec<Item> {
        let Loaded { suite, pictures } = loaded;
        let mut seen: BTreeMap<Digest, usize> = BTreeMap::new();
        let item = |(item, picture): (&TestItem, &Digest)| {
            let fields: Vec<(String, Value)> = vec![
                ("picture".to_owned(), (*picture).into()),
                ("question".to_owned(), item.question.as_str().into()),
                ("form".to_owned(), self.describe_and_respond.name().into()),
            ];
            let reads = Digest::of_fields("stic evaluate reads v1", &fields);
            let id = match self.benchmark {
                Benchmark::Vqa => Digest::of_fields("stic question v1", &fields[..2].to_vec()),
                Benchmark::Captions => *picture,
            };
            let ordinal = seen.entry(id).or_default();
            *ordinal += 1;
            Item { id: ItemId::repeated(id, *ordinal), reads }
        };
        suite.items.iter().zip(pictures).map(item).collect()
    }

    /// The problem that more files than `on_bad_item` allows are not pictures, judged by their headers.
    fn check_pictures(&self, suite: &Suite) -> Option<FileProblem> {
        let paths: BTreeSet<&Path> = suite.items.iter().map(|item| item.picture.as_path()).collect();
        let paths: Vec<&Path> = paths.into_iter().collect();
        let look = |path: &&Path| check_beginning(path).err().map(|cause| (path.display().to_string(), cause));
        let unlike: Vec<_> = paths.par_iter().filter_map(look).collect();
        let mut faults = RowErrors::default();
        unlike.iter().for_each(|(path, cause)| faults.add(format_args!("`{path}`"), cause));
        let data = format!("`{}`", self.data.display());
        let reported =
            faults.reported(&data, |count| format!("{count} of {} pictures in {data} cannot be read:", paths.len()));
        let allowed = self.bad_items.on_bad_item.allows(unlike.len(), paths.len());
        reported.filter(|_| !allowed).map(|message| FileProblem {
            parameter: "data".to_owned(),
            message,
            help: Some(FIX_OR_SKIP.to_owned()),
        })
    }

    fn remedy(&self, error: &DataError) -> Option<String> {
        let form = match self.benchmark {
            Benchmark::Vqa => r#"`questions.jsonl` has lines like {"image": "a.jpg", "question": "…", "answer": "…"}"#,
            Benchmark::Captions => {
                r#"`annotations.jsonl` has lines like {"image": "a.jpg", "objects": ["dog", "ball"]}"#
            }
        };
        let text = match error {
            // The user named a file in the directory.
            DataError::NoFolder(file) if file.exists() => {
                return Some(format!("name the directory with this file and the pictures; {form}"));
            }
            DataError::NoFolder(_) => "paths are relative to the pipeline file",
            DataError::Entries { pictures: true, .. } => "picture names are relative to the directory of the data",
            DataError::Empty(path) | DataError::Entries { path, .. } if path.ends_with(VOCABULARY) => {
                r#"`vocabulary.json` is a list of objects, each a phrase or a list of synonyms: ["cat", ["dog", "puppy"]]"#
            }
            DataError::NoFile { .. } | DataError::Empty(_) | DataError::Entries { .. } => form,
            DataError::Ambiguous { .. } => "a phrase can only mean one object: remove it from one of the lists",
            DataError::Other { found, .. } => found.help,
            DataError::Unreadable { .. } => return None,
        };
        Some(text.to_owned())
    }
}

impl EvaluateNode {
    /// See [`ItemWork::map`].
    fn answer(
        &self,
        inputs: &Inputs,
        pending: &[usize],
        context: &dyn Context,
        finished: &mut dyn FnMut(usize, Result<ItemValue, BadItem>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let loaded = self.load(context.files())?;
        let items = self.item_list(&loaded);
        let processor = self.model.processor(context)?;
        let model = self.model.load(context, self.model.generates(&processor, None, self.max_new_tokens))?;
        let adapter = adapter::load(inputs, "adapter", &*model)?;
        let settings = Settings {
            sampling: Sampling { temperature: self.temperature, top_k: TOP_K, top_p: 1.0 },
            max_new_tokens: self.max_new_tokens,
            seed: context.seed(),
            batch_size: None,
        };
        let generator = Generator::new(&*model, adapter.as_ref(), processor.tokenizer(), settings);
        let pictures = by_picture(&loaded, pending)?;
        // Descriptions come first, and take the longest.
        let descriptions = if self.describe_and_respond.describes() { pictures.len() } else { 0 };
        let mut run = Run {
            node: self,
            loaded: &loaded,
            items: &items,
            processor: &processor,
            generator: &generator,
            context,
            finished,
            progress: Progress { done: 0, total: descriptions + pending.len(), tokens: Some(0), loss: None },
        };

        let mut group: Vec<Subject> = Vec::new();
        for (picture, questions) in pictures {
            let path = &loaded.suite.items[questions[0]].picture;
            let decoded = context.content(&picture).and_then(|bytes| {
                decode(&bytes).map_err(|error| BadItem { what: path.display().to_string(), cause: error.to_string() })
            });
            match decoded {
                Ok(decoded) => {
                    let image = Arc::new(processor.image(&decoded));
                    group.push(Subject { image, picture, questions });
                }
                Err(bad) => {
                    run.advance(usize::from(self.describe_and_respond.describes()));
                    for index in questions {
                        if run.finish(index, Err(bad.clone())) == ControlFlow::Break(()) {
                            return Ok(());
                        }
                    }
                }
            }
            let waiting: usize = group.iter().map(|subject| subject.image.pixels.bytes().len()).sum();
            if waiting >= PREPARED || group.len() >= PICTURES {
                if run.group(&group) == ControlFlow::Break(()) {
                    return Ok(());
                }
                group.clear();
            }
        }
        let _ = run.group(&group);
        Ok(())
    }
}

impl ItemWork for EvaluateNode {
    fn item_version(&self) -> u32 {
        3
    }

    fn items(&self, _inputs: &Inputs, _pipeline_seed: u64, files: &dyn FileDigests) -> Result<Vec<Item>, Failure> {
        Ok(self.item_list(&self.load(files)?))
    }

    fn map(
        &self,
        inputs: &Inputs,
        pending: &[usize],
        context: &dyn Context,
        finished: &mut dyn FnMut(usize, Result<ItemValue, BadItem>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        device::computing(context, || self.answer(inputs, pending, context, finished))
    }

    fn collect(
        &self,
        _inputs: &Inputs,
        values: &mut dyn Iterator<Item = (usize, ItemValue)>,
        context: &dyn Context,
    ) -> Result<Output, Failure> {
        let loaded = self.load(context.files())?;
        let pictures = loaded.suite.items.iter().map(|item| item.picture.as_path());
        look_for_deep_gray(pictures).iter().for_each(|note| context.note(note));
        outcome(self, &loaded, &self.item_list(&loaded), values, context.objects())
    }
}

/// The pending items grouped by picture, in the order of each picture's first question, so that it is preprocessed and
/// described once.
fn by_picture(loaded: &Loaded, pending: &[usize]) -> Result<Vec<(Digest, Vec<usize>)>, Failure> {
    let mut pictures: Vec<(Digest, Vec<usize>)> = Vec::new();
    let mut places: BTreeMap<Digest, usize> = BTreeMap::new();
    for index in pending {
        let (_, picture) = loaded.entry(*index)?;
        let place = *places.entry(picture).or_insert(pictures.len());
        if place == pictures.len() {
            pictures.push((picture, Vec::new()));
        }
        pictures[place].1.push(*index);
    }
    Ok(pictures)
}
