//! `sft`: conversations → an adapter under which their answers are likelier, by cross-entropy on the answers alone.

use super::training::{Goal, Set, TrainingParameters};
use crate::artifact::{ArtifactKind, Conversation, Pair, Record, Speaker, Turn};
use crate::model::sequence::Scribe;
use crate::node::{
    Arity, Artifact, Context, Failure, FileDigests, FileProblem, Inputs, Node, NodeKind, Output, Parameter, Port,
    SeedUse, WholeWork, Work,
};
use crate::spec::Reader;

/// The kind.
pub struct SftKind;

/// A node of the kind.
#[derive(Clone, Debug, PartialEq)]
struct SftNode {
    training: TrainingParameters,
}

impl NodeKind for SftKind {
    fn name(&self) -> &'static str {
        "sft"
    }

    fn version(&self) -> u32 {
        2
    }

    fn ports(&self) -> &'static [Port] {
        const CONVERSATIONS: &[ArtifactKind] =
            &[ArtifactKind::Conversations, ArtifactKind::Records, ArtifactKind::Pairs];
        &[
            Port { name: "conversations", accepts: CONVERSATIONS, arity: Arity::Many, items: false },
            Port { name: "adapter", accepts: &[ArtifactKind::Adapter], arity: Arity::Optional, items: false },
        ]
    }

    fn output(&self) -> ArtifactKind {
        ArtifactKind::Adapter
    }

    fn read(&self, table: &mut Reader<'_>, connected: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        let training = TrainingParameters::read(table, connected("adapter"))?;
        Some(Box::new(SftNode { training }))
    }
}

impl Node for SftNode {
    fn parameters(&self) -> Vec<Parameter> {
        self.training.parameters()
    }

    fn left_out(&self, parameter: &str) -> Option<String> {
        self.training.left_out(parameter)
    }

    fn seeds(&self) -> SeedUse {
        SeedUse { pipeline: false, node: true }
    }

    fn base_model(&self) -> Option<&str> {
        Some(&self.training.model.source)
    }

    fn computes_tensors(&self) -> bool {
        true
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

impl WholeWork for SftNode {
    fn run(&self, inputs: &Inputs, context: &dyn Context) -> Result<Output, Failure> {
        self.training.run(inputs, context, Goal::Sft, &|scribe, set| {
            let mut artifacts = inputs.artifacts("conversations").iter();
            artifacts.try_for_each(|artifact| add(set, scribe, artifact, inputs))
        })
    }
}

/// Adds the rows of one artifact: conversations as they are, and pairs as `x` answered by the chosen response.
fn add(set: &mut Set, scribe: &Scribe, artifact: &Artifact, inputs: &Inputs) -> Result<(), Failure> {
    match artifact.kind {
        ArtifactKind::Pairs => {
            for Pair { id, picture, instruction, chosen, .. } in inputs.rows_of(artifact)? {
                set.wanted(&chosen);
                set.add(&id, Some(picture), [scribe.round(&instruction, Some(&chosen), true)])?;
            }
        }
        ArtifactKind::Records => {
            for record in inputs.rows_of::<Record>(artifact)? {
                let turns = record.conversations.as_ref().ok_or_else(|| {
                    Failure::node(format!(
                        "item {} of `{}` has no conversation to train on",
                        record.id.short(),
                        artifact.node
                    ))
                    .help("`sft` takes instruction records: a LLaVA-style JSON file given to `sample`")
                })?;
                answers(turns).for_each(|answer| set.wanted(answer));
                let picture = record.shown();
                set.add(&record.id, picture, [scribe.conversation(turns, picture.is_some())])?;
            }
        }
        _ => {
            for Conversation { id, picture, conversations } in inputs.rows_of(artifact)? {
                answers(&conversations).for_each(|answer| set.wanted(answer));
                set.add(&id, picture, [scribe.conversation(&conversations, picture.is_some())])?;
            }
        }
    }
    Ok(())
}

/// What the model says in a conversation.
fn answers(turns: &[Turn]) -> impl Iterator<Item = &str> {
    turns.iter().filter(|turn| turn.from == Speaker::Gpt).map(|turn| turn.value.as_str())
}
