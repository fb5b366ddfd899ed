//! Source text with spans → pipeline. This module does no input or output.

mod declared;
pub mod keys;
mod mistake;
pub mod parameter;
mod paths;
mod pipeline;
mod reader;
mod slips;
pub mod syntax;

pub use declared::{Declared, PoolKind, PoolRequest, Resource, ResourceKind};
pub use mistake::{Mistake, Mistakes};
pub use pipeline::{InputSource, InputTable, NodeKeys, NodeTable, Pipeline, PipelineTable};
pub use reader::{FromToml, Named, Reader, Scope};

/// The language that this version reads.
pub const LANGUAGE: u64 = 1;
