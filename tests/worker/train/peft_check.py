"""PEFT loads an adapter that a run exported, and computes the same loss.

usage: peft_check.py CHECKPOINT ADAPTER EXPECTED_LOSS

Exit status 77: transformers or peft is not installed.
"""

import pathlib
import sys

try:
    import peft
    import torch
    import transformers
    from safetensors import safe_open
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)


def main():
    checkpoint, adapter, expected = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    base = transformers.MixtralForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    model = peft.PeftModel.from_pretrained(base, adapter).eval()
    loss = 0.0
    with safe_open(checkpoint / "training.safetensors", "pt") as golden, torch.no_grad():
        for i in range(4):
            ids = golden.get_tensor(f"slot{i}/input_ids").long()[None]
            labels = golden.get_tensor(f"slot{i}/labels").long()[None]
            loss += model(input_ids=ids, labels=labels).loss.item() / 4
    print(f"loss by peft {loss:.7f}, expected {expected:.7f}")
    sys.exit(0 if abs(loss - expected) < 1e-5 * abs(expected) else 1)


if __name__ == "__main__":
    main()
