//! Content by digest: from the store, or from an external file that was digested, or that the label of a row names.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::artifact::{LABELS, Label, Rows, read_lines};
use crate::digest::Digest;
use crate::node::Artifact;
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
    seen: Vec<Digest>,
    paths: HashMap<Digest, PathBuf>,
}

/// Why content cannot be had. None of these says anything about the item that wants it.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Its object is damaged or missing.
    #[error("{0}")]
    Object(#[from] StoreError),
    /// The file that had this content has another now.
    #[error("`{}` changed while the run was going on", .0.display())]
    Changed(PathBuf),
    /// The file that had this content cannot be read.
    #[error("`{}`: {cause}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// No file is known to have this content.
    #[error("no file with the content {} is known", .0.short())]
    Unknown(Digest),
}

impl External {
    /// Content that lies in `store`, or in files that it digested.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, labels: Mutex::default() }
    }

    /// Makes the files that the labels of `artifact` name findable.
    pub fn add(&self, artifact: &Artifact) {
        let mut labels = self.labels.lock().expect("no panic under the lock");
        if let Some(part) = artifact.part(LABELS).filter(|part| !labels.seen.contains(part)) {
            labels.seen.push(part);
            labels.unread.push(artifact.clone());
        }
    }

    /// The content named by `digest`.
    ///
    /// # Errors
    /// See [`ContentError`].
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, ContentError> {
        match self.store.object(digest) {
            Err(StoreError::MissingObject { .. }) => {}
            read => return Ok(read?),
        }
        let path = self.file(digest).ok_or(ContentError::Unknown(*digest))?;
        match fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == *digest => Ok(bytes),
            Ok(_) => Err(ContentError::Changed(path)),
            Err(cause) => Err(ContentError::Unreadable { path, cause }),
        }
    }

    /// Where the content named by `digest` lies, for people.
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

    fn labelled(store: &Store, file: Digest, path: &Path) -> Artifact {
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
        assert_eq!(external.read(&stored).unwrap(), b"stored");

        let path = folder.path().join("digested");
        fs::write(&path, "digested").unwrap();
        let digested = store.witness().file(&path).unwrap();
        assert_eq!(external.read(&digested).unwrap(), b"digested");
        assert_eq!(external.path(&digested), Some(path.clone()));

        let named = Digest::of(b"named");
        assert!(matches!(external.read(&named), Err(ContentError::Unknown(_))));
        let path = folder.path().join("named");
        fs::write(&path, "named").unwrap();
        external.add(&labelled(&store, named, &path));
        assert_eq!(external.read(&named).unwrap(), b"named");
    }

    #[test]
    fn a_file_that_changed_is_named_and_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&folder.path().join("cache")).unwrap());
        let path = folder.path().join("file");
        fs::write(&path, "before").unwrap();
        let digest = store.witness().file(&path).unwrap();
        fs::write(&path, "after").unwrap();
        let error = External::new(store).read(&digest).unwrap_err();
        assert_eq!(error.to_string(), format!("`{}` changed while the run was going on", path.display()));
    }
}
