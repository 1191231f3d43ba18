// A libcuda.so.1 without a card, for tests of what this program asks a driver and how it takes its errors. Memory is the
// host's; kernels are those that g++ built with emulate.h, found in the libraries that FAKE_CUDA_KERNELS lists
// (separated by colons). FAKE_CUDA_FAIL=function:n:code lets the n-th call of a function (from 1) and all later ones
// fail with that code; FAKE_CUDA_CARDS and FAKE_CUDA_VERSION say what there is.
#pragma GCC visibility push(default)
#include <dlfcn.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

typedef unsigned Result;
typedef void *Handle;

static std::map<uint64_t, size_t> held;
static const size_t TOTAL = 256u << 20;
static size_t used = 0;

static Result fails(const char *function) {
    static std::map<std::string, int> calls;
    int call = ++calls[function];
    const char *plan = std::getenv("FAKE_CUDA_FAIL");
    char name[64];
    int n, code;
    if (!plan || std::sscanf(plan, "%63[^:]:%d:%d", name, &n, &code) != 3) return 0;
    return std::strcmp(name, function) == 0 && call >= n ? (Result)code : 0;
}

static int number(const char *name, int otherwise) {
    const char *text = std::getenv(name);
    return text ? std::atoi(text) : otherwise;
}

// Whether `bytes` at `at` lie in one allocation.
static bool ours(uint64_t at, size_t bytes) {
    for (auto &[first, len] : held)
        if (at >= first && at + bytes <= first + len) return true;
    return false;
}

#define CALL(function, ...)                              \
    extern "C" Result function(__VA_ARGS__) {            \
        if (Result code = fails(#function)) return code;
#define END \
    return 0; \
    }
static const Result INVALID = 1, MEMORY = 2, NO_IMAGE = 200, NOT_FOUND = 500;

CALL(cuDriverGetVersion, int *version) *version = number("FAKE_CUDA_VERSION", 13000); END
CALL(cuInit, unsigned) END
CALL(cuDeviceGetCount, int *count) *count = number("FAKE_CUDA_CARDS", 1); END
CALL(cuDeviceGet, int *device, int index) *device = index; END
CALL(cuDeviceGetName, char *name, int len, int) std::snprintf(name, len, "Fake card"); END
CALL(cuDeviceGetUuid_v2, unsigned char *id, int) for (int i = 0; i < 16; i++) id[i] = (unsigned char)(16 * i + i); END
CALL(cuDeviceGetAttribute, int *value, int which, int) *value = which == 75 ? number("FAKE_CUDA_CARD", 90) / 10 : 0; END
CALL(cuDevicePrimaryCtxRetain, Handle *context, int) *context = &used; END
CALL(cuDevicePrimaryCtxRelease_v2, int) END
CALL(cuCtxSetCurrent, Handle context) if (context != &used) return INVALID; END
CALL(cuMemGetInfo_v2, size_t *free, size_t *total) *free = TOTAL - used, *total = TOTAL; END

CALL(cuMemAlloc_v2, uint64_t *at, size_t bytes)
    if (bytes == 0) return INVALID;
    if (bytes > TOTAL - used) return MEMORY;
    *at = (uint64_t)std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    held[*at] = bytes;
    used += bytes;
END

CALL(cuMemFree_v2, uint64_t at)
    if (!held.count(at)) return INVALID;
    used -= held[at];
    held.erase(at);
    std::free((void *)at);
END

CALL(cuMemcpyHtoDAsync_v2, uint64_t to, const void *from, size_t n, Handle)
    if (!ours(to, n)) return INVALID;
    std::memcpy((void *)to, from, n);
END
CALL(cuMemcpyDtoHAsync_v2, void *to, uint64_t from, size_t n, Handle)
    if (!ours(from, n)) return INVALID;
    std::memcpy(to, (void *)from, n);
END
CALL(cuMemcpyDtoDAsync_v2, uint64_t to, uint64_t from, size_t n, Handle)
    if (!ours(from, n) || !ours(to, n)) return INVALID;
    std::memcpy((void *)to, (void *)from, n);
END
CALL(cuMemsetD8Async, uint64_t at, unsigned char byte, size_t n, Handle)
    if (!ours(at, n)) return INVALID;
    std::memset((void *)at, byte, n);
END

CALL(cuStreamCreate, Handle *stream, unsigned) *stream = &held; END
CALL(cuStreamDestroy_v2, Handle) END
CALL(cuStreamSynchronize, Handle stream) if (stream != &held) return INVALID; END

typedef std::chrono::steady_clock::time_point Event;
CALL(cuEventCreate, Handle *event, unsigned) *event = new Event; END
CALL(cuEventRecord, Handle event, Handle) *(Event *)event = std::chrono::steady_clock::now(); END
CALL(cuEventSynchronize, Handle) END
CALL(cuEventElapsedTime, float *ms, Handle from, Handle to)
    *ms = std::chrono::duration<float, std::milli>(*(Event *)to - *(Event *)from).count();
END
CALL(cuEventDestroy_v2, Handle event) delete (Event *)event; END

// PTX, as text.
CALL(cuModuleLoadData, Handle *module, const char *image)
    if (!std::strstr(image, ".version")) return NO_IMAGE;
    *module = new std::string(image);
END
CALL(cuModuleUnload, Handle module) delete (std::string *)module; END

// How many a kernel has.
static std::map<Handle, size_t> parameters;

CALL(cuModuleGetFunction, Handle *function, Handle module, const char *name)
    if (((std::string *)module)->find(".entry " + std::string(name) + "(") == std::string::npos) return NOT_FOUND;
    std::string paths = std::getenv("FAKE_CUDA_KERNELS") ? std::getenv("FAKE_CUDA_KERNELS") : "";
    for (size_t at = 0; at < paths.size();) {
        size_t end = std::min(paths.find(':', at), paths.size());
        Handle library = dlopen(paths.substr(at, end - at).c_str(), RTLD_NOW | RTLD_LOCAL);
        if (library && (*function = dlsym(library, ("launch_" + std::string(name)).c_str()))) {
            auto signature = (const char *(*)())dlsym(library, ("signature_" + std::string(name)).c_str());
            parameters[*function] = std::strlen(signature());
            return 0;
        }
        at = end + 1;
    }
    return NOT_FOUND;
}
CALL(cuFuncSetAttribute, Handle, int, int) END

// A launch with copies of its arguments, of which eight bytes are kept each, as the caller hands them over.
struct Launch {
    // Null: an event is recorded.
    Handle function;
    unsigned grid[3], block[3];
    size_t shared;
    std::vector<uint64_t> args;
    Event *event;
};
typedef std::vector<Launch> Graph;
static Graph *gathering = nullptr;

static Result carry_out(Launch &launch) {
    if (!launch.function) return *launch.event = std::chrono::steady_clock::now(), 0;
    auto run = (int (*)(const unsigned *, const unsigned *, size_t, void **, uint64_t))launch.function;
    std::vector<void *> places;
    for (uint64_t &arg : launch.args) places.push_back(&arg);
    return run(launch.grid, launch.block, launch.shared, places.data(), 1) == 0 ? 0 : INVALID;
}

CALL(cuStreamBeginCapture_v2, Handle, unsigned) gathering = new Graph; END
CALL(cuStreamEndCapture, Handle, Handle *graph) *graph = gathering, gathering = nullptr; END
CALL(cuEventRecordWithFlags, Handle event, Handle, unsigned flags)
    if (!gathering || flags != 1) return INVALID;
    gathering->push_back({nullptr, {}, {}, 0, {}, (Event *)event});
END
CALL(cuGraphInstantiateWithFlags, Handle *runnable, Handle graph, uint64_t) *runnable = new Graph(*(Graph *)graph); END
CALL(cuGraphLaunch, Handle runnable, Handle)
    for (Launch &launch : *(Graph *)runnable)
        if (Result code = carry_out(launch)) return code;
END
CALL(cuGraphDestroy, Handle graph) delete (Graph *)graph; END
CALL(cuGraphExecDestroy, Handle runnable) delete (Graph *)runnable; END

CALL(cuLaunchKernel, Handle function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
     unsigned shared, Handle, void **args, void **)
    Launch launch = {function, {x, y, z}, {bx, by, bz}, shared, {}, nullptr};
    for (size_t i = 0; i < parameters[function]; i++) launch.args.push_back(*(uint64_t *)args[i]);
    if (!gathering) return carry_out(launch);
    gathering->push_back(launch);
END

static Result text_of(Result code, const char **text, bool name) {
    switch (code) {
        case 2: *text = name ? "CUDA_ERROR_OUT_OF_MEMORY" : "out of memory"; return 0;
        case 100: *text = name ? "CUDA_ERROR_NO_DEVICE" : "no CUDA-capable device is detected"; return 0;
        case 719: *text = name ? "CUDA_ERROR_LAUNCH_FAILED" : "unspecified launch failure"; return 0;
        default: *text = nullptr; return INVALID;
    }
}
extern "C" Result cuGetErrorName(Result code, const char **text) { return text_of(code, text, true); }
extern "C" Result cuGetErrorString(Result code, const char **text) { return text_of(code, text, false); }
