// Unboxed calls of the signatures that most calls have. A boxed call, op.cpp's,
// counts references and allocates for its arguments: a fifth of the time of a
// small operator.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "common.h"

namespace ct {

// A call without boxes of an operator that returns one tensor.
struct Unboxed {
  virtual ~Unboxed() = default;

  // Calls the operator with the flattened values from p to end and returns
  // true, or returns false before the call if a value is not one of those that
  // the parameters' types below read.
  virtual bool call(const int64_t *p, const int64_t *end,
                    at::Tensor *result) const = 0;
};

namespace unboxed {

// How an argument of C++ type T is read from flattened values: whether a
// schema's argument has this type, and the value at p, which moves past it.
template <class T>
struct Parameter;

inline bool is(const c10::Argument &a, c10::TypeKind kind) {
  return a.real_type()->kind() == kind && !a.N().has_value();
}

inline bool head(const int64_t *&p, const int64_t *end, ct_tag tag, int words) {
  if (end - p < words || *p != tag) return false;
  p++;
  return true;
}

inline bool head_of_default(const int64_t *&p, const int64_t *end,
                            const c10::Argument &a) {
  return a.default_value().has_value() && head(p, end, CT_DEFAULT, 1);
}

// A tensor of the caller's, without a reference of its own.
template <>
struct Parameter<const at::Tensor &> {
  at::Tensor value;

  Parameter() = default;
  Parameter(const Parameter &) = delete;
  Parameter &operator=(const Parameter &) = delete;
  ~Parameter() { value.unsafeReleaseTensorImpl(); }

  static bool fits(const c10::Argument &a) {
    return is(a, c10::TypeKind::TensorType);
  }
  bool read(const int64_t *&p, const int64_t *end, const c10::Argument &) {
    if (!head(p, end, CT_TENSOR, 2) || *p == 0) return false;
    value = at::Tensor(
        c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim(
            reinterpret_cast<c10::TensorImpl *>(*p++)));
    return true;
  }
  const at::Tensor &get() { return value; }
};

// The tensor of an operator in place has a reference, since the operator may
// assign to it.
template <>
struct Parameter<at::Tensor &> {
  at::Tensor value;

  static bool fits(const c10::Argument &a) {
    return is(a, c10::TypeKind::TensorType);
  }
  bool read(const int64_t *&p, const int64_t *end, const c10::Argument &) {
    if (!head(p, end, CT_TENSOR, 2) || *p == 0) return false;
    value = borrow(reinterpret_cast<ct_tensor>(*p++));
    return true;
  }
  at::Tensor &get() { return value; }
};

template <>
struct Parameter<const at::Scalar &> {
  at::Scalar value;

  static bool fits(const c10::Argument &a) {
    return is(a, c10::TypeKind::NumberType);
  }
  bool read(const int64_t *&p, const int64_t *end, const c10::Argument &a) {
    if (head(p, end, CT_INT, 2)) {
      value = at::Scalar(*p++);
    } else if (head(p, end, CT_DOUBLE, 2)) {
      value = at::Scalar(to_double(*p++));
    } else if (head_of_default(p, end, a)) {
      value = a.default_value()->toScalar();
    } else {
      return false;
    }
    return true;
  }
  const at::Scalar &get() { return value; }
};

// A value of one word.
template <class T, c10::TypeKind kind, ct_tag tag>
struct Word {
  T value{};

  static bool fits(const c10::Argument &a) { return is(a, kind); }
  bool read(const int64_t *&p, const int64_t *end, const c10::Argument &a) {
    if (head(p, end, tag, 2)) {
      value = static_cast<T>(*p++);
    } else if (head_of_default(p, end, a)) {
      value = a.default_value()->to<T>();
    } else {
      return false;
    }
    return true;
  }
  T get() { return value; }
};

template <>
struct Parameter<int64_t> : Word<int64_t, c10::TypeKind::IntType, CT_INT> {};

template <>
struct Parameter<c10::SymInt>
    : Word<int64_t, c10::TypeKind::SymIntType, CT_INT> {};

template <>
struct Parameter<bool> : Word<bool, c10::TypeKind::BoolType, CT_BOOL> {};

template <>
struct Parameter<c10::SymIntArrayRef> {
  c10::IntArrayRef value;

  static bool fits(const c10::Argument &a) {
    return is(a, c10::TypeKind::ListType) &&
           a.real_type()->expectRef<c10::ListType>().getElementType()->kind() ==
               c10::TypeKind::SymIntType;
  }
  bool read(const int64_t *&p, const int64_t *end, const c10::Argument &) {
    if (p == end || (*p & 0xff) != CT_INTS) return false;
    const int64_t n = *p++ >> 8;
    if (n > end - p) return false;
    value = c10::IntArrayRef(p, static_cast<size_t>(n));
    p += n;
    return true;
  }
  c10::SymIntArrayRef get() { return c10::fromIntArrayRefSlow(value); }
};

template <class F>
class Typed;

template <class R, class... A>
class Typed<R(A...)> final : public Unboxed {
 public:
  static std::unique_ptr<Unboxed> of(const c10::OperatorHandle &h) {
    return of(h, std::index_sequence_for<A...>());
  }

  bool call(const int64_t *p, const int64_t *end,
            at::Tensor *result) const override {
    return call(p, end, result, std::index_sequence_for<A...>());
  }

 private:
  using Handle = c10::TypedOperatorHandle<R(A...)>;

  Handle handle_;
  const std::vector<c10::Argument> &args_;

  explicit Typed(Handle h) : handle_(h), args_(h.schema().arguments()) {}

  template <size_t... I>
  static std::unique_ptr<Unboxed> of(const c10::OperatorHandle &h,
                                     std::index_sequence<I...>) {
    const auto &args = h.schema().arguments();
    const auto &returns = h.schema().returns();
    // An operator in place returns its first argument.
    const bool in_place = std::is_reference_v<R>;
    if (args.size() != sizeof...(A) || returns.size() != 1 ||
        !is(returns[0], c10::TypeKind::TensorType) ||
        in_place != (args[0].alias_info() && args[0].alias_info()->isWrite()) ||
        !(Parameter<A>::fits(args[I]) && ...))
      return nullptr;
    try {
      return std::unique_ptr<Unboxed>(new Typed(h.typed<R(A...)>()));
    } catch (const c10::Error &) {
      return nullptr;  // a library registered it with, say, a tensor by value
    }
  }

  template <size_t... I>
  bool call(const int64_t *p, const int64_t *end, at::Tensor *result,
            std::index_sequence<I...>) const {
    std::tuple<Parameter<A>...> a;
    if (!(std::get<I>(a).read(p, end, args_[I]) && ...)) return false;
    *result = handle_.call(std::get<I>(a).get()...);
    return true;
  }
};

}  // namespace unboxed

// The unboxed call of an operator, or nullptr if its signature is none of
// these.
inline std::unique_ptr<Unboxed> unboxed_call(const c10::OperatorHandle &h) {
  using T = at::Tensor;
  using In = const at::Tensor &;
  using Out = at::Tensor &;
  using Scalar = const at::Scalar &;
  using Ints = c10::SymIntArrayRef;
  using c10::SymInt;
  using unboxed::Typed;
  std::unique_ptr<Unboxed> u;
  (u = Typed<T(In)>::of(h)) ||                               // exp
      (u = Typed<T(In, In)>::of(h)) ||                       // mul.Tensor
      (u = Typed<T(In, In, Scalar)>::of(h)) ||               // add.Tensor
      (u = Typed<T(In, Scalar)>::of(h)) ||                   // mul.Scalar
      (u = Typed<T(In, Scalar, Scalar)>::of(h)) ||           // add.Scalar
      (u = Typed<T(In, int64_t)>::of(h)) ||                  // unsqueeze
      (u = Typed<T(In, int64_t, int64_t)>::of(h)) ||         // transpose.int
      (u = Typed<T(In, int64_t, SymInt)>::of(h)) ||          // select.int
      (u = Typed<T(In, int64_t, SymInt, SymInt)>::of(h)) ||  // narrow
      (u = Typed<T(In, Ints)>::of(h)) ||                     // view
      (u = Typed<T(In, Ints, bool)>::of(h)) ||               // expand
      (u = Typed<Out(Out)>::of(h)) ||                        // zero_
      (u = Typed<Out(Out, In)>::of(h)) ||                    // mul_.Tensor
      (u = Typed<Out(Out, Scalar)>::of(h)) ||                // mul_.Scalar
      (u = Typed<Out(Out, In, Scalar)>::of(h)) ||            // add_.Tensor
      (u = Typed<Out(Out, In, In, Scalar)>::of(h));          // addcmul_
  return u;
}

}  // namespace ct
