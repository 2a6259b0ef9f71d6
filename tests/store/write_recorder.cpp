// A shim for LD_PRELOAD: writes down, in order, what a process does to its data.mdb.
//
// Log      the file named by PARLEY_WRITE_LOG; a record is kind 1 · offset 8 · length 4 · bytes, in the
//          machine's byte order. W a write, D a write on a descriptor that syncs each one (O_DSYNC), S a
//          sync of the file, T a truncation to `offset`, M a shared writable map: stores that nobody sees.
// When     after the call has succeeded, before its caller goes on: whoever was told of an effect finds
//          everything that it rests on in the log.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <mutex>

namespace {

constexpr int kFdMax = 4096;
std::atomic<char> kind_of[kFdMax];  // 0: not ours, W or D
std::mutex one;

int log_fd() {
    static const int fd = [] {
        const char* path = getenv("PARLEY_WRITE_LOG");
        return path ? static_cast<int>(syscall(SYS_openat, AT_FDCWD, path,
                                               O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600))
                    : -1;
    }();
    return fd;
}

char kind(int fd) { return fd >= 0 && fd < kFdMax ? kind_of[fd].load() : 0; }

void put(char what, uint64_t offset, const iovec* parts, int count, size_t length) {
    char head[13];
    head[0] = what;
    const uint32_t size = static_cast<uint32_t>(length);
    memcpy(head + 1, &offset, 8);
    memcpy(head + 9, &size, 4);
    const std::lock_guard<std::mutex> lock(one);
    bool good = syscall(SYS_write, log_fd(), head, sizeof head) == sizeof head;
    for (int i = 0; i < count && length > 0 && good; ++i) {
        const size_t piece = parts[i].iov_len < length ? parts[i].iov_len : length;
        good = syscall(SYS_write, log_fd(), parts[i].iov_base, piece) == static_cast<long>(piece);
        length -= piece;
    }
    if (!good) abort();  // a log with a hole would prove nothing
}

template <class Call>
Call real(const char* name) {
    return reinterpret_cast<Call>(dlsym(RTLD_NEXT, name));
}

int opened(int fd, const char* path, int flags) {
    if (fd < 0 || fd >= kFdMax || log_fd() < 0) return fd;
    const size_t length = strlen(path);
    const char tail[] = "/data.mdb";
    const bool ours =
        length >= sizeof tail - 1 && strcmp(path + length - (sizeof tail - 1), tail) == 0;
    kind_of[fd] = !ours ? 0 : flags & O_DSYNC ? 'D' : 'W';
    return fd;
}

ssize_t wrote(int fd, off_t offset, const iovec* parts, int count, ssize_t result) {
    if (result > 0)
        put(kind(fd), static_cast<uint64_t>(offset), parts, count, static_cast<size_t>(result));
    return result;
}

}  // namespace

extern "C" {

int open64(const char* path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    return opened(static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode)), path, flags);
}
int open(const char* path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    return opened(static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode)), path, flags);
}
int close(int fd) {
    if (fd >= 0 && fd < kFdMax) kind_of[fd] = 0;
    return static_cast<int>(syscall(SYS_close, fd));
}
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t offset) {
    const ssize_t result = syscall(SYS_pwrite64, fd, data, size, offset);
    const iovec part{const_cast<void*>(data), size};
    return kind(fd) ? wrote(fd, offset, &part, 1, result) : result;
}
ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
    return pwrite64(fd, data, size, offset);
}
ssize_t write(int fd, const void* data, size_t size) {
    static const auto next = real<ssize_t (*)(int, const void*, size_t)>("write");
    if (!kind(fd)) return next(fd, data, size);
    const off_t at = lseek(fd, 0, SEEK_CUR);
    const iovec part{const_cast<void*>(data), size};
    return wrote(fd, at, &part, 1, next(fd, data, size));
}
ssize_t writev(int fd, const iovec* parts, int count) {
    static const auto next = real<ssize_t (*)(int, const iovec*, int)>("writev");
    if (!kind(fd)) return next(fd, parts, count);
    const off_t at = lseek(fd, 0, SEEK_CUR);
    return wrote(fd, at, parts, count, next(fd, parts, count));
}
ssize_t pwritev64(int fd, const iovec* parts, int count, off64_t offset) {
    static const auto next = real<ssize_t (*)(int, const iovec*, int, off64_t)>("pwritev64");
    const ssize_t result = next(fd, parts, count, offset);
    return kind(fd) ? wrote(fd, offset, parts, count, result) : result;
}
ssize_t pwritev(int fd, const iovec* parts, int count, off_t offset) {
    return pwritev64(fd, parts, count, offset);
}
int fdatasync(int fd) {
    static const auto next = real<int (*)(int)>("fdatasync");
    const int result = next(fd);
    if (result == 0 && kind(fd)) put('S', 0, nullptr, 0, 0);
    return result;
}
int fsync(int fd) {
    static const auto next = real<int (*)(int)>("fsync");
    const int result = next(fd);
    if (result == 0 && kind(fd)) put('S', 0, nullptr, 0, 0);
    return result;
}
int ftruncate64(int fd, off64_t size) {
    const int result = static_cast<int>(syscall(SYS_ftruncate, fd, size));
    if (result == 0 && kind(fd)) put('T', static_cast<uint64_t>(size), nullptr, 0, 0);
    return result;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
void* mmap64(void* where, size_t size, int protection, int flags, int fd, off64_t offset) {
    void* result =
        reinterpret_cast<void*>(syscall(SYS_mmap, where, size, protection, flags, fd, offset));
    if (result != MAP_FAILED && kind(fd) && (protection & PROT_WRITE) && (flags & MAP_SHARED))
        put('M', static_cast<uint64_t>(offset), nullptr, 0, 0);
    return result;
}
void* mmap(void* where, size_t size, int protection, int flags, int fd, off_t offset) {
    return mmap64(where, size, protection, flags, fd, offset);
}

}  // extern "C"
