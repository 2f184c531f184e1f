// Rows of a product of two matrices: counted, scored, and the best of each row selected.
#pragma once
#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

#include "network.h"

namespace din {

class Largest {  // of a row's sizes above 0; of equal ones those of the first columns
    const size_t n;
    std::vector<uint64_t> keys;  // the bits of a size, which are in its order, then the column

public:
    explicit Largest(int64_t n) : n(n) {}

    void offer(float size, int32_t column) {
        if (!(size > 0)) return;
        uint32_t bits;
        std::memcpy(&bits, &size, sizeof bits);
        keys.push_back(uint64_t(bits) << 32 | (UINT32_MAX - uint32_t(column)));
    }

    // Writes the columns in ascending order, returns their end, and begins anew.
    int32_t* write(int32_t* to) {
        if (n < keys.size()) {
            std::nth_element(keys.begin(), keys.begin() + n, keys.end(), std::greater<>());
            keys.resize(n);
        }
        int32_t* const begin = to;
        for (const uint64_t key : keys) *to++ = int32_t(UINT32_MAX - uint32_t(key));
        std::sort(begin, to);
        keys.clear();
        return to;
    }
};

class Product {  // of ``left``, whose values are 1, and ``right``; one row at a time
    const Pairs& p;
    std::vector<int64_t> next;  // of each row of ``right``: from where on it counts
    std::vector<int32_t> touched;

public:
    std::vector<float> sums;
    int64_t n_touched = 0;

    explicit Product(const Pairs& p)
        : p(p), next(p.right_ends, p.right_ends + p.n_inner), touched(p.n_ids + 1), sums(p.n_ids) {}

    // Adds up a row; ``is_upper``: from the diagonal on, where all earlier rows have been.
    void add_up(int64_t row, bool is_upper) {
        for (const int32_t column : *this) sums[column] = 0;
        n_touched = 0;
        for (int64_t i = p.left_ends[row]; i < p.left_ends[row + 1]; i++) {
            const int64_t inner = p.left_columns[i], end = p.right_ends[inner + 1];
            for (int64_t k = next[inner]; k < end; k++) {
                const int32_t column = p.right_columns[k];
                touched[n_touched] = column;
                n_touched += sums[column] == 0;
                sums[column] += p.right_values[k];
            }
            next[inner] += is_upper;
        }
    }
    const int32_t* begin() const { return touched.data(); }
    const int32_t* end() const { return touched.data() + n_touched; }
};

// The popular items' sums, and of all items the largest cosines: sums over the root of the product
// of both items' numbers of users and a constant.
inline void score_pairs(const Pairs& p, float shrinkage) {
    Product product(p);
    Largest best(p.n_best);
    int32_t* columns = p.columns;
    float *values = p.values, *gram = p.gram;
    for (int64_t row = 0, rank = 0; row < p.n_ids; row++) {
        product.add_up(row, false);
        const float *sums = product.sums.data(), root = p.roots[row];
        auto cosine = [&](int64_t j) { return sums[j] / (root * p.roots[j] + shrinkage); };
        if (rank < p.n_popular && p.popular[rank] == row) {
            for (int64_t i = 0; i < p.n_popular; i++) *gram++ = sums[p.popular[i]];
            rank++;
        }
        for (const int32_t column : product)
            if (column != row) best.offer(cosine(column), column);
        for (int32_t* const end = best.write(columns); columns < end; columns++)
            *values++ = cosine(*columns);
        p.ends[row + 1] = columns - p.columns;
    }
}

// The sums of the upper triangle: all, or those of two popular items and those that ``near`` has.
inline void select_pairs(const Pairs& p) {
    Product product(p);
    std::vector<int64_t> wanted_by(p.n_ids, -1);
    std::vector<bool> is_popular(p.n_ids);
    for (int64_t i = 0; i < p.n_popular; i++) is_popular[p.popular[i]] = true;
    int32_t* columns = p.columns;
    float* values = p.values;
    for (int64_t row = 0; row < p.n_ids; row++) {
        product.add_up(row, true);
        if (p.near_ends)
            for (int64_t i = p.near_ends[row]; i < p.near_ends[row + 1]; i++)
                wanted_by[p.near_columns[i]] = row;
        int32_t* end = columns;
        for (const int32_t j : product)
            if (!p.near_ends || wanted_by[j] == row || (is_popular[row] && is_popular[j])) *end++ = j;
        std::sort(columns, end);
        for (; columns < end; columns++) *values++ = product.sums[*columns];
        p.ends[row + 1] = columns - p.columns;
    }
}

}  // namespace din
