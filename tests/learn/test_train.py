from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from sklearn.metrics import accuracy_score
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ntbench.errors import UserError
from ntbench.learn.models import build, head, pack
from ntbench.learn.train import SCHEDULES, Meter, accuracy, create_optimizer, create_schedule, descend, fit
from ntbench.tasks.data import Split
from ntbench.types import Arch, Training

SMALL = Arch(name="cnns_bn")


def data(count: int = 50, size: int = 8, seed: int = 0) -> Split:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, size, size, generator=generator) * 2 - 1
    return Split(x.contiguous(memory_format=torch.channels_last), torch.randint(0, 10, (count,), generator=generator))


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(training: Training) -> dict[str, Tensor]:
    model = build(SMALL, 10, seed=0)
    steps = list(fit(model, data(), training, generator()))
    assert steps == list(range(1, training.steps + 1))
    return pack(model)


def by_hand(training: Training, optimizer: Callable[[list[Tensor]], torch.optim.Optimizer]) -> dict[str, Tensor]:
    model, split = build(SMALL, 10, seed=0), data()
    steps = optimizer(list(model.parameters()))
    batches = split.batches(training.batch_size, generator())
    model.train()
    for _ in range(training.steps):
        x, y = next(batches)
        steps.zero_grad()
        F.cross_entropy(model(x), y).backward()
        steps.step()
    return pack(model)


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("sgd", lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=0.01, fused=True)),
        ("momentum", lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01, fused=True)),
        ("nesterov", lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01, fused=True)),
        ("adam", lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.01, fused=True)),
        ("adamw", lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.01, fused=True)),
    ],
)
def test_fit_is_the_plain_torch_loop_bit_for_bit(
    name: str, oracle: Callable[[list[Tensor]], torch.optim.Optimizer]
) -> None:
    training = Training(optimizer=name, lr=0.05, weight_decay=0.01, steps=7, batch_size=16)
    found, expected = trained(training), by_hand(training, oracle)
    assert found.keys() == expected.keys()
    assert [key for key in found if not torch.equal(found[key], expected[key])] == []


def test_fit_does_not_depend_on_the_global_random_state() -> None:
    training = Training(steps=3, batch_size=16)
    torch.manual_seed(1)
    first = trained(training)
    torch.manual_seed(2)
    second = trained(training)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_weight_decay_reaches_biases_and_norms() -> None:
    model = build(SMALL, 10, seed=0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = create_optimizer(model.parameters(), "sgd", lr=0.5, weight_decay=0.2)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert all(torch.allclose(p, before[name] * 0.9) for name, p in model.named_parameters())
    assert "head.bias" in before and "blocks.0.1.weight" in before


def test_fit_trains_the_given_parameters_only() -> None:
    model = build(SMALL, 10, seed=0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in fit(model, data(), Training(steps=2), generator(), parameters=head(model).parameters()):
        pass
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"head.weight", "head.bias"}


def rates(name: str, steps: int, warmup: int = 0) -> list[float]:
    optimizer = create_optimizer([torch.zeros(2, requires_grad=True)], "sgd", lr=1.0)
    set_rate = create_schedule(optimizer, name, steps, warmup)
    found = []
    for step in range(1, steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        set_rate(step)
    return found


@pytest.mark.parametrize(
    ("name", "closed"),
    [
        ("constant", lambda k, n: 1.0),
        ("linear", lambda k, n: 1 - k / n),
        ("cosine", lambda k, n: (1 + math.cos(math.pi * k / n)) / 2),
    ],
)
@pytest.mark.parametrize("steps", [1, 2, 10, 37])
def test_schedules_without_warm_up(name: str, closed: Callable[[int, int], float], steps: int) -> None:
    assert rates(name, steps) == pytest.approx([closed(k, steps) for k in range(steps)], abs=1e-12)


def test_warm_up_rises_in_a_line_from_a_twenty_fifth() -> None:
    found = rates("constant", 10, warmup=4)
    assert found == pytest.approx([1 / 25 + k / 4 * (1 - 1 / 25) for k in range(4)] + [1.0] * 6)
    linear = rates("linear", 10, warmup=4)
    assert linear[:4] == pytest.approx(found[:4])
    assert linear[4:] == pytest.approx([1 - k / 10 for k in range(4, 10)])


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_schedule_leaves_the_range_of_its_rate(name: str) -> None:
    found = rates(name, 12)
    assert found[0] == 1.0 and all(0 <= rate <= 1 for rate in found)
    assert found == sorted(found, reverse=True)


def test_unknown_names_are_told() -> None:
    parameter = torch.zeros(2, requires_grad=True)
    with pytest.raises(UserError, match="unknown optimizer 'adamm'; did you mean 'adam"):
        create_optimizer([parameter], "adamm", lr=0.1)
    optimizer = create_optimizer([parameter], "adam", lr=0.1)
    with pytest.raises(UserError, match="unknown schedule 'cosin'; did you mean 'cosine'"):
        create_schedule(optimizer, "cosin", 10)


class Mixed(nn.Module):
    """Grouped, strided, dilated and depthwise convolutions, two branches, and a linear head with and without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.grouped = nn.Conv2d(8, 16, 3, groups=4, stride=2)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16, dilation=2, padding=2)
        self.branch = nn.Conv2d(8, 16, 1, stride=2)
        self.inner = nn.Linear(16, 12, bias=False)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = self.depthwise(self.grouped(x).relu()).mean((2, 3)) + self.branch(x).mean((2, 3))
        return self.head(self.inner(x).relu())  # type: ignore[no-any-return]


NETS: dict[str, Callable[[], nn.Module]] = {
    "cnns_bn": lambda: build(SMALL, 10, 0),
    "mixed": Mixed,
    "test_resnet": lambda: build(Arch(name="test_resnet"), 10, 0),
    "test_efficientnet": lambda: build(Arch(name="test_efficientnet"), 10, 0),
}


class Groups(nn.Module):
    """A grouped convolution as one convolution a group: torch's counter overrates the backward pass of grouped ones."""

    def __init__(self, grouped: nn.Conv2d) -> None:
        super().__init__()
        g, options = grouped.groups, {key: getattr(grouped, key) for key in ("stride", "padding", "dilation")}
        inputs, outputs, size = grouped.in_channels // g, grouped.out_channels // g, grouped.kernel_size[0]
        biased = grouped.bias is not None
        self.parts = nn.ModuleList(nn.Conv2d(inputs, outputs, size, bias=biased, **options) for _ in range(g))
        self.parts.requires_grad_(grouped.weight.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self.parts, x.chunk(len(self.parts), dim=1), strict=True)
        return torch.cat([part(piece) for part, piece in parts], dim=1)


def ungrouped(model: nn.Module) -> nn.Module:
    for name, child in model.named_children():
        if isinstance(child, nn.Conv2d) and child.groups > 1:
            setattr(model, name, Groups(child))
        else:
            ungrouped(child)
    return model


@pytest.mark.parametrize("frozen", [False, True], ids=["all", "head"])
@pytest.mark.parametrize("name", NETS)
def test_flops_are_those_of_torchs_counter(name: str, frozen: bool) -> None:
    model = NETS[name]()
    if frozen:
        model.requires_grad_(False)
        classifier = model.head if isinstance(model, Mixed) else head(model)
        classifier.requires_grad_(True)
    x, y = data(6, size=32).x, data(6).y
    for training in (True, False):
        model.train(training)
        oracle = ungrouped(copy.deepcopy(model))
        with Meter() as meter, torch.set_grad_enabled(training):
            F.cross_entropy(model(x), y)
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
            loss = F.cross_entropy(oracle(x), y)
            if training:
                loss.backward()
        assert meter.flops == counter.get_total_flops() > 0
        assert meter.samples == (6 if training else 0)


def test_the_meter_counts_steps_samples_and_seconds_inside_its_blocks_only() -> None:
    model, split, meter = build(SMALL, 10, seed=0), data(), Meter()
    steps = fit(model, split, Training(steps=5, batch_size=8), generator())
    for _ in range(3):
        with meter:
            next(steps)
        accuracy(model, split)
    next(steps)
    assert (meter.steps, meter.samples) == (3, 24)
    per_step = meter.flops // 3
    with meter:
        next(steps)
    assert (meter.steps, meter.samples, meter.flops) == (4, 32, 4 * per_step)
    assert 0 < meter.seconds < 60


def test_samples_are_those_of_the_busiest_layer() -> None:
    model, meter = Mixed(), Meter()
    with meter:
        model(data(5, size=16).x)
        model.head(torch.zeros(7, 12))
    assert meter.samples == 12


def test_the_meter_leaves_no_hook_behind() -> None:
    model, meter = Mixed(), Meter()
    with pytest.raises(RuntimeError, match="inside"), meter:
        raise RuntimeError("inside")
    model(data(5, size=16).x)
    assert meter.flops == 0


def test_accuracy_is_scikit_learns_and_leaves_the_model_as_it_was() -> None:
    model, split = build(SMALL, 10, seed=0), data(450, size=8)
    for _ in fit(model, split, Training(steps=5, lr=0.01), generator()):
        pass
    model.get_submodule("blocks.1").eval()
    modes = [module.training for module in model.modules()]
    before = pack(model)
    score = accuracy(model, split)
    assert [module.training for module in model.modules()] == modes and {True, False} == set(modes)
    after = pack(model)
    assert all(torch.equal(before[key], after[key]) for key in before)
    with torch.no_grad():
        predicted = model.eval()(split.x).argmax(1)
    assert score == accuracy_score(split.y.numpy(), predicted.numpy())
    assert 0 < score < 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_training_with_the_step_and_the_value(value: float) -> None:
    model = build(SMALL, 10, seed=0)
    calls: list[int] = []

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        calls.append(1)
        return F.cross_entropy(logits, labels) * (value if len(calls) == 3 else 1.0)

    done: list[int] = []
    with pytest.raises(FloatingPointError, match=rf"the loss is {value} at step 3"):
        done.extend(fit(model, data(), Training(steps=5), generator(), loss=loss))
    assert done == [1, 2]
    assert all(torch.isfinite(tensor).all() for tensor in pack(model).values())


def test_descend_clips_the_norm_of_the_whole_gradient() -> None:
    a, b = torch.zeros(2, requires_grad=True), torch.zeros(3, requires_grad=True)
    optimizer = create_optimizer([a, b], "sgd", lr=1.0)
    descend(optimizer, 3 * a.sum() + 4 * b.sum(), step=1, clip=1.0)
    norm = math.sqrt(2 * 9 + 3 * 16)
    torch.testing.assert_close(a.detach(), torch.full((2,), -3 / norm), rtol=1e-5, atol=0)
    torch.testing.assert_close(b.detach(), torch.full((3,), -4 / norm), rtol=1e-5, atol=0)


def test_fit_calls_back_after_each_step_and_trains_in_train_mode() -> None:
    model = build(SMALL, 10, seed=0).eval()
    modes: list[bool] = []
    for _ in fit(model, data(), Training(steps=3), generator(), after_step=lambda: modes.append(model.training)):
        pass
    assert modes == [True] * 3
