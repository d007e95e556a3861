import pytest
import torch
from tiny import CLS, MASK, PAD, PATCH, PATCHES, SEP, UNK, half_image, pretraining_model, tiny_processor, tiny_rows

from transformers_cbvila.data.collators import CBViLADataCollatorForPreTraining, CBViLADataCollatorForQuestionAnswering
from transformers_cbvila.data.pairs import ImageTextPairs, stable_id
from transformers_cbvila.training.pretraining_job import PretrainingJob


def collator(**options):
    return CBViLADataCollatorForPreTraining(tiny_processor(), PATCH, **({"max_length": 16} | options))


def examples(count=4, epoch=0, **options):
    pairs = ImageTextPairs(tiny_rows(), **options)
    pairs.set_epoch(epoch)
    return [pairs[row] for row in range(count)]


def test_pretraining_collator_returns_model_inputs():
    batch = collator()(examples())
    assert set(batch) == {
        "pixel_values", "input_ids", "attention_mask", "input_ids_masked", "mlm_labels", "bool_masked_pos",
        "image_ids", "text_ids", "known_text_ids",
    }  # fmt: skip
    assert batch["pixel_values"].shape == (4, 3, 32, 32) and batch["bool_masked_pos"].shape == (4, PATCHES)
    assert set(pretraining_model()(**batch).losses) == {"pixel", "commitment", "mim", "itm", "mlm", "itc"}


def test_pretraining_collator_gives_negative_captions():
    rows = [{**row, "negative_captions": ["red" if number else ""]} for number, row in enumerate(tiny_rows()[:3])]
    rows = [{**row, "captions": row["captions"][:1], "keywords": []} for row in rows]
    pairs = ImageTextPairs(rows)
    batch = collator()([pairs[row] for row in range(3)])
    ids, mask = batch["negative_input_ids"], batch["negative_attention_mask"]
    assert mask.sum(1).tolist()[0] == 0 and mask.sum(1).tolist()[1:] == [3, 3]
    assert ids[1, 0] == CLS and ids[1, 2] == SEP
    without = collator()([{k: v for k, v in pairs[row].items() if k != "negative_text"} for row in range(3)])
    assert not any(name.startswith("negative") for name in without)
    assert all(torch.equal(batch[name], value) for name, value in without.items())


def test_pretraining_collator_masks_no_special_tokens():
    batch = collator(mlm_probability=1.0, mlm_replace=1.0)(examples())
    special = torch.isin(batch["input_ids"], torch.tensor([PAD, UNK, CLS, SEP]))
    assert special.any() and (batch["mlm_labels"][special] == -100).all()
    assert torch.equal(batch["input_ids_masked"][special], batch["input_ids"][special])
    assert (batch["input_ids_masked"][~special] == MASK).all()
    assert torch.equal(batch["mlm_labels"][~special], batch["input_ids"][~special])


def test_pretraining_collator_masks_every_text_and_image():
    batch = collator()(examples(8))
    assert ((batch["mlm_labels"] != -100).sum(1) >= 1).all()
    assert (batch["bool_masked_pos"].sum(1) == 12).all()
    assert (collator(mim_mask_ratio=0.5)(examples())["bool_masked_pos"].sum(1) == 8).all()


def captioned(*texts):
    return [{"image": half_image("red", "left"), "text": text} for text in texts]


def test_pretraining_collator_masks_given_words_alone_where_a_caption_has_any():
    processor = tiny_processor()
    red, left = processor.tokenizer.convert_tokens_to_ids(["red", "left"])
    collate = collator(mlm_words=["red", "left"], mlm_probability=0.0, mlm_replace=1.0)
    batch = collate(captioned("red left", "blue red blue blue", "blue blue", "blue left blue"))
    chosen = batch["mlm_labels"]
    assert (chosen != -100).sum(1).tolist() == [1, 1, 1, 1]  # one at least, and with probability 0 no more
    assert chosen[0].max() in (red, left) and chosen[1].max() == red and chosen[3].max() == left
    assert chosen[2].max() == processor.tokenizer.convert_tokens_to_ids("blue")
    all_of_them = collator(mlm_words=["red", "left"], mlm_probability=1.0)(captioned("red blue left"))["mlm_labels"]
    assert all_of_them[all_of_them != -100].tolist() == [red, left]


def test_pretraining_collator_masks_given_words_in_a_share_of_captions():
    texts = captioned(*["blue red blue blue"] * 300)
    chosen = collator(mlm_words=["red"], mlm_words_share=0.5, mlm_probability=0.0)(texts)["mlm_labels"].amax(1)
    red = tiny_processor().tokenizer.convert_tokens_to_ids("red")
    assert 0.5 < (chosen == red).float().mean() < 0.75  # half by the option, a quarter of the rest by chance


@pytest.mark.parametrize("make", [collator, lambda **options: PretrainingJob(["a"], **options)])
def test_masks_reject_options_that_others_leave_without_effect(make):
    with pytest.raises(ValueError, match="mlm_words_share=0.5 is for mlm_words, which is not given. Set both"):
        make(mlm_words_share=0.5)
    with pytest.raises(
        ValueError, match="mim_mask_ratio=0.5 is for mim_mask_schedule='fixed': 'cosine' draws a share"
    ):
        make(mim_mask_ratio=0.5, mim_mask_schedule="cosine")


def test_pretraining_collator_draws_shares_of_hidden_patches_by_cosine():
    texts = captioned(*[f"red blue {'left ' * number}" for number in range(12)] * 25)
    counts = collator(mim_mask_schedule="cosine")(texts)["bool_masked_pos"].sum(1)
    assert counts.min() >= 1 and counts.max() == PATCHES and len(counts.unique()) > PATCHES // 2
    with pytest.raises(ValueError, match="mim_mask_schedule='cosin' is none of fixed, cosine; did you mean cosine"):
        collator(mim_mask_schedule="cosin")


def test_pretraining_collator_names_unknown_words():
    with pytest.raises(ValueError, match="mlm_words: the tokenizer does not know 'zebra', so that no caption has it"):
        collator(mlm_words=["red", "zebra"])


def test_pretraining_collator_masks_by_seed_epoch_and_row():
    first, again = collator()(examples(keyword_probability=0.0)), collator()(examples(keyword_probability=0.0)[::-1])
    for name in ("bool_masked_pos", "mlm_labels"):
        assert torch.equal(first[name], again[name].flip(0)), name
    for changed in ({"epoch": 1}, {"seed": 1}):
        other = collator()(examples(**changed))
        assert not torch.equal(other["bool_masked_pos"], first["bool_masked_pos"])


def test_pretraining_collator_without_generator_masks_differently():
    """The same place in two batches: masks must differ, or some patches would never be predicted."""
    rows = [{"image": row["image"], "text": row["captions"][0]} for row in tiny_rows()]
    first, second, again = collator()(rows[:4]), collator()(rows[4:]), collator()(rows[:4])
    assert torch.equal(first["bool_masked_pos"], again["bool_masked_pos"])
    assert not torch.equal(first["bool_masked_pos"], second["bool_masked_pos"])
    assert not torch.equal(first["bool_masked_pos"], collator(seed=1)(rows[:4])["bool_masked_pos"])
    assert "image_ids" not in first and "known_text_ids" not in first


def test_pretraining_collator_text_dropout_is_drawn_by_row():
    """Drawn last: the masks are those of a collator that drops nothing."""
    rows = [row for epoch in range(40) for row in examples(8, epoch)]
    again = [row for epoch in range(40) for row in examples(8, epoch)]
    batch, without = collator(text_drop_prob=0.25)(rows), collator()(again)
    dropped = batch.pop("caption_dropped")
    assert dropped.dtype == torch.bool and 0.15 < dropped.float().mean() < 0.35
    assert batch.keys() == without.keys()
    assert all(torch.equal(batch[name], without[name]) for name in batch)
    backwards = collator(text_drop_prob=0.25)([row for epoch in range(40) for row in examples(8, epoch)][::-1])
    assert torch.equal(backwards["caption_dropped"].flip(0), dropped)
    assert set(pretraining_model()(**collator(text_drop_prob=1.0)(examples())).losses) >= {"pixel", "mim"}


@pytest.mark.parametrize("name", ["mlm_probability", "mlm_replace", "mim_mask_ratio", "text_drop_prob"])
@pytest.mark.parametrize("share", [-0.1, 15])
def test_pretraining_collator_rejects_shares_out_of_range(name, share):
    with pytest.raises(ValueError, match=f"{name}={share}.*0 to 1"):
        collator(**{name: share})


def test_pretraining_collator_pads_known_text_ids():
    rows = tiny_rows(2)
    rows[0]["captions"] = ["red", "blue", "green"]
    pairs = ImageTextPairs(rows)
    known = collator()([pairs[0], pairs[1]])["known_text_ids"]
    assert known[0].tolist() == [stable_id(text) for text in ("red", "blue", "green")]
    assert known[1].tolist() == [stable_id(rows[1]["captions"][0]), -1, -1]


def test_pretraining_collator_truncates_captions():
    rows = [{"image": half_image("red", "top"), "captions": ["red " * 50]}]
    batch = collator(max_length=9)([ImageTextPairs(rows)[0]])
    assert batch["input_ids"].shape == (1, 9) and batch["input_ids"][0, -1] == SEP


# Questions


def asked(*questions, answer="yes", colour="red"):
    several = len(questions) > 1
    return {
        "image": half_image(colour, "top"),
        "question": list(questions) if several else questions[0],
        "answer": [answer] * len(questions) if several else answer,
    }


@pytest.fixture
def questions():
    return CBViLADataCollatorForQuestionAnswering(tiny_processor(), max_length=16)


def test_question_collator_has_an_image_once_for_its_questions(questions):
    batch = questions([asked("is it red ?", "is it blue ?"), asked("is it green ?", answer="no", colour="blue")])
    assert batch["pixel_values"].shape == (2, 3, 32, 32)
    assert batch["image_index"].tolist() == [0, 0, 1]
    assert batch["input_ids"].shape[0] == batch["labels"].shape[0] == 3
    assert not torch.equal(batch["pixel_values"][0], batch["pixel_values"][1])


def test_question_collator_equals_ungrouped_questions(questions):
    texts = ["is it red ?", "is it a half ?"]
    grouped, single = questions([asked(*texts)]), questions([asked(text) for text in texts])
    for name in ("input_ids", "attention_mask", "labels"):
        assert torch.equal(grouped[name], single[name])
    images = (batch["pixel_values"][batch["image_index"]] for batch in (grouped, single))
    assert torch.equal(*images)


def test_question_collator_takes_optional_answers_and_weights(questions):
    example = {name: value for name, value in asked("is it red ?").items() if name != "answer"}
    assert set(questions([example])) == {"pixel_values", "input_ids", "attention_mask", "image_index"}
    weighted = questions([asked("is it red ?", "is it blue ?") | {"answer_weight": [0.25, 0.75]}])
    assert weighted["answer_weights"].tolist() == [0.25, 0.75]


def test_question_collator_rejects_other_number_of_answers(questions):
    with pytest.raises(ValueError, match=r"2 question\(s\) but 1 answer\(s\)"):
        questions([asked("is it red ?", "is it blue ?") | {"answer": ["yes"]}])


def test_question_collator_truncates_questions():
    long = asked("is " * 30)
    cut = CBViLADataCollatorForQuestionAnswering(tiny_processor(), max_length=8)
    assert cut([long])["input_ids"].shape == (1, 8)
    for longest in (None, 100):
        cut = CBViLADataCollatorForQuestionAnswering(tiny_processor(), max_length=longest)
        assert cut([long])["input_ids"].shape == (1, 16)
    free = tiny_processor()
    free.tokenizer.model_max_length = 10**30  # as of tokenizers without a limit
    assert CBViLADataCollatorForQuestionAnswering(free, None)([long])["input_ids"].shape == (1, 32)


def test_pretraining_collator_names_what_draws_texts_from_captions():
    collate = CBViLADataCollatorForPreTraining(tiny_processor(), 8)
    with pytest.raises(ValueError, match=r"has no text, only .*ImageTextPairs\(rows\) draws such examples"):
        collate([{"image": half_image("red", "top"), "captions": ["it is red"]}])
    with pytest.raises(ValueError, match=r"has no text, .*give each row image and text\.$"):
        collate([{"image": half_image("red", "top"), "title": "it is red"}])


def test_pretraining_collator_rejects_max_length_without_room():
    with pytest.raises(ValueError, match="max_length=2 leaves no room for a word"):
        collator(max_length=2)
