//! The model: weights, text, generation, scores. This module does not know pipelines, nodes or the cache.

mod error;

pub use error::ModelError;
