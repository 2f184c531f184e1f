"""What a row group needs in memory, by its footer, and which of its columns are text."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.parquet as pq

WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}
CODED = {"RLE_DICTIONARY", "PLAIN_DICTIONARY"}
OFFSET = 4  # bytes per cell of a list, and per code of text


def leaf_names(schema: pa.Schema) -> list[str]:
    """Column of each leaf of the file, in the footer's order: a list has one, a struct several.

    Examples
    --------
    >>> leaf_names(pa.schema({"a": pa.list_(pa.int64()), "b": pa.struct({"x": "int8", "y": "f4"})}))
    ['a', 'b', 'b']
    """
    return [field.name for field in schema for _ in range(_n_leaves(field.type))]


def arrow_bytes(group: pq.RowGroupMetaData, schema: pa.Schema) -> dict[str, int]:
    """Bytes that each column of a row group takes as an Arrow array, text as codes.

    Parameters
    ----------
    group : RowGroupMetaData
        Out of the footer.
    schema : Schema
        Of the file.

    Returns
    -------
    dict of str to int
    """
    sizes: dict[str, int] = {}
    for place, name in enumerate(leaf_names(schema)):
        leaf = group.column(place)
        width = WIDTHS.get(leaf.physical_type)
        size = leaf.total_uncompressed_size if width is None else 0
        if width is not None:
            size = width * leaf.num_values
        elif CODED & set(leaf.encodings):
            size += OFFSET * leaf.num_values
        sizes[name] = sizes.get(name, OFFSET * group.num_rows) + size
    return sizes


def text_leaves(
    metadata: pq.FileMetaData, schema: pa.Schema, columns: Collection[str]
) -> list[str]:
    """Paths of the text that is stored as codes, and is read as codes too."""
    kinds = {field.name: _leaf_type(field.type) for field in schema}
    leaves = []
    for place, name in enumerate(leaf_names(schema)):
        is_text = pa.types.is_string(kinds[name]) or pa.types.is_large_string(kinds[name])
        if name not in columns or not is_text:
            continue
        groups = range(metadata.num_row_groups)
        if all(CODED & set(metadata.row_group(group).column(place).encodings) for group in groups):
            leaves.append(metadata.schema.column(place).path)
    return leaves


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Type of the values, whether a file stores them once (dictionary) or in each row.

    Examples
    --------
    >>> plain_type(pa.list_(pa.dictionary(pa.int32(), pa.large_string())))
    ListType(list<element: string>)
    """
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(pa.field("element", plain_type(kind.value_type)))
    return kind


def _n_leaves(kind: pa.DataType) -> int:
    if pa.types.is_dictionary(kind):
        return 1
    if pa.types.is_map(kind):
        return _n_leaves(kind.key_type) + _n_leaves(kind.item_type)
    if pa.types.is_struct(kind):
        return sum(_n_leaves(kind.field(place).type) for place in range(kind.num_fields))
    if pa.types.is_nested(kind):
        return _n_leaves(kind.value_type)
    return 1


def _leaf_type(kind: pa.DataType) -> pa.DataType:
    while pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind
