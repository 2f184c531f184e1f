// Rows of a product of two matrices: counted, scored, and the best of each row selected.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "network.h"

namespace din {

class Largest {  // of a row's sizes above 0; of equal ones those of the first columns
    const size_t n;
    std::vector<uint64_t> keys, like;  // the bits of a size, which are in its order, then the column
    std::vector<uint32_t> n_keys;      // by their first bits

    static size_t first_bits(uint64_t key) { return key >> 52; }
    static int32_t column_of(uint64_t key) { return int32_t(UINT32_MAX - uint32_t(key)); }

public:
    explicit Largest(int64_t n) : n(n), n_keys(1 << 11) {}

    void offer(float size, int32_t column) {
        if (!(size > 0)) return;
        uint32_t bits;
        std::memcpy(&bits, &size, sizeof bits);
        keys.push_back(uint64_t(bits) << 32 | (UINT32_MAX - uint32_t(column)));
        n_keys[first_bits(keys.back())]++;
    }

    // Writes the columns in ascending order, returns their end, and begins anew.
    int32_t* write(int32_t* to) {
        int32_t* const begin = to;
        size_t least = 0, n_more = n;  // all larger ones, and so many like the least
        if (keys.size() > n)
            for (least = n_keys.size() - 1; n_keys[least] < n_more;) n_more -= n_keys[least--];
        for (const uint64_t key : keys) {
            n_keys[first_bits(key)] = 0;
            if (first_bits(key) > least) *to++ = column_of(key);
            else if (first_bits(key) == least) like.push_back(key);
        }
        if (n_more < like.size()) {
            std::nth_element(like.begin(), like.begin() + n_more, like.end(), std::greater<>());
            like.resize(n_more);
        }
        for (const uint64_t key : like) *to++ = column_of(key);
        std::sort(begin, to);
        keys.clear();
        like.clear();
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

// The largest numbers by size of each row of a matrix, (n_popular, n_popular).
inline void select_largest(const Pairs& p) {
    Largest best(p.n_best);
    int32_t* columns = p.columns;
    float* values = p.values;
    for (int64_t row = 0; row < p.n_popular; row++) {
        const float* numbers = p.gram + row * p.n_popular;
        for (int64_t i = 0; i < p.n_popular; i++) best.offer(std::fabs(numbers[i]), i);
        for (int32_t* const end = best.write(columns); columns < end; columns++)
            *values++ = numbers[*columns];
        p.ends[row + 1] = columns - p.columns;
    }
}

}  // namespace din
