/* The layout of dlpack.h, and tensors whose deleters are counted. */
#ifndef MMOPT_TEST_DLPACK_STRUCTS_H
#define MMOPT_TEST_DLPACK_STRUCTS_H

#include "check.h"

typedef struct { void *data; struct { int32_t type, id; } device; int32_t ndim;
                 struct { uint8_t code, bits; uint16_t lanes; } dtype;
                 int64_t *shape, *strides; uint64_t byte_offset; } plain;
typedef struct managed { struct { uint32_t major, minor; } version; void *context;
                         void (*deleter)(struct managed *); uint64_t flags; plain t; } managed;
typedef struct old { plain t; void *context; void (*deleter)(struct old *); } old;

static int n_deleted = 0, n_old_deleted = 0;

static inline void count(managed *m)
{
    (void)m;
    n_deleted++;
}

static inline void count_old(old *o)
{
    (void)o;
    n_old_deleted++;
}

/* Type codes of DLPack. */
enum { CODE_INT = 0, CODE_FLOAT = 2, CODE_BFLOAT = 4 };

static inline plain make_plain(void *data, int code, int bits, int n_dims, int64_t *shape,
                               int64_t *strides)
{
    plain t;
    memset(&t, 0, sizeof t);
    t.data = data;
    t.device.type = 1;
    t.ndim = n_dims;
    t.dtype.code = (uint8_t)code;
    t.dtype.bits = (uint8_t)bits;
    t.dtype.lanes = 1;
    t.shape = shape;
    t.strides = strides;
    return t;
}

static inline managed make_managed(void *data, int code, int bits, int n_dims, int64_t *shape,
                                   int64_t *strides)
{
    managed m;
    memset(&m, 0, sizeof m);
    m.version.major = 1;
    m.version.minor = 1;
    m.deleter = count;
    m.t = make_plain(data, code, bits, n_dims, shape, strides);
    return m;
}

#endif
