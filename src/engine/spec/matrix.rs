//! `matrix`: parameters that take several values, and the combinations that are left out.
//!
//! An axis is a parameter of one node, or the pipeline's seed. A node has a copy of its table for every combination of
//! its own axes; how the copies of several nodes are joined is up to `graph`.

use super::mistake::{Mistake, Mistakes};
use super::reader::Scope;
use super::setting::put;
use super::syntax::{Entry, Located, Syntax, Table};
use crate::diagnostic::{Diagnostic, Span, did_you_mean, listed, nearest};
use crate::digest::Digest;

/// How many instances a node may have.
pub const MOST_INSTANCES: usize = 10_000;

/// A parameter that takes several values.
#[derive(Clone, Debug)]
pub struct Axis {
    /// The node whose parameter it is; of the pipeline's seed none.
    pub node: Option<String>,
    /// Its dotted key.
    pub parameter: String,
    /// The parts of that key, and where they are.
    path: Vec<(String, Span)>,
    /// Its values.
    pub values: Vec<Located>,
    /// The values in their shortest form: no two are the same.
    pub shown: Vec<String>,
}

impl Axis {
    /// `stage1.beta`, `pipeline.seed`.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.node.as_deref().unwrap_or("pipeline"), self.parameter)
    }

    /// Whether it is a seed.
    pub fn is_seed(&self) -> bool {
        self.parameter == "seed"
    }

    /// Where it is named.
    pub fn span(&self) -> Span {
        self.path[0].1.start..self.path[self.path.len() - 1].1.end
    }
}

/// Values of axes, by number, in the order of the axes.
pub type Point = Vec<(usize, usize)>;

/// A combination of values that is left out.
#[derive(Clone, Debug)]
pub struct Exclusion {
    /// The node that leaves it out; none: all.
    pub node: Option<String>,
    /// The combination.
    pub point: Point,
    /// Where it is.
    pub span: Span,
}

/// `exclude` as it is written: the axes by name, each with its value.
#[derive(Debug)]
pub(super) struct Excluded {
    node: Option<String>,
    span: Span,
    values: Vec<(String, Span, Located)>,
}

/// Reads the matrix of `node`, or of the pipeline. Adds to `axes` and `excluded`.
pub(super) fn read(
    entry: &Entry,
    node: Option<&str>,
    axes: &mut Vec<Axis>,
    excluded: &mut Vec<Excluded>,
    mistakes: &Mistakes,
) {
    let Syntax::Table(table) = &entry.value.value else {
        if entry.value.value != Syntax::Broken {
            let found = entry.value.value.name();
            let expected = "a table of parameters and their values".to_owned();
            mistakes.add(Mistake::Type { key: entry.key.clone(), expected, found }, entry.value.span.clone());
        }
        return;
    };
    let mut leaves = Vec::new();
    for entry in table.entries.iter().filter(|entry| entry.key != "exclude") {
        flatten(entry, &mut Vec::new(), &mut leaves);
    }
    let before = axes.len();
    for (path, value) in leaves {
        let Some(axis) = axis(path, value, node, mistakes) else { continue };
        match axes.iter().find(|known| known.node == axis.node && known.parameter == axis.parameter) {
            Some(known) => {
                let message = format!("`{}` has two axes", axis.full_name());
                let mistake =
                    Diagnostic::new(message).label(axis.span(), "again here").label(known.span(), "first here");
                mistakes.push(mistake.help("remove one of them".to_owned()));
            }
            None => axes.push(axis),
        }
    }
    let Some(exclude) = table.get("exclude") else {
        if axes.len() == before && mistakes.count() == 0 {
            let (message, label) = ("`matrix` is empty".to_owned(), "expected parameters and their values".to_owned());
            let help = Some("write `matrix = { PARAMETER = [VALUE, VALUE] }`, or remove it".to_owned());
            mistakes.add(Mistake::Other { message, label, help }, entry.value.span.clone());
        }
        return;
    };
    let wrong = |value: &Located| {
        let (key, found) = ("exclude".to_owned(), value.value.name());
        mistakes.add(Mistake::Type { key, expected: "a list of tables".to_owned(), found }, value.span.clone());
    };
    let Syntax::List(items) = &exclude.value.value else { return wrong(&exclude.value) };
    for item in items {
        let Syntax::Table(table) = &item.value else {
            wrong(item);
            continue;
        };
        let mut leaves = Vec::new();
        table.entries.iter().for_each(|entry| flatten(entry, &mut Vec::new(), &mut leaves));
        let values = leaves.into_iter().map(|(path, value)| {
            let names: Vec<&str> = path.iter().map(|(name, _)| name.as_str()).collect();
            (names.join("."), path[0].1.clone(), value.clone())
        });
        let span = item.span.clone();
        if values.len() == 0 {
            let message = "a combination in `exclude` has no values".to_owned();
            let label = "expected values of axes".to_owned();
            mistakes.add(Mistake::Other { message, label, help: Some("remove it".to_owned()) }, span);
            continue;
        }
        excluded.push(Excluded { node: node.map(str::to_owned), span, values: values.collect() });
    }
}

type Leaf<'a> = (Vec<(String, Span)>, &'a Located);

/// The values below `entry` that are no tables, by their paths. A dot in a key is as good as a table.
fn flatten<'a>(entry: &'a Entry, above: &mut Vec<(String, Span)>, leaves: &mut Vec<Leaf<'a>>) {
    let before = above.len();
    above.extend(entry.key.split('.').map(|part| (part.trim().to_owned(), entry.key_span.clone())));
    match &entry.value.value {
        Syntax::Table(table) => table.entries.iter().for_each(|entry| flatten(entry, above, leaves)),
        _ => leaves.push((above.clone(), &entry.value)),
    }
    above.truncate(before);
}

fn axis(mut path: Vec<(String, Span)>, value: &Located, node: Option<&str>, mistakes: &Mistakes) -> Option<Axis> {
    let span = path[0].1.clone();
    let other = |message: String, label: &str, help: &str| {
        let mistake = Mistake::Other { message, label: label.to_owned(), help: Some(help.to_owned()) };
        mistakes.add(mistake, span.clone());
        None
    };
    let is_seed = path.len() == 1 && path[0].0 == "seed";
    let node = match node {
        Some(node) => Some(node.to_owned()),
        None if is_seed => None,
        None if path.len() == 1 => {
            let message = format!("`{}` cannot be an axis of the pipeline", path[0].0);
            return other(
                message,
                "no parameter of a node",
                "write `NODE.PARAMETER`; of the pipeline itself, `seed` can be one",
            );
        }
        None => Some(path.remove(0).0),
    };
    let parameter = path.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(".");
    if ["kind", "matrix", "exclude"].contains(&path[0].0.as_str()) {
        let message = format!("`{parameter}` cannot be an axis");
        return other(message, "the same in all instances", "write a node for each value");
    }
    let Syntax::List(values) = &value.value else {
        if value.value != Syntax::Broken {
            let message = format!("axis `{parameter}` must be a list of values");
            let label = format!("this is {}", value.value.name());
            let help = Some(format!("write `{parameter} = [VALUE, VALUE]`"));
            mistakes.add(Mistake::Other { message, label, help }, value.span.clone());
        }
        return None;
    };
    if values.is_empty() {
        let label = "expected at least one value".to_owned();
        let mistake = Mistake::Other { message: format!("axis `{parameter}` is empty"), label, help: None };
        mistakes.add(mistake, value.span.clone());
        return None;
    }
    let mut shown: Vec<String> = Vec::with_capacity(values.len());
    let mut seen = std::collections::HashSet::new();
    for value in values {
        let short = short(&value.value);
        if !seen.insert(short.clone()) {
            let message = format!("axis `{parameter}` has the value `{short}` twice");
            let help = Some("remove one of them".to_owned());
            mistakes.add(Mistake::Other { message, label: "again here".to_owned(), help }, value.span.clone());
            return None;
        }
        if node.is_none() && !matches!(value.value, Syntax::Integer(Some(0..=0x7fff_ffff_ffff_ffff))) {
            let expected = "an integer, at least 0".to_owned();
            mistakes.add(Mistake::Range { key: "seed".to_owned(), expected }, value.span.clone());
            return None;
        }
        shown.push(short);
    }
    Some(Axis { node, parameter, path, values: values.clone(), shown })
}

/// The copies of a node's table: one for every combination of its axes that is not left out. `written` is its table
/// without what defaults add.
pub(super) fn variants(
    node: &str,
    written: &Table,
    filled: Table,
    axes: &[Axis],
    excluded: &[Excluded],
    scope: &Scope<'_>,
) -> Vec<(Table, Point)> {
    let mistakes = scope.mistakes;
    let own: Vec<usize> = (0..axes.len()).filter(|axis| axes[*axis].node.as_deref() == Some(node)).collect();
    if own.is_empty() {
        return vec![(filled, Point::new())];
    }
    for axis in own.iter().map(|axis| &axes[*axis]) {
        if let Some(entry) = written_at(written, &axis.path) {
            two_ways(axis, &entry.key_span, scope);
        }
    }
    let count = own.iter().try_fold(1usize, |count, axis| count.checked_mul(axes[*axis].values.len()));
    if count.is_none_or(|count| count > MOST_INSTANCES) {
        mistakes.push(too_many(node, axes[own[0]].span()));
        return vec![(filled, Point::new())];
    }
    let mut points = vec![Point::new()];
    for axis in own {
        let values = 0..axes[axis].values.len();
        points = points
            .iter()
            .flat_map(|point| values.clone().map(move |value| [&point[..], &[(axis, value)]].concat()))
            .collect();
    }
    // Combinations that the node's own axes leave out are not even read: they may be left out for what is wrong with them.
    let out: Vec<Point> =
        excluded.iter().filter(|it| it.node.as_deref() == Some(node)).filter_map(|it| it.own_point(axes)).collect();
    points.retain(|point| !out.iter().any(|out| out.iter().all(|value| point.contains(value))));
    if points.is_empty() {
        mistakes.push(none_left(node, written.span.clone()));
        return vec![(filled, Point::new())];
    }
    let variant = |point: Point| {
        let mut table = filled.clone();
        for (axis, value) in &point {
            put(&mut table, &axes[*axis].path, axes[*axis].values[*value].clone());
        }
        (table, point)
    };
    points.into_iter().map(variant).collect()
}

/// Reports a parameter that has a value at `value`, and an axis that may not replace it.
pub(super) fn two_ways(axis: &Axis, value: &Span, scope: &Scope<'_>) {
    if scope.folders.may_replace(axis.span().start, value.start) {
        return;
    }
    let (table, parameter) = (axis.node.as_deref().unwrap_or("pipeline"), &axis.parameter);
    let mistake = Diagnostic::new(format!("`{}` has a value and an axis", axis.full_name()))
        .label(value.clone(), "a value")
        .label(axis.span(), "an axis")
        .help(format!(
            "remove one of them; an axis with one value is set by `-S '{table}.matrix.{parameter}=[VALUE]'`"
        ));
    scope.mistakes.push(mistake);
}

/// What is said of a sweep that is too large.
pub fn too_many(node: &str, span: Span) -> Diagnostic {
    let most = crate::diagnostic::grouped(MOST_INSTANCES);
    Diagnostic::new(format!("`{node}` has more than {most} instances"))
        .label(span, "one for every combination of values")
        .help("sweep fewer values, or `exclude` combinations".to_owned())
}

/// What is said of a node of which every combination is left out.
pub fn none_left(node: &str, span: Span) -> Diagnostic {
    Diagnostic::new(format!("`{node}` has no instances"))
        .label(span, "no combination of values is left")
        .help("remove a combination from `exclude`, or take inputs that have values in common".to_owned())
}

fn written_at<'a>(table: &'a Table, path: &[(String, Span)]) -> Option<&'a Entry> {
    let entry = table.get(&path.first()?.0)?;
    match (&entry.value.value, &path[1..]) {
        (_, []) => Some(entry),
        (Syntax::Table(table), below) => written_at(table, below),
        _ => Some(entry),
    }
}

impl Excluded {
    /// The point, when all of it is on axes of the node itself.
    fn own_point(&self, axes: &[Axis]) -> Option<Point> {
        let value = |(name, _, value): &(String, Span, Located)| {
            let axis = axes.iter().position(|axis| axis.node == self.node && axis.parameter == *name)?;
            Some((axis, axes[axis].shown.iter().position(|shown| *shown == short(&value.value))?))
        };
        self.values.iter().map(value).collect()
    }

    /// The combination that is meant; an unknown axis or value is reported.
    pub(super) fn resolved(&self, axes: &[Axis], mistakes: &Mistakes) -> Option<Exclusion> {
        let mut point = Point::new();
        for (name, span, value) in &self.values {
            let own = |axis: &Axis| self.node.is_some() && axis.node == self.node && axis.parameter == *name;
            let seed = |axis: &Axis| axis.node.is_none() && name == "seed";
            let full = |axis: &Axis| axis.full_name() == *name;
            let found =
                axes.iter().position(own).or_else(|| axes.iter().position(full)).or_else(|| axes.iter().position(seed));
            let Some(axis) = found else {
                let full: Vec<String> = axes.iter().map(Axis::full_name).collect();
                let of_node = axes.iter().filter(|axis| axis.node == self.node).map(|axis| axis.parameter.as_str());
                let near = nearest(name, of_node).map(|near| format!("did you mean `{near}`?"));
                let names: Vec<&str> = full.iter().map(String::as_str).collect();
                let (message, label) = (format!("unknown axis `{name}`"), "no axis has this name".to_owned());
                let help = near.or_else(|| did_you_mean(name, "axes", &names));
                mistakes.add(Mistake::Other { message, label, help }, span.clone());
                return None;
            };
            let Some(value) = axes[axis].shown.iter().position(|shown| *shown == short(&value.value)) else {
                let message = format!("axis `{name}` has no value `{}`", short(&value.value));
                let label = format!("expected one of {}", listed(&axes[axis].shown));
                mistakes.add(Mistake::Other { message, label, help: None }, value.span.clone());
                return None;
            };
            point.push((axis, value));
        }
        point.sort_unstable();
        Some(Exclusion { node: self.node.clone(), point, span: self.span.clone() })
    }
}

/// How long a string may be in the name of an instance.
const LONGEST: usize = 32;

/// A value in its shortest form, as in the name of an instance.
pub(super) fn short(value: &Syntax) -> String {
    let text = unshortened(value);
    match value {
        Syntax::List(_) | Syntax::Table(_) if text.chars().count() > 2 * LONGEST => {
            let (start, close) = (text.chars().take(2 * LONGEST - 10), if text.starts_with('[') { ']' } else { '}' });
            let digest = Digest::of(text.as_bytes()).to_string();
            let start: String = start.filter(|c| !"[]{}\"".contains(*c)).collect();
            format!("{}{start}\u{2026}{}{close}", if close == ']' { '[' } else { '{' }, &digest[..6])
        }
        _ => text,
    }
}

fn unshortened(value: &Syntax) -> String {
    match value {
        Syntax::Boolean(value) => value.to_string(),
        Syntax::Integer(value) => value.map_or("?".to_owned(), |value| value.to_string()),
        Syntax::Float(value) => {
            let (plain, exponent) = (value.to_string(), format!("{value:e}"));
            if exponent.len() < plain.len() { exponent } else { plain }
        }
        Syntax::String(text) => {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@+".contains(c);
            let is_other = text.parse::<f64>().is_ok() || text == "true" || text == "false";
            match text {
                text if text.chars().count() > LONGEST => {
                    let start: String = text.chars().take(LONGEST - 10).collect();
                    let digest = Digest::of(text.as_bytes()).to_string();
                    format!("\"{}\u{2026}{}\"", start.escape_debug(), &digest[..6])
                }
                text if !text.is_empty() && text.chars().all(is_plain) && !is_other => text.clone(),
                text => format!("\"{}\"", text.escape_debug()),
            }
        }
        Syntax::List(values) => {
            format!("[{}]", values.iter().map(|value| unshortened(&value.value)).collect::<Vec<_>>().join(","))
        }
        Syntax::Table(table) => {
            let entry = |entry: &Entry| format!("{}={}", entry.key, unshortened(&entry.value.value));
            format!("{{{}}}", table.entries.iter().map(entry).collect::<Vec<_>>().join(","))
        }
        Syntax::Datetime | Syntax::Broken => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::syntax::parse;

    #[test]
    fn values_are_as_short_as_they_can_be() {
        let text =
            "v = [0.10, 1e-7, 1.0, 3, -2.5e10, true, 'stic:captions', 'a b', '1', '', [0.5, 1.0], { file = 'a.txt' }]";
        let Syntax::List(values) = parse(text).root.entries.remove(0).value.value else { panic!("a list") };
        let shown: Vec<String> = values.iter().map(|value| short(&value.value)).collect();
        assert_eq!(shown.join(" "), r#"0.1 1e-7 1 3 -2.5e10 true stic:captions "a b" "1" "" [0.5,1] {file=a.txt}"#);
        let long = short(&Syntax::String("Describe the picture in detail, please.".to_owned()));
        assert!(long.starts_with("\"Describe the picture i\u{2026}") && long.len() < 40, "{long}");
    }
}
