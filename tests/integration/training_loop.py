"""Training and generation in one loop, against a running service: python3 training_loop.py HOST:PORT ID ID ID ..."""

from __future__ import annotations

import sys
from typing import Iterator

from foreign_client import ForeignClient

TRAINING, INFERENCE = "octet.v1.Training", "octet.v1.Inference"


def train_and_sample(client: ForeignClient, run: dict, slots: list[list[int]], prompt: list[int], steps: int,
                     adamw: dict) -> Iterator[tuple[str, float, list[int]]]:
    """After each step: the run's id, the loss before it, and how the model now continues `prompt`."""
    run_id = client.call(TRAINING, "CreateRun", run)["run_id"]
    seq_no = 0

    def call(method: str, **request: object) -> dict:
        nonlocal seq_no
        seq_no += 1  # a call that is sent again with the same number is not done twice
        return client.call(TRAINING, method, {"run_id": run_id, "seq_no": seq_no, **request})

    for _ in range(steps):
        rows = [{"sequences": [{"token_ids": ids, "labels": ids}]} for ids in slots]
        loss = call("ForwardBackward", slots=rows)["loss"]
        call("OptimStep", adamw=adamw)
        chunks = client.stream(INFERENCE, "Generate", {  # with the weights of this step: nothing to reload
            "prompt": {"token_ids": {"ids": prompt}},
            "sampling": {"temperature": 0},
            "stop": {"max_new_tokens": 8, "ignore_eos": True},
        })
        yield run_id, loss, [i for chunk in chunks for i in chunk["token_ids"]]


if __name__ == "__main__":
    text = [int(i) for i in sys.argv[2:]]
    lora = {"method": "TRAINING_METHOD_LORA", "lora": {"rank": 8, "target_modules": ["all"]}, "seed": 1}
    for _, step_loss, continuation in train_and_sample(ForeignClient(sys.argv[1]), lora, [text], text[:4], 30,
                                                       {"learning_rate": 1e-2}):
        print(f"loss {step_loss:.4f}, then {text[:4]} goes on with {continuation}")
