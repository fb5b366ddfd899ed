//! `stic table`: what the nodes of a pipeline measured, as rows of models and axes, with seeds pooled.
//!
//! Does not know any kind of node: metrics and labels come from each result's [`Summary`](stic_engine::node::Summary),
//! and differences from the nodes that made them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::args::{Global, TableArguments};
use super::pipeline::{Data, PipelineFile, cache_error, read_cache};
use super::shell;
use super::summary::{beside_or_below, shown, signed};
use super::table::wrapped;
use super::ui::{CliError, Exit, Ui, write_json, write_lines, write_out};
use crate::eval::seeds::mean;
use stic_engine::diagnostic::{counted, did_you_mean, rounded};
use stic_engine::event::State;
use stic_engine::graph::GraphNode;
use stic_engine::node::{Artifact, Compared, Failure, Kinds, Metric};
use stic_engine::plan::{self, StoredResult};
use stic_engine::store::{Record, Store};

/// The results of a node under some seed.
struct Measured<'a> {
    index: usize,
    node: &'a GraphNode,
    record: Record,
}

/// A row: a node with its axes but seeds, of which it has one result each.
struct Row<'a> {
    /// `stage1[beta=0.1]`.
    name: String,
    /// The values of its axes, by name.
    axes: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    results: Vec<Measured<'a>>,
    metrics: Vec<Pooled>,
    differences: Option<Differences>,
}

/// A metric over seeds.
struct Pooled {
    name: String,
    value: f64,
    interval: Option<[f64; 2]>,
    /// How many seeds there are.
    seeds: usize,
}

/// What a row has more than the row that it is compared with.
struct Differences {
    items: usize,
    metrics: Vec<Pooled>,
}

/// Prints the table.
///
/// # Errors
/// Mistakes in the file, no results, a column or row that there is not.
pub fn results(arguments: &TableArguments, global: &Global, kinds: &Kinds, ui: &Ui) -> Result<Exit, CliError> {
    let file = PipelineFile::read(&arguments.file, &arguments.settings, kinds, Data::Wanted)?;
    let targets = file.nodes(&arguments.targets)?;
    let against = arguments.against.as_ref().map(|name| file.instances(name)).transpose()?;
    file.check_data(&targets)?;
    let store = read_cache(&global.cache(Some(&arguments.file)))?;
    let mut wanted = targets.clone();
    wanted.extend(against.iter().flatten().filter(|_| !targets.is_empty()));
    let options = plan::Options { targets: wanted, ..plan::Options::default() };
    let plan = super::plan::make(&file, &store, &file.devices(&options.targets, &arguments.device)?.pools, &options)?;
    let (mut measured, mut missing) = (Vec::new(), Vec::new());
    for planned in &plan {
        let Some(index) = file.graph.find(&planned.node) else { continue };
        let node = &file.graph.nodes[index];
        if !options.targets.is_empty() && !options.targets.contains(&index) {
            continue;
        }
        let Some(key) = planned.key.filter(|_| planned.state == State::Hit) else {
            missing.push(node);
            continue;
        };
        let record = store.record(&key).map_err(|error| cache_error(&error))?;
        measured.extend(record.filter(|it| !it.summary.metrics.is_empty()).map(|record| Measured {
            index,
            node,
            record,
        }));
    }
    let run = format!(
        "stic run {}{}{}",
        shell::path(&file.path),
        arguments.settings.options() + &arguments.device.written(),
        global.cache_option(&file.path)
    );
    if measured.is_empty() {
        let message = "there are no results with metrics yet";
        return Err(CliError::usage(message).help(format!("run the pipeline first: {run}")));
    }
    let mut rows = rows(&file, measured);
    if let Some(against) = &against {
        compare(&file, &store, &mut rows, against, arguments.against.as_deref().unwrap_or_default())?;
    }
    let mut tables = tables(rows);
    if let Some(column) = &arguments.sort {
        sort(&mut tables, column, arguments.reverse)?;
    }
    if arguments.json {
        tables.iter().flatten().try_for_each(|row| write_json(&as_json(row, arguments.against.as_deref())))?;
    } else if arguments.csv {
        write_out(&csv(&tables))?;
    } else {
        let ui = ui.for_stdout();
        let blocks: Vec<Vec<String>> =
            tables.iter().map(|rows| text(rows, arguments.against.as_deref(), ui.width)).collect();
        write_lines(&blocks.join(&String::new()))?;
    }
    if !missing.is_empty() {
        ui.say(format_args!("{} not run yet, and may be missing here: {run}", are(&missing)));
    }
    Ok(Exit::Success)
}

fn are(missing: &[&GraphNode]) -> String {
    let names: Vec<String> = missing.iter().take(3).map(|node| format!("`{}`", node.name)).collect();
    match missing.len() {
        1 => format!("{} has", names[0]),
        2 | 3 => format!("{} have", names.join(", ")),
        count => format!("{} and {} have", names.join(", "), counted(count - 3, "more node")),
    }
}

/// The rows of what was measured, in the order of the graph.
fn rows<'a>(file: &'a PipelineFile, measured: Vec<Measured<'a>>) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for result in measured {
        let node = result.node;
        let name = node.name_without_seeds();
        let position = *known.entry(name.clone()).or_insert_with(|| {
            let values = node.axes.iter().filter(|value| !value.is_seed);
            let axes = values.map(|value| (value.axis.clone(), value.value.clone())).collect();
            let mut labels = result.record.summary.labels.clone();
            // Of one seed: the names of the others differ by it alone.
            let named = file.graph.names(result.index).into_iter();
            labels.extend(named.map(|(label, name)| {
                (label, file.graph.find(&name).map_or(name, |it| file.graph.nodes[it].name_without_seeds()))
            }));
            rows.push(Row { name, axes, labels, results: Vec::new(), metrics: Vec::new(), differences: None });
            rows.len() - 1
        });
        rows[position].results.push(result);
    }
    for row in &mut rows {
        let all: Vec<&[Metric]> = row.results.iter().map(|result| &*result.record.summary.metrics).collect();
        row.metrics = pooled(&all);
    }
    rows
}

/// The metrics of several results, each over those that have it.
fn pooled(all: &[&[Metric]]) -> Vec<Pooled> {
    let mut names: Vec<&str> = Vec::new();
    for metric in all.iter().copied().flatten() {
        if !names.contains(&metric.name.as_str()) {
            names.push(&metric.name);
        }
    }
    let of = |name: &str| {
        let metrics: Vec<&Metric> = all.iter().copied().flatten().filter(|metric| metric.name == name).collect();
        let values: Vec<f64> = metrics.iter().map(|metric| metric.value).collect();
        let (value, half) = mean(&values)?;
        let interval =
            if let [only] = metrics[..] { only.interval } else { half.map(|half| [value - half, value + half]) };
        Some(Pooled { name: name.to_owned(), value, interval, seeds: metrics.len() })
    };
    names.into_iter().filter_map(of).collect()
}

/// Compares all rows with the one that `against` is: seed by seed where both have seeds.
fn compare(
    file: &PipelineFile,
    store: &Store,
    rows: &mut [Row<'_>],
    against: &[usize],
    written: &str,
) -> Result<(), CliError> {
    let is_reference = |row: &Row<'_>| row.results.iter().any(|result| against.contains(&result.index));
    let found: Vec<usize> = (0..rows.len()).filter(|row| is_reference(&rows[*row])).collect();
    let [reference] = found[..] else {
        let names: Vec<&str> = found.iter().map(|row| rows[*row].name.as_str()).collect();
        let message = match names.len() {
            0 => format!("`{written}` has no result with metrics yet"),
            count => format!("`{written}` is {}", counted(count, "row")),
        };
        let all: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        return Err(CliError::usage(message).help(did_you_mean(
            written,
            "rows",
            if names.is_empty() { &all } else { &names },
        )));
    };
    let artifact = |result: &Measured<'_>| StoredResult::of(result.index, &result.record).artifact(&file.graph);
    let seeds = |node: &GraphNode| -> BTreeMap<String, String> {
        let seeds = node.axes.iter().filter(|value| value.is_seed);
        seeds.map(|value| (value.full.clone(), value.value.clone())).collect()
    };
    let others: Vec<(BTreeMap<String, String>, Artifact, &str)> =
        rows[reference].results.iter().map(|result| (seeds(result.node), artifact(result), result.node.kind)).collect();
    for (_, row) in rows.iter_mut().enumerate().filter(|(index, _)| *index != reference) {
        let mut compared: Vec<Compared> = Vec::new();
        for result in &row.results {
            let own = seeds(result.node);
            let same = |other: &BTreeMap<String, String>| {
                own.iter().all(|(axis, seed)| other.get(axis).is_none_or(|it| it == seed))
            };
            for (_, other, kind) in others.iter().filter(|(seeds, ..)| same(seeds)) {
                if *kind == result.node.kind {
                    compared.extend(result.node.node.differences(&artifact(result), other, store).map_err(unread)?);
                }
            }
        }
        let all: Vec<&[Metric]> = compared.iter().map(|compared| &*compared.metrics).collect();
        let items = compared.iter().map(|compared| compared.items).min();
        row.differences = items.map(|items| Differences { items, metrics: pooled(&all) });
    }
    Ok(())
}

fn unread(failure: Failure) -> CliError {
    CliError::failure(failure.to_string())
}

/// One table for each set of rows that measured the same.
fn tables(rows: Vec<Row<'_>>) -> Vec<Vec<Row<'_>>> {
    let mut tables: Vec<Vec<Row<'_>>> = Vec::new();
    for row in rows {
        // A metric may be undefined in one of them.
        let alike = |other: &Row<'_>| {
            let has = |metric: &Pooled, row: &Row<'_>| row.metrics.iter().any(|other| other.name == metric.name);
            other.results[0].node.kind == row.results[0].node.kind
                && (row.metrics.iter().all(|metric| has(metric, other))
                    || other.metrics.iter().all(|metric| has(metric, &row)))
        };
        match tables.iter_mut().find(|rows| rows.iter().any(alike)) {
            Some(rows) => rows.push(row),
            None => tables.push(vec![row]),
        }
    }
    tables
}

/// Sorts by a metric, the highest first, or by a name, an axis or a label.
fn sort(tables: &mut [Vec<Row<'_>>], column: &str, reverse: bool) -> Result<(), CliError> {
    let mut names: Vec<String> = vec!["node".to_owned()];
    let mut found = column == "node";
    for rows in &mut *tables {
        let metrics = rows.iter().flat_map(|row| &row.metrics).map(|metric| &metric.name);
        let others = rows.iter().flat_map(|row| row.axes.keys().chain(row.labels.keys()));
        let all: Vec<String> = metrics.chain(others).cloned().collect();
        let is_metric = rows.iter().any(|row| row.metrics.iter().any(|metric| metric.name == column));
        found |= all.iter().any(|name| name == column);
        names.extend(all);
        let number = |row: &Row<'_>| row.metrics.iter().find(|metric| metric.name == column).map(|metric| metric.value);
        let word = |row: &Row<'_>| {
            let word = if column == "node" { Some(&row.name) } else { row.axes.get(column).or(row.labels.get(column)) };
            word.cloned().unwrap_or_default()
        };
        rows.sort_by(|a, b| {
            let order = if is_metric {
                // Undefined ones last.
                let low = |row: &Row<'_>| number(row).unwrap_or(f64::NEG_INFINITY);
                low(b).total_cmp(&low(a))
            } else {
                natural(&word(a), &word(b))
            };
            if reverse { order.reverse() } else { order }
        });
    }
    names.sort();
    names.dedup();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let unknown =
        || CliError::usage(format!("no table has a column `{column}`")).help(did_you_mean(column, "columns", &names));
    if found { Ok(()) } else { Err(unknown()) }
}

/// Numbers by value, other words by spelling.
fn natural(a: &str, b: &str) -> Ordering {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.total_cmp(&b),
        _ => a.cmp(b),
    }
}

/// The names of the metrics of some rows.
fn metric_names<'a>(rows: &'a [Row<'_>]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for metric in rows.iter().flat_map(|row| &row.metrics) {
        if !names.contains(&metric.name.as_str()) {
            names.push(&metric.name);
        }
    }
    names
}

fn text(rows: &[Row<'_>], against: Option<&str>, width: usize) -> Vec<String> {
    let mut axes: Vec<&String> = rows.iter().flat_map(|row| row.axes.keys()).collect();
    axes.sort();
    axes.dedup();
    let mut labels: Vec<&String> = rows.iter().flat_map(|row| row.labels.keys()).collect();
    labels.sort();
    labels.dedup();
    let label = |row: &Row<'_>, name: &str| row.labels.get(name).cloned().unwrap_or_else(|| "-".to_owned());
    let is_shared = |name: &&String| rows.iter().all(|row| label(row, name) == label(&rows[0], name));
    let (shared, own): (Vec<&String>, Vec<&String>) = labels.into_iter().partition(is_shared);
    let seeded = rows.iter().any(|row| row.results.len() > 1);
    let metrics = metric_names(rows);

    let mut head = vec!["node".to_owned()];
    head.extend(axes.iter().chain(&own).map(|name| (*name).clone()));
    head.extend(seeded.then(|| "seeds".to_owned()));
    let keys = head.len();
    head.extend(metrics.iter().map(|name| (*name).to_owned()));
    let mut cells = vec![head];
    for row in rows {
        let mut line = vec![row.results[0].node.table.clone()];
        line.extend(axes.iter().map(|axis| row.axes.get(*axis).map_or("-", String::as_str).to_owned()));
        line.extend(own.iter().map(|name| label(row, name)));
        line.extend(seeded.then(|| row.results.len().to_string()));
        line.extend(metrics.iter().map(|name| cell(&row.metrics, name, false)));
        cells.push(line);
    }
    let mut lines = Vec::new();
    if !shared.is_empty() {
        let shared: Vec<String> = shared.iter().map(|name| format!("{name} {}", label(&rows[0], name))).collect();
        lines.extend(wrapped(&shared.join(", "), width));
    }
    lines.extend(beside_or_below(&cells, keys, width));
    lines.extend(footnotes(rows.iter().flat_map(|row| &row.metrics)));

    let compared: Vec<(&Row<'_>, &Differences)> =
        rows.iter().filter_map(|row| Some((row, row.differences.as_ref()?))).collect();
    if let (Some(against), false) = (against, compared.is_empty()) {
        let least = compared.iter().map(|(_, differences)| differences.items).min().unwrap_or_default();
        let most = compared.iter().map(|(_, differences)| differences.items).max().unwrap_or_default();
        let same = if least == most {
            format!("the same {}", counted(most, "item"))
        } else {
            "the items that both answered".to_owned()
        };
        lines.push(String::new());
        let seeds =
            rows.iter().filter_map(|row| row.differences.as_ref()).flat_map(|it| &it.metrics).any(|it| it.seeds > 1);
        let of = if seeds { " (over seeds, of the mean)" } else { "" };
        let title = format!("difference from {against} on {same}, with 95 % confidence intervals{of}");
        lines.extend(wrapped(&title, width));
        let mut cells = vec![
            std::iter::once("node".to_owned()).chain(metrics.iter().map(|name| (*name).to_owned())).collect::<Vec<_>>(),
        ];
        for (row, differences) in compared {
            let numbers = metrics.iter().map(|name| cell(&differences.metrics, name, true));
            cells.push(std::iter::once(row.name.clone()).chain(numbers).collect());
        }
        lines.extend(beside_or_below(&cells, 1, width));
    }
    lines
}

fn footnotes<'a>(metrics: impl Iterator<Item = &'a Pooled> + Clone) -> Vec<String> {
    let pooled = metrics.clone().any(|metric| metric.seeds > 1);
    let single = metrics.clone().any(|metric| metric.seeds == 1 && metric.interval.is_some());
    let mut lines = Vec::new();
    lines.extend(single.then(|| "in brackets: 95 % confidence intervals".to_owned()));
    lines.extend(pooled.then(|| "\u{b1}: half of the 95 % confidence interval of the mean over seeds".to_owned()));
    lines
}

/// A metric as text: `0.713 ± 0.012` over seeds, `0.713 [0.681, 0.744]` of one result; a dash where it is undefined.
fn cell(metrics: &[Pooled], name: &str, is_difference: bool) -> String {
    let Some(metric) = metrics.iter().find(|metric| metric.name == name) else { return "-".to_owned() };
    let Pooled { value, interval, seeds, .. } = metric;
    let one = Metric { name: String::new(), value: *value, interval: *interval };
    match (interval, is_difference) {
        (Some([low, high]), false) if *seeds > 1 => {
            let mean = shown(&Metric { interval: None, value: rounded(*value, 3), ..one });
            format!("{mean} \u{b1} {:.3}", (high - low) / 2.0)
        }
        (_, true) => signed(&one),
        (_, false) => shown(&one),
    }
}

fn as_json(row: &Row<'_>, against: Option<&str>) -> Value {
    let metrics = |metrics: &[Pooled]| -> Map<String, Value> {
        let metric =
            |it: &Pooled| (it.name.clone(), json!({ "value": it.value, "interval": it.interval, "seeds": it.seeds }));
        metrics.iter().map(metric).collect()
    };
    let instances: Vec<&str> = row.results.iter().map(|result| result.node.name.as_str()).collect();
    let mut object = json!({
        "row": row.name,
        "node": row.results[0].node.table,
        "kind": row.results[0].node.kind,
        "axes": row.axes,
        "labels": row.labels,
        "instances": instances,
        "metrics": metrics(&row.metrics),
    });
    if let Some(Differences { items, metrics: differences }) = &row.differences {
        object["difference"] = json!({ "from": against, "items": items, "metrics": metrics(differences) });
    }
    object
}

/// All rows in one table, for spreadsheets: a column that a row does not have is empty.
fn csv(tables: &[Vec<Row<'_>>]) -> String {
    let rows: Vec<&Row<'_>> = tables.iter().flatten().collect();
    let union = |keys: &dyn Fn(&Row<'_>) -> Vec<String>| {
        let mut all: Vec<String> = Vec::new();
        for key in rows.iter().flat_map(|row| keys(row)) {
            if !all.contains(&key) {
                all.push(key);
            }
        }
        all
    };
    let axes = union(&|row| row.axes.keys().cloned().collect());
    let labels = union(&|row| row.labels.keys().cloned().collect());
    let metrics = union(&|row| row.metrics.iter().map(|metric| metric.name.clone()).collect());
    let compared = rows.iter().any(|row| row.differences.is_some());
    let three = |name: &str| [name.to_owned(), format!("{name}_low"), format!("{name}_high")];
    let mut head: Vec<String> = ["row", "node"].map(str::to_owned).to_vec();
    head.extend(axes.iter().chain(&labels).cloned());
    head.push("seeds".to_owned());
    head.extend(metrics.iter().flat_map(|name| three(name)));
    if compared {
        head.extend(metrics.iter().flat_map(|name| three(&format!("{name}_difference"))));
    }
    let mut text = line(&head);
    for row in rows {
        let number = |metrics: &[Pooled], name: &String| {
            let metric = metrics.iter().find(|metric| metric.name == *name);
            let bound =
                |at: usize| metric.and_then(|metric| metric.interval).map_or(String::new(), |it| it[at].to_string());
            [metric.map_or(String::new(), |metric| metric.value.to_string()), bound(0), bound(1)]
        };
        let mut cells = vec![row.name.clone(), row.results[0].node.table.clone()];
        cells.extend(axes.iter().map(|axis| row.axes.get(axis).cloned().unwrap_or_default()));
        cells.extend(labels.iter().map(|label| row.labels.get(label).cloned().unwrap_or_default()));
        cells.push(row.results.len().to_string());
        cells.extend(metrics.iter().flat_map(|name| number(&row.metrics, name)));
        if compared {
            let differences = row.differences.as_ref().map_or(&[][..], |differences| &differences.metrics);
            cells.extend(metrics.iter().flat_map(|name| number(differences, name)));
        }
        text += &line(&cells);
    }
    text
}

/// A line of CSV (RFC 4180).
fn line(cells: &[String]) -> String {
    let cell = |cell: &String| {
        if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.clone() }
    };
    cells.iter().map(cell).collect::<Vec<_>>().join(",") + "\n"
}
