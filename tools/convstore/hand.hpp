// Hand: commands of the admin verbs, to the running store or, where none runs, to the store itself.
#pragma once

#include <fmt/format.h>
#include <simdjson.h>

#include <memory>
#include <string>
#include <thread>

#include "options.hpp"
#include "store/client.hpp"
#include "store/commands.hpp"
#include "store/reader.hpp"

namespace parley::convstore {

using base::Errc;
using base::fail;
using base::Result;

// The org of a name or an id.
Result<store::Ulid> org_id(store::Reader& reader, const std::string& org);

// Whoever holds the writer's lock runs the command: the server through its socket, or, when the lock is
// free, we do. Never two writers: opening takes the lock or fails.
class Hand {
  public:
    explicit Hand(const Options& o) : o_(o) {}

    Result<void> reach() {
        const int64_t until_ms = base::system_clock().mono_ms() + o_.wait_ms;
        for (;;) {
            store::WriterOptions options;
            options.env.dir = o_.places().store();
            options.env.map_bytes = o_.server.writer.env.map_bytes;
            auto writer = store::Writer::open(options);
            if (writer) {
                writer_ = std::move(*writer);
                return {};
            }
            if (writer.error().code != Errc::conflict) return fail(writer.error());
            if (!client_) {
                store::ClientOptions asker;
                asker.endpoint = o_.places().store_endpoint();
                asker.name = "convstore-admin";
                auto client = store::Client::connect(asker);
                if (!client) return fail(client.error());
                client_ = std::move(*client);
            }
            const int64_t look_again_ms = base::system_clock().mono_ms() + 200;
            while (base::system_clock().mono_ms() < look_again_ms) {
                client_->step();
                if (client_->connected()) return {};
                std::this_thread::sleep_for(std::chrono::milliseconds(2));
            }
            if (base::system_clock().mono_ms() >= until_ms)
                return fail(
                    Errc::unavailable,
                    fmt::format("a writer holds the store '{}', and nothing answers at '{}': is it "
                                "starting, or stuck?",
                                options.env.dir, o_.places().store_endpoint()));
        }
    }

    // The reply object of a command that succeeded.
    Result<std::string> run(const std::string& command) {
        if (writer_) {
            auto outcome = writer_->apply_one(command);
            if (!outcome) return fail(outcome.error());
            if (!outcome->refused) return std::move(outcome->json);
            return fail(outcome->code, text(outcome->json, "/error/what"));
        }
        auto reply = client_->call(command, o_.wait_ms);
        if (!reply) return fail(reply.error());
        if (reply->error) return fail(*reply->error);
        return std::move(reply->json);
    }

    static std::string text(std::string_view json, std::string_view pointer) {
        simdjson::dom::parser parser;
        std::string_view value;
        if (parser.parse(json).at_pointer(pointer).get(value) != simdjson::SUCCESS) return {};
        return std::string(value);
    }

  private:
    const Options& o_;
    std::unique_ptr<store::Writer> writer_;
    std::unique_ptr<store::Client> client_;
};

}  // namespace parley::convstore
