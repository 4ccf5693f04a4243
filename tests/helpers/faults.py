"""Trains with several processes, lets one of them fail at a chosen moment, and resumes: what happened, as JSON lines.

PYTHONPATH=tests python -m helpers.faults --processes 2 4        # every trial: about half an hour on two busy cores
PYTHONPATH=tests python -m helpers.faults --only kill-step-0     # those of one fault, phase and victim

The processes are forks of this one, which has loaded everything, so that a trial takes seconds. No torchrun watches
over them: they have to end by themselves, which is the harder case. Rank 0 has the store that all of them need.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

import undiffuse
from helpers.forking import become, free_port
from undiffuse import cli
from undiffuse.data import store as data_store
from undiffuse.runs.run import Run
from undiffuse.training import loop, previews, session

undiffuse.train  # noqa: B018  Loads what train needs, before the processes fork.

COMMAND = (
    *("train", "--data", "digits", "--size", "8", "--batch", "64", "--precision", "fp32", "--images", "960"),
    *("--checkpoint-images", "320", "--out", "run"),
    *("--set", "network.channels=8", "network.groups=4", "network.patch=1", "training.microbatch=64"),
)
LAST_SECONDS = 60.0
"""A process that is still there so long after the fault hangs."""

Fault = Callable[[], None]


def _disk_full() -> None:
    raise OSError(28, "No space left on device", "run/checkpoints/320")


def _out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")


def _bad_file() -> None:
    raise ValueError("The file images/7.png is damaged.")


def _bug() -> None:
    raise KeyError("a mistake in the code")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS: dict[str, tuple[Fault, str]] = {
    "disk-full": (_disk_full, "No space left on device"),
    "out-of-memory": (_out_of_memory, "out of memory"),
    "bad-file": (_bad_file, "images/7.png is damaged"),
    "bug": (_bug, "a mistake in the code"),
    "kill": (_kill, "it was killed"),
}
"""How a process fails, and what the user must be told."""

PHASES: dict[str, tuple[Any, str, int, bool]] = {
    "start": (data_store, "open_source", 1, True),
    "decode": (data_store, "build_shards", 1, True),
    "weights": (session, "new_state", 1, False),
    "step": (loop, "clip_grad_norm_", 7, False),
    "checkpoint": (Run, "save", 2, True),
    "preview": (previews, "save_previews", 1, True),
    "end": (Run, "save", 3, True),
}
"""Where: the owner and the name of a function, its how manieth call, and whether rank 0 alone calls it."""


@dataclass(frozen=True)
class Trial:
    """One failure."""

    fault: str
    phase: str
    victim: int
    processes: int

    @property
    def name(self) -> str:
        return f"{self.fault}-{self.phase}-{self.victim}"

    def inject(self, rank: int, marks: Path) -> None:
        """Makes this process fail, if it is the victim, when the phase comes."""
        owner, name, call, main_only = PHASES[self.phase]
        usual, calls = getattr(owner, name), iter(range(1, 1_000_000))
        fails, _ = FAULTS[self.fault]

        def failing(*arguments: Any, **named: Any) -> Any:
            if next(calls) == call:
                if rank == self.victim:
                    (marks / "began").write_text(str(time.time()))
                    fails()
                elif rank == 0 and main_only:  # The victim dies while this process works on what it alone does.
                    (marks / "phase").touch()
                    time.sleep(2)
            return usual(*arguments, **named)

        if rank == self.victim and main_only and rank != 0:
            _when(marks / "phase", self.victim, marks)
        else:
            target = session if (self.phase, name) == ("weights", "new_state") else owner
            setattr(target, name, failing)


def _when(flag: Path, victim: int, marks: Path) -> None:
    """Starts a process that kills this one as soon as the flag is there: it waits for rank 0 and cannot raise."""
    parent = os.getpid()
    if os.fork():
        return
    while not flag.exists() and os.getppid() == parent:
        time.sleep(0.02)
    time.sleep(0.5)
    (marks / "began").write_text(str(time.time()))
    with contextlib.suppress(ProcessLookupError):
        os.kill(parent, signal.SIGKILL)
    os._exit(0)


def trials(processes: int) -> Iterator[Trial]:
    """Every fault in every phase, in rank 0 and in the last; what waits in a phase can only be killed there."""
    for phase, (*_, main_only) in PHASES.items():
        for victim in (0, processes - 1):
            for fault in FAULTS:
                if victim == 0 or not main_only or fault == "kill":
                    yield Trial(fault, phase, victim, processes)


def run(
    folder: Path, processes: int, trial: Trial | None = None, own_folders: bool = False
) -> tuple[list[int], str, float]:
    """Trains in the folder: exit codes, everything that was said, and seconds from the fault to the last end.

    With `own_folders`, each process works in one of its own, named after its rank.
    """
    port, marks = free_port(), Path(tempfile.mkdtemp())
    pids = []
    for rank in range(processes):
        pid = os.fork()
        if not pid:
            _child(folder / str(rank) if own_folders else folder, rank, processes, port, marks, trial)
        pids.append(pid)
    codes: dict[int, int] = {}
    hung = False
    while len(codes) < processes:
        for pid in pids:
            if pid not in codes and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(ended[1])
        began = float((marks / "began").read_text() or "inf") if (marks / "began").exists() else time.time() - 200
        limit = began + LAST_SECONDS if (marks / "began").exists() else None
        if limit and time.time() > limit and not hung:
            hung = True
            for pid in pids:
                if pid not in codes:
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    said = "\n".join((marks / f"said-{rank}").read_text() for rank in range(processes))
    seconds = time.time() - float((marks / "began").read_text()) if (marks / "began").exists() else 0.0
    return [codes[pid] for pid in pids], said, seconds


def _child(folder: Path, rank: int, processes: int, port: int, marks: Path, trial: Trial | None) -> None:
    code = 1
    try:
        os.chdir(folder)
        os.environ["UNDIFFUSE_CACHE"] = str(folder / "cache")
        become(rank, processes, port, marks / f"said-{rank}")
        if trial is not None:
            trial.inject(rank, marks)
        cli.main(COMMAND)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException as error:
        print(f"TRACEBACK {type(error).__name__}: {error}")
    os._exit(code)


def digests(folder: Path) -> dict[str, str]:
    """Of everything in the last checkpoint."""
    (checkpoint,) = (folder / "run" / "checkpoints").glob("960")
    return json.loads((checkpoint / "checkpoint.json").read_text())["parts"]


def judge(trial: Trial, whole: dict[str, str]) -> dict[str, Any]:
    """Runs the trial and resumes; what went wrong is listed under `wrong`."""
    folder = Path(tempfile.mkdtemp())
    codes, said, seconds = run(folder, trial.processes, trial)
    wrong = []
    told = FAULTS[trial.fault][1]
    sentences = [line for line in said.splitlines() if told in line.replace("\n", " ")]
    if seconds == 0.0:
        wrong.append("the fault did not happen")
    if seconds > 30:
        wrong.append("not all ended within 30 s")
    if 0 in codes:
        wrong.append(f"exit codes {codes}")
    if told not in " ".join(said.split()):
        wrong.append("no sentence says why")
    again, resumed, _ = run(folder, trial.processes)
    if any(again):
        wrong.append(f"resuming: exit codes {again}: {resumed}")
    elif digests(folder) != whole:
        wrong.append("resumed to other bits")
    return {**asdict(trial), "seconds": round(seconds, 1), "codes": codes, "said": sentences[-1:], "wrong": wrong} | (
        {"all": said} if wrong else {}
    )


def separate(whole: Path) -> dict[str, Any]:
    """Two processes without a shared folder, of which the other has a stale run: killed, and resumed."""
    folder = Path(tempfile.mkdtemp())
    (folder / "0").mkdir()
    shutil.copytree(whole / "run", folder / "1" / "run")
    stale = sorted((folder / "1").rglob("*.safetensors"))
    before = [file.read_bytes() for file in stale]
    _, said, _ = run(folder, 2, Trial("kill", "step", 1, 2), own_folders=True)
    codes, resumed, _ = run(folder, 2, own_folders=True)
    wrong = []
    if digests(folder / "0") != digests(whole):
        wrong.append("other bits than with one folder for both")
    if sorted((folder / "1").rglob("*.safetensors")) != stale or [file.read_bytes() for file in stale] != before:
        wrong.append("the stale run was touched")
    if any(codes) or "Resuming at 320 images" not in resumed:
        wrong.append(f"it was not resumed: {said} {resumed}")
    return {"wrong": wrong}


def killed(whole: Path, times: int) -> dict[str, Any]:
    """One process alone, killed so many times, each time a little further on, and resumed."""
    folder, moments, reached = Path(tempfile.mkdtemp()), random.Random(0), 0
    log = folder / "run" / "log.jsonl"

    def logged() -> list[dict[str, Any]]:
        lines = log.read_text().splitlines() if log.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    for _ in range(times):
        target = reached + 64 * moments.randint(1, 3)
        if not (pid := os.fork()):
            _child(folder, 0, 1, 0, folder, None)
        while not any(line["images"] >= target for line in logged()):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        reached = logged()[-1]["images"]
    killed_at, (codes, said, _) = reached, run(folder, 1)
    wrong = [] if not any(codes) else [said]
    if digests(folder) != digests(whole):
        wrong.append("other bits than a run that was never killed")
    ours, theirs = (
        [
            (line["images"], line["loss"])
            for line in map(json.loads, (each / "run" / "log.jsonl").read_text().splitlines())
        ]
        for each in (folder, whole)
    )
    if ours != theirs:
        wrong.append(f"other losses: {ours} {theirs}")
    if list(folder.rglob(".unfinished-*")):
        wrong.append("half-written files were left")
    return {"killed_at": killed_at, "wrong": wrong}


def main(
    processes: tuple[int, ...] = (2,), only: tuple[str, ...] = (), own_folders: bool = False, kills: int = 0
) -> None:
    """Prints a JSON line for each trial.

    Args:
        processes: How many work together.
        only: The names of trials, FAULT-PHASE-VICTIM; all of them if empty.
        own_folders: Instead, two processes without a shared folder.
        kills: Instead, one process alone that is killed so many times.
    """
    torch.set_num_threads(1)
    if kills:
        whole = Path(tempfile.mkdtemp())
        run(whole, 1)
        print(json.dumps(killed(whole, kills)))
        return
    if own_folders:
        whole = Path(tempfile.mkdtemp())
        run(whole, 2)
        print(json.dumps(separate(whole)))
        return
    for count in processes:
        folder = Path(tempfile.mkdtemp())
        codes, said, _ = run(folder, count)
        assert not any(codes), said
        whole = digests(folder)
        for trial in trials(count):
            if not only or trial.name in only:
                print(json.dumps(judge(trial, whole)), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
