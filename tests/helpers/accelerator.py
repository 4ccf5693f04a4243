"""An accelerator that is not there: its tensors say that they are on "mps" or "cuda", and their data lies on the CPU.

    with emulated("mps") as accelerator:
        network.to(accelerator.device)(x.to(accelerator.device), ...).sum().backward()
    assert accelerator.reads == []

Inside, what the real device would refuse or do wrong is refused, by the name of the operation: one that it has no
kernel for, a CPU tensor (other than a single number) in the same operation, a CPU generator; and on MPS float64,
channels_last and copies that nobody waits for. Whatever makes the program wait for the device is noted with the line of
the package that did it. Not emulated: autocast, which here changes nothing, and torch.compile.
"""

import os
import re
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
import torchgen
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import undiffuse

META = torch.device("meta")
"""Which device torch's C++ takes the tensors to be on. There is no other that autograd knows in every build."""

HOST = torch.device("cpu")
PACKAGE = str(Path(undiffuse.__file__).parent) + os.sep
FLOAT64 = (torch.float64, torch.complex128)

COPIES = ("aten::_to_copy", "aten::copy_", "aten::_local_scalar_dense")
TAKE_IMAGES = (
    *("aten::convolution", "aten::native_batch_norm", "aten::_native_batch_norm_legit_no_training"),
    *("aten::native_group_norm", "aten::avg_pool2d", "aten::max_pool2d_with_indices", "aten::mean.dim"),
)
TAKE_HOST_INDICES = ("aten::index.Tensor", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_")


@cache
def missing_kernels(backend: str) -> frozenset[str]:
    """The operations without a kernel for "MPS" or "CUDA", from the table that the installed torch was built from.

    torch's own tests list the same ones: UNIMPLEMENTED_XFAILLIST in torch/testing/_internal/common_mps.py.
    """
    table = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    kernels: dict[str, tuple[str, set[str]]] = {}
    for entry in table.read_text().split("\n- func: ")[1:]:
        name = re.match(r"[\w.]+", entry)
        delegate = re.search(r"\n  structured_delegate: ([\w.]+)", entry)
        dispatch = re.search(r"\n  dispatch:\n((?:    .*\n?)+)", entry)
        assert name
        keys = re.findall(r"^    ([\w, ]+):", dispatch[1], re.MULTILINE) if dispatch else []
        generated = ["CPU", "CUDA"] if "ufunc_inner_loop:" in entry else []
        kernels[name[0]] = delegate[1] if delegate else name[0], {*", ".join(keys).split(", "), *generated}
    there = {name: kernels[delegate][1] for name, (delegate, _) in kernels.items()}
    return frozenset(
        f"aten::{name}"
        for name, keys in there.items()
        if keys != {""} and backend not in keys and not any(key.startswith("Composite") for key in keys)
    )


class Refused(RuntimeError):
    """The real device would not do it."""


@dataclass
class Accelerator:
    """One emulated device, and what went to it and came from it."""

    device: torch.device
    reads: list[str] = field(default_factory=list)
    """Where the program waited for the device: to read a number, or to learn how many elements a result has."""
    uploads: list[str] = field(default_factory=list)
    """Where it copied to the device and waited."""
    queued: list[str] = field(default_factory=list)
    """Where it copied to the device without waiting."""

    @property
    def waits(self) -> list[str]:
        return self.reads + self.uploads

    def forget(self) -> None:
        """Counts from here on."""
        for notes in (self.reads, self.uploads, self.queued):
            notes.clear()

    def run(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """One operation as the device would do it."""
        leaves = list(_leaves((args, *kwargs.values())))
        here = [leaf for leaf in leaves if isinstance(leaf, DeviceTensor)]
        target = kwargs.get("device")
        computes = bool(here) if target is None else target == META
        if func is torch.ops.aten.copy_.default:
            computes = isinstance(args[0], DeviceTensor)
        if not here and not computes:
            return func(*args, **kwargs)
        if func is torch.ops.aten._fused_sdp_choice.default:
            return 0  # Attention from plain matrix products.
        name = func.name()
        self._check(name, leaves)
        if self.device.type == "mps":
            self._check_mps(name, computes, args, kwargs)
        self._note(func, name, computes, leaves, args, kwargs)
        if target is not None:
            kwargs = {**kwargs, "device": HOST}
        owners = {id(tensor.data_on_host): tensor for tensor in here}
        found = func(*_mapped(_on_host, args), **{key: _mapped(_on_host, value) for key, value in kwargs.items()})

        def placed(value: Any) -> Any:
            if not isinstance(value, Tensor) or not computes or func is torch.ops.aten._local_scalar_dense.default:
                return value
            if id(value) in owners:  # Changed in place.
                return _unchanged(owners[id(value)], name)
            if self.device.type == "mps" and value.dtype in FLOAT64:
                raise Refused(f"{name} makes a {value.dtype} tensor on {self.device}, which has none{self._where()}.")
            return DeviceTensor(value, self)

        return _mapped(placed, found)

    def _check(self, name: str, leaves: list[Any]) -> None:
        if name in missing_kernels(self.device.type.upper()):
            raise Refused(f"{name} has no kernel for {self.device}{self._where()}.")
        if name in COPIES:
            return
        for leaf in leaves:
            if isinstance(leaf, torch.Generator):
                raise Refused(f"{name} on {self.device} with a generator on the CPU{self._where()}.")
            if type(leaf) is Tensor and leaf.ndim and name not in TAKE_HOST_INDICES:
                raise Refused(f"{name} of a tensor on {self.device} and one on the CPU{self._where()}.")

    def _check_mps(self, name: str, computes: bool, args: tuple, kwargs: dict[str, Any]) -> None:
        """What MPS does wrong without a word."""
        if kwargs.get("memory_format") == torch.channels_last:
            raise Refused(f"{name} in channels_last, wrong on MPS in pytorch/pytorch#180984{self._where()}.")
        if name in TAKE_IMAGES and any(_is_part_of_channels_last(each) for each in args):
            raise Refused(f"{name} of a part in channels_last, wrong on MPS in pytorch/pytorch#174345{self._where()}.")
        if name in COPIES and _unwaited(args, kwargs):
            raise Refused(f"{name} that nobody waits for, wrong on MPS in pytorch/pytorch#189690{self._where()}.")
        copied_to = (
            kwargs.get("dtype") if name == "aten::_to_copy" else args[0].dtype if name == "aten::copy_" else None
        )
        if copied_to in FLOAT64 and not computes:
            raise Refused(f"{name} from MPS to {copied_to}, wrong in pytorch/pytorch#197715{self._where()}.")

    def _note(
        self, func: Any, name: str, computes: bool, leaves: list[Any], args: tuple, kwargs: dict[str, Any]
    ) -> None:
        """Puts down who waits."""
        notes = None
        if name in COPIES:
            of_device = isinstance(args[1 if name == "aten::copy_" else 0], DeviceTensor)
            if name == "aten::_local_scalar_dense" or (of_device and not computes):
                unwaited = name == "aten::copy_" and _unwaited(args, kwargs) and is_pinned(args[0])
                notes = self.queued if unwaited else self.reads
            elif not of_device:
                source = args[1 if name == "aten::copy_" else 0]
                notes = self.queued if _unwaited(args, kwargs) and is_pinned(source) else self.uploads
        elif name in TAKE_HOST_INDICES:
            if any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]):
                notes = self.reads
            elif any(type(leaf) is Tensor and leaf.ndim for leaf in leaves):
                notes = self.uploads
        elif {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output} & set(func.tags):
            notes = self.reads
        if notes is not None:
            self.note(notes, name)

    def note(self, notes: list[str], what: str) -> None:
        """Adds what was done, and where."""
        notes.append(f"{what}{self._where()}")

    def _where(self) -> str:
        """The innermost line of the package that is running."""
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            if frame.f_code.co_filename.startswith(PACKAGE):
                return f" ({frame.f_code.co_filename.removeprefix(PACKAGE)}:{frame.f_lineno})"
            frame = frame.f_back
        return ""


class DeviceTensor(Tensor):
    """A tensor on the emulated device."""

    data_on_host: Tensor
    accelerator: Accelerator

    @staticmethod
    def __new__(cls, data: Tensor, accelerator: Accelerator) -> "DeviceTensor":
        return torch.Tensor._make_wrapper_subclass(
            cls, data.shape, strides=data.stride(), dtype=data.dtype, device=META, requires_grad=False
        )

    def __init__(self, data: Tensor, accelerator: Accelerator):
        self.data_on_host, self.accelerator = data, accelerator

    __torch_function__ = torch._C._disabled_torch_function_impl  # ty: ignore[incompatible-method-override]
    is_meta = property(lambda self: False)  # ty: ignore[invalid-assignment]

    @property
    def device(self) -> torch.device:  # ty: ignore[incompatible-property-override]
        return self.accelerator.device

    @classmethod
    def __torch_dispatch__(  # ty: ignore[incompatible-method-override]
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Outside of the modes below, in another thread."""
        first = next(leaf for leaf in _leaves((args, *(kwargs or {}).values())) if isinstance(leaf, DeviceTensor))
        return first.accelerator.run(func, args, kwargs or {})

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.data_on_host.untyped_storage()

    def __deepcopy__(self, memo: dict[int, Any]) -> "DeviceTensor":
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copied._is_param = True  # How torch knows a parameter of another class.
        memo[id(self)] = copied
        return copied  # ty: ignore[invalid-explicit-return]

    def __repr__(self) -> str:  # ty: ignore[incompatible-method-override]
        return f"DeviceTensor({self.data_on_host}, device={self.device})"


def _leaves(value: Any) -> Iterator[Any]:
    """What is in nested lists and tuples."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)([_mapped(function, each) for each in value])
    return function(value)


def _unwaited(args: tuple, kwargs: dict[str, Any]) -> bool:
    return bool(kwargs.get("non_blocking", len(args) > 2 and args[2]))


def _is_part_of_channels_last(value: Any) -> bool:
    if not isinstance(value, DeviceTensor) or value.ndim != 4 or value.is_contiguous():
        return False
    data = value.data_on_host
    return data.storage_offset() > 0 and data.is_contiguous(memory_format=torch.channels_last)


def is_pinned(tensor: Tensor) -> bool:
    """Whether it was pinned while a device was emulated: nothing can be pinned without one."""
    return getattr(tensor, "is_pinned_here", False)


def pinned(tensor: Tensor) -> Tensor:
    """The tensor, which is taken to be pinned from now on."""
    tensor.is_pinned_here = True  # ty: ignore[missing-attribute]
    return tensor


def _on_host(value: Any) -> Any:
    return value.data_on_host if isinstance(value, DeviceTensor) else value


def _unchanged(tensor: DeviceTensor, name: str) -> DeviceTensor:
    data = tensor.data_on_host
    assert (data.shape, data.stride()) == (tensor.shape, tensor.stride()), f"{name} in place is not emulated"
    return tensor


@dataclass
class Event:
    """Takes the place of torch.cuda.Event: whoever waits for one waits for what was begun before it was recorded."""

    accelerator: Accelerator

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        self.accelerator.note(self.accelerator.reads, "event")


class _Operations(TorchDispatchMode):
    """Hands every operation to the accelerator."""

    def __init__(self, accelerator: Accelerator):
        super().__init__()
        self.accelerator = accelerator

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # To skip it, torch would load it, which takes seconds.

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        return self.accelerator.run(func, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """Gives calls that name the device the one that C++ knows instead."""

    def __init__(self, accelerator: Accelerator):
        super().__init__()
        self.accelerator = accelerator

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "__get__":  # An attribute: most calls are.
            return func(*args)
        if func is torch.Tensor.tolist and isinstance(args[0], DeviceTensor):
            return args[0].cpu().tolist()
        if func is torch.Tensor.numpy and isinstance(args[0], DeviceTensor):
            raise Refused(f"can't convert a tensor on {args[0].device} to numpy: copy it to the CPU first.")
        if func is torch.Tensor.pin_memory:
            return pinned(args[0].detach())
        if kwargs.get("pin_memory"):
            return pinned(func(*args, **{**kwargs, "pin_memory": False}))
        # C++ would leave out the data: it takes them to be on the device that has none.
        if func is torch.Tensor.new_tensor and isinstance(args[0], DeviceTensor):
            raise Refused("Tensor.new_tensor is not emulated: use torch.tensor.")
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            at = tuple(torch.tensor(each) if isinstance(each, list) else each for each in index)
            return func(args[0], at, *args[2:])
        if func in (torch.tensor, torch.as_tensor) and self._is_here(kwargs.get("device")):
            made = func(*args, **{name: value for name, value in kwargs.items() if name != "device"})
            return made.to(META)
        named = {name: META if name == "device" and self._is_here(value) else value for name, value in kwargs.items()}
        moved = isinstance(args[0] if args else None, Tensor)  # Else a string may be anything.
        return func(*(META if moved and self._is_here(value) else value for value in args), **named)

    def _is_here(self, value: object) -> bool:
        kind = self.accelerator.device.type
        return value in (kind, f"{kind}:0") if isinstance(value, str) else getattr(value, "type", None) == kind


@contextmanager
def emulated(kind: str) -> Generator[Accelerator, None, None]:
    """The emulated accelerator, "mps" or "cuda", as the only one of this machine."""
    accelerator = Accelerator(torch.device(kind, 0))
    module = {"mps": torch.mps, "cuda": torch.cuda}[kind]
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    with pytest.MonkeyPatch.context() as patch, _Operations(accelerator), _Calls(accelerator):
        patch.setattr(module, "synchronize", lambda *device: accelerator.note(accelerator.reads, "synchronize"))
        patch.setattr(torch.cuda, "Event", lambda: Event(accelerator))
        patch.setattr(torch.backends.mps, "is_available", cache(lambda: kind == "mps"))
        patch.setattr(torch.cuda, "get_device_capability", lambda *device: (7, 0))
        # A parameter becomes another object on the device: its data cannot become another type's.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            yield accelerator
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(before)
