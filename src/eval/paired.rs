//! Paired differences between two models on the same items. They are more precise than the models' own intervals,
//! because items that are hard for one model tend to be hard for the other.
//!
//! Only items that both answered count. Pictures are resampled for both at once ([`bootstrap`](super::bootstrap)).

use std::collections::BTreeMap;

use super::bootstrap::{Estimate, Statistic, estimate_difference};
use super::captions::Counts;
use super::suite::Benchmark;
use stic_engine::digest::Digest;

/// A scored response.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Marked {
    /// The digest of its picture.
    pub picture: Digest,
    /// Its score, 0 … 1.
    pub score: f64,
    /// Its claims.
    pub counts: Counts,
}

/// The difference between two models.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Number of compared items.
    pub items: usize,
    /// Number of their pictures.
    pub pictures: usize,
    /// By metric: `one` minus `other`; `None` if undefined.
    pub metrics: Vec<(&'static str, Option<Estimate>)>,
}

/// Sums over a picture: score, found, claimed and present of each model, and the number of items.
type Sums = [f64; 9];

/// The difference of a metric, from the sums of both models.
const ACCURACY: [(&str, Statistic<9>); 1] = [("accuracy", |s| s[0] / s[8] - s[4] / s[8])];
const CAPTIONS: [(&str, Statistic<9>); 4] = [
    ("recall", |s| s[1] / s[3] - s[5] / s[7]),
    ("precision", |s| s[1] / s[2] - s[5] / s[6]),
    ("f1", |s| 2.0 * s[1] / (s[2] + s[3]) - 2.0 * s[5] / (s[6] + s[7])),
    ("hallucination", |s| (s[2] - s[1]) / s[2] - (s[6] - s[5]) / s[6]),
];

/// `one` minus `other`, over the items that both have, by id.
pub fn difference<Id: Ord>(
    benchmark: Benchmark,
    one: &BTreeMap<Id, Marked>,
    other: &BTreeMap<Id, Marked>,
) -> Difference {
    let mut sums: BTreeMap<Digest, Sums> = BTreeMap::new();
    let mut items = 0;
    for (id, mine) in one {
        let Some(theirs) = other.get(id) else { continue };
        items += 1;
        let of = |marked: &Marked| {
            let Counts { found, claimed, present } = marked.counts;
            [marked.score, found, claimed, present]
        };
        let row: Vec<f64> = of(mine).into_iter().chain(of(theirs)).chain([1.0]).collect();
        let sum = sums.entry(mine.picture).or_default();
        std::iter::zip(sum, row).for_each(|(sum, value)| *sum += value);
    }
    let clusters: Vec<Sums> = sums.into_values().collect();
    let metrics = match benchmark {
        Benchmark::Vqa => ACCURACY.as_slice(),
        Benchmark::Captions => &CAPTIONS,
    };
    let statistics: Vec<Statistic<9>> = metrics.iter().map(|(_, statistic)| *statistic).collect();
    let estimates = estimate_difference(&clusters, &statistics);
    let metrics = std::iter::zip(metrics, estimates).map(|((name, _), estimate)| (*name, estimate)).collect();
    Difference { items, pictures: clusters.len(), metrics }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(scores: impl IntoIterator<Item = (u8, f64)>) -> BTreeMap<usize, Marked> {
        let mark = |(picture, score)| Marked { picture: Digest::of(&[picture]), score, counts: Counts::default() };
        scores.into_iter().map(mark).enumerate().collect()
    }

    fn accuracy(one: &BTreeMap<usize, Marked>, other: &BTreeMap<usize, Marked>) -> Estimate {
        difference(Benchmark::Vqa, one, other).metrics[0].1.unwrap()
    }

    #[test]
    fn what_both_have_in_common_does_not_widen_the_interval_of_their_difference() {
        let hard = |index: u8| f64::from(index % 2);
        let base = marked((0..100).map(|index| (index, hard(index))));
        // Right wherever the other is, and in ten more cases of a hundred.
        let better = marked((0..100).map(|index| (index, if index % 10 == 0 { 1.0 } else { hard(index) })));
        let Estimate { value, interval } = accuracy(&better, &base);
        let [low, high] = interval.unwrap();
        assert!((value - 0.1).abs() < 1e-12);
        // Of two independent samples it would be 0.1 ± 0.14; so it is 0.1 ± 1.96 √(0.1 · 0.9 / 100).
        assert!((low - 0.041).abs() < 0.012 && (high - 0.159).abs() < 0.012, "{low} {high}");
        let back = accuracy(&base, &better);
        assert!((back.value + value).abs() < 1e-12 && back.interval.unwrap()[1] < 0.0);
    }

    #[test]
    fn only_what_both_answered_counts() {
        let one = marked([(0, 1.0), (1, 1.0), (2, 0.0)]);
        let other: BTreeMap<usize, Marked> = marked([(0, 0.0), (1, 1.0)]);
        let found = difference(Benchmark::Vqa, &one, &other);
        assert_eq!((found.items, found.pictures), (2, 2));
        assert_eq!(found.metrics[0].1.unwrap().value, 0.5);
        assert_eq!(difference(Benchmark::Vqa, &one, &BTreeMap::new()).metrics, [("accuracy", None)]);
    }

    #[test]
    fn questions_about_one_picture_are_drawn_together() {
        let same = |factor: usize| {
            let rows = |better: bool| {
                (0..40).flat_map(move |picture| {
                    let score = f64::from(u8::from(picture % 4 == 0 || (better && picture % 4 == 1)));
                    std::iter::repeat_n((picture, score), factor)
                })
            };
            accuracy(&marked(rows(true)), &marked(rows(false)))
        };
        assert_eq!(same(1), same(5));
    }

    #[test]
    fn descriptions_are_compared_as_ratios_of_sums() {
        let counts = |found, claimed, present| Counts { found, claimed, present };
        let described = |rows: [Counts; 2]| -> BTreeMap<usize, Marked> {
            let mark = |(index, counts)| (index, Marked { picture: Digest::of(&[index as u8]), score: 0.0, counts });
            rows.into_iter().enumerate().map(mark).collect()
        };
        let one = described([counts(2.0, 2.0, 4.0), counts(2.0, 2.0, 4.0)]);
        let silent = described([counts(0.0, 0.0, 4.0), counts(0.0, 0.0, 4.0)]);
        let values = |other: &BTreeMap<usize, Marked>| -> Vec<Option<f64>> {
            let metrics = difference(Benchmark::Captions, &one, other).metrics;
            metrics.into_iter().map(|(_, estimate)| estimate.map(|estimate| estimate.value)).collect()
        };
        assert_eq!(values(&one), [Some(0.0); 4]);
        // Texts that claim nothing have no precision to compare with.
        assert_eq!(values(&silent), [Some(0.5), None, Some(4.0 / 6.0), None]);
    }
}
