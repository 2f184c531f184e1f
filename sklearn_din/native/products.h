// Products of matrices: tiles of the result stay in registers while the sum runs.
#pragma once
#include <cstdint>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

namespace {

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline Lanes& at(float* numbers) { return *reinterpret_cast<Lanes*>(numbers); }
inline const Lanes& at(const float* numbers) { return *reinterpret_cast<const Lanes*>(numbers); }

inline float sum_of(Lanes lanes) {
    typedef float Four __attribute__((vector_size(16)));
    Four sum = {lanes[0], lanes[1], lanes[2], lanes[3]};
    for (int i = 4; i < LANES; i += 4)
        sum += Four{lanes[i], lanes[i + 1], lanes[i + 2], lanes[i + 3]};
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

struct Matrix {  // its entry (i, k) lies at numbers[i * row + k * column]
    const float* numbers;
    int64_t row, column;
};

// What a product starts from and what becomes of its sums, ROWS of one column of registers at a
// time: here C += A B.
struct Sum {
    float* to;
    int64_t ld;
    Lanes begin(int64_t i, int64_t j) const { return at(to + i * ld + j); }
    template <int ROWS>
    void end(int64_t i, int64_t j, const Lanes (&sums)[ROWS]) const {
        for (int r = 0; r < ROWS; r++) at(to + (i + r) * ld + j) = sums[r];
    }
};

template <int ROWS, int WIDTH, class Ends>  // of a tile, its width in registers
[[gnu::always_inline]] inline void run_tile(
    int64_t i, int64_t j, int64_t n, Matrix A, const float* B, int64_t ld_b, Ends ends) {
    Lanes tile[WIDTH][ROWS];
    for (int w = 0; w < WIDTH; w++)
        for (int r = 0; r < ROWS; r++) tile[w][r] = ends.begin(i + r, j + LANES * w);
    const float* a = A.numbers + i * A.row;
    for (const float* b = B + j; n > 0; n--, a += A.column, b += ld_b) {
        Lanes row[WIDTH];
        for (int w = 0; w < WIDTH; w++) row[w] = at(b + LANES * w);
        for (int r = 0; r < ROWS; r++)
            for (int w = 0; w < WIDTH; w++) tile[w][r] += a[r * A.row] * row[w];
    }
    for (int w = 0; w < WIDTH; w++) ends.end(i, j + LANES * w, tile[w]);
}

template <int ROWS, int WIDTH, class Ends>
void run_columns(
    int64_t m, int64_t j, int64_t n, Matrix A, const float* B, int64_t ld_b, Ends ends) {
    int64_t i = 0;
    for (; i + ROWS <= m; i += ROWS) run_tile<ROWS, WIDTH>(i, j, n, A, B, ld_b, ends);
    for (; i + 4 <= m; i += 4) run_tile<4, WIDTH>(i, j, n, A, B, ld_b, ends);
    for (; i + 2 <= m; i += 2) run_tile<2, WIDTH>(i, j, n, A, B, ld_b, ends);
    if (i < m) run_tile<1, WIDTH>(i, j, n, A, B, ld_b, ends);
}

// A B for A (m, n) and B (n, width), whose width is padded. Each entry is a sum in the order of n,
// whatever m is.
template <class Ends>
void multiply(
    int64_t m, int64_t width, int64_t n, Matrix A, const float* B, int64_t ld_b, Ends ends) {
    int64_t j = 0;
#if LANES == 16  // of 32 registers; as fast as taller tiles, and fewer rows are left over
    for (; j + 64 <= width; j += 64) run_columns<4, 4>(m, j, n, A, B, ld_b, ends);
    if (j + 48 == width) return run_columns<4, 3>(m, j, n, A, B, ld_b, ends);
    if (j + 32 == width) return run_columns<12, 2>(m, j, n, A, B, ld_b, ends);
    if (j + 16 == width) run_columns<12, 1>(m, j, n, A, B, ld_b, ends);
#else  // 16 registers: 12 for the tile
    for (; j < width; j += 2 * LANES) run_columns<6, 2>(m, j, n, A, B, ld_b, ends);
#endif
}

}  // namespace
