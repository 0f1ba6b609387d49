"""Picks prompts of real text on which no decision is a near-tie."""

import dataclasses
import pathlib

import torch

import oracle
from cases import Case

STEPS = 16
LENGTHS = {"short": 5, "medium": 23, "long": 70}
MIN_ROUTER_GAP = 1e-3
MIN_LOGIT_GAP = 1e-2
MIN_DISTINCT = 8  # different tokens in a greedy continuation
BATCH = 32
BOS = 1
BYTE_OFFSET = 3  # SentencePiece's byte-fallback ids: <unk>, <s>, </s>, bytes
TEXTS = pathlib.Path(__file__).parent / "texts"


@dataclasses.dataclass
class Prompt:
    """A prompt and how far its decisions are from a tie."""

    ids: torch.Tensor  # [1, S]
    source: str
    byte_at: int
    router_gap: float
    logit_gap: float


def windows(language: str, length: int) -> list[tuple[int, list[int]]]:
    """(byte offset, BOS + length-1 bytes) from every start of a character."""
    data = (TEXTS / f"{language}.txt").read_bytes()
    return [
        (at, [BOS] + [BYTE_OFFSET + b for b in data[at : at + length - 1]])
        for at in range(len(data) - length + 1)
        if data[at] & 0xC0 != 0x80 and data[at] > 0x20
    ]


def accept(
    case: Case,
    model: torch.nn.Module,
    low_model: torch.nn.Module | None,
    ids: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which of ids [B, S] qualify, and their router and logit gaps, each [B].

    With `low_model` (bf16 arithmetic) its prompt routing and its greedy tokens
    must be those of fp32, so that a bf16 run has one right answer.
    """
    tokens, logits = oracle.greedy(model, ids, STEPS)
    trace = oracle.forward(model, torch.cat([ids, tokens[:, :-1]], dim=1))
    router = oracle.router_gap(trace, case.top_k)
    logit = oracle.logit_gap(logits)
    distinct = torch.tensor([len(set(row.tolist())) for row in tokens])
    good = (router > MIN_ROUTER_GAP) & (logit > MIN_LOGIT_GAP)
    good &= distinct >= MIN_DISTINCT
    if low_model is not None and good.any():
        at = good.nonzero()[:, 0]
        good[at] &= agrees(case, model, low_model, ids[at], tokens[at])
    return good, router, logit


def agrees(
    case: Case,
    model: torch.nn.Module,
    low_model: torch.nn.Module,
    ids: torch.Tensor,
    tokens: torch.Tensor,
) -> torch.Tensor:
    """Per sequence [B]: both models route the prompt and continue it alike."""
    pair = [oracle.forward(m, ids) for m in (model, low_model)]
    chosen = [oracle.topk(t, case.top_k)[0].sort(-1).values for t in pair]
    same_routing = (chosen[0] == chosen[1]).flatten(1).all(1)
    low_tokens, _ = oracle.greedy(low_model, ids, STEPS)
    return same_routing & (low_tokens == tokens).all(1)


def find(
    case: Case,
    model: torch.nn.Module,
    low_model: torch.nn.Module | None,
    kind: str,
    language: str,
) -> Prompt:
    """Of all windows, the qualifying one that is farthest from a near-tie."""
    candidates = windows(language, LENGTHS[kind])
    best, found = -1.0, None
    for at in range(0, len(candidates), BATCH):
        part = candidates[at : at + BATCH]
        ids = torch.tensor([row for _, row in part])
        good, router, logit = accept(case, model, low_model, ids)
        score = torch.minimum(router / MIN_ROUTER_GAP, logit / MIN_LOGIT_GAP)
        score[~good] = -1.0
        i = int(score.argmax())
        if float(score[i]) > best:
            best = float(score[i])
            found = Prompt(
                ids[i : i + 1],
                f"texts/{language}.txt",
                part[i][0],
                float(router[i]),
                float(logit[i]),
            )
    if found is None:
        raise RuntimeError(f"{case.name}: no {kind} prompt qualifies, change the seed")
    return found
