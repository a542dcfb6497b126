"""What a model says of image files: predictions, a batch in memory at a time, and latents."""

import csv
import io
import itertools
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from latentry import files
from latentry.data.decoding import in_threads, read_file
from latentry.data.listing import files_below
from latentry.data.pictures import PictureError, read_picture
from latentry.deploy.predictor import Answer, Predictor
from latentry.errors import DataError

BATCH_SIZE = 64
STANDARD_INPUT = "-"
SIGNATURES = re.compile(
    rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|BM....\0\0\0\0|II[*+]\0|MM\0[*+]|P[1-6]\s+(#|\d+\s+\d)",
    re.DOTALL,
)
"""How an image begins, and no list of files."""

Read = tuple[str, np.ndarray | str]
"""A file's name, and its picture or why there is none."""


def pictures_of(source: str, image_size: int) -> Iterator[Read]:
    """The pictures that an image, a folder of them at any depth, or "-" names.

    "-" is standard input: one image, or the names of files, one a line.

    Raises:
        DataError: there is no such file or folder, or it has no images; or a single image can't be read.
    """
    if source == STANDARD_INPUT:
        return _of_standard_input(image_size)
    path = Path(source)
    if path.is_dir():
        found = files_below(path)
        if not found:
            raise DataError(f"{path} has no images: give an image, a folder of them, or - for names on standard input")
        return _of_files(found, image_size)
    if not path.exists():
        raise DataError(f"no image or folder {path}: give one that exists, or - for names on standard input")
    picture = read_file(path, image_size)
    if isinstance(picture, str):
        raise DataError(f"{path} can't be read: {picture}")
    return iter([(source, picture)])


def predictions(predictor: Predictor, pictures: Iterable[Read], top: int) -> Iterator[dict[str, Any]]:
    """A row for each picture, in order: "file", the `top` "classes" (name, probability), "reconstruction_error" (mean
    squared error of pixels in [0, 1]) and whether it is "usual", null where no validation images told; of a file that
    can't be read "file" and "problem".

    Raises:
        RunError: the model has no trained classifier.
    """
    predictor.config.check_predicts()
    names = predictor.config.class_names
    for batch, answer in _answered(predictor, pictures):
        usual = predictor.usual(answer.errors) if answer else None
        place = 0
        for file, picture in batch:
            if isinstance(picture, str):
                yield {"file": file, "problem": picture}
                continue
            assert answer is not None
            chances = answer.probabilities[place]
            best = np.argsort(-chances, kind="stable")[:top]
            yield {
                "file": file,
                "classes": [{"name": names[label], "probability": float(chances[label])} for label in best],
                "reconstruction_error": None if usual is None else float(answer.errors[place]),
                "usual": None if usual is None else bool(usual[place]),
            }
            place += 1


def embed(predictor: Predictor, folder: Path, out: Path) -> tuple[int, list[tuple[str, str]]]:
    """Writes "latents", float32 (N, c, h, w), and "files" of every image below `folder` to the `.npz` called `out`.

    Returns how many there are, and the files that couldn't be read with the reason.

    Raises:
        DataError: there is no folder, or no image that can be read.
    """
    names: list[str] = []
    problems: list[tuple[str, str]] = []
    shape: tuple[int, ...] = ()
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: give one with images")
    pictures = pictures_of(str(folder), predictor.config.image_size)
    with files.replacing(out) as temporary, tempfile.TemporaryFile(dir=out.parent) as rows:
        for batch, answer in _answered(predictor, pictures):
            if answer is not None:
                rows.write(answer.latents.tobytes())
                shape = answer.latents.shape[1:]
            for file, picture in batch:
                if isinstance(picture, str):
                    problems.append((file, picture))
                else:
                    names.append(file)
        if not names:
            raise DataError(f"{folder} has no image that can be read; {problems[0][0]}: {problems[0][1]}")
        rows.flush()
        latents = np.memmap(rows, dtype=np.float32, mode="r", shape=(len(names), *shape))
        with temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, latents=latents, files=np.array(names))
    return len(names), problems


def write_rows(rows: Iterable[dict[str, Any]], form: str, top: int, stream: TextIO) -> tuple[int, int]:
    """Prints `rows` as they come, as "text", "csv" or "json" (one object a line).

    Returns how many there were, and how many were of files that can't be read.
    """
    count = failed = 0
    table = csv.writer(stream, lineterminator="\n")
    if form == "csv":
        numbers = ("" if place == 0 else f"_{place + 1}" for place in range(top))
        columns = [f"{column}{number}" for number in numbers for column in ("class", "probability")]
        table.writerow(["file", *columns, "reconstruction_error", "usual", "problem"])
    for row in rows:
        count += 1
        failed += "problem" in row
        if form == "json":
            stream.write(json.dumps(row) + "\n")
        elif form == "csv":
            classes = [entry[key] for entry in row.get("classes", []) for key in ("name", "probability")]
            classes += [""] * (2 * top - len(classes))
            table.writerow(
                [row["file"], *classes, *(row.get(key) for key in ("reconstruction_error", "usual", "problem"))]
            )
        else:
            stream.write(_line(row) + "\n")
        stream.flush()
    return count, failed


def _line(row: dict[str, Any]) -> str:
    if "problem" in row:
        return f"{row['file']}  can't be read: {row['problem']}"
    classes = ", ".join(f"{entry['name']} {100 * entry['probability']:.1f} %" for entry in row["classes"])
    return f"{row['file']}  {classes}" + ("" if row["usual"] is not False else "  (unlike the training images)")


def _answered(predictor: Predictor, pictures: Iterable[Read]) -> Iterator[tuple[list[Read], Answer | None]]:
    """Batches of pictures with what the model says of those that could be read."""
    todo = iter(pictures)
    while batch := list(itertools.islice(todo, BATCH_SIZE)):
        read = [picture for _, picture in batch if not isinstance(picture, str)]
        yield batch, predictor.answer(np.stack(read), reconstructions=False) if read else None


def _of_files(paths: Iterable[Path], image_size: int) -> Iterator[Read]:
    yield from in_threads(lambda path: (str(path), read_file(path, image_size)), paths)


def _of_standard_input(image_size: int) -> Iterator[Read]:
    stream = sys.stdin.buffer
    assert isinstance(stream, io.BufferedReader)
    if SIGNATURES.match(stream.peek(16)):
        try:
            yield STANDARD_INPUT, read_picture(stream.read(), image_size)
        except PictureError as error:
            raise DataError(f"the image on standard input can't be read: {error}") from None
        return
    lines = (line.decode(errors="surrogateescape").rstrip("\r\n") for line in stream)
    yield from _of_files((Path(line) for line in lines if line), image_size)
