//! Models: the contract with families of them, text and pictures in and out, adapters, generation, scores. This module
//! does not know pipelines, nodes or the cache.
//!
//! [`contract`] says what a family brings; [`families`] lists them; [`llava`] is one. Families share [`llama`]
//! (decoder), [`clip`] (tower), [`nn`], [`products`], [`attention`] and [`files`]; [`kernels`] are what these use on a
//! GPU. A [`processor::Processor`] turns turns and pictures into a [`sequence::Sequence`], [`batch`] puts sequences and
//! image features into one input, and [`forward`] runs it through the layers: for [`generate`], [`score`] and training
//! alike. [`session`] keeps what is loaded; [`room`] estimates before whether it fits.

pub mod adapter;
pub mod attention;
pub mod batch;
pub mod clip;
pub mod contract;
pub mod device;
mod error;
pub mod families;
pub mod files;
pub mod forward;
pub mod generate;
pub mod kernels;
pub mod llama;
pub mod llava;
pub mod nn;
pub mod peft;
pub mod processor;
pub mod products;
pub mod room;
pub mod sample;
pub mod score;
pub mod sequence;
pub mod session;
pub mod shape;
pub mod template;
pub mod tiny;
pub mod tokenizer;
#[cfg(test)]
pub(crate) mod toy;
pub mod tuning;

pub use error::ModelError;
pub(crate) use error::{AGAIN, listed};

#[cfg(test)]
mod tests;
