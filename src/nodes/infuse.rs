//! `infuse`: puts a picture's description in front of the question of its instruction record.
//!
//! Only the first human turn changes, as in the paper's second stage; the answers stay what they are.

use std::collections::HashMap;

use super::adapter::part;
use crate::artifact::{
    ArtifactKind, Conversation, ItemId, LABELS, Label, Record, Response, Speaker, Turn, write_lines,
};
use crate::data::turns::IMAGE;
use crate::node::{Arity, Context, Failure, Inputs, Node, NodeKind, Output, Parameter, Port, Summary, WholeWork, Work};
use crate::spec::Reader;

/// What stands before a description, by default: the published code's words.
pub const PREFIX: &str = "Image description:\n";
/// What stands between description and question, by default.
pub const SEPARATOR: &str = "\n\n";

/// The kind `infuse`.
pub struct InfuseKind;

impl NodeKind for InfuseKind {
    fn name(&self) -> &'static str {
        "infuse"
    }

    fn version(&self) -> u32 {
        1
    }

    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "instructions", accepts: &[ArtifactKind::Records], arity: Arity::Many, items: false },
            Port { name: "descriptions", accepts: &[ArtifactKind::Responses], arity: Arity::Many, items: false },
        ]
    }

    fn output(&self) -> ArtifactKind {
        ArtifactKind::Conversations
    }

    fn read(&self, table: &mut Reader<'_>, _: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        let before = table.mistakes();
        let prefix = table.optional("prefix").unwrap_or_else(|| PREFIX.to_owned());
        let separator = table.optional("separator").unwrap_or_else(|| SEPARATOR.to_owned());
        (table.mistakes() == before).then(|| Box::new(Infuse { prefix, separator }) as Box<dyn Node>)
    }
}

struct Infuse {
    prefix: String,
    separator: String,
}

impl Node for Infuse {
    fn parameters(&self) -> Vec<Parameter> {
        let mut list = Vec::new();
        list.extend((self.prefix != PREFIX).then(|| Parameter::function("prefix", self.prefix.as_str())));
        list.extend((self.separator != SEPARATOR).then(|| Parameter::function("separator", self.separator.as_str())));
        list
    }

    fn work(&self) -> Work<'_> {
        Work::Whole(self)
    }
}

/// `question` with `description` in front: behind the placeholder when a line of its own opens with it, else in front
/// of everything.
pub fn infused(question: &str, description: &str, prefix: &str, separator: &str) -> String {
    let placeholder = format!("{IMAGE}\n");
    let infusion = format!("{prefix}{description}{separator}");
    if question.contains(&placeholder) {
        question.replacen(&placeholder, &format!("{placeholder}{infusion}"), 1)
    } else {
        infusion + question
    }
}

impl WholeWork for Infuse {
    fn run(&self, inputs: &Inputs, context: &dyn Context) -> Result<Output, Failure> {
        let mut descriptions: HashMap<ItemId, String> = HashMap::new();
        for response in inputs.rows::<Response>("descriptions")? {
            if descriptions.insert(response.id.clone(), response.text).is_some() {
                return Err(Failure::node(format!("the item {} has two descriptions", response.id.short()))
                    .help("connect one description a record"));
            }
        }
        let mut conversations = Vec::new();
        let mut labels = Vec::new();
        let (mut text_only, mut undescribed) = (0, 0);
        for record in inputs.rows::<Record>("instructions")? {
            let Some(mut turns) = record.conversations else {
                return Err(Failure::node(format!("the item {} has no conversation to infuse", record.id.short()))
                    .help("`instructions` are records with conversations, such as LLaVA's instruction data"));
            };
            let Some(picture) = record.picture else {
                text_only += 1;
                continue;
            };
            // A description that was made of the picture alone serves every record about it.
            let described = descriptions.get(&record.id).or_else(|| descriptions.get(&ItemId::new(picture)));
            let Some(description) = described else {
                undescribed += 1;
                continue;
            };
            let human = turns.iter_mut().find(|turn| turn.from == Speaker::Human);
            let Some(Turn { value, .. }) = human else {
                return Err(Failure::node(format!("the item {} has no human turn", record.id.short())));
            };
            *value = infused(value, description, &self.prefix, &self.separator);
            let path = context.picture_path(&picture).map(|path| path.display().to_string());
            labels.push(Label { name: None, path });
            conversations.push(Conversation { id: record.id, picture: Some(picture), conversations: turns });
        }
        if conversations.is_empty() {
            return Err(Failure::node("no record has a description")
                .help("describe the very records that are infused: connect one `sample` to both"));
        }
        let mut line = format!("{} conversations", conversations.len());
        for (count, what) in [(undescribed, "without a description"), (text_only, "without a picture")] {
            if count > 0 {
                line += &format!("; {count} records {what} left out");
            }
        }
        let objects = context.objects();
        Ok(Output {
            identity: vec![part("conversations.jsonl", &write_lines(&conversations), objects)?],
            side: vec![part(LABELS, &write_lines(&labels), objects)?],
            objects: Vec::new(),
            summary: Summary { line, ..Summary::default() },
        })
    }
}
