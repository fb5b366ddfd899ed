//! Why a model, an adapter or a tokenizer cannot be used.

use std::path::Path;

use crate::data::sniff::WrongContent;
use stic_engine::diagnostic::{io_help, is_of_the_machine};

/// What is wrong with a model's files, or with a request to a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ModelError {
    /// What is wrong and where; names the file.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// Whether the environment failed (memory, I/O), so that a retry may succeed.
    pub environment: bool,
}

impl ModelError {
    /// An error in the model's files or the request.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, environment: false }
    }

    /// A failure to read or write `path`.
    pub fn io(path: &Path, cause: &std::io::Error) -> Self {
        let help = io_help(cause).map(str::to_owned);
        Self { message: format!("{}: {cause}", path.display()), help, environment: is_of_the_machine(cause) }
    }

    /// The content of `path` cannot be used: it is what was `found`, or else `otherwise` is wrong with it.
    pub(crate) fn content(path: &Path, found: Option<WrongContent>, otherwise: impl std::fmt::Display) -> Self {
        let path = path.display();
        match found {
            Some(WrongContent { what, help }) => Self::new(format!("{path}: {what}")).help(help),
            None => Self::new(format!("{path}: {otherwise}")).help(AGAIN),
        }
    }

    /// The same error, prefixed with `path`.
    #[must_use]
    pub fn of(self, path: &Path) -> Self {
        Self { message: format!("{}: {}", path.display(), self.message), ..self }
    }

    /// The same error with a remedy.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }
}

/// What to do about a broken file of a checkpoint.
pub(crate) const AGAIN: &str = "copy or download the file again";

/// `problems` as the lines below a message: the first few, and how many more there are. A whole model's would fill
/// pages.
pub(crate) fn listed(problems: &[String]) -> String {
    const MOST: usize = 8;
    let mut text: String = problems.iter().take(MOST).map(|problem| format!("\n  {problem}")).collect();
    if problems.len() > MOST {
        text += &format!("\n  … and {} more", problems.len() - MOST);
    }
    text
}
