//! Results as other programs read them: an adapter as a PEFT folder, everything else as JSON lines, with the pictures
//! that were made beside them.

use std::fs;
use std::path::Path;

use super::adapter;
use crate::artifact::{ArtifactKind, Record, read_lines};
use crate::digest::Digest;
use crate::node::{Artifact, Failure, Objects};

/// Writes `artifact` into `folder`.
///
/// # Errors
/// When a part cannot be read or the folder not be written.
pub fn export(artifact: &Artifact, objects: &dyn Objects, folder: &Path) -> Result<(), Failure> {
    match artifact.kind {
        ArtifactKind::Adapter => adapter::export(artifact, objects, folder),
        ArtifactKind::Records => {
            parts(artifact, objects, folder)?;
            pictures(artifact, objects, folder)
        }
        ArtifactKind::Responses | ArtifactKind::Pairs | ArtifactKind::Conversations | ArtifactKind::Scores => {
            parts(artifact, objects, folder)
        }
    }
}

/// Every part, under its own name.
fn parts(artifact: &Artifact, objects: &dyn Objects, folder: &Path) -> Result<(), Failure> {
    for part in artifact.identity.iter().chain(&artifact.side) {
        write(&folder.join(&part.name), &objects.read(&part.digest)?)?;
    }
    Ok(())
}

/// The pictures that were made, as `pictures/DIGEST.png`: rows name them by digest. Those that were there before lie
/// where the labels say.
fn pictures(artifact: &Artifact, objects: &dyn Objects, folder: &Path) -> Result<(), Failure> {
    let rows = artifact.kind.rows_name().and_then(|name| artifact.part(name));
    let Some(rows) = rows else { return Ok(()) };
    let records: Vec<Record> = read_lines(&objects.read(&rows)?).map_err(|error| {
        Failure::node(format!("the result of `{}` is broken: line {}: {}", artifact.node, error.line, error.cause))
    })?;
    let made: Vec<Digest> = records.iter().filter_map(|record| Some(record.altered.as_ref()?.picture)).collect();
    if !made.is_empty() {
        let pictures = folder.join("pictures");
        fs::create_dir_all(&pictures).map_err(|cause| Failure::io(&pictures, &cause))?;
        for digest in made {
            write(&pictures.join(format!("{digest}.png")), &objects.read(&digest)?)?;
        }
    }
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    fs::write(path, content).map_err(|cause| Failure::io(path, &cause))
}
