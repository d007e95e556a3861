"""Losses with a momentum encoder and queue: by hand, against slow loops, at their limits, and their gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny import VOCABULARY, pretraining_model, tiny_pairs

from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.model.losses_cbvila import distilled_loss, known_match_loss
from transformers_cbvila.model.momentum_cbvila import MomentumPairs, MomentumTargets, momentum_itc_loss
from transformers_cbvila.model.pair_ids_cbvila import PairIds, gather_pair_ids
from transformers_cbvila.model.pair_similarity_cbvila import pair_similarity

ONE, OTHER = [1.0, 0.0], [0.0, 1.0]


def log_three(images, texts):
    """Logits ln 3 where unit vectors are equal and 0 where they are at right angles: shares of 3 to 1."""
    return math.log(3) * images @ texts.T


def pairs_of(images, texts, image_ids, text_ids=None, known=None):
    text_ids = [100 + i for i in range(len(texts))] if text_ids is None else text_ids
    known = torch.empty(len(texts), 0, dtype=torch.long) if known is None else torch.tensor(known)
    return MomentumPairs(
        torch.tensor(images), torch.tensor(texts), torch.tensor(image_ids), torch.tensor(text_ids), known
    )


def random_pairs(count, seed=0, ids=50, captions=2):
    """Unit embeddings, and ids of which some are equal."""
    generator = generator_for(seed)
    embeds = F.normalize(torch.randn(2, count, 8, generator=generator, dtype=torch.float64), dim=-1)
    image_ids, text_ids = torch.randint(ids, (2, count), generator=generator)
    known = torch.randint(-1, ids, (count, captions), generator=generator)
    return MomentumPairs(*embeds, image_ids, text_ids, known)


# By hand: two pairs at hand and one in the queue. What a queue adds to each row is its third column.


def test_momentum_itc_loss_with_queue_by_hand():
    """Rows of images have shares 3 1 3 and 1 3 1 (of 7 and 5), rows of texts 3 1 1 and 1 3 3."""
    keys = pairs_of([ONE, OTHER, OTHER], [ONE, OTHER, ONE], [1, 2, 3])
    own = torch.tensor([ONE, OTHER])
    images = (math.log(7 / 3) + math.log(5 / 3)) / 2
    texts = (math.log(5 / 3) + math.log(7 / 3)) / 2
    loss = momentum_itc_loss(log_three, own, own, MomentumTargets(0.0, keys))
    assert loss.item() == pytest.approx((images + texts) / 2)


def test_momentum_itc_loss_known_matches_in_queue_by_hand():
    """The queue's pair is of the first image: half of its row's targets, but the encoder puts it with the second."""
    keys = pairs_of([ONE, OTHER, OTHER], [ONE, OTHER, OTHER], [1, 2, 1])
    own = torch.tensor([ONE, OTHER])
    first = (math.log(5 / 3) + math.log(5)) / 2  # shares 3/5 1/5 1/5, targets 1/2 0 1/2
    second = math.log(7 / 3)  # shares 1/7 3/7 3/7, targets 0 1 0
    loss = momentum_itc_loss(log_three, own, own, MomentumTargets(0.0, keys))
    assert loss.item() == pytest.approx((first + second) / 2)


def test_momentum_itc_loss_soft_targets_by_hand():
    """The encoder takes both images for the other one: it would give 3/5 to a pair that does not match."""
    keys = pairs_of([OTHER, ONE, ONE], [ONE, OTHER, OTHER], [1, 2, 3])
    own = torch.tensor([ONE, OTHER])
    # images: student 3/5 1/5 1/5 and 1/7 3/7 3/7; teacher 1/7 3/7 3/7 and 3/5 1/5 1/5; known columns 0 and 1
    known = (math.log(5 / 3) + math.log(7 / 3)) / 2
    first = math.log(5 / 3) / 7 + math.log(5) * 6 / 7
    second = math.log(7) * 3 / 5 + math.log(7 / 3) * 2 / 5
    images = 0.6 * known + 0.4 * (first + second) / 2
    # texts: student 1 3 3 (of 7) and 3 1 1 (of 5), the teacher's are the same; known columns 0 and 1
    known = (math.log(7) + math.log(5)) / 2
    first = math.log(7) / 7 + math.log(7 / 3) * 6 / 7
    second = math.log(5 / 3) * 3 / 5 + math.log(5) * 2 / 5
    texts = 0.6 * known + 0.4 * (first + second) / 2
    loss = momentum_itc_loss(log_three, own, own, MomentumTargets(0.4, keys))
    assert loss.item() == pytest.approx((images + texts) / 2)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
@pytest.mark.parametrize("queue", [0, 5])
def test_momentum_itc_loss_of_identical_embeddings_is_log_of_their_number(alpha, queue):
    keys = pairs_of([ONE] * (2 + queue), [ONE] * (2 + queue), list(range(2 + queue)))
    own = torch.tensor([ONE, ONE])
    loss = momentum_itc_loss(log_three, own, own, MomentumTargets(alpha, keys))
    assert loss.item() == pytest.approx(math.log(2 + queue))


# Slow loops, and limits


def is_known(keys, image, text):
    same = keys.image_ids[image] == keys.image_ids[text] or keys.text_ids[image] == keys.text_ids[text]
    return bool(same) or int(keys.text_ids[text]) in keys.known_text_ids[image].tolist()


def slow_direction(rows, columns, teacher_rows, known, alpha):
    """Mean over rows of the cross-entropy with ALBEF's targets, one product at a time."""
    total = 0.0
    for i, row in enumerate(rows):
        shares = [math.exp(4 * float(row @ column)) for column in columns]
        teacher = [math.exp(4 * float(teacher_rows[i] @ column)) for column in columns]
        matching = sum(known(i, j) for j in range(len(columns)))
        for j in range(len(columns)):
            target = alpha * teacher[j] / sum(teacher) + (1 - alpha) * known(i, j) / matching
            total -= target * math.log(shares[j] / sum(shares))
    return total / len(rows)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
@pytest.mark.parametrize("first", [0, 2])
def test_momentum_itc_loss_equals_slow_loop(alpha, first):
    """Also where the pairs at hand are not the first, on a process among others."""
    keys, own = random_pairs(12, ids=12), random_pairs(3, seed=1)
    found = [is_known(keys, i, j) for i in range(12) for j in range(12) if i != j]
    assert any(found) and not all(found)
    momentum = MomentumTargets(alpha, keys)
    fast = momentum_itc_loss(lambda i, t: 4 * i @ t.T, own.image_embeds, own.text_embeds, momentum, first)
    local = slice(first, first + 3)
    images = slow_direction(
        own.image_embeds,
        keys.text_embeds,
        keys.image_embeds[local],
        lambda i, j: is_known(keys, first + i, j),
        alpha,
    )
    texts = slow_direction(
        own.text_embeds, keys.image_embeds, keys.text_embeds[local], lambda i, j: is_known(keys, j, first + i), alpha
    )
    assert fast.item() == pytest.approx((images + texts) / 2, rel=1e-10)


def test_momentum_itc_loss_without_queue_and_alpha_is_itc_loss():
    """... with an encoder equal to the model, if nothing else is known to match."""
    keys = random_pairs(5)._replace(image_ids=torch.arange(5), text_ids=torch.arange(5))
    keys = keys._replace(known_text_ids=torch.full((5, 2), -1))
    embeds = keys.image_embeds, keys.text_embeds
    plain = pair_similarity(PairIds(keys.image_ids, keys.text_ids), log_three, *embeds).itc_loss()
    momentum = momentum_itc_loss(log_three, *embeds, MomentumTargets(0.0, keys))
    torch.testing.assert_close(momentum, plain, rtol=1e-12, atol=0)
    nearly = momentum_itc_loss(log_three, *embeds, MomentumTargets(1e-9, keys))
    torch.testing.assert_close(nearly, plain, rtol=1e-8, atol=0)


def test_momentum_itc_loss_gives_teacher_and_queue_no_gradient():
    keys = random_pairs(6)
    keys = keys._replace(
        image_embeds=keys.image_embeds.requires_grad_(), text_embeds=keys.text_embeds.requires_grad_()
    )
    images, texts = (rows[:2].clone().requires_grad_() for rows in random_pairs(6, seed=1)[:2])
    momentum_itc_loss(log_three, images, texts, MomentumTargets(0.4, keys)).backward()
    assert keys.image_embeds.grad is None and keys.text_embeds.grad is None
    assert images.grad.abs().max() > 1e-3 and texts.grad.abs().max() > 1e-3


def test_distilled_loss_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])  # shares 1/4 3/4 and 1/2 1/2
    teacher = torch.tensor([[math.log(4), 0.0], [0.0, 0.0]], requires_grad=True)  # shares 4/5 1/5 and 1/2 1/2
    soft = (0.8 * math.log(4) + 0.2 * math.log(4 / 3) + math.log(2)) / 2
    loss = distilled_loss(torch.tensor(2.0), logits.requires_grad_(), teacher, 0.25)
    assert loss.item() == pytest.approx(0.75 * 2 + 0.25 * soft)
    loss.backward()
    assert teacher.grad is None
    # the gradient of a cross-entropy: alpha / rows · (softmax - target)
    torch.testing.assert_close(logits.grad, 0.125 * torch.tensor([[0.25 - 0.8, 0.75 - 0.2], [0.0, 0.0]]))
    assert distilled_loss(torch.tensor(2.0), logits, None, 0.25).item() == 2


def test_distilled_loss_of_nothing_is_zero_with_zero_gradient():
    logits = torch.randn(2, 3, requires_grad=True)
    value = distilled_loss(logits.sum() * 0, logits[:0], torch.zeros(0, 3), 0.4)
    value = value + known_match_loss(logits[:0], torch.ones(0, 3, dtype=torch.bool))
    assert value.item() == 0
    value.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


# Pairs


def test_momentum_pairs_followed_by_pads_known_text_ids():
    one, other = random_pairs(2, captions=3), random_pairs(3, seed=1, captions=1)
    both = one.followed_by(other)
    assert both.known_text_ids.tolist() == [*one.known_text_ids.tolist(), *[[*r, -1, -1] for r in other[4].tolist()]]
    for name in ("image_embeds", "text_embeds", "image_ids", "text_ids"):
        assert torch.equal(getattr(both, name), torch.cat([getattr(one, name), getattr(other, name)]))
    assert torch.equal(other.followed_by(one).known_text_ids[3:], one.known_text_ids)


# In the model


def batch_and_momentum(model, alpha=0.4, queue=3):
    """A batch, and targets of some other model."""
    batch = tiny_pairs() | {"image_ids": torch.arange(4), "text_ids": torch.arange(10, 14)}
    embeds = F.normalize(torch.randn(2, 4 + queue, 16, generator=generator_for(5)), dim=-1)
    known = torch.empty(4 + queue, 0, dtype=torch.long)
    pairs = MomentumPairs(*embeds, torch.arange(4 + queue), torch.arange(10, 14 + queue), known)
    masked = int((batch["mlm_labels"] != -100).sum())
    return batch, MomentumTargets(alpha, pairs, torch.randn(masked, VOCABULARY, generator=generator_for(6)))


def test_momentum_changes_itc_and_mlm_only():
    model = pretraining_model()
    batch, momentum = batch_and_momentum(model)
    plain, distilled = model(**batch), model(**batch, momentum=momentum)
    assert plain.losses.keys() == distilled.losses.keys()
    for name, value in distilled.losses.items():
        assert torch.equal(value, plain.losses[name]) == (name not in ("itc", "mlm")), name
    assert torch.equal(plain.itm_logits, distilled.itm_logits), "negatives are those of the batch"
    scale = model.cbvila.logit_scale.exp().clamp(2, 100)
    by_hand = momentum_itc_loss(lambda i, t: scale * i @ t.T, distilled.image_embeds, distilled.text_embeds, momentum)
    torch.testing.assert_close(distilled.losses["itc"], by_hand)
    soft = -(momentum.mlm_logits.softmax(-1) * distilled.mlm_logits.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(distilled.losses["mlm"], 0.6 * plain.losses["mlm"] + 0.4 * soft)


@pytest.mark.parametrize("given", ["image_ids", "nothing"])
def test_momentum_ids_change_no_output(given):
    model = pretraining_model()
    batch, momentum = batch_and_momentum(model)
    if given == "nothing":
        batch = {name: value for name, value in batch.items() if name not in ("image_ids", "text_ids")}
    contents = batch["pixel_values"], batch["input_ids"], batch["attention_mask"]
    ids = gather_pair_ids(True, *contents, batch.get("image_ids"), batch.get("text_ids"))
    outputs = [model(**batch, momentum=momentum._replace(ids=known)) for known in (None, ids)]
    assert all(torch.equal(value, outputs[1].losses[name]) for name, value in outputs[0].losses.items())
    assert torch.equal(outputs[0].itm_logits, outputs[1].itm_logits)


@pytest.mark.parametrize("momentum", [None, MomentumTargets(0.4)])
def test_momentum_without_targets_changes_nothing(momentum):
    model, batch = pretraining_model(), tiny_pairs()
    plain, distilled = model(**batch), model(**batch, momentum=momentum)
    assert all(torch.equal(value, plain.losses[name]) for name, value in distilled.losses.items())


def test_momentum_itc_loss_reaches_the_weights_of_itc_loss():
    model = pretraining_model().train()
    batch, momentum = batch_and_momentum(model)
    off = dict.fromkeys(("pixel", "codebook", "commitment", "mim", "itm", "mlm"), 0.0)
    reached = []
    for options in ({}, {"momentum": momentum}):
        model.zero_grad()
        model(**batch, **options, loss_weights=off).loss.backward()
        reached.append({n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-9})
    assert reached[0] == reached[1]
    assert {"cbvila.logit_scale", "cbvila.vision_projection.weight", "cbvila.text_projection.weight"} <= reached[1]
    assert not any("fusion" in name for name in reached[1])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda m: m._replace(pairs=MomentumPairs(*(r[:3] for r in m.pairs))), r"momentum has 3 pair\(s\).*batch, 4"),
        (
            lambda m: m._replace(ids=PairIds(*m.pairs[2:4])),
            r"momentum has the ids of 7 pair\(s\), and the batch has 4",
        ),
        (lambda m: m._replace(mlm_logits=m.mlm_logits[:2]), r"shape \(2, 60\); they must be \(4, 60\)"),
    ],
)
def test_momentum_inputs_of_other_shapes_are_rejected(change, message):
    model = pretraining_model()
    batch, momentum = batch_and_momentum(model)
    with pytest.raises(ValueError, match=message):
        model(**batch, momentum=change(momentum))


def test_momentum_pairs_need_itc():
    batch, momentum = batch_and_momentum(None)
    with pytest.raises(ValueError, match="ITC"):
        pretraining_model(preset="paper")(**batch, momentum=momentum)
