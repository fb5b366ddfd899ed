//! Short answers: extraction from responses, and scoring.
//!
//! Reference answers are of two kinds ([`Right`]). *Annotators'* answers are scored like VQA's or TextVQA's evaluation
//! code ([`Scorer`]): both compute VQA's soft accuracy (<https://visualqa.org/evaluation.html>) and differ in
//! normalization. *Accepted* answers are all right: the score is 1 if the response matches one of them.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

/// The reference answers to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Right {
    /// One answer per annotator, ten in VQA and TextVQA; the score depends on how many agree.
    Annotators(Vec<String>),
    /// Equally accepted spellings.
    Accepted(Vec<String>),
}

impl Right {
    /// The answers.
    pub fn answers(&self) -> &[String] {
        match self {
            Self::Annotators(answers) | Self::Accepted(answers) => answers,
        }
    }
}

/// How answers are compared with those of annotators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scorer {
    /// VQA's evaluation code (<https://github.com/GT-Vision-Lab/VQA>, `vqaEval.py`). If all annotators
    /// agree it does not normalize: `Yes` is then wrong if all answered `yes`.
    #[default]
    Vqa,
    /// That of TextVQA, which LLaVA uses (`m4c_evaluator.py`).
    TextVqa,
}

impl Scorer {
    /// All scorers.
    pub const ALL: [Self; 2] = [Self::Vqa, Self::TextVqa];

    /// Its name in a pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vqa => "vqa",
            Self::TextVqa => "textvqa",
        }
    }
}

/// How to extract the answer from a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extract {
    /// The whole response, as the official scorers do.
    #[default]
    None,
    /// The text after the last `answer is` or `answer:` up to the end of that line, without quotation marks and a final
    /// full stop; the whole response if there is none.
    FinalAnswer,
}

impl Extract {
    /// All ways.
    pub const ALL: [Self; 2] = [Self::None, Self::FinalAnswer];

    /// Its name in a pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::FinalAnswer => "final_answer",
        }
    }

    /// The answer in `text`.
    pub fn answer(self, text: &str) -> &str {
        match self {
            Self::None => text.trim(),
            Self::FinalAnswer => final_answer(text),
        }
    }
}

fn final_answer(text: &str) -> &str {
    // Both markers are ASCII, and ASCII lower case keeps byte positions.
    let lower = text.to_ascii_lowercase();
    let start = ["answer is", "answer:"]
        .into_iter()
        .filter_map(|marker| lower.rfind(marker).map(|at| at + marker.len()))
        .max()
        .unwrap_or(0);
    let said = text[start..].trim().trim_start_matches(':').trim();
    let said = if start == 0 { said } else { said.lines().next().unwrap_or("").trim() };
    let answer = said.trim_end_matches('.').trim_matches(['"', '“', '”']).trim();
    if answer.is_empty() { text.trim() } else { answer }
}

/// The score of `answer` against the `right` ones: 0 … 1. `scorer` applies to annotators' answers.
pub fn score(answer: &str, right: &Right, scorer: Scorer) -> f64 {
    match right {
        Right::Annotators(given) => {
            let (answer, given) = compared(answer, given, scorer);
            soft_accuracy(given.iter().filter(|given| **given == answer).count(), given.len())
        }
        Right::Accepted(answers) => {
            let given = comparable(answer);
            f64::from(u8::from(answers.iter().any(|right| comparable(right) == given)))
        }
    }
}

/// The answer and the annotators' answers as `scorer` compares them.
fn compared(answer: &str, given: &[String], scorer: Scorer) -> (String, Vec<String>) {
    let normal: fn(&str) -> String = match scorer {
        Scorer::TextVqa => normalize,
        Scorer::Vqa => {
            let clean: Vec<String> = given.iter().map(|given| one_line(given)).collect();
            if clean.windows(2).all(|pair| pair[0] == pair[1]) {
                return (one_line(answer), clean);
            }
            normalize_as_vqa
        }
    };
    (normal(answer), given.iter().map(|given| normal(given)).collect())
}

/// VQA's soft accuracy of an answer that `agreeing` of `all` annotators gave: the mean of min(1, agreeing others / 3)
/// over leaving out each annotator. With ten it is 0, 0.3, 0.6, 0.9 and 1 for 0, 1, 2, 3 and more who agree.
fn soft_accuracy(agreeing: usize, all: usize) -> f64 {
    let others = |agreeing: usize| (agreeing as f64 / 3.0).min(1.0);
    let left_out = |count: usize| if count == 0 { 0.0 } else { count as f64 * others(count - 1) };
    // Rounded to twelve places, so that three who agree are worth 0.9 and not its neighbor.
    let mean = (left_out(agreeing) + (all - agreeing) as f64 * others(agreeing)) / all.max(1) as f64;
    (mean * 1e12).round() / 1e12
}

/// [`normalize`] for accepted answers. It would drop a minus sign, and `A` as an article, and so turn `-5` into `5` and
/// the option `A` into nothing. Here the sign stays, and so does an article at the end, without a noun: `(A)` and `a.`
/// are the option `A`.
fn comparable(answer: &str) -> String {
    let trimmed = answer.trim();
    let normal = words(&spaced(trimmed), Articles::GoBeforeWords);
    let negative = trimmed.strip_prefix(['-', '−']).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    match (normal.is_empty(), negative) {
        (true, _) => trimmed.to_lowercase(),
        (_, true) => format!("-{}", normal.trim_start_matches('−')),
        _ => normal,
    }
}

/// Normalizes an answer like TextVQA's evaluation code (`EvalAIAnswerProcessor`).
pub fn normalize(answer: &str) -> String {
    words(&spaced(answer), Articles::Go)
}

/// Normalizes an answer like VQA's evaluation code if annotators disagree.
pub fn normalize_as_vqa(answer: &str) -> String {
    words(&without_periods(&without_punctuation(&one_line(answer))), Articles::Go)
}

/// The steps of [`normalize`] before words are looked at.
fn spaced(answer: &str) -> String {
    let text = answer.to_lowercase().replace([',', '?'], "").replace("'s", " 's");
    without_periods(&without_punctuation(&one_line(strip(&text))))
}

/// What to do with `a`, `an` and `the`.
#[derive(Clone, Copy, PartialEq)]
enum Articles {
    Go,
    GoBeforeWords,
}

/// Replaces number words by digits, removes articles, and unifies contractions.
fn words(text: &str, articles: Articles) -> String {
    let text = text.to_lowercase();
    let mut words = text.split(is_space).filter(|word| !word.is_empty()).peekable();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        let word = NUMBERS.iter().find(|(name, _)| *name == word).map_or(word, |(_, digit)| digit);
        let goes = articles == Articles::Go || words.peek().is_some();
        if !(goes && matches!(word, "a" | "an" | "the")) {
            kept.push(CONTRACTIONS.get(word).copied().unwrap_or(word));
        }
    }
    kept.join(" ")
}

/// Replaces line feeds and tabs by spaces, and trims.
fn one_line(text: &str) -> String {
    strip(&text.replace(['\n', '\t'], " ")).to_owned()
}

/// As Python's `str.strip`.
fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Python's white space, which includes the ASCII separators.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// A digit in Python's regular expressions.
fn is_digit(character: char) -> bool {
    static DIGIT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\d").expect("a pattern"));
    if character.is_ascii() { character.is_ascii_digit() } else { DIGIT.is_match(character.encode_utf8(&mut [0; 4])) }
}

/// Removes punctuation next to a space, and replaces other punctuation by a space. If the original text has a comma
/// between digits, all punctuation is removed.
fn without_punctuation(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let comma = characters.windows(3).any(|three| is_digit(three[0]) && three[1] == ',' && is_digit(three[2]));
    let mut result = text.to_owned();
    for mark in r#";/[]"{}()=+\_-><@`,?!"#.chars() {
        let beside_blank = text.contains(&format!("{mark} ")) || text.contains(&format!(" {mark}"));
        result = result.replace(mark, if beside_blank || comma { "" } else { " " });
    }
    result
}

/// Removes the first 32 full stops that no digit follows. The limit reproduces a bug in both scorers, which pass a flag
/// where `re.sub` expects a count.
fn without_periods(text: &str) -> String {
    let mut dropped = 0;
    let mut result = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        if character == '.' && dropped < 32 && !rest.peek().is_some_and(|next| is_digit(*next)) {
            dropped += 1;
        } else {
            result.push(character);
        }
    }
    result
}

const NUMBERS: [(&str, &str); 12] = [
    ("none", "0"),
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
];

/// Both scorers' table of contractions, one per line: without an apostrophe or with a misplaced one, and corrected.
/// Some entries are unreachable after the previous steps; they are kept as in the scorers.
static CONTRACTIONS: LazyLock<HashMap<&str, &str>> =
    LazyLock::new(|| include_str!("contractions.txt").lines().filter_map(|line| line.split_once(' ')).collect());

#[cfg(test)]
mod tests {
    use super::*;

    /// `times` × `answer`, for each.
    fn annotators(groups: &[(usize, &str)]) -> Vec<String> {
        groups.iter().flat_map(|(times, answer)| vec![(*answer).to_owned(); *times]).collect()
    }

    #[test]
    fn answers_are_normalized_as_the_evaluation_server_does() {
        let forty = ".".repeat(40);
        for (answer, normal) in [
            ("The Dakota Digital", "dakota digital"),
            ("3.5 mm", "3.5 mm"),
            ("$1,000.50", "$1000.50"),
            ("what's", "what 's"),
            ("whats", "what's"),
            ("coca-cola", "coca cola"),
            ("coca - cola", "coca cola"),
            ("U.S.A.", "usa"),
            ("www.google.com", "wwwgooglecom"),
            ("12/25/2010", "12 25 2010"),
            ("left (top)", "left top"),
            ("two\nthree", "2 3"),
            ("10.", "10"),
            ("a-b c-d", "b c d"),
            ("-5", "5"),
            ("A an the", ""),
            ("St. John's", "st john 's"),
            (forty.as_str(), "........"),
        ] {
            assert_eq!(normalize(answer), normal, "{answer}");
        }
    }

    #[test]
    fn both_official_scorers_are_reproduced_to_the_bit_of_a_score() {
        let mut unequal = 0;
        for line in include_str!("../../tests/reference/vqa.jsonl").lines() {
            type Case = (String, Vec<(usize, String)>, String, String, f64, f64);
            let (answer, given, by_vqa, by_textvqa, vqa, textvqa): Case = serde_json::from_str(line).unwrap();
            let given: Vec<String> = given.iter().flat_map(|(times, text)| vec![text.clone(); *times]).collect();
            let right = Right::Annotators(given);
            assert_eq!((normalize_as_vqa(&answer), normalize(&answer)), (by_vqa, by_textvqa), "{line}");
            // The fixture's scores are rounded to twelve places.
            let scores = Scorer::ALL.map(|scorer| score(Extract::None.answer(&answer), &right, scorer));
            assert_eq!(scores, [vqa, textvqa], "{line}");
            unequal += usize::from(vqa != textvqa);
        }
        assert!(unequal > 20, "the cases tell the scorers apart");
    }

    #[test]
    fn ten_annotators_give_soft_accuracy() {
        let nokia = annotators(&[(8, "nokia"), (1, "toshiba"), (1, "samsung")]);
        let noon = annotators(&[
            (3, "12:00"),
            (1, "12:00pm"),
            (1, "12"),
            (1, "noon"),
            (1, "1200"),
            (1, "12 pm"),
            (1, "12:00 pm"),
            (1, "midday"),
        ]);
        for (answer, answers, value) in [
            ("nokia", &nokia, 1.0),
            ("Nokia.", &nokia, 1.0),
            ("The Nokia", &nokia, 1.0),
            ("toshiba", &nokia, 0.3),
            ("nokia phone", &nokia, 0.0),
            ("unanswerable", &nokia, 0.0),
            ("ten", &annotators(&[(2, "10"), (2, "ten"), (6, "eleven")]), 1.0),
            ("12:00", &noon, 0.9),
            ("coca cola", &annotators(&[(3, "coca-cola"), (7, "coke")]), 0.9),
            ("U.S.A.", &annotators(&[(5, "usa"), (5, "us")]), 1.0),
            ("$1,000", &annotators(&[(2, "$1000"), (8, "1000")]), 0.6),
            ("dont walk", &annotators(&[(1, "don't walk"), (9, "walk")]), 0.3),
            ("none", &annotators(&[(4, "0"), (6, "none")]), 1.0),
            ("", &annotators(&[(3, "the"), (7, "x")]), 0.9),
            ("yes it is", &annotators(&[(10, "yes")]), 0.0),
        ] {
            let right = Right::Annotators(answers.clone());
            assert_eq!(score(answer, &right, Scorer::Vqa), value, "{answer}");
            assert_eq!(score(answer, &right, Scorer::TextVqa), value, "{answer}");
        }
        // Where all say the same, VQA's code compares the replies as they are.
        let nokia = Right::Annotators(annotators(&[(10, "nokia")]));
        assert_eq!(Scorer::ALL.map(|scorer| score("Nokia.", &nokia, scorer)), [0.0, 1.0]);
        assert_eq!(Scorer::ALL.map(|scorer| score("The answer is nokia", &nokia, scorer)), [0.0, 0.0]);
    }

    fn accepted(answer: &str, answers: &[&str]) -> f64 {
        score(answer, &Right::Accepted(answers.iter().map(|answer| (*answer).to_owned()).collect()), Scorer::Vqa)
    }

    #[test]
    fn accepted_answers_are_each_right_however_many() {
        for answers in [vec!["grey", "gray"], ["grey", "gray"].into_iter().cycle().take(10).collect()] {
            assert_eq!(accepted("Gray.", &answers), 1.0);
            assert_eq!(accepted("the grey", &answers), 1.0);
            assert_eq!(accepted("green", &answers), 0.0);
        }
        let spellings = ["9", "9 am", "9am", "9:00", "9:00 am", "9 a.m.", "nine am", "09:00", "nine", "at nine"];
        assert!(spellings.iter().all(|spelling| accepted(spelling, &spellings) == 1.0));
        assert_eq!(accepted("red-circle", &["red circle"]), 1.0);
        assert_eq!(accepted("two", &["2"]), 1.0);
    }

    #[test]
    fn an_accepted_answer_keeps_its_sign_and_its_letter() {
        assert_eq!(accepted("5", &["-5"]), 0.0);
        assert_eq!(accepted("-5", &["-5"]), 1.0);
        for said in ["A", "a", "(A)", "A)", "a.", "A.", "[a]", " A ", "\"A\""] {
            assert_eq!((accepted(said, &["A"]), accepted("A", &[said])), (1.0, 1.0), "{said}");
            let other = said.replace(['A', 'a'], "B");
            assert_eq!((accepted(&other, &["B"]), accepted(said, &["B"]), accepted(&other, &["A"])), (1.0, 0.0, 0.0));
        }
        assert_eq!(accepted("the", &["A"]), 0.0);
        assert_eq!(accepted("vitamin", &["vitamin A"]), 0.0);
        assert_eq!(accepted("", &["A"]), 0.0);
        assert_eq!(accepted("", &["0"]), 0.0);
        assert_eq!(accepted("a dog", &["the dog"]), 1.0);
    }

    #[test]
    fn an_answer_is_found_in_a_sentence_that_announces_it_where_that_is_asked_for() {
        assert_eq!(Extract::None.answer(" The answer is red.\n"), "The answer is red.");
        for (text, answer) in [
            ("red", "red"),
            (" Red. ", "Red"),
            ("The answer is red.", "red"),
            ("I count three circles.\nAnswer: 3\nThat is all.", "3"),
            ("The final answer is: \"blue\"", "blue"),
            ("The answer is", "The answer is"),
            ("a red circle\nnear the edge", "a red circle\nnear the edge"),
            ("3.5", "3.5"),
            ("", ""),
        ] {
            assert_eq!(Extract::FinalAnswer.answer(text), answer, "{text}");
        }
    }
}
