//! Losses as numbers on the host, and their derivatives with respect to log-probabilities in closed form.
//!
//! A loss sees the log-probabilities of the answers' tokens and gives, beside its value, the weight with which each of
//! them enters the gradient: `∂loss/∂log p`. The model's backward pass starts from these weights, so that no loss needs
//! a graph of its own, and none knows how a batch is divided. This module does not know the model.

pub mod dpo;
pub mod sft;
