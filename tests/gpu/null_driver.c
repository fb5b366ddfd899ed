/* A CUDA driver without a card, for machines that have none: it accepts every call that CubeCL makes, keeps device memory
 * in the host's, and computes nothing. What it shows is real all the same: whether the CUDA runtime starts, whether NVRTC
 * compiles every kernel, how many kernels are launched, how much is copied, and how much memory is held at most.
 *
 *     cc -O2 -shared -fPIC -o DIRECTORY/libcuda.so.1 tests/gpu/null_driver.c
 *     STIC_NULL_DRIVER=1 LD_LIBRARY_PATH=DIRECTORY:DIRECTORY_OF_NVRTC CUDA_PATH=TOOLKIT stic ... --device cuda
 *
 * STIC_NULL_DRIVER lets stic accept a device that computes wrongly.
 *
 * A report is appended to $NULL_DRIVER_REPORT when the process ends, as a line of JSON. $NULL_DRIVER_DEVICES,
 * $NULL_DRIVER_MEMORY (MiB of each) and $NULL_DRIVER_VERSION (13020 is CUDA 13.2) say what there is;
 * $CUDA_VISIBLE_DEVICES hides devices by number as it does everywhere. The devices call themselves H100 and have its
 * limits. */

#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, NOT_FOUND = 500 };

/* Larger copies are counted, not made, so that a model of 15 GB needs no 15 GB. */
#define COPIED 1048576

typedef int CUresult;
typedef unsigned long long CUdeviceptr;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct {
    long launches, uploads, downloads, device_copies, synchronizations, allocations, modules;
    unsigned long long uploaded, downloaded, device_copied, held, peak;
} total;

struct kernel {
    char name[512];
    long launches;
    struct kernel *next;
};
static struct kernel *kernels;

struct block {
    CUdeviceptr start;
    size_t bytes;
    struct block *next;
};
static struct block *blocks[4096];

static long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

static size_t capacity(void) { return (size_t)setting("NULL_DRIVER_MEMORY", 81559) << 20; }

static int device_count(void) {
    int all = setting("NULL_DRIVER_DEVICES", 1), count = 0;
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (!visible) return all;
    /* As the driver reads it: numbers up to the first that is not one of a device. */
    while (*visible) {
        char *end;
        long number = strtol(visible, &end, 10);
        if (end == visible || number < 0 || number >= all) break;
        count++;
        if (*end != ',') break;
        visible = end + 1;
    }
    return count;
}

__attribute__((destructor)) static void report(void) {
    const char *path = getenv("NULL_DRIVER_REPORT");
    FILE *file = path && *path ? fopen(path, "a") : NULL;
    if (!file) return;
    fprintf(file,
            "{\"launches\": %ld, \"uploads\": %ld, \"uploaded_bytes\": %llu, \"downloads\": %ld, "
            "\"downloaded_bytes\": %llu, \"device_copies\": %ld, \"device_copied_bytes\": %llu, "
            "\"synchronizations\": %ld, \"allocations\": %ld, \"peak_bytes\": %llu, \"modules\": %ld, \"kernels\": {",
            total.launches, total.uploads, total.uploaded, total.downloads, total.downloaded, total.device_copies,
            total.device_copied, total.synchronizations, total.allocations, total.peak, total.modules);
    for (struct kernel *it = kernels; it; it = it->next)
        fprintf(file, "%s\"%s\": %ld", it == kernels ? "" : ", ", it->name, it->launches);
    fprintf(file, "}}\n");
    fclose(file);
}

CUresult cuInit(unsigned flags) { return device_count() > 0 ? SUCCESS : NO_DEVICE; }

/* NVRTC asks for private tables of the driver, and does without them. */
CUresult cuGetExportTable(const void **table, const void *id) {
    *table = NULL;
    return NOT_FOUND;
}

CUresult cuDriverGetVersion(int *version) {
    *version = setting("NULL_DRIVER_VERSION", 13020);
    return SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
    *count = device_count();
    return SUCCESS;
}

CUresult cuDeviceGet(int *device, int ordinal) {
    if (ordinal < 0 || ordinal >= device_count()) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

CUresult cuDeviceGetName(char *name, int length, int device) {
    snprintf(name, length, "NVIDIA H100 80GB HBM3 (null driver)");
    return SUCCESS;
}

CUresult cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    memset(uuid, device + 1, 16);
    return SUCCESS;
}
CUresult cuDeviceGetUuid(unsigned char *uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }

CUresult cuDeviceGetLuid(char *luid, unsigned *mask, int device) {
    memset(luid, 0, 8);
    *mask = 1;
    return SUCCESS;
}

CUresult cuDeviceGetPCIBusId(char *text, int length, int device) {
    snprintf(text, length, "0000:%02x:00.0", device + 1);
    return SUCCESS;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = capacity();
    return SUCCESS;
}

/* By the numbers of `CUdevice_attribute`. */
CUresult cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 1: *value = 1024; break;          /* threads of a block */
    case 2: case 3: *value = 1024; break;  /* block, x and y */
    case 4: *value = 64; break;            /* block, z */
    case 5: *value = 2147483647; break;    /* grid, x */
    case 6: case 7: *value = 65535; break; /* grid, y and z */
    case 8: *value = 49152; break;         /* shared memory of a block */
    case 10: *value = 32; break;           /* warp */
    case 12: *value = 65536; break;        /* registers of a block */
    case 13: *value = 1980000; break;      /* clock, kHz */
    case 16: *value = 132; break;          /* multiprocessors */
    case 33: *value = device + 1; break;   /* PCI bus */
    case 34: case 50: *value = 0; break;   /* PCI device and domain */
    case 36: *value = 2619000; break;      /* memory clock, kHz */
    case 37: *value = 5120; break;         /* memory bus, bits */
    case 38: *value = 52428800; break;     /* L2 */
    case 39: *value = 2048; break;         /* threads of a multiprocessor */
    case 75: *value = 9; break;            /* compute capability */
    case 76: *value = 0; break;
    case 81: *value = 233472; break;       /* shared memory of a multiprocessor */
    case 97: *value = 232448; break;       /* shared memory of a block, at most */
    case 18: *value = 0; break;            /* integrated */
    default: *value = 1;                   /* whatever can be had or not is there */
    }
    return SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = (void *)(intptr_t)(0x1000 + device);
    return SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease_v2(int device) { return SUCCESS; }

static __thread void *current;
CUresult cuCtxSetCurrent(void *context) {
    current = context;
    return SUCCESS;
}
CUresult cuCtxGetCurrent(void **context) {
    *context = current;
    return SUCCESS;
}
CUresult cuCtxGetDevice(int *device) {
    *device = current ? (int)((intptr_t)current - 0x1000) : 0;
    return SUCCESS;
}
CUresult cuCtxPushCurrent_v2(void *context) { return cuCtxSetCurrent(context); }
CUresult cuCtxPopCurrent_v2(void **context) { return cuCtxGetCurrent(context); }
CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0, *greatest = -5;
    return SUCCESS;
}
static CUresult synchronized(void) {
    pthread_mutex_lock(&lock);
    total.synchronizations++;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}
CUresult cuCtxSynchronize(void) { return synchronized(); }

static CUresult handle(void **made) {
    static intptr_t last = 0x10000;
    *made = (void *)__sync_add_and_fetch(&last, 16);
    return SUCCESS;
}
CUresult cuStreamCreate(void **stream, unsigned flags) { return handle(stream); }
CUresult cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) { return handle(stream); }
CUresult cuStreamDestroy_v2(void *stream) { return SUCCESS; }
CUresult cuStreamSynchronize(void *stream) { return synchronized(); }
CUresult cuStreamQuery(void *stream) { return SUCCESS; }
CUresult cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return SUCCESS; }
CUresult cuStreamIsCapturing(void *stream, int *status) {
    *status = 0;
    return SUCCESS;
}
CUresult cuStreamAddCallback(void *stream, void (*call)(void *, int, void *), void *data, unsigned flags) {
    call(stream, SUCCESS, data);
    return SUCCESS;
}
CUresult cuLaunchHostFunc(void *stream, void (*call)(void *), void *data) {
    call(data);
    return SUCCESS;
}

/* A kernel takes a millisecond, of a clock that nothing else moves: CubeCL times kernels, and would divide by zero. */
static long clock_now;

struct event {
    long at;
};
CUresult cuEventCreate(void **event, unsigned flags) {
    *event = calloc(1, sizeof(struct event));
    return SUCCESS;
}
CUresult cuEventRecord(void *event, void *stream) {
    ((struct event *)event)->at = __sync_fetch_and_add(&clock_now, 0);
    return SUCCESS;
}
CUresult cuEventSynchronize(void *event) { return synchronized(); }
CUresult cuEventQuery(void *event) { return SUCCESS; }
CUresult cuEventElapsedTime(float *milliseconds, void *start, void *end) {
    *milliseconds = ((struct event *)end)->at - ((struct event *)start)->at;
    return SUCCESS;
}
CUresult cuEventElapsedTime_v2(float *milliseconds, void *start, void *end) {
    return cuEventElapsedTime(milliseconds, start, end);
}
CUresult cuEventDestroy_v2(void *event) {
    free(event);
    return SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes) {
    if (!bytes) return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    CUresult result = OUT_OF_MEMORY;
    if (total.held + bytes <= capacity()) {
        /* Pages that nothing is written to take no memory. */
        void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (start != MAP_FAILED) {
            struct block *block = malloc(sizeof *block);
            struct block **slot = &blocks[((uintptr_t)start >> 12) % 4096];
            *block = (struct block){(CUdeviceptr)(uintptr_t)start, bytes, *slot};
            *slot = block;
            *pointer = block->start;
            total.allocations++;
            total.held += bytes;
            if (total.held > total.peak) total.peak = total.held;
            result = SUCCESS;
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}
CUresult cuMemFree_v2(CUdeviceptr pointer) {
    pthread_mutex_lock(&lock);
    CUresult result = INVALID_VALUE;
    for (struct block **at = &blocks[(pointer >> 12) % 4096]; *at; at = &(*at)->next)
        if ((*at)->start == pointer) {
            struct block *block = *at;
            munmap((void *)(uintptr_t)pointer, block->bytes);
            total.held -= block->bytes;
            *at = block->next;
            free(block);
            result = SUCCESS;
            break;
        }
    pthread_mutex_unlock(&lock);
    return result;
}
CUresult cuMemAllocAsync(CUdeviceptr *pointer, size_t bytes, void *stream) { return cuMemAlloc_v2(pointer, bytes); }
CUresult cuMemFreeAsync(CUdeviceptr pointer, void *stream) { return cuMemFree_v2(pointer); }
CUresult cuMemAllocHost_v2(void **pointer, size_t bytes) {
    *pointer = malloc(bytes);
    return *pointer ? SUCCESS : OUT_OF_MEMORY;
}
CUresult cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags) { return cuMemAllocHost_v2(pointer, bytes); }
CUresult cuMemFreeHost(void *pointer) {
    free(pointer);
    return SUCCESS;
}
CUresult cuMemGetInfo_v2(size_t *free, size_t *all) {
    *all = capacity();
    *free = *all - total.held;
    return SUCCESS;
}

static CUresult copied(void *target, const void *source, size_t bytes, long *count, unsigned long long *sum) {
    pthread_mutex_lock(&lock);
    (*count)++;
    *sum += bytes;
    pthread_mutex_unlock(&lock);
    if (bytes <= COPIED) memcpy(target, source, bytes);
    return SUCCESS;
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void *source, size_t bytes, void *stream) {
    return copied((void *)(uintptr_t)target, source, bytes, &total.uploads, &total.uploaded);
}
CUresult cuMemcpyHtoD_v2(CUdeviceptr target, const void *source, size_t bytes) {
    return cuMemcpyHtoDAsync_v2(target, source, bytes, NULL);
}
CUresult cuMemcpyDtoHAsync_v2(void *target, CUdeviceptr source, size_t bytes, void *stream) {
    return copied(target, (void *)(uintptr_t)source, bytes, &total.downloads, &total.downloaded);
}
CUresult cuMemcpyDtoH_v2(void *target, CUdeviceptr source, size_t bytes) {
    return cuMemcpyDtoHAsync_v2(target, source, bytes, NULL);
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t bytes, void *stream) {
    return copied((void *)(uintptr_t)target, (void *)(uintptr_t)source, bytes, &total.device_copies, &total.device_copied);
}

/* `CUDA_MEMCPY2D`. */
struct copy {
    size_t source_x, source_y;
    int source_type;
    const void *source_host;
    CUdeviceptr source_device;
    void *source_array;
    size_t source_pitch, target_x, target_y;
    int target_type;
    void *target_host;
    CUdeviceptr target_device;
    void *target_array;
    size_t target_pitch, width, height;
};
CUresult cuMemcpy2DAsync_v2(const struct copy *copy, void *stream) {
    const char *source = copy->source_type == 1 ? copy->source_host : (const char *)(uintptr_t)copy->source_device;
    char *target = copy->target_type == 1 ? copy->target_host : (char *)(uintptr_t)copy->target_device;
    size_t bytes = copy->width * copy->height;
    if (copy->source_type == 1)
        copied(NULL, NULL, 0, &total.uploads, &total.uploaded), total.uploaded += bytes;
    else if (copy->target_type == 1)
        copied(NULL, NULL, 0, &total.downloads, &total.downloaded), total.downloaded += bytes;
    else
        copied(NULL, NULL, 0, &total.device_copies, &total.device_copied), total.device_copied += bytes;
    if (bytes <= COPIED)
        for (size_t row = 0; row < copy->height; row++)
            memcpy(target + (copy->target_y + row) * copy->target_pitch + copy->target_x,
                   source + (copy->source_y + row) * copy->source_pitch + copy->source_x, copy->width);
    return SUCCESS;
}
CUresult cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t bytes, void *stream) {
    if (bytes <= COPIED) memset((void *)(uintptr_t)target, value, bytes);
    return SUCCESS;
}

CUresult cuModuleLoadData(void **module, const void *image) {
    pthread_mutex_lock(&lock);
    total.modules++;
    pthread_mutex_unlock(&lock);
    return handle(module);
}
CUresult cuModuleLoadDataEx(void **module, const void *image, unsigned count, int *options, void **values) {
    return cuModuleLoadData(module, image);
}
CUresult cuModuleUnload(void *module) { return SUCCESS; }
CUresult cuModuleGetFunction(void **function, void *module, const char *name) {
    pthread_mutex_lock(&lock);
    struct kernel *kernel = kernels;
    while (kernel && strcmp(kernel->name, name)) kernel = kernel->next;
    if (!kernel) {
        kernel = calloc(1, sizeof *kernel);
        snprintf(kernel->name, sizeof kernel->name, "%s", name);
        kernel->next = kernels;
        kernels = kernel;
    }
    *function = kernel;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}
CUresult cuFuncSetAttribute(void *function, int attribute, int value) { return SUCCESS; }
CUresult cuFuncGetAttribute(int *value, int attribute, void *function) {
    *value = attribute == 0 ? 1024 : 0;
    return SUCCESS;
}

static CUresult launched(struct kernel *kernel) {
    pthread_mutex_lock(&lock);
    kernel->launches++;
    total.launches++;
    clock_now++;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}
CUresult cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned shared, void *stream, void **arguments, void **extra) {
    if (!gx || !gy || !gz || !bx || !by || !bz || bx * by * bz > 1024 || gy > 65535 || gz > 65535) return INVALID_VALUE;
    return launched(function);
}
CUresult cuLaunchKernelEx(const void *configuration, void *function, void **arguments, void **extra) {
    return launched(function);
}
CUresult cuTensorMapEncodeTiled(void *map) { return SUCCESS; }
CUresult cuTensorMapEncodeIm2col(void *map) { return SUCCESS; }
CUresult cuTensorMapEncodeIm2colWide(void *map) { return SUCCESS; }

static const char *name_of(int error) {
    switch (error) {
    case SUCCESS: return "CUDA_SUCCESS";
    case INVALID_VALUE: return "CUDA_ERROR_INVALID_VALUE";
    case OUT_OF_MEMORY: return "CUDA_ERROR_OUT_OF_MEMORY";
    case NO_DEVICE: return "CUDA_ERROR_NO_DEVICE";
    case INVALID_DEVICE: return "CUDA_ERROR_INVALID_DEVICE";
    default: return "CUDA_ERROR_UNKNOWN";
    }
}
CUresult cuGetErrorName(int error, const char **text) {
    *text = name_of(error);
    return SUCCESS;
}
CUresult cuGetErrorString(int error, const char **text) { return cuGetErrorName(error, text); }
