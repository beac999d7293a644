#!/usr/bin/env python3
"""The recipe of nanoGPT's README for a CPU, by this example and by PyTorch, in one run.

    python pytorch.py TEXT --program target/release/train --backend flex --backend ndarray

Characters, 4 layers, 4 heads, d_model 128, 64 tokens, batch 12, 2000 steps, no dropout. Both start from the same weights
(a folder that this script writes and `train --from` loads), read the same rows in the same order, decay the same
parameters and validate on the same rows. PyTorch runs eagerly, with its fused AdamW and its fused attention.
"""
import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

MASK = (1 << 64) - 1
SEPARATOR = "<|endoftext|>"


def mix(x):
    """SplitMix64, as in src/rows.rs."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def draw(seed, place, below):
    return (mix((mix(seed) + place) & MASK) * below) >> 64


class Block(nn.Module):
    def __init__(self, d_model, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.c_attn, self.attn_proj = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.c_fc, self.mlp_proj = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)

    def forward(self, x):
        rows, queries, d_model = x.shape
        parts = self.c_attn(self.ln_1(x)).split(d_model, dim=2)
        q, k, v = (part.view(rows, queries, self.heads, -1).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn_proj(y.transpose(1, 2).reshape(rows, queries, d_model))
        return x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x))))


class Gpt(nn.Module):
    def __init__(self, vocabulary, context, layers, heads, d_model):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, d_model), nn.Embedding(context, d_model)
        self.h = nn.ModuleList(Block(d_model, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(d_model)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                ends = name.endswith("_proj.weight")
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if ends else 0.02)

    def loss(self, rows):
        read, said = rows[:, :-1], rows[:, 1:]
        x = self.wte(read) + self.wpe.weight[: read.shape[1]]
        for block in self.h:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1), said.flatten())

    def to_folder(self, folder, characters):
        """As transformers would write it; its Conv1D has weights transposed."""
        names = {"c_attn": "attn.c_attn", "attn_proj": "attn.c_proj", "c_fc": "mlp.c_fc", "mlp_proj": "mlp.c_proj"}
        tensors = {}
        for name, value in self.state_dict().items():
            for ours, theirs in names.items():
                if f".{ours}." in name:
                    name = name.replace(ours, theirs)
                    value = value.T if name.endswith("weight") else value
                    break
            tensors["transformer." + name] = value.contiguous()
        save_file(tensors, folder / "model.safetensors")
        separator = len(characters)
        block = self.h[0]
        (folder / "config.json").write_text(json.dumps({
            "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": separator + 1,
            "n_positions": self.wpe.num_embeddings, "n_embd": self.wte.embedding_dim, "n_layer": len(self.h),
            "n_head": block.heads, "n_inner": block.c_fc.out_features, "activation_function": "gelu",
            "layer_norm_epsilon": 1e-5, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0,
            "tie_word_embeddings": True, "bos_token_id": separator, "eos_token_id": separator}))
        (folder / "tokenizer.json").write_text(json.dumps({
            "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": None,
            "post_processor": None, "decoder": {"type": "Fuse"},
            "added_tokens": [{"id": separator, "content": SEPARATOR, "single_word": False, "lstrip": False,
                              "rstrip": False, "normalized": False, "special": True}],
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {c: i for i, c in enumerate(characters)}, "merges": []}}))


def train(model, stream, args):
    """Gives the lowest validation loss and the seconds of the whole loop."""
    at = len(stream) - int(len(stream) * 0.1)
    training, held_out = stream[:at], stream[at:]
    window = np.arange(args.context + 1)
    rows_of = lambda source, starts: torch.from_numpy(source[np.asarray(starts)[:, None] + window])
    count = min(240, (len(held_out) - 1) // args.context)
    last = len(held_out) - 1 - args.context
    valid = rows_of(held_out, [i * last // (count - 1) for i in range(count)])
    named = list(model.named_parameters())
    decays = lambda name, p: p.dim() == 2 and not name.startswith(("wte", "wpe"))
    optimizer = torch.optim.AdamW(
        [{"params": [p for n, p in named if decays(n, p)], "weight_decay": 0.1},
         {"params": [p for n, p in named if not decays(n, p)], "weight_decay": 0.0}],
        lr=1e-3, betas=(0.9, 0.99), eps=1e-8, fused=True)
    begun, losses = time.perf_counter(), []
    for step in range(args.steps):
        places = range(step * args.batch, (step + 1) * args.batch)
        rows = rows_of(training, [draw(1337, place, len(training) - args.context) for place in places])
        if step < args.warm_up:
            rate = 1e-3 * (step + 1) / (args.warm_up + 1)
        else:
            done = (step - args.warm_up) / (args.steps - args.warm_up)
            rate = 1e-4 + 0.5 * (1e-3 - 1e-4) * (1 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = model.loss(rows)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        if (step + 1) % args.validate_every == 0:
            with torch.no_grad():
                losses.append(np.mean([model.loss(part).item() for part in valid.split(30)]))
    return min(losses), time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--program", required=True, help="the built example, target/release/train")
    parser.add_argument("--backend", action="append", default=[])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--validate-every", type=int, default=250)
    parser.add_argument("--warm-up", type=int, default=100)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="repeats, one program after the other")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1337)
    text = args.text.read_text(encoding="utf-8")
    characters = sorted(set(text))
    ids = {c: i for i, c in enumerate(characters)}
    stream = np.array([len(characters)] + [ids[c] for c in text], dtype=np.int64)
    model = Gpt(len(characters) + 1, args.context, 4, 4, 128)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        initial = folder / "initial"
        initial.mkdir()
        model.to_folder(initial, characters)
        for turn in range(args.rounds):
            model.load_state_dict(start)
            loss, seconds = train(model, stream, args)
            print(f"pytorch: validation loss {loss:.4f}, {seconds:.1f} s", flush=True)
            for backend in args.backend or ["flex"]:
                out = folder / f"{backend}-{turn}"
                # As .cargo/config.toml has it for whatever cargo runs.
                environment = {"MIMALLOC_PURGE_DELAY": "-1", **os.environ}
                ended = subprocess.run(
                    [args.program, args.text, "--out", out, "--backend", backend, "--from", initial, "--sample", "0",
                     "--steps", str(args.steps), "--validate-every", str(args.validate_every),
                     "--warm-up", str(args.warm_up), "--batch", str(args.batch), "--context", str(args.context)],
                    capture_output=True, text=True, env=environment)
                if ended.returncode != 0:
                    sys.exit(ended.stderr)
                outcome = json.loads(ended.stdout.splitlines()[-1])
                lines = [line for line in ended.stderr.splitlines() if "validation loss" in line]
                ours = float(re.search(r"([\d.]+) s$", lines[-1]).group(1))
                print(f"{backend}: validation loss {outcome['validation_loss']:.4f} "
                      f"({outcome['validation_loss'] - loss:+.4f}), {ours:.1f} s ({ours / seconds:.2f} of PyTorch's)",
                      flush=True)


if __name__ == "__main__":
    main()
