//! The kinds of node that a program brings.

use std::sync::Arc;

use super::{Importer, NodeKind};
use crate::artifact::ArtifactKind;
use crate::spec::parameter::{Declaration, Parameters};
use crate::spec::{CacheTable, Declared, PipelineTable};

/// The kinds of node that there are.
#[derive(Clone)]
pub struct Kinds {
    kinds: Vec<Arc<dyn NodeKind>>,
    importer: Option<Arc<dyn Importer>>,
    declared: Declared,
}

impl Kinds {
    /// These kinds.
    pub fn new(kinds: Vec<Arc<dyn NodeKind>>) -> Self {
        Self { kinds, importer: None, declared: Declared::default() }
    }

    /// The same, with what imports files.
    #[must_use]
    pub fn with_importer(mut self, importer: Arc<dyn Importer>) -> Self {
        self.importer = Some(importer);
        self
    }

    /// The same, with what pipeline files may have beside the tables of the engine.
    #[must_use]
    pub fn with_declared(mut self, declared: Declared) -> Self {
        self.declared = declared;
        self
    }

    /// What pipeline files may have beside the tables of the engine.
    pub fn declared(&self) -> Declared {
        self.declared
    }

    /// The tables of a pipeline file beside `nodes`, by their names, and the keys of each: `pipeline`, those of pools,
    /// and those of resources, which are one level deeper.
    pub fn tables(&self) -> Vec<(String, Vec<Declaration>)> {
        let pools = self.declared.pools.iter().map(|pool| (pool.name.to_owned(), (pool.declared)()));
        let resources = self.declared.resources.iter();
        let resources = resources.map(|kind| (format!("{}.NAME", kind.table), kind.declared()));
        let own = [("pipeline", PipelineTable::declared()), ("cache", CacheTable::declared())];
        own.map(|(name, keys)| (name.to_owned(), keys)).into_iter().chain(pools).chain(resources).collect()
    }

    /// What is wrong with how the kinds fit together, for a test of the program: two kinds of node or of artifact under
    /// one name, and artifacts that an input takes and no node makes.
    pub fn conflicts(&self) -> Vec<String> {
        let mut conflicts = Vec::new();
        for (index, kind) in self.kinds.iter().enumerate() {
            if self.kinds[..index].iter().any(|other| other.name() == kind.name()) {
                conflicts.push(format!("two kinds of node are called `{}`", kind.name()));
            }
        }
        let mut artifacts: Vec<ArtifactKind> = Vec::new();
        let made = self.kinds.iter().filter(|kind| kind.same_as().is_none()).map(|kind| kind.output());
        let taken = self.kinds.iter().flat_map(|kind| kind.ports()).flat_map(|port| port.accepts).copied();
        for artifact in made.clone().chain(taken) {
            if artifacts.contains(&artifact) {
                continue;
            }
            if artifacts.iter().any(|other| other.name == artifact.name) {
                conflicts.push(format!("two kinds of artifact are called `{artifact}`"));
            }
            if !made.clone().any(|made| made == artifact) {
                conflicts.push(format!("an input takes `{artifact}`, but no kind of node makes it"));
            }
            artifacts.push(artifact);
        }
        conflicts
    }

    /// The kind called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn NodeKind>> {
        self.kinds.iter().find(|kind| kind.name() == name)
    }

    /// All kinds.
    pub fn all(&self) -> &[Arc<dyn NodeKind>] {
        &self.kinds
    }

    /// The names of all kinds.
    pub fn names(&self) -> Vec<&'static str> {
        self.kinds.iter().map(|kind| kind.name()).collect()
    }

    /// What imports files, if anything does.
    pub fn importer(&self) -> Option<&dyn Importer> {
        self.importer.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Arity, Context, Failure, Inputs, Output, Parameter, Port, Simple};
    use super::*;

    const A: ArtifactKind = ArtifactKind { name: "a", version: 1, rows: None };
    const B: ArtifactKind = ArtifactKind { name: "b", version: 1, rows: None };

    fn kind(name: &'static str, output: ArtifactKind, accepts: &'static [ArtifactKind]) -> Arc<dyn NodeKind> {
        let ports: Vec<Port> =
            accepts.iter().map(|_| Port { name: "in", accepts, arity: Arity::One, items: false }).collect();
        let run: fn(&[Parameter], &Inputs, &dyn Context) -> Result<Output, Failure> = |_, _, _| Ok(Output::default());
        Arc::new(Simple { name, version: 1, ports: ports.leak(), output, read: |_| Some(Vec::new()), run })
    }

    #[test]
    fn kinds_that_do_not_fit_together_are_found() {
        let conflicts = |kinds| Kinds::new(kinds).conflicts();
        assert_eq!(conflicts(vec![kind("x", A, &[]), kind("y", B, &[A])]), Vec::<String>::new());
        assert_eq!(conflicts(vec![kind("x", A, &[]), kind("x", B, &[A])]), ["two kinds of node are called `x`"]);
        assert_eq!(conflicts(vec![kind("x", A, &[B])]), ["an input takes `b`, but no kind of node makes it"]);
        let newer = ArtifactKind { version: 2, ..A };
        let found = conflicts(vec![kind("x", A, &[]), kind("y", newer, &[])]);
        assert_eq!(found, ["two kinds of artifact are called `a`"]);
    }
}
