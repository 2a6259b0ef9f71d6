#include "pipe/context.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <zmq.h>

#include <array>
#include <cerrno>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/log.hpp"
#include "pipe/context_impl.hpp"

namespace parley::pipe {

using base::Errc;
using base::fail;
using base::Result;

CurvePair make_curve_pair() {
    std::array<char, 41> public_key{};
    std::array<char, 41> secret_key{};
    zmq_curve_keypair(public_key.data(), secret_key.data());
    return {public_key.data(), secret_key.data()};
}

Result<CurvePair> read_curve_pair(const std::string& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0)
        return fail(base::errno_error(errno, fmt::format("cannot open key '{}'", path)));
    if ((info.st_mode & 077) != 0)
        return fail(Errc::config,
                    fmt::format("key '{}' can be read by others: chmod 600 it", path));
    auto text = base::read_file(path, 4096);
    if (!text) return fail(text.error());
    while (!text->empty() && (text->back() == '\n' || text->back() == ' ')) text->pop_back();
    std::array<char, 41> public_key{};
    if (text->size() != 40 || zmq_curve_public(public_key.data(), text->c_str()) != 0)
        return fail(Errc::config, fmt::format("key '{}' is not 40 characters of Z85", path));
    return CurvePair{public_key.data(), *text};
}

Context::Context() : impl_(std::make_unique<Impl>()) {}
Context::~Context() = default;

Context::Impl::Impl() {
    zmq.set(zmq::ctxopt::max_sockets, 1023);
    zmq.set(zmq::ctxopt::blocky, false);
}

Context::Impl::~Impl() {
    if (zap.joinable()) {
        {
            zmq::socket_t stop(zmq, zmq::socket_type::pair);
            stop.set(zmq::sockopt::linger, 0);
            stop.connect("inproc://parley.zap.stop");
            stop.send(zmq::message_t(), zmq::send_flags::dontwait);
            zap.join();
        }
    }
}

// ZAP (rfc.zeromq.org/spec/27): without a handler any client that knows the server's key gets in.
void Context::Impl::allow(const std::vector<std::string>& keys) {
    const std::scoped_lock hold(lock);
    allowed.insert(keys.begin(), keys.end());
    if (zap.joinable()) return;
    zmq::socket_t requests(zmq, zmq::socket_type::rep);
    requests.set(zmq::sockopt::linger, 0);
    requests.bind("inproc://zeromq.zap.01");
    zmq::socket_t stop(zmq, zmq::socket_type::pair);
    stop.set(zmq::sockopt::linger, 0);
    stop.bind("inproc://parley.zap.stop");
    zap = std::thread([this, requests = std::move(requests), stop = std::move(stop)]() mutable {
        serve_zap(requests, stop);
    });
}

// One line for a key or an address every ten seconds at most: who is refused tries again at once.
void Context::Impl::tell_refused(const std::string& key, const std::string& address) {
    constexpr int64_t kEveryMs = 10'000;
    constexpr size_t kKnownMax = 256;
    const int64_t now = base::system_clock().mono_ms();
    if (told.size() >= kKnownMax) told.clear();
    const auto [at, fresh] = told.try_emplace(key + " " + address, now);
    if (!fresh && now - at->second < kEveryMs) return;
    at->second = now;
    base::log(base::Level::warn, "curve.refused",
              {{"key", key},
               {"address", address},
               {"why", "this public key is not in the file of --curve-allow"}});
}

void Context::Impl::serve_zap(zmq::socket_t& requests, zmq::socket_t& stop) {
    while (true) {
        std::array<zmq::pollitem_t, 2> items{
            {{requests.handle(), 0, ZMQ_POLLIN, 0}, {stop.handle(), 0, ZMQ_POLLIN, 0}}};
        zmq::poll(items.data(), items.size(), std::chrono::milliseconds(-1));
        if (items[1].revents != 0) return;
        // version, request id, domain, address, identity, mechanism, credentials…
        std::vector<std::string> frames;
        zmq::message_t frame;
        do {
            if (!requests.recv(frame, zmq::recv_flags::none)) return;
            frames.push_back(frame.to_string());
        } while (frame.more());
        bool good = false;
        std::string key = "none";
        if (frames.size() >= 7 && frames[5] == "CURVE" && frames[6].size() == 32) {
            std::array<char, 41> text{};
            zmq_z85_encode(text.data(), reinterpret_cast<const uint8_t*>(frames[6].data()), 32);
            key = text.data();
            const std::scoped_lock hold(lock);
            good = allowed.count(key) != 0;
        }
        if (!good) tell_refused(key, frames.size() > 3 ? frames[3] : "");
        const std::array<std::string, 6> reply{"1.0",
                                               frames.size() > 1 ? frames[1] : "",
                                               good ? "200" : "400",
                                               good ? "OK" : "key not listed",
                                               "",
                                               ""};
        for (size_t i = 0; i < reply.size(); ++i)
            requests.send(zmq::buffer(reply[i]),
                          i + 1 < reply.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
    }
}

}  // namespace parley::pipe
