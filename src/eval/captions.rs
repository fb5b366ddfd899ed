//! Objects in descriptions: which ones a description mentions, and which of those the picture has.
//!
//! Similar to CHAIR (<https://arxiv.org/abs/1809.02156>), but the objects come from the data ([`Vocabulary`]) instead
//! of a fixed list. A text claims an object if it contains one of its phrases; each object counts once per description
//! (CHAIR counts every mention). Singular and plural match each other ([`plural`](super::plural)), except for words
//! that only have a plural. The longest phrase wins, so `polar bear` is not a `bear`. A denial ("no dog") counts as a
//! claim.

use std::collections::{BTreeMap, BTreeSet};

use super::bootstrap::{Estimate, estimate};
use super::plural::{is_only_plural, singulars};

/// An object: a list of synonyms, the first of which is its name.
pub type Phrases = Vec<String>;

/// A phrase that means two objects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{phrase}` means both `{first}` and `{second}`")]
pub struct Ambiguous {
    /// The phrase.
    pub phrase: String,
    /// The object listed first.
    pub first: String,
    /// The other.
    pub second: String,
}

/// The phrases of all objects.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    phrases: Tree,
    /// Words of phrases by what else a description may write for them: for `skis` that is `ski`.
    by_singular: BTreeMap<String, Vec<String>>,
    /// All words of phrases.
    words: BTreeSet<String>,
}

/// Phrases that begin with the same words.
#[derive(Clone, Debug, Default)]
struct Tree {
    /// The name of the object that these words mean.
    name: Option<String>,
    longer: BTreeMap<String, Tree>,
}

impl Tree {
    /// How many of `words` the longest phrase takes that they begin with, and the object's name. Of each word there are
    /// readings, and of phrases of one length that with the earlier ones is taken.
    fn longest(&self, words: &[Vec<&str>]) -> Option<(usize, &str)> {
        let here = self.name.as_deref().map(|name| (0, name));
        let Some((first, rest)) = words.split_first() else { return here };
        let mut best = here;
        for longer in first.iter().filter_map(|word| self.longer.get(*word)) {
            if let Some((length, name)) = longer.longest(rest)
                && best.is_none_or(|(most, _)| length + 1 > most)
            {
                best = Some((length + 1, name));
            }
        }
        best
    }
}

impl Vocabulary {
    /// The vocabulary of all `objects`. Synonyms in one list are synonyms everywhere.
    ///
    /// # Errors
    /// When a phrase is listed under two objects.
    pub fn new<'a>(objects: impl IntoIterator<Item = &'a Phrases> + Clone) -> Result<Self, Ambiguous> {
        let mut vocabulary = Self::default();
        for phrases in objects.clone().into_iter().filter(|phrases| phrases.len() > 1) {
            let own = words(&phrases[0]).join(" ");
            // `["sofas", "settee"]` beside `["sofa", "couch"]` is the same object.
            let name =
                vocabulary.name(&phrases[0]).filter(|name| !apart(&own, name)).map_or(own.clone(), str::to_owned);
            for phrase in phrases {
                vocabulary.insert(phrase, &name)?;
            }
        }
        for phrase in objects.into_iter().filter(|phrases| phrases.len() == 1).flatten() {
            let own = words(phrase).join(" ");
            if vocabulary.name(phrase).is_none_or(|name| apart(&own, name) && !vocabulary.has(&words(phrase))) {
                vocabulary.insert(phrase, &own)?;
            }
        }
        Ok(vocabulary)
    }

    fn insert(&mut self, phrase: &str, name: &str) -> Result<(), Ambiguous> {
        let words = words(phrase);
        if let Some(first) = self.name(phrase)
            && first != name
            && (self.has(&words) || !apart(&words.join(" "), first))
        {
            let (first, second) = (first.to_owned(), name.to_owned());
            return Err(Ambiguous { phrase: phrase.to_owned(), first, second });
        }
        let mut tree = &mut self.phrases;
        for word in words {
            if self.words.insert(word.clone()) && !is_only_plural(&word) {
                for singular in singulars(&word) {
                    self.by_singular.entry(singular).or_default().push(word.clone());
                }
            }
            tree = tree.longer.entry(word).or_default();
        }
        tree.name = Some(name.to_owned());
        Ok(())
    }

    /// Whether exactly these words are a phrase.
    fn has(&self, words: &[String]) -> bool {
        let found = words.iter().try_fold(&self.phrases, |tree, word| tree.longer.get(word));
        found.is_some_and(|tree| tree.name.is_some())
    }

    /// Whether there are no phrases.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The name of the object that `phrase` means.
    pub fn name(&self, phrase: &str) -> Option<&str> {
        let words = words(phrase);
        let readings = self.readings(&words);
        let (length, name) = self.phrases.longest(&readings)?;
        (length == words.len()).then_some(name)
    }

    /// The objects that `text` claims, by name, in the order of their first mention.
    pub fn claims(&self, text: &str) -> Vec<&str> {
        let words = words(text);
        let readings = self.readings(&words);
        let mut claims: Vec<&str> = Vec::new();
        let mut at = 0;
        while at < words.len() {
            match self.phrases.longest(&readings[at..]) {
                None | Some((0, _)) => at += 1,
                Some((length, name)) => {
                    if !claims.contains(&name) {
                        claims.push(name);
                    }
                    at += length;
                }
            }
        }
        claims
    }

    /// The words of the vocabulary that each of `words` may mean: itself first, then those of which it may be the
    /// plural, then those that may be a plural of it.
    fn readings(&self, words: &[String]) -> Vec<Vec<&str>> {
        let readings = |word: &String| {
            let mut found: Vec<&str> = Vec::new();
            let forms: Vec<String> = std::iter::once(word.clone()).chain(singulars(word)).collect();
            let known = forms.iter().filter_map(|form| self.words.get(form));
            let plural = forms.iter().filter_map(|form| self.by_singular.get(form)).flatten();
            for word in known.chain(plural) {
                if !found.contains(&word.as_str()) {
                    found.push(word);
                }
            }
            found
        };
        words.iter().map(readings).collect()
    }
}

/// Whether two names that look like singular and plural mean different things, such as `glass` and `glasses`.
fn apart(one: &str, other: &str) -> bool {
    one != other && (is_only_plural(one) || is_only_plural(other))
}

/// The objects that a description claims, by name, compared with those of the picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims {
    /// Claimed objects, in the order of the text.
    pub claimed: Vec<String>,
    /// Claimed objects that the picture does not have.
    pub invented: Vec<String>,
    /// Objects of the picture that are not claimed.
    pub missed: Vec<String>,
}

impl Claims {
    /// The claims of `text` about a picture with these `objects`.
    pub fn new(vocabulary: &Vocabulary, text: &str, objects: &[Phrases]) -> Self {
        let claimed = vocabulary.claims(text);
        let mut present: Vec<&str> = Vec::new();
        for name in objects.iter().filter_map(|phrases| vocabulary.name(phrases.first()?)) {
            if !present.contains(&name) {
                present.push(name);
            }
        }
        let without = |list: &[&str], other: &[&str]| {
            list.iter().filter(|name| !other.contains(name)).map(|name| (*name).to_owned()).collect()
        };
        Self {
            invented: without(&claimed, &present),
            missed: without(&present, &claimed),
            claimed: without(&claimed, &[]),
        }
    }

    /// How many.
    pub fn counts(&self) -> Counts {
        let found = (self.claimed.len() - self.invented.len()) as f64;
        Counts { found, claimed: self.claimed.len() as f64, present: found + self.missed.len() as f64 }
    }
}

/// One description's counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Claimed objects that the picture has.
    pub found: f64,
    /// Claimed objects.
    pub claimed: f64,
    /// Objects of the picture.
    pub present: f64,
}

impl Counts {
    /// The harmonic mean of precision and recall; 1 when there is no object and none is claimed.
    pub fn f1(&self) -> f64 {
        let both = self.claimed + self.present;
        if both == 0.0 { 1.0 } else { 2.0 * self.found / both }
    }
}

/// Recall, precision, F1 and hallucination rate, from one row of counts per picture; `None` if undefined, such as the
/// precision of descriptions without claims.
///
/// All are ratios of sums over pictures (micro averages). The hallucination rate is 1 − precision.
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

/// The words of a text in lower case, split at hyphens and other punctuation; a possessive `'s` is removed.
fn words(text: &str) -> Vec<String> {
    text.to_lowercase()
        .replace("'s", "")
        .replace("’s", "")
        .split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

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
        let claims = Claims::new(&vocabulary, "A puppy.", &all);
        assert_eq!(claims, Claims { claimed: vec!["dog".to_owned()], ..Claims::default() });
        assert_eq!(claims.counts(), Counts { found: 1.0, claimed: 1.0, present: 1.0 });
    }

    #[test]
    fn a_phrase_for_two_objects_is_refused() {
        let error = Vocabulary::new(&objects(&[&["shore", "bank"], &["building", "bank"]])).unwrap_err();
        assert_eq!(error.to_string(), "`bank` means both `shore` and `building`");
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
    fn singular_and_plural_are_one_object_whichever_the_data_write() {
        let all =
            objects(&[&["skis"], &["cookie"], &["knife"], &["dogs"], &["dog"], &["polar bear"], &["people", "man"]]);
        let vocabulary = Vocabulary::new(&all).unwrap();
        assert_eq!(
            vocabulary.claims("A ski, cookies and knives; a dog, polar bears and a person. Women."),
            ["skis", "cookie", "knife", "dogs", "polar bear", "people"]
        );
        assert_eq!(vocabulary.name("dog"), Some("dogs"));
    }

    #[test]
    fn what_the_data_write_in_full_goes_before_what_it_may_be_a_plural_of() {
        let all = objects(&[&["glass", "wine glass"], &["glasses", "spectacles"], &["axe"], &["axis", "pivot"]]);
        let vocabulary = Vocabulary::new(&all).unwrap();
        assert_eq!(vocabulary.claims("a glass"), ["glass"]);
        assert_eq!(vocabulary.claims("glasses"), ["glasses"]);
        assert_eq!(vocabulary.claims("wine glasses"), ["glass"]);
        assert_eq!(vocabulary.claims("axes"), ["axe"]);
        let turned: Vec<Phrases> = all.iter().rev().cloned().collect();
        assert_eq!(Vocabulary::new(&turned).unwrap().claims("glasses beside a glass"), ["glasses", "glass"]);
    }

    #[test]
    fn a_word_that_only_has_a_plural_matches_only_itself() {
        let vocabulary =
            Vocabulary::new(&objects(&[&["shorts"], &["overalls"], &["greens"], &["glass"], &["glasses"]])).unwrap();
        assert_eq!(vocabulary.claims("A short man in the overall green scene drinks a glass."), ["glass"]);
        assert_eq!(
            vocabulary.claims("Shorts, overalls, greens and glasses."),
            ["shorts", "overalls", "greens", "glasses"]
        );
        let glasses = Vocabulary::new(&objects(&[&["glass"]])).unwrap();
        assert_eq!(glasses.claims("Two glasses."), ["glass"]);
    }

    #[test]
    fn a_word_claims_nothing_that_only_looks_like_its_singular() {
        let vocabulary =
            Vocabulary::new(&objects(&[&["person"], &["skis"], &["safe"], &["cafe"], &["toes"], &["stamen"]])).unwrap();
        assert_eq!(vocabulary.claims("Two people under blue skies."), ["person"]);
        assert!(vocabulary.claims("He saves gold in caves, to show stamina.").is_empty());
        assert_eq!(vocabulary.claims("Skis, a ski, safes, cafes and a toe."), ["skis", "safe", "cafe", "toes"]);
    }

    #[test]
    fn lists_that_begin_with_singular_and_plural_are_of_one_object() {
        let vocabulary = Vocabulary::new(&objects(&[&["sofa", "couch"], &["sofas", "settee"]])).unwrap();
        assert_eq!(vocabulary.claims("a settee"), ["sofa"]);
        let error = Vocabulary::new(&objects(&[&["dog", "puppy"], &["animal", "puppies"]])).unwrap_err();
        assert_eq!(error.to_string(), "`puppies` means both `dog` and `animal`");
    }

    #[test]
    fn plurals_of_pictured_things_claim_them() {
        let pairs: Vec<(&str, &str)> = include_str!("../../tests/reference/plurals.tsv")
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .collect();
        let singles: Vec<Phrases> = pairs.iter().map(|(single, _)| vec![(*single).to_owned()]).collect();
        let coco = Vocabulary::new(&singles[..81]).unwrap();
        for (single, many) in &pairs[..81] {
            assert_eq!(coco.claims(&format!("Two {many}.")), [*single], "{many}");
        }
        // `oxens` is of `ox` as much as of `oxen`.
        let all = Vocabulary::new(&singles).unwrap();
        let wrong: Vec<_> = pairs.iter().filter(|(single, many)| all.claims(many) != [*single]).collect();
        assert_eq!(wrong, [&("colon", "cola"), &("oxen", "oxens"), &("stamen", "stamina")]);
    }
}
