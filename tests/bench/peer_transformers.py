#!/usr/bin/env python3
"""The same steps in transformers and in `octet bench`, in turn on the same machine, and the ratio.

Needs a Python with torch and transformers (tests/golden/README.md says how to make one). Both run 2 layers of Mixtral
8x7B (or --preset tiny shapes by flags) in bf16 with random weights and the same number of threads.

usage: peer_transformers.py OCTET_PROGRAM [--threads N] [--layers L]
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import time

import torch
import transformers

DECODE_BATCHES = (1, 8, 16)
PREFILL_TOKENS = 512
CONTEXT = 32
REPEATS = 5


def make_model(config: transformers.MixtralConfig, dtype: torch.dtype) -> transformers.MixtralForCausalLM:
    """Random weights made cheaply: the time of a step does not depend on them, but routing must not collapse."""
    with torch.device("meta"):
        model = transformers.MixtralForCausalLM(config)
    model = model.to(dtype).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(1)
    pattern = (torch.rand(1 << 20, generator=generator) - 0.5).to(dtype) * 0.05
    for parameter in model.parameters():
        flat = parameter.data.view(-1)
        for begin in range(0, flat.numel(), pattern.numel()):
            piece = flat[begin : begin + pattern.numel()]
            piece.copy_(pattern[: piece.numel()])
        if parameter.dim() == 1:
            parameter.data.fill_(1.0)
    head_dim = config.hidden_size // config.num_attention_heads
    inverse = 1.0 / (1e6 ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))
    for name, buffer in model.named_buffers():
        if "inv_freq" in name:
            buffer.copy_(inverse)
    return model.eval()


def median_seconds(run) -> float:
    run()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


@torch.inference_mode()
def time_transformers(model: transformers.MixtralForCausalLM) -> dict[tuple[str, int], float]:
    out = {}
    for batch in DECODE_BATCHES:
        prompt = torch.randint(3, 32000, (batch, CONTEXT))
        token = torch.randint(3, 32000, (batch, 1))

        def decode() -> None:  # the cache grows by a token each time, which hardly matters
            model(token, past_key_values=cache, use_cache=True)

        cache = model(prompt, use_cache=True).past_key_values
        out["decode", batch] = median_seconds(decode)
    prompt = torch.randint(3, 32000, (1, PREFILL_TOKENS))
    out["prefill", PREFILL_TOKENS] = median_seconds(lambda: model(prompt, use_cache=True, logits_to_keep=1))
    return out


def time_octet(program: str, threads: int, layers: int) -> dict[tuple[str, int], float]:
    result = subprocess.run(
        [program, "bench", "--threads", str(threads), "--layers", str(layers), "--context", str(CONTEXT),
         "--decode", ",".join(map(str, DECODE_BATCHES)), "--prefill", str(PREFILL_TOKENS)],
        capture_output=True, text=True, check=True,
    )
    print(result.stdout)
    rows = re.findall(r"^(decode|prefill)\s+(\d+)\s+([\d.]+)", result.stdout, re.MULTILINE)
    return {(kind, int(size)): float(ms) / 1e3 for kind, size, ms in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("octet", help="the octet program")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--layers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = make_model(transformers.MixtralConfig(num_hidden_layers=options.layers), torch.bfloat16)
    # In turn and twice, the better of each: the memory bandwidth of a shared machine drifts.
    rounds = [
        (time_octet(options.octet, options.threads, options.layers), time_transformers(model)) for _ in range(2)
    ]
    ours, theirs = ({step: min(a[step], b[step]) for step in a} for a, b in zip(*rounds))
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, {options.threads} threads, bf16")
    print(f"{'step':<10}{'tokens':>8}{'octet ms':>12}{'peer ms':>12}{'peer / octet':>14}")
    for (kind, size), seconds in theirs.items():
        own = ours[kind, size]
        print(f"{kind:<10}{size:>8}{own * 1e3:>12.1f}{seconds * 1e3:>12.1f}{seconds / own:>14.2f}")


if __name__ == "__main__":
    main()
