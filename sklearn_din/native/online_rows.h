// An online model, updated row by row: AdPredictor (Graepel et al., ICML 2010), a Gaussian weight per
// key and a bias, probit likelihood, assumed-density filtering. logs/online_updates.py is the twin in
// Python, with the same operations in the same order.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace din {

struct OnlineRows {
    const int32_t* keys;        // (n_columns, n_rows): number of each row's key, -1 where missing
    const double* times;        // (n_rows,), ascending
    const int8_t* labels;       // (n_rows,), 0 or 1
    const double* priors;       // (n_columns + 1,): prior variances, that of the bias last
    const int64_t* first_keys;  // (n_columns + 1,): where each column's keys begin in the state
    double *precisions, *shifts, *updated;  // (n_keys + 1,): the state; precision 0: never updated
    double *row_precisions, *row_shifts;    // (n_columns + 1, n_rows): after each row; or null
    const int32_t* asked_keys;   // (n_columns, n_asked): keys of rows to predict
    const int64_t* asked_after;  // (n_asked,), ascending: how many rows are known before each
    const double* asked_times;   // (n_asked,)
    double* rates;               // (n_asked,): their probabilities
    int64_t n_columns, n_rows, n_asked;
};

constexpr double LEAST_PROBABILITY = 1e-12, LEAST_SHRINKAGE = 1e-9;

struct Weight {
    double mean, variance;
};

// Weight of a key (or, after the last column, of the bias) at a time: what was learnt fades.
inline Weight weight_at(
    const OnlineRows& of, int64_t column, int64_t key, double time, double half_life) {
    const double prior = of.priors[column];
    if (key < 0) return {0, prior};
    const int64_t at = of.first_keys[column] + key;
    double precision = of.precisions[at], shift = of.shifts[at];
    if (precision == 0) return {0, prior};
    if (half_life > 0 && column < of.n_columns) {
        const double elapsed = std::max(time - of.updated[at], 0.0);
        const double kept = std::pow(0.5, elapsed / half_life);
        precision = 1 / prior + (precision - 1 / prior) * kept;
        shift = shift * kept;
    }
    return {shift / precision, 1 / precision};
}

inline int64_t key_of(const OnlineRows& of, const int32_t* keys, int64_t n, int64_t column, int64_t i) {
    return column < of.n_columns ? keys[column * n + i] : 0;
}

inline double rate_of(const OnlineRows& of, int64_t i, double half_life) {
    double mean = 0, variance = 0;
    for (int64_t c = 0; c <= of.n_columns; c++) {
        const int64_t key = key_of(of, of.asked_keys, of.n_asked, c, i);
        const Weight weight = weight_at(of, c, key, of.asked_times[i], half_life);
        mean += weight.mean;
        variance += weight.variance;
    }
    return 0.5 * std::erfc(-mean / std::sqrt(1 + variance) / std::sqrt(2.0));
}

// Update all weights of a row. ``weights`` is memory for n_columns + 1 of them.
inline void update_row(const OnlineRows& of, int64_t i, double half_life, Weight* weights) {
    const double time = of.times[i], sign = of.labels[i] ? 1 : -1;
    double mean = 0, variance = 0;
    for (int64_t c = 0; c <= of.n_columns; c++) {
        weights[c] = weight_at(of, c, key_of(of, of.keys, of.n_rows, c, i), time, half_life);
        mean += weights[c].mean;
        variance += weights[c].variance;
    }
    const double spread = std::sqrt(1 + variance), z = sign * mean / spread;
    const double probability = 0.5 * std::erfc(-z / std::sqrt(2.0));
    const double density = std::exp(-z * z / 2) / std::sqrt(2 * 3.141592653589793);
    const double v = probability > LEAST_PROBABILITY ? density / probability : -z;
    const double w = v * (v + z);
    for (int64_t c = 0; c <= of.n_columns; c++) {
        const int64_t key = key_of(of, of.keys, of.n_rows, c, i);
        if (key < 0) continue;
        const int64_t at = of.first_keys[c] + key;
        const Weight before = weights[c];
        const double new_mean = before.mean + sign * before.variance / spread * v;
        const double shrinkage = 1 - before.variance / (spread * spread) * w;
        const double new_variance = before.variance * std::max(shrinkage, LEAST_SHRINKAGE);
        of.precisions[at] = 1 / new_variance;
        of.shifts[at] = new_mean / new_variance;
        of.updated[at] = time;
        if (!of.row_precisions) continue;
        of.row_precisions[c * of.n_rows + i] = of.precisions[at];
        of.row_shifts[c * of.n_rows + i] = of.shifts[at];
    }
}

inline void update_rows(const OnlineRows& of, double half_life) {
    std::vector<Weight> weights(of.n_columns + 1);
    int64_t asked = 0;
    for (int64_t i = 0; i <= of.n_rows; i++) {
        for (; asked < of.n_asked && of.asked_after[asked] <= i; asked++)
            of.rates[asked] = rate_of(of, asked, half_life);
        if (i < of.n_rows) update_row(of, i, half_life, weights.data());
    }
}

}  // namespace din
