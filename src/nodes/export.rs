//! Writes results for other programs: an adapter as a PEFT directory, everything else as JSON Lines, with generated
//! pictures beside them.
//!
//! Each row is self-contained: it has the id in its source (`source_id`) and the path of its picture (`image`) at the
//! time of the export.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Component, Path};

use serde_json::{Map, Value as Json};

use super::adapter;
use super::sample::changes::CANDIDATES;
use crate::artifact::{self, ItemId, LABELS, read_lines, write_lines};
use stic_engine::digest::Digest;
use stic_engine::node::{Artifact, Failure, Labelled, Objects, Part};
use stic_engine::spec::Resource;

/// The directory of generated pictures in an export.
const PICTURES: &str = "pictures";

/// Writes `artifact` into `folder`. `labels` are those of the sources that it came from, `base_model` is the model that
/// an adapter was trained for.
///
/// # Errors
/// When a part cannot be read, has a name that leads out of the directory, or the directory cannot be written.
pub fn export(
    artifact: &Artifact,
    objects: &dyn Objects,
    labels: &[Labelled],
    base_model: Option<&Resource>,
    folder: &Path,
) -> Result<(), Failure> {
    if artifact.kind == artifact::ADAPTER {
        return adapter::export(artifact, objects, base_model, folder);
    }
    let sources = Sources::new(labels);
    let mut made = BTreeSet::new();
    for part in artifact
        .identity
        .iter()
        .chain(&artifact.side)
        .filter(|part| ![LABELS, CANDIDATES].contains(&part.name.as_str()))
    {
        let mut content = objects.read(&part.digest)?;
        if Some(part.name.as_str()) == artifact.kind.rows.map(|rows| rows.part) {
            let rows: Vec<Map<String, Json>> = read_lines(&content).map_err(|(line, cause)| {
                Failure::node(format!(
                    "the result of `{}` is broken: {}, line {}: {}",
                    artifact.node, part.name, line, cause
                ))
            })?;
            content =
                write_lines(&rows.into_iter().map(|row| sources.row(row, objects, &mut made)).collect::<Vec<_>>());
        }
        write(&folder.join(file_name(artifact, part)?), &content)?;
    }
    if !made.is_empty() {
        let pictures = folder.join(PICTURES);
        fs::create_dir_all(&pictures).map_err(|cause| Failure::io(&pictures, &cause))?;
        for digest in made {
            write(&pictures.join(picture_name(&digest)), &objects.read(&digest)?)?;
        }
    }
    Ok(())
}

/// The name of a part, checked to be a plain file name.
fn file_name<'a>(artifact: &Artifact, part: &'a Part) -> Result<&'a str, Failure> {
    let mut components = Path::new(&part.name).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(name)), None) if name == part.name.as_str() && !part.name.contains(['\\', '\0']) => {
            Ok(&part.name)
        }
        _ => Err(Failure::node(format!("the result of `{}` has a part named `{}`", artifact.node, part.name)).help(
            format!(
                "that is not a valid file name, so the cache is damaged: run `stic run FILE --force {}`",
                artifact.node
            ),
        )),
    }
}

fn picture_name(digest: &Digest) -> String {
    format!("{digest}.png")
}

fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    fs::write(path, content).map_err(|cause| Failure::io(path, &cause))
}

/// The sources' ids of items, and the paths of pictures.
struct Sources<'a> {
    by_id: HashMap<&'a ItemId, &'a Labelled>,
    /// Paths of pictures.
    paths: HashMap<Digest, &'a str>,
}

impl<'a> Sources<'a> {
    fn new(labels: &'a [Labelled]) -> Self {
        // The first wins.
        let by_id = labels.iter().rev().map(|it| (&it.id, it)).collect();
        let path = |it: &'a Labelled| Some((it.file?, it.label.path.as_deref()?));
        Self { by_id, paths: labels.iter().rev().filter_map(path).collect() }
    }

    /// `row` with its source's id and its picture's path. Generated pictures get their path in the export, and are
    /// added to `made`.
    fn row(&self, mut row: Map<String, Json>, objects: &dyn Objects, made: &mut BTreeSet<Digest>) -> Map<String, Json> {
        let text = |row: &Map<String, Json>, key: &str| row.get(key).and_then(Json::as_str).map(str::to_owned);
        let id: Option<ItemId> = row.get("id").and_then(|id| serde_json::from_value(id.clone()).ok());
        let source = id.as_ref().and_then(|id| self.by_id.get(id));
        let name = source.and_then(|source| source.label.name.as_deref());
        let image = text(&row, "picture").and_then(|digest| digest.parse().ok()).and_then(|picture: Digest| {
            // Several files may have this content; take the row's own.
            let own = source.filter(|source| source.file == Some(picture));
            let path = own.and_then(|source| source.label.path.as_deref()).or(self.paths.get(&picture).copied());
            if let Some(path) = path {
                return Some(path.to_owned());
            }
            // A picture stored without its orientation is not a file of the source.
            let stored = made.contains(&picture) || objects.read(&picture).is_ok();
            stored.then(|| {
                made.insert(picture);
                format!("{PICTURES}/{}", picture_name(&picture))
            })
        });

        let mut named = Map::new();
        named.extend(row.shift_remove_entry("id"));
        named.extend(name.map(|name| ("source_id".to_owned(), name.into())));
        named.extend(image.map(|image| ("image".to_owned(), image.into())));
        named.extend(row);
        let origin = named.get_mut("origin").and_then(|origin| origin.get_mut("altered")).map(Json::take);
        let altered = |mut value: Json, made: &mut BTreeSet<Digest>| {
            if let Some(fields) = value.as_object_mut()
                && let Some(digest) = text(fields, "picture").and_then(|digest| digest.parse().ok())
            {
                fields.insert("image".to_owned(), format!("{PICTURES}/{}", picture_name(&digest)).into());
                made.insert(digest);
            }
            value
        };
        if let Some(value) = origin {
            named["origin"]["altered"] = altered(value, made);
        }
        if let Some(value) = named.get_mut("altered").map(Json::take) {
            named["altered"] = altered(value, made);
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Label;
    use crate::nodes::harness::{MemoryObjects, TestContext};

    fn exported(
        artifact: &Artifact,
        objects: &MemoryObjects,
        labels: &[Labelled],
    ) -> Result<tempfile::TempDir, Failure> {
        let folder = tempfile::tempdir().unwrap();
        export(artifact, objects, labels, None, folder.path()).map(|()| folder)
    }

    #[test]
    fn rows_say_their_source_and_where_their_pictures_lie() {
        let harness = TestContext::new();
        let (clean, altered) = (Digest::of(b"clean"), harness.objects.put(b"altered").unwrap());
        let id = ItemId::new(clean);
        let alteration = serde_json::json!({"picture": altered, "operation": "crop", "values": {}});
        let stored = harness.objects.put(b"stored").unwrap();
        let rows = [
            serde_json::json!({"id": id, "picture": clean, "altered": alteration, "fields": {"image": "kept"}}),
            serde_json::json!({"id": "other", "picture": clean, "origin": {"kind": "corrupted", "altered": alteration}}),
            serde_json::json!({"id": "third", "picture": Digest::of(b"unknown"), "score": 0.1}),
            serde_json::json!({"id": id, "picture": stored}),
        ];
        let artifact = harness.artifact(artifact::RECORDS, &write_lines(&rows));
        let label = Label { name: Some("7".to_owned()), path: Some("/today/a.jpg".to_owned()), place: None };
        let labels = [Labelled { id, file: Some(clean), label }];
        let folder = exported(&artifact, &harness.objects, &labels).unwrap();
        let text = fs::read_to_string(folder.path().join("records.jsonl")).unwrap();
        let read: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&read[0]["source_id"], &read[0]["image"]), (&"7".into(), &"/today/a.jpg".into()));
        assert_eq!(read[0]["fields"], serde_json::json!({"image": "kept"}));
        let made = format!("pictures/{altered}.png");
        assert_eq!(read[0]["altered"]["image"], made.as_str());
        assert_eq!(read[1]["origin"]["altered"]["image"], made.as_str());
        assert_eq!((read[1].get("source_id"), &read[1]["image"]), (None, &"/today/a.jpg".into()));
        assert_eq!(read[2], rows[2]);
        assert_eq!(read[3]["image"], format!("pictures/{stored}.png"));
        assert_eq!(fs::read(folder.path().join(made)).unwrap(), b"altered");
    }

    #[test]
    fn a_part_whose_name_leads_out_of_the_folder_is_refused() {
        let harness = TestContext::new();
        for name in ["../out", "/out", "a/b", "..", ".", "", "./a", "a/", "a\\b"] {
            let mut artifact = harness.artifact(artifact::PAIRS, b"");
            artifact.side.push(Part { name: name.to_owned(), digest: harness.objects.put(b"x").unwrap() });
            let error = exported(&artifact, &harness.objects, &[]).err().map(|error| error.to_string());
            assert_eq!(error, Some(format!("the result of `above` has a part named `{name}`")));
        }
    }
}
