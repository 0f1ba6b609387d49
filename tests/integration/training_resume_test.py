"""A training run that is killed again and again, at any moment and also while it saves, and goes on each time with
another number of ranks, ends with the numbers and the weights of the run that nobody touched."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import time
import unittest
from pathlib import Path

from octet_processes import SOURCE_DIR, Process, Service, descendants, is_running, make_checkpoint, run
from training_runs import Outcome, train, train_command

KILLS = 20
STEPS = 60
KEPT = 2  # --save-total-limit
SEED = 20261
FLAGS = ("--cutoff-len", 32, "--finetuning-type", "lora", "--lora-dropout", 0.1, "--lr-scheduler-type", "cosine",
         "--per-device-train-batch-size", 1, "--gradient-accumulation-steps", 2, "--learning-rate", 1e-2,
         "--max-steps", STEPS, "--logging-steps", 1, "--save-steps", 3, "--save-total-limit", KEPT,
         "--val-size", 2, "--evaluation-strategy", "steps", "--eval-steps", 7)
WIDTHS = [("--workers", 1), ("--workers", 2), ("--workers", 3), ("--workers", 2, "--mpi")]
SAVE_STEPS = FLAGS[FLAGS.index("--save-steps") + 1]
# KiB/s of a rank. A save lasts until the next one waits for it, or ends soon.
RATES = (4, 64, 1024)
STOPPED = r"stopped after step (\d+); the same command goes on from there"


def kill_tree(pid: int) -> None:
    """SIGKILL for a process and all below it; stopped first, so that none starts another meanwhile."""
    found: list[int] = []
    more = [pid]
    while more:
        for process in more:
            try:
                os.kill(process, signal.SIGSTOP)
            except ProcessLookupError:
                pass
        found += more
        more = [process for process in descendants(pid) if process not in found]
    for process in found:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass
    while any(is_running(process) for process in found):
        time.sleep(0.005)


def steps_logged(output: Path) -> int:
    try:
        return (output / "trainer_log.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def last_step(output: Path) -> int:
    """Of the log; 0 when it is empty or a line is half written."""
    try:
        return json.loads((output / "trainer_log.jsonl").read_text().splitlines()[-1])["current_steps"]
    except (FileNotFoundError, IndexError, ValueError):
        return 0


def complete_steps(output: Path) -> list[int]:
    return sorted(int(path.parent.parent.name.split("-")[1]) for path in output.glob("checkpoint-*/state/manifest.json"))


def is_saving(output: Path) -> bool:
    """Is a checkpoint half written?"""
    return any(not (path / "state" / "manifest.json").exists() for path in output.glob("checkpoint-*"))


class TrainingResumeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = tempfile.TemporaryDirectory()
        cls.root = Path(cls.directory.name)
        cls.model = make_checkpoint(cls.root / "model", "--preset", "tiny", "--dtype", "f32")
        cls.text = cls.root / "text.txt"
        shutil.copy(SOURCE_DIR / "tests" / "golden" / "texts" / "en.txt", cls.text)
        cls.untouched = cls.root / "untouched"
        train(cls.model, cls.text, cls.untouched, *FLAGS, "--workers", 2)
        cls.expected = Outcome(cls.untouched)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.directory.cleanup()

    def start(self, output: Path, width: tuple, *flags: object) -> Process:
        process = Process(*train_command(self.model, self.text, output, *FLAGS, *width, *flags))
        self.addCleanup(process.__exit__)
        return process

    def wait_until(self, process: Process, reached: object) -> bool:
        """False if the program ended before."""
        end = time.monotonic() + 60
        while not reached():
            if process.process.poll() is not None:
                return False
            self.assertLess(time.monotonic(), end, process.output())
            time.sleep(0.001)
        return True

    def finish(self, output: Path, width: tuple) -> None:
        train(self.model, self.text, output, *FLAGS, *width)
        self.assertEqual(Outcome(output), self.expected)
        self.assertEqual(sorted(path.name for path in output.iterdir()),
                         sorted(path.name for path in self.untouched.iterdir()))

    def test_untouched_run_keeps_what_it_was_told_to(self) -> None:
        self.assertEqual([line["current_steps"] for line in self.expected.steps], list(range(1, STEPS + 1)))
        self.assertEqual(sorted(path.name for path in self.untouched.glob("checkpoint-*")),
                         [f"checkpoint-{STEPS - 3}", f"checkpoint-{STEPS}"])

    def test_killed_at_any_time(self) -> None:
        random_numbers = random.Random(SEED)
        output = self.root / "killed"
        saves_hit = 0
        for kill in range(KILLS):
            process = self.start(output, random_numbers.choice(WIDTHS))
            kind = ("time", "step", "save")[kill % 3]
            delay, more_steps = random_numbers.uniform(0, 0.8), random_numbers.randint(1, 5)
            before = steps_logged(output)
            if kind == "time":
                kill_at = time.monotonic() + delay
                self.wait_until(
                    process, lambda: time.monotonic() > kill_at or steps_logged(output) >= before + more_steps)
            elif kind == "step":
                self.wait_until(process, lambda: steps_logged(output) >= before + more_steps)
            else:
                # Past the first moments, in which what an earlier kill left is still there.
                self.wait_until(process, lambda: "goes on after" in process.output() or steps_logged(output) > 0)
                left = set(output.glob("checkpoint-*"))
                self.wait_until(process, lambda: is_saving(output) and set(output.glob("checkpoint-*")) - left)
                time.sleep(random_numbers.uniform(0, 0.004))
            ended = process.process.poll() is not None
            kill_tree(process.process.pid)
            process.process.wait(10)
            if ended:  # a fast machine
                self.assertEqual(process.process.returncode, 0, process.output())
                self.assertGreaterEqual(kill, KILLS / 2)
                break
            saves_hit += is_saving(output)
            print(f"kill {kill} ({kind}): {steps_logged(output)} log lines, "
                  f"{sorted(path.name for path in output.glob('checkpoint-*'))}")
        self.assertGreater(saves_hit, 0, "no kill hit a save; the test has lost its point")
        self.finish(output, WIDTHS[2])

    def test_killed_while_it_writes_in_the_background(self) -> None:
        """Steps after the one that is being saved have run when the kill comes; or the save has just ended."""
        random_numbers = random.Random(SEED)
        output = self.root / "background"
        newest, hits = 0, 0
        for kill in range(KILLS // 2):
            width, rate = random_numbers.choice(WIDTHS), random_numbers.choice(RATES)
            process = self.start(output, width, "--save-kib-per-second", rate)
            target = newest + SAVE_STEPS * random_numbers.randint(2, 3)
            saved = output / f"checkpoint-{target}" / "state"
            writing = saved.with_suffix(".partial")
            later = target + random_numbers.randint(1, SAVE_STEPS - 1)
            # The log of a resumed run is written anew, so that it has no step from before.
            self.wait_until(process, lambda: last_step(output) > newest or "goes on after" in process.output())
            if kill % 3 == 2:
                ready = saved.exists
            else:
                ready = lambda: last_step(output) >= later and (saved.exists() or writing.exists())
            self.assertTrue(self.wait_until(process, ready), process.output())
            time.sleep(random_numbers.uniform(0, 0.004))
            kill_tree(process.process.pid)
            process.process.wait(10)
            if newest > 0:
                self.assertIn(f"goes on after step {newest} of {output}/checkpoint-{newest}", process.output())
            complete = complete_steps(output)
            print(f"kill {kill} at {rate} KiB/s: step {last_step(output)} logged, checkpoints {complete} are complete")
            # An old checkpoint goes only when a newer one is complete.
            self.assertGreaterEqual(len(complete), min(KEPT, complete[-1] // SAVE_STEPS))
            self.assertLessEqual(len(complete), KEPT + 1)
            self.assertGreaterEqual(complete[-1], target - SAVE_STEPS)
            hits += complete[-1] < last_step(output) and writing.exists()
            newest = complete[-1]
            if newest >= STEPS - 3 * SAVE_STEPS:
                break
        self.assertGreater(hits, 0, "no kill came while a save went on beside steps; the test has lost its point")
        self.finish(output, WIDTHS[2])

    def test_a_save_that_waits_has_the_same_bytes(self) -> None:
        output = self.root / "waits"
        train(self.model, self.text, output, *FLAGS, "--workers", 2, "--background-saves=false")
        self.assertEqual(Outcome(output), self.expected)
        name = f"checkpoint-{STEPS - SAVE_STEPS}/state"
        for path in (self.untouched / name).glob("*.safetensors"):
            self.assertEqual((output / name / path.name).read_bytes(), path.read_bytes(), path.name)

    def test_an_error_of_a_background_save_ends_the_run(self) -> None:
        output = self.root / "broken"
        process = self.start(output, WIDTHS[1], "--save-kib-per-second", RATES[0])
        writing = output / f"checkpoint-{SAVE_STEPS}" / "state.partial"
        self.assertTrue(self.wait_until(process, lambda: len(list(writing.glob("*"))) == 2))
        shutil.rmtree(writing)
        self.assertEqual(process.process.wait(30), 1, process.output())
        self.assertIn(f"the save in the background to {writing.with_suffix('')} after step {SAVE_STEPS} failed: "
                      f"{writing}/state-0000", process.output())
        self.finish(output, WIDTHS[0])

    def test_a_service_that_outlives_the_command(self) -> None:
        with Service(self.model, 2) as service:
            server = ("--server", service.address, "--tokenizer", self.model)
            output = self.root / "served"
            for number, kill in enumerate((signal.SIGINT, signal.SIGKILL)):
                process = self.start(output, server)
                self.assertTrue(self.wait_until(process, lambda: last_step(output) >= 7 * (number + 1)))
                process.process.send_signal(kill)
                process.process.wait(30)
                other = train_command(self.model, self.text, self.root / "other", *FLAGS, *server)
                if kill == signal.SIGKILL:
                    self.assertIn("is open, expected none", run(*other, check=False).stderr)
            # A refusal ends its run, too.
            self.assertIn("seed is 42, expected 7", run(
                *train_command(self.model, self.text, output, *FLAGS, *server, "--seed", 7), check=False).stderr)
            self.assertIn("--quantization is 'nf4'", run(
                *train_command(self.model, self.text, output, *FLAGS, *server, "--quantization", "nf4"),
                check=False).stderr)
            self.finish(output, server)
            run(*other)
            self.assertIn("done: 60 steps, none left to train", run(*other).stdout)

    def test_killed_before_the_first_checkpoint(self) -> None:
        output = self.root / "early"
        unfinished = output / "checkpoint-3"
        (unfinished / "state.partial").mkdir(parents=True)
        (output / "checkpoint-6.partial").mkdir()
        shutil.copy(self.untouched / "adapter_config.json", unfinished)
        shutil.copy(self.untouched / "trainer_log.jsonl", output)
        self.finish(output, WIDTHS[0])

    def test_a_second_signal_ends_a_long_step(self) -> None:
        output = self.root / "long_step"
        for width in (WIDTHS[1], WIDTHS[3]):
            process = self.start(output, width, "--gradient-accumulation-steps", 10**8)
            process.wait_for("memory plan")
            time.sleep(0.5)  # the step has begun
            process.process.send_signal(signal.SIGINT)
            process.wait_for("again ends it at once")
            process.process.send_signal(signal.SIGINT)  # as a launcher that forwards it
            time.sleep(1)
            self.assertIsNone(process.process.poll())
            children = descendants(process.process.pid)
            process.process.send_signal(signal.SIGINT)
            self.assertEqual(process.process.wait(10), -signal.SIGINT)
            end = time.monotonic() + 20
            while any(is_running(child) for child in children):
                self.assertLess(time.monotonic(), end)
                time.sleep(0.05)
        self.finish(output, WIDTHS[0])

    def test_overwriting_begins_with_the_run(self) -> None:
        output = self.root / "overwritten"
        shutil.copytree(self.untouched, output)
        command = train_command(self.model, self.text, output, *FLAGS, *WIDTHS[1], "--overwrite-output-dir")
        for flags, text in [(("--lora-target", "nosuch"), "'nosuch', which matches nothing"),
                            (("--resume-from-checkpoint", output / f"checkpoint-{STEPS}"), "both given")]:
            self.assertIn(text, run(*command, *flags, check=False).stderr)
            self.assertEqual(complete_steps(output), [STEPS - SAVE_STEPS, STEPS])
        run(*command, "--max-steps", 2)
        self.assertEqual(complete_steps(output), [2])

    def test_other_data_are_refused(self) -> None:
        text = self.root / "other.txt"
        text.write_text(self.text.read_text().replace("e", "a"))
        command = train_command(self.model, text, self.untouched, *FLAGS, *WIDTHS[0], "--max-steps", STEPS + 1)
        self.assertIn(f"{self.untouched}/checkpoint-{STEPS}: the data position is of the data",
                      run(*command, check=False).stderr)

    def test_an_evaluation_without_rows_is_said(self) -> None:
        flags = (*FLAGS, "--max-steps", 1, "--val-size", 0, "--lora-target", "gate, w1", *WIDTHS[0])
        result = train(self.model, self.text, self.root / "no_rows", *flags)
        self.assertIn("have no effect without --val-size", result.stderr)

    def test_a_directory_of_others_is_refused(self) -> None:
        output = self.root / "others"
        (output / "checkpoint-3").mkdir(parents=True)
        (output / "checkpoint-3" / "optimizer.pt").write_text("not ours")
        command = train_command(self.model, self.text, output, *FLAGS, *WIDTHS[0])
        self.assertIn("is not empty and has no checkpoint", run(*command, check=False).stderr)
        self.assertEqual(sorted(path.name for path in output.rglob("*")), ["checkpoint-3", "optimizer.pt"])

    def check_interrupted(self, width: tuple, next_width: tuple) -> None:
        output = self.root / f"interrupted-{len(width)}"
        process = self.start(output, width)
        self.assertTrue(self.wait_until(process, lambda: steps_logged(output) > 4))
        process.process.send_signal(signal.SIGINT)
        self.assertEqual(process.process.wait(30), 0, process.output())
        step = int(process.wait_for(STOPPED).group(1))
        self.assertTrue((output / f"checkpoint-{step}" / "state" / "manifest.json").exists())
        self.assertLessEqual(len(list(output.glob("checkpoint-*"))), KEPT)
        self.finish(output, next_width)

    def test_interrupted_threads(self) -> None:
        self.check_interrupted(WIDTHS[1], WIDTHS[3])

    def test_interrupted_processes(self) -> None:
        self.check_interrupted(WIDTHS[3], WIDTHS[2])


if __name__ == "__main__":
    unittest.main()
