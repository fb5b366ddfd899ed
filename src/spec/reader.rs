//! Typed reading of one table of a pipeline file; every mistake is collected, none stops the reading.

use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::path::PathBuf;

/// A model that a pipeline file names under `[models]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSource {
    /// Its name in the file.
    pub name: String,
    /// `source` as written.
    pub source: String,
    /// `source` as a folder, relative to the pipeline file.
    pub path: PathBuf,
    /// `revision`, for hub ids.
    pub revision: Option<String>,
}

/// A TOML value that a key can have.
pub trait FromToml: Sized {
    /// What to call it in a message: `a number`, `a text`.
    const EXPECTED: &'static str;
}

impl FromToml for bool {
    const EXPECTED: &'static str = "true or false";
}
impl FromToml for u64 {
    const EXPECTED: &'static str = "a whole number";
}
impl FromToml for f64 {
    const EXPECTED: &'static str = "a number";
}
impl FromToml for String {
    const EXPECTED: &'static str = "a text";
}
impl<T: FromToml> FromToml for Vec<T> {
    const EXPECTED: &'static str = "a list";
}
impl<T: FromToml, const N: usize> FromToml for [T; N] {
    const EXPECTED: &'static str = "a list";
}

/// Reads one table. Keys that nothing asked for are reported when it is dropped or finished by the caller.
pub struct Reader<'a>(PhantomData<&'a ()>);

#[allow(unused_variables)]
impl Reader<'_> {
    /// Whether `key` is written in the table.
    pub fn has(&self, key: &str) -> bool {
        unimplemented!()
    }
    /// The value of `key`; `None` when it is absent, or ill-typed (which is reported).
    pub fn optional<T: FromToml>(&mut self, key: &str) -> Option<T> {
        unimplemented!()
    }
    /// The value of `key`; a missing or ill-typed one is reported.
    pub fn required<T: FromToml>(&mut self, key: &str) -> Option<T> {
        unimplemented!()
    }
    /// A finite number in `range`; anything else is reported and gives the default.
    pub fn number(&mut self, key: &str, default: f64, range: impl RangeBounds<f64>) -> f64 {
        unimplemented!()
    }
    /// As [`Reader::number`], without a default.
    pub fn required_number(&mut self, key: &str, range: impl RangeBounds<f64>) -> Option<f64> {
        unimplemented!()
    }
    /// A whole number in `range`.
    pub fn integer(&mut self, key: &str, default: u64, range: impl RangeBounds<u64>) -> u64 {
        unimplemented!()
    }
    /// A whole number in `range`; `None` when absent.
    pub fn optional_integer(&mut self, key: &str, range: impl RangeBounds<u64>) -> Option<u64> {
        unimplemented!()
    }
    /// One of `choices`; another text is reported with the nearest.
    pub fn choice<T: Clone>(&mut self, key: &str, choices: &[(&str, T)], default: T) -> T {
        unimplemented!()
    }
    /// A path, resolved against the pipeline file's folder.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        unimplemented!()
    }
    /// As [`Reader::path`]; a missing one is reported.
    pub fn required_path(&mut self, key: &str) -> Option<PathBuf> {
        unimplemented!()
    }
    /// The model that `key` names; a missing key or an unknown model is reported.
    pub fn model(&mut self, key: &str) -> Option<ModelSource> {
        unimplemented!()
    }
    /// The table under `key`, as a reader that collects into the same mistakes.
    pub fn table(&mut self, key: &str) -> Option<Reader<'_>> {
        unimplemented!()
    }
    /// The array of tables under `key`.
    pub fn tables(&mut self, key: &str) -> Vec<Reader<'_>> {
        unimplemented!()
    }
    /// Whether the value under `key` is a text, a list, a table, …: for keys that take several forms.
    pub fn is_text(&self, key: &str) -> bool {
        unimplemented!()
    }
    /// See [`Reader::is_text`].
    pub fn is_list(&self, key: &str) -> bool {
        unimplemented!()
    }
    /// See [`Reader::is_text`].
    pub fn is_table(&self, key: &str) -> bool {
        unimplemented!()
    }
    /// All keys of the table that were not read yet, marked as read: for tables with free names (`where`).
    pub fn remaining_keys(&mut self) -> Vec<String> {
        unimplemented!()
    }
    /// Reports a mistake at the value of `key`, or at the table when `key` is absent.
    pub fn reject(&mut self, key: &str, message: impl Into<String>, label: impl Into<String>, help: Option<String>) {
        unimplemented!()
    }
    /// How many mistakes the reading of this table and of those below it has reported.
    pub fn mistakes(&self) -> usize {
        unimplemented!()
    }
}
