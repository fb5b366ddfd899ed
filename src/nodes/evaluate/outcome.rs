//! What an evaluation comes to: predictions, scores, and what people are shown.

use std::collections::BTreeMap;

use super::{EvaluateNode, Loaded, Said};
use crate::artifact::{ArtifactKind, Finish, LABELS, Label, Prediction, write_lines};
use crate::digest::Digest;
use crate::eval::suite::{Benchmark, Mark, Scores};
use crate::node::{Failure, Item, ItemValue, Metric, Objects, Output, Part, Summary};
use crate::nodes::listing::absolute;

/// The identity part with the scores, as [`Scores`].
const SCORES: &str = "scores.json";

/// Scores what was said and puts the result into the store. `adapter` is the name of the node that made the adapter.
///
/// # Errors
/// When the store cannot be written, or `values` are not of these items.
pub(super) fn outcome(
    node: &EvaluateNode,
    loaded: &Loaded,
    items: &[Item],
    values: &[(usize, ItemValue)],
    adapter: Option<&str>,
    objects: &dyn Objects,
) -> Result<Output, Failure> {
    let (mut predictions, mut labels, mut marked) = (Vec::new(), Vec::new(), Vec::new());
    let mut cut = 0;
    for (index, value) in values {
        let (asked, picture) = loaded.asked(*index)?;
        let said: Said = serde_json::from_value(value.value.clone())
            .map_err(|cause| Failure::node(format!("a finished item is broken: {cause}")))?;
        let mark = loaded.suite.mark(asked, &said.text);
        cut += usize::from(said.finish == Finish::Length);
        predictions.push(Prediction {
            id: items[*index].id.clone(),
            question: asked.question.clone(),
            description: said.description,
            prompt: said.prompt,
            text: said.text,
            answer: mark.answer.clone(),
            score: mark.score,
        });
        labels.push(Label { name: asked.label.clone(), path: Some(absolute(&asked.picture)) });
        marked.push((*index, picture, mark));
    }
    let scores = loaded.suite.scores(&marked);
    let mut table = serde_json::to_vec_pretty(&scores).map_err(|cause| Failure::node(format!("{SCORES}: {cause}")))?;
    table.push(b'\n');
    let part = |name: &str, text: &[u8]| Ok::<_, Failure>(Part { name: name.to_owned(), digest: objects.put(text)? });
    let rows = ArtifactKind::Scores.rows_name().unwrap_or_default();
    Ok(Output {
        identity: vec![part(rows, &write_lines(&predictions))?, part(SCORES, &table)?],
        side: vec![part(LABELS, &write_lines(&labels))?],
        objects: Vec::new(),
        summary: Summary {
            line: line(&scores, cut),
            metrics: metrics(&scores),
            labels: summary_labels(node, loaded, adapter),
            samples: samples(loaded, &marked, &predictions),
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

/// What the table of a run groups by and names its rows with.
fn summary_labels(node: &EvaluateNode, loaded: &Loaded, adapter: Option<&str>) -> BTreeMap<String, String> {
    let folder = node.data.file_name().unwrap_or(node.data.as_os_str()).to_string_lossy();
    let mut labels: BTreeMap<String, String> = [
        ("benchmark", node.benchmark.name()),
        ("data", &folder),
        ("data digest", &loaded.suite.identity(&loaded.pictures).short()),
        ("form", node.form.name()),
        ("model", &node.model.name),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    if let Some(adapter) = adapter {
        labels.insert("adapter".to_owned(), adapter.to_owned());
    }
    labels
}

/// `1500 questions about 300 pictures: accuracy 0.913 [0.901, 0.924]`.
fn line(scores: &Scores, cut: usize) -> String {
    let mut line = if scores.benchmark == Benchmark::Vqa.name() {
        format!("{} questions about {} pictures", scores.items, scores.pictures)
    } else {
        format!("{} descriptions", scores.items)
    };
    for (index, score) in scores.metrics.iter().enumerate() {
        line += &format!("{} {} {:.3}", if index == 0 { ":" } else { "," }, score.name, score.value);
        if let Some([low, high]) = score.interval {
            line += &format!(" [{low:.3}, {high:.3}]");
        }
    }
    if cut > 0 {
        line += &format!("; {cut} cut at the limit of new tokens");
    }
    line
}

/// The first answer that is right and the first that is not, as people compare them.
fn samples(loaded: &Loaded, marked: &[(usize, Digest, Mark)], predictions: &[Prediction]) -> Vec<String> {
    let rows = || std::iter::zip(marked, predictions);
    let right = rows().find(|((_, _, mark), _)| mark.score == 1.0);
    let wrong = rows().find(|((_, _, mark), _)| mark.score < 1.0);
    let shown = |((index, _, mark), prediction): (&(usize, Digest, Mark), &Prediction)| {
        let (asked, _) = loaded.asked(*index).ok()?;
        let name = asked.picture.file_name()?.to_string_lossy();
        let (question, text) = (one_line(&prediction.question), one_line(&prediction.text));
        Some(format!("{name}: {question} → {text} (score {:.2}, right: {})", mark.score, one_line(&asked.gold())))
    };
    right.into_iter().chain(wrong).filter_map(shown).collect()
}

/// The beginning of a text, on one line.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 80;
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.chars().count() <= LONGEST { words } else { words.chars().take(LONGEST).chain(['…']).collect() }
}
