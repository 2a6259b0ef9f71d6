// Idempotency of requests without a conversation: the same key, the same answer, for as long as the store
// keeps keys (25 h), over restarts and over all chatd on a store.
//
// Routes   /v1/messages and /v1/chat/completions. What is kept is what the client was told, in its route's
//          words; the route is a part of the fingerprint.
// Key      `idempotency-key`, else (an option) `x-request-id`, of one user of one org. Only an admitted
//          request takes it, durably, before its first byte; its owner is this chatd's boot id. A request
//          that fails, or that ends because nobody listens, frees it.
// Repeat   running here or in another chatd: attached to it (in another chatd, one object and a stream of
//          chunks are waited for in the store). Finished: the stored bytes again. Running in a chatd that is dead:
//          taken over and asked anew.
// Bound    an answer of more than kKeptMax is not kept: its key is freed at its end.
// Threads  the loop's.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "exchange.hpp"

namespace parley::chatd {

inline constexpr size_t kIdempotencyKeyMax = 512;

// What the headers say; "" for none. `fingerprint` is of the body.
std::string idempotency_key(const Exchange& exchange, const std::string& fingerprint);

struct IdemKey {
    store::Ulid user;
    std::string key, fingerprint;
    bool stream = false;
    bool openai = false;
    static constexpr const char* kScope = "messages";
    std::string place() const { return std::string(user.view()) + key; }
};

// nullopt: none was given. An error for one that is too long.
tl::expected<std::optional<IdemKey>, messages::ApiError> idem_key_of(const Exchange& exchange,
                                                                     bool stream);

// A running answer that others may listen to.
class Joinable {
  public:
    virtual ~Joinable() = default;
    virtual void join(const ExchangePtr& exchange) = 0;
};

class Idempotency {
  public:
    static constexpr size_t kKeptMax = 5u << 20;  // bytes of an answer

    explicit Idempotency(App& app) : app_(app) {}

    // Answers the exchange if the key is known; else, now or after a dead owner's key was freed, calls
    // `fresh`: nobody has it as far as we see.
    void look(const ExchangePtr& exchange, const IdemKey& key, std::function<void()> fresh);
    // Takes the key durably, then calls `taken`. When another was faster the exchange is answered from
    // its request.
    void take(const ExchangePtr& exchange, const IdemKey& key, const std::string& message_id,
              std::function<void()> taken);
    void running(const IdemKey& key, const std::shared_ptr<Joinable>& answer);
    // The end: kept and then `done`, in kDoneWaitMs at the latest; or freed, without waiting.
    void keep(const IdemKey& key, bool stream, const std::string& bytes,
              std::function<void()> done);
    void free(const IdemKey& key);

  private:
    class Wait;
    void replay(const ExchangePtr& exchange, const std::string& result);
    App& app_;
    std::map<std::string, std::weak_ptr<Joinable>> running_;  // by place()
    // Takes under way, and who looks meanwhile: the row is there before the reply.
    std::map<std::string, std::vector<std::function<void()>>> taking_;
};

}  // namespace parley::chatd
