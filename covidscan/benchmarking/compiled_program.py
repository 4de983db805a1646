"""Costs of a program as its compiler counts them: FLOP, bytes, memory, collectives, transfers with the host."""

import dataclasses
import math
import re
from typing import Any

from covidscan.benchmarking.hardware import needed_bytes

ITEM_BITS = {"pred": 8, "bf16": 16}  # others end in their bits
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# Callbacks of `jax.debug` and `jax.pure_callback` become sends and receives, or calls of the host.
HOST_TRANSFER = re.compile(
    r"(?m)^\s*(?:ROOT )?\S+ = .*?\s(?:infeed|outfeed|send|recv)\("
    r"|custom_call_target=\"[^\"]*(?:[Hh]ost|callback)[^\"]*\""
)
# Result, its shape, kind, operands and attributes.
OPERATION = re.compile(r"(?m)^\s*(?:ROOT )?(%\S+) = (.*?) ([a-z][\w-]*)\((.*?)\)(.*)$")
CALLS = ("while", "call", "async-start")  # of another computation
WITHOUT_KERNEL = ("parameter", "constant", "bitcast", "tuple", "get-tuple-element", "partition-id", "replica-id")


@dataclasses.dataclass(frozen=True)
class Collective:
    """The collectives of one kind in a program.

    Attributes:
      kind: as "all-reduce".
      count: number of operations.
      bytes: of their results.
      overlapped: whether all are started early and awaited later, so that other work can go on meanwhile.
    """

    kind: str
    count: int
    bytes: int
    overlapped: bool


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """Cost of a run of a compiled program on each device.

    Attributes:
      flop: floating-point operations; on GPUs, whose compiler counts none, those that the network needs.
      bytes_accessed: bytes that operations read and write, padding included; on GPUs `bytes_of_kernels`. What stays in
        the memory on the chip counts too: the traffic of HBM is not above it, and may be much lower.
      memory_bytes: arguments, results and temporaries; on GPUs without what cuDNN's algorithms take besides.
      temporary_bytes: of them, the temporaries.
      collectives: one entry per kind.
      host_transfers: operations that exchange data with the host while the program runs.
    """

    flop: float
    bytes_accessed: float
    memory_bytes: int
    temporary_bytes: int
    collectives: tuple[Collective, ...]
    host_transfers: int


def program_cost(compiled: Any, needed_flop: float) -> ProgramCost:
    """Read the costs of a program that was compiled for each of the devices alike.

    Args:
      compiled: the program.
      needed_flop: that the network needs, where the compiler counts none.
    """
    text = compiled.as_text()
    analysis = compiled.cost_analysis() or {"flops": needed_flop, "bytes accessed": bytes_of_kernels(text)}
    return ProgramCost(
        flop=analysis["flops"],
        bytes_accessed=analysis["bytes accessed"],
        memory_bytes=needed_bytes(compiled),
        temporary_bytes=compiled.memory_analysis().temp_size_in_bytes,
        collectives=collectives(text),
        host_transfers=len(HOST_TRANSFER.findall(text)),
    )


def collectives(text: str) -> tuple[Collective, ...]:
    """Find the collectives of a scheduled HLO module.

    Args:
      text: of the module. Asynchronous operations are pairs, KIND-start and KIND-done.
    """
    found = []
    for kind in COLLECTIVES:
        results = re.findall(rf"(?m)^\s*(?:ROOT )?\S+ = (.*?)\s{kind}(-done)?\(", text)
        if results:
            size = sum(_bytes(shape) for shape, _ in results)
            found.append(Collective(kind, len(results), size, all(done for _, done in results)))
    return tuple(found)


def bytes_of_kernels(text: str) -> int:
    """Add up the bytes of the operands and results of each kernel of a GPU's program.

    An operand counts in full, though a kernel may read a part of it. The body of a loop counts as often as it runs, or
    once where the compiler does not know how often.

    Args:
      text: scheduled HLO module.
    """
    computations = re.findall(r"(?m)^(ENTRY )?%(\S+) \(.*\{\n((?:  .*\n)*)", text)
    bodies = {name: body for _, name, body in computations}

    def total(name: str) -> int:
        operations = OPERATION.findall(bodies[name])
        shapes = {result: shape for result, shape, *_ in operations}
        size = 0
        for _, shape, kind, operands, attributes in operations:
            if kind in CALLS:
                runs = re.search(r'"known_trip_count":\{"n":"(\d+)"', attributes)
                called = re.search(r"(?:body|to_apply|calls)=%([^\s,]+)", attributes)
                size += (int(runs[1]) if runs else 1) * total(called[1]) if called else 0
            elif kind not in WITHOUT_KERNEL and not kind.endswith("-done"):
                size += _bytes(shape) + sum(_bytes(shapes[operand]) for operand in re.findall(r"%[^\s,]+", operands))
        return size

    return sum(total(name) for entry, name, _ in computations if entry)


def _bytes(shape: str) -> int:
    """Return the bytes of an HLO shape or a tuple of shapes, padding not included."""
    arrays = re.findall(r"([a-z]+\d*\w*)\[([\d,]*)\]", shape)
    return sum(_item_bits(dtype) * math.prod(map(int, filter(None, sizes.split(",")))) for dtype, sizes in arrays) // 8


def _item_bits(dtype: str) -> int:
    return ITEM_BITS.get(dtype) or int(re.sub(r"\D", "", dtype[:4]))
