"""The checkpoints: one row each, and how their weights are drawn."""

import dataclasses
import math

import numpy as np
import torch
from transformers import MixtralConfig, MixtralForCausalLM


@dataclasses.dataclass(frozen=True)
class Case:
    """One checkpoint. Sizes in elements; `gqa` is query heads per kv head."""

    name: str
    seed: int
    experts: int
    top_k: int
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int = 320
    head_dim: int | None = None
    tied: bool = False
    window: int | None = None
    theta: float = 1e6
    eps: float = 1e-5
    dtype: str = "float32"
    fused: bool = False  # the in-memory expert layout of transformers 5
    config_style: str = "5"  # config.json as written by 4.36, 4.57 or 5
    shard_kb: int | None = None  # None: one file


CASES = (
    Case("e8k2_old", 1, 8, 2, 32, 48, 2, 4, 2, config_style="4.36"),
    Case("e8k2_fused", 1, 8, 2, 32, 48, 2, 4, 2, fused=True),
    Case("e4k1_tied_old", 2, 4, 1, 48, 80, 3, 6, 6, 323, tied=True,
         theta=1e4, config_style="4.57"),
    Case("e8k2_window_fused_sharded", 3, 8, 2, 48, 72, 2, 4, 1, window=8,
         fused=True, shard_kb=200),
    Case("e16k3_old_sharded", 22, 16, 3, 40, 56, 2, 4, 2, eps=1e-6,
         config_style="4.57", shard_kb=150),
    Case("e8k3_headdim_fused", 5, 8, 3, 64, 48, 2, 4, 2, 333, head_dim=24,
         fused=True),
    Case("e4k2_bf16_old_sharded", 6, 4, 2, 64, 80, 3, 2, 1, dtype="bfloat16",
         config_style="4.57", shard_kb=120),
    Case("e8k2_bf16_tied_window_fused", 7, 8, 2, 48, 96, 2, 6, 3, 319,
         tied=True, window=8, dtype="bfloat16", fused=True),
    Case("e8k1_fp16_old", 8, 8, 1, 48, 80, 2, 4, 1, dtype="float16"),
    Case("e4k3_tied_window_old", 9, 4, 3, 32, 88, 2, 4, 4, tied=True,
         window=8, theta=1e4, config_style="4.36"),
    Case("e16k2_tied_fused_sharded", 12, 16, 2, 32, 48, 2, 8, 2, tied=True,
         fused=True, shard_kb=180),
    Case("e16k1_bf16_window_old", 11, 16, 1, 64, 48, 2, 4, 1, window=8,
         dtype="bfloat16", config_style="4.36"),
)  # fmt: skip


def make_config(case: Case) -> MixtralConfig:
    """The case as transformers sees it."""
    return MixtralConfig(
        vocab_size=case.vocab,
        hidden_size=case.hidden,
        intermediate_size=case.ffn,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        num_key_value_heads=case.kv_heads,
        head_dim=case.head_dim,
        max_position_embeddings=512,
        rms_norm_eps=case.eps,
        tie_word_embeddings=case.tied,
        sliding_window=case.window,
        num_experts_per_tok=case.top_k,
        num_local_experts=case.experts,
        rope_parameters={"rope_type": "default", "rope_theta": case.theta},
        bos_token_id=1,
        eos_token_id=2,
        dtype=case.dtype,
    )


def gain(name: str, tied: bool) -> float:
    """Output scale of a weight for an input of unit scale.

    Large enough that routing and greedy tokens differ between positions. A tied
    head needs a small embedding, or the model repeats its input.
    """
    if "embed_tokens" in name:
        return 0.3 if tied else 1.0
    for part, value in (
        ("q_proj", 1.5),
        ("k_proj", 1.5),
        ("gate.weight", 1.2),
        ("gate_up_proj", 1.4),
        ("down_proj", 1.8),
        ("lm_head", 3.0),
    ):
        if part in name:
            return value
    return 1.0


def make_model(case: Case) -> MixtralForCausalLM:
    """Draws every weight from the case's seed, in order of name."""
    model = MixtralForCausalLM(make_config(case))
    rng = np.random.default_rng(case.seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            values = rng.standard_normal(tuple(parameter.shape))
            if "norm" in name:
                values = 1.0 + 0.2 * values
            elif "embed_tokens" in name:
                values *= gain(name, case.tied)
            else:  # [out, in] or [E, out, in]
                values *= gain(name, case.tied) / math.sqrt(parameter.shape[-1])
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    return model.to(getattr(torch, case.dtype)).eval()
