//! BERT over fused operations: seven a layer, on packed tokens.

use candle_core::{DType, Tensor};
use forebay_kernels::{
    Activation, AddLayerNorm, EmbedLayerNorm, LayerNorm, Linear, PoolNormalize, Pooling,
    VarlenAttention,
};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::config::BertConfig;
use crate::weights::Weights;
use crate::{Encoder, EngineError, PackedBatch, Rows};

/// A BERT encoder on the processor, with its own pool of compute threads.
pub(crate) struct BertEncoder {
    pool: ThreadPool,
    vocab_size: usize,
    positions: usize,
    hidden: usize,
    heads: usize,
    embeddings: EmbeddingTables,
    layers: Vec<Layer>,
    pooling: Pooling,
}

struct EmbeddingTables {
    words: Tensor,
    positions: Tensor,
    types: Tensor,
    norm: LayerNorm,
}

/// The projections that `add_layer_norm` follows leave their bias to it.
struct Layer {
    qkv: Linear,
    attention_out: Linear,
    attention_norm: AddLayerNorm,
    up: Linear,
    down: Linear,
    output_norm: AddLayerNorm,
}

impl BertEncoder {
    /// Takes the weights by their names in transformers, with or without the prefix `bert.`.
    pub(crate) fn load(
        config: &BertConfig,
        weights: &Weights,
        pooling: Pooling,
        threads: usize,
    ) -> Result<Self, EngineError> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("compute-{index}"))
            .build()
            .map_err(|error| EngineError::Threads { threads, problem: error.to_string() })?;
        let prefix =
            if weights.contains("bert.embeddings.word_embeddings.weight") { "bert." } else { "" };
        let named = Named { weights, config, prefix: prefix.to_owned() };
        let layers = (0..config.num_hidden_layers)
            .map(|index| named.layer(index))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            pool,
            vocab_size: config.vocab_size,
            positions: config.max_position_embeddings,
            hidden: config.hidden_size,
            heads: config.num_attention_heads,
            embeddings: named.embeddings()?,
            layers,
            pooling,
        })
    }

    /// Refuses an item that the tables have no row for, or whose finish cannot be made.
    fn check(&self, batch: &PackedBatch) -> Result<(), EngineError> {
        for (index, (range, finish)) in
            batch.cu_seqlens().ranges().zip(batch.finishes()).enumerate()
        {
            let (tokens, positions) = (range.len(), self.positions);
            let (vocab_size, dim) = (self.vocab_size, self.hidden);
            let outside = batch.token_ids()[range].iter().find(|&&id| id as usize >= vocab_size);
            let problem = if tokens > positions {
                format!("{tokens} tokens, the model has {positions} positions")
            } else if let Some(id) = outside {
                format!("token id {id} is outside the vocabulary of {vocab_size}")
            } else if finish
                .dimensions
                .is_some_and(|dimensions| dimensions == 0 || dimensions > dim)
            {
                format!(
                    "{} dimensions asked, the model gives 1 to {dim}",
                    finish.dimensions.unwrap_or_default()
                )
            } else {
                continue;
            };
            return Err(EngineError::Item { index, problem });
        }
        Ok(())
    }

    fn forward(&self, batch: &PackedBatch) -> Result<Tensor, EngineError> {
        let cu_seqlens = batch.cu_seqlens();
        let tables = &self.embeddings;
        let embed = EmbedLayerNorm {
            token_ids: batch.token_ids(),
            type_ids: None,
            cu_seqlens,
            first_position: 0,
            norm: &tables.norm,
        };
        let attention = VarlenAttention::new(cu_seqlens, self.heads);
        let mut hidden =
            embed.forward(&tables.words, Some(&tables.positions), Some(&tables.types))?;
        for layer in &self.layers {
            hidden = layer.forward(&hidden, &attention)?;
        }
        let pool = PoolNormalize { cu_seqlens, pooling: self.pooling, finishes: batch.finishes() };
        Ok(pool.forward(&hidden)?)
    }
}

impl Encoder for BertEncoder {
    fn compute(&mut self, batch: &PackedBatch) -> Result<Rows, EngineError> {
        self.check(batch)?;
        if batch.tokens() == 0 {
            return Ok(Rows {
                width: self.hidden,
                data: vec![0.0; batch.sequences() * self.hidden],
            });
        }
        let pooled = self.pool.install(|| self.forward(batch))?;
        Ok(Rows { width: self.hidden, data: pooled.flatten_all()?.to_vec1()? })
    }
}

impl Layer {
    fn forward(
        &self,
        hidden: &Tensor,
        attention: &VarlenAttention<'_>,
    ) -> Result<Tensor, EngineError> {
        let context = attention.forward(&self.qkv.forward(hidden)?)?;
        let attended =
            self.attention_norm.forward(&self.attention_out.forward(&context)?, hidden)?;
        let inner = self.up.forward(&attended)?;
        Ok(self.output_norm.forward(&self.down.forward(&inner)?, &attended)?)
    }
}

/// Weights under a prefix, with the sizes that their shapes follow from.
struct Named<'a> {
    weights: &'a Weights,
    config: &'a BertConfig,
    prefix: String,
}

impl Named<'_> {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, EngineError> {
        self.weights.f32(&format!("{}{name}", self.prefix), shape)
    }

    fn norm(&self, name: &str) -> Result<LayerNorm, EngineError> {
        let shape = [self.config.hidden_size];
        Ok(LayerNorm {
            scale: self.tensor(&format!("{name}.weight"), &shape)?,
            shift: self.tensor(&format!("{name}.bias"), &shape)?,
            eps: self.config.layer_norm_eps as f32,
        })
    }

    fn embeddings(&self) -> Result<EmbeddingTables, EngineError> {
        let config = self.config;
        let table = |name: &str, rows| {
            self.tensor(
                &format!("embeddings.{name}_embeddings.weight"),
                &[rows, config.hidden_size],
            )
        };
        Ok(EmbeddingTables {
            words: table("word", config.vocab_size)?,
            positions: table("position", config.max_position_embeddings)?,
            types: table("token_type", config.type_vocab_size)?,
            norm: self.norm("embeddings.LayerNorm")?,
        })
    }

    fn layer(&self, index: usize) -> Result<Layer, EngineError> {
        let (hidden, inner) = (self.config.hidden_size, self.config.intermediate_size);
        let layer = format!("encoder.layer.{index}");
        let dense = |name: &str, shape: &[usize]| -> Result<Linear, EngineError> {
            let weight = self.tensor(&format!("{layer}.{name}.dense.weight"), shape)?;
            Ok(Linear::new(&weight, None, Activation::None, DType::F32)?)
        };
        let add_norm = |name: &str| -> Result<AddLayerNorm, EngineError> {
            Ok(AddLayerNorm {
                bias: Some(self.tensor(&format!("{layer}.{name}.dense.bias"), &[hidden])?),
                norm: self.norm(&format!("{layer}.{name}.LayerNorm"))?,
            })
        };
        let up_weight =
            self.tensor(&format!("{layer}.intermediate.dense.weight"), &[inner, hidden])?;
        let up_bias = self.tensor(&format!("{layer}.intermediate.dense.bias"), &[inner])?;
        Ok(Layer {
            qkv: self.qkv(&format!("{layer}.attention.self"))?,
            attention_out: dense("attention.output", &[hidden, hidden])?,
            attention_norm: add_norm("attention.output")?,
            up: Linear::new(&up_weight, Some(&up_bias), Activation::Gelu, DType::F32)?,
            down: dense("output", &[hidden, inner])?,
            output_norm: add_norm("output")?,
        })
    }

    /// The three projections as one: their rows stacked, queries first.
    fn qkv(&self, name: &str) -> Result<Linear, EngineError> {
        let hidden = self.config.hidden_size;
        let stacked = |part: &str, shape: &[usize]| -> Result<Tensor, EngineError> {
            let of = |role: &str| self.tensor(&format!("{name}.{role}.{part}"), shape);
            Ok(Tensor::cat(&[of("query")?, of("key")?, of("value")?], 0)?)
        };
        let (weight, bias) = (stacked("weight", &[hidden, hidden])?, stacked("bias", &[hidden])?);
        Ok(Linear::new(&weight, Some(&bias), Activation::None, DType::F32)?)
    }
}
