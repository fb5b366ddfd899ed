//! Evaluation: data with known answers, scores of responses, and confidence intervals.
//!
//! [`data`] reads questions and annotations, [`vqa`] and [`captions`] score replies against them, [`bootstrap`] puts
//! intervals around the scores, [`suite`] joins them, [`paired`] compares two models, [`seeds`] pools
//! repetitions. Nothing here knows how a text was
//! made, nor what a node is.
//!
//! # Data
//!
//! `data` is a directory. Picture names in it are relative to it.
//!
//! | file | an entry | for |
//! | --- | --- | --- |
//! | `questions.jsonl` | `{"image": "a.jpg", "question": "…", "answer": "…"}` | `vqa` |
//! | `annotations.jsonl` | `{"image": "a.jpg", "objects": ["dog", ["sofa", "couch"]]}` | `captions` |
//! | `vocabulary.json` | a list like `objects` | `captions`, optional |
//!
//! A question may have `answers`, a list, instead of `answer`: spellings that are all right, or what annotators said,
//! which is scored as VQA does it. Annotators' are those that have an `answer_type` (VQA's `yes/no`, `number` and
//! `other`, or `annotators`), and objects as VQA has them (`{"answer": "…", "answer_confidence": "yes", …}`);
//! `"answer_type": "accepted"` says the other. `id` and `kind` (or VQA's names,
//! `question_id` and `question_type`) are optional: an id is a label, and questions that have a kind are also scored by
//! kind. An object is a phrase, or a list of phrases that mean the same. Without a vocabulary a
//! text can claim only what some annotation names. Both files may be one JSON array instead of lines, then also under
//! the names `questions.json` and `annotations.json`.

pub mod bootstrap;
pub mod captions;
pub mod data;
pub mod paired;
pub mod plural;
pub mod seeds;
pub mod suite;
pub mod vqa;
