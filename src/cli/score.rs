//! `stic score`: the log-probabilities that a model gives to responses.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::json;

use super::args::Score;
use super::model::{Ready, trouble};
use super::voice::{Exit, Trouble, Voice, write_json, write_out};
use crate::model::ModelError;
use crate::model::score;

/// A line of the input.
#[derive(Deserialize)]
struct Line {
    /// The picture's path.
    #[serde(default)]
    image: Option<PathBuf>,
    /// The user's text.
    prompt: String,
    /// The answer to score.
    response: String,
}

/// Scores the responses of a file, in its order.
///
/// # Errors
/// When the model cannot be used, or a line of the input cannot: all broken lines are told before anything is scored.
pub fn score(arguments: &Score, voice: &Voice) -> Result<Exit, Trouble> {
    let lines = read(arguments)?;
    let ready = Ready::load(&arguments.model, voice)?;
    for (number, line) in lines {
        let place = |error: ModelError| {
            let message = format!("{}, line {number}: {}", arguments.input.display(), error.message);
            trouble(ModelError { message, ..error })
        };
        let picture = line.image.as_ref().map(|path| ready.picture(path)).transpose().map_err(|mut trouble| {
            for mistake in &mut trouble.mistakes {
                mistake.message = format!("{}, line {number}: {}", arguments.input.display(), mistake.message);
            }
            trouble
        })?;
        let picture = picture.map(|(picture, _)| picture);
        let sequence = ready.scribe.round(&line.prompt, Some(&line.response), picture.is_some()).map_err(place)?;
        let scored = score::score(&ready.model, ready.lora.as_ref(), &sequence, picture.as_ref()).map_err(place)?;
        if arguments.json {
            write_json(&json!({
                "logprob": scored.logprob(),
                "token_logprobs": scored.token_logprobs,
                "tokens": scored.tokens,
            }))?;
        } else {
            write_out(&format!("{:.4}\n", scored.logprob()))?;
        }
    }
    Ok(Exit::Success)
}

/// The lines of the input, numbered from 1; blank ones are passed over.
fn read(arguments: &Score) -> Result<Vec<(usize, Line)>, Trouble> {
    let name = arguments.input.display();
    let text =
        std::fs::read(&arguments.input).map_err(|error| Trouble::usage(format!("cannot read {name}: {error}")))?;
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&text);
    let mut lines = Vec::new();
    let mut broken: Option<Trouble> = None;
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(line) => lines.push((index + 1, line)),
            Err(error) => {
                // Within one line, a line is none of the place.
                let error = error.to_string().replace(" at line 1 column ", ", column ");
                let trouble = Trouble::usage(format!("{name}, line {}: {error}", index + 1))
                    .help("a line is an object with `image` (a path or null), `prompt` and `response`".to_owned());
                match &mut broken {
                    Some(broken) => broken.mistakes.extend(trouble.mistakes),
                    None => broken = Some(trouble),
                }
            }
        }
    }
    broken.map_or(Ok(lines), Err)
}
