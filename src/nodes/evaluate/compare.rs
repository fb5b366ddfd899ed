//! Compares two evaluations with the same questions.

use std::collections::BTreeMap;

use super::outcome::{Measured, SCORES};
use crate::artifact::{ItemId, Prediction, read_lines};
use crate::eval::captions::Counts;
use crate::eval::paired::{Marked, difference};
use crate::eval::suite::Benchmark;
use stic_engine::digest::Digest;
use stic_engine::node::{Artifact, Compared, Failure, Metric, Objects};

/// `mine` minus `other`; `None` where they are of other data, another benchmark, or scored otherwise.
///
/// # Errors
/// When a part of either cannot be read.
pub(super) fn compare(mine: &Artifact, other: &Artifact, objects: &dyn Objects) -> Result<Option<Compared>, Failure> {
    let (my, their) = (measured(mine, objects)?, measured(other, objects)?);
    let same = my.data == their.data && my.scores.benchmark == their.scores.benchmark && my.scoring == their.scoring;
    let benchmark = Benchmark::ALL.into_iter().find(|benchmark| benchmark.name() == my.scores.benchmark);
    let Some(benchmark) = benchmark.filter(|_| same) else { return Ok(None) };
    let found = difference(benchmark, &marked(mine, objects)?, &marked(other, objects)?);
    let metric = |(name, estimate): (&str, Option<crate::eval::bootstrap::Estimate>)| {
        let estimate = estimate?;
        Some(Metric { name: name.to_owned(), value: estimate.value, interval: estimate.interval })
    };
    let metrics: Vec<Metric> = found.metrics.into_iter().filter_map(metric).collect();
    let counts = BTreeMap::from([("pictures".to_owned(), found.pictures)]);
    Ok((!metrics.is_empty()).then_some(Compared { items: found.items, counts, metrics }))
}

fn measured(artifact: &Artifact, objects: &dyn Objects) -> Result<Measured, Failure> {
    serde_json::from_slice(&objects.read(&part(artifact, SCORES)?)?).map_err(|cause| broken(artifact, SCORES, cause))
}

fn marked(artifact: &Artifact, objects: &dyn Objects) -> Result<BTreeMap<ItemId, Marked>, Failure> {
    let name = artifact.kind.rows_part();
    let rows: Vec<Prediction> = read_lines(&objects.read(&part(artifact, name)?)?)
        .map_err(|(line, cause)| broken(artifact, name, format!("line {line}: {cause}")))?;
    let mark = |row: Prediction| {
        let count = |list: Option<Vec<String>>| list.map_or(0.0, |list| list.len() as f64);
        let (claimed, missed) = (count(row.claimed), count(row.missed));
        let found = claimed - count(row.invented);
        let counts = Counts { found, claimed, present: found + missed };
        (row.id, Marked { picture: row.picture, score: row.score, counts })
    };
    Ok(rows.into_iter().map(mark).collect())
}

fn part(artifact: &Artifact, name: &str) -> Result<Digest, Failure> {
    artifact.part(name).ok_or_else(|| Failure::node(format!("the result of `{}` has no part `{name}`", artifact.node)))
}

fn broken(artifact: &Artifact, name: &str, cause: impl std::fmt::Display) -> Failure {
    Failure::node(format!("the result of `{}` is broken: {name}: {cause}", artifact.node))
}
