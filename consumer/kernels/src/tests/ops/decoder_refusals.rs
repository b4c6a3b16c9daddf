//! Decoders' operands that do not fit are refused with a typed error that names them.

use candle_core::{DType, Device};

use super::super::{noisy, rms_norm};
use super::assert_shape_refused;
use crate::{
    AddRmsNorm, KernelError, PagedAttention, Pages, QkvIntoPages, Rotary, SequenceRows, StepRows,
};

fn pages(count: usize, kv_heads: usize, dim: usize) -> Pages {
    Pages::new(count, kv_heads, dim, DType::F32, &Device::Cpu).unwrap()
}

fn rows(tokens: usize, position: usize, pages: &[u32]) -> StepRows<'_> {
    StepRows::new([SequenceRows { tokens, position, pages }]).unwrap()
}

#[test]
fn norms_name_the_operand_that_does_not_fit() {
    let x = noisy(1, &[3, 8]).0;
    assert_shape_refused(rms_norm(1, 7).forward(&x), "rms_norm", "weight");
    assert_shape_refused(rms_norm(1, 8).forward_into(&x, &noisy(1, &[2, 8]).0), "rms_norm", "out");
    let add = AddRmsNorm { norm: rms_norm(1, 8) };
    let out = x.zeros_like().unwrap();
    let short = noisy(1, &[2, 8]).0;
    assert_shape_refused(add.forward_both_into(&x, &short, &out), "add_rms_norm", "sum");
    let error = add.forward_both_into(&x, &out, &out).unwrap_err();
    assert!(matches!(error, KernelError::SharedMemory { operand: "sum", .. }), "{error}");
    let error = add.forward_both_into(&x, &x, &out).unwrap_err();
    assert!(matches!(error, KernelError::SharedMemory { operand: "x", .. }), "{error}");
}

#[test]
fn pages_that_cannot_be_are_refused() {
    let make = |count, kv_heads, dim, dtype| Pages::new(count, kv_heads, dim, dtype, &Device::Cpu);
    assert_shape_refused(make(1, 0, 64, DType::F32), "pages", "store");
    assert_shape_refused(make(1, 1, 0, DType::F32), "pages", "store");
    assert_shape_refused(make(1, 1, 7, DType::BF16), "pages", "store");
    assert_shape_refused(make(usize::MAX / 64, 8, 64, DType::F32), "pages", "store");
    assert_shape_refused(make(usize::MAX, usize::MAX, usize::MAX, DType::F32), "pages", "store");
    let error = make(1, 1, 64, DType::F16).unwrap_err();
    assert!(matches!(error, KernelError::DType { operand: "store", .. }), "{error}");
    assert_eq!(make(0, 1, 64, DType::F32).unwrap().count(), 0);
    // 32 tokens, 3 heads, keys of 80 and values in lines of 96, two bytes each.
    assert_eq!(Pages::page_bytes(3, 80, DType::BF16), 32 * 3 * (80 + 96) * 2);
}

#[test]
fn qkv_into_pages_names_the_operand_that_does_not_fit() {
    let rotary = Rotary::new(8, 1e4, 40).unwrap();
    let norm = rms_norm(1, 6);
    let op =
        QkvIntoPages { rotary: Some(&rotary), q_norm: None, k_norm: None, heads: 4, kv_heads: 2 };
    let table = [1, 0];
    let step = rows(2, 31, &table);
    let qkv = noisy(1, &[2, 8 * 8]).0;
    let store = pages(2, 2, 8);
    op.apply(&qkv, &step, &store).unwrap();
    assert_shape_refused(op.apply(&noisy(1, &[3, 64]).0, &step, &store), "qkv_into_pages", "qkv");
    assert_shape_refused(op.apply(&noisy(1, &[2, 56]).0, &step, &store), "qkv_into_pages", "qkv");
    assert_shape_refused(op.apply(&qkv, &step, &pages(2, 1, 8)), "qkv_into_pages", "pages");
    assert_shape_refused(op.apply(&qkv, &step, &pages(2, 2, 4)), "qkv_into_pages", "qkv");
    let normed = QkvIntoPages { k_norm: Some(&norm), ..op };
    assert_shape_refused(normed.apply(&qkv, &step, &store), "qkv_into_pages", "k_norm");
    let wide = Rotary::new(10, 1e4, 40).unwrap();
    let turned = QkvIntoPages { rotary: Some(&wide), ..op };
    assert_shape_refused(turned.apply(&qkv, &step, &store), "qkv_into_pages", "rotary");
    let outside = |result: Result<(), KernelError>| match result.unwrap_err() {
        KernelError::OutsideTable { what, value, rows, .. } => (what, value, rows),
        other => panic!("{other}"),
    };
    assert_eq!(outside(op.apply(&qkv, &step, &pages(1, 2, 8))), ("page", 1, 1));
    assert_eq!(outside(op.apply(&qkv, &rows(2, 39, &[0, 1]), &store)), ("position", 40, 40));
    let half = qkv.to_dtype(DType::BF16).unwrap();
    let error = op.apply(&half, &step, &store).unwrap_err();
    assert!(matches!(error, KernelError::DType { operand: "pages", .. }), "{error}");
}

#[test]
fn paged_attention_names_the_operand_that_does_not_fit() {
    let table = [1, 0];
    let step = rows(2, 31, &table);
    let op = PagedAttention::new(&step, 4, 2);
    let qkv = noisy(1, &[2, 8 * 8]).0;
    let store = pages(2, 2, 8);
    op.forward(&qkv, &store).unwrap();
    assert_shape_refused(op.forward(&noisy(1, &[3, 64]).0, &store), "paged_attention", "qkv");
    assert_shape_refused(op.forward(&noisy(1, &[2, 31]).0, &store), "paged_attention", "qkv");
    assert_shape_refused(op.forward(&qkv, &pages(2, 1, 8)), "paged_attention", "pages");
    let heads = PagedAttention { heads: 5, ..op };
    assert_shape_refused(heads.forward(&qkv, &store), "paged_attention", "kv_heads");
    let window = PagedAttention { window: Some(0), ..op };
    assert_shape_refused(window.forward(&qkv, &store), "paged_attention", "window");
    let both_ways = PagedAttention { is_bidirectional: true, ..op };
    assert_shape_refused(both_ways.forward(&qkv, &store), "paged_attention", "position");
    let sinks = noisy(1, &[3]).0;
    let sunk = PagedAttention { sinks: Some(&sinks), ..op };
    assert_shape_refused(sunk.forward(&qkv, &store), "paged_attention", "sinks");
    assert_shape_refused(
        op.forward_into(&qkv, &store, &noisy(1, &[2, 31]).0),
        "paged_attention",
        "out",
    );
    for factor in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let scaled = PagedAttention { scale: Some(factor), ..op }.forward(&qkv, &store);
        assert!(matches!(scaled, Err(KernelError::Factor { name: "scale", .. })));
        let capped = PagedAttention { soft_cap: Some(factor), ..op }.forward(&qkv, &store);
        assert!(matches!(capped, Err(KernelError::Factor { name: "soft_cap", .. })));
    }
    let error = op.forward(&qkv, &pages(1, 2, 8)).unwrap_err();
    assert!(matches!(error, KernelError::OutsideTable { what: "page", value: 1, .. }), "{error}");
}

#[test]
fn a_step_without_rows_gives_none() {
    let step = StepRows::new([]).unwrap();
    let store = pages(0, 2, 8);
    let qkv = noisy(1, &[0, 64]).0;
    let into = QkvIntoPages { rotary: None, q_norm: None, k_norm: None, heads: 4, kv_heads: 2 };
    into.apply(&qkv, &step, &store).unwrap();
    let attention = PagedAttention::new(&step, 4, 2);
    assert_eq!(attention.forward(&qkv, &store).unwrap().dims(), [0, 32]);
}
