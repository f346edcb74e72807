// The memory of the device.
//
// A range of addresses is reserved twice. The device's addresses lie in the
// first half, which nobody can ever access. The bytes of an address p are at
// the same distance into the second half, and only this library computes that
// address (behind). So a wrong access fails on every thread at any time, also
// while an operator runs on another one.
#include <c10/util/Exception.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>

#include "device.h"

namespace testdevice {

namespace {

constexpr size_t capacity = size_t{16} << 30;
constexpr size_t alignment = 64;  // of libtorch's CPU allocations
char *base = nullptr;

// Free ranges by offset and by size, and the sizes of those in use.
std::mutex mutex;
std::map<size_t, size_t> free_ranges, used_ranges;
std::set<std::pair<size_t, size_t>> by_size;
size_t in_use = 0;

void add_free(size_t offset, size_t size) {
  free_ranges[offset] = size;
  by_size.insert({size, offset});
}

void remove_free(std::map<size_t, size_t>::iterator it) {
  by_size.erase({it->second, it->first});
  free_ranges.erase(it);
}

void release(void *address) {
  if (address == nullptr) return;
  std::lock_guard<std::mutex> lock(mutex);
  size_t offset = static_cast<char *>(address) - base;
  const auto used = used_ranges.find(offset);
  size_t size = used->second;
  used_ranges.erase(used);
  in_use -= size;
  // Large blocks return to the system, so that the tests stay small.
  if (size >= size_t{1} << 20)
    madvise(base + capacity + offset, size, MADV_DONTNEED);
  auto next = free_ranges.lower_bound(offset);
  if (next != free_ranges.end() && next->first == offset + size) {
    size += next->second;
    const auto after = std::next(next);
    remove_free(next);
    next = after;
  }
  if (next != free_ranges.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == offset) {
      offset = before->first;
      size += before->second;
      remove_free(before);
    }
  }
  add_free(offset, size);
}

struct DeviceAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    if (n == 0) return {nullptr, nullptr, &release, device};
    const size_t size = (n + alignment - 1) / alignment * alignment;
    std::lock_guard<std::mutex> lock(mutex);
    const auto best = by_size.lower_bound({size, 0});
    TORCH_CHECK_WITH(OutOfMemoryError, n <= capacity && best != by_size.end(),
                     "out of memory on ", device, ": tried to allocate ", n,
                     " bytes; ", in_use, " of ", capacity, " are in use");
    const auto [found, offset] = *best;
    remove_free(free_ranges.find(offset));
    if (found > size) add_free(offset + size, found - size);
    used_ranges[offset] = size;
    in_use += size;
    // As on a GPU, new memory contains anything: here, NaN.
    std::memset(base + capacity + offset, 0xff, n);
    void *address = base + offset;
    return {address, address, &release, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void *dest, const void *src, size_t n) const override {
    std::memcpy(behind(dest), behind(src), n);
  }
};

// Host memory that counts as pinned.
std::map<const char *, size_t> pinned;

void release_pinned(void *p) {
  if (p == nullptr) return;
  {
    std::lock_guard<std::mutex> lock(mutex);
    pinned.erase(static_cast<char *>(p));
  }
  std::free(p);
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    const c10::Device cpu(c10::kCPU);
    if (n == 0) return {nullptr, nullptr, &release_pinned, cpu};
    void *p = nullptr;
    TORCH_CHECK_WITH(OutOfMemoryError, posix_memalign(&p, alignment, n) == 0,
                     "cannot allocate ", n, " bytes of pinned memory");
    std::lock_guard<std::mutex> lock(mutex);
    pinned[static_cast<char *>(p)] = n;
    return {p, p, &release_pinned, cpu};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release_pinned; }
  void copy_data(void *dest, const void *src, size_t n) const override {
    std::memcpy(dest, src, n);
  }
};

// ---- signals

struct sigaction previous_segv, previous_bus;

// Only async-signal-safe functions may be called here.
void print(const char *s) {
  if (write(STDERR_FILENO, s, std::strlen(s)) < 0) return;
}

void print_hex(uintptr_t v) {
  char text[2 + 16 + 1] = "0x";
  int n = 2;
  for (int shift = 60; shift >= 0; shift -= 4)
    text[n++] = "0123456789abcdef"[v >> shift & 15];
  text[n] = 0;
  print(text);
}

// Every fault goes on to the handler that was installed before. Go's prints the
// stacks of the goroutines and ends the program, and turns faults that are none
// of ours (a nil pointer in Go) into panics, as it would without this handler.
void on_fault(int number, siginfo_t *info, void *context) {
  const char *address = static_cast<char *>(info->si_addr);
  if (address >= base && address < base + capacity) {
    print("testdevice: the host accessed device memory at ");
    print_hex(reinterpret_cast<uintptr_t>(address));
    print(
        ": a tensor on privateuseone:0 was read or written without a copy to "
        "the CPU\n");
  }
  const struct sigaction &previous =
      number == SIGBUS ? previous_bus : previous_segv;
  if (previous.sa_flags & SA_SIGINFO) {
    previous.sa_sigaction(number, info, context);
  } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(number);
  } else {
    signal(number, SIG_DFL);  // the access repeats and ends the program
  }
}

// Go requires SA_ONSTACK, because goroutines have small stacks, and its handler
// expects that all signals are blocked.
void install(int number, struct sigaction *previous) {
  struct sigaction action = {};
  action.sa_sigaction = &on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigfillset(&action.sa_mask);
  TORCH_CHECK(sigaction(number, &action, previous) == 0,
              "cannot install a signal handler: ", std::strerror(errno));
}

}  // namespace

void open_memory() {
  void *p = mmap(nullptr, 2 * capacity, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  TORCH_CHECK(p != MAP_FAILED, "cannot reserve ", 2 * capacity,
              " bytes of addresses: ", std::strerror(errno));
  TORCH_CHECK(mprotect(static_cast<char *>(p) + capacity, capacity,
                       PROT_READ | PROT_WRITE) == 0,
              "cannot make memory accessible: ", std::strerror(errno));
  base = static_cast<char *>(p);
  add_free(0, capacity);
  install(SIGSEGV, &previous_segv);
  install(SIGBUS, &previous_bus);
}

c10::Allocator *allocator() {
  static DeviceAllocator a;
  return &a;
}

void *behind(const void *address) {
  if (address == nullptr) return nullptr;
  return static_cast<char *>(const_cast<void *>(address)) + capacity;
}

int64_t allocated() {
  std::lock_guard<std::mutex> lock(mutex);
  return static_cast<int64_t>(in_use);
}

c10::Allocator *pinned_allocator() {
  static PinnedAllocator a;
  return &a;
}

bool is_pinned(const void *p) {
  std::lock_guard<std::mutex> lock(mutex);
  const auto *address = static_cast<const char *>(p);
  auto it = pinned.upper_bound(address);
  if (it == pinned.begin()) return false;
  --it;
  return address < it->first + it->second;
}

}  // namespace testdevice
