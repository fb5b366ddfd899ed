//! Scoring: the log-probabilities that a model gives to the tokens of answers.
//!
//! Sequences are run one by one, without a cache. This module does not know templates, files or nodes.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};

use super::ModelError;
use super::generate::row_count;
use super::llava::Llava;
use super::lora::Lora;
use super::picture::Prepared;
use super::sequence::Sequence;

/// What a model makes of an answer.
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

/// Scores the answers of `sequence` by `model`, adapted by `lora`.
///
/// # Errors
/// When the sequence is longer than the model's context, or the model computes no numbers.
pub fn score(
    model: &Llava,
    lora: Option<&Lora>,
    sequence: &Sequence,
    picture: Option<&Prepared>,
) -> Result<Scored, ModelError> {
    let rows = picture.map_or(0, |picture| row_count(model, picture));
    let (length, context) = (sequence.positions(rows), model.config.text.max_positions);
    if length > context {
        return Err(ModelError::new(format!(
            "prompt and response take {length} positions, {rows} of them the picture's, and the model's context is {context}"
        )));
    }
    // A token that nothing comes before has no probability.
    let scored: Vec<usize> = sequence.answers().filter(|index| *index > 0).collect();
    let tokens: Vec<u32> = scored.iter().map(|index| sequence.tokens[*index]).collect();
    if tokens.is_empty() {
        return Ok(Scored { tokens, token_logprobs: Vec::new() });
    }

    let hidden = run(model, lora, sequence, picture);
    let count = tokens.len();
    let integers = |values: Vec<i32>| Tensor::<1, Int>::from_data(TensorData::new(values, [count]), &model.device());
    let before = integers(scored.iter().map(|index| sequence.position(*index, rows) as i32 - 1).collect());
    let labels = integers(tokens.iter().map(|token| *token as i32).collect()).reshape([count, 1]);
    let logits = model.decoder.logits(hidden.select(0, before));
    let values = log_softmax(logits, 1).gather(1, labels).into_data().try_to_vec::<f32>();
    let token_logprobs = values.expect("log-probabilities are 32-bit floats");
    if token_logprobs.iter().any(|value| value.is_nan()) {
        return Err(ModelError::new("the model computes no numbers: its logits are NaN or infinite")
            .help("a precision with more range (`bf16`, `f32`) may help, or the adapter is damaged"));
    }
    Ok(Scored { tokens, token_logprobs })
}

/// What leaves the last layer, `[positions, hidden]`.
fn run(model: &Llava, lora: Option<&Lora>, sequence: &Sequence, picture: Option<&Prepared>) -> Tensor<2> {
    let (before, after) = sequence.around_picture();
    let embed = |tokens: &[u32]| (!tokens.is_empty()).then(|| model.embed(tokens));
    let parts = [embed(before), picture.map(|picture| model.rows(model.patches(picture), picture)), embed(after)];
    let hidden = Tensor::cat(parts.into_iter().flatten().collect(), 0);
    let [length, features] = hidden.dims();
    let (rotary, mask) = (model.decoder.rotary(&[(0..length).collect()]), model.decoder.causal_mask(length));
    let mut hidden = hidden.reshape([1, length, features]);
    for index in 0..model.decoder.layer_count() {
        let lora = lora.map(|lora| &lora.layers[index]);
        hidden = model.decoder.layer(index, hidden, &rotary, &mask, lora, None);
    }
    hidden.reshape([length, features])
}
