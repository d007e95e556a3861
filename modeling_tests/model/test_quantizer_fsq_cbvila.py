import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_pairs
from tiny_quantizers import fitted_model, tiny_quantizer, visual_tokens
from torch import nn

import transformers_cbvila
from transformers_cbvila.model.configuration_cbvila import CBViLAConfig
from transformers_cbvila.model.quantizers_cbvila import QUANTIZERS

pytestmark = pytest.mark.skipif("fsq" not in QUANTIZERS, reason="the quantizer was taken out")

FILE, REGISTRY = "quantizer_fsq_cbvila.py", "quantizers_cbvila.py"


def quantizer_without_projections(levels):
    """Latents are the tokens themselves, bounded, and quantized tokens are the codes."""
    quantizer = tiny_quantizer({"type": "fsq", "levels": levels})
    quantizer.in_proj = nn.Identity()
    nn.init.eye_(quantizer.out_proj.weight)  # the first channels of a token
    nn.init.zeros_(quantizer.out_proj.bias)
    return quantizer


def test_fsq_odd_levels_by_hand():
    """Three levels -1 0 1, from tanh(x) * 1.001; five levels -1 -1/2 0 1/2 1, from tanh(x) * 2.002 / 2."""
    quantizer = quantizer_without_projections([3, 5])
    # tanh: 0, 0 | 0.5, -0.5 | 1, -1 | -1, 0.245 | 0.48, 0.2
    tokens = torch.tensor([[0, 0], [math.atanh(0.5), -math.atanh(0.5)], [9, -9], [-9, 0.25], [0.52, 0.2]]).unsqueeze(0)
    codes = [[0, 0], [1, -0.5], [1, -1], [-1, 0], [0, 0]]
    # levels counted from the lowest: (1, 2), (2, 1), (2, 0), (0, 2), (1, 2); an index is first + 3 * second
    indices = [7, 5, 2, 6, 7]
    output = quantizer(tokens)
    assert output.indices.tolist() == [indices]
    assert torch.allclose(output.quantized[0, :, :2], torch.tensor(codes))
    torch.testing.assert_close(quantizer.encode(tokens)[0, 1], torch.tensor([0.5 * 1.001, -0.5 * 1.001]))


def test_fsq_even_levels_by_hand():
    """Four levels -2 -1 0 1 over 2: tanh(x + shift) * 1.5015 - 0.5, where the shift leaves 0 at 0."""
    quantizer = quantizer_without_projections([4, 4])
    tokens = torch.tensor([[0.0, 9.0], [-9.0, 0.0]]).unsqueeze(0)
    torch.testing.assert_close(quantizer.encode(tokens)[0, 0], torch.tensor([0.0, 1.0015 / 2]))
    assert quantizer(tokens).indices.tolist() == [[2 + 4 * 3, 0 + 4 * 2]]
    assert quantizer.head_codes()[0][:4].tolist() == [[-1, -1], [-0.5, -1], [0, -1], [0.5, -1]]


def test_fsq_codes_are_the_grid_of_levels():
    quantizer = tiny_quantizer({"type": "fsq", "levels": [2, 3]})
    (codes,) = quantizer.head_codes()
    assert codes.tolist() == [[-1, -1], [0, -1], [-1, 0], [0, 0], [-1, 1], [0, 1]]
    assert torch.equal(quantizer.lookup(codes.unsqueeze(0)), torch.arange(6).unsqueeze(0))
    assert not list(quantizer.code_parameters()) and quantizer.tables() == () and quantizer.is_fitted
    assert all("proj" in name for name in quantizer.state_dict())


def test_fsq_lookup_clips_latents_to_the_grid():
    quantizer = tiny_quantizer({"type": "fsq", "levels": [4, 3]})
    latents = torch.tensor([[[9.0, 9.0], [-9.0, -9.0]]])
    assert quantizer.lookup(latents).tolist() == [[11, 0]]


@pytest.mark.parametrize("levels", [[2], [3, 5], [8, 5, 5, 5], [1000, 3], [1002, 3]])
def test_fsq_every_level_can_be_reached(levels):
    quantizer = quantizer_without_projections(levels)
    tokens = torch.linspace(-30, 30, 200_001).unsqueeze(-1).expand(1, -1, len(levels))
    digits = quantizer.grid[quantizer.lookup(quantizer.encode(tokens))] + quantizer.levels // 2
    for channel, number in enumerate(levels[:4]):
        reached = digits[..., channel].unique()
        assert reached.min() == 0 and reached.max() == number - 1
        assert len(reached) == number or number > 100


def test_fsq_gradients_are_those_of_the_bound():
    quantizer = quantizer_without_projections([3, 5])
    tokens = torch.tensor([[[0.3, -0.7]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(quantizer(tokens).quantized.sum(), tokens)
    torch.testing.assert_close(gradient, 1.001 * (1 - tokens.detach().tanh().square()))


def test_fsq_has_no_loss_terms():
    output = fitted_model({"type": "fsq", "levels": [3, 5]}).train()(**tiny_pairs())
    assert not {"commitment", "codebook"} & output.losses.keys() and "mim" in output.losses
    assert output.mim_logits.shape[-1] == 15


@pytest.mark.parametrize(
    "levels, message", [([], "len"), ([3, 1], r"levels\[1\]=1 must be at least 2"), ([3.5], "levels"), (8, "levels")]
)
def test_fsq_rejects_invalid_levels(levels, message):
    with pytest.raises(ValueError, match=message):
        CBViLAConfig(quantizer_config={"type": "fsq", "levels": levels})


def test_fsq_default_has_1000_codes():
    options = CBViLAConfig(quantizer_config={"type": "fsq"}).quantizer_config
    assert options.levels == [8, 5, 5, 5] and math.prod(options.levels) == 1000


def test_fsq_rejects_a_tied_head():
    """Of the codes of 3 x 5 levels, 15 in all, several have one direction, and one has none."""
    codes = tiny_quantizer({"type": "fsq", "levels": [3, 5]}).head_codes()[0]
    assert len(nn.functional.normalize(codes, dim=-1).unique(dim=0)) < len(codes)
    quantizer, tied = {"type": "fsq", "levels": [3, 5]}, {"head": "tied"}
    with pytest.raises(ValueError, match=r"head='tied' compares directions, .*'fsq'.*choose head='linear'"):
        CBViLAConfig(quantizer_config=quantizer, objectives={"mim": tied})
    CBViLAConfig(quantizer_config=quantizer, objectives={"mim": {**tied, "weight": 0.0}})
    for other in ("nearest", "residual", "adaptive", "class_guided"):
        CBViLAConfig(quantizer_config={"type": other}, objectives={"mim": tied})


@pytest.mark.parametrize("levels", [[3, 5], [8, 5, 5, 5], [4, 6, 7]])
def test_fsq_equals_vector_quantize_pytorch(levels):
    peer = pytest.importorskip("vector_quantize_pytorch").FSQ(levels)
    quantizer = quantizer_without_projections(levels)
    tokens = 2 * visual_tokens(16)[..., : len(levels)]
    expected, indices = peer(tokens)
    output = quantizer(tokens)
    assert torch.equal(output.indices, indices.long())
    torch.testing.assert_close(output.quantized[..., : len(levels)], expected)
    torch.testing.assert_close(quantizer.head_codes()[0], peer.implicit_codebook)


def test_fsq_can_be_removed_as_one_file_and_one_line(tmp_path):
    """Without both the package works, and names it nowhere."""
    package = Path(transformers_cbvila.__file__).parent
    copied = shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    (copied / "model" / FILE).unlink()
    registry = copied / "model" / REGISTRY
    lines = registry.read_text().splitlines(keepends=True)
    left = [line for line in lines if FILE.removesuffix(".py") not in line]
    assert len(left) == len(lines) - 1
    registry.write_text("".join(left))
    texts = {
        p: p.read_text() for p in copied.rglob("*") if p.suffix in (".py", ".md", ".yaml", ".json", ".css", ".txt")
    }
    assert [path for path, text in texts.items() if re.search("fsq|CBViLAFS", text, re.IGNORECASE)] == []
    program = (
        "from transformers_cbvila import CBViLAConfig, CBViLAForPreTraining\n"
        "import transformers_cbvila\n"
        f"assert transformers_cbvila.__file__.startswith({str(tmp_path)!r})\n"
        "print(CBViLAConfig().quantizer_config.type)\n"
        "try:\n"
        "    CBViLAConfig(quantizer_config={'type': 'fsq'})\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert re.match("nearest\n.*'fsq' is not one of .*'nearest'", ran.stdout)
