// The passes of a step over the rows of a task, compiled once for each kind of processor (KERNEL).
//
// No template of the standard library is used here: the linker would keep one of its compilations
// for all processors, maybe that for the newest one.
#include "step.h"

#include <math.h>
#include <string.h>

#include "products.h"

namespace {

using namespace din;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

inline void copy(float* to, const float* from, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) at(to + i) = at(from + i);
    for (; i < n; i++) to[i] = from[i];
}
inline void swap(float*& a, float*& b) { float* const of_a = a; a = b, b = of_a; }
inline void clear(float* to, int64_t n) { memset(to, 0, n * sizeof(float)); }
inline void add(float* to, const float* from, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) at(to + i) += at(from + i);
}
inline void add_times(float* to, float times, const float* from, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) at(to + i) += times * at(from + i);
}
inline float dot(const float* a, const float* b, int64_t n) {
    Lanes sum = {};
    for (int64_t i = 0; i < n; i += LANES) sum += at(a + i) * at(b + i);
    return sum_of(sum);
}

const float once = 1;
const Matrix ONCE{&once, 0, 0};
// Adds to ``to`` the sum of rows, each as often as ``times`` says.
inline void add_rows(
    float* to, const float* from, int64_t width, int64_t n, int64_t ld, Matrix times = ONCE) {
    multiply(1, width, n, times, from, ld, Sum{to, width});
}

// Layers. Numbers of rows lie as (n, padded width).

// What follows a linear layer, and its gradient, both from the scores that the forward pass has
// written: before a PReLU, behind a sigmoid. A PReLU with a slope of one changes nothing.
struct Nonlinearity {
    bool is_sigmoid;
    float slope;
    explicit Nonlinearity(const Dense& layer)
        : is_sigmoid(layer.of->activation == SIGMOID), slope(is_sigmoid ? 0 : *layer.of->slope) {}
    Nonlinearity() : is_sigmoid(false), slope(1) {}
    Lanes output(Lanes s) const {
        if (is_sigmoid) return s;
        return s > 0 ? s : slope * s;
    }
    Lanes gradient(Lanes s, Lanes g, Lanes& of_slope) const {
        if (is_sigmoid) return g * (s * (1 - s));
        of_slope += s > 0 ? Lanes{} : s * g;
        return s > 0 ? g : slope * g;
    }
};

struct Scores {  // of a layer, from the same start in all rows, and its outputs
    const float* start;
    float *scores, *output;
    int64_t ld;
    Nonlinearity activation;
    Lanes begin(int64_t, int64_t j) const { return at(start + j); }
    template <int ROWS>
    void end(int64_t i, int64_t j, const Lanes (&sums)[ROWS]) const {
        for (int r = 0; r < ROWS; r++) {
            at(scores + (i + r) * ld + j) = sums[r];
            at(output + (i + r) * ld + j) = activation.output(sums[r]);
        }
    }
};

void run_layer(
    const Dense& layer, int64_t n, const float* inputs, const float* weight, const float* start,
    float* scores, float* output) {
    const Nonlinearity activation(layer);
    multiply(n, layer.ld_out, layer.n_in, {inputs, layer.ld_in, 1}, weight, layer.ld_out,
             Scores{start, scores, output, layer.ld_out, activation});
    for (int64_t i = 0; i < (activation.is_sigmoid ? n * layer.ld_out : 0); i++)
        output[i] = scores[i] = 1 / (1 + expf(-scores[i]));
}

// From the first layer's output, or the inputs where none is hidden, to one number for each row.
void run_stack(
    const Stack& stack, int64_t n, float* const* scores, int64_t at_row, float* output,
    float* other, float* results) {
    for (int64_t l = 1; l < stack.n_hidden; l++) {
        const Dense& layer = stack.layers[l];
        run_layer(layer, n, output, layer.forward, layer.bias, scores[l] + at_row * layer.ld_out,
                  other);
        swap(output, other);
    }
    const Dense& last = stack.layers[stack.n_hidden];
    for (int64_t i = 0; i < n; i++)
        results[i] = *last.of->bias + dot(output + i * last.ld_in, last.backward, last.ld_in);
}

struct Below {  // a layer's inputs once more, and the gradients of the scores that they came from
    Nonlinearity activation;
    const float* written;
    float *output, *gradient;
    int64_t ld;
    Lanes* of_slope;
    Lanes begin(int64_t, int64_t) const { return Lanes{}; }
    template <int ROWS>
    void end(int64_t i, int64_t j, const Lanes (&sums)[ROWS]) const {
        Lanes of_rows = {};
        for (int r = 0; r < ROWS; r++) {
            const int64_t place = (i + r) * ld + j;
            const Lanes s = at(written + place);
            at(output + place) = activation.output(s);
            at(gradient + place) = activation.gradient(s, sums[r], of_rows);
        }
        *of_slope += of_rows;
    }
};

void add_weight_gradient(
    const Dense& layer, int64_t n, const float* gradient, const float* inputs, float* sum) {
    const Matrix columns{gradient, 1, layer.ld_out};
    multiply(layer.n_out, layer.ld_in, n, columns, inputs, layer.ld_in,
             Sum{sum + layer.sum_of_weight, layer.ld_in});
}

// Returns the gradient of the slope below.
float last_layer_backward(
    const Dense& last, int64_t n, const float* written, Nonlinearity activation, const float* gradients,
    float* below, float* sum) {
    Lanes of_slope = {};
    for (int64_t j = 0; j < last.ld_in; j += LANES) {
        const Lanes weight = at(last.backward + j);
        Lanes of_weight = {};
        for (int64_t i = 0, place = j; i < n; i++, place += last.ld_in) {
            const Lanes s = at(written + place);
            of_weight += gradients[i] * activation.output(s);
            at(below + place) = activation.gradient(s, gradients[i] * weight, of_slope);
        }
        at(sum + last.sum_of_weight + j) += of_weight;
    }
    for (int64_t i = 0; i < n; i++) sum[last.sum_of_bias] += gradients[i];
    return sum_of(of_slope);
}

// Gradients of all but the first layer's weight, into ``sum``; returns that of its scores, or of
// the inputs (in scratch[0]) where no layer is hidden. ``scratch``: three of (n, widest layer).
float* run_stack_backward(
    const Stack& stack, int64_t n, float* const* scores, int64_t at_row, const float* gradients,
    float* const* scratch, float* sum) {
    float *output = scratch[0], *gradient = scratch[1], *below = scratch[2];
    if (!stack.n_hidden) {
        last_layer_backward(*stack.layers, n, output, Nonlinearity(), gradients, gradient, sum);
        return gradient;
    }
    for (int64_t l = stack.n_hidden; l > 0; l--) {
        const Dense &layer = stack.layers[l], &before = stack.layers[l - 1];
        const float* written = scores[l - 1] + at_row * before.ld_out;
        if (l == stack.n_hidden) {
            sum[before.sum_of_slope] +=
                last_layer_backward(layer, n, written, Nonlinearity(before), gradients, gradient, sum);
        } else {
            Lanes of_slope = {};
            multiply(n, layer.ld_in, layer.n_out, {gradient, layer.ld_out, 1}, layer.backward,
                     layer.ld_in,
                     Below{Nonlinearity(before), written, output, below, layer.ld_in, &of_slope});
            sum[before.sum_of_slope] += sum_of(of_slope);
            add_weight_gradient(layer, n, gradient, output, sum);
            swap(gradient, below);
        }
        add_rows(sum + before.sum_of_bias, gradient, before.ld_out, n, before.ld_out);
    }
    return gradient;
}

// Rows of embedding tables.

inline const float* row_of(const Network& net, const Ids& field, int64_t i, Task& task) {
    int64_t id = field.ids[i] < 0 ? 1 : field.ids[i];  // unknown ones are told apart below zero
    if (id >= field.n_ids) {
        task.is_wrong = true;
        id = 0;
    }
    return net.tables[field.table].rows + (field.first_row + id) * field.width;
}

// A behaviour's events. Those of a block lie one after the other: [key, relations]. The unit's first
// layer also takes query * key. All events of a row have the same query, so one product of the keys
// with the row's own matrix, Wk + diag(query) Wp, replaces two.

struct Block {
    int64_t begin, end, first_event, n;  // rows, and events
};

Block block_from(const Events& b, int64_t row, int64_t end) {
    Block block{row, row, begin_of(*b.of, row), 0};
    do block.n += n_events(*b.of, block.end++);
    while (block.end < end && block.n + n_events(*b.of, block.end) <= EVENTS_PER_BLOCK);
    return block;
}

void write_query(
    const Step& step, const Events& b, const float* inputs, float* query) {
    clear(query, b.width);
    for (int64_t a = 0; a < b.of->n_attributes; a++) {
        const Ids& attribute = b.attributes[a];
        if (attribute.candidate >= 0)
            copy(query + attribute.column, inputs + step.net->ids[attribute.candidate].column,
                 attribute.width);
    }
}

// Keys of a row's events by one attribute and, where they have the candidate's id, powers of the
// decays: among the relations of the ``c``-th attribute that is compared. Of lists and of numbers, the
// powers are multiplied by how like the candidate's an event's is.
void write_attribute(
    const Step& step, const Events& b, int64_t number, int64_t c, Task& task, int64_t row,
    float* inputs) {
    const Ids attribute = b.attributes[number];
    const Network& net = *step.net;
    const int64_t from = source_of(*b.of, row), n = n_events(*b.of, row), ld = b.ld;
    for (int64_t i = 0; i < (attribute.width ? n : 0); i++)
        copy(inputs + i * ld + attribute.column, row_of(net, attribute, from + i, task),
             attribute.width);
    if (attribute.candidate < 0 || !b.of->is_extended) return;
    float* const relations = inputs + b.width + c;
    if (attribute.likeness) {
        const float* const likeness = attribute.likeness + begin_of(*b.of, row);
        for (int64_t i = 0; i < n; i++)
            for (int64_t d = 0; d < net.n_decays; d++)
                relations[i * ld + d * b.n_compared] = likeness[i] * step.powers[d][n - 1 - i];
        return;
    }
    const int32_t shown = net.ids[attribute.candidate].ids[row];
    if (shown == 0 || shown == 1) return;
    for (int64_t i = 0; i < n; i++)
        for (int64_t d = 0; d < (attribute.ids[from + i] == shown ? net.n_decays : 0); d++)
            relations[i * ld + d * b.n_compared] = step.powers[d][n - 1 - i];
}

void write_events(const Step& step, const Events& b, Task& task, int64_t row, float* inputs) {
    const int64_t from = source_of(*b.of, row), n = n_events(*b.of, row);
    const int64_t at_others = b.width + step.net->n_decays * b.n_compared;
    for (int64_t i = 0; i < n; i++) {
        float* const of_event = inputs + i * b.ld;
        for (int64_t j = b.of->width / LANES * LANES; j < b.ld; j += LANES)
            at(of_event + j) = Lanes{};
        if (!b.of->is_extended) continue;
        of_event[at_others] = step.log_ranks[n - 1 - i];
        for (int64_t j = 0; j < b.of->n_numbers; j++)
            of_event[at_others + 1 + j] =
                b.numbers[j][(j < b.of->n_own_numbers ? from : begin_of(*b.of, row)) + i];
    }
    for (int64_t a = 0, c = 0; a < b.of->n_attributes; a++) {
        write_attribute(step, b, a, c, task, row, inputs);
        c += b.attributes[a].candidate >= 0;
    }
}

// The first layer's matrix for the events of a row. It differs from the layer's own where keys are
// compared with a candidate.
void write_matrix(const Events& b, const float* query, float* matrix) {
    const int64_t ld = b.unit.layers[0].ld_out;
    for (int64_t a = 0; a < b.of->n_attributes; a++) {
        const Ids& attribute = b.attributes[a];
        if (attribute.candidate < 0) continue;
        for (int64_t i = attribute.column; i < attribute.column + attribute.width; i++)
            for (int64_t o = i * ld; o < (i + 1) * ld; o += LANES)
                at(matrix + o) =
                    at(b.unit.layers[0].forward + o) + query[i] * at(b.pair_forward + o);
    }
}

// Weights of a block's events.
void weigh(const Events& b, const Block& block, Task& task, OfEvents& own) {
    const Dense& first = b.unit.layers[0];
    const int64_t ld = first.ld_out, from = block.first_event - own.first_event;
    const int64_t n_rows = block.end - block.begin;
    const float* queries = own.queries + (block.begin - own.first_row) * b.width;
    const float* keys = own.inputs + from * b.ld;
    float *scores = own.scores[0] + from * ld, *output = task.space->scratch[0];
    float *of_row = task.space->of_rows, *matrix = task.space->matrix;
    for (int64_t i = 0; i < n_rows; i++) copy(of_row + i * ld, first.bias, ld);
    multiply(n_rows, ld, b.width, {queries, b.width, 1}, b.query_forward, ld, Sum{of_row, ld});
    copy(matrix, first.forward, first.n_in * ld);
    for (int64_t row = block.begin; row < block.end; row++, queries += b.width, of_row += ld) {
        const int64_t n = n_events(*b.of, row);
        if (!n) continue;
        write_matrix(b, queries, matrix);
        run_layer(first, n, keys, matrix, of_row, scores, output);
        keys += n * b.ld;
        scores += n * ld;
        output += n * ld;
    }
    run_stack(b.unit, block.n, own.scores, from, task.space->scratch[0], task.space->scratch[1],
              own.weights + from);
}

float scale_of(float length) { return 1 / sqrtf(length > 1 ? length : 1); }

float factor_of(const Behaviour& b, float scale) {
    return b.factor == ONE ? 1 : b.factor == SCALE ? scale : scale * scale;
}

// Sums over the events of a row, (width,) each: by their weights, all alike, and for each compared
// attribute over those with the candidate's id. ``totals``: of weights, of their absolute values,
// the length, the events with the candidate's id, by how they are counted; of numbers by weights.
struct Sums {
    float *pooled, *all, *matching, *totals;
};

Sums sums_of(const Step& step, const Events& b, const OfEvents& own, int64_t row) {
    const int64_t i = row - own.first_row, n = 1 + b.n_compared;
    float* all = own.sums + i * n * b.width;
    const int64_t n_totals = padded(3 + b.n_compared * step.net->n_counted + b.of->n_numbers);
    return {own.pooled + i * b.width, all, all + b.width, own.totals + i * n_totals};
}

void sum_events(const Step& step, const Events& b, const OfEvents& own, int64_t row) {
    const Network& net = *step.net;
    const Sums s = sums_of(step, b, own, row);
    const int64_t n_counts = b.n_compared * net.n_counted, n = n_events(*b.of, row);
    clear(s.pooled, b.width);
    clear(s.all, (1 + b.n_compared) * b.width);
    clear(s.totals, padded(3 + n_counts + b.of->n_numbers));
    s.totals[2] = float(n);
    const int64_t from = begin_of(*b.of, row) - own.first_event;
    const float* key = own.inputs + from * b.ld;
    add_rows(s.all, key, b.width, n, b.ld);
    if (!b.of->n_layers) copy(s.pooled, s.all, b.width);
    else add_rows(s.pooled, key, b.width, n, b.ld, {own.weights + from, 0, 1});
    for (int64_t i = from; i < from + n; i++, key += b.ld) {
        const float weight = b.of->n_layers ? own.weights[i] : 1, *relations = key + b.width;
        s.totals[0] += weight;
        s.totals[1] += fabsf(weight);
        if (!b.of->is_extended) continue;
        for (int64_t c = 0; c < b.n_compared; c++) {
            if (relations[c] == 0) continue;
            for (int64_t d = 0; d < net.n_counted; d++)
                s.totals[3 + d * b.n_compared + c] += relations[d * b.n_compared + c];
            add_times(s.matching + c * b.width, relations[c], key, b.width);
        }
        const float* numbers = relations + net.n_decays * b.n_compared + 1;
        for (int64_t j = 0; j < b.of->n_numbers; j++)
            s.totals[3 + n_counts + j] += weight * numbers[j];
    }
}

// Calls ``visit(column of the key, width)`` for each attribute without a candidate.
template <class Visit>
inline void each_alone(const Events& b, Visit visit) {
    for (int64_t a = 0; a < b.of->n_attributes; a++)
        if (b.attributes[a].candidate < 0) visit(b.attributes[a].column, b.attributes[a].width);
}

// The MLP's inputs of a behaviour, in the order of Interest.columns.
void write_outputs(
    const Step& step, const Events& b, const OfEvents& own, int64_t row, float* to) {
    const Sums s = sums_of(step, b, own, row);
    const float *query = own.queries + (row - own.first_row) * b.width, length = s.totals[2];
    const float scale = scale_of(length), factor = factor_of(*b.of, scale);
    const int64_t width = b.of->width, n_counts = b.n_compared * step.net->n_counted;
    if (!b.of->is_extended) {
        for (int64_t i = 0; i < width; i++) to[i] = s.pooled[i] * factor;
        return;
    }
    for (int64_t i = 0; i < width; i++) *to++ = query[i] * (s.pooled[i] * factor);
    if (b.of->n_layers) {
        *to++ = copysignf(log1pf(fabsf(s.totals[0])), s.totals[0]);
        for (int64_t i = 0; i < width; i++) *to++ = query[i] * (s.all[i] * scale);
    }
    *to++ = log1pf(length);
    for (int64_t i = 0; i < n_counts; i++) *to++ = log1pf(s.totals[3 + i]);
    const float mass = s.totals[1] + 1;
    auto write = [&](const float* sums, float divisor) {
        each_alone(b, [&](int64_t column, int64_t n) {
            for (int64_t i = column; i < column + n; i++) *to++ = sums[i] / divisor;
        });
    };
    write(s.pooled, mass);
    for (int64_t i = 0; i < b.of->n_numbers; i++) *to++ = s.totals[3 + n_counts + i] / mass;
    write(s.all, length + step.net->n_added);
    for (int64_t c = 0; c < b.n_compared; c++)
        write(s.matching + c * b.width, s.totals[3 + c] + step.net->n_added);
}

void run_events(
    const Step& step, const Events& b, Task& task, OfEvents& own, int64_t begin, int64_t end) {
    const Space& space = *task.space;
    own.first_row = begin;
    own.first_event = begin_of(*b.of, begin);
    for (int64_t row = begin; row < end;) {
        const Block block = block_from(b, row, end);
        float* to = own.inputs + (block.first_event - own.first_event) * b.ld;
        for (; row < block.end; row++) {
            float* query = own.queries + (row - own.first_row) * b.width;
            write_query(step, b, space.inputs + (row - begin) * step.ld_inputs, query);
            write_events(step, b, task, row, to);
            to += n_events(*b.of, row) * b.ld;
        }
        if (b.of->n_layers) weigh(b, block, task, own);
        for (row = block.begin; row < block.end; row++) {
            sum_events(step, b, own, row);
            float* inputs = space.inputs + (row - begin) * step.ld_inputs;
            write_outputs(step, b, own, row, inputs + b.of->column);
        }
    }
}

void run_forward(const Step& step, Task& task, int64_t begin, int64_t end, float* logits) {
    const Network& net = *step.net;
    Space& space = *task.space;
    const int64_t n = end - begin;
    for (int64_t row = begin; row < end; row++) {
        float* to = space.inputs + (row - begin) * step.ld_inputs;
        copy(to, net.numbers + row * net.n_numbers, net.n_numbers);
        for (int64_t f = 0; f < net.n_fields; f++)
            copy(to + net.ids[f].column, row_of(net, net.ids[f], row, task), net.ids[f].width);
        clear(to + net.n_inputs, step.ld_inputs - net.n_inputs);
    }
    for (int64_t b = 0; b < net.n_behaviours; b++)
        run_events(step, step.events[b], task, space.events[b], begin, end);
    const Dense& first = step.mlp.layers[0];
    float* output = step.mlp.n_hidden ? space.scratch[0] : space.inputs;
    if (step.mlp.n_hidden)
        run_layer(first, n, space.inputs, first.forward, first.bias, space.scores[0], output);
    run_stack(step.mlp, n, space.scores, 0, output, space.scratch[1], logits);
    for (int64_t row = begin; net.offsets && row < end; row++) logits[row - begin] += net.offsets[row];
}

// Backward. ``gradient`` is that of the MLP's inputs of one row and behaviour.

struct RowGradients {  // (width,) each: of the weighted sum, of the plain one, of the query
    float *pooled, *all, *query, *matching;
    float of_weight, of_mass;
    const float* of_numbers;
};

RowGradients outputs_backward(
    const Step& step, const Events& b, const OfEvents& own, int64_t row, const float* gradient,
    float* memory) {
    const Sums s = sums_of(step, b, own, row);
    const float *query = own.queries + (row - own.first_row) * b.width, length = s.totals[2];
    const float scale = scale_of(length), factor = factor_of(*b.of, scale);
    const int64_t width = b.of->width, n_counts = b.n_compared * step.net->n_counted;
    clear(memory, (3 + b.n_compared) * b.width);
    RowGradients g{memory, memory + b.width, memory + 2 * b.width, memory + 3 * b.width, 0, 0, 0};
    if (!b.of->is_extended) {
        for (int64_t i = 0; i < width; i++) g.pooled[i] = gradient[i] * factor;
        return g;
    }
    for (int64_t i = 0; i < width; i++, gradient++) {
        g.pooled[i] = *gradient * factor * query[i];
        g.query[i] = *gradient * factor * s.pooled[i];
    }
    if (b.of->n_layers) {
        if (s.totals[0] != 0) g.of_weight = *gradient / (1 + fabsf(s.totals[0]));
        gradient++;
        for (int64_t i = 0; i < width; i++, gradient++) {
            g.all[i] = *gradient * scale * query[i];
            g.query[i] += *gradient * scale * s.all[i];
        }
    }
    gradient += 1 + n_counts;
    const float mass = s.totals[1] + 1;
    each_alone(b, [&](int64_t column, int64_t n) {
        for (int64_t i = column; i < column + n; i++, gradient++) {
            g.pooled[i] += *gradient / mass;
            g.of_mass -= *gradient * s.pooled[i] / (mass * mass);
        }
    });
    g.of_numbers = gradient;
    for (int64_t i = 0; i < b.of->n_numbers; i++, gradient++)
        g.of_mass -= *gradient * s.totals[3 + n_counts + i] / (mass * mass);
    auto read = [&](float* to, float divisor) {
        each_alone(b, [&](int64_t column, int64_t n) {
            for (int64_t i = column; i < column + n; i++) to[i] += *gradient++ / divisor;
        });
    };
    read(g.all, length + step.net->n_added);
    for (int64_t c = 0; c < b.n_compared; c++)
        read(g.matching + c * b.width, s.totals[3 + c] + step.net->n_added);
    return g;
}

// Gradients of the weights of a row's events.
void weights_backward(
    const Step& step, const Events& b, const OfEvents& own, int64_t row, const RowGradients& g,
    float* to) {
    const int64_t from = begin_of(*b.of, row) - own.first_event;
    const int64_t at_numbers = b.width + step.net->n_decays * b.n_compared + 1;
    const float mass = sums_of(step, b, own, row).totals[1] + 1;
    for (int64_t i = from; i < from + n_events(*b.of, row); i++) {
        const float *key = own.inputs + i * b.ld, weight = own.weights[i];
        float of_weight = dot(g.pooled, key, b.width) + g.of_weight;
        if (weight != 0) of_weight += weight > 0 ? g.of_mass : -g.of_mass;
        for (int64_t j = 0; j < (g.of_numbers ? b.of->n_numbers : 0); j++)
            of_weight += g.of_numbers[j] / mass * key[at_numbers + j];
        *to++ = of_weight;
    }
}

// The unit's gradients but for the keys'; returns those of the first layer's scores.
// ``of_queries`` (n_rows, width) gets what the queries have by the first layer.
const float* unit_backward(
    const Events& b, const Block& block, Task& task, const OfEvents& own, const float* of_weights,
    float* of_queries) {
    const Dense& first = b.unit.layers[0];
    const int64_t from = block.first_event - own.first_event, n_rows = block.end - block.begin;
    const float* of_scores = run_stack_backward(b.unit, block.n, own.scores, from, of_weights,
                                                task.space->scratch, task.sum);
    const float* relations = own.inputs + from * b.ld + b.width;
    multiply(first.n_in - b.width, first.ld_out, block.n, {relations, 1, b.ld}, of_scores,
             first.ld_out, Sum{task.sum + b.sum_of_relations, first.ld_out});
    float* by_row = task.space->of_rows;
    clear(by_row, n_rows * first.ld_out);
    for (int64_t row = block.begin; row < block.end; row++)
        add_rows(by_row + (row - block.begin) * first.ld_out,
                 of_scores + (begin_of(*b.of, row) - block.first_event) * first.ld_out,
                 first.ld_out, n_events(*b.of, row), first.ld_out);
    const float* queries = own.queries + (block.begin - own.first_row) * b.width;
    multiply(first.n_out, b.width, n_rows, {by_row, 1, first.ld_out}, queries, b.width,
             Sum{task.sum + b.sum_of_query, b.width});
    if (b.of->trains_embeddings)
        multiply(n_rows, b.width, first.n_out, {by_row, first.ld_out, 1}, b.query_backward, b.width,
                 Sum{of_queries, b.width});
    return of_scores;
}

// What becomes of the gradient G of a row's matrix. The scores of the row's events are
// K M for their keys K and M = Wk + diag(q) Wp with the query q (see ``weigh``), and G, transposed as
// the weights of torch are, is the product of the scores' gradients and the keys. Then
//   gradient of Wk:   G
//   gradient of Wp:   G diag(q)
//   gradient of q_i:  the sum over outputs o of G[o, i] Wp[o, i]
// Where keys learn, ``matrix`` gets M, transposed, by which the scores' gradients become theirs.
struct OfMatrix {
    const Events& b;
    float* sum;
    const float* query;
    float *of_query, *matrix;
    Lanes begin(int64_t, int64_t) const { return Lanes{}; }
    template <int ROWS>
    void end(int64_t o, int64_t i, const Lanes (&sums)[ROWS]) const {
        const Dense& first = b.unit.layers[0];
        const Lanes q = at(query + i);
        float* of_key = sum + first.sum_of_weight + o * first.ld_in + i;
        float* of_pair = sum + b.sum_of_pairs + o * b.width + i;
        for (int r = 0; r < ROWS; r++) {
            at(of_key + r * first.ld_in) += sums[r];
            at(of_pair + r * b.width) += sums[r] * q;
        }
        if (!matrix) return;
        const float* key = first.backward + o * first.ld_in + i;
        const float* pair = b.pair_backward + o * b.width + i;
        Lanes by_pair = {};
        for (int r = 0; r < ROWS; r++) {
            const Lanes p = at(pair + r * b.width);
            by_pair += sums[r] * p;
            at(matrix + (o + r) * b.width + i) = at(key + r * first.ld_in) + p * q;
        }
        at(of_query + i) += by_pair;
    }
};

// What the first layer's scores of a row's events give to its part of the keys and of query * key;
// adds to the gradients of the keys and of the query, where these learn by it.
void weigh_keys_backward(
    const Events& b, Task& task, int64_t n, const float* of_scores, const float* keys,
    const float* query, float* of_query, float* of_keys) {
    const Dense& first = b.unit.layers[0];
    float* matrix = b.of->trains_embeddings ? task.space->matrix : nullptr;
    multiply(first.n_out, b.width, n, {of_scores, 1, first.ld_out}, keys, b.ld,
             OfMatrix{b, task.sum, query, of_query, matrix});
    if (matrix)
        multiply(n, b.width, first.n_out, {of_scores, first.ld_out, 1}, matrix, b.width,
                 Sum{of_keys, b.width});
}

// Gradients of a row's keys by the sums of events.
void sums_backward(
    const Events& b, const OfEvents& own, int64_t row, const RowGradients& g, float* to) {
    const int64_t from = begin_of(*b.of, row) - own.first_event, width = b.width;
    for (int64_t i = from; i < from + n_events(*b.of, row); i++, to += width) {
        const float* relations = own.inputs + i * b.ld + width;
        const float weight = !b.of->n_layers ? 1 : b.of->trains_embeddings ? own.weights[i] : 0;
        for (int64_t j = 0; j < width; j += LANES)
            at(to + j) = at(g.all + j) + weight * at(g.pooled + j);
        for (int64_t c = 0; c < (b.of->is_extended ? b.n_compared : 0); c++)
            if (relations[c] != 0) add_times(to, relations[c], g.matching + c * width, width);
    }
}

void add_to_candidates(const Step& step, const Events& b, const float* query, float* gradient) {
    for (int64_t a = 0; a < b.of->n_attributes; a++) {
        const Ids& attribute = b.attributes[a];
        if (attribute.candidate < 0) continue;
        float* to = gradient + step.net->ids[attribute.candidate].column;
        for (int64_t i = 0; i < attribute.width; i++) to[i] += query[attribute.column + i];
    }
}

void run_events_backward(const Step& step, int64_t number, Task& task, int64_t begin, int64_t end) {
    const Events& b = step.events[number];
    const OfEvents& own = task.space->events[number];
    while (begin < end) {
        const Block block = block_from(b, begin, end);
        const int64_t size = (3 + b.n_compared) * b.width;
        float* of_rows = task.space->of_rows + ROWS_PER_CHUNK * step.widest_query;
        float* weights = task.space->scratch[3];
        RowGradients of_row[ROWS_PER_CHUNK];
        for (int64_t row = block.begin; row < block.end; row++) {
            const float* gradient = step.grad_inputs + row * step.ld_inputs + b.of->column;
            RowGradients& g = of_row[row - block.begin];
            g = outputs_backward(step, b, own, row, gradient, of_rows + (row - block.begin) * size);
            if (b.of->n_layers)
                weights_backward(step, b, own, row, g,
                                 weights + begin_of(*b.of, row) - block.first_event);
        }
        const float* of_scores = nullptr;
        float* by_unit = of_rows + ROWS_PER_CHUNK * size;
        if (b.of->n_layers) {
            clear(by_unit, (block.end - block.begin) * b.width);
            of_scores = unit_backward(b, block, task, own, weights, by_unit);
        }
        for (int64_t row = block.begin; row < block.end; row++) {
            const RowGradients& g = of_row[row - block.begin];
            const int64_t first = begin_of(*b.of, row), n = n_events(*b.of, row);
            float* of_keys = step.grad_keys[number] + first * b.width;
            sums_backward(b, own, row, g, of_keys);
            if (of_scores) {
                const float* query = own.queries + (row - own.first_row) * b.width;
                const float* keys = own.inputs + (first - own.first_event) * b.ld;
                add(g.query, by_unit + (row - block.begin) * b.width, b.width);
                if (n) weigh_keys_backward(b, task, n, of_scores, keys, query, g.query, of_keys);
                of_scores += n * b.unit.layers[0].ld_out;
            }
            add_to_candidates(step, b, g.query, step.grad_inputs + row * step.ld_inputs);
        }
        begin = block.end;
    }
}

void run_backward(const Step& step, Task& task, int64_t begin, int64_t end) {
    Space& space = *task.space;
    const int64_t n = end - begin;
    float* of_inputs = step.grad_inputs + begin * step.ld_inputs;
    if (!step.mlp.n_hidden) copy(space.scratch[0], space.inputs, n * step.ld_inputs);
    const float* gradient = run_stack_backward(step.mlp, n, space.scores, 0, space.grad_logits,
                                               space.scratch, task.sum);
    if (step.mlp.n_hidden) {
        const Dense& first = step.mlp.layers[0];
        add_weight_gradient(first, n, gradient, space.inputs, task.sum);
        clear(of_inputs, n * step.ld_inputs);
        multiply(n, step.ld_inputs, first.n_out, {gradient, first.ld_out, 1}, first.backward,
                 step.ld_inputs, Sum{of_inputs, step.ld_inputs});
    } else {
        copy(of_inputs, gradient, n * step.ld_inputs);
    }
    for (int64_t b = 0; b < step.net->n_behaviours; b++)
        run_events_backward(step, b, task, begin, end);
}

float gradient_of(const Network& net, int64_t row, float logit) {
    const float target = net.targets[row];
    if (net.loss == GIVEN) return target;
    const float error = net.loss == LOG ? 1 / (1 + expf(-logit)) - target : 2 * (logit - target);
    return error * (net.weights ? net.weights[row] : 1) / net.n_joint_rows;
}

int64_t end_of_chunk(const Step& step, int64_t begin, int64_t end) {
    end = smaller(begin + ROWS_PER_CHUNK, end);
    for (int64_t b = 0; b < step.net->n_behaviours; b++) {
        const Behaviour& of = *step.events[b].of;
        while (end > begin + 1 && begin_of(of, end) - begin_of(of, begin) > EVENTS_PER_CHUNK) end--;
    }
    return end;
}

void run(const Step& step, Task& task, float* logits) {
    for (int64_t begin = task.begin, end; begin < task.end; begin = end) {
        end = end_of_chunk(step, begin, task.end);
        run_forward(step, task, begin, end, logits + begin);
        if (!task.sum) continue;
        for (int64_t row = begin; row < end; row++)
            task.space->grad_logits[row - begin] = gradient_of(*step.net, row, logits[row]);
        run_backward(step, task, begin, end);
    }
}

}  // namespace

namespace din {
extern Kernel* const KERNEL = run;
}
