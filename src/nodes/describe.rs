//! `describe`: a model describes pictures. With the paper's prompt these are the preferred responses; of altered
//! pictures, rejected ones.

use super::response::{PORTS, ResponseNode};
use crate::artifact::{self, ArtifactKind};
use stic_engine::node::{Node, NodeKind, Port};
use stic_engine::spec::Reader;
use stic_engine::spec::parameter::{Declaration, Parameters};

/// The kind.
pub struct DescribeKind;

impl NodeKind for DescribeKind {
    fn name(&self) -> &'static str {
        "describe"
    }

    fn version(&self) -> u32 {
        3
    }

    fn ports(&self) -> &'static [Port] {
        PORTS
    }

    fn output(&self) -> ArtifactKind {
        artifact::RESPONSES
    }

    fn help(&self) -> &'static str {
        "asks the model about every picture: preferred responses, or rejected ones about altered pictures"
    }

    fn declared(&self) -> Vec<Declaration> {
        ResponseNode::declared()
    }

    fn read(&self, table: &mut Reader<'_>, _connected: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        Some(Box::new(ResponseNode::read(table)?))
    }
}
