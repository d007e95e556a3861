"""Stage 1 of the Q-Former: its three losses, what they train, and that neither padding nor processes change them."""

import pytest
import tiny
import torch
import torch.distributed as dist
from equal_tensors import assert_equal_weights
from tiny_qformer import DEC, QUERIES, build_qformer, tiny_qformer_config
from two_processes import run_in_two

from transformers_cbvila import CBViLAForPreTraining, CBViLAModel
from transformers_cbvila.model.configuration_cbvila_qformer import CBViLAQFormerConfig
from transformers_cbvila.model.modeling_cbvila_qformer import CBViLAQFormerModel
from transformers_cbvila.model.modeling_cbvila_qformer_pretraining import CBViLAForQFormerPreTraining
from transformers_cbvila.model.qformer_losses_cbvila import caption_labels, caption_loss

SEED = 7


def model_of(**fields):
    return build_qformer(CBViLAForQFormerPreTraining, **fields)


def pairs(batch=4, **options):
    return {"pixel_values": tiny.tiny_images(batch), **tiny.tiny_texts(batch, **options)}


def losses_of(model, batch, **options):
    with torch.no_grad():
        return model(**batch, **options).losses


# What is computed


def test_output_has_everything():
    output = model_of()(**pairs())
    assert list(output.losses) == ["itc", "itm", "itg"]
    torch.testing.assert_close(output.loss, sum(output.losses.values()))
    shapes = {name: tuple(value.shape) for name, value in output.items() if torch.is_tensor(value)}
    assert shapes == {
        "loss": (),
        "itm_logits": (12, 2),
        "logits_per_image": (4, 4),
        "logits_per_text": (4, 4),
        "image_embeds": (4, QUERIES, 16),
        "text_embeds": (4, 16),
        "query_hidden_states": (4, QUERIES, 24),
        "caption_logits": (4, 7, tiny.VOCABULARY + 1),
    }


def test_output_without_loss_has_the_same_similarities_and_matches():
    model, batch = model_of(), pairs()
    with torch.no_grad():
        whole, plain = model(**batch), model(**batch, return_loss=False)
    assert plain.loss is None and plain.losses is None and plain.caption_logits is None
    for name in ("logits_per_image", "image_embeds", "text_embeds", "query_hidden_states"):
        torch.testing.assert_close(plain[name], whole[name], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain.itm_logits, whole.itm_logits[:4], atol=1e-5, rtol=1e-5)


def test_cross_attention_says_where_each_query_looks():
    model, batch = model_of(), pairs()
    model.set_attn_implementation("eager")
    for return_loss, tokens in ((True, QUERIES + 7), (False, QUERIES)):
        with torch.no_grad():
            output = model(**batch, return_loss=return_loss, output_attentions=True, output_hidden_states=True)
        assert [tuple(weights.shape) for weights in output.cross_attentions] == [(4, 4, QUERIES, 17)] * 2
        assert [tuple(states.shape) for states in output.hidden_states] == [(4, tokens, 24)] * 4
        torch.testing.assert_close(output.cross_attentions[0].sum(-1), torch.ones(4, 4, QUERIES))
        assert torch.equal(output.hidden_states[-1][:, :QUERIES], output.query_hidden_states)


def test_contrast_reads_queries_and_texts_that_do_not_see_each_other():
    model, batch = model_of(), pairs()
    with torch.no_grad():
        output = model(**batch)
        images = model.encode_images(batch["pixel_values"])
        queries = model.qformer(encoder_hidden_states=images).last_hidden_state
        texts = model.qformer(batch["input_ids"], batch["attention_mask"]).last_hidden_state[:, 0]
        image_embeds = torch.nn.functional.normalize(model.vision_projection(queries), dim=-1)
        text_embeds = torch.nn.functional.normalize(model.text_projection(texts), dim=-1)
    expected = torch.einsum("iqe,te->iqt", image_embeds, text_embeds).amax(1) / 0.07
    torch.testing.assert_close(output.logits_per_image, expected, atol=1e-3, rtol=1e-3)


def test_generation_begins_with_its_own_token_and_sees_the_image():
    model, batch = model_of(), pairs()
    with torch.no_grad():
        output = model(**batch)
        captions = batch["input_ids"].clone()
        captions[:, 0] = DEC
        images = model.encode_images(batch["pixel_values"])
        states = model.qformer(captions, batch["attention_mask"], images, attention_pattern="causal")
        logits = model.lm_head(states.last_hidden_state[:, QUERIES:])
        other = model(**{**batch, "pixel_values": batch["pixel_values"].flip(0)})
    torch.testing.assert_close(output.caption_logits, logits)
    expected = caption_loss(logits, caption_labels(batch["input_ids"], batch["attention_mask"]))
    torch.testing.assert_close(output.losses["itg"], expected)
    assert (output.caption_logits - other.caption_logits).abs().max() > 1e-3


def test_generation_without_a_token_of_its_own_begins_with_the_first_one():
    model, batch = model_of(dec_token_id=None, vocab_size=tiny.VOCABULARY), pairs()
    with torch.no_grad():
        output = model(**batch)
        images = model.encode_images(batch["pixel_values"])
        states = model.qformer(**batch_texts(batch), encoder_hidden_states=images, attention_pattern="causal")
    torch.testing.assert_close(output.caption_logits, model.lm_head(states.last_hidden_state[:, QUERIES:]))


def batch_texts(batch):
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def test_matching_is_of_true_pairs_then_negative_images_then_negative_texts():
    model, batch = model_of(), pairs()
    with torch.no_grad():
        output = model(**batch)
        scores = output.logits_per_image.clone().fill_diagonal_(-100)
        images, texts = scores.argmax(0), scores.argmax(1)  # in evaluation the most similar ones
        rows = torch.arange(4)
        tokens = model.encode_images(batch["pixel_values"])[torch.cat([rows, images, rows])]
        chosen = torch.cat([rows, rows, texts])
        states = model.qformer(batch["input_ids"][chosen], batch["attention_mask"][chosen], tokens)
        logits = model.matching_head(states.last_hidden_state[:, :QUERIES]).mean(1)
    torch.testing.assert_close(output.itm_logits, logits, atol=1e-5, rtol=1e-5)
    labels = torch.tensor([1] * 4 + [0] * 8)
    torch.testing.assert_close(output.losses["itm"], torch.nn.functional.cross_entropy(logits, labels))


def test_single_pair_has_nothing_to_compare():
    model = model_of().train()
    output = model(**pairs(1, padding=(1,)))
    assert output.losses["itc"] == 0 and output.losses["itm"] == 0 and output.losses["itg"] > 0
    output.loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_known_matches_are_no_negatives():
    model, batch = model_of(), pairs()
    losses = losses_of(model, batch, image_ids=torch.zeros(4, dtype=torch.long))
    assert losses["itc"] == 0 and losses["itm"] == 0


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_changes_no_loss(attention):
    model, batch = model_of().double(), pairs(padding=(2, 3, 2, 4))
    model.set_attn_implementation(attention)
    batch["pixel_values"] = batch["pixel_values"].double()
    cut = {**batch, **{name: value[:, :5] for name, value in batch_texts(batch).items()}}
    for name, value in losses_of(model, batch).items():
        torch.testing.assert_close(value, losses_of(model, cut)[name], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_losses_under_autocast_are_nearly_the_same(attention):
    model, batch = model_of(), pairs()
    model.set_attn_implementation(attention)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(**batch).losses
    for name, value in losses_of(model, batch).items():
        assert rounded[name].dtype == torch.float32
        torch.testing.assert_close(rounded[name].detach(), value, atol=0.02, rtol=0.02)


def test_drawn_negatives_depend_on_the_seed_alone():
    model, batch = model_of().train(), pairs(8)
    first, again, other = (losses_of(model, batch, negative_seed=seed)["itm"] for seed in (1, 1, 2))
    assert first == again != other


def test_loss_falls_when_trained():
    model, batch = model_of().train(), pairs()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    totals = []
    for _ in range(30):
        loss = model(**batch, negative_seed=SEED).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        totals.append(loss.item())
    assert totals[-1] < 0.6 * totals[0]


def test_published_size_has_as_many_parameters_as_counted():
    """BLIP-2's, on image tokens that are 1,408 wide: 186.7 million."""
    vision = {"hidden_size": 1408, "num_attention_heads": 16, "num_hidden_layers": 0}
    with torch.device("meta"):
        model = CBViLAForQFormerPreTraining(CBViLAQFormerConfig(vision_config=vision))
    own = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("vision_model."))
    assert own == 186_702_654


# What is trained

GROUPS = {
    "vit": ("vision_model.",),
    "queries": ("qformer.embeddings.query_tokens",),
    "words": ("qformer.embeddings.word_embeddings.", "qformer.embeddings.position_embeddings."),
    "self-attention": ("qformer.layers.0.attention.",),
    "cross-attention": ("qformer.layers.0.crossattention.", "qformer.layers.2.crossattention."),
    "query part": ("qformer.layers.1.query_mlp.", "qformer.layers.1.query_layernorm."),
    "text part": ("qformer.layers.1.mlp.", "qformer.layers.1.output_layernorm."),
    "projections": ("vision_projection.", "text_projection.", "logit_scale"),
    "itm head": ("matching_head.",),
    "lm head": ("lm_head.dense.", "lm_head.decoder.bias"),
}
SHARED = {"queries", "words", "self-attention", "cross-attention", "query part", "text part"}
TRAINED = {
    "itc": SHARED | {"projections"},
    "itm": SHARED | {"itm head"},
    "itg": SHARED | {"lm head"},
}


@pytest.mark.parametrize("term", TRAINED)
def test_each_loss_trains_what_it_should(term):
    model = model_of().train()
    model(**pairs(), negative_seed=SEED).losses[term].backward()
    named = dict(model.named_parameters())

    def is_trained(starts):
        gradients = [p.grad for name, p in named.items() if name.startswith(starts)]
        return any(gradient is not None and gradient.abs().max() > 1e-7 for gradient in gradients)

    assert {group for group, starts in GROUPS.items() if is_trained(starts)} == TRAINED[term]


def test_every_weight_but_the_image_encoder_gets_a_gradient():
    model = model_of().train()
    model(**pairs(), negative_seed=SEED).loss.backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {name for name, _ in model.named_parameters() if name.startswith("vision_model.")}


def test_image_encoder_stays_frozen_and_in_evaluation_mode(tmp_path):
    model = model_of()
    model.save_pretrained(tmp_path)
    for one in (model, CBViLAForQFormerPreTraining.from_pretrained(tmp_path)):
        one.train()
        assert one.qformer.training and not one.vision_model.training
        assert not any(p.requires_grad for p in one.vision_model.parameters())
        assert all(p.requires_grad for name, p in one.named_parameters() if not name.startswith("vision_model."))


# Several processes

CUTS = {"even": 3, "uneven": 4, "one": 5}


def six_pairs(cast=torch.float64):
    batch = pairs(6, padding=(0, 2, 1, 3, 4, 3))
    batch["pixel_values"] = batch["pixel_values"].to(cast)
    batch["image_ids"] = torch.tensor([1, 2, 3, 4, 5, 1])
    batch["text_ids"] = torch.arange(11, 17)
    return batch


def part_of(batch, rows):
    """Some rows of a batch, without what is padding in all of them."""
    part = {name: value[rows] for name, value in batch.items()}
    longest = int(part["attention_mask"].sum(1).max())
    return part | {name: value[:, :longest] for name, value in batch_texts(part).items()}


def step(rows):
    """Losses and gradients of one step on some rows, in fp64: differences are errors, not rounding."""
    model = model_of().double().train()
    output = model(**part_of(six_pairs(), rows), negative_seed=SEED)
    output.loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"total": output.loss.detach(), **output.losses}, gradients


def distributed_steps(rank):
    found = {}
    for name, cut in CUTS.items():
        losses, gradients = step(slice(0, cut) if rank == 0 else slice(cut, 6))
        for value in (*losses.values(), *gradients.values()):
            dist.all_reduce(value.detach())
        found[name] = [{key: value.detach() / 2 for key, value in part.items()} for part in (losses, gradients)]
    return found


def test_two_processes_equal_one(tmp_path):
    losses, gradients = step(slice(0, 6))
    for found in run_in_two(distributed_steps, tmp_path):
        for name in CUTS:
            for value, expected in zip(found[name], (losses, gradients), strict=True):
                assert value.keys() == expected.keys()
                for key in expected:
                    whole = expected[key].detach()
                    torch.testing.assert_close(value[key], whole, atol=1e-7, rtol=1e-5, msg=f"{name} {key}")


# Loading


def test_checkpoint_loads_again_and_its_qformer_alone(tmp_path):
    model = model_of()
    model.save_pretrained(tmp_path)
    loaded, info = CBViLAForQFormerPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert_equal_weights(loaded, model)
    assert loaded.lm_head.decoder.weight is loaded.qformer.embeddings.word_embeddings.weight
    alone, info = CBViLAQFormerModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert_equal_weights(alone, model.qformer)


def test_head_starts_from_a_qformer_alone(tmp_path):
    qformer = build_qformer(seed=3)
    qformer.save_pretrained(tmp_path)
    loaded, info = CBViLAForQFormerPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(name.startswith("qformer.") for name in info["missing_keys"])
    assert_equal_weights(loaded.qformer, qformer)


def test_image_encoder_of_a_pretraining_checkpoint_is_taken(tmp_path):
    source = tiny.pretraining_model(seed=2)
    source.save_pretrained(tmp_path)
    config = tiny_qformer_config()
    loaded, info = CBViLAForQFormerPreTraining.from_pretrained(tmp_path, config=config, output_loading_info=True)
    assert_equal_weights(loaded.vision_model, source.cbvila.vision_model)
    assert not info["unexpected_keys"]
    assert not any(name.startswith("vision_model.") for name in info["missing_keys"])
    for layer in loaded.qformer.layers:  # random, and the same for queries and text
        assert_equal_weights(layer.query_mlp, layer.mlp)
    words = loaded.qformer.embeddings.word_embeddings.weight
    assert torch.equal(words[DEC], words[tiny.CLS])


def test_pretraining_checkpoint_needs_a_configuration(tmp_path):
    tiny.pretraining_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a CBViLAQFormerConfig is that of a 'cbvila_qformer'"):
        CBViLAForQFormerPreTraining.from_pretrained(tmp_path)


def test_other_heads_refuse_a_qformer(tmp_path):
    model_of().save_pretrained(tmp_path)
    for head in (CBViLAModel, CBViLAForPreTraining):
        with pytest.raises(ValueError, match="This is the configuration of a 'cbvila_qformer'"):
            head.from_pretrained(tmp_path)


# Wrong inputs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixel_values": None}, "pixel_values is missing"),
        ({"input_ids": None}, "input_ids is missing"),
        ({"pixel_values": tiny.tiny_images(3)}, r"Got 3 image\(s\) and 4 text\(s\)"),
        ({"attention_mask": torch.tensor([[1] * 7, [0] + [1] * 6, [1] * 7, [1] * 7])}, "Text 1 has padding"),
    ],
)
def test_head_says_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        model_of()(**(pairs() | changes))


def test_configuration_of_the_head_is_its_own(tmp_path):
    model_of().save_pretrained(tmp_path)
    config = CBViLAQFormerConfig.from_pretrained(tmp_path)
    assert config.architectures == ["CBViLAForQFormerPreTraining"] and config.num_query_tokens == QUERIES
