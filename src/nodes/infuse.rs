//! `infuse`: prepends a picture's description to the first question of its instruction record, as in the paper's second
//! stage. Nothing else in the record changes.

use std::collections::HashMap;

use super::adapter::part;
use super::labels::{LeftOut, carried, item_name, labeled};
use super::share::{check_meeting, check_once};
use super::source_check::check_answers;
use crate::artifact::{self, ArtifactKind, Conversation, ItemId, LABELS, Record, Response, Speaker, Turn, write_lines};
use crate::data::turns::{IMAGE, is_answered};
use stic_engine::diagnostic::{counted, listed};
use stic_engine::node::{
    Arity, Context, Failure, FileProblem, Inputs, Node, NodeKind, Output, Parameter, Port, Summary, WholeWork, Work,
};
use stic_engine::parameters;
use stic_engine::spec::Reader;
use stic_engine::spec::parameter::{Declaration, Parameters, string};

/// The default text before a description, from the published code.
pub const PREFIX: &str = "Image description:\n";
/// The default text between description and question.
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
            Port { name: "instructions", accepts: &[artifact::RECORDS], arity: Arity::Many, items: false },
            Port { name: "descriptions", accepts: &[artifact::RESPONSES], arity: Arity::Many, items: false },
        ]
    }

    fn output(&self) -> ArtifactKind {
        artifact::CONVERSATIONS
    }

    fn help(&self) -> &'static str {
        "prepends the model's own description to the first question of each record"
    }

    fn example(&self) -> &'static str {
        r#"inputs.instructions = { file = "records.json" }
inputs.descriptions = { file = "descriptions.json" }"#
    }

    fn declared(&self) -> Vec<Declaration> {
        Infuse::declared()
    }

    fn read(&self, table: &mut Reader<'_>, _: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        Some(Box::new(Infuse::read(table)?))
    }
}

parameters! {
    /// A node of the kind.
    struct Infuse {
        /// Text before the description (as in the published code)
        prefix: String = string("a string").default(PREFIX.to_owned()),
        /// Text between description and question (as in the published code)
        separator: String = string("a string").default(SEPARATOR.to_owned()),
    }
}

impl Node for Infuse {
    fn parameters(&self) -> Vec<Parameter> {
        self.key_fields()
    }

    fn check_inputs(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<FileProblem> {
        let shares = check_once("descriptions", above).or_else(|| check_meeting("descriptions", "instructions", above));
        check_answers("instructions", above).into_iter().chain(shares).collect()
    }

    fn work(&self) -> Work<'_> {
        Work::Whole(self)
    }
}

/// `question` with `description` prepended: after the placeholder if the question starts with that on a line of its
/// own.
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
        let mut first = None;
        for (response, label) in labeled::<Response>(inputs, "descriptions")? {
            first.get_or_insert_with(|| item_name(&response.id, &label));
            if descriptions.insert(response.id.clone(), response.text).is_some() {
                return Err(Failure::node(format!("{} has two descriptions", item_name(&response.id, &label)))
                    .help("connect one description per record"));
            }
        }
        let mut conversations = Vec::new();
        let mut labels = Vec::new();
        let mut undescribed = LeftOut::without_description();
        let (mut text_only, mut unanswered) = (LeftOut::without_picture(), LeftOut::without_answer());
        for (record, label) in labeled::<Record>(inputs, "instructions")? {
            let Some(mut turns) = record.conversations.filter(|turns| is_answered(turns)) else {
                unanswered.add(&record.id, &label);
                continue;
            };
            let Some(picture) = record.picture else {
                text_only.add(&record.id, &label);
                continue;
            };
            // A description of the picture alone fits every record about it.
            let described = descriptions.get(&record.id).or_else(|| descriptions.get(&ItemId::new(picture)));
            let Some(description) = described else {
                undescribed.add(&record.id, &label);
                continue;
            };
            let human = turns.iter_mut().find(|turn| turn.from == Speaker::Human);
            let Some(Turn { value, .. }) = human else {
                return Err(Failure::node(format!("{} has no human turn", item_name(&record.id, &label))));
            };
            *value = infused(value, description, &self.prefix, &self.separator);
            labels.push(carried(label, Some(picture), context));
            conversations.push(Conversation { id: record.id, picture: Some(picture), conversations: turns });
        }
        if conversations.is_empty() {
            let Some(record) = undescribed.first() else {
                unanswered.check_rest(0)?;
                text_only.check_rest(0)?;
                return Err(Failure::node("there is nothing to infuse: the inputs have no records"));
            };
            let from =
                |port: &str| listed(&inputs.artifacts(port).iter().map(|it| it.node.as_str()).collect::<Vec<_>>());
            let (records, described) = (from("instructions"), from("descriptions"));
            let described = match first {
                Some(first) => format!("{described} describes others, first {first}"),
                None => format!("{described} describes nothing"),
            };
            return Err(Failure::node(format!(
                "none of the records of {records} has a description, for example {record}: {described}"
            ))
            .help("describe the same records that are infused: connect one `sample` to both"));
        }
        let mut line = counted(conversations.len(), "conversation");
        for left_out in [&undescribed, &text_only, &unanswered] {
            left_out.report(context);
            line += &left_out.clause();
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::harness::{TestContext, read};
    use super::*;
    use crate::artifact::{Finish, read_lines};
    use stic_engine::digest::Digest;
    use stic_engine::node::Objects;

    fn record(n: u8, picture: Option<u8>, question: &str) -> Record {
        let turn = |from, value: &str| Turn { from, value: value.to_owned() };
        let conversations = vec![
            turn(Speaker::Human, question),
            turn(Speaker::Gpt, "An answer."),
            turn(Speaker::Human, "<image>\nAnd?"),
            turn(Speaker::Gpt, "Another."),
        ];
        Record {
            id: ItemId::new(Digest::of(&[n, 1])),
            picture: picture.map(|n| Digest::of(&[n])),
            altered: None,
            conversations: Some(conversations),
            fields: Default::default(),
        }
    }

    fn description(id: ItemId, text: &str) -> Response {
        let (prompt, text) = (String::new(), text.to_owned());
        Response { id, picture: Digest::of(b""), altered: None, prompt, text, tokens: 1, finish: Finish::Stop }
    }

    fn run(text: &str, records: &[Record], descriptions: &[Response]) -> Result<(Vec<Conversation>, String), Failure> {
        let harness = TestContext::new();
        let ports = [
            ("instructions", vec![harness.artifact(artifact::RECORDS, &write_lines(records))]),
            ("descriptions", vec![harness.artifact(artifact::RESPONSES, &write_lines(descriptions))]),
        ];
        let node = read(&InfuseKind, text, &["instructions", "descriptions"], Path::new("m")).unwrap();
        let output = harness.run(node.as_ref(), ports.into())?;
        let rows = read_lines(&harness.objects.read(&output.identity[0].digest).unwrap()).unwrap();
        Ok((rows, output.summary.line))
    }

    #[test]
    fn the_description_stands_where_the_published_code_puts_it() {
        let infused = |question| infused(question, "D", PREFIX, SEPARATOR);
        assert_eq!(infused("<image>\nWhat is it?"), "<image>\nImage description:\nD\n\nWhat is it?");
        assert_eq!(infused("What is it?\n<image>"), "Image description:\nD\n\nWhat is it?\n<image>");
    }

    #[test]
    fn only_the_first_human_turn_changes() {
        let record = record(1, Some(1), "<image>\nWhat?");
        let described = [description(record.id.clone(), "D")];
        let (rows, line) =
            run("prefix = \"Seen: \"\nseparator = \" | \"", std::slice::from_ref(&record), &described).unwrap();
        assert_eq!(rows[0].conversations[0].value, "<image>\nSeen: D | What?");
        assert_eq!(rows[0].conversations[1..], record.conversations.unwrap()[1..]);
        assert_eq!((rows[0].id.clone(), rows[0].picture, line.as_str()), (record.id, record.picture, "1 conversation"));
    }

    #[test]
    fn records_without_a_description_or_a_picture_are_left_out_and_counted() {
        let records = [record(1, Some(1), "a"), record(2, Some(2), "b"), record(3, None, "c"), record(4, Some(4), "d")];
        // The last description was made of a picture alone.
        let described = [description(records[0].id.clone(), "D"), description(ItemId::new(Digest::of(&[4])), "E")];
        let (rows, line) = run("", &records, &described).unwrap();
        assert_eq!(rows.iter().map(|row| &row.id).collect::<Vec<_>>(), [&records[0].id, &records[3].id]);
        assert_eq!(
            line,
            format!(
                "2 conversations; 1 record without a description left out: the item {}; 1 record without a picture left \
                 out: the item {}",
                records[1].id.short(),
                records[2].id.short()
            )
        );
    }

    #[test]
    fn descriptions_of_other_pictures_are_reported_with_both_sources() {
        let [ours, theirs] = [record(2, Some(2), "b"), record(1, Some(1), "a")];
        let reported =
            |descriptions: &[Response]| run("", std::slice::from_ref(&ours), descriptions).unwrap_err().to_string();
        let (first, other) = (ours.id.short(), theirs.id.short());
        assert_eq!(
            reported(&[description(theirs.id.clone(), "D")]),
            format!(
                "none of the records of `above` has a description, for example the item {first}: `above` describes others, first the item {other}"
            )
        );
        assert!(reported(&[]).ends_with(": `above` describes nothing"), "{}", reported(&[]));
    }

    #[test]
    fn two_descriptions_of_a_record_fail() {
        let record = record(1, Some(1), "a");
        let described = [description(record.id.clone(), "D"), description(record.id.clone(), "E")];
        assert!(run("", &[record], &described).is_err());
    }
}
