//! 95 % intervals by the percentile bootstrap, over pictures.
//!
//! Questions about one picture are not independent, so whole pictures are drawn, not questions. Every statistic is a
//! function of sums over pictures; ratios such as F1 are therefore resampled as ratios of sums. This module does not
//! know what is summed.

use crate::draw::Draws;

/// How many times the pictures are drawn anew: enough that the ends of an interval move by less than a tenth of its
/// width from one sequence of draws to another.
pub const RESAMPLES: usize = 2000;

/// A statistic and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The statistic of all clusters.
    pub value: f64,
    /// Its 2.5 % and 97.5 % percentiles over the resamples; none with fewer than two clusters.
    pub interval: Option<[f64; 2]>,
}

/// A function of the sums of `N` columns.
pub type Statistic<const N: usize> = fn(&[f64; N]) -> f64;

/// The estimates of `statistics`, each a function of the summed columns of `clusters`; `None` for a statistic that is
/// not finite for all clusters (a ratio without a denominator). Resamples in which a statistic is not finite are left
/// out of its interval.
///
/// One sequence of resamples serves all statistics. It depends on the number of clusters alone, so two models that
/// were asked about the same pictures are resampled alike. Percentiles are interpolated linearly between order
/// statistics. See B. Efron, *Bootstrap methods: another look at the jackknife*, 1979.
///
/// # Shapes
/// - `clusters`: one row of `N` counts a picture
/// - returns: one estimate a statistic, in order
pub fn estimate<const N: usize>(clusters: &[[f64; N]], statistics: &[Statistic<N>]) -> Vec<Option<Estimate>> {
    let all: [f64; N] = clusters.iter().fold([0.0; N], add);
    let mut samples: Vec<Vec<f64>> = vec![Vec::with_capacity(RESAMPLES); statistics.len()];
    if clusters.len() > 1 {
        // The draws are no part of the experiment: their seed is fixed, not the pipeline's.
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
