/* A CUDA driver of host memory: as much of one as numba-cuda asks for. Kernels are loaded and launched, and do nothing.
 *
 * It writes down each call that makes, moves, frees, launches or waits (`calls`, `count`), counts the allocations that
 * live (`live`), and refuses, as a driver does, every such call without a current context (`refused`).
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))
#define MAX_CALLS 4096
#define CALL(name)                                   \
    do {                                             \
        if (count < MAX_CALLS) calls[count] = name;  \
        count++;                                     \
        if (depth == 0) { refused++; return 201; }   \
    } while (0)

typedef unsigned long long pointer;

API const char *calls[MAX_CALLS];
API int count, live, refused;
static char primary;
static _Thread_local int depth; /* of this thread's stack of contexts */

API int cuInit(unsigned flags) { return 0; }
API int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
API int cuGetErrorName(int error, const char **name) { *name = "CUDA_ERROR"; return 0; }
API int cuGetErrorString(int error, const char **text) { *text = "of the host driver"; return 0; }

API int cuDeviceGetCount(int *devices) { *devices = 1; return 0; }
API int cuDeviceGet(int *device, int index) { *device = index; return 0; }
API int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Host memory"); return 0; }
API int cuDeviceGetUuid(char *uuid, int device) { memset(uuid, 7, 16); return 0; }
API int cuDeviceTotalMem(size_t *bytes, int device) { *bytes = (size_t)8 << 30; return 0; }
API int cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) { /* CUdevice_attribute */
    case 1: case 2: case 3: *value = 1024; break;     /* threads of a block: in all, x, y */
    case 4: *value = 64; break;                       /* z */
    case 5: *value = 2147483647; break;               /* blocks of a grid: x */
    case 6: case 7: *value = 65535; break;            /* y, z */
    case 8: *value = 48 * 1024; break;                /* shared memory of a block */
    case 16: *value = 8; break;                       /* multiprocessors */
    case 39: *value = 2048; break;                    /* threads resident on one */
    case 75: *value = 8; break;                       /* compute capability */
    case 76: *value = 9; break;
    default: *value = 1;
    }
    return 0;
}

API int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &primary; return 0; }
API int cuDevicePrimaryCtxRelease(int device) { return 0; }
API int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0; *active = 1; return 0; }
API int cuCtxPushCurrent(void *context) { depth++; return 0; }
API int cuCtxPopCurrent(void **context) { if (depth == 0) return 201; depth--; *context = &primary; return 0; }
API int cuCtxGetCurrent(void **context) { *context = depth ? &primary : NULL; return 0; }
API int cuCtxSetCurrent(void *context) { depth = context != NULL; return 0; }
API int cuCtxGetDevice(int *device) { if (depth == 0) return 201; *device = 0; return 0; }
API int cuCtxSynchronize(void) { CALL("wait for the device"); return 0; }

API int cuMemGetInfo(size_t *free, size_t *total) { *free = *total = (size_t)8 << 30; return 0; }
API int cuMemAlloc(pointer *device, size_t bytes) {
    CALL("allocate");
    *device = (pointer)malloc(bytes);
    live++;
    return 0;
}
API int cuMemFree(pointer device) { CALL("free"); free((void *)device); live--; return 0; }
API int cuMemcpyHtoD(pointer to, const void *from, size_t bytes) {
    CALL("copy and wait");
    memcpy((void *)to, from, bytes);
    return 0;
}
API int cuMemcpyDtoH(void *to, pointer from, size_t bytes) { CALL("copy and wait"); memcpy(to, (void *)from, bytes); return 0; }
API int cuPointerGetAttribute(void *data, int attribute, pointer device) {
    CALL("ask about a pointer");
    if (attribute == 1) *(void **)data = &primary; /* its context */
    else *(pointer *)data = device;
    return 0;
}

API int cuStreamCreate(void **stream, unsigned flags) { CALL("make a stream"); *stream = malloc(1); return 0; }
API int cuStreamDestroy(void *stream) { CALL("destroy a stream"); free(stream); return 0; }
API int cuStreamSynchronize(void *stream) { CALL("wait for a stream"); return 0; }

API int cuLibraryLoadData(void **library, const void *code, void *a, void *b, unsigned n, void *c, void *d, unsigned m) {
    CALL("load");
    *library = malloc(1);
    return 0;
}
API int cuLibraryUnload(void *library) { return 0; }
API int cuLibraryGetKernel(void **kernel, void *library, const char *name) { *kernel = strdup(name); return 0; }
API int cuKernelGetFunction(void **function, void *kernel) { *function = kernel; return 0; }
API int cuKernelGetAttribute(int *value, int attribute, void *kernel, int device) { *value = 32; return 0; }
API int cuFuncGetAttribute(int *value, int attribute, void *function) { *value = 32; return 0; }
API int cuLaunchKernelEx(void *configuration, char *function, void **arguments, void **extra) { CALL(function); return 0; }

/* cuda.bindings asks this for everything; what is not here is "not found". */
API int cuGetProcAddress_v2(const char *name, void **function, int version, pointer flags, int *status) {
    void *self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    *function = self ? dlsym(self, name) : NULL;
    if (status) *status = *function ? 0 : 1;
    return *function ? 0 : 500;
}
