//! What nodes read and make: artifacts, items' values, summaries.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Failure, Objects};
use crate::artifact::{ArtifactKind, LABELS, Label, read_lines};
use crate::digest::Digest;

/// The value of an item: one JSON value, and the objects that it refers to by digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemValue {
    /// The value.
    pub value: serde_json::Value,
    /// Objects that were put into the store and that `value` names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<Digest>,
}

/// Why one item has no value.
#[derive(Clone, Debug, PartialEq)]
pub struct BadItem {
    /// The path or id, for messages.
    pub what: String,
    /// Why.
    pub cause: String,
}

/// A part of an artifact: a name and the digest of its content in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// A file name, such as `records.jsonl`.
    pub name: String,
    /// Its content.
    pub digest: Digest,
}

/// The result of a node, as its consumers see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// The name of the node that made it, for messages.
    pub node: String,
    /// What it is.
    pub kind: ArtifactKind,
    /// The digest of its identity parts.
    pub content: Digest,
    /// The parts that are its identity.
    pub identity: Vec<Part>,
    /// The parts that are not.
    pub side: Vec<Part>,
}

impl Artifact {
    /// The digest of the part called `name`.
    pub fn part(&self, name: &str) -> Option<Digest> {
        self.identity.iter().chain(&self.side).find(|part| part.name == name).map(|part| part.digest)
    }
}

/// A node's inputs, by port.
pub struct Inputs {
    ports: BTreeMap<&'static str, Vec<Artifact>>,
    objects: Arc<dyn Objects>,
}

impl Inputs {
    /// Inputs whose parts lie in `objects`.
    pub fn new(ports: BTreeMap<&'static str, Vec<Artifact>>, objects: Arc<dyn Objects>) -> Self {
        Self { ports, objects }
    }

    /// The artifacts of `port`, as written in the pipeline file; empty when nothing is connected.
    pub fn artifacts(&self, port: &str) -> &[Artifact] {
        self.ports.get(port).map_or(&[], Vec::as_slice)
    }

    /// The content of the part `name` of `artifact`.
    ///
    /// # Errors
    /// When there is no such part, or it cannot be read.
    pub fn part(&self, artifact: &Artifact, name: &str) -> Result<Vec<u8>, Failure> {
        let digest = artifact
            .part(name)
            .ok_or_else(|| Failure::node(format!("the result of `{}` has no part `{name}`", artifact.node)))?;
        self.objects.read(&digest)
    }

    /// The rows of all artifacts of `port`, concatenated.
    ///
    /// # Errors
    /// When a part is missing, cannot be read, or holds a broken line.
    pub fn rows<T: DeserializeOwned>(&self, port: &str) -> Result<Vec<T>, Failure> {
        let mut rows = Vec::new();
        for artifact in self.artifacts(port) {
            rows.extend(self.rows_of::<T>(artifact)?);
        }
        Ok(rows)
    }

    /// The rows of one artifact, for ports that take several kinds.
    ///
    /// # Errors
    /// When its part is missing, cannot be read, or holds a broken line.
    pub fn rows_of<T: DeserializeOwned>(&self, artifact: &Artifact) -> Result<Vec<T>, Failure> {
        let name = artifact.kind.rows_part();
        let text = self.part(artifact, name)?;
        read_lines(&text).map_err(|(line, cause)| {
            Failure::node(format!("the result of `{}` is broken: {name}, line {line}: {cause}", artifact.node))
                .help(format!("run `stic run FILE --force {}` to recompute it", artifact.node))
        })
    }

    /// The labels of the rows of one artifact, in their order; none where it has none.
    pub fn labels(&self, artifact: &Artifact) -> Vec<Label> {
        let text = artifact.part(LABELS).and_then(|digest| self.objects.read(&digest).ok());
        text.and_then(|text| read_lines(&text).ok()).unwrap_or_default()
    }
}

/// What a node made. Digests name objects that the node has put into the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// The parts that are its identity, in an order that is always the same.
    pub identity: Vec<Part>,
    /// The parts that are not.
    pub side: Vec<Part>,
    /// Objects that the parts name (files that were made), so that eviction keeps them.
    pub objects: Vec<Digest>,
    /// Its summary.
    pub summary: Summary,
}

impl Output {
    /// A result of one part, called `name`.
    ///
    /// # Errors
    /// When `content` cannot be put into the store.
    pub fn of(name: &str, content: &[u8], objects: &dyn Objects) -> Result<Self, Failure> {
        let part = Part { name: name.to_owned(), digest: objects.put(content)? };
        Ok(Self { identity: vec![part], ..Self::default() })
    }
}

/// The summary of a result; stored in its side part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// One line, for example `798 rows (2 left out)`.
    pub line: String,
    /// Named numbers with their 95 % intervals where they have one; the run's last table is made of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// What the metrics belong to, for grouping and for the rows of the table. What only the
    /// pipeline calls so is left to [`Node::names`](super::Node::names).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What else must be seen of it. Records of earlier versions have text here, under another name.
    #[serde(default, alias = "samples", deserialize_with = "blocks", skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<Block>,
    /// Why the result may not be what was wanted, though nothing failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A piece of a summary, as data, for a terminal and a page to render each in its way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "block", rename_all = "lowercase")]
pub enum Block {
    /// A row of the result.
    Sample(Sample),
    /// How a number went, in a few points.
    Curve {
        /// What it is.
        name: String,
        /// Its values, evenly spaced.
        values: Vec<f64>,
    },
    /// Anything else.
    Text {
        /// The text.
        text: String,
    },
}

/// A row of a result, and the file that it is about. A result may have been made when the file has another name than it
/// had.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The digest of the file.
    pub file: Digest,
    /// What the file is called now, once somebody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the row says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// More of it, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<(String, String)>,
}

impl Summary {
    /// The same, with the names that files have now in its samples; `path` gives their paths.
    #[must_use]
    pub fn named(mut self, path: impl Fn(&Digest) -> Option<PathBuf>) -> Self {
        for block in &mut self.blocks {
            if let Block::Sample(sample) = block {
                sample.name =
                    path(&sample.file).and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
            }
        }
        self
    }
}

/// Blocks, and what earlier versions wrote in their place: text, which names a file at its start as `WORD:DIGEST`.
fn blocks<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<Block>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Block(Block),
        Text(String),
    }
    let block = |written| match written {
        Written::Block(block) => block,
        Written::Text(text) => match leading_file(&text) {
            Some((file, rest)) => {
                let text = rest.strip_prefix(": ").unwrap_or(rest).to_owned();
                Block::Sample(Sample { file, name: None, text, fields: Vec::new() })
            }
            None => Block::Text { text },
        },
    };
    Ok(Vec::<Written>::deserialize(source)?.into_iter().map(block).collect())
}

/// The digest at the start of `WORD:DIGEST…`, and what follows it.
fn leading_file(text: &str) -> Option<(Digest, &str)> {
    let (word, rest) = text.split_once(':')?;
    let (digest, rest) = rest.split_at_checked(64)?;
    let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    is_word.then_some((digest.parse().ok()?, rest))
}

/// A measured number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Its name, for example `accuracy`.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// The ends of its 95 % interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
}

/// How one result differs from another that measures the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// How many items both have.
    pub items: usize,
    /// What else was counted, by name, such as what the items are about.
    #[serde(flatten)]
    pub counts: BTreeMap<String, usize>,
    /// By metric: what the one has more than the other, with its 95 % interval.
    pub metrics: Vec<Metric>,
}

/// How far a node is. Who shows it derives rates and the time left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Items or steps done.
    pub done: usize,
    /// Items or steps in all.
    pub total: usize,
    /// Tokens generated or trained on so far in this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// The training loss of the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_name_files_as_they_are_called_when_they_are_shown() {
        let (known, unknown) = (Digest::of(b"known"), Digest::of(b"unknown"));
        let sample = |file| Block::Sample(Sample { file, name: None, text: "a cat".to_owned(), fields: Vec::new() });
        let summary = Summary { blocks: vec![sample(known), sample(unknown)], ..Summary::default() };
        let named = summary.named(|digest| (*digest == known).then(|| PathBuf::from("photos/a.png")));
        let name = |block: &Block| if let Block::Sample(sample) = block { sample.name.clone() } else { None };
        assert_eq!(named.blocks.iter().map(name).collect::<Vec<_>>(), [Some("a.png".to_owned()), None]);
    }

    #[test]
    fn what_earlier_versions_wrote_is_read_as_blocks() {
        let file = Digest::of(b"file");
        let (beside, below) = (format!("file:{file}: a cat"), format!("file:{file}\n  instruction: Say."));
        let texts = ["loss 1 0".to_owned(), format!("a file: {file}"), "file:élan".to_owned()];
        let written: Vec<&String> = [&beside, &below].into_iter().chain(&texts).collect();
        let summary: Summary = serde_json::from_value(serde_json::json!({ "line": "", "samples": written })).unwrap();
        let sample = |text: &str| Block::Sample(Sample { file, name: None, text: text.to_owned(), fields: Vec::new() });
        let texts = texts.map(|text| Block::Text { text });
        let samples = [sample("a cat"), sample("\n  instruction: Say.")];
        assert_eq!(summary.blocks, samples.into_iter().chain(texts).collect::<Vec<_>>());
        let again: Summary = serde_json::from_value(serde_json::to_value(&summary).unwrap()).unwrap();
        assert_eq!(again, summary);
    }
}
