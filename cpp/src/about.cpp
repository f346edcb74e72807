// What the shim says of itself to whoever has the file: lines of key=value in
// a section of their own, so that they can be read without loading it. Loading
// the shim with another libtorch than its own might crash.
#include <torch/version.h>

#include "cyclecap_torch.h"

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

extern "C" {

__attribute__((section(".cyclecap"), used)) const char ct_about[] =
    "abi=" TEXT(CT_ABI) "\nlibtorch=" TORCH_VERSION "\n";

}  // extern "C"
