"""Published code answers without the package, with and without a cache, and without cache warnings."""

from publishable import run_offline, staged

from transformers_cbvila import CBViLAForQuestionAnswering

CODE = """
import sys, warnings
import torch
from transformers import AutoModelForVisualQuestionAnswering, logging

warnings.filterwarnings("error", message=".*past_key_values.*")
model = AutoModelForVisualQuestionAnswering.from_pretrained(sys.argv[1], trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules.")
torch.manual_seed(0)
with torch.no_grad():
    for name, weight in model.answer_decoder.named_parameters():
        if weight.dim() == 2:
            weight.mul_(4.0 if "attention" in name or "embeddings" in name else 1.5)
images, ids = torch.randn(3, 3, 32, 32), torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0], [2, 9, 11, 3]])
asked = dict(pixel_values=images, input_ids=ids, attention_mask=(ids > 0).long(), suppress_tokens=[3])
seen, written = [], set()
first = model.answer_decoder.layers[0].attention.k_proj
first.register_forward_hook(lambda module, given, output: seen.append(given[0].shape[1]))
for way in ({}, {"num_beams": 3}, {"do_sample": True}, {"cache_implementation": "static"}):
    answers = []
    for cached in (True, False):
        torch.manual_seed(1)
        seen.clear()
        uncached = {**way, "use_cache": False, "cache_implementation": None}
        options = way if cached else uncached
        answers.append(model.generate(**asked, max_new_tokens=13, no_repeat_ngram_size=2, **options))
        assert (sum(seen) == 13) == cached, seen
    assert torch.equal(*answers), (way, answers)
    written |= set(answers[0].flatten().tolist())
assert len(written) > 10
print("same")
"""


def test_published_code_answers_the_same_with_and_without_cache(tmp_path):
    published = staged(CBViLAForQuestionAnswering, tmp_path)
    assert run_offline(CODE, tmp_path, published).split() == ["same"]


PIPELINE = """
import sys
from PIL import Image
from transformers import AutoModelForImageTextToText, pipeline

assert type(AutoModelForImageTextToText.from_pretrained(sys.argv[1], trust_remote_code=True)).__name__ == sys.argv[2]
ask = pipeline("image-text-to-text", model=sys.argv[1], trust_remote_code=True)
image = Image.new("RGB", (40, 30), "red")
content = [{"type": "image", "image": image}, {"type": "text", "text": "red"}]
answer = ask(image, "red", return_full_text=False)[0]["generated_text"]
assert ask(text=[{"role": "user", "content": content}])[0]["generated_text"][-1]["content"] == answer
print("same")
"""


def test_published_code_runs_in_the_image_text_to_text_pipeline(tmp_path):
    published = staged(CBViLAForQuestionAnswering, tmp_path)
    name = CBViLAForQuestionAnswering.__name__
    assert run_offline(PIPELINE, tmp_path, published, name).split() == ["same"]
