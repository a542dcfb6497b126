"""Checkpoints of a stage: written whole, checked when they are read."""

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from latentry import files
from latentry.errors import RunError
from latentry.progress import console

LAST, BEFORE_LAST = "last.ckpt", "before-last.ckpt"


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, syncs it and renames it; of the last it keeps the one before, too."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        if Path(path).name == LAST and Path(path).exists():
            Path(path).replace(Path(path).with_name(BEFORE_LAST))
        files.write_bytes(Path(path), content.getvalue())

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
    for path in found[:-1]:
        try:
            return checked(path)
        except RunError as error:
            reason = str(error).partition(":")[0]
            console.print(f"{reason}: going on from the one before", style="yellow", soft_wrap=True)
    return checked(found[-1]) if found else None


def checked(path: Path) -> Path:
    """Returns `path` if it is a whole checkpoint.

    Raises:
        RunError: it is missing, cut short or altered.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            reason = archive.testzip()
        if reason is None:  # what is in it is as it was; torch is more particular about the rest
            torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - zipfile and torch raise half a dozen kinds on a damaged file
        reason = str(error).partition("\n")[0]
    if reason is not None:
        raise RunError(f"checkpoint {path} is damaged ({reason}): remove {path.parent} and resume to repeat that stage")
    return path
