// BodyFile: a request body on disk instead of in memory, for routes that take very large ones.
//
// Owns     a file without a name: it is gone with the last reference, or with the process.
// Memory   view() maps the file; let_go() gives back what was read of it.
// Errors   Errc::io: the disk is full or fails.
// Threads  one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace parley::http {

class BodyFile {
  public:
    // `folder` must exist, on a disk that has room for the largest body.
    static base::Result<std::shared_ptr<BodyFile>> make(const std::string& folder);
    ~BodyFile();
    BodyFile(const BodyFile&) = delete;
    BodyFile& operator=(const BodyFile&) = delete;

    base::Result<void> append(std::string_view bytes);
    uint64_t size() const { return size_; }
    // The whole of it; nothing may be appended afterwards. Valid as long as the object.
    base::Result<std::string_view> view();
    // Bytes before `offset` need not stay in memory; they can still be read.
    void let_go(uint64_t offset);

  private:
    explicit BodyFile(int fd) : fd_(fd) {}
    int fd_;
    uint64_t size_ = 0;
    void* map_ = nullptr;
};

}  // namespace parley::http
