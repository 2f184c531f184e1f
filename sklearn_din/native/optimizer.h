// What an optimizer's step does to parameters (training/optim.py).
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "network.h"

namespace din {

// Moves the touched rows of a table. False, and nothing moved: one lies beyond the table.
inline bool update_rows(const RowUpdate& u, float rate, float kept, float eps) {
    std::vector<float> gradient(u.n_touched * u.width), latest(u.n_touched);
    for (int64_t i = 0; i < u.n_touched; i++) {
        const int64_t row = u.touched[i];
        if (row < 0 || row >= u.n_rows) return false;
        const float* values = u.table + row * u.width;
        float *to = gradient.data() + i * u.width, sum = 0;
        const float decay = u.decay ? u.decay[row] : 0;
        for (int64_t j = 0; j < u.width; j++) to[j] = u.gradient[i * u.width + j] + decay * values[j];
        for (int64_t j = 0; j < u.width; j++) sum += to[j] * to[j];
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
            for (int64_t j = 0; j < u.width; j++) values[j] -= step * gradient[k * u.width + j];
        }
    }
    return true;
}

}  // namespace din
