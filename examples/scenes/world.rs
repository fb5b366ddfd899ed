//! The small world: what a picture can contain, and the words for it. It knows neither pixels nor questions.
//!
//! A scene is two to five objects in distinct places of a grid of three by three. One word names a place and one an
//! object, because a reader of this size forms on such text and does not on text that spreads an object over several
//! words.

use std::ops::RangeInclusive;

use stic_engine::draw::Draws;

/// Color words and the mean color of an object that bears them.
pub const COLORS: [(&str, [f64; 3]); 6] = [
    ("red", [215.0, 45.0, 40.0]),
    ("green", [45.0, 160.0, 60.0]),
    ("blue", [45.0, 80.0, 210.0]),
    ("yellow", [225.0, 205.0, 45.0]),
    ("purple", [140.0, 60.0, 170.0]),
    ("cyan", [50.0, 195.0, 205.0]),
];

/// Shape words.
pub const SHAPES: [&str; 5] = ["circle", "square", "triangle", "cross", "ring"];

/// Places in reading order.
pub const PLACES: [&str; 9] = [
    "top-left",
    "top-centre",
    "top-right",
    "middle-left",
    "middle-centre",
    "middle-right",
    "bottom-left",
    "bottom-centre",
    "bottom-right",
];

/// Rows of places, then columns.
pub const LINES: [&str; 6] = ["top-row", "middle-row", "bottom-row", "left-column", "centre-column", "right-column"];

/// The place in the middle.
pub const CENTER: usize = 4;

/// Numbers of objects in the pictures that the pipeline sees.
pub const USUAL: RangeInclusive<usize> = 2..=5;

/// Something at a place; ordered as a description names things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// Index into [`PLACES`].
    pub place: usize,
    /// Index into [`COLORS`].
    pub color: usize,
    /// Index into [`SHAPES`].
    pub shape: usize,
}

impl Object {
    /// Its word without the place, such as `red-circle`.
    pub fn name(self) -> String {
        object_word(self.color, self.shape)
    }

    /// Place and object, such as `top-left red-circle`.
    pub fn phrase(self) -> String {
        format!("{} {}", PLACES[self.place], self.name())
    }

    /// Something of any color and shape at `place`.
    pub fn draw(draws: &mut Draws, place: usize) -> Self {
        Self { place, color: draws.below(COLORS.len()), shape: draws.below(SHAPES.len()) }
    }

    /// Whether the object stands in row or column `line` of [`LINES`].
    pub fn in_line(self, line: usize) -> bool {
        if line < 3 { self.place / 3 == line } else { self.place % 3 == line - 3 }
    }
}

/// The word for an object, such as `red-circle`.
pub fn object_word(color: usize, shape: usize) -> String {
    format!("{}-{}", COLORS[color].0, SHAPES[shape])
}

/// Objects in reading order, each at a place of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene(pub Vec<Object>);

impl Scene {
    /// A scene of as many objects as `counts` allows.
    pub fn draw(draws: &mut Draws, counts: RangeInclusive<usize>) -> Self {
        let count = counts.start() + draws.below(counts.end() - counts.start() + 1);
        let mut places: Vec<usize> = (0..PLACES.len()).collect();
        draws.shuffle(&mut places);
        places.truncate(count);
        places.sort_unstable();
        Self(places.into_iter().map(|place| Object::draw(draws, place)).collect())
    }

    /// Whether anything stands at `place`.
    pub fn holds(&self, place: usize) -> bool {
        self.0.iter().any(|object| object.place == place)
    }

    /// The places where nothing stands.
    pub fn free_places(&self) -> Vec<usize> {
        (0..PLACES.len()).filter(|&place| !self.holds(place)).collect()
    }
}

/// Phrases in the order given, joined by blanks: the text of a description.
pub fn describe(objects: &[Object]) -> String {
    objects.iter().map(|object| object.phrase()).collect::<Vec<_>>().join(" ")
}

/// What a description claims: its pairs of a place and an object. Words out of place count as a claim of nothing.
pub fn claims(description: &str) -> Vec<Option<Object>> {
    let words: Vec<&str> = description.split_whitespace().collect();
    let mut claims = Vec::new();
    let mut index = 0;
    while index < words.len() {
        let place = PLACES.iter().position(|word| *word == words[index]);
        let claim = place.zip(words.get(index + 1).and_then(|word| read_object(word)));
        claims.push(claim.map(|(place, (color, shape))| Object { place, color, shape }));
        index += if claim.is_some() { 2 } else { 1 };
    }
    claims
}

fn read_object(word: &str) -> Option<(usize, usize)> {
    let (color, shape) = word.split_once('-')?;
    let color = COLORS.iter().position(|(name, _)| *name == color)?;
    Some((color, SHAPES.iter().position(|name| *name == shape)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_a_scene_stand_at_distinct_places_in_reading_order() {
        let mut counts = [0; 6];
        for index in 0..400 {
            let scene = Scene::draw(&mut Draws::new(1, "test", &index.to_string()), USUAL);
            counts[scene.0.len()] += 1;
            assert!(scene.0.windows(2).all(|pair| pair[0].place < pair[1].place), "{scene:?}");
            assert_eq!(scene.0.len() + scene.free_places().len(), PLACES.len());
        }
        assert!(counts[2..].iter().all(|count| *count > 60) && counts[..2] == [0, 0], "{counts:?}");
    }

    #[test]
    fn a_description_reads_back_as_the_objects_it_names() {
        let scene = Scene::draw(&mut Draws::new(1, "test", "description"), 5..=5);
        let read: Vec<_> = claims(&describe(&scene.0)).into_iter().map(Option::unwrap).collect();
        assert_eq!(read, scene.0);
    }

    #[test]
    fn words_out_of_place_are_claims_of_nothing() {
        let claims = claims("top-left top-right red-ring blue-cross");
        assert_eq!(claims, [None, Some(Object { place: 2, color: 0, shape: 4 }), None]);
    }

    #[test]
    fn the_top_right_place_is_in_the_top_row_and_the_right_column() {
        let object = Object { place: 2, color: 0, shape: 0 };
        let lines: Vec<_> = (0..LINES.len()).filter(|line| object.in_line(*line)).map(|line| LINES[line]).collect();
        assert_eq!(lines, ["top-row", "right-column"]);
    }
}
