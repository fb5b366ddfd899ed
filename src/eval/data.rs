//! Reads questions and annotations from a directory (see [`super`] for the files and their fields).
//!
//! Mistakes name their file and line or, in a JSON array, the entry. Pictures are looked up but not opened.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::captions::{Ambiguous, Phrases, Vocabulary};
use super::vqa::Right;
use crate::data::fields::take_picture;
use crate::data::lookup::{Found as Located, Lookup};
use crate::data::record_notes::{RecordNote, RecordNotes};
use crate::data::records::{self, RawRecord, each_record, read_line};
use crate::data::sniff::{WrongContent, behind_mark};
use crate::data::source::{RowErrors, SourceError};

/// A question about a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Its id in the data.
    pub label: Option<String>,
    /// The picture's file.
    pub picture: PathBuf,
    /// The question.
    pub question: String,
    /// The reference answers, at least one.
    pub right: Right,
    /// The kind of question, if given.
    pub kind: Option<String>,
}

/// The objects of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotation {
    /// Its id in the data.
    pub label: Option<String>,
    /// The picture's file.
    pub picture: PathBuf,
    /// Its objects.
    pub objects: Vec<Phrases>,
}

/// Annotations and their vocabulary.
#[derive(Clone, Debug)]
pub struct Annotations {
    /// One per picture.
    pub pictures: Vec<Annotation>,
    /// The digest of the annotations and `vocabulary.json`.
    pub vocabulary: Vocabulary,
    /// The contents of `vocabulary.json`, if it exists.
    pub listed: Vec<Phrases>,
    /// RecordNotes on reading them.
    pub remarks: RecordNotes,
}

/// The place of an entry in its file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of a JSON Lines file.
    Line(usize),
    /// An entry of a file that is one array.
    Entry(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Entry(number) => write!(f, "entry {number}"),
        }
    }
}

/// A mistake in the data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// `data` is not a directory.
    #[error("{}: {}", .0.display(), if .0.exists() { "a file, not a directory" } else { "no such directory" })]
    NoFolder(PathBuf),
    /// The file is missing.
    #[error("{}: `{file}` not found", .folder.display())]
    NoFile {
        /// The directory.
        folder: PathBuf,
        /// Its name.
        file: &'static str,
    },
    /// A file cannot be read.
    #[error("{}: {cause}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// It is a file of another kind.
    #[error("{}: {found}", .path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What.
        found: WrongContent,
    },
    /// A file has no entries.
    #[error("{}: it has no entries", .0.display())]
    Empty(PathBuf),
    /// Entries are invalid.
    #[error("{}", reported(.path, .faults))]
    Entries {
        /// The file.
        path: PathBuf,
        /// The mistakes.
        faults: RowErrors,
        /// Whether all of them are missing pictures.
        pictures: bool,
    },
    /// A phrase is listed under two objects.
    #[error("{}: {cause}", .folder.display())]
    Ambiguous {
        /// The directory.
        folder: PathBuf,
        /// Which.
        cause: Ambiguous,
    },
}

fn reported(path: &Path, faults: &RowErrors) -> String {
    let name = path.display();
    faults.reported(&name, |count| format!("{name}: {count} entries are invalid:")).unwrap_or_default()
}

/// Names of the file of questions; the first one that exists is read.
pub const QUESTIONS: [&str; 2] = ["questions.jsonl", "questions.json"];
/// Names of the file of annotations; the first one that exists is read.
pub const ANNOTATIONS: [&str; 2] = ["annotations.jsonl", "annotations.json"];
/// The name of the file of further objects.
pub const VOCABULARY: &str = "vocabulary.json";

/// The first of `names` that is a file in `folder`.
pub fn find(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// The questions in `folder`, with remarks.
///
/// # Errors
/// See [`DataError`].
pub fn questions(folder: &Path) -> Result<(Vec<Question>, RecordNotes), DataError> {
    let file = Entries::<QuestionEntry>::read(folder, QUESTIONS)?;
    file.each(|pictures, entry| {
        if entry.question.trim().is_empty() {
            pictures.remarks.push((RecordNote::EmptyQuestion, String::new()));
        }
        let right = match (entry.answer, entry.answers) {
            (Some(answer), None) => Right::Accepted(vec![answer.0]),
            (None, Some(answers)) => right(answers, entry.answer_type.as_deref())?,
            (Some(_), Some(_)) => return Err(EntryError::Entry("both `answer` and `answers` are given")),
            (None, None) => return Err(EntryError::Entry("neither `answer` nor `answers` is given")),
        };
        if right.answers().iter().all(|answer| answer.trim().is_empty()) {
            pictures.remarks.push((RecordNote::EmptyRight, String::new()));
        }
        Ok(Question {
            label: entry.id.or(entry.question_id).map(|id| id.0),
            picture: pictures.find(&entry.image)?,
            question: entry.question,
            right,
            kind: entry.kind.or(entry.question_type),
        })
    })
}

/// The annotations in `folder` and their vocabulary.
///
/// # Errors
/// See [`DataError`].
pub fn annotations(folder: &Path) -> Result<Annotations, DataError> {
    let file = Entries::<AnnotationEntry>::read(folder, ANNOTATIONS)?;
    let (pictures, remarks) = file.each(|pictures, entry| {
        Ok(Annotation {
            label: entry.id.map(|id| id.0),
            picture: pictures.find(&entry.image)?,
            objects: phrases(entry.objects)?,
        })
    })?;
    let path = folder.join(VOCABULARY);
    let listed = if path.is_file() {
        Entries::<OneOrMore>::parse(path)?.each(|_, entry| phrases(vec![entry]))?.0.concat()
    } else {
        Vec::new()
    };
    let objects = listed.iter().chain(pictures.iter().flat_map(|annotation| &annotation.objects));
    let vocabulary =
        Vocabulary::new(objects).map_err(|cause| DataError::Ambiguous { folder: folder.to_owned(), cause })?;
    Ok(Annotations { pictures, vocabulary, listed, remarks })
}

#[derive(Deserialize)]
struct QuestionEntry {
    id: Option<Scalar>,
    question_id: Option<Scalar>,
    image: String,
    question: String,
    answer: Option<Scalar>,
    answers: Option<Vec<Answer>>,
    answer_type: Option<String>,
    kind: Option<String>,
    question_type: Option<String>,
}

/// One of `answers`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string, a number, or an object with `answer`")]
enum Answer {
    /// As it is.
    Plain(Scalar),
    /// An annotator's, in VQA's form: with `answer_confidence` and `answer_id`, which nothing reads.
    Annotator { answer: Scalar },
}

/// How many annotators answered each question of VQA and TextVQA.
const ANNOTATORS: usize = 10;

/// `answers` according to `answer_type`; their number never decides whether they are annotators'.
fn right(answers: Vec<Answer>, answer_type: Option<&str>) -> Result<Right, EntryError> {
    let annotated = answers.iter().any(|answer| matches!(answer, Answer::Annotator { .. }));
    let answers = answers.into_iter().map(|answer| match answer {
        Answer::Plain(text) | Answer::Annotator { answer: text } => text.0,
    });
    let answers: Vec<String> = answers.collect();
    if answers.is_empty() {
        return Err(EntryError::Entry("`answers` is empty"));
    }
    match answer_type {
        // The types of VQA and VizWiz, whose answers are annotators'.
        Some("annotators" | "yes/no" | "number" | "other" | "unanswerable") => Ok(Right::Annotators(answers)),
        Some("accepted") => Ok(Right::Accepted(answers)),
        Some(_) => Err(EntryError::Entry(
            "`answer_type` must be `accepted`, `annotators`, or a type of VQA (`yes/no`, `number`, `other`)",
        )),
        None if annotated => Ok(Right::Annotators(answers)),
        None if answers.len() == ANNOTATORS && (1..answers.len()).any(|at| answers[..at].contains(&answers[at])) => {
            Err(EntryError::Entry(
                "ten `answers`, some of them equal, without an `answer_type`: add `\"answer_type\": \"annotators\"` for \
                 soft accuracy, `\"accepted\"` if each is right",
            ))
        }
        None => Ok(Right::Accepted(answers)),
    }
}

#[derive(Deserialize)]
struct AnnotationEntry {
    id: Option<Scalar>,
    image: String,
    objects: Vec<OneOrMore>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a phrase or a list of phrases")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

fn phrases(entries: Vec<OneOrMore>) -> Result<Vec<Phrases>, EntryError> {
    let lists = entries.into_iter().map(|entry| match entry {
        OneOrMore::One(phrase) => vec![phrase],
        OneOrMore::More(phrases) => phrases,
    });
    lists
        .map(|list| {
            let sound = !list.is_empty() && list.iter().all(|phrase| phrase.chars().any(char::is_alphanumeric));
            if sound { Ok(list) } else { Err(EntryError::Entry("an object has no words")) }
        })
        .collect()
}

/// A string, or a number or boolean written without quotes.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(text)),
            value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_)) => Ok(Self(value.to_string())),
            _ => Err(serde::de::Error::custom("expected a string or a number")),
        }
    }
}

/// A mistake in an entry.
enum EntryError {
    /// Invalid fields.
    Entry(&'static str),
    /// A missing picture, with the message.
    NoPicture(String),
}

/// Looks up the pictures of entries, like those of records.
struct Pictures<'a> {
    lookup: Lookup<'a>,
    /// RecordNotes on the last entry, with text that follows its place.
    remarks: Vec<(RecordNote, String)>,
}

impl Pictures<'_> {
    fn find(&mut self, name: &str) -> Result<PathBuf, EntryError> {
        if name.is_empty() {
            return Err(EntryError::Entry("`image` is empty"));
        }
        match self.lookup.find(name) {
            Some(Located::There(path)) => Ok(path),
            Some(Located::Respelled(path)) => {
                self.remarks.push((RecordNote::Spelling, format!(", `{name}`")));
                Ok(path)
            }
            // Only relative names can match the directory's pictures.
            Some(Located::Elsewhere(_)) | None => Err(EntryError::NoPicture(self.lookup.missing(name))),
        }
    }
}

/// The valid entries of a file with their places, and the mistakes in the others.
struct Entries<T> {
    path: PathBuf,
    entries: Vec<(Place, T)>,
    faults: RowErrors,
    remarks: RecordNotes,
}

impl<T: DeserializeOwned> Entries<T> {
    /// Reads the first of `names` that exists in `folder`.
    fn read(folder: &Path, names: [&'static str; 2]) -> Result<Self, DataError> {
        if !folder.is_dir() {
            return Err(DataError::NoFolder(folder.to_owned()));
        }
        let path =
            find(folder, &names).ok_or_else(|| DataError::NoFile { folder: folder.to_owned(), file: names[0] })?;
        Self::parse(path)
    }

    fn parse(path: PathBuf) -> Result<Self, DataError> {
        let text = std::fs::read(&path).map_err(|cause| DataError::Unreadable { path: path.clone(), cause })?;
        if let Some(found) = WrongContent::instead_of_text(&text).filter(|_| !text.is_empty()) {
            return Err(DataError::Other { path, found });
        }
        let text = behind_mark(&text);
        let (mut entries, mut faults, mut remarks) = (Vec::new(), RowErrors::default(), RecordNotes::default());
        let mut take = |place: Place, record: Result<RawRecord, String>| {
            let entry = record.and_then(|RawRecord { value, remarks: made }| {
                made.into_iter().for_each(|remark| remarks.add(remark, place));
                let (value, remark) = with_one_picture(value)?;
                remark.into_iter().for_each(|remark| remarks.add(remark, place));
                serde_json::from_value(value).map_err(|error| error.to_string())
            });
            match entry {
                Ok(entry) => entries.push((place, entry)),
                Err(cause) => faults.add(place, cause),
            }
        };
        if text.trim_ascii_start().first() == Some(&b'[') {
            let read = each_record(&path, &mut |place, record| {
                let (records::Place::Record(number) | records::Place::Line(number)) = place;
                take(Place::Entry(number), record);
                Ok(())
            });
            read.or_else(|error| match error {
                SourceError::Unreadable { path, cause } => Err(DataError::Unreadable { path, cause }),
                SourceError::Other { path, found } => Err(DataError::Other { path, found }),
                SourceError::Json { cause, .. } => {
                    faults.add("as JSON", cause);
                    Ok(())
                }
                other => {
                    faults.add("as JSON", other);
                    Ok(())
                }
            })?;
        } else {
            for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
                if !line.trim_ascii().is_empty() {
                    take(Place::Line(index + 1), read_line(line));
                }
            }
        }
        let empty = entries.is_empty() && faults.count() == 0;
        if empty { Err(DataError::Empty(path)) } else { Ok(Self { path, entries, faults, remarks }) }
    }

    /// Converts all entries with `make`. Also returns remarks; the error reports all mistakes.
    fn each<U>(
        self,
        make: impl Fn(&mut Pictures<'_>, T) -> Result<U, EntryError>,
    ) -> Result<(Vec<U>, RecordNotes), DataError> {
        let Self { path, entries, mut faults, mut remarks } = self;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut found = Pictures { lookup: Lookup::new(folder), remarks: Vec::new() };
        let mut pictures = faults.count() == 0;
        let mut made = Vec::with_capacity(entries.len());
        for (place, entry) in entries {
            match make(&mut found, entry) {
                Ok(entry) => made.push(entry),
                Err(EntryError::NoPicture(reported)) => faults.add(place, reported),
                Err(EntryError::Entry(cause)) => {
                    pictures = false;
                    faults.add(place, cause);
                }
            }
            for (remark, detail) in found.remarks.drain(..) {
                remarks.add(remark, format!("{place}{detail}"));
            }
        }
        if faults.count() == 0 { Ok((made, remarks)) } else { Err(DataError::Entries { path, faults, pictures }) }
    }
}

/// The entry with its picture moved to `image` from any other name of that field.
fn with_one_picture(value: serde_json::Value) -> Result<(serde_json::Value, Option<RecordNote>), String> {
    let serde_json::Value::Object(mut fields) = value else { return Ok((value, None)) };
    if fields.get("image").is_some_and(serde_json::Value::is_string) {
        return Ok((fields.into(), None));
    }
    let (name, remark) = take_picture(&mut fields, &[])?;
    fields.extend(name.map(|name| ("image".to_owned(), name.into())));
    Ok((fields.into(), remark))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with a picture `a.jpg` and these files.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.jpg"), "picture").unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    /// What is wrong with questions, without the directory's name.
    fn mistake(name: &str, text: &str) -> String {
        let folder = folder(&[(name, text)]);
        let error = questions(folder.path()).unwrap_err().to_string();
        error.replace(&folder.path().display().to_string(), "DIR")
    }

    #[test]
    fn lines_and_an_array_are_read_alike() {
        let one =
            r#"{"image": "a.jpg", "question": "How many?", "answer": 3, "kind": "count", "id": 7, "extra": null}"#;
        let two = r#"{"image": "a.jpg", "question": "Where?", "answers": ["left", "on the left"], "question_id": 8,
            "question_type": "where is"}"#
            .replace('\n', " ");
        let lines = folder(&[("questions.jsonl", &format!("{one}\n\n{two}\n"))]);
        let array = folder(&[("questions.json", &format!("[{one},\n{two}]"))]);
        let read = questions(lines.path()).unwrap().0;
        assert_eq!(read[0].right, Right::Accepted(vec!["3".to_owned()]));
        assert_eq!((read[0].label.as_deref(), read[0].kind.as_deref()), (Some("7"), Some("count")));
        assert_eq!(read[1].right.answers(), ["left", "on the left"]);
        assert_eq!((read[1].label.as_deref(), read[1].kind.as_deref()), (Some("8"), Some("where is")));
        let same = questions(array.path()).unwrap().0;
        assert_eq!(
            same.iter().map(|q| &q.right).collect::<Vec<_>>(),
            read.iter().map(|q| &q.right).collect::<Vec<_>>()
        );
    }

    #[test]
    fn whose_answers_they_are_is_said_in_the_data_not_guessed_from_their_number() {
        let read = |answers: String, more: &str| {
            let entry = format!(r#"{{"image": "a.jpg", "question": "q", "answers": {answers}{more}}}"#);
            questions(folder(&[("questions.jsonl", &entry)]).path()).map(|(read, _)| read[0].right.clone())
        };
        let list = |answers: &[&str]| serde_json::to_string(answers).unwrap();
        let spellings = ["9", "9 am", "9am", "9:00", "9:00 am", "9 a.m.", "nine am", "09:00", "nine", "at nine"];
        let owned = |answers: &[&str]| answers.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(read(list(&spellings), "").unwrap(), Right::Accepted(owned(&spellings)));
        let people = ["no", "no", "no", "no", "no", "no", "no", "no", "yes", "yes"];
        for answer_type in ["annotators", "yes/no", "number", "other"] {
            let said = format!(r#", "answer_type": "{answer_type}""#);
            assert_eq!(read(list(&people), &said).unwrap(), Right::Annotators(owned(&people)));
            assert_eq!(read(list(&spellings), &said).unwrap(), Right::Annotators(owned(&spellings)));
        }
        assert_eq!(read(list(&people), r#", "answer_type": "accepted""#).unwrap(), Right::Accepted(owned(&people)));
        let given: Vec<_> = (1..=10)
            .map(|id| serde_json::json!({"answer": "2", "answer_confidence": "maybe", "answer_id": id}))
            .collect();
        assert_eq!(read(serde_json::to_string(&given).unwrap(), "").unwrap(), Right::Annotators(owned(&["2"; 10])));
        // Both readings are possible, and they give different numbers.
        let error = read(list(&people), "").unwrap_err().to_string();
        assert!(error.contains("ten `answers`, some of them equal, without an `answer_type`"), "{error}");
        assert!(read(list(&people[..9]), "").is_ok());
        let error = read(list(&people), r#", "answer_type": "boolean""#).unwrap_err().to_string();
        assert!(error.contains("`answer_type` must be `accepted`"), "{error}");
    }

    #[test]
    fn pictures_are_named_as_in_records_and_texts_that_say_nothing_are_remarked() {
        let text = [
            r#"{"images": ["a.jpg"], "question": "q", "answer": "a"}"#,
            r#"{"image": ["a.jpg"], "question": " ", "answer": "a"}"#,
            r#"{"img": "a.jpg", "question": "q", "answers": ["", " "]}"#,
            r#"{"image": "a.jpg", "question": "q", "answers": ["", "a"]}"#,
        ];
        let folder = folder(&[("questions.jsonl", &text.join("\n"))]);
        let (read, remarks) = questions(folder.path()).unwrap();
        assert!(read.iter().all(|question| question.picture == folder.path().join("a.jpg")));
        let counts = [RecordNote::EmptyQuestion, RecordNote::EmptyRight, RecordNote::Key("img".to_owned())];
        assert_eq!(counts.map(|remark| remarks.count(&remark)), [1, 1, 1]);
        assert_eq!(
            mistake("questions.jsonl", r#"{"images": ["a.jpg", "b.jpg"], "question": "q", "answer": "a"}"#),
            "DIR/questions.jsonl, line 1: `images` names 2 pictures; a record can have only one"
        );
    }

    #[test]
    fn pictures_are_found_under_another_spelling_and_half_a_character_costs_no_file() {
        let entry = |image: &str| format!(r#"{{"image": "{image}", "question": "q\ud83d", "answer": "a"}}"#);
        for (name, on_disk, written) in [
            ("questions.json", "sub/caf\u{65}\u{301}.png", "sub/caf\u{e9}.png"),
            ("questions.jsonl", "sub/b.png", r"Sub\\b.png"),
            ("questions.jsonl", "a.PNG", "A.png"),
        ] {
            let text = if name.ends_with('l') { entry(written) } else { format!("[{}]", entry(written)) };
            let folder = folder(&[(name, &text)]);
            std::fs::create_dir_all(folder.path().join("sub")).unwrap();
            std::fs::write(folder.path().join(on_disk), "picture").unwrap();
            let (read, remarks) = questions(folder.path()).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(read[0].picture, folder.path().join(on_disk));
            assert_eq!(read[0].question, "q\u{fffd}");
            assert_eq!((remarks.count(&RecordNote::Spelling), remarks.count(&RecordNote::UnpairedSurrogate)), (1, 1));
        }
        let good = r#"{"image": "a.jpg", "question": "q", "answer": 1}"#;
        assert_eq!(
            mistake("questions.json", &format!("[{good}, {{\"image\": NaN}}, {good}]")),
            "DIR/questions.json, entry 2: `NaN` is not valid JSON, though Python writes it: use `null`, or omit the field"
        );
        assert_eq!(
            mistake("questions.jsonl", &good.replace("a.jpg", "a.png")),
            "DIR/questions.jsonl, line 1: no picture `DIR/a.png`; did you mean `a.jpg`?"
        );
    }

    #[test]
    fn a_mistake_names_its_file_and_line() {
        let good = r#"{"image": "a.jpg", "question": "q", "answer": "a"}"#;
        for (second, message) in [
            ("{\"image\": \"a.jpg\", ", "line 2: not valid JSON: EOF while parsing a value (column 18)"),
            (r#"{"image": "a.jpg", "answer": "a"}"#, "line 2: missing field `question`"),
            (r#"{"image": "a.jpg", "question": "q"}"#, "line 2: neither `answer` nor `answers` is given"),
            (r#"{"image": "a.jpg", "question": "q", "answers": []}"#, "line 2: `answers` is empty"),
            (r#"{"image": "a.jpg", "question": "q", "answer": []}"#, "line 2: expected a string or a number"),
            (
                r#"{"image": "a.jpg", "question": "q", "answers": [[]]}"#,
                "line 2: expected a string, a number, or an object with `answer`",
            ),
            (
                r#"{"image": "b.jpg", "question": "q", "answer": 1}"#,
                "line 2: no picture `DIR/b.jpg`; did you mean `a.jpg`?",
            ),
        ] {
            assert_eq!(
                mistake("questions.jsonl", &format!("{good}\n{second}\n")),
                format!("DIR/questions.jsonl, {message}")
            );
        }
        assert_eq!(
            mistake("questions.json", &format!("[{good}, {{\"image\": \"a.jpg\"}}]")),
            "DIR/questions.json, entry 2: missing field `question`"
        );
        let bad = "{}\n".repeat(12);
        let reported = mistake("questions.jsonl", &format!("{good}\n{bad}{}\n", good.replace("a.jpg", "b.jpg")));
        assert!(reported.starts_with("DIR/questions.jsonl: 13 entries are invalid:\nline 2: missing"), "{reported}");
        assert!(reported.ends_with("line 11: missing field `image`\nand 3 more"), "{reported}");
        assert_eq!(mistake("questions.jsonl", "\n"), "DIR/questions.jsonl: it has no entries");
        assert_eq!(mistake("other", ""), "DIR: `questions.jsonl` not found");
    }

    #[test]
    fn a_vocabulary_adds_claims_and_synonyms() {
        let files = [
            ("annotations.jsonl", r#"{"image": "a.jpg", "objects": ["puppy", ["sofa", "couch"]]}"#),
            ("vocabulary.json", r#"["cat", ["dog", "puppy"]]"#),
        ];
        let read = annotations(folder(&files).path()).unwrap();
        assert_eq!(read.vocabulary.claims("a cat and a dog on a couch"), ["cat", "dog", "sofa"]);
        assert_eq!(read.vocabulary.name("puppy"), Some("dog"));
        assert_eq!(read.listed.len(), 2);
    }

    #[test]
    fn an_object_without_words_is_refused() {
        let folder = folder(&[("annotations.jsonl", r#"{"image": "a.jpg", "objects": ["!"]}"#)]);
        assert!(annotations(folder.path()).unwrap_err().to_string().ends_with("line 1: an object has no words"));
    }
}
