//! The kinds of node, one a file. Here the engine's contract meets data, model, training and evaluation.

pub mod adapter;
mod curve;
mod describe;
mod dpo;
mod evaluate;
mod export;
mod mislead;
mod model;
mod prompts;
mod respond;
mod sft;
mod share;
mod training;
#[cfg(test)]
mod trial;

pub use describe::DescribeKind;
pub use dpo::DpoKind;
pub use evaluate::EvaluateKind;
pub use export::export;
pub use mislead::MisleadKind;
pub use prompts::Prompts;
pub use sft::SftKind;
pub use share::Fraction;
