"""How to come by the files of a data set: a download where the licence allows it, or a word."""

from __future__ import annotations

from ntbench.domains import find
from ntbench.domains._benchmarks import benchmark
from ntbench.domains._files import data_root
from ntbench.domains.benchmarks import place_of
from ntbench.errors import UserError

_EMBEDDED = ("digits", "digits_m", "syn")


def get(name: str) -> str:
    """Download the files of a domain, checked by their checksums, and return where they are.

    Raises UserError with a word on where to get them, where no licence allows a download, and where one fails.
    """
    family = find(name)
    if ":" in name or family.domains.keys() & {*_EMBEDDED}:
        return f"{name}: nothing to get; it comes with the installation or is your own"
    listed = benchmark(name)
    if listed is None:
        # Torchvision's own sets are downloaded where they are absent, and checked, by whoever builds them.
        family.build(name, 32)
        return f"{name}: its files are in {data_root()}"
    first = listed.domains[name][0].partition("|")[0].partition("@")[0]
    place = place_of(name)
    if not place.exists():
        if listed.get is None:
            raise UserError(
                f"{name}: {listed.title} is not downloaded for you ({listed.terms}); get it from {listed.home} and "
                f"unpack it so that {place / first} is there"
            )
        try:
            listed.get(data_root())
        except (OSError, RuntimeError) as error:
            raise UserError(f"{name}: no download ({error}); get it from {listed.home} into {place}") from None
    return f"{name}: its files are in {place_of(name)} ({listed.terms})"
