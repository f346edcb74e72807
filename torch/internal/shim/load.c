/* The functions of cyclecap_torch.h. They open libtorch and the shim at the
 * first call instead of at program start: programs that use no tensors run
 * without libtorch, and without the time that it takes to load.
 *
 * If the libraries cannot be opened, functions that return a ct_error say why
 * and what to do; the others return 0. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cyclecap_torch.h"

/* E(name, parameters, arguments): returns a ct_error.
 * F(type, name, parameters, arguments): returns a value.
 * V(name, parameters, arguments): returns nothing. */
#define FUNCTIONS(E, F, V)                                                     \
  V(ct_free, (void *p), (p))                                                   \
  E(ct_op_find, (const char *name, const char *overload, ct_op *op),           \
    (name, overload, op))                                                      \
  E(ct_call,                                                                   \
    (ct_op op, const int64_t *args, int nwords, int nargs, int64_t *rets,      \
     int cap, int *nrets, int64_t *scope),                                     \
    (op, args, nwords, nargs, rets, cap, nrets, scope))                        \
  E(ct_schema, (const char *name, const char *overload, char **text),          \
    (name, overload, text))                                                    \
  E(ct_script_load,                                                            \
    (const char *path, int device_type, int device_index, ct_script *m),       \
    (path, device_type, device_index, m))                                      \
  V(ct_script_free, (ct_script m), (m))                                        \
  E(ct_script_train, (ct_script m, int on), (m, on))                           \
  E(ct_script_call,                                                            \
    (ct_script m, const char *method, const int64_t *args, int nwords,         \
     int nargs, int64_t **rets, int *nrets),                                   \
    (m, method, args, nwords, nargs, rets, nrets))                             \
  E(ct_gelu_new, (ct_tensor x, ct_tensor * y), (x, y))                         \
  E(ct_quick_gelu, (ct_tensor x, ct_tensor * y), (x, y))                       \
  E(ct_adam_step,                                                              \
    (const ct_adam *o, int n, const ct_tensor *params, const ct_tensor *grads, \
     const ct_tensor *avgs, const ct_tensor *avg_sqs, const double *roots,     \
     const double *sizes),                                                     \
    (o, n, params, grads, avgs, avg_sqs, roots, sizes))                        \
  F(int, ct_panels_able, (void), ())                                           \
  E(ct_panels_pack, (ct_tensor weight, ct_tensor * packed), (weight, packed))  \
  E(ct_panels_linear,                                                          \
    (ct_tensor x, ct_tensor packed, int64_t out, ct_tensor bias,               \
     enum ct_activation activation, ct_tensor * y),                            \
    (x, packed, out, bias, activation, y))                                     \
  E(ct_exact_linear,                                                           \
    (ct_tensor x, ct_tensor weight, int transposed, ct_tensor bias,            \
     ct_tensor packed, int eager, ct_tensor *y, int64_t *lost),                \
    (x, weight, transposed, bias, packed, eager, y, lost))                     \
  F(int, ct_int8_fast, (void), ())                                             \
  E(ct_int8_pack,                                                              \
    (ct_tensor weight, ct_tensor * packed, ct_tensor * scales,                 \
     ct_tensor * sums),                                                        \
    (weight, packed, scales, sums))                                            \
  E(ct_int8_linear,                                                            \
    (ct_tensor x, ct_tensor packed, ct_tensor scales, ct_tensor sums,          \
     ct_tensor bias, enum ct_activation activation, int plain, ct_tensor *y),  \
    (x, packed, scales, sums, bias, activation, plain, y))                     \
  E(ct_row_products,                                                           \
    (ct_tensor x, ct_tensor w, int width, ct_tensor *products,                 \
     ct_tensor *squares),                                                      \
    (x, w, width, products, squares))                                          \
  E(ct_transformer_layer,                                                      \
    (const ct_layer *l, ct_tensor x, int causal, ct_tensor keys,               \
     ct_tensor values, int64_t first, const int64_t *past,                     \
     const int64_t *only, ct_tensor *y),                                       \
    (l, x, causal, keys, values, first, past, only, y))                        \
  F(int, ct_tensors_free, (const ct_tensor *t, int n), (t, n))                 \
  F(int, ct_dropped, (uintptr_t * ids, int max), (ids, max))                   \
  F(ct_tensor, ct_tensor_ref, (ct_tensor t), (t))                              \
  F(int64_t, ct_tensors_alive, (void), ())                                     \
  E(ct_tensor_info,                                                            \
    (ct_tensor t, ct_info * info, int64_t * sizes, int64_t * strides,          \
     int max),                                                                 \
    (t, info, sizes, strides, max))                                            \
  E(ct_tensor_write, (ct_tensor t, const void *src, size_t n), (t, src, n))    \
  E(ct_tensor_read, (ct_tensor t, int dtype, void *dst, size_t n),             \
    (t, dtype, dst, n))                                                        \
  E(ct_tensor_item, (ct_tensor t, int dtype, void *value, int *own),           \
    (t, dtype, value, own))                                                    \
  E(ct_from_blob,                                                              \
    (void *data, const int64_t *sizes, const int64_t *strides, int dim,        \
     int dtype, uintptr_t id, ct_tensor *t),                                   \
    (data, sizes, strides, dim, dtype, id, t))                                 \
  E(ct_backward,                                                               \
    (const ct_tensor *outputs, int n_out, const ct_tensor *grads, int n_grads, \
     int retain, int create),                                                  \
    (outputs, n_out, grads, n_grads, retain, create))                          \
  E(ct_grad,                                                                   \
    (const ct_tensor *outputs, int n_out, const ct_tensor *grads, int n_grads, \
     const ct_tensor *inputs, int n_in, int retain, int create, int unused,    \
     ct_tensor *out),                                                          \
    (outputs, n_out, grads, n_grads, inputs, n_in, retain, create, unused,     \
     out))                                                                     \
  E(ct_tensor_grad, (ct_tensor t, ct_tensor * grad), (t, grad))                \
  E(ct_tensor_set_grad, (ct_tensor t, ct_tensor grad), (t, grad))              \
  E(ct_tensor_set_requires_grad, (ct_tensor t, int on), (t, on))               \
  E(ct_tensor_grad_fn, (ct_tensor t, char **name), (t, name))                  \
  E(ct_tensor_set_data, (ct_tensor t, ct_tensor other), (t, other))            \
  V(ct_function_passes, (ct_pass forward, ct_pass backward),                   \
    (forward, backward))                                                       \
  E(ct_function_apply,                                                         \
    (uintptr_t id, const ct_tensor *inputs, int n, ct_tensor **outputs,        \
     int *n_out),                                                              \
    (id, inputs, n, outputs, n_out))                                           \
  E(ct_register_hook, (ct_tensor t, uintptr_t id, unsigned *at), (t, id, at))  \
  E(ct_remove_hook, (ct_tensor t, unsigned at), (t, at))                       \
  E(ct_context_return, (ct_context c, const ct_tensor *results, int n),        \
    (c, results, n))                                                           \
  E(ct_context_save, (ct_context c, const ct_tensor *t, int n), (c, t, n))     \
  E(ct_context_mark_dirty, (ct_context c, const ct_tensor *t, int n),          \
    (c, t, n))                                                                 \
  E(ct_context_mark_non_differentiable,                                        \
    (ct_context c, const ct_tensor *t, int n), (c, t, n))                      \
  E(ct_context_saved, (ct_context c, ct_tensor * *t, int *n), (c, t, n))       \
  E(ct_context_needs, (ct_context c, int input, int *needed),                  \
    (c, input, needed))                                                        \
  F(int, ct_grad_mode, (int on), (on))                                         \
  F(void *, ct_inference_enter, (int on), (on))                                \
  V(ct_inference_leave, (void *guard), (guard))                                \
  E(ct_autocast_enter,                                                         \
    (int device_type, int on, int dtype, int *was_on, int *was_dtype),         \
    (device_type, on, dtype, was_on, was_dtype))                               \
  E(ct_autocast_leave, (int device_type, int was_on, int was_dtype),           \
    (device_type, was_on, was_dtype))                                          \
  F(int64_t, ct_scope_get, (void), ())                                         \
  F(int64_t, ct_scope_set, (int64_t id), (id))                                 \
  E(ct_manual_seed, (uint64_t seed), (seed))                                   \
  E(ct_generator_new, (int device_type, int index, ct_generator *g),           \
    (device_type, index, g))                                                   \
  E(ct_generator_default, (int device_type, int index, ct_generator *g),       \
    (device_type, index, g))                                                   \
  V(ct_generator_free, (ct_generator g), (g))                                  \
  E(ct_generator_seed, (ct_generator g, uint64_t seed), (g, seed))             \
  E(ct_generator_get_state, (ct_generator g, ct_tensor * state), (g, state))   \
  E(ct_generator_set_state, (ct_generator g, ct_tensor state), (g, state))     \
  F(int, ct_group_available, (void), ())                                       \
  E(ct_group_new,                                                              \
    (const char *host, int port, int listener, int rank, int size,             \
     const char *prefix, const char *address, int64_t join_ms,                 \
     int64_t timeout_ms, ct_group *group),                                     \
    (host, port, listener, rank, size, prefix, address, join_ms, timeout_ms,   \
     group))                                                                   \
  E(ct_store_open,                                                             \
    (const char *host, int port, int64_t timeout_ms, ct_store *store),         \
    (host, port, timeout_ms, store))                                           \
  V(ct_store_free, (ct_store s), (s))                                          \
  E(ct_store_get, (ct_store s, const char *key, char **text), (s, key, text))  \
  E(ct_store_set, (ct_store s, const char *key, const char *value),            \
    (s, key, value))                                                           \
  E(ct_group_open_nccl, (ct_group g, int *found), (g, found))                  \
  V(ct_group_free, (ct_group g), (g))                                          \
  E(ct_group_all_reduce, (ct_group g, ct_tensor t, int average),               \
    (g, t, average))                                                           \
  E(ct_group_broadcast, (ct_group g, ct_tensor t, int root), (g, t, root))     \
  E(ct_group_all_gather, (ct_group g, ct_tensor t, const ct_tensor *out),      \
    (g, t, out))                                                               \
  E(ct_group_barrier, (ct_group g), (g))                                       \
  E(ct_reducer_new,                                                            \
    (ct_group g, const ct_tensor *params, const int *ends, int n, int hooks,   \
     ct_reducer *r),                                                           \
    (g, params, ends, n, hooks, r))                                            \
  E(ct_reducer_begin, (ct_reducer r), (r))                                     \
  E(ct_reducer_finish, (ct_reducer r, ct_tensor values), (r, values))          \
  V(ct_reducer_free, (ct_reducer r), (r))                                      \
  E(ct_cuda_open, (int *found), (found))                                       \
  F(int, ct_cuda_device_count, (char **why), (why))                            \
  E(ct_cuda_synchronize, (int index), (index))                                 \
  E(ct_switch_get, (int which, int *value), (which, value))                    \
  E(ct_switch_set, (int which, int value), (which, value))                     \
  E(ct_stream_new, (int type, int index, int high, ct_stream *s),              \
    (type, index, high, s))                                                    \
  E(ct_stream_current, (int type, int index, ct_stream *s), (type, index, s))  \
  E(ct_stream_set, (const ct_stream *s), (s))                                  \
  E(ct_stream_synchronize, (const ct_stream *s), (s))                          \
  E(ct_event_new, (int type, int timing, ct_event *e), (type, timing, e))      \
  V(ct_event_free, (ct_event e), (e))                                          \
  E(ct_event_record, (ct_event e, const ct_stream *s), (e, s))                 \
  E(ct_event_wait, (ct_event e, const ct_stream *s), (e, s))                   \
  E(ct_event_synchronize, (ct_event e), (e))                                   \
  E(ct_event_elapsed, (ct_event from, ct_event to, double *ms),                \
    (from, to, ms))                                                            \
  E(ct_cuda_memory, (int index, ct_memory *m), (index, m))                     \
  E(ct_cuda_reset_peak_memory, (int index), (index))                           \
  E(ct_cuda_empty_cache, (void), ())                                           \
  E(ct_cuda_properties, (int index, char **text), (index, text))               \
  E(ct_graph_begin, (int index, ct_graph *g), (index, g))                      \
  E(ct_graph_end, (ct_graph g), (g))                                           \
  E(ct_graph_replay, (ct_graph g), (g))                                        \
  V(ct_graph_free, (ct_graph g), (g))                                          \
  V(ct_set_num_threads, (int n), (n))                                          \
  F(int, ct_get_num_threads, (void), ())                                       \
  E(ct_build_info, (char **text), (text))

#define E(name, params, args) static ct_error(*p_##name) params;
#define F(type, name, params, args) static type(*p_##name) params;
#define V(name, params, args) static void(*p_##name) params;
FUNCTIONS(E, F, V)
#undef E
#undef F
#undef V

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char *failed; /* why the libraries can't be opened, as a ct_error */

ct_error ct_open(void **shim); /* load.go: finds and opens the libraries */
/* function.go */
ct_error ct_forward_pass(uintptr_t id, ct_context c, ct_tensor *inputs, int n);
ct_error ct_backward_pass(uintptr_t id, ct_context c, ct_tensor *inputs, int n);

static void load(void) {
  /* Idle OpenMP threads spin for about 50 us before they sleep. libgomp's own
   * default is longer, so that programs on the same cores slow each other down;
   * sleeping immediately costs a third of the time if operators are short.
   * libgomp reads this variable when it is loaded. */
  if (!getenv("OMP_WAIT_POLICY")) setenv("GOMP_SPINCOUNT", "4000", 0);
  void *library = NULL;
  if ((failed = ct_open(&library))) return;
#define E(name, params, args) F(, name, , )
#define V(name, params, args) F(, name, , )
#define F(type, name, params, args)                                        \
  if (!(*(void **)&p_##name = dlsym(library, #name))) {                    \
    failed =                                                               \
        strdup("Rcannot load libtorch: the shim lacks " #name              \
               ", although its ABI matches; please report this as a bug"); \
    return;                                                                \
  }
  FUNCTIONS(E, F, V)
#undef E
#undef F
#undef V
  /* Before any operator asks libtorch about CUDA. The error is kept for later
   * calls. */
  int found;
  free(p_ct_cuda_open(&found));
  p_ct_function_passes(ct_forward_pass, ct_backward_pass);
}

static int ready(void) {
  pthread_once(&once, load);
  return !failed;
}

#define E(name, params, args) \
  ct_error name params { return ready() ? p_##name args : strdup(failed); }
#define F(type, name, params, args) \
  type name params { return ready() ? p_##name args : 0; }
#define V(name, params, args)   \
  void name params {            \
    if (ready()) p_##name args; \
  }
FUNCTIONS(E, F, V)
