#include "notify/outgoing.hpp"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>

namespace parley::notify {

namespace {

constexpr size_t kAnswerBytesMax = 64u << 10;

bool is_public_v4(uint32_t a) {
    static constexpr struct {
        uint32_t net;
        int bits;
    } kRefused[] = {
        {0x00000000, 8},   // this network
        {0x0a000000, 8},   // private
        {0x64400000, 10},  // shared by a carrier
        {0x7f000000, 8},   // loopback
        {0xa9fe0000, 16},  // link-local, cloud metadata
        {0xac100000, 12},  // private
        {0xc0000000, 24},  // protocol assignments
        {0xc0000200, 24},  // documentation
        {0xc0586300, 24},  // 6to4 relays
        {0xc0a80000, 16},  // private
        {0xc6120000, 15},  // benchmarks
        {0xc6336400, 24},  // documentation
        {0xcb007100, 24},  // documentation
        {0xe0000000, 3},   // multicast, reserved, broadcast
    };
    return std::none_of(std::begin(kRefused), std::end(kRefused), [a](const auto& r) {
        return (a >> (32 - r.bits)) == (r.net >> (32 - r.bits));
    });
}

bool is_public_v6(const uint8_t* a) {
    const auto v4 = [a](size_t at) {
        return static_cast<uint32_t>(a[at]) << 24 | static_cast<uint32_t>(a[at + 1]) << 16 |
               static_cast<uint32_t>(a[at + 2]) << 8 | a[at + 3];
    };
    static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    static constexpr uint8_t kNat64[12] = {0, 0x64, 0xff, 0x9b};
    if (std::memcmp(a, kMapped, 12) == 0 || std::memcmp(a, kNat64, 12) == 0)
        return is_public_v4(v4(12));
    if (a[0] == 0x20 && a[1] == 0x02) return is_public_v4(v4(2));  // 6to4
    if ((a[0] & 0xe0) != 0x20) return false;  // only 2000::/3 is given to anybody
    if (a[0] == 0x20 && a[1] == 0x01 && (a[2] & 0xfe) == 0) return false;  // Teredo and the like
    return !(a[0] == 0x20 && a[1] == 0x01 && a[2] == 0x0d && a[3] == 0xb8);  // documentation
}

}  // namespace

bool is_public(const sockaddr& address) {
    if (address.sa_family == AF_INET)
        return is_public_v4(ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr));
    if (address.sa_family == AF_INET6)
        return is_public_v6(reinterpret_cast<const sockaddr_in6&>(address).sin6_addr.s6_addr);
    return false;
}

struct Outgoing::Impl {
    struct Job {
        Outgoing::Done done;
        std::string body;
        size_t sent = 0;
        size_t read = 0;
        bool guard = false;
        bool refused = false;
        curl_slist* headers = nullptr;
        curl_slist* recipients = nullptr;
        ~Job() {
            curl_slist_free_all(headers);
            curl_slist_free_all(recipients);
        }
    };
    OutgoingOptions options;
    CURLM* multi = nullptr;
    std::map<CURL*, std::unique_ptr<Job>> jobs;

    explicit Impl(OutgoingOptions o) : options(std::move(o)) {
        static const CURLcode once = curl_global_init(CURL_GLOBAL_DEFAULT);
        (void)once;
        multi = curl_multi_init();
    }
    ~Impl() {
        for (auto& [easy, job] : jobs) {
            curl_multi_remove_handle(multi, easy);
            curl_easy_cleanup(easy);
        }
        curl_multi_cleanup(multi);
    }

    static curl_socket_t open_socket(void* arg, curlsocktype, curl_sockaddr* address) {
        Job& job = *static_cast<Job*>(arg);
        if (job.guard && !is_public(address->addr)) {
            job.refused = true;
            return CURL_SOCKET_BAD;
        }
        return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    }
    static size_t take(char*, size_t size, size_t count, void* arg) {
        Job& job = *static_cast<Job*>(arg);
        job.read += size * count;
        return job.read > kAnswerBytesMax ? 0 : size * count;
    }
    static size_t give(char* to, size_t size, size_t count, void* arg) {
        Job& job = *static_cast<Job*>(arg);
        const size_t n = std::min(size * count, job.body.size() - job.sent);
        std::memcpy(to, job.body.data() + job.sent, n);
        job.sent += n;
        return n;
    }

    CURL* begin(const std::string& url, Job& job) {
        CURL* easy = curl_easy_init();
        curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
        curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
        curl_easy_setopt(easy, CURLOPT_PROXY, "");
        curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(options.timeout_ms));
        curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options.timeout_ms));
        curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
        curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, &job);
        curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take);
        curl_easy_setopt(easy, CURLOPT_WRITEDATA, &job);
        // A kept connection was checked for another name.
        curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
        curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
        if (!options.ca_file.empty())
            curl_easy_setopt(easy, CURLOPT_CAINFO, options.ca_file.c_str());
        return easy;
    }
    void run(CURL* easy, std::unique_ptr<Job> job) {
        curl_multi_add_handle(multi, easy);
        jobs.emplace(easy, std::move(job));
    }
    void ended(CURL* easy, CURLcode code) {
        const auto at = jobs.find(easy);
        if (at == jobs.end()) return;
        const std::unique_ptr<Job> job = std::move(at->second);
        jobs.erase(at);
        Reply reply;
        long status = 0;
        curl_off_t retry = 0;
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &retry);
        // An answer that is too long has its status all the same.
        const bool long_answer = code == CURLE_WRITE_ERROR && job->read > kAnswerBytesMax;
        reply.status = code == CURLE_OK || long_answer || status >= 300 ? static_cast<int>(status) : 0;
        reply.retry_after_ms = std::clamp<int64_t>(retry, 0, 86'400) * 1000;
        reply.refused = job->refused && code != CURLE_OK;
        reply.why = reply.refused ? "the address is not public" : curl_easy_strerror(code);
        if (code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL) reply.refused = true;
        curl_multi_remove_handle(multi, easy);
        curl_easy_cleanup(easy);
        job->done(reply);
    }
};

Outgoing::Outgoing(OutgoingOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Outgoing::~Outgoing() = default;
size_t Outgoing::running() const { return impl_->jobs.size(); }

bool Outgoing::post(const std::string& url, const std::vector<std::string>& headers,
                    std::string body, Done done) {
    if (impl_->jobs.size() >= impl_->options.requests_max) return false;
    auto job = std::make_unique<Impl::Job>();
    job->done = std::move(done);
    job->body = std::move(body);
    job->guard = !impl_->options.allow_private;
    for (const std::string& header : headers)
        job->headers = curl_slist_append(job->headers, header.c_str());
    // What curl would add by itself, and a push service need not know.
    job->headers = curl_slist_append(job->headers, "Expect:");
    CURL* easy = impl_->begin(url, *job);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "parley/" PARLEY_VERSION);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, job->headers);
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(job->body.size()));
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, job->body.data());
    impl_->run(easy, std::move(job));
    return true;
}

bool Outgoing::mail(const std::string& to, std::string message, Done done) {
    const OutgoingOptions& o = impl_->options;
    if (impl_->jobs.size() >= o.requests_max) return false;
    auto job = std::make_unique<Impl::Job>();
    job->done = std::move(done);
    job->body = std::move(message);
    CURL* easy = impl_->begin(o.smtp_url, *job);
    job->recipients = curl_slist_append(nullptr, ("<" + to + ">").c_str());
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "smtp,smtps");
    curl_easy_setopt(easy, CURLOPT_MAIL_FROM, ("<" + o.smtp_from + ">").c_str());
    curl_easy_setopt(easy, CURLOPT_MAIL_RCPT, job->recipients);
    curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, Impl::give);
    curl_easy_setopt(easy, CURLOPT_READDATA, job.get());
    if (o.starttls != "no")
        curl_easy_setopt(easy, CURLOPT_USE_SSL,
                         o.starttls == "required" ? static_cast<long>(CURLUSESSL_ALL)
                                                  : static_cast<long>(CURLUSESSL_TRY));
    if (!o.smtp_user.empty()) {
        curl_easy_setopt(easy, CURLOPT_USERNAME, o.smtp_user.c_str());
        curl_easy_setopt(easy, CURLOPT_PASSWORD, o.smtp_password.c_str());
    }
    impl_->run(easy, std::move(job));
    return true;
}

void Outgoing::step(int wait_ms, int extra_fd) {
    int still = 0;
    curl_multi_perform(impl_->multi, &still);
    curl_waitfd extra{extra_fd, CURL_WAIT_POLLIN, 0};
    curl_multi_poll(impl_->multi, &extra, extra_fd >= 0 ? 1 : 0, wait_ms, nullptr);
    curl_multi_perform(impl_->multi, &still);
    int left = 0;
    while (CURLMsg* said = curl_multi_info_read(impl_->multi, &left))
        if (said->msg == CURLMSG_DONE) impl_->ended(said->easy_handle, said->data.result);
}

}  // namespace parley::notify
