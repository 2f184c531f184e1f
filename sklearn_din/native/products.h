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

template <int ROWS, int WIDTH>  // of a tile of C, its width in registers
inline void add_tile(int64_t n, Matrix A, const float* B, int64_t ld_b, float* C, int64_t ld_c) {
    Lanes tile[ROWS][WIDTH];
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < WIDTH; j++) tile[i][j] = at(C + i * ld_c + LANES * j);
    for (int64_t k = 0; k < n; k++) {
        Lanes b[WIDTH];
        for (int j = 0; j < WIDTH; j++) b[j] = at(B + k * ld_b + LANES * j);
        for (int i = 0; i < ROWS; i++) {
            const float a = A.numbers[i * A.row + k * A.column];
            for (int j = 0; j < WIDTH; j++) tile[i][j] += a * b[j];
        }
    }
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < WIDTH; j++) at(C + i * ld_c + LANES * j) = tile[i][j];
}

template <int ROWS, int WIDTH>
void add_columns(
    int64_t m, int64_t n, Matrix A, const float* B, int64_t ld_b, float* C, int64_t ld_c) {
    int64_t i = 0;
    auto rest = [&] { return Matrix{A.numbers + i * A.row, A.row, A.column}; };
    for (; i + ROWS <= m; i += ROWS) add_tile<ROWS, WIDTH>(n, rest(), B, ld_b, C + i * ld_c, ld_c);
    for (; i + 4 <= m; i += 4) add_tile<4, WIDTH>(n, rest(), B, ld_b, C + i * ld_c, ld_c);
    for (; i + 2 <= m; i += 2) add_tile<2, WIDTH>(n, rest(), B, ld_b, C + i * ld_c, ld_c);
    if (i < m) add_tile<1, WIDTH>(n, rest(), B, ld_b, C + i * ld_c, ld_c);
}

// C += A B for A (m, n), B (n, width) and C (m, width), whose widths are padded. Each entry is a
// sum in the order of n, whatever m is.
void add_product(
    int64_t m, int64_t width, int64_t n, Matrix A, const float* B, int64_t ld_b, float* C,
    int64_t ld_c) {
    constexpr int64_t PIECE = 256;  // of a long sum
    for (int64_t k = 0; k < n; k += PIECE) {
        const int64_t size = n - k < PIECE ? n - k : PIECE;
        const Matrix a{A.numbers + k * A.column, A.row, A.column};
        const float* b = B + k * ld_b;
        int64_t j = 0;
#if LANES == 16  // 32 registers: 24 for the tile
        for (; j + 64 <= width; j += 64) add_columns<6, 4>(m, size, a, b + j, ld_b, C + j, ld_c);
        for (; j + 32 <= width; j += 32) add_columns<12, 2>(m, size, a, b + j, ld_b, C + j, ld_c);
        for (; j < width; j += 16) add_columns<12, 1>(m, size, a, b + j, ld_b, C + j, ld_c);
#else  // 16 registers: 12 for the tile
        for (; j < width; j += 2 * LANES) add_columns<6, 2>(m, size, a, b + j, ld_b, C + j, ld_c);
#endif
    }
}

}  // namespace
