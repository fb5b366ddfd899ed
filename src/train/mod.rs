//! Training: losses, the optimizer and its learning rate schedule, steps, checkpoints.
//!
//! [`training::Training`] is the loop; [`step`] computes the gradient of a micro-batch, [`optimizer`] applies it.
//! Nothing here knows the pipeline, the cache, or which node trains.

pub mod checkpoint;
pub mod dropout;
mod features;
pub mod log;
pub mod loss;
pub mod objective;
pub mod optimizer;
pub mod parity;
pub mod scale;
pub mod schedule;
pub mod step;
pub mod training;

#[cfg(test)]
mod leaks;
#[cfg(test)]
mod tests;
