//! What was done to records so that they could be read: reported once with a count, not record by record.

use std::collections::BTreeMap;
use std::fmt::Display;

/// Something that was done to a record, or is worth knowing of it. The record is read all the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remark {
    /// Its picture stands under this key, not under `image`.
    Key(String),
    /// It has no conversation, but an answer in a field of this name.
    UnreadAnswer(String),
    /// Half of a surrogate pair reads as U+FFFD.
    HalfCharacter,
    /// The conversation begins with a system message, or has one beside it.
    System,
    /// An answer is marked as not to be trained on.
    Weighted,
    /// The conversation begins with an answer.
    LeadingAnswer,
    /// The conversation ends with a question.
    TrailingQuestion,
    /// The conversation has no answer at all.
    Unanswered,
    /// An answer says nothing.
    EmptyAnswer,
    /// The preferred response says nothing.
    EmptyChosen,
    /// The prompt of a preference record says nothing.
    EmptyPrompt,
    /// The preferred and the rejected response are the same.
    EqualResponses,
    /// A question to a model says nothing.
    EmptyQuestion,
    /// Of the right answers to a question none says anything.
    EmptyRight,
    /// The picture's name is spelled otherwise on the disk.
    Spelling,
}

impl Remark {
    fn reported(&self, count: usize) -> String {
        let (records, conversations) =
            if count == 1 { ("record", "conversation") } else { ("records", "conversations") };
        let s = if count == 1 { "s" } else { "" };
        match self {
            Self::Key(key) => format!("{count} {records} name{s} the picture by `{key}`, which is read as `image`"),
            Self::UnreadAnswer(key) => {
                let (have, are, pictures) =
                    if count == 1 { ("has", "is", "a picture") } else { ("have", "are", "pictures") };
                format!("{count} {records} {have} `{key}` but no `conversations`, and {are} read as {pictures} alone")
            }
            Self::HalfCharacter => format!("{count} {records} with half of a surrogate pair, which is read as U+FFFD"),
            Self::System => {
                format!(
                    "{count} {conversations} begin{s} with a system message, which is left out: the template has its own"
                )
            }
            Self::Weighted => {
                format!(
                    "{count} {conversations} with answers marked as not to be trained on, which are trained on all the same"
                )
            }
            Self::LeadingAnswer => format!("{count} {conversations} begin{s} with an answer, which is left out"),
            Self::TrailingQuestion => format!("{count} {conversations} end{s} with a question, which is left out"),
            Self::Unanswered => format!("{count} {conversations} without an answer to train on"),
            Self::EmptyAnswer => format!("{count} {conversations} with an empty answer"),
            Self::EmptyChosen => format!("{count} {records} with an empty `chosen`"),
            Self::EmptyPrompt => format!("{count} {records} with an empty prompt"),
            Self::EqualResponses => {
                format!("{count} {records} whose `chosen` and `rejected` are equal, from which nothing is learned")
            }
            Self::EmptyQuestion => {
                format!("{count} {} with an empty question", if count == 1 { "entry" } else { "entries" })
            }
            Self::EmptyRight => {
                let entries = if count == 1 { "entry" } else { "entries" };
                format!("{count} {entries} with an empty right answer, which only a model that says nothing gives")
            }
            Self::Spelling => {
                let pictures = if count == 1 { "picture is" } else { "pictures are" };
                format!("{count} {pictures} found under another spelling (case, accents or backslashes)")
            }
        }
    }
}

/// Remarks of many records: how many of each, and where the first is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remarks(BTreeMap<Remark, (usize, String)>);

impl Remarks {
    /// Adds a remark about what is called `name`.
    pub fn add(&mut self, remark: Remark, name: impl Display) {
        self.0.entry(remark).and_modify(|(count, _)| *count += 1).or_insert_with(|| (1, name.to_string()));
    }

    /// How many there are of one.
    pub fn count(&self, remark: &Remark) -> usize {
        self.0.get(remark).map_or(0, |(count, _)| *count)
    }

    /// Where the first record is whose answer stands in a field, and in which.
    pub fn unread_answer(&self) -> Option<(&str, &str)> {
        self.0.iter().find_map(|(remark, (_, first))| match remark {
            Remark::UnreadAnswer(key) => Some((first.as_str(), key.as_str())),
            _ => None,
        })
    }

    /// A line for each.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(remark, (count, first))| {
            let which = if *count == 1 { "" } else { "first " };
            format!("{}: {which}{first}", remark.reported(*count))
        })
    }
}
