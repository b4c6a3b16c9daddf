//! Operands that do not fit are refused with a typed error that names them; nothing panics.

use candle_core::{DType, Device, Tensor};

use super::super::{cu_seqlens, layer_norm, noisy};
use super::assert_shape_refused;
use crate::{
    Activation, AddLayerNorm, EmbedLayerNorm, Finish, KernelError, Linear, PoolNormalize, Pooling,
    VarlenAttention,
};

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn linear_names_the_operand_that_does_not_fit() {
    let make = |weight: &Tensor, bias: Option<&Tensor>| {
        Linear::new(weight, bias, Activation::None, DType::F32)
    };
    assert_shape_refused(make(&zeros(&[3]), None), "linear", "weight");
    assert_shape_refused(make(&zeros(&[3, 0]), None), "linear", "weight");
    assert_shape_refused(make(&zeros(&[3, 4]), Some(&zeros(&[4]))), "linear", "bias");
    let layer = make(&zeros(&[3, 4]), None).unwrap();
    assert_shape_refused(layer.forward(&zeros(&[2, 5])), "linear", "x");
    assert_shape_refused(layer.forward(&zeros(&[4])), "linear", "x");
}

#[test]
fn add_layer_norm_names_the_operand_that_does_not_fit() {
    let op = |bias: usize, norm: usize| AddLayerNorm {
        bias: Some(zeros(&[bias])),
        norm: layer_norm(1, norm),
    };
    let x = zeros(&[3, 8]);
    let short = zeros(&[2, 8]);
    assert_shape_refused(op(8, 8).forward(&x, &short), "add_layer_norm", "residual");
    assert_shape_refused(op(7, 8).forward(&x, &x), "add_layer_norm", "bias");
    assert_shape_refused(op(8, 9).forward(&x, &x), "add_layer_norm", "scale");
}

#[test]
fn embed_layer_norm_refuses_ids_without_a_row() {
    let norm = layer_norm(1, 8);
    let embed = |token_ids: &[u32], type_ids: Option<&[u32]>, tokens: usize, positions: usize| {
        let cu_seqlens = cu_seqlens(&[tokens]);
        let cu_seqlens = &cu_seqlens;
        let op = EmbedLayerNorm { token_ids, type_ids, cu_seqlens, first_position: 0, norm: &norm };
        op.forward(&zeros(&[10, 8]), Some(&zeros(&[positions, 8])), Some(&zeros(&[2, 8])))
    };
    let outside = |result: Result<Tensor, KernelError>| match result.unwrap_err() {
        KernelError::OutsideTable { what, value, rows, .. } => (what, value, rows),
        other => panic!("{other}"),
    };
    assert_eq!(outside(embed(&[1, 10], None, 2, 4)), ("token id", 10, 10));
    assert_eq!(outside(embed(&[1, 9], Some(&[0, 2]), 2, 4)), ("type id", 2, 2));
    assert_eq!(outside(embed(&[1; 5], None, 5, 4)), ("position", 4, 4));
    assert_shape_refused(embed(&[1; 4], None, 3, 4), "embed_layer_norm", "ids");
    assert_shape_refused(embed(&[1; 3], Some(&[0; 2]), 3, 4), "embed_layer_norm", "ids");
}

#[test]
fn embed_layer_norm_refuses_tables_of_other_widths() {
    let op = EmbedLayerNorm {
        token_ids: &[],
        type_ids: None,
        cu_seqlens: &cu_seqlens(&[]),
        first_position: 0,
        norm: &layer_norm(1, 8),
    };
    let eight = zeros(&[4, 8]);
    let nine = zeros(&[4, 9]);
    assert_shape_refused(
        op.forward(&eight, Some(&nine), Some(&eight)),
        "embed_layer_norm",
        "positions",
    );
    assert_shape_refused(
        op.forward(&eight, Some(&eight), Some(&nine)),
        "embed_layer_norm",
        "types",
    );
    assert_shape_refused(op.forward(&nine, Some(&nine), Some(&nine)), "embed_layer_norm", "scale");
}

#[test]
fn attention_refuses_heads_that_do_not_divide_and_offsets_that_end_elsewhere() {
    let five = cu_seqlens(&[2, 3]);
    let attend = |heads, x: &Tensor| VarlenAttention::new(&five, heads).forward(x);
    assert_shape_refused(attend(4, &zeros(&[5, 30])), "varlen_attention", "qkv");
    assert_shape_refused(attend(0, &zeros(&[5, 30])), "varlen_attention", "qkv");
    assert_shape_refused(attend(2, &zeros(&[6, 30])), "varlen_attention", "qkv");
}

#[test]
fn attention_refuses_a_bias_too_short_for_the_longest_sequence() {
    let five = cu_seqlens(&[2, 3]);
    let attend = |shape: &[usize]| {
        let bias = zeros(shape);
        let attention = VarlenAttention::new(&five, 2);
        VarlenAttention { distance_bias: Some(&bias), ..attention }.forward(&zeros(&[5, 12]))
    };
    assert!(attend(&[2, 5]).is_ok());
    for shape in [[2, 3], [2, 6], [1, 5]] {
        assert_shape_refused(attend(&shape), "varlen_attention", "distance_bias");
    }
}

#[test]
fn an_output_that_does_not_fit_is_refused_before_it_is_touched() {
    let layer = Linear::new(&zeros(&[3, 4]), None, Activation::None, DType::F32).unwrap();
    let x = zeros(&[2, 4]);
    assert_shape_refused(layer.forward_into(&x, &zeros(&[2, 4])), "linear", "out");
    let half = zeros(&[2, 3]).to_dtype(DType::BF16).unwrap();
    assert!(matches!(
        layer.forward_into(&x, &half),
        Err(KernelError::DType { operand: "out", .. })
    ));
}

#[test]
fn pooling_refuses_offsets_and_finishes_that_do_not_fit() {
    let five = cu_seqlens(&[2, 3]);
    let pool = |tokens, finishes: &[Finish]| {
        PoolNormalize { cu_seqlens: &five, pooling: Pooling::Mean, finishes }
            .forward(&zeros(&[tokens, 8]))
    };
    let whole = Finish::default();
    assert_shape_refused(pool(4, &[whole; 2]), "pool_normalize", "x");
    assert_shape_refused(pool(5, &[whole; 3]), "pool_normalize", "finishes");
    for dimensions in [0, 9] {
        let cut = Finish { dimensions: Some(dimensions), ..whole };
        let error = pool(5, &[whole, cut]).unwrap_err();
        assert!(matches!(error, KernelError::Dimensions { sequence: 1, .. }), "{error}");
    }
}

#[test]
fn other_number_types_and_strided_views_are_refused() {
    let layer = Linear::new(&zeros(&[4, 4]), None, Activation::None, DType::F32).unwrap();
    let half = zeros(&[2, 4]).to_dtype(DType::BF16).unwrap();
    let error = layer.forward(&half).unwrap_err();
    assert!(error.to_string().contains("x is BF16, expected F32"), "{error}");
    let double = zeros(&[2, 4]).to_dtype(DType::F64).unwrap();
    let error = layer.forward(&double).unwrap_err();
    assert!(error.to_string().contains("x is F64, expected F32, BF16"), "{error}");
    let strided = noisy(1, &[4, 2]).0.t().unwrap();
    assert!(matches!(
        layer.forward(&strided),
        Err(KernelError::NotContiguous { operand: "x", .. })
    ));
}

#[test]
fn no_sequences_give_no_rows() {
    let none = cu_seqlens(&[]);
    let x = zeros(&[0, 12]);
    assert_eq!(VarlenAttention::new(&none, 2).forward(&x).unwrap().dims(), [0, 4]);
    let pool = PoolNormalize { cu_seqlens: &none, pooling: Pooling::Cls, finishes: &[] };
    assert_eq!(pool.forward(&x).unwrap().dims(), [0, 12]);
}

#[test]
fn an_output_in_the_memory_of_what_is_read_is_refused() {
    let x = zeros(&[2, 8]);
    let error = layer_norm(1, 8).forward_into(&x, &x).unwrap_err();
    assert!(matches!(error, KernelError::SharedMemory { operand: "x", .. }), "{error}");
    let rows = zeros(&[4, 8]);
    let halves = [0, 2].map(|first| rows.narrow(0, first, 2).unwrap());
    let [upper, lower] = halves;
    let add = AddLayerNorm { bias: None, norm: layer_norm(1, 8) };
    let error = add.forward_into(&x, &upper, &lower).unwrap_err();
    assert!(matches!(error, KernelError::SharedMemory { operand: "residual", .. }), "{error}");
}
