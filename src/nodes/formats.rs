//! The formats of the user's data files, each with an example that a test reads.

use crate::artifact;
use stic_engine::artifact::ArtifactKind;
use stic_engine::node::NodeKind;

/// A data format.
#[derive(Clone, Copy, Debug)]
pub struct DataFormat {
    /// Its name.
    pub name: &'static str,
    /// What it contains.
    pub help: &'static str,
    /// What it is imported as, where it is an input.
    pub imported_as: &'static [ArtifactKind],
    /// The kinds with a parameter that names such a file.
    pub named_by: &'static [&'static str],
    /// A row of it, or all of it.
    pub example: &'static str,
}

impl DataFormat {
    /// Whether nodes of `kind` read it.
    pub fn is_read_by(&self, kind: &dyn NodeKind) -> bool {
        let mut files = kind.ports().iter().filter_map(|port| port.accepts.first());
        files.any(|artifact| self.imported_as.contains(artifact)) || self.named_by.contains(&kind.name())
    }
}

/// All forms of file.
pub const FORMATS: [DataFormat; 7] = [
    DataFormat {
        name: "records",
        help: "LLaVA's instruction data, as a JSON array or JSON Lines; ShareGPT and chat messages are supported, too",
        imported_as: &[artifact::RECORDS, artifact::CONVERSATIONS],
        named_by: &["sample"],
        example: r#"{"id": "1", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A dog."}]}"#,
    },
    DataFormat {
        name: "descriptions",
        help: "descriptions generated elsewhere, as a JSON array or JSON Lines",
        imported_as: &[artifact::RESPONSES],
        named_by: &[],
        example: r#"{"image": "a.jpg", "prompt": "Describe the image.", "description": "A dog on a sofa."}"#,
    },
    DataFormat {
        name: "preference pairs",
        help: "preference data in STIC's or TRL's format, as a JSON array or JSON Lines",
        imported_as: &[artifact::PAIRS, artifact::CONVERSATIONS],
        named_by: &[],
        example: r#"{"image": "a.jpg", "prompt": "Describe the image.", "chosen": "A dog on a sofa.", "rejected": "A cat."}"#,
    },
    DataFormat {
        name: "prompt file",
        help: "`.txt` with one prompt per line, or `.json` with an array of strings",
        imported_as: &[],
        named_by: &["describe", "mislead", "pair"],
        example: r#"["Describe the image.", "What is in it?"]"#,
    },
    DataFormat {
        name: "questions.jsonl",
        help: "the questions of `vqa`, in the directory `data`; instead of `answer`, `answers` lists all accepted spellings or, with `answer_type`, the answers of annotators",
        imported_as: &[],
        named_by: &["evaluate"],
        example: r#"{"image": "a.jpg", "question": "What is it?", "answer": "a dog"}"#,
    },
    DataFormat {
        name: "annotations.jsonl",
        help: "the annotations of `captions`, in the directory `data`; an object is a phrase or a list of synonyms",
        imported_as: &[],
        named_by: &["evaluate"],
        example: r#"{"image": "a.jpg", "objects": ["dog", ["sofa", "couch"]]}"#,
    },
    DataFormat {
        name: "vocabulary.json",
        help: "optional, beside `annotations.jsonl`: further objects that a description may mention",
        imported_as: &[],
        named_by: &["evaluate"],
        example: r#"["cat", ["dog", "puppy"]]"#,
    },
];
