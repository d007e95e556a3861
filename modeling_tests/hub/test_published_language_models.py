"""A model with a language model is published without it, and loads without the package."""

import json

import huggingface_hub
import pytest
import safetensors.torch
from code_blocks import code_blocks
from PIL import Image
from publishable import FACTS, in_another_process, run_offline
from tiny_language import save_language_model, save_vision_model

from transformers_cbvila import (
    CBViLAConditionalGenerationProcessor,
    CBViLAForConditionalGeneration,
    CBViLAProjector,
    register_projector,
)
from transformers_cbvila.hub.checking import find_checkpoint
from transformers_cbvila.hub.publishing import stage_repository
from transformers_cbvila.model.projectors_cbvila import PROJECTORS

LANGUAGE = "org/language"


@pytest.fixture
def language(tmp_path, monkeypatch):
    """A language model that was downloaded before: its name on the Hub, and its folder in the cache."""
    cache = tmp_path / "cache"
    repository = cache / f"models--{LANGUAGE.replace('/', '--')}"
    folder = save_language_model(repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder


def saved(tmp_path, language, name=LANGUAGE, **options):
    vision = save_vision_model(tmp_path / "vision")
    model = CBViLAForConditionalGeneration.from_vision_language_pretrained(vision, language, **options)
    model.config.language_model = name
    processor = CBViLAConditionalGenerationProcessor.from_vision_language_pretrained(
        vision, language, model.config.num_image_tokens
    )
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


USE = """
import sys
from PIL import Image
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline

folder, language, out = sys.argv[1:]
options = {"trust_remote_code": True, "language_model": language}
model = AutoModelForImageTextToText.from_pretrained(folder, **options)
assert type(model).__module__.startswith("transformers_modules.")
assert type(AutoModel.from_pretrained(folder, **options)).__name__ == "CBViLAConditionalGenerationModel"
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
image = Image.new("RGB", (40, 30), "red")
inputs = processor(images=image, text="<image> this is a", return_tensors="pt")
written = model.generate(**inputs, max_new_tokens=5)
describe = pipeline(
    "image-text-to-text", model=folder, trust_remote_code=True, model_kwargs={"language_model": language}
)
content = [{"type": "image", "image": image}, {"type": "text", "text": "this is a"}]
chat = describe(text=[{"role": "user", "content": content}], max_new_tokens=5, return_tensors=True)
assert chat[0]["generated_token_ids"].tolist() == written[0].tolist()
model.save_pretrained(out)
processor.save_pretrained(out)
print(written[0].tolist())
"""


def test_stage_and_use_without_the_package(tmp_path, language):
    folder = stage_repository(saved(tmp_path, language), "org/reads", tmp_path / "staged", facts=facts_file(tmp_path))
    config = json.loads((folder / "config.json").read_text())
    assert config["language_model"] == LANGUAGE and config["auto_map"] == {
        "AutoConfig": "configuration_cbvila_conditional_generation.CBViLAConditionalGenerationConfig",
        "AutoModel": "modeling_cbvila_image_language.CBViLAConditionalGenerationModel",
        "AutoModelForImageTextToText": "modeling_cbvila_conditional_generation.CBViLAForConditionalGeneration",
    }
    assert (folder / "chat_template.jinja").is_file() and language not in (folder / "config.json").read_text()
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: image-text-to-text" in card and f"`{LANGUAGE}`, not in this repository; 2 layers" in card
    # Saved again, without the package, it has its code and works as before.
    written = run_offline(USE, tmp_path, folder, language, tmp_path / "again")
    assert run_offline(USE, tmp_path, tmp_path / "again", language, tmp_path / "third") == written
    again = CBViLAForConditionalGeneration.from_pretrained(tmp_path / "again", language_model=language)
    assert again.config.num_image_tokens == 2


PUBLISH = """
from transformers_cbvila import publish
publish({folder!r}, "org/reads", facts={facts!r})
"""
BY_NAME = """
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

options = {"trust_remote_code": True}
model = AutoModelForImageTextToText.from_pretrained("org/reads", **options)
processor = AutoProcessor.from_pretrained("org/reads", **options)
image = Image.new("RGB", (40, 30), "red")
inputs = processor(images=image, text="<image> this is a", return_tensors="pt")
written = model.generate(**inputs, max_new_tokens=5)[0].tolist()
describe = pipeline("image-text-to-text", model="org/reads", **options)
found = describe(image, "<image> this is a", max_new_tokens=5, return_tensors=True)
assert found[0]["generated_token_ids"].tolist() == written
print(written)
"""


@pytest.mark.slow
def test_published_model_takes_its_language_model_from_the_hub(tmp_path, hub, api):
    language = save_language_model(tmp_path / "language")
    api.create_repo(LANGUAGE)
    api.upload_folder(folder_path=language, repo_id=LANGUAGE)
    folder = saved(tmp_path, language)
    publish = PUBLISH.format(folder=str(folder), facts=str(facts_file(tmp_path)))
    (tmp_path / "home").mkdir()
    in_another_process(publish, hub, tmp_path / "home")
    weights = safetensors.torch.load(hub.repositories["org/reads"].files["model.safetensors"])
    assert {name.split(".")[1] for name in weights} == {"vision_tower", "multi_modal_projector"}
    # The code of its card runs as it stands.
    with_package, without = code_blocks(hub.repositories["org/reads"].files["README.md"].decode())
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 30), "red").save(tmp_path / name / "picture.png")
    assert "generated_text" in in_another_process(with_package, hub, tmp_path / "ours")
    written = in_another_process(without + BY_NAME, hub, tmp_path / "other", without_package=True)
    assert "generated_text" in written
    model = CBViLAForConditionalGeneration.from_pretrained(folder, language_model=language)
    processor = CBViLAConditionalGenerationProcessor.from_pretrained(folder)
    inputs = processor(images=Image.new("RGB", (40, 30), "red"), text="<image> this is a", return_tensors="pt")
    assert json.loads(written.splitlines()[-1]) == model.generate(**inputs, max_new_tokens=5)[0].tolist()


def facts_file(tmp_path):
    (tmp_path / "facts.yaml").write_text(json.dumps(FACTS))
    return tmp_path / "facts.yaml"


def test_folders_are_not_published(tmp_path, language):
    with pytest.raises(ValueError, match=r"language_model='.*, a folder of this machine.*its Hub id"):
        find_checkpoint(saved(tmp_path, language, name=language))


def test_adapter_is_published_with_the_language_model_by_its_name(tmp_path, language):
    peft = pytest.importorskip("peft")
    source = saved(tmp_path, language)
    model = CBViLAForConditionalGeneration.from_pretrained(source, language_model=language)
    model.add_language_model_adapter(peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    model.config.language_model = LANGUAGE
    model.save_pretrained(source)
    folder = stage_repository(source, "org/reads", tmp_path / "staged", facts=facts_file(tmp_path))
    adapter = json.loads((folder / "language_model_adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == LANGUAGE
    assert "with an adapter in `language_model_adapter`" in (folder / "README.md").read_text()
    run_offline(USE, tmp_path, folder, language, tmp_path / "again")
    files = [where / "language_model_adapter" / "adapter_model.safetensors" for where in (folder, tmp_path / "again")]
    assert files[0].read_bytes() == files[1].read_bytes()
    (source / "language_model_adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(ValueError, match="has no language_model_adapter/adapter_model.safetensors"):
        stage_repository(source, "org/reads", tmp_path / "other", facts=facts_file(tmp_path))


PROJECTOR = """
import torch
from transformers_cbvila import CBViLAProjector, CBViLAProjectorOptions, register_projector
from transformers_cbvila.model.options_cbvila import options


@options
class FirstTokensOptions(CBViLAProjectorOptions):
    number: int = 2


class FirstTokens(CBViLAProjector):
    options_class = FirstTokensOptions

    def __init__(self, options, width, language_width):
        super().__init__(options, width, language_width)
        self.linear = torch.nn.Linear(width, language_width)

    @classmethod
    def num_tokens(cls, options):
        return options.number

    def forward(self, tokens):
        return self.linear(tokens[:, : self.options.number])
"""


def test_projector_from_outside_is_published_with_it(tmp_path, language, monkeypatch):
    (tmp_path / "own_projector.py").write_text(PROJECTOR)
    monkeypatch.syspath_prepend(tmp_path)
    import own_projector

    assert issubclass(own_projector.FirstTokens, CBViLAProjector)
    register_projector("first_tokens", own_projector.FirstTokens)
    try:
        source = saved(tmp_path, language, projector_config={"type": "first_tokens", "number": 3})
        folder = stage_repository(source, "org/reads", tmp_path / "staged", facts=facts_file(tmp_path))
        assert "class FirstTokens(" in (folder / "projector_first_tokens_cbvila.py").read_text()
        run_offline(USE, tmp_path, folder, language, tmp_path / "again")
    finally:
        del PROJECTORS["first_tokens"]
