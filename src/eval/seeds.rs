//! Means over seeds: the same measured with other random draws.

/// The mean of `values`, and the half-width of its 95 % confidence interval (Student's t; none of a single value).
/// `None` without values.
pub fn mean(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let count = values.len();
    let mean = values.iter().sum::<f64>() / count as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let interval = (count > 1).then(|| quantile(count - 1) * (squares / (count - 1) as f64 / count as f64).sqrt());
    (count > 0).then_some((mean, interval))
}

/// The 0.975 quantile of Student's t with so many degrees of freedom: the first from a table, the rest by the expansion
/// around the normal distribution (Abramowitz and Stegun, 26.7.5), whose error is below 0.001 there.
fn quantile(degrees: usize) -> f64 {
    const FIRST: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    if let Some(known) = FIRST.get(degrees - 1) {
        return *known;
    }
    let (z, n) = (1.959_964f64, degrees as f64);
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + first / n + second / n.powi(2) + third / n.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_mean_is_student_s() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[3.0]), Some((3.0, None)));
        // 2, 4, 6: mean 4, standard deviation 2, 4.303 · 2 / √3.
        let (middle, half) = mean(&[2.0, 4.0, 6.0]).unwrap();
        assert!((middle - 4.0).abs() < 1e-12 && (half.unwrap() - 4.9687).abs() < 1e-3);
        assert_eq!(mean(&[1.0, 1.0]), Some((1.0, Some(0.0))));
    }

    #[test]
    fn quantiles_go_over_into_those_of_the_normal_distribution() {
        // From a table of the distribution.
        for (degrees, expected) in [(1, 12.706), (10, 2.228), (11, 2.201), (20, 2.086), (30, 2.042), (120, 1.980)] {
            assert!((quantile(degrees) - expected).abs() < 1.5e-3, "{degrees}: {}", quantile(degrees));
        }
    }
}
