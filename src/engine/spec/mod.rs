//! Source text with spans → pipeline. This module does no input or output.

mod cache;
mod chunks;
mod declaration;
mod declared;
mod defaults;
pub mod keys;
pub mod matrix;
mod mistake;
pub mod parameter;
mod paths;
mod pipeline;
mod reader;
mod setting;
mod slips;
pub mod syntax;
mod value;
mod written;

pub use cache::{CacheTable, bytes};
pub use declared::{Declared, PoolKind, PoolRequest, Resource, ResourceKind};
pub use defaults::KindDefaults;
pub use mistake::{Mistake, Mistakes};
pub use pipeline::{InputSource, InputTable, NodeKeys, NodeTable, Pipeline, PipelineTable};
pub use reader::{Named, Reader, Scope, resolve};
pub use value::FromToml;
pub use written::{Files, Folders, Written};

/// The language that this version reads.
pub const LANGUAGE: u64 = 1;
