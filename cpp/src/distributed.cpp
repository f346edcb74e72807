// Collective operations with libtorch's c10d: Gloo, and NCCL for CUDA tensors.
//
// CMakeLists.txt defines CYCLECAP_GLOO if this libtorch has them. Otherwise
// every function fails with an error that says so.
#include "common.h"

#ifdef CYCLECAP_GLOO

#include <signal.h>

#include <chrono>
#include <memory>
#include <vector>

// ProcessGroupGloo.hpp includes Gloo's headers, which are not part of libtorch.
// CMake creates empty files instead, and these declarations are all that is
// needed from them. No object of these classes is created or used here.
namespace gloo {
class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};
namespace transport {
class Device;
class UnboundBuffer {
 public:
  ~UnboundBuffer();
};
}  // namespace transport
namespace rendezvous {
class Store {
 public:
  virtual ~Store();
  virtual void set(const std::string &, const std::vector<char> &) = 0;
  virtual std::vector<char> get(const std::string &) = 0;
  virtual void wait(const std::vector<std::string> &) = 0;
  virtual void wait(const std::vector<std::string> &,
                    const std::chrono::milliseconds &) = 0;
};
}  // namespace rendezvous
}  // namespace gloo

#define USE_C10D_GLOO
#include <sstream>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "nccl.h"

struct ct_group_s {
  c10::intrusive_ptr<c10d::Store> store;  // rank 0's store serves the others
  std::chrono::milliseconds timeout;
  c10::intrusive_ptr<c10d::Backend> gloo;
  c10::intrusive_ptr<c10d::Backend> nccl;  // null until ct_group_open_nccl
  bool failed = false;                     // an operation of nccl
};

struct ct_store_s {
  c10::intrusive_ptr<c10d::Store> store;
};

namespace {

// As in Python: the interfaces listed in GLOO_SOCKET_IFNAME, otherwise the one
// that the host name of this machine resolves to, otherwise loopback.
void add_devices(c10d::ProcessGroupGloo::Options &options) {
  const char *names = std::getenv("GLOO_SOCKET_IFNAME");
  std::istringstream list(names != nullptr ? names : "");
  for (std::string name; std::getline(list, name, ',');)
    if (!name.empty())
      options.devices.push_back(
          c10d::ProcessGroupGloo::createDeviceForInterface(name));
  if (options.devices.empty())
    options.devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
  options.threads = static_cast<int>(options.devices.size()) * 2;
}

at::Tensor plain(ct_tensor h) {
  at::Tensor t = ct::borrow(h);
  TORCH_CHECK(t.defined(), "expected a tensor, got none");
  TORCH_CHECK(t.is_contiguous(), "the tensor is not contiguous");
  TORCH_CHECK(!t.device().is_meta(), "a meta tensor has no data to send");
  return t;
}

// Calls f, which communicates with other processes. Gloo's exceptions are not
// libtorch's: one that is not a c10::Error is a connection problem.
template <class F>
ct_error talk(F &&f) noexcept {
  return ct::guard([&] {
    try {
      f();
    } catch (const c10::Error &) {
      throw;
    } catch (const std::bad_alloc &) {
      throw;
    } catch (const std::exception &e) {
      C10_THROW_ERROR(DistBackendError, e.what());
    }
  });
}

// Threads that are started in its life don't get SIGPIPE. Gloo's write to
// processes that may have ended, and Go keeps that signal from its own threads
// only: on another one it would end this process as well.
class WithoutSigpipe {
 public:
  WithoutSigpipe() {
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, &before_);
  }
  ~WithoutSigpipe() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  WithoutSigpipe(const WithoutSigpipe &) = delete;
  WithoutSigpipe &operator=(const WithoutSigpipe &) = delete;

 private:
  sigset_t before_;
};

// The same prefixes as in Python's init_process_group, so that Python processes
// can join the group.
c10::intrusive_ptr<c10d::Store> store_of(ct_group g, const char *device) {
  c10::intrusive_ptr<c10d::Store> store = g->store;
  for (const char *prefix : {"default_pg", "0/", device})
    store = c10::make_intrusive<c10d::PrefixStore>(prefix, store);
  return store;
}

// The key under which a process stores the size of the group that it joins, and
// its address.
std::string joined(int rank) {
  return "cyclecap/joined/" + std::to_string(rank);
}

// The size of the group that a process joins, or 0 if it has stored none: it
// has not joined yet, or is not ours.
int size_of(c10d::Store &store, int rank) {
  const std::string key = joined(rank);
  return store.check({key}) ? std::stoi(store.get_to_str(key)) : 0;
}

// Throws if a process of the group was started with another size. Gloo connects
// each pair on its own, and so cannot tell.
void check_sizes(c10d::Store &store, int size) {
  for (int i = 0; i < size; i++) {
    int theirs;
    try {
      theirs = size_of(store, i);
    } catch (const c10::Error &) {
      return;  // rank 0 has already ended, and its store with it
    }
    if (theirs != 0 && theirs != size)
      C10_THROW_ERROR(DistBackendError, "rank " + std::to_string(i) +
                                            " was started with WORLD_SIZE=" +
                                            std::to_string(theirs));
  }
}

const ct_nccl_functions *nccl_functions() {
  return static_cast<const ct_nccl_functions *>(
      ct::part("libcyclecap_torch_nccl.so", "ct_nccl_functions_get",
               "NCCL's header nccl.h, or headers of CUDA's libraries"));
}

// Calls f with the backend for a tensor.
template <class F>
void with_backend(ct_group g, const at::Tensor &t, F &&f) {
  if (g->nccl == nullptr || !t.is_cuda()) return f(*g->gloo);
  const WithoutSigpipe threads;  // the first operation starts NCCL's threads
  try {
    f(*g->nccl);
  } catch (...) {
    g->failed = true;
    throw;
  }
}

}  // namespace

extern "C" {

int ct_group_available(void) { return 1; }

ct_error ct_group_new(const char *host, int port, int listener, int rank,
                      int size, const char *prefix, const char *address,
                      int64_t join_ms, int64_t timeout_ms, ct_group *group) {
  return talk([&] {
    const WithoutSigpipe threads;
    const auto timeout = std::chrono::milliseconds(timeout_ms);
    c10d::TCPStoreOptions tcp;
    tcp.port = static_cast<uint16_t>(port);
    tcp.isServer = listener >= 0;
    if (listener >= 0)
      tcp.masterListenFd = listener;
    else
      tcp.numWorkers = size;  // Python's rank 0 counts those who say so
    tcp.useLibUV = false;  // the libuv server of 2.6 does not accept a listener
    tcp.timeout = std::chrono::milliseconds(join_ms);
    auto g = std::make_unique<ct_group_s>();
    g->timeout = timeout;
    g->store = c10::make_intrusive<c10d::TCPStore>(host, tcp);
    if (*prefix != '\0')
      g->store = c10::make_intrusive<c10d::PrefixStore>(prefix, g->store);
    g->store->set(joined(rank), std::to_string(size) + " " + address);
    g->store->setTimeout(timeout);
    auto options = c10d::ProcessGroupGloo::Options::create(timeout);
    add_devices(*options);
    g->gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(
        store_of(g.get(), "cpu/"), rank, size, options);
    check_sizes(*g->store, size);
    *group = g.release();
  });
}

ct_error ct_store_open(const char *host, int port, int64_t timeout_ms,
                       ct_store *store) {
  return talk([&] {
    const WithoutSigpipe threads;
    c10d::TCPStoreOptions tcp;
    tcp.port = static_cast<uint16_t>(port);
    tcp.useLibUV = false;
    tcp.timeout = std::chrono::milliseconds(timeout_ms);
    *store = new ct_store_s{c10::make_intrusive<c10d::TCPStore>(host, tcp)};
  });
}

void ct_store_free(ct_store s) { delete s; }

ct_error ct_store_get(ct_store s, const char *key, char **text) {
  return talk([&] {
    *text = ct::copy_string(s->store->check({key}) ? s->store->get_to_str(key)
                                                   : "");
  });
}

ct_error ct_store_set(ct_store s, const char *key, const char *value) {
  return talk([&] { s->store->set(std::string(key), std::string(value)); });
}

ct_error ct_group_open_nccl(ct_group g, int *found) {
  return talk([&] {
    *found = ct::has_part("libcyclecap_torch_nccl.so");
    if (!*found || g->nccl != nullptr) return;
    const WithoutSigpipe threads;
    g->nccl = nccl_functions()->create(store_of(g, "cuda/"), g->gloo->getRank(),
                                       g->gloo->getSize(), g->timeout);
  });
}

void ct_group_free(ct_group g) {
  if (g->nccl != nullptr)
    ct_free(talk([&] { nccl_functions()->end(g->nccl.get(), g->failed); }));
  delete g;
}

ct_error ct_group_all_reduce(ct_group g, ct_tensor h, int average) {
  return talk([&] {
    std::vector<at::Tensor> t{plain(h)};
    TORCH_CHECK(!average || t[0].is_floating_point() || t[0].is_complex(),
                "an average requires a floating point dtype, got ",
                t[0].scalar_type());
    // A sum; Gloo has no average.
    with_backend(g, t[0], [&](c10d::Backend &b) { b.allreduce(t)->wait(); });
    if (average) t[0].detach().div_(g->gloo->getSize());
  });
}

ct_error ct_group_broadcast(ct_group g, ct_tensor h, int root) {
  return talk([&] {
    std::vector<at::Tensor> t{plain(h)};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    with_backend(g, t[0],
                 [&](c10d::Backend &b) { b.broadcast(t, options)->wait(); });
  });
}

ct_error ct_group_all_gather(ct_group g, ct_tensor h, const ct_tensor *out) {
  return talk([&] {
    std::vector<at::Tensor> in{plain(h)};
    std::vector<std::vector<at::Tensor>> all(1);
    for (int i = 0; i < g->gloo->getSize(); i++)
      all[0].push_back(plain(out[i]));
    with_backend(g, in[0],
                 [&](c10d::Backend &b) { b.allgather(all, in)->wait(); });
  });
}

ct_error ct_group_barrier(ct_group g) {
  return talk([&] { g->gloo->barrier()->wait(); });
}

}  // extern "C"

#else

namespace {
ct_error missing() {
  return ct::guard([] {
    TORCH_CHECK_NOT_IMPLEMENTED(
        false,
        "the libtorch that the shim was built with has no c10d with Gloo");
  });
}
}  // namespace

extern "C" {

int ct_group_available(void) { return 0; }
ct_error ct_group_new(const char *, int, int, int, int, const char *,
                      const char *, int64_t, int64_t, ct_group *) {
  return missing();
}
ct_error ct_store_open(const char *, int, int64_t, ct_store *) {
  return missing();
}
void ct_store_free(ct_store) {}
ct_error ct_store_get(ct_store, const char *, char **) { return missing(); }
ct_error ct_store_set(ct_store, const char *, const char *) {
  return missing();
}
ct_error ct_group_open_nccl(ct_group, int *) { return missing(); }
void ct_group_free(ct_group) {}
ct_error ct_group_all_reduce(ct_group, ct_tensor, int) { return missing(); }
ct_error ct_group_broadcast(ct_group, ct_tensor, int) { return missing(); }
ct_error ct_group_all_gather(ct_group, ct_tensor, const ct_tensor *) {
  return missing();
}
ct_error ct_group_barrier(ct_group) { return missing(); }

}  // extern "C"

#endif
