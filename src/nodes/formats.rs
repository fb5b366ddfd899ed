//! The formats of the user's data files, each with an example that a test reads.

/// A data format.
#[derive(Clone, Copy, Debug)]
pub struct DataFormat {
    /// Its name.
    pub name: &'static str,
    /// What it contains.
    pub help: &'static str,
    /// The kinds that read it.
    pub read_by: &'static [&'static str],
    /// A row of it, or all of it.
    pub example: &'static str,
}

/// All forms of file.
pub const FORMATS: [DataFormat; 7] = [
    DataFormat {
        name: "records",
        help: "LLaVA's instruction data, as a JSON array or JSON Lines; ShareGPT and chat messages are supported, too",
        read_by: &["sample", "infuse", "sft"],
        example: r#"{"id": "1", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A dog."}]}"#,
    },
    DataFormat {
        name: "descriptions",
        help: "descriptions generated elsewhere, as a JSON array or JSON Lines",
        read_by: &["pair", "infuse"],
        example: r#"{"image": "a.jpg", "prompt": "Describe the image.", "description": "A dog on a sofa."}"#,
    },
    DataFormat {
        name: "preference pairs",
        help: "preference data in STIC's or TRL's format, as a JSON array or JSON Lines",
        read_by: &["dpo", "sft"],
        example: r#"{"image": "a.jpg", "prompt": "Describe the image.", "chosen": "A dog on a sofa.", "rejected": "A cat."}"#,
    },
    DataFormat {
        name: "prompt file",
        help: "`.txt` with one prompt per line, or `.json` with an array of strings",
        read_by: &["describe", "mislead", "pair"],
        example: r#"["Describe the image.", "What is in it?"]"#,
    },
    DataFormat {
        name: "questions.jsonl",
        help: "the questions of `vqa`, in the directory `data`; instead of `answer`, `answers` lists all accepted spellings or, with `answer_type`, the answers of annotators",
        read_by: &["evaluate"],
        example: r#"{"image": "a.jpg", "question": "What is it?", "answer": "a dog"}"#,
    },
    DataFormat {
        name: "annotations.jsonl",
        help: "the annotations of `captions`, in the directory `data`; an object is a phrase or a list of synonyms",
        read_by: &["evaluate"],
        example: r#"{"image": "a.jpg", "objects": ["dog", ["sofa", "couch"]]}"#,
    },
    DataFormat {
        name: "vocabulary.json",
        help: "optional, beside `annotations.jsonl`: further objects that a description may mention",
        read_by: &["evaluate"],
        example: r#"["cat", ["dog", "puppy"]]"#,
    },
];
