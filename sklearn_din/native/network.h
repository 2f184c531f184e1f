// What Python hands over in every call: sizes, and pointers to the memory of torch's tensors.
// structures.py has the same members in the same order; each has eight bytes.
#pragma once
#include <cstdint>

namespace din {

class Team;

struct Ids {  // of a field, or of one attribute of a behaviour's events; of lists, their numbers
    const int32_t* ids;
    int64_t table, first_row, n_ids, width;  // of compared numbers: no table, no ids, 0, 0
    int64_t column;     // of a field among the MLP's inputs, of an attribute among the keys'
    int64_t candidate;  // of an attribute: the number of the field it is compared with, or -1
    const float* likeness;  // of lists and numbers: of each event's and its candidate's, 0 to 1
};

enum Activation : int64_t { NONE, PRELU, SIGMOID };

struct Linear {  // a linear layer and what follows it
    const float *weight, *bias, *slope;
    int64_t n_inputs, n_outputs, activation;
};

enum Factor : int64_t { ONE, SCALE, SCALE_SQUARED };  // of sums of events; scale: 1 / sqrt(length)

struct Behaviour {
    const int64_t* offsets;
    int64_t is_shared;  // all rows have the same events, which are held once
    int64_t first_ids, n_attributes, first_number, n_numbers;
    int64_t n_own_numbers;  // of events alone; the others are of rows and events
    int64_t first_layer, n_layers;  // of the activation unit, the last has one output; none: sums
    int64_t width, column, factor, is_extended, trains_embeddings;
};

struct Table {
    const float* rows;
    int64_t width;
    int64_t* touched;  // its gradient: distinct rows, ascending, and their values
    float* values;
    int64_t n_touched;
};

// A step of RowwiseAdam (training/optim.py).
struct Rates {
    double lr, of_mean, of_square, eps;  // of the moments: how much of them is kept
};

struct DenseUpdate {  // of all numbers of a parameter
    float* weight;
    const float* gradient;
    float *mean, *square, *n_steps;
    int64_t n;
    const Rates* rates;
};

struct RowUpdate {  // of a table's rows
    const int64_t* touched;  // ascending
    const float *gradient, *decay;  // (n_touched, width), and (n_ids,) or null
    float *table, *square;
    const int64_t* starts;  // of each vocabulary's rows
    float *total, *share;
    int64_t n_touched, n_rows, width, n_vocabularies;
    const Rates* rates;
};

struct Updates {
    DenseUpdate* dense;  // in the order of the gradients
    RowUpdate* tables;
    int64_t n_dense, n_tables;
};

enum Loss : int64_t { GIVEN, LOG, SQUARES };  // targets: gradients of the logits, or labels

struct Network {
    const Ids* ids;  // of the fields, then of the attributes
    const Behaviour* behaviours;
    const Linear* layers;  // of the MLP, the last has one output; then those of the units
    Table* tables;
    const float *numbers, *offsets;  // (n_rows,), added to the logits; may be null
    const float* const* event_numbers;
    const float* decays;
    int64_t n_fields, n_behaviours, n_layers, n_tables;
    int64_t n_numbers, n_inputs, n_decays, n_counted, n_added;
    const float *targets, *weights;  // (n_rows,), of the loss; weights may be null
    int64_t loss, n_joint_rows;      // the loss is the mean of so many rows
    int64_t n_rows, n_threads;
    Team* team;  // of so many threads; null: threads of the call's own
    Updates* updates;  // what becomes of the gradients; null: they are for the caller
};

struct Pairs {  // the rows of a product of two matrices, (n_ids, n_ids), and what is kept of them
    const int64_t *left_ends, *right_ends, *near_ends;  // behind a 0; ``near`` may be null
    const int32_t *left_columns, *right_columns, *near_columns;
    const float *right_values, *roots;
    const int32_t* popular;  // ids in ascending order
    float* gram;             // of the popular ones
    int64_t* ends;           // of the rows that are kept, ``columns`` and ``values``
    int32_t* columns;
    float* values;
    int64_t n_ids, n_inner, n_popular, n_best;
};

}  // namespace din
