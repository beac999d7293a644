"""Attention on one GPU: this crate, Burn's own operation, and PyTorch's SDPA and FlexAttention, case by case in turn.

    cargo bench -p benches --features flex,vulkan --bench compare --no-run        # says where the program is
    python benches/gpu.py --rust PATH --backend vulkan [--length 4096 512 ...] [--mask causal full window packed] ...

Prints a Markdown table of milliseconds, a row as soon as it is known, and stops when --seconds are over: the first
lengths are the most wanted ones. 8 heads x 64, batch 1; f32 as f32 (no TF32), and bf16. Where there is no PyTorch, or
none for CUDA, its columns stay empty. A GPU works while the host goes on, so every run ends with a synchronisation.
The window is of 256 keys, `packed` of eight documents; FlexAttention gets the same masks as block masks, SDPA as a
dense matrix where it knows no better.
"""

import argparse
import shutil
import subprocess
import sys
import time

HEADS, HEAD_DIM = 8, 64
# What stores all weights takes gigabytes from here on.
LONGEST_WITH_WEIGHTS = 4096


def median_ms(step, wait, budget=1.5, least=3, most=40, warm_up=3, warm_up_seconds=0.5):
    """The rule of src/lib.rs."""
    start, runs = time.perf_counter(), 0
    while runs < warm_up or time.perf_counter() - start < warm_up_seconds:
        step()
        wait()
        runs += 1
    times, start = [], time.perf_counter()
    while len(times) < least or (time.perf_counter() - start < budget and len(times) < most):
        begin = time.perf_counter()
        step()
        wait()
        times.append((time.perf_counter() - begin) * 1e3)
    return sorted(times)[len(times) // 2]


class Rust:
    """The program `compare`, one process for each author."""

    def __init__(self, program):
        self.program = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, text):
        try:
            self.program.stdin.write(text + "\n")
            self.program.stdin.flush()
            return self.program.stdout.readline().strip()
        except BrokenPipeError:
            return ""  # it has panicked

    def measure(self, case):
        answer = self.ask(case)
        try:
            return float(answer)
        except ValueError:
            print(f"{case}: {answer or 'no answer'}", file=sys.stderr)
            return None


class Torch:
    """SDPA and FlexAttention; None where this PyTorch can't."""

    def __init__(self, device):
        import torch

        self.torch, self.device, self.compiled = torch, device, None
        # Each mask, length and type is a compilation; beyond eight, FlexAttention would fall back.
        torch._dynamo.config.recompile_limit = 256
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        self.wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def name(self):
        where = self.torch.cuda.get_device_name() if self.device == "cuda" else "its CPU"
        return f"PyTorch {self.torch.__version__} on {where}"

    def leaves(self, training, length, dtype):
        dtype = {"f32": self.torch.float32, "bf16": self.torch.bfloat16}[dtype]
        shape = (1, HEADS, length, HEAD_DIM)
        return [
            self.torch.rand(shape, device=self.device, dtype=dtype, requires_grad=training) for _ in range(3)]

    def rule(self, mask, length):
        """The visible cells as FlexAttention asks for them, or None for all."""
        document = max(length // 8, 1)
        return {
            "full": None,
            "causal": lambda b, h, q, k: q >= k,
            "window": lambda b, h, q, k: (q >= k) & (q - k < 256),
            "packed": lambda b, h, q, k: (q >= k) & (q // document == k // document),
        }[mask]

    def median(self, attention, leaves, training):
        def step():
            for leaf in leaves:
                leaf.grad = None
            out = attention(*leaves)
            if training:
                out.sum().backward()

        return median_ms(step, self.wait)

    def sdpa(self, mask, training, length, dtype):
        leaves = self.leaves(training, length, dtype)
        options = {"is_causal": mask == "causal"}
        if mask in ("window", "packed"):
            query = self.torch.arange(length, device=self.device)
            options["attn_mask"] = self.rule(mask, length)(0, 0, query[:, None], query[None, :])
        attention = self.torch.nn.functional.scaled_dot_product_attention
        return self.median(lambda q, k, v: attention(q, k, v, **options), leaves, training)

    def flex(self, mask, training, length, dtype):
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        if self.compiled is None:
            # Without its compiler it stores all weights: the rule of a test, not of a measurement.
            self.compiled = self.torch.compile(flex_attention) if self.device == "cuda" else flex_attention
        rule = self.rule(mask, length)
        blocks = None
        if rule is not None:
            blocks = create_block_mask(rule, None, None, length, length, device=self.device)
        leaves = self.leaves(training, length, dtype)
        return self.median(lambda q, k, v: self.compiled(q, k, v, block_mask=blocks), leaves, training)


def torch_or_none(device):
    try:
        import torch
    except ImportError:
        return None
    if device == "cuda" and not torch.cuda.is_available():
        return None
    return Torch(device)


def attempt(measure, *case):
    try:
        return measure(*case)
    except Exception as error:  # whatever PyTorch can't do is an empty cell
        print(f"{measure.__name__} {case}: {str(error).splitlines()[0]}", file=sys.stderr)
        return None


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--rust", help="the program of `--bench compare`")
    args.add_argument("--backend", nargs="+", default=["vulkan"])
    args.add_argument("--by", nargs="+", default=["fused", "reference", "burn"])
    args.add_argument("--length", nargs="+", type=int, default=[4096, 1024, 16384, 512, 2048, 8192])
    args.add_argument("--mask", nargs="+", default=["causal", "full", "window", "packed"])
    args.add_argument("--pass", dest="kinds", nargs="+", default=["forward", "training"])
    args.add_argument("--type", dest="types", nargs="+", default=["f32", "bf16"])
    args.add_argument("--flex-length", nargs="+", type=int, default=[4096, 16384], help="each is a compilation")
    args.add_argument("--device", default="cuda", help="PyTorch's")
    args.add_argument("--seconds", type=float, default=150)
    args = args.parse_args()
    start = time.monotonic()

    torch = torch_or_none(args.device)
    rust = {}
    if args.rust and shutil.which(args.rust):
        rust = {f"{by}@{backend}": Rust(args.rust) for backend in args.backend for by in args.by}
    print("PyTorch: " + (torch.name() if torch else "none here"))
    for author, program in rust.items():
        print(f"{author}: {program.ask('adapter@' + author.split('@')[1])}")
    columns = ["case", "SDPA", "FlexAttention", *rust]
    print("\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
    cases = [
        (mask, kind, length, dtype) for length in args.length for dtype in args.types
        for mask in args.mask for kind in args.kinds]
    for at, (mask, kind, length, dtype) in enumerate(cases):
        if time.monotonic() - start > args.seconds:
            print(f"\nThe time is over: {len(cases) - at} of {len(cases)} cases were not measured.")
            break
        case, times = (mask, kind == "training", length, dtype), []
        times.append(attempt(torch.sdpa, *case) if torch else None)
        wants_flex = torch and length in args.flex_length
        times.append(attempt(torch.flex, *case) if wants_flex else None)
        for author, program in rust.items():
            by, backend = author.split("@")
            if by in ("reference", "burn") and length > LONGEST_WITH_WEIGHTS:
                times.append(None)
                continue
            place = backend if dtype == "f32" else f"{backend}:{dtype}"
            times.append(program.measure(f"{by}@{place}/op/{mask}/{kind}/{length}"))
        cells = [f"{dtype} {mask}/{kind}/{length}", *("" if ms is None else f"{ms:.3g}" for ms in times)]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
