// Files and places: reading, atomic writing, and where a parley keeps what (protocol.md: Places).
//
// Threads  any; two writers of one path: the last rename wins, readers see one or the other, whole.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace parley::base {

// Errc::too_large over `bytes_max`, before anything is read.
Result<std::string> read_file(const std::string& path, uint64_t bytes_max = 256ull << 20);
// Temporary file beside it, fsync, rename, fsync of the folder.
Result<void> write_file(const std::string& path, std::string_view bytes, int mode = 0644);
// mkdir -p; folders made are 0700.
Result<void> make_dirs(const std::string& path);
// An advisory lock held until exit or destruction: the guard against two owners of one socket path
// or store. Errc::conflict names the holder's pid.
class LockFile {
  public:
    static Result<LockFile> take(const std::string& path);
    LockFile(LockFile&& other) noexcept;
    LockFile& operator=(LockFile&& other) noexcept;
    ~LockFile();

  private:
    explicit LockFile(int fd) : fd_(fd) {}
    int fd_ = -1;
};

// $PARLEY_STATE, else $XDG_STATE_HOME/parley, else ~/.local/state/parley. Tools call it, libraries
// are given the result.
std::string state_dir_from_env();
struct Places {
    std::string state;
    std::string store() const { return state + "/store"; }
    std::string run() const { return state + "/run"; }
    std::string tokenizers() const { return state + "/tokenizers"; }
    std::string batches() const { return state + "/batches"; }
    std::string keys_bin() const { return state + "/keys.bin"; }
    std::string master_key() const { return state + "/master.key"; }
    std::string stamp_key() const { return run() + "/stamp.key"; }
    // ipc endpoints inside run/ (0700)
    std::string endpoint(std::string_view name) const {
        return "ipc://" + run() + "/" + std::string(name) + ".sock";
    }
    std::string filter_endpoint() const { return endpoint("filter"); }        // askers: chatd
    std::string router_asker_endpoint() const { return endpoint("router"); }  // askers: filters
    std::string router_worker_endpoint() const {
        return endpoint("workers");
    }                                                                     // answerers join here
    std::string store_endpoint() const { return endpoint("convstore"); }  // commands
    std::string changes_endpoint() const { return endpoint("changes"); }  // PUB, every commit
};

}  // namespace parley::base
