#include "engine/huge_memory.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <string>

namespace parley::engine {
namespace {
constexpr uint64_t kHuge = uint64_t{2} << 20;
}  // namespace

base::Result<HugeMemory> HugeMemory::map(uint64_t bytes) {
    const std::string doing = "cannot map " + std::to_string(bytes) + " bytes of memory";
    // Nothing is reserved, so a mapping that can never be filled would succeed and end in a kill.
    const uint64_t physical = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) *
                              static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    if (bytes == 0 || bytes > physical) {
        return base::fail(base::Errc::again,
                          doing + ": the machine has " + std::to_string(physical));
    }
    const uint64_t rounded = (bytes + kHuge - 1) / kHuge * kHuge;
    void* mapped = mmap(nullptr, rounded + kHuge, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) {
        base::Error error = base::errno_error(errno, doing);
        error.code = base::Errc::again;
        return base::fail(std::move(error));
    }
    // Cut to the alignment of a huge page.
    auto* begin = static_cast<uint8_t*>(mapped);
    const uint64_t head = (kHuge - reinterpret_cast<uintptr_t>(begin) % kHuge) % kHuge;
    if (head > 0) munmap(begin, head);
    if (head < kHuge) munmap(begin + head + rounded, kHuge - head);
    HugeMemory memory;
    memory.data_ = begin + head;
    memory.bytes_ = rounded;
    // A system without huge pages refuses; small ones serve too.
    (void)madvise(memory.data_, rounded, MADV_HUGEPAGE);
    return memory;
}

HugeMemory::~HugeMemory() {
    if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace parley::engine
