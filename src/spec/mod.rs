//! Source text with spans → pipeline. This module does no input or output.

mod mistake;
mod pipeline;
mod reader;
pub mod syntax;

pub use mistake::{Mistake, Mistakes};
pub use pipeline::{InputSource, InputTable, NodeTable, Pipeline};
pub use reader::{FromToml, ModelSource, Reader, Scope};

/// The language that this version reads.
pub const LANGUAGE: u64 = 1;
