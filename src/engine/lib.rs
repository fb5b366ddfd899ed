//! Cached dataflow pipelines: declared in TOML, keyed by content, made item by item.
//!
//! A pipeline file, the files that it includes and the settings of the command line are read into a [`spec`] (spans kept
//! for messages), and that into a [`graph`], whose nodes are [`node::Node`]s made by the kinds that a program brings; a
//! table that is swept is a node for every combination of values. All mistakes of both steps are reported at once, and
//! nothing runs before there are none. [`plan`] gives each node whose inputs exist a key and looks it up in the
//! [`store`]; [`run`] executes what is missing, in topological order, and publishes: objects first, the record last. A
//! node that maps items finds those that are in its journal and makes only the others.
//!
//! # Example
//!
//! Two kinds of node, a pipeline of them, and what a second run finds:
//!
//! ```
//! use std::{path::Path, sync::Arc};
//! use stic_engine::{artifact::ArtifactKind, event::State, graph::Graph, node::*, run, store::Store};
//!
//! const TEXT: ArtifactKind = ArtifactKind { name: "text", version: 1, rows: None };
//!
//! let word = Simple {
//!     name: "word", version: 1, ports: &[], output: TEXT,
//!     read: |table| Some(vec![Parameter::function("text", table.required::<String>("text")?)]),
//!     run: |parameters, _, context| Output::of("text", parameters[0].value.to_string().as_bytes(), context.objects()),
//! };
//! let count = Simple {
//!     name: "count", version: 1, output: TEXT,
//!     ports: &[Port { name: "of", accepts: &[TEXT], arity: Arity::One, items: false }],
//!     read: |_| Some(Vec::new()),
//!     run: |_, inputs, context| {
//!         let text = inputs.part(&inputs.artifacts("of")[0], "text")?;
//!         Output::of("text", text.len().to_string().as_bytes(), context.objects())
//!     },
//! };
//!
//! let kinds = Kinds::new(vec![Arc::new(word), Arc::new(count)]);
//! let directory = tempfile::tempdir().unwrap();
//! let store = Arc::new(Store::open(&directory.path().join("cache")).unwrap());
//! let states = |text: &str| {
//!     let graph = Graph::read(text, "example", Path::new(""), &kinds).ok().expect("no mistakes");
//!     let report = run::run(&graph, &store, &Default::default(), &Default::default(), &(), &Default::default());
//!     report.unwrap().nodes.iter().map(|node| node.how).collect::<Vec<_>>()
//! };
//! let pipeline = |word| {
//!     let letters = "[nodes.letters]\nkind = 'count'\ninputs.of = 'a'\n[nodes.digits]\nkind = 'count'\ninputs.of = 'letters'\n";
//!     format!("[nodes.a]\nkind = 'word'\ntext = '{word}'\n{letters}")
//! };
//! assert_eq!(states(&pipeline("cat")), [State::Run, State::Run, State::Run]);
//! assert_eq!(states(&pipeline("cat")), [State::Hit, State::Hit, State::Hit]);
//! // Another word with as many letters: what depends on their number alone is cached.
//! assert_eq!(states(&pipeline("dog")), [State::Run, State::Run, State::Hit]);
//! ```
//!
//! # Map
//!
//! ```text
//! run
//! plan  schema
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
pub mod schema;
pub mod spec;
pub mod store;
