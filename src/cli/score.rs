//! `stic score`: the log-probabilities of responses under a model.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::args::Score;
use super::model::{Ready, problem};
use super::ui::{CliError, Exit, Ui, write_json, write_out};
use crate::data::sniff::{WrongContent, behind_mark};
use crate::model::processor::round;
use crate::model::room::Use;
use crate::model::{ModelError, device, score};
use stic_engine::diagnostic::{Diagnostic, nearest};

/// The keys of a line.
const KEYS: [&str; 3] = ["image", "prompt", "response"];

/// A line of the input.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Line {
    /// The picture's path.
    #[serde(default)]
    image: Option<PathBuf>,
    /// The user's text.
    prompt: String,
    /// The answer to score.
    response: String,
    /// Unknown keys.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Scores the responses of a file, in its order.
///
/// # Errors
/// When the model or a line of the input cannot be used. All invalid lines are reported before anything is scored.
pub fn score(arguments: &Score, ui: &Ui) -> Result<Exit, CliError> {
    let lines = read(arguments, ui)?;
    let ready = Ready::load(&arguments.model, |_| Use::Score, ui)?;
    let folder = folder(arguments);
    for (number, line) in lines {
        let named = |message: &str| format!("{}, line {number}: {message}", arguments.input.display());
        let place = |error: ModelError| problem(ModelError { message: named(&error.message), ..error });
        let placed = |mut problem: CliError| {
            problem.mistakes.iter_mut().for_each(|mistake| mistake.message = named(&mistake.message));
            problem
        };
        let picture = line.image.as_ref().map(|path| ready.picture(&folder.join(path))).transpose().map_err(placed)?;
        let image = picture.map(|(image, _)| image);
        let layouts: Vec<_> = image.iter().map(|image| &image.layout).collect();
        let turns = round(&line.prompt, Some(&line.response));
        let sequence = ready.processor.tokenize(&turns, &layouts).map_err(place)?;
        let score = || score::score(&*ready.model, ready.adapter.as_ref(), &sequence, image.as_ref());
        let scored = device::computing(ready.choice, score).and_then(|scored| scored).map_err(place)?;
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

/// The lines of the input, numbered from 1, without blank ones. A misspelt `image` is an error if the line has no
/// picture; other unknown keys get a note.
fn read(arguments: &Score, ui: &Ui) -> Result<Vec<(usize, Line)>, CliError> {
    let name = arguments.input.display();
    let text = std::fs::read(&arguments.input)
        .map_err(|error| CliError::io(format!("cannot read {name}: {error}"), &error))?;
    if let Some(found) = WrongContent::instead_of_text(&text) {
        return Err(CliError::usage(format!("{name}: {found}")).help(found.help.to_owned()));
    }
    let text = behind_mark(&text);
    let (mut lines, mut broken) = (Vec::new(), Vec::new());
    // Other keys, each with the first line that has it.
    let mut others: Vec<(String, usize)> = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let number = index + 1;
        let mut wrong = |message: String, help: String| {
            broken.push(Diagnostic::new(format!("{name}, line {number}: {message}")).help(help));
        };
        let read: Line = match serde_json::from_slice(line) {
            Ok(line) => line,
            Err(error) => {
                let cause = match serde_json::from_slice(line) {
                    Ok(Value::Object(_)) | Err(_) => error.to_string().replace(" at line 1 column", ", column"),
                    Ok(_) => "not an object".to_owned(),
                };
                wrong(
                    cause,
                    "each line is an object with `image` (a path or null), `prompt` and `response`".to_owned(),
                );
                continue;
            }
        };
        for key in read.rest.keys() {
            match nearest(key, KEYS) {
                Some(near) if near == "image" && read.image.is_none() => {
                    wrong(format!("unknown key `{key}`"), format!("did you mean `{near}`?"))
                }
                _ if others.iter().any(|(other, _)| other == key) => {}
                _ => others.push((key.clone(), number)),
            }
        }
        if let Some(picture) = &read.image
            && let Err(cause) = std::fs::File::open(folder(arguments).join(picture))
        {
            wrong(format!("{}: {cause}", picture.display()), RELATIVE.to_owned());
        }
        lines.push((number, read));
    }
    if !broken.is_empty() {
        return Err(CliError { mistakes: broken, ..CliError::usage("") });
    }
    for (key, number) in others {
        ui.print_hanging("note: ", &format!("{name}, line {number}: ignoring unknown key `{key}`"), 6);
    }
    Ok(lines)
}

const RELATIVE: &str = "relative paths start from the directory of the input file";

/// The directory of the input file, from which relative paths start.
fn folder(arguments: &Score) -> &Path {
    arguments.input.parent().unwrap_or(Path::new(""))
}
