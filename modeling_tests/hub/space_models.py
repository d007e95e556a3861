"""Models and pictures for Spaces, which several tests share."""

import shutil

import yaml
from PIL import Image
from publishable import save_checkpoint

from transformers_cbvila import CBViLAForImageTextRetrieval, CBViLAForQuestionAnswering

SAID = {"license": "apache-2.0", "limits": "It knows nothing."}


def save_model(folder, head=CBViLAForImageTextRetrieval, said=SAID):
    """A tiny model with its facts, and what a run leaves beside it."""
    save_checkpoint(head, folder)
    (folder / "facts.yaml").write_text(yaml.safe_dump(dict(said)))
    (folder / "optimizer.pt").write_text("of the run")
    return folder


def save_run(folder, said=SAID):
    """The folder of a run, which has its model in a folder."""
    save_model(folder / "model", CBViLAForQuestionAnswering)
    (folder / "model" / "facts.yaml").unlink()
    (folder / "facts.yaml").write_text(yaml.safe_dump(dict(said)))
    return folder


def save_pictures(folder):
    """Two pictures, one of them in a folder of its own, and a file that is none."""
    (folder / "deep").mkdir(parents=True)
    Image.new("RGB", (20, 20), "red").save(folder / "red.png")
    shutil.copy(folder / "red.png", folder / "deep" / "red again.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder
