//! The summary of a training: its loss from beginning to end, and what looks wrong.

use super::set::Set;
use crate::train::log::{Line, Preference};
use stic_engine::diagnostic::{counted, rounded};
use stic_engine::node::{Block, Summary};

/// The share of the largest gradient below which a gradient is negligible.
const VANISHED: f64 = 1e-9;

/// How many points a curve has.
const POINTS: usize = 10;

/// The summary of a training of `examples` examples of `set`; `bad` items were left out.
pub(super) fn summary(log: &[Line], set: &Set, examples: usize, bad: usize) -> Summary {
    let taken: Vec<&Line> = log.iter().filter(|line| !line.skipped).collect();
    let loss: Vec<f64> = taken.iter().map(|line| line.loss).collect();
    let pairs: Vec<Preference> = taken.iter().filter_map(|line| line.preference).collect();
    let series = |value: fn(&Preference) -> f64| pairs.iter().map(value).collect::<Vec<_>>();
    let tokens: u64 = log.iter().map(|line| line.tokens).sum();
    let seconds: f64 = log.iter().map(|line| line.seconds).sum();
    let Some([first, last]) = ends(&loss) else { return Summary::default() };
    let mut line =
        format!("{} on {}: loss {first:.3} → {last:.3}", counted(log.len(), "step"), counted(examples, "example"));
    let curve = |name: &str, values: &[f64]| Block::Curve { name: name.to_owned(), values: means(values, POINTS) };
    let mut blocks = vec![curve("loss", &loss)];
    for (name, values) in [("margin", series(|pair| pair.margin)), ("accuracy", series(|pair| pair.accuracy))] {
        if let Some([first, last]) = ends(&values).map(|ends| ends.map(|value| rounded(value, 2))) {
            line += &format!(", {name} {first:.2} → {last:.2}");
            blocks.push(curve(name, &values));
        }
    }
    line += &format!(", {:.0} tokens/s", tokens as f64 / seconds.max(1e-9));
    if bad > 0 {
        line += &format!("; {bad} left out that cannot be trained on");
    }

    let mut warnings = Vec::new();
    if taken.iter().all(|line| line.learning_rate == 0.0) {
        warnings.push(format!(
            "no step had a learning rate above 0, and nothing was learned: {} warm-up; train for more steps, or set \
             `warmup_ratio = 0`",
            if taken.len() == 1 { "the only step is" } else { "all steps are" }
        ));
    }
    // Of DPO's loss the preference term alone: the regularizer varies with the responses of each batch.
    let preferred = series(|pair| pair.dpo);
    let (what, minimized) =
        if preferred.is_empty() { ("loss", &loss) } else { ("DPO loss (without the regularizer)", &preferred) };
    if let Some([first, last]) = ends(minimized).filter(|[first, last]| minimized.len() > 1 && last >= first) {
        let (equal, all) = (set.equal, examples);
        let rate = "`learning_rate` may be too high, or too low for so few steps";
        let cause = match equal {
            0 => rate.to_owned(),
            _ if equal >= all => "the responses of every pair are equal".to_owned(),
            _ => format!("{equal} of {all} pairs have equal responses, from which nothing is learned, and {rate}"),
        };
        warnings.push(format!(
            "the {what} did not fall: {first:.4} over the first steps, {last:.4} over the last ones; {cause}"
        ));
    }
    // When the factors have diverged, the model answers everything alike and learns nothing more, regardless of its
    // loss.
    let norms: Vec<f64> = taken.iter().map(|line| line.gradient_norm).collect();
    let largest = norms.iter().copied().fold(0.0, f64::max);
    if let Some([_, last]) = ends(&norms).filter(|[_, last]| *last <= VANISHED * largest) {
        let last = if last == 0.0 { "0".to_owned() } else { format!("{last:.1e}") };
        warnings.push(format!(
            "the gradient vanished: its norm was {largest:.3} at most and is {last} over the last steps; `learning_rate` \
             may be too high"
        ));
    }
    let skipped = log.len() - taken.len();
    if skipped > 0 {
        let scale = log.last().and_then(|line| line.loss_scale).unwrap_or(1.0);
        line += &format!("; {skipped} skipped, loss scale {scale}");
        // A few are what it takes to find the scale.
        if skipped > log.len() / 10 {
            let was = if skipped == 1 { "was" } else { "were" };
            warnings.push(format!(
                "{skipped} of {} {was} skipped, whose gradients overflowed f16: compute in another `dtype`, or train for \
                 longer",
                counted(log.len(), "step")
            ));
        }
    }
    warnings.extend(set.emptiness());
    Summary { line, blocks, warnings, ..Summary::default() }
}

/// The mean of each of at most `points` equal spans of `values`, of three values at least unless that leaves one span.
fn means(values: &[f64], points: usize) -> Vec<f64> {
    let points = points.min((values.len() / 3).max(2)).min(values.len());
    (0..points)
        .map(|point| {
            let span = &values[point * values.len() / points..(point + 1) * values.len() / points];
            span.iter().sum::<f64>() / span.len() as f64
        })
        .collect()
}

/// The first and the last point of the curve of `values`.
fn ends(values: &[f64]) -> Option<[f64; 2]> {
    let curve = means(values, POINTS);
    Some([*curve.first()?, *curve.last()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_all_values_once() {
        assert_eq!(means(&[1.0, 3.0, 5.0, 7.0, 9.0], 2), [2.0, 7.0]);
        assert_eq!(means(&[1.0, 2.0], 8), [1.0, 2.0]);
        assert_eq!(means(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 8), [2.0, 5.0]);
        assert!(means(&[], 8).is_empty());
    }

    #[test]
    fn the_loss_of_the_done_line_is_that_of_the_curve_s_ends() {
        assert_eq!(ends(&[]), None);
        assert_eq!(ends(&[2.0]), Some([2.0, 2.0]));
        assert_eq!(ends(&[2.0, 4.0, 6.0]), Some([2.0, 5.0]));
        assert_eq!(ends(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), Some([2.0, 5.5]));
        let hundred: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!(ends(&hundred), Some([4.5, 94.5]));
    }

    #[test]
    fn skipped_steps_and_empty_answers_are_counted_and_warned_of() {
        let line = |step: usize, skipped: bool| Line {
            step,
            loss: if skipped { f64::NAN } else { 4.0 / step as f64 },
            learning_rate: 0.1,
            gradient_norm: 1.0,
            loss_scale: Some(512.0),
            skipped,
            tokens: 10,
            seconds: 1.0,
            ..Line::default()
        };
        let mut set = Set::default();
        ["a", " ", "b", ""].iter().for_each(|answer| set.wanted(answer));
        let log = [line(1, true), line(2, false), line(3, true), line(4, false)];
        let summary = summary(&log, &set, 0, 0);
        assert!(summary.line.starts_with("4 steps on 0 examples: loss 2.000 → 1.000, "), "{}", summary.line);
        assert!(summary.line.ends_with("; 2 skipped, loss scale 512"), "{}", summary.line);
        assert_eq!(
            summary.warnings,
            [
                "2 of 4 steps were skipped, whose gradients overflowed f16: compute in another `dtype`, or train for longer",
                "2 of 4 answers to be learnt are empty",
            ]
        );
    }
}
