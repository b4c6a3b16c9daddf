# shellcheck shell=bash
# The basis of every script here: where things are, how to print, how to fail, how to build, how to install.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
model=${FOREBAY_MODEL:-all-minilm-l6-v2}
generator=smollm2-135m-instruct
export -n FOREBAY_MODEL # these scripts' own setting, not one of the programs'

say() { printf '%s\n' "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# The folder of the built programs: binaries release|debug.
binaries() { printf '%s/%s\n' "${CARGO_TARGET_DIR:-$root/target}" "$1"; }

# The points at which a test may make a program fail; no released program has them.
fail_points=forebay-consumer/fail-points,forebay-autoscaler/fail-points

# build release|dev: every program, and the examples. Always with the same selection of packages and features: another
# one would unify features differently and build the dependencies once more. In `dev` it is what `run_tests` builds,
# and the tests of the programs they drive (tests/src/binaries.rs).
build() {
    local selection=(--workspace --bins --examples)
    need_c_compiler
    have cargo || die "cargo is not installed: get a Rust toolchain from https://rustup.rs"
    [[ $1 != dev ]] || selection+=(--features "$fail_points")
    (cd "$root" && cargo build --locked "${selection[@]}" --profile "$1")
}

# pull_models release|debug: the models of the stack and of the tests, by the built program.
pull_models() {
    local name
    for name in "$model" "$generator"; do "$(binaries "$1")/forebay" pull "$name"; done
}

# run_tests ARGUMENTS...: `cargo test` on the programs that `build dev` makes.
run_tests() { cargo test --locked --workspace --features "$fail_points" "$@"; }

# shellcheck source=scripts/lib/install.sh
. "$root/scripts/lib/install.sh"
