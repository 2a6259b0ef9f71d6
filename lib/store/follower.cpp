#include "store/follower.hpp"

#include <fmt/format.h>
#include <poll.h>

#include <charconv>
#include <zmq.hpp>

#include "base/file.hpp"

namespace parley::store {

struct Follower::Impl {
    Reader& reader;
    FollowerOptions options;
    uint64_t position;
    zmq::context_t context;
    std::optional<zmq::socket_t> changes;

    explicit Impl(Reader& r, FollowerOptions o)
        : reader(r), options(std::move(o)), position(options.after) {}

    // What is published is only "look again"; the rows come from the log.
    void drain() {
        if (!changes) return;
        zmq::message_t frame;
        while (changes->recv(frame, zmq::recv_flags::dontwait)) {
        }
    }
};

Follower::Follower(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Follower::~Follower() = default;

Result<std::unique_ptr<Follower>> Follower::open(Reader& reader, FollowerOptions options) {
    auto impl = std::make_unique<Impl>(reader, std::move(options));
    if (!impl->options.changes_endpoint.empty()) {
        try {
            impl->changes.emplace(impl->context, zmq::socket_type::sub);
            impl->changes->set(zmq::sockopt::linger, 0);
            impl->changes->set(zmq::sockopt::rcvhwm,
                               1000);  // beyond it drops, which costs a poll and no more
            impl->changes->set(zmq::sockopt::reconnect_ivl, 50);
            impl->changes->set(zmq::sockopt::reconnect_ivl_max, 1000);
            impl->changes->set(zmq::sockopt::subscribe, "");
            impl->changes->connect(impl->options.changes_endpoint);
        } catch (const zmq::error_t& error) {
            return fail(Errc::invalid, fmt::format("cannot follow '{}': {}",
                                                   impl->options.changes_endpoint, error.what()));
        }
    }
    return std::unique_ptr<Follower>(new Follower(std::move(impl)));
}

Result<std::vector<Change>> Follower::next() {
    impl_->drain();  // before the read: what is committed later wakes again
    auto rows = impl_->reader.changes(impl_->position, impl_->options.batch_max);
    if (!rows) return fail(rows.error());
    for (const Change& change : *rows) {
        if (change.seq != impl_->position + 1)
            return fail(
                Errc::corrupt,
                fmt::format("the change log jumps from {} to {}: the cursor is older than the "
                            "log, or the log is damaged (convstore check)",
                            impl_->position, change.seq));
        impl_->position = change.seq;
    }
    return rows;
}

void Follower::wait(int extra_fd) {
    // ZeroMQ's descriptor signals edges: ask the socket itself before waiting on it.
    if (impl_->changes && (impl_->changes->get(zmq::sockopt::events) & ZMQ_POLLIN)) return;
    pollfd fds[2] = {{fd(), POLLIN, 0}, {extra_fd, POLLIN, 0}};
    ::poll(fds, 2, static_cast<int>(impl_->options.poll_ms));
}

int Follower::fd() const { return impl_->changes ? impl_->changes->get(zmq::sockopt::fd) : -1; }
uint64_t Follower::position() const { return impl_->position; }

Result<Partition> Partition::parse(std::string_view text) {
    Partition out;
    const size_t slash = text.find('/');
    const auto read = [](std::string_view part, uint32_t& number) {
        const auto got = std::from_chars(part.data(), part.data() + part.size(), number);
        return !part.empty() && got.ec == std::errc{} && got.ptr == part.data() + part.size();
    };
    if (slash == std::string_view::npos || !read(text.substr(0, slash), out.index) ||
        !read(text.substr(slash + 1), out.count) || out.count < 1 || out.count > 4096 ||
        out.index > out.count)
        return fail(Errc::usage,
                    fmt::format("'{}' is no partition: k/n with n from 1 to 4096 and k from 0 to n",
                                text));
    out.index %= out.count;
    return out;
}

bool Partition::has(const Ulid& conv) const {
    uint64_t hash = 0xcbf29ce484222325;
    for (const uint8_t byte : conv.bytes) hash = (hash ^ byte) * 0x100000001b3;
    return hash % count == index;
}

bool Partition::has(const Change& change) const {
    if (count == 1) return true;
    // A change is written by the store alone: its members come in this form, and no text of a user's
    // stands in front of the id.
    static constexpr std::string_view kMember = "\"conversation\":\"";
    const size_t at = change.json.find(kMember);
    std::optional<Ulid> conv;
    if (at != std::string::npos)
        conv = parse_id(kConv, std::string_view(change.json)
                                   .substr(at + kMember.size(), kConv.size() + 26));
    return conv ? has(*conv) : index == 0;
}

Result<uint64_t> load_cursor(const std::string& path) {
    auto text = base::read_file(path, 4096);
    if (!text) {
        if (text.error().code == Errc::not_found) return uint64_t{0};
        return fail(text.error());
    }
    uint64_t seq = 0;
    const char* end = text->data() + text->size();
    const auto got = std::from_chars(text->data(), end, seq);
    if (got.ec != std::errc{} || (got.ptr != end && *got.ptr != '\n'))
        return fail(Errc::corrupt,
                    fmt::format("'{}' is not a cursor: remove it to begin at the start", path));
    return seq;
}

Result<void> save_cursor(const std::string& path, uint64_t seq) {
    return base::write_file(path, fmt::format("{}\n", seq), 0600);
}

}  // namespace parley::store
