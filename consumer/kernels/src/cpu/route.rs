//! `route` on the processor: the router's layer, then each token by itself.
#![allow(unsafe_code)]

use std::f32::consts::LOG2_E;

use candle_core::Result;

use super::activation::sigmoid;
use super::block::Columns;
use super::element::Element;
use super::linear::linear_f32;
use super::math::{exp2, sum};
use super::parallel::{for_each, threads};
use super::scratch::sized;
use super::simd::{Isa, Target, dispatched};
use super::storage::borrow;
use crate::ops::route::{BEST_MAX, GROUPS_MAX, Groups, Operands, Router, SUM_MIN, Scoring};
use crate::ops::routes::RoutesMut;

/// Tokens of a task: fewer take less time than handing them over.
const TOKENS_PER_TASK: usize = 8;

pub(super) fn route(op: &Router, Operands { x, tokens, routes }: Operands<'_>) -> Result<()> {
    let experts = op.experts();
    let correction = op.correction.as_ref().map(borrow);
    let correction = correction.as_ref().map(|correction| correction.values()).transpose()?;
    let RoutesMut { logits, experts: chosen, weights } = routes.resize(tokens, experts, op.top_k);
    linear_f32(&op.linear, x, logits)?;
    let choice = Choice { op, correction, experts };
    let isa = Isa::best();
    let per_task = tokens.div_ceil(4 * threads()).max(TOKENS_PER_TASK);
    let logits = Columns::new(logits, experts);
    let chosen = Columns::new(chosen, op.top_k);
    let weights = Columns::new(weights, op.top_k);
    for_each(tokens.div_ceil(per_task), |task| {
        let rows = task * per_task..tokens.min((task + 1) * per_task);
        // SAFETY: each task has its own rows of each matrix.
        let [logits, weights] = unsafe { [logits.rows(rows.clone()), weights.rows(rows.clone())] };
        // SAFETY: as above.
        let chosen = unsafe { chosen.rows(rows) };
        choose_rows::<f32>(isa, choice, logits, chosen, weights);
    });
    routes.sort(experts);
    Ok(())
}

/// A router with its parameters borrowed.
#[derive(Clone, Copy)]
struct Choice<'a> {
    op: &'a Router,
    correction: Option<&'a [f32]>,
    experts: usize,
}

dispatched! {
    /// Routes of some tokens.
    fn choose_rows<E>(choice: Choice<'_>, logits: &mut [f32], chosen: &mut [u32], weights: &mut [f32]) = rows;
}

#[inline(always)]
fn rows<T: Target, E: Element>(
    choice: Choice<'_>,
    logits: &mut [f32],
    chosen: &mut [u32],
    weights: &mut [f32],
) {
    let top_k = choice.op.top_k;
    E::with_scratch(|scratch| {
        let ranks = sized(&mut scratch.floats, choice.experts);
        let sums = sized(&mut scratch.sums, choice.op.groups.map_or(0, |groups| groups.count));
        let rows = chosen.chunks_exact_mut(top_k).zip(weights.chunks_exact_mut(top_k));
        for (scores, (chosen, weights)) in logits.chunks_exact_mut(choice.experts).zip(rows) {
            score::<T>(choice.op.scoring, scores);
            ranks.copy_from_slice(scores);
            if let Some(correction) = choice.correction {
                for (rank, more) in ranks.iter_mut().zip(correction) {
                    *rank += more;
                }
            }
            if let Some(groups) = choice.op.groups {
                keep(groups, ranks, sums);
            }
            greatest(ranks, chosen, weights);
            for (weight, expert) in weights.iter_mut().zip(&*chosen) {
                *weight = scores[*expert as usize];
            }
            weigh::<T>(choice.op, weights);
        }
    });
}

/// Results of the router's layer to scores, in place.
#[inline(always)]
fn score<T: Target>(scoring: Scoring, scores: &mut [f32]) {
    match scoring {
        Scoring::SoftmaxOfChosen => {}
        Scoring::Softmax => softmax::<T>(scores),
        Scoring::Sigmoid => {
            for score in scores {
                *score = sigmoid::<T, f32>(*score);
            }
        }
    }
}

#[inline(always)]
fn softmax<T: Target>(values: &mut [f32]) {
    let max =
        values.iter().fold(f32::NEG_INFINITY, |max, &value| if value > max { value } else { max });
    for value in &mut *values {
        *value = exp2::<T, f32>((*value - max) * LOG2_E);
    }
    let sum = sum(values);
    for value in values {
        *value /= sum;
    }
}

/// Takes the experts of all but the best groups out of the choice.
#[inline(always)]
fn keep(Groups { count, kept, best }: Groups, ranks: &mut [f32], sums: &mut [f32]) {
    let size = ranks.len() / count;
    for (sum, group) in sums.iter_mut().zip(ranks.chunks_exact(size)) {
        let mut values = [0.0; BEST_MAX];
        greatest(group, &mut [0; BEST_MAX][..best], &mut values[..best]);
        *sum = values[..best].iter().sum();
    }
    let mut indices = [0; GROUPS_MAX];
    greatest(sums, &mut indices[..kept], &mut [0.0; GROUPS_MAX][..kept]);
    for (index, group) in ranks.chunks_exact_mut(size).enumerate() {
        if !indices[..kept].contains(&(index as u32)) {
            group.fill(f32::NEG_INFINITY);
        }
    }
}

/// The greatest values, with their indices, from the greatest on; of equal ones that of the lower index first.
#[inline(always)]
fn greatest(from: &[f32], indices: &mut [u32], values: &mut [f32]) {
    let last = values.len() - 1;
    let mut found = 0;
    for (index, &value) in from.iter().enumerate() {
        if found > last && !is_above(value, values[last]) {
            continue;
        }
        let mut at = found.min(last);
        while at > 0 && is_above(value, values[at - 1]) {
            values[at] = values[at - 1];
            indices[at] = indices[at - 1];
            at -= 1;
        }
        values[at] = value;
        indices[at] = index as u32;
        found += 1;
    }
}

#[inline(always)]
fn is_above(value: f32, other: f32) -> bool {
    value > other || (value.is_nan() && !other.is_nan())
}

/// The chosen experts' scores to their weights, in place.
#[inline(always)]
fn weigh<T: Target>(op: &Router, weights: &mut [f32]) {
    if op.scoring == Scoring::SoftmaxOfChosen {
        softmax::<T>(weights);
    }
    if op.normalizes {
        let sum = weights.iter().sum::<f32>() + SUM_MIN;
        for weight in &mut *weights {
            *weight /= sum;
        }
    }
    for weight in weights {
        *weight *= op.scale;
    }
}
