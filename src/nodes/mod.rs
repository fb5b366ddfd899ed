//! The kinds of node, one a file. Here the engine's contract meets data, model, training and evaluation.

mod model;
mod prompts;
mod share;

pub use prompts::Prompts;
pub use share::Fraction;
