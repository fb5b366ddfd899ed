//! Content by digest: from the store, or from an external file that was digested, or that the label of a row names.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::context::NodeObjects;
use crate::artifact::{LABELS, Label, Rows, read_lines};
use crate::digest::Digest;
use crate::graph::Graph;
use crate::node::{Artifact, Failure};
use crate::plan::StoredResult;
use crate::store::{Store, StoreError};

/// Finds content by digest, for all nodes of a run.
pub struct External {
    store: Arc<Store>,
    labels: Mutex<Labels>,
}

#[derive(Default)]
struct Labels {
    /// Results whose labels have not been read, since nothing asked so far for what they may name.
    unread: Vec<Artifact>,
    seen: HashSet<Digest>,
    paths: HashMap<Digest, PathBuf>,
}

impl External {
    /// Content in `store`, or in files that it digested.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, labels: Mutex::default() }
    }

    /// Makes the files findable that the labels of `result`, of a node of `graph`, name.
    pub fn add(&self, result: &StoredResult, graph: &Graph) {
        if let Some(part) = result.identity.iter().chain(&result.side).find(|part| part.name == LABELS) {
            self.add_labels(part.digest, || result.artifact(graph));
        }
    }

    fn add_labels(&self, part: Digest, artifact: impl FnOnce() -> Artifact) {
        let mut labels = self.labels.lock().expect("no panic under the lock");
        if labels.seen.insert(part) {
            labels.unread.push(artifact());
        }
    }

    /// The content named by `digest`.
    ///
    /// # Errors
    /// When its object is damaged; when no file is known to have it; when the file that had it has changed or cannot be
    /// read. None of these says anything about the item that wants it.
    pub fn read(&self, digest: &Digest, objects: &NodeObjects) -> Result<Vec<u8>, Failure> {
        match self.store.object(digest) {
            Err(StoreError::MissingObject { .. }) => {}
            read => return objects.noting(read),
        }
        let Some(path) = self.file(digest) else {
            // It may be an object that was made once and is gone.
            objects.note_lost(&StoreError::MissingObject { digest: *digest });
            return Err(Failure::environment(format!("no file with the content {} is known", digest.short()))
                .help("restore the file"));
        };
        match fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == *digest => Ok(bytes),
            Ok(_) => Err(Failure::node(format!("`{}` changed during the run", path.display()))
                .help("run again to recompute what the change affects")),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                Err(Failure::io(&path, &cause).help("restore the file"))
            }
            Err(cause) => Err(Failure::io(&path, &cause)),
        }
    }

    /// The path of the content named by `digest`, for messages.
    pub fn path(&self, digest: &Digest) -> Option<PathBuf> {
        let stored = || self.store.object_size(digest).ok().flatten().map(|_| self.store.object_path(digest));
        self.file(digest).or_else(stored)
    }

    /// The file outside the store that has, or had, this content.
    pub fn file(&self, digest: &Digest) -> Option<PathBuf> {
        if let Some(path) = self.store.found(digest) {
            return Some(path);
        }
        let mut labels = self.labels.lock().expect("no panic under the lock");
        while !labels.paths.contains_key(digest) {
            let artifact = labels.unread.pop()?;
            let named = read_labels(&self.store, &artifact);
            labels.paths.extend(named);
        }
        labels.paths.get(digest).cloned()
    }
}

/// The files that the labels of `artifact` name, by the content of the rows that they belong to. What cannot be read
/// names nothing.
fn read_labels(store: &Store, artifact: &Artifact) -> Vec<(Digest, PathBuf)> {
    let Some(Rows { part: rows_part, file: Some(field) }) = artifact.kind.rows else { return Vec::new() };
    let part = |name: &str| store.object(&artifact.part(name)?).ok();
    let rows = || read_lines::<Value>(&part(rows_part)?).ok();
    let labels = || read_lines::<Label>(&part(LABELS)?).ok();
    let (Some(rows), Some(labels)) = (rows(), labels()) else { return Vec::new() };
    let digest = |row: &Value| row.get(field)?.as_str()?.parse().ok();
    let named = rows.iter().zip(labels);
    named.filter_map(|(row, label)| Some((digest(row)?, PathBuf::from(label.path?)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{ArtifactKind, write_lines};
    use crate::node::{FileDigests, Part};
    use std::path::Path;

    fn labeled(store: &Store, file: Digest, path: &Path) -> Artifact {
        let record = serde_json::json!({ "id": file, "file": file });
        let label = Label { path: Some(path.to_str().unwrap().to_owned()), ..Label::default() };
        let part =
            |name: &str, content: Vec<u8>| Part { name: name.to_owned(), digest: store.put_object(&content).unwrap() };
        let identity = vec![part("records.jsonl", write_lines([&record]))];
        let side = vec![part(LABELS, write_lines([&label]))];
        let rows = Some(Rows { part: "records.jsonl", file: Some("file") });
        let kind = ArtifactKind { name: "records", version: 1, rows };
        Artifact { node: "source".to_owned(), kind, content: file, identity, side }
    }

    #[test]
    fn content_comes_from_the_store_then_from_a_digested_file_then_from_a_label() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&folder.path().join("cache")).unwrap());
        let external = External::new(Arc::clone(&store));
        let stored = store.put_object(b"stored").unwrap();
        let objects = NodeObjects::new(Arc::clone(&store));
        let read = |digest| external.read(digest, &objects);
        assert_eq!(read(&stored).unwrap(), b"stored");

        let path = folder.path().join("digested");
        fs::write(&path, "digested").unwrap();
        let digested = store.witness().file(&path).unwrap();
        assert_eq!(read(&digested).unwrap(), b"digested");
        assert_eq!(external.path(&digested), Some(path.clone()));

        let named = Digest::of(b"named");
        assert!(read(&named).unwrap_err().to_string().starts_with("no file with the content "));
        assert_eq!(objects.lost(), [named], "it may have been an object");
        let path = folder.path().join("named");
        fs::write(&path, "named").unwrap();
        let artifact = labeled(&store, named, &path);
        external.add_labels(artifact.part(LABELS).unwrap(), || artifact);
        assert_eq!(read(&named).unwrap(), b"named");
    }

    #[test]
    fn a_file_that_changed_is_named_and_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&folder.path().join("cache")).unwrap());
        let path = folder.path().join("file");
        fs::write(&path, "before").unwrap();
        let digest = store.witness().file(&path).unwrap();
        fs::write(&path, "after").unwrap();
        let error = External::new(Arc::clone(&store)).read(&digest, &NodeObjects::new(store)).unwrap_err();
        assert_eq!(error.to_string(), format!("`{}` changed during the run", path.display()));
    }
}
