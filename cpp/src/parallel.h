// A loop on libtorch's own threads.
//
// at::parallel_for runs on one thread in code that is compiled without OpenMP,
// as the shim is: with -fopenmp it would need the OpenMP library of one
// libtorch by its name, which differs between the builds of libtorch. The entry
// point is the same in all of them, and in Intel's library. It is found among
// the libraries that libtorch_cpu depends on; without it, the loop runs on one
// thread.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>

extern "C" __attribute__((weak)) void GOMP_parallel(void (*run)(void *),
                                                    void *data,
                                                    unsigned threads,
                                                    unsigned flags);

namespace ct {

// Counts the calls of ct_set_num_threads, from 1.
inline std::atomic<uint64_t> thread_settings{1};

// Whether each can use as many threads as libtorch's operators do.
inline bool has_threads() {
  return GOMP_parallel != nullptr || at::get_num_threads() < 2;
}

// Calls f(i) for i from 0 to n - 1, on all threads if parallel is set. Each
// thread takes the next i when it is ready, so that a thread that has to wait
// for a core does not delay the others. If f throws, the loop ends early, and
// each throws the first exception.
template <class F>
void each(int64_t n, bool parallel, const F &f) {
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), n);
  if (!parallel || threads < 2 || GOMP_parallel == nullptr ||
      at::in_parallel_region()) {
    for (int64_t i = 0; i < n; i++) f(i);
    return;
  }
  struct Loop {
    const F &f;
    const int64_t n;
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr failure{};
  } loop{f, n};
  GOMP_parallel(
      [](void *data) {
        auto &loop = *static_cast<Loop *>(data);
        try {
          for (int64_t i; (i = loop.next.fetch_add(1)) < loop.n;) loop.f(i);
        } catch (...) {
          loop.next = loop.n;
          if (!loop.failed.exchange(true))
            loop.failure = std::current_exception();
        }
      },
      &loop, static_cast<unsigned>(threads), 0);
  if (loop.failed) std::rethrow_exception(loop.failure);
}

}  // namespace ct
