// Control: models loaded and unloaded in a running worker, by a local socket. See infer-worker(8),
// CONTROL: one line of JSON in, one line out, then the connection is closed.
//
// Place    $PARLEY_STATE/run/NAME.control, in a folder of mode 0700: who may open it may command.
// Threads  a thread of its own reads and writes; the commands themselves are taken by take() in the
//          thread of the working loop when fd() is readable, and answered from any thread.
// Bounds   one connection at a time, kLineMax bytes of command, kReadMs to send it.
// Errors   start(): Errc::conflict (a live worker has the socket), Errc::io.
#pragma once

#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>

#include "base/result.hpp"
#include "options.hpp"

namespace parley::infer_worker {

struct Command {
    enum class What : uint8_t { load, unload, models } what{};
    std::string file, name;  // load
    uint32_t kv_blocks = 0;
    std::string model;                       // unload: name or hash
    std::function<void(std::string)> reply;  // the line; once
};

class Control {
  public:
    static constexpr size_t kLineMax = 8192;
    static constexpr int64_t kReadMs = 2000;

    static base::Result<std::unique_ptr<Control>> start(const std::string& path);
    ~Control();  // what is not answered gets an error
    int fd() const;
    std::optional<Command> take();

  private:
    struct Impl;
    explicit Control(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

std::string control_path(const Options& options);
std::string control_error(const base::Error& error);  // the reply line
// The verbs load, unload and models: sends, prints the reply, exit status.
int command(const Options& options);

}  // namespace parley::infer_worker
