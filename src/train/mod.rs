//! Training: losses, the optimiser and its schedule, steps, checkpoints.
//!
//! [`training::Training`] runs the steps; [`step`] computes one gradient, [`optimizer`] takes it. Nothing here knows the
//! pipeline, the cache, or which node trains.

pub mod checkpoint;
pub mod log;
pub mod loss;
pub mod optimizer;
#[cfg(test)]
mod parity;
pub mod scale;
pub mod schedule;
pub mod step;
pub mod training;
