//! Questions about a scene that have one short answer.

use stic_engine::draw::Draws;

use crate::world::{COLORS, LINES, Object, PLACES, SHAPES, Scene};

/// How questions of each kind begin; each is one token, and the word asked about comes last. A question mark closes
/// the question, which the tokenizer leaves out.
pub const FORMS: [&str; 5] =
    ["How many objects are there", "What colour is the", "Which shape is", "What is at", "How many objects are in the"];

/// The answer where nothing stands.
pub const NOTHING: &str = "nothing";

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The number of objects.
    Total,
    /// The color of the only object of a shape.
    Color,
    /// The shape of the only object of a color.
    Shape,
    /// What stands at a place, nothing one time in five.
    Place,
    /// The number of objects in a row or column.
    Line,
}

/// All kinds, in the order of [`FORMS`].
pub const KINDS: [Kind; 5] = [Kind::Total, Kind::Color, Kind::Shape, Kind::Place, Kind::Line];

impl Kind {
    /// Its name in the data.
    pub fn name(self) -> &'static str {
        ["total", "colour", "shape", "place", "line"][self as usize]
    }
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub kind: Kind,
    /// The question.
    pub text: String,
    /// Its answer, one word.
    pub answer: String,
}

/// `count` questions about `scene`, the kinds in turn in random order; kinds that the scene has no question for are
/// left out.
pub fn questions(scene: &Scene, draws: &mut Draws, count: usize) -> Vec<Question> {
    let mut questions = Vec::with_capacity(count);
    while questions.len() < count {
        let mut kinds = KINDS;
        draws.shuffle(&mut kinds);
        questions.extend(kinds.into_iter().filter_map(|kind| question(scene, draws, kind)));
    }
    questions.truncate(count);
    questions
}

/// A question of `kind` about `scene`, if it has one.
pub fn question(scene: &Scene, draws: &mut Draws, kind: Kind) -> Option<Question> {
    let form = FORMS[kind as usize];
    let (subject, answer) = match kind {
        Kind::Total => (None, scene.0.len().to_string()),
        Kind::Color => {
            let object = only(scene, draws, |object| object.shape)?;
            (Some(SHAPES[object.shape]), COLORS[object.color].0.to_owned())
        }
        Kind::Shape => {
            let object = only(scene, draws, |object| object.color)?;
            (Some(COLORS[object.color].0), SHAPES[object.shape].to_owned())
        }
        Kind::Place => {
            if draws.uniform() < 0.2 {
                let free = scene.free_places();
                (Some(PLACES[free[draws.below(free.len())]]), NOTHING.to_owned())
            } else {
                let object = scene.0[draws.below(scene.0.len())];
                (Some(PLACES[object.place]), object.name())
            }
        }
        Kind::Line => {
            let line = draws.below(LINES.len());
            let count = scene.0.iter().filter(|object| object.in_line(line)).count();
            (Some(LINES[line]), count.to_string())
        }
    };
    let text = subject.map_or_else(|| format!("{form}?"), |subject| format!("{form} {subject}?"));
    Some(Question { kind, text, answer })
}

/// One of the objects whose `feature` no other object of the scene shares.
fn only(scene: &Scene, draws: &mut Draws, feature: fn(&Object) -> usize) -> Option<Object> {
    let mut unique = scene.0.clone();
    unique.retain(|object| scene.0.iter().filter(|other| feature(other) == feature(object)).count() == 1);
    (!unique.is_empty()).then(|| unique[draws.below(unique.len())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::USUAL;

    fn scene() -> Scene {
        Scene(vec![
            Object { place: 0, color: 0, shape: 0 },
            Object { place: 1, color: 0, shape: 4 },
            Object { place: 8, color: 2, shape: 4 },
        ])
    }

    #[test]
    fn only_what_is_unique_is_asked_for_by_its_feature() {
        for index in 0..50 {
            let draws = &mut Draws::new(2, "test", &index.to_string());
            let color = question(&scene(), draws, Kind::Color).unwrap();
            assert_eq!((color.text.as_str(), color.answer.as_str()), ("What colour is the circle?", "red"));
            let shape = question(&scene(), draws, Kind::Shape).unwrap();
            assert_eq!((shape.text.as_str(), shape.answer.as_str()), ("Which shape is blue?", "ring"));
        }
        let twins = Scene(vec![Object { place: 0, color: 1, shape: 1 }, Object { place: 1, color: 1, shape: 1 }]);
        assert_eq!(question(&twins, &mut Draws::new(2, "test", ""), Kind::Color), None);
    }

    #[test]
    fn answers_about_places_and_lines_are_what_stands_there() {
        for index in 0..200 {
            let draws = &mut Draws::new(2, "test", &index.to_string());
            let place = question(&scene(), draws, Kind::Place).unwrap();
            let expected = match place.text.trim_start_matches("What is at ") {
                "top-left?" => "red-circle",
                "top-centre?" => "red-ring",
                "bottom-right?" => "blue-ring",
                _ => "nothing",
            };
            assert_eq!(place.answer, expected, "{}", place.text);
            let line = question(&scene(), draws, Kind::Line).unwrap();
            let expected = match line.text.trim_start_matches("How many objects are in the ") {
                "top-row?" => "2",
                "middle-row?" => "0",
                _ => "1",
            };
            assert_eq!(line.answer, expected, "{}", line.text);
        }
    }

    #[test]
    fn five_questions_about_a_rich_scene_are_of_five_kinds() {
        let draws = &mut Draws::new(2, "test", "five");
        let mut kinds: Vec<_> = questions(&scene(), draws, 5).iter().map(|question| question.kind as usize).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn any_scene_has_as_many_questions_as_are_asked_for() {
        for index in 0..200 {
            let draws = &mut Draws::new(2, "test", &index.to_string());
            let scene = Scene::draw(draws, USUAL);
            assert_eq!(questions(&scene, draws, 8).len(), 8);
        }
    }
}
