"""Makes the tiny Mixtral checkpoints of this folder and what they answer.

  make_goldens.py [NAME ...]            write the checkpoints and their goldens
  make_goldens.py --verify [NAME ...]   compare what is committed with the
                                        transformers that is installed

README.md says how to install it and what the files hold.
"""

import argparse
import json
import pathlib
import shutil
import sys

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

import checkpoint
import numpy_reference
import oracle
import prompts
from cases import CASES, Case, make_model

ROOT = pathlib.Path(__file__).parent
# fp32 against float64 or another order of sums, relative to the largest value.
TOLERANCE = 1e-5
DEBUG_PROMPT = "medium"  # the prompt that also records routing and hidden states


def relative_error(value: np.ndarray, expected: np.ndarray) -> float:
    """max|value - expected| / max|expected|."""
    difference = np.abs(np.asarray(value, np.float64) - expected).max()
    return float(difference / np.abs(expected).max())


def check(case: Case, what: str, error: float) -> float:
    """Raises when an error is over TOLERANCE; returns it."""
    if not error < TOLERANCE:
        raise RuntimeError(f"{case.name}: {what} differs by {error:.2e}")
    return error


def log_probs(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """log p(ids[t + 1] | ids[..t]) [S - 1] of logits [S, V] and ids [S]."""
    table = logits[:-1].double().log_softmax(-1)
    return table.gather(-1, ids[1:, None])[:, 0]


class Golden:
    """One case on disk, loaded by every implementation that must agree."""

    def __init__(self, case: Case, directory: pathlib.Path):
        self.case = case
        self.model = oracle.load(directory, torch.float32)
        self.sdpa = oracle.load(directory, torch.float32, attention="sdpa")
        self.low_model = None
        if case.dtype == "bfloat16":
            self.low_model = oracle.load(directory, torch.bfloat16)
        self.reference = numpy_reference.Mixtral(directory)
        self.used = np.zeros((case.layers, case.experts), np.int64)
        self.tensors: dict[str, np.ndarray] = {}
        self.summary: dict[str, dict[str, object]] = {}

    def add_prompt(self, kind: str, prompt: prompts.Prompt) -> None:
        """Records one prompt, its continuation and how far oracles differ."""
        case, ids = self.case, prompt.ids
        trace = oracle.forward(self.model, ids)
        tokens, step_logits = oracle.greedy(self.model, ids, prompts.STEPS)
        if not torch.equal(oracle.generate(self.model, ids, prompts.STEPS), tokens):
            raise RuntimeError(f"{case.name}: generate() disagrees on {kind}")
        logps = log_probs(trace.logits[0], ids[0])
        self.put(kind, "input_ids", ids[0])
        self.put(kind, "logits", trace.logits[0])
        self.put(kind, "logprobs", logps)
        self.put(kind, "perplexity", (-logps.mean()).exp()[None])
        self.put(kind, "greedy_ids", tokens[0])
        self.put(kind, "greedy_logits", step_logits[0])
        if kind == DEBUG_PROMPT:
            self.add_trace(kind, trace)
        self.summary[kind] = {
            "text": prompt.source,
            "byte": prompt.byte_at,
            "router_gap": rounded(prompt.router_gap),
            "greedy_logit_gap": rounded(prompt.logit_gap),
            "prompt_logit_gap": rounded(float(oracle.logit_gap(trace.logits))),
        } | self.compare(kind, ids, trace, tokens)

    def put(self, kind: str, what: str, value: torch.Tensor) -> None:
        """Adds one tensor, floats as fp32 and ids as int32."""
        dtype = torch.float32 if value.is_floating_point() else torch.int32
        self.tensors[f"{kind}/{what}"] = np.ascontiguousarray(value.to(dtype).numpy())

    def add_trace(self, kind: str, trace: oracle.Trace) -> None:
        """Adds the inside of the forward pass."""
        indices, weights = oracle.topk(trace, self.case.top_k)
        self.put(kind, "router_logits", trace.router_logits[0])
        self.put(kind, "topk_idx", indices[0])
        self.put(kind, "topk_weights", weights[0])
        self.put(kind, "hidden_states", trace.hidden_states[0])

    def compare(
        self, kind: str, ids: torch.Tensor, trace: oracle.Trace, tokens: torch.Tensor
    ) -> dict[str, object]:
        """Holds transformers against the other oracles; their errors."""
        case = self.case
        size = ids.shape[1]
        full = self.reference.forward(torch.cat([ids, tokens[:, :-1]], 1)[0].numpy())
        for layer in range(case.layers):
            experts, counts = np.unique(full.topk_idx[layer], return_counts=True)
            self.used[layer, experts] += counts
        chosen = oracle.topk(trace, case.top_k)[0][0].numpy()
        if not np.array_equal(chosen, full.topk_idx[:, :size]):
            raise RuntimeError(f"{case.name}: numpy routes {kind} otherwise")
        steps = self.tensors[f"{kind}/greedy_logits"]
        pairs = (
            (trace.logits[0], full.logits[:size]),
            (trace.router_logits[0], full.router_logits[:, :size]),
            (trace.hidden_states[0], full.hidden_states[:, :size]),
            (torch.from_numpy(steps), full.logits[size - 1 :]),
        )
        error = max(relative_error(a.numpy(), b) for a, b in pairs)
        sdpa = oracle.forward(self.sdpa, ids).logits[0].numpy()
        report: dict[str, object] = {
            "numpy_error": rounded(check(case, "numpy", error)),
            "sdpa_error": rounded(
                check(case, "sdpa", relative_error(sdpa, trace.logits[0].numpy()))
            ),
        }
        if case.window:
            self.check_window(kind, ids)
        if self.low_model is not None:
            low = oracle.forward(self.low_model, ids).logits[0]
            self.put(kind, "bf16_logits", low)
            exact = trace.logits[0].numpy()
            rms = np.sqrt(
                np.square(low.numpy() - exact).mean() / np.square(exact).mean()
            )
            report["bf16_error"] = rounded(relative_error(low.numpy(), exact))
            report["bf16_rms_error"] = rounded(float(rms))
        return report

    def check_window(self, kind: str, ids: torch.Tensor) -> None:
        """The window must matter exactly from its first hidden key on."""
        window = self.case.window
        self.reference.config["sliding_window"] = None
        wide = self.reference.forward(ids[0].numpy()).logits
        self.reference.config["sliding_window"] = window
        rows = np.abs(wide - self.tensors[f"{kind}/logits"]).max(axis=-1)
        if rows[:window].max() > 1e-3 or (rows[window:] < 1e-3).any():
            raise RuntimeError(f"{self.case.name}: the window is not honoured")


def rounded(value: float) -> float:
    """Three significant digits, enough for a record."""
    return float(f"{value:.3g}")


def languages(case: Case) -> dict[str, str]:
    """English and Chinese by turns, so every case has both."""
    order = ("en", "zh", "en") if case.seed % 2 else ("zh", "en", "zh")
    return dict(zip(prompts.LENGTHS, order))


def make(case: Case) -> None:
    """Writes one case's directory, from nothing."""
    directory = ROOT / case.name
    shutil.rmtree(directory, ignore_errors=True)
    checkpoint.write(case, make_model(case), directory)
    golden = Golden(case, directory)
    for kind, language in languages(case).items():
        prompt = prompts.find(case, golden.model, golden.low_model, kind, language)
        golden.add_prompt(kind, prompt)
    if not golden.used.all():
        raise RuntimeError(f"{case.name}: idle experts: {golden.used.tolist()}")
    save_file(golden.tensors, directory / "golden.safetensors")
    record = {
        "seed": case.seed,
        "versions": {
            "numpy": np.__version__,
            "torch": torch.__version__.partition("+")[0],
            "transformers": transformers.__version__,
        },
        "least_rows_of_an_expert": int(golden.used.min()),
        "prompts": golden.summary,
    }
    (directory / "golden.json").write_text(json.dumps(record, indent=2) + "\n")
    print(case.name, json.dumps(golden.summary), flush=True)


def verify(case: Case) -> None:
    """Compares the committed files with the installed transformers."""
    directory = ROOT / case.name
    if case.fused and int(transformers.__version__.partition(".")[0]) < 5:
        print(f"{case.name}: skipped, transformers 4 has no fused layout")
        return
    expected = load_file(directory / "golden.safetensors")
    model = oracle.load(directory, torch.float32)
    worst = 0.0
    for kind in prompts.LENGTHS:
        ids = torch.from_numpy(expected[f"{kind}/input_ids"]).long()[None]
        logits = oracle.forward(model, ids).logits[0].numpy()
        worst = max(worst, relative_error(logits, expected[f"{kind}/logits"]))
        tokens = oracle.generate(model, ids, prompts.STEPS)[0].numpy()
        if not np.array_equal(tokens, expected[f"{kind}/greedy_ids"]):
            raise RuntimeError(f"{case.name}: {kind} continues otherwise")
    check(case, "logits", worst)
    print(f"{case.name}: logits differ by {worst:.1e}, continuations equal")


def main() -> int:
    """Runs the named cases, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--verify", action="store_true", help="write nothing")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    unknown = set(options.names) - {case.name for case in CASES}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for case in CASES:
        if not options.names or case.name in options.names:
            (verify if options.verify else make)(case)
    return 0


if __name__ == "__main__":
    sys.exit(main())
