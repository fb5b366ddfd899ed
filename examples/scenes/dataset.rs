//! Pictures with known content, in memory and as ordinary files in ordinary directories.
//!
//! Everything is drawn from (seed, split, number), so any part can be drawn alone. What the model is trained on is
//! drawn in memory; written are the directories that the quick start reads.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;

use image::RgbImage;
use serde_json::{Value, json};
use stic_engine::draw::Draws;

use crate::ask::{Question, questions};
use crate::picture;
use crate::world::{COLORS, Object, PLACES, SHAPES, Scene, USUAL};

/// Instruction records about each of their pictures: a question and its answer.
pub const RECORDS_PER_PICTURE: usize = 5;
/// How many of these, the first ones, the small model was trained on.
pub const QUESTIONS_TRAINED_ON: usize = 3;
/// Questions about each test picture.
pub const QUESTIONS_PER_TEST: usize = 6;

/// Pictures that have nothing to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// For the tower alone: zero to seven objects.
    Tower,
    /// Captioned and asked about: what the small model was trained on.
    Train,
    /// For choosing settings; never written into the project.
    Validation,
    /// Neither captioned nor asked about: stage 1 describes them.
    Unlabeled,
    /// For the figures that are reported; never used to choose anything.
    Test,
}

impl Split {
    fn name(self) -> &'static str {
        match self {
            Self::Tower => "tower",
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Unlabeled => "unlabeled",
            Self::Test => "test",
        }
    }

    fn counts(self) -> RangeInclusive<usize> {
        if self == Self::Tower { 0..=7 } else { USUAL }
    }

    /// Draws for `purpose` about picture `number`.
    pub fn draws(self, seed: u64, purpose: &str, number: usize) -> Draws {
        Draws::new(seed, purpose, &format!("{} {number}", self.name()))
    }

    /// What picture `number` shows.
    pub fn scene(self, seed: u64, number: usize) -> Scene {
        Scene::draw(&mut self.draws(seed, "scene", number), self.counts())
    }

    /// Picture `number`, before it is stored.
    pub fn picture(self, seed: u64, number: usize) -> RgbImage {
        picture::draw(&self.scene(seed, number), &mut self.draws(seed, "pixels", number))
    }

    /// `count` questions about picture `number`.
    pub fn questions(self, seed: u64, number: usize, count: usize) -> Vec<Question> {
        questions(&self.scene(seed, number), &mut self.draws(seed, "questions", number), count)
    }
}

/// How many pictures each directory gets.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Unlabeled pictures.
    pub unlabeled: usize,
    /// Pictures of the instruction records, out of those that the model was trained on.
    pub instructions: usize,
    /// Test pictures.
    pub test: usize,
}

/// What is committed.
pub const COMMITTED: Sizes = Sizes { unlabeled: 300, instructions: 450, test: 250 };

/// Writes `unlabeled/`, `instructions/` and `test/` under `folder`; `judged` is the split that fills `test/`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(folder: &Path, seed: u64, sizes: Sizes, judged: Split) -> io::Result<()> {
    write_pictures(&folder.join("unlabeled"), Split::Unlabeled, seed, sizes.unlabeled)?;
    let instructions = folder.join("instructions");
    write_pictures(&instructions.join("pictures"), Split::Train, seed, sizes.instructions)?;
    let records: Vec<_> = (0..sizes.instructions).flat_map(|number| records(seed, number)).collect();
    fs::write(instructions.join("records.json"), array(&records))?;
    let test = folder.join("test");
    write_pictures(&test.join("pictures"), judged, seed, sizes.test)?;
    fs::write(test.join("vocabulary.json"), array(&vocabulary()))?;
    let asked = (0..sizes.test).flat_map(|number| test_questions(judged, seed, number));
    fs::write(test.join("questions.jsonl"), lines(asked))?;
    fs::write(test.join("annotations.jsonl"), lines((0..sizes.test).map(|number| annotation(judged, seed, number))))
}

/// The file name of picture `number`.
pub fn file_name(number: usize) -> String {
    format!("{:04}.jpg", number + 1)
}

/// The instruction records about training picture `number`, in LLaVA's form.
pub fn records(seed: u64, number: usize) -> Vec<Value> {
    let image = format!("pictures/{}", file_name(number));
    let questions = Split::Train.questions(seed, number, RECORDS_PER_PICTURE).into_iter().zip('a'..);
    let record = |(asked, letter): (Question, char)| {
        let turns = json!([
            { "from": "human", "value": format!("<image>\n{}", asked.text) },
            { "from": "gpt", "value": asked.answer },
        ]);
        json!({ "id": format!("scene-{:04}{letter}", number + 1), "image": image, "conversations": turns })
    };
    questions.map(record).collect()
}

/// The questions about test picture `number`.
pub fn test_questions(split: Split, seed: u64, number: usize) -> Vec<Value> {
    let image = format!("pictures/{}", file_name(number));
    let questions = split.questions(seed, number, QUESTIONS_PER_TEST).into_iter();
    let entry = |asked: Question| json!({ "image": image, "question": asked.text, "answer": asked.answer, "kind": asked.kind.name() });
    questions.map(entry).collect()
}

/// What test picture `number` shows.
pub fn annotation(split: Split, seed: u64, number: usize) -> Value {
    let objects: Vec<_> = split.scene(seed, number).0.iter().map(|object| object.phrase()).collect();
    json!({ "image": format!("pictures/{}", file_name(number)), "objects": objects })
}

/// Everything that a description can claim.
fn vocabulary() -> Vec<Value> {
    let places = (0..PLACES.len()).flat_map(|place| (0..COLORS.len()).map(move |color| (place, color)));
    let objects = places.flat_map(|(place, color)| (0..SHAPES.len()).map(move |shape| Object { place, color, shape }));
    objects.map(|object| object.phrase().into()).collect()
}

fn write_pictures(folder: &Path, split: Split, seed: u64, count: usize) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for number in 0..count {
        fs::write(folder.join(file_name(number)), picture::encode(&split.picture(seed, number))?)?;
    }
    Ok(())
}

fn lines(values: impl Iterator<Item = Value>) -> String {
    values.map(|value| format!("{value}\n")).collect()
}

/// An array with one element a line.
fn array(values: &[Value]) -> String {
    format!("[\n{}\n]\n", values.iter().map(Value::to_string).collect::<Vec<_>>().join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SEED;

    fn committed() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/scenes/data"))
    }

    #[test]
    fn the_committed_texts_are_those_that_the_example_writes() {
        let records: Vec<_> = (0..COMMITTED.instructions).flat_map(|number| records(SEED, number)).collect();
        assert_eq!(fs::read_to_string(committed().join("instructions/records.json")).unwrap(), array(&records));
        let asked = (0..COMMITTED.test).flat_map(|number| test_questions(Split::Test, SEED, number));
        assert_eq!(fs::read_to_string(committed().join("test/questions.jsonl")).unwrap(), lines(asked));
        let shown = (0..COMMITTED.test).map(|number| annotation(Split::Test, SEED, number));
        assert_eq!(fs::read_to_string(committed().join("test/annotations.jsonl")).unwrap(), lines(shown));
    }

    #[test]
    fn the_committed_pictures_are_those_that_the_example_draws() {
        let folders = [
            ("unlabeled", Split::Unlabeled, COMMITTED.unlabeled),
            ("instructions/pictures", Split::Train, COMMITTED.instructions),
            ("test/pictures", Split::Test, COMMITTED.test),
        ];
        let mut bytes = 0;
        for (folder, split, count) in folders {
            let folder = committed().join(folder);
            let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()).collect();
            assert_eq!(files.len(), count, "{}", folder.display());
            bytes += files.iter().map(|file| file.metadata().unwrap().len()).sum::<u64>();
            for number in [0, count / 2, count - 1] {
                // Drawing uses logarithms and cosines, whose last bits may differ between machines.
                let stored = decode(&fs::read(folder.join(file_name(number))).unwrap());
                let drawn = decode(&picture::encode(&split.picture(SEED, number)).unwrap());
                let difference: u32 = stored.iter().zip(&drawn).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
                assert!(difference < 100, "{} {number}: {difference}", folder.display());
            }
        }
        assert!(bytes < 4_000_000, "{bytes} bytes of pictures");
    }

    fn decode(file: &[u8]) -> Vec<u8> {
        stic::data::picture::decode(file).unwrap().into_raw()
    }

    #[test]
    fn no_test_picture_is_among_those_trained_on() {
        let scene = |split: Split, number| format!("{:?}", split.picture(SEED, number).as_raw());
        assert_ne!(scene(Split::Test, 0), scene(Split::Train, 0));
        assert_ne!(scene(Split::Test, 0), scene(Split::Validation, 0));
    }

    #[test]
    fn a_record_names_its_picture_and_places_it_before_the_question() {
        let records = records(SEED, 7);
        assert_eq!(records.len(), RECORDS_PER_PICTURE);
        assert_eq!((&records[1]["id"], &records[1]["image"]), (&"scene-0008b".into(), &"pictures/0008.jpg".into()));
        let turns = records[1]["conversations"].as_array().unwrap();
        assert!(turns[0]["value"].as_str().unwrap().starts_with("<image>\n") && turns.len() == 2);
    }
}
