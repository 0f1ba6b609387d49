"""Mixtral's forward pass in plain numpy, float64, one sequence at a time.

The second oracle: it shares no code with transformers or torch, reads the
checkpoint's bytes itself, and takes no shortcut (no KV cache, no batching).
Notation: S tokens, H hidden size, D head size, E experts, K top-k, V vocabulary.
"""

import dataclasses
import json
import pathlib

import numpy as np

Array = np.ndarray


@dataclasses.dataclass
class Trace:
    """What one forward pass leaves behind."""

    logits: Array  # [S, V]
    router_logits: Array  # [L, S, E]
    topk_idx: Array  # [L, S, K], by falling probability
    topk_weights: Array  # [L, S, K], each row sums to 1
    hidden_states: Array  # [L + 1, S, H]: embedding, then after each layer


def read_safetensors(path: pathlib.Path) -> dict[str, Array]:
    """Reads one safetensors file (F32, F16, BF16) as float64."""
    data = path.read_bytes()
    header_size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + header_size])
    header.pop("__metadata__", None)
    weights = {}
    for name, entry in header.items():
        begin, end = (8 + header_size + at for at in entry["data_offsets"])
        raw = data[begin:end]
        if entry["dtype"] == "BF16":  # the upper half of an fp32
            bits = np.frombuffer(raw, "<u2").astype("<u4") << 16
            flat = bits.view("<f4")
        else:
            flat = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]])
        weights[name] = flat.astype(np.float64).reshape(entry["shape"])
    return weights


class Mixtral:
    """A checkpoint directory, either expert layout, ready to run."""

    def __init__(self, directory: pathlib.Path):
        self.config = json.loads((directory / "config.json").read_text())
        self.w: dict[str, Array] = {}
        for path in sorted(directory.glob("model*.safetensors")):
            self.w |= read_safetensors(path)
        rope = self.config.get("rope_parameters") or self.config
        self.theta = rope["rope_theta"]
        per_head = self.config["hidden_size"] // self.config["num_attention_heads"]
        self.head_dim = self.config.get("head_dim") or per_head

    def expert(self, layer: int, e: int) -> tuple[Array, Array, Array]:
        """w1 (gate) [F, H], w2 (down) [H, F], w3 (up) [F, H] of one expert."""
        fused = f"model.layers.{layer}.mlp.experts."
        if fused + "gate_up_proj" in self.w:
            w1, w3 = np.split(self.w[fused + "gate_up_proj"][e], 2, axis=0)
            return w1, self.w[fused + "down_proj"][e], w3
        prefix = f"model.layers.{layer}.block_sparse_moe.experts.{e}."
        w1, w2, w3 = (self.w[f"{prefix}w{i}.weight"] for i in (1, 2, 3))
        return w1, w2, w3

    def gate(self, layer: int) -> Array:
        """Router weight [E, H]."""
        fused = f"model.layers.{layer}.mlp.gate.weight"
        old = f"model.layers.{layer}.block_sparse_moe.gate.weight"
        return self.w[fused if fused in self.w else old]

    def rms_norm(self, x: Array, name: str) -> Array:
        """x / sqrt(mean(x^2) + eps) * weight over the last axis."""
        eps = self.config["rms_norm_eps"]
        scale = np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
        return x / scale * self.w[name]

    def rope(self, x: Array) -> Array:
        """Rotates pairs (i, i + D/2) of x [S, heads, D] by position * theta^(-2i/D)."""
        half = self.head_dim // 2
        freq = self.theta ** (-2.0 * np.arange(half) / self.head_dim)
        angle = np.arange(x.shape[0])[:, None, None] * freq
        a, b = x[..., :half], x[..., half:]
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def attention(self, x: Array, layer: int) -> Array:
        """Causal GQA over x [S, H]; query t sees keys (t - window, t]."""
        heads = self.config["num_attention_heads"]
        kv_heads = self.config["num_key_value_heads"]
        prefix = f"model.layers.{layer}.self_attn."
        size, dim = x.shape[0], self.head_dim
        q = (x @ self.w[prefix + "q_proj.weight"].T).reshape(size, heads, dim)
        k = (x @ self.w[prefix + "k_proj.weight"].T).reshape(size, kv_heads, dim)
        v = (x @ self.w[prefix + "v_proj.weight"].T).reshape(size, kv_heads, dim)
        q, k = self.rope(q), self.rope(k)
        window = self.config.get("sliding_window") or size
        distance = np.arange(size)[:, None] - np.arange(size)[None, :]
        visible = (distance >= 0) & (distance < window)
        out = np.empty_like(q)
        for h in range(heads):
            kv = h // (heads // kv_heads)
            scores = q[:, h] @ k[:, kv].T / np.sqrt(dim)
            out[:, h] = softmax(np.where(visible, scores, -np.inf)) @ v[:, kv]
        return out.reshape(size, heads * dim) @ self.w[prefix + "o_proj.weight"].T

    def moe(self, x: Array, layer: int) -> tuple[Array, Array, Array, Array]:
        """Top-k SwiGLU experts over x [S, H]; softmax over all E, renormalised over K."""
        router_logits = x @ self.gate(layer).T
        probs = softmax(router_logits)
        k = self.config["num_experts_per_tok"]
        topk_idx = np.argsort(-probs, axis=-1, kind="stable")[:, :k]
        topk = np.take_along_axis(probs, topk_idx, axis=-1)
        topk = topk / topk.sum(axis=-1, keepdims=True)
        out = np.zeros_like(x)
        for t, row in enumerate(x):
            for e, weight in zip(topk_idx[t], topk[t]):
                w1, w2, w3 = self.expert(layer, e)
                gate = w1 @ row
                out[t] += weight * (w2 @ (gate / (1.0 + np.exp(-gate)) * (w3 @ row)))
        return out, router_logits, topk_idx, topk

    def forward(self, token_ids: Array) -> Trace:
        """Runs token_ids [S] from position 0."""
        x = self.w["model.embed_tokens.weight"][token_ids]
        hidden, routing = [x], []
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            norm = self.rms_norm(x, prefix + "input_layernorm.weight")
            x = x + self.attention(norm, layer)
            norm = self.rms_norm(x, prefix + "post_attention_layernorm.weight")
            out, *routed = self.moe(norm, layer)
            x = x + out
            hidden.append(x)
            routing.append(routed)
        tied = self.config["tie_word_embeddings"]
        head = self.w["model.embed_tokens.weight" if tied else "lm_head.weight"]
        logits = self.rms_norm(x, "model.norm.weight") @ head.T
        return Trace(logits, *map(np.stack, zip(*routing)), np.stack(hidden))


def softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
