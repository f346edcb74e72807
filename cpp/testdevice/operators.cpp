// The operators of the device: the CPU's kernels on tensors that alias the
// device's memory, so that results have the CPU's bits.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/native/transformers/sdp_utils_cpp.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "device.h"
#include "testdevice.h"

namespace testdevice {

namespace {

constexpr auto type = c10::DeviceType::PrivateUse1;

// ---- counts

std::atomic<int64_t> to_device{0}, to_host{0}, synchronized{0}, operators{0};
std::mutex names_mutex;
std::map<std::string, int64_t> names;

void count_name(const std::string &name) {
  std::lock_guard<std::mutex> lock(names_mutex);
  names[name]++;
}

void count_operator(const std::string &name) {
  operators++;
  count_name(name);
}

// The host reads something: it waits for the device, and the data is copied.
void count_to_host(const std::string &name) {
  count(Event::to_host);
  count(Event::synchronized);
  count_name("to host: " + name);
}

// Operators for which the host waits on a GPU, because the size of their result
// depends on the data or because they return a number.
const std::unordered_set<std::string> reading = {"aten::_local_scalar_dense",
                                                 "aten::equal",
                                                 "aten::nonzero",
                                                 "aten::masked_select",
                                                 "aten::_unique",
                                                 "aten::_unique2",
                                                 "aten::unique_dim",
                                                 "aten::unique_consecutive",
                                                 "aten::bincount",
                                                 "aten::repeat_interleave",
                                                 "aten::is_set_to"};

// Indexing, whose indices may be on the CPU, as on CUDA.
const std::unordered_set<std::string> indexing = {
    "aten::index", "aten::index_put_", "aten::_index_put_impl_"};

// ---- aliases

// The tensors of one call: for each tensor of the device, a CPU tensor that
// aliases its memory.
class Aliases {
 public:
  at::Tensor cpu(const at::Tensor &t) {
    if (!t.defined() || t.device().type() != type) return t;
    auto &known = tensors_[t.unsafeGetTensorImpl()];
    if (!known.cpu.defined()) {
      known.device = t;
      auto impl = c10::make_intrusive<at::TensorImpl>(
          cpu(t.storage()), c10::DispatchKeySet(c10::DispatchKey::CPU),
          t.dtype());
      impl->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
      if (t.unsafeGetTensorImpl()->is_wrapped_number())
        impl->set_wrapped_number(true);
      known.cpu = at::Tensor(std::move(impl));
      from_cpu_[known.cpu.unsafeGetTensorImpl()] = t;
      bases_[t.storage().unsafeGetStorageImpl()] = t;
    }
    return known.cpu;
  }

  c10::Storage cpu(const c10::Storage &s) {
    if (s.device_type() != type) return s;
    auto &known = storages_[s.unsafeGetStorageImpl()];
    if (!known.cpu) {
      // Resizable with the CPU's allocator: an operator that resizes gets new
      // memory, which update() then copies.
      known.device = s;
      known.cpu =
          c10::Storage(c10::Storage::use_byte_size_t(), s.nbytes(),
                       at::DataPtr(behind(s.data()), c10::Device(c10::kCPU)),
                       c10::GetCPUAllocator(), true);
      storage_from_cpu_[known.cpu.unsafeGetStorageImpl()] = s;
    }
    return known.cpu;
  }

  // Returns the tensor of the device for a result of the CPU's kernel.
  at::Tensor device(const at::Tensor &t) {
    if (!t.defined() || !t.device().is_cpu()) return t;
    const auto it = from_cpu_.find(t.unsafeGetTensorImpl());
    if (it != from_cpu_.end()) return it->second;
    TORCH_CHECK_NOT_IMPLEMENTED(t.layout() == at::kStrided && t.has_storage(),
                                "a result with layout ", t.layout(),
                                " is not supported on ", testdevice::device);
    c10::Storage storage = device(t.storage());
    const auto base = bases_.find(storage.unsafeGetStorageImpl());
    auto impl = base != bases_.end()
                    ? c10::make_intrusive<at::TensorImpl>(
                          at::TensorImpl::VIEW, std::move(storage),
                          base->second.key_set(), t.dtype())
                    : c10::make_intrusive<at::TensorImpl>(
                          std::move(storage),
                          c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                          t.dtype());
    impl->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
    return at::Tensor(std::move(impl));
  }

  // Takes over what the operator did to the tensors themselves: other sizes,
  // or another or a larger storage.
  void update() {
    for (auto &[_, s] : storages_) {
      auto *impl = s.device.unsafeGetStorageImpl();
      if (s.cpu.data() == behind(s.device.data())) continue;
      impl->set_data_ptr_noswap(copy(s.cpu));
      impl->set_nbytes(s.cpu.nbytes());
    }
    for (auto &[impl, t] : tensors_) {
      const at::Tensor &now = t.cpu, &was = t.device;
      auto *of = was.unsafeGetTensorImpl();
      if (now.storage().unsafeGetStorageImpl() !=
          storages_[was.storage().unsafeGetStorageImpl()]
              .cpu.unsafeGetStorageImpl())
        of->set_storage_keep_dtype(device(now.storage()));
      if (now.sizes() != was.sizes() || now.strides() != was.strides() ||
          now.storage_offset() != was.storage_offset())
        of->set_sizes_and_strides(now.sizes(), now.strides(),
                                  now.storage_offset());
    }
  }

 private:
  struct TensorPair {
    at::Tensor device, cpu;
  };
  struct StoragePair {
    c10::Storage device, cpu;
  };

  static at::DataPtr copy(const c10::Storage &s) {
    at::DataPtr p = allocator()->allocate(s.nbytes());
    if (s.nbytes() > 0) std::memcpy(behind(p.get()), s.data(), s.nbytes());
    return p;
  }

  c10::Storage device(const c10::Storage &s) {
    auto &known = storage_from_cpu_[s.unsafeGetStorageImpl()];
    if (!known) {
      known = c10::Storage(c10::Storage::use_byte_size_t(), s.nbytes(), copy(s),
                           allocator(), true);
      kept_.push_back(s);
    }
    return known;
  }

  std::unordered_map<at::TensorImpl *, TensorPair> tensors_;
  std::unordered_map<at::TensorImpl *, at::Tensor> from_cpu_;
  // A tensor of each storage, as the base of its views.
  std::unordered_map<c10::StorageImpl *, at::Tensor> bases_;
  std::unordered_map<c10::StorageImpl *, StoragePair> storages_;
  std::unordered_map<c10::StorageImpl *, c10::Storage> storage_from_cpu_;
  // The kernel's new storages, which must not be freed while their addresses
  // are keys.
  std::vector<c10::Storage> kept_;
};

// What a kernel of the device may not see: autograd and autocast, which have
// run already.
struct Below {
  at::AutoDispatchBelowAutograd autograd;
  c10::impl::ExcludeDispatchKeyGuard autocast{c10::autocast_dispatch_keyset};
};

// ---- the operators

// Calls f for each tensor in v.
template <class F>
void each_tensor(const c10::IValue &v, F f) {
  if (v.isTensor()) {
    if (v.toTensor().defined()) f(v.toTensor());
  } else if (v.isTensorList()) {
    for (const at::Tensor &t : v.toTensorVector())
      if (t.defined()) f(t);
  } else if (v.isOptionalTensorList()) {
    for (const std::optional<at::Tensor> &t : v.toOptionalTensorVector())
      if (t.has_value() && t->defined()) f(*t);
  }
}

// Replaces each tensor t in v by f(t).
template <class F>
void map_tensors(c10::IValue &v, F f) {
  if (v.isTensor()) {
    if (v.toTensor().defined()) v = f(v.toTensor());
  } else if (v.isTensorList()) {
    c10::List<at::Tensor> l;
    for (const at::Tensor &t : v.toTensorVector()) l.push_back(f(t));
    v = std::move(l);
  } else if (v.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> l;
    for (const std::optional<at::Tensor> &t : v.toOptionalTensorVector())
      l.push_back(t.has_value() ? std::optional<at::Tensor>(f(*t))
                                : std::nullopt);
    v = std::move(l);
  }
}

// Fails as CUDA does if a tensor is not on the device. Only the numbers of an
// operator, tensors without dimensions that it reads, may be on the CPU.
void check_devices(const c10::FunctionSchema &schema,
                   c10::ArrayRef<c10::IValue> args) {
  const bool index = indexing.count(schema.name()) != 0;
  for (size_t i = 0; i < args.size(); i++) {
    const c10::Argument &formal = schema.arguments()[i];
    const bool written =
        formal.alias_info() != nullptr && formal.alias_info()->isWrite();
    each_tensor(args[i], [&](const at::Tensor &t) {
      if (t.device().type() == type) {
        if (index && formal.name() == "indices" &&
            (t.scalar_type() == at::kBool || t.scalar_type() == at::kByte))
          count_to_host(schema.name());  // the number of true elements
        return;
      }
      if (t.device().is_cpu() && t.dim() == 0 && !written) return;
      if (t.device().is_cpu() && index && formal.name() == "indices") {
        count(Event::to_device);
        count(Event::synchronized);
        return;
      }
      TORCH_CHECK(false,
                  "Expected all tensors to be on the same device, but got ",
                  formal.name(), " is on ", t.device(),
                  ", different from other tensors on ", device,
                  " (when checking arguments of ", schema.name(), ")");
    });
  }
}

bool is_view(const c10::FunctionSchema &schema) {
  if (schema.is_mutable()) return false;
  for (const auto &r : schema.returns())
    if (r.alias_info() != nullptr) return true;
  return false;
}

void run(const c10::OperatorHandle &op, torch::jit::Stack *stack) {
  const auto &schema = op.schema();
  const size_t n = schema.arguments().size(), first = stack->size() - n;
  check_devices(schema, c10::ArrayRef<c10::IValue>(*stack).slice(first, n));
  if (reading.count(schema.name()) != 0) count_to_host(schema.name());
  if (!is_view(schema)) count_operator(schema.name());

  Aliases aliases;
  for (size_t i = 0; i < n; i++) {
    c10::IValue &v = (*stack)[first + i];
    const auto &formal = *schema.arguments()[i].real_type();
    if (v.isGenerator()) {
      v = cpu_generator(v.toGenerator());
    } else if (v.isNone() && formal.kind() == c10::TypeKind::OptionalType &&
               formal.castRaw<c10::OptionalType>()->getElementType()->kind() ==
                   c10::TypeKind::GeneratorType) {
      v = cpu_generator(std::nullopt);
    } else if (v.isDevice()) {
      if (v.toDevice().type() == type) v = c10::Device(c10::kCPU);
    } else if (v.isStorage()) {
      v = aliases.cpu(v.toStorage());
    } else {
      map_tensors(v, [&](const at::Tensor &t) { return aliases.cpu(t); });
    }
  }
  {
    const Below below;
    op.callBoxed(stack);
  }
  aliases.update();
  for (size_t i = first; i < stack->size(); i++)
    map_tensors((*stack)[i],
                [&](const at::Tensor &t) { return aliases.device(t); });
}

void check_empty(std::optional<at::Device> d, std::optional<bool> pin) {
  TORCH_CHECK(!d.has_value() || d->index() <= 0, "there is no device ", *d);
  TORCH_CHECK(!pin.value_or(false), "only memory of the CPU can be pinned");
}

at::Tensor empty(c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout>, std::optional<at::Device> d,
                 std::optional<bool> pin, std::optional<at::MemoryFormat> mf) {
  check_empty(d, pin);
  return at::detail::empty_generic(
      C10_AS_INTARRAYREF_SLOW(size), allocator(),
      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      c10::dtype_or_default(dtype), mf);
}

at::Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                         std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device> d,
                         std::optional<bool> pin) {
  check_empty(d, pin);
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
      allocator(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      c10::dtype_or_default(dtype));
}

// Copies self to dst. A copy that blocks makes the host wait, and so does one
// from or to memory that is not pinned, as on CUDA.
at::Tensor copy_from(const at::Tensor &self, const at::Tensor &dst,
                     bool non_blocking) {
  const bool from = self.device().type() == type,
             to = dst.device().type() == type;
  if (from && to) {
    count_operator("aten::copy_");
  } else if (from || to) {
    const at::Tensor &host = from ? dst : self;
    TORCH_CHECK(host.device().is_cpu(), "cannot copy from ", self.device(),
                " to ", dst.device());
    count(from ? Event::to_host : Event::to_device);
    count_name(from ? "to host: aten::copy_" : "to device: aten::copy_");
    if (!non_blocking || !is_pinned(host.storage().data()))
      count(Event::synchronized);
  }
  Aliases aliases;
  const Below below;
  aliases.cpu(dst).copy_(aliases.cpu(self));
  return dst;
}

at::Tensor copy_from_and_resize(const at::Tensor &self, const at::Tensor &dst) {
  dst.resize_(self.sizes());
  return copy_from(self, dst, false);
}

// Accelerators compute dropout with this fused operator, and the CPU with
// others. The noise, which takes the place of the mask, is the CPU's.
std::tuple<at::Tensor, at::Tensor> dropout(const at::Tensor &x, double p,
                                           std::optional<bool> train) {
  at::Tensor noise = at::empty_like(x);
  if (train.value_or(true))
    noise.bernoulli_(1 - p).div_(1 - p);
  else
    noise.fill_(1);
  return {x * noise, noise};
}

at::Tensor dropout_backward(const at::Tensor &grad, const at::Tensor &noise,
                            double) {
  return grad * noise;
}

// Attention chooses its kernel here. It depends on whether gradients are
// required.
int64_t choose_attention(const at::Tensor &q, const at::Tensor &k,
                         const at::Tensor &v,
                         const std::optional<at::Tensor> &mask, double dropout,
                         bool causal, std::optional<double> scale, bool gqa) {
  Aliases aliases;
  const auto cpu = [&](const at::Tensor &t) {
    at::Tensor c = aliases.cpu(t);
    if (t.requires_grad() && c.device().is_cpu()) c.set_requires_grad(true);
    return c;
  };
  std::optional<at::Tensor> m;
  if (mask.has_value()) m = cpu(*mask);
  return at::_fused_sdp_choice(cpu(q), cpu(k), cpu(v), m, dropout, causal,
                               scale, gqa);
}

}  // namespace

void count(Event e) {
  switch (e) {
    case Event::to_device:
      to_device++;
      break;
    case Event::to_host:
      to_host++;
      break;
    case Event::synchronized:
      synchronized++;
      break;
  }
}

// Registers each operator that has a kernel for the CPU. The others consist of
// such operators, except for a few that choose between kernels by the device
// (convolution), and those on lists, which are one operator on CUDA.
void open_operators() {
  static torch::Library aten(torch::Library::IMPL, "aten",
                             c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  aten.impl("empty.memory_format", TORCH_FN(empty));
  aten.impl("empty_strided", TORCH_FN(empty_strided));
  aten.impl("_copy_from", TORCH_FN(copy_from));
  aten.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  aten.impl("native_dropout", TORCH_FN(dropout));
  aten.impl("native_dropout_backward", TORCH_FN(dropout_backward));
  const std::unordered_set<std::string> own = {
      "aten::empty.memory_format", "aten::empty_strided",
      "aten::_copy_from",          "aten::_copy_from_and_resize",
      "aten::native_dropout",      "aten::native_dropout_backward"};
  const std::unordered_set<std::string> by_device = {
      "aten::convolution", "aten::convolution_backward"};
  auto &dispatcher = c10::Dispatcher::singleton();
  for (const auto &name : dispatcher.getAllOpNames()) {
    if (name.getNamespace() != std::string("aten")) continue;
    std::string full = name.name;
    if (!name.overload_name.empty()) full += "." + name.overload_name;
    const auto op = dispatcher.findSchema(name);
    if (!op.has_value() || own.count(full) != 0) continue;
    if (op->hasKernelForDispatchKey(c10::DispatchKey::CPU) ||
        by_device.count(full) != 0 ||
        name.name.rfind("aten::_foreach_", 0) == 0)
      aten.impl(full.c_str(),
                torch::CppFunction::makeFromBoxedFunction<&run>());
  }
  at::native::_fused_sdp_choice_stub.set_privateuse1_dispatch_ptr(
      &choose_attention);
}

// Operators of a library's own, on any device, for the tests of such operators.
// The second has the schema of many of ATen's, but another C++ signature.
TORCH_LIBRARY(testdevice, m) {
  m.def("scaled(Tensor x, *, Scalar by=2) -> Tensor",
        [](const at::Tensor &x, const at::Scalar &by) { return x * by; });
  m.def("scaled.value(Tensor x, Scalar by) -> Tensor",
        [](at::Tensor x, at::Scalar by) { return x * by; });
}

}  // namespace testdevice

extern "C" {

__attribute__((visibility("default"))) void testdevice_read(
    testdevice_counts *c) {
  c->to_device = testdevice::to_device;
  c->to_host = testdevice::to_host;
  c->synchronized = testdevice::synchronized;
  c->operators = testdevice::operators;
  c->allocated = testdevice::allocated();
}

__attribute__((visibility("default"))) void testdevice_reset(void) {
  testdevice::to_device = 0;
  testdevice::to_host = 0;
  testdevice::synchronized = 0;
  testdevice::operators = 0;
  std::lock_guard<std::mutex> lock(testdevice::names_mutex);
  testdevice::names.clear();
}

__attribute__((visibility("default"))) char *testdevice_operators(void) {
  std::string text;
  std::lock_guard<std::mutex> lock(testdevice::names_mutex);
  for (const auto &[name, n] : testdevice::names)
    text += std::to_string(n) + " " + name + "\n";
  return strdup(text.c_str());
}

}  // extern "C"
