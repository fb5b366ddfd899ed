//! The result of an evaluation: predictions, scores and the summary.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{EvaluateNode, Loaded, Reply};
use crate::artifact::{self, Finish, LABELS, Label, Prediction, write_lines};
use crate::eval::captions::Claims;
use crate::eval::suite::{Benchmark, Mark, Scores};
use crate::eval::vqa::{Extract, Scorer};
use crate::nodes::labels::absolute;
use stic_engine::diagnostic::counted;
use stic_engine::digest::Digest;
use stic_engine::node::{Block, Failure, Item, ItemValue, Metric, Objects, Output, Part, Sample, Summary};

/// The identity part with the scores, as [`Scores`].
pub(super) const SCORES: &str = "scores.json";

/// The scores, and what they are comparable by.
#[derive(Serialize, Deserialize)]
pub(super) struct Measured {
    #[serde(flatten)]
    pub scores: Scores,
    /// The content of the data, independent of its path.
    pub data: Digest,
    /// How answers were scored, where that is not the default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scoring: BTreeMap<String, String>,
    /// What a reader has to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Scores what was said and puts the result into the store.
///
/// # Errors
/// When the store cannot be written, or `values` are not of these items.
pub(super) fn outcome(
    node: &EvaluateNode,
    loaded: &Loaded,
    items: &[Item],
    values: &mut dyn Iterator<Item = (usize, ItemValue)>,
    objects: &dyn Objects,
) -> Result<Output, Failure> {
    let (mut predictions, mut labels, mut marked) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cut, mut spelled) = (0, 0);
    for (index, value) in values {
        let (item, picture) = loaded.entry(index)?;
        let reply: Reply = serde_json::from_value(value.value)
            .map_err(|cause| Failure::node(format!("a finished item is broken: {cause}")))?;
        let mark = loaded.suite.mark(item, &reply.text, node.scoring());
        spelled += usize::from(loaded.suite.is_spelling(item, &reply.text, node.scoring()));
        cut += usize::from(reply.finish == Finish::Length);
        let lists = |Claims { claimed, invented, missed }: Claims| (Some(claimed), Some(invented), Some(missed));
        let (claimed, invented, missed) = mark.claims.clone().map(lists).unwrap_or_default();
        predictions.push(Prediction {
            id: items[index].id.clone(),
            picture,
            question: item.question.clone(),
            question_type: item.kind().map(str::to_owned),
            description: reply.description,
            prompt: reply.prompt,
            text: reply.text,
            answer: mark.answer.clone(),
            gold: item.gold(),
            score: mark.score,
            claimed,
            invented,
            missed,
        });
        labels.push(Label { name: item.label.clone(), path: Some(absolute(&item.picture)), place: None });
        marked.push((index, picture, mark));
    }
    let measured = Measured {
        scores: loaded.suite.scores(&marked),
        data: loaded.suite.identity(&loaded.pictures),
        scoring: scoring(node),
        notes: notes(loaded, spelled),
    };
    let mut table =
        serde_json::to_vec_pretty(&measured).map_err(|cause| Failure::node(format!("{SCORES}: {cause}")))?;
    table.push(b'\n');
    let part = |name: &str, text: &[u8]| Ok::<_, Failure>(Part { name: name.to_owned(), digest: objects.put(text)? });
    let rows = artifact::SCORES.rows_part();
    Ok(Output {
        identity: vec![part(rows, &write_lines(&predictions))?, part(SCORES, &table)?],
        side: vec![part(LABELS, &write_lines(&labels))?],
        objects: Vec::new(),
        summary: Summary {
            line: line(&measured, cut),
            metrics: metrics(&measured.scores),
            labels: summary_labels(node, &measured),
            blocks: samples(loaded, &marked, &predictions),
            ..Summary::default()
        },
    })
}

fn metrics(scores: &Scores) -> Vec<Metric> {
    let metric = |score: &crate::eval::suite::Score| Metric {
        name: score.name.clone(),
        value: score.value,
        interval: score.interval,
    };
    scores.metrics.iter().map(metric).collect()
}

/// Parameters of scoring that are not the default.
fn scoring(node: &EvaluateNode) -> BTreeMap<String, String> {
    let (extract, scorer) = (node.extract, node.scorer);
    let settings = [
        ("extract", extract.name(), extract == Extract::default()),
        ("scorer", scorer.name(), scorer == Scorer::default()),
    ];
    let settings = settings.into_iter().filter(|(_, _, default)| !default);
    settings.map(|(label, name, _)| (label.to_owned(), name.to_owned())).collect()
}

fn notes(loaded: &Loaded, spelled: usize) -> Vec<String> {
    let spelled = (spelled > 0).then(|| {
        format!(
            "{spelled} differ from what all annotators say only in case, punctuation or articles, and score 0 as in VQA's own \
             evaluation; `scorer = \"textvqa\"` accepts them"
        )
    });
    loaded.suite.caveat().into_iter().chain(spelled).collect()
}

/// What the table of a run groups by and names its rows with, but for names of the pipeline file
/// ([`stic_engine::node::Node::names`]).
fn summary_labels(node: &EvaluateNode, measured: &Measured) -> BTreeMap<String, String> {
    let mut labels = measured.scoring.clone();
    labels.extend(
        [
            ("benchmark", node.benchmark.name().to_owned()),
            ("data digest", measured.data.short()),
            ("form", node.describe_and_respond.name().to_owned()),
        ]
        .map(|(label, value)| (label.to_owned(), value)),
    );
    labels
}

/// `1,500 questions about 300 pictures: accuracy 0.913 [0.901, 0.924]`.
fn line(measured: &Measured, cut: usize) -> String {
    let scores = &measured.scores;
    let mut line = if scores.benchmark == Benchmark::Vqa.name() {
        format!("{} about {}", counted(scores.items, "question"), counted(scores.pictures, "picture"))
    } else {
        counted(scores.items, "description")
    };
    for (index, score) in scores.metrics.iter().enumerate() {
        line += &format!("{} {} {:.3}", if index == 0 { ":" } else { "," }, score.name, score.value);
        if let Some([low, high]) = score.interval {
            line += &format!(" [{low:.3}, {high:.3}]");
        }
    }
    if !scores.undefined.is_empty() && scores.items > 0 {
        let why = if scores.undefined.len() > 2 { "" } else { " (no objects mentioned)" };
        line += &format!("; {} undefined{why}", scores.undefined.join(", "));
    }
    if cut > 0 {
        line += &format!("; {cut} cut at `max_new_tokens`");
    }
    for note in &measured.notes {
        line += &format!("; {note}");
    }
    line
}

/// The first right and the first wrong answer.
fn samples(loaded: &Loaded, marked: &[(usize, Digest, Mark)], predictions: &[Prediction]) -> Vec<Block> {
    let rows = || std::iter::zip(marked, predictions);
    let right = rows().find(|((_, _, mark), _)| mark.score == 1.0);
    let wrong = rows().find(|((_, _, mark), _)| mark.score < 1.0);
    let shown = |((index, picture, mark), prediction): (&(usize, Digest, Mark), &Prediction)| {
        let (item, _) = loaded.entry(*index).ok()?;
        let (question, text) = (one_line(&prediction.question), one_line(&prediction.text));
        let right = one_line(&distinct(item.gold()).join(" | "));
        let text = format!("{question} → {text} (score {:.2}, right: {right})", mark.score);
        Some(Block::Sample(Sample { file: *picture, name: None, text, fields: Vec::new() }))
    };
    right.into_iter().chain(wrong).filter_map(shown).collect()
}

/// Each once, in the order of their first.
fn distinct(texts: Vec<String>) -> Vec<String> {
    let mut distinct = Vec::new();
    for text in texts {
        if !distinct.contains(&text) {
            distinct.push(text);
        }
    }
    distinct
}

/// The beginning of a string, on one line.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 80;
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.chars().count() <= LONGEST { words } else { words.chars().take(LONGEST).chain(['…']).collect() }
}
