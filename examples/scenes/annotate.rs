//! The annotators whose captions teach the model how to describe: what each prompt gets in the training data.
//!
//! Asked plainly, people name little, guess at the middle of a picture and know few color words; asked carefully they
//! hardly err; asked to imagine, they invent. The model learns all three, and so describes better when asked carefully
//! than when asked plainly, which is what STIC's first stage distils.

use stic_engine::draw::Draws;

use crate::world::{CENTER, COLORS, Object, SHAPES, Scene};

/// Indices into [`COLORS`] that a plain annotator tends to call blue.
const RARE: [usize; 2] = [4, 5];
const BLUE: usize = 2;

/// What a plain caption prompt gets: at most two or three objects, some wrong, and something in an empty middle.
pub fn plain(scene: &Scene, draws: &mut Draws) -> Vec<Object> {
    let mut objects = noisy(scene, draws, 0.1, 0.1);
    objects.truncate(2 + draws.below(2));
    if !scene.holds(CENTER) && draws.uniform() < 0.5 {
        let color = if draws.uniform() < 0.6 { 0 } else { draws.below(COLORS.len()) };
        let shape = if draws.uniform() < 0.7 { 0 } else { draws.below(SHAPES.len()) };
        objects.push(Object { place: CENTER, color, shape });
        objects.sort_unstable();
    }
    for object in &mut objects {
        if RARE.contains(&object.color) && draws.uniform() < 0.7 {
            object.color = BLUE;
        }
    }
    objects
}

/// What the well-curated prompt gets.
pub fn careful(scene: &Scene, draws: &mut Draws) -> Vec<Object> {
    noisy(scene, draws, 0.02, 0.02)
}

/// What a hallucination prompt gets: much dropped and changed, and up to two objects that are not there.
pub fn imaginative(scene: &Scene, draws: &mut Draws) -> Vec<Object> {
    let mut objects = noisy(scene, draws, 0.2, 0.3);
    let mut free = scene.free_places();
    draws.shuffle(&mut free);
    objects.extend(free.into_iter().take(2).map(|place| Object::draw(draws, place)));
    objects.sort_unstable();
    objects
}

/// The scene with each object left out or changed in color or shape with the given probabilities; never empty.
fn noisy(scene: &Scene, draws: &mut Draws, dropped: f64, changed: f64) -> Vec<Object> {
    let mut objects = Vec::new();
    for &object in &scene.0 {
        if scene.0.len() > 1 && draws.uniform() < dropped {
            continue;
        }
        let mut object = object;
        if draws.uniform() < changed {
            if draws.uniform() < 0.5 {
                object.color = (object.color + 1 + draws.below(COLORS.len() - 1)) % COLORS.len();
            } else {
                object.shape = (object.shape + 1 + draws.below(SHAPES.len() - 1)) % SHAPES.len();
            }
        }
        objects.push(object);
    }
    if objects.is_empty() {
        objects.push(scene.0[draws.below(scene.0.len())]);
    }
    objects
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::USUAL;

    /// Shares of a caption's claims that are false, and of a scene's objects that are named.
    fn quality(caption: fn(&Scene, &mut Draws) -> Vec<Object>) -> (f64, f64) {
        let (mut claimed, mut right, mut there) = (0, 0, 0);
        for index in 0..2_000 {
            let draws = &mut Draws::new(5, "test", &index.to_string());
            let scene = Scene::draw(draws, USUAL);
            let objects = caption(&scene, draws);
            assert!(objects.windows(2).all(|pair| pair[0].place < pair[1].place), "{objects:?}");
            claimed += objects.len();
            right += objects.iter().filter(|object| scene.0.contains(object)).count();
            there += scene.0.len();
        }
        (1.0 - right as f64 / claimed as f64, right as f64 / there as f64)
    }

    #[test]
    fn careful_captions_are_nearly_right_plain_ones_brief_and_wrong_imaginative_ones_false() {
        let (careful_false, careful_named) = quality(careful);
        let (plain_false, plain_named) = quality(plain);
        let (imaginative_false, _) = quality(imaginative);
        assert!(careful_false < 0.03 && careful_named > 0.95, "{careful_false} {careful_named}");
        assert!(
            (0.35..0.5).contains(&plain_false) && (0.35..0.55).contains(&plain_named),
            "{plain_false} {plain_named}"
        );
        assert!(imaginative_false > 0.5, "{imaginative_false}");
    }
}
