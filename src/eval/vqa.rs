//! Short answers: what a text answers, and whether that is right.
//!
//! Texts are normalised as the evaluation server of VQA and TextVQA does it (lower case, no punctuation, no articles,
//! number words as digits, contractions spelled alike). With ten answers, those of VQA's ten annotators, the score is
//! VQA's soft accuracy (<https://visualqa.org/evaluation.html>); with fewer it is 1 for a text equal to one of them.
//! This module does not know where answers come from.

use std::collections::HashMap;
use std::sync::LazyLock;

/// How many answers make a question one with annotators.
pub const ANNOTATORS: usize = 10;

/// What `text` answers: what follows the last `answer is` or `answer:` in it, else the whole text; trimmed, with
/// neither quotation marks around it nor a full stop after it.
pub fn extract(text: &str) -> &str {
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

/// The score of `answer` (see [`extract`]) against the right `answers`: 0 … 1.
pub fn score(answer: &str, answers: &[String]) -> f64 {
    if answers.len() == ANNOTATORS {
        return soft_accuracy(&normalise(answer), answers);
    }
    let given = comparable(answer);
    f64::from(u8::from(answers.iter().any(|right| comparable(right) == given)))
}

/// VQA's soft accuracy of a normalised answer. Each of the ten annotators in turn is left out, and the answer is worth
/// min(1, agreeing others / 3); the mean of that is 0, 0.3, 0.6, 0.9 and 1 for 0, 1, 2, 3 and more who gave it.
fn soft_accuracy(answer: &str, answers: &[String]) -> f64 {
    let agreeing = answers.iter().filter(|given| normalise(given) == answer).count();
    let others = |agreeing: usize| (agreeing as f64 / 3.0).min(1.0);
    let left_out = |count: usize| if count == 0 { 0.0 } else { count as f64 * others(count - 1) };
    // Rounded to twelve places, so that three who agree are worth 0.9 and not its neighbour.
    let mean = (left_out(agreeing) + (ANNOTATORS - agreeing) as f64 * others(agreeing)) / ANNOTATORS as f64;
    if agreeing == 0 { 0.0 } else { (mean * 1e12).round() / 1e12 }
}

/// [`normalise`] where it can tell answers apart. It drops a minus sign and turns `A` into nothing; with one right
/// answer that would make `5` out of `-5` and let `the` pass for `A`.
fn comparable(answer: &str) -> String {
    let trimmed = answer.trim();
    let normal = normalise(trimmed);
    let negative = trimmed.strip_prefix(['-', '−']).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    match (normal.is_empty(), negative) {
        (true, _) => trimmed.to_lowercase(),
        (_, true) => format!("-{}", normal.trim_start_matches('−')),
        _ => normal,
    }
}

/// The normal form of an answer, as VQA's evaluation server makes it. Two of its habits are kept, since scores are
/// compared: a full stop goes unless a digit follows it, and only the first 32 of them do.
pub fn normalise(answer: &str) -> String {
    let text = answer.to_lowercase().replace([',', '?'], "").replace("'s", " 's");
    let text = text.trim().replace(['\n', '\t'], " ");
    let text = without_periods(&without_punctuation(text.trim()));
    text.to_lowercase()
        .split_whitespace()
        .map(|word| NUMBERS.iter().find(|(name, _)| *name == word).map_or(word, |(_, digit)| digit))
        .filter(|word| !matches!(*word, "a" | "an" | "the"))
        .map(|word| CONTRACTIONS.get(word).copied().unwrap_or(word))
        .collect::<Vec<_>>()
        .join(" ")
}

/// A mark beside a blank goes; one between letters becomes a blank. The text as it was decides.
fn without_punctuation(text: &str) -> String {
    let mut result = text.to_owned();
    for mark in r#";/[]"{}()=+\_-><@`,?!"#.chars() {
        let beside_blank = text.contains(&format!("{mark} ")) || text.contains(&format!(" {mark}"));
        result = result.replace(mark, if beside_blank { "" } else { " " });
    }
    result
}

fn without_periods(text: &str) -> String {
    let mut dropped = 0;
    let mut result = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        if character == '.' && dropped < 32 && !rest.peek().is_some_and(|next| next.is_numeric()) {
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

/// The server's table of contractions, one a line: as written without an apostrophe or with one in the wrong place, and
/// as it should be. Some entries cannot be reached after the steps before; they are the server's.
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
    fn answers_are_normalised_as_the_evaluation_server_does() {
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
            assert_eq!(normalise(answer), normal, "{answer}");
        }
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
            assert_eq!(score(answer, answers), value, "{answer}");
        }
    }

    #[test]
    fn fewer_answers_are_each_right() {
        let answers = annotators(&[(1, "grey"), (1, "gray")]);
        assert_eq!(score("Gray.", &answers), 1.0);
        assert_eq!(score("the grey", &answers), 1.0);
        assert_eq!(score("green", &answers), 0.0);
        assert_eq!(score("red-circle", &annotators(&[(1, "red circle")])), 1.0);
        assert_eq!(score("two", &annotators(&[(1, "2")])), 1.0);
    }

    #[test]
    fn one_right_answer_keeps_its_sign_and_its_letter() {
        assert_eq!(score("5", &annotators(&[(1, "-5")])), 0.0);
        assert_eq!(score("-5", &annotators(&[(1, "-5")])), 1.0);
        assert_eq!(score("the", &annotators(&[(1, "A")])), 0.0);
        assert_eq!(score("a", &annotators(&[(1, "A")])), 1.0);
        assert_eq!(score("", &annotators(&[(1, "0")])), 0.0);
    }

    #[test]
    fn an_answer_is_found_in_a_sentence_that_announces_it() {
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
            assert_eq!(extract(text), answer, "{text}");
        }
    }
}
