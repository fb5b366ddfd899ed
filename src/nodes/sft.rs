//! `sft`: conversations → an adapter under which their answers are likelier, by cross-entropy on the answers alone.

use super::device;
use super::labels::{LeftOut, item_name, labelled_of};
use super::survey::check_answers;
use super::training::{Goal, Set, Training, TrainingParameters};
use crate::artifact::{self, ArtifactKind, Conversation, Pair, Record, Speaker, Turn};
use crate::data::turns::is_answered;
use crate::model::processor::round;
use crate::node::{
    Arity, Artifact, Context, Failure, FileDigests, FileProblem, Inputs, Node, NodeKind, Output, Parameter, Port,
    SeedUse, WholeWork, Work,
};
use crate::pool::Slots;
use crate::spec::Reader;
use crate::spec::parameter::{Declaration, Parameters};

/// The kind.
pub struct SftKind;

/// A node of the kind.
struct SftNode {
    parameters: TrainingParameters,
    continues: bool,
}

impl SftNode {
    fn training(&self) -> Training<'_> {
        Training { parameters: &self.parameters, continues: self.continues }
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

    fn declared(&self) -> Vec<Declaration> {
        TrainingParameters::declared()
    }

    fn read(&self, table: &mut Reader<'_>, connected: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        Some(Box::new(SftNode { parameters: TrainingParameters::read(table)?, continues: connected("adapter") }))
    }
}

impl Node for SftNode {
    fn parameters(&self) -> Vec<Parameter> {
        self.training().own(self.parameters.key_fields())
    }

    fn left_out(&self, parameter: &str) -> Option<String> {
        self.training().left_out(parameter)
    }

    fn seeds(&self) -> SeedUse {
        SeedUse { pipeline: false, node: true }
    }

    fn base_model(&self) -> Option<&str> {
        Some(&self.parameters.model.source.source)
    }

    fn resources(&self) -> Option<Slots> {
        device::ONE_DEVICE
    }

    fn check_files(&self) -> Vec<FileProblem> {
        self.parameters.model.check_files()
    }

    fn promises(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<Parameter> {
        self.training().promises(above)
    }

    fn check_inputs(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<FileProblem> {
        let mut problems = self.training().check_inputs(above);
        problems.extend(check_answers("conversations", above));
        problems
    }

    fn sources(&self, digests: &dyn FileDigests) -> Result<Vec<Parameter>, Failure> {
        self.parameters.model.sources(digests)
    }

    fn work(&self) -> Work<'_> {
        Work::Whole(self)
    }
}

impl WholeWork for SftNode {
    fn run(&self, inputs: &Inputs, context: &dyn Context) -> Result<Output, Failure> {
        let mut set = Set::default();
        let mut left_out = LeftOut::without_answer();
        let mut taken = 0;
        for artifact in inputs.artifacts("conversations") {
            taken += add(&mut set, artifact, inputs, &mut left_out)?;
        }
        left_out.check_rest(taken)?;
        left_out.report(context);
        self.training().run(inputs, context, Goal::Sft, set)
    }
}

/// Adds the rows of one artifact: conversations as they are, and pairs as `x` answered by the chosen response;
/// tells how many.
fn add(set: &mut Set, artifact: &Artifact, inputs: &Inputs, left_out: &mut LeftOut) -> Result<usize, Failure> {
    let mut taken = 0;
    match artifact.kind {
        artifact::PAIRS => {
            for (Pair { id, picture, instruction, chosen, .. }, label) in labelled_of(inputs, artifact)? {
                set.wanted(&chosen);
                set.add(item_name(&id, &label), Some(picture), vec![round(&instruction, Some(&chosen))]);
                taken += 1;
            }
        }
        artifact::RECORDS => {
            for (record, label) in labelled_of::<Record>(inputs, artifact)? {
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
            for (Conversation { id, picture, conversations }, label) in labelled_of(inputs, artifact)? {
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
