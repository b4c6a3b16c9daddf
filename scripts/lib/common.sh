# shellcheck shell=bash
# The basis of every script here: where things are, how to print, how to fail, how to build, how to install.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
model=${FOREBAY_MODEL:-all-minilm-l6-v2}
export -n FOREBAY_MODEL # these scripts' own setting, not one of the programs'

say() { printf '%s\n' "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# The folder of the built programs: binaries release|debug.
binaries() { printf '%s/%s\n' "${CARGO_TARGET_DIR:-$root/target}" "$1"; }

# build release|dev: every program, and optimised the demo too. Always with the same selection of packages: another one
# would unify features differently and build the dependencies once more. In `dev` it is the selection of the tests.
build() {
    local selection=(--workspace --bins)
    need_c_compiler
    have cargo || die "cargo is not installed: get a Rust toolchain from https://rustup.rs"
    [[ $1 == dev ]] || selection+=(--examples)
    (cd "$root" && cargo build --locked "${selection[@]}" --profile "$1")
}

# shellcheck source=scripts/lib/install.sh
. "$root/scripts/lib/install.sh"
