// Shared by the shim's source files: handles, and the conversion of exceptions
// to errors.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "cyclecap_torch.h"

namespace ct {

// A handle is a pointer to the TensorImpl itself, and owns one reference to it.
inline at::Tensor borrow(ct_tensor t) {
  if (t == nullptr) return at::Tensor();
  return at::Tensor(
      c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::
          reclaim_copy(reinterpret_cast<c10::TensorImpl *>(t)));
}

ct_tensor own(at::Tensor t);  // in tensor.cpp; counts the handles

// Puts the id of an object that libtorch no longer holds where ct_dropped finds
// it. It does not call Go: it runs wherever a tensor dies, also in functions
// that must not call back.
void drop(uintptr_t id) noexcept;

// What the shim knows of an OS thread.
struct Thread {
  int64_t scope = 0;     // see ct_scope_get
  bool calling = false;  // it is in ct_call, in which Go cannot be called
};
inline thread_local Thread thread;

// A part of the shim is a library of its own in the shim's folder, because it
// is linked with libtorch_cuda (device.cpp).
bool has_part(const std::string &name);
// Opens a part and returns the table of its functions. without says what was
// missing when the shim was built, if the part does not exist.
const void *part(const std::string &name, const char *table,
                 const char *without);

inline const at::Generator &generator(ct_generator g) {
  TORCH_CHECK_TYPE(g != nullptr, "expected a generator, got none");
  return *reinterpret_cast<at::Generator *>(g);
}

// Throws unless t is a CPU tensor of a dtype, with dim dimensions unless dim is
// negative.
inline void check(const at::Tensor &t, const char *name, at::ScalarType dtype,
                  int64_t dim) {
  TORCH_CHECK_TYPE(t.defined(), "expected a tensor for ", name, ", got none");
  TORCH_CHECK(t.device().is_cpu(), name, " must be on the CPU, got ",
              t.device());
  TORCH_CHECK_TYPE(t.scalar_type() == dtype, name, " must be of dtype ", dtype,
                   ", got ", t.scalar_type());
  TORCH_CHECK(dim < 0 || t.dim() == dim, name, " must have ", dim,
              " dimensions, got ", t.dim());
}

// A double is passed in a word with its bits.
inline double to_double(int64_t word) {
  double d;
  std::memcpy(&d, &word, sizeof d);
  return d;
}

inline int64_t to_word(double d) {
  int64_t word;
  std::memcpy(&word, &d, sizeof word);
  return word;
}

inline char *copy_string(const std::string &s) {
  char *p = static_cast<char *>(std::malloc(s.size() + 1));
  if (p == nullptr) std::abort();
  std::memcpy(p, s.c_str(), s.size() + 1);
  return p;
}

inline ct_error make_error(char kind, const char *what) {
  return copy_string(std::string(1, kind) + what);
}

// Calls f and converts an exception to an error. what_without_backtrace is
// important: what() symbolizes a backtrace, which takes milliseconds.
template <class F>
ct_error guard(F &&f) noexcept {
  try {
    f();
    return nullptr;
  } catch (const c10::OutOfMemoryError &e) {
    return make_error(CT_ERR_MEMORY, e.what_without_backtrace());
  } catch (const c10::IndexError &e) {
    return make_error(CT_ERR_INDEX, e.what_without_backtrace());
  } catch (const c10::ValueError &e) {
    return make_error(CT_ERR_VALUE, e.what_without_backtrace());
  } catch (const c10::TypeError &e) {
    return make_error(CT_ERR_TYPE, e.what_without_backtrace());
  } catch (const c10::NotImplementedError &e) {
    return make_error(CT_ERR_NOT_IMPLEMENTED, e.what_without_backtrace());
  } catch (const c10::DistError &e) {
    return make_error(CT_ERR_DISTRIBUTED, e.what_without_backtrace());
  } catch (const c10::Error &e) {
    return make_error(CT_ERR_RUNTIME, e.what_without_backtrace());
  } catch (const std::bad_alloc &e) {
    return make_error(CT_ERR_MEMORY, "out of memory");
  } catch (const std::exception &e) {
    return make_error(CT_ERR_RUNTIME, e.what());
  } catch (...) {
    return make_error(CT_ERR_RUNTIME, "unknown C++ exception");
  }
}

}  // namespace ct
