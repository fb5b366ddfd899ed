//! Singulars of English nouns: WordNet's rules of detachment (`morphy`), and what its list of irregular nouns follows.
//!
//! A rule says what a word may be the plural of, not whether such a word exists; who asks compares with words that are
//! known. This module knows none.

/// An ending of a plural, and what the singular has instead.
const RULES: [(&str, &str); 38] = [
    // WordNet's rules.
    ("s", ""),
    ("ses", "s"),
    ("ves", "f"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
    // Regular in English, and in its list one by one.
    ("ves", "fe"),
    ("oes", "o"),
    ("zzes", "z"),
    ("sses", "s"),
    ("ies", "i"),
    // Irregular, also as the end of a longer word: `grandchildren`, `salespeople`.
    ("children", "child"),
    ("people", "person"),
    ("feet", "foot"),
    ("teeth", "tooth"),
    ("geese", "goose"),
    ("mice", "mouse"),
    ("lice", "louse"),
    ("oxen", "ox"),
    ("dice", "die"),
    ("staves", "staff"),
    ("pence", "penny"),
    ("brethren", "brother"),
    // Latin, Greek, French and Italian.
    ("es", "is"),
    ("ices", "ix"),
    ("ices", "ex"),
    ("nges", "nx"),
    ("i", "us"),
    ("i", "o"),
    ("ae", "a"),
    ("a", "um"),
    ("a", "on"),
    ("zoa", "zoan"),
    ("mina", "men"),
    ("x", ""),
];

/// What `word`, in lower case, may be the plural of, likely ones first; none where it ends in `ss` or has fewer than
/// three letters.
pub fn singulars(word: &str) -> Vec<String> {
    if word.ends_with("ss") || word.chars().count() < 3 {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (ending, instead) in RULES {
        if let Some(stem) = word.strip_suffix(ending) {
            let single = format!("{stem}{instead}");
            if single.chars().count() > 1 && !found.contains(&single) {
                found.push(single);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plural_has_its_singular_among_what_the_rules_give() {
        for (many, single) in [
            ("cookies", "cookie"),
            ("axes", "axe"),
            ("axes", "ax"),
            ("axes", "axis"),
            ("lenses", "lens"),
            ("buses", "bus"),
            ("busses", "bus"),
            ("knives", "knife"),
            ("children", "child"),
            ("leaves", "leaf"),
            ("glasses", "glass"),
            ("people", "person"),
            ("women", "woman"),
            ("berries", "berry"),
            ("movies", "movie"),
            ("taxis", "taxi"),
            ("quizzes", "quiz"),
            ("potatoes", "potato"),
            ("shoes", "shoe"),
            ("cacti", "cactus"),
            ("torsos", "torso"),
            ("vertebrae", "vertebra"),
            ("aquaria", "aquarium"),
            ("bureaux", "bureau"),
        ] {
            assert!(singulars(many).contains(&single.to_owned()), "{many} {single}: {:?}", singulars(many));
        }
        for single in ["glass", "as", "", "ss", "cross", "dog"] {
            assert!(singulars(single).is_empty(), "{single}: {:?}", singulars(single));
        }
    }

    #[test]
    fn plurals_that_two_libraries_agree_on_lead_to_their_singulars() {
        let last = |phrase: &str| phrase.rsplit(' ').next().unwrap_or_default().to_owned();
        let pairs = include_str!("../../tests/reference/plurals.tsv").lines().filter_map(|line| line.split_once('\t'));
        let unlike: Vec<(&str, &str)> =
            pairs.filter(|(single, many)| single != many && !singulars(&last(many)).contains(&last(single))).collect();
        // Rare borrowings (`signori`, `banditti`, `osar`) and `menservants` remain.
        assert!(unlike.len() <= 13, "{unlike:?}");
    }
}
