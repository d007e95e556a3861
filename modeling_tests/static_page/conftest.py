"""Pages of tiny models."""

from pathlib import Path

import pytest
import tiny
import yaml

from transformers_cbvila import CBViLAForPreTraining
from transformers_cbvila.static_page.publishing import stage_static_page

RUNTIME = Path(__file__).parents[2] / ".cache" / "onnxruntime-web"  # `make browser-runtime` fetches it


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Saves a tiny pretrained model with its processor and facts, and returns the folder."""

    def save(head=CBViLAForPreTraining, processor=None, **fields):
        folder = tmp_path_factory.mktemp("model")
        tiny.build(head, **fields).save_pretrained(folder)
        (processor or tiny.tiny_processor()).save_pretrained(folder)
        (folder / "facts.yaml").write_text(yaml.safe_dump({"license": "apache-2.0", "limits": "It knows <nothing>."}))
        return folder

    return save


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of pictures, by name."""
    folder = tmp_path_factory.mktemp("pictures")
    for half in tiny.SHAPES:
        for colour in ("red", "blue"):
            tiny.half_image(colour, half).save(folder / f"{half} {colour}.png")
    return folder


@pytest.fixture(scope="session")
def staged(pictures, tmp_path_factory):
    """Stages the page of a saved model, of pictures of a folder."""
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    if not RUNTIME.is_dir():
        pytest.skip("ONNX Runtime Web is not there: make browser-runtime")

    def stage(model):
        target = tmp_path_factory.mktemp("staged") / "page"
        options = {"images": pictures, "examples": ["left half red", "top half blue"], "onnxruntime_web": RUNTIME}
        return stage_static_page("org/halves", target, model, **options)

    return stage


@pytest.fixture(scope="session")
def model_folder(saved):
    """A model that searches in two stages with calibrated probabilities, and draws."""
    return saved(rerank_k=4, similarity_weight=0.5, match_calibration=[0.7, -0.2])


@pytest.fixture(scope="session")
def page_folder(staged, model_folder):
    return staged(model_folder)
