//! Pictures and records: decoding, resampling, corruption, prompts, and the readers of data files.
//!
//! Does not know models, the graph, the store or a run.

mod color;
pub mod corrupt;
pub mod fields;
pub mod filter;
pub mod lookup;
pub mod picture;
pub mod prompts;
pub mod published;
pub mod record_notes;
pub mod records;
pub mod resample;
pub mod sniff;
pub mod source;
pub mod turns;
