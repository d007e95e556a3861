"""Checkpoints to publish, of every head, and processes that know one Hub only."""

import os
import subprocess
import sys
from pathlib import Path

import tiny
from tiny_heads import build_head

from transformers_cbvila.hub.checking import find_checkpoint
from transformers_cbvila.hub.staging import stage

LONG = 900  # seconds that another process may take, on a machine that does other things besides
FACTS = {
    "license": "apache-2.0",
    "data": [{"name": "colours", "what": "8 drawings", "license": "CC0"}],
    "recipe": "Random weights.",
    "results": [{"dataset": "colours", "metric": "accuracy", "value": 0.5, "floors": {"chance": 0.25}}],
    "codebook": "All words are random.",
    "limits": "It knows nothing.",
}


def save_checkpoint(head, folder, **fields):
    """A tiny model of a head with its processor, as `save_pretrained` writes them."""
    model = build_head(head, **fields)
    model.save_pretrained(folder)
    tiny.tiny_processor().save_pretrained(folder)
    return Path(folder)


def staged(head, folder):
    """A published folder of a head, without the upload."""
    target = folder / "published"
    target.mkdir()
    stage(find_checkpoint(save_checkpoint(head, folder / "original")), "# card\n", target)
    return target


def run_offline(code, folder, *arguments, without_package=True):
    """Runs Python code that has empty caches, and a folder for them, but no Hub; returns what it printed."""
    environment = {**inherited_environment(), "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    return _run(code, environment, folder, without_package, *arguments)


def in_another_process(code, hub, home, without_package=False):
    """Runs Python code that knows no other Hub and has empty caches; returns what it printed."""
    return _run(code, {**inherited_environment(), **hub.environment(home)}, home, without_package)


def _run(code, environment, folder, without_package, *arguments):
    block = "import sys; sys.modules['transformers_cbvila'] = None\n" if without_package else ""
    done = subprocess.run(
        [sys.executable, "-c", block + code, *map(str, arguments)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LONG,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def inherited_environment():
    return {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
