"""Writes a case's checkpoint files the way a transformers release does."""

import json
import pathlib

from transformers import MixtralForCausalLM

from cases import Case


def write(case: Case, model: MixtralForCausalLM, directory: pathlib.Path) -> None:
    """config.json, generation_config.json, model*.safetensors and its index."""
    size = f"{case.shard_kb}KB" if case.shard_kb else "1GB"
    model.save_pretrained(
        directory, save_original_format=not case.fused, max_shard_size=size
    )
    if case.config_style != "5":
        text = json.dumps(old_config(case), indent=2) + "\n"
        (directory / "config.json").write_text(text)


def old_config(case: Case) -> dict[str, object]:
    """config.json with the keys of transformers 4.36 or 4.57."""
    config: dict[str, object] = {
        "architectures": ["MixtralForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": case.hidden,
        "initializer_range": 0.02,
        "intermediate_size": case.ffn,
        "max_position_embeddings": 512,
        "model_type": "mixtral",
        "num_attention_heads": case.heads,
        "num_experts_per_tok": case.top_k,
        "num_hidden_layers": case.layers,
        "num_key_value_heads": case.kv_heads,
        "num_local_experts": case.experts,
        "output_router_logits": False,
        "rms_norm_eps": case.eps,
        "rope_theta": case.theta,
        "router_aux_loss_coef": 0.02,
        "sliding_window": case.window,
        "tie_word_embeddings": case.tied,
        "use_cache": True,
        "vocab_size": case.vocab,
    }
    if case.config_style == "4.36":
        config |= {"torch_dtype": case.dtype, "transformers_version": "4.36.0"}
    else:
        config |= {
            "dtype": case.dtype,
            "head_dim": case.head_dim,
            "router_jitter_noise": 0.0,
            "transformers_version": "4.57.6",
        }
    return dict(sorted(config.items()))
