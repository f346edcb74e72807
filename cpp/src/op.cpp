// One boxed call for every ATen operator.
#include <ATen/ScalarOps.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/stack.h>

#include <deque>
#include <mutex>
#include <shared_mutex>
#include <sstream>

#include "common.h"

namespace {

// The operators found so far. A deque does not move its elements when it grows,
// so a call needs the lock only to read one pointer.
std::shared_mutex ops_mutex;
std::deque<c10::OperatorHandle> ops;

const c10::OperatorHandle &op_at(int i) {
  std::shared_lock<std::shared_mutex> lock(ops_mutex);
  return ops.at(static_cast<size_t>(i));
}

double bits_to_double(int64_t w) {
  double d;
  std::memcpy(&d, &w, sizeof d);
  return d;
}

int64_t double_to_bits(double d) {
  int64_t w;
  std::memcpy(&w, &d, sizeof w);
  return w;
}

ct_tensor as_tensor(int64_t w) { return reinterpret_cast<ct_tensor>(w); }

// A number passed for a tensor is wrapped, as in Python.
template <class T>
c10::IValue number(T v, const c10::Argument &arg) {
  if (arg.type()->kind() != c10::TypeKind::TensorType) return c10::IValue(v);
  at::Tensor t = c10::scalar_to_tensor(at::Scalar(v));
  t.unsafeGetTensorImpl()->set_wrapped_number(true);
  return c10::IValue(std::move(t));
}

// Reads one flattened value at p and advances p past it.
c10::IValue read_value(const int64_t *&p, const c10::Argument &arg) {
  const int64_t head = *p++;
  const int tag = static_cast<int>(head & 0xff);
  const int64_t n = head >> 8;
  switch (tag) {
    case CT_DEFAULT:
      TORCH_CHECK(arg.default_value().has_value(), "argument '", arg.name(),
                  "' has no default");
      return *arg.default_value();
    case CT_NONE:
      return c10::IValue();
    case CT_TENSOR:
      return c10::IValue(ct::borrow(as_tensor(*p++)));
    case CT_INT:
      return number(*p++, arg);
    case CT_DOUBLE:
      return number(bits_to_double(*p++), arg);
    case CT_BOOL:
      return c10::IValue(*p++ != 0);
    case CT_STRING: {
      std::string s(reinterpret_cast<const char *>(p), static_cast<size_t>(n));
      p += (n + 7) / 8;
      return c10::IValue(std::move(s));
    }
    case CT_INTS: {
      c10::List<int64_t> l;
      l.reserve(n);
      for (int64_t i = 0; i < n; i++) l.push_back(*p++);
      return c10::IValue(std::move(l));
    }
    case CT_DOUBLES: {
      c10::List<double> l;
      l.reserve(n);
      for (int64_t i = 0; i < n; i++) l.push_back(bits_to_double(*p++));
      return c10::IValue(std::move(l));
    }
    case CT_BOOLS: {
      c10::List<bool> l;
      l.reserve(n);
      for (int64_t i = 0; i < n; i++) l.push_back(*p++ != 0);
      return c10::IValue(std::move(l));
    }
    case CT_SCALARS: {
      c10::List<at::Scalar> l;
      l.reserve(n);
      for (int64_t i = 0; i < n; i++)
        l.push_back(at::Scalar(bits_to_double(*p++)));
      return c10::IValue(std::move(l));
    }
    case CT_TENSORS: {
      c10::List<at::Tensor> l;
      l.reserve(n);
      for (int64_t i = 0; i < n; i++) l.push_back(ct::borrow(as_tensor(*p++)));
      return c10::IValue(std::move(l));
    }
    case CT_OPT_TENSORS: {
      c10::List<std::optional<at::Tensor>> l;
      l.reserve(n);
      for (int64_t i = 0; i < n; i++) {
        ct_tensor t = as_tensor(*p++);
        if (t == nullptr)
          l.push_back(std::nullopt);
        else
          l.push_back(ct::borrow(t));
      }
      return c10::IValue(std::move(l));
    }
    case CT_DEVICE: {
      auto type = static_cast<c10::DeviceType>(*p++);
      auto index = static_cast<c10::DeviceIndex>(*p++);
      return c10::IValue(c10::Device(type, index));
    }
    case CT_GENERATOR:
      return c10::IValue(ct::generator(reinterpret_cast<ct_generator>(*p++)));
  }
  TORCH_CHECK(false, "argument '", arg.name(), "': unknown tag ", tag);
}

class Writer {
 public:
  Writer(int64_t *out, int cap) : out_(out), cap_(cap) {}

  // Frees the tensors written so far, so that a call that fails late does not
  // leak them.
  void rollback() {
    for (ct_tensor t : owned_) ct_tensors_free(&t, 1);
  }

  void value(const c10::IValue &v) {
    if (v.isTensor()) {
      head(CT_TENSOR, 0);
      tensor(v.toTensor());
    } else if (v.isInt()) {
      head(CT_INT, 0);
      word(v.toInt());
    } else if (v.isDouble()) {
      head(CT_DOUBLE, 0);
      word(double_to_bits(v.toDouble()));
    } else if (v.isBool()) {
      head(CT_BOOL, 0);
      word(v.toBool());
    } else if (v.isNone()) {
      head(CT_NONE, 0);
    } else if (v.isTensorList()) {
      auto l = v.toTensorList();
      head(CT_TENSORS, static_cast<int64_t>(l.size()));
      for (size_t i = 0; i < l.size(); i++) tensor(l.get(i));
    } else if (v.isIntList()) {
      auto l = v.toIntList();
      head(CT_INTS, static_cast<int64_t>(l.size()));
      for (size_t i = 0; i < l.size(); i++) word(l.get(i));
    } else {
      TORCH_CHECK(false, "a result of type ", v.tagKind(), " is not supported");
    }
  }

  int used() const { return used_; }

 private:
  void head(int tag, int64_t n) { word(tag | n << 8); }
  void word(int64_t w) {
    TORCH_CHECK(used_ < cap_, "the results take more than ", cap_, " words");
    out_[used_++] = w;
  }
  void tensor(const at::Tensor &t) {
    ct_tensor h = ct::own(t);
    if (h != nullptr) owned_.push_back(h);
    word(reinterpret_cast<int64_t>(h));
  }

  int64_t *out_;
  int cap_;
  int used_ = 0;
  c10::SmallVector<ct_tensor, 4> owned_;
};

}  // namespace

extern "C" {

ct_error ct_op_find(const char *name, const char *overload, int *op) {
  return ct::guard([&] {
    auto h = c10::Dispatcher::singleton().findSchema({name, overload});
    TORCH_CHECK_NOT_IMPLEMENTED(h.has_value(), "this libtorch has no operator ",
                                name, overload[0] ? "." : "", overload);
    std::unique_lock<std::shared_mutex> lock(ops_mutex);
    ops.push_back(*h);
    *op = static_cast<int>(ops.size()) - 1;
  });
}

ct_error ct_call(int op, const int64_t *args, int nwords, int nargs,
                 int64_t *rets, int cap, int *nrets) {
  Writer out(rets, cap);
  ct_error err = ct::guard([&] {
    const c10::OperatorHandle &h = op_at(op);
    const auto &formal = h.schema().arguments();
    TORCH_CHECK(static_cast<size_t>(nargs) == formal.size(),
                h.schema().operator_name(), " takes ", formal.size(),
                " arguments, got ", nargs);
    torch::jit::Stack stack;
    stack.reserve(formal.size());
    const int64_t *p = args;
    for (const auto &a : formal) {
      TORCH_CHECK(p < args + nwords, "too few argument words");
      stack.push_back(read_value(p, a));
    }
    h.callBoxed(&stack);
    if (cap > 0)
      for (const auto &v : stack) out.value(v);
  });
  if (err != nullptr) out.rollback();
  *nrets = err == nullptr ? out.used() : 0;
  return err;
}

ct_error ct_schema(const char *name, const char *overload, char **text) {
  return ct::guard([&] {
    std::ostringstream s;
    auto &d = c10::Dispatcher::singleton();
    if (name == nullptr) {
      for (const auto &n : d.getAllOpNames()) {
        auto h = d.findSchema(n);
        if (h.has_value()) s << h->schema() << "\n";
      }
    } else {
      auto h = d.findSchema({name, overload});
      TORCH_CHECK_NOT_IMPLEMENTED(h.has_value(),
                                  "this libtorch has no operator ", name,
                                  overload[0] ? "." : "", overload);
      s << h->schema();
    }
    *text = ct::copy_string(s.str());
  });
}

}  // extern "C"
