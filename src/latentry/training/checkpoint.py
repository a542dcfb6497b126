"""Checkpoints of a stage: written whole, checked when they are read."""

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from latentry import files
from latentry.errors import RunError


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, syncs it and renames it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
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


def checked(path: Path) -> Path:
    """Returns `path` if it is a whole checkpoint.

    Raises:
        RunError: it is missing, cut short or altered.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            reason = archive.testzip()
    except (zipfile.BadZipFile, OSError) as error:
        reason = str(error)
    if reason is not None:
        raise RunError(f"checkpoint {path} is damaged ({reason}): remove {path.parent} and resume to repeat that stage")
    return path
