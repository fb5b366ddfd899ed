//! Pools of slots that nodes occupy while they run, such as a machine's GPUs. What a slot is only the program knows.

use std::collections::BTreeMap;

use serde_json::Value;

/// What a request resolved to on this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// The numerics class of its slots: results of one class replay as one another's, those of different classes do
    /// not. Part of the keys of the nodes that occupy it.
    pub class: String,
    /// What there is to occupy.
    pub slots: Vec<Slot>,
}

/// Something that one node at a time occupies.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// Which thing it is: slots of one place are one, whatever requests led to them.
    pub place: String,
    /// What it is, as data: handed to the node that occupies it, and kept with its result.
    pub what: Value,
}

/// The pools of a run: what each of its nodes may occupy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pools {
    pools: Vec<(&'static str, Pool)>,
    of: BTreeMap<usize, usize>,
}

impl Pools {
    /// No pools, for nodes that occupy nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the node at `index` of the graph occupy slots of `pool`, which is called `name`; nodes share pools that are
    /// alike.
    pub fn insert(&mut self, index: usize, name: &'static str, pool: Pool) {
        let pool = (name, pool);
        let known = self.pools.iter().position(|known| *known == pool);
        let number = known.unwrap_or_else(|| {
            self.pools.push(pool);
            self.pools.len() - 1
        });
        self.of.insert(index, number);
    }

    /// The number of the pool of the node at `index`.
    pub fn number(&self, index: usize) -> Option<usize> {
        self.of.get(&index).copied()
    }

    /// The pool of this number, and what it is called.
    pub fn get(&self, number: usize) -> (&'static str, &Pool) {
        let (name, pool) = &self.pools[number];
        (name, pool)
    }

    /// The pool of the node at `index`.
    pub fn of(&self, index: usize) -> Option<&Pool> {
        self.number(index).map(|number| self.get(number).1)
    }

    /// All pools, each once, and the nodes that occupy it, by index.
    pub fn iter(&self) -> impl Iterator<Item = (&Pool, Vec<usize>)> {
        let nodes = |number| self.of.iter().filter(move |(_, of)| **of == number).map(|(index, _)| *index).collect();
        self.pools.iter().enumerate().map(move |(number, (_, pool))| (pool, nodes(number)))
    }
}

/// What a node occupies while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Slots {
    /// The pool.
    pub pool: &'static str,
    /// How many of its slots.
    pub count: usize,
    /// What the node itself asks of the pool, as the program reads it; null where the pipeline's request is its own.
    pub asked: Value,
}

/// What this machine has.
pub trait Machine: Send + Sync {
    /// Resolves the pipeline's request `asked` for the pool called `name`, and what a node asks beside it, on this
    /// machine. Called only for requests of nodes that are wanted.
    ///
    /// # Errors
    /// Why the request cannot be met.
    fn pool(&self, name: &str, asked: &Value, own: &Value) -> Result<Pool, Unmet>;
}

/// Why a request cannot be met on this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Unmet {
    /// Why.
    pub message: String,
    /// What would do.
    pub help: Option<String>,
}
