//! The layers of decoders: norm, attention to pages, norm, feed-forward half, and all of it again.

use candle_core::{DType as TensorType, Device, Tensor};
use forebay_kernels::{AddRmsNorm, Linear, Pages, RmsNorm, Rotary, Routes, StepRows};

use crate::encode::workspace::{Slot, Workspace};
use crate::error::EngineError;
use crate::families::decoder_attention::{self, Attention, Inputs};
use crate::families::decoder_config::DecoderConfig;
use crate::families::decoder_feed_forward::{FeedForward, Memory};
use crate::families::decoder_layers::LayerConfig;
use crate::families::decoder_tensors::Named;
use crate::load::options::DType;
use crate::load::tensors::Tensors;

/// A decoder's weights.
pub(crate) struct Decoder {
    config: DecoderConfig,
    words: Words,
    /// Rotations by their number in [`LayerConfig::rope`].
    ropes: Vec<Rotary>,
    /// Before the first layer; the other norms belong to what comes before them.
    first_norm: RmsNorm,
    layers: Vec<Layer>,
    /// `None` where nothing but the last hidden states is wanted.
    head: Option<Linear>,
}

/// Where the vectors of tokens are.
enum Words {
    /// `[vocabulary, hidden]`
    Table(Tensor),
    /// Rows of a weight that is kept in blocks.
    Blocks(Linear),
    /// Rows of the head's weight: there is no second table.
    Head(Linear),
}

struct Layer {
    config: LayerConfig,
    attention: Attention,
    attention_out: Linear,
    after_attention: Option<RmsNorm>,
    /// Adds what attention gave, and normalises it for the feed-forward half.
    middle: AddRmsNorm,
    feed_forward: FeedForward,
    after_feed_forward: Option<RmsNorm>,
    /// Adds what the feed-forward half gave, and normalises it for the next layer or the head.
    end: AddRmsNorm,
}

/// New tokens of a step.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// The tokens of all sequences, end to end.
    pub(crate) token_ids: &'a [u32],
    pub(crate) step: &'a StepRows<'a>,
    /// The rows whose logits are wanted.
    pub(crate) picked: &'a [u32],
}

impl Decoder {
    /// Loads the weights for sequences of up to `positions` tokens.
    pub(crate) fn load(
        config: DecoderConfig,
        tensors: &dyn Tensors,
        dtype: DType,
        positions: usize,
    ) -> Result<Self, EngineError> {
        let named = Named::new(tensors, dtype, config.adds_one, config.eps);
        let DecoderConfig { vocabulary, hidden, .. } = config;
        let head = named.side_by_side(&[(named.head(config.is_tied), vocabulary)], hidden, None)?;
        let words = if named.is_tied(config.is_tied) && head.keeps_weight() {
            Words::Head(head.clone())
        } else {
            Words::load(&config, &named)?
        };
        Self::around(words, Some(head), config, &named, positions)
    }

    /// As [`Self::load`], without a head: for models of which the last hidden states are taken.
    pub(crate) fn load_states(
        config: DecoderConfig,
        tensors: &dyn Tensors,
        dtype: DType,
        positions: usize,
    ) -> Result<Self, EngineError> {
        let named = Named::new(tensors, dtype, config.adds_one, config.eps);
        Self::around(Words::load(&config, &named)?, None, config, &named, positions)
    }

    /// Loads what is between words and head.
    fn around(
        words: Words,
        head: Option<Linear>,
        config: DecoderConfig,
        named: &Named<'_>,
        positions: usize,
    ) -> Result<Self, EngineError> {
        let layers = (0..config.layers.len())
            .map(|index| Layer::load(&config, index, named))
            .collect::<Result<_, _>>()?;
        let ropes =
            config.ropes.iter().map(|rope| rope.table(positions)).collect::<Result<_, _>>()?;
        Ok(Self {
            words,
            ropes,
            first_norm: named.norm("layers.0.input_layernorm", config.hidden)?,
            layers,
            head,
            config,
        })
    }

    pub(crate) fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Pages for keys and values: one store a layer.
    pub(crate) fn memory(
        &self,
        pages: usize,
        dtype: TensorType,
    ) -> Result<Vec<Pages>, EngineError> {
        self.layers.iter().map(|_| self.layer_memory(pages, dtype)).collect()
    }

    /// Pages for the keys and values of one layer.
    pub(crate) fn layer_memory(
        &self,
        pages: usize,
        dtype: TensorType,
    ) -> Result<Pages, EngineError> {
        decoder_attention::pages(&self.config, pages, dtype)
    }

    /// Computes the rows of a step and writes their keys and values to `memory`, and the logits
    /// `[picked, vocabulary]` in f32 to `logits`.
    pub(crate) fn forward(
        &self,
        rows: Rows<'_>,
        memory: &[Pages],
        space: &mut Workspace,
        logits: &mut Vec<f32>,
    ) -> Result<(), EngineError> {
        let states = self.states(rows.token_ids, rows.step, memory, space)?;
        self.logits(&states, rows.picked, logits)
    }

    /// Computes the rows of a step and writes their keys and values to `memory`, of which each layer takes the next.
    /// Gives the last hidden states `[rows, hidden]`, normalised, in a buffer of `space`.
    pub(crate) fn states<'a>(
        &self,
        token_ids: &[u32],
        step: &StepRows<'_>,
        memory: impl IntoIterator<Item = &'a Pages>,
        space: &mut Workspace,
    ) -> Result<Tensor, EngineError> {
        let tokens = token_ids.len();
        let DecoderConfig { hidden, .. } = self.config;
        let sum = space.take(Slot::Residual, tokens, hidden)?;
        let sum = self.embed(token_ids, sum)?;
        let normed = space.take(Slot::Attended, tokens, hidden)?;
        let context = space.take(Slot::Context, tokens, self.config.context_width())?;
        let projected = space.take(Slot::Projected, tokens, hidden)?;
        let after = space.take(Slot::Hidden, tokens, hidden)?;
        let mut routes = Routes::default();
        self.first_norm.forward_into(&sum, &normed)?;
        for (layer, pages) in self.layers.iter().zip(memory) {
            let rotary = layer.config.rope.and_then(|rope| self.ropes.get(rope));
            let inputs = Inputs { states: &normed, rows: step, rotary };
            layer.attention.forward(&self.config, layer.config, inputs, space, pages, &context)?;
            layer.attention_out.forward_into(&context, &projected)?;
            let half = normalized(layer.after_attention.as_ref(), &projected, &after)?;
            layer.middle.forward_both_into(half, &sum, &normed)?;
            let memory = Memory { space: &mut *space, routes: &mut routes };
            layer.feed_forward.forward_into(&normed, memory, &projected)?;
            let half = normalized(layer.after_feed_forward.as_ref(), &projected, &after)?;
            layer.end.forward_both_into(half, &sum, &normed)?;
        }
        Ok(normed)
    }

    /// The vectors of tokens: in `out`, or in memory of their own.
    fn embed(&self, token_ids: &[u32], out: Tensor) -> Result<Tensor, EngineError> {
        let words = match &self.words {
            Words::Table(table) => table.index_select(&Tensor::new(token_ids, &Device::Cpu)?, 0)?,
            Words::Blocks(words) | Words::Head(words) => {
                words.weight_rows_into(token_ids, &out)?;
                out
            }
        };
        if !self.config.scales_words {
            return Ok(words);
        }
        // Rounded as the number type that layers compute in, as transformers does.
        let scale = Tensor::new((self.config.hidden as f64).sqrt() as f32, &Device::Cpu)?;
        Ok(words.broadcast_mul(&scale.to_dtype(words.dtype())?)?)
    }

    fn logits(
        &self,
        normed: &Tensor,
        picked: &[u32],
        logits: &mut Vec<f32>,
    ) -> Result<(), EngineError> {
        // All of it is written: what it held before need not be cleared.
        logits.resize(picked.len() * self.config.vocabulary, 0.0);
        let Some(head) = self.head.as_ref().filter(|_| !picked.is_empty()) else { return Ok(()) };
        if picked.len() == normed.dim(0)? {
            head.forward_f32_into(normed, logits)?;
        } else {
            let rows = normed.index_select(&Tensor::new(picked, &Device::Cpu)?, 0)?;
            head.forward_f32_into(&rows, logits)?;
        }
        if let Some(cap) = self.config.logit_cap {
            for logit in logits {
                *logit = cap * (*logit / cap).tanh();
            }
        }
        Ok(())
    }
}

impl Words {
    /// A table of their own, in the blocks of the file or as plain numbers.
    fn load(config: &DecoderConfig, named: &Named<'_>) -> Result<Self, EngineError> {
        let DecoderConfig { vocabulary, hidden, .. } = *config;
        let name = named.words();
        if let Some(blocks) = named.blocks(&[(name.clone(), vocabulary)], hidden)? {
            return Ok(Self::Blocks(named.of_blocks(blocks, [vocabulary, hidden], None)?));
        }
        Ok(Self::Table(named.table(&name, [vocabulary, hidden])?))
    }
}

/// A half's result, normalised into `out` where the family does that.
fn normalized<'a>(
    norm: Option<&RmsNorm>,
    x: &'a Tensor,
    out: &'a Tensor,
) -> Result<&'a Tensor, EngineError> {
    match norm {
        None => Ok(x),
        Some(norm) => {
            norm.forward_into(x, out)?;
            Ok(out)
        }
    }
}

impl Layer {
    fn load(config: &DecoderConfig, index: usize, named: &Named<'_>) -> Result<Self, EngineError> {
        let DecoderConfig { hidden, .. } = *config;
        let name = |part: &str| format!("layers.{index}.{part}");
        let one = |part: &str, outputs| vec![(name(part), outputs)];
        let norm = |part: &str| named.norm(&name(part), hidden);
        let after = |part: &str| config.normalizes_after.then(|| norm(part)).transpose();
        let before_feed_forward = if config.normalizes_after {
            "pre_feedforward_layernorm"
        } else {
            "post_attention_layernorm"
        };
        let last = index + 1 == config.layers.len();
        let next = format!("layers.{}.input_layernorm", index + 1);
        Ok(Self {
            config: config.layers[index],
            attention: Attention::load(config, &name, named)?,
            attention_out: named.linear(
                &one("self_attn.o_proj", hidden),
                config.context_width(),
                config.out_bias,
            )?,
            after_attention: after("post_attention_layernorm")?,
            middle: AddRmsNorm { norm: norm(before_feed_forward)? },
            feed_forward: FeedForward::load(config, index, named)?,
            after_feed_forward: after("post_feedforward_layernorm")?,
            end: AddRmsNorm { norm: named.norm(if last { "norm" } else { &next }, hidden)? },
        })
    }
}
