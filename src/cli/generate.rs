//! `stic generate`: a model's answer to one prompt, about each of some pictures or about none.

use std::sync::Arc;

use serde_json::json;

use super::args::Generate;
use super::model::{Ready, trouble};
use super::voice::{Exit, Trouble, Voice, write_json, write_out};
use crate::model::generate::{Generator, Request, Settings, row_count};
use crate::model::sample::Sampling;

/// Answers.
///
/// # Errors
/// When the model or a picture cannot be used, or the prompt does not fit.
pub fn generate(arguments: &Generate, voice: &Voice) -> Result<Exit, Trouble> {
    if !(arguments.temperature.is_finite() && arguments.temperature >= 0.0) {
        return Err(Trouble::usage("`--temperature` is out of range").help("a number, at least 0".to_owned()));
    }
    if !(arguments.top_p > 0.0 && arguments.top_p <= 1.0) {
        return Err(Trouble::usage("`--top-p` is out of range").help("a number above 0, at most 1".to_owned()));
    }
    for path in &arguments.image {
        std::fs::File::open(path).map_err(|cause| Trouble::io(format!("{}: {cause}", path.display()), &cause))?;
    }
    let ready = Ready::load(&arguments.model, voice)?;
    let settings = Settings {
        sampling: Sampling { temperature: arguments.temperature, top_k: arguments.top_k, top_p: arguments.top_p },
        max_new_tokens: arguments.max_new_tokens.get(),
        seed: arguments.seed,
        batch_size: Some(1),
    };
    let generator = Generator::new(&ready.model, ready.lora.as_ref(), &ready.scribe.tokenizer, settings);
    let mut pictures: Vec<_> = arguments.image.iter().map(Some).collect();
    if pictures.is_empty() {
        pictures.push(None);
    }
    for path in pictures {
        let picture = path.map(|path| ready.picture(path)).transpose()?;
        // The id of an item is the digest of its picture: a node that describes it draws the same.
        let subject = picture.as_ref().map(|(_, digest)| digest.to_string()).unwrap_or_default();
        let picture = picture.map(|(picture, _)| Arc::new(picture));
        let prompt = ready.scribe.rendered(&arguments.prompt, picture.is_some()).map_err(trouble)?;
        let sequence = ready.scribe.round(&arguments.prompt, None, picture.is_some()).map_err(trouble)?;
        let rows = picture.as_ref().map_or(0, |picture| row_count(&ready.model, picture));
        let input_tokens = sequence.positions(rows);
        let answer = generator.one(Request { tag: 0, subject, sequence, picture }).map_err(trouble)?;
        let text = ready.scribe.tokenizer.decode(&answer.tokens).map_err(trouble)?;
        if arguments.json {
            write_json(&json!({
                "prompt": prompt,
                "input_tokens": input_tokens,
                "image_tokens": rows,
                "tokens": answer.tokens,
                "text": text,
            }))?;
        } else {
            write_out(&format!("{text}\n"))?;
        }
    }
    Ok(Exit::Success)
}
