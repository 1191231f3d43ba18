// A libnvidia-ml.so.1 without a card, for tests of what this program asks NVML and how it takes what is missing.
// FAKE_NVML_FAIL=function:code and FAKE_NVML_SLEEP=function:ms (separated by commas) let functions fail or hang; a test
// in the same process says so with fake_fail and fake_sleep. FAKE_NVML_CARDS says how many cards there are.
#pragma GCC visibility push(default)
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

typedef unsigned Result;
typedef void *Device;

static std::mutex lock;
static std::map<std::string, unsigned> codes, sleeps;

static void read(const char *variable, std::map<std::string, unsigned> &into) {
    const char *plan = std::getenv(variable);
    for (std::string rest = plan ? plan : ""; !rest.empty();) {
        std::string one = rest.substr(0, rest.find(','));
        rest = one.size() < rest.size() ? rest.substr(one.size() + 1) : "";
        char name[64];
        unsigned number;
        if (std::sscanf(one.c_str(), "%63[^:]:%u", name, &number) == 2) into[name] = number;
    }
}

static unsigned planned(std::map<std::string, unsigned> &plan, const char *function) {
    std::lock_guard<std::mutex> held(lock);
    static bool once = (read("FAKE_NVML_FAIL", codes), read("FAKE_NVML_SLEEP", sleeps), true);
    (void)once;
    auto found = plan.find(function);
    return found == plan.end() ? 0 : found->second;
}

extern "C" void fake_fail(const char *function, unsigned code) {
    std::lock_guard<std::mutex> held(lock);
    codes[function] = code;
}
extern "C" void fake_sleep(const char *function, unsigned ms) {
    std::lock_guard<std::mutex> held(lock);
    sleeps[function] = ms;
}

#define CALL(function, ...)                                                      \
    extern "C" Result function(__VA_ARGS__) {                                    \
        if (unsigned ms = planned(sleeps, #function)) usleep(ms * 1000u);        \
        if (Result code = planned(codes, #function)) return code;
#define END   \
    return 0; \
    }
static const Result INVALID = 2, NOT_FOUND = 6, TOO_SMALL = 7;

static char card;
static const char *UUID = "GPU-11111111-2222-3333-4444-555555555555";

static unsigned cards() {
    const char *text = std::getenv("FAKE_NVML_CARDS");
    return text ? std::atoi(text) : 1;
}

CALL(nvmlInit_v2) END
CALL(nvmlShutdown) END
CALL(nvmlSystemGetDriverVersion, char *text, unsigned len) std::snprintf(text, len, "580.65.06"); END
CALL(nvmlSystemGetCudaDriverVersion_v2, int *version) *version = 13000; END
CALL(nvmlDeviceGetCount_v2, unsigned *count) *count = cards(); END
CALL(nvmlDeviceGetHandleByIndex_v2, unsigned index, Device *device)
    if (index >= cards()) return INVALID;
    *device = &card;
END
CALL(nvmlDeviceGetHandleByUUID, const char *uuid, Device *device)
    if (std::strcmp(uuid, UUID) != 0) return NOT_FOUND;
    *device = &card;
END
CALL(nvmlDeviceGetName, Device, char *text, unsigned len) std::snprintf(text, len, "Fake card"); END
CALL(nvmlDeviceGetCudaComputeCapability, Device, int *major, int *minor) *major = 9, *minor = 0; END

struct Utilization { unsigned gpu, memory; };
CALL(nvmlDeviceGetUtilizationRates, Device, Utilization *rates) *rates = {87, 61}; END

struct Memory { unsigned version; unsigned long long total, reserved, free, used; };
CALL(nvmlDeviceGetMemoryInfo_v2, Device, Memory *memory)
    memory->total = 141ull << 30, memory->reserved = 1ull << 30, memory->free = 100ull << 30, memory->used = 40ull << 30;
END

// This process between two others, the first of them in a smaller number than it is told of.
struct Process { unsigned pid; unsigned long long used; unsigned instance, part; };
CALL(nvmlDeviceGetComputeRunningProcesses_v3, Device, unsigned *count, Process *processes)
    unsigned room = *count, none = 0xFFFFFFFFu;
    *count = 3;
    if (room < 3) return TOO_SMALL;
    processes[0] = {1, 7ull << 30, none, none};
    processes[1] = {(unsigned)getpid(), 3ull << 30, none, none};
    processes[2] = {2, 5ull << 30, none, none};
END

CALL(nvmlDeviceGetPowerUsage, Device, unsigned *mw) *mw = 412500; END
CALL(nvmlDeviceGetEnforcedPowerLimit, Device, unsigned *mw) *mw = 700000; END
CALL(nvmlDeviceGetTemperature, Device, int, unsigned *degrees) *degrees = 57; END
// NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2
CALL(nvmlDeviceGetClockInfo, Device, int which, unsigned *mhz) *mhz = which == 1 ? 1980 : which == 2 ? 3201 : 1; END
// NVML_PCIE_UTIL_TX_BYTES = 0, NVML_PCIE_UTIL_RX_BYTES = 1
CALL(nvmlDeviceGetPcieThroughput, Device, int which, unsigned *kbs) *kbs = which == 0 ? 2500 : 12000; END
CALL(nvmlDeviceGetCurrentClocksThrottleReasons, Device, unsigned long long *reasons) *reasons = 0x4; END
