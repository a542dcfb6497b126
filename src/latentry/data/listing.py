"""Which files are whose: a folder with one folder a class, or a table of paths and labels. No image is opened."""

import csv
import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from latentry.data.imageset import UNLABELLED
from latentry.data.pictures import ENDINGS
from latentry.errors import DataError

PARTS = ("train", "val", "test")
MISNAMED = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}
LARGEST_TABLE_BYTES = 1 << 28


@dataclasses.dataclass(frozen=True)
class Listing:
    """Image files in order, and what is known of each.

    Attributes:
        files: their paths.
        labels: int64, shape (N,), an index into `class_names`, -1 where none was given.
        class_names: sorted.
        held_out: bool, shape (N,), which of them were put aside for validation.
        groups: int64, shape (N,), images with the same number belong together; None where nothing was said of that.
    """

    files: tuple[Path, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    held_out: np.ndarray
    groups: np.ndarray | None = None


def listed_for_training(source: Path, group_column: str = "", unlabelled: str = "") -> Listing:
    """What `source` offers for training and validation, and after it the files anywhere below `unlabelled`.

    `source` is a folder (`CLASS/*`, or `train/CLASS/*` and perhaps `val/CLASS/*`) or a table (`.csv`) with the columns
    path, label (empty where it isn't known) and perhaps part (train, val, test) and `group_column`. Files are in name
    order, those of a table in its order.

    Raises:
        DataError: it is missing, names fewer than two classes or a class without images, or makes no sense.
    """
    listing = _of_table(source, ("train", "val"), group_column) if _is_table(source) else _of_folder(source)
    if len(listing.class_names) < 2:
        where = source if _is_table(source) or not (source / "train").is_dir() else source / "train"
        raise DataError(f"{where} has fewer than 2 classes ({_names(listing)}): give each class its images")
    _check_filled(listing, source)
    return _with_unlabelled(listing, source, Path(unlabelled)) if unlabelled else listing


def listed_for_test(source: Path) -> Listing:
    """The test part of `source`, its labels counted as in training. Opens no image.

    Raises:
        DataError: there is none, or its classes are not those of training.
    """
    class_names = listed_for_training(source).class_names
    if _is_table(source):
        listing = _of_table(source, ("test",), "", class_names)
    else:
        if not has_test(source):
            raise DataError(f"{source} has no test images: put them into {source / 'test'}, one folder a class")
        listing = _of_class_folders(source / "test")
    if not listing.files:
        raise DataError(f"{source} has no test images: give some rows the part test")
    if listing.class_names != class_names:
        raise DataError(
            f"the test part of {source} has the classes {_names(listing)}, and training has {', '.join(class_names)}: "
            "give both the same"
        )
    _check_filled(listing, source if _is_table(source) else source / "test")
    return listing


def has_test(source: Path) -> bool:
    """Whether there is a test part."""
    if _is_table(source):
        return any(row["part"] == "test" for row in _rows(source, ""))
    return (source / "test").is_dir()


def files_below(folder: Path) -> list[Path]:
    """Every visible image file in `folder` and the folders below it, in name order; names may be any bytes.

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: give one with images")
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names]
    return _sorted(found)


def _place(path: Path) -> tuple[str, str]:
    """What a file is known by, whichever way its folder is reached."""
    return _real(path.parent), path.name


@functools.cache
def _real(folder: Path) -> str:
    return os.path.realpath(folder)


def _is_table(source: Path) -> bool:
    return source.suffix.lower() == ".csv"


def _names(listing: Listing) -> str:
    return ", ".join(listing.class_names) or "none"


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")


def _sorted(paths: Iterable[Path]) -> list[Path]:
    """The pictures among `paths` in name order."""
    return sorted(filter(_is_picture, paths))


def _check_named(paths: Iterable[Path]) -> None:
    """Raises DataError where a name can't be written down in a run's files."""
    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise DataError(f"the name of {str(path)!r} is not UTF-8: rename it") from None


def _check_filled(listing: Listing, source: Path) -> None:
    counts = np.bincount(listing.labels[listing.labels != UNLABELLED], minlength=len(listing.class_names))
    if not counts.all():
        empty = listing.class_names[int(counts.argmin())]
        raise DataError(
            f"class {empty!r} of {source} has no images ({', '.join(sorted(ENDINGS))}): fill it or remove it"
        )


def _of_folder(folder: Path) -> Listing:
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: give cifar10, a folder with one folder of images a class, or a CSV file")
    apart = (folder / "train").is_dir()
    for name, part in MISNAMED.items():
        holds_folders = (folder / name).is_dir() and any(entry.is_dir() for entry in (folder / name).iterdir())
        if holds_folders and (apart or part == "train"):
            raise DataError(f"{folder / name} is none of the parts {', '.join(PARTS)}: rename it to {part}, or move it")
    train = _of_class_folders(folder / "train") if apart else _of_class_folders(folder, leave_out=PARTS[1:])
    if not (folder / "val").is_dir():
        return train
    held_out = _of_class_folders(folder / "val")
    if held_out.class_names != train.class_names:
        raise DataError(
            f"{folder / 'val'} has the classes {_names(held_out)}, and training has {_names(train)}: give both the same"
        )
    _check_filled(held_out, folder / "val")
    return Listing(
        train.files + held_out.files,
        np.concatenate([train.labels, held_out.labels]),
        train.class_names,
        np.repeat([False, True], [len(train.files), len(held_out.files)]),
    )


def _of_class_folders(folder: Path, leave_out: tuple[str, ...] = ()) -> Listing:
    """Of `folder/CLASS/*`; folders called one of `leave_out` are parts that lie beside the classes."""
    entries = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    names = tuple(sorted(entry.name for entry in entries if entry.name not in leave_out))
    found = [_sorted((folder / name).iterdir()) for name in names]
    _check_named(path for paths in found for path in paths)
    labels = np.repeat(np.arange(len(names), dtype=np.int64), [len(paths) for paths in found])
    return Listing(tuple(path for paths in found for path in paths), labels, names, np.zeros(len(labels), dtype=bool))


def _of_table(
    table: Path, parts: tuple[str, ...], group_column: str, class_names: tuple[str, ...] | None = None
) -> Listing:
    every = list(_rows(table, group_column))
    _check_apart(every, table)
    if group_column:
        _check_groups(every, table)
    rows = [row for row in every if row["part"] in parts]
    names = class_names or tuple(sorted({row["label"] for row in rows if row["label"]}))
    label_of = {name: label for label, name in enumerate(names)} | {"": UNLABELLED}
    strange = next((row["label"] for row in rows if row["label"] not in label_of), None)
    if strange is not None:
        raise DataError(f"{table} has the class {strange!r} in its part test alone: give training images of it")
    groups = None
    if group_column:
        numbers = {group: number for number, group in enumerate(dict.fromkeys(row["group"] for row in rows))}
        groups = np.array([numbers[row["group"]] for row in rows], dtype=np.int64)
    return Listing(
        tuple(table.parent / row["path"] for row in rows),
        np.array([label_of[row["label"]] for row in rows], dtype=np.int64),
        names,
        np.array([row["part"] == "val" for row in rows], dtype=bool),
        groups,
    )


def _check_apart(rows: list[dict[str, str]], table: Path) -> None:
    seen: set[tuple[str, str]] = set()
    for row in rows:
        place = _place(table.parent / row["path"])
        if place in seen:
            raise DataError(f"{table} names {row['path']} twice: give an image one row, and so one part")
        seen.add(place)


def _check_groups(rows: list[dict[str, str]], table: Path) -> None:
    parts: dict[str, str] = {}
    for row in rows:
        if parts.setdefault(row["group"], row["part"]) != row["part"]:
            raise DataError(
                f"the group {row['group']!r} of {table} has rows in the parts {parts[row['group']]} and {row['part']}: "
                "give it one"
            )


def _rows(table: Path, group_column: str) -> Iterator[dict[str, str]]:
    """The rows of a table with path, label, part and group filled in."""
    try:
        if table.stat().st_size > LARGEST_TABLE_BYTES:
            raise DataError(f"{table} has more than {LARGEST_TABLE_BYTES:,} bytes: is it a table of paths and labels?")
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = reader.fieldnames or []
            for column in ("path", "label", *([group_column] if group_column else [])):
                if column not in columns:
                    raise DataError(f"{table} has no column {column!r}; its columns are {', '.join(columns) or 'none'}")
            for row in reader:
                if None in row.values() or None in row:
                    raise DataError(f"{table}, line {reader.line_num}: it has not as many fields as there are columns")
                part = row.get("part") or "train"
                if part not in PARTS:
                    raise DataError(f"{table}, line {reader.line_num}: part {part!r} is none of {', '.join(PARTS)}")
                if part != "train" and not row["label"]:
                    raise DataError(f"{table}, line {reader.line_num}: an image of part {part} needs a label")
                if not row["path"] or "\0" in row["path"]:
                    raise DataError(f"{table}, line {reader.line_num}: it names no file")
                yield {
                    "path": row["path"],
                    "label": row["label"],
                    "part": part,
                    # What names no group is one of its own.
                    "group": (row[group_column] or f"\0{reader.line_num}") if group_column else "",
                }
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} can't be read as a CSV table ({error}): give UTF-8 with a header") from None


def _with_unlabelled(listing: Listing, source: Path, folder: Path) -> Listing:
    added = files_below(folder)
    _check_named(added)
    asked: tuple[Path, ...] = ()
    if has_test(source):
        asked = (_of_table(source, ("test",), "") if _is_table(source) else _of_class_folders(source / "test")).files
    taken = {_place(path) for path in (*listing.files, *asked)}
    again = next((path for path in added if _place(path) in taken), None)
    if again is not None:
        raise DataError(
            f"--unlabelled {folder} holds {again}, which {source} has too: give a folder that lies apart from its parts"
        )
    if not added:
        raise DataError(f"{folder} has no images ({', '.join(sorted(ENDINGS))}): leave --unlabelled out")
    count = len(added)
    groups = listing.groups
    if groups is not None:
        groups = np.concatenate([groups, groups.max() + 1 + np.arange(count)])
    return Listing(
        listing.files + tuple(added),
        np.concatenate([listing.labels, np.full(count, UNLABELLED)]),
        listing.class_names,
        np.concatenate([listing.held_out, np.zeros(count, dtype=bool)]),
        groups,
    )
