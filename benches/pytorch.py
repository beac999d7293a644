"""PyTorch's side of the comparison: the cases of src/lib.rs, one JSON line each with the median in milliseconds.

    python pytorch.py CASE...        for example: python pytorch.py op/causal/training/2048 copy/training/24

A case is WHAT[/MASK]/PASS/LENGTH. WHAT is `op` (scaled_dot_product_attention, 8 heads x 64), `small` (batch 64, 4 heads x 16), `mha`
(nn.MultiheadAttention, d_model 512), `layer` (nn.TransformerDecoderLayer with a memory of the same length, d_ff 2048),
`copy` (the copy example's model and optimizer) or `gpt2` (GPT-2 with 124M parameters and AdamW, 4 sequences; `gpt2fused`
with PyTorch's fused AdamW). MASK is `causal`, `full`, `padded`, `window` or `packed`; PASS is
`forward` or `training` (forward and backward). Run it with nothing else on the machine.
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F

HEADS, HEAD_DIM = 8, 64
WIDTH = HEADS * HEAD_DIM


def median_ms(step, budget=1.5, least=3, most=40):
    """One warm-up, then runs until the budget in seconds is spent; the same rule as src/lib.rs."""
    step()
    times, start = [], time.perf_counter()
    while len(times) < least or (time.perf_counter() - start < budget and len(times) < most):
        begin = time.perf_counter()
        step()
        times.append((time.perf_counter() - begin) * 1e3)
    return sorted(times)[len(times) // 2]


def hidden(mask, length):
    """True = hidden, [length, length], or None where PyTorch needs no tensor for it."""
    query, key = torch.arange(length)[:, None], torch.arange(length)[None, :]
    causal = key > query
    return {
        "full": lambda: None,
        "causal": lambda: None,
        "padded": lambda: causal | (key >= length - length // 4),
        "window": lambda: causal | (key <= query - 256),
        "sinks": lambda: causal | ((key <= query - 256) & (key >= 4)),
        "packed": lambda: causal | (query // max(length // 8, 1) != key // max(length // 8, 1)),
    }[mask]()


def op(mask, training, length, sizes=(1, HEADS, HEAD_DIM)):
    batch, heads, head_dim = sizes
    leaves = [torch.rand(batch, heads, length, head_dim, requires_grad=training) for _ in range(3)]
    dense = hidden(mask, length)
    kind = {"is_causal": mask == "causal", "attn_mask": None if dense is None else ~dense}

    def step():
        for leaf in leaves:
            leaf.grad = None
        out = F.scaled_dot_product_attention(*leaves, **kind)
        if training:
            out.sum().backward()

    return step


class Layer(torch.nn.Module):
    """A pre-norm layer without cross-attention."""

    def __init__(self, width, heads, d_ff):
        super().__init__()
        self.norm1, self.norm2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.attention = torch.nn.MultiheadAttention(width, heads, batch_first=True)
        self.up, self.down = torch.nn.Linear(width, d_ff), torch.nn.Linear(d_ff, width)

    def forward(self, x, dense, causal):
        normed = self.norm1(x)
        x = x + self.attention(
            normed, normed, normed, attn_mask=dense, is_causal=causal, need_weights=False)[0]
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def dense_or_causal(mask, length):
    if mask == "causal":
        return torch.nn.Transformer.generate_square_subsequent_mask(length), True
    return hidden(mask, length), False


def module(make, call, mask, training, length):
    model = make()
    x = torch.rand(1, length, WIDTH, requires_grad=training)
    dense, causal = dense_or_causal(mask, length)

    def step():
        model.zero_grad()
        with torch.set_grad_enabled(training):
            out = call(model, x, dense, causal)
        if training:
            out.sum().backward()

    return step


def mha(mask, training, length):
    return module(
        lambda: torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True),
        lambda model, x, dense, causal: model(
            x, x, x, attn_mask=dense, is_causal=causal, need_weights=False)[0],
        mask, training, length)


def layer(mask, training, length):
    memory = torch.rand(1, length, WIDTH, requires_grad=training)
    return module(
        lambda: torch.nn.TransformerDecoderLayer(
            WIDTH, HEADS, 4 * WIDTH, 0.0, activation="gelu", norm_first=True, batch_first=True),
        lambda model, x, dense, causal: model(x, memory, tgt_mask=dense, tgt_is_causal=causal),
        mask, training, length)


class Copy(torch.nn.Module):
    """The copy example's model: 2 layers, d_model 64, 4 heads, d_ff 256."""

    def __init__(self, vocab, length, width=64):
        super().__init__()
        self.tokens, self.positions = torch.nn.Embedding(vocab, width), torch.nn.Embedding(length, width)
        self.layers = torch.nn.ModuleList(Layer(width, 4, 4 * width) for _ in range(2))
        self.norm, self.head = torch.nn.LayerNorm(width), torch.nn.Linear(width, vocab)

    def forward(self, ids, dense):
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, dense, True)
        return self.head(self.norm(x))


def copy(_mask, training, length, vocab=32):
    ids = torch.randint(0, vocab, (64, length + 1))
    model = Copy(vocab, length)
    dense = torch.nn.Transformer.generate_square_subsequent_mask(length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step():
        with torch.set_grad_enabled(training):
            logits = model(ids[:, :-1], dense)
            loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        if training:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return step


class Block(torch.nn.Module):
    """A layer of GPT-2, as nanoGPT has it."""

    def __init__(self, width=768, heads=12):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt2(torch.nn.Module):
    def __init__(self, vocab=50257, width=768, layers=12, context=1024):
        super().__init__()
        self.tokens, self.positions = torch.nn.Embedding(vocab, width), torch.nn.Embedding(context, width)
        torch.nn.init.normal_(self.tokens.weight, std=0.02)
        self.layers = torch.nn.Sequential(*[Block(width) for _ in range(layers)])
        self.norm = torch.nn.LayerNorm(width)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        return F.linear(self.norm(self.layers(x)), self.tokens.weight)


def gpt2(_mask, training, length, fused=None, batch=4):
    model = Gpt2()
    ids = torch.randint(0, 50257, (batch, length + 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)

    def step():
        with torch.set_grad_enabled(training):
            loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        if training:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return step


def measure(case):
    """The median of a case in milliseconds."""
    what, *mask, kind, length = case.split("/")
    torch.manual_seed(0)
    small = lambda *case: op(*case, sizes=(64, 4, 16))
    fused = lambda *case: gpt2(*case, fused=True)
    make = {
        "op": op, "small": small, "mha": mha, "layer": layer, "copy": copy, "gpt2": gpt2, "gpt2fused": fused}[what]
    return median_ms(make((mask or ["causal"])[0], kind == "training", int(length)))


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("cases", nargs="+")
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    for case in args.cases:
        print(json.dumps({"by": f"torch {torch.__version__}", "case": case, "ms": round(measure(case), 3)}), flush=True)


if __name__ == "__main__":
    main()
