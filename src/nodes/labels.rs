//! Where rows come from, and readable names for them in messages.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::artifact::{ItemId, Label};
use crate::data::records::Place;
use crate::data::source::Entry;
use stic_engine::diagnostic::counted;
use stic_engine::digest::Digest;
use stic_engine::node::{Artifact, Context, Failure, Inputs};
use stic_engine::spec::resolve;

/// The source's id of an entry, its picture's path, and its place in `from`.
pub fn label(entry: &Entry, from: &Path) -> Label {
    Label {
        name: entry.name.clone(),
        path: entry.picture.as_deref().map(absolute),
        place: entry.place.map(|place| placed(from, place)),
    }
}

/// `path` as it is found from anywhere, without `.` and `..`.
pub fn absolute(path: &Path) -> String {
    resolve(&std::env::current_dir().unwrap_or_default(), path).to_string_lossy().into_owned()
}

/// A place in a file, for labels and messages.
pub fn placed(file: &Path, place: Place) -> String {
    format!("`{}`, {place}", file.display())
}

/// The label of a row derived from the one labeled `label`, with the current path of its picture.
pub fn carried(label: Label, picture: Option<Digest>, context: &dyn Context) -> Label {
    let path = picture.and_then(|picture| context.content_path(&picture));
    Label { path: path.as_deref().map(absolute).or(label.path), ..label }
}

/// The rows of all artifacts of `port`, with their labels.
///
/// # Errors
/// See [`Inputs::rows_of`].
pub fn labeled<T: DeserializeOwned>(inputs: &Inputs, port: &str) -> Result<Vec<(T, Label)>, Failure> {
    let mut all = Vec::new();
    for artifact in inputs.artifacts(port) {
        all.extend(labeled_of(inputs, artifact)?);
    }
    Ok(all)
}

/// The rows of one artifact, with their labels.
///
/// # Errors
/// See [`Inputs::rows_of`].
pub fn labeled_of<T: DeserializeOwned>(inputs: &Inputs, artifact: &Artifact) -> Result<Vec<(T, Label)>, Failure> {
    let rows = inputs.rows_of(artifact)?;
    let mut labels = inputs.labels(artifact);
    labels.resize(rows.len(), Label::default());
    Ok(rows.into_iter().zip(labels).collect())
}

/// The name of an item in messages: its place in a file, else its picture's path, else the source's name for it, else
/// its short id.
pub fn item_name(id: &ItemId, label: &Label) -> String {
    match label {
        Label { place: Some(place), .. } => place.clone(),
        Label { path: Some(path), .. } => format!("`{path}`"),
        Label { name: Some(name), .. } => format!("`{name}`"),
        _ => format!("the item {}", id.short()),
    }
}

/// Records that a node leaves out for one reason: their number, and the first.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftOut {
    what: &'static str,
    help: &'static str,
    count: usize,
    first: String,
}

impl LeftOut {
    /// Records without a picture, where one is needed.
    pub fn without_picture() -> Self {
        let help = "sample with `where = { image = true }` to take only records with a picture";
        Self { what: "without a picture", help, count: 0, first: String::new() }
    }

    /// Records without an answer to train on.
    pub fn without_answer() -> Self {
        let help = "training needs `conversations` with questions and answers";
        Self { what: "without an answer", help, count: 0, first: String::new() }
    }

    /// Records without a description to prepend.
    pub fn without_description() -> Self {
        let help = "describe the same records that are infused: connect one `sample` to both";
        Self { what: "without a description", help, count: 0, first: String::new() }
    }

    /// Leaves out a record.
    pub fn add(&mut self, id: &ItemId, label: &Label) {
        if self.count == 0 {
            self.first = item_name(id, label);
        }
        self.count += 1;
    }

    /// The name of the first, if there are any.
    pub fn first(&self) -> Option<&str> {
        (self.count > 0).then_some(self.first.as_str())
    }

    /// Notes them, if there are any.
    pub fn report(&self, context: &dyn Context) {
        let Self { what, help, count, first } = self;
        match count {
            0 => {}
            1 => context.note(&format!("left out a record {what}: {first}; {help}")),
            _ => context.note(&format!("left out {count} records {what}, first {first}; {help}")),
        }
    }

    /// The clause about them in a summary line, starting with a semicolon.
    pub fn clause(&self) -> String {
        match self.count {
            0 => String::new(),
            1 => format!("; 1 record {} left out: {}", self.what, self.first),
            count => format!("; {} {} left out, first {}", counted(count, "record"), self.what, self.first),
        }
    }

    /// Checks that not all records were left out: `rest` is the number of others.
    ///
    /// # Errors
    /// When all were.
    pub fn check_rest(&self, rest: usize) -> Result<(), Failure> {
        if rest > 0 || self.count == 0 {
            return Ok(());
        }
        let Self { what, help, count, first } = self;
        let message = match count {
            1 => format!("the only record is {what}: {first}"),
            _ => format!("all {count} records are {what}, first {first}"),
        };
        Err(Failure::node(message).help(*help))
    }
}
