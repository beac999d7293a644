"""Measures this crate, Burn and PyTorch in one run, case by case in turn, and prints a Markdown table of ratios.

    cargo bench -p benches --features flex --bench compare --no-run
    python benches/compare.py [--length 512 1024 2048 4096] [--what op small mha layer copy] ...

Needs PyTorch (`pip install torch` in a virtual environment outside of the checkout). Run it with nothing else on the
machine. A time is the least of the medians of `--rounds` rounds, in which all authors take turns.
"""

import argparse
import os
import pathlib
import subprocess

RUST = ["fused@flex", "fused@ndarray", "burn@flex", "burn@ndarray"]


def rust_program(command):
    """Starts the Rust side; returns a function from a case to milliseconds, or None if it refused."""
    program = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=pathlib.Path(__file__).parent.parent)

    def measure(case):
        program.stdin.write(case + "\n")
        program.stdin.flush()
        answer = program.stdout.readline().strip()
        try:
            return float(answer)
        except ValueError:
            return None

    return measure


def show(ms):
    return "" if ms is None else f"{ms:.3g}"


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--what", nargs="+", default=["op"])
    args.add_argument("--mask", nargs="+", default=["causal", "full"])
    args.add_argument("--pass", dest="kinds", nargs="+", default=["forward", "training"])
    args.add_argument("--length", nargs="+", type=int, default=[512, 1024, 2048, 4096])
    args.add_argument("--by", nargs="+", default=RUST)
    args.add_argument("--burn-up-to", type=int, default=2048, help="no case of Burn's with more tokens")
    args.add_argument("--rounds", type=int, default=2)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--rust-threads", default="global", help="global, pool or spinning")
    args.add_argument(
        "--rust", nargs="+", default=["cargo", "bench", "-q", "-p", "benches", "--features", "flex", "--bench", "compare"])
    args = args.parse_args()
    # What comes after "--" goes to the bench itself.
    args.rust += (["--"] if args.rust[0] == "cargo" else []) + ["--threads", args.rust_threads]
    import torch

    import pytorch

    torch.set_num_threads(args.threads)
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)
    # As .cargo/config.toml has it, also for a program that cargo does not run.
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", "-1")
    # Each author in a process of its own, as its users have it.
    measure_rust = {by: rust_program(args.rust) for by in args.by}

    print(f"Milliseconds, and in brackets the ratio to PyTorch {torch.__version__}, {args.threads} threads.\n")
    print("| case | PyTorch | " + " | ".join(args.by) + " |")
    print("|---|---|" + "---|" * len(args.by))
    cases = [
        f"{what}/{mask}/{kind}/{length}"
        for what in args.what for mask in args.mask for kind in args.kinds for length in args.length]
    for case in cases:
        times = {}
        for _ in range(args.rounds):
            for by in ["torch", *args.by]:
                if by.startswith("burn") and int(case.split("/")[-1]) > args.burn_up_to:
                    continue
                ms = pytorch.measure(case) if by == "torch" else measure_rust[by](f"{by}/{case}")
                if ms is not None:
                    times[by] = min(ms, times.get(by, ms))
        torch_ms = times["torch"]
        cells = [f"{show(times[by])} ({times[by] / torch_ms:.2f})" if by in times else "" for by in args.by]
        print(f"| {case} | {show(torch_ms)} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
