import json

import pytest
from tiny import tiny_processor
from tiny_quantizers import fitted_model

from transformers_cbvila import CBViLAForPreTraining, bundled_checkpoint
from transformers_cbvila.cli import main


@pytest.fixture
def model(tmp_path):
    """A folder with a tiny model of 16 codes and its processor."""

    def save(**fields):
        options = {"type": "nearest", "size": 16, "dim": 8} | fields
        fitted_model(options).save_pretrained(tmp_path / "model")
        tiny_processor().save_pretrained(tmp_path / "model")
        return str(tmp_path / "model")

    return save


@pytest.mark.parametrize("method", ["dkm", "most_used", None])
def test_resize_codebook_of_a_bundled_checkpoint_on_scenes(method, tmp_path, capsys):
    out, source = tmp_path / "fewer", "scenes[rows=6]"
    argv = ["resize-codebook", "cbvila-tiny", "--codes", "8", "--output_dir", str(out), "--data", source]
    assert main([*argv, *(["--method", method] if method else [])]) == 0
    report = json.loads((out / "resized.json").read_text())
    before = CBViLAForPreTraining.from_pretrained(bundled_checkpoint("cbvila-tiny")).config.quantizer_config.size
    assert (report["method"], report["codes"], report["codes_before"]) == (method or "dkm", 8, before)
    assert report["psnr_low"] <= report["psnr"] <= report["psnr_high"]
    assert report["psnr_before_low"] <= report["psnr_before"] <= report["psnr_before_high"]
    assert report["psnr"] < report["psnr_before"] and report["bits_per_token"] == 3
    assert report["codebook_perplexity"] <= 8 and report["split"] == "test"
    printed = capsys.readouterr().out
    assert "psnr_before " in printed and f"Model: {out}" in printed
    assert CBViLAForPreTraining.from_pretrained(out).cbvila.quantizer.num_codes == 8


def test_resize_codebook_to_more_codes_without_data(model, tmp_path, capsys, monkeypatch):
    import transformers_cbvila.model.code_rates_cbvila as rates

    matched = rates._match_distribution
    monkeypatch.setattr(rates, "_match_distribution", lambda start, codes, iterations: matched(start, codes, 20))
    out = tmp_path / "more"
    assert main(["resize-codebook", model(), "--codes", "40", "--output_dir", str(out)]) == 0
    assert json.loads((out / "resized.json").read_text()) == {"method": "ikm", "codes_before": 16, "codes": 40}
    assert "give images with --data" in capsys.readouterr().out
    assert CBViLAForPreTraining.from_pretrained(out).cbvila.quantizer.num_codes == 40


@pytest.mark.parametrize(
    "fields, options, message",
    [
        ({}, ["--codes", "40", "--method", "dkm"], "DKM makes 1 to 16 codes of 16, not 40; IKM makes more"),
        ({}, ["--codes", "8", "--method", "ikm"], "DKM makes fewer"),
        ({}, ["--codes", "0"], "DKM makes 1 to 16 codes of 16, not 0"),
        ({"update": "loss"}, ["--codes", "8", "--method", "most_used"], "most_used needs moving counts"),
    ],
)
def test_resize_codebook_errors_are_one_line(fields, options, message, model, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["resize-codebook", model(**fields), *options, "--output_dir", str(out)]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1] and not out.exists()


def test_resize_codebook_keeps_folders(model, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    assert main(["resize-codebook", model(), "--codes", "8", "--output_dir", str(tmp_path / "out")]) == 1
    assert "out is there already; name another folder" in capsys.readouterr().err
