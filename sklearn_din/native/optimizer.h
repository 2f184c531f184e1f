// A step of RowwiseAdam (training/optim.py): what it does to the parameters.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "network.h"

namespace din {

// Moves the numbers of a parameter as Adam does.
inline void move_numbers(const DenseUpdate& u) {
    const Rates& rates = *u.rates;
    *u.n_steps += 1;
    const double by_root = 1 / std::sqrt(1 - std::pow(rates.of_square, *u.n_steps));
    const float by_step = float(rates.lr / (1 - std::pow(rates.of_mean, *u.n_steps)));
    const float root = float(by_root), eps = float(rates.eps);
    const float of_mean = float(1 - rates.of_mean), of_square = float(1 - rates.of_square);
    const float* __restrict gradient = u.gradient;
    float *__restrict weight = u.weight, *__restrict mean = u.mean, *__restrict square = u.square;
    for (int64_t i = 0; i < u.n; i++) {
        mean[i] += of_mean * (gradient[i] - mean[i]);
        square[i] += of_square * (gradient[i] * gradient[i] - square[i]);
        weight[i] -= by_step * mean[i] / (std::sqrt(square[i]) * root + eps);
    }
}

inline float gradient_of(const RowUpdate& u, int64_t i, int64_t j) {
    const float own = u.gradient[i * u.width + j];
    if (!u.decay) return own;
    return own + u.decay[u.touched[i]] * u.table[u.touched[i] * u.width + j];
}

// Moves the touched rows of a table.
inline void move_rows(const RowUpdate& u) {
    const float kept = float(u.rates->of_square), rate = float(u.rates->lr), eps = float(u.rates->eps);
    std::vector<float> latest(u.n_touched);
    for (int64_t i = 0; i < u.n_touched; i++) {
        float sum = 0;
        for (int64_t j = 0; j < u.width; j++) sum += gradient_of(u, i, j) * gradient_of(u, i, j);
        latest[i] = sum / u.width;
    }
    int64_t i = 0;
    for (int64_t v = 0; v < u.n_vocabularies; v++) {
        const bool is_last = v + 1 == u.n_vocabularies;
        const int64_t begin = i;
        float sum = 0;
        for (; i < u.n_touched && (is_last || u.touched[i] < u.starts[v + 1]); i++) sum += latest[i];
        const int64_t n = i - begin;
        u.total[v] += (1 - kept) * (sum / std::max<int64_t>(n, 1) - u.total[v]);
        u.share[v] += (1 - kept) * ((n > 0) - u.share[v]);
        const float typical = u.total[v] / std::max(u.share[v], 1 - kept);
        for (int64_t k = begin; k < i; k++) {
            float& square = u.square[u.touched[k]];
            square += (1 - kept) * (latest[k] - square);
            const float step = rate / (std::sqrt(square + typical) + eps);
            float* values = u.table + u.touched[k] * u.width;
            for (int64_t j = 0; j < u.width; j++) values[j] -= step * gradient_of(u, k, j);
        }
    }
}

// Whether all rows lie within their tables.
inline bool are_known(const Updates& updates) {
    for (int64_t t = 0; t < updates.n_tables; t++) {
        const RowUpdate& u = updates.tables[t];
        for (int64_t i = 0; i < u.n_touched; i++)
            if (u.touched[i] < 0 || u.touched[i] >= u.n_rows) return false;
    }
    return true;
}

// By one thread: numbers that another one has written are far from the thread that packs them next.
inline void update(const Updates& updates) {
    for (int64_t d = 0; d < updates.n_dense; d++) move_numbers(updates.dense[d]);
    for (int64_t t = 0; t < updates.n_tables; t++) move_rows(updates.tables[t]);
}

}  // namespace din
