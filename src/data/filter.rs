//! `where`: selects entries of a source by picture, path and fields.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde_json::Value;

use super::source::Entry;

/// Conditions, all of which must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Whether there is a picture.
    pub image: Option<bool>,
    /// Globs, one of which must match the picture's name as the source writes it.
    pub path: Option<Globs>,
    /// Accepted values by field, including `id`.
    pub fields: Vec<(String, Vec<Value>)>,
}

/// Compiled globs.
#[derive(Clone, Debug)]
pub struct Globs {
    /// As written.
    pub patterns: Vec<String>,
    set: GlobSet,
}

impl Globs {
    /// Compiles `patterns`: `*` and `?` stay within a component, `**` does not.
    ///
    /// # Errors
    /// The first invalid pattern, and why.
    pub fn new(patterns: Vec<String>) -> Result<Self, (String, String)> {
        let mut set = GlobSetBuilder::new();
        for pattern in &patterns {
            let glob = GlobBuilder::new(pattern).literal_separator(true).build();
            set.add(glob.map_err(|error| (pattern.clone(), error.kind().to_string()))?);
        }
        let set = set.build().map_err(|error| (patterns.join(", "), error.kind().to_string()))?;
        Ok(Self { patterns, set })
    }
}

impl Filter {
    /// Whether there is no condition.
    pub fn is_empty(&self) -> bool {
        self.image.is_none() && self.path.is_none() && self.fields.is_empty()
    }

    /// Whether `entry` meets all conditions.
    pub fn takes(&self, entry: &Entry) -> bool {
        let matches = |globs: &Globs| entry.written.as_ref().is_some_and(|written| globs.set.is_match(written));
        self.image.is_none_or(|image| image == entry.picture.is_some())
            && self.path.as_ref().is_none_or(matches)
            && self.fields.iter().all(|(name, values)| match (name.as_str(), entry.fields.get(name)) {
                ("id", None) => entry.name.as_ref().is_some_and(|id| values.iter().any(|value| is_text(value, id))),
                (_, Some(found)) => values.iter().any(|value| equal(value, found)),
                (_, None) => false,
            })
    }
}

fn is_text(value: &Value, text: &str) -> bool {
    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    shown == text
}

/// Equality in which 1 and 1.0 are the same number.
fn equal(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(value: Value) -> Entry {
        Entry {
            place: None,
            name: value["id"].as_str().map(str::to_owned),
            written: value["image"].as_str().map(str::to_owned),
            picture: value["image"].as_str().map(Into::into),
            conversations: None,
            fields: value["fields"].as_object().cloned().unwrap_or_default(),
            remarks: Vec::new(),
        }
    }

    #[test]
    fn all_conditions_must_hold() {
        let globs = |patterns: &[&str]| Globs::new(patterns.iter().map(|text| (*text).to_owned()).collect()).unwrap();
        let filter = Filter {
            image: Some(true),
            path: Some(globs(&["coco/**", "vg/*/*.jpg"])),
            fields: vec![("split".to_owned(), vec![json!("train"), json!(2)])],
        };
        let takes = |value| filter.takes(&entry(value));
        assert!(takes(json!({"image": "coco/a/b.jpg", "fields": {"split": "train"}})));
        assert!(takes(json!({"image": "vg/a/b.jpg", "fields": {"split": 2.0}})));
        assert!(!takes(json!({"image": "vg/a/b/c.jpg", "fields": {"split": "train"}})));
        assert!(!takes(json!({"image": "coco/a.jpg", "fields": {"split": "test"}})));
        assert!(!takes(json!({"image": "coco/a.jpg"})));
        assert!(!takes(json!({"fields": {"split": "train"}})));
        let by_id = Filter { fields: vec![("id".to_owned(), vec![json!(7)])], ..Filter::default() };
        assert!(by_id.takes(&entry(json!({"id": "7"}))) && !by_id.takes(&entry(json!({"id": "8"}))));
        let text = Filter { image: Some(false), ..Filter::default() };
        assert!(text.takes(&entry(json!({}))) && !text.takes(&entry(json!({"image": "a.jpg"}))));
    }

    #[test]
    fn a_pattern_that_is_none_is_named() {
        assert_eq!(Globs::new(vec!["ok/*".to_owned(), "a[".to_owned()]).unwrap_err().0, "a[");
    }
}
