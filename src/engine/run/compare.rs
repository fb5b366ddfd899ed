//! Compares the results of a run that measure the same. What they measure only the nodes know.

use super::execute::Shared;
use crate::event::{Difference, NodeReport, State};
use crate::node::Artifact;
use crate::plan::StoredResult;

/// How the results in `nodes` differ, each from the first one that can be compared with it, in the order of the
/// pipeline. What cannot be read is reported, and compared with nothing.
pub fn differences(shared: &Shared<'_>, nodes: &[NodeReport]) -> Vec<Difference> {
    let mut references: Vec<(usize, Artifact)> = Vec::new();
    let mut found = Vec::new();
    'nodes: for report in nodes.iter().filter(|report| matches!(report.how, State::Hit | State::Run)) {
        let measures = report.summary.as_ref().is_some_and(|summary| !summary.metrics.is_empty());
        let Some((index, artifact)) = measures.then(|| result(shared, report)).flatten() else { continue };
        let node = &shared.graph.nodes[index];
        for (reference, other) in &references {
            let reference = &shared.graph.nodes[*reference];
            if reference.kind != node.kind {
                continue;
            }
            match node.node.differences(&artifact, other, &**shared.store) {
                Ok(None) => {}
                Ok(Some(compared)) => {
                    let (node, reference) = (node.name.clone(), reference.name.clone());
                    found.push(Difference { node, reference, compared });
                    continue 'nodes;
                }
                Err(failure) => {
                    shared.reporter.note(&node.name, format!("not compared with `{}`: {failure}", reference.name));
                    continue 'nodes;
                }
            }
        }
        references.push((index, artifact));
    }
    found
}

/// The node that `report` is about, and its result.
fn result(shared: &Shared<'_>, report: &NodeReport) -> Option<(usize, Artifact)> {
    let index = shared.graph.find(&report.node)?;
    let record = shared.store.record(&report.key.as_ref()?.parse().ok()?).ok()??;
    Some((index, StoredResult::of(index, &record).artifact(shared.graph)))
}
