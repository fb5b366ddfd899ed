//! The model: weights, text, generation, scores. This module does not know pipelines, nodes or the cache.

mod error;
mod jinja;
pub mod llava;
pub mod lora;
pub mod nn;
pub mod picture;
pub mod sequence;
pub mod template;
pub mod tokenizer;

pub use error::ModelError;
