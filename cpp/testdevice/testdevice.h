/* The C interface of the pretend accelerator: a PrivateUse1 device of libtorch
 * for tests. Its memory cannot be read or written by the host, its operators
 * are the CPU's, and it counts what would cost time on a GPU. */
#ifndef CYCLECAP_TESTDEVICE_H
#define CYCLECAP_TESTDEVICE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  int64_t to_device;    /* copies from the host to the device */
  int64_t to_host;      /* copies from the device to the host, also by operators
                           whose result the host reads, such as item() */
  int64_t synchronized; /* times that the host waited for the device */
  int64_t operators; /* operators that computed on the device; views do not */
  int64_t allocated; /* bytes of device memory in use; never reset */
} testdevice_counts;

/* Registers the device. Call it once, after libtorch is loaded and before the
 * first backward pass. Returns NULL or a message, which the caller frees. */
char *testdevice_open(void);
void testdevice_read(testdevice_counts *counts);
void testdevice_reset(void);
/* The operators counted since the last reset, as lines "count name", and the
 * copies to the host by operator. The caller frees the text. */
char *testdevice_operators(void);

#ifdef __cplusplus
}
#endif
#endif
