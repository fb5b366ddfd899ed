//! The kinds of node, one a file. Here the engine's contract meets data, model, training and evaluation.

pub mod adapter;
mod conditions;
mod corrupt;
mod curve;
mod describe;
mod dpo;
mod evaluate;
mod export;
mod import;
pub mod infuse;
mod labels;
mod listing;
mod mislead;
mod model;
mod operations;
mod pair;
mod prompts;
mod respond;
mod sample;
mod sft;
mod share;
mod survey;
mod training;
#[cfg(test)]
mod trial;

use std::sync::Arc;

use crate::node::{Kinds, NodeKind};

pub use corrupt::CorruptKind;
pub use describe::DescribeKind;
pub use dpo::DpoKind;
pub use evaluate::EvaluateKind;
pub use export::export;
pub use import::FileImporter;
pub use infuse::InfuseKind;
pub use mislead::MisleadKind;
pub use pair::PairKind;
pub use prompts::Prompts;
pub use sample::SampleKind;
pub use sft::SftKind;
pub use share::Fraction;

/// The nine kinds of node, and what imports files.
pub fn kinds() -> Kinds {
    let kinds: Vec<Arc<dyn NodeKind>> = vec![
        Arc::new(SampleKind),
        Arc::new(DescribeKind),
        Arc::new(CorruptKind),
        Arc::new(MisleadKind),
        Arc::new(PairKind),
        Arc::new(DpoKind),
        Arc::new(InfuseKind),
        Arc::new(SftKind),
        Arc::new(EvaluateKind),
    ];
    Kinds::new(kinds, Arc::new(FileImporter))
}
