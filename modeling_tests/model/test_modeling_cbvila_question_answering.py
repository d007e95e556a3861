import pytest
import torch
from tiny import (
    CLS,
    PAD,
    SEP,
    answering_model,
    pretraining_model,
    tiny_answers,
    tiny_images,
    tiny_processor,
    tiny_texts,
)
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, default_data_collator
from transformers.cache_utils import DynamicCache

from transformers_cbvila.model.answer_lists_cbvila import CBViLAAnswerTrie
from transformers_cbvila.model.modeling_cbvila import CBViLAModel
from transformers_cbvila.model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering

CANDIDATES = torch.tensor([[5, SEP, -100], [6, 7, SEP], [8, SEP, -100], [9, 10, SEP], [11, 12, SEP]])


def inputs(batch=4):
    return {"pixel_values": tiny_images(batch), **tiny_texts(batch)}


@pytest.fixture(params=["other width", "same width"])
def model(request):
    return answering_model(same_width=request.param == "same width")


# Training


def test_answering_outputs(model):
    output = model(**inputs(), labels=tiny_answers())
    assert output.loss.dim() == 0 and output.logits.shape == (4, 3, 60)
    assert output.question_hidden_states.shape[:2] == (4, 7)
    assert model(**inputs()).loss is None


def test_answer_decoder_is_causal(model):
    labels = tiny_answers()
    labels[:, 0] = 7
    other = labels.clone()
    other[:, 1] = 9
    logits, changed = (model(**inputs(), labels=x).logits for x in (labels, other))
    torch.testing.assert_close(changed[:, :2], logits[:, :2])
    assert not torch.allclose(changed[:, 2], logits[:, 2])


def test_answering_padding_does_not_change_outputs(model):
    batch, labels = inputs(), tiny_answers()
    expected = model(**batch, labels=labels)
    batch["input_ids"] = torch.nn.functional.pad(batch["input_ids"], (0, 4), value=PAD)
    batch["attention_mask"] = torch.nn.functional.pad(batch["attention_mask"], (0, 4))
    padded = model(**batch, labels=torch.nn.functional.pad(labels, (0, 2), value=-100))
    torch.testing.assert_close(padded.loss, expected.loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(padded.logits[:, :3], expected.logits, atol=1e-5, rtol=1e-5)


def test_answering_sdpa_equals_eager_attention(model):
    model.set_attn_implementation("eager")
    expected = model(**inputs(), labels=tiny_answers())
    model.set_attn_implementation("sdpa")
    output = model(**inputs(), labels=tiny_answers())
    torch.testing.assert_close(output.logits, expected.logits, atol=1e-5, rtol=1e-5)


def test_answering_image_index_equals_repeated_images(model):
    index = torch.tensor([1, 0, 1, 1])
    shared = model(tiny_images(2), **tiny_texts(), labels=tiny_answers(), image_index=index)
    repeated = model(tiny_images(2)[index], **tiny_texts(), labels=tiny_answers())
    torch.testing.assert_close(shared.logits, repeated.logits, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(shared.loss, repeated.loss, atol=1e-6, rtol=1e-6)


def test_answering_loss_is_negative_log_likelihood(model):
    labels, weights = tiny_answers(), torch.tensor([1.0, 0.0, 2.0, 0.5])
    ranking = model.rank_answers(**inputs(), answer_labels=labels)
    per_answer = -ranking.log_likelihoods.diagonal()
    torch.testing.assert_close(model(**inputs(), labels=labels).loss, per_answer.mean(), atol=1e-5, rtol=1e-5)
    weighted = model(**inputs(), labels=labels, answer_weights=weights).loss
    torch.testing.assert_close(weighted, (weights * per_answer).sum() / weights.sum(), atol=1e-5, rtol=1e-5)


def test_answering_loss_reaches_every_weight(model):
    model.train()(**inputs(), labels=tiny_answers()).loss.backward()
    unreached = {name for name, p in model.named_parameters() if p.grad is None}
    assert unreached == set()


def test_answering_model_has_no_unused_modules(model):
    names = " ".join(name for name, _ in model.named_parameters())
    assert "quantizer" not in names and "logit_scale" not in names and "visual_queries" not in names


def test_answers_can_be_learned():
    model, batch, labels = answering_model().train(), inputs(), tiny_answers()
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        loss = model(**batch, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1
    written = model.eval().generate(**batch)
    for row, answer in zip(written.tolist(), labels.tolist(), strict=True):
        tokens = [token for token in answer if token != -100]
        assert row[1 : 1 + len(tokens)] == tokens


def test_answering_gradient_checkpointing_does_not_change_gradients(model):
    losses, gradients = [], []
    for checkpointing in (False, True):
        model.zero_grad()
        if checkpointing:
            model.train().gradient_checkpointing_enable()
        loss = model(**inputs(), labels=tiny_answers()).loss
        loss.backward()
        losses.append(loss)
        gradients.append(torch.cat([p.grad.flatten().clone() for p in model.parameters()]))
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


# Generation


def generate(model, **options):
    """Greedy ids; [SEP] is made unlikely so that rows are long."""
    return model.generate(**inputs(), suppress_tokens=[SEP], max_new_tokens=6, **options)


def test_generate_is_the_same_with_and_without_cache(model):
    cached = generate(model)
    assert cached.shape == (4, 7) and (cached[:, 0] == CLS).all()
    assert torch.equal(generate(model, use_cache=False), cached)


def test_generate_greedy_is_the_stepwise_argmax(model):
    question = model.encode_question(**inputs())
    ids = torch.full((4, 1), CLS)
    for _ in range(6):
        logits = model.answer_decoder(
            ids, encoder_hidden_states=question, encoder_attention_mask=inputs()["attention_mask"], logits_to_keep=1
        ).logits[:, -1]
        logits[:, SEP] = float("-inf")
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(generate(model), ids)


@pytest.mark.parametrize("cache", [None, DynamicCache])
def test_answer_decoder_cache_equals_the_full_pass(model, cache):
    decoder, labels = model.answer_decoder, torch.randint(5, 60, (4, 5))
    question = model.encode_question(**inputs())
    keys = {"encoder_hidden_states": question, "encoder_attention_mask": inputs()["attention_mask"]}
    expected = decoder(labels, **keys).logits
    first = decoder(labels[:, :3], **keys, use_cache=True, past_key_values=cache and cache(config=decoder.config))
    rest = decoder(labels[:, 3:], **keys, use_cache=True, past_key_values=first.past_key_values)
    logits = torch.cat([first.logits, rest.logits], dim=1)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"do_sample": True}, {"num_beams": 2, "do_sample": True}])
def test_generate_with_sampling_and_beams(model, options):
    written = model.generate(**inputs(), max_new_tokens=5, **options)
    assert written.shape[0] == 4 and written.shape[1] <= 6
    several = model.generate(**inputs(), max_new_tokens=3, num_beams=3, num_return_sequences=2)
    assert len(several) == 8


def test_generate_beams_find_likelier_answers(model):
    def score(**options):
        output = generate(model, return_dict_in_generate=True, output_scores=True, length_penalty=0.0, **options)
        labels = output.sequences[:, 1:]
        ranking = model.rank_answers(**inputs(), answer_labels=labels)
        return ranking.log_likelihoods.diagonal().sum()

    assert score(num_beams=8) >= score() - 1e-4


def test_generate_ignores_question_padding(model):
    batch = inputs()
    expected = model.generate(**batch, suppress_tokens=[SEP], max_new_tokens=6)
    for name in ("input_ids", "attention_mask"):
        batch[name] = torch.nn.functional.pad(batch[name], (0, 5))
    assert torch.equal(model.generate(**batch, suppress_tokens=[SEP], max_new_tokens=6), expected)


def test_generate_image_index_equals_repeated_images(model):
    index = torch.tensor([0, 0, 1, 0])
    shared = model.generate(tiny_images(2), **tiny_texts(), image_index=index, max_new_tokens=4)
    assert torch.equal(shared, model.generate(tiny_images(2)[index], **tiny_texts(), max_new_tokens=4))


def test_generate_stops_at_the_position_table(model):
    """16 positions: [CLS] and 15 tokens can be read, so that a 16th can be written and no more."""
    longest = model.generate(**inputs(), suppress_tokens=[SEP])
    assert longest.shape == (4, 1 + 16)
    assert torch.equal(model.generate(**inputs(), suppress_tokens=[SEP], max_new_tokens=17), longest)


# Ranking


def test_rank_answers_equals_naive_loop(model):
    ranking = model.rank_answers(**inputs(), answer_labels=CANDIDATES)
    assert ranking.log_likelihoods.shape == (4, 5)
    batch = inputs()
    for row in range(4):
        length = batch["attention_mask"][row].sum()
        image, question = batch["pixel_values"][row : row + 1], batch["input_ids"][row : row + 1, :length]
        for column, answer in enumerate(CANDIDATES.tolist()):
            answer = torch.tensor([[token for token in answer if token != -100]])
            expected = -model(image, question, labels=answer).loss
            torch.testing.assert_close(ranking.log_likelihoods[row, column], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ranking.scores, ranking.log_likelihoods.softmax(-1))


@pytest.mark.parametrize("chunk", [1, 3, 20])
def test_rank_answers_does_not_depend_on_chunk_size(model, chunk):
    expected = model.rank_answers(**inputs(), answer_labels=CANDIDATES)
    ranking = model.rank_answers(**inputs(), answer_labels=CANDIDATES, chunk_size=chunk)
    torch.testing.assert_close(ranking.log_likelihoods, expected.log_likelihoods, atol=1e-5, rtol=1e-5)


def test_rank_answers_without_mask_of_one_pair(model):
    ranking = model.rank_answers(tiny_images(1), tiny_texts(1)["input_ids"], answer_labels=CANDIDATES[:1])
    assert ranking.scores.tolist() == [[1.0]]


def test_rank_answers_image_index_equals_repeated_images(model):
    index = torch.tensor([0, 1, 1, 0])
    shared = model.rank_answers(tiny_images(2), **tiny_texts(), answer_labels=CANDIDATES, image_index=index)
    repeated = model.rank_answers(tiny_images(2)[index], **tiny_texts(), answer_labels=CANDIDATES)
    torch.testing.assert_close(shared.log_likelihoods, repeated.log_likelihoods, atol=1e-5, rtol=1e-5)


# Bad input


@pytest.mark.parametrize(
    "change, message",
    [
        ({"pixel_values": None}, "pixel_values is missing"),
        ({"input_ids": None}, "input_ids is missing"),
        ({"pixel_values": tiny_images(3)}, r"3 image\(s\) and 4 text\(s\).*image_index"),
        ({"labels": tiny_answers(3)}, r"3 answer\(s\).*4 question\(s\)"),
        (tiny_texts(length=20), "20 tokens.*16 positions"),
    ],
)
def test_answering_rejects_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        answering_model()(**({**inputs(), "labels": tiny_answers()} | change))


@pytest.mark.parametrize(
    "candidates, message",
    [
        (CANDIDATES[:0], "no answer"),
        (CANDIDATES[0], r"is \(\d+,\); expected an integer tensor \(answers, tokens\)"),
        (CANDIDATES.tolist(), "is list; expected an integer tensor"),
        (torch.tensor([[5, SEP], [-100, -100]]), "row 1 has no token"),
        (torch.tensor([[5, SEP], [99, SEP]]), "row 1 is .*the vocabulary has 60 tokens"),
    ],
)
def test_answer_labels_rejects_other_forms(candidates, message):
    model = answering_model()
    for method in (model.rank_answers, model.generate):
        with pytest.raises(ValueError, match=message):
            method(**inputs(), answer_labels=candidates)


def test_rank_answers_rejects_chunk_size_0():
    with pytest.raises(ValueError, match="chunk_size=0 must be positive"):
        answering_model().rank_answers(**inputs(), answer_labels=CANDIDATES, chunk_size=0)


def test_generate_rejects_invalid_answer_labels():
    with pytest.raises(ValueError, match=f"row 1 is .*must be {SEP}"):
        answering_model().generate(**inputs(), answer_labels=torch.tensor([[5, SEP], [5, 6]]))
    with pytest.raises(ValueError, match="answer_labels or prefix_allowed_tokens_fn"):
        answering_model().generate(
            **inputs(), answer_labels=CANDIDATES, prefix_allowed_tokens_fn=CBViLAAnswerTrie(CANDIDATES, SEP)
        )


# A list of answers to choose from


def written(tokens):
    """Generated rows without the start token and what follows the end, as tuples."""
    rows = [row[1:] for row in tokens.tolist()]
    return [tuple(row[: row.index(SEP) + 1] if SEP in row else row) for row in rows]


def listed(candidates):
    return {tuple(token for token in row if token != -100) for row in candidates.tolist()}


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True}, {"use_cache": False}], ids=str)
def test_generate_answer_labels_writes_listed_answers_only(model, options):
    torch.manual_seed(0)
    answers = written(model.generate(**inputs(), answer_labels=CANDIDATES, **options))
    assert set(answers) <= listed(CANDIDATES)


def test_generate_answer_labels_beams_equal_ranking(model):
    """As many beams as answers cannot lose one, and without a length penalty they order them by likelihood."""
    answers = model.generate(
        **inputs(), answer_labels=CANDIDATES, num_beams=len(CANDIDATES), length_penalty=0.0, early_stopping="never"
    )
    best = model.rank_answers(**inputs(), answer_labels=CANDIDATES).scores.argmax(-1)
    expected = [tuple(token for token in CANDIDATES[i].tolist() if token != -100) for i in best]
    assert written(answers) == expected


def test_answer_trie_allows_next_tokens():
    trie = CBViLAAnswerTrie(CANDIDATES, SEP)
    assert sorted(trie(0, torch.tensor([CLS]))) == [5, 6, 8, 9, 11]
    assert trie(0, torch.tensor([CLS, 6])) == [7]
    assert trie(0, torch.tensor([CLS, 6, 7])) == [SEP]
    assert trie(0, torch.tensor([CLS, 5, SEP])) == trie(0, torch.tensor([CLS, 50])) == [SEP]


# Saving and loading


def test_answering_save_and_load(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded, info = CBViLAForQuestionAnswering.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    expected = model(**inputs(), labels=tiny_answers())
    torch.testing.assert_close(loaded(**inputs(), labels=tiny_answers()).logits, expected.logits)
    words = loaded.answer_decoder.embeddings.word_embeddings.weight
    assert loaded.answer_decoder.lm_head.decoder.weight is words
    assert words is not loaded.cbvila.text_model.embeddings.word_embeddings.weight


@pytest.mark.parametrize("same_width", [False, True])
@pytest.mark.parametrize("source", ["pretraining", "base"])
def test_answer_decoder_starts_from_the_fusion_encoder(source, same_width, tmp_path):
    pretrained = pretraining_model(same_width=same_width, seed=1)
    (pretrained if source == "pretraining" else pretrained.cbvila).save_pretrained(tmp_path)
    model, info = CBViLAForQuestionAnswering.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"]
    decoder, fusion = model.answer_decoder, pretrained.cbvila.fusion_model.state_dict()
    skipped = {
        name for name, value in decoder.layers.state_dict().items() if not torch.equal(value, fusion[f"layers.{name}"])
    }
    other_width = {f"{i}.crossattention.{x}_proj.weight" for i in range(2) for x in "kv"}
    assert skipped == (set() if same_width else other_width)
    text = pretrained.cbvila.text_model.embeddings.state_dict()
    for name, value in decoder.embeddings.state_dict().items():
        assert torch.equal(value, text[name]), name
    if source == "pretraining":
        for name, value in decoder.lm_head.state_dict().items():
            assert torch.equal(value, pretrained.objectives["mlm"].head.state_dict()[name]), name
    torch.testing.assert_close(
        model.encode_question(**inputs()), pretrained.cbvila(**inputs()).last_hidden_state, atol=1e-6, rtol=1e-6
    )


def test_answering_from_pretraining_saves_its_own_names(tmp_path):
    pretraining_model(seed=1).save_pretrained(tmp_path / "pretrained")
    model = CBViLAForQuestionAnswering.from_pretrained(tmp_path / "pretrained")
    model.save_pretrained(tmp_path / "saved")
    again, info = CBViLAForQuestionAnswering.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_answer_decoder_lacking_a_weight_is_not_overwritten(tmp_path):
    model = answering_model()
    weights = model.state_dict()
    del weights["answer_decoder.layers.1.mlp.fc1.bias"]
    model.save_pretrained(tmp_path, state_dict=dict(weights))  # which empties it
    loaded = CBViLAForQuestionAnswering.from_pretrained(tmp_path).state_dict()
    for name, value in weights.items():
        assert torch.equal(loaded[name], value), name


def test_base_loads_from_answering_checkpoint(model, tmp_path):
    model.save_pretrained(tmp_path)
    base = CBViLAModel.from_pretrained(tmp_path)
    expected = model.encode_question(**inputs())
    torch.testing.assert_close(base(**inputs()).last_hidden_state, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_answering_from_pretrained_half_precision(model, dtype, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = CBViLAForQuestionAnswering.from_pretrained(tmp_path, dtype=dtype).eval()
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    output, expected = (m(**inputs(), labels=tiny_answers()) for m in (loaded, model))
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, expected.loss, atol=0.1, rtol=0.05)
    assert loaded.generate(**inputs(), max_new_tokens=3).shape[0] == 4


def test_resize_token_embeddings_resizes_encoder_and_decoder(tmp_path):
    model = answering_model()
    model.resize_token_embeddings(70)
    logits = model(**inputs(), labels=torch.full((4, 2), 65)).logits
    assert logits.shape[-1] == 70
    model.save_pretrained(tmp_path)
    loaded = CBViLAForQuestionAnswering.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(**inputs(), labels=torch.full((4, 2), 65)).logits, logits)


# What people do with models that generate


def test_generation_config_is_used_and_saved(model, tmp_path):
    assert model.can_generate() and model.generation_config.bos_token_id == CLS
    expected = model.generate(**inputs(), num_beams=3, max_new_tokens=5)
    model.generation_config.num_beams, model.generation_config.max_new_tokens = 3, 5
    assert torch.equal(model.generate(**inputs()), expected)
    model.save_pretrained(tmp_path)
    loaded = CBViLAForQuestionAnswering.from_pretrained(tmp_path).eval()
    assert loaded.generation_config.num_beams == 3
    assert torch.equal(loaded.generate(**inputs()), expected)


def test_generate_logs_nothing(model, logged):
    model.generation_config.max_length = 9
    short = model.generate(**inputs(), max_new_tokens=2, num_beams=2)
    model.generate(**inputs(), answer_labels=CANDIDATES)
    model.generate(**inputs())
    assert short.shape[1] <= 3 and not logged()
    assert model.generation_config.max_length == 9 and model.generation_config.num_beams in (None, 1)


def test_seq2seq_trainer_predicts_by_generating(model, tmp_path):
    batch = {**inputs(), "labels": tiny_answers()}
    rows = [{name: value[i] for name, value in batch.items()} for i in range(4)]
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path),
        predict_with_generate=True,
        generation_max_length=6,
        remove_unused_columns=False,
        use_cpu=True,
        disable_tqdm=True,
    )
    options = {"data_collator": default_data_collator, "processing_class": tiny_processor().tokenizer}
    output = Seq2SeqTrainer(model, arguments, **options).predict(rows)
    written = model.generate(**inputs(), max_length=6)
    assert (output.predictions[:, : written.shape[1]] == written.numpy()).all()
    assert output.metrics["test_loss"] == pytest.approx(model(**batch).loss.item(), rel=1e-4)


def test_generate_answer_labels_writes_long_answers():
    model = answering_model(text={"max_position_embeddings": 40})
    long = torch.cat([torch.arange(5, 35), torch.tensor([SEP])]).unsqueeze(0)
    assert written(model.generate(**inputs(1), answer_labels=long)) == [tuple(long[0].tolist())]


def test_attn_implementation_by_part(model):
    model.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})
    assert model.answer_decoder.config._attn_implementation == "eager"
    assert model.cbvila.text_model.config._attn_implementation == "eager"
    assert model.cbvila.vision_model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("tied", [True, False])
def test_tie_word_embeddings_is_respected(tied, tmp_path):
    model = answering_model(tie_word_embeddings=tied)
    decoder = model.answer_decoder
    assert (decoder.lm_head.decoder.weight is decoder.embeddings.word_embeddings.weight) == tied
    model.save_pretrained(tmp_path)
    loaded = CBViLAForQuestionAnswering.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded.generate(**inputs()), model.generate(**inputs()))


def test_eos_token_id_may_be_a_list():
    model = answering_model(text={"eos_token_id": [SEP, 5]})
    assert model(**inputs(), labels=tiny_answers()).loss.isfinite()
    assert model.generate(**inputs(), answer_labels=CANDIDATES[1:2]).tolist()[0][1:] == [6, 7, SEP]
