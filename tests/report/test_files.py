from pathlib import Path

import pytest

from ntbench.report.files import write_all, write_whole


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index.html"
    write_whole(path, b"old")

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_an_earlier_report_left_goes_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    ours = ("*.csv", "figures/*.png")
    write_all(tmp_path, {"a.csv": b"1", "figures/old.png": b"1"}, ours)
    (tmp_path / "notes.txt").write_text("mine")
    write_all(tmp_path, {"b.csv": b"2", "figures/new.png": b"2"}, ours)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"b.csv", "figures/new.png", "notes.txt"}
