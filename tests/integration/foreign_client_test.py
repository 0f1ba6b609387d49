"""A client without any of our generated code: reflection, health, and every method of both services."""

from __future__ import annotations

import math
import tempfile
import unittest
from pathlib import Path

import grpc

from foreign_client import ForeignClient
from octet_processes import Service, make_checkpoint

INFERENCE = "octet.v1.Inference"
CLUSTER = "octet.v1.Cluster"
WORKERS = 3


class ForeignClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = tempfile.TemporaryDirectory()
        model = make_checkpoint(Path(cls.directory.name) / "model", "--preset", "tiny")
        cls.service = Service(model, WORKERS)
        cls.client = ForeignClient(cls.service.address)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.client.close()
        cls.service.stop()
        cls.directory.cleanup()

    def generate(self, **request: object) -> list[dict]:
        return list(self.client.stream(INFERENCE, "Generate", request))

    def assert_fails(self, code: grpc.StatusCode, text: str, **request: object) -> None:
        with self.assertRaises(grpc.RpcError) as caught:
            self.generate(**request)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        self.assertIn(text, caught.exception.details())

    def test_reflection_lists_the_services(self) -> None:
        services = self.client.services()
        self.assertIn(INFERENCE, services)
        self.assertIn(CLUSTER, services)
        self.assertIn("grpc.health.v1.Health", services)

    def test_health_is_serving(self) -> None:
        for service in ("", INFERENCE):
            answer = self.client.call("grpc.health.v1.Health", "Check", {"service": service})
            self.assertEqual(answer["status"], "SERVING")

    def test_tokenize_and_back(self) -> None:
        text = "The river — 白日依山盡, 黃河入海流. 🙂"
        tokens = self.client.call(INFERENCE, "Tokenize", {"text": text})
        self.assertEqual(len(tokens["token_ids"]), len(tokens["pieces"]))
        back = self.client.call(INFERENCE, "Detokenize", {"token_ids": tokens["token_ids"]})
        self.assertEqual(back["text"], text)

    def test_stream_is_the_whole_answer_in_pieces(self) -> None:
        request = {
            "prompt": {"text": "Once upon a time"},
            "sampling": {"temperature": 0.8, "seed": "7"},
            "stop": {"max_new_tokens": 24, "ignore_eos": True},
            "logprobs": 2,
        }
        chunks = self.generate(**request)
        ids = [i for chunk in chunks for i in chunk["token_ids"]]
        self.assertEqual(len(ids), 24)
        self.assertGreater(len(chunks), 4)
        self.assertEqual(chunks[-1]["finish_reason"], "FINISH_REASON_LENGTH")
        self.assertEqual(chunks[-1]["usage"]["completion_tokens"], 24)
        self.assertEqual(chunks[0]["seed"], "7")
        prompt = self.client.call(INFERENCE, "Tokenize", {"text": "Once upon a time", "add_bos": True})["token_ids"]
        self.assertEqual(chunks[-1]["usage"]["prompt_tokens"], len(prompt))
        text = "".join(chunk["text"] for chunk in chunks)
        decoded = self.client.call(INFERENCE, "Detokenize", {"token_ids": prompt + ids})["text"]
        self.assertTrue(decoded.endswith(text), (decoded, text))
        again = self.generate(**request)
        self.assertEqual([i for chunk in again for i in chunk["token_ids"]], ids)
        for chunk in chunks:
            for detail in chunk["logprobs"]:
                self.assertLessEqual(detail["sampled"]["logprob"], 0.0)
                self.assertEqual(len(detail["top"]), 2)
                self.assertGreaterEqual(detail["top"][0]["logprob"], detail["top"][1]["logprob"])

    def test_several_continuations(self) -> None:
        request = {
            "prompt": {"text": "A list:"},
            "sampling": {"temperature": 1.0, "seed": "3"},
            "stop": {"max_new_tokens": 8, "ignore_eos": True},
        }
        answers: dict[int, list[int]] = {}
        for chunk in self.generate(n=3, **request):
            answers.setdefault(chunk["index"], []).extend(chunk["token_ids"])
        self.assertEqual(sorted(answers), [0, 1, 2])
        self.assertEqual([len(ids) for ids in answers.values()], [8, 8, 8])
        self.assertNotEqual(answers[0], answers[1])
        alone = [i for chunk in self.generate(**request) for i in chunk["token_ids"]]
        self.assertEqual(answers[0], alone)

    def test_score_agrees_with_the_logprobs_of_generation(self) -> None:
        prompt = self.client.call(INFERENCE, "Tokenize", {"text": "Score me", "add_bos": True})["token_ids"]
        chunks = self.generate(
            prompt={"token_ids": {"ids": prompt}},
            sampling={"temperature": 0.0},
            stop={"max_new_tokens": 6, "ignore_eos": True},
            logprobs=0,
        )
        ids = [i for chunk in chunks for i in chunk["token_ids"]]
        logprobs = [d["sampled"]["logprob"] for chunk in chunks for d in chunk["logprobs"]]
        score = self.client.call(INFERENCE, "Score", {"prompt": {"token_ids": {"ids": prompt + ids}}})
        self.assertEqual(score["token_ids"], prompt + ids)
        self.assertEqual([t["sampled"]["logprob"] for t in score["tokens"][len(prompt):]], logprobs)
        total = sum(t["sampled"]["logprob"] for t in score["tokens"])
        self.assertAlmostEqual(score["sum_logprob"], total, places=3)
        self.assertAlmostEqual(score["perplexity"], math.exp(-total / (len(prompt + ids) - 1)), delta=0.01 * score["perplexity"])

    def test_chat_prompt_uses_the_template(self) -> None:
        chat = {"messages": [{"role": "user", "content": "hi"}]}
        templated = self.client.call(INFERENCE, "Tokenize", {"chat": chat})["token_ids"]
        plain = self.client.call(INFERENCE, "Tokenize", {"text": "[INST] hi [/INST]", "add_bos": True})["token_ids"]
        self.assertEqual(templated, plain)
        chunks = self.generate(prompt={"chat": chat}, stop={"max_new_tokens": 2})
        self.assertEqual(chunks[-1]["usage"]["prompt_tokens"], len(plain))

    def test_topology_and_expert_use(self) -> None:
        topology = self.client.call(CLUSTER, "GetTopology")
        self.assertEqual(topology["transport"], "local")
        self.assertEqual([rank["rank"] for rank in topology["ranks"]], list(range(WORKERS)))
        self.assertTrue(all(int(rank["weight_bytes"]) > 0 for rank in topology["ranks"]))
        info = self.client.call(CLUSTER, "GetInfo")
        experts = info["model"]["num_experts"]
        self.assertEqual([p["expert_id"] for p in topology["placement"]], list(range(experts)))
        before = self.client.call(CLUSTER, "GetExpertStats")
        self.generate(prompt={"token_ids": {"ids": [1, 5, 9, 7]}}, stop={"max_new_tokens": 5, "ignore_eos": True})
        after = self.client.call(CLUSTER, "GetExpertStats")

        def rows(stats: dict) -> list[int]:
            return [sum(map(int, layer["expert_tokens"])) for layer in stats["layers"]]

        # Four prompt tokens and four of the five new ones pass through each layer, K experts each.
        grown = [b - a for a, b in zip(rows(before), rows(after))]
        self.assertEqual(grown, [8 * info["model"]["top_k"]] * info["model"]["num_layers"])

    def test_bad_requests_name_the_field(self) -> None:
        bad = grpc.StatusCode.INVALID_ARGUMENT
        text = {"text": "hello"}
        self.assert_fails(bad, "prompt")
        self.assert_fails(bad, "sampling.top_p", prompt=text, sampling={"top_p": 1.5})
        self.assert_fails(bad, "sampling.temperature", prompt=text, sampling={"temperature": -1})
        self.assert_fails(bad, "sampling.repetition_penalty", prompt=text, sampling={"repetition_penalty": 0})
        self.assert_fails(bad, "stop.max_new_tokens", prompt=text, stop={"max_new_tokens": -3})
        self.assert_fails(bad, "999999", prompt={"token_ids": {"ids": [1, 999999]}})
        self.assert_fails(bad, "context", prompt={"token_ids": {"ids": [5] * 100000}})
        self.assert_fails(bad, "template", prompt={"chat": {"messages": [{"role": "user", "content": "a"}],
                                                            "template_name": "nope"}})
        self.assert_fails(bad, "role", prompt={"chat": {"messages": [{"role": "robot", "content": "a"}]}})

    def test_deadline_and_cancel_end_the_call(self) -> None:
        long = {"prompt": {"text": "x"}, "stop": {"max_new_tokens": 200, "ignore_eos": True}}
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.client.open_stream(INFERENCE, "Generate", long, timeout=0.02))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        call = self.client.open_stream(INFERENCE, "Generate", long)
        next(iter(call))
        call.cancel()
        with self.assertRaises(grpc.RpcError) as caught:
            list(call)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.CANCELLED)


if __name__ == "__main__":
    unittest.main()
