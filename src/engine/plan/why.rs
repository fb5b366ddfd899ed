//! Why a node would run: the fields of its key against those of an earlier result, in words. A digest says nothing to a
//! person, so none is reported. Of the fields it knows one: that two numerics classes may be accepted
//! for one another.

use similar::{Algorithm, ChangeTag, DiffTag, TextDiff, capture_diff_slices};

use super::key::{ACCEPTED, NUMERICS};
use crate::digest::Value;

/// A field that is not what it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its dotted name.
    pub field: String,
    /// What it was; `None` where it was left out, being the default.
    pub old: Option<Value>,
    /// What it is.
    pub new: Option<Value>,
}

/// The fields that differ between `old` and `new`, in the order of `new`, those that went last.
pub fn changes(old: &[(String, Value)], new: &[(String, Value)]) -> Vec<Change> {
    let find = |fields: &[(String, Value)], name: &str| {
        fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone())
    };
    let mut changes = Vec::new();
    for (field, value) in new {
        let before = find(old, field);
        if before.as_ref().is_none_or(|before| !alike(before, value)) {
            changes.push(Change { field: field.clone(), old: before, new: Some(value.clone()) });
        }
    }
    for (field, value) in old.iter().filter(|(field, _)| find(new, field).is_none()) {
        changes.push(Change { field: field.clone(), old: Some(value.clone()), new: None });
    }
    changes
}

/// What sentences about changes need to know of the node.
pub trait Words {
    /// What it means that a field is not there.
    fn left_out(&self, field: &str) -> Option<String>;

    /// The pool whose slots the node occupies.
    fn pool(&self) -> &str;

    /// The names of the nodes connected to a port now, in order.
    fn inputs(&self, port: &str) -> Vec<String>;

    /// What the pipeline file says of a parameter, where that is a text.
    fn written(&self, field: &str) -> Option<String>;

    /// What changed in what a parameter names outside the pipeline file, where that can be determined.
    fn source(&self, change: &Change) -> Option<String>;
}

/// `changes` in words, a reason each: its first line says what changed, lines below it how.
pub fn sentences(changes: &[Change], words: &dyn Words) -> Vec<String> {
    if let [Change { field, old: Some(Value::String(old)), new: Some(Value::String(new)) }] = changes
        && field == NUMERICS
    {
        let classes = old.split(ACCEPTED).flat_map(|classes| classes.split(", ")).filter(|class| class != new);
        let accept = accepting(classes, words.pool());
        return vec![format!(
            "only the numerics class differs: {old} → {new} (the earlier result is used with {accept})"
        )];
    }
    changes.iter().flat_map(|change| reported(change, words)).collect()
}

/// What to write to use results of `classes`.
pub fn accepting<'a>(classes: impl Iterator<Item = &'a str>, pool: &str) -> String {
    let classes: Vec<String> = classes.map(|class| format!("\"{class}\"")).collect();
    format!("`accept_numerics = [{}]` under `[{pool}]`", classes.join(", "))
}

/// Whether two values are one, whichever of them was written to a record and read back: a text that looks like a
/// digest comes back as one.
fn alike(a: &Value, b: &Value) -> bool {
    a == b || serde_json::to_value(a).ok() == serde_json::to_value(b).ok()
}

fn reported(change: &Change, words: &dyn Words) -> Vec<String> {
    let Change { field, old, new } = change;
    if let Some(port) = field.strip_prefix("inputs.") {
        return inputs(port, contents(old), contents(new), &words.inputs(port));
    }
    if let (true, Some(old), Some(new)) = (field == "kind version", old, new) {
        return vec![format!("this version of stic computes it differently (kind version {old} → {new})")];
    }
    if [old, new].into_iter().flatten().any(holds_digest) {
        let what = words.written(field).map(|written| format!(": `{written}` has different content"));
        return vec![words.source(change).unwrap_or_else(|| format!("`{field}` changed{}", what.unwrap_or_default()))];
    }
    match (old, new) {
        (Some(old), Some(new)) => difference(field, old, new),
        (old, new) => {
            let absent = words.left_out(field).unwrap_or_else(|| {
                let absent = match field.as_str() {
                    "seed" | "pipeline seed" => "unused",
                    field if field.contains(' ') => "none",
                    _ => "the default",
                };
                absent.to_owned()
            });
            let show = |value: &Option<Value>| value.as_ref().map_or_else(|| absent.clone(), shown);
            vec![arrow(field, &show(old), &show(new))]
        }
    }
}

/// The digests of what came in by a port.
fn contents(value: &Option<Value>) -> Vec<String> {
    match value {
        Some(Value::List(values)) => values.iter().map(Value::to_string).collect(),
        Some(value) => vec![value.to_string()],
        None => Vec::new(),
    }
}

/// What became of the inputs of `port`, whose nodes are `names` now.
fn inputs(port: &str, old: Vec<String>, new: Vec<String>, names: &[String]) -> Vec<String> {
    let name =
        |index: usize| names.get(index).map_or_else(|| format!("an input of `{port}`"), |name| format!("`{name}`"));
    let mut reported = Vec::new();
    let mut gone = 0;
    for operation in capture_diff_slices(Algorithm::Myers, &old, &new) {
        let (before, now) = (operation.old_range(), operation.new_range());
        if let DiffTag::Equal = operation.tag() {
            continue;
        }
        let changed = before.len().min(now.len());
        reported.extend(now.clone().take(changed).map(|index| format!("{} changed", name(index))));
        reported.extend(now.clone().skip(changed).map(|index| format!("{} is now an input of `{port}`", name(index))));
        gone += before.len() - changed;
    }
    match gone {
        0 => {}
        1 => reported.push(format!("an input of `{port}` was removed")),
        gone => reported.push(format!("{gone} inputs of `{port}` were removed")),
    }
    reported
}

fn holds_digest(value: &Value) -> bool {
    match value {
        Value::Digest(_) => true,
        Value::List(values) => values.iter().any(holds_digest),
        Value::Table(values) => values.values().any(holds_digest),
        _ => false,
    }
}

/// What differs between two values of `field`: tables by key, lists by element, strings by line.
fn difference(field: &str, old: &Value, new: &Value) -> Vec<String> {
    match (old, new) {
        (Value::Table(old), Value::Table(new)) => {
            let mut reported = Vec::new();
            for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
                let path = format!("{field}.{key}");
                match (old.get(key), new.get(key)) {
                    (Some(old), Some(new)) if alike(old, new) => {}
                    (Some(old), Some(new)) => reported.extend(difference(&path, old, new)),
                    (old, new) => {
                        let show = |value: Option<&Value>| value.map_or_else(|| "not given".to_owned(), shown);
                        reported.push(arrow(&path, &show(old), &show(new)));
                    }
                }
            }
            reported
        }
        (Value::List(old), Value::List(new)) => match (strings(old), strings(new)) {
            (Some(old), Some(new)) => listed_strings(field, &old, &new),
            _ => elements(field, old, new),
        },
        (Value::String(old), Value::String(new))
            if [old, new].iter().any(|text| text.contains('\n') || text.len() > WIDTH) =>
        {
            vec![format!("{field} changed{}", lines(old, new))]
        }
        (old, new) => vec![arrow(field, &shown(old), &shown(new))],
    }
}

/// All of a list's values as strings, if they are that.
fn strings(values: &[Value]) -> Option<Vec<&str>> {
    values.iter().map(|value| if let Value::String(text) = value { Some(text.as_str()) } else { None }).collect()
}

/// Texts that were added, removed and changed: words in one line, prompts line by line.
fn listed_strings(field: &str, old: &[&str], new: &[&str]) -> Vec<String> {
    if old.iter().chain(new).any(|text| text.contains(char::is_whitespace)) {
        let (mut changed, mut added, mut removed) = (0, 0, 0);
        for operation in capture_diff_slices(Algorithm::Myers, old, new) {
            if operation.tag() != DiffTag::Equal {
                let (before, now) = (operation.old_range().len(), operation.new_range().len());
                changed += before.min(now);
                added += now.saturating_sub(before);
                removed += before.saturating_sub(now);
            }
        }
        let counts = [(changed, "changed"), (added, "added"), (removed, "removed")];
        let counts: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
        return vec![format!("{field}: {}{}", counts.join(", "), lines(&old.join("\n"), &new.join("\n")))];
    }
    let quoted = |strings: Vec<&&str>| strings.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ");
    let added: Vec<&&str> = new.iter().filter(|text| !old.contains(text)).collect();
    let removed: Vec<&&str> = old.iter().filter(|text| !new.contains(text)).collect();
    match (added.is_empty(), removed.is_empty()) {
        (true, true) => vec![format!("{field}: the order changed")],
        (false, true) => vec![format!("{field}: {} added", quoted(added))],
        (true, false) => vec![format!("{field}: {} removed", quoted(removed))],
        (false, false) => vec![format!("{field}: {} in place of {}", quoted(added), quoted(removed))],
    }
}

/// The elements of two lists that differ, numbered from 0. Short lists of numbers are shown whole.
fn elements(field: &str, old: &[Value], new: &[Value]) -> Vec<String> {
    let plain = |values: &[Value]| !values.iter().any(|value| matches!(value, Value::Table(_) | Value::List(_)));
    if plain(old) && plain(new) {
        return vec![arrow(field, &numbers(field, old), &numbers(field, new))];
    }
    let strings = |values: &[Value]| values.iter().map(Value::to_string).collect::<Vec<_>>();
    let mut reported = Vec::new();
    for operation in capture_diff_slices(Algorithm::Myers, &strings(old), &strings(new)) {
        if operation.tag() == DiffTag::Equal {
            continue;
        }
        let (before, now) = (operation.old_range(), operation.new_range());
        let both = before.len().min(now.len());
        for (old_index, new_index) in before.clone().zip(now.clone()) {
            reported.extend(difference(&format!("{field}[{new_index}]"), &old[old_index], &new[new_index]));
        }
        reported.extend(now.skip(both).map(|index| format!("{field}: added {}", new[index])));
        reported.extend(before.skip(both).map(|index| format!("{field}: removed {}", old[index])));
    }
    reported
}

/// A list of plain values. In the tables of a list, a range whose ends are one is written as that number.
fn numbers(field: &str, values: &[Value]) -> String {
    match values {
        [low, high] if low == high && field.contains('[') => low.to_string(),
        values => Value::List(values.to_vec()).to_string(),
    }
}

/// The lines that differ, each prefixed with its sign.
fn lines(old: &str, new: &str) -> String {
    let mut reported = String::new();
    let ended = |text: &str| format!("{text}\n");
    for change in TextDiff::from_lines(&ended(old), &ended(new)).iter_all_changes() {
        let sign = match change.tag() {
            ChangeTag::Equal => continue,
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
        };
        reported.push_str(&format!("\n{sign} {}", change.value().trim_end_matches('\n')));
    }
    reported
}

fn arrow(field: &str, old: &str, new: &str) -> String {
    // A list is reported whole: what came and what went may be at both its ends.
    if [old, new].iter().any(|text| text.starts_with('[')) {
        return format!("{field}: {old} → {new}");
    }
    let start = common_start(old, new);
    format!("{field}: {} → {}", excerpt(old, start), excerpt(new, start))
}

/// A list of one is shown as the one.
fn shown(value: &Value) -> String {
    match value {
        Value::List(values) if values.len() == 1 => values[0].to_string(),
        value => value.to_string(),
    }
}

const WIDTH: usize = 60;

/// As much of `text` as fits a line, around what differs.
fn excerpt(text: &str, difference: usize) -> String {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= WIDTH {
        return text.to_owned();
    }
    let start = difference.saturating_sub(WIDTH / 3).min(characters.len() - WIDTH);
    let end = start + WIDTH;
    let (before, after) = (if start > 0 { "…" } else { "" }, if end < characters.len() { "…" } else { "" });
    format!("{before}{}{after}", characters[start..end].iter().collect::<String>())
}

fn common_start(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    /// A node with one input on each port but `rejected`, which has three.
    struct Node;

    impl Words for Node {
        fn pool(&self) -> &str {
            "device"
        }

        fn left_out(&self, field: &str) -> Option<String> {
            (field == "epochs").then(|| "1 (the default)".to_owned())
        }

        fn inputs(&self, port: &str) -> Vec<String> {
            if port == "rejected" {
                ["bad", "worse", "worst"].map(str::to_owned).to_vec()
            } else {
                vec!["good".to_owned()]
            }
        }

        fn written(&self, field: &str) -> Option<String> {
            (field == "model").then(|| "base".to_owned())
        }

        fn source(&self, change: &Change) -> Option<String> {
            (change.field == "from").then(|| "1 picture added: new.jpg".to_owned())
        }
    }

    fn fields(fields: &[(&str, Value)]) -> Vec<(String, Value)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn said(old: &[(&str, Value)], new: &[(&str, Value)]) -> Vec<String> {
        sentences(&changes(&fields(old), &fields(new)), &Node)
    }

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn table(values: &[(&str, Value)]) -> Value {
        Value::Table(values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    #[test]
    fn every_field_that_differs_is_reported_old_and_new() {
        let old = [("beta", 0.1.into()), ("epochs", 2i64.into()), ("inputs.pairs", vec![digest("a")].into())];
        let new = [
            ("beta", 0.2.into()),
            ("inputs.pairs", vec![digest("b")].into()),
            ("inputs.adapter", vec![digest("a")].into()),
        ];
        let reported = said(&old, &new);
        assert_eq!(
            reported,
            ["beta: 0.1 → 0.2", "`good` changed", "`good` is now an input of `adapter`", "epochs: 2 → 1 (the default)"]
        );
        assert!(said(&old, &old).is_empty());
        // Against a default, too, a list is reported whole, however long.
        let targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
        let reported = said(&[("lora.targets", targets.to_vec().into())], &[]);
        let all = targets.map(|target| format!("\"{target}\"")).join(", ");
        assert_eq!(reported, [format!("lora.targets: [{all}] → the default")]);
    }

    #[test]
    fn inputs_are_reported_by_name_and_content_never_by_digest() {
        let list = |names: &[&str]| Value::from(names.iter().map(|name| digest(name)).collect::<Vec<_>>());
        let reported =
            |old: &[&str], new: &[&str]| said(&[("inputs.rejected", list(old))], &[("inputs.rejected", list(new))]);
        assert_eq!(reported(&["a", "b", "c"], &["a", "x", "c"]), ["`worse` changed"]);
        assert_eq!(reported(&["a", "c"], &["a", "b", "c"]), ["`worse` is now an input of `rejected`"]);
        assert_eq!(reported(&["a", "b", "c", "d"], &["a", "b", "c"]), ["an input of `rejected` was removed"]);
        let sources = [("model", digest("a").into()), ("from", digest("a").into()), ("data", digest("a").into())];
        let others = [("model", digest("b").into()), ("from", digest("b").into()), ("data", digest("b").into())];
        assert_eq!(
            said(&sources, &others),
            ["`model` changed: `base` has different content", "1 picture added: new.jpg", "`data` changed"]
        );
    }

    #[test]
    fn tables_and_lists_are_reported_by_element() {
        let low = |size: i64| table(&[("op", "low_resolution".into()), ("size", size.into())]);
        let noise = table(&[("op", "noise".into()), ("sigma", 0.1.into())]);
        let reported = |old: Vec<Value>, new: Vec<Value>| {
            said(&[("operations", Value::List(old))], &[("operations", Value::List(new))])
        };
        assert_eq!(
            reported(vec![low(20), noise.clone()], vec![low(16), noise.clone()]),
            ["operations[0].size: 20 → 16"]
        );
        assert_eq!(
            reported(vec![low(20)], vec![low(20), noise.clone()]),
            ["operations: added { op = \"noise\", sigma = 0.1 }"]
        );
        assert_eq!(
            reported(vec![low(20), noise], vec![low(20)]),
            ["operations: removed { op = \"noise\", sigma = 0.1 }"]
        );
        let range = |low: f64, high: f64| {
            let sigma = Value::List(vec![low.into(), high.into()]);
            Value::List(vec![table(&[("op", "noise".into()), ("sigma", sigma)])])
        };
        assert_eq!(
            said(&[("operations", range(0.1, 0.1))], &[("operations", range(0.2, 0.4))]),
            ["operations[0].sigma: 0.1 → [0.2, 0.4]"]
        );
        let betas = |beta: f64| [("betas", Value::List(vec![beta.into(), beta.into()]))];
        assert_eq!(said(&betas(0.9), &betas(0.8)), ["betas: [0.9, 0.9] → [0.8, 0.8]"]);
        let fraction = |low: f64| [("fraction", vec![low, 1.0].into())];
        assert_eq!(said(&fraction(0.0), &fraction(0.5)), ["fraction: [0.0, 1.0] → [0.5, 1.0]"]);
        let targets = |names: &[&str]| [("lora.targets", names.to_vec().into())];
        assert_eq!(
            said(&targets(&["q_proj", "k_proj"]), &targets(&["q_proj", "v_proj"])),
            ["lora.targets: `v_proj` in place of `k_proj`"]
        );
    }

    #[test]
    fn prompts_are_reported_line_by_line() {
        let prompts = |strings: &[&str]| [("prompts", strings.to_vec().into())];
        let old = prompts(&["Describe the image.", "What is in it?", "Say more."]);
        let new = prompts(&["Describe the picture.", "What is in it?", "Say more.", "And\nmore?"]);
        assert_eq!(
            said(&old, &new),
            ["prompts: 1 changed, 1 added\n- Describe the image.\n+ Describe the picture.\n+ And\n+ more?"]
        );
        let prompt = |text: &str| [("describe_prompt", Value::from(format!("{text}\nAnd say why.")))];
        assert_eq!(said(&prompt("Describe."), &prompt("Tell.")), ["describe_prompt changed\n- Describe.\n+ Tell."]);
    }

    #[test]
    fn a_numerics_class_alone_is_said_plainly() {
        let reported = said(
            &[("kind", "describe".into()), (NUMERICS, "cuda-bf16".into())],
            &[("kind", "describe".into()), (NUMERICS, "cpu-f32".into())],
        );
        let [only] = &reported[..] else { panic!("one sentence") };
        assert!(only.starts_with("only the numerics class differs: cuda-bf16 → cpu-f32"));
        assert!(only.contains("accept_numerics = [\"cuda-bf16\"]"));
        // A result that took finished items of other classes.
        let reported = said(
            &[("kind", "describe".into()), (NUMERICS, "cpu-f32 with items of cuda-bf16, cuda-f32".into())],
            &[("kind", "describe".into()), (NUMERICS, "cpu-f32".into())],
        );
        let [only] = &reported[..] else { panic!("one sentence") };
        assert!(only.contains("accept_numerics = [\"cuda-bf16\", \"cuda-f32\"]"), "{only}");
    }

    #[test]
    fn a_text_that_looks_like_a_digest_is_no_change_when_it_comes_back_as_one() {
        let digest = Digest::of(b"a");
        let old = fields(&[("revision", digest.into())]);
        let new = fields(&[("revision", digest.to_string().into())]);
        assert!(changes(&old, &new).is_empty());
    }
}
