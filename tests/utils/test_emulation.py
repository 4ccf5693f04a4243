"""The emulated accelerator of the tests computes like the CPU, refuses what devices refuse, and counts who waits."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from helpers.accelerator import Accelerator, Refused, emulated, missing_kernels
from torch import Tensor

from undiffuse.networks.unet import UNet, UNetConfig

CPU = torch.device("cpu")


def test_a_network_and_its_gradients_are_those_of_the_cpu(
    small_network: UNetConfig, random_unet: Callable[[UNetConfig], UNet]
) -> None:
    network = random_unet(small_network)
    x, c_noise, label = torch.randn(2, 1, 8, 8), torch.rand(2), torch.tensor([1, -1])
    with emulated("mps") as accelerator:
        moved = copy.deepcopy(network).to(accelerator.device)
        there = [tensor.to(accelerator.device) for tensor in (x, c_noise, label)]
        out = moved(*there)
        out.square().sum().backward()
        assert {parameter.device for parameter in moved.parameters()} == {accelerator.device} == {out.device}
        found = [out.detach().cpu(), *(p.grad.cpu() for p in moved.parameters() if p.grad is not None)]
    expected = network(x, c_noise, label)
    expected.square().sum().backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    torch.testing.assert_close(found, [expected.detach(), *gradients], rtol=1e-4, atol=1e-5)


MPS_REFUSES: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "float64": (lambda x: x.double(), r"_to_copy makes a torch.float64"),
    "float64 made there": (lambda x: torch.zeros(2, dtype=torch.float64, device="mps"), r"zeros makes a torch.float64"),
    "float64 by promotion": (lambda x: x.sum() * torch.tensor(1.0, dtype=torch.float64), r"mul.Tensor makes"),
    "float64 on the way back": (lambda x: x.to(CPU, torch.float64), r"_to_copy from MPS to torch.float64"),
    "log_ndtr": (torch.special.log_ndtr, "special_log_ndtr has no kernel for mps:0"),
    "ndtri": (torch.special.ndtri, "special_ndtri has no kernel"),
    "the CPU's numbers": (lambda x: x + torch.ones(4), r"add.Tensor of a tensor on mps:0 and one on the CPU"),
    "the CPU's generator": (lambda x: x.normal_(generator=torch.Generator()), "normal_ on mps:0 with a generator"),
    "numpy": (lambda x: x.numpy(), "numpy"),
    "channels_last": (lambda x: x.view(1, 1, 2, 2).to(memory_format=torch.channels_last), "_to_copy in channels_last"),
    "a part in channels_last": (
        lambda x: F.avg_pool2d(x.new_zeros(2, 4, 2, 2).permute(0, 3, 1, 2)[1:], 2),
        "avg_pool2d of a part in channels_last",
    ),
    "copies without waiting": (lambda x: torch.ones(4).to("mps", non_blocking=True), "nobody waits for"),
}


@pytest.mark.parametrize(("work", "words"), MPS_REFUSES.values(), ids=MPS_REFUSES)
def test_mps_refuses_by_name(work: Callable[[Tensor], object], words: str) -> None:
    with emulated("mps") as accelerator, pytest.raises(Refused, match=words):
        work(torch.ones(4, device=accelerator.device))


def test_cuda_has_what_mps_lacks() -> None:
    assert "aten::special_log_ndtr" in missing_kernels("MPS") - missing_kernels("CUDA")
    with emulated("cuda"):
        x = torch.ones(4, device="cuda")
        assert torch.special.log_ndtr(x.double()).dtype == torch.float64
        with pytest.raises(Refused, match=r"add.Tensor of a tensor on cuda:0 and one on the CPU"):
            x + torch.ones(4)


COUNTED: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "a number": (lambda x: float(x.sum()), "read"),
    "a branch": (lambda x: bool(x.sum() > 0), "read"),
    "a list": (lambda x: x.tolist(), "read"),
    "a copy to the CPU": (lambda x: x.cpu(), "read"),
    "a size": (lambda x: x.nonzero(), "read"),
    "a mask": (lambda x: x[x > 0], "read"),
    "equality": (lambda x: torch.equal(x, x), "read"),
    "synchronize": (lambda x: torch.cuda.synchronize(), "read"),
    "a copy there": (lambda x: torch.ones(4).to("cuda"), "upload"),
    "a new tensor there": (lambda x: torch.tensor([1.0], device="cuda"), "upload"),
    "a copy of memory that is not pinned": (lambda x: torch.ones(4).to("cuda", non_blocking=True), "upload"),
    "indices": (lambda x: x[torch.tensor([0, 1])], "upload"),
    "a list of indices": (lambda x: x[[0, 1]], "upload"),
    "a pinned copy": (lambda x: torch.ones(4).pin_memory().to("cuda", non_blocking=True), "queued"),
    "the CPU's single number": (lambda x: x * torch.tensor(2.0), ""),
    "a filled tensor": (lambda x: x.new_full((3,), 2.0), ""),
    "arithmetic": (lambda x: torch.where(x > 0, 0.0, x).cumsum(0), ""),
}


@pytest.mark.parametrize(("work", "kind"), COUNTED.values(), ids=COUNTED)
def test_who_waits_is_counted(work: Callable[[Tensor], object], kind: str) -> None:
    with emulated("cuda") as accelerator:
        x = torch.ones(4, device=accelerator.device)
        accelerator.forget()
        work(x)
        assert counts(accelerator) == {each: int(each == kind) for each in ("read", "upload", "queued")}


def counts(accelerator: Accelerator) -> dict[str, int]:
    return {"read": len(accelerator.reads), "upload": len(accelerator.uploads), "queued": len(accelerator.queued)}
