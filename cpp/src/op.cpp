// One call for every ATen operator: boxed, or unboxed if its signature is
// common.
#include <ATen/ScalarOps.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/stack.h>

#include <climits>
#include <sstream>
#include <type_traits>
#include <vector>

#include "common.h"
#include "unboxed.h"

namespace {

constexpr uint32_t bit(ct_tag tag) { return 1u << tag; }

// The values that an argument of type t takes, as bits of their tags. size is
// whether a list may be given as one number for all its elements, as in Python
// (dim=1 for int[1]).
uint32_t accepted(const c10::Type &t, bool size) {
  switch (t.kind()) {
    case c10::TypeKind::OptionalType:
      return bit(CT_NONE) |
             accepted(*t.expectRef<c10::OptionalType>().getElementType(), size);
    case c10::TypeKind::TensorType:
      return bit(CT_TENSOR) | bit(CT_INT) | bit(CT_DOUBLE) | bit(CT_BOOL) |
             bit(CT_COMPLEX);
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
      return bit(CT_INT);
    case c10::TypeKind::FloatType:
    case c10::TypeKind::SymFloatType:
      return bit(CT_DOUBLE) | bit(CT_INT);
    case c10::TypeKind::BoolType:
      return bit(CT_BOOL);
    case c10::TypeKind::NumberType:
      return bit(CT_INT) | bit(CT_DOUBLE) | bit(CT_BOOL) | bit(CT_COMPLEX);
    case c10::TypeKind::StringType:
      return bit(CT_STRING);
    case c10::TypeKind::DeviceObjType:
      return bit(CT_DEVICE);
    case c10::TypeKind::GeneratorType:
      return bit(CT_GENERATOR);
    case c10::TypeKind::ListType: {
      const c10::Type &e = *t.expectRef<c10::ListType>().getElementType();
      switch (e.kind()) {
        case c10::TypeKind::IntType:
        case c10::TypeKind::SymIntType:
          return bit(CT_INTS) | (size ? bit(CT_INT) : 0);
        case c10::TypeKind::FloatType:
          return bit(CT_DOUBLES);
        case c10::TypeKind::BoolType:
          return bit(CT_BOOLS);
        case c10::TypeKind::TensorType:
          return bit(CT_TENSORS);
        case c10::TypeKind::NumberType:
          return bit(CT_SCALARS);
        case c10::TypeKind::OptionalType:
          return e.expectRef<c10::OptionalType>().getElementType()->kind() ==
                         c10::TypeKind::TensorType
                     ? bit(CT_OPT_TENSORS)
                     : bit(CT_SCALARS);
        default:
          return 0;
      }
    }
    default:
      return 0;
  }
}

const c10::Type &without_optional(const c10::Type &t) {
  return t.kind() == c10::TypeKind::OptionalType
             ? *t.expectRef<c10::OptionalType>().getElementType()
             : t;
}

// An argument of an operator.
struct Formal {
  const c10::Argument *arg;
  c10::TypeKind kind;  // of the type that is not optional
  uint32_t tags;       // what it takes
  int64_t end;         // an enumeration's number of values, or 0

  explicit Formal(const c10::Argument &a)
      : arg(&a),
        kind(without_optional(*a.type()).kind()),
        tags(accepted(*a.type(), a.N().has_value())),
        end(0) {
    switch (without_optional(*a.real_type()).kind()) {
      case c10::TypeKind::ScalarTypeType:
        end = static_cast<int64_t>(at::ScalarType::NumOptions);
        break;
      case c10::TypeKind::LayoutType:
        end = static_cast<int64_t>(at::Layout::NumOptions);
        break;
      case c10::TypeKind::MemoryFormatType:
        end = static_cast<int64_t>(at::MemoryFormat::NumOptions);
        break;
      default:
        break;
    }
  }
};

struct Op {
  c10::OperatorHandle handle;
  std::vector<Formal> formals;
  std::unique_ptr<ct::Unboxed> unboxed;  // nullptr for most signatures

  explicit Op(const c10::OperatorHandle &h)
      : handle(h), unboxed(ct::unboxed_call(h)) {
    for (const auto &a : handle.schema().arguments()) formals.emplace_back(a);
  }
};

ct_tensor as_tensor(int64_t w) { return reinterpret_cast<ct_tensor>(w); }

// What a value of each tag is called in messages.
const char *const tag_names[] = {"none",
                                 "a tensor",
                                 "an int",
                                 "a float",
                                 "a bool",
                                 "a string",
                                 "a list of ints",
                                 "a list of floats",
                                 "a list of bools",
                                 "a list of tensors",
                                 "a list of tensors",
                                 "a device",
                                 "a generator",
                                 "a list of numbers",
                                 "a complex number"};

// A number. One passed for a tensor is wrapped, as in Python.
template <class T>
c10::IValue number(T v, const Formal &f) {
  switch (f.kind) {
    case c10::TypeKind::TensorType: {
      at::Tensor t = c10::scalar_to_tensor(at::Scalar(v));
      t.unsafeGetTensorImpl()->set_wrapped_number(true);
      return c10::IValue(std::move(t));
    }
    case c10::TypeKind::FloatType:
    case c10::TypeKind::SymFloatType:
      // Formal::tags keeps complex numbers away.
      if constexpr (std::is_arithmetic_v<T>)
        return c10::IValue(static_cast<double>(v));
      [[fallthrough]];
    default:
      return c10::IValue(v);
  }
}

c10::IValue integer(int64_t v, const Formal &f) {
  TORCH_CHECK_VALUE(f.end == 0 || (v >= 0 && v < f.end), "argument '",
                    f.arg->name(), "': there is no ",
                    without_optional(*f.arg->real_type()).str(), " ", v);
  if (f.kind != c10::TypeKind::ListType) return number(v, f);
  c10::List<int64_t> l;
  l.resize(static_cast<size_t>(*f.arg->N()), v);
  return c10::IValue(std::move(l));
}

// Reads one flattened value at p and advances p past it.
c10::IValue read_value(const int64_t *&p, const Formal &f) {
  const c10::Argument &arg = *f.arg;
  const int64_t head = *p++;
  const int tag = static_cast<int>(head & 0xff);
  const int64_t n = head >> 8;
  TORCH_CHECK(tag <= CT_DEFAULT, "argument '", arg.name(), "': unknown tag ",
              tag);
  TORCH_CHECK_TYPE(tag == CT_DEFAULT || (f.tags >> tag & 1) != 0, "argument '",
                   arg.name(), "' must be ", arg.real_type()->str(), ", got ",
                   tag_names[tag]);
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
      return integer(*p++, f);
    case CT_DOUBLE:
      return number(ct::to_double(*p++), f);
    case CT_BOOL:
      return number(*p++ != 0, f);
    case CT_COMPLEX: {
      const c10::complex<double> z(ct::to_double(p[0]), ct::to_double(p[1]));
      p += 2;
      return number(z, f);
    }
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
      for (int64_t i = 0; i < n; i++) l.push_back(ct::to_double(*p++));
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
        l.push_back(at::Scalar(ct::to_double(*p++)));
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
      const auto type = static_cast<c10::DeviceType>(p[0]);
      const int64_t index = p[1];
      TORCH_CHECK_VALUE(
          c10::isValidDeviceType(type) && static_cast<int64_t>(type) == p[0],
          "argument '", arg.name(), "': there is no device type ", p[0]);
      TORCH_CHECK_VALUE(index >= -1 && index <= INT8_MAX, "argument '",
                        arg.name(), "': there is no device with index ", index);
      p += 2;
      return c10::IValue(
          c10::Device(type, static_cast<c10::DeviceIndex>(index)));
    }
    case CT_GENERATOR:
      return c10::IValue(ct::generator(reinterpret_cast<ct_generator>(*p++)));
  }
  return c10::IValue();  // the tags are those above
}

// The number of words of a flattened result.
int64_t words(const c10::IValue &v) {
  if (v.isTensor() || v.isInt() || v.isDouble() || v.isBool()) return 2;
  if (v.isComplexDouble()) return 3;
  if (v.isNone()) return 1;
  if (v.isTensorList())
    return 1 + static_cast<int64_t>(v.toTensorList().size());
  if (v.isIntList()) return 1 + static_cast<int64_t>(v.toIntList().size());
  TORCH_CHECK(false, "a result of type ", v.tagKind(), " is not supported");
}

// Flattens results into a block that is large enough for them.
class Writer {
 public:
  explicit Writer(int64_t *out) : out_(out) {}

  void tensor(at::Tensor t) {
    head(CT_TENSOR, 0);
    handle(std::move(t));
  }

  void value(const c10::IValue &v) {
    if (v.isTensor()) {
      tensor(v.toTensor());
    } else if (v.isInt()) {
      head(CT_INT, 0);
      word(v.toInt());
    } else if (v.isDouble()) {
      head(CT_DOUBLE, 0);
      word(ct::to_word(v.toDouble()));
    } else if (v.isBool()) {
      head(CT_BOOL, 0);
      word(v.toBool());
    } else if (v.isComplexDouble()) {
      const c10::complex<double> z = v.toComplexDouble();
      head(CT_COMPLEX, 0);
      word(ct::to_word(z.real()));
      word(ct::to_word(z.imag()));
    } else if (v.isTensorList()) {
      auto l = v.toTensorList();
      head(CT_TENSORS, static_cast<int64_t>(l.size()));
      for (size_t i = 0; i < l.size(); i++) handle(l.get(i));
    } else if (v.isIntList()) {
      auto l = v.toIntList();
      head(CT_INTS, static_cast<int64_t>(l.size()));
      for (size_t i = 0; i < l.size(); i++) word(l.get(i));
    } else {
      head(CT_NONE, 0);
    }
  }

 private:
  void head(int tag, int64_t n) { word(tag | n << 8); }
  void word(int64_t w) { *out_++ = w; }
  void handle(at::Tensor t) {
    word(reinterpret_cast<int64_t>(ct::own(std::move(t))));
  }

  int64_t *out_;
};

}  // namespace

extern "C" {

ct_error ct_op_find(const char *name, const char *overload, ct_op *op) {
  return ct::guard([&] {
    auto h = c10::Dispatcher::singleton().findSchema({name, overload});
    TORCH_CHECK_NOT_IMPLEMENTED(h.has_value(), "this libtorch has no operator ",
                                name, overload[0] ? "." : "", overload);
    *op = reinterpret_cast<ct_op>(new Op(*h));
  });
}

ct_error ct_call(ct_op op, const int64_t *args, int nwords, int nargs,
                 int64_t *rets, int cap, int *nrets, int64_t *scope) {
  *nrets = 0;
  *scope = ct::thread.scope;
  ct::thread.calling = true;
  const ct_error error = ct::guard([&] {
    const Op &o = *reinterpret_cast<const Op *>(op);
    TORCH_CHECK(static_cast<size_t>(nargs) == o.formals.size(),
                o.handle.schema().operator_name(), " takes ", o.formals.size(),
                " arguments, got ", nargs);
    at::Tensor result;
    if (o.unboxed && cap != 1 &&
        o.unboxed->call(args, args + nwords, &result)) {
      if (cap == 0) return;
      Writer out(rets);
      out.tensor(std::move(result));
      *nrets = 2;
      return;
    }
    torch::jit::Stack stack;
    stack.reserve(o.formals.size());
    const int64_t *p = args;
    for (const auto &f : o.formals) {
      TORCH_CHECK(p < args + nwords, "too few argument words");
      stack.push_back(read_value(p, f));
    }
    o.handle.callBoxed(&stack);
    if (cap == 0) return;
    int64_t n = 0;
    for (const auto &v : stack) n += words(v);
    TORCH_CHECK(n <= INT_MAX, "the results take ", n, " words");
    int64_t *to = rets;
    if (n > cap) {
      to = static_cast<int64_t *>(std::malloc(sizeof(int64_t) * n));
      if (to == nullptr) throw std::bad_alloc();
      rets[0] = reinterpret_cast<int64_t>(to);
    }
    Writer out(to);
    for (const auto &v : stack) out.value(v);
    *nrets = static_cast<int>(n);
  });
  ct::thread.calling = false;
  return error;
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
