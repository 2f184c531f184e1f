// A step in parts: what the passes of step.cpp read and write. The memory is library.cpp's.
#pragma once
#include "network.h"

namespace din {

constexpr int64_t PAD = 16;              // widths are multiples of the widest register's numbers
constexpr int64_t EVENTS_PER_BLOCK = 192;  // what a block makes stays in the processor's cache
constexpr int64_t ROWS_PER_CHUNK = 64;   // forward and backward together: what a chunk makes
constexpr int64_t EVENTS_PER_CHUNK = 768;  // stays in the second cache
constexpr int64_t MOST_TASKS = 32;  // each has a sum of gradients

static inline int64_t padded(int64_t n) { return (n + PAD - 1) / PAD * PAD; }

struct Dense {  // a layer, its matrix with zeros up to the padded widths
    const Linear* of;
    int64_t n_in, n_out, ld_in, ld_out;
    float *forward, *backward, *bias;                 // (n_in, ld_out), (n_out, ld_in), (ld_out)
    int64_t sum_of_weight, sum_of_bias, sum_of_slope;  // places in a sum of gradients
};

struct Stack {  // hidden layers, and a last one of one output
    const Dense* layers;
    int64_t n_hidden;
};

struct Events {  // a behaviour
    const Behaviour* of;
    const Ids* attributes;
    const float* const* numbers;
    Stack unit;
    float *query_forward, *query_backward;  // first layer's part of the query: (width, ld_out), ...
    float *pair_forward, *pair_backward;    // and of query * key
    int64_t sum_of_query, sum_of_pairs, sum_of_relations;  // the last: (n_relations, ld_out)
    int64_t width, ld;  // padded: of keys, and of an event's inputs
    int64_t n_compared;
    int64_t most;  // events of a chunk
};

struct OfEvents {  // what a chunk's forward pass writes for one behaviour, from a row and an event on
    int64_t first_row, first_event;
    float *inputs, *weights, *queries, *pooled, *sums, *totals;
    float** scores;  // of each hidden layer: before a PReLU, after a sigmoid
};

struct Space {  // memory of a thread, for one chunk of rows at a time
    float *inputs, *grad_logits;
    float** scores;
    OfEvents* events;
    float* scratch[4];
    float *of_rows, *matrix;  // the latter as large as a unit's first layer
};

struct Task {  // consecutive rows
    int64_t begin, end;
    bool is_wrong;  // an id lies beyond its table
    float* sum;     // of gradients, as places in it say; null: none are wanted
    Space* space;
};

struct Step {
    const Network* net;
    Stack mlp;
    const Events* events;
    int64_t ld_inputs, widest_query;
    const float* const* powers;  // of each decay, by how many events have come since
    const float* log_ranks;
    float* grad_inputs;         // (n_rows, ld_inputs)
    float* const* grad_keys;    // by behaviour: (n_events, width)
};

// Logits of a task's rows, and their gradients: the same code for one kind of processor.
typedef void Kernel(const Step&, Task&, float* logits);
extern Kernel *const plain_kernel, *const avx2_kernel, *const avx512_kernel;

// Events of a row: where they begin among those of all rows, and where their ids lie.
static inline int64_t n_events(const Behaviour& b, int64_t row) {
    return b.is_shared ? b.offsets[1] : b.offsets[row + 1] - b.offsets[row];
}
static inline int64_t begin_of(const Behaviour& b, int64_t row) {
    return b.is_shared ? row * b.offsets[1] : b.offsets[row];
}
static inline int64_t source_of(const Behaviour& b, int64_t row) {
    return b.is_shared ? 0 : b.offsets[row];
}

}  // namespace din
