//! `prompts` as a parameter: the name of a built-in set, a list of strings, or `{ file = "…" }`.

use std::path::PathBuf;

use crate::data::prompts::{BUILT_IN, PromptError, PromptSet};
use stic_engine::diagnostic::{has_file_ending, looks_like_path};
use stic_engine::digest::Value;
use stic_engine::node::{Failure, FileDigests, FileProblem, Parameter};
use stic_engine::parameters;
use stic_engine::spec::Reader;
use stic_engine::spec::parameter::{Form, Parameters, Setting, path};

/// What such a parameter expects.
const FORMS: &str = "the name of a prompt set, a list of strings, or `{ file = \"…\" }`";

/// The value of a parameter that names prompts.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompts {
    /// A built-in set or a list.
    Given(PromptSet),
    /// The set in a file.
    File(PathBuf),
}

parameters! {
    /// The table that names a file of prompts.
    struct PromptFile {
        /// `.txt` with one prompt per line, or `.json` with a list of strings
        file: PathBuf = path(),
    }
}

fn file_help(key: &str, file: &str) -> String {
    format!("to read prompts from a file, write `{key} = {{ file = \"{file}\" }}`")
}

impl Prompts {
    /// A parameter that names prompts.
    pub fn setting() -> Setting<Self> {
        let list = Form::List {
            of: Box::new(Form::String { what: "a prompt", blank: false }),
            least: 1,
            most: None,
            distinct: false,
        };
        let forms = vec![Form::Choice(BUILT_IN.to_vec()), list, PromptFile::form()];
        Setting::new(Form::Any { what: FORMS, forms }, Self::read, Self::name).selection().resolved()
    }

    /// The name of the built-in set that it is.
    fn name(&self) -> Option<Value> {
        let Self::Given(set) = self else { return None };
        let is_set = |name: &&str| PromptSet::built_in(name).as_ref() == Some(set);
        BUILT_IN.into_iter().find(is_set).map(Value::from)
    }

    /// Reads the prompts under `key`; `None` if there are none, or if they are invalid, which is reported.
    fn read(table: &mut Reader<'_>, key: &str) -> Option<Self> {
        if !table.has(key) {
            return None;
        }
        if table.is_string(key) {
            let name: String = table.optional(key)?;
            let set = PromptSet::built_in(&name);
            if set.is_none() && looks_like_path(&name) {
                table.reject(key, "a string names a prompt set", "this looks like a file", Some(file_help(key, &name)));
            } else if set.is_none() && name.contains(char::is_whitespace) {
                let help = format!("write custom prompts as a list: `{key} = [\"…\"]`");
                table.reject(key, "a string names a prompt set", "no prompt set has this name", Some(help));
            } else if set.is_none() {
                table.reject_name(key, "prompt set", &name, &BUILT_IN);
            }
            return set.map(Self::Given);
        }
        if table.is_list(key) {
            let prompts: Vec<String> = table.optional(key)?;
            if let Some(file) = prompts.iter().find(|text| has_file_ending(text)) {
                table.reject(key, "a list holds prompts", "one of these looks like a file", Some(file_help(key, file)));
                return None;
            }
            return match PromptSet::new(prompts) {
                Ok(set) => Some(Self::Given(set)),
                Err(error) => {
                    let help = format!("write prompts, such as `{key} = [\"Describe the picture.\"]`");
                    table.reject(key, format!("`{key}` cannot be used"), error.to_string(), Some(help));
                    None
                }
            };
        }
        if table.is_table(key) {
            return PromptFile::read(&mut table.table(key)?).map(|PromptFile { file }| Self::File(file));
        }
        table.reject_type(key, FORMS);
        None
    }

    /// Whether there may be several prompts to draw from.
    pub fn draws(&self) -> bool {
        match self {
            Self::Given(set) => set.draws(),
            Self::File(_) => true,
        }
    }

    /// The problem with the file of the parameter `name`.
    pub fn problem(&self, name: &str) -> Option<FileProblem> {
        let Self::File(path) = self else { return None };
        let error = PromptSet::read(path).err()?;
        let help = match error {
            PromptError::Other { found, .. } => found.help,
            PromptError::Unreadable { .. } => "paths are relative to the pipeline file",
            _ => "`.txt` has one prompt per line, `.json` a list of strings",
        };
        Some(FileProblem { parameter: name.to_owned(), message: error.to_string(), help: Some(help.to_owned()) })
    }

    /// The set.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn load(&self) -> Result<PromptSet, Failure> {
        match self {
            Self::Given(set) => Ok(set.clone()),
            Self::File(path) => PromptSet::read(path).map_err(|error| match error {
                PromptError::Unreadable { path, cause } => Failure::io(&path, &cause),
                other => Failure::node(format!("{}: {other}", path.display())),
            }),
        }
    }

    /// The parameter `name`: the prompts themselves, regardless of their source. A selection, because the prompt that
    /// an item draws is part of what the item reads.
    ///
    /// # Errors
    /// As [`Prompts::load`].
    pub fn parameter(&self, name: &str, digests: &dyn FileDigests) -> Result<Parameter, Failure> {
        if let Self::File(path) = self {
            // Requested so that the engine notices if the file changes during the run.
            digests.file(path).map_err(|cause| Failure::io(path, &cause))?;
        }
        Ok(Parameter::selection(name, self.load()?.prompts().to_vec()))
    }
}
