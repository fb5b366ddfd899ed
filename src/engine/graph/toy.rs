//! Kinds of node that do nothing, for tests of what is said about pipelines.

use std::sync::Arc;

use crate::artifact::ArtifactKind;
use crate::node::{Arity, Importer, Kinds, NodeKind, Output, Parameter, Port, Simple};
use crate::spec::{Declared, PoolKind, PoolRequest, Reader, ResourceKind};

const fn made(name: &'static str) -> ArtifactKind {
    ArtifactKind { name, version: 1, rows: None }
}

const RECORDS: ArtifactKind = made("records");
pub(crate) const RESPONSES: ArtifactKind = made("responses");
pub(crate) const PAIRS: ArtifactKind = made("pairs");
const CONVERSATIONS: ArtifactKind = made("conversations");
const ADAPTER: ArtifactKind = made("adapter");

/// `pictures` makes records, `tell` takes them and an adapter and makes responses, `join` takes responses and makes
/// pairs, `learn` takes pairs and an adapter and makes an adapter.
pub(crate) fn kinds() -> Kinds {
    let port = |name, accepts, arity| Port { name, accepts, arity, items: false };
    let adapter = port("adapter", &[ADAPTER], Arity::Optional);
    let kind = |name, output, ports: Vec<Port>, read| -> Arc<dyn NodeKind> {
        Arc::new(Simple { name, version: 1, ports: ports.leak(), output, read, run: |_, _, _| Ok(Output::default()) })
    };
    Kinds::new(vec![
        kind("pictures", RECORDS, vec![], read_from),
        kind("tell", RESPONSES, vec![port("images", &[RECORDS], Arity::One), adapter], read_tell),
        kind(
            "join",
            PAIRS,
            vec![port("preferred", &[RESPONSES], Arity::One), port("rejected", &[RESPONSES], Arity::Many)],
            |_| Some(Vec::new()),
        ),
        kind("learn", ADAPTER, vec![port("pairs", &[PAIRS, CONVERSATIONS], Arity::One), adapter], read_learned),
    ])
    .with_importer(Arc::new(ToyImporter))
    .with_declared(Declared { resources: &[MODEL], pools: &[DEVICE], synonyms: &[] })
}

const MODEL: ResourceKind =
    ResourceKind { table: "models", noun: "model", expected: "the directory of a checkpoint", is_remote: |_| false };

const DEVICE: PoolKind = PoolKind { name: "device", declared: Vec::new, read: read_device, classes: Vec::new };

fn read_device(table: &mut Reader<'_>) -> PoolRequest {
    table.choice("backend", &[("auto", ()), ("cuda", ()), ("cpu", ())], ());
    PoolRequest { accept_numerics: table.optional("accept_numerics").unwrap_or_default(), ..PoolRequest::default() }
}

fn read_from(table: &mut Reader<'_>) -> Option<Vec<Parameter>> {
    table.required_path("from").map(|_| Vec::new())
}

fn read_tell(table: &mut Reader<'_>) -> Option<Vec<Parameter>> {
    let model = table.resource("model", &MODEL);
    table.number("temperature", 0.2, 0.0..);
    model.map(|_| Vec::new())
}

fn read_learned(table: &mut Reader<'_>) -> Option<Vec<Parameter>> {
    let (model, rank) = (table.resource("model", &MODEL), table.required_integer("rank", 1..));
    model.zip(rank).map(|_| Vec::new())
}

pub(crate) struct ToyImporter;

impl Importer for ToyImporter {
    fn kind(&self, accepts: &[ArtifactKind]) -> Arc<dyn NodeKind> {
        Arc::new(Simple {
            name: "import",
            version: 1,
            ports: &[],
            output: accepts[0],
            read: |table| table.required_path("file").map(|_| Vec::new()),
            run: |_, _, _| Ok(Output::default()),
        })
    }
}
