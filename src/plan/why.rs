//! Why a node would run: the fields of its key against those of an earlier result, old → new. It does not know what
//! fields mean, but for one: that two numerics classes may be asked to stand for one another.

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

/// `changes` for people, a line each. `left_out` says what it means that a field is not there.
pub fn sentences(changes: &[Change], left_out: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    if let [Change { field, old: Some(Value::Text(old)), new: Some(Value::Text(new)) }] = changes
        && field == NUMERICS
    {
        let classes = old.split(ACCEPTED).flat_map(|classes| classes.split(", ")).filter(|class| class != new);
        let classes: Vec<String> = classes.map(|class| format!("\"{class}\"")).collect();
        return vec![format!(
            "only the numerics class differs: {old} → {new} (the earlier result is used with \
             `accept_numerics = [{}]` under `[device]`)",
            classes.join(", ")
        )];
    }
    changes.iter().map(|change| change.told(left_out(&change.field))).collect()
}

/// Whether two values are one, whichever of them was written to a record and read back: a text that looks like a
/// digest comes back as one.
fn alike(a: &Value, b: &Value) -> bool {
    a == b || serde_json::to_value(a).ok() == serde_json::to_value(b).ok()
}

impl Change {
    fn told(&self, left_out: Option<String>) -> String {
        let absent = left_out.unwrap_or_else(|| {
            let absent = match self.field.as_str() {
                "seed" | "pipeline seed" => "unused",
                field if field.contains(' ') || field.starts_with("inputs.") => "none",
                _ => "the default",
            };
            absent.to_owned()
        });
        let show = |value: &Option<Value>| value.as_ref().map_or_else(|| absent.clone(), shown);
        let (old, new) = (show(&self.old), show(&self.new));
        let start = common_start(&old, &new);
        format!("{}: {} → {}", self.field, excerpt(&old, start), excerpt(&new, start))
    }
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

    fn fields(fields: &[(&str, Value)]) -> Vec<(String, Value)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn every_field_that_differs_is_told_old_and_new() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let old = fields(&[("beta", 0.1.into()), ("epochs", 2i64.into()), ("inputs.pairs", vec![a].into())]);
        let new = fields(&[("beta", 0.2.into()), ("inputs.pairs", vec![b].into()), ("inputs.adapter", vec![a].into())]);
        assert_eq!(
            sentences(&changes(&old, &new), &|name| (name == "epochs").then(|| "1 (the default)".to_owned())),
            [
                "beta: 0.1 → 0.2".to_owned(),
                format!("inputs.pairs: {} → {}", a.short(), b.short()),
                format!("inputs.adapter: none → {}", a.short()),
                "epochs: 2 → 1 (the default)".to_owned(),
            ]
        );
        assert!(changes(&old, &old).is_empty());
    }

    #[test]
    fn a_numerics_class_alone_is_said_plainly() {
        let old = fields(&[("kind", "describe".into()), (NUMERICS, "cuda-bf16".into())]);
        let new = fields(&[("kind", "describe".into()), (NUMERICS, "cpu-f32".into())]);
        let [only] = &sentences(&changes(&old, &new), &|_| None)[..] else { panic!("one sentence") };
        assert!(only.starts_with("only the numerics class differs: cuda-bf16 → cpu-f32"));
        assert!(only.contains("accept_numerics = [\"cuda-bf16\"]"));
        // A result that took finished items of other classes.
        let old =
            fields(&[("kind", "describe".into()), (NUMERICS, "cpu-f32 with items of cuda-bf16, cuda-f32".into())]);
        let [only] = &sentences(&changes(&old, &new), &|_| None)[..] else { panic!("one sentence") };
        assert!(only.contains("accept_numerics = [\"cuda-bf16\", \"cuda-f32\"]"), "{only}");
    }

    #[test]
    fn long_texts_are_cut_around_what_differs() {
        let long = |word: &str| format!("{}{word}{}", "once upon a time ".repeat(20), " and so on".repeat(20));
        let old = fields(&[("prompts", Value::from(long("cat")))]);
        let new = fields(&[("prompts", Value::from(long("dog")))]);
        let [only] = &sentences(&changes(&old, &new), &|_| None)[..] else { panic!("one sentence") };
        assert!(only.contains("cat") && only.contains("dog") && only.chars().count() < 150, "{only}");
    }

    #[test]
    fn a_text_that_looks_like_a_digest_is_no_change_when_it_comes_back_as_one() {
        let digest = Digest::of(b"a");
        let old = fields(&[("revision", digest.into())]);
        let new = fields(&[("revision", digest.to_string().into())]);
        assert!(changes(&old, &new).is_empty());
    }
}
