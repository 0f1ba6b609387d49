#!/usr/bin/env python3
"""What Hugging Face datasets reads in the files of client_data/, how it interleaves data sets, and the examples that the
seeds' rules make of the rows with SentencePiece itself. Writes client_data/expected.json; --verify compares instead.

Needs: datasets==5.2.0 sentencepiece==0.2.3
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import chain
from pathlib import Path

import datasets
import sentencepiece

HERE = Path(__file__).resolve().parent
FILES = HERE / "client_data"
TOKENIZER = HERE.parents[1] / "launch" / "quickstart_model" / "tokenizer.model"
IGNORED = -100

ROWS = [
    {"instruction": "Name three colours.", "input": "", "output": "Red, \"green\"\nand blue."},
    {"instruction": "翻譯成英文", "input": "床前明月光", "output": "Moonlight before my bed"},
    {"instruction": "Say nothing", "input": "", "output": ""},
    {"instruction": "Repeat, please:", "input": "a, b,\r\nc 😀", "output": "a, b, c"},
    {"instruction": "Count far", "input": "", "output": " ".join(str(n) for n in range(60))},
    {"instruction": "Long " * 40 + "?", "input": "x", "output": "No."},
    {"instruction": "\tTabs\tand  spaces ", "input": " ", "output": " kept "},
]
DIALOGUES = [
    [["hi", "ok"], ["bye", "yes"]],
    [["Who wrote this? " * 8, "Li Bai."], ["And " + "when " * 30, "In 726, " * 12]],
]
LINES = ["First line.", "", "  indented", "床前明月光", "the end " * 20, "\u2028odd\x0b", "last"]


def write_files() -> None:
    FILES.mkdir(exist_ok=True)
    dump = lambda row: json.dumps(row, ensure_ascii=False)
    (FILES / "rows.jsonl").write_text("".join(dump(row) + "\n" for row in ROWS), encoding="utf-8")
    (FILES / "rows.json").write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
    quote = lambda field: '"' + field.replace('"', '""') + '"'
    lines = ["instruction,input,output"] + [",".join(quote(field) for field in row.values()) for row in ROWS]
    (FILES / "rows.csv").write_bytes(("\r\n".join(lines) + "\r\n").encode())
    (FILES / "lines.txt").write_bytes(("\n".join(LINES) + "\n").encode())
    (FILES / "crlf.txt").write_bytes(("\r\n".join(["a", "", "b"]) + "\r\n").encode())


def read_files() -> dict:
    read = {}
    with tempfile.TemporaryDirectory() as cache:
        for name, builder, more in [("rows.jsonl", "json", {}), ("rows.json", "json", {}),
                                    ("rows.csv", "csv", {"keep_default_na": False}), ("lines.txt", "text", {}),
                                    ("crlf.txt", "text", {})]:
            rows = datasets.load_dataset(builder, data_files=str(FILES / name), split="train", cache_dir=cache, **more)
            read[name] = [dict(row) for row in rows]
    return read


def interleaved() -> list[dict]:
    cases = []
    for sizes in [[2, 3], [3, 2], [2, 5, 1], [4], [1, 1, 1], [6, 2]]:
        sets = [datasets.Dataset.from_dict({"text": [f"{d}.{i}" for i in range(size)]}) for d, size in enumerate(sizes)]
        for strategy in ("first_exhausted", "all_exhausted"):
            mixed = datasets.interleave_datasets(sets, stopping_strategy=strategy)
            cases.append({"sizes": sizes, "strategy": strategy, "order": mixed["text"][:]})
    return cases


class Rules:
    """The seeds' rules for one tokenizer."""

    def __init__(self) -> None:
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(TOKENIZER))
        self.bos, self.eos = self.model.bos_id(), self.model.eos_id()

    def pairs(self, turns: list, bos_every_turn: bool) -> list:
        """(source ids, target ids) of each exchange in the mistral form."""
        encode = self.model.encode
        return [([self.bos] * (i == 0 or bos_every_turn) + encode(f"[INST] {question} [/INST]"),
                 encode(answer) + [self.eos]) for i, (question, answer) in enumerate(turns)]

    def proportional(self, turns: list, cutoff: int, reserved: int, bos_every_turn: bool, on_prompt: bool) -> dict:
        ids, labels = [], []
        for source, target in self.pairs(turns, bos_every_turn):
            max_target = max(int(cutoff * (len(target) / (len(source) + len(target)))), reserved)
            source, target = source[:cutoff - max_target], target[:max_target]
            ids += source + target
            labels += (source if on_prompt else [IGNORED] * len(source)) + target
        return {"ids": ids[:cutoff], "labels": labels[:cutoff]}

    def drop_long_source(self, turns: list, cutoff: int) -> dict | None:
        (source, target), = self.pairs(turns, False)
        if len(source) >= cutoff:
            return None
        return {"ids": (source + target)[:cutoff], "labels": ([IGNORED] * len(source) + target)[:cutoff]}

    def packed(self, ids: list, labels: list, block: int) -> list:
        return [{"ids": ids[i:i + block], "labels": labels[i:i + block]}
                for i in range(0, len(ids) // block * block, block)]

    def packed_text(self, lines: list, block: int, batch: int, learn_eos: bool) -> list:
        blocks = []
        for begin in range(0, len(lines), batch):
            ids = list(chain.from_iterable([self.bos] + self.model.encode(line) + [self.eos]
                                           for line in lines[begin:begin + batch]))
            labels = [IGNORED if token == self.eos and not learn_eos else token for token in ids]
            blocks += self.packed(ids, labels, block)
        return blocks

    def packed_dialogues(self, dialogues: list, block: int, bos_every_turn: bool) -> list:
        ids, labels = [], []
        for turns in dialogues:
            for source, target in self.pairs(turns, bos_every_turn):
                ids += source + target
                labels += [IGNORED] * len(source) + target
        return self.packed(ids, labels, block)


def examples() -> dict:
    rules = Rules()
    questions = [[[row["instruction"] + ("\n" + row["input"] if row["input"] else ""), row["output"]]]
                 for row in ROWS if row["output"]]
    dialogues = questions + DIALOGUES
    made = {"dialogues": dialogues, "proportional": [], "drop_long_source": [], "packed_text": [], "packed_dialogues": []}
    for cutoff, reserved, every, prompt in [(1024, 1, True, False), (40, 1, False, False), (40, 8, True, False),
                                            (17, 3, True, True), (64, 64, False, False)]:
        made["proportional"].append({
            "cutoff": cutoff, "reserved": reserved, "bos_every_turn": every, "on_prompt": prompt,
            "examples": [rules.proportional(turns, cutoff, reserved, every, prompt) for turns in dialogues]})
    for cutoff in (1024, 60, 33):
        made["drop_long_source"].append({
            "cutoff": cutoff,
            "examples": [x for x in (rules.drop_long_source(turns, cutoff) for turns in questions) if x is not None]})
    for block, batch, learn_eos in [(16, 1000, True), (7, 3, True), (30, 2, False)]:
        made["packed_text"].append({"block": block, "batch": batch, "learn_eos": learn_eos,
                                    "examples": rules.packed_text(LINES, block, batch, learn_eos)})
    for block, every in [(32, True), (50, False)]:
        made["packed_dialogues"].append({"block": block, "bos_every_turn": every,
                                         "examples": rules.packed_dialogues(dialogues, block, every)})
    return made


def main() -> int:
    write_files()
    expected = {"files": read_files(), "interleaved": interleaved(), "examples": examples()}
    text = json.dumps(expected, ensure_ascii=False, separators=(",", ":"), sort_keys=True) + "\n"
    path = FILES / "expected.json"
    if "--verify" in sys.argv:
        same = path.read_text(encoding="utf-8") == text
        print("client_data/expected.json is", "as committed" if same else "DIFFERENT")
        return 0 if same else 1
    path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
