//! `inputs.PORT = { file = "…", images = "…" }`: files in place of a node's result.
//!
//! The published forms of every artifact are read, and our own, which are what `stic export` writes. What is imported
//! is known by its content like any result: moving the file reruns nothing.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::adapter::{self, part};
use super::labels::{absolute, item_name, label, placed};
use super::listing::{
    Conversations, Listed, Source, check_unreadable, digested_pictures, elsewhere_note, failure, images_problem,
    look_for_deep_gray, unreadable,
};
use super::source_check::{Checked, SourceCheck};
use crate::artifact::{
    self, ArtifactKind, Conversation, Finish, ItemId, LABELS, Label, Pair, Record, Response, Speaker, Turn, read_lines,
    write_lines,
};
use crate::data::filter::Filter;
use crate::data::lookup::{Found, Lookup};
use crate::data::published::{Preference, read_description, read_preference};
use crate::data::record_notes::{RecordNote, RecordNotes};
use crate::data::records::{Place, RawRecord, each_record, is_records};
use crate::data::source::{Entry, SourceError, each_entry};
use crate::data::turns::{IMAGE, is_answered};
use crate::model::{ModelError, peft};
use stic_engine::diagnostic::counted;
use stic_engine::digest::{Digest, Value};
use stic_engine::node::{
    Context, Failure, FileDigests, FileProblem, Importer, Inputs, Labelled, Node, NodeKind, OnBadItem, Output,
    Parameter, Port, Summary, WholeWork, Work,
};
use stic_engine::spec::parameter::{Declaration, Parameters, path};
use stic_engine::spec::{Reader, Resource};

mod own;

use own::{Own, is_own, own_label, own_row};

/// Imports files as the artifacts that ports take.
pub struct FileImporter;

impl Importer for FileImporter {
    fn kind(&self, accepts: &[ArtifactKind]) -> Arc<dyn NodeKind> {
        Arc::new(ImportKind(accepts.first().copied().unwrap_or(artifact::RECORDS)))
    }

    fn check_resource(&self, model: &Resource) -> Vec<FileProblem> {
        super::model::check_folder(model)
    }
}

stic_engine::parameters! {
    /// `{ file = "…", images = "…" }`.
    struct ImportParameters {
        /// a file to import
        file: PathBuf = path(),
        /// the directory in which picture names are looked up
        images: Option<PathBuf> = path().optional("the file's directory"),
    }
}

struct ImportKind(ArtifactKind);

impl NodeKind for ImportKind {
    fn name(&self) -> &'static str {
        "import"
    }

    fn version(&self) -> u32 {
        1
    }

    fn ports(&self) -> &'static [Port] {
        &[]
    }

    fn output(&self) -> ArtifactKind {
        self.0
    }

    fn declared(&self) -> Vec<Declaration> {
        ImportParameters::declared()
    }

    fn read(&self, table: &mut Reader<'_>, _: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        let ImportParameters { file, images } = ImportParameters::read(table)?;
        Some(Box::new(Import::new(self.0, file, images)))
    }
}

struct Import {
    kind: ArtifactKind,
    file: PathBuf,
    images: Option<PathBuf>,
    /// What was seen of the file before anything runs: it is looked through once.
    checked: OnceLock<Checked>,
}

/// What a look at one record tells.
struct Seen {
    /// The name of the picture, to be looked for.
    image: Option<String>,
    /// Whether there is a picture, by name or by content.
    pictured: bool,
    /// Whether there is an answer to train on.
    answered: bool,
    remarks: Vec<RecordNote>,
}

/// The records of a file: what each says, by its place and the name of its picture.
struct Read<T> {
    rows: Vec<(Place, String, T)>,
    /// What is reported of the records that cannot be read.
    bad: Vec<String>,
    remarks: RecordNotes,
}

/// The rows of an artifact as text, and what goes beside them.
struct Rows {
    text: Vec<u8>,
    count: usize,
    labels: Vec<Label>,
    /// Pictures that rows name by digest alone, for which a file has to be found.
    wanted: Vec<Digest>,
    notes: Vec<String>,
}

impl Node for Import {
    fn parameters(&self) -> Vec<Parameter> {
        Vec::new()
    }

    fn check_files(&self) -> Vec<FileProblem> {
        let problem = |parameter: &str, message: String, help: &str| {
            vec![FileProblem { parameter: parameter.to_owned(), message, help: Some(help.to_owned()) }]
        };
        let relative = "paths are relative to the pipeline file";
        let shown = self.file.display();
        let images = images_problem(self.images.as_deref());
        if images.is_some() && self.file.exists() {
            return Vec::from_iter(images);
        }
        let problems = match self.kind {
            artifact::ADAPTER => match adapter::read_shape(&self.file) {
                Ok(_) => Vec::new(),
                Err(ModelError { message, help, .. }) => {
                    vec![FileProblem { parameter: "file".to_owned(), message, help }]
                }
            },
            artifact::RECORDS | artifact::CONVERSATIONS if !is_records(&self.file) => self.checked().problems.clone(),
            _ if self.file.is_dir() => problem(
                "file",
                format!("`{shown}` is a directory"),
                "name a file in it, such as the `.jsonl` of an export",
            ),
            _ if !self.file.is_file() => problem("file", format!("the file `{shown}` does not exist"), relative),
            _ => self.checked().problems.clone(),
        };
        images.into_iter().chain(problems).collect()
    }

    fn remarks(&self) -> Vec<String> {
        if self.kind == artifact::ADAPTER { Vec::new() } else { self.checked().notes.clone() }
    }

    fn promises(&self, _: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<Parameter> {
        match self.kind {
            artifact::ADAPTER => adapter::read_shape(&self.file).unwrap_or_default(),
            _ => self.checked().promises(),
        }
    }

    fn sources(&self, digests: &dyn FileDigests) -> Result<Vec<Parameter>, Failure> {
        let content = if self.kind == artifact::ADAPTER {
            let digest = |name: &str| {
                let path = self.file.join(name);
                digests.file(&path).map(Value::from).map_err(|cause| Failure::io(&path, &cause))
            };
            Value::List(vec![digest(peft::SETTINGS)?, digest(peft::TENSORS)?])
        } else {
            Digest::of(&self.rows(digests)?.text).into()
        };
        Ok(vec![Parameter::selection("as", self.kind.name), Parameter::selection("file", content)])
    }

    fn labels(&self, files: &dyn FileDigests) -> Result<Vec<Labelled>, Failure> {
        #[derive(Deserialize)]
        struct Row {
            id: ItemId,
            #[serde(default)]
            picture: Option<Digest>,
        }
        if self.kind == artifact::ADAPTER {
            return Ok(Vec::new());
        }
        let Rows { text, labels, .. } = self.rows(files)?;
        let rows: Vec<Row> = read_lines(&text).map_err(|(_, cause)| Failure::node(cause.to_string()))?;
        let named = |(Row { id, picture }, label)| Labelled { id, file: picture, label };
        Ok(std::iter::zip(rows, labels).map(named).collect())
    }

    fn work(&self) -> Work<'_> {
        Work::Whole(self)
    }
}

impl WholeWork for Import {
    fn run(&self, _: &Inputs, context: &dyn Context) -> Result<Output, Failure> {
        let objects = context.objects();
        if self.kind == artifact::ADAPTER {
            let (output, notes) = adapter::import(&self.file, objects)?;
            notes.iter().for_each(|note| context.note(note));
            return Ok(output);
        }
        let Rows { text, count, labels, wanted, notes } = self.rows(context.files())?;
        if count == 0 {
            return Err(Failure::node(format!("`{}` is empty", self.file.display())));
        }
        let deep = look_for_deep_gray(labels.iter().filter_map(|label| label.path.as_deref()).map(Path::new));
        notes.iter().chain(&deep).for_each(|note| context.note(note));
        if let Some(digest) = wanted.iter().find(|digest| context.content_path(digest).is_none()) {
            let message = format!("no picture in `{}` has the content {}", self.images().display(), digest.short());
            return Err(Failure::node(message).help("set `images` to the directory of the pictures"));
        }
        let name = self.kind.rows_part();
        Ok(Output {
            identity: vec![part(name, &text, objects)?],
            side: vec![part(LABELS, &write_lines(&labels), objects)?],
            objects: Vec::new(),
            summary: Summary {
                line: format!("{} imported", counted(count, self.kind.name.trim_end_matches('s'))),
                ..Summary::default()
            },
        })
    }
}

impl Import {
    fn new(kind: ArtifactKind, file: PathBuf, images: Option<PathBuf>) -> Self {
        Self { kind, file, images, checked: OnceLock::new() }
    }

    fn images(&self) -> &Path {
        self.images.as_deref().or(self.file.parent()).unwrap_or(Path::new(""))
    }

    fn checked(&self) -> &Checked {
        self.checked.get_or_init(|| {
            let mut checked = if is_records(&self.file) { self.check_rows() } else { self.check_entries() };
            if checked.entries == 0 && checked.problems.is_empty() {
                let (parameter, message) = ("file".to_owned(), format!("`{}` is empty", self.file.display()));
                checked.problems.push(FileProblem { parameter, message, help: None });
            }
            checked
        })
    }

    /// Looks at the file's rows, without reading a picture.
    fn check_rows(&self) -> Checked {
        // What cannot be read is reported of the whole file.
        let first = self.first().ok().flatten();
        let own = first.as_ref().is_some_and(is_own);
        match self.kind {
            artifact::RECORDS if own => self.check_own::<Record>(),
            artifact::RESPONSES if own => self.check_own::<Response>(),
            artifact::PAIRS if own => self.check_own::<Pair>(),
            artifact::CONVERSATIONS if own => self.check_own::<Conversation>(),
            artifact::RESPONSES => self.check_each(|record| {
                let (image, remarks) = read_description(record).map(|(row, remarks)| (row.image, remarks))?;
                Ok(Seen { image: Some(image), pictured: true, answered: false, remarks })
            }),
            artifact::CONVERSATIONS if !first.as_ref().is_some_and(is_preference) => self.check_entries(),
            artifact::PAIRS | artifact::CONVERSATIONS => self.check_each(|record| {
                let (image, remarks) = read_preference(record).map(|(row, remarks)| (row.image, remarks))?;
                Ok(Seen { image: Some(image), pictured: true, answered: true, remarks })
            }),
            _ => self.check_entries(),
        }
    }

    fn check_own<T: Own>(&self) -> Checked {
        let mut ids = HashSet::new();
        self.check_each(|record| {
            let (mut row, remarks) = own_row::<T>(record, &mut ids)?;
            let answered = row.turns().map_or(self.kind != artifact::RECORDS, |turns| is_answered(turns));
            Ok(Seen { image: None, pictured: row.pictures()[0].is_some(), answered, remarks })
        })
    }

    /// Checks rows; `read` says what to check of each.
    fn check_each(&self, mut read: impl FnMut(RawRecord) -> Result<Seen, String>) -> Checked {
        let mut check = SourceCheck::new(&self.file, self.images());
        let done = each_record(&self.file, &mut |place, record| {
            match record.and_then(&mut read) {
                Ok(Seen { image, pictured, answered, remarks }) => {
                    check.remarks(remarks, place);
                    check.answered(answered);
                    match image {
                        Some(image) => check.picture(place, image),
                        None => check.sound(pictured),
                    }
                }
                Err(cause) => check.fault(place, &cause),
            }
            Ok(())
        });
        check.finish("file", OnBadItem::default(), done)
    }

    fn check_entries(&self) -> Checked {
        let conversations = self.kind == artifact::CONVERSATIONS;
        let silent = |entry: &Entry| (conversations && entry.conversations.is_none()).then_some(NO_CONVERSATION);
        self.source().check("file", OnBadItem::default(), silent)
    }

    fn source(&self) -> Source {
        Source { from: self.file.clone(), images: self.images.clone(), filter: Filter::default() }
    }

    fn rows(&self, digests: &dyn FileDigests) -> Result<Rows, Failure> {
        if self.file.is_file() {
            // Asked for so that the engine notices a change under the run.
            digests.file(&self.file).map_err(|cause| Failure::io(&self.file, &cause))?;
        }
        let first = self.first()?;
        let own = first.as_ref().is_some_and(is_own);
        match self.kind {
            artifact::RECORDS if own => self.own::<Record>(digests),
            artifact::RESPONSES if own => self.own::<Response>(digests),
            artifact::PAIRS if own => self.own::<Pair>(digests),
            artifact::CONVERSATIONS if own => self.own::<Conversation>(digests),
            artifact::CONVERSATIONS if first.as_ref().is_some_and(is_preference) => self.chosen(digests),
            artifact::RECORDS | artifact::CONVERSATIONS => self.instructions(digests),
            artifact::RESPONSES => self.descriptions(digests),
            artifact::PAIRS => self.preferences(digests),
            _ => Err(Failure::node(format!("{} cannot be imported from `{}`", self.kind, self.file.display()))),
        }
    }

    /// The first sound record of a file of records.
    fn first(&self) -> Result<Option<Json>, Failure> {
        let mut first = None;
        if !is_records(&self.file) {
            return Ok(first);
        }
        let read = each_record(&self.file, &mut |_, record| match record {
            Ok(record) => {
                first = Some(record.value);
                // Enough is known: the error only ends the reading.
                Err(SourceError::NoArray(self.file.clone()))
            }
            Err(_) => Ok(()),
        });
        match read {
            Err(error) if first.is_none() => Err(failure(error)),
            _ => Ok(first),
        }
    }

    /// What `read` makes of every record: a row, and the name of its picture.
    fn each<T>(
        &self,
        mut read: impl FnMut(RawRecord) -> Result<(T, Vec<RecordNote>), String>,
        image: impl Fn(&T) -> String,
    ) -> Result<Read<T>, Failure> {
        let mut all = Read { rows: Vec::new(), bad: Vec::new(), remarks: RecordNotes::default() };
        each_record(&self.file, &mut |place, record| {
            match record.and_then(&mut read) {
                Ok((row, remarks)) => {
                    remarks.into_iter().for_each(|remark| all.remarks.add(remark, place));
                    all.rows.push((place, image(&row), row));
                }
                Err(cause) => all.bad.push(format!("{}: {cause}", placed(&self.file, place))),
            }
            Ok(())
        })
        .map_err(failure)?;
        Ok(all)
    }

    /// Rows of our own, as they are. Their pictures are looked for where they say, and in `images`.
    fn own<T: Own>(&self, digests: &dyn FileDigests) -> Result<Rows, Failure> {
        let beside = self.file.parent().unwrap_or(Path::new(""));
        let mut ids = HashSet::new();
        let read = |record: RawRecord| {
            let label = own_label(&record.value, beside);
            own_row::<T>(record, &mut ids).map(|(row, remarks)| ((row, label), remarks))
        };
        let Read { rows: read, bad, remarks } = self.each(read, |_| String::new())?;
        check_unreadable(&bad, "records", read.len(), OnBadItem::default())?;
        let notes = self.notes(0, &bad, 0, &remarks);
        let label = |place, label| Label { place: Some(placed(&self.file, place)), ..label };
        let (rows, mut labels): (Vec<T>, Vec<Label>) =
            read.into_iter().map(|(place, _, (row, named))| (row, label(place, named))).unzip();
        let mut paths = Vec::new();
        let mut take = |path: Option<PathBuf>| paths.extend(path.filter(|path| path.is_file()));
        labels.iter().for_each(|label| take(label.path.as_ref().map(PathBuf::from)));
        if self.images().is_dir() {
            each_entry(self.images(), None, &mut |entry| entry.map(|entry| take(entry.picture))).map_err(failure)?;
        }
        let contents = digests.files(&paths).into_iter().map(Result::ok);
        let found: HashMap<Digest, PathBuf> =
            contents.zip(paths).filter_map(|(digest, path)| Some((digest?, path))).collect();
        let mut wanted = Vec::new();
        for (row, label) in rows.iter().zip(&mut labels) {
            let pictures = row.pictures();
            label.path = pictures[0].and_then(|picture| found.get(&picture)).map(|path| absolute(path));
            wanted.extend(pictures.into_iter().flatten().filter(|picture| !found.contains_key(picture)));
        }
        Ok(Rows { text: write_lines(&rows), count: rows.len(), labels, wanted, notes })
    }

    /// Pictures, instruction records, or description-infused ones, which have the same form.
    fn instructions(&self, digests: &dyn FileDigests) -> Result<Rows, Failure> {
        let mut listing = self.source().list(true, Conversations::Kept, digests)?;
        if self.kind == artifact::CONVERSATIONS {
            let (spoken, silent) = listing.items.into_iter().partition(|item| item.entry.conversations.is_some());
            let silent: Vec<Listed> = silent;
            listing.items = spoken;
            listing.faults += silent.len();
            let named = |item: &Listed| item_name(&item.id, &label(&item.entry, &self.file));
            listing.unreadable.extend(silent.iter().map(|item| format!("{}: {NO_CONVERSATION}", named(item))));
        }
        listing.check_unreadable(OnBadItem::default())?;
        let mut notes = repeats_note(listing.repeats);
        notes.extend(listing.notes(&self.file));
        let labels: Vec<Label> = listing.items.iter().map(|item| label(&item.entry, &self.file)).collect();
        let count = labels.len();
        let text = if self.kind == artifact::CONVERSATIONS {
            let rows = listing.items.into_iter().map(|item| Conversation {
                id: item.id,
                picture: item.picture,
                conversations: item.entry.conversations.unwrap_or_default(),
            });
            write_lines(&rows.collect::<Vec<_>>())
        } else {
            let rows = listing.items.into_iter().map(|item| Record {
                id: item.id,
                picture: item.picture,
                altered: None,
                conversations: item.entry.conversations,
                fields: item.entry.fields,
            });
            write_lines(&rows.collect::<Vec<_>>())
        };
        Ok(Rows { text, count, labels, wanted: Vec::new(), notes })
    }

    fn descriptions(&self, digests: &dyn FileDigests) -> Result<Rows, Failure> {
        let read = self.each(read_description, |row| row.image.clone())?;
        self.with_pictures(read, digests, |id, picture, description| Response {
            id,
            picture,
            altered: None,
            prompt: description.prompt,
            text: description.text,
            tokens: 0,
            finish: Finish::Stop,
        })
    }

    fn read_preferences(&self) -> Result<Read<Preference>, Failure> {
        self.each(read_preference, |row| row.image.clone())
    }

    fn preferences(&self, digests: &dyn FileDigests) -> Result<Rows, Failure> {
        self.with_pictures(self.read_preferences()?, digests, |id, picture, preference| Pair {
            id,
            picture,
            instruction: preference.instruction,
            chosen: preference.chosen,
            rejected: preference.rejected,
            origin: preference.origin,
        })
    }

    /// Preference data where conversations are expected: x and the preferred response.
    fn chosen(&self, digests: &dyn FileDigests) -> Result<Rows, Failure> {
        self.with_pictures(self.read_preferences()?, digests, |id, picture, preference| Conversation {
            id,
            picture: Some(picture),
            conversations: vec![
                Turn { from: Speaker::Human, value: format!("{IMAGE}\n{}", preference.instruction) },
                Turn { from: Speaker::Gpt, value: preference.chosen },
            ],
        })
    }

    /// Rows of records that name their pictures. Their ids are the pictures'; of several rows about one picture the
    /// equal ones are one, and the others carry their ordinals.
    fn with_pictures<T, R: Serialize>(
        &self,
        read: Read<T>,
        digests: &dyn FileDigests,
        row: impl Fn(ItemId, Digest, T) -> R,
    ) -> Result<Rows, Failure>
    where
        T: PartialEq + Clone + Sync,
    {
        let lookup = Lookup::new(self.images());
        let Read { rows: read, bad: mut lost, mut remarks } = read;
        let what = if lost.is_empty() { "pictures" } else { "records" };
        let located: Vec<_> = read.par_iter().map(|(_, image, _)| lookup.find(image)).collect();
        let elsewhere = located.iter().filter(|found| matches!(found, Some(Found::Elsewhere(_)))).count();
        for ((place, image, _), found) in read.iter().zip(&located) {
            if matches!(found, Some(Found::Respelled(_))) {
                remarks.add(RecordNote::Spelling, format!("{place}, `{image}`"));
            }
        }
        let paths: Vec<PathBuf> = std::iter::zip(&read, located)
            .map(|((_, image, _), found)| found.map_or_else(|| self.images().join(image), Found::into_path))
            .collect();
        let mut before: HashMap<Digest, Vec<T>> = HashMap::new();
        let mut repeats = 0;
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        for ((place, image, value), (path, digest)) in read.into_iter().zip(digested_pictures(paths, digests)) {
            let picture = match digest {
                Ok(digest) => digest,
                Err(cause) => {
                    lost.push(unreadable(&self.file, &lookup, Some(place), Some(&image), &path, &cause));
                    continue;
                }
            };
            let others = before.entry(picture).or_default();
            if others.contains(&value) {
                repeats += 1;
                continue;
            }
            others.push(value.clone());
            rows.push(row(ItemId::repeated(picture, others.len()), picture, value));
            labels.push(Label { name: None, path: Some(absolute(&path)), place: Some(placed(&self.file, place)) });
        }
        check_unreadable(&lost, what, rows.len() + repeats, OnBadItem::default())?;
        let notes = self.notes(repeats, &lost, elsewhere, &remarks);
        Ok(Rows { text: write_lines(&rows), count: rows.len(), labels, wanted: Vec::new(), notes })
    }

    fn notes(&self, repeats: usize, unreadable: &[String], elsewhere: usize, remarks: &RecordNotes) -> Vec<String> {
        let mut notes = repeats_note(repeats);
        if let Some(first) = unreadable.first() {
            notes.push(format!("left out {} that cannot be read, first {first}", counted(unreadable.len(), "row")));
        }
        notes.extend(remarks.lines().map(|line| format!("`{}`: {line}", self.file.display())));
        notes.extend(elsewhere_note(elsewhere));
        notes
    }
}

fn repeats_note(repeats: usize) -> Vec<String> {
    if repeats == 0 {
        Vec::new()
    } else {
        vec![format!(
            "left out {} that {} another",
            counted(repeats, "row"),
            if repeats == 1 { "repeats" } else { "repeat" }
        )]
    }
}

/// What is wrong with a record where conversations are expected.
const NO_CONVERSATION: &str = "the record has no `conversations`";

/// Whether a record is preference data.
fn is_preference(value: &Json) -> bool {
    value.get("chosen").is_some()
}

#[cfg(test)]
mod tests;
