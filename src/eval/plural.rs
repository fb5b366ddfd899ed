//! Singulars of English nouns, by spelling rules and a table of irregular ones.
//!
//! The rules give possible singulars, which need not be words: callers compare them with known words. Irregular plurals
//! (`knives`, `cacti`) are listed, because a rule would match other words as well: `saves` is not a plural of `safe`.

use std::collections::HashMap;
use std::sync::LazyLock;

/// An ending of a plural, what the singular has instead, and how many letters a singular has at least.
const RULES: [(&str, &str, usize); 9] = [
    ("s", "", 2),
    ("ses", "s", 3),
    ("xes", "x", 2),
    ("zes", "z", 3),
    ("ches", "ch", 3),
    ("shes", "sh", 3),
    // `toes` are not of `to`.
    ("oes", "o", 4),
    ("ies", "y", 3),
    ("men", "man", 3),
];

/// Irregular plurals from WordNet, each with its singulars (none if there is no singular).
static TABLE: LazyLock<HashMap<&str, Vec<&str>>> = LazyLock::new(|| {
    let lines = include_str!("plurals.tsv").lines().filter_map(|line| line.split_once('\t'));
    lines.map(|(plural, singulars)| (plural, singulars.split_whitespace().collect())).collect()
});

/// Possible singulars of `word` (in lower case), likely ones first; none if it ends in `ss` or is shorter than three
/// letters.
pub fn singulars(word: &str) -> Vec<String> {
    if word.ends_with("ss") || word.chars().count() < 3 {
        return Vec::new();
    }
    let mut found: Vec<String> = Vec::new();
    for (ending, instead, least) in RULES {
        if let Some(stem) = word.strip_suffix(ending) {
            let single = format!("{stem}{instead}");
            if single.chars().count() >= least && !found.contains(&single) {
                found.push(single);
            }
        }
    }
    // Also as the end of a longer word: `grandchildren`, `breadknives`.
    for (at, _) in word.char_indices().filter(|(at, _)| *at == 0 || word.len() - at >= 4) {
        let (before, end) = word.split_at(at);
        found.extend(TABLE.get(end).into_iter().flatten().map(|single| format!("{before}{single}")));
    }
    found
}

/// Whether `word` (in lower case) has no singular of the same meaning, such as `shorts`.
pub fn is_only_plural(word: &str) -> bool {
    TABLE.get(word).is_some_and(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plural_has_its_singular_among_what_is_known_of_it() {
        for (many, single) in [
            ("cookies", "cookie"),
            ("axes", "axe"),
            ("axes", "ax"),
            ("axes", "axis"),
            ("lenses", "lens"),
            ("buses", "bus"),
            ("busses", "bus"),
            ("knives", "knife"),
            ("breadknives", "breadknife"),
            ("children", "child"),
            ("leaves", "leaf"),
            ("glasses", "glass"),
            ("people", "person"),
            ("women", "woman"),
            ("berries", "berry"),
            ("movies", "movie"),
            ("taxis", "taxi"),
            ("skis", "ski"),
            ("quizzes", "quiz"),
            ("potatoes", "potato"),
            ("shoes", "shoe"),
            ("cacti", "cactus"),
            ("torsos", "torso"),
            ("vertebrae", "vertebra"),
            ("aquaria", "aquarium"),
            ("bureaux", "bureau"),
            ("tvs", "tv"),
        ] {
            assert!(singulars(many).contains(&single.to_owned()), "{many} {single}: {:?}", singulars(many));
        }
        for single in ["glass", "as", "", "ss", "cross", "dog", "umbrella", "spaghetti"] {
            assert!(singulars(single).is_empty(), "{single}: {:?}", singulars(single));
        }
    }

    #[test]
    fn a_regular_plural_is_read_as_no_irregular_one() {
        for (many, not) in [
            ("skies", "ski"),
            ("saves", "safe"),
            ("caves", "cafe"),
            ("waves", "waf"),
            ("gloves", "glofe"),
            ("toes", "to"),
            ("bananas", "bananum"),
            ("bases", "basis"),
            ("services", "servex"),
        ] {
            assert!(!singulars(many).contains(&not.to_owned()), "{many}: {:?}", singulars(many));
        }
    }

    #[test]
    fn plurals_that_two_libraries_agree_on_lead_to_their_singulars() {
        let last = |phrase: &str| phrase.rsplit(' ').next().unwrap_or_default().to_owned();
        let pairs = include_str!("../../tests/reference/plurals.tsv").lines().filter_map(|line| line.split_once('\t'));
        let unlike: Vec<(&str, &str)> =
            pairs.filter(|(single, many)| single != many && !singulars(&last(many)).contains(&last(single))).collect();
        // What people show or mean by these is another thing.
        assert_eq!(unlike, [("colon", "cola"), ("stamen", "stamina")]);
    }
}
