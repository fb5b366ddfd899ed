//! What a run came to, for people: where each result is, tables of metrics, samples, and what to type next.
//!
//! Nothing here knows what kinds of node there are: tables and samples are what nodes say in their
//! [`Summary`].

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

/// What the summary is about.
pub struct RunSummary<'a> {
    /// What was run.
    pub report: &'a RunReport,
    /// Its graph.
    pub graph: &'a Graph,
    /// The pipeline file.
    pub file: &'a Path,
    /// The cache folder.
    pub cache: &'a Path,
    /// What further commands need to say of the cache: [`super::args::Global::cache_option`].
    pub cache_option: &'a str,
    /// The command that goes on from here: [`super::args::Run::go_on`].
    pub again: &'a str,
}

impl RunSummary<'_> {
    /// What a complete run was for: samples of results, tables of scores and of differences.
    pub fn answer(&self, ui: &Ui) -> Vec<String> {
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

    /// Says where the results are, how many nodes did what, and what to do next.
    pub fn say(&self, ui: &Ui) {
        // Where the cache was taken away under the run, nothing is left of it.
        let gone = is_cache(self.cache).is_ok_and(|is_there| !is_there);
        if !gone {
            self.say_results(ui);
        }
        self.say_count(ui);
        if gone {
            let cache = self.cache.display();
            ui.print_always(format_args!(
                "the cache `{cache}` is gone; put it back and run again: stic {}",
                self.again
            ));
            return;
        }
        self.say_next(ui);
    }

    /// What pairs look like and how training went, or what the pipeline asks for; with `-v` what every node shows of its
    /// result.
    fn samples(&self, rows: &[Row<'_>], ui: &Ui) -> Vec<Vec<String>> {
        let output = |node: &str| self.graph.find(node).map(|index| self.graph.nodes[index].output);
        let wanted = |node: &str| match &self.graph.show {
            Some(names) => names.iter().any(|name| name == node),
            None => matches!(output(node), Some(artifact::PAIRS | artifact::ADAPTER)),
        };
        let shown = |node: &str| ui.verbose || wanted(node);
        let block = |(node, summary): &Row<'_>| {
            let mut lines = vec![format!("from {}", ui.paint(Paint::Bold, node))];
            for line in summary.blocks.iter().map(shown_block).collect::<Vec<_>>().iter().flat_map(|text| text.lines())
            {
                let text = line.trim_start();
                let depth = 2 + line.len() - text.len();
                lines.extend(hanging(&" ".repeat(depth), &printable(text), ui.width, depth + 2));
            }
            lines
        };
        let is_shown = |(node, summary): &&Row<'_>| !summary.blocks.is_empty() && shown(node);
        rows.iter().filter(is_shown).map(block).collect()
    }

    fn say_results(&self, ui: &Ui) {
        let rows: Vec<Vec<String>> = self
            .report
            .nodes
            .iter()
            .filter_map(|node| {
                let key = node.key.as_deref().filter(|_| matches!(node.how, State::Hit | State::Run))?;
                // As a shell finds it: the whole key would fill the line.
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

    fn say_count(&self, ui: &Ui) {
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

    fn say_next(&self, ui: &Ui) {
        let (file, cache) = (shell::path(self.file), self.cache_option);
        if self.report.interrupted {
            ui.print_always(go_on(self.again));
            return;
        }
        let failed: Vec<&NodeReport> = self.report.nodes.iter().filter(|node| node.how == State::Failed).collect();
        if !failed.is_empty() {
            let names: Vec<String> = failed.iter().map(|node| format!("`{}`", node.node)).collect();
            ui.print_always(format_args!(
                "{} failed; what is finished is kept. Once that is put right: stic {}",
                names.join(", "),
                self.again
            ));
            return;
        }
        if let Some(node) = self.last_result() {
            // A command stays in one piece, to be copied.
            let command = format!("next: stic export {file} {node} DIR{cache}");
            let what = "(writes this result to a folder)";
            let beside = command.width() + 3 + what.width() <= ui.width;
            ui.say(format_args!("{command}{}{what}", if beside { "   " } else { "\n      " }));
            let edit = format!("edit {file} and run it again: only what the edit touches runs");
            ui.print_hanging("      ", &edit, 6);
        }
    }

    /// The adapter with the most work in it, otherwise the last result.
    fn last_result(&self) -> Option<&str> {
        let depths = depths(self.graph);
        let wanted = |node: &NodeReport| self.graph.find(&node.node).filter(|index| !self.graph.nodes[*index].imported);
        let made: Vec<usize> = self.report.nodes.iter().filter_map(wanted).collect();
        let adapters = made.iter().filter(|index| self.graph.nodes[**index].output == artifact::ADAPTER);
        let index = adapters.max_by_key(|index| depths[**index]).or(made.last())?;
        Some(&self.graph.nodes[*index].name)
    }
}

/// What is reported last of a run that was interrupted.
pub fn go_on(again: &str) -> String {
    format!("interrupted; what is finished is kept. Go on with: stic {again}")
}

/// How many nodes stand above each node in its longest line of ancestors.
fn depths(graph: &Graph) -> Vec<usize> {
    let mut depths: Vec<usize> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        depths.push(node.inputs.iter().flatten().map(|above| depths[*above] + 1).max().unwrap_or(0));
    }
    depths
}

/// A node and what it says.
type Row<'a> = (&'a str, &'a Summary);

/// A table for each set of nodes that measure the same: a row a node, its labels, its metrics. A label that all rows
/// share goes into the head line; a metric that is not defined for a row is a dash.
fn tables(rows: &[Row<'_>], differences: &[Difference], width: usize) -> Vec<Vec<String>> {
    let measured: Vec<&Row<'_>> = rows.iter().filter(|(_, summary)| !summary.metrics.is_empty()).collect();
    // What was compared measures the same, whichever metrics are defined for it.
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

/// What makes rows one table.
#[derive(PartialEq)]
enum Group {
    /// They are compared with this node.
    Reference(String),
    /// They have these metrics.
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
        lines.push("in brackets: 95 % intervals".to_owned());
    }

    let compared: Vec<&Difference> =
        rows.iter().filter_map(|(node, _)| differences.iter().find(|difference| difference.node == *node)).collect();
    if let Some(first) = compared.first() {
        lines.push(String::new());
        let items = first.compared.items;
        let all_same = compared.iter().all(|difference| difference.compared.items == items);
        let same =
            if all_same { format!("the same {}", counted(items, "item")) } else { "what both answered".to_owned() };
        let title = format!("difference from {}, on {same}, in brackets its 95 % interval", first.reference);
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
fn signed(metric: &Metric) -> String {
    match metric.interval {
        Some([low, high]) => {
            format!("{:+.3} [{:+.3}, {:+.3}]", rounded(metric.value, 3), rounded(low, 3), rounded(high, 3))
        }
        None => format!("{:+.3}", rounded(metric.value, 3)),
    }
}

/// A table, or several below each other where its columns do not fit: each begins with the columns that say what a row is,
/// the first `keys`; those after the first table with the node alone.
fn beside_or_below(cells: &[Vec<String>], keys: usize, width: usize) -> Vec<String> {
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
fn shown(metric: &Metric) -> String {
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

/// A block as text; what belongs to a line above is set in.
fn shown_block(block: &Block) -> String {
    match block {
        Block::Curve { name, values } => curve::row(name, values),
        // Earlier versions kept samples as text: `picture:DIGEST: …`.
        Block::Text { text } => match text.strip_prefix("picture:") {
            Some(rest) if rest.is_char_boundary(64) && rest.len() > 64 => format!("{}{}", &rest[..12], &rest[64..]),
            _ => text.clone(),
        },
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
    fn nodes_that_measure_the_same_share_a_table() {
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
        in brackets: 95 % intervals

        node     margin  steps
        trained  0.250   30
        ");
    }

    #[test]
    fn what_was_compared_stands_below_its_table_with_its_reference() {
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
        in brackets: 95 % intervals

        difference from base, on the same 20 items, in brackets its 95 % interval
        node    recall                   precision
        silent  -0.500 [-0.600, -0.400]  -
        ");
    }
}
