//! Training: losses, the optimiser and its schedule. It does not know the pipeline, the cache, or which node trains.

pub mod batch;
pub mod loss;
pub mod optimizer;
pub mod schedule;
#[cfg(test)]
mod small;
pub mod step;
