//! A benchmark with its data: questions about pictures, and the scoring of responses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bootstrap::{Estimate, estimate};
use super::captions::{Claims, Counts, Phrases, Vocabulary, metrics};
use super::data::{self, ANNOTATIONS, DataError, QUESTIONS, VOCABULARY};
use super::vqa::{self, Extract, Right, Scorer};
use crate::data::record_notes::RecordNotes;
use stic_engine::digest::{Digest, Value};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Benchmark {
    /// Questions with short answers: accuracy.
    Vqa,
    /// Descriptions of pictures with annotated objects: recall, precision, F1, hallucination rate.
    Captions,
}

impl Benchmark {
    /// All benchmarks.
    pub const ALL: [Self; 2] = [Self::Vqa, Self::Captions];

    /// Its name in a pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vqa => "vqa",
            Self::Captions => "captions",
        }
    }
}

/// A question about a picture, or a picture to describe.
#[derive(Clone, Debug, PartialEq)]
pub struct TestItem {
    /// Its id in the data.
    pub label: Option<String>,
    /// The picture's file.
    pub picture: PathBuf,
    /// The question.
    pub question: String,
    gold: Gold,
}

#[derive(Clone, Debug, PartialEq)]
enum Gold {
    Answers { right: Right, kind: Option<String> },
    Objects(Vec<Phrases>),
}

impl TestItem {
    /// The reference answers as in the data (one per annotator), or the names of the objects.
    pub fn gold(&self) -> Vec<String> {
        match &self.gold {
            Gold::Answers { right, .. } => right.answers().to_vec(),
            Gold::Objects(objects) => objects.iter().filter_map(|phrases| phrases.first()).cloned().collect(),
        }
    }

    /// The kind of question, if the data has one.
    pub fn kind(&self) -> Option<&str> {
        match &self.gold {
            Gold::Answers { kind, .. } => kind.as_deref(),
            Gold::Objects(_) => None,
        }
    }
}

/// A benchmark's data.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The benchmark.
    pub benchmark: Benchmark,
    /// The items, in the order of the data.
    pub items: Vec<TestItem>,
    /// The data files, without the pictures.
    pub files: Vec<PathBuf>,
    /// Notes on reading them.
    pub notes: Vec<String>,
    vocabulary: Vocabulary,
    listed: Vec<Phrases>,
}

/// How short answers are scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scoring {
    /// How to extract the answer from a response.
    pub extract: Extract,
    /// How to compare it with annotators' answers.
    pub scorer: Scorer,
}

/// The score of a response.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// What was extracted: the answer, or the claimed objects.
    pub answer: String,
    /// 0 … 1: the answer's score, or the F1 of the claims.
    pub score: f64,
    /// The claims of a description; `None` for an answer.
    pub claims: Option<Claims>,
}

impl Mark {
    fn counts(&self) -> Counts {
        self.claims.as_ref().map(Claims::counts).unwrap_or_default()
    }
}

/// The scores of all responses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The benchmark's name.
    pub benchmark: String,
    /// Number of scored responses.
    pub items: usize,
    /// Number of their pictures, over which intervals are resampled.
    pub pictures: usize,
    /// Metrics, 0 … 1, in the order of the table.
    pub metrics: Vec<Score>,
    /// Metrics that are undefined for these responses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undefined: Vec<String>,
    /// Accuracy by kind of question.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_kind: Vec<Score>,
}

/// A measured share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Its name.
    pub name: String,
    /// The share.
    pub value: f64,
    /// Its 95 % interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// Number of responses.
    pub items: usize,
}

/// A line per remark, starting with the name of the first of `files`.
fn notes(files: &[PathBuf], remarks: &RecordNotes) -> Vec<String> {
    let name = files.first().and_then(|file| file.file_name()).unwrap_or_default().to_string_lossy();
    remarks.lines().map(|line| format!("`{name}`: {line}")).collect()
}

impl Suite {
    /// The data of `benchmark` in `folder`. `describe_prompt` is the prompt of `captions`.
    ///
    /// # Errors
    /// See [`DataError`].
    pub fn read(benchmark: Benchmark, folder: &Path, describe_prompt: &str) -> Result<Self, DataError> {
        match benchmark {
            Benchmark::Vqa => {
                let (questions, remarks) = data::questions(folder)?;
                let items = questions.into_iter().map(|entry| TestItem {
                    label: entry.label,
                    picture: entry.picture,
                    question: entry.question,
                    gold: Gold::Answers { right: entry.right, kind: entry.kind },
                });
                let items = items.collect();
                let files: Vec<PathBuf> = data::find(folder, &QUESTIONS).into_iter().collect();
                let notes = notes(&files, &remarks);
                Ok(Self { benchmark, items, files, vocabulary: Vocabulary::default(), listed: Vec::new(), notes })
            }
            Benchmark::Captions => {
                let read = data::annotations(folder)?;
                let items = read.pictures.into_iter().map(|entry| TestItem {
                    label: entry.label,
                    picture: entry.picture,
                    question: describe_prompt.to_owned(),
                    gold: Gold::Objects(entry.objects),
                });
                let files = [data::find(folder, &ANNOTATIONS), data::find(folder, &[VOCABULARY])];
                let files: Vec<PathBuf> = files.into_iter().flatten().collect();
                let notes = notes(&files, &read.remarks);
                let (vocabulary, listed) = (read.vocabulary, read.listed);
                Ok(Self { benchmark, items: items.collect(), files, vocabulary, listed, notes })
            }
        }
    }

    /// The digest of the data, independent of paths and labels: questions, answers, objects, and `pictures`, the digest
    /// of each item's picture.
    pub fn identity(&self, pictures: &[Digest]) -> Digest {
        let lists = |objects: &[Phrases]| Value::from(objects.to_vec());
        let entry = |(item, picture): (&TestItem, &Digest)| {
            let gold = match &item.gold {
                Gold::Answers { right, kind } => {
                    let kind = kind.iter().cloned().collect::<Vec<_>>();
                    let mut gold = vec![Value::from(right.answers().to_vec()), kind.into()];
                    if matches!(right, Right::Annotators(_)) {
                        gold.push("annotators".into());
                    }
                    gold
                }
                Gold::Objects(objects) => vec![lists(objects)],
            };
            // The prompt of `captions` is a parameter, not data.
            let question = if self.benchmark == Benchmark::Vqa { item.question.as_str() } else { "" };
            Value::List(vec![Value::from(*picture), question.into(), Value::List(gold)])
        };
        let entries: Vec<Value> = self.items.iter().zip(pictures).map(entry).collect();
        let fields = vec![("entries".to_owned(), Value::List(entries)), ("vocabulary".to_owned(), lists(&self.listed))];
        Digest::of_fields("stic evaluation data v1", &fields)
    }

    /// Scores the response `text` to `item`.
    pub fn mark(&self, item: &TestItem, text: &str, scoring: Scoring) -> Mark {
        match &item.gold {
            Gold::Answers { right, .. } => {
                let answer = scoring.extract.answer(text);
                Mark { answer: answer.to_owned(), score: vqa::score(answer, right, scoring.scorer), claims: None }
            }
            Gold::Objects(objects) => {
                let claims = Claims::new(&self.vocabulary, text, objects);
                Mark { answer: claims.claimed.join(", "), score: claims.counts().f1(), claims: Some(claims) }
            }
        }
    }

    /// Whether `text` is wrong for VQA's scorer, but right for one that normalizes answers even if all annotators
    /// agree.
    pub fn is_spelling(&self, item: &TestItem, text: &str, scoring: Scoring) -> bool {
        let Gold::Answers { right: right @ Right::Annotators(_), .. } = &item.gold else { return false };
        let answer = scoring.extract.answer(text);
        scoring.scorer == Scorer::Vqa
            && vqa::score(answer, right, Scorer::Vqa) == 0.0
            && vqa::score(answer, right, Scorer::TextVqa) > 0.0
    }

    /// A caveat about the scores, if the data calls for one.
    pub fn caveat(&self) -> Option<String> {
        if self.benchmark != Benchmark::Captions || !self.listed.is_empty() {
            return None;
        }
        Some(if self.vocabulary.is_empty() {
            "no annotation names an object and there is no `vocabulary.json`: recall, precision, f1 and hallucination are \
             not defined"
                .to_owned()
        } else {
            "there is no `vocabulary.json`: objects that no annotation names are not recognized, so precision and f1 come \
             out too high and hallucination too low"
                .to_owned()
        })
    }

    /// The scores of `marked`: indices of items with the digests of their pictures and their marks.
    pub fn scores(&self, marked: &[(usize, Digest, Mark)]) -> Scores {
        let score = |name: &str, estimate: Estimate, items| Score {
            name: name.to_owned(),
            value: estimate.value,
            interval: estimate.interval,
            items,
        };
        let all: Vec<&(usize, Digest, Mark)> = marked.iter().collect();
        let mut by_kind: BTreeMap<&str, Vec<&(usize, Digest, Mark)>> = BTreeMap::new();
        for row in marked {
            if let Some(TestItem { gold: Gold::Answers { kind: Some(kind), .. }, .. }) = self.items.get(row.0) {
                by_kind.entry(kind).or_default().push(row);
            }
        }
        let measured: Vec<(&str, Option<Estimate>)> = match self.benchmark {
            Benchmark::Vqa => vec![("accuracy", accuracy(&all))],
            Benchmark::Captions => metrics(&all.iter().map(|(_, _, mark)| mark.counts()).collect::<Vec<_>>()).into(),
        };
        let undefined = measured.iter().filter(|(_, estimate)| estimate.is_none());
        let undefined = undefined.map(|(name, _)| (*name).to_owned()).collect();
        let metrics = measured.into_iter().filter_map(|(name, found)| Some(score(name, found?, all.len()))).collect();
        Scores {
            benchmark: self.benchmark.name().to_owned(),
            items: marked.len(),
            pictures: clusters(&all).len(),
            metrics,
            undefined,
            by_kind: by_kind.iter().filter_map(|(kind, rows)| Some(score(kind, accuracy(rows)?, rows.len()))).collect(),
        }
    }
}

/// The mean score, resampled over pictures.
fn accuracy(rows: &[&(usize, Digest, Mark)]) -> Option<Estimate> {
    estimate(&clusters(rows), &[|[score, count]| score / count])[0]
}

/// Sum of scores and count by picture, in the order of their first questions.
fn clusters(rows: &[&(usize, Digest, Mark)]) -> Vec<[f64; 2]> {
    let mut places: BTreeMap<Digest, usize> = BTreeMap::new();
    let mut clusters: Vec<[f64; 2]> = Vec::new();
    for (_, picture, mark) in rows {
        let place = *places.entry(*picture).or_insert(clusters.len());
        if place == clusters.len() {
            clusters.push([0.0; 2]);
        }
        clusters[place][0] += mark.score;
        clusters[place][1] += 1.0;
    }
    clusters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.jpg", "b.jpg"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    const QUESTIONS: &str = r#"{"image": "a.jpg", "question": "How many?", "answer": 3, "kind": "count", "id": "q1"}
{"image": "a.jpg", "question": "What color?", "answer": "red", "kind": "color"}
{"image": "b.jpg", "question": "How many?", "answer": "2", "kind": "count"}
"#;

    fn pictures(suite: &Suite) -> Vec<Digest> {
        suite.items.iter().map(|item| Digest::of_file(&item.picture).unwrap()).collect()
    }

    fn scores(suite: &Suite, replies: &[&str]) -> Scores {
        let scoring = Scoring { extract: Extract::FinalAnswer, ..Scoring::default() };
        let rows = suite.items.iter().zip(pictures(suite)).zip(replies).enumerate();
        let marked = rows.map(|(index, ((item, picture), text))| (index, picture, suite.mark(item, text, scoring)));
        suite.scores(&marked.collect::<Vec<_>>())
    }

    #[test]
    fn accuracy_is_of_all_questions_and_by_kind() {
        let folder = folder(&[("questions.jsonl", QUESTIONS)]);
        let suite = Suite::read(Benchmark::Vqa, folder.path(), "").unwrap();
        let scores = scores(&suite, &["three", "blue", "The answer is 2."]);
        assert_eq!((scores.items, scores.pictures), (3, 2));
        assert_eq!(scores.metrics[0].name, "accuracy");
        assert!((scores.metrics[0].value - 2.0 / 3.0).abs() < 1e-12);
        // Two pictures with 1 of 2 and 1 of 1 right: whatever is drawn lies between.
        assert_eq!(scores.metrics[0].interval, Some([0.5, 1.0]));
        let kinds: Vec<_> = scores.by_kind.iter().map(|kind| (kind.name.as_str(), kind.value, kind.items)).collect();
        assert_eq!(kinds, [("color", 0.0, 1), ("count", 1.0, 2)]);
    }

    #[test]
    fn captions_are_scored_by_what_they_claim() {
        let lines = "{\"image\": \"a.jpg\", \"objects\": [\"dog\", \"ball\"]}\n{\"image\": \"b.jpg\", \"objects\": [\"cat\"]}\n";
        let folder = folder(&[("annotations.jsonl", lines)]);
        let suite = Suite::read(Benchmark::Captions, folder.path(), "Describe.").unwrap();
        assert_eq!(suite.items[0].question, "Describe.");
        let marks: Vec<Mark> = suite
            .items
            .iter()
            .zip(["Two dogs.", "A cat with a ball."])
            .map(|(a, text)| suite.mark(a, text, Scoring::default()))
            .collect();
        assert_eq!(marks[1].answer, "cat, ball");
        let claims = marks[1].claims.clone().unwrap();
        assert_eq!((claims.invented, claims.missed), (vec!["ball".to_owned()], Vec::new()));
        assert!(suite.caveat().unwrap().starts_with("there is no `vocabulary.json`"));
        let silent = scores(&suite, &["Nothing.", "Nobody."]);
        assert_eq!(silent.undefined, ["precision", "hallucination"]);
        let scores = scores(&suite, &["Two dogs.", "A cat with a ball."]);
        let values: Vec<_> = scores.metrics.iter().map(|metric| (metric.name.as_str(), metric.value)).collect();
        let third = 1.0 / 3.0;
        assert_eq!(
            values,
            [("recall", 2.0 * third), ("precision", 2.0 * third), ("f1", 2.0 * third), ("hallucination", third)]
        );
    }

    #[test]
    fn data_are_named_by_what_is_asked_and_right_not_by_where_they_lie() {
        let identity = |text: &str| {
            let folder = folder(&[("questions.jsonl", text)]);
            let suite = Suite::read(Benchmark::Vqa, folder.path(), "").unwrap();
            suite.identity(&pictures(&suite))
        };
        assert_eq!(identity(QUESTIONS), identity(QUESTIONS));
        assert_eq!(identity(QUESTIONS), identity(&QUESTIONS.replace("q1", "other label")));
        for (old, new) in [
            ("How many?", "How much?"),
            ("red", "blue"),
            ("color\"}", "hue\"}"),
            (r#""answer": "2""#, r#""answer_type": "number", "answers": ["2"]"#),
            ("b.jpg", "a.jpg"),
        ] {
            assert_ne!(identity(QUESTIONS), identity(&QUESTIONS.replace(old, new)), "{old}");
        }
    }
}
