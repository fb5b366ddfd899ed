//! `dpo`: pairs → an adapter under which preferred responses are likelier, by STIC's regularised DPO loss.
//!
//! Both responses are conditioned on the clean picture and on `x`, the pair's instruction, whatever they were made from.

use super::device;
use super::labels::{item_name, labelled};
use super::training::{Goal, POSITIVE, Set, TrainingParameters};
use crate::artifact::{self, ArtifactKind, Pair};
use crate::digest::Value;
use crate::model::processor::round;
use crate::node::{
    Arity, Context, Failure, FileDigests, FileProblem, Inputs, Node, NodeKind, Output, Parameter, Port, SeedUse,
    WholeWork, Work, by_default,
};
use crate::pool::Slots;
use crate::spec::Reader;
use crate::train::loss::dpo::Dpo;

/// The kind.
pub struct DpoKind;

/// A node of the kind.
#[derive(Clone, Debug, PartialEq)]
struct DpoNode {
    training: TrainingParameters,
    loss: Dpo,
    reference: Reference,
}

/// What the policy is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reference {
    /// The base model, with the adapter switched off.
    Base,
    /// The base model with the input adapter.
    Input,
}

/// The published trainer's, which never passes another; the paper does not state it.
const BETA: f64 = 0.1;
/// α of Table 6.
const CHOSEN_WEIGHT: f64 = 1.0 / 1024.0;

impl NodeKind for DpoKind {
    fn name(&self) -> &'static str {
        "dpo"
    }

    fn version(&self) -> u32 {
        3
    }

    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "pairs", accepts: &[artifact::PAIRS], arity: Arity::Many, items: false },
            Port { name: "adapter", accepts: &[artifact::ADAPTER], arity: Arity::Optional, items: false },
        ]
    }

    fn output(&self) -> ArtifactKind {
        artifact::ADAPTER
    }

    fn read(&self, table: &mut Reader<'_>, connected: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        let loss = Dpo {
            beta: table.number("beta", BETA, POSITIVE),
            chosen_weight: table.number("chosen_weight", CHOSEN_WEIGHT, 0.0..),
        };
        let choices = [("base", Reference::Base), ("input", Reference::Input)];
        let reference = table.choice("reference", &choices, Reference::Base);
        if reference == Reference::Input && !connected("adapter") {
            table.reject(
                "reference",
                "`reference = \"input\"` needs an input adapter",
                "there is no `inputs.adapter`",
                Some("connect `inputs.adapter`, or leave `reference` out: the base model is the reference".to_owned()),
            );
        }
        only(table, "rejected", "text");
        only(table, "loss", "sigmoid");
        let training = TrainingParameters::read(table, connected("adapter"))?;
        Some(Box::new(DpoNode { training, loss, reference }))
    }
}

impl Node for DpoNode {
    fn parameters(&self) -> Vec<Parameter> {
        let mut list = self.training.parameters();
        let mut unless = |default: bool, name: &str, value: Value| {
            if !default {
                list.push(Parameter::function(name, value));
            }
        };
        unless(self.loss.beta == BETA, "beta", self.loss.beta.into());
        unless(self.loss.chosen_weight == CHOSEN_WEIGHT, "chosen_weight", self.loss.chosen_weight.into());
        unless(self.reference == Reference::Base, "reference", "input".into());
        list
    }

    fn left_out(&self, parameter: &str) -> Option<String> {
        match parameter {
            "beta" => by_default(BETA),
            "chosen_weight" => by_default(CHOSEN_WEIGHT),
            "reference" => by_default("base"),
            _ => self.training.left_out(parameter),
        }
    }

    fn seeds(&self) -> SeedUse {
        SeedUse { pipeline: false, node: true }
    }

    fn base_model(&self) -> Option<&str> {
        Some(&self.training.model.source.source)
    }

    fn resources(&self) -> Option<Slots> {
        device::ONE_DEVICE
    }

    fn check_files(&self) -> Vec<FileProblem> {
        self.training.check_files()
    }

    fn promises(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<Parameter> {
        self.training.promises(above)
    }

    fn check_inputs(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<FileProblem> {
        self.training.check_inputs(above)
    }

    fn sources(&self, digests: &dyn FileDigests) -> Result<Vec<Parameter>, Failure> {
        self.training.sources(digests)
    }

    fn work(&self) -> Work<'_> {
        Work::Whole(self)
    }
}

impl WholeWork for DpoNode {
    fn run(&self, inputs: &Inputs, context: &dyn Context) -> Result<Output, Failure> {
        let pairs = labelled::<Pair>(inputs, "pairs")?;
        let goal = Goal::Dpo { loss: self.loss, input_is_reference: self.reference == Reference::Input };
        let mut set = Set::default();
        for (pair, label) in &pairs {
            set.wanted(&pair.chosen);
            set.compared(&pair.chosen, &pair.rejected);
            let answered = |response: &str| round(&pair.instruction, Some(response));
            let responses = vec![answered(&pair.chosen), answered(&pair.rejected)];
            set.add(item_name(&pair.id, label), Some(pair.picture), responses);
        }
        self.training.run(inputs, context, goal, set)
    }
}

/// Reads a text, or a list of one, that can only be `known` so far.
fn only(table: &mut Reader<'_>, key: &str, known: &str) {
    if !table.is_list(key) {
        table.choice(key, &[(known, ())], ());
    } else if table.optional::<Vec<String>>(key).is_some_and(|written| written != [known]) {
        table.reject(
            key,
            format!("`{key}` can only be `{known}`"),
            "nothing else is there yet",
            Some(format!("write `{key} = \"{known}\"`, or leave it out")),
        );
    }
}
