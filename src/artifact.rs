//! What flows between the nodes of this program: the kinds of artifact, and their rows. Unknown fields of imported rows
//! are kept under `fields`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use stic_engine::digest::Digest;

use stic_engine::artifact::Rows;
pub use stic_engine::artifact::{ArtifactKind, ItemId, LABELS, Label, read_lines, write_lines};

/// Pictures and instruction records: [`Record`].
pub const RECORDS: ArtifactKind = rows("records", "records.jsonl");
/// A model's responses to prompts about pictures: [`Response`].
pub const RESPONSES: ArtifactKind = rows("responses", "responses.jsonl");
/// Preferred and rejected responses: [`Pair`].
pub const PAIRS: ArtifactKind = rows("pairs", "pairs.jsonl");
/// Instructions with descriptions infused: [`Conversation`].
pub const CONVERSATIONS: ArtifactKind = rows("conversations", "conversations.jsonl");
/// Trained weights.
pub const ADAPTER: ArtifactKind = ArtifactKind { name: "adapter", version: 1, rows: None };
/// Predictions and what they score: [`Prediction`].
pub const SCORES: ArtifactKind = rows("scores", "predictions.jsonl");

const fn rows(name: &'static str, part: &'static str) -> ArtifactKind {
    ArtifactKind { name, version: 1, rows: Some(Rows { part, file: Some("picture") }) }
}

/// Who speaks a turn, as LLaVA's data files write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaker {
    /// The person.
    Human,
    /// The model.
    Gpt,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Who speaks.
    pub from: Speaker,
    /// The text; the first human turn about a picture contains `<image>`.
    pub value: String,
}

/// A picture that a corruption made out of another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Altered {
    /// The digest of the altered picture's file.
    pub picture: Digest,
    /// The name of the operation.
    pub operation: String,
    /// What the operation drew.
    pub values: Map<String, Value>,
}

/// A picture, an instruction record, or both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its identity.
    pub id: ItemId,
    /// The digest of the picture's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<Digest>,
    /// What became of the picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub altered: Option<Altered>,
    /// The conversation about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversations: Option<Vec<Turn>>,
    /// Fields that no kind reads.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

impl Record {
    /// The picture that a model is to see: the altered one where there is one.
    pub fn shown(&self) -> Option<Digest> {
        self.altered.as_ref().map(|altered| altered.picture).or(self.picture)
    }
}

/// Why generation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model ended its answer.
    Stop,
    /// The limit of new tokens was reached.
    Length,
}

/// A model's text about a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// The item's identity.
    pub id: ItemId,
    /// The digest of the clean picture.
    pub picture: Digest,
    /// The altered picture that the model saw instead, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub altered: Option<Altered>,
    /// The user's text, without the image placeholder.
    pub prompt: String,
    /// The model's text, without special tokens, trimmed.
    pub text: String,
    /// How many tokens were generated.
    pub tokens: usize,
    /// Why generation stopped.
    pub finish: Finish,
}

/// How a rejected response was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OriginKind {
    /// From an altered picture.
    Corrupted,
    /// With a misleading prompt.
    Misled,
    /// Read from a file that does not say.
    Imported,
}

/// Where a rejected response came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// How it was made.
    pub kind: OriginKind,
    /// The prompt that it answers.
    pub prompt: String,
    /// The altered picture that it describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub altered: Option<Altered>,
}

/// A preference pair: (v, x, y_g, y_b) of Algorithm 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The item's identity.
    pub id: ItemId,
    /// The digest of the clean picture, regardless of what the rejected response was made from.
    pub picture: Digest,
    /// x: the instruction that both responses are trained to answer, without the image placeholder.
    pub instruction: String,
    /// y_g: the preferred response.
    pub chosen: String,
    /// y_b: the rejected response.
    pub rejected: String,
    /// How the rejected response was made.
    pub origin: Origin,
}

/// An instruction record ready for fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// The item's identity.
    pub id: ItemId,
    /// The digest of the picture's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<Digest>,
    /// Human and model turns.
    pub conversations: Vec<Turn>,
}

/// What a model answered in an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The item's identity.
    pub id: ItemId,
    /// The digest of the picture's file.
    pub picture: Digest,
    /// The question as the data has it.
    pub question: String,
    /// The kind of question, where the data says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question_type: Option<String>,
    /// The description that was infused, with describe-and-respond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The user's text as it was sent, without the image placeholder.
    pub prompt: String,
    /// The model's text.
    pub text: String,
    /// What was read out of the text.
    pub answer: String,
    /// The right answers as the data has them, of annotators each one's; of a description the objects of the picture.
    pub gold: Vec<String>,
    /// What the answer scores: 1 is right.
    pub score: f64,
    /// Objects that a description claims, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<Vec<String>>,
    /// Those of them that the picture does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invented: Option<Vec<String>>,
    /// Objects that the picture has and the description does not claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<Vec<String>>,
}
