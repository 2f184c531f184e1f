// Gradients of embedding tables: each touched row once, in ascending order.
#pragma once
#include <algorithm>
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
    std::vector<Source> sources;
    std::vector<uint64_t> marks;  // a bit for each row of the table
    std::vector<int32_t> before;  // of each word of marks: touched rows in those before it

    static int64_t row_of(const Ids& field, int64_t i) {
        return field.first_row + (field.ids[i] < 0 ? 1 : field.ids[i]);
    }

    int64_t number_of(int64_t row) const {
        const uint64_t lower = marks[row / 64] & ((uint64_t(1) << row % 64) - 1);
        return before[row / 64] + __builtin_popcountll(lower);
    }

public:
    void add(const Source& source) { sources.push_back(source); }

    int64_t n_ids() const {
        int64_t n = 0;
        for (const Source& source : sources) n += source.n;
        return n;
    }

    void find(Table& table) {
        table.n_touched = 0;
        int64_t n_rows = 0;
        for (const Source& source : sources)
            n_rows = std::max(n_rows, source.of->first_row + source.of->n_ids);
        marks.resize(n_rows / 64 + 1);
        before.resize(marks.size());
        for (const Source& source : sources)
            for (int64_t i = 0; i < source.n; i++) {
                if (source.of->ids[i] >= source.of->n_ids) return;  // the call will fail by it
                const int64_t row = row_of(*source.of, i);
                marks[row / 64] |= uint64_t(1) << row % 64;
            }
        for (size_t word = 0; word < marks.size(); word++) {
            before[word] = int32_t(table.n_touched);
            for (uint64_t rest = marks[word]; rest; rest &= rest - 1)
                table.touched[table.n_touched++] = int64_t(word) * 64 + __builtin_ctzll(rest);
        }
    }

    // Sums of one of ``n`` shares of the rows, each in the order of the ids.
    void add_up(const Table& table, int64_t share, int64_t n) const {
        const int64_t begin = table.n_touched * share / n, end = table.n_touched * (share + 1) / n;
        if (begin == end) return;
        const int64_t width = table.width, first = table.touched[begin], last = table.touched[end - 1];
        std::fill(table.values + begin * width, table.values + end * width, 0.0f);
        for (const Source& source : sources)
            for (int64_t i = 0; i < source.n; i++) {
                const int64_t row = row_of(*source.of, i);
                if (row < first || row > last) continue;
                const float* gradient = source.values + i * source.stride;
                __builtin_prefetch(gradient + 12 * source.stride);
                float* to = table.values + number_of(row) * width;
                for (int64_t j = 0; j < width; j++) to[j] += gradient[j];
            }
    }
};

}  // namespace din
