//! Which experts each token goes to, by what weights, and the rows that this makes: what a router writes and experts
//! read.

use std::ops::Range;

use crate::error::KernelError;

/// The experts of each token of a step, `[tokens, top_k]`, with their weights. It is kept from step to step.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    top_k: usize,
    experts: Vec<u32>,
    weights: Vec<f32>,
    /// Scratch memory of a router, `[tokens, experts]`.
    pub(crate) logits: Vec<f32>,
    /// Where the rows of each expert begin, and where the last one's end: one more than there are experts.
    starts: Vec<usize>,
    /// The token of each row, the rows of an expert side by side, in the order of tokens.
    tokens: Vec<u32>,
    /// The row of each token's each expert, `[tokens, top_k]`.
    rows: Vec<u32>,
}

/// The parts of routes that a router writes.
pub(crate) struct RoutesMut<'a> {
    pub(crate) logits: &'a mut [f32],
    pub(crate) experts: &'a mut [u32],
    pub(crate) weights: &'a mut [f32],
}

impl Routes {
    /// Routes that are known otherwise: `chosen` and `weights` are `[tokens, top_k]`, with numbers below `experts`.
    pub fn new(
        experts: usize,
        top_k: usize,
        chosen: &[u32],
        weights: &[f32],
    ) -> Result<Self, KernelError> {
        let shape = |operand, actual, expected: String| {
            Err(KernelError::Shape { op: "routes", operand, actual: vec![actual], expected })
        };
        if top_k == 0 || !chosen.len().is_multiple_of(top_k) {
            return shape("experts", chosen.len(), format!("{top_k} for each token, one at least"));
        }
        if weights.len() != chosen.len() {
            return shape("weights", weights.len(), format!("{}, one an expert", chosen.len()));
        }
        if u32::try_from(chosen.len()).is_err() {
            return shape("experts", chosen.len(), format!("at most {}", u32::MAX));
        }
        if let Some(&value) = chosen.iter().find(|&&expert| expert as usize >= experts) {
            let value = value as usize;
            return Err(KernelError::OutsideTable {
                op: "routes",
                what: "expert",
                value,
                rows: experts,
            });
        }
        let mut routes = Self { top_k, ..Self::default() };
        routes.experts.extend_from_slice(chosen);
        routes.weights.extend_from_slice(weights);
        routes.sort(experts);
        Ok(routes)
    }

    /// Makes room for the routes of so many tokens.
    pub(crate) fn resize(&mut self, tokens: usize, experts: usize, top_k: usize) -> RoutesMut<'_> {
        self.top_k = top_k;
        // All of it is written: what it held before need not be cleared.
        self.logits.resize(tokens * experts, 0.0);
        self.experts.resize(tokens * top_k, 0);
        self.weights.resize(tokens * top_k, 0.0);
        RoutesMut {
            logits: &mut self.logits,
            experts: &mut self.experts,
            weights: &mut self.weights,
        }
    }

    /// Orders rows by expert, and the rows of an expert by token: a counting sort.
    pub(crate) fn sort(&mut self, experts: usize) {
        self.starts.clear();
        self.starts.resize(experts + 1, 0);
        for &expert in &self.experts {
            self.starts[expert as usize + 1] += 1;
        }
        for expert in 0..experts {
            self.starts[expert + 1] += self.starts[expert];
        }
        self.tokens.resize(self.experts.len(), 0);
        self.rows.resize(self.experts.len(), 0);
        // `starts[expert]` counts up to the end of the expert's rows, which is where the next one's begin.
        for (at, &expert) in self.experts.iter().enumerate() {
            let row = self.starts[expert as usize];
            self.starts[expert as usize] += 1;
            self.tokens[row] = (at / self.top_k) as u32;
            self.rows[at] = row as u32;
        }
        self.starts.rotate_right(1);
        self.starts[0] = 0;
    }

    /// Experts of a token.
    pub fn top_k(&self) -> usize {
        self.top_k
    }

    /// `[tokens, top_k]`; of a router the one with the greatest score first.
    pub fn experts(&self) -> &[u32] {
        &self.experts
    }

    /// `[tokens, top_k]`
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Rows of all experts together: `top_k` a token.
    pub fn rows(&self) -> usize {
        self.experts.len()
    }

    /// How many tokens there are.
    pub(crate) fn tokens(&self) -> usize {
        self.experts.len().checked_div(self.top_k).unwrap_or_default()
    }

    /// How many experts there are to go to.
    pub(crate) fn expert_count(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// The experts that have rows, with these.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let ranges = self.starts.windows(2).map(|ends| ends[0]..ends[1]);
        ranges.enumerate().filter(|(_, rows)| !rows.is_empty())
    }

    /// The token of each row.
    pub(crate) fn token_of_rows(&self) -> &[u32] {
        &self.tokens
    }

    /// The row of each token's each expert, `[tokens, top_k]`.
    pub(crate) fn rows_of_tokens(&self) -> &[u32] {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_lie_by_expert_and_within_one_by_token() {
        let routes = Routes::new(5, 2, &[3, 0, 0, 4, 3, 1], &[0.5; 6]).unwrap();
        let groups: Vec<_> = routes.groups().collect();
        assert_eq!(groups, [(0, 0..2), (1, 2..3), (3, 3..5), (4, 5..6)]);
        assert_eq!(routes.token_of_rows(), [0, 1, 2, 0, 2, 1]);
        assert_eq!(routes.rows_of_tokens(), [3, 0, 1, 5, 4, 2]);
        assert_eq!((routes.tokens(), routes.rows(), routes.expert_count()), (3, 6, 5));
    }

    #[test]
    fn routes_to_experts_that_are_not_there_are_refused() {
        let outside = Routes::new(4, 1, &[0, 4], &[1.0; 2]).unwrap_err();
        assert!(matches!(outside, KernelError::OutsideTable { value: 4, rows: 4, .. }));
        for (top_k, chosen, weights) in [(0, 0, 0), (2, 3, 3), (1, 2, 3)] {
            let refused = Routes::new(4, top_k, &vec![0; chosen], &vec![1.0; weights]);
            assert!(matches!(refused, Err(KernelError::Shape { op: "routes", .. })));
        }
        assert_eq!(Routes::new(4, 2, &[], &[]).unwrap().tokens(), 0);
    }
}
