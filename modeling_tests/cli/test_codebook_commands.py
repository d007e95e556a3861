"""The commands of docs/codebooks.md parse, and make the models that they are about."""

import shlex
from pathlib import Path

from code_blocks import code_blocks

from transformers_cbvila import CBViLAConfig
from transformers_cbvila.cli.inspect import parse as parse_inspect
from transformers_cbvila.cli.pretrain import parse as parse_pretrain
from transformers_cbvila.cli.resize_codebook import parse as parse_resize
from transformers_cbvila.cli.tokenize import parse as parse_tokenize

PAGE = Path(__file__).parents[2] / "docs" / "codebooks.md"


def commands(name):
    """Arguments of the page's commands of this name."""
    blocks = "\n".join(code_blocks(PAGE.read_text(), "bash"))
    lines = blocks.replace("\\\n", " ").splitlines()
    return [shlex.split(line.removeprefix(f"cbvila {name} ")) for line in lines if line.startswith(f"cbvila {name} ")]


def test_codebook_page_pretrains_each_kind_by_name():
    configs = [CBViLAConfig(**parse_pretrain([*argv, "--use_cpu"])[0].model_config) for argv in commands("pretrain")]
    adaptive, raq, *lgvq, sgc = configs
    assert adaptive.quantizer_config.type == "adaptive" and adaptive.quantizer_config.tables[2] == [128, 8]
    assert "raq" in raq.active_objectives() and raq.quantizer_config.type == "nearest"
    assert len(lgvq) == 2 and all("lgvq" in config.active_objectives() for config in lgvq)
    assert sgc.quantizer_config.type == "class_guided" and "sgc_consistency" in sgc.active_objectives()


def test_codebook_page_resizes():
    ((options,),) = map(parse_resize, commands("resize-codebook"))
    assert (options.model, options.codes, options.split) == ("cbvila-tiny", 32, "test[:200]")


def test_codebook_page_inspects_and_tokenizes():
    ((inspected,),) = map(parse_inspect, commands("inspect"))
    assert (inspected.model, inspected.fewer_codes, inspected.label_column) == ("cbvila-tiny", [32, 8], None)
    (encoded,), (decoded,) = map(parse_tokenize, commands("tokenize"))
    assert (encoded.data, encoded.decode, decoded.data, decoded.decode) == (
        "scenes[rows=500]",
        False,
        encoded.output_dir,
        True,
    )
