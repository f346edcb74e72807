// Information about the shim, as key=value lines in a separate section, so that
// it can be read without loading the shim. Loading the shim with a different
// libtorch than the one it was built for might crash.
#include <torch/version.h>

#include "cyclecap_torch.h"

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

extern "C" {

__attribute__((section(".cyclecap"), used)) const char ct_about[] =
    "abi=" TEXT(CT_ABI) "\nlibtorch=" TORCH_VERSION "\n";

}  // extern "C"
