/* The C ABI between Go and libtorch: the only header of the shim.
 *
 * Conventions
 *  - No C++ types or exceptions cross this interface. A function that can fail
 *    returns a ct_error: NULL on success, otherwise a malloc'ed string whose
 *    first byte is the kind of the error (see CT_ERR_*), followed by the
 *    message without a backtrace. The caller frees it with ct_free.
 *  - A ct_tensor is a counted reference to a libtorch tensor. The caller that
 *    receives one frees it once, with ct_tensors_free. NULL is the undefined
 *    tensor (Python's None).
 *  - Every ATen operator is called through ct_call, with its arguments
 *    flattened into 64-bit words, so that Go memory that C reads never
 *    contains pointers into Go memory.
 */
#ifndef CYCLECAP_TORCH_H
#define CYCLECAP_TORCH_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define CT_API __attribute__((visibility("default")))
#else
#define CT_API
#endif

/* The version of this interface, incremented whenever a declaration changes. A
 * shim contains its own version in the section .cyclecap (src/about.cpp), which
 * package torch reads before it loads the shim. */
#define CT_ABI 18

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ct_tensor_s *ct_tensor;
typedef struct ct_generator_s *ct_generator;
typedef struct ct_group_s *ct_group;
typedef struct ct_reducer_s *ct_reducer;
typedef struct ct_store_s *ct_store;
typedef struct ct_script_s *ct_script;
typedef struct ct_op_s *ct_op;
typedef struct ct_context_s *ct_context;
typedef char *ct_error;

/* Kinds of error, the first byte of a ct_error, with Python's exceptions. */
#define CT_ERR_RUNTIME 'R'         /* RuntimeError */
#define CT_ERR_INDEX 'I'           /* IndexError */
#define CT_ERR_VALUE 'V'           /* ValueError */
#define CT_ERR_TYPE 'T'            /* TypeError */
#define CT_ERR_NOT_IMPLEMENTED 'N' /* NotImplementedError */
#define CT_ERR_MEMORY 'M'          /* OutOfMemoryError */
#define CT_ERR_DISTRIBUTED 'D'     /* DistError: a store or a connection */

CT_API void ct_free(void *p);

/* ---- operators ---------------------------------------------------------- */

/* A flattened value is a header word, tag | count << 8, followed by its
 * payload. */
enum ct_tag {
  CT_NONE = 0,         /* -                                                */
  CT_TENSOR = 1,       /* 1 word: ct_tensor                                */
  CT_INT = 2,          /* 1 word; also dtype, layout and memory format     */
  CT_DOUBLE = 3,       /* 1 word: the bits of a double                     */
  CT_BOOL = 4,         /* 1 word: 0 or 1                                   */
  CT_STRING = 5,       /* count = bytes, padded to whole words             */
  CT_INTS = 6,         /* count words                                      */
  CT_DOUBLES = 7,      /* count words                                      */
  CT_BOOLS = 8,        /* count words                                      */
  CT_TENSORS = 9,      /* count words: Tensor[]                            */
  CT_OPT_TENSORS = 10, /* count words: Tensor?[], NULL is None           */
  CT_DEVICE = 11,      /* 2 words: device type, index                      */
  CT_GENERATOR = 12,   /* 1 word: ct_generator                             */
  CT_SCALARS = 13,     /* count words, doubles: Scalar[]                   */
  CT_COMPLEX = 14,     /* 2 words: the bits of two doubles                 */
  CT_DEFAULT = 15,     /* -: the schema's default for this argument        */
  /* In calls of TorchScript only: count flattened values. */
  CT_LIST = 16,
  CT_TUPLE = 17,
  CT_DICT = 18, /* count pairs of key and value */
};

/* Looks up an operator by schema name ("aten::add") and overload ("Tensor", or
 * ""). *op remains valid for the life of the process. */
CT_API ct_error ct_op_find(const char *name, const char *overload, ct_op *op);

/* Calls an operator. args contains nargs flattened values in nwords words; a
 * value of a type that the argument does not take is a TypeError. *nrets is the
 * number of words of the flattened results. They are stored in rets, which has
 * cap words. If there are more, rets[0] is instead the address of a block that
 * contains them all, which the caller frees with ct_free. With cap 0 the
 * results are dropped, as for in-place operators. The caller owns the tensors
 * in the results. *scope is set to ct_scope_get(), which saves a call. A
 * function of ct_function_apply cannot run in the calling thread meanwhile. */
CT_API ct_error ct_call(ct_op op, const int64_t *args, int nwords, int nargs,
                        int64_t *rets, int cap, int *nrets, int64_t *scope);

/* The schema of an operator, or of all operators if name is NULL, one per
 * line. */
CT_API ct_error ct_schema(const char *name, const char *overload, char **text);

/* Loads a module of torch.jit.save to a device. The file's code runs, now and
 * when methods are called. The caller frees it once. */
CT_API ct_error ct_script_load(const char *path, int device_type,
                               int device_index, ct_script *m);
CT_API void ct_script_free(ct_script m);
/* Sets it to training or to evaluation. */
CT_API ct_error ct_script_train(ct_script m, int on);
/* Calls a method with nargs flattened values in nwords words. *rets is a block
 * of *nrets words with its flattened result, which the caller frees with
 * ct_free. The caller owns the tensors in it. */
CT_API ct_error ct_script_call(ct_script m, const char *method,
                               const int64_t *args, int nwords, int nargs,
                               int64_t **rets, int *nrets);

/* transformers' "gelu_new", bit-identical to its sequence of operators. Only x
 * is saved for the backward pass. */
CT_API ct_error ct_gelu_new(ct_tensor x, ct_tensor *y);
/* OpenAI's QuickGELU, x sigmoid(1.702 x), bit-identical to its operators. */
CT_API ct_error ct_quick_gelu(ct_tensor x, ct_tensor *y);

/* Kinds of Adam: with weight decay in the gradient, with decoupled weight decay
 * (AdamW), and transformers' AdamW. */
enum {
  CT_ADAM_PLAIN = 0,
  CT_ADAM_DECOUPLED = 1,
  CT_ADAM_TRANSFORMERS = 2,
};
typedef struct {
  int kind;
  double lr, beta1, beta2, eps, weight_decay;
} ct_adam;
/* Runs a step of Adam on n parameters of the CPU, with the bits of PyTorch's
 * loop over them. roots and sizes have, for each parameter, the square root of
 * the second bias correction and the factor of the update. */
CT_API ct_error ct_adam_step(const ct_adam *o, int n, const ct_tensor *params,
                             const ct_tensor *grads, const ct_tensor *avgs,
                             const ct_tensor *avg_sqs, const double *roots,
                             const double *sizes);

/* What a linear layer applies to its result. */
enum ct_activation {
  CT_IDENTITY = 0,
  CT_RELU = 1,
  CT_SILU = 2,
  CT_GELU = 3,
  CT_GELU_TANH = 4,
  CT_QUICK_GELU = 5
};

/* Whether the processor has the instructions (AVX-512) for ct_panels_linear. */
CT_API int ct_panels_able(void);
/* Puts an f32 weight [out, in] in the order in which ct_panels_linear reads it:
 * f32, of ceil(out / 16) * 16 * in elements. */
CT_API ct_error ct_panels_pack(ct_tensor weight, ct_tensor *packed);
/* x [..., in] times a packed weight, plus a bias [out] or NULL, all f32 on the
 * CPU, with an activation applied. */
CT_API ct_error ct_panels_linear(ct_tensor x, ct_tensor packed, int64_t out,
                                 ct_tensor bias, enum ct_activation activation,
                                 ct_tensor *y);
/* linear(x, weight, bias) for a weight [out, in] and a bias or NULL, or, if
 * transposed is set, addmm(bias, x, weight) for a weight [in, out], with the
 * bits of these operators. packed is ct_panels_pack of the weight [out, in], or
 * NULL: y is computed from it where that is known to have these bits and to
 * take less time. lost is -1 then, and otherwise the nanoseconds that the
 * packed weight would have saved, or 0. That becomes known in one of the first
 * calls with as many rows; eager asks for it in the first one, and for the
 * packed weight even if it takes more time. */
CT_API ct_error ct_exact_linear(ct_tensor x, ct_tensor weight, int transposed,
                                ct_tensor bias, ct_tensor packed, int eager,
                                ct_tensor *y, int64_t *lost);

/* Whether the processor has the instructions (AVX-512 VNNI) with which
 * ct_int8_linear is fast. */
CT_API int ct_int8_fast(void);
/* Makes an f32 weight [out, in] 8-bit integers: packed is int8
 * [ceil(out/16), ceil(in/4), 16, 4], padded with zeros; scales, f32 [out], is
 * the largest magnitude of each output divided by 127; sums, int32 [out], is
 * the sum of its integers. The weights of an output with a number that is not
 * finite are zeros with a NaN as the scale. A weight that is int8 already is
 * packed as it is, and its scales are 1. */
CT_API ct_error ct_int8_pack(ct_tensor weight, ct_tensor *packed,
                             ct_tensor *scales, ct_tensor *sums);
/* x [..., in] times a packed weight, plus a bias [out] or NULL, all f32 on the
 * CPU. Each row of x is rounded to 8-bit integers of its own scale. A row with
 * a number that is not finite gives NaNs. An activation is applied to the
 * result. plain asks for the kernel that needs no instructions; the bits are
 * the same.
 */
CT_API ct_error ct_int8_linear(ct_tensor x, ct_tensor packed, ct_tensor scales,
                               ct_tensor sums, ct_tensor bias,
                               enum ct_activation activation, int plain,
                               ct_tensor *y);

/* The products [m, n] of the rows of x [m, k] with those of w [n, k], and the
 * sums [m] of the squares of each row of x, all f32 on the CPU, in one pass
 * over x. width asks for the kernel with vectors of 16, 8 or 4 numbers; 0 is
 * the best one of the processor. */
CT_API ct_error ct_row_products(ct_tensor x, ct_tensor w, int width,
                                ct_tensor *products, ct_tensor *squares);

/* A packed layer: of ct_panels_pack, if scales and sums are NULL, or of
 * ct_int8_pack. bias is f32 [out] or NULL. */
typedef struct {
  ct_tensor weight, scales, sums, bias;
  int64_t out;
} ct_packed;
/* A layer of a transformer, with layer norms before attention and MLP. */
typedef struct {
  ct_tensor norm1_weight, norm1_bias, norm2_weight, norm2_bias; /* [d] */
  double epsilon1, epsilon2;
  /* One layer from d to 3 d, or up to 3 that have as many outputs together: the
   * query, key and value, each with its heads side by side. */
  ct_packed qkv[3];
  int qkv_layers;
  ct_packed attention_out, up, down;
  enum ct_activation activation; /* between up and down */
  int64_t heads;
  double scale; /* of the scores */
} ct_layer;
/* Maps x [n, t, d] to [n, t, d], or, if only is not NULL, to [n, 1, d], the
 * position only[i] of each sequence i; all f32 on the CPU. Needs the
 * instructions of ct_panels_linear.
 *
 * If past is not NULL, the sequences are the rows of keys and values
 * [most, heads, room, d / heads] from row first on, and sequence i has past[i]
 * positions there. Keys and values of the new ones are added after them. If
 * causal is set, a position attends to itself and those before it, otherwise to
 * all. */
CT_API ct_error ct_transformer_layer(const ct_layer *l, ct_tensor x, int causal,
                                     ct_tensor keys, ct_tensor values,
                                     int64_t first, const int64_t *past,
                                     const int64_t *only, ct_tensor *y);

/* ---- tensors ------------------------------------------------------------ */

/* Returns the number of objects that are waiting for ct_dropped. */
CT_API int ct_tensors_free(const ct_tensor *t, int n);
/* An object of the caller that libtorch holds, of ct_function_apply or
 * ct_from_blob, has an id. Once libtorch holds it no longer, the id waits here.
 * Moves at most max of them to ids, and returns how many. */
CT_API int ct_dropped(uintptr_t *ids, int max);
/* Returns another counted reference to the same tensor. */
CT_API ct_tensor ct_tensor_ref(ct_tensor t);
/* The number of references in this process, to detect leaks. */
CT_API int64_t ct_tensors_alive(void);

typedef struct {
  int64_t numel, storage_offset, nbytes, storage_nbytes;
  void *data;    /* first element; NULL on meta and for empty tensors */
  void *storage; /* identity of the storage: equal for aliases */
  int32_t dtype, device_type, device_index, dim;
  int32_t requires_grad, is_leaf, is_contiguous, is_inference;
  int32_t is_lazy; /* its elements are still to be conjugated or negated */
  int32_t layout;  /* torch.layout; a sparse tensor has no data and no storage,
                    * and nbytes are those of its indices and values */
} ct_info;
/* Fills *info, and sizes and strides for at most max dimensions. */
CT_API ct_error ct_tensor_info(ct_tensor t, ct_info *info, int64_t *sizes,
                               int64_t *strides, int max);

/* Copies nbytes from host memory to a contiguous CPU tensor. */
CT_API ct_error ct_tensor_write(ct_tensor t, const void *src, size_t nbytes);
/* Copies the elements of a tensor on any device to host memory, in row-major
 * order and converted to dtype. nbytes is their size. */
CT_API ct_error ct_tensor_read(ct_tensor t, int dtype, void *dst,
                               size_t nbytes);
/* Copies the only element of a tensor, converted to dtype, to value. dtype -1
 * is a double, or, if the tensor has such elements, an int64 or uint64. *own is
 * set to the dtype of the tensor. A complex element for dtype -1, or another
 * number of elements than one, is an error. */
CT_API ct_error ct_tensor_item(ct_tensor t, int dtype, void *value, int *own);
/* A CPU tensor over the memory at data, which has to remain until libtorch
 * drops the object id; see ct_dropped. If this fails, the id is not held. */
CT_API ct_error ct_from_blob(void *data, const int64_t *sizes,
                             const int64_t *strides, int dim, int dtype,
                             uintptr_t id, ct_tensor *t);

/* ---- autograd and modes (per OS thread) --------------------------------- */

/* n_grads is 0, if the outputs are scalars, or n_out. */
CT_API ct_error ct_backward(const ct_tensor *outputs, int n_out,
                            const ct_tensor *grads, int n_grads,
                            int retain_graph, int create_graph);
/* Gradients of outputs with respect to inputs. grads_out receives n_in tensors,
 * NULL for unused inputs. */
CT_API ct_error ct_grad(const ct_tensor *outputs, int n_out,
                        const ct_tensor *grads, int n_grads,
                        const ct_tensor *inputs, int n_in, int retain_graph,
                        int create_graph, int allow_unused,
                        ct_tensor *grads_out);
CT_API ct_error ct_tensor_grad(ct_tensor t, ct_tensor *grad);
/* NULL clears the gradient. Another one must have the shape, dtype and device
 * of t. */
CT_API ct_error ct_tensor_set_grad(ct_tensor t, ct_tensor grad);
CT_API ct_error ct_tensor_set_requires_grad(ct_tensor t, int on);
/* The name of t.grad_fn, such as "AddBackward0"; NULL for leaves. */
CT_API ct_error ct_tensor_grad_fn(ct_tensor t, char **name);
/* t.data = other: t takes over other's storage, shape and dtype. */
CT_API ct_error ct_tensor_set_data(ct_tensor t, ct_tensor other);

/* ---- functions with a gradient of their own ----------------------------- */

/* Computes the forward or the backward pass of function id. The inputs are the
 * callee's. It passes its results to ct_context_return. An error is a malloc'ed
 * ct_error. backward may be called on any thread. */
typedef ct_error (*ct_pass)(uintptr_t id, ct_context c, ct_tensor *inputs,
                            int n);
/* Must be called before ct_function_apply. */
CT_API void ct_function_passes(ct_pass forward, ct_pass backward);
/* torch.autograd.Function.apply: *outputs is a block of *n_out tensors, which
 * the caller frees with ct_free. libtorch holds the object id until the graph
 * is freed; see ct_dropped. */
CT_API ct_error ct_function_apply(uintptr_t id, const ct_tensor *inputs, int n,
                                  ct_tensor **outputs, int *n_out);
/* Tensor.register_hook: the backward pass of object id gets each gradient with
 * respect to t, and returns what takes its place, or NULL. libtorch holds the
 * object until the hook is removed or t and its graph are freed. *at is its
 * place among the hooks of t. */
CT_API ct_error ct_register_hook(ct_tensor t, uintptr_t id, unsigned *at);
CT_API ct_error ct_remove_hook(ct_tensor t, unsigned at);
/* The rest is for use inside a pass. */
CT_API ct_error ct_context_return(ct_context c, const ct_tensor *results,
                                  int n);
/* In the forward pass, once each. */
CT_API ct_error ct_context_save(ct_context c, const ct_tensor *t, int n);
CT_API ct_error ct_context_mark_dirty(ct_context c, const ct_tensor *t, int n);
CT_API ct_error ct_context_mark_non_differentiable(ct_context c,
                                                   const ct_tensor *t, int n);
/* In the backward pass: a block of the saved tensors, as ct_function_apply's.
 */
CT_API ct_error ct_context_saved(ct_context c, ct_tensor **t, int *n);
/* In the backward pass: whether the gradient of an input is needed. */
CT_API ct_error ct_context_needs(ct_context c, int input, int *needed);

/* Sets grad mode and returns the previous one. */
CT_API int ct_grad_mode(int on);
CT_API void *ct_inference_enter(int on);
CT_API void ct_inference_leave(void *guard);
/* Turns autocast on or off for a device type (cpu 0, cuda 1) with a dtype.
 * Stores the previous state in was_on and was_dtype; pass it to
 * ct_autocast_leave. */
CT_API ct_error ct_autocast_enter(int device_type, int on, int dtype,
                                  int *was_on, int *was_dtype);
CT_API ct_error ct_autocast_leave(int device_type, int was_on, int was_dtype);

/* The id of the scope that owns new tensors of this OS thread; 0 is none. */
CT_API int64_t ct_scope_get(void);
CT_API int64_t ct_scope_set(int64_t id);

/* ---- random ------------------------------------------------------------- */

/* Seeds the default generators of all devices, as torch.manual_seed does. */
CT_API ct_error ct_manual_seed(uint64_t seed);
CT_API ct_error ct_generator_new(int device_type, int device_index,
                                 ct_generator *g);
CT_API ct_error ct_generator_default(int device_type, int device_index,
                                     ct_generator *g);
CT_API void ct_generator_free(ct_generator g);
CT_API ct_error ct_generator_seed(ct_generator g, uint64_t seed);
CT_API ct_error ct_generator_get_state(ct_generator g, ct_tensor *state);
CT_API ct_error ct_generator_set_state(ct_generator g, ct_tensor state);

/* ---- collective operations ---------------------------------------------- */

/* Whether this shim was built with c10d and Gloo; otherwise the functions below
 * fail. */
CT_API int ct_group_available(void);
/* Joins a group of size processes over Gloo, with the rendezvous store at
 * host:port, and waits for the other processes up to join_ms, or longer: Gloo
 * waits for one that has joined the store only. Later calls wait up to
 * timeout_ms. In the process that hosts the store, listener is a listening
 * socket, whose ownership is transferred; in the others it is -1. The others
 * find "SIZE ADDRESS" in the store, under cyclecap/joined/RANK. prefix comes
 * before all keys of the group, with a slash, unless it is empty. All processes
 * of a group must call the same functions in the same order, with contiguous
 * tensors of the same shape and dtype. A group must be used by only one thread
 * at a time. */
CT_API ct_error ct_group_new(const char *host, int port, int listener, int rank,
                             int size, const char *prefix, const char *address,
                             int64_t join_ms, int64_t timeout_ms,
                             ct_group *group);
/* Opens another connection to a group's rendezvous store, which can be used
 * while the group is being joined or is in use. Each operation on it takes up
 * to timeout_ms. A store must be used by only one thread at a time. */
CT_API ct_error ct_store_open(const char *host, int port, int64_t timeout_ms,
                              ct_store *store);
CT_API void ct_store_free(ct_store s);
/* Sets *text, which ct_free frees, to the value of a key, or to "" if it has
 * none. */
CT_API ct_error ct_store_get(ct_store s, const char *key, char **text);
CT_API ct_error ct_store_set(ct_store s, const char *key, const char *value);
/* Adds NCCL to a group, for CUDA tensors; without it, Gloo copies them through
 * the host. *found is set to whether the shim has a library for NCCL; if not,
 * nothing else happens. All processes of a group must call it, or none. */
CT_API ct_error ct_group_open_nccl(ct_group g, int *found);
CT_API void ct_group_free(ct_group g);
/* Replaces t with the sum or the average over the processes, in place. */
CT_API ct_error ct_group_all_reduce(ct_group g, ct_tensor t, int average);
/* Replaces t with the t of rank root, in place. */
CT_API ct_error ct_group_broadcast(ct_group g, ct_tensor t, int root);
/* Copies the t of rank i to out[i]; out contains one tensor per rank. */
CT_API ct_error ct_group_all_gather(ct_group g, ct_tensor t,
                                    const ct_tensor *out);
CT_API ct_error ct_group_barrier(ct_group g);
/* Averages the gradients of params over the processes of g, in messages. Those
 * of message i are params[ends[i-1]] to params[ends[i]-1], of one dtype and
 * device. With hooks, a backward pass after ct_reducer_begin sends a message,
 * but not the last one, as soon as it has accumulated all its gradients and
 * the messages before it have been sent. The parameters can have the hooks of
 * only one reducer. */
CT_API ct_error ct_reducer_new(ct_group g, const ct_tensor *params,
                               const int *ends, int n, int hooks,
                               ct_reducer *r);
CT_API ct_error ct_reducer_begin(ct_reducer r);
/* Sends the rest, waits, and replaces the gradients with their averages: a
 * missing one counts as 0, and stays missing if no process has it. values, f32
 * [k], travel with the last message and are replaced with their sums. */
CT_API ct_error ct_reducer_finish(ct_reducer r, ct_tensor values);
/* Before ct_group_free. */
CT_API void ct_reducer_free(ct_reducer r);

/* ---- devices, threads, build -------------------------------------------- */

/* Opens the libtorch_cuda.so in the folder of libtorch_cpu.so, if there is an
 * NVIDIA driver. libtorch caches its answer to the first question about CUDA,
 * which many operators ask, so this must be called before any other function.
 * Later calls return the result of the first. *found is set to whether the file
 * exists. The error says why it is not open: the driver is missing, or it
 * cannot be loaded. */
CT_API ct_error ct_cuda_open(int *found);
/* The number of CUDA devices. It is 0 without a driver; *why is then set to the
 * reason. */
CT_API int ct_cuda_device_count(char **why);
CT_API ct_error ct_cuda_synchronize(int index);

CT_API void ct_set_num_threads(int n);
CT_API int ct_get_num_threads(void);

/* PyTorch's global switches, under the names of the C++ context. They can be
 * set without a GPU. */
enum ct_switch {
  CT_TF32_MATMUL = 0,     /* backends.cuda.matmul.allow_tf32: 0 or 1      */
  CT_TF32_CUDNN = 1,      /* backends.cudnn.allow_tf32: 0 or 1            */
  CT_CUDNN_BENCHMARK = 2, /* backends.cudnn.benchmark: 0 or 1             */
  CT_DETERMINISTIC = 3,   /* use_deterministic_algorithms: 0 or 1         */
  CT_FLASH_SDP = 4,       /* backends.cuda.enable_flash_sdp: 0 or 1       */
};
CT_API ct_error ct_switch_get(int which, int *value);
CT_API ct_error ct_switch_set(int which, int value);

/* ---- streams and events (of CUDA and other accelerators) ---------------- */

typedef struct {
  int64_t id;
  int32_t device_type, device_index;
} ct_stream;

/* A stream from the pool of a device, which libtorch never frees. */
CT_API ct_error ct_stream_new(int device_type, int device_index,
                              int high_priority, ct_stream *s);
/* The stream on which this OS thread launches work. */
CT_API ct_error ct_stream_current(int device_type, int device_index,
                                  ct_stream *s);
CT_API ct_error ct_stream_set(const ct_stream *s);
CT_API ct_error ct_stream_synchronize(const ct_stream *s);

typedef struct ct_event_s *ct_event;
CT_API ct_error ct_event_new(int device_type, int timing, ct_event *e);
CT_API void ct_event_free(ct_event e);
CT_API ct_error ct_event_record(ct_event e, const ct_stream *s);
/* Makes s wait for e, without blocking the host. */
CT_API ct_error ct_event_wait(ct_event e, const ct_stream *s);
CT_API ct_error ct_event_synchronize(ct_event e);
CT_API ct_error ct_event_elapsed(ct_event from, ct_event to, double *ms);

/* ---- CUDA (libcyclecap_torch_cuda.so) ----------------------------------- */

/* Bytes of a CUDA device, as torch.cuda counts them. */
typedef struct {
  int64_t allocated, max_allocated, reserved, max_reserved, free, total;
} ct_memory;
CT_API ct_error ct_cuda_memory(int index, ct_memory *m);
CT_API ct_error ct_cuda_reset_peak_memory(int index);
/* Returns unused cached memory to the driver. */
CT_API ct_error ct_cuda_empty_cache(void);
/* "key=value" lines: name, capability, multiprocessors, memory, l2, driver. */
CT_API ct_error ct_cuda_properties(int index, char **text);

/* A CUDA graph, torch.cuda.CUDAGraph. Between begin and end, this OS thread
 * records its work on a side stream instead of running it. */
typedef struct ct_graph_s *ct_graph;
CT_API ct_error ct_graph_begin(int index, ct_graph *g);
/* Ends the recording, and makes the graph ready to run. If it fails, the graph
 * is freed. */
CT_API ct_error ct_graph_end(ct_graph g);
/* Launches the graph on the current stream. */
CT_API ct_error ct_graph_replay(ct_graph g);
CT_API void ct_graph_free(ct_graph g);

/* Information about the build as "key=value" lines: compiled (version of the
 * headers), runtime (version of the library in use), path, capability, mkl,
 * mkldnn, openmp, gloo, nccl. */
CT_API ct_error ct_build_info(char **text);

#ifdef __cplusplus
}
#endif
#endif
