//! Choosing the next token from logits, on the host: the most likely one, or one drawn with temperature, top-k and
//! top-p in transformers' order.
//!
//! What is drawn depends on the logits and on the item's own draws alone. Equally likely tokens are taken in the order
//! of their ids, and NaN logits are never chosen. This module does not know tensors or texts.

use stic_engine::draw::Draws;

/// How many of the most likely tokens are read from a device.
const SHORTLIST: usize = 64;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// How many of the most likely tokens are drawn from; 0 sets no limit. Tokens as likely as the last one stay.
    pub top_k: usize,
    /// The fewest most likely tokens that together have this probability are drawn from; 1 sets no limit.
    pub top_p: f64,
}

impl Sampling {
    /// The most likely token.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: 0, top_p: 1.0 };

    /// The next token out of `logits`, `[vocabulary]`, or `None` when no allowed logit is a number. `allowed` says
    /// which tokens may come.
    ///
    /// Draws one number when the temperature is above 0, and none otherwise.
    pub fn choose(&self, logits: &[f32], allowed: &[bool], draws: &mut Draws) -> Option<u32> {
        let candidates = || {
            let possible = |(id, logit): (usize, &f32)| {
                (allowed[id] && !logit.is_nan() && *logit > f32::NEG_INFINITY).then_some((id as u32, *logit))
            };
            logits.iter().enumerate().filter_map(possible)
        };
        if self.temperature == 0.0 {
            return Some(candidates().reduce(likelier)?.0);
        }
        self.draw(candidates().collect(), draws)
    }

    /// How many of the most likely tokens are worth reading from a device before all of them are; 0: only all.
    pub fn shortlist(&self, vocabulary: usize) -> usize {
        let enough = (1..SHORTLIST).contains(&self.top_k);
        if enough { SHORTLIST.min(vocabulary) } else { 0 }
    }

    /// Whether `likeliest`, the most likely ones of `vocabulary` tokens with their logits, the most likely first, are
    /// all that can be drawn.
    pub fn suffices(&self, likeliest: &[(u32, f32)], vocabulary: usize) -> bool {
        likeliest.len() >= vocabulary
            || matches!(likeliest, [.., last] if likeliest.len() > self.top_k && last.1 < likeliest[self.top_k - 1].1)
    }

    /// A token drawn from `candidates`, tokens with their logits: among them all that [`Sampling::top_k`] leaves.
    pub fn draw(&self, candidates: Vec<(u32, f32)>, draws: &mut Draws) -> Option<u32> {
        let best = candidates.iter().copied().reduce(likelier)?;
        let uniform = draws.uniform();
        let kept = self.most_likely(candidates);
        // Shifted so that the largest exponent is 0; an infinite logit is worth any finite one's difference.
        let weight = |logit: f32| {
            let shift = if logit == best.1 { 0.0 } else { f64::from(logit) - f64::from(best.1) };
            (shift / self.temperature).exp()
        };
        let weights: Vec<f64> = kept.iter().map(|(_, logit)| weight(*logit)).collect();
        let count = self.nucleus(&weights);
        let total: f64 = weights[..count].iter().sum();
        let mut left = uniform * total;
        for (weight, (id, _)) in weights[..count].iter().zip(&kept) {
            left -= weight;
            if left < 0.0 {
                return Some(*id);
            }
        }
        // Rounding may leave a rest: then it is the last one's.
        Some(kept[count - 1].0)
    }

    /// The `top_k` most likely of `candidates` and those as likely as the last of them, the most likely first.
    fn most_likely(&self, mut candidates: Vec<(u32, f32)>) -> Vec<(u32, f32)> {
        let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if self.top_k > 0 && self.top_k < candidates.len() {
            let (_, last, _) = candidates.select_nth_unstable_by(self.top_k - 1, order);
            let last = last.1;
            candidates.retain(|(_, logit)| *logit >= last);
        }
        candidates.sort_unstable_by(order);
        candidates
    }

    /// How many of `weights`, the largest first, it takes to reach `top_p` of their sum.
    fn nucleus(&self, weights: &[f64]) -> usize {
        if self.top_p >= 1.0 {
            return weights.len();
        }
        let wanted = self.top_p * weights.iter().sum::<f64>();
        let mut sum = 0.0;
        let reached = weights.iter().position(|weight| {
            sum += weight;
            sum >= wanted
        });
        reached.map_or(weights.len(), |last| last + 1)
    }
}

/// The likelier of two tokens, the first of equally likely ones.
fn likelier(first: (u32, f32), next: (u32, f32)) -> (u32, f32) {
    if next.1 > first.1 { next } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [bool; 5] = [true; 5];

    fn counts(sampling: Sampling, logits: &[f32]) -> Vec<usize> {
        let mut draws = Draws::new(1, "token", "test");
        let mut counts = vec![0; logits.len()];
        for _ in 0..20_000 {
            counts[sampling.choose(logits, &vec![true; logits.len()], &mut draws).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_most_likely_and_nothing_that_is_not_allowed() {
        let mut draws = Draws::new(1, "token", "");
        let mut choose = |logits: &[f32], allowed: &[bool]| Sampling::GREEDY.choose(logits, allowed, &mut draws);
        assert_eq!(choose(&[1.0, 3.0, 3.0, 2.0, 0.0], &ALL), Some(1));
        assert_eq!(choose(&[1.0, 3.0, 3.0, 2.0, 0.0], &[true, false, true, true, true]), Some(2));
        assert_eq!(choose(&[f32::NAN, f32::NEG_INFINITY, -3.0, f32::NAN, -4.0], &ALL), Some(2));
        assert_eq!(choose(&[f32::NAN; 5], &ALL), None);
        assert_eq!(choose(&[f32::NEG_INFINITY; 5], &ALL), None);
    }

    #[test]
    fn drawn_shares_are_those_of_the_softmax() {
        let sampling = Sampling { temperature: 0.5, top_k: 0, top_p: 1.0 };
        // With temperature 0.5 the odds are e² to 1.
        let counts = counts(sampling, &[1.0, 0.0]);
        let share = counts[0] as f64 / 20_000.0;
        let expected = (2f64).exp() / (1.0 + (2f64).exp());
        assert!((share - expected).abs() < 0.01, "{share} against {expected}");
    }

    #[test]
    fn top_k_keeps_ties_and_drops_the_rest() {
        let sampling = Sampling { temperature: 1.0, top_k: 2, top_p: 1.0 };
        let counts = counts(sampling, &[2.0, 1.0, 1.0, 0.5, 0.0]);
        assert!(counts[0] > 0 && counts[1] > 0 && counts[2] > 0);
        assert_eq!(counts[3..], [0, 0]);
    }

    #[test]
    fn top_p_keeps_the_fewest_that_reach_it() {
        // Probabilities 0.4, 0.3, 0.2, 0.1.
        let logits = [0.4f32.ln(), 0.3f32.ln(), 0.2f32.ln(), 0.1f32.ln()];
        let drawn = |top_p| counts(Sampling { temperature: 1.0, top_k: 0, top_p }, &logits);
        assert_eq!(drawn(0.65)[2..], [0, 0]);
        assert!(drawn(0.75)[2] > 0 && drawn(0.75)[3] == 0);
        assert_eq!(drawn(0.1)[1..], [0, 0, 0]);
    }

    #[test]
    fn a_shortlist_draws_what_all_tokens_would_and_says_when_it_is_too_short() {
        let sampling = |top_k| Sampling { temperature: 0.8, top_k, top_p: 0.9 };
        assert_eq!([0, 1, 50, 63, 64, 100].map(|top_k| sampling(top_k).shortlist(1000)), [0, 64, 64, 64, 0, 0]);
        assert_eq!(sampling(50).shortlist(23), 23);
        let mut values = Draws::new(3, "logits", "");
        for top_k in [1, 5, 50] {
            for coarse in [false, true] {
                let value = |_| if coarse { values.below(4) as f32 } else { values.normal() as f32 };
                let logits: Vec<f32> = (0..200).map(value).collect();
                let mut likeliest: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
                likeliest.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                likeliest.truncate(64);
                // A quarter of 200 tokens is as likely as the most likely one.
                let ties = logits.iter().filter(|logit| **logit >= likeliest[top_k - 1].1).count();
                assert_eq!(sampling(top_k).suffices(&likeliest, 200), ties < 64);
                if ties < 64 {
                    for subject in ["a", "b", "c"] {
                        let draws = || Draws::new(1, "token", subject);
                        let all = sampling(top_k).choose(&logits, &[true; 200], &mut draws());
                        assert_eq!(sampling(top_k).draw(likeliest.clone(), &mut draws()), all);
                    }
                }
            }
        }
        let few = [(1, 2.0), (0, 2.0)];
        assert!(sampling(50).suffices(&few, 2));
    }

    #[test]
    fn infinite_logits_win() {
        let sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 };
        assert_eq!(counts(sampling, &[0.0, f32::INFINITY, 5.0]), [0, 20_000, 0]);
    }
}
