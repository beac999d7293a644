#!/usr/bin/env bash
# On a machine with a GPU, in six minutes: the tests, the times of attention and of generation, and
# PyTorch's beside them.
#
#     tests/gpu.sh build    here, without a GPU: builds the programs twice, for shaders in WGSL and in
#                           SPIR-V, and packs them into target/gpu/programs.tar.xz
#     tests/gpu.sh run      there, in a checkout that target/gpu was carried to: runs them
#     tests/gpu.sh dry      here: what `run` does, in small, on software Vulkan
#
# `run` needs a Vulkan driver and a loader (libvulkan.so.1); python3 with PyTorch for its columns. What
# is missing is said and left out. NVIDIA's driver wants libX11, libXext and libglvnd's libEGL and libGL,
# too: without them no adapter is found, and nobody says why. Reports lie in $OUT, or target/gpu/report. Exit code 1: a test failed.
# PROGRAMS names a folder with the unpacked programs: wgsl/it, spirv/it, spirv/compare and so on.
set -euo pipefail
cd "$(dirname "$0")/.."

packed=target/gpu/programs.tar.xz

# The program that cargo built: the path in its messages.
built() {
    cargo "$@" --release --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1
}

build() {
    local folder=target/gpu/programs shaders features
    rm -rf "$folder"
    for shaders in wgsl spirv; do
        features=flex,import,wgpu
        [ "$shaders" = wgsl ] || features=flex,import,vulkan
        mkdir -p "$folder/$shaders"
        cp "$(built test --features "$features" --test it)" "$folder/$shaders/it"
        cp "$(built test --features "$features" --lib)" "$folder/$shaders/lib"
        [ "$shaders" = spirv ] || continue
        features=${features/,import/}
        cp "$(built bench -p benches --features "$features" --bench compare)" "$folder/$shaders/compare"
        cp "$(built bench -p benches --features "$features" --bench generation)" "$folder/$shaders/generation"
    done
    find "$folder" -type f -exec strip {} +
    # The tests look for their fixtures where they were built.
    pwd >"$folder/root"
    tar -C "$folder" -cJf "$packed" .
    ls -l "$packed"
}

# Seconds that are left of the six minutes, less a few to end in.
begun=$SECONDS
left() { echo $((${budget:-340} - SECONDS + begun)); }

# Runs a program for so many seconds at most; what it says goes to the report of that name, and the end
# of it here. A program that isn't there is said.
part() {
    local name="$1" most="$2" code=0
    shift 2
    [ "$most" -le "$(left)" ] || most=$(left)
    echo "== $name"
    if [ "$most" -lt 5 ]; then
        echo "left out: the time is over"
        return 0
    fi
    if ! command -v "$1" >/dev/null; then
        echo "left out: no $1"
        return 0
    fi
    local start=$SECONDS
    timeout "$most" "$@" >"$report/$name.txt" 2>&1 || code=$?
    tail -n "${lines:-5}" "$report/$name.txt"
    [ "$code" -ne 124 ] || echo "stopped after $most s"
    echo "-- $name: exit code $code, $((SECONDS - start)) s"
    return "$code"
}

run() {
    # Where the tests of the two kinds of shaders run.
    local -A device=([wgsl]="$2" [spirv]="$3")
    local tests="$1" backend="$4" wrong=0
    shift 4
    report="${OUT:-target/gpu/report}"
    mkdir -p "$report"
    programs="${PROGRAMS:-}"
    if [ -z "$programs" ]; then
        programs="$(mktemp -d)"
        tar -C "$programs" -xJf "$packed"
    fi
    if [ -e "$programs/root" ] && [ ! -e "$(cat "$programs/root")" ]; then
        mkdir -p "$(dirname "$(cat "$programs/root")")"
        ln -s "$PWD" "$(cat "$programs/root")"
    fi
    XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-$(mktemp -d)}"
    export XDG_RUNTIME_DIR

    part machine 10 nvidia-smi || true
    # First whether the numbers are right at all, with the table.
    for shaders in wgsl spirv; do
        export BURN_DECODER_TEST_DEVICE="${device[$shaders]}"
        lines=60 part "verify-$shaders" "${verifying:-40}" "$programs/$shaders/it" --nocapture verify::every_kernel_is_right::gpu || wrong=1
    done
    # Then what an hour of waiting would be spent on; the tests take what is left.
    lines=200 part times $((tests / 2)) python3 benches/gpu.py --rust "$programs/spirv/compare" --backend "$backend" \
        --seconds $((tests / 2 - 10)) "$@" || true
    lines=20 part generation 40 "$programs/spirv/generation" "$backend" "${model:-small}" || true
    for shaders in spirv wgsl; do
        export BURN_DECODER_TEST_DEVICE="${device[$shaders]}"
        part "tests-$shaders" "$tests" "$programs/$shaders/it" "${filter[@]}" || wrong=1
        part "kernels-$shaders" 30 "$programs/$shaders/lib" "${kernels[@]}" || wrong=1
    done
    return "$wrong"
}

case "${1:-}" in
build) build ;;
run)
    filter=(gpu waits) kernels=(cube)
    run 240 wgpu vulkan vulkan
    ;;
dry)
    # One test of each kind, a length and a model that software gets through, in a quarter of an hour.
    budget=900 verifying=300
    filter=(backends::a_device_computes waits) kernels=(cube) model=llama
    run 80 cpu cpu software --device cpu --length 64 --flex-length 64 --type f32 --mask causal window --by reference
    ;;
*)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | sed '$d' >&2
    exit 2
    ;;
esac
