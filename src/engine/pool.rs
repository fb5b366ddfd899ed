//! Pools of slots that nodes occupy while they run, such as a machine's GPUs. What a slot is only the program knows.

use std::collections::BTreeMap;

use serde_json::Value;

/// What a request resolved to on this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// The numerics class of its slots: results of one class replay as one another's, those of different classes do
    /// not. Part of the keys of the nodes that occupy it.
    pub class: String,
    /// What each slot is, as data: handed to the node that occupies it, and kept with its result.
    pub slots: Vec<Value>,
}

/// The pools of a run, by name.
pub type Pools = BTreeMap<&'static str, Pool>;

/// What a node occupies while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// The pool.
    pub pool: &'static str,
    /// How many of its slots.
    pub count: usize,
}

/// What this machine has.
pub trait Machine: Send + Sync {
    /// Resolves the request `asked` for the pool called `name` on this machine. Called only when some node occupies it.
    ///
    /// # Errors
    /// Why the request cannot be met, and what would do.
    fn pool(&self, name: &str, asked: &Value) -> Result<Pool, String>;
}
