"""Runs transformers with every step exact: eager attention, eager experts."""

import dataclasses
import pathlib

import torch
from transformers import MixtralForCausalLM

Tensor = torch.Tensor


@dataclasses.dataclass
class Trace:
    """One forward pass over a batch of equal lengths, all fp32."""

    logits: Tensor  # [B, S, V]
    router_logits: Tensor  # [B, L, S, E]
    hidden_states: Tensor  # [B, L + 1, S, H]: embedding, then after each layer


def load(
    directory: pathlib.Path, dtype: torch.dtype, attention: str = "eager"
) -> MixtralForCausalLM:
    """A checkpoint from disk, its weights converted to `dtype`."""
    return MixtralForCausalLM.from_pretrained(
        directory, dtype=dtype, attn_implementation=attention, **eager_experts()
    ).eval()


def eager_experts() -> dict[str, str]:
    """The keyword that turns fused expert kernels off, where there is one."""
    known = hasattr(MixtralForCausalLM, "_can_set_experts_implementation")
    return {"experts_implementation": "eager"} if known else {}


def find_gates(model: MixtralForCausalLM) -> list[torch.nn.Module]:
    """The router module of each layer."""
    return [
        getattr(layer, "mlp", None) and layer.mlp.gate or layer.block_sparse_moe.gate
        for layer in model.model.layers
    ]


@torch.no_grad()
def forward(model: MixtralForCausalLM, ids: Tensor) -> Trace:
    """Runs ids [B, S] from position 0, without a cache."""
    batch, size = ids.shape
    hidden: list[Tensor] = []
    router: list[Tensor] = []

    def first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
        return (output[0] if isinstance(output, tuple) else output).float()

    def keep_hidden(_module: object, _args: object, output: Tensor) -> None:
        hidden.append(first(output))

    def keep_router(_module: object, _args: object, output: Tensor) -> None:
        router.append(first(output).view(batch, size, -1))

    hooks = [model.model.embed_tokens.register_forward_hook(keep_hidden)]
    hooks += [m.register_forward_hook(keep_hidden) for m in model.model.layers]
    hooks += [m.register_forward_hook(keep_router) for m in find_gates(model)]
    logits = model(ids, use_cache=False).logits.float()
    for hook in hooks:
        hook.remove()
    return Trace(logits, torch.stack(router, 1), torch.stack(hidden, 1))


def greedy(model: MixtralForCausalLM, ids: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Greedy ids [B, steps] and their logits [B, steps, V]; stops at nothing."""
    rows = []
    for _ in range(steps):
        rows.append(forward(model, ids).logits[:, -1])
        ids = torch.cat([ids, rows[-1].argmax(-1, keepdim=True)], dim=1)
    return ids[:, -steps:], torch.stack(rows, 1)


@torch.no_grad()
def generate(model: MixtralForCausalLM, ids: Tensor, steps: int) -> Tensor:
    """The same through transformers' own generate() and its KV cache."""
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=steps,
        min_new_tokens=steps,
        eos_token_id=None,
        pad_token_id=0,
    )
    return out[:, -steps:]


def router_gap(trace: Trace, top_k: int) -> Tensor:
    """Per sequence [B]: least distance of the k-th and (k+1)-th probability."""
    probs = trace.router_logits.double().softmax(-1).sort(-1, descending=True).values
    return (probs[..., top_k - 1] - probs[..., top_k]).flatten(1).amin(1)


def logit_gap(logits: Tensor) -> Tensor:
    """Per sequence [B]: least (top1 - top2) / max|logit| over logits [B, S, V]."""
    top = logits.double().topk(2, -1).values
    gap = (top[..., 0] - top[..., 1]) / logits.double().abs().amax(-1)
    return gap.amin(1)


def topk(trace: Trace, k: int) -> tuple[Tensor, Tensor]:
    """Chosen experts [B, L, S, K] and their renormalised fp32 weights."""
    probs = trace.router_logits.softmax(-1)
    values, indices = probs.topk(k, -1)
    return indices, values / values.sum(-1, keepdim=True)
