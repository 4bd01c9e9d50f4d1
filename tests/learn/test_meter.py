"""Costs are what torch counts and what a model was shown, whatever code does it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from learning import SMALL, Mixed, data, generator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ntbench.learn.fit import fit
from ntbench.learn.meter import Cost, Meter, counted
from ntbench.learn.models import BlackBox, build, features, head, pack
from ntbench.learn.scoring import accuracy
from ntbench.types import Arch, Training

SIZE = 32
IMAGE = (3, SIZE, SIZE)
NETS: dict[str, Callable[[], nn.Module]] = {
    "cnns_bn": lambda: build(SMALL, 10, 0),
    "mixed": Mixed,
    "test_resnet": lambda: build(Arch(name="test_resnet"), 10, 0),
    "test_efficientnet": lambda: build(Arch(name="test_efficientnet"), 10, 0),
    "test_vit": lambda: build(Arch(name="test_vit", params={"img_size": SIZE, "patch_size": 8}), 10, 0),
    "test_nfnet": lambda: build(Arch(name="test_nfnet"), 10, 0),
}


class Windows(nn.Module):
    """Shows its parts the whole images again, and four windows of each, as Swin does with its own grids."""

    def __init__(self) -> None:
        super().__init__()
        self.whole, self.window = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.inner = nn.Sequential(self.window, nn.ReLU())
        self.head = nn.Linear(3, 10)

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.whole(x)
        half = x.shape[-1] // 2
        parts = x.unfold(2, half, half).unfold(3, half, half).flatten(2, 3).transpose(1, 2).flatten(0, 1)
        return x.mean((2, 3)) + self.inner(parts).mean((2, 3)).view(len(x), -1, 3).mean(1)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.forward_features(x))  # type: ignore[no-any-return]


def oracle(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("frozen", [False, True], ids=["all", "head"])
@pytest.mark.parametrize("name", NETS)
def test_flops_are_those_of_torchs_counter(name: str, frozen: bool) -> None:
    model = NETS[name]()
    if frozen:
        model.requires_grad_(False)
        (model.head if isinstance(model, Mixed) else head(model)).requires_grad_(True)
    split = data(6, size=SIZE)

    def learn() -> None:
        F.cross_entropy(model.train()(split.x), split.y).backward()

    @torch.no_grad()
    def answer() -> None:
        model.eval()(split.x)

    # Attention without a mathematical kernel of its own name is no FLOP to torch: the plain one is counted.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = [oracle(learn), oracle(answer)]
    found = []
    for work in (learn, answer):
        with Meter(IMAGE) as meter:
            work()
        found.append(meter.cost.flops)
        assert meter.cost.samples == 6
    assert found == expected and found[0] > found[1] > 0


def test_a_linear_layer_costs_two_flops_a_multiply_add() -> None:
    layer, x = nn.Linear(7, 5), torch.zeros(3, 7)
    with Meter() as meter, torch.no_grad():
        layer(x)
    assert meter.cost.flops == 2 * 3 * 7 * 5
    with Meter() as meter:
        layer(x)
    assert meter.cost.flops == 2 * (2 * 3 * 7 * 5), "the gradient of the weights as well, none of the input"
    with Meter() as meter:
        layer(x.requires_grad_())
    assert meter.cost.flops == 3 * (2 * 3 * 7 * 5)


def test_counting_changes_nothing_of_the_model_and_draws_nothing() -> None:
    model = nn.Sequential(build(SMALL, 10, 0), nn.Dropout(0.5))
    before, state = pack(model), torch.get_rng_state()
    assert counted(model, (data(4, size=SIZE).x,)) > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in pack(model).items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_module_that_cannot_run_without_memory_counts_as_nothing_and_runs() -> None:
    class Deciding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum().item() > 0 else -x

    with Meter(IMAGE) as meter:
        Deciding()(data(4, size=SIZE).x)
    assert (meter.cost.flops, meter.cost.samples) == (0, 4)


def test_the_meter_counts_steps_samples_and_seconds_inside_its_blocks_only() -> None:
    model, split, meter = build(SMALL, 10, seed=0), data(), Meter((3, 8, 8))
    steps = fit(model, split, Training(steps=5, batch_size=8), generator())
    for _ in range(3):
        with meter:
            next(steps)
        accuracy(model, split)
    next(steps)
    cost = meter.cost
    assert (cost.steps, cost.samples) == (3, 24)
    with meter:
        next(steps)
    assert (meter.cost.steps, meter.cost.samples, meter.cost.flops) == (4, 32, 4 * cost.flops // 3)
    assert 0 < cost.seconds < meter.cost.seconds
    assert meter.cost == meter.cost, "the clock stands outside of blocks"


def test_images_count_once_at_the_outermost_module() -> None:
    model, x = Windows(), data(5, size=SIZE).x
    with Meter(IMAGE) as meter:
        model(x)
    assert meter.cost.samples == 5
    with Meter((3, SIZE // 2, SIZE // 2)) as meter:
        model(x)
    assert meter.cost.samples == 0, "windows inside of a model are no images"


@pytest.mark.parametrize("name", [*NETS, "windows"])
def test_images_count_on_the_way_of_features_too(name: str) -> None:
    model, x = Windows() if name == "windows" else NETS[name](), data(5, size=SIZE).x
    with Meter(IMAGE) as meter:
        if name in ("windows", "mixed"):
            (model.stem if isinstance(model, Mixed) else model.forward_features)(x)  # type: ignore[operator]
        else:
            features(model, x)
    assert meter.cost.samples == 5


@pytest.mark.parametrize("training", [True, False])
def test_images_that_are_shown_without_gradients_count(training: bool) -> None:
    """Adapting batch norm takes no gradient and no step, and costs images all the same."""
    model = build(SMALL, 10, seed=0).train(training)
    with Meter((3, 8, 8)) as meter, torch.no_grad():
        for split in (data(), data(seed=1)):
            model(split.x)
    assert (meter.cost.samples, meter.cost.steps) == (100, 0)


def test_only_images_count_as_samples() -> None:
    layer = nn.Linear(12, 10)
    with Meter((3, 8, 8)) as meter:
        layer(torch.zeros(7, 12))
    assert meter.cost.samples == 0 < meter.cost.flops
    with Meter((12,)) as meter:
        layer(torch.zeros(7, 12))
    assert meter.cost.samples == 7, "to an attack on features these are its samples"
    with Meter() as meter:
        layer(torch.zeros(7, 12))
    assert meter.cost.samples == 0


def test_a_step_of_two_passes_costs_two() -> None:
    split = data(8)

    def spent(passes: int) -> Cost:
        model = build(SMALL, 10, seed=0)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with Meter((3, 8, 8)) as meter:
            for _ in range(passes):
                F.cross_entropy(model(split.x), split.y).backward()
            optimizer.step()
        return meter.cost

    one, two = spent(1), spent(2)
    assert (two.steps, two.samples, two.flops) == (1, 16, 2 * one.flops) and one.samples == 8


def test_questions_to_a_black_box_count_as_images() -> None:
    box = BlackBox(build(SMALL, 10, seed=0))
    with Meter((3, 8, 8)) as meter:
        box(data(9).x)
    assert meter.cost.samples == 9


def test_a_call_that_fails_leaves_the_count_sound() -> None:
    model = build(SMALL, 10, seed=0)
    with Meter((3, 8, 8)) as meter:
        with pytest.raises(RuntimeError):
            model(torch.zeros(2, 5, 8, 8))
        model(data(4).x)
    assert meter.cost.samples == 4


def test_the_meter_leaves_no_hook_behind() -> None:
    model, meter = Mixed(), Meter()
    with pytest.raises(RuntimeError, match="inside"), meter:
        raise RuntimeError("inside")
    model(data(5, size=16).x)
    assert meter.cost.flops == 0


def step(meter: Meter, count: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with meter:
        for _ in range(count):
            optimizer.step()


def test_going_back_is_paid_for() -> None:
    meter = Meter()
    step(meter, 4)
    mark = meter.cost
    step(meter, 3)
    assert (meter.cost.steps, meter.paid) == (7, 7)
    meter.rewind(mark)
    assert (meter.cost, meter.paid) == (mark, 7)
    step(meter, 2)
    assert (meter.cost.steps, meter.paid) == (6, 9)
    meter.begin_run()
    assert (meter.cost, meter.paid) == (Cost(), 9)
    step(meter, 1)
    assert (meter.cost.steps, meter.paid) == (1, 10)


def test_going_back_takes_the_clock_along(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("ntbench.learn.meter.time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    meter = Meter()
    with meter:  # 0
        mark = meter.cost  # 1
        assert meter.cost.seconds == 2
        meter.rewind(mark)  # 3
        assert meter.cost.seconds == 1 + 1
    assert meter.cost.seconds == 1 + 2


def test_work_that_was_done_elsewhere_is_charged() -> None:
    meter = Meter()
    meter.add(samples=3, flops=10)
    meter.add(flops=5)
    assert meter.cost == Cost(0, 3, 15, 0.0)
