// What Python calls: a step's memory, its tasks in the order of a queue, gradients in torch's order.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "optimizer.h"
#include "online_rows.h"
#include "pairs.h"
#include "rows.h"
#include "step.h"
#include "team.h"

namespace din {
namespace {

// A batch is cut into tasks of about as much work. Their number follows from the batch alone.
constexpr int64_t WORK_OF_TASK = 1536;  // its events, and its rows times WORK_OF_ROW
constexpr int64_t WORK_OF_ROW = 16;     // a row's MLP takes as long as the unit for so many events
constexpr int64_t LEAST_IDS = 16384;  // of all tables: below, threads cost more than they save

#if defined(__x86_64__)
// 2: AVX-512, 1: AVX2, 0: neither, in this processor and system. Not every compiler's runtime
// library answers __builtin_cpu_supports.
int64_t best_level() {
    unsigned a, b, c, d, low, high;
    constexpr unsigned FMA = 1u << 12, OSXSAVE = 1u << 27, AVX2 = 1u << 5, AVX512F = 1u << 16;
    if (!__get_cpuid(1, &a, &b, &c, &d) || ~c & (FMA | OSXSAVE)) return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));  // registers that the system saves
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & AVX2) || (low & 0x6) != 0x6) return 0;
    return b & AVX512F && (low & 0xe6) == 0xe6 ? 2 : 1;
}
#endif

Kernel* kernel_of(int64_t level) {
#if defined(__x86_64__)
    level = std::min(level, best_level());
    if (level > 0) return level == 2 ? avx512_kernel : avx2_kernel;
#endif
    (void)level;
    return plain_kernel;
}

std::atomic<Kernel*> kernel{kernel_of(2)};

// Numbers one after the other: counted where there is no memory yet, else placed.
struct Memory {
    uintptr_t base = 0, used = 0;
    float* floats(int64_t n) {
        const uintptr_t place = base + used;
        used += uintptr_t(padded(n)) * sizeof(float);
        return reinterpret_cast<float*>(place);
    }
};

class Block {  // of aligned memory, filled by a function that places numbers in it
    std::unique_ptr<char[]> memory;

public:
    template <class Place>
    void fill(Place place) {
        Memory counted;
        place(counted);
        constexpr uintptr_t LINE = 64;
        memory.reset(new char[counted.used + LINE]);
        Memory placed;
        placed.base = (reinterpret_cast<uintptr_t>(memory.get()) + LINE - 1) / LINE * LINE;
        place(placed);
    }
};

// Matrices of torch, (n_outputs, n_inputs), with padded rows, as they are and transposed.
void pack(const float* weight, int64_t ld, int64_t n_out, int64_t n_in, float* as_is, int64_t ld_in,
          float* transposed, int64_t ld_out, const float* less = nullptr, float sign = 1) {
    for (int64_t o = 0; o < n_out; o++)
        for (int64_t i = 0; i < n_in; i++)
            as_is[o * ld_in + i] = weight[o * ld + i] + (less ? sign * less[o * ld + i] : 0);
    for (int64_t begin = 0; begin < n_out; begin += PAD)
        for (int64_t i = 0; i < n_in; i++)
            for (int64_t o = begin; o < std::min(begin + PAD, n_out); o++)
                transposed[i * ld_out + o] = as_is[o * ld_in + i];
}

class Run {  // of one batch
public:
    // ``gradients`` is null where none are wanted.
    Run(const Network& network, float* logits, float* gradients)
        : net(network), logits(logits), gradients(gradients), own_team(net.team ? 1 : net.n_threads),
          is_guest(net.team && net.team->enter()), team(is_guest ? *net.team : own_team),
          events(net.n_behaviours) {
        step.net = &net;
        step.ld_inputs = padded(net.n_inputs);
        mlp = make_layers(net.layers, net.n_layers, net.n_inputs, step.ld_inputs);
        step.mlp = {mlp.data(), net.n_layers - 1};
        for (int64_t i = 0; i < net.n_behaviours; i++) describe(net.behaviours[i], events[i]);
        step.events = events.data();
        cut_into_tasks();
        weights.fill([&](Memory& m) { place_weights(m); });
        pack_weights();
        spaces.resize(tasks.size() > 1 ? team.size() : 1);
        of_events.resize(spaces.size() * events.size());
        scores.resize(spaces.size() * n_hidden);
        numbers.fill([&](Memory& m) { place_spaces(m); });
        if (gradients) place_gradients();
    }

    ~Run() {
        if (is_guest) net.team->leave();
    }

    void begin() {
        const int64_t n_tables = gradients ? net.n_tables : 0;  // the rows of which are found, too
        team.begin(tasks.size() + n_tables, tasks.size() > 1, [=](int64_t i, int64_t thread) {
            if (i < n_tables) touched[i].find(net.tables[i]);
            else run_task(i - n_tables, thread);
        });
    }

    // False: an id lies beyond its table.
    bool end() {
        team.end();
        for (const Task& task : tasks)
            if (task.is_wrong) return false;
        if (!gradients) return true;
        int64_t n_ids = 0;
        for (const TouchedRows& rows : touched) n_ids += rows.n_ids();
        const int64_t n = n_ids < LEAST_IDS ? 1 : net.n_threads;  // shares of each table
        team.begin(1 + n * net.n_tables, n > 1, [=](int64_t i, int64_t) {
            if (i == 0) write_layers();
            else touched[(i - 1) / n].add_up(net.tables[(i - 1) / n], (i - 1) % n, n);
        });
        team.end();
        if (net.updates && std::isfinite(logits[net.n_rows])) update_parameters();
        return true;
    }

private:
    void update_parameters() {
        const Updates& updates = *net.updates;
        const float* gradient = gradients;
        for (int64_t d = 0; d < updates.n_dense; d++) {
            updates.dense[d].gradient = gradient;
            gradient += updates.dense[d].n;
        }
        for (int64_t t = 0; t < updates.n_tables; t++) {
            RowUpdate& u = updates.tables[t];
            const Table& table = net.tables[t];
            u.touched = table.touched, u.n_touched = table.n_touched, u.gradient = table.values;
        }
        update(updates);
    }

    float loss_of(const float* logits) const {
        double sum = 0;
        for (int64_t row = 0; row < net.n_rows; row++) {
            const double x = logits[row], y = net.targets[row];
            const double loss =
                net.loss == LOG ? (1 - y) * x + std::max(-x, 0.0) + std::log1p(std::exp(-std::abs(x)))
                                : (x - y) * (x - y);
            sum += net.weights ? loss * net.weights[row] : loss;
        }
        return float(sum / net.n_joint_rows);
    }

    // A thread uses memory that it has used before: that lies in the cache of its processor.
    void run_task(int64_t number, int64_t thread) {
        Task& task = tasks[number];
        task.space = &spaces[thread];
        if (gradients) {
            task.sum = take_sum(free_sums[thread]);
            std::fill_n(task.sum, size_of_sum, 0.0f);
        }
        kernel.load()(step, task, logits);
        if (gradients) join_sums(number, free_sums[thread]);
    }

    float* take_sum(std::vector<float*>& unused) {
        if (unused.empty()) return sums + padded(size_of_sum) * n_sums++;
        float* const latest = unused.back();
        unused.pop_back();
        return latest;
    }

    // Adds sums of gradients in pairs, in pairs of pairs and so on, each as soon as both are known:
    // the order of additions follows from the number of tasks alone.
    void join_sums(int64_t task, std::vector<float*>& unused) {
        const int64_t n = tasks.size();
        for (int64_t size = 1; size < n; size *= 2) {
            const int64_t left = task / (2 * size) * (2 * size), right = left + size;
            if (right >= n) continue;  // there is no other half
            if (!is_half_known[right].exchange(true)) return;
            for (int64_t j = 0; j < size_of_sum; j++) tasks[left].sum[j] += tasks[right].sum[j];
            unused.push_back(tasks[right].sum);
        }
    }

    void write_layers() const {
        float* to = gradients;
        for (const Dense& layer : mlp) write_layer(layer, to);
        for (const Events& b : events) write_unit(b, to);
        if (net.loss != GIVEN) logits[net.n_rows] = loss_of(logits);
    }

    const Network net;
    float *const logits, *const gradients;
    Team own_team;
    const bool is_guest;
    Team& team;
    Step step{};
    std::vector<Dense> mlp;
    std::vector<Events> events;
    std::vector<std::vector<Dense>> units;
    std::vector<Task> tasks;
    std::vector<Space> spaces;
    std::vector<OfEvents> of_events;
    std::vector<float*> scores, powers;
    int64_t size_of_sum = 0, n_hidden = 0, longest = 0, widest = 0, largest = 0;
    Block weights, numbers, of_gradients;
    std::vector<float*> grad_keys;
    std::vector<TouchedRows> touched;  // of each table
    float* sums;  // of gradients, as many as there are tasks
    std::atomic<int64_t> n_sums{0};  // of them that some thread has taken
    std::vector<std::vector<float*>> free_sums;  // of each thread
    std::vector<std::atomic<bool>> is_half_known;  // by the first task of the right one

    std::vector<Dense> make_layers(const Linear* layers, int64_t n, int64_t n_in, int64_t ld_in) {
        std::vector<Dense> dense(n);
        for (int64_t i = 0; i < n; i++) {
            const int64_t n_out = layers[i].n_outputs, ld_out = padded(n_out);
            dense[i] = {&layers[i], n_in, n_out, ld_in, ld_out, nullptr, nullptr, nullptr, 0, 0, 0};
            dense[i].sum_of_weight = place_in_sum(n_out * ld_in);
            dense[i].sum_of_bias = place_in_sum(ld_out);
            dense[i].sum_of_slope = place_in_sum(1);
            widest = std::max({widest, ld_in, ld_out});
            n_in = n_out;
            ld_in = ld_out;
        }
        n_hidden += std::max<int64_t>(n - 1, 0);
        return dense;
    }

    int64_t place_in_sum(int64_t n) {
        size_of_sum += padded(n);
        return size_of_sum - padded(n);
    }

    void describe(const Behaviour& behaviour, Events& b) {
        b = {};
        b.of = &behaviour;
        b.attributes = net.ids + behaviour.first_ids;
        b.numbers = net.event_numbers + behaviour.first_number;
        const Linear* layers = net.layers + behaviour.first_layer;
        b.width = padded(behaviour.width);
        for (int64_t a = 0; a < behaviour.n_attributes; a++)
            b.n_compared += b.attributes[a].candidate >= 0;
        const int64_t n_relations =
            behaviour.is_extended ? net.n_decays * b.n_compared + 1 + behaviour.n_numbers : 0;
        b.ld = b.width + padded(n_relations);
        int64_t most = 0;
        for (int64_t row = 0; row < net.n_rows; row++) most = std::max(most, n_events(behaviour, row));
        b.most = std::max(EVENTS_PER_CHUNK, most);
        longest = std::max(longest, most);
        units.push_back(make_layers(layers, behaviour.n_layers, b.width + n_relations, b.ld));
        b.unit = {units.back().data(), behaviour.n_layers - 1};
        if (!behaviour.n_layers) return;
        b.sum_of_query = place_in_sum(layers[0].n_outputs * b.width);
        b.sum_of_pairs = place_in_sum(layers[0].n_outputs * b.width);
        b.sum_of_relations = place_in_sum(n_relations * padded(layers[0].n_outputs));
        step.widest_query = std::max(step.widest_query, padded(layers[0].n_outputs));
        largest = std::max(largest, b.ld * padded(layers[0].n_outputs));
    }

    void cut_into_tasks() {
        std::vector<int64_t> work(net.n_rows + 1, 0);
        for (int64_t row = 0; row < net.n_rows; row++) {
            work[row + 1] = work[row] + WORK_OF_ROW;
            for (const Events& b : events) work[row + 1] += n_events(*b.of, row);
        }
        const int64_t all = work.back();
        int64_t n = std::clamp<int64_t>(all / WORK_OF_TASK, 1, MOST_TASKS);
        n += n > 1 && n % 2;  // for two threads
        tasks.resize(n);
        for (int64_t i = 0, begin = 0; i < n; i++) {
            const int64_t end =
                std::upper_bound(work.begin() + begin, work.end(), all * (i + 1) / n) - work.begin() - 1;
            tasks[i] = {begin, end, false, nullptr, nullptr};
            begin = end;
        }
    }

    template <class Visit>
    void each_layer(Visit visit) {
        for (Dense& layer : mlp) visit(layer);
        for (auto& unit : units)
            for (Dense& layer : unit) visit(layer);
    }

    void place_weights(Memory& m) {
        each_layer([&](Dense& layer) {
            layer.forward = m.floats(layer.n_in * layer.ld_out);
            layer.backward = m.floats(layer.n_out * layer.ld_in);
            layer.bias = m.floats(layer.ld_out);
        });
        for (Events& b : events) {
            if (!b.of->n_layers) continue;
            for (float** part : {&b.query_forward, &b.pair_forward})
                *part = m.floats(b.width * b.unit.layers[0].ld_out);
            for (float** part : {&b.query_backward, &b.pair_backward})
                *part = m.floats(b.unit.layers[0].n_out * b.width);
        }
        powers.resize(net.n_decays);
        for (float*& of_decay : powers) of_decay = m.floats(longest);
        step.log_ranks = m.floats(longest);
    }

    void pack_weights() {
        each_layer([&](Dense& layer) {
            std::fill_n(layer.forward, layer.n_in * layer.ld_out, 0.0f);
            std::fill_n(layer.backward, layer.n_out * layer.ld_in, 0.0f);
            std::fill_n(layer.bias, layer.ld_out, 0.0f);
            std::copy_n(layer.of->bias, layer.n_out, layer.bias);
        });
        for (const Dense& layer : mlp) pack_layer(layer);
        for (const Events& b : events) {
            if (b.of->n_layers) pack_first_layer(b);
            for (int64_t l = 1; l < b.of->n_layers; l++) pack_layer(b.unit.layers[l]);
        }
        for (int64_t rank = 0; rank < longest; rank++) {
            for (int64_t d = 0; d < net.n_decays; d++)
                powers[d][rank] = std::pow(net.decays[d], float(rank));
            const_cast<float*>(step.log_ranks)[rank] = std::log1p(float(rank));
        }
        step.powers = powers.data();
    }

    static void pack_layer(const Dense& layer) {
        pack(layer.of->weight, layer.n_in, layer.n_out, layer.n_in, layer.backward, layer.ld_in,
             layer.forward, layer.ld_out);
    }

    // W [q; k; q - k; q * k; relations] = (Wq + Wd) q + (Wk - Wd) k + Wp (q * k) + Wr relations
    void pack_first_layer(const Events& b) {
        const Dense& first = b.unit.layers[0];
        const int64_t width = b.of->width, ld = first.of->n_inputs, n = first.n_out;
        const float* weight = first.of->weight;
        for (float* part : {b.query_forward, b.pair_forward})
            std::fill_n(part, b.width * first.ld_out, 0.0f);
        for (float* part : {b.query_backward, b.pair_backward}) std::fill_n(part, n * b.width, 0.0f);
        pack(weight, ld, n, width, b.query_backward, b.width, b.query_forward, first.ld_out,
             weight + 2 * width, 1);
        auto part = [&](int64_t from, int64_t size, int64_t to, const float* less) {
            pack(weight + from, ld, n, size, first.backward + to, first.ld_in,
                 first.forward + to * first.ld_out, first.ld_out, less, -1);
        };
        part(width, width, 0, weight + 2 * width);
        part(4 * width, ld - 4 * width, b.width, nullptr);
        pack(weight + 3 * width, ld, n, width, b.pair_backward, b.width, b.pair_forward, first.ld_out);
    }

    void place_spaces(Memory& m) {
        float** next = scores.data();
        OfEvents* own = of_events.data();
        int64_t of_rows = 0;
        const int64_t most = std::max({ROWS_PER_CHUNK, EVENTS_PER_BLOCK, longest});
        for (const Events& b : events) of_rows = std::max(of_rows, (4 + b.n_compared) * b.width);
        for (Space& space : spaces) {
            space = {m.floats(ROWS_PER_CHUNK * step.ld_inputs), m.floats(ROWS_PER_CHUNK), next, own,
                     {}, m.floats(ROWS_PER_CHUNK * (step.widest_query + of_rows)), {}};
            for (int64_t l = 0; l < step.mlp.n_hidden; l++)
                *next++ = m.floats(ROWS_PER_CHUNK * mlp[l].ld_out);
            for (const Events& b : events) {
                const int64_t n = b.most, n_rows = ROWS_PER_CHUNK;
                const int64_t n_totals = 3 + b.n_compared * net.n_counted + b.of->n_numbers;
                *own++ = {0, 0, m.floats(n * b.ld), m.floats(n), m.floats(n_rows * b.width),
                          m.floats(n_rows * b.width), m.floats(n_rows * (1 + b.n_compared) * b.width),
                          m.floats(n_rows * padded(n_totals)), next};
                for (int64_t l = 0; l < b.unit.n_hidden; l++)
                    *next++ = m.floats(n * b.unit.layers[l].ld_out);
            }
            for (float*& scratch : space.scratch) scratch = m.floats(most * widest);
            space.matrix = m.floats(largest);
        }
    }

    // Gradients in the order of Python's parameters: weight, bias and slope of each layer.
    void write_rest(const Dense& layer, float*& to) const {
        const float* sum = tasks[0].sum;
        to = std::copy_n(sum + layer.sum_of_bias, layer.n_out, to);
        if (layer.of->activation == PRELU) *to++ = sum[layer.sum_of_slope];
    }

    void write_layer(const Dense& layer, float*& to) const {
        for (int64_t o = 0; o < layer.n_out; o++)
            to = std::copy_n(tasks[0].sum + layer.sum_of_weight + o * layer.ld_in, layer.n_in, to);
        write_rest(layer, to);
    }

    void write_unit(const Events& b, float*& to) const {
        if (!b.of->n_layers) return;
        const Dense& first = b.unit.layers[0];
        const int64_t width = b.of->width, n_relations = first.of->n_inputs - 4 * width;
        for (int64_t o = 0; o < first.n_out; o++) {
            const float* query = tasks[0].sum + b.sum_of_query + o * b.width;
            const float* key = tasks[0].sum + first.sum_of_weight + o * first.ld_in;
            to = std::copy_n(query, width, to);
            to = std::copy_n(key, width, to);
            for (int64_t i = 0; i < width; i++) *to++ = query[i] - key[i];
            to = std::copy_n(tasks[0].sum + b.sum_of_pairs + o * b.width, width, to);
            const float* relation = tasks[0].sum + b.sum_of_relations + o;
            for (int64_t i = 0; i < n_relations; i++) *to++ = relation[i * first.ld_out];
        }
        write_rest(first, to);
        for (int64_t l = 1; l < b.of->n_layers; l++) write_layer(b.unit.layers[l], to);
    }

    void place_gradients() {
        grad_keys.resize(events.size());
        step.grad_keys = grad_keys.data();
        free_sums.resize(spaces.size());
        is_half_known = std::vector<std::atomic<bool>>(tasks.size());
        of_gradients.fill([&](Memory& m) {
            step.grad_inputs = m.floats(net.n_rows * step.ld_inputs);
            for (size_t b = 0; b < events.size(); b++)
                grad_keys[b] = m.floats(events[b].of->offsets[net.n_rows] * events[b].width);
            sums = m.floats(size_of_sum * tasks.size());
        });
        touched.resize(net.n_tables);
        for (int64_t f = 0; f < net.n_fields; f++)
            touched[net.ids[f].table].add({&net.ids[f], net.n_rows,
                                           step.grad_inputs + net.ids[f].column, step.ld_inputs});
        for (size_t b = 0; b < events.size(); b++)
            for (int64_t a = 0; a < events[b].of->n_attributes; a++) {
                const Ids& attribute = events[b].attributes[a];
                if (attribute.table < 0) continue;
                touched[attribute.table].add({&attribute, events[b].of->offsets[net.n_rows],
                                              grad_keys[b] + attribute.column, events[b].width});
            }
    }
};

// What a call came to: no exception may leave the library.
enum Code : int64_t { DONE, UNKNOWN_ID, NO_MEMORY, FAILED };

template <class Call>
Code code_of(Call call) {
    try {
        return call();
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    } catch (...) {
        return FAILED;
    }
}

}  // namespace
}  // namespace din

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

extern "C" {

// Fingerprint of the sources: structures of others would be read as something else.
EXPORT const char* din_sources() { return SOURCES; }

// 0: plain, 1: AVX2, 2: AVX-512; returns the best of them that this processor has.
EXPORT int64_t din_choose_kernels(int64_t level) {
    using namespace din;
    Kernel* chosen = kernel_of(level);
    kernel = chosen;
    while (level > 0 && kernel_of(level - 1) == chosen) level--;
    return level;
}

// Logits (n_rows,). Where ``gradients`` is not null, it gets those of the layers one after the other;
// those of the tables lie where ``Table`` says, and after the logits comes the loss, but of GIVEN.
EXPORT int64_t din_run(const din::Network* network, float* logits, float* gradients) {
    return din::code_of([&] {
        din::Run run(*network, logits, gradients);
        run.begin();
        return run.end() ? din::DONE : din::UNKNOWN_ID;
    });
}

// The same in two calls, between which threads compute; ``din_end`` must come after ``din_begin``,
// whatever happens meanwhile, before any memory of the call is freed.
EXPORT int64_t din_begin(
    const din::Network* network, float* logits, float* gradients, din::Run** run) {
    return din::code_of([&] {
        *run = new din::Run(*network, logits, gradients);
        (*run)->begin();
        return din::DONE;
    });
}

EXPORT int64_t din_end(din::Run** run) {
    const std::unique_ptr<din::Run> ended(std::exchange(*run, nullptr));
    return din::code_of([&] { return !ended || ended->end() ? din::DONE : din::UNKNOWN_ID; });
}

// The threads of a training. A team that a forked child has inherited, or that a call still uses, is
// left as it is.
EXPORT din::Team* din_open_team(int64_t n_threads) { return new din::Team(n_threads); }

EXPORT void din_close_team(din::Team* team) {
    if (team->enter()) delete team;
}

EXPORT int64_t din_update(const din::Updates* updates) {
    return din::code_of([&] {
        if (!din::are_known(*updates)) return din::UNKNOWN_ID;
        din::update(*updates);
        return din::DONE;
    });
}

EXPORT int64_t din_score_pairs(const din::Pairs* pairs, float shrinkage) {
    return din::code_of([&] { return din::score_pairs(*pairs, shrinkage), din::DONE; });
}

EXPORT int64_t din_update_rows(const din::OnlineRows* rows, double half_life) {
    return din::code_of([&] { return din::update_rows(*rows, half_life), din::DONE; });
}

EXPORT int64_t din_select_pairs(const din::Pairs* pairs) {
    return din::code_of([&] { return din::select_pairs(*pairs), din::DONE; });
}

}
