#include "http/connection.hpp"

namespace parley::http {

std::function<void()> ResponseTarget::mark_closed(ResponseWriter& writer) {
    if (writer.finished_ || writer.closed_) return nullptr;
    writer.closed_ = true;
    writer.drain_ = nullptr;
    return std::exchange(writer.close_, nullptr);
}

std::function<void()> ResponseTarget::drain_of(const ResponseWriter& writer) {
    return writer.finished_ || writer.closed_ ? nullptr : writer.drain_;
}

ResponseWriter::~ResponseWriter() {
    if (finished_) return;
    if (auto connection = connection_.lock()) connection->abandoned(*this);
}

void ResponseWriter::reply(Response response) {
    if (started_ || finished_) return;
    started_ = finished_ = true;
    close_ = nullptr;
    drain_ = nullptr;
    if (auto connection = connection_.lock()) connection->reply(*this, std::move(response));
}

void ResponseWriter::start(int status, std::vector<std::pair<std::string, std::string>> headers) {
    if (started_ || finished_) return;
    started_ = true;
    if (auto connection = connection_.lock()) connection->start(*this, status, headers);
}

bool ResponseWriter::write(std::string_view bytes) {
    if (!started_ || finished_) return false;
    auto connection = connection_.lock();
    return connection && connection->write(*this, bytes);
}

bool ResponseWriter::upgrade(std::vector<std::pair<std::string, std::string>> headers,
                             std::function<void(std::string_view)> on_bytes) {
    if (started_ || finished_ || head_only_) return false;
    const auto target = connection_.lock();
    if (!target || !target->upgrade(*this, headers, std::move(on_bytes))) return false;
    started_ = true;
    return true;
}

void ResponseWriter::finish() {
    if (!started_ || finished_) return;
    finished_ = true;
    close_ = nullptr;
    drain_ = nullptr;
    if (auto connection = connection_.lock()) connection->finish(*this);
}

void ResponseWriter::abort() {
    if (finished_) return;
    started_ = finished_ = true;
    close_ = nullptr;
    drain_ = nullptr;
    if (auto connection = connection_.lock()) connection->abort(*this);
}

size_t ResponseWriter::pending_bytes() const {
    if (finished_) return 0;
    const auto connection = connection_.lock();
    return connection ? connection->pending() : 0;
}

void ResponseWriter::on_drain(std::function<void()> callback) {
    if (!finished_) drain_ = std::move(callback);
}

void ResponseWriter::on_close(std::function<void()> callback) {
    if (!finished_) close_ = std::move(callback);
}

}  // namespace parley::http
