//! STIC, Self-Training on Image Comprehension (<https://arxiv.org/abs/2405.19716>), as a declarative dataflow engine.
//!
//! A pipeline is a TOML file: nodes, connected by their inputs. The engine plans and runs it; a node's result is stored
//! under a key of everything that determines it, so that only what a change affects runs again.
//!
//! # Map
//!
//! Imports point downwards only; the compiler and `tests/architecture.rs` enforce this.
//!
//! ```text
//! cli                          commands, progress, exit codes
//! nodes                        the kinds of node: joins the two columns below
//! stic-engine                  │ eval  train      metrics; losses, optimizer, steps
//!                              │ model            families of models on burn, adapters, generation, scores
//!                              │ data             pictures, corruptions, readers, prompts
//!                              │ artifact device  the rows that kinds read and write; names of backends
//! ```
//!
//! - The left column is the engine, a crate of its own in `src/engine/` that builds and tests without burn. It knows
//!   nodes by the traits of [`stic_engine::node`].
//! - The right column is the learning side. It never names the graph or the cache, and can be used without them.
//!
//! # One walk through the code
//!
//! `stic run FILE` parses the text, the files that it includes and `-S` settings into a [`spec`](stic_engine::spec)
//! (spans kept for messages), and builds a [`graph`](stic_engine::graph) from it: a node for each table, or one for every
//! combination of values that it is swept with, constructed by the kinds in [`nodes`]. All mistakes of both steps are
//! reported at once, and nothing runs before there are none. [`plan`](stic_engine::plan) gives each node whose inputs
//! exist a key and looks it up in the [`store`](stic_engine::store); [`run`](stic_engine::run) executes what is
//! missing, in topological order, and publishes: objects first, the record last. A node that maps items reuses those
//! in its journal and computes only the others. The invariants of keys and of the cache are in [`stic_engine`].
//!
//! # A picture's way through the learning side
//!
//! [`data::picture`] decodes a file to pixels. The image processor of a model's family counts the image tokens they take,
//! and resizes and tiles them for the tower ([`model::contract::ImageProcessor`]; for LLaVA `model/llava/images.rs`).
//! [`model::processor`] renders a conversation by a chat template, repeats the image token as the layout says
//! ([`expand`](model::template::Rendered::expand)), and tokenizes it. [`model::batch`] puts the tower's features in the
//! places of image tokens, and [`model::forward`] runs the decoder's layers: with a KV cache
//! ([`LayerCache`](model::attention::LayerCache)) in [`model::generate`], without one in [`model::score`] and in
//! training. There, [`train::loss`] makes a loss of the log-probabilities of answers, [`train::step`] takes its gradient,
//! scaled by [`train::scale`] in f16, back through the layers to the tensors of the adapter
//! ([`model::adapter`]), and [`train::optimizer`] takes the step. [`train::training`] repeats that.

pub mod artifact;
pub mod cli;
pub mod data;
pub mod device;
pub mod eval;
pub mod model;
pub mod nodes;
pub mod train;
