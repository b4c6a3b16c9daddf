//! `route`: the experts that each token goes to, and their weights.
//!
//! - formula: `l = router * x + bias`; scores `s = softmax(l)`, `sigmoid(l)` or `l`; the `top_k` experts with the
//!   greatest `s + correction` are chosen, where there are groups among those of the groups whose `best` greatest have
//!   the greatest sums; their weights are `s`, or where `s = l` the softmax of the chosen; they are divided by their
//!   sum and 1e-20 where the router normalises, and multiplied by `scale`
//! - shapes: `x`: `[tokens, hidden]`; `router`: `[experts, hidden]`; `correction`: `[experts]`; experts and weights:
//!   `[tokens, top_k]`
//! - dtype: `x` f32 or bf16; the router's weight is best f32 ([`Linear::wide`]): a rounded score may choose another
//!   expert; all that follows is f32
//! - memory traffic: `x` and the router's weight as `linear`; scores stay in cache
//! - numerics: sums over experts in the order of experts, over chosen ones from the greatest on; of equal scores that
//!   of the lower index comes first (`PyTorch` has no rule: its order of equal values is what its sort leaves); NaN is
//!   above all numbers
//! - source: Shazeer et al. 2017 (experts); Fedus et al. 2022 (a softmax first); `DeepSeek`-AI 2024 (sigmoid, groups,
//!   correction without a loss)

use candle_core::{DType, Tensor};

use super::linear::Linear;
use super::operand::Operand;
use super::routes::Routes;
use crate::error::KernelError;

pub(crate) const OP: &str = "route";

/// Keeps a sum of weights that are all zero from being divided by, as in `DeepSeek` V3.
pub(crate) const SUM_MIN: f32 = 1e-20;

/// The most groups, and the most scores of a group that are summed: several times what models have.
pub(crate) const GROUPS_MAX: usize = 64;
pub(crate) const BEST_MAX: usize = 8;

/// Chooses experts for tokens.
#[derive(Debug, Clone)]
pub struct Router {
    /// `[experts, hidden]`, with its bias where it has one, and no activation.
    pub linear: Linear,
    /// Experts of a token.
    pub top_k: usize,
    /// How scores are made of the layer's results.
    pub scoring: Scoring,
    /// `[experts]`, f32: added to scores for the choice alone.
    pub correction: Option<Tensor>,
    /// Experts are chosen among those of some groups.
    pub groups: Option<Groups>,
    /// Whether a token's weights are divided by their sum.
    pub normalizes: bool,
    /// The factor of all weights, above zero.
    pub scale: f32,
}

/// How scores of experts are made of the router's results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scoring {
    /// The softmax over all experts.
    Softmax,
    /// The layer's results, and weights are the softmax over the chosen ones.
    SoftmaxOfChosen,
    /// The sigmoid of each result.
    Sigmoid,
}

/// Groups of experts that follow each other, of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// How many there are.
    pub count: usize,
    /// How many of them experts are chosen from.
    pub kept: usize,
    /// How many of a group's greatest scores are summed to compare groups.
    pub best: usize,
}

impl Router {
    /// How many experts there are.
    pub fn experts(&self) -> usize {
        self.linear.outputs()
    }

    /// Checks the parameters and `x`; how many tokens it has.
    pub(crate) fn check(&self, x: &Tensor) -> Result<usize, KernelError> {
        let Self { top_k, groups, scale, .. } = *self;
        let experts = self.experts();
        let wrong = |operand, actual: &[usize], expected| {
            Err(KernelError::Shape { op: OP, operand, actual: actual.to_vec(), expected })
        };
        if top_k == 0 || top_k > experts {
            return wrong("top_k", &[top_k], format!("1 to {experts}, as many as experts"));
        }
        if let Some(Groups { count, kept, best }) = groups {
            let size = experts.checked_div(count).filter(|size| size * count == experts);
            let fits =
                |size: &usize| count <= GROUPS_MAX && (1..=BEST_MAX.min(*size)).contains(&best);
            let Some(size) = size.filter(fits) else {
                let expected = format!(
                    "up to {GROUPS_MAX} groups that divide {experts} experts, and the best 1 to {BEST_MAX} of one"
                );
                return wrong("groups", &[count, best], expected);
            };
            if !(1..=count).contains(&kept) || kept * size < top_k {
                let expected =
                    format!("at most {count} groups, of {size} experts, with the {top_k} chosen");
                return wrong("groups", &[kept], expected);
            }
        }
        if let Some(correction) = &self.correction {
            let operand = Operand { op: OP, name: "correction", tensor: correction };
            operand.expect(&[experts], DType::F32)?;
        }
        if !(scale.is_finite() && scale > 0.0) {
            return Err(KernelError::Factor { op: OP, name: "scale", value: scale });
        }
        let tokens = x.dims().first().copied().unwrap_or_default();
        if tokens.checked_mul(top_k).is_none_or(|rows| u32::try_from(rows).is_err()) {
            return wrong("x", x.dims(), format!("at most {} rows of experts", u32::MAX));
        }
        self.linear.check_f32(x, tokens.saturating_mul(experts))?;
        Ok(tokens)
    }

    /// The routes of tokens whose layer's results are `logits`, `[tokens, experts]`, in float64.
    #[cfg(test)]
    pub(crate) fn reference(&self, logits: &[f64]) -> (Vec<u32>, Vec<f64>) {
        let correction = self.correction.as_ref().map(super::operand::doubles);
        let mut experts = Vec::new();
        let mut weights = Vec::new();
        for logits in logits.chunks_exact(self.experts()) {
            let scores: Vec<f64> = match self.scoring {
                Scoring::Softmax => softmax(logits),
                Scoring::SoftmaxOfChosen => logits.to_vec(),
                Scoring::Sigmoid => logits.iter().map(|l| 1.0 / (1.0 + (-l).exp())).collect(),
            };
            let mut choice = scores.clone();
            if let Some(correction) = &correction {
                choice.iter_mut().zip(correction).for_each(|(c, more)| *c += more);
            }
            if let Some(Groups { count, kept, best }) = self.groups {
                let size = choice.len() / count;
                let sum = |group: &[f64]| {
                    order(group)[..best].iter().map(|&at| group[at as usize]).sum::<f64>()
                };
                let sums: Vec<f64> = choice.chunks_exact(size).map(sum).collect();
                for &group in &order(&sums)[kept..] {
                    choice[group as usize * size..][..size].fill(f64::NEG_INFINITY);
                }
            }
            let chosen = order(&choice)[..self.top_k].to_vec();
            let mut these: Vec<f64> = chosen.iter().map(|&at| scores[at as usize]).collect();
            if self.scoring == Scoring::SoftmaxOfChosen {
                these = softmax(&these);
            }
            let sum = if self.normalizes { these.iter().sum::<f64>() + 1e-20 } else { 1.0 };
            weights.extend(these.iter().map(|weight| weight / sum * f64::from(self.scale)));
            experts.extend(chosen);
        }
        (experts, weights)
    }
}

/// Indices from the greatest value on.
#[cfg(test)]
fn order(values: &[f64]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..values.len() as u32).collect();
    order.sort_by(|&a, &b| values[b as usize].total_cmp(&values[a as usize]));
    order
}

#[cfg(test)]
fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| (logit - max).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// The tensors of one call.
pub(crate) struct Operands<'a> {
    /// `[tokens, hidden]`
    pub(crate) x: &'a Tensor,
    pub(crate) tokens: usize,
    /// Written.
    pub(crate) routes: &'a mut Routes,
}
