"""A made log of students' answers: right or wrong, and what the past answers say about the next."""

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.utils import Bunch, check_random_state

from sklearn_din.datasets.click_log import (
    DAY,
    Floats,
    Integers,
    add_dates,
    find_past,
    spread_over_days,
)

_SKILLS_PER_TOPIC = 5
_N_TOPICS_OF_USER = 4
_OF_RELATED_SKILL = 0.5  # what an answer to another skill of the same topic counts


def make_answer_log(
    *,
    n_users: int = 2000,
    n_items: int = 1000,
    n_skills: int = 50,
    mean_length: float = 30,
    n_impressions: int | None = None,
    answer_strength: float = 1.0,
    max_length: int = 50,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Make a log of students' answers whose truth, and so the best possible AUC, is known.

    Each item (a problem) trains one skill, and five skills belong to a topic, which no column
    names. Each user practises four topics, some skills better than others. Whether the next
    answer is right depends on the share of right ones among the user's past answers to similar
    items: those of the item's skill count 1, those of the topic's other skills 1/2::

        share = (sum(relevance * right) + 1) / (sum(relevance) + 2)
        logit = 5 * answer_strength * (share - 1/2) - difficulty of the item

    Which past answers count depends on the candidate: attention over (item, skill, answer) can
    express that. Sums by user and candidate cannot, and counts by skill miss the topic.
    Events (practice) and impressions (questions) are drawn independently: the answer to an
    impression adds no event.

    ``answer_strength`` of 0 leaves the items' difficulties; mean_length, n_impressions and
    max_length are those of :func:`make_click_log`. Returns events and impressions, frames in the
    order of time; y, 1 for a right answer; probability, whose AUC is the ceiling; relevance and
    offsets as of that log; difficulty by item.
    """
    n_impressions = 20 * n_users if n_impressions is None else n_impressions
    rng = check_random_state(random_state)
    problems, students = _Problems(n_items, n_skills, rng), _Students(n_users, n_skills, rng)
    events = _draw_events(problems, students, mean_length, rng)
    impressions = _draw_impressions(problems, students, events, n_impressions, rng)
    row, event, _ = find_past(impressions, events, max_length)
    relevance = _relevance(events["skill"].to_numpy()[event], impressions["skill"].to_numpy()[row])
    is_right = (events["answer"] == "right").to_numpy()[event]
    share = (np.bincount(row, relevance * is_right, minlength=n_impressions) + 1) / (
        np.bincount(row, relevance, minlength=n_impressions) + 2
    )
    difficulty = problems.difficulty[impressions["item"].to_numpy()]
    probability = expit(5 * answer_strength * (share - 0.5) - difficulty)
    return Bunch(
        events=add_dates(events.sort_values("time", kind="stable", ignore_index=True)),
        impressions=add_dates(impressions),
        y=rng.binomial(1, probability),
        probability=probability,
        relevance=relevance,
        offsets=np.append(0, np.cumsum(np.bincount(row, minlength=n_impressions))),
        difficulty=problems.difficulty,
    )


class _Problems:
    """Items with a skill and a difficulty."""

    def __init__(self, n_items: int, n_skills: int, rng: np.random.RandomState) -> None:
        rest = rng.randint(n_skills, size=n_items - n_skills)  # every skill has an item
        self.skill = rng.permutation(np.concatenate([np.arange(n_skills), rest]))
        self.difficulty = rng.normal(0, 0.7, size=n_items)
        self._by_skill = np.argsort(self.skill, kind="stable")
        self._count = np.bincount(self.skill)
        self._first = np.cumsum(self._count) - self._count

    def draw(self, skill: Integers, rng: np.random.RandomState) -> Integers:
        """Draw an item of each skill, all with the same probability."""
        position = (rng.random_sample(len(skill)) * self._count[skill]).astype(np.int64)
        return self._by_skill[self._first[skill] + position]


class _Students:
    """Topics that each user practises, and the user's ability in each skill."""

    def __init__(self, n_users: int, n_skills: int, rng: np.random.RandomState) -> None:
        self.n_users, self._n_skills = n_users, n_skills
        n_topics = -(-n_skills // _SKILLS_PER_TOPIC)
        self._topics = rng.randint(n_topics, size=(n_users, _N_TOPICS_OF_USER))
        by_topic = rng.normal(0, 1.5, size=(n_users, n_topics))
        topic = np.arange(n_skills) // _SKILLS_PER_TOPIC
        self.ability = by_topic[:, topic] + rng.normal(0, 1.0, size=(n_users, n_skills))

    def draw_skill(self, user: Integers, rng: np.random.RandomState) -> Integers:
        """Draw a skill of one of each user's topics."""
        topic = self._topics[user, rng.randint(_N_TOPICS_OF_USER, size=len(user))]
        first = topic * _SKILLS_PER_TOPIC
        n_skills = np.minimum(_SKILLS_PER_TOPIC, self._n_skills - first)
        return first + (rng.random_sample(len(user)) * n_skills).astype(np.int64)


def _draw_events(
    problems: _Problems, students: _Students, mean_length: float, rng: np.random.RandomState
) -> pd.DataFrame:
    """Draw past answers of all users, user by user and oldest to newest; times in seconds."""
    length = 1 + rng.poisson(rng.gamma(2.0, (mean_length - 1) / 2, size=students.n_users))
    user = np.repeat(np.arange(length.size), length)
    skill = students.draw_skill(user, rng)
    item = problems.draw(skill, rng)
    chance = expit(students.ability[user, skill] - problems.difficulty[item])
    is_right = rng.random_sample(user.size) < chance
    first = np.cumsum(length) - length
    gap = 1 + (rng.standard_exponential(user.size) * DAY / 4).astype(np.int64)
    time = spread_over_days(gap, first, user, rng)
    answer = np.where(is_right, "right", "wrong")
    columns = {"user": user, "item": item, "skill": skill, "answer": answer, "time": time}
    return pd.DataFrame(columns)


def _draw_impressions(
    problems: _Problems,
    students: _Students,
    events: pd.DataFrame,
    n_impressions: int,
    rng: np.random.RandomState,
) -> pd.DataFrame:
    """Draw questions in the order of time, each some hours after a late event of its user."""
    user = rng.randint(students.n_users, size=n_impressions)
    length = np.bincount(events["user"])
    first = (np.cumsum(length) - length)[user]
    late = np.maximum(rng.random_sample(n_impressions), rng.random_sample(n_impressions))
    some_event = first + (late * length[user]).astype(np.int64)
    time = events["time"].to_numpy()[some_event]
    time = time + (rng.standard_exponential(n_impressions) * DAY / 8).astype(np.int64)
    skill = students.draw_skill(user, rng)
    item = problems.draw(skill, rng)
    impressions = pd.DataFrame({"user": user, "item": item, "skill": skill, "time": time})
    return impressions.sort_values("time", kind="stable", ignore_index=True)


def _relevance(past: Integers, asked: Integers) -> Floats:
    """Return the weight of a past answer of one skill for a question of another."""
    same_topic = past // _SKILLS_PER_TOPIC == asked // _SKILLS_PER_TOPIC
    relevance = np.where(past == asked, 1.0, _OF_RELATED_SKILL * same_topic)
    return relevance.astype(np.float32)
