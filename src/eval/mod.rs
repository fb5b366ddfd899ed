//! What a model's texts are worth: data with known answers, scores, and how sure they are.
//!
//! [`data`] reads questions and annotations, [`vqa`] and [`captions`] score texts against them, [`bootstrap`] puts
//! intervals around the scores, [`suite`] joins them. Nothing here knows how a text was made, nor what a node is.
//!
//! # Data
//!
//! `data` is a folder. Picture names in it are relative to it.
//!
//! | file | an entry | for |
//! | --- | --- | --- |
//! | `questions.jsonl` | `{"image": "a.jpg", "question": "…", "answer": "…"}` | `vqa` |
//! | `annotations.jsonl` | `{"image": "a.jpg", "objects": ["dog", ["sofa", "couch"]]}` | `captions` |
//! | `vocabulary.json` | a list like `objects` | `captions`, optional |
//!
//! A question may have `answers`, a list, instead of `answer`; ten of them are scored as VQA's ten annotators. `id` and
//! `kind` are optional: an id is a label, and questions that have a kind are also scored by kind. An object is a phrase,
//! or a list of phrases that mean the same. Both files may be one JSON array instead of lines, then also under the
//! names `questions.json` and `annotations.json`.

pub mod bootstrap;
pub mod captions;
pub mod data;
pub mod suite;
pub mod vqa;
