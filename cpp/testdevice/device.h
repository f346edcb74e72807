// Shared by the source files of the pretend accelerator.
#pragma once

#include <ATen/core/Generator.h>
#include <c10/core/Allocator.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <string>

namespace testdevice {

inline const c10::Device device(c10::DeviceType::PrivateUse1, 0);

// ---- memory.cpp

// Reserves the addresses and installs the signal handler.
void open_memory();
c10::Allocator *allocator();
// The memory behind a device address, which the host can access.
void *behind(const void *address);
int64_t allocated();
c10::Allocator *pinned_allocator();
bool is_pinned(const void *p);

// ---- device.cpp

// The CPU generator from which a generator of the device draws. If g is not
// defined, it is the default generator's.
at::Generator cpu_generator(const std::optional<at::Generator> &g);
void open_device();

// ---- operators.cpp

enum class Event { to_device, to_host, synchronized };
void count(Event e);
void open_operators();

// ---- autocast.cpp
void open_autocast();

}  // namespace testdevice
