"""The vectors that a Pipeline has learnt, by the values of its user."""

import numpy as np
import pytest

from sklearn_din import embeddings, update
from tests.fitted_pipelines import fit_pipeline, make_frame


@pytest.fixture(scope="module")
def fitted():
    frame, y = make_frame()
    return fit_pipeline(frame, y), frame, y


def test_each_known_value_has_the_vector_that_the_network_looks_up(fitted):
    model, frame, _ = fitted
    tables = embeddings(model)
    encoded, module = model[:-1].transform(frame), model["din"].net_.module_
    for name in ("item", "category", "device"):
        vectors = module.embeddings.weight(name).detach().numpy()
        known = tables[name].loc["known"]
        assert known.dtypes.eq(np.float32).all()
        np.testing.assert_array_equal(known.loc[frame[name]], vectors[encoded[name]])


def test_padding_and_unknown_have_a_name_and_no_value(fitted):
    model, _, _ = fitted
    for name, table in embeddings(model).items():
        vectors = model["din"].net_.module_.embeddings.weight(name).detach().numpy()
        assert table.index.get_level_values("kind")[:3].tolist() == ["padding", "unknown", "known"]
        assert table.index.get_level_values("value")[:3].isna().tolist() == [True, True, False]
        np.testing.assert_array_equal(table, vectors)


def test_an_update_adds_the_items_that_have_come_since(fitted):
    model, frame, y = fitted
    newer = update(model, frame.assign(item="a new one"), y)
    before = embeddings(model)["item"].loc["known"].index
    assert embeddings(newer)["item"].loc["known"].index.difference(before).tolist() == ["a new one"]
