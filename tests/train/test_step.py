"""One step of the optimizer, taken or left out."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from model.checkpoint import Checkpoint
from model.gin import GIN
from model.loss import LossConfig
from train.config import OptimConfig
from train.data.dataset import Batch
from train.network import compile_network
from train.optimizer import Schedule, build_optimizer
from train.rewrite import rewrite_for_training
from train.step import TrainingStep

CPU = torch.device("cpu")


def make_batch(count: int = 4, size: int = 64) -> Batch:
    """Made-up pictures with one expression each."""
    random = np.random.default_rng(0)
    corners = random.uniform(0, 50, (count, 2))
    boxes = np.concatenate((corners, corners + random.uniform(10, 50, (count, 2))), axis=1)
    return Batch(
        pixels=torch.from_numpy(random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)),
        ids=torch.ones(count, 3, dtype=torch.int64),
        lengths=torch.full((count,), 3),
        image_index=torch.arange(count),
        boxes=torch.from_numpy(boxes).float(),
        image_sizes=torch.full((count, 2), 100),
        rows=torch.arange(count),
    )


def make_network(checkpoint: Checkpoint) -> GIN:
    """A small network without the levels whose maps would be one cell at 64 pixels: for these oneDNN's backward
    convolution in bf16 leaves weights of the gradient unwritten."""
    torch.manual_seed(0)
    return GIN(dataclasses.replace(checkpoint.config, pyramid_levels=(3, 4, 5)), len(checkpoint.vocabulary))


def make_step(network: GIN, device: torch.device = CPU, **optim: object) -> TrainingStep:
    """A step of a network in training."""
    config = OptimConfig(lr=1e-3, **optim)  # type: ignore[arg-type]
    return TrainingStep(network.train(), build_optimizer(network, config), LossConfig(), config, device)


def state_of(step: TrainingStep) -> dict[str, torch.Tensor]:
    """A copy of weights, statistics and the optimizer's state."""
    state = {f"network.{name}": tensor.clone() for name, tensor in step._network.state_dict().items()}
    for index, values in step._optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{name}": tensor.clone() for name, tensor in values.items()}
    return state


def unchanged(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    """Whether states agree in every bit, but for the counters of batches, which nothing reads."""
    counters = {name for name in before if name.endswith("num_batches_tracked")}
    return all(torch.equal(before[name], after[name]) for name in before.keys() - counters)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_moves_the_weights(checkpoint: Checkpoint, precision: str) -> None:
    """In every precision, towards a smaller loss."""
    network = make_network(checkpoint)
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    step = make_step(network, precision=precision)
    results = [step([make_batch()]) for _ in range(8)]
    assert all(bool(result.taken) for result in results)
    assert results[-1].losses[0] < results[0].losses[0]
    moved = [name for name, tensor in network.named_parameters() if not torch.equal(tensor, before[name])]
    assert len(moved) > 0.8 * len(before)
    assert all(tensor.dtype == torch.float32 for tensor in network.parameters())


@pytest.mark.parametrize("rewritten", [False, True])
def test_a_compiled_step(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, rewritten: bool) -> None:
    """It is the same step, and what is compiled is so in one piece."""
    network, compiled = make_network(checkpoint), make_network(checkpoint)
    if rewritten:
        rewrite_for_training(network)
        rewrite_for_training(compiled)
    compiler, seen = torch.compile, []

    def compile_in_one(function: Any) -> Any:
        seen.append(function.__name__)
        return compiler(function, backend="eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", compile_in_one)
    compile_network(compiled)
    assert seen == ["encode_image", "reason"]
    assert compiled.encode_image is not network.encode_image
    results = []
    for one in (network, compiled):
        step = make_step(one)
        torch.manual_seed(0)
        results.append([step([make_batch()]).losses for _ in range(2)])
    torch.testing.assert_close(results[1], results[0])


def flat_box(batch: Batch) -> Batch:
    """A box without width: an infinite loss whose gradient is finite."""
    boxes = batch.boxes.clone()
    boxes[0, 2] = boxes[0, 0]
    return dataclasses.replace(batch, boxes=boxes)


def box_of_nans(batch: Batch) -> Batch:
    """A box that is no box: a loss that is not a number."""
    return dataclasses.replace(batch, boxes=torch.full_like(batch.boxes, torch.nan))


@pytest.mark.parametrize("spoil", [flat_box, box_of_nans])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_bad_step_is_left_out(checkpoint: Checkpoint, spoil: object, precision: str) -> None:
    """Weights, norms' statistics and the optimizer's state stay as they were, to the bit; the next step is taken."""
    step = make_step(make_network(checkpoint), precision=precision)
    step([make_batch()])
    before = state_of(step)
    result = step([make_batch(), spoil(make_batch())])  # type: ignore[operator]
    assert not bool(result.taken)
    assert not result.losses.isfinite().all()
    assert unchanged(before, state_of(step))
    assert bool(step([make_batch()]).taken)


@pytest.mark.parametrize("clip_norm", [0.0, 5.0])
def test_a_norm_beyond_numbers(checkpoint: Checkpoint, clip_norm: float) -> None:
    """A gradient of finite elements whose norm is infinite leaves the step out as well, clipped or not."""
    network = make_network(checkpoint)
    step = make_step(network, clip_norm=clip_norm)
    step([make_batch()])
    before = state_of(step)
    hook = next(network.head.parameters()).register_hook(lambda gradient: torch.full_like(gradient, 3e38))
    result = step([make_batch()])
    assert not bool(result.taken)
    assert result.losses.isfinite().all()
    assert unchanged(before, state_of(step))
    hook.remove()
    assert bool(step([make_batch()]).taken)


def test_fp16_needs_a_gpu(checkpoint: Checkpoint) -> None:
    """Half precision on a CPU is refused with what to use instead."""
    with pytest.raises(ValueError, match="bf16"):
        make_step(make_network(checkpoint), precision="fp16")


def test_micro_batches(checkpoint: Checkpoint) -> None:
    """Twice the same micro-batch is the step of one; the losses are their mean."""
    results, networks = [], []
    for times in (1, 2):
        network = make_network(checkpoint)
        step = make_step(network)
        network.eval()  # no dropout, and no batch statistics
        results.append(step([make_batch()] * times))
        networks.append(network)
    torch.testing.assert_close(results[0].losses, results[1].losses)
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_groups(checkpoint: Checkpoint) -> None:
    """The backbone has a rate of its own, vectors do not decay, and every trained parameter is in one group."""
    network = make_network(checkpoint)
    network.head.requires_grad_(False)
    optimizer = build_optimizer(network, OptimConfig(lr=1.0, backbone_lr=0.1, weight_decay=0.5))
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in trained}
    assert len(grouped) == len(trained)
    for group in optimizer.param_groups:
        assert all((parameter.ndim > 1) == (group["weight_decay"] > 0) for parameter in group["params"])
    backbone = {id(parameter) for parameter in network.backbone.parameters()}
    assert {group["lr"] for group in optimizer.param_groups if id(group["params"][0]) in backbone} == {0.1}
    assert {group["lr"] for group in optimizer.param_groups if id(group["params"][0]) not in backbone} == {1.0}


def test_schedules(checkpoint: Checkpoint) -> None:
    """Cosine goes up, then down to zero; plateau falls to a tenth after the third epoch without progress, and NaN is
    no progress and no failure."""
    optimizer = build_optimizer(make_network(checkpoint), OptimConfig(lr=1.0))
    schedule = Schedule(optimizer, OptimConfig(lr=1.0, schedule="cosine", warmup=0.2))
    rates = []
    for progress in (0.0, 0.1, 0.2, 0.6, 1.0):
        schedule.before_step(progress)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0, 0.5, 1, 0.5, 0])
    optimizer = build_optimizer(make_network(checkpoint), OptimConfig(lr=1.0))
    schedule = Schedule(optimizer, OptimConfig(lr=1.0, schedule="plateau", patience=2))
    rates = []
    for accuracy in (0.5, 0.4, float("nan"), 0.5, 0.3, 0.6):
        schedule.after_epoch(accuracy)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1, 1, 1, 1, 0.1, 0.1])


def test_the_published_schedule(checkpoint: Checkpoint) -> None:
    """While accuracy rises its rates are those of PyTorch's scheduler as the authors build it, by factor and patience
    alone, in 10 epochs of which the last 4 are resumed."""
    config = OptimConfig(lr=1e-4, schedule="published", patience=2)
    optimizer = build_optimizer(make_network(checkpoint), config)
    theirs = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    schedule, scheduler = Schedule(optimizer, config), ReduceLROnPlateau(theirs, factor=0.1, patience=2)
    rates, expected = [], []
    for epoch in range(10):
        if epoch == 6:
            state, schedule = schedule.state_dict(), Schedule(optimizer, config)
            schedule.load_state_dict(state)
        schedule.before_step(epoch / 10)
        schedule.after_epoch(0.3 + 0.05 * epoch)
        scheduler.step(0.3 + 0.05 * epoch)
        rates.append(optimizer.param_groups[0]["lr"])
        expected.append(theirs.param_groups[0]["lr"])
    assert rates == expected
    assert rates == pytest.approx([1e-4] * 3 + [1e-5] * 3 + [1e-6] * 3 + [1e-7])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_nothing_waits_for_the_gpu(checkpoint: Checkpoint, precision: str) -> None:
    """Inside a step the host never waits for the device."""
    device = torch.device("cuda")
    step = make_step(make_network(checkpoint).to(device), device, precision=precision)
    batch = make_batch().pin_memory()
    for _ in range(2):  # the first fills caches
        step([batch])
    torch.cuda.set_sync_debug_mode("error")
    try:
        step([batch, batch])
    finally:
        torch.cuda.set_sync_debug_mode("default")
