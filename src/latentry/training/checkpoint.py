"""Checkpoints of a stage: written whole, with a hash that is checked when they are read."""

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from latentry import files
from latentry.errors import RunError
from latentry.progress import warn

LAST, BEFORE_LAST = "last.ckpt", "before-last.ckpt"
NO_COMMENT, HASH_BYTES, MOST_HEADER_BYTES = b"\0\0", 64, 1 << 24
"""How a zip archive ends that has no comment; the length of the comment that makes it a checkpoint; what is no content
in it."""


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, syncs it and renames it; of the last it keeps the one before, too."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        if Path(path).name == LAST and Path(path).exists():
            Path(path).replace(Path(path).with_name(BEFORE_LAST))
        files.write_bytes(Path(path), sealed(content.getvalue()))

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        checkpoint = super().load_checkpoint(path, *arguments, **options)
        # The Trainer forgets which checkpoint was best when the folder has another name than the one it wrote down.
        for state in checkpoint["callbacks"].values():
            if "dirpath" in state:
                folder = Path(path).resolve().parent
                state["dirpath"] = str(folder)
                best = state["best_k_models"].items()
                state["best_k_models"] = {str(folder / Path(name).name): score for name, score in best}
                for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
                    state[key] = str(folder / Path(state[key]).name) if state[key] else ""
        return checkpoint


def newest(folder: Path) -> Path | None:
    """The last whole checkpoint of a stage's `folder`, where it has one; says so when the newest is damaged.

    Raises:
        RunError: all that it has are damaged.
    """
    found = [path for path in (folder / LAST, folder / BEFORE_LAST) if path.exists()]
    for path in found:
        try:
            loaded(path)
        except RunError as error:
            if path is found[-1]:
                raise
            path.unlink(missing_ok=True)  # else the next to be written would put it in the place of the one before
            reason = str(error).partition(":")[0]
            warn(f"{reason}: going on from the one before")
        else:
            return path
    return None


def sealed(archive: bytes) -> bytes:
    """A zip archive that has no comment with its own SHA-256, in hexadecimal, as that."""
    digest = files.sha256(archive).encode()
    return archive.removesuffix(NO_COMMENT) + HASH_BYTES.to_bytes(2, "little") + digest


def loaded(path: Path) -> dict[str, Any]:
    """What the checkpoint at `path` holds, on the processor.

    Raises:
        RunError: it is missing, cut short or altered.
    """
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
        if not unpacked <= size <= unpacked + MOST_HEADER_BYTES:  # nothing that is written here is compressed
            raise zipfile.BadZipFile(f"of {size:,} bytes, it unpacks to {unpacked:,}")
        written = path.read_bytes()
        if written != sealed(written[: -len(NO_COMMENT) - HASH_BYTES] + NO_COMMENT):
            raise zipfile.BadZipFile("its hash is another's")
        content: dict[str, Any] = torch.load(io.BytesIO(written), map_location="cpu", weights_only=True)
        if "state_dict" in content:
            return content
        reason = "it has no weights"
    except Exception as error:  # noqa: BLE001 - zipfile and torch raise half a dozen kinds on a damaged file
        reason = str(error).partition("\n")[0]
    raise RunError(f"checkpoint {path} is damaged ({reason}): remove {path.parent} and resume to repeat that stage")
