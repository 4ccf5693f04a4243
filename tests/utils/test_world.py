"""What processes under torchrun agree on, and that nothing of their group outlives it."""

import sys

import pytest
import torch
from helpers import forking

from undiffuse.utils.world import World, init_distributed

SCRIPT = """
from pathlib import Path
import torch
from undiffuse.utils.world import init_distributed

def threads():
    names = [file.read_text() for file in Path('/proc/self/task').glob('*/comm')]
    return [name for name in names if 'gloo' in name]

def work(world):
    network = world.wrap(torch.nn.Linear(4, 4))
    network(torch.ones(2, 4)).sum().backward()
    assert world.sum(1.0, world.rank) == [2.0, 1.0]
    assert world.mean_tensor(torch.tensor(float(world.rank))) == 0.5
    mine = torch.tensor([1.0, 2.0], dtype=torch.float64) + 10 * world.rank
    assert world.gather(mine).tolist() == [1.0, 2.0, 11.0, 12.0]
    assert world.share({'rank': world.rank}) == {'rank': 0}
    assert world.on_main(lambda: ('from', world.rank)) == ('from', 0)
    assert world.on_each_machine(lambda: ('from', world.rank)) == ('from', 0)
    turns = []
    assert world.in_turn(lambda: turns.append(world.sum) or world.rank) == world.rank and len(turns) == 1
    total = torch.arange(3) * (world.rank + 1)
    world.add_up(total)
    assert total.tolist() == [0, 3, 6]
    assert world.collect(world.rank + 5) == ([5, 6] if world.is_main else [])
    tensors = {'a': torch.arange(6.0).reshape(2, 3).T, 'n': torch.tensor(3)} if world.is_main else {}
    shared = world.share_tensors(tensors)
    assert shared['a'].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]] and shared['n'].dtype == torch.int64
    assert threads() or not Path('/proc').exists(), 'the test looks for the wrong names'

with init_distributed() as world:
    work(world)
assert not threads(), threads()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are listed in Linux's /proc")
def test_two_processes_agree_and_leave_no_threads_behind() -> None:
    forking.together(2, exec, SCRIPT, {})


AGAIN = """
import os, time
from undiffuse.utils.world import init_distributed

for turn in range(6):
    # Whoever comes first must not take the addresses that the others had before, nor the store that rank 0 gives up.
    with init_distributed() as world:
        assert world.sum(turn, world.rank) == [3 * turn, 3.0]
    time.sleep(0.3 * ((turn + world.rank) % 3))
"""


def test_processes_join_again_and_again() -> None:
    forking.together(3, exec, AGAIN, {}, seconds=60)


def test_batches_are_dealt_alike_to_any_number_that_all_get_a_whole_one() -> None:
    worlds = [World(0, size, torch.device("cpu")) for size in (1, 2, 3, 4, 8)]
    batches = [world.deal(range(7), 2) for world in worlds]
    assert batches[0] == [range(2), range(2, 4), range(4, 6), range(6, 7)]
    assert batches[0] == batches[1] == batches[2] == batches[3]
    assert batches[4] == [range(i, i + 1) for i in range(7)], "of fewer, each gets some"
    assert worlds[0].deal([], 2) == []


def test_a_single_process_agrees_with_itself() -> None:
    world = World.alone(torch.device("cpu"))
    tensor = torch.arange(3.0)
    assert world.is_main
    assert world.sum(1.5, 2.0) == [1.5, 2.0]
    assert world.mean_tensor(tensor) is tensor
    assert world.gather(tensor) is tensor
    assert world.share("it") == world.on_main(lambda: "it") == world.on_each_machine(lambda: "it") == "it"
    assert world.in_turn(lambda: "it") == "it"
    assert world.collect("it") == ["it"]
    assert world.share_tensors({"a": tensor}) == {"a": tensor}


def test_processes_cannot_share_apples_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"cannot share Apple's GPU: .* without torchrun"), init_distributed():
        pytest.fail("it joined")
