//! Kinds of node that do nothing, for tests of what is said about pipelines.

use std::path::PathBuf;
use std::sync::Arc;

use crate::artifact::ArtifactKind;
use crate::node::{
    Arity, Context, Failure, Importer, Inputs, Kinds, Node, NodeKind, Output, Parameter, Port, WholeWork, Work,
};
use crate::pool::{PoolKind, PoolRequest};
use crate::spec::{Reader, ResourceKind};

const fn made(name: &'static str) -> ArtifactKind {
    ArtifactKind { name, version: 1, rows: None }
}

const RECORDS: ArtifactKind = made("records");
const RESPONSES: ArtifactKind = made("responses");
const PAIRS: ArtifactKind = made("pairs");
const CONVERSATIONS: ArtifactKind = made("conversations");
const ADAPTER: ArtifactKind = made("adapter");

/// `pictures` makes records, `tell` takes them and an adapter and makes responses, `join` takes responses and makes
/// pairs, `learn` takes pairs and an adapter and makes an adapter.
pub(crate) fn kinds() -> Kinds {
    let port = |name, accepts, arity| Port { name, accepts, arity, items: false };
    let adapter = port("adapter", &[ADAPTER], Arity::Optional);
    let kind = |name, output, ports: Vec<Port>, keys| -> Arc<dyn NodeKind> {
        Arc::new(Toy { name, output, ports: ports.leak(), keys })
    };
    Kinds::new(
        vec![
            kind("pictures", RECORDS, vec![], &["from"]),
            kind("tell", RESPONSES, vec![port("images", &[RECORDS], Arity::One), adapter], &["model", "temperature"]),
            kind(
                "join",
                PAIRS,
                vec![port("preferred", &[RESPONSES], Arity::One), port("rejected", &[RESPONSES], Arity::Many)],
                &[],
            ),
            kind(
                "learn",
                ADAPTER,
                vec![port("pairs", &[PAIRS, CONVERSATIONS], Arity::One), adapter],
                &["model", "rank"],
            ),
        ],
        Arc::new(ToyImporter),
    )
    .with_resources(&[MODEL])
    .with_pools(&[DEVICE])
}

const MODEL: ResourceKind =
    ResourceKind { table: "models", noun: "model", expected: "the folder of a checkpoint", is_remote: |_| false };

const DEVICE: PoolKind = PoolKind { name: "device", keys: &["backend", "dtype"], read: read_device };

fn read_device(table: &mut Reader<'_>) -> PoolRequest {
    table.choice("backend", &[("auto", ()), ("cuda", ()), ("cpu", ())], ());
    PoolRequest { accept_numerics: table.optional("accept_numerics").unwrap_or_default(), ..PoolRequest::default() }
}

struct Toy {
    name: &'static str,
    output: ArtifactKind,
    ports: &'static [Port],
    keys: &'static [&'static str],
}

impl NodeKind for Toy {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> u32 {
        1
    }

    fn ports(&self) -> &'static [Port] {
        self.ports
    }

    fn output(&self) -> ArtifactKind {
        self.output
    }

    fn read(&self, table: &mut Reader<'_>, _: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        let mut sound = true;
        for key in self.keys {
            sound &= match *key {
                "from" => table.required_path(key).is_some(),
                "model" => table.resource(key, &MODEL).is_some(),
                "rank" => table.required_integer(key, 1..).is_some(),
                _ => table.number(key, 0.2, 0.0..) >= 0.0,
            };
        }
        sound.then(|| Box::new(ToyNode) as Box<dyn Node>)
    }
}

struct ToyNode;

impl Node for ToyNode {
    fn parameters(&self) -> Vec<Parameter> {
        Vec::new()
    }

    fn work(&self) -> Work<'_> {
        Work::Whole(self)
    }
}

impl WholeWork for ToyNode {
    fn run(&self, _: &Inputs, _: &dyn Context) -> Result<Output, Failure> {
        Ok(Output::default())
    }
}

struct ToyImporter;

impl Importer for ToyImporter {
    fn import(
        &self,
        accepts: &[ArtifactKind],
        _: PathBuf,
        _: Option<PathBuf>,
    ) -> (ArtifactKind, Arc<dyn NodeKind>, Box<dyn Node>) {
        let kind = Toy { name: "import", output: accepts[0], ports: &[], keys: &[] };
        (accepts[0], Arc::new(kind), Box::new(ToyNode))
    }
}
