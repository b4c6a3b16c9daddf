# shellcheck shell=bash
# The CUDA toolkit: the one of this machine, or one of wheels under .forebay/cuda, which needs no GPU and no driver.

cuda_folder=$root/.forebay/cuda

# have_toolkit FOLDER
have_toolkit() { [[ -x $1/bin/nvcc && -e $1/include/cuda.h ]]; }

# Installs the wheels that a list in this folder names, once, into a folder of their own: cuda_wheels NAME.
cuda_wheels() {
    local wanted=$root/scripts/lib/$1.txt got=$cuda_folder/$1.txt
    cmp --silent "$wanted" "$got" && return
    say "fetching what $1.txt names" >&2
    mkdir -p "$cuda_folder"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --require-hashes \
        --upgrade --target "$cuda_folder/$1" --requirement "$wanted" >&2
    cp "$wanted" "$got" # last: says that all of them are there
}

# A folder as an installed toolkit has it: libraries by their plain names too.
lay_out_toolkit() {
    local from=$cuda_folder/cuda-requirements/nvidia/cu13 to=$cuda_folder/toolkit library
    mkdir -p "$to/lib64"
    ln -sfn "$from/bin" "$to/bin"
    ln -sfn "$from/include" "$to/include"
    ln -sfn "$from/nvvm" "$to/nvvm"
    for library in "$cuda_folder"/cuda-*/nvidia/cu13/lib/*.so.* "$from"/lib/*.a; do
        [[ -e $library ]] || continue
        ln -sf "$library" "$to/lib64/"
        [[ $library == *.a ]] || ln -sf "$library" "$to/lib64/$(basename "${library%%.so.*}.so")"
    done
}

# A driver for programs to be linked with where none is installed, and to start with: it says that it is none. Its
# names are those that cuda.h declares, and those that it has for their newer versions; 34 is CUDA_ERROR_STUB_LIBRARY.
make_stub_driver() {
    local header=$cuda_folder/toolkit/include/cuda.h stubs=$cuda_folder/toolkit/lib64/stubs
    [[ -e $stubs/libcuda.so && -e $stubs/libcuda.so.1 ]] && return
    mkdir -p "$stubs"
    {
        grep --only-matching --extended-regexp '\bcu[A-Z][A-Za-z0-9_]*[[:space:]]*\(' "$header" | tr -d '( \t'
        grep --only-matching --extended-regexp '\bcu[A-Z][A-Za-z0-9]*_v[0-9]+\b' "$header"
    } | sort -u | sed 's/.*/int &(void) { return 34; }/' >"$stubs/libcuda.c"
    cc -shared -fPIC -w -Wl,-soname,libcuda.so.1 -o "$stubs/libcuda.so.1" "$stubs/libcuda.c"
    ln -sfn libcuda.so.1 "$stubs/libcuda.so"
}

# True where an NVIDIA driver is installed.
have_driver() {
    [[ $(ldconfig -p 2>/dev/null) == *'libcuda.so.1 '* ]] || nvidia-smi -L >/dev/null 2>&1
}

# Lets programs find CUDA's libraries: those of CUDA_HOME, or of PyTorch's wheels; and where there is no driver the one
# that says so.
cuda_libraries() {
    local folder
    for folder in "${CUDA_HOME:-/usr/local/cuda}/lib64" "$cuda_folder/toolkit/lib64" \
        "$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null || true)/cu13/lib"; do
        [[ -e $folder/libcublas.so.13 ]] && break
    done
    have_driver || folder+=:$cuda_folder/toolkit/lib64/stubs
    export LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
}

# Sets CUDA_HOME and the rest of what a build with CUDA asks for: cuda_environment compiler, or cuda_environment
# libraries for a program that is linked.
cuda_environment() {
    local found
    for found in "${CUDA_HOME:-}" /usr/local/cuda; do
        [[ -n $found ]] && have_toolkit "$found" && break
        found=
    done
    if [[ -z $found ]]; then
        [[ $(uname -m) == x86_64 ]] || die "no CUDA toolkit here: install one and name it in CUDA_HOME"
        python3 -m pip --version >/dev/null 2>&1 || { can_install && apt_install python3-pip; } ||
            die "pip is missing (Debian: apt-get install python3-pip), or name an installed CUDA toolkit in CUDA_HOME"
        cuda_wheels cuda-requirements
        [[ $1 == compiler ]] || cuda_wheels cuda-libraries
        lay_out_toolkit
        make_stub_driver
        found=$cuda_folder/toolkit
        export CUDARC_CUDA_VERSION=13000
    fi
    export CUDA_HOME=$found PATH=$found/bin:$PATH
}
