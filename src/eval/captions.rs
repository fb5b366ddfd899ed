//! Objects in descriptions: which a text claims, and which of them the picture has.
//!
//! In the manner of CHAIR (<https://arxiv.org/abs/1809.02156>), without its fixed list of objects: the words that can be
//! claims come from the data ([`Vocabulary`]). A text claims an object when one of its phrases stands in it; each
//! object counts once a text, however often it is named (CHAIR counts every mention). The longest phrase that fits is
//! taken, so `polar bear` is no `bear`. A denial ("no dog") is read as a claim. This module does not know where texts
//! come from.

use std::collections::{BTreeMap, BTreeSet};

use super::bootstrap::{Estimate, estimate};

/// An object as data names it: phrases that mean the same, of which the first is its name.
pub type Phrases = Vec<String>;

/// A phrase that stands for two objects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{phrase}` stands for `{first}` and for `{second}`")]
pub struct Ambiguous {
    /// The phrase.
    pub phrase: String,
    /// The object that it stood for first.
    pub first: String,
    /// The other.
    pub second: String,
}

/// The phrases that are claims, and what object each stands for.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    /// Words of a phrase → the object's name.
    names: BTreeMap<Vec<String>, String>,
    /// The most words of a phrase.
    longest: usize,
}

impl Vocabulary {
    /// The vocabulary of all `objects`: what one of them lists as meaning the same means the same in all, and a phrase
    /// that nobody lists beside another is an object of its own.
    ///
    /// # Errors
    /// When a phrase is listed under two objects.
    pub fn new<'a>(objects: impl IntoIterator<Item = &'a Phrases> + Clone) -> Result<Self, Ambiguous> {
        let mut vocabulary = Self::default();
        for phrases in objects.clone().into_iter().filter(|phrases| phrases.len() > 1) {
            let name = words(&phrases[0]).join(" ");
            for phrase in phrases {
                vocabulary.insert(phrase, &name)?;
            }
        }
        for phrase in objects.into_iter().filter(|phrases| phrases.len() == 1).flatten() {
            if vocabulary.name(phrase).is_none() {
                vocabulary.insert(phrase, &words(phrase).join(" "))?;
            }
        }
        Ok(vocabulary)
    }

    fn insert(&mut self, phrase: &str, name: &str) -> Result<(), Ambiguous> {
        let key = words(phrase);
        self.longest = self.longest.max(key.len());
        match self.names.get(&key) {
            Some(first) if first != name => {
                Err(Ambiguous { phrase: phrase.to_owned(), first: first.clone(), second: name.to_owned() })
            }
            _ => {
                self.names.insert(key, name.to_owned());
                Ok(())
            }
        }
    }

    /// The name of the object that `phrase` stands for.
    pub fn name(&self, phrase: &str) -> Option<&str> {
        self.names.get(&words(phrase)).map(String::as_str)
    }

    /// The objects that `text` claims, by name, in the order of their first mention.
    pub fn claims(&self, text: &str) -> Vec<&str> {
        let words = words(text);
        let mut claims: Vec<&str> = Vec::new();
        let mut at = 0;
        while at < words.len() {
            let most = self.longest.min(words.len() - at);
            let found = (1..=most).rev().find_map(|length| Some((length, self.names.get(&words[at..at + length])?)));
            let Some((length, name)) = found else {
                at += 1;
                continue;
            };
            if !claims.contains(&name.as_str()) {
                claims.push(name);
            }
            at += length;
        }
        claims
    }
}

/// One description's counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Objects that it claims and the picture has.
    pub found: f64,
    /// Objects that it claims.
    pub claimed: f64,
    /// Objects that the picture has.
    pub present: f64,
}

impl Counts {
    /// The counts of a description that makes these `claims` about a picture with these `objects`.
    pub fn new(vocabulary: &Vocabulary, claims: &[&str], objects: &[Phrases]) -> Self {
        let present: BTreeSet<&str> = objects.iter().filter_map(|phrases| vocabulary.name(phrases.first()?)).collect();
        let found = claims.iter().filter(|claim| present.contains(**claim)).count();
        Self { found: found as f64, claimed: claims.len() as f64, present: present.len() as f64 }
    }

    /// The harmonic mean of precision and recall; 1 when nothing is there and nothing is claimed.
    pub fn f1(&self) -> f64 {
        let both = self.claimed + self.present;
        if both == 0.0 { 1.0 } else { 2.0 * self.found / both }
    }
}

/// Recall, precision, F1 and hallucination rate of all descriptions, one row of counts a picture; a number that is not
/// defined (the precision of texts that claim nothing) is `None`.
///
/// All are ratios of sums over pictures (micro averages). The hallucination rate is the share of claims that the
/// picture does not have, 1 − precision; it is named because that is what people look for.
pub fn metrics(pictures: &[Counts]) -> [(&'static str, Option<Estimate>); 4] {
    let rows: Vec<[f64; 3]> = pictures.iter().map(|counts| [counts.found, counts.claimed, counts.present]).collect();
    let estimates = estimate(
        &rows,
        &[
            |[found, _, present]| found / present,
            |[found, claimed, _]| found / claimed,
            |[found, claimed, present]| 2.0 * found / (claimed + present),
            |[found, claimed, _]| (claimed - found) / claimed,
        ],
    );
    let names = ["recall", "precision", "f1", "hallucination"];
    std::array::from_fn(|index| (names[index], estimates[index]))
}

/// The words of a phrase or text, lower case and singular. A hyphen parts words, as any other mark does, so that
/// `red-circle` is two; a possessive `'s` goes.
fn words(text: &str) -> Vec<String> {
    text.to_lowercase()
        .replace("'s", "")
        .replace("’s", "")
        .split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(singular)
        .collect()
}

/// The singular of an English noun, near enough: both sides of a comparison go through this, so what matters is that
/// singular and plural meet.
fn singular(word: &str) -> String {
    if let Some((_, single)) = IRREGULAR.iter().find(|(plural, _)| *plural == word) {
        return (*single).to_owned();
    }
    let stem = |suffix: &str, least: usize| word.strip_suffix(suffix).filter(|stem| stem.chars().count() >= least);
    if let Some(stem) = stem("ies", 3) {
        return format!("{stem}y");
    }
    for suffix in ["ches", "shes", "sses", "xes", "zes"] {
        if word.ends_with(suffix) {
            return word[..word.len() - 2].to_owned();
        }
    }
    match stem("s", 2) {
        Some(single) if !single.ends_with(['s', 'u', 'i']) => single.to_owned(),
        _ => word.to_owned(),
    }
}

const IRREGULAR: [(&str, &str); 24] = [
    ("buses", "bus"),
    ("calves", "calf"),
    ("children", "child"),
    ("couches", "couch"),
    ("feet", "foot"),
    ("firemen", "fireman"),
    ("geese", "goose"),
    ("knives", "knife"),
    ("leaves", "leaf"),
    ("loaves", "loaf"),
    ("men", "man"),
    ("mice", "mouse"),
    ("movies", "movie"),
    ("oxen", "ox"),
    ("people", "person"),
    ("policemen", "policeman"),
    ("potatoes", "potato"),
    ("shelves", "shelf"),
    ("skis", "ski"),
    ("teeth", "tooth"),
    ("tomatoes", "tomato"),
    ("wives", "wife"),
    ("wolves", "wolf"),
    ("women", "woman"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(lists: &[&[&str]]) -> Vec<Phrases> {
        lists.iter().map(|list| list.iter().map(|phrase| (*phrase).to_owned()).collect()).collect()
    }

    #[test]
    fn claims_of_a_caption_are_found_by_synonym_plural_and_longest_phrase() {
        let all = objects(&[&["person", "man", "woman"], &["bear"], &["polar bear"], &["sofa", "couch"], &["bus"]]);
        let vocabulary = Vocabulary::new(&all).unwrap();
        assert_eq!(
            vocabulary.claims("Two women on couches watch a polar bear; the men's buses wait. A man waves."),
            ["person", "sofa", "polar bear", "bus"]
        );
        assert_eq!(vocabulary.claims("The bear, not polar."), ["bear"]);
        assert!(vocabulary.claims("An empty room with a manhole.").is_empty());
    }

    #[test]
    fn claims_of_the_small_world_are_pairs_of_place_and_object() {
        let all = objects(&[&["top-left red-circle"], &["top red-circle"], &["bottom blue-cross"]]);
        let vocabulary = Vocabulary::new(&all).unwrap();
        assert_eq!(
            vocabulary.claims("top-left red-circle top red-circle bottom bottom blue-cross top-left"),
            ["top left red circle", "top red circle", "bottom blue cross"]
        );
    }

    #[test]
    fn a_synonym_listed_once_holds_everywhere() {
        let all = objects(&[&["puppy"], &["dog", "puppy"]]);
        let vocabulary = Vocabulary::new(&all).unwrap();
        assert_eq!(Counts::new(&vocabulary, &["dog"], &all).found, 1.0);
        assert_eq!(Counts::new(&vocabulary, &["dog"], &all).present, 1.0);
    }

    #[test]
    fn a_phrase_for_two_objects_is_refused() {
        let error = Vocabulary::new(&objects(&[&["shore", "bank"], &["building", "bank"]])).unwrap_err();
        assert_eq!(error.to_string(), "`bank` stands for `shore` and for `building`");
    }

    #[test]
    fn metrics_follow_from_counts() {
        let one = Counts { found: 2.0, claimed: 3.0, present: 4.0 };
        let two = Counts { found: 1.0, claimed: 1.0, present: 2.0 };
        let values: Vec<_> = metrics(&[one, two]).iter().map(|(name, value)| (*name, value.unwrap().value)).collect();
        assert_eq!(values, [("recall", 0.5), ("precision", 0.75), ("f1", 0.6), ("hallucination", 0.25)]);
        assert_eq!(one.f1(), 4.0 / 7.0);
    }

    #[test]
    fn texts_that_claim_nothing_have_no_precision() {
        let silent = Counts { found: 0.0, claimed: 0.0, present: 2.0 };
        let values = metrics(&[silent, silent]);
        assert_eq!(values[0].1.unwrap().value, 0.0);
        assert_eq!((values[1].1, values[3].1), (None, None));
        assert_eq!(values[2].1.unwrap().value, 0.0);
    }

    #[test]
    fn singular_and_plural_meet() {
        for (one, many) in [
            ("dog", "dogs"),
            ("berry", "berries"),
            ("bench", "benches"),
            ("glass", "glasses"),
            ("box", "boxes"),
            ("knife", "knives"),
            ("cross", "crosses"),
            ("horse", "horses"),
            ("bus", "buses"),
            ("tie", "ties"),
            ("zebra", "zebras"),
        ] {
            assert_eq!(singular(one), singular(many), "{one} {many}");
        }
    }
}
