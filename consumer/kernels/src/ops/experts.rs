//! `experts`: feed-forward layers of which each token takes a few, and the weighted sum of their results.
//!
//! - formula: `y[t] = sum over j of w[t, j] * down_e(gate(up_e(x[t])))`, `e` the `j`-th expert of token `t`; or that
//!   is added to what `y` was
//! - shapes: `x`, `y`: `[tokens, hidden]`; of each expert `up`: `[2 * inner, hidden]`, `down`: `[hidden, inner]`; rows,
//!   one for each token's each expert: `top_k * tokens`
//! - dtype: as `linear`, in any of its formats, which may differ from expert to expert; between the layers rows are
//!   rounded to the type of `x`
//! - memory traffic: the weights of the experts that are gone to, once; rows five times
//! - numerics: the sum in f32, in the order of the token's experts in its routes: a token's result does not depend on
//!   the rows beside, nor on where its experts' rows lie
//! - source: Shazeer et al. 2017; Gale et al. 2022 (grouped matrix products without padding)

use candle_core::Tensor;

use super::activation::Activation;
use super::clamped_gate::AnyGate;
use super::linear::Linear;
use super::operand::{Operand, share_no_memory};
use super::routes::Routes;
use crate::error::KernelError;

pub(crate) const OP: &str = "experts";

/// Feed-forward layers of one shape.
#[derive(Debug, Clone)]
pub struct Experts {
    /// Of each expert `[2 * inner, hidden]`: what is activated, then what it multiplies.
    pub(crate) up: Vec<Linear>,
    pub(crate) gate: AnyGate,
    /// Of each expert `[hidden, inner]`.
    pub(crate) down: Vec<Linear>,
}

/// Memory for rows, which a caller keeps from step to step. A step has [`Routes::rows`] of them.
#[derive(Debug, Clone, Copy)]
pub struct ExpertRows<'a> {
    /// `[rows, hidden]`
    pub states: &'a Tensor,
    /// `[rows, 2 * inner]`
    pub up: &'a Tensor,
    /// `[rows, inner]`
    pub gated: &'a Tensor,
}

/// The tensors of one call.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// `[tokens, hidden]`
    pub(crate) x: &'a Tensor,
    pub(crate) routes: &'a Routes,
    pub(crate) rows: ExpertRows<'a>,
    /// `[tokens, hidden]`; written.
    pub(crate) out: &'a Tensor,
    /// Whether sums begin at what `out` holds.
    pub(crate) onto: bool,
}

impl Experts {
    /// Experts of these layers, as many `up` as `down`, in the order of their numbers; all of one shape and number
    /// type, without an activation.
    pub fn new(up: Vec<Linear>, gate: AnyGate, down: Vec<Linear>) -> Result<Self, KernelError> {
        let wrong = |operand, actual: Vec<usize>, expected| {
            Err(KernelError::Shape { op: OP, operand, actual, expected })
        };
        let [Some(first), Some(last)] = [up.first(), down.first()] else {
            return wrong("up", vec![up.len()], "one expert at least".to_owned());
        };
        if up.len() != down.len() {
            return wrong("down", vec![down.len()], format!("{}, as many as up", up.len()));
        }
        let [hidden, inner] = [first.inputs(), last.inputs()];
        let fits = |layer: &Linear, outputs, inputs| {
            (layer.outputs(), layer.inputs(), layer.dtype) == (outputs, inputs, first.dtype)
                && layer.activation == Activation::None
        };
        for (operand, layers, outputs, inputs) in
            [("up", &up, 2 * inner, hidden), ("down", &down, hidden, inner)]
        {
            if let Some(other) = layers.iter().find(|layer| !fits(layer, outputs, inputs)) {
                let expected = format!("[{outputs}, {inputs}] in {:?}, as the first", first.dtype);
                return wrong(operand, vec![other.outputs(), other.inputs()], expected);
            }
        }
        Ok(Self { up, gate, down })
    }

    /// How many experts there are.
    pub fn count(&self) -> usize {
        self.up.len()
    }

    /// Values of a token.
    pub fn hidden(&self) -> usize {
        self.up[0].inputs()
    }

    /// Values of a row inside, after the gate.
    pub fn inner(&self) -> usize {
        self.down[0].inputs()
    }

    pub(crate) fn check(&self, operands: Operands<'_>) -> Result<(), KernelError> {
        let Operands { x, routes, rows, out, .. } = operands;
        let operand = Operand { op: OP, name: "x", tensor: x };
        let (tokens, hidden, dtype) = operand.matrix()?;
        if hidden != self.hidden() || dtype != self.up[0].dtype {
            return Err(operand.shape_error(format!("[tokens, {}] as the layers", self.hidden())));
        }
        if routes.tokens() != tokens || (routes.expert_count() != self.count() && tokens > 0) {
            return Err(KernelError::Shape {
                op: OP,
                operand: "routes",
                actual: vec![routes.tokens(), routes.expert_count()],
                expected: format!("{tokens} tokens, {} experts", self.count()),
            });
        }
        let of = |name, tensor, width| {
            Operand { op: OP, name, tensor }.expect(&[routes.rows(), width], dtype)
        };
        of("states", rows.states, hidden)?;
        of("up", rows.up, 2 * self.inner())?;
        of("gated", rows.gated, self.inner())?;
        self.gate.check(rows.up, rows.gated)?;
        Operand { op: OP, name: "out", tensor: out }.expect(&[tokens, hidden], dtype)?;
        share_no_memory(OP, out, &[("x", x), ("states", rows.states)])?;
        share_no_memory(OP, rows.states, &[("x", x), ("up", rows.up), ("gated", rows.gated)])
    }
}

/// `y` in float64: `apply` gives an expert's result for a row.
#[cfg(test)]
pub(crate) fn reference(
    x: &[f64],
    hidden: usize,
    routes: &Routes,
    apply: impl Fn(usize, &[f64]) -> Vec<f64>,
) -> Vec<f64> {
    let top_k = routes.top_k();
    let mut y = vec![0.0; x.len()];
    for (token, (x, y)) in x.chunks_exact(hidden).zip(y.chunks_exact_mut(hidden)).enumerate() {
        let these = token * top_k..(token + 1) * top_k;
        for (expert, weight) in routes.experts()[these.clone()].iter().zip(&routes.weights()[these])
        {
            for (y, value) in y.iter_mut().zip(apply(*expert as usize, x)) {
                *y += f64::from(*weight) * value;
            }
        }
    }
    y
}
