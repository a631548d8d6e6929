"""WebDataset shards written with tarfile, read at random; dangerous and damaged ones are refused at the start."""

from __future__ import annotations

import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leandit.data import Caption, WebDatasetConfig, build_source
from leandit.errors import LeanDiTError


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (grey, grey, grey)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, members: dict[str, bytes], *special: tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        for info in special:
            tar.addfile(info)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def opened(*paths: Path, **options: Any) -> Any:
    return build_source(WebDatasetConfig(paths=tuple(str(path) for path in paths), **options))


def message(*paths: Path, **options: Any) -> str:
    with pytest.raises(LeanDiTError) as caught:
        opened(*paths, **options)
    return str(caught.value)


def info(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_one_stem_are_one_example(tmp_path: Path, format: int) -> None:
    deep = "d" * 90 + "/" + "e" * 60 if format != tarfile.USTAR_FORMAT else "d/e"
    first = {
        f"{n:03}.{kind}": data
        for n in range(3)
        for kind, data in [("cls", b"%d\n" % n), ("png", png(n)), ("txt", b"n %d\n" % n)]
    }
    write(
        tmp_path / "a-0.tar",
        {**first, "._000.png": b"x", "README": b"x"},
        info("folder", tarfile.DIRTYPE),
        format=format,
    )
    second = {
        f"./{deep}/x.PNG": png(9),
        f"./{deep}/x.txt": "cé".encode(),
        f"./{deep}/x.cls": b"4",
        f"./{deep}/x.seg.npz": b"z",
    }
    write(tmp_path / "a-1.tar", second, format=format)
    source = opened(tmp_path / "a-*.tar")
    examples = [source[i] for i in (3, 0, 2, 1)]
    assert [e.image[0, 0, 0] for e in examples] == [9, 0, 2, 1]
    assert [e.text for e in examples] == ["cé", "n 0", "n 2", "n 1"]
    assert [e.label for e in examples] == [4, 0, 2, 1]
    assert examples[0].key == f"a-1.tar/{deep}/x"
    assert examples[0].image.shape == (4, 5, 3)
    assert (len(source), source.class_names) == (4, ("0", "1", "2", "3", "4"))
    assert opened(tmp_path / "a-1.tar", tmp_path / "a-?.tar")[0].label == 4


def test_captions_from_json(tmp_path: Path) -> None:
    record = json.dumps({"caption": [{"text": "long", "weight": 9}, "short"], "text": "other"}).encode()
    path = write(tmp_path / "a.tar", {"0.json": record, "0.jpg": png(1), "0.txt": b"from txt"})
    assert opened(path)[0].text == "from txt"
    assert opened(path, captions="json")[0].text == "other"
    assert opened(path, captions="json", text_key="caption")[0].captions == (
        Caption("long", 9.0),
        Caption("short", 1.0),
    )
    assert opened(path, captions="none")[0].captions == ()
    assert opened(path)[0].label is None
    assert opened(path).class_names == ()
    with pytest.raises(LeanDiTError, match=r"a.tar/0.json: no caption under 'x' \(keys: caption, text\)"):
        opened(path, captions="json", text_key="x")[0]


def test_threads_read_what_one_thread_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {f"{n}.png": png(n) for n in range(200)})
    source = opened(path)
    with ThreadPoolExecutor(8) as pool:
        assert [int(e.image[0, 0, 0]) for e in pool.map(source.__getitem__, range(200))] == list(range(200))


def objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def numbers() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("members", "special", "problem"),
    [
        ({"0.png": b"", "0.pkl": b"x"}, (), "'0.pkl' is a pickle"),
        ({"0.Pickle": b"x"}, (), "is a pickle"),
        ({"0.pyd": b"x"}, (), "is a pickle"),
        ({"0.latent.pth": b"x"}, (), "is a pickle"),
        ({"0.pt.gz": b"x"}, (), "is a pickle"),
        ({"0.npy": objects()}, (), "'0.npy' is an array of objects, which is a pickle"),
        ({"0.npy": b"\x93NUMPY\x01\x00v\x00{'descr': __import__('os')"}, (), "is an array of objects"),
        ({}, (info("0.png", tarfile.SYMTYPE, "/etc/hostname"),), "'0.png' is a link"),
        ({}, (info("0.png", tarfile.LNKTYPE, "1.png"),), "is a link"),
        ({}, (info("0.png", tarfile.CHRTYPE),), "is not a plain file (a device"),
        ({}, (info("0.png", tarfile.FIFOTYPE),), "is not a plain file"),
        ({}, (info("0.png", tarfile.GNUTYPE_SPARSE),), "is not a plain file"),
        ({"../0.png": b""}, (), "a name that points outside the archive"),
        ({"a/../../0.png": b""}, (), "a name that points outside the archive"),
        ({"/0.png": b""}, (), "a name that points outside the archive"),
        ({"..\\0.png": b""}, (), "a name that points outside the archive"),
    ],
)
def test_dangerous_members(tmp_path: Path, members: dict[str, bytes], special: tuple[Any, ...], problem: str) -> None:
    report = message(write(tmp_path / "a.tar", {"ok.png": png(0), **members}, *special))
    assert report.startswith(str(tmp_path / "a.tar"))
    assert problem in report


def test_an_array_of_numbers_does_no_harm(tmp_path: Path) -> None:
    assert len(opened(write(tmp_path / "a.tar", {"0.png": png(0), "0.npy": numbers()}))) == 1


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.tar", {f"{n}.png": png(n) for n in range(3)}).read_bytes()
    end = whole.rstrip(b"\0").__len__() // 512 * 512 + 512
    assert end < len(whole)
    for length in range(1, end + 512, 128):
        (tmp_path / "a.tar").write_bytes(whole[:length])
        assert "a.tar: " in message(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(whole[: end + 512])
    assert len(opened(tmp_path / "a.tar")) == 3


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {f"{n}.txt": b"x" for n in range(3)} | {f"{n}.png": png(n) for n in range(3)})
    data = bytearray(path.read_bytes())
    data[1024 + 3] ^= 255
    path.write_bytes(bytes(data))
    assert "damaged at byte 1024" in message(path)


def test_paths_that_are_no_local_shards(tmp_path: Path) -> None:
    assert "pipe: runs a command" in message(Path("pipe:touch x"))
    with pytest.raises(LeanDiTError, match="an address, not a file"):
        build_source(WebDatasetConfig(paths=("https://example.org/a.tar",)))
    assert "no such file" in message(tmp_path / "a.tar")
    assert "no file matches" in message(tmp_path / "*.tar")
    assert "braces such as {000..009} are not supported" in message(tmp_path / "{000..009}.tar")
    assert f"a folder; give the files in it, such as {tmp_path}/*.tar" in message(tmp_path)
    (tmp_path / "empty.tar").write_bytes(b"")
    assert "empty file" in message(tmp_path / "empty.tar")
    (tmp_path / "text.tar").write_text("no tar file at all" * 100)
    assert "not a tar file" in message(tmp_path / "text.tar")
    with tarfile.open(tmp_path / "z.tar", "w:gz") as tar:
        tar.addfile(info("0.png", tarfile.REGTYPE))
    assert "compressed with gzip" in message(tmp_path / "z.tar")


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({}, "contains no examples"),
        ({"0.txt": b"x"}, "'0' has 0 pictures, not one (0.txt)"),
        ({"0.png": b"x", "0.jpg": b"x"}, "'0' has 2 pictures, not one (0.jpg, 0.png)"),
        ({"0.png": b"x", "0.PNG": b"x"}, "'0.PNG' is in the shard twice"),
        ({"0.png": b"x", "1.png": b"x", "1.txt": b"x"}, "'0' has no .txt, like 1 of 2 examples"),
        ({"0.png": b"x", "1.png": b"x", "1.cls": b"1"}, "'0' has no .cls"),
        ({"0.png": b"x", "0.cls": b"cat"}, "a.tar/0.cls: 'cat' is not a label"),
        ({"0.png": b"x", "0.cls": b"-1"}, "'-1' is not a label"),
        ({"0.png": b"x", "0.cls": b"70000"}, "'70000' is not a label"),
        ({"0.png": b"x", "0.cls": "²".encode()}, "is not a label"),
        ({"0.png": b"x", "0.cls": b"\xff"}, "a.tar/0.cls: not UTF-8"),
    ],
)
def test_shards_that_do_not_fit_together(tmp_path: Path, members: dict[str, bytes], problem: str) -> None:
    assert problem in message(write(tmp_path / "a.tar", members))


def test_class_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {"0.png": png(0), "0.cls": b"1"})
    assert opened(path, class_names=("cat", "dog")).class_names == ("cat", "dog")
    assert "a.tar/0.cls: label 1 has no name; class_names has 1" in message(path, class_names=("cat",))


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"0.png": png(0)[:-25]}, "a.tar/0.png: damaged or truncated picture"),
        ({"0.png": b"hello"}, "a.tar/0.png: not a picture"),
        ({"0.png": b""}, "a.tar/0.png: empty file"),
        ({"0.png": png(0), "0.txt": b"\xff"}, "a.tar/0.txt: not UTF-8 text"),
        ({"0.png": png(0), "0.txt": b"x" * (1024**2 + 1)}, "a.tar/0.txt: 1048577 bytes, more than 1048576"),
        ({"0.png": png(0), "0.json": b"{"}, "a.tar/0.json: not valid JSON"),
        ({"0.png": png(0), "0.json": b"[" * 100_000}, "a.tar/0.json: not valid JSON"),
        ({"0.png": png(0), "0.json": b"[1]"}, "no caption under 'text' (keys: none)"),
        ({"0.png": png(0), "0.json": b'{"text": 3}'}, "a.tar/0.json: 'text' is a number"),
        ({"0.png": png(0), "0.json": b'{"text": ""}'}, "a.tar/0.json: 'text' is empty; correct the shard"),
        ({"0.png": png(0), "0.txt": b" \n"}, "a.tar/0.txt: 'caption' is empty; correct the shard, or set"),
    ],
)
def test_bad_members_are_named_when_read(tmp_path: Path, members: dict[str, bytes], problem: str) -> None:
    source = opened(write(tmp_path / "a.tar", members))
    with pytest.raises(LeanDiTError) as caught:
        source[0]
    assert problem in str(caught.value)


def test_a_shard_that_shrinks_or_goes_during_a_run(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {"0.png": png(0)})
    source = opened(path)
    path.write_bytes(path.read_bytes()[:520])
    with pytest.raises(LeanDiTError, match="has become shorter"):
        source[0]
    path.unlink()
    with pytest.raises(LeanDiTError, match="do not move or change shards"):
        source[0]
    with pytest.raises(LeanDiTError, match="max_pixels=3"):
        opened(write(path, {"0.png": png(0)}), max_pixels=3)[0]


def test_the_fingerprint_tells_names_order_and_labels(tmp_path: Path) -> None:
    def of(*stems: str, label: bytes = b"0", grey: int = 0) -> str:
        members = {f"{stem}.{kind}": data for stem in stems for kind, data in (("png", png(grey)), ("cls", label))}
        return str(opened(write(tmp_path / "a.tar", members)).fingerprint)

    before = of("a", "b")
    assert of("a", "b", grey=9) == before
    assert before not in (of("b", "a"), of("a", "c"), of("a", "b", label=b"1"))
