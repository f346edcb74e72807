// Random number generators: the default ones and additional ones.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>

#include <mutex>

#include "common.h"

namespace {

ct_generator own(at::Generator g) {
  return reinterpret_cast<ct_generator>(new at::Generator(std::move(g)));
}

}  // namespace

extern "C" {

ct_error ct_manual_seed(uint64_t seed) {
  return ct::guard([&] {
    auto &ctx = at::globalContext();
    {
      auto g = ctx.defaultGenerator(c10::Device(c10::kCPU));
      std::lock_guard<std::mutex> lock(g.mutex());
      g.set_current_seed(seed);
    }
    // hasCUDA checks only the hooks, so nothing accesses a device if there is
    // none.
    if (at::Context::hasCUDA()) {
      const auto n = at::detail::getCUDAHooks().deviceCount();
      for (int i = 0; i < n; i++) {
        auto g = ctx.defaultGenerator(
            c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(i)));
        std::lock_guard<std::mutex> lock(g.mutex());
        g.set_current_seed(seed);
      }
    }
    if (at::isPrivateUse1HooksRegistered()) {
      auto g = ctx.defaultGenerator(c10::Device(c10::kPrivateUse1, 0));
      std::lock_guard<std::mutex> lock(g.mutex());
      g.set_current_seed(seed);
    }
  });
}

ct_error ct_generator_new(int device_type, int device_index, ct_generator *g) {
  return ct::guard([&] {
    const auto d = static_cast<c10::DeviceType>(device_type);
    if (d == c10::kCPU) {
      *g = own(at::make_generator<at::CPUGeneratorImpl>());
    } else if (d == c10::kPrivateUse1) {
      auto fresh = at::globalContext()
                       .defaultGenerator(c10::Device(
                           d, static_cast<c10::DeviceIndex>(device_index)))
                       .clone();
      fresh.set_current_seed(c10::default_rng_seed_val);
      *g = own(std::move(fresh));
    } else {
      TORCH_CHECK_VALUE(d == c10::kCUDA,
                        "no random number generator for device type ", d);
      *g = own(at::detail::getCUDAHooks().getNewGenerator(
          static_cast<c10::DeviceIndex>(device_index)));
    }
  });
}

ct_error ct_generator_default(int device_type, int device_index,
                              ct_generator *g) {
  return ct::guard([&] {
    *g = own(at::globalContext().defaultGenerator(
        c10::Device(static_cast<c10::DeviceType>(device_type),
                    static_cast<c10::DeviceIndex>(device_index))));
  });
}

void ct_generator_free(ct_generator g) {
  delete reinterpret_cast<at::Generator *>(g);
}

ct_error ct_generator_seed(ct_generator h, uint64_t seed) {
  return ct::guard([&] {
    at::Generator g = ct::generator(h);
    std::lock_guard<std::mutex> lock(g.mutex());
    g.set_current_seed(seed);
  });
}

ct_error ct_generator_get_state(ct_generator h, ct_tensor *state) {
  return ct::guard([&] {
    at::Generator g = ct::generator(h);
    std::lock_guard<std::mutex> lock(g.mutex());
    *state = ct::own(g.get_state());
  });
}

ct_error ct_generator_set_state(ct_generator h, ct_tensor state) {
  return ct::guard([&] {
    at::Generator g = ct::generator(h);
    std::lock_guard<std::mutex> lock(g.mutex());
    g.set_state(ct::borrow(state));
  });
}

}  // extern "C"
