//! `stic generate`: a model's response to a prompt, about each of some pictures or about none.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::args::Generate;
use super::model::{Ready, problem};
use super::ui::{CliError, Exit, Ui, write_json, write_out};
use crate::model::generate::{Answer, Generator, Request, Settings, Step};
use crate::model::processor::{Processor, round};
use crate::model::room::Use;
use crate::model::sample::Sampling;
use crate::model::{ModelError, device};

/// Prints the responses.
///
/// # Errors
/// When the model or a picture cannot be used, or the prompt does not fit.
pub fn generate(arguments: &Generate, ui: &Ui) -> Result<Exit, CliError> {
    if !(arguments.temperature.is_finite() && arguments.temperature >= 0.0) {
        return Err(CliError::usage("`--temperature` is out of range").help("a number, at least 0".to_owned()));
    }
    if !(arguments.top_p > 0.0 && arguments.top_p <= 1.0) {
        return Err(CliError::usage("`--top-p` is out of range").help("a number above 0, at most 1".to_owned()));
    }
    for path in &arguments.image {
        std::fs::File::open(path).map_err(|cause| CliError::io(format!("{}: {cause}", path.display()), &cause))?;
    }
    let max_new_tokens = arguments.max_new_tokens.get();
    let used = |processor: &Processor| Use::Generate {
        batch_size: Some(1),
        prompt: if arguments.image.is_empty() { 0 } else { processor.images().most_image_tokens() },
        max_new_tokens,
    };
    let ready = Ready::load(&arguments.model, used, ui)?;
    let settings = Settings {
        sampling: Sampling { temperature: arguments.temperature, top_k: arguments.top_k, top_p: arguments.top_p },
        max_new_tokens,
        seed: arguments.seed,
        batch_size: Some(1),
    };
    let generator = Generator::new(&*ready.model, ready.adapter.as_ref(), ready.processor.tokenizer(), settings);
    let mut pictures: Vec<_> = arguments.image.iter().map(Some).collect();
    if pictures.is_empty() {
        pictures.push(None);
    }
    for path in pictures {
        let picture = path.map(|path| ready.picture(path)).transpose()?;
        // Seeded like an item of a node, so that `describe` draws the same tokens for the same picture.
        let subject = picture.as_ref().map(|(_, digest)| digest.to_string()).unwrap_or_default();
        let image = picture.map(|(image, _)| Arc::new(image));
        let turns = round(&arguments.prompt, None);
        let prompt = ready.processor.render(&turns, image.is_some()).map_err(problem)?;
        let layouts: Vec<_> = image.iter().map(|image| &image.layout).collect();
        let sequence = ready.processor.tokenize(&turns, &layouts).map_err(problem)?;
        let (input_tokens, image_tokens) = (sequence.positions(), sequence.image_tokens());
        let request = Request { tag: 0, subject, sequence, image };
        let answered = device::computing(ready.choice, || timed(&generator, request));
        let (answer, seconds) = answered.and_then(|answered| answered).map_err(problem)?;
        let text = ready.processor.tokenizer().decode(&answer.tokens).map_err(problem)?;
        if arguments.json {
            write_json(&json!({
                "prompt": prompt,
                "input_tokens": input_tokens,
                "image_tokens": image_tokens,
                "tokens": answer.tokens,
                "text": text,
                "seconds": { "prefill": seconds[0], "decode": seconds[1] },
            }))?;
        } else {
            let several = path.filter(|_| arguments.image.len() > 1);
            let label = several.map_or_else(String::new, |path| format!("{}:\n", path.display()));
            write_out(&format!("{label}{text}\n"))?;
        }
    }
    Ok(Exit::Success)
}

/// The answer to `request`, how many seconds its first token took, the image's encoding included, and how many the
/// others.
fn timed(generator: &Generator<'_>, request: Request) -> Result<(Answer, [f64; 2]), ModelError> {
    let began = Instant::now();
    let (mut first, mut answer) = (None, Err(ModelError::new("the request was not run")));
    let _ = generator.run([Ok(request)], &mut |step| {
        match step {
            Step::Tokens(_) => _ = first.get_or_insert_with(|| began.elapsed()),
            Step::Done(_, result) => answer = result,
        }
        ControlFlow::Continue(())
    });
    let all = began.elapsed();
    let prefill = first.unwrap_or(all);
    Ok((answer?, [prefill.as_secs_f64(), (all - prefill).as_secs_f64()]))
}
