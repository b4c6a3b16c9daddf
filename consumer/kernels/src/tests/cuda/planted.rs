//! The executor itself: kernels with one mistake each, which it must find, and name the line of.

use super::executor::{At, Executor, Memory};
use super::program::Program;
use crate::cuda::launch::{Argument, Half, Launch};

/// A kernel of 64 threads, whose body has `out` (64 floats in global memory), `x` (64 halves) and `tile` (64 shared
/// floats).
fn fault_of(body: &str) -> String {
    let source = format!(
        "#include \"device.cuh\"\nKERNEL(64, 1, planted, float* out, const bf16* x) {{\nptx::SharedMemory shared;\n\
         float* tile = shared.take<float>(64);\nbf16* rows = shared.take<bf16>(128);\nuint32_t t = threadIdx.x;\n\
         (void)tile, (void)rows, (void)t, (void)x;\n{body}\n}}\n"
    );
    // The body is line 8.
    let mut memory = Memory::default();
    let out = memory.floats(&[0.0; 64]);
    let x = memory.halves(Half::Bf16, &[1.0; 64]);
    let launch = Launch {
        kernel: "planted".to_owned(),
        grid: [2, 1],
        threads: 64,
        shared_bytes: 512,
        arguments: vec![Argument::<At>::Pointer(out), Argument::Pointer(x)],
    };
    let program = Program::only("planted.cu", &source);
    let result = Executor::instead(&program, || {
        Executor::with(|executor| executor.run(&launch, &mut memory))
    });
    result.err().unwrap_or_default()
}

#[track_caller]
fn assert_fault(body: &str, parts: &[&str]) {
    let fault = fault_of(body);
    for part in parts {
        assert!(fault.contains(part), "{body}\ngives: {fault:?}\nwithout: {part:?}");
    }
}

const LINE: &str = "planted.cu:8";

#[test]
fn a_sound_kernel_is_left_alone() {
    let body =
        "tile[t] = t; __syncthreads(); if (blockIdx.x == 0) out[t] = tile[63 - t] + widen(x[t]);";
    assert_eq!(fault_of(body), "");
}

#[test]
fn a_step_out_of_a_buffer_is_found() {
    assert_fault(
        "out[t + 1] = 0;",
        &[
            LINE,
            "thread 63 of block 0",
            "writes 4 bytes out of bounds",
            "0 bytes past the end of buffer 0",
        ],
    );
    assert_fault("tile[t] = widen(x[t + 60]);", &["reads 2 bytes out of bounds", "buffer 1"]);
    assert_fault("tile[t] = 0; if (t == 0) tile[-1] = 0;", &["before shared array 0"]);
    assert_fault("tile[t] = 0; if (t == 63) tile[64] = 0;", &["past the end of shared array 0"]);
    assert_fault("const float* none = nullptr; out[0] = none[t];", &["a null pointer"]);
}

#[test]
fn a_race_in_shared_memory_is_found() {
    assert_fault(
        "tile[t] = 0; __syncthreads(); tile[t] = t; out[t] = tile[63 - t];",
        &[LINE, "what thread", "a race"],
    );
    assert_fault(
        "tile[t] = t; __syncthreads(); float other = tile[63 - t]; tile[t] = other;",
        &["what thread", "in shared array 0", "a race"],
    );
}

#[test]
fn a_warp_s_barrier_orders_its_own_lanes_alone() {
    assert_eq!(
        fault_of("tile[t] = t; __syncwarp(); if (blockIdx.x == 0) out[t] = tile[t ^ 1];"),
        ""
    );
    assert_fault(
        "tile[t] = 0; __syncthreads(); tile[t] = t; __syncwarp(); out[t] = tile[t ^ 32];",
        &["a race"],
    );
}

#[test]
fn blocks_that_write_the_same_are_a_race() {
    assert_fault(
        "out[t] = blockIdx.x;",
        &["thread 0 of block 1 writes what thread 0 of block 0 writes in buffer 0"],
    );
}

#[test]
fn a_barrier_that_some_threads_miss_is_found() {
    assert_fault(
        "if (t < 32) __syncthreads();",
        &[
            "divergent",
            "thread 0 waits for the block's barrier at planted.cu:8",
            "thread 32 has ended",
        ],
    );
    assert_fault("if (t % 2 == 0) out[0] = warp_sum(1.0f);", &["divergent", "its warp"]);
}

#[test]
fn memory_that_was_never_written_is_not_read() {
    assert_fault(
        "if (t == 0) out[0] = tile[5];",
        &["reads what was never written in shared array 0"],
    );
}

#[test]
fn a_copy_that_is_not_waited_for_is_found() {
    let copy = "if (t < 16) { ptx::copy_async(rows + 8 * t, x + 8 * (t % 8), true); }\nptx::copies_commit();";
    let read = "__syncthreads(); if (blockIdx.x == 0) out[t] = widen(rows[t]);";
    assert_fault(&format!("{copy} {read} ptx::copies_wait<0>();"), &["a copy is under way"]);
    assert_fault(
        &format!("{copy} ptx::copies_wait<1>(); {read} ptx::copies_wait<0>();"),
        &["a copy is under way"],
    );
    assert_fault(
        &format!(
            "rows[t] = rows[t + 64] = x[t]; __syncthreads(); {copy} ptx::copies_wait<0>(); \
             out[t] = widen(rows[127 - t]);"
        ),
        &["a race"],
    );
    assert_fault(copy, &["ends while a copy"]);
    assert_eq!(fault_of(&format!("{copy} ptx::copies_wait<0>(); {read}")), "");
}

#[test]
fn an_address_that_is_not_aligned_is_found() {
    assert_fault(
        "float row[8]; load8(row, x + 1, 8, true); out[t] = row[0];",
        &["no multiple of 16"],
    );
}

#[test]
fn more_shared_memory_than_the_launch_asked_for_is_found() {
    assert_fault(
        "shared.take<float>(8);",
        &["takes 544 bytes of shared memory, its launch asked for 512"],
    );
}

/// 16 x 16 times 16 x 8 by hand, with the fragments as `fragment` fills them from `x`, whose values are all different.
fn multiply(fragment: &str) -> Vec<f32> {
    let source = format!(
        "#include \"device.cuh\"\nKERNEL(32, 1, planted, float* out, const bf16* x) {{\n\
         uint32_t g = threadIdx.x / 4, p = threadIdx.x % 4 * 2, a[4];\n\
         auto pair = [&](uint32_t row, uint32_t column) {{\n\
         const bf16* at = x + row * 16 + column;\n\
         return ptx::round_pair<bf16>(widen(at[0]), widen(at[1])); }};\n\
         {fragment}\nfloat sums[4] = {{}};\nptx::mma<bf16>(sums, a, pair(g, p), pair(g, p + 8));\n\
         for (uint32_t i = 0; i < 4; ++i) out[(g + i / 2 * 8) * 8 + p + i % 2] = sums[i];\n}}\n"
    );
    let mut memory = Memory::default();
    let out = memory.floats(&[0.0; 128]);
    let x: Vec<f32> = (0..256).map(|at| ((at * 37) % 251) as f32).collect();
    let x = memory.halves(Half::Bf16, &x);
    let launch = Launch {
        kernel: "planted".to_owned(),
        grid: [1, 1],
        threads: 32,
        shared_bytes: 0,
        arguments: vec![Argument::Pointer(out), Argument::Pointer(x)],
    };
    Executor::instead(&Program::only("planted.cu", &source), || {
        Executor::with(|executor| executor.run(&launch, &mut memory)).unwrap();
    });
    memory.read_floats(out)
}

#[test]
fn a_wrong_fragment_gives_a_wrong_matrix_product() {
    let at = |row: usize, column: usize| (((row * 16 + column) * 37) % 251) as f32;
    let cell = |row: usize, column: usize| (0..16).map(|k| at(row, k) * at(column, k)).sum::<f32>();
    let expected: Vec<f32> = (0..128).map(|index| cell(index / 8, index % 8)).collect();
    let right = "a[0] = pair(g, p); a[1] = pair(g + 8, p); a[2] = pair(g, p + 8); a[3] = pair(g + 8, p + 8);";
    assert_eq!(multiply(right), expected);
    // As the fragments of an 8 x 16 matrix product would lie: columns before rows.
    let wrong = "a[0] = pair(g, p); a[1] = pair(g, p + 8); a[2] = pair(g + 8, p); a[3] = pair(g + 8, p + 8);";
    assert_ne!(multiply(wrong), expected);
}
