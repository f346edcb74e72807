// TorchScript modules: files of torch.jit.save, with their code.
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <climits>
#include <vector>

#include "common.h"

namespace {

torch::jit::Module &module(ct_script m) {
  TORCH_CHECK_TYPE(m != nullptr, "expected a module, got none");
  return *reinterpret_cast<torch::jit::Module *>(m);
}

const c10::TypePtr &without_optional(const c10::TypePtr &t) {
  return t->kind() == c10::TypeKind::OptionalType
             ? t->expectRef<c10::OptionalType>().getElementType()
             : t;
}

// Throws unless the elements of a list or a dict have the type that it
// promises: the methods check the promise alone.
void check_element(const c10::IValue &v, const c10::TypePtr &t) {
  TORCH_CHECK_TYPE(v.type()->isSubtypeOf(*t), "expected elements of type ",
                   t->repr_str(), ", got one of type ", v.type()->repr_str());
}

// Reads a flattened value for an argument of type t and advances p past it.
// What does not fit the type is left as it is, for the method to refuse.
c10::IValue read(const int64_t *&p, const c10::TypePtr &formal) {
  const c10::TypePtr &t = without_optional(formal);
  const int64_t head = *p++;
  const int64_t n = head >> 8;
  const auto elements = [&]() -> c10::TypePtr {
    if (t->kind() == c10::TypeKind::ListType)
      return t->expectRef<c10::ListType>().getElementType();
    return c10::AnyType::get();
  };
  // A list whose elements are words.
  const auto list = [&](auto element) {
    c10::TypePtr e = elements();
    if (e->kind() == c10::TypeKind::AnyType)
      e = n > 0 ? element(*p).type() : c10::TensorType::get();
    c10::impl::GenericList l(e);
    l.reserve(n);
    for (int64_t i = 0; i < n; i++) {
      c10::IValue v = element(*p++);
      check_element(v, e);
      l.push_back(std::move(v));
    }
    return c10::IValue(std::move(l));
  };
  switch (head & 0xff) {
    case CT_NONE:
      return c10::IValue();
    case CT_TENSOR:
      return ct::borrow(reinterpret_cast<ct_tensor>(*p++));
    case CT_INT: {
      const int64_t v = *p++;
      if (t->kind() == c10::TypeKind::FloatType) return static_cast<double>(v);
      return v;
    }
    case CT_DOUBLE:
      return ct::to_double(*p++);
    case CT_BOOL:
      return *p++ != 0;
    case CT_COMPLEX:
      p += 2;
      return c10::complex<double>(ct::to_double(p[-2]), ct::to_double(p[-1]));
    case CT_STRING: {
      std::string s(reinterpret_cast<const char *>(p), static_cast<size_t>(n));
      p += (n + 7) / 8;
      return c10::IValue(std::move(s));
    }
    case CT_DEVICE:
      p += 2;
      return c10::Device(static_cast<c10::DeviceType>(p[-2]),
                         static_cast<c10::DeviceIndex>(p[-1]));
    case CT_INTS:
      return list([](int64_t w) { return c10::IValue(w); });
    case CT_DOUBLES:
      return list([](int64_t w) { return c10::IValue(ct::to_double(w)); });
    case CT_BOOLS:
      return list([](int64_t w) { return c10::IValue(w != 0); });
    case CT_TENSORS:
      return list([](int64_t w) {
        return c10::IValue(ct::borrow(reinterpret_cast<ct_tensor>(w)));
      });
    case CT_LIST: {
      const c10::TypePtr e = elements();
      std::vector<c10::IValue> v;
      for (int64_t i = 0; i < n; i++) v.push_back(read(p, e));
      c10::impl::GenericList l(
          e->kind() == c10::TypeKind::AnyType && n > 0 ? v[0].type() : e);
      for (auto &x : v) {
        check_element(x, l.elementType());
        l.push_back(std::move(x));
      }
      return c10::IValue(std::move(l));
    }
    case CT_TUPLE: {
      std::vector<c10::IValue> v;
      const bool known = t->kind() == c10::TypeKind::TupleType &&
                         t->expectRef<c10::TupleType>().elements().size() ==
                             static_cast<size_t>(n);
      for (int64_t i = 0; i < n; i++)
        v.push_back(
            read(p, known ? t->expectRef<c10::TupleType>().elements()[i]
                          : static_cast<c10::TypePtr>(c10::AnyType::get())));
      return c10::ivalue::Tuple::create(std::move(v));
    }
    case CT_DICT: {
      const bool known = t->kind() == c10::TypeKind::DictType;
      c10::TypePtr key = c10::StringType::get(), value = c10::AnyType::get();
      if (known) {
        key = t->expectRef<c10::DictType>().getKeyType();
        value = t->expectRef<c10::DictType>().getValueType();
      }
      std::vector<c10::IValue> v;
      for (int64_t i = 0; i < n; i++) {
        v.push_back(read(p, key));
        v.push_back(read(p, value));
      }
      if (!known && n > 0) {
        key = v[0].type();
        value = v[1].type();
      }
      c10::impl::GenericDict d(key, value);
      for (size_t i = 0; i < v.size(); i += 2) {
        check_element(v[i], key);
        check_element(v[i + 1], value);
        d.insert(std::move(v[i]), std::move(v[i + 1]));
      }
      return c10::IValue(std::move(d));
    }
  }
  TORCH_CHECK(false, "unknown tag ", head & 0xff);
}

// Throws unless a result can be flattened. Afterwards nothing throws, so that
// no tensor is lost.
void check_result(const c10::IValue &v) {
  if (v.isTuple()) {
    for (const auto &e : v.toTupleRef().elements()) check_result(e);
  } else if (v.isList()) {
    for (const auto &e : v.toListRef()) check_result(e);
  } else if (v.isGenericDict()) {
    for (const auto &e : v.toGenericDict()) {
      check_result(e.key());
      check_result(e.value());
    }
  } else {
    TORCH_CHECK_TYPE(v.isTensor() || v.isNone() || v.isInt() || v.isDouble() ||
                         v.isBool() || v.isString() || v.isComplexDouble(),
                     "a result of type ", v.tagKind(), " is not supported");
  }
}

void write(std::vector<int64_t> &to, const c10::IValue &v) {
  const auto head = [&](int tag, size_t n) {
    to.push_back(tag | static_cast<int64_t>(n) << 8);
  };
  if (v.isTensor()) {
    head(CT_TENSOR, 0);
    to.push_back(reinterpret_cast<int64_t>(ct::own(v.toTensor())));
  } else if (v.isInt()) {
    head(CT_INT, 0);
    to.push_back(v.toInt());
  } else if (v.isDouble()) {
    head(CT_DOUBLE, 0);
    to.push_back(ct::to_word(v.toDouble()));
  } else if (v.isBool()) {
    head(CT_BOOL, 0);
    to.push_back(v.toBool());
  } else if (v.isComplexDouble()) {
    head(CT_COMPLEX, 0);
    to.push_back(ct::to_word(v.toComplexDouble().real()));
    to.push_back(ct::to_word(v.toComplexDouble().imag()));
  } else if (v.isString()) {
    const std::string &s = v.toStringRef();
    head(CT_STRING, s.size());
    const size_t at = to.size();
    to.resize(at + (s.size() + 7) / 8);
    if (!s.empty()) std::memcpy(&to[at], s.data(), s.size());
  } else if (v.isTuple()) {
    const auto &e = v.toTupleRef().elements();
    head(CT_TUPLE, e.size());
    for (const auto &x : e) write(to, x);
  } else if (v.isList()) {
    const auto l = v.toListRef();
    head(CT_LIST, l.size());
    for (const auto &x : l) write(to, x);
  } else if (v.isGenericDict()) {
    const auto d = v.toGenericDict();
    head(CT_DICT, d.size());
    for (const auto &e : d) {
      write(to, e.key());
      write(to, e.value());
    }
  } else {
    head(CT_NONE, 0);
  }
}

}  // namespace

extern "C" {

ct_error ct_script_load(const char *path, int device_type, int device_index,
                        ct_script *m) {
  return ct::guard([&] {
    const c10::Device device(static_cast<c10::DeviceType>(device_type),
                             static_cast<c10::DeviceIndex>(device_index));
    *m = reinterpret_cast<ct_script>(
        new torch::jit::Module(torch::jit::load(std::string(path), device)));
  });
}

void ct_script_free(ct_script m) {
  delete reinterpret_cast<torch::jit::Module *>(m);
}

ct_error ct_script_train(ct_script m, int on) {
  return ct::guard([&] { module(m).train(on != 0); });
}

ct_error ct_script_call(ct_script m, const char *method, const int64_t *args,
                        int nwords, int nargs, int64_t **rets, int *nrets) {
  *rets = nullptr;
  *nrets = 0;
  return ct::guard([&] {
    const auto found = module(m).find_method(method);
    TORCH_CHECK_NOT_IMPLEMENTED(found.has_value(), "the module has no method ",
                                method);
    const auto &formals = found->function().getSchema().arguments();
    torch::jit::Stack stack;
    const int64_t *p = args;
    for (int i = 0; i < nargs; i++) {
      TORCH_CHECK(p < args + nwords, "too few argument words");
      // The first is the module itself.
      const size_t k = static_cast<size_t>(i) + 1;
      stack.push_back(read(p, k < formals.size() ? formals[k].type()
                                                 : static_cast<c10::TypePtr>(
                                                       c10::AnyType::get())));
    }
    const c10::IValue result = (*found)(std::move(stack));
    check_result(result);
    std::vector<int64_t> words;
    write(words, result);
    TORCH_CHECK(words.size() <= INT_MAX, "the results take ", words.size(),
                " words");
    const size_t bytes = words.size() * sizeof(int64_t);
    auto *block = static_cast<int64_t *>(std::malloc(bytes));
    if (block == nullptr) throw std::bad_alloc();
    std::memcpy(block, words.data(), bytes);
    *rets = block;
    *nrets = static_cast<int>(words.size());
  });
}

}  // extern "C"
