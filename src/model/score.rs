//! Scoring: the log-probabilities that a model gives to the tokens of answers.
//!
//! Sequences are run one by one, without a cache. This module does not know templates, files or nodes.

use super::ModelError;
use super::adapter::Adapter;
use super::batch::{Batch, Member, answer_count, few_counts};
use super::contract::{ImageInput, Model};
use super::forward::log_probabilities;
use super::sequence::Sequence;

/// The score of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The tokens of the answer, with those that close it.
    pub tokens: Vec<u32>,
    /// Their log-probabilities given all that comes before, in nats.
    pub token_logprobs: Vec<f32>,
}

impl Scored {
    /// The log-probability of the whole answer, in nats.
    pub fn logprob(&self) -> f64 {
        // An empty sum is −0.
        self.token_logprobs.iter().map(|value| f64::from(*value)).sum::<f64>() + 0.0
    }
}

/// Scores the answers of `sequence` by `model`, changed by `adapter`.
///
/// # Errors
/// When the sequence is longer than the model's context, or the model produces NaN or infinite logits.
pub fn score(
    model: &dyn Model,
    adapter: Option<&Adapter>,
    sequence: &Sequence,
    image: Option<&ImageInput>,
) -> Result<Scored, ModelError> {
    let (length, context) = (sequence.positions(), model.shape().context);
    if length > context {
        return Err(ModelError::new(format!(
            "prompt and response take {length} positions, {} of them the picture's, and the model's context is {context}",
            sequence.image_tokens()
        )));
    }
    if answer_count(sequence) == 0 {
        return Ok(Scored { tokens: Vec::new(), token_logprobs: Vec::new() });
    }
    let features: Vec<_> = image.into_iter().flat_map(|image| model.encode_images(&[image])).collect();
    let member = Member { sequences: std::slice::from_ref(sequence), image: image.map(|_| 0) };
    let batch = Batch::new(model, &[member], &features, |longest| few_counts(longest, &model.device()));
    let token_logprobs = log_probabilities(model, adapter, &batch);
    if token_logprobs.iter().any(|value| value.is_nan()) {
        return Err(ModelError::new("logits of the model are NaN or infinite")
            .help("a precision with more range (`bf16`, `f32`) may help, or the adapter is damaged"));
    }
    Ok(Scored { tokens: batch.labels.into_iter().map(|label| label as u32).collect(), token_logprobs })
}
