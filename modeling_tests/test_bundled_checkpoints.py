"""Bundled checkpoints: small, safe, complete, and as accurate as their cards say."""

import configparser
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bundled_models import CAPTIONING, LANGUAGE_MODEL, needs_language_model
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForVisualQuestionAnswering,
    AutoProcessor,
    AutoTokenizer,
    pipeline,
)

from transformers_cbvila import CBViLAForConditionalGeneration, CBViLARetriever, bundled_checkpoint, cli, load_pairs
from transformers_cbvila.data.easy_vqa import load_easy_vqa
from transformers_cbvila.drawing.from_captions import draw_captions
from transformers_cbvila.tasks.answering import answer_questions

PRETRAINED = ("cbvila-scenes", "cbvila-scenes-draw", "cbvila-tiny")
NAMES = (*PRETRAINED, "cbvila-scenes-vqa", "cbvila-tiny-easyvqa")
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", [*NAMES, CAPTIONING])
def test_bundled_checkpoint_is_small_and_without_pickles(name):
    files = list(Path(bundled_checkpoint(name)).iterdir())
    assert (Path(bundled_checkpoint(name)) / "model.safetensors").stat().st_size <= 12_000_000
    assert {file.suffix for file in files} <= {".json", ".md", ".safetensors", ".yaml"}


@pytest.mark.parametrize("name", NAMES)
def test_bundled_checkpoint_loads_without_missing_weights(name):
    auto = AutoModelForPreTraining if name in PRETRAINED else AutoModelForVisualQuestionAnswering
    model, info = auto.from_pretrained(bundled_checkpoint(name), output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert AutoConfig.from_pretrained(bundled_checkpoint(name)).preset == "recommended"


@pytest.mark.parametrize("name", PRETRAINED)
def test_bundled_base_model_fits_its_processor(name):
    folder = bundled_checkpoint(name)
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    assert model.config.text_config.vocab_size == len(processor.tokenizer)
    assert processor.tokenizer.model_max_length == model.config.text_config.max_position_embeddings
    tables = [module for module in model.quantizer.modules() if hasattr(module, "initialized")]
    assert tables and all(table.initialized for table in tables)


@pytest.mark.parametrize("name", NAMES)
def test_bundled_models_fit_their_tokenizer(name):
    folder = bundled_checkpoint(name)
    texts = AutoTokenizer.from_pretrained(folder)(["a red circle", "blue"], return_tensors="pt", padding=True)
    model = AutoModel.from_pretrained(folder).eval()
    output = model(**texts)
    states = model.get_text_features(**texts)
    torch.testing.assert_close(output.last_hidden_state, states.last_hidden_state)
    torch.testing.assert_close(output.pooler_output, states.pooler_output)
    (features,) = pipeline("feature-extraction", model=folder)(["a red circle"])
    torch.testing.assert_close(torch.tensor(features), output.last_hidden_state[:1], atol=1e-5, rtol=1e-5)


def test_bundled_checkpoint_answers_unseen_questions():
    folder = bundled_checkpoint("cbvila-tiny-easyvqa")
    model, processor = (
        AutoModelForVisualQuestionAnswering.from_pretrained(folder),
        AutoProcessor.from_pretrained(folder),
    )
    rows = load_easy_vqa("test").select(range(60))
    given = [answer for row in answer_questions(model, processor, rows, progress=False) for answer in row]
    wanted = [answer for row in rows["answer"] for answer in row]
    assert sum(map(str.__eq__, given, wanted)) / len(wanted) > 0.96


def evaluated(tmp_path, *options):
    file = tmp_path / "measured.json"
    assert cli.main(["evaluate", *options, "--output", str(file)]) == 0
    return json.loads(file.read_text())


def test_bundled_checkpoint_answers_unseen_questions_about_scenes(tmp_path):
    asked = ("vqa", "--model", "cbvila-scenes-vqa", "--data", "scenes[rows=40]", "--split", "test")
    assert evaluated(tmp_path, *asked)["accuracy"] > 0.9


def test_bundled_checkpoint_matches_confusers_that_similarity_mistakes(tmp_path):
    asked = ("retrieval", "--model", "cbvila-scenes", "--data", "scenes[rows=80]", "--split", "confusers")
    found = evaluated(tmp_path, *asked, "--rerank_k", "16")
    assert min(found[f"{way}_retrieval_r1_reranked"] for way in ("text", "image")) > 0.95
    assert max(found[f"{way}_retrieval_r1"] for way in ("text", "image")) < 0.9


def test_bundled_checkpoint_draws_what_captions_of_scenes_say():
    name = bundled_checkpoint("cbvila-scenes-draw")
    model, processor = AutoModelForPreTraining.from_pretrained(name).eval(), AutoProcessor.from_pretrained(name)
    captions = [row["captions"][0] for row in load_pairs("scenes[rows=24]", "test")]
    drawn = draw_captions(model, processor, captions, progress=False, guidance_scale=2.0)
    retriever = CBViLARetriever.from_pretrained("cbvila-scenes", "cpu")
    retriever.index([picture for (picture,) in drawn], progress=False)
    found = retriever.search(text=captions, top_k=1, rerank_k=0).indices[:, 0]
    assert (found == torch.arange(24)).float().mean() > 0.8


def test_bundled_captioning_checkpoint_has_all_weights_but_those_of_its_language_model():
    folder = Path(bundled_checkpoint(CAPTIONING))
    with torch.device("meta"):
        expected = CBViLAForConditionalGeneration(AutoConfig.from_pretrained(folder)).state_dict()
    found = load_file(folder / "model.safetensors")
    assert {name: weight.shape for name, weight in found.items()} == {
        name: weight.shape for name, weight in expected.items()
    }
    assert json.loads((folder / "config.json").read_text())["language_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"


@needs_language_model
def test_bundled_checkpoint_captions_scenes(tmp_path):
    asked = ("captioning", "--model", CAPTIONING, "--data", "scenes[rows=20,objects=2,captions=ordered]")
    found = evaluated(tmp_path, *asked, "--split", "test", "--language_model", str(LANGUAGE_MODEL))
    assert found["true_captions"] >= 0.8 and found["log_likelihood_low"] > found["log_likelihood_floor"]


def test_package_data_covers_every_other_file():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    package = ROOT / "src" / "transformers_cbvila"
    patterns = setup["options.package_data"]["transformers_cbvila"].split()
    taken = {path for pattern in patterns for path in package.glob(pattern)}
    data = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert data and data <= taken


OFFLINE_SESSION = """
import socket, sys
def refuse(*args, **kwargs): raise OSError("no network in this test")
socket.socket.connect = refuse
import transformers_cbvila
assert "site" in transformers_cbvila.__file__, transformers_cbvila.__file__
from PIL import Image, ImageDraw
from transformers import AutoModelForPreTraining, pipeline
AutoModelForPreTraining.from_pretrained(transformers_cbvila.bundled_checkpoint("cbvila-tiny"))
image = Image.new("RGB", (64, 64), (240, 246, 252))
ImageDraw.Draw(image).rectangle((10, 20, 40, 40), fill="blue")
ask = pipeline("visual-question-answering", model=transformers_cbvila.bundled_checkpoint("cbvila-tiny-easyvqa"))
print(ask(image, "what shape is in the image?")[0]["answer"], ask(image, "what color is the rectangle?")[0]["answer"])
"""


@pytest.mark.slow
def test_wheel_installed_elsewhere_answers_offline(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(tmp_path)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)], check=True)
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [sys.executable, "-c", OFFLINE_SESSION]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["rectangle", "blue"]
