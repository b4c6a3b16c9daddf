//! Mistakes planted in the kernels themselves, each of which must make their checks fail: or these would prove nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::Setting;
use super::executor::Executor;
use super::program::Program;
use super::{
    add_layer_norm, bias_activation, embed_layer_norm, linear_layer_norm, linear_sm90a,
    pool_normalize, rotary, varlen_attention,
};
use crate::cuda::launch::Half;
use crate::{Activation, Finish, Mask, Pooling};

/// Plants one mistake and runs a check that passes without it.
#[track_caller]
fn assert_caught(file: &str, piece: &str, mistake: &str, check: impl Fn()) {
    check();
    let program = Program::kernels().with(file, piece, mistake);
    let result = Executor::instead(&program, || catch_unwind(AssertUnwindSafe(&check)));
    assert!(result.is_err(), "{file}: no check fails with {mistake:?} instead of {piece:?}");
}

fn attend() {
    varlen_attention::check(Setting::plain(2, 32), Half::F16, &[70, 1, 33], true, 0, 3);
}

fn attend_masked() {
    varlen_attention::check(
        Setting { mask: Mask::Window(20), ..Setting::plain(2, 40) },
        Half::F16,
        &[150],
        false,
        0,
        3,
    );
}

fn attend_long() {
    varlen_attention::check(Setting::plain(1, 32), Half::F16, &[250], false, 0, 3);
}

fn feed_forward() {
    super::feed_forward::check(Half::F16, [40, 64], 4);
}

#[test]
fn attention_with_a_wrong_scale() {
    assert_caught(
        "varlen_attention.cu",
        "scores[column][i] * scale",
        "scores[column][i] * (scale / 2)",
        attend,
    );
}

#[test]
fn attention_that_misses_the_tail_of_keys() {
    assert_caught(
        "varlen_attention.cu",
        "bool seen = key < where.tokens && ",
        "bool seen = ",
        attend,
    );
}

#[test]
fn attention_without_the_barrier_after_its_copies() {
    assert_caught(
        "varlen_attention.cu",
        "    }\n    __syncthreads();\n    const",
        "    }\n    const",
        attend,
    );
}

#[test]
fn attention_without_the_barrier_before_its_next_copies() {
    assert_caught(
        "varlen_attention.cu",
        "    __syncthreads();  // before",
        "    // before",
        attend_long,
    );
}

#[test]
fn attention_that_does_not_wait_for_its_copies() {
    assert_caught(
        "varlen_attention.cu",
        "ptx::copies_wait<1>();",
        "ptx::copies_wait<2>();",
        attend_long,
    );
}

#[test]
fn attention_with_swapped_halves_of_a_fragment() {
    assert_caught(
        "varlen_attention.cu",
        "scores[2 * step + part / 2]",
        "scores[2 * step + part % 2]",
        attend,
    );
}

#[test]
fn attention_that_keeps_old_sums_when_the_largest_score_grows() {
    assert_caught("varlen_attention.cu", "total[row] *= keep;", "", attend_masked);
}

#[test]
fn attention_that_stores_queries_that_are_not_there() {
    assert_caught("varlen_attention.cu", "if (queries[row] >= where.tokens) continue;", "", attend);
}

#[test]
fn attention_without_the_values_bias() {
    assert_caught(
        "varlen_attention.cu",
        "a.bias + 2 * hidden + where.head * dim",
        "a.bias + hidden + where.head * dim",
        attend,
    );
}

#[test]
fn attention_whose_window_is_one_short() {
    assert_caught(
        "varlen_attention.cu",
        "key <= query + a.after",
        "key < query + a.after",
        attend_masked,
    );
}

#[test]
fn a_norm_that_counts_what_lies_beyond_the_row() {
    let check = || add_layer_norm::check(Half::F16, [5, 44], false, true, 0, 3);
    assert_caught(
        "device.cuh",
        "j < count(i) ? values[i][j] - mean : 0.0f",
        "values[i][j] - mean",
        check,
    );
}

#[test]
fn a_row_that_is_stored_past_its_end() {
    let check = || add_layer_norm::check(Half::F16, [5, 44], false, true, 0, 3);
    assert_caught(
        "device.cuh",
        "if (i < count) to[i] = narrow<T>(values[i]);",
        "to[i] = narrow<T>(values[i]);",
        check,
    );
}

#[test]
fn a_vector_that_is_loaded_where_none_begins() {
    let check = || add_layer_norm::check(Half::F16, [5, 64], false, false, 2, 3);
    assert_caught(
        "device.cuh",
        "reinterpret_cast<uintptr_t>(pointer) % 16 == 0",
        "pointer != nullptr",
        check,
    );
}

#[test]
fn embeddings_of_the_wrong_position() {
    let check = || embed_layer_norm::check(Half::F16, &[3, 9], 40, true, true, 0, 3);
    assert_caught(
        "embed_layer_norm.cu",
        "first_position + token_positions[token]",
        "token_positions[token]",
        check,
    );
}

#[test]
fn pooling_without_the_barrier_between_its_warps() {
    let finishes = [Finish::default(); 2];
    let check = || pool_normalize::check(Half::F16, &[3, 9], 40, Pooling::Mean, &finishes, 3);
    assert_caught("pool_normalize.cu", "__syncthreads();", "", check);
}

#[test]
fn an_activation_of_the_wrong_sum() {
    let check = || bias_activation::check(Half::F16, [4, 20], true, Activation::Gelu, 0, 3);
    assert_caught("bias_activation.cu", "bias + column, count", "bias, count", check);
}

#[test]
fn rotation_the_other_way() {
    let check = || rotary::check(Half::F16, &[9], 2, 8, 3);
    assert_caught("rotary.cu", "a * cosine - b * sine", "a * cosine + b * sine", check);
}

#[test]
fn whole_rows_without_the_barrier_of_their_sums() {
    assert_caught("whole_rows.cuh", "    __syncthreads();\n", "", feed_forward);
}

#[test]
fn whole_rows_that_use_one_scratch_twice() {
    assert_caught("whole_rows.cuh", "scratch + ROWS * COLUMN_WARPS", "scratch", feed_forward);
}

#[test]
fn a_feed_forward_half_that_multiplies_before_all_is_wide() {
    assert_caught(
        "feed_forward.cu",
        "up_bias + at);\n    __syncthreads();",
        "up_bias + at);",
        feed_forward,
    );
}

#[test]
fn a_feed_forward_half_with_the_bias_of_another_step() {
    assert_caught("feed_forward.cu", "up_bias + at);", "up_bias);", feed_forward);
}

#[test]
fn a_matrix_product_of_rows_that_are_not_there() {
    let check = || linear_layer_norm::check(Half::F16, [40, 40, 384], 3);
    assert_caught(
        "whole_rows.cuh",
        "row < from_rows && column < from_columns",
        "column < from_columns",
        check,
    );
}

fn hopper_linear() {
    linear_sm90a::check_linear(Half::F16, [130, 200, 232], (Activation::Gelu, true), 5);
}

fn hopper_layer_norm() {
    linear_sm90a::check_layer_norm(Half::F16, [130, 328], true, 6);
}

#[test]
fn a_tile_whose_pieces_lie_in_their_own_order() {
    assert_caught("linear_sm90a.cu", "(piece ^ first % 8)", "piece", hopper_linear);
}

#[test]
fn a_tile_of_the_other_warpgroup() {
    assert_caught(
        "linear_sm90a.cu",
        "threadIdx.x / (GROUP_WARPS * WARP) * GROUP_ROWS * TILE_DEPTH",
        "0",
        hopper_linear,
    );
}

#[test]
fn sums_that_are_read_before_they_are_whole() {
    assert_caught("linear_sm90a.cu", "    ptx::wgmma_wait<0>();\n", "", hopper_layer_norm);
}

#[test]
fn tiles_that_are_overwritten_while_they_are_read() {
    assert_caught("linear_sm90a.cu", "      ptx::wgmma_wait<PENDING>();\n", "", hopper_linear);
}

#[test]
fn tiles_that_are_read_before_all_copies_are_there() {
    assert_caught(
        "linear_sm90a.cu",
        "      __syncthreads();  // all copies",
        "      // all copies",
        hopper_linear,
    );
}

#[test]
fn a_depth_whose_tail_is_not_cut() {
    assert_caught("linear_sm90a.cu", "piece * VECTOR < depth;", "true;", hopper_linear);
}

#[test]
fn a_norm_over_half_of_its_row() {
    assert_caught(
        "linear_sm90a.cu",
        "total[half] += own[sum] + own[sum + 1];",
        "total[half] += own[sum];",
        hopper_layer_norm,
    );
}
