"""Writes operators.json.gz: what PyTorch's operators return for the samples of PyTorch's
own tests (op_db), their gradients, and the errors that they raise.

    python torch/testdata/make_operators.py
    python torch/testdata/make_operators.py --seed 1 --calls 20 --out FILE  # make parity

Each function of op_db runs on its samples in inference mode, where libtorch's
dispatcher shows this script the operators that Python calls, and not those that they
consist of. Then each call is made again by itself, from the values in the file, after
seeding, on one thread. That is what the Go test repeats. Overloads that op_db does
not reach, such as those that take a number, get the arguments of others of their name;
functions that op_db lacks are in others(). The operators that autograd calls, such as
those of backward passes, are recorded without inference mode.

It needs the package expecttest. The first line of the file has the versions, and each
other line a call. A value is a list of a tag and what it consists of; see encode().
"""

import argparse
import base64
import collections
import gzip
import itertools
import json
import os
import pathlib
import pickle
import platform
import random
import sys
import warnings

import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._python_dispatch import TorchDispatchMode

HERE = pathlib.Path(__file__).parent
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.complex64]
SEED = 1  # before each call
STORAGE = 1 << 16  # bytes of a tensor's storage at most
# They need other hardware or libraries, or crash with arguments that are not theirs.
ELSEWHERE = ("cudnn", "miopen", "fbgemm", "mkldnn", "::quantize", "record_stream", "from_file", "set_data")


def cpu():
    """What the low-order bits of results depend on."""
    text = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    facts = {k.strip(): v.strip() for k, v in (line.split(":", 1) for line in text.splitlines() if ":" in line)}
    ident = [facts.get(k, "") for k in ("vendor_id", "cpu family", "model", "stepping")]
    return "/".join([torch.backends.cpu.get_cpu_capability(), *ident])


class Skip(Exception):
    """A value that the file cannot hold."""


def storage(t):
    return torch.empty(0, dtype=torch.uint8).set_(t.untyped_storage())


def encode_tensor(t):
    """["t", dtype, sizes, strides, offset, is_conj, the storage's bytes]"""
    if t._is_zerotensor():  # zeros without memory, which autograd makes
        t = torch.zeros(t.shape, dtype=t.dtype)
    if t.layout != torch.strided or t.device.type != "cpu" or t.is_quantized or t.is_neg():
        raise Skip
    if t.untyped_storage().nbytes() > STORAGE or t.dtype == torch.complex32 or type(t) is not torch.Tensor or any(t.names):
        raise Skip
    data = base64.b64encode(storage(t).numpy().tobytes()).decode()
    return ["t", str(t.dtype).removeprefix("torch."), list(t.shape), list(t.stride()), t.storage_offset(), t.is_conj(), data]


def encode(v):
    match v:
        case None:
            return ["n"]
        case torch.Tensor():
            return encode_tensor(v)
        case bool():
            return ["b", v]
        case int():
            return ["i", str(v)]
        case float():
            return ["f", v.hex()]
        case complex():
            return ["c", v.real.hex(), v.imag.hex()]
        case str():
            return ["s", v]
        case torch.dtype():
            return ["dtype", str(v).removeprefix("torch.")]
        case torch.device():
            return ["device", str(v)]
        case torch.memory_format():
            return ["memory_format", str(v).removeprefix("torch.")]
        case torch.layout() if v == torch.strided:
            return ["layout"]
        case list() | tuple():
            return ["l", [encode(x) for x in v]]
    raise Skip


def decode(v):
    match v[0]:
        case "n":
            return None
        case "t":
            _, dtype, sizes, strides, offset, conj, data = v
            dtype = getattr(torch, dtype)
            raw = base64.b64decode(data)
            # Memory of libtorch's own, which is aligned as that of other tensors.
            t = torch.empty(len(raw) // dtype.itemsize, dtype=dtype)
            if raw:
                storage(t).copy_(torch.frombuffer(bytearray(raw), dtype=torch.uint8))
            t = t.as_strided(sizes, strides, offset)
            return t.conj() if conj else t
        case "b" | "s":
            return v[1]
        case "i":
            return int(v[1])
        case "f":
            return float.fromhex(v[1])
        case "c":
            return complex(float.fromhex(v[1]), float.fromhex(v[2]))
        case "dtype" | "memory_format":
            return getattr(torch, v[1])
        case "device":
            return torch.device(v[1])
        case "layout":
            return torch.strided
        case "l":
            return [decode(x) for x in v[1]]


def tensors(values):
    """The tensors among values and in lists among them."""
    for v in values:
        if isinstance(v, torch.Tensor):
            yield v
        elif isinstance(v, (list, tuple)):
            yield from tensors(v)


def ramp(t):
    """A gradient that is not symmetric, and exact in every dtype."""
    r = (torch.arange(t.numel()) % 7 - 3).view(t.shape) / 4
    return (r * (1 + 0.5j) if t.is_complex() else r).to(t.dtype)


def results(r):
    return [] if r is None else list(r) if isinstance(r, tuple) else [r]


class Call:
    """A call of an operator."""

    def __init__(self, func, args, kwargs, entry, dtype):
        self.func, self.entry, self.dtype = func, entry, dtype
        names = [a.name for a in func._schema.arguments]
        given = dict(zip(names, args)) | kwargs
        self.args = [[n, encode(given[n])] for n in names if n in given]
        self.key = json.dumps([self.func.name(), [[n, shape_of(v)] for n, v in self.args]])

    def __reduce__(self):
        return restored, (self.func.name(), self.args, self.key, self.entry, self.dtype)

    def values(self):
        return {n: decode(v) for n, v in self.args}

    def make(self):
        torch.default_generator.manual_seed(SEED)
        return self.func(**self.values())

    def measure(self):
        """Returns the line of the file."""
        line = {"op": self.func.name(), "entry": self.entry, "dtype": str(self.dtype).removeprefix("torch."), "args": self.args}
        try:
            with torch.no_grad():
                r = self.make()
        except Exception as e:
            return line | {"error": type(e).__name__}
        line["results"] = [encode(x) for x in results(r)]
        grads = self.gradients()
        if grads:
            line["grads"] = grads
        return line

    def gradients(self):
        """The gradients of the tensors among the arguments, or None."""
        if self.func._schema.is_mutable or not self.dtype.is_floating_point and not self.dtype.is_complex:
            return None
        values = self.values()
        inputs = [t for t in tensors(values.values()) if t.is_floating_point() or t.is_complex()]
        for t in inputs:
            t.requires_grad_()
        try:
            torch.default_generator.manual_seed(SEED)
            outputs = [t for t in tensors(results(self.func(**values))) if t.requires_grad]
            if not outputs:
                return None
            torch.autograd.backward(outputs, [ramp(t) for t in outputs])
            return [["n"] if t.grad is None else encode(t.grad) for t in inputs]
        except (RuntimeError, Skip):
            return None


def restored(name, args, key, entry, dtype):
    c = Call.__new__(Call)
    c.func, c.args, c.key, c.entry, c.dtype = operator(name), args, key, entry, dtype
    return c


def operator(name):
    packet, _, overload = name.removeprefix("aten::").partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def shape_of(v):
    """What distinguishes calls: shapes and dtypes, not the numbers."""
    match v[0]:
        case "t":
            return [*v[1:4], v[5]]
        case "l":
            return [shape_of(x) for x in v[1]][:4]
        case "f" | "i" | "c":
            return v[0]
    return v


class Recorder(TorchDispatchMode):
    """Notes the operators that are called."""

    def __init__(self, wanted, entry, dtype):
        super().__init__()
        self.wanted, self.entry, self.dtype = wanted, entry, dtype
        self.calls, self.failed = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        call = None
        if func.name() in self.wanted:
            try:
                call = Call(func, args, kwargs, self.entry, self.dtype)
            except Skip:
                pass
        try:
            r = func(*args, **kwargs)
        except Exception:
            if call:
                self.failed.append(call)
            raise
        if call:
            self.calls.append(call)
        return r


def wanted_operators():
    """The operators of ops.txt, by their full names."""
    lines = (HERE / "../ops.txt").read_text().splitlines()
    listed = {line.split()[0] for line in lines if line and line[0] != "#"}
    return {name for name in listed if not any(e in name for e in ELSEWHERE)}


def record(wanted, seed, samples, only):
    """Runs op_db, and returns the calls, and those that raised an error."""
    calls, failed = [], []
    for info in op_db:
        if only and info.name not in only:
            continue
        variants = [info.op, info.method_variant, info.inplace_variant]
        for alias in info.aliases:
            variants += [alias.op, alias.method_variant, alias.inplace_variant]
        variants = [v for v in variants if v is not None]
        for dtype in DTYPES:
            if dtype not in info.supported_dtypes("cpu"):
                continue
            for variant in variants:
                torch.default_generator.manual_seed(seed)
                random.seed(seed)
                recorder = Recorder(wanted, info.full_name, dtype)
                try:
                    for i, sample in enumerate(info.sample_inputs("cpu", dtype)):
                        if i == samples:
                            break
                        try:
                            with torch.inference_mode(), recorder:
                                variant(sample.input, *sample.args, **sample.kwargs)
                        except Exception:  # an in-place variant may not take every sample
                            pass
                except Exception as e:  # samples that cannot be made
                    print(f"{info.full_name} {dtype}: {e}", file=sys.stderr)
                calls += recorder.calls
            if info.supports_autograd and (dtype.is_floating_point or dtype.is_complex):
                calls += backward(info, dtype, wanted, seed)
        if info.error_inputs_func is not None:
            recorder = Recorder(wanted, info.full_name, torch.float32)
            torch.default_generator.manual_seed(seed)
            try:
                for error in info.error_inputs("cpu"):
                    s = error.sample_input
                    try:
                        with torch.inference_mode(), recorder:
                            info.op(s.input, *s.args, **s.kwargs)
                    except Exception:
                        pass
            except Exception as e:
                print(f"{info.full_name}: errors: {e}", file=sys.stderr)
            failed += recorder.failed
    return calls, failed


def backward(info, dtype, wanted, seed):
    """The calls of a forward and a backward pass for the first samples."""
    torch.default_generator.manual_seed(seed)
    recorder = Recorder(wanted, info.full_name, dtype)
    try:
        for sample in itertools.islice(info.sample_inputs("cpu", dtype, requires_grad=True), 3):
            with recorder:
                r = info.op(sample.input, *sample.args, **sample.kwargs)
            outputs = [t for t in tensors(results(r)) if t.requires_grad]
            ramps = [ramp(t) for t in outputs]
            if outputs:
                with recorder:
                    torch.autograd.backward(outputs, ramps)
    except Exception as e:
        print(f"{info.full_name} {dtype} backward: {e}", file=sys.stderr)
    return recorder.calls


def others(dtype):
    """Calls of functions that op_db lacks."""
    aten, F = torch.ops.aten, torch.nn.functional

    def make(*shape, low=None, high=None):
        return torch.testing.make_tensor(shape, dtype=dtype, device="cpu", low=low, high=high)

    x, y, v = make(3, 4), make(3, 4), make(5)
    image, volume, sequence = make(2, 4, 6, 6), make(2, 4, 5, 5, 5), make(3, 2, 4)
    index = torch.tensor([1, 0, 2])
    options = {"dtype": dtype}
    rnn = [make(8, 4), make(8, 8), make(8), make(8)]
    state = make(1, 2, 8)

    def weights(gates):
        return [make(gates * 8, 4), make(gates * 8, 8), make(gates * 8), make(gates * 8)]

    def packed():
        return torch.nn.utils.rnn.pack_padded_sequence(sequence, [3, 2])

    for window in (torch.bartlett_window, torch.blackman_window, torch.hann_window, torch.hamming_window, torch.kaiser_window):
        yield lambda: window(5, **options)
        yield lambda: window(5, False, **options)
    yield lambda: torch.hamming_window(5, True, 0.5, **options)
    yield lambda: torch.hamming_window(5, True, 0.5, 0.4, **options)
    yield lambda: torch.kaiser_window(5, True, 10.0, **options)
    yield lambda: torch.fft.fftfreq(5, 0.5, **options)
    yield lambda: torch.fft.rfftfreq(5, 0.5, **options)
    yield lambda: aten.range(1, 4, **options)
    yield lambda: aten.range.step(1, 4, 2, **options)
    yield lambda: torch.randperm(7, **options)
    yield lambda: torch.rand_like(x)
    yield lambda: x.clone().random_()
    yield lambda: x.clone().random_(5)
    yield lambda: x.clone().random_(2, 9)
    yield lambda: aten.random.default(x)
    yield lambda: aten.random.to(x, 5)
    yield lambda: getattr(aten.random, "from")(x, 2, 9)
    yield lambda: torch.bernoulli(x, 0.3)
    yield lambda: aten.bernoulli.Tensor(x, make(3, 4, low=0, high=1))
    yield lambda: aten.bernoulli_.Tensor(x.clone(), make(3, 4, low=0, high=1))
    yield lambda: torch.poisson(make(3, 4, low=1, high=5))
    yield lambda: torch.binomial(make(3, 4, low=1, high=5), make(3, 4, low=0, high=1))
    yield lambda: torch.native_dropout(x, 0.5, True)
    yield lambda: F.rrelu(x, training=True)
    yield lambda: aten.rrelu_with_noise(x, torch.empty_like(x).zero_(), 0.1, 0.3, True)
    yield lambda: aten.rrelu_with_noise_(x.clone(), torch.empty_like(x).zero_(), 0.1, 0.3, True)
    for f in ("is_complex", "is_conj", "is_floating_point", "is_inference", "is_neg", "is_signed", "is_distributed", "output_nr", "retains_grad"):
        yield lambda: getattr(aten, f)(x)
    for f in ("sym_numel", "sym_storage_offset", "dense_dim", "sparse_dim", "alias", "conj", "detach_copy", "lift", "lift_fresh_copy", "view_as_real_copy", "data"):
        yield lambda: getattr(aten, f)(x)
    for f in ("is_same_size", "is_set_to", "copy", "type_as"):
        yield lambda: getattr(aten, f)(x, y)
    for f in ("size", "stride", "sym_size", "sym_stride"):
        yield lambda: getattr(aten, f).int(x, 1)
    yield lambda: aten.copy_(x.clone(), y)
    yield lambda: aten.copy_(x.clone(), torch.ones(4, dtype=torch.float64))
    yield lambda: aten.detach_(x.clone())
    yield lambda: aten.requires_grad_(x.clone(), False)
    yield lambda: aten.can_cast(dtype, torch.int32)
    yield lambda: aten.promote_types(dtype, torch.int32)
    yield lambda: aten.result_type.Tensor(x, torch.ones(2, dtype=torch.float64))
    yield lambda: aten.result_type.Scalar(x, 1.5)
    yield lambda: aten.result_type.Scalar_Tensor(1.5, x)
    yield lambda: aten.result_type.Scalar_Scalar(1, 1.5)
    yield lambda: aten.to.other(x, torch.ones(2, dtype=torch.float64))
    yield lambda: aten.view.dtype(x, torch.uint8)
    yield lambda: aten.view_copy.dtype(x, torch.uint8)
    yield lambda: aten.view_as_complex_copy(make(3, 2))
    yield lambda: aten.split.sizes(x, [1, 3], 1)
    yield lambda: aten.split_copy.Tensor(x, 2)
    yield lambda: aten.unsafe_split_with_sizes(x, [1, 3], 1)
    yield lambda: aten.select_copy.int(x, 0, 1)
    yield lambda: aten.slice_copy.Tensor(x, 1, 1, 4, 2)
    yield lambda: aten.slice_inverse(x[:, 1:3], x, 1, 1, 3)
    yield lambda: aten.squeeze_copy.dims(make(3, 1, 1), [1, 2])
    yield lambda: aten.set_.source_Tensor(x.clone(), y)
    yield lambda: aten.set_.source_Tensor_storage_offset(x.clone(), y, 2, [2, 2], [4, 1])
    yield lambda: aten.set_(x.clone())
    yield lambda: aten.set.source_Tensor(x, y)
    yield lambda: torch.vander(v, 3)
    yield lambda: aten.chain_matmul([x, y.t(), x])
    yield lambda: aten.fill_diagonal_(x.clone(), 2)
    yield lambda: torch.nn.utils.rnn.pad_sequence([v, v[:3]], True, 1.0)
    yield lambda: aten.norm.Scalar(x)
    yield lambda: aten.norm.ScalarOpt_dim(x, 2, [1], True)
    yield lambda: aten.norm.ScalarOpt_dtype(x, 1, dtype=dtype)
    yield lambda: aten.norm.ScalarOpt_dim_dtype(x, 3, [0], True, dtype=dtype)
    yield lambda: aten.nuclear_norm(x)
    yield lambda: aten.nuclear_norm.dim(x, [0, 1])
    yield lambda: aten.frobenius_norm.dim(x, [1])
    yield lambda: aten.norm_except_dim(x)
    yield lambda: aten.slogdet(make(3, 3))
    yield lambda: aten.linalg__powsum(x, 3, [1])
    yield lambda: aten.linalg_cond.p_str(make(3, 3), "fro")
    yield lambda: aten.linalg_norm.ord_str(x, "fro")
    yield lambda: aten.gradient.array(x, dim=[0, 1])
    yield lambda: aten.gradient.scalararray(x, spacing=2, dim=[0, 1])
    yield lambda: aten.gradient.tensorarrayint(x, spacing=[make(3)], dim=0)
    yield lambda: aten.repeat_interleave.Tensor(index)
    yield lambda: aten.unique_dim(x, 0, True, True, True)
    yield lambda: aten.unique_dim_consecutive(x, 1, True, True)
    for kind in ("reflection", "replication"):
        yield lambda: getattr(aten, kind + "_pad1d")(x, [1, 2])
        yield lambda: getattr(aten, kind + "_pad2d")(image, [1, 2, 0, 1])
        yield lambda: getattr(aten, kind + "_pad3d")(volume, [1, 2, 0, 1, 1, 1])
    yield lambda: aten.native_channel_shuffle(image, 2)
    yield lambda: aten.native_group_norm(image, make(4), make(4), 2, 4, 36, 2, 1e-5)
    yield lambda: aten.native_layer_norm(x, [4], make(4), make(4), 1e-5)
    yield lambda: aten.nll_loss(x, index)
    yield lambda: aten.nll_loss_forward(x, index, None, 1, -100)
    yield lambda: aten.nll_loss2d(image, torch.zeros(2, 6, 6, dtype=torch.int64))
    yield lambda: aten.nll_loss2d_forward(image, torch.zeros(2, 6, 6, dtype=torch.int64), None, 1, -100)
    yield lambda: aten.multilabel_margin_loss_forward(x, torch.tensor([[1, -1, 0, 0]] * 3), 1)
    yield lambda: aten.log_sigmoid_forward(x)
    yield lambda: aten.conv_tbc(sequence, make(2, 4, 3), make(3), 1)
    yield lambda: aten.convolution(image, make(3, 4, 3, 3), make(3), [2, 2], [1, 1], [1, 1], False, [0, 0], 1)
    yield lambda: aten.slow_conv_dilated2d(image, make(3, 4, 3, 3), [3, 3], make(3), [1, 1], [0, 0], [2, 2])
    yield lambda: aten.slow_conv_dilated3d(volume, make(3, 4, 2, 2, 2), [2, 2, 2], make(3), [1, 1, 1], [0, 0, 0], [2, 2, 2])
    yield lambda: aten.slow_conv_transpose2d(image, make(4, 3, 3, 3), [3, 3], make(3))
    yield lambda: aten.slow_conv_transpose3d(volume, make(4, 3, 2, 2, 2), [2, 2, 2], make(3))
    yield lambda: aten.slow_conv3d(volume, make(3, 4, 2, 2, 2), [2, 2, 2], make(3))
    yield lambda: aten.thnn_conv2d(image, make(3, 4, 3, 3), [3, 3], make(3))
    yield lambda: aten.col2im(make(1, 8, 9), [4, 4], [2, 2], [1, 1], [0, 0], [1, 1])
    yield lambda: aten.affine_grid_generator(make(2, 2, 3), [2, 3, 4, 4], False)
    for cell in (aten.rnn_tanh_cell, aten.rnn_relu_cell):
        yield lambda: cell(sequence[0], state[0], *rnn)
    yield lambda: aten.gru_cell(sequence[0], state[0], *weights(3))
    yield lambda: aten.lstm_cell(sequence[0], [state[0], state[0]], *weights(4))
    for net, gates in ((aten.rnn_tanh, 1), (aten.rnn_relu, 1), (aten.gru, 3)):
        yield lambda: net.input(sequence, state, weights(gates), True, 1, 0.0, False, False, False)
        yield lambda: net.data(packed().data, packed().batch_sizes, state, weights(gates), True, 1, 0.0, False, False)
    yield lambda: aten.lstm.input(sequence, [state, state], weights(4), True, 1, 0.0, False, False, False)
    yield lambda: aten.lstm.data(packed().data, packed().batch_sizes, [state, state], weights(4), True, 1, 0.0, False, False)
    yield lambda: aten.flatten_dense_tensors([x, v])
    yield lambda: aten.unflatten_dense_tensors(make(17), [x, v])
    yield lambda: aten.fake_quantize_per_tensor_affine(x, 0.1, 2, 0, 255)
    yield lambda: aten.fake_quantize_per_tensor_affine_cachemask(x, 0.1, 2, 0, 255)
    yield lambda: aten.fake_quantize_per_channel_affine(x, torch.ones(3), torch.zeros(3, dtype=torch.int32), 0, 0, 255)
    yield lambda: aten.fake_quantize_per_channel_affine_cachemask(x, torch.ones(3), torch.zeros(3, dtype=torch.int32), 0, 0, 255)
    yield lambda: aten.batch_norm_update_stats(image, make(4), make(4), 0.1)
    yield lambda: aten.normal_functional(x, 1.0, 2.0)


def record_others(wanted, seed):
    calls = []
    for dtype in DTYPES:
        torch.default_generator.manual_seed(seed)
        recorder = Recorder(wanted, "others", dtype)
        for f in others(dtype):
            try:
                with torch.inference_mode(), recorder:
                    f()
            except Exception:  # not for this dtype
                pass
        calls += recorder.calls
    return calls


def siblings(calls, wanted):
    """Calls of operators that op_db does not reach, with arguments of others of their name."""
    reached = {c.func.name() for c in calls}
    by_name = collections.defaultdict(list)
    for c in calls:
        by_name[c.func._schema.name].append(c)
    found = []
    for name in sorted({n.partition(".")[0] for n in wanted if n.startswith("aten::")}):
        packet = name.removeprefix("aten::")
        # The in-place operator gets the arguments of the other, and the other way round.
        sources = by_name[name] + by_name[name + "_"] + by_name[name.removesuffix("_")]
        if not sources:
            continue
        for overload in getattr(torch.ops.aten, packet).overloads():
            func = getattr(getattr(torch.ops.aten, packet), overload)
            if func.name() in reached or func.name() not in wanted:
                continue
            found += survived(lambda: tried(func, sources), func.name())
    return found


def survived(f, name):
    """The result of f in a process of its own, or [] if libtorch crashes, as some operators
    do with arguments that they do not expect."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        with open(write, "wb") as pipe:
            pipe.write(pickle.dumps(f()))
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        data = pipe.read()
    if os.waitpid(pid, 0)[1] != 0:
        print(f"{name} crashes with the arguments of another operator", file=sys.stderr)
        return []
    return pickle.loads(data)


def tried(func, sources):
    """Up to three calls of func in each dtype, with the arguments of other calls."""
    found = []
    for dtype in DTYPES:
        tries = (sibling(func, c) for c in [c for c in sources if c.dtype == dtype][:30])
        found += itertools.islice(filter(None, tries), 3)
    return found


def sibling(func, call):
    """A call of func with the arguments of another, or None."""
    for values in arguments(func, call):
        try:
            c = Call(func, [], values, call.entry, call.dtype)
            c.make()
            return c
        except Exception:
            continue
    return None


def arguments(func, call):
    """What to try as the arguments of func: those of a call, with other kinds of numbers."""
    given = [v for _, v in call.values().items()]
    formals = func._schema.arguments
    number = 2 if call.dtype == torch.int64 else 1.5
    for positional in (given, given[:2], given[:1]):
        values = {}
        for formal, v in zip(formals, positional):
            kind = str(formal.type)
            if isinstance(v, torch.Tensor) and kind in ("number", "Optional[number]", "Scalar"):
                v = number
            elif isinstance(v, (int, float)) and kind == "Tensor":
                v = torch.tensor(v)
            elif isinstance(v, list) and kind in ("int", "Optional[int]") and v:
                v = v[0]
            elif isinstance(v, bool) and kind in ("int", "Optional[int]") or isinstance(v, torch.Tensor) and "Tensor" not in kind:
                continue  # Python would take a bool for a dtype, and the item of a tensor
            values[formal.name] = v
        for formal in formals[len(positional) :]:
            if not formal.has_default_value() and str(formal.type) in ("number", "Scalar"):
                values[formal.name] = number
        yield values


def choose(calls, most):
    """The calls that the file gets: of each operator and dtype the smallest, the one with
    the most arguments, and others."""
    groups = collections.defaultdict(dict)
    for c in calls:
        groups[c.func.name(), c.dtype].setdefault(c.key, c)
    chosen = []
    for _, group in sorted(groups.items(), key=lambda g: (g[0][0], DTYPES.index(g[0][1]))):
        sized = sorted(group.values(), key=size)
        first = [c for c in sized if size(c)[0] == 0][:1] or sized[:1]
        full = sorted(group.values(), key=lambda c: (-len(c.args), size(c)))[:1]
        chosen += list(dict.fromkeys(first + full + sized))[:most]
    return chosen


def size(c):
    text = sum(len(json.dumps(v)) for _, v in c.args)
    # Tensors without elements, or with only one, show little.
    return (0 if max((t.numel() for t in tensors(c.values().values())), default=2) > 1 else 1, text)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--out", default=HERE / "operators.json.gz", type=pathlib.Path)
    p.add_argument("--seed", default=0, type=int, help="of the samples")
    p.add_argument("--calls", default=2, type=int, help="the most calls of an operator in a dtype")
    p.add_argument("--samples", default=12, type=int, help="the most samples of a function in a dtype")
    p.add_argument("--largest", default=4000, type=int, help="the most characters of a call, unless it is an operator's only one")
    p.add_argument("--only", nargs="*", help="functions of op_db")
    a = p.parse_args()
    warnings.simplefilter("ignore")
    torch.Tensor.__repr__ = object.__repr__  # errors have their arguments' text, which takes long
    torch.set_num_threads(1)
    wanted = wanted_operators()
    calls, failed = record(wanted, a.seed, a.samples, a.only)
    if not a.only:
        calls += record_others(wanted, a.seed)
    print(f"op_db makes {len(calls)} calls", file=sys.stderr)
    calls += siblings(calls, wanted)
    lines, seen = [], set()
    for c in choose(calls, a.calls):
        try:
            line = json.dumps(c.measure())
        except Skip:
            continue
        if len(line) <= a.largest or c.func.name() not in seen:
            seen.add(c.func.name())
            lines.append(line)
    errors = {}
    for c in failed:
        line = c.measure()
        if "error" in line:
            errors.setdefault(c.key, json.dumps(line))
    lines += errors.values()
    versions = {"torch": torch.__version__, "python": platform.python_version(), "cpu": cpu(), "seed": SEED}
    with open(a.out, "wb") as f, gzip.GzipFile("", "wb", 9, f, mtime=0) as z:
        for line in [json.dumps(versions), *lines]:
            z.write(line.encode() + b"\n")
    print(f"{len(seen)} operators, {len(lines) - len(errors)} calls, {len(errors)} errors, {a.out.stat().st_size} bytes")


main()
