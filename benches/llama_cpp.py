"""Tokens a second of one model in this crate, in llama.cpp and in transformers: a prompt, and new tokens behind it, on the CPU.

    pip install gguf xllamacpp torch transformers
    cargo build --release -p generate --no-default-features --features flex
    python benches/llama_cpp.py --generate target/release/generate --gguf FILE.gguf --model FOLDER [--work DIR]

FILE.gguf is a quantised file, FOLDER the same model of Hugging Face's. From the two, F32.gguf, BF16.gguf and Q8_0.gguf are written to
DIR, once. Every competitor then runs once in each round, in a process of its own, and the median of the rounds counts: a machine that
slows down for a while slows all of them. Beside the speeds stands the part of the memory's bandwidth that decoding needs for the
weights alone, measured by a plain sum over 1 GB. Run it with nothing else on the machine.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time


def prompt(length, vocab):
    """Tokens of the vocabulary: which ones does not matter."""
    return [at * 7919 % vocab for at in range(length)]


# ---------------------------------------------------------------- files

def prepare(args):
    """The model of the folder in other types, with all that the file says besides."""
    files = {"GGUF": args.gguf}
    for name in ("F32", "BF16", "Q8_0"):
        files[name] = os.path.join(args.work, f"{name}.gguf")
        if not os.path.exists(files[name]):
            write(args, files[name], name)
    return files


def write(args, path, name):
    import gguf
    import numpy as np
    from safetensors.torch import load_file

    reader = gguf.GGUFReader(args.gguf)
    architecture = reader.fields["general.architecture"].contents()
    with open(os.path.join(args.model, "config.json")) as f:
        config = json.load(f)
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config.get("num_key_value_heads", config["num_attention_heads"])}
    writer = gguf.GGUFWriter(path + ".part", architecture)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        writer.add_key_value(key, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    kind = gguf.GGMLQuantizationType[name]
    arch = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == architecture)
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    for theirs, tensor in load_file(os.path.join(args.model, "model.safetensors")).items():
        base, leaf = theirs.rsplit(".", 1)
        part = base.rsplit(".", 1)[-1]
        t = tensor.float().numpy()
        if architecture == "llama" and part in heads:
            t = t.reshape(heads[part], 2, t.shape[0] // heads[part] // 2, *t.shape[1:]).swapaxes(1, 2).reshape(t.shape)
        of = kind if t.ndim > 1 else gguf.GGMLQuantizationType.F32
        t = np.ascontiguousarray(t)
        writer.add_tensor(f"{names.get_name(base)}.{leaf}", gguf.quants.quantize(t, of) if of != gguf.GGMLQuantizationType.F32 else t, raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.rename(path + ".part", path)


# ---------------------------------------------------------------- competitors, each in a process of its own

def crate(args, file, precision, *options):
    command = [args.generate, "--model", file, "--backend", args.backend, "--precision", precision, "--bench", "--json", "--repetitions", "1",
               "--bench-prompt", str(args.prompt), "--bench-new", str(args.new), "--bench-depth", str(args.prompt), *options]
    environment = dict(os.environ, RAYON_NUM_THREADS=str(args.threads))
    # As .cargo/config.toml has it, also for a program that cargo does not run.
    environment.setdefault("MIMALLOC_PURGE_DELAY", "-1")
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    if run.returncode:
        raise RuntimeError(run.stderr.strip().splitlines()[-1])
    return [test["tokens_per_second"] for test in json.loads(run.stdout)["tests"]]


def alone(args, kind, what):
    """Runs this script again, to measure one competitor of Python's."""
    command = [sys.executable, __file__, "--alone", kind, what, "--threads", str(args.threads), "--prompt", str(args.prompt), "--new", str(args.new),
               "--model", args.model, "--gguf", args.gguf, "--generate", args.generate]
    environment = dict(os.environ, OMP_NUM_THREADS=str(args.threads))
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    if run.returncode:
        raise RuntimeError((run.stderr.strip().splitlines() or ["no output"])[-1])
    return json.loads(run.stdout.splitlines()[-1])


def llama_cpp(args, file):
    import xllamacpp
    params = xllamacpp.CommonParams()
    params.model.path = file
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = args.threads
    params.n_ctx, params.n_parallel, params.n_gpu_layers, params.warmup = args.prompt + args.new + 64, 1, 0, True
    params.verbosity = 0
    server = xllamacpp.Server(params)
    answer = server.handle_completions({"prompt": prompt(args.prompt, 1000), "n_predict": args.new + 1, "temperature": 0, "ignore_eos": True,
                                        "cache_prompt": False})
    answer = json.loads(answer) if isinstance(answer, (str, bytes)) else answer
    timings = answer["timings"]
    assert timings["prompt_n"] == args.prompt and timings["predicted_n"] == args.new + 1, timings
    return [timings["prompt_per_second"], timings["predicted_per_second"]]


def in_transformers(args, kind):
    import torch
    import transformers
    torch.set_num_threads(args.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, kind)).eval()
    tokens = torch.tensor([prompt(args.prompt, model.config.vocab_size)])
    with torch.inference_mode():
        model(tokens[:, :8])
        begin = time.perf_counter()
        out = model(input_ids=tokens, use_cache=True, logits_to_keep=1)
        read = time.perf_counter() - begin
        begin = time.perf_counter()
        for _ in range(args.new):
            out = model(input_ids=out.logits[:, -1:].argmax(-1), past_key_values=out.past_key_values, use_cache=True)
        written = time.perf_counter() - begin
    return [args.prompt / read, args.new / written]


def bandwidth(args, _):
    """Bytes a second of a plain sum over 1 GB, the best of a few: as fast as the machine streams."""
    import torch
    torch.set_num_threads(args.threads)
    numbers = torch.ones(1 << 28)
    best = float("inf")
    for _ in range(7):
        begin = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - begin)
    return [4 * len(numbers) / best, 0]


# ---------------------------------------------------------------- the run

def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--generate", required=True, help="the program of examples/generate")
    p.add_argument("--gguf", required=True, help="a quantised file")
    p.add_argument("--model", required=True, help="the same model as a folder of Hugging Face's")
    p.add_argument("--work", default=".", help="folder for the files that are written")
    p.add_argument("--backend", default="flex")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--prompt", type=int, default=501)
    p.add_argument("--new", type=int, default=128)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--cache", help="the crate's rows once more with keys and values kept so: bf16, for example (llama.cpp's are f16)")
    p.add_argument("--in-memory", action="store_true", help="the crate's rows once more with weights copied out of the mapped file")
    p.add_argument("--only", nargs="*", help="parts of the names of competitors")
    p.add_argument("--json", help="file for the samples")
    p.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.alone:
        kind, what = args.alone
        print(json.dumps({"llama.cpp": llama_cpp, "transformers": in_transformers, "bandwidth": bandwidth}[kind](args, what)))
        return
    os.makedirs(args.work, exist_ok=True)
    files = prepare(args)
    size = {name: os.path.getsize(path) for name, path in files.items()}
    size["float32"], size["bfloat16"] = size["F32"], size["BF16"]
    competitors = {
        "crate F32": (size["F32"], lambda: crate(args, files["F32"], "as-stored")),
        "crate F32, as parameters": (size["F32"], lambda: crate(args, files["F32"], "f32")),
        "crate BF16": (size["BF16"], lambda: crate(args, files["BF16"], "as-stored")),
        "crate Q8_0": (size["Q8_0"], lambda: crate(args, files["Q8_0"], "as-stored")),
        "crate GGUF": (size["GGUF"], lambda: crate(args, files["GGUF"], "as-stored")),
    }
    in_memory, cache = ("in memory", ["--in-memory"]), (f"cache {args.cache}", ["--cache-precision", args.cache])
    asked = [variant for variant, wanted in ((in_memory, args.in_memory), (cache, args.cache)) if wanted]
    if len(asked) == 2:
        asked.append((f"in memory, cache {args.cache}", in_memory[1] + cache[1]))
    for label, options in asked:
        for name in ("BF16", "Q8_0", "GGUF"):
            competitors[f"crate {name}, {label}"] = (size[name], lambda name=name, options=options: crate(args, files[name], "as-stored", *options))
    for name in ("F32", "BF16", "Q8_0", "GGUF"):
        competitors[f"llama.cpp {name}"] = (size[name], lambda name=name: alone(args, "llama.cpp", files[name]))
    for kind in ("float32", "bfloat16"):
        competitors[f"transformers {kind}"] = (size[kind], lambda kind=kind: alone(args, "transformers", kind))
    if args.only:
        competitors = {n: c for n, c in competitors.items() if any(part in n for part in args.only)}
    samples = {name: [] for name in competitors}
    streams = []
    for number in range(args.rounds):
        streams.append(alone(args, "bandwidth", "")[0])
        for name, (_, run) in competitors.items():
            try:
                samples[name].append(run())
            except RuntimeError as error:
                print(f"{name}: {error}", file=sys.stderr)
                continue
            print(f"round {number + 1}: {name}: " + " / ".join(f"{speed:.1f}" for speed in samples[name][-1]), file=sys.stderr, flush=True)
    stream = statistics.median(streams)
    print(f"{args.prompt} tokens of prompt, {args.new} new, {args.threads} threads, medians of {args.rounds} rounds; memory {stream / 1e9:.1f} GB/s\n")
    print("| | file, MB | prefill, tokens/s | decode, tokens/s | of the bandwidth |\n|---|---|---|---|---|")
    for name, (bytes_, _) in competitors.items():
        if samples[name]:
            read, written = (statistics.median(column) for column in zip(*samples[name]))
            print(f"| {name} | {bytes_ / 1e6:.0f} | {read:.0f} | {written:.1f} | {100 * bytes_ * written / stream:.0f} % |")
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"samples": samples, "bandwidth": streams, "bytes": size}, f, indent=1)


if __name__ == "__main__":
    main()
