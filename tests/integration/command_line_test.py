"""The programs as a person uses them: generate, chat, score, info, init, and what wrong usage says."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from octet_processes import BINARY_DIR, OCTET, Service, TOKENIZER, make_checkpoint, run


class CommandLineTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.temporary = tempfile.TemporaryDirectory()
        cls.directory = Path(cls.temporary.name)
        cls.model = make_checkpoint(cls.directory / "model", "--preset", "tiny")
        cls.service = Service(cls.model, 2)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.service.stop()
        cls.temporary.cleanup()

    def octet(self, command: str, *flags: object, **options: object):
        return run(OCTET, command, "--server", self.service.address, *flags, **options)

    def test_generate_is_reproducible_by_seed(self) -> None:
        flags = ("--prompt", "The sea", "--max-new-tokens", 12, "--ignore-eos", "--seed", 5)
        first, second = self.octet("generate", *flags), self.octet("generate", *flags)
        self.assertEqual(first.stdout, second.stdout)
        self.assertNotEqual(first.stdout.strip(), "")

    def test_yaml_means_the_same_as_flags(self) -> None:
        path = self.directory / "generate.yaml"
        path.write_text("prompt: The sea\nmax-new-tokens: 12\nignore-eos: true\nseed: 5\n")
        by_file = self.octet("generate", "--config", path)
        by_flags = self.octet("generate", "--prompt", "The sea", "--max-new-tokens", 12, "--ignore-eos", "--seed", 5)
        self.assertEqual(by_file.stdout, by_flags.stdout)

    def test_generate_json_lines_hold_ids_and_usage(self) -> None:
        result = self.octet("generate", "--prompt", "a", "--max-new-tokens", 3, "--ignore-eos", "--json")
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual(sum(len(line.get("token_ids", [])) for line in lines), 3)
        self.assertEqual(lines[-1]["usage"]["completion_tokens"], 3)

    def test_output_that_cannot_be_written_is_a_failure(self) -> None:
        with open("/dev/full", "w") as full:
            for flags in (("score", "--text", "The sea"), ("info",), ("generate", "--prompt", "a", "--max-new-tokens", 2)):
                result = subprocess.run(
                    [str(OCTET), flags[0], "--server", self.service.address, *map(str, flags[1:])],
                    stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
                )
                self.assertEqual(result.returncode, 1)
                self.assertIn("cannot write standard output", result.stderr)

    def test_text_that_is_not_utf8_is_named(self) -> None:
        path = self.directory / "latin1.txt"
        path.write_bytes("caf\u00e9".encode("latin-1"))
        result = self.octet("score", "--file", path, check=False)
        self.assertEqual(result.returncode, 2)
        self.assertEqual(result.stderr, "text is not UTF-8 at byte 3, expected UTF-8 text\n")

    def test_chat_remembers_clears_and_exits(self) -> None:
        said = "hello there\nand again\nclear\nhello there\nexit\nnever reached\n"
        result = self.octet("chat", "--max-new-tokens", 6, "--temperature", 0, stdin=said)
        answers = [part.split("User: ")[0] for part in result.stdout.split("Assistant: ")[1:]]
        answers = [answer.removesuffix("(cleared)\n") for answer in answers]
        self.assertEqual(len(answers), 3, result.stdout)
        self.assertNotEqual(answers[0].strip(), "")
        self.assertEqual(answers[0], answers[2])  # after `clear` the first turn is the first again

    def test_score_of_a_file(self) -> None:
        path = self.directory / "text.txt"
        path.write_text("The quick brown fox jumps over the lazy dog.\n" * 40)
        result = self.octet("score", "--file", path)
        perplexity = float(re.search(r"perplexity\s+([\d.]+)", result.stdout).group(1))
        self.assertGreater(perplexity, 1.0)
        tokens = self.octet("score", "--text", "The quick fox", "--tokens").stdout
        self.assertIn("quick", tokens)

    def test_info_shows_ranks_and_experts(self) -> None:
        output = self.octet("info", "--experts").stdout
        self.assertRegex(output, r"rank\s+0")
        self.assertRegex(output, r"rank\s+1")
        self.assertIn("expert", output)

    def test_every_command_has_help(self) -> None:
        overview = run(OCTET, "--help").stdout
        for command in ("serve", "coordinator", "worker", "generate", "chat", "score", "info", "init", "bench"):
            self.assertIn(command, overview)
            self.assertIn("--config", run(OCTET, command, "--help").stdout)

    def assert_usage_error(self, *arguments: object, says: str) -> None:
        result = run(OCTET, *arguments, check=False)
        self.assertNotEqual(result.returncode, 0)
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertIn(says, lines[0])

    def test_wrong_usage_is_one_sentence(self) -> None:
        self.assert_usage_error("nope", says="'nope' is not a command")
        self.assert_usage_error("serve", says="--model")
        self.assert_usage_error("serve", "--model", "/nowhere", says="/nowhere")
        self.assert_usage_error("serve", "--model", self.model, "--workers", 0, says="--workers is '0'")
        self.assert_usage_error("serve", "--model", self.model, "--listen", "nonsense", says="--listen")
        self.assert_usage_error("serve", "--model", self.model, "--placement", "0:9", says="placement")
        self.assert_usage_error("serve", "--model", self.model, "--dtype", "int3", says="--dtype is 'int3'")
        self.assert_usage_error("serve", "--model", self.model, "--quantization", "int3", says="--quantization is 'int3'")
        self.assert_usage_error("serve", "--model", self.model, "--isa", "mmx", says="mmx")
        self.assert_usage_error("init", "--output", self.directory / "x", "--preset", "nope", says="nope")
        self.assert_usage_error("init", "--output", self.model, says=str(self.model))
        self.assert_usage_error("init", "--output", self.directory / "x", "--top-k", 9, "--preset", "tiny",
                                says="num_experts_per_tok")
        self.assert_usage_error("generate", "--server", "127.0.0.1:1", "--prompt", "x", says="127.0.0.1:1")
        self.assert_usage_error("generate", "--server", self.service.address, "--prompt", "x", "--top-p", 2,
                                says="--top-p is '2'")
        self.assert_usage_error("score", "--server", self.service.address, "--file", "/nowhere", says="/nowhere")
        self.assert_usage_error("bench", "--decode", "1,x", says="--decode is '1,x'")
        self.assert_usage_error("bench", "kernels", "--predict", says="--device cuda")
        self.assert_usage_error("bench", "kernels", "--preset", "nope", says="preset is 'nope'")

    def test_bench_kernels_predicts_without_a_gpu(self) -> None:
        output = run(OCTET, "bench", "kernels", "--device", "cuda", "--predict", "--prefill", 512).stdout
        for name in ("A100 us", "H100 us", "H200 us", "B200 us", "PagedAttention", "GroupedGemmSwiGlu", "Sample"):
            self.assertIn(name, output)
        self.assertNotIn("measured us", output)

    def test_bench_kernels_measures_on_this_machine(self) -> None:
        output = run(OCTET, "bench", "kernels", "--preset", "tiny", "--decode", 2, "--prefill", 8, "--threads", 1,
                     "--seconds", 0.001).stdout
        self.assertRegex(output, r"limits +[\d.]+ GB/s")
        self.assertRegex(output, r"GroupedGemm +\d+ rows.* %")

    def test_init_writes_what_the_shape_flags_say(self) -> None:
        path = self.directory / "shaped"
        run(OCTET, "init", "--output", path, "--preset", "tiny", "--tokenizer", TOKENIZER, "--layers", 1,
            "--experts", 5, "--top-k", 3, "--dtype", "f32", "--seed", 9)
        config = json.loads((path / "config.json").read_text())
        self.assertEqual(
            (config["num_hidden_layers"], config["num_local_experts"], config["num_experts_per_tok"]), (1, 5, 3)
        )
        with Service(path, 3) as service:
            run(OCTET, "generate", "--server", service.address, "--prompt", "x", "--max-new-tokens", 2)

    def test_workers_need_a_coordinator(self) -> None:
        result = run(BINARY_DIR / "bin" / "octet-worker", "--model", self.model, "--coordinator", "127.0.0.1:1",
                     "--connect-timeout", "1s", check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("127.0.0.1:1", result.stderr)


if __name__ == "__main__":
    unittest.main()
