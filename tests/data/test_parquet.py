"""Parquet files as on the Hugging Face hub: any row at random, whatever the row groups, and clear errors."""

from __future__ import annotations

import builtins
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from leandit.data import Caption, ParquetConfig, build_source
from leandit.errors import LeanDiTError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (grey, grey, grey)).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(*greys: int) -> list[dict[str, Any]]:
    return [{"bytes": png(grey), "path": f"{grey}.png"} for grey in greys]


def write(path: Path, columns: dict[str, Any], rows: int = 3, metadata: dict[str, str] | None = None) -> Path:
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=rows)
    return path


def opened(*paths: Path, **options: Any) -> Any:
    return build_source(ParquetConfig(paths=tuple(str(path) for path in paths), **options))


def first(*paths: Path, **options: Any) -> Any:
    return opened(*paths, **options)[0]


def message(*paths: Path, read: bool = False, **options: Any) -> str:
    with pytest.raises(LeanDiTError) as caught:
        (first if read else opened)(*paths, **options)
    return str(caught.value)


@pytest.mark.parametrize("cached", [1, 16])
def test_any_row_in_any_order(tmp_path: Path, cached: int) -> None:
    for start, count in ((0, 7), (7, 3)):
        greys = range(start, start + count)
        columns = {"image": pictures(*greys), "text": [f"n {n}" for n in greys], "label": [n % 4 for n in greys]}
        write(tmp_path / f"t-{start}.parquet", {**columns, "more": [0.5] * count})
    source = opened(tmp_path / "t-*.parquet", cached_row_groups=cached)
    assert (len(source), source.class_names) == (10, ("0", "1", "2", "3"))
    for n in (9, 0, 6, 7, 3, 2, 8, 1, 5, 4):
        example = source[n]
        assert (example.image[0, 0, 0], example.text, example.label) == (n, f"n {n}", n % 4)
    assert source[9].key == "t-7.parquet[0:2]"
    assert source[6].key == "t-0.parquet[2:0]"
    with ThreadPoolExecutor(8) as pool:
        assert [int(e.image[0, 0, 0]) for e in pool.map(source.__getitem__, list(range(10)) * 20)] == list(
            range(10)
        ) * 20


def test_bytes_columns_and_several_captions(tmp_path: Path) -> None:
    weighted = [[{"text": "long", "weight": 9.0}, {"text": "short", "weight": 1.0}]]
    path = write(tmp_path / "a.parquet", {"jpg": [png(3)], "captions": [["a", "b"]], "weighted": weighted})
    source = opened(path, image_column="jpg", text_column="captions")
    assert (source[0].image[0, 0, 0], source[0].label, source.class_names) == (3, None, ())
    assert source[0].captions == (Caption("a"), Caption("b"))
    other = opened(path, image_column="jpg", text_column="weighted")
    assert other[0].captions == (Caption("long", 9.0), Caption("short", 1.0))
    assert opened(path, image_column="jpg", text_column=None)[0].captions == ()


def test_class_names_of_the_hub(tmp_path: Path) -> None:
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    path = write(tmp_path / "a.parquet", {"image": pictures(1), "label": [1]}, metadata=metadata)
    assert opened(path).class_names == ("cat", "dog")
    assert opened(path, class_names=("x", "y", "z")).class_names == ("x", "y", "z")
    assert "label 1 has no name; class_names has 1" in message(path, class_names=("x",))
    assert opened(path, label_column=None).class_names == ()
    write(path, {"image": pictures(1), "label": [1]}, metadata={"huggingface": "{"})
    assert opened(path).class_names == ("0", "1")


def test_columns_that_do_not_fit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": pictures(1), "text": ["x"]})
    report = message(path, image_column="imgae")
    assert "no column 'imgae' (it has image, text). Did you mean 'image'?" in report
    assert "column 'text' contains string, not pictures" in message(path, image_column="text")
    other = write(tmp_path / "b.parquet", {"image": pictures(2)})
    assert "b.parquet: no column 'text'" in message(path, other)
    assert "b.parquet: no column 'text'" in message(other, path)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"image": [{"bytes": None, "path": "a.png"}, *pictures(1)]}, "names a file ('a.png') but does not contain it"),
        ({"image": [None, png(1)]}, "a.parquet[0:0]: 'image' is null; remove the row"),
        ({"image": [b"hello"]}, "a.parquet[0:0]: not a picture of a known format"),
        ({"image": [png(1)[:-25]]}, "a.parquet[0:0]: damaged or truncated picture"),
        ({"image": pictures(1, 2), "text": [None, "x"]}, "a.parquet[0:0]: 'text' is null"),
        ({"image": pictures(1), "text": [3]}, "a.parquet[0:0]: 'text' is a number"),
        ({"image": pictures(1), "text": [""]}, "a.parquet[0:0]: 'text' is empty; correct the row"),
        ({"image": pictures(1), "text": [[]]}, "'text' is a list of 0 captions"),
        ({"image": pictures(1), "label": [-1]}, "row 0: 'label' is -1; labels are whole numbers"),
        ({"image": pictures(1), "label": ["cat"]}, "row 0: 'label' is 'cat'"),
        ({"image": pictures(1, 2), "label": [1, None]}, "row 1: 'label' is None"),
        ({"image": pa.array([], pa.binary())}, "a.parquet: no rows"),
    ],
)
def test_bad_rows(tmp_path: Path, columns: dict[str, Any], problem: str) -> None:
    assert problem in message(write(tmp_path / "a.parquet", columns), read=True)


def test_damaged_files_and_large_pictures(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": pictures(*range(20))})
    data = path.read_bytes()
    assert "max_pixels=3" in message(path, read=True, max_pixels=3)
    for cut in (3, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        assert "a.parquet: damaged, truncated or not a parquet file" in message(path)
    path.write_bytes(data[:100] + bytes(400) + data[500:])
    assert "damaged" in message(path, read=True)
    assert "pipe: runs a command" in message(Path("pipe:touch x"))


def test_pyarrow_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError("No module named 'pyarrow'")
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    assert 'pip install "leandit[parquet]"' in message(tmp_path / "a.parquet")


def test_the_fingerprint_tells_files_rows_and_labels(tmp_path: Path) -> None:
    def of(*labels: int, name: str = "a", grey: int = 0) -> str:
        columns = {"image": pictures(*[grey] * len(labels)), "label": list(labels)}
        return str(opened(write(tmp_path / f"{name}.parquet", columns)).fingerprint)

    before = of(0, 1)
    assert of(0, 1, grey=9) == before
    assert before not in (of(1, 0), of(0, 1, 1), of(0, 1, name="b"))
