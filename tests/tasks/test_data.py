from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load, load_file

import ntbench.tasks.data
from ntbench.domains import Family, Raw, describe_domains, find
from ntbench.tasks.data import Split, divided, joined, load_domain, nested_subset

EMBEDDED = ["digits", "digits_m", "syn"]
HEAVY = ["sklearn", "matplotlib", "PIL", "torchvision"]

PROBE = """
import json, random, sys
from pathlib import Path
import numpy, torch
from ntbench.domains import describe_domains
from ntbench.tasks.data import load_domain
seed, cache = int(sys.argv[1]), Path(sys.argv[2])
random.seed(seed); numpy.random.seed(seed); torch.manual_seed(seed)
describe_domains()
digests = {name: load_domain(name, 16, cache).digests for name in ("syn", "digits_m", "digits")}
print(json.dumps([digests, sorted({module.split(".")[0] for module in sys.modules})]))
"""


def probe(seed: int, cache: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    done = subprocess.run([sys.executable, "-c", PROBE, str(seed), str(cache)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    digests, modules = json.loads(done.stdout)
    return digests, modules


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int, classes: int = 3) -> Split:
    x = torch.arange(count).view(-1, 1, 1, 1).expand(count, 3, 2, 2).float()
    return Split(x.contiguous(memory_format=torch.channels_last), torch.arange(count) % classes)


def numbers(x: torch.Tensor) -> list[int]:
    return [int(value) for value in x[:, 0, 0, 0]]


@pytest.mark.parametrize("name", EMBEDDED)
@pytest.mark.parametrize("size", [8, 16, 28])
def test_embedded_splits_have_the_declared_form(name: str, size: int) -> None:
    domain = load_domain(name, size)
    for split in (domain.train, domain.val, domain.test):
        assert split.x.shape == (len(split), 3, size, size) and split.y.shape == (len(split),)
        assert split.x.dtype == torch.float32 and split.y.dtype == torch.int64
        assert split.x.is_contiguous(memory_format=torch.channels_last)
        assert -1 <= split.x.min() < -0.8 and 0.8 < split.x.max() <= 1
        assert sorted(set(split.y.tolist())) == list(range(domain.classes))


def test_resizing_is_torchs_antialiased_bilinear_one_up_to_whole_levels() -> None:
    raw, resized = find("syn").build("syn", 12), load_domain("syn", 12).test.x
    exact = torch.from_numpy(raw.test[0]).permute(0, 3, 1, 2).float() / 255
    exact = torch.nn.functional.interpolate(exact, size=(12, 12), mode="bilinear", antialias=True)
    assert (resized - (exact - 0.5) / 0.5).abs().max() <= 1 / 255 + 1e-5


def test_an_image_of_the_right_size_keeps_its_pixels_and_grey_becomes_three_equal_channels() -> None:
    raw, x = find("digits").build("digits", 16), load_domain("digits", 16).train.x
    torch.testing.assert_close(x[:, 0], torch.from_numpy(raw.train[0]) / 127.5 - 1)
    assert torch.equal(x[:, 0], x[:, 1]) and torch.equal(x[:, 0], x[:, 2])


def test_digests_are_sha256_over_shape_pixels_and_labels() -> None:
    domain = load_domain("digits", 16)
    pixels = ((domain.val.x + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    content = repr(pixels.shape).encode() + pixels.tobytes() + domain.val.y.numpy().tobytes()
    assert domain.digests["val"] == hashlib.sha256(content).hexdigest()[:16]


def test_the_digits_are_the_same_bytes_on_every_machine() -> None:
    assert load_domain("digits", 16).digests == {
        "train": "76ec277d0837d4c0",
        "val": "9c8601e8f0a9a5ba",
        "test": "6adefb7959b04523",
    }


def test_builds_do_not_depend_on_process_or_seeds_and_a_cache_hit_imports_nothing_heavy(tmp_path: Path) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state()
    here = {name: load_domain.__wrapped__(name, 16).digests for name in EMBEDDED}
    assert torch.equal(torch.get_rng_state(), before)
    built, modules = probe(2, tmp_path)
    assert built == here
    assert set(HEAVY) - {"torchvision"} <= set(modules)
    read, modules = probe(3, tmp_path)
    assert read == here
    assert not set(HEAVY) & set(modules)


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [flipped, lambda content: content[:-100], lambda content: b"", lambda content: b"no safetensors"],
    ids=["flipped bit", "truncated", "empty", "garbage"],
)
def test_a_damaged_cache_file_is_rebuilt(tmp_path: Path, damage: object) -> None:
    fresh = load_domain.__wrapped__("digits", 16, tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    whole = file.read_bytes()
    assert callable(damage)
    file.write_bytes(damage(whole))
    again = load_domain.__wrapped__("digits", 16, tmp_path)
    assert again.digests == fresh.digests and torch.equal(again.train.x, fresh.train.x)
    repaired = load_file(file)
    assert all(torch.equal(repaired[key], value) for key, value in load(whole).items())
    assert not list(tmp_path.glob("*.tmp"))


def test_of_several_that_need_a_domain_one_builds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds: list[str] = []
    start = threading.Barrier(4)

    def build(name: str, image_size: int) -> Raw:
        builds.append(name)
        train, val, test = ((np.zeros((2, 8, 8), np.uint8), np.array([0, 1])) for _ in range(3))
        return Raw(classes=2, train=train, val=val, test=test)

    def work() -> None:
        start.wait()
        load_domain.__wrapped__("plain", 8, tmp_path)

    family = Family(version=1, domains={"plain": "grey"}, build=build)
    monkeypatch.setattr(ntbench.tasks.data, "find", lambda name: family)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert builds == ["plain"]


def test_the_cache_of_a_folder_follows_its_files(tmp_path: Path) -> None:
    for index in range(20):
        file = tmp_path / "images" / "ab"[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (index, 0, 0)).save(file)
    name, cache = f"folder:{tmp_path / 'images'}", tmp_path / "cache"
    before = load_domain.__wrapped__(name, 8, cache)
    assert load_domain.__wrapped__(name, 8, cache).digests == before.digests
    Image.new("RGB", (9, 9), (255, 255, 255)).save(tmp_path / "images" / "a" / "100.png")
    after = load_domain.__wrapped__(name, 8, cache)
    assert sum(len(split) for split in (after.train, after.val, after.test)) == 21


def test_a_domain_is_loaded_once_a_process() -> None:
    assert load_domain("digits", 16) is load_domain("digits", 16)


def test_an_unknown_domain_names_itself_a_near_one_and_all() -> None:
    with pytest.raises(ValueError, match=r"unknown domain 'digit_m'; did you mean 'digits_m'\?"):
        load_domain("digit_m", 16)


def test_every_domain_has_one_line() -> None:
    lines = describe_domains()
    assert {*EMBEDDED, "mnist", "mnist_m", "usps", "svhn", "cifar10", "stl10", "folder:PATH"} <= set(lines)
    assert {"pacs_photo", "pacs_art_painting", "pacs_cartoon", "pacs_sketch"} <= set(lines)
    assert all(line and "\n" not in line for line in lines.values())


@pytest.mark.parametrize(("count", "size"), [(12, 4), (10, 4), (7, 5), (5, 5), (1, 3), (3, 32)])
def test_batches_are_one_endless_stream_of_whole_epochs_in_equal_batches(count: int, size: int) -> None:
    split, epochs = numbered(count), 6
    chunk = min(size, count)
    batches = list(itertools.islice(split.batches(size, generator()), -(-epochs * count // chunk)))
    assert {len(x) for x, _ in batches} == {chunk}
    stream = [number for x, _ in batches for number in numbers(x)][: epochs * count]
    for epoch in range(epochs):
        assert sorted(stream[epoch * count : (epoch + 1) * count]) == list(range(count))
    for x, y in batches:
        assert [number % 3 for number in numbers(x)] == y.tolist()
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_batches_shuffle_afresh_each_epoch_by_their_generator_alone() -> None:
    split = numbered(50)

    def epochs(seed: int) -> list[list[int]]:
        return [numbers(x) for x, _ in itertools.islice(split.batches(50, generator(seed)), 3)]

    torch.manual_seed(0)
    first = epochs(1)
    torch.manual_seed(99)
    assert epochs(1) == first
    assert first[0] != first[1] != first[2] != first[0]
    assert epochs(2) != first


@pytest.mark.parametrize(("count", "size"), [(0, 4), (4, 0)])
def test_batches_of_nothing_are_refused(count: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"no batches of {size} from {count} samples"):
        next(numbered(count).batches(size, generator()))


def test_a_subset_is_a_copy_in_the_order_asked_for() -> None:
    split = numbered(10)
    part = split.subset(torch.tensor([7, 2, 2]))
    assert numbers(part.x) == [7, 2, 2] and part.y.tolist() == [1, 2, 2] and len(part) == 3
    assert part.x.is_contiguous(memory_format=torch.channels_last)
    part.x.zero_()
    assert numbers(split.x) == list(range(10))


def test_pixels_are_held_as_bytes_and_become_floats_in_the_batch() -> None:
    train = load_domain("digits", 16).train
    assert train.held.dtype == torch.uint8 and train.subset(torch.arange(3)).held.dtype == torch.uint8
    x, y = next(train.batches(len(train), generator(1)))
    order = torch.randperm(len(train), generator=generator(1))
    levels = train.held[order].numpy()
    oracle = (levels.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    assert x.dtype == torch.float32 and np.array_equal(x.numpy(), oracle) and torch.equal(y, train.y[order])
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_bytes_and_floats_join_as_floats() -> None:
    split = load_domain("digits", 16).val
    assert joined([split, split]).held.dtype == torch.uint8
    mixed = joined([split, Split(split.x, split.y)])
    assert torch.equal(mixed.x, torch.cat([split.x, split.x]))


def test_moving_a_split_keeps_its_layout() -> None:
    moved = numbered(4).to("meta")
    assert moved.x.device.type == moved.y.device.type == "meta"
    assert moved.x.is_contiguous(memory_format=torch.channels_last)


COUNTS = [1, 10, 20, 50, 100, 300, 1000]


@given(
    labels=st.lists(st.integers(0, 5), min_size=2, max_size=80),
    seed=st.integers(0, 2**31),
    share=st.floats(0.01, 0.99),
)
def test_a_split_is_divided_without_rest_and_smaller_parts_lie_in_larger_ones(
    labels: list[int], seed: int, share: float
) -> None:
    count = len(labels)
    split = Split(numbered(count).x, torch.tensor(labels))
    small = max(1, int(share * count))
    first, rest = divided(split, small, generator(seed))
    assert sorted(numbers(first.x) + numbers(rest.x)) == list(range(count)) and len(first) == small
    for part in (first, rest):
        assert part.y.tolist() == [labels[number] for number in numbers(part.x)]
        assert numbers(part.x) == sorted(numbers(part.x)), "the order of samples gives no labels away"
    larger = divided(split, min(count, small + 1), generator(seed))[0]
    assert set(numbers(first.x)) <= set(numbers(larger.x))
    assert numbers(nested_subset(split, small, generator(seed)).x) == numbers(first.x)


def test_a_split_may_be_divided_into_nothing_and_all() -> None:
    none, all_of_it = divided(numbered(5), 0, generator())
    assert len(none) == 0 and numbers(all_of_it.x) == list(range(5))


@pytest.mark.parametrize("seed", range(3))
def test_nested_subsets_lie_inside_each_other(seed: int) -> None:
    split = numbered(1000, classes=7)
    inner: set[int] = set()
    for count in COUNTS:
        part = nested_subset(split, count, generator(seed))
        outer = set(numbers(part.x))
        assert len(part) == len(outer) == count
        assert inner <= outer
        inner = outer
    assert inner == set(range(1000))


@pytest.mark.parametrize("seed", range(3))
def test_nested_subsets_keep_the_class_proportions(seed: int) -> None:
    labels = torch.from_numpy(np.random.RandomState(0).choice(4, size=2000, p=[0.5, 0.3, 0.15, 0.05]))
    split = Split(torch.zeros(2000, 3, 2, 2), labels)
    for count in (20, 100, 200, 600):
        drawn = nested_subset(split, count, generator(seed)).y.bincount(minlength=4)
        assert (drawn - labels.bincount() * count / 2000).abs().max() <= 2


def test_one_percent_of_the_digits_shows_every_class() -> None:
    split = load_domain("digits", 16).train
    for seed in range(10):
        assert set(nested_subset(split, len(split) // 100, generator(seed)).y.tolist()) == set(range(10))


def test_a_nested_subset_depends_on_its_generator_alone_and_differs_with_it() -> None:
    split = numbered(200)
    torch.manual_seed(0)
    first = numbers(nested_subset(split, 20, generator(5)).x)
    torch.manual_seed(1)
    assert numbers(nested_subset(split, 20, generator(5)).x) == first
    assert numbers(nested_subset(split, 20, generator(6)).x) != first


def test_the_place_of_a_sample_does_not_tell_its_label() -> None:
    split = load_domain("digits", 16).train
    for part in (split, nested_subset(split, len(split) // 3, generator())):
        neighbours = (part.y[10:] == part.y[:-10]).float().mean()
        assert 0.03 < neighbours < 0.2


@pytest.mark.parametrize("count", [0, -1, 11])
def test_a_count_that_a_split_does_not_have_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} samples are asked for, of 10; give a count in between"):
        nested_subset(numbered(10), count, generator())


def test_joined_splits_stand_one_after_the_other() -> None:
    both = joined([numbered(3), numbered(2)])
    assert numbers(both.x) == [0, 1, 2, 0, 1] and both.y.tolist() == [0, 1, 2, 0, 1]
    assert both.x.is_contiguous(memory_format=torch.channels_last)


def test_batches_of_features_are_batches_too() -> None:
    split = Split(torch.arange(12.0).view(4, 3), torch.arange(4))
    x, y = next(split.batches(4, generator()))
    assert torch.equal(x, split.x[y])


def test_a_domain_is_cut_with_its_class_proportions() -> None:
    small, whole = load_domain("digits_m", 8, None, 200, 50), load_domain("digits_m", 8)
    assert [len(split) for split in (small.train, small.val, small.test)] == [200, 50, 50]
    assert small.train.y.bincount().min() >= 18 and small.originals == 50
    assert small.digests == whole.digests, "the whole domain is hashed, whatever is used of it"
    rows = {x.numpy().tobytes() for x in whole.test.x}
    assert {x.numpy().tobytes() for x in small.test.x} <= rows
