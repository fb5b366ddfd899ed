//! The training parameters that `dpo` and `sft` share: read, named in the key, held against the files that they name.
//!
//! Knows nothing of how a training runs.

use std::ops::Bound::{self, Excluded, Unbounded};

use super::super::adapter::shape;
use super::super::model::ModelParameters;
use crate::digest::Value;
use crate::model::adapter::Adapter;
use crate::model::contract::Model;
use crate::model::families;
use crate::node::{Failure, FileDigests, FileProblem, OnBadItem, Parameter, by_default};
use crate::spec::{Reader, Resource};
use crate::train::optimizer::AdamWConfig;
use crate::train::schedule::Schedule;
use crate::train::training::Settings;

/// The parameters that `dpo` and `sft` have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingParameters {
    /// The base model.
    pub model: ModelParameters,
    /// The adapter.
    pub lora: LoraParameters,
    /// How steps are taken. Dropout is the adapter's; the seed is the node's and not set here.
    pub settings: Settings,
    /// Examples that go through the model together; `None`: as many as fit.
    pub micro_batch_size: Option<usize>,
    /// The longest sequence in tokens, a picture being one.
    pub max_length: usize,
    /// After how many steps a checkpoint is written, besides those that time asks for.
    pub checkpoint_every: Option<usize>,
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
    /// The linear layers that are adapted, in the order of a layer.
    pub targets: Option<Vec<String>>,
    /// The share of A's inputs that drops out.
    pub dropout: f64,
    /// Whether there is an input adapter, so that nothing but dropout has a default.
    pub continues: bool,
}

/// The paper's adapter (Table 6): rank 128, alpha 256, on all linear layers of the language model.
const RANK: usize = 128;
/// See [`RANK`].
const ALPHA: f64 = 256.0;

/// The longest sequence unless the file says otherwise: what LLaVA's own fine-tuning uses.
const MAX_LENGTH: usize = 2048;
const WARMUP_RATIO: f64 = 0.03;
const MAX_GRAD_NORM: f64 = 1.0;
/// Numbers above zero.
pub const POSITIVE: (Bound<f64>, Bound<f64>) = (Excluded(0.0), Unbounded);

impl TrainingParameters {
    /// Reads the parameters out of `table`. `adapter` says whether an input adapter is connected.
    pub fn read(table: &mut Reader<'_>, adapter: bool) -> Option<Self> {
        let model = ModelParameters::read(table);
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
        let micro_batch_size = table.optional_integer("micro_batch_size", 1..=1_000_000);
        let max_length = table.integer("max_length", MAX_LENGTH as u64, 1..=10_000_000) as usize;
        let checkpoint_every = table.optional_integer("checkpoint_every", 1..);
        let on_bad_item = OnBadItem::read(table);
        learning_rate?;
        batch_size?;
        Some(Self {
            model: model?,
            lora,
            settings,
            micro_batch_size: micro_batch_size.map(|size| size as usize),
            max_length,
            checkpoint_every: checkpoint_every.map(|steps| steps as usize),
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
            "lora.dropout" => by_default(0.0),
            _ if self.lora.continues && parameter.starts_with("lora.") => Some("the input adapter's".to_owned()),
            _ => {
                let all = shape(RANK, ALPHA, &linears(&self.model.source));
                let default = all.into_iter().find(|default| default.name == parameter);
                let default = default.and_then(|default| by_default(default.value));
                default.or_else(|| self.model.left_out(parameter))
            }
        }
    }

    /// Whether the base model's folder is sound and fits the parameters.
    pub fn check_files(&self) -> Vec<FileProblem> {
        self.model.check_files()
    }

    /// What is known of the adapter that comes out.
    pub fn promises(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<Parameter> {
        self.lora.promises(above("adapter"), &self.model.source)
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
        self.model.sources(digests)
    }
}

impl LoraParameters {
    fn read(table: &mut Reader<'_>, continues: bool) -> Self {
        let Some(mut table) = table.table("lora") else { return Self { continues, ..Self::default() } };
        let rank = table.optional_integer("rank", 1..=65_536);
        let alpha = table.optional_number("alpha", POSITIVE);
        let dropout = table.number("dropout", 0.0, 0.0..1.0);
        let written: Option<Vec<String>> = table.optional("targets");
        let (known, mut targets) = (families::linear_names(), Vec::new());
        for name in written.iter().flatten() {
            match known.iter().position(|known| known == name) {
                Some(target) if targets.contains(&target) => table.reject(
                    "targets",
                    format!("`targets` names `{name}` twice"),
                    "a module is adapted once",
                    Some("remove one of the two".to_owned()),
                ),
                Some(target) => targets.push(target),
                None => table.reject_name("targets", "target", name, &known),
            }
        }
        if written.as_ref().is_some_and(Vec::is_empty) {
            table.reject("targets", "`targets` is empty", "nothing would be trained", None);
        }
        targets.sort_unstable();
        let targets = written.map(|_| targets.into_iter().map(|target| known[target].to_owned()).collect());
        Self { rank: rank.map(|rank| rank as usize), alpha, targets, dropout, continues }
    }

    /// What is written of an adapter's shape.
    fn written(&self) -> Vec<Parameter> {
        let is_written = [self.rank.is_some(), self.alpha.is_some(), self.targets.is_some()];
        let targets = self.targets.as_deref().unwrap_or_default();
        let all = shape(self.rank.unwrap_or(RANK), self.alpha.unwrap_or(ALPHA), targets);
        std::iter::zip(all, is_written).filter_map(|(parameter, written)| written.then_some(parameter)).collect()
    }

    /// The shape of the adapter that training ends with, where that is known: `input` is what is known of the input's.
    fn promises(&self, input: Vec<Parameter>, model: &Resource) -> Vec<Parameter> {
        if self.continues {
            return input;
        }
        let targets = self.targets.clone().unwrap_or_else(|| linears(model));
        shape(self.rank.unwrap_or(RANK), self.alpha.unwrap_or(ALPHA), &targets)
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
        // All linear layers are what a family's adapter has by default.
        let targets = self.targets.as_deref().unwrap_or_default();
        let all = families::adapter_names_with(targets).is_some_and(|names| names.linears.len() == targets.len());
        let defaults = shape(RANK, ALPHA, if all { targets } else { &[] });
        list.retain(|parameter| !defaults.contains(parameter));
        if self.dropout != 0.0 {
            list.push(Parameter::function("lora.dropout", self.dropout));
        }
        list
    }

    /// The adapter that training starts from: the input's, or a new one.
    ///
    /// # Errors
    /// When the input's is not as is written, or the model has no linear layer of a name that is written.
    pub(super) fn start(&self, input: Option<&Adapter>, model: &dyn Model, seed: u64) -> Result<Adapter, Failure> {
        let Some(input) = input else {
            let (rank, alpha) = (self.rank.unwrap_or(RANK), self.alpha.unwrap_or(ALPHA));
            let wanted = |name: &str| self.targets.as_ref().is_none_or(|targets| targets.iter().any(|it| it == name));
            let adapter = Adapter::initial(model.shape(), rank, alpha, wanted, seed, &model.device());
            let missing = self.targets.iter().flatten().find(|name| !adapter.targets.contains(name));
            return missing.map_or(Ok(adapter), |name| {
                let names: Vec<&str> = model.shape().linears.iter().map(|spec| spec.name).collect();
                Err(Failure::node(format!("the model has no linear layer `{name}`"))
                    .help(format!("`lora.targets` can name {}", names.join(", "))))
            });
        };
        match self.contradictions(&shape(input.rank, input.alpha, &input.targets)).into_iter().next() {
            Some(FileProblem { message, help, .. }) => Err(Failure::Node { message, help }),
            None => Ok(input.clone()),
        }
    }
}

/// The names of the linear layers of `model`; all that are known while its folder is not sound.
fn linears(model: &Resource) -> Vec<String> {
    let names = match families::of(&model.path) {
        Ok(family) => family.adapter_names().linears.iter().map(|(name, _)| *name).collect(),
        Err(_) => families::linear_names(),
    };
    names.into_iter().map(str::to_owned).collect()
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::node;
    use super::*;
    use crate::node::Node;
    use crate::nodes::trial::{Trial, read};
    use crate::nodes::{DpoKind, SftKind};

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
            let above = |_: &str| shape(2, 3.0, &["v_proj".to_owned()]);
            node(&SftKind, text, connected).unwrap().promises(&above)
        };
        assert_eq!(promised(written, &[]), shape(4, 8.0, &["q_proj".to_owned()]));
        assert_eq!(promised("", &["adapter"]), shape(2, 3.0, &["v_proj".to_owned()]));
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

    #[test]
    fn anyres_needs_a_checkpoint_with_tiles() {
        assert!(node(&SftKind, "", &[]).unwrap().check_files().is_empty());
        let problems = node(&SftKind, "image_mode = 'anyres'", &[]).unwrap().check_files();
        assert_eq!(problems[0].parameter, "image_mode");
    }
}
