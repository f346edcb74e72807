// What libtorch asks a device: its guard, its hooks and its random generators.
#include "device.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/DeviceType.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "testdevice.h"

namespace testdevice {

namespace {

constexpr auto type = c10::DeviceType::PrivateUse1;

// There is one device with one stream, and every operator is complete when its
// call returns, so streams and events have nothing to do.
struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return testdevice::type; }
  c10::Device exchangeDevice(c10::Device) const override { return device; }
  c10::Device getDevice() const override { return device; }
  void setDevice(c10::Device d) const override {
    TORCH_CHECK(d.type() == testdevice::type && d.index() <= 0,
                "there is no device ", d);
  }
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream getStreamFromGlobalPool(c10::Device, bool) const override {
    return stream();
  }
  c10::Stream getNewStream(c10::Device, int) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const override { return stream(); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void **, const c10::Stream &, const c10::DeviceIndex,
              const c10::EventFlag) const override {}
  void block(void *, const c10::Stream &) const override {}
  bool queryEvent(void *) const override { return true; }
  bool queryStream(const c10::Stream &) const override { return true; }
  double elapsedTime(void *, void *, const c10::DeviceIndex) const override {
    return 0;
  }
  void synchronizeStream(const c10::Stream &) const override { wait(); }
  void synchronizeEvent(void *) const override { wait(); }
  void synchronizeDevice(const c10::DeviceIndex) const override { wait(); }

 private:
  static c10::Stream stream() {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  static void wait() { count(Event::synchronized); }
};

// Draws from a CPU generator, so that random numbers have the same bits as the
// CPU's with the same seed.
struct DeviceGenerator final : c10::GeneratorImpl {
  explicit DeviceGenerator(at::Generator cpu)
      : GeneratorImpl(testdevice::device,
                      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)),
        cpu(std::move(cpu)) {}
  void set_current_seed(uint64_t seed) override { cpu.set_current_seed(seed); }
  void set_offset(uint64_t offset) override { cpu.set_offset(offset); }
  uint64_t get_offset() const override { return cpu.get_offset(); }
  uint64_t current_seed() const override { return cpu.current_seed(); }
  uint64_t seed() override { return cpu.seed(); }
  void set_state(const c10::TensorImpl &state) override {
    cpu.unsafeGetGeneratorImpl()->set_state(state);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return cpu.unsafeGetGeneratorImpl()->get_state();
  }
  DeviceGenerator *clone_impl() const override {
    return new DeviceGenerator(cpu.clone());
  }

  at::Generator cpu;
};

at::Generator new_generator() {
  return at::make_generator<DeviceGenerator>(at::detail::createCPUGenerator());
}

const at::Generator &default_generator() {
  static const at::Generator g = new_generator();
  return g;
}

void check(c10::DeviceIndex index) {
  TORCH_CHECK(index <= 0, "there is no device privateuseone:", int{index});
}

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  void setCurrentDevice(c10::DeviceIndex i) const override { check(i); }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex i) const override {
    check(i);
    return 0;
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex i) const override {
    check(i);
    return 0;
  }
  const at::Generator &getDefaultGenerator(c10::DeviceIndex i) const override {
    check(i);
    return default_generator();
  }
  at::Generator getNewGenerator(c10::DeviceIndex i) const override {
    check(i);
    return new_generator();
  }
  at::Device getDeviceFromPtr(void *) const override { return device; }
  bool isPinnedPtr(const void *p) const override { return is_pinned(p); }
  c10::Allocator *getPinnedMemoryAllocator() const override {
    return pinned_allocator();
  }
};

}  // namespace

at::Generator cpu_generator(const std::optional<at::Generator> &g) {
  const at::Generator &of =
      g.has_value() && g->defined() ? *g : default_generator();
  TORCH_CHECK(of.device().type() == type, "Expected a '", type,
              "' device type for generator but found '", of.device().type(),
              "'");
  return static_cast<DeviceGenerator *>(of.unsafeGetGeneratorImpl())->cpu;
}

void open_device() {
  c10::SetAllocator(type, allocator());
  static Guard guard;
  static const c10::impl::DeviceGuardImplRegistrar registrar(type, &guard);
  static Hooks hooks;
  at::RegisterPrivateUse1HooksInterface(&hooks);
  // Without a name, libtorch does not count the device as an accelerator. This
  // one is the default.
  c10::register_privateuse1_backend("privateuseone");
}

}  // namespace testdevice

extern "C" {

__attribute__((visibility("default"))) char *testdevice_open(void) {
  try {
    testdevice::open_memory();
    testdevice::open_device();
    testdevice::open_operators();
    testdevice::open_autocast();
    return nullptr;
  } catch (const c10::Error &e) {
    return strdup(e.what_without_backtrace());
  } catch (const std::exception &e) {
    return strdup(e.what());
  }
}

}  // extern "C"
