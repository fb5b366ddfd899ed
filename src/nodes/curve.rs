//! A training's course in a few numbers and bars, for people at a terminal.

use crate::diagnostic::rounded;

/// The mean of each of at most `points` equal spans of `values`.
pub fn curve(values: &[f64], points: usize) -> Vec<f64> {
    let points = points.min(values.len());
    (0..points)
        .map(|point| {
            let span = &values[point * values.len() / points..(point + 1) * values.len() / points];
            span.iter().sum::<f64>() / span.len() as f64
        })
        .collect()
}

/// A bar for each of `values`, the lowest at the bottom and the highest at the top.
pub fn bars(values: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let height = |value: f64| if high > low { ((value - low) / (high - low) * 7.0).round() as usize } else { 0 };
    values.iter().map(|value| BARS[height(*value)]).collect()
}

/// `name  ▁▃█  0.00 0.41 1.32`: the course of `values` in at most `points` spans.
pub fn row(name: &str, values: &[f64], points: usize) -> String {
    let means = curve(values, points);
    let numbers: Vec<String> = means.iter().map(|mean| format!("{:.2}", rounded(*mean, 2))).collect();
    format!("{name:<8} {}  {}", bars(&means), numbers.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_all_values_once() {
        assert_eq!(curve(&[1.0, 3.0, 5.0, 7.0, 9.0], 2), [2.0, 7.0]);
        assert_eq!(curve(&[1.0, 2.0], 8), [1.0, 2.0]);
        assert!(curve(&[], 8).is_empty());
    }

    #[test]
    fn a_growing_margin_is_seen_to_grow() {
        assert_eq!(row("margin", &[0.0, 0.5, 1.0, 2.0], 4), "margin   ▁▃▅█  0.00 0.50 1.00 2.00");
    }

    #[test]
    fn equal_values_are_a_flat_line() {
        assert_eq!(bars(&[0.5, 0.5]), "▁▁");
    }
}
