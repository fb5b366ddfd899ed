//! A look at a source before anything runs: what is wrong with its records, what is worth knowing of them, and what they
//! can serve for below. No picture is opened.

use std::fmt;
use std::path::Path;

use rayon::prelude::*;

use super::listing::{LOOKED_UP, Source, allows, help, named, passed_over_note, respelled};
use crate::data::lookup::{Found, Lookup};
use crate::data::records::Place;
use crate::data::remarks::{Remark, Remarks};
use crate::data::source::{Entry, Faults, PassedOver, SourceError, each_entry};
use crate::data::turns::is_answered;
use crate::digest::Value;
use crate::node::{FileProblem, OnBadItem, Parameter};

impl Source {
    /// Looks at what `parameter` names, as far as it can be told without reading a picture. `wrong` says what is wrong
    /// with an entry that is sound in itself.
    pub fn survey(
        &self,
        parameter: &str,
        on_bad_item: OnBadItem,
        wrong: impl Fn(&Entry) -> Option<&'static str>,
    ) -> Surveyed {
        let mut survey = Survey::new(&self.from, self.images());
        let in_folder = !self.from.is_file();
        let read = each_entry(&self.from, self.images.as_deref(), &mut |entry| {
            match entry {
                Err(SourceError::Record { place, cause, .. }) => survey.fault(place, &cause),
                Err(error) => return Err(error),
                Ok(entry) if !self.filter.takes(&entry) => {}
                Ok(mut entry) => {
                    let name = named(&entry);
                    if let Some(cause) = wrong(&entry) {
                        survey.fault(name, cause);
                        return Ok(());
                    }
                    survey.remarks(std::mem::take(&mut entry.remarks), &name);
                    survey.answered(entry.conversations.as_deref().is_some_and(is_answered));
                    match (entry.place, entry.written) {
                        (Some(place), Some(written)) if !in_folder => survey.picture(place, written),
                        (_, written) => survey.sound(written.is_some()),
                    }
                }
            }
            Ok(())
        });
        let (passed_over, read) = read.map_or_else(|error| (PassedOver::default(), Err(error)), |all| (all, Ok(())));
        let mut surveyed = survey.surveyed(parameter, on_bad_item, read);
        surveyed.notes.extend(passed_over_note(&passed_over));
        Surveyed { passed_over, ..surveyed }
    }
}

/// A look at a file of records before anything runs: keeps what is wrong, and nothing of what is sound.
pub struct Survey<'a> {
    file: &'a Path,
    lookup: Lookup<'a>,
    found: Surveyed,
    faults: Faults,
    missing: Faults,
    remarks: Remarks,
    waiting: Vec<(Place, String)>,
}

/// What came of a look at a source: counts of its sound records, what is wrong, and what is worth knowing.
#[derive(Clone, Debug, Default)]
pub struct Surveyed {
    /// How many records there are.
    pub entries: usize,
    /// How many of them are about a picture.
    pub pictures: usize,
    /// How many have a conversation with an answer.
    pub answered: usize,
    /// The files of a folder that are no pictures.
    pub passed_over: PassedOver,
    /// What is wrong.
    pub problems: Vec<FileProblem>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// How many pictures are looked for at a time, on all threads.
const LOOKED_FOR: usize = 4096;

impl<'a> Survey<'a> {
    /// A look at `file`, whose pictures are in `images`.
    pub fn new(file: &'a Path, images: &'a Path) -> Self {
        let (faults, missing) = (Faults::default(), Faults::default());
        let (found, remarks, waiting) = (Surveyed::default(), Remarks::default(), Vec::new());
        Self { file, lookup: Lookup::new(images), found, faults, missing, remarks, waiting }
    }

    /// Something is wrong with the record called `name`.
    pub fn fault(&mut self, name: impl fmt::Display, cause: &str) {
        self.faults.add(name, cause);
    }

    /// The record called `name` is sound, and this was done to read it.
    pub fn remarks(&mut self, remarks: Vec<Remark>, name: impl fmt::Display) {
        remarks.into_iter().for_each(|remark| self.remarks.add(remark, &name));
    }

    /// A record is sound, and where its picture lies is known, if it has one.
    pub fn sound(&mut self, picture: bool) {
        self.found.entries += 1;
        self.found.pictures += usize::from(picture);
    }

    /// A sound record has a conversation with an answer, or not.
    pub fn answered(&mut self, answered: bool) {
        self.found.answered += usize::from(answered);
    }

    /// The record at `place` is about a picture.
    pub fn picture(&mut self, place: Place, written: String) {
        self.sound(true);
        self.waiting.push((place, written));
        if self.waiting.len() == LOOKED_FOR {
            self.look();
        }
    }

    fn look(&mut self) {
        let lookup = &self.lookup;
        let look = |(place, written): (Place, String)| match lookup.find(&written) {
            Some(Found::There(_) | Found::Elsewhere(_)) => None,
            Some(Found::Respelled(_)) => Some((place, written, true)),
            None => Some((place, written, false)),
        };
        let looked: Vec<_> = self.waiting.par_drain(..).filter_map(look).collect();
        for (place, written, there) in looked {
            if there {
                self.remarks.add(Remark::Spelling, respelled(place, &written));
            } else {
                self.missing.add_with(place, || lookup.missing(&written));
            }
        }
    }

    /// What came of reading the file (`read`), with problems of `parameter`. What `on_bad_item` skips is none.
    pub fn surveyed(mut self, parameter: &str, on_bad_item: OnBadItem, read: Result<(), SourceError>) -> Surveyed {
        self.look();
        let problem = |message: String, help: Option<&str>| FileProblem {
            parameter: parameter.to_owned(),
            message,
            help: help.map(str::to_owned),
        };
        let name = format!("`{}`", self.file.display());
        let entries = self.found.entries;
        let faults = self.faults.told(&name, |count| format!("{count} records of {name} cannot be read:"));
        let missing =
            self.missing.told(&name, |count| format!("{count} pictures of {entries} that {name} names are not there:"));
        let (bad, all) = (self.faults.count() + self.missing.count(), self.faults.count() + entries);
        let mut found = self.found;
        if allows(on_bad_item, bad, all) {
            found.notes.extend([faults, missing].into_iter().flatten().map(|told| format!("left out: {told}")));
        } else {
            found.problems.extend(faults.map(|message| problem(message, None)));
            found.problems.extend(missing.map(|message| problem(message, Some(LOOKED_UP))));
        }
        found.notes.extend(self.remarks.lines().map(|line| format!("{name}: {line}")));
        if let Err(error) = read {
            let help = match &error {
                SourceError::Missing(_) => Some("paths are relative to the pipeline file"),
                SourceError::Glob { .. } => Some("name a folder, a glob, a list of paths or a JSON file"),
                error => help(error),
            };
            found.problems.push(problem(error.to_string(), help));
        }
        found
    }
}

/// What a survey tells of a result before it is made: how many of its records have a picture, and how many an answer.
impl Surveyed {
    /// As promises to the nodes that read it; none while there are problems.
    pub fn promises(&self) -> Vec<Parameter> {
        if !self.problems.is_empty() || self.entries == 0 {
            return Vec::new();
        }
        vec![Parameter::selection(PICTURES, self.pictures), Parameter::selection(ANSWERED, self.answered)]
    }
}

/// The promise of how many records have a picture.
const PICTURES: &str = "pictures";
/// The promise of how many records have a conversation with an answer.
const ANSWERED: &str = "answered";
/// The promise that pictures are altered ones.
pub const ALTERED: &str = "altered";
/// The promise of the prompts that altered pictures are described with.
pub const ALTERED_PROMPTS: &str = "altered_prompts";

/// That what comes in by `port` has no picture at all, where that is known.
pub fn check_pictures(port: &str, above: &dyn Fn(&str) -> Vec<Parameter>) -> Option<FileProblem> {
    let help = "connect records that have pictures, or a folder of pictures";
    promised_none(port, PICTURES, above, "has a picture", help)
}

/// That what comes in by `port` has no answer at all, where that is known.
pub fn check_answers(port: &str, above: &dyn Fn(&str) -> Vec<Parameter>) -> Option<FileProblem> {
    let help = "connect instruction records, whose `conversations` are questions and answers by turns";
    promised_none(port, ANSWERED, above, "has a conversation with an answer", help)
}

fn promised_none(
    port: &str,
    name: &str,
    above: &dyn Fn(&str) -> Vec<Parameter>,
    lacking: &str,
    help: &str,
) -> Option<FileProblem> {
    let none = above(port).iter().any(|promise| promise.name == name && promise.value == Value::from(0usize));
    none.then(|| FileProblem {
        parameter: format!("inputs.{port}"),
        message: format!("none of the records that come in by `{port}` {lacking}"),
        help: Some(help.to_owned()),
    })
}
