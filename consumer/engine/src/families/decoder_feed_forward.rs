//! The feed-forward half of a decoder's layer: one gated layer, or experts.

use candle_core::Tensor;
use forebay_kernels::{AnyGate, ExpertRows, Experts, Gate, Linear, Router, Routes};

use crate::encode::workspace::{Slot, Workspace};
use crate::error::EngineError;
use crate::families::decoder_config::DecoderConfig;
use crate::families::decoder_tensors::Named;
use crate::families::expert_config::ExpertConfig;
use crate::families::expert_tensors;

/// A feed-forward half.
pub(super) enum FeedForward {
    /// One layer that all tokens take.
    Dense(Box<Dense>),
    /// Layers of which each token takes some.
    Sparse(Box<Sparse>),
}

/// A gated layer.
pub(super) struct Dense {
    /// The gate's input beside what it multiplies.
    up: Linear,
    gate: AnyGate,
    down: Linear,
}

/// Experts with their router.
pub(super) struct Sparse {
    router: Router,
    experts: Experts,
    /// The expert that every token takes.
    shared: Option<Dense>,
}

/// Memory that a step's layers use one after the other.
pub(super) struct Memory<'a> {
    pub(super) space: &'a mut Workspace,
    pub(super) routes: &'a mut Routes,
}

impl FeedForward {
    /// Of layer `index`.
    pub(super) fn load(
        config: &DecoderConfig,
        index: usize,
        named: &Named<'_>,
    ) -> Result<Self, EngineError> {
        let layer = format!("layers.{index}");
        let gate = AnyGate::Plain(Gate { activation: config.activation });
        match &config.experts {
            Some(experts) if config.layers[index].has_experts => {
                let gate = experts.clamped.map_or(gate, AnyGate::Clamped);
                let sparse = Sparse::load(experts, gate, config.hidden, index, named)?;
                Ok(Self::Sparse(Box::new(sparse)))
            }
            _ => {
                let name = |part: &str| format!("{layer}.mlp.{part}_proj");
                let DecoderConfig { hidden, inner, mlp_bias, .. } = *config;
                let up = if config.is_fused {
                    vec![(name("gate_up"), 2 * inner)]
                } else {
                    vec![(name("gate"), inner), (name("up"), inner)]
                };
                Ok(Self::Dense(Box::new(Dense {
                    up: named.linear(&up, hidden, mlp_bias)?,
                    gate,
                    down: named.linear(&[(name("down"), hidden)], inner, mlp_bias)?,
                })))
            }
        }
    }

    /// `x`: `[tokens, hidden]`; writes `out`, of its shape.
    pub(super) fn forward_into(
        &self,
        x: &Tensor,
        memory: Memory<'_>,
        out: &Tensor,
    ) -> Result<(), EngineError> {
        match self {
            Self::Dense(dense) => dense.forward_into(x, memory.space, out),
            Self::Sparse(sparse) => sparse.forward_into(x, memory, out),
        }
    }
}

impl Dense {
    fn forward_into(
        &self,
        x: &Tensor,
        space: &mut Workspace,
        out: &Tensor,
    ) -> Result<(), EngineError> {
        let tokens = x.dim(0)?;
        let inner = self.down.inputs();
        let up = space.take(Slot::Inner, tokens, 2 * inner)?;
        let gated = space.take(Slot::Gated, tokens, inner)?;
        self.up.forward_into(x, &up)?;
        self.gate.forward_into(&up, &gated)?;
        Ok(self.down.forward_into(&gated, out)?)
    }
}

impl Sparse {
    fn load(
        config: &ExpertConfig,
        gate: AnyGate,
        hidden: usize,
        index: usize,
        named: &Named<'_>,
    ) -> Result<Self, EngineError> {
        let router = format!("layers.{index}.{}", config.router);
        let correction = format!("{router}.e_score_correction_bias");
        let correction = config.is_corrected.then(|| named.tensor(&correction, &[config.count]));
        let router = Router {
            linear: named.wide(&router, [config.count, hidden], config.has_bias)?,
            top_k: config.top_k,
            scoring: config.scoring,
            correction: correction.transpose()?,
            groups: config.groups,
            normalizes: config.normalizes,
            scale: config.scale,
        };
        let shared = (config.shared > 0).then(|| {
            let name = |part: &str| format!("layers.{index}.mlp.shared_experts.{part}_proj");
            let up = [(name("gate"), config.shared), (name("up"), config.shared)];
            let up = named.linear(&up, hidden, false)?;
            let down = named.linear(&[(name("down"), hidden)], config.shared, false)?;
            Ok::<_, EngineError>(Dense { up, gate, down })
        });
        Ok(Self {
            router,
            experts: expert_tensors::load(config, gate, hidden, index, named)?,
            shared: shared.transpose()?,
        })
    }

    fn forward_into(
        &self,
        x: &Tensor,
        Memory { space, routes }: Memory<'_>,
        out: &Tensor,
    ) -> Result<(), EngineError> {
        let Self { router, experts, shared } = self;
        router.forward_into(x, routes)?;
        if let Some(shared) = shared {
            shared.forward_into(x, space, out)?;
        }
        let rows = routes.rows();
        let states = space.take(Slot::Routed, rows, experts.hidden())?;
        let up = space.take(Slot::Inner, rows, 2 * experts.inner())?;
        let gated = space.take(Slot::Gated, rows, experts.inner())?;
        let rows = ExpertRows { states: &states, up: &up, gated: &gated };
        if shared.is_some() {
            Ok(experts.forward_onto(x, routes, rows, out)?)
        } else {
            Ok(experts.forward_into(x, routes, rows, out)?)
        }
    }
}
