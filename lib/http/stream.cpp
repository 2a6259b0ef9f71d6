#include "http/stream.hpp"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <cerrno>
#include <climits>

namespace parley::http {
namespace {

bool would_block(int number) { return number == EAGAIN || number == EWOULDBLOCK; }

class PlainStream final : public Stream {
  public:
    explicit PlainStream(int fd) : fd_(fd) {}
    Io handshake() override { return Io::ok; }
    IoResult read(char* into, size_t size) override {
        while (true) {
            const ssize_t n = ::recv(fd_, into, size, 0);
            if (n > 0) return {Io::ok, static_cast<size_t>(n)};
            if (n == 0) return {Io::closed, 0};
            if (errno == EINTR) continue;
            return {would_block(errno) ? Io::want_read : Io::failed, 0};
        }
    }
    IoResult write(std::string_view bytes) override {
        while (true) {
            const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (n >= 0) return {Io::ok, static_cast<size_t>(n)};
            if (errno == EINTR) continue;
            return {would_block(errno) ? Io::want_write : Io::failed, 0};
        }
    }
    void shutdown() override { ::shutdown(fd_, SHUT_WR); }
    bool buffered() const override { return false; }

  private:
    int fd_;
};

// OpenSSL's own socket BIO writes without MSG_NOSIGNAL: a client that has gone would kill us.
int bio_fd(BIO* bio) { return static_cast<int>(reinterpret_cast<intptr_t>(BIO_get_data(bio))); }
int bio_write(BIO* bio, const char* data, int size) {
    BIO_clear_retry_flags(bio);
    const ssize_t n = ::send(bio_fd(bio), data, static_cast<size_t>(size), MSG_NOSIGNAL);
    if (n < 0 && (would_block(errno) || errno == EINTR)) BIO_set_retry_write(bio);
    return static_cast<int>(n);
}
int bio_read(BIO* bio, char* data, int size) {
    BIO_clear_retry_flags(bio);
    const ssize_t n = ::recv(bio_fd(bio), data, static_cast<size_t>(size), 0);
    if (n < 0 && (would_block(errno) || errno == EINTR)) BIO_set_retry_read(bio);
    return static_cast<int>(n);
}
long bio_ctrl(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }
int bio_create(BIO* bio) {
    BIO_set_init(bio, 1);
    return 1;
}
const BIO_METHOD* bio_method() {
    static const BIO_METHOD* const method = [] {
        BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "parley socket");
        if (m) {
            BIO_meth_set_write(m, bio_write);
            BIO_meth_set_read(m, bio_read);
            BIO_meth_set_ctrl(m, bio_ctrl);
            BIO_meth_set_create(m, bio_create);
        }
        return m;
    }();
    return method;
}

struct SslFree {
    void operator()(SSL* ssl) const noexcept { SSL_free(ssl); }
};

class TlsStream final : public Stream {
  public:
    TlsStream(int fd, SSL_CTX* context) : ssl_(SSL_new(context)) {
        BIO* bio = ssl_ && bio_method() ? BIO_new(bio_method()) : nullptr;
        if (!bio) {
            ssl_.reset();
            return;
        }
        BIO_set_data(bio, reinterpret_cast<void*>(static_cast<intptr_t>(fd)));
        SSL_set_bio(ssl_.get(), bio, bio);
        SSL_set_accept_state(ssl_.get());
    }
    bool usable() const { return ssl_ != nullptr; }

    Io handshake() override {
        if (SSL_is_init_finished(ssl_.get())) return Io::ok;
        ERR_clear_error();
        const int rc = SSL_do_handshake(ssl_.get());
        return rc == 1 ? Io::ok : outcome(rc);
    }
    IoResult read(char* into, size_t size) override {
        ERR_clear_error();
        size_t n = 0;
        const int rc = SSL_read_ex(ssl_.get(), into, size, &n);
        if (rc == 1) return {Io::ok, n};
        return {outcome(rc), 0};
    }
    IoResult write(std::string_view bytes) override {
        ERR_clear_error();
        size_t n = 0;
        const int rc = SSL_write_ex(ssl_.get(), bytes.data(), bytes.size(), &n);
        if (rc == 1) return {Io::ok, n};
        const Io io = outcome(rc);
        return {io == Io::closed ? Io::failed : io, 0};
    }
    void shutdown() override {
        ERR_clear_error();
        if (SSL_is_init_finished(ssl_.get()) && !broken_) SSL_shutdown(ssl_.get());
        ::shutdown(bio_fd(SSL_get_wbio(ssl_.get())), SHUT_WR);
    }
    bool buffered() const override { return SSL_has_pending(ssl_.get()) == 1; }

  private:
    Io outcome(int rc) {
        switch (SSL_get_error(ssl_.get(), rc)) {
            case SSL_ERROR_WANT_READ:
                return Io::want_read;
            case SSL_ERROR_WANT_WRITE:
                return Io::want_write;
            case SSL_ERROR_ZERO_RETURN:
                return Io::closed;
            default:
                broken_ = true;
                return Io::failed;  // SSL_shutdown must not follow
        }
    }
    std::unique_ptr<SSL, SslFree> ssl_;
    bool broken_ = false;
};

}  // namespace

std::unique_ptr<Stream> plain_stream(int fd) { return std::make_unique<PlainStream>(fd); }

std::unique_ptr<Stream> tls_stream(int fd, const TlsContext& context) {
    auto stream = std::make_unique<TlsStream>(fd, context.native());
    if (!stream->usable()) return nullptr;
    return stream;
}

}  // namespace parley::http
