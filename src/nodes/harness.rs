//! A test harness for kinds: reads a node's table, and provides a context that keeps everything in memory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::device::{Backend, DeviceChoice, Precision};
use stic_engine::diagnostic::Diagnostic;
use stic_engine::digest::Digest;
use stic_engine::node::{
    Artifact, BadItem, Checkpoints, Context, Failure, FileDigests, Inputs, Node, NodeKind, Objects, Output, Part,
    Progress, Work,
};
use stic_engine::spec::{Folders, Mistakes, Reader, Resource, Scope, syntax};

/// Reads `text` as the parameters of a node of `kind`, with inputs on the ports `connected`; `base` is a model in
/// `model`. Gives the node, or messages and labels of all mistakes.
pub fn read(kind: &dyn NodeKind, text: &str, connected: &[&str], model: &Path) -> Result<Box<dyn Node>, Vec<String>> {
    let syntax::Parsed { root: table, mistakes, incomplete } = syntax::parse(text);
    let mistakes = Mistakes::after(mistakes, incomplete);
    let source =
        Resource { table: "models", name: "base".into(), source: "m".into(), path: model.to_owned(), revision: None };
    let models = [source];
    let folders = Folders::of(Path::new("folder"));
    let scope = Scope::new(&folders, &models, &mistakes);
    let node = {
        let mut reader = Reader::new(&scope, &table, "node `n`");
        kind.read(&mut reader, &|port| connected.contains(&port))
    };
    let mistakes = mistakes.into_list();
    match node {
        Some(node) if mistakes.is_empty() => Ok(node),
        _ => Err(mistakes.iter().map(reported).collect()),
    }
}

fn reported(mistake: &Diagnostic) -> String {
    format!("{}: {}", mistake.message, mistake.labels.first().map_or("", |label| label.text.as_str()))
}

/// Objects by digest.
#[derive(Default)]
pub struct MemoryObjects(Mutex<BTreeMap<Digest, Vec<u8>>>);

impl Objects for MemoryObjects {
    fn read(&self, digest: &Digest) -> Result<Vec<u8>, Failure> {
        let objects = self.0.lock().unwrap();
        objects.get(digest).cloned().ok_or_else(|| Failure::environment(format!("no object {}", digest.short())))
    }

    fn path(&self, digest: &Digest) -> Result<PathBuf, Failure> {
        Err(Failure::environment(format!("object {} lies in memory", digest.short())))
    }

    fn put(&self, content: &[u8]) -> Result<Digest, Failure> {
        let digest = Digest::of(content);
        self.0.lock().unwrap().insert(digest, content.to_owned());
        Ok(digest)
    }
}

/// A context on the CPU, with seed 7.
pub struct TestContext {
    /// The device.
    pub slots: Vec<serde_json::Value>,
    /// The objects, including pictures.
    pub objects: Arc<MemoryObjects>,
    /// The last content saved under each name.
    pub checkpoints: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Set to interrupt.
    pub stop: AtomicBool,
    /// Interrupts when this many steps or items are done.
    pub stop_after: Option<usize>,
    /// All notes.
    pub notes: Mutex<Vec<String>>,
    /// All progress reports.
    pub progress: Mutex<Vec<Progress>>,
}

impl TestContext {
    /// A context with an empty store.
    pub fn new() -> Self {
        Self {
            slots: vec![serde_json::json!(DeviceChoice { backend: Backend::Cpu, index: 0, precision: Precision::F32 })],
            objects: Arc::default(),
            checkpoints: Mutex::default(),
            stop: AtomicBool::new(false),
            stop_after: None,
            notes: Mutex::default(),
            progress: Mutex::default(),
        }
    }

    /// Runs a node that runs as a whole.
    pub fn run(&self, node: &dyn Node, ports: BTreeMap<&'static str, Vec<Artifact>>) -> Result<Output, Failure> {
        let Work::Whole(work) = node.work() else { panic!("the node maps items") };
        work.run(&Inputs::new(ports, self.objects.clone()), self)
    }

    /// An artifact whose only identity part is `content`.
    pub fn artifact(&self, kind: crate::artifact::ArtifactKind, content: &[u8]) -> Artifact {
        let name = kind.rows_part().to_owned();
        self.made(
            kind,
            Output { identity: vec![Part { name, digest: self.objects.put(content).unwrap() }], ..Output::default() },
        )
    }

    /// A node's output as an artifact.
    pub fn made(&self, kind: crate::artifact::ArtifactKind, output: Output) -> Artifact {
        let text = format!("{:?}", output.identity);
        let Output { identity, side, .. } = output;
        Artifact { node: "above".to_owned(), kind, content: Digest::of(text.as_bytes()), identity, side }
    }
}

impl Context for TestContext {
    fn node(&self) -> &str {
        "harness"
    }

    fn seed(&self) -> u64 {
        7
    }

    fn pipeline_seed(&self) -> u64 {
        7
    }

    fn slots(&self) -> &[serde_json::Value] {
        &self.slots
    }

    fn objects(&self) -> &dyn Objects {
        &*self.objects
    }

    fn files(&self) -> &dyn FileDigests {
        self
    }

    fn content(&self, digest: &Digest) -> Result<Vec<u8>, BadItem> {
        self.objects.read(digest).map_err(|cause| BadItem { what: digest.short(), cause: cause.to_string() })
    }

    fn content_path(&self, _: &Digest) -> Option<PathBuf> {
        None
    }

    fn checkpoints(&self) -> &dyn Checkpoints {
        self
    }

    fn interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn progress(&self, progress: Progress) {
        if self.stop_after == Some(progress.done) {
            self.stop.store(true, Ordering::Relaxed);
        }
        self.progress.lock().unwrap().push(progress);
    }

    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.to_owned());
    }
}

impl Checkpoints for TestContext {
    fn save(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        self.checkpoints.lock().unwrap().insert(name.to_owned(), content.to_owned());
        Ok(())
    }

    fn load(&self, name: &str, read: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<Vec<String>, Failure> {
        let refused = self.checkpoints.lock().unwrap().get(name).and_then(|content| read(content).err());
        Ok(refused.into_iter().collect())
    }
}

impl FileDigests for TestContext {
    fn file(&self, path: &Path) -> io::Result<Digest> {
        Digest::of_file(path)
    }

    fn files(&self, paths: &[PathBuf]) -> Vec<io::Result<Digest>> {
        paths.iter().map(|path| self.file(path)).collect()
    }
}
