//! Cached dataflow pipelines: declared in TOML, keyed by content, made item by item.
//!
//! A pipeline file is read into a [`spec`] (spans kept for messages), and that into a [`graph`], whose nodes are
//! [`node::Node`]s made by the kinds that a program brings. All mistakes of both steps are reported at once, and
//! nothing runs before there are none. [`plan`] gives each node whose inputs exist a key and looks it up in the
//! [`store`]; [`run`] executes what is missing, in topological order, and publishes: objects first, the record last. A
//! node that maps items finds those that are in its journal and makes only the others.
//!
//! # Map
//!
//! ```text
//! run
//! plan
//! store  graph
//! event
//! node
//! pool
//! spec
//! artifact  diagnostic  digest  draw
//! ```
//!
//! Imports point downwards only.
//!
//! # Invariants
//!
//! - A result is named by what determines it: kind and version, parameters, the content of its inputs, seeds, numerics
//!   class. Never by name, path, time or host.
//! - One walk over the fields feeds the key and its explanation ([`digest::Fields`]).
//! - Draws are a function of (seed, purpose, item): see [`draw`]. Order, batching and resuming change nothing.
//! - Only [`store`] writes into the cache, by temporary file, fsync and rename; killing the process at any moment
//!   leaves a cache that the next run uses as it is.
//! - A user's mistake is a diagnostic with a place and a remedy, never a panic.

pub mod artifact;
pub mod diagnostic;
pub mod digest;
pub mod draw;
pub mod event;
pub mod graph;
pub mod node;
pub mod plan;
pub mod pool;
pub mod run;
pub mod spec;
pub mod store;
