"""Our network on embedding tables that TorchRec shards by row over several processes: a sketch.

``torchrun --standalone --nproc-per-node 2 benchmarks/torchrec_sketch.py`` (``make test-engines``
runs it). Each process holds half of the rows of each table, looks up its own slice of the
impressions in all of them, and computes the rest of the network as ever. Checked against the same
network whose tables are whole in one process: the vectors to the bit, the logits within rounding,
and the tables after one training step of plain SGD. TorchRec is no dependency; what a table of 10^9
ids asks for is in docs/guide/billions.rst.
"""

import torch
import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from sklearn.pipeline import Pipeline
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor
from torchrec.distributed import ShardingEnv
from torchrec.distributed.comm_ops import set_gradient_division
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from sklearn_din.batches.batch import Batch, rows_of_rank
from sklearn_din.datasets import make_click_log
from sklearn_din.network.segments import sum_events

IDS = "ids"
LR = 0.1


class ShardedEmbeddings(nn.Module):
    """What ``FieldEmbeddings`` gives, out of tables that TorchRec shards by row.

    Parameters
    ----------
    whole : FieldEmbeddings
        Says which fields share which table. Its rows are copied into the shards.
    """

    def __init__(self, whole):
        super().__init__()
        self.layout = [whole]  # in a list: its tables are no parameters of this module
        self.collections = nn.ModuleDict(
            {width: _sharded(table) for width, table in whole.tables.items()}
        )

    def width(self, field):
        return self.layout[0].width(field)

    def slots_of(self, behaviour):
        return self.layout[0].slots_of(behaviour)

    def rows(self, width, positions):
        """Rows of a table, wherever they lie: (n, width)."""
        lengths = torch.tensor([len(positions)])
        asked = KeyedJaggedTensor.from_lengths_sync([IDS], positions.long(), lengths)
        return self.collections[width](asked).wait()[IDS].values()

    def forward(self, ids, segments):
        """Look up the rows of all ids, and sum those of histories over each impression."""
        whole = self.layout[0]
        found, sums = {}, {}
        for width in whole.tables:
            slots = [slot for slot in whole.slots if whole.width(slot[0]) == int(width)]
            positions = [whole._positions(slot, ids) for slot in slots]
            blocks = self.rows(width, torch.cat(positions)).split([len(at) for at in positions])
            for slot, block in zip(slots, blocks, strict=True):
                found[slot] = block.reshape(-1, len(slot) * int(width))
        for slot, of_slot in segments.items():
            sums[slot] = sum_events(found[slot], *of_slot)
        return found, sums


def _sharded(table):
    """One table, its rows in equal blocks over all processes."""
    n_ids, width = table.shape
    config = EmbeddingConfig(
        name="table", embedding_dim=width, num_embeddings=n_ids, feature_names=[IDS]
    )
    collection = EmbeddingCollection(tables=[config], device=torch.device("meta"))
    sharder = EmbeddingCollectionSharder(
        fused_params={"optimizer": EmbOptimType.EXACT_SGD, "learning_rate": LR}
    )
    plan = construct_module_sharding_plan(
        collection,
        {"table": row_wise(compute_kernel="fused")},  # "dense" crashes on processors (1.8.0)
        sharder=sharder,
        local_size=dist.get_world_size(),
        world_size=dist.get_world_size(),
        device_type="cpu",
    )
    env = ShardingEnv.from_process_group(dist.group.WORLD)
    sharded = sharder.shard(collection, plan, env, torch.device("cpu"))
    start, mine = own_rows(sharded)
    mine.copy_(table.detach()[start : start + len(mine)])
    return sharded


def own_rows(sharded):
    """Return the first row that this process holds, and the rows."""
    (shard,) = sharded.state_dict()["embeddings.table.weight"].local_shards()
    return shard.metadata.shard_offsets[0], shard.tensor


def fitted():
    """Return a fitted network, and encoded impressions with their labels."""
    log = make_click_log(n_users=60, n_items=101, n_categories=7, random_state=0)
    X = attach_history(
        log.impressions, log.events, user="user", time="time", columns=["item", "category"]
    )
    encode = HistorySequenceEncoder(user="user", time="time")
    din = DINClassifier(max_epochs=1, interest="paper", random_state=0)
    model = Pipeline([("encode", encode), ("din", din)]).fit(X, log.y)
    return model["din"].module_, model["encode"].transform(X), torch.from_numpy(log.y).float()


def main():
    """Shard, compare, train one step, compare."""
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    set_gradient_division(False)  # the loss below is each process' share of the joint one
    network, X, y = fitted()
    whole = network.embeddings
    sharded = ShardedEmbeddings(whole)
    held = {width: len(own_rows(part)[1]) for width, part in sharded.collections.items()}
    for width, table in whole.tables.items():
        assert held[width] < len(table)
        positions = torch.arange(len(table)).flip(0)
        assert torch.equal(sharded.rows(width, positions), table[positions])

    own = rows_of_rank(len(X), dist.get_rank(), dist.get_world_size())
    expected = network(Batch(X))
    loss = binary_cross_entropy_with_logits(expected, y)
    grads = torch.autograd.grad(loss, list(whole.tables.values()))
    network.embeddings = sharded
    logits = network(Batch(X[own]))
    difference = (logits - expected[own]).abs().max().item()
    assert difference < 1e-5, difference

    loss = binary_cross_entropy_with_logits(logits, y[own], reduction="sum") / len(X)
    loss.backward()  # TorchRec moves the rows in the backward pass
    for (width, table), grad in zip(whole.tables.items(), grads, strict=True):
        start, mine = own_rows(sharded.collections[width])
        moved = (table.detach() - LR * grad.to_dense())[start : start + len(mine)]
        assert not torch.equal(mine, table[start : start + len(mine)])
        torch.testing.assert_close(mine, moved, rtol=0, atol=1e-6)
    if dist.get_rank() == 0:
        print(f"rows held here {held}: the same vectors, the same logits ({difference:.0e}),")
        print("the same rows after a training step")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
