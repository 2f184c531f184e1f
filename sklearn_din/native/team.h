// Threads that do the tasks of a step together.
#pragma once
#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace din {

// Threads that sleep until there are tasks, which each of them takes one after the other. Who waits
// for the end takes tasks, too: a thread that gets no processor delays at most the task that it has
// begun. A forked process has none of its parent's threads, and does not use the team.
class Team {
    typedef std::function<void(int64_t task, int64_t thread)> Work;
    const int64_t n_threads;
    const int64_t process = number_of_process();
    std::vector<std::thread> threads;  // from 1 on; 0 is the one that waits
    std::mutex mutex;                  // of what follows
    std::condition_variable has_tasks, is_done;
    Work work;
    int64_t next = 0, n_tasks = 0, n_running = 0;
    bool is_busy = false, is_closed = false, is_shared = false;
    std::exception_ptr failure;

    static int64_t number_of_process() {
#if defined(_WIN32)
        return 0;
#else
        return getpid();
#endif
    }

    // A thread may wake late, when tasks have come that are for the one who waits alone.
    bool has_task(int64_t thread) const { return next < n_tasks && (is_shared || thread == 0); }

    void take_tasks(int64_t thread, std::unique_lock<std::mutex>& lock) {
        while (has_task(thread)) {
            const int64_t task = next++;
            std::exception_ptr own;
            n_running++;
            lock.unlock();
            try {
                work(task, thread);
            } catch (...) {
                own = std::current_exception();
            }
            lock.lock();
            n_running--;
            if (own) failure = own;
        }
        if (!n_running) is_done.notify_one();
    }

    void serve(int64_t thread) {
        std::unique_lock<std::mutex> lock(mutex);
        while (!is_closed) {
            take_tasks(thread, lock);
            has_tasks.wait(lock, [&] { return is_closed || has_task(thread); });
        }
    }

    void start_threads() {
        try {
            while (int64_t(threads.size()) < n_threads - 1)
                threads.emplace_back(&Team::serve, this, threads.size() + 1);
        } catch (const std::exception&) {  // the system gives no more threads, or no memory
        }
    }

public:
    explicit Team(int64_t n_threads) : n_threads(std::max<int64_t>(n_threads, 1)) {}

    ~Team() {
        {
            std::lock_guard<std::mutex> lock(mutex);
            is_closed = true;
        }
        has_tasks.notify_all();
        for (std::thread& thread : threads) thread.join();
    }

    int64_t size() const { return n_threads; }

    // Whether the caller may use the team, until it leaves: one call at a time.
    bool enter() {
        if (process != number_of_process()) return false;
        std::lock_guard<std::mutex> lock(mutex);
        if (is_busy) return false;
        return is_busy = true;
    }

    void leave() {
        std::lock_guard<std::mutex> lock(mutex);
        is_busy = false;
    }

    // Has the threads begin; without ``shares`` all tasks are for the one who waits, as where they
    // are too small to be worth a thread.
    void begin(int64_t n, bool shares, Work given) {
        const bool are_several = shares && n > 1 && n_threads > 1;
        {
            std::lock_guard<std::mutex> lock(mutex);
            work = std::move(given);
            next = 0, n_tasks = n, is_shared = are_several;
            failure = nullptr;
        }
        if (!are_several) return;
        start_threads();
        for (int64_t i = 1; i < std::min(n, n_threads); i++) has_tasks.notify_one();
    }

    // Returns when all tasks are done; throws what one of them has thrown.
    void end() {
        std::unique_lock<std::mutex> lock(mutex);
        take_tasks(0, lock);
        is_done.wait(lock, [&] { return !n_running; });
        if (failure) std::rethrow_exception(failure);
    }
};

}  // namespace din
