//! The files that a user brings: what they hold, with a row of each. A test has every row read.

/// A form of file that is read.
#[derive(Clone, Copy, Debug)]
pub struct DataFormat {
    /// What it is called.
    pub name: &'static str,
    /// What is in it.
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
        help: "instruction data as LLaVA has it, in a JSON list or a JSON object per line; ShareGPT's and chat messages are read too",
        read_by: &["sample", "infuse", "sft"],
        example: r#"{"id": "1", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A dog."}]}"#,
    },
    DataFormat {
        name: "descriptions",
        help: "descriptions made elsewhere, in a JSON list or a JSON object per line",
        read_by: &["pair", "infuse"],
        example: r#"{"image": "a.jpg", "prompt": "Describe the image.", "description": "A dog on a sofa."}"#,
    },
    DataFormat {
        name: "preference pairs",
        help: "the published pairs, or TRL's: in a JSON list or a JSON object per line",
        read_by: &["dpo", "sft"],
        example: r#"{"image": "a.jpg", "prompt": "Describe the image.", "chosen": "A dog on a sofa.", "rejected": "A cat."}"#,
    },
    DataFormat {
        name: "prompt file",
        help: "`.txt` with a prompt per line, or `.json` with a list of strings",
        read_by: &["describe", "mislead", "pair"],
        example: r#"["Describe the image.", "What is in it?"]"#,
    },
    DataFormat {
        name: "questions.jsonl",
        help: "in the folder `data` for `vqa`, a JSON object per line; `answers` in place of `answer` lists spellings that are all right, or with an `answer_type` what annotators said",
        read_by: &["evaluate"],
        example: r#"{"image": "a.jpg", "question": "What is it?", "answer": "a dog"}"#,
    },
    DataFormat {
        name: "annotations.jsonl",
        help: "in the folder `data` for `captions`, a JSON object per line; an object is a phrase or a list of those that mean it",
        read_by: &["evaluate"],
        example: r#"{"image": "a.jpg", "objects": ["dog", ["sofa", "couch"]]}"#,
    },
    DataFormat {
        name: "vocabulary.json",
        help: "optional, beside `annotations.jsonl`: a list of what else a description may claim",
        read_by: &["evaluate"],
        example: r#"["cat", ["dog", "puppy"]]"#,
    },
];
