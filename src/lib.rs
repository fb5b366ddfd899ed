//! STIC, Self-Training on Image Comprehension (<https://arxiv.org/abs/2405.19716>), as a declarative dataflow engine.

pub mod artifact;
pub mod cli;
pub mod data;
pub mod device;
pub mod diagnostic;
pub mod digest;
pub mod draw;
pub mod eval;
pub mod event;
pub mod graph;
pub mod model;
pub mod node;
pub mod nodes;
pub mod plan;
pub mod run;
pub mod spec;
pub mod store;
pub mod train;
