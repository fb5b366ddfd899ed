//! `sft`: conversations → an adapter under which their answers are likelier, by cross-entropy on the answers alone.

use super::labels::{LeftOut, item_name, labeled_of};
use super::source_check::check_answers;
use super::training::{Recipe, Set, TrainingNode, TrainingParameters};
use crate::artifact::{self, ArtifactKind, Conversation, Pair, Record, Speaker, Turn};
use crate::data::turns::is_answered;
use crate::model::adapter::Adapter;
use crate::model::processor::round;
use crate::train::objective::Objective;
use stic_engine::node::{Arity, Artifact, Context, Failure, FileProblem, Inputs, Node, NodeKind, Parameter, Port};
use stic_engine::parameters;
use stic_engine::spec::Reader;
use stic_engine::spec::parameter::{Declaration, Parameters, group};

/// The kind.
pub struct SftKind;

parameters! {
    /// The parameters of the kind: those of every training.
    struct SftParameters {
        /// Shared
        training: TrainingParameters = group(),
    }
}

impl NodeKind for SftKind {
    fn name(&self) -> &'static str {
        "sft"
    }

    fn version(&self) -> u32 {
        3
    }

    fn ports(&self) -> &'static [Port] {
        const CONVERSATIONS: &[ArtifactKind] = &[artifact::CONVERSATIONS, artifact::RECORDS, artifact::PAIRS];
        &[
            Port { name: "conversations", accepts: CONVERSATIONS, arity: Arity::Many, items: false },
            Port { name: "adapter", accepts: &[artifact::ADAPTER], arity: Arity::Optional, items: false },
        ]
    }

    fn output(&self) -> ArtifactKind {
        artifact::ADAPTER
    }

    fn help(&self) -> &'static str {
        "fine-tunes an adapter on the answers of conversations, or on the preferred responses of pairs"
    }

    fn example(&self) -> &'static str {
        r#"inputs.conversations = { file = "records.json" }
model = "base"
learning_rate = 1e-4
batch_size = 8"#
    }

    fn declared(&self) -> Vec<Declaration> {
        SftParameters::declared()
    }

    fn read(&self, table: &mut Reader<'_>, connected: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        Some(Box::new(TrainingNode { recipe: SftParameters::read(table)?, continues: connected("adapter") }))
    }
}

impl Recipe for SftParameters {
    fn shared(&self) -> &TrainingParameters {
        &self.training
    }

    fn check_inputs(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Option<FileProblem> {
        check_answers("conversations", above)
    }

    fn set(&self, inputs: &Inputs, context: &dyn Context) -> Result<Set, Failure> {
        let mut set = Set::default();
        let mut left_out = LeftOut::without_answer();
        let mut taken = 0;
        for artifact in inputs.artifacts("conversations") {
            taken += add(&mut set, artifact, inputs, &mut left_out)?;
        }
        left_out.check_rest(taken)?;
        left_out.report(context);
        Ok(set)
    }

    fn objective<'a>(&self, _: Option<&'a Adapter>) -> Objective<'a> {
        Objective::Sft
    }
}

/// Adds the rows of one artifact: conversations as they are, and pairs as `x` answered by the chosen response;
/// tells how many.
fn add(set: &mut Set, artifact: &Artifact, inputs: &Inputs, left_out: &mut LeftOut) -> Result<usize, Failure> {
    let mut taken = 0;
    match artifact.kind {
        artifact::PAIRS => {
            for (Pair { id, picture, instruction, chosen, .. }, label) in labeled_of(inputs, artifact)? {
                set.wanted(&chosen);
                set.add(item_name(&id, &label), Some(picture), vec![round(&instruction, Some(&chosen))]);
                taken += 1;
            }
        }
        artifact::RECORDS => {
            for (record, label) in labeled_of::<Record>(inputs, artifact)? {
                let Some(turns) = record.conversations.as_ref().filter(|turns| is_answered(turns)) else {
                    left_out.add(&record.id, &label);
                    continue;
                };
                answers(turns).for_each(|answer| set.wanted(answer));
                set.add(item_name(&record.id, &label), record.shown(), vec![turns.clone()]);
                taken += 1;
            }
        }
        _ => {
            for (Conversation { id, picture, conversations }, label) in labeled_of(inputs, artifact)? {
                if is_answered(&conversations) {
                    answers(&conversations).for_each(|answer| set.wanted(answer));
                    set.add(item_name(&id, &label), picture, vec![conversations]);
                    taken += 1;
                } else {
                    left_out.add(&id, &label);
                }
            }
        }
    }
    Ok(taken)
}

/// What the model says in a conversation.
fn answers(turns: &[Turn]) -> impl Iterator<Item = &str> {
    turns.iter().filter(|turn| turn.from == Speaker::Gpt).map(|turn| turn.value.as_str())
}
