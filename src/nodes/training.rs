//! What `dpo` and `sft` share: the training parameters, and a training as a node's work.
//!
//! The kinds say what is trained on and what is minimised; how steps are taken is [`crate::train`]'s.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{self, Excluded, Unbounded};

use burn::tensor::Tensor;
use image::RgbImage;
use rayon::prelude::*;

use super::adapter::{self, Origin, shape};
use super::listing::allows;
use super::{curve, model};
use crate::artifact::{ItemId, write_lines};
use crate::data::picture::decode;
use crate::device::Backend;
use crate::digest::{Digest, Value};
use crate::model::ModelError;
use crate::model::llava::{Config, ImageMode, Llava, TextConfig};
use crate::model::lora::{Lora, Target};
use crate::model::picture::{Processor, prepare, row_count};
use crate::model::sequence::{Scribe, Sequence};
use crate::model::template::TEMPLATES;
use crate::node::{
    Context, Failure, FileDigests, FileProblem, Inputs, OnBadItem, Output, Parameter, Progress, Summary, by_default,
};
use crate::spec::{ModelSource, Reader};
use crate::train::batch::{filled, padded_length};
use crate::train::log::{Line, Preference};
use crate::train::loss::dpo::Dpo;
use crate::train::optimizer::AdamWConfig;
use crate::train::schedule::Schedule;
use crate::train::training::{Example, Objective, Outcome, Settings, Step, Training};

/// The parameters that `dpo` and `sft` have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingParameters {
    /// The base model.
    pub model: ModelSource,
    /// The adapter.
    pub lora: LoraParameters,
    /// How steps are taken. Dropout is the adapter's; the seed is the node's and not set here.
    pub settings: Settings,
    /// Examples that go through the model together; `None`: as many as fit.
    pub micro_batch_size: Option<usize>,
    /// The longest sequence in tokens, a picture being one.
    pub max_length: usize,
    /// After how many steps a checkpoint is written.
    pub checkpoint_every: usize,
    /// The conversation template; `None`: the model family's.
    pub template: Option<&'static str>,
    /// How pictures are prepared; `None`: as the checkpoint says.
    pub image_mode: Option<ImageMode>,
    /// What pictures that cannot be decoded do.
    pub on_bad_item: OnBadItem,
}

/// `lora`: what is written. With an input adapter, what is not written comes from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoraParameters {
    /// Rows of A.
    pub rank: Option<usize>,
    /// Scale times rank.
    pub alpha: Option<f64>,
    /// What is adapted, in the order of a layer.
    pub targets: Option<Vec<Target>>,
    /// The share of A's inputs that drops out.
    pub dropout: f64,
    /// Whether there is an input adapter, so that nothing but dropout has a default.
    pub continues: bool,
}

/// The paper's adapter (Table 6): rank 128, alpha 256, on all linear layers of the language model.
pub const RANK: usize = 128;
/// See [`RANK`].
pub const ALPHA: f64 = 256.0;

/// The longest sequence unless the file says otherwise: what LLaVA's own fine-tuning uses.
const MAX_LENGTH: usize = 2048;
const CHECKPOINT_EVERY: usize = 100;
const WARMUP_RATIO: f64 = 0.03;
const MAX_GRAD_NORM: f64 = 1.0;
/// Numbers above zero.
pub const POSITIVE: (Bound<f64>, Bound<f64>) = (Excluded(0.0), Unbounded);

impl TrainingParameters {
    /// Reads the parameters out of `table`. `adapter` says whether an input adapter is connected.
    pub fn read(table: &mut Reader<'_>, adapter: bool) -> Option<Self> {
        let model = table.model("model");
        let lora = LoraParameters::read(table, adapter);
        let learning_rate = table.required_number("learning_rate", POSITIVE);
        let batch_size = table.required_integer("batch_size", 1..=1_000_000);
        let betas = read_betas(table);
        let settings = Settings {
            learning_rate: learning_rate.unwrap_or_default(),
            schedule: table.choice("schedule", &Schedule::NAMES, Schedule::default()),
            warmup_ratio: table.number("warmup_ratio", WARMUP_RATIO, 0.0..=1.0),
            epochs: table.integer("epochs", 1, 1..=100_000) as usize,
            batch_size: batch_size.unwrap_or(1) as usize,
            max_grad_norm: table.number("max_grad_norm", MAX_GRAD_NORM, 0.0..),
            adamw: AdamWConfig {
                betas,
                epsilon: table.number("adam_epsilon", AdamWConfig::default().epsilon, POSITIVE),
                weight_decay: table.number("weight_decay", 0.0, 0.0..),
            },
            shuffle: table.optional("shuffle").unwrap_or(true),
            dropout: lora.dropout,
            seed: 0,
        };
        let templates = TEMPLATES.map(|name| (name, name));
        let modes = ImageMode::ALL.map(|mode| (mode.name(), mode));
        let micro_batch_size = table.optional_integer("micro_batch_size", 1..=1_000_000);
        let max_length = table.integer("max_length", MAX_LENGTH as u64, 1..=10_000_000) as usize;
        let checkpoint_every = table.integer("checkpoint_every", CHECKPOINT_EVERY as u64, 1..) as usize;
        let template = table.optional_choice("template", &templates);
        let image_mode = table.optional_choice("image_mode", &modes);
        let on_bad_item = OnBadItem::read(table);
        learning_rate?;
        batch_size?;
        Some(Self {
            model: model?,
            lora,
            settings,
            micro_batch_size: micro_batch_size.map(|size| size as usize),
            max_length,
            checkpoint_every,
            template,
            image_mode,
            on_bad_item,
        })
    }

    /// What names the result: all but the defaults and what only says how to run (`micro_batch_size`,
    /// `checkpoint_every`, `on_bad_item`).
    pub fn parameters(&self) -> Vec<Parameter> {
        let Settings {
            learning_rate, schedule, warmup_ratio, epochs, batch_size, max_grad_norm, adamw, shuffle, ..
        } = self.settings;
        let defaults = AdamWConfig::default();
        let mut list =
            vec![Parameter::function("learning_rate", learning_rate), Parameter::function("batch_size", batch_size)];
        let mut unless = |default: bool, name: &str, value: Value| {
            if !default {
                list.push(Parameter::function(name, value));
            }
        };
        unless(schedule == Schedule::default(), "schedule", schedule.name().into());
        unless(warmup_ratio == WARMUP_RATIO, "warmup_ratio", warmup_ratio.into());
        unless(epochs == 1, "epochs", epochs.into());
        unless(max_grad_norm == MAX_GRAD_NORM, "max_grad_norm", max_grad_norm.into());
        unless(adamw.betas == defaults.betas, "adam_betas", adamw.betas.to_vec().into());
        unless(adamw.epsilon == defaults.epsilon, "adam_epsilon", adamw.epsilon.into());
        unless(adamw.weight_decay == defaults.weight_decay, "weight_decay", adamw.weight_decay.into());
        unless(shuffle, "shuffle", shuffle.into());
        unless(self.max_length == MAX_LENGTH, "max_length", self.max_length.into());
        list.extend(self.lora.parameters());
        list
    }
}

impl TrainingParameters {
    /// What it means that `parameter` is not among [`TrainingParameters::parameters`].
    pub fn left_out(&self, parameter: &str) -> Option<String> {
        let defaults = AdamWConfig::default();
        match parameter {
            "schedule" => by_default(Schedule::default().name()),
            "warmup_ratio" => by_default(WARMUP_RATIO),
            "epochs" => by_default(1usize),
            "max_grad_norm" => by_default(MAX_GRAD_NORM),
            "adam_betas" => by_default(defaults.betas.to_vec()),
            "adam_epsilon" => by_default(defaults.epsilon),
            "weight_decay" => by_default(defaults.weight_decay),
            "shuffle" => by_default(true),
            "max_length" => by_default(MAX_LENGTH),
            "image_mode" => model::default_mode(&self.model),
            "lora.dropout" => by_default(0.0),
            _ if self.lora.continues && parameter.starts_with("lora.") => Some("the input adapter's".to_owned()),
            _ => {
                let default = shape(RANK, ALPHA, &Target::ALL).into_iter().find(|default| default.name == parameter);
                default.and_then(|default| by_default(default.value))
            }
        }
    }
}

impl LoraParameters {
    fn read(table: &mut Reader<'_>, continues: bool) -> Self {
        let Some(mut table) = table.table("lora") else { return Self { continues, ..Self::default() } };
        let rank = table.optional_integer("rank", 1..=65_536);
        let alpha = table.optional_number("alpha", POSITIVE);
        let dropout = table.number("dropout", 0.0, 0.0..1.0);
        let written: Option<Vec<String>> = table.optional("targets");
        let mut targets = Vec::new();
        for name in written.iter().flatten() {
            match Target::ALL.into_iter().find(|target| target.name() == name) {
                Some(target) if targets.contains(&target) => table.reject(
                    "targets",
                    format!("`targets` names `{name}` twice"),
                    "a module is adapted once",
                    Some("remove one of the two".to_owned()),
                ),
                Some(target) => targets.push(target),
                None => table.reject_name("targets", "target", name, &Target::ALL.map(Target::name)),
            }
        }
        if written.as_ref().is_some_and(Vec::is_empty) {
            table.reject("targets", "`targets` is empty", "nothing would be trained", None);
        }
        targets.sort_unstable();
        Self { rank: rank.map(|rank| rank as usize), alpha, targets: written.map(|_| targets), dropout, continues }
    }

    /// What is written of an adapter's shape.
    fn written(&self) -> Vec<Parameter> {
        let whole = shape(
            self.rank.unwrap_or(RANK),
            self.alpha.unwrap_or(ALPHA),
            self.targets.as_deref().unwrap_or(&Target::ALL),
        );
        let is_written = [self.rank.is_some(), self.alpha.is_some(), self.targets.is_some()];
        whole.into_iter().zip(is_written).filter_map(|(parameter, written)| written.then_some(parameter)).collect()
    }

    /// The shape of the adapter that training ends with, where that is known: `input` is what is known of the input's.
    fn promises(&self, input: Vec<Parameter>) -> Vec<Parameter> {
        if self.continues {
            return input;
        }
        let rank = self.rank.unwrap_or(RANK);
        shape(rank, self.alpha.unwrap_or(ALPHA), self.targets.as_deref().unwrap_or(&Target::ALL))
    }

    /// What is written and is not so in the adapter that comes in.
    fn contradictions(&self, input: &[Parameter]) -> Vec<FileProblem> {
        let differs = |written: &Parameter| input.iter().find(|known| known.name == written.name && *known != written);
        let written = self.written();
        let found = written.iter().filter_map(|written| Some((written, differs(written)?)));
        found.map(|(written, known)| contradiction(&written.name, &written.value, &known.value)).collect()
    }

    fn parameters(&self) -> Vec<Parameter> {
        // With an input adapter a written value only repeats what comes with it, which is part of the key as its content.
        let mut list = if self.continues { Vec::new() } else { self.written() };
        let defaults = shape(RANK, ALPHA, &Target::ALL);
        list.retain(|parameter| !defaults.contains(parameter));
        if self.dropout != 0.0 {
            list.push(Parameter::function("lora.dropout", self.dropout));
        }
        list
    }
}

fn contradiction(name: &str, written: &Value, found: &Value) -> FileProblem {
    let key = name.rsplit('.').next().unwrap_or(name);
    FileProblem {
        parameter: name.to_owned(),
        message: format!("`{name}` is {written}, but the input adapter's is {found}"),
        help: Some(format!("leave `{key}` out: training goes on with the adapter as it is")),
    }
}

fn read_betas(table: &mut Reader<'_>) -> [f64; 2] {
    let default = AdamWConfig::default().betas;
    let Some(betas) = table.optional::<[f64; 2]>("adam_betas") else { return default };
    if betas.iter().all(|beta| (0.0..1.0).contains(beta)) {
        return betas;
    }
    table.reject("adam_betas", "`adam_betas` is out of range", "expected two numbers, at least 0 and below 1", None);
    default
}

/// What is trained on, in the order of the inputs.
pub struct Set {
    max_length: usize,
    examples: Vec<Example>,
    pictures: Vec<Digest>,
    numbers: HashMap<Digest, usize>,
    cut: usize,
}

impl Set {
    /// An empty set of sequences of at most `max_length` tokens.
    fn new(max_length: usize) -> Self {
        Self { max_length, examples: Vec::new(), pictures: Vec::new(), numbers: HashMap::new(), cut: 0 }
    }

    /// Adds what belongs to one item.
    ///
    /// # Errors
    /// When a sequence could not be made, or cutting it would leave nothing of its answer.
    pub fn add<const N: usize>(
        &mut self,
        id: &ItemId,
        picture: Option<Digest>,
        sequences: [Result<Sequence, ModelError>; N],
    ) -> Result<(), Failure> {
        let name = || format!("item {}", id.short());
        let named = |error: ModelError| ModelError { message: format!("{}: {}", name(), error.message), ..error };
        let sequences: Vec<Sequence> = sequences
            .into_iter()
            .map(|sequence| sequence.and_then(|sequence| sequence.cut_to(self.max_length)).map_err(named))
            .collect::<Result<_, _>>()?;
        self.cut += sequences.iter().filter(|sequence| sequence.cut > 0).count();
        let picture = picture.map(|digest| {
            *self.numbers.entry(digest).or_insert_with(|| {
                self.pictures.push(digest);
                self.pictures.len() - 1
            })
        });
        self.examples.push(Example { name: name(), sequences, picture });
        Ok(())
    }

    /// Leaves out the examples whose pictures cannot be decoded, and says so; tells how many. Known before the first
    /// step, since steps and their learning rates depend on the number of examples.
    ///
    /// # Errors
    /// When there are more than `on_bad_item` allows, or a picture cannot be had.
    fn leave_out_undecodable(&mut self, on_bad_item: OnBadItem, context: &dyn Context) -> Result<usize, Failure> {
        let look = |(number, digest): (usize, &Digest)| {
            if context.interrupted() {
                return Err(Failure::Interrupted);
            }
            Ok(decoded(digest, context)?.err().map(|cause| (number, cause)))
        };
        let looked: Result<Vec<_>, Failure> = self.pictures.par_iter().enumerate().map(look).collect();
        let bad: BTreeMap<usize, String> = looked?.into_iter().flatten().collect();
        let Some(first) = bad.values().next() else { return Ok(0) };
        let all = self.examples.len();
        self.examples.retain(|example| example.picture.is_none_or(|picture| !bad.contains_key(&picture)));
        let count = all - self.examples.len();
        if !allows(on_bad_item, count, all) {
            let message = format!("the pictures of {count} of {all} examples cannot be decoded, first {first}");
            return Err(Failure::node(message).help(match on_bad_item {
                OnBadItem::Fail => "put them right or take them out, or leave out `on_bad_item = \"fail\"`",
                OnBadItem::Skip { .. } => "put them right or take them out: up to 1 % are left out",
            }));
        }
        context.note(&format!("left out {count} of {all} examples whose pictures cannot be decoded, first {first}"));
        Ok(count)
    }
}

/// What a kind minimises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Cross-entropy on answers.
    Sft,
    /// STIC's regularised DPO loss.
    Dpo {
        /// The loss.
        loss: Dpo,
        /// Whether the reference is the base model with the input adapter, not without.
        input_is_reference: bool,
    },
}

impl TrainingParameters {
    /// Whether the base model's folder is sound and fits the parameters.
    pub fn check_files(&self) -> Vec<FileProblem> {
        let mut problems = model::check_files(&self.model);
        if problems.is_empty() {
            problems = model::check_manner(&self.model, self.template, self.image_mode);
        }
        problems
    }

    /// What is known of the adapter that comes out.
    pub fn promises(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<Parameter> {
        self.lora.promises(above("adapter"))
    }

    /// Whether `lora` says of the input adapter what is so.
    pub fn check_inputs(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<FileProblem> {
        if self.lora.continues { self.lora.contradictions(&above("adapter")) } else { Vec::new() }
    }

    /// The base model's digest, the template, and how pictures are prepared: where the file does not say, as the model
    /// does.
    ///
    /// # Errors
    /// When a file of the model cannot be read.
    pub fn sources(&self, digests: &dyn FileDigests) -> Result<Vec<Parameter>, Failure> {
        let mut list = vec![Parameter::function("model", model::digest(&self.model, digests)?)];
        list.extend(model::manner(&self.model, self.template, self.image_mode)?);
        Ok(list)
    }

    /// Trains towards `goal` on what `fill` puts into a set.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn run(
        &self,
        inputs: &Inputs,
        context: &dyn Context,
        goal: Goal,
        fill: &dyn Fn(&Scribe, &mut Set) -> Result<(), Failure>,
    ) -> Result<Output, Failure> {
        let config = Config::read(&self.model.path)?;
        let processor = Processor::read(&self.model.path, &config)?;
        let mode = self.image_mode.unwrap_or(processor.mode);
        let scribe = Scribe::read(
            &self.model.path,
            config.image_token,
            config.text.vocabulary,
            Some(model::template_name(&self.model, self.template)?),
        )?;
        let mut set = Set::new(self.max_length);
        fill(&scribe, &mut set)?;
        if set.examples.is_empty() {
            return Err(Failure::node("there is nothing to train on: the inputs have no items"));
        }
        let left_out = set.leave_out_undecodable(self.on_bad_item, context)?;
        if set.cut > 0 {
            context.note(&format!("{} answers were cut to `max_length` {}", set.cut, self.max_length));
        }

        let model = model::load(&self.model, context)?;
        let input = adapter::load(inputs, "adapter", &model)?;
        let start = self.lora.start(input.as_ref(), &model, context.seed())?;
        let objective = match goal {
            Goal::Sft => Objective::Sft,
            Goal::Dpo { loss, input_is_reference } => {
                Objective::Dpo { loss, reference: input.as_ref().filter(|_| input_is_reference) }
            }
        };
        let longest = set.longest(&config, mode, &processor);
        let training = Training {
            model: &model,
            objective,
            settings: Settings { seed: context.seed(), ..self.settings },
            examples: &set.examples,
            micro_batch_size: self.micro_batch_size.unwrap_or_else(|| {
                (budget(context.device().backend) / memory(&model, longest)).clamp(1, self.settings.batch_size)
            }),
            checkpoint_every: self.checkpoint_every,
            scratch: context.scratch(),
        };
        let mut pictures = |picture: usize| rows(&model, &set.pictures[picture], mode, &processor, context);
        let mut began = false;
        let mut watch = |Step { line, total, tokens }: Step<'_>| {
            if !began && line.step > 1 {
                context.note(&format!("goes on after step {} of {total}", line.step - 1));
            }
            began = true;
            context.progress(Progress { done: line.step, total, tokens: Some(tokens), loss: Some(line.loss) });
            !context.interrupted()
        };
        match training.run(start, &mut pictures, &mut watch)? {
            Outcome::Stopped => Err(Failure::Interrupted),
            Outcome::Finished(lora, log) => {
                let objects = context.objects();
                let origin = Origin { base_model: Some(self.model.source.clone()), dropout: self.settings.dropout };
                Ok(Output {
                    identity: adapter::write(&lora, objects)?,
                    side: vec![
                        adapter::part(adapter::LOG, &write_lines(&log), objects)?,
                        adapter::write_origin(&origin, objects)?,
                    ],
                    objects: Vec::new(),
                    summary: summary(&log, set.examples.len(), left_out),
                })
            }
        }
    }
}

impl LoraParameters {
    /// The adapter that training starts from: the input's, or a new one.
    fn start(&self, input: Option<&Lora>, model: &Llava, seed: u64) -> Result<Lora, Failure> {
        let Some(input) = input else {
            let targets = self.targets.clone().unwrap_or_else(|| Target::ALL.to_vec());
            let (rank, alpha) = (self.rank.unwrap_or(RANK), self.alpha.unwrap_or(ALPHA));
            return Ok(Lora::initial(&model.config.text, rank, alpha, &targets, seed, &model.device()));
        };
        match self.contradictions(&shape(input.rank, input.alpha, &input.targets)).into_iter().next() {
            Some(FileProblem { message, help, .. }) => Err(Failure::Node { message, help }),
            None => Ok(input.clone()),
        }
    }
}

impl Set {
    /// The most positions that an example takes, whatever the sides of its picture.
    fn longest(&self, config: &Config, mode: ImageMode, processor: &Processor) -> usize {
        let sides = config.grid_pinpoints.iter().map(|[first, second]| (*first, *second));
        let rows = sides.chain([(1, 1)]).map(|(width, height)| row_count(width, height, mode, processor)).max();
        let rows = rows.unwrap_or_default();
        self.examples.iter().map(|example| filled(&example.sequences, rows)).max().unwrap_or_default()
    }
}

/// About how many bytes an example of `positions` needs: what enters every layer, one layer's graph with its square
/// of scores, and logits for half of the positions.
fn memory(model: &Llava, positions: usize) -> usize {
    let TextConfig { vocabulary, hidden, intermediate, layers, heads, .. } = model.config.text;
    let length = padded_length(positions);
    let kept = layers * length * hidden * model.dtype().size();
    let graph = length * (16 * hidden + 8 * intermediate) * 4 + heads * length * length * 16;
    kept + graph + length / 2 * vocabulary * 12
}

/// How much of a device's memory micro-batches may take, in bytes. Beside a 7B model in 16 bits on a GPU of 48 GB.
fn budget(backend: Backend) -> usize {
    if backend == Backend::Cpu { 2 << 30 } else { 24 << 30 }
}

/// The rows of a picture in the decoder's space.
fn rows(
    model: &Llava,
    digest: &Digest,
    mode: ImageMode,
    processor: &Processor,
    context: &dyn Context,
) -> Result<Tensor<2>, ModelError> {
    let picture = decoded(digest, context)
        .map_err(|failure| ModelError { message: failure.to_string(), help: None, environment: true })?
        .map_err(ModelError::new)?;
    let prepared = prepare(&picture, mode, processor);
    Ok(model.rows(model.patches(&prepared), &prepared))
}

/// A picture, or what is told of it when it cannot be decoded.
///
/// # Errors
/// When it cannot be had.
fn decoded(digest: &Digest, context: &dyn Context) -> Result<Result<RgbImage, String>, Failure> {
    let bytes = context.picture(digest).map_err(|bad| Failure::environment(format!("{}: {}", bad.what, bad.cause)))?;
    Ok(decode(&bytes).map_err(|cause| {
        let path = context.picture_path(digest);
        let name = path.map_or_else(|| digest.short(), |path| path.display().to_string());
        format!("`{name}`: {cause}")
    }))
}

/// What people are shown of a training: where it began and ended, and its course.
fn summary(log: &[Line], examples: usize, left_out: usize) -> Summary {
    let (Some(first), Some(last)) = (log.first(), log.last()) else { return Summary::default() };
    let loss: Vec<f64> = log.iter().map(|line| line.loss).collect();
    let pairs: Vec<Preference> = log.iter().filter_map(|line| line.preference).collect();
    let tokens: u64 = log.iter().map(|line| line.tokens).sum();
    let seconds: f64 = log.iter().map(|line| line.seconds).sum();
    let mut line = format!("{} steps on {examples} examples: loss {:.3} → {:.3}", log.len(), first.loss, last.loss);
    let mut samples = vec![curve::row("loss", &loss, POINTS)];
    if let (Some(first), Some(last)) = (pairs.first(), pairs.last()) {
        line += &format!(
            ", margin {:.2} → {:.2}, accuracy {:.2} → {:.2}",
            first.margin, last.margin, first.accuracy, last.accuracy
        );
        let course = |value: fn(&Preference) -> f64| pairs.iter().map(value).collect::<Vec<_>>();
        samples.push(curve::row("margin", &course(|pair| pair.margin), POINTS));
        samples.push(curve::row("accuracy", &course(|pair| pair.accuracy), POINTS));
    }
    line += &format!(", {:.0} tokens/s", tokens as f64 / seconds.max(1e-9));
    if left_out > 0 {
        line += &format!("; {left_out} left out, whose pictures cannot be decoded");
    }
    Summary { line, samples, ..Summary::default() }
}

/// How many points a course is shown in.
const POINTS: usize = 10;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::artifact::{
        ArtifactKind, Conversation, Origin as PairOrigin, OriginKind, Pair, Speaker, Turn, read_lines,
    };
    use crate::node::{Artifact, Node, NodeKind, Objects};
    use crate::nodes::trial::{Trial, read};
    use crate::nodes::{DpoKind, SftKind};

    const REQUIRED: &str = "model = 'base'\nlearning_rate = 1e-3\nbatch_size = 2\n";

    fn reference(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)
    }

    fn node(kind: &dyn NodeKind, text: &str, connected: &[&str]) -> Result<Box<dyn Node>, Vec<String>> {
        read(kind, &format!("{REQUIRED}{text}"), connected, &reference("llava"))
    }

    fn names(node: &dyn Node) -> Vec<String> {
        node.parameters().into_iter().map(|parameter| parameter.name).collect()
    }

    #[test]
    fn defaults_and_execution_are_not_part_of_the_key() {
        let defaults = "schedule = 'cosine'\nwarmup_ratio = 0.03\nepochs = 1\nmax_length = 2048\nmax_grad_norm = 1.0\n\
                        weight_decay = 0\nadam_betas = [0.9, 0.999]\nadam_epsilon = 1e-8\nshuffle = true\n\
                        micro_batch_size = 1\ncheckpoint_every = 7\nbeta = 0.1\nchosen_weight = 0.0009765625\n\
                        reference = 'base'\nrejected = 'text'\nloss = ['sigmoid']\n\
                        lora = { rank = 128, alpha = 256, dropout = 0, targets = ['down_proj', 'up_proj', 'gate_proj', \
                        'o_proj', 'v_proj', 'k_proj', 'q_proj'] }";
        let required = ["learning_rate", "batch_size"];
        assert_eq!(names(&*node(&DpoKind, "", &[]).unwrap()), required);
        assert_eq!(names(&*node(&DpoKind, defaults, &[]).unwrap()), required);
        let other =
            "epochs = 2\nbeta = 0.2\nlora = { rank = 4, targets = ['v_proj'] }\nshuffle = false\nmax_length = 9";
        let found = names(&*node(&DpoKind, other, &[]).unwrap());
        assert_eq!(found[2..], ["epochs", "shuffle", "max_length", "lora.rank", "lora.targets", "beta"]);
    }

    #[test]
    fn what_comes_with_an_input_adapter_is_no_part_of_the_key_of_its_own() {
        let written = "lora = { rank = 4, alpha = 8, targets = ['q_proj'], dropout = 0.1 }";
        let with = |text: &str, connected: &[&str]| names(&*node(&SftKind, text, connected).unwrap());
        assert_eq!(with(written, &["adapter"])[2..], ["lora.dropout"]);
        assert_eq!(with(written, &[])[2..], ["lora.rank", "lora.alpha", "lora.targets", "lora.dropout"]);
        // And the shape goes through to whoever trains on.
        let promised = |text: &str, connected: &[&str]| {
            let above = |_: &str| shape(2, 3.0, &[Target::V]);
            node(&SftKind, text, connected).unwrap().promises(&above)
        };
        assert_eq!(promised(written, &[]), shape(4, 8.0, &[Target::Q]));
        assert_eq!(promised("", &["adapter"]), shape(2, 3.0, &[Target::V]));
    }

    #[test]
    fn the_model_and_the_template_are_part_of_the_key() {
        let sources = |text: &str| node(&SftKind, text, &[]).unwrap().sources(&Trial::new()).unwrap();
        let by_default = sources("");
        assert_eq!(by_default.iter().map(|source| source.name.as_str()).collect::<Vec<_>>(), ["model", "template"]);
        assert_eq!(by_default, sources("template = 'vicuna_v1'"));
        assert_ne!(by_default, sources("template = 'llava_v1'"));
    }

    #[test]
    fn values_out_of_range_are_refused_where_they_stand() {
        for (text, expected) in [
            ("lora = { rank = 0 }", "rank"),
            ("lora = { dropout = 1.0 }", "dropout"),
            ("lora = { alpha = -1 }", "alpha"),
            ("lora = { targets = [] }", "nothing would be trained"),
            ("lora = { targets = ['q'] }", "unknown target `q`"),
            ("lora = { targets = ['q_proj', 'q_proj'] }", "names `q_proj` twice"),
            ("lora = { rnak = 8 }", "rnak"),
            ("epochs = 0", "epochs"),
            ("warmup_ratio = 1.5", "warmup_ratio"),
            ("adam_betas = [0.9, 1.0]", "adam_betas"),
            ("adam_epsilon = 0", "adam_epsilon"),
            ("max_grad_norm = -1", "max_grad_norm"),
            ("weight_decay = nan", "weight_decay"),
            ("schedule = 'cosin'", "cosin"),
            ("template = 'vicuna'", "vicuna"),
            ("image_mode = 'squash'", "squash"),
            ("micro_batch_size = 0", "micro_batch_size"),
            ("checkpoint_every = 0", "checkpoint_every"),
            ("max_length = 'long'", "max_length"),
            ("beta = 0", "beta"),
            ("chosen_weight = -0.1", "chosen_weight"),
            ("rejected = ['image']", "`rejected` can only be `text`"),
            ("loss = 'ipo'", "`loss` cannot be `ipo`"),
            ("loss = []", "`loss` can only be `sigmoid`"),
            ("reference = 'input'", "needs an input adapter"),
        ] {
            let Err(mistakes) = node(&DpoKind, text, &[]) else { panic!("{text} was accepted") };
            assert_eq!(mistakes.len(), 1, "{text}: {mistakes:?}");
            assert!(mistakes[0].contains(expected), "{text}: {mistakes:?}");
        }
        assert!(node(&DpoKind, "reference = 'input'", &["adapter"]).is_ok());
    }

    #[test]
    fn what_is_missing_is_told_all_at_once() {
        let Err(mistakes) = read(&SftKind, "", &[], Path::new("m")) else { panic!("accepted") };
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        let Err(mistakes) = node(&SftKind, "learning_rte = 1e-4", &[]) else { panic!("accepted") };
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    }

    fn trial() -> (Trial, Vec<Digest>) {
        let trial = Trial::new();
        let pictures = ["square", "tall", "wide"].map(|name| {
            let bytes = std::fs::read(reference("pictures").join(format!("{name}.png"))).unwrap();
            trial.shelf.put(&bytes).unwrap()
        });
        (trial, pictures.to_vec())
    }

    fn pairs(pictures: &[Digest]) -> Vec<Pair> {
        let pair = |(index, picture): (usize, &Digest)| Pair {
            id: ItemId::new(*picture),
            picture: *picture,
            instruction: "Describe the picture.".to_owned(),
            chosen: format!("A red circle is left of {index} squares."),
            rejected: "A green ring.".to_owned(),
            origin: PairOrigin { kind: OriginKind::Misled, prompt: "Imagine.".to_owned(), altered: None },
        };
        pictures.iter().enumerate().map(pair).collect()
    }

    fn connect(port: &'static str, artifact: Artifact) -> BTreeMap<&'static str, Vec<Artifact>> {
        BTreeMap::from([(port, vec![artifact])])
    }

    #[test]
    fn dpo_makes_an_adapter_a_log_and_a_course() {
        let (trial, pictures) = trial();
        let rows = trial.artifact(ArtifactKind::Pairs, &write_lines(&pairs(&pictures)));
        let text = "lora = { rank = 2, alpha = 4 }\nepochs = 6\nlearning_rate = 1e-2\n";
        let text = format!("model = 'base'\nbatch_size = 2\n{text}");
        let node = read(&DpoKind, &text, &[], &reference("llava")).unwrap();
        let output = trial.run(&*node, connect("pairs", rows.clone())).unwrap();
        let log: Vec<Line> = read_lines(&trial.shelf.read(&output.side[0].digest).unwrap()).unwrap();
        assert_eq!(log.len(), 12);
        let margin = |line: &Line| line.preference.unwrap().margin;
        assert!(margin(&log[0]) == 0.0 && margin(&log[11]) > margin(&log[4]), "{log:?}");
        assert!(output.summary.line.starts_with("12 steps on 3 examples: loss "), "{}", output.summary.line);
        assert!(output.summary.samples[1].starts_with("margin "));
        assert_eq!(trial.progress.lock().unwrap().last().unwrap().done, 12);

        // Interrupted and run again: the same identity.
        let parts = Trial { shelf: trial.shelf.clone(), stop_after: Some(5), ..Trial::new() };
        assert_eq!(parts.run(&*node, connect("pairs", rows.clone())).unwrap_err(), Failure::Interrupted);
        let parts = Trial { stop_after: None, stop: false.into(), ..parts };
        let resumed = parts.run(&*node, connect("pairs", rows)).unwrap();
        assert_eq!(parts.notes.lock().unwrap()[..], ["goes on after step 5 of 12"]);
        assert_eq!(resumed.identity, output.identity);
    }

    #[test]
    fn sft_goes_on_from_the_input_adapter() {
        let (trial, pictures) = trial();
        let imported = adapter::import(&reference("llava/adapter"), &*trial.shelf).unwrap();
        let input = trial.made(ArtifactKind::Adapter, imported);
        let turn = |from, value: &str| Turn { from, value: value.to_owned() };
        let conversations = [Conversation {
            id: ItemId::new(pictures[0]),
            picture: Some(pictures[0]),
            conversations: vec![turn(Speaker::Human, "What is this?\n<image>"), turn(Speaker::Gpt, "A ring.")],
        }];
        let conversations = trial.artifact(ArtifactKind::Conversations, &write_lines(&conversations));
        let pairs = trial.artifact(ArtifactKind::Pairs, &write_lines(&pairs(&pictures)));
        let ports = |input: &Artifact| {
            BTreeMap::from([
                ("conversations", vec![conversations.clone(), pairs.clone()]),
                ("adapter", vec![input.clone()]),
            ])
        };
        let run = |text: &str| trial.run(&*node(&SftKind, text, &["adapter"]).unwrap(), ports(&input));
        let output = run("warmup_ratio = 0\nlora = { rank = 4, alpha = 8, dropout = 0.1 }").unwrap();
        assert!(output.summary.line.starts_with("2 steps on 4 examples: loss "), "{}", output.summary.line);
        assert_ne!(output.identity[0], input.identity[0], "the tensors have changed");
        assert_eq!(output.identity[1], input.identity[1], "rank, alpha and targets have not");

        let Err(Failure::Node { message, help }) = run("lora = { rank = 8 }") else { panic!("accepted") };
        assert_eq!(message, "`lora.rank` is 8, but the input adapter's is 4");
        assert!(help.is_some());
    }

    #[test]
    fn an_adapter_of_another_model_is_refused() {
        let (trial, pictures) = trial();
        let imported = adapter::import(&reference("llava_next/adapter"), &*trial.shelf).unwrap();
        let ports = BTreeMap::from([
            ("pairs", vec![trial.artifact(ArtifactKind::Pairs, &write_lines(&pairs(&pictures)))]),
            ("adapter", vec![trial.made(ArtifactKind::Adapter, imported)]),
        ]);
        let Err(Failure::Node { message, .. }) = trial.run(&*node(&DpoKind, "", &["adapter"]).unwrap(), ports) else {
            panic!("accepted")
        };
        assert!(message.starts_with("the adapter of `above`: "), "{message}");
    }

    #[test]
    fn a_prompt_without_room_for_an_answer_names_its_item() {
        let (trial, pictures) = trial();
        let rows = trial.artifact(ArtifactKind::Pairs, &write_lines(&pairs(&pictures[..1])));
        let node = node(&DpoKind, "max_length = 4", &[]).unwrap();
        let Err(Failure::Node { message, help }) = trial.run(&*node, connect("pairs", rows)) else {
            panic!("accepted")
        };
        assert!(message.starts_with(&format!("item {}: the prompt takes ", ItemId::new(pictures[0]).short())));
        assert!(help.is_some());
    }

    #[test]
    fn nothing_to_train_on_is_an_error() {
        let trial = Trial::new();
        let rows = trial.artifact(ArtifactKind::Pairs, b"");
        let error = trial.run(&*node(&DpoKind, "", &[]).unwrap(), connect("pairs", rows)).unwrap_err();
        assert!(error.to_string().starts_with("there is nothing to train on"));
    }

    #[test]
    fn pictures_that_cannot_be_decoded_are_few_or_fail_the_node() {
        let (trial, pictures) = trial();
        let bad = trial.shelf.put(b"no picture").unwrap();
        let set = |good: usize| {
            let mut set = Set::new(9);
            let digests = pictures.iter().cycle().take(good).chain([&bad]);
            digests.for_each(|digest| set.add::<0>(&ItemId::new(*digest), Some(*digest), []).unwrap());
            set
        };
        let mut many = set(200);
        assert_eq!(many.leave_out_undecodable(OnBadItem::default(), &trial), Ok(1));
        assert_eq!(many.examples.len(), 200);
        let note = trial.notes.lock().unwrap()[0].clone();
        assert!(note.starts_with("left out 1 of 201 examples whose pictures cannot be decoded, first `"), "{note}");
        assert!(note.contains("`: not a picture: "), "{note}");
        assert!(set(200).leave_out_undecodable(OnBadItem::Fail, &trial).is_err());
        let error = set(3).leave_out_undecodable(OnBadItem::default(), &trial).unwrap_err().to_string();
        assert!(error.starts_with("the pictures of 1 of 4 examples cannot be decoded, first `"), "{error}");
    }

    #[test]
    fn anyres_needs_a_checkpoint_with_tiles() {
        assert!(node(&SftKind, "", &[]).unwrap().check_files().is_empty());
        let problems = node(&SftKind, "image_mode = 'anyres'", &[]).unwrap().check_files();
        assert_eq!(problems[0].parameter, "image_mode");
    }
}
