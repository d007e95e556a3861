"""Templates of cards, recipes and metrics are in the wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from transformers_cbvila import bundled_checkpoints
from transformers_cbvila.cli.recipe_files import FOLDER
from transformers_cbvila.hub.cards import cards_folder
from transformers_cbvila.metrics.load_metric import METRICS, metric_folder

ROOT = Path(__file__).parents[2]


def test_cards_folder_of_a_checkout():
    assert cards_folder() == ROOT / "hub_cards"


@pytest.mark.slow
def test_wheel_contains_cards_recipes_and_metrics(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel", "--no-deps"]
    subprocess.run([*pip, str(ROOT), "--no-build-isolation", "-w", str(tmp_path)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        packed = {name: content.read(name) for name in content.namelist()}
    folder = "transformers_cbvila/hub/hub_cards/"
    cards = {path.name: path.read_bytes() for path in cards_folder().iterdir() if path.suffix == ".md"}
    assert cards and {name[len(folder) :]: packed[name] for name in packed if name.startswith(folder)} == cards
    assert not [name for name in packed if name.startswith("hub_cards")]
    recipes = {path.name: path.read_bytes() for path in FOLDER.glob("*.yaml")}
    folder = "transformers_cbvila/recipes/"
    assert recipes and {name[len(folder) :]: packed[name] for name in packed if name.startswith(folder)} == recipes
    assert all(f"transformers_cbvila/checkpoints/{name}/facts.yaml" in packed for name in bundled_checkpoints())
    for folder in map(metric_folder, METRICS):
        parts = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".md", ".py")}
        assert len(parts) == 3
        assert {name: packed[f"transformers_cbvila/metrics/{folder.name}/{name}"] for name in parts} == parts
