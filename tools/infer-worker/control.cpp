#include "control.hpp"

#include <poll.h>
#include <simdjson.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

#include "base/clock.hpp"
#include "base/json.hpp"

namespace parley::infer_worker {
namespace {

base::Result<sockaddr_un> address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        return base::fail(base::Errc::config,
                          "'" + path + "': a socket's path is 107 bytes at most");
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    return address;
}

bool write_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t n = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (n <= 0) return false;
        bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
}

base::Result<Command> read_command(const std::string& line) {
    simdjson::dom::parser parser;
    simdjson::dom::element document;
    const auto bad = [](const char* why) { return base::fail(base::Errc::invalid, why); };
    if (parser.parse(simdjson::padded_string(line)).get(document) != simdjson::SUCCESS)
        return bad("the command is no JSON");
    const auto text = [&](const char* key) {
        std::string_view value;
        return document[key].get(value) == simdjson::SUCCESS ? std::string(value) : std::string();
    };
    Command command;
    const std::string what = text("command");
    if (what == "load") {
        command.what = Command::What::load;
        command.file = text("file");
        command.name = text("name");
        if (command.file.empty() || command.file[0] != '/')
            return bad("load: file is an absolute path");
        uint64_t blocks = 0;
        if (document["kv_blocks"].get(blocks) == simdjson::SUCCESS) {
            if (blocks > 1 << 22) return bad("load: kv_blocks is 4194304 at most");
            command.kv_blocks = static_cast<uint32_t>(blocks);
        }
    } else if (what == "unload") {
        command.what = Command::What::unload;
        command.model = text("model");
        if (command.model.empty()) return bad("unload: model is a name or a hash");
    } else if (what == "models") {
        command.what = Command::What::models;
    } else {
        return bad("command is load, unload or models");
    }
    return command;
}

}  // namespace

struct Control::Impl {
    std::string path;
    int listener = -1, wake = -1, stop = -1;
    std::mutex mutex;
    std::deque<Command> commands;
    std::thread thread;

    ~Impl() {
        for (const int fd : {listener, wake, stop})
            if (fd >= 0) close(fd);
    }
    void serve() {
        for (;;) {
            pollfd fds[] = {{listener, POLLIN, 0}, {stop, POLLIN, 0}};
            if (poll(fds, 2, -1) < 0 && errno != EINTR) return;
            if (fds[1].revents != 0) return;
            if (fds[0].revents == 0) continue;
            const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
            if (fd < 0) continue;
            const timeval most{kReadMs / 1000, 0};
            setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
            answer(fd);
            close(fd);
        }
    }
    void answer(int fd) {
        std::string line;
        const int64_t end_ms = base::system_clock().mono_ms() + kReadMs;
        while (line.find('\n') == std::string::npos) {
            const int64_t left = end_ms - base::system_clock().mono_ms();
            pollfd fds[] = {{fd, POLLIN, 0}, {stop, POLLIN, 0}};
            if (left <= 0 || poll(fds, 2, static_cast<int>(left)) <= 0 || fds[1].revents != 0)
                return;
            char buffer[1024];
            const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
            if (n <= 0 || line.size() > kLineMax) return;
            line.append(buffer, static_cast<size_t>(n));
        }
        auto command = read_command(line.substr(0, line.find('\n')));
        if (!command) {
            write_all(fd, control_error(command.error()) + "\n");
            return;
        }
        auto promise = std::make_shared<std::promise<std::string>>();
        auto reply = promise->get_future();
        command->reply = [promise](std::string text) { promise->set_value(std::move(text)); };
        promise.reset();  // the command alone keeps it: dropped unanswered, it breaks the promise
        {
            const std::lock_guard lock(mutex);
            commands.push_back(std::move(*command));
        }
        command->reply = nullptr;
        eventfd_write(wake, 1);
        while (reply.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready) {
            pollfd stopped{stop, POLLIN, 0};
            if (poll(&stopped, 1, 0) > 0) return;
        }
        std::string text;
        try {
            text = reply.get();
        } catch (const std::future_error&) {
            text = control_error({base::Errc::unavailable, "the worker stops"});
        }
        write_all(fd, text + "\n");
    }
};

Control::Control(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Control::~Control() {
    eventfd_write(impl_->stop, 1);
    impl_->thread.join();
    unlink(impl_->path.c_str());
}

base::Result<std::unique_ptr<Control>> Control::start(const std::string& path) {
    const auto address = address_of(path);
    if (!address) return base::fail(address.error());
    const auto* raw = reinterpret_cast<const sockaddr*>(&*address);
    const auto failed = [&] {
        return base::fail(base::Errc::io, "'" + path + "': " + std::strerror(errno));
    };
    auto impl = std::make_unique<Impl>();
    impl->path = path;
    const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool held = probe >= 0 && connect(probe, raw, sizeof *address) == 0;
    if (probe >= 0) close(probe);
    if (held)
        return base::fail(base::Errc::conflict, "'" + path + "': a live worker listens there");
    unlink(path.c_str());  // of one that was killed
    impl->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    impl->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    impl->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (impl->listener < 0 || impl->wake < 0 || impl->stop < 0 ||
        bind(impl->listener, raw, sizeof *address) != 0 || listen(impl->listener, 8) != 0)
        return failed();
    impl->thread = std::thread([own = impl.get()] { own->serve(); });
    return std::unique_ptr<Control>(new Control(std::move(impl)));
}

int Control::fd() const { return impl_->wake; }

std::optional<Command> Control::take() {
    eventfd_t count = 0;
    eventfd_read(impl_->wake, &count);
    const std::lock_guard lock(impl_->mutex);
    if (impl_->commands.empty()) return std::nullopt;
    Command command = std::move(impl_->commands.front());
    impl_->commands.pop_front();
    return command;
}

std::string control_path(const Options& o) {
    return o.daemon.places().run() + "/" + o.name + ".control";
}

std::string control_error(const base::Error& error) {
    std::string out;
    base::JsonWriter(out).object().field("ok", false).field("error", error.what).end();
    return out;
}

int command(const Options& o) {
    const auto report = [](base::Errc code, const std::string& what) {
        return base::report("infer-worker", {code, what});
    };
    std::string line;
    base::JsonWriter w(line);
    w.object();
    if (o.parsed.is("load")) {
        char* real = realpath(o.file.c_str(), nullptr);
        if (real == nullptr)
            return report(base::Errc::not_found, "'" + o.file + "': " + std::strerror(errno));
        w.field("command", "load").field("file", real);
        free(real);
        if (!o.model_name.empty()) w.field("name", o.model_name);
        if (o.load_kv_blocks > 0) w.field("kv_blocks", o.load_kv_blocks);
    } else if (o.parsed.is("unload")) {
        w.field("command", "unload").field("model", o.unload_model);
    } else {
        w.field("command", "models");
    }
    w.end();
    const std::string path = control_path(o);
    const auto address = address_of(path);
    if (!address) return base::report("infer-worker", address.error());
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
        const std::string why = std::strerror(errno);
        if (fd >= 0) close(fd);
        return report(base::Errc::unavailable,
                      "no worker '" + o.name + "' at '" + path + "': " + why);
    }
    std::string reply;
    if (write_all(fd, line + "\n")) {
        char buffer[4096];
        for (ssize_t n; (n = recv(fd, buffer, sizeof buffer, 0)) > 0;)
            reply.append(buffer, static_cast<size_t>(n));
    }
    close(fd);
    if (reply.empty()) return report(base::Errc::unavailable, "the worker gave no answer");
    std::fputs(reply.c_str(), stdout);
    return reply.rfind(R"({"ok":true)", 0) == 0 ? 0 : 70;
}

}  // namespace parley::infer_worker
