"""Made logs whose truth is known, each hard for another kind of model.

- ``turning``: every day a share of the shown items is new, as in news.
- ``long_baskets``: 3,000 items, long histories; what goes together is no low-rank matrix.
- ``sparse_catalogue``: 10,000 items, some seven events per user; categories say most.
- ``offers``: ten of them, sent in waves; what each is worth changes from wave to wave.
- ``answers``: students' answers, which depend on their past answers to similar items.
- ``matches``: who wins, which depends on differences and thresholds of two players' numbers.

All return workloads (``workloads.py``). ``probability`` is the true probability of a click given
the candidate and the whole history: its log loss, AUC and GAUC are the best possible ones.
"""

import numpy as np
import pandas as pd
import scipy.sparse

from benchmarks import workloads
from benchmarks.answer_log import make_answer_log
from sklearn_din import attach_history

N_RELATED = 5  # categories that are bought by the same users, which no column says
WANDER = 0.5  # how often the next category is any of the related ones
QUALITY = 1.2  # standard deviation of what an item adds to the log-odds
INTERCEPT = -2.6  # log-odds of a click where nothing of the candidate lies in the history
RECENT = 0.8  # what the candidate's topic among the newest three adds to the log-odds
DAYS = 10  # of a turning catalogue: eight to train on, one to stop by, one to test on


def turning(
    *,
    new_share,
    n_users=2000,
    n_shown=400,
    n_slots=4,
    n_categories=20,
    n_topics=5,
    cap=50,
    n_days=DAYS,
    n_related=0,
    seed=0,
    hide_unseen=True,
):
    """Return a log of ten days in which each day ``new_share`` of the shown items is new.

    Every day ``n_shown`` items are on show; the next day ``new_share`` of them, drawn at random,
    have gone for good and as many items that nobody has ever seen take their places. Each user is
    shown ``n_slots`` items a day; a click joins the history at once. Items have one of
    ``n_categories * n_topics`` topics, and a topic belongs to one category. Log-odds of a click::

        -2.6 + log(1 + c) + log(1 + t) + .8 * (topic is that of one of the newest three) + quality

    with c and t past clicks of the candidate's category and topic among the newest ``cap``. The
    item's quality has mean 0 and standard deviation 1.2, and only its own clicks show it. With
    ``n_related`` each topic also has as many others whose readers like it, which no column says:
    log(1 + r) is added, with r the clicks of those topics among the newest ``cap``. Eight
    days train, the ninth stops the training, the last one tests: of its items
    ``1 - (1 - new_share) ** 2`` are new to training.
    """
    rng = np.random.RandomState(seed)
    items = _TurningItems(n_shown, n_categories * n_topics, new_share, n_related, rng)
    taste = rng.dirichlet(np.full(n_categories * n_topics, 0.05), n_users).cumsum(1)
    past = _Pasts(n_users, room=20 + n_days * n_slots)
    user = np.arange(n_users)
    n_early = rng.randint(3, 20, size=n_users)
    for position in range(20):  # clicks of the time before, each user's by taste
        topics = (rng.random_sample((n_users, 1)) > taste[:, :-1]).sum(1)
        past.append(user[position < n_early], items.one_of(topics, rng)[position < n_early])
    rows = []
    for time in range(n_days * n_slots):
        if time % n_slots == 0:
            items.turn()
        by_taste = items.one_of((rng.random_sample((n_users, 1)) > taste[:, :-1]).sum(1), rng)
        anything = rng.choice(items.on_show, size=n_users)
        shown = np.where(rng.random_sample(n_users) < 0.4, by_taste, anything)
        logit = _interest(past, items, shown, n_topics, cap) + items.quality[shown] + INTERCEPT
        probability = 1 / (1 + np.exp(-logit))
        clicked = rng.random_sample(n_users) < probability
        rows.append((user, time, shown, clicked, probability, past.length.copy()))
        past.append(user[clicked], shown[clicked])
    table = [np.concatenate([np.broadcast_to(row[k], n_users) for row in rows]) for k in range(6)]
    rows = _turned(table, past, items, n_topics, cap)
    part = np.maximum(rows["time"] // n_slots - (n_days - 3), 0)
    name, attributes = f"turning catalogue, {new_share:.0%}", ["item", "category", "topic"]
    name += ", related" if n_related else ""
    return workloads._workload(name, rows, part, attributes, cap, hide_unseen, split="time")


class _TurningItems:
    """Items on show, of which a share is replaced; topics and qualities of all there ever were."""

    def __init__(self, n_shown, n_topics, new_share, n_related, rng):
        self.rng, self.n_topics, self.n_new = rng, n_topics, round(new_share * n_shown)
        self.related = np.zeros((n_topics, n_topics), dtype=bool)
        for topic in range(n_topics if n_related else 0):
            others = np.delete(np.arange(n_topics), topic)
            self.related[topic, rng.choice(others, size=n_related, replace=False)] = True
        self.topic, self.quality = np.empty(0, dtype=int), np.empty(0)
        self.on_show = np.arange(n_shown)
        self._make(n_shown)

    def _make(self, n):
        self.topic = np.r_[self.topic, self.rng.permutation(np.arange(n) % self.n_topics)]
        self.quality = np.r_[self.quality, self.rng.normal(0, QUALITY, size=n)]

    def turn(self):
        places = self.rng.choice(len(self.on_show), size=self.n_new, replace=False)
        self.on_show[places] = len(self.topic) + np.arange(self.n_new)
        self._make(self.n_new)

    def one_of(self, topics, rng):
        """An item on show of each topic; any item where no item of it is on show."""
        order = self.on_show[np.argsort(self.topic[self.on_show], kind="stable")]
        counts = np.bincount(self.topic[order], minlength=self.n_topics)
        position = np.r_[0, counts.cumsum()][topics] + (
            rng.random_sample(len(topics)) * counts[topics]
        ).astype(int)
        anything = rng.choice(order, size=len(topics))
        return np.where(counts[topics] > 0, order[np.minimum(position, len(order) - 1)], anything)


class _Pasts:
    """Clicks of each user so far, one row per user, oldest to newest; -1 behind the end."""

    def __init__(self, n_users, room):
        self.items = np.full((n_users, room), -1)
        self.length = np.zeros(n_users, dtype=int)

    def append(self, users, items):
        self.items[users, self.length[users]] = items
        self.length[users] += 1


def _interest(past, items, shown, n_topics, cap):
    rank = past.length[:, None] - 1 - np.arange(past.items.shape[1])  # 0 is the newest event
    seen, topic = (rank >= 0) & (rank < cap), items.topic[past.items]
    same_topic = seen & (topic == items.topic[shown][:, None])
    same_category = seen & (topic // n_topics == items.topic[shown][:, None] // n_topics)
    newest = (same_topic & (rank < 3)).any(1)
    related = seen & items.related[items.topic[shown][:, None], topic]
    counts = (same_category.sum(1), same_topic.sum(1), related.sum(1))
    return sum(np.log1p(count) for count in counts) + RECENT * newest


def _turned(table, past, items, n_topics, cap):
    user, time, shown, clicked, probability, n_past = table
    topic = items.topic
    past_topic = topic[past.items]
    events = {"item": past.items, "category": past_topic // n_topics, "topic": past_topic}
    length = np.minimum(n_past, cap)
    start = user * past.items.shape[1] + n_past - length
    return {
        "label": clicked.astype(np.float32),
        "probability": probability,
        "group": user,
        "time": time,
        **workloads._gather({k: 2 + v.ravel() for k, v in events.items()}, start, length),
        "item": (2 + shown).astype(np.int32),
        "category": (2 + topic[shown] // n_topics).astype(np.int32),
        "topic": (2 + topic[shown]).astype(np.int32),
    }


def long_baskets(*, split="user", n_users=8000, cap=50, seed=0):
    """Return next item against one uniform negative: 3,000 items, some 37 events.

    ``split`` is "user" (80/10/10 of the users), or "last": each user's last event is tested, and
    those before it train, a tenth of the users' as validation rows.

    The next item is a partner of a random earlier one by a sparse matrix (.4), a popular item of
    the category of an earlier one, or of a related category (.3), or popular (.3). The matrix of
    partners has full rank: they are drawn pair by pair, half of them within a category.
    """
    rng = np.random.RandomState(seed)
    made = _Chain(n_items=3000, n_categories=30, n_partners=4, steepness=20, rng=rng)
    shares = (0.3, 0.4, 0.3)
    rows = made.rows(n_users=n_users, lengths=(32, 46), n_last=3, shares=shares, cap=cap)
    if split == "user":
        return _by_user("long baskets", rows, ["item", "category"], cap, seed)
    last = pd.Series(rows["time"]).groupby(rows["group"]).transform("max").to_numpy()
    part = np.where(rows["time"] == last, 2, workloads._random_parts(rows["group"], seed) == 2)
    return workloads._workload(
        "long baskets, last", rows, part, ["item", "category"], cap, True, split="last"
    )


def sparse_catalogue(*, n_users=10_000, cap=50, seed=0):
    """Return next item against one uniform negative: 10,000 items, some 7 events, by user.

    As ``long_baskets``, but by category most of the time: a partner (.25), a popular item of a
    category (.5), or a popular one (.25).
    """
    rng = np.random.RandomState(seed)
    made = _Chain(n_items=10_000, n_categories=100, n_partners=6, steepness=50, rng=rng)
    shares = (0.25, 0.25, 0.5)
    rows = made.rows(n_users=n_users, lengths=(5, 12), n_last=4, shares=shares, cap=cap)
    return _by_user("sparse catalogue", rows, ["item", "category"], cap, seed)


def offers(*, n_users=9000, n_offers=10, n_waves=6, drift=0.5, cap=50, seed=0):
    """Return a log of waves, each of one moment: 85 % of the users get one of few offers.

    The log-odds that it is taken are the offer's worth, which is drawn once (deviation 2) and moves
    in each wave (``drift``), what the user thinks of all offers (2) and of its kind (1). Histories
    hold those taken. Four waves train, the fifth stops the training, the last one tests.
    """
    rng, kind = np.random.RandomState(seed), np.arange(n_offers) % 3
    worth = rng.normal(0, 2, size=n_offers)
    taste = rng.normal(0, 2, size=(n_users, 1)) + rng.normal(0, 1, size=(n_users, 3))
    waves = []
    for time in range(n_waves):
        user = np.flatnonzero(rng.random_sample(n_users) < 0.85)
        item = rng.randint(n_offers, size=len(user))
        logit = (worth + rng.normal(0, drift, size=n_offers))[item] + taste[user, kind[item]]
        columns = {"user": user, "item": item, "kind": kind[item], "time": time, "logit": logit}
        waves.append(pd.DataFrame(columns))
    X = pd.concat(waves, ignore_index=True)
    probability = 1 / (1 + np.exp(-X.pop("logit").to_numpy()))
    y = rng.random_sample(len(X)) < probability
    X = attach_history(X, X[y], user="user", time="time", columns=["item", "kind"])
    rows = workloads.rows_of(X, y, probability, ["item", "kind"])
    part = np.maximum(rows["time"] - (n_waves - 3), 0)
    return workloads._workload("offers", rows, part, ["item", "kind"], cap, True, split="time")


def _by_user(name, rows, attributes, cap, seed, *, alone=()):
    part = workloads._random_parts(rows["group"], seed)
    return workloads._workload(name, rows, part, attributes, cap, True, split="user", alone=alone)


class _Chain:
    """Users whose next item follows from an earlier one by partners or category, or is popular."""

    def __init__(self, *, n_items, n_categories, n_partners, steepness, rng):
        self.rng, self.n_items = rng, n_items
        self.category = rng.randint(n_categories, size=n_items)
        rank = 1 + rng.permutation(n_items)
        self.popularity = (1 / (steepness + rank)) / (1 / (steepness + rank)).sum()
        self.partners = self._draw_partners(n_partners)
        by_category = np.zeros(n_categories)
        np.add.at(by_category, self.category, self.popularity)
        self.in_category = self.popularity / by_category[self.category]  # P(item | category)

    def _draw_partners(self, n_partners):
        """Random pairs, each in both directions; rows sum to one."""
        first = np.repeat(np.arange(self.n_items), n_partners // 2)
        second = self.rng.randint(self.n_items, size=len(first))
        order = np.argsort(self.category, kind="stable")
        counts = np.bincount(self.category)
        begin = (counts.cumsum() - counts)[self.category[first]]
        near = order[
            begin + self.rng.randint(2**31, size=len(first)) % counts[self.category[first]]
        ]
        second = np.where(self.rng.random_sample(len(first)) < 0.5, near, second)
        weight = self.rng.standard_exponential(len(first))
        pairs = scipy.sparse.csr_matrix((weight, (first, second)), (self.n_items, self.n_items))
        pairs = (pairs + pairs.T).tolil()
        pairs.setdiag(0)
        pairs = pairs.tocsr()
        pairs.eliminate_zeros()
        total = np.asarray(pairs.sum(1)).ravel()
        return scipy.sparse.diags(1 / np.where(total > 0, total, 1)) @ pairs

    def draw_partner(self, items):
        """One partner of each item, by weight: a row of the matrix is an interval of length one."""
        ends = np.cumsum(self.partners.data)
        row_ends = np.r_[0, ends][self.partners.indptr]
        low, high = row_ends[items], row_ends[items + 1]
        place = np.searchsorted(ends, low + (high - low) * self.rng.random_sample(len(items)))
        return self.partners.indices[np.minimum(place, len(ends) - 1)]

    def draw_in_category(self, items):
        """One popular item of each item's category, or of a related one."""
        category = self.category[items]
        related = category // N_RELATED * N_RELATED + self.rng.randint(N_RELATED, size=len(items))
        category = np.where(self.rng.random_sample(len(items)) < WANDER, related, category)
        order = np.argsort(self.category, kind="stable")
        ends = np.cumsum(self.in_category[order])
        point = category + self.rng.random_sample(len(items))
        return order[np.minimum(np.searchsorted(ends, point), self.n_items - 1)]

    def sequences(self, n_users, n_events, shares):
        popular = self.rng.choice(self.n_items, size=(n_users, n_events), p=self.popularity)
        sequences = popular.copy()
        for position in range(1, n_events):
            source = sequences[np.arange(n_users), self.rng.randint(position, size=n_users)]
            choices = [popular[:, position], self.draw_partner(source)]
            choices.append(self.draw_in_category(source))
            which = self.rng.choice(3, size=n_users, p=shares)
            sequences[:, position] = np.choose(which, choices)
        return sequences

    def probability(self, sequences, user, n_past, candidate, shares):
        """Return how likely the candidate is the next item, and not one drawn uniformly."""
        row = np.repeat(np.arange(len(user)), n_past)
        past = np.concatenate([sequences[u, :n] for u, n in zip(user, n_past, strict=True)])
        asked = candidate[row]
        by_partner = np.asarray(self.partners[past, asked]).ravel()
        before, then = self.category[past], self.category[asked]
        by_category = (1 - WANDER) * (before == then)
        by_category += WANDER / N_RELATED * (before // N_RELATED == then // N_RELATED)
        each = shares[1] * by_partner + shares[2] * by_category * self.in_category[asked]
        following = np.bincount(row, weights=each, minlength=len(user)) / n_past
        following += shares[0] * self.popularity[candidate]
        return following / (following + 1 / self.n_items)

    def rows(self, *, n_users, lengths, n_last, shares, cap):
        """Each user's ``n_last`` last events as candidates, each beside one uniform negative."""
        n_events = lengths[1] - 1
        sequences = self.sequences(n_users, n_events, shares)
        length = self.rng.randint(*lengths, size=n_users)
        user = np.repeat(np.arange(n_users), n_last)
        n_past = (length[:, None] - n_last + np.arange(n_last)).ravel()
        following = sequences[user, n_past]
        other = self.rng.randint(self.n_items, size=len(user))
        user, n_past = np.repeat(user, 2), np.repeat(n_past, 2)
        candidate = np.column_stack([following, other]).ravel()
        n_seen = np.minimum(n_past, cap)
        events = {"item": sequences, "category": self.category[sequences]}
        events = {key: 2 + ids.ravel() for key, ids in events.items()}
        return {
            "label": np.tile(np.float32([1, 0]), len(following)),
            "probability": self.probability(sequences, user, n_past, candidate, shares),
            "group": user,
            "time": n_past,
            **workloads._gather(events, user * n_events + n_past - n_seen, n_seen),
            "item": (2 + candidate).astype(np.int32),
            "category": (2 + self.category[candidate]).astype(np.int32),
        }


def answers(*, n_users=3000, cap=50, seed=0, **others):
    """Return students' answers (``benchmarks.answer_log``), split by user.

    The past answers are an attribute of the events alone: the candidate's is the label.
    """
    log = make_answer_log(n_users=n_users, max_length=cap, random_state=seed, **others)
    columns = ["item", "skill", "answer"]
    events = log.events.assign(answer=(log.events["answer"] == "right").astype(int))
    at = {"user": "user", "time": "time", "max_length": cap}
    X = attach_history(log.impressions, events, columns=columns, **at)
    rows = workloads.rows_of(X, log.y, log.probability, columns)
    return _by_user("answers", rows, ["item", "skill"], cap, seed, alone=["answer"])


def matches(*, by="thresholds", n_players=400, n_matches=40_000, cap=50, seed=0):
    """Return matches won, split by time: ranks and ages of the player and of the opponent.

    The log-odds that the player wins are .45 times the opponent's rank less the player's own, as
    logarithms, and .5 more where the player alone is among the first 32 (less where the opponent
    alone is). They fall by .15 for each year that the player is older than 30 or younger than 20,
    rise so for the opponent, and have what the player likes of the three grounds (deviation .25).
    Ranks are those of a strength that wanders. Histories hold the matches won.

    ``by="differences"``: they are 1.5 tanh(difference of ranks / 60) and .6 tanh(difference of
    ages / 2), and what the player likes.
    """
    rng = np.random.RandomState(seed)
    strength, born = rng.normal(size=n_players), rng.uniform(-32, -17, size=n_players)
    liking, n_rounds = rng.normal(scale=0.25, size=(n_players, 3)), 2 * n_matches // n_players
    parts = []
    for time in range(n_rounds):
        strength = 0.99 * strength + rng.normal(scale=0.14, size=n_players)
        rank = 1.0 + np.argsort(np.argsort(-strength))
        user, item = rng.permutation(n_players).reshape(2, -1)
        ground = np.full(len(user), time // 5 % 3)
        columns = {"user": user, "item": item, "ground": ground, "time": time}
        columns |= {"rank": rank[user], "opponent_rank": rank[item]}
        ages = {"age": born[user], "opponent_age": born[item]}
        columns |= {name: 8 * time / n_rounds - year for name, year in ages.items()}
        columns["liking"] = (liking[user] - liking[item])[np.arange(len(user)), ground]
        parts.append(pd.DataFrame(columns))
    X = pd.concat(parts, ignore_index=True)

    def worth(rank, age):
        far = np.maximum(age - 30, 0) + np.maximum(20 - age, 0)
        return 0.5 * (rank <= 32) - 0.45 * np.log(rank) - 0.15 * far

    logit = worth(X["rank"], X["age"]) - worth(X["opponent_rank"], X["opponent_age"])
    if by == "differences":
        logit = 1.5 * np.tanh((X["opponent_rank"] - X["rank"]) / 60)
        logit += 0.6 * np.tanh((X["opponent_age"] - X["age"]) / 2)
    probability = (1 / (1 + np.exp(-logit - X.pop("liking")))).to_numpy()
    y = rng.random_sample(len(X)) < probability
    X = attach_history(X, X[y], user="user", time="time", columns=["item", "ground"])
    numbers = ["rank", "opponent_rank", "age", "opponent_age"]
    rows = workloads.rows_of(X, y, probability, ["item", "ground"])
    rows |= {name: X[name].to_numpy(np.float32) for name in numbers}
    part = np.searchsorted([0.8, 0.9], X["time"] / n_rounds, side="right")
    attributes = ["item", "ground"]
    name = "matches" if by == "thresholds" else f"matches, {by}"
    workload = workloads._workload(name, rows, part, attributes, cap, True, split="time")
    workload["numeric"] = numbers
    return workload
