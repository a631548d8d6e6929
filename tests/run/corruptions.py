"""Corruptions of a run's folder, drawn by a seed.

Inconsistent ones change a file and leave its hash. Consistent ones write the hash and the manifest's checksum anew, so
that only the content can show what is wrong. What no check can tell without a signature is not here: other valid
numbers in the place of numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

GROUPS = ("model", "ema", "optimizer")
TENSOR_FILES = tuple(f"{group}.safetensors" for group in GROUPS)
FILES = (*TENSOR_FILES, "state.json", "config.json", "manifest.json")


@dataclass(frozen=True)
class Corruption:
    """What was done, and the files of which a message must name one."""

    kind: str
    files: tuple[str, ...]


def corrupt(run: Path, other: Path, dice: random.Random) -> Corruption:
    """Corrupt the newest checkpoint of `run`, or the files beside it. `other` is another run, of the same config."""
    kind = dice.choice(list(KINDS))
    newest = max((run / "checkpoints").iterdir())
    try:
        detail, *files = KINDS[kind](newest, max((other / "checkpoints").iterdir()), dice)
    except (KeyError, IndexError, NotImplementedError):
        return corrupt(run, other, dice)  # This kind has nothing to change in what was drawn.
    return Corruption(f"{kind}: {detail}", tuple(files))


# Inconsistent.


def flip_bits(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    name = dice.choice(FILES)
    content = bytearray((folder / name).read_bytes())
    for _ in range(dice.choice((1, 1, 1, 2, 8))):
        # Half of the flips hit the first bytes, which say how the others are read.
        content[dice.randrange(len(content) if dice.random() < 0.5 else min(200, len(content)))] ^= 1 << dice.randrange(
            8
        )
    (folder / name).write_bytes(content)
    return "", f"{folder.name}/{name}"


def cut(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    name = dice.choice(FILES)
    size = (folder / name).stat().st_size
    os.truncate(folder / name, dice.choice((0, 1, 7, 8, 9, size // 2, size - 1, dice.randrange(size))))
    return "", f"{folder.name}/{name}"


def append(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    name = dice.choice(FILES)
    with (folder / name).open("ab") as file:
        file.write(dice.randbytes(dice.choice((1, 8, 4096))))
    return "", f"{folder.name}/{name}"


def overwrite_block(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    name = dice.choice(FILES)
    content = bytearray((folder / name).read_bytes())
    start = dice.randrange(len(content))
    length = min(dice.choice((1, 8, 512, 4096)), len(content) - start)
    content[start : start + length] = dice.choice((bytes(length), b"\xff" * length, dice.randbytes(length)))
    (folder / name).write_bytes(content)
    return "", f"{folder.name}/{name}"


def delete(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    name = dice.choice(FILES)
    (folder / name).unlink()
    return "", f"{folder.name}/{name}", *([f"{folder.name}: "] if name == "manifest.json" else [])


def replace_by_something_else(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    name, what = dice.choice(FILES), dice.choice(("folder", "pipe", "link", "null", "pickle", "zip"))
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "link":
        path.symlink_to("nowhere")
    elif what == "null":
        path.symlink_to("/dev/null")
    else:
        start = pickle.dumps({"w": 1}) if what == "pickle" else b"PK\x03\x04"
        path.write_bytes(start.ljust(len(content), b"."))
    return what, f"{folder.name}/{name}", *([f"{folder.name}: "] if name == "manifest.json" else [])


def swap_files(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    one, two = dice.sample(FILES, 2)
    a, b = (folder / one).read_bytes(), (folder / two).read_bytes()
    if a == b:
        raise IndexError
    (folder / one).write_bytes(b)
    (folder / two).write_bytes(a)
    return "", f"{folder.name}/{one}", f"{folder.name}/{two}"


def file_of_the_checkpoint_before(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    name = dice.choice((*TENSOR_FILES, "state.json", "manifest.json"))
    earlier = sorted(folder.parent.iterdir())[-2]
    shutil.copyfile(earlier / name, folder / name)
    return "", f"{folder.name}/{name}"


def another_name_of_the_folder(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    step = dice.choice((1, 11, 12, 30, 99_999_999))
    earlier = sorted(folder.parent.iterdir())[-2]
    name = f"step-{step:08d}"
    if dice.random() < 0.5:
        folder.rename(folder.parent / name)
    else:
        shutil.copytree(earlier if dice.random() < 0.5 else folder, folder.parent / name)
    return name, f"{name}/manifest.json"


def something_with_the_name_of_a_checkpoint(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    path = folder.parent / "step-00000030"
    what = dice.choice(("file", "folder", "pipe", "loop", "json"))
    if what == "file":
        path.write_bytes(dice.randbytes(100))
    elif what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "loop":
        path.symlink_to(path.name)
    else:
        path.mkdir()
        (path / "manifest.json").write_bytes(dice.choice((b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000)))
    return what, path.name


# Consistent.


def sign(folder: Path, **changes: Any) -> None:
    """Write size and hash of all files into the manifest, and its checksum, by the contract and not the code."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        content = (folder / name).read_bytes()
        manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_signed(folder, {**manifest, **changes})


def write_signed(folder: Path, manifest: dict[str, Any]) -> None:
    manifest.pop("sha256", None)
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    manifest["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))


Tensors = dict[str, torch.Tensor]


def _dtype(tensors: Tensors, name: str, dice: random.Random) -> None:
    others = (torch.float64, torch.float16, torch.int32, torch.bool, torch.uint8, torch.float8_e4m3fn, torch.complex64)
    tensors[name] = tensors[name].to(dice.choice(others))


def _shape(tensors: Tensors, name: str, dice: random.Random) -> None:
    old = tensors[name]
    new = dice.choice((old.flatten()[:3], old.flatten()[:1], old[None], old.flatten()[:0], old.mT if old.ndim > 1 else
                       old[None], torch.cat([old.flatten(), old.flatten()]), old.flatten()[0]))  # fmt: skip
    if new.shape == old.shape:
        raise IndexError
    tensors[name] = new.contiguous()


def _not_finite(tensors: Tensors, name: str, dice: random.Random) -> None:
    tensors[name].view(-1)[dice.randrange(tensors[name].numel())] = dice.choice((torch.nan, torch.inf, -torch.inf))


def _negative(tensors: Tensors, name: str, dice: random.Random) -> None:
    square = dice.choice([n for n in tensors if n.endswith(".exp_avg_sq")])
    tensors[square].view(-1)[dice.randrange(tensors[square].numel())] = -1e-3


def _count(tensors: Tensors, name: str, dice: random.Random) -> None:
    step = dice.choice([n for n in tensors if n.endswith(".step")])
    tensors[step].fill_(dice.choice((0.0, -1.0, 1.5, 21.0, 1e30)))


def _rename(tensors: Tensors, name: str, dice: random.Random) -> None:
    tensors[dice.choice((name + "x", name[:-1], "x" + name, name.upper(), "__metadata__x", "", "a.b"))] = tensors.pop(
        name
    )


def _swap(tensors: Tensors, name: str, dice: random.Random) -> None:
    other = dice.choice([n for n in tensors if tensors[n].shape != tensors[name].shape])
    tensors[name], tensors[other] = tensors[other], tensors[name]


def _drop_parameter(tensors: Tensors, name: str, dice: random.Random) -> None:
    start = name.rpartition(".")[0]
    for each in [n for n in tensors if n.startswith(start)]:
        del tensors[each]


EDITS: dict[str, Callable[[Tensors, str, random.Random], Any]] = {
    "missing": lambda tensors, name, dice: tensors.pop(name),
    "all missing": lambda tensors, name, dice: tensors.clear(),
    "parameter missing": _drop_parameter,
    "renamed": _rename,
    "unknown": lambda tensors, name, dice: tensors.update({name + ".more": torch.zeros(3)}),
    "shape": _shape,
    "dtype": _dtype,
    "not finite": _not_finite,
    "negative squares": _negative,
    "count": _count,
    "swapped": _swap,
}


def edit_tensors(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    edit, group = dice.choice(list(EDITS)), dice.choice(GROUPS)
    if edit in ("negative squares", "count"):
        group = "optimizer"
    path = folder / f"{group}.safetensors"
    tensors = safetensors.torch.load(path.read_bytes())
    EDITS[edit](tensors, dice.choice(list(tensors)), dice)
    path.write_bytes(safetensors.torch.save(tensors))
    sign(folder)
    return f"{edit} in {group}", f"{folder.name}/{path.name}"


def edit_header(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    """Change bytes of a tensor file's header, its length included; the numbers stay."""
    path = folder / dice.choice(TENSOR_FILES)
    content = bytearray(path.read_bytes())
    end = 8 + struct.unpack("<Q", content[:8])[0]
    for _ in range(dice.choice((1, 1, 2, 5))):
        content[dice.randrange(end) if dice.random() < 0.9 else dice.randrange(8)] = dice.randrange(256)
    path.write_bytes(content)
    sign(folder)
    return "", f"{folder.name}/{path.name}"


def garbage(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    name = dice.choice(FILES[:-1])
    size = dice.choice((0, 1, 8, 9, 100, 5000))
    huge = struct.pack("<Q", dice.choice((2**63, 2**40, 99_999_999, 100))) + b"{"
    (folder / name).write_bytes(dice.choice((dice.randbytes(size), huge + bytes(size), b"[" * 50_000, b"{}", b"null")))
    sign(folder)
    return "", f"{folder.name}/{name}"


def groups_swapped(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    source, target = (
        ("optimizer", dice.choice(GROUPS[:2])) if dice.random() < 0.5 else (dice.choice(GROUPS[:2]), "optimizer")
    )
    shutil.copyfile(folder / f"{source}.safetensors", folder / f"{target}.safetensors")
    sign(folder)
    return f"{source} as {target}", f"{folder.name}/{target}.safetensors"


# 0 is left out: it is a valid count of steps in which an expert got nothing.
WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    3.5,
    1e308,
    2**70,
    "x",
    "",
    "\ud800",
    [],
    {},
    [[]],
    [None],
    {"x": 1},
    "9" * 5000,
)


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(inner for key, value in items for inner in _paths(value, (*path, key)))]


def edit_json(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    path = folder / dice.choice(("state.json", "config.json"))
    edit_json_file(path, dice)
    sign(folder)
    return path.name, f"{folder.name}/{path.name}"


def edit_json_file(path: Path, dice: random.Random) -> None:
    tree = json.loads(path.read_text())
    *inner, key = dice.choice(_paths(tree)[1:])
    node = tree
    for part in inner:
        node = node[part]
    match dice.randrange(6):
        case 0:
            del node[key]
        case 1:
            node[key] = [node[key]]
        case 2 if isinstance(node, dict):
            node["unknown"] = node.pop(key)
        case _:
            node[key] = dice.choice(WRONG)
    if '"starved_steps": []' in (text := json.dumps(tree)):
        raise IndexError  # As at the start of a run: no step has been counted.
    match dice.randrange(12):
        case 0:
            text = text.replace("}", "", 1)
        case 1:
            text = text.replace(":", ":" + "[" * 60_000, 1)
        case 2:
            text = text.replace(": 2", ": NaN", 1)
        case 3:
            text = text.replace(": 2", ": " + "9" * 5000, 1)
    path.write_text(text)


def edit_manifest(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    manifest = json.loads((folder / "manifest.json").read_text())
    name = dice.choice(list(manifest["files"]))
    record = manifest["files"][name]
    edits: list[Callable[[], Any]] = [
        lambda: manifest["files"].pop(name),
        lambda: manifest["files"].update({dice.choice(("../x", "/etc/passwd", "a/b", ".x", "new", "")): record}),
        lambda: manifest["files"].update({name: dice.choice((None, {}, [], 3, {"size": 1}))}),
        lambda: record.update(size=dice.choice((-1, None, "5", 2.5, 2**70, True))),
        lambda: record.update(sha256=dice.choice((None, "", record["sha256"].upper(), 5, "z" * 64))),
        lambda: manifest.update(step=dice.choice((-1, None, "20", 21, 10, 2**70, True, 20.0))),
        lambda: manifest.update(run=dice.choice((None, "", 5, "0" * 32, "../x", []))),
        lambda: manifest.update(version=dice.choice((0, -1, 3, 2**70, None, "2", True, 2.0))),
        lambda: manifest.update(format=dice.choice((None, "", "other", 5))),
        lambda: manifest.update(files=dice.choice((None, [], {}, "x", 5))),
        lambda: manifest.pop(dice.choice(("step", "run", "files", "format", "version"))),
        lambda: manifest.update(unknown=1),
    ]
    dice.choice(edits)()
    write_signed(folder, manifest)
    files = [f"{folder.name}/manifest.json"]
    # A new entry names a file that is missing.
    if isinstance(manifest.get("files"), dict) and "new" in manifest["files"]:
        files.append(f"{folder.name}/new")
    return "", *files


def checkpoint_of_another_run(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    shutil.rmtree(folder)
    shutil.copytree(other, folder)
    return "", f"{folder.name}/manifest.json"


# The files beside the checkpoints.


def run_files(folder: Path, other: Path, dice: random.Random) -> tuple[str, ...]:
    path = folder.parents[1] / dice.choice(("config.json", "run.json", "metrics.jsonl"))
    content = bytearray(path.read_bytes())
    what = dice.choice(("bits", "cut", "append", "delete", "json", "garbage", "folder", "pipe"))
    if what == "bits":
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    elif what == "cut":
        del content[dice.randrange(len(content)) :]
    elif what == "append":
        content += dice.randbytes(9)
    elif what == "garbage":
        content = bytearray(dice.choice((b"", b"null", b"[]", b"\xff\xfe", b"[" * 60_000, dice.randbytes(50))))
    path.write_bytes(content)
    if what == "json" and path.name != "metrics.jsonl":
        edit_json_file(path, dice)
    elif what in ("delete", "folder", "pipe"):
        path.unlink()
        if what != "delete":
            (Path.mkdir if what == "folder" else os.mkfifo)(path)
    return f"{what} of {path.name}", path.name


KINDS: dict[str, Callable[[Path, Path, random.Random], tuple[str, ...]]] = {
    each.__name__.replace("_", " "): each
    for each in (
        flip_bits, cut, append, overwrite_block, delete, replace_by_something_else, swap_files,
        file_of_the_checkpoint_before, another_name_of_the_folder, something_with_the_name_of_a_checkpoint,
        edit_tensors, edit_header, garbage, groups_swapped, edit_json, edit_manifest, checkpoint_of_another_run,
        run_files,
    )
}  # fmt: skip
