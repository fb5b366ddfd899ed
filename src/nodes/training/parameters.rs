//! The training parameters that `dpo` and `sft` share: read, named in the key, held against the files that they name.
//!
//! Knows nothing of how a training runs.

use std::ops::Bound;

use super::super::adapter::shape;
use super::super::model::ModelParameters;
use crate::model::adapter::Adapter;
use crate::model::contract::{AdapterNames, Model};
use crate::model::families;
use crate::train::optimizer::AdamW;
use crate::train::schedule::Schedule;
use crate::train::training::Settings;
use stic_engine::digest::Value;
use stic_engine::node::{BadItems, Failure, FileProblem, Parameter};
use stic_engine::parameters;
use stic_engine::spec::parameter::{Class, Form, Setting, above, below, boolean, choice, group, integer, number};
use stic_engine::spec::{Reader, Resource};

parameters! {
    /// The parameters that `dpo` and `sft` have in common.
    pub struct TrainingParameters {
        /// Shared
        model: ModelParameters = group(),
        /// Peak learning rate, after warm-up
        learning_rate: f64 = number(above(0.0)),
        /// Examples per step
        batch_size: usize = integer(1..=1_000_000),
        /// Schedule after warm-up (cosine in LLaVA's scripts)
        schedule: Schedule = choice(Schedule::NAMES).default(Schedule::Cosine),
        /// Fraction of steps over which the learning rate warms up from zero (as in LLaVA's scripts)
        warmup_ratio: f64 = number(0.0..=1.0).default(0.03),
        /// Number of passes over the examples
        epochs: usize = integer(1..=100_000).default(1),
        /// Maximum 2-norm of gradients (1.0 in transformers), beyond which they are clipped; 0 disables clipping
        max_grad_norm: f64 = number(0.0..).default(1.0),
        /// AdamW's decay rates of both moments (PyTorch's defaults)
        adam_betas: [f64; 2] = betas().default(AdamW::default().betas),
        /// AdamW's epsilon (PyTorch's default)
        adam_epsilon: f64 = number(above(0.0)).default(AdamW::default().epsilon),
        /// AdamW's weight decay (0 in LLaVA's scripts)
        weight_decay: f64 = number(0.0..).default(0.0),
        /// Whether to shuffle the examples in each epoch
        shuffle: bool = boolean().default(true),
        /// Examples per forward and backward pass; gradients accumulate over a step
        micro_batch_size: Option<usize> = integer(1..=1_000_000).optional("as many as fit").execution(),
        /// Maximum sequence length in tokens, with a picture counted as one; longer answers are truncated (as in LLaVA)
        max_length: usize = integer(1..=10_000_000).default(2048),
        /// The adapter: by default rank 128 and alpha 256 on all linear layers; an input adapter determines these, which may only repeat its values
        lora: LoraParameters = below(Class::Function),
        /// Steps between checkpoints, in addition to those every five minutes
        checkpoint_every: Option<usize> = integer(1..).optional("every five minutes only").execution(),
        /// Shared
        bad_items: BadItems = group(),
    }
}

/// The paper's adapter (Table 6): rank 128, alpha 256, on all linear layers of the language model.
const RANK: usize = 128;
/// See [`RANK`].
const ALPHA: f64 = 256.0;
/// The targets without `lora.targets`.
const ALL: &str = "all linear layers";

parameters! {
    /// `lora`: what is written. With an input adapter, what is not written comes from it.
    #[derive(PartialEq)]
    pub struct LoraParameters {
        /// Rank (Table 6)
        rank: Option<usize> = integer(1..=65_536).optional_default(RANK),
        /// LoRA's alpha; the update is scaled by alpha / rank (Table 6)
        alpha: Option<f64> = number(above(0.0)).optional_default(ALPHA),
        /// Linear layers to adapt, in every layer of the language model
        targets: Option<Vec<String>> = targets().optional(ALL),
        /// Dropout on the inputs of A during training
        dropout: f64 = number(0.0..1.0).default(0.0),
    }
}

impl TrainingParameters {
    /// How steps are taken, with the node's `seed`.
    pub(super) fn settings(&self, seed: u64) -> Settings {
        Settings {
            learning_rate: self.learning_rate,
            schedule: self.schedule,
            warmup_ratio: self.warmup_ratio,
            epochs: self.epochs,
            batch_size: self.batch_size,
            max_grad_norm: self.max_grad_norm,
            adamw: AdamW { betas: self.adam_betas, epsilon: self.adam_epsilon, weight_decay: self.weight_decay },
            shuffle: self.shuffle,
            dropout: self.lora.dropout,
            seed,
        }
    }
}

/// Whether `parameter` comes with an input adapter: written, it only repeats what is part of the key as that adapter's
/// content.
pub(super) fn is_inputs(parameter: &str) -> bool {
    parameter.starts_with("lora.") && parameter != "lora.dropout"
}

fn targets() -> Setting<Vec<String>> {
    let names = Form::Choice(families::linear_names());
    let form = Form::List { of: Box::new(names), least: 1, most: None, distinct: true };
    Setting::new(form, read_targets, |targets| Some(targets.clone().into()))
}

/// The targets in the order of [`families::linear_names`].
fn read_targets(table: &mut Reader<'_>, key: &str) -> Option<Vec<String>> {
    if table.is_string(key) {
        let written: String = table.optional(key)?;
        let help = all_layers(key, &written).unwrap_or_else(|| format!("write `{key} = [\"{written}\"]`"));
        table.reject(key, format!("`{key}` must be a list of strings"), "this is a string", Some(help));
        return None;
    }
    let written: Vec<String> = table.optional(key)?;
    let (known, mut targets) = (families::linear_names(), Vec::new());
    for name in &written {
        match known.iter().position(|known| known == name) {
            Some(target) if targets.contains(&target) => table.reject(
                key,
                format!("`{key}` names `{name}` twice"),
                "a module is adapted once",
                Some("remove one of the two".to_owned()),
            ),
            Some(target) => targets.push(target),
            None => match all_layers(key, name) {
                Some(help) => {
                    table.reject(key, format!("unknown target `{name}`"), "no target has this name", Some(help))
                }
                None => table.reject_name(key, "target", name, &known),
            },
        }
    }
    if written.is_empty() {
        table.reject(key, format!("`{key}` is empty"), "nothing would be trained", None);
    }
    targets.sort_unstable();
    Some(targets.into_iter().map(|target| known[target].to_owned()).collect())
}

/// What to write in place of PEFT's name for all targets.
fn all_layers(key: &str, written: &str) -> Option<String> {
    let is_all = matches!(written, "all-linear" | "all_linear" | "all");
    is_all.then(|| format!("leave `{key}` out: by default all linear layers of the language model are adapted"))
}

fn betas() -> Setting<[f64; 2]> {
    let beta = Form::Number { low: Bound::Included(0.0), high: Bound::Excluded(1.0) };
    let form = Form::List { of: Box::new(beta), least: 2, most: Some(2), distinct: false };
    Setting::new(form, read_betas, |betas| Some(betas.to_vec().into()))
}

impl LoraParameters {
    /// What is written of an adapter's shape.
    fn written(&self) -> Vec<Parameter> {
        let is_written = [self.rank.is_some(), self.alpha.is_some(), self.targets.is_some()];
        let targets = self.targets.as_deref().unwrap_or_default();
        let all = shape(self.rank.unwrap_or(RANK), self.alpha.unwrap_or(ALPHA), targets.to_vec());
        std::iter::zip(all, is_written).filter_map(|(parameter, written)| written.then_some(parameter)).collect()
    }

    /// Whether the targets that are written are all linear layers of `model`, as without them.
    pub(super) fn adapts_all(&self, model: &Resource) -> bool {
        self.targets.as_ref().zip(linears(model)).is_some_and(|(targets, names)| are_all(targets, &names))
    }

    /// The shape of a new adapter for `model`.
    pub(super) fn shape(&self, model: &Resource) -> Vec<Parameter> {
        let written = self.targets.clone().map(Value::from);
        let targets = written.or_else(|| linears(model).map(Value::from)).unwrap_or_else(|| ALL.into());
        shape(self.rank.unwrap_or(RANK), self.alpha.unwrap_or(ALPHA), targets)
    }

    /// The first target that is written and is not one of `names`, the linear layers of the model.
    pub(super) fn foreign(&self, names: &[&str]) -> Option<FileProblem> {
        let name = self.targets.iter().flatten().find(|target| !names.contains(&target.as_str()))?;
        Some(FileProblem {
            parameter: "lora.targets".to_owned(),
            message: format!("the model has no linear layer `{name}`"),
            help: Some(format!("`lora.targets` can name {}", names.join(", "))),
        })
    }

    /// What is written and is not so in the adapter that comes in.
    pub(super) fn contradictions(&self, input: &[Parameter]) -> Vec<FileProblem> {
        let differs = |written: &Parameter| {
            input.iter().find(|known| known.name == written.name && !is_same(&written.value, &known.value))
        };
        let written = self.written();
        let found = written.iter().filter_map(|written| Some((written, differs(written)?)));
        found.map(|(written, known)| contradiction(&written.name, &written.value, &known.value)).collect()
    }

    /// The adapter that training starts from: the input's, or a new one.
    ///
    /// # Errors
    /// When the input's is not as is written.
    pub(super) fn start(&self, input: Option<&Adapter>, model: &dyn Model, seed: u64) -> Result<Adapter, Failure> {
        let Some(input) = input else {
            let (rank, alpha) = (self.rank.unwrap_or(RANK), self.alpha.unwrap_or(ALPHA));
            let wanted = |name: &str| self.targets.as_ref().is_none_or(|targets| targets.iter().any(|it| it == name));
            return Ok(Adapter::initial(model.shape(), rank, alpha, wanted, seed, &model.device()));
        };
        match self.contradictions(&shape(input.rank, input.alpha, input.targets.clone())).into_iter().next() {
            Some(FileProblem { message, help, .. }) => Err(Failure::Node { message, help }),
            None => Ok(input.clone()),
        }
    }
}

/// The names of the linear layers of `model`; `None` while its directory does not say of which family it is.
pub(super) fn linears(model: &Resource) -> Option<Vec<&'static str>> {
    families::of(&model.path).ok().map(|family| names(family.adapter_names()))
}

fn names(family: &AdapterNames) -> Vec<&'static str> {
    family.linears.iter().map(|(name, _)| *name).collect()
}

fn are_all(targets: &[String], names: &[&str]) -> bool {
    targets.len() == names.len() && targets.iter().all(|target| names.contains(&target.as_str()))
}

/// Whether two values of a parameter mean the same. The order of targets means nothing.
fn is_same(written: &Value, known: &Value) -> bool {
    match (written, known) {
        (Value::List(written), Value::List(known)) => {
            written.len() == known.len() && written.iter().all(|target| known.contains(target))
        }
        // Which these are is not known: all of some family will do.
        (Value::List(_), Value::String(_)) => families::adapter_names().any(|it| is_same(written, &names(it).into())),
        _ => written == known,
    }
}

fn contradiction(name: &str, written: &Value, found: &Value) -> FileProblem {
    let key = name.rsplit('.').next().unwrap_or(name);
    let found = match found {
        Value::String(words) => words.clone(),
        value => value.to_string(),
    };
    FileProblem {
        parameter: name.to_owned(),
        message: format!("`{name}` is {written}, but the input adapter's is {found}"),
        help: Some(format!("remove `{key}`: training continues with the adapter as it is")),
    }
}

fn read_betas(table: &mut Reader<'_>, key: &str) -> Option<[f64; 2]> {
    let betas = table.optional::<[f64; 2]>(key)?;
    if betas.iter().all(|beta| (0.0..1.0).contains(beta)) {
        return Some(betas);
    }
    table.reject(key, format!("`{key}` is out of range"), "expected two numbers, at least 0 and below 1", None);
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::node;
    use super::*;
    use crate::model::toy;
    use crate::nodes::harness::{TestContext, read};
    use crate::nodes::{DpoKind, SftKind};
    use stic_engine::node::Node;

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
        assert_eq!(with(written, &["adapter"])[2..], ["lora.dropout", "lora.dropout_draws"]);
        let all = ["lora.rank", "lora.alpha", "lora.targets", "lora.dropout", "lora.dropout_draws"];
        assert_eq!(with(written, &[])[2..], all);
        // And the shape is passed on to training that continues from it.
        let promised = |text: &str, connected: &[&str]| {
            let above = |_: &str| shape(2, 3.0, vec!["v_proj"]);
            node(&SftKind, text, connected).unwrap().promises(&above)
        };
        assert_eq!(promised(written, &[]), shape(4, 8.0, vec!["q_proj"]));
        assert_eq!(promised("", &["adapter"]), shape(2, 3.0, vec!["v_proj"]));
    }

    #[test]
    fn peft_s_name_for_all_linear_layers_is_explained() {
        assert!(all_layers("targets", "all-linear").unwrap().starts_with("leave `targets` out: "));
        assert_eq!(all_layers("targets", "q_proj"), None);
    }

    #[test]
    fn the_model_and_the_template_are_part_of_the_key() {
        let sources = |text: &str| node(&SftKind, text, &[]).unwrap().sources(&TestContext::new()).unwrap();
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
            ("lora = { targets = ['all-linear'] }", "unknown target `all-linear`"),
            ("lora = { targets = 'all-linear' }", "`targets` must be a list of strings"),
            ("lora = { targets = ['q_proj', 1] }", "`targets[1]` must be a string"),
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
    fn targets_are_those_of_the_model_s_family() {
        let folder = tempfile::tempdir().unwrap();
        toy::checkpoint(folder.path());
        let trained = |model: &Path, connected: &[&str], targets: &str| {
            let text = format!("model = 'base'\nlearning_rate = 1e-3\nbatch_size = 2\n{targets}");
            read(&SftKind, &text, connected, model).unwrap()
        };
        let new = |targets: &str| trained(folder.path(), &[], targets);
        let problem = new("lora.targets = ['q_proj', 'v_proj']").check_files().remove(0);
        assert_eq!(
            (&*problem.parameter, &*problem.message),
            ("lora.targets", "the model has no linear layer `v_proj`")
        );
        assert_eq!(problem.help.unwrap(), "`lora.targets` can name k_proj, q_proj, value, out, wide, narrow");
        let all = "lora.targets = ['wide', 'q_proj', 'narrow', 'value', 'out', 'k_proj']";
        assert!(new(all).check_files().is_empty());
        assert_eq!(names(&*new(all)), names(&*new("")), "all of them are the default, in any order");
        assert_eq!(names(&*new("lora.targets = ['q_proj', 'k_proj']"))[2..], ["lora.targets"]);
        // Of a model that is not there, they are not known.
        for model in [folder.path(), Path::new("nowhere")] {
            let above = |_: &str| trained(model, &[], "").promises(&|_| Vec::new());
            let next = |targets: &str| trained(model, &["adapter"], targets).check_inputs(&above);
            assert!(next(all).is_empty());
            assert!(next("lora.targets = ['q_proj']")[0].message.starts_with("`lora.targets` is [\"q_proj\"], but"));
        }
    }

    #[test]
    fn what_is_missing_is_reported_all_at_once() {
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
