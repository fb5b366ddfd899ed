//! 95 % confidence intervals by the percentile bootstrap over pictures.
//!
//! Questions about one picture are not independent, so pictures are resampled, not questions. Every statistic is a
//! function of sums over pictures; ratios such as F1 are resampled as ratios of sums. If all pictures score 0, or all
//! score 1, resampling has no spread: such a share gets Wilson's interval with one trial per picture, and a difference
//! that is the same for all pictures is widened likewise.

use stic_engine::draw::Draws;

/// Number of resamples: enough that the bounds of an interval vary by less than a tenth of its width between seeds.
pub const RESAMPLES: usize = 2000;

/// A statistic and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The statistic of all clusters.
    pub value: f64,
    /// Its 2.5 % and 97.5 % percentiles over the resamples, or Wilson's interval; none for a single cluster that scores
    /// neither 0 nor 1.
    pub interval: Option<[f64; 2]>,
}

/// The 97.5 % quantile of the normal distribution.
const NORMAL: f64 = 1.959_963_984_540_054;

/// A function of the sums of `N` columns.
pub type Statistic<const N: usize> = fn(&[f64; N]) -> f64;

/// The estimates of `statistics`, each a function of the summed columns of `clusters`; `None` for a statistic that is
/// not finite for all clusters (a ratio without a denominator). Resamples in which a statistic is not finite are left
/// out of its interval.
///
/// All statistics share one sequence of resamples. It depends only on the number of clusters, so that models evaluated
/// on the same pictures are resampled alike. Percentiles are interpolated linearly between order statistics. See B.
/// Efron, *Bootstrap methods: another look at the jackknife*, 1979.
///
/// # Shapes
/// - `clusters`: one row of `N` sums per picture
/// - returns: one estimate per statistic, in order
pub fn estimate<const N: usize>(clusters: &[[f64; N]], statistics: &[Statistic<N>]) -> Vec<Option<Estimate>> {
    let widened = |(estimate, statistic): (Option<Estimate>, &Statistic<N>)| {
        let Estimate { value, interval } = estimate?;
        let flat = interval.is_none_or(|[low, high]| low == high);
        let end = value == 0.0 || value == 1.0;
        let interval = if flat && end { Some(wilson(value, trials(clusters, statistic))) } else { interval };
        Some(Estimate { value, interval })
    };
    resampled(clusters, statistics).into_iter().zip(statistics).map(widened).collect()
}

/// As [`estimate`], for differences of two shares, −1 … 1. One that is the same in all resamples is widened by the
/// upper Wilson bound of a share of pictures that would differ, none of which was seen.
///
/// # Shapes
/// See [`estimate`].
pub fn estimate_difference<const N: usize>(
    clusters: &[[f64; N]],
    statistics: &[Statistic<N>],
) -> Vec<Option<Estimate>> {
    let widened = |(estimate, statistic): (Option<Estimate>, &Statistic<N>)| {
        let Estimate { value, interval } = estimate?;
        let interval = interval.map(|[low, high]| {
            let unseen = if low == high { wilson(0.0, trials(clusters, statistic))[1] } else { 0.0 };
            [(low - unseen).max(-1.0), (high + unseen).min(1.0)]
        });
        Some(Estimate { value, interval })
    };
    resampled(clusters, statistics).into_iter().zip(statistics).map(widened).collect()
}

/// The number of clusters for which `statistic` is defined.
fn trials<const N: usize>(clusters: &[[f64; N]], statistic: &Statistic<N>) -> usize {
    clusters.iter().filter(|row| statistic(row).is_finite()).count()
}

/// Wilson's interval of a share of `trials`: E. B. Wilson, *Probable inference, the law of succession, and statistical
/// inference*, 1927, equation 6 without continuity correction.
fn wilson(share: f64, trials: usize) -> [f64; 2] {
    let (n, squared) = (trials as f64, NORMAL * NORMAL);
    let center = share + squared / (2.0 * n);
    let half = NORMAL * (share * (1.0 - share) / n + squared / (4.0 * n * n)).sqrt();
    let ends = [center - half, center + half].map(|end| (end / (1.0 + squared / n)).clamp(0.0, 1.0));
    // The interval contains the share despite rounding.
    [ends[0].min(share), ends[1].max(share)]
}

/// As [`estimate`], with the interval from resampling alone.
fn resampled<const N: usize>(clusters: &[[f64; N]], statistics: &[Statistic<N>]) -> Vec<Option<Estimate>> {
    let all: [f64; N] = clusters.iter().fold([0.0; N], add);
    let mut samples: Vec<Vec<f64>> = vec![Vec::with_capacity(RESAMPLES); statistics.len()];
    if clusters.len() > 1 {
        // A fixed seed, not the pipeline's: resampling is not part of the experiment.
        let mut draws = Draws::new(0, "bootstrap", "pictures");
        for _ in 0..RESAMPLES {
            let sums = (0..clusters.len()).map(|_| &clusters[draws.below(clusters.len())]).fold([0.0; N], add);
            for (values, statistic) in samples.iter_mut().zip(statistics) {
                values.push(statistic(&sums));
            }
        }
    }
    samples
        .into_iter()
        .zip(statistics)
        .map(|(mut values, statistic)| {
            let value = statistic(&all);
            values.retain(|value| value.is_finite());
            values.sort_by(f64::total_cmp);
            let interval = (!values.is_empty()).then(|| [percentile(&values, 0.025), percentile(&values, 0.975)]);
            value.is_finite().then_some(Estimate { value, interval })
        })
        .collect()
}

fn add<const N: usize>(mut sums: [f64; N], row: &[f64; N]) -> [f64; N] {
    for (sum, value) in sums.iter_mut().zip(row) {
        *sum += value;
    }
    sums
}

/// The `share`-quantile of `sorted`, which is not empty.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(clusters: &[[f64; 2]]) -> Estimate {
        estimate(clusters, &[|sums| sums[0] / sums[1]])[0].unwrap()
    }

    #[test]
    fn an_interval_of_a_share_is_as_wide_as_the_binomial_says() {
        let clusters: Vec<[f64; 2]> = (0..400).map(|index| [f64::from(u8::from(index % 4 != 0)), 1.0]).collect();
        let Estimate { value, interval } = mean(&clusters);
        let [low, high] = interval.unwrap();
        let half = 1.96 * (0.75f64 * 0.25 / 400.0).sqrt();
        assert_eq!(value, 0.75);
        assert!((low - (0.75 - half)).abs() < 0.006 && (high - (0.75 + half)).abs() < 0.006, "{low} {high}");
    }

    #[test]
    fn none_and_all_of_ten_get_the_interval_of_wilson() {
        let all = |share: f64, clusters: usize, questions: f64| mean(&vec![[share * questions, questions]; clusters]);
        let close = |estimate: Estimate, expected: [f64; 2]| {
            let interval = estimate.interval.unwrap();
            let near = std::iter::zip(interval, expected).all(|(end, expected)| (end - expected).abs() < 5e-5);
            assert!(near, "{interval:?} {expected:?}");
        };
        // z² / (n + z²)
        close(all(0.0, 10, 1.0), [0.0, 0.2775]);
        close(all(1.0, 10, 1.0), [0.7225, 1.0]);
        // Ten questions about two pictures are two trials.
        close(all(0.0, 2, 5.0), [0.0, 0.6576]);
        close(all(0.0, 1, 10.0), [0.0, 0.7935]);
        // Half of every picture: nothing varies between pictures, and that is no end of the scale.
        assert_eq!(all(0.5, 10, 2.0).interval, Some([0.5, 0.5]));
        // Pictures that the statistic says nothing about are no trials.
        let mut clusters = vec![[0.0, 0.0]; 90];
        clusters.extend([[0.0, 1.0]; 10]);
        close(mean(&clusters), [0.0, 0.2775]);
    }

    #[test]
    fn a_difference_that_no_picture_varies_is_not_certain() {
        let difference = |one: f64, other: f64| {
            let clusters = vec![[one, other, 1.0]; 10];
            estimate_difference(&clusters, &[|[one, other, count]| one / count - other / count])[0].unwrap()
        };
        let close = |found: Estimate, expected: [f64; 2]| {
            let interval = found.interval.unwrap();
            assert!(std::iter::zip(interval, expected).all(|(a, b)| (a - b).abs() < 5e-5), "{interval:?}");
        };
        close(difference(1.0, 1.0), [-0.2775, 0.2775]);
        close(difference(1.0, 0.0), [0.7225, 1.0]);
        close(difference(0.25, 0.5), [-0.5275, 0.0275]);
    }

    #[test]
    fn questions_about_one_picture_count_as_one_draw() {
        let single: Vec<[f64; 2]> = (0..100).map(|index| [f64::from(u8::from(index % 2 == 0)), 1.0]).collect();
        let fivefold: Vec<[f64; 2]> = single.iter().map(|[score, count]| [5.0 * score, 5.0 * count]).collect();
        assert_eq!(mean(&single), mean(&fivefold));
    }

    #[test]
    fn a_ratio_is_resampled_as_a_ratio_of_sums() {
        // Twice as many found as asked for in every picture, whatever their sizes: nothing varies.
        let clusters: Vec<[f64; 2]> = (1..20).map(|index| [2.0 * f64::from(index), f64::from(index)]).collect();
        assert_eq!(mean(&clusters), Estimate { value: 2.0, interval: Some([2.0, 2.0]) });
    }

    #[test]
    fn a_ratio_without_a_denominator_is_no_number() {
        let result = estimate(&[[0.0, 0.0], [0.0, 0.0]], &[|sums| sums[0] / sums[1]]);
        assert_eq!(result, [None]);
    }

    #[test]
    fn one_picture_has_no_interval() {
        assert_eq!(mean(&[[3.0, 4.0]]), Estimate { value: 0.75, interval: None });
    }

    #[test]
    fn percentiles_are_interpolated() {
        assert_eq!(percentile(&[0.0, 1.0, 2.0, 3.0, 4.0], 0.025), 0.1);
        assert_eq!(percentile(&[7.0], 0.975), 7.0);
    }
}
