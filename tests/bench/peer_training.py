#!/usr/bin/env python3
"""The same training step in transformers with PEFT and in `octet bench train`, in turn on the same machine: tokens a
second, peak memory, and the ratios.

Needs a Python with torch, transformers 4.x (whose experts are nn.Linear modules, so that PEFT can adapt them) and peft.
A step is loss and gradients of two sequences of 512 tokens, clipping and AdamW; random weights, no dropout, no gradient
checkpointing. PEFT keeps adapters of bf16 weights in fp32, as is its default; Octet keeps fp32 masters of them. With
--method full torch trains bf16 weights and moments in place, which takes less memory than Octet's fp32 masters and
moments, and loses small updates.

Each side runs in a process of its own, whose peak resident memory is its own.

usage: peer_training.py OCTET_PROGRAM [--method full] [--layers L] [--steps N] [--workers R] [--threads N]
       [--dtypes bf16,f32] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate", "w1", "w2", "w3"]
LORA_RANK = 8
SEQUENCES, LENGTH = 2, 512
HIDDEN, FFN, EXPERTS, TOP_K, HEADS, KV_HEADS, VOCABULARY = 1024, 3584, 8, 2, 16, 8, 32000


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def time_transformers(options: argparse.Namespace, dtype: str) -> dict:
    """Runs in a process of its own; torch is imported here so that the driver stays small."""
    import peft
    import torch
    import transformers
    from peer_transformers import make_model

    programs_mib = peak_mib()
    torch.set_num_threads(options.threads)
    config = transformers.MixtralConfig(
        num_hidden_layers=options.layers, hidden_size=HIDDEN, intermediate_size=FFN, num_local_experts=EXPERTS,
        num_experts_per_tok=TOP_K, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, vocab_size=VOCABULARY)
    model = make_model(config, torch.bfloat16 if dtype == "bf16" else torch.float32)
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}, peft {peft.__version__}"
    if options.method == "lora":
        lora = peft.LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, lora_dropout=0.0, target_modules=MODULES,
                               bias="none", task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, lora)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)
    ids = torch.randint(0, VOCABULARY, (SEQUENCES, LENGTH), generator=torch.Generator().manual_seed(1))

    def step() -> float:
        begin = time.perf_counter()
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - begin

    step()
    seconds = statistics.median(step() for _ in range(options.steps))
    return {
        "versions": versions,
        "trained": sum(p.numel() for p in trained),
        "tokens_per_second": SEQUENCES * LENGTH / seconds,
        "mib": peak_mib(),
        "programs_mib": programs_mib,
    }


def run_transformers(options: argparse.Namespace, dtype: str) -> dict:
    command = [sys.executable, "-B", __file__, options.octet, "--peer", dtype]
    for name in ("method", "layers", "steps", "threads"):
        command += [f"--{name}", str(getattr(options, name))]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def run_octet(options: argparse.Namespace, dtype: str) -> dict:
    flags = {
        "method": options.method, "dtype": dtype, "lora-rank": LORA_RANK, "workers": options.workers,
        "threads": max(1, options.threads // options.workers), "steps": options.steps, "slots": SEQUENCES,
        "length": LENGTH, "layers": options.layers, "hidden": HIDDEN, "ffn": FFN, "experts": EXPERTS, "top-k": TOP_K,
        "heads": HEADS, "kv-heads": KV_HEADS, "head-dim": HIDDEN // HEADS, "vocab-size": VOCABULARY,
    }
    command = [options.octet, "bench", "train"]
    for name, value in flags.items():
        command += [f"--{name}", str(value)]
    text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    print(text, flush=True)
    return {
        "trained": round(float(re.search(r"^trained +([\d.]+) M", text, re.MULTILINE)[1]) * 1e6),
        "tokens_per_second": float(re.search(r"([\d.]+) tokens/s", text)[1]),
        "mib": float(re.search(r"^memory +(\d+) MiB", text, re.MULTILINE)[1]),
    }


def better(runs: list[dict]) -> dict:
    return max(runs, key=lambda run: run["tokens_per_second"])


def compare(options: argparse.Namespace) -> None:
    rows = []
    for dtype in options.dtypes.split(","):
        # In turn, and the better of each where there are several rounds: a shared machine drifts.
        rounds = [(run_octet(options, dtype), run_transformers(options, dtype)) for _ in range(options.rounds)]
        rows.append((dtype, *(better(list(side)) for side in zip(*rounds))))
    print(f"{rows[0][2]['versions']}, {options.threads} threads; {options.method}, {options.layers} layers")
    print(f"{'dtype':<6}{'octet tok/s':>13}{'peer tok/s':>12}{'octet / peer':>14}{'octet MiB':>12}{'peer MiB':>10}"
          f"{'peer / octet':>14}{'octet trains':>14}{'peer trains':>13}")
    for dtype, own, peer in rows:
        print(f"{dtype:<6}{own['tokens_per_second']:>13.1f}{peer['tokens_per_second']:>12.1f}"
              f"{own['tokens_per_second'] / peer['tokens_per_second']:>14.2f}{own['mib']:>12.0f}{peer['mib']:>10.0f}"
              f"{peer['mib'] / own['mib']:>14.2f}{own['trained'] / 1e6:>12.2f} M{peer['trained'] / 1e6:>11.2f} M")
    print(f"of the peer's memory {rows[0][2]['programs_mib']:.0f} MiB are Python and its libraries, before the model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("octet", help="the octet program")
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3, help="timed, after one that is not; the median counts")
    parser.add_argument("--workers", type=int, default=1, help="ranks of Octet, as threads")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each side in all")
    parser.add_argument("--dtypes", default="bf16,f32")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peer", choices=("bf16", "f32"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        print(json.dumps(time_transformers(options, options.peer)))
    else:
        compare(options)


if __name__ == "__main__":
    main()
