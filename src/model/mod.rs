//! The model: weights, text, generation, scores. This module does not know pipelines, nodes or the cache.

mod adapted;
pub mod device;
mod error;
pub mod generate;
mod jinja;
pub mod llava;
pub mod lora;
pub mod nn;
pub mod peft;
pub mod picture;
pub mod sample;
pub mod score;
pub mod sequence;
pub mod session;
pub mod template;
pub mod tokenizer;

pub use error::ModelError;
pub(crate) use error::{AGAIN, listed};

#[cfg(test)]
mod tests;
