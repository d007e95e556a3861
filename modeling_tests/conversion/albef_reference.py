"""ALBEF's forward passes written out on the tensors of its checkpoints, slowly: one text, one head at a time.

From the description of the layouts; what of it the fixtures cover, `test_albef_reference.py` holds to them.
"""

import torch
import torch.nn.functional as F
from albef_sizes import plain


def linear(weights, name, x):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(weights, name, x, eps):
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def attention(query, key, value, heads):
    """Of (T, D) to (S, D), head by head."""
    size = query.shape[-1] // heads
    mixed = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / size**0.5
        mixed.append(scores.softmax(-1) @ value[:, part])
    return torch.cat(mixed, dim=-1)


def image_states(tensors, image, heads):
    """(1 + N, D) of an image (3, H, W)."""
    root = "visual_encoder."
    weights = {key.removeprefix(root): value for key, value in tensors.items() if key.startswith(root)}
    kernel = weights["patch_embed.proj.weight"]
    patches = F.conv2d(image[None], kernel, weights["patch_embed.proj.bias"], stride=kernel.shape[-1])[0]
    x = torch.cat([weights["cls_token"][0], patches.flatten(1).T]) + weights["pos_embed"][0]
    for block in sorted({int(key.split(".")[1]) for key in weights if key.startswith("blocks.")}):
        b = f"blocks.{block}"
        query, key, value = linear(weights, f"{b}.attn.qkv", norm(weights, f"{b}.norm1", x, 1e-6)).chunk(3, -1)
        x = x + linear(weights, f"{b}.attn.proj", attention(query, key, value, heads))
        hidden = F.gelu(linear(weights, f"{b}.mlp.fc1", norm(weights, f"{b}.norm2", x, 1e-6)))
        x = x + linear(weights, f"{b}.mlp.fc2", hidden)
    return norm(weights, "norm", x, 1e-6)


def text_states(tensors, ids, images, heads):
    """(L, D) of a text (L,) without padding; fusion layers ask the images (1 + N, Dv) in turns."""
    weights = {plain(key): value for key, value in tensors.items() if key.startswith("text_encoder.")}
    e = "embeddings"
    x = weights[f"{e}.word_embeddings.weight"][ids] + weights[f"{e}.position_embeddings.weight"][: len(ids)]
    x = norm(weights, f"{e}.LayerNorm", x + weights[f"{e}.token_type_embeddings.weight"][0], 1e-12)
    asked = 0
    for layer in sorted({int(key.split(".")[2]) for key in weights if key.startswith("encoder.layer.")}):
        a = f"encoder.layer.{layer}"
        x = _ask(weights, f"{a}.attention", x, x, heads)
        if f"{a}.crossattention.self.query.weight" in weights:
            x = _ask(weights, f"{a}.crossattention", x, images[asked % len(images)], heads)
            asked += 1
        hidden = F.gelu(linear(weights, f"{a}.intermediate.dense", x))
        x = norm(weights, f"{a}.output.LayerNorm", linear(weights, f"{a}.output.dense", hidden) + x, 1e-12)
    return x


def _ask(weights, name, x, other, heads):
    query, key, value = (
        linear(weights, f"{name}.self.{part}", source)
        for part, source in (("query", x), ("key", other), ("value", other))
    )
    mixed = linear(weights, f"{name}.output.dense", attention(query, key, value, heads))
    return norm(weights, f"{name}.output.LayerNorm", mixed + x, 1e-12)


def class_logits(tensors, joint):
    """Of a joint representation (D,)."""
    return linear(tensors, "cls_head.2", F.relu(linear(tensors, "cls_head.0", joint)))


def fine_tuned(task, *, text=32, vision=48, layers=2, fusion=2, vocabulary=120, seed=0):
    """Random tensors in the layout of ALBEF's `ve` or `nlvr` checkpoints, images of 32 px in patches of 16."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return 0.2 * torch.randn(*shape, generator=generator)

    def dense(name, out, into):
        return {f"{name}.weight": random(out, into), f"{name}.bias": random(out)}

    def layer_norm(name, size):
        return {f"{name}.weight": 1 + random(size), f"{name}.bias": random(size)}

    found = {"visual_encoder.cls_token": random(1, 1, vision), "visual_encoder.pos_embed": random(1, 5, vision)}
    found["visual_encoder.patch_embed.proj.weight"] = 0.1 * random(vision, 3, 16, 16)
    found["visual_encoder.patch_embed.proj.bias"] = random(vision)
    for block in range(2):
        b = f"visual_encoder.blocks.{block}"
        found |= layer_norm(f"{b}.norm1", vision) | layer_norm(f"{b}.norm2", vision)
        found |= dense(f"{b}.attn.qkv", 3 * vision, vision) | dense(f"{b}.attn.proj", vision, vision)
        found |= dense(f"{b}.mlp.fc1", 2 * vision, vision) | dense(f"{b}.mlp.fc2", vision, 2 * vision)
    found |= layer_norm("visual_encoder.norm", vision)
    e = "text_encoder.embeddings"
    found[f"{e}.position_ids"] = torch.arange(16)[None]
    for name, rows in (("word", vocabulary), ("position", 16), ("token_type", 2)):
        found[f"{e}.{name}_embeddings.weight"] = random(rows, text)
    found |= layer_norm(f"{e}.LayerNorm", text)
    twins = 2 if task == "reasoning" else 1
    for layer in range(layers + twins * fusion):
        a = f"text_encoder.encoder.layer.{layer}"
        widths = {"attention": text} | ({"crossattention": vision} if layer >= layers else {})
        for kind, width in widths.items():
            found |= dense(f"{a}.{kind}.self.query", text, text) | dense(f"{a}.{kind}.output.dense", text, text)
            found |= dense(f"{a}.{kind}.self.key", text, width) | dense(f"{a}.{kind}.self.value", text, width)
            found |= layer_norm(f"{a}.{kind}.output.LayerNorm", text)
        found |= dense(f"{a}.intermediate.dense", 64, text) | dense(f"{a}.output.dense", text, 64)
        found |= layer_norm(f"{a}.output.LayerNorm", text)
        if twins == 2 and layer >= layers and (layer - layers) % 2:
            first = f"text_encoder.encoder.layer.{layer - 1}.crossattention.self"
            for part in ("key.weight", "key.bias", "value.weight", "value.bias"):
                found[f"{a}.crossattention.self.{part}"] = found[f"{first}.{part}"].clone()
    found |= dense("cls_head.0", text, text) | dense("cls_head.2", 2 if task == "reasoning" else 3, text)
    return found | {"cls_head_m.0.bias": random(text)}
