"""The network on padded ids and masks, in plain torch as the textbook has it: an oracle.

It shares the parameters of a DIN and nothing of its code: no segments, no split first layer, no
autograd function, nothing that is counted once per impression. Tests hold the flat network and the
exported file against it, for every option.
"""

import numpy as np
import torch
from torch import nn


def activate(layer, scores):
    """PReLU and Dice by their formulas; Dice with the running averages."""
    kind = type(layer).__name__
    if kind == "PReLU":
        return torch.where(scores > 0, scores, layer.slope * scores)
    if kind == "Dice":
        scale = torch.sqrt(layer.running_var + layer.eps)
        gate = torch.sigmoid((scores - layer.running_mean) / scale)
        return gate * scores + (1 - gate) * layer.slope * scores
    return layer(scores)


def run_layers(layers, values):
    """MLP: linear layers and activations one after the other."""
    for layer in layers:
        values = layer(values) if isinstance(layer, nn.Linear) else activate(layer, values)
    return values


def weigh(unit, queries, keys, relations):
    """Activation unit: ``MLP([q, k, q - k, q * k, relations])``, (n, T)."""
    q = queries[:, None].expand_as(keys)
    inputs = torch.cat([q, keys, q - keys, q * keys, relations], dim=2)
    layers = [unit.first, unit.first_activation, *unit.rest, unit.last]
    return run_layers(layers, inputs)[..., 0]


def signed_log(values):
    return values.sign() * torch.log(1 + values.abs())


def compare(events, candidates):
    """Bits (n, T) of equal ids, (n, T) and (n, 1); of lists, one axis more, their cosines."""
    if events.ndim == 2:
        return (events == candidates) & (candidates > 1)
    is_common = (events[..., None] == candidates[..., None, :]) & (events[..., None] > 1)
    sizes = (events > 0).sum(2) * (candidates > 0).sum(2)
    return is_common.sum((2, 3)) / sizes.clamp(min=1).sqrt()


def match(behaviour, arrays, mask):
    """Bits (n, T, n_candidates) of equal ids, and how many events have come after each (n, T)."""
    pairs = [p for p in zip(behaviour.histories, behaviour.candidates, strict=True) if p[1]]
    same = [compare(arrays[h], arrays[c][:, None]) for h, c in pairs]
    ranks = mask.sum(1, keepdim=True) - torch.arange(1, mask.shape[1] + 1)
    return torch.stack(same, dim=2) * mask[..., None], ranks.clamp(min=0)


def end(interest, name, values):
    """Numbers as far as training's reached and one range more, which ``ends`` has."""
    low, high = interest.ends.get(name, (-np.inf, np.inf))
    return torch.where(values < low, low, torch.where(values > high, high, values))


def subtract(interest, arrays, mask, schema):
    """By how much a row's numbers are larger than its events', NaN where either is missing."""
    differences = []
    for name in interest.behaviour.numbers:
        if candidate := schema[name].candidate:
            missing = arrays.get(f"{candidate}_missing", torch.zeros(len(mask))) > 0
            shown = torch.where(missing, torch.nan, end(interest, candidate, arrays[candidate]))
            values = shown[:, None] - end(interest, name, arrays[name])
            differences.append(torch.where(mask, values, torch.nan))
    return differences


def interest_outputs(interest, embed, arrays, schema):
    """Interest: all inputs of the MLP that one behaviour gives, side by side."""
    behaviour, extended = interest.behaviour, interest.extended and not interest.behaviour.is_bag
    mask = arrays[f"{behaviour.histories[0]}_mask"]
    keys = torch.cat([embed(name) for name in behaviour.histories], dim=2)
    lengths = mask.sum(1, keepdim=True)
    relations, queries = keys[..., :0], None
    if not behaviour.is_bag:
        pairs = zip(behaviour.histories, behaviour.candidates, strict=True)
        queries = [embed(c) if c else torch.zeros(len(mask), embed(h).shape[2]) for h, c in pairs]
        queries = torch.cat(queries, dim=1)
    if extended:
        same, ranks = match(behaviour, arrays, mask)
        compared = subtract(interest, arrays, mask, schema)
        near = [(1 - values.abs()).clamp(min=0).nan_to_num()[..., None] for values in compared]
        same = torch.cat([same, *near], dim=2)
        differences = [values.nan_to_num()[..., None] for values in compared]
        weighed = torch.cat([same * decay ** ranks[..., None] for decay in (1.0, 0.8, 0.5)], dim=2)
        numbers = [end(interest, n, arrays[n].nan_to_num())[..., None] for n in behaviour.numbers]
        numbers += differences
        relations = torch.cat([weighed, torch.log(1 + ranks)[..., None], *numbers], dim=2)
    weights, pooled = mask.float(), keys
    if interest.pooling == "attention":
        pair = (queries, keys)
        if not interest.trains_embeddings:
            pair = (queries.detach(), keys.detach())
        pooled = pair[1]
        scores = weigh(interest.unit, *pair, relations)
        if interest.normalization == "softmax":
            scores = scores.masked_fill(~mask, -1e30).softmax(dim=1)
        weights = scores * mask
    vector = (weights[..., None] * pooled).sum(1)
    if interest.pooling == "max":
        shown = pooled.masked_fill(~mask[..., None], -torch.inf)
        vector = nn.functional.pad(shown, (0, 0, 0, 1), value=-torch.inf).amax(1)
        vector = torch.where(lengths > 0, vector, 0.0)
    elif interest.pooling == "mean":
        vector = vector / lengths.clamp(min=1)
    elif interest.normalization == "sqrt":
        vector = vector / lengths.clamp(min=1).sqrt()
    if not extended:
        return vector
    outputs = [queries * vector]
    if interest.pooling == "attention":
        unweighted = (mask[..., None] * keys).sum(1) / lengths.clamp(min=1).sqrt()
        outputs += [signed_log(weights.sum(1, keepdim=True)), queries * unweighted]
    counts = weighed.sum(1)[:, : 2 * same.shape[2]]
    outputs += [signed_log(lengths), signed_log(counts)]
    alone = [h for h, c in zip(behaviour.histories, behaviour.candidates, strict=True) if not c]
    if alone or behaviour.numbers:
        values = torch.cat([*map(embed, alone), *numbers], dim=2)
        mass = 1 + weights.abs().sum(1, keepdim=True)
        outputs.append((weights[..., None] * values).sum(1) / mass)
    for bits in [mask.float(), *same.unbind(2)] if alone else []:
        for name in alone:
            outputs.append((bits[..., None] * embed(name)).sum(1) / (bits.sum(1, True) + 8))
    return torch.cat(outputs, dim=1)


def numbers_and_bins(network, arrays):
    """Each number as far as its range reaches twice, counts once, and what it has of each bin."""
    inputs, names = [], network.schema.names("numeric")
    for name in names:
        bins = network.options["bins"].get(name, ())
        values = arrays[name].numpy()
        low, high = network.options["ranges"].get(name, (-np.inf, np.inf))
        key = name.removesuffix("_count")
        is_count = key != name and {f"{key}_rate", f"{key}_elapsed"} <= {*names}
        reach = 0 if is_count or np.isinf(high) else high - low
        least, most = low - reach, high + reach
        own = [np.minimum(np.maximum(values, least), most)]
        own += [np.interp(values, [start, end], [0, 1]) - mean for start, end, mean in bins]
        inputs.append(torch.tensor(np.stack(own, axis=1), dtype=torch.float32))
    return inputs


def padded_logits(network, X):
    """Logits of encoded impressions at prediction, by ``X["hist_item"]`` and its like."""
    arrays = {name: torch.as_tensor(X[name]) for name in X}
    schema, tables = network.schema, network.embeddings

    def embed(name):
        rows = tables.weight(tables.vocabulary_of[name])
        embedded = nn.functional.embedding(arrays[name].long(), rows)
        if not schema[name].holds_lists:
            return embedded
        is_there = (arrays[name] > 0)[..., None]
        return (embedded * is_there).sum(-2) / is_there.sum(-2).clamp(min=1)

    inputs = numbers_and_bins(network, arrays)
    inputs += [embed(name) for name in schema.names("categorical", "list")]
    inputs += [interest_outputs(part, embed, arrays, schema) for part in network.interests]
    return run_layers([*network.mlp, network.output], torch.cat(inputs, dim=1))[:, 0]
