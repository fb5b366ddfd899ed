//! The tables that a program's pipeline files have beside those of the engine: things outside the pipeline, by name,
//! and pools.

use std::path::PathBuf;

use serde_json::Value;

use super::Reader;
use super::keys::Synonyms;
use super::parameter::{Class, Declaration, Fallback, Form};

/// What a program's pipeline files may have beside the tables of the engine.
#[derive(Clone, Copy, Default)]
pub struct Declared {
    /// Kinds of resource.
    pub resources: &'static [ResourceKind],
    /// Pools.
    pub pools: &'static [PoolKind],
    /// What the keys of its nodes are called elsewhere.
    pub synonyms: &'static Synonyms,
}

/// A kind of thing outside the pipeline that nodes use by name, such as a model: declared in a table of the file, by
/// `source` and `revision`.
#[derive(Clone, Copy, Debug)]
pub struct ResourceKind {
    /// The table that declares them: `models`.
    pub table: &'static str,
    /// What one is called: `model`.
    pub noun: &'static str,
    /// What `source` is, for messages: `the directory of a checkpoint`.
    pub expected: &'static str,
    /// Whether a source names something that is not a path; whoever uses it says what it is.
    pub is_remote: fn(source: &str) -> bool,
}

impl ResourceKind {
    /// The keys of one's table.
    pub fn declared(&self) -> Vec<Declaration> {
        let text = |what| Form::String { what, blank: false };
        let key =
            |name, what, fallback, help| Declaration { name, form: text(what), fallback, class: Class::Function, help };
        vec![
            key("source", self.expected, Fallback::Required, self.expected),
            key("revision", "a revision", Fallback::Words("none"), "The revision of a source that is not a path"),
        ]
    }
}

/// Something outside the pipeline that a pipeline file declares.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// The table that declares it.
    pub table: &'static str,
    /// Its name in the file.
    pub name: String,
    /// `source` as written.
    pub source: String,
    /// `source` as a directory, relative to the pipeline file.
    pub path: PathBuf,
    /// `revision`, for sources that are not paths.
    pub revision: Option<String>,
}

/// A pool that a program has.
#[derive(Clone, Copy, Debug)]
pub struct PoolKind {
    /// Its name, and that of the table of a pipeline file that asks for it: `device`.
    pub name: &'static str,
    /// The keys of that table.
    pub declared: fn() -> Vec<Declaration>,
    /// Reads that table.
    pub read: fn(&mut Reader<'_>) -> PoolRequest,
    /// All numerics classes that there are.
    pub classes: fn() -> Vec<String>,
}

/// What a pipeline file asks of a pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolRequest {
    /// The request, as the program reads it; null when the file has no such table.
    pub asked: Value,
    /// Numerics classes whose results are used as they are.
    pub accept_numerics: Vec<String>,
}
