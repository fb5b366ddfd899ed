//! The summary of a run: samples and tables of metrics, where each result is, and the command to type next.
//!
//! Does not know any kind of node: samples and metrics come from each node's [`Summary`].

use std::collections::BTreeSet;
use std::path::Path;

use unicode_width::UnicodeWidthStr;

use super::curve;
use super::shell;
use super::table::{hanging, natural_width, table, wrapped};
use super::ui::{Paint, Ui, duration, printable};
use crate::artifact;
use stic_engine::diagnostic::{counted, rounded};
use stic_engine::event::{Difference, NodeReport, State};
use stic_engine::graph::Graph;
use stic_engine::node::{Block, Metric, Sample, Summary};
use stic_engine::run::RunReport;
use stic_engine::store::is_cache;

/// A run to summarize.
pub struct RunSummary<'a> {
    /// The report of the run.
    pub report: &'a RunReport,
    /// Its graph.
    pub graph: &'a Graph,
    /// The pipeline file.
    pub file: &'a Path,
    /// The cache directory.
    pub cache: &'a Path,
    /// The options with which further commands find the results: [`super::args::Settings::options`],
    /// [`super::args::DeviceOptions::written`] and [`super::args::Global::cache_option`].
    pub options: &'a str,
    /// The command that continues the run: [`super::args::Run::resume_command`].
    pub resume: &'a str,
}

impl RunSummary<'_> {
    /// Samples of results and tables of metrics and differences. Empty unless the run is complete.
    pub fn results(&self, ui: &Ui) -> Vec<String> {
        let report = self.report;
        if !report.is_complete() {
            return Vec::new();
        }
        let rows: Vec<Row<'_>> =
            report.nodes.iter().filter_map(|node| Some((node.node.as_str(), node.summary.as_ref()?))).collect();
        let mut blocks = self.samples(&rows, ui);
        blocks.extend(tables(&rows, &report.differences, ui.width));
        blocks.join(&String::new())
    }

    /// Prints where the results are, how many nodes ran, and what to do next.
    pub fn print(&self, ui: &Ui) {
        // The cache may have been removed during the run.
        let removed = is_cache(self.cache).is_ok_and(|exists| !exists);
        if !removed {
            self.print_places(ui);
        }
        self.print_counts(ui);
        if removed {
            let cache = self.cache.display();
            ui.print(format_args!("the cache `{cache}` was removed; restore it and run again: stic {}", self.resume));
            return;
        }
        self.print_next(ui);
    }

    /// Samples of pairs and training curves, or those of the nodes in `[pipeline] show`; with `-v` those of all nodes.
    fn samples(&self, rows: &[Row<'_>], ui: &Ui) -> Vec<Vec<String>> {
        let is_shown =
            |(node, summary): &&Row<'_>| !summary.blocks.is_empty() && (ui.verbose || self.shows_blocks_of(node));
        rows.iter().filter(is_shown).map(|(node, summary)| blocks(node, summary, ui)).collect()
    }

    fn shows_blocks_of(&self, node: &str) -> bool {
        let Some(node) = self.graph.find(node).map(|index| &self.graph.nodes[index]) else { return false };
        match &self.graph.show {
            Some(names) => names.contains(if node.imported { &node.name } else { &node.table }),
            None => matches!(node.output, artifact::PAIRS | artifact::ADAPTER),
        }
    }

    fn print_places(&self, ui: &Ui) {
        let rows: Vec<Vec<String>> = self
            .report
            .nodes
            .iter()
            .filter_map(|node| {
                let key = node.key.as_deref().filter(|_| matches!(node.how, State::Hit | State::Run))?;
                // A glob, because a whole key would fill the line.
                let place = format!("results/{}*.json", key.get(..12).unwrap_or(key));
                Some(vec![node.node.clone(), place])
            })
            .collect();
        if !rows.is_empty() {
            ui.say("");
            ui.say(format_args!("results in {}", self.cache.display()));
            let width = ui.width.saturating_sub(2);
            table(&rows, false, width).iter().for_each(|line| ui.say(format_args!("  {line}")));
        }
    }

    fn print_counts(&self, ui: &Ui) {
        let report = self.report;
        let skipped = if report.interrupted { "not finished" } else { "not reached" };
        let counts = [("hit", State::Hit), ("ran", State::Run), ("failed", State::Failed), (skipped, State::Skipped)];
        let counts: Vec<String> = counts
            .into_iter()
            .filter(|(_, how)| report.count(*how) > 0)
            .map(|(word, how)| format!("{} {word}", report.count(how)))
            .collect();
        ui.say("");
        ui.say(format_args!(
            "{}: {} in {} (run {})",
            report.pipeline,
            counts.join(", "),
            duration(report.seconds),
            report.run
        ));
    }

    fn print_next(&self, ui: &Ui) {
        let (file, options) = (shell::path(self.file), self.options);
        if self.report.interrupted {
            ui.print(interrupted(self.resume));
            return;
        }
        let failed: Vec<&NodeReport> = self.report.nodes.iter().filter(|node| node.how == State::Failed).collect();
        if !failed.is_empty() {
            let names: Vec<String> = failed.iter().map(|node| format!("`{}`", node.node)).collect();
            ui.print(format_args!(
                "{} failed; finished work is in the cache. After fixing the problem, run: stic {}",
                names.join(", "),
                self.resume
            ));
            return;
        }
        if let Some(node) = self.last_result() {
            // The command is not wrapped, so that it can be copied.
            let command = format!("next: stic export {file} {} DIR{options}", shell::word(node));
            let what = "(writes this result to a directory)";
            let beside = command.width() + 3 + what.width() <= ui.width;
            ui.say(format_args!("{command}{}{what}", if beside { "   " } else { "\n      " }));
            let edit = format!("edit {file} and run it again: only what the edit affects will run");
            ui.print_hanging("      ", &edit, 6);
        }
    }

    /// The adapter with the longest chain of ancestors, otherwise the last result.
    fn last_result(&self) -> Option<&str> {
        let depths = depths(self.graph);
        let wanted = |node: &NodeReport| self.graph.find(&node.node).filter(|index| !self.graph.nodes[*index].imported);
        let made: Vec<usize> = self.report.nodes.iter().filter_map(wanted).collect();
        let adapters = made.iter().filter(|index| self.graph.nodes[**index].output == artifact::ADAPTER);
        let index = adapters.max_by_key(|index| depths[**index]).or(made.last())?;
        Some(&self.graph.nodes[*index].name)
    }
}

/// The last message of an interrupted run; `resume` is the command that continues it.
pub fn interrupted(resume: &str) -> String {
    format!("interrupted; finished work is in the cache. To continue, run: stic {resume}")
}

/// The length of each node's longest chain of ancestors.
fn depths(graph: &Graph) -> Vec<usize> {
    let mut depths: Vec<usize> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        depths.push(node.inputs.iter().flatten().map(|above| depths[*above] + 1).max().unwrap_or(0));
    }
    depths
}

/// A node and its summary.
type Row<'a> = (&'a str, &'a Summary);

/// One table per set of nodes with the same metrics, one row per node. A label that all rows share moves to the title;
/// a metric that is undefined for a row is a dash.
fn tables(rows: &[Row<'_>], differences: &[Difference], width: usize) -> Vec<Vec<String>> {
    let measured: Vec<&Row<'_>> = rows.iter().filter(|(_, summary)| !summary.metrics.is_empty()).collect();
    // Nodes that are compared share a table even if some of their metrics are undefined.
    let group = |node: &str, summary: &Summary| {
        let compared = |it: &&Difference| it.node == node || it.reference == node;
        match differences.iter().find(compared) {
            Some(difference) => Group::Reference(difference.reference.clone()),
            None => Group::Metrics(summary.metrics.iter().map(|metric| metric.name.clone()).collect()),
        }
    };
    let mut groups: Vec<(Group, Vec<&Row<'_>>)> = Vec::new();
    for row in measured {
        let key = group(row.0, row.1);
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, rows)) => rows.push(row),
            None => groups.push((key, vec![row])),
        }
    }
    groups.into_iter().map(|(_, rows)| one_table(&rows, differences, width)).collect()
}

/// What the rows of a table have in common.
#[derive(PartialEq)]
enum Group {
    /// The node they are compared with.
    Reference(String),
    /// Their metrics.
    Metrics(Vec<String>),
}

fn one_table(rows: &[&Row<'_>], differences: &[Difference], width: usize) -> Vec<String> {
    let labels: BTreeSet<&String> = rows.iter().flat_map(|(_, summary)| summary.labels.keys()).collect();
    let value = |summary: &Summary, label: &str| summary.labels.get(label).map_or("-", String::as_str).to_owned();
    let shared = |label: &&String| rows.iter().all(|(_, s)| value(s, label) == value(rows[0].1, label));
    let (common, own): (Vec<&String>, Vec<&String>) = labels.into_iter().partition(|label| shared(label));
    let widest = rows.iter().map(|(_, summary)| &summary.metrics).max_by_key(|metrics| metrics.len());
    let metrics: Vec<&str> = widest.into_iter().flatten().map(|metric| metric.name.as_str()).collect();
    let cell = |row: &[Metric], name: &str, shown: &dyn Fn(&Metric) -> String| {
        row.iter().find(|metric| metric.name == name).map_or("-".to_owned(), shown)
    };

    let head = std::iter::once("node".to_owned()).chain(own.iter().map(|label| (*label).clone()));
    let mut cells: Vec<Vec<String>> = vec![head.chain(metrics.iter().map(|name| (*name).to_owned())).collect()];
    for (node, summary) in rows {
        let labels = own.iter().map(|label| value(summary, label));
        let numbers = metrics.iter().map(|name| cell(&summary.metrics, name, &shown));
        cells.push(std::iter::once((*node).to_owned()).chain(labels).chain(numbers).collect());
    }
    let mut lines = Vec::new();
    if !common.is_empty() {
        let common: Vec<String> = common.iter().map(|label| format!("{label} {}", value(rows[0].1, label))).collect();
        lines.extend(wrapped(&common.join(", "), width));
    }
    lines.extend(beside_or_below(&cells, own.len() + 1, width));
    if rows.iter().any(|(_, summary)| summary.metrics.iter().any(|metric| metric.interval.is_some())) {
        lines.push("in brackets: 95 % confidence intervals".to_owned());
    }

    let compared: Vec<&Difference> =
        rows.iter().filter_map(|(node, _)| differences.iter().find(|difference| difference.node == *node)).collect();
    if let Some(first) = compared.first() {
        lines.push(String::new());
        let items = first.compared.items;
        let all_same = compared.iter().all(|difference| difference.compared.items == items);
        let same = if all_same {
            format!("the same {}", counted(items, "item"))
        } else {
            "the items that both answered".to_owned()
        };
        let title = format!("difference from {} on {same}, with 95 % confidence intervals", first.reference);
        lines.extend(wrapped(&title, width));
        let rows = compared.iter().map(|Difference { node, compared, .. }| {
            let numbers = metrics.iter().map(|name| cell(&compared.metrics, name, &signed));
            let count = (!all_same).then(|| compared.items.to_string());
            std::iter::once(node.clone()).chain(count).chain(numbers).collect()
        });
        let count = (!all_same).then(|| "items".to_owned());
        let head = std::iter::once("node".to_owned()).chain(count).chain(metrics.iter().map(|name| (*name).to_owned()));
        let cells: Vec<Vec<String>> = std::iter::once(head.collect()).chain(rows).collect();
        lines.extend(beside_or_below(&cells, if all_same { 1 } else { 2 }, width));
    }
    lines
}

/// `+0.070 [+0.050, +0.091]`.
pub(super) fn signed(metric: &Metric) -> String {
    match metric.interval {
        Some([low, high]) => {
            format!("{:+.3} [{:+.3}, {:+.3}]", rounded(metric.value, 3), rounded(low, 3), rounded(high, 3))
        }
        None => format!("{:+.3}", rounded(metric.value, 3)),
    }
}

/// A table, or several below each other if its columns do not fit. The first starts with the `keys` leading columns,
/// which identify a row, the others with the node alone.
pub(super) fn beside_or_below(cells: &[Vec<String>], keys: usize, width: usize) -> Vec<String> {
    let columns = cells.first().map_or(0, Vec::len);
    let chosen = |columns: &[usize]| -> Vec<Vec<String>> {
        cells.iter().map(|row| columns.iter().map(|column| row[*column].clone()).collect()).collect()
    };
    let mut tables: Vec<Vec<usize>> = vec![(0..keys).collect()];
    let mut full = keys;
    for column in keys..columns {
        let last = tables.last_mut().expect("there is a table");
        last.push(column);
        if natural_width(&chosen(last)) > width && last.len() > full + 1 {
            last.pop();
            full = 1;
            tables.push(vec![0, column]);
        }
    }
    tables.iter().flat_map(|columns| table(&chosen(columns), true, width)).collect()
}

/// `0.713 [0.681, 0.744]`.
pub(super) fn shown(metric: &Metric) -> String {
    let number = |value: f64| {
        if value != 0.0 && value.abs() < 0.001 {
            format!("{value:.2e}")
        } else if value.fract() == 0.0 && value.abs() < 1e9 && metric.interval.is_none() {
            format!("{value:.0}")
        } else {
            format!("{value:.3}")
        }
    };
    match metric.interval {
        Some([low, high]) => format!("{} [{}, {}]", number(metric.value), number(low), number(high)),
        None => number(metric.value),
    }
}

/// The lines of a node's blocks, wrapped and indented.
fn blocks(node: &str, summary: &Summary, ui: &Ui) -> Vec<String> {
    let mut lines = vec![format!("from {}", ui.paint(Paint::Bold, node))];
    for line in summary.blocks.iter().map(shown_block).collect::<Vec<_>>().iter().flat_map(|text| text.lines()) {
        let text = line.trim_start();
        let depth = 2 + line.len() - text.len();
        lines.extend(hanging(&" ".repeat(depth), &printable(text), ui.width, depth + 2));
    }
    lines
}

/// A block as text; details are indented.
fn shown_block(block: &Block) -> String {
    match block {
        Block::Curve { name, values } => curve::row(name, values),
        Block::Text { text } => text.clone(),
        Block::Sample(Sample { file, name, text, fields }) => {
            let mut shown = name.clone().unwrap_or_else(|| file.short());
            match text.as_str() {
                "" => {}
                below if below.starts_with('\n') => shown += below,
                beside => shown += &format!(": {beside}"),
            }
            shown + &fields.iter().map(|(name, text)| format!("\n  {name}: {text}")).collect::<String>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stic_engine::node::Compared;

    fn summary(labels: &[(&str, &str)], metrics: &[(&str, f64, Option<[f64; 2]>)]) -> Summary {
        Summary {
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            metrics: metrics
                .iter()
                .map(|(name, value, interval)| Metric { name: (*name).to_owned(), value: *value, interval: *interval })
                .collect(),
            ..Summary::default()
        }
    }

    #[test]
    fn nodes_with_the_same_metrics_share_a_table() {
        let direct = [("data", "shapes"), ("form", "direct")];
        let described = [("data", "shapes"), ("form", "describe and respond")];
        let base = summary(&direct, &[("accuracy", 0.5, Some([0.4, 0.6]))]);
        let stage1 = summary(&described, &[("accuracy", 0.0, Some([0.0, 0.00004]))]);
        let other = summary(&[], &[("margin", 0.25, None), ("steps", 30.0, None)]);
        let lines = tables(&[("base", &base), ("trained", &other), ("after_stage1", &stage1)], &[], 80);
        insta::assert_snapshot!(lines.iter().map(|lines| lines.join("\n")).collect::<Vec<_>>().join("\n\n"), @r"
        data shapes
        node          form                  accuracy
        base          direct                0.500 [0.400, 0.600]
        after_stage1  describe and respond  0.000 [0.000, 4.00e-5]
        in brackets: 95 % confidence intervals

        node     margin  steps
        trained  0.250   30
        ");
    }

    #[test]
    fn differences_are_printed_below_their_table_with_the_reference() {
        let base = summary(&[("data", "shapes")], &[("recall", 0.5, Some([0.4, 0.6])), ("precision", 1.0, None)]);
        // Claims nothing, and so has no precision.
        let silent = summary(&[("data", "shapes")], &[("recall", 0.0, Some([0.0, 0.1]))]);
        let compared = Compared {
            items: 20,
            counts: [("pictures".to_owned(), 10)].into(),
            metrics: vec![Metric { name: "recall".to_owned(), value: -0.5, interval: Some([-0.6, -0.4]) }],
        };
        let difference = Difference { node: "silent".to_owned(), reference: "base".to_owned(), compared };
        let lines = tables(&[("base", &base), ("silent", &silent)], &[difference], 80);
        insta::assert_snapshot!(lines.iter().map(|lines| lines.join("\n")).collect::<Vec<_>>().join("\n\n"), @r"
        data shapes
        node    recall                precision
        base    0.500 [0.400, 0.600]  1
        silent  0.000 [0.000, 0.100]  -
        in brackets: 95 % confidence intervals

        difference from base on the same 20 items, with 95 % confidence intervals
        node    recall                   precision
        silent  -0.500 [-0.600, -0.400]  -
        ");
    }
}
