//! A curve as bars and numbers in one line.

use stic_engine::diagnostic::rounded;

/// One bar per value, scaled from the lowest to the highest.
fn bars(values: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let height = |value: f64| if high > low { ((value - low) / (high - low) * 7.0).round() as usize } else { 0 };
    values.iter().map(|value| BARS[height(*value)]).collect()
}

/// `name  ▁▃█  0.00 0.41 1.32`.
pub fn row(name: &str, values: &[f64]) -> String {
    let numbers: Vec<String> = values.iter().map(|value| format!("{:.2}", rounded(*value, 2))).collect();
    format!("{name:<8} {}  {}", bars(values), numbers.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_growing_margin_is_seen_to_grow() {
        assert_eq!(row("margin", &[0.0, 0.5, 1.0, 2.0]), "margin   ▁▃▅█  0.00 0.50 1.00 2.00");
    }

    #[test]
    fn equal_values_are_a_flat_line() {
        assert_eq!(bars(&[0.5, 0.5]), "▁▁");
    }
}
