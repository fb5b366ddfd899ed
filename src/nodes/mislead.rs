//! `mislead`: a model is asked for what is not in the picture. Its responses are rejected ones.
//!
//! It runs like `describe` with other prompts; that it is a kind of its own tells `pair` where a response came from.

use super::response::{PORTS, ResponseNode};
use crate::artifact::{self, ArtifactKind};
use stic_engine::node::{Node, NodeKind, Port};
use stic_engine::spec::Reader;
use stic_engine::spec::parameter::{Declaration, Parameters};

/// The kind.
pub struct MisleadKind;

impl NodeKind for MisleadKind {
    fn name(&self) -> &'static str {
        "mislead"
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
        "asks about every picture with prompts that invite invention: rejected responses"
    }

    fn declared(&self) -> Vec<Declaration> {
        ResponseNode::declared()
    }

    fn read(&self, table: &mut Reader<'_>, _connected: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        Some(Box::new(ResponseNode::read(table)?))
    }
}
