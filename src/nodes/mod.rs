//! The kinds of node, one a file. Here the engine's contract meets data, model, training and evaluation.

pub mod adapter;
mod curve;
mod dpo;
mod evaluate;
mod export;
mod model;
mod prompts;
mod sft;
mod share;
mod training;
#[cfg(test)]
mod trial;

pub use dpo::DpoKind;
pub use evaluate::EvaluateKind;
pub use export::export;
pub use prompts::Prompts;
pub use sft::SftKind;
pub use share::Fraction;
