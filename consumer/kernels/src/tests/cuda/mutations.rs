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
fn attention_with_a_wrong_scale_is_caught() {
    assert_caught(
        "varlen_attention.cu",
        "scores[column][i] * scale",
        "scores[column][i] * (scale / 2)",
        attend,
    );
}

#[test]
fn counting_keys_past_a_sequences_end_is_caught() {
    assert_caught(
        "varlen_attention.cu",
        "bool seen = key < where.tokens && ",
        "bool seen = ",
        attend,
    );
}

#[test]
fn removing_attentions_barrier_after_its_copies_is_caught() {
    assert_caught(
        "varlen_attention.cu",
        "    }\n    __syncthreads();\n    const",
        "    }\n    const",
        attend,
    );
}

#[test]
fn removing_attentions_barrier_before_its_next_copies_is_caught() {
    assert_caught(
        "varlen_attention.cu",
        "    __syncthreads();  // before",
        "    // before",
        attend_long,
    );
}

#[test]
fn not_waiting_for_attentions_copies_is_caught() {
    assert_caught(
        "varlen_attention.cu",
        "ptx::copies_wait<1>();",
        "ptx::copies_wait<2>();",
        attend_long,
    );
}

#[test]
fn swapping_halves_of_an_attention_fragment_is_caught() {
    assert_caught(
        "varlen_attention.cu",
        "scores[2 * step + part / 2]",
        "scores[2 * step + part % 2]",
        attend,
    );
}

#[test]
fn not_rescaling_attentions_sums_is_caught() {
    assert_caught("varlen_attention.cu", "total[row] *= keep;", "", attend_masked);
}

#[test]
fn storing_queries_past_a_sequences_end_is_caught() {
    assert_caught("varlen_attention.cu", "if (queries[row] >= where.tokens) continue;", "", attend);
}

#[test]
fn adding_the_keys_bias_to_values_is_caught() {
    assert_caught(
        "varlen_attention.cu",
        "a.bias + 2 * hidden + where.head * dim",
        "a.bias + hidden + where.head * dim",
        attend,
    );
}

#[test]
fn a_window_that_is_one_short_is_caught() {
    assert_caught(
        "varlen_attention.cu",
        "key <= query + a.after",
        "key < query + a.after",
        attend_masked,
    );
}

#[test]
fn counting_values_beyond_the_row_in_a_norm_is_caught() {
    let check = || add_layer_norm::check(Half::F16, [5, 44], false, true, 0, 3);
    assert_caught(
        "device.cuh",
        "j < count(i) ? values[i][j] - mean : 0.0f",
        "values[i][j] - mean",
        check,
    );
}

#[test]
fn storing_a_row_past_its_end_is_caught() {
    let check = || add_layer_norm::check(Half::F16, [5, 44], false, true, 0, 3);
    assert_caught(
        "device.cuh",
        "if (i < count) to[i] = narrow<T>(values[i]);",
        "to[i] = narrow<T>(values[i]);",
        check,
    );
}

#[test]
fn loading_a_vector_from_an_unaligned_address_is_caught() {
    let check = || add_layer_norm::check(Half::F16, [5, 64], false, false, 2, 3);
    assert_caught(
        "device.cuh",
        "reinterpret_cast<uintptr_t>(pointer) % 16 == 0",
        "pointer != nullptr",
        check,
    );
}

#[test]
fn embedding_the_wrong_position_is_caught() {
    let check = || embed_layer_norm::check(Half::F16, &[3, 9], 40, true, true, 0, 3);
    assert_caught(
        "embed_layer_norm.cu",
        "first_position + token_positions[token]",
        "token_positions[token]",
        check,
    );
}

#[test]
fn removing_the_barrier_of_pooling_is_caught() {
    let finishes = [Finish::default(); 2];
    let check = || pool_normalize::check(Half::F16, &[3, 9], 40, Pooling::Mean, &finishes, 3);
    assert_caught("pool_normalize.cu", "__syncthreads();", "", check);
}

#[test]
fn adding_the_bias_of_another_column_is_caught() {
    let check = || bias_activation::check(Half::F16, [4, 20], true, Activation::Gelu, 0, 3);
    assert_caught("bias_activation.cu", "bias + column, count", "bias, count", check);
}

#[test]
fn rotating_the_other_way_is_caught() {
    let check = || rotary::check(Half::F16, &[9], 2, 8, 3);
    assert_caught("rotary.cu", "a * cosine - b * sine", "a * cosine + b * sine", check);
}

#[test]
fn removing_the_barrier_of_row_sums_is_caught() {
    assert_caught("whole_rows.cuh", "    __syncthreads();\n", "", feed_forward);
}

#[test]
fn using_one_scratch_for_two_row_sums_is_caught() {
    assert_caught("whole_rows.cuh", "scratch + ROWS * COLUMN_WARPS", "scratch", feed_forward);
}

#[test]
fn removing_the_barrier_after_the_up_projection_is_caught() {
    assert_caught(
        "feed_forward.cu",
        "up_bias + at);\n    __syncthreads();",
        "up_bias + at);",
        feed_forward,
    );
}

#[test]
fn adding_the_bias_of_another_step_is_caught() {
    assert_caught("feed_forward.cu", "up_bias + at);", "up_bias);", feed_forward);
}

#[test]
fn reading_past_the_last_row_is_caught() {
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
fn not_swizzling_a_tile_is_caught() {
    assert_caught("linear_sm90a.cu", "(piece ^ first % 8)", "piece", hopper_linear);
}

#[test]
fn multiplying_the_tile_of_another_warpgroup_is_caught() {
    assert_caught(
        "linear_sm90a.cu",
        "threadIdx.x / (GROUP_WARPS * WARP) * GROUP_ROWS * TILE_DEPTH",
        "0",
        hopper_linear,
    );
}

#[test]
fn reading_sums_before_wgmma_is_done_is_caught() {
    assert_caught("linear_sm90a.cu", "    ptx::wgmma_wait<0>();\n", "", hopper_layer_norm);
}

#[test]
fn overwriting_tiles_while_they_are_read_is_caught() {
    assert_caught("linear_sm90a.cu", "      ptx::wgmma_wait<PENDING>();\n", "", hopper_linear);
}

#[test]
fn reading_tiles_before_their_copies_are_done_is_caught() {
    assert_caught(
        "linear_sm90a.cu",
        "      __syncthreads();  // all copies",
        "      // all copies",
        hopper_linear,
    );
}

#[test]
fn reading_past_the_depth_is_caught() {
    assert_caught("linear_sm90a.cu", "piece * VECTOR < depth;", "true;", hopper_linear);
}

#[test]
fn normalizing_by_half_of_a_row_is_caught() {
    assert_caught(
        "linear_sm90a.cu",
        "total[half] += own[sum] + own[sum + 1];",
        "total[half] += own[sum];",
        hopper_layer_norm,
    );
}
