"""Hugging Face's side of benches/generation.rs: tokens a second of a Llama of the same size in
PyTorch on the CPU, one JSON line per case.

    pip install torch transformers
    python benches/generation.py [--threads 2]

4 layers, d_model 256, d_ff 1024, 8 heads, vocabulary 1024, random weights, greedy. Two ways: the
model called with its own cache in a plain loop, and `generate`. Run it with nothing else on the
machine, in the same run as what it is compared with.
"""
import argparse, json, time
import torch
from transformers import LlamaConfig, LlamaForCausalLM


@torch.inference_mode()
def loop(model, batch, new):
    """New tokens behind a prompt of one token, by hand: the least that Python costs."""
    tokens = torch.ones(batch, 1, dtype=torch.long)
    past = None
    for _ in range(new):
        out = model(input_ids=tokens, past_key_values=past, use_cache=True)
        past = out.past_key_values
        tokens = out.logits[:, -1:].argmax(-1)


@torch.inference_mode()
def generate(model, batch, new):
    tokens = torch.ones(batch, 1, dtype=torch.long)
    mask = torch.ones_like(tokens)
    model.generate(tokens, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--threads", type=int, default=2)
    a = args.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024, hidden_size=256, intermediate_size=1024, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=4096,
        bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )
    model = LlamaForCausalLM(config).eval()
    for name, run in (("loop", loop), ("generate", generate)):
        for batch, new in ((1, 64), (1, 512), (1, 2048), (16, 64)):
            run(model, batch, 8)
            best = float("inf")
            for _ in range(1 if new > 512 else 3):
                begin = time.perf_counter()
                run(model, batch, new)
                best = min(best, time.perf_counter() - begin)
            print(json.dumps({
                "torch": torch.__version__, "way": name, "batch": batch, "tokens": new,
                "tokens_per_second": round(batch * new / best, 1),
            }), flush=True)


main()
