//! `dpo`: pairs → an adapter under which preferred responses are likelier, by STIC's regularized DPO loss.
//!
//! Both responses are conditioned on the clean picture and on `x`, the pair's instruction, regardless of what they were
//! made from.

use super::labels::{item_name, labeled};
use super::training::{Recipe, Set, TrainingNode, TrainingParameters};
use crate::artifact::{self, ArtifactKind, Pair};
use crate::model::adapter::Adapter;
use crate::model::processor::round;
use crate::train::loss::dpo::Dpo;
use crate::train::objective::Objective;
use stic_engine::node::{Arity, Context, Failure, Inputs, Node, NodeKind, Port};
use stic_engine::parameters;
use stic_engine::spec::Reader;
use stic_engine::spec::parameter::{Declaration, Form, Parameters, Setting, above, choice, group, number};

/// The kind.
pub struct DpoKind;

parameters! {
    /// The parameters of the kind.
    struct DpoParameters {
        /// Shared
        training: TrainingParameters = group(),
        /// How strongly the policy is held to the reference model: β in Equation 7 of DPO (the published trainer's default; the paper states none)
        beta: f64 = number(above(0.0)).default(0.1),
        /// Weight of the preferred response's log-probability (alpha in Table 6)
        chosen_weight: f64 = number(0.0..).default(1.0 / 1024.0),
        /// The reference policy: the base model, without or with the input adapter
        reference: Reference = choice([("base", Reference::Base), ("input", Reference::Input)]).default(Reference::Base),
        /// What the rejected side differs in; only `text` so far
        rejected: () = only("text"),
        /// The loss; only `sigmoid` so far
        loss: () = only("sigmoid"),
    }
}

/// What the policy is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reference {
    /// The base model, with the adapter switched off.
    Base,
    /// The base model with the input adapter.
    Input,
}

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

    fn help(&self) -> &'static str {
        "trains an adapter on preference pairs by DPO with the paper's regularizer"
    }

    fn example(&self) -> &'static str {
        r#"inputs.pairs = { file = "pairs.json" }
model = "base"
learning_rate = 1e-5
batch_size = 8"#
    }

    fn declared(&self) -> Vec<Declaration> {
        DpoParameters::declared()
    }

    fn read(&self, table: &mut Reader<'_>, connected: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        let recipe = DpoParameters::read(table)?;
        let continues = connected("adapter");
        if recipe.reference == Reference::Input && !continues {
            table.reject(
                "reference",
                "`reference = \"input\"` needs an input adapter",
                "there is no `inputs.adapter`",
                Some("connect `inputs.adapter`, or remove `reference`: the base model is the reference".to_owned()),
            );
        }
        Some(Box::new(TrainingNode { recipe, continues }))
    }
}

impl Recipe for DpoParameters {
    fn shared(&self) -> &TrainingParameters {
        &self.training
    }

    fn set(&self, inputs: &Inputs, _: &dyn Context) -> Result<Set, Failure> {
        let mut set = Set::default();
        for (pair, label) in &labeled::<Pair>(inputs, "pairs")? {
            set.wanted(&pair.chosen);
            set.compared(&pair.chosen, &pair.rejected);
            let answered = |response: &str| round(&pair.instruction, Some(response));
            let responses = vec![answered(&pair.chosen), answered(&pair.rejected)];
            set.add(item_name(&pair.id, label), Some(pair.picture), responses);
        }
        Ok(set)
    }

    fn objective<'a>(&self, input: Option<&'a Adapter>) -> Objective<'a> {
        let loss = Dpo { beta: self.beta, chosen_weight: self.chosen_weight };
        Objective::Dpo { loss, reference: input.filter(|_| self.reference == Reference::Input) }
    }
}

/// A string, or a list of one, that can only be `known` so far.
fn only(known: &'static str) -> Setting<()> {
    let one = || Form::Choice(vec![known]);
    let list = Form::List { of: Box::new(one()), least: 1, most: Some(1), distinct: false };
    let read = move |table: &mut Reader<'_>, key: &str| {
        if !table.is_list(key) {
            return table.optional_choice(key, &[(known, ())]);
        }
        if table.optional::<Vec<String>>(key).is_some_and(|written| written != [known]) {
            table.reject(
                key,
                format!("`{key}` can only be `{known}`"),
                "not supported yet",
                Some(format!("write `{key} = \"{known}\"`, or remove it")),
            );
        }
        Some(())
    };
    let form = Form::Any { what: "a string, or a list of one", forms: vec![one(), list] };
    Setting::new(form, read, move |()| Some(known.into())).default(())
}
