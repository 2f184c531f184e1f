// Gradients of embedding tables: each touched row once, in ascending order.
#pragma once
#include <algorithm>
#include <numeric>
#include <vector>

#include "network.h"

namespace din {

struct Source {  // of the rows that a field's ids stand for, ``stride`` numbers apart
    const Ids* of;
    int64_t n;
    const float* values;
    int64_t stride;
};

class TouchedRows {
    const std::vector<Source>& sources;
    std::vector<int32_t> numbers;  // of the distinct row that each id stands for

    static int64_t row_of(const Ids& field, int64_t i) {
        return field.first_row + (field.ids[i] < 0 ? 1 : field.ids[i]);
    }

public:
    TouchedRows(const std::vector<Source>& sources, Table& table) : sources(sources) {
        size_t n = 0, size = 64;
        for (const Source& source : sources) n += source.n;
        while (size < 2 * n) size *= 2;
        std::vector<int64_t> keys(size, -1);  // a hash table: rows, and their numbers
        std::vector<int32_t> found(size);
        std::vector<int64_t> rows;
        numbers.reserve(n);
        for (const Source& source : sources)
            for (int64_t i = 0; i < source.n; i++) {
                const int64_t row = row_of(*source.of, i);
                size_t place = size_t(row) * 0x9E3779B97F4A7C15ull >> 32 & (size - 1);
                while (keys[place] != row && keys[place] >= 0) place = (place + 1) & (size - 1);
                if (keys[place] < 0) {
                    keys[place] = row;
                    found[place] = int32_t(rows.size());
                    rows.push_back(row);
                }
                numbers.push_back(found[place]);
            }
        std::vector<int32_t> order(rows.size()), rank(rows.size());
        std::iota(order.begin(), order.end(), 0);
        std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return rows[a] < rows[b]; });
        for (size_t i = 0; i < order.size(); i++) {
            rank[order[i]] = int32_t(i);
            table.touched[i] = rows[order[i]];
        }
        for (int32_t& number : numbers) number = rank[number];
        table.n_touched = int64_t(rows.size());
    }

    // Sums of one of ``n`` shares of the rows, each in the order of the ids.
    void add_up(const Table& table, int64_t share, int64_t n) const {
        const int64_t begin = table.n_touched * share / n, end = table.n_touched * (share + 1) / n;
        const int64_t width = table.width;
        std::fill(table.values + begin * width, table.values + end * width, 0.0f);
        const int32_t* number = numbers.data();
        for (const Source& source : sources)
            for (int64_t i = 0; i < source.n; i++) {
                const int64_t row = *number++;
                if (row < begin || row >= end) continue;
                const float* gradient = source.values + i * source.stride;
                for (int64_t j = 0; j < width; j++) table.values[row * width + j] += gradient[j];
            }
    }
};

}  // namespace din
