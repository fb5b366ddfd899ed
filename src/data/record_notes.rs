//! RecordNotes on records, such as what was left out of them: reported once with a count, not record by record.

use std::collections::BTreeMap;
use std::fmt::Display;

/// A remark on a record that is read anyway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordNote {
    /// Its picture is named by this key instead of `image`.
    Key(String),
    /// It has no conversation, but an answer in a field of this name.
    UnreadAnswer(String),
    /// An unpaired surrogate was replaced by U+FFFD.
    UnpairedSurrogate,
    /// The conversation begins with a system message, or has one beside it.
    System,
    /// An answer is marked as excluded from training.
    Weighted,
    /// The conversation begins with an answer.
    LeadingAnswer,
    /// The conversation ends with a question.
    TrailingQuestion,
    /// The conversation has no answer at all.
    Unanswered,
    /// An answer is empty.
    EmptyAnswer,
    /// The preferred response is empty.
    EmptyChosen,
    /// The prompt of a preference record is empty.
    EmptyPrompt,
    /// The preferred and the rejected response are the same.
    EqualResponses,
    /// A question is empty.
    EmptyQuestion,
    /// All reference answers to a question are empty.
    EmptyRight,
    /// The picture's name is spelled differently on disk.
    Spelling,
}

impl RecordNote {
    fn message(&self, count: usize) -> String {
        let (records, conversations) =
            if count == 1 { ("record", "conversation") } else { ("records", "conversations") };
        let s = if count == 1 { "s" } else { "" };
        match self {
            Self::Key(key) => format!("{count} {records} name{s} the picture in `{key}`, which is used as `image`"),
            Self::UnreadAnswer(key) => {
                let (have, are, pictures) =
                    if count == 1 { ("has", "is", "a picture") } else { ("have", "are", "pictures") };
                format!("{count} {records} {have} `{key}` but no `conversations`, and {are} read as {pictures} only")
            }
            Self::UnpairedSurrogate => format!("{count} {records} with an unpaired surrogate, which is read as U+FFFD"),
            Self::System => {
                format!(
                    "{count} {conversations} begin{s} with a system message, which is left out: the template has its own"
                )
            }
            Self::Weighted => {
                format!(
                    "{count} {conversations} with answers marked as excluded from training, which are included anyway"
                )
            }
            Self::LeadingAnswer => format!("{count} {conversations} begin{s} with an answer, which is left out"),
            Self::TrailingQuestion => format!("{count} {conversations} end{s} with a question, which is left out"),
            Self::Unanswered => format!("{count} {conversations} without an answer to train on"),
            Self::EmptyAnswer => format!("{count} {conversations} with an empty answer"),
            Self::EmptyChosen => format!("{count} {records} with an empty `chosen`"),
            Self::EmptyPrompt => format!("{count} {records} with an empty prompt"),
            Self::EqualResponses => {
                format!("{count} {records} with equal `chosen` and `rejected`, from which nothing is learned")
            }
            Self::EmptyQuestion => {
                format!("{count} {} with an empty question", if count == 1 { "entry" } else { "entries" })
            }
            Self::EmptyRight => {
                let entries = if count == 1 { "entry" } else { "entries" };
                format!("{count} {entries} with an empty reference answer, which only an empty response matches")
            }
            Self::Spelling => {
                let pictures = if count == 1 { "picture is" } else { "pictures are" };
                format!("{count} {pictures} found under another spelling (case, accents or backslashes)")
            }
        }
    }
}

/// RecordNotes on many records: the count of each, and the first record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordNotes(BTreeMap<RecordNote, (usize, String)>);

impl RecordNotes {
    /// Adds a remark on the record called `name`.
    pub fn add(&mut self, remark: RecordNote, name: impl Display) {
        self.0.entry(remark).and_modify(|(count, _)| *count += 1).or_insert_with(|| (1, name.to_string()));
    }

    /// The count of one.
    pub fn count(&self, remark: &RecordNote) -> usize {
        self.0.get(remark).map_or(0, |(count, _)| *count)
    }

    /// The first record with [`RecordNote::UnreadAnswer`], and the field.
    pub fn unread_answer(&self) -> Option<(&str, &str)> {
        self.0.iter().find_map(|(remark, (_, first))| match remark {
            RecordNote::UnreadAnswer(key) => Some((first.as_str(), key.as_str())),
            _ => None,
        })
    }

    /// One line per remark.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(remark, (count, first))| {
            let which = if *count == 1 { "" } else { "first " };
            format!("{}: {which}{first}", remark.message(*count))
        })
    }
}
