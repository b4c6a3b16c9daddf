//! Operands of latent attention that do not fit are refused with a typed error that names them.

use candle_core::{DType, Device, Tensor};

use super::super::{noisy, rms_norm};
use super::assert_shape_refused;
use crate::{
    HeadLinear, KernelError, LatentIntoPages, PagedAttention, Pages, Rotary, SequenceRows, StepRows,
};

fn latent(count: usize, key_dim: usize, value_dim: usize) -> Pages {
    Pages::latent(count, key_dim, value_dim, DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn latent_pages_take_one_key_a_token_and_cannot_hold_more_values() {
    let make = |key, value, dtype| Pages::latent(1, key, value, dtype, &Device::Cpu);
    assert_shape_refused(make(0, 0, DType::F32), "pages", "store");
    assert_shape_refused(make(8, 0, DType::F32), "pages", "store");
    assert_shape_refused(make(8, 9, DType::F32), "pages", "store");
    assert_shape_refused(make(7, 4, DType::BF16), "pages", "store");
    let pages = make(576, 512, DType::BF16).unwrap();
    assert_eq!((pages.kv_heads(), pages.head_dim(), pages.value_dim()), (1, 576, 512));
    assert_eq!(pages.bytes_per_page(), 576 * 32 * 2);
    assert_eq!(pages.bytes_per_page(), Pages::latent_page_bytes(576, DType::BF16));
    let own = Pages::new(1, 2, 40, DType::F32, &Device::Cpu).unwrap();
    assert_eq!((own.is_latent(), own.value_dim()), (false, 40));
    assert_eq!(own.bytes_per_page(), Pages::page_bytes(2, 40, DType::F32));
}

#[test]
fn latent_into_pages_names_the_operand_that_does_not_fit() {
    const OP: &str = "latent_into_pages";
    let rotary = Rotary::new(4, 1e4, 40).unwrap();
    let norm = rms_norm(1, 8);
    let op = LatentIntoPages { rotary: Some(&rotary), is_interleaved: true, norm: &norm, heads: 3 };
    let of = |width: usize| noisy(1, &[2, width]).0;
    let rows = |position, table| {
        StepRows::new([SequenceRows { tokens: 2, position, pages: table }]).unwrap()
    };
    let step = rows(31, &[1, 0]);
    let [c, q, query] = [of(12), of(3 * 6), of(3 * 12)];
    let store = latent(2, 12, 8);
    op.apply(&c, &q, &step, &query, &store).unwrap();
    assert_shape_refused(op.apply(&of(11), &q, &step, &query, &store), OP, "latent");
    assert_shape_refused(op.apply(&noisy(1, &[3, 12]).0, &q, &step, &query, &store), OP, "latent");
    assert_shape_refused(op.apply(&c, &of(17), &step, &query, &store), OP, "q");
    assert_shape_refused(op.apply(&c, &of(9), &step, &query, &store), OP, "q");
    assert_shape_refused(op.apply(&c, &q, &step, &of(35), &store), OP, "query");
    assert_shape_refused(op.apply(&c, &q, &step, &query, &latent(2, 12, 7)), OP, "pages");
    assert_shape_refused(op.apply(&c, &q, &step, &query, &latent(2, 12, 6)), OP, "norm");
    let narrow = Rotary::new(2, 1e4, 40).unwrap();
    let turned = LatentIntoPages { rotary: Some(&narrow), ..op };
    assert_shape_refused(turned.apply(&c, &q, &step, &query, &store), OP, "rotary");
    let own = Pages::new(2, 1, 12, DType::F32, &Device::Cpu).unwrap();
    assert_shape_refused(op.apply(&c, &q, &step, &query, &own), OP, "pages");
    let wide = rms_norm(1, 9);
    let normed = LatentIntoPages { norm: &wide, ..op };
    assert_shape_refused(normed.apply(&c, &q, &step, &query, &store), OP, "norm");
    let headless = LatentIntoPages { heads: 0, ..op };
    assert_shape_refused(headless.apply(&c, &q, &step, &query, &store), OP, "q");
    for (step, count) in [(&step, 1), (&rows(39, &[0, 1]), 2)] {
        let error = op.apply(&c, &q, step, &query, &latent(count, 12, 8)).unwrap_err();
        assert!(matches!(error, KernelError::OutsideTable { .. }), "{error}");
    }
    let shared = of(36);
    let error = op.apply(&c, &shared, &step, &shared, &store).unwrap_err();
    assert!(matches!(error, KernelError::SharedMemory { .. }), "{error}");
}

#[test]
fn paged_attention_gives_as_many_values_as_latent_pages_have() {
    let step = StepRows::new([SequenceRows { tokens: 2, position: 0, pages: &[0] }]).unwrap();
    let op = PagedAttention::new(&step, 3, 1);
    let query = noisy(1, &[2, 3 * 12]).0;
    let store = latent(1, 12, 8);
    assert_eq!(op.forward(&query, &store).unwrap().dims(), [2, 3 * 8]);
    let wide = noisy(1, &[2, 3 * 12]).0;
    assert_shape_refused(op.forward_into(&query, &store, &wide), "paged_attention", "out");
    assert_shape_refused(op.forward(&noisy(1, &[2, 30]).0, &store), "paged_attention", "qkv");
}

#[test]
fn head_linear_names_the_operand_that_does_not_fit() {
    const OP: &str = "head_linear";
    let make = |shape: &[usize], dtype| HeadLinear::new(&noisy(1, shape).0, dtype);
    assert_shape_refused(make(&[3, 8], DType::F32), OP, "weight");
    assert_shape_refused(make(&[3, 0, 8], DType::F32), OP, "weight");
    assert_shape_refused(make(&[3, 4, 7], DType::BF16), OP, "weight");
    let layer = make(&[3, 4, 8], DType::F32).unwrap();
    let of = |rows: usize, width: usize| noisy(1, &[rows, width]).0;
    layer.forward_into(&of(2, 24), &of(2, 12)).unwrap();
    assert_shape_refused(layer.forward_into(&of(2, 25), &of(2, 12)), OP, "x");
    assert_shape_refused(layer.forward_into(&of(2, 21), &of(2, 12)), OP, "x");
    assert_shape_refused(layer.forward_into(&of(2, 24), &of(2, 9)), OP, "out");
    assert_shape_refused(layer.forward_into(&of(2, 24), &of(3, 12)), OP, "out");
    let x: Tensor = of(2, 24);
    let error = layer.forward_into(&x, &x).unwrap_err();
    assert!(matches!(error, KernelError::SharedMemory { operand: "x", .. }), "{error}");
    let error = layer.forward_into(&x.to_dtype(DType::BF16).unwrap(), &of(2, 12)).unwrap_err();
    assert!(matches!(error, KernelError::DType { operand: "x", .. }), "{error}");
}
