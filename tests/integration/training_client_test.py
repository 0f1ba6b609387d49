"""octet.v1.Training without any of our generated code: steps on the live model of a service, which Generate and Score
use at once; numbered calls; refusals after which the group lives on; and torch's losses of the first steps."""

from __future__ import annotations

import json
import tempfile
import time
import unittest
from pathlib import Path

import grpc

from foreign_client import ForeignClient
from octet_processes import SOURCE_DIR, Service
from safetensors_file import read_tensor, tensor_bytes
from training_loop import INFERENCE, TRAINING, train_and_sample

CASE = SOURCE_DIR / "tests" / "golden" / "e8k2_old"
ADAMW = {"learning_rate": 1e-3, "weight_decay": 0.1, "max_grad_norm": 1.0}  # tests/golden/README.md
ROUTER = {"aux_coef": 0.02, "scope": "ROUTER_LOSS_SCOPE_SLOT"}
FULL = {"method": "TRAINING_METHOD_FULL", "router_loss": ROUTER}
# Every module, A and B random: both have gradients.
LORA = {"method": "TRAINING_METHOD_LORA", "router_loss": ROUTER, "lora": {"init_from": str(CASE / "adapter")}}
NEW_LORA = {"method": "TRAINING_METHOD_LORA", "seed": 5, "lora": {"rank": 4, "target_modules": ["all"]}}
WRITING = "SAVE_STAGE_WRITING"
TEXT = [1, 17, 250, 44, 9, 131, 77, 300, 5, 260, 18, 64]


def slot(token_ids: list[int], labels: list[int] | None = None) -> dict:
    return {"sequences": [{"token_ids": token_ids, "labels": token_ids if labels is None else labels}]}


def golden_slots() -> list[dict]:
    file = CASE / "training.safetensors"
    return [slot(read_tensor(file, f"slot{i}/input_ids"), read_tensor(file, f"slot{i}/labels")) for i in range(4)]


class Run:
    """A run whose calls are numbered in turn."""

    def __init__(self, client: ForeignClient, config: dict) -> None:
        self.client, self.seq_no = client, 0
        self.id = client.call(TRAINING, "CreateRun", config)["run_id"]

    def call(self, method: str, **request: object) -> dict:
        answer = self.client.call(TRAINING, method, {"run_id": self.id, "seq_no": self.seq_no + 1, **request})
        self.seq_no += 1  # a refused call has no number
        return answer

    def forward(self, slots: list[dict]) -> dict:
        return self.client.call(
            TRAINING, "Forward", {"run_id": self.id, "slots": slots, "return_logprobs": True})

    def step(self, slots: list[dict]) -> float:
        loss = self.call("ForwardBackward", slots=slots)["loss"]
        self.call("OptimStep", adamw=ADAMW)
        return loss


class TrainingClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = tempfile.TemporaryDirectory()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.directory.cleanup()

    def setUp(self) -> None:
        # A run changes the weights that are served, so each test has a service of its own.
        service = Service(CASE, 3)
        self.addCleanup(service.stop)
        self.client = ForeignClient(service.address)
        self.addCleanup(self.client.close)

    def logprobs(self, ids: list[int]) -> list[float]:
        score = self.client.call(INFERENCE, "Score", {"prompt": {"token_ids": {"ids": ids}}})
        return [token["sampled"]["logprob"] for token in score["tokens"][1:]]

    def assert_refused(self, code: grpc.StatusCode, text: str, call: object) -> None:
        with self.assertRaises(grpc.RpcError) as caught:
            call()
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        self.assertIn(text, caught.exception.details())

    def test_a_loop_that_trains_and_generates(self) -> None:
        losses, seen = [], []
        scores = [self.logprobs(TEXT)]
        for run_id, loss, continuation in train_and_sample(
                self.client, NEW_LORA, [TEXT], TEXT[:4], 30, {"learning_rate": 1e-2}):
            losses.append(loss)
            seen.append(continuation)
            scores.append(self.logprobs(TEXT))
            # Score is teacher-forced: the greedy continuation must be likeliest by it, too.
            top = self.client.call(INFERENCE, "Score", {
                "prompt": {"token_ids": {"ids": TEXT[:4] + continuation}}, "logprobs": 1})["tokens"][4:]
            self.assertEqual([token["top"][0]["token_id"] for token in top], continuation)
        self.assertLess(losses[-1], losses[0] / 4)
        self.assertNotEqual(seen[0], seen[-1])
        self.assertEqual(seen[-1], TEXT[4:])  # learnt by heart
        for loss, score in zip(losses, scores):
            # The loss of step n is what Score says after step n - 1: no step is late.
            self.assertAlmostEqual(loss, -sum(score) / len(score), delta=1e-5)
        for before, after in zip(scores[:8], scores[1:9]):
            self.assertGreater(sum(after), sum(before))
        run = self.client.call(TRAINING, "GetRun", {"run_id": run_id})
        self.assertEqual((run["last_seq_no"], run["optimizer_steps"], run["pending_slots"]), ("60", "30", "0"))

    def generate_with_routes(self, prompt: list[int]) -> tuple[list[int], list[list[int]]]:
        """Prompt and continuation, and the experts of each layer."""
        chunks = list(self.client.stream(INFERENCE, "Generate", {
            "prompt": {"token_ids": {"ids": prompt}}, "sampling": {"seed": 3}, "return_routes": True,
            "stop": {"max_new_tokens": 40, "ignore_eos": True}}))
        routes = [layer["expert_ids"] for layer in chunks[-1]["routes"]["layers"]]
        return prompt + [i for chunk in chunks for i in chunk["token_ids"]], routes

    def test_a_generations_routes_can_be_replayed(self) -> None:
        run = Run(self.client, FULL)
        tokens, routes = self.generate_with_routes(TEXT)
        self.assertEqual(len(routes), 2)
        for layer in routes:
            self.assertEqual(len(layer), 2 * len(tokens))
            self.assertEqual(layer[-2:], [-1, -1])  # sampled, not computed
            self.assertTrue(all(0 <= expert < 8 for expert in layer[:-2]))

        def backward(layers: list[list[int]] | None) -> dict:
            replay = [] if layers is None else [{"layers": [{"expert_ids": layer} for layer in layers]}]
            answer = run.call("ForwardBackward", slots=[slot(tokens)], routes=replay, return_logprobs=True)
            run.call("ZeroGrad")
            return {name: value for name, value in answer.items() if name != "seconds"}

        def counts(answer: dict) -> list[list[int]]:
            return [[int(count) for count in layer["expert_tokens"]] for layer in answer["layers"]]

        taken = [[layer[:-2].count(expert) for expert in range(8)] for layer in routes]

        def beyond(answer: dict) -> list[int]:
            return [n - m for all_, some in zip(counts(answer), taken) for n, m in zip(all_, some)]

        # The weights have not changed: the router itself chooses these.
        own = backward(None)
        self.assertEqual(backward(routes), own)
        others = [[(expert + 1) % 8 if expert >= 0 else -1 for expert in layer] for layer in routes]
        self.assertNotEqual(backward(others)["loss"], own["loss"])
        # They have changed: the router chooses others, the replay the old ones and the router's for the last token.
        for _ in range(5):
            run.call("ForwardBackward", slots=golden_slots())
            run.call("OptimStep", adamw={"learning_rate": 2e-2})
        self.assertEqual(sorted(beyond(backward(routes))), [0] * 12 + [1] * 4)
        self.assertLess(min(beyond(backward(None))), 0)
        self.assertNotEqual(self.generate_with_routes(TEXT)[1], routes)

    def check_curve(self, name: str, config: dict) -> None:
        expected = read_tensor(CASE / "training.safetensors", f"{name}/curve")
        run = Run(self.client, config)
        slots = golden_slots()
        losses = [run.step(slots) for _ in range(10)]
        for step, (loss, golden) in enumerate(zip(losses, expected)):
            self.assertAlmostEqual(loss, golden, delta=1e-3, msg=f"{name}, step {step + 1}")

    def test_full_training_follows_torch(self) -> None:
        self.check_curve("full", FULL)

    def test_adapter_training_follows_peft(self) -> None:
        self.check_curve("lora", LORA)

    def test_repeated_numbers_and_gaps(self) -> None:
        run = Run(self.client, FULL)
        slots = golden_slots()
        first = run.call("ForwardBackward", slots=slots)
        repeat = {"run_id": run.id, "seq_no": 1, "slots": slots}
        self.assertEqual(self.client.call(TRAINING, "ForwardBackward", repeat), first)
        self.assertEqual(self.client.call(TRAINING, "GetRun", {"run_id": run.id})["pending_slots"], "4")
        self.assert_refused(grpc.StatusCode.INVALID_ARGUMENT, "seq_no is 1", lambda: self.client.call(
            TRAINING, "ForwardBackward", repeat | {"slots": slots[:1]}))
        step = run.call("OptimStep", adamw=ADAMW)
        trained = self.logprobs(TEXT)
        again = self.client.call(TRAINING, "OptimStep", {"run_id": run.id, "seq_no": 2, "adamw": ADAMW})
        self.assertEqual(again, step)
        self.assertEqual(self.logprobs(TEXT), trained)
        self.assert_refused(grpc.StatusCode.FAILED_PRECONDITION, "expected 3", lambda: self.client.call(
            TRAINING, "ForwardBackward", repeat | {"seq_no": 5}))
        self.assert_refused(grpc.StatusCode.NOT_FOUND, "nobody", lambda: self.client.call(
            TRAINING, "ZeroGrad", {"run_id": "nobody", "seq_no": 1}))
        self.assert_refused(grpc.StatusCode.FAILED_PRECONDITION, run.id, lambda: Run(self.client, FULL))
        run.call("EndRun")
        self.assert_refused(grpc.StatusCode.FAILED_PRECONDITION, "ended", lambda: run.step(slots))
        self.assertEqual(self.logprobs(TEXT), trained)  # a run's end leaves its weights

    def test_bad_slots_are_refused_and_nothing_changes(self) -> None:
        run = Run(self.client, FULL)
        good = golden_slots()
        before = run.forward(good)
        routes = {"layers": [{"expert_ids": [0, 1] * len(TEXT)}] * 2}
        bad = [
            ("slots is empty", {"slots": []}),
            ("slot 1 has no documents", {"slots": [slot(TEXT), {"sequences": []}]}),
            ("slot 0, document 0 has 0 tokens", {"slots": [slot([])]}),
            ("slot 1, document 0, position 1: token 320", {"slots": [slot(TEXT), slot([1, 320])]}),
            ("slot 0, document 0, position 1: token -1", {"slots": [slot([1, -1])]}),
            ("slot 0, document 0 has 11 labels", {"slots": [slot(TEXT, TEXT[:-1])]}),
            ("slot 0, document 0, position 2: label 4", {"slots": [slot([1, 2, 3], [1, 2, 4])]}),
            ("slot 0, document 0 has 513 tokens", {"slots": [slot([1] * 513)]}),
            ("routes has 1 entries", {"slots": [slot(TEXT), slot(TEXT)], "routes": [routes]}),
            ("routes of slot 0", {"slots": [slot(TEXT)], "routes": [{"layers": routes["layers"][:1]}]}),
            ("expert 8", {"slots": [slot(TEXT)], "routes": [{"layers": [{"expert_ids": [0, 8] * len(TEXT)}] * 2}]}),
            ("loss_scale", {"slots": [slot(TEXT)], "loss_scale": "NaN"}),
        ]
        for text, request in bad:
            with self.subTest(text):
                self.assert_refused(grpc.StatusCode.INVALID_ARGUMENT, text,
                                    lambda request=request: run.call("ForwardBackward", **request))
        self.assertEqual(self.client.call(TRAINING, "GetRun", {"run_id": run.id})["pending_slots"], "0")
        after = run.forward(good)
        self.assertEqual((after["loss"], after["slots"]), (before["loss"], before["slots"]))
        run.call("ForwardBackward", slots=good)
        run.call("OptimStep", adamw=ADAMW)
        self.assertLess(run.forward(good)["loss"], before["loss"])

    def test_a_state_is_written_while_the_run_goes_on(self) -> None:
        run = Run(self.client, FULL)
        path = str(Path(self.directory.name) / "state")
        self.assert_refused(grpc.StatusCode.FAILED_PRECONDITION, "created without background_saves", lambda: run.call(
            "SaveState", path=path, background=True))
        run.call("EndRun")
        run = Run(self.client, FULL | {"background_saves": True})
        slots = golden_slots()
        run.step(slots)
        self.assertTrue(run.call("SaveState", path=path, background=True, client_state="row 17")["writing"])
        losses = [run.step(slots) for _ in range(2)]
        end = time.monotonic() + 30
        while (found := self.client.call(TRAINING, "GetRun", {"run_id": run.id}))["last_save"]["stage"] == WRITING:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        self.assertEqual(found["last_save"]["stage"], "SAVE_STAGE_COMPLETE")
        self.assertEqual((found["last_state_path"], found["last_save"]["optimizer_steps"]), (path, "1"))
        self.assertEqual(run.call("LoadState", path=path)["client_state"], "row 17")
        self.assertEqual([run.step(slots) for _ in range(2)], losses)

    def test_paths_that_name_nothing_are_refused(self) -> None:
        run = Run(self.client, FULL)
        for method, path, text in [
                ("SaveState", "", "path is empty, expected a directory to write"),
                ("SaveState", "a\0b", "path has a zero at byte 1"),
                ("LoadState", "", "path is empty, expected the directory of a saved state")]:
            self.assert_refused(grpc.StatusCode.INVALID_ARGUMENT, text,
                                lambda method=method, path=path: run.call(method, path=path))

    def test_export_is_a_peft_adapter(self) -> None:
        run = Run(self.client, LORA)
        slots = golden_slots()
        for _ in range(3):
            run.step(slots)
        trained = run.forward(slots)
        path = Path(self.directory.name) / "adapter"
        answer = self.client.call(TRAINING, "ExportWeights", {"run_id": run.id, "path": str(path)})
        self.assertEqual(answer["files"], ["adapter_model.safetensors"])
        self.assertEqual(sorted(file.name for file in path.iterdir()),
                         ["adapter_config.json", "adapter_model.safetensors"])
        config = json.loads((path / "adapter_config.json").read_text())
        peft = json.loads((CASE / "adapter" / "adapter_config.json").read_text())
        for key in ("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "bias"):
            self.assertEqual(config[key], peft[key], key)
        self.assertEqual(sorted(config["target_modules"]), sorted(peft["target_modules"]))
        found = tensor_bytes(path / "adapter_model.safetensors")
        expected = tensor_bytes(CASE / "adapter" / "adapter_model.safetensors")
        self.assertEqual({name: len(data) for name, data in found.items()},
                         {name: len(data) for name, data in expected.items()})
        # A run that begins with it is where this one is.
        run.call("EndRun")
        again = Run(self.client, LORA | {"run_id": "again", "lora": {"init_from": str(path)}})
        self.assertEqual(again.forward(slots)["slots"], trained["slots"])


if __name__ == "__main__":
    unittest.main()
