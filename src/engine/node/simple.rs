//! Kinds given by two functions: for small kinds, and for trying the engine out.

use super::{Context, Failure, Inputs, Node, NodeKind, Output, Parameter, Port, WholeWork, Work};
use crate::artifact::ArtifactKind;
use crate::spec::Reader;

/// A kind whose nodes run as a whole, on what their parameters and inputs say and nothing else.
#[derive(Clone, Copy)]
pub struct Simple {
    /// See [`NodeKind::name`].
    pub name: &'static str,
    /// See [`NodeKind::version`].
    pub version: u32,
    /// See [`NodeKind::ports`].
    pub ports: &'static [Port],
    /// See [`NodeKind::output`].
    pub output: ArtifactKind,
    /// Reads the parameters; `None` when there was a mistake in them.
    pub read: fn(&mut Reader<'_>) -> Option<Vec<Parameter>>,
    /// Makes the result.
    pub run: fn(&[Parameter], &Inputs, &dyn Context) -> Result<Output, Failure>,
}

struct SimpleNode {
    parameters: Vec<Parameter>,
    run: fn(&[Parameter], &Inputs, &dyn Context) -> Result<Output, Failure>,
}

impl NodeKind for Simple {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn ports(&self) -> &'static [Port] {
        self.ports
    }

    fn output(&self) -> ArtifactKind {
        self.output
    }

    fn read(&self, table: &mut Reader<'_>, _: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        let parameters = (self.read)(table)?;
        Some(Box::new(SimpleNode { parameters, run: self.run }))
    }
}

impl Node for SimpleNode {
    fn parameters(&self) -> Vec<Parameter> {
        self.parameters.clone()
    }

    fn work(&self) -> Work<'_> {
        Work::Whole(self)
    }
}

impl WholeWork for SimpleNode {
    fn run(&self, inputs: &Inputs, context: &dyn Context) -> Result<Output, Failure> {
        (self.run)(&self.parameters, inputs, context)
    }
}
