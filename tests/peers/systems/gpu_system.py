"""CovidScan's `lung_resnet` on one GPU: measures what is asked for, one after the other, and reports it as JSON.

It needs JAX, Flax and Optax, and for the comparison PyTorch.
"""

import dataclasses
import importlib.util
import itertools
import json
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from covidscan.benchmarking.flops import flop_per_volume
from covidscan.benchmarking.hardware import needed_bytes, peak_memory, stated_peak
from covidscan.benchmarking.synthetic_records import abstract_shares, batches, make_records
from covidscan.benchmarking.timing import median_seconds
from covidscan.config import AUGMENTATION_LEVELS, Config
from covidscan.data.feed import IN_FLIGHT, Batch, Feed, batch_feed, device_feed
from covidscan.data.sampling import BatchOrder
from covidscan.distributed import devices
from covidscan.models import heads
from covidscan.training.experiment import Experiment, create_experiment
from covidscan.training.step import eval_variables, make_eval_step
from tests.peers import replies, versions
from tfds_mosmed.preprocessing.grid import Grid

NUM_RECORDS = 64
DTYPE = "bfloat16"


class Effort(NamedTuple):
    """Lengths of the measurements.

    Attributes:
      seconds: of timing programs that alternate, approximately; 5 rounds or more.
      feed_steps: steps of a round of a feed.
      feed_rounds: rounds of both feeds.
      loss_steps: steps whose losses are compared.
    """

    seconds: float = 4.0
    feed_steps: int = 32
    feed_rounds: int = 3
    loss_steps: int = 20


SMOKE = Effort(0.0, 2, 1, 2)

Found = dict[str, Any]


class _Case(NamedTuple):
    """A network on records of a grid.

    Attributes:
      experiment: the network with its training.
      records: all training records.
      batch: a batch of them on the devices.
      effort: of the measurements.
    """

    experiment: Experiment
    records: Batch
    batch: Batch
    effort: Effort


def _case(size: str, grid: str, batch_size: int, smoke: bool) -> _Case:
    shape = Grid.parse(grid).shape
    records = make_records(NUM_RECORDS, shape)
    experiment = create_experiment(Config(size=size, batch_size=batch_size, dtype=DTYPE), 2, shape, NUM_RECORDS)
    batch = devices.send_to_replicas(next(batches(records, batch_size)))
    return _Case(experiment, records, batch, SMOKE if smoke else Effort())


def _with(experiment: Experiment, **changed: Any) -> Experiment:
    """Return the same experiment with other flags."""
    slices, rows, columns, _ = experiment.input_shape
    config = dataclasses.replace(experiment.config, **changed)
    return create_experiment(config, 2, (slices, rows, columns), NUM_RECORDS)


def _training(experiment: Experiment, batch: Batch) -> Callable[[], Any]:
    """Return a program that takes a training step, compiled as the trainer compiles it."""
    train_step, state = experiment.train_step(), devices.replicate(experiment.create_state())

    def train() -> Any:
        nonlocal state
        state, *results = train_step(state, batch)
        return results

    return train


def _inference(experiment: Experiment, batch: Batch) -> Callable[[], Any]:
    """Return a program that computes the logits of a batch."""
    step = make_eval_step(experiment.config, experiment.model, devices.REPLICAS)
    eval_step, variables = devices.pmap_eval_step(step), devices.replicate(eval_variables(experiment.create_state()))
    return lambda: eval_step(variables, batch.volume)


def step(case: _Case) -> Iterator[Found]:
    """Measure the training step: its memory, its time and inference's, and its share of the device's peak."""
    experiment, batch_size = case.experiment, case.experiment.config.batch_size
    shares = abstract_shares(case.records, batch_size)
    train_step: Any = experiment.train_step()
    start = time.perf_counter()
    compiled = train_step.lower(experiment.abstract_state(), shares).compile()
    compile_seconds = time.perf_counter() - start
    train = _training(experiment, case.batch)
    for _ in range(2):
        jax.block_until_ready(train())
    memory = peak_memory(compiled)
    yield {
        "compile_seconds": compile_seconds,
        "peak_bytes": memory.bytes,
        "peak_bytes_source": memory.source,
        "compiled_step_bytes": needed_bytes(compiled),
    }
    timed = median_seconds({"train": train, "predict": _inference(experiment, case.batch)}, case.effort.seconds)
    flop_per_second = flop_per_volume(experiment, shares).step * batch_size / timed.seconds["train"]
    peak = stated_peak(jax.devices()[0].device_kind, DTYPE)
    yield {
        "step_seconds": timed.seconds["train"],
        "inference_seconds": timed.seconds["predict"],
        "rounds": timed.rounds,
        "flop_per_second": flop_per_second,
        "share_of_peak": peak and flop_per_second / peak.flop_per_second,
    }


def peer(case: _Case) -> Iterator[Found]:
    """Time the step without augmentation, and inference, in turn with PyTorch's."""
    if importlib.util.find_spec("torch") is None:
        yield {"note": "PyTorch is not installed here, so it is left out"}
        return
    import torch

    from tests.peers.systems import gpu_torch

    if jax.default_backend() == "gpu" and not torch.cuda.is_available():
        yield {"note": f"PyTorch {torch.__version__} finds no GPU here, so it is left out"}
        return
    experiment = _with(case.experiment, **AUGMENTATION_LEVELS["none"])
    x = np.asarray(heads.hu_windows(case.batch.volume[0], experiment.config.windows))
    count = sum(leaf.size for leaf in jax.tree.leaves(experiment.abstract_state().params))
    config = experiment.config
    ours = {"train": _training(experiment, case.batch), "predict": _inference(experiment, case.batch)}
    try:
        theirs = gpu_torch.programs(config, x, np.array(case.batch.label[0]), count)
        timed = median_seconds(
            ours | {f"torch {name}": program for name, program in theirs.items()}, case.effort.seconds
        )
    except torch.OutOfMemoryError as error:
        yield {"note": f"PyTorch ran out of memory: {str(error).splitlines()[0]}"}
        return
    yield {
        "plain_step_seconds": timed.seconds["train"],
        "plain_inference_seconds": timed.seconds["predict"],
        "torch_step_seconds": timed.seconds["torch train"],
        "torch_inference_seconds": timed.seconds["torch predict"],
        "peer_rounds": timed.rounds,
    }


def caches(case: _Case) -> Iterator[Found]:
    """Time the feeds of --cache=host and --cache=device in turn, as the trainer runs them."""
    experiment, batch_size = case.experiment, case.experiment.config.batch_size
    order = BatchOrder(case.records.label, seed=0, class_balance="none", batch_size=batch_size)
    feeds: dict[str, Feed] = {
        "host": batch_feed(experiment.train_step(), batches(case.records, batch_size)),
        "device": device_feed(experiment.train_steps(), case.records, order, slice(0, batch_size)),
    }
    states = {name: devices.replicate(experiment.create_state()) for name in feeds}
    seconds: dict[str, list[float]] = {name: [] for name in feeds}
    for _ in range(1 + case.effort.feed_rounds):
        for name, feed in feeds.items():
            states[name], taken = _feed_seconds(feed, states[name], case.effort.feed_steps)
            seconds[name].append(taken)
    yield {f"{name}_steps_per_second": 1 / statistics.median(taken[1:]) for name, taken in seconds.items()}


def _feed_seconds(feed: Feed, state: Any, num_steps: int) -> tuple[Any, float]:
    """Take steps, some dispatches ahead of the device as training is; return the state and the seconds of a step."""
    in_flight, taken, start = deque(), 0, time.perf_counter()
    while taken < num_steps:
        state, dispatch = feed(state, taken, num_steps - taken)
        taken += dispatch.num_steps
        in_flight.append(dispatch.metrics)
        if len(in_flight) > IN_FLIGHT:
            jax.block_until_ready(in_flight.popleft())
    jax.block_until_ready(list(in_flight))  # a deque is no pytree: it would not be awaited
    return state, (time.perf_counter() - start) / num_steps


def precision(case: _Case) -> Iterator[Found]:
    """Compare the losses of the first steps in bfloat16 with those in full float32."""
    losses = {}
    for dtype in (DTYPE, "float32"):
        experiment = _with(case.experiment, dtype=dtype)
        given = itertools.islice(
            batches(case.records, experiment.config.batch_size), case.effort.loss_steps
        )  # the same in both
        train_step, state = experiment.train_step(), devices.replicate(experiment.create_state())
        losses[dtype] = []
        # GPUs would round float32 to TF32 otherwise.
        with jax.default_matmul_precision("highest" if dtype == "float32" else None):
            for batch in given:
                state, metrics, _ = train_step(state, devices.send_to_replicas(batch))
                losses[dtype].append(float(metrics["loss"]))
    yield {f"{dtype}_losses": of_steps for dtype, of_steps in losses.items()}


STAGES = {"step": step, "peer": peer, "caches": caches, "precision": precision}

if __name__ == "__main__":
    output = replies.open_output()
    _, settings = replies.settings()
    device = jax.devices()[0]
    described = {"device": device.device_kind, "platform": device.platform, "versions": versions.versions()}
    print(json.dumps(described), file=output)
    if device.platform != "cpu" or settings["smoke"]:
        stages = settings.pop("stages")
        case = _case(**settings)
        for stage in stages:
            for found in STAGES[stage](case):
                print(json.dumps(found), file=output)
