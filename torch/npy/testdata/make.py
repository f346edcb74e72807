"""Writes arrays of every type with numpy, for the tests of this package.

    python3 torch/npy/testdata/make.py
"""
import os

import numpy as np

here = os.path.dirname(os.path.abspath(__file__))
count = np.arange(24).reshape(2, 3, 4)
arrays = {name: (count % 2 == 0) if name == "bool" else (count + 1j * count[::-1] if name.startswith("c") else count).astype(name)
          for name in ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex64", "complex128"]}
arrays["scalar"] = np.array(3.5, dtype=np.float32)
arrays["vector"] = np.array([1.5, -2.25, 1e-30], dtype=np.float32)
arrays["empty"] = np.zeros((0, 5), dtype=np.float32)
arrays["wide"] = np.zeros((1,) * 12 + (2,), dtype=np.int8)
for name, a in arrays.items():
    np.save(os.path.join(here, name + ".npy"), a)
fortran = np.asfortranarray(count.astype(np.int16))
np.save(os.path.join(here, "fortran.npy"), fortran)
with open(os.path.join(here, "version2.npy"), "wb") as f:
    np.lib.format.write_array(f, arrays["float32"], version=(2, 0))
np.save(os.path.join(here, "big.npy"), arrays["float32"].astype(">f4"))
np.save(os.path.join(here, "words.npy"), np.array(["a", "b"]))
np.savez(os.path.join(here, "stored.npz"), x=arrays["float32"], fortran=fortran)
np.savez_compressed(os.path.join(here, "compressed.npz"), x=arrays["float32"], fortran=fortran)
with open(os.path.join(here, "versions.txt"), "w") as f:
    f.write(f"numpy {np.__version__}\n")
