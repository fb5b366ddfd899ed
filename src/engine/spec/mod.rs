//! Source text with spans → pipeline. This module does no input or output.

pub mod keys;
mod mistake;
mod paths;
mod pipeline;
mod reader;
mod slips;
pub mod syntax;

pub use mistake::{Mistake, Mistakes};
pub use pipeline::{Declared, InputSource, InputTable, NodeTable, Pipeline};
pub use reader::{FromToml, Named, Reader, Resource, ResourceKind, Scope};

/// The language that this version reads.
pub const LANGUAGE: u64 = 1;
