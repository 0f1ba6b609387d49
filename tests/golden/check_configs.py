"""Holds config_cases/expected.json against transformers' own reading."""

import json
import pathlib
import sys

from transformers import MixtralConfig

CASES = pathlib.Path(__file__).parent / "config_cases"


def parse(path: pathlib.Path) -> dict[str, object]:
    """What transformers makes of a config.json, under Octet's names."""
    config = MixtralConfig.from_dict(json.loads(path.read_text()))
    eos = config.eos_token_id
    return {
        "vocab_size": config.vocab_size,
        "hidden_dim": config.hidden_size,
        "ffn_dim": config.intermediate_size,
        "num_layers": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "num_kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim or config.hidden_size // config.num_attention_heads,
        "num_experts": config.num_local_experts,
        "top_k": config.num_experts_per_tok,
        "max_position": config.max_position_embeddings,
        "sliding_window": config.sliding_window or 0,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_parameters["rope_theta"],
        "tie_word_embeddings": config.tie_word_embeddings,
        "checkpoint_dtype": str(config.dtype).removeprefix("torch."),
        "bos_token_id": -1 if config.bos_token_id is None else config.bos_token_id,
        "eos_token_ids": eos if isinstance(eos, list) else [eos],
    }


def main() -> int:
    """Prints every difference; 1 when there is one."""
    expected = json.loads((CASES / "expected.json").read_text())
    files = {path.stem for path in CASES.glob("*.json")} - {"expected"}
    problems = [f"{name}: listed or present only" for name in files ^ set(expected)]
    for name, entry in expected.items():
        parsed = parse(CASES / f"{name}.json") if "config" in entry else {}
        problems += [
            f"{name}: {key} is {parsed[key]}, expected {value}"
            for key, value in entry.get("config", {}).items()
            if parsed[key] != value
        ]
    print("\n".join(problems) or f"{len(expected)} configs as expected")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
